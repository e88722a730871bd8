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

import itertools
import os

import pytest

# Domains 0 to 101 are safe on Linux. Each process under test gets one of its own, so that
# no test hears another one's node; runs in parallel, whose process ids are close to each other,
# begin far apart.
_numbers = itertools.count(37 * os.getpid())


def next_domain() -> int:
    """Return a ROS domain that no other test of this run uses."""
    return 1 + next(_numbers) % 100


@pytest.fixture
def domain() -> int:
    """Return a ROS domain for one test."""
    pytest.importorskip('rclpy', reason='needs rclpy')
    return next_domain()


@pytest.fixture(scope='module')
def module_domain() -> int:
    """Return a ROS domain for what the tests of a module share."""
    pytest.importorskip('rclpy', reason='needs rclpy')
    return next_domain()


@pytest.fixture(scope='module')
def robot(request, module_domain):
    """
    Return a client beside a node that several tests start anew with other parameters.

    It starts with the PARAMETERS of the module.
    """
    from integration.harness import running

    with running(module_domain, request.module.PARAMETERS) as (client, process):
        client.until(lambda: client.status.get('state') == 'active', 60, 'active')
        yield client
        assert process.process.poll() is None, process.output()
