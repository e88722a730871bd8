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

"""The arguments of a fuser: the presets shipped in config/, and type checks."""

from __future__ import annotations

import os
from typing import Any

import torch

from dig2dig_ros.fusion.parameter_spec import nearest_name
from dig2dig_ros.fusion.settings import FusionSettings, SETTINGS
from dig2dig_ros.images.plain_yaml import ros_parameters
from dig2dig_ros.priors import EMBEDDED_PRIORS, Prior
from dig2dig_ros.resources import config_file

PRESETS = ('fusion', 'realtime', 'paper', 'multi_focus', 'multi_exposure')
_GROUP = 'fusion.'


def load_preset(name: str) -> tuple[FusionSettings, dict[str, Any]]:
    """
    Read a shipped preset.

    :return: the settings, and its other values for a fuser: ``prior``, ``device``, ``precision``
        and ``num_threads``.
    :raises ValueError: there is no preset of this name.
    :raises FileNotFoundError: it is not installed.
    """
    if name not in PRESETS:
        nearest = nearest_name(name, PRESETS)
        raise ValueError(
            f"there is no preset '{name}': "
            + (f"did you mean '{nearest}'?" if nearest else f'use one of {", ".join(PRESETS)}')
        )
    values = ros_parameters(config_file(f'{name}.yaml'), 'fusion_node')
    given = {setting: _GROUP + setting for setting in SETTINGS}
    settings = {
        setting: SETTINGS[setting].checked(values[key])
        for setting, key in given.items()
        if key in values
    }
    where = ('prior', 'device', 'precision', 'num_threads')
    return FusionSettings(**settings), {key: values[key] for key in where if key in values}


def check_fuser_arguments(settings: object, prior: object, device: object) -> None:
    """
    Check the arguments of a fuser.

    :raises TypeError: one has a wrong type; the message says what to pass.
    """
    if isinstance(settings, str):
        if settings in EMBEDDED_PRIORS or os.path.exists(settings):
            raise TypeError(f"for a denoiser, call Fuser(prior='{settings}')")
        raise TypeError(f"for a preset, call Fuser.from_preset('{settings}')")
    if settings is not None and not isinstance(settings, FusionSettings):
        raise TypeError(
            f'settings must be FusionSettings, not {type(settings).__name__}: for example, '
            'Fuser(FusionSettings(thermal_strength=0.6))'
        )
    if not isinstance(prior, (str, os.PathLike, Prior)):
        raise TypeError(
            f'prior is of type {type(prior).__name__}: pass the name or the path of a denoiser, '
            f'such as {EMBEDDED_PRIORS[0]}, or a Prior'
        )
    if not isinstance(device, (str, torch.device)):
        raise TypeError(
            f"device is of type {type(device).__name__}: pass 'auto', 'cpu', 'cuda' or 'cuda:0'"
        )
