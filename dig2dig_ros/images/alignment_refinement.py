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
The refinement of an alignment to a homography, by local score maps of blocks of the image.

Scores are summed over all pairs of one camera pair, so that many frames see what one does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
import math

import cv2
import numpy as np
from numpy.typing import NDArray

from dig2dig_ros.images.alignment_search import checkerboard, Level, Scene
from dig2dig_ros.images.geometry import apply_homography, Array, corners_of, normalisation

# The refinement: longer sides, as far as the images have them, the radius of the score maps in
# pixels, and rounds at each.
LEVELS = ((160, 5, 2), (320, 5, 3), (640, 4, 3), (1280, 4, 2))
_LATER_RADIUS = 3  # of the score maps, after the first round of a level
_BLOCKS = 10  # along the longer side
# One standard deviation of what a camera pair has beside a similarity: aspect and shear, and
# perspective, in units of half the longer side.
_AFFINE_SIGMA = 0.01
_PERSPECTIVE_SIGMA = 0.03
# Independent observations per unit of the score: neighbouring pixels see the same edge.
_SCORE_WEIGHT = 0.003

# The same for the uncertainty of the corners: as measured. The above is less on purpose, lest
# blocks that are wrong outweigh the prior.
_SPREAD_WEIGHT = 0.03


@dataclass
class Refined:
    """A warp, and what is seen there: its score, score maps by block, their basis, the prior."""

    warp: Array
    score: float
    maps: NDArray[np.float32]
    basis: Array
    prior: tuple[Array, Array]
    level: Level


def refine(
    scene: Scene, warp: Array, levels: Sequence[tuple[int, int, int]], half: int | None = None
) -> Refined:
    """Refine a warp from thermal to visible pixels to a homography, from coarse to fine."""
    done: Level | None = None
    for side, radius, rounds in levels:
        level = scene.level(side)
        if level is done:
            break
        done = level
        normalise = normalisation(level.size) @ level.from_visible
        for index in range(rounds):
            reach = radius if index == 0 else min(radius, _LATER_RADIUS)
            maps, _, basis = _block_scores(level, warp, reach, half)
            step = _ascend(maps, basis, _prior(scene, level, warp), reach)
            warp = np.linalg.inv(normalise) @ np.linalg.inv(_generator(step)) @ normalise @ warp
            warp = warp / warp[2, 2]
    maps, score, basis = _block_scores(level, warp, reach, half)
    return Refined(warp, score, maps, basis, _prior(scene, level, warp), level)


def _block_scores(
    level: Level, warp: Array, radius: int, half: int | None
) -> tuple[NDArray[np.float32], float, Array]:
    """
    Return how well blocks of the visible image match the warped thermal one, by displacement.

    :return: maps (B, 2 radius + 1, 2 radius + 1) over (dy, dx), summed over pairs; the
        correlation without displacement; and (B, 2, 8): how the blocks move with the parameters
        of a homography, in pixels.
    """
    width, height = level.size
    cell = max(level.size) / _BLOCKS
    xs = np.linspace(0, width, max(2, round(width / cell)) + 1).round().astype(int)
    ys = np.linspace(0, height, max(2, round(height / cell)) + 1).round().astype(int)
    blocks = [(y, x) for y in pairwise(ys) for x in pairwise(xs)]
    maps = np.zeros((len(blocks), 2 * radius + 1, 2 * radius + 1), np.float32)
    check = (
        np.ones((height, width), np.float32) if half is None else checkerboard(level.size)[half]
    )
    correlation = 0.0
    for index, (visible, _) in enumerate(level.described):
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
        share = float(inside.sum()) / float(check.sum())
        correlation += centre / math.sqrt(max(energies[0] * energies[1], 1e-6)) * math.sqrt(share)
    unit = max(level.size) / 2
    u = np.array([(left + right - width) / 2 / unit for _, (left, right) in blocks])
    v = np.array([(top + bottom - height) / 2 / unit for (top, bottom), _ in blocks])
    return maps, correlation / len(level.described), _basis(u, v) * unit


def _prior(scene: Scene, level: Level, warp: Array) -> tuple[Array, Array]:
    """Return rows of a least-squares prior on a step, and their values: what is no similarity."""
    normalise = normalisation(level.size) @ level.from_visible
    total = normalise @ warp @ np.linalg.inv(normalise @ scene.guess)
    total = total / total[2, 2]
    rows = np.zeros((4, 8))
    rows[0, [0, 4]] = 1, -1
    rows[1, [1, 3]] = 1, 1
    rows[2, 6] = rows[3, 7] = 1
    values = np.array(
        [total[0, 0] - total[1, 1], total[0, 1] + total[1, 0], total[2, 0], total[2, 1]]
    )
    sigma = np.array([_AFFINE_SIGMA, _AFFINE_SIGMA, _PERSPECTIVE_SIGMA, _PERSPECTIVE_SIGMA])
    return rows / sigma[:, None], values / sigma


