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

"""The files of a registration and of the pose between two cameras."""

from __future__ import annotations

import math
import os
from pathlib import Path
import re

import cv2
from images.cameras import (
    camera,
    ROTATION,
    THERMAL_SIZE,
    VISIBLE_SIZE,
)
import numpy as np
import pytest

from dig2dig_ros.images.geometry import RegistrationError
from dig2dig_ros.images.registration import Registration
from dig2dig_ros.images.registration_file import (
    load_extrinsics,
    load_registration,
    save_registration,
)

# Files


def written(folder: Path, text: str) -> Path:
    path = folder / 'file.yaml'
    path.write_text(text, 'utf-8')
    return path


def test_a_saved_registration_is_loaded_without_a_difference(tmp_path: Path) -> None:
    registration = Registration(
        np.array([[1.4, 1 / 3, 1e-7], [-2.5e-7, 1.5, -2.2], [1e-5, -6e-17, 1.0]]),
        THERMAL_SIZE,
        VISIBLE_SIZE,
        camera('plumb_bob', THERMAL_SIZE),
        camera('equidistant', VISIBLE_SIZE),
        {
            'from': 'µ-bolometer',
            'residual_px': 0.5,
            'size': THERMAL_SIZE,
            'sure': True,
        },
    )
    path = tmp_path / 'registration.yaml'
    save_registration(registration, path)
    text = path.read_text('utf-8')
    assert text.startswith('# ')
    assert 'µ-bolometer' in text
    loaded = load_registration(path)
    np.testing.assert_array_equal(loaded.thermal_to_visible, registration.thermal_to_visible)
    assert (loaded.thermal_size, loaded.visible_size) == (THERMAL_SIZE, VISIBLE_SIZE)
    for first, second in (
        (loaded.thermal_camera, registration.thermal_camera),
        (loaded.visible_camera, registration.visible_camera),
    ):
        assert first is not None
        assert second is not None
        assert (first.model, first.size) == (second.model, second.size)
        np.testing.assert_array_equal(first.matrix, second.matrix)
        np.testing.assert_array_equal(first.distortion, second.distortion)
    assert loaded.estimate == {
        'from': 'µ-bolometer',
        'residual_px': 0.5,
        'size': [40, 30],
        'sure': True,
    }
    again = tmp_path / 'again.yaml'
    save_registration(loaded, again)
    assert again.read_text('utf-8') == text


def test_a_homography_alone_is_enough(tmp_path: Path) -> None:
    save_registration(
        Registration(np.diag([2.0, 2.0, 1.0]), THERMAL_SIZE, VISIBLE_SIZE), tmp_path / 'a.yaml'
    )
    loaded = load_registration(tmp_path / 'a.yaml')
    assert loaded.thermal_camera is None
    assert loaded.visible_camera is None
    assert loaded.estimate == {}


HOMOGRAPHY = 'thermal_to_visible: [[2, 0, 1], [0, 2.5, 1], [1e-5, 0, 1]]\n'
SIZES = 'thermal_size: [40, 30]\nvisible_size: [64, 48]\n'
CAMERA = (
    'thermal_camera:\n  camera_matrix: [[40, 0, 20], [0, 40, 15], [0, 0, 1]]\n'
    '  distortion_model: plumb_bob\n  distortion_coefficients: [-0.1, 1e-05, 0, 0, 0]\n'
    '  size: [40, 30]\n'
)


