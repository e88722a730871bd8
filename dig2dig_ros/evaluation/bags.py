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

"""
ROS 2 bags: what is in them, their messages in order of recording time, and new ones.

The library ``rosbags`` reads and writes both storages, sqlite3 and mcap. Where a recording was
cut off or a file is damaged it refuses the file, and what can still be read is read here, by
SQLite and by the library ``mcap``: see :attr:`BagReader.problems`.

ROS is not needed. ``rosbags`` and ``mcap`` are the extra ``evaluation`` and are imported when a
bag is opened.
"""

from __future__ import annotations

from array import array as integers
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from heapq import heappop, heappush, heapreplace
from pathlib import Path, PurePosixPath
import re
import shutil
import sqlite3
import sys
from tempfile import TemporaryDirectory
from types import SimpleNamespace, TracebackType
from typing import Any, Protocol
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
import yaml

from dig2dig_ros.streams.codec import encode

IMAGE_TYPE = 'sensor_msgs/msg/Image'
COMPRESSED_IMAGE_TYPE = 'sensor_msgs/msg/CompressedImage'
CAMERA_INFO_TYPE = 'sensor_msgs/msg/CameraInfo'

_STORAGES = {'sqlite3': '.db3', 'mcap': '.mcap'}
_MAGIC = {b'SQLite format 3\0': 'sqlite3', b'\x89MCAP0\r\n': 'mcap'}
_ROS1_MAGIC = b'#ROSBAG V'
_ZSTD_MAGIC = b'\x28\xb5\x2f\xfd'
_MCAP_MAGIC_BYTES = 8
# Messages outside chunks are read in groups of about this size, that of a usual chunk.
_GROUP_BYTES = 1 << 20

# The interfaces of the detectors whose messages are read, for bags that embed no definitions
# (sqlite3 up to Humble). vision_msgs 3 has geometry_msgs/Pose2D for its centre, whose three
# numbers lie in the message as those of vision_msgs/Pose2D do: one definition reads both.
_DETECTION_TYPES = {
    'vision_msgs/msg/Point2D': 'float64 x\nfloat64 y',
    'vision_msgs/msg/Pose2D': 'vision_msgs/Point2D position\nfloat64 theta',
    'vision_msgs/msg/BoundingBox2D': ('vision_msgs/Pose2D center\nfloat64 size_x\nfloat64 size_y'),
    'vision_msgs/msg/ObjectHypothesis': 'string class_id\nfloat64 score',
    'vision_msgs/msg/ObjectHypothesisWithPose': (
        'vision_msgs/ObjectHypothesis hypothesis\ngeometry_msgs/PoseWithCovariance pose'
    ),
    'vision_msgs/msg/Detection2D': (
        'std_msgs/Header header\nvision_msgs/ObjectHypothesisWithPose[] results\n'
        'vision_msgs/BoundingBox2D bbox\nstring id'
    ),
    'vision_msgs/msg/Detection2DArray': (
        'std_msgs/Header header\nvision_msgs/Detection2D[] detections'
    ),
    'yolo_msgs/msg/Point2D': 'float64 x\nfloat64 y',
    'yolo_msgs/msg/Vector2': 'float64 x\nfloat64 y',
    'yolo_msgs/msg/Pose2D': 'yolo_msgs/Point2D position\nfloat64 theta',
    'yolo_msgs/msg/BoundingBox2D': 'yolo_msgs/Pose2D center\nyolo_msgs/Vector2 size',
    'yolo_msgs/msg/BoundingBox3D': (
        'geometry_msgs/Pose center\ngeometry_msgs/Vector3 size\nstring frame_id'
    ),
    'yolo_msgs/msg/Mask': 'int32 height\nint32 width\nyolo_msgs/Point2D[] data',
    'yolo_msgs/msg/KeyPoint2D': 'int32 id\nyolo_msgs/Point2D point\nfloat64 score',
    'yolo_msgs/msg/KeyPoint2DArray': 'yolo_msgs/KeyPoint2D[] data',
    'yolo_msgs/msg/KeyPoint3D': 'int32 id\ngeometry_msgs/Point point\nfloat64 score',
    'yolo_msgs/msg/KeyPoint3DArray': 'yolo_msgs/KeyPoint3D[] data\nstring frame_id',
    'yolo_msgs/msg/Detection': (
        'int32 class_id\nstring class_name\nfloat64 score\nstring id\n'
        'yolo_msgs/BoundingBox2D bbox\nyolo_msgs/BoundingBox3D bbox3d\nyolo_msgs/Mask mask\n'
        'yolo_msgs/KeyPoint2DArray keypoints\nyolo_msgs/KeyPoint3DArray keypoints3d'
    ),
    'yolo_msgs/msg/DetectionArray': ('std_msgs/Header header\nyolo_msgs/Detection[] detections'),
}


