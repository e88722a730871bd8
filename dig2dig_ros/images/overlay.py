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

"""Weight maps as pictures: a grey image for each source, and the fused image in their colours."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from dig2dig_ros.images.luma import grey

# Blue-green-red, distinguishable by people who see colours differently, too (Okabe and Ito):
# blue, vermilion, green, purple, yellow, sky blue and orange.
_PALETTE = (
    (178, 114, 0),
    (0, 94, 213),
    (115, 158, 0),
    (167, 121, 204),
    (66, 228, 240),
    (233, 180, 86),
    (0, 159, 230),
)
# Each round through the palette is darker than the one before.
_DARKER = 0.65
# Excess of a source, of at most 1, from which on its colour is as strong as it gets.
_STRONG = 0.6
# How much of the image the strongest colour hides, and how bright the colour is on black: darker
# than on white, so that the image stays recognisable.
_OPACITY, _ON_BLACK = 0.75, 0.45
# The legend: height in pixels, grey level of the paper, and the ink.
_HEIGHT, _PATCH, _PAPER, _INK = 26, 30, 245, (40, 40, 40)
_FONT, _FONT_SCALE = cv2.FONT_HERSHEY_SIMPLEX, 0.45


def weight_map(weight: NDArray[np.float32]) -> NDArray[np.uint8]:
    """
    Return the weights of one source as an 8-bit image: weight x 255, rounded.

    :param weight: (H, W) in [0, 1].
    """
    return np.rint(weight * 255).astype(np.uint8)


def source_colours(number: int) -> NDArray[np.float32]:
    """
    Return a colour for each source: cool for the first, warm for the second.

    :param number: of the sources, K.
    :return: (K, 3) blue-green-red, 0 to 255; all distinct, and a source keeps its colour
        whatever comes after it.
    """
    rounds, places = np.divmod(np.arange(number), len(_PALETTE))
    colours = np.array(_PALETTE, np.float32)[places] * _DARKER ** rounds[:, None]
    return colours.astype(np.float32)


def contribution_overlay(
    image: NDArray[np.uint8], contributions: NDArray[np.float32]
) -> NDArray[np.uint8]:
    """
    Colour the fused image by what came from where.

    A pixel gets the colours of the sources that contribute more than an equal part, the stronger
    the more they do; where all contribute alike, it stays grey.

    :param image: (H, W) or (H, W, 3) fused image.
    :param contributions: (K, H, W) in [0, 1], summing to 1 over the sources, see
        :class:`~dig2dig_ros.fusion.fuser.FusionResult`.
    :return: (H, W, 3) blue-green-red.
    """
    luma = grey(image)
    if len(contributions) != 2:
        return _blended(luma, contributions)
    # The node does this for every pair; looked up, it takes a tenth of the time.
    index = weight_map(contributions[1]).astype(np.intp) << 8 | luma
    picture: NDArray[np.uint8] = _two_sources().take(index, axis=0)
    return picture


@cache
def _two_sources() -> NDArray[np.uint8]:
    """Return the colour at 256 x (contribution of the second source) + luma, (65536, 3)."""
    second = np.repeat(np.linspace(0, 1, 256, dtype=np.float32)[:, None], 256, axis=1)
    luma = np.repeat(np.arange(256, dtype=np.uint8)[None], 256, axis=0)
    return _blended(luma, np.stack([1 - second, second])).reshape(-1, 3)


def _blended(luma: NDArray[np.uint8], contributions: NDArray[np.float32]) -> NDArray[np.uint8]:
    equal = 1 / len(contributions)
    excess = np.maximum(contributions - np.float32(equal), 0)
    total = excess.sum(axis=0)
    tint = cv2.transform(np.moveaxis(excess, 0, -1), source_colours(len(excess)).T)
    opacity = _OPACITY * np.minimum(total / (_STRONG * (1 - equal)), 1)
    tint *= (opacity / np.maximum(total, 1e-6))[..., None]
    brightness = _ON_BLACK + (1 - _ON_BLACK) / 255 * luma.astype(np.float32)
    blended = tint * brightness[..., None] + ((1 - opacity) * luma)[..., None]
    return np.asarray(cv2.convertScaleAbs(blended), dtype=np.uint8)


def contribution_legend(names: Sequence[str]) -> NDArray[np.uint8]:
    """
    Return the key to :func:`contribution_overlay`: a bar between two names, or a patch for each.

    :param names: of the sources, in their order.
    :return: (26, W, 3) blue-green-red, dark on light.
    """
    if len(names) == 2:
        warm = np.linspace(0, 1, 4 * _PATCH, dtype=np.float32)
        parts = [_label(names[0]), _swatch(np.stack([1 - warm, warm])), _label(names[1])]
    else:
        alone = np.eye(len(names), dtype=np.float32)[..., None].repeat(_PATCH, axis=2)
        parts = [
            part
            for own, name in zip(alone, names, strict=True)
            for part in (_swatch(own), _label(name))
        ]
    return np.hstack(parts)


def with_legend(picture: NDArray[np.uint8], names: Sequence[str]) -> NDArray[np.uint8]:
    """Return a picture, (H, W, 3), with the :func:`contribution_legend` below it."""
    legend, width = contribution_legend(names), picture.shape[1]
    if legend.shape[1] > width:
        height = max(1, round(legend.shape[0] * width / legend.shape[1]))
        legend = cv2.resize(legend, (width, height), interpolation=cv2.INTER_AREA)
    margin = ((0, 0), (0, width - legend.shape[1]), (0, 0))
    return np.vstack([picture, np.pad(legend, margin, constant_values=_PAPER)])


def _swatch(contributions: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return a patch of colours on middle grey, for contributions (K, W)."""
    rows = contributions[:, None].repeat(_HEIGHT - 12, axis=1)
    patch = contribution_overlay(np.full(rows.shape[1:], 150, np.uint8), rows)
    return np.pad(patch, ((6, 6), (6, 6), (0, 0)), constant_values=_PAPER)


def _label(text: str) -> NDArray[np.uint8]:
    (width, _), _ = cv2.getTextSize(text, _FONT, _FONT_SCALE, 1)
    label = np.full((_HEIGHT, width + 4, 3), _PAPER, np.uint8)
    cv2.putText(label, text, (2, 18), _FONT, _FONT_SCALE, _INK, 1, cv2.LINE_AA)
    return label
