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
Alignment of a thermal image to a visible one from their content, without a target.

A dense search over rotation and scale finds a similarity; score maps of blocks of the image then
refine it to a homography, or keep it a similarity. Both compare fields of gradients
(:mod:`dig2dig_ros.images.gradient_field`) and sum the scores over all pairs of one camera pair:
many frames show what one does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
import math
from typing import Any, Literal, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from dig2dig_ros.images.alignment_search import (
    checkerboard,
    coarse_search,
    COARSE_SIDE,
    Level,
    MODE_DISTANCE,
    Scene,
    SearchRange,
)
from dig2dig_ros.images.geometry import (
    apply_homography,
    Array,
    corners_of,
    homography_derivatives,
    Size,
    to_unit_image,
)

# What a trusted alignment must reach. Set on the training part of RoadScene and on TNO, with right
# pairs and with images that do not belong together, most of which fail every check.
_LEAST_MARGIN = 0.38
_LEAST_SCORE = 0.12
# As part of the thermal image's longer side; at least this number of pixels.
_MOST_HALVES_DISTANCE = 0.012
_LEAST_TOLERANCE = 2.0
# How far the corners may be off: a part likewise, and its bounds in pixels. Set on RoadScene, FLIR
# and MSRS so that none that was off by more than 5 pixels passed; docs/cameras.md has others.
_MOST_UNCERTAINTY = 0.015
_UNCERTAINTY_LIMITS = (5.0, 5.8)
# How far the homography may be from a similarity, as part of its own uncertainty. At 1, 23 of 37
# similarities that passed on RoadScene, FLIR and MSRS were off by more than 5 pixels, though they
# were of cameras that did not look in the same direction; at 0.5, 5 of 15.
_MOST_DISAGREEMENT = 0.5
# The score at which the uncertainty counts as it is. It grows with the root of how far the score
# is below.
_COMMON_SCORE = 0.25
# Factor for standard deviations that are hardly resampled: the posterior, and even weights.
_SIGMAS = 3.0
# The largest radius of the score maps for the uncertainty: resamples move far.
_WIDE_RADIUS = 8

# The longer side of the images (at most), the radius of the score maps in pixels, and the rounds.
_LEVELS = ((160, 5, 2), (320, 5, 3), (640, 4, 3), (1280, 4, 2))
_LATER_RADIUS = 3  # of the score maps, after the first round of a level
_BLOCKS = 10  # along the longer side
# Standard deviations by which a camera pair differs from a similarity: aspect and shear; and
# perspective, in units of half the longer side.
_AFFINE_SIGMA = 0.01
_PERSPECTIVE_SIGMA = 0.03
# Both, if only a similarity is wanted.
_SIMILARITY_SIGMA = 1e-4
# Independent observations per unit of the score, since neighbouring pixels see the same edge: as
# measured, for the uncertainty of the corners; and fewer, so that wrong blocks do not outweigh
# the prior.
_SPREAD_WEIGHT = 0.03
_SCORE_WEIGHT = 0.003
_ROUNDS = 12
_RESAMPLES = 24
# The first eight elements of a homography.
_IDENTITY = np.eye(3).ravel()[:8]

Model: TypeAlias = Literal['homography', 'similarity']


@dataclass(frozen=True)
class CornerUncertainty:
    """
    How far the corners may be off, by each kind of evidence alone, in thermal pixels.

    :param blocks: standard deviation of the worst corner over resamples of the blocks: large
        where parts of the scene contradict each other.
    :param structure: standard deviation of the posterior, root mean square over corners: large
        where no edges hold them.
    :param evenness: how far the corners move if strong blocks count less: large where a few of
        them decide.
    :param frames: standard deviation of the jackknife over frames: large where frames contradict
        each other; 0 for a single frame.
    :param score: of the estimate, at most 1.
    """

    blocks: float
    structure: float
    evenness: float
    frames: float
    score: float

    @property
    def parts(self) -> dict[str, float]:
        """Return the terms of the sum of squares, by the reason for the uncertainty."""
        return {
            'parts of the scene contradict each other': self.blocks,
            'no edges hold them': _SIGMAS * self.structure,
            'few edges decide': _SIGMAS * self.evenness,
            'the frames contradict each other': self.frames,
        }

    @property
    def total(self) -> float:
        """Return everything together; it is larger where the images have less in common."""
        common = math.sqrt(_COMMON_SCORE / max(self.score, 1e-3))
        return common * math.hypot(*self.parts.values())

    def reason(self, longer: int) -> str:
        """
        Say why the corners are too uncertain; empty if they are not.

        :param longer: longer side of the thermal image, in pixels.
        """
        most = float(np.clip(_MOST_UNCERTAINTY * longer, *_UNCERTAINTY_LIMITS))
        if self.total <= most:
            return ''
        cause = max(self.parts, key=lambda part: self.parts[part])
        return (
            f'the corners may be off by {self.total:.1f} pixels (limit {most:.1f}), mostly '
            f'because {cause}'
        )


