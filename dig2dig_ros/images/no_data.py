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
Pixels of a thermal image that hold no measurement, and how they are treated.

Drivers, rectification and converters mark pixels without a measurement: NaN, 0, the end of the
type, absolute zero, -9999. Some cameras append rows of telemetry. Taken for temperatures, such
numbers squeeze the scene into the rest of the range.

A mark differs from something really hot or cold: it is exactly one value, many times, and nothing
lies between it and the scene. Real things have gradients, noise, and the blur of the lens at
their edges, and are no further from a scene than a temperature can be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
import math
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from dig2dig_ros.images.geometry import size_of
from dig2dig_ros.images.placement import Placement

Mask = NDArray[np.bool_]

# Beyond this no number is a measurement; squares of it are still finite in float32.
WILD = 1e15
# Pixels of the visible image over which the other one fades out next to pixels without data.
SOFT_EDGE = 16.0
# Most pixels that the scene's spread is taken from, and the part of them that is left out at each
# end.
_SAMPLE_PIXELS = 4096
_OUTSIDE = 0.02
# With fewer pixels there is no telling what the scene is.
_LEAST_SCENE = 16
# Part of an image without data from which on a value must be as far from the scene as nothing cold
# is, and the largest part: beyond it, the scene cannot be identified.
_MUCH, _MOST = 0.5, 0.95
# Marks that an image may hold at each end of its values.
_MARKS = 2
# Degrees Celsius of 0 K, within the rounding of drivers.
_ABSOLUTE_ZERO, _ROUNDING = -273.15, 0.2
# Rows at the upper and lower end that may be telemetry, of images that are high enough; the part
# of such a row that is far from the scene, and how far, in spreads of the scene: less where
# numbers side by side differ by such a part of a spread. Where they differ about as much as those
# of the scene do, between these factors, it is a strip of something hot or cold.
_TELEMETRY_ROWS, _LEAST_ROWS = 4, 24
_FAR_SHARE, _NEAR_SHARE = 0.5, 0.2
_FAR, _FAR_AND_ROUGH, _ROUGH = 3.0, 1.0, 0.3
_SMOOTHER, _ROUGHER = 0.4, 2.5
# Sides of the squares about a mark that may be blended with it: after rectification, and where an
# image was enlarged after that.
_BLENDS = (3, 9)
# Spreads below the scene from which a pixel near a mark is blended with it: right next to it, and
# in the larger square.
_BLENDED, _BLENDED_FURTHER = 0.25, 1.0
# Side of a hole that is no dead pixel or line, and the least pixels over which trust rises around
# it. Dead pixels are filled from around, and many of them with edges would leave nothing between.
_LARGE, _EDGE = 3, 2.0
# Black bars of 8-bit images: the brightest that is black, how far it may vary along a line (after
# video compression), and the fewest lines and the largest part of them. A cold sky ends here and
# there, a bar ends everywhere: behind its last line and one that is blended with it, this part of
# the pixels is so many grey levels brighter.
_BLACK, _FLAT, _FEWEST_LINES, _MOST_LINES = 24, 4, 2, 0.9
_ENDS, _BRIGHTER = 0.8, 8
_SIDES = ('top', 'bottom', 'left', 'right')


class _Rule(NamedTuple):
    """
    How far from the scene a value must lie to be a mark.

    :param spreads: in spreads of the scene.
    :param magnitude: as a part of the scene's magnitude.
    :param repeats: least number of pixels that have the value.
    :param between: largest part of the other pixels that may lie between.
    :param blends: pixels next to a mark may be a mean of it and the scene, as after rectification.
    """

    spreads: float
    magnitude: float
    repeats: int
    between: float
    blends: bool


