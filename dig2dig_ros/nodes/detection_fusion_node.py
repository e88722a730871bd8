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


"""
The node that merges the detections of one detector on the cameras' and the fused images.

Its callbacks pass messages to :class:`~dig2dig_ros.streams.detection_fusion.DetectionFusion` and
publish the results, all in the executor's thread: merging a frame takes a millisecond or two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from functools import partial
from importlib import import_module
import sys
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.clock import Clock, ClockType, JumpThreshold, TimeJump
from rclpy.duration import Duration
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import Image

from dig2dig_ros.detections.messages import (
    DETECTION_ARRAY,
    message_of,
    message_of_source,
    TYPES,
)
from dig2dig_ros.nodes.diagnostics import diagnostics_of
from dig2dig_ros.nodes.parameters import NodeParameters, print_help
from dig2dig_ros.nodes.remappings import stray_remappings
from dig2dig_ros.nodes.run import run_node
from dig2dig_ros.nodes.signals import until_unread
from dig2dig_ros.streams.detection_fusion import DetectionFusion, MergedFrame
from dig2dig_ros.streams.detection_parameters import (
    AUTO,
    check_together,
    NODE,
    ParameterError,
    PARAMETERS,
)

# At most one log line in this many seconds for problems that may occur with every message.
_LOG_PERIOD = 5.0
# When no detector has sent anything for this many seconds, whatever can be merged is merged.
_QUIET_SECONDS = 0.2
# Seconds between two checks of the topic types, until one is known.
_LOOK_SECONDS = 0.5


class TypesMissing(RuntimeError):
    """The message package of the detections is not installed; the message says what to do."""


def message_types(type_name: str) -> Any:
    """
    Return the module with the message classes that a type of detections belongs to.

    :raises TypesMissing: this interpreter cannot import it.
    """
    package = type_name.partition('/')[0]
    try:
        return import_module(f'{package}.msg')
    except ImportError as error:
        advice = (
            'it comes with yolo_ros, https://github.com/mgonzs13/yolo_ros: build it in the '
            'workspace and source its setup.bash'
            if type_name == DETECTION_ARRAY
            else 'apt install ros-$ROS_DISTRO-vision-msgs, and source the setup.bash'
        )
        raise TypesMissing(
            f'{type_name} needs the package {package} ({error}): {advice}'
        ) from error


class DetectionFusionNode(Node):  # type: ignore[misc]
    """Joins, merges and publishes detections; docs/detection.md has its interface."""

    def __init__(self, arguments: Sequence[str] = ()) -> None:
        """
        Declare the parameters and subscribe, at once or as soon as a type is seen.

        :raises TypesMissing: a type that is set by name is not installed.
        :raises ParameterError: the parameters contradict each other.
        """
        super().__init__(NODE)
        self._state = 'unconfigured'
        self._node_parameters = NodeParameters(
            self, lambda: self._state, self._on_parameters, PARAMETERS, check_together
        )
        unknown = self._node_parameters.warn_of_unknown(arguments)
        self._unknown_parameters = ', '.join(unknown)
        values = self._node_parameters.values
        check_together(values)
        self._state = 'active'  # from now on, only live parameters can change
        self._topics = {
            name: str(self.resolve_topic_name(f'{name}/detections')) for name in values['sources']
        }
        self._fusion = DetectionFusion(
            values, self._topics, publishers=self.count_publishers, log=self._log
        )
        topics = ['detections']
        for name in self._fusion.sources:
            topics += f'{name}/detections', f'detections/{name}', f'fused/weights/{name}'
        for text in stray_remappings(self, arguments, topics):
            self.get_logger().warning(text)
        self._type_name = ''
        self._types: Any = None
        self._failure = ''
        self._output: Any = None
        self._source_outputs: dict[int, Any] = {}
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._quiet_timer = self.create_timer(_QUIET_SECONDS, self._on_quiet, clock=steady)
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', 10)
        self._diagnostics_timer = self.create_timer(
            values['diagnostics_period'], self._publish_diagnostics, clock=steady
        )
        self._jump_handle = self.get_clock().create_jump_callback(
            JumpThreshold(
                min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=True
            ),
            post_callback=self._on_clock_jump,
        )
        self._look_timer: Any = None
        if values['message_type'] == AUTO:
            self._look_timer = self.create_timer(_LOOK_SECONDS, self._look, clock=steady)
        else:
            self._begin(values['message_type'], message_types(values['message_type']))

    def _on_parameters(self, values: Mapping[str, Any]) -> None:
        if self._state == 'active':
            self._fusion.values = values

    # The type of the detections

    def _look(self) -> None:
        """Adopt the type of the first topic of a source with a known type."""
        there = dict(self.get_topic_names_and_types())
        for topic in self._topics.values():
            if not self.count_publishers(topic):
                continue
            for type_name in there.get(topic, ()):
                if type_name not in TYPES:
                    self._failure = (
                        f'{topic} has the type {type_name}, which is not supported: use '
                        f'{" or ".join(TYPES)}'
                    )
                    continue
                try:
                    types = message_types(type_name)
                except TypesMissing as error:
                    self._failure = str(error)
                    self._log(self._failure)
                    continue
                self._look_timer.cancel()
                self._begin(type_name, types)
                return

    def _begin(self, type_name: str, types: Any) -> None:
        """Create the publishers and subscribe."""
        self._type_name, self._types, self._failure = type_name, types, ''
        kind = getattr(types, type_name.rpartition('/')[2])
        sources = self._fusion.sources
        self._output = self._publisher(kind, 'detections')
        if type_name == DETECTION_ARRAY:
            self._source_outputs = {
                column: self._publisher(kind, f'detections/{name}')
                for column, name in enumerate(sources)
            }
        for name in sources:
            self._subscribe(kind, f'{name}/detections', partial(self._on_detections, name))
        if self._node_parameters.values['use_weights']:
            for name in self._fusion.cameras:
                self._subscribe(
                    Image, f'fused/weights/{name}', partial(self._fusion.add_weights, name)
                )
        self.get_logger().info(
            f'{type_name}: {", ".join(self._topics.values())} -> {self._output.topic_name}'
        )

    def _publisher(self, kind: Any, topic: str) -> Any:
        return self.create_publisher(
            kind,
            topic,
            # One for each: rclpy writes the user's overrides into the profile itself.
            QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE),
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )

    def _subscribe(self, kind: Any, topic: str, callback: Callable[[Any], None]) -> None:
        self.create_subscription(
            kind,
            topic,
            callback,
            copy(qos_profile_sensor_data),
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )

    # Messages

    def _on_detections(self, source: str, message: Any) -> None:
        self._publish(self._fusion.add(source, message, self._type_name))
        if self._fusion.pending:
            self._quiet_timer.reset()

    def _on_quiet(self) -> None:
        self._quiet_timer.cancel()
        self._publish(self._fusion.settle())

    def _on_clock_jump(self, jump: TimeJump) -> None:
        self._fusion.clear('clock jump')

    def _publish(self, frames: Sequence[MergedFrame]) -> None:
        for frame in frames:
            arguments = frame.merged, frame.header
            how = self._type_name, self._types
            self._output.publish(message_of(*arguments, self._fusion.sources, *how))
            for column, publisher in self._source_outputs.items():
                if publisher.get_subscription_count() > 0:
                    publisher.publish(message_of_source(*arguments, column, *how))

    def _log(self, text: str) -> None:
        self.get_logger().warning(text, throttle_duration_sec=_LOG_PERIOD)

    # Diagnostics

    def _publish_diagnostics(self) -> None:
        tables = (self._own_table, self._fusion.table)
        self._diagnostics.publish(diagnostics_of(self, 'detections', self._health, tables))

    def _own_table(self) -> dict[str, str]:
        table = {'message type': self._type_name}
        if self._unknown_parameters:
            table['unknown parameters'] = self._unknown_parameters
        return table

    def _health(self) -> tuple[bytes, str]:
        if self._failure:
            return DiagnosticStatus.ERROR, self._failure
        text = '; '.join(self._fusion.health())
        if text:
            self.get_logger().warning(text, throttle_duration_sec=30.0)
            return DiagnosticStatus.WARN, text
        return DiagnosticStatus.OK, 'merging'

    def close(self) -> str:
        """Stop the timers, drop what waits, and return the counters as one line."""
        self._quiet_timer.cancel()
        self._diagnostics_timer.cancel()
        self._fusion.clear('shutdown')
        return self._fusion.summary()


def _run(node: DetectionFusionNode, executor: SingleThreadedExecutor) -> None:
    executor.spin()


def main(args: list[str] | None = None) -> int:
    """Run the node until it is interrupted; return the process's exit code."""
    arguments = sys.argv if args is None else args
    if print_help(
        arguments, 'Merges the detections of one detector in several images.', PARAMETERS
    ):
        return 0
    create = partial(DetectionFusionNode, arguments)
    return run_node(
        create, _run, DetectionFusionNode.close, args, refusals=(TypesMissing, ParameterError)
    )


if __name__ == '__main__':
    sys.exit(until_unread(main))