class BagError(ValueError):
    """A bag cannot be read or written; the text says which, what is wrong and what to do."""


@dataclass(frozen=True)
class Topic:
    """
    One topic of a bag.

    :param type: as ``sensor_msgs/msg/Image``.
    :param count: number of its messages that the bag holds.
    """

    name: str
    type: str
    count: int


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
class _Connection:
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


class _Storage(Protocol):
    """One opened file; its times are the first and the last, both None without messages."""

    connections: list[_Connection]
    start: int | None
    end: int | None

    def records(self, topics: Collection[str]) -> Iterator[Record]: ...

    def close(self) -> None: ...


class BagReader:
    """
    A bag: a folder with its ``metadata.yaml``, or one ``.mcap`` or ``.db3`` file.

    Files, chunks and messages may be compressed. What a recorder left that was cut off (no
    ``metadata.yaml``, no index, half a file) is read as far as possible, and
    :attr:`problems` says what is missing.

    It is open from the start; leave a ``with`` block or call :meth:`close`.

    :ivar name: of the folder or file, without suffix.
    :ivar storage: ``'sqlite3'`` or ``'mcap'``.
    :ivar topics: all topics by name, those without messages included.
    :ivar start: recording time of the first message in nanoseconds, 0 without messages.
    :ivar end: recording time of the last message in nanoseconds, 0 without messages.
    :ivar problems: sentences on what could not be read; damage that lies deep in the bag is
        found only while reading, so look again afterwards.
    :raises BagError: there is no bag, or nothing of it can be read.
    """

    path: Path
    name: str
    storage: str
    topics: dict[str, Topic]
    start: int
    end: int
    problems: list[str]

    def __init__(self, path: str | Path) -> None:
        _require_rosbags()
        self.path = Path(path)
        if self.path.name == 'metadata.yaml':
            self.path = self.path.parent
        self.name = _bag_name(self.path)
        self.problems = []
        self._typestores: dict[str, Any] = {}
        self._stack = ExitStack()
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        paths, metadata = _bag_files(self.path, self._note)
        self._distro = metadata.distro if metadata is not None else ''
        self._files: list[_BagFile] = []
        failures: list[str] = []
        for path in paths:
            try:
                file = _BagFile(path, self._scratch_folder, self._note)
            except BagError as error:
                failures.append(str(error))
                continue
            self._stack.callback(file.close)
            self._files.append(file)
        if not self._files:
            raise BagError('; '.join(failures))
        for failure in failures:
            self._note(f'{failure}: it is left out')

        self.storage = self._files[0].storage
        self._connections = [c for file in self._files for c in file.connections]
        self.topics = self._count_topics(metadata)
        self.start = min((f.start for f in self._files if f.start is not None), default=0)
        self.end = max((f.end for f in self._files if f.end is not None), default=0)

    def _scratch_folder(self) -> Path:
        folder = TemporaryDirectory(prefix='dig2dig-bag-')
        return Path(self._stack.enter_context(folder))

    def _count_topics(self, metadata: _Metadata | None) -> dict[str, Topic]:
        counts: Counter[str] = Counter()
        types: dict[str, str] = {}
        for connection in self._connections:
            counts[connection.topic] += connection.count
            known = types.setdefault(connection.topic, connection.type)
            if known != connection.type:
                self._note(
                    f'topic {connection.topic} of {self.path} has two types, {known} and '
                    f'{connection.type}'
                )
        if metadata is not None:
            for topic in metadata.topics:
                types.setdefault(topic.name, topic.type)
                missing = topic.count - counts[topic.name]
                if missing > 0:
                    self._note(
                        f'{self.path} lacks {missing} of the {topic.count} messages on '
                        f'{topic.name} that its metadata.yaml states'
                    )
        return {name: Topic(name, types[name], counts[name]) for name in sorted(types)}

    def _note(self, problem: str) -> None:
        # A second pass over the bag meets the same problems again.
        if problem not in self.problems:
            self.problems.append(problem)

    def records(self, topics: Iterable[str]) -> Iterator[Record]:
        """
        Return the messages of some topics in order of recording time.

        They are read while they are asked for: no more than a chunk of the bag is held.

        :raises BagError: the bag has no such topic.
        """
        wanted = frozenset(topics)
        unknown = sorted(wanted - self.topics.keys())
        if unknown:
            raise BagError(
                f'no topic {unknown[0]} in {self.path}, which holds\n{topic_listing(self.topics)}'
            )
        return self._records(wanted)

    def _records(self, topics: frozenset[str]) -> Iterator[Record]:
        sources = sorted(
            ((file.start, file) for file in self._files if file.start is not None),
            key=lambda source: source[0],
        )
        opened = ((start, partial(file.records, topics)) for start, file in sources)
        lost: Counter[str] = Counter()
        for record in _in_time_order(opened):
            # A message never starts like this by itself: its first byte is 0.
            if record.data.startswith(_ZSTD_MAGIC):
                try:
                    record = replace(record, data=_zstd().decompress(record.data))
                except _zstd().ZstdError:
                    lost[record.topic] += 1
                    continue
            yield record
        for topic, count in lost.items():
            self._note(
                f'{count} of the messages on {topic} in {self.path} are damaged and cannot be '
                'decompressed: they are left out'
            )

    def decode(self, record: Record) -> Any:
        """
        Return the message object of a record, as ``rosbags`` makes it.

        Its fields are those of the ROS message, with arrays of numbers as NumPy arrays (which
        share memory with the record and are read-only).

        :raises BagError: the type is unknown, or the data is damaged.
        """
        if record.type not in self._typestores:
            self._typestores[record.type] = self._typestore(record)
        typestore = self._typestores[record.type]
        try:
            return typestore.deserialize_cdr(record.data, record.type)
        except Exception as error:
            # Random bytes end the decoder of a type in many ways, not in SerdeError alone.
            raise BagError(
                f'a message on {record.topic} ({record.type}) in {self.path}, recorded at '
                f'{record.time} ns, is damaged: {error}'
            ) from error

    def _typestore(self, record: Record) -> Any:
        """Return a store that knows the type of a record, preferably from the bag's words."""
        same = [c for c in self._connections if c.type == record.type]
        other = next((c.serialization for c in same if c.serialization != 'cdr'), None)
        if other is not None:
            raise BagError(
                f'messages on {record.topic} ({record.type}) in {self.path} are serialised as '
                f"'{other}', but only 'cdr', that of ROS 2, can be read"
            )
        default = _default_typestore(self._distro)
        reason = 'the bag has no definition of it'
        for connection in same:
            if not connection.format:
                continue
            try:
                return _embedded_typestore(connection, default)
            except Exception as error:
                # Its parser ends in many kinds of errors; the type may still be a known one.
                words = ' '.join(str(error).split())
                reason = f"the bag's definition of it cannot be read ({words[:200]})"
        if record.type in default.fielddefs:
            return default
        raise BagError(
            f'type {record.type} of topic {record.topic} in {self.path} is unknown: {reason}'
        )

    def close(self) -> None:
        """Close all files; may be called again."""
        self._stack.close()

    def __enter__(self) -> BagReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


