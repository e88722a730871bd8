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
Groups a visible message with one of each other source, by a cascade of pairers.

The first stage pairs visible with thermal. Each further stage pairs the groups of the previous
one, by their visible stamp, with the next source. So every message of a group lies within the
tolerance of its visible one, and every stage has the guarantees of its pairer: bounded queues, an
early decision, a count for every drop.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from dig2dig_ros.streams.pairing import Group, make_pairer, Pairer, PairingError, Source, SOURCES

MessageT = TypeVar('MessageT')


class Cascade(Generic[MessageT]):
    """
    Groups K streams with K - 1 pairers and accounts for every message.

    Without additional sources, it is the pairer of the policy. It is not thread-safe.

    Drops are counted as the pairers count them, under the name of the source. A group that
    finds no message of the source NAME is dropped as 'NAME missing', and with it a message of
    each source before NAME; a clock jump of one source clears all of them. For each source,
    messages added = groups + all drops of its name except 'missing' + 'missing' of the sources
    after it + held messages.

    :param policy: of every stage, see :func:`~dig2dig_ros.streams.pairing.make_pairer`.
    :param tolerance: largest accepted distance to the visible stamp in seconds, inclusive.
    :param queue_size: most messages of each source, and groups that wait for it, that are held.
    :param thermal_time_offset: seconds to add to thermal stamps.
    :param additional_sources: names of the sources after the first two.
    :param first: names of those two, which take the roles of visible and thermal.
    :raises PairingError: a name is taken, or `make_pairer` refuses a value.
    """

    def __init__(
        self,
        policy: str,
        tolerance: float,
        queue_size: int,
        thermal_time_offset: float = 0.0,
        additional_sources: Sequence[str] = (),
        first: Sequence[str] = SOURCES,
    ) -> None:
        self.sources: tuple[str, ...] = (*first, *additional_sources)
        for name in self.sources:
            if self.sources.count(name) > 1:
                raise PairingError(
                    f"the source '{name}' appears more than once: give each one its own name"
                )
        self._pair = make_pairer(policy, tolerance, queue_size, thermal_time_offset)
        others = [make_pairer(policy, tolerance, queue_size) for _ in additional_sources]
        self._stages: list[Pairer[Any]] = [self._pair, *others]
        self._clearings = {'clock jump'}

    @property
    def tolerance(self) -> float:
        """Largest accepted distance to the visible stamp in seconds; may be set at any time."""
        return self._pair.tolerance

    @tolerance.setter
    def tolerance(self, seconds: float) -> None:
        for stage in self._stages:
            stage.tolerance = seconds

    @property
    def thermal_time_offset(self) -> float:
        """Seconds added to thermal stamps, also of held messages; may be set at any time."""
        return self._pair.thermal_time_offset

    @thermal_time_offset.setter
    def thermal_time_offset(self, seconds: float) -> None:
        self._pair.thermal_time_offset = seconds

    @property
    def pending(self) -> int:
        """Messages of all sources that are held for a later decision."""
        return sum(
            stage.held('visible') * (index + 1) + stage.held('thermal')
            for index, stage in enumerate(self._stages)
        )

    @property
    def counters(self) -> Counter[str]:
        """The drops by cause, and the complete 'groups'."""
        counters: Counter[str] = Counter()
        for index, stage in enumerate(self._stages):
            name = self.sources[index + 1]
            for what, number in stage.counters.items():
                source, _, cause = what.partition(' ')
                if source == 'thermal':
                    counters[f'{name} {cause}'] += number
                elif source != 'visible':
                    continue
                elif index and cause not in self._clearings:
                    # To a later stage, a group takes the place of the visible message.
                    counters[f'{name} missing'] += number
                else:
                    for member in self.sources[: index + 1]:
                        counters[f'{member} {cause}'] += number
        counters['groups'] += self._stages[-1].counters['pairs']
        return +counters

    def jumps(self, source: str, stamp: int) -> bool:
        """Return whether a message with this stamp would begin a new timeline of all sources."""
        index, side = self._place(source)
        return self._stages[index].jumps(side, stamp)

    def _place(self, source: str) -> tuple[int, Source]:
        """Return the stage and the side that messages of a source go to."""
        # Visible messages go to the first stage, all others to the stage of their source.
        index = self.sources.index(source)
        return max(index - 1, 0), 'thermal' if index else 'visible'

    def add(self, source: str, stamp: int, message: MessageT) -> list[Group[MessageT]]:
        """
        Take a message in.

        :param source: one of `sources`.
        :param stamp: the message's own stamp in nanoseconds, not corrected.
        :param message: any object to carry in the group; it is never inspected.
        :return: the groups that this message completes, in the order of their visible stamps.
        """
        index, side = self._place(source)
        if self.jumps(source, stamp):
            self.clear('clock jump')
        groups = self._stages[index].add(side, stamp, message)
        if index:
            groups = _flattened(groups)
        for later in self._stages[index + 1 :]:
            groups = _flattened(_feed(later, groups))
        return groups

    def settle(self) -> list[Group[MessageT]]:
        """
        Decide the groups among the held messages as if no closer ones came, and hold the rest.

        For live streams that have all paused, see :meth:`Pairer.settle`.
        """
        return self._conclude(lambda stage: stage.settle())

    def flush(self) -> list[Group[MessageT]]:
        """Decide all held messages as if no more came; drop and count the rest."""
        return self._conclude(lambda stage: stage.flush())

    def clear(self, cause: str) -> None:
        """
        Drop everything that is held and begin a new timeline.

        :param cause: of the drops, counted after the name of their source, such as 'clock jump'
            or 'shutdown'.
        """
        self._clearings.add(cause)
        for stage in self._stages:
            stage.clear(cause)

    def _conclude(
        self, decide: Callable[[Pairer[Any]], list[Group[Any]]]
    ) -> list[Group[MessageT]]:
        """Let each stage decide, once it has the decisions of the stages before it."""
        groups: list[Group[Any]] = decide(self._pair)
        for stage in self._stages[1:]:
            groups = _flattened(_feed(stage, groups) + decide(stage))
        return groups


def _feed(stage: Pairer[Any], groups: list[Group[Any]]) -> list[Group[Any]]:
    """Pair groups, under their visible stamps, with the messages of one more source."""
    return [pair for group in groups for pair in stage.add('visible', group.stamps[0], group)]


def _flattened(pairs: list[Group[Any]]) -> list[Group[Any]]:
    """Return groups with one more message each, from pairs of a group and that message."""
    return [
        Group(
            (*pair.messages[0].messages, pair.messages[1]),
            (*pair.messages[0].stamps, pair.stamps[1]),
        )
        for pair in pairs
    ]
