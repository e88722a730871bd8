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

"""Diagnostics of a node that is to take the time from /clock."""

import time

import pytest

pytest.importorskip('rclpy', reason='needs rclpy')

from diagnostic_msgs.msg import DiagnosticStatus
import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rosgraph_msgs.msg import Clock

from dig2dig_ros.nodes.diagnostics import diagnostics_of


@pytest.fixture
def context(domain):
    """Return a context that nobody else is in."""
    context = Context()
    rclpy.init(context=context, domain_id=domain)
    yield context
    rclpy.shutdown(context=context)


def diagnose(node, level=DiagnosticStatus.OK, text='fusing'):
    array = diagnostics_of(node, 'fusion', lambda: (level, text), [])
    return array.header.stamp, array.status[0].level, array.status[0].message


def test_a_clock_that_never_comes_is_said_under_the_time_of_the_system(context):
    executor = SingleThreadedExecutor(context=context)
    node = Node(
        'watched', context=context, parameter_overrides=[Parameter('use_sim_time', value=True)]
    )
    executor.add_node(node)
    before = int(time.time())
    stamp, level, text = diagnose(node)
    assert level == DiagnosticStatus.WARN
    assert text.startswith(
        'fusing; use_sim_time is set, but no time has come on /clock (publishers: 0): start the '
        'simulation, or '
    )
    assert before <= stamp.sec <= time.time()
    # What is worse remains so.
    _, level, text = diagnose(node, DiagnosticStatus.ERROR, 'configuration failed')
    assert level == DiagnosticStatus.ERROR
    assert text.startswith('configuration failed; use_sim_time')

    simulation = Node('simulation', context=context)
    executor.add_node(simulation)
    clock = simulation.create_publisher(Clock, '/clock', 1)
    end = time.monotonic() + 30
    while not node.get_clock().now().nanoseconds and time.monotonic() < end:
        message = Clock()
        message.clock.sec, message.clock.nanosec = 12, 5
        clock.publish(message)
        executor.spin_once(timeout_sec=0.05)
    stamp, level, text = diagnose(node)
    assert (stamp.sec, stamp.nanosec) == (12, 5)
    assert (level, text) == (DiagnosticStatus.OK, 'fusing')
    executor.shutdown()
    simulation.destroy_node()
    node.destroy_node()


def test_without_simulated_time_nothing_is_said_of_it(context):
    node = Node('watched', context=context)
    stamp, level, text = diagnose(node)
    assert (level, text) == (DiagnosticStatus.OK, 'fusing')
    assert stamp.sec > 1_000_000_000
    node.destroy_node()
