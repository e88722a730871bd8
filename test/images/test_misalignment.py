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

"""The shift that is left between two images that should lie on each other."""

import math

import cv2
from images.scenes import blank, moved, noise, other_scene, scene, stripes
import numpy as np
import pytest

from dig2dig_ros.images.geometry import RegistrationError
from dig2dig_ros.images.image_pairs import find_pairs, load_pair
from dig2dig_ros.images.misalignment import MisalignmentMonitor


def misalignment(*images):
    return MisalignmentMonitor(1).look(*images)


@pytest.mark.parametrize('shift', [(0.0, 0.0), (6.0, 0.0), (-4.0, 9.5), (2.5, -11.0)])
def test_shift_that_is_left(shift):
    visible, thermal = scene(8, (192, 144))
    image, coverage = moved(thermal, *shift)
    found = misalignment(visible, image, coverage)
    assert found.trusted
    assert math.dist(found.shift, shift) < 0.5
    assert found.distance == pytest.approx(math.hypot(*found.shift))
    assert found.confidence > 5


def test_shift_is_in_pixels_of_the_visible_image():
    visible, thermal = scene(9, (192, 144))
    big = cv2.resize(visible, (768, 576), interpolation=cv2.INTER_LINEAR)
    image, _ = moved(cv2.resize(thermal, (768, 576), interpolation=cv2.INTER_LINEAR), 18.0, -10.0)
    for values in (image, image.astype(np.float32)):
        assert math.dist(misalignment(big, values).shift, (18.0, -10.0)) < 1.5


def test_only_what_is_covered_counts():
    visible, thermal = scene(10, (192, 144))
    image, coverage = moved(thermal, 5.0, 3.0)
    # The larger part, with edges that would fit elsewhere.
    coverage[:, :120] = 0
    image[:, :120] = moved(thermal, -8.0, -6.0)[0][:, :120]
    assert math.dist(misalignment(visible, image).shift, (-8.0, -6.0)) < 0.5
    found = misalignment(visible, image, coverage)
    assert found.trusted
    assert math.dist(found.shift, (5.0, 3.0)) < 0.5


@pytest.mark.parametrize('images', [blank, noise, stripes, other_scene])
def test_shift_of_what_shows_nothing_in_common_is_not_trusted(images):
    found = misalignment(*images(np.random.default_rng(0)))
    assert not found.trusted
    assert math.isfinite(found.distance)


@pytest.mark.parametrize(('part', 'trusted'), [(0.5, False), (0.65, True)])
def test_of_two_shifts_that_fit_alike_none_is_trusted(part, trusted):
    # As a window pane reflects it.
    visible, thermal = scene(9, (192, 144))
    thermal = thermal.astype(np.float32)
    doubled = part * thermal + (1 - part) * np.roll(thermal, 12, axis=1)
    found = misalignment(visible, doubled)
    assert found.confidence > 5
    assert found.trusted == trusted


def test_shift_at_the_end_of_the_search_is_not_trusted():
    visible, thermal = scene(12, (192, 144))
    image, coverage = moved(thermal, 40.0, 0.0)
    assert not misalignment(visible, image, coverage).trusted


def test_several_looks_see_what_one_does_not():
    monitor = MisalignmentMonitor(looks=8)
    random = np.random.default_rng(0)
    single = []
    for index in range(8):
        visible, thermal = scene(20 + index, (192, 144), shapes=6)
        image, coverage = moved(thermal, -6.0, 4.0)
        image = image + random.normal(0, 250, image.shape)
        visible = np.clip(visible + random.normal(0, 40, visible.shape), 0, 255).astype(np.uint8)
        single.append(misalignment(visible, image, coverage).confidence)
        pooled = monitor.look(visible, image, coverage)
    assert pooled.trusted
    assert math.dist(pooled.shift, (-6.0, 4.0)) < 1.5
    assert pooled.confidence > 1.3 * float(np.median(single))


def test_monitor_forgets():
    monitor = MisalignmentMonitor(looks=3)
    visible, thermal = scene(13, (192, 144))
    before, covered = moved(thermal, 6.0, 0.0)
    for _ in range(3):
        monitor.look(visible, before, covered)
    # Two of three looks outvote the oldest.
    monitor.look(visible, thermal)
    assert monitor.look(visible, thermal).distance < 0.5
    monitor.reset()
    assert math.dist(monitor.look(visible, before, covered).shift, (6.0, 0.0)) < 0.5
    # Images of another size start anew.
    small_visible, small_thermal = scene(14, (128, 96))
    assert monitor.look(small_visible, small_thermal).distance < 0.5


def test_images_that_do_not_lie_on_each_other_are_refused():
    visible, thermal = scene(0, (64, 48))
    with pytest.raises(RegistrationError, match='64x40 pixels, but the visible image 64x48'):
        misalignment(visible, thermal[:40])
    with pytest.raises(RegistrationError, match='coverage'):
        misalignment(visible, thermal, np.ones((10, 10), np.float32))


def test_shifts_of_real_pairs(shared):
    pairs = find_pairs(shared / 'data' / 'roadscene' / 'dev')[::5]
    trusted = 0
    for visible, thermal in map(load_pair, pairs):
        # The pairs themselves are off by a pixel or two.
        own = misalignment(visible, thermal)
        assert own.distance < 4
        image, coverage = moved(thermal, -5.0, 3.5)
        found = misalignment(visible, image, coverage)
        left = (found.shift[0] - own.shift[0], found.shift[1] - own.shift[1])
        assert math.dist(left, (-5.0, 3.5)) < 1
        trusted += own.trusted + found.trusted
    assert trusted >= 2 * len(pairs) - 2


@pytest.mark.parametrize('size', [(1, 1), (2, 3), (7, 5)])
def test_images_that_are_too_small_to_tell_are_not_trusted(size):
    image = np.random.default_rng(0).integers(0, 255, size, np.uint8)
    assert not misalignment(image, image).trusted
