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

"""Groups of K sources: each one nearest to the visible, bounded, every message accounted for."""

from collections.abc import Sequence
import random
from typing import Any

import pytest

from dig2dig_ros.streams.cascade import Cascade
from dig2dig_ros.streams.pairing import CLOCK_JUMP, Group, make_pairer, PairingError, POLICIES

MS = 1_000_000
SECOND = 1000 * MS
START = 1_700_000_000 * SECOND

Event = tuple[str, int]


@pytest.fixture(params=POLICIES)
def policy(request: pytest.FixtureRequest) -> str:
    if request.param != 'nearest':
        pytest.importorskip('message_filters')
    return str(request.param)


def camera(rate: float, seconds: float, phase: float = 0.0, jitter: float = 0.0) -> list[int]:
    """Return a camera's stamps in ns: rate in Hz, phase and Gaussian jitter in s."""
    rng = random.Random(f'{rate} {phase} {jitter}')
    times = [i / rate + phase + rng.gauss(0.0, jitter) for i in range(int(rate * seconds))]
    return sorted({START + round(time * SECOND) for time in times})


def arrivals(streams: dict[str, list[int]], seed: int = 0) -> list[Event]:
    """Return all streams in order of arrival, after 5-25 ms, 5-45 ms, ... on the way."""
    rng = random.Random(seed)
    events: list[tuple[int, str, int]] = []
    for number, (source, stamps) in enumerate(streams.items()):
        arrival = 0
        for stamp in stamps:
            # One writer's messages stay in order.
            arrival = max(arrival + 1, stamp + rng.randrange(5 * MS, (25 + 20 * number) * MS))
            events.append((arrival, source, stamp))
    return [(source, stamp) for _, source, stamp in sorted(events)]


def feed(cascade: Cascade[Any], events: list[Event]) -> list[Group[Any]]:
    return [group for source, stamp in events for group in cascade.add(source, stamp, stamp)]


def accounted(cascade: Cascade[Any]) -> int:
    """Return the messages that the counters and what is held speak of."""
    total = cascade.pending
    for cause, number in cascade.counters.items():
        name, _, what = cause.partition(' ')
        if cause == 'groups':
            total += number * len(cascade.sources)
        elif what == 'missing':
            # So many messages the group already had.
            total += number * cascade.sources.index(name)
        else:
            total += number
    return total


def given_up(cascade: Cascade[Any], cause: str) -> int:
    return sum(cascade.counters[f'{source} {cause}'] for source in cascade.sources)


def nearest(stamps: list[int], moment: int) -> int:
    return min(stamps, key=lambda stamp: abs(stamp - moment))


def mutually_nearest(one: list[int], other: list[int], tolerance: int) -> dict[int, int]:
    """Return for each of ``one`` the one of ``other`` where both are nearest to each other."""
    pairs = {stamp: nearest(other, stamp) for stamp in one} if other else {}
    return {
        stamp: partner
        for stamp, partner in pairs.items()
        if abs(stamp - partner) <= tolerance and nearest(one, partner) == stamp
    }


@pytest.mark.parametrize(
    'streams',
    [
        pytest.param(
            {'visible': camera(30, 10), 'thermal': camera(9, 10, 0.004), 'nir': camera(30, 10)},
            id='30/9/30 Hz',
        ),
        pytest.param(
            {
                'visible': camera(30, 10, jitter=3e-4),
                'thermal': camera(25, 10, 0.001, 3e-4),
                'nir': camera(9, 10, 0.006, 3e-4),
                'swir': camera(60, 10, 0.002, 3e-4),
            },
            id='30/25/9/60 Hz, jitter',
        ),
    ],
)
@pytest.mark.parametrize('seed', [1, 2])
def test_each_source_is_nearest_to_what_the_ones_before_have_made(
    streams: dict[str, list[int]], seed: int
) -> None:
    cascade = Cascade[int]('nearest', 0.03, 30, 0.0, list(streams)[2:])
    groups = feed(cascade, arrivals(streams, seed)) + cascade.flush()
    expected = {stamp: (stamp,) for stamp in streams['visible']}
    for source in list(streams)[1:]:
        partners = mutually_nearest(list(expected), streams[source], 30 * MS)
        expected = {stamp: (*expected[stamp], partners[stamp]) for stamp in partners}
    assert [group.messages for group in groups] == list(expected.values())
    assert all(group.stamps == group.messages for group in groups)
    assert len(groups) > 80
    assert cascade.counters['groups'] == len(groups)
    assert accounted(cascade) == sum(map(len, streams.values()))
    assert cascade.pending == 0


