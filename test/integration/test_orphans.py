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

"""Processes that a tool starts, when the tool is killed."""

import os
from pathlib import Path
import signal
import subprocess
import sys
import time

import pytest

from integration.harness import environment

_TOOL = """
from pathlib import Path
import sys, time
from dig2dig_ros.nodes.child_processes import Child
child = Child('pair_camera', ['--ros-args', '-p', 'wait_for_subscribers:=600.0'],
              Path(sys.argv[1]))
print(child.pid, flush=True)
time.sleep(600)
"""


def ends(pid, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        # A container may have nobody who takes leave of orphans.
        stat = Path(f'/proc/{pid}/stat')
        if stat.exists() and stat.read_text().rpartition(')')[2].split()[0] == 'Z':
            return True
        time.sleep(0.05)
    return False


@pytest.mark.skipif(sys.platform != 'linux', reason='asks the kernel of Linux')
@pytest.mark.parametrize('is_up', [True, False])
def test_a_tool_that_is_killed_leaves_no_process_behind(domain, tmp_path, is_up):
    log = tmp_path / 'log'
    tool = subprocess.Popen(
        [sys.executable, '-c', _TOOL, str(log)],
        env=environment(domain),
        stdout=subprocess.PIPE,
        text=True,
    )
    pid = int(tool.stdout.readline())
    try:
        end = time.monotonic() + 60
        while is_up and 'waiting for' not in log.read_text() and time.monotonic() < end:
            time.sleep(0.05)
        tool.kill()
        tool.wait()
        assert ends(pid), log.read_text()
        assert 'Traceback' not in log.read_text()
    finally:
        tool.kill()
        tool.wait()
        if not ends(pid, 0.1):
            os.kill(pid, signal.SIGKILL)
