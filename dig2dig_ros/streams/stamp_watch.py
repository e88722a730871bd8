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

"""Checks whether the stamps of the cameras can be trusted, by the arrival of their images."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from itertools import islice
import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dig2dig_ros.streams.parameters import PARAMETERS_BY_NAME

DELAY = 0.5
"""
Seconds by which images of one camera may come later than those of the other: compression, the
network and a driver's buffers take 0.1 to 0.3 s. More is reported as a difference of clocks.
"""

# A stream over a network may be this many seconds late, for which users may compensate.
_LONGEST_DELAY = 2.0
# Number of comparisons whose median is the offset, and how many a warning needs.
_COMPARED, _FEWEST_COMPARED = 60, 8
# Most images of one source to compare between two of the first source.
_BETWEEN = 8
# Number of recent images in which useless stamps are counted, and how many are enough.
_COUNTED, _FEWEST_COUNTED = 60, 10
# Stamps that all lie this near to others are of the same moments: the rest of the offset is the
# delay of one camera's images. In seconds.
_ALIKE, _SAME_MOMENT = 0.002, 0.02
# Largest ratio of two distances that count as about the same.
_AS_NEAR = 1.2
_NANOSECONDS = 1_000_000_000


class _Comparison(NamedTuple):
    """An image of a source, and the latest one of the first source when it came; in seconds."""

    arrival: float
    stamp: float
    first_stamp: float
    # Between the two images of the first source around it.
    first_gap: float


class StampWatch:
    """
    Compares the stamps of each source with those of the first, and counts useless ones.

    Stamps may pair although the clocks of the cameras differ, by any time that images wait in the
    queue. The images of such a pair do not arrive together. So an image's stamp is compared with
    the stamp of the first source at its arrival, interpolated between the two images around it.
    Neither the speed of a replay nor a common error of all stamps matters.

    :param sources: names, visible and thermal first.
    :param stamps_kept: of each source, to find their offset if no images arrive together.
    """

    def __init__(self, sources: Sequence[str], stamps_kept: int) -> None:
        self._sources = tuple(sources)
        self._stamps_kept = stamps_kept
        self.clear()

    def clear(self) -> None:
        """Forget all stamps."""
        sources = self._sources
        self._stamps: dict[str, deque[int]] = {
            source: deque(maxlen=self._stamps_kept) for source in sources
        }
        # Whether the latest images have a new stamp, the previous one, or none.
        self._marks: dict[str, deque[str]] = {s: deque(maxlen=_COUNTED) for s in sources}
        self._compared: dict[str, deque[_Comparison]] = {
            source: deque(maxlen=_COMPARED) for source in sources[1:]
        }
        # Arrival and stamp of images that came since the last one of the first source.
        self._open: dict[str, deque[tuple[float, int]]] = {
            source: deque(maxlen=_BETWEEN) for source in sources[1:]
        }
        self._first: tuple[float, int] | None = None

    def __call__(self, source: str, stamp: int, arrival: float) -> str:
        """
        Note an image; its stamp in nanoseconds, its arrival in seconds.

        :return: '', or the problem of its stamp: 'repeated' or 'zero'.
        """
        stamps = self._stamps[source]
        mark = 'zero' if stamp <= 0 else 'repeated' if stamps and stamps[-1] == stamp else ''
        self._marks[source].append(mark)
        if mark:
            return mark
        stamps.append(stamp)
        if source != self._sources[0]:
            self._open[source].append((arrival, stamp))
            return ''
        before, self._first = self._first, (arrival, stamp)
        for other, waiting in self._open.items():
            if waiting and before is not None and before[1] < stamp:
                self._compare(before, self._first, waiting, self._compared[other])
            waiting.clear()
        return ''

    @staticmethod
    def _compare(
        before: tuple[float, int],
        after: tuple[float, int],
        waiting: Collection[tuple[float, int]],
        compared: deque[_Comparison],
    ) -> None:
        span, gap = after[0] - before[0], (after[1] - before[1]) * 1e-9
        for arrival, stamp in waiting:
            share = (arrival - before[0]) / span if span > 0.0 else 0.5
            # Relative to the previous stamp, so that no nanoseconds are lost.
            own = (stamp - before[1]) * 1e-9
            first = before[1] * 1e-9
            compared.append(_Comparison(arrival, first + own, first + share * gap, gap))

    def latest(self, source: str) -> int | None:
        """Return the last new stamp of a source, in nanoseconds."""
        stamps = self._stamps[source]
        return stamps[-1] if stamps else None

    # How far apart the clocks are

    def offset(self, source: str, tolerance: float) -> float | None:
        """
        Return by how many seconds the stamps of a source are ahead of those of the first.

        That is the median over images that arrived together, as sent. It is exact if the stamps
        are of the same moments; otherwise it includes the delay of one camera's images.

        :param tolerance: within which stamps pair. With the offset, they do.
        :return: None if no images arrived together.
        """
        compared = self._compared[source]
        if not compared:
            return None
        offset = float(np.median([each.stamp - each.first_stamp for each in compared]))
        left = self._left(source, offset)
        if not len(left):
            return offset
        rest = float(np.median(left))
        alike = float(np.median(np.abs(left - rest))) < _ALIKE
        if abs(rest) > tolerance:
            # The next stamp on the other side may be as near: the smaller offset is likelier.
            period = max(_usual_gap(self._sorted(name, _COMPARED)) for name in self._both(source))
            other = rest - math.copysign(period * 1e-9, rest)
            near = [r for r in (rest, other) if abs(r) <= _AS_NEAR * abs(rest)]
            return min((offset + r for r in near), key=abs)
        return offset + rest if alike and abs(rest) < _SAME_MOMENT else offset

    def _both(self, source: str) -> tuple[str, str]:
        return self._sources[0], source

    def nearest_offset(self, source: str) -> float | None:
        """
        Return the median of the seconds from a stamp of the first source to the nearest one.

        :return: None if one of the two has no stamps.
        """
        first, own = (self._sorted(name) for name in self._both(source))
        left = _to_nearest(first, own) if len(first) and len(own) else ()
        return float(np.median(left)) * 1e-9 if len(left) else None

    def _left(self, source: str, offset: float) -> NDArray[np.float64]:
        """Return the seconds from recent stamps of the first source to the nearest, corrected."""
        first, own = (self._sorted(name, _COMPARED) for name in self._both(source))
        own = own - round(offset * _NANOSECONDS)
        low, high = max(first[0], own[0]), min(first[-1], own[-1])
        margin = max(_usual_gap(first), _usual_gap(own))
        first, own = (
            stamps[(stamps >= low - margin) & (stamps <= high + margin)] for stamps in (first, own)
        )
        both = low <= high and len(first) and len(own)
        left = _to_nearest(first, own) if both else np.zeros(0, np.int64)
        return np.asarray(left * 1e-9, np.float64)

    def _sorted(self, source: str, most: int | None = None) -> NDArray[np.int64]:
        """Return the stamps of a source, the latest ``most`` of them."""
        latest = islice(reversed(self._stamps[source]), most)
        return np.unique(np.fromiter(latest, dtype=np.int64))

    def clock_warnings(self, values: Mapping[str, Any], left_out: Collection[str]) -> list[str]:
        """
        Return a sentence for every source whose clock differs from that of the first.

        :param values: the node's parameters by name.
        :param left_out: sources to say nothing about.
        """
        warnings = []
        for source in self._compared:
            if source not in left_out and self._sources[0] not in left_out:
                shift = values['thermal_time_offset'] if source == self._sources[1] else 0.0
                warnings += self._clock_warning(source, shift, values['sync_tolerance'])
        return warnings

    def _clock_warning(self, source: str, shift: float, tolerance: float) -> list[str]:
        compared = self._compared[source]
        if len(compared) < _FEWEST_COMPARED:
            return []
        arrivals, stamps, firsts, gaps = np.array(compared).T
        offsets = stamps - firsts
        limit = max(DELAY, tolerance, float(np.median(gaps)), float(_usual_gap(stamps)))
        # In a fast replay, the same delay is longer in stamps.
        steps = np.diff(arrivals)
        rates = np.diff(firsts)[steps > 0.0] / steps[steps > 0.0]
        limit *= max(1.0, float(np.median(rates))) if len(rates) else 1.0
        # A queue that is emptied now and then is not a clock: nearly all images must agree.
        low, high = np.percentile(offsets + shift, (25, 75))
        if low <= limit and high >= -limit:
            return []
        low, high = np.percentile(offsets, (25, 75))
        makes_up = shift and abs(shift) <= _LONGEST_DELAY and low <= limit and high >= -limit
        offset = None if makes_up else self.offset(source, tolerance)
        if offset is None:
            return []
        first = self._sources[0]
        late = first if offset + shift > 0 else source
        corrected = f' (thermal_time_offset is {shift:g} s)' if shift else ''
        return [
            f'{apart(source, offset, first)}{corrected}: pairs were not taken together; '
            f'{remedy(source == self._sources[1], offset)}, unless the {late} images really come '
            f'{abs(offset + shift):.1f} s late'
        ]

    def table(self, tolerance: float) -> dict[str, str]:
        """Return how far the stamps of each source are ahead of those of the first, in s."""
        offsets = {source: self.offset(source, tolerance) for source in self._compared}
        return {
            f'stamp offset {source} (s)': 'unknown' if offset is None else f'{offset:.3f}'
            for source, offset in offsets.items()
        }

    # Useless stamps

    def stamp_warnings(self, left_out: Collection[str]) -> list[str]:
        """Return a sentence for every source that sends many images without a new stamp."""
        warnings = []
        for source, marks in self._marks.items():
            number = len(marks)
            if source in left_out or number < _FEWEST_COUNTED:
                continue
            zero, repeated = marks.count('zero'), marks.count('repeated')
            if 10 * zero >= number:
                warnings.append(
                    f'{zero} of the last {number} {source} images have no stamp and are dropped: '
                    'the driver must set one'
                )
            recent = islice(reversed(self._stamps[source]), _COUNTED)
            whole = repeated and all(stamp % _NANOSECONDS == 0 for stamp in recent)
            # A driver that sends each image twice does no harm.
            if 10 * repeated >= number if whole else 2 * repeated > number:
                coarse = ', in whole seconds,' if whole else ''
                warnings.append(
                    f'{repeated} of the last {number} {source} images repeat the previous '
                    f'stamp{coarse} and are dropped: the driver must stamp each image with the '
                    'time at which it was taken'
                )
        return warnings


def apart(source: str, offset: float, first: str) -> str:
    """Say how far the stamps of a source are from those of the first; the start of a message."""
    side = 'after' if offset > 0 else 'before'
    return (
        f'the {source} stamps are {abs(offset):.3f} s {side} the {first} ones, judging by the '
        'arrival of the images'
    )


def remedy(has_offset: bool, offset: float) -> str:
    """Return what to do about clocks that differ by ``offset`` seconds."""
    limits = PARAMETERS_BY_NAME['thermal_time_offset'].limits
    if not has_offset or (limits and abs(offset) > limits[1]):
        return 'the clocks of the cameras differ, synchronise them'
    return (
        f'the clocks of the cameras differ: set thermal_time_offset: {-offset:.3f}, or '
        'synchronise them'
    )


def _usual_gap(stamps: NDArray[Any]) -> Any:
    """Return the median step of rising stamps; 0 for fewer than two."""
    return np.median(np.abs(np.diff(stamps))) if len(stamps) > 1 else 0


def _to_nearest(first: NDArray[np.int64], own: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the distances from stamps of the first source to the nearest; both are sorted."""
    # From the fewer ones: some of the others have none nearby.
    return -_distances(own, first) if len(own) < len(first) else _distances(first, own)


def _distances(stamps: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the distance from each stamp to the nearest of others, which are sorted."""
    after = np.searchsorted(others, stamps)
    before, behind = (
        others[np.clip(after + step, 0, len(others) - 1)] - stamps for step in (-1, 0)
    )
    return np.where(np.abs(before) <= np.abs(behind), before, behind)
