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

"""The topics of a camera, of which only the base may be remapped, and its latched camera_info."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import Any

from rclpy.node import Node
from rclpy.qos import (
    DurabilityPolicy,
    qos_profile_sensor_data,
    QoSPolicyKind,
    QoSProfile,
    ReliabilityPolicy,
)
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

_COMPRESSED = '/compressed'
# Those that usually are, and durability, for publishers that are latched.
_OVERRIDABLE = (
    QoSPolicyKind.HISTORY,
    QoSPolicyKind.DEPTH,
    QoSPolicyKind.RELIABILITY,
    QoSPolicyKind.DURABILITY,
)


def input_qos_overrides() -> QoSOverridingOptions:
    """Return what of the QoS of an input is a parameter."""
    return QoSOverridingOptions(_OVERRIDABLE)


def image_topic(node: Node, source: str, compressed: bool) -> str:
    """
    Return the name to subscribe to the images of a camera by.

    As image_transport does it, that of the compressed images follows the base topic where that is
    remapped and it is not itself.
    """
    base = f'{source}/image_raw'
    if not compressed:
        return base
    full = str(node.resolve_topic_name(base))
    if full.endswith(_COMPRESSED):  # the base was remapped to the compressed topic itself
        return full
    return _remapped(node, f'{base}{_COMPRESSED}', f'{full}{_COMPRESSED}')


def camera_info_topic(node: Node, source: str) -> str:
    """Return the full name of a camera's camera_info: by default beside its images."""
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
    """Return what a name is remapped to; ``otherwise`` where it is not."""
    return str(node.resolve_topic_name(name)) if _is_remapped(node, name) else otherwise


class CameraInfoSubscription:
    """
    Hears camera_info of ordinary and of latched publishers.

    A latched one (transient local) may have sent its only message long ago, which it repeats to
    those only who ask for it; asking others so would have them warn of us. So a second
    subscription comes with the first latched publisher.

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
                qos_overriding_options=input_qos_overrides() if overridable else None,
            )
        ]
        self._is_latched = False
        self.look_for_latched()

    def look_for_latched(self) -> None:
        """Subscribe once more if a latched publisher has come; to be called now and then."""
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
                # Of the ordinary publishers that may be there, too, the other one hears.
                event_callbacks=SubscriptionEventCallbacks(use_default_callbacks=False),
            )
        )

    def close(self) -> None:
        """Unsubscribe."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions.clear()
