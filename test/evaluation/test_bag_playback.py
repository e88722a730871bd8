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

"""What playing a bag live needs: pace, reading ahead, recording, and the summary."""

import queue
import threading

import pytest

pytest.importorskip('rosbags', reason='comes with the extra evaluation')
pytest.importorskip('mcap', reason='comes with the extra evaluation')

from small_bags import START, write_bag

from dig2dig_ros.evaluation.bag_playback import (
    BagRecorder,
    nothing_to_play,
    Pace,
    PlayError,
    ReadAhead,
    render_summary,
)
from dig2dig_ros.evaluation.bag_reader import BagReader
from dig2dig_ros.evaluation.bag_types import BagError, Record, Topic
from dig2dig_ros.evaluation.bag_writer import BagWriter

SECOND = 1_000_000_000


def test_messages_are_due_at_their_recording_times_by_the_rate():
    pace = Pace(START, START + 10 * SECOND, 2.0)
    assert pace.time(123) == START  # before the beginning
    pace.begin(5 * SECOND)
    assert pace.due(START) == 5 * SECOND
    assert pace.due(START + 4 * SECOND) == 7 * SECOND
    assert pace.time(7 * SECOND) == START + 4 * SECOND
    # No precision is lost on the way: times of today have 61 bits.
    assert pace.time(7 * SECOND + 1) == START + 4 * SECOND + 2


def test_why_nothing_can_be_played_is_said(tmp_path):
    topics = {'/cam': Topic('/cam', 'foxglove.CompressedImage', 3, 'protobuf')}
    text = str(nothing_to_play(tmp_path / 'bag', topics))
    assert 'bag has no messages that can be played; /cam is foxglove.CompressedImage' in text
    assert 'convert it' in text


def test_a_loop_goes_on_without_a_gap_and_its_time_jumps_back():
    pace = Pace(START, START + 10 * SECOND, 1.0)
    pace.begin(0)
    assert pace.start_over() == 1
    assert pace.due(START) == 10 * SECOND
    assert pace.due(START + 3 * SECOND) == 13 * SECOND
    assert pace.time(13 * SECOND) == START + 3 * SECOND
    assert pace.unrolled(13 * SECOND) == START + 13 * SECOND
    assert pace.start_over() == 2
    assert pace.due(START) == 20 * SECOND


def record(index, size=10):
    return Record('/a', 'std_msgs/msg/String', index, bytes(size))


def test_reading_ahead_hands_everything_on_in_order():
    items = [record(0), record(1)]
    resume = threading.Event()

    def records():
        yield from items
        assert resume.wait(5.0)

    ahead = ReadAhead(records)
    assert [ahead.take(5.0) for _ in items] == items
    with pytest.raises(queue.Empty):
        ahead.take(0.01)
    resume.set()
    assert ahead.take(5.0) is None
    ahead.close()


def test_reading_ahead_holds_a_bounded_number_of_bytes():
    read = []
    resume = threading.Event()

    def records():
        for index in range(100):
            read.append(index)
            if index == 5:
                resume.set()
            yield record(index, 100)

    ahead = ReadAhead(records, limit=500)
    assert resume.wait(5.0)
    # The one that is read while the store is full waits in the thread's hand.
    assert [ahead.take(5.0).time for _ in range(20)] == list(range(20))
    assert len(read) <= 20 + 5 + 2
    ahead.close()  # while the thread waits for room


def test_a_bag_that_breaks_is_told_after_its_last_record():
    def records():
        yield record(0)
        raise BagError('the file is cut off')

    ahead = ReadAhead(records)
    assert ahead.take(5.0).time == 0
    with pytest.raises(PlayError, match='the file is cut off'):
        ahead.take(5.0)
    ahead.close()


@pytest.mark.parametrize('storage', ['sqlite3', 'mcap'])
def test_a_recording_holds_the_bytes_that_it_was_given(tmp_path, storage):
    with BagReader(write_bag(tmp_path / 'bag', storage)) as reader:
        given = list(reader.records(['/camera/image_raw']))
    recording = BagRecorder(tmp_path / 'out', storage)
    for each in given:
        recording.write('/fused/image_raw', each.type, each.data, each.time)
    recording.close()
    assert recording.error is None
    assert recording.counts == {'/fused/image_raw': len(given)}
    with BagReader(tmp_path / 'out') as reader:
        assert reader.storage == storage
        found = list(reader.records(['/fused/image_raw']))
    assert [(each.time, each.data) for each in found] == [(each.time, each.data) for each in given]


def test_a_recording_holds_a_bounded_number_of_bytes_for_a_slow_disk(tmp_path, monkeypatch):
    write, resume = BagWriter.write_raw, threading.Event()

    def wait_and_write(self, *message):
        assert resume.wait(30)
        write(self, *message)

    monkeypatch.setattr(BagWriter, 'write_raw', wait_and_write)
    recording = BagRecorder(tmp_path / 'out', 'mcap', limit=5_000)
    for index in range(100):
        recording.write('/fused/image_raw', 'std_msgs/msg/String', bytes(700), index)
    left_out = recording.left_out['/fused/image_raw']
    assert left_out == 95  # five of 700 and their overhead wait
    resume.set()
    recording.close()
    assert recording.error is None
    assert recording.counts == {'/fused/image_raw': 5}
    assert 'too slow: 95 of /fused/image_raw; record to' in recording.problem


def test_a_recording_that_fails_keeps_its_reason(tmp_path):
    (tmp_path / 'out').write_text('in the way')
    recording = BagRecorder(tmp_path / 'out', 'mcap')
    recording.write('/fused/image_raw', 'sensor_msgs/msg/Image', b'', 0)
    recording.close()
    assert 'exists' in str(recording.error)


def test_the_summary_names_losses_drops_and_missing_figures():
    summary = {
        'played': {'visible': 10, 'thermal': 9},
        'received': {'visible': 8, 'thermal': 9},
        'lost': {'visible': 2, 'thermal': 0},
        'pairs': 8,
        'fused': 7,
        'fused_received': 7,
        'dropped': {'superseded': 1, 'clock jump': 0},
        'behind_schedule_ms': None,
        'latency_ms': {'p50': 20.0, 'p95': 30.0, 'max': 40.5},
        'complete': False,
    }
    text = render_summary(summary)
    assert '8 visible, 9 thermal; lost in transport: 2 visible' in text
    assert '7 of 8 pairs' in text
    assert '1 superseded' in text
    assert 'clock jump' not in text
    assert 'p50 20 ms, p95 30 ms, max 40.5 ms, from the later image of the pair' in text
    assert 'no figures behind the schedule' in text
    assert 'interrupted' in text
    assert 'interrupted' not in render_summary({**summary, 'complete': True})
