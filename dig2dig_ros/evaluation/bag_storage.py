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
The files of bags in both storages, whole or damaged.

What the index of a file does not lead to, as after a recording that was cut off, is found by
reading the file from its beginning as far as it goes. So no reader that insists on whole files
is used, but SQLite and the library ``mcap``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from array import array as integers
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from heapq import heappop, heappush, heapreplace
from itertools import chain, pairwise, repeat
from operator import attrgetter
from pathlib import Path
import re
import sqlite3
import sys
from typing import Any, BinaryIO, cast, ClassVar, NamedTuple
from urllib.parse import quote

import numpy as np

from dig2dig_ros.evaluation.bag_compression import (
    decompressed_copy,
    LARGEST_MESSAGE,
    records_of_chunk,
    ZSTD_MAGIC,
)
from dig2dig_ros.evaluation.bag_types import BagError, Connection, Record

_SQLITE_MAGIC = b'SQLite format 3\0'
_MCAP_MAGIC = b'\x89MCAP0\r\n'
_ROS1_MAGIC = b'#ROSBAG V'
_MCAP_FOOTER_BYTES = 29
_MCAP_RECORD_HEAD_BYTES = 9
# Messages outside chunks are read in groups of about this size, that of a usual chunk.
_GROUP_BYTES = 1 << 20
# A chunk that does not shrink, with its head.
_LARGEST_READ = LARGEST_MESSAGE + (1 << 20)
_MOST_HELD = 2 * LARGEST_MESSAGE
# sqlite3 files: topics and type definitions, characters of each, and how much work SQLite may do
# to find them, in instructions of its machine.
_MOST_TOPICS, _LONGEST_TEXT = 4096, 1 << 18
_WORK, _MOST_WORK = 100_000, 200

Note = Callable[[str], None]


def open_bag_file(path: Path, scratch_folder: Callable[[], Path], note: Note) -> BagFile:
    """
    Open a file of a bag, which its owner closes.

    :param scratch_folder: makes a folder to decompress to, which its owner removes.
    :param note: is called with a sentence on everything that cannot be read.
    :raises BagError: nothing of it can be read.
    """
    plain = path
    head = _first_bytes(plain)
    if head.startswith(ZSTD_MAGIC):
        plain = decompressed_copy(path, scratch_folder, note, (_SQLITE_MAGIC, _MCAP_MAGIC))
        head = _first_bytes(plain)
    for magic, kind in ((_SQLITE_MAGIC, SqliteFile), (_MCAP_MAGIC, McapFile)):
        if head.startswith(magic):
            return kind(plain, path, note)
    if head.startswith(_ROS1_MAGIC):
        raise BagError(ros1_text(path))
    what = 'is neither mcap nor sqlite3' if head else 'is empty (0 bytes)'
    raise BagError(f'{path} is not a bag: it {what}')


def ros1_text(path: Path) -> str:
    """Return what to do with a bag of ROS 1."""
    return (
        f'{path} is a bag of ROS 1: convert it first, with rosbags-convert --src FILE.bag '
        '--dst FOLDER (from pip install rosbags)'
    )


def _first_bytes(path: Path) -> bytes:
    try:
        with path.open('rb') as file:
            return file.read(16)
    except OSError as error:
        raise BagError(f'cannot read {path}: {error.strerror}') from error


