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
Detects faults of a camera from its images.

A thermal camera repeats its last frame while its shutter is closed; lenses get covered, exposure
fails, a connector loses a colour. Such images are valid messages and would be fused, so each
source is watched, and counts in the fusion as far as it can be trusted.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dig2dig_ros.images.luma import LUMA_BGR
from dig2dig_ros.images.no_data import WILD

# Most pixels of an image to look at, on a regular grid.
_SAMPLE_PIXELS = 20_000
# s. After such a gap, the past says nothing about the new image.
_GAP = 10.0

# Fraction of the darkest and of the brightest pixels that is ignored: dead and hot pixels.
_OUTLIERS = 0.0005
# Grey levels of 8 bits: trust in an image rises from none to all while its brightest pixels do
# from the first to the second. A covered sensor with its gain turned up reaches 10.
_BLACK, _NOT_BLACK = 10.0, 28.0
# Grey level of 8 bits from which a pixel is clipped; JPEG leaves some below 255.
_WHITE = 250
# Fraction of the image that may be clipped without loss of trust: much sky, or a snow field.
_CLIPPED = 0.6
# Bits of existing sensors, and of a signed 16-bit integer.
_SENSOR_BITS = (8, 10, 12, 14, 15, 16)
# Spread of an image in counts: trust rises from none to full between these. The noise of a live
# sensor spreads further, even in fog or in front of a uniform wall.
_BLANK, _NOT_BLANK = 2.0, 4.0
# Largest spread of a raw sensor's noise in counts: an image with more may show something, and
# the gain of an 8-bit image is unknown.
_NOISE_SPREAD = 250.0
# Variance of the means of squares with this many pixels along a side, over the variance of single
# pixels divided by the pixels of a square: 1 for white noise, a few for rows and columns with
# offsets, 26 and more for thermal images of streets. Trust rises from none to full between them.
_SQUARE, _FEWEST_SQUARES = 8, 24
_FEATURELESS, _NOT_FEATURELESS = 4.0, 12.0
# One count of a floating-point image, whose unit is unknown, as a fraction of the magnitude:
# 0.015 K at 300 K.
_FLOAT_COUNT = 5e-5

# Distance from its end, in grey levels of 8 bits, that 50 % and 95 % of a dead channel stay
# within, and for the rest a fraction of the best channel's contrast. They are not 0 because JPEG
# spreads chroma over its neighbours: at quality 80 by up to 0, 20 and 0.4.
_DEAD_HALF, _DEAD_NEARLY_ALL, _DEAD_EXTREME = 1, 22, 0.5
# Grey levels from 5 % to 95 % of another channel, below which a scene may just be dark.
_LIVE_CONTRAST = 32
_CHANNELS = ('blue', 'green', 'red')

# Samples side by side whose differences are averaged.
_BLOCK = 64
# Below this part of the usual noise a difference is no noise, but a repeat with a few bits
# changed.
_NEARLY = 0.2
# Sensor noise is below this part of the contrast; motion, which may be mistaken for it, is not. Of
# a camera that moves before texture it may well be, so that no more than one count is relied on:
# the noise of a raw sensor that stops again is a few counts, of thousands that the scene has.
_LARGEST_NOISE = 0.01
# Differences that must have been seen before one can be unusually small.
_KNOWN_AFTER = 5
# s. Time constants of the usual noise: rising, and falling while images are nearly identical.
# The second ends the mistake when a camera really has become quieter.
_NOISE_RISE, _NOISE_FALL = 10.0, 2.0
# Repeats by which a frozen camera differs from a driver that sends one frame twice.
_REPEATS = 2


@dataclass(frozen=True)
class Condition:
    """
    The condition of a camera as of its latest image.

    :param trust: how far the fusion should rely on the camera, in [0, 1]; smoothed over time.
    :param faults: a sentence for each fault that the image shows, for diagnostics.
    :param kinds: the same faults as fixed words: ``frozen``, ``black``, ``saturated``, ``blank``,
        ``featureless``, ``dead channel``; parts left out of the image: ``no data``, ``rows that
        are not image``; ``stretched`` to the visible image's shape; and ``few bits`` or ``few
        levels`` of 16 bits.
    :param frozen: whether the camera repeats an image.
    :param dead_channels: indices of the dead channels in blue-green-red order.
    """

    trust: float
    faults: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    frozen: bool = False
    dead_channels: tuple[int, ...] = ()


