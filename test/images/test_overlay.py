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

import cv2
import numpy as np
import pytest

from dig2dig_ros.images.overlay import source_colours, weight_map, weight_overlay


def weights_of(*owners: int, number: int) -> np.ndarray:
    """Return (number, 1, len(owners)) weights where each pixel belongs to one source."""
    weights = np.zeros((number, 1, len(owners)), np.float32)
    for column, owner in enumerate(owners):
        weights[owner, 0, column] = 1
    return weights


def test_weight_map_is_rounded_to_8_bits() -> None:
    # A sum of softmax shares may be more than 1 by a rounding error.
    weight = np.array([[0, 0.5, 0.998, 1, 1 + 2e-7]], np.float32)
    plane = weight_map(weight)
    assert plane.dtype == np.uint8
    np.testing.assert_array_equal(plane, [[0, 128, 254, 255, 255]])


def test_each_source_has_a_colour_of_its_own_and_keeps_it() -> None:
    colours = source_colours(12)
    distances = np.abs(colours[:, None] - colours[None]).max(axis=2)
    assert distances[~np.eye(12, dtype=bool)].min() > 50
    blue_red_green = [[255, 0, 0], [0, 0, 255], [0, 255, 0]]
    np.testing.assert_allclose(colours[:3], blue_red_green, atol=1e-3)
    np.testing.assert_array_equal(source_colours(4), colours[:4])
    assert source_colours(0).shape == (0, 3)


def test_overlay_of_two_sources_goes_from_cool_to_warm() -> None:
    picture = weight_overlay(np.full((1, 2), 90, np.uint8), weights_of(0, 1, number=2))
    ends = cv2.applyColorMap(np.array([[0, 255]], np.uint8), cv2.COLORMAP_TURBO)
    np.testing.assert_allclose(picture, 0.55 * 90 + 0.45 * ends.astype(float), atol=0.5)
    cool, warm = picture[0].astype(int)
    assert cool[0] > cool[2]
    assert warm[2] > warm[0]


@pytest.mark.parametrize('number', [3, 4, 7])
def test_overlay_of_more_sources_shows_whose_a_pixel_is(number: int) -> None:
    fused = np.full((1, number, 3), 90, np.uint8)
    picture = weight_overlay(fused, weights_of(*range(number), number=number))
    assert picture.dtype == np.uint8
    expected = 0.55 * 90 + 0.45 * np.rint(source_colours(number))
    np.testing.assert_allclose(picture[0], expected, atol=0.6)


def test_equal_weights_of_three_favour_no_colour() -> None:
    equal = np.full((3, 1, 1), 1 / 3, np.float32)
    (pixel,) = weight_overlay(np.full((1, 1), 90, np.uint8), equal)[0]
    assert np.ptp(pixel.astype(int)) <= 1


def test_overlay_shows_the_image_below_in_grey() -> None:
    ramp = np.linspace(0, 255, 32).astype(np.uint8)[None]
    weights = np.repeat(weights_of(1, number=3), 32, axis=2)
    for image in (ramp, np.dstack([ramp, ramp, ramp])):
        picture = weight_overlay(image, weights).astype(float)
        assert (np.diff(picture, axis=1) > 0).all()
        tint = picture - picture[:, :1]
        np.testing.assert_allclose(tint, np.broadcast_to(tint[..., :1], tint.shape), atol=1)