class BagFile(ABC):
    """
    An open file of a bag.

    :param path: of the file itself.
    :param label: its path as users know it, which differs where the file was compressed.
    :param note: see :func:`open_bag_file`.
    :ivar start: recording time of the first message in nanoseconds, None without messages.
    :ivar end: recording time of the last message, likewise.
    :raises BagError: nothing of it can be read.
    """

    storage: ClassVar[str]
    connections: list[Connection]
    start: int | None = None
    end: int | None = None

    def __init__(self, path: Path, label: Path, note: Note) -> None:
        self._path, self._label, self._note = path, label, note
        # (topic, type) by the number that the file has for them.
        self._topics: dict[int, tuple[str, str]] = {}

    def records(self, topics: Collection[str]) -> Iterator[Record]:
        """Return the messages of some topics in order of recording time."""
        stated = sum(c.count for c in self.connections if c.topic in topics)
        given = 0
        for record in self._records({k: v for k, v in self._topics.items() if v[0] in topics}):
            given += 1
            yield record
        if given < stated:
            self._note(
                f'{stated - given} of {stated} messages in {self._label} are damaged: they are '
                'left out'
            )

    @abstractmethod
    def _records(self, wanted: Mapping[int, tuple[str, str]]) -> Iterator[Record]:
        """Return the messages of some of :attr:`_topics`, all that can be read."""

    @abstractmethod
    def close(self) -> None:
        """Close the file."""

    def _note_losses(self, reason: str, counts: Counter[int]) -> None:
        """Say where reading ended, if it was not the end, and how many messages have no topic."""
        if reason:
            self._note(
                f'{self._label} is cut short or damaged after {sum(counts.values())} messages '
                f'({reason}): read up to there'
            )
        strays = sum(count for key, count in counts.items() if key not in self._topics)
        if strays:
            self._note(f'{strays} messages in {self._label} belong to no topic: they are left out')


class _Part(NamedTuple):
    """What of an mcap file is read in one go: a chunk, or a group of messages outside chunks."""

    first_time: int
    start: int
    end: int
    # Numbers of the channels that it has messages of; empty where that is not known.
    channels: frozenset[int] = frozenset()


