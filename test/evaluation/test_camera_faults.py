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

"""Cameras that fail for a while."""

import math

import cv2
import numpy as np
import pytest

from dig2dig_ros.evaluation.camera_faults import Fault, FAULTS, FaultyCamera
from dig2dig_ros.evaluation.imperfect_cameras import ImperfectionError

VISIBLE = np.random.default_rng(0).integers(1, 250, (12, 16, 3), dtype=np.uint8)
COUNTS = np.random.default_rng(1).integers(7000, 9000, (12, 16)).astype(np.uint16)


def sent(text, image=None, time=5.0):
    """Return what a camera with one fault sends: (pixels, encoding)."""
    fault = Fault.parse(text)
    if image is None:
        image = (VISIBLE, 'bgr8') if fault.source == 'visible' else (COUNTS, 'mono16')
    return faulty(fault.source, [fault]).send(time, image).image


def faulty(source, faults):
    return FaultyCamera(source, faults, lambda image, alteration: alteration(*image))


def test_a_fault_is_read_from_its_words():
    assert Fault.parse(' freeze  thermal 5 2.5 ') == Fault('freeze', 'thermal', 5.0, 2.5)
    assert Fault.parse('late visible 0 inf 0.3') == Fault('late', 'visible', 0.0, math.inf, '0.3')
    assert Fault.parse('dead_channel visible 1 0').detail == 'red'
    fault = Fault.parse('drop thermal 1 0.5')
    assert [fault.covers(time) for time in (0.9, 1.0, 1.4, 1.5)] == [False, True, True, False]
    assert Fault.parse('drop thermal 1 0').covers(1e9)


@pytest.mark.parametrize(
    ('text', 'reason'),
    [
        ('', r"'' is not a fault: write KIND SOURCE START DURATION"),
        ('freeze thermal 5', r"'freeze thermal 5' is not a fault: write"),
        ('freeze thermal 5 2 3 4', r'is not a fault: write'),
        (
            'melt thermal 5 2',
            r"unknown kind of fault 'melt' in 'melt thermal 5 2': use one of free",
        ),
        (
            'freeze nir 5 2',
            r"in .*, 'nir' is not a camera with such a fault: use visible or thermal",
        ),
        ('hot_object visible 5 2', r"'visible' is not a camera with such a fault: use thermal$"),
        ('freeze thermal soon 2', r"the start in .* must be a number, not 'soon'"),
        ('freeze thermal inf 2', r'the start in .* must be a number'),
        ('freeze thermal 5 nan', r'the duration in .* must be a number'),
        ('freeze thermal 5 -2', r'the duration in .* is negative: use 0 or inf'),
        ('freeze thermal 5 2 now', r"'now' in .* is superfluous: leave it out"),
        ('dead_channel visible 5 2 pink', r"'pink' in .* use one of red, green, blue"),
        ('late visible 5 2 much', r"the last word in .* must be a number, not 'much'"),
    ],
)
def test_a_mistake_in_a_fault_is_one_sentence(text, reason):
    with pytest.raises(ImperfectionError, match=reason) as caught:
        Fault.parse(text)
    assert '\n' not in str(caught.value)


def test_a_frozen_camera_sends_the_image_of_before_with_new_stamps():
    faults = [Fault.parse('freeze thermal 1 2'), Fault.parse('freeze visible 0 0')]
    thermal, visible = faulty('thermal', faults), faulty('visible', faults)
    images = [(COUNTS + index, 'mono16') for index in range(5)]
    answers = [thermal.send(float(index), image) for index, image in enumerate(images)]
    assert [answer.image for answer in answers] == [images[index] for index in (0, 0, 0, 3, 4)]
    assert not any(answer.repeats_stamp for answer in answers)
    # From the very first image on, that one is held.
    assert [visible.send(float(index), images[index]).image for index in (0, 1)] == [images[0]] * 2


def test_repeated_stamps_dropped_images_and_late_stamps():
    texts = ['repeat_stamp thermal 1 1', 'drop thermal 2 1', 'late thermal 3 1 0.25']
    camera = faulty('thermal', [Fault.parse(text) for text in texts])
    images = [(COUNTS + index, 'mono16') for index in range(5)]
    answers = [camera.send(float(index), image) for index, image in enumerate(images)]
    assert answers[1].image is images[0]
    assert [answer and answer.repeats_stamp for answer in answers] == [
        False, True, None, False, False,
    ]  # fmt: skip
    assert [answer and answer.late for answer in answers] == [0.0, 0.0, None, 0.25, 0.0]


def test_a_covered_visible_camera_is_black_with_new_noise_and_a_thermal_one_even():
    camera = faulty('visible', [Fault.parse('cover visible 0 0')])
    first, second = (camera.send(0.0, (VISIBLE, 'bgr8')).image[0] for _ in range(2))
    assert 0 < first.max() < 10
    assert (first != second).any()
    pixels, encoding = sent('cover thermal 0 0')
    assert encoding == 'mono16'
    assert pixels.mean() == pytest.approx(COUNTS.mean(), abs=1)
    assert 1 < pixels.std() < 8


