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

import json
import math
from pathlib import Path
import tracemalloc

import numpy as np
import pytest

from dig2dig_ros.evaluation.baselines import BASELINES
from dig2dig_ros.evaluation.comparison import (
    ABLATIONS,
    changed_settings,
    ComparisonError,
    Difference,
    FEWEST_PAIRS,
    FUSIONS,
    load_peers,
    mean_ranks,
    metric_ranks,
    paired_differences,
    parse_rows,
    ranks,
    split_rows,
)
from dig2dig_ros.fusion.settings import FusionSettings


def test_rows_of_one_table_by_name() -> None:
    rows = parse_rows('mean, fused ,dig_chain,mean')
    assert [row.name for row in rows] == ['mean', 'fused', 'dig_chain']
    assert [row.is_baseline for row in rows] == [True, False, False]
    assert [row.name for row in parse_rows('all')] == [
        *BASELINES,
        *(name for name, fusion in FUSIONS.items() if not fusion.is_control),
    ]


def test_settings_of_a_row_have_the_types_of_the_settings() -> None:
    text = 'fused:N=2, S=1,temperature=1,normalize_gain=false,gain_loss=l1'
    rows = parse_rows(f'laplacian,{text},rd:seed=4')
    assert [row.base for row in rows] == ['laplacian', 'fused', 'rd']
    assert rows[1].name == text.replace(' ', '')
    settings = FusionSettings(**rows[1].overrides)
    assert settings == FusionSettings(
        num_inference_steps=2,
        dig_refresh_interval=1,
        temperature=1.0,
        normalize_gain=False,
        gain_loss='l1',
    )
    assert isinstance(settings.temperature, float)
    assert rows[2].overrides == {'seed': 4}


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('', 'no row given'),
        ('median', 'unknown row median: use one or more of mean, '),
        ('mean:seed=1', 'mean has no settings'),
        ('fused:', 'is not a setting: use one of sampler, '),
        ('fused:steps=2', "'steps=2' is not a setting"),
        ('fused:N=2.5', "num_inference_steps is '2.5', but must be a whole number"),
        ('fused:temperature=warm', "temperature is 'warm', but must be a number"),
        ('fused:normalize_gain=1', "normalize_gain is '1', but must be true or false"),
    ],
)
def test_rows_that_make_no_sense_are_refused(text: str, message: str) -> None:
    with pytest.raises(ComparisonError, match=message.replace('(', r'\(')):
        parse_rows(text)


def test_names_are_split_where_no_setting_goes_on() -> None:
    assert split_rows('uniform,fused:N=2,S=1,rd') == ['uniform', 'fused:N=2,S=1', 'rd']


@pytest.mark.parametrize('name', FUSIONS)
def test_every_fusion_has_valid_settings(name: str) -> None:
    settings = FusionSettings(**FUSIONS[name].overrides)
    if name.startswith('dig_chain'):
        assert (settings.sampler, settings.weights) == ('ddim', 'dig')


def test_ablations_vary_one_thing_each() -> None:
    chain = FUSIONS['dig_chain'].overrides
    for ablation in ABLATIONS.values():
        rows = [FusionSettings(**{**chain, **changes}) for changes in ablation.rows.values()]
        assert len(set(rows)) == len(rows)
        assert sum(len(changes) for changes in ablation.rows.values()) == len(rows)
    assert list(ABLATIONS['distance'].rows) == ['none', 'l1', 'ssim', 'l2']


def test_changed_settings_name_what_is_not_default() -> None:
    assert changed_settings(FusionSettings()) == 'default settings'
    changed = FusionSettings(weights='rd', seed=3)
    assert changed_settings(changed) == 'weights=rd, seed=3'


def test_ranks_of_ties_are_shared() -> None:
    assert ranks([0.5, 0.9, 0.5, 0.1], higher_is_better=True) == [2.5, 1.0, 2.5, 4.0]
    assert ranks([0.5, 0.9, 0.5, 0.1], higher_is_better=False) == [2.5, 4.0, 2.5, 1.0]
    assert ranks([math.inf, 1.0], higher_is_better=True) == [1.0, 2.0]
    assert ranks([7.0] * 3, higher_is_better=True) == [2.0] * 3


def test_mean_rank_follows_the_direction_of_each_metric() -> None:
    scores = {
        'a': {'SSIM': 1.4, 'MSE': 100.0},
        'b': {'SSIM': 1.2, 'MSE': 50.0},
        'c': {'SSIM': 1.0, 'MSE': 200.0},
        'published': {'SSIM': 1.9},
    }
    # Who lacks a metric has no mean rank, and does not push the others down.
    assert mean_ranks(scores, ('SSIM', 'MSE')) == {'a': 1.5, 'b': 1.5, 'c': 3.0}
    assert metric_ranks(scores, 'SSIM') == {'published': 1.0, 'a': 2.0, 'b': 3.0, 'c': 4.0}
    assert metric_ranks(scores, 'MSE') == {'b': 1.0, 'a': 2.0, 'c': 3.0}


def test_interval_of_a_case_worked_by_hand() -> None:
    # One of six pairs differs, by 6: the mean of a resample is how often it is drawn, which is
    # binomial with n = 6 and p = 1/6. Its distribution function is .335, .737, .938, .991, ...
    # at 0, 1, 2, 3, so that its quantiles at .025 and .975 are 0 and 3.
    ours = np.array([[6.0], [0], [0], [0], [0], [0]])
    (difference,) = paired_differences(ours, np.zeros((6, 1)))
    assert difference == Difference(pytest.approx(1.0), 0.0, pytest.approx(3.0))
    assert difference.verdict(higher_is_better=True) == 'open'


