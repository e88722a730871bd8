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

"""What stands still in the street: sky and skyline, houses, the ground, lamps and trees."""

from __future__ import annotations

from collections.abc import Sequence
import math

import cv2
import numpy as np

from dig2dig_ros.evaluation.synthetic_scene.layout import (
    AIR,
    Array,
    bgr,
    CAMERA_HEIGHT,
    FACADE,
    FAR_CURB,
    FAR_LANE,
    irradiance,
    LAMP_DEPTH,
    LAMP_HEIGHT,
    Layer,
    Light,
    NEAR_CURB,
    NEAR_LANE,
    ROAD,
    tone,
    value_noise,
    View,
    WALL,
    WARM,
    WHITE,
)

_SKY_TOP, _SKY_HORIZON = 7050.0, 7480.0
_TEXELS = 48  # of the ground's texture, per metre

_STOREY, _GROUND_FLOOR = 2.9, 3.4
# Albedo, and whether it is brick.
_MATERIALS = (
    (bgr(0.10, 0.14, 0.36), True),
    (bgr(0.30, 0.44, 0.55), False),
    (bgr(0.34, 0.35, 0.36), False),
    (bgr(0.11, 0.13, 0.20), True),
    (bgr(0.50, 0.46, 0.40), False),
    (bgr(0.20, 0.34, 0.46), True),
)
_SIGNS = (
    bgr(0.9, 0.35, 0.1), bgr(0.1, 0.15, 1.0), bgr(0.25, 0.9, 0.3), bgr(0.2, 0.75, 1.0),
    bgr(0.8, 0.2, 0.8),
)  # fmt: skip


def paint_skyline(layer: Layer, view: View, rng: np.random.Generator) -> None:
    """Draw the sky with the glow of the city on its clouds, and houses far away."""
    rows, columns = layer.heat.shape
    up = np.clip((view.horizon - np.arange(rows)) / view.horizon, 0.0, 1.0)[:, np.newaxis]
    cloud = value_noise(rng, rows, columns, 0.32 * view.height, 5)
    haze = np.maximum(np.exp(-up / 0.35) * (1.0 + 0.30 * cloud), 0.05)[..., np.newaxis]
    light = haze * bgr(0.014, 0.021, 0.036) + bgr(0.0060, 0.0032, 0.0022)
    heat = _SKY_HORIZON + (_SKY_TOP - _SKY_HORIZON) * up**0.7 + 50 * cloud * (1 - up)
    layer.paint(..., heat=heat, emission=light, cover=True)
    x = layer.left - 5.0
    while x < layer.right:
        width, height = float(rng.uniform(7, 16)), float(rng.uniform(8, 25))
        block = layer.box(x, x + width, -0.5, height)
        heat = 7640.0 + float(rng.uniform(-30, 30))
        layer.paint(block, heat=heat, emission=(0.0028, 0.0026, 0.0030))
        for floor in np.arange(2.5, height - 1.5, 3.2):
            for column in np.arange(x + 1.0, x + width - 1.6, 2.4):
                if rng.random() < 0.22:
                    pane = layer.box(column, column + 1.2, floor, floor + 1.4)
                    colour = WARM if rng.random() < 0.75 else WHITE
                    layer.paint(pane, emission=float(rng.uniform(0.02, 0.16)) * colour)
                    layer.heat[pane] += 25
        x += width + (float(rng.uniform(1.0, 5.0)) if rng.random() < 0.4 else 0.0)
    ground = layer.y < 0.0
    depth = np.clip(-layer.y[ground] / 7.0, 0, 1)[:, np.newaxis]
    stones = 1 + 0.3 * value_noise(rng, int(ground.sum()), columns, 0.012 * view.height, 3)
    light = (stones * (0.0020 + 0.0035 * depth))[..., np.newaxis] * bgr(0.8, 0.9, 1.1)
    layer.paint(ground, heat=7800 + 160 * depth + 12 * stones, emission=light)