@dataclass(frozen=True)
class HomographyEstimate:
    """
    The homography of a camera pair as the images show it, and whether to trust it.

    :param thermal_to_visible: (3, 3) homography from thermal pixels (x, y, 1) to visible ones,
        with 1 as its last element.
    :param trusted: all checks passed.
    :param uncertainty: how far the thermal image's corners may be off, in thermal pixels.
    :param score: correlation of the fields of gradients at 320 pixels of the visible image's
        longer side, at most 1.
    :param margin: by how much the score exceeds that of the best other mode, as part of it.
    :param halves_distance: corner distance in thermal pixels to the nearer of two alignments,
        each from one half of the scene alone (interleaved squares).
    :param reasons: why it is not trusted; empty if it is.
    """

    thermal_to_visible: Array
    trusted: bool
    uncertainty: CornerUncertainty
    score: float
    margin: float
    halves_distance: float
    reasons: tuple[str, ...]


def corner_distance(first: Array, second: Array, thermal_size: Size) -> float:
    """
    Return how far apart two homographies are: root mean square over corners, in thermal pixels.

    :param first: (3, 3) thermal to visible; so is the second, which counts as the truth.
    """
    corners = corners_of(thermal_size)
    return _rms(apply_homography(np.linalg.inv(second) @ first, corners) - corners)


def align(
    pairs: Sequence[tuple[NDArray[Any], NDArray[Any]]],
    *,
    guess: Array | None = None,
    search: SearchRange | None = None,
    thermal_mask: NDArray[np.bool_] | None = None,
    model: Model = 'homography',
) -> HomographyEstimate:
    """
    Estimate the homography of a camera pair from one or more pairs of images.

    A similarity is right only for cameras that look in the same direction, which the images
    cannot show if no edges hold the corners. It is trusted if its own corners are known, and if
    the homography of the same images is as close as its uncertainty lets expect.

    :param pairs: (visible, thermal) each; visible (H, W, 3) blue-green-red or (H, W), thermal
        (h, w), any numeric type; all visible images of one size, and all thermal ones.
    :param guess: (3, 3) thermal to visible; by default that of :func:`centred_guess`.
    :param search: about the guess.
    :param thermal_mask: (h, w), false where the thermal images show nothing (a housing, corners
        without light); by default everything counts.
    :param model: what to estimate; a similarity has rotation, scale and shift in addition to the
        guess, and neither aspect, shear nor perspective.
    :raises RegistrationError: there is no pair, or sizes differ.
    """
    search = search or SearchRange()
    scene = Scene(pairs, guess, thermal_mask)
    modes, half_modes = coarse_search(scene, search)
    refined = _distinct(scene, [_refine(scene, mode, _LEVELS[:1], model=model) for mode in modes])
    refined = _distinct(
        scene, [_refine(scene, mode.warp, _LEVELS[1:2], model=model) for mode in refined]
    )
    score = refined[0].score
    margin = (score - max((other.score for other in refined[1:]), default=0.0)) / max(score, 1e-9)
    final = _refine(scene, refined[0].warp, _LEVELS[2:], model=model)
    by_half = [
        _refine(scene, mode, _LEVELS[:2], half, model=model)
        for half, mode in enumerate(half_modes)
    ]
    # Compared with what the same levels make of the whole.
    whole = refined[0].warp
    halves = min(corner_distance(h.warp, whole, scene.thermal_size) for h in by_half)
    uncertainty = _uncertainty(scene, final, score)
    longer = max(scene.thermal_size)
    reasons = _outside(scene, final.warp, search)
    if score < _LEAST_SCORE:
        reasons.append(
            f'the images have little in common: the score is {score:.2f}, but must be at least '
            f'{_LEAST_SCORE:g}'
        )
    if margin < _LEAST_MARGIN:
        reasons.append(
            f'another alignment matches nearly as well: the margin is {margin:.2f}, but must be '
            f'at least {_LEAST_MARGIN:g}'
        )
    if reason := uncertainty.reason(longer):
        reasons.append(reason)
    tolerance = max(_MOST_HALVES_DISTANCE * longer, _LEAST_TOLERANCE)
    if halves > tolerance:
        reasons.append(
            f'neither half of the scene alone agrees: the nearer one is {halves:.1f} pixels off '
            f'(limit {tolerance:.1f})'
        )
    if model == 'similarity':
        reasons += _more_than_similarity(scene, final, score)
    matrix = final.warp / final.warp[2, 2]
    return HomographyEstimate(
        matrix, not reasons, uncertainty, score, margin, halves, tuple(reasons)
    )


