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

"""Networks on images larger than they can take: overlapping tiles, blended smoothly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor
import torch.nn.functional as F

LARGEST_SIDE = 512
# Pixels of all tiles in one call of the network.
MAX_PIXELS = LARGEST_SIDE**2


@dataclass(frozen=True)
class Tiling:
    """
    How images are cut into tiles.

    :param side: of a tile in pixels, a multiple of ``multiple`` and at most
        :data:`LARGEST_SIDE`; images no larger than that go through as they are.
    :param overlap: least number of pixels that neighbouring tiles share, a multiple of
        ``multiple`` from 1 of them to ``side - multiple``.
    :param multiple: the network takes sides that are multiples of this many pixels. Tiles begin
        at multiples of it too, so that all of them are subsampled on the same grid.
    :raises ValueError: the numbers contradict each other.
    """

    side: int
    overlap: int
    multiple: int

    def __post_init__(self) -> None:
        sizes = (self.side, self.overlap)
        whole = self.multiple > 0 and not any(size % self.multiple for size in sizes)
        if not whole or not 0 < self.overlap < self.side <= LARGEST_SIDE:
            raise ValueError(
                f'tiles of side {self.side} cannot overlap by {self.overlap} pixels: both must be '
                f'multiples of {self.multiple}, the overlap smaller than the side, which may be '
                f'{LARGEST_SIDE} at most'
            )

    @classmethod
    def for_side(cls, side: int, multiple: int) -> Tiling:
        """
        Return tiles of ``side`` pixels, down to the next multiple, that overlap by a quarter.

        :raises ValueError: no two multiples fit into ``side``, or it is too large.
        """
        quarter = -(-side // (4 * multiple)) * multiple
        return cls(side // multiple * multiple, quarter, multiple)

    def starts(self, length: int) -> list[int]:
        """
        Return where the tiles of an axis begin, evenly spread.

        :param length: of the axis in pixels, a multiple of ``multiple``.
        """
        if length <= self.side:
            return [0]
        free = (length - self.side) // self.multiple
        intervals = -(-free // ((self.side - self.overlap) // self.multiple))
        return [i * free // intervals * self.multiple for i in range(intervals + 1)]

    def windows(self, length: int) -> Tensor:
        """
        Return the weight of every tile of an axis at each of its pixels.

        At every pixel of the axis the weights sum to 1. Where a tile ends inside the image, its
        outermost pixels, which lack context, count nothing; squared sines lead up from there.

        :return: float64 tensor of shape (tiles, min(side, length)).
        """
        starts = self.starts(length)
        side = min(self.side, length)
        margin = self.overlap // 4
        position = torch.arange(side, dtype=torch.float64) + 0.5
        share = ((position - margin) / (self.overlap - 2 * margin)).clamp(0, 1)
        rise = (torch.pi / 2 * share).sin().square()
        windows = torch.ones((len(starts), side), dtype=torch.float64)
        windows[1:] *= rise
        windows[:-1] *= rise.flip(0)
        total = torch.zeros(length, dtype=torch.float64)
        for start, window in zip(starts, windows, strict=True):
            total[start : start + side] += window
        return windows / torch.stack([total[start : start + side] for start in starts])


def pad_to_multiple(images: Tensor, multiple: int) -> Tensor:
    """
    Pad (B, C, H, W) below and on the right to sides that are multiples of ``multiple``.

    The image is mirrored there, without repeating its last pixels; a side that is too short for
    that repeats them.
    """
    height, width = images.shape[-2:]
    down, right = -height % multiple, -width % multiple
    if right:
        images = F.pad(images, (0, right, 0, 0), 'reflect' if right < width else 'replicate')
    if down:
        images = F.pad(images, (0, 0, 0, down), 'reflect' if down < height else 'replicate')
    return images


def apply_in_tiles(
    function: Callable[[Tensor, Tensor], Tensor],
    images: Tensor,
    timesteps: Tensor,
    tiling: Tiling,
) -> Tensor:
    """
    Run a network on images of any size, in calls of at most :data:`MAX_PIXELS`.

    Besides what one call of the network takes, memory is needed for two copies of the images.

    :param function: takes tiles (b, C, h, w) and timesteps (b,) and returns the tiles'
        results, of the same shape and dtype.
    :param images: (B, C, H, W).
    :param timesteps: (B,), one an image.
    :return: (B, C, H, W), in the overlaps a smooth mix of the tiles' results.
    """
    height, width = images.shape[-2:]
    padded = pad_to_multiple(images, tiling.multiple)
    rows, columns = (tiling.starts(length) for length in padded.shape[-2:])
    row_windows, column_windows = (
        tiling.windows(length).to(images) for length in padded.shape[-2:]
    )
    tile_height, tile_width = row_windows.shape[-1], column_windows.shape[-1]
    output = torch.zeros_like(padded)
    jobs = list(product(range(len(images)), range(len(rows)), range(len(columns))))
    together = max(1, MAX_PIXELS // (tile_height * tile_width))
    for begin in range(0, len(jobs), together):
        part = jobs[begin : begin + together]
        places = [
            (
                image,
                slice(None),
                slice(rows[row], rows[row] + tile_height),
                slice(columns[column], columns[column] + tile_width),
            )
            for image, row, column in part
        ]
        tiles = torch.stack([padded[place] for place in places])
        results = function(tiles, timesteps[[image for image, _, _ in part]])
        for (_, row, column), place, result in zip(part, places, results, strict=True):
            window = row_windows[row, :, None] * column_windows[column]
            output[place] += window * result
    return output[..., :height, :width]
