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
A client of the fusion node: receives its diagnostics and topics, and calls its services.

The diagnostics carry the counters as text; the functions at the end parse them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
import math
import time
from typing import Any, TypeVar

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import SetParameters
import rclpy
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions

from dig2dig_ros.nodes.child_processes import ProcessError
from dig2dig_ros.nodes.signals import deferred_signals
from dig2dig_ros.streams.pairing import SOURCES
from dig2dig_ros.streams.statistics import IMAGE_CAUSES, pair_causes

ValueT = TypeVar('ValueT')
ClientT = TypeVar('ClientT', bound='FusionClient')

NODE = 'fusion_node'
# The node loads torch and the prior and warms up, which takes time from a cold disk.
START_SECONDS = 180.0
# Seconds without progress after which something is wrong.
STALL_SECONDS = 60.0
_ANSWER_SECONDS = 60.0
# Most seconds between two checks of a condition.
_PATIENCE = 0.05


class FusionClient:
    """
    Listens to a fusion node and calls it; without a thread: messages arrive while it waits.

    :param node: the client's own, which must be in the executor.
    :param namespace: of the fusion node; without one, it listens to any fusion node.
    """

    def __init__(
        self, node: Node, executor: SingleThreadedExecutor, namespace: str | None = None
    ) -> None:
        self.node = node
        self.executor = executor
        self._prefix = (namespace or '').rstrip('/')
        self._any = namespace is None
        self._defers_signals = False
        self._services: dict[str, Any] = {}
        # Level, message and values of the last diagnostics.
        self.level: bytes | None = None
        self.text = ''
        self.values: dict[str, str] = {}
        self.diagnosis_count = 0
        # Called in every round of a wait; an exception ends it.
        self.meanwhile: list[Callable[[], Any]] = []
        self.listen('/diagnostics', DiagnosticArray, self.on_diagnostics, depth=50)

    @classmethod
    def connect(cls: type[ClientT], name: str, domain_id: int | None = None) -> ClientT:
        """
        Join the graph with a node that does not handle signals; :meth:`close` leaves it.

        :param name: of the node.
        :param domain_id: of ROS; without one, that of the environment.
        """
        context, no_signals = Context(), SignalHandlerOptions.NO
        rclpy.init(
            args=[], context=context, domain_id=domain_id, signal_handler_options=no_signals
        )
        executor = SingleThreadedExecutor(context=context)
        node = Node(name, context=context, enable_rosout=False)
        executor.add_node(node)
        client = cls(node, executor)
        client._defers_signals = True
        return client

    def close(self) -> None:
        """Leave the graph."""
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.try_shutdown(context=self.node.context)

    def listen(
        self,
        topic: str,
        kind: Any,
        callback: Callable[[Any], None],
        *,
        reliable: bool = True,
        depth: int = 20,
        raw: bool = False,
    ) -> Any:
        """Subscribe to a topic and return the subscription."""
        policy = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
        quality = QoSProfile(depth=depth, reliability=policy)
        return self.node.create_subscription(kind, topic, callback, quality, raw=raw)

    def on_diagnostics(self, message: DiagnosticArray) -> None:
        """Keep the diagnostics of the fusion node."""
        name = f'{self._prefix}/{NODE}: fusion'
        for status in message.status:
            if status.name == name or (self._any and status.name.endswith(name)):
                self.level, self.text = status.level, status.message
                self.values = {item.key: item.value for item in status.values}
                self.diagnosis_count += 1

    # Waiting

    def spin_once(self, seconds: float) -> None:
        """
        Handle the next message, or return when the time is up.

        :raises ExternalShutdownException: the context has ended.
        """
        if not self.node.context.ok():
            raise ExternalShutdownException
        with deferred_signals() if self._defers_signals else nullcontext():
            self.executor.spin_once(timeout_sec=max(0.0, seconds))

    def spin(self, seconds: float) -> None:
        """Handle messages for some time."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self.spin_once(min(left, _PATIENCE))
            self._do_meanwhile()

    def until(self, condition: Callable[[], ValueT], timeout: float, what: str) -> ValueT:
        """
        Handle messages until the condition is true, and return its value.

        :param what: a name for the condition, for the message.
        :raises ProcessError: it is not true within ``timeout`` seconds.
        """
        deadline = time.monotonic() + timeout
        while not (value := condition()):
            self.spin_once(_PATIENCE)
            self._do_meanwhile()
            if time.monotonic() > deadline:
                state = self.values.get('state', 'not heard of')
                raise ProcessError(
                    f'{what} did not come within {timeout:.0f} s ({NODE} is {state})'
                )
        return value

    def _do_meanwhile(self) -> None:
        for each in self.meanwhile:
            each()

    def require_sound(self) -> None:
        """
        Check that diagnostics report no error.

        :raises ProcessError: they do; with their message.
        """
        if self.level == DiagnosticStatus.ERROR:
            raise ProcessError(f'{NODE}: {self.text}')

    def wait_active(self, timeout: float = START_SECONDS) -> None:
        """
        Wait until the node is active.

        :raises ProcessError: it reports an error, or is not active within ``timeout`` seconds.
        """

        def is_active() -> bool:
            self.require_sound()
            return self.values.get('state') == 'active'

        self.until(is_active, timeout, 'its activation')

    def settle(self) -> None:
        """
        Wait until the node has nothing left to do, judging by two equal diagnostics in a row.

        :raises ProcessError: no counter has changed for :data:`STALL_SECONDS`, although there are
            pairs that are neither fused nor dropped.
        """
        first = seen = self.diagnosis_count
        previous: dict[str, str] = {}
        since = time.monotonic()
        while True:
            self.spin(_PATIENCE)
            if self.diagnosis_count > seen:
                seen = self.diagnosis_count
                counters = {key: self.values[key] for key in self.values if is_counter(key)}
                if counters != previous:
                    previous, since = counters, time.monotonic()
                # The first one may be older than the last image.
                elif seen > first + 2 and is_settled(self.values):
                    return
            if time.monotonic() - since > STALL_SECONDS:
                raise ProcessError(
                    f'{NODE} did not finish: for {STALL_SECONDS:.0f} s no pair was fused or '
                    f'dropped (pairs {self.values.get("pairs", "?")}, '
                    f'fused {self.values.get("fused", "?")})'
                )

    # Calling services

    def call(self, kind: Any, service: str, request: Any) -> Any:
        """
        Call a service of the node and return its answer.

        :raises ProcessError: it does not exist, or does not answer in time.
        """
        if service not in self._services:
            name = f'{self._prefix}/{NODE}/{service}'
            self._services[service] = self.node.create_client(kind, name)
        client = self._services[service]
        self.until(client.service_is_ready, _ANSWER_SECONDS, f'service {service}')
        future = client.call_async(request)
        self.until(future.done, _ANSWER_SECONDS, f'the answer of {service}')
        return future.result()

    def set_parameter(self, name: str, value: Any) -> tuple[bool, str]:
        """Set a parameter; return whether that succeeded, and why not."""
        request = SetParameters.Request(
            parameters=[Parameter(name, value=value).to_parameter_msg()]
        )
        (result,) = self.call(SetParameters, 'set_parameters', request).results
        return result.successful, result.reason

    def state(self) -> str:
        """Return the lifecycle state, such as 'active'."""
        return str(self.call(GetState, 'get_state', GetState.Request()).current_state.label)

    def change_state(self, transition: str) -> bool:
        """Trigger a transition, such as 'activate'; return whether it succeeded."""
        number = getattr(Transition, f'TRANSITION_{transition.upper()}')
        request = ChangeState.Request(transition=Transition(id=number, label=transition))
        return bool(self.call(ChangeState, 'change_state', request).success)


# Reading the counters of the diagnostics


def number(values: Mapping[str, str], key: str) -> float | None:
    """Return a diagnostics value as a number, or None if it is missing or not a number."""
    try:
        value = float(values[key])
    except (KeyError, ValueError):
        return None
    return value if math.isfinite(value) else None


def is_counter(key: str) -> bool:
    """Return whether a diagnostics value counts images or pairs."""
    return (
        key in ('pairs', 'fused')
        or key.endswith((' received', ' alone', ' left out', ' faulty'))
        or key.startswith('dropped: ')
    )


def counter(values: Mapping[str, str], key: str) -> int:
    """Return a counter of the diagnostics; 0 if it is missing."""
    return int(number(values, key) or 0)


def drops(values: Mapping[str, str]) -> dict[str, int]:
    """Return the drop counters of the diagnostics by cause, zeros included."""
    prefix = 'dropped: '
    return {key[len(prefix) :]: counter(values, key) for key in values if key.startswith(prefix)}


def sources_of(values: Mapping[str, str]) -> tuple[str, ...]:
    """Return the sources in the diagnostics, visible and thermal first."""
    suffix = ' received'
    return tuple(key[: -len(suffix)] for key in values if key.endswith(suffix))


def unfinished_pairs(values: Mapping[str, str]) -> int:
    """Return how many pairs, or images alone, are neither fused nor dropped yet."""
    dropped = drops(values)
    begun = counter(values, 'pairs') + sum(counter(values, f'{name} alone') for name in SOURCES)
    ended = sum(dropped.get(cause, 0) for cause in pair_causes(sources_of(values)))
    return begun - counter(values, 'fused') - ended


def is_settled(values: Mapping[str, str]) -> bool:
    """Return whether every pair that the node made is either fused or dropped."""
    return unfinished_pairs(values) == 0


def waiting_images(values: Mapping[str, str]) -> dict[str, int]:
    """Return how many images of each source are not yet in a pair, alone, or dropped."""
    dropped = drops(values)
    sources = sources_of(values)
    waiting = {}
    for index, source in enumerate(sources):
        # A group that lacks a source is dropped with an image of each one before it.
        own = [f'{source} {cause}' for cause in IMAGE_CAUSES]
        later = [f'{name} missing' for name in sources[max(2, index + 1) :]]
        waiting[source] = (
            counter(values, f'{source} received')
            - counter(values, 'pairs')
            - counter(values, f'{source} alone')
            - sum(dropped.get(cause, 0) for cause in (*own, *later))
        )
    return waiting


def node_summary(values: Mapping[str, str]) -> dict[str, Any]:
    """Return the figures of a run from the diagnostics, for JSON."""
    facts = ('device', 'precision', 'prior', 'N', 'S', 'resolution')
    return {
        'node': {key: values.get(key, '') for key in facts},
        'received': {source: counter(values, f'{source} received') for source in SOURCES},
        'pairs': counter(values, 'pairs'),
        'fused': counter(values, 'fused'),
        'dropped': drops(values),
        'node_latency_ms': {p: number(values, f'latency {p} (ms)') for p in ('p50', 'p95')},
        'fusion_time_ms': {'p50': number(values, 'fusion time p50 (ms)')},
        'last_error': values.get('last error', ''),
    }


def subtract_counters(values: Mapping[str, str], baseline: Mapping[str, str]) -> dict[str, str]:
    """Return ``values`` minus the counters of ``baseline``, for a run after a warm-up."""
    result = dict(values)
    for key in values:
        if is_counter(key):
            result[key] = str(counter(values, key) - counter(baseline, key))
    return result
