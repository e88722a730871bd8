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

"""What stamps are worth, by when the images come: clocks that differ, and stamps of no use."""

from __future__ import annotations

from collections.abc import Callable
import math
import random
import re
from typing import Any

import pytest

from dig2dig_ros.streams.parameters import complete_values
from dig2dig_ros.streams.stamp_watch import StampWatch

SECOND = 1_000_000_000
# The camera's clock, and that of the arrivals, have nothing in common.
START, UPTIME = 1_700_000_000.0, 5_000.0
SOURCES = ('visible', 'thermal')


def values(**changes: Any) -> dict[str, Any]:
    return complete_values(changes)


def run(
    offset: float = 0.0,
    *,
    seconds: float = 4.0,
    rates: tuple[float, ...] = (30.0, 9.0),
    late: tuple[float, ...] = (0.02, 0.05),
    jitter: float = 0.005,
    speed: float = 1.0,
    sources: tuple[str, ...] = SOURCES,
    at: Callable[[float], float] = lambda moment: moment,
    burst: float = 0.0,
) -> StampWatch:
    """
    Return a watch that cameras were seen by.

    :param offset: of the last camera's clock, in s.
    :param late: from the exposure to the arrival.
    :param speed: at which the recording is replayed.
    :param at: when what is due at a moment comes indeed.
    :param burst: every how many seconds what the first camera has sent comes, all at once.
    """
    rng = random.Random(0)
    images = []
    for source, rate, delay in zip(sources, rates, late, strict=True):
        ahead = offset if source == sources[-1] else 0.0
        for index in range(int(seconds * rate)):
            exposed = index / rate + 0.1
            stamp = round((START + exposed + ahead) * SECOND)
            moment = at(exposed / speed + delay + rng.uniform(0, jitter))
            if burst and source == sources[0]:
                moment = math.ceil(moment / burst) * burst
            images.append((UPTIME + moment, source, stamp))
    watch = StampWatch(sources, 60)
    for arrival, source, stamp in sorted(images):
        watch(source, stamp, arrival)
    return watch


def said(watch: StampWatch, **changes: Any) -> list[str]:
    return watch.clock_warnings(values(**changes), ())


@pytest.mark.parametrize('rates', [(30.0, 9.0), (30.0, 30.0), (10.0, 10.0), (9.0, 60.0)])
@pytest.mark.parametrize('offset', [1.5, -3.0, 8.004, 37.004, -0.7, -1.7e9 + 12.5])
def test_the_offset_of_the_clocks_is_measured_and_said(
    rates: tuple[float, float], offset: float
) -> None:
    watch = run(offset, rates=rates, late=(0.02, 0.02))
    measured = watch.offset('thermal', 0.05)
    # The stamps fit on each other at half a period, too, so the arrivals decide.
    assert measured == pytest.approx(offset, abs=0.02)
    (sentence,) = said(watch)
    side = 'after' if offset > 0 else 'before'
    assert f'{abs(measured):.3f} s {side} the visible ones' in sentence
    late = 'visible' if offset > 0 else 'thermal'
    assert sentence.endswith(f', unless the {late} images really come {abs(measured):.1f} s late')
    hint = re.search(r'set thermal_time_offset: ([-\d.]+), or synchronise them', sentence)
    if abs(offset) > 86400:
        assert hint is None
        assert 'synchronise them' in sentence
    else:
        assert hint is not None
        assert float(hint[1]) == pytest.approx(-measured, abs=0.001)
        # As the sentence says, that mends it.
        assert said(watch, thermal_time_offset=float(hint[1])) == []


def test_stamps_of_the_same_moments_give_the_offset_to_the_millisecond() -> None:
    watch = run(8.004, rates=(30.0, 30.0), late=(0.02, 0.03))
    assert watch.offset('thermal', 0.05) == pytest.approx(8.004, abs=1e-6)
    assert watch.table(0.05) == {'stamp offset thermal (s)': '8.004'}
    (sentence,) = said(watch)
    assert 'set thermal_time_offset: -8.004,' in sentence


