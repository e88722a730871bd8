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

"""Which cameras publish what: listens to their topics for some seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
import os
from statistics import median
import time
from typing import Any

import rclpy
from rclpy.qos import DurabilityPolicy, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image

from dig2dig_ros.nodes.client import FusionClient, NODE
from dig2dig_ros.streams.codec import (
    check,
    check_compressed,
    CodecError,
    decode,
    decode_compressed,
)
from dig2dig_ros.streams.installation import Finding
from dig2dig_ros.streams.parameters import PARAMETERS_BY_NAME
from dig2dig_ros.streams.stamp_watch import StampWatch

_TYPES = {'sensor_msgs/msg/Image': Image, 'sensor_msgs/msg/CompressedImage': CompressedImage}
_COMPRESSED = '/compressed'
# Seconds between two checks for new topics.
_LOOK_SECONDS = 0.25
# The names of publishers become known later than their topics, if at all: programs without ROS
# have none.
_NAME_SECONDS, _NO_NAME = 1.0, '_NODE_NAME_UNKNOWN_'
# Fraction of the images, judging by their stamps, that may be missing; and how many images are
# needed to judge.
_MOST_LOST, _FEWEST = 0.2, 8
_NANOSECONDS = 1_000_000_000


def rclpy_facts() -> dict[str, Any]:
    """Return where rclpy is and which middleware it loads; to be called in a separate process."""
    client = FusionClient.connect('dig2dig_doctor')
    client.close()
    return {
        'path': os.path.dirname(rclpy.__file__),
        'middleware': rclpy.get_rmw_implementation_identifier(),
    }


class CameraTopic:
    """The images that came on one topic."""

    def __init__(self, name: str, type_name: str) -> None:
        self.name = name
        self.type_name = type_name
        self.publishers: list[Any] = []
        # Arrivals in seconds of the steady clock; stamps, and arrivals by the system clock, in ns.
        self.arrivals: list[float] = []
        self.stamps: list[int] = []
        self.received: list[int] = []
        self._last: Any = None
        self._problem = ''

    def take(self, message: Any) -> None:
        """Note an image."""
        self.arrivals.append(time.monotonic())
        self.received.append(time.time_ns())
        stamp = message.header.stamp
        self.stamps.append(stamp.sec * _NANOSECONDS + stamp.nanosec)
        checked = check if self.type_name.endswith('/Image') else check_compressed
        try:
            checked(message, self.name)
            self._last = message
        except CodecError as error:
            self._problem = self._problem or str(error)

    @property
    def is_colour(self) -> bool:
        """Whether the images have colour, judging by their encoding."""
        return any(word in self._encoding() for word in ('rgb', 'bgr', 'bayer', 'yuv', '8UC3'))

    def _encoding(self) -> str:
        last = self._last
        return '' if last is None else str(getattr(last, 'encoding', '') or last.format)

    def finding(self, seconds: float, stamps_are_simulated: bool) -> Finding:
        """
        Return the facts and problems of the topic.

        :param seconds: the longest time that it was listened to.
        """
        advice = []
        facts = [self.type_name.rpartition('/')[2], self._layout()]
        count = len(self.arrivals)
        span = self.arrivals[-1] - self.arrivals[0] if count else 0.0
        facts.append(f'{(count - 1) / span:.1f} Hz' if span else f'{count} in {seconds:g} s')
        facts.append(self._quality())
        if count and any(self.stamps) and not stamps_are_simulated:
            facts.append(self._delay())
        if not count:
            advice.append(
                f'{self.name} has a publisher, but no image came: the driver is paused, or its '
                'images do not fit into the shared memory of its DDS profile'
            )
        if self._problem:
            advice.append(self._problem)
        if len(self.publishers) > 1:
            advice.append(
                f'{self.name} has {len(self.publishers)} publishers, whose images are mixed: give '
                'each camera a namespace'
            )
        lost = self._lost()
        if lost > _MOST_LOST:
            advice.append(
                f'{100 * lost:.0f} % of the images on {self.name} did not arrive, judging by gaps '
                'in their stamps: give its driver the DDS profile, or reduce the load on the link'
            )
        return Finding(self.name, ', '.join(filter(None, facts)), tuple(advice))

    def _layout(self) -> str:
        """Return encoding and size of the last image, decoding it if necessary."""
        last = self._last
        if last is None:
            return ''
        is_raw = self.type_name.endswith('/Image')
        try:
            height, width = (decode if is_raw else decode_compressed)(last, self.name).shape[:2]
        except CodecError as error:
            self._problem = self._problem or str(error)
            return self._encoding()
        return f'{self._encoding().strip()} {width}x{height}'

    def _quality(self) -> str:
        if not self.publishers:
            return ''
        quality = self.publishers[0].qos_profile
        is_reliable = quality.reliability == ReliabilityPolicy.RELIABLE
        words = 'reliable' if is_reliable else 'best effort'
        if quality.durability == DurabilityPolicy.TRANSIENT_LOCAL:
            words += ', transient local'
        return words

    def _delay(self) -> str:
        pairs = zip(self.received, self.stamps, strict=True)
        delay = median(received - stamp for received, stamp in pairs if stamp) * 1e-9
        size, side = abs(delay), 'before' if delay >= 0 else 'after'
        amount = f'{1000 * size:.0f} ms' if size < 1 else f'{size:.1f} s'
        return f'stamped {amount} {side} arrival'

    def _lost(self) -> float:
        """Return the fraction of images missing between the first and the last stamp."""
        stamps = sorted(set(filter(None, self.stamps)))
        if len(stamps) < _FEWEST:
            return 0.0
        gaps = [later - earlier for earlier, later in pairwise(stamps)]
        usual = median(gaps)
        missing = sum(round(gap / usual) - 1 for gap in gaps if gap > 1.5 * usual)
        return missing / (missing + len(stamps))


class TopicSurvey:
    """
    Listens to all cameras in a graph.

    :param client: to listen with; also receives the diagnostics of a fusion node.
    """

    def __init__(self, client: FusionClient) -> None:
        self._client = client
        self.topics: dict[str, CameraTopic] = {}
        # The time of a simulation or a recording.
        self._has_clock = False

    def listen(self, seconds: float) -> None:
        """Listen to all topics, including those that appear in the meantime."""
        self._seconds = seconds
        begin = time.monotonic()
        while (left := begin + seconds - time.monotonic()) > 0:
            self._look(knows_names=time.monotonic() - begin > _NAME_SECONDS)
            self._client.spin(min(left, _LOOK_SECONDS))
        node = self._client.node
        self._has_clock = bool(node.count_publishers('/clock'))
        for topic in self.topics.values():
            topic.publishers = node.get_publishers_info_by_topic(topic.name)

    def _look(self, knows_names: bool) -> None:
        """Subscribe to new topics; ``knows_names``: unnamed publishers will stay so."""
        node = self._client.node
        images = {
            name: types[0]
            for name, types in node.get_topic_names_and_types()
            if types[0] in _TYPES and node.count_publishers(name)
        }
        for name, type_name in images.items():
            # Subscribing to the compressed topic would make the driver compress the images.
            is_other_form = name.endswith(_COMPRESSED) and name[: -len(_COMPRESSED)] in images
            if name in self.topics or is_other_form:
                continue
            names = {info.node_name for info in node.get_publishers_info_by_topic(name)}
            # Nor should the fusion node compute what nobody needs.
            if names == {NODE} or (_NO_NAME in names and not knows_names):
                continue
            topic = self.topics[name] = CameraTopic(name, type_name)
            self._client.listen(name, _TYPES[type_name], topic.take, reliable=False, depth=50)

    def findings(self) -> list[Finding]:
        """Return what each camera sends, contradictions, and the state of a fusion node."""
        cameras = [topic for _, topic in sorted(self.topics.items())]
        found = [topic.finding(self._seconds, self._has_clock) for topic in cameras]
        advice = [] if self._has_clock else _stamp_advice(cameras)
        if len(cameras) < 2:
            number = 'no image topic is' if not cameras else 'only one image topic is'
            advice.append(
                f'{number} published: start the camera drivers, with the same ROS_DOMAIN_ID, '
                'discovery range and RMW_IMPLEMENTATION as here'
            )
        listened = f'{len(cameras)} image topics in {self._seconds:g} s'
        if self._has_clock:
            listened += '; /clock is published: start the nodes with use_sim_time:=true'
        return [Finding('cameras', listened, tuple(advice)), *found, *self._node_finding()]

    def _node_finding(self) -> list[Finding]:
        client = self._client
        if client.level is None:
            return []
        state = (
            f'{client.values.get("state", "unknown")}, {client.values.get("device", "no device")}'
        )
        if client.level == b'\x00':
            return [Finding(NODE, f'{state}: {client.text}')]
        return [Finding(NODE, state, (f'{NODE} says: {client.text}',))]


def _stamp_advice(cameras: Sequence[CameraTopic]) -> list[str]:
    """Return problems with the stamps of the cameras, alone and compared with each other."""
    # The first colour camera takes the place of the visible one; the others follow.
    ordered = sorted(cameras, key=lambda topic: not topic.is_colour)
    if not ordered:
        return []
    names = [topic.name for topic in ordered]
    watch = StampWatch(names, max(len(topic.stamps) for topic in ordered) + 1)
    images = sorted(
        (arrival, topic.name, stamp)
        for topic in ordered
        for arrival, stamp in zip(topic.arrivals, topic.stamps, strict=True)
    )
    for arrival, name, stamp in images:
        watch(name, stamp, arrival)
    values: Mapping[str, Any] = {
        name: PARAMETERS_BY_NAME[name].default
        for name in ('thermal_time_offset', 'sync_tolerance')
    }
    return [*watch.clock_warnings(values, ()), *watch.stamp_warnings(())]