def test_a_group_is_decided_by_the_last_of_its_messages() -> None:
    phases = {'visible': 0.0, 'thermal': 0.004, 'nir': -0.003, 'swir': 0.006}
    streams = {source: camera(30, 5, phase) for source, phase in phases.items()}
    cascade = Cascade[int]('nearest', 0.02, 30, 0.0, ['nir', 'swir'])
    events = arrivals(streams)
    position = {event: index for index, event in enumerate(events)}
    waits = [
        index - max(position[event] for event in zip(streams, group.messages, strict=True))
        for index, (source, stamp) in enumerate(events)
        for group in cascade.add(source, stamp, stamp)
    ]
    # Until the periods are known, the next message of the earlier source has to be seen.
    assert len(waits) >= 149
    assert set(waits[20:]) == {0}


@pytest.mark.parametrize('seed', [1, 2, 3])
def test_without_additional_sources_it_is_the_pairer(policy: str, seed: int) -> None:
    jitter = 0.0 if policy == 'exact' else 1e-3
    streams = {'visible': camera(30, 5, jitter=jitter), 'thermal': camera(10, 5, 0.0, jitter)}
    events = arrivals(streams, seed)
    # A recording that starts again, and a driver without stamps.
    events = [*events, ('thermal', 0), *events]
    cascade = Cascade[int](policy, 0.03, 10)
    pairer = make_pairer(policy, 0.03, 10)
    for index, (source, stamp) in enumerate(events):
        groups = cascade.add(source, stamp, stamp)
        pairs = pairer.add('visible' if source == 'visible' else 'thermal', stamp, stamp)
        if index % 20 == 0:
            groups += cascade.settle()
            pairs += pairer.settle()
        assert groups == pairs
        assert cascade.pending == pairer.pending
    expected = pairer.counters.copy()
    expected['groups'] = expected.pop('pairs', 0)
    assert cascade.counters == expected
    assert given_up(cascade, 'clock jump') > 0
    assert cascade.counters['groups'] > 50


def test_a_group_knows_its_messages_and_its_offset(policy: str) -> None:
    cascade = Cascade[object](policy, 0.05, 10, 0.0, ['nir'])
    images = {source: object() for source in ('nir', 'visible', 'thermal')}
    groups = [group for name in images for group in cascade.add(name, START, images[name])]
    assert [group.messages for group in groups] == [tuple(images[s] for s in cascade.sources)]
    assert (groups[0].stamps, groups[0].offset) == ((START,) * 3, 0.0)
    assert cascade.counters == {'groups': 1}
    assert Group((1, 2, 3), (START, START + 4 * MS, START - 8 * MS)).offset == -0.008


def test_tolerance_is_that_of_each_source_to_the_visible_stamp() -> None:
    for nir, expected in ((-50, 1), (-51, 0)):
        cascade = Cascade[int]('nearest', 0.05, 10, 0.0, ['nir'])
        stamps = {'visible': 0, 'thermal': 50, 'nir': nir}
        groups = feed(cascade, [(name, START + ms * MS) for name, ms in stamps.items()])
        assert len(groups + cascade.flush()) == expected
    assert cascade.counters == {'nir missing': 1, 'nir unpaired': 1}
    assert accounted(cascade) == 3


