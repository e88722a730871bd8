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

"""What the commands share: parameters of the node, options of the command line, texts."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
import sys
from typing import Any, TYPE_CHECKING

import yaml

from dig2dig_ros.fusion.settings import FusionSettings
from dig2dig_ros.images.thermal_range import ThermalRange
from dig2dig_ros.streams.resources import config_file

# Importing torch takes seconds, which a mistake in the command line need not cost.
if TYPE_CHECKING:
    from dig2dig_ros.fusion.fuser import Fuser
    from dig2dig_ros.priors import Prior

NODE = 'fusion_node'
INTERRUPTED = 'interrupted: ending with what there is; again to end at once'
# Of the thermal task, shipped in config/.
PRESETS = ('fusion', 'realtime', 'paper')
THERMAL_TASK = 'visible-thermal'
# What images are, and the preset for it.
TASKS = {
    THERMAL_TASK: 'fusion',
    'multi-focus': 'multi_focus',
    'multi-exposure': 'multi_exposure',
}
TYPES = {
    **{setting.name: type(setting.default) for setting in fields(FusionSettings)},
    **{'device': str, 'precision': str, 'prior': str, 'num_threads': int},
}
TYPE_NAMES = {bool: 'true or false', int: 'a whole number', float: 'a number', str: 'a text'}


class UsageError(ValueError):
    """What was asked for cannot be done; the message says why."""


def check_output(folder: Path, overwrite: bool) -> None:
    """
    Make sure that the folder of ``--output`` can take results.

    :raises UsageError: it is a file, or has files that are not to be replaced.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f'{folder} is a file: choose another --output')
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise UsageError(
            f'{folder} is not empty: choose another --output, or replace the results in it with '
            '--overwrite'
        )


def parameter_file(name: str) -> Path:
    """
    Return where the parameters of this name are.

    :param name: a file, or the name of a shipped preset, for example ``realtime``.
    :raises UsageError: it is neither.
    """
    path = Path(name)
    if path.is_file():
        return path.resolve()
    try:
        return config_file(f'{name}.yaml')
    except FileNotFoundError as error:
        raise UsageError(f'--params {name} is neither a file nor a preset: {error}') from error


def load_parameters(name: str) -> dict[str, Any]:
    """
    Read the parameters that a ROS 2 parameter file sets for ``fusion_node``.

    :param name: a file, or the name of a shipped preset, for example ``realtime``.
    :raises UsageError: the file is missing, is not a ROS 2 parameter file, or has a value of
        another type than the fusion takes.
    """
    path = parameter_file(name)
    try:
        document = yaml.safe_load(path.read_text(encoding='utf-8'))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f'{path} cannot be read as YAML: {error}') from error
    parameters: dict[str, Any] = {}
    found = False
    # The name of the node goes before the wildcard, as in ROS 2.
    for node in ('/**', f'/**/{NODE}', NODE, f'/{NODE}'):
        section = document.get(node) if isinstance(document, Mapping) else None
        values = section.get('ros__parameters') if isinstance(section, Mapping) else None
        if isinstance(values, Mapping):
            found = True
            parameters.update(values)
    if not found:
        raise UsageError(f'{path} has no ros__parameters for {NODE} or /**')
    check_types(parameters)
    return parameters


def check_types(parameters: Mapping[str, Any]) -> None:
    """
    Find out what a YAML file has as another type than the fusion takes.

    :raises UsageError: with the parameter, its value and what it must be.
    """
    for name, kind in TYPES.items():
        if name not in parameters:
            continue
        value = parameters[name]
        # A bool is an int to Python, but nobody means a number by it.
        if type(value) is not kind and not (kind is float and type(value) is int):
            raise UsageError(f'{name} is {value!r}, but must be {TYPE_NAMES[kind]}')


def fusion_settings(values: Mapping[str, Any]) -> FusionSettings:
    """
    Pick the settings of the fusion from the parameters of ``fusion_node``.

    :raises TypeError: a value has a wrong type.
    :raises ValueError: a value is out of its range.
    """
    names = (f.name for f in fields(FusionSettings))
    return FusionSettings(**{name: values[name] for name in names if name in values})