@dataclass(frozen=True)
class _Metadata:
    """What ``metadata.yaml`` states; ``files`` are names, ``distro`` may be empty."""

    files: tuple[str, ...]
    topics: tuple[Topic, ...]
    distro: str


def _bag_name(path: Path) -> str:
    name = path.resolve().name
    if path.is_dir():
        return name
    return re.sub(r'(\.(mcap|db3))?(\.zstd)?$', '', name, count=1, flags=re.IGNORECASE)


def _bag_files(path: Path, note: Callable[[str], None]) -> tuple[list[Path], _Metadata | None]:
    """
    Return the files of a bag in the order of their recording, and its metadata.

    :raises BagError: there is no bag at this path.
    """
    if not path.exists():
        raise BagError(f'no bag at {path}: there is nothing of that name')
    if not path.is_dir():
        return [path], None

    try:
        found = _files_in(path)
        metadata = _read_metadata(path / 'metadata.yaml')
    except PermissionError as error:
        raise BagError(f'cannot read {path}: {error.strerror}') from error
    except FileNotFoundError:
        metadata = None
        if found:
            note(
                f'{path} has no metadata.yaml, as after a recording that was cut off: its '
                'files are read by themselves'
            )
    except BagError as error:
        metadata = None
        note(f'{error}: the files of the bag are read by themselves')
    if metadata is not None:
        listed = [path / name for name in metadata.files]
        missing = [file.name for file in listed if not file.is_file()]
        if missing:
            note(f'{path} lacks {", ".join(missing)}, which its metadata.yaml names')
        listed = [file for file in listed if file.is_file()]
        if listed:
            return listed, metadata
    # A recorder names the parts of one bag NAME_0, NAME_1 and so on.
    stems = {re.sub(r'_\d+$', '', _bag_name(file)) for file in found}
    if metadata is None and len(stems) > 1:
        names = ', '.join(file.name for file in found)
        raise BagError(f'{path} has no metadata.yaml and holds several bags: name one of {names}')
    if found:
        return found, metadata
    if any(path.glob('*.bag')):
        raise BagError(_ros1_text(path))
    bags = sorted(p.name for p in path.iterdir() if p.is_dir() and _is_bag_folder(p))
    hint = f'; bags are in its folders {", ".join(bags)}' if bags else ''
    raise BagError(
        f'{path} is no bag: it holds neither metadata.yaml with its files nor any .mcap or '
        f'.db3 file{hint}'
    )