def test_a_saturated_image_is_white():
    assert (sent('saturate visible 0 0')[0] == 255).all()
    assert (sent('saturate thermal 0 0')[0] == 16383).all()
    assert (sent('saturate thermal 0 0', (COUNTS * 4, 'mono16'))[0] == 65535).all()


@pytest.mark.parametrize(('name', 'index'), [('blue', 0), ('green', 1), ('red', 2)])
def test_a_dead_channel_is_black_and_the_others_are_not(name, index):
    pixels, encoding = sent(f'dead_channel visible 0 0 {name}')
    assert encoding == 'bgr8'
    assert not pixels[..., index].any()
    alive = [channel for channel in range(3) if channel != index]
    np.testing.assert_array_equal(pixels[..., alive], VISIBLE[..., alive])


def test_false_colours_replace_the_counts():
    pixels, encoding = sent('false_colour thermal 0 0')
    assert encoding == 'bgr8'
    assert pixels.shape == (12, 16, 3)
    brightness = pixels.sum(axis=2, dtype=int)
    assert brightness.flat[COUNTS.argmax()] > brightness.flat[COUNTS.argmin()] + 300
    assert (pixels.max(axis=2) > pixels.min(axis=2) + 30).mean() > 0.5


def test_half_the_size():
    assert sent('half_size visible 0 0')[0].shape == (6, 8, 3)
    assert sent('half_size thermal 0 0')[0].shape == (6, 8)


def test_other_encodings_show_the_same():
    pixels, encoding = sent('reencode visible 0 0')
    assert encoding == 'rgb8'
    np.testing.assert_array_equal(pixels, VISIBLE)  # blue first until it is written
    assert sent('reencode visible 0 0 mono8')[0].shape == (12, 16)
    pixels, encoding = sent('reencode thermal 0 0')
    assert encoding == '16UC1'
    np.testing.assert_array_equal(pixels, COUNTS)
    pixels, encoding = sent('reencode thermal 0 0 mono8')
    assert (encoding, pixels.dtype) == ('mono8', np.uint8)
    np.testing.assert_array_equal(pixels, COUNTS // 64)
    pixels, encoding = sent('reencode thermal 0 0 mono16', (pixels, 'mono8'))
    assert (encoding, pixels.dtype) == ('mono16', np.uint16)
    np.testing.assert_array_equal(pixels, COUNTS // 64 * 64)


def test_a_hot_object_comes_in_and_is_hotter_than_all_else():
    text = 'hot_object thermal 2 0'
    scene = np.tile(COUNTS, (4, 4))
    areas = []
    for time in (2.0, 4.0, 7.0, 9.0):
        pixels, _ = sent(text, (scene, 'mono16'), time)
        hot = pixels > scene.max()
        assert pixels[hot].max() > scene.max() + 5000
        np.testing.assert_array_equal(pixels[~hot & (pixels < 9000)].min(), scene.min())
        areas.append((hot.mean(), np.flatnonzero(hot.any(axis=0)).mean()))
    assert 0.005 < areas[0][0] < areas[1][0] < 0.05
    assert areas[0][1] < areas[1][1] < areas[2][1] == areas[3][1]


def test_the_level_jumps():
    np.testing.assert_array_equal(sent('level_jump thermal 0 0')[0], COUNTS + 2000)
    np.testing.assert_array_equal(sent('level_jump thermal 0 0 -500')[0], COUNTS - 500)
    eight = (COUNTS // 64).astype(np.uint8)
    np.testing.assert_array_equal(
        sent('level_jump thermal 0 0 640', (eight, 'mono8'))[0], eight + 10
    )


def test_faults_add_up_in_their_order():
    faults = [Fault.parse('level_jump thermal 0 0 100'), Fault.parse('half_size thermal 0 0')]
    pixels, _ = faulty('thermal', faults).send(0.0, (COUNTS, 'mono16')).image
    half = cv2.resize(COUNTS + 100, (8, 6), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(pixels, half)


@pytest.mark.parametrize('kind', FAULTS)
def test_no_fault_changes_the_image_it_was_given_or_lasts_too_long(kind):
    for source, words in FAULTS[kind].items():
        original = VISIBLE if source == 'visible' else COUNTS
        image = (original.copy(), 'bgr8' if source == 'visible' else 'mono16')
        for word in words or ('',):
            camera = faulty(source, [Fault.parse(f'{kind} {source} 1 1 {word}')])
            assert camera.send(0.0, image).image is image
            camera.send(1.0, image)
            np.testing.assert_array_equal(image[0], original)
            assert camera.send(2.0, image).image is image