def _more_than_similarity(scene: Scene, similarity: _Refined, score: float) -> list[str]:
    """Say whether a homography that starts from a similarity moves away from it."""
    free = _refine(scene, similarity.warp, _LEVELS[1:])
    distance = corner_distance(free.warp, similarity.warp, scene.thermal_size)
    most = _MOST_DISAGREEMENT * _uncertainty(scene, free, score).total
    if distance <= most:
        return []
    return [
        'the images show more than a similarity: the corners of their homography are '
        f'{distance:.1f} pixels away (limit {most:.1f})'
    ]


def _outside(scene: Scene, warp: Array, search: SearchRange) -> list[str]:
    """Say what is at the end of the search range, as the truth may lie beyond it."""
    to_unit = to_unit_image(scene.visible_size)
    total = to_unit @ warp @ np.linalg.inv(to_unit @ scene.guess)
    # The nearest similarity at the centre, where perspective does not change the scale.
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
    return [f'{what}, is at the end of the search: start from a closer guess' for what in found]


def _distinct(scene: Scene, refined: Sequence[_Refined]) -> list[_Refined]:
    """Return those that are not close to one with a higher score, best first."""
    to_level = scene.level(COARSE_SIDE).from_visible
    corners = corners_of(scene.thermal_size)
    found: list[_Refined] = []
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


@dataclass
class _Refined:
    """
    A warp, (3, 3) from thermal to visible pixels, and what the images show there.

    :param score: correlation of the fields of gradients.
    :param maps: (B, 2 radius + 1, 2 radius + 1) scores of the blocks by their displacement.
    :param basis: (B, 2, 8) how blocks move with the elements of a homography, in pixels.
    :param prior: for a further step, see :func:`_prior`.
    """

    warp: Array
    score: float
    maps: NDArray[np.float32]
    basis: Array
    prior: tuple[Array, Array]
    level: Level


def _refine(
    scene: Scene,
    warp: Array,
    levels: Sequence[tuple[int, int, int]],
    half: int | None = None,
    model: Model = 'homography',
) -> _Refined:
    """Refine a warp from thermal to visible pixels, from coarse to fine."""
    done: Level | None = None
    for side, radius, rounds in levels:
        level = scene.level(side)
        if level is done:
            break
        done = level
        to_unit = to_unit_image(level.size) @ level.from_visible
        for index in range(rounds):
            reach = radius if index == 0 else min(radius, _LATER_RADIUS)
            maps, _, basis = _block_scores(level, warp, reach, half)
            step = _best_step(maps, basis, _prior(scene, level, warp, model))
            move = np.append(_IDENTITY + step, 1.0).reshape(3, 3)
            warp = np.linalg.inv(to_unit) @ np.linalg.inv(move) @ to_unit @ warp
            warp = warp / warp[2, 2]
    maps, score, basis = _block_scores(level, warp, reach, half)
    return _Refined(warp, score, maps, basis, _prior(scene, level, warp, model), level)


