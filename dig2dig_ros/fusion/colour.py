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

"""Luma and chroma on torch tensors, so that colour never leaves the device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
import torch.nn.functional as F

from dig2dig_ros.images.luma import LUMA_BGR

# Side in pixels: more than a blurred edge or a clipped spot is wide, less than an object.
_CELL = 16
# The only image with colour keeps its chroma even where the fusion chooses another one.
_LEAST_WEIGHT = 1e-3


def luma(bgr: Tensor) -> Tensor:
    """
    Return the BT.601 luma of an image.

    :param bgr: (3, H, W), blue first, any range.
    :return: (H, W) in the same range.
    """
    blue, green, red = LUMA_BGR
    return blue * bgr[0] + green * bgr[1] + red * bgr[2]


def grey(image: Tensor) -> Tensor:
    """Return the (1, H, W) luma of an image (3, H, W), blue first, or of a grey one (1, H, W)."""
    return luma(image)[None] if len(image) == 3 else image


def replace_luma(bgr: Tensor, new_luma: Tensor, old_luma: Tensor | None = None) -> Tensor:
    """
    Give an image another luma and keep its chroma (Cb and Cr).

    Adding the same amount to blue, green and red changes the luma by just that amount, and not
    their differences, that is, the chroma.

    :param bgr: (3, H, W) in [0, 1].
    :param new_luma: (H, W) in [0, 1].
    :param old_luma: (H, W), that of the image, if known.
    :return: (3, H, W), clipped to [0, 1].
    """
    if old_luma is None:
        old_luma = luma(bgr)
    return (bgr + (new_luma - old_luma)).clamp_(0.0, 1.0)


def mixed_chroma(images: Sequence[Tensor], weights: Tensor) -> Tensor:
    """
    Return an image with the chroma of several, for :func:`replace_luma`.

    Each pixel's chroma is the mean over the images, weighted by the fusion's weights times the
    saturation of the surroundings: a washed-out or dark exposure counts little next to one that
    has colour, and a grey image not at all. The saturation of single pixels would prefer the
    fringes of a blurred image, and switch between exposures where one clips.

    :param images: K images (3, H, W), blue first, in [0, 1].
    :param weights: (at least K, H, W), not negative; those of the first K count.
    :return: (3, H, W), of which only the chroma means something; one image comes back as it is.
    """
    if len(images) == 1:
        return images[0]
    stack = torch.stack(list(images))
    saturation = stack.amax(dim=1) - stack.amin(dim=1)
    share = (weights[: len(stack)] + _LEAST_WEIGHT) * _surroundings(saturation)
    # Where no image has colour, there are no shares and no chroma.
    share = share / share.sum(dim=0).clamp_min(torch.finfo(stack.dtype).tiny)
    chroma = stack - torch.stack([luma(image) for image in images])[:, None]
    return (share[:, None] * chroma).sum(dim=0)


def _surroundings(x: Tensor) -> Tensor:
    """Smooth (K, H, W), not negative; 0 only where all that is nearer than half a cell is 0."""
    height, width = x.shape[-2:]
    # Whole cells, so that every pixel is near the centre of its own. What zeros take from those at
    # the edge, they take from all images alike.
    padded = F.pad(x[None], (0, -width % _CELL, 0, -height % _CELL))
    cells = F.avg_pool2d(padded, _CELL)
    smooth = F.interpolate(cells, padded.shape[-2:], mode='bilinear', align_corners=False)
    return smooth[0, :, :height, :width]