# 0, absolute zero and the lower end of a type.
_COLD_MARK = _Rule(1.5, 0.0, 1, 5e-4, True)
# 0 and -1 of floating point, which may be degrees Celsius of a warm scene: such numbers hardly
# come twice by themselves.
_FLOAT_MARK = _Rule(0.4, 0.0, 5, 5e-4, True)
# The upper end of a type, where something very hot may be clipped as well.
_HOT_MARK = _Rule(4.0, 0.0, 1, 2e-4, False)
# Any other value: no cold sky (213 K before 293 K) and no fire is so far off.
_COLD_VALUE = _Rule(8.0, 0.4, 3, 2e-4, False)
_HOT_COUNT, _HOT_FLOAT = _Rule(16.0, 1.0, 3, 2e-4, False), _Rule(8.0, 1.0, 3, 2e-4, False)


@dataclass(frozen=True, eq=False)
class NoData:
    """
    Where a thermal image holds no measurement.

    :param mask: (H, W), True there.
    :param values: the numbers that stand for it, but NaN, lowest first.
    :param share: part of the image that has these numbers, rows left out.
    :param rows: how many rows at the upper and at the lower end are not image.
    :param bars: how many rows at the top and bottom, and columns at the left and right, are black
        bars of an 8-bit image.
    """

    mask: Mask
    values: tuple[float, ...] = ()
    share: float = 0.0
    rows: tuple[int, int] = (0, 0)
    bars: tuple[int, int, int, int] = (0, 0, 0, 0)

    def sentences(self, source: str, fate: str = 'without weight') -> tuple[str, ...]:
        """
        Return the warnings about it; none about NaN, which is meant as no data.

        :param fate: how these pixels are treated, in words.
        """
        texts = []
        if self.values:
            numbers = ' or '.join(f'{value:.6g}' for value in self.values)
            texts.append(
                f'{100 * self.share:.2g} % of the {source} image is {numbers}, far from the rest: '
                f'taken as no data, {fate}'
            )
        if any(self.rows):
            ends = zip(('first', 'last'), self.rows, strict=True)
            named = ' and '.join(f'the {end} {count} rows' for end, count in ends if count)
            named = named.replace(' 1 rows', ' row')
            texts.append(
                f'{named} of the {source} image are not image (telemetry?), {fate}: '
                f'leave them out with thermal_crop: [{self.rows[0]}, {self.rows[1]}]'
            )
        if any(self.bars):
            sizes = zip(_SIDES, self.bars, strict=True)
            named = ', '.join(f'{side} {count}' for side, count in sizes if count)
            texts.append(
                f'the {source} image has black bars ({named} pixels): taken as no data, {fate}'
            )
        return tuple(texts)


def find_no_data(image: NDArray[Any], *, marks: bool = True) -> NoData | None:
    """
    Find the pixels of a thermal image that hold no measurement.

    8-bit images have black bars at most: the camera, which knew its marks, has chosen their range.

    :param image: (H, W) integers or floating point.
    :param marks: look for numbers that stand for no data, for rows of other numbers, and for black
        bars. Otherwise only NaN, and floating point beyond 1e15, is none.
    :return: None where all pixels are measurements; infinities are, as too hot or too cold.
    """
    if image.size == 0:
        return None
    if image.dtype.itemsize == 1:
        return _black_bars(image) if marks and image.dtype == np.uint8 else None
    mask = unmeasured = _unmeasured(image)
    values = [] if unmeasured is None else _wild_values(image)
    inner = slice(None)
    if len(image) >= _LEAST_ROWS:
        inner = slice(_TELEMETRY_ROWS, -_TELEMETRY_ROWS)
    ends = _ends(image[inner], None if mask is None else mask[inner]) if marks else None
    for at_top in (False, True) if marks else ():
        for _ in range(_MARKS):
            found = None if ends is None else _mark(image, mask, inner, ends, at_top)
            if found is None:
                break
            value, marked = found
            values.append(value)
            mask = marked if mask is None else mask | marked
            ends = _ends(image[inner], mask[inner])
    share = 0.0
    if values:
        assert mask is not None
        share = float(np.mean(mask if unmeasured is None else mask & ~np.isnan(image)))
    rows = _strange_rows(image, mask, inner) if marks and inner.start else (0, 0)
    if any(rows):
        if mask is None:
            mask = np.zeros(image.shape, bool)
        mask[: rows[0]] = True
        mask[len(mask) - rows[1] :] = True
    return None if mask is None else NoData(mask, tuple(sorted(values)), share, rows)