def _block_scores(
    level: Level, warp: Array, radius: int, half: int | None, frame: int | None = None
) -> tuple[NDArray[np.float32], float, Array]:
    """
    Return maps, score and basis of :class:`_Refined`; the visible image has the blocks.

    :param frame: the only one that counts; by default all of them.
    """
    width, height = level.size
    cell = max(level.size) / _BLOCKS
    xs = np.linspace(0, width, max(2, round(width / cell)) + 1).round().astype(int)
    ys = np.linspace(0, height, max(2, round(height / cell)) + 1).round().astype(int)
    blocks = [(y, x) for y in pairwise(ys) for x in pairwise(xs)]
    maps = np.zeros((len(blocks), 2 * radius + 1, 2 * radius + 1), np.float32)
    check = np.float32(1) if half is None else checkerboard(level.size)[half]
    area = width * height if half is None else float(check.sum())
    correlation = 0.0
    frames = range(len(level.visible)) if frame is None else (frame,)
    for index in frames:
        visible, _ = level.visible[index]
        thermal, mask = level.warped(index, level.from_visible @ warp, level.size)
        fixed = visible * check
        around = np.pad(thermal, ((0, 0), (radius, radius), (radius, radius)))
        template, moved = (np.ascontiguousarray(np.moveaxis(c, 0, -1)) for c in (fixed, around))
        for block, ((top, bottom), (left, right)) in enumerate(blocks):
            maps[block] += cv2.matchTemplate(
                moved[top : bottom + 2 * radius, left : right + 2 * radius],
                template[top:bottom, left:right],
                cv2.TM_CCORR,
            )
        inside = mask * check
        energies = [float((x * x * inside).sum()) for x in (visible, thermal)]
        centre = float((fixed * thermal).sum())
        share = float(inside.sum()) / area
        correlation += centre / math.sqrt(max(energies[0] * energies[1], 1e-6)) * math.sqrt(share)
    unit = max(level.size) / 2
    centres = np.array(
        [((x0 + x1 - width) / 2, (y0 + y1 - height) / 2) for (y0, y1), (x0, x1) in blocks]
    )
    basis, _ = homography_derivatives(_IDENTITY, centres / unit)
    return maps, correlation / len(frames), basis * unit


def _prior(scene: Scene, level: Level, warp: Array, model: Model) -> tuple[Array, Array]:
    """
    Return the prior: a camera pair differs from its guess by little more than a similarity.

    :return: rows (4, 8) by which a step reduces the excess, and the excess (4,), both in standard
        deviations.
    """
    to_unit = to_unit_image(level.size) @ level.from_visible
    total = to_unit @ warp @ np.linalg.inv(to_unit @ scene.guess)
    total = total / total[2, 2]
    rows = np.zeros((4, 8))
    rows[0, [0, 4]] = 1, -1
    rows[1, [1, 3]] = 1, 1
    rows[2, 6] = rows[3, 7] = 1
    (a, b, _), (d, e, _), (g, h, _) = total
    sigma = np.array([_AFFINE_SIGMA, _AFFINE_SIGMA, _PERSPECTIVE_SIGMA, _PERSPECTIVE_SIGMA])
    if model == 'similarity':
        sigma = np.full(4, _SIMILARITY_SIGMA)
    return rows / sigma[:, None], np.array([a - e, b + d, g, h]) / sigma


def _best_step(maps: NDArray[np.float32], basis: Array, prior: tuple[Array, Array]) -> Array:
    """
    Return the step (8,) that maximises the sum of the blocks' scores and the prior.

    By the method of Levenberg and Marquardt.
    """
    step = np.zeros(8)
    damping = 1e-3
    value, gradient, hessian = _objective(maps, basis, prior, step)
    for _ in range(_ROUNDS):
        diagonal = np.diag(np.diag(hessian) * damping + 1e-6)
        candidate = step + np.linalg.solve(hessian + diagonal, gradient)
        found = _objective(maps, basis, prior, candidate)
        if found[0] > value:
            done = found[0] - value < 1e-4 * abs(value)
            step, (value, gradient, hessian) = candidate, found
            damping = max(damping / 5, 1e-4)
            if done:
                break
        else:
            damping *= 8
    return step


