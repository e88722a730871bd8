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

Conventions:

- Pixels are (x, y); centres are at integers, (0, 0) is the centre of the upper left pixel, and
  the image reaches from -0.5 to its width or height - 0.5.
- Frames of cameras are optical frames as in ROS (REP 103): x right, y down, z forward, in m.
- Rotation R and translation t take points of the thermal frame into the visible one,
  ``X_visible = R @ X_thermal + t``: the pose of the thermal camera in the visible optical frame,
  as ``ros2 run tf2_ros tf2_echo VISIBLE_OPTICAL_FRAME THERMAL_OPTICAL_FRAME`` prints it.
- The plane is that of the points at z = plane distance in the visible frame.
- An ideal pixel is where the camera would show a point if it had the same matrix and no
  distortion.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
import math
from numbers import Integral
from pathlib import Path
import re
import sys
from typing import Any

import cv2
import numpy as np
from numpy.polynomial import Polynomial
from numpy.typing import ArrayLike, NDArray
import yaml

from dig2dig_ros.images.placement import Placement

Array = NDArray[np.float64]

# Models of lens distortion, as in sensor_msgs/CameraInfo, and how many coefficients each has.
MODELS: dict[str, tuple[int, ...]] = {
    'none': (0,),
    'plumb_bob': (4, 5),
    'rational_polynomial': (8,),
    'equidistant': (4,),
}

# Bytes of a file; one that this package writes has a few thousand.
_LARGEST_FILE = 1_000_000
# The tangent of the widest angle to the axis that ideal pixels can tell; 89.4 degrees.
_WIDEST = 100.0
# Of points in units of the focal length: a millionth of a pixel where that is 1000 pixels.
_CONVERGED = 1e-9
_ITERATIONS = 30
# Local scale of a homography, visible pixels per thermal pixel.
_MOST_SCALE = 50.0
_ROTATION_TOLERANCE = 1e-3
# The farthest outside that a grid tells, and what cannot be told: finite, for grid_sample.
_FAR = 10.0
# Rows of the visible image at a time, so that intermediate results stay in the caches.
_BAND = 32


class RegistrationError(ValueError):
    """A registration is impossible, wrong or not for these images; the text says what to do."""


