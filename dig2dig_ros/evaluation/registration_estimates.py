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
from numpy.typing import NDArray

from dig2dig_ros.evaluation.options import report, UsageError
from dig2dig_ros.evaluation.registration_cameras import Cameras, rectified_image
from dig2dig_ros.evaluation.registration_pairs import choose_frames, Recording
from dig2dig_ros.evaluation.registration_points import (
    counted,
    find_board,
    fit_points,
    matching_order,
    project,
    rms,
)
from dig2dig_ros.images.alignment import align
from dig2dig_ros.images.misalignment import MisalignmentMonitor
from dig2dig_ros.images.placement import Placement
from dig2dig_ros.streams.pairing import SOURCES
from dig2dig_ros.streams.preparation import registered_image

Array = NDArray[np.float64]

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

    :param matrix: (3, 3) from thermal to visible pixels, of undistorted ones where camera models
        are used.
    :param method: a key of the advice.
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
    recording: Recording, cameras: Cameras, number: int, width: float | None
) -> Estimate:
    """
    Estimate from the images themselves.

    :param number: of frames, at most.
    :param width: part of the visible image's width that the thermal one covers, about; None if
        nobody knows.
    """
    used, checks = choose_frames(recording.pairs, number)
    if not used:
        raise UsageError(
            f'{recording.place} shows nothing in one of the cameras: both images need edges'
        )
    chosen = [recording.pairs[index] for index in used]
    images = [
        (rectified_image(p.visible, cameras.visible), rectified_image(p.thermal, cameras.thermal))
        for p in chosen
    ]
    mask = None
    if cameras.thermal is not None:
        columns, rows = recording.sizes[1]
        seen = np.pad(np.ones((rows - 2, columns - 2), np.float32), 1)
        mask = rectified_image(seen, cameras.thermal) > 0.99
    guess = cameras.guess if width is None else _guess(recording.sizes, width)
    report(f'aligning {counted(len(images), "frame")}, which takes some seconds')
    found = align(images, guess=guess, thermal_mask=mask)
    scale = _scale(found.thermal_to_visible, recording.sizes[1])
    facts = (
        ('method', f'from the images, {counted(len(used), "frame")} of {recording.total}'),
        (
            'residual',
            f'corners known to {found.corner_spread:.2f} thermal pixels '
            f'({found.corner_spread * scale:.2f} visible)',
        ),
        ('match', f'score {found.score:.3f}, {found.margin:.0%} above the next best place'),
    )
    return Estimate(
        found.thermal_to_visible,
        'images',
        facts,
        tuple(found.reasons),
        tuple(used),
        tuple(checks),
    )


def _guess(sizes: tuple[tuple[int, int], tuple[int, int]], width: float) -> Array:
    """Return the homography of a thermal image in the middle of the visible one."""
    visible, thermal = (np.array(size) for size in sizes)
    scale = width * visible[0] / thermal[0]
    x, y = ((visible - 1) - scale * (thermal - 1)) / 2
    return np.array([[scale, 0, x], [0, scale, y], [0, 0, 1]], np.float64)


def from_points(points: Array, recording: Recording, cameras: Cameras, number: int) -> Estimate:
    """Estimate from points marked by hand; the pairs only serve to check."""
    visible, thermal = points[:, :2], points[:, 2:]
    fit = fit_points(*cameras.undistorted(visible, thermal), recording.sizes, _CLICK_SIGMA)
    facts = [('method', f'from {len(points)} points marked by hand'), *fit.facts()]
    for index, (row, error) in enumerate(zip(points, fit.errors, strict=True), start=1):
        place = f'({row[0]:g}, {row[1]:g}) - ({row[2]:g}, {row[3]:g})'
        state = '' if fit.inside[index - 1] else ', left out'
        facts.append((f'point {index}', f'{place}: {error:.2f} thermal pixels{state}'))
    if len(points) == 4:
        report('warning: four points fit nearly anywhere, so nothing confirms them: mark more')
    used, checks = choose_frames(recording.pairs, number)
    order = tuple(sorted((*used, *checks)))
    return Estimate(
        fit.matrix, 'points', tuple(facts), fit.reasons(), (), order, {-1: (visible, thermal)}
    )


