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

"""Alignment of two modalities from what both show, and the watch for what is left of it."""

import math

import cv2
import numpy as np
import pytest

from dig2dig_ros.evaluation.image_pairs import find_pairs, load_pair
from dig2dig_ros.images.alignment import (
    align,
    corner_distance,
    default_guess,
    misalignment,
    MisalignmentMonitor,
    SearchRange,
)
from dig2dig_ros.images.geometry import RegistrationError


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


def homography(rotation, scale, shift, size=(160, 120), perspective=(0.0, 0.0)):
    """Return thermal to visible: degrees, factor and pixels about the centre."""
    cx, cy = (size[0] - 1) / 2, (size[1] - 1) / 2
    cosine, sine = (f(math.radians(rotation)) * scale for f in (math.cos, math.sin))
    centre = np.array([[1, 0, -cx], [0, 1, -cy], [0, 0, 1]])
    about = np.array([[cosine, -sine, 0], [sine, cosine, 0], [*perspective, 1]])
    back = np.array([[1, 0, cx + shift[0]], [0, 1, cy + shift[1]], [0, 0, 1]])
    result = back @ about @ centre
    return result / result[2, 2]


def seen(thermal, matrix, size=None):
    """Return what the thermal camera sees, and the mask of where that is known."""
    size = size or thermal.shape[1::-1]
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    full = np.ones(thermal.shape, np.float32)
    mask = cv2.warpPerspective(full, matrix, size, flags=flags) > 0.999
    return cv2.warpPerspective(thermal, matrix, size, flags=flags), mask


def moved(thermal, dx, dy):
    """Return the image shifted, and the coverage."""
    matrix = np.array([[1, 0, dx], [0, 1, dy]], np.float64)
    size = thermal.shape[1::-1]
    covered = cv2.warpAffine(np.ones(thermal.shape, np.float32), matrix, size)
    return cv2.warpAffine(thermal, matrix, size), covered


def test_finds_a_homography():
    visible, thermal = scene(0)
    truth = homography(3.5, 1.12, (9.0, -6.5), perspective=(1e-4, -5e-5))
    image, mask = seen(thermal, truth)
    found = align([(visible, image)], thermal_mask=mask)
    assert corner_distance(default_guess((160, 120), (160, 120)), truth, (160, 120)) > 10
    assert corner_distance(found.thermal_to_visible, truth, (160, 120)) < 1.5
    assert found.trusted
    assert found.reasons == ()
    assert found.thermal_to_visible[2, 2] == 1
    assert found.margin > 0.38
    assert 0 < found.corner_spread < 2
    assert 0.1 < found.score <= 1


def test_thermal_images_of_another_size_and_shape():
    visible, thermal = scene(1)
    to_half = np.array([[2.0, 0, 0.5], [0, 2.0, 0.5], [0, 0, 1]])
    truth = homography(-2.0, 0.95, (-5.0, 4.0)) @ to_half
    image, mask = seen(cv2.GaussianBlur(thermal, (0, 0), 0.7), truth, (80, 50))
    found = align([(visible, image)], thermal_mask=mask)
    assert corner_distance(found.thermal_to_visible, truth, (80, 50)) < 1


def test_many_pairs_count_together_and_number_types_agree():
    truth = homography(1.5, 1.05, (5.0, 4.0))
    pairs = []
    for seed in (2, 3):
        visible, thermal = scene(seed, shapes=12)
        pairs.append((visible, seen(thermal, truth)[0]))
    search = SearchRange(math.radians(3), 1.1, 0.1)
    found = align(pairs, search=search)
    assert corner_distance(found.thermal_to_visible, truth, (160, 120)) < 1.5
    grey = [(cv2.cvtColor(v, cv2.COLOR_BGR2GRAY), t.astype(np.float64)) for v, t in pairs]
    grey[0][1][:3, :3] = np.nan
    again = align(grey, search=search)
    assert corner_distance(again.thermal_to_visible, truth, (160, 120)) < 1.5


def test_a_guess_and_a_narrow_search():
    visible, thermal = scene(4, (96, 72), 25)
    truth = homography(12.0, 1.0, (14.0, 2.0), (96, 72))
    image, mask = seen(thermal, truth)
    guess = homography(11.0, 1.02, (13.0, 1.0), (96, 72))
    search = SearchRange(math.radians(2), 1.05, 0.05)
    found = align([(visible, image)], guess=guess, search=search, thermal_mask=mask)
    assert corner_distance(found.thermal_to_visible, truth, (96, 72)) < 1.5


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


@pytest.mark.parametrize('images', [blank, noise, stripes, other_scene])
def test_what_cannot_be_aligned_is_not_trusted(images):
    found = align([images(np.random.default_rng(0))])
    assert not found.trusted
    assert found.reasons
    assert np.isfinite(found.thermal_to_visible).all()


def test_the_end_of_the_search_range_is_told():
    visible, thermal = scene(7, (96, 72), 30)
    image, mask = seen(thermal, homography(4.0, 1.0, (0.0, 0.0), (96, 72)))
    search = SearchRange(math.radians(3), 1.05, 0.05)
    found = align([(visible, image)], search=search, thermal_mask=mask)
    assert not found.trusted
    assert any('rotation' in reason and 'nearer guess' in reason for reason in found.reasons)


def test_images_that_cannot_be_searched_are_refused():
    visible, thermal = scene(0, (64, 48))
    with pytest.raises(RegistrationError, match='at least one'):
        align([])
    with pytest.raises(RegistrationError, match='differ in size'):
        align([(visible, thermal), (visible, thermal[:40])])
    with pytest.raises(RegistrationError, match='mask'):
        align([(visible, thermal)], thermal_mask=np.ones((4, 4), np.bool_))


def test_default_guess_keeps_pixels_square():
    guess = default_guess((640, 480), (160, 120))
    np.testing.assert_allclose(guess, [[4, 0, 1.5], [0, 4, 1.5], [0, 0, 1]], atol=1e-9)
    wide = default_guess((1280, 720), (160, 120))
    assert wide[0, 0] == wide[1, 1]
    centre = wide @ [79.5, 59.5, 1]
    np.testing.assert_allclose(centre, [639.5, 359.5, 1])


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
    coverage[:, :70] = 0
    image[:, :70] = scene(11, (192, 144))[1][:, :70]
    found = misalignment(visible, image, coverage)
    assert found.trusted
    assert math.dist(found.shift, (5.0, 3.0)) < 0.5


@pytest.mark.parametrize('images', [blank, noise, stripes, other_scene])
def test_shift_of_what_shows_nothing_in_common_is_not_trusted(images):
    found = misalignment(*images(np.random.default_rng(0)))
    assert not found.trusted
    assert math.isfinite(found.distance)


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


def test_a_real_pair(shared):
    pairs = find_pairs(shared / 'data' / 'roadscene' / 'dev')
    visible, thermal = load_pair(pairs[0])
    size = thermal.shape[1::-1]
    truth = homography(-3.0, 1.1, (30.0, -20.0), size)
    image, mask = seen(thermal, truth)
    found = align([(visible, image)], thermal_mask=mask)
    assert found.trusted
    assert corner_distance(found.thermal_to_visible, truth, size) < 5
    other = align([(load_pair(pairs[5])[0], image)])
    assert not other.trusted
