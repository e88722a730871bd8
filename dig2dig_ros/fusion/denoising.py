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
White noise of a camera as a time of the diffusion: what the prior makes of a noisy image.

An image y = c + n with white noise of deviation s *is* a state of the forward process, that of the
timestep at which the ratio of noise to signal is s; the estimate of the clean image from there
(Dig2DIG, Eq. 10) is one call of the prior. Noise of photons grows with the light,

    var(y) = read^2 + gain y,

so it is made white first: f(y) = 2 y / (read + sqrt(gain y + read^2)) has a deviation of 1 at
every brightness (Anscombe, "The transformation of Poisson, binomial and negative-binomial data",
1948, in a form that is y / read without photons).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dig2dig_ros.fusion.colour import grey
from dig2dig_ros.fusion.estimates import matching_timesteps
from dig2dig_ros.fusion.information_gain import cell_means, local_mean, refined
from dig2dig_ros.images.luma import LUMA_BGR
from dig2dig_ros.priors.base import Prior

# Deviations in [0, 1]: up to the first, noise is left alone, as neither the eye nor a detector
# minds it; from the second on, it is taken out in full. In between nothing must flicker.
NEGLIGIBLE_NOISE, FULL_NOISE = 1.5 / 255, 2 / 255
# Noise of the luma, of noise of deviation 1 that is independent in blue, green and red.
LUMA_NOISE = sum(weight**2 for weight in LUMA_BGR) ** 0.5
# Half a grey level of 255: rounding alone leaves about that much.
_LEAST_READ_NOISE = 0.5 / 255
# Pixels a side of the cells of the chroma, cells a side of the window in which it follows the
# luma, and the part of the power of the noise of the cells that is left then as blotches.
_CHROMA_CELL, _CHROMA_WINDOW, _CHROMA_LEFT = 4, 7, 0.25
# Pixels a side of the cells in which details that the prior has not seen are looked for, and how
# many times the power of the noise they must have, as there is chance in it.
_DETAIL_CELL, _DETAIL_NOISE = 4, 1.3


def denoising_share(deviation: Tensor) -> Tensor:
    """Return how much of the noise of a deviation in [0, 1] to remove, 0 to 1."""
    return ((deviation - NEGLIGIBLE_NOISE) / (FULL_NOISE - NEGLIGIBLE_NOISE)).clamp(0, 1)


def denoised(
    prior: Prior, images: Sequence[Tensor], noises: Sequence[Tensor], cell: int
) -> list[Tensor]:
    """
    Return what is known of the scene behind noisy images; of equal sizes, in one batch.

    Nothing here waits for the device. An image with negligible noise comes back as it is.

    :param images: each (1 or 3, H, W) in [0, 1], blue first.
    :param noises: of each the noise of its luma, (3,): read^2 + gain y is the variance at the
        brightness y, and the third is the deviation over the image; read, y and deviation in
        [0, 1].
    :param cell: pixels a side of the means that the prior sees, a power of 2; 1 shows it all.
    :return: the same shapes, in [0, 1].
    """
    lumas = _denoised_lumas(prior, [grey(image) for image in images], noises, cell)
    results = []
    for image, noise, clean in zip(images, noises, lumas, strict=True):
        if len(image) == 3:
            chroma = smoothed_chroma(image, clean[0], noise[2] / LUMA_NOISE)
            clean = with_luma(chroma, clean[0])
        results.append(torch.lerp(image, clean, denoising_share(noise[2])))
    return results


def _denoised_lumas(
    prior: Prior, lumas: Sequence[Tensor], noises: Sequence[Tensor], cell: int
) -> list[Tensor]:
    results: dict[int, Tensor] = {}
    for size in dict.fromkeys(image.shape for image in lumas):
        places = [index for index, image in enumerate(lumas) if image.shape == size]
        batch = torch.stack([lumas[index] for index in places])
        read, gain, _ = torch.stack([noises[index] for index in places]).T[..., None, None, None]
        clean = _denoised_cells(prior, batch, read, gain, cell)
        results.update(zip(places, clean, strict=True))
    return [results[index] for index in range(len(lumas))]


