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

from collections.abc import Mapping, Sequence
from pathlib import Path
import re
import sys
from typing import Any

import numpy as np
import yaml

from dig2dig_ros.images.camera_model import CameraModel
from dig2dig_ros.images.geometry import (
    Array,
    nearest_rotation,
    RegistrationError,
    rotation_of_quaternion,
    rotation_of_rpy,
)
from dig2dig_ros.images.plain_yaml import PlainLoader
from dig2dig_ros.images.registration import Registration

# Bytes of a file; one that this package writes has a few thousand.
_LARGEST_FILE = 1_000_000
_CAMERAS = ('thermal_camera', 'visible_camera')


def load_registration(path: str | Path) -> Registration:
    """
    Read a file that :func:`save_registration` wrote, or a person.

    :raises RegistrationError: it cannot be read or says something wrong; the text names the
        file and the key.
    """
    values = read_yaml(path)
    try:
        required = ('thermal_to_visible', 'thermal_size', 'visible_size')
        _check_keys(values, required, (*_CAMERAS, 'estimate'))
        cameras = {key: _parse_camera(values[key], key) for key in _CAMERAS if key in values}
        estimate = values.get('estimate', {})
        if not isinstance(estimate, dict):
            raise RegistrationError('estimate is not a mapping of facts: correct or remove it')
        return Registration(
            _numbers(values['thermal_to_visible'], (3, 3), 'thermal_to_visible'),
            values['thermal_size'],
            values['visible_size'],
            **cameras,
            estimate=estimate,
        )
    except RegistrationError as error:
        raise RegistrationError(f'{path}: {error}') from None


def save_registration(registration: Registration, path: str | Path) -> None:
    """
    Write a file that :func:`load_registration` reads without a difference.

    :raises RegistrationError: it cannot be written.
    """
    sizes = {key: getattr(registration, key) for key in ('thermal_size', 'visible_size')}
    parts = [
        '# How the pixels of a thermal camera lie on those of a visible one.',
        '# [width, height] in pixels of the images that this is for.\n' + _yaml(sizes),
        '# Takes a thermal pixel (x, y, 1) to a visible one, up to a factor. Centres of\n'
        '# pixels are at integers, (0, 0) is that of the upper left one. Of pixels without\n'
        '# lens distortion for each camera that is given below, else of those of the image.\n'
        + _yaml({'thermal_to_visible': registration.thermal_to_visible.tolist()}),
    ]
    for key in _CAMERAS:
        if camera := getattr(registration, key):
            described = {
                'camera_matrix': camera.matrix.tolist(),
                'distortion_model': camera.model,
                'distortion_coefficients': camera.distortion.tolist(),
                'size': camera.size,
            }
            parts.append('# As in sensor_msgs/CameraInfo.\n' + _yaml({key: described}))
    if registration.estimate:
        try:
            facts = _yaml({'estimate': dict(registration.estimate)})
        except yaml.YAMLError as error:
            raise RegistrationError(
                f'estimate has what YAML cannot hold, of {type(error.args[-1]).__name__}: '
                'use numbers, texts, lists and mappings'
            ) from None
        parts.append('# How it was found; for people.\n' + facts)
    try:
        Path(path).write_text('\n'.join(part.rstrip() + '\n' for part in parts), 'utf-8')
    except OSError as error:
        raise RegistrationError(f'{path} cannot be written: {error.strerror}') from None


def load_extrinsics(path: str | Path) -> tuple[Array, Array]:
    """
    Read where the thermal camera is, seen from the visible one.

    A YAML file with ``translation``, [x, y, z] in m, and exactly one of ``rotation``, three rows
    of three, ``quaternion``, [x, y, z, w], and ``rpy_degrees``, [roll, pitch, yaw] as in URDF.
    They take points of the thermal optical frame into the visible one.

    :return: rotation (3, 3) and translation (3,) in m.
    :raises RegistrationError: it cannot be read or says something wrong; the text names the file
        and the key.
    """
    values = read_yaml(path)
    kinds = {'rotation': (3, 3), 'quaternion': (4,), 'rpy_degrees': (3,)}
    try:
        _check_keys(values, ('translation',), tuple(kinds))
        given = [kind for kind in kinds if kind in values]
        if len(given) != 1:
            found = f'both {" and ".join(given)}' if given else 'none'
            raise RegistrationError(
                f'the rotation is one of {", ".join(kinds)}, but here is {found}: keep one'
            )
        translation = _numbers(values['translation'], (3,), 'translation')
        kind = given[0]
        numbers = _numbers(values[kind], kinds[kind], kind)
        if kind == 'rotation':
            return nearest_rotation(numbers, kind), translation
        if kind == 'quaternion':
            return rotation_of_quaternion(numbers), translation
        return rotation_of_rpy(*np.radians(numbers)), translation
    except RegistrationError as error:
        raise RegistrationError(f'{path}: {error}') from None


