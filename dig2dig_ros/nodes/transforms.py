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

"""The pose of the thermal camera from tf2, if installed."""

from __future__ import annotations

from typing import Any

import numpy as np
from rclpy.time import Time

from dig2dig_ros.images.geometry import RegistrationError, rotation_of_quaternion
from dig2dig_ros.streams.registrar import Pose


class Transforms:
    """
    Listens to tf.

    :param node: whose executor hears the transforms.
    :raises RegistrationError: tf2_ros is not installed.
    """

    def __init__(self, node: Any) -> None:
        try:
            from tf2_ros import Buffer, TransformListener
        except ImportError as error:
            raise RegistrationError(
                f"extrinsics: tf needs tf2_ros ({error}): install it, or give a YAML file's path"
            ) from error
        # Without the node, which would only add a service and its own handling of clock jumps.
        self._buffer = Buffer()
        self._listener = TransformListener(self._buffer, node)

    def pose(self, target: str, source: str) -> Pose:
        """
        Return the pose of a frame in another one, the latest known.

        :param target: the visible camera's optical frame.
        :param source: the thermal camera's.
        :return: rotation (3, 3) and translation (3,) in m.
        :raises RegistrationError: tf does not know it (yet).
        """
        try:
            transform = self._buffer.lookup_transform(target, source, Time()).transform
        except Exception as error:  # tf2's own exceptions have no common import
            raise RegistrationError(
                f"tf does not know where '{source}' is in '{target}': {error}"
            ) from error
        q, t = transform.rotation, transform.translation
        return rotation_of_quaternion((q.x, q.y, q.z, q.w)), np.array([t.x, t.y, t.z])

    def close(self) -> None:
        """Stop listening."""
        self._listener.unregister()
