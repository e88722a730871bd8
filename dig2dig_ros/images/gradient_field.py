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
Fields of gradients: what a thermal and a visible image of one scene have in common.

The two show different things, but mostly with edges in the same places and along the same lines.
Images become fields of gradients at twice their angle, so that opposite directions agree, as
contrast may be inverted; each is normalised by its surroundings.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dig2dig_ros.images.luma import grey

Image = NDArray[np.float32]

# Standard deviations in pixels of the level at hand.
_GRADIENT_SIGMA = 0.8
_FIELD_SIGMA = 1.0
_SURROUNDINGS_SIGMA = 10.0
# Part of the typical gradient that counts as noise.
_NOISE_FLOOR = 0.5


def gradient_field(image: Image, mask: Image) -> tuple[Image, Image]:
    """
    Return the field of gradients, (2, H, W), and a mask of where it counts, (H, W).

    Vectors at twice the gradient's angle, after the orientation correlation of Fitch et al.
    (BMVC 2002), but as long as the gradient is in comparison with its surroundings, so that flat
    areas stay weak.

    :param image: (H, W).
    :param mask: (H, W), 1 where the image shows something, else 0.
    """
    smooth = cv2.GaussianBlur(image, (0, 0), _GRADIENT_SIGMA)
    gx = cv2.Scharr(smooth, cv2.CV_32F, 1, 0, scale=1 / 32)
    gy = cv2.Scharr(smooth, cv2.CV_32F, 0, 1, scale=1 / 32)
    # What is outside the mask must not make edges at its border.
    inner = cv2.erode(
        mask, np.ones((5, 5), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0
    )
    gx *= inner
    gy *= inner
    energy = gx * gx + gy * gy
    weight = np.maximum(_surroundings(inner), 1e-3)
    around = _surroundings(energy) / weight
    total = float(inner.sum())
    typical = float(np.sqrt(energy).sum()) / max(total, 1.0)
    strength = np.maximum(np.sqrt(energy), 1e-9)
    scale = inner / (np.sqrt(np.maximum(around, 0.0)) + _NOISE_FLOOR * typical + 1e-9)
    # To the length of the gradient, at most 2, from its square.
    scale = np.minimum(scale, 2.0 / strength) / strength
    field = np.stack([(gx * gx - gy * gy) * scale, 2.0 * gx * gy * scale])
    for channel in field:
        narrow = cv2.GaussianBlur(channel, (0, 0), _FIELD_SIGMA)
        # Without the local mean: that a region has edges at all says little of where they are.
        channel[:] = (narrow - _surroundings(channel) / weight) * inner
    return field, inner


def _surroundings(image: Image) -> Image:
    """Return a wide Gaussian blur, computed at a quarter of the resolution."""
    height, width = image.shape
    small = cv2.resize(
        image, (max(1, width // 4), max(1, height // 4)), interpolation=cv2.INTER_AREA
    )
    blurred = cv2.GaussianBlur(small, (0, 0), _SURROUNDINGS_SIGMA / 4)
    return np.asarray(cv2.resize(blurred, (width, height), interpolation=cv2.INTER_LINEAR))


def normalised_grey(image: NDArray[Any], size: tuple[int, int] | None = None) -> Image:
    """
    Return float32 with the bulk of the values in [0, 1]; NaN and infinities as the median.

    :param size: (width, height) to reduce it to first.
    """
    if size is not None and image.dtype in (np.uint8, np.uint16):
        # In integers, which is much faster.
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    values = grey(image.astype(np.float32))
    finite = np.isfinite(values)
    if not finite.all():
        values = np.where(finite, values, np.median(values[finite]) if finite.any() else 0)
    if size is not None and values.shape != size[::-1]:
        values = resized(values, size)
    # A sample will do.
    step = max(1, min(values.shape) // 100)
    low, high = np.percentile(values[::step, ::step], (1.0, 99.0))
    # The root evens out the noise of photons, and lifts the edges of dark parts.
    stretched = np.clip((values - low) / max(float(high - low), 1e-6), 0.0, 2.0)
    return np.asarray(np.sqrt(stretched), np.float32)


def resized(image: Image, size: tuple[int, int]) -> Image:
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA))
