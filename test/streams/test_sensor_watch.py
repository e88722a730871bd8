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

"""What images say about their camera: each fault is found, no sound camera is accused."""

from collections import Counter
from functools import cache
from itertools import pairwise
import math

import cv2
import numpy as np
import pytest

from dig2dig_ros.evaluation.synthetic_scene import SyntheticScene
from dig2dig_ros.streams.sensor_watch import Condition, SensorWatch

PERIOD = 1.0 / 30.0
SHAPE = (48, 64)
WELL = Condition(1.0)
# Parts of blue, green and red in luma.
LUMA = (0.114, 0.587, 0.299)


@pytest.fixture(scope='module')
def frames():
    """Return 40 frames of the synthetic street at 30 Hz."""
    scene = SyntheticScene(SHAPE[1], SHAPE[0], seed=2)
    return [scene.render(index * PERIOD) for index in range(40)]


def noisy(level, noise, dtype=np.uint8, shape=SHAPE, seed=0):
    """Return a uniform image with the noise of a sensor (standard deviation)."""
    values = np.random.default_rng(seed).normal(level, noise, shape)
    if np.dtype(dtype).kind == 'f':
        return values.astype(dtype)
    info = np.iinfo(dtype)
    return np.clip(np.rint(values), info.min, info.max).astype(dtype)


def first(image, source='visible'):
    return SensorWatch(source)(image, 1.0)


def watched(images, period=PERIOD, source='thermal', start=0.0, other_moves=True, **settings):
    """Return what a new watch says of each image."""
    watch = SensorWatch(source, **settings)
    return [
        watch(image, start + index * period, other_moves) for index, image in enumerate(images)
    ]


def with_freeze(images, begin, length):
    """Return the images, of which one is repeated `length` times in the place of others."""
    return [*images[:begin], *[images[begin - 1]] * length, *images[begin + length :]]


# Frozen


def test_a_sound_pair_of_cameras_is_trusted(frames):
    for source in ('visible', 'thermal'):
        images = [getattr(frame, source) for frame in frames]
        assert watched(images, source=source) == [WELL] * len(images)


@pytest.mark.parametrize('rate', [5.0, 9.0, 30.0, 60.0])
def test_a_frozen_camera_is_found_by_the_clock_at_any_rate(frames, rate):
    images = [frame.thermal for frame in frames]
    images = images[:10] + [images[9]] * math.ceil(1.5 * rate) + images[10:]
    last_live = 9.0 / rate
    for index, condition in enumerate(watched(images, 1.0 / rate, fade=0.0)):
        asleep = index / rate - last_live
        repeats = index - 9
        frozen = repeats >= 2 and asleep > 0.3 + 1e-9 and index < len(images) - 30
        if abs(asleep - 0.3) < 1e-9:
            continue  # The stamps have rounding errors.
        assert condition.frozen == frozen, index
        assert condition.trust == (0.0 if frozen else 1.0)
        if frozen:
            assert condition.kinds == ('frozen',)
            assert condition.faults == (f'the thermal image has been frozen for {asleep:.1f} s',)
        else:
            assert condition == WELL


def test_one_repeat_is_no_freeze_however_slow_the_camera(frames):
    images = [frame.thermal for frame in frames[:12] for _ in range(2)]
    assert watched(images, period=1.0) == [WELL] * len(images)


def test_a_driver_that_fills_up_a_slow_sensor_is_not_frozen(frames):
    images = [frame.thermal for frame in frames[:12] for _ in range(3)]
    assert watched(images, period=1.0 / 27.0) == [WELL] * len(images)


def test_one_image_that_differs_ends_it(frames):
    images = [frame.thermal for frame in frames]
    conditions = watched(with_freeze(images, 10, 20))
    assert conditions[29].frozen
    assert not any(condition.frozen for condition in conditions[30:])
    assert conditions[30].faults == ()


