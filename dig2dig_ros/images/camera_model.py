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
Lens models: a calibrated camera, and how its lens distorts what a pinhole would show.

An ideal pixel is where the camera would show a point if it had the same matrix and no
distortion.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
import math
from typing import Any

import numpy as np
from numpy.polynomial import Polynomial
from numpy.typing import ArrayLike

from dig2dig_ros.images.geometry import (
    Array,
    as_points,
    checked_size,
    finite_array,
    RegistrationError,
    Size,
)
from dig2dig_ros.images.image_window import ImageWindow

# Models of lens distortion, as in sensor_msgs/CameraInfo, and how many coefficients each has.
MODELS: dict[str, tuple[int, ...]] = {
    'none': (0,),
    'plumb_bob': (4, 5),
    'rational_polynomial': (8,),
    'equidistant': (4,),
}

# The tangent of the widest angle to the axis that an ideal pixel can have; 89.4 degrees.
_WIDEST = 100.0
# In units of the focal length: a millionth of a pixel where that is 1000 pixels.
_CONVERGED = 1e-9
_ITERATIONS = 30


@dataclass(frozen=True, eq=False)
class CameraModel:
    """
    A calibrated camera: a pinhole and the distortion of its lens.

    Distortion is that of OpenCV and of sensor_msgs/CameraInfo: Brown's radial and tangential
    polynomials (``plumb_bob``), their quotient (``rational_polynomial``), and the polynomial in
    the angle to the axis of Kannala and Brandt (2006) for fisheyes (``equidistant``).

    These polynomials are valid as far as they rise. Beyond that, where an image would fold back
    onto itself, and further than 89.4 degrees from the axis, the camera sees nothing.

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
    size: Size

    def __post_init__(self) -> None:
        """Check the values and keep read-only copies of them."""
        matrix = finite_array(self.matrix, (3, 3), 'the camera matrix')
        _require_calibration(matrix)
        (fx, _, cx), (_, fy, cy), _ = matrix
        if min(fx, fy) <= 0 or not np.array_equal(matrix, [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]):
            raise RegistrationError(
                f'the camera matrix is {matrix.tolist()}, but must be [[fx, 0, cx], [0, fy, cy], '
                '[0, 0, 1]] with focal lengths above 0: check the calibration'
            )
        object.__setattr__(self, 'matrix', matrix)
        object.__setattr__(self, 'size', checked_size(self.size, 'the size of the camera'))
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
        Take the calibration from a sensor_msgs/CameraInfo.

        The camera is that of the images: of a region of interest, or binned, if the message says
        so. A rectified region is the same window of the full rectified image, as in image_proc.

        :param message: an object with the fields ``k``, ``d``, ``distortion_model``, ``width`` and
            ``height``, and ``p`` and ``r`` for ``rectified``; optionally ``roi``, ``binning_x``
            and ``binning_y``.
        :param rectified: for images without distortion (``image_rect``): take the matrix from
            ``p``.
        :raises RegistrationError: the camera is not calibrated, or the message is invalid.
        """
        if not rectified:
            matrix = np.asarray(message.k, float).reshape(-1)
            if matrix.size != 9:
                raise RegistrationError(f'k of camera_info has {matrix.size} values, not 9')
            # A driver without a calibration may not know the size either.
            _require_calibration(matrix)
            window = ImageWindow.from_camera_info(message)
            # The full image first, as an error must name that one.
            lens = str(message.distortion_model)
            full = cls(matrix.reshape(3, 3), message.d, lens, window.full)
            return full._in_window(window)
        projection = np.asarray(message.p, float).reshape(-1)
        rotation = np.asarray(message.r, float).reshape(-1)
        if projection.size != 12 or rotation.size != 9:
            raise RegistrationError('p and r of camera_info must have 12 and 9 values')
        if rotation.any() and np.abs(rotation.reshape(3, 3) - np.eye(3)).max() > 1e-6:
            # The rectified image has a frame that is not in tf2.
            raise RegistrationError(
                'the camera is rectified for stereo, which rotates its optical frame: use its raw '
                'image'
            )
        _require_calibration(projection)
        window = ImageWindow.from_camera_info(message)
        full = cls(projection.reshape(3, 4)[:, :3], np.zeros(0), 'none', window.full)
        return full._in_window(window)

    def _in_window(self, window: ImageWindow) -> CameraModel:
        if window.is_full:
            return self
        # Distortion is about rays, which stay.
        return replace(self, matrix=window.matrix(self.matrix), size=window.size)

    def undistorted(self, points: ArrayLike) -> Array:
        """
        Return the ideal pixels (N, 2) of pixels of the image (N, 2).

        NaN outside of the camera's view.
        """
        points = as_points(points)
        if not self._bends:
            return points
        return self._to_pixels(self._straighten(self._to_rays(points)))

    def distorted(self, points: ArrayLike) -> Array:
        """
        Return the pixels (N, 2), inside of the image or not, in which ideal ones (N, 2) appear.

        NaN outside of the camera's view.
        """
        points = as_points(points)
        if not self._bends:
            return points
        return self._to_pixels(self._bend(self._to_rays(points))[0])

    @property
    def focal_lengths(self) -> Array:
        """Those along x and y, in pixels: (2,)."""
        return np.diag(self.matrix)[:2]

    @cached_property
    def _bends(self) -> bool:
        return self.model == 'equidistant' or bool(self.distortion.any())

    def _to_rays(self, pixels: Array) -> Array:
        """Return (N, 2) x / z and y / z."""
        return np.asarray((pixels - self.matrix[:2, 2]) / self.focal_lengths)

    def _to_pixels(self, rays: Array) -> Array:
        return np.asarray(rays * self.focal_lengths + self.matrix[:2, 2])

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
        """Return radii in the image, rising, and their ideal radii, for Newton to start from."""
        ideal = np.tan(np.linspace(0.0, math.atan(self._limit), 4096))
        with np.errstate(all='ignore'):
            radius = self._radius(ideal)[0]
        # It rises, except for rounding at the limit itself, and a pole there.
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
            p1, p2 = (0.0, 0.0) if self.model == 'equidistant' else self.distortion[2:4]
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


def _require_calibration(matrix: Array) -> None:
    if not matrix.any():
        raise RegistrationError(
            'the camera is not calibrated (its matrix is all zero): calibrate it, for example '
            'with camera_calibration, or register the images by a homography instead'
        )


def _least_root(polynomial: Polynomial, most: float) -> float:
    """Return the least real root above 0, or ``most`` where there is none below that."""
    roots = polynomial.roots()
    real = roots.real[(np.abs(roots.imag) <= 1e-9 * np.abs(roots)) & (roots.real > 0.0)]
    return float(min([most, *real]))


def _coefficients(values: ArrayLike, model: str) -> Array:
    """Return as many coefficients as the model has, read-only."""
    given = np.array(values, float).reshape(-1)
    most = max(MODELS[model])
    if not np.isfinite(given).all():
        raise RegistrationError(
            f'the distortion coefficients {given.tolist()} must be finite: check the calibration'
        )
    if len(given) == 0 and model != 'equidistant':
        given = np.zeros(most)
    if len(given) > most and not given[most:].any():
        given = given[:most]
    if len(given) not in MODELS[model]:
        wanted = ' or '.join(map(str, MODELS[model]))
        raise RegistrationError(
            f"the distortion model '{model}' has {wanted} coefficients, not {len(given)}: check "
            'the calibration'
        )
    given.flags.writeable = False
    return given
