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

import cv2
import numpy as np
import pytest

from dig2dig_ros.images.geometry import (
    apply_homography,
    homography_derivatives,
    nearest_rotation,
    RegistrationError,
    resizing,
    rotation_of_quaternion,
    rotation_of_rpy,
    stretch_text,
)

POINTS = np.array([[0.0, 0.0], [3.0, -1.0], [-2.0, 5.0], [0.5, 4.0]])


def test_a_quaternion_of_a_message_is_a_rotation() -> None:
    half = math.radians(45)
    # A quarter turn about z takes x to y.
    rotation = rotation_of_quaternion((0, 0, math.sin(half), math.cos(half)))
    np.testing.assert_allclose(rotation @ (1, 0, 0), (0, 1, 0), atol=1e-12)
    with pytest.raises(RegistrationError, match='not finite'):
        rotation_of_quaternion((0, 0, 0, math.nan))


@pytest.mark.parametrize('vector', [(0.3, 0, 0), (0, -0.7, 0), (0.4, -1.1, 0.6), (-2, 1.5, -1)])
def test_a_quaternion_about_any_axis_is_the_rotation_of_rodrigues(
    vector: tuple[float, float, float],
) -> None:
    angle = float(np.linalg.norm(vector))
    x, y, z = math.sin(angle / 2) * np.array(vector) / angle
    # Of any length.
    rotation = rotation_of_quaternion(3 * np.array([x, y, z, math.cos(angle / 2)]))
    np.testing.assert_allclose(rotation, cv2.Rodrigues(np.array(vector, float))[0], atol=1e-12)


def test_roll_pitch_and_yaw_turn_about_fixed_axes_in_this_order() -> None:
    angles = (0.3, -0.5, 1.2)
    about = [cv2.Rodrigues(angle * axis)[0] for angle, axis in zip(angles, np.eye(3), strict=True)]
    expected = about[2] @ about[1] @ about[0]
    np.testing.assert_allclose(rotation_of_rpy(*angles), expected, atol=1e-12)


def test_a_rounded_rotation_becomes_one_and_anything_else_is_refused() -> None:
    exact = rotation_of_rpy(0.3, -0.5, 1.2)
    found = nearest_rotation(exact.round(4), 'rotation')
    np.testing.assert_allclose(found, exact, atol=1e-4)
    np.testing.assert_allclose(found @ found.T, np.eye(3), atol=1e-12)
    for values, text in (
        (np.eye(2), r'rotation has shape \(2, 2\), but must have 3 x 3 numbers'),
        (1.01 * exact, 'rotation is not valid'),
        (np.diag([1.0, 1.0, -1.0]), 'rotation is not valid'),
    ):
        with pytest.raises(RegistrationError, match=text):
            nearest_rotation(values, 'rotation')


def test_the_edges_of_an_image_stay_its_edges_when_it_is_resized() -> None:
    corners = np.array([[-0.5, -0.5], [63.5, 47.5]])
    moved = apply_homography(resizing((64, 48), (160, 12)), corners)
    np.testing.assert_allclose(moved, [[-0.5, -0.5], [159.5, 11.5]], atol=1e-12)


def test_points_are_mapped_as_by_opencv_and_move_as_the_derivatives_say() -> None:
    h = np.array([1.1, 0.2, 3.0, -0.1, 0.9, -2.0, 0.02, -0.03])

    def mapped(elements: np.ndarray) -> np.ndarray:
        return apply_homography(np.append(elements, 1.0).reshape(3, 3), POINTS)

    matrix = np.append(h, 1.0).reshape(3, 3)
    expected = cv2.perspectiveTransform(POINTS[None], matrix)[0]
    np.testing.assert_allclose(mapped(h), expected, atol=1e-12)
    derivatives, places = homography_derivatives(h, POINTS)
    np.testing.assert_allclose(places, expected, atol=1e-12)
    for index, step in enumerate(1e-6 * np.eye(8)):
        slope = (mapped(h + step) - mapped(h - step)) / 2e-6
        np.testing.assert_allclose(derivatives[:, :, index], slope, atol=1e-7)


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
