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

"""What bags hold: topics, recorded messages, and the types of their messages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
import re
from typing import Any

from dig2dig_ros.evaluation.options import UsageError

IMAGE_TYPE = 'sensor_msgs/msg/Image'
COMPRESSED_IMAGE_TYPE = 'sensor_msgs/msg/CompressedImage'
CAMERA_INFO_TYPE = 'sensor_msgs/msg/CameraInfo'

# The interfaces of the detectors whose messages are read, for bags that embed no definitions
# (sqlite3 up to Humble). vision_msgs 3 has geometry_msgs/Pose2D for its centre, whose three
# numbers lie in the message as those of vision_msgs/Pose2D do: one definition reads both.
_DETECTION_TYPES = """
vision_msgs/Point2D: float64 x, float64 y
vision_msgs/Pose2D: vision_msgs/Point2D position, float64 theta
vision_msgs/BoundingBox2D: vision_msgs/Pose2D center, float64 size_x, float64 size_y
vision_msgs/ObjectHypothesis: string class_id, float64 score
vision_msgs/ObjectHypothesisWithPose: vision_msgs/ObjectHypothesis hypothesis,
    geometry_msgs/PoseWithCovariance pose
vision_msgs/Detection2D: std_msgs/Header header, vision_msgs/ObjectHypothesisWithPose[] results,
    vision_msgs/BoundingBox2D bbox, string id
vision_msgs/Detection2DArray: std_msgs/Header header, vision_msgs/Detection2D[] detections
yolo_msgs/Point2D: float64 x, float64 y
yolo_msgs/Vector2: float64 x, float64 y
yolo_msgs/Pose2D: yolo_msgs/Point2D position, float64 theta
yolo_msgs/BoundingBox2D: yolo_msgs/Pose2D center, yolo_msgs/Vector2 size
yolo_msgs/BoundingBox3D: geometry_msgs/Pose center, geometry_msgs/Vector3 size, string frame_id
yolo_msgs/Mask: int32 height, int32 width, yolo_msgs/Point2D[] data
yolo_msgs/KeyPoint2D: int32 id, yolo_msgs/Point2D point, float64 score
yolo_msgs/KeyPoint2DArray: yolo_msgs/KeyPoint2D[] data
yolo_msgs/KeyPoint3D: int32 id, geometry_msgs/Point point, float64 score
yolo_msgs/KeyPoint3DArray: yolo_msgs/KeyPoint3D[] data, string frame_id
yolo_msgs/Detection: int32 class_id, string class_name, float64 score, string id,
    yolo_msgs/BoundingBox2D bbox, yolo_msgs/BoundingBox3D bbox3d, yolo_msgs/Mask mask,
    yolo_msgs/KeyPoint2DArray keypoints, yolo_msgs/KeyPoint3DArray keypoints3d
