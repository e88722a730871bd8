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
A moving night street, rendered for a visible and a thermal camera that share one pinhole.

The camera stands on the near side and sways sideways: at the depth z of a facade, a lamp post or
a walker, pixels move by f / z per metre, and the ground is sheared about the horizon, which is
what a sideways motion does to a plane. Visible light is albedo times the light of lamps and
shops, so that texture shows in lit areas and is lost in the dark; thermal counts follow
temperature alone. What stands still is drawn once, what moves is drawn into each frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Box = tuple[float, float, float, float]

# Metres: depths from the camera, heights above the street.
_CAMERA_HEIGHT = 2.2
_SKYLINE, _FACADE, _CURB_LINE = 70.0, 16.0, 13.3
_FAR_CURB, _NEAR_CURB = 13.0, 7.5
_FAR_LANE, _NEAR_LANE = 11.6, 9.2
_LAMP_HEIGHT, _LAMP_DEPTH = 5.3, 12.5
_STOREY, _GROUND_FLOOR = 2.9, 3.4

_AMBIENT = np.array([0.0016, 0.0012, 0.0009], np.float32)  # moon and city, bluish
_WARM = np.array([0.22, 0.60, 1.0], np.float32)  # blue, green, red of a sodium lamp
_WHITE = np.array([0.85, 0.95, 1.0], np.float32)

# Counts of a 14-bit core.
_SKY_TOP, _SKY_HORIZON = 7050.0, 7480.0
_AIR, _WALL, _ROAD = 7760.0, 7840.0, 8030.0

_REACH, _LIGHT_STEP = 40.0, 0.05

_NOISE_MARGIN = 64
_POSES = 28  # of a walker in one cycle of the gait


@dataclass(frozen=True)
class SceneFrame:
    """
    One instant of the scene.

    :param visible: (H, W, 3) uint8, blue-green-red.
    :param thermal: (H, W) uint16, 14-bit counts.
    :param boxes: (x1, y1, x2, y2) in pixels of each pedestrian who is mostly visible, the far
        ones first; x2 and y2 lie one past the last pixel.
    """

    visible: NDArray[np.uint8]
    thermal: NDArray[np.uint16]
    boxes: list[Box]


@dataclass(frozen=True)
class _Light:
    """A lamp, or the window of a shop."""

    x: float
    y: float
    z: float
    colour: Array
    downward: bool


@dataclass(frozen=True)
class _View:
    """The pinhole of both cameras."""

    width: int
    height: int

    @property
    def focal(self) -> float:
        return SyntheticScene.focal_length(self.height)

    @property
    def horizon(self) -> float:
        return 0.48 * self.height

    def scale(self, z: float) -> float:
        """Return the pixels per metre at depth ``z``."""
        return self.focal / z

    def column(self, x: Any, z: float) -> Any:
        """Return the column of the points ``x`` metres to the right."""
        return self.width / 2 + x * self.focal / z

    def row(self, y: Any, z: float) -> Any:
        """Return the row of the points ``y`` metres above the street."""
        return self.horizon + (_CAMERA_HEIGHT - y) * self.focal / z


class _Layer:
    """
    An upright plane at one depth, wider than the image by what the camera sways.

    ``light`` is filled with reflected and emitted light, then developed into ``visible``.
    """

    def __init__(self, view: _View, z: float, sway: float, foot: float) -> None:
        self.z = z
        self.scale = view.scale(z)
        self.margin = math.ceil(sway * self.scale) + 2
        self.top = view.row(0.0, z)
        self.rows = min(view.height, math.ceil(view.row(foot, z)))
        self.columns = view.width + 2 * self.margin
        self.centre = view.width / 2 + self.margin
        shape = (self.rows, self.columns)
        self.albedo = np.zeros((*shape, 3), np.float32)
        self.emission = np.zeros((*shape, 3), np.float32)
        self.heat = np.zeros(shape, np.float32)
        self.mask = np.zeros(shape, np.uint8)
        self.visible = np.zeros((*shape, 3), np.uint8)
        self.thermal = np.zeros(shape, np.int16)
        self.x = ((np.arange(self.columns, dtype=np.float32) + 0.5) - self.centre) / self.scale
        self.y = (self.top - (np.arange(self.rows, dtype=np.float32) + 0.5)) / self.scale

    @property
    def left(self) -> float:
        return float(self.x[0])

    @property
    def right(self) -> float:
        return float(self.x[-1])

    def box(self, x0: float, x1: float, y0: float, y1: float) -> tuple[slice, slice]:
        """Return the pixels of a rectangle in metres, at least one where it is in the layer."""
        u0 = round(self.centre + x0 * self.scale)
        u1 = max(u0 + 1, round(self.centre + x1 * self.scale))
        v0 = round(self.top - y1 * self.scale)
        v1 = max(v0 + 1, round(self.top - y0 * self.scale))
        return slice(max(v0, 0), max(v1, 0)), slice(max(u0, 0), max(u1, 0))

    def points(self, metres: Sequence[tuple[float, float]]) -> Array:
        """Return polygon points for OpenCV with a shift of 4 bits."""
        pixels = [(self.centre + x * self.scale, self.top - y * self.scale) for x, y in metres]
        return np.asarray(np.rint(np.asarray(pixels) * 16), np.int32)

    def develop(self, lights: Sequence[_Light]) -> None:
        """Light the layer and drop what only the drawing needed."""
        x, y = np.meshgrid(self.x, self.y)
        light = self.albedo * _irradiance(lights, x, y, self.z) + self.emission
        self.visible = _tone(light)
        self.thermal = np.rint(self.heat).astype(np.int16)
        self.albedo = self.emission = self.heat = np.zeros(0, np.float32)

    def window(self, camera: float, width: int) -> slice:
        """Return the columns in view of the camera, which stands at ``camera`` metres."""
        first = self.margin + round(camera * self.scale)
        return slice(first, first + width)


def _irradiance(lights: Sequence[_Light], x: Array, y: Array, z: Any) -> Array:
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


class _LightAlong:
    """The light along one depth, looked up instead of computed with every frame."""

    def __init__(self, lights: Sequence[_Light], y: float, z: float) -> None:
        x = np.arange(-_REACH, _REACH, _LIGHT_STEP, dtype=np.float32)
        self._table = _irradiance(lights, x, np.full_like(x, y), z)

    def at(self, x: Any) -> Array:
        """Return the light (..., 3) at ``x`` metres; beyond the street, that of its end."""
        index = np.rint((np.asarray(x) + _REACH) / _LIGHT_STEP).astype(int)
        found: Array = self._table[np.clip(index, 0, len(self._table) - 1)]
        return found


def _tone(light: Array) -> NDArray[np.uint8]:
    """Return what the visible camera makes of linear light: shoulder and gamma."""
    level = np.clip(light * (len(_TONES) / 8.0), 0, len(_TONES) - 1).astype(np.uint16)
    toned: NDArray[np.uint8] = _TONES[level]
    return toned


def _display(light: Any) -> Any:
    """Return display values 0 to 255 of linear light: shoulder and gamma."""
    return 255.0 * (1.0 - np.exp(-np.maximum(light, 0.0))) ** (1 / 2.2)


# By linear light from 0 to 8; fine enough for the steep gamma in the dark.
_TONES = np.rint(_display(np.arange(65536) * (8.0 / 65536))).astype(np.uint8)


