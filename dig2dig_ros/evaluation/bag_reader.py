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
ROS 2 bags: their content, and their messages in the order of recording time.

ROS is not needed. ``rosbags`` and ``mcap`` are the extra ``evaluation`` and are imported when a
bag is opened.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
import re
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from dig2dig_ros.evaluation.bag_compression import (
    BombError,
    decompressed,
    LARGEST_MESSAGE,
    zstd,
    ZSTD_MAGIC,
)
from dig2dig_ros.evaluation.bag_storage import (
    BagFile,
    in_time_order,
    open_bag_file,
    ros1_text,
)
from dig2dig_ros.evaluation.bag_types import (
    BagError,
    COMPRESSED_IMAGE_TYPE,
    default_typestore,
    DefinitionError,
    embedded_typestore,
    IMAGE_TYPE,
    Record,
    require_rosbags,
    Topic,
    topic_listing,
)
from dig2dig_ros.images.plain_yaml import TextLoader

# Bytes of a message that is no image, such as detections with their masks.
_LARGEST_LIST = 8 << 20
# A metadata.yaml of thousands of topics has less; reading it takes seconds.
_LARGEST_METADATA = 4 << 20
_MOST_DIGITS = 18
_STORAGE = re.compile(r'\.(mcap|db3)(\.zstd)?$', re.IGNORECASE)


class BagReader:
    """
    A bag: a folder with its ``metadata.yaml``, or one ``.mcap`` or ``.db3`` file.

    Files, chunks and messages may be compressed. An interrupted recording (no ``metadata.yaml``,
    no index, half a file) is read as far as possible, and :attr:`problems` says what is missing.

    It is open from the start; leave a ``with`` block or call :meth:`close`.

    :ivar name: of the folder or file, without suffix.
    :ivar storage: ``'sqlite3'`` or ``'mcap'``.
    :ivar topics: all topics by name, those without messages included.
    :ivar start: recording time of the first message in nanoseconds, 0 without messages.
    :ivar end: recording time of the last message in nanoseconds, 0 without messages.
    :ivar problems: sentences on what could not be read; some damage is only found while reading,
        so check again afterwards.
    :raises BagError: there is no bag, or nothing of it can be read.
    """

    def __init__(self, path: str | Path) -> None:
        require_rosbags()
        self.path = Path(path)
        if self.path.name == 'metadata.yaml':
            self.path = self.path.parent
        self.name = _bag_name(self.path)
        self.problems: list[str] = []
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
        self._files: list[BagFile] = []
        failures: list[str] = []
        for path in paths:
            try:
                file = open_bag_file(path, self._scratch_folder, self._note)
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
        serializations = {c.topic: c.serialization for c in self._connections}
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
        return {
            name: Topic(name, types[name], counts[name], serializations.get(name, 'cdr'))
            for name in sorted(types)
        }

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
        opened = sorted(
            (
                (file.start, partial(file.records, topics))
                for file in self._files
                if file.start is not None
            ),
            key=lambda source: source[0],
        )
        lost: Counter[str] = Counter()
        for record in in_time_order(opened):
            # A message never starts like this by itself: its first byte is 0.
            if record.data.startswith(ZSTD_MAGIC):
                try:
                    record = replace(record, data=decompressed(record.data))
                except (zstd().ZstdError, BombError):
                    lost[record.topic] += 1
                    continue
            yield record
        for topic, count in lost.items():
            self._note(
                f'{count} of the messages on {topic} in {self.path} are damaged and cannot be '
                f'decompressed, or become larger than {LARGEST_MESSAGE >> 20} MiB: they are left '
                'out'
            )

    def decode(self, record: Record) -> Any:
        """
        Return the message object of a record, as ``rosbags`` makes it.

        Its fields are those of the ROS message, with arrays of numbers as NumPy arrays (which
        share memory with the record and are read-only).

        :raises BagError: the type is unknown, or the data is damaged.
        """
        is_image = record.type in (IMAGE_TYPE, COMPRESSED_IMAGE_TYPE)
        if not is_image and len(record.data) > _LARGEST_LIST:
            # Each of its numbers may become an object, of many times its bytes.
            raise BagError(
                f'a message on {record.topic} ({record.type}) in {self.path} has '
                f'{len(record.data)} bytes, more than {_LARGEST_LIST}'
            )
        if record.type not in self._typestores:
            try:
                self._typestores[record.type] = self._typestore(record)
            except BagError as error:
                # Tried once: a definition may take seconds to be refused.
                self._typestores[record.type] = error
        typestore = self._typestores[record.type]
        if isinstance(typestore, BagError):
            raise typestore
        try:
            return typestore.deserialize_cdr(record.data, record.type)
        except Exception as error:
            # Random bytes make the decoder raise many errors, not just SerdeError.
            raise BagError(
                f'a message on {record.topic} ({record.type}) in {self.path}, recorded at '
                f'{record.time} ns, is damaged: {error}'
            ) from error

    def _typestore(self, record: Record) -> Any:
        """Return a store that knows the type of a record, preferably from the bag's definition."""
        same = [c for c in self._connections if c.type == record.type]
        other = next((c.serialization for c in same if c.serialization != 'cdr'), None)
        if other is not None:
            raise BagError(
                f'messages on {record.topic} ({record.type}) in {self.path} are serialised as '
                f"'{other}', but only 'cdr', that of ROS 2, can be read"
            )
        default = default_typestore(self._distro)
        reason = 'the bag has no definition of it'
        for connection in same:
            if not connection.format:
                continue
            try:
                return embedded_typestore(connection, default)
            except DefinitionError as error:
                raise BagError(
                    f'the definition of {record.type} that {self.path} has for {record.topic} '
                    f'cannot be used: {error}'
                ) from error
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

    def __exit__(self, *exception: object) -> None:
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
        raise BagError(f'no bag at {path}: it does not exist')
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
                f'{path} has no metadata.yaml, as after an interrupted recording: its files are '
                'read without it'
            )
    except BagError as error:
        metadata = None
        note(f'{error}: the files of the bag are read without it')
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
    if any(path.glob('*.bag')) or any(path.glob('*.bag.active')):
        raise BagError(ros1_text(path))
    bags = sorted(p.name for p in path.iterdir() if p.is_dir() and is_bag(p))
    hint = f'; bags are in its folders {", ".join(bags)}' if bags else ''
    raise BagError(
        f'{path} is not a bag: it holds neither metadata.yaml with its files nor any .mcap or '
        f'.db3 file{hint}'
    )


