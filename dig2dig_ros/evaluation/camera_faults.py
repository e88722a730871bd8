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
Cameras that fail for a while: which images are sent, when, and with which pixels.

:class:`FaultyCamera` passes, drops or alters images of any type; :func:`altered` is the effect of
a fault on pixels. Both are deterministic.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
import math
from typing import Generic, TypeVar

import cv2
import numpy as np

from dig2dig_ros.evaluation.imperfect_cameras import Array, ImperfectionError, of_type
from dig2dig_ros.streams.pairing import Source, SOURCES

# The counts of a thermal core, of which the upper 8 bits make an 8-bit image.
_THERMAL_BITS = 14
_COUNTS_PER_LEVEL = 2 ** (_THERMAL_BITS - 8)
# A sensor behind its lens cap: grey levels, and counts of a raw thermal image.
_COVER_NOISE, _THERMAL_COVER_NOISE = 1.5, 4.0

# Kinds of fault, the cameras that can have them, and the words that may follow, the default first.
# A number stands for any number.
FAULTS: dict[str, dict[Source, tuple[str, ...]]] = {
    # The same image again and again; its stamps advance, or stand still as well.
    'freeze': {'visible': (), 'thermal': ()},
    'repeat_stamp': {'visible': (), 'thermal': ()},
    # Nothing is sent.
    'drop': {'visible': (), 'thermal': ()},
    # Seconds by which stamps are late.
    'late': {'visible': ('0.1',), 'thermal': ('0.1',)},
    # A cap on the lens: black, or one temperature, with a little noise.
    'cover': {'visible': (), 'thermal': ()},
    # All white.
    'saturate': {'visible': (), 'thermal': ()},
    # A channel is 0.
    'dead_channel': {'visible': ('red', 'green', 'blue')},
    # As bgr8, in false colours.
    'false_colour': {'thermal': ()},
    # Half the width and height.
    'half_size': {'visible': (), 'thermal': ()},
    # Another encoding; from 16 to 8 bits, the upper 8 of 14 are kept.
    'reencode': {'visible': ('rgb8', 'mono8'), 'thermal': ('16UC1', 'mono16', 'mono8')},
    # A disc far hotter than everything else enters from the left.
    'hot_object': {'thermal': ()},
    # Jump of all counts; 8-bit images jump by a 64th of it.
    'level_jump': {'thermal': ('2000',)},
}
# Faults that leave the pixels alone.
_UNALTERING = ('freeze', 'repeat_stamp', 'drop', 'late')


@dataclass(frozen=True)
class Fault:
    """
    Something that goes wrong with a camera for a while.

    :param kind: one of :data:`FAULTS`.
    :param source: the camera.
    :param start: seconds after the first image.
    :param duration: in seconds; infinite for ever.
    :param detail: the channel, encoding, seconds or counts; empty if there is no choice.
    """

    kind: str
    source: Source
    start: float
    duration: float
    detail: str = ''

    @staticmethod
    def parse(text: str) -> Fault:
        """
        Parse 'KIND SOURCE START DURATION [DETAIL]'; a duration of 0 or inf means no end.

        :raises ImperfectionError: a word is missing, unknown or superfluous.
        """
        words = text.split()
        if not 4 <= len(words) <= 5:
            raise ImperfectionError(
                f"'{text}' is not a fault: write KIND SOURCE START DURATION (in seconds), such as "
                "'freeze thermal 5 2'"
            )
        kind, name, start, duration = words[:4]
        if kind not in FAULTS:
            raise ImperfectionError(
                f"unknown kind of fault '{kind}' in '{text}': use one of {', '.join(FAULTS)}"
            )
        source = next((source for source in FAULTS[kind] if source == name), None)
        if source is None:
            raise ImperfectionError(
                f"in '{text}', '{name}' is not a camera with such a fault: use "
                f'{" or ".join(FAULTS[kind])}'
            )
        length = _number(duration, text, 'duration')
        if length < 0:
            raise ImperfectionError(
                f"the duration in '{text}' is negative: use 0 or inf for a fault without an end"
            )
        return Fault(
            kind,
            source,
            _number(start, text, 'start'),
            length or math.inf,
            _detail(words, FAULTS[kind][source], text),
        )

    def covers(self, time: float) -> bool:
        """Return whether it is active ``time`` seconds after the first image."""
        return self.start - 1e-9 <= time < self.start + self.duration - 1e-9