@dataclass(frozen=True, eq=False)
class CameraModel:
    """
    A calibrated camera: a pinhole and the distortion of its lens.

    Distortion is that of OpenCV and of sensor_msgs/CameraInfo: Brown's radial and tangential
    polynomials (``plumb_bob``), their quotient (``rational_polynomial``), and the polynomial in
    the angle to the axis of Kannala and Brandt (2006) for fisheyes (``equidistant``).

    These polynomials hold as far as they rise. Beyond, where an image would fold back onto
    itself, and further than 89.4 degrees from the axis, the camera counts as not seeing.

    :param matrix: (3, 3), of the focal lengths and the principal point in pixels; no skew.
    :param distortion: coefficients in the order of CameraInfo: k1 k2 p1 p2 [k3] of
        ``plumb_bob``, then k4 k5 k6 of ``rational_polynomial``, k1 k2 k3 k4 of ``equidistant``.
        Zeros behind those are dropped; none at all means no distortion.
    :param model: one of :data:`MODELS`; an empty text means 'none'.
    :param size: (width, height) of the images in pixels.
    :raises RegistrationError: one of these is wrong.
    """

    matrix: Array
    distortion: Array
    model: str
    size: tuple[int, int]

    def __post_init__(self) -> None:
        """Check the values and keep read-only copies of them."""
        matrix = _array(self.matrix, (3, 3), 'the camera matrix')
        if not matrix.any():
            raise RegistrationError(
                'the camera is not calibrated (its matrix is all zero): calibrate it, for example '
                'with camera_calibration, or register the images by a homography instead'
            )
        expected = np.array(
            [[matrix[0, 0], 0, matrix[0, 2]], [0, matrix[1, 1], matrix[1, 2]], [0, 0, 1]]
        )
        if min(matrix[0, 0], matrix[1, 1]) <= 0 or not np.array_equal(matrix, expected):
            raise RegistrationError(
                'the camera matrix is not [[fx, 0, cx], [0, fy, cy], [0, 0, 1]] with focal '
                f'lengths above 0, but {matrix.tolist()}: check the calibration'
            )
        object.__setattr__(self, 'matrix', matrix)
        object.__setattr__(self, 'size', _size(self.size, 'the size of the camera'))
        model = self.model or 'none'
        if model not in MODELS:
            raise RegistrationError(
                f"the distortion model '{model}' is unknown: calibrate the camera with one of "
                f'{", ".join(MODELS)}'
            )
        object.__setattr__(self, 'model', model)
        object.__setattr__(self, 'distortion', _coefficients(self.distortion, model))

    @classmethod
    def from_camera_info(cls, message: Any, rectified: bool = False) -> CameraModel:
        """
        Take the calibration from a message.

        :param message: a sensor_msgs/CameraInfo, or what has its fields ``k``, ``d``,
            ``distortion_model``, ``width`` and ``height``, and ``p`` and ``r`` for
            ``rectified``.
        :param rectified: of images whose distortion is removed already (``image_rect``); their
            camera_info is that of the raw ones, with the matrix to use in ``p``.
        :raises RegistrationError: the camera is not calibrated, or the message makes no sense.
        """
        size = (int(message.width), int(message.height))
        if not rectified:
            matrix = np.asarray(message.k, float).reshape(-1)
            if matrix.size != 9:
                raise RegistrationError(f'k of the camera_info has {matrix.size} values, not 9')
            return cls(matrix.reshape(3, 3), message.d, str(message.distortion_model), size)
        projection = np.asarray(message.p, float).reshape(-1)
        rotation = np.asarray(message.r, float).reshape(-1)
        if projection.size != 12 or rotation.size != 9:
            raise RegistrationError('p and r of the camera_info are not of 12 and 9 values')
        if rotation.any() and np.abs(rotation.reshape(3, 3) - np.eye(3)).max() > 1e-6:
            # The rectified image is of a frame that no transform of tf2 is about.
            raise RegistrationError(
                'the camera is rectified for stereo, which turns its optical frame: use its raw '
                'image instead'
            )
        return cls(projection.reshape(3, 4)[:, :3], np.zeros(0), 'none', size)

    def undistorted(self, points: ArrayLike) -> Array:
        """
        Return the ideal pixels that distorted ones come from.

        :param points: (N, 2) pixels of the image, (x, y).
        :return: (N, 2) ideal pixels of the same matrix; NaN for what the camera does not see.
        """
        points = _points(points)
        if not self._bends:
            return points
        return self._to_pixels(self._straighten(self._to_rays(points)))

    def distorted(self, points: ArrayLike) -> Array:
        """
        Return the pixels of the image in which ideal ones appear.

        :param points: (N, 2) ideal pixels, (x, y).
        :return: (N, 2) pixels, inside of the image or not; NaN for what the camera does not see.
        """
        points = _points(points)
        if not self._bends:
            return points
        return self._to_pixels(self._bend(self._to_rays(points))[0])

    @cached_property
    def _bends(self) -> bool:
        return self.model == 'equidistant' or bool(self.distortion.any())

    @property
    def _focal_lengths(self) -> Array:
        return np.diag(self.matrix)[:2]

    @property
    def _tangential(self) -> tuple[float, float]:
        """Return p1 and p2."""
        if self.model == 'equidistant':
            return 0.0, 0.0
        return float(self.distortion[2]), float(self.distortion[3])

    def _to_rays(self, pixels: Array) -> Array:
        """Return (N, 2) x / z and y / z."""
        rays: Array = (pixels - self.matrix[:2, 2]) / self._focal_lengths
        return rays

    def _to_pixels(self, rays: Array) -> Array:
        pixels: Array = rays * self._focal_lengths + self.matrix[:2, 2]
        return pixels

    @cached_property
    def _quotient(self) -> tuple[Polynomial, Polynomial]:
        """Return numerator and denominator of the radial factor, in the squared radius."""
        k1, k2, _, _, k3, *denominator = np.pad(self.distortion, (0, 8 - len(self.distortion)))
        return Polynomial([1.0, k1, k2, k3]), Polynomial([1.0, *denominator])

    @cached_property
    def _angular(self) -> Polynomial:
        """Return the radius in the image of an equidistant camera, in the angle to the axis."""
        k1, k2, k3, k4 = self.distortion
        return Polynomial([0.0, 1.0, 0.0, k1, 0.0, k2, 0.0, k3, 0.0, k4])

    @cached_property
    def _limit(self) -> float:
        """Return the ideal radius up to which that in the image rises, in focal lengths."""
        if self.model == 'equidistant':
            return math.tan(_least_root(self._angular.deriv(), math.atan(_WIDEST)))
        above, below = self._quotient
        square = Polynomial([0.0, 1.0])
        rise = above * below + 2 * square * (above.deriv() * below - above * below.deriv())
        most = _WIDEST**2
        return math.sqrt(min(_least_root(rise, most), _least_root(below, most)))

    @cached_property
    def _table(self) -> tuple[Array, Array]:
        """Return radii in the image, rising, and their ideal radii: where Newton starts."""
        ideal = np.tan(np.linspace(0.0, math.atan(self._limit), 4096))
        with np.errstate(all='ignore'):
            radius = self._radius(ideal)[0]
        # Up to rounding at the limit itself, and to a pole there.
        return np.fmax.accumulate(radius), ideal

    def _radius(self, ideal: Array) -> tuple[Array, Array]:
        """Return the radius in the image and its derivative, at ideal radii; focal lengths."""
        if self.model == 'equidistant':
            angle = np.arctan(ideal)
            return self._angular(angle), self._angular.deriv()(angle) / (1.0 + ideal * ideal)
        square = ideal * ideal
        above, below = (polynomial(square) for polynomial in self._quotient)
        above_slope, below_slope = (polynomial.deriv()(square) for polynomial in self._quotient)
        factor = above / below
        slope = factor + 2.0 * square * (above_slope - factor * below_slope) / below
        return ideal * factor, slope

    def _bend(self, rays: Array) -> tuple[Array, tuple[Array, Array, Array]]:
        """
        Distort rays.

        :return: distorted rays, NaN where they fold back; and the derivative, which is
            symmetric: x by x, x by y (as y by x), y by y.
        """
        x, y = rays.T
        with np.errstate(all='ignore'):
            radius = np.hypot(x, y)
            image_radius, slope = self._radius(radius)
            factor = np.where(radius > 0.0, image_radius / radius, 1.0)
            curve = np.where(radius > 0.0, (slope - factor) / (radius * radius), 0.0)
            p1, p2 = self._tangential
            xx = factor + curve * x * x + 2 * p1 * y + 6 * p2 * x
            xy = curve * x * y + 2 * p1 * x + 2 * p2 * y
            yy = factor + curve * y * y + 6 * p1 * y + 2 * p2 * x
            square = radius * radius
            bent_x = x * factor + 2 * p1 * x * y + p2 * (square + 2 * x * x)
            bent_y = y * factor + p1 * (square + 2 * y * y) + 2 * p2 * x * y
            seen = (radius < self._limit) & (xx * yy - xy * xy > 0.0)
        bent = np.where(seen[:, None], np.stack([bent_x, bent_y], axis=1), np.nan)
        return bent, (xx, xy, yy)

    def _straighten(self, rays: Array) -> Array:
        """Undistort rays; NaN where there is no solution before the distortion folds back."""
        image_radius = np.hypot(rays[:, 0], rays[:, 1])
        start = np.interp(image_radius, *self._table)
        with np.errstate(all='ignore'):
            found = rays * np.where(image_radius > 0.0, start / image_radius, 1.0)[:, None]
            # Newton's method in two dimensions; from the table, 2 to 4 steps nearly everywhere.
            for _ in range(_ITERATIONS):
                bent, (xx, xy, yy) = self._bend(found)
                error = rays - bent
                if not np.nanmax(np.abs(error), initial=0.0) > _CONVERGED:
                    break
                determinant = xx * yy - xy * xy
                found[:, 0] += (yy * error[:, 0] - xy * error[:, 1]) / determinant
                found[:, 1] += (xx * error[:, 1] - xy * error[:, 0]) / determinant
            # Not the opposite comparison: NaN is missed, too.
            missed = ~(np.hypot(error[:, 0], error[:, 1]) <= 2 * _CONVERGED)
        found[missed] = np.nan
        return found


