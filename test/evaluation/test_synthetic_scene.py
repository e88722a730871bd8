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

"""The synthetic street."""

from itertools import pairwise

import numpy as np
import pytest

from dig2dig_ros.evaluation.synthetic_scene import SyntheticScene

WIDTH, HEIGHT = 320, 256


@pytest.fixture(scope='module')
def scene():
    return SyntheticScene(WIDTH, HEIGHT, seed=3)


@pytest.mark.parametrize(('width', 'height'), [(640, 512), (64, 48), (333, 121), (960, 540)])
def test_shapes_types_and_range(width, height):
    frame = SyntheticScene(width, height).render(1.0)
    assert frame.visible.shape == (height, width, 3)
    assert frame.visible.dtype == np.uint8
    assert frame.thermal.shape == (height, width)
    assert frame.thermal.dtype == np.uint16
    # Counts of a 14-bit core, and every pixel drawn.
    assert 6800 < frame.thermal.min() < 7600
    assert 8500 < frame.thermal.max() < 9700
    assert frame.boxes


def test_same_seed_and_time_give_the_same_frame(scene):
    scene.render(7.7)
    first = scene.render(2.5)
    again = SyntheticScene(WIDTH, HEIGHT, seed=3).render(2.5)
    np.testing.assert_array_equal(first.visible, again.visible)
    np.testing.assert_array_equal(first.thermal, again.thermal)
    assert first.boxes == again.boxes
    other = SyntheticScene(WIDTH, HEIGHT, seed=4).render(2.5)
    assert (first.visible != other.visible).mean() > 0.3


def test_noise_can_be_left_out_and_changes_with_time(scene):
    clean, noisy = scene.render(0.0, noise=False), scene.render(0.0)
    for source, level in (('visible', 0.5), ('thermal', 3.0)):
        error = getattr(noisy, source).astype(float) - getattr(clean, source)
        assert error.std() > level
        assert abs(error.mean()) < level
    # One period later all is where it was, but the sensors are not.
    later = scene.render(scene.period)
    assert (later.thermal != noisy.thermal).mean() > 0.5


@pytest.mark.parametrize('period', [4.0, 5.7, 12.0])
def test_the_street_repeats_after_a_period(period):
    scene = SyntheticScene(96, 72, period=period)
    first, again = scene.render(1.25, noise=False), scene.render(1.25 + period, noise=False)
    np.testing.assert_array_equal(first.visible, again.visible)
    np.testing.assert_array_equal(first.thermal, again.thermal)
    half = scene.render(1.25 + period / 2, noise=False)
    assert (first.thermal != half.thermal).mean() > 0.2


def test_the_street_moves_without_jumps(scene):
    frames = [scene.render(0.1 * k, noise=False) for k in range(30)]
    counts = [frame.thermal.astype(float) for frame in frames]
    steps = [np.abs(b - a).mean() for a, b in pairwise(counts)]
    assert min(steps) > 1.0
    assert max(steps) < 8 * float(np.median(steps))
    # The camera sways: the background moves, not only what walks on it.
    upper = slice(0, HEIGHT // 4)
    assert np.abs(counts[20][upper] - counts[0][upper]).mean() > 5.0


@pytest.mark.parametrize('seed', range(3))
def test_boxes_hold_warm_pedestrians(seed):
    scene = SyntheticScene(WIDTH, HEIGHT, seed=seed)
    count = 0
    for time in np.arange(0.0, scene.period, 2.3):
        frame = scene.render(float(time))
        for x1, y1, x2, y2 in frame.boxes:
            assert 0 <= x1 < x2 <= WIDTH
            assert 0 <= y1 < y2 <= HEIGHT
            inside = frame.thermal[int(y1) : int(y2), int(x1) : int(x2)]
            ring = frame.thermal[
                max(0, int(y1) - 4) : int(y2) + 4, max(0, int(x1) - 4) : int(x2) + 4
            ]
            assert np.percentile(inside, 90) > np.median(ring) + 100
            assert np.percentile(inside, 90) > 8350
            count += 1
    assert count >= 10


def test_warm_bodies_fill_their_box(scene):
    tight = 0
    for time in (0.0, 2.0, 4.0, 6.0, 8.0, 10.0):
        frame = scene.render(time, noise=False)
        for x1, y1, x2, y2 in frame.boxes:
            warm = frame.thermal[int(y1) : int(y2), int(x1) : int(x2)] > 8350
            rows, columns = warm.any(axis=1), warm.any(axis=0)
            tight += bool(rows.mean() > 0.85 and columns.mean() > 0.7)
            assert rows.mean() > 0.4
    assert tight >= 10


def test_people_cover_their_boxes_and_nothing_that_is_cold(scene):
    for time in (0.0, 4.0, 8.0):
        frame, people = scene.render(time, noise=False), scene.people(time)
        assert people.shape == (HEIGHT, WIDTH)
        assert people.dtype == np.float32
        assert people.min() == 0
        assert 0.9 < people.max() <= 1
        for x1, y1, x2, y2 in frame.boxes:
            assert people[int(y1) : int(y2), int(x1) : int(x2)].max() > 0.8
        assert np.median(frame.thermal[people > 0.9]) > np.percentile(frame.thermal, 90)
        assert (people > 0.5).mean() < 0.3


def test_a_pedestrian_behind_a_car_or_out_of_view_has_no_box():
    scene = SyntheticScene(WIDTH, HEIGHT, seed=0)
    counts = [len(scene.render(0.5 * k, noise=False).boxes) for k in range(24)]
    assert max(counts) - min(counts) >= 3


def test_lit_areas_show_colour_and_texture_and_unlit_ones_are_dark():
    scene = SyntheticScene(640, 512, seed=1)
    visible = scene.render(0.0, noise=False).visible.astype(float)
    brightness = visible.max(axis=2)
    blocks = brightness.reshape(16, 32, 16, 40).transpose(0, 2, 1, 3).reshape(256, -1)
    level, texture = blocks.mean(axis=1), blocks.std(axis=1)
    dark, lit = level < 30, level > 75
    assert dark.mean() > 0.1
    assert lit.mean() > 0.1
    assert np.median(texture[lit]) > 3 * np.median(texture[dark])
    colour = (visible.max(axis=2) - visible.min(axis=2)).mean()
    assert colour > 10


def test_thermal_does_not_see_the_lamps_light():
    scene = SyntheticScene(640, 512, seed=1)
    frame = scene.render(0.0, noise=False)
    road = slice(360, 400)
    light = frame.visible[road].max(axis=2).mean(axis=0)
    heat = frame.thermal[road].astype(float).mean(axis=0)
    # Along the road the light falls off to nearly nothing, the warmth does not.
    assert light.max() > 2.5 * light.min()
    assert np.percentile(heat, 90) / np.percentile(heat, 10) < 1.12


def test_sky_is_colder_than_the_street(scene):
    thermal = scene.render(0.0, noise=False).thermal
    assert thermal[-HEIGHT // 4 :].min() > thermal[: HEIGHT // 4].min() + 400


@pytest.mark.parametrize(
    ('arguments', 'reason'),
    [
        ({'width': 8}, '8x512'),
        ({'height': 0}, '640x0'),
        ({'seed': -1}, 'seed is -1'),
        ({'period': 0.5}, r'period is 0\.5'),
    ],
)
def test_impossible_scenes_are_refused(arguments, reason):
    with pytest.raises(ValueError, match=reason):
        SyntheticScene(**arguments)
