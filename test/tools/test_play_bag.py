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
"""The parts of the player that need no middleware: pace, latencies, reading and recording."""

import queue
import threading

import pytest

pytest.importorskip('rclpy', reason='needs rclpy')
pytest.importorskip('rosbags', reason='comes with the extra evaluation')
pytest.importorskip('mcap', reason='comes with the extra evaluation')

from builtin_interfaces.msg import Time
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CameraInfo, Image
from small_bags import START, write_bag
from std_msgs.msg import Header

from dig2dig_ros.evaluation.bag_reader import BagReader
from dig2dig_ros.evaluation.bag_types import BagError, Record
from dig2dig_ros.tools.play_bag import (
    header_stamp,
    Latencies,
    Mark,
    message_type,
    Pace,
    parse_arguments,
    PlayError,
    ReadAhead,
    Recording,
    render_summary,
)

SECOND = 1_000_000_000


def test_the_command_line_has_defaults_for_all_but_the_bag(tmp_path):
    options = parse_arguments([str(tmp_path)])
    assert options.bag == tmp_path
    assert (options.rate, options.loop, options.clock, options.measure) == (
        1.0,
        False,
        None,
        False,
    )
    assert parse_arguments([str(tmp_path), '--clock']).clock == 100.0
    assert parse_arguments([str(tmp_path), '--clock', '40']).clock == 40.0
    assert parse_arguments([str(tmp_path), '--summary', 'a.json']).measure


@pytest.mark.parametrize(
    ('arguments', 'reason'),
    [
        (['no/such/bag'], 'no/such/bag does not exist'),
        (['.', '--rate', '0'], 'must be above 0, not 0'),
        (['.', '--rate', 'nan'], 'must be above 0, not nan'),
        (['.', '--clock', '-1'], 'must be above 0, not -1'),
        (['.', '--wait', '-1'], 'must be 0 or more, not -1'),
        (['.', '--record', '.'], '. exists; name a new bag'),
        (['.', '--record-topics', 'a'], '--record-topics needs --record'),
    ],
)
def test_a_bad_command_line_says_why(capsys, arguments, reason):
    with pytest.raises(SystemExit) as end:
        parse_arguments(arguments)
    assert end.value.code == 2
    assert reason in capsys.readouterr().err


def test_message_types_are_found_by_name():
    assert message_type('sensor_msgs/msg/Image') is Image
    assert message_type('sensor_msgs/Image') is Image
    assert message_type('sensor_msgs/msg/Picture') is None
    assert message_type('no_such_msgs/msg/Image') is None
    assert message_type('') is None


@pytest.mark.parametrize('kind', [Image, CameraInfo])
def test_the_stamp_is_read_from_serialised_bytes(kind):
    message = kind(header=Header(stamp=Time(sec=1_700_000_000, nanosec=123_456_789), frame_id='x'))
    assert header_stamp(serialize_message(message)) == 1_700_000_000_123_456_789
    assert (
        header_stamp(bytes([0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 5])) == 2 * SECOND + 5
    )  # big-endian
    with pytest.raises(ValueError, match='of 3 bytes has no stamp'):
        header_stamp(b'abc')


def test_messages_are_due_at_their_recording_times_by_the_rate():
    pace = Pace(START, START + 10 * SECOND, 2.0)
    assert pace.time(123) == START  # before the beginning
    pace.begin(5 * SECOND)
    assert pace.due(START) == 5 * SECOND
    assert pace.due(START + 4 * SECOND) == 7 * SECOND
    assert pace.time(7 * SECOND) == START + 4 * SECOND
    # No precision is lost on the way: times of today have 61 bits.
    assert pace.time(7 * SECOND + 1) == START + 4 * SECOND + 2


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


def test_latency_counts_from_the_visible_image_and_from_the_later_one():
    latencies = Latencies()
    latencies.published('visible', 100, 1.0)
    latencies.published('thermal', 60, 0.9)
    latencies.published('thermal', 110, 1.25)
    latencies.published('thermal', 190, 1.4)
    latencies.fused(100, 1.5)
    assert latencies.from_visible == [0.5]
    assert latencies.from_pair == [0.25]
    latencies.published('visible', 200, 2.0)
    latencies.fused(200, 2.125)  # whose thermal image came first
    assert latencies.from_pair == [0.25, 0.125]


def test_fused_images_of_unknown_stamps_are_not_timed():
    latencies = Latencies()
    latencies.published('visible', 100, 1.0)
    latencies.fused(101, 1.5)
    latencies.fused(100, 1.5)
    assert latencies.from_visible == [0.5]
    assert latencies.from_pair == []
    latencies.start_over()
    latencies.fused(100, 2.5)
    assert latencies.from_visible == [0.5]


def test_latencies_keep_no_more_than_the_latest_stamps():
    latencies = Latencies()
    for stamp in range(5000):
        latencies.published('visible', stamp, float(stamp))
    latencies.fused(0, 6000.0)
    latencies.fused(4999, 6000.0)
    assert latencies.from_visible == [1001.0]


def record(index, size=10):
    return Record('/a', 'std_msgs/msg/String', index, bytes(size))


def test_reading_ahead_hands_everything_on_in_order():
    items = [record(0), Mark.START_OVER, record(1), Mark.END]
    ahead = ReadAhead(lambda: iter(items))
    assert [ahead.take(5.0) for _ in items] == items
    ahead.close()
    with pytest.raises(queue.Empty):
        ahead.take(0.01)


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
    recording = Recording(tmp_path / 'out', storage)
    for each in given:
        recording.write('/fused/image_raw', each.type, each.data, each.time)
    recording.close()
    assert recording.error is None
    assert recording.counts == {'/fused/image_raw': len(given)}
    with BagReader(tmp_path / 'out') as reader:
        assert reader.storage == storage
        found = list(reader.records(['/fused/image_raw']))
    assert [(each.time, each.data) for each in found] == [(each.time, each.data) for each in given]


def test_a_recording_that_fails_keeps_its_reason(tmp_path):
    (tmp_path / 'out').write_text('in the way')
    recording = Recording(tmp_path / 'out', 'mcap')
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
        'behind_schedule_ms': {'p50': 0.1, 'p95': 0.5, 'max': 12.0},
        'latency_ms': {'p50': 20.0, 'p95': 30.0, 'max': 40.5},
        'latency_from_visible_ms': None,
        'complete': False,
    }
    text = render_summary(summary)
    assert '8 visible, 9 thermal; lost on the way: 2 visible' in text
    assert '7 of 8 pairs' in text
    assert '1 superseded' in text
    assert 'clock jump' not in text
    assert 'p50 20 ms, p95 30 ms, max 40.5 ms, from the later image of the pair' in text
    assert 'no figures, from the visible image' in text
    assert 'max 12 ms behind the schedule' in text
    assert 'interrupted' in text
    assert 'interrupted' not in render_summary({**summary, 'complete': True})
