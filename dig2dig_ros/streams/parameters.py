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


"""
The parameters of the fusion node: one table of names, defaults, ranges and meanings.

``config/fusion.yaml`` and ``docs/parameters.md`` are written from it by ``scripts/parameters.py``;
the node declares it, and tools that run without ROS read parameter files with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
import math
from pathlib import Path
import re
import sys
from typing import Any

from dig2dig_ros.fusion.parameter_spec import nearest_name, ParameterSpec
from dig2dig_ros.fusion.settings import FusionSettings, SETTINGS
from dig2dig_ros.images.plain_yaml import ros_parameters
from dig2dig_ros.streams.pairing import SOURCES

NODE = 'fusion_node'
# The presets in config/ for the task that the package is made for.
PRESETS = ('fusion', 'realtime', 'paper')
# As launch files and command lines write it.
TRUE_OR_FALSE = ('true', 'false', 'True', 'False')
# The group of the settings of the fuser.
FUSION_PREFIX = 'fusion.'
# An 8K image; to warm up with more would only take the robot's memory.
_MOST_PIXELS = 7680 * 4320
# Sources and outputs that the node always has: NAME/image_raw and fused/weights/NAME.
_TAKEN_NAMES = (*SOURCES, 'fused', 'overlay')


def _check_device(value: str) -> str | None:
    if re.fullmatch(r'auto|cpu|cuda(:\d+)?', value):
        return None
    return 'must be auto, cpu, cuda or cuda:N'


def _check_size(value: Any) -> str | None:
    if len(value) == 2 and min(value) >= 1 and value[0] * value[1] <= _MOST_PIXELS:
        return None
    return f'must be [width, height] in pixels, at least 1 each and {_MOST_PIXELS} together'


def _check_sources(value: Any) -> str | None:
    if not (isinstance(value, (list, tuple)) and all(isinstance(name, str) for name in value)):
        return "must be a list of names, such as ['nir', 'swir']"
    for name in value:
        if not re.fullmatch(r'[A-Za-z_][A-Za-z0-9_]*', name):
            return (
                f"'{name}' is not a valid topic name: use letters, digits and underscores, and no "
                'digit first'
            )
        if name in _TAKEN_NAMES:
            return f"'{name}' is taken by a topic of the node: choose another name"
        if value.count(name) > 1:
            return f"'{name}' appears more than once: give each source its own name"
    return None


def _check_percentiles(value: Any) -> str | None:
    if len(value) == 2 and 0.0 <= value[0] < value[1] <= 100.0:
        return None
    return 'must be [low, high] with 0 <= low < high <= 100'


def _check_limits(value: Any) -> str | None:
    if len(value) == 2 and all(map(math.isfinite, value)) and value[0] < value[1]:
        return None
    return 'must be [low, high] with low < high, both finite'


def _check_bits(value: Any) -> str | None:
    return None if value == 0 or 8 <= value <= 16 else 'must be 0, or 8 to 16'


def _check_crop(value: Any) -> str | None:
    if len(value) == 2 and min(value) >= 0 and max(value) <= 1000:
        return None
    return 'must be [top, bottom] in rows, 0 to 1000 each'


def transport_parameter(source: str) -> ParameterSpec:
    """Return the parameter that chooses the image transport of a source."""
    return ParameterSpec(
        f'{source}_transport',
        'raw',
        f'Image transport of the {source} input: raw, or compressed from <topic>/compressed.',
        choices=('raw', 'compressed'),
    )


# By what they are about, in the order of the files and documents that are made from them.
# fmt: off
SECTIONS: dict[str, tuple[ParameterSpec, ...]] = {
    'Device and denoiser': (
        ParameterSpec('autostart', True, 'Configure and activate at start, without a lifecycle '
                      'manager.'),
        ParameterSpec('device', 'auto', 'Where to compute: auto (CUDA if available, else CPU), '
                      'cpu, cuda or cuda:N. A device given by name is never replaced by another.',
                      check=_check_device),
        ParameterSpec('precision', 'auto', 'Number format of the denoiser: auto (the fastest one '
                      'the device has in hardware), fp32, bf16 or fp16.',
                      choices=('auto', 'fp32', 'bf16', 'fp16')),
        ParameterSpec('prior', 'compact', 'The denoiser: compact or nano (embedded), or the path '
                      'of a .safetensors file from dig2dig train, a guided-diffusion checkpoint, '
                      'or a folder with a UNet2DModel of diffusers.'),
        ParameterSpec('num_threads', 0, 'CPU threads for the fusion; 0 lets torch choose. If the '
                      'robot has other work, use one less than its cores.',
                      limits=(0, 256)),
        ParameterSpec('warmup_size', [640, 512], '[width, height] in pixels of the visible '
                      'camera, to warm up with before the first pair.', check=_check_size),
    ),
    'Fusion': tuple(
        replace(spec, name=FUSION_PREFIX + name) for name, spec in SETTINGS.items()
    ),
    'Pairing and transport': (
        ParameterSpec('sync_policy', 'nearest', 'How visible and thermal images are paired: '
                      'nearest, or approximate or exact, which need message_filters.',
                      choices=('nearest', 'approximate', 'exact')),
        ParameterSpec('sync_tolerance', 0.05, 'Largest difference in seconds between the stamps '
                      'of a pair.', live=True, limits=(0.0, 10.0)),
        ParameterSpec('queue_size', 30, 'Images of each camera that may wait for a partner: at '
                      'least those that the faster camera sends during one period and the extra '
                      'delay of the slower one.', limits=(1, 1000)),
        ParameterSpec('thermal_time_offset', 0.0, 'Seconds added to thermal stamps before '
                      'pairing; negative if they are late.', live=True,
                      limits=(-86400.0, 86400.0)),
        *(transport_parameter(source) for source in SOURCES),
        ParameterSpec('additional_sources', [], 'Names of further cameras to fuse, such as [nir, '
                      'swir], each with the topic NAME/image_raw and a parameter NAME_transport.',
                      check=_check_sources),
    ),
    'Registration': (
        ParameterSpec('thermal_to_visible', '', 'Path of the YAML file written by dig2dig '
                      'calibrate; empty if the images are aligned.'),
        ParameterSpec('extrinsics', '', 'Pose of the thermal camera, as the path of a YAML file '
                      "or 'tf'. The registration is then computed from it and the camera_info of "
                      'both cameras, instead of thermal_to_visible.'),
        ParameterSpec('plane_distance', 20.0, 'With extrinsics: distance in metres from the '
                      'visible camera at which the images match.',
                      live=True, limits=(0.01, 1000000.0)),
        ParameterSpec('rectified', False, 'With extrinsics: the images are rectified '
                      '(image_rect), so P of camera_info applies, not K and D.'),
        ParameterSpec('registration_edge', 16.0, 'Pixels of the visible image over which the '
                      'thermal one fades out at its border.', live=True, limits=(0.0, 1000.0)),
        ParameterSpec('alignment_period', 5.0, 'Seconds between two checks that the images are '
                      'still aligned, for diagnostics; 0 turns them off.', live=True,
                      limits=(0.0, 3600.0)),
        ParameterSpec('alignment_tolerance', 0.02, 'Misalignment from which diagnostics warn, as '
                      'a fraction of the width of the visible image.', live=True,
                      limits=(0.0, 1.0)),
    ),
    'Camera faults': (
        ParameterSpec('missing_modality', 'wait', 'Which camera is used alone, with weight 1, '
                      'when the other has been silent for stale_timeout: none (wait), visible, '
                      'thermal, or any.', live=True,
                      choices=('wait', 'visible', 'thermal', 'any')),
        ParameterSpec('stale_timeout', 2.0, 'Seconds without a usable image of a camera before '
                      'diagnostics warn and missing_modality takes effect.', live=True,
                      limits=(0.1, 3600.0)),
        ParameterSpec('frozen_timeout', 0.3, 'Seconds of identical thermal images, while the '
                      'visible one changes, before the thermal camera counts as frozen and its '
                      'weight fades out; 0 turns this off.', live=True, limits=(0.0, 60.0)),
        ParameterSpec('visible_bits', 0, 'Bits in use of a visible image with 16 bits per '
                      'sample, such as 12; 0 detects and reports them.', live=True,
                      check=_check_bits),
        ParameterSpec('max_pixels', 4096 * 2304, 'Images with more pixels are refused before '
                      'memory is allocated. Fusion takes about 130 bytes per pixel of the '
                      'visible image, a chain of many steps up to 450.', live=True,
                      limits=(1, _MOST_PIXELS)),
    ),
    'Thermal range': (
        ParameterSpec('thermal_range', 'auto', 'How thermal counts become intensities: '
                      'percentile, fixed (thermal_range_limits), encoding (full range of the '
                      'type), or auto: percentile, but encoding for 8-bit images.', live=True,
                      choices=('auto', 'percentile', 'fixed', 'encoding')),
        ParameterSpec('thermal_range_percentiles', [1.0, 99.5], '[low, high] percentiles of the '
                      'counts that become black and white.', live=True, check=_check_percentiles),
        ParameterSpec('thermal_range_limits', [0.0, 65535.0], '[low, high] counts that become '
                      'black and white with thermal_range fixed.', live=True,
                      check=_check_limits),
        ParameterSpec('thermal_range_smoothing', 1.0, 'Time constant in seconds of the '
                      'percentile range, against flicker; 0 turns smoothing off.',
                      live=True, limits=(0.0, 60.0)),
        ParameterSpec('thermal_polarity', 'white_hot', 'white_hot: high counts are hot. '
                      'black_hot: they are cold, and the range is inverted.', live=True,
                      choices=('white_hot', 'black_hot')),
        ParameterSpec('thermal_crop', [0, 0], '[top, bottom] rows of the thermal image that are '
                      'not part of the picture, such as telemetry, and are cut off first; a '
                      'registration refers to what remains.', live=True, check=_check_crop),
    ),
    'Output': (
        ParameterSpec('output_encoding', 'bgr8', 'Encoding of fused/image_raw: bgr8, rgb8 or '
                      'mono8.', live=True, choices=('bgr8', 'rgb8', 'mono8')),
        ParameterSpec('compressed_format', 'jpeg', 'Format on the topics that end in '
                      '/compressed: jpeg, or png (lossless).', live=True,
                      choices=('jpeg', 'png')),
        ParameterSpec('jpeg_quality', 80, 'JPEG quality on these topics.',
                      live=True, limits=(1, 100)),
        ParameterSpec('weights_encoding', 'mono8', 'Encoding of the weight maps: mono8 (weight x '
                      '255) or 32FC1 (exact).', live=True, choices=('mono8', '32FC1')),
        ParameterSpec('diagnostics_period', 1.0, 'Seconds between two diagnostics messages.',
                      limits=(0.1, 60.0)),
    ),
}
# fmt: on

PARAMETERS: tuple[ParameterSpec, ...] = tuple(
    spec for group in SECTIONS.values() for spec in group
)
PARAMETERS_BY_NAME: dict[str, ParameterSpec] = {spec.name: spec for spec in PARAMETERS}


def fusion_settings(values: Mapping[str, Any]) -> FusionSettings:
    """
    Build the fuser's settings from parameter values; what is not given has its default.

    :raises ValueError: a value is refused, or they do not fit together; the message says why.
    """
    given = {name: FUSION_PREFIX + name for name in SETTINGS}
    return FusionSettings(**{name: values[key] for name, key in given.items() if key in values})


def read_parameters(path: Path, node: str = NODE) -> dict[str, Any]:
    """
    Read what a ROS 2 parameter file sets for a node; nested names are joined by dots.

    :return: values by name, checked where they are parameters of the fusion node.
    :raises ValueError: the file is no parameter file, or a value is refused.
    """
    parameters = ros_parameters(path, node)
    return {**parameters, **_checked(parameters)}


def _checked(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return those that are parameters of the node."""
    return {
        name: PARAMETERS_BY_NAME[name].checked(value)
        for name, value in given.items()
        if name in PARAMETERS_BY_NAME
    }


