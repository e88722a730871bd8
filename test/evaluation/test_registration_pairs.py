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

from dig2dig_ros.evaluation.registration_pairs import from_directory
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