class FacadePainter:
    """Draws the row of buildings into a layer and collects the light of their shops."""

    def __init__(self, layer: Layer, rng: np.random.Generator) -> None:
        self.layer = layer
        self.rng = rng
        self.lights: list[Light] = []

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

    def _building(self, x0: float, x1: float, height: float, albedo: Array, brick: bool) -> None:
        layer, rng = self.layer, self.rng
        area = layer.box(x0, x1, 0.0, height)
        rows, columns = layer.heat[area].shape
        if not rows or not columns:
            return
        tone = 1.0 + 0.16 * value_noise(rng, rows, columns, 1.3 * layer.scale, 5)
        # Rain leaves streaks below every edge.
        tone *= 1.0 + 0.07 * value_noise(rng, 1, columns, 0.3 * layer.scale, 3)
        if brick:
            tone *= self._bricks(layer.x[area[1]], layer.y[area[0]])
        heat = (
            WALL
            + float(rng.uniform(-50, 50))
            + 26 * value_noise(rng, rows, columns, 2.5 * layer.scale, 4)
            - 9.0 * layer.y[area[0]][:, np.newaxis]
        )
        layer.paint(area, tone[..., np.newaxis] * albedo, heat, cover=True)

        # Cornices, plinth, edges and the pipe.
        pipe = x1 - 0.35
        for box, factor, warmer in (
            ((x0, x1, height - 0.28, height), 1.35, 25),
            ((x0, x1, height - 0.36, height - 0.28), 0.45, 10),
            ((x0, x1, _GROUND_FLOOR - 0.22, _GROUND_FLOOR), 1.3, 20),
            ((x0, x1, _GROUND_FLOOR - 0.28, _GROUND_FLOOR - 0.22), 0.5, 0),
            ((x0, x1, 0.0, 0.45), 0.55, 45),
            ((x0, x0 + 0.06, 0.0, height), 0.6, -10),
            ((x1 - 0.06, x1, 0.0, height), 0.6, -10),
            ((pipe, pipe + 0.1, 0.0, height - 0.3), 0.5, 30),
        ):
            self._band(*box, factor, warmer)
        if rng.random() < 0.6:
            chimney = float(rng.uniform(x0 + 0.5, x1 - 1.3))
            area = layer.box(chimney, chimney + 0.6, height, height + 0.8)
            layer.paint(area, albedo * 0.8, WALL + float(rng.uniform(100, 350)), cover=True)

        self._ground_floor(x0, x1)
        self._windows(x0, x1, height)

    def _bricks(self, x: Array, y: Array) -> Array:
        """Return the relief of a brick wall around 1; fades where bricks fall below pixels."""
        course = np.floor(y / 0.085)
        along = x[np.newaxis, :] / 0.26 + 0.5 * (course[:, np.newaxis] % 2)
        table = self.rng.uniform(0.72, 1.25, 1024).astype(np.float32)
        index = (course[:, np.newaxis] * 37 + np.floor(along) * 101).astype(np.int64) % 1024
        joints = (y / 0.085 - course < 0.2)[:, np.newaxis] | (along - np.floor(along) < 0.08)
        relief = np.where(joints, 1.45, table[index])
        strength = min(1.0, self.layer.scale / 30.0)
        return np.asarray(1.0 + (relief - 1.0) * strength, np.float32)

    def _band(
        self, x0: float, x1: float, y0: float, y1: float, factor: float, warmer: float
    ) -> None:
        area = self.layer.box(x0, x1, y0, y1)
        self.layer.albedo[area] *= factor
        self.layer.heat[area] += warmer

    def _windows(self, x0: float, x1: float, height: float) -> None:
        warm_storey = int(self.rng.integers(1, 4))
        storey, y = 1, _GROUND_FLOOR + 0.75
        while y + 1.5 < height - 0.3:
            count = max(2, int((x1 - x0 - 0.8) / 1.75))
            pitch = (x1 - x0 - 0.8) / count
            for index in range(count):
                left = x0 + 0.4 + pitch * index + (pitch - 1.0) / 2
                self._window(left, left + 1.0, y, y + 1.5, storey == warm_storey)
            y += _STOREY
            storey += 1

    def _window(self, x0: float, x1: float, y0: float, y1: float, warm: bool) -> None:
        layer, rng = self.layer, self.rng
        frame = layer.box(x0 - 0.09, x1 + 0.09, y0 - 0.09, y1 + 0.09)
        layer.paint(frame, bgr(0.5, 0.52, 0.55) * rng.uniform(0.6, 1.0))
        layer.heat[frame] += 35
        glass = layer.box(x0, x1, y0, y1)
        rows, columns = layer.heat[glass].shape
        layer.paint(glass, bgr(0.035, 0.03, 0.025))
        layer.heat[glass] += float(rng.uniform(25, 75)) + (60 if warm else 0)
        if rows and columns and rng.random() < (0.5 if warm else 0.22):
            # A ceiling lamp behind a curtain: brighter above, folded, open in the middle.
            colour = bgr(0.62, 0.6, 0.5) if rng.random() < 0.25 else bgr(0.16, 0.42, 0.72)
            across = np.linspace(-1, 1, columns, dtype=np.float32)
            down = np.linspace(1.0, 0.45, rows, dtype=np.float32)[:, np.newaxis]
            opening = float(rng.uniform(0.1, 0.7))
            folds = 0.75 + 0.25 * np.sin(across * float(rng.uniform(12, 20)))
            curtain = np.where(np.abs(across) > opening, 0.5 * folds, 1.0)
            room = 1.0 + 0.4 * value_noise(rng, rows, columns, 0.35 * layer.scale, 2)
            brightness = float(rng.uniform(0.18, 0.75)) * down * curtain * room
            layer.emission[glass] = np.maximum(brightness, 0.02)[..., np.newaxis] * colour
            layer.heat[glass] += float(rng.uniform(50, 130))
        middle = (x0 + x1) / 2
        for bar in (
            layer.box(middle - 0.03, middle + 0.03, y0, y1),
            layer.box(x0, x1, y1 - 0.48, y1 - 0.42),
        ):
            layer.paint(bar, (0.4, 0.42, 0.45), emission=0.0)
        layer.paint(layer.box(x0 - 0.16, x1 + 0.16, y0 - 0.17, y0 - 0.08), (0.55, 0.57, 0.6))
        self._band(x0 - 0.12, x1 + 0.12, y0 - 0.27, y0 - 0.17, 0.5, 0)

    def _ground_floor(self, x0: float, x1: float) -> None:
        door = x0 + 0.5 if self.rng.random() < 0.5 else x1 - 1.6
        self._door(door)
        left = door + 1.4 if door < x0 + 1 else x0 + 0.5
        right = x1 - 0.6 if door < x0 + 1 else door - 0.4
        if right - left > 2.0:
            self._shop(left, right, is_open=bool(self.rng.random() < 0.5))

    def _door(self, x: float) -> None:
        layer, rng = self.layer, self.rng
        layer.paint(layer.box(x - 0.12, x + 1.12, 0.0, 2.5), (0.4, 0.42, 0.45))
        leaf = layer.box(x, x + 1.0, 0.05, 2.4)
        colour = rng.uniform(0.04, 0.22, 3).astype(np.float32)
        layer.paint(leaf, colour)
        for y in (0.25, 0.95, 1.65):
            layer.paint(layer.box(x + 0.15, x + 0.85, y, y + 0.55), colour * 0.6)
        layer.heat[leaf] += float(rng.uniform(60, 160))
        if rng.random() < 0.4:
            layer.paint(layer.box(x + 0.42, x + 0.58, 2.65, 2.8), emission=3.0 * WARM)
            self.lights.append(Light(x + 0.5, 2.6, FACADE - 0.4, 0.35 * WARM))

    def _shop(self, x0: float, x1: float, is_open: bool) -> None:
        layer, rng = self.layer, self.rng
        layer.paint(layer.box(x0 - 0.15, x1 + 0.15, 0.3, 3.1), rng.uniform(0.05, 0.2, 3))
        glass = layer.box(x0, x1, 0.55, 2.4)
        if not layer.heat[glass].size:
            return
        if is_open:
            colour = self._goods(glass)
            for share in (0.2, 0.5, 0.8):
                x = x0 + share * (x1 - x0)
                self.lights.append(Light(x, 1.7, FACADE - 0.3, 0.22 * colour))
        else:
            slats = (layer.y[glass[0]] % 0.12 < 0.04)[:, np.newaxis, np.newaxis]
            layer.paint(glass, np.where(slats, 0.1, 0.26))
            layer.heat[glass] -= 40
        for x in np.arange(x0, x1 + 0.1, max(1.3, (x1 - x0) / 3)):
            layer.paint(layer.box(x - 0.04, x + 0.04, 0.3, 2.45), 0.08, emission=0.0)
        self._sign(x0, x1, is_open)

    def _goods(self, glass: tuple[slice, slice]) -> Array:
        """Draw lit shelves behind the glass of a shop; return the colour of their light."""
        layer, rng = self.layer, self.rng
        rows, columns = layer.heat[glass].shape
        goods = value_noise(rng, rows, columns, 0.5 * layer.scale, 3)
        shelf = (layer.y[glass[0]] % 0.62 < 0.09)[:, np.newaxis]
        count = math.ceil(columns / max(1, layer.scale * 0.22))
        things = rng.uniform(0.2, 0.7, (3, count, 1)) + rng.uniform(-0.18, 0.18, (3, count, 3))
        things = np.repeat(things, max(1, round(layer.scale * 0.22)), axis=1)[:, :columns]
        inside = things[np.clip((layer.y[glass[0]] - 0.55) / 0.62, 0, 2).astype(int)]
        if inside.shape[1] < columns:
            inside = np.pad(inside, ((0, 0), (0, columns - inside.shape[1]), (0, 0)), 'edge')
        level = np.linspace(1.0, 0.45, rows)[:, np.newaxis] * (1 + 0.35 * goods)
        level = np.where(shelf, 0.12, np.maximum(level, 0.05)) * float(rng.uniform(0.5, 0.8))
        colour = WHITE if rng.random() < 0.5 else bgr(0.4, 0.75, 1.0)
        layer.paint(glass, 0.02, emission=level[..., np.newaxis] * inside * colour)
        layer.heat[glass] += 110
        return colour

    def _sign(self, x0: float, x1: float, is_open: bool) -> None:
        layer, rng = self.layer, self.rng
        board = layer.box(x0, x1, 2.5, 3.05)
        layer.paint(board, rng.uniform(0.03, 0.3, 3))
        layer.heat[board] += 90 if is_open else 0
        colour = _SIGNS[int(rng.integers(len(_SIGNS)))]
        x = x0 + 0.3
        end = x0 + (x1 - x0) * float(rng.uniform(0.6, 0.9))
        while x < end:
            # Strokes that read as letters from across the street.
            for _ in range(2):
                dx, tall = float(rng.uniform(0.0, 0.2)), bool(rng.random() < 0.6)
                y = 2.62 if tall else 2.62 + float(rng.choice([0.0, 0.14, 0.26]))
                width, height = (0.06, 0.32) if tall else (0.22, 0.06)
                stroke = layer.box(x + dx, x + dx + width, y, y + height)
                layer.paint(stroke, 0.5, emission=(1.6 if is_open else 0.0) * colour)
            x += 0.36 if rng.random() < 0.85 else 0.6


