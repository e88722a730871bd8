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

"""Serialised topics: to publish recorded messages, and to listen to a fusion node."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from importlib import import_module
import os
from pathlib import Path
import re
import struct
import sys
import time
from typing import Any

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from dig2dig_ros.nodes.child_processes import ProcessError
from dig2dig_ros.nodes.client import (
    counter,
    FusionClient,
    node_summary,
    subtract_counters,
)
from dig2dig_ros.streams.pairing import Source, SOURCES
from dig2dig_ros.streams.statistics import percentiles_ms

FUSED = 'fused/image_raw'
_TYPE_NAME = re.compile(r'([a-z][a-z0-9_]*)/(?:msg/)?([A-Z][A-Za-z0-9]*)', re.ASCII)
# Number of latencies that are kept: half a day's, for a bag that loops for days.
_KEPT_LATENCIES = 1_000_000
# Number of stamps whose publication times are kept; a slow node may be tens of images behind.
_KEPT_STAMPS = 1000
# Seconds that the last messages may take to arrive.
_QUIET_SECONDS = 2.0


def message_type(name: str) -> Any:
    """
    Return the Python class of a message type, or None where this installation lacks it.

    A name comes from a bag or from the network, and importing a module runs it, so only messages
    in the index of ROS are imported.

    :param name: such as 'sensor_msgs/msg/Image'.
    """
    match = _TYPE_NAME.fullmatch(name)
    if match is None or not _is_indexed(*match.groups()):
        return None
    package, message = match.groups()
    try:
        return getattr(import_module(f'{package}.msg'), message, None)
    except ImportError:
        return None


def _is_indexed(package: str, message: str) -> bool:
    """Return whether a package with this message is installed."""
    # Wheels of ROS are in a virtual environment, which is not in the paths of ROS.
    prefixes = [*os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep), sys.prefix]
    for prefix in filter(None, prefixes):
        index = Path(prefix, 'share/ament_index/resource_index/rosidl_interfaces', package)
        with suppress(OSError):
            files = index.read_text(encoding='utf-8', errors='replace').split()
            if any(f'msg/{message}.{suffix}' in files for suffix in ('msg', 'idl')):
                return True
    return False


def raw_publishers(node: Node, types: Mapping[str, str], own: Sequence[str]) -> dict[str, Any]:
    """
    Return publishers for recorded topics, and log which topics are left out.

    They are reliable, which subscribers of both kinds accept. Static transforms are latched, as
    late subscribers need them, too.

    :param types: of the topics by name.
    :param own: topics and namespaces that this run publishes itself, which are left out.
    """
    publishers: dict[str, Any] = {}
    unknown, ours = [], []
    for name, type_name in types.items():
        kind = message_type(type_name)
        if any(name == other or name.startswith(f'{other}/') for other in own):
            ours.append(name)
        elif kind is None:
            unknown.append(f'{name} ({type_name})')
        else:
            is_static = name.endswith('/tf_static')
            quality = QoSProfile(
                depth=10 if 'Image' in type_name else 100,
                reliability=ReliabilityPolicy.RELIABLE,
                durability=(
                    DurabilityPolicy.TRANSIENT_LOCAL if is_static else DurabilityPolicy.VOLATILE
                ),
            )
            publishers[name] = node.create_publisher(kind, name, quality)
    if ours:
        node.get_logger().info(f'not played, as this run publishes them: {", ".join(ours)}')
    if unknown:
        node.get_logger().warning(
            f'not played, as this ROS installation lacks their types: {", ".join(unknown)}'
        )
    return publishers


def header_stamp(data: bytes) -> int:
    """
    Return the stamp in nanoseconds of a serialised message that begins with a header.

    :param data: CDR as DDS sends it: four bytes of encapsulation, the second of which is the byte
        order, then the stamp's seconds (32 bits, signed) and nanoseconds (32 bits).
    :raises ValueError: it is too short to hold a stamp.
    """
    if len(data) < 12:
        raise ValueError(f'a message of {len(data)} bytes has no stamp')
    seconds, nanoseconds = struct.unpack_from('<iI' if data[1] & 1 else '>iI', data, 4)
    return int(seconds) * 1_000_000_000 + int(nanoseconds)


class FusionObserver:
    """
    Listens to the fusion node: counts, times and passes on what it publishes.

    Latencies are from the later image of the pair to the fused one, in s of a steady clock. The
    fused image has the stamp of the visible one. The thermal image of the pair is assumed to be
    the one with the nearest stamp among those published by then.

    :param client: of the node.
    :param hand_on: called with topic, type, bytes and nanoseconds of the steady clock for every
        fused image, its camera_info and its weight maps; without it, there is no subscription.
    """

    def __init__(
        self,
        client: FusionClient,
        hand_on: Callable[[str, str, bytes, int], None] | None = None,
    ) -> None:
        self.client = client
        self._node = client.node
        self._hand_on = hand_on
        self._heard: set[str] = set()
        self._baseline: dict[str, str] = {}
        self._published: dict[Source, dict[int, float]] = {source: {} for source in SOURCES}
        self.latencies: list[float] = []
        # Fused images that arrived.
        self.count = 0

    def published(self, source: Source, stamp: int, now: float) -> None:
        """Note that an image is being published."""
        times = self._published[source]
        times[stamp] = now
        if len(times) > _KEPT_STAMPS:
            del times[next(iter(times))]

    def start_over(self) -> None:
        """Forget the stamps, which will be repeated; messages still on their way are not timed."""
        for times in self._published.values():
            times.clear()

    def fused(self, stamp: int, now: float) -> None:
        """Note a fused image; if its visible image is unknown, it is not timed."""
        self.count += 1
        visible, thermal = self._published['visible'].get(stamp), self._published['thermal']
        if visible is not None and thermal:
            later = max(visible, thermal[min(thermal, key=lambda other: abs(other - stamp))])
            self.latencies.append(now - later)
            if len(self.latencies) > _KEPT_LATENCIES:
                del self.latencies[: _KEPT_LATENCIES // 2]

    def listen(self, topic: str, type_name: str) -> None:
        """Subscribe to a topic, relative to the namespace; at most once."""
        if topic in self._heard:
            return
        self._heard.add(topic)
        kind = message_type(type_name)
        if kind is None:
            self._node.get_logger().warning(
                f'not recorded, as {type_name} is unknown here: {topic}'
            )
            return
        name = self._node.resolve_topic_name(topic)
        callback = partial(self._on_message, topic, name, type_name)
        self.client.listen(topic, kind, callback, depth=50, raw=True)

    def _on_message(self, topic: str, name: str, type_name: str, data: bytes) -> None:
        now = time.monotonic_ns()
        if topic == FUSED:
            with suppress(ValueError):
                self.fused(header_stamp(data), now * 1e-9)
        if self._hand_on is not None:
            self._hand_on(name, type_name, data, now)

    def listen_to_what_is_there(self) -> None:
        """Subscribe to the topics to pass on that have appeared since the last call."""
        if self._hand_on is None:
            return
        prefix = self._node.resolve_topic_name('x').removesuffix('x')
        for name, types in self._node.get_topic_names_and_types():
            topic = name.removeprefix(prefix)
            is_wanted = topic in (FUSED, 'fused/camera_info') or topic.startswith('fused/weights/')
            # The raw images are enough; the node would have to compress the others.
            is_wanted = is_wanted and not topic.endswith('/compressed')
            if is_wanted and self._node.count_publishers(name):
                self.listen(topic, types[0])

    def begin(self) -> None:
        """Start counting: earlier messages are not part of this run."""
        self._baseline, self.count = dict(self.client.values), 0

    @property
    def values(self) -> dict[str, str]:
        """The node's diagnostics, counted from the start of the run."""
        return subtract_counters(self.client.values, self._baseline)

    def settle(self) -> None:
        """
        Wait until the node has nothing left to do and its messages have arrived.

        :raises ProcessError: it does not finish, see :meth:`FusionClient.settle`.
        """
        self.client.settle()
        end = time.monotonic() + _QUIET_SECONDS
        while self.count < counter(self.values, 'fused') and time.monotonic() < end:
            self.client.spin(0.05)

    def require_output(self) -> None:
        """
        Check that a fused image came, if there was a subscription.

        :raises ProcessError: none did; with what the node received, paired and dropped.
        """
        if self.count or FUSED not in self._heard:
            return
        found = node_summary(self.values)
        counts = ', '.join(f'{n} {source}' for source, n in found['received'].items())
        causes = ', '.join(f'{n} {cause}' for cause, n in found['dropped'].items() if n)
        raise ProcessError(
            f'no fused image came: the node received {counts} images and made '
            f'{found["pairs"]} pairs; drops: {causes or "none"}'
        )

    def summary(self) -> dict[str, Any]:
        """Return the results of the run, for JSON."""
        return {
            **node_summary(self.values),
            'fused_received': self.count,
            'latency_ms': percentiles_ms(self.latencies),
        }
