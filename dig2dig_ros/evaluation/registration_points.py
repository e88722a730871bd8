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
A registration from points: marked by hand in both images, or the corners of a checkerboard.

A homography by RANSAC and least squares. What the points are worth is measured by the uncertainty
of the thermal image's corners: residuals alone say little, because a few points fit anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dig2dig_ros.evaluation.options import UsageError
from dig2dig_ros.images.geometry import (
    apply_homography,
    Array,
    change_of_unit,
    corners_of,
    homography_derivatives,
    Size,
    to_unit_image,
)
from dig2dig_ros.images.luma import grey
from dig2dig_ros.images.registration_file import read_yaml
from dig2dig_ros.streams.pairing import SOURCES

# How uncertain the corners may be, as part of the thermal image's longer side, or in pixels if
# that is more.
_MOST_SPREAD = 0.01
_LEAST_SPREAD = 3.0
# Points that are farther off, in the same units, are wrong; if more than this part of them are,
# all are in doubt.
_OUTLIER = 0.006
_LEAST_OUTLIER = 3.0
_MOST_OUTLIERS = 0.2
# Points lie this close to a similarity, as part of the longer side; the threshold then shrinks
# over this number of rounds.
_ROUGH = 0.04
_ROUNDS = 5
_ITERATIONS = 30
# Standard deviations by which a camera pair differs from a similarity: aspect and shear; and
# perspective, in units of half the longer side.
_AFFINE_SIGMA = 0.02
_PERSPECTIVE_SIGMA = 0.04
# The expected noise counts as much as this number of measurements.
_SIGMA_WEIGHT = 4.0
# Points nearer to one line than this part of the image's longer side determine no homography.
_LINE = 0.01
# Boards are looked for in images whose longer side is within these.
_BOARD_SIDES = (640, 1024)


def load_points(path: Path, sizes: tuple[Size, Size]) -> Array:
    """
    Read points marked by hand: YAML as the click page writes it.

    :param sizes: of the visible and thermal images; sizes that the file states must agree.
    :return: (N, 4) pixels, xv, yv, xt, yt.
    :raises RegistrationError: the file cannot be read.
    :raises UsageError: there are fewer than four points, or some lie outside of the images.
    """
    document = read_yaml(path)
    for source, size in zip(SOURCES, sizes, strict=True):
        stated = document.get(f'{source}_size', list(size))
        if stated != list(size):
            raise UsageError(
                f'{path} is for {source} images of {stated} pixels, but these have {list(size)}: '
                'mark the points in these'
            )
    rows = document.get('points')
    if not isinstance(rows, list):
        raise UsageError(f'{path} has no list of points, each [xv, yv, xt, yt]')
    points = np.empty((len(rows), 4))
    for number, row in enumerate(rows, start=1):
        try:
            values = [float(value) for value in row]
        except (TypeError, ValueError):
            values = []
        if len(values) != 4 or not all(map(math.isfinite, values)):
            raise UsageError(
                f'{path}: point {number} is {row!r}, but must be four numbers, xv, yv, xt, yt'
            )
        points[number - 1] = values
    if len(points) < 4:
        raise UsageError(
            f'{path} has {counted(len(points), "point")}: a homography needs four, better eight'
        )
    for source, size, at in zip(SOURCES, sizes, (0, 2), strict=True):
        place = points[:, at : at + 2]
        outside = ((place < -0.5) | (place > np.array(size) - 0.5)).any(axis=1)
        if outside.any():
            first = int(np.flatnonzero(outside)[0])
            raise UsageError(
                f'{path}: point {first + 1} is at {place[first, 0]:g}, {place[first, 1]:g} in the '
                f'{source} image, which has {size[0]}x{size[1]} pixels only'
            )
    return points


