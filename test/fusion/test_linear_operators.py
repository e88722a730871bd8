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

"""Linear operators against dense matrices, and against what torch and OpenCV do."""

import cv2
import numpy as np
import pytest
import torch

from dig2dig_ros.fusion.linear_operators import (
    Composition,
    Convolution,
    down_sampling,
    gaussian_blur,
    Identity,
    motion_psf,
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
    'area 2': down_sampling((10, 12), (5, 6)),
    'area 5:3': down_sampling((10, 15), (6, 9)),
    'area 5:3 and 7:4': down_sampling((10, 14), (6, 8)),
    'merged': down_sampling((10, 12), (5, 6)) @ gaussian_blur((10, 12), 0.7),
    'composition': down_sampling((8, 12), (4, 6)) @ Convolution(motion_psf(3, 60), (8, 12)),
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


@pytest.mark.parametrize('name', OPERATORS)
@pytest.mark.parametrize('factor', [2.0**-12, 2.0**12])
def test_a_faint_image_is_inverted_as_far_as_a_bright_one(name, factor):
    operator = OPERATORS[name]
    observed = operator(uniform(1, 1, *operator.input_size))
    expected = operator.pseudo_inverse(observed, 1e-2)
    found = operator.pseudo_inverse(factor * observed, 1e-2) / factor
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)


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


def test_area_is_what_opencv_does():
    image = uniform(1, 1, 30, 40).double()
    expected = cv2.resize(image[0, 0].numpy(), (16, 12), interpolation=cv2.INTER_AREA)
    reduced = down_sampling((30, 40), (12, 16))(image)
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
        (lambda: gaussian_blur(SIZE, 0.0), 'sigma'),
        (lambda: Convolution(torch.ones(2, 3), SIZE), 'odd'),
        (lambda: Convolution(torch.ones(11, 3), SIZE), 'larger'),
        (lambda: down_sampling((8, 8), (4, 4)) @ Identity(SIZE), 'cannot follow'),
    ],
)
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.slow
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
