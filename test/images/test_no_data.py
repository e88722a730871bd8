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

"""Numbers that are no temperatures are found, and what is really hot or cold is not among them."""

from functools import cache
import math

import cv2
import numpy as np
import pytest

from dig2dig_ros.evaluation.synthetic_scene import SyntheticScene
from dig2dig_ros.images.no_data import filled, find_no_data, placement_of_data
from dig2dig_ros.images.thermal_range import ThermalRange

SIZE = (64, 48)
SHAPE = (48, 64)
FLOAT_MAX = float(np.finfo(np.float32).max)


@cache
def street():
    """Return the synthetic street, its range 0 to 1 and beyond, as an ideal camera would."""
    counts = SyntheticScene(*SIZE, seed=2).render(0.5).thermal.astype(np.float64)
    low, high = np.percentile(counts, (1, 99.5))
    return (counts - low) / (high - low)


def raw():
    return np.rint(7273 + 555 * street()).astype(np.uint16)


def centikelvin():
    return np.rint(28400 + 2200 * street()).astype(np.uint16)


def kelvin():
    return (284 + 22 * street()).astype(np.float32)


def celsius():
    return (11 + 22 * street()).astype(np.float32)


def outdoors():
    """Return degrees Celsius that 0 lies among."""
    return (-10 + 70 * street()).astype(np.float32)


def places(kind):
    """Return where there is no data."""
    mask = np.zeros(SHAPE, bool)
    if kind == 'dead pixels':
        return np.random.default_rng(1).random(SHAPE) < 0.047
    if kind == 'five':
        mask[20, 10:15] = True
    elif kind == 'frame':
        mask[:6] = mask[-6:] = mask[:, :4] = True
    elif kind == 'half':
        mask[:, : round(0.4 * SIZE[0])] = True
    return mask


MARKS = [
    *((scene, value) for scene in (raw, centikelvin) for value in (0, 65535)),
    (kelvin, 0.0),
    (kelvin, -1.0),
    (kelvin, 9999.0),
    (celsius, 0.0),
    *((celsius, value) for value in (-273.15, -9999.0, 999.0, 1e10, 3e38, -FLOAT_MAX)),
    (outdoors, -273.15),
]


@pytest.mark.parametrize(
    ('scene', 'mark'),
    [(raw, 0), (centikelvin, 0), (kelvin, 0.0), (celsius, -273.15), (celsius, -9999.0)],
)
@pytest.mark.parametrize('share', [0.55, 0.8])
def test_a_small_view_in_a_large_frame_is_the_scene(scene, mark, share):
    image = scene()
    rows = round((1 - share) * SIZE[1])
    view = image[-rows:].copy()
    image[:-rows] = mark
    assert find_no_data(image).values == pytest.approx((mark,), rel=1e-6)
    mapped = ThermalRange()(image, 0.0)
    np.testing.assert_allclose(mapped[-rows + 1 :], ThermalRange()(view, 0.0)[1:], atol=0.05)


def test_a_cold_sky_that_fills_the_frame_is_data():
    image = raw()
    image[: round(0.6 * SIZE[1])] = image.min() - 200
    assert find_no_data(image) is None


def test_a_camera_that_is_blinded_is_no_camera_without_data():
    image = raw()
    image[: round(0.6 * SIZE[1])] = 65535
    assert find_no_data(image) is None


@pytest.mark.parametrize('where', ['five', 'dead pixels', 'frame', 'half'])
@pytest.mark.parametrize(('scene', 'mark'), MARKS)
def test_a_mark_is_no_data(scene, mark, where):
    mask = places(where)
    image = scene()
    clean = ThermalRange()(image, 0.0)
    image[mask] = mark
    found = find_no_data(image)
    np.testing.assert_array_equal(found.mask, mask)
    assert found.values == pytest.approx((mark,), rel=1e-6)
    assert found.share == pytest.approx(mask.mean())
    assert found.rows == (0, 0)
    mapped = ThermalRange()(image, 0.0)
    assert (mapped[mask] == 0.0).all()
    if where in ('five', 'dead pixels'):  # of the same scene
        np.testing.assert_allclose(mapped[~mask], clean[~mask], atol=0.03)


def test_both_ends_and_nan_at_once():
    image = kelvin()
    image[:5], image[-6:], image[20, 20:24], image[20, 30:33] = 0.0, 9999.0, np.nan, np.inf
    found = find_no_data(image)
    assert found.values == (0.0, 9999.0)
    assert found.share == pytest.approx(11 / 48)
    assert found.mask[20, 20:24].all()
    assert not found.mask[20, 30:33].any()
    assert found.mask.sum() == 11 * 64 + 4


def test_the_hottest_that_was_measured_beside_infinities_is_no_mark():
    image = np.random.default_rng(0).normal(20, 2, (48, 64)).astype(np.float32)
    # A fire, too hot in its middle.
    image[30:34] = np.linspace(20, 500, 4 * 64).reshape(4, 64)
    image[20:25], image[40, 3:9] = math.inf, 500
    assert find_no_data(image) is None


