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

"""Pairing: nearest in both directions, decided early, bounded, every message accounted for."""

import gc
from itertools import pairwise
import random
import statistics
import sys
from typing import Any
import weakref

import numpy as np
import pytest

from dig2dig_ros.streams.pairing import (
    Group,
    make_pairer,
    NearestPairer,
    Pairer,
    PairingError,
    POLICIES,
    Source,
    SOURCES,
)

MS = 1_000_000
SECOND = 1000 * MS
START = 1_700_000_000 * SECOND

Event = tuple[Source, int]
Stamps = list[int]


def camera(
    rate: float, seconds: float, phase: float = 0.0, jitter: float = 0.0, lost: float = 0.0
) -> Stamps:
    """Return a camera's stamps in ns: rate in Hz, phase and Gaussian jitter in s, share lost."""
    rng = random.Random(f'{rate} {phase} {jitter} {lost}')
    times = [i / rate + phase + rng.gauss(0.0, jitter) for i in range(int(rate * seconds))]
    return sorted({START + round(t * SECOND) for t in times if rng.random() >= lost})


def arrivals(visible: Stamps, thermal: Stamps, seed: int = 0) -> list[Event]:
    """Return both streams in order of arrival, after 5-25 ms and 5-45 ms on the way."""
    rng = random.Random(seed)
    events: list[tuple[int, Source, int]] = []
    for source, stamps, slowest in zip(SOURCES, (visible, thermal), (25, 45), strict=True):
        arrival = 0
        for stamp in stamps:
            # One writer's messages stay in order.
            arrival = max(arrival + 1, stamp + rng.randrange(5 * MS, slowest * MS))
            events.append((arrival, source, stamp))
    return [(source, stamp) for _, source, stamp in sorted(events)]


def feed(pairer: Pairer[Any], events: list[Event]) -> list[Group[Any]]:
    return [pair for source, stamp in events for pair in pairer.add(source, stamp, stamp)]


def mutually_nearest(visible: Stamps, thermal: Stamps, tolerance: int) -> set[tuple[int, int]]:
    """Return all pairs that are nearest in both directions, from the table of all distances."""
    distance = np.abs(np.array(visible)[:, None] - np.array(thermal)[None, :])
    best = (distance == distance.min(0)) & (distance == distance.min(1)[:, None])
    rows, columns = np.nonzero(best & (distance <= tolerance))
    return {(visible[row], thermal[column]) for row, column in zip(rows, columns, strict=True)}


def stamps_of(pairs: list[Group[Any]]) -> list[tuple[int, int]]:
    return [(pair.messages[0], pair.messages[1]) for pair in pairs]


def accounted(pairer: Pairer[Any]) -> int:
    drops = sum(pairer.counters.values()) - pairer.counters['pairs']
    return 2 * pairer.counters['pairs'] + drops + pairer.pending


def given_up(pairer: Pairer[Any], cause: str) -> int:
    return sum(pairer.counters[f'{source} {cause}'] for source in SOURCES)


def is_increasing(pairs: list[Group[Any]]) -> bool:
    return all(one.stamps[0] < next_one.stamps[0] for one, next_one in pairwise(pairs))


@pytest.fixture(params=POLICIES)
def policy(request: pytest.FixtureRequest) -> str:
    if request.param != 'nearest':
        pytest.importorskip('message_filters')
    return str(request.param)


