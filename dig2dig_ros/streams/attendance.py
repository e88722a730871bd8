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

"""Which cameras are there, and which one goes on alone while the other is missing."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
import math
from typing import Any

import numpy as np

from dig2dig_ros.streams.pairing import SOURCES

# Stamps of each camera that are compared where no pair comes about.
_STAMPS = 60


class Attendance:
    """
    Notes when each camera last sent something usable.

    An image without a stamp, or with that of the image before, is not usable: a driver that goes
    on sending its last frame is as good as gone. Times of arrival are seconds of a steady clock.
    Used from one thread, the executor's.

    :param sources: what is fused, visible and thermal first.
    """

    def __init__(self, sources: Sequence[str]) -> None:
        self._sources = tuple(sources)
        self.reset(0.0)

    def reset(self, now: float) -> None:
        """Begin anew, at a time of arrival."""
        self._began = now
        self._usable: dict[str, float] = {}
        # The one before the latest.
        self._before: dict[str, float] = {}
        self._stamps: dict[str, deque[int]] = {
            source: deque(maxlen=_STAMPS) for source in self._sources
        }
        self._complaints: dict[str, str] = {}
        self._last_pair = now

    def seen(self, source: str, stamp: int, arrival: float) -> None:
        """Note an image that came; its stamp in nanoseconds."""
        stamps = self._stamps[source]
        if stamp <= 0 or (stamps and stamps[-1] == stamp):
            self._complaints[source] = ', but images ' + (
                'whose stamp stands still' if stamp > 0 else 'without a stamp'
            )
            return
        self._complaints.pop(source, None)
        stamps.append(stamp)
        if source in self._usable:
            self._before[source] = self._usable[source]
        self._usable[source] = arrival

    def complaint(self, source: str) -> str:
        """Return what made the latest image unusable, to end a sentence with, or nothing."""
        return self._complaints.get(source, '')

    def paired(self, arrival: float) -> None:
        """Note that a pair came about."""
        self._last_pair = max(self._last_pair, arrival)

    def missing(self, timeout: float, now: float) -> dict[str, float | None]:
        """
        Return the cameras of which nothing usable came for longer than ``timeout`` seconds.

        :return: seconds of silence, or None where nothing has come yet, which needs no timeout.
        """
        silence = {
            source: now - self._usable[source] if source in self._usable else None
            for source in self._sources
        }
        return {
            source: seconds
            for source, seconds in silence.items()
            if seconds is None or seconds > timeout
        }

    def alone(self, source: str, values: Mapping[str, Any], now: float) -> bool:
        """
        Tell whether an image of ``source`` that just came is to go on without its counterpart.

        :param values: the node's parameters by name.
        """
        policy = values['missing_modality']
        if policy == 'wait' or source not in SOURCES or policy not in (source, 'any'):
            return False
        (other,) = (name for name in SOURCES if name != source)
        timeout, last = values['stale_timeout'], self._usable.get(other, self._began)
        if now - last <= timeout or self._usable.get(source) != now:
            return False
        # After a pause of both, or between slow pairs, the counterpart is on its way.
        before = self._before.get(source, -math.inf)
        return bool(now - before <= timeout or before - last > timeout)

    def mismatch(self, timeout: float, now: float) -> str | None:
        """Return what is wrong where all cameras are there, and no pair comes about."""
        visible, thermal = (
            np.array(sorted(self._stamps[source]), dtype=np.int64) for source in SOURCES
        )
        if now - self._last_pair <= timeout or not (len(visible) and len(thermal)):
            return None
        behind = np.searchsorted(visible, thermal).clip(1, max(1, len(visible) - 1))
        candidates = np.stack(
            [visible[np.minimum(behind - step, len(visible) - 1)] - thermal for step in (0, 1)]
        )
        nearest = np.where(
            np.abs(candidates[0]) < np.abs(candidates[1]), candidates[0], candidates[1]
        )
        offset = float(np.median(nearest)) * 1e-9
        return (
            f'both cameras send, but no pair for {now - self._last_pair:.1f} s: from a thermal '
            f'stamp it is {offset:+.3f} s to the nearest visible one (as sent): check '
            'sync_tolerance and thermal_time_offset'
        )