@pytest.mark.parametrize('infinity', [math.inf, -math.inf])
@pytest.mark.parametrize('mark', [None, 500.0])
def test_infinities_are_measurements_that_are_too_hot_or_too_cold(infinity, mark):
    image = np.random.default_rng(0).normal(20, 2, (48, 64)).astype(np.float32)
    image[20, :30] = infinity
    if mark is None:
        assert find_no_data(image) is None
    else:
        image[10:13] = mark
        found = find_no_data(image)
        assert found.values == (mark,)
        np.testing.assert_array_equal(found.mask, image == mark)


def test_what_rectification_blends_with_the_border_is_no_data_either():
    scene = centikelvin()
    matrix = cv2.getRotationMatrix2D((32.0, 24.0), 7.0, 0.9)
    image = cv2.warpAffine(scene, matrix, SIZE, flags=cv2.INTER_LINEAR)
    found = find_no_data(image)
    assert found.values == (0.0,)
    assert image[~found.mask].min() > 27000
    assert 0.1 < found.share < 0.4


@pytest.mark.parametrize('how', [cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_AREA])
@pytest.mark.parametrize('size', [(256, 192), (128, 96)])
def test_what_a_change_of_size_blends_with_it_is_no_data_either(how, size):
    image = centikelvin()
    image[:6] = 0
    image = cv2.resize(image, size, interpolation=how)
    found = find_no_data(image)
    assert found.values == (0.0,)
    assert image[~found.mask].min() > 27000
    assert found.share == pytest.approx(1 / 8, abs=0.03)


@pytest.mark.parametrize('types', [np.int16, np.int32, np.uint32, np.float64])
def test_of_any_type_of_numbers(types):
    image = raw().astype(types)
    image[:5] = -1 if types in (np.int16, np.int32) else 0
    assert find_no_data(image).mask.sum() == 5 * 64


HOT_OR_COLD = [
    (raw, 200),
    (raw, 4000),
    (raw, -400),
    (centikelvin, 3000),
    (centikelvin, 20000),
    (centikelvin, -6000),
    (kelvin, 15.0),
    (kelvin, 250.0),
    (kelvin, -70.0),
    (celsius, 15.0),
    (celsius, 250.0),
    (celsius, -70.0),
    (outdoors, 15.0),
]


@pytest.mark.parametrize('place', [(20, 30, 12, 6), (0, 0, 24, 64), (10, 10, 2, 2)])
@pytest.mark.parametrize(('scene', 'difference'), HOT_OR_COLD)
def test_what_is_really_hot_or_cold_is_data(scene, difference, place):
    row, column, height, width = place
    window = slice(row, row + height), slice(column, column + width)
    image = scene().astype(np.float64)
    image[window] += difference
    # Also with one value all over it, as where the sensor is clipped.
    flat = image.copy()
    flat[window] = np.median(image[window])
    for view in (image, flat, cv2.GaussianBlur(flat, (0, 0), 0.7)):
        assert find_no_data(view.astype(scene().dtype)) is None