def test_after_a_clock_was_set_only_recent_stamps_count() -> None:
    watch = StampWatch(SOURCES, 600)
    for index in range(500):
        ahead = 3.004 if index >= 400 else 0.0
        for source, offset, late in (('visible', 0.0, 0.02), ('thermal', ahead, 0.03)):
            stamp = round((START + index / 10 + offset) * SECOND)
            watch(source, stamp, UPTIME + index / 10 + late)
    assert watch.offset('thermal', 0.05) == pytest.approx(3.004, abs=1e-6)


@pytest.mark.parametrize('late', [(0.02, 0.072), (0.072, 0.02)])
def test_of_two_stamps_that_are_as_near_the_one_that_means_a_smaller_offset_counts(
    late: tuple[float, float],
) -> None:
    # Half a period later on the way: the stamps fit at offsets of 0 and of a whole period.
    watch = run(rates=(10.0, 10.0), late=late, jitter=0.0)
    assert watch.offset('thermal', 0.02) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(
    'situation',
    [
        {},
        # Thermal images of a compressed or networked camera.
        {'late': (0.02, 0.25), 'jitter': 0.1},
        {'late': (0.3, 0.02), 'jitter': 0.05},
        # Slow cameras, whose drivers have the image after one period.
        {'rates': (30.0, 1.0), 'late': (0.02, 0.9), 'seconds': 15.0},
        {'rates': (1.0, 1.0), 'late': (0.02, 0.9), 'seconds': 15.0},
        # An executor that is busy for 0.7 s of every second, then takes all that waits.
        {'at': lambda moment: max(moment, int(moment) + 0.7)},
        # One camera's images that come every 1.2 s: they are late by 0.6 s in the mean.
        {'burst': 1.2, 'seconds': 8.0},
        # Recordings replayed fast and slowly: 80 ms on the way are 0.8 s of stamps.
        {'speed': 10.0, 'late': (0.005, 0.085), 'seconds': 40.0},
        {'speed': 0.2, 'late': (0.005, 0.085)},
        # A recording that is paused.
        {'at': lambda moment: moment + 7.0 * (moment > 2.0)},
        # A recorder that wrote all at once.
        {'at': lambda moment: 0.0},
        {'offset': -0.3, 'rates': (10.0, 10.0)},
    ],
)
def test_what_is_late_or_replayed_is_no_fault_of_the_clocks(situation: dict[str, Any]) -> None:
    assert said(run(**situation)) == []


@pytest.mark.parametrize('speed', [0.2, 1.0, 5.0])
def test_the_rate_of_a_replay_does_not_matter(speed: float) -> None:
    watch = run(3.0, seconds=10.0, speed=speed)
    assert watch.offset('thermal', 0.05) == pytest.approx(3.0, abs=0.05 * speed + 0.01)
    assert len(said(watch)) == 1


def test_images_that_were_recorded_at_one_time_are_compared_in_their_order() -> None:
    watch = StampWatch(SOURCES, 60)
    for index in range(20):
        for source, ahead in (('visible', 0.0), ('thermal', 3.0)):
            watch(source, round((START + index / 10 + ahead) * SECOND), UPTIME)
    assert watch.offset('thermal', 0.05) == pytest.approx(3.0, abs=0.1)
    assert len(said(watch)) == 1


def test_what_an_offset_is_set_for_is_not_said() -> None:
    # A stream that is stamped when it arrives, a second after its exposure.
    assert said(run(), thermal_time_offset=-1.0) == []
    # That is no delay any more.
    (sentence,) = said(run(), thermal_time_offset=-5.0)
    assert 'thermal_time_offset is -5 s' in sentence
    assert 'set thermal_time_offset: ' in sentence
    # Set for another offset than there is.
    (sentence,) = said(run(3.0), thermal_time_offset=-1.0)
    assert float(re.findall(r'set thermal_time_offset: ([-\d.]+)', sentence)[0]) == pytest.approx(
        -3.0, abs=0.05
    )


def test_a_wide_tolerance_is_meant() -> None:
    assert said(run(1.5), sync_tolerance=2.0) == []
    assert len(said(run(1.5), sync_tolerance=1.0)) == 1


