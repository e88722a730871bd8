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

"""Where the time of a source begins anew, and what pairs then."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pytest

from dig2dig_ros.streams.cascade import Cascade
from dig2dig_ros.streams.pairing import POLICIES
from dig2dig_ros.streams.timeline import CLOCK_JUMP, RecentStamps

MS = 1_000_000
START = 1_700_000_000_000 * MS


def anew(*milliseconds: int) -> list[int]:
    """Return at which messages, by their place, a new timeline begins."""
    recent, places = RecentStamps(), []
    for place, moment in enumerate(milliseconds):
        if recent.begins_anew(START + moment * MS):
            recent.clear()
            places.append(place)
        recent.insert(START + moment * MS)
    return places


@pytest.mark.parametrize(
    ('stamps', 'places'),
    [
        # The second message of a loop shows it, whatever its length.
        ([*range(0, 900, 100)] * 3, [10, 19]),
        ([*range(0, 400, 100)] * 3, [5, 9]),
        ([*range(0, 2000, 100)] * 2, [20]),
        # Loops whose stamps are others each time.
        ([*range(0, 900, 100), *range(50, 950, 100), *range(20, 900, 100)], [10, 19]),
        # Every message twice.
        ([t for t in range(0, 900, 100) for _ in range(2)] * 2, [20]),
        # One that was overtaken, by a little and by much; and two, by a little.
        ([0, 100, 200, 300, 250, 400, 500], []),
        ([0, 100, 200, 300, 400, 500, 50, 600, 700], []),
        ([0, 100, 200, 300, 600, 400, 500, 700, 800], []),
        # One that was overtaken, and then the latest again.
        ([0, 100, 200, 300, 400, 500, 50, 500, 600], []),
        # A stamp that stands still, also at an old moment.
        ([0, 100, 200, 300, 400, *[400] * 9, 500], []),
        ([0, 100, 200, 300, 400, *[0] * 9, 500], []),
        # The same camera by two ways, one of them slower.
        ([0, 100, 200, 300, *(t for late in range(0, 2000, 100) for t in (late + 400, late))], []),
        # A loop that ends with a message that was overtaken.
        ([*range(0, 800, 100), 650, *range(0, 900, 100)], [12]),
        # One message from the future, and the rest goes on.
        ([*range(0, 500, 100), 5000, *range(500, 900, 100)], [6]),
    ],
)
def test_where_a_new_timeline_begins(stamps: Sequence[int], places: list[int]) -> None:
    assert anew(*stamps) == places


def test_the_size_of_a_step_that_needs_no_second_message() -> None:
    recent = RecentStamps()
    recent.insert(START + CLOCK_JUMP)
    assert not recent.begins_anew(START)
    assert recent.begins_anew(START - 1)
    assert not recent.begins_anew(0)


def test_a_period_is_known_on_a_timeline_that_another_source_began() -> None:
    recent = RecentStamps()
    for moment in range(0, 900, 100):
        recent.insert(START + moment * MS)
    recent.clear()
    for moment in (700, 800, 0):
        assert not recent.begins_anew(START + moment * MS)
        recent.insert(START + moment * MS)
    assert recent.begins_anew(START + 100 * MS)


@pytest.fixture(params=POLICIES)
def policy(request: pytest.FixtureRequest) -> str:
    if request.param != 'nearest':
        pytest.importorskip('message_filters')
    return str(request.param)


def play(cascade: Cascade[Any], loop: int, stamps: Iterable[int]) -> list[tuple[int, ...]]:
    """Send a message of each source for every stamp; return the loops of what is in each group."""
    return [
        group.messages
        for stamp in stamps
        for source in cascade.sources
        for group in cascade.add(source, START + stamp * MS, loop)
    ]


@pytest.mark.parametrize('additional', [[], ['nir']])
@pytest.mark.parametrize(('period', 'length'), [(100, 9), (33, 27), (100, 5), (33, 6)])
def test_a_short_recording_that_loops_pairs_in_every_round(
    policy: str, additional: list[str], period: int, length: int
) -> None:
    cascade = Cascade[int](policy, 0.03, 30, 0.0, additional)
    stamps = range(0, period * length, period)
    rounds = [play(cascade, loop, stamps) for loop in range(8)]
    rounds[-1] += [group.messages for group in cascade.flush()]
    # The first message of a round may be an overtaken one, for all that it shows.
    assert [len(groups) >= length - 1 for groups in rounds] == [True] * 8
    # Nothing old is paired with something new.
    assert all(len(set(group)) == 1 for groups in rounds for group in groups)
    number = len(cascade.sources)
    counters = cascade.counters
    drops = sum(counters.values()) - counters['groups']
    assert number * counters['groups'] + drops == number * 8 * length
    assert drops <= number * 7


def test_what_waits_at_the_step_of_a_loop_ends_as_a_clock_jump(policy: str) -> None:
    cascade = Cascade[int](policy, 0.02, 30)
    play(cascade, 0, range(0, 900, 100))
    # The thermal camera misses the last three.
    for stamp in (900, 1000, 1100):
        cascade.add('visible', START + stamp * MS, 0)
    assert cascade.pending == 3
    play(cascade, 1, range(500, 700, 100))
    assert cascade.pending == 0
    assert cascade.counters['visible clock jump'] == 3
    # A step back of one source alone, too.
    assert len(play(cascade, 1, range(700, 1200, 100))) == 5
    for stamp in (600, 700):
        cascade.add('thermal', START + stamp * MS, 2)
    assert cascade.pending == 1
    assert len(play(cascade, 2, range(800, 1000, 100))) == 2