class _StrictLoader(PlainLoader):
    """Reads YAML without aliases and without keys that are there twice."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key in keys:
            # The last one would win without a word.
            if keys.count(key) > 1:
                raise yaml.YAMLError(f"the key '{key}' is there twice: remove one")
        return dict(super().construct_mapping(node, deep))


def read_yaml(path: str | Path) -> dict[str, Any]:
    """
    Read a file of keys and values, such as a calibration.

    :raises RegistrationError: it cannot be read, or is none; the text names the file.
    """
    file = Path(path).expanduser()
    try:
        size = file.stat().st_size
        # A device or a pipe may go on for ever.
        if size > _LARGEST_FILE or not (file.is_file() or file.is_dir()):
            raise RegistrationError(
                f'{path} is not a file, or has more than {_LARGEST_FILE} bytes'
            )
        # A safe loader: it makes nothing but numbers, texts, lists and mappings.
        values = yaml.load(file.read_text('utf-8'), Loader=_StrictLoader)
    except RegistrationError:
        raise
    except OSError as error:
        raise RegistrationError(f'{path} cannot be read: {error.strerror}') from None
    # A value that looks like a date but is none is a ValueError, as is what is no text.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = ' '.join(str(error).split())
        raise RegistrationError(f'{path} is not valid YAML: {reason}') from None
    if not isinstance(values, dict):
        raise RegistrationError(f'{path} is not a mapping of keys to values')
    return values


def _check_keys(
    values: Mapping[Any, Any], required: Sequence[str], optional: Sequence[str], inside: str = ''
) -> None:
    """Raise for a key that is missing, and for one that nobody would read."""
    where = f'{inside} has' if inside else 'it has'
    for key in required:
        if key not in values:
            raise RegistrationError(f"{where} no key '{key}': add it")
    for key in values:
        if key not in required and key not in optional:
            known = ', '.join([*required, *optional])
            raise RegistrationError(f"{where} a key '{key}' that means nothing here: use {known}")


def _parse_camera(values: Any, name: str) -> CameraModel:
    if not isinstance(values, dict):
        raise RegistrationError(f'{name} is not a mapping of keys to values')
    keys = ('camera_matrix', 'distortion_model', 'distortion_coefficients', 'size')
    _check_keys(values, keys, (), inside=name)
    coefficients = values['distortion_coefficients']
    try:
        if not isinstance(coefficients, list):
            raise RegistrationError('distortion_coefficients is not a list of numbers')
        return CameraModel(
            _numbers(values['camera_matrix'], (3, 3), 'camera_matrix'),
            _numbers(coefficients, (len(coefficients),), 'distortion_coefficients'),
            str(values['distortion_model']),
            values['size'],
        )
    except RegistrationError as error:
        raise RegistrationError(f'{name}: {error}') from None


# Numbers that YAML 1.1 takes for texts, but other programs write: 1e-05, without a point.
_EXPONENT = re.compile(r'[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+')


def _numbers(values: Any, shape: tuple[int, ...], name: str) -> Array:
    """Return nested lists of a file as an array."""
    if not shape:
        if isinstance(values, str) and _EXPONENT.fullmatch(values):
            values = float(values)
        if isinstance(values, bool) or not isinstance(values, (int, float)):
            raise RegistrationError(f"{name} has '{values}', which is no number")
        # Compared as it is: an integer may be too large for a float.
        if not abs(values) <= sys.float_info.max:
            raise RegistrationError(f'{name} has {values}, which is not finite')
        return np.array(float(values))
    if not isinstance(values, list) or len(values) != shape[0]:
        wanted = 'numbers' if len(shape) == 1 else f'rows of {shape[1]} numbers'
        raise RegistrationError(f'{name} is not a list of {shape[0]} {wanted}')
    return np.array([_numbers(value, shape[1:], name) for value in values]).reshape(shape)


def _yaml(values: Mapping[str, Any]) -> str:
    layout = {'default_flow_style': None, 'sort_keys': False, 'width': 1000}
    return str(yaml.safe_dump(values, allow_unicode=True, **layout))
