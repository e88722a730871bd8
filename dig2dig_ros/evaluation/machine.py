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

"""What decides on the speed besides the code: the machine, its software, and who else uses it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import os
from pathlib import Path
import platform
import sys
from typing import Any

from dig2dig_ros.evaluation.study import versions

# Decides how OpenMP's threads wait, and with that what a pair costs.
_VARIABLES = ('OMP_NUM_THREADS', 'OMP_WAIT_POLICY', 'GOMP_SPINCOUNT', 'MKL_NUM_THREADS')


def machine() -> dict[str, Any]:
    """
    Return what decides on the speed, besides the code: processor, threads, versions, variables.

    ``load`` is the processes that ran or waited during the last minute, per core; ``cuda`` names
    the GPUs, and is empty without torch.
    """
    cores = os.cpu_count() or 1
    facts: dict[str, Any] = {
        'cpu': _cpu_model(),
        'cpu_count': cores,
        'load': round(os.getloadavg()[0] / cores, 2),
        'versions': versions(),
        'variables': {name: os.environ[name] for name in _VARIABLES if name in os.environ},
        'cuda': [],
    }
    torch = sys.modules.get('torch')
    if torch is not None:
        gpus = range(torch.cuda.device_count())
        facts['torch_threads'] = torch.get_num_threads()
        facts['cuda'] = [torch.cuda.get_device_name(index) for index in gpus]
    return facts


def _cpu_model() -> str:
    try:
        lines = Path('/proc/cpuinfo').read_text(encoding='utf-8').splitlines()
    except OSError:  # not Linux
        return platform.processor()
    names = [line.partition(':')[2].strip() for line in lines if line.startswith('model name')]
    return names[0] if names else platform.processor()


def origin(results: Sequence[Mapping[str, Any]], facts: Mapping[str, Any], load: float) -> str:
    """
    Return in a line where and with what figures came about.

    :param results: each with ``about``, whose device and precision are named.
    :param facts: of :func:`machine`.
    :param load: of the machine before.
    """
    about = dict.fromkeys(
        ', '.join(row['about'][key] for key in ('device', 'precision'))
        for row in results
        if row.get('about', {}).get('device')
    )
    versions = (f'{name} {v}' for name, v in facts['versions'].items() if name != 'machine')
    variables = (f'{name}={value}' for name, value in facts['variables'].items())
    return '; '.join([*about, facts['cpu'], *versions, *variables, f'load before {load:g}'])