@pytest.mark.parametrize(
    ('visible', 'thermal', 'expected'),
    [
        pytest.param(camera(30, 30), camera(9, 30, 0.004), 270, id='30/9 Hz'),
        pytest.param(camera(30, 30), camera(60, 30, 0.003), 900, id='30/60 Hz'),
        pytest.param(camera(30, 30), camera(30, 30, 0.010), 900, id='30/30 Hz, 10 ms after'),
        pytest.param(camera(30, 30), camera(30, 30, -0.010), 900, id='30/30 Hz, 10 ms before'),
        pytest.param(camera(30, 30), camera(29.5, 30, 0.001), 885, id='30/29.5 Hz'),
        pytest.param(
            camera(30, 30, jitter=3e-4), camera(9, 30, 0.004, 3e-4), 270, id='jittered 30/9 Hz'
        ),
        pytest.param(
            camera(30, 30, jitter=3e-4), camera(25, 30, 0.0, 3e-4), 750, id='jittered 30/25 Hz'
        ),
        pytest.param(
            camera(30, 30, lost=0.1), camera(9, 30, 0.004, lost=0.1), None, id='30/9 Hz, losses'
        ),
    ],
)
@pytest.mark.parametrize('seed', [1, 2])
def test_pairs_are_exactly_the_mutually_nearest(
    visible: Stamps, thermal: Stamps, expected: int | None, seed: int
) -> None:
    pairer = NearestPairer[int](0.05, 30)
    pairs = feed(pairer, arrivals(visible, thermal, seed)) + pairer.flush()
    assert set(stamps_of(pairs)) == mutually_nearest(visible, thermal, 50 * MS)
    assert is_increasing(pairs)
    assert pairer.counters['pairs'] == len(pairs)
    # Unpaired is all that remains: nothing was late and no queue ran over.
    assert accounted(pairer) == len(visible) + len(thermal)
    assert set(pairer.counters) <= {'pairs', 'visible unpaired', 'thermal unpaired'}
    if expected is not None:
        assert len(pairs) == expected


def waits_in_messages(events: list[Event], pairer: Pairer[Any]) -> list[int]:
    """Return for each pair how many messages came between its second one and its decision."""
    position = {event: index for index, event in enumerate(events)}
    waits = []
    for index, (source, stamp) in enumerate(events):
        for pair in pairer.add(source, stamp, stamp):
            second = max(
                position['visible', pair.messages[0]], position['thermal', pair.messages[1]]
            )
            waits.append(index - second)
    return waits


@pytest.mark.parametrize('phase', [0.010, -0.010])
def test_a_pair_within_half_a_period_is_decided_by_its_second_message(phase: float) -> None:
    events = arrivals(camera(30, 30), camera(30, 30, phase))
    waits = waits_in_messages(events, NearestPairer[int](0.05, 30))
    assert len(waits) == 900
    assert statistics.median(waits) == 0
    # Until the periods are known the next message of the earlier source has to be seen.
    assert max(waits) > 0
    assert set(waits[10:]) == {0}


def test_what_could_be_improved_is_waited_for() -> None:
    events = arrivals(camera(30, 30), camera(9, 30, 0.004))
    waits = waits_in_messages(events, NearestPairer[int](0.05, 30))
    assert statistics.median(waits) == 0
    # A thermal message may come first and then waits for one visible message, or the other one.
    assert max(waits[10:]) in (1, 2)


def test_irregular_stamps_are_not_decided_early() -> None:
    pairer = NearestPairer[str](0.05, 10)
    for index, time in enumerate((0, 100, 112, 200, 300, 400)):
        assert pairer.add('visible', START + time * MS, f'v{index}') == []
    # The source has had two messages 12 ms apart: one at 412 would be nearer than the last.
    assert pairer.add('thermal', START + 410 * MS, 't') == []
    assert pairer.add('visible', START + 412 * MS, 'nearer') == []
    (pair,) = pairer.flush()
    assert pair.messages == ('nearer', 't')


def test_two_stamps_do_not_make_a_period() -> None:
    pairer = NearestPairer[int](0.05, 10)
    # The second of four thermal messages at 30 Hz was lost.
    assert feed(pairer, [('thermal', START), ('thermal', START + 67 * MS)]) == []
    assert feed(pairer, [('visible', START + 92 * MS)]) == []
    pairs = feed(pairer, [('thermal', START + 100 * MS)]) + pairer.flush()
    assert stamps_of(pairs) == [(START + 92 * MS, START + 100 * MS)]


@pytest.mark.parametrize('offset', [0.0, 0.5])
def test_whose_nearest_is_taken_gets_no_worse_one(offset: float) -> None:
    pairer = NearestPairer[int](0.05, 10, offset)

    def thermal(time: int) -> int:
        return START + time * MS - round(offset * SECOND)

    pairs = feed(pairer, [('visible', START), ('visible', START + 45 * MS)])
    pairs += feed(pairer, [('thermal', thermal(2)), ('thermal', thermal(20))])
    # 20 is nearest to 0, which 2 has; 45 is nearest to 20, which is closer to 0.
    assert stamps_of(pairs + pairer.flush()) == [(START, thermal(2))]
    pairer.clear('shutdown')
    pairs = feed(pairer, [('thermal', thermal(0)), ('thermal', thermal(45))])
    pairs += feed(pairer, [('visible', START + 2 * MS), ('visible', START + 20 * MS)])
    assert stamps_of(pairs + pairer.flush()) == [(START + 2 * MS, thermal(0))]


