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
Stripes: the offsets of the single columns and rows of an uncooled thermal sensor.

All deviations and offsets are in grey levels of 255, whatever the type of the image.
"""

from __future__ import annotations

from dataclasses import dataclass
import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

# Lines that are looked at: of each half of the image, and of it all once there are stripes.
_LINES_OF_HALF, _LINES = 16, 48
# Pixels a side from which stripes can be found.
SMALLEST_FOR_STRIPES = 2 * _LINES_OF_HALF
# Grey levels that differences between neighbours count as, at most, to see if there are stripes.
_ROUGH = 32.0
# Least deviation that is called stripes, and how many times its standard error it must be.
LEAST_STRIPES = 2.5
_SIGNIFICANT = 4.0
# Squared error of a difference between neighbouring lines, in grey levels: what edges leave.
_ERROR = 2.25
# How near to black or white, in grey levels, clipping takes its part of the offsets, and how many
# pixels the brightness is averaged over that says so.
_CLIPPING, _SMOOTH = 16.0, 16
# The middle of a column's sorted differences is averaged: the median, but finer
# than the grey levels of the image.
_MIDDLE = 8
# What an offset still takes of a step that far away is neglected.
_NEGLIGIBLE = 1e-3


@dataclass(frozen=True)
class Stripes:
    """
    Offsets of columns and rows.

    :param columns: deviation of the offsets of the columns; 0 if they have none.
    :param rows: that of the rows.
    :param column_offsets: (W,), to be subtracted; None if the columns have none.
    :param row_offsets: (H,), likewise.
    """

    columns: float = 0.0
    rows: float = 0.0
    column_offsets: Floats | None = None
    row_offsets: Floats | None = None

    @property
    def are_none(self) -> bool:
        """Return whether there is nothing to subtract."""
        return self.column_offsets is None and self.row_offsets is None


def estimate_stripes(image: NDArray[Any], *, full_scale: float) -> Stripes:
    """
    Estimate the offsets that each column, and each row, has against its neighbours.

    The offset of a column is the same from top to bottom, unlike edges of the scene: so only what
    the upper and the lower half of the image agree on counts as stripes, and only if it is as
    independent from column to column as readout circuits are. The offsets are the most probable
    ones given the median differences to the next column, if they are independent: slow changes of
    brightness are left to the scene.

    :param image: (H, W), uint8, uint16 or float32 in [0, full_scale], at least 32x32.
    :param full_scale: the value of white: 255 for uint8, 65535 for uint16, 1 for floats.
    :raises ValueError: the image has another shape, type or size.
    """
    _check(image, full_scale)
    unit = 255 / full_scale
    columns, column_offsets = _estimate_columns(image, unit)
    rows, row_offsets = _estimate_columns(image.T, unit)
    return Stripes(columns, rows, column_offsets, row_offsets)


def without_stripes(image: NDArray[Any], stripes: Stripes, *, full_scale: float) -> NDArray[Any]:
    """
    Return the image without its stripes, of the same type; itself, where there are none.

    :param image: (H, W), uint8, uint16 or float32 in [0, full_scale].
    """
    if stripes.are_none:
        return image
    whole = image.dtype != np.float32
    offsets = np.zeros((1, 1), np.int32 if whole else np.float32)
    for own, shape in ((stripes.column_offsets, (1, -1)), (stripes.row_offsets, (-1, 1))):
        if own is not None:
            scaled = (own * np.float32(full_scale / 255)).reshape(shape)
            offsets = offsets + (np.rint(scaled).astype(np.int32) if whole else scaled)
    if image.dtype == np.uint8:
        offsets = offsets.astype(np.int16)
    return np.clip(image - offsets, 0, full_scale).astype(image.dtype)


def _check(image: NDArray[Any], full_scale: float) -> None:
    if image.ndim != 2 or image.dtype not in (np.uint8, np.uint16, np.float32):
        raise ValueError(
            f'the image must be (H, W) of uint8, uint16 or float32, but is {image.dtype} of shape '
            f'{image.shape}'
        )
    if min(image.shape) < SMALLEST_FOR_STRIPES:
        raise ValueError(
            f'stripes are found in images of at least {SMALLEST_FOR_STRIPES} pixels a side, but '
            f'this one has {image.shape[1]}x{image.shape[0]}'
        )
    if not full_scale > 0:
        raise ValueError(f'full_scale is {full_scale}, but must be positive')


def _estimate_columns(image: NDArray[Any], unit: float) -> tuple[float, Floats | None]:
    """Return deviation and offsets of the columns; of little deviation, no offsets."""
    deviation = _common_deviation(_sampled(image, 2 * _LINES_OF_HALF, unit))
    if deviation < LEAST_STRIPES:
        return 0.0, None
    steps = _median_steps(_sampled(image, min(_LINES, image.shape[0]), unit))
    offsets = _integrated(steps, _ERROR / deviation**2)
    return max(deviation, float(offsets.std())), offsets


def _sampled(image: NDArray[Any], count: int, unit: float) -> Floats:
    """Return lines at equal distances in grey levels of 255, (count, W)."""
    step = image.shape[0] // count
    lines = image[step // 2 :: step][:count].astype(np.float32, order='C')
    if unit != 1:
        lines *= np.float32(unit)
    return lines


def _common_deviation(lines: Floats) -> float:
    """Return the deviation of what both halves of the lines show of independent offsets."""
    differences = np.clip(lines[:, 1:] - lines[:, :-1], -_ROUGH, _ROUGH)
    upper = cv2.reduce(differences[:_LINES_OF_HALF], 0, cv2.REDUCE_AVG)[0]
    lower = cv2.reduce(differences[_LINES_OF_HALF:], 0, cv2.REDUCE_AVG)[0]
    # Differences of independent offsets of variance v: 2 v, and -v from one to the next.
    count = 2 * len(upper)
    own = float(upper @ lower) / count
    neighbours = -float(upper[1:] @ lower[:-1] + upper[:-1] @ lower[1:]) / count
    variance = min(own, neighbours)
    error = math.sqrt(2 * float(upper @ upper) * float(lower @ lower) / count) / count
    return math.sqrt(variance) if variance > _SIGNIFICANT * error else 0.0


def _median_steps(lines: Floats) -> Floats:
    """Return (W - 1,): by how much each column is above the one before it, in most lines."""
    count, width = lines.shape
    coarse = (max(1, width // _SMOOTH), count)
    brightness = cv2.resize(lines, coarse, interpolation=cv2.INTER_AREA)
    brightness = cv2.resize(brightness, (width - 1, count))
    clipped = np.abs(brightness - 127.5) > 127.5 - _CLIPPING
    differences = lines[:, 1:] - lines[:, :-1]
    differences[clipped] = np.inf
    differences.sort(axis=0)
    middle = (count - np.count_nonzero(clipped, axis=0)) // 2
    rows = middle + np.arange(-_MIDDLE // 2, _MIDDLE // 2)[:, np.newaxis]
    steps = differences[rows, np.arange(width - 1)].mean(axis=0)
    # Too few lines are not clipped to find an offset.
    steps[middle < _MIDDLE // 2] = 0
    return np.asarray(steps, np.float32)


def _integrated(steps: Floats, ratio: float) -> Floats:
    """
    Return the most probable offsets, (W,): those that minimise |steps of o - s|^2 + ratio |o|^2.

    :param ratio: the variance of the errors of the steps to that of the offsets.
    """
    # A step raises what is after it, and lowers what is before it, by less and less.
    decay = 1 + ratio / 2 - math.sqrt(ratio + ratio**2 / 4)
    reach = min(len(steps), math.ceil(math.log(_NEGLIGIBLE) / math.log(decay)))
    after = decay ** np.arange(1, reach + 1) / (1 + decay)
    # Mirrored at the ends.
    left, right = -steps[: reach - 1][::-1], -steps[-(reach - 1) :][::-1]
    padded = np.concatenate((left, [0], steps, [0], right))
    return np.convolve(padded, np.concatenate((-after[::-1], after)), 'valid').astype(np.float32)
