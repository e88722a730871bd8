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

"""The frame in the making, and what the two cameras make of it: lenses, noise and patterns."""

from __future__ import annotations

from dataclasses import dataclass
import math

import cv2
import numpy as np
from numpy.typing import NDArray

from dig2dig_ros.evaluation.synthetic_scene.layout import Array, View

Box = tuple[float, float, float, float]
_Region = tuple[slice, slice]

_NOISE_MARGIN = 64


@dataclass(frozen=True)
class _Pedestrian:
    """
    What of a pedestrian is still to be seen.

    :param box: of the whole pedestrian, clipped to the frame.
    :param region: of the frame.
    :param seen: coverage in that region, without what others hide.
    :param pixels: that the whole pedestrian covers.
    """

    box: Box
    region: _Region
    seen: Array
    pixels: int


class Canvas:
    """The frame in the making, and what of each pedestrian is still to be seen in it."""

    def __init__(self, view: View) -> None:
        self.visible: Array = np.empty((view.height, view.width, 3), np.uint8)
        self.thermal: Array = np.empty((view.height, view.width), np.int16)
        self._pedestrians: list[_Pedestrian] = []

    def _clip(
        self, column: int, row: int, height: int, width: int
    ) -> tuple[_Region, _Region] | None:
        """Return where a picture is in the frame, and which part of it that is; or None."""
        x0, y0 = max(column, 0), max(row, 0)
        x1 = min(column + width, self.thermal.shape[1])
        y1 = min(row + height, self.thermal.shape[0])
        if x0 >= x1 or y0 >= y1:
            return None
        inside = slice(y0 - row, y1 - row), slice(x0 - column, x1 - column)
        return (slice(y0, y1), slice(x0, x1)), inside

    def put(
        self,
        corner: tuple[int, int],
        visible: Array,
        thermal: Array,
        mask: Array,
        pedestrian: bool = False,
    ) -> None:
        """
        Draw a figure in front of all that is there.

        :param corner: column and row of its upper left corner.
        :param visible: (h, w, 3) uint8, already multiplied by the coverage.
        :param thermal: (h, w) float32 counts.
        :param mask: (h, w) uint8, the coverage.
        """
        areas = self._clip(*corner, *mask.shape)
        if areas is None:
            return
        there, inside = areas
        seen = mask[inside]
        around = cv2.merge([255 - seen] * 3)
        behind = cv2.multiply(self.visible[there], around, scale=1 / 255)
        self.visible[there] = cv2.add(behind, visible[inside])
        share = seen.astype(np.float32) / 255
        ground = self.thermal[there].astype(np.float32)
        self.thermal[there] = ground + (thermal[inside] - ground) * share
        self.cover(there, seen)
        if pedestrian:
            x, y, width, height = cv2.boundingRect(cv2.threshold(mask, 127, 255, 0)[1])
            x, y = corner[0] + x, corner[1] + y
            rows, columns = self.thermal.shape
            ends = (max(0, x), max(0, y), min(columns, x + width), min(rows, y + height))
            x0, y0, x1, y1 = map(float, ends)
            pixels = int(cv2.countNonZero(mask))
            self._pedestrians.append(_Pedestrian((x0, y0, x1, y1), there, seen.copy(), pixels))

    def cover(self, there: _Region, mask: Array) -> None:
        """Take what ``mask`` hides in the region ``there`` from the pedestrians behind."""
        for one in self._pedestrians:
            rows, columns = (
                slice(max(a.start, b.start), min(a.stop, b.stop))
                for a, b in zip(one.region, there, strict=True)
            )
            if rows.start < rows.stop and columns.start < columns.stop:
                part, hidden = (
                    plane[
                        rows.start - region[0].start : rows.stop - region[0].start,
                        columns.start - region[1].start : columns.stop - region[1].start,
                    ]
                    for plane, region in ((one.seen, one.region), (mask, there))
                )
                part[hidden > 127] = 0

    def darken(self, spot: Array, column: float, row: float) -> None:
        """Multiply the visible image around a point by 1 - ``spot`` (uint8 of 255)."""
        areas = self._around(spot, column, row)
        if areas is not None:
            there, inside = areas
            rest = cv2.merge([255 - spot[inside]] * 3)
            self.visible[there] = cv2.multiply(self.visible[there], rest, scale=1 / 255)

    def shine(self, spot: Array, column: float, row: float) -> None:
        """Add a spot of light (h, w, 3) uint8 around a point."""
        areas = self._around(spot, column, row)
        if areas is not None:
            there, inside = areas
            self.visible[there] = cv2.add(self.visible[there], spot[inside])

    def _around(self, spot: Array, column: float, row: float) -> tuple[_Region, _Region] | None:
        height, width = spot.shape[:2]
        return self._clip(round(column - width / 2), round(row - height / 2), height, width)

    def boxes(self) -> list[Box]:
        """Return the boxes of people who are at least 60 % visible."""
        return [
            one.box
            for one in self._pedestrians
            if one.box[2] > one.box[0]
            and one.box[3] > one.box[1]
            and cv2.countNonZero(one.seen) >= 0.6 * one.pixels > 0
        ]

    def people(self) -> NDArray[np.uint8]:
        """Return how much of each pixel pedestrians cover that are not hidden, (H, W) of 255."""
        cover: NDArray[np.uint8] = np.zeros(self.thermal.shape, np.uint8)
        for one in self._pedestrians:
            cover[one.region] = np.maximum(cover[one.region], one.seen)
        return cover


