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
Play a bag over real DDS at the pace of its recording, and see what the fusion node makes of it.

Works without rosbag2. Messages are published as the bag holds them, without decoding, when their
recording times are due on a steady clock; a thread reads ahead. Beside playing it can be the
clock of simulated time, record the fused topics into another bag, and measure the latency and
the drops of a fusion node in its own namespace. To record the weight maps costs that node some
time; measure without it for the figures of fusing alone.

When ``--loop`` starts the bag over, stamps and ``/clock`` jump back. The fusion node takes that
for what it is: it drops the images that still waited for a partner ('clock jump') and goes on.
"""

from __future__ import annotations

import argparse
from array import array
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import auto, Enum
from functools import partial
from importlib import import_module
import json
import math
import os
from pathlib import Path
import queue
import struct
import sys
import threading
import time
from typing import Any

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
import numpy as np
import rclpy
from rclpy.clock import Clock, ClockType
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.utilities import remove_ros_args
from rosgraph_msgs.msg import Clock as ClockMessage

from dig2dig_ros.evaluation.bag_reader import BagReader
from dig2dig_ros.evaluation.bag_topics import find_sources
from dig2dig_ros.evaluation.bag_types import BagError, COMPRESSED_IMAGE_TYPE, IMAGE_TYPE, Record
from dig2dig_ros.evaluation.bag_writer import BagWriter
from dig2dig_ros.nodes.client import (
    counter,
    drops,
    is_counter,
    is_settled,
    number,
    subtract_counters,
)
from dig2dig_ros.nodes.run import run_node
from dig2dig_ros.streams.pairing import Source, SOURCES
from dig2dig_ros.streams.resources import fast_dds_environment
from dig2dig_ros.streams.statistics import percentiles_ms

_NANOSECONDS = 1_000_000_000
# Read ahead at most so much; a second of large images.
_READ_AHEAD_BYTES = 128_000_000
# While the bag is behind its schedule, subscriptions are still served so often.
_SERVE_NANOSECONDS = 5_000_000
# Without any progress of the node for so many seconds, its end is not waited for.
_STALL_SECONDS = 60.0
_QUIET_SECONDS = 2.0
_PROGRESS_SECONDS = 10.0
# Stamps whose times of publishing are kept; a slow node may be tens of images behind.
_KEPT_STAMPS = 1000
_IMAGE_TYPES = (IMAGE_TYPE, COMPRESSED_IMAGE_TYPE)
_FUSED = 'fused/image_raw'
_NODE_FACTS = ('device', 'precision', 'prior', 'N', 'S', 'resolution')


class PlayError(RuntimeError):
    """The bag cannot be played, or not to the end; the message is for who started it."""


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """
    Parse the command line; ends the program with code 2 where it makes no sense.

    :param arguments: without the program's name and without ROS arguments.
    """
    parser = argparse.ArgumentParser(
        prog='play_bag',
        description='Play a bag over DDS at the pace of its recording; record and measure what '
        'the fusion node makes of it.',
        epilog='ROS arguments go to the end: --ros-args -r /camera/image:=/visible/image_raw',
    )
    add = parser.add_argument
    # fmt: off
    add('bag', type=Path, metavar='BAG', help='folder of a bag, or an .mcap or .db3 file')
    add('--rate', type=_positive, default=1.0, metavar='FACTOR', help='pace; 1 is that of the '
        'recording (%(default)g)')
    add('--loop', action='store_true', help='start over at the end, until Ctrl-C; time jumps '
        'back then, which costs the images that the fusion node holds at that moment')
    add('--clock', type=_positive, nargs='?', const=100.0, metavar='HZ', help='publish the '
        'recording time on /clock, for nodes on simulated time (%(const)g Hz)')
    add('--topics', nargs='+', metavar='TOPIC', help='what to play; without it, everything whose '
        'type this ROS installation has')
    add('--visible', metavar='TOPIC', help='the visible images; without it, found by name and '
        'type')
    add('--thermal', metavar='TOPIC', help='the thermal images; likewise')
    add('--wait', type=_not_negative, default=10.0, metavar='SECONDS', help='longest wait for '
        'subscribers of the visible and the thermal images, so that no first image is lost '
        '(%(default)g)')
    add('--record', type=Path, metavar='OUT', help='record the fused topics into a new bag of '
        'the same storage')
    add('--record-topics', nargs='+', metavar='TOPIC', help='record these instead, relative to '
        'the namespace')
    add('--measure', action='store_true', help='measure latency and drops of the fusion node')
    add('--summary', type=Path, metavar='FILE', help='the same, and write it as JSON')
    # fmt: on
    options = parser.parse_args(arguments)
    if not options.bag.exists():
        parser.error(f'{options.bag} does not exist')
    if options.record is not None and options.record.exists():
        parser.error(f'--record: {options.record} exists; name a new bag')
    if options.record_topics and options.record is None:
        parser.error('--record-topics needs --record')
    options.measure = options.measure or options.summary is not None
    return options


def _positive(text: str) -> float:
    value = float(text)
    if not 0.0 < value < math.inf:
        raise argparse.ArgumentTypeError(f'must be above 0, not {text}')
    return value


def _not_negative(text: str) -> float:
    value = float(text)
    if not 0.0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f'must be 0 or more, not {text}')
    return value


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
    return int(seconds) * _NANOSECONDS + int(nanoseconds)


class Pace:
    """
    When what was recorded is due, and what time it is in the recording.

    All times are whole nanoseconds: ``due`` and ``now`` of a steady clock, the others of the
    recording.

    :param start: recording time of the beginning.
    :param end: recording time of the end; with a loop, the beginning follows at once.
    :param rate: pace; 1 is that of the recording.
    """

    def __init__(self, start: int, end: int, rate: float) -> None:
        self.start, self.end = start, end
        self._duration, self._rate = end - start, rate
        self._origin: int | None = None
        self._rounds = 0

    def begin(self, now: int) -> None:
        """Let the recording begin now."""
        self._origin = now

    def start_over(self) -> int:
        """Let the beginning follow on the end; return how often by now."""
        self._rounds += 1
        return self._rounds

    def due(self, recorded: int) -> int:
        """Return when a message of that recording time is due in this round."""
        assert self._origin is not None
        passed = recorded - self.start + self._rounds * self._duration
        return self._origin + round(passed / self._rate)

    def time(self, now: int) -> int:
        """Return the recording time: it stands at the start before the beginning."""
        return self.unrolled(now) - self._rounds * self._duration

    def unrolled(self, now: int) -> int:
        """Return the recording time as if the rounds followed each other in the recording."""
        if self._origin is None:
            return self.start
        return self.start + round((now - self._origin) * self._rate)


class Latencies:
    """
    How long after its pair a fused image comes, in seconds of a steady clock.

    The fused image has the stamp of the visible one. The thermal image of the pair is taken to
    be the one with the nearest stamp among those published by then.
    """

    def __init__(self) -> None:
        self._published: dict[Source, dict[int, float]] = {source: {} for source in SOURCES}
        self.from_pair: list[float] = []
        self.from_visible: list[float] = []

    def published(self, source: Source, stamp: int, now: float) -> None:
        """Note that an image is being published."""
        times = self._published[source]
        times[stamp] = now
        if len(times) > _KEPT_STAMPS:
            del times[next(iter(times))]

    def fused(self, stamp: int, now: float) -> None:
        """Note that a fused image came; one whose visible image is not known does not count."""
        visible = self._published['visible'].get(stamp)
        if visible is None:
            return
        self.from_visible.append(now - visible)
        thermal = self._published['thermal']
        if thermal:
            later = max(visible, thermal[min(thermal, key=lambda other: abs(other - stamp))])
            self.from_pair.append(now - later)

    def start_over(self) -> None:
        """Forget the stamps, which are about to come again; what still comes is not timed."""
        for times in self._published.values():
            times.clear()


class Mark(Enum):
    """What stands between records, and after them."""

    START_OVER = auto()
    END = auto()


class ReadAhead:
    """
    Reads a bag in a thread, so that the disk does not delay who plays it.

    :param read: yields the records and :class:`Mark`; called in the thread.
    :param limit: bytes that are held at most, beside one record.
    """

    def __init__(
        self, read: Callable[[], Iterator[Record | Mark]], limit: int = _READ_AHEAD_BYTES
    ) -> None:
        self._read = read
        self._limit = limit
        self._condition = threading.Condition()
        self._records: deque[Record | Mark] = deque()
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
                    self._bytes += _size(record)
                    self._condition.notify_all()
        except (BagError, OSError) as error:  # the bag or its disk is damaged
            self._error = PlayError(str(error))
        except Exception as error:  # who takes must hear of it
            self._error = error
        finally:
            with self._condition:
                self._done = True
                self._condition.notify_all()

    def take(self, timeout: float) -> Record | Mark:
        """
        Return what was read next.

        :raises queue.Empty: there is nothing within ``timeout`` seconds.
        :raises PlayError: the bag cannot be read further; after the last record before.
        """
        with self._condition:
            self._condition.wait_for(lambda: self._records or self._done, timeout)
            if self._records:
                record = self._records.popleft()
                self._bytes -= _size(record)
                self._condition.notify_all()
                return record
            raise self._error or queue.Empty

    def close(self) -> None:
        """End the thread."""
        with self._condition:
            self._done = True
            self._condition.notify_all()
        self._thread.join()


@dataclass(frozen=True)
class _Arrival:
    """A message to record."""

    topic: str
    type: str
    data: bytes
    time: int


class Recording:
    """
    Writes a bag in a thread, so that the disk does not delay who plays.

    :param path: of the new bag.
    :param storage: 'mcap' or 'sqlite3'.
    """

    def __init__(self, path: Path, storage: str) -> None:
        self._path, self._storage = path, storage
        self._queue: queue.SimpleQueue[_Arrival | None] = queue.SimpleQueue()
        self.counts: Counter[str] = Counter()
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name='record', daemon=True)
        self._thread.start()

    def _run(self) -> None:
        known = set()
        try:
            writer = BagWriter(self._path, self._storage)
            try:
                while (arrival := self._queue.get()) is not None:
                    if arrival.topic not in known:
                        writer.add_topic(arrival.topic, arrival.type)
                        known.add(arrival.topic)
                    writer.write_raw(arrival.topic, arrival.data, arrival.time)
                    self.counts[arrival.topic] += 1
            finally:
                writer.close()
        except Exception as error:  # it is the player's, who must hear of it
            self.error = error

    def write(self, topic: str, type_name: str, data: bytes, recorded: int) -> None:
        """Hand over a message that came at the recording time ``recorded`` in nanoseconds."""
        self._queue.put(_Arrival(topic, type_name, data, recorded))

    def close(self) -> None:
        """Write what was handed over and finish the bag."""
        self._queue.put(None)
        self._thread.join()


class BagPlayer(Node):  # type: ignore[misc]
    """
    Plays a bag, and records and measures what the fusion node makes of it.

    :param options: as :func:`parse_arguments` returns them.
    :raises PlayError: there is nothing to play, or no visible and thermal images to measure.
    :raises BagError: the bag cannot be read.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__('play_bag')
        self._options = options
        # A node to look after: to wait for, to record and to measure.
        self._observing: bool = options.measure or options.record is not None
        self._status_name = f'{self.get_namespace().rstrip("/")}/fusion_node: fusion'
        self._values: dict[str, str] = {}
        self._baseline: dict[str, str] = {}
        self._failure = ''
        self._statuses = 0
        self._fused = 0
        self._late = array('d')
        self._complete = False
        self._told = False
        self._latencies = Latencies()
        self._recording: Recording | None = None
        self._recorded: dict[str, Any] = {}
        self._read_ahead: ReadAhead | None = None
        self._played: Counter[str] = Counter()
        self._served_at = 0
        self._rounds = 1
        self._found: list[str] = []

        with BagReader(options.bag) as reader:
            topics = dict(reader.topics)
            self._pace = Pace(reader.start, reader.end, options.rate)
            self._seconds = (reader.end - reader.start) / _NANOSECONDS
            self._storage = reader.storage
            self._problems: list[str] = []
            self._tell_problems(reader.problems)
        self._sources: dict[str, Source] = {}
        try:
            found = find_sources(topics, options.visible, options.thermal)
            self._sources = {found.visible: 'visible', found.thermal: 'thermal'}
        except BagError:
            # Anything can be played; to be measured, it must be known which is which.
            if options.measure or options.visible or options.thermal:
                raise
        self._image_publishers: dict[str, Any] = {}
        self._publishers_by_topic = self._create_publishers(topics)
        self._clock_publisher: Any = None
        if options.clock:
            self._clock_publisher = self.create_publisher(ClockMessage, '/clock', 10)
            self.create_timer(
                1.0 / options.clock, self._tick, clock=Clock(clock_type=ClockType.STEADY_TIME)
            )
        if self._observing:
            reliable = QoSProfile(depth=50, reliability=ReliabilityPolicy.RELIABLE)
            self.create_subscription(
                DiagnosticArray, '/diagnostics', self._on_diagnostics, reliable
            )
        if options.measure:
            self._listen(_FUSED, IMAGE_TYPE)

    # What goes out

    def _create_publishers(self, topics: Mapping[str, Any]) -> dict[str, Any]:
        """Return a publisher for each topic that can and shall be played."""
        wanted = self._options.topics
        names = list(topics) if wanted is None else [_absolute(name) for name in wanted]
        missing = [name for name in names if name not in topics]
        if missing:
            raise PlayError(
                f'{self._options.bag} has no topic {missing[0]}; it has {", ".join(topics)}'
            )
        own = self._own_topics()
        publishers: dict[str, Any] = {}
        unknown, ours = [], []
        for name in names:
            topic = topics[name]
            kind = message_type(topic.type)
            if any(name == other or name.startswith(f'{other}/') for other in own):
                ours.append(name)
            elif kind is None:
                unknown.append(f'{name} ({topic.type})')
            elif topic.count:
                publishers[name] = self.create_publisher(kind, name, _quality(name, topic.type))
                if topic.type in _IMAGE_TYPES:
                    self._image_publishers[name] = publishers[name]
        if ours:
            self.get_logger().info(f'not played, for they are made anew: {", ".join(ours)}')
        if unknown:
            self.get_logger().warning(
                f'not played, for this ROS installation lacks their types: {", ".join(unknown)}'
            )
        if not publishers:
            raise PlayError(f'{self._options.bag} has no messages that can be played')
        silent = [name for name in self._sources if name not in publishers]
        if silent and self._options.measure:
            raise PlayError(f'nothing to measure: {silent[0]} is not played')
        return publishers

    def _own_topics(self) -> list[str]:
        """Return what must not come from the bag: the clock, and what is observed."""
        own = ['/clock'] if self._options.clock else []
        if self._observing:
            own += ['/diagnostics', self.resolve_topic_name('fused')]
        return own

    def _tick(self) -> None:
        now = self._pace.time(time.monotonic_ns())
        stamp = Time(sec=now // _NANOSECONDS, nanosec=now % _NANOSECONDS)
        self._clock_publisher.publish(ClockMessage(clock=stamp))

    # What comes in

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name == self._status_name:
                self._values = {item.key: item.value for item in status.values}
                self._failure = status.message if status.level == DiagnosticStatus.ERROR else ''
                self._statuses += 1

    def _listen(self, topic: str, type_name: str) -> None:
        """Subscribe to a topic of the node, as it is serialised."""
        kind = message_type(type_name)
        if kind is None:
            self.get_logger().warning(f'not recorded, for {type_name} is not known here: {topic}')
            self._recorded[topic] = None
            return
        self._recorded[topic] = self.create_subscription(
            kind,
            topic,
            partial(self._on_output, topic, self.resolve_topic_name(topic), type_name),
            QoSProfile(depth=50, reliability=ReliabilityPolicy.RELIABLE),
            raw=True,
        )

    def _on_output(self, topic: str, name: str, type_name: str, data: bytes) -> None:
        now = time.monotonic_ns()
        if topic == _FUSED:
            self._fused += 1
            with suppress(ValueError):
                self._latencies.fused(header_stamp(data), now / _NANOSECONDS)
        if self._recording is not None and self._is_recorded(topic):
            self._recording.write(name, type_name, data, self._pace.unrolled(now))

    def _is_recorded(self, topic: str) -> bool:
        chosen = self._options.record_topics
        return chosen is None or topic in chosen

    def _listen_to_what_is_there(self) -> None:
        """Subscribe to those topics to record that have come up since the last call."""
        if self._options.record is None:
            return
        prefix = self.resolve_topic_name('x').removesuffix('x')
        for name, types in self.get_topic_names_and_types():
            chosen = self._options.record_topics
            if chosen is None:
                topic = name.removeprefix(prefix)
                is_wanted = topic in (_FUSED, 'fused/camera_info') or topic.startswith(
                    'fused/weights/'
                )
            else:
                named = [each for each in chosen if self.resolve_topic_name(each) == name]
                topic, is_wanted = (named[0] if named else name), bool(named)
            if is_wanted and topic not in self._recorded and self.count_publishers(name):
                self._listen(topic, types[0])

    # The run

    def run(self, executor: SingleThreadedExecutor) -> None:
        """
        Wait for subscribers, play, and wait for the node; or until the context ends.

        :raises PlayError: nobody subscribed, the node failed, or nothing was fused.
        """
        self._wait(executor)
        # What came up to here is not of this run.
        self._baseline, self._fused = dict(self._values), 0
        if self._options.record is not None:
            self._recording = Recording(self._options.record, self._storage)
        try:
            self._play(executor)
        finally:
            if self._read_ahead is not None:
                self._read_ahead.close()
        if rclpy.ok():
            self._settle(executor)
        if rclpy.ok():
            self._complete = True
            self._require_output()

    def _spin(self, executor: SingleThreadedExecutor, seconds: float) -> None:
        self._spin_until(executor, time.monotonic_ns() + round(seconds * _NANOSECONDS))

    def _spin_until(self, executor: SingleThreadedExecutor, due: int) -> None:
        """Serve clock and subscriptions until ``due``, in nanoseconds of the steady clock."""
        while rclpy.ok():
            now = time.monotonic_ns()
            if now >= due and now - self._served_at < _SERVE_NANOSECONDS:
                return
            executor.spin_once(timeout_sec=max(0.0, (due - now) / _NANOSECONDS))
            self._served_at = time.monotonic_ns()

    def _wait(self, executor: SingleThreadedExecutor) -> None:
        images = {
            name: publisher
            for name, publisher in self._image_publishers.items()
            if not self._sources or name in self._sources
        }
        end = time.monotonic() + self._options.wait
        self.get_logger().info(f'waiting for subscribers of {", ".join(images) or "nothing"}')
        while rclpy.ok():
            self._require_healthy_node()
            self._listen_to_what_is_there()
            silent = [name for name, p in images.items() if p.get_subscription_count() == 0]
            if self._observing and not self._values:
                silent.append('/diagnostics of the fusion node')
            if not silent:
                # They know of us as well a little later than we of them.
                self._spin(executor, 0.5)
                break
            if time.monotonic() >= end:
                text = f'after {self._options.wait:g} s, still waited for {", ".join(silent)}'
                if self._observing:
                    raise PlayError(f'{text}: is the fusion node running and active?')
                self.get_logger().warning(f'{text}; playing all the same')
                break
            self._spin(executor, 0.05)
        self._listen_to_what_is_there()

    def _require_healthy_node(self) -> None:
        if self._failure:
            raise PlayError(f'fusion_node: {self._failure}')
        if self._recording is not None and self._recording.error is not None:
            raise PlayError(f'cannot record: {self._recording.error}')

    def _records(self) -> Iterator[Record | Mark]:
        """Return the records in their order, again and again with a loop."""
        with BagReader(self._options.bag) as reader:
            while True:
                empty = True
                for record in reader.records(self._publishers_by_topic):
                    empty = False
                    yield record
                self._found = list(reader.problems)
                if empty or not self._options.loop:
                    break
                yield Mark.START_OVER
            yield Mark.END

    def _play(self, executor: SingleThreadedExecutor) -> None:
        pace, options = self._pace, self._options
        self.get_logger().info(
            f'playing {len(self._publishers_by_topic)} topics of {options.bag}, '
            f'{self._seconds:.1f} s'
            + ('' if options.rate == 1.0 else f' at {options.rate:g} times their pace')
        )
        self._read_ahead = ReadAhead(self._records)
        report_at = time.monotonic() + _PROGRESS_SECONDS
        while rclpy.ok():
            self._require_healthy_node()
            try:
                record = self._read_ahead.take(0.02)
            except queue.Empty:
                self._spin(executor, 0.0)
                continue
            except PlayError as error:
                self._tell_problems([f'played up to here only: {error}'])
                return
            if not self._played:
                # Not before the disk has given anything.
                pace.begin(time.monotonic_ns())
            due = pace.due(pace.end if isinstance(record, Mark) else record.time)
            self._spin_until(executor, due)
            if not rclpy.ok():
                return
            if isinstance(record, Mark):
                self._tell_problems(self._found)
                if record is Mark.END:
                    return
                self._start_over()
            else:
                self._publish(record, due)
            if time.monotonic() > report_at:
                report_at += _PROGRESS_SECONDS
                self._report()

    def _publish(self, record: Record, due: int) -> None:
        now = time.monotonic_ns()
        self._late.append((now - due) / _NANOSECONDS)
        source = self._sources.get(record.topic)
        if source is not None:
            with suppress(ValueError):
                stamp = header_stamp(record.data)
                self._latencies.published(source, stamp, now / _NANOSECONDS)
        self._publishers_by_topic[record.topic].publish(record.data)
        self._played[record.topic] += 1

    def _start_over(self) -> None:
        self._rounds = 1 + self._pace.start_over()
        self._latencies.start_over()
        if self._clock_publisher is not None:
            self._tick()  # the jump comes before the images of the new round

    def _report(self) -> None:
        played = self._pace.time(time.monotonic_ns()) - self._pace.start
        text = f'{played / _NANOSECONDS:.0f} of {self._seconds:.0f} s played'
        self.get_logger().info(text + (f', {self._fused} pairs fused' if self._observing else ''))

    def _tell_problems(self, problems: Sequence[str]) -> None:
        for problem in problems:
            if problem not in self._problems:
                self._problems.append(problem)
                self.get_logger().warning(problem)

    def _settle(self, executor: SingleThreadedExecutor) -> None:
        """Wait until the node has nothing left to do: two equal diagnostics in a row say so."""
        if not self._observing:
            self._spin(executor, 0.5)  # for the subscribers to take what was sent last
            return
        first = seen = self._statuses
        previous: dict[str, str] = {}
        since = time.monotonic()
        while rclpy.ok() and time.monotonic() - since < _STALL_SECONDS:
            self._spin(executor, 0.05)
            self._require_healthy_node()
            if self._statuses == seen:
                continue
            seen = self._statuses
            values = self._node_values()
            progress = {key: values[key] for key in values if is_counter(key)}
            if progress != previous:
                previous, since = progress, time.monotonic()
            # The first one may tell of the time before the last image arrived.
            elif seen > first + 2 and is_settled(values):
                break
        else:
            if rclpy.ok():
                self._tell_problems([f'no sign of the fusion node for {_STALL_SECONDS:.0f} s'])
        # What it has published may still be on its way.
        end = time.monotonic() + _QUIET_SECONDS
        while self._fused < counter(self._node_values(), 'fused') and time.monotonic() < end:
            self._spin(executor, 0.05)
            if not rclpy.ok():
                return

    def _node_values(self) -> dict[str, str]:
        """Return the node's diagnostics, counted from the beginning of the run."""
        return subtract_counters(self._values, self._baseline)

    def _require_output(self) -> None:
        if not self._observing or self._fused or _FUSED not in self._recorded:
            return
        values = self._node_values()
        received = ', '.join(f'{counter(values, f"{s} received")} {s}' for s in SOURCES)
        raise PlayError(
            f'no fused image came: the node received {received} images and made '
            f'{counter(values, "pairs")} pairs; drops: {_causes(drops(values)) or "none"}'
        )

    # The end

    def summary(self) -> dict[str, Any]:
        """Return what was played, and what the node made of it, for JSON."""
        values = self._node_values()
        latencies = self._latencies
        played = dict.fromkeys(SOURCES, 0)
        for topic, source in self._sources.items():
            played[source] = self._played[topic]
        received = {source: counter(values, f'{source} received') for source in SOURCES}
        recording = self._recording
        return {
            'bag': str(self._options.bag),
            'topics': dict(self._played),
            'sources': {source: topic for topic, source in self._sources.items()},
            'seconds': round(self._seconds, 3),
            'rate': self._options.rate,
            'rounds': self._rounds,
            'complete': self._complete,
            'problems': self._problems,
            'behind_schedule_ms': _spread(self._late),
            'node': {key: values.get(key, '') for key in _NODE_FACTS},
            'played': played,
            'received': received,
            # Before the node's last report, some may be on their way.
            'lost': {s: max(0, played[s] - received[s]) for s in SOURCES if self._complete},
            'pairs': counter(values, 'pairs'),
            'fused': counter(values, 'fused'),
            'fused_received': self._fused,
            'dropped': drops(values),
            'latency_ms': _spread(latencies.from_pair),
            'latency_from_visible_ms': _spread(latencies.from_visible),
            'node_latency_ms': {
                'p50': number(values, 'latency p50 (ms)'),
                'p95': number(values, 'latency p95 (ms)'),
            },
            'last_error': values.get('last error', ''),
            'recorded': {} if recording is None else dict(recording.counts),
        }

    def close(self) -> str:
        """
        Finish the recording and the measurement with what there is.

        :return: what was played, in one line.
        """
        if self._read_ahead is not None:
            self._read_ahead.close()
        if self._recording is not None:
            self._recording.close()
            if self._recording.error is not None:
                self._tell_problems([f'the recording is incomplete: {self._recording.error}'])
        summary = self.summary()
        if self._options.measure and self._played and not self._told:
            self._told = True
            print(render_summary(summary), flush=True)
        if self._options.summary is not None and self._played:
            path = self._options.summary
            text = json.dumps(summary, indent=2, ensure_ascii=False) + '\n'
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding='utf-8')
            except OSError as error:
                rclpy.logging.get_logger('dig2dig').error(f'cannot write {path}: {error}')
        played = f'played: {sum(self._played.values())} messages of {len(self._played)} topics'
        if self._recording is None:
            return played
        return f'{played}; recorded: {sum(self._recording.counts.values())}'


