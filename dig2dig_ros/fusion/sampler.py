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

"""
The reverse chain: from a noisy mixture of the sources to the fused image.

===============  ==========================================================
here             Dig2DIG
===============  ==========================================================
chain.timesteps  the N reverse steps t_N > ... > t_1
chain interval   S, steps between two refreshes of the gains
noise            eps of Eq. 9, one draw for all sources and timesteps
estimates        c_hat_k^t (Eq. 10)
gains, weights   DIG_k(t) (Eq. 8), w_k(t) (Eq. 11)
x, x0            x_t and the estimate of the clean image made from it
===============  ==========================================================
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dig2dig_ros.fusion.guidance import guide, increment_targets
from dig2dig_ros.fusion.information_gain import pure_noise_estimate
from dig2dig_ros.fusion.schedule import ReverseChain
from dig2dig_ros.priors.base import Prior

# Bounds the memory of one prior call: more images than this many pixels go in several calls.
MAX_BATCH_PIXELS = 16_000_000


@dataclass(frozen=True)
class StepState:
    """
    What a step callback sees; tensors live on the device and must not be changed.

    :param step: 0-based, noisiest first.
    :param timestep: t, an index into the prior's noise levels.
    :param x: (1, 1, H, W), x_t before the step.
    :param x0: (1, 1, H, W), the prior's estimate of the clean image.
    :param guided: (1, 1, H, W), that estimate after the guidance.
    :param weights: (K, 1, H, W), in force at this step.
    :param gains: (K, 1, H, W), DIG_k(t) in force at this step.
    :param prior_calls: images that went through the prior since the last step.
    """

    step: int
    timestep: int
    x: Tensor
    x0: Tensor
    guided: Tensor
    weights: Tensor
    gains: Tensor
    prior_calls: int


@dataclass(frozen=True)
class Sample:
    """
    The result of a reverse chain.

    :param fused: (1, 1, H, W) in about [-1, 1], not clipped.
    :param weights: (1 + R, K, 1, H, W), one map for each source and interval: from pure noise
        to the first refresh, then from refresh to refresh.
    :param gains: (1 + R, K, 1, H, W).
    :param prior_calls: images that went through the prior.
    """

    fused: Tensor
    weights: Tensor
    gains: Tensor
    prior_calls: int


def add_noise(prior: Prior, clean: Tensor, timesteps: Tensor, noise: Tensor) -> Tensor:
    """Return sqrt(alpha_bar_t) clean + sqrt(1 - alpha_bar_t) noise (Eq. 9)."""
    signal, sigma = prior.coefficients(timesteps, clean)
    return signal * clean + sigma * noise


def denoise_in_batches(prior: Prior, noisy: Tensor, timesteps: Tensor) -> Tensor:
    """Run the prior on (B, 1, H, W), in as few calls as bounded memory allows."""
    images = max(1, MAX_BATCH_PIXELS // (noisy.shape[-2] * noisy.shape[-1]))
    if noisy.shape[0] <= images:
        return prior.denoise(noisy, timesteps)
    parts = zip(torch.split(noisy, images), torch.split(timesteps, images), strict=True)
    return torch.cat([prior.denoise(part, times) for part, times in parts])


@torch.inference_mode()
def sample(
    prior: Prior,
    sources: Tensor,
    noise: Tensor,
    chain: ReverseChain,
    gain: Callable[[Tensor, Tensor], Tensor],
    weigh: Callable[[Tensor], Tensor],
    guidance_scale: float,
    callback: Callable[[StepState], None] | None = None,
) -> Sample:
    """
    Fuse K sources by a guided DDIM chain (Eq. 3 with sigma = 0, guidance on x_0).

    The estimates c_hat_k^t depend on the sources alone, never on the chain. They all go
    through the prior in one batch, together with the first step of the chain. What has been
    resolved before the first refresh is an interval as well: it begins at pure noise, where no
    prior has to be asked.

    :param sources: (K, 1, H, W) in [-1, 1].
    :param noise: (1, 1, H, W), standard normal; the result is a function of it.
    :param chain: steps and refreshes.
    :param gain: (estimates (1 + R, K, 1, H, W), sources) -> gains, such as Eq. 8.
    :param weigh: gains -> weights, such as Eq. 11.
    :param guidance_scale: see :func:`~dig2dig_ros.fusion.guidance.guide`.
    :param callback: called after every step.
    """
    device = sources.device
    count = sources.shape[0]
    refreshes = torch.tensor(chain.refresh_timesteps, device=device)
    steps = torch.tensor(chain.timesteps, device=device)

    repeated = sources.repeat(len(refreshes), 1, 1, 1)
    times = refreshes.repeat_interleave(count)
    # With the same noise for all, the mean of the noisy sources is the noisy mean: x_{t_N}.
    x = add_noise(prior, sources.mean(dim=0, keepdim=True), steps[:1], noise)
    batch = torch.cat([add_noise(prior, repeated, times, noise), x])
    denoised = denoise_in_batches(prior, batch, torch.cat([times, steps[:1]]))
    estimates = denoised[:-1].reshape(len(refreshes), *sources.shape)
    estimates = torch.cat([pure_noise_estimate(sources)[None], estimates])
    x0 = denoised[-1:]
    new_calls = prior_calls = batch.shape[0]

    gains = gain(estimates, sources)
    weights = weigh(gains)
    targets = increment_targets(estimates, sources, weights)

    guided = x0
    for step in range(len(chain.timesteps)):
        if step > 0:
            x0 = prior.denoise(x, steps[step : step + 1])
            new_calls = 1
            prior_calls += 1
        interval = 1 + chain.refresh_of(step)
        guided = guide(x0, targets[interval : interval + 1], guidance_scale)
        if callback is not None:
            callback(
                StepState(
                    step,
                    chain.timesteps[step],
                    x,
                    x0,
                    guided,
                    weights[interval],
                    gains[interval],
                    new_calls,
                )
            )
        if step + 1 < len(chain.timesteps):
            # DDIM: keep the noise that x_t holds besides the guided estimate, at the next level.
            signal, sigma = prior.coefficients(steps[step : step + 1], x)
            residual = (x - signal * guided) / sigma
            x = add_noise(prior, guided, steps[step + 1 : step + 2], residual)
    return Sample(guided, weights, gains, prior_calls)
