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
import math
import os
from pathlib import Path
import platform
import sys
import time
from typing import Any

from dig2dig_ros.evaluation.study import versions

# Decides how OpenMP's threads wait, and with that what a pair costs.
_VARIABLES = ('OMP_NUM_THREADS', 'OMP_WAIT_POLICY', 'GOMP_SPINCOUNT', 'MKL_NUM_THREADS')


def machine() -> dict[str, Any]:
    """
    Return what decides on the speed, besides the code: processor, threads, versions, variables.

    ``cuda`` names the GPUs, and is empty without torch.
    """
    facts: dict[str, Any] = {
        'cpu': _cpu_model(),
        'cpu_count': os.cpu_count(),
        'versions': versions(),
        'variables': {name: os.environ[name] for name in _VARIABLES if name in os.environ},
        'cuda': [],
    }
    torch = sys.modules.get('torch')
    if torch is not None:
        facts['torch_threads'] = torch.get_num_threads()
        gpus = range(torch.cuda.device_count())
        facts['cuda'] = [torch.cuda.get_device_name(index) for index in gpus]
    return facts


def _cpu_model() -> str:
    try:
        lines = Path('/proc/cpuinfo').read_text(encoding='utf-8').splitlines()
    except OSError:  # not Linux
        return platform.processor()
    names = [line.partition(':')[2].strip() for line in lines if line.startswith('model name')]
    return names[0] if names else platform.processor()


def busy_share(seconds: float) -> float:
    """
    Tell how much of the processor others use: watch it for so long, doing nothing.

    :return: 0 to 1, of all cores together; NaN where the system does not tell.
    """
    before = _processor_times()
    time.sleep(seconds)
    after = _processor_times()
    if before is None or after is None or after[1] <= before[1]:
        return math.nan
    return round(1 - (after[0] - before[0]) / (after[1] - before[1]), 3)


def _processor_times() -> tuple[int, int] | None:
    """Return idle and all ticks since the start of the system."""
    try:
        with Path('/proc/stat').open(encoding='utf-8') as file:
            ticks = [int(value) for value in file.readline().split()[1:9]]
    except (OSError, ValueError):
        return None
    return sum(ticks[3:5]), sum(ticks)


def origin(
    results: Sequence[Mapping[str, Any]], facts: Mapping[str, Any], busy: float = math.nan
) -> str:
    """
    Return in a line where and with what figures came about.

    :param results: each with ``about``, whose device and precision are named.
    :param facts: of :func:`machine`.
    :param busy: of :func:`busy_share`, before.
    """
    about = dict.fromkeys(
        ', '.join(row['about'][key] for key in ('device', 'precision'))
        for row in results
        if row.get('about', {}).get('device')
    )
    parts = [*about, facts['cpu']]
    parts += [
        f'{name} {number}' for name, number in facts['versions'].items() if name != 'machine'
    ]
    parts += [f'{name}={value}' for name, value in facts['variables'].items()]
    if math.isfinite(busy):
        parts.append(f'{busy:.0%} of the processor in use by others before')
    return '; '.join(parts)
