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

"""What is read of a process, and when it counts as flat."""

import math
import os
import subprocess
import sys

import numpy as np
import pytest

from soak.process_growth import (
    draw,
    latency_figures,
    Measure,
    MEASURES,
    ProcessGone,
    sample_process,
    trend,
    trends,
)

TIMES = [index / 30 for index in range(900)]  # half an hour, in minutes
MEMORY = MEASURES['private']


def noisy(growth: float = 0.0, level: float = 300.0) -> list[float]:
    """Return samples of a process that takes and gives back, and keeps ``growth`` in all."""
    rng = np.random.default_rng(0)
    steps = rng.choice([-8.0, 0.0, 6.0], len(TIMES)) + rng.exponential(3.0, len(TIMES))
    return list(level + steps + growth * np.arange(len(TIMES)) / len(TIMES))


def test_noise_is_flat_and_a_leak_in_it_is_found_with_its_size():
    quiet = trend(TIMES, noisy(), MEMORY)
    leaking = trend(TIMES, noisy(growth=15.0), MEMORY)
    assert quiet.is_flat
    assert quiet.low < 0 < quiet.high
    assert not leaking.is_flat
    assert leaking.growth == pytest.approx(15.0, abs=2.0)
    assert leaking.low < leaking.growth < leaking.high
    assert leaking.as_json()['flat'] is False


def test_a_process_that_shrinks_or_jumps_for_a_moment_is_flat():
    values = noisy()
    values[400:410] = [900.0] * 10
    assert trend(TIMES, values, MEMORY).is_flat
    assert trend(TIMES, noisy(growth=-50.0), MEMORY).is_flat


def test_a_step_is_not_flat_though_most_slopes_are_none():
    values = noisy()
    values[300:] = [value + 50.0 for value in values[300:]]
    found = trend(TIMES, values, MEMORY)
    assert found.rise == pytest.approx(50.0, abs=2.0)
    assert not found.is_flat


def test_one_thread_more_and_more_is_not_flat():
    threads = [20.0 + index // 300 for index in range(900)]
    assert not trend(TIMES, threads, MEASURES['threads']).is_flat
    assert trend(TIMES, [20.0] * 900, MEASURES['threads']).growth == 0


def test_tolerance_is_absolute_or_a_part_whatever_is_larger():
    measure = Measure('memory', 'MiB', 4.0, 0.01)
    assert (measure.tolerance(100.0), measure.tolerance(1000.0)) == (4.0, 10.0)


def test_only_what_comes_after_the_warm_up_is_judged():
    settling = [{'private': 300.0 + 50.0 * min(time, 18.0)} for time in TIMES]
    assert not trends(TIMES, settling, 0.0)['private'].is_flat
    found = trends(TIMES, settling, 18.0)
    assert found['private'].growth == 0
    assert list(found) == ['private']  # what was not sampled is not judged
    with pytest.raises(ValueError, match='let it run longer'):
        trends(TIMES, settling, 31.0)
    with pytest.raises(ValueError, match='1 samples tell no trend'):
        trends(TIMES, settling, TIMES[-1])


def test_shared_pages_are_told_but_not_judged():
    growing = trend(TIMES, noisy(growth=200.0), MEASURES['proportional'])
    assert growing.is_flat
    assert not growing.is_judged
    assert growing.as_json()['tolerance'] is None


# Not this process, whose threads come and go. The memory is not from an allocator, which may have
# some left.
GROWING = """
import mmap, os, threading
print('started', flush=True)
input()
threading.Thread(target=threading.Event().wait, daemon=True).start()
file = open(os.devnull)
memory = mmap.mmap(-1, 40 * 2**20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
block = bytes(2**16)
while memory.tell() < len(memory):
    memory.write(block)
print('grown', flush=True)
input()
"""


def test_a_sample_sees_memory_threads_and_descriptors():
    process = subprocess.Popen(
        [sys.executable, '-c', GROWING],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    )
    with process:
        assert process.stdout.readline() == 'started\n'
        before = sample_process(process.pid)
        process.stdin.write('\n')
        assert process.stdout.readline() == 'grown\n'
        after = sample_process(process.pid)
        process.stdin.write('\n')
    assert set(before) <= set(MEASURES)
    assert before['resident'] > before['private'] > 1
    assert after['threads'] == before['threads'] + 1
    assert after['descriptors'] == before['descriptors'] + 1
    assert after['private'] - before['private'] == pytest.approx(40, abs=4)


def test_a_process_that_has_ended_is_said_to_have():
    process = subprocess.Popen([sys.executable, '-c', ''])
    process.wait()
    with pytest.raises(ProcessGone, match=f'process {process.pid} has ended'):
        sample_process(process.pid)
    zombie = subprocess.Popen([sys.executable, '-c', ''])
    os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(ProcessGone, match='has ended'):
        sample_process(zombie.pid)
    zombie.wait()


def test_latencies_are_told_by_percentiles():
    figures = latency_figures([0.010] * 98 + [0.050, 0.050])
    assert (figures['count'], figures['p50'], figures['p99']) == (100, 10.0, 50.0)
    assert figures['p99/p50'] == 5.0
    assert latency_figures([]) is None


def test_the_picture_is_drawn(tmp_path):
    pytest.importorskip('matplotlib')
    samples = [{'private': value, 'threads': 20.0, 'proportional': math.nan} for value in noisy()]
    path = tmp_path / 'soak.png'
    draw(path, 'half an hour', TIMES, samples, 5.0, [(time, 0.03) for time in TIMES])
    assert path.read_bytes().startswith(b'\x89PNG')
