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

"""Consistency against dense linear algebra; restoration with the shipped prior."""

import cv2
import numpy as np
import pytest
import torch

from dig2dig_ros.fusion.colour import luma
from dig2dig_ros.fusion.degradation import Degradation, DegradationError
from dig2dig_ros.fusion.denoising import LUMA_NOISE
from dig2dig_ros.fusion.estimates import WatchedPrior
from dig2dig_ros.fusion.linear_operators import (
    Convolution,
    down_sampling,
    gaussian_blur,
    Identity,
    motion_psf,
)
from dig2dig_ros.fusion.observation import GREY_LEVEL, Observation, observe
from dig2dig_ros.fusion.restoration import (
    data_consistent,
    fusion_consistent,
    jointly_corrected,
    restore,
    restore_colour,
)
from dig2dig_ros.priors import load_prior

SIZE = (96, 128)


def scene():
    """Return bars, discs and a ramp, (1, 1, H, W) in [-1, 1]."""
    canvas = np.tile(np.linspace(60, 150, SIZE[1], dtype=np.float32), (SIZE[0], 1))
    for x in range(8, 60, 12):
        cv2.rectangle(canvas, (x, 10), (x + 5, 50), 210, -1)
    cv2.circle(canvas, (95, 40), 22, 30, -1)
    cv2.circle(canvas, (40, 75), 14, 230, -1)
    cv2.line(canvas, (70, 90), (120, 70), 20, 2)
    # A lens is never sharper than this.
    canvas = cv2.GaussianBlur(canvas, (0, 0), 0.8)
    return torch.from_numpy(canvas)[None, None] / 127.5 - 1


def camera(image, noise, seed=0):
    """Return an image as a camera with 8 bits and this noise (grey levels) gives it."""
    generator = torch.Generator().manual_seed(seed)
    counts = (image + 1) * 127.5 + noise * torch.randn(image.shape, generator=generator)
    return counts.round().clamp(0, 255) / 127.5 - 1


def seen(operator, noise):
    return Observation(camera(operator(scene()), noise), operator, noise * GREY_LEVEL)


def error(image, truth=None):
    """Return the root mean square error in grey levels."""
    truth = scene() if truth is None else truth
    return float((image - truth).square().mean().sqrt()) / GREY_LEVEL


@pytest.fixture(scope='module')
def prior():
    return load_prior('compact').eval()


def test_data_consistency_is_the_best_linear_estimate():
    operator = down_sampling((8, 12), (4, 6)) @ gaussian_blur((8, 12), 0.8)
    generator = torch.Generator().manual_seed(1)
    y = torch.randn(1, 1, 4, 6, generator=generator, dtype=torch.float64)
    estimate = torch.randn(1, 1, 8, 12, generator=generator, dtype=torch.float64)
    unit = torch.eye(96, dtype=torch.float64).view(-1, 1, 8, 12)
    matrix = operator(unit).flatten(1).T
    s, d = 0.1, 0.7
    expected = torch.linalg.solve(
        matrix.T @ matrix / s**2 + torch.eye(96) / d**2,
        matrix.T @ y.flatten() / s**2 + estimate.flatten() / d**2,
    )
    actual = data_consistent(estimate, Observation(y, operator, s), d)
    torch.testing.assert_close(actual.flatten(), expected)


def test_without_noise_the_data_are_met_exactly():
    operator = down_sampling((9, 12), (3, 4))
    y = torch.rand(1, 1, 3, 4, dtype=torch.float64)
    estimate = torch.rand(1, 1, 9, 12, dtype=torch.float64)
    corrected = data_consistent(estimate, Observation(y, operator, 0.0), 0.3)
    torch.testing.assert_close(operator(corrected), y)