@dataclass(frozen=True, eq=False)
class Registration:
    """
    How the pixels of a thermal camera lie on those of a visible one.

    :param thermal_to_visible: (3, 3) homography that takes a thermal pixel (x, y, 1) to a visible
        one, up to a factor; of ideal pixels for a camera that is given.
    :param thermal_size: (width, height) of the thermal images in pixels.
    :param visible_size: likewise of the visible images.
    :param thermal_camera: None where the image has no distortion, or the homography comes from
        images with it.
    :param visible_camera: likewise.
    :param estimate: facts about how this was found, for people: kept, not interpreted. Numbers,
        texts, lists and mappings.
    :raises RegistrationError: the homography is not invertible, mirrors the thermal image, sends
        part of it to infinity or scales it by less than 1/50 or more than 50 (at the corners, but
        only at the centre of a fisheye, whose corners may be outside of any plane); or a size is
        none, or not that of the camera.
    """

    thermal_to_visible: Array
    thermal_size: tuple[int, int]
    visible_size: tuple[int, int]
    thermal_camera: CameraModel | None = None
    visible_camera: CameraModel | None = None
    estimate: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the values and keep read-only copies of them."""
        matrix = _array(self.thermal_to_visible, (3, 3), 'thermal_to_visible')
        object.__setattr__(self, 'thermal_to_visible', matrix)
        for name in ('thermal', 'visible'):
            size = _size(getattr(self, f'{name}_size'), f'{name}_size')
            object.__setattr__(self, f'{name}_size', size)
            camera = getattr(self, f'{name}_camera')
            if camera is not None and camera.size != size:
                raise RegistrationError(
                    f'{name}_size is {_times(size)}, but the size of {name}_camera is '
                    f'{_times(camera.size)}: they must be the same'
                )
        object.__setattr__(self, 'estimate', _plain(self.estimate))
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

        :param visible: calibration of the visible camera.
        :param thermal: calibration of the thermal camera.
        :param rotation: (3, 3), from the thermal optical frame into the visible one.
        :param translation: (3,) in m, of the thermal camera in the visible optical frame.
        :param plane_distance: in m, in front of both cameras; infinity is a distance, too.
            :func:`plane_error` tells how far off other distances then are.
        :raises RegistrationError: no rotation, no such plane, or cameras that cannot be overlaid.
        """
        turn = _proper_rotation(rotation, 'the rotation between the cameras')
        shift = _array(translation, (3,), 'the translation between the cameras')
        depth = _plane_depth(plane_distance, shift)
        # In the thermal frame, the plane is where turn[2] @ X = depth.
        ideal = visible.matrix @ (turn + np.outer(shift, turn[2]) / depth)
        matrix = ideal @ np.linalg.inv(thermal.matrix)
        return cls(matrix, thermal.size, visible.size, thermal, visible)

    @classmethod
    def load(cls, path: str | Path) -> Registration:
        """
        Read a file that :meth:`save` wrote, or a person in its manner.

        :raises RegistrationError: it cannot be read or says something wrong; the text names the
            file and the key.
        """
        values = _read_yaml(path)
        try:
            _check_keys(
                values,
                ('thermal_to_visible', 'thermal_size', 'visible_size'),
                ('thermal_camera', 'visible_camera', 'estimate'),
            )
            cameras = {
                key: _parse_camera(values[key], key)
                for key in ('thermal_camera', 'visible_camera')
                if key in values
            }
            estimate = values.get('estimate', {})
            if not isinstance(estimate, dict):
                raise RegistrationError('estimate is no mapping of facts: correct or remove it')
            return cls(
                _numbers(values['thermal_to_visible'], (3, 3), 'thermal_to_visible'),
                values['thermal_size'],
                values['visible_size'],
                **cameras,
                estimate=estimate,
            )
        except RegistrationError as error:
            raise RegistrationError(f'{path}: {error}') from None

    def save(self, path: str | Path) -> None:
        """
        Write a file that :meth:`load` reads without a difference.

        :param path: of the file, as a rule with the suffix .yaml; it is replaced where it exists.
        :raises RegistrationError: it cannot be written.
        """
        parts = [
            '# How the pixels of a thermal camera lie on those of a visible one.',
            '# [width, height] in pixels of the images that this is for.\n'
            + _yaml({'thermal_size': self.thermal_size, 'visible_size': self.visible_size}),
            '# Takes a thermal pixel (x, y, 1) to a visible one, up to a factor. Centres of\n'
            '# pixels are at integers, (0, 0) is that of the upper left one. Of pixels without\n'
            '# lens distortion for each camera that is given below, else of those of the image.\n'
            + _yaml({'thermal_to_visible': self.thermal_to_visible}),
        ]
        for key, camera in (
            ('thermal_camera', self.thermal_camera),
            ('visible_camera', self.visible_camera),
        ):
            if camera is not None:
                described = {
                    'camera_matrix': camera.matrix,
                    'distortion_model': camera.model,
                    'distortion_coefficients': camera.distortion,
                    'size': camera.size,
                }
                parts.append('# As in sensor_msgs/CameraInfo.\n' + _yaml({key: described}))
        if self.estimate:
            try:
                facts = _yaml({'estimate': self.estimate})
            except yaml.YAMLError as error:
                raise RegistrationError(
                    f'estimate has what YAML cannot tell, of {type(error.args[-1]).__name__}: '
                    'use numbers, texts, lists and mappings'
                ) from None
            parts.append('# How it was found; for people.\n' + facts)
        try:
            Path(path).write_text('\n'.join(part.rstrip() + '\n' for part in parts), 'utf-8')
        except OSError as error:
            raise RegistrationError(f'{path} cannot be written: {error.strerror}') from None

    def check_sizes(self, visible_size: tuple[int, int], thermal_size: tuple[int, int]) -> None:
        """
        Check that images are of the sizes that this registration is for.

        :param visible_size: (width, height) of the visible image; likewise of the thermal one.
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
        :return: (N, 2) visible pixels, likewise, inside of the image or not; NaN for what one of
            the cameras does not see.
        """
        ideal = _points(points)
        if self.thermal_camera is not None:
            ideal = self.thermal_camera.undistorted(ideal)
        ideal = _project(self._homography, ideal)
        return ideal if self.visible_camera is None else self.visible_camera.distorted(ideal)

    def to_thermal(self, points: ArrayLike) -> Array:
        """
        Return the thermal pixels of visible ones, the inverse of :meth:`to_visible`.

        :param points: (N, 2) visible pixels, (x, y), with the distortion of the image.
        :return: (N, 2) thermal pixels, likewise, inside of the image or not; NaN for what one of
            the cameras does not see.
        """
        ideal = _points(points)
        if self.visible_camera is not None:
            ideal = self.visible_camera.undistorted(ideal)
        ideal = _project(self._inverse, ideal)
        return ideal if self.thermal_camera is None else self.thermal_camera.distorted(ideal)

    def placement(self, edge: float) -> Placement:
        """
        Return where each visible pixel lies in the thermal image.

        :param edge: width in visible pixels, at least 0, of the ramp of the coverage, from the
            border of what the thermal image reaches inwards. The border of the visible image is
            none, so that a thermal image that reaches beyond it counts in full there.
        :raises RegistrationError: the thermal image reaches no visible pixel, or the edge is no
            such width.
        """
        if not (math.isfinite(edge) and edge >= 0.0):
            raise RegistrationError(f'the soft edge of {edge:g} pixels is not of 0 or more')
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
        reached: NDArray[np.bool_] = np.abs(grid[:, :, 0]) <= 1.0
        reached &= np.abs(grid[:, :, 1]) <= 1.0
        if not reached.any():
            raise RegistrationError(
                'the thermal image reaches no pixel of the visible one: check the registration; '
                'of extrinsics, that they are from the thermal optical frame into the visible one'
            )
        return Placement(grid, _soft_edge(reached, edge), self.thermal_size)

    @cached_property
    def _homography(self) -> Array:
        """Return the homography, of which the last coordinate is above 0 for what is seen."""
        (centre,) = self._checked_points()[:1]
        depth = float(self.thermal_to_visible[2] @ (*centre, 1.0))
        return self.thermal_to_visible / depth

    @cached_property
    def _inverse(self) -> Array:
        """Return its inverse, likewise."""
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


