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
Two cameras that share one pinhole, each with its own geometry, lens and sensor.

Their images of a scene are deterministic, and the true geometry is known.

Pixels are (x, y) with their centres at integers, as in :mod:`dig2dig_ros.images.registration`;
an *ideal* pixel is where a camera would show a point if its lens had no distortion.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dig2dig_ros.evaluation.synthetic_scene import SyntheticScene
from dig2dig_ros.images.geometry import resizing, similarity, translation
from dig2dig_ros.streams.pairing import Source, SOURCES

Array = NDArray[Any]
Size = tuple[int, int]

# Tangent of the angle to the axis: 76 degrees.
_WIDEST = 4.0
_MOST_MARGIN = 0.5  # of the width or height, on every side


class ImperfectionError(ValueError):
    """An imperfection is impossible or not understood; the message says what to do."""


@dataclass(frozen=True)
class Warp:
    """
    How the thermal image lies in the visible one: about its centre, then shifted.

    :param rotation: of the thermal camera about its axis in degrees, clockwise as seen from
        behind the camera.
    :param scale: visible widths that the thermal image is wide; more than 1 is a wider field.
    :param shift_x: of the thermal image's centre, to the right, in visible widths.
    :param shift_y: downward, in visible heights.
    """

    rotation: float = 0.0
    scale: float = 1.0
    shift_x: float = 0.0
    shift_y: float = 0.0


@dataclass(frozen=True)
class Flaws:
    """
    The flaws of one camera's lens and sensor.

    :param distortion: (k1, k2), radial, as in the model plumb_bob.
    :param blur: standard deviation of a Gaussian, in pixels before down-sampling.
    :param noise: standard deviation of white noise: grey levels of 255 in visible images, counts
        in thermal ones of 16 bits, grey levels in those of 8.
    """

    distortion: tuple[float, float] = (0.0, 0.0)
    blur: float = 0.0
    noise: float = 0.0


@dataclass(frozen=True, eq=False)
class CameraGeometry:
    """
    The ``camera_info`` and the extrinsics of a camera.

    :param matrix: (3, 3), of ideal pixels.
    :param distortion: (5,), of the model plumb_bob.
    :param size: (width, height) in pixels.
    :param rotation: (3, 3), takes directions of this camera's optical frame (x right, y down, z
        forward) into the visible camera's; both have one optical centre.
    :param model: name of the distortion model.
    """

    matrix: NDArray[np.float64]
    distortion: NDArray[np.float64]
    size: Size
    rotation: NDArray[np.float64]
    model: str = 'plumb_bob'

    def resized(self, size: Size) -> CameraGeometry:
        """Return the same camera with its images resized to (width, height)."""
        return replace(self, matrix=resizing(self.size, size) @ self.matrix, size=size)


def true_homography(warp: Warp, thermal_size: Size, visible_size: Size) -> NDArray[np.float64]:
    """
    Return (3, 3), from ideal thermal pixels (x, y, 1) to ideal visible ones.

    Without a warp both images show the same field, whatever their sizes (width, height).
    """
    width, height = visible_size
    x, y = (width - 1) / 2, (height - 1) / 2
    turn = similarity(math.radians(warp.rotation), warp.scale)
    there = translation(x + warp.shift_x * width, y + warp.shift_y * height)
    return there @ turn @ translation(-x, -y) @ resizing(thermal_size, visible_size)


