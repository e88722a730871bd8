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

"""Differences between two fusions of one video, on videos whose differences are known."""

import math

import numpy as np
import pytest

from dig2dig_ros.evaluation.temporal import MotionMask, VideoDifference

SIZE = (64, 96)


def wall():
    rows, columns = np.indices(SIZE)
    return np.uint8(100 + 30 * np.sin(columns / 6) + 10 * (rows // 8 % 2))


def with_block(column, level=220):
    image = wall()
    image[20:40, column : column + 12] = level
    return image


def test_what_moved_is_found_with_its_surroundings_in_any_source():
    for still_first in (True, False):
        mask = MotionMask(2)
        videos = [[wall(), with_block(column)] for column in (10, 30, 30, 30)]
        found = [mask(pair if still_first else pair[::-1]) for pair in videos]
        assert not found[0].any()
        assert found[1][20:40, 10:42].all()
        assert not found[1][:, 70:].any()
        assert found[2].any()  # two pairs ago it stood elsewhere
        assert not found[3].any()


def test_noise_does_not_move():
    rng = np.random.default_rng(0)
    mask = MotionMask(3)
    for _ in range(4):
        noisy = np.uint8(np.clip(wall() + rng.normal(0, 4, SIZE), 0, 255))
        assert not mask([noisy]).any()


def test_an_image_of_another_size_begins_anew():
    mask = MotionMask(3)
    mask([wall()])
    assert not mask([wall()[:50] + np.uint8(40)]).any()
    assert mask([wall()[:50]]).all()


def test_differences_where_something_moved_and_where_nothing_did():
    moved = np.zeros(SIZE, bool)
    moved[:, :48] = True
    difference = VideoDifference()
    reference = wall()
    fused = reference + np.where(moved, 10, 2).astype(np.uint8)
    difference.add(fused, reference, moved)
    difference.add(fused + np.uint8(1), reference + np.uint8(1), moved)
    assert difference.ghosting == pytest.approx((10, 10))
    assert difference.still == pytest.approx(2)
    assert difference.flicker == pytest.approx(1)
    assert difference.psnr == pytest.approx(10 * math.log10(255**2 / 52))
    assert 0.5 < difference.ssim < 1


def test_no_difference_and_nothing_that_moved():
    difference = VideoDifference()
    for _ in range(2):
        difference.add(wall(), wall(), np.zeros(SIZE, bool))
    assert difference.psnr == math.inf
    assert difference.ssim == pytest.approx(1)
    assert difference.still == difference.flicker == 0
    assert all(math.isnan(value) for value in difference.ghosting)
