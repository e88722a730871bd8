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

"""Small bags for tests, as recorders of several distributions leave them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
import sqlite3
from typing import Any

import cv2
from mcap.writer import CompressionType
from mcap.writer import Writer as McapWriter
import numpy as np
from numpy.typing import NDArray
from rosbags.interfaces import (
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import get_types_from_msg, get_typestore, Stores

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND

STORE = get_typestore(Stores.ROS2_HUMBLE)
_SENSOR_DATA = Qos(
    QosHistory.KEEP_LAST,
    5,
    QosReliability.BEST_EFFORT,
    QosDurability.VOLATILE,
    QosTime(0, 0),
    QosTime(0, 0),
    QosLiveliness.AUTOMATIC,
    QosTime(0, 0),
    False,
)


def store_with(definitions: Mapping[str, str]) -> Any:
    """Return the types of Humble and further ones, by name and text."""
    store = get_typestore(Stores.ROS2_HUMBLE)
    types: dict[str, Any] = {}
    for name, text in definitions.items():
        types.update(get_types_from_msg(text, name))
    store.register(types)
    return store


def header(stamp: int, frame: str = 'camera') -> Any:
    """Return a header with a stamp in nanoseconds."""
    time = STORE.types['builtin_interfaces/msg/Time'](sec=stamp // SECOND, nanosec=stamp % SECOND)
    return STORE.types['std_msgs/msg/Header'](stamp=time, frame_id=frame)


def image(
    stamp: int, array: NDArray[Any] | None = None, encoding: str = '', frame: str = 'camera'
) -> Any:
    """Return a sensor_msgs/Image; the encoding is told from the array where it is not given."""
    if array is None:
        array = np.full((4, 6), stamp // 1000 % 256, np.uint8)
    kinds = {(2, 'uint8'): 'mono8', (2, 'uint16'): 'mono16', (3, 'uint8'): 'bgr8'}
    return STORE.types['sensor_msgs/msg/Image'](
        header=header(stamp, frame),
        height=array.shape[0],
        width=array.shape[1],
        encoding=encoding or kinds[array.ndim, array.dtype.name],
        is_bigendian=0,
        step=array.strides[0],
        data=np.ascontiguousarray(array).reshape(-1).view(np.uint8),
    )


def compressed_image(
    stamp: int, array: NDArray[Any], kind: str = 'jpeg', frame: str = 'camera'
) -> Any:
    """Return a sensor_msgs/CompressedImage, ``jpeg`` or ``png``."""
    encoding = (
        'bgr8' if array.ndim == 3 else {'uint8': 'mono8', 'uint16': 'mono16'}[array.dtype.name]
    )
    done, data = cv2.imencode({'jpeg': '.jpg', 'png': '.png'}[kind], array)
    assert done
    return STORE.types['sensor_msgs/msg/CompressedImage'](
        header=header(stamp, frame),
        format=f'{encoding}; {kind} compressed {encoding if array.ndim == 3 else ""}',
        data=data.reshape(-1),
    )


def camera_info(stamp: int, width: int, height: int, frame: str = 'camera') -> Any:
    """Return a sensor_msgs/CameraInfo of a camera without distortion."""
    focal = float(width)
    x, y = (width - 1) / 2, (height - 1) / 2
    region = STORE.types['sensor_msgs/msg/RegionOfInterest'](0, 0, 0, 0, False)
    return STORE.types['sensor_msgs/msg/CameraInfo'](
        header=header(stamp, frame),
        height=height,
        width=width,
        distortion_model='plumb_bob',
        d=np.zeros(5),
        k=np.array([focal, 0, x, 0, focal, y, 0, 0, 1], float),
        r=np.eye(3).reshape(-1),
        p=np.array([focal, 0, x, 0, 0, focal, y, 0, 0, 0, 1, 0], float),
        binning_x=0,
        binning_y=0,
        roi=region,
    )


def write_bag(
    path: Path,
    storage: str,
    messages: Iterable[tuple[str, Any, int]],
    compression: str | None = None,
    *,
    empty_topics: Mapping[str, str] = {},
    store: Any = STORE,
    definitions: bool = True,
) -> Path:
    """
    Write a bag folder and return the path of the one file in it.

    :param storage: ``sqlite3`` or ``mcap``.
    :param messages: (topic, message or (type, its serialised bytes), time in nanoseconds).
    :param compression: ``file``, ``message``, or for mcap ``storage`` (chunks, zstd).
    :param empty_topics: types of topics without messages, by name.
    :param definitions: sqlite3 only: False leaves them out, as Humble does.
    """
    plugin = StoragePlugin.MCAP if storage == 'mcap' else StoragePlugin.SQLITE3
    writer = Writer(path, version=8, storage_plugin=plugin)
    mode = CompressionMode[(compression or 'none').upper()]
    writer.set_compression(mode, CompressionFormat.ZSTD)
    with writer:
        connections: dict[str, Any] = {}

        def connection(topic: str, kind: str) -> Any:
            if topic not in connections:
                connections[topic] = writer.add_connection(
                    topic, kind, typestore=store, offered_qos_profiles=[_SENSOR_DATA]
                )
            return connections[topic]

        for topic, kind in empty_topics.items():
            connection(topic, kind)
        for topic, message, time in messages:
            kind, data = serialised(message, store)
            writer.write(connection(topic, kind), time, data)
    (file,) = (p for p in path.iterdir() if p.name != 'metadata.yaml')
    if not definitions:
        forget_definitions(file)
    return file


def serialised(message: Any, store: Any = STORE) -> tuple[str, bytes]:
    """Return type and bytes of a message."""
    if isinstance(message, tuple):
        return message
    kind = message.__msgtype__
    return kind, bytes(store.serialize_cdr(message, kind))


def forget_definitions(file: Path) -> None:
    """Bring an sqlite3 file into the schema of Humble, which has no message definitions."""
    database = sqlite3.connect(file)
    with database:
        database.executescript(
            'DROP TABLE schema; DROP TABLE metadata; DROP TABLE message_definitions;'
            'ALTER TABLE topics DROP COLUMN type_description_hash;'
        )
    database.close()


def write_mcap(
    file: Path,
    messages: Iterable[tuple[str, Any, int]],
    *,
    chunk_size: int = 4096,
    compression: str = 'none',
    chunked: bool = True,
    store: Any = STORE,
    schema_encoding: str = 'ros2msg',
    message_encoding: str = 'cdr',
    profile: str = 'ros2',
) -> Path:
    """
    Write a lone mcap file with chunks of a chosen size and compression, or none.

    :param compression: of chunks: ``none``, ``lz4`` or ``zstd``.
    """
    with file.open('wb') as stream:
        writer = McapWriter(
            stream,
            chunk_size=chunk_size,
            compression=CompressionType[compression.upper()],
            use_chunking=chunked,
        )
        writer.start(profile)
        channels: dict[str, int] = {}
        schemas: dict[str, int] = {}
        for topic, message, time in messages:
            kind, data = serialised(message, store)
            if kind not in schemas:
                text, _ = store.generate_msgdef(kind, ros_version=2)
                schemas[kind] = writer.register_schema(kind, schema_encoding, text.encode())
            if topic not in channels:
                channels[topic] = writer.register_channel(topic, message_encoding, schemas[kind])
            writer.add_message(channels[topic], time, data, time)
        writer.finish()
    return file
