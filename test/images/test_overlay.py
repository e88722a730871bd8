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

import numpy as np
import pytest

from dig2dig_ros.images.luma import grey
from dig2dig_ros.images.overlay import (
    contribution_legend,
    contribution_overlay,
    source_colours,
    weight_map,
    with_legend,
)


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
    assert distances[~np.eye(12, dtype=bool)].min() > 35
    blue, red = colours[:2, 0], colours[:2, 2]
    assert blue[0] > red[0]
    assert red[1] > blue[1]
    np.testing.assert_array_equal(source_colours(4), colours[:4])
    assert source_colours(0).shape == (0, 3)


def overlay_of_ramp(luma: int = 120) -> np.ndarray:
    """Return the overlay where the second of two sources contributes from nothing to all."""
    second = np.linspace(0, 1, 101, dtype=np.float32)[None]
    image = np.full(second.shape, luma, np.uint8)
    return contribution_overlay(image, np.stack([1 - second, second]))[0].astype(float)


def test_two_sources_go_from_cool_by_way_of_grey_to_warm() -> None:
    ramp = overlay_of_ramp()
    np.testing.assert_allclose(ramp[50], 120, atol=1)
    warmth = ramp[:, 2] - ramp[:, 0]
    assert (np.diff(warmth) >= 0).all()
    assert warmth[0] < -60
    assert warmth[100] > 60
    # The colour grows with the distance from an equal part, and is full before the end of it.
    strength = np.abs(ramp - 120).sum(axis=1)
    assert strength[55] < strength[65] < strength[75]
    assert strength[85] == strength[100]


@pytest.mark.parametrize(
    'image', [np.full((6, 8), 90, np.uint8), np.full((6, 8, 3), 90, np.uint8)]
)
def test_two_sources_look_as_they_would_beside_a_third_that_contributes_nothing(
    image: np.ndarray,
) -> None:
    second = np.zeros((6, 8), np.float32)
    second[:, 4:] = 1
    two = contribution_overlay(image, np.stack([1 - second, second]))
    three = contribution_overlay(image, np.stack([1 - second, second, np.zeros_like(second)]))
    assert two.dtype == three.dtype == np.uint8
    np.testing.assert_allclose(two.astype(int), three, atol=1)


@pytest.mark.parametrize('number', [3, 4, 9])
def test_each_source_shows_its_colour_where_it_contributes_all(number: int) -> None:
    fused = np.full((1, number, 3), 255, np.uint8)
    picture = contribution_overlay(fused, weights_of(*range(number), number=number))
    expected = 0.25 * 255 + 0.75 * source_colours(number)
    np.testing.assert_allclose(picture[0], expected, atol=1)


def test_equal_parts_of_three_stay_grey() -> None:
    equal = np.full((3, 1, 1), 1 / 3, np.float32)
    (pixel,) = contribution_overlay(np.full((1, 1), 90, np.uint8), equal)[0]
    np.testing.assert_allclose(pixel, 90, atol=1)


@pytest.mark.parametrize('number', [2, 3])
def test_the_image_stays_recognisable_below_the_colours(number: int) -> None:
    ramp = np.linspace(0, 255, 32).astype(np.uint8)[None]
    weights = np.repeat(weights_of(1, number=number), 32, axis=2)
    picture = grey(contribution_overlay(ramp, weights)).astype(float)
    assert (np.diff(picture) > 0).all()
    assert np.ptp(picture) > 100


def test_the_legend_of_two_sources_is_a_bar_between_their_names() -> None:
    legend = contribution_legend(('visible', 'thermal'))
    assert legend.shape[0] == 26
    coloured = np.flatnonzero(np.ptp(legend[13].astype(int), axis=1) > 60)
    warm = legend[13, coloured, 2] > legend[13, coloured, 0]
    assert not warm[0]
    assert warm[-1]
    assert np.count_nonzero(np.diff(warm)) == 1
    ink = np.flatnonzero((legend < 120).all(axis=2).any(axis=0))
    assert ink.min() < coloured.min()
    assert ink.max() > coloured.max()


def test_the_legend_of_more_sources_shows_the_colour_of_each() -> None:
    legend = contribution_legend(('visible', 'thermal', 'near infrared'))
    swatches = legend[13][np.ptp(legend[13].astype(int), axis=1) > 60].astype(float)
    found = np.unique(swatches, axis=0)
    assert len(found) == 3
    nearest = [np.abs(found - colour).sum(axis=1).min() for colour in source_colours(3)]
    assert max(nearest) < 200


@pytest.mark.parametrize('width', [40, 640])
def test_a_legend_stands_below_a_picture_of_any_width(width: int) -> None:
    picture = np.full((30, width, 3), 7, np.uint8)
    framed = with_legend(picture, ('visible', 'thermal'))
    np.testing.assert_array_equal(framed[:30], picture)
    assert framed.shape[1] == width
    assert 30 < framed.shape[0] <= 56
    assert np.ptp(framed[30:].astype(int), axis=2).max() > 50
