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

"""What moves in the street: cars and pedestrians, and the light and shadow that go with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
import math

import cv2
import numpy as np

from dig2dig_ros.evaluation.synthetic_scene.layout import (
    AIR,
    Array,
    bgr,
    display,
    LightAlong,
    Planes,
    Point,
    ROAD,
    smooth,
    tone,
    value_noise,
    View,
    WHITE,
)
from dig2dig_ros.evaluation.synthetic_scene.sensors import Canvas

_POSES = 28  # of a walker, per gait cycle
# How much finer figures are drawn than they are shown.
_FINER_CAR, _FINER_WALKER = 3, 2
_TAIL_LIGHT = bgr(0.1, 0.1, 1.0)


@dataclass(frozen=True)
class Stage:
    """
    What figures have to know of the street.

    :param period: seconds until everything is where it was.
    :param sway: of the camera, in metres to either side.
    :param light_at: the light along a depth.
    """

    view: View
    period: float
    sway: float
    light_at: Callable[[float], LightAlong]


class Figure:
    """
    Somebody or something at the depth ``z`` who moves at ``speed`` m/s to the right, or stands.

    :param start: metres to the right at time 0.
    """

    def __init__(self, stage: Stage, z: float, speed: float, start: float) -> None:
        self.z, self._stage, self._speed, self._start = z, stage, speed, start
        self._view = stage.view
        self._scale = stage.view.scale(z)
        self._foot = stage.view.row(0.0, z)
        self._lap = abs(speed) * stage.period
        # The side that faces the camera.
        self._light = stage.light_at(z - 0.5)
        self._reach = stage.view.width / 2 / self._scale + stage.sway

    def _place(self, time_s: float) -> float:
        """Return where it is, in metres; each comes again once a period."""
        if not self._speed:
            return self._start
        half = self._lap / 2
        return (self._start + self._speed * time_s + half) % self._lap - half

    def draw(self, canvas: Canvas, time_s: float, camera: float) -> None:
        """Draw what a camera at ``camera`` metres sees of it at ``time_s`` seconds."""
        raise NotImplementedError


def _area(plane: Array, columns: int, rows: int) -> Array:
    """Return a plane reduced to its size in the frame."""
    small: Array = cv2.resize(plane, (columns, rows), interpolation=cv2.INTER_AREA)
    return small


def _spot(values: Array, level: float, colour: Array | None = None) -> Array:
    """Return light (h, w, 3) of a colour, or shadow (h, w), as uint8."""
    spot = values * level if colour is None else values[..., np.newaxis] * colour * level
    return np.rint(np.minimum(spot, 255)).astype(np.uint8)


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


# Length, height, outlines of body and glass, pillars and doors of a hatchback and of a saloon, in
# metres from the rear to the front.
_MODELS: tuple[tuple[float, float, list[Point], list[Point], list[float], list[float]], ...] = (
    (4.2, 1.55,
     [(0.03, 0.4), (0.0, 0.8), (0.08, 1.05), (0.32, 1.42), (0.8, 1.53), (1.9, 1.53), (2.45, 1.42),
      (3.0, 1.05), (3.85, 0.92), (4.12, 0.75), (4.18, 0.42), (4.05, 0.26), (0.12, 0.26)],
     [(0.40, 1.06), (0.56, 1.34), (0.9, 1.44), (1.85, 1.44), (2.3, 1.35), (2.78, 1.04)],
     [0.98, 1.72], [0.95, 1.75, 2.75]),
    (4.6, 1.48,
     [(0.03, 0.4), (0.0, 0.78), (0.12, 0.97), (0.75, 1.02), (1.3, 1.40), (1.8, 1.46), (2.4, 1.44),
      (2.9, 1.30), (3.4, 0.98), (4.25, 0.88), (4.52, 0.7), (4.58, 0.4), (4.45, 0.26),
      (0.12, 0.26)],
     [(1.02, 1.03), (1.42, 1.33), (1.85, 1.38), (2.4, 1.37), (2.8, 1.25), (3.15, 1.0)],
     [2.05], [1.3, 2.08, 3.05]),
)  # fmt: skip


class Car(Figure):
    """
    A car in side view, drawn once; one that stands is parked, and cold.

    :param kind: a hatchback (0) or a saloon (1).
    """

    def __init__(
        self, stage: Stage, z: float, speed: float, start: float, paint: Array, kind: int,
        rng: np.random.Generator,
    ) -> None:  # fmt: skip
        super().__init__(stage, z, speed, start)
        self._length, height, body, glass, pillars, doors = _MODELS[kind]
        scale = self._scale
        self._columns = max(2, round((self._length + 0.4) * scale))
        self._rows = max(2, round((height + 0.1) * scale))
        size = (self._rows * _FINER_CAR, self._columns * _FINER_CAR)
        self._pixels = size[1] / (self._length + 0.4)
        self._x = (np.arange(size[1], dtype=np.float32) + 0.5)[np.newaxis, :] / self._pixels - 0.2
        y = (size[0] - np.arange(size[0], dtype=np.float32) - 0.5)[:, np.newaxis]
        self._y = y / self._pixels
        planes = Planes(size, ROAD)
        hull = self._shape(size, smooth(body))
        self._draw_body(planes, hull, paint)
        self._draw_glass(planes, hull, self._shape(size, smooth(glass, 1)), pillars)
        self._draw_trim(planes, hull, doors)
        self._draw_wheels(planes, hull)
        self._draw_lamps(planes, hull)
        planes.heat += 10 * value_noise(rng, size[0], size[1], 0.5 * scale * _FINER_CAR, 2)
        self._albedo, self._emission, self._heat, self._mask = (
            # They are drawn with the front to the right.
            _area(np.ascontiguousarray(p[:, ::-1]) if speed < 0 else p, self._columns, self._rows)
            for p in (planes.albedo, planes.emission, planes.heat, planes.mask)
        )
        self._mask3 = cv2.merge([self._mask] * 3)
        self._halo = _spot(_soft_disc(2.2 * scale, 2.2 * scale, 3.0), 210.0, WHITE)
        self._beam = _spot(_beam(6.5 * scale, 0.85 * scale), 130.0, WHITE)
        self._tail = _spot(_soft_disc(1.2 * scale, 1.2 * scale, 2.5), 150.0, _TAIL_LIGHT)
        self._wake = _spot(_soft_disc(3.2 * scale, 0.5 * scale, 1.3), 40.0, _TAIL_LIGHT)
        self._shadow = _spot(_soft_disc(5.2 * scale, 0.7 * scale, 0.6), 260.0)

    def _shape(self, size: tuple[int, int], metres: Sequence[Point]) -> Array:
        """Return which pixels a polygon covers."""
        shape: Array = np.zeros(size, np.uint8)
        points = [((x + 0.2) * self._pixels, size[0] - y * self._pixels) for x, y in metres]
        polygon = np.asarray(np.rint(np.asarray(points) * 16), np.int32)
        cv2.fillPoly(shape, [polygon], 255, shift=4)
        return shape > 0

    def _draw_body(self, planes: Planes, hull: Array, paint: Array) -> None:
        x, y = self._x, self._y
        # Light falls from above: the roof and the shoulder shine, the flanks fall off.
        shade = 0.38 + 0.75 * np.clip((y - 0.3) / 1.2, 0, 1) ** 1.5
        shade = shade + 0.55 * np.exp(-(((y - 0.9) / 0.05) ** 2)) + 0.0 * x
        # The bonnet and what lies under the front are warm from the engine.
        front = self._length - 0.75
        warmth = 1.0 if self._speed else 0.45
        engine = np.exp(-(((x - front) / 0.75) ** 2)) * np.exp(-(((y - 0.75) / 0.42) ** 2))
        cabin = 90 * np.exp(-(((y - 1.2) / 0.3) ** 2))
        heat = 7720 + warmth * 1000 * engine + warmth * cabin - 60 * np.abs(y - 0.8)
        planes.paint(hull, shade[hull][:, np.newaxis] * paint, heat[hull], cover=True)

    def _draw_glass(
        self, planes: Planes, hull: Array, panes: Array, pillars: Sequence[float]
    ) -> None:
        x, y = self._x, self._y
        sky = 0.02 + 0.09 * np.clip((y - 1.05) / 0.4, 0, 1) ** 2 + 0.0 * x
        albedo = sky[panes][:, np.newaxis] * bgr(1.1, 1.0, 0.9)
        planes.paint(panes, albedo, 8040 if self._speed else 7780)
        for pillar in pillars:
            planes.paint(hull & panes & (np.abs(x - pillar) < 0.04), 0.03)
        if self._speed:
            driver = np.hypot(x - self._length * 0.53, (y - 1.14) * 0.85) < 0.11
            planes.paint(driver & panes, (0.05, 0.07, 0.1))

    def _draw_trim(self, planes: Planes, hull: Array, doors: Sequence[float]) -> None:
        x, y = self._x, self._y
        for door in doors:
            planes.albedo[hull & (np.abs(x - door) < 0.012) & (y > 0.36) & (y < 1.0)] *= 0.3
        for door in doors[:2]:
            handle = (np.abs(x - door - 0.16) < 0.09) & (np.abs(y - 0.86) < 0.02)
            planes.paint(hull & handle, 0.4)
        planes.paint(hull & (y < 0.36), 0.025)

    def _draw_wheels(self, planes: Planes, hull: Array) -> None:
        x, y = self._x, self._y
        warm, cold = (8150, 8230, 8330, 8700), (7900, 7950, 7970, 7990)
        arch, tyre, rim, hub = warm if self._speed else cold
        for wheel in (0.83, self._length - 0.85):
            radius = np.hypot(x - wheel, y - 0.32)
            spokes = np.cos(5 * np.arctan2(y - 0.32, x - wheel)) > -0.2
            planes.paint(hull & (radius < 0.39), 0.008, arch)
            planes.paint(radius < 0.32, 0.03, tyre, cover=True)
            planes.paint(radius < 0.21, 0.10, rim)
            planes.paint((radius < 0.21) & spokes & (radius > 0.03), 0.42)
            planes.paint(radius < 0.12, heat=hub)

    def _draw_lamps(self, planes: Planes, hull: Array) -> None:
        x, y = self._x, self._y
        lamp = hull & (np.hypot((x - self._length + 0.12) / 1.9, y - 0.72) < 0.085)
        tail = hull & (np.hypot(x - 0.05, (y - 0.86) / 1.6) < 0.085)
        planes.paint(lamp, 0.6)
        planes.paint(tail, (0.05, 0.05, 0.4))
        if self._speed:
            planes.paint(lamp, heat=8500, emission=9.0 * WHITE)
            planes.paint(tail, emission=(0.03, 0.05, 2.2))
            exhaust = np.hypot(x - 0.16, y - 0.3) < 0.07
            planes.paint(hull & exhaust, heat=9250)

    def draw(self, canvas: Canvas, time_s: float, camera: float) -> None:
        """Draw the car with what its lights throw on the street."""
        x, scale = self._place(time_s), self._scale
        if abs(x) > self._reach + self._length / 2 + 5.0:
            return
        column, row = self._view.column(x - camera, self.z), self._foot
        ahead = -1.0 if self._speed < 0 else 1.0
        front = column + ahead * (self._length / 2 - 0.1) * scale
        rear = column - ahead * self._length / 2 * scale
        canvas.darken(self._shadow, column, row)
        if self._speed:
            beam = self._beam if ahead > 0 else self._beam[:, ::-1]
            reach = ahead * (beam.shape[1] / 2 + 0.3 * scale)
            canvas.shine(beam, front + reach, row + 0.05 * scale)
            canvas.shine(self._wake, rear, row)
        across = x + (np.arange(self._columns) + 0.5 - self._columns / 2) / scale
        picture = tone(self._albedo * self._light.at(across) + self._emission)
        picture = cv2.multiply(picture, self._mask3, scale=1 / 255)
        corner = (round(column - self._columns / 2), round(row - self._rows))
        canvas.put(corner, picture, self._heat, self._mask)
        if self._speed:
            canvas.shine(self._halo, front, row - 0.72 * scale)
            canvas.shine(self._tail, rear, row - 0.86 * scale)


# The parts of a pedestrian; those on the far side are darker.
_SKIN, _HAIR, _TOP, _FAR_TOP, _LEGS, _FAR_LEGS, _SHOES, _BAG, _SHIRT = range(1, 10)

# Lengths are in body heights. Outlines of what is worn on the head, from its middle.
_THIGH, _SHIN = 0.245, 0.235
_FRINGE = [(-0.06, 0.01), (-0.045, 0.055), (0.01, 0.074), (0.052, 0.04), (0.02, 0.032),
           (-0.012, -0.01)]  # fmt: skip
_HOOD = [(-0.07, -0.07), (-0.068, 0.03), (-0.01, 0.08), (0.03, 0.065), (0.0, -0.02),
         (0.0, -0.08)]  # fmt: skip


def _from(origin: Point, offsets: Sequence[Point]) -> list[Point]:
    return [(origin[0] + x, origin[1] + y) for x, y in offsets]


def _below(point: Point, angle: float, length: float) -> Point:
    return point[0] + length * math.sin(angle), point[1] - length * math.cos(angle)


class _Body:
    """
    One pose of a pedestrian, drawn into an image of part numbers; lengths in body heights.

    :param parts: (h, w) uint8 to draw into.
    :param origin: pixel between the feet.
    :param unit: pixels of a body height.
    :param speed: sign of the walk; who walks leans forward.
    :param limbs: angles of hip and knee of two legs, of shoulder and elbow of two arms.
    """

    def __init__(
        self, parts: Array, origin: Point, unit: float, speed: float, girth: float, limbs: Array
    ) -> None:
        self._parts, self._origin, self._unit = parts, origin, unit
        self._ahead = 1.0 if speed >= 0 else -1.0
        self._girth, self._limbs = girth, limbs
        drop = max(_THIGH * math.cos(a) + _SHIN * math.cos(a - bend) for a, bend in limbs[:2])
        self.hip = (0.0, drop + 0.035)
        self.shoulder = (0.022 if speed else 0.0, self.hip[1] + 0.30)
        neck = (self.shoulder[0] + 0.008, self.shoulder[1] + 0.035)
        self.head = (neck[0] + 0.012, neck[1] + 0.075)

    def _pixel(self, point: Point) -> Point:
        x, y = self._origin
        return x + self._ahead * point[0] * self._unit, y - point[1] * self._unit

    def fill(self, part: int, points: Sequence[Point]) -> None:
        polygon = np.rint(np.asarray([self._pixel(p) for p in points]) * 16).astype(np.int32)
        cv2.fillPoly(self._parts, [polygon], part, shift=4)

    def disc(self, part: int, centre: Point, rx: float, ry: float) -> None:
        x, y = self._pixel(centre)
        axes = (max(1, round(rx * self._unit * 16)), max(1, round(ry * self._unit * 16)))
        at = (round(x * 16), round(y * 16))
        cv2.ellipse(self._parts, at, axes, 0, 0, 360, part, cv2.FILLED, shift=4)

    def limb(self, part: int, p: Point, q: Point, r0: float, r1: float) -> None:
        """Fill a cone with round ends of the radii ``r0`` at ``p`` and ``r1`` at ``q``."""
        dx, dy = q[0] - p[0], q[1] - p[1]
        length = math.hypot(dx, dy) or 1.0
        nx, ny = -dy / length, dx / length
        corners = [(p, r0), (q, r1), (q, -r1), (p, -r0)]
        self.fill(part, [(end[0] + nx * r, end[1] + ny * r) for end, r in corners])
        self.disc(part, p, r0, r0)
        self.disc(part, q, r1, r1)

    def leg(self, side: int, part: int) -> None:
        angle, bend = self._limbs[side]
        knee = _below(self.hip, angle, _THIGH)
        ankle = _below(knee, angle - bend, _SHIN)
        self.limb(part, self.hip, knee, 0.055 * self._girth, 0.040 * self._girth)
        self.limb(part, knee, ankle, 0.038 * self._girth, 0.027)
        tilt = (angle - bend) * 0.8
        toe = (ankle[0] + 0.085 * math.cos(tilt), ankle[1] - 0.018 + 0.085 * math.sin(tilt))
        self.limb(_SHOES, (ankle[0] - 0.012, ankle[1] - 0.014), toe, 0.022, 0.014)

    def arm(self, side: int, part: int) -> None:
        angle, bend = self._limbs[2 + side]
        start = (self.shoulder[0], self.shoulder[1] - 0.015)
        elbow = _below(start, angle, 0.165)
        hand = _below(elbow, angle + bend, 0.145)
        self.limb(part, start, elbow, 0.036 * self._girth, 0.029 * self._girth)
        self.limb(part, elbow, hand, 0.029 * self._girth, 0.022)
        self.disc(_SKIN, _below(hand, angle + bend, 0.018), 0.018, 0.021)

    def trunk(self) -> None:
        g, (hx, hy), (sx, sy) = self._girth, self.hip, self.shoulder
        chest = [(sx - 0.045, sy + 0.03), (sx + 0.045, sy + 0.03), (sx + 0.078 * g, sy - 0.035),
                 (sx + 0.080 * g, sy - 0.12), (hx + 0.066 * g, hy + 0.05),
                 (hx + 0.072 * g, hy - 0.03), (hx - 0.076 * g, hy - 0.03),
                 (hx - 0.066 * g, hy + 0.06), (sx - 0.085 * g, sy - 0.09),
                 (sx - 0.074 * g, sy - 0.01)]  # fmt: skip
        self.limb(_SKIN, (sx, sy + 0.01), self.head, 0.028, 0.03)
        self.fill(_TOP, smooth(chest, 1))
        shirt = [(0.02, 0.03), (0.05, 0.028), (0.045, -0.01)]
        self.fill(_SHIRT, _from(self.shoulder, shirt))

    def coat(self, flare: float) -> None:
        g, (x, y) = self._girth, self.hip
        left, right = (-0.11 * g + flare, y - 0.19), (0.10 * g + flare, y - 0.19)
        self.fill(_TOP, [(x + 0.07 * g, y + 0.02), right, left, (x - 0.074 * g, y + 0.02)])

    def face(self, hood: bool) -> None:
        x, y = self.head
        self.disc(_HAIR, (x - 0.010, y + 0.008), 0.058, 0.066)
        self.disc(_SKIN, (x + 0.012, y - 0.010), 0.044, 0.056)
        self.fill(_HAIR, _from(self.head, _FRINGE))
        if hood:
            self.fill(_TOP, _from(self.head, _HOOD))

    def bag(self) -> None:
        x, y = self.shoulder
        self.disc(_BAG, (x - 0.095 * self._girth, y - 0.12), 0.055, 0.105)


# Albedos of jackets, trousers and hair.
_TOPS = (
    bgr(0.35, 0.12, 0.06), bgr(0.08, 0.09, 0.45), bgr(0.40, 0.42, 0.45), bgr(0.06, 0.06, 0.07),
    bgr(0.12, 0.25, 0.12), bgr(0.15, 0.35, 0.50), bgr(0.07, 0.42, 0.55), bgr(0.28, 0.10, 0.30),
)  # fmt: skip
_TROUSERS = (
    bgr(0.22, 0.12, 0.07), bgr(0.05, 0.05, 0.05), bgr(0.16, 0.18, 0.22), bgr(0.12, 0.14, 0.16),
)  # fmt: skip
_HAIRS = (bgr(0.02, 0.03, 0.04), bgr(0.05, 0.09, 0.16), bgr(0.15, 0.3, 0.4))


class Walker(Figure):
    """
    A pedestrian, dressed at random.

    :param cloth: its texture, at least as large as a pose is drawn.
    """

    def __init__(
        self, stage: Stage, z: float, speed: float, start: float, cloth: Array,
        rng: np.random.Generator,
    ) -> None:  # fmt: skip
        super().__init__(stage, z, speed, start)
        # Counts of skin, hair, jacket, trousers, shoes, bag: thick clothing keeps heat inside.
        warmth = np.array([9260, 8760, 8640, 8820, 8350, 8080]) + rng.uniform(-70, 70, 6)
        self._size, self._girth = float(rng.uniform(1.62, 1.88)), float(rng.uniform(0.92, 1.15))
        self._coat, self._hood, self._bag = (rng.random() < share for share in (0.35, 0.25, 0.4))
        top, legs, hair = (kind[rng.integers(len(kind))] for kind in (_TOPS, _TROUSERS, _HAIRS))
        skin = bgr(0.25, 0.36, 0.55) * float(rng.uniform(0.5, 1.05))
        # Phase of the gait at time 0.
        self._cycle = float(rng.random()) if speed else 0.0
        # A whole number of gait cycles in a period keeps the loop closed.
        self._cycles = max(1, round(self._lap / (1.45 * self._size / 1.75)))
        self._cloth = cloth
        self._body = self._size * self._scale
        self._columns = 2 * math.ceil(0.32 * self._body) + 2
        self._rows = math.ceil(1.04 * self._body) + 2
        self._poses: dict[int, tuple[Array, Array, Array]] = {}
        # Albedo and counts by part; the first is none.
        none, shoes, shirt = bgr(0, 0, 0), bgr(0.10, 0.10, 0.11), bgr(0.5, 0.5, 0.5)
        self._albedo = np.array(
            [none, skin, hair, top, top * 0.55, legs, legs * 0.55, shoes, top[::-1] * 0.6, shirt]
        )
        face, head, jacket, trousers, feet, bag = warmth
        counts = [AIR, face, head, jacket, jacket - 60, trousers, trousers - 70, feet, bag]
        self._heat = np.array([*counts, face - 160], np.float32)
        self._shadow = _spot(_soft_disc(1.1 * self._scale, 0.24 * self._scale, 0.8), 170.0)

    def _places(self, time_s: float) -> list[float]:
        """Return all places in view; a short lap repeats in it."""
        place, half = self._place(time_s), self._reach + 1.0
        if not self._speed:
            return [place]
        reach = math.ceil(half / self._lap + 0.5)
        places = [place + k * self._lap for k in range(-reach, reach + 1)]
        return [x for x in places if abs(x) <= half]

    def _limbs(self, phase: float) -> Array:
        """Return the angles of hip and knee of two legs, of shoulder and elbow of two arms."""
        if not self._speed:
            sway = 0.05 * math.sin(phase)
            return np.array([[0.05, 0.04], [-0.06, 0.03], [0.1 + sway, 0.9], [-0.05, 0.2]])
        limbs = []
        for side in (phase, phase + math.pi):
            swing = max(0.0, math.cos(side))
            limbs.append((0.47 * math.sin(side) + 0.06, 0.10 + 0.85 * swing**1.6))
        for side in (phase + math.pi, phase):
            limbs.append((0.42 * math.sin(side), 0.35 + 0.2 * math.sin(side)))
        return np.array(limbs)

    def _parts(self, phase: float) -> Array:
        """Return the number of the part at each pixel of a pose, far side drawn first."""
        height, width = self._rows * _FINER_WALKER, self._columns * _FINER_WALKER
        parts: Array = np.zeros((height, width), np.uint8)
        feet = (width / 2, height - 1.0 * _FINER_WALKER)
        unit, limbs = self._body * _FINER_WALKER, self._limbs(phase)
        body = _Body(parts, feet, unit, self._speed, self._girth, limbs)
        body.arm(1, _FAR_TOP)
        body.leg(1, _FAR_LEGS)
        body.leg(0, _LEGS)
        if self._bag:
            body.bag()
        if self._coat:
            body.coat(0.03 * math.sin(phase))
        body.trunk()
        body.face(self._hood)
        body.arm(0, _TOP)
        return parts

    def _pose(self, index: int) -> tuple[Array, Array, Array]:
        """Return (colours under light 1, counts, coverage) of one phase of the gait."""
        if index in self._poses:
            return self._poses[index]
        parts = self._parts(2 * math.pi * index / _POSES)
        covered = cv2.threshold(parts, 0, 255, cv2.THRESH_BINARY)[1]
        # Round bodies: less light and less heat where the surface turns away.
        reach = max(3, int(0.075 * self._body * _FINER_WALKER) | 1)
        volume = cv2.blur(covered, (reach, reach)).astype(np.float32) / 255
        cloth = self._cloth[: parts.shape[0], : parts.shape[1]]
        shade = (0.70 * volume + 0.76 + 0.19 * cloth)[..., np.newaxis] / 1.38
        picture = display(self._albedo)[parts] * shade
        heat = self._heat[parts] + 230 * (volume - 1) + 38 * cloth
        heat = np.where(parts > 0, heat, self._heat[_TOP]).astype(np.float32)
        picture, heat, mask = (
            _area(plane, self._columns, self._rows) for plane in (picture, heat, covered)
        )
        self._poses[index] = (np.clip(np.rint(picture), 0, 255).astype(np.uint8), heat, mask)
        return self._poses[index]

    def draw(self, canvas: Canvas, time_s: float, camera: float) -> None:
        """Draw the pedestrian in the light of that place, with a shadow on the ground."""
        turn = self._cycles * time_s / self._stage.period + self._cycle
        picture, heat, mask = self._pose(round(turn * _POSES) % _POSES)
        for x in self._places(time_s):
            column = self._view.column(x - camera, self.z)
            canvas.darken(self._shadow, column, self._foot)
            # The display's gamma turns a product of light and albedo into another product.
            gain = np.minimum(self._light.at(x), 1.5) ** (1 / 2.2)
            lit = cv2.multiply(picture, (*map(float, gain), 0.0))
            corner = (round(column - self._columns / 2), round(self._foot) - self._rows + 1)
            canvas.put(corner, lit, heat, mask, pedestrian=True)