def from_checkerboard(board: tuple[int, int], recording: Recording, cameras: Cameras) -> Estimate:
    """
    Estimate from the corners of a checkerboard.

    :param board: inner corners along a row and along a column.
    :raises UsageError: no frame shows it to both cameras.
    """
    found: dict[str, set[int]] = {source: set() for source in SOURCES}
    corners: dict[int, tuple[Array, Array]] = {}
    for index, pair in enumerate(recording.pairs):
        visible = find_board(pair.visible, board)
        thermal = find_board(pair.thermal, board)
        for source, points in zip(SOURCES, (visible, thermal), strict=True):
            if points is not None:
                found[source].add(index)
        if visible is not None and thermal is not None:
            corners[index] = visible, matching_order(visible, thermal, board)
    total = len(recording.pairs)
    seen = (
        f'in {len(found["visible"])} visible and {len(found["thermal"])} thermal images of '
        f'{total}, in both of {counted(len(corners), "frame")}'
    )
    if not corners:
        raise UsageError(
            f'no frame shows the board of {board[0]}x{board[1]} inner corners to both cameras: '
            f'found {seen}; for the thermal one its squares must differ in temperature'
        )
    groups = np.repeat(list(corners), [len(v) for v, _ in corners.values()])
    visible = np.concatenate([v for v, _ in corners.values()])
    thermal = np.concatenate([t for _, t in corners.values()])
    ideal = cameras.undistorted(visible, thermal)
    fit = fit_points(*ideal, recording.sizes, _CORNER_SIGMA, groups)
    facts = [
        ('method', f'from a checkerboard, found {seen}'),
        *fit.facts(),
        *(
            (
                f'frame {recording.pairs[index].name}',
                f'RMS {rms(fit.errors[groups == index]):.2f} thermal pixels, worst '
                f'{fit.errors[groups == index].max():.2f}',
            )
            for index in corners
        ),
    ]
    others = tuple(index for index in range(total) if index not in corners)
    return Estimate(
        fit.matrix, 'board', tuple(facts), fit.reasons(), tuple(corners), others, corners
    )


def _scale(matrix: Array, size: tuple[int, int]) -> float:
    """Return visible pixels per thermal pixel at the centre of the thermal image."""
    centre = (np.array(size) - 1) / 2
    square = project(matrix, centre + np.array([[0, 0], [1, 0], [0, 1]]))
    sides = square[1:] - square[0]
    return math.sqrt(abs(float(np.linalg.det(sides))))


def left_over(estimate: Estimate, recording: Recording, placement: Placement) -> tuple[str, str]:
    """
    Measure what a registration leaves of the misalignment on frames that it does not come from.

    :return: what to say, and why the estimate is not to be trusted, empty if nothing is wrong.
    """
    pairs = [recording.pairs[index] for index in estimate.checks]
    if not pairs:
        return 'not measured: there are no other frames', ''
    together, single = MisalignmentMonitor(len(pairs)), MisalignmentMonitor(1)
    distances = []
    for pair in pairs:
        thermal = registered_image(pair.thermal, placement, recording.sizes[0])
        images = (pair.visible, thermal, placement.coverage)
        all_by_now = together.look(*images)
        alone = single.look(*images)
        if alone.trusted:
            distances.append(alone.distance)
    scale = _scale(estimate.matrix, recording.sizes[1])
    frames = counted(len(pairs), 'other frame' if estimate.used else 'frame')
    if not all_by_now.trusted:
        return f'cannot be measured: {frames} show too little together', ''
    most = max(_MOST_LEFT_OVER * max(recording.sizes[0]), _LEAST_LEFT_OVER)
    distance = all_by_now.distance
    text = f'{distance:.1f} visible pixels ({distance / scale:.1f} thermal) over {frames}'
    if distances:
        median = float(np.median(distances))
        text += (
            f'; median {median:.1f}, worst {max(distances):.1f}, of the {len(distances)} that '
            'tell by themselves'
        )
    if distance <= most:
        return text, ''
    return text, f'{frames} are off by {distance:.1f} visible pixels, of at most {most:.1f}'
