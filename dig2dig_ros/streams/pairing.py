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
Pairing of a visible and a thermal message stream by their stamps.

Nothing here imports rclpy: a message is any object, its stamp an integer in nanoseconds. A
pairer is used from one thread (the executor's). It holds no lock and calls nobody back: `add`
returns the pairs that a message decides, so a caller that fails cannot leave it in a bad state.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass
from importlib import import_module
import math
import os
from typing import Any, Generic, Literal, TypeVar

from dig2dig_ros.streams.timeline import CLOCK_JUMP as CLOCK_JUMP
from dig2dig_ros.streams.timeline import RecentStamps

MessageT = TypeVar('MessageT')
Source = Literal['visible', 'thermal']

SOURCES: tuple[Source, Source] = ('visible', 'thermal')
POLICIES = ('nearest', 'approximate', 'exact')

_LAST_SECOND = 2**31 - 1
_LONGEST_SETTING = 1e6  # s. Keeps every corrected stamp inside the 64 bits of ROS's clocks.


class PairingError(ValueError):
    """A pairer cannot be made or set so; the message says which value, why, and what to do."""


@dataclass(frozen=True)
class Group(Generic[MessageT]):
    """
    One message of each source that belong together: of two sources, a pair.

    :param messages: as they were added, in the order of the sources: visible, thermal, others.
    :param stamps: theirs in nanoseconds, `thermal_time_offset` already added.
    """

    messages: tuple[MessageT, ...]
    stamps: tuple[int, ...]

    @property
    def offset(self) -> float:
        """Seconds from the visible stamp to the one that is farthest from it."""
        return max((stamp - self.stamps[0] for stamp in self.stamps[1:]), key=abs) * 1e-9


class Pairer(ABC, Generic[MessageT]):
    """
    Pairs two streams and accounts for every message.

    Each message that was added is exactly one of: part of a pair, dropped for one cause, or
    held. With `counters` this reads, of each source: messages added = pairs + all drops of its
    name + `held`. It is not thread-safe: add, clear and set from one thread.

    What is the same under every policy is done here: a stamp of zero (or below) is a driver
    that sets none and is dropped; so is a stamp that the same source has just had; a message that
    shows that the time of its source restarted (:meth:`RecentStamps.begins_anew`) clears
    everything ('clock jump'), and is the first of the new timeline. The visible stamps of the
    returned pairs are strictly increasing until such a jump, because detectors match boxes to
    frames by stamp.

    :param tolerance: largest accepted distance of the two stamps in seconds, inclusive, so that
        0 pairs equal stamps. 0 .. 1e6.
    :param queue_size: messages of each source that are held at most; at least 1.
    :param thermal_time_offset: seconds that are added to thermal stamps before they are
        compared, for cameras with a known delay. -1e6 .. 1e6.
    :raises PairingError: if a value is out of its range.
    """

    def __init__(self, tolerance: float, queue_size: int, thermal_time_offset: float) -> None:
        if queue_size < 1:
            raise PairingError(f'queue_size must be at least 1, not {queue_size}')
        self.queue_size = queue_size
        self.counters: Counter[str] = Counter()
        self._tolerance = _nanoseconds('tolerance', tolerance, 0.0)
        self._thermal_time_offset = _nanoseconds(
            'thermal_time_offset', thermal_time_offset, -_LONGEST_SETTING
        )
        self._recent = {source: RecentStamps(queue_size) for source in SOURCES}

    @property
    def tolerance(self) -> float:
        """Largest accepted distance of the two stamps in seconds; may be set at any time."""
        return self._tolerance * 1e-9

    @tolerance.setter
    def tolerance(self, seconds: float) -> None:
        self._tolerance = _nanoseconds('tolerance', seconds, 0.0)
        self._settings_changed()

    @property
    def thermal_time_offset(self) -> float:
        """Seconds added to thermal stamps, those of held messages too; may be set any time."""
        return self._thermal_time_offset * 1e-9

    @thermal_time_offset.setter
    def thermal_time_offset(self, seconds: float) -> None:
        self._thermal_time_offset = _nanoseconds('thermal_time_offset', seconds, -_LONGEST_SETTING)
        self._settings_changed()

    @property
    def pending(self) -> int:
        """Messages of both sources that are held for a later decision."""
        return sum(self.held(source) for source in SOURCES)

    @abstractmethod
    def held(self, source: Source) -> int:
        """Return how many messages of one source are held for a later decision."""

    def jumps(self, source: Source, stamp: int) -> bool:
        """Return whether a message with this stamp would begin a new timeline."""
        return self._recent[source].begins_anew(stamp)

    def add(self, source: Source, stamp: int, message: MessageT) -> list[Group[MessageT]]:
        """
        Take a message in.

        :param source: 'visible' or 'thermal'.
        :param stamp: the message's own stamp in nanoseconds, not corrected.
        :param message: whatever the pair shall carry; it is never looked into.
        :return: the pairs that this message decides, in the order of their visible stamps.
        """
        if stamp <= 0:
            self._count(f'{source} zero stamp')
            return []
        recent = self._recent[source]
        if self.jumps(source, stamp):
            self.clear('clock jump')
        is_repeated = stamp in recent
        recent.insert(stamp)
        if is_repeated:
            self._count(f'{source} duplicate stamp')
            return []
        pairs = self._accept(source, stamp, message)
        self._count('pairs', len(pairs))
        return pairs

    def flush(self) -> list[Group[MessageT]]:
        """
        Decide everything that is held as if nothing more came, as at the end of a recording.

        :return: the pairs among the held messages; all the others are dropped as unpaired.
        """
        pairs = self._finish()
        self._count('pairs', len(pairs))
        return pairs

    def settle(self) -> list[Group[MessageT]]:
        """
        Decide the pairs among what is held as if nothing closer came, and hold the rest.

        For live streams that have paused: the last pair before the pause need not wait for its
        end, and a message whose counterpart is still on its way is not given up.
        """
        pairs = self._settle()
        self._count('pairs', len(pairs))
        return pairs

    def clear(self, cause: str) -> None:
        """
        Drop everything that is held and begin a new timeline.

        :param cause: what the drops are counted as after the name of their source, such as
            'clock jump' or 'shutdown'.
        """
        for source in SOURCES:
            self._count(f'{source} {cause}', self.held(source))
        for recent in self._recent.values():
            recent.clear()
        self._forget()

    def _count(self, what: str, number: int = 1) -> None:
        if number:
            self.counters[what] += number

    @abstractmethod
    def _accept(self, source: Source, stamp: int, message: MessageT) -> list[Group[MessageT]]:
        """Take in a message whose stamp is sound and new; return the pairs it decides."""

    def _settle(self) -> list[Group[MessageT]]:
        """Pair what can be paired now; policies that decide at once have nothing to do."""
        return []

    @abstractmethod
    def _finish(self) -> list[Group[MessageT]]:
        """Pair what can be paired now, and drop and count the rest."""

    @abstractmethod
    def _forget(self) -> None:
        """Drop what is held, already counted, and what is known of the timeline."""

    def _settings_changed(self) -> None:
        """Follow a tolerance or an offset that was just set; many policies need nothing."""
        return


def _nanoseconds(name: str, seconds: float, lowest: float) -> int:
    if not (math.isfinite(seconds) and lowest <= seconds <= _LONGEST_SETTING):
        raise PairingError(
            f'{name} must be {lowest:g} .. {_LONGEST_SETTING:g} seconds, not {seconds}'
        )
    return round(seconds * 1e9)


class _Queue(Generic[MessageT]):
    """
    The undecided messages of one source, by stamp.

    Moments given and returned are on the common time line: stamps plus :attr:`shift`.
    """

    def __init__(self) -> None:
        self.shift = 0
        self._stamps: list[int] = []
        self._messages: list[MessageT] = []
        # The latest stamp that was paired or dropped. It still counts when the nearest is
        # sought: a message whose nearest is taken has no partner, rather than a worse one.
        self._decided: int | None = None

    def __len__(self) -> int:
        return len(self._stamps)

    def is_late(self, stamp: int) -> bool:
        return self._decided is not None and stamp <= self._decided

    def insert(self, stamp: int, message: MessageT) -> None:
        index = bisect_left(self._stamps, stamp)
        self._stamps.insert(index, stamp)
        self._messages.insert(index, message)

    def moment(self, index: int) -> int:
        return self._stamps[index] + self.shift

    def message(self, index: int) -> MessageT:
        return self._messages[index]

    @property
    def latest(self) -> int | None:
        stamp = self._stamps[-1] if self._stamps else self._decided
        return None if stamp is None else stamp + self.shift

    def nearest(self, moment: int) -> tuple[float, list[int]]:
        """
        Find what lies nearest to a moment.

        :return: the distance in nanoseconds to the nearest stamp, decided or not (infinite if
            there is none), and the indices of the held messages at that distance, earlier first.
        """
        after = bisect_left(self._stamps, moment - self.shift)
        around = [index for index in (after - 1, after) if 0 <= index < len(self._stamps)]
        distances = {index: abs(self.moment(index) - moment) for index in around}
        shortest: float = min(distances.values(), default=math.inf)
        if self._decided is not None:
            shortest = min(shortest, abs(self._decided + self.shift - moment))
        return shortest, [index for index in around if distances[index] == shortest]

    def decide_first(self, number: int) -> None:
        """Let the `number` earliest messages go."""
        if number:
            self._decided = self._stamps[number - 1]
            del self._stamps[:number]
            del self._messages[:number]


class NearestPairer(Pairer[MessageT]):
    """
    Pairs messages that are each other's nearest in time.

    A pair is made when no other message of either source lies closer to one of the two (of
    equal distances the earlier counts), paired or not, and they are within the tolerance. It
    is decided as soon as nothing closer can come: when the source of the earlier of the two
    stamps has reached the later one, or at once when the two are less than half of that
    source's period apart, by the shortest gap of its recent stamps. For this, the messages of a
    source must come in order of their stamps; one that was overtaken is put in its place as long
    as nothing later of its source was decided, and is 'late' after that.

    The slower source sets the rate of the pairs. Where two sources of the same rate run about
    half a period apart with jitter, some messages are nobody's nearest and stay without a
    partner.

    When a queue is full its oldest message is dropped as unpaired. `queue_size` has to cover
    the messages of the faster source during one period of the slower one and during the time
    by which the slower one arrives later.
    """

    def __init__(
        self, tolerance: float, queue_size: int, thermal_time_offset: float = 0.0
    ) -> None:
        super().__init__(tolerance, queue_size, thermal_time_offset)
        self._forget()

    def held(self, source: Source) -> int:
        return len(self._queues[source])

    def _forget(self) -> None:
        self._queues: dict[Source, _Queue[MessageT]] = {source: _Queue() for source in SOURCES}
        self._settings_changed()

    def _settings_changed(self) -> None:
        self._queues['thermal'].shift = self._thermal_time_offset

    def _accept(self, source: Source, stamp: int, message: MessageT) -> list[Group[MessageT]]:
        queue = self._queues[source]
        if queue.is_late(stamp):
            self._count(f'{source} late')
            return []
        queue.insert(stamp, message)
        pairs = self._decide(final=False)
        self._drop_first(source, len(queue) - self.queue_size)
        return pairs

    def _settle(self) -> list[Group[MessageT]]:
        return self._decide(final=True)

    def _finish(self) -> list[Group[MessageT]]:
        pairs = self._decide(final=True)
        for source, queue in self._queues.items():
            self._drop_first(source, len(queue))
        return pairs

    def _drop_first(self, source: Source, number: int) -> None:
        if number > 0:
            self._queues[source].decide_first(number)
            self._count(f'{source} unpaired', number)

    def _decide(self, final: bool) -> list[Group[MessageT]]:
        visible, thermal = self._queues['visible'], self._queues['thermal']
        pairs = []
        while (match := self._first_match(final)) is not None:
            visible_index, thermal_index = match
            pairs.append(
                Group(
                    (visible.message(visible_index), thermal.message(thermal_index)),
                    (visible.moment(visible_index), thermal.moment(thermal_index)),
                )
            )
            # Nearest pairs never cross, so what is older than this pair has no partner.
            self._drop_first('visible', visible_index)
            self._drop_first('thermal', thermal_index)
            visible.decide_first(1)
            thermal.decide_first(1)
        self._drop_hopeless('visible', 'thermal')
        self._drop_hopeless('thermal', 'visible')
        return pairs

    def _first_match(self, final: bool) -> tuple[int, int] | None:
        """Return the indices of the first pair that is decided (in a final round, any is)."""
        visible, thermal = self._queues['visible'], self._queues['thermal']
        if not len(visible):
            return None
        for thermal_index in range(len(thermal)):
            thermal_moment = thermal.moment(thermal_index)
            distance, candidates = visible.nearest(thermal_moment)
            if distance > self._tolerance:
                continue
            for visible_index in candidates:
                visible_moment = visible.moment(visible_index)
                if thermal.nearest(visible_moment)[0] < distance:
                    continue
                if final or self._is_settled(visible_moment, thermal_moment):
                    return visible_index, thermal_index
        return None

    def _is_settled(self, visible_moment: int, thermal_moment: int) -> bool:
        """Return whether no closer message can come for two that are nearest to each other."""
        earlier: Source = 'visible' if visible_moment < thermal_moment else 'thermal'
        later_moment = max(visible_moment, thermal_moment)
        latest = self._queues[earlier].latest
        if latest is not None and latest >= later_moment:
            return True
        # The next one of the earlier's source is a period after it, so at least as far behind
        # the later message as the earlier one is ahead of it.
        return 2 * abs(visible_moment - thermal_moment) <= self._recent[earlier].certain_gap()

    def _drop_hopeless(self, source: Source, other: Source) -> None:
        queue = self._queues[source]
        while len(queue) and self._is_hopeless(queue, self._queues[other]):
            self._drop_first(source, 1)

    def _is_hopeless(self, queue: _Queue[MessageT], others: _Queue[MessageT]) -> bool:
        """Return whether the oldest message of a queue cannot be in a pair any more."""
        moment = queue.moment(0)
        if others.latest is None or others.latest < moment:
            return False
        distance, candidates = others.nearest(moment)
        return distance > self._tolerance or not any(
            queue.nearest(others.moment(index))[0] >= distance for index in candidates
        )


@dataclass(frozen=True)
class _Stamp:
    stamp: Any  # builtin_interfaces.msg.Time


@dataclass(frozen=True)
class _Proxy:
    """What a synchroniser is given in place of a message: a header and the way back."""

    header: _Stamp
    source_stamp: int


class MessageFiltersPairer(Pairer[MessageT]):
    """
    The synchronisers of ROS's `message_filters` package behind the same interface.

    'approximate' is its ApproximateTimeSynchronizer: a message is paired at once with the
    nearest of what is there, not of what comes, so pairs may be looser than those of
    :class:`NearestPairer` and come earlier. 'exact' is its TimeSynchronizer, which pairs equal
    stamps whatever the tolerance.

    The synchronisers are fed with proxies that carry the corrected stamp, and their callback
    only notes the pair, so nothing of the caller's runs inside their lock. They do not say
    what they drop. Their rule, the oldest goes when a queue is full, is followed here in books
    of the same size, which is where `pending` and the 'unpaired' counts come from. A pair whose
    visible message is older than that of the last pair comes out of them, too: it is dropped,
    and both its messages are 'late'.

    :raises PairingError: if the package is missing, or for a value out of its range.
    """

    def __init__(
        self,
        policy: Literal['approximate', 'exact'],
        tolerance: float,
        queue_size: int,
        thermal_time_offset: float = 0.0,
    ) -> None:
        super().__init__(tolerance, queue_size, thermal_time_offset)
        self._policy = policy
        try:
            # Only here, because it brings rclpy along.
            self._message_filters: Any = import_module('message_filters')
            self._time_type: Any = import_module('builtin_interfaces.msg').Time
        except ImportError as error:
            distribution = os.environ.get('ROS_DISTRO', '<distro>')
            raise PairingError(
                f"sync_policy '{policy}' needs the ROS package message_filters, which does not "
                f'import ({error}): install it with apt install '
                f"ros-{distribution}-message-filters, or use sync_policy 'nearest'"
            ) from error
        self._forget()

    def held(self, source: Source) -> int:
        return len(self._held[source])

    def _forget(self) -> None:
        self._held: dict[Source, dict[int, MessageT]] = {source: {} for source in SOURCES}
        self._last_visible = 0
        self._build()

    def _settings_changed(self) -> None:
        self._build()

    def _build(self) -> None:
        """Make a new synchroniser and give it what is held, under the present settings."""
        self._matches: list[tuple[_Proxy, _Proxy]] = []
        self._inputs = {source: self._message_filters.SimpleFilter() for source in SOURCES}
        filters = [self._inputs[source] for source in SOURCES]
        if self._policy == 'approximate':
            # It compares with <, and truncates to nanoseconds: half a nanosecond more than one.
            slop = (self._tolerance + 1.5) * 1e-9
            synchronizer = self._message_filters.ApproximateTimeSynchronizer(
                filters, self.queue_size, slop
            )
        else:
            synchronizer = self._message_filters.TimeSynchronizer(filters, self.queue_size)
        synchronizer.registerCallback(lambda *proxies: self._matches.append(proxies))
        for source, held in self._held.items():
            for stamp in held:
                self._feed(source, stamp)

    def _feed(self, source: Source, stamp: int) -> None:
        # Only the difference counts. Moving the visible stamps instead of pulling the thermal
        # ones back keeps all of them positive: rclpy's times must not be negative.
        shift = self._thermal_time_offset if source == 'thermal' else -self._thermal_time_offset
        seconds, nanoseconds = divmod(stamp + max(shift, 0), 1_000_000_000)
        # A stamp near the end of what ROS can represent may be moved beyond it.
        header = _Stamp(self._time_type(sec=min(seconds, _LAST_SECOND), nanosec=nanoseconds))
        self._inputs[source].signalMessage(_Proxy(header, stamp))

    def _accept(self, source: Source, stamp: int, message: MessageT) -> list[Group[MessageT]]:
        # Settings that changed since the last message may have matched what was held.
        pairs = self._collect()
        held = self._held[source]
        if stamp in held:
            self._count(f'{source} duplicate stamp')
            return pairs
        if source == 'visible' and stamp <= self._last_visible:
            self._count('visible late')
            return pairs
        held[stamp] = message
        # As the synchroniser does before it looks for a match, so that both hold the same.
        if len(held) > self.queue_size:
            del held[min(held)]
            self._count(f'{source} unpaired')
        self._feed(source, stamp)
        return pairs + self._collect()

    def _collect(self) -> list[Group[MessageT]]:
        pairs: list[Group[MessageT]] = []
        matches, self._matches = self._matches, []
        for proxies in sorted(matches, key=lambda match: match[0].source_stamp):
            stamps: dict[Source, int] = dict(
                zip(SOURCES, (proxy.source_stamp for proxy in proxies), strict=True)
            )
            is_late = stamps['visible'] <= self._last_visible
            if is_late or any(stamps[source] not in self._held[source] for source in SOURCES):
                for source in SOURCES:
                    if self._held[source].pop(stamps[source], None) is not None:
                        self._count(f'{source} late')
                continue
            self._last_visible = stamps['visible']
            pairs.append(
                Group(
                    tuple(self._held[source].pop(stamps[source]) for source in SOURCES),
                    (stamps['visible'], stamps['thermal'] + self._thermal_time_offset),
                )
            )
        return pairs

    def _finish(self) -> list[Group[MessageT]]:
        pairs = self._collect()
        for source, held in self._held.items():
            self._count(f'{source} unpaired', len(held))
            held.clear()
        self._build()
        return pairs


def make_pairer(
    policy: str, tolerance: float, queue_size: int, thermal_time_offset: float = 0.0
) -> Pairer[Any]:
    """
    Make the pairer of a `sync_policy`.

    :param policy: 'nearest' (:class:`NearestPairer`), or 'approximate' or 'exact'
        (:class:`MessageFiltersPairer`).
    :param tolerance: largest accepted distance of the two stamps in seconds, inclusive.
    :param queue_size: messages of each source that are held at most.
    :param thermal_time_offset: seconds that are added to thermal stamps.
    :raises PairingError: for an unknown policy, a policy whose package is missing, or a value
        out of its range.
    """
    if policy == 'nearest':
        return NearestPairer(tolerance, queue_size, thermal_time_offset)
    if policy == 'approximate':
        return MessageFiltersPairer('approximate', tolerance, queue_size, thermal_time_offset)
    if policy == 'exact':
        return MessageFiltersPairer('exact', tolerance, queue_size, thermal_time_offset)
    raise PairingError(f"unknown sync_policy '{policy}': choose one of {', '.join(POLICIES)}")
