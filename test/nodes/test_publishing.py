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


"""What the node publishes is made only while somebody listens to it."""

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs rclpy')
pytest.importorskip('torch', reason='needs torch')

from builtin_interfaces.msg import Time
import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import CompressedImage, Image

from dig2dig_ros.fusion.fuser import FusionResult
from dig2dig_ros.nodes import publishing
from dig2dig_ros.nodes.publishing import Outputs
from dig2dig_ros.streams.codec import decode_compressed
from dig2dig_ros.streams.pairing import SOURCES
from dig2dig_ros.streams.parameters import complete_values

pytestmark = pytest.mark.integration

VALUES = complete_values({'compressed_format': 'png'})
IMAGE = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)


@pytest.fixture
def side(domain, monkeypatch):
    """Return a node with its outputs, and a function that waits for a condition."""
    monkeypatch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    context = Context()
    rclpy.init(args=[], context=context, domain_id=domain)
    node = LifecycleNode('fusion_node', context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    outputs = Outputs(node, SOURCES)
    node.trigger_configure()
    node.trigger_activate()

    def until(condition):
        for _ in range(200):
            if condition():
                return
            executor.spin_once(timeout_sec=0.05)
        raise AssertionError('it did not come')

    yield node, outputs, until
    outputs.close()
    executor.shutdown()
    node.destroy_node()
    rclpy.try_shutdown(context=context)


def frame(weights=()):
    """Return a fused frame without camera_info; ``weights`` of both sources."""
    shares = np.asarray(weights, np.float32)
    result = FusionResult(
        image=IMAGE, weights=shares, contributions=shares, prior_calls=2, seconds=0.01
    )
    return SimpleNamespace(
        result=result,
        prepared=SimpleNamespace(present=(True, True)),
        header=SimpleNamespace(stamp=Time(sec=7)),
        frame_id='visible_optical_frame',
        camera_info=None,
    )


def test_nothing_is_compressed_for_nobody(side, monkeypatch):
    node, outputs, until = side
    made = []
    compress = publishing.encode_compressed
    monkeypatch.setattr(
        publishing, 'encode_compressed', lambda *a, **k: made.append(a) or compress(*a, **k)
    )
    raw, compressed = [], []
    node.create_subscription(Image, 'fused/image_raw', raw.append, 5)
    topic = 'fused/image_raw/compressed'
    until(lambda: node.count_publishers('fused/image_raw'))

    def is_published(messages):
        outputs.publish(frame(), VALUES)
        return messages

    until(lambda: is_published(raw))
    assert made == []
    subscription = node.create_subscription(CompressedImage, topic, compressed.append, 5)
    until(lambda: is_published(compressed))
    assert compressed[0].header.stamp.sec == 7
    assert compressed[0].header.frame_id == 'visible_optical_frame'
    np.testing.assert_array_equal(decode_compressed(compressed[0]), IMAGE)
    node.destroy_subscription(subscription)
    until(lambda: not node.count_subscribers(topic))
    before = len(made)
    assert before
    outputs.publish(frame(), VALUES)
    assert len(made) == before


def test_who_listens_to_a_compressed_image_needs_what_it_is_made_of(side):
    node, outputs, until = side
    assert not outputs.wants_weights()
    seen = []
    topic = 'fused/weights/overlay/compressed'
    node.create_subscription(CompressedImage, topic, seen.append, 5)
    until(outputs.wants_weights)
    weights = np.stack([np.zeros((6, 8)), np.ones((6, 8))])

    def is_published():
        outputs.publish(frame(weights), VALUES)
        return seen

    until(is_published)
    assert decode_compressed(seen[0]).shape == IMAGE.shape
    assert not outputs.wants_restored()
    node.create_subscription(
        CompressedImage, 'thermal/restored/image_raw/compressed', seen.append, 5
    )
    until(outputs.wants_restored)