class _BoundedFile:
    """A file of which nobody reads more at a time than a record can have."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek, self.tell, self.close = file.seek, file.tell, file.close

    def read(self, count: int) -> bytes:
        # A length below that of a record's head makes it negative, which would be the whole file.
        if not 0 <= count <= _LARGEST_READ:
            raise ValueError(f'a record of {count} bytes')
        return self._file.read(count)


class McapFile(BagFile):
    """
    An mcap file.

    Where it has no summary that leads to its messages, opening it reads all of it once, to count
    them and to find where they lie in time.
    """

    storage = 'mcap'

    def __init__(self, path: Path, label: Path, note: Note) -> None:
        super().__init__(path, label, note)
        try:
            from mcap.stream_reader import StreamReader
        except ImportError as error:
            raise BagError(
                f'{label} needs the library mcap: install the extra "evaluation" of dig2dig, or '
                'pip install mcap'
            ) from error
        self._file = cast('BinaryIO', _BoundedFile(path.open('rb')))
        self._size = path.stat().st_size
        # Bytes of the messages that were read and not yet asked for.
        self._held = 0
        self._reader = partial(
            StreamReader,
            self._file,
            skip_magic=True,
            emit_chunks=True,
            record_size_limit=min(self._size, _LARGEST_READ),
        )
        self._forget()
        reason = ''
        if not self._read_summary():
            self._forget()
            reason = self._scan()
        self._parts.sort()
        self.connections = []
        for key, channel in self._channels.items():
            schema = self._schemas.get(channel.schema_id)
            name, form, text = ('', '', b'') if schema is None else schema
            self._topics[key] = (channel.topic, name)
            self.connections.append(
                Connection(
                    channel.topic,
                    name,
                    self._counts[key],
                    channel.message_encoding,
                    form,
                    text.decode('utf-8', 'replace'),
                )
            )
        self._note_losses(reason, self._counts)

    def _forget(self) -> None:
        self._parts: list[_Part] = []
        # (name, encoding, text) of each.
        self._schemas: dict[int, tuple[str, str, bytes]] = {}
        self._channels: dict[int, Any] = {}
        self._counts: Counter[int] = Counter()
        self._chunks = self._damaged_chunks = 0
        self.start = self.end = None

    def _read_summary(self) -> bool:
        """Take in the summary; return whether it leads to all messages."""
        from mcap.records import ChunkIndex, Statistics

        statistics = None
        try:
            place = self._size - _MCAP_FOOTER_BYTES - len(_MCAP_MAGIC)
            _, footer = next(self._read(place))
            for _, record in self._read(footer.summary_start or self._size):
                if isinstance(record, Statistics):
                    statistics = record
                elif isinstance(record, ChunkIndex):
                    start = record.chunk_start_offset
                    channels = frozenset(record.message_index_offsets)
                    end = start + record.chunk_length
                    self._parts.append(_Part(record.message_start_time, start, end, channels))
                else:
                    self._take(record)
        except Exception:
            # Cut off or overwritten bytes end the library in many kinds of errors.
            return False
        if statistics is None:
            return False
        self._counts.update(statistics.channel_message_counts)
        if statistics.message_count:
            self.start, self.end = statistics.message_start_time, statistics.message_end_time
        by_place = attrgetter('start')
        schemas = {channel.schema_id for channel in self._channels.values()}
        return (
            # Messages outside chunks have no index.
            bool(self._parts or not statistics.message_count)
            and statistics.message_count == sum(self._counts.values())
            and self._counts.keys() <= self._channels.keys()
            and schemas <= {0, *self._schemas}
            and all(map(self._holds_chunk, self._parts))
            # One chunk that is named a thousand times would be read as often.
            and all(a.end <= b.start for a, b in pairwise(sorted(self._parts, key=by_place)))
        )

    def _holds_chunk(self, part: _Part) -> bool:
        from mcap.opcode import Opcode

        self._file.seek(part.start)
        head = self._file.read(_MCAP_RECORD_HEAD_BYTES)
        length = int.from_bytes(head[1:], 'little')
        fits = part.end == part.start + len(head) + length <= self._size
        return fits and head[:1] == bytes([Opcode.CHUNK])

    def _unpacked(self, record: Any) -> Iterator[Any]:
        """Return the records in a chunk, as far as it is sound, or one outside chunks."""
        from mcap.records import Chunk

        if not isinstance(record, Chunk):
            yield record
            return
        self._chunks += 1
        try:
            yield from records_of_chunk(record)
        except Exception:
            self._damaged_chunks += 1

    def _take(self, record: Any) -> int | None:
        """Take in what a record says; return the time of a message."""
        from mcap.records import Channel, Message, Schema

        if isinstance(record, Schema):
            self._schemas[record.id] = (record.name, record.encoding, record.data)
        elif isinstance(record, Channel):
            self._channels[record.id] = record
        elif isinstance(record, Message):
            self._counts[record.channel_id] += 1
            return record.log_time
        return None

    def _scan(self) -> str:
        """Read the file from its beginning; return why that ended before the end, or nothing."""
        group_is_open = False
        reason = ''
        records = self._read(len(_MCAP_MAGIC))
        while True:
            chunks = self._chunks
            try:
                start, record = next(records)
            except StopIteration:
                break
            except Exception as error:
                reason = str(error) or 'it ends inside a record'
                break
            found = map(self._take, self._unpacked(record))
            times = [time for time in found if time is not None]
            is_chunk = self._chunks > chunks
            if not times:
                continue
            part = _Part(min(times), start, self._file.tell())
            self.start = min(times if self.start is None else (self.start, *times))
            self.end = max(times if self.end is None else (self.end, *times))
            if not is_chunk and group_is_open and part.end - self._parts[-1].start <= _GROUP_BYTES:
                group = self._parts.pop()
                part = _Part(min(group.first_time, part.first_time), group.start, part.end)
            self._parts.append(part)
            group_is_open = not is_chunk
        if self._damaged_chunks:
            self._note(
                f'{self._damaged_chunks} of the {self._chunks} chunks of {self._label} are '
                'damaged: they are left out'
            )
        return reason

    def _read(self, place: int) -> Iterator[tuple[int, Any]]:
        """Return the records from some place on, and where each begins."""
        from mcap.opcode import Opcode
        from mcap.records import Footer

        known = {bytes([opcode]) for opcode in Opcode} - {bytes([Opcode.ATTACHMENT])}
        self._file.seek(place)
        records = self._reader().records
        while True:
            start = self._file.tell()
            head = self._file.read(_MCAP_RECORD_HEAD_BYTES)
            if head[:1] == b'\0':
                # As in a file with holes, which may be of any length.
                raise ValueError('it has a record without a kind')
            if head and head[:1] not in known:
                # Videos and others that may be of any size.
                self._file.seek(start + len(head) + int.from_bytes(head[1:], 'little'))
                continue
            self._file.seek(start)
            try:
                record = next(records)
            except StopIteration:
                return
            yield start, record
            if isinstance(record, Footer):
                next(records, None)  # which looks at the end of the file
                return

    def _records(self, wanted: Mapping[int, tuple[str, str]]) -> Iterator[Record]:
        return in_time_order(
            (part.first_time, partial(self._load, part, wanted))
            for part in self._parts
            if not part.channels or not part.channels.isdisjoint(wanted)
        )

    def _load(self, part: _Part, wanted: Mapping[int, tuple[str, str]]) -> Iterator[Record]:
        from mcap.records import Message

        found = []
        records = self._read(part.start)
        while True:
            try:
                start, record = next(records)
            except Exception:
                # What is missing in the end is counted.
                break
            if start >= part.end:
                break
            for item in self._unpacked(record):
                if isinstance(item, Message) and item.channel_id in wanted:
                    found.append(Record(*wanted[item.channel_id], item.log_time, bytes(item.data)))
        self._held += sum(len(record.data) for record in found)
        if self._held > _MOST_HELD:
            raise BagError(
                f'the chunks of {self._label} overlap in time so far that over '
                f'{_MOST_HELD >> 20} MiB would have to be held: sort it first, with mcap sort'
            )
        # Backwards, so that what was given is not held.
        found.sort(key=lambda record: record.time)
        found.reverse()
        while found:
            record = found.pop()
            yield record
            # Until the next one is asked for, somebody waits with it for its turn.
            self._held -= len(record.data)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class SqliteFile(BagFile):
    """
    An sqlite3 file, with its log if there is one, read row by row.

    Opening it reads number and time of each message; of the rest, what is asked for.
    """

    storage = 'sqlite3'

    def __init__(self, path: Path, label: Path, note: Note) -> None:
        super().__init__(path, label, note)
        self._size = path.stat().st_size
        self._database, topics = self._connect(path)
        definitions = self._definitions()
        # (id, topic, time) of each message.
        rows = integers('q')
        reason = ''
        last = None
        try:
            # As they lie in the file, so by ascending number.
            for row in self._database.execute(
                'SELECT rowid, topic_id, timestamp FROM messages NOT INDEXED'
            ):
                if last is not None and row[0] <= last:
                    reason = 'its table of messages leads back into itself'
                    break
                last = row[0]
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
        if len(self._rows):
            self.start, self.end = int(self._rows[0, 2]), int(self._rows[-1, 2])
        self._note_losses(reason, counts)

    def _connect(self, path: Path) -> tuple[sqlite3.Connection, list[Any]]:
        """Return the database and its table of topics."""
        uri = f'file:{quote(str(path.resolve()))}?mode=ro'
        # Immutable: nothing but the file itself is looked at, and nothing is written.
        ways = [f'{uri}&immutable=1']
        log = path.with_name(f'{path.name}-wal')
        if log.is_file() and log.stat().st_size > 0:
            self._size += log.stat().st_size
            ways.insert(0, uri)
        reasons = []
        for way in ways:
            database = None
            try:
                database = sqlite3.connect(way, uri=True, check_same_thread=False)
                # Otherwise SQLite refuses a file that is shorter than its header states.
                database.execute('PRAGMA writable_schema=ON')
                topics = _topics_of(database)
            except (sqlite3.Error, BagError) as error:
                reasons.append(str(error))
                if database is not None:
                    database.close()
                continue
            if reasons:
                self._note(
                    f'{log.name} next to {self._label} cannot be read ({reasons[0]}): what is in '
                    'it is missing, unless the folder is made writable'
                )
            # A damaged table may hold anything.
            return database, [row for row in topics if all(isinstance(v, str) for v in row[1:])]
        raise BagError(f'nothing of {self._label} can be read: {reasons[-1]}')

    def _definitions(self) -> dict[str, tuple[str, str]]:
        try:
            rows = self._database.execute(
                'SELECT topic_type, encoding, encoded_message_definition FROM '
                'message_definitions WHERE length(encoded_message_definition) < ? LIMIT ?',
                (_LONGEST_TEXT, _MOST_TOPICS),
            )
            found = [row for row in rows if all(isinstance(value, str) for value in row)]
        except sqlite3.Error:
            # Recorders before Iron have no such table.
            return {}
        finally:
            self._database.set_progress_handler(None, 0)
        return {kind: (form, text) for kind, form, text in found}

    def _records(self, wanted: Mapping[int, tuple[str, str]]) -> Iterator[Record]:
        # No message is larger than its file, whatever the file states.
        most = min(LARGEST_MESSAGE, self._size)
        for key, topic, time in self._rows[np.isin(self._rows[:, 1], list(wanted))]:
            with suppress(sqlite3.Error):
                # The length stands before the data, which is looked at only where that is sound.
                found = self._database.execute(
                    "SELECT data FROM messages WHERE rowid = ? AND typeof(data) = 'blob' "
                    'AND length(data) <= ?',
                    (int(key), most),
                ).fetchone()
                if found is not None:
                    yield Record(*wanted[int(topic)], int(time), found[0])

    def close(self) -> None:
        """Close the file."""
        self._database.close()


def _topics_of(database: sqlite3.Connection) -> list[Any]:
    """
    Return the table of topics, having made sure that it and the others are tables.

    What is read of a view, a virtual table or a generated column is a program: it may go on for
    ever, or make gigabytes of nothing. What tables hold, is in the file.

    :raises BagError: they are something else.
    :raises sqlite3.Error: they cannot be read.
    """
    if sys.version_info >= (3, 11):
        database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LARGEST_MESSAGE + (1 << 20))
    # For what precedes the messages, so much work is allowed. Not a function of Python: an
    # interrupt that comes while it runs would be lost.
    patience = chain(repeat(0, _MOST_WORK), repeat(1))
    database.set_progress_handler(partial(next, patience), _WORK)
    for table in ('topics', 'messages', 'message_definitions'):
        entries = database.execute(
            'SELECT type, sql FROM sqlite_master WHERE lower(name) = ? LIMIT 9', (table,)
        ).fetchall()
        columns = database.execute(f'PRAGMA table_xinfo({table})').fetchall() if entries else []
        is_made_up = any(
            kind != 'table' or re.match(r'\s*CREATE\s+VIRTUAL', str(sql), re.IGNORECASE)
            for kind, sql in entries
        )
        # The last column says whether it is generated.
        if is_made_up or any(column[-1] or column[1].lower() == 'rowid' for column in columns):
            raise BagError(f'its {table} is not a plain table, as recorders write')
    return database.execute(
        'SELECT id, name, type, serialization_format FROM topics WHERE length(name) < ? '
        'AND length(type) < ? ORDER BY id LIMIT ?',
        (_LONGEST_TEXT, _LONGEST_TEXT, _MOST_TOPICS),
    ).fetchall()


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
        # At equal times, earlier sources come first.
        yield from up_to(start)
        others = opened()
        record = next(others, None)
        if record is not None:
            heappush(heap, (record.time, order, record, others))
    yield from up_to(float('inf'))