class Ground:
    """The street and its pavements as the camera sees them, wide enough to be sheared."""

    def __init__(
        self, view: View, sway: float, lights: Sequence[Light], rng: np.random.Generator
    ) -> None:
        self.top = max(0, math.floor(view.row(0.0, FACADE)))
        self.margin = math.ceil(sway * (view.height - view.horizon) / CAMERA_HEIGHT) + 2
        self._view = view
        columns = view.width + 2 * self.margin
        row = np.arange(self.top, view.height) + 0.5
        depth = view.focal * CAMERA_HEIGHT / (row - view.horizon)
        z = np.repeat(depth[:, np.newaxis], columns, axis=1).astype(np.float32)
        offset = np.arange(columns) + 0.5 - view.width / 2 - self.margin
        x = (offset[np.newaxis, :] * z / view.focal).astype(np.float32)
        albedo, heat = _street(x, z, rng)
        # The wall and the curb keep the light from the angle they stand in.
        albedo *= (1.0 - 0.55 * np.exp(-np.abs(FACADE - z) / 0.35))[..., np.newaxis]
        self.visible = tone(albedo * irradiance(lights, x, np.zeros_like(x), z))
        self.thermal = np.rint(heat).astype(np.int16)

    def draw(self, visible: Array, thermal: Array, camera: float) -> None:
        """Draw what the camera sees from ``camera`` metres into the lower rows."""
        shear = camera / CAMERA_HEIGHT
        start = self.margin + shear * (self.top + 0.5 - self._view.horizon)
        matrix = np.array([[1.0, shear, start], [0.0, 1.0, 0.0]])
        for picture, image, interpolation in (
            (self.visible, visible, cv2.INTER_LINEAR),
            # The thermal lens blurs more than a pixel anyway.
            (self.thermal, thermal, cv2.INTER_NEAREST),
        ):
            size = (self._view.width, picture.shape[0])
            flags = interpolation | cv2.WARP_INVERSE_MAP
            image[self.top :] = cv2.warpAffine(picture, matrix, size, flags=flags)


