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

"""Noise of known size on a known scene, taken out again."""

import numpy as np
import pytest
import torch

from dig2dig_ros.evaluation.synthetic_scene import SyntheticScene
from dig2dig_ros.fusion.denoising import (
    denoised,
    denoising_share,
    FULL_NOISE,
    LUMA_NOISE,
    NEGLIGIBLE_NOISE,
    smoothed_chroma,
    with_luma,
)
from dig2dig_ros.fusion.estimates import WatchedPrior
from dig2dig_ros.priors import load_prior
from fusion.priors import GaussianPrior

WIDTH, HEIGHT = 176, 144


@pytest.fixture(scope='module')
def prior():
    return load_prior('compact').eval()


@pytest.fixture(scope='module')
def frame():
    return SyntheticScene(WIDTH, HEIGHT).render(1.0, noise=False)


@pytest.fixture(scope='module')
def visible(frame):
    """Return (3, H, W) in [0, 1], blue first, with no black for noise to be clipped at."""
    return torch.from_numpy(frame.visible).permute(2, 0, 1).float() / 255 * 0.7 + 0.15


@pytest.fixture(scope='module')
def thermal(frame):
    """Return (1, H, W) in [0, 1]."""
    counts = torch.from_numpy(frame.thermal.astype(np.float32))
    return ((counts - counts.min()) / (counts.max() - counts.min()))[None] * 0.7 + 0.15


def noisy(image, read, gain=0.0, seed=1):
    """Return an image with noise of variance read^2 + gain y, and what is known of its luma's."""
    generator = torch.Generator().manual_seed(seed)
    deviation = (read**2 + gain * image).sqrt()
    seen = image + deviation * torch.randn(image.shape, generator=generator)
    scale = LUMA_NOISE if len(image) == 3 else 1.0
    level = scale * (read**2 + gain * float(image.mean())) ** 0.5
    return seen.clamp(0, 1), torch.tensor([scale * read, scale**2 * gain, level])


def decibels(image, truth):
    return -10 * float((image - truth).square().mean().log10())


@torch.inference_mode()
def clean(prior, image, noise, cell):
    return denoised(prior, [image], [noise], cell)[0]


# Read noise and gain: a bright sensor's, a dark one's, photons with little and with some else.
NOISES = [(15 / 255, 0.0), (40 / 255, 0.0), (2 / 255, 0.01), (8 / 255, 0.004)]


@pytest.mark.parametrize('cell', [1, 2, 4])
@pytest.mark.parametrize(('read', 'gain'), NOISES)
def test_thermal_images_are_nearer_to_the_scene(prior, thermal, read, gain, cell):
    seen, noise = noisy(thermal, read, gain)
    restored = clean(prior, seen, noise, cell)
    assert decibels(restored, thermal) > decibels(seen, thermal) + 8


@pytest.mark.parametrize('cell', [1, 2, 4])
@pytest.mark.parametrize(('read', 'gain'), NOISES)
def test_colour_images_are_nearer_to_the_scene(prior, visible, read, gain, cell):
    seen, noise = noisy(visible, read, gain)
    restored = clean(prior, seen, noise, cell)
    assert decibels(restored, visible) > decibels(seen, visible) + 3
    chroma, before = (image[::2] - image[1] for image in (visible, seen))
    assert decibels(restored[::2] - restored[1], chroma) > decibels(before, chroma) + 5


def test_the_finer_the_cells_the_nearer(prior, thermal):
    seen, noise = noisy(thermal, 25 / 255)
    gains = [decibels(clean(prior, seen, noise, cell), thermal) for cell in (1, 2, 4)]
    assert gains == sorted(gains, reverse=True)


# Of so many photons for white, a pixel of the dark has a twenty-fifth.
@pytest.mark.parametrize(('cell', 'photons'), [(1, 200), (2, 200), (2, 30), (4, 30)])
def test_the_dark_stays_as_bright_as_it_was(prior, thermal, photons, cell):
    dark = 0.1 * thermal
    counts = torch.poisson(dark * photons, generator=torch.Generator().manual_seed(2))
    seen = (counts / photons).clamp(0, 1)
    noise = torch.tensor([0.0, 1 / photons, (float(dark.mean()) / photons) ** 0.5])
    restored = clean(prior, seen, noise, cell)
    assert float(restored.mean()) == pytest.approx(float(seen.mean()), rel=0.01)
    assert decibels(restored, dark) > decibels(seen, dark) + 6


