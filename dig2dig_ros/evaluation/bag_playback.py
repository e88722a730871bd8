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

"""Parts of playing a bag live: pace, threads that read ahead and record, the summary."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
import queue
import threading
from typing import Any

from dig2dig_ros.evaluation.bag_types import BagError, conversion_advice, Record, Topic
from dig2dig_ros.evaluation.bag_writer import BagWriter
from dig2dig_ros.streams.pairing import SOURCES

# Read ahead at most this much: a second of large images.
_READ_AHEAD_BYTES = 128_000_000
# Recorded messages that wait for the disk, and the overhead of one.
_MOST_WAITING_BYTES, _OVERHEAD_BYTES = 256_000_000, 300


class PlayError(RuntimeError):
    """The bag cannot be played, or not to the end; the message says why."""


def nothing_to_play(bag: Path, topics: Mapping[str, Topic]) -> PlayError:
    """Return why none of the messages of a bag can be played, and what to do."""
    nothing = f'{bag} has no messages that can be played'
    return PlayError('; '.join([nothing, *conversion_advice(topics)]))


class Pace:
    """
    When a recorded message is due, and what time it is in the recording.

    All times are whole nanoseconds: ``due`` and ``now`` of a steady clock, the others of the
    recording, from ``start`` to ``end``.

    :param rate: pace; 1 is that of the recording.
    """

    def __init__(self, start: int, end: int, rate: float) -> None:
        self.start, self.end = start, end
        self._duration, self._rate = end - start, rate
        self._origin: int | None = None
        self._rounds = 0

    def begin(self, now: int) -> None:
        """Start the recording now."""
        self._origin = now

    def start_over(self) -> int:
        """Start over at the end; return how often this has happened."""
        self._rounds += 1
        return self._rounds

    def due(self, recorded: int) -> int:
        """Return when a message with this recording time is due in this round."""
        assert self._origin is not None
        passed = recorded - self.start + self._rounds * self._duration
        return self._origin + round(passed / self._rate)

    def time(self, now: int) -> int:
        """Return the recording time; before the start, that of the first message."""
        return self.unrolled(now) - self._rounds * self._duration

    def unrolled(self, now: int) -> int:
        """Return the recording time as if the rounds followed each other in the recording."""
        if self._origin is None:
            return self.start
        return self.start + round((now - self._origin) * self._rate)


class ReadAhead:
    """
    Reads a bag in a thread, so that the disk does not delay the player.

    :param read: yields the records; called in the thread.
    :param limit: bytes held at most, not counting one record.
    """

    def __init__(
        self, read: Callable[[], Iterator[Record]], limit: int = _READ_AHEAD_BYTES
    ) -> None:
        self._read = read
        self._limit = limit
        self._condition = threading.Condition()
        self._records: deque[Record] = deque()
        self._bytes = 0
        self._done = False
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name='read ahead', daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            for record in self._read():
                with self._condition:
                    self._condition.wait_for(lambda: self._done or self._bytes < self._limit)
                    if self._done:
                        return
                    self._records.append(record)
                    self._bytes += len(record.data)
                    self._condition.notify_all()
        except (BagError, OSError) as error:  # the bag or its disk is damaged
            self._error = PlayError(str(error))
        except Exception as error:  # passed on to take()
            self._error = error
        finally:
            with self._condition:
                self._done = True
                self._condition.notify_all()

    def take(self, timeout: float) -> Record | None:
        """
        Return the next record, or None at the end.

        :raises queue.Empty: there is none within ``timeout`` seconds.
        :raises PlayError: the bag cannot be read further; raised after the last good record.
        """
        with self._condition:
            self._condition.wait_for(lambda: self._records or self._done, timeout)
            if self._records:
                record = self._records.popleft()
                self._bytes -= len(record.data)
                self._condition.notify_all()
                return record
            if self._error is not None:
                raise self._error
            if not self._done:
                raise queue.Empty
            return None

    def close(self) -> None:
        """End the thread."""
        with self._condition:
            self._done = True
            self._condition.notify_all()
        self._thread.join()


class BagRecorder:
    """
    Writes a bag in a thread, so that the disk does not delay the player.

    :param path: of the new bag.
    :param storage: 'mcap' or 'sqlite3'.
    :param limit: most bytes that may wait for the disk; messages beyond are left out.
    :ivar counts: messages written, by topic.
    :ivar left_out: messages that the disk was too slow for, by topic.
    """

    def __init__(self, path: Path, storage: str, limit: int = _MOST_WAITING_BYTES) -> None:
        self._path, self._storage, self._limit = path, storage, limit
        self._queue: queue.SimpleQueue[tuple[str, str, bytes, int] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._waiting = 0
        self.counts: Counter[str] = Counter()
        self.left_out: Counter[str] = Counter()
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name='record', daemon=True)
        self._thread.start()

    def _run(self) -> None:
        known = set()
        try:
            writer = BagWriter(self._path, self._storage)
            try:
                while (item := self._queue.get()) is not None:
                    topic, type_name, data, recorded = item
                    if topic not in known:
                        writer.add_topic(topic, type_name)
                        known.add(topic)
                    writer.write_raw(topic, data, recorded)
                    self.counts[topic] += 1
                    with self._lock:
                        self._waiting -= len(data) + _OVERHEAD_BYTES
            finally:
                writer.close()
        except Exception as error:  # kept for the player
            self.error = error

    def write(self, topic: str, type_name: str, data: bytes, recorded: int) -> None:
        """Hand over a message that came at the recording time ``recorded`` in nanoseconds."""
        if self.error is not None:  # the thread has ended
            return
        size = len(data) + _OVERHEAD_BYTES
        with self._lock:
            # A single message is accepted whatever its size.
            is_full = self._waiting > 0 and self._waiting + size > self._limit
            if is_full:
                self.left_out[topic] += 1
            else:
                self._waiting += size
        if not is_full:
            self._queue.put((topic, type_name, data, recorded))

    @property
    def problem(self) -> str:
        """What the recording lacks, in a sentence; empty if it is complete."""
        missing = ', '.join(f'{count} of {topic}' for topic, count in self.left_out.items())
        return missing and (
            f'the recording lacks messages, as the disk was too slow: {missing}; record to '
            'another disk, or fewer topics'
        )

    def close(self) -> None:
        """Write what still waits, and finish the bag."""
        self._queue.put(None)
        self._thread.join()


def render_summary(summary: Mapping[str, Any]) -> str:
    """Return the summary of a measured run as the lines to print."""
    played, received, lost = summary['played'], summary['received'], summary['lost']
    losses = ', '.join(f'{count} {source}' for source, count in lost.items() if count)
    causes = ', '.join(f'{count} {cause}' for cause, count in summary['dropped'].items() if count)
    rows = [
        ('played', ', '.join(f'{played[source]} {source}' for source in SOURCES)),
        ('late', f'{_figures(summary["behind_schedule_ms"])} behind the schedule of the bag'),
        (
            'received',
            ', '.join(f'{received[source]} {source}' for source in SOURCES)
            + (f'; lost in transport: {losses}' if losses else ''),
        ),
        ('fused', f'{summary["fused"]} of {summary["pairs"]} pairs'),
        ('received', f'{summary["fused_received"]} fused images'),
        ('dropped', causes or 'none'),
        ('latency', f'{_figures(summary["latency_ms"])}, from the later image of the pair'),
    ]
    if not summary['complete']:
        rows.append(('note', "interrupted: the node's figures are those of its last report"))
    return '\n'.join(f'  {name:<10} {text}' for name, text in rows)


def _figures(values: Mapping[str, float] | None) -> str:
    if values is None:
        return 'no figures'
    return f'p50 {values["p50"]:g} ms, p95 {values["p95"]:g} ms, max {values["max"]:g} ms'
