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

"""The coarse search of an alignment: over rotation and scale, with shifts by FFT correlation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dig2dig_ros.images.geometry import (
    apply_homography,
    Array,
    corners_of,
    RegistrationError,
    resizing,
    similarity,
    Size,
    size_of,
    translation,
)
from dig2dig_ros.images.gradient_field import gradient_field, Image, normalised_grey, resized

# The longer side in pixels, and the steps: half a step moves the corners of the image by less than
# the width of the edges in the fields.
COARSE_SIDE = 160
_ROTATION_STEP = math.radians(1.5)
_SCALE_STEP = 1.035
# How many modes of the coarse search are refined, and the corner distance, in pixels of the coarse
# level, from which on two modes count as different.
_MODES = 4
MODE_DISTANCE = 8.0


@dataclass(frozen=True)
class SearchRange:
    """
    How far a camera pair may be from the initial guess.

    :param rotation: radians to either side.
    :param scale: the largest factor; its inverse is the smallest.
    :param shift: part of the visible image's longer side, in each direction.
    """

    rotation: float = math.radians(6.0)
    scale: float = 1.28
    shift: float = 0.2


def centred_guess(visible_size: Size, thermal_size: Size, scale: float | None = None) -> Array:
    """
    Return the homography of a thermal image in the middle of the visible one, with square pixels.

    :param scale: visible pixels per thermal pixel; by default the thermal image fills the visible
        one, or, if their shapes differ, is scaled by the geometric mean of both ratios.
    """
    (vw, vh), (tw, th) = visible_size, thermal_size
    if scale is None:
        scale = math.sqrt(vw / tw * vh / th)
    x, y = (vw - 1) / 2 - scale * (tw - 1) / 2, (vh - 1) / 2 - scale * (th - 1) / 2
    return np.array([[scale, 0, x], [0, scale, y], [0, 0, 1]])


class Scene:
    """The images of all pairs, at any resolution."""

    def __init__(
        self,
        pairs: Sequence[tuple[NDArray[Any], NDArray[Any]]],
        guess: Array | None,
        thermal_mask: NDArray[np.bool_] | None,
    ) -> None:
        if not pairs:
            raise RegistrationError('no pair of images to register: give at least one')
        sizes = {(size_of(visible), size_of(thermal)) for visible, thermal in pairs}
        if len(sizes) > 1:
            raise RegistrationError(
                'the pairs differ in size: register pairs of one camera pair at one resolution'
            )
        ((self.visible_size, self.thermal_size),) = sizes
        self.guess = centred_guess(*next(iter(sizes))) if guess is None else guess
        self.pairs = [(normalised_grey(v), normalised_grey(t)) for v, t in pairs]
        if thermal_mask is None:
            thermal_mask = np.ones(self.thermal_size[::-1], np.bool_)
        if size_of(thermal_mask) != self.thermal_size:
            raise RegistrationError(
                f'the mask has the shape {thermal_mask.shape}, but the thermal images are '
                f'{self.thermal_size[0]}x{self.thermal_size[1]} pixels: make it their size'
            )
        self.thermal_mask = thermal_mask.astype(np.float32)
        self._levels: dict[int, Level] = {}

    def level(self, side: int) -> Level:
        """
        Return the images, scaled so that the visible one's longer side is ``side`` pixels.

        It is shorter if the visible images have fewer pixels, or the thermal ones less than half.
        """
        scale = math.sqrt(abs(float(np.linalg.det(self.guess[:2, :2]))))
        side = min(side, max(self.visible_size), round(2 / scale * max(self.visible_size)))
        if side not in self._levels:
            self._levels[side] = Level(self, side)
        return self._levels[side]


class Level:
    """
    The images of a scene at one resolution.

    :ivar from_visible: (3, 3), from full visible pixels to those of this level.
    :ivar visible: for each pair, the field of the visible image and its mask.
    """

    def __init__(self, scene: Scene, side: int) -> None:
        self.size = _scaled(scene.visible_size, side / max(scene.visible_size))
        self.from_visible = resizing(scene.visible_size, self.size)
        # Thermal pixels about as large as those of this level, so that warping needs no low pass.
        jacobian = (self.from_visible @ scene.guess)[:2, :2]
        factor = min(1.0, math.sqrt(abs(float(np.linalg.det(jacobian)))))
        thermal_size = _scaled(scene.thermal_size, factor)
        self._to_full = np.linalg.inv(resizing(scene.thermal_size, thermal_size))
        self._thermal = [resized(thermal, thermal_size) for _, thermal in scene.pairs]
        self._thermal_mask = resized(scene.thermal_mask, thermal_size)
        ones = np.ones(self.size[::-1], np.float32)
        self.visible = [gradient_field(resized(v, self.size), ones) for v, _ in scene.pairs]

    def warped(self, index: int, to_level: Array, size: Size) -> tuple[Image, Image]:
        """
        Return the field and the mask of a thermal image, warped to a frame.

        :param to_level: (3, 3) from full thermal pixels to those of the frame.
        """
        matrix = to_level @ self._to_full
        image = cv2.warpPerspective(
            self._thermal[index], matrix, size, borderMode=cv2.BORDER_REPLICATE
        )
        mask = cv2.warpPerspective(self._thermal_mask, matrix, size)
        return gradient_field(image, (mask > 0.99).astype(np.float32))


def coarse_search(scene: Scene, search: SearchRange) -> tuple[list[Array], list[Array]]:
    """Return the best modes, best first, and the best mode of each half, as thermal to visible."""
    level = scene.level(COARSE_SIDE)
    correlation = _Correlation(level, search)
    base = level.from_visible @ scene.guess
    centre = (np.array(level.size) - 1) / 2
    warps, maps = [], []
    for rotation in _steps(search.rotation, _ROTATION_STEP):
        for scale in np.exp(_steps(math.log(search.scale), math.log(_SCALE_STEP))):
            about = translation(*centre) @ similarity(rotation, scale) @ translation(*-centre)
            warps.append(about @ base)
            maps.append(correlation(about, base))
    scores = np.stack(maps)
    corners = np.stack([apply_homography(w, corners_of(scene.thermal_size)) for w in warps])
    back = np.linalg.inv(level.from_visible)

    def best(values: NDArray[np.float32], number: int) -> list[Array]:
        return [back @ translation(*s) @ warps[i] for i, s in _modes(values, corners, number)]

    modes = best(scores.sum(axis=1), _MODES)
    return modes, [best(scores[:, half], 1)[0] for half in (0, 1)]


class _Correlation:
    """Correlates warped thermal images of a level with the visible ones, at all shifts at once."""

    def __init__(self, level: Level, search: SearchRange) -> None:
        self._level = level
        width, height = level.size
        side = max(level.size)
        self._reach = math.ceil(search.shift * side)
        # A canvas for the thermal image, with room so that the correlation does not wrap.
        turned = search.scale * 1.02
        extra = math.sin(search.rotation) * side
        self._canvas = (math.ceil(width * turned + extra), math.ceil(height * turned + extra))
        self._offset = ((self._canvas[0] - width) // 2, (self._canvas[1] - height) // 2)
        sums = [(self._canvas[axis] + level.size[axis]) // 2 for axis in (1, 0)]
        self._fft = [cv2.getOptimalDFTSize(length + self._reach + 2) for length in sums]
        self._visible = []
        for field, mask in level.visible:
            halves = [self._spectrum(field * check) for check in checkerboard(level.size)]
            energy = self._spectrum((field**2).sum(axis=0))
            self._visible.append((halves, energy, self._spectrum(mask)))

    def __call__(self, similarity: Array, base: Array) -> NDArray[np.float32]:
        """
        Return the scores of both halves by shift, summed over pairs: (2, dy, dx).

        :param similarity: (3, 3) within the level, after ``base``, from thermal pixels to it.
        """
        placed = translation(*self._offset) @ similarity @ base
        shifts = np.arange(-self._reach, self._reach + 1)
        # thermal(x + offset) correlates with visible(x + shift): indices of the circular map.
        rows = (shifts - self._offset[1])[:, None] % self._fft[0]
        columns = (shifts - self._offset[0])[None] % self._fft[1]
        total = np.zeros((2, len(shifts), len(shifts)), np.float32)
        for index, (halves, v_energy, v_mask) in enumerate(self._visible):
            field, mask = self._level.warped(index, placed, self._canvas)
            thermal = np.conj(self._spectrum(field))
            t_energy = np.conj(self._spectrum((field**2).sum(axis=0)))
            t_mask = np.conj(self._spectrum(mask))
            products = [(half * thermal).sum(axis=0) for half in halves]
            products += [v_energy * t_mask, v_mask * t_energy, v_mask * t_mask]
            maps = np.fft.irfft2(np.stack(products), s=self._fft)[:, rows, columns]
            *both, ev, et, overlap = maps
            norm = np.sqrt(np.maximum(ev, 1e-3) * np.maximum(et, 1e-3))
            # A small overlap correlates more by chance, in proportion to 1 / sqrt(area).
            share = np.clip(overlap / float(np.prod(self._level.size)), 0.0, 1.0)
            total += np.stack(both) * (np.where(share > 0.3, np.sqrt(share), 0.0) / norm)
        return total

    def _spectrum(self, image: Image) -> NDArray[Any]:
        return np.fft.rfft2(image, s=self._fft)


def _modes(
    values: NDArray[np.float32], corners: Array, number: int
) -> list[tuple[int, NDArray[np.int64]]]:
    """
    Return the highest values that are far from each other: the index of a warp and the shift.

    :param values: (W, dy, dx), by warp and shift.
    :param corners: (W, 4, 2), those of the thermal image by warp.
    """
    values = values.copy()
    reach = values.shape[1] // 2
    shifts = np.arange(-reach, reach + 1)
    shift = np.stack(np.meshgrid(shifts, shifts), axis=-1)
    found = []
    for _ in range(number):
        warp, row, column = np.unravel_index(int(values.argmax()), values.shape)
        found.append((int(warp), shift[row, column]))
        # The mean over corners moves with the shift, the rest stays.
        difference = corners - corners[warp]
        mean = difference.mean(axis=1)
        rest = (difference**2).sum(axis=2).mean(axis=1) - (mean**2).sum(axis=1)
        moved = mean[:, None, None] + (shift - shift[row, column])[None]
        near = (moved**2).sum(axis=-1) + rest[:, None, None] < MODE_DISTANCE**2
        values[near] = -1.0
    return found


def checkerboard(size: Size) -> tuple[Image, Image]:
    """Return two masks that together cover an image, in squares of a sixth of the longer side."""
    width, height = size
    field = max(size) / 6
    y, x = np.mgrid[:height, :width]
    first = ((x // field + y // field) % 2).astype(np.float32)
    return first, 1 - first


def _scaled(size: Size, factor: float) -> Size:
    return max(8, round(size[0] * factor)), max(8, round(size[1] * factor))


def _steps(reach: float, step: float) -> Array:
    number = math.ceil(reach / step)
    return np.asarray(np.arange(-number, number + 1) * (reach / max(number, 1)), np.float64)
