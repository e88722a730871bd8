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

"""The recent stamps of one source: its period, its repeats, and where its time restarts."""

from __future__ import annotations

from bisect import bisect_left, insort
from itertools import pairwise
from statistics import median

CLOCK_JUMP = 1_000_000_000
"""
A stamp this many nanoseconds before the latest one of its source is a new timeline (a bag that
starts again, a clock that was set back). Of smaller steps, see :meth:`RecentStamps.begins_anew`.
"""

# A message that was overtaken lies fewer periods than this behind the latest one, as a rule.
_SEVERAL_PERIODS = 2.5
# This many messages in succession are no coincidence.
_STEADY = 3


class RecentStamps:
    """
    The latest stamps of one source, in order.

    :param queue_size: messages of the source that may be undecided; their repeats are noticed.
    """

    # Enough to see the cadence of a camera and few enough to follow when it changes.
    GAPS = 32
    FEWEST_GAPS = 4
    # Share of the shortest recent gap that can be relied on; a shorter gap may come.
    TRUST = 0.9

    def __init__(self, queue_size: int = 1) -> None:
        self._size = max(self.GAPS, queue_size) + 1
        self._stamps: list[int] = []
        # Nanoseconds between two stamps, of the timeline before; infinite where that is unknown.
        self._former_gap = float('inf')
        self._last = 0
        # How many messages in succession were newer than all before.
        self._in_order = 0
        # How many messages in succession rose, and not yet above the latest, since stamps stepped
        # back by several periods; and after how many of them one more shows a new timeline. Of
        # two streams that are mixed on one topic, the slower one takes such steps all the time.
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

        It does where the stamp lies more than :data:`CLOCK_JUMP` before the latest one; and, since
        a short recording that loops steps back by less, where stamps stepped back by several
        periods and rise again from there. One message that was overtaken on its way is followed
        by one that is newer than the latest.
        """
        if stamp <= 0 or not self._stamps:
            return False
        latest = self._stamps[-1]
        return stamp < latest - CLOCK_JUMP or (
            self._risen >= self._enough and self._last < stamp < latest
        )

    def insert(self, stamp: int) -> None:
        """Note a message that came, whatever becomes of it; one that is there already, too."""
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
        """Begin a new timeline, of a source that is as steady as it was."""
        self._former_gap = self._usual_gap()
        self._stamps.clear()

    def certain_gap(self) -> float:
        """Nanoseconds that the next stamp will at least be after the latest; 0 if unknown."""
        stamps = self._stamps[-self.GAPS - 1 :]
        if len(stamps) <= self.FEWEST_GAPS:
            return 0.0
        return self.TRUST * min(later - earlier for earlier, later in pairwise(stamps))

    def _usual_gap(self) -> float:
        """Nanoseconds between two stamps; infinite where it was never seen."""
        stamps = self._stamps[-self.GAPS - 1 :]
        if len(stamps) < 3:
            return self._former_gap
        return float(median(later - earlier for earlier, later in pairwise(stamps)))
