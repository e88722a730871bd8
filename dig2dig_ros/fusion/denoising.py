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

from dig2dig_ros.fusion.colour import luma, replace_luma
from dig2dig_ros.fusion.estimates import matching_timesteps
from dig2dig_ros.fusion.information_gain import cell_means, local_mean, refined
from dig2dig_ros.images.luma import LUMA_BGR
from dig2dig_ros.priors.base import Prior

# Deviations in [0, 1]: up to the first, noise is left alone, as neither the eye nor a detector
# minds it; from the second on, it is taken out in full. In between nothing must flicker.
NEGLIGIBLE_NOISE, FULL_NOISE = 2 / 255, 3 / 255
# Noise of the luma, of noise of deviation 1 that is independent in blue, green and red.
LUMA_NOISE = sum(weight**2 for weight in LUMA_BGR) ** 0.5
# Half a grey level of 255: rounding alone leaves about that much.
_LEAST_READ_NOISE = 0.5 / 255
# Part of the noise of the chroma that the prior leaves as blotches, and the side in cells of the
# window in which colour has to stand out from it.
_CHROMA_LEFT, _CHROMA_WINDOW = 0.25, 9
# Of details that the prior has not seen: pixels a side of the cells, cells a side of the
# window, and how many times the power of the noise is taken from theirs: of white noise, three
# quarters are in the finest octave, and a little more is taken than its mean.
_DETAIL_CELL, _DETAIL_WINDOW, _DETAIL_NOISE = 4, 3, 1.1


def denoising_share(deviation: Tensor) -> Tensor:
    """Return how far noise of a deviation in [0, 1] is to be taken out, 0 to 1."""
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
    :param cell: pixels a side of the means of the luma that the prior sees, a power of 2; of the
        chroma, it sees those of twice that side.
    :return: the same shapes, in [0, 1].
    """
    lumas = _denoised_lumas(prior, [_luma(image) for image in images], noises, cell)
    results = []
    for image, noise, clean in zip(images, noises, lumas, strict=True):
        if len(image) == 3:
            chroma = denoised_chroma(prior, image, noise[2] / LUMA_NOISE, 2 * cell)
            clean = replace_luma(chroma, clean[0])
        results.append(torch.lerp(image, clean, denoising_share(noise[2])))
    return results


def _luma(image: Tensor) -> Tensor:
    return luma(image)[None] if len(image) == 3 else image


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
    Denoise the means of cells with the prior, and what is finer by its power beyond the noise.

    Of the finer details, octave by octave, as much is kept as they have more power than noise
    alone (Wiener, 1949).

    :param images: (B, 1, H, W) in [0, 1].
    :param read: (B, 1, 1, 1), as ``gain``.
    :param cell: pixels a side of the cells, a power of 2; 1 shows the prior all pixels.
    """
    if cell == 1:
        return _denoised_photons(prior, images, read, gain)
    height, width = images.shape[-2:]
    means = cell_means(images, 2)
    scene = _denoised_cells(prior, means, read / 2, gain / 4, cell // 2)
    detail = images - refined(means, 2, height, width)
    power = local_mean(cell_means(detail.square(), _DETAIL_CELL), _DETAIL_WINDOW)
    noise = torch.addcmul(read.square(), cell_means(scene, _DETAIL_CELL // 2), gain)
    kept = (1 - _DETAIL_NOISE * noise / power.clamp_min(1e-12)).clamp_(0, 1)
    kept = refined(kept, _DETAIL_CELL, height, width)
    return refined(scene, 2, height, width).addcmul_(detail, kept)


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


def denoised_chroma(prior: Prior, image: Tensor, noise: Tensor, cell: int) -> Tensor:
    """
    Free differences of colour from noise, as means over cells: the eye needs no sharper ones.

    Colour that does not stand out from what noise leaves of it is taken back (Wiener, 1949).

    :param image: (3, H, W) in [0, 1], blue first.
    :param noise: deviation of each channel.
    :return: (3, H, W), of which only the chroma means something.
    """
    height, width = image.shape[-2:]
    blue, green, red = cell_means(image, cell)
    # As differences from green, which make the image but for its luma.
    means = torch.stack([blue - green, red - green])[:, None]
    timesteps = matching_timesteps(prior, (noise * (2**0.5 / cell)).view(1))
    signal, _ = prior.coefficients(timesteps, means)
    clean = prior.denoise(signal * means, timesteps.expand(2))
    power = local_mean(clean.square().mean(dim=0, keepdim=True), _CHROMA_WINDOW)
    clean *= power / (power + (_CHROMA_LEFT * noise).square() + 1e-12)
    blue, red = refined(clean, cell, height, width)[:, 0]
    return torch.stack([blue, torch.zeros_like(blue), red])
