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

:func:`align` finds the homography of a camera pair; :func:`misalignment` and
:class:`MisalignmentMonitor` find, much faster, what shift is left once the images should agree.

The two show different things, but mostly with edges in the same places and along the same lines.
Images become fields of gradients at twice their angle, so that opposite directions agree, as
contrast may be inverted; each is normalised by its surroundings. A dense search over rotation and
scale, with shifts by FFT correlation, finds the similarity; local score maps of blocks of the
image then refine it to a homography. Both sum scores over all pairs of one camera pair, so that
many frames see what one does not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dig2dig_ros.images.geometry import RegistrationError

Matrix = NDArray[np.float64]
Image = NDArray[np.float32]

# Standard deviations in pixels of the level at hand.
_GRADIENT_SIGMA = 0.8
_FIELD_SIGMA = 1.0
_SURROUNDINGS_SIGMA = 10.0
# Part of the typical gradient that counts as noise.
_NOISE_FLOOR = 0.5

# The coarse search: the longer side in pixels, and the steps; half a step moves the corners of
# the image by less than the edges in the fields are wide.
_COARSE_SIDE = 160
_ROTATION_STEP = math.radians(1.5)
_SCALE_STEP = 1.035
# Of the modes of the coarse search that are refined, and the distance of corners in pixels of the
# coarse level at which two are different modes.
_MODES = 4
_MODE_DISTANCE = 8.0

# The refinement: longer sides, as far as the images have them, the radius of the score maps in
# pixels, and rounds at each.
_LEVELS = ((160, 5, 2), (320, 5, 3), (640, 4, 3), (1280, 4, 2))
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

# What a trusted alignment must keep. Set on pairs of the training part of RoadScene and of TNO,
# right ones and such of images that do not belong together; most of those fail all four.
_LEAST_MARGIN = 0.38
_LEAST_SCORE = 0.12
# Parts of the thermal image's longer side, and pixels where those would be less.
_MOST_SPREAD = 0.0053
_MOST_HALVES_DISTANCE = 0.012
_LEAST_TOLERANCE = 2.0

# The shift that is left: the longer side in pixels, the reach as part of it, and by how many
# standard deviations of the other scores the best one must be above them.
_SHIFT_SIDE = 256
_SHIFT_REACH = 0.08
_LEAST_CONFIDENCE = 5.0
# What is nearer to the best score than this, in pixels of that size, belongs to its peak; what is
# farther must be lower by this part of it.
_PEAK_RADIUS = 4
_LEAST_LEAD = 0.1


@dataclass(frozen=True)
class SearchRange:
    """
    How far a camera pair may be from the initial guess.

    :param rotation: radians to either side.
    :param scale: the largest factor, and its inverse the smallest.
    :param shift: part of the visible image's longer side, in each direction.
    """

    rotation: float = math.radians(6.0)
    scale: float = 1.28
    shift: float = 0.2


@dataclass(frozen=True)
class Alignment:
    """
    How a camera pair was found to be aligned.

    :param thermal_to_visible: (3, 3) homography from thermal pixels (x, y, 1) to visible ones,
        centres of pixels at integers; the last element is 1.
    :param trusted: all checks passed.
    :param corner_spread: the standard deviation of the thermal image's corners by the scores
        themselves, in thermal pixels, root mean square over corners.
    :param score: correlation of the fields of gradients at 320 pixels of the visible image's
        longer side, at most 1.
    :param margin: by how much the score is above that of the best other mode, as part of it.
    :param halves_distance: corner distance in thermal pixels to the nearer of two alignments
        that were each searched in one half of the scene alone, of interleaved squares.
    :param reasons: why it is not trusted; empty where it is.
    """

    thermal_to_visible: Matrix
    trusted: bool
    corner_spread: float
    score: float
    margin: float
    halves_distance: float
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Misalignment:
    """
    What shift is left between a visible image and a thermal one that should lie on it.

    :param shift: (dx, dy) from where the visible image shows something to where the thermal one
        does, in pixels of the visible image; shifting the thermal image by the opposite mends it.
    :param distance: length of the shift, in pixels.
    :param confidence: by how many standard deviations the score of this shift is above the
        others; below 5 it may be chance.
    :param trusted: the shift is certain: the confidence is high enough, no other shift matches
        nearly as well, and it is not at the end of what is searched.
    """

    shift: tuple[float, float]
    distance: float
    confidence: float
    trusted: bool