def _black_bars(image: NDArray[np.uint8]) -> NoData | None:
    """Return the bars about an image, as letterboxing adds them, if it has any."""
    top, bottom, left, right = (
        _bar(view) for view in (image, image[::-1], image.T, image.T[::-1])
    )
    if not any((top, bottom, left, right)):
        return None
    mask = np.ones(image.shape, bool)
    mask[top : image.shape[0] - bottom, left : image.shape[1] - right] = False
    return NoData(mask, bars=(top, bottom, left, right))


def _bar(lines: NDArray[np.uint8]) -> int:
    """Return how many lines, from the first one on, are a black bar."""
    count = 0
    for line in lines:
        if int(line.max()) > min(_BLACK, int(line.min()) + _FLAT):
            break
        count += 1
    if not _FEWEST_LINES <= count <= _MOST_LINES * len(lines) or count + 1 >= len(lines):
        return 0
    # Without the bars across these lines.
    inside = lines[count + 1][lines.max(axis=0) > _BLACK]
    brighter = inside > lines[count - 1].max() + np.uint8(_BRIGHTER)
    return count if brighter.size and brighter.mean() >= _ENDS else 0


def _unmeasured(image: NDArray[Any]) -> Mask | None:
    """Return where floating point is NaN or beyond any measurement, if anywhere."""
    if image.dtype.kind != 'f':
        return None
    low, high = image.min(), image.max()
    if low > -WILD and high < WILD:  # not where one of them is NaN
        return None
    mask = np.isnan(image) | (np.isfinite(image) & (np.abs(image) >= WILD))
    return mask if mask.any() else None


def _wild_values(image: NDArray[Any]) -> list[float]:
    """Return the numbers that are beyond any measurement, or the ends of them if they are many."""
    wild = image[np.isfinite(image) & (np.abs(image) >= WILD)]
    return sorted({float(wild.min()), float(wild.max())}) if wild.size else []


def _sample(image: NDArray[Any], mask: Mask | None, but: tuple[float, ...] = ()) -> NDArray[Any]:
    """Return some of the measured pixels, sorted, without those of the values ``but``."""
    stride = math.ceil(math.sqrt(image.size / _SAMPLE_PIXELS))
    sample = image[::stride, ::stride].ravel()
    if mask is None and sample.dtype.kind != 'f' and not but:
        return _sorted(sample)
    keep = np.isfinite(sample) if sample.dtype.kind == 'f' else np.ones(sample.shape, bool)
    if mask is not None:
        keep &= ~mask[::stride, ::stride].ravel()
    for value in but:
        keep &= sample != value
    return _sorted(sample[keep])


def _sorted(sample: NDArray[Any]) -> NDArray[Any]:
    # A stable sort of small integers goes by their bits, several times as fast.
    return np.sort(sample, kind='stable' if sample.dtype.itemsize <= 2 else None)


def _bulk(ordered: NDArray[Any]) -> tuple[float, float, float]:
    """Return the ends of the scene's values, and how far they are spread, at least as noise is."""
    last = ordered.size - 1
    low, high = float(ordered[int(_OUTSIDE * last)]), float(ordered[math.ceil(0.98 * last)])
    floor = 64.0
    if ordered.dtype.kind == 'f':
        floor = 1e-3 * max(1.0, abs(high))
    return low, high, max(high - low, floor)


def _rule(value: float, dtype: np.dtype[Any], at_top: bool) -> _Rule | None:
    if dtype.kind == 'f':
        if at_top:
            return _HOT_FLOAT
        if value in (0, -1):
            return _FLOAT_MARK
        return _COLD_MARK if abs(value - _ABSOLUTE_ZERO) < _ROUNDING else _COLD_VALUE
    info = np.iinfo(dtype)
    if not at_top:
        return _COLD_MARK if value in (0, info.min) else _COLD_VALUE
    if value == info.max:
        return _HOT_MARK
    # Where a sensor of some bits ends, something really hot is clipped.
    return None if _all_ones(int(value)) else _HOT_COUNT