def load_extrinsics(path: str | Path) -> tuple[Array, Array]:
    """
    Read where the thermal camera is, seen from the visible one.

    A YAML file with ``translation``, [x, y, z] in m, and exactly one of ``rotation``, three rows
    of three, ``quaternion``, [x, y, z, w], and ``rpy_degrees``, [roll, pitch, yaw] about the
    fixed axes x, y, z in this order, as in URDF. Both take points of the thermal optical frame
    into the visible one.

    :return: rotation (3, 3) and translation (3,) in m.
    :raises RegistrationError: it cannot be read or says something wrong; the text names the file
        and the key.
    """
    values = _read_yaml(path)
    kinds = ('rotation', 'quaternion', 'rpy_degrees')
    try:
        _check_keys(values, ('translation',), kinds)
        given = [kind for kind in kinds if kind in values]
        if len(given) != 1:
            found = f'both {" and ".join(given)}' if given else 'none'
            raise RegistrationError(
                f'the rotation is one of {", ".join(kinds)}, but here is {found}: keep one'
            )
        translation = _numbers(values['translation'], (3,), 'translation')
        if given == ['rotation']:
            numbers = _numbers(values['rotation'], (3, 3), 'rotation')
            return _proper_rotation(numbers, 'rotation'), translation
        if given == ['quaternion']:
            quaternion = _numbers(values['quaternion'], (4,), 'quaternion')
            return rotation_of_quaternion(quaternion), translation
        roll, pitch, yaw = np.radians(_numbers(values['rpy_degrees'], (3,), 'rpy_degrees'))
        turns = (_turn(2, yaw), _turn(1, pitch), _turn(0, roll))
        return turns[0] @ turns[1] @ turns[2], translation
    except RegistrationError as error:
        raise RegistrationError(f'{path}: {error}') from None


