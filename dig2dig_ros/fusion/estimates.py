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

"""What the prior estimates of the sources (Eq. 9-10), and at which of its noise levels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dig2dig_ros.fusion.information_gain import cell_means, refined
from dig2dig_ros.priors.base import Prior

# More at once would not be faster, and would not fit on a robot's GPU.
MAX_BATCH_PIXELS = 16_000_000
# Of the estimates of all sources at all refreshes, which are held at once: 256 MB in float32.
MAX_ESTIMATE_PIXELS = 64_000_000


def add_noise(prior: Prior, clean: Tensor, timesteps: Tensor, noise: Tensor) -> Tensor:
    """Return sqrt(alpha_bar_t) clean + sqrt(1 - alpha_bar_t) noise (Eq. 9)."""
    signal, sigma = prior.coefficients(timesteps, clean)
    return torch.addcmul(signal * clean, sigma, noise)


def timesteps_on(timesteps: Sequence[int], device: torch.device, times: int = 1) -> Tensor:
    """Return (len(timesteps) * times,), each timestep so many times, without a copy to it."""
    if len(timesteps) == 1:
        # So that a prior can see that it is one for all.
        return torch.full((1,), timesteps[0], device=device).expand(times)
    return torch.cat([torch.full((times,), timestep, device=device) for timestep in timesteps])


def denoise_in_batches(prior: Prior, noisy: Tensor, timesteps: Tensor) -> Tensor:
    """Run the prior on (B, 1, H, W), in as few calls as bounded memory allows."""
    images = max(1, MAX_BATCH_PIXELS // (noisy.shape[-2] * noisy.shape[-1]))
    if noisy.shape[0] <= images:
        return prior.denoise(noisy, timesteps)
    parts = zip(torch.split(noisy, images), torch.split(timesteps, images), strict=True)
    return torch.cat([prior.denoise(part, times) for part, times in parts])


def matched_timesteps(prior: Prior, deviations: Sequence[float]) -> Tensor:
    """
    Return the timesteps whose ratio of noise to signal is that of images with given noise.

    :param deviations: standard deviations of noise on [-1, 1], positive.
    :return: (B,) int64, nearest in sqrt((1 - alpha_bar) / alpha_bar) on a logarithmic scale.
    """
    ratio = ((1 - prior.alpha_bar) / prior.alpha_bar).sqrt()
    wanted = ratio.new_tensor(deviations)
    distance: Tensor = ratio.log()[None, :] - wanted.log()[:, None]
    return distance.abs().argmin(dim=1)


def timesteps_of_means(
    prior: Prior, timesteps: tuple[int, ...], downscale: int
) -> tuple[int, ...]:
    """
    Return how noisy the means over cells of noisy pixels are, as timesteps.

    Averaging n^2 pixels of a noisy image leaves its structure and divides the deviation of its
    noise by n. The result is a smaller image at the timestep whose ratio of noise to signal,
    sqrt((1 - alpha_bar) / alpha_bar), is that part of the first one's.

    :param timesteps: of the noisy image.
    :param downscale: n, side of the cells in pixels.
    :return: the nearest timesteps of the prior.
    """
    ratios = ((1 - prior.alpha_bar) / prior.alpha_bar).sqrt()
    wanted = ratios[list(timesteps)] / downscale
    nearest = (ratios[:, None] - wanted).abs().argmin(dim=0)
    return tuple(int(timestep) for timestep in nearest)


@torch.inference_mode()
def estimate_sources(
    prior: Prior,
    sources: Tensor,
    timesteps: tuple[int, ...],
    draws: list[Tensor],
    x: Tensor | None = None,
    downscale: int = 1,
) -> tuple[Tensor, Tensor | None]:
    """
    Return the one-step estimates c_hat_k^t of all sources at all timesteps (Eq. 9-10).

    They depend on the sources alone, never on the chain, and go through the prior in one batch.

    :param sources: (K, 1, H, W).
    :param draws: noise, each (1, 1, H, W), over which the estimates are averaged; none denoises
        the scaled sources as they are.
    :param x: (1, 1, H, W), x_t at the first timestep, to be denoised in the same batch.
    :param downscale: pixels a side of the noisy sources that the prior sees as one, see
        :func:`timesteps_of_means`; the estimates are interpolated to all pixels.
    :return: (R, K, 1, H, W) for R timesteps, and the estimate made from ``x``.
    :raises ValueError: that is more than :data:`MAX_ESTIMATE_PIXELS`.
    """
    device = sources.device
    height, width = sources.shape[-2:]
    pixels = len(timesteps) * sources.numel()
    if pixels > MAX_ESTIMATE_PIXELS:
        raise ValueError(
            f'{len(timesteps)} refreshes of the gains of {len(sources)} sources of '
            f'{width}x{height} pixels take too much memory: raise dig_refresh_interval or lower '
            'num_inference_steps'
        )
    if downscale > 1:
        # The mean of n pixels of noise has 1 / sqrt(n) of their deviation.
        small_draws = [cell_means(draw, downscale) * downscale for draw in draws]
        coarse, _ = estimate_sources(
            prior,
            cell_means(sources, downscale),
            timesteps_of_means(prior, timesteps, downscale),
            small_draws,
        )
        first = None if x is None else prior.denoise(x, timesteps_on(timesteps[:1], device))
        return refined(coarse, downscale, height, width), first
    if len(draws) > 1 and pixels * len(draws) > MAX_BATCH_PIXELS:
        # One draw after the other, and only their sum is kept.
        total, first = estimate_sources(prior, sources, timesteps, draws[:1], x)
        for draw in draws[1:]:
            total += estimate_sources(prior, sources, timesteps, [draw])[0]
        return total / len(draws), first
    shape = (len(timesteps), max(1, len(draws)), *sources.shape)
    times = timesteps_on(timesteps, device, shape[1] * shape[2])
    repeated = sources.expand(shape).flatten(0, 2)
    if draws:
        eps = torch.stack(draws).expand(shape[1:]).expand(shape).flatten(0, 2)
        noisy = add_noise(prior, repeated, times, eps)
    else:
        noisy = prior.coefficients(times, sources)[0] * repeated
    if x is not None:
        noisy, times = torch.cat([noisy, x]), torch.cat([times, times[:1]])
    denoised = denoise_in_batches(prior, noisy, times)
    count = len(repeated)
    estimates = denoised[:count].reshape(shape)
    mean = estimates.mean(dim=1) if len(draws) > 1 else estimates[:, 0]
    return mean, None if x is None else denoised[count:]
