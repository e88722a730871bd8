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

"""Python code in a process of its own, such as what may crash or hang."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from typing import Any

# Loading OpenCV takes a second and torch several; many on a busy machine.
PATIENCE = 60.0
_NO_CORE_FILE = 'import resource\nresource.setrlimit(resource.RLIMIT_CORE, (0, 0))\n'
# Characters of an error's last line.
_MOST_CHARACTERS = 200


def python_command(program: str, *arguments: str) -> list[str]:
    """
    Return the command that runs Python code with this process's modules at hand.

    By itself, Python looks for the modules of such code in the working folder first, which may be
    anybody's.

    :param arguments: what the code finds in ``sys.argv[1:]``.
    """
    # An interactive Python has '' for the working folder.
    modules = [each or os.getcwd() for each in sys.path if isinstance(each, str)]
    # Since Python 3.13, it imports a module before the first line of the code.
    safe = ['-P'] if sys.version_info >= (3, 11) else []
    program = f'import sys\nsys.path[:] = {modules!a}\n{program}'
    return [sys.executable, *safe, '-c', program, *arguments]


def attempt(program: str, patience: float = PATIENCE) -> tuple[str, str]:
    """
    Run Python code, with this process's modules at hand.

    :param patience: seconds it may take.
    :return: its output, and ''; or '', and how it failed, to follow the name of what was tried:
        'crashes (SIGSEGV)'.
    """
    try:
        done = subprocess.run(
            python_command(_NO_CORE_FILE + program),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=patience,
        )
    except subprocess.TimeoutExpired:
        return '', f'does not answer within {patience:g} s'
    except (OSError, ValueError) as error:
        return '', f'could not be tried ({error})'
    if done.returncode == 0:
        return done.stdout.decode('utf-8', 'replace'), ''
    if done.returncode < 0:
        try:
            name = signal.Signals(-done.returncode).name
        except ValueError:
            name = f'signal {-done.returncode}'
        return '', f'crashes ({name})'
    lines = done.stderr.decode('utf-8', 'replace').strip().splitlines()
    return '', f'does not work ({_readable(lines[-1]) if lines else "no reason given"})'


def ask(module: str, function: str, patience: float = PATIENCE) -> tuple[dict[str, Any], str]:
    """
    Call a function that returns what JSON can hold.

    :param module: imported by the new process.
    :return: its result, and ''; or nothing, and how it failed, see :func:`attempt`.
    """
    printed, failure = attempt(
        f'import json\nfrom {module} import {function}\nanswer = json.dumps({function}())\n'
        'print()\nprint(answer)',
        patience,
    )
    if failure:
        return {}, failure
    try:
        answer = json.loads(printed.splitlines()[-1])
    except (IndexError, ValueError):  # a library printed something at its end
        return {}, 'does not work (it gives no answer)'
    return dict(answer), ''


def _readable(line: str) -> str:
    """Return an error without the time and source locations that ROS adds."""
    line = re.sub(r'^(\[[^\]]*\] ?)+: ', '', line)
    return re.sub(r', at \S+:\d+$', '', line)[:_MOST_CHARACTERS]
