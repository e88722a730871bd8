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

"""Blur of thermal images: found, told apart from what only looks like it, and undone."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
import pytest

from dig2dig_ros.images.blur import Blur, deblurred, estimate_blur
from dig2dig_ros.images.sensor_noise import measure_noise

SHAPE = (240, 320)


@cache
def scene(seed=0, shape=SHAPE):
    """Return a scene with the spectrum of nature, and warm people in it; float64 grey levels."""
    random = np.random.default_rng(seed)
    rows, columns = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])
    frequencies = np.hypot(rows, columns)
    frequencies[0, 0] = 1
    spectrum = np.fft.rfft2(random.standard_normal(shape)) / frequencies**1.3
    spectrum[0, 0] = 0
    image = np.fft.irfft2(spectrum, shape)
    image = 90 + 25 * image / image.std()
    for _ in range(12):
        height, width = random.integers(20, 60), random.integers(6, 24)
        row, column = random.integers(0, shape[0] - height), random.integers(0, shape[1] - width)
        image[row : row + height, column : column + width] += 70
    return image


def eight_bits(image):
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def out_of_focus(deviation, seed=0):
    return eight_bits(cv2.GaussianBlur(scene(seed), (0, 0), deviation))


def enlarged(factor, seed=0):
    height, width = SHAPE
    size = round(width / factor), round(height / factor)
    small = cv2.resize(scene(seed), size, interpolation=cv2.INTER_AREA)
    return eight_bits(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR))


def as_jpeg(image, quality):
    encoded = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE)


def error(image, seed=0):
    """Return the root mean square error to the scene in grey levels."""
    return float(np.sqrt(np.square(image - np.clip(scene(seed), 0, 255)).mean()))


@pytest.mark.parametrize('quality', [None, 30, 60, 90])
@pytest.mark.parametrize('seed', range(4))
def test_a_sharp_image_is_not_blurred(quality, seed):
    image = eight_bits(scene(seed))
    if quality is not None:
        image = as_jpeg(image, quality)  # whose blocks are not the pixels of a coarse sensor
    blur = estimate_blur(image, full_scale=255)
    assert blur == Blur()
    assert blur.is_none
    same, full_scale = deblurred(image, blur, full_scale=255)
    assert same is image
    assert full_scale == 255


@pytest.mark.parametrize('deviation', [2.5, 4, 6])
@pytest.mark.parametrize('seed', range(3))
def test_an_image_out_of_focus_is_sharpened(deviation, seed):
    image = out_of_focus(deviation, seed)
    blur = estimate_blur(image, full_scale=255)
    assert blur.factor == 1
    assert blur.deviation == pytest.approx(deviation, rel=0.25)
    sharp, full_scale = deblurred(image, blur, full_scale=255)
    assert full_scale == 1
    assert sharp.dtype == np.float32
    assert 0 <= sharp.min() <= sharp.max() <= 1
    assert error(255 * sharp, seed) < 0.8 * error(image, seed)


@pytest.mark.parametrize(
    ('factor', 'quality'), [(4, None), (6.4, None), (8, None), (12, None), (8, 80), (12, 80)]
)
def test_an_enlarged_image_is_sharpened(factor, quality):
    image = enlarged(factor)
    if quality is not None:
        image = as_jpeg(image, quality)
    blur = estimate_blur(image, full_scale=255)
    assert blur.factor == pytest.approx(factor, rel=0.03)
    assert blur.deviation == 0
    sharp, _ = deblurred(image, blur, full_scale=255)
    assert error(255 * sharp) < 0.97 * error(image)


def test_what_the_camera_saw_beyond_the_border_does_no_harm():
    inside = (slice(30, -30), slice(40, -40))
    image = out_of_focus(4)[inside]
    blur = estimate_blur(image, full_scale=255)
    assert blur.deviation == pytest.approx(4, rel=0.25)
    sharp = 255 * deblurred(image, blur, full_scale=255)[0]
    squares = np.square(sharp - scene()[inside])
    before = np.square(image - scene()[inside])
    border = np.ones(image.shape, bool)
    border[8:-8, 8:-8] = False
    assert squares[border].mean() < before[border].mean()


@pytest.mark.parametrize(('dtype', 'white'), [(np.uint16, 65535), (np.float32, 1.0)])
@pytest.mark.parametrize('image', [out_of_focus(4), enlarged(8)], ids=['lens', 'enlarged'])
def test_number_types_agree(dtype, white, image):
    expected = estimate_blur(image, full_scale=255)
    wide = (image * (white / 255)).astype(dtype)
    blur = estimate_blur(wide, full_scale=white)
    assert blur.factor == pytest.approx(expected.factor)
    assert blur.deviation == pytest.approx(expected.deviation, rel=1e-3)
    sharp = deblurred(image, expected, full_scale=255)[0]
    np.testing.assert_allclose(deblurred(wide, expected, full_scale=white)[0], sharp, atol=1e-4)


@pytest.mark.parametrize(
    'image',
    [
        np.full(SHAPE, 90, np.uint8),
        np.tile(np.arange(SHAPE[1], dtype=np.uint8), (SHAPE[0], 1)),
        np.random.default_rng(0).integers(0, 256, SHAPE).astype(np.uint8),
        eight_bits(128 + np.random.default_rng(0).normal(0, 2, SHAPE)),
        np.where(np.indices(SHAPE).sum(axis=0) % 16 < 8, 50, 200).astype(np.uint8),
    ],
    ids=['constant', 'ramp', 'noise', 'dead', 'stripes'],
)
def test_what_is_no_scene_is_left_alone(image):
    assert estimate_blur(image, full_scale=255).is_none


@pytest.mark.parametrize('noise', [3, 10, 25])
def test_a_noisy_image_is_left_to_the_denoiser(noise):
    image = cv2.GaussianBlur(scene(), (0, 0), 4)
    image = eight_bits(image + np.random.default_rng(1).normal(0, noise, SHAPE))
    assert measure_noise(image, full_scale=255, blur=True).blur.is_none
    assert not measure_noise(out_of_focus(4), full_scale=255, blur=True).blur.is_none
    assert measure_noise(out_of_focus(4), full_scale=255).blur.is_none


def test_stripes_do_not_hide_a_blur():
    offsets = np.random.default_rng(1).normal(0, 6, SHAPE[1])
    image = eight_bits(cv2.GaussianBlur(scene(), (0, 0), 4) + offsets)
    blur = measure_noise(image, full_scale=255, blur=True).blur
    assert blur.deviation == pytest.approx(4, rel=0.25)


def test_a_small_image_has_no_blur():
    assert measure_noise(out_of_focus(4)[:60], full_scale=255, blur=True).blur.is_none


def test_blur_in_words():
    assert str(Blur(deviation=3.96)) == '4.0 pixels'
    assert str(Blur(factor=8)) == 'enlarged 8.0 times'


@pytest.mark.parametrize(
    ('blur', 'sharpness'),
    [
        (Blur(), 1),
        (Blur(deviation=2.5), 1),
        (Blur(deviation=3.25), 0.55),
        (Blur(deviation=4), 0.1),
        (Blur(deviation=20), 0.1),
        (Blur(factor=5), 1),
        (Blur(factor=6.5), 0.55),
        (Blur(factor=8), 0.1),
    ],
)
def test_what_is_lost_does_not_count(blur, sharpness):
    assert blur.sharpness() == pytest.approx(sharpness)


def test_what_is_yet_to_be_enlarged_is_lost_as_well():
    assert Blur().sharpness(8) == Blur(factor=8).sharpness() == pytest.approx(0.1)
    assert Blur(deviation=1.625).sharpness(2) == pytest.approx(0.55)
    assert Blur(factor=3).sharpness(2) == Blur(factor=6).sharpness()
