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

"""Overlap of boxes, and non-maximum suppression."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
import pytest

from dig2dig_ros.detections.boxes import intersection_over_union, suppress


def boxes_of(boxes: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    return np.array(boxes, dtype=np.float64).reshape(-1, 4)


def test_intersection_over_union() -> None:
    overlap = intersection_over_union(
        boxes_of([[0, 0, 10, 10], [5, 5, 5, 5]]), boxes_of([[5, 0, 15, 10], [20, 20, 30, 30]])
    )
    assert overlap == pytest.approx(np.array([[1 / 3, 0], [0, 0]]))
    assert intersection_over_union(boxes_of([]), boxes_of([[0, 0, 1, 1]])).shape == (0, 1)


def test_suppression_keeps_the_best_of_what_overlaps() -> None:
    boxes = boxes_of([[0, 0, 10, 60], [0, 0, 10, 100], [0, 0, 10, 59], [50, 0, 60, 10]])
    scores = np.array([0.5, 0.9, 0.6, 0.1])
    # An overlap of exactly the limit is allowed.
    assert suppress(boxes, scores, 0.6).tolist() == [1, 2, 3]
    assert suppress(boxes, scores, 0.5).tolist() == [1, 3]
    assert suppress(boxes, scores, 0.6, limit=1).tolist() == [1]
    assert suppress(boxes_of([]), np.zeros(0), 0.6).tolist() == []