@pytest.mark.parametrize('source', ['visible', 'thermal'])
def test_nearly_identical_images_are_frozen_too(frames, source):
    images = [getattr(frame, source) for frame in frames]
    generator = np.random.default_rng(1)
    # Some of the pixels by a count, and a clock in a corner.
    for index in range(10, 30):
        changed = generator.random(images[9].shape) < (0.1 if source == 'thermal' else 0.02)
        images[index] = images[9] + (changed & (images[9] > 0) & (images[9] < 255))
        images[index] = images[index].astype(images[9].dtype)
        images[index][:2, :8] = generator.integers(0, 255)
    watch = SensorWatch(source)
    conditions = [watch(image, index * PERIOD) for index, image in enumerate(images)]
    assert conditions[29].kinds == ('frozen',)
    assert not conditions[30].frozen
    assert conditions[-1] == Condition(conditions[-1].trust)


@pytest.mark.parametrize('sign', [1, -1])
def test_one_count_of_floating_point_is_a_part_of_the_largest_magnitude(sign):
    generator = np.random.default_rng(4)
    scene = np.linspace(0, 1, SHAPE[0] * SHAPE[1], dtype=np.float32).reshape(SHAPE)
    images = [scene + generator.normal(0, 1e-3, SHAPE).astype('f4') for _ in range(20)]
    # What decoders leave of the same image; a count is 5e-5 here.
    images += [images[-1] + generator.uniform(-4e-6, 4e-6, SHAPE).astype('f4') for _ in range(20)]
    assert watched([sign * image for image in images])[-1].kinds == ('frozen',)


@pytest.mark.parametrize(
    ('noise', 'dtype', 'level'), [(0.6, np.uint8, 20), (4.0, np.uint16, 8000), (0.03, 'f4', 300)]
)
def test_a_camera_that_stops_before_a_still_scene_is_not_frozen(noise, dtype, level):
    generator = np.random.default_rng(3)
    texture = cv2.GaussianBlur(generator.normal(0, 1, (48, 256)), (0, 0), 3.0)
    texture *= (80 if np.dtype(dtype) == np.uint8 else 200) * noise
    texture -= texture.min()
    images = []
    for index in range(90):
        offset = 3 * min(index, 45)
        seen = level + texture[:, offset : offset + 64] + generator.normal(0, noise, SHAPE)
        images.append(seen.astype(dtype) if dtype == 'f4' else np.rint(seen).astype(dtype))
    assert watched(images) == [WELL] * len(images)


@pytest.mark.parametrize(('noise', 'gain'), [(3.0, 12.0), (2.0, 25.0), (5.0, 40.0)])
def test_a_camera_that_stops_after_a_drive_past_texture_is_not_frozen(noise, gain):
    # Thousands of counts, all of them moving: what is learnt there of noise is motion.
    generator = np.random.default_rng(4)
    texture = cv2.GaussianBlur(generator.normal(0, 1, (48, 256)), (0, 0), 2.0)
    texture = cv2.normalize(texture, None, 0, 255, cv2.NORM_MINMAX) * gain
    images = []
    for index in range(150):
        offset = abs(5 * min(index, 90) % 380 - 190)
        seen = 7000 + texture[:, offset : offset + 64] + generator.normal(0, noise, SHAPE)
        images.append(np.rint(seen).astype(np.uint16))
    assert watched(images) == [WELL] * len(images)


def test_a_camera_that_becomes_quiet_is_trusted_again():
    loud = [noisy(8000, 20.0, np.uint16, seed=seed) for seed in range(30)]
    # A lamp at the edge keeps the contrast.
    quiet = [noisy(8000, 0.5, np.uint16, seed=seed) for seed in range(300)]
    for image in loud + quiet:
        image[:, :8] += 4000
    conditions = watched(loud + quiet)
    assert not conditions[-1].frozen
    assert conditions[-1].trust == 1.0


@pytest.mark.parametrize('other_moves', [True, False])
def test_identical_images_are_a_fault_only_while_the_other_camera_moves(frames, other_moves):
    conditions = watched([frames[0].thermal] * 40, other_moves=other_moves)
    assert conditions[-1].frozen is other_moves
    assert conditions[-1].trust == (0.0 if other_moves else 1.0)


@pytest.mark.parametrize('visible_first', [True, False])
def test_a_paused_pair_is_not_frozen_neither_is_it_when_it_goes_on(frames, visible_first):
    watches = {name: SensorWatch(name) for name in ('visible', 'thermal')}
    order = list(watches) if visible_first else list(watches)[::-1]
    pairs = with_freeze(frames, 10, 20)
    for index, frame in enumerate(pairs):
        for name, other in zip(order, order[::-1], strict=True):
            condition = watches[name](getattr(frame, name), index * PERIOD, watches[other].moves)
            assert condition == WELL


