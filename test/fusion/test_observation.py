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

"""Declared degradations."""

import pytest
import torch

from dig2dig_ros.fusion.degradation import Degradation, DegradationError
from dig2dig_ros.fusion.linear_operators import down_sampling, gaussian_blur, Identity
from dig2dig_ros.fusion.observation import Observation, observe


def ramp(size=(96, 128)):
    """Return a scene without texture, (1, 1, H, W) in [-1, 1]."""
    rows, columns = torch.meshgrid(*map(torch.arange, size), indexing='ij')
    return (0.5 * torch.sin(rows / 25) + 0.4 * torch.cos(columns / 30))[None, None]


@pytest.mark.parametrize(
    ('text', 'scene'),
    [
        ('none', (60, 80)),
        ('lepton', (240, 320)),
        ('x4', (240, 320)),
        ('x2.5, noise 10', (150, 200)),
        ('blur 1.5, x2, stripes auto', (120, 160)),
        ('motion 9 30', (60, 80)),
        ('low_light', (60, 80)),
    ],
)
def test_declared_degradations(text, scene):
    image = ramp((60, 80))
    observation = observe(Degradation.parse(text), image, 0.1)
    assert observation.operator.input_size == scene
    assert observation.operator.output_size == (60, 80)
    assert observation.noise == 0.1
    torch.testing.assert_close(observation.image, image)


def test_a_degradation_is_applied_in_order():
    scene = ramp()
    expected = down_sampling((96, 128), (48, 64))(gaussian_blur((96, 128), 1.2)(scene))
    degradation = Degradation.parse('noise 3, x2, blur 1.2')
    observation = observe(degradation, torch.zeros(1, 1, 48, 64), 0.0)
    torch.testing.assert_close(observation.operator(scene), expected, atol=1e-5, rtol=1e-5)


def test_a_movement_longer_than_the_image_is_refused():
    with pytest.raises(DegradationError, match='only 50x40'):
        observe(Degradation.parse('motion 60 0'), torch.zeros(1, 1, 40, 50), 0.0)


def test_observations_are_checked():
    with pytest.raises(ValueError, match='observed image'):
        Observation(torch.zeros(1, 1, 4, 4), Identity((8, 8)), 0.0)
    with pytest.raises(ValueError, match='noise'):
        Observation(torch.zeros(1, 1, 8, 8), Identity((8, 8)), -1.0)
    with pytest.raises(ValueError, match='shape'):
        observe(Degradation(), torch.zeros(3, 8, 8), 0.0)


@pytest.mark.cuda
@pytest.mark.parametrize('text', ['blur 1.5, x2', 'motion 9 30'])
def test_cuda_agrees(text):
    image = ramp()
    here = observe(Degradation.parse(text), image, 0.1)
    there = observe(Degradation.parse(text), image.cuda(), 0.1)
    assert there.image.is_cuda
    restored = there.operator.pseudo_inverse(there.image, 0.1)
    assert restored.is_cuda
    expected = here.operator.pseudo_inverse(here.image, 0.1)
    torch.testing.assert_close(restored.cpu(), expected, atol=1e-3, rtol=1e-3)
