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

"""Stripes are found and removed where a sensor has them; what a scene has of them stays."""

import cv2
import numpy as np
import pytest

from dig2dig_ros.images.stripes import estimate_stripes, Stripes, without_stripes

SIZE = (320, 256)


def scene(seed=0):
    """Return (H, W), float64 in 40..215: warm shapes before a slope, through a lens."""
    random = np.random.default_rng(seed)
    width, height = SIZE
    image = np.linspace(150.0, 80.0, height)[:, np.newaxis].repeat(width, axis=1)
    for _ in range(30):
        x, y = int(random.integers(width)), int(random.integers(height))
        w, h = (int(side) for side in random.integers(4, width // 5, 2))
        cv2.rectangle(image, (x, y), (x + w, y + h), float(random.integers(40, 215)), -1)
    return cv2.GaussianBlur(image, (0, 0), 0.7)


def offsets(deviation, seed=3):
    return deviation * np.random.default_rng(seed).standard_normal(SIZE[0])


def as_bytes(image):
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def cleaned(image):
    return without_stripes(image, estimate_stripes(image, full_scale=255), full_scale=255)


def error(image, truth):
    """Return what is left that is finer than a scene's slopes, in grey levels."""
    rest = image - np.asarray(truth, float)
    return (rest - cv2.GaussianBlur(rest, (0, 0), 6)).std()


@pytest.mark.parametrize(('deviation', 'noise'), [(4, 0), (4, 5), (8, 10), (12, 0), (12, 10)])
def test_stripes_of_columns_are_found_and_removed(deviation, noise):
    clean = scene() + noise * np.random.default_rng(1).standard_normal(SIZE[::-1])
    image = as_bytes(clean + offsets(deviation))
    found = estimate_stripes(image, full_scale=255)
    assert found.columns == pytest.approx(deviation, rel=0.25)
    assert found.rows == 0
    assert found.row_offsets is None
    assert error(without_stripes(image, found, full_scale=255), clean) < 0.4 * error(image, clean)


def test_stripes_of_rows_are_those_of_columns_turned():
    image = as_bytes(scene() + offsets(12))
    upright, turned = (
        estimate_stripes(each, full_scale=255) for each in (image, np.ascontiguousarray(image.T))
    )
    assert turned.rows == upright.columns
    np.testing.assert_array_equal(turned.row_offsets, upright.column_offsets)
    removed = without_stripes(np.ascontiguousarray(image.T), turned, full_scale=255)
    np.testing.assert_array_equal(removed.T, without_stripes(image, upright, full_scale=255))


def test_both_at_once():
    clean = scene()
    rows = offsets(12, seed=4)[: SIZE[1], np.newaxis]
    image = as_bytes(clean + offsets(12) + rows)
    assert error(cleaned(image), clean) < 0.3 * error(image, clean)


@pytest.mark.parametrize('seed', range(5))
@pytest.mark.parametrize('noise', [0, 10, 40])
@pytest.mark.parametrize('quality', [None, 60])
def test_without_stripes_the_image_itself_comes_back(seed, noise, quality):
    random = np.random.default_rng(seed)
    image = as_bytes(scene(seed) + noise * random.standard_normal(SIZE[::-1]))
    if quality is not None:
        _, encoded = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, quality])
        image = cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED)
    assert estimate_stripes(image, full_scale=255) == Stripes()
    assert cleaned(image) is image


def test_poles_and_walls_are_no_stripes():
    image = scene()
    image[:, 100:104] = 230
    image[:, 200:] += 30
    image[20:, 50:58] = 20
    image = as_bytes(cv2.GaussianBlur(image, (0, 0), 0.7))
    assert cleaned(image) is image


def test_poles_stay_where_there_are_stripes():
    clean = scene()
    clean[150:, 100:104] = 230
    image = as_bytes(clean + offsets(10))
    pole = cleaned(image)[150:, 100:104].mean()
    assert pole == pytest.approx(230, abs=10)


@pytest.mark.parametrize('level', [0, 255])
def test_uniform_images_have_no_stripes(level):
    image = np.full(SIZE[::-1], level, np.uint8)
    assert cleaned(image) is image


def test_number_types_agree():
    image = as_bytes(scene() + offsets(12))
    expected = cleaned(image).astype(float)
    wide = image.astype(np.uint16) * 257
    unit = image / np.float32(255)
    for given, full_scale, grey in ((wide, 65535, 257), (unit, 1.0, 1 / 255)):
        before = given.copy()
        found = estimate_stripes(given, full_scale=full_scale)
        result = without_stripes(given, found, full_scale=full_scale)
        assert result.dtype == given.dtype
        np.testing.assert_allclose(result / grey, expected, atol=0.51)
        np.testing.assert_array_equal(given, before)


def test_offsets_do_not_leave_the_range():
    found = Stripes(columns=12.0, column_offsets=np.full(64, 12.0, np.float32))
    dark, bright = np.zeros((48, 64), np.uint8), np.full((48, 64), 255, np.uint8)
    assert without_stripes(dark, found, full_scale=255).max() == 0
    assert without_stripes(bright, found, full_scale=255).min() == 243
    lifted = Stripes(rows=9.0, row_offsets=np.full(48, -9.0, np.float32))
    assert without_stripes(bright, lifted, full_scale=255).min() == 255


@pytest.mark.parametrize(
    ('image', 'full_scale', 'said'),
    [
        (np.zeros((31, 64), np.uint8), 255, 'at least 32 pixels'),
        (np.zeros((64, 64, 3), np.uint8), 255, 'shape'),
        (np.zeros((64, 64)), 1, 'float64'),
        (np.zeros((64, 64), np.uint8), -1, 'full_scale'),
    ],
)
def test_what_is_no_such_image_is_refused(image, full_scale, said):
    with pytest.raises(ValueError, match=said):
        estimate_stripes(image, full_scale=full_scale)
