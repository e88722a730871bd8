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
The steps between a group of messages and the fuser, and between its result and messages.

The node and the evaluation of bags both go through here, so that what is evaluated is what the
node does. `values` are the node's parameters by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dig2dig_ros.images.overlay import weight_map
from dig2dig_ros.images.thermal_range import ThermalRange
from dig2dig_ros.streams.codec import decode, decode_compressed

_NANOSECONDS = 1_000_000_000


def stamp_of(header: Any) -> int:
    """Return the stamp in a ``std_msgs/Header`` in nanoseconds."""
    return int(header.stamp.sec) * _NANOSECONDS + int(header.stamp.nanosec)


class SourceImages:
    """
    Messages of all sources to the images that the fuser takes.

    Thermal counts become intensities by a range that follows the scene; each source has one of
    its own. Frames must come in order; not thread-safe.
    """

    def __init__(self) -> None:
        self._ranges: dict[str, tuple[tuple[Any, ...], ThermalRange]] = {}

    def clear(self) -> None:
        """Forget the ranges: the next frame of each source sets its own."""
        self._ranges.clear()

    def __call__(
        self,
        source: str,
        message: Any,
        stamp: int,
        values: Mapping[str, Any],
        *,
        compressed: bool = False,
        topic: str = '',
    ) -> NDArray[Any]:
        """
        Decode one message and map its counts to intensities.

        Visible images, and 8-bit images of additional sources, stay as they are.

        :param source: 'visible', 'thermal' or the name of an additional one.
        :param message: a ``sensor_msgs/Image``, or a ``CompressedImage`` if ``compressed``.
        :param stamp: of the message in nanoseconds.
        :param topic: where it came from, for error texts.
        :return: (H, W) or (H, W, 3) in blue-green-red order; uint8, uint16 or float32 in [0, 1].
        :raises CodecError: the message is damaged or of an unknown encoding.
        :raises ThermalRangeError: the image is not thermal.
        """
        array = decode_compressed(message, topic) if compressed else decode(message, topic)
        if source == 'visible' or (source != 'thermal' and array.dtype == np.uint8):
            return array
        return self._range(source, values)(array, stamp / _NANOSECONDS)

    def _range(self, source: str, values: Mapping[str, Any]) -> ThermalRange:
        """Return the range of a source; a new one after a change of its parameters."""
        key = (
            values['thermal_range'],
            tuple(values['thermal_range_percentiles']),
            tuple(values['thermal_range_limits']),
            values['thermal_range_smoothing'],
        )
        if source not in self._ranges or self._ranges[source][0] != key:
            mode, percentiles, limits, smoothing = key
            self._ranges[source] = (key, ThermalRange(mode, percentiles, limits, smoothing))
        return self._ranges[source][1]


def fused_picture(image: NDArray[np.uint8], encoding: str) -> NDArray[np.uint8]:
    """
    Return a fused image with the channels that ``encoding`` needs.

    :param image: (H, W), or (H, W, 3) in blue-green-red order.
    :param encoding: ``mono8``, ``bgr8`` or ``rgb8``.
    :return: (H, W) for ``mono8``, else (H, W, 3), still in blue-green-red order.
    """
    if image.ndim == 2 and encoding != 'mono8':
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2BGR))
    if image.ndim == 3 and encoding == 'mono8':
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY))
    return image


def weight_plane(weights: NDArray[np.float32], encoding: str) -> NDArray[Any]:
    """
    Return the weights of one source as ``encoding`` has them.

    :param weights: (H, W) in [0, 1].
    :param encoding: ``32FC1``, or ``mono8`` for weight x 255.
    """
    return weights if encoding == '32FC1' else weight_map(weights)
