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

"""Scenes as two cameras see them, for the tests of alignment."""

import cv2
import numpy as np


def scene(seed, size=(160, 120), shapes=40):
    """Return the same shapes as two cameras see them: brightness and temperature are unrelated."""
    random = np.random.default_rng(seed)
    width, height = size
    visible = np.full((height, width, 3), 90, np.uint8)
    thermal = np.full((height, width), 8000, np.uint16)
    for _ in range(shapes):
        x, y = int(random.integers(width)), int(random.integers(height))
        w, h = (int(side) for side in random.integers(5, width // 5, 2))
        colour = tuple(int(value) for value in random.integers(0, 255, 3))
        heat = int(random.integers(7600, 8600))
        if random.random() < 0.6:
            cv2.rectangle(visible, (x, y), (x + w, y + h), colour, -1)
            cv2.rectangle(thermal, (x, y), (x + w, y + h), heat, -1)
        else:
            cv2.circle(visible, (x, y), w // 2, colour, -1)
            cv2.circle(thermal, (x, y), w // 2, heat, -1)
    noise = random.normal(0, 4, thermal.shape)
    return visible, (thermal + noise).round().astype(np.uint16)


def moved(thermal, dx, dy):
    """Return the image shifted, and the coverage."""
    matrix = np.array([[1, 0, dx], [0, 1, dy]], np.float64)
    size = thermal.shape[1::-1]
    covered = cv2.warpAffine(np.ones(thermal.shape, np.float32), matrix, size)
    return cv2.warpAffine(thermal, matrix, size), covered


def blank(random):
    return np.zeros((48, 64, 3), np.uint8), np.zeros((48, 64), np.uint8)


def noise(random):
    return (
        random.integers(0, 255, (72, 96, 3), dtype=np.uint8),
        random.integers(0, 255, (72, 96), dtype=np.uint8),
    )


def stripes(random):
    image = np.tile(((np.sin(np.arange(96) * 0.6) + 1) * 120).astype(np.uint8), (72, 1))
    return cv2.merge([image] * 3), 255 - image


def other_scene(random):
    return scene(5, (96, 72))[0], scene(6, (96, 72))[1]
