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
Points, homographies and rotations, for registration and alignment.

Pixels are (x, y); centres are at integers, (0, 0) is the centre of the upper left pixel, and an
image reaches from -0.5 to its width or height - 0.5. Sizes are (width, height).
"""

from __future__ import annotations

import math
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dig2dig_ros.errors import Refusal

Array = NDArray[np.float64]
Size = tuple[int, int]

_ROTATION_TOLERANCE = 1e-3
# 4:3 and 5:4 sensors differ by 7 %, 3:2 and 4:3 ones by 13 %.
_MOST_STRETCH = 1.1


class RegistrationError(Refusal, ValueError):
    """A registration is impossible, wrong or for other images; the message says what to do."""


def finite_array(values: ArrayLike, shape: tuple[int, ...], name: str) -> Array:
    """Return a read-only copy of numbers; raise if the shape is wrong or one is not finite."""
    array = np.array(values, float)
    if array.shape != shape:
        wanted = ' x '.join(map(str, shape))
        raise RegistrationError(f'{name} has shape {array.shape}, but must have {wanted} numbers')
    if not np.isfinite(array).all():
        raise RegistrationError(f'{name} has numbers that are not finite: {array.tolist()}')
    array.flags.writeable = False
    return array


def as_points(points: ArrayLike) -> Array:
    """Return a copy of (N, 2) points."""
    array = np.array(points, float)
    if array.ndim != 2 or array.shape[1] != 2:
        raise ValueError(f'points must be (N, 2), not of shape {array.shape}')
    return array


def checked_size(size: Any, name: str) -> Size:
    """Return (width, height), or raise if it is invalid."""
    values = list(size) if isinstance(size, (list, tuple)) else []
    whole = all(isinstance(value, Integral) and not isinstance(value, bool) for value in values)
    if len(values) != 2 or not whole or min(values) < 1:
        raise RegistrationError(f'{name} must be [width, height] in whole pixels, not {size!r}')
    return int(values[0]), int(values[1])


def size_of(image: NDArray[Any]) -> Size:
    """Return (width, height) of an image (H, W) or (H, W, C)."""
    return image.shape[1], image.shape[0]


def stretch_text(size: Size, onto: Size) -> str:
    """
    Say how much an image is distorted if it is resized to the size of another one.

    :param size: (width, height) before; ``onto`` after.
    :return: empty if that is no more than between sensors of 4:3 and 5:4.
    """
    ratio = (onto[0] / size[0]) / (onto[1] / size[1])
    if max(ratio, 1 / ratio) <= _MOST_STRETCH:
        return ''
    more, less = ('width', 'height') if ratio > 1 else ('height', 'width')
    return (
        f'{size[0]}x{size[1]} pixels are stretched onto {onto[0]}x{onto[1]}, in {more} '
        f'{max(ratio, 1 / ratio):.2f} times as much as in {less}: register the cameras '
        '(dig2dig calibrate), or crop one to the shape of the other'
    )


def corners_of(size: Size) -> Array:
    """Return the centres of the corner pixels of an image: (4, 2)."""
    width, height = size
    return np.array([[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]], np.float64)


def apply_homography(homography: Array, points: Array) -> Array:
    """Return points (N, 2) as a homography (3, 3) maps them."""
    mapped = np.column_stack([points, np.ones(len(points))]) @ homography.T
    return np.asarray(mapped[:, :2] / mapped[:, 2:])


def homography_derivatives(h: Array, points: Array) -> tuple[Array, Array]:
    """
    Return how mapped points move with the elements of the homography, and where they are.

    :param h: (8,) row by row; the last element is 1.
    :param points: (N, 2).
    :return: (N, 2, 8) derivatives of x and y by ``h``; and the mapped points, (N, 2).
    """
    u, v = points.T
    depth = h[6] * u + h[7] * v + 1
    x = (h[0] * u + h[1] * v + h[2]) / depth
    y = (h[3] * u + h[4] * v + h[5]) / depth
    zero, one = np.zeros_like(u), np.ones_like(u)
    by_x = np.stack([u, v, one, zero, zero, zero, -x * u, -x * v], axis=-1)
    by_y = np.stack([zero, zero, zero, u, v, one, -y * u, -y * v], axis=-1)
    return np.stack([by_x, by_y], axis=1) / depth[:, None, None], np.stack([x, y], axis=-1)


def translation(x: float, y: float) -> Array:
    """Return the homography of a shift."""
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], np.float64)


def resizing(before: Size, after: Size) -> Array:
    """Return the homography of resizing an image."""
    sx, sy = after[0] / before[0], after[1] / before[1]
    return np.array([[sx, 0, (sx - 1) / 2], [0, sy, (sy - 1) / 2], [0, 0, 1]])


def similarity(rotation: float, scale: float) -> Array:
    """Return the homography of a rotation (radians) and a change of scale about the origin."""
    cosine, sine = scale * math.cos(rotation), scale * math.sin(rotation)
    return np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])


def change_of_unit(origin: ArrayLike, unit: float) -> Array:
    """Return the homography to coordinates about another origin, in another unit."""
    x, y = np.asarray(origin, float) / unit
    return np.array([[1 / unit, 0, -x], [0, 1 / unit, -y], [0, 0, 1]])


def to_unit_image(size: Size) -> Array:
    """Return the homography to coordinates about the centre, in halves of the longer side."""
    return change_of_unit((np.array(size) - 1) / 2, max(size) / 2)


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
            'the quaternion is zero, which is not a rotation: for cameras that look the same way, '
            'it is [0, 0, 0, 1]'
        )
    x, y, z, w = values / length
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def rotation_of_rpy(roll: float, pitch: float, yaw: float) -> Array:
    """Return the (3, 3) rotation about the fixed axes x, y, z in this order, as in URDF."""
    (cr, cp, cy), (sr, sp, sy) = (map(f, (roll, pitch, yaw)) for f in (math.cos, math.sin))
    about_x = np.array([[1, 0, 0], [0, cr, -sr], [0, sr, cr]])
    about_y = np.array([[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]])
    about_z = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
    return np.asarray(about_z @ about_y @ about_x)


def nearest_rotation(values: ArrayLike, name: str) -> Array:
    """
    Return the rotation nearest to a rounded one.

    :raises RegistrationError: it is farther from one than rounding explains.
    """
    matrix = finite_array(values, (3, 3), name)
    left, _, right = np.linalg.svd(matrix)
    nearest: Array = left @ right
    if np.abs(nearest - matrix).max() > _ROTATION_TOLERANCE or np.linalg.det(nearest) < 0.0:
        raise RegistrationError(
            f'{name} is not valid: its rows must be right-handed, at right angles and of '
            f'length 1, within {_ROTATION_TOLERANCE:g}'
        )
    return nearest