def default_guess(visible_size: tuple[int, int], thermal_size: tuple[int, int]) -> Matrix:
    """
    Return the homography of two cameras with one view: the thermal image fills the visible one.

    Pixels are square: where the shapes differ, the mean of both scales, about the centre.

    :param visible_size: (width, height).
    :param thermal_size: (width, height).
    """
    (vw, vh), (tw, th) = visible_size, thermal_size
    scale = math.sqrt(vw / tw * vh / th)
    return np.array(
        [
            [scale, 0, (vw - 1) / 2 - scale * (tw - 1) / 2],
            [0, scale, (vh - 1) / 2 - scale * (th - 1) / 2],
            [0, 0, 1],
        ]
    )


def corner_distance(first: Matrix, second: Matrix, thermal_size: tuple[int, int]) -> float:
    """
    Return how far two homographies are apart: the root mean square over corners, thermal pixels.

    :param first: (3, 3) thermal to visible; likewise the second, which is taken as the truth.
    :param thermal_size: (width, height).
    """
    corners = _corners(thermal_size)
    back = _apply(np.linalg.inv(second) @ first, corners)
    return float(np.sqrt(((back - corners) ** 2).sum(axis=1).mean()))


def align(
    pairs: Sequence[tuple[NDArray[Any], NDArray[Any]]],
    *,
    guess: Matrix | None = None,
    search: SearchRange | None = None,
    thermal_mask: NDArray[np.bool_] | None = None,
) -> Alignment:
    """
    Estimate the homography of a camera pair from one or more pairs of images.

    :param pairs: (visible, thermal) each; visible (H, W, 3) blue-green-red or (H, W), thermal
        (h, w), any numeric type; all visible images of one size, and all thermal ones.
    :param guess: (3, 3) thermal to visible; by default :func:`default_guess`.
    :param search: about the guess.
    :param thermal_mask: (h, w), false where the thermal images show nothing (a housing, corners
        without light); by default all counts.
    :raises RegistrationError: there is no pair, or sizes differ.
    """
    search = search or SearchRange()
    scene = _Scene(pairs, guess, thermal_mask)
    modes, half_modes = _coarse_search(scene, search)
    refined = _distinct(scene, [_refine(scene, mode, _LEVELS[:1]) for mode in modes])
    refined = _distinct(scene, [_refine(scene, mode.warp, _LEVELS[1:2]) for mode in refined])
    score = refined[0].score
    margin = (score - max((other.score for other in refined[1:]), default=0.0)) / max(score, 1e-9)
    final = _refine(scene, refined[0].warp, _LEVELS[2:])
    halves = min(
        corner_distance(
            _refine(scene, mode, _LEVELS[:2], half).warp, final.warp, scene.thermal_size
        )
        for half, mode in enumerate(half_modes)
    )
    spread = _corner_spread(scene, final)
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
    return Alignment(
        final.warp / final.warp[2, 2],
        not reasons,
        spread,
        score,
        margin,
        halves,
        tuple(reasons),
    )


def misalignment(
    visible: NDArray[Any], thermal: NDArray[Any], coverage: NDArray[Any] | None = None
) -> Misalignment:
    """
    Measure the shift between a visible image and a thermal one that was warped onto it.

    It is searched up to 8 % of the longer side in each direction, at 256 pixels along it. One
    look may be too weak: see :class:`MisalignmentMonitor`.

    :param visible: (H, W, 3) blue-green-red or (H, W), any numeric type.
    :param thermal: (H, W), any numeric type.
    :param coverage: (H, W) in [0, 1], below 1 where the thermal image does not reach; by default
        it reaches everywhere.
    :raises RegistrationError: the sizes differ.
    """
    return MisalignmentMonitor(1).look(visible, thermal, coverage)


