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

"""The content of bags: topics, recorded messages, and message types."""

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

# What definitions of messages stay far below: characters, fields of all types together, elements
# of a message that are read one by one, levels of <> and operators in IDL.
_LONGEST_DEFINITION = 1 << 18
_MOST_FIELDS, _MOST_ELEMENTS, _DEEPEST, _MOST_OPERATORS = 4096, 4096, 3, 50

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


class DefinitionError(ValueError):
    """A bag's definition of a type must not be used; the message says why."""


@dataclass(frozen=True)
class Topic:
    """
    One topic of a bag.

    :param type: as ``sensor_msgs/msg/Image``.
    :param count: number of its messages that the bag holds.
    :param serialization: ``cdr`` in ROS 2; tools other than rosbag2 may write others.
    """

    name: str
    type: str
    count: int
    serialization: str = 'cdr'

    @property
    def kind(self) -> str:
        """The type, and the serialisation if it is not that of ROS 2."""
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

    :param serialization: ``cdr``; tools other than rosbag2 may write others.
    :param format: language of the definition, ``ros2msg`` or ``ros2idl``; empty without one.
    """

    topic: str
    type: str
    count: int
    serialization: str
    format: str
    definition: str


def is_image(topic: Topic) -> bool:
    """Return whether a topic holds images that can be decoded here."""
    if topic.serialization != 'cdr':
        return False
    if topic.type == COMPRESSED_IMAGE_TYPE:
        return not topic.name.endswith('/compressedDepth')
    return topic.type == IMAGE_TYPE


def conversion_advice(topics: Mapping[str, Topic]) -> list[str]:
    """
    Say which topics hold images that are not ROS 2 images, and how to convert them.

    :return: clauses; none if there are no such topics.
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
    """
    Return the types of a definition that a bag embeds, and no others.

    A definition is compiled to a program, so it has to be small, and whatever it reads must take
    bytes of the message. The parsers raise many kinds of errors.

    :raises DefinitionError: it is unlike any message, or one of ours with other fields.
    """
    from rosbags.typesys import get_types_from_idl, get_types_from_msg, get_typestore, Stores

    text = connection.definition
    if len(text) > _LONGEST_DEFINITION:
        raise DefinitionError(f'it has more than {_LONGEST_DEFINITION} characters')
    types: dict[str, Any] = {}
    if connection.format == 'ros2msg':
        types.update(get_types_from_msg(text, connection.type))
    elif connection.format in ('ros2idl', 'omgidl'):
        _check_idl(text)
        separator = f'{"=" * 80}\n'
        for part in text.split(separator):
            part = re.sub(r'\AIDL: .*\n', '', part)
            if part.strip():
                types.update(get_types_from_idl(part))
    else:
        raise ValueError(f'its language {connection.format!r} is unknown')
    # Some tools leave out the common types that a definition names.
    pending = list(types)
    while pending:
        for name in re.findall(r"'(\w+/msg/\w+)'", repr(types[pending.pop()][1])):
            if name not in types and name in default.fielddefs:
                types[name] = default.fielddefs[name]
                pending.append(name)
    _check_same(connection.type, types, default)
    _check_size(connection.type, types)
    typestore = get_typestore(Stores.EMPTY)
    typestore.register(types)
    typestore.get_msgdef(connection.type)
    return typestore


def _check_idl(text: str) -> None:
    """Refuse what would keep the parser of rosbags busy for years, and no message has."""
    code = re.sub(r'"(?:[^"\\]|\\.)*"|//[^\n]*|/\*.*?\*/', '', text, flags=re.DOTALL)
    depths = {'(': 0, '<': 0}
    for mark in re.findall(r'[()<>]', code):
        if mark in depths:
            depths[mark] += 1
        else:
            depths['(' if mark == ')' else '<'] -= 1
        if depths['('] > 1 or depths['<'] > _DEEPEST:
            raise DefinitionError('its brackets are nested')
    if len(re.findall(r'[-+*/%|^&~]', code)) > _MOST_OPERATORS:
        raise DefinitionError('it has long formulas')


def _check_same(root: str, types: dict[str, Any], default: Any) -> None:
    """Refuse redefined messages whose fields are used by name."""
    if root not in (IMAGE_TYPE, COMPRESSED_IMAGE_TYPE, CAMERA_INFO_TYPE):
        return
    pending, seen = [root], {root}
    while pending:
        name = pending.pop()
        own, ours = types[name][1], default.fielddefs[name][1]
        if _bare(own) != _bare(ours):
            fields = ', '.join(str(field) for field, _ in ours)
            raise DefinitionError(
                f'it redefines {name}, which has the fields {fields}: convert the bag'
            )
        for found in re.findall(r"'(\w+/msg/\w+)'", repr(own)):
            if found not in seen and found in default.fielddefs:
                seen.add(found)
                pending.append(found)


def _bare(fields: Any) -> list[tuple[str, str]]:
    """Return fields without what does not affect a message: case, and bounds of strings."""
    return [
        (str(name).lower(), re.sub(r"\('string', \d+\)", 'string', repr(what)))
        for name, what in fields
    ]


def _check_size(root: str, types: dict[str, Any]) -> None:
    """Refuse types that are too large, contain themselves, or are lists of nothing."""
    from rosbags.interfaces import Nodetype

    if sum(1 + len(fields) for _, fields in types.values()) > _MOST_FIELDS:
        raise DefinitionError(f'it has more than {_MOST_FIELDS} fields')
    # (elements to be read one by one, bytes that they take at least); None while it is looked at.
    known: dict[str, tuple[int, int] | None] = {}

    def size_of(what: Any) -> tuple[int, int]:
        kind, argument = what
        if kind == Nodetype.BASE:
            return 1, 1
        if kind == Nodetype.NAME:
            return size_of_type(argument)
        inner, count = argument
        elements, least = size_of(inner)
        if kind == Nodetype.ARRAY and inner[0] == Nodetype.BASE and inner[1][0] != 'string':
            return 1, count  # numbers are read in one piece
        if kind == Nodetype.SEQUENCE:
            if not least:
                raise DefinitionError('it has lists of messages without fields')
            return 1 + elements, 4
        if count * elements > _MOST_ELEMENTS:
            raise DefinitionError(f'it has an array of {count} elements')
        return count * elements, count * least

    def size_of_type(name: str) -> tuple[int, int]:
        if name not in known:
            known[name] = None
            sizes = [size_of(what) for _, what in types[name][1]]
            known[name] = sum(s[0] for s in sizes), sum(s[1] for s in sizes)
        size = known[name]
        if size is None:
            raise DefinitionError(f'{name} contains itself')
        if size[0] > _MOST_ELEMENTS:
            raise DefinitionError(f'{name} has more than {_MOST_ELEMENTS} elements')
        return size

    size_of_type(root)
    for name in types:
        size_of_type(name)
