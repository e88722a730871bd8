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

"""The recent stamps of a source: its period, its repeats, and restarts of its time."""

from __future__ import annotations

from bisect import bisect_left, insort
from itertools import pairwise
from statistics import median

CLOCK_JUMP = 1_000_000_000
"""
A stamp this many nanoseconds before the latest one of its source begins a new timeline (a bag that
starts again, a clock that was set back). For smaller steps, see :meth:`RecentStamps.begins_anew`.
"""

# A message that was overtaken is usually fewer periods than this behind the latest one.
_SEVERAL_PERIODS = 2.5
# This many messages in succession are not a coincidence.
_STEADY = 3


class RecentStamps:
    """
    The latest stamps of one source, in order.

    :param queue_size: messages of the source that may be undecided; their repeats are noticed.
    """

    # Enough to see the rate of a camera, and few enough to follow when it changes.
    GAPS = 32
    FEWEST_GAPS = 4
    # Fraction of the shortest recent gap to rely on, as a shorter one may come.
    TRUST = 0.9

    def __init__(self, queue_size: int = 1) -> None:
        self._size = max(self.GAPS, queue_size) + 1
        self._stamps: list[int] = []
        # Nanoseconds between two stamps of the previous timeline; infinite if unknown.
        self._former_gap = float('inf')
        self._last = 0
        # How many messages in succession were newer than all before.
        self._in_order = 0
        # How many messages in succession rose, but not yet above the latest, since stamps stepped
        # back by several periods; and after how many of them one more shows a new timeline. If
        # two streams are mixed on one topic, the slower one makes such steps all the time.
        self._risen, self._enough = 0, 1

    def __contains__(self, stamp: int) -> bool:
        index = bisect_left(self._stamps, stamp)
        return index < len(self._stamps) and self._stamps[index] == stamp

    @property
    def latest(self) -> int | None:
        """The greatest stamp of the timeline."""
        return self._stamps[-1] if self._stamps else None

    def begins_anew(self, stamp: int) -> bool:
        """
        Return whether a message with this stamp shows that the source's time restarted.

        It does if the stamp lies more than :data:`CLOCK_JUMP` before the latest one; and, since a
        short recording that loops steps back by less, if stamps stepped back by several periods
        and rise again from there. A message that was merely overtaken is followed by one that is
        newer than the latest.
        """
        if stamp <= 0 or not self._stamps:
            return False
        latest = self._stamps[-1]
        return stamp < latest - CLOCK_JUMP or (
            self._risen >= self._enough and self._last < stamp < latest
        )

    def insert(self, stamp: int) -> None:
        """Note a message, whatever its outcome, even if its stamp is known already."""
        stamps = self._stamps
        if not stamps or stamp > stamps[-1]:
            stamps.append(stamp)
            self._in_order += 1
            self._risen = 0
        elif stamp != self._last:
            if self._risen and stamp > self._last:
                self._risen += 1
            else:
                is_back = stamps[-1] - stamp > _SEVERAL_PERIODS * self._usual_gap()
                self._risen = int(is_back)
                self._enough = 1 if self._in_order >= _STEADY else _STEADY
            self._in_order = 0
            if stamp not in self:
                insort(stamps, stamp)
        self._last = stamp
        if len(stamps) > self._size:
            del stamps[0]

    def clear(self) -> None:
        """Begin a new timeline of the same source."""
        self._former_gap = self._usual_gap()
        self._stamps.clear()

    def certain_gap(self) -> float:
        """Least nanoseconds from the latest stamp to the next; 0 if unknown."""
        stamps = self._stamps[-self.GAPS - 1 :]
        if len(stamps) <= self.FEWEST_GAPS:
            return 0.0
        return self.TRUST * min(later - earlier for earlier, later in pairwise(stamps))

    def _usual_gap(self) -> float:
        """Nanoseconds between two stamps; infinite if unknown."""
        stamps = self._stamps[-self.GAPS - 1 :]
        if len(stamps) < 3:
            return self._former_gap
        return float(median(later - earlier for earlier, later in pairwise(stamps)))