def test_constant_difference_has_no_width() -> None:
    theirs = np.random.default_rng(1).normal(size=(9, 2))
    rising, falling = paired_differences(theirs + np.array([0.25, -2.0]), theirs)
    for difference, value in ((rising, 0.25), (falling, -2.0)):
        assert (difference.mean, difference.low, difference.high) == pytest.approx((value,) * 3)
    assert rising.verdict(higher_is_better=True) == 'better'
    assert rising.verdict(higher_is_better=False) == 'worse'
    assert falling.verdict(higher_is_better=False) == 'better'
    (nothing,) = paired_differences(theirs[:, :1], theirs[:, :1])
    assert nothing == Difference(0.0, 0.0, 0.0)
    assert nothing.verdict(higher_is_better=True) == 'open'


def test_interval_is_that_of_the_normal_distribution_for_many_pairs() -> None:
    rng = np.random.default_rng(2)
    differences = rng.normal(1.0, 3.0, (400, 1))
    (found,) = paired_differences(differences, np.zeros_like(differences))
    half = 1.96 * differences.std() / math.sqrt(400)
    assert found.low == pytest.approx(differences.mean() - half, abs=0.03)
    assert found.high == pytest.approx(differences.mean() + half, abs=0.03)
    assert paired_differences(differences, np.zeros_like(differences)) == [found]


@pytest.mark.parametrize('pairs', [1, FEWEST_PAIRS - 1])
def test_few_pairs_are_not_enough_for_an_interval(pairs: int) -> None:
    (difference,) = paired_differences(np.full((pairs, 1), 2.0), np.ones((pairs, 1)))
    assert difference == Difference(1.0, None, None)
    assert difference.verdict(higher_is_better=True) == 'open'


def test_infinite_values_have_no_interval_and_leave_the_others_alone() -> None:
    ours = np.ones((6, 2))
    ours[0, 0] = np.inf
    infinite, finite = paired_differences(ours, np.zeros((6, 2)))
    assert infinite == Difference(math.inf, None, None)
    assert finite.low == pytest.approx(1.0)
    theirs = np.full((6, 1), -np.inf)
    theirs[0] = np.inf
    (undefined,) = paired_differences(ours[::-1, :1], theirs)
    assert undefined.low is None


@pytest.mark.parametrize('shape', [(5, 2), (6,), (0, 2)])
def test_values_that_do_not_fit_together_are_refused(shape: tuple[int, ...]) -> None:
    other = (6, 2) if shape != (0, 2) else shape
    with pytest.raises(ValueError, match='must be'):
        paired_differences(np.zeros(shape), np.zeros(other))


def test_scores_of_other_methods(tmp_path: Path) -> None:
    path = tmp_path / 'peers.json'
    document = {
        'what': 'text',
        'gflops': {'A': 108.8},
        'street': {'A': {'SSIM': 1.4, 'MSE': 2000, 'LPIPS': 'n/a'}, 'B': {'SSIM': 1.2}},
    }
    path.write_text(json.dumps(document), encoding='utf-8')
    peers = load_peers(path, 'street')
    assert peers.scores == {'A': {'SSIM': 1.4, 'MSE': 2000.0}, 'B': {'SSIM': 1.2}}
    assert peers.gflop == {'A': 108.8}


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('{', 'cannot be read as JSON'),
        ('[]', 'has no set street; it has none'),
        ('{"night": {"A": {"SSIM": 1}}, "what": "x"}', 'has no set street; it has night'),
        ('{"street": {"A": {"SSIM": "1.4"}}}', "SSIM of A is '1.4', not a finite number"),
        ('{"street": {"A": {"SSIM": true}}}', 'SSIM of A is True, not a finite number'),
        ('{"street": {"A": {"SSIM": NaN}}}', 'SSIM of A is nan, not a finite number'),
        ('{"street": {"A": {"LPIPS": 0.3}}}', 'A of street has none of PSNR_sum, '),
    ],
)
def test_scores_that_cannot_be_used_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / 'peers.json'
    path.write_text(text, encoding='utf-8')
    with pytest.raises(ComparisonError, match=message):
        load_peers(path, 'street')


def test_missing_file_of_scores_is_named(tmp_path: Path) -> None:
    with pytest.raises(ComparisonError, match=r'nowhere\.json cannot be read'):
        load_peers(tmp_path / 'nowhere.json', 'street')


@pytest.mark.slow
def test_many_pairs_take_little_memory() -> None:
    rng = np.random.default_rng(0)
    ours = rng.normal(0.1, 1.0, (3000, 2))
    tracemalloc.start()
    try:
        first, _ = paired_differences(ours, np.zeros((3000, 2)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 40e6
    assert first.low is not None
    assert first.low < ours[:, 0].mean() < (first.high or 0)


def test_equal_infinite_values_do_not_differ() -> None:
    # Both equal a source on that pair.
    ours = np.zeros((6, 1))
    ours[0] = np.inf
    (difference,) = paired_differences(ours, ours.copy())
    assert difference == Difference(0.0, 0.0, 0.0)
