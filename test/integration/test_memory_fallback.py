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

"""Memory that runs out while the node fuses, over real DDS."""

from contextlib import suppress
import os
from pathlib import Path
import sys

from diagnostic_msgs.msg import DiagnosticStatus
import numpy as np
import pytest

from integration.harness import running

# In pixels. With this many steps, a fusion takes 470 MiB of address space, and with the cheapest
# settings 42: the limit of 60 more is between them, also if an allocator has reserved some before.
LARGE, STEPS = (320, 256), 128

PARAMETERS = {'prior': 'nano', 'fusion.num_inference_steps': 8, 'fusion.noise_draws': 2}


@pytest.fixture(scope='module')
def robot(module_domain):
    """Return a client beside an active node, and its process."""
    with running(module_domain, PARAMETERS) as (client, process):
        client.wait_active()
        yield client, process.process
        assert process.process.poll() is None, process.output()


def finish_pair(client, **pair):
    """Send a pair, wait until it is fused or dropped, and return how many were fused."""

    def ended():
        dropped = sum(
            client.counter(f'dropped: {cause}')
            for cause in ('superseded', 'fusion error', 'out of memory')
        )
        return client.counter('fused') + dropped

    client.diagnose()
    before, fused = ended(), client.counter('fused')
    for _ in range(5):  # a pair may get lost on its way
        client.send_pair(**pair)
        with suppress(AssertionError):
            client.until(lambda: ended() > before, 30, 'end of a pair')
            break
    client.diagnose()
    return client.counter('fused') - fused


def large_pair():
    width, height = LARGE
    rows, columns, channels = np.mgrid[:height, :width, :3]
    # Smooth, so that there is no noise to take out.
    visible = (128 + 100 * np.sin(rows / 9 + channels) * np.cos(columns / 7)).astype(np.uint8)
    return {'visible': visible, 'thermal': np.ascontiguousarray(visible[..., 0])}


@pytest.mark.skipif(not sys.platform.startswith('linux'), reason='limits memory as Linux does')
def test_memory_that_runs_out_is_survived_with_cheaper_settings(robot):
    import resource

    client, process = robot
    assert client.set_parameter('fusion.noise_draws', 0) == (True, '')
    assert client.set_parameter('fusion.num_inference_steps', STEPS) == (True, '')
    assert finish_pair(client) == 1

    pages = int(Path(f'/proc/{process.pid}/statm').read_text().split()[0])
    limit = pages * os.sysconf('SC_PAGE_SIZE') + 60 * 2**20
    _, hard = resource.prlimit(process.pid, resource.RLIMIT_AS)
    resource.prlimit(process.pid, resource.RLIMIT_AS, (limit, hard))
    pair = large_pair()
    outcomes = [finish_pair(client, **pair) for _ in range(4)]
    assert client.counter('dropped: fusion error') == 0, client.values['last error']
    assert client.counter('dropped: out of memory') == outcomes.count(0)
    assert outcomes[-1] == 1
    assert (client.values['N'], client.values['S']) == (str(STEPS), str(STEPS))
    assert client.values['prior downscale'] == '4'
    assert client.values['settings'] == 'the cheapest: memory ran out'
    assert f'memory ran out: fusing with S {STEPS}' in client.text
    assert client.level == DiagnosticStatus.WARN
    # The node answers all the while.
    assert client.set_parameter('sync_tolerance', 0.06) == (True, '')

    resource.prlimit(process.pid, resource.RLIMIT_AS, (hard, hard))
    # Another setting: all that was known of the memory is forgotten.
    assert client.set_parameter('fusion.num_inference_steps', 8) == (True, '')
    assert finish_pair(client, **pair) == 1
    assert (client.values['N'], client.values['settings']) == ('8', 'as asked')
    assert 'memory' not in client.text
