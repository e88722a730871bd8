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

"""Estimates over time: steady where they tremble, quick where the camera changes."""

import math

import cv2
import numpy as np
import pytest

from dig2dig_ros.fusion.degradation import Degradation
from dig2dig_ros.images.blur import Blur
from dig2dig_ros.images.camera_noise import CameraNoise
from dig2dig_ros.images.contrast import Contrast
from dig2dig_ros.images.sensor_noise import measure_noise, SensorNoise
from dig2dig_ros.images.stripes import Stripes
from dig2dig_ros.streams.noise_watch import (
    BlurTracker,
    ContrastTracker,
    NoiseTracker,
    NoiseWatch,
    StripeTracker,
)

FRAME_TIME = 1 / 30
SIZE = (48, 64)


def white(deviation):
    return CameraNoise(read=deviation, deviation=deviation)


def follow(tracker, deviations, start=0.0):
    """Return the deviations that a tracker makes of those of images, 30 in a second."""
    return [
        tracker(white(deviation), start + index * FRAME_TIME).deviation
        for index, deviation in enumerate(deviations)
    ]


def test_a_quiet_camera_has_no_noise_at_all():
    tracker = NoiseTracker()
    assert tracker(CameraNoise(0.9, 0.01, 1.4), 0.0) == CameraNoise()
    assert follow(tracker, [1.4] * 50, start=1.0) == [0.0] * 50


def test_the_first_image_counts_at_once():
    assert NoiseTracker()(white(12.0), 5.0) == white(12.0)


def test_a_jump_is_followed_when_two_images_agree():
    tracker = NoiseTracker()
    follow(tracker, [1.0] * 10)
    after = follow(tracker, [25.0, 24.0, 25.0], start=10 * FRAME_TIME)
    assert after[0] == 0
    assert after[1:] == pytest.approx([24.0, 24.0], abs=0.2)


def test_a_noisy_camera_that_becomes_noisier_is_followed_too():
    tracker = NoiseTracker()
    follow(tracker, [10.0] * 10)
    after = follow(tracker, [30.0, 31.0], start=10 * FRAME_TIME)
    assert after[0] < 15
    assert after[1] == pytest.approx(30.0)


def test_single_images_are_no_jump():
    tracker = NoiseTracker()
    assert follow(tracker, [1.0, 1.0, 30.0, 1.0, 30.0, 1.0]) == [0.0] * 6


def test_nothing_flickers_about_the_threshold():
    random = np.random.default_rng(0)
    tracker = NoiseTracker(noisy=3.0, quiet=2.0)
    seen = np.array(follow(tracker, random.normal(2.9, 0.15, 300))) > 0
    assert np.count_nonzero(np.diff(seen)) <= 1


def test_estimates_that_scatter_are_smoothed():
    random = np.random.default_rng(0)
    scattered = random.normal(20, 1.0, 300)
    seen = np.array(follow(NoiseTracker(), scattered))[60:]
    assert seen.std() < 0.4
    assert seen.mean() == pytest.approx(20, abs=0.6)


def test_light_that_comes_back_ends_it():
    tracker = NoiseTracker()
    follow(tracker, [25.0] * 30)
    after = follow(tracker, [0.5] * 120, start=1.0)
    assert after[0] > 20
    assert after == sorted(after, reverse=True)
    assert after[-1] == 0


def test_photon_noise_is_smoothed_as_variances():
    tracker = NoiseTracker(seconds=1.0)
    tracker(CameraNoise(3.0, 1.0, 10.0), 0.0)
    found = tracker(CameraNoise(5.0, 2.0, 11.0), math.log(2))
    assert found.read == pytest.approx(math.sqrt((9 + 25) / 2))
    assert found.gain == pytest.approx(1.5)
    assert found.deviation == pytest.approx(math.sqrt((100 + 121) / 2))


@pytest.mark.parametrize('stamp', [0.5, 20.0])
def test_on_another_timeline_the_past_is_forgotten(stamp):
    tracker = NoiseTracker()
    follow(tracker, [25.0] * 30, start=1.0)
    assert tracker(white(0.5), stamp) == CameraNoise()
    assert tracker(white(25.0), stamp + 1) == CameraNoise()


def test_impossible_settings_are_refused():
    with pytest.raises(ValueError, match='quiet'):
        NoiseTracker(noisy=2.0, quiet=3.0)
    for tracker in (NoiseTracker, StripeTracker):
        with pytest.raises(ValueError, match='seconds'):
            tracker(seconds=-1.0)


def striped(seed, deviation=10.0):
    offsets = np.random.default_rng(seed).normal(0, deviation, SIZE[1]).astype(np.float32)
    return Stripes(columns=float(offsets.std()), column_offsets=offsets)


def test_stripes_come_with_two_images_and_go_with_five():
    tracker = StripeTracker()
    sequence = [Stripes()] * 2 + [striped(0)] * 3 + [Stripes()] * 6
    there = [
        not tracker(stripes, index * FRAME_TIME, SIZE).are_none
        for index, stripes in enumerate(sequence)
    ]
    assert there == [False] * 3 + [True] * 6 + [False] * 2


