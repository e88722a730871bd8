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

"""The scripts that set up an environment end with a clear message where they cannot."""

from collections.abc import Callable
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
    reason='elsewhere the missing wheels are told first',
)

Runner = Callable[..., 'subprocess.CompletedProcess[str]']


@pytest.fixture
def run(tmp_path: Path) -> Runner:
    """Return a function that runs a copy of demo.sh, in a folder with a space in its name."""
    checkout = tmp_path / 'check out'
    shutil.copytree(SCRIPTS, checkout / 'scripts')

    def runner(**variables: str) -> 'subprocess.CompletedProcess[str]':
        private = ('DIG2DIG_', 'ROS_', 'AMENT_', 'PYTHON', '_ROS_')
        environment = {k: v for k, v in os.environ.items() if not k.startswith(private)}
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


def fails_with(result: 'subprocess.CompletedProcess[str]', *words: str) -> None:
    assert result.returncode == 1
    assert result.stdout == ''
    for word in words:
        assert word in result.stderr
    assert 'Traceback' not in result.stderr


def test_python_that_is_not_there(run: Runner) -> None:
    fails_with(run(PYTHON='/nowhere/python3'), "'/nowhere/python3', which is not there")


def test_python_that_is_too_old(run: Runner, tmp_path: Path) -> None:
    old = tmp_path / 'python3.8'
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.8.10 && exit\nexit 1\n')
    old.chmod(0o755)
    fails_with(run(PYTHON=str(old)), 'Python 3.8.10', 'needs Python 3.10, 3.11, 3.12 or 3.13')


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