def _texture(x: Array, z: Array, noise: Array) -> Array:
    """Return a texture at (x, z) in metres, mirrored, so that no seam shows where it repeats."""
    height, width = noise.shape[0] - 1, noise.shape[1] - 1
    u = np.abs((x * _TEXELS + width / 2) % (2 * width) - width).astype(np.float32)
    v = np.abs(z * _TEXELS % (2 * height) - height).astype(np.float32)
    sampled: Array = cv2.remap(noise, u, v, cv2.INTER_LINEAR)
    return sampled


def _where(mask: Array, colour: Array | float, albedo: Array) -> Array:
    return np.where(mask[..., np.newaxis], colour, albedo)


def _street(x: Array, z: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """Return albedo (H, W, 3) and counts (H, W) of the ground at (x, z) in metres."""
    fine, stone, patch = (
        _texture(x, z, value_noise(rng, 768, 1536, cell, octaves))
        for cell, octaves in ((2.5, 1), (9.0, 3), (160.0, 4))
    )

    # Asphalt: stones, worn wheel tracks, a patch of repair with its seam.
    level = 0.105 * (1 + 0.30 * fine + 0.22 * stone + 0.25 * patch)
    tracks = np.zeros_like(z)
    for lane in (FAR_LANE, NEAR_LANE):
        for side in (-0.75, 0.75):
            tracks += np.exp(-(((z - lane - side) / 0.28) ** 2))
    level *= 1 - 0.22 * tracks
    repair = (np.abs(x - 3.4) < 1.5) & (np.abs(z - 8.9) < 0.75)
    seam = (np.abs(np.abs(x - 3.4) - 1.5) < 0.04) & (np.abs(z - 8.9) < 0.77)
    level = np.where(seam, 0.03, np.where(repair, level * 0.6, level))
    albedo = level[..., np.newaxis] * bgr(1.04, 1.0, 0.98)
    heat = ROAD + 36 * patch + 12 * stone + 60 * np.minimum(tracks, 1.0) + np.where(repair, 30, 0)

    paint = ((np.abs(z - 10.4) < 0.09) & (x % 5.0 < 2.4)) | (np.abs(z - 12.65) < 0.07)
    crossing = (np.abs(x + 2.6) < 1.9) & (z > 7.9) & (z < 12.5) & ((z - 7.9) % 0.92 < 0.46)
    worn = (paint & (np.abs(x + 2.6) > 2.2)) | crossing
    cover = np.clip(0.75 + 0.5 * stone + 0.3 * fine, 0.0, 1.0)[..., np.newaxis]
    albedo = _where(worn, albedo * (1 - cover) + bgr(0.50, 0.54, 0.56) * cover, albedo)
    heat = heat - np.where(worn, 45, 0)

    # Lids of iron, each in a dark ring.
    iron = (0.045 + 0.03 * np.clip(stone, -1, 1))[..., np.newaxis]
    for lid_x, lid_z in ((1.2, 10.9), (-6.0, 8.7), (7.5, 11.2)):
        radius = np.hypot(x - lid_x, z - lid_z)
        albedo = _where(radius < 0.36, iron, albedo)
        albedo = _where(np.abs(radius - 0.38) < 0.03, 0.02, albedo)
        heat = np.where(radius < 0.36, ROAD + 190, heat)

    # Pavements: slabs with joints, each of its own tone; the curb stones between.
    slab_x, slab_z = np.floor(x / 0.6 + 0.5 * (np.floor(z / 0.4) % 2)), np.floor(z / 0.4)
    tones = rng.uniform(0.78, 1.18, 4096).astype(np.float32)
    slab = tones[(slab_x * 131 + slab_z * 517).astype(np.int64) % 4096]
    along = x / 0.6 + 0.5 * (slab_z % 2)
    joint = (along - np.floor(along) < 0.05) | (z / 0.4 - slab_z < 0.07)
    # Joints finer than a pixel would only alias.
    near = np.clip(1.7 - z / 14.0, 0.35, 1.0)
    pavement = 0.24 * slab * (1 + 0.15 * fine + 0.20 * patch)
    pavement = np.where(joint, pavement * (1 - 0.6 * near), pavement)
    tint = bgr(0.92, 0.98, 1.04)
    walk = (z > FAR_CURB) | (z < NEAR_CURB)
    albedo = _where(walk, pavement[..., np.newaxis] * tint, albedo)
    heat = np.where(walk, ROAD - 95 + 26 * patch + 12 * (slab - 1) / 0.2, heat)
    stones = np.where(x % 1.0 < 0.03, 0.1, 0.40 * (1 + 0.2 * stone))[..., np.newaxis]
    for edge in (FAR_CURB, NEAR_CURB):
        curb = np.abs(z - edge) < 0.13
        albedo = _where(curb, stones * tint, albedo)
        heat = np.where(curb, ROAD - 60, heat)
        gutter = (z - edge if edge == NEAR_CURB else edge - z) - 0.13
        albedo = _where((gutter > 0) & (gutter < 0.16), albedo * 0.4, albedo)
    return albedo.astype(np.float32), heat.astype(np.float32)


def street_lamps(rng: np.random.Generator) -> tuple[list[Light], list[float]]:
    """Return the lamps that burn, and where there are others in metres."""
    left, middle, dead, right = (
        x + float(rng.uniform(low, 0.5))
        for x, low in ((-10.6, -0.5), (-4.2, -0.5), (3.9, -0.3), (9.6, -0.5))
    )
    burning = ((left, 12.0 * WARM), (middle, 24.0 * WARM), (right, 14.0 * WHITE))
    lamps = [
        Light(x, LAMP_HEIGHT, LAMP_DEPTH, colour, downward=True)
        for x, colour in (*burning, (16.0, 20.0 * WARM))
    ]
    return lamps, [dead, -17.0]


def paint_curb_line(
    layer: Layer, lamps: Sequence[Light], dead_lamps: Sequence[float], rng: np.random.Generator
) -> Array:
    """
    Draw lamp posts, trees and bollards; return the lamps' glow (rows, columns, 3) uint8.

    :param dead_lamps: where lamps stand that do not burn, in metres.
    """
    for at in (*(lamp.x for lamp in lamps), *dead_lamps):
        for area in (
            layer.box(at - 0.06, at + 0.06, 0.0, LAMP_HEIGHT),
            layer.box(at - 0.11, at + 0.11, 0.0, 0.9),
        ):
            layer.paint(area, (0.07, 0.075, 0.07), AIR + 10, cover=True)
        layer.paint(_lamp_head(layer, at), 0.2, AIR, cover=True)
    glow = np.zeros_like(layer.emission)
    x, y = np.meshgrid(layer.x, layer.y)
    for lamp in lamps:
        at = lamp.x
        bulb = layer.box(at - 0.34, at + 0.34, LAMP_HEIGHT - 0.05, LAMP_HEIGHT + 0.04)
        colour = 14.0 * lamp.colour / lamp.colour.max()
        layer.paint(bulb, heat=9350.0, emission=colour, cover=True)
        layer.paint(_lamp_head(layer, at), heat=8800.0)
        square = (x - at) ** 2 + (y - LAMP_HEIGHT) ** 2
        halo = 0.9 * np.exp(-square / 0.10) + 0.11 / (1 + square / 0.4) ** 1.6
        glow += (halo * np.exp(-square / 9.0))[..., np.newaxis] * lamp.colour

    for at in (-9.3, -1.1, 6.3, 12.6):
        _paint_tree(layer, at + float(rng.uniform(-0.4, 0.4)), rng)
    for at in np.arange(-20.5, 21.0, 2.05):
        stem = layer.box(at - 0.07, at + 0.07, 0.0, 0.8)
        across = np.abs(layer.x[stem[1]] - at) / 0.07
        layer.paint(stem, (0.3 * (1.1 - 0.6 * across))[:, np.newaxis], AIR + 60, cover=True)
        layer.paint(layer.box(at - 0.07, at + 0.07, 0.6, 0.7), (0.55, 0.6, 0.65))
    return np.clip(np.rint(150.0 * glow), 0, 255).astype(np.uint8)


def _lamp_head(layer: Layer, at: float) -> tuple[slice, slice]:
    return layer.box(at - 0.42, at + 0.42, LAMP_HEIGHT + 0.02, LAMP_HEIGHT + 0.16)


def _paint_tree(layer: Layer, at: float, rng: np.random.Generator) -> None:
    rows, columns = layer.heat.shape
    bark: Array = np.zeros((rows, columns), np.uint8)
    lean = float(rng.uniform(-0.2, 0.2))
    trunk = [(at - 0.17, 0.0), (at + 0.17, 0.0), (at + lean + 0.1, 3.4), (at + lean - 0.1, 3.4)]
    cv2.fillPoly(bark, [layer.points(trunk)], 255, shift=4)
    thickness = max(1, round(0.09 * layer.scale))
    for angle in (-0.9, -0.45, 0.1, 0.55, 1.0):
        start = (at + lean * 0.8, 2.4 + 0.4 * math.cos(angle))
        end = (start[0] + 1.5 * math.sin(angle), start[1] + 1.9 * math.cos(angle))
        (x0, y0), (x1, y1) = layer.points([start, end]).tolist()
        cv2.line(bark, (x0, y0), (x1, y1), 255, thickness, shift=4)
    wood = bark > 0
    grain = value_noise(rng, rows, columns, 0.12 * layer.scale, 2)[wood]
    albedo = (0.13 * (1 + 0.5 * grain))[:, np.newaxis] * bgr(0.75, 0.9, 1.0)
    layer.paint(wood, albedo, AIR + 50 + 12 * grain, cover=True)

    x, y = np.meshgrid(layer.x, layer.y)
    crown = np.zeros((rows, columns), np.float32)
    for _ in range(7):
        dx, dy = float(rng.uniform(-1.1, 1.1)), float(rng.uniform(3.4, 5.4))
        radius = float(rng.uniform(0.7, 1.1))
        distance = ((x - at - lean - dx) / radius) ** 2 + ((y - dy) / (0.8 * radius)) ** 2
        crown = np.maximum(crown, 1.0 - distance)
    leaves = value_noise(rng, rows, columns, 0.30 * layer.scale, 3)
    clumps = value_noise(rng, rows, columns, 0.75 * layer.scale, 2)
    foliage = (crown > 0) & (crown + 0.8 * leaves > 0.30)
    shade = np.clip(0.55 + 0.45 * clumps + 0.5 * leaves, 0.12, 1.6)[foliage]
    albedo = 0.16 * shade[:, np.newaxis] * bgr(0.30, 0.95, 0.62)
    heat = AIR - 30 + 25 * clumps[foliage] + 18 * leaves[foliage]
    layer.paint(foliage, albedo, heat, emission=0.0, cover=True)
