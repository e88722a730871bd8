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

"""The shift that is left between a visible image and a thermal one registered to it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dig2dig_ros.images.geometry import RegistrationError, Size, size_of
from dig2dig_ros.images.gradient_field import gradient_field, normalised_grey, resized

# The longer side in pixels, the reach as part of it, and by how many standard deviations of the
# other scores the best one must be above them.
_SHIFT_SIDE = 256
_SHIFT_REACH = 0.08
_LEAST_CONFIDENCE = 5.0
# Scores nearer to the best one than this, in pixels of that size, belong to its peak; those
# farther away must be lower by this part of it.
_PEAK_RADIUS = 4
_LEAST_LEAD = 0.1


@dataclass(frozen=True)
class Misalignment:
    """
    The shift that is left between a visible image and a thermal one registered to it.

    :param shift: (dx, dy) from where the visible image shows something to where the thermal one
        does, in pixels of the visible image.
    :param distance: length of the shift, in pixels.
    :param confidence: by how many standard deviations the score of this shift is above the
        others; below 5 it may be chance.
    :param trusted: the confidence is high enough, no other shift matches nearly as well, and it
        is not at the end of what is searched.
    """

    shift: tuple[float, float]
    distance: float
    confidence: float
    trusted: bool


class MisalignmentMonitor:
    """
    Measures the shift between the images of a running camera pair, from a few looks together.

    It is searched up to 8 % of the longer side in each direction, at 256 pixels along it.

    :param looks: how many of the latest looks count.
    """

    def __init__(self, looks: int = 5) -> None:
        self._scores: deque[NDArray[np.float64]] = deque(maxlen=looks)
        self._size: Size = (0, 0)

    def reset(self) -> None:
        """Forget earlier looks, as after a change of the registration."""
        self._scores.clear()

    def look(
        self, visible: NDArray[Any], thermal: NDArray[Any], coverage: NDArray[Any] | None = None
    ) -> Misalignment:
        """
        Take another pair into account, and return the shift of the latest ones together.

        After a change of the image size, earlier looks no longer count.

        :param visible: (H, W, 3) blue-green-red or (H, W), any numeric type.
        :param thermal: (H, W), any numeric type, warped onto the visible image.
        :param coverage: (H, W) in [0, 1], below 1 where the thermal image does not reach; by
            default it reaches everywhere.
        :raises RegistrationError: the sizes differ.
        """
        size = size_of(visible)
        for name, image in (('thermal image', thermal), ('coverage', coverage)):
            if image is not None and image.shape[:2] != visible.shape[:2]:
                raise RegistrationError(
                    f'the {name} is {image.shape[1]}x{image.shape[0]} pixels, but the visible '
                    f'image {size[0]}x{size[1]}: warp it onto the visible image first'
                )
        if size != self._size:
            self._scores.clear()
            self._size = size
        self._scores.append(_shift_scores(visible, thermal, coverage))
        factor = max(size) / min(max(size), _SHIFT_SIDE)
        return _peak(np.mean(self._scores, axis=0), factor)


def _shift_scores(
    visible: NDArray[Any], thermal: NDArray[Any], coverage: NDArray[Any] | None
) -> NDArray[np.float64]:
    """Return the correlation by shift of the thermal image, (2 reach + 1, 2 reach + 1)."""
    height, width = visible.shape[:2]
    factor = min(1.0, _SHIFT_SIDE / max(width, height))
    size = (max(8, round(width * factor)), max(8, round(height * factor)))
    ones = np.ones(size[::-1], np.float32)
    mask = ones
    if coverage is not None:
        mask = (resized(coverage.astype(np.float32), size) > 0.99).astype(np.float32)
    fixed, _ = gradient_field(normalised_grey(visible, size), ones)
    moved, inner = gradient_field(normalised_grey(thermal, size), mask)
    reach = math.ceil(_SHIFT_REACH * max(size)) + 1
    fft = [cv2.getOptimalDFTSize(length + reach) for length in size[::-1]]
    spectra = [np.fft.fft2(field[0] + 1j * field[1], s=fft) for field in (fixed, moved)]
    scores = np.fft.ifft2(np.conj(spectra[0]) * spectra[1]).real
    energies = [float((field**2 * inner).sum()) for field in (fixed, moved)]
    steps = np.arange(-reach, reach + 1)
    near = scores[np.ix_(steps % fft[0], steps % fft[1])]
    return np.asarray(near / math.sqrt(max(energies[0] * energies[1], 1e-6)), np.float64)


def _peak(scores: NDArray[np.float64], factor: float) -> Misalignment:
    """
    Return the best shift.

    :param scores: (2 reach + 1, 2 reach + 1) by (dy, dx); those at the border only interpolate.
    :param factor: pixels of the visible image per pixel of the shift.
    """
    reach = len(scores) // 2
    inner = scores[1:-1, 1:-1]
    row, column = (int(at) + 1 for at in np.unravel_index(int(inner.argmax()), inner.shape))
    best = float(scores[row, column])
    y, x = np.mgrid[: len(scores), : len(scores)]
    far = scores[np.hypot(y - row, x - column) > _PEAK_RADIUS]
    if not far.size:  # the images are too small to compare with
        return Misalignment((0.0, 0.0), 0.0, 0.0, False)
    confidence = (best - float(far.mean())) / max(float(far.std()), 1e-9)
    shift = (
        (column - reach + _vertex(scores[row, column - 1 : column + 2])) * factor,
        (row - reach + _vertex(scores[row - 1 : row + 2, column])) * factor,
    )
    trusted = (
        confidence >= _LEAST_CONFIDENCE
        and best - float(far.max()) >= _LEAST_LEAD * best
        and max(abs(row - reach), abs(column - reach)) < reach - 1
    )
    return Misalignment(shift, math.hypot(*shift), confidence, trusted)


def _vertex(values: NDArray[np.float64]) -> float:
    """Return where the parabola through three values at -1, 0 and 1 is highest, within 0.5."""
    before, middle, after = (float(value) for value in values)
    curvature = before - 2 * middle + after
    return float(np.clip((before - after) / (2 * min(curvature, -1e-12)), -0.5, 0.5))
