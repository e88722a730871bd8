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

Its modules: places, light and what is drawn on (``layout``), what stands still (``street``), what
moves (``figures``), the frame in the making and the two cameras (``sensors``).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, partial
import math

import cv2
import numpy as np
from numpy.typing import NDArray

from dig2dig_ros.evaluation.synthetic_scene.figures import Car, Figure, Stage, Walker
from dig2dig_ros.evaluation.synthetic_scene.layout import (
    bgr,
    CAMERA_HEIGHT,
    CURB_LINE,
    FACADE,
    FAR_LANE,
    Layer,
    LightAlong,
    NEAR_LANE,
    SKYLINE,
    value_noise,
    View,
)
from dig2dig_ros.evaluation.synthetic_scene.sensors import Box, Cameras, Canvas
from dig2dig_ros.evaluation.synthetic_scene.street import (
    FacadePainter,
    Ground,
    paint_curb_line,
    paint_skyline,
    street_lamps,
)

__all__ = ['Box', 'SceneFrame', 'SyntheticScene']

_PAINTS = (
    bgr(0.10, 0.10, 0.50), bgr(0.55, 0.55, 0.55), bgr(0.35, 0.20, 0.07), bgr(0.10, 0.40, 0.55),
    bgr(0.05, 0.05, 0.05), bgr(0.30, 0.33, 0.34),
)  # fmt: skip


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
        self._view = view = View(width, height)
        rng = np.random.default_rng(seed)
        # Half a metre a second at most, whatever the period.
        self._sway = min(1.6, 0.55 * period / (2 * math.pi)) if sways else 0.0
        lamps, dead_lamps = street_lamps(rng)

        # Down to where the ground begins: through the alleys one sees it stretch away.
        below = CAMERA_HEIGHT * (1 - SKYLINE / FACADE)
        self._skyline = Layer(view, SKYLINE, self._sway, below)
        paint_skyline(self._skyline, view, rng)
        self._skyline.develop([])
        self._facade = Layer(view, FACADE, self._sway, 0.0)
        painter = FacadePainter(self._facade, rng)
        painter.paint()
        # The windows of shops do not light the wall that they are in.
        self._facade.develop([*lamps, *(light for light in painter.lights if light.y > 2.5)])
        lights = [*lamps, *painter.lights]
        self._ground = Ground(view, self._sway, lights, rng)
        self._curb_line = Layer(view, CURB_LINE, self._sway, 0.0)
        self._glow = paint_curb_line(self._curb_line, lamps, dead_lamps, rng)
        self._curb_line.develop(lights)

        # At half a pedestrian's height.
        stage = Stage(view, period, self._sway, cache(partial(LightAlong, lights, 1.1)))
        self._figures = [*_walkers(stage, rng), *_cars(stage, rng)]
        # From far to near.
        self._figures.sort(key=lambda figure: -figure.z)
        self._cameras = Cameras(view, seed, rng)

    @staticmethod
    def focal_length(height: int) -> float:
        """Return the focal length in pixels of the cameras of an image of that height."""
        return View(height, height).focal

    def render(self, time_s: float, noise: bool = True) -> SceneFrame:
        """
        Return what both cameras see at ``time_s`` seconds.

        :param time_s: any time; the scene has no beginning.
        :param noise: whether the sensors add noise and the fixed pattern of the thermal one.
        """
        canvas = self._compose(time_s)
        return SceneFrame(*self._cameras.expose(canvas, time_s, noise), canvas.boxes())

    def people(self, time_s: float) -> NDArray[np.float32]:
        """
        Return where the pedestrians of the frame at ``time_s`` seconds are.

        :return: (H, W) in [0, 1], the part of each pixel that they cover, as sharp as the thermal
            lens shows them; all of them, also those without a box.
        """
        people = self._compose(time_s).people().astype(np.float32) / 255
        return np.asarray(self._cameras.through_thermal_lens(people), np.float32)

    def _compose(self, time_s: float) -> Canvas:
        """Draw what is before the lenses at ``time_s`` seconds."""
        camera = self._sway * math.sin(2 * math.pi * time_s / self.period)
        canvas = Canvas(self._view)
        for backdrop in (self._skyline, self._facade, self._ground):
            backdrop.draw(canvas.visible, canvas.thermal, camera)
        # The row of trees and lamps is one of the depths.
        for figure in (figure for figure in self._figures if figure.z >= CURB_LINE):
            figure.draw(canvas, time_s, camera)
        self._put_curb_line(canvas, camera)
        for figure in (figure for figure in self._figures if figure.z < CURB_LINE):
            figure.draw(canvas, time_s, camera)
        return canvas

    def _put_curb_line(self, canvas: Canvas, camera: float) -> None:
        layer = self._curb_line
        columns = layer.draw(canvas.visible, canvas.thermal, camera)
        rows = slice(0, layer.rows)
        canvas.cover((rows, slice(0, self._view.width)), layer.mask[:, columns])
        canvas.visible[rows] = cv2.add(canvas.visible[rows], self._glow[:, columns])


def _walkers(stage: Stage, rng: np.random.Generator) -> list[Figure]:
    scale = stage.view.scale(5.6)  # at the nearest point
    size = math.ceil(2.2 * 2 * 1.9 * scale) + 8
    cloth = value_noise(rng, size, size, 0.09 * scale, 3)
    walkers: list[Figure] = []
    for z, speed in ((14.9, 1.15), (13.75, -1.25), (7.0, 1.2), (5.8, -1.1)):
        lap = abs(speed) * stage.period
        count = max(1, round(lap / (5.6 if z > 10 else 8.0)))
        for index in range(count):
            start = (index + float(rng.uniform(0.15, 0.85))) * lap / count
            walkers.append(Walker(stage, z, speed, start, cloth, rng))
    for z, x in ((14.4, -2.7), (14.45, 5.6), (15.2, 1.3)):
        walkers.append(Walker(stage, z, 0.0, x, cloth, rng))
    return walkers


def _cars(stage: Stage, rng: np.random.Generator) -> list[Figure]:
    order = rng.permutation(len(_PAINTS))
    cars: list[Figure] = []
    for index, speed in enumerate((6.5, 6.5, -6.0)):
        lane = FAR_LANE if speed > 0 else NEAR_LANE
        start = abs(speed) * stage.period * (0.5 * index + float(rng.uniform(0.0, 0.35)))
        cars.append(Car(stage, lane, speed, start, _PAINTS[order[index]], index % 2, rng))
    cars.append(Car(stage, 12.3, 0.0, 7.6, _PAINTS[order[3]], 0, rng))
    return cars
