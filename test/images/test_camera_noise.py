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

"""What a camera does to its image: found where it is, and not where it is not."""

import cv2
import numpy as np
import pytest

from dig2dig_ros.images.camera_noise import CameraNoise, estimate_noise

# Deviation of the luma to that of its channels, if their noise is independent.
LUMA_OF_CHANNELS = np.linalg.norm((0.114, 0.587, 0.299))


def street(seed=0, size=(320, 256), texture=0.0):
    """Return a scene (H, W), float64 in 20..235: a sky, edges of all contrasts, texture of 1/f."""
    random = np.random.default_rng(seed)
    width, height = size
    image = np.linspace(200.0, 60.0, height)[:, np.newaxis].repeat(width, axis=1)
    for _ in range(40):
        x, y = int(random.integers(width)), int(random.integers(height))
        w, h = (int(side) for side in random.integers(4, width // 4, 2))
        cv2.rectangle(image, (x, y), (x + w, y + h), float(random.integers(20, 235)), -1)
    if texture:
        image += texture * natural_texture(random, (height, width))
    # No lens is perfect.
    image = cv2.GaussianBlur(image, (0, 0), 0.6)
    return np.clip(image, 0, 255)


def natural_texture(random, shape):
    """Return texture of deviation 1 whose amplitude falls with frequency."""
    rows, columns = np.fft.fftfreq(shape[0]), np.fft.fftfreq(shape[1])
    frequency = np.hypot(rows[:, np.newaxis], columns)
    frequency[0, 0] = np.inf
    values = np.fft.ifft2(np.fft.fft2(random.standard_normal(shape)) / frequency).real
    return values / values.std()


def with_noise(image, read, gain=0.0, seed=1):
    random = np.random.default_rng(seed)
    deviation = np.sqrt(read**2 + gain * image)
    return as_bytes(image + deviation * random.standard_normal(image.shape))


def as_bytes(image):
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def in_colour(image):
    return np.stack([image] * 3, axis=-1)


def found(image):
    return estimate_noise(image, full_scale=255).deviation


@pytest.mark.parametrize('deviation', [5, 10, 25, 40])
@pytest.mark.parametrize('texture', [0.0, 15.0])
def test_white_noise_is_found(deviation, texture):
    scene = 0.5 * street(texture=texture) + 64
    assert found(with_noise(scene, deviation)) == pytest.approx(deviation, rel=0.15)
    colour = found(with_noise(in_colour(scene), deviation))
    assert colour == pytest.approx(LUMA_OF_CHANNELS * deviation, rel=0.15)


@pytest.mark.parametrize('seed', range(4))
@pytest.mark.parametrize('texture', [0.0, 15.0])
@pytest.mark.parametrize('quality', [None, 95, 75, 40])
def test_clean_images_are_clean(seed, texture, quality):
    image = as_bytes(street(seed, texture=texture))
    if quality is not None:
        _, encoded = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, quality])
        image = cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED)
    assert found(image) < 2


@pytest.mark.parametrize('brightness', [0, 3, 12, 252])
def test_noise_is_found_where_most_of_it_is_clipped(brightness):
    scene = np.clip(0.04 * street() + brightness, 0, 255)
    assert found(with_noise(scene, 25)) == pytest.approx(25, rel=0.15)


def test_noise_that_grows_with_the_light_is_told_from_noise_that_does_not():
    scene = street(size=(640, 512))
    photons = estimate_noise(with_noise(scene, 3, gain=2.0), full_scale=255)
    for brightness in (40, 120, 200):
        assert photons.at(brightness) == pytest.approx(np.sqrt(9 + 2 * brightness), rel=0.15)
    white = estimate_noise(with_noise(scene, 15), full_scale=255)
    for brightness in (40, 120, 200):
        assert white.at(brightness) == pytest.approx(15, rel=0.15)


@pytest.mark.parametrize('image', [np.zeros((64, 64)), np.full((40, 90), 255), street()])
def test_what_has_no_noise_has_none(image):
    assert found(image.astype(np.uint8)) < 1
    assert found(in_colour(image.astype(np.uint8))) < 1


def test_number_types_agree():
    image = with_noise(street(), 12)
    expected = found(image)
    wide = estimate_noise(image.astype(np.uint16) * 257, full_scale=65535)
    unit = estimate_noise(image / np.float32(255), full_scale=1.0)
    assert wide.deviation == pytest.approx(expected, rel=1e-3)
    assert unit.deviation == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize('size', [(32, 32), (33, 75), (64, 48), (1280, 40)])
def test_images_may_be_small(size):
    assert found(with_noise(street(size=size) / 2 + 64, 20)) == pytest.approx(20, rel=0.3)


def test_the_same_image_has_the_same_noise_and_is_not_changed():
    image = with_noise(street(), 7)
    before = image.copy()
    assert estimate_noise(image, full_scale=255) == estimate_noise(image[:], full_scale=255)
    assert np.array_equal(image, before)


def test_views_are_read_as_what_they_show():
    image = with_noise(in_colour(street()), 7)
    flipped = image[::-1, ::-1]
    expected = estimate_noise(flipped.copy(), full_scale=255)
    assert estimate_noise(flipped, full_scale=255) == expected


@pytest.mark.parametrize(
    ('image', 'full_scale', 'said'),
    [
        (np.zeros((31, 64), np.uint8), 255, 'at least 32 pixels'),
        (np.zeros((64, 64, 4), np.uint8), 255, 'shape'),
        (np.zeros((64, 64)), 1, 'float64'),
        (np.zeros((64, 64), np.uint8), 0, 'full_scale'),
    ],
)
def test_what_is_no_such_image_is_refused(image, full_scale, said):
    with pytest.raises(ValueError, match=said):
        estimate_noise(image, full_scale=full_scale)


def test_noise_by_brightness():
    noise = CameraNoise(read=3.0, gain=0.16)
    assert noise.at(0) == 3.0
    assert noise.at(100) == 5.0
    assert noise.at(-4) == 3.0


@pytest.mark.parametrize('level', [0, 40, 128])
def test_images_of_one_brightness_say_nothing_of_others(level):
    image = with_noise(np.full((256, 320), float(level)), 8)
    noise = estimate_noise(image, full_scale=255)
    for brightness in (0, 100, 255):
        assert noise.at(brightness) == pytest.approx(8, rel=0.25)