def test_each_further_source_has_its_own_clock() -> None:
    sources = ('visible', 'thermal', 'nir')
    cameras: dict[str, Any] = {'rates': (30.0, 9.0, 15.0), 'late': (0.02, 0.05, 0.03)}
    watch = run(-2.0, sources=sources, **cameras)
    (sentence,) = said(watch)
    assert sentence.startswith('the nir stamps are 2.0')
    # There is no parameter for it.
    assert 'thermal_time_offset' not in sentence
    assert 'synchronise them' in sentence
    assert watch.clock_warnings(values(), {'nir'}) == []
    assert watch.clock_warnings(values(), {'visible'}) == []
    assert set(watch.table(0.05)) == {'stamp offset thermal (s)', 'stamp offset nir (s)'}


def test_a_clock_that_is_put_right_is_forgotten_soon() -> None:
    watch = run(1.5)
    assert len(said(watch)) == 1
    for index in range(200):
        arrival = UPTIME + 10 + index / 30
        watch('visible', round((START + 10 + index / 30) * SECOND), arrival)
        if index % 3 == 0:
            watch('thermal', round((START + 10 + index / 30 + 0.01) * SECOND), arrival + 0.01)
    assert said(watch) == []


def test_few_images_say_nothing_yet() -> None:
    watch = run(3.0, seconds=0.5)
    assert said(watch) == []
    assert watch.offset('thermal', 0.05) == pytest.approx(3.0, abs=0.05)
    # Cameras that were recorded one after the other did not come together.
    apart = StampWatch(SOURCES, 60)
    for source, begin in (('visible', 0.0), ('thermal', 10.0)):
        for index in range(20):
            stamp = round((START + index / 10) * SECOND)
            apart(source, stamp, UPTIME + begin + index / 10)
    assert apart.offset('thermal', 0.05) is None
    assert apart.table(0.05) == {'stamp offset thermal (s)': 'unknown'}
    assert apart.nearest_offset('thermal') == 0.0


@pytest.mark.parametrize('rates', [(10.0, 10.0), (10.0, 5.0), (5.0, 10.0)])
@pytest.mark.parametrize('ahead', [0.03, -0.03])
def test_how_far_the_nearest_stamps_are_has_a_sign(
    rates: tuple[float, float], ahead: float
) -> None:
    watch = run(ahead, rates=rates)
    assert watch.nearest_offset('thermal') == pytest.approx(ahead, abs=1e-6)


# Stamps of no use


def stamped(rate: float, stamp_of: Callable[[float], float], seconds: float = 5.0) -> StampWatch:
    """Return a watch that saw a thermal camera whose driver stamps in its own way."""
    watch = StampWatch(SOURCES, 60)
    for index in range(int(rate * seconds)):
        moment = index / rate
        stamp = stamp_of(START + moment)
        watch('thermal', round(stamp * SECOND), UPTIME + moment)
    return watch


@pytest.mark.parametrize(
    ('rate', 'stamp_of', 'words'),
    [
        (30.0, lambda moment: float(int(moment)), ['58 of the last 60', ', in whole seconds,']),
        (1.4, lambda moment: float(int(moment)), ['thermal images', ', in whole seconds,']),
        (
            30.0,
            lambda moment: round(moment * 5) / 5,
            ['of the last 60', 'repeat the previous stamp'],
        ),
        (30.0, lambda moment: 0.0, ['60 of the last 60 thermal images have no stamp']),
        (10.0, lambda moment: moment * (int(moment * 10) % 5 > 0), ['have no stamp']),
    ],
)
def test_stamps_that_cost_images_are_said(
    rate: float, stamp_of: Callable[[float], float], words: list[str]
) -> None:
    watch = stamped(rate, stamp_of, 12.0)
    (sentence,) = watch.stamp_warnings(())
    assert all(word in sentence for word in words)
    assert 'are dropped: the driver must' in sentence
    assert watch.stamp_warnings({'thermal'}) == []


@pytest.mark.parametrize(
    ('rate', 'stamp_of'),
    [
        (30.0, lambda moment: moment),
        # A camera that is triggered at the full second.
        (1.0, lambda moment: moment),
        # Each image twice; in milliseconds.
        (30.0, lambda moment: round(moment * 15) / 15),
        (30.0, lambda moment: round(moment, 3)),
    ],
)
def test_stamps_that_cost_nothing_are_not_said(
    rate: float, stamp_of: Callable[[float], float]
) -> None:
    assert stamped(rate, stamp_of, 20.0).stamp_warnings(()) == []
