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

"""The scripts set up an environment that fits, or end with a clear message."""

from collections.abc import Callable
import json
import os
from pathlib import Path
import platform
import shutil
import subprocess
import sys

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / 'scripts'

pytestmark = pytest.mark.skipif(
    not SCRIPTS.is_dir() or shutil.which('bash') is None, reason='needs the checkout and bash'
)

where_wheels_exist = pytest.mark.skipif(
    sys.platform != 'linux' or platform.machine() != 'x86_64',
    reason='elsewhere the scripts stop earlier: ROS 2 has no wheels',
)

Runner = Callable[..., 'subprocess.CompletedProcess[str]']


@pytest.fixture
def run(tmp_path: Path) -> Runner:
    """Return a function that runs a copy of demo.sh, in a folder with a space in its name."""
    checkout = tmp_path / 'check out'
    shutil.copytree(SCRIPTS, checkout / 'scripts')

    def runner(**variables: str) -> 'subprocess.CompletedProcess[str]':
        private = ('DIG2DIG_', 'ROS_', 'AMENT_', 'PIP_', 'PYTHON', '_ROS_')
        environment = {k: v for k, v in os.environ.items() if not k.startswith(private)}
        environment['PIP_CONFIG_FILE'] = os.devnull
        return subprocess.run(
            ['bash', str(checkout / 'scripts' / 'demo.sh')],
            env=environment | {'PYTHON': sys.executable} | variables,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return runner


# Notes what it is asked to install, and fails if that comes from the index $UNREACHABLE.
PIP = """
import os, subprocess, sys

if sys.argv[1] == 'install':
    with open(os.path.join(sys.prefix, 'installed'), 'a') as log:
        print(*sys.argv[2:], file=log)
    sys.exit(os.environ.get('UNREACHABLE') in sys.argv)
sys.exit(subprocess.call([{python!r}, '-m', 'pip', *sys.argv[1:]]))
"""


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """Create an environment whose pip only notes what it is to install."""
    folder = tmp_path / 'environment'
    subprocess.run([sys.executable, '-m', 'venv', '--without-pip', str(folder)], check=True)
    pip = site_packages(folder) / 'pip'
    pip.mkdir()
    (pip / '__init__.py').touch()
    (pip / '__main__.py').write_text(PIP.format(python=sys.executable))
    return folder


def site_packages(environment: Path) -> Path:
    (found,) = environment.glob('lib/python*/site-packages')
    return found


def installed(environment: Path) -> list[str]:
    """Return what pip was asked to install, PyTorch first, without the options for silence."""
    log = environment / 'installed'
    return log.read_text().replace('--quiet --quiet ', '').splitlines() if log.exists() else []


def belongs_to(environment: Path, checkout: Path) -> None:
    """Note in the environment what pip notes when it installs a checkout."""
    information = site_packages(environment) / 'dig2dig-0.1.0.dist-info'
    information.mkdir()
    (information / 'METADATA').write_text('Metadata-Version: 2.1\nName: dig2dig\nVersion: 0.1.0\n')
    source = {'url': checkout.as_uri(), 'dir_info': {'editable': True}}
    (information / 'direct_url.json').write_text(json.dumps(source))


def fails_with(result: 'subprocess.CompletedProcess[str]', *words: str) -> None:
    assert result.returncode == 1
    assert result.stdout == ''
    for word in words:
        assert word in result.stderr
    assert 'Traceback' not in result.stderr


def test_python_that_is_not_there(run: Runner) -> None:
    fails_with(run(PYTHON='/nowhere/python3'), "'/nowhere/python3', which does not exist")


def test_python_that_is_too_old(run: Runner, tmp_path: Path) -> None:
    old = tmp_path / 'python3.8'
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.8.10 && exit\nexit 1\n')
    old.chmod(0o755)
    fails_with(run(PYTHON=str(old)), 'Python 3.8.10', 'needs Python 3.10 to 3.14')


def test_ros_that_this_python_cannot_import(run: Runner) -> None:
    fails_with(run(ROS_DISTRO='jazzy'), 'ROS 2 jazzy is sourced', 'PYTHON=/usr/bin/python3')


@where_wheels_exist
def test_missing_venv_module(run: Runner, tmp_path: Path) -> None:
    # As on Debian without python3-venv: venv is there, ensurepip is not.
    blocked = tmp_path / 'blocked'
    blocked.mkdir()
    (blocked / 'ensurepip.py').write_text('raise ImportError')
    fails_with(run(PYTHONPATH=str(blocked)), 'sudo apt install python3-venv')
    assert not (tmp_path / 'check out' / '.venv').exists()


@where_wheels_exist
def test_folder_of_somebody_else_is_left_alone(run: Runner, tmp_path: Path) -> None:
    folder = tmp_path / 'mine'
    folder.mkdir()
    (folder / 'thesis.txt').write_text('keep me')
    fails_with(run(DIG2DIG_VENV=str(folder)), 'not a virtual environment', 'DIG2DIG_VENV')
    assert [p.name for p in folder.iterdir()] == ['thesis.txt']


CPU = 'https://download.pytorch.org/whl/cpu'

without_driver = pytest.mark.skipif(
    Path('/proc/driver/nvidia/version').exists() or shutil.which('nvidia-smi') is not None,
    reason='needs a machine without an NVIDIA driver',
)


@pytest.mark.slow
@where_wheels_exist
@without_driver
def test_cpu_build_where_there_is_no_driver(run: Runner, environment: Path) -> None:
    result = run(DIG2DIG_VENV=str(environment))
    assert installed(environment)[0] == f'torch==2.13.0 --index-url {CPU}'
    assert f'{environment.parent / "check out"}[ros,' in installed(environment)[1]
    assert 'No NVIDIA driver found: taking the CPU build' in result.stderr


@pytest.mark.slow
@where_wheels_exist
@without_driver
def test_build_of_pypi_where_pytorch_org_cannot_be_reached(run: Runner, environment: Path) -> None:
    result = run(DIG2DIG_VENV=str(environment), UNREACHABLE=CPU)
    assert installed(environment)[:2] == [f'torch==2.13.0 --index-url {CPU}', 'torch==2.13.0']
    assert 'did not work: taking the build with CUDA from PyPI instead' in result.stderr


@pytest.mark.slow
@where_wheels_exist
@pytest.mark.parametrize(
    'variables',
    [
        {'DIG2DIG_TORCH': 'torch==2.12.1 --pre'},
        {'PIP_INDEX_URL': 'https://mirror.example/simple'},
        {'PIP_FIND_LINKS': '/srv/wheels'},
    ],
    ids=lambda variables: next(iter(variables)),
)
def test_own_choice_of_build_or_index_is_kept(
    run: Runner, environment: Path, variables: dict[str, str]
) -> None:
    result = run(DIG2DIG_VENV=str(environment), **variables)
    assert installed(environment)[0] == variables.get('DIG2DIG_TORCH', 'torch==2.13.0')
    assert 'CPU build' not in result.stderr


@pytest.mark.slow
@where_wheels_exist
def test_build_of_pypi_where_there_is_a_driver(
    run: Runner, environment: Path, tmp_path: Path
) -> None:
    tools = tmp_path / 'tools'
    tools.mkdir()
    (tools / 'nvidia-smi').symlink_to(shutil.which('true') or '')
    run(DIG2DIG_VENV=str(environment), PATH=f'{tools}:{os.environ["PATH"]}')
    assert installed(environment)[0] == 'torch==2.13.0'


@where_wheels_exist
def test_environment_of_another_checkout_is_left_alone(
    run: Runner, environment: Path, tmp_path: Path
) -> None:
    other = tmp_path / 'another check out'
    other.mkdir()
    (other / 'setup.py').touch()
    belongs_to(environment, other)
    result = run(DIG2DIG_VENV=str(environment))
    fails_with(result, f'belongs to another checkout: {other}.', 'DIG2DIG_VENV=', 'uninstall')
    assert installed(environment) == []


@where_wheels_exist
@pytest.mark.parametrize('owner', ['check out', 'moved away'])
def test_environment_of_this_checkout_is_used_as_is_one_of_a_checkout_that_is_gone(
    run: Runner, environment: Path, tmp_path: Path, owner: str
) -> None:
    (tmp_path / 'check out' / 'setup.py').touch()
    belongs_to(environment, tmp_path / owner)
    run(DIG2DIG_VENV=str(environment), DIG2DIG_TORCH='torch==2.12.1')
    assert installed(environment)[0] == 'torch==2.12.1'