def test_numbers_may_be_written_as_other_programs_write_them(tmp_path: Path) -> None:
    loaded = load_registration(written(tmp_path, HOMOGRAPHY + SIZES + CAMERA))
    assert loaded.thermal_to_visible[2, 0] == 1e-5
    assert loaded.thermal_camera is not None
    assert loaded.thermal_camera.distortion[1] == 1e-5


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('', 'not a mapping'),
        ('- 1', 'not a mapping'),
        ('a: [1', 'is not valid YAML'),
        ('a: 2026-99-99', 'is not valid YAML'),
        ('[' * 100_000, 'is not valid YAML: maximum recursion depth'),
        # Ten of these lines would stand for more than fits into memory.
        ('a: &a [1, 1]\nb: &b [*a, *a]', r'has aliases \(\*name\): write out'),
        ('#' * 2_000_000, 'is not a file, or has more than 1000000 bytes'),
        (SIZES, "no key 'thermal_to_visible': add it"),
        (HOMOGRAPHY + 'thermal_size: [40, 30]', "no key 'visible_size'"),
        (HOMOGRAPHY + SIZES + 'edge: 3', "key 'edge' that means nothing here: use thermal_to_"),
        (HOMOGRAPHY + SIZES + 'visible_size: [640, 480]', "'visible_size' is there twice"),
        (HOMOGRAPHY + SIZES + 'estimate: 3', 'estimate is not a mapping'),
        (HOMOGRAPHY + SIZES.replace('30', '30.5'), r'thermal_size must be \[width, height\]'),
        (HOMOGRAPHY + SIZES.replace('48', 'true'), 'visible_size must be'),
        (HOMOGRAPHY + SIZES.replace('48', '0'), 'visible_size must be'),
        (HOMOGRAPHY + SIZES.replace('[64, 48]', '64'), 'visible_size must be'),
        (HOMOGRAPHY.replace('2.5', 'true') + SIZES, "has 'True', which is no number"),
        (HOMOGRAPHY.replace('2.5', 'x') + SIZES, "has 'x', which is no number"),
        (HOMOGRAPHY.replace('2.5', '.nan') + SIZES, 'has nan, which is not finite'),
        (HOMOGRAPHY.replace('2.5', '9' * 400) + SIZES, 'not finite'),
        (HOMOGRAPHY.replace('2.5, ', '') + SIZES, 'not a list of 3 numbers'),
        ('thermal_to_visible: [[1, 0, 0]]\n' + SIZES, 'not a list of 3 rows of 3 numbers'),
        (HOMOGRAPHY.replace('2.5', '-2.5') + SIZES, 'mirrors'),
        (HOMOGRAPHY + SIZES + 'thermal_camera: 3', 'thermal_camera is not a mapping'),
        (HOMOGRAPHY + SIZES + CAMERA.replace('  size: [40, 30]', ''), "thermal_camera .* 'size'"),
        (HOMOGRAPHY + SIZES + CAMERA + '  k: 1', "thermal_camera has a key 'k'"),
        (HOMOGRAPHY + SIZES + CAMERA.replace('_bob', 's'), "thermal_camera: .* 'plumbs'"),
        (HOMOGRAPHY + SIZES + CAMERA.replace('-0.1', 'a'), "distortion_coefficients has 'a'"),
        (HOMOGRAPHY + SIZES + CAMERA + '  size: [40, 30]', "'size' is there twice"),
        (
            re.sub('(distortion_coefficients:).*', r'\1', HOMOGRAPHY + SIZES + CAMERA),
            'distortion_coefficients is not a list of numbers',
        ),
        (HOMOGRAPHY + SIZES + CAMERA.replace('30]', '31]'), 'size of thermal_camera is 40x31'),
    ],
)
def test_a_file_that_is_wrong_is_refused_with_its_name(
    tmp_path: Path, text: str, message: str
) -> None:
    path = written(tmp_path, text)
    with pytest.raises(RegistrationError, match=message) as raised:
        load_registration(path)
    assert str(raised.value).startswith(str(path))
    assert '\n' not in str(raised.value)


