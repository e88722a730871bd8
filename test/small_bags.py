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
"""Small bags of a visible and a thermal camera, for tests that play them."""

from types import SimpleNamespace

from evaluation.bag_files import camera_info, compressed_image, header, START
import numpy as np

from dig2dig_ros.evaluation.bag_writer import BagWriter, image_message

WIDTH, HEIGHT = 64, 48
PERIOD = 250_000_000
# After the exposure, a driver has an image later; the recorder writes down when it came.
DELAY = 10_000_000


def stamps(count=6):
    """Return the stamps of the visible images."""
    return [START + index * PERIOD for index in range(count)]


def write_bag(path, storage='sqlite3', count=6, compressed=False, unknown=False):
    """
    Write ``count`` pairs, four a second, and return ``path``.

    :param compressed: the visible images are JPEG.
    :param unknown: with a topic of a type that no ROS installation here has.
    """
    rng = np.random.default_rng(0)
    visible = '/camera/image_raw' + ('/compressed' if compressed else '')
    image = 'sensor_msgs/msg/Image'
    with BagWriter(path, storage) as bag:
        bag.add_topic(visible, 'sensor_msgs/msg/CompressedImage' if compressed else image)
        bag.add_topic('/thermal/image_raw', image)
        bag.add_topic('/camera/camera_info', 'sensor_msgs/msg/CameraInfo')
        if unknown:
            bag.add_topic('/detections', 'vision_msgs/msg/Point2D')
        for stamp in stamps(count):
            frame = 'visible_optical_frame'
            colour = rng.integers(0, 200, (HEIGHT, WIDTH, 3), dtype=np.uint8)
            heat = rng.integers(7000, 9000, (HEIGHT, WIDTH), dtype=np.uint16)
            info = camera_info(stamp, WIDTH, HEIGHT, frame)
            bag.write('/camera/camera_info', info, stamp + DELAY - 1_000_000)
            if compressed:
                message = compressed_image(stamp, colour, 'jpeg', frame)
            else:
                message = image_message(colour, 'bgr8', header(stamp, frame))
            bag.write(visible, message, stamp + DELAY)
            late = header(stamp + 4_000_000, 'thermal_optical_frame')
            message = image_message(heat, 'mono16', late)
            bag.write('/thermal/image_raw', message, stamp + DELAY + 8_000_000)
            if unknown:
                bag.write('/detections', SimpleNamespace(x=1.0, y=2.0), stamp + DELAY)
    return path
