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

from dataclasses import replace
import itertools

import pytest

from dig2dig_ros.fusion.settings import FusionSettings, reduced_timesteps


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


def test_gains_are_refreshed_every_s_steps_from_the_first():
    settings = FusionSettings(num_inference_steps=5, first_timestep=500, dig_refresh_interval=2)
    settings = replace(settings, timestep_spacing='uniform')
    assert settings.timesteps == (500, 400, 300, 200, 100)
    assert settings.refresh_timesteps == (500, 300, 100)


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        ({'num_inference_steps': 0}, 'num_inference_steps is 0'),
        ({'dig_refresh_interval': 0}, 'dig_refresh_interval is 0'),
        ({'first_timestep': 1000}, 'first_timestep is 1000'),
        ({'num_inference_steps': 500}, 'first_timestep is 400.*500'),
        ({'temperature': 0.0}, 'temperature'),
        ({'guidance_scale': 1.5}, 'guidance_scale is 1.5'),
        ({'gain_window': 4}, 'gain_window is 4.*odd'),
        ({'structure_window': 2}, 'structure_window is 2.*odd'),
        ({'decision_window': 6}, 'decision_window is 6.*odd'),
        ({'gain_loss': 'l3'}, "gain_loss is 'l3'"),
        ({'weights': 'best'}, "weights is 'best'"),
        ({'sampler': 'euler'}, "sampler is 'euler'"),
        ({'guidance': 'em'}, "guidance is 'em'.*sampler ddim or ancestral"),
        ({'noise_draws': -1}, 'noise_draws is -1'),
        ({'prior_downscale': 3}, 'prior_downscale is 3.*1, 2, 4'),
        ({'contrast_gain': 0.5}, 'contrast_gain is 0.5'),
        ({'chroma': 'none'}, "chroma is 'none'"),
        ({'timestep_spacing': 'cubic'}, 'timestep_spacing'),
        ({'least_information': 1.5}, 'least_information is 1.5'),
        ({'thermal_strength': -0.1}, 'thermal_strength is -0.1'),
        (
            {'visible_degradation': 'stripes auto'},
            'visible_degradation is .*only estimated in thermal',
        ),
        (
            {'visible_degradation': 'contrast auto'},
            'visible_degradation is .*only thermal images are stretched',
        ),
        ({'visible_degradation': 'blur auto'}, 'visible_degradation is .*blur of thermal'),
    ],
)
def test_bad_settings_are_refused_by_name(change, words):
    with pytest.raises(ValueError, match=words):
        replace(FusionSettings(num_inference_steps=3, first_timestep=400), **change)
