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

"""The node with a third camera, over real DDS."""

from diagnostic_msgs.msg import DiagnosticStatus
import numpy as np
from sensor_msgs.msg import Image

from dig2dig_ros.streams.codec import decode, encode
from integration.harness import HEIGHT, running, WIDTH

TOPICS = ('fused/weights/visible', 'fused/weights/thermal', 'fused/weights/nir')


def foliage():
    """Return 16-bit near-infrared counts with a texture in the left half alone."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    texture = 400 * ((rows // 4 + columns // 4) % 2) * (columns < WIDTH // 2)
    return (3000 + texture).astype(np.uint16)


def test_three_sources_are_fused_and_a_silent_one_is_named(domain):
    parameters = {
        'additional_sources': ['nir'],
        'queue_size': 3,
        'weights_encoding': '32FC1',
        'qos_overrides./nir/image_raw.subscription.reliability': 'reliable',
    }
    with running(domain, parameters) as (client, process):
        client.wait_active()

        # Two cameras alone: nothing is fused, and diagnostics say for want of what.
        for _ in range(60):
            if client.counter('dropped: nir missing') >= 2:
                break
            client.send_pair()
            client.spin(0.3)
        assert client.counter('dropped: nir missing') >= 2, client.values
        client.until(lambda: 'no nir image on /nir/image_raw' in client.text)
        assert client.level == DiagnosticStatus.WARN
        assert client.text.endswith('yet (publishers: 0)')
        assert (client.counter('pairs'), client.counter('fused')) == (0, 0)

        # The parameters that came with the name.
        declared = client.parameters()
        assert declared['additional_sources'][0] == ['nir']
        assert declared['nir_transport'][0] == 'raw'
        qos = 'qos_overrides./nir/image_raw.subscription.reliability'
        assert declared[qos][0] == 'reliable'
        successful, reason = client.set_parameter('additional_sources', ['swir'])
        assert (successful, 'fixed while the node is active' in reason) == (False, True)

        # All three: the weights of one stamp sum to 1 at every pixel.
        nir = client.node.create_publisher(Image, 'nir/image_raw', client.reliable)
        client.until(nir.get_subscription_count, 60)
        outputs = (*TOPICS, 'fused/weights/overlay', 'fused/image_raw')
        for topic in outputs:
            client.subscribe(topic)
        client.until(lambda: all(map(client.node.count_publishers, outputs)), 60)

        def complete():
            """Return the messages of one stamp, once all topics have one."""
            for fused in client.received['fused/image_raw']:
                of_stamp = [
                    next((m for m in client.received[topic] if m.header == fused.header), None)
                    for topic in (*TOPICS, 'fused/weights/overlay')
                ]
                if None not in of_stamp:
                    return fused, of_stamp
            return None

        for _ in range(60):
            header = client.send_pair()
            milliseconds = header.stamp.sec * 1000 + header.stamp.nanosec // 1_000_000
            late = client.header(milliseconds + 5, 'nir_optical_frame')
            nir.publish(encode(foliage(), 'mono16', late, Image))
            client.spin(0.4)
            if complete():
                break
        assert complete(), client.values
        assert client.node.count_publishers('nir/restored/image_raw') == 1
        fused, (*maps, overlay) = complete()
        assert (fused.width, fused.height, fused.encoding) == (WIDTH, HEIGHT, 'bgr8')
        assert fused.header.frame_id == 'visible_optical_frame'
        assert (overlay.width, overlay.encoding) == (WIDTH, 'bgr8')
        weights = np.stack([decode(message) for message in maps])
        assert weights.shape == (3, HEIGHT, WIDTH)
        np.testing.assert_allclose(weights.sum(axis=0), 1, atol=1e-5)
        # Each of the three counts, by what it shows, and the third where it has something.
        assert weights.min() > 0
        assert (weights.std(axis=(1, 2)) > 1e-3).all()
        left, right = np.split(weights[2], 2, axis=1)
        assert left.mean() > right.mean() + 0.1

        client.until(lambda: client.counter('fused') >= 1)
        assert client.counter('nir received') >= 1
        assert client.counter('dropped: fusion error') == 0
        assert process.process.poll() is None, process.output()
    assert 'nir' in process.output().splitlines()[-1], process.output()
    assert 'Traceback' not in process.output()
