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

"""What other processes do does not reach the node: dead and stopped subscribers, huge images."""

from array import array
import signal
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs rclpy')
pytest.importorskip('torch', reason='needs torch')

from domains import next_domain
from soak.process_growth import sample_process

from dig2dig_ros.resources import fast_dds_environment
from integration.harness import environment, MEAN, running

# Of several fragments each, as of a real camera.
WIDTH, HEIGHT = 320, 256
PAIRS = 25
# A subscriber that is reliable, and hears of every image or of the last one.
SUBSCRIBER = """
import os, signal, sys, time
import rclpy
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

def on_image(message):
    # From now on it neither reads nor acknowledges anything.
    print('heard', flush=True)
    os.kill(os.getpid(), getattr(signal, sys.argv[1]))

rclpy.init()
node = rclpy.create_node('subscriber')
history = HistoryPolicy[sys.argv[2]]
qos = QoSProfile(depth=1, history=history, reliability=ReliabilityPolicy.RELIABLE)
node.create_subscription(Image, 'fused/image_raw', on_image, qos)
print('ready', flush=True)
rclpy.spin(node)
"""


@pytest.fixture(scope='module')
def robot():
    """Return (client, the node's process), with shared memory that holds large images."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in fast_dds_environment().items():
            patch.setenv(name, value)
        parameters = {
            'prior': 'nano',
            'warmup_size': [WIDTH, HEIGHT],
            **MEAN,
            # Of a best-effort one, large images may get lost on the way.
            'qos_overrides./visible/image_raw.subscription.reliability': 'reliable',
        }
        with running(next_domain(), parameters) as (client, node):
            client.wait_active()
            client.subscribe('fused/image_raw')
            yield client, node.process


def fuse(client, pairs):
    """Send pairs, each as soon as the one before is fused; fail where one takes long."""
    rng = np.random.default_rng(0)
    visible = rng.integers(0, 200, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    for _ in range(pairs):
        visible[:8] += 1  # not frozen
        before = len(client.received['fused/image_raw'])
        client.send_pair(visible, visible[..., 0])
        client.until(
            lambda seen=before: len(client.received['fused/image_raw']) > seen, what='fused'
        )


@pytest.mark.parametrize(
    ('end', 'history'),
    [('SIGSTOP', 'KEEP_LAST'), ('SIGSTOP', 'KEEP_ALL'), ('SIGKILL', 'KEEP_LAST')],
)
def test_a_subscriber_that_stops_or_dies_holds_nobody_up(robot, end, history):
    client, _ = robot
    fuse(client, 2)
    subscriber = subprocess.Popen(
        [sys.executable, '-c', SUBSCRIBER, end, history],
        env=environment(client.domain),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert subscriber.stdout.readline() == 'ready\n'
        while client.until(lambda: client.visible.get_subscription_count()):
            fuse(client, 1)
            with open(f'/proc/{subscriber.pid}/stat') as stat:
                if stat.read().rpartition(')')[2].split()[0] in 'TZ':
                    break
        assert subscriber.stdout.readline() == 'heard\n'
        fuse(client, PAIRS)
    finally:
        subscriber.send_signal(signal.SIGKILL)
        subscriber.wait()
        subscriber.stdout.close()


def test_images_beyond_max_pixels_are_refused_counted_and_not_kept(robot):
    client, process = robot
    limit = WIDTH * HEIGHT
    assert client.set_parameter('max_pixels', limit) == (True, '')
    fuse(client, 2)
    before = sample_process(process.pid)['private']
    refused = client.counter('dropped: visible malformed')
    message_type = type(client.received['fused/image_raw'][-1])
    huge = message_type(height=2160, width=3840, encoding='mono8', step=3840)
    huge.data = array('B', bytes(2160 * 3840))
    for count in range(1, 11):
        client.send_one('visible', huge)
        client.until(
            lambda due=refused + count: client.counter('dropped: visible malformed') >= due,
            what='refused',
        )
    assert (
        f'3840x2160 is beyond the limit of {limit} pixels'
        in client.diagnose().values['last error']
    )
    # Of 79 MiB that were sent, what the middleware has in its hands.
    assert sample_process(process.pid)['private'] < before + 40
    fuse(client, 2)
