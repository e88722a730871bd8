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

"""Quantiles are those of a sorted list."""

import numpy as np
import pytest

from dig2dig_ros.images.quantiles import nearest_ranks


@pytest.mark.parametrize('shape', [(1,), (7,), (40, 25)])
@pytest.mark.parametrize('parts', [(0.0, 1.0), (0.5,), (0.01, 0.995, 0.025, 0.975)])
def test_they_are_those_of_the_sorted_values_in_the_order_asked_for(shape, parts):
    values = np.random.default_rng(0).normal(0, 10, shape).astype(np.float32)
    before = values.copy()
    ordered = np.sort(values, axis=None)
    expected = [float(ordered[round((values.size - 1) * part)]) for part in parts]
    assert nearest_ranks(values, parts) == expected
    np.testing.assert_array_equal(values, before)
