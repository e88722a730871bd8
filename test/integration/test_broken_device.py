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

"""A device that fails: the node goes on, or ends with a reason, and always says how it is."""

import time

from diagnostic_msgs.msg import DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
import pytest

from integration.harness import running

# Fails as the file says, as a device may that this machine does not have.
_DEVICE = """
from pathlib import Path
import time
from dig2dig_ros.fusion.fuser import Fuser

switch = Path({switch!r})
fuse, free_memory, memory = Fuser.fuse, Fuser.free_memory, Fuser.memory

def fault():
    return switch.read_text(encoding='utf-8')

def failing_fuse(self, *images, **how):
    if fault() == 'memory':
        raise MemoryError
    if fault() == 'exit':
        raise SystemExit
    if fault() == 'assert':
        raise RuntimeError('CUDA error: device-side assert triggered\\nCompile with ...')
    while fault() == 'hang':
        switch.with_suffix('.hangs').touch()
        time.sleep(0.02)
    return fuse(self, *images, **how)

def failing_free_memory(self):
    if fault() == 'memory':
        raise RuntimeError('CUDA error: invalid argument')
    free_memory(self)

def failing_memory(self):
    if fault() == 'memory':
        raise RuntimeError('CUDA error: invalid argument')
    return memory(self)

Fuser.fuse, Fuser.free_memory, Fuser.memory = failing_fuse, failing_free_memory, failing_memory
"""


@pytest.fixture
def robot(domain, tmp_path):
    """Return a client beside an active node, its process, and the switch of its faults."""
    switch = tmp_path / 'fault'
    switch.write_text('')
    prelude = _DEVICE.format(switch=str(switch))
    with running(domain, {'prior': 'nano'}, prelude=prelude) as (client, node):
        client.wait_active()
        yield client, node, switch


def send_until(client, happened):
    """Send pair after pair, as some get lost on their way, until something has happened."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        client.send_pair()
        client.spin(0.2)
        if happened():
            return
    raise AssertionError(f'it does not happen; diagnostics: {client.text}, {client.values}')


def test_whatever_one_pair_does_the_next_one_is_fused_and_diagnostics_come(robot):
    client, node, switch = robot
    switch.write_text('memory')
    send_until(client, lambda: client.counter('dropped: out of memory') > 0)
    diagnosis = client.diagnose()
    assert diagnosis.level == DiagnosticStatus.ERROR
    assert 'memory ran out, and memory could not be freed: RuntimeError' in diagnosis.text
    assert 'the diagnostics are incomplete: RuntimeError: CUDA error: inval' in diagnosis.text
    assert diagnosis.values['state'] == 'active'

    switch.write_text('exit')  # which ends a thread without a word
    send_until(client, lambda: client.counter('dropped: fusion error') > 0)
    assert 'not fused: SystemExit' in client.diagnose().text

    switch.write_text('')
    fused = client.counter('fused')
    send_until(client, lambda: client.counter('fused') > fused)
    assert 'incomplete' not in client.diagnose().text
    assert node.stop() == 0
    assert 'Traceback' not in node.output()


def test_a_device_that_is_lost_ends_the_process_with_the_reason(robot):
    client, node, switch = robot
    switch.write_text('assert')
    send_until(client, lambda: 'the device failed' in client.text or node.process.poll())
    assert node.wait() == 1
    log = node.output()
    assert 'the device failed, and this process can no longer use it' in log
    assert 'device-side assert triggered; restart it' in log
    assert 'Traceback' not in log
    assert any(
        diagnosis.level == DiagnosticStatus.ERROR and 'the device failed' in diagnosis.text
        for diagnosis in client.diagnoses
    )


def test_a_shutdown_that_times_out_is_no_fusing_node(robot):
    client, node, switch = robot
    switch.write_text('hang')
    send_until(client, switch.with_suffix('.hangs').exists)
    transition = Transition(id=Transition.TRANSITION_ACTIVE_SHUTDOWN, label='shutdown')
    request = ChangeState.Request(transition=transition)
    assert not client.call(ChangeState, 'change_state', request).success
    assert client.state() == 'finalized'
    diagnosis = client.diagnose()
    assert diagnosis.level == DiagnosticStatus.ERROR
    assert diagnosis.values['state'] == 'finalized'
    assert 'shutdown failed: the current fusion did not end within 4 s' in diagnosis.text
    # Once it has ended, all is given back.
    switch.write_text('')
    client.until(lambda: client.level == DiagnosticStatus.OK, what='the end of the shutdown')
    assert client.text == 'finalized'
    assert node.stop() == 0
