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

"""Pairs of a directory, as a registration is found from them."""

import cv2
import numpy as np
import pytest

from dig2dig_ros.evaluation.registration_pairs import from_bag, from_directory
from dig2dig_ros.streams.parameters import complete_values


def test_rows_that_are_no_image_take_no_part(tmp_path):
    counts = np.arange(7000, 7000 + 12 * 16, dtype=np.uint16).reshape(12, 16)
    telemetry = np.full((2, 16), 60000, np.uint16)
    for source, image in {
        'visible': np.zeros((12, 16, 3), np.uint8),
        'thermal': np.vstack([telemetry[:1], counts, telemetry]),
    }.items():
        (tmp_path / source).mkdir()
        assert cv2.imwrite(str(tmp_path / source / 'one.png'), image)
    values = complete_values({'thermal_crop': [1, 2], 'thermal_range_percentiles': [0.0, 100.0]})
    (pair,) = from_directory(tmp_path, 5, values).pairs
    expected = (counts - 7000.0) / (12 * 16 - 1)
    np.testing.assert_allclose(pair.thermal, expected, atol=0.01)


def test_images_of_one_name_space_have_one_camera_info(tmp_path):
    files = pytest.importorskip('bag_files', reason='needs rosbags and mcap')
    colour, grey = np.zeros((48, 64, 3), np.uint8), np.zeros((48, 64), np.uint8)
    grey[12:36, 16:48] = 200
    messages = [('/rig/camera_info', files.camera_info(files.START, 64, 48), files.START)]
    for number in range(3):
        stamp = files.START + number * files.SECOND // 10
        messages.append(('/rig/image_rgb', files.image(stamp, colour), stamp))
        messages.append(('/rig/image_thermal', files.image(stamp, grey), stamp))
    files.write_bag(tmp_path / 'bag', 'mcap', messages)
    infos = from_bag(tmp_path / 'bag', 4, complete_values({})).infos
    assert {camera: info.width for camera, info in infos.items()} == {'visible': 64, 'thermal': 64}
