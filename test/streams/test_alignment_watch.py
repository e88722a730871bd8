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

"""A look every few seconds whether the images lie on each other."""

import cv2
import numpy as np
import pytest

from dig2dig_ros.evaluation.synthetic_scene import SyntheticScene
from dig2dig_ros.images.registration import Registration
from dig2dig_ros.streams.alignment_watch import AlignmentWatch
from dig2dig_ros.streams.preparation import Prepared

VALUES = {'alignment_period': 5.0, 'alignment_tolerance': 0.02}


@pytest.fixture(scope='module')
def street():
    frame = SyntheticScene(320, 256, seed=3).render(1.0)
    counts = frame.thermal.astype(np.float32)
    return frame.visible, (counts - counts.min()) / (counts.max() - counts.min())


def moved(image, right, down):
    matrix = np.array([[1.0, 0, right], [0, 1, down]])
    size = (image.shape[1], image.shape[0])
    return cv2.warpAffine(image, matrix, size, borderMode=cv2.BORDER_REPLICATE)


def pair(visible, thermal, placement=None, trust=(1.0, 1.0)):
    return Prepared((visible, thermal), (None, placement), trust, (True, True))


def test_nothing_is_said_before_the_first_look():
    watch = AlignmentWatch()
    assert watch.table() == {'misalignment (px)': 'not measured'}
    assert watch.warning(VALUES) == ''


def test_aligned_images_are_no_reason_to_warn(street):
    watch = AlignmentWatch()
    watch(pair(*street), 10.0, VALUES)
    assert watch.table()['misalignment (px)'] != 'not measured'
    assert watch.warning(VALUES) == ''


def test_a_shift_is_measured_and_told(street):
    watch = AlignmentWatch()
    visible, thermal = street
    for second in range(0, 30, 5):
        watch(pair(visible, moved(thermal, 12, -5)), 10.0 + second, VALUES)
    assert '13' in watch.warning(VALUES).partition(' pixels')[0]
    assert watch.warning({**VALUES, 'alignment_tolerance': 0.1}) == ''
    assert 'too far right and 5' in watch.table()['misalignment (px)'].replace('4.', '5.')
    assert 'too far up' in watch.table()['misalignment (px)']


def test_a_placement_that_mends_the_shift_is_looked_through(street):
    visible, thermal = street
    height, width = thermal.shape
    shift = np.array([[1.0, 0, -12], [0, 1, 5], [0, 0, 1]])
    placement = Registration(shift, (width, height), (width, height)).placement(8.0)
    watch = AlignmentWatch()
    watch(pair(visible, moved(thermal, 12, -5), placement), 10.0, VALUES)
    assert watch.warning(VALUES) == ''


def test_looks_are_a_period_apart_and_begin_anew_with_the_clock(street):
    visible, thermal = street
    watch = AlignmentWatch()
    watch(pair(visible, thermal), 10.0, VALUES)
    first = watch.table()
    watch(pair(visible, moved(thermal, 12, -5)), 14.9, VALUES)
    assert watch.table() == first
    watch(pair(visible, moved(thermal, 12, -5)), 3.0, VALUES)
    assert watch.table() != first


def test_a_loop_that_is_shorter_than_the_period_is_looked_at_again(street):
    visible, thermal = street
    watch = AlignmentWatch()
    watch(pair(visible, thermal), 10.0, VALUES)
    assert watch.warning(VALUES) == ''
    for tenth in [*range(1, 9)] * 7:
        watch(pair(visible, moved(thermal, 12, -5)), 10.0 + tenth / 10, VALUES)
    # 4.9 s of pairs, and no look yet.
    assert watch.warning(VALUES) == ''
    for tenth in [*range(1, 9)] * 36:
        watch(pair(visible, moved(thermal, 12, -5)), 10.0 + tenth / 10, VALUES)
    assert '13' in watch.warning(VALUES).partition(' pixels')[0]


def test_cameras_that_are_not_trusted_are_not_compared(street):
    watch = AlignmentWatch()
    watch(pair(*street, trust=(1.0, 0.5)), 10.0, VALUES)
    assert watch.table() == {'misalignment (px)': 'not measured'}
    watch(pair(*street), 10.0, {**VALUES, 'alignment_period': 0.0})
    assert watch.table() == {'misalignment (px)': 'not measured'}