def load_fuser(
    parameters: Mapping[str, Any], settings: FusionSettings, prior: Prior | None = None
) -> Fuser:
    """
    Load what a fusion needs.

    :param parameters: of ``fusion_node``: device, precision, prior and num_threads count here.
    :param prior: a loaded one, to be shared between fusers.
    :raises ValueError: a value is refused, or the device or the prior is missing.
    """
    import torch

    from dig2dig_ros.fusion.fuser import Fuser

    threads = parameters.get('num_threads', 0)
    if threads > 0:
        torch.set_num_threads(threads)
    names = ('device', 'precision', 'prior')
    where = {name: parameters[name] for name in names if name in parameters}
    if prior is not None:
        where['prior'] = prior
    return Fuser(settings, **where)


def set_up_fuser(parameters: Mapping[str, Any], settings: FusionSettings | None = None) -> Fuser:
    """
    Load what a fusion needs, for a command.

    :param settings: default: those among the parameters.
    :raises UsageError: a value is refused, or the device or the prior is missing.
    """
    try:
        return load_fuser(parameters, settings or fusion_settings(parameters))
    except (TypeError, ValueError) as error:
        raise UsageError(f'the fusion cannot be set up: {error}') from error


def with_overrides(parameters: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters with those overrides that are not None."""
    return {**parameters, **{key: value for key, value in overrides.items() if value is not None}}


def thermal_range(parameters: Mapping[str, Any]) -> ThermalRange:
    """
    Return the mapping of thermal counts that the parameters ask for, without memory.

    :raises UsageError: a value is refused.
    """
    arguments = {
        'mode': 'thermal_range',
        'percentiles': 'thermal_range_percentiles',
        'limits': 'thermal_range_limits',
    }
    given = {name: parameters[key] for name, key in arguments.items() if key in parameters}
    try:
        return ThermalRange(**given, smoothing=0.0)
    except (TypeError, ValueError) as error:
        raise UsageError(f'thermal_range cannot be set up: {error}') from error


def size_argument(text: str) -> tuple[int, int]:
    """Parse WIDTHxHEIGHT."""
    width, _, height = text.lower().partition('x')
    if not (width.isdecimal() and height.isdecimal() and int(width) >= 8 and int(height) >= 8):
        raise argparse.ArgumentTypeError(f'{text!r} is not WIDTHxHEIGHT from 8x8, such as 320x256')
    return int(width), int(height)


def positive(text: str) -> int:
    """Parse a whole number from 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f'{value} is not 1 or more')
    return value


def within(least: float, most: float) -> Callable[[str], float]:
    """Return what parses a number from ``least`` to ``most``."""

    def parse(text: str) -> float:
        value = float(text)
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f'{text} is not from {least:g} to {most:g}')
        return value

    return parse


def report(text: str) -> None:
    """Tell something that does not belong to the table."""
    print(text, file=sys.stderr, flush=True)


def add_fusion_options(group: argparse._ActionsContainer, default: str = 'its defaults') -> None:
    """
    Add ``--params``, ``-N``, ``-S`` and ``--device``.

    :param default: what the parameters are without ``--params``, in words.
    """
    group.add_argument(
        '--params',
        metavar='PRESET|FILE',
        help=f'parameters of {NODE}: a shipped preset or a YAML file; default: {default}',
    )
    group.add_argument('-N', type=positive, metavar='STEPS', help='steps of the reverse chain')
    group.add_argument(
        '-S',
        type=positive,
        metavar='STEPS',
        help='steps between two refreshes of the information gains',
    )
    group.add_argument('--device', help='auto, cpu, cuda or cuda:N')


def fusion_overrides(args: argparse.Namespace) -> dict[str, Any]:
    """Return what the options say of the parameters, for :func:`with_overrides`."""
    return {
        'num_inference_steps': args.N,
        'dig_refresh_interval': args.S,
        'device': args.device,
    }