def test_settings_reach_the_stages_they_concern(policy: str) -> None:
    cascade = Cascade[int](policy, 0.001, 10, 0.0, ['nir'])
    cascade.thermal_time_offset = -0.1
    assert cascade.thermal_time_offset == pytest.approx(-0.1)
    late = START + 100 * MS
    groups = feed(cascade, [('visible', START), ('thermal', late), ('nir', START)])
    assert [group.stamps for group in groups] == [(START, START, START)]
    assert groups[0].messages == (START, late, START)
    if policy == 'exact':
        return
    cascade.tolerance = 0.02
    assert cascade.tolerance == pytest.approx(0.02)
    later = START + SECOND
    groups = feed(cascade, [('visible', later), ('thermal', later + 100 * MS)])
    groups += feed(cascade, [('nir', later + 20 * MS)]) + cascade.flush()
    assert [group.stamps[2] - group.stamps[0] for group in groups] == [20 * MS]
    with pytest.raises(PairingError, match='tolerance'):
        cascade.tolerance = -1.0


@pytest.mark.parametrize('silent', ['visible', 'thermal', 'nir', 'swir'])
def test_a_silent_source_is_named_and_keeps_nothing(policy: str, silent: str) -> None:
    cascade = Cascade[int](policy, 0.05, 5, 0.0, ['nir', 'swir'])
    live = [source for source in cascade.sources if source != silent]
    for index in range(200):
        assert feed(cascade, [(source, START + index * 33 * MS) for source in live]) == []
        assert cascade.pending <= 5 * (1 + 2 + 3)
    counters = cascade.counters
    if silent in ('nir', 'swir'):
        assert counters[f'{silent} missing'] >= 190
    else:
        assert counters[f'{live[0]} unpaired'] >= 190
    assert not any(cause.endswith('missing') and silent not in cause for cause in counters)
    # When it comes back, groups do as well.
    last = START + 199 * 33 * MS
    groups = feed(cascade, [(silent, last), *[(source, last + 33 * MS) for source in live]])
    groups += feed(cascade, [(silent, last + 33 * MS)]) + cascade.flush()
    assert len(groups) == 2
    assert accounted(cascade) == 200 * 3 + 5


@pytest.mark.parametrize('first', ['visible', 'thermal', 'nir'])
def test_a_clock_that_jumps_back_in_one_source_clears_all(policy: str, first: str) -> None:
    cascade = Cascade[int](policy, 0.005, 10, 0.0, ['nir'])
    names = list(cascade.sources)
    names.insert(0, names.pop(names.index(first)))
    # A pair that waits for nir, and a visible image that waits for thermal.
    feed(cascade, [('visible', START), ('thermal', START), ('nir', START - 100 * MS)])
    feed(cascade, [('visible', START + 100 * MS)])
    held = cascade.pending
    assert held >= 3
    earlier = START - 60 * SECOND
    groups = feed(cascade, [(name, earlier) for name in names])
    assert given_up(cascade, 'clock jump') == held
    assert [group.messages for group in groups] == [(earlier,) * 3]
    assert accounted(cascade) == 7


def test_clear_counts_every_message_by_its_cause() -> None:
    cascade = Cascade[int]('nearest', 0.05, 10, 0.0, ['nir', 'swir'])
    feed(cascade, [(name, START) for name in ('visible', 'thermal', 'nir')])
    feed(cascade, [('visible', START + SECOND), ('nir', START + SECOND)])
    assert cascade.pending == 5
    cascade.clear('shutdown')
    assert cascade.counters == {
        'visible shutdown': 2,
        'thermal shutdown': 1,
        'nir shutdown': 2,
    }
    assert cascade.pending == 0
    assert len(feed(cascade, [(name, START - SECOND) for name in cascade.sources])) == 1


