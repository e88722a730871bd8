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

"""Signals that do not get lost."""

import os
from pathlib import Path
import signal
import subprocess
import sys
import threading

import pytest

from dig2dig_ros.errors import Refusal
from dig2dig_ros.nodes.signals import deferred_signals, interruption, run_tool, UNREAD
from dig2dig_ros.tools.entry_points import COMMANDS

_TERMINATED = """
import os, signal
from dig2dig_ros.nodes.signals import deferred_signals, interrupt_on_termination
interrupt_on_termination()
try:
    with deferred_signals():
        os.kill(os.getpid(), signal.SIG{name})
        print('taken', flush=True)
    print('not reached')
except KeyboardInterrupt:
    print('interrupted')
"""


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_interrupts_after_the_block_that_defers_it(number: signal.Signals) -> None:
    code = _TERMINATED.format(name=number.name.removeprefix('SIG'))
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.split()) == (0, ['taken', 'interrupted']), done.stderr


def test_handlers_are_put_back_and_other_threads_have_none() -> None:
    before = signal.getsignal(signal.SIGINT)
    with deferred_signals():
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before

    went = []

    def elsewhere() -> None:
        with deferred_signals():
            went.append(True)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert went


def test_the_first_ctrl_c_is_a_wish_and_the_next_an_order() -> None:
    # A shell starts what runs in the background with SIGINT ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    told: list[str] = []
    try:
        with interruption(lambda: told.append('ending')) as requested:
            assert not requested.is_set()
            signal.raise_signal(signal.SIGINT)
            assert (requested.is_set(), told) == (True, ['ending'])
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert told == ['ending']


# The doctor tries imports in processes of their own.
TOOLS = [each.name for each in COMMANDS if not each.is_node and each.name != 'doctor']
NODES = (
    'dig2dig_ros.nodes.fusion_node',
    'dig2dig_ros.nodes.detection_fusion_node',
    'dig2dig_ros.tools.pair_camera',
    'dig2dig_ros play',
)
_CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture
def interrupted_import(tmp_path: Path) -> dict[str, str]:
    """Return an environment in which Ctrl-C comes in the middle of the first large import."""
    shadow = tmp_path / 'numpy'
    shadow.mkdir()
    code = 'import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(60)\n'
    (shadow / '__init__.py').write_text(code, encoding='utf-8')
    return {**os.environ, 'PYTHONPATH': os.pathsep.join([str(tmp_path), str(_CHECKOUT)])}


def run(environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words], env=environment, capture_output=True, text=True, timeout=120
    )


@pytest.mark.slow
@pytest.mark.parametrize('name', TOOLS)
def test_ctrl_c_in_the_first_seconds_is_one_line(
    interrupted_import: dict[str, str], name: str
) -> None:
    pytest.importorskip('rclpy', reason='needs rclpy')
    entry = 'import sys; from dig2dig_ros.tools.entry_points import dig2dig; sys.exit(dig2dig())'
    for words in (('-m', 'dig2dig_ros'), ('-c', entry)):
        done = run(interrupted_import, *words, *name.split())
        assert (done.returncode, done.stderr) == (130, f'dig2dig {name}: interrupted\n'), words


@pytest.mark.slow
@pytest.mark.parametrize(
    'name', ['inspect_brightness', 'inspect_cameras', 'inspect_gains', 'inspect_noise']
)
def test_ctrl_c_in_the_first_seconds_of_a_script_is_one_line(
    interrupted_import: dict[str, str], name: str
) -> None:
    done = run(interrupted_import, str(_CHECKOUT / 'docs' / 'pictures' / f'{name}.py'))
    assert (done.returncode, done.stderr) == (130, f'{name}: interrupted\n')


@pytest.mark.slow
@pytest.mark.parametrize('module', NODES)
def test_ctrl_c_in_the_first_seconds_of_a_node_is_a_good_end(
    interrupted_import: dict[str, str], module: str
) -> None:
    pytest.importorskip('rclpy', reason='needs rclpy')
    done = run(interrupted_import, '-m', *module.split())
    assert (done.returncode, done.stderr) == (0, '')


class _Late(Refusal):
    exit_code = 1


@pytest.mark.parametrize(
    ('error', 'code', 'line'),
    [
        (Refusal('no pairs: name a folder'), 2, 'no pairs: name a folder'),
        (_Late('a process ended'), 1, 'a process ended'),
        (FileNotFoundError(2, 'No such file', 'a.png'), 2, "[Errno 2] No such file: 'a.png'"),
        (ImportError('lpips is missing'), 2, 'lpips is missing'),
        (ZeroDivisionError('of the tool'), 2, 'of the tool'),
        (KeyboardInterrupt(), 130, 'interrupted, nothing is written'),
    ],
)
def test_what_ends_a_tool_is_one_line_and_an_exit_code(
    error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> int:
        raise error

    note = 'interrupted, nothing is written'
    assert run_tool('tool', work, note, refusals=(ZeroDivisionError,)) == code
    assert capsys.readouterr().err == f'tool: {line}\n'


def test_a_tool_that_fails_otherwise_has_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        run_tool('tool', lambda: 1 // 0)
    assert run_tool('tool', lambda: 3) == 3


@pytest.mark.parametrize('catches', [True, False])
def test_ctrl_c_later_may_be_caught_and_is_one_line_otherwise(catches: bool) -> None:
    body = 'signal.raise_signal(signal.SIGINT)'
    if catches:
        body = f"try:\n    {body}\nexcept KeyboardInterrupt:\n    print('kept'); sys.exit(130)"
    code = (
        'import signal, sys\nfrom dig2dig_ros.nodes.signals import hear_interrupts\n'
        f"hear_interrupts('tool')\n{body}\nprint('not reached')\n"
    )
    done = run(dict(os.environ), '-c', code)
    assert done.returncode == 130, done.stderr
    assert (done.stdout, done.stderr) == (
        ('kept\n', '') if catches else ('', 'tool: interrupted\n')
    )


def test_imports_as_a_library_leave_signals_alone() -> None:
    code = (
        'import signal; import dig2dig_ros.tools, dig2dig_ros.nodes; '
        'print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)'
    )
    assert run(dict(os.environ), '-c', code).stdout == 'True\n'


@pytest.mark.parametrize('words', [['--help'], ['--version'], ['fuse', '--help']], ids=' '.join)
def test_a_command_whose_help_nobody_reads_ends_without_a_word(words: list[str]) -> None:
    pytest.importorskip('torch', reason='needs torch')
    code, errors = unread('dig2dig_ros', *words)
    # Of a long help, argparse itself passes over the failure.
    assert (code in {0, UNREAD}, errors) == (True, '')


@pytest.mark.slow
@pytest.mark.parametrize('node', NODES[:3])
def test_a_node_whose_help_nobody_reads_ends_without_a_word(node: str) -> None:
    pytest.importorskip('rclpy', reason='needs rclpy')
    assert unread(*node.split(), '--help') == (UNREAD, '')


def unread(module: str, *words: str) -> tuple[int, str]:
    """Return the exit code and the errors of a module whose output is a pipe without a reader."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, '-m', module, *words],
            env={**os.environ, 'PYTHONPATH': str(_CHECKOUT)},
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
        )
    finally:
        os.close(writer)
    return done.returncode, done.stderr


def test_another_pipe_that_breaks_is_a_failure(capfd: pytest.CaptureFixture[str]) -> None:
    def work() -> int:
        raise BrokenPipeError('the encoder has ended')

    assert run_tool('dig2dig fuse', work) == 2
    assert capfd.readouterr().err == 'dig2dig fuse: the encoder has ended\n'