def test_files_that_cannot_be_read_or_written_are_named(tmp_path: Path) -> None:
    with pytest.raises(RegistrationError, match=r'none\.yaml cannot be read: No such file'):
        load_registration(tmp_path / 'none.yaml')
    (tmp_path / 'binary.yaml').write_bytes(b'\xff\xfe\x00')
    with pytest.raises(RegistrationError, match=r'binary\.yaml is not valid YAML'):
        load_extrinsics(tmp_path / 'binary.yaml')
    os.mkfifo(tmp_path / 'pipe.yaml')
    for endless in ('/dev/zero', tmp_path / 'pipe.yaml'):
        with pytest.raises(RegistrationError, match='is not a file, or has'):
            load_registration(endless)
    registration = Registration(np.eye(3), VISIBLE_SIZE, VISIBLE_SIZE)
    with pytest.raises(RegistrationError, match='cannot be written'):
        save_registration(registration, tmp_path / 'none' / 'a.yaml')
    registration = Registration(np.eye(3), VISIBLE_SIZE, VISIBLE_SIZE, estimate={'x': object()})
    with pytest.raises(RegistrationError, match='estimate'):
        save_registration(registration, tmp_path / 'a.yaml')
    assert not (tmp_path / 'a.yaml').exists()


# Extrinsics


def test_a_rotation_may_be_given_in_three_ways(tmp_path: Path) -> None:
    # Roll, pitch and yaw about fixed axes, one after the other.
    roll, pitch, yaw = (
        cv2.Rodrigues(np.radians(axis))[0] for axis in ([10.0, 0, 0], [0, 20.0, 0], [0, 0, 30.0])
    )
    expected = yaw @ pitch @ roll
    vector = cv2.Rodrigues(expected)[0].ravel()
    angle = np.linalg.norm(vector)
    x, y, z = vector / angle * math.sin(angle / 2)
    w = math.cos(angle / 2)
    for text in (
        f'rotation: {expected.tolist()}',
        f'quaternion: [{x:.15f}, {y:.15f}, {z:.15f}, {w:.15f}]',
        f'quaternion: [{-3 * x:.15f}, {-3 * y:.15f}, {-3 * z:.15f}, {-3 * w:.15f}]',
        'rpy_degrees: [10, 20, 30]',
    ):
        path = written(tmp_path, f'{text}\ntranslation: [0.1, -2, 3e-1]')
        rotation, translation = load_extrinsics(path)
        np.testing.assert_allclose(rotation, expected, atol=1e-9)
        np.testing.assert_array_equal(translation, [0.1, -2, 0.3])


def test_a_rounded_rotation_is_made_a_rotation(tmp_path: Path) -> None:
    text = f'rotation: {np.round(ROTATION, 3).tolist()}\ntranslation: [0, 0, 0]'
    rotation, _ = load_extrinsics(written(tmp_path, text))
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(rotation, ROTATION, atol=1e-3)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('rpy_degrees: [0, 0, 0]', "no key 'translation'"),
        ('translation: [0, 0, 0]', 'one of rotation, quaternion, rpy_degrees, but here is none'),
        (
            'translation: [0, 0, 0]\nrpy_degrees: [0, 0, 0]\nquaternion: [0, 0, 0, 1]',
            'both quaternion and rpy_degrees: keep one',
        ),
        ('translation: [0, 0]\nrpy_degrees: [0, 0, 0]', 'translation is not a list of 3 numbers'),
        ('translation: [0, 0, .inf]\nrpy_degrees: [0, 0, 0]', 'translation has inf'),
        ('translation: [0, 0, 0]\nrpy_degrees: [0, 0, 0, 0]', 'rpy_degrees is not a list of 3'),
        ('translation: [0, 0, 0]\nquaternion: [0, 0, 0, 0]', 'quaternion is zero'),
        ('translation: [0, 0, 0]\nrotation: [[1, 0, 0], [0, 1, 0], [0, 0, -1]]', 'rotation is no'),
        ('translation: [0, 0, 0]\nrotation: [[1, 0, 0], [0, 1, 0], [0, 0, 2]]', 'rotation is no'),
        ('translation: [0, 0, 0]\nrpy: [0, 0, 0]', "key 'rpy' that means nothing here"),
    ],
)
def test_extrinsics_that_are_wrong_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(RegistrationError, match=message) as raised:
        load_extrinsics(path)
    assert str(raised.value).startswith(str(path))
