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

"""The guidances against slow literal float64 references, and what they promise."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from dig2dig_ros.fusion.guidance import (
    EM_COUPLING,
    em_guidance,
    EM_SMOOTHNESS,
    score_guidance,
    weighted_increment,
)


def random_images(count=2, height=6, width=7, seed=2):
    generator = torch.Generator().manual_seed(seed)
    shape = (count, 1, height, width)
    return torch.rand(shape, generator=generator, dtype=torch.float64) * 2 - 1


def random_weights(count=2, height=6, width=7):
    return torch.softmax(2 * random_images(count, height, width, seed=5), dim=0)


def test_score_guidance_moves_from_the_prior_to_the_weighted_sources():
    estimate, sources, weights = random_images(1, seed=1), random_images(3), random_weights(3)
    target = (weights * sources).sum(dim=0, keepdim=True)
    assert torch.equal(score_guidance(estimate, sources, weights, 0.0), estimate)
    torch.testing.assert_close(score_guidance(estimate, sources, weights, 1.0), target)
    torch.testing.assert_close(
        score_guidance(estimate, sources, weights, 0.25), estimate + 0.25 * (target - estimate)
    )


def literal_em(f, sources, gammas):
    """Follow the E- and the M-step of DDFM pixel by pixel, with a dense linear system."""
    height, width = f.shape
    x = f - sources[0]
    z = np.zeros((height, width))
    # Normal equations of psi |grad z|^2 + eta |z - x|^2, one row for each pixel.
    pixels = height * width
    system, right = np.zeros((pixels, pixels)), np.zeros(pixels)
    for row in range(height):
        for column in range(width):
            here = row * width + column
            system[here, here] += EM_COUPLING
            right[here] = EM_COUPLING * x[row, column]
            for other in (
                ((row + 1) % height) * width + column,
                row * width + (column + 1) % width,
            ):
                system[here, here] += EM_SMOOTHNESS
                system[other, other] += EM_SMOOTHNESS
                system[here, other] -= EM_SMOOTHNESS
                system[other, here] -= EM_SMOOTHNESS
    z = np.linalg.solve(system, right).reshape(height, width)
    fused, new_gammas = np.zeros((height, width)), []
    for row in range(height):
        for column in range(width):
            top, bottom = EM_COUPLING * z[row, column], EM_COUPLING
            for k, source in enumerate(sources):
                y = source[row, column] - sources[0][row, column]
                distance = max(abs(y - x[row, column]), 1e-3)
                precision = np.sqrt(2 / gammas[k]) / distance
                top += precision * y
                bottom += precision
            fused[row, column] = top / bottom + sources[0][row, column]
    for k, source in enumerate(sources):
        distance = np.abs(source - f)
        new_gammas.append(np.mean(distance * np.sqrt(gammas[k] / 2) + gammas[k] / 2))
    return fused, new_gammas


@pytest.mark.parametrize(('count', 'height'), [(2, 6), (3, 6), (2, 5)])
def test_em_follows_the_literal_equations(count, height):
    estimate, sources = random_images(1, height, seed=1), random_images(count, height)
    gammas = [1.0, 0.3, 0.7][:count]
    scales = torch.tensor(gammas, dtype=sources.dtype).view(-1, 1, 1, 1)
    fused, shares, scales = em_guidance(estimate, sources, scales)
    expected, new_gammas = literal_em(estimate[0, 0].numpy(), sources[:, 0].numpy(), gammas)
    np.testing.assert_allclose(fused[0, 0], expected, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(scales.flatten(), new_gammas, rtol=1e-12)
    torch.testing.assert_close(shares.sum(dim=0), torch.ones_like(shares[0]))


def test_em_comes_closer_to_both_sources_than_a_poor_estimate():
    estimate, sources = random_images(1, seed=1), random_images(2)
    scales = torch.ones((2, 1, 1, 1))
    distances = []
    for _ in range(6):
        distances.append(float((estimate - sources).abs().sum()))
        estimate, _, scales = em_guidance(estimate, sources, scales)
    assert distances[-1] < 0.9 * distances[0]
    assert all(after <= before + 0.01 for before, after in pairwise(distances))


def test_em_trusts_the_source_that_the_estimate_is_near():
    sources = torch.stack([torch.zeros((1, 4, 4)), torch.ones((1, 4, 4))])
    estimate = torch.full((1, 1, 4, 4), 0.1)
    _, shares, _ = em_guidance(estimate, sources, torch.ones((2, 1, 1, 1)))
    assert float(shares[0].min()) > 0.8


def test_em_keeps_what_all_sources_agree_on():
    source = random_images(1)
    fused, _, _ = em_guidance(source, source.repeat(2, 1, 1, 1), torch.ones((2, 1, 1, 1)))
    torch.testing.assert_close(fused, source)


@pytest.mark.parametrize('gain', [1.0, 1.2, 2.0])
def test_identical_increments_are_not_amplified(gain):
    increment = random_images(1)
    total = weighted_increment(increment.repeat(2, 1, 1, 1), random_weights(), gain)
    torch.testing.assert_close(total, increment)


def test_contrast_that_averaging_takes_comes_back_up_to_the_limit():
    increments = random_images(2, 32, 32)
    weights = torch.full_like(increments, 0.5)
    plain = weighted_increment(increments, weights, 1.0)
    torch.testing.assert_close(plain, increments.mean(dim=0, keepdim=True))
    full = weighted_increment(increments, weights, 2.0)
    power = float(increments.square().mean())
    assert float(full.square().mean()) == pytest.approx(power, rel=1e-3)
    torch.testing.assert_close(weighted_increment(increments, weights, 1.1), 1.1 * plain)


def test_contrast_within_a_window_comes_back_only_where_it_is_missing():
    increments = random_images(2, 64, 96)
    increments[1, :, :, :48] = increments[0, :, :, :48]  # the sources agree on the left
    weights = torch.full_like(increments, 0.5)
    plain = weighted_increment(increments, weights, 1.0)
    local = weighted_increment(increments, weights, 1.3, window=9)
    torch.testing.assert_close(local[..., :36], plain[..., :36])
    torch.testing.assert_close(local[..., 60:], 1.3 * plain[..., 60:], rtol=0.05, atol=0)
    everywhere = weighted_increment(increments, weights, 1.3)
    assert float((everywhere - plain)[..., :36].abs().max()) > 0.01


def test_one_trusted_increment_comes_back_as_it_is():
    increments = random_images(3)
    weights = torch.zeros_like(increments)
    weights[1] = 1
    torch.testing.assert_close(weighted_increment(increments, weights, 1.5)[0], increments[1])


def test_increments_of_nothing_are_nothing():
    nothing = torch.zeros((2, 1, 5, 5))
    total = weighted_increment(nothing, torch.full_like(nothing, 0.5), 1.2)
    assert torch.equal(total, nothing[:1])
