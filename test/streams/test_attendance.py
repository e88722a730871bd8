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

"""Which cameras are there."""

import re

import pytest

from dig2dig_ros.streams.attendance import Attendance

SECOND = 1_000_000_000


def values(policy='any', timeout=2.0, **changes):
    return {
        'missing_modality': policy,
        'stale_timeout': timeout,
        'sync_policy': 'nearest',
        'sync_tolerance': 0.02,
        'thermal_time_offset': 0.0,
        'queue_size': 30,
        **changes,
    }


@pytest.fixture
def attendance():
    attendance = Attendance(('visible', 'thermal'))
    attendance.reset(100.0)
    return attendance


def test_a_camera_is_missing_only_after_the_timeout(attendance):
    assert attendance.missing(2.0, 100.0) == {'visible': None, 'thermal': None}
    attendance.seen('visible', SECOND, 102.0)
    assert attendance.missing(2.0, 103.0) == {'thermal': None}
    assert attendance.missing(2.0, 104.5) == {'visible': 2.5, 'thermal': None}


@pytest.mark.parametrize('stamp', [0, SECOND])
def test_an_image_without_a_new_stamp_does_not_count(attendance, stamp):
    attendance.seen('thermal', SECOND, 100.0)
    for second in range(1, 4):
        attendance.seen('thermal', stamp, 100.0 + second)
    assert attendance.missing(2.0, 103.0) == {'thermal': 3.0, 'visible': None}


@pytest.mark.parametrize(
    ('policy', 'alone'),
    [
        ('wait', set()),
        ('visible', {'visible'}),
        ('thermal', {'thermal'}),
        ('any', {'visible', 'thermal'}),
    ],
)
def test_the_policy_says_who_goes_on_alone(attendance, policy, alone):
    for source in ('visible', 'thermal'):
        attendance.reset(100.0)
        attendance.seen(source, SECOND, 100.5)
        assert not attendance.alone(source, values(policy), 100.5)
        attendance.seen(source, 2 * SECOND, 102.5)
        assert attendance.alone(source, values(policy), 102.5) == (source in alone)


def test_a_pause_of_both_cameras_leaves_none_alone(attendance):
    for now in (100.5, 100.6, 105.0, 105.1):
        attendance.seen('thermal', int(now * SECOND), now - 0.05)
        for moment in (now, now + 0.03):
            attendance.seen('visible', int(moment * SECOND), moment)
            assert not attendance.alone('visible', values(), moment)
    attendance.seen('visible', 109 * SECOND, 109.0)
    assert not attendance.alone('visible', values(), 109.0)
    attendance.seen('visible', 110 * SECOND, 110.0)
    assert attendance.alone('visible', values(), 110.0)


def test_pairs_slower_than_the_timeout_still_come_about(attendance):
    for now in range(103, 120, 3):
        for source, moment in (('visible', now), ('thermal', now + 0.01)):
            attendance.seen(source, int(moment * SECOND), moment)
            assert not attendance.alone(source, values(), moment)
    # A camera as slow as that still goes on when the other one is gone.
    for now, alone in ((121, False), (124, True)):
        attendance.seen('visible', now * SECOND, now)
        assert attendance.alone('visible', values(), now) == alone


def test_pairs_come_about_again_with_the_first_image_of_the_missing_camera(attendance):
    attendance.seen('visible', 2 * SECOND, 102.0)
    attendance.seen('visible', 3 * SECOND, 103.0)
    assert attendance.alone('visible', values(), 103.0)
    attendance.seen('thermal', 3 * SECOND + 1, 103.01)
    attendance.seen('visible', 3 * SECOND + 2, 103.02)
    assert not attendance.alone('visible', values(), 103.02)


def test_a_repeated_stamp_goes_nowhere_alone(attendance):
    attendance.seen('visible', SECOND, 103.0)
    attendance.seen('visible', SECOND, 103.1)
    assert not attendance.alone('visible', values(), 103.1)


def test_cameras_that_never_pair_are_reported_with_the_distance_of_their_stamps(attendance):
    for index in range(30):
        now = 100.0 + index / 10
        attendance.seen('visible', int(now * SECOND), now)
        if index % 3 == 0:
            # Stamped 0.33 s late: in a 10 Hz stream the nearest is 0.03 s off, of another image.
            attendance.seen('thermal', int((now + 0.33) * SECOND), now)
        if index < 5:
            attendance.paired(now)
    assert attendance.mismatch(values(timeout=5.0), 103.0) is None
    text = attendance.mismatch(values(), 103.0)
    assert 'no pair for 2.6 s' in text
    assert '0.330 s after the visible ones, judging by the arrival of the images' in text
    assert 'set thermal_time_offset: -0.330, or widen sync_tolerance' in text


@pytest.mark.parametrize(
    ('late', 'changes', 'advice'),
    [
        (
            0.1,
            {},
            'within sync_tolerance, 0.02 s; .* 0.100 s after .* set thermal_time_offset: -0',
        ),
        (
            -30.0,
            {},
            '30.000 s before .* the clocks of the cameras differ: set .*: 30.000, or .*them$',
        ),
        (-1e6, {}, '1000000.000 s before .* the clocks of the cameras differ, synchronise them'),
        (0.01, {'thermal_time_offset': 5.0}, 'thermal_time_offset, 5 s, .* leave it out'),
        (0.01, {}, 'more than queue_size, 30, would have to wait'),
        (0.01, {'sync_policy': 'exact'}, 'equal stamps only, .* set sync_policy: nearest'),
    ],
)
def test_the_advice_where_nothing_pairs_fits_the_cause(attendance, late, changes, advice):
    assert attendance.pairing_advice(values()) is None
    attendance.seen('visible', 5_000_000 * SECOND, 100.0)
    attendance.seen('thermal', round((5_000_000 + late) * SECOND), 100.0)
    assert re.search(advice, attendance.pairing_advice(values(**changes)))


@pytest.mark.parametrize('rates', [(30, 9), (30, 30), (10, 10)])
@pytest.mark.parametrize('offset', [8.004, -8.004, 37.004])
def test_clocks_that_differ_by_seconds_are_told_by_how_much(attendance, offset, rates):
    images = [
        (index / rate + late, source, 5_000 + index / rate + ahead)
        for source, rate, late, ahead in (
            ('visible', rates[0], 0.02, 0.0),
            ('thermal', rates[1], 0.022, offset),
        )
        for index in range(5 * rate)
    ]
    for arrival, source, stamp in sorted(images):
        attendance.seen(source, round(stamp * SECOND), 100.0 + arrival)
    text = attendance.mismatch(values(), 106.0)
    hint = float(re.search(r'set thermal_time_offset: ([-\d.]+), or synchronise', text)[1])
    assert hint == pytest.approx(-offset, abs=0.005)
    # Where one follows it, the stamps lie on each other.
    exact = attendance.pairing_advice(values(sync_policy='exact'))
    assert f'set thermal_time_offset: {hint:.3f}' in exact


def test_no_mismatch_while_pairs_come_or_a_camera_is_silent(attendance):
    attendance.seen('visible', SECOND, 103.0)
    assert attendance.mismatch(values(), 103.0) is None
    attendance.seen('thermal', SECOND, 103.0)
    assert attendance.mismatch(values(), 103.0) is not None
    attendance.paired(103.0)
    assert attendance.mismatch(values(), 103.0) is None
