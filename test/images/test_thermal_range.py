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

"""The thermal range: right values, and steady ones."""

from functools import cache
from itertools import pairwise
import math

import cv2
import numpy as np
import pytest

from dig2dig_ros.evaluation.synthetic_scene import SyntheticScene
from dig2dig_ros.images.thermal_range import MODES, ThermalRange, ThermalRangeError

FRAME_TIME = 1.0 / 9.0


def street(seed=0, level=8000, spread=400, shape=(120, 160)):
    """Return a 14-bit scene: a gradient, some texture, sensor noise of 3 counts."""
    generator = np.random.default_rng(seed)
    rows = np.linspace(0.0, 1.0, shape[0])[:, None]
    columns = np.linspace(0.0, 6.0, shape[1])
    scene = level + spread * (0.6 * rows + 0.2 * (1.0 + np.sin(columns)))
    return np.rint(scene + generator.normal(0.0, 3.0, shape)).astype(np.uint16)


def test_percentiles_become_0_and_1():
    image = np.arange(10_000, dtype=np.uint16).reshape(100, 100) + 3000
    mapped = ThermalRange('percentile', percentiles=(10.0, 90.0))(image, 1.0)
    low, high = 3000 + round(0.1 * 9999), 3000 + round(0.9 * 9999)
    expected = np.clip((image.astype(np.float64) - low) / (high - low), 0.0, 1.0)
    assert mapped.dtype == np.float32
    assert mapped.flags.c_contiguous
    np.testing.assert_allclose(mapped, expected, atol=1e-6)


@pytest.mark.parametrize('dtype', [np.uint16, np.int16, np.int32, np.float32, np.float64])
def test_number_types_agree(dtype):
    image = street()
    expected = ThermalRange()(image, 1.0)
    np.testing.assert_allclose(ThermalRange()(image.astype(dtype), 1.0), expected, atol=1e-6)


def test_eight_bit_percentile_agrees_with_numpy():
    image = np.random.default_rng(1).integers(40, 200, (90, 90)).astype(np.uint8)
    low, high = np.percentile(image, (1.0, 99.5), method='nearest')
    mapped = ThermalRange('percentile')(image, 1.0)
    expected = np.clip((image - float(low)) / float(high - low), 0.0, 1.0)
    np.testing.assert_allclose(mapped, expected, atol=1e-6)


def test_large_images_are_sampled_well():
    image = street(shape=(1024, 1280))
    mapped = ThermalRange(percentiles=(1.0, 99.0))(image, 1.0)
    assert abs(np.mean(mapped == 0.0) - 0.01) < 0.005
    assert abs(np.mean(mapped == 1.0) - 0.01) < 0.005


def test_encoding_is_the_full_range_of_the_type():
    by_encoding = ThermalRange('encoding')
    bytes_ = np.array([[0, 51, 255]], np.uint8)
    np.testing.assert_allclose(by_encoding(bytes_, 0.0), [[0.0, 0.2, 1.0]], atol=1e-6)
    counts = np.array([[0, 13107, 65535]], np.uint16)
    np.testing.assert_allclose(by_encoding(counts, 0.0), [[0.0, 0.2, 1.0]], atol=1e-6)
    floats = np.array([[-0.5, 0.0, 0.2, 1.0, 1.5]], np.float32)
    np.testing.assert_allclose(by_encoding(floats, 0.0), [[0.0, 0.0, 0.2, 1.0, 1.0]], atol=1e-6)


def test_auto_leaves_eight_bits_and_stretches_the_rest():
    bytes_ = np.random.default_rng(0).integers(100, 140, (64, 64)).astype(np.uint8)
    np.testing.assert_allclose(ThermalRange('auto')(bytes_, 0.0), bytes_ / 255.0, atol=1e-6)
    for image in (street(), street().astype(np.float32) * 0.01):
        mapped = ThermalRange('auto')(image, 0.0)
        np.testing.assert_array_equal(mapped, ThermalRange('percentile')(image, 0.0))
        assert mapped.min() == 0.0
        assert mapped.max() == 1.0


def test_fixed_limits():
    fixed = ThermalRange('fixed', limits=(7000.0, 9000.0))
    image = np.array([[6000, 7000, 7500, 9000, 16383]], np.uint16)
    np.testing.assert_allclose(fixed(image, 0.0), [[0.0, 0.0, 0.25, 1.0, 1.0]], atol=1e-6)
    np.testing.assert_array_equal(fixed(image, 1.0), fixed(image, 9.0))


