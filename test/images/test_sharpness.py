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

"""Blur is found, however it came about, and sharp images are sharp."""

import cv2
import numpy as np
import pytest

from dig2dig_ros.images.sharpness import effective_blur


def street(seed=0, size=(320, 256)):
    """Return a sharp scene (H, W), uint8: shapes of many sizes before a slope."""
    random = np.random.default_rng(seed)
    width, height = size
    image = np.linspace(180.0, 60.0, height)[:, np.newaxis].repeat(width, axis=1)
    for _ in range(60):
        x, y = int(random.integers(width)), int(random.integers(height))
        w, h = (int(side) for side in random.integers(3, max(4, width // 6), 2))
        cv2.rectangle(image, (x, y), (x + w, y + h), float(random.integers(20, 235)), -1)
    return np.rint(cv2.GaussianBlur(image, (0, 0), 0.5)).astype(np.uint8)


def blurred(image, deviation):
    return cv2.GaussianBlur(image, (0, 0), deviation)


def enlarged(image, factor, interpolation=cv2.INTER_LINEAR):
    height, width = image.shape
    small = cv2.resize(image, (width // factor, height // factor), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (width, height), interpolation=interpolation)


def with_noise(image, deviation):
    noise = deviation * np.random.default_rng(1).standard_normal(image.shape)
    return np.clip(np.rint(image + noise), 0, 255).astype(np.uint8)


@pytest.mark.parametrize('seed', range(3))
def test_sharp_images_are_sharp(seed):
    image = street(seed)
    assert effective_blur(image) == 0
    assert effective_blur(with_noise(image, 10)) == 0
    assert effective_blur(np.stack([image] * 3, axis=-1)) == 0


@pytest.mark.parametrize('seed', range(3))
@pytest.mark.parametrize('deviation', [2, 3, 4, 6])
def test_blur_is_found(seed, deviation):
    found = effective_blur(blurred(street(seed), deviation))
    assert found == pytest.approx(deviation, rel=0.3)


@pytest.mark.parametrize('interpolation', [cv2.INTER_LINEAR, cv2.INTER_CUBIC])
def test_enlarged_images_are_as_blurred_as_their_pixels_are_large(interpolation):
    found = [effective_blur(enlarged(street(), factor, interpolation)) for factor in (4, 8)]
    assert 1 < found[0] < 3
    assert 2 < found[1] < 5


def test_noise_on_a_blurred_image_hides_no_blur():
    assert effective_blur(with_noise(blurred(street(), 4), 5)) == pytest.approx(4, rel=0.4)


@pytest.mark.parametrize('level', [0, 128, 255])
def test_nothing_is_told_of_images_that_show_nothing(level):
    image = np.full((64, 80), level, np.uint8)
    assert effective_blur(image) == 0
    assert effective_blur(with_noise(image, 10)) == 0


def test_number_types_agree():
    image = blurred(street(), 4)
    expected = effective_blur(image)
    assert effective_blur(image.astype(np.uint16) * 257) == pytest.approx(expected, rel=1e-3)
    assert effective_blur(image / np.float32(255)) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    ('image', 'said'),
    [
        (np.zeros((31, 64), np.uint8), 'at least 32 pixels'),
        (np.zeros((64, 64, 4), np.uint8), 'shape'),
        (np.zeros((64, 64)), 'float64'),
    ],
)
def test_what_is_no_such_image_is_refused(image, said):
    with pytest.raises(ValueError, match=said):
        effective_blur(image)
