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

"""The command dig2dig finds its subcommands, and is quick where it needs none."""

import os
from pathlib import Path
import subprocess
import sys

import pytest

from dig2dig_ros import __version__
from dig2dig_ros.tools.entry_points import COMMANDS, dig2dig

CHECKOUT = Path(__file__).resolve().parents[2]
NAMES = [command.name for command in COMMANDS]


@pytest.mark.parametrize('name', NAMES)
def test_every_subcommand_has_help_and_loads_what_it_needs(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in ('cv2', 'rclpy', 'rosbags', 'torch'):
        pytest.importorskip(module)
    with pytest.raises(SystemExit) as end:
        dig2dig([*name.split(), '--help'])
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith(f'usage: dig2dig {name} ')


@pytest.mark.parametrize(
    ('name', 'missing'),
    [('demo', 'sensor_msgs'), ('play', 'builtin_interfaces'), ('train', 'torch')],
)
def test_a_subcommand_that_misses_a_package_says_which(
    name: str, missing: str, tmp_path: Path
) -> None:
    code = f'raise ModuleNotFoundError("No module named {missing!r}")'
    (tmp_path / f'{missing}.py').write_text(code, encoding='utf-8')
    done = subprocess.run(
        [sys.executable, '-m', 'dig2dig_ros', name],
        env={**os.environ, 'PYTHONPATH': os.pathsep.join([str(tmp_path), str(CHECKOUT)])},
        capture_output=True,
        text=True,
        timeout=60,
    )
    line = f"dig2dig {name}: No module named '{missing}': dig2dig doctor says what is missing\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, '', line)


def test_help_lists_the_subcommands_and_imports_none_of_them() -> None:
    code = (
        'import sys\nfrom dig2dig_ros.tools.entry_points import dig2dig\n'
        "try:\n    dig2dig(['--help'])\n"
        'finally:\n'
        "    heavy = {'cv2', 'numpy', 'rclpy', 'torch'} & sys.modules.keys()\n"
        "    print('imported', heavy or 'nothing')\n"
    )
    done = subprocess.run(
        [sys.executable, '-c', code],
        env={**os.environ, 'PYTHONPATH': str(CHECKOUT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, '')
    assert done.stdout.endswith('imported nothing\n')
    listed = done.stdout.split('commands:\n')[1].splitlines()
    for name, line in zip(NAMES, listed, strict=False):
        assert line.startswith(f'  {name} ')


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        dig2dig(['--version'])
    assert (end.value.code, capsys.readouterr().out) == (0, f'{__version__}\n')


def test_without_a_subcommand_they_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert dig2dig([]) == 2
    assert '  calibrate ' in capsys.readouterr().err
    assert dig2dig(['dev']) == 2
    listed = capsys.readouterr().err
    assert '  dev registration ' in listed
    assert '  calibrate ' not in listed


@pytest.mark.parametrize(
    ('words', 'sentence'),
    [
        (['evalute'], 'evalute is not a command; did you mean evaluate?'),
        (['dev', 'registry'], 'registry is not a command; did you mean dev registration?'),
        (['x'], f'x is not a command; choose from {", ".join(NAMES)}'),
    ],
)
def test_what_is_no_subcommand_is_refused(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        dig2dig(words)
    assert end.value.code == 2
    assert sentence in capsys.readouterr().err
