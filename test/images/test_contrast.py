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

"""Contrast of thermal images: estimated, and stretched where there is too little."""

from __future__ import annotations

import numpy as np
import pytest

from dig2dig_ros.images.camera_noise import CameraNoise, estimate_noise
from dig2dig_ros.images.contrast import Contrast, estimate_contrast, stretched


def street(part=1.0, noise=1.0, seed=0, middle=90):
    """Return warm blocks on a cool ground, 128x96 uint8, with a part of a span of 120 levels."""
    scene = np.zeros((96, 128), np.float32)
    scene[:, 64:] = 40
    scene[30:62, 20:36] = 120
    image = middle + part * (scene - scene.mean())
    image += np.random.default_rng(seed).normal(0, noise, scene.shape)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def span(image):
    """Return the grey levels from ground to block of a street in [0, 1]."""
    return 255 * float(image[30:62, 20:36].mean() - image[70:, :60].mean())


@pytest.mark.parametrize('noise', [0, 1, 10, 40])
def test_an_image_with_contrast_stays_as_it_is(noise):
    image = street(noise=noise)
    contrast = estimate_contrast(image, full_scale=255)
    assert contrast == Contrast()
    assert contrast.is_enough
    same, full_scale = stretched(image, contrast, full_scale=255)
    assert same is image
    assert full_scale == 255


@pytest.mark.parametrize('part', [0.1, 0.15, 0.2])
def test_a_flat_image_is_stretched(part):
    flat = street(part)
    contrast = estimate_contrast(flat, full_scale=255)
    image, full_scale = stretched(flat, contrast, full_scale=255)
    assert full_scale == 1
    assert image.dtype == np.float32
    assert 100 < span(image) < 130
    assert span(image) == pytest.approx(contrast.gain * 120 * part, rel=0.05)
    # Nothing but noise is cut off, and the middle stays where it was, as far as there is room.
    assert 0.01 < np.percentile(image, 5) < np.percentile(image, 95) < 0.99


def test_between_flat_and_not_the_gain_falls_continuously():
    gains = [
        estimate_contrast(street(part, noise=0), full_scale=255).gain
        for part in (0.1, 0.15, 0.2, 0.25, 0.28, 0.31, 0.34)
    ]
    assert gains == sorted(gains, reverse=True)
    assert gains[-1] == 1
    assert 1 < gains[-2] < 1.5


@pytest.mark.parametrize('noise', [0, 0.5, 2, 8, 25])
def test_where_there_is_only_noise_nothing_is_stretched(noise):
    nothing = street(part=0, noise=noise)
    assert estimate_contrast(nothing, full_scale=255).is_enough


@pytest.mark.parametrize('noise', [5, 15, 30])
def test_noise_is_not_stretched_beyond_what_can_be_taken_out(noise):
    image = street(0.2, noise=noise)
    contrast = estimate_contrast(image, full_scale=255)
    assert 1 <= contrast.gain * noise < max(noise, 20) * 1.1


@pytest.mark.parametrize('noise', [4, 8, 12])
def test_a_flat_image_is_stretched_until_its_noise_is_as_loud_as_it_may_be(noise):
    contrast = estimate_contrast(street(0.1, noise=noise), full_scale=255)
    assert contrast.gain * noise == pytest.approx(20, rel=0.05)


@pytest.mark.parametrize('middle', [5, 250])
def test_a_flat_image_at_an_end_of_the_range_is_moved_to_where_there_is_room(middle):
    flat = street(0.15, noise=0, middle=middle)
    contrast = estimate_contrast(flat, full_scale=255)
    image, _ = stretched(flat, contrast, full_scale=255)
    assert span(image) > 80


@pytest.mark.parametrize(
    ('dtype', 'full_scale'), [(np.uint16, 65535.0), (np.float32, 1.0), (np.uint8, 255.0)]
)
def test_types_of_images_make_no_difference(dtype, full_scale):
    image = (street(0.15).astype(np.float64) * (full_scale / 255)).astype(dtype)
    contrast = estimate_contrast(image, full_scale=full_scale)
    expected = estimate_contrast(street(0.15), full_scale=255)
    assert contrast.gain == pytest.approx(expected.gain, rel=1e-4)
    found, _ = stretched(image, contrast, full_scale=full_scale)
    wanted, _ = stretched(street(0.15), expected, full_scale=255)
    np.testing.assert_allclose(found, wanted, atol=1e-3)


def test_noise_is_stretched_with_the_image():
    contrast = Contrast(gain=4.0, offset=-200.0)
    random = np.random.default_rng(1)
    scene = np.broadcast_to(np.linspace(52, 110, 256, dtype=np.float32), (192, 256))
    noisy = scene + random.normal(0, np.sqrt(0.25 + 0.01 * scene)).astype(np.float32)
    assert contrast.of_noise(CameraNoise()) == CameraNoise()
    assert Contrast().of_noise(CameraNoise(1, 0.1, 1.2)) == CameraNoise(1, 0.1, 1.2)
    of_scene = CameraNoise(0.5, 0.01, 1.03)
    image, _ = stretched(noisy, contrast, full_scale=255)
    found = estimate_noise(image, full_scale=1)
    assert contrast.of_noise(of_scene).deviation == pytest.approx(found.deviation, rel=0.1)
    # The variance at a stretched grey level v is that at (v + 200) / 4 before, times 16.
    then = contrast.of_noise(of_scene)
    for value in (52, 110):
        variance = then.read**2 + then.gain * (4 * value - 200)
        assert variance == pytest.approx(16 * (0.25 + 0.01 * value))
