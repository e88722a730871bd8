# Copyright 2026 The dig2dig Authors
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""Theorem 1 against slow literal float64 references, and in cases whose answer is known."""

from dataclasses import replace
import math

from information import (
    contrasting_regions,
    cumulative_gain,
    distance,
    guidance_covariance,
    project,
    Region,
)
import numpy as np
import pytest
import torch

from dig2dig_ros.fusion.information_gain import information_gain
from dig2dig_ros.fusion.sampler import sample
from dig2dig_ros.fusion.settings import FusionSettings
from dig2dig_ros.priors.base import linear_alpha_bar, Prior, PriorError

HEIGHT, WIDTH = 6, 7
SCALE = 0.8


class GaussianPrior(Prior):
    """The exact denoiser of independent pixels x_0 ~ N(0, 1/4)."""

    def __init__(self):
        super().__init__('gaussian', linear_alpha_bar())

    def denoise(self, noisy, timesteps):
        level = self.alpha_bar[timesteps].view(-1, 1, 1, 1)
        factor = level.sqrt() * 0.25 / (level * 0.25 + 1 - level)
        return factor.to(noisy.dtype) * noisy


def images(count, seed, height=HEIGHT, width=WIDTH):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand((count, 1, height, width), generator=generator, dtype=torch.float64) * 2 - 1


def noise(index):
    generator = torch.Generator().manual_seed(100 + index)
    return torch.randn((1, 1, HEIGHT, WIDTH), generator=generator, dtype=torch.float64)


def states(sources, **changes):
    settings = FusionSettings(
        **{
            'sampler': 'ddim',
            'num_inference_steps': 4,
            'dig_refresh_interval': 2,
            'first_timestep': 400,
            'gain_window': 3,
            'normalize_gain': True,
            'temperature': 0.5,
            'guidance_scale': SCALE,
            'noise_draws': 1,
            **changes,
        }
    )
    seen = []
    sample(GaussianPrior(), sources, lambda i: noise(i).to(sources), settings, seen.append)
    return seen


def measure(state, sources, ideal, window=3, scale=SCALE):
    return guidance_covariance(state, sources, ideal, GaussianPrior(), scale, window)


def window_weights(window):
    """Return (pixels, pixels): what each pixel counts in the mean around each pixel."""
    first = {1: 1, 3: 1, 5: 3}[window]

    def box(length, side):
        matrix = np.zeros((length, length))
        for i in range(length):
            inside = [j for j in range(length) if abs(i - j) <= side // 2]
            matrix[i, inside] = 1 / len(inside)
        return matrix

    rows, columns = (
        box(length, window + 1 - first) @ box(length, first) for length in (HEIGHT, WIDTH)
    )
    return np.kron(rows, columns)


def gradient(function, x, where):
    """Differentiate numerically with respect to the pixels ``where``; the others get zero."""
    step = 1e-5
    result = np.zeros_like(x)
    for q in where:
        up, down = x.copy(), x.copy()
        up[q] += step
        down[q] -= step
        result[q] = (function(up) - function(down)) / (2 * step)
    return result


def literal_projections(state, sources, ideal, window):
    """Return (K, pixels): v_t . grad log p(c_k | x_t) over the norm of v_t, pixel by pixel."""
    level = float(linear_alpha_bar()[state.timestep])
    x, x0 = state.x.numpy().ravel(), state.x0.numpy().ravel()
    target = ideal.numpy().ravel()
    # Without back-propagation through the prior, the estimate is x_t / sqrt(alpha_bar) + constant.
    constant = x0 - x / math.sqrt(level)
    variance = (1 - level) / (level * SCALE)
    weights = window_weights(window)
    result = np.zeros((len(sources), x.size))
    for k, source in enumerate(sources.numpy().reshape(len(sources), -1)):

        def log_likelihood(noisy, source=source):
            return -np.sum((source - noisy / math.sqrt(level) - constant) ** 2) / (2 * variance)

        score = gradient(log_likelihood, x, range(x.size))
        for p in range(x.size):

            def zeta(noisy, p=p):
                error = noisy / math.sqrt(level) + constant - target
                return math.sqrt(np.sum(weights[p] * error**2))

            v = -gradient(zeta, x, np.flatnonzero(weights[p]))
            result[k, p] = v @ score * math.sqrt(level)
    return result


@pytest.mark.parametrize('sampler', ['ddim', 'ancestral'])
@pytest.mark.parametrize('window', [1, 3, 5])
def test_covariance_follows_the_literal_equations(sampler, window):
    sources, ideal = images(2, 1), images(1, 2)
    chain = states(sources, sampler=sampler)
    state, following = chain[1], chain[2]
    found = measure(state, sources, ideal, window)
    expected = literal_projections(state, sources, ideal, window)
    weights = state.weights.numpy().reshape(2, -1)
    covariance = [np.cov(w, b, bias=True)[0, 1] for w, b in zip(weights, expected, strict=True)]
    np.testing.assert_allclose(found.covariance, covariance, rtol=1e-6)
    np.testing.assert_allclose(found.weight, weights.mean(axis=1), rtol=1e-10)
    np.testing.assert_allclose(found.projection, expected.mean(axis=1), rtol=1e-6)
    spread = math.sqrt(weights.var(axis=1).sum() * expected.var(axis=1).sum())
    assert found.correlation == pytest.approx(sum(covariance) / spread, rel=1e-6)

    a, b = (float(linear_alpha_bar()[s.timestep]) for s in (state, following))
    if sampler == 'ancestral':
        rate = (1 - a / b) / math.sqrt(a / b)
    else:
        # Of the estimate and the noise in it, how much comes from the score.
        rate = math.sqrt(b / a) * (1 - a) - math.sqrt((1 - b) * (1 - a))
    assert found.coefficient == pytest.approx(rate / math.sqrt(a), rel=1e-6)
    assert found.covariance_term == pytest.approx(found.coefficient * sum(covariance), rel=1e-6)


def test_window_of_one_pixel_is_the_score_signed_by_the_way_to_the_ideal():
    estimate = torch.zeros(1, 1, 1, 3)
    ideal = torch.tensor([[[[1.0, -0.2, 0.0]]]])
    source = torch.full((1, 1, 1, 3), 0.5)
    found = project(estimate, source, ideal, level=0.36, guidance_scale=1.0, window=1)
    score = 0.6 / 0.64 * 0.5
    torch.testing.assert_close(found, torch.tensor([[[[score, -score, 0.0]]]]))


def test_terms_say_how_the_distance_changes_to_first_order():
    sources, ideal = images(3, 3), images(1, 4)
    state = states(sources, weights='uniform')[1]
    found = measure(state, sources, ideal)
    root = math.sqrt(float(linear_alpha_bar()[state.timestep]))
    small = 1e-6

    def mean_distance(share):
        return float(distance(state.x0 + share * state.multimodal / root, ideal, 3).mean())

    slope = (mean_distance(small) - mean_distance(-small)) / (2 * small)
    assert slope == pytest.approx(-found.coefficient * np.mean(found.projection), rel=1e-6)
    assert found.mean_term == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize('count', [2, 3])
def test_uniform_weights_have_exactly_no_covariance(count):
    sources, ideal = images(count, 5), images(1, 6)
    for dtype in (torch.float32, torch.float64):
        for state in states(sources.to(dtype), weights='uniform'):
            found = measure(state, sources.to(dtype), ideal.to(dtype))
            assert found.covariance == (0.0,) * count
            assert found.total == found.covariance_term == 0
            assert math.isnan(found.correlation)


@pytest.mark.parametrize(('sign', 'count'), [(1, 2), (-1, 2), (1, 3), (-1, 3)])
def test_weights_that_follow_the_projections_have_a_positive_covariance(sign, count):
    sources, ideal = images(count, 7), images(1, 8)
    for state in states(sources):
        level = float(linear_alpha_bar()[state.timestep])
        projections = project(state.x0, sources, ideal, level, SCALE, 3)
        weights = torch.softmax(sign * projections / projections.std(), dim=0)
        found = measure(replace(state, weights=weights), sources, ideal)
        assert sign * found.total > 0
        assert 0 < sign * found.correlation <= 1


def test_sharp_halves_attract_the_information_gain():
    # x* with detail everywhere; each source lacks it in one half.
    ideal = images(1, 9)
    blank = torch.zeros(1, 1, HEIGHT, 3, dtype=torch.float64)
    left = torch.cat([ideal[..., :-3], blank], dim=-1)
    right = torch.cat([torch.zeros_like(ideal[..., :4]), ideal[..., 4:]], dim=-1)
    sources = torch.cat([left, right])
    for rule, sign in (('dig', 1), ('rd', -1)):
        for state in states(sources, weights=rule, first_timestep=300):
            assert sign * measure(state, sources, ideal).total > 0


def test_estimate_that_is_ideal_already_has_no_direction_to_go():
    sources = images(2, 10)
    state = states(sources)[0]
    found = measure(state, sources, state.x0.clone())
    assert found.projection == (0.0, 0.0)


def test_what_has_no_chain_is_refused():
    sources, ideal = images(2, 11), images(1, 12)
    for state in states(sources, sampler='increments'):
        with pytest.raises(ValueError, match='no score'):
            measure(state, sources, ideal)


def test_cumulative_gain_sums_the_gains_of_a_region():
    sources = images(2, 13)
    prior = GaussianPrior()
    timesteps = (500, 200, 50)
    region = Region(2, 1, 4, 3)
    regions = {'part': region, 'whole': Region(0, 0, WIDTH, HEIGHT)}
    part, full = cumulative_gain(prior, sources, timesteps, [noise(0)], regions, 'l2', 3)
    assert part.timesteps.tolist() == [500, 200, 50, 0]

    levels = prior.alpha_bar.numpy()
    eps = noise(0).numpy()[0, 0]
    loss = np.zeros((2, 4, HEIGHT, WIDTH))
    for k, source in enumerate(sources.numpy()[:, 0]):
        for r, t in enumerate(timesteps):
            a = levels[t]
            noisy = np.sqrt(a) * source + np.sqrt(1 - a) * eps
            estimate = np.sqrt(a) * 0.25 / (a * 0.25 + 1 - a) * noisy
            error = ((estimate - source) ** 2).ravel()
            loss[k, r] = (window_weights(3) @ error).reshape(HEIGHT, WIDTH)
    gained = loss[:, :1] - loss
    for curve, maps in ((part, gained[..., 1:4, 2:6]), (full, gained)):
        np.testing.assert_allclose(curve.mean, maps.mean(axis=(2, 3)), rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(curve.variance, maps.var(axis=(2, 3)), rtol=1e-9, atol=1e-12)

    estimates = torch.stack(
        [
            prior.denoise(
                levels[t] ** 0.5 * sources + (1 - levels[t]) ** 0.5 * noise(0), torch.tensor([t])
            )
            for t in timesteps
        ]
    )
    gains = information_gain(estimates, sources, 'l2', 3).mean(dim=(2, 3, 4))
    np.testing.assert_allclose(np.diff(full.mean), gains.T, rtol=1e-9)


@pytest.mark.parametrize(
    ('timesteps', 'region', 'reason'),
    [
        ((), (0, 0, 2, 2), 'decreasing'),
        ((50, 200), (0, 0, 2, 2), 'decreasing'),
        ((50, 0), (0, 0, 2, 2), 'above 0'),
        ((50,), (6, 0, 2, 2), '7x6'),
        ((50,), (0, 0, 0, 2), '0,0,0,2'),
        ((50,), (-1, 0, 2, 2), 'not within'),
    ],
)
def test_impossible_curves_are_refused(timesteps, region, reason):
    with pytest.raises(ValueError, match=reason):
        cumulative_gain(GaussianPrior(), images(2, 14), timesteps, [], {'a': Region(*region)})


def test_unknown_noise_levels_are_refused():
    with pytest.raises(PriorError, match='1000'):
        cumulative_gain(GaussianPrior(), images(2, 14), (1000, 5), [], {'a': Region(0, 0, 2, 2)})


def test_contrasting_regions_lie_where_the_sources_differ():
    pattern = torch.tensor([1.0, -1.0]).repeat(10)
    texture = pattern[:, None] * pattern[None, :]
    sources = torch.zeros(2, 1, 20, 20)
    sources[0, 0, 2:8, 3:9] = texture[2:8, 3:9]
    sources[1, 0, 12:18, 1:7] = texture[12:18, 1:7]
    sources[:, 0, 12:18, 12:18] = texture[12:18, 12:18]
    found = contrasting_regions(sources, 6)
    assert found == [Region(3, 2, 6, 6), Region(1, 12, 6, 6), Region(12, 12, 6, 6)]
    assert contrasting_regions(sources, 20) == [Region(0, 0, 20, 20)] * 3
