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

"""How far persons stand out from their surroundings: visibility for people, not detectors."""

from __future__ import annotations

import numpy as np

from dig2dig_ros.detections.boxes import Array
from dig2dig_ros.evaluation.metrics import luma
from dig2dig_ros.evaluation.scores import Image

# Width and height of the ring around a box, as parts of those of the box.
RING = 1.5


def person_contrast(image: Image, boxes: Array) -> Array:
    """
    Return the mean luma inside boxes minus that of the rings around them.

    A ring is the box, :data:`RING` times as wide and as high about the same centre, without the
    box, and without the boxes of other persons.

    :param image: (H, W, 3) uint8 in blue-green-red order, or (H, W).
    :param boxes: (n, 4).
    :return: (n,) in grey levels, above 0 where a person is the brighter part; NaN where box or
        ring has no pixel.
    """
    grey = luma(image)
    height, width = grey.shape
    centres, halves = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
    around = np.concatenate([centres - RING * halves, centres + RING * halves], axis=1)
    limits = (width, height, width, height)
    inner, outer = (np.clip(np.rint(own), 0, limits).astype(int) for own in (boxes, around))
    outside = np.ones(grey.shape, dtype=bool)
    for left, top, right, bottom in inner:
        outside[top:bottom, left:right] = False
    contrasts = np.full(len(boxes), np.nan)
    for index, (own, ring) in enumerate(zip(inner, outer, strict=True)):
        person = grey[own[1] : own[3], own[0] : own[2]]
        window = slice(ring[1], ring[3]), slice(ring[0], ring[2])
        around = grey[window][outside[window]]
        if person.size and around.size:
            contrasts[index] = person.mean() - around.mean()
    return contrasts