class SensorWatch:
    """
    Watches the decoded images of one camera for faults.

    These lower trust, each by its own factor:

    - ``frozen``, factor 0: for longer than ``frozen_timeout`` and at least two images, each was
      identical to the previous one, or differed nearly everywhere by less than a fifth of the
      usual noise of this camera, and of one count. It ends with the first image that differs, or
      when the other camera has not moved for ``frozen_timeout`` either: fusing a still pair does
      no harm. A camera that really sends identical images of a still scene, for example after
      video compression, cannot be told from a frozen one: set ``frozen_timeout`` to 0 for it.
    - ``black``: of 8-bit images, the brightest pixels are below 28 of 255; the factor falls to 0
      at 10. Of other types, they are at the lower end of the type, or 0.
    - ``saturated``: more than 60 % of the pixels are clipped at white: 250 or more of 255, and in
      other types the largest value of the image if a range ends there: that of 8 to 16 bits, in
      the lower or the upper ones of an integer, or 1 in floating point. The factor is proportional
      to the other pixels, and 1 at 40 % of them.
    - ``blank``: all pixels are within 4 counts; the factor falls to 0 at 2. One count of floating
      point is taken as 0.005 % of the magnitude.
    - ``featureless``: raw counts show nothing but noise, within 250 counts: the means over
      squares of 8 by 8 samples hardly differ more than by chance, as with a lens cap, or in fog.
    - ``dead channel``: blue, green or red of an 8-bit image is constantly 0 or 255 while another
      channel has contrast. The factor is 1 minus the channel's share of luma (BT.601).

    The brightest and the darkest 0.05 % of the pixels are ignored. Trust approaches the product of
    the factors by 1 per ``fade``, in the time of the stamps. It is the product at once for the
    first image, and for one whose stamp went back or is more than 10 s after the last one, when
    the past is forgotten.

    An image of another size or encoding is not a fault. It is counted in ``changes``, as
    'resolution changes' or 'encoding changes', and not compared with earlier ones.

    Not thread-safe: images have an order.
    """

    def __init__(self, source: str, *, frozen_timeout: float = 0.3, fade: float = 0.4) -> None:
        """
        Check and store the settings.

        :param source: 'visible', 'thermal' or another name, for the messages.
        :param frozen_timeout: in s; 0 never calls a camera frozen.
        :param fade: time from full trust to none and back, in s; 0 is at once.
        :raises ValueError: a time is negative or not finite.
        """
        for name, seconds in (('frozen_timeout', frozen_timeout), ('fade', fade)):
            if not (math.isfinite(seconds) and seconds >= 0.0):
                raise ValueError(f'{name} must be 0 s or more, not {seconds:g}')
        self.source = source
        self.frozen_timeout = float(frozen_timeout)
        self.fade = float(fade)
        self.changes: Counter[str] = Counter()
        self._size: tuple[int, ...] = ()
        self._encoding: tuple[object, ...] = ()
        self.reset()

    def reset(self) -> None:
        """Forget the past, but not the counters: the next image counts as the first."""
        self._trust: float | None = None
        self._stamp = -math.inf
        self._sequence = _Sequence()
        self._absent = False

    def lose_trust(self) -> None:
        """Note that the camera is silent: its next image starts without trust."""
        self.reset()
        self._absent = True

    @property
    def moves(self) -> bool:
        """
        Return whether the last image differed from the previous one; True until there is one.

        Pass it to the watch of the other camera. Sensor noise alone makes images differ.
        """
        return self._sequence.moves

    def __call__(
        self,
        image: NDArray[Any],
        stamp: float,
        other_moves: bool = True,
        encoding: str = '',
        no_data: NDArray[np.bool_] | None = None,
    ) -> Condition:
        """
        Check the next image.

        :param image: (H, W), or (H, W, 3) in blue-green-red order, as decoded, before any mapping
            of its range: integers or floating point, which may hold NaN. It is not kept.
        :param no_data: (H, W), True where the image holds no measurement; not needed for NaN.
        :param stamp: time of the image in s, from the header.
        :param other_moves: `moves` of the other camera's watch.
        :param encoding: of the message, if known: changes of it are counted, too.
        :raises ValueError: the image has another type or shape.
        """
        if image.ndim not in (2, 3) or image.size == 0 or image.dtype.kind not in 'iuf':
            raise ValueError(
                f'the {self.source} image is not (H, W) or (H, W, 3) of numbers, but '
                f'{image.dtype} of shape {image.shape}'
            )
        elapsed = stamp - self._stamp
        absent = self._absent
        if not 0.0 <= elapsed <= _GAP:
            self.reset()
        if absent:
            self._absent, self._trust, elapsed = False, 0.0, 0.0
        self._stamp = stamp
        self._count_changes(image, encoding)

        planes = _sample(image, no_data)
        ordered = np.sort(planes, axis=1, kind='stable' if planes.itemsize <= 2 else None)
        exposure = _exposure_fault(planes, ordered, self.source)
        found = [exposure] if exposure else []
        if exposure is None and _is_quiet(ordered):
            structure = _structure(image, no_data)
            content = _ramp(structure - _FEATURELESS, _NOT_FEATURELESS - _FEATURELESS)
            if content < 1.0:
                text = f'the {self.source} image shows nothing but noise: is the lens covered?'
                found.append(_Fault('featureless', text, content))
        dead = _dead_channels(ordered)
        if dead:
            found.append(_dead_channel_fault(dead, self.source))

        largest_noise = min(_LARGEST_NOISE * _contrast(ordered), _one_count(ordered))
        self._sequence.add(planes, largest_noise, stamp, other_moves, self.frozen_timeout)
        # An image without content is always the same, even from a camera that is not frozen.
        seconds = self._sequence.frozen_for
        frozen = seconds > 0.0 and (exposure is None or exposure.factor > 0.0)
        if frozen:
            text = f'the {self.source} image has been frozen for {seconds:.1f} s'
            found.append(_Fault('frozen', text, 0.0))

        deserved = math.prod((fault.factor for fault in found), start=1.0)
        step = elapsed / self.fade if self.fade else math.inf
        if self._trust is None or abs(deserved - self._trust) <= step:
            self._trust = deserved
        else:
            self._trust += math.copysign(step, deserved - self._trust)
        return Condition(
            self._trust,
            tuple(fault.text for fault in found),
            tuple(fault.kind for fault in found),
            frozen,
            dead,
        )

    def _count_changes(self, image: NDArray[Any], encoding: str) -> None:
        size = image.shape[:2]
        described = (image.dtype, image.shape[2:], encoding)
        if self._size and size != self._size:
            self.changes['resolution changes'] += 1
            self._sequence = _Sequence()
        if self._encoding and described != self._encoding:
            self.changes['encoding changes'] += 1
            self._sequence = _Sequence()
        self._size, self._encoding = size, described


