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
Alignment of a thermal image to a visible one from what both show, without a target.

A dense search over rotation and scale finds the similarity, of which a refinement makes a
homography. Both compare fields of gradients, see :mod:`dig2dig_ros.images.gradient_field`, and
sum scores over all pairs of one camera pair, so that many frames see what one does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dig2dig_ros.images.alignment_refinement import corner_spread, LEVELS, refine, Refined
from dig2dig_ros.images.alignment_search import (
    coarse_search,
    COARSE_SIDE,
    MODE_DISTANCE,
    Scene,
    SearchRange,
)
from dig2dig_ros.images.geometry import apply_homography, Array, corners_of, Size, to_unit_image

# What a trusted alignment must keep. Set on pairs of the training part of RoadScene and of TNO,
# right ones and such of images that do not belong together; most of those fail all four.
_LEAST_MARGIN = 0.38
_LEAST_SCORE = 0.12
# Parts of the thermal image's longer side, and pixels where those would be less.
_MOST_SPREAD = 0.0053
_MOST_HALVES_DISTANCE = 0.012
_LEAST_TOLERANCE = 2.0


@dataclass(frozen=True)
class HomographyEstimate:
    """
    The homography of a camera pair as the images show it, and how far it is to be trusted.

    :param thermal_to_visible: (3, 3) homography from thermal pixels (x, y, 1) to visible ones,
        the last element is 1.
    :param trusted: all checks passed.
    :param corner_spread: standard deviation of the thermal image's corners, in thermal pixels,
        root mean square over corners.
    :param score: correlation of the fields of gradients at 320 pixels of the visible image's
        longer side, at most 1.
    :param margin: by how much the score is above that of the best other mode, as part of it.
    :param halves_distance: corner distance in thermal pixels to the nearer of two alignments,
        each from one half of the scene alone, of interleaved squares.
    :param reasons: why it is not trusted; empty where it is.
    """

    thermal_to_visible: Array
    trusted: bool
    corner_spread: float
    score: float
    margin: float
    halves_distance: float
    reasons: tuple[str, ...]


def corner_distance(first: Array, second: Array, thermal_size: Size) -> float:
    """
    Return how far two homographies are apart: the root mean square over corners, thermal pixels.

    :param first: (3, 3) thermal to visible; likewise the second, which is taken as the truth.
    :param thermal_size: (width, height).
    """
    corners = corners_of(thermal_size)
    return _rms(apply_homography(np.linalg.inv(second) @ first, corners) - corners)


def align(
    pairs: Sequence[tuple[NDArray[Any], NDArray[Any]]],
    *,
    guess: Array | None = None,
    search: SearchRange | None = None,
    thermal_mask: NDArray[np.bool_] | None = None,
) -> HomographyEstimate:
    """
    Estimate the homography of a camera pair from one or more pairs of images.

    :param pairs: (visible, thermal) each; visible (H, W, 3) blue-green-red or (H, W), thermal
        (h, w), any numeric type; all visible images of one size, and all thermal ones.
    :param guess: (3, 3) thermal to visible; by default of :func:`centred_guess`.
    :param search: about the guess.
    :param thermal_mask: (h, w), false where the thermal images show nothing (a housing, corners
        without light); by default all counts.
    :raises RegistrationError: there is no pair, or sizes differ.
    """
    search = search or SearchRange()
    scene = Scene(pairs, guess, thermal_mask)
    modes, half_modes = coarse_search(scene, search)
    refined = _distinct(scene, [refine(scene, mode, LEVELS[:1]) for mode in modes])
    refined = _distinct(scene, [refine(scene, mode.warp, LEVELS[1:2]) for mode in refined])
    score = refined[0].score
    margin = (score - max((other.score for other in refined[1:]), default=0.0)) / max(score, 1e-9)
    final = refine(scene, refined[0].warp, LEVELS[2:])
    halves = min(
        corner_distance(refine(scene, mode, LEVELS[:2], half).warp, final.warp, scene.thermal_size)
        for half, mode in enumerate(half_modes)
    )
    spread = corner_spread(scene, final)
    longer = max(scene.thermal_size)
    reasons = _outside(scene, final.warp, search)
    if score < _LEAST_SCORE:
        reasons.append(
            f'the images have little in common: the score is {score:.2f}, of at least '
            f'{_LEAST_SCORE:g}'
        )
    if margin < _LEAST_MARGIN:
        reasons.append(
            f'another alignment matches nearly as well: the margin is {margin:.2f}, of at '
            f'least {_LEAST_MARGIN:g}'
        )
    tolerance = max(_MOST_SPREAD * longer, _LEAST_TOLERANCE)
    if spread > tolerance:
        reasons.append(
            f'the corners are uncertain by {spread:.1f} pixels, of at most {tolerance:.1f}'
        )
    tolerance = max(_MOST_HALVES_DISTANCE * longer, _LEAST_TOLERANCE)
    if halves > tolerance:
        reasons.append(
            f'neither half of the scene alone agrees: the nearer one is {halves:.1f} pixels off, '
            f'of at most {tolerance:.1f}'
        )
    matrix = final.warp / final.warp[2, 2]
    return HomographyEstimate(matrix, not reasons, spread, score, margin, halves, tuple(reasons))


def _outside(scene: Scene, warp: Array, search: SearchRange) -> list[str]:
    """Say where a warp is at the end of the search range: the truth may lie beyond."""
    to_unit = to_unit_image(scene.visible_size)
    total = to_unit @ warp @ np.linalg.inv(to_unit @ scene.guess)
    # The similarity nearest to it at the centre, where a perspective leaves scale as it is.
    total = total / total[2, 2]
    linear = total[:2, :2] - np.outer(total[:2, 2], total[2, :2])
    scale = math.sqrt(abs(float(np.linalg.det(linear))))
    rotation = math.atan2(linear[1, 0] - linear[0, 1], linear[0, 0] + linear[1, 1])
    shift = float(np.abs(total[:2, 2]).max()) / 2
    found = []
    if abs(rotation) > search.rotation:
        found.append(f'the rotation, {math.degrees(rotation):.1f} degrees')
    if abs(math.log(scale)) > math.log(search.scale):
        found.append(f'the scale, {scale:.3f}')
    if shift > search.shift:
        found.append(f'the shift, {shift:.2f} of the longer side')
    return [f'{what}, is at the end of the search: begin with a nearer guess' for what in found]


def _distinct(scene: Scene, refined: Sequence[Refined]) -> list[Refined]:
    """Return those that are not near one of a higher score, best first."""
    to_level = scene.level(COARSE_SIDE).from_visible
    corners = corners_of(scene.thermal_size)
    found: list[Refined] = []
    places: list[Array] = []
    for one in sorted(refined, key=lambda one: -one.score):
        place = apply_homography(to_level @ one.warp, corners)
        if min((_rms(place - other) for other in places), default=math.inf) > MODE_DISTANCE:
            found.append(one)
            places.append(place)
    return found


def _rms(vectors: Array) -> float:
    """Return the root mean square length of (N, 2) vectors."""
    return float(np.sqrt((vectors**2).sum(axis=1).mean()))
