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

"""Run the node of a process until it is done or a signal comes, and end it cleanly."""

from __future__ import annotations

from collections.abc import Callable
import os
import re
import signal
from typing import TypeVar

import rclpy
from rclpy._rclpy_pybind11 import RCLError, UnknownROSArgsError
from rclpy.exceptions import (
    InvalidParameterTypeException,
    InvalidParameterValueException,
    ParameterUninitializedException,
)
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import uninstall_signal_handlers

from dig2dig_ros.nodes.signals import begin

NodeT = TypeVar('NodeT', bound=Node)

_LOG_PERIOD = 5.0
_BAD_PARAMETERS = (
    InvalidParameterTypeException,
    InvalidParameterValueException,
    ParameterUninitializedException,
)


class SteadyExecutor(SingleThreadedExecutor):  # type: ignore[misc]
    """
    Continues after a callback has failed.

    Callbacks that are not ours fail, too: rclpy raises for a clock before 1970 and for a parameter
    of an unknown type, which anybody on the network can send.
    """

    def spin_once(self, timeout_sec: float | None = None) -> None:
        """Execute one callback; log what it raises."""
        try:
            super().spin_once(timeout_sec)
        except (ExternalShutdownException, RCLError):
            # After the latter, raised on taking a message, rclpy would never call anything again.
            raise
        except Exception as error:
            if not self.context.ok():
                raise
            rclpy.logging.get_logger('dig2dig').error(
                f'a callback failed and was skipped: {type(error).__name__}: {error}',
                throttle_duration_sec=_LOG_PERIOD,
            )


def run_node(
    create: Callable[[], NodeT],
    run: Callable[[NodeT, SingleThreadedExecutor], None],
    finish: Callable[[NodeT], str],
    args: list[str] | None = None,
    refusals: tuple[type[Exception], ...] = (),
) -> int:
    """
    Create a node, run it until it is done or interrupted, and end it.

    :param create: makes the node.
    :param run: runs it; the executor holds the node.
    :param finish: stops the node's work and returns a line on what it did. Called again if a
        signal interrupts it.
    :param refusals: exceptions that say in one sentence what the user has to correct.
    :return: the process's exit code: 0, or 1 for a bad parameter or one of ``refusals``.
    """
    node: NodeT | None = None
    code = 0
    begun = False
    try:
        try:
            rclpy.init(args=args)
        except (RCLError, UnknownROSArgsError) as error:
            # Without the source locations in rcl.
            text = re.sub(r', at \S+:\d+', '', str(error))
            rclpy.logging.get_logger('dig2dig').fatal(f'ROS refuses the command line: {text}')
            return 1
        begin()
        begun = True
        node = create()
        executor = SteadyExecutor()
        executor.add_node(node)
        run(node, executor)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except (*_BAD_PARAMETERS, *refusals) as error:
        rclpy.logging.get_logger('dig2dig').fatal(str(error))
        code = 1
    except Exception:
        # A signal may end the context inside rclpy, which then raises various errors.
        if rclpy.ok() or not begun:
            code = 1
            raise
    finally:
        code = _end(node, finish, code)
    return code


def _end(node: NodeT | None, finish: Callable[[NodeT], str], code: int) -> int:
    """
    Finish even if more signals come: a terminal and a launch file both send one.

    :param code: the exit code.
    :return: the same, or 1 if ending failed.
    """
    # Not the node's own logger, whose topic ends with the context.
    logger = rclpy.logging.get_logger('dig2dig')
    while True:
        try:
            # Before, because shutting rclpy down would restore the former handlers.
            uninstall_signal_handlers()
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)
            if node is not None:
                summary = finish(node)
                node.destroy_node()
                logger.info(summary)
            if rclpy.ok():
                rclpy.shutdown()
        except KeyboardInterrupt:
            continue  # it came before signals were ignored
        except TimeoutError as error:
            logger.warning(str(error))
            # The interpreter must not be shut down while a thread computes.
            os._exit(code)
        except Exception as error:  # the process still ends, and says why
            logger.error(f'not shut down cleanly: {type(error).__name__}: {error}')
            return code or 1
        return code