@pytest.mark.parametrize('scale', [0.2, 0.9, 1.0])
def test_fusion_consistency_is_a_projection(scale):
    generator = torch.Generator().manual_seed(2)
    estimate = torch.randn(1, 1, 4, 5, generator=generator, dtype=torch.float64)
    sources = torch.randn(3, 1, 4, 5, generator=generator, dtype=torch.float64)
    weights = torch.softmax(torch.randn(3, 1, 4, 5, generator=generator).double(), dim=0)
    fused, moved = fusion_consistent(estimate, sources, weights, scale)
    torch.testing.assert_close(fused, (weights * moved).sum(dim=0, keepdim=True))
    # The guided estimate of the chain.
    target = (weights * sources).sum(dim=0, keepdim=True)
    torch.testing.assert_close(fused, estimate + scale * (target - estimate))
    again = fusion_consistent(fused, moved, weights, scale)
    torch.testing.assert_close(again[0], fused)
    torch.testing.assert_close(again[1], moved)


def test_fusion_consistency_is_the_nearest_point():
    scale = 0.7
    generator = torch.Generator().manual_seed(3)
    estimate = torch.randn(1, 1, 4, 5, generator=generator, dtype=torch.float64)
    sources = torch.randn(2, 1, 4, 5, generator=generator, dtype=torch.float64)
    weights = torch.softmax(torch.randn(2, 1, 4, 5, generator=generator).double(), dim=0)
    # Of the sources' distance to that of the fused image.
    share = scale * weights.square().sum(dim=0) / (1 - scale)

    def distance(fused, moved):
        return (fused - estimate).square()[0] + share * (moved - sources).square().sum(dim=0)

    fused, moved = fusion_consistent(estimate, sources, weights, scale)
    nearest = distance(fused, moved)
    for _ in range(20):
        other = moved + 0.01 * torch.randn(moved.shape, generator=generator)
        assert (distance((weights * other).sum(dim=0, keepdim=True), other) > nearest).all()


def test_sources_meet_what_was_observed():
    generator = torch.Generator().manual_seed(4)
    size = (12, 16)
    reduction = down_sampling(size, (6, 8))
    estimate = torch.randn(1, 1, *size, generator=generator)
    sources = torch.randn(3, 1, *size, generator=generator)
    weights = torch.full_like(sources, 1 / 3)
    observed = Observation(torch.randn(1, 1, 6, 8, generator=generator), reduction, 0.0)
    noisy = Observation(sources[1:2].clone(), Identity(size), 100 * GREY_LEVEL)
    corrected = jointly_corrected(
        estimate, sources, weights, 0.6, [observed, noisy, None], uncertainty=1.0
    )
    _, moved = fusion_consistent(estimate, sources, weights, 0.6)
    torch.testing.assert_close(reduction(corrected[:1]), observed.image, atol=0.2, rtol=0)
    # So much noise says next to nothing.
    torch.testing.assert_close(corrected[1], moved[1], atol=0.02, rtol=0)
    # What was seen as it is stays as it is.
    assert torch.equal(corrected[2], sources[2])


HALF = (48, 64)


@pytest.mark.parametrize(
    ('operator', 'noise', 'factor'),
    [
        (Identity(SIZE), 25, 0.4),
        (gaussian_blur(SIZE, 2.0), 0, 0.5),
        (Convolution(motion_psf(9, 20), SIZE), 0, 0.2),
        (down_sampling(SIZE, HALF), 0, 0.9),
        (down_sampling(SIZE, HALF) @ gaussian_blur(SIZE, 1.0), 15, 0.85),
    ],
    ids=['noise', 'blur', 'motion', 'x2', 'composite'],
)
def test_restoration_comes_closer(prior, operator, noise, factor):
    observed = seen(operator, noise)
    watched = WatchedPrior(prior)
    restored = restore(watched, observed)
    before = torch.nn.functional.interpolate(observed.image, SIZE, mode='bicubic')
    assert restored.shape == (1, 1, *SIZE)
    assert error(restored) < factor * error(before)
    assert watched.calls == (noise > 0) + 2 * (not isinstance(operator, Identity))


def test_a_declared_size_that_is_no_multiple(prior):
    small = down_sampling(SIZE, (38, 51))
    observed = observe(Degradation.parse('x2.5'), camera(small(scene()), 0), 0.0)
    restored = restore(prior, observed)
    assert restored.shape[-2:] == (95, 128)


