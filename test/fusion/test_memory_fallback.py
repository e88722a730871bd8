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

"""Memory that runs out: what is tried instead, and when what was asked for is tried again."""

import numpy as np
import pytest

from dig2dig_ros.fusion.memory_fallback import cheapest, is_out_of_memory, MemoryFallback
from dig2dig_ros.fusion.settings import FusionSettings

FOUR = FusionSettings(num_inference_steps=4)


def prior_images(settings):
    """Return what a pair needs of the memory, in images through the prior."""
    refreshes = len(settings.refresh_timesteps)
    return 2 * refreshes * max(1, settings.noise_draws) / settings.prior_downscale**2


@pytest.mark.parametrize(
    'asked',
    [
        FusionSettings(),
        FOUR,
        FusionSettings(
            sampler='ddim', num_inference_steps=16, dig_refresh_interval=4, first_timestep=999
        ),
        FusionSettings(num_inference_steps=25, dig_refresh_interval=10, noise_draws=4),
        FusionSettings(num_inference_steps=6, dig_refresh_interval=6),
        FusionSettings(prior_downscale=2, num_inference_steps=3),
        FusionSettings(prior_downscale=4),
    ],
)
def test_the_cheapest_settings_hold_one_small_estimate_of_each_source(asked):
    settings = cheapest(asked)
    assert prior_images(settings) == 2 / 16
    assert settings.timesteps == asked.timesteps
    assert bool(settings.noise_draws) == bool(asked.noise_draws)
    assert cheapest(settings) == settings


class Robot:
    """
    A robot whose memory holds so many images of the prior, and less while others need it.

    It is the fuser of its fallback, too.

    :param room: seconds of the clock to that number.
    """

    def __init__(self, room):
        self.room = room
        self.now = 0.0
        self.fallback = MemoryFallback(lambda: self.now)
        self.dropped = 0
        self.freed = 0

    def fuse(self, *images, settings):
        if prior_images(settings) > self.room(self.now):
            raise MemoryError
        return settings

    def free_memory(self):
        self.freed += 1

    def run(self, duration, asked):
        """Fuse ten pairs a second; return the settings of those that were."""
        end = self.now + duration
        fused = []
        while self.now < end:
            self.now += 0.1
            try:
                fused.append(self.fallback.fuse(self, (), asked, lambda text: None))
            except MemoryError:
                self.dropped += 1
        return fused


def test_as_long_as_the_memory_suffices_all_is_as_asked():
    robot = Robot(lambda now: 100)
    assert set(robot.run(60, FOUR)) == {FOUR}
    assert robot.fallback.warning() is None
    assert robot.fallback.table(FOUR) == {
        'N': '4',
        'S': '1',
        'prior downscale': '1',
        'settings': 'as asked',
    }


def test_memory_that_runs_out_lowers_the_settings_and_is_rarely_tried_again():
    robot = Robot(lambda now: 4)
    assert set(robot.run(3600, FOUR)) == {cheapest(FOUR)}
    assert not robot.dropped
    # At first, and after 30, 60, 120, ... seconds.
    assert robot.freed == 7
    assert robot.fallback.table(FOUR) == {
        'N': '4',
        'S': '4',
        'prior downscale': '4',
        'settings': 'the cheapest: memory ran out',
    }
    assert 'memory ran out: fusing with S 4 and the denoiser at 1/4' in robot.fallback.warning()


def test_memory_that_comes_back_is_used_again():
    robot = Robot(lambda now: 1 if 60 <= now < 120 else 100)
    robot.run(60, FOUR)
    assert robot.run(59, FOUR)[-1] == cheapest(FOUR)
    assert robot.run(60, FOUR)[-1] == FOUR
    assert robot.fallback.warning() is None
    assert robot.fallback.table(FOUR)['settings'] == 'as asked'


def test_another_shortage_long_after_the_first_is_waited_for_no_longer():
    robot = Robot(lambda now: 4 if now < 200 or 905 <= now < 906 else 100)
    assert robot.run(200, FOUR)[-1] == cheapest(FOUR)
    assert robot.run(700, FOUR)[-1] == FOUR
    fused = robot.run(40, FOUR)
    assert fused[100] == cheapest(FOUR)
    assert fused[-1] == FOUR


def test_pairs_that_never_fit_are_dropped_and_the_next_one_is_tried():
    robot = Robot(lambda now: 0 if now < 61 else 100)
    assert robot.run(60, FOUR) == []
    assert robot.dropped > 500
    assert robot.run(5, FOUR)[-1] == cheapest(FOUR)
    assert robot.run(600, FOUR)[-1] == FOUR


def test_other_settings_are_tried_as_they_are():
    robot = Robot(lambda now: 4)
    robot.run(10, FOUR)
    other = FusionSettings(num_inference_steps=4, seed=1)
    # What a user has just asked for is shown at once.
    assert robot.fallback.table(other)['settings'] == 'as asked'
    robot.room = lambda now: 100
    assert robot.run(0.1, other) == [other]
    assert robot.fallback.warning() is None


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
    cv2 = pytest.importorskip('cv2')
    with pytest.raises(cv2.error) as caught:
        cv2.resize(np.zeros((1, 1), np.uint8), (2**29, 2**29))
    assert is_out_of_memory(caught.value)
