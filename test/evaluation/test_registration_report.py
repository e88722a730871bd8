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

"""Pictures to judge a registration by; the overlay as a whole in test_calibrate_registration."""

import numpy as np
import pytest

from dig2dig_ros.evaluation.registration_report import edge_picture


@pytest.mark.parametrize('covered', [0.0, 1.0])
def test_thermal_image_without_edges_gets_no_lines(covered: float) -> None:
    flat = np.full((48, 64), 90, np.uint8)
    coverage = np.full((48, 64), covered, np.float32)
    picture = edge_picture(flat, flat.astype(np.float32), coverage)
    assert picture.shape == (48, 64, 3)
    assert (picture == picture[:1, :1]).all()
