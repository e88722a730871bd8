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
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
import re
import sys
from typing import Any, TYPE_CHECKING

from dig2dig_ros.errors import Refusal
from dig2dig_ros.fusion.settings import FusionSettings, SETTINGS
from dig2dig_ros.images.thermal_range import ThermalRange
from dig2dig_ros.resources import config_file
from dig2dig_ros.streams.parameters import (
    FUSION_PREFIX,
    fusion_settings,
    no_parameter,
    NODE,
    PARAMETERS_BY_NAME,
    read_parameters,
)

# Importing torch takes seconds, which a mistake in the command line need not cost.
if TYPE_CHECKING:
    from dig2dig_ros.fusion.fuser import Fuser
    from dig2dig_ros.priors import Prior

INTERRUPTED = 'interrupted: ending with what there is; again to end at once'
THERMAL_TASK = 'visible-thermal'
# What images are, and the preset for it.
TASKS = {
    THERMAL_TASK: 'fusion',
    'multi-focus': 'multi_focus',
    'multi-exposure': 'multi_exposure',
}
# Parameters with a short option.
_SHORT = {'fusion.num_inference_steps': '-N', 'fusion.dig_refresh_interval': '-S'}


class UsageError(Refusal, ValueError):
    """What was asked for cannot be done; the message says why."""


def check_output(folder: Path, overwrite: bool, option: str = '--output') -> None:
    """
    Make sure that a folder can take results.

    :param option: which names the folder.
    :raises UsageError: it is a file, or has files that are not to be replaced.
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
        raise UsageError(f'--preset {name} is neither a file nor a preset: {error}') from error


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
        # The others are of ROS, or of sources that the command line may name.
        if not re.match(r'qos_overrides\.|use_sim_time$|\w+_transport$', unknown):
            report(f'{path}: {no_parameter(unknown, PARAMETERS_BY_NAME)}')
    return parameters


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


def thermal_range(parameters: Mapping[str, Any], smoothing: float = 0.0) -> ThermalRange:
    """Return the mapping of counts that the parameters ask for; by default, without memory."""
    arguments = {
        'mode': 'thermal_range',
        'percentiles': 'thermal_range_percentiles',
        'limits': 'thermal_range_limits',
        'polarity': 'thermal_polarity',
    }
    given = {name: parameters[key] for name, key in arguments.items() if key in parameters}
    return ThermalRange(**given, smoothing=smoothing)


def thermal_crop(parameters: Mapping[str, Any]) -> Sequence[int]:
    """Return the rows at the top and bottom of thermal images that are to be left out."""
    crop: Sequence[int] = parameters.get('thermal_crop', (0, 0))
    return crop


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
        # The description names the choices.
        help=f'{spec.description} {"" if spec.choices else spec.allowed}'.replace('%', '%%'),
        **how,
    )


def add_fusion_options(
    parser: argparse.ArgumentParser, default: str = 'the defaults of the node'
) -> None:
    """
    Add ``--preset``, and options of the parameters that say how to fuse and where.

    :param default: what the parameters are without ``--preset``, in words.
    """
    group = parser.add_argument_group('how to fuse', f'Parameters of {NODE}, under their names.')
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
    Return the parameters that the command line asks for.

    In ascending order: the defaults, the file of ``--preset``, the options of parameters.

    :raises UsageError: the file, or a value in it, cannot be used.
    """
    return {
        **(defaults or {}),
        **(load_parameters(args.preset) if args.preset is not None else {}),
        **given_parameters(args),
    }


def given_parameters(args: argparse.Namespace) -> dict[str, Any]:
    """Return the parameters that options of their own give, by name."""
    return {
        name: value
        for name, value in vars(args).items()
        if name in PARAMETERS_BY_NAME and value is not None
    }