class Cameras:
    """
    The lenses and sensors of both cameras.

    Their noise is larger than a frame, and every frame takes another part of it.
    """

    def __init__(self, view: View, seed: int, rng: np.random.Generator) -> None:
        self._view, self._seed = view, seed
        size = (view.height + _NOISE_MARGIN, view.width + _NOISE_MARGIN)
        # The part of a Bayer mosaic: colour noise coarser than brightness noise.
        grain = rng.standard_normal((*size, 3), np.float32)
        grain = 0.55 * grain + 1.1 * cv2.GaussianBlur(grain, (0, 0), 0.9)
        self._visible_noise = np.clip(np.rint(grain * 24), -127, 127).astype(np.int8)
        # Shot noise grows with the root of the signal, read noise is constant.
        level = np.arange(256, dtype=np.float32)
        gain = np.minimum(20.0 * np.sqrt(2.0 + 0.055 * level), 255)
        self._noise_gain = np.rint(gain).astype(np.uint8)
        thermal = rng.standard_normal(size, np.float32)
        thermal = 0.8 * thermal + 0.9 * cv2.GaussianBlur(thermal, (0, 0), 0.8)
        self._thermal_noise = np.rint(thermal * 6.5).astype(np.int16)
        columns = rng.standard_normal(view.width) * 3.0
        rows = rng.standard_normal((view.height, 1)) * 1.0
        pixels = rng.standard_normal((view.height, view.width)) * 1.5
        self._pattern = np.rint(columns + rows + pixels).astype(np.int16)
        y, x = np.mgrid[: view.height, : view.width]
        radius = np.hypot((x + 0.5) / view.width - 0.5, (y + 0.5) / view.height - 0.5) / 0.7071
        vignette = np.rint(255 * (1 - 0.38 * radius**2.2)).astype(np.uint8)
        self._vignette = cv2.merge([vignette] * 3)

    def expose(
        self, canvas: Canvas, time_s: float, noise: bool
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
        """Send the picture through the two lenses and sensors."""
        view = self._view
        visible = cv2.GaussianBlur(canvas.visible, (3, 3), 0.5)
        visible = cv2.multiply(visible, self._vignette, scale=1 / 255)
        # int16 has no fast path in OpenCV; counts of 14 bits are the same in uint16.
        thermal = self.through_thermal_lens(canvas.thermal.view(np.uint16))
        if noise:
            # Each frame its own part of the noise, found from seed and time.
            moment = round(time_s * 1e6) & 0xFFFFFFFFFFFFFFFF
            draw = np.random.default_rng([self._seed, moment])
            (y0, x0), (y1, x1) = draw.integers(0, _NOISE_MARGIN, (2, 2))
            grain = self._visible_noise[y0 : y0 + view.height, x0 : x0 + view.width]
            gain = cv2.LUT(visible, self._noise_gain)
            noisy = cv2.multiply(gain, grain, scale=1 / 480, dtype=cv2.CV_16S)
            visible = cv2.add(visible, noisy, dtype=cv2.CV_8U)
            grain = self._thermal_noise[y1 : y1 + view.height, x1 : x1 + view.width]
            counts = cv2.add(cv2.add(thermal.view(np.int16), grain), self._pattern)
            thermal = counts.view(np.uint16)
        return visible, thermal

    def through_thermal_lens(self, picture: Array) -> Array:
        """Blur a picture as the thermal lens does."""
        blur = 0.9 * max(1.0, self._view.height / 512)
        size = 2 * math.ceil(2 * blur) + 1
        blurred: Array = cv2.GaussianBlur(picture, (size, size), blur)
        return blurred