def test_a_frozen_thermal_camera_beside_a_live_visible_one(frames):
    visible, thermal = SensorWatch('visible'), SensorWatch('thermal')
    frozen = with_freeze([frame.thermal for frame in frames], 10, 20)
    found = []
    for index, frame in enumerate(frames):
        assert visible(frame.visible, index * PERIOD, thermal.moves) == WELL
        found.append(thermal(frozen[index], index * PERIOD, visible.moves).frozen)
    assert found == [19 <= index < 30 for index in range(40)]


def test_a_visible_camera_that_repeats_each_image_once_still_tells_that_it_moves(frames):
    visible, thermal = SensorWatch('visible'), SensorWatch('thermal')
    for index in range(len(frames)):
        visible(frames[index // 2].visible, index * PERIOD, thermal.moves)
        condition = thermal(frames[min(index, 9)].thermal, index * PERIOD, visible.moves)
    assert condition.frozen


def test_it_ends_when_the_other_camera_stops_too(frames):
    watch = SensorWatch('thermal')
    for index in range(30):
        condition = watch(frames[0].thermal, index * PERIOD)
    assert condition.frozen
    for index in range(30, 60):
        condition = watch(frames[0].thermal, index * PERIOD, other_moves=False)
    assert condition == WELL


def test_moves(frames):
    watch = SensorWatch('thermal')
    assert watch.moves
    watch(frames[0].thermal, 0.0)
    assert watch.moves
    watch(frames[1].thermal, PERIOD)
    assert watch.moves
    watch(frames[1].thermal.copy(), 2 * PERIOD)
    assert not watch.moves
    watch(frames[2].thermal, 3 * PERIOD)
    assert watch.moves


def test_a_timeout_of_zero_calls_no_camera_frozen(frames):
    assert watched([frames[0].thermal] * 30, frozen_timeout=0.0) == [WELL] * 30


def test_a_caller_may_use_its_array_again(frames):
    image = np.empty_like(frames[0].thermal)
    watch = SensorWatch('thermal')
    for index, frame in enumerate(frames):
        image[:] = frame.thermal
        assert watch(image, index * PERIOD) == WELL


def test_invalid_pixels_do_not_hide_a_freeze(frames):
    image = frames[0].thermal.astype(np.float32)
    image[:10] = np.nan
    image[10, :4] = np.inf, -np.inf, np.nan, np.inf
    assert watched([image] * 30)[-1].frozen


# Trust over time


@pytest.mark.parametrize('rate', [9.0, 30.0, 60.0])
@pytest.mark.parametrize('fade', [0.4, 1.0])
def test_trust_fades_out_and_in_over_the_same_time_at_any_rate(frames, rate, fade):
    images = [frame.thermal for frame in frames] * 5
    begin = 20
    length = math.ceil((0.3 + fade) * rate) + 3
    conditions = watched(with_freeze(images, begin, length), 1.0 / rate, fade=fade)
    trusts = [condition.trust for condition in conditions]
    frozen = [index for index, condition in enumerate(conditions) if condition.frozen]
    assert frozen
    out = trusts[frozen[0] - 1 : frozen[-1] + 1]
    back = trusts[frozen[-1] : frozen[-1] + math.ceil(fade * rate) + 2]
    assert (out[0], out[-1]) == (1.0, 0.0)
    assert (back[0], back[-1]) == (0.0, 1.0)
    largest = 1.0 / (fade * rate) + 1e-9
    for before, after in pairwise(out):
        assert 0.0 <= before - after <= largest
    for before, after in pairwise(back):
        assert 0.0 <= after - before <= largest
    # No slower than it must be.
    assert sum(0.0 < trust < 1.0 for trust in out) <= fade * rate
    assert sum(0.0 < trust < 1.0 for trust in back) <= fade * rate


def test_the_first_image_gets_what_it_deserves_at_once(frames):
    black = np.zeros_like(frames[0].visible)
    assert first(black).trust == 0.0
    assert first(frames[0].visible).trust == 1.0


def test_a_covered_lens_fades_too(frames):
    black = np.zeros_like(frames[0].visible)
    images = [frame.visible for frame in frames[:5]] + [black] * 20
    trusts = [condition.trust for condition in watched(images)]
    assert trusts[4] == 1.0
    assert trusts[5] == pytest.approx(1.0 - PERIOD / 0.4)
    assert trusts[-1] == 0.0
    assert all(after <= before for before, after in pairwise(trusts))


def test_a_stamp_that_goes_back_starts_anew(frames):
    watch = SensorWatch('thermal')
    for index in range(40):
        condition = watch(frames[0].thermal, 100.0 + index * PERIOD)
    assert condition.trust == 0.0
    assert watch(frames[0].thermal, 50.0) == WELL
    assert watch.moves
    conditions = [watch(frame.thermal, 50.0 + i * PERIOD) for i, frame in enumerate(frames)]
    assert conditions == [WELL] * len(frames)


@pytest.mark.parametrize('gap', [3.0, 60.0, 1e9])
def test_a_gap_of_many_seconds_breaks_nothing(frames, gap):
    images = [frame.thermal for frame in frames]
    watch = SensorWatch('thermal')
    for index in range(40):
        watch(images[-1], index * PERIOD)
    start = 39 * PERIOD + gap
    conditions = [watch(image, start + index * PERIOD) for index, image in enumerate(images)]
    assert conditions == [WELL] * len(images)
    for index in range(1, 40):
        condition = watch(images[-1], start + (39 + index) * PERIOD)
    assert condition.frozen
    assert '1.3 s' in condition.faults[0]


def test_the_same_stamp_again_changes_no_trust(frames):
    watch = SensorWatch('visible')
    watch(frames[0].visible, 1.0)
    condition = watch(np.zeros_like(frames[0].visible), 1.0)
    assert condition.trust == 1.0
    assert condition.kinds == ('black',)


@pytest.mark.parametrize('gap', [PERIOD, 2.0, 60.0])
def test_a_camera_that_was_away_is_trusted_step_by_step(frames, gap):
    watch = SensorWatch('thermal')
    watch(frames[0].thermal, 0.0)
    watch.lose_trust()
    trusts = [watch(frame.thermal, gap + i * PERIOD).trust for i, frame in enumerate(frames)]
    assert trusts[0] == 0.0
    assert trusts[1] == pytest.approx(PERIOD / 0.4)
    assert all(after >= before for before, after in pairwise(trusts))
    assert trusts[13] == 1.0


def test_reset_starts_anew(frames):
    watch = SensorWatch('thermal')
    for index in range(40):
        watch(frames[0].thermal, index * PERIOD)
    watch.reset()
    assert watch.moves
    assert watch(frames[0].thermal, 40 * PERIOD) == WELL


def test_it_is_deterministic(frames):
    images = with_freeze([frame.thermal for frame in frames], 10, 20)
    assert watched(images) == watched([image.copy() for image in images])


# Changes in mid-stream


def test_changes_are_counted_and_no_fault(frames):
    larger = SyntheticScene(96, 64, seed=2).render(0.0)
    watch = SensorWatch('visible')
    images = [
        (frames[0].visible, 'bgr8'),
        (larger.visible, 'bgr8'),
        (larger.visible, 'rgb8'),
        (larger.visible[:, :, 1], 'mono8'),
        (larger.thermal, 'mono16'),
        (frames[0].thermal, 'mono16'),
        (frames[0].visible, 'bgr8'),
    ]
    for index, (image, encoding) in enumerate(images):
        assert watch(image, index * PERIOD, encoding=encoding) == WELL
    assert watch.changes == Counter({'resolution changes': 2, 'encoding changes': 4})


def test_without_the_encoding_types_and_channels_tell(frames):
    watch = SensorWatch('visible')
    for image in (frames[0].visible, frames[0].visible[:, :, 0], frames[0].thermal):
        assert watch(image, 1.0) == WELL
    assert watch.changes == Counter({'encoding changes': 2})


def test_a_change_restarts_the_comparison_but_not_trust(frames):
    watch = SensorWatch('thermal')
    for index in range(40):
        condition = watch(frames[0].thermal, index * PERIOD)
    assert condition.trust == 0.0
    cropped = watch(frames[0].thermal[:40], 40 * PERIOD)
    assert not cropped.frozen
    assert watch.moves
    assert 0.0 < cropped.trust < 0.2


# Exposure


@cache
def rendered(size, seed, seconds):
    return SyntheticScene(*size, seed=seed).render(seconds).visible


def dark_street(mean, seed=2, size=(160, 120)):
    """Return the street with all of its light but the lamps' taken away."""
    image = rendered(size, seed, 0.4).astype(np.float32)
    dark = image * (mean / image.mean())
    lamps = image.min(axis=2) > 150.0
    dark[lamps] = image[lamps]
    return np.rint(np.clip(dark, 0, 255)).astype(np.uint8)


@pytest.mark.parametrize('seed', [1, 2, 3])
def test_a_dark_night_is_not_a_covered_lens(seed):
    for mean in (2.0, 4.0, 8.0):
        image = dark_street(mean, seed)
        assert image.mean() < 3 * mean
        for view in (image, cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)):
            assert first(view) == WELL


def test_a_night_of_a_few_lamps_on_black():
    image = noisy(3, 1.5, shape=(480, 640))
    for row, column in ((100, 80), (90, 300), (110, 500)):
        cv2.circle(image, (column, row), 6, 240, -1)
    assert image.mean() < 8.0
    assert first(image) == WELL


@pytest.mark.parametrize('shape', [SHAPE, (*SHAPE, 3)])
@pytest.mark.parametrize(('level', 'noise'), [(0, 0.0), (0, 2.0), (3, 1.0), (2, 2.0)])
def test_a_covered_lens(level, noise, shape):
    condition = first(noisy(level, noise, shape=shape))
    assert condition.kinds == ('black',)
    assert condition.faults[0].startswith('the visible image is a')
    assert condition.faults[0].endswith('black: is the lens covered?')
    assert condition.trust < 0.05


def test_hot_pixels_do_not_uncover_a_lens():
    image = noisy(1, 1.0, shape=(480, 640))
    generator = np.random.default_rng(5)
    image[generator.integers(0, 480, 60), generator.integers(0, 640, 60)] = 255
    assert first(image).kinds == ('black',)
    assert first(image).trust == 0.0


def test_trust_rises_with_the_light():
    trusts = [first(noisy(level, 1.0)).trust for level in range(0, 40, 2)]
    assert trusts == sorted(trusts)
    assert (trusts[0], trusts[-1]) == (0.0, 1.0)
    assert any(0.0 < trust < 1.0 for trust in trusts)


@pytest.mark.parametrize('kind', ['uint8', 'colour', 'uint16', 'float32'])
def test_trust_falls_with_the_share_that_is_clipped(frames, kind):
    white = {'uint16': 16383, 'float32': 1.0}.get(kind, 255)
    sound = frames[0].visible if kind == 'colour' else frames[0].thermal
    if kind == 'uint8':
        sound = frames[0].visible[:, :, 1]
    for share in (0.0, 0.3, 0.55, 0.7, 0.8, 0.9, 1.0):
        image = sound.astype(np.float32) / 16383 if kind == 'float32' else sound.copy()
        image[: round(share * len(image))] = white
        condition = first(image)
        clipped = round(share * len(image)) / len(image)
        assert condition.trust == pytest.approx(min(1.0, (1.0 - clipped) / 0.4), abs=0.01)
        if clipped <= 0.6:
            assert condition.kinds == ()
        else:
            assert condition.kinds == ('saturated',)
            assert condition.faults[0].startswith('the visible image is saturated')


def test_saturated_after_jpeg():
    image = np.full((*SHAPE, 3), 255, np.uint8)
    image[20:24, 20:24] = 0
    image = cv2.imdecode(cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, 60])[1], 1)
    assert first(image).kinds == ('saturated',)
    assert first(image).trust < 0.3


