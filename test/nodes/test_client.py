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

"""A client of the fusion node that waits in vain, and how it reads the diagnostics back."""

import os

import pytest

pytest.importorskip('rclpy', reason='needs rclpy')

from rclpy.executors import ExternalShutdownException

from dig2dig_ros.nodes.child_processes import ProcessError
from dig2dig_ros.nodes.client import (
    drops,
    FusionClient,
    is_counter,
    is_settled,
    subtract_counters,
    unfinished_pairs,
    waiting_images,
)
from dig2dig_ros.streams.pairing import SOURCES
from dig2dig_ros.streams.statistics import drop_causes, StreamStatistics


@pytest.fixture
def client(monkeypatch):
    monkeypatch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    client = FusionClient.connect('client', 1 + os.getpid() % 100)
    yield client
    client.close()


def test_a_node_that_is_not_there_is_waited_for_until_the_time_is_over(client):
    with pytest.raises(ProcessError, match=r'its activation did not come .* is not heard of'):
        client.wait_active(0.05)
    assert client.until(lambda: 'now', 0.0, 'nothing') == 'now'


def test_what_happens_meanwhile_may_end_a_wait(client):
    turns = []

    def give_up():
        turns.append(len(turns))
        if len(turns) == 3:
            raise ProcessError('that is enough')

    client.meanwhile.append(give_up)
    with pytest.raises(ProcessError, match='that is enough'):
        client.spin(60.0)
    assert turns == [0, 1, 2]


def test_a_context_that_has_ended_ends_a_wait(client):
    client.node.context.shutdown()
    with pytest.raises(ExternalShutdownException):
        client.spin(60.0)


# Reading the counters of the diagnostics


def test_counters_are_told_from_other_values():
    assert {key for key in StreamStatistics().table() if is_counter(key)} == {
        *(f'dropped: {cause}' for cause in drop_causes()),
        *(f'{name} {what}' for name in SOURCES for what in ('received', 'alone', 'left out')),
        *(f'{name} faulty' for name in SOURCES),
        *('pairs', 'fused'),
    }


def test_images_alone_are_waited_for_as_pairs_are():
    statistics = StreamStatistics()
    statistics.went_alone('visible')
    statistics.went_alone('visible')
    assert not is_settled(statistics.table())
    statistics.fused(0.0, 0.0)
    statistics.dropped('superseded')
    assert is_settled(statistics.table())


def make_values(**changes):
    values = {
        'visible received': 40,
        'thermal received': 40,
        'pairs': 39,
        'fused': 12,
        'dropped: superseded': 27,
        'dropped: fusion error': 0,
        'dropped: visible unpaired': 1,
    }
    values.update({key.replace('_', ' '): value for key, value in changes.items()})
    return {key: str(value) for key, value in values.items()}


def test_settled_when_every_pair_is_fused_or_dropped():
    assert is_settled(make_values())
    assert not is_settled(make_values(fused=11))
    assert is_settled(make_values(fused=11) | {'dropped: fusion error': '1'})
    # A drop of a single image is no drop of a pair.
    assert not is_settled(make_values(fused=11) | {'dropped: visible unpaired': '2'})


def test_settled_knows_where_an_image_was_refused():
    # Before it was paired, an image that contradicts itself is no pair; after, it is one.
    assert not is_settled(make_values(fused=11) | {'dropped: thermal malformed': '1'})
    assert is_settled(make_values(fused=11) | {'dropped: thermal refused': '1'})
    # What goes on without its thermal image is fused, and so counted already.
    assert is_settled(make_values() | {'thermal left out': '5'})
    assert unfinished_pairs(make_values(fused=9)) == 3


def test_warm_up_is_taken_off_the_counters():
    values = make_values() | {'latency p50 (ms)': '12.5', 'N': '4'}
    baseline = make_values(visible_received=1, thermal_received=1, pairs=1, fused=1) | {
        'dropped: superseded': '0',
        'dropped: visible unpaired': '0',
    }
    result = subtract_counters(values, baseline)
    assert result['fused'] == '11'
    assert result['visible received'] == '39'
    assert result['latency p50 (ms)'] == '12.5'
    assert result['N'] == '4'
    assert drops(result) == {'superseded': 27, 'fusion error': 0, 'visible unpaired': 1}


def test_waiting_images_are_those_without_a_fate():
    values = make_values()
    assert waiting_images(values) == {'visible': 0, 'thermal': 1}
    assert waiting_images(values | {'dropped: thermal late': '1'}) == {'visible': 0, 'thermal': 0}
    values = make_values(visible_received=45)
    assert waiting_images(values) == {'visible': 5, 'thermal': 1}
    values['dropped: visible without counterpart'] = '4'
    assert waiting_images(values) == {'visible': 1, 'thermal': 1}
    values |= {'dropped: visible clock jump': '1', 'dropped: thermal shutdown': '1'}
    assert waiting_images(values) == {'visible': 0, 'thermal': 0}
    # What ends a pair says nothing of images that are in none.
    values |= {'dropped: visible refused': '1', 'dropped: shutdown': '1'}
    assert waiting_images(values) == {'visible': 0, 'thermal': 0}


def test_a_group_that_lacks_a_source_ends_an_image_of_each_one_before_it():
    statistics = StreamStatistics(sources=('visible', 'thermal', 'nir', 'swir'))
    for source, count in (('visible', 9), ('thermal', 8), ('nir', 5), ('swir', 2)):
        for _ in range(count):
            statistics.received(source)
    statistics.dropped('nir missing', 3)
    statistics.dropped('swir missing', 2)
    statistics.dropped('nir refused')
    for _ in range(2):
        statistics.paired(0.0)
    statistics.fused(0.0, 0.0)
    table = statistics.table()
    assert waiting_images(table) == {'visible': 2, 'thermal': 1, 'nir': 1, 'swir': 0}
    assert is_settled(table)
