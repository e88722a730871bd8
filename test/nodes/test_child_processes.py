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

"""Processes that a tool starts."""

from pathlib import Path
import sys
import time

import pytest

from dig2dig_ros.nodes.child_processes import (
    assignments,
    Child,
    middleware_environment,
    ProcessError,
)


def test_own_fast_dds_profile_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ('FASTDDS_DEFAULT_PROFILES_FILE', 'FASTRTPS_DEFAULT_PROFILES_FILE'):
        monkeypatch.delenv(name, raising=False)
    shipped = middleware_environment(42)
    assert Path(shipped['FASTDDS_DEFAULT_PROFILES_FILE']).is_file()
    assert shipped['ROS_DOMAIN_ID'] == '42'
    assert shipped['ROS_AUTOMATIC_DISCOVERY_RANGE'] == 'LOCALHOST'
    monkeypatch.setenv('FASTRTPS_DEFAULT_PROFILES_FILE', '/home/me/mine.xml')
    assert not [key for key in middleware_environment(42) if 'PROFILES' in key]


def test_assignments_are_those_of_one_node() -> None:
    assert assignments('camera', {'loop': False, 'size': [4, 3], 'name': '7'}) == [
        *('-p', 'camera:loop:=false'),
        *('-p', 'camera:size:=[4, 3]'),
        *('-p', 'camera:name:="7"'),
    ]


def test_modules_of_the_working_folder_are_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (*sys.stdlib_module_names, 'numpy', 'torch'):
        (tmp_path / f'{name}.py').write_text('raise SystemExit("from the working folder")\n')
    monkeypatch.chdir(tmp_path)
    child = Child('dig2dig fuse', ['--help'], tmp_path / 'log')
    end = time.monotonic() + 60
    while child.running and time.monotonic() < end:
        time.sleep(0.05)
    child.require_success()
    assert child.output().startswith('usage: dig2dig fuse')


def test_a_process_that_fails_says_its_last_words(tmp_path: Path) -> None:
    child = Child('dig2dig fuse', ['--no-such-option'], tmp_path / 'log')
    end = time.monotonic() + 60
    while child.running and time.monotonic() < end:
        time.sleep(0.05)
    with pytest.raises(
        ProcessError, match=r'(?s)dig2dig fuse ended by itself with code 2.*usage:'
    ):
        child.require_running()
    with pytest.raises(ProcessError, match='ended with code 2'):
        child.require_success()
    child.stop()  # there is nothing left to stop