@pytest.mark.parametrize(
    ('image', 'kind'),
    [
        (np.full(SHAPE, 128, np.uint8), 'blank'),
        (np.full((*SHAPE, 3), 90, np.uint8), 'blank'),
        (np.full(SHAPE, 8000, np.uint16), 'blank'),
        (noisy(8000, 0.3, np.uint16), 'blank'),
        (np.full(SHAPE, 300.0, np.float32), 'blank'),
        (np.full(SHAPE, 21.5, np.float64), 'blank'),
        (np.zeros(SHAPE, np.uint16), 'black'),
        (np.zeros(SHAPE, np.float32), 'black'),
        (np.full(SHAPE, np.nan, np.float32), 'black'),
        (np.full(SHAPE, -32768, np.int16), 'black'),
        (np.full(SHAPE, 65535, np.uint16), 'saturated'),
        (np.full(SHAPE, 16383, np.uint16), 'saturated'),
        (np.full(SHAPE, 32767, np.int16), 'saturated'),
        (np.full(SHAPE, 255, np.uint8), 'saturated'),
        (np.zeros((1, 1), np.uint8), 'black'),
    ],
)
def test_images_without_content(image, kind):
    condition = first(image, 'thermal')
    assert condition.kinds == (kind,)
    assert condition.faults[0].startswith('the thermal image is ')
    assert condition.trust == 0.0
    # The same each time, but not because a driver repeats it.
    assert watched([image] * 30)[-1] == condition


