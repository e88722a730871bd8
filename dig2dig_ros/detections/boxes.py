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

"""
Boxes in images, and how they overlap.

Boxes are (n, 4) float64 arrays of x1, y1, x2, y2 in pixels of the full image, x2 and y2 one past
the last pixel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Per image, as in COCO.
MAX_DETECTIONS = 100


@dataclass(frozen=True)
class Detections:
    """
    What a detector found in one image, best first.

    :param boxes: (n, 4).
    :param scores: (n,) in [0, 1], not increasing.
    """

    boxes: Array
    scores: Array


def corners(boxes: Array) -> Array:
    """Return corners of (n, 4) boxes given by centre and size."""
    half = boxes[:, 2:4] / 2
    return np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1)


def area(boxes: Array) -> Array:
    """Return the areas (n,) of boxes (n, 4)."""
    sides: Array = np.clip(boxes[:, 2:] - boxes[:, :2], 0.0, None)
    return sides[:, 0] * sides[:, 1]


def intersection(first: Array, second: Array) -> Array:
    """Return the areas (n, m) that boxes (n, 4) and boxes (m, 4) share."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    sides: Array = np.clip(high - low, 0.0, None)
    return sides[..., 0] * sides[..., 1]


def divide(numerator: Array, denominator: Array) -> Array:
    """Divide, with 0 where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)


def intersection_over_union(first: Array, second: Array) -> Array:
    """
    Return the overlap of every box of one set with every box of another.

    :param first: (n, 4).
    :param second: (m, 4).
    :return: (n, m) in [0, 1]; 0 where both boxes are empty.
    """
    shared = intersection(first, second)
    return divide(shared, area(first)[:, None] + area(second)[None] - shared)


def suppress(boxes: Array, scores: Array, iou: float, limit: int = MAX_DETECTIONS) -> NDArray[Any]:
    """
    Greedy non-maximum suppression among boxes of one class.

    :param boxes: (n, 4).
    :param scores: (n,).
    :param iou: a box that overlaps a better one by more is dropped.
    :param limit: the most boxes to keep.
    :return: indices of the kept boxes, best first.
    """
    order = np.argsort(-scores, kind='stable')
    kept: list[int] = []
    while len(order) and len(kept) < limit:
        best = order[0]
        kept.append(int(best))
        others = order[1:]
        overlap = intersection_over_union(boxes[best][None], boxes[others])[0]
        order = others[overlap <= iou]
    return np.asarray(kept, dtype=np.intp)
