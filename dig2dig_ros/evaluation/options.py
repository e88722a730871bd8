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

"""What the commands share: parameters of the node, command-line options, texts."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
import re
import sys
from typing import Any, TYPE_CHECKING

from dig2dig_ros.errors import Refusal
from dig2dig_ros.fusion.parameter_spec import nearest_name
from dig2dig_ros.fusion.settings import FusionSettings, SETTINGS
from dig2dig_ros.images.geometry import RegistrationError
from dig2dig_ros.images.registration import Registration
from dig2dig_ros.images.registration_file import load_registration
from dig2dig_ros.images.thermal_range import ThermalRange
from dig2dig_ros.resources import config_file
from dig2dig_ros.streams.parameters import (
    FUSION_PREFIX,
    fusion_settings,
    no_parameter,
    NODE,
    PARAMETERS_BY_NAME,
    PRESETS,
    read_parameters,
)

# Importing torch takes seconds, so a wrong command line is reported before.
if TYPE_CHECKING:
    from dig2dig_ros.fusion.fuser import Fuser
    from dig2dig_ros.priors import Prior

INTERRUPTED = 'interrupted: finishing with the results so far; press again to stop at once'
THERMAL_TASK = 'visible-thermal'
# Kinds of images, and their presets.
TASKS = {
    THERMAL_TASK: 'fusion',
    'multi-focus': 'multi_focus',
    'multi-exposure': 'multi_exposure',
}
# Parameters with a short option.
_SHORT = {'fusion.num_inference_steps': '-N', 'fusion.dig_refresh_interval': '-S'}


class UsageError(Refusal, ValueError):
    """A command cannot do what was asked; the message says why."""


def check_output(folder: Path, overwrite: bool, option: str = '--output') -> None:
    """
    Make sure that results can be written to a folder.

    :param option: the option that names the folder.
    :raises UsageError: it is a file, or has files that must not be replaced.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f'{folder} is a file: choose another {option}')
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise UsageError(
            f'{folder} is not empty: choose another {option}, or replace the results in it with '
            '--overwrite'
        )


def parameter_file(name: str) -> Path:
    """
    Return the file of a preset.

    :param name: a file, or the name of a shipped preset, for example ``realtime``.
    :raises UsageError: it is neither.
    :raises FileNotFoundError: the preset is not installed.
    """
    path = Path(name)
    if path.is_file():
        return path.resolve()
    shipped = tuple(dict.fromkeys((*PRESETS, *TASKS.values())))
    if name not in shipped:
        nearest = nearest_name(name, shipped)
        hint = f"did you mean '{nearest}'?" if nearest else f'use one of {", ".join(shipped)}'
        raise UsageError(f'--preset {name} is neither a file nor a preset: {hint}')
    return config_file(f'{name}.yaml')


def load_parameters(name: str) -> dict[str, Any]:
    """
    Read the parameters that a ROS 2 parameter file sets for ``fusion_node``.

    :param name: a file, or the name of a shipped preset, for example ``realtime``.
    :raises UsageError: the file is missing, is not a ROS 2 parameter file, or has a value that
        the node would refuse.
    """
    path = parameter_file(name)
    try:
        parameters = read_parameters(path)
    except ValueError as error:
        raise UsageError(str(error)) from error
    for unknown in parameters.keys() - PARAMETERS_BY_NAME.keys():
        # These belong to ROS, or to sources that the command line may add.
        if not re.match(r'qos_overrides\.|use_sim_time$|\w+_transport$', unknown):
            report(f'{path}: {no_parameter(unknown, PARAMETERS_BY_NAME)}')
    return parameters


def load_fuser(
    parameters: Mapping[str, Any], settings: FusionSettings, prior: Prior | None = None
) -> Fuser:
    """
    Make a fuser.

    :param parameters: of ``fusion_node``; used are device, precision, prior and num_threads.
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
    Make a fuser for a command.

    :param settings: default: those in the parameters.
    :raises UsageError: a value is refused, or the device or the prior is missing.
    """
    try:
        return load_fuser(parameters, settings or fusion_settings(parameters))
    except (TypeError, ValueError) as error:
        raise UsageError(f'the fusion cannot be set up: {error}') from error