@pytest.mark.parametrize(('level', 'noise'), [(150, 0.8), (150, 3.0), (230, 1.0)])
def test_fog_with_noise_in_8_bits_is_no_fault(level, noise):
    # Nobody knows what gain the camera has put on it.
    for seed in range(3):
        assert first(noisy(level, noise, np.uint8, seed=seed)) == WELL


RAW = [
    (8000, 1.0, np.uint16),
    (8000, 20.0, np.uint16),
    (200, 3.0, np.uint16),
    (20, 3.0, np.int16),
    (300.0, 0.03, np.float32),
]


@pytest.mark.parametrize(('level', 'noise', 'dtype'), RAW)
def test_raw_counts_that_are_nothing_but_noise_are_not_trusted(level, noise, dtype):
    for seed in range(3):
        condition = first(noisy(level, noise, dtype, seed=seed))
        assert condition.kinds == ('featureless',)
        assert condition.trust == 0.0
        assert 'is the lens covered?' in condition.faults[0]


@pytest.mark.parametrize(('level', 'noise', 'dtype'), RAW)
def test_the_faintest_structure_above_the_noise_is_trusted(level, noise, dtype):
    image = noisy(level, noise, dtype).astype(np.float64)
    # A slope from one side to the other of a few times the noise, as fog thins out.
    image += 5 * noise * np.linspace(0, 1, image.shape[1])
    assert first(image.astype(dtype)) == WELL