def complete_values(given: Mapping[str, Any]) -> dict[str, Any]:
    """
    Return all of the node's parameters: the given ones, and defaults for the rest.

    Names that are not the node's own (``use_sim_time``, ``qos_overrides``) are left out.

    :raises ValueError: a value is refused; the message says which and why.
    """
    values = {**{spec.name: spec.default for spec in PARAMETERS}, **_checked(given)}
    for source in values['additional_sources']:
        spec = transport_parameter(source)
        values[spec.name] = spec.checked(given.get(spec.name, spec.default))
    fusion_settings(values)
    return values


def argument_choices(spec: ParameterSpec, *more: str) -> list[str] | None:
    """
    Return what a launch argument may be, where it is one of a few; None where it may be anything.

    :param spec: of its parameter.
    :param more: is allowed as well.
    """
    if isinstance(spec.default, bool):
        return [*more, *TRUE_OR_FALSE]
    return [*more, *map(str, spec.choices)] if spec.choices else None


def unknown_arguments(
    file: str, known: Iterable[str], argv: Sequence[str] | None = None
) -> list[str]:
    """
    Return warnings about launch arguments that are not declared, which launch ignores.

    :param file: the launch file; where the command line starts another one, nothing is said.
    :param known: the arguments of the file.
    :param argv: the command line; by default that of this process.
    """
    words = [Path(word).name for word in (sys.argv if argv is None else argv)]
    if file not in words:
        return []
    known, said = list(known), []
    for word in (sys.argv if argv is None else argv)[words.index(file) + 1 :]:
        name, is_given, _ = word.partition(':=')
        if not is_given or name in known:
            continue
        hint = ''
        if nearest := nearest_name(name, known):
            hint = f'; did you mean {nearest}?'
        elif parameter := nearest_name(name, PARAMETERS_BY_NAME):
            hint = f'; the parameter {parameter} is set in a file: params_file:=FILE'
        said.append(f'there is no argument {name}: its value has no effect{hint}')
    return said


def no_parameter(name: str, known: Iterable[str]) -> str:
    """Return what is said of a parameter that nobody reads, with the name probably meant."""
    nearest = nearest_name(name, known)
    hint = f'; did you mean {nearest}?' if nearest else ''
    return f'there is no parameter {name}: its value has no effect{hint}'
