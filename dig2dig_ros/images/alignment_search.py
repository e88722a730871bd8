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
    similarity_about,
    translation,
)
from dig2dig_ros.images.gradient_field import gradient_field, Image, normalised_grey, resized

# The coarse search: the longer side in pixels, and the steps; half a step moves the corners of
# the image by less than the edges in the fields are wide.
COARSE_SIDE = 160
_ROTATION_STEP = math.radians(1.5)
_SCALE_STEP = 1.035
# Of the modes of the coarse search that are refined, and the distance of corners in pixels of the
# coarse level at which two are different modes.
_MODES = 4
MODE_DISTANCE = 8.0


@dataclass(frozen=True)
class SearchRange:
    """
    How far a camera pair may be from the initial guess.

    :param rotation: radians to either side.
    :param scale: the largest factor, and its inverse the smallest.
    :param shift: part of the visible image's longer side, in each direction.
    """

    rotation: float = math.radians(6.0)
    scale: float = 1.28
    shift: float = 0.2


def default_guess(visible_size: tuple[int, int], thermal_size: tuple[int, int]) -> Array:
    """
    Return the homography of two cameras with one view: the thermal image fills the visible one.

    Pixels are square: where the shapes differ, the mean of both scales, about the centre.

    :param visible_size: (width, height).
    :param thermal_size: (width, height).
    """
    (vw, vh), (tw, th) = visible_size, thermal_size
    scale = math.sqrt(vw / tw * vh / th)
    return np.array(
        [
            [scale, 0, (vw - 1) / 2 - scale * (tw - 1) / 2],
            [0, scale, (vh - 1) / 2 - scale * (th - 1) / 2],
            [0, 0, 1],
        ]
    )


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
        sizes = {(v.shape[1::-1], t.shape[1::-1]) for v, t in pairs}
        if len(sizes) > 1:
            raise RegistrationError(
                'the pairs differ in size: register pairs of one camera pair at one resolution'
            )
        ((self.visible_size, self.thermal_size),) = sizes
        self.guess = (
            default_guess(self.visible_size, self.thermal_size) if guess is None else guess
        )
        self.pairs = [
            (normalised_grey(visible), normalised_grey(thermal)) for visible, thermal in pairs
        ]
        if thermal_mask is None:
            thermal_mask = np.ones(self.thermal_size[::-1], np.bool_)
        if thermal_mask.shape[1::-1] != self.thermal_size:
            raise RegistrationError(
                f'the mask has the shape {thermal_mask.shape}, but the thermal images are '
                f'{self.thermal_size[0]}x{self.thermal_size[1]} pixels: make it their size'
            )
        self.thermal_mask = thermal_mask.astype(np.float32)
        self._levels: dict[int, Level] = {}

    def level(self, side: int) -> Level:
        """
        Return the images where the visible one's longer side is ``side`` pixels.

        It is fewer where the visible images have no more, or the thermal ones not half as many.
        """
        scale = math.sqrt(abs(float(np.linalg.det(self.guess[:2, :2]))))
        side = min(side, max(self.visible_size), round(2 / scale * max(self.visible_size)))
        if side not in self._levels:
            self._levels[side] = Level(self, side)
        return self._levels[side]


