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
Signals of processes that run nodes, listen to them or start them. Importable without ROS.

The imports of a command take a second or more, and until they are done a signal would end the
process with a traceback, or as if it was killed. So signals are handled before anything else is
imported: by :func:`run_command`, :func:`hear_interrupts` and, for ``python -m`` of a node,
:func:`hear_module`. The exit code is 0 for a node and 130 for any other command. An even earlier
signal, while the interpreter starts, ends the process like any Python program: by the signal (-2
or -15), or with 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
import os
import select
import signal
import sys
import threading
from types import FrameType, TracebackType

from dig2dig_ros.errors import Refusal

# Exit code of a command that Ctrl-C has ended, as shells count.
INTERRUPTED = 130
# Exit code of a command whose output nobody reads any more (SIGPIPE), counted in the same way.
UNREAD = 141
# The modules that are nodes.
_NODES = ('fusion_node', 'detection_fusion_node', 'pair_camera')

_has_begun = False


def begin() -> None:
    """Leave the signals to rclpy from now on, as there is something to end."""
    global _has_begun
    _has_begun = True


def _on_signal(number: int, frame: FrameType | None) -> None:
    if not _has_begun:
        # At once: an exception in the middle of an import may end up anywhere.
        os._exit(0)
    # Nothing more, not even for SIGINT: rclpy, whose handler calls this one, ends its context, and
    # the node with it. An exception could be raised inside a C++ destructor and abort.


def run_command(module: str, arguments: Sequence[str] | None = None) -> int:
    """
    Import a module and run its ``main``; from now on, signals end the process cleanly.

    :param arguments: of the command line; default: those of this process.
    :return: the exit code.
    """
    _hear_node_signals()
    main = import_module(module).main
    return until_unread(lambda: int(main() if arguments is None else main(list(arguments))))


def _hear_node_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _on_signal)


def run_tool(
    name: str,
    work: Callable[[], int],
    interrupted: str = 'interrupted',
    refusals: tuple[type[Exception], ...] = (),
) -> int:
    """
    Run a command that is not a node; if it fails, one line says why.

    :param name: of the command, to begin that line.
    :param work: parses the command line and returns an exit code.
    :param interrupted: the line after Ctrl-C.
    :param refusals: exceptions with a sentence, besides :class:`Refusal`, OSError and ImportError.
    :return: the exit code of ``work`` or of the refusal, 2 after other refusals, or 130.
    """
    others: tuple[type[Exception], ...] = (OSError, ImportError, *refusals)
    try:
        return until_unread(work)
    except Refusal as error:
        code, text = error.exit_code, str(error)
    except others as error:
        code, text = 2, str(error)
    except KeyboardInterrupt:
        code, text = INTERRUPTED, interrupted
    print(f'{name}: {text}', file=sys.stderr, flush=True)
    return code


def until_unread(work: Callable[[], int]) -> int:
    """
    Do the work of a process, and end without a word once nobody reads its output (``| head``).

    :return: the exit code of ``work``, or 141.
    """
    try:
        try:
            return work()
        finally:
            # Here rather than when the interpreter ends, which would complain.
            if sys.stdout is not None:
                sys.stdout.flush()
    except BrokenPipeError:
        if not _is_unread():
            raise  # some other pipe
        # The interpreter will write what is left once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return UNREAD


def _is_unread() -> bool:
    """Return whether standard output is a pipe that nobody reads any more."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return bool(poll.poll(0))


def hear_module() -> None:
    """Handle signals for the module of ``python -m``, if that is importing us."""
    if sys.argv[:1] != ['-m'] or '-m' not in sys.orig_argv[:-1]:
        return
    name = sys.orig_argv[sys.orig_argv.index('-m') + 1].rpartition('.')[2]
    if name in _NODES:
        _hear_node_signals()
    else:
        hear_interrupts(name)


def hear_interrupts(name: str) -> None:
    """
    Let Ctrl-C end a command with one line and the code 130, whenever it comes.

    It raises KeyboardInterrupt, as usual, so that the command can finish with its results so far;
    in the middle of an import, where an exception may end up anywhere, the process ends at once.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        while frame is not None:
            if frame.f_code.co_filename.startswith('<frozen importlib'):
                os.write(2, line)
                os._exit(INTERRUPTED)
            frame = frame.f_back
        raise KeyboardInterrupt

    def uncaught(
        kind: type[BaseException], error: BaseException, traceback: TracebackType | None
    ) -> None:
        if not issubclass(kind, KeyboardInterrupt):
            sys.__excepthook__(kind, error, traceback)
            return
        os.write(2, line)
        sys.exit(INTERRUPTED)

    line = f'{name}: interrupted\n'.encode()
    sys.excepthook = uncaught
    # Shells make background processes ignore it.
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, interrupt)


def interrupt_on_termination() -> None:
    """
    Turn SIGTERM and SIGHUP into KeyboardInterrupt, like SIGINT.

    A closed terminal or a supervisor's request must not leave a tool's processes behind.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)


@contextmanager
def deferred_signals() -> Iterator[None]:
    """
    Defer signals that come in this block until its end.

    A KeyboardInterrupt inside rclpy can be lost, for example in a C++ destructor, and the tool
    would continue; so messages are taken in such blocks, each a short one.
    """
    if threading.current_thread() is not threading.main_thread():  # only that handles signals
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
    Take the first SIGINT (Ctrl-C) as a request to finish with the results so far.

    The next one raises KeyboardInterrupt. Outside the main thread, which gets all signals, nothing
    changes.

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
        # None: it was not set by Python, and Python cannot restore it.
        signal.signal(signal.SIGINT, signal.SIG_DFL if previous is None else previous)