def test_stripes_of_a_first_image_are_taken():
    found = StripeTracker()(striped(0), 1.0, SIZE)
    np.testing.assert_array_equal(found.column_offsets, striped(0).column_offsets)
    assert found.rows == 0


def test_errors_in_the_offsets_average_out():
    truth = striped(0).column_offsets
    tracker = StripeTracker()
    for index in range(150):
        error = striped(index + 1, 3.0).column_offsets
        found = tracker(Stripes(10.0, 0.0, truth + error), index * FRAME_TIME, SIZE)
    assert np.std(found.column_offsets - truth) < 0.6
    assert found.columns == pytest.approx(truth.std(), rel=0.1)


def test_images_of_another_size_have_offsets_of_their_own():
    tracker = StripeTracker()
    tracker(striped(0), 0.0, SIZE)
    assert tracker(Stripes(), FRAME_TIME, (96, 128)).are_none


# The images of a camera


def thermal_image(seed, noise=12.0, stripes=8.0):
    """Return a smooth scene, uint8, with noise of its own and the stripes of its camera."""
    rows = np.mgrid[:96, :128][0]
    offsets = np.random.default_rng(0).normal(0, stripes, (1, 128))
    image = 120 + 40 * np.sin(rows / 25) + offsets
    image = image + np.random.default_rng(seed).normal(0, noise, image.shape)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


AUTO = Degradation.parse('stripes auto, noise auto')


def test_what_the_images_of_a_camera_have_is_measured_and_told():
    watch = NoiseWatch()
    first = watch(thermal_image(1), 0.0, AUTO)
    measured = measure_noise(thermal_image(1), full_scale=255)
    assert first.white == measured.white
    for moment in range(2, 6):
        noise = watch(thermal_image(moment), moment * FRAME_TIME, AUTO)
    assert noise is watch.noise
    assert noise.white.deviation == pytest.approx(12, rel=0.2)
    assert noise.stripes.columns == pytest.approx(8, rel=0.3)
    table = watch.table('thermal')
    assert float(table['thermal noise']) == pytest.approx(12, rel=0.2)
    assert float(table['thermal stripes']) == pytest.approx(8, rel=0.3)


@pytest.mark.parametrize('dtype', [np.uint16, np.float32])
def test_types_of_images_make_no_difference(dtype):
    scale = dtype(1 / 255 if dtype == np.float32 else 257)
    noise = NoiseWatch()(thermal_image(1) * scale, 0.0, AUTO)
    expected = NoiseWatch()(thermal_image(1), 0.0, AUTO)
    assert noise.white.deviation == pytest.approx(expected.white.deviation, rel=0.01)


@pytest.mark.parametrize('text', ['none', 'blur 2', 'noise 10'])
def test_where_nothing_is_to_be_measured_nothing_is(text):
    watch = NoiseWatch()
    watch(thermal_image(1), 0.0, AUTO)
    assert watch(thermal_image(2), 0.1, Degradation.parse(text)) is None
    assert watch.noise == SensorNoise()
    assert watch.table('thermal') == {'thermal noise': '0.0'}


def test_a_clean_image_has_nothing_to_be_taken_out():
    watch = NoiseWatch()
    noise = watch(thermal_image(1, 0.0, 0.0), 0.0, AUTO)
    assert noise.white == CameraNoise()
    assert noise.stripes.are_none
    assert watch.table('thermal') == {'thermal noise': '0.0'}


FLAT = Degradation.parse('contrast auto, noise auto')


def flat_image(part, seed=0, noise=0.6):
    """Return a warm field on a cool one, whose contrast of 120 grey levels is reduced."""
    image = np.full((96, 128), 80.0)
    image[20:60, 30:90] += 120 * part
    image += np.random.default_rng(seed).normal(0, noise, image.shape)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def test_contrast_is_followed_by_the_second_image_when_it_is_lost_and_at_once_when_it_is_back():
    watch = NoiseWatch()
    assert watch(flat_image(1), 0.0, FLAT).contrast.is_enough
    assert 'thermal contrast' not in watch.table('thermal')
    target = measure_noise(flat_image(0.15), full_scale=255, contrast=True).contrast.gain
    assert target > 4
    gains = [
        watch(flat_image(0.15, moment), moment * 0.1, FLAT).contrast.gain
        for moment in range(1, 60)
    ]
    assert gains[0] < 1 + 0.15 * (target - 1)
    assert gains[1:] == pytest.approx([target] * 58, rel=0.1)
    assert watch.table('thermal')['thermal contrast'] == f'stretched by {gains[-1]:.1f}'
    assert watch(flat_image(1), 6.0, FLAT).contrast.is_enough


def test_a_gain_that_changes_little_is_followed_slowly():
    tracker = ContrastTracker()
    tracker(Contrast(4.0, -200.0), 0.0)
    gains = [tracker(Contrast(4.8, -240.0), moment * 0.1).gain for moment in range(1, 11)]
    assert gains == pytest.approx([4.8 - 0.8 * np.exp(-0.1 * n) for n in range(1, 11)])


