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

"""Topics that follow from a remapped one, and camera_info that was published once, over DDS."""

import array

import cv2
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from integration.harness import heat, HEIGHT, running, street, WIDTH

REMAPPED = {
    'visible/image_raw': '/camera/image_raw',
    # To the compressed topic itself.
    'thermal/image_raw': '/lwir/image/compressed',
    'nir/image_raw': '/nir_camera/image',
    'swir/image_raw/compressed': '/swir_camera/jpeg',
}
COMPRESSED = {
    'visible': '/camera/image_raw/compressed',
    'thermal': '/lwir/image/compressed',
    'nir': '/nir_camera/image/compressed',
    'swir': '/swir_camera/jpeg',
}


def test_compressed_images_and_latched_camera_info_beside_a_remapped_base_are_heard(domain):
    remaps = [word for name, to in REMAPPED.items() for word in ('-r', f'{name}:={to}')]
    parameters = {
        'prior': 'nano',
        'autostart': False,
        'additional_sources': ['nir', 'swir'],
        'stale_timeout': 0.5,
        **{f'{source}_transport': 'compressed' for source in COMPRESSED},
    }
    latched = QoSProfile(
        depth=1,
        reliability=ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL,
    )
    with running(domain, parameters, remaps) as (client, process):
        assert client.change_state('configure')
        assert client.change_state('activate')
        client.subscribe('fused/camera_info', CameraInfo)
        client.until(lambda: 'none came on /camera/camera_info' in client.text)
        # Images that are there, but raw.
        raw = [
            client.node.create_publisher(Image, topic, client.reliable)
            for topic in ('/camera/image_raw', '/lwir/image/compressed')
        ]
        for expected in (
            '(publishers: 0, but 1 on /camera/image_raw: set visible_transport: raw)',
            '(publishers: 1 of sensor_msgs/msg/Image: set thermal_transport: raw)',
        ):
            client.until(lambda text=expected: text in client.text, what=expected)
        for publisher in raw:
            client.node.destroy_publisher(publisher)
        # Before the node listens: a calibration is published once.
        assert client.change_state('deactivate')
        infos = client.node.create_publisher(CameraInfo, '/camera/camera_info', latched)
        infos.publish(CameraInfo(width=2 * WIDTH, height=2 * HEIGHT, binning_x=2, binning_y=2))
        cameras = {
            source: client.node.create_publisher(CompressedImage, topic, client.reliable)
            for source, topic in COMPRESSED.items()
        }
        assert client.change_state('activate')
        client.subscribe('fused/image_raw')
        for source, camera in cameras.items():
            client.until(camera.get_subscription_count, what=f'{source} subscribed')
        data = {
            'visible': ('bgr8; jpeg', cv2.imencode('.jpg', street())[1]),
            'thermal': ('mono16; png', cv2.imencode('.png', heat())[1]),
        }

        def fused_with_its_info():
            header = client.header()
            for source, camera in cameras.items():
                form, coded = data.get(source, data['thermal'])
                bytes_ = array.array('B', coded.tobytes())
                camera.publish(CompressedImage(header=header, format=form, data=bytes_))
            client.spin(0.4)
            headers = [message.header for message in client.received['fused/image_raw']]
            return next(
                (m for m in client.received['fused/camera_info'] if m.header in headers), None
            )

        info = client.until(fused_with_its_info)
        assert (info.width, info.binning_x) == (2 * WIDTH, 2)
        assert client.diagnose().values['camera_info'] == (
            f'that of /camera/camera_info, for {WIDTH}x{HEIGHT} pixels '
            f'({2 * WIDTH}x{2 * HEIGHT}, binned 2x2)'
        )
        declared = client.parameters()
        durability = 'qos_overrides./camera/camera_info.subscription.durability'
        assert declared[durability][0] == 'volatile'
        assert process.process.poll() is None, process.output()
    assert 'incompatible' not in process.output(), process.output()
