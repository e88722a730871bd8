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

"""The image topics of the fusion node; only those with subscribers are computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from dig2dig_ros.images.overlay import contribution_overlay
from dig2dig_ros.streams.codec import encode, encode_compressed
from dig2dig_ros.streams.preparation import fused_picture, FusedFrame, weight_plane

_OVERLAY = 'fused/weights/overlay'
_COMPRESSED = '/compressed'


def output_topics(sources: Sequence[str]) -> dict[str, Any]:
    """
    Return the output topics for these sources, with their message types.

    Images for people are also published compressed, for viewers over a radio link.
    """
    views = ('fused', *(f'{source}/restored' for source in sources))
    pictures = (*(f'{view}/image_raw' for view in views), _OVERLAY)
    return {
        **dict.fromkeys(pictures, Image),
        **{f'{topic}{_COMPRESSED}': CompressedImage for topic in pictures},
        **{f'{view}/camera_info': CameraInfo for view in views},
        **{f'fused/weights/{source}': Image for source in sources},
    }


class Outputs:
    """
    The publishers of the fused image and everything that goes with it.

    Weight maps and restored images are published if they had subscribers when they were fused, and
    still have; compressed images if they have subscribers.

    :param node: publishes when it is active.
    :param sources: their names, visible and thermal first.
    """

    def __init__(self, node: LifecycleNode, sources: Sequence[str]) -> None:
        self._node = node
        self._sources = tuple(sources)
        self._publishers: dict[str, Any] = {}
        try:
            for topic, message_type in output_topics(self._sources).items():
                self._create(topic, message_type)
        except Exception:  # an impossible QoS override: the next attempt starts without it
            self.close()
            raise

    def _create(self, topic: str, message_type: Any) -> None:
        self._publishers[topic] = self._node.create_lifecycle_publisher(
            message_type,
            topic,
            # One for each: rclpy writes the user's overrides into the profile itself.
            QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE),
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )

    def wants_weights(self) -> bool:
        """Return whether a weight map or the overlay has subscribers."""
        maps = (f'fused/weights/{source}' for source in self._sources)
        return any(map(self._is_heard, maps)) or self._is_seen(_OVERLAY)

    def wants_restored(self) -> bool:
        """Return whether a restored image has subscribers."""
        return any(self._is_seen(f'{source}/restored/image_raw') for source in self._sources)

    def wants_camera_info(self) -> bool:
        """Return whether fused/camera_info has subscribers."""
        return any(
            self._is_heard(f'{place}/camera_info')
            for place in ('fused', *(f'{source}/restored' for source in self._sources))
        )

    def _is_heard(self, topic: str) -> bool:
        return bool(self._publishers[topic].get_subscription_count())

    def _is_seen(self, topic: str) -> bool:
        """Return whether an image has subscribers, raw or compressed."""
        return self._is_heard(topic) or self._is_heard(topic + _COMPRESSED)

    def publish(self, fused: FusedFrame, values: Mapping[str, Any]) -> None:
        """
        Publish with the header of the visible image; to be called in the worker's thread.

        :param values: the node's parameters by name.
        """
        result, present = fused.result, fused.prepared.present
        header = Header(stamp=fused.header.stamp, frame_id=fused.frame_id)
        encoding = values['output_encoding']
        views = {'fused': result.image}
        for source, image, is_there in zip(self._sources, result.restored, present, strict=False):
            if is_there and self._is_seen(f'{source}/restored/image_raw'):
                views[f'{source}/restored'] = image
        pictures: dict[str, tuple[NDArray[np.uint8], str]] = {}
        for place, image in views.items():
            picture = fused_picture(image, encoding)
            self._publish_view(place, picture, encoding, header, fused.camera_info)
            pictures[f'{place}/image_raw'] = picture, encoding
        if len(result.weights):
            self._publish_weights(result.weights, values['weights_encoding'], header)
            if self._is_seen(_OVERLAY):
                overlay = contribution_overlay(result.image, result.contributions)
                self._publishers[_OVERLAY].publish(encode(overlay, 'bgr8', header, Image))
                pictures[_OVERLAY] = overlay, 'bgr8'
        # Last, as detectors wait for the raw ones.
        for topic, (picture, its_encoding) in pictures.items():
            self._publish_compressed(topic, picture, its_encoding, header, values)

    def _publish_view(
        self,
        place: str,
        picture: NDArray[np.uint8],
        encoding: str,
        header: Header,
        camera_info: CameraInfo | None,
    ) -> None:
        """Publish an image in the visible pixels, and the camera_info that fits it."""
        # camera_info first: a subscriber of both should have it when the image comes.
        if camera_info is not None:
            info = copy(camera_info)
            info.header = header
            self._publishers[f'{place}/camera_info'].publish(info)
        self._publishers[f'{place}/image_raw'].publish(encode(picture, encoding, header, Image))

    def _publish_weights(
        self, weights: NDArray[np.float32], encoding: str, header: Header
    ) -> None:
        for source, own in zip(self._sources, weights, strict=True):
            topic = f'fused/weights/{source}'
            if self._is_heard(topic):
                plane = weight_plane(own, encoding)
                self._publishers[topic].publish(encode(plane, encoding, header, Image))

    def _publish_compressed(
        self,
        topic: str,
        picture: NDArray[np.uint8],
        encoding: str,
        header: Header,
        values: Mapping[str, Any],
    ) -> None:
        if self._is_heard(topic + _COMPRESSED):
            message = encode_compressed(
                picture,
                encoding,
                header,
                CompressedImage,
                kind=values['compressed_format'],
                jpeg_quality=values['jpeg_quality'],
            )
            self._publishers[topic + _COMPRESSED].publish(message)

    def close(self) -> None:
        """Remove the publishers."""
        for publisher in self._publishers.values():
            self._node.destroy_lifecycle_publisher(publisher)
        self._publishers.clear()