def test_a_still_scene_is_stretched_in_the_same_way_once_it_has_been_seen_twice():
    tracker = ContrastTracker()
    tracker(Contrast(), 0.0)
    found = [tracker(Contrast(6.0, -300.0), moment * 0.1) for moment in range(1, 8)]
    assert found[1:] == [Contrast(6.0, -300.0)] * 6


def test_a_gain_that_falls_to_one_arrives_there():
    tracker = ContrastTracker()
    tracker(Contrast(1.3, -20.0), 0.0)
    for moment in range(1, 60):
        contrast = tracker(Contrast(), moment * 0.1)
    assert contrast == Contrast()


def test_noise_that_stretching_makes_visible_is_taken_out():
    watch = NoiseWatch()
    noise = watch(flat_image(1), 0.0, FLAT)
    assert noise.white == CameraNoise()
    watch = NoiseWatch()
    noise = watch(flat_image(0.15), 0.0, FLAT)
    assert noise.white.deviation == pytest.approx(0.67, rel=0.2)
    assert noise.contrast.of_noise(noise.white).deviation > 3


def test_blur_is_there_in_the_second_image_and_gone_after_five_without():
    tracker = BlurTracker()
    assert tracker(Blur(), 0.0).is_none
    blurred = [tracker(Blur(deviation=4.0), 0.1 * moment) for moment in range(1, 5)]
    assert [each.deviation for each in blurred] == [0, 4, 4, 4]
    gone = [tracker(Blur(), 0.1 * moment).is_none for moment in range(5, 12)]
    assert gone == [False] * 4 + [True] * 3


def test_an_image_that_once_has_no_blur_changes_nothing():
    tracker = BlurTracker()
    assert tracker(Blur(factor=4.0), 0.0).factor == 4
    assert tracker(Blur(), 0.1).factor == 4
    assert tracker(Blur(factor=4.0), 0.2).factor == 4
    assert [tracker(Blur(), 0.1 * moment).factor for moment in range(3, 8)] == [4, 4, 4, 4, 1]


def test_the_blur_of_a_lens_is_followed_slowly():
    tracker = BlurTracker()
    tracker(Blur(deviation=4.0, noise=0.1), 0.0)
    found = [tracker(Blur(deviation=5.0, noise=0.2), moment * 0.1) for moment in range(1, 11)]
    left = [np.exp(-0.1 * moment) for moment in range(1, 11)]
    assert [each.deviation for each in found] == pytest.approx([5 - each for each in left])
    assert [each.noise for each in found] == pytest.approx([0.2 - 0.1 * each for each in left])


def test_one_kind_of_blur_takes_the_place_of_the_other():
    tracker = BlurTracker()
    tracker(Blur(deviation=4.0), 0.0)
    found = [tracker(Blur(factor=8.0), moment * 0.1) for moment in range(1, 6)]
    assert [each.factor for each in found] == [1, 1, 1, 1, 8]


def test_after_a_gap_blur_is_what_the_image_has():
    tracker = BlurTracker()
    tracker(Blur(deviation=4.0), 0.0)
    assert tracker(Blur(), 11.0).is_none


def blocks(blur):
    """Return an image of blocks behind a lens that blurs by so many pixels, uint8."""
    image = np.zeros((128, 160), np.float32)
    random = np.random.default_rng(0)
    for _ in range(60):
        row, column = random.integers(0, 110), random.integers(0, 140)
        height, width = random.integers(4, 40), random.integers(4, 40)
        image[row : row + height, column : column + width] = random.uniform(0, 250)
    if blur:
        image = cv2.GaussianBlur(image, (0, 0), blur)
    return np.rint(image).astype(np.uint8)


def test_blur_is_in_the_table():
    declared = Degradation.parse('blur auto, noise auto')
    watch = NoiseWatch()
    assert watch(blocks(0), 0.0, declared).blur.is_none
    assert 'thermal blur' not in watch.table('thermal')
    found = [watch(blocks(3), 0.2 * moment, declared).blur for moment in range(1, 4)]
    assert [each.is_none for each in found] == [True, False, False]
    assert watch.table('thermal')['thermal blur'] == f'{found[-1].deviation:.1f} pixels'


def test_blur_is_looked_for_five_times_a_second():
    declared = Degradation.parse('blur auto, noise auto')
    sharp, blurred = blocks(0), blocks(3)
    watch = NoiseWatch()
    assert watch(sharp, 0.0, declared).blur.is_none
    seen = [not watch(blurred, moment / 30, declared).blur.is_none for moment in range(1, 20)]
    # In the second look, twelve images later.
    assert seen == [False] * 11 + [True] * 8
    # Images from before start again, and what is not declared is not there.
    assert watch(sharp, 0.1, declared).blur.is_none
    assert watch(blurred, 0.2, Degradation.parse('noise auto')).blur.is_none
