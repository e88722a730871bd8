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
