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

"""The step budget on simulated clocks: pairs that take as long as their settings and the load."""

from itertools import pairwise
import math
import random

import pytest

from dig2dig_ros.fusion.memory_fallback import Budget, is_out_of_memory, ladder
from dig2dig_ros.fusion.settings import FusionSettings

CHAIN = FusionSettings(
    sampler='ddim', num_inference_steps=16, dig_refresh_interval=4, first_timestep=999
)
FOUR = FusionSettings(num_inference_steps=4)


def prior_images(settings):
    """Return the cost of a pair in images through the prior, counted one by one."""
    refreshes = len(settings.chain().refresh_timesteps)
    estimates = 2 * refreshes * max(1, settings.noise_draws) / settings.prior_downscale**2
    return estimates + (settings.num_inference_steps if settings.sampler != 'increments' else 0)


class Robot:
    """
    A robot whose camera sends a pair as soon as the last one is done, or with a period.

    :param load: seconds of the clock to how many times as long as on an idle robot all takes.
    :param overhead: seconds of a pair that do not depend on the settings.
    :param per_image: seconds of an image of full size in the prior.
    """

    def __init__(self, load=lambda now: 1.0, overhead=0.01, per_image=0.02, spread=0.0, period=0):
        self.now = 1000.0
        self.start = self.now
        self.load = load
        self.overhead, self.per_image, self.spread = overhead, per_image, spread
        self.period = period
        self.random = random.Random(1)
        self.budget = Budget(lambda: self.now)
        self.history = []

    @property
    def elapsed(self):
        return self.now - self.start

    def seconds(self, settings):
        noise = math.exp(self.random.gauss(0, self.spread))
        own = self.overhead + self.per_image * prior_images(settings)
        return own * noise * self.load(self.elapsed)

    def run(self, duration, asked, rate):
        """Fuse for so many seconds; return the (time, settings, seconds) of the pairs."""
        end = self.now + duration
        pairs = []
        while self.now < end:
            settings = self.budget.settings_for(asked, rate)
            seconds = self.seconds(settings)
            self.now += seconds
            self.budget.took(seconds)
            self.now += max(0.0, self.period - seconds)
            pairs.append((self.elapsed, settings, seconds))
        return pairs


def changes(pairs):
    return sum(before[1] != after[1] for before, after in pairwise(pairs))


def share_above(pairs, limit):
    return sum(seconds > limit for _, _, seconds in pairs) / len(pairs)


@pytest.mark.parametrize(
    'asked',
    [
        FusionSettings(),
        FOUR,
        CHAIN,
        FusionSettings(num_inference_steps=25, dig_refresh_interval=10, noise_draws=4),
        FusionSettings(num_inference_steps=6, dig_refresh_interval=6),
        FusionSettings(sampler='ancestral', weights='uniform', num_inference_steps=9),
        FusionSettings(prior_downscale=2, num_inference_steps=3),
        FusionSettings(prior_downscale=4),
    ],
)
def test_every_rung_is_valid_and_cheaper_than_the_one_before(asked):
    rungs = ladder(asked)
    assert rungs[0].settings == asked
    for better, cheaper in pairwise(rungs):
        assert prior_images(cheaper.settings) < prior_images(better.settings)
        assert cheaper.cost < better.cost
        assert cheaper.settings.dig_refresh_interval <= cheaper.settings.num_inference_steps
    assert rungs[-1].settings.noise_draws <= 1


def test_first_n_goes_down_then_the_draws_then_the_resolution():
    asked = FusionSettings(num_inference_steps=5, dig_refresh_interval=2, noise_draws=2)
    assert [
        (
            rung.settings.num_inference_steps,
            rung.settings.dig_refresh_interval,
            rung.settings.noise_draws,
            rung.settings.prior_downscale,
        )
        for rung in ladder(asked)
    ] == [(5, 2, 2, 1), (2, 2, 2, 1), (2, 2, 1, 1), (2, 2, 1, 2), (2, 2, 1, 4)]


def test_pairs_that_take_very_long_are_not_waited_for():
    robot = Robot(per_image=1.0)
    pairs = robot.run(40, FOUR, 5)
    assert [settings == FOUR for _, settings, _ in pairs[:3]] == [True, True, False]
    assert pairs[2][1] == ladder(FOUR)[-1].settings


def test_without_a_target_nothing_changes_however_long_a_pair_takes():
    robot = Robot(per_image=10.0)
    assert changes(robot.run(1000, FOUR, 0)) == 0
    assert robot.budget.warning() is None
    table = robot.budget.table(FOUR, 0)
    assert table == {
        'N': '4',
        'S': '1',
        'prior downscale': '1',
        'target rate (Hz)': 'off',
        'budget': 'as asked',
    }


def test_a_target_that_is_held_as_asked_changes_nothing():
    robot = Robot()
    assert changes(robot.run(600, FOUR, 5)) == 0
    assert robot.budget.table(FOUR, 5)['budget'] == 'as asked'