@pytest.mark.parametrize('mode', MODES)
def test_input_is_neither_changed_nor_returned(mode):
    image = street().astype(np.float32)
    before = image.copy()
    mapped = ThermalRange(mode)(image, 1.0)
    np.testing.assert_array_equal(image, before)
    assert not np.shares_memory(image, mapped)


def test_padded_rows():
    padded = np.zeros((120, 200), np.uint16)
    padded[:, :160] = street()
    expected = ThermalRange()(street(), 1.0)
    np.testing.assert_array_equal(ThermalRange()(padded[:, :160], 1.0), expected)


def test_a_static_scene_is_static():
    thermal_range = ThermalRange()
    frames = [thermal_range(street(), index * FRAME_TIME) for index in range(5)]
    for frame in frames[1:]:
        np.testing.assert_array_equal(frame, frames[0])


@pytest.mark.parametrize('counts', [600, 4000])
def test_a_hot_object_does_not_make_the_background_flicker(counts):
    background = street()
    hot = background.copy()
    hot[30:90, 60:80] += counts
    still = np.ones(background.shape, bool)
    still[30:90, 60:80] = False
    visits = [background] * 3 + [hot] * 20 + [background] * 20

    smoothed, unsmoothed = ThermalRange(), ThermalRange(smoothing=0.0)
    largest = {}
    for name, thermal_range in (('smoothed', smoothed), ('unsmoothed', unsmoothed)):
        frames = [thermal_range(image, i * FRAME_TIME) for i, image in enumerate(visits)]
        largest[name] = max(
            float(np.abs(after - before)[still].max()) for before, after in pairwise(frames)
        )
    share = 1.0 - math.exp(-FRAME_TIME / 1.0)
    assert largest['smoothed'] <= share + 1e-5
    assert largest['unsmoothed'] > 3.0 * share


def test_a_hot_object_is_saturated_first_and_resolved_later():
    thermal_range = ThermalRange()
    background = street()
    thermal_range(background, 0.0)
    hot = background.copy()
    hot[30:90, 60:80] += np.arange(20, dtype=np.uint16) * 50 + 500
    first = thermal_range(hot, FRAME_TIME)
    assert (first[30:90, 70:80] == 1.0).all()
    for index in range(2, 90):
        last = thermal_range(hot, index * FRAME_TIME)
    np.testing.assert_allclose(last, ThermalRange()(hot, 0.0), atol=0.01)


def test_the_time_constant_does_not_depend_on_the_frame_rate():
    ends = []
    # High grows by less than the present span, so that only the first-order filter acts.
    wider = np.rint((street().astype(float) - 8000) * 1.5 + 8000).astype(np.uint16)
    for rate in (9, 30, 60):
        thermal_range = ThermalRange(smoothing=2.0)
        thermal_range(street(), 0.0)
        for index in range(1, 2 * rate + 1):
            mapped = thermal_range(wider, index / rate)
        ends.append(mapped)
    np.testing.assert_allclose(ends[0], ends[1], atol=1e-4)
    np.testing.assert_allclose(ends[0], ends[2], atol=1e-4)
    settled = ThermalRange()(wider, 0.0)
    assert np.abs(ends[0] - settled).max() > 0.02


@pytest.mark.parametrize('level', [2000, 12000])
def test_another_scene_is_taken_over_at_once(level):
    thermal_range = ThermalRange()
    for index in range(5):
        thermal_range(street(), index * FRAME_TIME)
    other = street(seed=1, level=level)
    mapped = thermal_range(other, 5 * FRAME_TIME)
    np.testing.assert_array_equal(mapped, ThermalRange()(other, 0.0))


def test_a_scene_that_hardly_overlaps_recovers_within_a_few_frames():
    thermal_range = ThermalRange()
    thermal_range(street(), 0.0)
    other = street(level=8340)
    settled = ThermalRange()(other, 0.0)
    errors = [
        float(np.abs(thermal_range(other, index * FRAME_TIME) - settled).max())
        for index in range(1, 20)
    ]
    slow = math.exp(-3 * FRAME_TIME)
    assert errors[0] < 0.6
    assert errors[2] < 0.5 * slow * 0.85
    assert errors[-1] < 0.1