def _value_noise(
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


def _smooth(polygon: Sequence[tuple[float, float]], rounds: int = 2) -> list[tuple[float, float]]:
    """Cut a closed polygon's corners (Chaikin)."""
    points = np.asarray(polygon, float)
    for _ in range(rounds):
        after = np.roll(points, -1, axis=0)
        points = np.stack([0.82 * points + 0.18 * after, 0.18 * points + 0.82 * after], axis=1)
        points = points.reshape(-1, 2)
    return [(float(x), float(y)) for x, y in points]


# The street, drawn once


_MATERIALS = (
    # Albedo (blue, green, red) and whether it is brick.
    ((0.10, 0.14, 0.36), True),
    ((0.30, 0.44, 0.55), False),
    ((0.34, 0.35, 0.36), False),
    ((0.11, 0.13, 0.20), True),
    ((0.50, 0.46, 0.40), False),
    ((0.20, 0.34, 0.46), True),
)
_SIGNS = ((0.9, 0.35, 0.1), (0.1, 0.15, 1.0), (0.25, 0.9, 0.3), (0.2, 0.75, 1.0), (0.8, 0.2, 0.8))


class _FacadePainter:
    """Draws the row of buildings into a layer and collects the light of their shops."""

    def __init__(self, layer: _Layer, rng: np.random.Generator) -> None:
        self.layer = layer
        self.rng = rng
        self.lights: list[_Light] = []

    def paint(self) -> None:
        """Draw buildings from the left to the right border, with an alley here and there."""
        x = self.layer.left - float(self.rng.uniform(0.0, 5.0))
        material = int(self.rng.integers(len(_MATERIALS)))
        storeys = int(self.rng.integers(2))
        count = 0
        while x < self.layer.right:
            width = float(self.rng.uniform(6.0, 9.0))
            # Low and high take turns, so that roofs and sky are in view.
            height = _GROUND_FLOOR + _STOREY * (1 + (storeys + count) % 3) + 0.4
            self._building(x, x + width, height, *_MATERIALS[material])
            x += width
            if count % 3 == 1:
                x += float(self.rng.uniform(1.6, 2.6))
            count += 1
            material = (material + int(self.rng.integers(1, len(_MATERIALS)))) % len(_MATERIALS)

    def _building(
        self, x0: float, x1: float, height: float, albedo: Sequence[float], brick: bool
    ) -> None:
        layer, rng = self.layer, self.rng
        area = layer.box(x0, x1, 0.0, height)
        rows, columns = layer.heat[area].shape
        if not rows or not columns:
            return
        tone = 1.0 + 0.16 * _value_noise(rng, rows, columns, 1.3 * layer.scale, 5)
        # Rain leaves streaks below every edge.
        streaks = _value_noise(rng, 1, columns, 0.3 * layer.scale, 3)
        tone *= 1.0 + 0.07 * streaks
        if brick:
            tone *= self._bricks(layer.x[area[1]], layer.y[area[0]])
        layer.albedo[area] = tone[..., np.newaxis] * np.asarray(albedo, np.float32)
        layer.heat[area] = (
            _WALL
            + float(rng.uniform(-50, 50))
            + 26 * _value_noise(rng, rows, columns, 2.5 * layer.scale, 4)
            - 9.0 * layer.y[area[0]][:, np.newaxis]
        )
        layer.mask[area] = 255

        self._band(x0, x1, height - 0.28, height, 1.35, 25)
        self._band(x0, x1, height - 0.36, height - 0.28, 0.45, 10)
        self._band(x0, x1, _GROUND_FLOOR - 0.22, _GROUND_FLOOR, 1.3, 20)
        self._band(x0, x1, _GROUND_FLOOR - 0.28, _GROUND_FLOOR - 0.22, 0.5, 0)
        self._band(x0, x1, 0.0, 0.45, 0.55, 45)
        for edge in (x0, x1 - 0.06):
            self._band(edge, edge + 0.06, 0.0, height, 0.6, -10)
        pipe = x1 - 0.35
        self._band(pipe, pipe + 0.1, 0.0, height - 0.3, 0.5, 30)
        if rng.random() < 0.6:
            chimney = float(rng.uniform(x0 + 0.5, x1 - 1.3))
            area = layer.box(chimney, chimney + 0.6, height, height + 0.8)
            layer.albedo[area] = np.asarray(albedo, np.float32) * 0.8
            layer.heat[area] = _WALL + float(rng.uniform(100, 350))
            layer.mask[area] = 255

        self._ground_floor(x0, x1)
        warm_storey = int(rng.integers(1, 4))
        storey = 1
        y = _GROUND_FLOOR + 0.75
        while y + 1.5 < height - 0.3:
            count = max(2, int((x1 - x0 - 0.8) / 1.75))
            pitch = (x1 - x0 - 0.8) / count
            for index in range(count):
                left = x0 + 0.4 + pitch * index + (pitch - 1.0) / 2
                self._window(left, left + 1.0, y, y + 1.5, storey == warm_storey)
            y += _STOREY
            storey += 1

    def _bricks(self, x: Array, y: Array) -> Array:
        """Return the relief of a brick wall around 1; fades where bricks fall below pixels."""
        course = np.floor(y / 0.085)
        along = x[np.newaxis, :] / 0.26 + 0.5 * (course[:, np.newaxis] % 2)
        table = self.rng.uniform(0.72, 1.25, 1024).astype(np.float32)
        index = (course[:, np.newaxis] * 37 + np.floor(along) * 101).astype(np.int64) % 1024
        relief = table[index]
        joints = (y / 0.085 - course < 0.2)[:, np.newaxis] | (along - np.floor(along) < 0.08)
        relief = np.where(joints, 1.45, relief)
        strength = min(1.0, self.layer.scale / 30.0)
        return np.asarray(1.0 + (relief - 1.0) * strength, np.float32)

    def _band(
        self, x0: float, x1: float, y0: float, y1: float, factor: float, heat: float
    ) -> None:
        area = self.layer.box(x0, x1, y0, y1)
        self.layer.albedo[area] *= factor
        self.layer.heat[area] += heat

    def _window(self, x0: float, x1: float, y0: float, y1: float, warm: bool) -> None:
        layer, rng = self.layer, self.rng
        frame = layer.box(x0 - 0.09, x1 + 0.09, y0 - 0.09, y1 + 0.09)
        layer.albedo[frame] = np.asarray((0.5, 0.52, 0.55), np.float32) * rng.uniform(0.6, 1.0)
        layer.heat[frame] += 35
        glass = layer.box(x0, x1, y0, y1)
        rows, columns = layer.heat[glass].shape
        layer.albedo[glass] = (0.035, 0.03, 0.025)
        layer.heat[glass] += float(rng.uniform(25, 75)) + (60 if warm else 0)
        if rows and columns and rng.random() < (0.5 if warm else 0.22):
            # A ceiling lamp behind a curtain: brighter above, folded, open in the middle.
            colour = np.asarray((0.16, 0.42, 0.72), np.float32)
            if rng.random() < 0.25:
                colour = np.asarray((0.62, 0.6, 0.5), np.float32)
            across = np.linspace(-1, 1, columns, dtype=np.float32)
            down = np.linspace(1.0, 0.45, rows, dtype=np.float32)[:, np.newaxis]
            opening = float(rng.uniform(0.1, 0.7))
            folds = 0.75 + 0.25 * np.sin(across * float(rng.uniform(12, 20)))
            curtain = np.where(np.abs(across) > opening, 0.5 * folds, 1.0)
            room = 1.0 + 0.4 * _value_noise(rng, rows, columns, 0.35 * layer.scale, 2)
            brightness = float(rng.uniform(0.18, 0.75)) * down * curtain * room
            layer.emission[glass] = np.maximum(brightness, 0.02)[..., np.newaxis] * colour
            layer.heat[glass] += float(rng.uniform(50, 130))
        middle = (x0 + x1) / 2
        for bar in (
            layer.box(middle - 0.03, middle + 0.03, y0, y1),
            layer.box(x0, x1, y1 - 0.48, y1 - 0.42),
        ):
            layer.albedo[bar] = (0.4, 0.42, 0.45)
            layer.emission[bar] = 0.0
        sill = layer.box(x0 - 0.16, x1 + 0.16, y0 - 0.17, y0 - 0.08)
        layer.albedo[sill] = (0.55, 0.57, 0.6)
        self._band(x0 - 0.12, x1 + 0.12, y0 - 0.27, y0 - 0.17, 0.5, 0)

    def _ground_floor(self, x0: float, x1: float) -> None:
        rng = self.rng
        door = x0 + 0.5 if rng.random() < 0.5 else x1 - 1.6
        self._door(door)
        left = door + 1.4 if door < x0 + 1 else x0 + 0.5
        right = x1 - 0.6 if door < x0 + 1 else door - 0.4
        if right - left > 2.0:
            self._shop(left, right, is_open=bool(rng.random() < 0.5))

    def _door(self, x: float) -> None:
        layer, rng = self.layer, self.rng
        layer.albedo[layer.box(x - 0.12, x + 1.12, 0.0, 2.5)] = (0.4, 0.42, 0.45)
        leaf = layer.box(x, x + 1.0, 0.05, 2.4)
        paint = rng.uniform(0.04, 0.22, 3).astype(np.float32)
        layer.albedo[leaf] = paint
        for y in (0.25, 0.95, 1.65):
            layer.albedo[layer.box(x + 0.15, x + 0.85, y, y + 0.55)] = paint * 0.6
        layer.heat[leaf] += float(rng.uniform(60, 160))
        if rng.random() < 0.4:
            layer.emission[layer.box(x + 0.42, x + 0.58, 2.65, 2.8)] = 3.0 * _WARM
            self.lights.append(_Light(x + 0.5, 2.6, _FACADE - 0.4, 0.35 * _WARM, False))

    def _shop(self, x0: float, x1: float, is_open: bool) -> None:
        layer, rng = self.layer, self.rng
        layer.albedo[layer.box(x0 - 0.15, x1 + 0.15, 0.3, 3.1)] = rng.uniform(0.05, 0.2, 3)
        glass = layer.box(x0, x1, 0.55, 2.4)
        rows, columns = layer.heat[glass].shape
        if not rows or not columns:
            return
        if is_open:
            goods = _value_noise(rng, rows, columns, 0.5 * layer.scale, 3)
            shelf = (layer.y[glass[0]] % 0.62 < 0.09)[:, np.newaxis]
            things = np.repeat(
                rng.uniform(0.2, 0.7, (3, math.ceil(columns / max(1, layer.scale * 0.22)), 1))
                + rng.uniform(
                    -0.18, 0.18, (3, math.ceil(columns / max(1, layer.scale * 0.22)), 3)
                ),
                max(1, round(layer.scale * 0.22)),
                axis=1,
            )[:, :columns]
            row_index = np.clip((layer.y[glass[0]] - 0.55) / 0.62, 0, 2).astype(int)
            inside = things[row_index]
            if inside.shape[1] < columns:
                inside = np.pad(inside, ((0, 0), (0, columns - inside.shape[1]), (0, 0)), 'edge')
            level = np.linspace(1.0, 0.45, rows)[:, np.newaxis] * (1 + 0.35 * goods)
            level = np.where(shelf, 0.12, np.maximum(level, 0.05)) * float(rng.uniform(0.5, 0.8))
            colour = _WHITE if rng.random() < 0.5 else np.asarray((0.4, 0.75, 1.0), np.float32)
            layer.emission[glass] = level[..., np.newaxis] * inside * colour
            layer.albedo[glass] = 0.02
            layer.heat[glass] += 110
            for share in (0.2, 0.5, 0.8):
                x = x0 + share * (x1 - x0)
                self.lights.append(_Light(x, 1.7, _FACADE - 0.3, 0.22 * colour, False))
        else:
            slats = (layer.y[glass[0]] % 0.12 < 0.04)[:, np.newaxis, np.newaxis]
            layer.albedo[glass] = np.where(slats, 0.1, 0.26)
            layer.heat[glass] -= 40
        for share in np.arange(x0, x1 + 0.1, max(1.3, (x1 - x0) / 3)):
            bar = layer.box(share - 0.04, share + 0.04, 0.3, 2.45)
            layer.albedo[bar], layer.emission[bar] = 0.08, 0.0
        self._sign(x0, x1, is_open)

    def _sign(self, x0: float, x1: float, is_open: bool) -> None:
        layer, rng = self.layer, self.rng
        board = layer.box(x0, x1, 2.5, 3.05)
        layer.albedo[board] = rng.uniform(0.03, 0.3, 3)
        layer.heat[board] += 90 if is_open else 0
        colour = np.asarray(_SIGNS[int(rng.integers(len(_SIGNS)))], np.float32)
        x = x0 + 0.3
        end = x0 + (x1 - x0) * float(rng.uniform(0.6, 0.9))
        while x < end:
            # Strokes that read as letters from across the street.
            for _ in range(2):
                dx, tall = float(rng.uniform(0.0, 0.2)), bool(rng.random() < 0.6)
                y = 2.62 if tall else 2.62 + float(rng.choice([0.0, 0.14, 0.26]))
                size = (0.06, 0.32) if tall else (0.22, 0.06)
                stroke = layer.box(x + dx, x + dx + size[0], y, y + size[1])
                layer.emission[stroke] = (1.6 if is_open else 0.0) * colour
                layer.albedo[stroke] = 0.5
            x += 0.36 if rng.random() < 0.85 else 0.6


def _paint_skyline(layer: _Layer, view: _View, rng: np.random.Generator) -> None:
    """Draw the sky with the glow of the city on its clouds, and houses far away."""
    rows, columns = layer.heat.shape
    up = np.clip((view.horizon - np.arange(rows)) / view.horizon, 0.0, 1.0)[:, np.newaxis]
    cloud = _value_noise(rng, rows, columns, 0.32 * view.height, 5)
    haze = np.exp(-up / 0.35) * (1.0 + 0.30 * cloud)
    glow = np.asarray((0.014, 0.021, 0.036), np.float32)
    night = np.asarray((0.0060, 0.0032, 0.0022), np.float32)
    layer.emission[:] = np.maximum(haze, 0.05)[..., np.newaxis] * glow + night
    layer.heat[:] = _SKY_HORIZON + (_SKY_TOP - _SKY_HORIZON) * up**0.7 + 50 * cloud * (1 - up)
    layer.mask[:] = 255
    x = layer.left - 5.0
    while x < layer.right:
        width, height = float(rng.uniform(7, 16)), float(rng.uniform(8, 25))
        block = layer.box(x, x + width, -0.5, height)
        layer.emission[block] = (0.0028, 0.0026, 0.0030)
        layer.heat[block] = 7640.0 + float(rng.uniform(-30, 30))
        for floor in np.arange(2.5, height - 1.5, 3.2):
            for column in np.arange(x + 1.0, x + width - 1.6, 2.4):
                if rng.random() < 0.22:
                    pane = layer.box(column, column + 1.2, floor, floor + 1.4)
                    colour = _WARM if rng.random() < 0.75 else _WHITE
                    layer.emission[pane] = float(rng.uniform(0.02, 0.16)) * colour
                    layer.heat[pane] += 25
        x += width + (float(rng.uniform(1.0, 5.0)) if rng.random() < 0.4 else 0.0)
    ground = layer.y < 0.0
    depth = np.clip(-layer.y[ground] / 7.0, 0, 1)[:, np.newaxis]
    stones = 1 + 0.3 * _value_noise(rng, int(ground.sum()), columns, 0.012 * view.height, 3)
    layer.emission[ground] = (stones * (0.0020 + 0.0035 * depth))[..., np.newaxis] * np.asarray(
        (0.8, 0.9, 1.1), np.float32
    )
    layer.heat[ground] = 7800 + 160 * depth + 12 * stones


class _Ground:
    """The street and its pavements as the camera sees them, wide enough to be sheared."""

    def __init__(
        self, view: _View, sway: float, lights: Sequence[_Light], rng: np.random.Generator
    ) -> None:
        self.top = max(0, math.floor(view.row(0.0, _FACADE)))
        self.margin = math.ceil(sway * (view.height - view.horizon) / _CAMERA_HEIGHT) + 2
        self._view = view
        columns = view.width + 2 * self.margin
        row = np.arange(self.top, view.height) + 0.5
        depth = view.focal * _CAMERA_HEIGHT / (row - view.horizon)
        z = np.repeat(depth[:, np.newaxis], columns, axis=1).astype(np.float32)
        offset = np.arange(columns) + 0.5 - view.width / 2 - self.margin
        x = (offset[np.newaxis, :] * z / view.focal).astype(np.float32)
        albedo, heat = _street(x, z, rng)
        # The wall and the curb keep the light from the angle they stand in.
        albedo *= (1.0 - 0.55 * np.exp(-np.abs(_FACADE - z) / 0.35))[..., np.newaxis]
        self.visible = _tone(albedo * _irradiance(lights, x, np.zeros_like(x), z))
        self.thermal = np.rint(heat).astype(np.int16)

    def _seen(self, picture: Array, camera: float, interpolation: int) -> Array:
        view = self._view
        shear = camera / _CAMERA_HEIGHT
        start = self.margin + shear * (self.top + 0.5 - view.horizon)
        matrix = np.array([[1.0, shear, start], [0.0, 1.0, 0.0]])
        size = (view.width, picture.shape[0])
        seen: Array = cv2.warpAffine(
            picture, matrix, size, flags=interpolation | cv2.WARP_INVERSE_MAP
        )
        return seen

    def draw(self, visible: Array, thermal: Array, camera: float) -> None:
        """Draw what the camera sees from ``camera`` metres into the lower rows."""
        visible[self.top :] = self._seen(self.visible, camera, cv2.INTER_LINEAR)
        # The thermal lens blurs more than a pixel anyway.
        thermal[self.top :] = self._seen(self.thermal, camera, cv2.INTER_NEAREST)


def _street(x: Array, z: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """Return albedo (H, W, 3) and counts (H, W) of the ground at (x, z) in metres."""
    grain = 48  # texels per metre

    def world(noise: Array) -> Array:
        # Mirrored, so that no seam shows where it repeats.
        height, width = noise.shape[0] - 1, noise.shape[1] - 1
        u = np.abs((x * grain + width / 2) % (2 * width) - width).astype(np.float32)
        v = np.abs(z * grain % (2 * height) - height).astype(np.float32)
        sampled: Array = cv2.remap(noise, u, v, cv2.INTER_LINEAR)
        return sampled

    fine = world(_value_noise(rng, 768, 1536, 2.5, 1))
    stone = world(_value_noise(rng, 768, 1536, 9.0, 3))
    patch = world(_value_noise(rng, 768, 1536, 160.0, 4))

    # Asphalt: stones, worn wheel tracks, a patch of repair with its seam.
    level = 0.105 * (1 + 0.30 * fine + 0.22 * stone + 0.25 * patch)
    tracks = np.zeros_like(z)
    for lane in (_FAR_LANE, _NEAR_LANE):
        for side in (-0.75, 0.75):
            tracks += np.exp(-(((z - lane - side) / 0.28) ** 2))
    level *= 1 - 0.22 * tracks
    repair = (np.abs(x - 3.4) < 1.5) & (np.abs(z - 8.9) < 0.75)
    seam = (np.abs(np.abs(x - 3.4) - 1.5) < 0.04) & (np.abs(z - 8.9) < 0.77)
    level = np.where(repair, level * 0.6, level)
    level = np.where(seam, 0.03, level)
    albedo = level[..., np.newaxis] * np.asarray((1.04, 1.0, 0.98), np.float32)
    heat = _ROAD + 36 * patch + 12 * stone + 60 * np.minimum(tracks, 1.0) + np.where(repair, 30, 0)

    paint = ((np.abs(z - 10.4) < 0.09) & (x % 5.0 < 2.4)) | (np.abs(z - 12.65) < 0.07)
    crossing = (np.abs(x + 2.6) < 1.9) & (z > 7.9) & (z < 12.5) & ((z - 7.9) % 0.92 < 0.46)
    worn = (paint & (np.abs(x + 2.6) > 2.2)) | crossing
    cover = np.clip(0.75 + 0.5 * stone + 0.3 * fine, 0.0, 1.0)[..., np.newaxis]
    white = np.asarray((0.50, 0.54, 0.56), np.float32)
    albedo = np.where(worn[..., np.newaxis], albedo * (1 - cover) + white * cover, albedo)
    heat = heat - np.where(worn, 45, 0)

    for cx, cz in ((1.2, 10.9), (-6.0, 8.7), (7.5, 11.2)):
        radius = np.hypot(x - cx, z - cz)
        lid = radius < 0.36
        iron = 0.045 + 0.03 * np.clip(stone, -1, 1)
        albedo = np.where(lid[..., np.newaxis], iron[..., np.newaxis], albedo)
        albedo = np.where((np.abs(radius - 0.38) < 0.03)[..., np.newaxis], 0.02, albedo)
        heat = np.where(lid, _ROAD + 190, heat)

    # Pavements: slabs with joints, each of its own tone; the curb stones between.
    slab_x, slab_z = np.floor(x / 0.6 + 0.5 * (np.floor(z / 0.4) % 2)), np.floor(z / 0.4)
    tones = rng.uniform(0.78, 1.18, 4096).astype(np.float32)
    tone = tones[(slab_x * 131 + slab_z * 517).astype(np.int64) % 4096]
    along = x / 0.6 + 0.5 * (slab_z % 2)
    joint = (along - np.floor(along) < 0.05) | (z / 0.4 - slab_z < 0.07)
    # Joints finer than a pixel would only alias.
    near = np.clip(1.7 - z / 14.0, 0.35, 1.0)
    pavement = 0.24 * tone * (1 + 0.15 * fine + 0.20 * patch)
    pavement = np.where(joint, pavement * (1 - 0.6 * near), pavement)
    tint = np.asarray((0.92, 0.98, 1.04), np.float32)
    walk = (z > _FAR_CURB) | (z < _NEAR_CURB)
    albedo = np.where(walk[..., np.newaxis], pavement[..., np.newaxis] * tint, albedo)
    heat = np.where(walk, _ROAD - 95 + 26 * patch + 12 * (tone - 1) / 0.2, heat)
    for edge in (_FAR_CURB, _NEAR_CURB):
        curb = np.abs(z - edge) < 0.13
        gap = (x % 1.0) < 0.03
        stones = np.where(gap, 0.1, 0.40 * (1 + 0.2 * stone))[..., np.newaxis]
        albedo = np.where(curb[..., np.newaxis], stones * tint, albedo)
        heat = np.where(curb, _ROAD - 60, heat)
        gutter = (z - edge if edge == _NEAR_CURB else edge - z) - 0.13
        shadow = (gutter > 0) & (gutter < 0.16)
        albedo = np.where(shadow[..., np.newaxis], albedo * 0.4, albedo)
    return albedo.astype(np.float32), heat.astype(np.float32)


def _paint_curb_line(layer: _Layer, posts: Sequence[_Light | float], rng: Any) -> Array:
    """
    Draw lamp posts, trees and bollards; return the lamps' glow (rows, columns, 3) uint8.

    :param posts: a light for a lamp that burns, a position in metres for a dead one.
    """
    glow = np.zeros_like(layer.emission)
    x, y = np.meshgrid(layer.x, layer.y)
    for post in posts:
        at = post.x if isinstance(post, _Light) else post
        for area in (
            layer.box(at - 0.06, at + 0.06, 0.0, _LAMP_HEIGHT),
            layer.box(at - 0.11, at + 0.11, 0.0, 0.9),
        ):
            layer.albedo[area] = (0.07, 0.075, 0.07)
            layer.heat[area] = _AIR + 10
            layer.mask[area] = 255
        head = layer.box(at - 0.42, at + 0.42, _LAMP_HEIGHT + 0.02, _LAMP_HEIGHT + 0.16)
        layer.albedo[head] = 0.2
        layer.mask[head] = 255
        layer.heat[head] = _AIR
        if isinstance(post, _Light):
            bulb = layer.box(at - 0.34, at + 0.34, _LAMP_HEIGHT - 0.05, _LAMP_HEIGHT + 0.04)
            layer.mask[bulb] = 255
            layer.emission[bulb] = 14.0 * post.colour / post.colour.max()
            layer.heat[bulb], layer.heat[head] = 9350.0, 8800.0
            square = (x - at) ** 2 + (y - _LAMP_HEIGHT) ** 2
            halo = 0.9 * np.exp(-square / 0.10) + 0.11 / (1 + square / 0.4) ** 1.6
            glow += (halo * np.exp(-square / 9.0))[..., np.newaxis] * post.colour

    for at in (-9.3, -1.1, 6.3, 12.6):
        _paint_tree(layer, at + float(rng.uniform(-0.4, 0.4)), rng)
    for at in np.arange(-20.5, 21.0, 2.05):
        stem = layer.box(at - 0.07, at + 0.07, 0.0, 0.8)
        across = np.abs(layer.x[stem[1]] - at) / 0.07
        layer.albedo[stem] = (0.3 * (1.1 - 0.6 * across))[np.newaxis, :, np.newaxis]
        layer.albedo[layer.box(at - 0.07, at + 0.07, 0.6, 0.7)] = (0.55, 0.6, 0.65)
        layer.heat[stem] = _AIR + 60
        layer.mask[stem] = 255
    return np.clip(np.rint(150.0 * glow), 0, 255).astype(np.uint8)


def _paint_tree(layer: _Layer, at: float, rng: Any) -> None:
    rows, columns = layer.heat.shape
    bark: Array = np.zeros((rows, columns), np.uint8)
    lean = float(rng.uniform(-0.2, 0.2))
    trunk = [(at - 0.17, 0.0), (at + 0.17, 0.0), (at + lean + 0.1, 3.4), (at + lean - 0.1, 3.4)]
    cv2.fillPoly(bark, [layer.points(trunk)], 255, shift=4)
    for angle in (-0.9, -0.45, 0.1, 0.55, 1.0):
        start = (at + lean * 0.8, 2.4 + 0.4 * math.cos(angle))
        end = (start[0] + 1.5 * math.sin(angle), start[1] + 1.9 * math.cos(angle))
        p, q = layer.points([start, end])
        cv2.line(
            bark, (int(p[0]), int(p[1])), (int(q[0]), int(q[1])), 255,
            max(1, round(0.09 * layer.scale)), shift=4,
        )  # fmt: skip
    wood = bark > 0
    grain = _value_noise(rng, rows, columns, 0.12 * layer.scale, 2)
    layer.albedo[wood] = (0.13 * (1 + 0.5 * grain[wood]))[:, np.newaxis] * np.asarray(
        (0.75, 0.9, 1.0), np.float32
    )
    layer.heat[wood] = _AIR + 50 + 12 * grain[wood]
    layer.mask[wood] = 255

    x, y = np.meshgrid(layer.x, layer.y)
    crown = np.zeros((rows, columns), np.float32)
    for _ in range(7):
        dx, dy = float(rng.uniform(-1.1, 1.1)), float(rng.uniform(3.4, 5.4))
        radius = float(rng.uniform(0.7, 1.1))
        distance = ((x - at - lean - dx) / radius) ** 2 + ((y - dy) / (0.8 * radius)) ** 2
        crown = np.maximum(crown, 1.0 - distance)
    leaves = _value_noise(rng, rows, columns, 0.30 * layer.scale, 3)
    clumps = _value_noise(rng, rows, columns, 0.75 * layer.scale, 2)
    foliage = (crown > 0) & (crown + 0.8 * leaves > 0.30)
    shade = np.clip(0.55 + 0.45 * clumps + 0.5 * leaves, 0.12, 1.6)
    layer.albedo[foliage] = (
        0.16 * shade[foliage][:, np.newaxis] * np.asarray((0.30, 0.95, 0.62), np.float32)
    )
    layer.emission[foliage] = 0.0
    layer.heat[foliage] = _AIR - 30 + 25 * clumps[foliage] + 18 * leaves[foliage]
    layer.mask[foliage] = 255


# What moves


@dataclass(frozen=True)
class _Sprite:
    """
    Something to put into a frame, its upper left corner at (column, row).

    :param visible: (h, w, 3) uint8, already multiplied by the coverage.
    :param thermal: (h, w) float32 counts.
    :param mask: (h, w) uint8, the coverage.
    """

    column: int
    row: int
    visible: Array
    thermal: Array
    mask: Array


class _Car:
    """A car in side view, drawn once; ``lane`` is its depth, ``speed`` in m/s to the right."""

    def __init__(
        self, view: _View, lane: float, speed: float, start: float, paint: Array, kind: int,
        rng: np.random.Generator,
    ) -> None:  # fmt: skip
        self.lane, self.speed, self.start = lane, speed, start
        self.parked = speed == 0.0
        self.length, self._height = (4.2, 1.55) if kind == 0 else (4.6, 1.48)
        fine = 3
        scale = view.scale(lane)
        self.scale = scale
        self.columns = max(2, round((self.length + 0.4) * scale))
        self.rows = max(2, round((self._height + 0.1) * scale))
        size = (self.rows * fine, self.columns * fine)
        self._pixels = (self.columns * fine / (self.length + 0.4), size[0])
        albedo: Array = np.zeros((*size, 3), np.float32)
        emission: Array = np.zeros((*size, 3), np.float32)
        heat: Array = np.full(size, _ROAD, np.float32)
        mask: Array = np.zeros(size, np.uint8)
        self._draw(albedo, emission, heat, mask, np.asarray(paint, np.float32), kind)
        heat += 10 * _value_noise(rng, size[0], size[1], 0.5 * scale * fine, 2)
        if self.speed < 0:
            albedo, emission, heat, mask = (
                np.ascontiguousarray(plane[:, ::-1]) for plane in (albedo, emission, heat, mask)
            )
        target = (self.columns, self.rows)

        def reduced(plane: Array) -> Array:
            small: Array = cv2.resize(plane, target, interpolation=cv2.INTER_AREA)
            return small

        self._albedo, self._emission = reduced(albedo), reduced(emission)
        self._heat, self._mask = reduced(heat), reduced(mask)
        self._mask3 = cv2.merge([self._mask] * 3)

    def _polygon(self, metres: Sequence[tuple[float, float]]) -> Array:
        scale, bottom = self._pixels
        points = [((x + 0.2) * scale, bottom - y * scale) for x, y in metres]
        return np.asarray(np.rint(np.asarray(points) * 16), np.int32)

    def _shape(self, size: tuple[int, ...], metres: Sequence[tuple[float, float]]) -> Array:
        shape = np.zeros(size, np.uint8)
        cv2.fillPoly(shape, [self._polygon(metres)], 255, shift=4)
        return shape > 0

    def _draw(
        self, albedo: Array, emission: Array, heat: Array, mask: Array, paint: Array, kind: int
    ) -> None:
        """Draw the car with its front to the right."""
        size = mask.shape
        scale, bottom = self._pixels
        x = (np.arange(size[1], dtype=np.float32) + 0.5)[np.newaxis, :] / scale - 0.2
        y = (bottom - np.arange(size[0], dtype=np.float32) - 0.5)[:, np.newaxis] / scale
        if kind == 0:
            body = [(0.03, 0.4), (0.0, 0.8), (0.08, 1.05), (0.32, 1.42), (0.8, 1.53), (1.9, 1.53),
                    (2.45, 1.42), (3.0, 1.05), (3.85, 0.92), (4.12, 0.75), (4.18, 0.42),
                    (4.05, 0.26), (0.12, 0.26)]  # fmt: skip
            glass = [(0.40, 1.06), (0.56, 1.34), (0.9, 1.44), (1.85, 1.44), (2.3, 1.35),
                     (2.78, 1.04)]  # fmt: skip
            pillars, doors = (0.98, 1.72), (0.95, 1.75, 2.75)
        else:
            body = [(0.03, 0.4), (0.0, 0.78), (0.12, 0.97), (0.75, 1.02), (1.3, 1.40),
                    (1.8, 1.46), (2.4, 1.44), (2.9, 1.30), (3.4, 0.98), (4.25, 0.88), (4.52, 0.7),
                    (4.58, 0.4), (4.45, 0.26), (0.12, 0.26)]  # fmt: skip
            glass = [(1.02, 1.03), (1.42, 1.33), (1.85, 1.38), (2.4, 1.37), (2.8, 1.25),
                     (3.15, 1.0)]  # fmt: skip
            pillars, doors = (2.05, 2.05), (1.3, 2.08, 3.05)
        wheels = (0.83, self.length - 0.85)
        hull = self._shape(size, _smooth(body))
        # Light falls from above: the roof and the shoulder shine, the flanks fall off.
        shade = 0.38 + 0.75 * np.clip((y - 0.3) / 1.2, 0, 1) ** 1.5
        shade = shade + 0.55 * np.exp(-(((y - 0.9) / 0.05) ** 2)) + 0.0 * x
        albedo[hull] = shade[hull][:, np.newaxis] * paint
        # The bonnet and what lies under the front are warm from the engine.
        front = self.length - 0.75
        warmth = 1.0 if not self.parked else 0.45
        engine = np.exp(-(((x - front) / 0.75) ** 2)) * np.exp(-(((y - 0.75) / 0.42) ** 2))
        cabin = 90 * np.exp(-(((y - 1.2) / 0.3) ** 2))
        heat[hull] = (7720 + warmth * 1000 * engine + warmth * cabin - 60 * np.abs(y - 0.8))[hull]
        panes = self._shape(size, _smooth(glass, 1))
        sky = 0.02 + 0.09 * np.clip((y - 1.05) / 0.4, 0, 1) ** 2 + 0.0 * x
        albedo[panes] = sky[panes][:, np.newaxis] * np.asarray((1.1, 1.0, 0.9), np.float32)
        heat[panes] = 7780 + (260 if not self.parked else 0)
        for pillar in pillars:
            bar = hull & panes & (np.abs(x - pillar) < 0.04)
            albedo[bar] = 0.03
        if not self.parked:
            # The driver, through the glass.
            driver = np.hypot(x - self.length * 0.53, (y - 1.14) * 0.85) < 0.11
            albedo[driver & panes] = (0.05, 0.07, 0.1)
        for door in doors:
            line = hull & (np.abs(x - door) < 0.012) & (y > 0.36) & (y < 1.0)
            albedo[line] *= 0.3
        for handle in doors[:2]:
            grip = hull & (np.abs(x - handle - 0.16) < 0.09) & (np.abs(y - 0.86) < 0.02)
            albedo[grip] = 0.4
        albedo[hull & (y < 0.36)] = 0.025
        for wheel in wheels:
            radius = np.hypot(x - wheel, y - 0.32)
            albedo[hull & (radius < 0.39)] = 0.008
            heat[hull & (radius < 0.39)] = 8150 if not self.parked else 7900
            tyre = radius < 0.32
            rim = radius < 0.21
            spokes = np.cos(5 * np.arctan2(y - 0.32, x - wheel)) > -0.2
            albedo[tyre] = 0.03
            albedo[rim] = 0.10
            albedo[rim & spokes & (radius > 0.03)] = 0.42
            heat[tyre] = 8230 if not self.parked else 7950
            heat[rim] = 8330 if not self.parked else 7970
            heat[rim & (radius < 0.12)] = 8700 if not self.parked else 7990
            mask[tyre] = 255
        mask[hull] = 255
        lamp = hull & (np.hypot((x - self.length + 0.12) / 1.9, y - 0.72) < 0.085)
        tail = hull & (np.hypot(x - 0.05, (y - 0.86) / 1.6) < 0.085)
        albedo[lamp], albedo[tail] = 0.6, (0.05, 0.05, 0.4)
        if not self.parked:
            emission[lamp] = 9.0 * _WHITE
            emission[tail] = (0.03, 0.05, 2.2)
            heat[lamp] = 8500
            heat[hull & (np.hypot(x - 0.16, y - 0.3) < 0.07)] = 9250

    def sprite(self, view: _View, x: float, camera: float, light_along: _LightAlong) -> _Sprite:
        """Return the car with its middle at ``x`` metres, in the light of that place."""
        across = x + (np.arange(self.columns) + 0.5 - self.columns / 2) / self.scale
        picture = _tone(self._albedo * light_along.at(across) + self._emission)
        picture = cv2.multiply(picture, self._mask3, scale=1 / 255)
        column = view.column(x - camera, self.lane) - self.columns / 2
        row = view.row(0.0, self.lane) - self.rows
        return _Sprite(round(column), round(row), picture, self._heat, self._mask)


@dataclass(frozen=True)
class _Outfit:
    """How one pedestrian looks; colours are albedos, warmth is in counts."""

    size: float
    girth: float
    coat: bool
    hood: bool
    bag: bool
    top: Array
    legs: Array
    hair: Array
    skin: Array
    warmth: Array

    @staticmethod
    def draw(rng: np.random.Generator) -> _Outfit:
        """Draw one at random."""
        palette = np.array(
            [(0.35, 0.12, 0.06), (0.08, 0.09, 0.45), (0.40, 0.42, 0.45), (0.06, 0.06, 0.07),
             (0.12, 0.25, 0.12), (0.15, 0.35, 0.50), (0.07, 0.42, 0.55), (0.28, 0.10, 0.30)],
            np.float32,
        )  # fmt: skip
        trousers = np.array(
            [(0.22, 0.12, 0.07), (0.05, 0.05, 0.05), (0.16, 0.18, 0.22), (0.12, 0.14, 0.16)],
            np.float32,
        )
        hairs = np.array([(0.02, 0.03, 0.04), (0.05, 0.09, 0.16), (0.15, 0.3, 0.4)], np.float32)
        # Counts of skin, hair, jacket, trousers, shoes, bag: thick clothing keeps heat inside.
        warmth = np.array([9260, 8760, 8640, 8820, 8350, 8080]) + rng.uniform(-70, 70, 6)
        return _Outfit(
            size=float(rng.uniform(1.62, 1.88)),
            girth=float(rng.uniform(0.92, 1.15)),
            coat=bool(rng.random() < 0.35),
            hood=bool(rng.random() < 0.25),
            bag=bool(rng.random() < 0.4),
            top=palette[rng.integers(len(palette))],
            legs=trousers[rng.integers(len(trousers))],
            hair=hairs[rng.integers(len(hairs))],
            skin=np.array((0.25, 0.36, 0.55), np.float32) * float(rng.uniform(0.5, 1.05)),
            warmth=warmth,
        )


# The parts of a pedestrian; those on the far side are darker.
_SKIN, _HAIR, _TOP, _FAR_TOP, _LEGS, _FAR_LEGS, _SHOES, _BAG, _SHIRT = range(1, 10)


class _Walker:
    """
    A pedestrian at depth ``z`` who walks at ``speed`` m/s to the right, or stands (0).

    :param start: metres to the right at time 0.
    :param cycle: phase of the gait at time 0, in [0, 1).
    """

    def __init__(
        self, view: _View, outfit: _Outfit, z: float, speed: float, start: float, cycle: float,
        texture: Array,
    ) -> None:  # fmt: skip
        self.outfit, self.z, self.speed, self.start, self._cycle = outfit, z, speed, start, cycle
        self._texture = texture
        self._body = outfit.size * view.scale(z)
        self._columns = 2 * math.ceil(0.32 * self._body) + 2
        self._rows = math.ceil(1.04 * self._body) + 2
        self._poses: dict[int, tuple[Array, Array, Array]] = {}
        # Table of albedo and counts by part, row 0 for none.
        tones = {
            _SKIN: outfit.skin, _HAIR: outfit.hair, _TOP: outfit.top,
            _FAR_TOP: outfit.top * 0.55, _LEGS: outfit.legs, _FAR_LEGS: outfit.legs * 0.55,
            _SHOES: np.array((0.10, 0.10, 0.11)), _BAG: outfit.top[::-1] * 0.6,
            _SHIRT: np.array((0.5, 0.5, 0.5)),
        }  # fmt: skip
        self._albedo = np.zeros((10, 3), np.float32)
        for part, tone in tones.items():
            self._albedo[part] = tone
        skin, hair, top, legs, shoes, bag = outfit.warmth
        self._heat = np.array(
            [_AIR, skin, hair, top, top - 60, legs, legs - 70, shoes, bag, skin - 160], np.float32
        )

    def place(self, time_s: float, period: float) -> float:
        """Return where the walker is, in metres; each comes again once a period."""
        if self.speed == 0.0:
            return self.start
        lap = abs(self.speed) * period
        return float((self.start + self.speed * time_s + lap / 2) % lap - lap / 2)

    def laps(self, time_s: float, period: float, half_width: float) -> list[float]:
        """Return all places within ``half_width`` metres; a short lap repeats in view."""
        place = self.place(time_s, period)
        if self.speed == 0.0:
            return [place]
        lap = abs(self.speed) * period
        reach = math.ceil(half_width / lap + 0.5)
        places = [place + k * lap for k in range(-reach, reach + 1)]
        return [x for x in places if abs(x) <= half_width]

    def _limbs(self, phase: float) -> Array:
        """Return the angles of hip and knee of two legs, of shoulder and elbow of two arms."""
        if self.speed == 0.0:
            sway = 0.05 * math.sin(phase)
            return np.array([[0.05, 0.04], [-0.06, 0.03], [0.1 + sway, 0.9], [-0.05, 0.2]])
        limbs = []
        for side in (phase, phase + math.pi):
            swing = max(0.0, math.cos(side))
            limbs.append((0.47 * math.sin(side) + 0.06, 0.10 + 0.85 * swing**1.6))
        for side in (phase + math.pi, phase):
            limbs.append((0.42 * math.sin(side), 0.35 + 0.2 * math.sin(side)))
        return np.array(limbs)

    def _pose(self, index: int) -> tuple[Array, Array, Array]:
        """Return (colours under light 1, counts, coverage) of one phase of the gait."""
        if index in self._poses:
            return self._poses[index]
        fine = 2
        unit = self._body * fine
        height, width = self._rows * fine, self._columns * fine
        parts = np.zeros((height, width), np.uint8)
        phase = 2 * math.pi * index / _POSES
        self._draw(parts, (width / 2, height - 1.0 * fine), unit, phase)

        size = (self._columns, self._rows)
        covered = cv2.threshold(parts, 0, 255, cv2.THRESH_BINARY)[1]
        mask = cv2.resize(covered, size, interpolation=cv2.INTER_AREA)
        # Round bodies: less light and less heat where the surface turns away.
        reach = max(3, int(0.075 * unit) | 1)
        volume = cv2.blur(covered, (reach, reach)).astype(np.float32) / 255
        texture = self._texture[:height, :width]
        shade = (0.70 * volume + 0.76 + 0.19 * texture)[..., np.newaxis] / 1.38
        picture = _display(self._albedo)[parts] * shade
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        heat = self._heat[parts] + 230 * (volume - 1) + 38 * texture
        heat = np.where(parts > 0, heat, self._heat[_TOP])
        heat = cv2.resize(heat.astype(np.float32), size, interpolation=cv2.INTER_AREA)
        self._poses[index] = (np.clip(np.rint(picture), 0, 255).astype(np.uint8), heat, mask)
        return self._poses[index]

    def sprite(
        self, view: _View, x: float, time_s: float, period: float, camera: float,
        light_along: _LightAlong,
    ) -> _Sprite:  # fmt: skip
        """Return the walker at ``x`` metres, in the light of that place."""
        # A whole number of gait cycles in a period keeps the loop closed.
        stride = 1.45 * self.outfit.size / 1.75
        cycles = max(1, round(abs(self.speed) * period / stride))
        turn = cycles * time_s / period + self._cycle
        picture, heat, mask = self._pose(round(turn * _POSES) % _POSES)
        # The display's gamma turns a product of light and albedo into another product.
        gain = np.minimum(light_along.at(x), 1.5) ** (1 / 2.2)
        lit = cv2.multiply(picture, (float(gain[0]), float(gain[1]), float(gain[2]), 0.0))
        column = round(view.column(x - camera, self.z) - self._columns / 2)
        row = round(view.row(0.0, self.z)) - self._rows + 1
        return _Sprite(column, row, lit, heat, mask)

    def _draw(self, parts: Array, origin: tuple[float, float], unit: float, phase: float) -> None:
        """Draw the body's parts by number, far side first; lengths in body heights."""
        limbs = self._limbs(phase)
        ahead = 1.0 if self.speed >= 0 else -1.0
        girth = self.outfit.girth

        def pixel(point: tuple[float, float]) -> tuple[float, float]:
            return origin[0] + ahead * point[0] * unit, origin[1] - point[1] * unit

        def fill(part: int, points: Sequence[tuple[float, float]]) -> None:
            polygon = np.rint(np.asarray([pixel(p) for p in points]) * 16).astype(np.int32)
            cv2.fillPoly(parts, [polygon], part, shift=4)

        def disc(part: int, centre: tuple[float, float], rx: float, ry: float) -> None:
            cx, cy = pixel(centre)
            axes = (max(1, round(rx * unit * 16)), max(1, round(ry * unit * 16)))
            at = (round(cx * 16), round(cy * 16))
            cv2.ellipse(parts, at, axes, 0, 0, 360, part, cv2.FILLED, shift=4)

        def limb(
            part: int, p: tuple[float, float], q: tuple[float, float], r0: float, r1: float
        ) -> None:
            dx, dy = q[0] - p[0], q[1] - p[1]
            length = math.hypot(dx, dy) or 1.0
            nx, ny = -dy / length, dx / length
            fill(
                part,
                [
                    (p[0] + nx * r0, p[1] + ny * r0),
                    (q[0] + nx * r1, q[1] + ny * r1),
                    (q[0] - nx * r1, q[1] - ny * r1),
                    (p[0] - nx * r0, p[1] - ny * r0),
                ],
            )
            disc(part, p, r0, r0)
            disc(part, q, r1, r1)

        def below(p: tuple[float, float], angle: float, length: float) -> tuple[float, float]:
            return p[0] + length * math.sin(angle), p[1] - length * math.cos(angle)

        thigh, shin = 0.245, 0.235
        drop = max(thigh * math.cos(a) + shin * math.cos(a - bend) for a, bend in limbs[:2])
        hip = (0.0, drop + 0.035)
        shoulder = (0.022 if self.speed else 0.0, hip[1] + 0.30)
        neck = (shoulder[0] + 0.008, shoulder[1] + 0.035)
        head = (neck[0] + 0.012, neck[1] + 0.075)

        def leg(side: int, part: int) -> None:
            angle, bend = limbs[side]
            knee = below(hip, angle, thigh)
            ankle = below(knee, angle - bend, shin)
            limb(part, hip, knee, 0.055 * girth, 0.040 * girth)
            limb(part, knee, ankle, 0.038 * girth, 0.027)
            tilt = (angle - bend) * 0.8
            toe = (ankle[0] + 0.085 * math.cos(tilt), ankle[1] - 0.018 + 0.085 * math.sin(tilt))
            limb(_SHOES, (ankle[0] - 0.012, ankle[1] - 0.014), toe, 0.022, 0.014)

        def arm(side: int, part: int) -> None:
            angle, bend = limbs[2 + side]
            start = (shoulder[0], shoulder[1] - 0.015)
            elbow = below(start, angle, 0.165)
            hand = below(elbow, angle + bend, 0.145)
            limb(part, start, elbow, 0.036 * girth, 0.029 * girth)
            limb(part, elbow, hand, 0.029 * girth, 0.022)
            disc(_SKIN, below(hand, angle + bend, 0.018), 0.018, 0.021)

        arm(1, _FAR_TOP)
        leg(1, _FAR_LEGS)
        leg(0, _LEGS)
        if self.outfit.bag:
            disc(_BAG, (shoulder[0] - 0.095 * girth, shoulder[1] - 0.12), 0.055, 0.105)
        g = girth
        sx, sy = shoulder
        chest = [(sx - 0.045, sy + 0.03), (sx + 0.045, sy + 0.03), (sx + 0.078 * g, sy - 0.035),
                 (sx + 0.080 * g, sy - 0.12), (hip[0] + 0.066 * g, hip[1] + 0.05),
                 (hip[0] + 0.072 * g, hip[1] - 0.03), (hip[0] - 0.076 * g, hip[1] - 0.03),
                 (hip[0] - 0.066 * g, hip[1] + 0.06), (sx - 0.085 * g, sy - 0.09),
                 (sx - 0.074 * g, sy - 0.01)]  # fmt: skip
        if self.outfit.coat:
            flare = 0.03 * math.sin(phase)
            fill(
                _TOP,
                [
                    (hip[0] + 0.07 * g, hip[1] + 0.02),
                    (0.10 * g + flare, hip[1] - 0.19),
                    (-0.11 * g + flare, hip[1] - 0.19),
                    (hip[0] - 0.074 * g, hip[1] + 0.02),
                ],
            )
        limb(_SKIN, (sx, sy + 0.01), head, 0.028, 0.03)
        fill(_TOP, _smooth(chest, 1))
        fill(_SHIRT, [(sx + 0.02, sy + 0.03), (sx + 0.05, sy + 0.028), (sx + 0.045, sy - 0.01)])
        disc(_HAIR, (head[0] - 0.010, head[1] + 0.008), 0.058, 0.066)
        disc(_SKIN, (head[0] + 0.012, head[1] - 0.010), 0.044, 0.056)
        fill(
            _HAIR,
            [
                (head[0] - 0.06, head[1] + 0.01),
                (head[0] - 0.045, head[1] + 0.055),
                (head[0] + 0.01, head[1] + 0.074),
                (head[0] + 0.052, head[1] + 0.04),
                (head[0] + 0.02, head[1] + 0.032),
                (head[0] - 0.012, head[1] - 0.01),
            ],
        )
        if self.outfit.hood:
            fill(
                _TOP,
                [
                    (head[0] - 0.07, head[1] - 0.07),
                    (head[0] - 0.068, head[1] + 0.03),
                    (head[0] - 0.01, head[1] + 0.08),
                    (head[0] + 0.03, head[1] + 0.065),
                    (head[0] + 0.0, head[1] - 0.02),
                    (head[0] + 0.0, head[1] - 0.08),
                ],
            )
        arm(0, _TOP)


def _clip(
    shape: tuple[int, ...], column: int, row: int, height: int, width: int
) -> tuple[tuple[slice, slice], tuple[slice, slice]] | None:
    """Return where (in the frame, in the sprite) a sprite is in the frame, or None."""
    x0, y0 = max(column, 0), max(row, 0)
    x1, y1 = min(column + width, shape[1]), min(row + height, shape[0])
    if x0 >= x1 or y0 >= y1:
        return None
    inside = slice(y0 - row, y1 - row), slice(x0 - column, x1 - column)
    return (slice(y0, y1), slice(x0, x1)), inside


def _soft_disc(width: float, height: float, power: float) -> Array:
    """Return a (h, w) float32 spot, 1 in the middle and 0 at its border."""
    columns, rows = max(2, round(width)), max(2, round(height))
    x = (np.arange(columns) + 0.5) / columns * 2 - 1
    y = (np.arange(rows) + 0.5) / rows * 2 - 1
    radius = np.sqrt(x[np.newaxis, :] ** 2 + y[:, np.newaxis] ** 2)
    return np.asarray(np.clip(1 - radius, 0, 1) ** power, np.float32)


def _beam(width: float, height: float) -> Array:
    """Return what a headlight at the left border throws on the street, (h, w) in [0, 1]."""
    columns, rows = max(4, round(width)), max(3, round(height))
    along = ((np.arange(columns) + 0.5) / columns)[np.newaxis, :]
    across = ((np.arange(rows) + 0.5) / rows * 2 - 1)[:, np.newaxis]
    fade = np.clip(along / 0.22, 0, 1) ** 2 * (1 - along) ** 1.4
    spread = np.exp(-((across / (0.18 + 0.42 * along)) ** 2)) * np.clip(3 * (1 - across**2), 0, 1)
    return np.asarray(fade * spread, np.float32)


class _Canvas:
    """The frame in the making, and what of each pedestrian is still to be seen in it."""

    def __init__(self, view: _View) -> None:
        self.visible = np.empty((view.height, view.width, 3), np.uint8)
        self.thermal = np.empty((view.height, view.width), np.int16)
        self._walkers: list[tuple[Box, tuple[slice, slice], Array, int]] = []

    def put(self, sprite: _Sprite, walker: bool = False) -> None:
        """Draw a sprite in front of all that is there."""
        height, width = sprite.mask.shape
        areas = _clip(self.visible.shape, sprite.column, sprite.row, height, width)
        if areas is None:
            return
        there, inside = areas
        mask = sprite.mask[inside]
        around = cv2.merge([255 - mask] * 3)
        behind = cv2.multiply(self.visible[there], around, scale=1 / 255)
        self.visible[there] = cv2.add(behind, sprite.visible[inside])
        share = mask.astype(np.float32) / 255
        ground = self.thermal[there].astype(np.float32)
        self.thermal[there] = ground + (sprite.thermal[inside] - ground) * share
        self.cover(there, mask)
        if walker:
            x, y, w, h = cv2.boundingRect(cv2.threshold(sprite.mask, 127, 255, 0)[1])
            x0, y0 = sprite.column + x, sprite.row + y
            rows, columns = self.thermal.shape
            box = (max(0.0, x0), max(0.0, y0), min(columns, x0 + w), min(rows, y0 + h))
            whole = int(cv2.countNonZero(sprite.mask))
            self._walkers.append(
                ((float(box[0]), float(box[1]), float(box[2]), float(box[3])), there,
                 mask.copy(), whole)
            )  # fmt: skip

    def cover(self, there: tuple[slice, slice], mask: Array) -> None:
        """Take what ``mask`` hides in the region ``there`` from the pedestrians behind."""
        for _, region, seen, _ in self._walkers:
            x0 = max(region[1].start, there[1].start)
            x1 = min(region[1].stop, there[1].stop)
            y0 = max(region[0].start, there[0].start)
            y1 = min(region[0].stop, there[0].stop)
            if x0 < x1 and y0 < y1:
                part = seen[
                    y0 - region[0].start : y1 - region[0].start,
                    x0 - region[1].start : x1 - region[1].start,
                ]
                hidden = mask[
                    y0 - there[0].start : y1 - there[0].start,
                    x0 - there[1].start : x1 - there[1].start,
                ]
                part[hidden > 127] = 0

    def darken(self, spot: Array, column: float, row: float) -> None:
        """Multiply the visible image around a point by 1 - ``spot`` (uint8 of 255)."""
        height, width = spot.shape
        areas = _clip(
            self.visible.shape, round(column - width / 2), round(row - height / 2), height, width
        )
        if areas is not None:
            there, inside = areas
            rest = cv2.merge([255 - spot[inside]] * 3)
            self.visible[there] = cv2.multiply(self.visible[there], rest, scale=1 / 255)

    def shine(self, spot: Array, column: float, row: float) -> None:
        """Add a spot of light (h, w, 3) uint8 around a point."""
        height, width = spot.shape[:2]
        areas = _clip(
            self.visible.shape, round(column - width / 2), round(row - height / 2), height, width
        )
        if areas is not None:
            there, inside = areas
            self.visible[there] = cv2.add(self.visible[there], spot[inside])

    def boxes(self) -> list[Box]:
        """Return the boxes of those of whom at least six tenths are to be seen."""
        return [
            box
            for box, _, seen, whole in self._walkers
            if box[2] > box[0] and box[3] > box[1] and cv2.countNonZero(seen) >= 0.6 * whole > 0
        ]

    def people(self) -> NDArray[np.uint8]:
        """Return how much of each pixel pedestrians cover that are not hidden, (H, W) of 255."""
        cover: NDArray[np.uint8] = np.zeros(self.thermal.shape, np.uint8)
        for _, there, seen, _ in self._walkers:
            cover[there] = np.maximum(cover[there], seen)
        return cover


class SyntheticScene:
    """
    A night street with walkers and cars, seen by a visible and a thermal camera.

    Frames are a function of the seed and the time alone, and repeat after ``period``, so that a
    rendered period can be played in a loop without a jump.

    :param width: of both images in pixels.
    :param height: of both images in pixels.
    :param seed: of the houses, the pedestrians and the noise.
    :param period: seconds until everything is where it was.
    :param sways: whether the camera does; else it stands still.
    :raises ValueError: a size below 16 pixels, a negative seed, or a period below one second.
    """

    def __init__(
        self,
        width: int = 640,
        height: int = 512,
        seed: int = 0,
        period: float = 12.0,
        sways: bool = True,
    ) -> None:
        if width < 16 or height < 16:
            raise ValueError(f'the scene is {width}x{height}, but needs at least 16x16 pixels')
        if seed < 0:
            raise ValueError(f'the seed is {seed}, but must not be negative')
        if period < 1.0:
            raise ValueError(f'the period is {period} s, but must be at least 1 s')
        self.period = period
        self._seed = seed
        self._view = view = _View(width, height)
        rng = np.random.default_rng(seed)
        # Half a metre a second at most, whatever the period.
        self._sway = min(1.6, 0.55 * period / (2 * math.pi)) if sways else 0.0

        lamps = [
            (-10.6 + float(rng.uniform(-0.5, 0.5)), 12.0 * _WARM),
            (-4.2 + float(rng.uniform(-0.5, 0.5)), 24.0 * _WARM),
            (3.9 + float(rng.uniform(-0.3, 0.5)), None),
            (9.6 + float(rng.uniform(-0.5, 0.5)), 14.0 * _WHITE),
            (-17.0, None),
            (16.0, 20.0 * _WARM),
        ]
        posts: list[_Light | float] = [
            x if colour is None else _Light(x, _LAMP_HEIGHT, _LAMP_DEPTH, colour, True)
            for x, colour in lamps
        ]
        street_lamps = [post for post in posts if isinstance(post, _Light)]

        # Down to where the ground begins: through the alleys one sees it stretch away.
        below = _CAMERA_HEIGHT * (1 - _SKYLINE / _FACADE)
        self._skyline = _Layer(view, _SKYLINE, self._sway, below)
        _paint_skyline(self._skyline, view, rng)
        self._skyline.develop([])
        self._facade = _Layer(view, _FACADE, self._sway, 0.0)
        painter = _FacadePainter(self._facade, rng)
        painter.paint()
        lights = street_lamps + painter.lights
        self._facade.develop(street_lamps + [
            light for light in painter.lights if light.y > 2.5
        ])  # fmt: skip
        self._ground = _Ground(view, self._sway, lights, rng)
        self._curb_line = _Layer(view, _CURB_LINE, self._sway, 0.0)
        self._glow = _paint_curb_line(self._curb_line, posts, rng)
        self._curb_line.develop(lights)

        self._walkers = self._people(rng)
        self._cars = self._traffic(rng)
        # The side that faces the camera, at half a pedestrian's height.
        depths = {walker.z for walker in self._walkers} | {car.lane for car in self._cars}
        self._light_along = {z: _LightAlong(lights, 1.1, z - 0.5) for z in depths}
        self._make_spots()
        self._make_noise(rng)

    @staticmethod
    def focal_length(height: int) -> float:
        """Return the focal length in pixels of the cameras of an image of that height."""
        return 1.125 * height

    def _people(self, rng: np.random.Generator) -> list[_Walker]:
        view = self._view
        size = math.ceil(2.2 * 2 * 1.9 * view.scale(5.6)) + 8
        cloth = _value_noise(rng, size, size, 0.09 * view.scale(5.6), 3)
        walkers = []
        for z, speed in ((14.9, 1.15), (13.75, -1.25), (7.0, 1.2), (5.8, -1.1)):
            lap = abs(speed) * self.period
            count = max(1, round(lap / (5.6 if z > 10 else 8.0)))
            for index in range(count):
                start = (index + float(rng.uniform(0.15, 0.85))) * lap / count
                outfit = _Outfit.draw(rng)
                cycle = float(rng.random())
                walkers.append(_Walker(view, outfit, z, speed, start, cycle, cloth))
        for z, x in ((14.4, -2.7), (14.45, 5.6), (15.2, 1.3)):
            walkers.append(_Walker(view, _Outfit.draw(rng), z, 0.0, x, 0.0, cloth))
        return walkers

    def _traffic(self, rng: np.random.Generator) -> list[_Car]:
        view = self._view
        paints = [(0.10, 0.10, 0.50), (0.55, 0.55, 0.55), (0.35, 0.20, 0.07), (0.10, 0.40, 0.55),
                  (0.05, 0.05, 0.05), (0.30, 0.33, 0.34)]  # fmt: skip
        order = rng.permutation(len(paints))
        speeds = (6.5, 6.5, -6.0)
        cars = []
        for index, speed in enumerate(speeds):
            lane = _FAR_LANE if speed > 0 else _NEAR_LANE
            lap = abs(speed) * self.period
            start = lap * (0.5 * index + float(rng.uniform(0.0, 0.35)))
            paint = np.asarray(paints[order[index]], np.float32)
            cars.append(_Car(view, lane, speed, start, paint, index % 2, rng))
        paint = np.asarray(paints[order[3]], np.float32)
        cars.append(_Car(view, 12.3, 0.0, 7.6, paint, 0, rng))
        return cars

    def _make_spots(self) -> None:
        """Prepare light and shadow that move with cars and walkers."""
        view = self._view

        def light(spot: Array, colour: Array, level: float) -> NDArray[np.uint8]:
            picture: NDArray[np.uint8] = np.rint(
                np.minimum(spot[..., np.newaxis] * colour * level, 255)
            ).astype(np.uint8)
            return picture

        def shadow(spot: Array, level: float) -> NDArray[np.uint8]:
            dark: NDArray[np.uint8] = np.rint(np.minimum(spot * level, 255)).astype(np.uint8)
            return dark

        red = np.array([0.1, 0.1, 1.0], np.float32)
        self._car_spots: dict[float, dict[str, Array]] = {}
        for lane in {car.lane for car in self._cars}:
            scale = view.scale(lane)
            beam = _beam(6.5 * scale, 0.85 * scale)
            self._car_spots[lane] = {
                'halo': light(_soft_disc(2.2 * scale, 2.2 * scale, 3.0), _WHITE, 210.0),
                'beam': light(beam, _WHITE, 130.0),
                'tail': light(_soft_disc(1.2 * scale, 1.2 * scale, 2.5), red, 150.0),
                'wake': light(_soft_disc(3.2 * scale, 0.5 * scale, 1.3), red, 40.0),
                'shadow': shadow(_soft_disc(5.2 * scale, 0.7 * scale, 0.6), 260.0),
            }
        self._walker_shadow = {}
        for z in {walker.z for walker in self._walkers}:
            scale = view.scale(z)
            spot = _soft_disc(1.1 * scale, 0.24 * scale, 0.8)
            self._walker_shadow[z] = shadow(spot, 170.0)

    def _make_noise(self, rng: np.random.Generator) -> None:
        """Prepare noise larger than a frame, of which every frame takes another part."""
        view = self._view
        size = (view.height + _NOISE_MARGIN, view.width + _NOISE_MARGIN)
        # The part of a Bayer mosaic: colour noise coarser than brightness noise.
        grain = rng.standard_normal((*size, 3), np.float32)
        grain = 0.55 * grain + 1.1 * cv2.GaussianBlur(grain, (0, 0), 0.9)
        self._visible_noise = np.clip(np.rint(grain * 24), -127, 127).astype(np.int8)
        # Shot noise grows with the root of the signal, read noise is constant.
        level = np.arange(256, dtype=np.float32)
        self._noise_gain = np.rint(
            np.minimum(20.0 * np.sqrt(2.0 + 0.055 * level), 255)
        ).astype(np.uint8)  # fmt: skip
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

    def render(self, time_s: float, noise: bool = True) -> SceneFrame:
        """
        Return what both cameras see at ``time_s`` seconds.

        :param time_s: any time; the scene has no beginning.
        :param noise: whether the sensors add noise and the fixed pattern of the thermal one.
        """
        canvas = self._compose(time_s)
        return SceneFrame(*self._expose(canvas, time_s, noise), canvas.boxes())

    def people(self, time_s: float) -> NDArray[np.float32]:
        """
        Return where the pedestrians of the frame at ``time_s`` seconds are.

        :return: (H, W) in [0, 1], the part of each pixel that they cover, as sharp as the thermal
            lens shows them; all of them, also those without a box.
        """
        people = self._compose(time_s).people().astype(np.float32) / 255
        return np.asarray(self._through_thermal_lens(people), np.float32)

    def _compose(self, time_s: float) -> _Canvas:
        """Draw what is before the lenses at ``time_s`` seconds."""
        view = self._view
        camera = self._sway * math.sin(2 * math.pi * time_s / self.period)
        canvas = _Canvas(view)
        self._put_layer(canvas, self._skyline, camera)
        self._put_layer(canvas, self._facade, camera)
        self._ground.draw(canvas.visible, canvas.thermal, camera)

        # From far to near; the row of trees and lamps is one of the depths.
        moving: list[_Walker | _Car] = [*self._walkers, *self._cars]
        moving.sort(key=lambda item: -(item.lane if isinstance(item, _Car) else item.z))
        lamps_drawn = False
        for item in moving:
            depth = item.lane if isinstance(item, _Car) else item.z
            if depth < _CURB_LINE and not lamps_drawn:
                self._put_curb_line(canvas, camera)
                lamps_drawn = True
            if isinstance(item, _Car):
                self._put_car(canvas, item, time_s, camera)
            else:
                self._put_walker(canvas, item, time_s, camera)
        return canvas

    def _put_layer(self, canvas: _Canvas, layer: _Layer, camera: float) -> tuple[slice, Array]:
        columns = layer.window(camera, self._view.width)
        mask = layer.mask[:, columns]
        rows = slice(0, layer.rows)
        cv2.copyTo(layer.visible[:, columns], mask, canvas.visible[rows])
        cv2.copyTo(layer.thermal[:, columns], mask, canvas.thermal[rows])
        return columns, mask

    def _put_curb_line(self, canvas: _Canvas, camera: float) -> None:
        layer = self._curb_line
        columns, mask = self._put_layer(canvas, layer, camera)
        canvas.cover((slice(0, layer.rows), slice(0, self._view.width)), mask)
        lit = canvas.visible[: layer.rows]
        canvas.visible[: layer.rows] = cv2.add(lit, self._glow[:, columns])

    def _put_walker(self, canvas: _Canvas, walker: _Walker, time_s: float, camera: float) -> None:
        view = self._view
        half = view.width / 2 / view.scale(walker.z) + self._sway + 1.0
        for x in walker.laps(time_s, self.period, half):
            column = view.column(x - camera, walker.z)
            canvas.darken(self._walker_shadow[walker.z], column, view.row(0.0, walker.z))
            sprite = walker.sprite(
                view, x, time_s, self.period, camera, self._light_along[walker.z]
            )
            canvas.put(sprite, walker=True)

    def _put_car(self, canvas: _Canvas, car: _Car, time_s: float, camera: float) -> None:
        view = self._view
        x = car.start
        if not car.parked:
            lap = abs(car.speed) * self.period
            x = (car.start + car.speed * time_s + lap / 2) % lap - lap / 2
        half = view.width / 2 / view.scale(car.lane) + self._sway
        if abs(x) > half + car.length / 2 + 5.0:
            return
        spots = self._car_spots[car.lane]
        row = view.row(0.0, car.lane)
        column = view.column(x - camera, car.lane)
        ahead = -1.0 if car.speed < 0 else 1.0
        canvas.darken(spots['shadow'], column, row)
        if not car.parked:
            front = column + ahead * (car.length / 2 - 0.1) * car.scale
            rear = column - ahead * car.length / 2 * car.scale
            beam = spots['beam'] if ahead > 0 else spots['beam'][:, ::-1]
            reach = ahead * (beam.shape[1] / 2 + 0.3 * car.scale)
            canvas.shine(beam, front + reach, row + 0.05 * car.scale)
            canvas.shine(spots['wake'], rear, row)
        canvas.put(car.sprite(view, x, camera, self._light_along[car.lane]))
        if not car.parked:
            canvas.shine(spots['halo'], front, row - 0.72 * car.scale)
            canvas.shine(spots['tail'], rear, row - 0.86 * car.scale)

    def _expose(
        self, canvas: _Canvas, time_s: float, noise: bool
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
        """Send the picture through the two lenses and sensors."""
        view = self._view
        visible = cv2.GaussianBlur(canvas.visible, (3, 3), 0.5)
        visible = cv2.multiply(visible, self._vignette, scale=1 / 255)
        # int16 has no fast path in OpenCV; counts of 14 bits are the same in uint16.
        thermal = self._through_thermal_lens(canvas.thermal.view(np.uint16))
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

    def _through_thermal_lens(self, picture: Array) -> Array:
        blur = 0.9 * max(1.0, self._view.height / 512)
        size = 2 * math.ceil(2 * blur) + 1
        blurred: Array = cv2.GaussianBlur(picture, (size, size), blur)
        return blurred
