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
Points, homographies and rotations: what registration and alignment are made of.

Pixels are (x, y); centres are at integers, (0, 0) is the centre of the upper left pixel, and an
image reaches from -0.5 to its width or height - 0.5.
"""

from __future__ import annotations

import math
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

_ROTATION_TOLERANCE = 1e-3


class RegistrationError(ValueError):
    """A registration is impossible, wrong or not for these images; the text says what to do."""


def rotation_of_quaternion(quaternion: ArrayLike) -> Array:
    """
    Return the (3, 3) rotation of a quaternion.

    :param quaternion: x, y, z, w, as in geometry_msgs/Quaternion; of any length but 0.
    :raises RegistrationError: it is zero or not finite.
    """
    values = finite_array(quaternion, (4,), 'quaternion')
    length = float(np.linalg.norm(values))
    if length < 1e-6:
        raise RegistrationError(
            'quaternion is zero, which is no rotation: [0, 0, 0, 1] is that of cameras that look '
            'the same way'
        )
    x, y, z, w = values / length
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def project(homography: Array, points: Array) -> Array:
    """Apply a homography to (N, 2) points; NaN where the last coordinate is not above 0."""
    x, y = points.T
    (a, b, c), (d, e, f), (g, h, i) = homography
    depth = g * x + h * y + i
    with np.errstate(all='ignore'):
        depth = np.where(depth > 0.0, depth, np.nan)
        return np.stack([(a * x + b * y + c) / depth, (d * x + e * y + f) / depth], axis=1)


def rotation_about(axis: int, angle: float) -> Array:
    """Return the rotation by an angle in radians about the axis x, y or z."""
    turn = np.eye(3)
    first, second = (axis + 1) % 3, (axis + 2) % 3
    turn[first, first] = turn[second, second] = math.cos(angle)
    turn[second, first] = math.sin(angle)
    turn[first, second] = -turn[second, first]
    return turn


def nearest_rotation(values: ArrayLike, name: str) -> Array:
    """Return the nearest rotation, of what is nearly one."""
    matrix = finite_array(values, (3, 3), name)
    left, _, right = np.linalg.svd(matrix)
    nearest: Array = left @ right
    if np.abs(nearest - matrix).max() > _ROTATION_TOLERANCE or np.linalg.det(nearest) < 0.0:
        raise RegistrationError(
            f'{name} is none: its rows must be of length 1 and at right angles, right-handed, '
            f'within {_ROTATION_TOLERANCE:g}'
        )
    return nearest


def as_points(points: ArrayLike) -> Array:
    array = np.array(points, float)
    if array.ndim != 2 or array.shape[1] != 2:
        raise ValueError(f'points are (N, 2), not of shape {array.shape}')
    return array


def finite_array(values: ArrayLike, shape: tuple[int, ...], name: str) -> Array:
    """Return a read-only copy of finite numbers."""
    array = np.array(values, float)
    if array.shape != shape:
        wanted = ' x '.join(map(str, shape))
        raise RegistrationError(f'{name} has shape {array.shape} instead of {wanted} numbers')
    if not np.isfinite(array).all():
        raise RegistrationError(f'{name} has numbers that are not finite: {array.tolist()}')
    array.flags.writeable = False
    return array


def image_size(size: Any, name: str) -> tuple[int, int]:
    values = list(size) if isinstance(size, (list, tuple)) else []
    whole = all(isinstance(value, Integral) and not isinstance(value, bool) for value in values)
    if len(values) != 2 or not whole or min(values) < 1:
        raise RegistrationError(f'{name} is not [width, height] in whole pixels, but {size!r}')
    return int(values[0]), int(values[1])


def size_text(size: tuple[int, int]) -> str:
    return f'{size[0]}x{size[1]}'


def resizing(before: tuple[int, int], after: tuple[int, int]) -> Array:
    """Return the homography of resizing, with centres of pixels at integers."""
    sx, sy = after[0] / before[0], after[1] / before[1]
    return np.array([[sx, 0, (sx - 1) / 2], [0, sy, (sy - 1) / 2], [0, 0, 1]])


def normalisation(size: tuple[int, int]) -> Array:
    """Return the map of pixels to coordinates about the centre, in halves of the longer side."""
    unit = max(size) / 2
    return np.array(
        [
            [1 / unit, 0, -(size[0] - 1) / 2 / unit],
            [0, 1 / unit, -(size[1] - 1) / 2 / unit],
            [0, 0, 1],
        ]
    )


def similarity_about(rotation: float, scale: float, centre: Array) -> Array:
    cosine, sine = scale * math.cos(rotation), scale * math.sin(rotation)
    turn = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])
    return np.asarray(translation(*centre) @ turn @ translation(*-centre))


def translation(x: float, y: float) -> Array:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], np.float64)


def corners_of(size: tuple[int, int]) -> Array:
    width, height = size
    return np.array([[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]], np.float64)


def apply_homography(matrix: Array, points: Array) -> Array:
    mapped = np.column_stack([points, np.ones(len(points))]) @ matrix.T
    return np.asarray(mapped[:, :2] / mapped[:, 2:])
