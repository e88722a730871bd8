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


"""Ways to fuse by name, set up once each, and their costs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
import pytest

from dig2dig_ros.evaluation.baselines import BASELINES, to_uint8
from dig2dig_ros.evaluation.comparison import FUSIONS, parse_rows, Row
from dig2dig_ros.evaluation.methods import (
    baseline_method,
    describe_rows,
    FusionMethod,
    method_costs,
    prepare_methods,
    prior_gflop,
    row_settings,
    time_methods,
)
from dig2dig_ros.evaluation.metrics import luma
from dig2dig_ros.evaluation.options import load_parameters, UsageError
from dig2dig_ros.evaluation.scores import fuse_with
from dig2dig_ros.fusion.fuser import Fuser
from dig2dig_ros.fusion.settings import FusionSettings
from dig2dig_ros.images.registration import Registration
from dig2dig_ros.streams.parameters import fusion_settings
from dig2dig_ros.streams.preparation import registered_image

SIZE = (64, 48)
PARAMETERS = {'prior': 'nano', 'device': 'cpu', 'precision': 'fp32'}
CHAIN = 'sampler=ddim,N=2,S=1'


def picture(seed: int, *shape: int) -> NDArray[np.uint8]:
    noise = np.random.default_rng(seed)
    return noise.integers(0, 256, shape or (48, 64), dtype=np.uint8)


VISIBLE, THERMAL = picture(0, 48, 64, 3), picture(1)


@pytest.mark.parametrize('name', BASELINES)
def test_a_baseline_fuses_luma(name: str) -> None:
    expected = to_uint8(BASELINES[name]([luma(VISIBLE), THERMAL]))
    fuse = baseline_method(name)
    assert np.array_equal(fuse((VISIBLE, THERMAL), ()), expected)
    # 16 bits, and another size, are brought to those of the first image.
    wide = THERMAL.astype(np.uint16) * 257
    assert np.array_equal(fuse((VISIBLE, wide), ()), expected)
    assert fuse((VISIBLE, picture(2, 24, 32)), ()).shape == (48, 64)


def test_every_row_gets_the_thermal_image_where_it_lies() -> None:
    to_the_right = np.array([[1.0, 0, 8], [0, 1, 0], [0, 0, 1]])
    small = picture(3, 48, 40)
    placement = Registration(to_the_right, (40, 48), (64, 48)).placement()
    methods = prepare_methods(parse_rows('mean,fused'), PARAMETERS, SIZE)
    fused = fuse_with(methods, (VISIBLE, small), placements=(None, placement))
    registered = registered_image(small, placement, SIZE)
    assert np.array_equal(registered[:, 10:40], small[:, 2:32])
    expected = to_uint8(BASELINES['mean']([luma(VISIBLE), registered]))
    assert np.array_equal(fused['mean'].image, expected)
    result = Fuser(**PARAMETERS).fuse(VISIBLE, small, placements=(None, placement))
    assert np.array_equal(fused['fused'].image, result.image)


def test_rows_of_the_same_settings_share_one_fusion_and_all_share_the_prior() -> None:
    rows = parse_rows(f'mean,fused,fused:seed=0,uniform,fused:{CHAIN}')
    methods = prepare_methods(rows, PARAMETERS, SIZE)
    assert list(methods) == [row.name for row in rows]
    fusions = {name: m for name, m in methods.items() if isinstance(m, FusionMethod)}
    assert 'mean' not in fusions
    assert fusions['fused'] is fusions['fused:seed=0']
    assert len({id(method) for method in fusions.values()}) == 3
    assert len({id(method.fuser.prior) for method in fusions.values()}) == 1

    result = Fuser(FusionSettings(), **PARAMETERS).fuse(VISIBLE, THERMAL)
    assert np.array_equal(methods['fused']((VISIBLE, THERMAL), ()), result.image)
    assert fusions['fused'].prior_calls == result.prior_calls > 0
    assert 'prior nano' in fusions['fused'].about()
    about = describe_rows(rows, methods)
    assert list(about) == list(fusions)
    assert about['uniform'] == f'{FUSIONS["uniform"].meaning} (weights=uniform)'


def test_settings_of_a_row() -> None:
    given = {'fusion.temperature': 0.25, 'fusion.num_inference_steps': 3, 'device': 'cpu'}
    settings = row_settings(Row('x', 'uniform', {'num_inference_steps': 2}), given)
    expected = FusionSettings(temperature=0.25, num_inference_steps=2, weights='uniform')
    assert settings == expected
    # The method as printed is what it is, whatever is given.
    literal = fusion_settings(load_parameters('paper'))
    assert row_settings(Row('dig_literal', 'dig_literal'), given) == literal


@pytest.mark.parametrize(
    ('rows', 'parameters', 'message'),
    [
        ('fused:N=500', PARAMETERS, 'fused:N=500 cannot be set up: first_timestep is 400'),
        ('fused', {**PARAMETERS, 'device': 'cuda:99'}, "fused cannot be set up: .*'cuda:99'"),
        ('uniform', {**PARAMETERS, 'prior': 'no/file.safetensors'}, 'uniform cannot be set up: '),
    ],
)
def test_a_row_that_cannot_be_set_up_is_named(
    rows: str, parameters: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        prepare_methods(parse_rows(rows), parameters, SIZE)


@pytest.mark.slow
def test_costs_are_those_of_the_last_fusion() -> None:
    methods = prepare_methods(parse_rows(f'mean,fused,fused:{CHAIN}'), PARAMETERS, SIZE)
    fuse_with(methods, (VISIBLE, THERMAL))
    costs = method_costs(methods, dict.fromkeys(methods, 5.0), SIZE)
    assert (costs['mean'].prior_calls, costs['mean'].gflop) == (None, None)
    chain, fused = costs[f'fused:{CHAIN}'], costs['fused']
    settings = FusionSettings(sampler='ddim', num_inference_steps=2, dig_refresh_interval=1)
    fuser = Fuser(settings, **PARAMETERS)
    assert chain.prior_calls == fuser.fuse(VISIBLE, THERMAL).prior_calls
    assert fused.prior_calls
    assert chain.gflop == pytest.approx(chain.prior_calls * prior_gflop(fuser.prior, SIZE))
    assert prior_gflop(fuser.prior, (128, 96)) > 3 * prior_gflop(fuser.prior, SIZE) > 0
    assert costs['mean'].milliseconds == 5.0


def test_times_are_measured_in_turns(capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[tuple[str, tuple[int, ...]]] = []

    def method(name: str) -> Any:
        def fuse(images: Any, placements: Any) -> NDArray[np.uint8]:
            seen.append((name, *(image.shape for image in images)))
            return np.asarray(images[1])

        return fuse

    times = time_methods({'a': method('a'), 'b': method('b')}, SIZE, 2)
    assert seen == [(name, (48, 64, 3), (48, 64)) for name in 'abab']
    assert list(times) == ['a', 'b']
    assert min(times.values()) >= 0
    assert 'timing at 64x48: [2/2]; 0 s left' in capsys.readouterr().err
