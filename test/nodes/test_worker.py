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

import threading
import time

import pytest

from dig2dig_ros.nodes.worker import LatestWorker


class Fusion:
    """Work that lasts until it is released."""

    def __init__(self):
        self.started, self.release = threading.Event(), threading.Event()
        self.done = []

    def __call__(self, item):
        self.started.set()
        self.release.wait(10)
        self.done.append(item)


@pytest.fixture
def fusion():
    work = Fusion()
    yield work
    work.release.set()


def test_latest_item_supersedes_the_waiting_one(fusion):
    worker = LatestWorker(fusion)
    assert worker.offer('first') is None
    fusion.started.wait(10)
    assert worker.offer('second') is None
    assert worker.offer('third') == 'second'
    fusion.release.set()
    end = time.monotonic() + 10
    while len(fusion.done) < 2 and time.monotonic() < end:
        time.sleep(0.01)
    assert worker.stop() is None
    assert fusion.done == ['first', 'third']


def test_stop_finishes_the_item_in_work_and_returns_the_waiting_one(fusion):
    worker = LatestWorker(fusion)
    worker.offer('first')
    fusion.started.wait(10)
    worker.offer('second')
    threading.Timer(0.05, fusion.release.set).start()
    assert worker.stop() == 'second'
    assert fusion.done == ['first']


def test_stop_says_when_the_item_in_work_hangs(fusion):
    worker = LatestWorker(fusion)
    worker.offer('stuck')
    fusion.started.wait(10)
    with pytest.raises(TimeoutError, match='did not end'):
        worker.stop(timeout=0.05)


@pytest.mark.parametrize('error', [RuntimeError('CUDA error'), SystemExit(1), KeyboardInterrupt()])
def test_whatever_one_item_raises_the_next_one_is_worked_on(error):
    done, failures = threading.Event(), []

    def work(item):
        if item == 'first':
            raise error
        done.set()

    def failed(raised):
        failures.append(raised)
        raise OSError('what tells of it fails as well')

    worker = LatestWorker(work, failed)
    worker.offer('first')
    end = time.monotonic() + 10
    while not failures and time.monotonic() < end:
        time.sleep(0.01)
    worker.offer('second')
    assert done.wait(10)
    worker.stop()
    assert failures == [error]


def test_it_tells_for_how_long_the_item_in_work_has_been_in_work(fusion):
    worker = LatestWorker(fusion)
    assert worker.busy_seconds == 0
    worker.offer('first')
    fusion.started.wait(10)
    assert worker.busy_seconds > 0
    fusion.release.set()
    worker.stop()
    assert worker.busy_seconds == 0
