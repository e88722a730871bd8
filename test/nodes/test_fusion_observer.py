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

"""How long after its pair a fused image comes."""

import pytest

pytest.importorskip('rclpy', reason='needs rclpy')

from dig2dig_ros.nodes.fusion_observer import Latencies


def test_latency_counts_from_the_later_image():
    latencies = Latencies()
    latencies.published('visible', 100, 1.0)
    latencies.published('thermal', 60, 0.9)
    latencies.published('thermal', 110, 1.25)
    latencies.published('thermal', 190, 1.4)
    latencies.fused(100, 1.5)
    assert latencies.seconds == [0.25]
    latencies.published('visible', 200, 2.0)
    latencies.fused(200, 2.125)  # whose thermal image came first
    assert latencies.seconds == [0.25, 0.125]


def test_fused_images_of_unknown_stamps_are_not_timed():
    latencies = Latencies()
    latencies.published('visible', 100, 1.0)
    latencies.fused(100, 1.5)  # without any thermal image
    latencies.published('thermal', 100, 1.0)
    latencies.fused(101, 1.5)
    assert latencies.seconds == []
    latencies.start_over()
    latencies.fused(100, 2.5)
    assert latencies.seconds == []


def test_latencies_keep_no_more_than_the_latest_stamps():
    latencies = Latencies()
    for stamp in range(5000):
        for source in ('visible', 'thermal'):
            latencies.published(source, stamp, float(stamp))
    latencies.fused(0, 6000.0)
    latencies.fused(4999, 6000.0)
    assert latencies.seconds == [1001.0]