def test_a_changed_rate_is_followed() -> None:
    slow, fast = camera(10, 10), camera(30, 10, 10.0)
    visible, thermal = slow + fast, camera(30, 20, 0.002)
    pairer = NearestPairer[int](0.05, 30)
    pairs = feed(pairer, arrivals(visible, thermal)) + pairer.flush()
    assert set(stamps_of(pairs)) == mutually_nearest(visible, thermal, 50 * MS)
    assert len(pairs) == 400


def test_equal_distances_pair_in_order_and_leave_nobody_out() -> None:
    pairer = NearestPairer[int](0.05, 30)
    pairs = feed(pairer, arrivals(camera(20, 10), camera(20, 10, 0.025))) + pairer.flush()
    assert [pair.messages[1] - pair.messages[0] for pair in pairs] == [25 * MS] * 200


def test_a_pair_knows_its_messages_and_its_offset(policy: str) -> None:
    pairer = make_pairer(policy, 0.05, 10, 0.0)
    visible, thermal = object(), object()
    assert pairer.add('visible', START, visible) == []
    (pair,) = pairer.add('thermal', START, thermal)
    assert pair.messages[0] is visible
    assert pair.messages[1] is thermal
    assert (pair.stamps[0], pair.stamps[1], pair.offset) == (START, START, 0.0)
    assert pairer.pending == 0


def test_tolerance_is_inclusive_and_zero_pairs_equal_stamps(policy: str) -> None:
    pairer = make_pairer(policy, 0.0, 10)
    assert feed(pairer, [('visible', START), ('thermal', START + 1)]) == []
    assert len(feed(pairer, [('thermal', START + 5), ('visible', START + 5)])) == 1
    if policy == 'exact':
        return
    for tolerance, expected in ((0.05, 1), (0.05 - 1e-9, 0)):
        pairer = make_pairer(policy, tolerance, 10)
        pairs = feed(pairer, [('visible', START), ('thermal', START + 50 * MS)])
        assert len(pairs + pairer.flush()) == expected


@pytest.mark.parametrize('offset', [0.2, -0.2])
def test_the_offset_corrects_the_thermal_stamp(policy: str, offset: float) -> None:
    pairer = make_pairer(policy, 0.001, 10, offset)
    # As in a simulation that has just begun: the corrected stamp may be below zero.
    visible = [START, 1 * MS][offset < 0]
    thermal = visible - round(offset * SECOND)
    pairs = feed(pairer, [('thermal', thermal), ('visible', visible)])
    assert stamps_of(pairs) == [(visible, thermal)]
    assert pairs[0].stamps[1] == visible
    assert pairs[0].offset == 0.0


@pytest.mark.parametrize('offset', [37.004, -37.004, 3600.5])
def test_clocks_that_differ_by_far_pair_within_the_queue(policy: str, offset: float) -> None:
    ahead = round(offset * SECOND)
    pairer = make_pairer(policy, 0.001, 30, -offset)
    stamps = camera(30, 4)
    pairs = feed(
        pairer,
        [
            (source, stamp + ahead * (source == 'thermal'))
            for stamp in stamps
            for source in SOURCES
        ],
    )
    assert len(pairs) == len(stamps) == 120
    assert {pair.offset for pair in pairs} == {0.0}
    assert pairer.pending == 0
    # Set at run time, too: what was held before is all that it costs.
    other = make_pairer(policy, 0.001, 30)
    feed(other, [('thermal', stamp + ahead) for stamp in stamps[:40]])
    assert other.pending <= 30
    other.thermal_time_offset = -offset
    pairs = feed(
        other,
        [
            (source, stamp + ahead * (source == 'thermal'))
            for stamp in stamps[60:]
            for source in SOURCES
        ],
    )
    assert len(pairs) == 60


