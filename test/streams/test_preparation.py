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

"""The steps that the node and the evaluation of bags share."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from dig2dig_ros.images.registration import Registration
from dig2dig_ros.images.registration_file import save_registration
from dig2dig_ros.streams.codec import CodecError
from dig2dig_ros.streams.pairing import Group
from dig2dig_ros.streams.preparation import (
    ArrivedImage,
    fused_picture,
    Preparation,
    PreparationError,
    SourceImages,
    stamp_of,
    weight_plane,
)
from dig2dig_ros.streams.registrar import Registrar

SECOND = 1_000_000_000
VALUES = {
    'missing_modality': 'wait',
    'thermal_range': 'auto',
    'thermal_range_percentiles': [0.0, 100.0],
    'thermal_range_limits': [0.0, 1000.0],
    'thermal_range_smoothing': 0.0,
    'thermal_polarity': 'white_hot',
    'thermal_crop': [0, 0],
    'visible_bits': 0,
    'frozen_timeout': 0.0,
    'max_pixels': 1_000_000,
    'thermal_to_visible': '',
    'extrinsics': '',
    'plane_distance': 20.0,
    'registration_edge': 4.0,
    'rectified': False,
}


def header():
    return SimpleNamespace(stamp=SimpleNamespace(sec=0, nanosec=0), frame_id='camera')


def prepared(images, source, content, stamp=0, values=VALUES, **how):
    """Return what becomes of one message."""
    return images(ArrivedImage(source, content, stamp, **how), stamp, values)


def message(image, encoding):
    return SimpleNamespace(
        header=header(),
        height=image.shape[0],
        width=image.shape[1],
        encoding=encoding,
        is_bigendian=0,
        step=image.strides[0],
        data=np.ascontiguousarray(image).reshape(-1).view(np.uint8),
    )


def counts(low, high):
    return np.linspace(low, high, 12).reshape(3, 4).round().astype(np.uint16)


def test_stamps_are_whole_nanoseconds():
    # More than a float could tell apart.
    header = SimpleNamespace(stamp=SimpleNamespace(sec=1_700_000_000, nanosec=123_456_789))
    assert stamp_of(header) == 1_700_000_000_123_456_789


def test_visible_images_stay_as_they_are():
    image = np.arange(36, dtype=np.uint8).reshape(3, 4, 3)
    np.testing.assert_array_equal(
        prepared(SourceImages(), 'visible', message(image, 'bgr8')), image
    )


def test_thermal_counts_become_intensities():
    image = counts(3000, 4000)
    result = prepared(SourceImages(), 'thermal', message(image, 'mono16'))
    np.testing.assert_allclose(result, (image - 3000.0) / 1000.0, atol=1e-6)


def test_a_black_hot_camera_gives_hot_people_all_the_same():
    image = counts(3000, 4000)
    black_hot = {**VALUES, 'thermal_polarity': 'black_hot'}
    result = prepared(SourceImages(), 'thermal', message(image, 'mono16'), values=black_hot)
    np.testing.assert_allclose(result, (4000.0 - image) / 1000.0, atol=1e-6)


def test_each_source_has_a_range_of_its_own_that_follows_the_scene():
    images = SourceImages()
    values = {**VALUES, 'thermal_range_smoothing': 1.0}
    first = prepared(images, 'thermal', message(counts(3000, 4000), 'mono16'), SECOND, values)
    prepared(images, 'nir', message(counts(10000, 20000), 'mono16'), SECOND, values)
    # A brighter scene a tenth of a second later is still seen by most of the old range.
    later = prepared(
        images, 'thermal', message(counts(3000, 4400), 'mono16'), SECOND + SECOND // 10, values
    )
    assert later[0, 1] > first[0, 1]
    images.clear()
    fresh = prepared(images, 'thermal', message(counts(3000, 4400), 'mono16'), SECOND, values)
    np.testing.assert_allclose(fresh[0, 1], first[0, 1], atol=1e-3)


def test_a_changed_parameter_takes_effect_on_the_next_frame():
    images = SourceImages()
    prepared(images, 'thermal', message(counts(3000, 4000), 'mono16'))
    fixed = {**VALUES, 'thermal_range': 'fixed', 'thermal_range_limits': [0.0, 8000.0]}
    result = prepared(images, 'thermal', message(counts(3000, 4000), 'mono16'), 1, fixed)
    assert result[0, 0] == pytest.approx(3000 / 8000)


def test_8_bit_images_of_further_sources_are_taken_as_they_are():
    image = np.arange(12, dtype=np.uint8).reshape(3, 4)
    result = prepared(SourceImages(), 'nir', message(image, 'mono8'))
    assert result.dtype == np.uint8


def test_compressed_messages_are_decompressed():
    image = np.arange(48, dtype=np.uint8).reshape(6, 8)
    data = cv2.imencode('.png', image)[1]
    result = prepared(SourceImages(), 'visible', SimpleNamespace(format='png', data=data))
    np.testing.assert_array_equal(result, image)


def test_errors_name_the_topic():
    broken = message(np.zeros((3, 4), np.uint8), 'mono8')
    broken.data = broken.data[:5]
    with pytest.raises(CodecError, match='/ir'):
        prepared(SourceImages(), 'thermal', broken, topic='/ir')


@pytest.mark.parametrize(('encoding', 'shape'), [('mono8', (3, 4)), ('bgr8', (3, 4, 3))])
def test_fused_pictures_have_the_channels_of_their_encoding(encoding, shape):
    grey = np.full((3, 4), 77, np.uint8)
    for image in (grey, np.repeat(grey[..., None], 3, axis=2)):
        picture = fused_picture(image, encoding)
        assert picture.shape == shape
        assert (picture == 77).all()


def test_weights_are_exact_or_scaled_to_8_bits():
    weights = np.array([[0.0, 0.5, 1.0]], dtype=np.float32)
    assert weight_plane(weights, '32FC1') is weights
    np.testing.assert_array_equal(weight_plane(weights, 'mono8'), [[0, 128, 255]])


# A whole group


def street(seed=0, size=(48, 64)):
    """Return a visible image with noise, as bgr8."""
    rng = np.random.default_rng(seed)
    return message(rng.integers(20, 200, (*size, 3), dtype=np.uint8), 'bgr8')


def heat(seed=0, size=(48, 64)):
    rng = np.random.default_rng(seed)
    return message(rng.integers(3000, 4000, size, dtype=np.uint16), 'mono16')


def group(visible, thermal, second=0.0):
    stamp = int(second * SECOND)
    images = ArrivedImage('visible', visible, stamp), ArrivedImage('thermal', thermal, stamp)
    return Group(images, (stamp, stamp))


def alone(source, content):
    return Group((ArrivedImage(source, content, 0),), (0,))


@pytest.fixture
def preparation():
    return Preparation(('visible', 'thermal'), Registrar(VALUES))


def test_a_group_is_ready_for_the_fuser(preparation):
    ready = preparation(group(street(), heat()), VALUES)
    assert [image.shape for image in ready.images] == [(48, 64, 3), (48, 64)]
    assert ready.placements == (None, None)
    assert ready.trust == (1.0, 1.0)


def test_the_noise_of_each_camera_is_measured_where_it_is_declared_so(preparation):
    random = np.random.default_rng(4)
    noisy = message(random.integers(80, 170, (48, 64), dtype=np.uint8), 'mono8')
    declared = {
        'fusion.visible_degradation': 'none',
        'fusion.thermal_degradation': 'stripes auto, noise auto',
    }
    visible, thermal = preparation(group(street(), noisy), {**VALUES, **declared}).noise
    assert visible is None
    assert thermal.white.deviation > 10
    table = preparation.noise_table()
    assert table['visible noise'] == '0.0'
    assert float(table['thermal noise']) == pytest.approx(thermal.white.deviation, abs=0.1)
    values = {**VALUES, **declared, 'missing_modality': 'any'}
    visible, thermal = preparation(alone('thermal', noisy), values).noise
    assert visible is None
    assert thermal.white.deviation > 10


def test_a_thermal_image_of_another_shape_is_stretched_with_a_word(tmp_path):
    matrix = np.array([[1.0, 0, 24], [0, 1, 3], [0, 0, 1]])
    path = tmp_path / 'registration.yaml'
    save_registration(Registration(matrix, (16, 42), (64, 48)), path)
    registered = {**VALUES, 'thermal_to_visible': str(path)}
    tall, alike = heat(size=(42, 16)), heat(size=(24, 30))
    for values, thermal, expected in (
        (VALUES, tall, ('stretched',)),
        (VALUES, alike, ()),
        (registered, tall, ()),
    ):
        ready = Preparation(('visible', 'thermal'), Registrar(values))
        ready(group(street(), thermal), values)
        condition = ready.images.conditions['thermal']
        assert (condition.kinds, condition.trust) == (expected, 1.0)
        said = 'thermal images of 16x42 pixels are stretched onto 64x48, in width 3.50 times'
        assert [text[: len(said)] for text in condition.faults] == [said] * len(expected)
        # So it is while the thermal camera goes on alone.
        ready(alone('thermal', thermal), {**values, 'missing_modality': 'any'})
        assert ready.images.conditions['thermal'].kinds == expected


def test_two_inputs_from_one_camera_are_reported(preparation):
    visible = np.random.default_rng(1).integers(20, 200, (48, 64), dtype=np.uint8)
    values = {**VALUES, 'thermal_range': 'auto'}
    for thermal, expected in ((visible, ('visible image',)), (255 - visible, ())):
        preparation(group(message(visible, 'mono8'), message(thermal, 'mono8')), values)
        condition = preparation.images.conditions['thermal']
        assert (condition.kinds, condition.trust) == (expected, 1.0)
    preparation(group(message(visible, 'mono8'), message(visible, 'mono8')), values)
    (text,) = preparation.images.conditions['thermal'].faults
    assert text.startswith('thermal images are those of the visible camera: give thermal/image_r')


def test_what_is_malformed_is_named(preparation):
    broken = heat()
    broken.data = broken.data[:9]
    with pytest.raises(PreparationError) as raised:
        preparation(group(street(), broken), VALUES)
    assert raised.value.cause == 'thermal refused'
    assert raised.value.source == 'thermal'


class Once(SimpleNamespace):
    """A message that can be decoded once."""

    @property
    def data(self):
        return self.__dict__.pop('pixels')


def test_the_other_image_goes_on_where_one_is_of_no_use_and_is_decoded_once(preparation):
    broken = street(9)  # no thermal image has colours
    values = {**VALUES, 'missing_modality': 'visible'}
    fields = dict(vars(street()))
    once = Once(pixels=fields.pop('data'), **fields)
    ready = preparation(group(once, broken), values)
    assert ready.left_out.cause == 'thermal refused'
    assert ready.left_out.source == 'thermal'
    assert ready.trust == (1.0, 0.0)
    assert ready.present == (True, False)
    assert not ready.images[1].any()
    values['missing_modality'] = 'thermal'
    with pytest.raises(PreparationError) as raised:
        preparation(group(street(1), broken, 0.1), values)
    assert raised.value.cause == 'thermal refused'
    broken.data = broken.data[:9]
    ready = preparation(group(broken, heat(1), 0.2), {**VALUES, 'missing_modality': 'any'})
    assert ready.left_out.cause == 'visible refused'
    assert ready.trust == (0.0, 1.0)
    assert preparation(group(street(2), heat(2), 0.3), VALUES).left_out is None


def test_a_camera_that_sees_nothing_is_not_trusted(preparation):
    black = message(np.zeros((48, 64, 3), np.uint8), 'bgr8')
    ready = preparation(group(black, heat()), VALUES)
    assert ready.trust == (0.0, 1.0)
    assert ready.present == (True, True)
    assert 'black' in preparation.images.conditions['visible'].kinds


def test_a_frozen_thermal_camera_counts_only_while_the_visible_one_moves(preparation):
    values = {**VALUES, 'frozen_timeout': 0.2}
    for index in range(8):
        ready = preparation(group(street(0), heat(0), index / 10), values)
    assert ready.trust == (1.0, 1.0)
    for index in range(8, 16):
        ready = preparation(group(street(index), heat(0), index / 10), values)
    assert ready.trust == (1.0, 0.0)


def test_a_dead_channel_leaves_a_grey_image_of_the_others(preparation):
    dead = street()
    image = dead.data.reshape(48, 64, 3)
    image[..., 1] = 0
    ready = preparation(group(dead, heat()), VALUES)
    assert ready.images[0].shape == (48, 64)
    expected = (0.114 * image[..., 0] + 0.299 * image[..., 2]) / 0.413
    np.testing.assert_allclose(ready.images[0], expected, atol=1)
    assert ready.trust[0] == pytest.approx(1 - 0.587, abs=0.02)


def test_one_camera_alone_leaves_the_other_black_and_without_trust(preparation):
    ready = preparation(alone('thermal', heat()), VALUES)
    assert ready.images[0].shape == (48, 64)
    ready = preparation(alone('visible', street()), VALUES)
    assert ready.trust == (1.0, 0.0)
    assert ready.images[1].shape == (48, 64)
    assert not ready.images[1].any()
    preparation(group(street(size=(96, 128)), heat()), VALUES)
    ready = preparation(alone('thermal', heat()), VALUES)
    assert ready.trust == (0.0, 1.0)
    assert ready.present == (False, True)
    assert ready.images[0].shape == (96, 128)


def test_a_camera_that_is_back_is_trusted_step_by_step(preparation):
    preparation(alone('visible', street()), VALUES)
    trust = [
        preparation(group(street(index), heat(index), 0.1 * index), VALUES).trust[1]
        for index in range(1, 8)
    ]
    assert trust == sorted(trust)
    assert trust[0] < 0.5
    assert trust[-1] == 1.0


def test_the_thermal_image_is_placed_as_its_registration_says(tmp_path):
    path = tmp_path / 'registration.yaml'
    save_registration(Registration(np.diag([2.0, 2.0, 1.0]), (32, 24), (64, 48)), path)
    values = {**VALUES, 'thermal_to_visible': str(path)}
    preparation = Preparation(('visible', 'thermal'), Registrar(values))
    first, second = (
        preparation(group(street(), heat(size=(24, 32)), second), values).placements
        for second in (0.0, 0.1)
    )
    assert first[0] is None
    assert first[1].source_size == (32, 24)
    assert first[1] is second[1]
    with pytest.raises(PreparationError, match='64x48') as raised:
        preparation(group(street(), heat(), 0.2), values)
    assert raised.value.cause == 'registration'


def test_thermal_alone_takes_the_visible_size_from_the_registration(tmp_path):
    path = tmp_path / 'registration.yaml'
    save_registration(Registration(np.diag([2.0, 2.0, 1.0]), (32, 24), (64, 48)), path)
    values = {**VALUES, 'thermal_to_visible': str(path)}
    preparation = Preparation(('visible', 'thermal'), Registrar(values))
    ready = preparation(alone('thermal', heat(size=(24, 32))), values)
    assert ready.images[0].shape == (48, 64)
    assert ready.placements[1] is not None


# What the camera did not measure


def warm_street(size=(48, 64)):
    """Return smooth centikelvins with noise, and a person 20 K above them."""
    rows, columns = np.indices(size)
    random = np.random.default_rng(3)
    scene = 28400 + 900 * (1 + np.sin(rows / 9) * np.cos(columns / 11)) + random.normal(0, 5, size)
    scene[20:40, 30:38] += 900
    return np.rint(scene).astype(np.uint16)


PERSON = (slice(21, 39), slice(31, 37))
BESIDE = (slice(21, 39), slice(42, 48))


@pytest.mark.parametrize('encoding', ['mono16', '16UC1', '32FC1'])
def test_zeros_that_are_no_data_leave_the_scene_its_range(preparation, encoding):
    counts = warm_street()
    kind = counts.astype(np.float32) if encoding == '32FC1' else counts
    (clean, _) = (
        preparation(group(street(), message(each, encoding), second), VALUES).images[1]
        for each, second in ((kind, 0.0), (kind, 0.1))
    )
    dirty = kind.copy()
    dirty[:6] = 0
    ready = preparation(group(street(1), message(dirty, encoding), 60.0), VALUES)
    contrast = [image[PERSON].mean() - image[BESIDE].mean() for image in (clean, ready.images[1])]
    assert contrast[1] == pytest.approx(contrast[0], rel=0.1)
    assert contrast[0] > 0.3
    coverage = ready.placements[1].coverage
    assert (coverage[:6] < 1e-6).all()
    assert (np.diff(coverage[5:16, 0]) > 0).any()
    assert (coverage[20:] == 1).all()
    assert ready.trust == (1.0, 1.0)
    condition = preparation.images.conditions['thermal']
    assert condition.kinds == ('no data',)
    assert condition.faults == (
        '12 % of the thermal image is 0, far from the rest: taken as no data, without weight',
    )
    assert preparation.images.table(())['thermal without data (%)'] == '12.5'
    # One object for the same pixels: it is uploaded but once.
    again = preparation(group(street(2), message(dirty, encoding), 60.1), VALUES)
    assert again.placements[1] is ready.placements[1]
    assert (
        preparation(group(street(3), message(kind, encoding), 60.2), VALUES).placements[1] is None
    )


def test_black_bars_of_an_8_bit_stream_have_no_weight(preparation):
    counts = warm_street().astype(np.float64)
    image = np.rint(40 + 200 * (counts - counts.min()) / (counts.max() - counts.min()))
    image = image.astype(np.uint8)
    image[:8] = 0
    ready = preparation(group(street(), message(image, 'mono8'), 0.0), VALUES)
    coverage = ready.placements[1].coverage
    assert (coverage[:8] < 1e-6).all()
    assert (coverage[26:] == 1).all()
    assert ready.trust == (1.0, 1.0)
    condition = preparation.images.conditions['thermal']
    assert condition.kinds == ('black bars',)
    assert condition.faults == (
        'the thermal image has black bars (top 8 pixels): taken as no data, without weight',
    )
    by_name = VALUES | {'thermal_range': 'encoding'}
    plain = preparation(group(street(1), message(image, 'mono8'), 0.1), by_name)
    assert plain.placements[1] is None


def test_nan_has_no_weight_and_is_no_fault(preparation):
    kelvin = (warm_street() / 100).astype(np.float32)
    kelvin[10:20, 50:60] = np.nan
    ready = preparation(group(street(), message(kelvin, '32FC1')), VALUES)
    assert (ready.placements[1].coverage[10:20, 50:60] < 1e-6).all()
    assert preparation.images.conditions['thermal'].kinds == ()
    assert preparation.images.table(())['thermal without data (%)'] == '3.3'


def test_no_data_lies_where_the_registration_puts_it(tmp_path):
    path = tmp_path / 'registration.yaml'
    save_registration(Registration(np.diag([2.0, 2.0, 1.0]), (32, 24), (64, 48)), path)
    values = {**VALUES, 'thermal_to_visible': str(path)}
    preparation = Preparation(('visible', 'thermal'), Registrar(values))
    counts = warm_street((24, 32))
    counts[:, :8] = 0
    ready = preparation(group(street(), message(counts, 'mono16')), values)
    coverage = ready.placements[1].coverage
    assert (coverage[:, :15] < 0.01).all()
    assert coverage[24, 30] > 0.5


def test_thermal_alone_is_black_where_it_has_no_data(preparation):
    counts = warm_street()
    counts[:6] = 0
    ready = preparation(alone('thermal', message(counts, 'mono16')), VALUES)
    assert (ready.placements[1].coverage[:6] < 1e-6).all()


def test_telemetry_is_named_and_can_be_left_out(preparation):
    rows = np.random.default_rng(1).integers(0, 65536, (2, 64), dtype=np.uint16)
    image = message(np.concatenate([warm_street(), rows]), 'mono16')
    ready = preparation(group(street(), image), VALUES)
    clean = SourceImages()
    expected = prepared(clean, 'thermal', message(warm_street(), 'mono16'))
    np.testing.assert_allclose(ready.images[1][:48], expected, atol=0.01)
    condition = preparation.images.conditions['thermal']
    assert condition.kinds == ('rows that are not image',)
    assert condition.faults[0].startswith('the last 2 rows of the thermal image are not image')
    assert condition.faults[0].endswith('thermal_crop: [0, 2]')
    cropped = preparation(group(street(1), image, 60.0), {**VALUES, 'thermal_crop': [0, 2]})
    assert cropped.images[1].shape == (48, 64)
    assert cropped.placements == (None, None)
    assert preparation.images.conditions['thermal'].kinds == ()
    np.testing.assert_allclose(cropped.images[1], expected, atol=1e-6)
    with pytest.raises(PreparationError, match='leaves nothing of 50 rows'):
        preparation(group(street(2), image, 60.1), {**VALUES, 'thermal_crop': [25, 25]})


# Bits that are used


def twelve_bits(seed=0, scale=1):
    rng = np.random.default_rng(seed)
    return (rng.integers(300, 4000, (48, 64)) * scale).astype(np.uint16)


@pytest.mark.parametrize('encoding', ['mono16', 'bayer_rggb16'])
def test_12_bits_in_16_are_found_scaled_and_said(preparation, encoding):
    image = twelve_bits()
    ready = preparation(group(message(image, encoding), heat()), VALUES)
    condition = preparation.images.conditions['visible']
    assert condition.trust == 1.0
    assert condition.kinds == ('few bits',)
    assert condition.faults == (
        'the visible image uses 12 of 16 bits and is scaled accordingly: set visible_bits to 12, '
        'or to 16 if it is just dark',
    )
    full = prepared(SourceImages(), 'visible', message(image << 4, encoding))
    np.testing.assert_allclose(ready.images[0], full, atol=1)
    # Stated, they are no news, and a bright spot beyond them is white.
    image[:8, :8] = 5000
    stated = {**VALUES, 'visible_bits': 12}
    again = preparation(group(message(image, encoding), heat(1), 0.1), stated)
    white = 0xFFF0 if encoding == 'mono16' else 255
    assert (again.images[0][2:6, 2:6] == white).all()
    assert preparation.images.conditions['visible'].kinds == ()


def test_a_thermal_camera_may_use_any_number_of_bits():
    images = SourceImages()
    prepared(images, 'thermal', message(twelve_bits(), 'mono16'))
    assert images.conditions['thermal'].kinds == ()


def test_bits_that_were_needed_once_stay(preparation):
    bright = message(twelve_bits(scale=15), 'mono16')
    dark = message(twelve_bits(1), 'mono16')
    preparation(group(bright, heat()), VALUES)
    ready = preparation(group(dark, heat(1), 0.1), VALUES)
    np.testing.assert_array_equal(ready.images[0], twelve_bits(1))
    assert preparation.images.conditions['visible'].kinds == ()
    # A covered lens is none of few bits.
    covered = message(np.random.default_rng(2).integers(0, 9, (48, 64), dtype=np.uint16), 'mono16')
    fresh = Preparation(('visible', 'thermal'), Registrar(VALUES))
    fresh(group(covered, heat()), VALUES)
    assert 'few bits' not in fresh.images.conditions['visible'].kinds


def test_compressed_images_of_12_bits_are_scaled_as_well():
    image = np.dstack([twelve_bits(seed) for seed in range(3)])
    data = cv2.imencode('.png', image)[1]
    images = SourceImages()
    content = SimpleNamespace(format='bgr16; png compressed bgr16', data=data)
    result = prepared(images, 'visible', content)
    np.testing.assert_allclose(result, image / 4095 * 255, atol=0.51)
    assert images.conditions['visible'].kinds == ('few bits',)


def as_jpeg(counts):
    data = cv2.imencode('.jpg', (counts >> 8).astype(np.uint8))[1]
    return SimpleNamespace(format='mono16; jpeg compressed mono8', data=data, header=header())


def test_jpeg_of_thermal_counts_says_how_many_levels_it_left():
    images = SourceImages()
    rows = np.linspace(7273, 7828, 48).astype(np.uint16)[:, None] + np.zeros((1, 64), np.uint16)
    prepared(images, 'thermal', as_jpeg(rows))
    condition = images.conditions['thermal']
    assert 'few levels' in condition.kinds
    levels = int(condition.faults[-1].split()[2])
    assert 2 <= levels <= 4
    assert condition.faults[-1] == (
        f'JPEG left {levels} levels of the thermal image: use png, which keeps 16 bits (png is a '
        'format of image_transport), or raw'
    )
    # A camera that uses all of its range loses less than eyes can see.
    wide = np.linspace(0, 65535, 48 * 64).astype(np.uint16).reshape(48, 64)
    prepared(images, 'thermal', as_jpeg(wide), SECOND)
    assert 'few levels' not in images.conditions['thermal'].kinds


def test_an_additional_camera_of_12_bits_is_scaled_too():
    images = SourceImages()
    image = twelve_bits()
    result = prepared(images, 'nir', message(image, 'bayer_rggb16'))
    full = prepared(SourceImages(), 'visible', message(image << 4, 'bayer_rggb16'))
    np.testing.assert_allclose(result, full, atol=1)
    assert images.conditions['nir'].faults == (
        'the nir image uses 12 of 16 bits and is scaled accordingly',
    )
    # One of 8 bits after it has none to say of.
    prepared(images, 'nir', message(full, 'bgr8'), SECOND)
    assert images.conditions['nir'].kinds == ()