def rotation_of_quaternion(quaternion: ArrayLike) -> Array:
    """
    Return the (3, 3) rotation of a quaternion.

    :param quaternion: x, y, z, w, as in geometry_msgs/Quaternion; of any length but 0.
    :raises RegistrationError: it is zero or not finite.
    """
    values = _array(quaternion, (4,), 'quaternion')
    length = float(np.linalg.norm(values))
    if length < 1e-6:
        raise RegistrationError(
            'quaternion is zero, which is no rotation: [0, 0, 0, 1] is that of cameras that look '
            'the same way'
        )
    x, y, z, w = values / length
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def plane_error(
    visible: CameraModel,
    translation: ArrayLike,
    plane_distance: float,
    distances: Sequence[float] = (2.0, 5.0, math.inf),
) -> tuple[float, ...]:
    """
    Return by how much things off the plane miss their place in the visible image.

    That is the parallax in the middle of the image, on the axis of the visible camera; how the
    thermal camera is turned does not matter.

    :param visible: calibration of the visible camera.
    :param translation: (3,) in m, of the thermal camera in the visible optical frame.
    :param plane_distance: in m, as of :meth:`Registration.from_cameras`.
    :param distances: of the things in m, in front of both cameras.
    :return: for each distance, visible pixels.
    :raises RegistrationError: a distance is not in front of both cameras.
    """
    shift = _array(translation, (3,), 'the translation between the cameras')
    depth = _plane_depth(plane_distance, shift)
    errors = []
    for distance in distances:
        _plane_depth(distance, shift)
        # Of the homographies by two planes, one after the other's inverse,
        # I + part * outer(shift, (0, 0, 1)) in rays of the visible camera.
        if math.isinf(plane_distance):
            part = -1.0 / distance
        else:
            part = (1.0 - plane_distance / distance) / depth
        rays = part * shift[:2] / (1.0 + part * shift[2])
        errors.append(math.hypot(*(rays * visible._focal_lengths)))
    return tuple(errors)