def test_offset_and_tolerance_change_at_run_time(policy: str) -> None:
    pairer = make_pairer(policy, 0.001, 50)
    pairs: list[Group[int]] = []
    for index in range(300):
        if index == 100:
            pairer.thermal_time_offset = 0.015
            assert pairer.thermal_time_offset == pytest.approx(0.015)
        if index == 200:
            pairer.thermal_time_offset = 0.0
            pairer.tolerance = 0.016
            assert pairer.tolerance == pytest.approx(0.016)
        visible = START + index * 33 * MS
        pairs += feed(pairer, [('visible', visible), ('thermal', visible - 15 * MS)])
    assert is_increasing(pairs)
    assert accounted(pairer) == 600
    corrected = [pair for pair in pairs if pair.messages[1] != pair.stamps[1]]
    assert {(pair.messages[1] - pair.messages[0], pair.offset) for pair in corrected} == {
        (-15 * MS, 0.0)
    }
    assert len(corrected) >= 99
    if policy != 'exact':
        loose = [pair for pair in pairs if pair.messages[0] >= START + 200 * 33 * MS]
        assert all(pair.offset == pytest.approx(-0.015) for pair in loose)
        assert len(loose) >= 99


def test_messages_that_are_held_follow_a_changed_offset(policy: str) -> None:
    pairer = make_pairer(policy, 0.001, 10)
    assert feed(pairer, [('thermal', START), ('visible', START + 20 * MS)]) == []
    pairer.thermal_time_offset = 0.02
    # Approximate and exact match at once, nearest when the next message settles it.
    pairs = feed(pairer, [('thermal', START + 33 * MS), ('visible', START + 53 * MS)])
    assert stamps_of(pairs)[-1] == (START + 53 * MS, START + 33 * MS)
    assert accounted(pairer) == 4


def test_what_a_changed_tolerance_matches_is_not_lost_from_a_full_queue() -> None:
    pytest.importorskip('message_filters')
    pairer = make_pairer('approximate', 0.001, 1)
    assert feed(pairer, [('visible', START), ('thermal', START + 5 * MS)]) == []
    pairer.tolerance = 0.01
    assert stamps_of(feed(pairer, [('visible', START + 33 * MS)])) == [(START, START + 5 * MS)]
    assert accounted(pairer) == 3


def test_stamps_of_zero_are_counted_and_dropped(policy: str) -> None:
    pairer = make_pairer(policy, 0.05, 10)
    assert feed(pairer, [('visible', 0), ('thermal', 0), ('thermal', 0), ('visible', -1)]) == []
    assert pairer.counters == {'visible zero stamp': 2, 'thermal zero stamp': 2}
    assert pairer.pending == 0


def test_a_repeated_stamp_is_dropped_whether_held_or_paired(policy: str) -> None:
    pairer = make_pairer(policy, 0.0, 100)
    events: list[Event] = [('visible', START), ('visible', START), ('thermal', START)]
    assert len(feed(pairer, events)) == 1
    assert feed(pairer, [('visible', START), ('thermal', START)]) == []
    assert pairer.counters['visible duplicate stamp'] == 2
    assert pairer.counters['thermal duplicate stamp'] == 1
    # The first of ninety that are held is still known.
    feed(pairer, [('visible', START + index * MS) for index in range(1, 91)])
    feed(pairer, [('visible', START + MS)])
    assert pairer.counters['visible duplicate stamp'] == 3
    assert pairer.pending == 90


def test_a_repeated_stamp_is_known_however_long_its_message_is_held() -> None:
    pytest.importorskip('message_filters')
    pairer = make_pairer('exact', 0.0, 10)
    stamps = [START + index * 10 * MS for index in range(1, 90)]
    feed(pairer, [('thermal', START)])
    assert len(feed(pairer, arrivals(stamps, stamps))) == 89
    assert feed(pairer, [('thermal', START)]) == []
    assert pairer.counters == {'pairs': 89, 'thermal duplicate stamp': 1}
    assert pairer.pending == 1


def test_an_overtaken_message_is_put_in_order() -> None:
    pairer = NearestPairer[int](0.05, 10)
    visible = [START + time * MS for time in (0, 66, 33, 132, 99)]
    assert feed(pairer, [('visible', stamp) for stamp in visible]) == []
    pairs = feed(pairer, [('thermal', START + time * MS) for time in (34, 100, 140)])
    assert stamps_of(pairs) == [
        (START + 33 * MS, START + 34 * MS),
        (START + 99 * MS, START + 100 * MS),
        (START + 132 * MS, START + 140 * MS),
    ]
    assert pairer.counters == {'pairs': 3, 'visible unpaired': 2}


