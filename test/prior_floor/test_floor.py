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

"""The time below which a prior cannot get: operations, bytes, peaks."""

import json
from pathlib import Path
import time
from typing import Any

import pytest
import torch

from dig2dig_ros.priors import load_prior
from prior_floor.__main__ import main
from prior_floor.floor import (
    layer_cost,
    LayerCost,
    measure_peak,
    Peak,
    prior_call,
    prior_cost,
    seconds_of,
)

CPU = torch.device('cpu')


def test_cost_of_a_convolution_by_hand() -> None:
    layer = torch.nn.Conv2d(3, 5, 3, padding=1)
    images = torch.zeros(2, 3, 7, 9)
    cost = layer_cost(lambda: torch.relu(layer(images)))
    # Every one of 2 x 5 x 7 x 9 results takes 3 x 3 x 3 multiplications and additions.
    assert cost.flop == 2 * (2 * 5 * 7 * 9) * 27
    # Input, output, kernel and bias; what follows the layer is taken to be fused into it.
    assert cost.bytes == 4 * (2 * 3 * 7 * 9 + 2 * 5 * 7 * 9 + 5 * 3 * 3 * 3 + 5)


def test_cost_of_other_layers_by_hand() -> None:
    layer = torch.nn.Linear(8, 4, bias=False, dtype=torch.float16)
    cost = layer_cost(lambda: layer(torch.zeros(3, 8, dtype=torch.float16)))
    assert cost == LayerCost(2 * 3 * 8 * 4, 2 * (3 * 8 + 8 * 4 + 3 * 4))
    up = torch.nn.ConvTranspose2d(4, 2, 2, stride=2, bias=False)
    cost = layer_cost(lambda: up(torch.zeros(1, 4, 5, 5)))
    assert cost == LayerCost(2 * 25 * 4 * 2 * 4, 4 * (4 * 25 + 4 * 2 * 4 + 2 * 100))


def test_cost_of_the_prior_grows_with_the_image() -> None:
    prior = load_prior('nano')
    small, large = prior_cost(prior, 64, 64), prior_cost(prior, 128, 128)
    # What the timestep costs does not depend on the size.
    assert 3.9 < large.flop / small.flop <= 4
    assert large.bytes < 4 * small.bytes
    pair = prior_cost(prior, 64, 64, images=2)
    assert small.bytes < pair.bytes < 2 * small.bytes


def test_prior_call_is_one_of_the_prior() -> None:
    estimate = prior_call(load_prior('nano'), 20, 12, 2)()
    assert estimate.shape == (2, 1, 12, 20)


def test_floor_from_peaks_that_are_known() -> None:
    peak = Peak(convolution=2e9, matrix=1e9, bandwidth=1e8)
    compute, memory = peak.floor(LayerCost(flop=4_000_000, bytes=300_000))
    assert (compute, memory) == pytest.approx((0.002, 0.003))


def test_peaks_and_times_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    small: dict[str, Any] = {
        '_CONVOLUTION': (1, 8, 16),
        '_MATRIX': 32,
        '_COPY_BYTES': 2**16,
    }
    for name, value in small.items():
        monkeypatch.setattr(f'prior_floor.floor.{name}', {'cpu': value})
    peak = measure_peak(CPU, torch.float32, budget=0.03)
    assert min(peak.convolution, peak.matrix, peak.bandwidth) > 0
    assert peak.flop_rate == max(peak.convolution, peak.matrix)
    times = seconds_of(lambda: time.sleep(0.002), CPU, 0.0)
    assert len(times) == 3
    assert min(times) >= 0.002


@pytest.mark.slow
def test_floor_of_both_priors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / 'result.json'
    words = ['--size', '64x48', '--threads', '1', '--device', 'cpu', '--seconds', '0.1']
    assert main([*words, '--output', str(path)]) == 0
    realtime, fusion = json.loads(path.read_text(encoding='utf-8'))['results']
    assert [realtime['about']['prior'], fusion['about']['prior']] == ['nano', 'compact']
    assert fusion['gflop'] > 3 * realtime['gflop']
    for row in (realtime, fusion):
        assert row['calls'] == 2
        assert row['gflop_of_pair'] == pytest.approx(2 * row['gflop'])
        assert row['floor_ms'] == max(row['compute_ms'], row['memory_ms'])
        assert row['prior_over_floor'] == pytest.approx(row['prior_ms'] / row['floor_ms'])
        assert row['pair_over_floor'] == pytest.approx(row['pair_ms'] / row['floor_ms'])
        assert min(row['peak_gflop_s'].values()) > 0
        assert row['bandwidth_gb_s'] > 0
    assert 'Measured peaks:' in capsys.readouterr().out


def test_device_that_is_not_there_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(['--size', '64x48', '--device', 'cuda:99']) == 2
    assert "device 'cuda:99' was asked for" in capsys.readouterr().err