yolo_msgs/DetectionArray: std_msgs/Header header, yolo_msgs/Detection[] detections
"""


class BagError(UsageError):
    """A bag cannot be read or written; the text says which, what is wrong and what to do."""


@dataclass(frozen=True)
class Topic:
    """
    One topic of a bag.

    :param type: as ``sensor_msgs/msg/Image``.
    :param count: number of its messages that the bag holds.
    :param serialization: ``cdr``, that of ROS 2; other tools than rosbag2 may write others.
    """

    name: str
    type: str
    count: int
    serialization: str = 'cdr'

    @property
    def kind(self) -> str:
        """The type, and the serialisation where it is not that of ROS 2."""
        return self.type + ('' if self.serialization == 'cdr' else f' as {self.serialization}')


@dataclass(frozen=True)
class Record:
    """
    One message as it was recorded.

    :param time: of its recording, in nanoseconds.
    :param data: the serialised message (CDR, with its header of four bytes).
    """

    topic: str
    type: str
    time: int
    data: bytes


@dataclass(frozen=True)
class Connection:
    """
    What a file says about a topic.

    :param serialization: ``cdr``; other tools than rosbag2 may write others.
    :param format: language of the definition, ``ros2msg`` or ``ros2idl``; empty without one.
    """

    topic: str
    type: str
    count: int
    serialization: str
    format: str
    definition: str


def is_image(topic: Topic) -> bool:
    """Tell whether a topic holds images that can be decoded here."""
    if topic.serialization != 'cdr':
        return False
    if topic.type == COMPRESSED_IMAGE_TYPE:
        return not topic.name.endswith('/compressedDepth')
    return topic.type == IMAGE_TYPE


def conversion_advice(topics: Mapping[str, Topic]) -> list[str]:
    """
    Say which topics hold images that are no images of ROS 2, and how they become some.

    :return: clauses; none where there are no such topics.
    """
    found: dict[str, str] = {}
    for topic in topics.values():
        if topic.count and not is_image(topic) and (text := _how_to_convert(topic)):
            found.setdefault(text, f'{topic.name} is {topic.kind}')
    return [f'{topic}, {text}' for text, topic in found.items()]


def _how_to_convert(topic: Topic) -> str:
    kind, serialization = topic.type, topic.serialization
    if re.search('CompressedVideo|FFMPEGPacket|theora_image_transport', kind):
        return (
            'which is a video: decode it to sensor_msgs/msg/Image first, for example with '
            'ros2 run image_transport republish'
        )
    if not re.search('Image', kind):
        return ''
    if serialization == 'ros1' or kind in ('sensor_msgs/Image', 'sensor_msgs/CompressedImage'):
        return (
            'which is of ROS 1: convert the bag, with rosbags-convert --src FILE.bag --dst FOLDER '
            '(from pip install rosbags)'
        )
    if not kind.startswith('foxglove') and serialization == 'cdr':
        return ''
    whose = "which is Foxglove's, not ROS 2's" if kind.startswith('foxglove') else 'not as cdr'
    return (
        f'{whose}: convert it to an image of sensor_msgs, as "Bags of other tools" in '
        'docs/evaluation.md shows'
    )


def topic_listing(topics: Mapping[str, Topic]) -> str:
    """Return a line for each topic, aligned, images first."""
    order = sorted(topics.values(), key=lambda topic: (not is_image(topic), topic.name))
    if not order:
        return '  no topics'
    width = max(len(topic.name) for topic in order)
    type_width = max(len(topic.type) for topic in order)
    digits = max(len(str(topic.count)) for topic in order)
    return '\n'.join(
        f'  {topic.name:{width}}  {topic.type:{type_width}}  {topic.count:{digits}} messages'
        for topic in order
    )


def require_rosbags() -> None:
    try:
        import rosbags.rosbag2  # noqa: F401
    except ImportError as error:
        raise BagError(
            'bags need the library rosbags: install the extra "evaluation" of dig2dig, or pip '
            f'install rosbags; {error}'
        ) from error


@lru_cache(maxsize=4)
def default_typestore(distro: str = '') -> Any:
    """Return the types of a ROS distribution, Humble where it is not known, and detections."""
    from rosbags.typesys import get_types_from_msg, get_typestore, Stores

    # Bags without definitions are older than Iron, and images are the same in all.
    known = {store.value.removeprefix('ros2_'): store for store in Stores}
    typestore = get_typestore(known.get(distro, Stores.ROS2_HUMBLE))
    types: dict[str, Any] = {}
    for line in _DETECTION_TYPES.replace('\n    ', ' ').strip().splitlines():
        name, _, fields = line.partition(': ')
        types.update(get_types_from_msg(fields.replace(', ', '\n'), name.replace('/', '/msg/')))
    typestore.register(types)
    return typestore


def embedded_typestore(connection: Connection, default: Any) -> Any:
    """Return the types of a definition that a bag embeds, and no others."""
    from rosbags.typesys import get_types_from_idl, get_types_from_msg, get_typestore, Stores

    types: dict[str, Any] = {}
    if connection.format == 'ros2msg':
        types.update(get_types_from_msg(connection.definition, connection.type))
    elif connection.format in ('ros2idl', 'omgidl'):
        separator = f'{"=" * 80}\n'
        for part in connection.definition.split(separator):
            text = re.sub(r'\AIDL: .*\n', '', part)
            if text.strip():
                types.update(get_types_from_idl(text))
    else:
        raise ValueError(f'its language {connection.format!r} is unknown')
    # Some tools leave out the common types that a definition names.
    pending = list(types)
    while pending:
        for name in re.findall(r"'(\w+/msg/\w+)'", repr(types[pending.pop()][1])):
            if name not in types and name in default.fielddefs:
                types[name] = default.fielddefs[name]
                pending.append(name)
    typestore = get_typestore(Stores.EMPTY)
    typestore.register(types)
    typestore.get_msgdef(connection.type)
    return typestore