def test_a_message_older_than_what_was_decided_is_late(policy: str) -> None:
    pairer = make_pairer(policy, 0.05, 10)
    assert len(feed(pairer, [('visible', START), ('thermal', START)])) == 1
    assert feed(pairer, [('visible', START - 5 * MS)]) == []
    assert pairer.counters['visible late'] == 1
    if policy == 'nearest':
        assert feed(pairer, [('thermal', START - 5 * MS)]) == []
        assert pairer.counters['thermal late'] == 1
    assert accounted(pairer) == 3 + (policy == 'nearest')


def test_a_clock_that_jumps_back_starts_anew(policy: str) -> None:
    pairer = make_pairer(policy, 0.005, 10)
    # Queues that are full of what never pairs: the streams are 16 ms apart.
    feed(pairer, arrivals(camera(30, 10), camera(30, 10, 0.016)))
    held, before = pairer.pending, pairer.counters.copy()
    assert held > 0
    aligned = arrivals(camera(30, 10), camera(30, 10))
    earlier = [(source, stamp - 60 * SECOND) for source, stamp in aligned]
    pairs = feed(pairer, earlier)
    assert given_up(pairer, 'clock jump') == held
    assert pairer.counters['pairs'] - before['pairs'] == len(pairs)
    assert len(pairs) == 300
    assert pairs[0].messages[0] == camera(30, 10)[0] - 60 * SECOND
    assert accounted(pairer) == 1200


def test_a_looping_recording_with_stragglers_pairs_again() -> None:
    visible, thermal = camera(30, 5), camera(9, 5, 0.004)
    events = arrivals(visible, thermal)
    pairer = NearestPairer[int](0.05, 30)
    for _ in range(4):
        # The last thermal message is overtaken by the first visible ones of the next round.
        late = next(event for event in reversed(events) if event[0] == 'thermal')
        rest = [event for event in events if event != late]
        pairs = feed(pairer, [*rest[:3], late, *rest[3:]])
        # The jumps of both sources cost what was held; from the fourth pair on all is as ever.
        assert is_increasing(pairs[1:])
        assert set(stamps_of(pairs[3:])) <= mutually_nearest(visible, thermal, 50 * MS)
        assert len(pairs) >= 40
    assert given_up(pairer, 'clock jump') > 0
    assert accounted(pairer) == 4 * len(events)


@pytest.mark.parametrize('first', ['visible', 'thermal'])
def test_a_jump_forward_does_not_wedge(first: str) -> None:
    pairer = NearestPairer[int](0.05, 10)
    ahead = 3600 * SECOND
    before = arrivals(camera(30, 2), camera(30, 2, 0.005))
    # One source jumps a second before the other one does.
    between = [
        (source, stamp + 2 * SECOND + (ahead if source == first else 0))
        for source, stamp in arrivals(camera(30, 1), camera(30, 1, 0.005))
    ]
    after = [(source, stamp + 3 * SECOND + ahead) for source, stamp in before]
    assert len(feed(pairer, before)) == 60
    feed(pairer, between)
    pairs = feed(pairer, after)
    assert len(pairs) == 60
    assert is_increasing(pairs)
    assert given_up(pairer, 'clock jump') == 0
    assert accounted(pairer) == 300


def test_one_stamp_from_the_future_costs_no_more_than_what_is_held() -> None:
    pairer = NearestPairer[int](0.05, 10)
    events = arrivals(camera(30, 4), camera(30, 4, 0.005))
    pairs = feed(pairer, events[:100])
    pairs += feed(pairer, [('visible', START + 10**6 * SECOND)])
    pairs += feed(pairer, events[100:])
    assert len(pairs) >= 120 - 10
    assert 0 < given_up(pairer, 'clock jump') <= 20
    assert accounted(pairer) == 241


class Image:
    """Something that a weak reference can follow."""


