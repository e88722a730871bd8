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

"""LPIPS with random weights, beside the definition in NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
import subprocess
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray
import pytest
from safetensors.torch import save_file
import torch
from torch import Tensor

from dig2dig_ros.evaluation import perceptual
from dig2dig_ros.evaluation.metrics import evaluate_pair, MetricError, METRICS
from dig2dig_ros.evaluation.perceptual import load_lpips, Lpips, LpipsError

Image = NDArray[np.uint8]
State = dict[str, Tensor]

# What the layers of torchvision's ``features`` are: (channels, kernel, stride, padding), 'pool',
# or 'tap' where LPIPS looks at what the rectifier before puts out.
Layers = Sequence[Any]
ALEXNET: Layers = [
    *((64, 11, 4, 2), 'relu', 'tap', 'pool'),
    *((192, 5, 1, 2), 'relu', 'tap', 'pool'),
    *((384, 3, 1, 1), 'relu', 'tap'),
    *((256, 3, 1, 1), 'relu', 'tap'),
    *((256, 3, 1, 1), 'relu', 'tap'),
]


def vgg16() -> Layers:
    layers: list[Any] = []
    for stage in ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512)):
        layers += ['pool'] if layers else []
        for channels in stage:
            layers += [(channels, 3, 1, 1), 'relu']
        layers.append('tap')
    return layers


LAYERS = {'AlexNet': ALEXNET, 'VGG16': vgg16()}
POOL = {'AlexNet': 3, 'VGG16': 2}


def random_weights(layers: Layers, seed: int = 0) -> tuple[State, State]:
    """Return features as torchvision names them, and linear heads as the authors do."""
    generator = torch.Generator().manual_seed(seed)
    features: State = {}
    heads: State = {}
    inputs, number = 3, 0
    for layer in layers:
        if layer == 'tap':
            key = f'lin{len(heads)}.model.1.weight'
            heads[key] = torch.rand(1, inputs, 1, 1, generator=generator)
            continue
        if not isinstance(layer, str):
            channels, kernel = layer[:2]
            shape = (channels, inputs, kernel, kernel)
            scale = (2 / (inputs * kernel**2)) ** 0.5
            features[f'features.{number}.weight'] = scale * torch.randn(shape, generator=generator)
            features[f'features.{number}.bias'] = 0.1 * torch.randn(channels, generator=generator)
            inputs = channels
        number += 1
    # As in the files of torchvision, which hold the classifier as well.
    features['classifier.6.bias'] = torch.zeros(1000)
    return features, heads


def windows(x: NDArray[Any], side: int, stride: int) -> NDArray[Any]:
    """Return (C, H', W', side, side)."""
    view = np.lib.stride_tricks.sliding_window_view(x, (side, side), axis=(1, 2))
    return view[:, ::stride, ::stride]


def literal_lpips(
    a: Image, b: Image, layers: Layers, pool: int, features: State, heads: State
) -> float:
    """Return LPIPS as the paper defines it (Eq. 1), in float64."""

    def taps(image: Image) -> list[NDArray[Any]]:
        scaled = image.astype(np.float64) / 255 * 2 - 1
        x = np.stack(
            [
                (scaled - shift) / scale
                for shift, scale in ((-0.030, 0.458), (-0.088, 0.448), (-0.188, 0.450))
            ]
        )
        found: list[NDArray[Any]] = []
        number = 0
        for layer in layers:
            if layer == 'tap':
                found.append(x)
                continue
            if layer == 'relu':
                x = np.maximum(x, 0)
            elif layer == 'pool':
                x = windows(x, pool, 2).max(axis=(3, 4))
            else:
                _, kernel, stride, padding = layer
                weight = features[f'features.{number}.weight'].double().numpy()
                bias = features[f'features.{number}.bias'].double().numpy()
                padded = np.pad(x, ((0, 0), (padding, padding), (padding, padding)))
                x = np.tensordot(
                    weight, windows(padded, kernel, stride), axes=((1, 2, 3), (0, 3, 4))
                )
                x = x + bias[:, None, None]
            number += 1
        return found

    total = 0.0
    for stage, (f, g) in enumerate(zip(taps(a), taps(b), strict=True)):
        weight = heads[f'lin{stage}.model.1.weight'].double().numpy()[0]
        f, g = (x / (np.sqrt((x**2).sum(axis=0)) + 1e-10) for x in (f, g))
        total += float((weight * (f - g) ** 2).sum(axis=0).mean())
    return total


@pytest.fixture(scope='module')
def weights() -> dict[str, tuple[State, State]]:
    return {name: random_weights(layers) for name, layers in LAYERS.items()}


@pytest.fixture(scope='module')
def alexnet(weights: dict[str, tuple[State, State]], tmp_path_factory: Any) -> list[Path]:
    """Return the files of the features and of the heads."""
    folder = tmp_path_factory.mktemp('alexnet')
    paths = [folder / 'features.pth', folder / 'heads.pth']
    for path, state in zip(paths, weights['AlexNet'], strict=True):
        torch.save(state, path)
    return paths


@pytest.fixture(scope='module')
def lpips(alexnet: list[Path]) -> Lpips:
    return load_lpips(alexnet)


def images(shape: tuple[int, int] = (48, 64), seed: int = 0) -> tuple[Image, Image, Image]:
    """Return an image, a noisy copy of it, and another image."""
    rng = np.random.default_rng(seed)
    a = rng.integers(0, 256, shape, dtype=np.uint8)
    noisy = np.clip(a + rng.normal(0, 20, shape), 0, 255).astype(np.uint8)
    return a, noisy, rng.integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize(
    ('name', 'shape'),
    [('AlexNet', (48, 65)), ('AlexNet', (31, 31)), ('VGG16', (24, 37)), ('VGG16', (16, 16))],
)
def test_values_are_those_of_the_definition(
    name: str, shape: tuple[int, int], weights: dict[str, tuple[State, State]], tmp_path: Path
) -> None:
    features, heads = weights[name]
    torch.save(features, tmp_path / 'features.pth')
    torch.save(heads, tmp_path / 'heads.pth')
    lpips = load_lpips([tmp_path / 'features.pth', tmp_path / 'heads.pth'])
    assert lpips.network == name
    a, noisy, other = images(shape)
    expected = [
        literal_lpips(a, b, LAYERS[name], POOL[name], features, heads) for b in (noisy, other)
    ]
    assert lpips(a, noisy) == pytest.approx(expected[0], rel=1e-5)
    assert lpips(a, other) == pytest.approx(expected[1], rel=1e-5)
    assert 0 < expected[0] < expected[1]


def test_several_sources_give_their_mean(lpips: Lpips) -> None:
    a, noisy, other = images()
    assert lpips(a, noisy, other) == pytest.approx((lpips(a, noisy) + lpips(a, other)) / 2)
    assert lpips(a, noisy) == pytest.approx(lpips(noisy, a))
    assert lpips(a, a) == 0
    assert lpips(a, a.astype(np.float64)) == 0
    with pytest.raises(TypeError, match='at least one image'):
        lpips(a)


def test_constant_images_have_defined_values(lpips: Lpips) -> None:
    a, _, _ = images()
    black, white = np.zeros_like(a), np.full_like(a, 255)
    assert lpips(black, black, black) == 0
    assert np.isfinite([lpips(a, black, white), lpips(black, a, white)]).all()
    assert lpips(black, white) > 0


def test_features_that_vanish_are_equal(weights: dict[str, tuple[State, State]], tmp_path: Path):
    features, heads = weights['AlexNet']
    # With no input and negative biases no feature is left, whose length is then 0.
    dead = {key: -torch.ones_like(value) for key, value in features.items()}
    torch.save(dead, tmp_path / 'features.pth')
    torch.save(heads, tmp_path / 'heads.pth')
    white = np.full((40, 40), 255, np.uint8)
    lpips = load_lpips([tmp_path / 'features.pth', tmp_path / 'heads.pth'])
    assert lpips(white, white - 1) == 0


def test_comparison_in_bands_changes_nothing(
    lpips: Lpips, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = images((60, 70))[:2]
    whole = lpips(*pair)
    monkeypatch.setattr(perceptual, '_BAND_VALUES', 1)
    assert lpips(*pair) == pytest.approx(whole, rel=1e-6)


def test_files_in_any_order_and_format(
    alexnet: list[Path], weights: dict[str, tuple[State, State]], lpips: Lpips, tmp_path: Path
) -> None:
    a, noisy, _ = images()
    features, heads = weights['AlexNet']
    assert load_lpips(alexnet[::-1])(a, noisy) == lpips(a, noisy)
    save_file({**features, **heads}, tmp_path / 'both.safetensors')
    assert load_lpips([tmp_path / 'both.safetensors'])(a, noisy) == lpips(a, noisy)
    torch.save(features, tmp_path / 'old.pth', _use_new_zipfile_serialization=False)
    assert load_lpips([str(tmp_path / 'old.pth'), alexnet[1]])(a, noisy) == lpips(a, noisy)


def test_state_of_the_authors_network(
    weights: dict[str, tuple[State, State]], lpips: Lpips, tmp_path: Path
) -> None:
    features, heads = weights['AlexNet']
    slices = {0: 1, 3: 2, 6: 3, 8: 4, 10: 5}
    state = {'scaling_layer.shift': torch.zeros(1, 3, 1, 1)}
    for key, value in features.items():
        part, number, leaf = key.split('.')
        if part == 'features':
            state[f'net.slice{slices[int(number)]}.{number}.{leaf}'] = value
    for index, value in enumerate(heads.values()):
        # Made without dropout, the convolution is the first layer.
        state[f'lin{index}.model.0.weight'] = state[f'lins.{index}.model.0.weight'] = value
    torch.save(state, tmp_path / 'lpips.pth')
    a, noisy, _ = images()
    assert load_lpips([tmp_path / 'lpips.pth'])(a, noisy) == lpips(a, noisy)


class Code:
    """Is executed by those who unpickle without care."""

    def __reduce__(self) -> Any:
        return (sys.exit, (3,))


def test_files_that_cannot_be_used(
    weights: dict[str, tuple[State, State]], alexnet: list[Path], tmp_path: Path
) -> None:
    features, heads = weights['AlexNet']
    good_features, good_heads = alexnet

    def saved(name: str, content: Any) -> Path:
        torch.save(content, tmp_path / name)
        return tmp_path / name

    def refused(paths: Sequence[Path], message: str) -> None:
        with pytest.raises(LpipsError, match=message):
            load_lpips(paths)

    refused([], 'no file holds no features')
    refused([good_features], r'features\.pth holds no linear heads: .*lpips/weights/v0\.1')
    refused([good_heads], r'heads\.pth holds no features: LPIPS also needs AlexNet or VGG16')
    refused([good_features, good_features, good_heads], 'both .* hold features')
    refused([*alexnet, good_heads], 'both .* hold linear heads')
    refused([tmp_path / 'gone.pth'], r'gone\.pth cannot be read: there is no such file')
    refused([tmp_path], 'cannot be read')

    other = saved('vgg_heads.pth', weights['VGG16'][1])
    refused([good_features, other], r'vgg_heads\.pth are for VGG16, .* those of AlexNet')
    few = saved('few.pth', dict(list(heads.items())[:3]))
    refused([good_features, few], 'are for neither AlexNet nor VGG16')
    part = {k: v for k, v in features.items() if not k.startswith('features.10')}
    refused([saved('part.pth', part), good_heads], r'features in .*part\.pth are neither those')
    normalised = features | {
        'features.1.weight': torch.ones(64),
        'features.1.bias': torch.ones(64),
    }
    refused([saved('bn.pth', normalised), good_heads], 'neither those of AlexNet nor of VGG16')
    refused([saved('none.pth', {'conv1.weight': torch.ones(3)})], 'holds neither features')
    broken = {**heads, 'lin2.model.1.weight': torch.full((1, 384, 1, 1), torch.nan)}
    refused([good_features, saved('nan.pth', broken)], r'lin2\.model\.1\.weight has values that')
    whole = {**heads, 'lin2.model.1.weight': torch.ones(1, 384, 1, 1, dtype=torch.int64)}
    refused([good_features, saved('int.pth', whole)], 'not finite real numbers')
    refused([saved('list.pth', [torch.ones(3)])], 'something other than named weights')
    refused([saved('epoch.pth', {'epoch': 3, 'state': heads})], r'state_dict')
    refused([saved('code.pth', {'a': Code()})], 'holds code, which is never executed')
    (tmp_path / 'text.pth').write_text('no weights')
    (tmp_path / 'text.safetensors').write_text('no weights')
    (tmp_path / 'cut.pth').write_bytes(good_features.read_bytes()[:5000])
    for name in ('text.pth', 'text.safetensors', 'cut.pth'):
        refused([tmp_path / name], f'{name} cannot be read: the file is damaged')


def test_images_that_cannot_be_compared(lpips: Lpips) -> None:
    a, _, _ = images()
    with pytest.raises(MetricError, match=r'the source 1 image has shape \(48, 63\)'):
        lpips(a, a[:, 1:])
    with pytest.raises(MetricError, match='the source 2 image has values that are not finite'):
        lpips(a, a, np.full(a.shape, np.nan))
    with pytest.raises(MetricError, match='64x30 pixels, but this metric needs at least 31'):
        lpips(a[:30], a[:30])
    with pytest.raises(MetricError, match='has shape'):
        lpips(np.dstack([a] * 3), a)


def test_unknown_device(alexnet: list[Path]) -> None:
    with pytest.raises(ValueError, match="device 'tpu' is unknown"):
        load_lpips(alexnet, device='tpu')


@pytest.mark.cuda
def test_cuda_agrees(alexnet: list[Path], lpips: Lpips) -> None:
    triple = images((128, 160))
    assert load_lpips(alexnet, device='cuda')(*triple) == pytest.approx(lpips(*triple), rel=1e-4)


@pytest.mark.skipif(
    find_spec('skimage') is None, reason='scikit-image (extra "evaluation") is not installed'
)
def test_joins_the_other_metrics_where_given(lpips: Lpips) -> None:
    triple = images()
    values = evaluate_pair(*triple, lpips=lpips)
    assert list(values) == [*METRICS, 'LPIPS']
    assert values['LPIPS'] == lpips(*triple)
    assert list(evaluate_pair(*triple)) == list(METRICS)


def test_importing_it_does_not_import_torch() -> None:
    code = (
        'import sys, dig2dig_ros.evaluation.perceptual\n'
        "sys.exit(any(name in sys.modules for name in ('torch', 'torchvision', 'rclpy')))"
    )
    assert subprocess.run([sys.executable, '-c', code], check=False).returncode == 0