@pytest.mark.parametrize('stamp', [-1.0, 9.9, 100.0])
def test_a_jump_of_the_clock_starts_anew(stamp):
    thermal_range = ThermalRange()
    thermal_range(street(), 10.0)
    wider = street(spread=2000)
    mapped = thermal_range(wider, stamp)
    np.testing.assert_array_equal(mapped, ThermalRange()(wider, 0.0))


def test_reset_starts_anew():
    thermal_range = ThermalRange()
    thermal_range(street(), 1.0)
    hotter = street(spread=550)
    remembered = thermal_range(hotter, 1.0 + FRAME_TIME)
    thermal_range.reset()
    fresh = thermal_range(hotter, 1.0 + 2 * FRAME_TIME)
    np.testing.assert_array_equal(fresh, ThermalRange()(hotter, 0.0))
    assert np.abs(remembered - fresh).max() > 0.1


@pytest.mark.parametrize('rate', [9, 30, 60])
def test_a_shutter_that_the_camera_shows_costs_no_frame_after_it(rate):
    noise = np.random.default_rng(0)
    scene = street(spread=1500)
    thermal_range = ThermalRange()
    before = thermal_range(scene, 0.0)
    for number in range(1, rate + 1):
        shutter = np.rint(scene.mean() + noise.normal(0, 3, scene.shape)).astype(np.uint16)
        thermal_range(shutter, number / rate)
    np.testing.assert_array_equal(thermal_range(scene, 1 + 1 / rate), before)


def test_the_same_stamp_keeps_the_range():
    thermal_range = ThermalRange()
    first = thermal_range(street(), 1.0)
    thermal_range(street(spread=2000), 1.0)
    np.testing.assert_array_equal(thermal_range(street(), 1.0), first)


@pytest.mark.parametrize('mode', MODES)
def test_what_is_not_finite(mode):
    image = street().astype(np.float32)
    if mode in ('encoding', 'fixed'):
        image = (image - 7900.0) / 600.0
    clean = ThermalRange(mode, limits=(0.0, 1.0))(image, 0.0)
    dirty = image.copy()
    dirty[5, 5], dirty[5, 6], dirty[5, 7] = np.nan, np.inf, -np.inf
    mapped = ThermalRange(mode, limits=(0.0, 1.0))(dirty, 0.0)
    np.testing.assert_array_equal(mapped[5, 5:8], [0.0, 1.0, 0.0])
    dirty[5, 5:8] = image[5, 5:8]
    rest = np.isfinite(mapped)
    rest[5, 5:8] = False
    np.testing.assert_allclose(mapped[rest], clean[rest], atol=0.01)


def test_percentiles_ignore_what_is_not_finite():
    image = np.full((100, 100), np.nan, np.float32)
    image[40:60] = np.linspace(290.0, 310.0, 100, dtype=np.float32)
    image[0], image[1] = np.inf, -np.inf
    mapped = ThermalRange(percentiles=(0.0, 100.0))(image, 0.0)
    np.testing.assert_allclose(mapped[50], np.linspace(0.0, 1.0, 100), atol=1e-4)
    assert (mapped[2:40] == 0.0).all()


def test_a_few_finite_pixels_are_found_between_the_sampled_ones():
    image = np.full((1000, 1000), np.nan, np.float32)
    image[501, 503], image[502, 503] = 290.0, 310.0
    mapped = ThermalRange(percentiles=(0.0, 100.0))(image, 0.0)
    assert mapped[501, 503] == 0.0
    assert mapped[502, 503] == 1.0


@pytest.mark.parametrize('mode', MODES)
@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
def test_nothing_finite_is_refused(mode, value):
    with pytest.raises(ThermalRangeError, match='no finite value'):
        ThermalRange(mode)(np.full((300, 300), value, np.float32), 0.0)


def test_the_range_survives_a_refused_frame():
    thermal_range = ThermalRange()
    image = street().astype(np.float32)
    first = thermal_range(image, 0.0)
    with pytest.raises(ThermalRangeError):
        thermal_range(np.full_like(image, np.nan), 0.05)
    np.testing.assert_array_equal(thermal_range(image, 0.1), first)


