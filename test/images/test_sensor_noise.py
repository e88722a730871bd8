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

"""White noise and stripes of one image, asked for together."""

import numpy as np
import pytest

from dig2dig_ros.images.camera_noise import CameraNoise, estimate_noise
from dig2dig_ros.images.sensor_noise import measure_noise, SensorNoise
from dig2dig_ros.images.stripes import estimate_stripes, Stripes


def scene(noise=8.0, stripes=6.0, size=(96, 128)):
    """Return a thermal image with noise and with offsets of its columns, uint8."""
    random = np.random.default_rng(6)
    rows, columns = np.mgrid[: size[0], : size[1]]
    image = 120 + 40 * np.sin(rows / 25) + 30 * np.cos(columns / 30)
    image = image + random.normal(0, stripes, (1, size[1])) + random.normal(0, noise, size)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def test_both_are_measured_as_each_by_itself():
    image = scene()
    noise = measure_noise(image, full_scale=255)
    assert noise.white == estimate_noise(image, full_scale=255)
    assert noise.white.deviation == pytest.approx(8, rel=0.25)
    stripes = estimate_stripes(image, full_scale=255)
    assert noise.stripes.columns == stripes.columns == pytest.approx(6, rel=0.25)
    np.testing.assert_array_equal(noise.stripes.column_offsets, stripes.column_offsets)
    assert noise.stripes.row_offsets is None


def test_only_what_is_asked_for_is_measured():
    image = scene()
    white = measure_noise(image, full_scale=255, stripes=False)
    assert white.white.deviation > 5
    assert white.stripes.are_none
    stripes = measure_noise(image, full_scale=255, white=False)
    assert stripes.white == CameraNoise()
    assert not stripes.stripes.are_none


@pytest.mark.parametrize('dtype', [np.uint16, np.float32])
def test_deviations_are_in_grey_levels_whatever_the_type(dtype):
    full_scale = 65535 if dtype == np.uint16 else 1.0
    expected = measure_noise(scene(), full_scale=255)
    scaled = (scene().astype(np.float64) / 255 * full_scale).astype(dtype)
    noise = measure_noise(scaled, full_scale=full_scale)
    assert noise.white.deviation == pytest.approx(expected.white.deviation, rel=0.01)
    assert noise.stripes.columns == pytest.approx(expected.stripes.columns, rel=0.01)


def test_colour_has_no_stripes():
    colour = np.repeat(scene()[..., np.newaxis], 3, axis=2)
    noise = measure_noise(colour, full_scale=255)
    assert noise.white.deviation > 5
    assert noise.stripes.are_none


@pytest.mark.parametrize('size', [(1, 1), (31, 400), (400, 31)])
def test_images_too_small_to_say_have_none(size):
    noise = measure_noise(scene(size=size), full_scale=255)
    assert noise == SensorNoise(CameraNoise(), Stripes())


def test_a_clean_image_has_next_to_none():
    noise = measure_noise(scene(0.0, 0.0), full_scale=255)
    assert noise.white.deviation < 1
    assert noise.stripes.are_none
