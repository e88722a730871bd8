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

"""Signals of the tools. Importable without ROS."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
import signal
import threading
from types import FrameType


def interrupt_on_termination() -> None:
    """
    Make of SIGTERM and SIGHUP the KeyboardInterrupt that SIGINT is.

    A closed terminal or a supervisor's request must not leave a tool's processes behind.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)


@contextmanager
def deferred_signals() -> Iterator[None]:
    """
    Let signals that come in this block take their effect at its end.

    A KeyboardInterrupt in the midst of rclpy can be lost, in a destructor of C++ for example,
    and the tool would go on; so messages are taken in such blocks, each a short one.
    """
    if threading.current_thread() is not threading.main_thread():  # which alone handles signals
        yield
        return
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)

    previous = {
        number: signal.signal(number, note)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        for earlier in came:
            signal.raise_signal(earlier)


@contextmanager
def interruption(on_request: Callable[[], None] = lambda: None) -> Iterator[threading.Event]:
    """
    Take the first SIGINT (Ctrl-C) as the wish to end with what there is.

    The next raises KeyboardInterrupt. Outside the main thread, which alone gets signals, they are
    left alone.

    :param on_request: called with the first one.
    :return: set by the first one.
    """
    requested = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield requested
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if requested.is_set():
            raise KeyboardInterrupt
        requested.set()
        on_request()

    previous = signal.signal(signal.SIGINT, handle)
    try:
        yield requested
    finally:
        # None: it was not set by Python, and Python cannot put it back.
        signal.signal(signal.SIGINT, signal.SIG_DFL if previous is None else previous)
