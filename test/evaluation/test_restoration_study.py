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

"""What a degraded camera gives, and what OpenCV restores of it."""

import cv2
import numpy as np
import pytest

from dig2dig_ros.evaluation.restoration_study import degrade, restored_first
from dig2dig_ros.fusion.degradation import Degradation


def test_cameras():
    image = np.random.default_rng(1).integers(0, 255, (60, 80, 3), np.uint8)

    def camera(text, seed=0):
        return degrade(image, Degradation.parse(text), np.random.default_rng(seed))

    assert np.array_equal(camera('none'), image)
    assert camera('x2.5').shape == (24, 32, 3)
    expected = cv2.resize(image, (40, 30), interpolation=cv2.INTER_AREA)
    assert np.abs(camera('x2').astype(int) - expected).max() <= 1
    noise = camera('blur 3, noise 5').astype(float) - camera('blur 3')
    # Independent in the channels, and the same every time.
    assert noise.std() == pytest.approx(5, rel=0.05)
    assert abs(np.corrcoef(noise[..., 0].ravel(), noise[..., 1].ravel())[0, 1]) < 0.1
    assert np.array_equal(camera('noise 5'), camera('noise 5'))
    assert not np.array_equal(camera('noise 5'), camera('noise 5', seed=1))


def test_restoring_first():
    flat = np.full((48, 64), 100, np.uint8)
    degradations = [Degradation(noise=10), Degradation(noise=10, factor=2)]
    noisy = [
        degrade(flat, degradation, np.random.default_rng(index))
        for index, degradation in enumerate(degradations)
    ]
    restored = restored_first(noisy, degradations, 1.0)
    assert [image.shape for image in restored] == [(48, 64)] * 2
    for image, before in zip(restored, noisy, strict=True):
        assert image.std() < 0.5 * before.std()
    assert restored_first(noisy, degradations, 0.0)[0] is noisy[0]
