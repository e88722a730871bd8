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

import pytest

from dig2dig_ros.nodes.worker import LatestWorker


def test_latest_item_supersedes_the_waiting_one():
    started, release, done = threading.Event(), threading.Event(), []

    def process(item):
        started.set()
        release.wait(10)
        done.append(item)

    worker = LatestWorker(process)
    assert worker.offer('first') is None
    started.wait(10)
    assert worker.offer('second') is None
    assert worker.offer('third') == 'second'
    release.set()
    while done != ['first', 'third']:
        assert worker._thread.is_alive()
    assert worker.stop() is None


def test_stop_finishes_the_item_in_work_and_returns_the_waiting_one():
    started, release, done = threading.Event(), threading.Event(), []

    def process(item):
        started.set()
        release.wait(10)
        done.append(item)

    worker = LatestWorker(process)
    worker.offer('first')
    started.wait(10)
    worker.offer('second')
    threading.Timer(0.05, release.set).start()
    assert worker.stop() == 'second'
    assert done == ['first']


def test_stop_says_when_the_item_in_work_hangs():
    release, started = threading.Event(), threading.Event()

    def process(item):
        started.set()
        release.wait(10)

    worker = LatestWorker(process)
    worker.offer('stuck')
    started.wait(10)
    with pytest.raises(TimeoutError, match='did not end'):
        worker.stop(timeout=0.05)
    release.set()