@pytest.mark.parametrize('deviation', [0.0, NEGLIGIBLE_NOISE])
def test_negligible_noise_is_left_alone(prior, visible, thermal, deviation):
    images = [noisy(visible, 1 / 255)[0], noisy(thermal, 1 / 255)[0]]
    # Black and white, without any detail.
    images[1][:, :40, :40], images[1][:, 40:80, :40] = 0, 1
    noise = torch.tensor([deviation, 0.0, deviation])
    with torch.inference_mode():
        for before, after in zip(images, denoised(prior, images, [noise] * 2, 2), strict=True):
            assert torch.equal(before, after)


def test_from_negligible_to_full_noise_more_and_more_is_taken_out():
    levels = torch.linspace(0, 2 * FULL_NOISE, 50)
    shares = denoising_share(levels)
    assert bool((shares.diff() >= 0).all())
    assert bool((shares[levels <= NEGLIGIBLE_NOISE] == 0).all())
    assert bool((shares[levels >= FULL_NOISE] == 1).all())


@pytest.mark.parametrize('cell', [1, 2, 4])
@pytest.mark.parametrize('noise', [(0.0, 0.0, 0.5), (0.0, 1.0, 0.5), (0.5, 0.0, 0.5), (0.9, 1, 1)])
@pytest.mark.parametrize('shape', [(1, 37, 45), (3, 33, 50)])
def test_nothing_leaves_the_range(prior, shape, noise, cell):
    generator = torch.Generator().manual_seed(4)
    for image in (
        torch.rand(shape, generator=generator),
        torch.rand(shape, generator=generator).round(),
        torch.zeros(shape),
        torch.ones(shape),
    ):
        restored = clean(prior, image, torch.tensor(noise), cell)
        assert restored.shape == shape
        assert bool(torch.isfinite(restored).all())
        assert 0 <= float(restored.min()) <= float(restored.max()) <= 1


def test_images_of_one_size_are_one_batch_and_come_back_in_order(visible, thermal):
    prior = GaussianPrior()
    small = thermal[:, :40, :60]
    given = [noisy(image, 0.1) for image in (visible, small, thermal)]
    images, noises = zip(*given, strict=True)
    with torch.inference_mode():
        results = denoised(prior, images, noises, 2)
        assert prior.batches == [2, 1]
        for (image, noise), result in zip(given, results, strict=True):
            assert result.shape == image.shape
            torch.testing.assert_close(result, clean(prior, image, noise, 2))


@pytest.mark.parametrize(('cell', 'side'), [(1, 32), (2, 16), (4, 8)])
def test_the_prior_sees_means_of_cells(cell, side):
    watched, sides = WatchedPrior(GaussianPrior()), []
    denoise = watched.denoise
    watched.denoise = lambda noisy, t: (sides.append(noisy.shape[-1]), denoise(noisy, t))[1]
    clean(watched, torch.rand(1, 32, 32), torch.tensor([0.1, 0.0, 0.1]), cell)
    assert sides == [side]
    assert watched.calls == 1


def test_one_white_pixel_in_the_dark_is_not_noise(prior):
    image = torch.full((1, 64, 64), 0.1)
    image[0, 30:32, 30:32] = 0.9
    seen, noise = noisy(image, 10 / 255)
    restored = clean(prior, seen, noise, 2)
    assert float(restored[0, 30:32, 30:32].mean()) > 0.7


def test_a_red_light_stays_red(visible):
    red = torch.full((3, 64, 64), 0.2)
    red[2, 24:40, 24:40] = 0.9
    grey = red.new_tensor([0.114, 0.587, 0.299]).view(3, 1, 1)
    luma = (red * grey).sum(dim=0)
    seen, _ = noisy(red, 20 / 255)
    chroma = smoothed_chroma(seen, luma, torch.tensor(20 / 255))
    restored = with_luma(chroma, luma)
    torch.testing.assert_close((restored * grey).sum(dim=0), luma, atol=1e-5, rtol=0)
    inside = restored[:, 28:36, 28:36].mean(dim=(1, 2))
    assert float(inside[2] - inside[1]) > 0.6
    assert abs(float(inside[0] - inside[1])) < 0.05
    # Grey stays grey.
    outside = restored[:, :12, :12].mean(dim=(1, 2))
    assert float(outside.max() - outside.min()) < 0.03


@pytest.mark.cuda
@pytest.mark.parametrize('precision', [torch.float32, torch.bfloat16])
def test_cuda_agrees(prior, visible, thermal, precision):
    there = load_prior('compact').eval().to('cuda', precision)
    for image in (visible, thermal):
        seen, noise = noisy(image, 15 / 255, 0.004)
        expected = clean(prior, seen, noise, 2)
        result = clean(there, seen.cuda(), noise.cuda(), 2)
        assert result.is_cuda
        atol = 2e-3 if precision == torch.float32 else 3e-2
        torch.testing.assert_close(result.cpu(), expected, atol=atol, rtol=0)
