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

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

from dig2dig_ros.priors.tiling import apply_in_tiles, MAX_PIXELS, pad_to_multiple, Tiling

TILINGS = [Tiling(16, 4, 4), Tiling(16, 12, 4), Tiling(24, 8, 8), Tiling(10, 3, 1)]
SIZES = [(16, 16), (17, 40), (5, 61), (64, 50)]


@pytest.fixture(autouse=True)
def seed():
    """Make random images the same in every run."""
    torch.manual_seed(0)


def identity(tiles, timesteps):
    return tiles


def blur(radius):
    """Return a denoiser that sees ``radius`` pixels around each."""
    side = 2 * radius + 1
    kernel = torch.rand((1, 1, side, side), generator=torch.Generator().manual_seed(0))

    def apply(tiles, timesteps):
        return F.conv2d(tiles, kernel.to(tiles), padding=radius) + timesteps.view(-1, 1, 1, 1)

    return apply


@pytest.mark.parametrize('tiling', TILINGS)
@pytest.mark.parametrize('size', SIZES)
def test_affine_images_pass_through(tiling, size):
    rows = torch.arange(size[0], dtype=torch.float64)[:, None]
    columns = torch.arange(size[1], dtype=torch.float64)
    images = torch.stack([0 * rows + 0 * columns + 0.7, 0.3 * rows - 0.2 * columns + 1])[:, None]
    output = apply_in_tiles(identity, images, torch.zeros(2), tiling)
    torch.testing.assert_close(output, images, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize('radius', [1, 2, 3])
@pytest.mark.parametrize('size', [(64, 80), (40, 130), (200, 41)])
def test_result_is_that_of_the_whole_image_where_tiles_see_enough(radius, size):
    tiling = Tiling(32, 8, 4)
    images = torch.randn((2, 1, *size), dtype=torch.float64)
    timesteps = torch.tensor([3, 500])
    padded = pad_to_multiple(images, tiling.multiple)
    whole = blur(radius)(padded, timesteps)[..., : size[0], : size[1]]
    tiled = apply_in_tiles(blur(radius), images, timesteps, tiling)
    # The outermost quarter of an overlap counts nothing: a denoiser that sees no further does
    # not notice the tiles; one that does is wrong near their sides alone.
    exact = torch.ones(size, dtype=torch.bool)
    if radius > tiling.overlap // 4:
        for axis, length in enumerate(padded.shape[-2:]):
            position = torch.arange(size[axis])
            near = torch.zeros(size[axis], dtype=torch.bool)
            for start in tiling.starts(length):
                if start > 0:
                    near |= (position >= start) & (position < start + radius)
                if start + tiling.side < length:
                    near |= (position < start + tiling.side) & (
                        position >= start + tiling.side - radius
                    )
            exact &= ~near[:, None] if axis == 0 else ~near
        assert not torch.allclose(tiled, whole)
    assert exact.float().mean() > 0.4
    torch.testing.assert_close(tiled[..., exact], whole[..., exact], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    'tiling', [Tiling(24, 8, 8), Tiling.for_side(256, 32), Tiling(512, 128, 64)]
)
def test_no_call_exceeds_the_bound_and_none_is_needlessly_small(tiling):
    calls = []

    def record(tiles, timesteps):
        assert timesteps.shape == tiles.shape[:1]
        calls.append(tiles.shape)
        return tiles

    images = torch.zeros((3, 1, 700, 1000))
    apply_in_tiles(record, images, torch.zeros(3), tiling)
    assert max(shape.numel() for shape in calls) <= MAX_PIXELS == 512 * 512
    assert {tuple(shape[1:]) for shape in calls} == {(1, tiling.side, tiling.side)}
    for shape in calls[:-1]:
        assert (shape[0] + 1) * tiling.side**2 > MAX_PIXELS


def test_small_images_are_neither_cut_nor_brought_to_the_size_of_a_tile():
    calls = []

    def record(tiles, timesteps):
        calls.append(tuple(tiles.shape))
        return tiles

    images = torch.randn((5, 1, 30, 61))
    output = apply_in_tiles(record, images, torch.zeros(5), Tiling.for_side(256, 32))
    assert calls == [(5, 1, 32, 64)]
    assert torch.equal(output, images)


@pytest.mark.parametrize('tiling', TILINGS)
def test_tiles_cover_the_axis_with_weights_that_sum_to_one(tiling):
    for units in (1, 4, 5, 6, 7, 13, 40):
        length = units * tiling.multiple
        starts, windows = tiling.starts(length), tiling.windows(length)
        assert starts[0] == 0
        assert starts[-1] == max(0, length - tiling.side)
        assert all(start % tiling.multiple == 0 for start in starts)
        strides = [b - a for a, b in pairwise(starts)]
        assert all(0 < stride <= tiling.side - tiling.overlap for stride in strides)
        total = torch.zeros(length, dtype=torch.float64)
        for start, window in zip(starts, windows, strict=True):
            total[start : start + len(window)] += window
        torch.testing.assert_close(total, torch.ones(length, dtype=torch.float64))
        assert (windows >= 0).all()


def test_overlaps_are_blended_without_steps():
    tiling = Tiling(256, 64, 32)
    weight = torch.zeros((2, 640))
    for start, window in zip(tiling.starts(640)[:2], tiling.windows(640), strict=False):
        weight[int(start > 0), start : start + 256] = window.float()
    assert weight.diff(dim=1).abs().max() < 0.1


@pytest.mark.parametrize(
    ('size', 'multiple', 'expected'),
    [((5, 7), 4, (8, 8)), ((1, 3), 8, (8, 8)), ((8, 8), 4, (8, 8))],
)
def test_padding_mirrors_or_repeats_and_keeps_the_image(size, multiple, expected):
    images = torch.randn((1, 1, *size))
    padded = pad_to_multiple(images, multiple)
    assert padded.shape[-2:] == expected
    assert torch.equal(padded[..., : size[0], : size[1]], images)
    if size == (5, 7):
        assert torch.equal(padded[0, 0, 5:, :7], images[0, 0, [3, 2, 1]])
        assert torch.equal(padded[0, 0, :5, 7], images[0, 0, :, 5])
    if size == (1, 3):
        assert (padded[0, 0, 1:] == padded[0, 0, :1]).all()


@pytest.mark.parametrize(
    ('side', 'overlap', 'multiple'),
    [(16, 16, 4), (16, 0, 4), (18, 4, 4), (16, 6, 4), (1024, 256, 32), (8, 4, 0)],
)
def test_tiles_that_do_not_fit_together_are_refused(side, overlap, multiple):
    with pytest.raises(ValueError, match=f'side {side}'):
        Tiling(side, overlap, multiple)
