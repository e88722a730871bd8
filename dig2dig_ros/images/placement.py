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

"""Where the pixels of the visible camera lie in the image of another one."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
import math

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Placement:
    """
    Where the pixels of the first source, the visible image, lie in another one.

    Sample the other image with ``grid_sample(image, grid, padding_mode='border',
    align_corners=False)``, and weight the result with the coverage.

    :param grid: (H, W, 2) float32, finite: for each pixel of the visible image the position
        (x, y) in the other one. -1 and 1 are the outer edges of the image, not the centres of
        its outermost pixels, so that the grid is valid at any resolution of it. Within [-1, 1]
        wherever the coverage is above 0.
    :param coverage: (H, W) float32 in [0, 1]: 1 where the other image reaches, 0 where it does
        not; the soft edge between them lies within what it reaches.
    :param source_size: (width, height) of the other image that this was made for.
    :raises ValueError: one of these has another shape, type or range.
    """

    grid: NDArray[np.float32]
    coverage: NDArray[np.float32]
    source_size: tuple[int, int]

    def __post_init__(self) -> None:
        """Check what a fusion relies on."""
        grid, coverage = self.grid, self.coverage
        if grid.dtype != np.float32 or coverage.dtype != np.float32:
            raise ValueError(
                f'a placement must be float32, not a grid of {grid.dtype} and a coverage of '
                f'{coverage.dtype}'
            )
        if coverage.ndim != 2 or coverage.size == 0 or grid.shape != (*coverage.shape, 2):
            raise ValueError(
                'a placement must have a grid (H, W, 2) and a coverage (H, W), not shapes '
                f'{grid.shape} and {coverage.shape}'
            )
        if not np.isfinite(grid).all():
            raise ValueError(
                'the grid of a placement must be finite, even where nothing is covered'
            )
        # Not the opposite comparison: NaN must fail.
        if not (coverage.min() >= 0.0 and coverage.max() <= 1.0):
            raise ValueError('the coverage of a placement must be within 0 and 1')
        outside = (np.abs(grid[:, :, 0]) > 1.0) | (np.abs(grid[:, :, 1]) > 1.0)
        if (outside & (coverage > 0.0)).any():
            raise ValueError('the grid of a placement leaves [-1, 1] where its coverage is not 0')
        if len(self.source_size) != 2 or min(self.source_size) < 1:
            raise ValueError(
                f'the source size of a placement must be (width, height), not {self.source_size}'
            )

    def reduced_size(self, height: int, width: int) -> tuple[int, int] | None:
        """
        Return the (height, width) to reduce the other image to before it is sampled.

        Sampled as it is, with more than about one of its pixels to one of the visible image, it
        would be aliased.

        :param height: of the other image in pixels, as ``width``; of ``source_size``, or enlarged.
        :return: None where it can be sampled as it is.
        """
        step_x, step_y = self._steps[0] * width, self._steps[1] * height
        if max(step_x, step_y) <= 1.5:
            return None
        return max(1, round(height / max(1.0, step_y))), max(1, round(width / max(1.0, step_x)))

    def enlargement(self, height: int, width: int) -> float:
        """
        Return how many pixels of the visible image, along a side, become of one of the other.

        :param height: of the other image in pixels, as ``width``; of ``source_size``, or enlarged.
        :return: 1 where the other image reaches nothing.
        """
        steps = self._steps[0] * width * self._steps[1] * height
        return 1 / math.sqrt(steps) if steps > 0 else 1.0

    @cached_property
    def _steps(self) -> tuple[float, float]:
        """
        The median steps in x and y from a pixel to the next, as parts of the other image's sides.

        That is to the next of its row and of its column together: where the camera is mounted
        turned, its x runs along columns.
        """
        inner = self.coverage[:-1, :-1]
        reached = np.minimum(inner, np.minimum(self.coverage[:-1, 1:], self.coverage[1:, :-1])) > 0
        if not reached.any():
            return 0.0, 0.0
        right, down = np.diff(self.grid, axis=1)[:-1], np.diff(self.grid, axis=0)[:, :-1]
        # The sides are 2 long.
        x, y = np.median((np.hypot(right, down) / 2)[reached], axis=0)
        return float(x), float(y)
