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

"""The chain against a slow literal float64 reference, with a prior whose answers are known."""

import numpy as np
import pytest
import torch

from dig2dig_ros.fusion import sampler
from dig2dig_ros.fusion.information_gain import information_gain, relative_gain, softmax_weights
from dig2dig_ros.fusion.sampler import sample
from dig2dig_ros.fusion.schedule import ReverseChain
from fusion.priors import GaussianPrior, random_sources

CHAIN = ReverseChain((400, 250, 120, 40, 10), dig_refresh_interval=2)


def weigh(gain):
    return softmax_weights(relative_gain(gain), 0.5)


def run(prior, sources, noise, guidance_scale=0.8, chain=CHAIN, callback=None):
    return sample(prior, sources, noise, chain, information_gain, weigh, guidance_scale, callback)


@pytest.fixture
def noise():
    generator = torch.Generator().manual_seed(4)
    return torch.randn((1, 1, 8, 10), generator=generator, dtype=torch.float64)


def literal_chain(prior, sources, noise, weights, scale):
    """Follow the equations one by one in NumPy: Eq. 9, Eq. 10, guided DDIM."""
    alpha_bar = prior.alpha_bar.numpy()

    def denoise(x, t):
        level, variance = alpha_bar[t], prior.variance
        return np.sqrt(level) * variance / (level * variance + 1 - level) * x

    c, eps = sources[:, 0].numpy(), noise[0, 0].numpy()
    refreshes = [400, 120, 10]

    def estimate(k, t):
        return denoise(np.sqrt(alpha_bar[t]) * c[k] + np.sqrt(1 - alpha_bar[t]) * eps, t)

    # From pure noise, of which only the mean is known, over the refreshes to the sources.
    levels = [[np.full_like(c[k], c[k].mean()) for k in range(2)]]
    levels += [[estimate(k, t) for k in range(2)] for t in refreshes]
    levels += [[c[0], c[1]]]
    target = (levels[0][0] + levels[0][1]) / 2
    for k in range(2):
        target = target + weights[0, k, 0].numpy() * (levels[1][k] - levels[0][k])
    first = CHAIN.timesteps[0]
    x = np.sqrt(alpha_bar[first]) * c.mean(axis=0) + np.sqrt(1 - alpha_bar[first]) * eps
    for step, t in enumerate(CHAIN.timesteps):
        if step % 2 == 0:
            r = 1 + step // 2
            for k in range(2):
                target = target + weights[r, k, 0].numpy() * (levels[r + 1][k] - levels[r][k])
        x0 = denoise(x, t)
        guided = x0 + scale * (target - x0)
        if step + 1 < len(CHAIN.timesteps):
            following = CHAIN.timesteps[step + 1]
            eps_t = (x - np.sqrt(alpha_bar[t]) * guided) / np.sqrt(1 - alpha_bar[t])
            x = np.sqrt(alpha_bar[following]) * guided + np.sqrt(1 - alpha_bar[following]) * eps_t
    return guided


@pytest.mark.parametrize('scale', [0.0, 0.3, 0.8, 1.0])
def test_chain_follows_the_literal_equations(noise, scale):
    prior, sources = GaussianPrior(), random_sources()
    result = run(prior, sources, noise, scale)
    expected = literal_chain(prior, sources, noise, result.weights, scale)
    np.testing.assert_allclose(result.fused[0, 0], expected, rtol=1e-10, atol=1e-12)


def test_one_source_given_twice_comes_back_when_the_sources_are_trusted(noise):
    source = random_sources(1)
    result = run(GaussianPrior(), source.repeat(2, 1, 1, 1), noise, guidance_scale=1.0)
    torch.testing.assert_close(result.fused[0], source[0])


def test_swapping_the_sources_changes_nothing_but_the_order_of_the_weights(noise):
    sources = random_sources()
    one = run(GaussianPrior(), sources, noise)
    other = run(GaussianPrior(), sources.flip(0), noise)
    torch.testing.assert_close(one.fused, other.fused)
    torch.testing.assert_close(one.weights, other.weights.flip(1))


def test_all_estimates_and_the_first_step_share_one_prior_call(noise):
    prior = GaussianPrior()
    result = run(prior, random_sources(), noise)
    assert prior.batches == [3 * 2 + 1, 1, 1, 1, 1]
    assert result.prior_calls == sum(prior.batches)


def test_large_batches_are_split_without_changing_the_result(noise, monkeypatch):
    sources = random_sources()
    whole = run(GaussianPrior(), sources, noise)
    prior = GaussianPrior()
    monkeypatch.setattr(sampler, 'MAX_BATCH_PIXELS', 2 * 8 * 10)
    split = run(prior, sources, noise)
    assert max(prior.batches) == 2
    assert torch.equal(whole.fused, split.fused)


def test_callback_sees_every_step(noise):
    states = []
    result = run(GaussianPrior(), random_sources(), noise, callback=states.append)
    assert [state.timestep for state in states] == list(CHAIN.timesteps)
    assert sum(state.prior_calls for state in states) == result.prior_calls
    assert torch.equal(states[-1].guided, result.fused)
    assert torch.equal(states[1].weights, states[0].weights)
    assert not torch.equal(states[2].weights, states[1].weights)


def test_three_sources(noise):
    result = run(GaussianPrior(), random_sources(3), noise)
    assert result.fused.shape == (1, 1, 8, 10)
    torch.testing.assert_close(
        result.weights.sum(dim=1), torch.ones((4, 1, 8, 10), dtype=torch.float64)
    )