def thermal_range(parameters: Mapping[str, Any], smoothing: float = 0.0) -> ThermalRange:
    """Return the mapping of thermal counts from the parameters; by default, without smoothing."""
    arguments = {
        'mode': 'thermal_range',
        'percentiles': 'thermal_range_percentiles',
        'limits': 'thermal_range_limits',
        'polarity': 'thermal_polarity',
    }
    given = {name: parameters[key] for name, key in arguments.items() if key in parameters}
    return ThermalRange(**given, smoothing=smoothing)


def thermal_crop(parameters: Mapping[str, Any]) -> Sequence[int]:
    """Return how many rows to crop at the top and bottom of thermal images."""
    crop: Sequence[int] = parameters.get('thermal_crop', (0, 0))
    return crop


def find_registration(parameters: Mapping[str, Any]) -> Registration | None:
    """
    Return the registration for image files that the parameters name, if any.

    :raises UsageError: it cannot be read, or the parameters are for cameras with camera_info.
    """
    if parameters.get('extrinsics'):
        raise UsageError(
            'extrinsics need camera_info, which image files do not have: leave them out, and pass '
            'a registration as thermal_to_visible (dig2dig calibrate)'
        )
    path = parameters.get('thermal_to_visible')
    try:
        return load_registration(path) if path else None
    except RegistrationError as error:
        raise UsageError(str(error)) from error


def size_argument(text: str) -> tuple[int, int]:
    """Parse WIDTHxHEIGHT."""
    width, _, height = text.lower().partition('x')
    if not (width.isdecimal() and height.isdecimal() and int(width) >= 8 and int(height) >= 8):
        raise argparse.ArgumentTypeError(f'{text!r} is not WIDTHxHEIGHT, 8x8 or more')
    return int(width), int(height)


def positive(text: str) -> int:
    """Parse a positive integer."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f'must be 1 or more, not {value}')
    return value


def within(least: float, most: float) -> Callable[[str], float]:
    """Return a parser of numbers from ``least`` to ``most``."""

    def parse(text: str) -> float:
        value = float(text)
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f'must be {least:g} to {most:g}, not {text}')
        return value

    return parse


def report(text: str) -> None:
    """Print a message to standard error, apart from the tables."""
    print(text, file=sys.stderr, flush=True)


def add_parameter(group: argparse._ActionsContainer, name: str, **how: Any) -> None:
    """
    Add the option ``--NAME`` of a parameter of the node, as its table describes it.

    :param how: further arguments of ``add_argument``.
    """
    spec = PARAMETERS_BY_NAME[name]

    def value(text: str) -> Any:
        try:
            return spec.parsed(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    group.add_argument(
        *filter(None, (_SHORT.get(name), f'--{name}')),
        type=value,
        metavar=f'{{{",".join(map(str, spec.choices))}}}' if spec.choices else 'VALUE',
        # The description already lists the choices.
        help=f'{spec.description} {"" if spec.choices else spec.allowed}'.replace('%', '%%'),
        **how,
    )


def add_fusion_options(
    parser: argparse.ArgumentParser, default: str = 'the defaults of the node'
) -> None:
    """
    Add ``--preset``, and options for the parameters of the fusion.

    :param default: the parameters without ``--preset``, in words.
    """
    group = parser.add_argument_group('how to fuse', f'Parameters of {NODE}, by name.')
    group.add_argument(
        '--preset',
        metavar='PRESET|FILE',
        help=f'a shipped preset or a YAML file; default: {default}',
    )
    for name in ('device', 'prior', *map(FUSION_PREFIX.__add__, SETTINGS)):
        add_parameter(group, name)


def chosen_parameters(
    args: argparse.Namespace, defaults: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """
    Return the parameters from the command line.

    Later ones take precedence: the defaults, the file of ``--preset``, the options.

    :raises UsageError: the file, or a value in it, cannot be used.
    """
    return {
        **(defaults or {}),
        **(load_parameters(args.preset) if args.preset is not None else {}),
        **given_parameters(args),
    }


def given_parameters(args: argparse.Namespace) -> dict[str, Any]:
    """Return the parameters that are given as options, by name."""
    return {
        name: value
        for name, value in vars(args).items()
        if name in PARAMETERS_BY_NAME and value is not None
    }
