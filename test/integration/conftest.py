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

from contextlib import ExitStack

from domains import next_domain
import pytest

# The network that is quickest to load, and images that do not get lost on their way.
SHARED_PARAMETERS = {
    'prior': 'nano',
    'qos_overrides./visible/image_raw.subscription.reliability': 'reliable',
    'qos_overrides./thermal/image_raw.subscription.reliability': 'reliable',
}


@pytest.fixture(scope='package', autouse=True)
def quick_dds(quick_dds_variables):
    """Let all processes find each other, and part, without waiting."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in quick_dds_variables.items():
            patch.setenv(name, value)
        yield


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