@pytest.mark.parametrize('asked', [FOUR, CHAIN, FusionSettings(noise_draws=8)])
@pytest.mark.parametrize('rate', [2, 5, 8, 10, 12, 15, 20, 25, 30])
@pytest.mark.parametrize('spread', [0.0, 0.1])
def test_a_steady_load_is_held_without_swinging(rate, asked, spread):
    robot = Robot(spread=spread)
    begin = robot.run(5, asked, rate)
    pairs = robot.run(300, asked, rate)
    # Where even the cheapest is too slow, it is that.
    fastest = 0.01 + 0.02 * prior_images(ladder(asked)[-1].settings)
    if fastest * rate < 0.8:
        assert sum(seconds for _, _, seconds in pairs) / len(pairs) < 1 / rate
        assert share_above(pairs, 1.5 / rate) < 0.01
        assert robot.budget.warning() is None
    elif fastest * rate > 1.2:
        assert {settings for _, settings, _ in pairs} == {ladder(asked)[-1].settings}
        assert 'is not held' in robot.budget.warning()
    assert changes(begin) <= 5
    assert changes(pairs) <= 10


def test_a_better_rung_that_does_not_last_is_tried_ever_more_rarely():
    # N 2 fits, N 4 would take just a little too long.
    robot = Robot(period=0.2)
    hours = [changes(robot.run(3600, FOUR, 5.5)) for _ in range(2)]
    assert 0 < hours[1] <= hours[0] <= 20
    assert hours[1] <= 10


def test_the_best_settings_that_hold_the_target_are_found():
    # 10 ms and 20 ms an image: N 4, 2, 1 take 170, 90 and 50 ms.
    robot = Robot()
    settings = robot.run(600, FOUR, 9)[-1][1]
    assert settings.num_inference_steps == 2
    settings = robot.run(600, FOUR, 15)[-1][1]
    assert (settings.num_inference_steps, settings.prior_downscale) == (1, 1)


def test_a_rung_that_was_jumped_over_is_tried_where_it_has_room():
    # At ten times the load everything but the cheapest is too slow, then it passes.
    robot = Robot(load=lambda now: 10.0 if now < 30 else 1.0)
    assert robot.run(30, FOUR, 5)[-1][1].prior_downscale == 4
    assert robot.run(300, FOUR, 5)[-1][1] == FOUR


def test_a_load_that_passes_is_followed_quickly_down_and_carefully_up():
    robot = Robot(load=lambda now: 3.0 if 100 <= now < 200 else 1.0)
    pairs = robot.run(100, FOUR, 5)
    assert {settings for _, settings, _ in pairs} == {FOUR}
    loaded = robot.run(100, FOUR, 5)
    assert share_above(loaded[:6], 0.2) > 0.5
    assert share_above(loaded[6:], 0.2) == 0
    after = robot.run(100, FOUR, 5)
    assert share_above(after, 0.2) == 0
    assert after[-1][1] == FOUR
    back = next(when for when, settings, _ in after if settings == FOUR)
    assert 5 <= back - 200 <= 30


@pytest.mark.parametrize('period', [4, 10, 20, 45, 90])
def test_a_load_that_comes_and_goes_does_not_make_the_settings_swing_for_ever(period):
    robot = Robot(load=lambda now: 3.0 if now % period < period / 2 else 1.0, period=0.1)
    robot.run(600, FOUR, 5)
    pairs = robot.run(1200, FOUR, 5)
    assert changes(pairs) <= 2 + 4 * 1200 / max(period, 90)
    assert share_above(pairs, 0.2) < 0.08


def test_single_outliers_move_nothing():
    robot = Robot()
    spikes = iter(range(10**9))
    robot.load = lambda now: 50.0 if next(spikes) % 4 == 3 else 1.0
    assert changes(robot.run(600, FOUR, 5)) == 0


def test_outliers_at_random_rarely_move_anything_and_it_is_put_right():
    robot = Robot()
    robot.load = lambda now: 20.0 if robot.random.random() < 0.05 else 1.0
    pairs = robot.run(1800, FOUR, 5)
    as_asked = sum(settings == FOUR for _, settings, _ in pairs) / len(pairs)
    assert as_asked > 0.9
    assert changes(pairs) <= 20


def test_a_load_that_ends_while_stepping_down_is_found_out():
    # The better rung was only ever measured under a load that has gone.
    robot = Robot(load=lambda now: 6.0 if now < 2.9 else 1.0)
    robot.run(2.9, FOUR, 5)
    assert robot.run(900, FOUR, 5)[-1][1] == FOUR