def _size(record: Record | Mark) -> int:
    return 0 if isinstance(record, Mark) else len(record.data)


def _absolute(topic: str) -> str:
    return '/' + topic.lstrip('/')


def _quality(topic: str, type_name: str) -> QoSProfile:
    """
    Return the quality of service to publish with.

    Reliable, which subscribers of both kinds accept. The frames that never move are sent once,
    and who comes later must hear of them too.
    """
    return QoSProfile(
        depth=10 if type_name in _IMAGE_TYPES else 100,
        reliability=ReliabilityPolicy.RELIABLE,
        durability=(
            DurabilityPolicy.TRANSIENT_LOCAL
            if topic.endswith('/tf_static')
            else DurabilityPolicy.VOLATILE
        ),
    )


def _spread(seconds: Sequence[float]) -> dict[str, float] | None:
    """Return median, 95th percentile and largest value in milliseconds; None without values."""
    found = percentiles_ms(seconds)
    return None if found is None else {**found, 'max': round(float(np.max(seconds)) * 1e3, 1)}


def _causes(dropped: Mapping[str, int]) -> str:
    return ', '.join(f'{count} {cause}' for cause, count in dropped.items() if count)


def render_summary(summary: Mapping[str, Any]) -> str:
    """Return the summary of a measured run as the lines to print."""
    played, received, lost = summary['played'], summary['received'], summary['lost']
    losses = ', '.join(f'{count} {source}' for source, count in lost.items() if count)
    rows = [
        ('played', ', '.join(f'{played[source]} {source}' for source in SOURCES)),
        ('late', f'{_figures(summary["behind_schedule_ms"])} behind the schedule of the bag'),
        (
            'received',
            ', '.join(f'{received[source]} {source}' for source in SOURCES)
            + (f'; lost on the way: {losses}' if losses else ''),
        ),
        ('fused', f'{summary["fused"]} of {summary["pairs"]} pairs'),
        ('came back', f'{summary["fused_received"]} fused images'),
        ('dropped', _causes(summary['dropped']) or 'none'),
        ('latency', f'{_figures(summary["latency_ms"])}, from the later image of the pair'),
        ('', f'{_figures(summary["latency_from_visible_ms"])}, from the visible image'),
    ]
    if not summary['complete']:
        rows.append(('note', "interrupted: the node's figures are those of its last report"))
    return '\n'.join(f'  {name:<10} {text}' for name, text in rows)


def _figures(values: Mapping[str, float] | None) -> str:
    if values is None:
        return 'no figures'
    return f'p50 {values["p50"]:g} ms, p95 {values["p95"]:g} ms, max {values["max"]:g} ms'


def main(args: list[str] | None = None) -> int:
    """Play until the end or an interruption; return the process's exit code."""
    arguments = sys.argv if args is None else ['play_bag', *args]
    options = parse_arguments(remove_ros_args(arguments)[1:])
    # Images fit into shared memory only with a larger segment, and that is the sender's.
    os.environ.update(fast_dds_environment())
    create = partial(BagPlayer, options)
    return run_node(create, BagPlayer.run, BagPlayer.close, arguments, (PlayError, BagError))


if __name__ == '__main__':
    sys.exit(main())
