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

"""A registration from images, from points or from a checkerboard, and what it leaves over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
import math

import numpy as np

from dig2dig_ros.evaluation.options import report, UsageError
from dig2dig_ros.evaluation.registration_cameras import CameraModels, undistorted_image
from dig2dig_ros.evaluation.registration_pairs import CalibrationImages, choose_frames
from dig2dig_ros.evaluation.registration_points import (
    counted,
    find_board,
    fit_points,
    matching_order,
    rms,
)
from dig2dig_ros.images.alignment import align
from dig2dig_ros.images.alignment_search import centred_guess
from dig2dig_ros.images.geometry import apply_homography, Array, Size
from dig2dig_ros.images.misalignment import MisalignmentMonitor
from dig2dig_ros.images.placement import Placement
from dig2dig_ros.streams.pairing import SOURCES
from dig2dig_ros.streams.preparation import registered_image

# Of a frame that was not used, this part of the visible image's longer side is too far off.
_MOST_LEFT_OVER = 0.01
_LEAST_LEFT_OVER = 3.0
# How well a person clicks, and a corner of a board is found, in thermal pixels, until the
# residuals tell.
_CLICK_SIGMA, _CORNER_SIGMA = 1.0, 0.3


@dataclass(frozen=True)
class Estimate:
    """
    A homography and how good it is.

    :param matrix: (3, 3) from thermal to visible pixels, undistorted where there are camera
        models.
    :param method: 'images', 'points' or 'board'.
    :param facts: (name, text) to print and to keep.
    :param reasons: why it is not to be trusted.
    :param used: indices of the pairs that it comes from.
    :param checks: indices of pairs to check it with.
    :param points: by index of a pair, or -1 for all pairs: visible and thermal points, (N, 2)
        each, pixels of the images as they are.
    """

    matrix: Array
    method: str
    facts: tuple[tuple[str, str], ...]
    reasons: tuple[str, ...]
    used: tuple[int, ...]
    checks: tuple[int, ...]
    points: Mapping[int, tuple[Array, Array]] = field(default_factory=dict)


def from_images(
    images: CalibrationImages, cameras: CameraModels, number: int, width: float | None
) -> Estimate:
    """
    Estimate from the images themselves.

    :param number: of frames, at most.
    :param width: part of the visible image's width that the thermal one covers, about; None if
        nobody knows.
    :raises UsageError: the images show nothing.
    """
    used, checks = choose_frames(images.pairs, number)
    if not used:
        raise UsageError(
            f'{images.place} shows nothing in one of the cameras: both images need edges'
        )
    chosen = [
        (
            undistorted_image(images.pairs[index].visible, cameras.visible),
            undistorted_image(images.pairs[index].thermal, cameras.thermal),
        )
        for index in used
    ]
    visible_size, thermal_size = images.sizes
    mask = None
    if cameras.thermal is not None:
        seen = np.pad(np.ones((thermal_size[1] - 2, thermal_size[0] - 2), np.float32), 1)
        mask = undistorted_image(seen, cameras.thermal) > 0.99
    guess = cameras.guess
    if width is not None:
        scale = width * visible_size[0] / thermal_size[0]
        guess = centred_guess(visible_size, thermal_size, scale)
    report(f'aligning {counted(len(chosen), "frame")}, which takes some seconds')
    found = align(chosen, guess=guess, thermal_mask=mask)
    scale = _scale(found.thermal_to_visible, thermal_size)
    facts = (
        ('method', f'from the images, {counted(len(used), "frame")} of {images.total}'),
        (
            'residual',
            f'corners known to {found.corner_spread:.2f} thermal pixels '
            f'({found.corner_spread * scale:.2f} visible)',
        ),
        ('match', f'score {found.score:.3f}, {found.margin:.0%} above the next best place'),
    )
    return Estimate(
        found.thermal_to_visible, 'images', facts, found.reasons, tuple(used), tuple(checks)
    )


def from_points(
    points: Array, images: CalibrationImages, cameras: CameraModels, number: int
) -> Estimate:
    """
    Estimate from points marked by hand, (N, 4); at most ``number`` pairs serve to check it.

    :raises UsageError: the points determine no homography.
    """
    visible, thermal = points[:, :2], points[:, 2:]
    fit = fit_points(*cameras.undistorted(visible, thermal), images.sizes, _CLICK_SIGMA)
    facts = [('method', f'from {len(points)} points marked by hand'), *fit.facts()]
    for index, (row, error) in enumerate(zip(points, fit.errors, strict=True), start=1):
        place = f'({row[0]:g}, {row[1]:g}) - ({row[2]:g}, {row[3]:g})'
        state = '' if fit.inside[index - 1] else ', left out'
        facts.append((f'point {index}', f'{place}: {error:.2f} thermal pixels{state}'))
    if len(points) == 4:
        report('warning: four points fit nearly anywhere, so nothing confirms them: mark more')
    used, checks = choose_frames(images.pairs, number)
    order = tuple(sorted((*used, *checks)))
    return Estimate(
        fit.matrix, 'points', tuple(facts), fit.reasons(), (), order, {-1: (visible, thermal)}
    )


def from_checkerboard(
    board: tuple[int, int], images: CalibrationImages, cameras: CameraModels
) -> Estimate:
    """
    Estimate from the corners of a checkerboard.

    :param board: inner corners along a row and along a column.
    :raises UsageError: no frame shows it to both cameras.
    """
    seen = dict.fromkeys(SOURCES, 0)
    corners: dict[int, tuple[Array, Array]] = {}
    for index, pair in enumerate(images.pairs):
        found = [find_board(getattr(pair, source), board) for source in SOURCES]
        for source, points in zip(SOURCES, found, strict=True):
            seen[source] += points is not None
        visible, thermal = found
        if visible is not None and thermal is not None:
            corners[index] = visible, matching_order(visible, thermal, board)
    total = len(images.pairs)
    text = (
        f'found in {seen["visible"]} visible and {seen["thermal"]} thermal images of {total}, in '
        f'both of {counted(len(corners), "frame")}'
    )
    if not corners:
        raise UsageError(
            f'no frame shows the board of {board[0]}x{board[1]} inner corners to both cameras: '
            f'{text}; for the thermal one its squares must differ in temperature'
        )
    groups = np.repeat(list(corners), board[0] * board[1])
    visible, thermal = (np.concatenate(points) for points in zip(*corners.values(), strict=True))
    ideal = cameras.undistorted(visible, thermal)
    fit = fit_points(*ideal, images.sizes, _CORNER_SIGMA, groups)
    facts = [('method', f'from a checkerboard, {text}'), *fit.facts()]
    for index in corners:
        errors = fit.errors[groups == index]
        residual = f'RMS {rms(errors):.2f} thermal pixels, worst {errors.max():.2f}'
        facts.append((f'frame {images.pairs[index].name}', residual))
    others = tuple(index for index in range(total) if index not in corners)
    return Estimate(
        fit.matrix, 'board', tuple(facts), fit.reasons(), tuple(corners), others, corners
    )


def _scale(matrix: Array, size: Size) -> float:
    """Return visible pixels per thermal pixel at the centre of the thermal image."""
    centre = (np.array(size) - 1) / 2
    square = apply_homography(matrix, centre + np.array([[0, 0], [1, 0], [0, 1]]))
    sides = square[1:] - square[0]
    return math.sqrt(abs(float(np.linalg.det(sides))))


def left_over(
    estimate: Estimate, images: CalibrationImages, placement: Placement
) -> tuple[str, str]:
    """
    Measure what a registration leaves of the misalignment on frames that it does not come from.

    :return: what to say, and why the estimate is not to be trusted, empty if nothing is wrong.
    """
    pairs = [images.pairs[index] for index in estimate.checks]
    if not pairs:
        return 'not measured: there are no other frames', ''
    monitor = MisalignmentMonitor(len(pairs))
    for pair in pairs:
        thermal = registered_image(pair.thermal, placement, images.sizes[0])
        found = monitor.look(pair.visible, thermal, placement.coverage)
    frames = counted(len(pairs), 'other frame' if estimate.used else 'frame')
    if not found.trusted:
        return f'cannot be measured: {frames} show too little together', ''
    most = max(_MOST_LEFT_OVER * max(images.sizes[0]), _LEAST_LEFT_OVER)
    off = found.distance
    thermal_off = off / _scale(estimate.matrix, images.sizes[1])
    text = f'{off:.1f} visible pixels ({thermal_off:.1f} thermal) over {frames}'
    if off <= most:
        return text, ''
    return text, f'{frames} are off by {off:.1f} visible pixels, of at most {most:.1f}'
