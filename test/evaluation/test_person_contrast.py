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

import numpy as np
import pytest

from dig2dig_ros.evaluation.person_contrast import person_contrast

PERSON = np.array([[20.0, 10.0, 30.0, 30.0]])


def street(person: int, background: int) -> np.ndarray:
    image = np.full((48, 64), background, np.uint8)
    image[10:30, 20:30] = person
    return image


@pytest.mark.parametrize(('person', 'background'), [(200, 50), (50, 200), (90, 90)])
def test_it_is_the_box_less_its_ring(person: int, background: int):
    grey = street(person, background)
    colour = np.repeat(grey[..., None], 3, axis=2)
    for image in (grey, colour):
        assert person_contrast(image, PERSON).tolist() == [person - background]


def test_what_is_beyond_the_ring_and_other_persons_do_not_count():
    image = street(200, 50)
    image[:, :15] = image[:, 36:] = 255
    assert person_contrast(image, PERSON).tolist() == [150]
    image[10:30, 31:36] = 255  # somebody else, beside
    both = np.concatenate([PERSON, [[31.0, 10.0, 36.0, 30.0]]])
    assert person_contrast(image, both)[0] == 150


def test_without_a_pixel_it_is_unknown():
    image = street(200, 50)
    assert person_contrast(image, np.zeros((0, 4))).shape == (0,)
    outside, whole = [70.0, 0.0, 80.0, 10.0], [0.0, 0.0, 64.0, 48.0]
    assert np.isnan(person_contrast(image, np.array([outside]))).all()
    assert np.isnan(person_contrast(image, np.array([whole]))).all()
