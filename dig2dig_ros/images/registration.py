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
The geometry of a thermal and a visible camera: which thermal pixel shows what a visible one does.

Two cameras without a common optical centre agree by a homography for what lies in one plane, and
for everything where it is far away compared with their distance from each other. So a
registration is a homography, with the lens distortion of both cameras where it is known.

Conventions, in addition to those of :mod:`~dig2dig_ros.images.geometry`:

- Frames of cameras are optical frames as in ROS (REP 103): x right, y down, z forward, in m.
- Rotation R and translation t take points of the thermal frame into the visible one,
  ``X_visible = R @ X_thermal + t``: the pose of the thermal camera in the visible optical frame,
  as ``ros2 run tf2_ros tf2_echo VISIBLE_OPTICAL_FRAME THERMAL_OPTICAL_FRAME`` prints it.
- The plane is that of the points at z = plane distance in the visible frame.
- Ideal pixels are those of :mod:`~dig2dig_ros.images.camera_model`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from dig2dig_ros.images.camera_model import CameraModel
from dig2dig_ros.images.geometry import (
    Array,
    as_points,
    checked_size,
    finite_array,
    nearest_rotation,
    RegistrationError,
    Size,
)
from dig2dig_ros.images.placement import Placement

# Local scale of a homography, visible pixels per thermal pixel.
_MOST_SCALE = 50.0
# Grid positions outside of the image: at most this, to be finite for grid_sample.
_FAR = 10.0
# Rows of the visible image at a time, so that intermediate results stay in the caches.
_BAND = 32
# Pixels over which a thermal image fades out where it ends, where nobody asks for others.
SOFT_EDGE = 16.0