@pytest.mark.parametrize('shape', [(48, 128), (128, 48)])
def test_structure_is_looked_for_in_squares_whatever_the_shape_of_the_image(shape):
    rows, columns = np.indices(shape) // 8
    checkered = 8000 + 10.0 * ((rows + columns) % 2)
    image = noisy(checkered, 10.0, np.uint16, shape)
    assert first(image) == WELL


def test_raw_counts_that_spread_further_than_noise_are_left_alone():
    assert first(noisy(8000, 200.0, np.uint16)) == WELL


# Dead colour channels


def street(size=(320, 256), seed=1):
    return rendered(size, seed, 0.2).copy()


@pytest.mark.parametrize('value', [0, 255])
@pytest.mark.parametrize('dead', [(0,), (1,), (2,), (0, 2)])
def test_a_dead_channel_costs_its_part_of_luma(dead, value):
    image = street()
    image[:, :, list(dead)] = value
    data = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, 80])[1]
    for view in (image, cv2.imdecode(data, cv2.IMREAD_COLOR)):
        condition = first(view)
        assert condition.dead_channels == dead
        assert condition.kinds == ('dead channel',)
        assert condition.trust == pytest.approx(1.0 - sum(LUMA[channel] for channel in dead))


def test_the_sentence_of_a_dead_channel():
    image = street()
    image[:, :, 0] = 0
    assert first(image).faults == ('the blue channel of the visible image is dead',)
    image[:, :, 2] = 0
    assert first(image).faults == ('the blue and red channels of the visible image are dead',)