def _is_bag_folder(folder: Path) -> bool:
    try:
        return (folder / 'metadata.yaml').is_file() or bool(_files_in(folder))
    except OSError:
        return False


def _files_in(folder: Path) -> list[Path]:
    """Return the storage files in a folder, NAME_2 before NAME_10."""

    def order(path: Path) -> list[Any]:
        return [int(s) if s.isdigit() else s for s in re.split(r'(\d+)', path.name)]

    pattern = re.compile(r'\.(mcap|db3)(\.zstd)?$', re.IGNORECASE)
    paths = [p for p in folder.iterdir() if p.is_file() and pattern.search(p.name)]
    # The recorder removes a file once it has compressed it; a copy beside it may be half done.
    plain = {p.name for p in paths}
    kept = [p for p in paths if p.suffix.lower() != '.zstd' or p.stem not in plain]
    return sorted(kept, key=order)


def _read_metadata(path: Path) -> _Metadata:
    """
    Return what a ``metadata.yaml`` states.

    :raises FileNotFoundError: there is none.
    :raises BagError: it is damaged.
    """
    try:
        text = path.read_text('utf-8')
    except UnicodeDecodeError as error:
        raise BagError(f'{path} is damaged ({error})') from error
    try:
        information = yaml.safe_load(text)['rosbag2_bagfile_information']
        topics = []
        for item in information['topics_with_message_count']:
            topic = item['topic_metadata']
            count = int(item['message_count'])
            topics.append(Topic(str(topic['name']), str(topic['type']), count))
        # Early versions have paths from outside the folder; a bag may have been renamed.
        files = [PurePosixPath(str(p)).name for p in information['relative_file_paths']]
        return _Metadata(tuple(files), tuple(topics), str(information.get('ros_distro') or ''))
    except yaml.YAMLError as error:
        reason = ' '.join(str(error).split())
        raise BagError(f'{path} is damaged ({reason})') from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BagError(f'{path} is damaged (not what a recorder writes: {error})') from error


def _ros1_text(path: Path) -> str:
    return (
        f'{path} is a bag of ROS 1: convert it first, with rosbags-convert --src FILE.bag '
        '--dst FOLDER (from pip install rosbags)'
    )


class _BagFile:
    """
    One file of a bag, by the library's reader or, where that gives up, by a scan.

    :param folder: makes one to decompress to, which its owner removes.
    :raises BagError: nothing of it can be read.
    """

    storage: str
    connections: list[_Connection]
    start: int | None
    end: int | None

    def __init__(
        self, path: Path, folder: Callable[[], Path], note: Callable[[str], None]
    ) -> None:
        self._label = path
        self._note = note
        head = _first_bytes(path)
        if head.startswith(_ZSTD_MAGIC):
            path = _decompressed(path, folder, note)
            head = _first_bytes(path)
        if head.startswith(_ROS1_MAGIC):
            raise BagError(_ros1_text(path))
        storage = next((s for magic, s in _MAGIC.items() if head.startswith(magic)), None)
        if storage is None:
            what = 'is empty (0 bytes)' if not head else 'is neither an mcap nor an sqlite3 file'
            raise BagError(f'{self._label} {what}, so no bag')
        self.storage = storage
        self._path = path
        self._index: _Storage | None = None
        self._scan: _Storage | None = None
        # Bytes that are not there end the library in many kinds of errors. The scan finds out
        # what is wrong, and says it.
        with suppress(Exception):
            self._index = self._indexed()
        self._damaged = self._index is None
        first = self._index or self._scanned()
        self.connections, self.start, self.end = first.connections, first.start, first.end

    def _indexed(self) -> _Storage | None:
        if self.storage == 'sqlite3' and (
            _has_log(self._path) or re.search('[#?%]', str(self._path))
        ):
            # The library neither sees what is still in the log of SQLite, nor does it quote
            # a path that it puts into a URI.
            return None
        return _IndexedFile(self._path, self.storage)

    def _scanned(self) -> _Storage:
        if self._scan is None:
            scan = _ScannedMcap if self.storage == 'mcap' else _ScannedSqlite
            self._scan = scan(self._path, self._label, self._note)
        return self._scan

    def records(self, topics: Collection[str]) -> Iterator[Record]:
        """Return the messages of some topics in order of recording time."""
        stated = sum(c.count for c in self.connections if c.topic in topics)
        given = 0
        latest: list[Record] = []
        if self._index is not None and not self._damaged:
            try:
                for record in self._index.records(topics):
                    if latest and latest[0].time != record.time:
                        if record.time < latest[0].time:
                            raise BagError('the index is out of order')
                        latest.clear()
                    latest.append(record)
                    given += 1
                    yield record
            except Exception:
                # Damage in what the index points to; the scan goes on behind it.
                self._damaged = True
        if self._damaged or given == 0 < stated:
            done = latest[0].time if latest else -(2**63)
            try:
                scanned = self._scanned().records(topics)
            except BagError as error:
                self._note(str(error))
                scanned = iter(())
            for record in scanned:
                if record.time > done or (record.time == done and record not in latest):
                    given += 1
                    yield record
        # Not every loss is an error to the libraries, and the scan may find fewer.
        if given < stated:
            self._note(
                f'{stated - given} of {stated} messages in {self._label} are damaged: they are '
                'left out'
            )

    def close(self) -> None:
        for storage in (self._index, self._scan):
            if storage is not None:
                storage.close()


