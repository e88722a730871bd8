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

"""The prior's estimates of the sources (Eq. 9-10), and their noise levels."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
import torch
from torch import Tensor

from dig2dig_ros.fusion.information_gain import cell_means, refined
from dig2dig_ros.priors.base import Prior

# More at once would not be faster, and would not fit on a robot's GPU.
MAX_BATCH_PIXELS = 16_000_000
# The estimates of all sources at all refreshes are held at once: 256 MB in float32.
MAX_ESTIMATE_PIXELS = 64_000_000
# A few seconds on a slow processor: how long it takes to cancel a fusion.
_PIXELS_OF_A_CALL = 2_000_000


class FusionCancelled(RuntimeError):
    """The fusion was cancelled by ``cancelled``."""

    def __init__(self) -> None:
        super().__init__('the fusion was cancelled')


class WatchedPrior(Prior):
    """
    A prior that counts the images that go through it, and can be cancelled.

    :param cancelled: called before every call of the prior, which is then kept short.
    :ivar calls: images that went through the prior.
    :ivar total: sum of all estimates, on their device: finite where they all are. None before.
    """

    def __init__(self, prior: Prior, cancelled: Callable[[], bool] | None = None) -> None:
        super().__init__(prior.name, prior.alpha_bar)
        self.calls = 0
        self.total: Tensor | None = None
        self._prior = prior
        self._cancelled = cancelled

    def denoise(self, noisy: Tensor, timesteps: Tensor) -> Tensor:
        """Denoise as the prior does; raise :class:`FusionCancelled` if cancelled."""
        self.calls += len(noisy)
        if self._cancelled is None:
            estimates = self._prior.denoise(noisy, timesteps)
        else:
            # On a CPU, larger batches are not faster.
            pixels = _PIXELS_OF_A_CALL if noisy.device.type == 'cpu' else noisy.numel()
            estimates = _in_parts(self._denoise_unless_cancelled, noisy, timesteps, pixels)
        # After clipping or weighting, an infinity could no longer be seen.
        total = estimates.sum(dtype=torch.float32)
        self.total = total if self.total is None else self.total + total
        return estimates

    def _denoise_unless_cancelled(self, noisy: Tensor, timesteps: Tensor) -> Tensor:
        if self._cancelled is not None and self._cancelled():
            raise FusionCancelled
        return self._prior.denoise(noisy, timesteps)

    def coefficients(self, timesteps: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return the coefficients of the prior."""
        return self._prior.coefficients(timesteps, like)

    def noise_ratios(self) -> NDArray[np.float64]:
        """Return the ratios of the prior, which are computed once."""
        return self._prior.noise_ratios()

    def levels_on(self, device: torch.device) -> Tensor:
        """Return alpha_bar of all timesteps on a device."""
        return self._prior.levels_on(device)


def add_noise(prior: Prior, clean: Tensor, timesteps: Tensor, noise: Tensor) -> Tensor:
    """Return sqrt(alpha_bar_t) clean + sqrt(1 - alpha_bar_t) noise (Eq. 9)."""
    signal, sigma = prior.coefficients(timesteps, clean)
    return torch.addcmul(signal * clean, sigma, noise)


def timesteps_on(device: torch.device, timesteps: Sequence[int], times: int = 1) -> Tensor:
    """Return (len(timesteps) * times,), each one repeated, without a copy to a GPU."""
    if len(timesteps) == 1:
        # So that a prior can see that it is one for all.
        return torch.full((1,), timesteps[0], device=device).expand(times)
    return torch.cat([torch.full((times,), timestep, device=device) for timestep in timesteps])


def matched_timesteps(prior: Prior, ratios: Sequence[float]) -> tuple[int, ...]:
    """
    Return the timesteps at which noise is to signal as in given images.

    :param ratios: standard deviations of the noise, where the clean image is on [-1, 1]; positive.
    :return: nearest in sqrt((1 - alpha_bar) / alpha_bar), on a logarithmic scale.
    """
    distance = np.log(prior.noise_ratios())[None, :] - np.log(ratios)[:, None]
    return tuple(np.abs(distance).argmin(axis=1).tolist())


def matching_timesteps(prior: Prior, ratios: Tensor) -> Tensor:
    """
    Return what :func:`matched_timesteps` does, without waiting for the device.

    :param ratios: (B,), see there.
    :return: (B,) int64.
    """
    level = prior.levels_on(ratios.device)
    known = ((1 - level) / level).log() / 2
    return (known[None, :] - ratios.to(known.dtype).log()[:, None]).abs().argmin(dim=1)