class ImperfectCameras:
    """
    A visible and a thermal camera with one optical centre, which look at one scene.

    :param visible_size: (width, height) of the visible images.
    :param thermal_size: of the thermal ones; as the visible ones by default.
    :param warp: how the thermal image lies in the visible one.
    :param visible: flaws of the visible camera.
    :param thermal: flaws of the thermal camera.
    :param with_margin: the scene is as large as ``scene_size`` says; otherwise it ends where the
        undistorted visible image does, and what is beyond is mirrored.
    :param seed: of the noise.
    :raises ImperfectionError: a lens would fold its image over.
    """

    def __init__(
        self,
        visible_size: Size,
        thermal_size: Size | None = None,
        *,
        warp: Warp = Warp(),
        visible: Flaws = Flaws(),
        thermal: Flaws = Flaws(),
        with_margin: bool = False,
        seed: int = 0,
    ) -> None:
        self._flaws: dict[Source, Flaws] = {'visible': visible, 'thermal': thermal}
        self._seed = seed
        self._visible_size = visible_size
        sizes: dict[Source, Size] = {
            'visible': visible_size,
            'thermal': thermal_size or visible_size,
        }
        self.homography = true_homography(warp, sizes['thermal'], visible_size)
        self._to_visible: dict[Source, Array] = {'visible': np.eye(3), 'thermal': self.homography}
        self._margin = (0, 0)
        self._make_cameras(sizes, warp)
        if with_margin:
            # A larger scene has a longer focal length, and so a lens distorts less.
            for _ in range(4):
                self._margin = self._needed_margin()
                self._make_cameras(sizes, warp)
        for source in SOURCES:
            self._require_unfolded(source)
        self._ways: dict[tuple[Source, Size], Array | tuple[slice, slice]] = {}

    @property
    def scene_size(self) -> Size:
        """Return (width, height) of the scene to render, the visible image in its centre."""
        (width, height), (x, y) = self._visible_size, self._margin
        return width + 2 * x, height + 2 * y

    def geometry(self, source: Source) -> CameraGeometry:
        """Return a camera; matrices and rotations of the two reproduce ``homography``."""
        return self._cameras[source]

    def look(self, source: Source, scene: Array, frame: int = 0) -> Array:
        """
        Return a camera's image of its view of the scene.

        :param scene: (H, W) or (H, W, 3), uint8 or uint16, of the field that ``scene_size``
            stands for, in any resolution; resolved finer than the camera, its pixels are averaged.
        :param frame: number of the image; each has noise of its own.
        :return: the image of the camera's size and the scene's type; the scene itself if nothing
            has to change.
        """
        flaws = self._flaws[source]
        width, height = self._cameras[source].size
        rows, columns = scene.shape[:2]
        field_width, field_height = self.scene_size
        image = scene
        # Whole pixels of the scene's resolution to average make the geometry exact.
        fine = max(
            columns * self._visible_size[0] / (field_width * width),
            rows * self._visible_size[1] / (field_height * height),
        )
        factor = max(1, round(fine))
        way = self._way(source, (columns, rows), factor)
        if isinstance(way, tuple):
            image = image[way]
        else:
            image = cv2.remap(
                image.astype(np.float32), way, None, cv2.INTER_CUBIC,
                borderMode=cv2.BORDER_REFLECT_101,
            )  # fmt: skip
        if flaws.blur > 0 or factor > 1 or flaws.noise > 0:
            image = image.astype(np.float32)
        if flaws.blur > 0:
            image = cv2.GaussianBlur(image, (0, 0), flaws.blur, borderType=cv2.BORDER_REFLECT_101)
        if factor > 1:
            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        if flaws.noise > 0:
            draw = np.random.default_rng([self._seed, SOURCES.index(source), frame])
            image = image + flaws.noise * draw.standard_normal(image.shape, np.float32)
        return of_type(image, scene.dtype)

    def _make_cameras(self, sizes: dict[Source, Size], warp: Warp) -> None:
        width, height = self._visible_size
        focal = SyntheticScene.focal_length(self.scene_size[1])
        matrix = np.array([[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]])
        turn = similarity(math.radians(warp.rotation), 1.0)
        seen = np.linalg.inv(self.homography) @ matrix @ turn
        seen[0, 1] = seen[1, 0] = 0.0  # up to rounding
        matrices: dict[Source, Array] = {'visible': matrix, 'thermal': seen}
        rotations: dict[Source, Array] = {'visible': np.eye(3), 'thermal': turn}
        self._cameras: dict[Source, CameraGeometry] = {
            source: CameraGeometry(
                matrices[source],
                np.array([*self._flaws[source].distortion, 0.0, 0.0, 0.0]),
                sizes[source],
                rotations[source],
            )
            for source in SOURCES
        }

    def _needed_margin(self) -> tuple[int, int]:
        """Return by how many pixels on each side the cameras look past the visible image."""
        width, height = self._visible_size
        past = np.zeros(2)
        for source in SOURCES:
            across, down = self._cameras[source].size
            grid = np.meshgrid(
                np.linspace(-0.5, across - 0.5, 33), np.linspace(-0.5, down - 0.5, 33)
            )
            seen = self._ideal_visible(source, np.stack(grid, axis=-1).reshape(-1, 2))
            past = np.maximum(past, -0.5 - seen.min(axis=0))
            past = np.maximum(past, seen.max(axis=0) - (width - 0.5, height - 0.5))
        # Interpolation takes another two pixels.
        x, y = (math.ceil(p - 1e-6) + 2 if p > 1e-6 else 0 for p in past)
        return min(x, int(_MOST_MARGIN * width)), min(y, int(_MOST_MARGIN * height))

    def _ideal_visible(self, source: Source, points: Array) -> Array:
        """Return the ideal visible pixels (N, 2) of pixels (N, 2) of a camera."""
        camera = self._cameras[source]
        if camera.distortion.any():
            focal, centre = camera.matrix[[0, 1], [0, 1]], camera.matrix[:2, 2]
            seen = (points - centre) / focal
            radius = np.hypot(seen[:, 0], seen[:, 1])
            ideal, distorted = _radii(self._flaws[source].distortion)
            grown = np.interp(radius, distorted, ideal)
            ratio = np.divide(grown, radius, out=np.ones_like(radius), where=radius > 1e-9)
            points = seen * ratio[:, np.newaxis] * focal + centre
        return _applied(self._to_visible[source], points)

    def _require_unfolded(self, source: Source) -> None:
        camera = self._cameras[source]
        if not camera.distortion.any():
            return
        width, height = camera.size
        corners = np.array([(x, y) for x in (-0.5, width - 0.5) for y in (-0.5, height - 0.5)])
        seen = (corners - camera.matrix[:2, 2]) / camera.matrix[[0, 1], [0, 1]]
        reach = _radii(self._flaws[source].distortion)[1][-1]
        if np.hypot(seen[:, 0], seen[:, 1]).max() > 0.98 * reach:
            k1, k2 = self._flaws[source].distortion
            raise ImperfectionError(
                f'a {source} lens of k1 = {k1:g} and k2 = {k2:g} folds the corners of its image '
                'over: take smaller values'
            )

    def _way(self, source: Source, scene_size: Size, factor: int) -> Array | tuple[slice, slice]:
        """
        Return where in the scene each pixel is (H, W, 2), ``factor`` to the camera's pixel.

        Where nothing has to change, the part of the scene that is taken as it is.
        """
        key = (source, scene_size)
        if key in self._ways:
            return self._ways[key]
        width, height = (factor * side for side in self._cameras[source].size)
        to_camera = resizing((width, height), self._cameras[source].size)
        to_scene = resizing(self.scene_size, scene_size) @ translation(*self._margin)
        x, y = np.meshgrid(np.arange(width, dtype=float), np.arange(height, dtype=float))
        points = np.stack([x.ravel(), y.ravel()], axis=1)
        seen = self._ideal_visible(source, _applied(to_camera, points))
        seen = _applied(to_scene, seen)
        left, top = (int(start) for start in seen[0].round())
        if (
            np.abs(seen - points - (left, top)).max() < 1e-6
            and min(left, top) >= 0
            and left + width <= scene_size[0]
            and top + height <= scene_size[1]
        ):
            self._ways[key] = (slice(top, top + height), slice(left, left + width))
        else:
            self._ways[key] = seen.astype(np.float32).reshape(height, width, 2)
        return self._ways[key]


def _applied(affine: Array, points: Array) -> Array:
    """Return the points (N, 2) under an affine map (3, 3)."""
    return np.asarray(points @ affine[:2, :2].T + affine[:2, 2])


def _radii(distortion: tuple[float, float]) -> tuple[Array, Array]:
    """Return ideal and distorted radii, growing; in focal lengths, as far as the lens goes."""
    k1, k2 = distortion
    ideal = np.linspace(0.0, _WIDEST, 40_001)
    distorted = ideal * (1 + k1 * ideal**2 + k2 * ideal**4)
    turns = np.flatnonzero(np.diff(distorted) <= 0)
    end = len(ideal) if not len(turns) else int(turns[0]) + 1
    return ideal[:end], distorted[:end]


def of_type(image: Array, dtype: Any) -> Array:
    """Return an image rounded and clipped to a type of whole numbers."""
    if image.dtype == dtype:
        return image
    limits = np.iinfo(dtype)
    return np.asarray(np.clip(np.rint(image), limits.min, limits.max).astype(dtype))
