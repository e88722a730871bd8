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

"""LPIPS through the package ``lpips``, of which a stand-in is seen here."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
from numpy.typing import NDArray
import pytest
import torch
from torch import Tensor

from dig2dig_ros.evaluation.metrics import evaluate_pair, MetricError, METRICS
from dig2dig_ros.evaluation.perceptual import load_lpips, Lpips, LpipsError, NETWORKS

Image = NDArray[np.uint8]


class MeanDifference:
    """Has the interface of ``lpips.LPIPS``, and answers with a plain distance."""

    def __init__(self, net: str, verbose: bool) -> None:
        # Words of the package would be part of the tables.
        assert not verbose
        assert net in NETWORKS

    def __call__(self, first: Tensor, second: Tensor) -> Tensor:
        for image in (first, second):
            assert image.shape[:2] == (1, 3)
            assert image.dtype == torch.float32
            assert image.min() >= -1
            assert image.max() <= 1
        return (first - second).abs().mean(dim=(1, 2, 3), keepdim=True)


def install_stand_in(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Path:
    """Put the stand-in and empty weights of AlexNet in place; return the file of the weights."""
    monkeypatch.setitem(sys.modules, 'lpips', SimpleNamespace(LPIPS=MeanDifference))
    monkeypatch.setenv('TORCH_HOME', str(folder))
    weights = folder / 'hub' / 'checkpoints' / NETWORKS['alex'][1]
    weights.parent.mkdir(parents=True)
    weights.touch()
    return weights


@pytest.fixture
def lpips(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Lpips:
    install_stand_in(monkeypatch, tmp_path)
    return load_lpips()


def images(shape: tuple[int, int] = (48, 64)) -> list[Image]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, shape, dtype=np.uint8) for _ in range(3)]


def test_the_value_is_the_mean_over_the_sources(lpips: Lpips) -> None:
    a, b, c = images()
    black, white = np.zeros_like(a), np.full_like(a, 255)
    assert lpips(black, white) == 2
    assert lpips(a, a.astype(np.float64)) == 0
    assert lpips(a, b, c) == pytest.approx((lpips(a, b) + lpips(a, c)) / 2)
    distance = np.abs(a.astype(float) - b).mean() / 127.5
    assert lpips(a, b) == pytest.approx(distance)


def test_images_that_cannot_be_compared(lpips: Lpips) -> None:
    a = images()[0]
    with pytest.raises(MetricError, match=r'the source 1 image has shape \(48, 63\)'):
        lpips(a, a[:, 1:])
    with pytest.raises(MetricError, match='the source 2 image has values that are not finite'):
        lpips(a, a, np.full(a.shape, np.nan))
    with pytest.raises(MetricError, match='64x30 pixels, but this metric needs at least 31'):
        lpips(a[:30], a[:30])


def test_without_the_package_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, 'lpips', None)
    with pytest.raises(LpipsError, match='extra "lpips" of dig2dig, or pip install lpips'):
        load_lpips()


def test_a_torchvision_of_another_torch_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delitem(sys.modules, 'lpips', raising=False)
    text = "raise RuntimeError('operator torchvision::nms does not exist')"
    (tmp_path / 'lpips.py').write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(LpipsError, match='pip install lpips; operator torchvision::nms'):
        load_lpips()


def test_weights_that_are_missing_are_not_downloaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    weights = install_stand_in(monkeypatch, tmp_path)
    weights.unlink()
    with pytest.raises(LpipsError, match=r'weights of alexnet, .*alexnet-owt.*torchvision'):
        load_lpips()
    weights.touch()
    with pytest.raises(LpipsError, match='weights of vgg16'):
        load_lpips('vgg')


@pytest.mark.skipif(
    find_spec('skimage') is None, reason='scikit-image (extra "evaluation") is not installed'
)
def test_joins_the_other_metrics_where_given(lpips: Lpips) -> None:
    fused, visible, thermal = images()
    values = evaluate_pair(fused, visible, thermal, lpips=lpips)
    assert list(values) == [*METRICS, 'LPIPS']
    assert values['LPIPS'] == lpips(fused, visible, thermal)
    assert list(evaluate_pair(fused, visible, thermal)) == list(METRICS)


def test_importing_it_does_not_import_torch() -> None:
    code = (
        'import sys, dig2dig_ros.evaluation.perceptual\n'
        "sys.exit(any(name in sys.modules for name in ('torch', 'torchvision', 'rclpy')))"
    )
    assert subprocess.run([sys.executable, '-c', code], check=False).returncode == 0
