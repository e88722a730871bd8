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
Diffusion information gains and the weights that follow from them.

==========================  =======================================================
here                        Dig2DIG
==========================  =======================================================
estimates[r, k]             c_hat_k^t, Eq. 10: at pure noise, then at the refreshes
reconstruction_loss         l(c_hat_k^t, c_k), per pixel over a local window
information_gain            DIG_k(t), Eq. 8, over the S steps to the next refresh
softmax_weights             w_k(t), Eq. 11
weigh_sources               all of it, as the settings ask for
==========================  =======================================================
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
import torch.nn.functional as F

from dig2dig_ros.fusion.settings import FusionSettings, GAIN_LOSSES, GainLoss

# SSIM's constants for a dynamic range of 2 ([-1, 1]): (0.01 * 2)^2 and (0.03 * 2)^2.
_SSIM_C1, _SSIM_C2 = 0.0004, 0.0036
# Pixels of the full resolution to a pixel of the grid for the coarse structure.
_COARSE = 4
# Local gains below this part of the frame's mean gain say little about which source matters.
_RELATIVE_FLOOR = 0.3
# Gains of this size come from sensor noise and from the prior's own errors: about 1.3 grey
# levels of 255, in the units of each loss on [-1, 1].
NOISE_FLOORS: dict[GainLoss, float] = {'l2': 1e-4, 'l1': 1e-2, 'ssim': 1e-2}


def local_mean(x: Tensor, window: int) -> Tensor:
    """
    Average over a window that falls off linearly to its sides.

    Two box filters one after the other, whose sides add up to window + 1: a single box prints
    its square shape around every bright point. At the border of the image, what lies outside
    does not count.

    :param x: (..., H, W).
    :param window: odd side in pixels.
    """
    first = (window + 1) // 2
    first -= 1 - first % 2
    for side in (first, window + 1 - first):
        x = _box_mean(_box_mean(x, side, -1), side, -2)
    return x


def _box_mean(x: Tensor, side: int, dim: Literal[-1, -2]) -> Tensor:
    """Average over ``side`` neighbours along one dimension, as far as they are inside."""
    if side == 1:
        return x
    half, length = side // 2, x.shape[dim]
    margins = (half, half) if dim == -1 else (0, 0, half, half)
    padded = F.pad(x, margins)
    # Adding shifted views is four times as fast on a CPU as pooling, which is not vectorised.
    total = padded.narrow(dim, 0, length).clone()
    for shift in range(1, side):
        total += padded.narrow(dim, shift, length)
    position = torch.arange(length, device=x.device)
    inside = (position + half).clamp(max=length - 1) - (position - half).clamp(min=0) + 1
    return total.div_(inside if dim == -1 else inside[:, None])


def smooth_local_mean(x: Tensor, window: int) -> Tensor:
    """
    Average as :func:`local_mean` does, on a grid of a quarter of the resolution.

    The mean over a wide window is smooth; so it costs a sixteenth.

    :param x: (N, C, H, W).
    :param window: side in pixels of the full resolution.
    """
    coarse = F.avg_pool2d(x, _COARSE, ceil_mode=True, count_include_pad=False)
    return _refined(local_mean(coarse, _coarse_side(window)), x.shape[-2], x.shape[-1])


def _coarse_side(window: int) -> int:
    """Return the odd side on the coarse grid of a window in pixels."""
    side = max(1, round(window / _COARSE))
    return side + 1 - side % 2


def _refined(coarse: Tensor, height: int, width: int) -> Tensor:
    """Return (N, C, h, w) of the coarse grid at the full resolution."""
    return F.interpolate(coarse, (height, width), mode='bilinear', align_corners=False)


def reconstruction_loss(estimate: Tensor, source: Tensor, loss: GainLoss, window: int) -> Tensor:
    """
    Measure how far an estimate is from its source: l of Eq. 8, per pixel.

    :param estimate: (..., H, W) in [-1, 1].
    :param source: of a shape that broadcasts to that of ``estimate``.
    :param loss: ``l2`` squared error, ``l1`` absolute error, ``ssim`` 1 - SSIM.
    :param window: side of the local window in pixels, odd.
    :return: (..., H, W), not negative.
    :raises ValueError: unknown ``loss``.
    """
    if loss == 'l2':
        return local_mean((estimate - source).square(), window)
    if loss == 'l1':
        return local_mean((estimate - source).abs(), window)
    if loss != 'ssim':
        raise ValueError(f'gain_loss {loss!r} is unknown: use {GAIN_LOSSES}')
    source = source.expand_as(estimate)
    mean_e, mean_s = local_mean(estimate, window), local_mean(source, window)
    variance_e = local_mean(estimate.square(), window) - mean_e.square()
    variance_s = local_mean(source.square(), window) - mean_s.square()
    covariance = local_mean(estimate * source, window) - mean_e * mean_s
    luminance = (2 * mean_e * mean_s + _SSIM_C1) / (mean_e.square() + mean_s.square() + _SSIM_C1)
    structure = (2 * covariance + _SSIM_C2) / (variance_e + variance_s + _SSIM_C2)
    return (1 - luminance * structure).clamp_min(0)


def pure_noise_estimate(sources: Tensor) -> Tensor:
    """
    Return c_hat_k^T, the estimate from pure noise: all that is known of a source is its mean.

    :param sources: (K, 1, H, W).
    :return: same shape, constant over each image.
    """
    return sources.mean(dim=(-2, -1), keepdim=True).expand_as(sources)


