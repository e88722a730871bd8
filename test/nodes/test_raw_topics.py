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

"""Serialised messages: their types and stamps, and how long after its pair a fused image comes."""

import os
import sys

import pytest

pytest.importorskip('rclpy', reason='needs rclpy')

from types import SimpleNamespace

from builtin_interfaces.msg import Time
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from dig2dig_ros.nodes.raw_topics import FusionObserver, header_stamp, message_type

SECOND = 1_000_000_000


def test_message_types_are_found_by_name():
    assert message_type('sensor_msgs/msg/Image') is Image
    assert message_type('sensor_msgs/Image') is Image
    assert message_type('sensor_msgs/msg/Picture') is None
    assert message_type('no_such_msgs/msg/Image') is None
    assert message_type('') is None


@pytest.mark.parametrize(
    'name',
    [
        'trap/msg/Image',
        'trap/Image',
        'trap.msg/msg/Image',
        '../trap/msg/Image',
        'trap/msg/__doc__',
        'sensor_msgs.msg/Image',
        'sensor_msgs/msg/../Image',
    ],
)
def test_a_name_never_imports_what_is_no_package_of_messages(name, tmp_path, monkeypatch):
    for folder in ('trap', 'trap/msg'):
        (tmp_path / folder).mkdir()
        text = f"raise SystemExit('imported {folder}')"
        (tmp_path / folder / '__init__.py').write_text(text, encoding='utf-8')
    monkeypatch.syspath_prepend(tmp_path)
    assert message_type(name) is None
    assert 'trap' not in sys.modules


def test_packages_of_a_workspace_are_found_in_the_index(tmp_path, monkeypatch):
    index = tmp_path / 'share' / 'ament_index' / 'resource_index' / 'rosidl_interfaces'
    index.mkdir(parents=True)
    (index / 'own_test_msgs').write_text('msg/Heat.idl\nmsg/Heat.msg\nsrv/Look.srv\n')
    package = tmp_path / 'own_test_msgs'
    (package / 'msg').mkdir(parents=True)
    (package / '__init__.py').touch()
    (package / 'msg' / '__init__.py').write_text('class Heat: pass\nclass Other: pass\n')
    monkeypatch.syspath_prepend(tmp_path)
    assert message_type('own_test_msgs/msg/Heat') is None
    monkeypatch.setenv('AMENT_PREFIX_PATH', f'/no/such/prefix{os.pathsep}{tmp_path}')
    assert message_type('own_test_msgs/msg/Heat').__name__ == 'Heat'
    assert message_type('own_test_msgs/msg/Other') is None


@pytest.mark.parametrize('kind', [Image, CameraInfo])
def test_the_stamp_is_read_from_serialised_bytes(kind):
    message = kind(header=Header(stamp=Time(sec=1_700_000_000, nanosec=123_456_789), frame_id='x'))
    assert header_stamp(serialize_message(message)) == 1_700_000_000_123_456_789
    assert (
        header_stamp(bytes([0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 5])) == 2 * SECOND + 5
    )  # big-endian
    with pytest.raises(ValueError, match='of 3 bytes has no stamp'):
        header_stamp(b'abc')


def observe():
    """Return an observer that nothing is sent to."""
    return FusionObserver(SimpleNamespace(node=None, values={}))


def test_latency_counts_from_the_later_image():
    observer = observe()
    observer.published('visible', 100, 1.0)
    observer.published('thermal', 60, 0.9)
    observer.published('thermal', 110, 1.25)
    observer.published('thermal', 190, 1.4)
    observer.fused(100, 1.5)
    assert observer.latencies == [0.25]
    observer.published('visible', 200, 2.0)
    observer.fused(200, 2.125)  # whose thermal image came first
    assert observer.latencies == [0.25, 0.125]


def test_fused_images_of_unknown_stamps_are_not_timed():
    observer = observe()
    observer.published('visible', 100, 1.0)
    observer.fused(100, 1.5)  # without any thermal image
    observer.published('thermal', 100, 1.0)
    observer.fused(101, 1.5)
    assert observer.latencies == []
    observer.start_over()
    observer.fused(100, 2.5)
    assert observer.latencies == []


def test_latencies_keep_no_more_than_the_latest_stamps():
    observer = observe()
    for stamp in range(5000):
        for source in ('visible', 'thermal'):
            observer.published(source, stamp, float(stamp))
    observer.fused(0, 6000.0)
    observer.fused(4999, 6000.0)
    assert observer.latencies == [1001.0]