def test_a_dead_channel_with_the_noise_of_its_amplifier():
    image = street()
    image[:, :, 2] = np.abs(noisy(0, 0.6, np.int16, image.shape[:2])).astype(np.uint8)
    assert first(image).dead_channels == (2,)


def test_grey_in_three_channels_has_no_dead_one(frames):
    grey = frames[0].visible[:, :, 1]
    for image in (grey, np.dstack([grey] * 3), np.dstack([dark_street(2.0)[:, :, 1]] * 3)):
        assert first(image) == WELL


@pytest.mark.parametrize(('power', 'blue'), [(2.2, 1.0), (1.5, 0.4), (1.0, 0.15)])
def test_the_light_of_warm_lamps_is_no_dead_channel(power, blue):
    for seed in range(3):
        image = 255.0 * (street((160, 120), seed) / 255.0) ** power
        # White lamps stay white: the sensor is clipped there.
        lit = image.min(axis=2) < 200
        image[lit, 0] *= blue
        assert first(np.rint(image).astype(np.uint8)).dead_channels == ()


def test_colour_faults_and_freezing_add_up():
    image = street()
    image[:, :, 0] = 0
    image[: int(0.8 * len(image))] = (0, 255, 255)
    condition = watched([image] * 40, source='visible')[-1]
    assert set(condition.kinds) == {'dead channel', 'frozen'}
    assert condition.trust == 0.0


# Real images, and what is refused


@pytest.mark.parametrize('folder', ['roadscene/dev', 'tno', 'llvip'])
def test_no_image_of_the_data_sets_is_accused(shared, folder):
    root = shared / 'data' / folder
    paths = sorted([*root.glob('visible/*'), *root.glob('thermal/*')])
    if not paths:
        pytest.skip(f'no images in {root}')
    for path in paths:
        image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert first(image) == WELL, path.name


@pytest.mark.parametrize(
    'image', [np.zeros((0, 4), np.uint8), np.zeros(9, np.uint8), np.zeros((4, 4), bool)]
)
def test_what_is_no_image_is_refused(image):
    with pytest.raises(ValueError, match='the thermal image is not'):
        first(image, 'thermal')


@pytest.mark.parametrize(
    'settings', [{'frozen_timeout': -0.1}, {'fade': math.nan}, {'fade': math.inf}]
)
def test_bad_settings_are_refused(settings):
    with pytest.raises(ValueError, match='must be 0 s or more'):
        SensorWatch('thermal', **settings)


@pytest.mark.parametrize('value', [3e38, math.inf, 1e12])
def test_one_wild_frame_does_not_blind_the_watch(frames, value):
    generator = np.random.default_rng(1)
    images = [frame.thermal.astype(np.float32) / 100 for frame in frames]
    images[5] = np.full_like(images[5], value)
    # From the tenth on the same one, but for a bit here and there.
    for index in range(10, 40):
        changed = generator.random(images[9].shape) < 0.1
        images[index] = images[9] + np.float32(0.001) * changed
    conditions = watched(images)
    assert not any(condition.frozen for condition in conditions[:18])
    assert conditions[-1].kinds == ('frozen',)


@pytest.mark.parametrize('dtype', [np.uint16, np.int32, np.float32])
def test_a_warm_wall_behind_something_colder_is_not_saturated(dtype):
    image = np.full(SHAPE, 30000)
    image[20:30, 20:26] = noisy(28000, 60.0, np.uint16, (10, 6))
    assert first(image.astype(dtype), 'thermal') == WELL


@pytest.mark.parametrize('white', [1023, 4095, 16383, 65535, 0xFFF0, 0xFFFC, 0xFF00])
def test_the_end_of_what_a_sensor_has_is_white(white):
    image = noisy(500, 80.0, np.uint16)
    image[: round(0.8 * len(image))] = white
    assert first(image, 'thermal').kinds == ('saturated',)


def test_what_is_no_data_is_no_evidence():
    covered = noisy(8000, 3.0, np.uint16)
    hidden = np.zeros(SHAPE, bool)
    hidden[:, :20] = True
    covered[hidden] = 0
    assert SensorWatch('thermal')(covered, 0.0).trust == 1.0
    condition = SensorWatch('thermal')(covered, 0.0, no_data=hidden)
    assert condition.kinds == ('featureless',)