@pytest.mark.parametrize('text', ['blur 2', 'motion 9 20', 'blur 3, noise 5'])
def test_a_blur_that_is_not_there_does_little_harm(prior, text):
    degradation = Degradation.parse(text)
    noise = degradation.noise * GREY_LEVEL
    restored = restore(prior, observe(degradation, camera(scene(), 0), noise))
    declared = observe(degradation, scene(), noise).operator
    # Less than the blur would have done.
    assert error(restored) < error(declared(scene()))


def test_more_steps_ask_the_prior_more_often(prior):
    observed = seen(gaussian_blur(SIZE, 1.5), 10)
    calls = []
    for steps in (1, 3):
        watched = WatchedPrior(prior)
        restore(watched, observed, steps)
        calls.append(watched.calls)
    assert calls == [2, 4]


def test_nothing_to_restore_asks_no_prior(prior):
    watched = WatchedPrior(prior)
    restored = restore(watched, observe(Degradation(), scene(), 0.0))
    assert watched.calls == 0
    assert torch.equal(restored, scene())


def test_restoration_takes_at_least_a_step(prior):
    with pytest.raises(ValueError, match='steps'):
        restore(prior, observe(Degradation(), scene(), 0.0), 0)


def colours():
    """Return a scene with colour, (3, H, W) in [0, 1]."""
    grey = (scene()[0] + 1) / 2
    tint = torch.zeros(3, *SIZE)
    tint[0, :, 64:], tint[2, :, :64] = 0.15, 0.2
    return (grey * 0.7 + tint).clamp(0, 1)


def chroma_error(bgr):
    difference = bgr - colours()
    return float((difference - difference.mean(dim=0)).square().mean().sqrt()) * 255


def observed_luma(bgr, text, noise=0.0):
    return observe(Degradation.parse(text), luma(bgr)[None, None] * 2 - 1, noise * GREY_LEVEL)


def test_colour_loses_its_noise(prior):
    noisy = (camera(colours() * 2 - 1, 20) + 1) / 2
    watched = WatchedPrior(prior)
    restored = restore_colour(watched, noisy, observed_luma(noisy, 'noise 20', 20 * LUMA_NOISE))
    assert restored.shape == (3, *SIZE)
    assert restored.min() >= 0
    assert restored.max() <= 1
    # The chroma follows the luma.
    assert watched.calls == 1
    assert chroma_error(restored) < 0.35 * chroma_error(noisy)
    assert float((restored - colours()).square().mean()) < 0.1 * float(
        (noisy - colours()).square().mean()
    )


def test_colour_keeps_what_is_not_degraded(prior):
    watched = WatchedPrior(prior)
    restored = restore_colour(watched, colours(), observed_luma(colours(), 'none'))
    assert watched.calls == 0
    torch.testing.assert_close(restored, colours())
    blurred = gaussian_blur(SIZE, 1.5)(colours())
    sharper = restore_colour(prior, blurred, observed_luma(blurred, 'blur 1.5'))
    assert (sharper - colours()).square().mean() < 0.5 * (blurred - colours()).square().mean()
    with pytest.raises(DegradationError, match='down-sampling'):
        restore_colour(prior, blurred, observed_luma(blurred, 'x2'))


@pytest.mark.cuda
@pytest.mark.parametrize('precision', [torch.float32, torch.bfloat16])
def test_cuda_agrees(prior, precision):
    on_cuda = load_prior('compact').eval().to('cuda', precision)
    observed = seen(down_sampling(SIZE, HALF) @ gaussian_blur(SIZE, 1.0), 15)
    expected = restore(prior, observed)
    there = Observation(observed.image.cuda(), observed.operator, observed.noise)
    restored = restore(on_cuda, there)
    assert restored.is_cuda
    assert restored.dtype == torch.float32
    assert error(restored.cpu(), expected) < (0.5 if precision == torch.float32 else 3)