def information_gain(
    estimates: Tensor, sources: Tensor, loss: GainLoss = 'l2', window: int = 11
) -> Tensor:
    """
    Return DIG of every source in every interval (Eq. 8, with the S-step difference).

    :param estimates: (R, K, 1, H, W), c_hat_k^t at the beginnings of R intervals that follow
        one another, noisiest first.
    :param sources: (K, 1, H, W) in [-1, 1].
    :return: (R, K, 1, H, W). The last interval gains what is left up to the clean source, whose
        loss is zero.
    """
    losses = reconstruction_loss(estimates, sources, loss, window)
    return losses - torch.cat([losses[1:], torch.zeros_like(losses[:1])])


def relative_dominability(
    estimates: Tensor, sources: Tensor, loss: GainLoss = 'l2', window: int = 11
) -> Tensor:
    """
    Return minus the uni-source reconstruction loss, of which TTD makes its weights.

    TTD (Cao et al., "Test-time dynamic image fusion", NeurIPS 2024) wants weights that are
    negatively correlated with the reconstruction loss of each source alone: the softmax of this
    is its relative dominability. Here the uni-source component is the one-step estimate.

    :param estimates: (R, K, 1, H, W), c_hat_k^t.
    :param sources: (K, 1, H, W) in [-1, 1].
    :return: (R, K, 1, H, W), not positive.
    """
    return -reconstruction_loss(estimates, sources, loss, window)


def coarsely(
    evidence: Callable[[Tensor, Tensor, int], Tensor], images: Tensor, window: int
) -> Tensor:
    """
    Evaluate gains or losses of the coarse structure, on a grid of a quarter of the resolution.

    A window that spans objects is wide, and what it averages is smooth: a quarter of the
    resolution in each direction is enough and costs a sixteenth.

    :param evidence: (estimates (R, K, 1, h, w), sources, window) -> (R, K, 1, h, w), such as
        :func:`information_gain` with its loss.
    :param images: (R + 1, K, 1, H, W), the estimates and, last, the sources.
    :param window: side of the local window in pixels of the full resolution.
    :return: (R, K, 1, H, W).
    """
    count, channels, height, width = images.shape[1:]
    coarse = F.avg_pool2d(images.flatten(0, 1), _COARSE, ceil_mode=True, count_include_pad=False)
    coarse = coarse.view(len(images), count, channels, *coarse.shape[-2:])
    result = evidence(coarse[:-1], coarse[-1], _coarse_side(window))
    full = _refined(result.flatten(0, 1), height, width)
    return full.view(-1, count, channels, height, width)


def relative_gain(gain: Tensor, noise_floor: float = 0.0) -> Tensor:
    """
    Make gains comparable between places, steps and images: divide by their local scale.

    A gain in squared image units is tiny wherever the image is smooth, and Eq. 11 taken on it
    literally gives weights within a hair of 1/K. Divided by the mean magnitude over the
    sources at the same pixel, it says which source gains more *there*. Two floors keep flat
    regions, where every gain is noise, at equal weights.

    :param gain: (R, K, 1, H, W).
    :param noise_floor: gain that noise alone makes, such as :data:`NOISE_FLOORS`; with 0, the
        result does not depend on the contrast of the images.
    :return: same shape; over the sources, the magnitudes sum to at most K.
    """
    magnitude = gain.abs()
    local = magnitude.mean(dim=1, keepdim=True)
    frame = magnitude.mean(dim=(1, 2, 3, 4), keepdim=True)
    floor = _RELATIVE_FLOOR * frame + noise_floor + torch.finfo(gain.dtype).tiny
    return gain / (local + floor)


def softmax_weights(gain: Tensor, temperature: float = 1.0) -> Tensor:
    """
    Return the weights of Eq. 11: a softmax over the sources (dimension -4).

    :param gain: (..., K, 1, H, W).
    :param temperature: divides the gains; 1.0 is Eq. 11 as printed.
    :return: same shape, in [0, 1], summing to 1 over the sources.
    """
    return torch.softmax(gain / temperature, dim=-4)


def uniform_weights(gain: Tensor) -> Tensor:
    """Return 1/K for every source: the static baseline."""
    return torch.full_like(gain, 1.0 / gain.shape[-4])


def weigh_sources(
    estimates: Tensor, sources: Tensor, settings: FusionSettings, from_pure_noise: bool
) -> tuple[Tensor, Tensor]:
    """
    Return the evidence for each source in each interval and the weights that follow from it.

    :param estimates: (R, K, 1, H, W), c_hat_k^t at the beginnings of R intervals that follow
        one another, noisiest first.
    :param sources: (K, 1, H, W) in [-1, 1].
    :param from_pure_noise: the first interval begins at pure noise: it resolves the coarse
        structure, for which the settings have a window and a temperature of their own.
    :return: gains and weights, both (R, K, 1, H, W): DIG (Eq. 8) and its softmax (Eq. 11), minus
        the loss and its softmax (relative dominability), or DIG and 1/K (uniform).
    """
    loss = settings.gain_loss
    rule = relative_dominability if settings.weights == 'rd' else information_gain

    def evidence(estimates: Tensor, sources: Tensor, window: int) -> Tensor:
        return rule(estimates, sources, loss, window)

    first = 1 if from_pure_noise else 0
    gains = evidence(estimates[first:], sources, settings.gain_window)
    if from_pure_noise:
        images = torch.cat([estimates[:2], sources[None]])
        structure = coarsely(evidence, images, settings.structure_window)
        gains = torch.cat([structure[:1], gains])
    if settings.weights == 'uniform':
        return gains, uniform_weights(gains)
    compared = relative_gain(gains, NOISE_FLOORS[loss]) if settings.normalize_gain else gains
    structure_weights = softmax_weights(compared[:first], settings.structure_temperature)
    weights = softmax_weights(compared[first:], settings.temperature)
    return gains, torch.cat([structure_weights, weights])
