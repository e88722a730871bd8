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

"""Weight maps as pictures: one grey image for each source, and whose the fused image is."""

from __future__ import annotations

import colorsys

import cv2
import numpy as np
from numpy.typing import NDArray

from dig2dig_ros.images.luma import grey


def weight_map(weight: NDArray[np.float32]) -> NDArray[np.uint8]:
    """
    Return the weights of one source as an 8-bit image: weight x 255, rounded.

    :param weight: (H, W) in [0, 1].
    """
    return np.rint(weight * 255).astype(np.uint8)


def source_colours(number: int) -> NDArray[np.float32]:
    """
    Return a colour for each source: blue, red, green, and then what lies between on the wheel.

    :param number: of the sources, K.
    :return: (K, 3) blue-green-red, 0 to 255; all distinct, and a source keeps its colour
        whatever comes after it.
    """
    colours = []
    for index in range(number):
        ring, place = divmod(index, 3)
        # Thirds of the wheel; each further three halve the widest gaps (van der Corput).
        turn = sum(((ring >> bit) & 1) / 2 ** (bit + 1) for bit in range(ring.bit_length()))
        red, green, blue = colorsys.hsv_to_rgb((2 + place + turn) / 3 % 1, 1.0, 1.0)
        colours.append((blue, green, red))
    return np.array(colours, np.float32).reshape(-1, 3) * 255


def weight_overlay(image: NDArray[np.uint8], weights: NDArray[np.float32]) -> NDArray[np.uint8]:
    """
    Colour the fused image by whose it is.

    With two sources: cool where the first rules, warm where the second does. With more: the mean
    of the :func:`source_colours` by weight.

    :param image: (H, W) or (H, W, 3) fused image.
    :param weights: (K, H, W) in [0, 1], summing to 1 over the sources.
    :return: (H, W, 3) blue-green-red.
    """
    if len(weights) == 2:
        colour = cv2.applyColorMap(weight_map(weights[1]), cv2.COLORMAP_TURBO)
    else:
        mean = np.tensordot(weights, source_colours(len(weights)), (0, 0))
        colour = np.rint(np.clip(mean, 0, 255)).astype(np.uint8)
    background = cv2.cvtColor(grey(image), cv2.COLOR_GRAY2BGR)
    blended: NDArray[np.uint8] = cv2.addWeighted(background, 0.55, colour, 0.45, 0.0)
    return blended