def test_a_target_that_cannot_be_held_is_said():
    robot = Robot(overhead=0.05)
    robot.run(10, FOUR, 30)
    cheapest = ladder(FOUR)[-1].settings
    assert robot.budget.settings_for(FOUR, 30) == cheapest
    warning = robot.budget.warning()
    assert 'target rate of 30 Hz is not held' in warning
    assert 'N 1 of 4, prior at 1/4' in warning
    assert 'ms' in warning
    assert robot.budget.table(FOUR, 30)['budget'] == 'N 1 of 4, prior at 1/4: to hold 30 Hz'


def test_other_settings_or_another_target_begin_anew():
    robot = Robot()
    robot.run(60, FOUR, 15)
    assert robot.budget.table(FOUR, 15)['N'] == '1'
    assert robot.budget.table(FOUR, 5)['budget'] == 'as asked'
    robot.run(60, FOUR, 15)
    assert robot.budget.settings_for(CHAIN, 15) == CHAIN
    robot.run(60, CHAIN, 15)
    assert robot.budget.settings_for(CHAIN, 0) == CHAIN
    assert robot.budget.table(CHAIN, 0)['budget'] == 'as asked'


class SmallRobot(Robot):
    """
    A robot whose memory holds so many images of the prior, and less while others need it.

    :param room: seconds of the clock to that number.
    """

    def __init__(self, room, **keywords):
        super().__init__(**keywords)
        self.room = room
        self.dropped = []

    def run(self, duration, asked, rate):
        end = self.now + duration
        pairs = []
        while self.now < end:
            for _ in range(2):
                settings = self.budget.settings_for(asked, rate)
                self.now += 0.1
                if prior_images(settings) <= self.room(self.elapsed):
                    self.budget.took(0.1)
                    pairs.append((self.elapsed, settings, 0.1))
                    break
                if not self.budget.out_of_memory():
                    self.dropped.append(self.elapsed)
                    break
            else:
                self.dropped.append(self.elapsed)
        return pairs


@pytest.mark.parametrize('rate', [0, 5])
def test_memory_that_runs_out_steps_down_and_is_rarely_tried_again(rate):
    robot = SmallRobot(lambda now: 4)
    pairs = robot.run(3600, FOUR, rate)
    assert {settings.num_inference_steps for _, settings, _ in pairs} == {2}
    assert not robot.dropped
    # Each pair takes one or, where more was tried, two turns.
    assert 36000 - len(pairs) < 30
    assert robot.budget.table(FOUR, rate)['budget'] == 'N 2 of 4: memory ran out'
    assert 'memory ran out: fusing with N 2 of 4' in robot.budget.warning()


@pytest.mark.parametrize('rate', [0, 5])
def test_memory_that_comes_back_is_used_again(rate):
    robot = SmallRobot(lambda now: 1 if 60 <= now < 120 else 100)
    robot.run(60, FOUR, rate)
    assert robot.run(60, FOUR, rate)[-1][1].prior_downscale == 2
    assert robot.run(600, FOUR, rate)[-1][1] == FOUR
    assert robot.budget.warning() is None
    assert robot.budget.table(FOUR, rate)['budget'] == 'as asked'


def test_pairs_that_never_fit_are_dropped_and_the_next_one_is_tried():
    robot = SmallRobot(lambda now: 0 if now < 61 else 100)
    assert robot.run(60, FOUR, 0) == []
    assert len(robot.dropped) > 100
    assert robot.run(5, FOUR, 0)[-1][1] == ladder(FOUR)[-1].settings
    assert robot.run(600, FOUR, 0)[-1][1] == FOUR


def test_what_is_known_of_the_memory_outlives_another_target():
    robot = SmallRobot(lambda now: 4)
    robot.run(10, FOUR, 0)
    assert robot.budget.settings_for(FOUR, 2).num_inference_steps == 2
    other = FusionSettings(num_inference_steps=4, seed=1)
    assert robot.budget.settings_for(other, 2) == other


@pytest.mark.parametrize(
    ('error', 'expected'),
    [
        (MemoryError(), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError('DefaultCPUAllocator: not enough memory: you tried to allocate 8'), True),
        (RuntimeError('CUDA error: out of memory'), True),
        (RuntimeError('CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate'), True),
        (RuntimeError('std::bad_alloc'), True),
        (RuntimeError('could not create a primitive'), True),
        (RuntimeError('GET was unable to find an engine to execute this computation'), True),
        (RuntimeError('mat1 and mat2 shapes cannot be multiplied'), False),
        (ValueError('the calibration has not enough memory of the cameras'), False),
        (OSError(12, 'Cannot allocate memory'), False),
    ],
)
def test_errors_of_memory_are_told_from_others(error, expected):
    assert is_out_of_memory(error) is expected


def test_real_errors_of_torch_and_opencv_are_known():
    torch = pytest.importorskip('torch')
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(torch.cuda.OutOfMemoryError('CUDA out of memory'))
    with pytest.raises(MemoryError) as caught:
        bytearray(2**60)
    assert is_out_of_memory(caught.value)
