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

"""Noise levels against known noise, and declared degradations."""

import cv2
import numpy as np
import pytest
import torch

from dig2dig_ros.fusion.degradation import Degradation, DegradationError
from dig2dig_ros.fusion.linear_operators import down_sampling, gaussian_blur, Identity
from dig2dig_ros.fusion.observation import estimate_noise, GREY_LEVEL, Observation, observe


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


@pytest.mark.parametrize(
    ('text', 'scene', 'noise'),
    [
        ('none', (60, 80), 0),
        ('lepton', (240, 320), None),
        ('x4', (240, 320), 0),
        ('x2.5, noise 10', (150, 200), 10),
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
    degradation = Degradation.parse('noise 3, x2, blur 1.2')
    observation = observe(degradation, torch.zeros(1, 1, 48, 64))
    torch.testing.assert_close(observation.operator(scene), expected, atol=1e-5, rtol=1e-5)


def test_small_images_have_no_noise_to_be_estimated():
    with pytest.raises(ValueError, match='at least 32'):
        estimate_noise(torch.rand(1, 1, 20, 40))


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
