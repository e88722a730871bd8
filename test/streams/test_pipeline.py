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

from dig2dig_ros.streams.codec import CodecError
from dig2dig_ros.streams.pipeline import fused_picture, SourceImages, stamp_of, weight_plane

SECOND = 1_000_000_000
VALUES = {
    'thermal_range': 'auto',
    'thermal_range_percentiles': [0.0, 100.0],
    'thermal_range_limits': [0.0, 1000.0],
    'thermal_range_smoothing': 0.0,
}


def message(image, encoding):
    return SimpleNamespace(
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
        SourceImages()('visible', message(image, 'bgr8'), 0, VALUES), image
    )


def test_thermal_counts_become_intensities():
    image = counts(3000, 4000)
    result = SourceImages()('thermal', message(image, 'mono16'), 0, VALUES)
    np.testing.assert_allclose(result, (image - 3000.0) / 1000.0, atol=1e-6)


def test_each_source_has_a_range_of_its_own_that_follows_the_scene():
    images = SourceImages()
    values = {**VALUES, 'thermal_range_smoothing': 1.0}
    first = images('thermal', message(counts(3000, 4000), 'mono16'), SECOND, values)
    images('nir', message(counts(10000, 20000), 'mono16'), SECOND, values)
    # A brighter scene a tenth of a second later is still seen by most of the old range.
    later = images('thermal', message(counts(3000, 4400), 'mono16'), SECOND + SECOND // 10, values)
    assert later[0, 1] > first[0, 1]
    images.clear()
    fresh = images('thermal', message(counts(3000, 4400), 'mono16'), SECOND, values)
    np.testing.assert_allclose(fresh[0, 1], first[0, 1], atol=1e-3)


def test_a_changed_parameter_takes_effect_on_the_next_frame():
    images = SourceImages()
    images('thermal', message(counts(3000, 4000), 'mono16'), 0, VALUES)
    fixed = {**VALUES, 'thermal_range': 'fixed', 'thermal_range_limits': [0.0, 8000.0]}
    result = images('thermal', message(counts(3000, 4000), 'mono16'), 1, fixed)
    assert result[0, 0] == pytest.approx(3000 / 8000)


def test_8_bit_images_of_further_sources_are_taken_as_they_are():
    image = np.arange(12, dtype=np.uint8).reshape(3, 4)
    result = SourceImages()('nir', message(image, 'mono8'), 0, VALUES)
    assert result.dtype == np.uint8


def test_compressed_messages_are_decompressed():
    image = np.arange(48, dtype=np.uint8).reshape(6, 8)
    data = cv2.imencode('.png', image)[1]
    result = SourceImages()(
        'visible', SimpleNamespace(format='png', data=data), 0, VALUES, compressed=True
    )
    np.testing.assert_array_equal(result, image)


def test_errors_name_the_topic():
    broken = message(np.zeros((3, 4), np.uint8), 'mono8')
    broken.data = broken.data[:5]
    with pytest.raises(CodecError, match='/ir'):
        SourceImages()('thermal', broken, 0, VALUES, topic='/ir')


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