@pytest.mark.parametrize(
    'image',
    [
        np.full((40, 40), 8000, np.uint16),
        np.zeros((40, 40), np.uint16),
        np.full((40, 40), 65535, np.uint16),
        np.full((40, 40), 300.0, np.float32),
        np.zeros((40, 40), np.float32),
        np.full((1, 1), 7, np.uint16),
    ],
)
def test_a_constant_image_is_in_the_middle(image):
    np.testing.assert_allclose(ThermalRange()(image, 0.0), 0.5, atol=1e-4)


@pytest.mark.parametrize(
    ('offset', 'noise', 'dtype'),
    [(8000, 3.0, np.uint16), (120, 0.6, np.uint8), (300.0, 0.02, np.float32)],
)
def test_noise_is_not_stretched_to_full_contrast(offset, noise, dtype):
    values = np.random.default_rng(0).normal(offset, noise, (120, 160))
    image = (values if dtype == np.float32 else np.rint(values)).astype(dtype)
    mapped = ThermalRange('percentile')(image, 0.0)
    assert 0.0 < mapped.std() < 0.08
    assert abs(mapped.mean() - 0.5) < 0.05


def test_minimum_span_is_a_setting():
    image = np.array([[1000, 1010]], np.uint16)
    wide = ThermalRange(percentiles=(0.0, 100.0), minimum_span=20.0)(image, 0.0)
    np.testing.assert_allclose(wide, [[0.25, 0.75]], atol=1e-6)
    full = ThermalRange(percentiles=(0.0, 100.0), minimum_span=10.0)(image, 0.0)
    np.testing.assert_allclose(full, [[0.0, 1.0]], atol=1e-6)


def test_grey_in_three_channels_is_grey():
    grey = np.random.default_rng(0).integers(0, 256, (50, 60)).astype(np.uint8)
    np.testing.assert_array_equal(
        ThermalRange()(np.dstack([grey] * 3), 0.0), ThermalRange()(grey, 0.0)
    )


@cache
def street_in_range():
    return ThermalRange('percentile')(SyntheticScene(64, 48, seed=2).render(0.0).thermal, 0.0)


def eight_bits(span=(0, 255)):
    """Return the thermal image of the synthetic street as a camera with gain control shows it."""
    mapped = street_in_range()
    return np.rint(span[0] + (span[1] - span[0]) * mapped).astype(np.uint8)


def through_jpeg(image, quality):
    data = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return cv2.imdecode(data, cv2.IMREAD_UNCHANGED)


@pytest.mark.parametrize('spread', [0, 1, 2])
def test_grey_with_the_errors_of_lossy_compression_is_grey(spread):
    grey = eight_bits((10, 245))
    noise = np.random.default_rng(0).integers(-spread, spread + 1, (*grey.shape, 3))
    coloured = (grey[:, :, None] + noise).astype(np.uint8)
    by_one = cv2.cvtColor(np.dstack([grey] * 3), cv2.COLOR_BGR2YCrCb) + np.uint8([0, 1, 1])
    by_one = cv2.cvtColor(by_one, cv2.COLOR_YCrCb2BGR)
    jpegs = [through_jpeg(coloured, quality) for quality in (50, 80, 95)]
    for image in (coloured, by_one, *jpegs):
        expected = image[:, :, 1] / np.float32(255.0)
        np.testing.assert_allclose(ThermalRange()(image, 0.0), expected, atol=1e-6)


PALETTES = sorted(name for name in dir(cv2) if name.startswith('COLORMAP_'))


@pytest.mark.parametrize('palette', PALETTES)
def test_palettes_are_refused(palette):
    for span in ((0, 255), (0, 60), (80, 160), (200, 255)):
        image = cv2.applyColorMap(eight_bits(span), getattr(cv2, palette))
        for view in (image, through_jpeg(image, 80), through_jpeg(image, 50), image[:, :, ::-1]):
            with pytest.raises(
                ThermalRangeError, match=r'colour palette \(false colour\).*mono16'
            ):
                ThermalRange()(view, 0.0)


def test_grey_with_coloured_marks_is_refused():
    image = np.dstack([eight_bits()] * 3)
    image[20:22, 30:33] = (0, 0, 255)
    with pytest.raises(ThermalRangeError, match='without coloured marks'):
        ThermalRange()(image, 0.0)


@pytest.mark.parametrize('dtype', [np.uint16, np.float32])
def test_wider_types_have_no_errors_of_compression(dtype):
    image = np.full((50, 60, 3), 90, dtype)
    ThermalRange()(image, 0.0)
    image[20, 30, 1] = 91
    with pytest.raises(ThermalRangeError, match='palette'):
        ThermalRange()(image, 0.0)