@dataclass(frozen=True)
class PointFit:
    """
    A homography through points.

    :param matrix: (3, 3) thermal to visible.
    :param inside: (N,) which points were used.
    :param errors: (N,) distances in thermal pixels.
    :param visible_errors: (N,) distances in visible pixels.
    :param spread: standard deviation of the thermal image's corners, root mean square over
        corners, in thermal pixels.
    :param most_spread: the limit of trust, likewise.
    """

    matrix: Array
    inside: NDArray[np.bool_]
    errors: Array
    visible_errors: Array
    spread: float
    most_spread: float

    @property
    def left_out(self) -> int:
        """The number of points that were not used."""
        return int((~self.inside).sum())

    def facts(self) -> list[tuple[str, str]]:
        """Return (name, text) of what to report."""
        errors, visible = self.errors[self.inside], self.visible_errors[self.inside]
        left_out = f'; {self.left_out} left out' if self.left_out else ''
        residual = (
            f'RMS {rms(errors):.2f} thermal pixels ({rms(visible):.2f} visible), worst '
            f'{errors.max():.2f} ({visible.max():.2f}), of {len(errors)} points{left_out}'
        )
        known = f'known to {self.spread:.2f} thermal pixels (limit {self.most_spread:.1f})'
        return [('residual', residual), ('corners', f'of the thermal image {known}')]

    def reasons(self) -> tuple[str, ...]:
        """Return why not to trust it; empty if nothing is wrong."""
        reasons = []
        if self.spread > self.most_spread:
            reasons.append(
                f'the corners are uncertain by {self.spread:.1f} thermal pixels (limit '
                f'{self.most_spread:.1f}): the points are too few, too close together or inexact'
            )
        if self.left_out > _MOST_OUTLIERS * len(self.inside):
            reasons.append(
                f'{self.left_out} of {len(self.inside)} points do not fit the others, which may '
                'just as well be the wrong ones'
            )
        return tuple(reasons)


def fit_points(
    visible: Array,
    thermal: Array,
    sizes: tuple[Size, Size],
    sigma: float,
    groups: NDArray[np.int64] | None = None,
) -> PointFit:
    """
    Fit a homography to points, leaving out wrong ones.

    Four points determine one, but so loosely that the corners of the image may be anywhere. Two
    cameras side by side differ by little more than a similarity, so this counts as a measurement
    in addition to the points.

    :param visible: (N, 2) undistorted pixels; ``thermal`` likewise.
    :param sizes: of the visible and the thermal images.
    :param sigma: standard deviation of a point to expect, in thermal pixels.
    :param groups: (N,) the frame of each point; errors within a frame are not independent.
    :raises UsageError: the points determine no homography.
    """
    for source, points, size in zip(SOURCES, (visible, thermal), sizes, strict=True):
        if _on_a_line(points, _LINE * max(size)):
            raise UsageError(
                f'all points, or all but one, lie on a line in the {source} image, which '
                'determines no homography: mark others, far from that line'
            )
    visible, thermal = np.ascontiguousarray(visible), np.ascontiguousarray(thermal)
    longer = max(sizes[1])
    least = max(_LEAST_OUTLIER, _OUTLIER * longer)
    matrix = _similarity(visible, thermal, _ROUGH * longer)

    def solved(points: NDArray[np.bool_]) -> tuple[_Problem, Array]:
        problem = _Problem(visible[points], thermal[points], sizes[1], sigma)
        return problem, problem.solve(matrix)

    # With a shrinking threshold, because a similarity misses points far from the middle.
    for threshold in np.geomspace(_ROUGH * longer, least, _ROUNDS):
        inside = _distances(_inverse(matrix), visible, thermal) <= threshold
        if _on_a_line(thermal[inside], 1.0):
            raise UsageError(
                'no four of the points fit together: check the order, xv, yv, xt, yt, and that '
                'they are of these images'
            )
        problem, matrix = solved(inside)
    variance = problem.corner_variance()
    if groups is not None:
        kept = [inside & (groups != group) for group in np.unique(groups)]
        others = [solved(points)[1] for points in kept if not _on_a_line(thermal[points], 1.0)]
        variance += _jackknife_variance(matrix, others, sizes[1])
    return PointFit(
        matrix,
        inside,
        _distances(_inverse(matrix), visible, thermal),
        _distances(matrix, thermal, visible),
        math.sqrt(variance),
        max(_MOST_SPREAD * longer, _LEAST_SPREAD),
    )


def _similarity(visible: Array, thermal: Array, threshold: float) -> Array:
    """Return the similarity that most points agree on, within a threshold in thermal pixels."""
    found, _ = cv2.estimateAffinePartial2D(
        visible, thermal, method=cv2.RANSAC, ransacReprojThreshold=threshold, maxIters=5000
    )
    if found is None or not np.linalg.det(found[:, :2]) > 0.0:
        raise UsageError(
            'no similarity is near the points: check the order, xv, yv, xt, yt, and that none of '
            'the images is mirrored'
        )
    return _inverse(np.vstack([found, (0.0, 0.0, 1.0)]))


