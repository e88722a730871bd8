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

"""Fixtures of the tests that talk over real DDS."""

from contextlib import contextmanager, ExitStack
import fcntl
import itertools
import os
from pathlib import Path
import tempfile

import pytest

# Domains 0 to 101 are safe on Linux. Each process under test gets one of its own, so that no test
# hears another one's node; one that is locked belongs to a test of another run.
_numbers = itertools.count(37 * os.getpid())
_locks = {}
# The network that is quickest to load, and images that do not get lost on their way.
SHARED_PARAMETERS = {
    'prior': 'nano',
    'qos_overrides./visible/image_raw.subscription.reliability': 'reliable',
    'qos_overrides./thermal/image_raw.subscription.reliability': 'reliable',
}


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


@pytest.fixture(scope='package', autouse=True)
def quick_dds(quick_dds_variables):
    """Let all processes find each other, and part, without waiting."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in quick_dds_variables.items():
            patch.setenv(name, value)
        yield


@contextmanager
def reserved_domain():
    """Reserve a ROS domain for the block."""
    domain = next_domain()
    try:
        yield domain
    finally:
        _locks.pop(domain).close()


@pytest.fixture
def domain():
    """Return a ROS domain for one test."""
    pytest.importorskip('rclpy', reason='needs rclpy')
    with reserved_domain() as number:
        yield number


@pytest.fixture(scope='module')
def module_domain():
    """Return a ROS domain for what the tests of a module share."""
    pytest.importorskip('rclpy', reason='needs rclpy')
    with reserved_domain() as number:
        yield number


@pytest.fixture(scope='session')
def shared_node():
    """
    Return a function that gives (client, process) of the node that most modules share.

    A node takes seconds to start. Tests that need other parameters start this one anew through
    its services; where it has died, the next one gets another.
    """
    pytest.importorskip('rclpy', reason='needs rclpy')
    from integration.harness import running

    with ExitStack() as stack:
        started = []

        def give():
            if not started or started[-1][1].process.poll() is not None:
                stack.close()
                started.append(stack.enter_context(running(next_domain(), SHARED_PARAMETERS)))
                client = started[-1][0]
                client.until(lambda: client.values.get('state') == 'active', 120, 'active')
            return started[-1]

        yield give


@pytest.fixture
def robot(request, shared_node):
    """Return a client beside the shared node, to start anew with the PARAMETERS of the module."""
    client, process = shared_node()
    client.parameters_of_module = request.module.PARAMETERS
    yield client
    assert process.process.poll() is None, process.output()
