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

"""Rotations, homographies and points."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dig2dig_ros.images.geometry import (
    RegistrationError,
    rotation_of_quaternion,
    stretch_text,
)


def test_a_quaternion_of_a_message_is_a_rotation() -> None:
    half = math.radians(45)
    # A quarter turn about z takes x to y.
    rotation = rotation_of_quaternion((0, 0, math.sin(half), math.cos(half)))
    np.testing.assert_allclose(rotation @ (1, 0, 0), (0, 1, 0), atol=1e-12)
    with pytest.raises(RegistrationError, match='not finite'):
        rotation_of_quaternion((0, 0, 0, math.nan))


@pytest.mark.parametrize(
    ('size', 'onto', 'ratio'),
    [
        ((20, 90), (128, 96), '6.00 times as much as in height'),
        ((640, 480), (480, 640), '1.78 times as much as in width'),
        ((640, 512), (1920, 1080), '1.42 times as much as in height'),
        ((640, 480), (720, 480), '1.12 times as much as in height'),
        # Sensors as they are put side by side, and what rounding makes of them.
        ((640, 512), (640, 480), ''),
        ((160, 120), (1280, 1024), ''),
        ((160, 122), (320, 240), ''),
        ((8, 6), (639, 481), ''),
    ],
)
def test_a_stretch_is_said_where_it_is_more_than_that_of_usual_sensors(
    size: tuple[int, int], onto: tuple[int, int], ratio: str
) -> None:
    text = stretch_text(size, onto)
    assert ratio in text
    assert bool(text) == bool(ratio)
