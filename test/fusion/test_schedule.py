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

import itertools

import pytest

from dig2dig_ros.fusion.schedule import reduced_timesteps, ReverseChain


def test_uniform_spacing_is_even_and_starts_at_the_first_timestep():
    assert reduced_timesteps(4, 400, 'uniform') == (400, 300, 200, 100)


def test_quadratic_spacing_takes_larger_steps_at_high_noise():
    timesteps = (*reduced_timesteps(10, 900, 'quadratic'), 0)
    steps = [a - b for a, b in itertools.pairwise(timesteps)]
    assert timesteps[0] == 900
    assert steps == sorted(steps, reverse=True)
    assert steps[0] > 5 * steps[-1]


@pytest.mark.parametrize('spacing', ['quadratic', 'uniform'])
@pytest.mark.parametrize(('count', 'first'), [(1, 1), (2, 2), (25, 25), (25, 40), (999, 999)])
def test_timesteps_are_distinct_decreasing_and_above_zero(spacing, count, first):
    timesteps = reduced_timesteps(count, first, spacing)
    assert len(timesteps) == count
    assert timesteps[0] == first
    assert timesteps[-1] >= 1
    assert all(a > b for a, b in itertools.pairwise(timesteps))


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        ((0, 400, 'uniform'), 'num_inference_steps'),
        ((10, 9, 'uniform'), 'first_timestep 9'),
        ((10, 400, 'cubic'), 'cubic'),
    ],
)
def test_impossible_chains_are_refused_with_their_reason(arguments, words):
    with pytest.raises(ValueError, match=words):
        reduced_timesteps(*arguments)


def test_gains_are_refreshed_every_s_steps_from_the_first():
    chain = ReverseChain((90, 70, 50, 30, 10), dig_refresh_interval=2)
    assert chain.refresh_timesteps == (90, 50, 10)
    assert [chain.refresh_of(step) for step in range(5)] == [0, 0, 1, 1, 2]


def test_refresh_interval_below_one_is_refused():
    with pytest.raises(ValueError, match='dig_refresh_interval'):
        ReverseChain((10,), 0)
