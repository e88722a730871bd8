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

"""What a parameter says of a camera's degradation."""

import pytest

from dig2dig_ros.fusion.degradation import Degradation, DegradationError, PRESETS


@pytest.mark.parametrize('text', ['none', '', '  '])
def test_nothing_is_declared(text):
    degradation = Degradation.parse(text)
    assert degradation.is_none
    assert degradation.scene_size(120, 160) == (120, 160)
    assert str(degradation) == 'none'


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('x4', Degradation(factor=4)),
        ('x2.5', Degradation(factor=2.5)),
        ('blur 1.5', Degradation(blur=1.5)),
        ('motion 9 -30', Degradation(motion=(9, -30))),
        ('noise 10', Degradation(noise=10)),
        ('noise auto', Degradation(noise=None)),
        ('stripes auto', Degradation(stripes=True)),
        ('contrast auto', Degradation(contrast=True)),
        ('blur auto', Degradation(blur=None)),
        ('noise auto, stripes auto', Degradation(stripes=True, noise=None)),
        ('blur 1, x2 ,noise 5.5', Degradation(factor=2, blur=1, noise=5.5)),
    ],
)
def test_terms_and_their_text(text, expected):
    degradation = Degradation.parse(text)
    assert degradation == expected
    assert Degradation.parse(str(degradation)) == expected


@pytest.mark.parametrize('name', PRESETS)
def test_presets_are_terms(name):
    assert Degradation.parse(name) == Degradation.parse(PRESETS[name])
    assert not Degradation.parse(name).is_none


def test_a_preset_for_a_low_resolution_camera():
    lepton = Degradation.parse('lepton')
    assert lepton.scene_size(120, 160) == (480, 640)
    assert lepton.noise is None
    assert lepton.stripes
    assert not lepton.is_only_noise


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('none', True),
        ('stripes auto, contrast auto, blur auto, noise auto', True),
        ('noise 10', True),
        ('blur 1', False),
        ('motion 9 0, noise auto', False),
        ('x2', False),
    ],
)
def test_only_noise_leaves_every_pixel_its_part_of_the_scene(text, expected):
    assert Degradation.parse(text).is_only_noise == expected


@pytest.mark.parametrize(
    ('text', 'reason'),
    [
        ('foggy', 'lepton, boson, low_light'),
        ('x0.5', 'the factor must be 1 to 16'),
        ('x17', 'the factor must be 1 to 16'),
        ('blur', 'blur 1.5'),
        ('blur 51', 'at most 50'),
        ('noise -3', 'noise 10'),
        ('noise 200', 'at most 127'),
        ('stripes 5', 'stripes auto'),
        ('contrast 2', 'contrast auto'),
        ('stripes auto, stripes auto', 'has stripes twice'),
        ('x2, x4', 'has factor twice'),
        ('blur 1, motion 9 0', 'both blur and motion'),
        ('psf lens.npy', 'unknown degradation'),
    ],
)
def test_what_is_wrong_is_said(text, reason):
    with pytest.raises(DegradationError, match=reason):
        Degradation.parse(text)
