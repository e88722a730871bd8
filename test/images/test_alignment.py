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

"""Alignment of two modalities from what both show."""

import math

import cv2
from images.scenes import blank, noise, other_scene, scene, stripes
import numpy as np
import pytest

from dig2dig_ros.images.alignment import align, corner_distance
from dig2dig_ros.images.alignment_search import centred_guess, SearchRange
from dig2dig_ros.images.geometry import RegistrationError
from dig2dig_ros.images.image_pairs import find_pairs, load_pair


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


@pytest.mark.slow
def test_finds_a_homography():
    visible, thermal = scene(0)
    truth = homography(3.5, 1.12, (9.0, -6.5), perspective=(1e-4, -5e-5))
    image, mask = seen(thermal, truth)
    found = align([(visible, image)], thermal_mask=mask)
    assert corner_distance(centred_guess((160, 120), (160, 120)), truth, (160, 120)) > 10
    assert corner_distance(found.thermal_to_visible, truth, (160, 120)) < 1.5
    assert found.trusted
    assert found.reasons == ()
    assert found.thermal_to_visible[2, 2] == 1
    assert found.margin > 0.38
    assert 0 < found.uncertainty.total < 3
    assert 0.1 < found.score <= 1


@pytest.mark.slow
def test_thermal_images_of_another_size_and_shape():
    visible, thermal = scene(1)
    to_half = np.array([[2.0, 0, 0.5], [0, 2.0, 0.5], [0, 0, 1]])
    truth = homography(-2.0, 0.95, (-5.0, 4.0)) @ to_half
    image, mask = seen(cv2.GaussianBlur(thermal, (0, 0), 0.7), truth, (80, 50))
    found = align([(visible, image)], thermal_mask=mask)
    assert corner_distance(found.thermal_to_visible, truth, (80, 50)) < 1


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize('images', [blank, noise, stripes, other_scene])
def test_what_cannot_be_aligned_is_not_trusted(images):
    found = align([images(np.random.default_rng(0))])
    assert not found.trusted
    assert found.reasons
    assert np.isfinite(found.thermal_to_visible).all()


NARROW = SearchRange(math.radians(1), 1.03, 0.05)


def test_corners_that_no_edge_holds_are_told():
    visible, thermal = scene(4, (96, 72), 40)
    held = align([(visible, thermal)], search=NARROW)
    assert held.trusted
    visible[:, 36:], thermal[:, 36:] = 90, 8000
    found = align([(visible, thermal)], search=NARROW)
    assert found.uncertainty.structure > 1.5 * held.uncertainty.structure
    assert not found.trusted
    assert any('the corners may be off by' in reason for reason in found.reasons)


@pytest.mark.slow
def test_a_similarity_is_known_where_one_part_of_the_scene_has_all_the_structure():
    visible, thermal = scene(4)
    visible[:, 60:], thermal[:, 60:] = 90, 8000
    truth = homography(1.5, 1.02, (2.0, -1.5))
    image, mask = seen(thermal, truth)
    search = SearchRange(math.radians(3), 1.05, 0.06)
    found = {
        model: align([(visible, image)], search=search, thermal_mask=mask, model=model)
        for model in ('homography', 'similarity')
    }
    assert not found['homography'].trusted
    assert any('no edges hold them' in reason for reason in found['homography'].reasons)
    assert found['similarity'].trusted
    matrix = found['similarity'].thermal_to_visible
    assert corner_distance(matrix, truth, (160, 120)) < 1
    # Nothing but rotation, scale and shift.
    np.testing.assert_allclose(matrix[2], [0, 0, 1], atol=1e-5)
    np.testing.assert_allclose(matrix[0, :2], matrix[1, 1::-1] * [1, -1], atol=1e-3)


@pytest.mark.slow
def test_a_similarity_is_not_trusted_where_the_images_show_more():
    visible, thermal = scene(4)
    truth = homography(0.0, 1.0, (0.0, 0.0), perspective=(0.07 / 80, 0.0))
    image, mask = seen(thermal, truth)
    found = align([(visible, image)], search=NARROW, thermal_mask=mask, model='similarity')
    assert corner_distance(found.thermal_to_visible, truth, (160, 120)) > 5
    assert not found.trusted
    assert any('more than a similarity' in reason for reason in found.reasons)


def test_frames_that_contradict_each_other_are_told():
    frames = [scene(seed, (96, 72), 30) for seed in (4, 5, 6)]
    agreeing = align(frames, search=NARROW)
    assert agreeing.trusted
    # As for things at other distances, each alone is as clear as before.
    shifts = ((0, 0), (-3, 2), (3, -2))
    moved = [(v, np.roll(t, shift, (1, 0))) for (v, t), shift in zip(frames, shifts, strict=True)]
    found = align(moved, search=NARROW)
    assert found.uncertainty.frames > 2 * agreeing.uncertainty.frames
    assert not found.trusted


def test_the_end_of_the_search_range_is_told():
    visible, thermal = scene(7, (96, 72), 30)
    image, mask = seen(thermal, homography(4.0, 1.0, (0.0, 0.0), (96, 72)))
    search = SearchRange(math.radians(3), 1.05, 0.05)
    found = align([(visible, image)], search=search, thermal_mask=mask)
    assert not found.trusted
    assert any('rotation' in reason and 'closer guess' in reason for reason in found.reasons)


def test_images_that_cannot_be_searched_are_refused():
    visible, thermal = scene(0, (64, 48))
    with pytest.raises(RegistrationError, match='at least one'):
        align([])
    with pytest.raises(RegistrationError, match='differ in size'):
        align([(visible, thermal), (visible, thermal[:40])])
    with pytest.raises(RegistrationError, match='mask'):
        align([(visible, thermal)], thermal_mask=np.ones((4, 4), np.bool_))


def test_centred_guess_keeps_pixels_square():
    guess = centred_guess((640, 480), (160, 120))
    np.testing.assert_allclose(guess, [[4, 0, 1.5], [0, 4, 1.5], [0, 0, 1]], atol=1e-9)
    wide = centred_guess((1280, 720), (160, 120))
    assert wide[0, 0] == wide[1, 1]
    centre = wide @ [79.5, 59.5, 1]
    np.testing.assert_allclose(centre, [639.5, 359.5, 1])


@pytest.mark.slow
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
