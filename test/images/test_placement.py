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

import numpy as np
import pytest

from dig2dig_ros.images.placement import Placement

GRID = np.zeros((3, 4, 2), np.float32)
COVERAGE = np.ones((3, 4), np.float32)


def changed(array: np.ndarray, value: float) -> np.ndarray:
    copy = array.copy()
    copy.flat[-1] = value
    return copy


def test_what_is_not_covered_may_lie_anywhere() -> None:
    far, nothing = changed(GRID, -7.0), changed(COVERAGE, 0.0)
    placement = Placement(far, nothing, (8, 6))
    assert placement.grid is far
    assert placement.coverage is nothing
    assert placement.source_size == (8, 6)
    assert Placement(GRID, COVERAGE, (1, 1)).source_size == (1, 1)


def test_a_placement_is_itself_only() -> None:
    # It serves as a key of what was made from it.
    first, second = (Placement(GRID, COVERAGE, (8, 6)) for _ in range(2))
    assert len({first, second, first}) == 2


@pytest.mark.parametrize(
    ('grid', 'coverage', 'size', 'text'),
    [
        (GRID.astype(float), COVERAGE, (8, 6), 'float32, not a grid of float64'),
        (GRID, COVERAGE.astype(np.float16), (8, 6), 'a coverage of float16'),
        (GRID[:, :3], COVERAGE, (8, 6), r'not shapes \(3, 3, 2\) and \(3, 4\)'),
        (GRID, COVERAGE[None], (8, 6), 'shapes'),
        (GRID[:0], COVERAGE[:0], (8, 6), 'shapes'),
        (changed(GRID, np.nan), COVERAGE, (8, 6), 'finite'),
        (changed(GRID, np.inf), changed(COVERAGE, 0.0), (8, 6), 'finite'),
        (changed(GRID, 1.01), changed(COVERAGE, 0.01), (8, 6), r'leaves \[-1, 1\]'),
        (GRID + np.float32([1.01, 0]), COVERAGE, (8, 6), r'leaves \[-1, 1\]'),
        (GRID - np.float32([0, 1.01]), COVERAGE, (8, 6), r'leaves \[-1, 1\]'),
        (GRID, changed(COVERAGE, 1.01), (8, 6), 'within 0 and 1'),
        (GRID, changed(COVERAGE, -0.01), (8, 6), 'within 0 and 1'),
        (GRID, changed(COVERAGE, np.nan), (8, 6), 'within 0 and 1'),
        (GRID, COVERAGE, (8, 0), 'source size'),
        (GRID, COVERAGE, (8, 6, 3), 'source size'),
    ],
)
def test_what_a_fusion_could_not_use_is_refused(
    grid: np.ndarray, coverage: np.ndarray, size: tuple[int, int], text: str
) -> None:
    with pytest.raises(ValueError, match=text):
        Placement(grid, coverage, size)


def test_an_image_is_reduced_to_about_a_pixel_for_each_of_the_visible_one() -> None:
    rows, columns = np.mgrid[:30, :40].astype(np.float32) + 0.5
    whole = np.stack([columns / 20 - 1, rows / 15 - 1], axis=-1)
    everywhere = np.ones((30, 40), np.float32)
    placement = Placement(whole, everywhere, (160, 120))
    assert placement.reduced_size(120, 160) == (30, 40)
    assert placement.reduced_size(30, 160) == (30, 40)
    # Enlarged since, or not much larger.
    assert placement.reduced_size(240, 320) == (30, 40)
    assert placement.reduced_size(42, 56) is None
    # Turned by a quarter, its x runs along columns.
    turned = Placement(np.ascontiguousarray(whole[..., ::-1]), everywhere, (120, 160))
    assert turned.reduced_size(160, 120) == (40, 30)
    assert Placement(whole, np.zeros_like(everywhere), (160, 120)).reduced_size(120, 160) is None