@dataclass(frozen=True, eq=False)
class Registration:
    """
    How the pixels of a thermal camera lie on those of a visible one.

    :param thermal_to_visible: (3, 3) homography that takes a thermal pixel (x, y, 1) to a visible
        one, up to a factor; of ideal pixels for a camera that is given.
    :param thermal_size: (width, height) of the thermal images; likewise ``visible_size``.
    :param thermal_camera: None where the image has no distortion, or the homography comes from
        images with it; likewise the visible one.
    :param estimate: how this was found, for people: numbers, texts, lists and mappings.
    :raises RegistrationError: the homography is not invertible, mirrors the thermal image, sends
        part of it to infinity or scales it by less than 1/50 or more than 50 (at the corners, but
        only at the centre of a fisheye, whose corners may be outside of any plane); or a size is
        none, or not that of the camera.
    """

    thermal_to_visible: Array
    thermal_size: Size
    visible_size: Size
    thermal_camera: CameraModel | None = None
    visible_camera: CameraModel | None = None
    estimate: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the values and keep read-only copies of them."""
        matrix = finite_array(self.thermal_to_visible, (3, 3), 'thermal_to_visible')
        object.__setattr__(self, 'thermal_to_visible', matrix)
        for name in ('thermal', 'visible'):
            size = checked_size(getattr(self, f'{name}_size'), f'{name}_size')
            object.__setattr__(self, f'{name}_size', size)
            camera = getattr(self, f'{name}_camera')
            if camera is not None and camera.size != size:
                raise RegistrationError(
                    f'{name}_size is {_times(size)}, but the size of {name}_camera is '
                    f'{_times(camera.size)}: they must be the same'
                )
        self._check_homography()

    @classmethod
    def from_cameras(
        cls,
        visible: CameraModel,
        thermal: CameraModel,
        rotation: ArrayLike,
        translation: ArrayLike,
        plane_distance: float,
    ) -> Registration:
        """
        Take what lies in a plane parallel to the visible image plane, from calibrated cameras.

        The homography that a plane induces (Hartley and Zisserman 2004, section 13.1).

        :param rotation: (3, 3), from the thermal optical frame into the visible one.
        :param translation: (3,) in m, of the thermal camera in the visible optical frame.
        :param plane_distance: in m, in front of both cameras; infinity is a distance, too.
            :func:`plane_error` returns how far off other distances then are.
        :raises RegistrationError: no rotation, no such plane, or cameras that cannot be overlaid.
        """
        turn = nearest_rotation(rotation, 'the rotation between the cameras')
        shift = finite_array(translation, (3,), 'the translation between the cameras')
        depth = _plane_depth(plane_distance, shift)
        # In the thermal frame, the plane is where turn[2] @ X = depth.
        ideal = visible.matrix @ (turn + np.outer(shift, turn[2]) / depth)
        matrix = ideal @ np.linalg.inv(thermal.matrix)
        return cls(matrix, thermal.size, visible.size, thermal, visible)

    def check_sizes(self, visible_size: Size, thermal_size: Size) -> None:
        """
        Check that images are of the sizes, (width, height), that this registration is for.

        :raises RegistrationError: they are not.
        """
        if (visible_size, thermal_size) != (self.visible_size, self.thermal_size):
            raise RegistrationError(
                f'the registration is for visible images of {_times(self.visible_size)} and '
                f'thermal ones of {_times(self.thermal_size)} pixels, but they are '
                f'{_times(visible_size)} and {_times(thermal_size)}: register the cameras at '
                'these sizes, or set them back'
            )

    def to_visible(self, points: ArrayLike) -> Array:
        """
        Return the visible pixels of thermal ones.

        :param points: (N, 2) thermal pixels, (x, y), with the distortion of the image.
        :return: (N, 2) visible pixels, likewise, inside of the image or not; NaN for what a
            camera does not see.
        """
        ideal = as_points(points)
        if self.thermal_camera is not None:
            ideal = self.thermal_camera.undistorted(ideal)
        ideal = _in_front(self._homography, ideal)
        return ideal if self.visible_camera is None else self.visible_camera.distorted(ideal)

    def to_thermal(self, points: ArrayLike) -> Array:
        """Return the thermal pixels of visible ones, the inverse of :meth:`to_visible`."""
        ideal = as_points(points)
        if self.visible_camera is not None:
            ideal = self.visible_camera.undistorted(ideal)
        ideal = _in_front(self._inverse, ideal)
        return ideal if self.thermal_camera is None else self.thermal_camera.distorted(ideal)

    def placement(self, edge: float = SOFT_EDGE) -> Placement:
        """
        Return where each visible pixel lies in the thermal image.

        :param edge: width in visible pixels, at least 0, over which the coverage falls to 0 at
            the border of the thermal image. At the border of the visible image it does not.
        :raises RegistrationError: the thermal image reaches no visible pixel, or the edge is no
            such width.
        """
        if not (math.isfinite(edge) and edge >= 0.0):
            raise RegistrationError(f'the soft edge is {edge:g} pixels, but must be 0 or more')
        width, height = self.visible_size
        size = np.array(self.thermal_size, float)
        grid = np.empty((height, width, 2), np.float32)
        for top in range(0, height, _BAND):
            bottom = min(height, top + _BAND)
            y, x = np.mgrid[top:bottom, :width]
            thermal = self.to_thermal(np.stack([x.ravel(), y.ravel()], axis=1))
            normalised = ((2.0 * thermal + 1.0) / size - 1.0).reshape(-1, width, 2)
            grid[top:bottom] = np.clip(normalised, -_FAR, _FAR)
        grid[np.isnan(grid[:, :, 0])] = _FAR
        reached = (np.abs(grid[:, :, 0]) <= 1.0) & (np.abs(grid[:, :, 1]) <= 1.0)
        if not reached.any():
            raise RegistrationError(
                'the thermal image reaches no pixel of the visible one: check the registration; '
                'of extrinsics, that they are from the thermal optical frame into the visible one'
            )
        return Placement(grid, _soft_edge(reached, edge), self.thermal_size)

    @cached_property
    def _homography(self) -> Array:
        """Return the homography with the factor that makes depths positive."""
        (centre,) = self._checked_points()[:1]
        depth = float(self.thermal_to_visible[2] @ (*centre, 1.0))
        return self.thermal_to_visible / depth

    @cached_property
    def _inverse(self) -> Array:
        return np.linalg.inv(self._homography).astype(np.float64)

    def _checked_points(self) -> Array:
        """Return ideal pixels of the thermal image: the centre first, then the corners."""
        width, height = self.thermal_size
        right, bottom = width - 1.0, height - 1.0
        centre = (0.5 * right, 0.5 * bottom)
        points = np.array([centre, (0, 0), (right, 0), (0, bottom), (right, bottom)])
        if self.thermal_camera is None:
            return points
        if self.thermal_camera.model == 'equidistant':
            points = points[:1]
        points = self.thermal_camera.undistorted(points)
        if np.isnan(points[0]).any():
            raise RegistrationError(
                'the distortion of thermal_camera folds the image back before its centre: '
                'calibrate it again'
            )
        return points[~np.isnan(points).any(axis=1)]

    def _check_homography(self) -> None:
        points = self._checked_points()
        matrix = self.thermal_to_visible
        homogeneous = np.column_stack([points, np.ones(len(points))]) @ matrix.T
        depth = homogeneous[:, 2] * np.sign(homogeneous[0, 2])
        if not (depth > 0.0).all():
            raise RegistrationError(
                'thermal_to_visible sends part of the thermal image to infinity: its last row '
                'must be nearly [0, 0, 1], up to a factor'
            )
        images = homogeneous[:, :2] / homogeneous[:, 2:]
        # Derivatives of the images by the points, (N, 2, 2).
        slopes = matrix[:2, :2] - images[:, :, None] * matrix[2, :2]
        slopes = slopes / homogeneous[:, 2, None, None]
        scales = np.linalg.svd(slopes, compute_uv=False)
        if scales.min() < 1e-9:
            raise RegistrationError('thermal_to_visible is not invertible: register again')
        if (np.linalg.det(slopes) < 0.0).any():
            raise RegistrationError(
                'thermal_to_visible mirrors the thermal image: mirror it in its driver, or '
                'check the order of the rows and columns'
            )
        if scales.max() > _MOST_SCALE or scales.min() < 1.0 / _MOST_SCALE:
            raise RegistrationError(
                f'thermal_to_visible scales the thermal image by {scales.min():.3g} to '
                f'{scales.max():.3g}, which is not within 1/50 and 50: check that it takes '
                'thermal pixels to visible ones'
            )


def plane_error(
    visible: CameraModel, translation: ArrayLike, plane_distance: float, distance: float
) -> float:
    """
    Return by how many visible pixels things off the plane miss their place.

    That is the parallax on the axis of the visible camera; how the thermal camera is turned does
    not matter.

    :param translation: (3,) in m, of the thermal camera in the visible optical frame.
    :param plane_distance: in m, as of :meth:`Registration.from_cameras`.
    :param distance: of the things, in m.
    :raises RegistrationError: a distance is not in front of both cameras.
    """
    shift = finite_array(translation, (3,), 'the translation between the cameras')
    depth = _plane_depth(plane_distance, shift)
    _plane_depth(distance, shift)
    # The homography by one plane after the inverse of that by the other is
    # I + part * outer(shift, (0, 0, 1)) in rays of the visible camera.
    if math.isinf(plane_distance):
        part = -1.0 / distance
    else:
        part = (1.0 - plane_distance / distance) / depth
    rays = part * shift[:2] / (1.0 + part * shift[2])
    return math.hypot(*(rays * visible.focal_lengths))


def _in_front(homography: Array, points: Array) -> Array:
    """Apply a homography to (N, 2) points; NaN where the depth is not above 0."""
    x, y = points.T
    (a, b, c), (d, e, f), (g, h, i) = homography
    depth = g * x + h * y + i
    with np.errstate(all='ignore'):
        depth = np.where(depth > 0.0, depth, np.nan)
        return np.stack([(a * x + b * y + c) / depth, (d * x + e * y + f) / depth], axis=1)


def _soft_edge(reached: NDArray[np.bool_], edge: float) -> NDArray[np.float32]:
    """Return the coverage: a smooth step over ``edge`` pixels inside the border of a region."""
    if edge == 0.0 or reached.all():
        return reached.astype(np.float32)
    distance = cv2.distanceTransform(reached.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    # The distance is to the centre of the next pixel outside, half a pixel beyond the border.
    ramp = np.clip((distance - np.float32(0.5)) / np.float32(edge), 0.0, 1.0)
    return np.asarray(ramp * ramp * (3.0 - 2.0 * ramp), np.float32)


def _plane_depth(distance: float, translation: Array) -> float:
    """Return the distance of the thermal camera from a plane, checked."""
    depth = float(distance) - float(translation[2])
    if not (distance > 0.0 and depth > 0.0):
        raise RegistrationError(
            f'a distance of {distance:g} m is not in front of both cameras, of which the thermal '
            f'one is at {translation[2]:g} m: it is measured from the visible camera, forward'
        )
    return depth


def _times(size: Size) -> str:
    return f'{size[0]}x{size[1]}'
