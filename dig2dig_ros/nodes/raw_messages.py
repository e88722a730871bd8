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

"""Messages as they are serialised: their types by name, their publishers and their stamps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
import struct
from typing import Any

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy


def message_type(name: str) -> Any:
    """
    Return the Python class of a message type, or None where this installation lacks it.

    :param name: such as 'sensor_msgs/msg/Image'.
    """
    package, _, rest = name.partition('/')
    try:
        return getattr(import_module(f'{package}.msg'), rest.removeprefix('msg/'), None)
    except (ImportError, TypeError):  # the second where there is no package before the slash
        return None


def raw_publishers(node: Node, types: Mapping[str, str], own: Sequence[str]) -> dict[str, Any]:
    """
    Return publishers for what was recorded, and say in the node's log which topics have none.

    They are reliable, which subscribers of both kinds accept. The frames that never move are sent
    once, and who comes later must hear of them too.

    :param types: of the topics by name.
    :param own: topics, and folders of them, that are made anew and therefore not published.
    """
    publishers: dict[str, Any] = {}
    unknown, anew = [], []
    for name, type_name in types.items():
        kind = message_type(type_name)
        if any(name == other or name.startswith(f'{other}/') for other in own):
            anew.append(name)
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
    if anew:
        node.get_logger().info(f'not played, for they are made anew: {", ".join(anew)}')
    if unknown:
        node.get_logger().warning(
            f'not played, for this ROS installation lacks their types: {", ".join(unknown)}'
        )
    return publishers


def header_stamp(data: bytes) -> int:
    """
    Return the stamp in nanoseconds of a serialised message that begins with a header.

    :param data: CDR as DDS sends it: four bytes of encapsulation, whose second tells the byte
        order, then the stamp's seconds (32 bits, signed) and nanoseconds (32 bits).
    :raises ValueError: it is too short to hold a stamp.
    """
    if len(data) < 12:
        raise ValueError(f'a message of {len(data)} bytes has no stamp')
    seconds, nanoseconds = struct.unpack_from('<iI' if data[1] & 1 else '>iI', data, 4)
    return int(seconds) * 1_000_000_000 + int(nanoseconds)
