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

import pytest
import torch

from dig2dig_ros.fusion.estimates import estimate_sources, matched_timesteps, timesteps_of_means
from dig2dig_ros.fusion.information_gain import cell_means, refined
from fusion.priors import GaussianPrior, random_sources


def noise(index):
    generator = torch.Generator().manual_seed(4 + index)
    return torch.randn((1, 1, 8, 10), generator=generator, dtype=torch.float64)


def test_noise_is_matched_by_the_nearest_timestep():
    prior = GaussianPrior()
    ratio = ((1 - prior.alpha_bar) / prior.alpha_bar).sqrt()
    times = matched_timesteps(prior, [float(ratio[3]), float(ratio[400]), 1e-6])
    assert times == (3, 400, 0)


def test_estimates_are_the_mean_over_the_draws():
    prior, sources = GaussianPrior(), random_sources()
    draws = [noise(index) for index in range(3)]
    mean, _ = estimate_sources(prior, sources, (300, 40), draws)
    single = [estimate_sources(prior, sources, (300, 40), [draw])[0] for draw in draws]
    torch.testing.assert_close(mean, torch.stack(single).mean(dim=0))
    assert mean.shape == (2, 2, 1, 8, 10)


@pytest.mark.parametrize('downscale', [2, 4])
def test_the_mean_of_noisy_pixels_is_a_less_noisy_pixel(downscale):
    prior = GaussianPrior()
    timesteps = (999, 700, 400, 100, 20)
    smaller = timesteps_of_means(prior, timesteps, downscale)
    ratios = ((1 - prior.alpha_bar) / prior.alpha_bar).sqrt()
    for timestep, less in zip(timesteps, smaller, strict=True):
        assert less < timestep
        # As near as the timesteps are to each other.
        nearest = ratios[less - 1] / 2 + ratios[less] / 2, ratios[less] / 2 + ratios[less + 1] / 2
        assert nearest[0] <= ratios[timestep] / downscale <= nearest[1]
    assert timesteps_of_means(prior, timesteps, 1) == timesteps


@pytest.mark.parametrize('draws', [0, 1, 2])
@pytest.mark.parametrize('size', [(8, 12), (7, 9)], ids=str)
def test_estimates_of_smaller_images(draws, size):
    prior, sources = GaussianPrior(), random_sources(2, *size)
    generator = torch.Generator().manual_seed(1)
    eps = [
        torch.randn((1, 1, *size), generator=generator, dtype=torch.float64) for _ in range(draws)
    ]
    found, _ = estimate_sources(prior, sources, (400, 100), eps, downscale=2)
    expected = []
    for less in timesteps_of_means(prior, (400, 100), 2):
        level = prior.alpha_bar[less]
        of_draws = []
        for one in eps or [torch.zeros_like(sources[:1])]:
            # The noisy means, as an image at the lower timestep has them.
            noisy = level.sqrt() * cell_means(sources, 2)
            noisy = noisy + (1 - level).sqrt() * 2 * cell_means(one, 2)
            of_draws.append(prior.denoise(noisy, torch.tensor([less])))
        expected.append(refined(torch.stack(of_draws).mean(0), 2, *size))
    torch.testing.assert_close(found, torch.stack(expected))