def _first_bytes(path: Path) -> bytes:
    try:
        with path.open('rb') as file:
            return file.read(16)
    except OSError as error:
        raise BagError(f'cannot read {path}: {error.strerror}') from error


def _decompressed(path: Path, folder: Callable[[], Path], note: Callable[[str], None]) -> Path:
    """Return a decompressed copy of a file that the recorder compressed as a whole."""
    try:
        copy = folder() / path.stem
        with _zstd().open(path, 'rb') as source, copy.open('wb') as target:
            # In small pieces: the one with the damage is lost.
            shutil.copyfileobj(source, target, 1 << 15)
    except (EOFError, _zstd().ZstdError) as error:
        note(f'{path} is cut short or damaged ({error}): what comes before is read')
    except OSError as error:
        raise BagError(
            f'cannot decompress {path} ({error.strerror}): set TMPDIR to a folder with room for '
            'the decompressed file'
        ) from error
    return copy


def _has_log(path: Path) -> bool:
    log = path.with_name(f'{path.name}-wal')
    return log.is_file() and log.stat().st_size > 0


class _IndexedFile:
    """A file that ``rosbags`` can read. Its errors are of many kinds."""

    def __init__(self, path: Path, storage: str) -> None:
        from rosbags.interfaces import ConnectionExtRosbag2
        from rosbags.rosbag2 import Reader

        self._file = Reader.STORAGE_PLUGINS[_STORAGES[storage]](path)
        self._file.open()
        self.connections = []
        formats = {'MSG': 'ros2msg', 'IDL': 'ros2idl'}
        for connection in self._file.connections:
            extra = connection.ext
            definition = connection.msgdef
            # SQLite holds anything in any column, a damaged file indeed does.
            names = (connection.topic, connection.msgtype, definition.data)
            if not isinstance(extra, ConnectionExtRosbag2) or not all(
                isinstance(name, str) for name in names
            ):
                self.close()
                raise BagError('its table of topics is damaged')
            self.connections.append(
                _Connection(
                    connection.topic,
                    connection.msgtype,
                    connection.msgcount,
                    extra.serialization_format,
                    formats.get(definition.format.name, ''),
                    definition.data,
                )
            )
        stated = self._file.metadata
        has_messages = stated.message_count > 0
        self.start = stated.start_time if has_messages else None
        # Theirs is past the end.
        self.end = stated.end_time - 1 if has_messages else None
        # Messages outside chunks have no index; those of no topic are a sign of damage.
        unindexed = storage == 'mcap' and not getattr(self._file, 'chunks', True)
        if (has_messages and unindexed) or stated.message_count != sum(
            connection.count for connection in self.connections
        ):
            self.close()
            raise BagError('its index is not to be used')

    def records(self, topics: Collection[str]) -> Iterator[Record]:
        connections = [c for c in self._file.connections if c.topic in topics]
        if not connections:
            return
        for connection, time, data in self._file.messages(connections):
            yield Record(connection.topic, connection.msgtype, time, bytes(data))

    def close(self) -> None:
        self._file.close()