def _number(word: str, text: str, what: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if math.isnan(value) or (math.isinf(value) and what != 'duration'):
        raise ImperfectionError(f"the {what} in '{text}' must be a number, not '{word}'")
    return value


def _detail(words: Sequence[str], known: Sequence[str], text: str) -> str:
    if len(words) < 5:
        return known[0] if known else ''
    if not known:
        raise ImperfectionError(f"'{words[4]}' in '{text}' is superfluous: leave it out")
    if len(known) == 1:
        _number(words[4], text, 'last word')
    elif words[4] not in known:
        raise ImperfectionError(f"unknown '{words[4]}' in '{text}': use one of {', '.join(known)}")
    return words[4]


ImageT = TypeVar('ImageT')
# Takes and returns pixels (H, W[, 3]), blue first, and their encoding as ROS names it.
Alteration = Callable[[Array, str], tuple[Array, str]]


@dataclass(frozen=True)
class SentImage(Generic[ImageT]):
    """
    What a faulty camera sends.

    :param image: of any type.
    :param late: seconds by which its stamp is late.
    :param repeats_stamp: it has the stamp of the previous image.
    """

    image: ImageT
    late: float = 0.0
    repeats_stamp: bool = False


class FaultyCamera(Generic[ImageT]):
    """
    Passes, drops or alters the images of one camera.

    :param source: the camera; faults of the other one are ignored.
    :param faults: all faults; simultaneous ones add up in this order.
    :param alter: returns an image with its pixels altered; only called when they must be.
    :param seed: of the noise.
    """

    def __init__(
        self,
        source: Source,
        faults: Sequence[Fault],
        alter: Callable[[ImageT, Alteration], ImageT],
        seed: int = 0,
    ) -> None:
        self._faults = [fault for fault in faults if fault.source == source]
        self._alter = alter
        self._random = np.random.default_rng([seed, SOURCES.index(source)])
        self._last: list[ImageT] = []  # at most one

    def send(self, time: float, image: ImageT) -> SentImage[ImageT] | None:
        """
        Return what is sent for an image ``time`` seconds after the first one, or None.

        If no fault changes its pixels, it is the same object.
        """
        faults = [fault for fault in self._faults if fault.covers(time)]
        kinds = {fault.kind for fault in faults}
        if 'drop' in kinds:
            return None
        held = bool(self._last) and not kinds.isdisjoint(('freeze', 'repeat_stamp'))
        if held:
            (image,) = self._last
        else:
            for fault in faults:
                if fault.kind not in _UNALTERING:
                    image = self._alter(
                        image, partial(altered, fault=fault, time=time, random=self._random)
                    )
        self._last = [image]
        late = sum(float(fault.detail) for fault in faults if fault.kind == 'late')
        return SentImage(image, late, held and 'repeat_stamp' in kinds)


def altered(
    pixels: Array, encoding: str, fault: Fault, time: float, random: np.random.Generator
) -> tuple[Array, str]:
    """
    Apply a fault to pixels; return them with their encoding.

    :param pixels: (H, W[, 3]), blue first.
    :param encoding: as ROS names it.
    :param time: in seconds after the first image.
    :param random: draws the noise.
    """
    match fault.kind:
        case 'cover':
            pixels = _covered(pixels, fault.source, random)
        case 'saturate':
            pixels = np.full_like(pixels, _white(pixels))
        case 'dead_channel' if pixels.ndim == 3:
            pixels = pixels.copy()
            pixels[..., ('blue', 'green', 'red').index(fault.detail)] = 0
        case 'false_colour' if pixels.ndim == 2:
            low, high = float(pixels.min()), float(pixels.max())
            levels = (pixels.astype(np.float32) - low) * (255.0 / max(1.0, high - low))
            colours = cv2.applyColorMap(of_type(levels, np.uint8), cv2.COLORMAP_INFERNO)
            return colours, 'bgr8'
        case 'half_size':
            size = max(1, pixels.shape[1] // 2), max(1, pixels.shape[0] // 2)
            pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
        case 'reencode':
            return _reencoded(pixels, fault.source, fault.detail)
        case 'hot_object':
            pixels = _with_hot_object(pixels, time - fault.start)
        case 'level_jump':
            scale = _COUNTS_PER_LEVEL if pixels.dtype == np.uint8 else 1
            jump = float(fault.detail) / scale
            pixels = of_type(pixels.astype(np.float32) + jump, pixels.dtype)
    return pixels, encoding


def _covered(pixels: Array, source: Source, random: np.random.Generator) -> Array:
    level, noise = 0.0, _COVER_NOISE
    if source == 'thermal':
        level = float(pixels.mean())
        # A camera that sends 8 bits has averaged, and filtered, the noise away.
        noise = _THERMAL_COVER_NOISE if pixels.dtype.itemsize > 1 else 0.0
    covered = level + noise * random.standard_normal(pixels.shape, np.float32)
    return of_type(covered, pixels.dtype)


def _reencoded(pixels: Array, source: Source, encoding: str) -> tuple[Array, str]:
    if source == 'visible':
        if encoding == 'mono8' and pixels.ndim == 3:
            pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY)
        elif encoding == 'rgb8' and pixels.ndim == 2:
            pixels = cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGR)
    elif pixels.ndim == 3:  # a false colour before
        return pixels, 'bgr8'
    elif encoding == 'mono8' and pixels.dtype == np.uint16:
        pixels = of_type(pixels // _COUNTS_PER_LEVEL, np.uint8)
    elif encoding != 'mono8' and pixels.dtype == np.uint8:
        pixels = pixels.astype(np.uint16) * _COUNTS_PER_LEVEL
    return pixels, encoding


def _with_hot_object(pixels: Array, seconds: float) -> Array:
    """Return an image with a white disc: half inside at once, in the middle after 5 seconds."""
    height, width = pixels.shape[:2]
    x, y = width * min(0.5, 0.1 * seconds), 0.6 * height
    rows, columns = np.ogrid[:height, :width]
    inside = np.clip(0.1 * height + 0.5 - np.hypot(columns - x, rows - y), 0.0, 1.0)
    if pixels.ndim == 3:
        inside = inside[..., np.newaxis]
    cold = pixels.astype(np.float32)
    return of_type(cold + inside * (_white(pixels) - cold), pixels.dtype)


def _white(pixels: Array) -> int:
    """Return the largest count of the camera that took an image."""
    if pixels.dtype == np.uint8:
        return 255
    return (1 << (_THERMAL_BITS if int(pixels.max()) >> _THERMAL_BITS == 0 else 16)) - 1
