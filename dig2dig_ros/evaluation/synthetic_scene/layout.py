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

"""Where things stand in the street, and what light falls on them; lengths are in metres."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Point = tuple[float, float]

# Depths from the camera, heights above the street.
CAMERA_HEIGHT = 2.2
SKYLINE, FACADE, CURB_LINE = 70.0, 16.0, 13.3
FAR_CURB, NEAR_CURB = 13.0, 7.5
FAR_LANE, NEAR_LANE = 11.6, 9.2
LAMP_HEIGHT, LAMP_DEPTH = 5.3, 12.5

# Counts of a 14-bit core.
AIR, WALL, ROAD = 7760.0, 7840.0, 8030.0

_REACH, _LIGHT_STEP = 40.0, 0.05


def bgr(blue: float, green: float, red: float) -> NDArray[np.float32]:
    """Return a colour, (3,): an albedo, or linear light."""
    return np.array([blue, green, red], np.float32)


_AMBIENT = bgr(0.0016, 0.0012, 0.0009)  # moon and city, bluish
WARM = bgr(0.22, 0.60, 1.0)  # a sodium lamp
WHITE = bgr(0.85, 0.95, 1.0)


@dataclass(frozen=True)
class Light:
    """A lamp, or the window of a shop."""

    x: float
    y: float
    z: float
    colour: Array
    downward: bool = False


@dataclass(frozen=True)
class View:
    """The pinhole of both cameras."""

    width: int
    height: int

    @property
    def focal(self) -> float:
        """The focal length in pixels."""
        return 1.125 * self.height

    @property
    def horizon(self) -> float:
        """The row of the horizon."""
        return 0.48 * self.height

    def scale(self, z: float) -> float:
        """Return the pixels per metre at depth ``z``."""
        return self.focal / z

    def column(self, x: Any, z: float) -> Any:
        """Return the column of the points ``x`` metres to the right."""
        return self.width / 2 + x * self.focal / z

    def row(self, y: Any, z: float) -> Any:
        """Return the row of the points ``y`` metres above the street."""
        return self.horizon + (CAMERA_HEIGHT - y) * self.focal / z


class Planes:
    """
    What something looks like: reflectance and emitted light, counts, and which pixels it covers.

    :param heat: counts of what is not drawn.
    """

    def __init__(self, shape: tuple[int, int], heat: float = 0.0) -> None:
        self.albedo: Array = np.zeros((*shape, 3), np.float32)
        self.emission: Array = np.zeros((*shape, 3), np.float32)
        self.heat: Array = np.full(shape, heat, np.float32)
        self.mask: Array = np.zeros(shape, np.uint8)

    def paint(
        self,
        where: Any,
        albedo: Any = None,
        heat: Any = None,
        emission: Any = None,
        cover: bool = False,
    ) -> None:
        """Replace what is given in the pixels of an index or a mask; ``cover`` them."""
        if albedo is not None:
            self.albedo[where] = albedo
        if heat is not None:
            self.heat[where] = heat
        if emission is not None:
            self.emission[where] = emission
        if cover:
            self.mask[where] = 255


class Layer(Planes):
    """
    An upright plane at one depth, wider than the image by what the camera sways.

    What is drawn is developed into ``visible`` and ``thermal``.
    """

    def __init__(self, view: View, z: float, sway: float, foot: float) -> None:
        self.z = z
        self.scale = view.scale(z)
        self.margin = math.ceil(sway * self.scale) + 2
        self.top = view.row(0.0, z)
        self.rows = min(view.height, math.ceil(view.row(foot, z)))
        self.columns = view.width + 2 * self.margin
        self.centre = view.width / 2 + self.margin
        super().__init__((self.rows, self.columns))
        self.visible: Array = np.zeros((self.rows, self.columns, 3), np.uint8)
        self.thermal: Array = np.zeros((self.rows, self.columns), np.int16)
        self.x = ((np.arange(self.columns, dtype=np.float32) + 0.5) - self.centre) / self.scale
        self.y = (self.top - (np.arange(self.rows, dtype=np.float32) + 0.5)) / self.scale
        self.left, self.right = float(self.x[0]), float(self.x[-1])

    def box(self, x0: float, x1: float, y0: float, y1: float) -> tuple[slice, slice]:
        """Return the pixels of a rectangle in metres, at least one where it is in the layer."""
        u0 = round(self.centre + x0 * self.scale)
        u1 = max(u0 + 1, round(self.centre + x1 * self.scale))
        v0 = round(self.top - y1 * self.scale)
        v1 = max(v0 + 1, round(self.top - y0 * self.scale))
        return slice(max(v0, 0), max(v1, 0)), slice(max(u0, 0), max(u1, 0))

    def points(self, metres: Sequence[Point]) -> Array:
        """Return polygon points for OpenCV with a shift of 4 bits."""
        pixels = [(self.centre + x * self.scale, self.top - y * self.scale) for x, y in metres]
        return np.asarray(np.rint(np.asarray(pixels) * 16), np.int32)

    def develop(self, lights: Sequence[Light]) -> None:
        """Light the layer and drop what only the drawing needed."""
        x, y = np.meshgrid(self.x, self.y)
        self.visible = tone(self.albedo * irradiance(lights, x, y, self.z) + self.emission)
        self.thermal = np.rint(self.heat).astype(np.int16)
        self.albedo = self.emission = self.heat = np.zeros(0, np.float32)

    def draw(self, visible: Array, thermal: Array, camera: float) -> slice:
        """Draw what a camera at ``camera`` metres sees of it; return the columns of that."""
        first = self.margin + round(camera * self.scale)
        columns = slice(first, first + visible.shape[1])
        mask = self.mask[:, columns]
        cv2.copyTo(self.visible[:, columns], mask, visible[: self.rows])
        cv2.copyTo(self.thermal[:, columns], mask, thermal[: self.rows])
        return columns


def irradiance(lights: Sequence[Light], x: Array, y: Array, z: Any) -> Array:
    """Return the light (..., 3) that arrives at points in metres."""
    total = np.empty((*np.broadcast(x, y, z).shape, 3), np.float32)
    total[:] = _AMBIENT
    for light in lights:
        dx, dy, dz = light.x - x, light.y - y, light.z - z
        square = dx * dx + dy * dy + dz * dz + 0.3
        strength = 1.0 / square
        if light.downward:
            # A street lamp is shielded above and throws its light downward.
            strength = strength * np.clip(dy / np.sqrt(square) + 0.05, 0.0, 1.0) ** 2.6
        total += np.asarray(strength)[..., np.newaxis] * light.colour
    return total


class LightAlong:
    """The light along one depth, looked up instead of computed with every frame."""

    def __init__(self, lights: Sequence[Light], y: float, z: float) -> None:
        x = np.arange(-_REACH, _REACH, _LIGHT_STEP, dtype=np.float32)
        self._table = irradiance(lights, x, np.full_like(x, y), z)

    def at(self, x: Any) -> Array:
        """Return the light (..., 3) at ``x`` metres; beyond the street, that of its end."""
        index = np.rint((np.asarray(x) + _REACH) / _LIGHT_STEP).astype(int)
        found: Array = self._table[np.clip(index, 0, len(self._table) - 1)]
        return found


def tone(light: Array) -> NDArray[np.uint8]:
    """Return what the visible camera makes of linear light: shoulder and gamma."""
    level = np.clip(light * (len(_TONES) / 8.0), 0, len(_TONES) - 1).astype(np.uint16)
    toned: NDArray[np.uint8] = _TONES[level]
    return toned


def display(light: Any) -> Any:
    """Return display values 0 to 255 of linear light: shoulder and gamma."""
    return 255.0 * (1.0 - np.exp(-np.maximum(light, 0.0))) ** (1 / 2.2)


# By linear light from 0 to 8; fine enough for the steep gamma in the dark.
_TONES = np.rint(display(np.arange(65536) * (8.0 / 65536))).astype(np.uint8)


def value_noise(
    rng: np.random.Generator, rows: int, columns: int, cell: float, octaves: int = 3
) -> NDArray[np.float32]:
    """Return smooth noise of mean 0 and amplitude about 1; ``cell`` is its grain in pixels."""
    total = np.zeros((rows, columns), np.float32)
    for octave in range(octaves):
        size = max(cell / 2**octave, 1.0)
        shape = (math.ceil(rows / size) + 2, math.ceil(columns / size) + 2)
        grid = rng.uniform(-1.0, 1.0, shape).astype(np.float32)
        target = (math.ceil(shape[1] * size), math.ceil(shape[0] * size))
        grown = cv2.resize(grid, target, interpolation=cv2.INTER_CUBIC)
        total += grown[:rows, :columns] * 0.6**octave
    return total


def smooth(polygon: Sequence[Point], rounds: int = 2) -> list[Point]:
    """Cut a closed polygon's corners (Chaikin)."""
    points = np.asarray(polygon, float)
    for _ in range(rounds):
        after = np.roll(points, -1, axis=0)
        points = np.stack([0.82 * points + 0.18 * after, 0.18 * points + 0.82 * after], axis=1)
        points = points.reshape(-1, 2)
    return [(float(x), float(y)) for x, y in points]