class _Fault(NamedTuple):
    kind: str
    text: str
    factor: float


class _Sequence:
    """A sequence of images: whether they differ, and since when they do not."""

    def __init__(self) -> None:
        self.moves = True
        self.frozen_for = 0.0
        self._planes: NDArray[Any] | None = None
        # Mean difference of two live images in the blocks that differ least.
        self._noise = math.inf
        self._differences = 0
        self._stamp = 0.0
        # The first of the equal images.
        self._since = 0.0
        self._repeats = 0
        self._other_moved = -math.inf

    def add(
        self,
        planes: NDArray[Any],
        largest_noise: float,
        stamp: float,
        other_moves: bool,
        timeout: float,
    ) -> None:
        """Compare an image with the previous one, and set `moves` and `frozen_for` (s)."""
        before, self._planes = self._planes, planes
        elapsed, self._stamp = stamp - self._stamp, stamp
        self.moves = before is None or self._differ(before, planes, largest_noise, elapsed)
        if other_moves:
            self._other_moved = stamp
        if self.moves or stamp - self._other_moved > timeout:
            self._since, self._repeats = stamp, 0
        elif other_moves:
            self._repeats += 1
        lasts = stamp - self._since
        is_frozen = 0.0 < timeout < lasts and self._repeats >= _REPEATS
        self.frozen_for = lasts if is_frozen else 0.0

    def _differ(
        self, before: NDArray[Any], after: NDArray[Any], largest_noise: float, elapsed: float
    ) -> bool:
        """Return whether two images are of different moments, and learn the usual noise."""
        if np.array_equal(before, after):
            return False
        blocks = np.sort(_block_differences(before, after))
        little, much = (float(blocks[int(part * (blocks.size - 1))]) for part in (0.25, 0.95))
        noise = min(self._noise, largest_noise)
        if self._differences >= _KNOWN_AFTER and much < _NEARLY * noise:
            self._noise *= math.exp(-elapsed / _NOISE_FALL)
            return False
        self._differences += 1
        if little < self._noise:
            self._noise = little
        else:
            self._noise += (little - self._noise) * -math.expm1(-elapsed / _NOISE_RISE)
        return True