def test_settle_completes_the_group_before_a_pause_and_holds_the_rest() -> None:
    cascade = Cascade[int]('nearest', 0.05, 10, 0.0, ['nir'])
    stamps = {'visible': 0, 'thermal': 10, 'nir': 20}
    assert feed(cascade, [(name, START + ms * MS) for name, ms in stamps.items()]) == []
    assert [group.offset for group in cascade.settle()] == [0.02]
    assert feed(cascade, [('visible', START + SECOND), ('thermal', START + SECOND)]) == []
    assert cascade.settle() == []
    groups = feed(cascade, [('nir', START + SECOND + 20 * MS)]) + cascade.settle()
    assert [group.stamps[0] for group in groups] == [START + SECOND]
    assert accounted(cascade) == 6


def troubled_events(rng: random.Random, sources: Sequence[str], jitter: int) -> list[Event]:
    """Return frames of all sources with every trouble there is; jitter in ns."""
    events = []
    frame = START
    for _ in range(500):
        frame += 40 * MS
        if rng.random() < 0.02:
            # All sources jump, as with a clock that is set.
            frame = START + rng.randrange(250) * 40 * MS
        for source in rng.sample(sources, len(sources)):
            stamp = frame + rng.randrange(jitter + 1)
            trouble = rng.random()
            if trouble < 0.02:
                stamp = 0
            elif trouble < 0.025:
                stamp += rng.randrange(2 * CLOCK_JUMP)
            elif trouble < 0.05:
                stamp -= 40 * MS
            if trouble < 0.95:
                events.append((source, stamp))
    return events


@pytest.mark.parametrize('seed', range(4))
def test_every_message_is_accounted_for(policy: str, seed: int) -> None:
    rng = random.Random(seed)
    queue_size = rng.choice([2, 5, 30])
    cascade = Cascade[Any](policy, 0.02, queue_size, 0.0, ['nir', 'swir'])
    jitter = 0 if policy == 'exact' else rng.choice([0, 15 * MS])
    events = troubled_events(rng, cascade.sources, jitter)
    seen: set[Any] = set()
    last_visible = 0
    for number, (source, stamp) in enumerate(events):
        cleared = rng.random() < 0.002
        if cleared:
            cascade.clear('shutdown')
        if cleared or cascade.jumps(source, stamp):
            last_visible = 0
        groups = cascade.add(source, stamp, (source, stamp, number))
        if rng.random() < 0.02:
            groups += cascade.settle()
        for group in groups:
            assert tuple(message[0] for message in group.messages) == cascade.sources
            assert tuple(message[1] for message in group.messages) == group.stamps
            assert abs(group.offset) <= 0.02
            assert group.stamps[0] > last_visible
            last_visible = group.stamps[0]
            assert not seen & set(group.messages)
            seen |= set(group.messages)
        assert accounted(cascade) == number + 1
        assert cascade.pending <= queue_size * (1 + 1 + 2 + 1 + 3 + 1)
    assert cascade.counters['groups'] * 4 == len(seen) > 400
    assert given_up(cascade, 'clock jump') > 0
    cascade.clear('shutdown')
    assert accounted(cascade) == len(events)
    # Of each source, too: a group that lacks a source ends an image of each one before it.
    ends = cascade.counters
    for index, source in enumerate(cascade.sources):
        own = sum(
            number
            for cause, number in ends.items()
            if cause.startswith(f'{source} ') and not cause.endswith(' missing')
        )
        later = sum(ends[f'{name} missing'] for name in cascade.sources[max(2, index + 1) :])
        assert own + later + ends['groups'] == [event[0] for event in events].count(source)
    assert cascade.pending == 0


def test_a_name_that_is_taken_is_refused() -> None:
    for names, taken in ((['thermal'], 'thermal'), (['nir', 'swir', 'nir'], 'nir')):
        with pytest.raises(PairingError, match=f"'{taken}' appears more than once"):
            Cascade[int]('nearest', 0.05, 10, 0.0, names)
    with pytest.raises(PairingError, match='unknown sync_policy'):
        Cascade[int]('closest', 0.05, 10, 0.0, ['nir'])