class _ScannedMcap:
    """
    An mcap file without a usable index, read from its beginning as far as it goes.

    Opening it reads all of it once, to count and to find where chunks lie in time.
    """

    def __init__(self, path: Path, label: Path, note: Callable[[str], None]) -> None:
        try:
            from mcap.records import Channel, Chunk, Message, Schema
            from mcap.stream_reader import breakup_chunk, StreamReader
        except ImportError as error:
            raise BagError(
                f'{label} has no usable index, and reading it without one needs the library '
                'mcap: install the extra "evaluation" of dig2dig, or pip install mcap'
            ) from error
        self._file = path.open('rb')
        size = path.stat().st_size
        self._reader = partial(
            StreamReader, self._file, skip_magic=True, emit_chunks=True, record_size_limit=size
        )
        self._break_up = partial(breakup_chunk, validate_crc=True)
        schemas: dict[int, Schema] = {}
        counts: Counter[int] = Counter()
        self._channels: dict[int, tuple[str, str]] = {}
        # (first time, offset, end) of what is read in one go: a chunk or a group of messages.
        self._index: list[tuple[int, int, int]] = []
        self.connections = []
        self.start = self.end = None
        channels: dict[int, Channel] = {}
        group_is_open = False
        chunks = damaged = 0
        reason = ''

        self._file.seek(_MCAP_MAGIC_BYTES)
        records = self._reader().records
        while True:
            offset = self._file.tell()
            try:
                record = next(records, None)
            except Exception as error:
                # Cut off or overwritten bytes: besides its own errors, any that parsing has.
                reason = str(error) or 'it ends inside a record'
                break
            if record is None:
                break
            inner = [record]
            if isinstance(record, Chunk):
                chunks += 1
                try:
                    inner = list(self._break_up(record))
                except Exception:
                    damaged += 1
                    continue
            times = []
            for item in inner:
                if isinstance(item, Schema):
                    schemas[item.id] = item
                elif isinstance(item, Channel):
                    channels[item.id] = item
                elif isinstance(item, Message):
                    counts[item.channel_id] += 1
                    times.append(item.log_time)
            if not times:
                continue
            first, end = min(times), self._file.tell()
            self.start = first if self.start is None else min(self.start, first)
            self.end = max(times) if self.end is None else max(self.end, *times)
            if isinstance(record, Chunk):
                self._index.append((first, offset, end))
                group_is_open = False
            elif group_is_open and end - self._index[-1][1] <= _GROUP_BYTES:
                earliest, begin, _ = self._index[-1]
                self._index[-1] = (min(first, earliest), begin, end)
            else:
                self._index.append((first, offset, end))
                group_is_open = True
        self._index.sort()

        for key, channel in channels.items():
            schema = schemas.get(channel.schema_id)
            name = schema.name if schema is not None else ''
            known = schema is not None and schema.encoding in ('ros2msg', 'ros2idl')
            self._channels[key] = (channel.topic, name)
            self.connections.append(
                _Connection(
                    channel.topic,
                    name,
                    counts[key],
                    channel.message_encoding,
                    schema.encoding if schema is not None and known else '',
                    schema.data.decode('utf-8', 'replace') if schema is not None else '',
                )
            )
        _note_state(label, note, reason, counts, self._channels)
        if damaged:
            note(f'{damaged} of the {chunks} chunks of {label} are damaged: they are left out')

    def records(self, topics: Collection[str]) -> Iterator[Record]:
        wanted = {key: value for key, value in self._channels.items() if value[0] in topics}
        return _in_time_order(
            (first, partial(self._load, offset, end, wanted)) for first, offset, end in self._index
        )

    def _load(
        self, offset: int, end: int, wanted: Mapping[int, tuple[str, str]]
    ) -> Iterator[Record]:
        from mcap.records import Chunk, Message

        found = []
        self._file.seek(offset)
        records = self._reader().records
        while self._file.tell() < end:
            record = next(records)
            try:
                inner = self._break_up(record) if isinstance(record, Chunk) else [record]
            except Exception:
                # A damaged chunk between two messages of a group; the scan has counted it.
                continue
            for item in inner:
                if isinstance(item, Message) and item.channel_id in wanted:
                    topic, kind = wanted[item.channel_id]
                    found.append(Record(topic, kind, item.log_time, bytes(item.data)))
        found.sort(key=lambda record: record.time)
        return iter(found)

    def close(self) -> None:
        self._file.close()


