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
Contrast of thermal images: on a hot day, nothing is much warmer than the rest.

A camera that chooses its range by itself and sends 8 bits then puts the whole scene into a few
grey levels, and the fused image turns grey.
"""

from __future__ import annotations

from dataclasses import dataclass
import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dig2dig_ros.images.camera_noise import CameraNoise
from dig2dig_ros.images.quantiles import nearest_ranks

# Pixels a side of the means whose range is looked at: noise hardly widens it.
_CELL = 4
# Pixels a side from which on there are enough of them.
SMALLEST_FOR_CONTRAST = 32
_PARTS = (0.01, 0.995)
# Deviations of white noise between these quantiles, 4.9, and a margin.
_NOISE_SPAN = 5.6
# Grey levels between the quantiles: with ENOUGH an image stays as it is; one with less is
# stretched, the more the less it has, at most to FULL.
_ENOUGH, _FULL = 40.0, 120.0
# What is the most that an image is stretched, and how fast that is reached below ENOUGH.
_MOST, _POWER = 16.0, 3.0
# Grey levels below which there is nothing to see: a lid, a wall, or a dead sensor.
_SOMETHING, _NOTHING = 4.0, 2.0
# Deviation of noise that stretching may lead to: more would be cut off at black and white.
_LOUDEST = 20.0
# Grey levels that the stretched image keeps from black and from white, if it can.
_MARGIN = 8.0


@dataclass(frozen=True)
class Contrast:
    """
    How to stretch an image: v becomes gain * v + offset.

    :param gain: 1 leaves it unchanged.
    :param offset: in grey levels of 255.
    """

    gain: float = 1.0
    offset: float = 0.0

    @property
    def is_enough(self) -> bool:
        """Whether the image stays as it is."""
        return self.gain == 1

    def of_noise(self, noise: CameraNoise) -> CameraNoise:
        """Return the noise of an image after it is stretched."""
        if self.is_enough:
            return noise
        # The variance, read^2 + gain * v, in terms of the stretched v.
        read = self.gain**2 * noise.read**2 - self.gain * noise.gain * self.offset
        return CameraNoise(
            math.sqrt(max(0.0, read)), self.gain * noise.gain, self.gain * noise.deviation
        )


def estimate_contrast(image: NDArray[Any], *, full_scale: float) -> Contrast:
    """
    Return how to stretch an image so that it has contrast.

    :param image: (H, W), uint8, uint16 or float32 in [0, full_scale].
    :param full_scale: the value of white: 255 for uint8, 65535 for uint16, 1 for floats.
    """
    unit = 255 / full_scale
    height, width = (side // _CELL for side in image.shape)
    seen = image[: height * _CELL, : width * _CELL]
    means = cv2.resize(seen, (width, height), interpolation=cv2.INTER_AREA)
    low, high = _range(means, unit)
    if high - low >= _ENOUGH + 1:
        return Contrast()
    # Rounded so far.
    means, noise = _means_and_noise(seen, unit)
    low, high = _range(means, 1.0)
    span = math.sqrt(max(0.0, (high - low) ** 2 - (_NOISE_SPAN * noise) ** 2))
    gain = min(_gain(span), max(1.0, _LOUDEST / max(noise * _CELL, 1.0)))
    if gain == 1:
        return Contrast()
    middle, half = (low + high) / 2, gain * (high - low) / 2 + _MARGIN
    middle_then = min(max(middle, min(half, 127.5)), max(255 - half, 127.5))
    return Contrast(gain, middle_then - gain * middle)


def stretched(
    image: NDArray[Any], contrast: Contrast, *, full_scale: float
) -> tuple[NDArray[Any], float]:
    """
    Return the stretched image, clipped, and its value of white; the image itself if gain is 1.

    :param image: (H, W), uint8, uint16 or float32 in [0, full_scale].
    """
    if contrast.is_enough:
        return image, full_scale
    # As floats: between the grey levels that an image has it would else get none.
    values = image.astype(np.float32)
    values *= np.float32(contrast.gain / full_scale)
    values += np.float32(contrast.offset / 255)
    return np.clip(values, 0, 1, out=values), 1.0


def _gain(span: float) -> float:
    """Return how much an image of that span is stretched; continuous, and 1 from ENOUGH on."""
    if span <= _NOTHING:
        return 1.0
    gain: float = min((_ENOUGH / span) ** _POWER, _FULL / span, _MOST)
    if span < _SOMETHING:
        gain = 1 + (gain - 1) * (span - _NOTHING) / (_SOMETHING - _NOTHING)
    return max(1.0, gain)


def _range(means: NDArray[Any], unit: float) -> tuple[float, float]:
    """Return the quantiles of means, (h, w), in grey levels of 255."""
    low, high = nearest_ranks(means, _PARTS)
    return low * unit, high * unit


def _means_and_noise(image: NDArray[Any], unit: float) -> tuple[NDArray[np.float32], float]:
    """Return the means over cells, and the deviation of noise in them, in grey levels of 255."""
    size = image.shape[1] // _CELL, image.shape[0] // _CELL
    values = image.astype(np.float32) * np.float32(unit)
    means, squares = (
        np.asarray(cv2.resize(each, size, interpolation=cv2.INTER_AREA), np.float32)
        for each in (values, values * values)
    )
    variances = (squares - means * means) * (_CELL**2 / (_CELL**2 - 1))
    return means, math.sqrt(max(0.0, float(np.median(variances)))) / _CELL