class MisalignmentMonitor:
    """
    Measures the shift between the images of a running camera pair, from a few looks together.

    :param looks: the number of the latest looks that count.
    """

    def __init__(self, looks: int = 5) -> None:
        self._scores: deque[NDArray[np.float64]] = deque(maxlen=looks)
        self._size = (0, 0)

    def reset(self) -> None:
        """Forget earlier looks, as after a change of the registration."""
        self._scores.clear()

    def look(
        self, visible: NDArray[Any], thermal: NDArray[Any], coverage: NDArray[Any] | None = None
    ) -> Misalignment:
        """
        Take another pair into account, and return the shift of the latest ones together.

        Images of another size than before start anew. Parameters and errors are those of
        :func:`misalignment`.
        """
        size = (visible.shape[1], visible.shape[0])
        for name, image in (('thermal image', thermal), ('coverage', coverage)):
            if image is not None and image.shape[:2] != visible.shape[:2]:
                raise RegistrationError(
                    f'the {name} is {image.shape[1]}x{image.shape[0]} pixels, but the visible '
                    f'image {size[0]}x{size[1]}: warp it onto the visible image first'
                )
        if size != self._size:
            self._scores.clear()
            self._size = size
        self._scores.append(_shift_scores(visible, thermal, coverage))
        factor = max(size) / min(max(size), _SHIFT_SIDE)
        return _peak(np.mean(self._scores, axis=0), factor)


class _Scene:
    """The images of all pairs, at any resolution."""

    def __init__(
        self,
        pairs: Sequence[tuple[NDArray[Any], NDArray[Any]]],
        guess: Matrix | None,
        thermal_mask: NDArray[np.bool_] | None,
    ) -> None:
        if not pairs:
            raise RegistrationError('no pair of images to register: give at least one')
        sizes = {(v.shape[1::-1], t.shape[1::-1]) for v, t in pairs}
        if len(sizes) > 1:
            raise RegistrationError(
                'the pairs differ in size: register pairs of one camera pair at one resolution'
            )
        ((self.visible_size, self.thermal_size),) = sizes
        self.guess = (
            default_guess(self.visible_size, self.thermal_size) if guess is None else guess
        )
        self.pairs = [(_grey(visible), _grey(thermal)) for visible, thermal in pairs]
        if thermal_mask is None:
            thermal_mask = np.ones(self.thermal_size[::-1], np.bool_)
        if thermal_mask.shape[1::-1] != self.thermal_size:
            raise RegistrationError(
                f'the mask has the shape {thermal_mask.shape}, but the thermal images are '
                f'{self.thermal_size[0]}x{self.thermal_size[1]} pixels: make it their size'
            )
        self.thermal_mask = thermal_mask.astype(np.float32)
        self._levels: dict[int, _Level] = {}

    def level(self, side: int) -> _Level:
        """
        Return the images where the visible one's longer side is ``side`` pixels.

        It is fewer where the visible images have no more, or the thermal ones not half as many.
        """
        scale = math.sqrt(abs(float(np.linalg.det(self.guess[:2, :2]))))
        side = min(side, max(self.visible_size), round(2 / scale * max(self.visible_size)))
        if side not in self._levels:
            self._levels[side] = _Level(self, side)
        return self._levels[side]