def _denoised_cells(prior: Prior, images: Tensor, read: Tensor, gain: Tensor, cell: int) -> Tensor:
    """
    Denoise the means of cells with the prior, and let what is finer follow, octave by octave.

    :param images: (B, 1, H, W) in [0, 1].
    :param read: (B, 1, 1, 1), as ``gain``.
    :param cell: pixels a side of the cells, a power of 2; 1 shows the prior all pixels.
    """
    if cell == 1:
        return _denoised_photons(prior, images, read, gain)
    scene = _denoised_cells(prior, cell_means(images, 2), read / 2, gain / 4, cell // 2)
    return _with_details(refined(scene, 2, *images.shape[-2:]), images, read, gain)


def _with_details(scene: Tensor, images: Tensor, read: Tensor, gain: Tensor) -> Tensor:
    """
    Return noisy images, denoised with the help of what is known of the scene but its details.

    In each cell, the image is a linear function of the scene and noise (He, Sun & Tang, "Guided
    image filtering", PAMI 35(6), 2013), with a slope that is smaller where noise makes it
    uncertain. What is left over is kept as far as it has more power than the noise (Wiener, 1949).

    :param scene: (B, 1, H, W), as ``images``.
    :param read: (B, 1, 1, 1), as ``gain``.
    """
    height, width = images.shape[-2:]
    guide, seen = cell_means(scene, _DETAIL_CELL), cell_means(images, _DETAIL_CELL)
    noise = torch.addcmul(read.square(), guide.clamp_min(0), gain).clamp_min_(_LEAST_READ_NOISE**2)
    variance = cell_means(scene.square(), _DETAIL_CELL).sub_(guide.square())
    covariance = cell_means(scene * images, _DETAIL_CELL).sub_(guide * seen)
    slope = covariance / variance.clamp_min(0).add_(noise / _DETAIL_CELL**2)
    offset = refined(seen - slope * guide, _DETAIL_CELL, height, width)
    scene = offset.addcmul_(refined(slope, _DETAIL_CELL, height, width), scene)
    rest = images - scene
    power = cell_means(rest.square(), _DETAIL_CELL)
    kept = (1 - _DETAIL_NOISE * noise / power.clamp_min(1e-12)).clamp_(0, 1)
    return scene.addcmul_(refined(kept, _DETAIL_CELL, height, width), rest).clamp_(0, 1)


def _denoised_photons(prior: Prior, images: Tensor, read: Tensor, gain: Tensor) -> Tensor:
    """
    Denoise where the noise grows with the light.

    :param images: (B, 1, H, W) in [0, 1].
    :param read: (B, 1, 1, 1), as ``gain``.
    """
    read = read.clamp_min(_LEAST_READ_NOISE)
    white = 2 / (read + (gain + read.square()).sqrt())  # f(1)
    deviation = 2 / white  # on [-1, 1]
    state = torch.addcmul(read.square(), images, gain).sqrt_().add_(read)
    state = torch.div(images * (2 * deviation), state).sub_(1)
    timesteps = matching_timesteps(prior, deviation.flatten())
    signal, _ = prior.coefficients(timesteps, state)
    stable = prior.denoise(state.mul_(signal), timesteps).add_(1).mul_(white / 2)
    scene = stable * torch.addcmul(read, stable, gain / 4)
    # The mean of f(y) is less than f of the mean, which the inverse would take for darkness.
    scene += torch.minimum(scene.clamp_min(0), gain).mul_(1 / 4)
    return scene.clamp_(0, 1)


def smoothed_chroma(image: Tensor, clean_luma: Tensor, noise: Tensor) -> Tensor:
    """
    Free differences of colour from noise, guided by the luma: the eye needs no sharper ones.

    Around each place, colour is a linear function of the luma (He, Sun & Tang, 2013), as far as it
    stands out from what noise leaves of it (Wiener, 1949): what is left of a red light stays red.

    :param image: (3, H, W) in [0, 1], blue first.
    :param clean_luma: (H, W) in [0, 1], without noise.
    :param noise: deviation of each channel.
    :return: (2, H, W), blue and red as differences from green.
    """
    height, width = clean_luma.shape
    means = cell_means(image, _CHROMA_CELL)
    chroma, guide = means[::2] - means[1], cell_means(clean_luma[None], _CHROMA_CELL)
    stack = torch.cat([guide, guide.square(), chroma, guide * chroma])
    mean, square, blue, red, with_blue, with_red = local_mean(stack, _CHROMA_WINDOW)
    mean_chroma, products = torch.stack([blue, red]), torch.stack([with_blue, with_red])
    # The difference of two channels, averaged over the cells and the window.
    left = 2 * noise.square() / _CHROMA_CELL**2
    slope = (products - mean * mean_chroma) / (square - mean.square() + left).clamp_min(1e-6)
    offset = mean_chroma - slope * mean
    clean = local_mean(slope, _CHROMA_WINDOW) * guide + local_mean(offset, _CHROMA_WINDOW)
    power = clean.square().sum(dim=0, keepdim=True)
    clean *= power / (power + _CHROMA_LEFT * left + 1e-9)
    return refined(clean, _CHROMA_CELL, height, width)


def with_luma(chroma: Tensor, new_luma: Tensor) -> Tensor:
    """
    Return the image of a luma and of differences of colour.

    :param chroma: (2, H, W), blue and red as differences from green.
    :param new_luma: (H, W) in [0, 1].
    :return: (3, H, W) in [0, 1], blue first.
    """
    blue, _, red = LUMA_BGR
    green = torch.add(new_luma, chroma[0], alpha=-blue).sub_(chroma[1], alpha=red)
    return torch.stack([green + chroma[0], green, green + chroma[1]]).clamp_(0, 1)
