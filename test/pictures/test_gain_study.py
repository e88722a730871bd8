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

"""The tables of weights and guidance, made of measurements that are known."""

import math

from gain_study import Chain, half_gained, step_table, summary_table
from information import GainCurve, GuidanceCovariance, Region
import numpy as np


def cells(table):
    """Return the rows of a table, each by the names of its columns."""
    return [dict(zip(table.header, row, strict=True)) for row in table.rows]


def step(covariance, correlation=0.5, coefficient=2.0):
    return GuidanceCovariance(
        timestep=7,
        coefficient=coefficient,
        covariance=(covariance, covariance),
        weight=(0.75, 0.25),
        projection=(0.4, 0.0),
        correlation=correlation,
    )


def test_summary_counts_what_is_beyond_two_standard_errors():
    chains = []
    steps = {'dig': (0.1, 0.01), 'rd': (-0.1, -0.1), 'uniform': (0.0, 0.0)}
    for index in range(4):
        for rule, (first, second) in steps.items():
            spread = 1 + 0.1 * index
            # The second step of dig changes its sign from pair to pair.
            values = (first * spread, second * spread * (-1) ** (index * (rule == 'dig')))
            own = [step(value, math.nan if rule == 'uniform' else 0.5) for value in values]
            chains.append(Chain('scene', f'pair {index}', rule, own, 0.1))
    rows = cells(summary_table(chains))
    counts = {row['weights']: [row[name] for name in ('steps > 0', '~ 0', '< 0')] for row in rows}
    assert counts == {
        'dig': ['1', '1', '0'],
        'rd': ['0', '0', '2'],
        'uniform': ['0', '2', '0'],
    }
    assert rows[0]['final distance'] == '12.8'
    # 2 steps of A ((0.75 - 0.5) 0.4 + (0.25 - 0.5) 0), in grey levels.
    assert rows[0]['sum of mean terms'] == '+51'
    first = cells(step_table(chains))[0]
    assert first['r dig'] == '+0.5'
    assert first['t'] == '7'
    # Two sources of 0.1 each, times 1, 1.1, 1.2 and 1.3.
    assert first['Cov dig'] == '+0.23 ± 0.01'
    assert first['A Cov dig'] == '+59 ± 3'


def test_half_of_the_gain_is_found_between_two_noise_levels():
    curve = GainCurve(
        '(a) region',
        Region(0, 0, 8, 8),
        np.array([400, 200, 100, 0]),
        np.array([[0.0, 0.2, 0.6, 0.8], [0.0, 0.5, 0.3, 0.8], [0.0, 0.0, 0.0, 0.0]]),
        np.zeros((3, 4)),
    )
    assert half_gained(curve, 0) == '150'
    assert half_gained(curve, 1) == '80'
    assert half_gained(curve, 2) == 'n/a'