class _Problem:
    """
    The most likely homography for some points, and how certain it is.

    Coordinates are relative to the middle of the thermal image and of the visible points, so that
    the parameters have the same magnitude: ``h``, the first eight elements; the last is 1.

    :param sigma: expected standard deviation of a point, in thermal pixels; the more points there
        are, the more their residuals count instead.
    """

    def __init__(self, visible: Array, thermal: Array, size: Size, sigma: float) -> None:
        self._size = size
        self._unit = max(size) / 2
        self._from_thermal = to_unit_image(size)
        middle = visible.mean(axis=0)
        spread = rms(np.linalg.norm(visible - middle, axis=1))
        self._from_visible = change_of_unit(middle, spread)
        self._visible = apply_homography(self._from_visible, visible)
        self._thermal = apply_homography(self._from_thermal, thermal)
        # For one axis of thermal points, in their unit.
        self._expected = self._noise = sigma / math.sqrt(2) / self._unit

    def solve(self, matrix: Array) -> Array:
        """Return the most likely homography near another one, by the Gauss-Newton method."""
        h = self._from_visible @ matrix @ _inverse(self._from_thermal)
        h = (h / h[2, 2]).ravel()[:8]
        for _ in range(_ITERATIONS):
            rows, misfit, prior = self._linearised(h)
            data = rows.T @ rows / self._noise**2
            normal = data + prior.T @ prior
            pull = rows.T @ misfit / self._noise**2 - prior.T @ (prior @ h)
            step = np.linalg.solve(normal, pull)
            h = h + step
            # The number of parameters that the points determine.
            determined = float(np.trace(np.linalg.solve(normal, data)))
            freedom = max(len(misfit) - determined, 0.0)
            squares = _SIGMA_WEIGHT * self._expected**2 + float(misfit @ misfit)
            self._noise = math.sqrt(squares / (_SIGMA_WEIGHT + freedom))
            if np.abs(step).max() < 1e-9:
                break
        self._solution = h
        found = _inverse(self._from_visible) @ np.append(h, 1.0).reshape(3, 3)
        found = found @ self._from_thermal
        return np.asarray(found / found[2, 2])

    def corner_variance(self) -> float:
        """Return the variance of the thermal corners, mean over corners, in pixels squared."""
        h = self._solution
        rows, _, prior = self._linearised(h)
        covariance = np.linalg.inv(rows.T @ rows / self._noise**2 + prior.T @ prior)
        corners = apply_homography(self._from_thermal, corners_of(self._size))
        moves = homography_derivatives(h, corners)[0] / _scale(h) * self._unit
        return float(np.einsum('bip,pq,biq->', moves, covariance, moves)) / 4

    def _linearised(self, h: Array) -> tuple[Array, Array, Array]:
        """
        Return the derivatives of the points by ``h``, their residuals, and the prior.

        :return: (2N, 8) and (2N,) in the unit of the thermal points; (4, 8), whose products with
            ``h`` have a standard deviation of 1 about 0.
        """
        derivatives, predicted = homography_derivatives(h, self._thermal)
        scale = _scale(h)
        prior = np.zeros((4, 8))
        prior[0, 0] = prior[1, 1] = prior[1, 3] = 1.0 / (_AFFINE_SIGMA * scale)
        prior[0, 4] = -prior[0, 0]
        prior[2, 6] = prior[3, 7] = 1.0 / _PERSPECTIVE_SIGMA
        misfit = (self._visible - predicted).ravel() / scale
        return derivatives.reshape(-1, 8) / scale, misfit, prior


def _scale(h: Array) -> float:
    """Return the scale: units of visible points per unit of thermal points."""
    return math.sqrt(abs(float(h[0] * h[4] - h[1] * h[3])))


def _jackknife_variance(matrix: Array, others: Sequence[Array], size: Size) -> float:
    """Return the variance of the corners between frames, by leaving out one after the other."""
    count = len(others)
    if count < 2:
        return 0.0
    back = _inverse(matrix)
    moved = [apply_homography(back @ other, corners_of(size)) for other in others]
    deviations = np.stack(moved) - np.mean(moved, axis=0)
    return float((count - 1) / count * (deviations**2).sum(axis=(0, 2)).mean())


