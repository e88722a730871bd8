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

import pytest

from dig2dig_ros.streams.statistics import (
    drop_causes,
    IMAGE_CAUSES,
    percentiles_ms,
    StreamStatistics,
    why_unfused,
)


class SteadyClock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return SteadyClock()


@pytest.fixture
def statistics(clock):
    return StreamStatistics(clock)


def test_counters_and_rates(statistics, clock):
    for _ in range(21):
        statistics.received('visible')
        clock.now += 0.1
    table = statistics.table()
    assert table['visible received'] == '21'
    assert table['thermal received'] == '0'
    assert table['input rate visible (Hz)'] == '10.00'
    assert table['input rate thermal (Hz)'] == '0.00'


def test_rate_falls_while_a_stream_pauses(statistics, clock):
    for _ in range(11):
        statistics.received('visible')
        clock.now += 0.1
    clock.now += 1.0
    rate = float(statistics.table()['input rate visible (Hz)'])
    assert rate == pytest.approx(10 / 2.1, abs=0.01)


def test_rate_forgets_the_past(statistics, clock):
    statistics.received('visible')
    statistics.received('visible')
    clock.now += 60
    assert statistics.table()['input rate visible (Hz)'] == '0.00'


def test_latency_is_from_arrival_to_publication(statistics, clock):
    for milliseconds in (10, 20, 30):
        arrival = clock.now
        clock.now += milliseconds / 1e3
        statistics.fused(arrival, 0.005)
    table = statistics.table()
    assert table['fused'] == '3'
    assert table['latency p50 (ms)'] == '20.0'
    assert float(table['latency p95 (ms)']) == pytest.approx(29.0)
    assert table['fusion time p50 (ms)'] == '5.0'


def test_latency_counts_from_the_first_image_of_a_pair(statistics, clock):
    clock.now += 0.02
    statistics.fused(clock.now - 0.02, 0.005, waited=1.5)
    table = statistics.table()
    assert table['latency p50 (ms)'] == '1520.0'
    # What the node itself took of it.
    assert table['overhead p50 (ms)'] == '15.0'


def test_times_are_those_of_the_recent_past(statistics, clock):
    for seconds in (2.0, 0.1):
        for _ in range(400):
            statistics.fused(clock.now - seconds, seconds / 2, seconds)
            statistics.paired(seconds)
    table = statistics.table()
    assert table['latency p95 (ms)'] == '200.0'
    assert table['fusion time p50 (ms)'] == '50.0'
    assert table['overhead p50 (ms)'] == '50.0'
    assert table['pair offset max (ms)'] == '100.0'


def test_pair_offsets_are_magnitudes(statistics):
    for offset in (-0.010, 0.004, 0.006):
        statistics.paired(offset)
    table = statistics.table()
    assert (table['pairs'], table['pair offset median (ms)']) == ('3', '6.0')
    assert table['pair offset max (ms)'] == '10.0'


def test_every_cause_of_a_drop_is_listed_and_the_last_reason_kept(statistics):
    statistics.dropped('superseded')
    statistics.dropped('visible malformed', 2, 'step is too small')
    table = statistics.table()
    for cause in drop_causes():
        assert f'dropped: {cause}' in table
    assert table['dropped: superseded'] == '1'
    assert table['dropped: visible malformed'] == '2'
    assert table['last error'] == 'visible malformed: step is too small'
    assert 'superseded 1' in statistics.summary()


def test_further_sources_are_counted_by_their_names(clock):
    statistics = StreamStatistics(clock, ('visible', 'thermal', 'nir'))
    statistics.received('nir')
    clock.now += 1
    statistics.dropped('nir missing', 3)
    table = statistics.table()
    assert table['nir received'] == '1'
    assert table['input rate nir (Hz)'] == '0.00'
    assert table['dropped: nir missing'] == '3'
    for cause in (*IMAGE_CAUSES, 'refused'):
        assert table[f'dropped: nir {cause}'] == '0'
    assert statistics.summary().startswith('received visible 0, thermal 0, nir 1;')
    # A pair is made of these two, so they are unpaired rather than missing.
    assert not {'visible missing', 'thermal missing'} & set(drop_causes(('visible', 'thermal')))
    assert not any('nir' in cause or 'missing' in cause for cause in drop_causes())


def test_images_that_went_alone_are_counted_beside_the_pairs(statistics):
    statistics.went_alone('visible')
    statistics.went_alone('visible')
    table = statistics.table()
    assert table['visible alone'] == '2'
    assert table['thermal alone'] == '0'
    assert table['pairs'] == '0'
    statistics.fused(0.0, 0.0)
    assert 'pairs 0; alone visible 2; fused 1;' in statistics.summary()


@pytest.mark.parametrize(
    ('cause', 'sentence'),
    [
        ('camera_info refused', 'camera_info is refused: too old'),
        ('thermal refused', 'thermal images are refused: too old'),
        ('visible malformed', 'visible images are refused: too old'),
        ('out of memory', 'not fused: memory ran out'),
        ('registration', 'not registered: too old'),
        ('error', 'not fused: too old'),
    ],
)
def test_what_diagnostics_say_of_a_pair_that_was_not_fused(cause, sentence):
    assert why_unfused(cause, 'too old') == sentence


def test_percentiles():
    assert percentiles_ms([]) is None
    assert percentiles_ms([0.001 * n for n in range(101)]) == {
        'p50': 50.0,
        'p95': 95.0,
        'p99': 99.0,
        'max': 100.0,
    }


def test_what_is_left_out_is_told_and_counted(statistics):
    statistics.left_out('thermal', 'thermal refused: a palette')
    table = statistics.table()
    assert table['thermal left out'] == '1'
    assert table['last error'] == 'thermal refused: a palette'