def test_clipped_sensors_are_data():
    for top in (1023, 4095, 16383):
        image = (raw() // (16383 // top) // 2).astype(np.uint16)
        image[20:30, 20:30] = top
        assert find_no_data(image) is None
    # An AGC of 16 bits uses both of its ends.
    image = np.clip(street() * 80000 - 8000, 0, 65535).astype(np.uint16)
    assert find_no_data(image) is None


@pytest.mark.parametrize(
    'image',
    [
        np.zeros(SHAPE, np.uint16),
        np.full(SHAPE, 8000, np.uint16),
        np.where(np.arange(64) < 45, 30000, 28000) * np.ones(SHAPE, np.uint16),
        np.where(np.arange(64) < 45, 0, 1000) * np.ones(SHAPE, np.uint16),
        np.zeros((3, 4), np.uint16),
        np.full((1, 1), 7, np.float32),
        np.zeros((0, 4), np.uint16),
    ],
)
def test_of_images_without_much_in_them_nothing_is_taken(image):
    assert find_no_data(image) is None


def test_8_bits_have_no_marks():
    image = np.full(SHAPE, 150, np.uint8) + (street() * 20).astype(np.uint8)
    image[10:16, 5:60] = 0
    assert find_no_data(image) is None


@pytest.mark.parametrize(('scene', 'at_top'), [(raw, True), (raw, False), (kelvin, False)])
@pytest.mark.parametrize('numbers', ['random', 'small', 'ramp', 'mostly 0'])
def test_rows_of_telemetry_set_no_range(scene, at_top, numbers):
    random = np.random.default_rng(3)
    rows = {
        'random': random.integers(0, 65536, (2, 64)),
        'small': random.integers(0, 300, (2, 64)),
        'ramp': np.arange(128).reshape(2, 64) * 500,
        'mostly 0': random.integers(0, 65536, (2, 64)) * (random.random((2, 64)) < 0.2),
    }[numbers].astype(scene().dtype)
    parts = (rows, scene()) if at_top else (scene(), rows)
    ranges = ThermalRange()
    mapped = ranges(np.concatenate(parts), 0.0)
    of_scene = mapped[2:] if at_top else mapped[:-2]
    np.testing.assert_allclose(of_scene, ThermalRange()(scene(), 0.0), atol=0.01)
    assert ranges.no_data.rows == ((2, 0) if at_top else (0, 2))
    (sentence,) = ranges.no_data.sentences('thermal')
    assert 'thermal_crop: [2, 0]' in sentence if at_top else 'thermal_crop: [0, 2]' in sentence


@pytest.mark.parametrize('rows', [1, 3, 6])
@pytest.mark.parametrize('difference', [-3000, 3000])
def test_a_strip_of_sky_or_of_something_hot_is_image(rows, difference):
    image = raw().astype(np.int32)
    image[:rows] += difference
    assert find_no_data(image.astype(np.uint16)) is None


def test_a_few_wild_pixels_set_no_range():
    image = raw()
    random = np.random.default_rng(5)
    wild = random.random(SHAPE) < 0.015
    image[wild] = random.integers(0, 65536, np.count_nonzero(wild))
    mapped = ThermalRange()(image, 0.0)
    plain = ThermalRange()(raw(), 0.0)
    # The percentiles alone leave a hundredth of the contrast.
    assert mapped[~wild].std() > plain.std() / 3
    assert np.corrcoef(mapped[~wild], plain[~wild])[0, 1] > 0.99


def test_sentences():
    image = raw()
    image[:, :6] = 0
    assert find_no_data(image).sentences('thermal') == (
        '9.4 % of the thermal image is 0, far from the rest: taken as no data, without weight',
    )
    image = kelvin()
    image[:5] = np.nan
    assert find_no_data(image).sentences('thermal') == ()


def test_what_has_no_data_is_filled_from_around_it():
    image = np.full(SHAPE, 0.5, np.float32)
    mask = places('dead pixels') | places('frame')
    holes = np.where(mask, np.float32(0.0), image)
    result = filled(holes, mask)
    np.testing.assert_allclose(result[10:-10, 10:], 0.5, atol=1e-6)
    assert result[0, 32] == 0.0
    np.testing.assert_array_equal(result[~mask], image[~mask])


@pytest.mark.parametrize('size', [SIZE, (128, 96), (96, 80)])
def test_the_placement_leaves_it_out(size):
    mask = places('half')
    placement = placement_of_data(mask, None, size, 16.0)
    width, height = size
    assert placement.coverage.shape == (height, width)
    assert (placement.coverage[:, : int(0.39 * width)] < 0.01).all()
    assert (np.diff(placement.coverage, axis=1) >= -1e-6).all()
    assert (placement.coverage[:, int(0.4 * width) + 19 :] == 1.0).all()
    # Within what is there, and the rest of it where it was.
    again = placement_of_data(places('five'), placement, size, 16.0)
    assert (again.coverage <= placement.coverage).all()
    assert again.grid is placement.grid
    assert again.source_size == SIZE


def in_a_frame(top=0, bottom=0, left=0, right=0, level=0, noise=0):
    """Return a thermal image of 8 bits with black bars, as of a stream of another shape."""
    counts = raw().astype(np.float64)
    image = np.rint(40 + 180 * (counts - counts.min()) / (counts.max() - counts.min()))
    black = np.ones(image.shape, bool)
    black[top : len(image) - bottom, left : image.shape[1] - right] = False
    bars = level + np.random.default_rng(0).integers(0, noise + 1, image.shape)
    return np.where(black, bars, image).astype(np.uint8), black


@pytest.mark.parametrize(
    'bars',
    [
        {'top': 12, 'bottom': 12},
        {'left': 30, 'right': 29},
        {'left': 2},
        {'top': 8, 'bottom': 12, 'left': 20, 'right': 15},
        {'bottom': 15, 'level': 16, 'noise': 3},
    ],
)
def test_black_bars_of_8_bits_are_no_data(bars):
    image, black = in_a_frame(**bars)
    found = find_no_data(image)
    np.testing.assert_array_equal(found.mask, black)
    sides = ('top', 'bottom', 'left', 'right')
    assert found.bars == tuple(bars.get(side, 0) for side in sides)
    (text,) = found.sentences('thermal')
    named = ', '.join(f'{side} {bars[side]}' for side in sides if side in bars)
    assert text == (
        f'the thermal image has black bars ({named} pixels): taken as no data, without weight'
    )
    assert find_no_data(image, marks=False) is None
    # By name, all numbers are measurements.
    mapped = ThermalRange(mode='encoding')(image, 0.0)
    np.testing.assert_allclose(mapped * 255, image, atol=0.01)


def test_a_black_sky_and_a_black_image_are_no_bars():
    image, _ = in_a_frame(top=12)
    image[12:30, ::3] = 0  # trees, and sky between them
    assert find_no_data(image) is None
    assert find_no_data(np.zeros_like(image)) is None
    image, _ = in_a_frame(top=1)
    assert find_no_data(image) is None
    image, _ = in_a_frame(top=12, level=25)
    assert find_no_data(image) is None