def _soft_edge(reached: NDArray[np.bool_], edge: float) -> NDArray[np.float32]:
    """Return the coverage: a smooth step over ``edge`` pixels, inside the border of a region."""
    if edge == 0.0 or reached.all():
        return reached.astype(np.float32)
    distance = cv2.distanceTransform(reached.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    # That is to the centre of the next pixel outside; the border is on the way to it.
    ramp = np.clip((distance - np.float32(0.5)) / np.float32(edge), 0.0, 1.0)
    coverage: NDArray[np.float32] = ramp * ramp * (3.0 - 2.0 * ramp)
    return coverage


def _project(homography: Array, points: Array) -> Array:
    """Apply a homography to (N, 2) points; NaN where the last coordinate is not above 0."""
    x, y = points.T
    (a, b, c), (d, e, f), (g, h, i) = homography
    depth = g * x + h * y + i
    with np.errstate(all='ignore'):
        depth = np.where(depth > 0.0, depth, np.nan)
        return np.stack([(a * x + b * y + c) / depth, (d * x + e * y + f) / depth], axis=1)


def _turn(axis: int, angle: float) -> Array:
    """Return the rotation by an angle in radians about the axis x, y or z."""
    turn = np.eye(3)
    first, second = (axis + 1) % 3, (axis + 2) % 3
    turn[first, first] = turn[second, second] = math.cos(angle)
    turn[second, first] = math.sin(angle)
    turn[first, second] = -turn[second, first]
    return turn


def _proper_rotation(values: ArrayLike, name: str) -> Array:
    """Return the nearest rotation, of what is nearly one."""
    matrix = _array(values, (3, 3), name)
    left, _, right = np.linalg.svd(matrix)
    nearest: Array = left @ right
    if np.abs(nearest - matrix).max() > _ROTATION_TOLERANCE or np.linalg.det(nearest) < 0.0:
        raise RegistrationError(
            f'{name} is none: its rows must be of length 1 and at right angles, right-handed, '
            f'within {_ROTATION_TOLERANCE:g}'
        )
    return nearest


def _plane_depth(distance: float, translation: Array) -> float:
    """Return the distance of the thermal camera from a plane, checked."""
    depth = float(distance) - float(translation[2])
    if not (distance > 0.0 and depth > 0.0):
        raise RegistrationError(
            f'a distance of {distance:g} m is not in front of both cameras, of which the thermal '
            f'one is at {translation[2]:g} m: it is measured from the visible camera, forward'
        )
    return depth


def _least_root(polynomial: Polynomial, most: float) -> float:
    """Return the least real root above 0, or ``most`` where there is none below that."""
    roots = polynomial.roots()
    real = roots.real[(np.abs(roots.imag) <= 1e-9 * np.abs(roots)) & (roots.real > 0.0)]
    return float(min([most, *real]))


def _points(points: ArrayLike) -> Array:
    array = np.array(points, float)
    if array.ndim != 2 or array.shape[1] != 2:
        raise ValueError(f'points are (N, 2), not of shape {array.shape}')
    return array


def _array(values: ArrayLike, shape: tuple[int, ...], name: str) -> Array:
    """Return a read-only copy of finite numbers."""
    array = np.array(values, float)
    if array.shape != shape:
        wanted = ' x '.join(map(str, shape))
        raise RegistrationError(f'{name} has shape {array.shape} instead of {wanted} numbers')
    if not np.isfinite(array).all():
        raise RegistrationError(f'{name} has numbers that are not finite: {array.tolist()}')
    array.flags.writeable = False
    return array


def _size(size: Any, name: str) -> tuple[int, int]:
    values = list(size) if isinstance(size, (list, tuple)) else []
    whole = all(isinstance(value, Integral) and not isinstance(value, bool) for value in values)
    if len(values) != 2 or not whole or min(values) < 1:
        raise RegistrationError(f'{name} is not [width, height] in whole pixels, but {size!r}')
    return int(values[0]), int(values[1])


def _times(size: tuple[int, int]) -> str:
    return f'{size[0]}x{size[1]}'


def _coefficients(values: ArrayLike, model: str) -> Array:
    """Return as many coefficients as the model has, read-only."""
    given = np.array(values, float).reshape(-1)
    allowed = MODELS[model]
    most = max(allowed)
    if not np.isfinite(given).all():
        raise RegistrationError(
            f'the distortion coefficients have numbers that are not finite: {given.tolist()}'
        )
    if len(given) == 0 and model != 'equidistant':
        given = np.zeros(most)
    if len(given) > most and not given[most:].any():
        given = given[:most]
    if len(given) not in allowed:
        wanted = ' or '.join(map(str, allowed))
        raise RegistrationError(
            f"the distortion model '{model}' has {wanted} coefficients, but there are "
            f'{len(given)}: check the calibration'
        )
    given.flags.writeable = False
    return given


class _StrictLoader(yaml.SafeLoader):  # type: ignore[misc]
    """
    Reads YAML, but not a key that is there twice: the last would win without a word.

    Nor aliases, by which a few lines can stand for more than fits into memory.
    """

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError('it has aliases (*name): write out what they stand for')
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.YAMLError(f"the key '{key}' is there twice: remove one")
        return dict(super().construct_mapping(node, deep))


def _read_yaml(path: str | Path) -> dict[str, Any]:
    file = Path(path).expanduser()
    try:
        size = file.stat().st_size
        # A device or a pipe may go on for ever.
        if size > _LARGEST_FILE or not (file.is_file() or file.is_dir()):
            raise RegistrationError(
                f'{path} is no file of at most {_LARGEST_FILE} bytes: give the path of a '
                'registration'
            )
        # A safe loader: it makes nothing but numbers, texts, lists and mappings.
        values = yaml.load(file.read_text('utf-8'), Loader=_StrictLoader)
    except OSError as error:
        raise RegistrationError(f'{path} cannot be read: {error.strerror}') from None
    # A value that looks like a date but is none is a ValueError, as is what is no text.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        if isinstance(error, RegistrationError):
            raise
        reason = ' '.join(str(error).split())
        raise RegistrationError(f'{path} is no YAML: {reason}') from None
    if not isinstance(values, dict):
        raise RegistrationError(f'{path} is no mapping of keys to values')
    return values


def _check_keys(
    values: Mapping[Any, Any], required: Sequence[str], optional: Sequence[str], inside: str = ''
) -> None:
    """Raise for a key that is missing, and for one that nobody would read."""
    where = f'{inside} has' if inside else 'it has'
    for key in required:
        if key not in values:
            raise RegistrationError(f"{where} no key '{key}': add it")
    for key in values:
        if key not in required and key not in optional:
            known = ', '.join([*required, *optional])
            raise RegistrationError(f"{where} a key '{key}' that means nothing here: use {known}")


def _parse_camera(values: Any, name: str) -> CameraModel:
    if not isinstance(values, dict):
        raise RegistrationError(f'{name} is no mapping of keys to values')
    keys = ('camera_matrix', 'distortion_model', 'distortion_coefficients', 'size')
    _check_keys(values, keys, (), inside=name)
    coefficients = values['distortion_coefficients']
    try:
        if not isinstance(coefficients, list):
            raise RegistrationError('distortion_coefficients is not a list of numbers')
        return CameraModel(
            _numbers(values['camera_matrix'], (3, 3), 'camera_matrix'),
            _numbers(coefficients, (len(coefficients),), 'distortion_coefficients'),
            str(values['distortion_model']),
            values['size'],
        )
    except RegistrationError as error:
        raise RegistrationError(f'{name}: {error}') from None


# Numbers that YAML 1.1 takes for texts, but other programs write: 1e-05, without a point.
_EXPONENT = re.compile(r'[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+')


def _numbers(values: Any, shape: tuple[int, ...], name: str) -> Array:
    """Return nested lists of a file as an array."""
    if not shape:
        if isinstance(values, str) and _EXPONENT.fullmatch(values):
            values = float(values)
        if isinstance(values, bool) or not isinstance(values, (int, float)):
            raise RegistrationError(f"{name} has '{values}', which is no number")
        # Compared as it is: an integer may be too large for a float.
        if not abs(values) <= sys.float_info.max:
            raise RegistrationError(f'{name} has {values}, which is not finite')
        return np.array(float(values))
    if not isinstance(values, list) or len(values) != shape[0]:
        wanted = 'numbers' if len(shape) == 1 else f'rows of {shape[1]} numbers'
        raise RegistrationError(f'{name} is not a list of {shape[0]} {wanted}')
    array = np.array([_numbers(value, shape[1:], name) for value in values], float)
    return array.reshape(shape)


def _plain(values: Any) -> Any:
    """Return a copy of what YAML can tell, without the types of NumPy."""
    if isinstance(values, Mapping):
        return {str(key): _plain(value) for key, value in values.items()}
    if isinstance(values, (list, tuple)):
        return [_plain(value) for value in values]
    if isinstance(values, (np.ndarray, np.generic)):
        return _plain(values.tolist())
    if isinstance(values, Path):
        return str(values)
    return values


def _yaml(values: Mapping[str, Any]) -> str:
    text: str = yaml.safe_dump(
        _plain(values), default_flow_style=None, sort_keys=False, allow_unicode=True, width=1000
    )
    return text