@pytest.mark.parametrize(
    'image',
    [
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros(16, np.uint8),
        np.zeros((0, 4), np.uint16),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4), bool),
        np.zeros((4, 4), np.complex64),
    ],
)
def test_what_is_no_image_is_refused(image):
    with pytest.raises(ThermalRangeError, match=r'\(H, W\)'):
        ThermalRange()(image, 0.0)


@pytest.mark.parametrize('mode', MODES)
@pytest.mark.parametrize('dtype', [np.uint8, np.uint16, np.float32])
def test_black_hot_is_the_inverse_but_for_what_is_no_measurement(mode, dtype):
    if dtype == np.float32:
        image = np.linspace(0, 1, 2400, dtype=dtype).reshape(40, 60)
        image[:, 0] = np.nan
    else:
        image = np.linspace(100, 250, 2400).reshape(40, 60).astype(dtype)
    white_hot = ThermalRange(mode, limits=(0.0, 300.0))(image, 1.0)
    black_hot = ThermalRange(mode, limits=(0.0, 300.0), polarity='black_hot')(image, 1.0)
    measured = np.isfinite(image)
    np.testing.assert_allclose(black_hot[measured], 1.0 - white_hot[measured], atol=1e-6)
    assert not black_hot[~measured].any()


@pytest.mark.parametrize(
    ('settings', 'reason'),
    [
        ({'mode': 'agc'}, "unknown thermal range 'agc': use auto, percentile, fixed, encoding"),
        ({'percentiles': (50.0, 50.0)}, 'must rise'),
        ({'percentiles': (-1.0, 50.0)}, 'within 0 to 100'),
        ({'percentiles': (1.0, 101.0)}, 'within 0 to 100'),
        ({'percentiles': (math.nan, 99.0)}, 'within 0 to 100'),
        ({'limits': (2.0, 1.0)}, 'limits 2, 1'),
        ({'limits': (0.0, math.inf)}, 'limits'),
        ({'smoothing': -0.1}, 'smoothing must be .* not -0.1'),
        ({'smoothing': math.nan}, 'smoothing'),
        ({'minimum_span': 0.0}, 'minimum span must be above 0, not 0'),
        ({'polarity': 'hot'}, "polarity 'hot' is unknown: use white_hot or black_hot"),
    ],
)
def test_bad_settings_are_refused(settings, reason):
    with pytest.raises(ThermalRangeError, match=reason):
        ThermalRange(**settings)


@pytest.mark.parametrize('value', [3e38, np.finfo(np.float32).max, 1e30, 1e12, -1e12, 1e6])
@pytest.mark.parametrize('share', [1.0, 0.7, 0.3, 0.001])
@pytest.mark.parametrize('first', [True, False])
def test_one_wild_frame_costs_itself_at_most(value, share, first):
    image = street().astype(np.float32) / 100
    expected = ThermalRange()(image, 0.0)
    wild = image.copy()
    # All over the scene, so that what is left of it has the same range.
    wild[np.random.default_rng(1).random(wild.shape) < share] = value
    thermal_range = ThermalRange()
    frames = [wild, image] if first else [image, wild]
    for index, frame in enumerate(frames):
        try:
            mapped = thermal_range(frame, index * FRAME_TIME)
        except ThermalRangeError:
            assert share == 1.0
        else:
            assert np.isfinite(mapped).all()
    mapped = thermal_range(image, 2 * FRAME_TIME)
    np.testing.assert_allclose(mapped, expected, atol=0.02)


def test_a_range_is_positive_and_finite_whatever_comes():
    random = np.random.default_rng(7)
    thermal_range = ThermalRange()
    for index in range(200):
        frame = random.normal(0, 1, (12, 16)) * 10.0 ** random.uniform(-45, 45)
        frame += 10.0 ** random.uniform(-45, 38)
        with np.errstate(over='ignore'):
            frame = frame.astype(np.float32)
        try:
            mapped = thermal_range(frame, 0.1 * index)
        except ThermalRangeError:
            continue  # of a frame that has nothing finite
        assert np.isfinite(mapped).all()
        assert mapped.min() >= 0.0
        assert mapped.max() <= 1.0
