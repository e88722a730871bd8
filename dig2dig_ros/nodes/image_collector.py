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

"""Receives the images and camera_info of both cameras, raw or compressed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
import os
import time
from typing import Any

import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CompressedImage, Image

from dig2dig_ros.nodes.camera_topics import (
    camera_info_topic,
    CameraInfoSubscription,
    image_topic,
)
from dig2dig_ros.nodes.signals import deferred_signals
from dig2dig_ros.resources import fast_dds_environment
from dig2dig_ros.streams.pairing import SOURCES

# Seconds without images after which the cameras count as paused.
_QUIET_SECONDS = 0.3


class ImageCollector:
    """
    Listens to ``visible/image_raw`` and ``thermal/image_raw``, as a context manager.

    The images may be raw or compressed; if a topic has both, the raw one is used. The camera_info
    is ``visible/camera_info`` and ``thermal/camera_info``, or, if an image topic is remapped and
    its camera_info is not, the one next to the image.

    :param name: of its node.
    :param arguments: for ROS: ``--ros-args`` and what follows it.
    :ivar topics: full names of the image topics, by source.
    """

    def __init__(self, name: str, arguments: Sequence[str]) -> None:
        # Images only fit into a larger shared-memory segment.
        os.environ.update(fast_dds_environment())
        self._context = Context()
        with deferred_signals():
            # Without handlers of rclpy, Ctrl-C is Python's KeyboardInterrupt.
            rclpy.init(
                args=list(arguments),
                context=self._context,
                signal_handler_options=SignalHandlerOptions.NO,
            )
            self._executor = SingleThreadedExecutor(context=self._context)
            self._node = Node(name, context=self._context)
            self._executor.add_node(self._node)
        self.topics: dict[str, str] = {
            source: self._node.resolve_topic_name(f'{source}/image_raw') for source in SOURCES
        }
        self._infos: list[CameraInfoSubscription] = []
        self._arrival = time.monotonic()

    def __enter__(self) -> ImageCollector:
        """Return itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Leave the graph."""
        with deferred_signals():
            self._executor.shutdown()
            self._node.destroy_node()
            rclpy.shutdown(context=self._context)

    def collect(
        self,
        on_image: Callable[[str, Any], None],
        on_info: Callable[[str, Any], None],
        on_pause: Callable[[], None],
        done: Callable[[], bool],
        timeout: float,
    ) -> None:
        """
        Listen until ``done`` is true, or ``timeout`` seconds have passed.

        :param on_image: called with the source and a message of either type.
        :param on_info: called with the source and a ``sensor_msgs/CameraInfo``.
        :param on_pause: called again and again while no camera sends anything.
        """
        end = time.monotonic() + timeout

        def note_image(source: str, message: Any) -> None:
            self._arrival = time.monotonic()
            on_image(source, message)

        waiting = list(self.topics)
        while not done() and (left := end - time.monotonic()) > 0:
            with deferred_signals():
                waiting = [s for s in waiting if not self._subscribe(s, note_image, on_info)]
                for infos in self._infos:
                    infos.look_for_latched()
                self._executor.spin_once(timeout_sec=min(left, 0.1))
                if time.monotonic() - self._arrival > _QUIET_SECONDS:
                    on_pause()

    def _subscribe(
        self,
        source: str,
        on_image: Callable[[str, Any], None],
        on_info: Callable[[str, Any], None],
    ) -> bool:
        """Subscribe to the topics of a camera that are published, if any."""
        raw = self.topics[source]
        compressed = str(self._node.resolve_topic_name(image_topic(self._node, source, True)))
        kinds = {raw: Image, compressed: CompressedImage}
        for topic, kind in kinds.items():
            if self._node.count_publishers(topic):
                self._node.create_subscription(
                    kind, topic, partial(on_image, source), qos_profile_sensor_data
                )
                info = camera_info_topic(self._node, source)
                self._infos.append(
                    CameraInfoSubscription(self._node, info, partial(on_info, source))
                )
                return True
        return False