class Level:
    """The images of a scene at one resolution."""

    def __init__(self, scene: Scene, side: int) -> None:
        factor = side / max(scene.visible_size)
        self.size = (
            max(8, round(scene.visible_size[0] * factor)),
            max(8, round(scene.visible_size[1] * factor)),
        )
        self.from_visible = resizing(scene.visible_size, self.size)
        # Thermal pixels of about the size of this level's, so that warping needs no low pass.
        jacobian = (self.from_visible @ scene.guess)[:2, :2]
        factor = min(1.0, math.sqrt(abs(float(np.linalg.det(jacobian)))))
        thermal_size = (
            max(8, round(scene.thermal_size[0] * factor)),
            max(8, round(scene.thermal_size[1] * factor)),
        )
        self.thermal_from_full = resizing(scene.thermal_size, thermal_size)
        self.visible = [resized(visible, self.size) for visible, _ in scene.pairs]
        self.thermal = [resized(thermal, thermal_size) for _, thermal in scene.pairs]
        self.thermal_mask = resized(scene.thermal_mask, thermal_size)
        ones = np.ones(self.size[::-1], np.float32)
        self.described = [gradient_field(visible, ones) for visible in self.visible]

    def warped(self, index: int, to_level: Array, size: tuple[int, int]) -> tuple[Image, Image]:
        """
        Return the field and its mask of a thermal image in a frame of this resolution.

        :param to_level: (3, 3) from full thermal pixels to those of the frame.
        :param size: of the frame, (width, height).
        """
        matrix = to_level @ np.linalg.inv(self.thermal_from_full)
        image = cv2.warpPerspective(
            self.thermal[index],
            matrix,
            size,
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        mask = cv2.warpPerspective(self.thermal_mask, matrix, size, flags=cv2.INTER_LINEAR)
        mask = (mask > 0.99).astype(np.float32)
        return gradient_field(image, mask)


def coarse_search(scene: Scene, search: SearchRange) -> tuple[list[Array], list[Array]]:
    """Return the best modes, best first, and the best of each half; thermal to visible."""
    level = scene.level(COARSE_SIDE)
    width, height = level.size
    side = max(level.size)
    reach = math.ceil(search.shift * side)
    # A canvas for the thermal image, and room for the correlation not to wrap.
    turned = search.scale * 1.02
    extra = math.sin(search.rotation) * side
    canvas = (math.ceil(width * turned + extra), math.ceil(height * turned + extra))
    fft = [cv2.getOptimalDFTSize((canvas[k] + level.size[k]) // 2 + reach + 2) for k in (1, 0)]
    offset = ((canvas[0] - width) // 2, (canvas[1] - height) // 2)
    centre = np.array([(width - 1) / 2, (height - 1) / 2])

    visible = []
    checks = checkerboard(level.size)
    for field, mask in level.described:
        halves = [np.fft.rfft2(field * check, s=fft) for check in checks]
        energy = np.fft.rfft2((field**2).sum(axis=0), s=fft)
        visible.append((halves, energy, np.fft.rfft2(mask, s=fft)))

    rotations = _steps(search.rotation, _ROTATION_STEP)
    scales = np.exp(_steps(math.log(search.scale), math.log(_SCALE_STEP)))
    shifts_x = np.arange(-reach, reach + 1)
    shifts_y = np.arange(-reach, reach + 1)
    # thermal(x + offset) correlates with visible(x + shift): indices of the circular map.
    rows = (shifts_y - offset[1])[:, None] % fft[0]
    columns = (shifts_x - offset[0])[None] % fft[1]
    base = level.from_visible @ scene.guess
    area = float(width * height)
    warps: list[Array] = []
    maps: list[NDArray[np.float32]] = []
    for rotation in rotations:
        for scale in scales:
            similarity = similarity_about(rotation, scale, centre)
            placed = translation(*offset) @ similarity @ base
            total = np.zeros((2, len(shifts_y), len(shifts_x)), np.float32)
            for index, (halves, v_energy, v_mask) in enumerate(visible):
                field, mask = level.warped(index, placed, canvas)
                thermal = np.conj(np.fft.rfft2(field, s=fft))
                t_energy = np.conj(np.fft.rfft2((field**2).sum(axis=0), s=fft))
                t_mask = np.conj(np.fft.rfft2(mask, s=fft))
                products = np.stack(
                    [
                        (halves[0] * thermal).sum(axis=0),
                        (halves[1] * thermal).sum(axis=0),
                        v_energy * t_mask,
                        v_mask * t_energy,
                        v_mask * t_mask,
                    ]
                )
                first, second, ev, et, overlap = np.fft.irfft2(products, s=fft)[:, rows, columns]
                norm = np.sqrt(np.maximum(ev, 1e-3) * np.maximum(et, 1e-3))
                # A small overlap correlates more easily by chance, as 1 / sqrt(area).
                share = np.clip(overlap / area, 0.0, 1.0)
                factor = np.where(share > 0.3, np.sqrt(share), 0.0) / norm
                total[0] += first * factor
                total[1] += second * factor
            warps.append(similarity @ base)
            maps.append(total)
    scores = np.stack(maps)
    back = np.linalg.inv(level.from_visible)

    def best_modes(values: NDArray[np.float32], number: int) -> list[Array]:
        values = values.copy()
        corners = corners_of(scene.thermal_size)
        placed = np.stack([apply_homography(warp, corners) for warp in warps])
        shift = np.stack(np.meshgrid(shifts_x, shifts_y), axis=-1)
        found: list[Array] = []
        for _ in range(number):
            at = np.unravel_index(int(values.argmax()), values.shape)
            move = shift[at[1], at[2]]
            found.append(back @ translation(*move) @ warps[at[0]])
            # The mean over corners moves with the shift, the rest stays.
            difference = placed - placed[at[0]]
            mean = difference.mean(axis=1)
            rest = (difference**2).sum(axis=2).mean(axis=1) - (mean**2).sum(axis=1)
            moved = mean[:, None, None] + (shift - move)[None]
            near = (moved**2).sum(axis=-1) + rest[:, None, None] < MODE_DISTANCE**2
            values[near] = -1.0
        return found

    modes = best_modes(scores.sum(axis=1), _MODES)
    return modes, [best_modes(scores[:, half], 1)[0] for half in (0, 1)]


def checkerboard(size: tuple[int, int]) -> tuple[Image, Image]:
    """Return two masks that together cover an image, of fields a sixth of the longer side."""
    width, height = size
    field = max(size) / 6
    y, x = np.mgrid[:height, :width]
    first = ((x // field + y // field) % 2).astype(np.float32)
    return first, 1 - first


def _steps(reach: float, step: float) -> Array:
    number = math.ceil(reach / step)
    return np.asarray(np.arange(-number, number + 1) * (reach / max(number, 1)), np.float64)