def _on_a_line(points: Array, tolerance: float) -> bool:
    """Check whether all points but one lie on one line, or there are fewer than four."""
    if len(points) < 4:
        return True
    # With many points, a line through all but one is near the line through all.
    leaving = range(len(points)) if len(points) <= 50 else [int(_off_line(points).argmax())]
    return any(_off_line(np.delete(points, i, axis=0)).max() <= tolerance for i in leaving)


def _off_line(points: Array) -> Array:
    """Return how far points are from the line that fits them best."""
    centred = points - points.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    return np.asarray(np.abs(centred @ axes[1]))


def _inverse(matrix: Array) -> Array:
    return np.asarray(np.linalg.inv(matrix), np.float64)


def _distances(matrix: Array, points: Array, targets: Array) -> Array:
    return np.asarray(np.linalg.norm(apply_homography(matrix, points) - targets, axis=1))


def find_board(image: NDArray[Any], board: tuple[int, int]) -> Array | None:
    """
    Find a checkerboard, whichever squares are bright.

    :param image: (H, W) or (H, W, 3), any range.
    :param board: inner corners along a row and along a column.
    :return: (N, 2) pixels in rows, or None.
    """
    values = grey(image)
    low, high = np.percentile(values, (0.5, 99.5))
    unit = (values.astype(np.float32) - low) / max(float(high - low), 1e-6)
    stretched = np.rint(np.clip(unit, 0, 1) * 255).astype(np.uint8)
    longer = max(stretched.shape)
    factor = min(max(longer, _BOARD_SIDES[0]), _BOARD_SIDES[1]) / longer
    if factor != 1.0:
        method = cv2.INTER_CUBIC if factor > 1 else cv2.INTER_AREA
        size = (round(stretched.shape[1] * factor), round(stretched.shape[0] * factor))
        stretched = cv2.resize(stretched, size, interpolation=method)
    steps = (stretched.shape[1] / values.shape[1], stretched.shape[0] / values.shape[0])
    for candidate in (stretched, 255 - stretched):
        corners = _board_corners(candidate, board)
        if corners is not None:
            return np.asarray((corners + 0.5) / steps - 0.5)
    return None


def _board_corners(image: NDArray[np.uint8], board: tuple[int, int]) -> Array | None:
    flags = cv2.CALIB_CB_NORMALIZE_IMAGE | cv2.CALIB_CB_ACCURACY
    done, corners = cv2.findChessboardCornersSB(image, board, flags)
    if not done:
        flags = cv2.CALIB_CB_ADAPTIVE_THRESH | cv2.CALIB_CB_NORMALIZE_IMAGE
        done, corners = cv2.findChessboardCorners(image, board, flags | cv2.CALIB_CB_FAST_CHECK)
        if not done:
            return None
        stop = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_COUNT, 30, 0.01)
        corners = cv2.cornerSubPix(image, corners, (5, 5), (-1, -1), stop)
    return np.asarray(corners, np.float64).reshape(-1, 2)


def matching_order(visible: Array, thermal: Array, board: tuple[int, int]) -> Array:
    """
    Return the thermal corners in the order of the visible ones.

    A detector may start at any end of the board, and starts at another one if bright and dark
    squares are swapped. Take the order that resembles that of the visible corners most: both
    cameras are mounted more or less upright.

    :param visible: (N, 2) in rows; ``thermal`` likewise.
    """
    grid = thermal.reshape(board[1], board[0], 2)
    orders = [grid, grid[::-1], grid[:, ::-1], grid[::-1, ::-1]]
    if board[0] == board[1]:
        orders += [order.transpose(1, 0, 2) for order in orders]
    centred = visible - visible.mean(axis=0)

    def likeness(order: Array) -> float:
        points = order.reshape(-1, 2)
        return float((centred * (points - points.mean(axis=0))).sum())

    return np.ascontiguousarray(max(orders, key=likeness).reshape(-1, 2))


def rms(values: Array) -> float:
    """Return the root mean square."""
    return math.sqrt(float((values**2).mean()))


def counted(number: int, what: str) -> str:
    """Return a number of things, such as '1 frame' or '2 frames'."""
    return f'{number} {what}' if number == 1 else f'{number} {what}s'
