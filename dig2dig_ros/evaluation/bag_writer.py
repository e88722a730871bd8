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

"""Write bags in both storages."""

from __future__ import annotations

from pathlib import Path
import re
import sqlite3
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dig2dig_ros.evaluation.bag_types import (
    BagError,
    default_typestore,
    IMAGE_TYPE,
    require_rosbags,
)
from dig2dig_ros.streams.codec import encode


class BagWriter:
    """
    Writes a bag folder that ``rosbags``, ``ros2 bag info`` and ``ros2 bag play`` open.

    Messages are embedded with their definitions. The folder becomes a bag when it is closed:
    ``metadata.yaml`` is written last, so a process that dies leaves none that looks complete.
    Leaving a ``with`` block by an exception has the same effect; to keep what is there, call
    :meth:`close` before.

    :param path: of the folder, which is made.
    :param storage: ``'sqlite3'`` or ``'mcap'``.
    :raises BagError: the path exists, or cannot be written.
    """

    def __init__(self, path: Path, storage: str) -> None:
        require_rosbags()
        from rosbags.rosbag2 import StoragePlugin, Writer

        self.path = Path(path)
        plugins = {'sqlite3': StoragePlugin.SQLITE3, 'mcap': StoragePlugin.MCAP}
        if storage not in plugins:
            raise BagError(f"unknown storage '{storage}': use one of {', '.join(plugins)}")
        if storage == 'sqlite3' and re.search('[#?%]', str(self.path)):
            raise BagError(
                f'cannot write sqlite3 to {self.path}: the path must not contain #, ? or %'
            )
        if self.path.exists():
            raise BagError(f'{self.path} already exists: choose another name')
        self._connections: dict[str, Any] = {}
        # Version 8 is the newest that Humble reads: 9 has lists where it expects text.
        self._writer: Any = Writer(self.path, version=8, storage_plugin=plugins[storage])
        try:
            self._writer.open()
        except (OSError, sqlite3.Error) as error:
            raise BagError(f'cannot write the bag {self.path}: {error}') from error

    def add_topic(self, name: str, message_type: str) -> None:
        """
        Announce a topic, which ``ros2 bag play`` will publish as reliable.

        :param message_type: as ``sensor_msgs/msg/Image``: one of ROS itself, vision_msgs or
            yolo_msgs.
        :raises BagError: the type is unknown, or the topic was added before.
        """
        from rosbags import interfaces as qos

        typestore = default_typestore()
        if name in self._connections:
            raise BagError(f'topic {name} was already added to {self.path}')
        if message_type not in typestore.fielddefs:
            reason = f'type {message_type} is unknown'
            raise BagError(f'cannot write topic {name} to {self.path}: {reason}')
        never = qos.QosTime(9223372036, 854775807)
        offered = qos.Qos(
            qos.QosHistory.KEEP_LAST,
            10,
            qos.QosReliability.RELIABLE,
            qos.QosDurability.VOLATILE,
            never,
            never,
            qos.QosLiveliness.AUTOMATIC,
            never,
            False,
        )
        self._connections[name] = self._writer.add_connection(
            name, message_type, typestore=typestore, offered_qos_profiles=[offered]
        )

    def write(self, topic: str, message: Any, time: int) -> None:
        """
        Write a message object of ``rosbags``, or any with the fields of the topic's type.

        :param time: of its recording, in nanoseconds.
        :raises BagError: the topic was not added, or the message is not of its type.
        """
        kind = self._connection(topic).msgtype
        try:
            data = default_typestore().serialize_cdr(message, kind)
        except Exception as error:
            # Wrong fields end the serialiser of a type in many kinds of errors.
            raise BagError(f'cannot write to topic {topic}, not a {kind}: {error}') from error
        self.write_raw(topic, bytes(data), time)

    def write_raw(self, topic: str, data: bytes, time: int) -> None:
        """
        Write a message that is serialised already, such as :attr:`Record.data`.

        :raises BagError: the topic was not added, or there is no room left.
        """
        connection = self._connection(topic)
        try:
            self._writer.write(connection, time, data)
        except (OSError, sqlite3.Error) as error:
            raise BagError(f'cannot write to the bag {self.path}: {error}') from error

    def _connection(self, topic: str) -> Any:
        if self._writer is None:
            raise BagError(f'the bag {self.path} is closed')
        if topic not in self._connections:
            raise BagError(f'topic {topic} was not added to the bag {self.path}')
        return self._connections[topic]

    def close(self) -> None:
        """
        Complete the bag; may be called again.

        :raises BagError: there is no room left.
        """
        writer, self._writer = self._writer, None
        if writer is None:
            return
        try:
            writer.close()
        except (OSError, sqlite3.Error) as error:
            raise BagError(f'cannot complete the bag {self.path}: {error}') from error

    def __enter__(self) -> BagWriter:
        return self

    def __exit__(self, kind: object, *details: object) -> None:
        if kind is None:
            self.close()
        elif self._writer is not None:
            writer, self._writer = self._writer, None
            writer.abort()


def image_message(array: NDArray[Any], encoding: str, header: Any) -> Any:
    """
    Return a ``sensor_msgs/Image`` of ``rosbags``.

    :param array: pixels as :func:`dig2dig_ros.streams.codec.encode` takes them, colour in
        blue-green-red order.
    :param header: becomes the header of the message as it is, not a copy of it.
    :raises CodecError: encoding and array do not match.
    """
    require_rosbags()
    fields = vars(encode(array, encoding, header, SimpleNamespace))
    fields['data'] = np.frombuffer(fields['data'], np.uint8)
    return default_typestore().types[IMAGE_TYPE](**fields)