@pytest.mark.parametrize(('live', 'silent'), [SOURCES, SOURCES[::-1]])
def test_a_silent_stream_does_not_keep_the_others_messages(
    policy: str, live: Source, silent: Source
) -> None:
    pairer = make_pairer(policy, 0.05, 20)
    number = 20_000 if policy == 'nearest' else 5000
    alive: weakref.WeakSet[Image] = weakref.WeakSet()
    for index in range(number):
        image = Image()
        alive.add(image)
        assert pairer.add(live, START + index * 10 * MS, image) == []
        del image
        assert pairer.pending <= 20
    gc.collect()
    assert len(alive) <= pairer.pending == 20
    assert pairer.counters == {f'{live} unpaired': number - 20}
    # When it comes back, pairs do as well.
    last = START + (number - 1) * 10 * MS
    assert len(feed(pairer, [(silent, last), (live, last + 10 * MS)])) == 1


def test_a_stream_that_runs_behind_the_tolerance_is_let_go_at_once() -> None:
    pairer = NearestPairer[int](0.05, 1000)
    feed(pairer, [('thermal', START + index * 100 * MS) for index in range(50)])
    assert pairer.pending == 50
    feed(pairer, [('visible', START + 20 * SECOND)])
    assert pairer.counters == {'thermal unpaired': 50}
    assert pairer.pending == 1


def test_clear_drops_and_counts_by_cause(policy: str) -> None:
    pairer = make_pairer(policy, 0.05, 10)
    feed(pairer, [('visible', START), ('thermal', START), ('visible', START + SECOND)])
    held = pairer.pending
    pairer.clear('shutdown')
    assert pairer.pending == 0
    assert given_up(pairer, 'shutdown') == held > 0
    # An earlier time is a new timeline now, and what was dropped is forgotten.
    assert len(feed(pairer, [('thermal', START), ('visible', START)])) == 1


def test_flush_decides_what_is_held(policy: str) -> None:
    pairer = make_pairer(policy, 0.05, 10)
    pairs = feed(pairer, [('visible', START), ('visible', START + 33 * MS)])
    pairs += feed(pairer, [('thermal', START + 40 * MS)]) + pairer.flush()
    expected = [] if policy == 'exact' else [(START + 33 * MS, START + 40 * MS)]
    assert stamps_of(pairs) == expected
    assert pairer.pending == 0
    assert accounted(pairer) == 3
    assert pairer.counters['pairs'] == len(expected)


def test_settle_decides_the_pair_before_a_pause_and_holds_the_rest() -> None:
    pairer = NearestPairer[int](0.05, 10)
    assert feed(pairer, [('visible', 1000 * MS), ('thermal', 1010 * MS)]) == []
    assert stamps_of(pairer.settle()) == [(1000 * MS, 1010 * MS)]
    assert pairer.add('visible', 2000 * MS, 2000 * MS) == []
    assert pairer.settle() == []
    assert pairer.pending == 1
    pairs = pairer.add('thermal', 2020 * MS, 2020 * MS) + pairer.settle()
    assert stamps_of(pairs) == [(2000 * MS, 2020 * MS)]
    assert pairer.counters['pairs'] == 2
    assert accounted(pairer) == 4


def random_event(rng: random.Random, now: dict[Source, int]) -> Event:
    """Return a message of a source that has every trouble there is."""
    source = rng.choice(SOURCES)
    trouble = rng.random()
    if trouble < 0.02:
        return source, 0
    if trouble < 0.03:
        # Both sources jump, as with a clock that is set.
        now['visible'] = now['thermal'] = START + rng.randrange(10 * SECOND)
    elif trouble < 0.04:
        return source, now[source] + rng.randrange(20 * SECOND)
    elif trouble < 0.10:
        return source, now[source] - rng.randrange(300 * MS)
    elif trouble > 0.15:
        now[source] = max(now[source] + rng.randrange(60 * MS), min(now.values()))
    return source, now[source]


