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
Entry points of commands that run a node, which end well on a signal that comes during the imports.

The imports take a second or more, and until rclpy is there a signal would end the process with a
traceback or as one that was killed. So signals are heard from here on, before anything else is
imported; the exit code is 0. What came even earlier, while the interpreter itself started, ends
the process as it ends any Python program: by the signal (-2 or -15), or with 1.
"""

from __future__ import annotations

from importlib import import_module
import os
import signal
from typing import Any

_has_begun = False


def begin() -> None:
    """From now on there is something to end, and rclpy hears the signals."""
    global _has_begun
    _has_begun = True


def _on_signal(number: int, frame: Any) -> None:
    if not _has_begun:
        # At once: an exception in the middle of an import may end up anywhere.
        os._exit(0)
    # Nothing more, not even for SIGINT: rclpy, whose handler calls this one, ends its context, and
    # the node ends with it. An exception might come up inside a destructor of C++ and abort.


def run_command(module: str) -> int:
    """
    Import a module and run its ``main``; from now on signals end the process well.

    :return: the exit code.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _on_signal)
    return int(import_module(module).main())


def fusion_node() -> int:
    """Run the fusion node."""
    return run_command('dig2dig_ros.nodes.fusion_node')
