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

"""The diagnostics of the nodes of this package."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock, ClockType
from rclpy.node import Node


def diagnostics_of(
    node: Node,
    task: str,
    health: Callable[[], tuple[bytes, str]],
    tables: Sequence[Callable[[], Mapping[str, str]]],
    hardware: str = '',
) -> DiagnosticArray:
    """
    Return the message for ``/diagnostics``, stamped now.

    A node on simulated time says so if nothing has come on ``/clock``, stamped with system time:
    with a stamp of zero, nobody could see what is new.

    It is always published: facts that cannot be read, such as the memory of a failed device, are
    an error in it.

    :param task: what the node does, for the name of its status.
    :param health: returns the level of a ``DiagnosticStatus``, and why.
    :param tables: return all figures.
    :param hardware: what the node runs on.
    """
    problems: list[str] = []
    table: dict[str, str] = {}
    for figures in tables:
        try:
            table.update(figures())
        except Exception as error:
            problems.append(f'{type(error).__name__}: {error}')
    level, text = DiagnosticStatus.ERROR, ''
    try:
        level, text = health()
    except Exception as error:
        problems.append(f'{type(error).__name__}: {error}')
    if problems:
        incomplete = f'the diagnostics are incomplete: {"; ".join(problems)}'
        level, text = DiagnosticStatus.ERROR, f'{text}; {incomplete}' if text else incomplete
    now = node.get_clock().now()
    if node.get_clock().ros_time_is_active and not now.nanoseconds:
        now = Clock(clock_type=ClockType.SYSTEM_TIME).now()
        text = f'{text}; {_no_clock(node)}' if text else _no_clock(node)
        level = max(level, DiagnosticStatus.WARN)
    status = DiagnosticStatus(
        level=level,
        name=f'{node.get_fully_qualified_name()}: {task}',
        message=text,
        hardware_id=hardware,
        values=[KeyValue(key=key, value=value) for key, value in table.items()],
    )
    array = DiagnosticArray(status=[status])
    array.header.stamp = now.to_msg()
    return array


def _no_clock(node: Node) -> str:
    text = (
        f'use_sim_time is set, but no time has come on /clock (publishers: '
        f'{node.count_publishers("/clock")}): start the simulation, or ros2 bag play with '
        '--clock, or set use_sim_time to false'
    )
    node.get_logger().warning(text, throttle_duration_sec=30.0)
    return text
