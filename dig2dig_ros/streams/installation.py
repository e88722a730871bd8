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
Checks of what the package needs on this machine: Python, NumPy, OpenCV, torch, and devices.

Each is tried in a separate process, so that a broken one only affects its own line. This module
can be imported without any of them.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
import importlib.util
import os
from pathlib import Path
import platform
import shutil
import sys
from typing import Any

import dig2dig_ros
from dig2dig_ros.streams.trial import ask

# Files that show that there is the driver of an NVIDIA GPU, or a Jetson.
_NVIDIA = (
    Path('/proc/driver/nvidia/version'),
    Path('/etc/nv_tegra_release'),
    Path('/dev/nvhost-gpu'),
)


@dataclass(frozen=True)
class Finding:
    """
    The result of a check, and what to do about problems.

    :param name: of the check, a word or two.
    :param advice: a sentence for each problem.
    """

    name: str
    found: str
    advice: tuple[str, ...] = ()


def find_python() -> Finding:
    """Return the versions of package, Python and system."""
    environment = ' (virtual environment)' * (sys.prefix != sys.base_prefix)
    place = Path(dig2dig_ros.__file__).parent
    return Finding(
        'Python',
        f'{platform.python_version()}, {sys.executable}{environment}; '
        f'dig2dig {dig2dig_ros.__version__} in {place}; {_system()}',
    )


def _system() -> str:
    try:
        name = platform.freedesktop_os_release()['PRETTY_NAME']
    except (OSError, KeyError):
        name = platform.system()
    facts = [name, platform.machine(), _line('/proc/cpuinfo', 'model name')]
    return ', '.join(filter(None, [*facts, _line(_NVIDIA[0], 'NVRM version')]))


def _line(path: str | Path, name: str) -> str:
    """Return the value of the first line ``name: value`` of a file; empty if there is none."""
    with suppress(OSError), open(path, encoding='utf-8', errors='replace') as lines:
        for line in lines:
            if line.startswith(name):
                return ' '.join(line.partition(':')[2].split())
    return ''


def find_opencv() -> Finding:
    """Return the versions of OpenCV and NumPy, and what to do if they do not work."""
    if importlib.util.find_spec('cv2') is None:
        return Finding(
            'OpenCV',
            'not installed',
            ("install python3-opencv with apt, or pip install 'opencv-python-headless>=4.6,<6'",),
        )
    facts, failure = ask(__name__, 'opencv_facts')
    if failure:
        return Finding(
            'OpenCV',
            failure,
            (
                'OpenCV and NumPy are incompatible, or a library is missing: pip install '
                "'opencv-python-headless>=4.6,<6' (Humble: also 'numpy>=1.26,<2')",
            ),
        )
    return Finding('OpenCV', f'{facts["opencv"]}, NumPy {facts["numpy"]}')


def opencv_facts() -> dict[str, Any]:
    """Return the facts for a process that loads OpenCV."""
    import cv2
    import numpy as np

    # Built for another NumPy, it may load and then fail with the first array.
    cv2.cvtColor(np.zeros((2, 2, 3), np.uint8), cv2.COLOR_BGR2GRAY)
    return {'opencv': cv2.__version__, 'numpy': np.__version__}


def find_torch() -> list[Finding]:
    """Return torch and its build, and the device that the node would use."""
    if importlib.util.find_spec('torch') is None:
        return [
            Finding(
                'torch',
                f'not installed for {sys.executable}',
                (
                    'install PyTorch for this interpreter (docs/install.md says which build), or '
                    'activate the virtual environment that has it',
                ),
            )
        ]
    facts, failure = ask(__name__, 'torch_facts')
    if failure:
        advice = f'torch {failure}: reinstall it, in a build for this processor and Python'
        return [Finding('torch', 'installed, but it cannot be used', (advice,))]
    denoiser = []
    if facts['prior']:
        denoiser = [
            f'the embedded denoisers do not load ({facts["prior"]}): pip install safetensors, or '
            'reinstall dig2dig'
        ]
    return [
        Finding('torch', f'{facts["version"]}, built for {facts["build"]}', tuple(denoiser)),
        Finding('device', facts['device'], tuple(_device_advice(facts))),
    ]


def _device_advice(facts: dict[str, Any]) -> list[str]:
    if facts['devices'] or not (shutil.which('nvidia-smi') or any(p.exists() for p in _NVIDIA)):
        return [f'{name} cannot be used: {why}' for name, why in facts['broken'].items()]
    if facts['build'] != 'the CPU':
        return [
            f'there is an NVIDIA driver, but CUDA does not start ({facts["reason"]}): install the '
            'build of torch that pytorch.org names for this driver, or a newer driver'
        ]
    if platform.machine() == 'x86_64':  # whose wheels on PyPI are built for CUDA
        release = f'torch=={str(facts["version"]).partition("+")[0]}'
        build = f'{sys.executable} -m pip install --force-reinstall {release} brings one for CUDA'
    else:
        build = 'install the one that pytorch.org names for the driver (docs/install.md)'
    return [f'there is an NVIDIA driver, but this torch is built for the CPU: {build}']


def torch_facts() -> dict[str, Any]:
    """Return the facts for a process that loads torch and a denoiser."""
    import torch

    from dig2dig_ros.fusion.device import (
        describe_device,
        PRECISIONS,
        resolve_device,
        resolve_precision,
    )

    names, broken, reason = [], {}, ''
    for index in range(torch.cuda.device_count()):
        name = f'cuda:{index} ({torch.cuda.get_device_name(index)})'
        names.append(name)
        try:
            torch.zeros(8, device=f'cuda:{index}').sum().item()
        except RuntimeError as error:
            broken[name] = str(error).splitlines()[0]
    if not names and torch.version.cuda:
        try:
            torch.cuda.init()  # type: ignore[no-untyped-call]
        except (AssertionError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
    device = resolve_device('auto')
    dtype = resolve_precision('auto', device)
    precision = next(name for name, its_dtype in PRECISIONS.items() if its_dtype == dtype)
    others = ''.join(f', {name}' for name in names[1:])
    return {
        'version': torch.__version__,
        'build': f'CUDA {torch.version.cuda}' if torch.version.cuda else 'the CPU',
        'device': f'{describe_device(device)}{others}, {precision}; {os.cpu_count()} CPU cores',
        'devices': names,
        'broken': broken,
        'reason': reason,
        'prior': _prior_problem(),
    }


def _prior_problem() -> str:
    """Return why the smaller embedded denoiser does not load; empty if it does."""
    try:
        from dig2dig_ros.priors import load_prior

        load_prior('nano')
    except Exception as error:  # any error is what the user has to know
        return str(error).splitlines()[0]
    return ''
