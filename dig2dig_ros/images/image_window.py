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
The part of a camera's full image that its images show: region of interest and binning.

As in REP 104 and sensor_msgs/CameraInfo: K, D, P, width and height are those of the full image,
which does not change; the images are a part of it, in which blocks of pixels become one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dig2dig_ros.images.geometry import Array, RegistrationError, Size


@dataclass(frozen=True)
class ImageWindow:
    """
    What the images of a camera show of the full one that it was calibrated for.

    :param full: (width, height) of the full image.
    :param offset: (x, y) of the part's upper left pixel in the full image.
    :param part: (width, height) of the part in pixels of the full image.
    :param binning: (x, y): how many of those become one pixel.
    :raises RegistrationError: the part leaves the full image, or nothing is left of it.
    """

    full: Size
    offset: tuple[int, int]
    part: Size
    binning: tuple[int, int]

    def __post_init__(self) -> None:
        """Check that it lies inside."""
        ends = [start + length for start, length in zip(self.offset, self.part, strict=True)]
        is_inside = all(0 < end <= most for end, most in zip(ends, self.full, strict=True))
        if not (is_inside and min(self.part) > 0 and min(self.offset) >= 0):
            raise RegistrationError(
                f'its roi, {_times(self.part)} pixels at {self.offset}, does not lie in the '
                f'{_times(self.full)} of width and height, which are those of the full image '
                '(REP 104): correct it in the driver'
            )
        if min(self.binning) < 1 or min(self.size) < 1:
            raise RegistrationError(
                f'its binning of {_times(self.binning)} leaves nothing of {_times(self.part)} '
                'pixels: correct it in the driver'
            )

    @classmethod
    def from_camera_info(cls, message: Any) -> ImageWindow:
        """
        Take it from a sensor_msgs/CameraInfo, or what has its width and height.

        Zeros mean what REP 104 says: a roi of no width reaches to the border, a binning of 0 is 1.

        :raises RegistrationError: the message contradicts itself.
        """
        full = int(message.width), int(message.height)
        if min(full) < 1:
            raise RegistrationError(
                f'its size is {_times(full)} pixels: have the driver set the size of the full '
                'image'
            )
        x, y, width, height, across, down = window_values(message)
        part = width or full[0] - x, height or full[1] - y
        return cls(full, (x, y), part, (across or 1, down or 1))

    @property
    def size(self) -> Size:
        """(width, height) of the images."""
        return self.part[0] // self.binning[0], self.part[1] // self.binning[1]

    @property
    def is_full(self) -> bool:
        """Whether the images are the full ones."""
        return self.size == self.full

    def matrix(self, full: Array) -> Array:
        """
        Return the camera matrix (3, 3) of the images, of that of the full image.

        The centre of a binned pixel is that of its block.
        """
        step = np.array(self.binning, float)
        first = np.array(self.offset) + (step - 1) / 2
        to_window = np.array(
            [
                [1 / step[0], 0, -first[0] / step[0]],
                [0, 1 / step[1], -first[1] / step[1]],
                [0, 0, 1],
            ]
        )
        return np.asarray(to_window @ full)

    def __str__(self) -> str:
        """Return it in words."""
        if self.is_full:
            return f'{_times(self.full)} pixels'
        text = f'{_times(self.size)} pixels ('
        if self.part != self.full:
            text += f'its roi, {_times(self.part)} at {self.offset} of {_times(self.full)}'
        else:
            text += _times(self.full)
        if self.binning != (1, 1):
            text += f', binned {_times(self.binning)}'
        return text + ')'


def window_values(message: Any) -> tuple[int, ...]:
    """Return x_offset, y_offset, width and height of the roi, binning_x and binning_y."""
    roi = getattr(message, 'roi', None)
    return (
        *(int(getattr(roi, name, 0)) for name in ('x_offset', 'y_offset', 'width', 'height')),
        *(int(getattr(message, name, 0)) for name in ('binning_x', 'binning_y')),
    )


def _times(size: tuple[int, int]) -> str:
    return f'{size[0]}x{size[1]}'
