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
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
import pytest

from dig2dig_ros.evaluation.baselines import BASELINES, laplacian, mean, to_uint8
from dig2dig_ros.evaluation.metrics import luma, METRICS

Image = NDArray[np.uint8]


def random_image(seed: int, shape: tuple[int, int] = (37, 50)) -> NDArray[np.float32]:
    return np.random.default_rng(seed).uniform(0, 255, shape).astype(np.float32)


def test_mean_by_hand() -> None:
    sources = [np.full((2, 3), value, dtype=np.uint8) for value in (10, 20, 31)]
    result = mean(sources)
    assert result.dtype == np.float32
    assert result == pytest.approx(np.full((2, 3), 61 / 3))


@pytest.mark.parametrize('shape', [(1, 1), (1, 9), (20, 20), (37, 50), (65, 33)])
@pytest.mark.parametrize('count', [1, 2, 3])
def test_laplacian_of_equal_sources_is_the_source(shape: tuple[int, int], count: int) -> None:
    source = random_image(0, shape)
    result = laplacian([source] * count)
    assert result.dtype == np.float32
    assert result.shape == shape
    assert np.allclose(result, source, atol=1e-3)


def test_laplacian_keeps_the_strongest_detail_and_the_mean_base() -> None:
    texture = np.zeros((64, 64), dtype=np.float32)
    texture[16:48:2, 16:48] = 40.0
    strong = 100.0 + texture
    weak = 60.0 + 0.25 * texture
    fused = laplacian([weak, strong])
    # All details come from the strong source, at any order of the sources ...
    assert np.array_equal(fused, laplacian([strong, weak]))
    assert np.diff(fused[20:44, 32]) == pytest.approx(np.diff(strong[20:44, 32]), abs=0.05)
    # ... and the level is the mean of both.
    assert fused[2, 2] == pytest.approx(80.0, abs=2.0)


def test_laplacian_takes_each_detail_from_where_it_is() -> None:
    left, right = (np.full((96, 96), 100, dtype=np.float32) for _ in range(2))
    left[40:56:2, 8:24] += 50
    right[40:56:2, 72:88] += 50
    fused = laplacian([left, right])
    assert fused[40, 16] - fused[41, 16] == pytest.approx(50, abs=2)
    assert fused[40, 80] - fused[41, 80] == pytest.approx(50, abs=2)
    assert fused[48, 48] == pytest.approx(100, abs=2)


def test_laplacian_does_not_change_its_sources() -> None:
    sources = [random_image(1), random_image(2)]
    copies = [source.copy() for source in sources]
    laplacian(sources)
    assert all(np.array_equal(a, b) for a, b in zip(sources, copies, strict=True))


@pytest.mark.parametrize('name', sorted(BASELINES))
@pytest.mark.parametrize(
    'sources',
    [
        [],
        [np.zeros((4, 5)), np.zeros((5, 4))],
        [np.zeros((4, 5, 3)), np.zeros((4, 5, 3))],
        [np.zeros((0, 5)), np.zeros((0, 5))],
    ],
)
def test_sources_that_do_not_fit_are_refused(name: str, sources: Any) -> None:
    with pytest.raises(ValueError, match=r'sources have shapes .* of one shape'):
        BASELINES[name](sources)


def test_to_uint8_rounds_halves_up_and_clips() -> None:
    image = np.array([[-3.0, 0.49, 0.5, 1.5, 2.5, 254.6, 300.0]], dtype=np.float32)
    assert to_uint8(image).tolist() == [[0, 0, 1, 2, 3, 255, 255]]


# What may differ from the published rows: nothing visible for the pyramid; for the mean, how
# halves are rounded (half of all pixels), which the grey-level histograms of MI and EN notice.
@pytest.mark.slow
@pytest.mark.parametrize(
    ('method', 'allowed', 'allowed_histogram'),
    [('mean', 0.01, 0.02), ('laplacian', 0.002, 0.002)],
)
@pytest.mark.parametrize('name', ['roadscene/dev', 'tno'])
def test_baselines_score_as_published(
    shared: Path, name: str, method: str, allowed: float, allowed_histogram: float
) -> None:
    published = json.loads((shared / 'peers.json').read_text(encoding='utf-8'))[name][method]
    # The slow ones among the metrics are left to their own tests.
    chosen = [metric for metric in published if metric not in {'SSIM', 'VIF', 'Nabf'}]
    rows = []
    paths = sorted((shared / 'data' / name / 'visible').iterdir())
    for path in paths:
        visible, thermal = (
            luma(cv2.imread(str(image), cv2.IMREAD_COLOR))
            for image in (path, shared / 'data' / name / 'thermal' / path.name)
        )
        fused = to_uint8(BASELINES[method]([visible, thermal]))
        rows.append([METRICS[metric](fused, visible, thermal) for metric in chosen])
    assert len(rows) == {'roadscene/dev': 28, 'tno': 25}[name]
    for metric, value in zip(chosen, np.mean(rows, axis=0), strict=True):
        relative = allowed_histogram if metric in {'MI', 'EN'} else allowed
        assert value == pytest.approx(published[metric], rel=relative, abs=5e-5), metric
