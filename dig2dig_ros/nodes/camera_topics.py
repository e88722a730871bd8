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

"""The topics of a camera, of which only the base needs a remapping, and latched camera_info."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from copy import copy
from functools import partial
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import (
    DurabilityPolicy,
    qos_profile_sensor_data,
    QoSPolicyKind,
    QoSProfile,
    ReliabilityPolicy,
)
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

_COMPRESSED = '/compressed'
_TYPES = {False: 'sensor_msgs/msg/Image', True: 'sensor_msgs/msg/CompressedImage'}
# The usual override policies, and durability for latched publishers.
_OVERRIDABLE = (
    QoSPolicyKind.HISTORY,
    QoSPolicyKind.DEPTH,
    QoSPolicyKind.RELIABILITY,
    QoSPolicyKind.DURABILITY,
)
# Seconds between two checks for latched publishers of camera_info.
_LOOK_SECONDS = 1.0


def input_topics(sources: Iterable[str]) -> list[str]:
    """Return the topics of cameras that can be remapped."""
    return [
        f'{source}/{topic}'
        for source in sources
        for topic in ('image_raw', f'image_raw{_COMPRESSED}', 'camera_info')
    ]


def image_topic(node: Node, source: str, compressed: bool) -> str:
    """
    Return the topic to subscribe to for the images of a camera.

    As in image_transport, the compressed topic follows a remapping of the base topic, unless it
    is remapped itself.
    """
    base = f'{source}/image_raw'
    if not compressed:
        return base
    full = str(node.resolve_topic_name(base))
    if full.endswith(_COMPRESSED):  # the base was remapped to the compressed topic itself
        return full
    return _remapped(node, f'{base}{_COMPRESSED}', f'{full}{_COMPRESSED}')


def publishers_of(node: Node, source: str, compressed: bool) -> str:
    """Return how many publishers a camera's images have, and what to do if the type differs."""
    topic = str(node.resolve_topic_name(image_topic(node, source, compressed)))
    types = [publisher.topic_type for publisher in node.get_publishers_info_by_topic(topic)]
    advice = f'set {source}_transport: {"raw" if compressed else "compressed"}'
    if types and _TYPES[compressed] not in types:
        text = f'{len(types)} of {types[0]}'
        return f'{text}: {advice}' if types[0] == _TYPES[not compressed] else text
    other = str(node.resolve_topic_name(image_topic(node, source, not compressed)))
    there = 0 if types or other == topic else node.count_publishers(other)
    return f'0, but {there} on {other}: {advice}' if there else str(len(types))


def camera_info_topic(node: Node, source: str) -> str:
    """Return the full name of a camera's camera_info: by default next to its images."""
    name = f'{source}/camera_info'
    images = (f'{source}/image_raw', f'{source}/image_raw{_COMPRESSED}')
    moved = next((image for image in images if _is_remapped(node, image)), None)
    if moved is None:
        return str(node.resolve_topic_name(name))
    full = str(node.resolve_topic_name(moved)).removesuffix(_COMPRESSED)
    return _remapped(node, name, f'{full.rpartition("/")[0]}/camera_info')


def _is_remapped(node: Node, name: str) -> bool:
    expanded = node.resolve_topic_name(name, only_expand=True)
    return bool(node.resolve_topic_name(name) != expanded)


def _remapped(node: Node, name: str, otherwise: str) -> str:
    """Return what a name is remapped to; ``otherwise`` if it is not."""
    return str(node.resolve_topic_name(name)) if _is_remapped(node, name) else otherwise


class CameraInfoSubscription:
    """
    Receives camera_info from ordinary and from latched publishers.

    A latched one (transient local) may have sent its only message long ago, and only repeats it to
    transient local subscriptions, which would make other publishers warn about us. So there is a
    second subscription as soon as there is a latched publisher.

    :param topic: its full name.
    :param overridable: whether parameters may change the QoS.
    """

    def __init__(
        self,
        node: Node,
        topic: str,
        callback: Callable[[Any], None],
        overridable: bool = False,
    ) -> None:
        self._node = node
        self._topic = topic
        self._callback = callback
        self._subscriptions = [
            node.create_subscription(
                CameraInfo,
                topic,
                callback,
                copy(qos_profile_sensor_data),
                qos_overriding_options=QoSOverridingOptions(_OVERRIDABLE) if overridable else None,
            )
        ]
        self._is_latched = False
        self.look_for_latched()

    def look_for_latched(self) -> None:
        """Subscribe again if a latched publisher has appeared; to be called now and then."""
        if self._is_latched or not any(
            publisher.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL
            for publisher in self._node.get_publishers_info_by_topic(self._topic)
        ):
            return
        self._is_latched = True
        quality = QoSProfile(
            depth=1,
            reliability=ReliabilityPolicy.RELIABLE,
            durability=DurabilityPolicy.TRANSIENT_LOCAL,
        )
        self._subscriptions.append(
            self._node.create_subscription(
                CameraInfo,
                self._topic,
                self._callback,
                quality,
                # Volatile publishers are left to the other subscription.
                event_callbacks=SubscriptionEventCallbacks(use_default_callbacks=False),
            )
        )

    def close(self) -> None:
        """Unsubscribe."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions.clear()


class CameraInputs:
    """
    The subscriptions to the images and the camera_info of several cameras.

    :param compressed: whether the images of each source come compressed.
    :param on_image: called with the source and the message; ``on_info`` likewise.
    :param infos: the sources whose camera_info is wanted.
    """

    def __init__(
        self,
        node: Node,
        compressed: Mapping[str, bool],
        on_image: Callable[[str, Any], None],
        on_info: Callable[[str, Any], None],
        infos: Collection[str],
    ) -> None:
        self._node = node
        self._images: list[Any] = []
        self._infos: list[CameraInfoSubscription] = []
        self._timer: Any = None
        try:
            for source, is_compressed in compressed.items():
                self._images.append(
                    node.create_subscription(
                        CompressedImage if is_compressed else Image,
                        image_topic(node, source, is_compressed),
                        partial(on_image, source),
                        # rclpy writes the user's overrides into the profile itself.
                        copy(qos_profile_sensor_data),
                        qos_overriding_options=QoSOverridingOptions(_OVERRIDABLE),
                    )
                )
            for source in infos:
                topic, take = camera_info_topic(node, source), partial(on_info, source)
                self._infos.append(CameraInfoSubscription(node, topic, take, overridable=True))
            steady = Clock(clock_type=ClockType.STEADY_TIME)
            self._timer = node.create_timer(_LOOK_SECONDS, self._look, clock=steady)
        except Exception:  # an impossible QoS override: the next attempt starts without it
            self.close()
            raise

    def _look(self) -> None:
        for infos in self._infos:
            infos.look_for_latched()

    def close(self) -> None:
        """Unsubscribe."""
        for subscription in self._images:
            self._node.destroy_subscription(subscription)
        self._images.clear()
        for infos in self._infos:
            infos.close()
        self._infos.clear()
        if self._timer is not None:
            self._node.destroy_timer(self._timer)
            self._timer = None
