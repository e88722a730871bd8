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

import cv2
import numpy as np
from rosbags.typesys import get_typestore, Stores

from dig2dig_ros.evaluation.bags import BagWriter, image_message

WIDTH, HEIGHT = 64, 48
START = 1_700_000_000_000_000_000
PERIOD = 250_000_000
# After the exposure, a driver has an image later; the recorder writes down when it came.
DELAY = 10_000_000
_TYPES = get_typestore(Stores.ROS2_HUMBLE).types


def header(stamp, frame):
    time = _TYPES['builtin_interfaces/msg/Time'](stamp // 10**9, stamp % 10**9)
    return _TYPES['std_msgs/msg/Header'](time, frame)


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
            above = header(stamp, 'visible_optical_frame')
            colour = rng.integers(0, 200, (HEIGHT, WIDTH, 3), dtype=np.uint8)
            heat = rng.integers(7000, 9000, (HEIGHT, WIDTH), dtype=np.uint16)
            bag.write('/camera/camera_info', _camera_info(above), stamp + DELAY - 1_000_000)
            if compressed:
                data = cv2.imencode('.jpg', colour)[1].ravel()
                message = _TYPES['sensor_msgs/msg/CompressedImage'](above, 'jpeg', data)
            else:
                message = image_message(colour, 'bgr8', above)
            bag.write(visible, message, stamp + DELAY)
            late = header(stamp + 4_000_000, 'thermal_optical_frame')
            message = image_message(heat, 'mono16', late)
            bag.write('/thermal/image_raw', message, stamp + DELAY + 8_000_000)
            if unknown:
                bag.write('/detections', SimpleNamespace(x=1.0, y=2.0), stamp + DELAY)
    return path


def _camera_info(above):
    region = _TYPES['sensor_msgs/msg/RegionOfInterest'](0, 0, 0, 0, False)
    matrix = np.eye(3).ravel()
    return _TYPES['sensor_msgs/msg/CameraInfo'](
        above,
        HEIGHT,
        WIDTH,
        'plumb_bob',
        np.zeros(5),
        matrix,
        matrix,
        np.zeros(12),
        0,
        0,
        region,
    )
