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

"""Operators against dense matrices, noise levels against known noise, declared degradations."""

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dig2dig_ros.fusion.degradation import Degradation, DegradationError
from dig2dig_ros.fusion.observation import (
    Composition,
    Convolution,
    down_sampling,
    estimate_noise,
    gaussian_blur,
    GREY_LEVEL,
    Identity,
    motion_psf,
    Observation,
    observe,
    Separable,
)

SIZE = (9, 12)


def uniform(*shape):
    """Return random numbers in [0, 1), always the same ones."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(7))


DISC = torch.tensor([[0, 1, 0], [1, 2, 1], [0, 1, 0]], dtype=torch.float64) / 6
OPERATORS = {
    'identity': Identity(SIZE),
    'gauss': gaussian_blur(SIZE, 0.6),
    'disc': Convolution(DISC, SIZE),
    'motion': Convolution(motion_psf(2.5, 30), SIZE),
    'area 2': down_sampling((10, 12), (5, 6), 'area'),
    'area 5:3': down_sampling((10, 15), (6, 9), 'area'),
    'bicubic 2': down_sampling((10, 12), (5, 6)),
    'bicubic 4': down_sampling((12, 16), (3, 4)),
    'bicubic 5:3 and 7:4': down_sampling((10, 14), (6, 8)),
    'merged': down_sampling((10, 12), (5, 6)) @ gaussian_blur((10, 12), 0.7),
    'composition': down_sampling((8, 12), (4, 6), 'area')
    @ Convolution(motion_psf(3, 60), (8, 12)),
}


def dense(operator, function=None):
    height, width = operator.input_size if function is None else operator.output_size
    unit = torch.eye(height * width, dtype=torch.float64).view(-1, 1, height, width)
    return (function or operator)(unit).flatten(1).T.numpy()


@pytest.mark.parametrize('name', OPERATORS)
def test_adjoint_is_the_transpose(name):
    operator = OPERATORS[name]
    matrix = dense(operator)
    assert matrix.shape == (np.prod(operator.output_size), np.prod(operator.input_size))
    np.testing.assert_allclose(dense(operator, operator.adjoint), matrix.T, atol=1e-12)


# Convolution with a lop-sided function in a mirror is as good as singular: only damping helps.
@pytest.mark.parametrize('name', sorted(OPERATORS.keys() - {'motion'}))
def test_pseudo_inverse_is_that_of_the_matrix(name):
    operator = OPERATORS[name]
    expected = np.linalg.pinv(dense(operator), rcond=1e-9)
    actual = dense(operator, operator.pseudo_inverse)
    np.testing.assert_allclose(actual, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize('name', OPERATORS)
@pytest.mark.parametrize('damping', [1e-3, 0.5])
def test_damped_inverse_is_that_of_the_matrix(name, damping):
    operator = OPERATORS[name]
    matrix = dense(operator)
    expected = matrix.T @ np.linalg.inv(matrix @ matrix.T + damping * np.eye(len(matrix)))
    actual = dense(operator, lambda y: operator.pseudo_inverse(y, damping))
    tolerance = 2e-3 if name == 'motion' else 1e-5
    np.testing.assert_allclose(actual, expected, atol=tolerance)


@pytest.mark.parametrize('name', OPERATORS)
def test_single_precision_and_batches(name):
    operator = OPERATORS[name]
    image = uniform(2, 3, *operator.input_size)
    observed = operator(image)
    assert observed.shape == (2, 3, *operator.output_size)
    assert observed.dtype == torch.float32
    torch.testing.assert_close(operator(image.double()).float(), observed, atol=1e-5, rtol=1e-5)
    restored = operator.pseudo_inverse(observed, 1e-2)
    assert restored.shape == image.shape
    double = operator.pseudo_inverse(observed.double(), 1e-2).float()
    # Iteration ends earlier in single precision.
    torch.testing.assert_close(restored, double, atol=3e-2, rtol=1e-3)


def test_what_blurs_and_reduces_keeps_brightness():
    for operator in OPERATORS.values():
        flat = torch.ones(1, 1, *operator.input_size, dtype=torch.float64)
        torch.testing.assert_close(operator(flat), operator(flat).new_ones(operator(flat).shape))


def test_two_ways_to_blur_agree():
    taps = torch.exp(-0.5 * (torch.arange(-3, 4).double() / 0.6) ** 2)
    taps /= taps.sum()
    image = uniform(1, 1, *SIZE).double()
    torch.testing.assert_close(
        gaussian_blur(SIZE, 0.6)(image), Convolution(torch.outer(taps, taps), SIZE)(image)
    )


def test_bicubic_is_what_torch_does():
    image = uniform(1, 1, 31, 40).double()
    expected = F.interpolate(image, (13, 20), mode='bicubic', antialias=True)
    torch.testing.assert_close(down_sampling((31, 40), (13, 20))(image), expected)


def test_area_is_what_opencv_does():
    image = uniform(1, 1, 30, 40).double()
    expected = cv2.resize(image[0, 0].numpy(), (16, 12), interpolation=cv2.INTER_AREA)
    reduced = down_sampling((30, 40), (12, 16), 'area')(image)
    np.testing.assert_allclose(reduced[0, 0].numpy(), expected, atol=1e-6)


def test_motion_psf():
    psf = motion_psf(7, 0)
    assert psf.shape[0] == 1
    assert float(psf.sum()) == pytest.approx(1)
    torch.testing.assert_close(motion_psf(7, 90), psf.T)
    torch.testing.assert_close(motion_psf(5, 45), motion_psf(5, 45).flip(0, 1))
    # Counter-clockwise from x: up to the right.
    diagonal = motion_psf(5, 45)
    assert diagonal[0, -1] > 10 * diagonal[0, 0]
    assert motion_psf(0, 0).shape == (1, 1)


def test_composition_merges_what_it_can():
    assert isinstance(OPERATORS['merged'], Separable)
    assert isinstance(OPERATORS['composition'], Composition)
    blur = gaussian_blur(SIZE, 1.0)
    assert blur @ Identity(SIZE) is blur
    assert Identity(SIZE) @ blur is blur


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda: Identity((0, 3)), 'at least 1'),
        (lambda: Identity(SIZE)(torch.rand(1, 1, 3, 3)), r'\(3, 3\)'),
        (lambda: Identity(SIZE).pseudo_inverse(torch.rand(1, 1, *SIZE), -1.0), 'damping'),
        (lambda: down_sampling((8, 8), (9, 8)), 'reduce'),
        (lambda: down_sampling((8, 8), (4, 4), 'nearest'), 'area'),
        (lambda: gaussian_blur(SIZE, 0.0), 'sigma'),
        (lambda: Convolution(torch.ones(2, 3), SIZE), 'odd'),
        (lambda: Convolution(torch.ones(11, 3), SIZE), 'larger'),
        (lambda: down_sampling((8, 8), (4, 4)) @ Identity(SIZE), 'cannot follow'),
        (lambda: estimate_noise(torch.rand(1, 1, 20, 40)), 'at least 32'),
    ],
)
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize('sigma', [5, 10, 25, 50])
@pytest.mark.parametrize('kind', ['visible', 'thermal'])
def test_noise_of_real_images_is_found(shared, sigma, kind):
    rng = np.random.default_rng(3)
    for path in sorted((shared / 'data' / 'roadscene' / 'dev' / kind).iterdir())[::7]:
        clean = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE).astype(np.float32)
        noisy = np.clip(np.rint(clean + rng.normal(0, sigma, clean.shape)), 0, 255)
        level = float(estimate_noise(torch.from_numpy(noisy).float()[None, None]))
        assert level == pytest.approx(sigma, abs=max(1.0, 0.1 * sigma))


def ramp(size=(96, 128)):
    """Return a scene without texture, (1, 1, H, W) in [-1, 1]."""
    rows, columns = torch.meshgrid(*map(torch.arange, size), indexing='ij')
    return (0.5 * torch.sin(rows / 25) + 0.4 * torch.cos(columns / 30))[None, None]


@pytest.mark.parametrize('sigma', [3, 20])
def test_noise_of_a_batch(sigma):
    generator = torch.Generator().manual_seed(1)
    images = ramp().repeat(2, 1, 1, 1)
    images[1] += sigma * GREY_LEVEL * torch.randn(images[1].shape, generator=generator)
    levels = estimate_noise(images) / GREY_LEVEL
    assert float(levels[0]) < 0.1
    assert float(levels[1]) == pytest.approx(sigma, rel=0.1)


def test_misfit_is_the_noise_of_a_blurred_image():
    generator = torch.Generator().manual_seed(2)
    sharp = torch.randn(1, 1, 96, 128, generator=generator)
    noise = 0.1 * torch.randn(sharp.shape, generator=generator)
    for blur in (gaussian_blur((96, 128), 2.0), Convolution(motion_psf(9, 30), (96, 128))):
        assert blur.misfit(blur(sharp) + noise) == pytest.approx(0.1, rel=0.1)
        # What is sharp cannot have been blurred.
        assert blur.misfit(sharp) == pytest.approx(1, rel=0.1)
    reduction = down_sampling((96, 128), (48, 64))
    assert reduction.misfit(torch.randn(1, 1, 48, 64)) == 0


@pytest.mark.parametrize(
    ('text', 'scene', 'noise'),
    [
        ('none', (60, 80), 0),
        ('lepton', (240, 320), None),
        ('x4', (240, 320), 0),
        ('bicubic x2.5, noise 10', (150, 200), 10),
        ('blur 1.5, x2, noise 15', (120, 160), 15),
        ('motion 9 30', (60, 80), 0),
        ('low_light', (60, 80), None),
    ],
)
def test_declared_degradations(text, scene, noise):
    image = ramp((60, 80))
    observation = observe(Degradation.parse(text), image)
    assert observation.operator.input_size == scene
    assert observation.operator.output_size == (60, 80)
    # The ramp has no noise to be found.
    assert observation.noise / GREY_LEVEL == pytest.approx(noise or 0)
    torch.testing.assert_close(observation.image, image)


def test_a_degradation_is_applied_in_order():
    scene = ramp()
    expected = down_sampling((96, 128), (48, 64))(gaussian_blur((96, 128), 1.2)(scene))
    degradation = Degradation.parse('noise 3, bicubic x2, blur 1.2')
    observation = observe(degradation, torch.zeros(1, 1, 48, 64))
    torch.testing.assert_close(observation.operator(scene), expected, atol=1e-5, rtol=1e-5)


def test_estimated_noise():
    generator = torch.Generator().manual_seed(5)
    noisy = ramp() + 12 * GREY_LEVEL * torch.randn(ramp().shape, generator=generator)
    observation = observe(Degradation.parse('noise auto'), noisy)
    assert observation.noise / GREY_LEVEL == pytest.approx(12, rel=0.1)


@pytest.mark.parametrize(
    ('text', 'size', 'message'),
    [
        ('motion 60 0', (40, 50), 'only 50x40'),
        ('noise auto', (31, 50), '50x31'),
    ],
)
def test_degradations_that_an_image_cannot_have(text, size, message):
    with pytest.raises(DegradationError, match=message):
        observe(Degradation.parse(text), torch.zeros(1, 1, *size))


def test_observations_are_checked():
    with pytest.raises(ValueError, match='observed image'):
        Observation(torch.zeros(1, 1, 4, 4), Identity((8, 8)), 0.0)
    with pytest.raises(ValueError, match='noise'):
        Observation(torch.zeros(1, 1, 8, 8), Identity((8, 8)), -1.0)
    with pytest.raises(ValueError, match='shape'):
        observe(Degradation(), torch.zeros(3, 8, 8))


@pytest.mark.cuda
@pytest.mark.parametrize('text', ['blur 1.5, x2', 'motion 9 30', 'noise auto'])
def test_cuda_agrees(text):
    image = ramp()
    here = observe(Degradation.parse(text), image)
    there = observe(Degradation.parse(text), image.cuda())
    assert there.image.is_cuda
    assert there.noise == pytest.approx(here.noise, abs=1e-5)
    restored = there.operator.pseudo_inverse(there.image, 0.1)
    assert restored.is_cuda
    expected = here.operator.pseudo_inverse(here.image, 0.1)
    torch.testing.assert_close(restored.cpu(), expected, atol=1e-3, rtol=1e-3)
