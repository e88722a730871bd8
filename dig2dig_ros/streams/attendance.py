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

"""Which cameras are present, and which one continues alone while the other is missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import math
from typing import Any

from dig2dig_ros.streams.pairing import SOURCES
from dig2dig_ros.streams.stamp_watch import apart, DELAY, remedy, StampWatch


class Attendance:
    """
    Keeps track of when each camera last sent something usable.

    An image without a stamp, or with the stamp of the previous image, is not usable: a driver that
    keeps sending its last frame is as good as gone. Times of arrival are seconds of a steady
    clock. Used from one thread, the executor's.

    :param sources: what is fused, visible and thermal first.
    :param stamps_kept: of each camera, to find their offset if nothing pairs.
    :ivar stamps: compares the stamps with the times of arrival.
    """

    def __init__(self, sources: Sequence[str], stamps_kept: int = 60) -> None:
        self._sources = tuple(sources)
        self.stamps = StampWatch(self._sources, stamps_kept)
        self.reset(0.0)

    def reset(self, now: float) -> None:
        """Start again, at a time of arrival."""
        self._began = now
        self._usable: dict[str, float] = {}
        # The second to last.
        self._before: dict[str, float] = {}
        self.stamps.clear()
        self._complaints: dict[str, str] = {}
        self._last_pair = now

    def seen(self, source: str, stamp: int, arrival: float) -> None:
        """Note an image; its stamp in nanoseconds."""
        wrong = self.stamps(source, stamp, arrival)
        if wrong:
            self._complaints[source] = ', but images ' + (
                'without a stamp' if wrong == 'zero' else 'whose stamp stands still'
            )
            return
        self._complaints.pop(source, None)
        if source in self._usable:
            self._before[source] = self._usable[source]
        self._usable[source] = arrival

    def malformed(self, source: str) -> None:
        """Note an image that cannot be read."""
        self._complaints[source] = ', but malformed images'

    def paired(self, arrival: float) -> None:
        """Note that a pair was formed."""
        self._last_pair = max(self._last_pair, arrival)

    def missing(self, timeout: float, now: float) -> dict[str, float | None]:
        """
        Return the cameras that have sent nothing usable for longer than ``timeout`` seconds.

        :return: seconds of silence, or None if nothing has come yet, whatever the timeout.
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

    def missing_texts(
        self,
        values: Mapping[str, Any],
        now: float,
        topics: Mapping[str, str],
        publishers: Callable[[str], object] | None = None,
    ) -> list[str]:
        """
        Return a sentence for every camera that is missing.

        :param topics: of each source.
        :param publishers: returns how many publishers the topic of a source has.
        """
        missing, policy = self.missing(values['stale_timeout'], now), values['missing_modality']
        live = [name for name in SOURCES if name not in missing and policy in (name, 'any')]
        return [
            f'no {source} image on {topics[source]} '
            + ('yet' if silence is None else f'for {silence:.1f} s')
            + (f' (publishers: {publishers(source)})' if publishers else '')
            + self._complaints.get(source, '')
            + (f': using the {live[0]} image alone' if live else '')
            for source, silence in missing.items()
        ]

    def alone(self, source: str, values: Mapping[str, Any], now: float) -> bool:
        """
        Return whether a new image of ``source`` is to continue without its counterpart.

        :param values: the node's parameters by name.
        """
        policy = values['missing_modality']
        if policy == 'wait' or source not in SOURCES or policy not in (source, 'any'):
            return False
        (other,) = (name for name in SOURCES if name != source)
        timeout, last = values['stale_timeout'], self._usable.get(other, self._began)
        if now - last <= timeout or self._usable.get(source) != now:
            return False
        # After a pause of both, or between slow pairs, the counterpart is still on its way.
        before = self._before.get(source, -math.inf)
        return bool(now - before <= timeout or before - last > timeout)

    def pairing_advice(self, values: Mapping[str, Any]) -> str | None:
        """
        Say why the stamps of the two cameras do not pair, and what to do.

        :return: None if a camera has no stamps.
        """
        visible, thermal = SOURCES
        nearest = self.stamps.nearest_offset(thermal)
        if nearest is None:
            return None
        tolerance, shift = values['sync_tolerance'], values['thermal_time_offset']
        measured = self.stamps.offset(thermal, tolerance)
        offset = nearest if measured is None else measured
        if values['sync_policy'] == 'exact' and abs(offset) <= max(tolerance, DELAY):
            return (
                'sync_policy exact pairs equal stamps only, and there are none: set '
                'sync_policy: nearest'
            )
        if abs(nearest) <= tolerance and abs(offset) <= DELAY:
            if abs(nearest + shift) > tolerance:
                return f'thermal_time_offset, {shift:g} s, separates the stamps: leave it out'
            # If the stamps fit, only a full queue can keep images apart.
            return (
                'the images of one camera come so much later than those of the other that more '
                f'than queue_size, {values["queue_size"]}, would have to wait: set a larger one'
            )
        text, otherwise = f'no stamps lie within sync_tolerance, {tolerance:g} s', ''
        if abs(nearest) <= tolerance:
            # Different clocks and late images cannot be told apart here.
            text = (
                f'matching images come only after queue_size, {values["queue_size"]}, is exceeded'
            )
            late = visible if offset + shift > 0 else thermal
            otherwise = (
                f'; or a larger queue_size, if the {late} images really come '
                f'{abs(offset + shift):.1f} s late'
            )
        if measured is not None:
            text += f'; {apart(thermal, offset, visible)}'
        else:
            side = 'after' if offset > 0 else 'before'
            text += (
                f'; the nearest thermal stamp is {abs(offset):.3f} s {side} the visible one '
                '(median, as sent)'
            )
        if abs(offset) > DELAY:
            return f'{text}: {remedy(True, offset)}{otherwise}'
        return f'{text}: set thermal_time_offset: {-offset:.3f}, or widen sync_tolerance'

    def mismatch(self, values: Mapping[str, Any], now: float) -> str | None:
        """Say what is wrong if all cameras send, but nothing pairs; None if nothing is wrong."""
        silence = now - self._last_pair
        advice = self.pairing_advice(values) if silence > values['stale_timeout'] else None
        return f'both cameras send, but no pair for {silence:.1f} s: {advice}' if advice else None
