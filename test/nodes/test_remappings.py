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

"""What is said of remappings that rename nothing, for the names that ROS accepts."""

import pytest

pytest.importorskip('rclpy', reason='needs rclpy')

import rclpy
from rclpy.context import Context
from rclpy.node import Node

from dig2dig_ros.nodes.camera_topics import input_topics
from dig2dig_ros.nodes.publishing import output_topics
from dig2dig_ros.nodes.remappings import stray_remappings
from dig2dig_ros.streams.pairing import SOURCES

pytestmark = pytest.mark.integration

TOPICS = [*input_topics(SOURCES), *output_topics(SOURCES)]


@pytest.fixture(params=['/', '/robot'])
def node(request, domain, monkeypatch):
    monkeypatch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    context = Context()
    rclpy.init(args=[], context=context, domain_id=domain)
    node = Node('fusion_node', context=context, namespace=request.param)
    yield node
    node.destroy_node()
    rclpy.try_shutdown(context=context)


def test_what_the_node_has_may_be_remapped(node):
    names = [
        *('visible/image_raw', 'thermal/image_raw/compressed', 'thermal/camera_info'),
        *('fused/image_raw', 'fused/weights/overlay/compressed', 'fused/weights/thermal'),
        *('fusion_node:visible/image_raw', 'rostopic://visible/image_raw'),
        *('/tf', '/diagnostics', '__node', '__ns', '~/get_state', 'rosservice://other'),
        *('*/image_raw', 'other_node:no/topic', node.resolve_topic_name('visible/image_raw')),
    ]
    words = [word for name in names for word in ('-r', f'{name}:=/to')]
    assert stray_remappings(node, ['node', '--ros-args', *words], TOPICS) == []


@pytest.mark.parametrize(
    ('remapping', 'hint'),
    [
        ('visibel/image_raw:=/x', '; did you mean visible/image_raw?'),
        ('fusion_node:thermal/image:=/x', '; did you mean thermal/image_raw?'),
        (
            '/camera/image:=visible/image_raw',
            '; did you mean -r visible/image_raw:=/camera/image?',
        ),
        ('quaternion:=/x', ''),
    ],
)
def test_what_it_does_not_have_is_said_with_what_was_meant(node, remapping, hint):
    (text,) = stray_remappings(node, ['--ros-args', '--remap', remapping], TOPICS)
    name = remapping.partition(':=')[0].removeprefix('fusion_node:')
    given = remapping.removeprefix('fusion_node:')
    assert text == f'-r {given} has no effect: this node has no topic {name}{hint}'


def test_a_full_name_is_one_outside_of_a_namespace(node):
    said = stray_remappings(node, ['-r', '/visible/image_raw:=/x'], TOPICS)
    if node.get_namespace() == '/':
        assert said == []
    else:
        assert said[0].endswith('; did you mean visible/image_raw?')
