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

"""Flaws of a camera's image: white noise, stripes, little contrast, blur."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from dig2dig_ros.images.blur import Blur, estimate_blur, SMALLEST_FOR_BLUR
from dig2dig_ros.images.camera_noise import CameraNoise, estimate_noise, SMALLEST_FOR_NOISE
from dig2dig_ros.images.contrast import Contrast, estimate_contrast, SMALLEST_FOR_CONTRAST
from dig2dig_ros.images.stripes import (
    estimate_stripes,
    SMALLEST_FOR_STRIPES,
    Stripes,
    without_stripes,
)

# Deviation in grey levels of 255 from which an image is noisy; less is not worth removing.
NOISY = 1.5


@dataclass(frozen=True)
class SensorNoise:
    """
    What to remove from an image, stripes first.

    :param white: noise that is independent from pixel to pixel, before the image is stretched.
    :param stripes: offsets of columns and rows; of images with colour none.
    :param contrast: how to stretch the image; images with colour are not stretched.
    :param blur: how the image is blurred; of images with colour, and of noisy ones, not at all.
    """

    white: CameraNoise = field(default_factory=CameraNoise)
    stripes: Stripes = field(default_factory=Stripes)
    contrast: Contrast = field(default_factory=Contrast)
    blur: Blur = field(default_factory=Blur)


def measure_noise(
    image: NDArray[Any],
    *,
    full_scale: float,
    white: bool = True,
    stripes: bool = True,
    contrast: bool = False,
    blur: bool = False,
) -> SensorNoise:
    """
    Estimate the noise of an image; one that is too small counts as having none.

    :param image: (H, W) or (H, W, 3) blue-green-red; uint8, uint16 or float32.
    :param full_scale: the value of white: 255 for uint8, 65535 for uint16, 1 for floats.
    :param white: whether to estimate white noise.
    :param stripes: whether to estimate stripes, in images without colour.
    :param contrast: whether to estimate the contrast, likewise.
    :param blur: whether to estimate the blur, likewise.
    """
    side = min(image.shape[:2])
    own, offsets, stretch, blurred = CameraNoise(), Stripes(), Contrast(), Blur()
    if white and side >= SMALLEST_FOR_NOISE:
        own = estimate_noise(image, full_scale=full_scale)
    if stripes and image.ndim == 2 and side >= SMALLEST_FOR_STRIPES:
        offsets = estimate_stripes(image, full_scale=full_scale)
    if contrast and image.ndim == 2 and side >= SMALLEST_FOR_CONTRAST:
        stretch = estimate_contrast(image, full_scale=full_scale)
    if blur and image.ndim == 2 and side >= SMALLEST_FOR_BLUR and own.deviation < NOISY:
        plain = without_stripes(image, offsets, full_scale=full_scale)
        blurred = estimate_blur(plain, full_scale=full_scale)
    return SensorNoise(own, offsets, stretch, blurred)
