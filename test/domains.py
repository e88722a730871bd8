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

"""ROS domains for the processes under test."""

from contextlib import contextmanager
import fcntl
import itertools
import os
from pathlib import Path
import tempfile

# Domains 0 to 101 are safe on Linux. Each process under test gets one of its own, so that no test
# hears another one's node; one that is locked belongs to a test of another run.
_numbers = itertools.count(37 * os.getpid())
_locks = {}


def next_domain() -> int:
    """Return a ROS domain that is used neither in this run nor in another one on this computer."""
    for number in itertools.islice(_numbers, 200):
        domain = 1 + number % 100
        if domain in _locks:
            continue
        path = Path(tempfile.gettempdir(), f'dig2dig_test_domain_{domain}')
        try:
            lock = open(path, 'w')  # noqa: SIM115
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            continue
        _locks[domain] = lock
        return domain
    raise RuntimeError('all ROS domains are in use')


@contextmanager
def reserved_domain():
    """Reserve a ROS domain for the block."""
    domain = next_domain()
    try:
        yield domain
    finally:
        _locks.pop(domain).close()