def _sample(image: NDArray[Any], no_data: NDArray[np.bool_] | None) -> NDArray[Any]:
    """
    Return a copy of pixels on a regular grid, at most :data:`_SAMPLE_PIXELS` of them.

    :return: (channels, pixels), contiguous; the median replaces pixels without a measurement.
    """
    stride = math.ceil(math.sqrt(image.shape[0] * image.shape[1] / _SAMPLE_PIXELS))
    sample = image[::stride, ::stride]
    planes = np.array(sample.reshape(-1, math.prod(image.shape[2:])).T, order='C')
    measured = _measured(planes)
    if no_data is not None:
        measured &= ~no_data[::stride, ::stride].reshape(-1)
    if not measured.all():
        planes[~measured] = np.median(planes[measured]) if measured.any() else 0
    return planes


def _measured(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which values are measurements, not NaN, infinite or absurdly large."""
    if values.dtype.kind != 'f':
        return np.ones(values.shape, bool)
    return np.asarray(np.abs(values) < WILD)  # not NaN either


def _one_count(ordered: NDArray[Any]) -> float:
    """Return the size of one count of the sensor."""
    if ordered.dtype.kind != 'f':
        return 1.0
    return _FLOAT_COUNT * float(np.abs(ordered[:, [0, -1]]).max())


def _is_quiet(ordered: NDArray[Any]) -> bool:
    """Return whether raw counts spread no further than noise may."""
    spread = _contrast(ordered)
    return ordered.dtype != np.uint8 and spread <= _NOISE_SPREAD * _one_count(ordered)


def _structure(image: NDArray[Any], no_data: NDArray[np.bool_] | None) -> float:
    """Return how much more squares differ than in white noise, in the best channel."""
    stride = math.ceil(math.sqrt(image.shape[0] * image.shape[1] / _SAMPLE_PIXELS))
    sample = image[::stride, ::stride]
    rows, columns = (side // _SQUARE for side in sample.shape[:2])
    if rows * columns < _FEWEST_SQUARES:
        return math.inf
    window = slice(rows * _SQUARE), slice(columns * _SQUARE)
    pixels = sample[window].astype(np.float64)
    measured = _measured(pixels)
    if no_data is not None:
        measured = (measured.T & ~no_data[::stride, ::stride][window].T).T
    if not measured.all():
        pixels[~measured] = pixels[measured].mean() if measured.any() else 0.0
    squares = pixels.reshape(rows, _SQUARE, columns, _SQUARE, -1)
    of_squares = squares.mean(axis=(1, 3)).var(axis=(0, 1))
    of_pixels = squares.var(axis=(0, 1, 2, 3))
    seen = of_pixels > 0
    if not seen.any():
        return math.inf
    return float((of_squares[seen] / of_pixels[seen]).max()) * _SQUARE**2


def _block_differences(before: NDArray[Any], after: NDArray[Any]) -> NDArray[np.float32]:
    """Return the mean absolute difference of each block of samples."""
    differences = np.subtract(after, before, dtype=np.float32)
    np.abs(differences, out=differences)
    pixels = differences.shape[1]
    length = min(_BLOCK, pixels)
    whole = differences[:, : pixels - pixels % length]
    means: NDArray[np.float32] = whole.reshape(-1, length).mean(axis=1)
    return means


def _quantile(ordered: NDArray[Any], part: float) -> NDArray[np.float64]:
    """Return the quantile ``part`` of the samples of each channel, by rank."""
    return ordered[:, round(part * (ordered.shape[1] - 1))].astype(np.float64)


def _contrast(ordered: NDArray[Any]) -> float:
    """Return the largest spread of a channel, outliers left out."""
    return float((_quantile(ordered, 1.0 - _OUTLIERS) - _quantile(ordered, _OUTLIERS)).max())


def _exposure_fault(planes: NDArray[Any], ordered: NDArray[Any], source: str) -> _Fault | None:
    """Return the exposure fault that lowers trust in an image most, if any."""
    brightest = float(_quantile(ordered, 1.0 - _OUTLIERS).max())
    spread = _contrast(ordered)
    is_byte, is_float = planes.dtype == np.uint8, planes.dtype.kind == 'f'
    count = _one_count(ordered)
    blank = _ramp(spread - _BLANK * count, (_NOT_BLANK - _BLANK) * count)

    white = float(_WHITE) if is_byte else brightest
    clipped = float(np.mean(planes.min(axis=0) >= white))
    usable = min((1.0 - clipped) / (1.0 - _CLIPPED), 1.0)
    if is_byte:
        lit = _ramp(brightest - _BLACK, _NOT_BLACK - _BLACK)
    else:
        bottoms = {0.0} if is_float else {0.0, float(np.iinfo(planes.dtype).min)}
        at_bottom = any(abs(brightest - bottom) <= _BLANK * count for bottom in bottoms)
        lit = blank if at_bottom else 1.0
        # Otherwise it is the largest value of a scene, such as a warm wall behind something cold.
        if not _ends_a_range(brightest, planes.dtype):
            usable = 1.0

    black = 'all black' if lit == 0.0 else 'almost black'
    faults = (
        _Fault('black', f'the {source} image is {black}: is the lens covered?', lit),
        _Fault(
            'saturated',
            f'the {source} image is saturated: {100 * clipped:.0f} % of it is white',
            usable,
        ),
        _Fault('blank', f'the {source} image is blank: it has no contrast, not even noise', blank),
    )
    worst = min(faults, key=lambda fault: fault.factor)
    return worst if worst.factor < 1.0 else None


def _ramp(value: float, full: float) -> float:
    """Return a linear ramp from 0 at 0 to 1 at ``full``, clipped."""
    if value <= 0.0:
        return 0.0
    return 1.0 if value >= full else value / full


def _ends_a_range(value: float, dtype: np.dtype[Any]) -> bool:
    """Return whether a number has all bits of a sensor set, in the lower or upper ones of 16."""
    if dtype.kind == 'f':
        return value == 1.0
    ends = {(1 << bits) - 1 for bits in _SENSOR_BITS}
    ends |= {(1 << 16) - (1 << (16 - bits)) for bits in _SENSOR_BITS}
    return value in ends or value == np.iinfo(dtype).max


def _dead_channels(ordered: NDArray[Any]) -> tuple[int, ...]:
    """Return the channels that are constantly 0 or 255 while another one has contrast."""
    if ordered.dtype != np.uint8 or len(ordered) != len(_CHANNELS):
        return ()
    low, high = _quantile(ordered, 0.05), _quantile(ordered, 0.95)
    if float((high - low).max()) < _LIVE_CONTRAST:
        return ()
    largest = _DEAD_EXTREME * _contrast(ordered)
    middle = _quantile(ordered, 0.5)
    brightest, darkest = _quantile(ordered, 1.0 - _OUTLIERS), _quantile(ordered, _OUTLIERS)
    is_black = (middle <= _DEAD_HALF) & (high <= _DEAD_NEARLY_ALL) & (brightest <= largest)
    is_white = (
        (middle >= 255 - _DEAD_HALF) & (low >= 255 - _DEAD_NEARLY_ALL) & (darkest >= 255 - largest)
    )
    return tuple(int(channel) for channel in np.flatnonzero(is_black | is_white))


def _dead_channel_fault(channels: tuple[int, ...], source: str) -> _Fault:
    names = [_CHANNELS[channel] for channel in channels]
    subject = f'{" and ".join(names)} channel' + ('s' if len(names) > 1 else '')
    verb = 'are' if len(names) > 1 else 'is'
    text = f'the {subject} of the {source} image {verb} dead'
    return _Fault('dead channel', text, 1.0 - sum(LUMA_BGR[channel] for channel in channels))
