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

import signal
import subprocess
import sys
import threading

import pytest

from dig2dig_ros.nodes.signals import deferred_signals, interruption

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