def _ascend(
    maps: NDArray[np.float32],
    basis: Array,
    prior: tuple[Array, Array],
    radius: int,
    rounds: int = 12,
) -> Array:
    """Return the step (8,) that maximises the sum of the blocks' scores and the prior."""
    step = np.zeros(8)
    damping = 1e-3
    value, gradient, hessian = _objective(maps, basis, prior, radius, step)
    for _ in range(rounds):
        diagonal = np.diag(np.diag(hessian) * damping + 1e-6)
        candidate = step + np.linalg.solve(hessian + diagonal, gradient)
        found = _objective(maps, basis, prior, radius, candidate)
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
    maps: NDArray[np.float32],
    basis: Array,
    prior: tuple[Array, Array],
    radius: int,
    step: Array,
) -> tuple[float, Array, Array]:
    """Return the value, the gradient, and minus the Hessian made positive."""
    displacement = basis @ step  # (B, 2): x, y
    at = np.clip(displacement + radius, 1.0, 2 * radius - 1.0)
    inside = np.abs(displacement).max(axis=1) <= radius - 1
    nearest = np.rint(at).astype(int)
    dx, dy = (at - nearest).T
    b = np.arange(len(maps))
    x, y = nearest.T
    patch = (
        np.stack([maps[b, y + j, x + i] for j in (-1, 0, 1) for i in (-1, 0, 1)], axis=-1)
        .reshape(-1, 3, 3)
        .astype(np.float64)
    )
    # The quadratic through the middle cross, with the mixed derivative of the corners.
    c = patch[:, 1, 1]
    gx = (patch[:, 1, 2] - patch[:, 1, 0]) / 2
    gy = (patch[:, 2, 1] - patch[:, 0, 1]) / 2
    hxx = patch[:, 1, 2] + patch[:, 1, 0] - 2 * c
    hyy = patch[:, 2, 1] + patch[:, 0, 1] - 2 * c
    hxy = (patch[:, 2, 2] + patch[:, 0, 0] - patch[:, 0, 2] - patch[:, 2, 0]) / 4
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


def corner_spread(scene: Scene, refined: Refined, resamples: int = 24) -> float:
    """
    Return the uncertainty of the thermal corners, thermal pixels, root mean square.

    The spread over bootstrap resamples of the blocks, which sees blocks that contradict each
    other, and that of the posterior, which sees what no block determines, add as squares.
    """
    random = np.random.default_rng(0)
    level = refined.level
    radius = refined.maps.shape[1] // 2
    number = len(refined.maps)
    steps = []
    for _ in range(resamples):
        chosen = random.integers(0, number, number)
        steps.append(_ascend(refined.maps[chosen], refined.basis[chosen], refined.prior, radius))
    maps = _SPREAD_WEIGHT / _SCORE_WEIGHT * refined.maps
    _, _, hessian = _objective(maps, refined.basis, refined.prior, radius, np.zeros(8))
    covariance = np.cov(np.stack(steps), rowvar=False) + np.linalg.inv(hessian + 1e-9 * np.eye(8))
    # Of the corners as far as they are seen, in level pixels, and those in thermal pixels.
    to_level = level.from_visible @ refined.warp
    width, height = level.size
    corners = apply_homography(to_level, corners_of(scene.thermal_size))
    points = (corners - (np.array([width, height]) - 1) / 2) / (max(level.size) / 2)
    basis = _basis(points[:, 0], points[:, 1]) * (max(level.size) / 2)
    variance = float(np.einsum('bip,pq,biq->', basis, covariance, basis)) / len(points)
    scale = math.sqrt(abs(float(np.linalg.det(to_level[:2, :2] / to_level[2, 2]))))
    return math.sqrt(max(variance, 0.0)) / scale


def _basis(u: Array, v: Array) -> Array:
    """
    Return how points move with the parameters of a homography, to first order: (B, 2, 8).

    :param u: (B,) x about the centre, in halves of the longer side, as the result.
    :param v: (B,) likewise y.
    """
    zero, one = np.zeros_like(u), np.ones_like(u)
    return np.stack(
        [
            np.stack([u, v, one, zero, zero, zero, -u * u, -u * v], axis=-1),
            np.stack([zero, zero, zero, u, v, one, -u * v, -v * v], axis=-1),
        ],
        axis=1,
    )


def _generator(step: Array) -> Array:
    return np.asarray(np.eye(3) + np.append(step, 0.0).reshape(3, 3))
