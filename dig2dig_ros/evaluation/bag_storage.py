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
The files of bags, in both storages, whole or damaged.

The library ``rosbags`` reads what is whole. Where a recording was cut off or a file is damaged it
refuses the file, and what can still be read is read here, by SQLite and by the library ``mcap``.
"""

from __future__ import annotations

from array import array as integers
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from heapq import heappop, heappush, heapreplace
from pathlib import Path
import re
import shutil
import sqlite3
import sys
from typing import Any, Protocol
from urllib.parse import quote

import numpy as np

from dig2dig_ros.evaluation.bag_types import BagError, Connection, Record, STORAGES

ZSTD_MAGIC = b'\x28\xb5\x2f\xfd'
_MAGIC = {b'SQLite format 3\0': 'sqlite3', b'\x89MCAP0\r\n': 'mcap'}
_ROS1_MAGIC = b'#ROSBAG V'
_MCAP_MAGIC_BYTES = 8
# Messages outside chunks are read in groups of about this size, that of a usual chunk.
_GROUP_BYTES = 1 << 20


class _Storage(Protocol):
    """One opened file; its times are the first and the last, both None without messages."""

    connections: list[Connection]
    start: int | None
    end: int | None

    def records(self, topics: Collection[str]) -> Iterator[Record]: ...

    def close(self) -> None: ...


def ros1_text(path: Path) -> str:
    return (
        f'{path} is a bag of ROS 1: convert it first, with rosbags-convert --src FILE.bag '
        '--dst FOLDER (from pip install rosbags)'
    )


class BagFile:
    """
    One file of a bag, by the library's reader or, where that gives up, by a scan.

    :param folder: makes one to decompress to, which its owner removes.
    :raises BagError: nothing of it can be read.
    """

    storage: str
    connections: list[Connection]
    start: int | None
    end: int | None

    def __init__(
        self, path: Path, folder: Callable[[], Path], note: Callable[[str], None]
    ) -> None:
        self._label = path
        self._note = note
        head = _first_bytes(path)
        if head.startswith(ZSTD_MAGIC):
            path = _decompressed(path, folder, note)
            head = _first_bytes(path)
        if head.startswith(_ROS1_MAGIC):
            raise BagError(ros1_text(path))
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
        with zstd().open(path, 'rb') as source, copy.open('wb') as target:
            # In small pieces: the one with the damage is lost.
            shutil.copyfileobj(source, target, 1 << 15)
    except (EOFError, zstd().ZstdError) as error:
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

        self._file = Reader.STORAGE_PLUGINS[STORAGES[storage]](path)
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
                Connection(
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
                Connection(
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
        return in_time_order(
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
            Connection(name, kind, counts[key], serialization, *definitions.get(kind, ('', '')))
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


def in_time_order(
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


def zstd() -> Any:
    """Return the module that ``rosbags`` itself depends on."""
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd
