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

"""The samplers against slow literal float64 references, with a prior whose answers are known."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from dig2dig_ros.fusion import estimates
from dig2dig_ros.fusion.linear_operators import down_sampling
from dig2dig_ros.fusion.observation import Observation
from dig2dig_ros.fusion.sampler import sample
from dig2dig_ros.fusion.settings import FusionSettings
from dig2dig_ros.priors import PriorError
from fusion.priors import GaussianPrior, random_sources

CHAIN = FusionSettings(
    sampler='ddim',
    num_inference_steps=5,
    dig_refresh_interval=2,
    noise_draws=1,
    gain_window=5,
    structure_window=9,
)
INCREMENTS = replace(CHAIN, sampler='increments', noise_draws=0, guidance='score')
ALL_SETTINGS = {
    'increments': INCREMENTS,
    'increments with noise': replace(INCREMENTS, noise_draws=2),
    'ddim': CHAIN,
    'ddim without noise': replace(CHAIN, noise_draws=0),
    'ancestral': replace(CHAIN, sampler='ancestral'),
    'em': replace(CHAIN, sampler='ancestral', guidance='em'),
    'uniform': replace(CHAIN, weights='uniform'),
}


def noise(index):
    generator = torch.Generator().manual_seed(4 + index)
    return torch.randn((1, 1, 8, 10), generator=generator, dtype=torch.float64)


def run(settings, sources=None, prior=None, callback=None):
    prior = prior or GaussianPrior()
    sources = random_sources() if sources is None else sources
    return sample(prior, sources, noise, settings, callback)


def literal_denoise(prior, x, t):
    level, variance = float(prior.alpha_bar[t]), prior.variance
    return np.sqrt(level) * variance / (level * variance + 1 - level) * x


def literal_chain(prior, sources, settings, weights):
    """Follow Eq. 9, 10, 2 and 3 one by one in NumPy."""
    alpha_bar = prior.alpha_bar.numpy()
    times = settings.timesteps
    c, scale = sources[:, 0].numpy(), settings.guidance_scale
    eps = noise(0)[0, 0].numpy()
    x = np.sqrt(alpha_bar[times[0]]) * c.mean(axis=0) + np.sqrt(1 - alpha_bar[times[0]]) * eps
    for step, t in enumerate(times):
        here = alpha_bar[t]
        following = alpha_bar[times[step + 1]] if step + 1 < len(times) else 1.0
        alpha = here / following
        x0 = literal_denoise(prior, x, t)
        eps_theta = (x - np.sqrt(here) * x0) / np.sqrt(1 - here)
        unconditional = -eps_theta / np.sqrt(1 - here)
        # Conditional scores of the Gaussian likelihood, with d x0 / d x_t = 1 / sqrt(alpha_bar).
        variance = (1 - here) / (here * scale) if scale else np.inf
        conditional = sum(
            weights[step // settings.dig_refresh_interval, k, 0].numpy()
            * (c[k] - x0)
            / variance
            / np.sqrt(here)
            for k in range(len(c))
        )
        score = unconditional + conditional
        if settings.sampler == 'ancestral':
            z = noise(1 + step)[0, 0].numpy()
            sigma = np.sqrt((1 - alpha) * (1 - following) / (1 - here))
            x = (x + (1 - alpha) * score) / np.sqrt(alpha) + sigma * z
        else:
            guided_eps = -np.sqrt(1 - here) * score
            guided_x0 = (x - np.sqrt(1 - here) * guided_eps) / np.sqrt(here)
            x = np.sqrt(following) * guided_x0 + np.sqrt(1 - following) * guided_eps
    return x


@pytest.mark.parametrize('scale', [0.0, 0.3, 0.8, 1.0])
@pytest.mark.parametrize('name', ['ddim', 'ancestral'])
def test_chain_follows_the_literal_equations(name, scale):
    prior, sources = GaussianPrior(), random_sources()
    settings = replace(ALL_SETTINGS[name], guidance_scale=scale)
    result = run(settings, sources, prior)
    expected = literal_chain(prior, sources, settings, result.weights)
    np.testing.assert_allclose(result.fused[0, 0], expected, rtol=1e-9, atol=1e-11)


def test_every_timestep_in_turn_is_equation_1():
    """With all 1000 steps and no guidance, the ancestral chain is Eq. 1 as printed."""
    prior, sources = GaussianPrior(), random_sources(2, 3, 4)
    settings = replace(
        CHAIN,
        sampler='ancestral',
        num_inference_steps=60,
        first_timestep=60,
        timestep_spacing='uniform',
        guidance_scale=0.0,
        dig_refresh_interval=60,
    )

    def small_noise(index):
        return noise(index)[..., :3, :4]

    result = sample(prior, sources, small_noise, settings)
    beta = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64).numpy()
    alpha_bar = np.cumprod(1 - beta)
    start = alpha_bar[60]
    x = np.sqrt(start) * sources[:, 0].numpy().mean(axis=0)
    x = x + np.sqrt(1 - start) * small_noise(0)[0, 0].numpy()
    for step, t in enumerate(range(60, 1, -1)):
        x0 = literal_denoise(prior, x, t)
        eps_theta = (x - np.sqrt(alpha_bar[t]) * x0) / np.sqrt(1 - alpha_bar[t])
        sigma = np.sqrt(beta[t] * (1 - alpha_bar[t - 1]) / (1 - alpha_bar[t]))
        x = (x - beta[t] / np.sqrt(1 - alpha_bar[t]) * eps_theta) / np.sqrt(1 - beta[t])
        x = x + sigma * small_noise(1 + step)[0, 0].numpy()
    x = literal_denoise(prior, x, 1)
    np.testing.assert_allclose(result.fused[0, 0], x, rtol=1e-9, atol=1e-11)


def test_increments_follow_the_literal_sum():
    prior, sources = GaussianPrior(), random_sources()
    settings = replace(INCREMENTS, contrast_gain=1.0, overshoot=1.0)
    result = run(settings, sources, prior)
    c = sources[:, 0].numpy()
    levels = [np.stack([np.full_like(image, image.mean()) for image in c])]
    for t in settings.refresh_timesteps:
        scaled = np.sqrt(float(prior.alpha_bar[t])) * c
        levels.append(np.stack([literal_denoise(prior, image, t) for image in scaled]))
    levels.append(c)
    fused = (result.weighing.shares[:, 0].numpy() * levels[0]).sum(axis=0)
    for interval, (before, after) in enumerate(pairwise(levels)):
        fused = fused + (result.weights[interval, :, 0].numpy() * (after - before)).sum(axis=0)
    np.testing.assert_allclose(result.fused[0, 0], fused, rtol=1e-10, atol=1e-12)


def test_the_mean_brightness_is_that_of_sources_with_information():
    source = random_sources(1)
    # Two halves of different brightness: that is structure.
    source[..., : source.shape[-1] // 2] += 1.0
    sources = torch.cat([source, torch.full_like(source, -1.0)])
    shares = [
        run(replace(INCREMENTS, least_information=least), sources).weighing.shares.flatten()
        for least in (0.0, 0.25)
    ]
    assert shares[0].tolist() == [0.5, 0.5]
    assert float(shares[1].sum()) == pytest.approx(1)
    assert shares[1][1] < 0.25


def test_increments_decided_for_one_source_end_at_its_pixels():
    sources = random_sources()
    settings = replace(INCREMENTS, contrast_gain=1.0, temperature=0.02, decision_window=5)
    result = run(settings, sources)
    assert bool((result.weights == result.weights[:1]).all())
    assert result.weights[0].amax(dim=0).mean() > 0.9
    weighted = (result.weights[0] * sources).sum(dim=0, keepdim=True)
    np.testing.assert_allclose(result.fused, weighted, rtol=1e-10, atol=1e-12)
    # A camera that is not wanted has no say.
    thermal = run(replace(settings, thermal_strength=1.0), sources)
    np.testing.assert_allclose(thermal.fused, sources[1:], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize('overshoot', [0.0, 0.02])
def test_increments_stay_between_the_sources(overshoot):
    sources = random_sources()
    settings = replace(INCREMENTS, contrast_gain=2.0, overshoot=overshoot)
    free = run(replace(settings, overshoot=1.0), sources).fused
    fused = run(settings, sources).fused
    lowest = sources.amin(dim=0, keepdim=True) - 2 * overshoot
    highest = sources.amax(dim=0, keepdim=True) + 2 * overshoot
    assert bool(((free < lowest) | (free > highest)).any())
    # Rounding of a sum of increments is all that may be left.
    assert bool(((fused >= lowest - 1e-12) & (fused <= highest + 1e-12)).all())
    # Both bounds are reached, and so they are no narrower than that.
    assert float((fused - lowest).min()) == pytest.approx(0, abs=1e-12)
    assert float((highest - fused).min()) == pytest.approx(0, abs=1e-12)


def test_contrast_of_structure_is_that_of_the_frame_and_that_of_details_of_a_window():
    sources, increments = random_sources(), {}
    for contrast_gain in (1.0, 2.0):
        states = []
        settings = replace(INCREMENTS, contrast_gain=contrast_gain, overshoot=1.0)
        run(settings, sources, callback=states.append)
        increments[contrast_gain] = [state.guided - state.x for state in states]
    gains = [
        amplified / plain
        for plain, amplified in zip(increments[1.0], increments[2.0], strict=True)
    ]
    assert float(gains[0].max() - gains[0].min()) < 1e-9
    assert 1 < float(gains[0].mean()) < 2
    for details in gains[1:]:
        assert float(details.max() - details.min()) > 0.01


@pytest.mark.parametrize('name', ALL_SETTINGS)
def test_terms_of_equation_3_sum_up_to_the_next_state(name):
    states = []
    result = run(ALL_SETTINGS[name], callback=states.append)
    for state, following in zip(states, [*states[1:], None], strict=True):
        total = state.kept + state.unconditional + state.multimodal + state.noise
        expected = following.x if following else result.fused
        torch.testing.assert_close(total, expected)
    fresh = [bool(state.noise.abs().max() > 0) for state in states]
    assert any(fresh) == (ALL_SETTINGS[name].sampler == 'ancestral')
    assert not fresh[-1]


@pytest.mark.parametrize('name', ALL_SETTINGS)
def test_one_source_given_twice_comes_back_when_the_sources_are_trusted(name):
    source = random_sources(1)
    settings = replace(ALL_SETTINGS[name], guidance_scale=1.0)
    result = run(settings, source.repeat(2, 1, 1, 1))
    # The likelihood of EM is strong, but its smoothness never quite lets go.
    tolerance = 0.02 if settings.guidance == 'em' else 1e-9
    torch.testing.assert_close(result.fused[0], source[0], atol=tolerance, rtol=0)


@pytest.mark.parametrize('name', [name for name in ALL_SETTINGS if name != 'em'])
def test_swapping_the_sources_changes_nothing_but_the_order_of_the_weights(name):
    sources = random_sources()
    one, other = run(ALL_SETTINGS[name], sources), run(ALL_SETTINGS[name], sources.flip(0))
    torch.testing.assert_close(one.fused, other.fused)
    torch.testing.assert_close(one.weights, other.weights.flip(1))


@pytest.mark.parametrize(
    ('name', 'batches'),
    [
        ('increments', [3 * 2]),
        ('increments with noise', [3 * 2 * 2]),
        ('ddim', [3 * 2 + 1, 1, 1, 1, 1]),
        ('ancestral', [3 * 2 + 1, 1, 1, 1, 1]),
        # Weights that no gain has a say in.
        ('em', [1, 1, 1, 1, 1]),
        ('uniform', [1, 1, 1, 1, 1]),
    ],
)
def test_all_that_does_not_depend_on_the_chain_shares_one_prior_call(name, batches):
    prior = GaussianPrior()
    run(ALL_SETTINGS[name], prior=prior)
    assert prior.batches == batches


@pytest.mark.parametrize('name', ['increments with noise', 'ddim'])
def test_large_batches_are_split_without_changing_the_result(name, monkeypatch):
    whole = run(ALL_SETTINGS[name])
    prior = GaussianPrior()
    monkeypatch.setattr(estimates, 'MAX_BATCH_PIXELS', 2 * 8 * 10)
    split = run(ALL_SETTINGS[name], prior=prior)
    assert max(prior.batches) == 2
    assert torch.equal(whole.fused, split.fused)


def test_callback_sees_every_step_of_a_chain():
    states = []
    result = run(CHAIN, callback=states.append)
    assert [state.timestep for state in states] == list(CHAIN.timesteps)
    torch.testing.assert_close(states[-1].guided, result.fused)
    assert torch.equal(states[1].weights, states[0].weights)
    assert not torch.equal(states[2].weights, states[1].weights)


def test_callback_sees_every_interval_of_the_increments():
    states = []
    result = run(INCREMENTS, callback=states.append)
    assert [s.timestep for s in states] == [1000, *INCREMENTS.refresh_timesteps]
    assert torch.equal(states[-1].guided, result.fused)
    for state, weights, gains in zip(states, result.weights, result.weighing.gains, strict=True):
        assert torch.equal(state.weights, weights)
        assert torch.equal(state.gains, gains)


@pytest.mark.parametrize('name', ALL_SETTINGS)
def test_three_sources(name):
    result = run(ALL_SETTINGS[name], random_sources(3))
    assert result.fused.shape == (1, 1, 8, 10)
    sums = result.weights.sum(dim=1)
    torch.testing.assert_close(sums, torch.ones_like(sums))


def test_em_makes_its_own_weights():
    one = run(ALL_SETTINGS['em'])
    other = run(replace(ALL_SETTINGS['em'], weights='uniform'))
    assert torch.equal(one.fused, other.fused)


def test_timesteps_that_the_prior_does_not_know_are_refused():
    prior = GaussianPrior()
    prior.alpha_bar = prior.alpha_bar[:300]
    with pytest.raises(PriorError, match='first_timestep'):
        run(INCREMENTS, prior=prior)


# Sources that were seen degraded


def observed(sources, index=1, noise=0.0):
    operator = down_sampling((8, 10), (4, 5))
    return Observation(operator(sources[index : index + 1]), operator, noise)


@pytest.mark.parametrize('name', ['ddim', 'ancestral'])
def test_a_chain_keeps_to_what_was_observed_and_to_the_fusion_at_every_step(name):
    scenes = random_sources()
    observation = observed(scenes)
    # What restoration made of it is not what was seen.
    sources = torch.stack([scenes[0], scenes[1] + 0.3])
    settings = replace(ALL_SETTINGS[name], weights='uniform', guidance_scale=0.7)
    states = []
    result = sample(GaussianPrior(), sources, noise, settings, states.append, (None, observation))
    for state in states:
        # guided = (1 - lambda) x0 + lambda (c_1 + c_2) / 2, with c_1 as it was.
        mixed = (state.guided - 0.3 * state.x0) / 0.7
        corrected = 2 * mixed - sources[:1]
        seen = observation.operator(corrected)
        # But for the rounding to 8 bits, which no observation is free of.
        torch.testing.assert_close(seen, observation.image, rtol=0, atol=0.02)
    plain = sample(GaussianPrior(), sources, noise, settings)
    wanted = scenes.mean(dim=0)
    error, uncorrected = ((found.fused - wanted).abs().mean() for found in (result, plain))
    assert error < 0.95 * uncorrected


def test_noisy_observations_are_not_satisfied_to_the_letter():
    sources = random_sources()
    settings = replace(ALL_SETTINGS['ddim'], weights='uniform')
    shifted = torch.stack([sources[0], sources[1] + 0.3])
    moves = []
    for deviation in (0.0, 0.05, 1.0):
        observation = observed(sources, noise=deviation)
        result = sample(GaussianPrior(), shifted, noise, settings, None, (None, observation))
        plain = sample(GaussianPrior(), shifted, noise, settings)
        moves.append(float((result.fused - plain.fused).abs().mean()))
    assert moves[0] > moves[1] > moves[2]
    assert moves[2] < 0.5 * moves[0]


def test_increments_take_restored_sources_as_they_are():
    sources = random_sources()
    first = sample(GaussianPrior(), sources, noise, INCREMENTS, None, (None, observed(sources)))
    torch.testing.assert_close(first.fused, run(INCREMENTS, sources).fused, rtol=0, atol=0)


def test_equal_weights_keep_every_pixel_whatever_the_prior_sees():
    settings = replace(INCREMENTS, weights='uniform', contrast_gain=1.0, overshoot=1.0)
    sources = random_sources()
    for downscale in (1, 2, 4):
        fused = run(replace(settings, prior_downscale=downscale), sources).fused
        torch.testing.assert_close(fused, sources.mean(dim=0, keepdim=True))


def test_a_chain_sees_all_pixels_but_for_the_gains():
    uniform = replace(CHAIN, weights='uniform')
    small = replace(uniform, prior_downscale=2)
    torch.testing.assert_close(run(small).fused, run(uniform).fused, rtol=0, atol=0)
    prior, whole = GaussianPrior(), GaussianPrior()
    small, full = run(replace(CHAIN, prior_downscale=2), prior=prior), run(CHAIN, prior=whole)
    assert sum(prior.batches) == sum(whole.batches)
    assert (small.weights - full.weights).abs().max() > 0.001


@pytest.mark.parametrize('settings', [INCREMENTS, CHAIN], ids=['increments', 'ddim'])
def test_a_source_of_noise_counts_less_once_its_noise_is_known(settings):
    sources = random_sources()
    settings = replace(settings, least_information=0.5)
    noisy = torch.tensor([0.0, 1.0], dtype=sources.dtype)
    usual, known = (
        sample(GaussianPrior(), sources, noise, settings, sensor_noise=given).weights
        for given in (None, noisy)
    )
    assert (known[:, 1] < usual[:, 1]).all()