def _objective(
    maps: NDArray[np.float32], basis: Array, prior: tuple[Array, Array], step: Array
) -> tuple[float, Array, Array]:
    """Return the value, the gradient, and the negative Hessian, made positive."""
    radius = maps.shape[1] // 2
    displacement = basis @ step  # (B, 2): x, y
    at = np.clip(displacement + radius, 1.0, 2 * radius - 1.0)
    inside = np.abs(displacement).max(axis=1) <= radius - 1
    nearest = np.rint(at).astype(int)
    dx, dy = (at - nearest).T
    b = np.arange(len(maps))
    x, y = nearest.T

    def score(i: int, j: int) -> Array:
        return np.asarray(maps[b, y + j, x + i], np.float64)

    # The quadratic through the cross in the middle, with the mixed derivative from the corners.
    c, left, right, above, below = (
        score(i, j) for i, j in ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))
    )
    gx, gy = (right - left) / 2, (below - above) / 2
    hxx, hyy = right + left - 2 * c, below + above - 2 * c
    hxy = (score(1, 1) + score(-1, -1) - score(1, -1) - score(-1, 1)) / 4
    value = c + gx * dx + gy * dy + (hxx * dx * dx + hyy * dy * dy) / 2 + hxy * dx * dy
    slope = np.stack([gx + hxx * dx + hxy * dy, gy + hyy * dy + hxy * dx], axis=-1)
    slope[~inside] = 0
    curvature = -np.stack([np.stack([hxx, hxy], -1), np.stack([hxy, hyy], -1)], -2)
    eigenvalues, vectors = np.linalg.eigh(curvature)
    positive = np.maximum(np.abs(eigenvalues), 1e-3) * inside[:, None]
    curvature = np.einsum('bij,bj,bkj->bik', vectors, positive, vectors)
    rows, values = prior
    misfit = values - rows @ step
    total = _SCORE_WEIGHT * float(value.sum()) - 0.5 * float(misfit @ misfit)
    gradient = _SCORE_WEIGHT * np.einsum('bip,bi->p', basis, slope) + rows.T @ misfit
    hessian = _SCORE_WEIGHT * np.einsum('bip,bij,bjq->pq', basis, curvature, basis) + rows.T @ rows
    return total, gradient, hessian


def _uncertainty(scene: Scene, refined: _Refined, score: float) -> CornerUncertainty:
    """
    Return how far the thermal corners may be off.

    :param score: at the level of the thresholds.
    """
    level, warp, prior = refined.level, refined.warp, refined.prior
    radius = max(_LATER_RADIUS + 1, min(_WIDE_RADIUS, max(level.size) // (2 * _BLOCKS)))
    number = len(scene.pairs)
    by_frame = np.stack(
        [_block_scores(level, warp, radius, None, frame)[0] for frame in range(number)]
    )
    maps, basis = by_frame.sum(axis=0), refined.basis
    moves = _corner_moves(scene, refined)
    random = np.random.default_rng(0)
    steps = []
    for _ in range(_RESAMPLES):
        chosen = random.integers(0, len(maps), len(maps))
        steps.append(moves @ _best_step(maps[chosen], basis[chosen], prior))
    blocks = np.stack(steps).var(axis=0).sum(axis=1).max()
    _, _, hessian = _objective(_SPREAD_WEIGHT / _SCORE_WEIGHT * maps, basis, prior, np.zeros(8))
    covariance = np.linalg.inv(hessian + 1e-9 * np.eye(8))
    structure = np.einsum('bip,pq,biq->', moves, covariance, moves) / len(moves)
    even = _rms(moves @ _best_step(_evened(maps), basis, prior))
    frames = 0.0
    if number > 1:
        # The jackknife.
        left_out = [moves @ _best_step(maps - one, basis, prior) for one in by_frame]
        frames = sum(_rms(move) ** 2 for move in left_out) * (number - 1) / number
    return CornerUncertainty(
        math.sqrt(blocks), math.sqrt(max(structure, 0.0)), even, math.sqrt(frames), score
    )


def _corner_moves(scene: Scene, refined: _Refined) -> Array:
    """Return how the thermal corners move with a step, (4, 2, 8), in thermal pixels."""
    size = refined.level.size
    to_level = refined.level.from_visible @ refined.warp
    corners = apply_homography(to_level, corners_of(scene.thermal_size))
    points = (corners - (np.array(size) - 1) / 2) / (max(size) / 2)
    basis = homography_derivatives(_IDENTITY, points)[0] * (max(size) / 2)
    scale = math.sqrt(abs(float(np.linalg.det(to_level[:2, :2] / to_level[2, 2]))))
    return np.asarray(basis / scale)


def _evened(maps: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the maps of the blocks, with peaks in proportion to the roots of what they were."""
    peaks = maps.max(axis=(1, 2)) - np.median(maps, axis=(1, 2))
    seen = peaks > 1e-2
    if not seen.any():
        return maps
    factor = np.sqrt(np.median(peaks[seen]) / np.maximum(peaks, 1e-3))
    return np.asarray(maps * factor[:, None, None], np.float32)