@pytest.mark.parametrize('seed', range(5))
def test_every_message_is_accounted_for(policy: str, seed: int) -> None:
    rng = random.Random(seed)
    queue_size = rng.choice([1, 2, 5, 30])
    # Coarse stamps, so that equal ones happen; the exact policy needs them.
    grid = 10 * MS if policy == 'exact' else rng.choice([1, 10 * MS])
    pairer = make_pairer(policy, rng.choice([0.0, 0.02, 0.1]), queue_size)
    now: dict[Source, int] = dict.fromkeys(SOURCES, START)
    last_visible, number_of_pairs = 0, 0
    seen: set[tuple[str, int]] = set()
    for received in range(1, 3001):
        source, stamp = random_event(rng, now)
        stamp = stamp // grid * grid
        if rng.random() < 0.01:
            pairer.tolerance = rng.choice([0.0, 0.02, 0.1])
        if rng.random() < 0.01:
            pairer.thermal_time_offset = rng.choice([0.0, 0.01, -0.05])
        cleared = rng.random() < 0.002
        if cleared:
            pairer.clear('clock jump')
        if cleared or pairer.jumps(source, stamp):
            last_visible = 0
        pairs = pairer.add(source, stamp, (source, stamp, received))
        if rng.random() < 0.05:
            pairs += pairer.settle()
        for pair in pairs:
            assert pair.messages[0][:2] == ('visible', pair.stamps[0])
            assert pair.stamps[0] > last_visible
            last_visible = pair.stamps[0]
            assert not seen & {pair.messages[0], pair.messages[1]}
            seen |= {pair.messages[0], pair.messages[1]}
            assert abs(pair.offset) <= pairer.tolerance or (policy, pair.offset) == ('exact', 0.0)
            number_of_pairs += 1
        assert accounted(pairer) == received
        assert pairer.pending <= 2 * queue_size
    assert pairer.counters['pairs'] == number_of_pairs > 20
    assert given_up(pairer, 'clock jump') > 0
    pairer.clear('shutdown')
    assert accounted(pairer) == 3000
    assert pairer.pending == 0


@pytest.mark.parametrize(
    ('setting', 'value'),
    [
        ('tolerance', -0.01),
        ('tolerance', float('nan')),
        ('tolerance', float('inf')),
        ('thermal_time_offset', float('nan')),
        ('thermal_time_offset', -1e9),
    ],
)
def test_a_bad_setting_is_refused_and_changes_nothing(setting: str, value: float) -> None:
    settings = {'tolerance': 0.05, 'thermal_time_offset': 0.01}
    pairer = make_pairer('nearest', queue_size=10, **settings)
    with pytest.raises(PairingError, match=setting):
        setattr(pairer, setting, value)
    assert getattr(pairer, setting) == pytest.approx(settings[setting])
    with pytest.raises(PairingError, match=setting):
        make_pairer('nearest', queue_size=10, **{**settings, setting: value})


def test_unknown_policies_and_empty_queues_are_refused() -> None:
    with pytest.raises(PairingError, match=r"'closest': choose one of nearest, approximate, ex"):
        make_pairer('closest', 0.05, 10)
    with pytest.raises(PairingError, match='queue_size must be at least 1, not 0'):
        make_pairer('nearest', 0.05, 0)


@pytest.mark.parametrize('name', ['approximate', 'exact'])
def test_a_missing_package_is_one_clear_sentence(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(sys.modules, 'message_filters', None)
    monkeypatch.setenv('ROS_DISTRO', 'jazzy')
    with pytest.raises(PairingError) as caught:
        make_pairer(name, 0.05, 10)
    for words in (f"'{name}'", 'message_filters', 'apt install ros-jazzy-message-', "'nearest'"):
        assert words in str(caught.value)
    assert '\n' not in str(caught.value)


def test_approximate_is_greedy_where_nearest_is_not() -> None:
    pytest.importorskip('message_filters')
    visible, thermal = camera(30, 30), camera(9, 30, 0.004)
    events = arrivals(visible, thermal)
    nearest = mutually_nearest(visible, thermal, 50 * MS)
    pairs = feed(make_pairer('approximate', 0.05, 30), events)
    assert len(pairs) == 270
    assert is_increasing(pairs)
    assert 0 < len(set(stamps_of(pairs)) - nearest) < 135


def test_exact_pairs_a_stereo_head_in_any_order_of_arrival() -> None:
    pytest.importorskip('message_filters')
    stamps = camera(30, 10)
    pairs = feed(make_pairer('exact', 0.0, 10), arrivals(stamps, stamps))
    assert stamps_of(pairs) == [(stamp, stamp) for stamp in stamps]


def test_a_failing_caller_leaves_the_pairer_usable(policy: str) -> None:
    pairer = make_pairer(policy, 0.05, 10)
    stamps = camera(30, 2)
    failures = 0
    for source, stamp in arrivals(stamps, stamps):
        try:
            for pair in pairer.add(source, stamp, stamp):
                raise RuntimeError(f'the fusion of {pair} failed')
        except RuntimeError:
            failures += 1
    assert failures == 60