def _all_ones(value: int) -> bool:
    return value > 0 and value & (value + 1) == 0


class _Ends(NamedTuple):
    """The lowest and the highest measured value, and a sorted sample of those between."""

    low: float
    high: float
    between: NDArray[Any]


def _ends(scene: NDArray[Any], hidden: Mask | None) -> _Ends | None:
    """Return the ends of what is measured, if anything is."""
    low, high = float(scene.min()), float(scene.max())
    if hidden is not None or not math.isfinite(high - low):
        keep = np.isfinite(scene) if scene.dtype.kind == 'f' else np.ones(scene.shape, bool)
        measured = scene[keep if hidden is None else keep & ~hidden]
        if measured.size == 0:
            return None
        low, high = float(measured.min()), float(measured.max())
    return _Ends(low, high, _sample(scene, hidden, (low, high)))


def _mark(
    image: NDArray[Any], mask: Mask | None, inner: slice, ends: _Ends, at_top: bool
) -> tuple[float, Mask] | None:
    """Return the value at one end that stands for no data, and where it stands, if one does."""
    scene, hidden = image[inner], None if mask is None else mask[inner]
    low, high, rest = ends
    value = high if at_top else low
    rule = _rule(value, image.dtype, at_top)
    if rule is None or rest.size < _LEAST_SCENE:
        return None
    # First what is quick, and never takes the scene for wider than it is.
    quarters = float(rest[rest.size // 4]), float(rest[3 * rest.size // 4])
    if abs(value - float(rest[rest.size // 2])) < rule.spreads * (quarters[1] - quarters[0]):
        return None

    marked = image == value
    count = np.count_nonzero(marked[inner])
    if count > _MUCH * scene.size:
        if at_top:  # that is a saturated camera
            return None
        rule = _COLD_VALUE._replace(blends=rule.blends)
    if not rule.repeats <= count <= _MOST * scene.size:
        return None
    found: tuple[float, Mask] | None = None
    seen = 0
    for side in _BLENDS if rule.blends else (0,):
        near = marked
        if side:
            near = cv2.dilate(marked.view(np.uint8), np.ones((side,) * 2, np.uint8)).view(bool)
            # Beyond the border of the image the mark may go on.
            near[[0, -1]] = near[:, [0, -1]] = True
        aside = near[inner] if hidden is None else near[inner] | hidden
        rest = _sample(scene, aside, (low, high))
        others = scene[~aside]
        others = others[np.isfinite(others)] if others.dtype.kind == 'f' else others
        # The wider one is for what is large: between dead pixels it leaves no scene.
        if rest.size < _LEAST_SCENE or others.size <= seen / 2:
            break
        seen = others.size
        spread = _bulk(rest)[2]
        middle = abs(float(rest[rest.size // 2]))
        if image.dtype.kind == 'f' and middle < 200:
            middle -= _ABSOLUTE_ZERO  # it may be degrees Celsius
        rank = int(rule.between * others.size)
        rank = -1 - rank if at_top else rank
        nearest = float(np.partition(others, rank)[rank])
        if abs(nearest - value) >= max(rule.spreads * spread, rule.magnitude * middle):
            blend = _BLENDED if side == _BLENDS[0] else _BLENDED_FURTHER
            is_blended = near & (image < nearest - blend * spread)
            marked = marked | is_blended if side else marked
            found = value, marked
    return found


def _strange_rows(image: NDArray[Any], mask: Mask | None, inner: slice) -> tuple[int, int]:
    """Return how many rows at the upper and the lower end have numbers far from the scene's."""
    ordered = _sample(image[inner], None if mask is None else mask[inner])
    if ordered.size < _LEAST_SCENE:
        return 0, 0
    scene = low, high, spread = _bulk(ordered)
    counts = []
    for end in (slice(0, _TELEMETRY_ROWS + 1), slice(-1, -2 - _TELEMETRY_ROWS, -1)):
        near = low - _FAR_AND_ROUGH * spread, high + _FAR_AND_ROUGH * spread
        if near[0] <= float(image[end].min()) and float(image[end].max()) <= near[1]:
            counts.append(0)  # as nearly always, and quickly said
            continue
        rows = image[end].astype(np.float64)
        hidden = np.zeros(rows.shape, bool) if mask is None else mask[end]
        count = _leading_rows(rows, hidden, scene, _FAR)
        step = _step(rows[:count])
        if count == 0:
            count = _leading_rows(rows, hidden, scene, _FAR_AND_ROUGH)
            step = _step(rows[:count])
            is_other = step > _ROUGH * scene[2]
        else:
            usual = _step(rows[count:])
            is_other = not _SMOOTHER * usual <= step <= _ROUGHER * usual
        counts.append(count if step == 0 or is_other else 0)
    return counts[0], counts[1]


def _step(rows: NDArray[np.float64]) -> float:
    """Return by how much pixels side by side differ, as a median."""
    steps = np.abs(np.diff(rows, axis=1))
    return float(np.median(steps)) if steps.size else 0.0


def _leading_rows(
    rows: NDArray[np.float64], hidden: Mask, scene: tuple[float, float, float], distance: float
) -> int:
    """Return how many of the first rows lie that many spreads from the scene; 0 if all do."""
    low, high, spread = scene
    far = ~((rows >= low - distance * spread) & (rows <= high + distance * spread))
    share = (far | hidden).mean(axis=1)
    is_scene = share < _FAR_SHARE
    count = int(np.argmax(is_scene))
    # Something hot or cold that reaches further in is no telemetry, nor is a frame of no data.
    if not is_scene.any() or share[count] > _NEAR_SHARE or not (far & ~hidden)[:count].any():
        return 0
    return count


def filled(image: NDArray[Any], mask: Mask) -> NDArray[np.float32]:
    """
    Return intensities whose pixels without data have the mean of those around them, if any.

    They have no weight, but interpolation and measurements around them must not see a step.
    """
    valid = (~mask).astype(np.float32)
    result = np.where(mask, np.float32(0), image)
    near = cv2.blur(valid, (5, 5), borderType=cv2.BORDER_REPLICATE)
    means = cv2.blur(result, (5, 5), borderType=cv2.BORDER_REPLICATE)
    reached = mask & (near > 0.01)
    result[reached] = means[reached] / near[reached]
    return result


def trust_beside(mask: Mask, edge: float) -> NDArray[np.float32]:
    """
    Return how far the pixels of an image are trusted: 0 without data, with a soft edge.

    :param edge: pixels over which trust rises around holes larger than dead pixels and lines.
    """
    trust = (~mask).astype(np.float32)
    large = cv2.morphologyEx(mask.view(np.uint8), cv2.MORPH_OPEN, np.ones((_LARGE,) * 2, np.uint8))
    if large.any():
        distance = cv2.distanceTransform(1 - large, cv2.DIST_L2, 3)
        np.minimum(trust, distance / max(edge, _EDGE), out=trust)
    return trust


def placement_of_data(
    mask: Mask, placement: Placement | None, size: Sequence[int], edge: float = SOFT_EDGE
) -> Placement:
    """
    Return the placement of an image whose pixels without data are to have no weight.

    :param mask: of the image, True where it has no data.
    :param placement: of the whole image; None where it covers the visible one.
    :param size: (width, height) of the visible image.
    :param edge: pixels of the visible image over which the other one fades out.
    """
    width, height = size
    own = size_of(mask)
    trust = trust_beside(mask, edge * own[0] / width)
    if placement is None:
        x, y = ((2 * np.arange(n, dtype=np.float32) + 1) / n - 1 for n in (width, height))
        grid = np.stack(np.broadcast_arrays(x[None], y[:, None]), axis=-1).astype(np.float32)
        coverage = np.ones((height, width), np.float32)
    else:
        grid, coverage = placement.grid, placement.coverage
    position = (grid + 1) * (np.array(own, np.float32) / 2) - np.float32(0.5)
    seen = cv2.remap(trust, position, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return Placement(grid, np.clip(coverage * seen, 0, 1), own)