def timesteps_of_means(prior: Prior, timesteps: Sequence[int], downscale: int) -> tuple[int, ...]:
    """
    Return how noisy the means over cells of noisy pixels are, as timesteps.

    Averaging over cells of n pixels a side leaves the structure and divides the noise by n.
    """
    ratios = prior.noise_ratios()
    return matched_timesteps(prior, [float(ratios[each]) / downscale for each in timesteps])


@torch.inference_mode()
def denoise(prior: Prior, images: Tensor, deviation: float) -> Tensor:
    """
    Denoise noisy images with the prior, at the timestep of their noise.

    :param images: (B, 1, H, W) on [-1, 1].
    :param deviation: standard deviation of their noise, positive.
    """
    timesteps = timesteps_on(images.device, matched_timesteps(prior, [deviation]), len(images))
    signal, _ = prior.coefficients(timesteps, images)
    return prior.denoise(signal * images, timesteps)


@torch.inference_mode()
def estimate_sources(
    prior: Prior,
    sources: Tensor,
    timesteps: Sequence[int],
    draws: Sequence[Tensor],
    downscale: int = 1,
    x: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """
    Return the one-step estimates c_hat_k^t of all sources at all timesteps (Eq. 9-10).

    They depend on the sources alone, never on the chain, and go through the prior in one batch.

    :param sources: (K, 1, H, W).
    :param draws: noise, each (1, 1, H, W), over which the estimates are averaged; none denoises
        the scaled sources as they are.
    :param downscale: pixels a side of the noisy sources that the prior sees as one, see
        :func:`timesteps_of_means`; the estimates are interpolated to all pixels.
    :param x: (1, 1, H, W), x_t at the first timestep, to be denoised in the same batch.
    :return: (R, K, 1, H, W) for R timesteps, and the estimate made from ``x``, (1, 1, H, W);
        without it, (0, 1, H, W).
    :raises ValueError: there are more pixels than :data:`MAX_ESTIMATE_PIXELS`.
    """
    x = sources[:0] if x is None else x
    height, width = sources.shape[-2:]
    pixels = len(timesteps) * sources.numel()
    if pixels > MAX_ESTIMATE_PIXELS:
        raise ValueError(
            f'{len(timesteps)} refreshes of the gains of {len(sources)} sources of '
            f'{width}x{height} pixels take too much memory: raise dig_refresh_interval or lower '
            'num_inference_steps'
        )
    if downscale > 1:
        small, _ = estimate_sources(
            prior,
            cell_means(sources, downscale),
            timesteps_of_means(prior, timesteps, downscale),
            # The mean of n pixels of noise has 1 / sqrt(n) of their deviation.
            [cell_means(draw, downscale) * downscale for draw in draws],
        )
        if len(x):
            x = prior.denoise(x, timesteps_on(x.device, timesteps[:1]))
        return refined(small, downscale, height, width), x
    if len(draws) > 1 and pixels * len(draws) > MAX_BATCH_PIXELS:
        # One draw after the other, and only their sum is kept.
        total, x0 = estimate_sources(prior, sources, timesteps, draws[:1], x=x)
        for draw in draws[1:]:
            total += estimate_sources(prior, sources, timesteps, [draw])[0]
        return total / len(draws), x0
    shape = (len(timesteps), max(1, len(draws)), *sources.shape)
    times = timesteps_on(sources.device, timesteps, shape[1] * shape[2])
    repeated = sources.expand(shape).flatten(0, 2)
    if draws:
        eps = torch.stack(tuple(draws)).expand(shape[1:]).expand(shape).flatten(0, 2)
        noisy = add_noise(prior, repeated, times, eps)
    else:
        noisy = prior.coefficients(times, sources)[0] * repeated
    if len(x):
        noisy, times = torch.cat([noisy, x]), torch.cat([times, times[:1]])
    denoised = _in_parts(prior.denoise, noisy, times, MAX_BATCH_PIXELS)
    estimates = denoised[: len(repeated)].reshape(shape)
    mean = estimates.mean(dim=1) if len(draws) > 1 else estimates[:, 0]
    return mean, denoised[len(repeated) :]


def _in_parts(
    denoise: Callable[[Tensor, Tensor], Tensor], noisy: Tensor, timesteps: Tensor, pixels: int
) -> Tensor:
    """Denoise (B, 1, H, W) in as few calls as a limit of pixels allows."""
    images = max(1, pixels // (noisy.shape[-2] * noisy.shape[-1]))
    if len(noisy) <= images:
        return denoise(noisy, timesteps)
    parts = zip(torch.split(noisy, images), torch.split(timesteps, images), strict=True)
    return torch.cat([denoise(part, times) for part, times in parts])
