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

"""The processes that a tool starts: nodes and other tools. Importable without ROS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import ctypes
from importlib import import_module
import json
import os
from pathlib import Path
import signal
import subprocess
import sys
from typing import Any, NoReturn

from dig2dig_ros.errors import Refusal
from dig2dig_ros.resources import fast_dds_environment
from dig2dig_ros.streams.trial import python_command

STOP_SECONDS = 20.0


class ProcessError(Refusal, RuntimeError):
    """A process does not do what it should; the message says what, with its last lines."""

    exit_code = 1


def middleware_environment(domain_id: int) -> dict[str, str]:
    """
    Return the variables that keep a tool's processes to themselves, on Fast DDS.

    The profile with the large shared-memory segment is the shipped one unless the user has one.
    """
    variables = {
        'ROS_DOMAIN_ID': str(domain_id),
        'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST',
        'RMW_IMPLEMENTATION': 'rmw_fastrtps_cpp',
        # Waiting threads that spin take cores away from other processes.
        'OMP_WAIT_POLICY': os.environ.get('OMP_WAIT_POLICY', 'PASSIVE'),
        'PYTHONUNBUFFERED': '1',
    }
    if os.environ.get('ROS_DISTRO') == 'humble':
        variables['ROS_LOCALHOST_ONLY'] = '1'  # it does not know the discovery range yet
    variables.update(fast_dds_environment())
    return variables


def enter_domain(domain_id: int | None = None) -> int:
    """
    Keep this process and its children to themselves: see :func:`middleware_environment`.

    :param domain_id: of ROS, 0 to 101; without one, it is made from the process id, to stay away
        from whatever else runs.
    :return: the domain.
    """
    if domain_id is None:
        # Domain 0 is everybody's; above 101 the ports collide with short-lived ones.
        domain_id = 1 + os.getpid() % 101
    os.environ.update(middleware_environment(domain_id))
    return domain_id


class Child:
    """
    One of the package's commands as a process of its own, its output in a file.

    It ends with this process, whatever ends that, SIGKILL among it. To be started by a thread that
    stays: the kernel takes the thread for the process.

    :param name: of an executable, such as ``fusion_node``, or with its subcommand, such as
        ``dig2dig calibrate``.
    :param arguments: of the command line.
    :param log: where its output goes.
    """

    def __init__(self, name: str, arguments: Sequence[str], log: Path) -> None:
        self.name = name
        self._log = log
        parent = str(os.getpid())
        program = f'from {__name__} import run_child\nrun_child()'
        command = python_command(program, parent, *name.split(), *arguments)
        with log.open('wb') as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # Ctrl-C is for the tool, which then stops its children in good order.
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process has not ended."""
        return self._process.poll() is None

    def output(self) -> str:
        """Return what the process printed so far."""
        return self._log.read_text(encoding='utf-8', errors='replace')

    def require_running(self) -> None:
        """Raise a ProcessError with its last lines where the process has ended."""
        if not self.running:
            raise ProcessError(self.describe(f'ended by itself with code {self.code}'))

    @property
    def code(self) -> int | None:
        """The exit code, or nothing while the process runs."""
        return self._process.returncode

    def require_success(self) -> None:
        """Raise a ProcessError with its last lines where the process ended with another code."""
        if self.code != 0:
            raise ProcessError(self.describe(f'ended with code {self.code}'))

    def stop(self) -> None:
        """
        Interrupt the process as Ctrl-C does and wait for its end; kill it if it does not come.

        :raises ProcessError: it had to be killed; with its last lines.
        """
        if not self.running:
            return
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            text = f'did not end within {STOP_SECONDS:.0f} s of Ctrl-C'
            raise ProcessError(self.describe(text)) from None

    def kill(self) -> None:
        """End the process at once."""
        if self.running:
            self._process.kill()
            self._process.wait()

    def describe(self, what: str) -> str:
        """Say what is wrong with the process, with the last lines that it printed."""
        lines = self.output().strip().splitlines()[-15:]
        tail = '\n'.join(f'    {line}' for line in lines) or '    (it printed nothing)'
        return f'{self.name} {what}. Its last lines (all of them: {self._log}):\n{tail}'


def assignments(node: str, values: Mapping[str, Any]) -> list[str]:
    """
    Return ROS arguments that set parameters of ``node``.

    With the node's name, as an assignment without one gives way to a file that has it.
    """
    # JSON is YAML, and keeps a text that looks like a number a text.
    texts = {name: json.dumps(value, ensure_ascii=False) for name, value in values.items()}
    return [word for name, text in texts.items() for word in ('-p', f'{node}:{name}:={text}')]


# Run by the child itself: code between fork and exec may hang in a process with threads.

_PR_SET_PDEATHSIG = 1


def run_child() -> NoReturn:
    """
    Be a :class:`Child`: run the executable that the command line names, and end with the parent.

    :raises SystemExit: at its end, with its exit code.
    """
    _, parent, *sys.argv = sys.argv
    if sys.platform == 'linux':
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != int(parent):  # it ended before
            sys.exit(1)
    executables = import_module('dig2dig_ros.tools.entry_points')
    sys.exit(getattr(executables, sys.argv[0])())