def is_bag(path: Path) -> bool:
    """Return whether a path looks like a bag: a folder with its files, or one of these."""
    try:
        if path.is_dir():
            return (path / 'metadata.yaml').is_file() or bool(_files_in(path))
    except OSError:
        return False
    return bool(_STORAGE.search(path.name))


def _files_in(folder: Path) -> list[Path]:
    """Return the storage files in a folder, NAME_2 before NAME_10."""

    def order(path: Path) -> list[Any]:
        return [int(s) if s.isdigit() else s for s in re.split(r'(\d+)', path.name)]

    paths = [p for p in folder.iterdir() if p.is_file() and _STORAGE.search(p.name)]
    # The recorder removes a file once it has compressed it; a copy next to it may be incomplete.
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
        with path.open('rb') as file:
            text = file.read(_LARGEST_METADATA + 1)
        if len(text) > _LARGEST_METADATA:
            raise ValueError(f'it has more than {_LARGEST_METADATA >> 20} MiB')
        document = yaml.load(text.decode('utf-8'), Loader=TextLoader)
        information = document['rosbag2_bagfile_information']
        topics = []
        for item in information['topics_with_message_count']:
            topic = item['topic_metadata']
            count = int(_text(item['message_count'])[:_MOST_DIGITS])
            topics.append(Topic(_text(topic['name']), _text(topic['type']), count))
        # Early versions have paths from outside the folder; a bag may have been renamed.
        files = [PurePosixPath(_text(p)).name for p in information['relative_file_paths']]
        distro = _text(information.get('ros_distro') or '')
        return _Metadata(tuple(files), tuple(topics), distro)
    except (
        yaml.YAMLError,
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
        RecursionError,
    ) as error:
        reason = ' '.join(f'{type(error).__name__}: {error}'.split())
        raise BagError(f'{path} is damaged ({reason[:300]})') from error


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f'a {type(value).__name__} where a text should be')
    return value