class _ScannedSqlite:
    """
    An sqlite3 file that is damaged or has a log beside it, read row by row as far as it goes.

    Opening it reads number and time of each message; of the rest, what is asked for.
    """

    def __init__(self, path: Path, label: Path, note: Callable[[str], None]) -> None:
        self._label, self._note = label, note
        self._database, topics = self._connect(path)
        definitions = self._definitions()
        # (id, topic, time) of each message.
        rows = integers('q')
        reason = ''
        try:
            for row in self._database.execute(
                'SELECT id, topic_id, timestamp FROM messages NOT INDEXED ORDER BY id'
            ):
                rows.extend(row)
        except (sqlite3.Error, TypeError, OverflowError) as error:
            del rows[len(rows) // 3 * 3 :]
            reason = str(error)
        table = np.array(rows, np.int64).reshape(-1, 3)
        self._rows = table[np.argsort(table[:, 2], kind='stable')]
        counts = Counter(table[:, 1].tolist())
        self._topics = {key: (name, kind) for key, name, kind, _ in topics}
        self.connections = [
            _Connection(name, kind, counts[key], serialization, *definitions.get(kind, ('', '')))
            for key, name, kind, serialization in topics
        ]
        self.start = int(self._rows[0, 2]) if len(self._rows) else None
        self.end = int(self._rows[-1, 2]) if len(self._rows) else None
        _note_state(label, note, reason, counts, self._topics)

    def _connect(self, path: Path) -> tuple[sqlite3.Connection, list[Any]]:
        """Return the database and its table of topics, with the log if there is one."""
        uri = f'file:{quote(str(path.resolve()))}?mode=ro'
        # Immutable: nothing but the file itself is looked at, and nothing is written.
        ways = [f'{uri}&immutable=1']
        if _has_log(path):
            ways.insert(0, uri)
        reasons = []
        for way in ways:
            database = None
            try:
                database = sqlite3.connect(way, uri=True, check_same_thread=False)
                # Otherwise SQLite refuses a file that is shorter than its header states.
                database.execute('PRAGMA writable_schema=ON')
                topics = database.execute(
                    'SELECT id, name, type, serialization_format FROM topics ORDER BY id'
                ).fetchall()
            except sqlite3.Error as error:
                reasons.append(str(error))
                if database is not None:
                    database.close()
                continue
            if reasons:
                self._note(
                    f'{path.name}-wal beside {self._label} cannot be read ({reasons[0]}): what '
                    'is in it is missing, unless the folder is made writable'
                )
            # A damaged table may hold anything.
            return database, [row for row in topics if all(isinstance(v, str) for v in row[1:])]
        raise BagError(f'nothing of {self._label} can be read: {reasons[-1]}')

    def _definitions(self) -> dict[str, tuple[str, str]]:
        try:
            rows = self._database.execute(
                'SELECT topic_type, encoding, encoded_message_definition FROM message_definitions'
            ).fetchall()
        except sqlite3.Error:
            # Recorders before Iron have no such table.
            return {}
        return {kind: (f, text) for kind, f, text in rows if f in ('ros2msg', 'ros2idl')}

    def records(self, topics: Collection[str]) -> Iterator[Record]:
        wanted = {key: value for key, value in self._topics.items() if value[0] in topics}
        for key, topic_key, time in self._rows:
            if int(topic_key) not in wanted:
                continue
            try:
                found = self._database.execute(
                    'SELECT data FROM messages WHERE id = ?', (int(key),)
                ).fetchone()
            except sqlite3.Error:
                found = None
            if found is None or not isinstance(found[0], bytes):
                # Whoever asked misses it: the number of messages is known.
                continue
            topic, kind = wanted[int(topic_key)]
            yield Record(topic, kind, int(time), found[0])

    def close(self) -> None:
        self._database.close()


def _note_state(
    label: Path,
    note: Callable[[str], None],
    reason: str,
    counts: Mapping[int, int],
    topics: Collection[int],
) -> None:
    """Say where a scan ended, if it was not the end, and how many messages have no topic."""
    if reason:
        note(
            f'{label} is cut short or damaged after {sum(counts.values())} messages ({reason}): '
            'what comes before is read'
        )
    strays = sum(count for key, count in counts.items() if key not in topics)
    if strays:
        note(f'{strays} messages in {label} belong to no topic: they are left out')


def _in_time_order(
    sources: Iterable[tuple[int, Callable[[], Iterator[Record]]]],
) -> Iterator[Record]:
    """
    Merge sources of records, each in order of time, and open each only when it is reached.

    :param sources: (time of the first record or earlier, what opens it), in order of time.
    """
    heap: list[tuple[int, int, Record, Iterator[Record]]] = []

    def up_to(time: float) -> Iterator[Record]:
        while heap and heap[0][0] <= time:
            _, order, record, others = heap[0]
            following = next(others, None)
            if following is None:
                heappop(heap)
            else:
                heapreplace(heap, (following.time, order, following, others))
            yield record

    for order, (start, opened) in enumerate(sources):
        # Of equal times those from earlier sources come first.
        yield from up_to(start)
        others = opened()
        record = next(others, None)
        if record is not None:
            heappush(heap, (record.time, order, record, others))
    yield from up_to(float('inf'))


def _require_rosbags() -> None:
    try:
        import rosbags.rosbag2  # noqa: F401
    except ImportError as error:
        raise BagError(
            'bags need the library rosbags: install the extra "evaluation" of dig2dig, or pip '
            f'install rosbags; {error}'
        ) from error


def _zstd() -> Any:
    """Return the module that ``rosbags`` itself depends on."""
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd


@lru_cache(maxsize=4)
def _default_typestore(distro: str = '') -> Any:
    """Return the types of a ROS distribution, Humble where it is not known, and detections."""
    from rosbags.typesys import get_types_from_msg, get_typestore, Stores

    # Bags without definitions are older than Iron, and images are the same in all.
    known = {store.value.removeprefix('ros2_'): store for store in Stores}
    typestore = get_typestore(known.get(distro, Stores.ROS2_HUMBLE))
    types: dict[str, Any] = {}
    for name, text in _DETECTION_TYPES.items():
        types.update(get_types_from_msg(text, name))
    typestore.register(types)
    return typestore


def _embedded_typestore(connection: _Connection, default: Any) -> Any:
    """Return the types of a definition that a bag embeds, and no others."""
    from rosbags.typesys import get_types_from_idl, get_types_from_msg, get_typestore, Stores

    types: dict[str, Any] = {}
    if connection.format == 'ros2msg':
        types.update(get_types_from_msg(connection.definition, connection.type))
    else:
        separator = f'{"=" * 80}\n'
        for part in connection.definition.split(separator):
            text = re.sub(r'\AIDL: .*\n', '', part)
            if text.strip():
                types.update(get_types_from_idl(text))
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


class BagWriter:
    """
    Writes a bag folder that ``rosbags``, ``ros2 bag info`` and ``ros2 bag play`` open.

    Messages are embedded with their definitions. The folder becomes a bag when it is closed:
    ``metadata.yaml`` is written last, so a process that dies leaves none that looks complete.
    Leaving a ``with`` block by an exception leaves it like that, too; who wants to keep what is
    there calls :meth:`close` before.

    :param path: of the folder, which is made.
    :param storage: ``'sqlite3'`` or ``'mcap'``.
    :param overwrite: replace a bag that is there; a folder with other files is never replaced.
    :raises BagError: the path exists, or cannot be written.
    """

    def __init__(self, path: Path, storage: str, overwrite: bool = False) -> None:
        _require_rosbags()
        from rosbags.rosbag2 import StoragePlugin, Writer

        self.path = Path(path)
        if storage not in _STORAGES:
            raise BagError(f"storage '{storage}' is unknown: use one of {', '.join(_STORAGES)}")
        if storage == 'sqlite3' and re.search('[#?%]', str(self.path)):
            raise BagError(
                f'cannot write sqlite3 to {self.path}: the path must be without #, ? and %'
            )
        self._connections: dict[str, Any] = {}
        if self.path.exists():
            _remove_bag(self.path, overwrite)
        plugin = StoragePlugin.MCAP if storage == 'mcap' else StoragePlugin.SQLITE3
        # Version 8 is the newest that Humble reads: 9 has lists where it expects text.
        self._writer: Any = Writer(self.path, version=8, storage_plugin=plugin)
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
        from rosbags.interfaces import (
            Qos,
            QosDurability,
            QosHistory,
            QosLiveliness,
            QosReliability,
            QosTime,
        )

        typestore = _default_typestore()
        if name in self._connections:
            raise BagError(f'topic {name} was added to {self.path} before')
        if message_type not in typestore.fielddefs:
            reason = f'type {message_type} is unknown'
            raise BagError(f'cannot write topic {name} to {self.path}: {reason}')
        never = QosTime(9223372036, 854775807)
        offered = Qos(
            QosHistory.KEEP_LAST,
            10,
            QosReliability.RELIABLE,
            QosDurability.VOLATILE,
            never,
            never,
            QosLiveliness.AUTOMATIC,
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
            data = _default_typestore().serialize_cdr(message, kind)
        except Exception as error:
            # Wrong fields end the serialiser of a type in many kinds of errors.
            raise BagError(f'cannot write to topic {topic}, no {kind}: {error}') from error
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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        elif self._writer is not None:
            writer, self._writer = self._writer, None
            writer.abort()


def _remove_bag(path: Path, allowed: bool) -> None:
    """
    Remove a bag folder, if it is one and if that is allowed.

    :raises BagError: it is not.
    """
    if not allowed:
        raise BagError(f'{path} exists already: choose another name, or allow to overwrite it')
    bag_file = re.compile(r'metadata\.yaml(\.tmp)?|.*\.(mcap|db3)(\.zstd|-wal|-shm|-journal)?')
    if not path.is_dir() or path.is_symlink():
        raise BagError(f'{path} is no bag folder: it is not overwritten, choose another name')
    for item in path.iterdir():
        if not item.is_file() or not bag_file.fullmatch(item.name):
            raise BagError(
                f'{path} holds {item.name}, which is no part of a bag: it is not overwritten, '
                'choose another name'
            )
    shutil.rmtree(path)


def image_message(array: NDArray[Any], encoding: str, header: Any) -> Any:
    """
    Return a ``sensor_msgs/Image`` of ``rosbags``.

    :param array: pixels as :func:`dig2dig_ros.streams.codec.encode` takes them, colour in
        blue-green-red order.
    :param header: becomes the header of the message as it is, not a copy of it.
    :raises CodecError: encoding and array do not belong together.
    """
    _require_rosbags()
    fields = vars(encode(array, encoding, header, SimpleNamespace))
    fields['data'] = np.frombuffer(fields['data'], np.uint8)
    return _default_typestore().types[IMAGE_TYPE](**fields)


def is_image(topic: Topic) -> bool:
    """Tell whether a topic holds images that can be decoded here."""
    if topic.type == COMPRESSED_IMAGE_TYPE:
        return not topic.name.endswith('/compressedDepth')
    return topic.type == IMAGE_TYPE


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