class _Level:
    """The images of a scene at one resolution."""

    def __init__(self, scene: _Scene, side: int) -> None:
        factor = side / max(scene.visible_size)
        self.size = (
            max(8, round(scene.visible_size[0] * factor)),
            max(8, round(scene.visible_size[1] * factor)),
        )
        self.from_visible = _resizing(scene.visible_size, self.size)
        # Thermal pixels of about the size of this level's, so that warping needs no low pass.
        jacobian = (self.from_visible @ scene.guess)[:2, :2]
        factor = min(1.0, math.sqrt(abs(float(np.linalg.det(jacobian)))))
        thermal_size = (
            max(8, round(scene.thermal_size[0] * factor)),
            max(8, round(scene.thermal_size[1] * factor)),
        )
        self.thermal_from_full = _resizing(scene.thermal_size, thermal_size)
        self.visible = [_resize(visible, self.size) for visible, _ in scene.pairs]
        self.thermal = [_resize(thermal, thermal_size) for _, thermal in scene.pairs]
        self.thermal_mask = _resize(scene.thermal_mask, thermal_size)
        ones = np.ones(self.size[::-1], np.float32)
        self.described = [_describe(visible, ones) for visible in self.visible]

    def warped(self, index: int, to_level: Matrix, size: tuple[int, int]) -> tuple[Image, Image]:
        """
        Return the field and its mask of a thermal image in a frame of this resolution.

        :param to_level: (3, 3) from full thermal pixels to those of the frame.
        :param size: of the frame, (width, height).
        """
        matrix = to_level @ np.linalg.inv(self.thermal_from_full)
        image = cv2.warpPerspective(
            self.thermal[index],
            matrix,
            size,
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        mask = cv2.warpPerspective(self.thermal_mask, matrix, size, flags=cv2.INTER_LINEAR)
        mask = (mask > 0.99).astype(np.float32)
        return _describe(image, mask)


def _describe(image: Image, mask: Image) -> tuple[Image, Image]:
    """
    Return the field of gradients, (2, H, W), and a mask of where it counts, (H, W).

    Vectors at twice the gradient's angle, after the orientation correlation of Fitch et al.
    (BMVC 2002), but as long as the gradient is in comparison with its surroundings, so that flat
    areas stay weak.
    """
    smooth = cv2.GaussianBlur(image, (0, 0), _GRADIENT_SIGMA)
    gx = cv2.Scharr(smooth, cv2.CV_32F, 1, 0, scale=1 / 32)
    gy = cv2.Scharr(smooth, cv2.CV_32F, 0, 1, scale=1 / 32)
    # What is outside the mask must not make edges at its border.
    inner = cv2.erode(
        mask, np.ones((5, 5), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0
    )
    gx *= inner
    gy *= inner
    energy = gx * gx + gy * gy
    weight = np.maximum(_surroundings(inner), 1e-3)
    around = _surroundings(energy) / weight
    total = float(inner.sum())
    typical = float(np.sqrt(energy).sum()) / max(total, 1.0)
    strength = np.maximum(np.sqrt(energy), 1e-9)
    scale = inner / (np.sqrt(np.maximum(around, 0.0)) + _NOISE_FLOOR * typical + 1e-9)
    # To the length of the gradient, at most 2, from its square.
    scale = np.minimum(scale, 2.0 / strength) / strength
    field = np.stack([(gx * gx - gy * gy) * scale, 2.0 * gx * gy * scale])
    for channel in field:
        narrow = cv2.GaussianBlur(channel, (0, 0), _FIELD_SIGMA)
        # Without the local mean: that a region has edges at all says little of where they are.
        channel[:] = (narrow - _surroundings(channel) / weight) * inner
    return field, inner


def _surroundings(image: Image) -> Image:
    """Return a wide Gaussian blur, computed at a quarter of the resolution."""
    height, width = image.shape
    small = cv2.resize(
        image, (max(1, width // 4), max(1, height // 4)), interpolation=cv2.INTER_AREA
    )
    blurred = cv2.GaussianBlur(small, (0, 0), _SURROUNDINGS_SIGMA / 4)
    return np.asarray(cv2.resize(blurred, (width, height), interpolation=cv2.INTER_LINEAR))


def _coarse_search(scene: _Scene, search: SearchRange) -> tuple[list[Matrix], list[Matrix]]:
    """Return the best modes, best first, and the best of each half; thermal to visible."""
    level = scene.level(_COARSE_SIDE)
    width, height = level.size
    side = max(level.size)
    reach = math.ceil(search.shift * side)
    # A canvas for the thermal image, and room for the correlation not to wrap.
    turned = search.scale * 1.02
    extra = math.sin(search.rotation) * side
    canvas = (math.ceil(width * turned + extra), math.ceil(height * turned + extra))
    fft = [cv2.getOptimalDFTSize((canvas[k] + level.size[k]) // 2 + reach + 2) for k in (1, 0)]
    offset = ((canvas[0] - width) // 2, (canvas[1] - height) // 2)
    centre = np.array([(width - 1) / 2, (height - 1) / 2])

    visible = []
    checks = _checkerboard(level.size)
    for field, mask in level.described:
        halves = [np.fft.rfft2(field * check, s=fft) for check in checks]
        energy = np.fft.rfft2((field**2).sum(axis=0), s=fft)
        visible.append((halves, energy, np.fft.rfft2(mask, s=fft)))

    rotations = _steps(search.rotation, _ROTATION_STEP)
    scales = np.exp(_steps(math.log(search.scale), math.log(_SCALE_STEP)))
    shifts_x = np.arange(-reach, reach + 1)
    shifts_y = np.arange(-reach, reach + 1)
    # thermal(x + offset) correlates with visible(x + shift): indices of the circular map.
    rows = (shifts_y - offset[1])[:, None] % fft[0]
    columns = (shifts_x - offset[0])[None] % fft[1]
    base = level.from_visible @ scene.guess
    area = float(width * height)
    warps: list[Matrix] = []
    maps: list[NDArray[np.float32]] = []
    for rotation in rotations:
        for scale in scales:
            similarity = _similarity(rotation, scale, centre)
            placed = _translation(*offset) @ similarity @ base
            total = np.zeros((2, len(shifts_y), len(shifts_x)), np.float32)
            for index, (halves, v_energy, v_mask) in enumerate(visible):
                field, mask = level.warped(index, placed, canvas)
                thermal = np.conj(np.fft.rfft2(field, s=fft))
                t_energy = np.conj(np.fft.rfft2((field**2).sum(axis=0), s=fft))
                t_mask = np.conj(np.fft.rfft2(mask, s=fft))
                products = np.stack(
                    [
                        (halves[0] * thermal).sum(axis=0),
                        (halves[1] * thermal).sum(axis=0),
                        v_energy * t_mask,
                        v_mask * t_energy,
                        v_mask * t_mask,
                    ]
                )
                first, second, ev, et, overlap = np.fft.irfft2(products, s=fft)[:, rows, columns]
                norm = np.sqrt(np.maximum(ev, 1e-3) * np.maximum(et, 1e-3))
                # A small overlap correlates more easily by chance, as 1 / sqrt(area).
                share = np.clip(overlap / area, 0.0, 1.0)
                factor = np.where(share > 0.3, np.sqrt(share), 0.0) / norm
                total[0] += first * factor
                total[1] += second * factor
            warps.append(similarity @ base)
            maps.append(total)
    scores = np.stack(maps)
    back = np.linalg.inv(level.from_visible)

    def best_modes(values: NDArray[np.float32], number: int) -> list[Matrix]:
        values = values.copy()
        corners = _corners(scene.thermal_size)
        placed = np.stack([_apply(warp, corners) for warp in warps])
        shift = np.stack(np.meshgrid(shifts_x, shifts_y), axis=-1)
        found: list[Matrix] = []
        for _ in range(number):
            at = np.unravel_index(int(values.argmax()), values.shape)
            move = shift[at[1], at[2]]
            found.append(back @ _translation(*move) @ warps[at[0]])
            # The mean over corners moves with the shift, the rest stays.
            difference = placed - placed[at[0]]
            mean = difference.mean(axis=1)
            rest = (difference**2).sum(axis=2).mean(axis=1) - (mean**2).sum(axis=1)
            moved = mean[:, None, None] + (shift - move)[None]
            near = (moved**2).sum(axis=-1) + rest[:, None, None] < _MODE_DISTANCE**2
            values[near] = -1.0
        return found

    modes = best_modes(scores.sum(axis=1), _MODES)
    return modes, [best_modes(scores[:, half], 1)[0] for half in (0, 1)]


@dataclass
class _Refined:
    """A warp, and what is seen there: its score, score maps by block, their basis, the prior."""

    warp: Matrix
    score: float
    maps: NDArray[np.float32]
    basis: Matrix
    prior: tuple[Matrix, Matrix]
    level: _Level


def _refine(
    scene: _Scene, warp: Matrix, levels: Sequence[tuple[int, int, int]], half: int | None = None
) -> _Refined:
    """Refine a warp from thermal to visible pixels to a homography, from coarse to fine."""
    done: _Level | None = None
    for side, radius, rounds in levels:
        level = scene.level(side)
        if level is done:
            break
        done = level
        normalise = _normalising(level.size) @ level.from_visible
        for index in range(rounds):
            reach = radius if index == 0 else min(radius, _LATER_RADIUS)
            maps, _, basis = _block_scores(level, warp, reach, half)
            step = _ascend(maps, basis, _prior(scene, level, warp), reach)
            warp = np.linalg.inv(normalise) @ np.linalg.inv(_generator(step)) @ normalise @ warp
            warp = warp / warp[2, 2]
    maps, score, basis = _block_scores(level, warp, reach, half)
    return _Refined(warp, score, maps, basis, _prior(scene, level, warp), level)


def _block_scores(
    level: _Level, warp: Matrix, radius: int, half: int | None
) -> tuple[NDArray[np.float32], float, Matrix]:
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
        np.ones((height, width), np.float32) if half is None else _checkerboard(level.size)[half]
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


def _prior(scene: _Scene, level: _Level, warp: Matrix) -> tuple[Matrix, Matrix]:
    """Return rows of a least-squares prior on a step, and their values: what is no similarity."""
    normalise = _normalising(level.size) @ level.from_visible
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
    basis: Matrix,
    prior: tuple[Matrix, Matrix],
    radius: int,
    rounds: int = 12,
) -> Matrix:
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
    basis: Matrix,
    prior: tuple[Matrix, Matrix],
    radius: int,
    step: Matrix,
) -> tuple[float, Matrix, Matrix]:
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


def _corner_spread(scene: _Scene, refined: _Refined, resamples: int = 24) -> float:
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
    corners = _apply(to_level, _corners(scene.thermal_size))
    points = (corners - (np.array([width, height]) - 1) / 2) / (max(level.size) / 2)
    basis = _basis(points[:, 0], points[:, 1]) * (max(level.size) / 2)
    variance = float(np.einsum('bip,pq,biq->', basis, covariance, basis)) / len(points)
    scale = math.sqrt(abs(float(np.linalg.det(to_level[:2, :2] / to_level[2, 2]))))
    return math.sqrt(max(variance, 0.0)) / scale


def _basis(u: Matrix, v: Matrix) -> Matrix:
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


def _outside(scene: _Scene, warp: Matrix, search: SearchRange) -> list[str]:
    """Say where a warp is at the end of the search range: the truth may lie beyond."""
    normalise = _normalising(scene.visible_size)
    total = normalise @ warp @ np.linalg.inv(normalise @ scene.guess)
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


def _checkerboard(size: tuple[int, int]) -> tuple[Image, Image]:
    """Return two masks that together cover an image, of fields a sixth of the longer side."""
    width, height = size
    field = max(size) / 6
    y, x = np.mgrid[:height, :width]
    first = ((x // field + y // field) % 2).astype(np.float32)
    return first, 1 - first


def _shift_scores(
    visible: NDArray[Any], thermal: NDArray[Any], coverage: NDArray[Any] | None
) -> NDArray[np.float64]:
    """Return the correlation by shift of the thermal image, (2 reach + 1, 2 reach + 1)."""
    height, width = visible.shape[:2]
    factor = min(1.0, _SHIFT_SIDE / max(width, height))
    size = (max(8, round(width * factor)), max(8, round(height * factor)))
    ones = np.ones(size[::-1], np.float32)
    mask = ones
    if coverage is not None:
        mask = (_resize(coverage.astype(np.float32), size) > 0.99).astype(np.float32)
    fixed, _ = _describe(_grey(visible, size), ones)
    moved, inner = _describe(_grey(thermal, size), mask)
    reach = math.ceil(_SHIFT_REACH * max(size)) + 1
    fft = [cv2.getOptimalDFTSize(length + reach) for length in size[::-1]]
    spectra = [np.fft.fft2(field[0] + 1j * field[1], s=fft) for field in (fixed, moved)]
    scores = np.fft.ifft2(np.conj(spectra[0]) * spectra[1]).real
    energies = [float((field**2 * inner).sum()) for field in (fixed, moved)]
    steps = np.arange(-reach, reach + 1)
    near = scores[np.ix_(steps % fft[0], steps % fft[1])]
    return np.asarray(near / math.sqrt(max(energies[0] * energies[1], 1e-6)), np.float64)


def _peak(scores: NDArray[np.float64], factor: float) -> Misalignment:
    """
    Return the best shift.

    :param scores: (2 reach + 1, 2 reach + 1) by (dy, dx); those at the border only interpolate.
    :param factor: pixels of the visible image per pixel of the shift.
    """
    reach = len(scores) // 2
    inner = scores[1:-1, 1:-1]
    row, column = (int(at) + 1 for at in np.unravel_index(int(inner.argmax()), inner.shape))
    best = float(scores[row, column])
    y, x = np.mgrid[: len(scores), : len(scores)]
    far = scores[np.hypot(y - row, x - column) > _PEAK_RADIUS]
    if not far.size:  # so small are the images that there is nothing to compare with
        return Misalignment((0.0, 0.0), 0.0, 0.0, False)
    confidence = (best - float(far.mean())) / max(float(far.std()), 1e-9)
    shift = (
        (column - reach + _vertex(scores[row, column - 1 : column + 2])) * factor,
        (row - reach + _vertex(scores[row - 1 : row + 2, column])) * factor,
    )
    trusted = (
        confidence >= _LEAST_CONFIDENCE
        and best - float(far.max()) >= _LEAST_LEAD * best
        and max(abs(row - reach), abs(column - reach)) < reach - 1
    )
    return Misalignment(shift, math.hypot(*shift), confidence, trusted)


def _vertex(values: NDArray[np.float64]) -> float:
    """Return where the parabola through three values at -1, 0 and 1 is highest, within 0.5."""
    before, middle, after = (float(value) for value in values)
    curvature = before - 2 * middle + after
    return float(np.clip((before - after) / (2 * min(curvature, -1e-12)), -0.5, 0.5))


def _distinct(scene: _Scene, refined: Sequence[_Refined]) -> list[_Refined]:
    """Return those that are not near one of a higher score, best first."""
    found: list[_Refined] = []
    for one in sorted(refined, key=lambda one: -one.score):
        distances = [_work_distance(scene, one.warp, other.warp) for other in found]
        if min(distances, default=math.inf) > _MODE_DISTANCE:
            found.append(one)
    return found


def _work_distance(scene: _Scene, first: Matrix, second: Matrix) -> float:
    """Return the distance of the thermal corners under two warps, pixels of the coarse level."""
    to_level = scene.level(_COARSE_SIDE).from_visible
    corners = _corners(scene.thermal_size)
    difference = _apply(to_level @ first, corners) - _apply(to_level @ second, corners)
    return float(np.sqrt((difference**2).sum(axis=1).mean()))


def _grey(image: NDArray[Any], size: tuple[int, int] | None = None) -> Image:
    """
    Return float32 with the bulk of the values in [0, 1]; NaN and infinities as the median.

    :param size: (width, height) to reduce it to first.
    """
    if size is not None and image.dtype in (np.uint8, np.uint16):
        # In integers, which is much faster.
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    grey = image.astype(np.float32)
    if grey.ndim == 3:
        grey = cv2.cvtColor(grey, cv2.COLOR_BGR2GRAY)
    finite = np.isfinite(grey)
    if not finite.all():
        grey = np.where(finite, grey, np.median(grey[finite]) if finite.any() else 0)
    if size is not None and grey.shape != size[::-1]:
        grey = _resize(grey, size)
    # A sample will do.
    step = max(1, min(grey.shape) // 100)
    low, high = np.percentile(grey[::step, ::step], (1.0, 99.0))
    # The root evens out the noise of photons, and lifts the edges of dark parts.
    stretched = np.clip((grey - low) / max(float(high - low), 1e-6), 0.0, 2.0)
    return np.asarray(np.sqrt(stretched), np.float32)


def _resize(image: Image, size: tuple[int, int]) -> Image:
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA))


def _resizing(before: tuple[int, int], after: tuple[int, int]) -> Matrix:
    """Return the homography of resizing, with centres of pixels at integers."""
    sx, sy = after[0] / before[0], after[1] / before[1]
    return np.array([[sx, 0, (sx - 1) / 2], [0, sy, (sy - 1) / 2], [0, 0, 1]])


def _normalising(size: tuple[int, int]) -> Matrix:
    """Return the map of pixels to coordinates about the centre, in halves of the longer side."""
    unit = max(size) / 2
    return np.array(
        [
            [1 / unit, 0, -(size[0] - 1) / 2 / unit],
            [0, 1 / unit, -(size[1] - 1) / 2 / unit],
            [0, 0, 1],
        ]
    )


def _generator(step: Matrix) -> Matrix:
    return np.asarray(np.eye(3) + np.append(step, 0.0).reshape(3, 3))


def _similarity(rotation: float, scale: float, centre: Matrix) -> Matrix:
    cosine, sine = scale * math.cos(rotation), scale * math.sin(rotation)
    turn = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])
    return np.asarray(_translation(*centre) @ turn @ _translation(*-centre))


def _translation(x: float, y: float) -> Matrix:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], np.float64)


def _steps(reach: float, step: float) -> Matrix:
    number = math.ceil(reach / step)
    return np.asarray(np.arange(-number, number + 1) * (reach / max(number, 1)), np.float64)


def _corners(size: tuple[int, int]) -> Matrix:
    width, height = size
    return np.array([[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]], np.float64)


def _apply(matrix: Matrix, points: Matrix) -> Matrix:
    mapped = np.column_stack([points, np.ones(len(points))]) @ matrix.T
    return np.asarray(mapped[:, :2] / mapped[:, 2:])
