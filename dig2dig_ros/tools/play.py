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
Play a bag over DDS at the pace of its recording, and record and measure the fusion node.

Works without rosbag2. Messages are published as they are in the bag, without decoding, when their
recording time is due on a steady clock; a thread reads ahead. It can also publish simulated time,
record the fused topics into another bag, and measure the latency and drops of a fusion node in
the same namespace. Recording the weight maps costs that node some time, so measure without it.
"""

from __future__ import annotations

import argparse
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
import json
import math
import os
from pathlib import Path
import queue
import sys
import time
from typing import Any

from builtin_interfaces.msg import Time
import rclpy
from rclpy.clock import Clock, ClockType
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.utilities import remove_ros_args
from rosgraph_msgs.msg import Clock as ClockMessage

from dig2dig_ros.evaluation.bag_playback import (
    BagRecorder,
    nothing_to_play,
    Pace,
    PlayError,
    ReadAhead,
    render_summary,
)
from dig2dig_ros.evaluation.bag_reader import BagReader
from dig2dig_ros.evaluation.bag_topics import encodings_in, find_sources
from dig2dig_ros.evaluation.bag_types import BagError, COMPRESSED_IMAGE_TYPE, IMAGE_TYPE, Record
from dig2dig_ros.nodes.child_processes import ProcessError
from dig2dig_ros.nodes.client import FusionClient
from dig2dig_ros.nodes.raw_topics import FUSED, FusionObserver, header_stamp, raw_publishers
from dig2dig_ros.nodes.run import run_node
from dig2dig_ros.resources import fast_dds_environment
from dig2dig_ros.streams.pairing import Source, SOURCES
from dig2dig_ros.streams.statistics import percentiles_ms

_NANOSECONDS = 1_000_000_000
# While playback is behind schedule, subscriptions are still served this often.
_SERVE_NANOSECONDS = 5_000_000
# Number of messages whose lateness is kept, for a bag that loops for days.
_KEPT_TIMES = 1_000_000
_IMAGE_TYPES = (IMAGE_TYPE, COMPRESSED_IMAGE_TYPE)


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """
    Parse the command line; exit with code 2 if it is invalid.

    :param arguments: without the program's name and without ROS arguments.
    """
    parser = argparse.ArgumentParser(
        prog='dig2dig play',
        description='Play a bag over DDS at the pace of its recording, and record and measure '
        'what the fusion node publishes.',
        epilog='ROS arguments go to the end: --ros-args -r /camera/image:=/visible/image_raw',
    )
    add = parser.add_argument
    # fmt: off
    add('bag', type=Path, metavar='BAG', help='bag: its folder, or an .mcap or .db3 file')
    add('--rate', type=_positive, default=1.0, metavar='FACTOR', help='speed, relative to the '
        'recording; default: %(default)g')
    add('--loop', action='store_true', help='repeat until Ctrl-C; time jumps back at the end, '
        'and the fusion node drops the images that still wait')
    add('--clock', type=_positive, nargs='?', const=100.0, metavar='HZ', help='publish the '
        'recording time on /clock, for nodes with use_sim_time; default rate: %(const)g')
    add('--topics', nargs='+', metavar='TOPIC', help='topics to play; default: all whose type '
        'this ROS installation knows')
    add('--visible', metavar='TOPIC', help='images of the visible camera; default: found by name '
        'and type')
    add('--thermal', metavar='TOPIC', help='images of the thermal camera; default: found by name '
        'and type')
    add('--wait', type=float, default=10.0, metavar='SECONDS', help='longest wait for '
        'subscribers of the visible and the thermal images, so that the first images are '
        'not lost; default: %(default)g')
    add('--record', type=Path, metavar='OUT', help='record the fused topics into a new bag of '
        'the same storage')
    add('--measure', action='store_true', help='measure latency and drops of the fusion node')
    add('--summary', type=Path, metavar='FILE', help='write the measurements as JSON')
    # fmt: on
    options = parser.parse_args(arguments)
    if not options.bag.exists():
        parser.error(f'{options.bag} does not exist')
    if options.record is not None and options.record.exists():
        parser.error(f'--record: {options.record} exists; name a new bag')
    if not 0.0 <= options.wait < math.inf:
        parser.error(f'--wait must be 0 or more, not {options.wait:g}')
    options.measure = options.measure or options.summary is not None
    return options


def _positive(text: str) -> float:
    if not 0.0 < float(text) < math.inf:
        raise argparse.ArgumentTypeError(f'must be above 0, not {text}')
    return float(text)


class BagPlayer(Node):  # type: ignore[misc]
    """
    Plays a bag, and records and measures the output of the fusion node.

    :param options: from :func:`parse_arguments`.
    :raises PlayError: there is nothing to play, or no visible and thermal images to measure.
    :raises BagError: the bag cannot be read.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__('bag_player')
        self._options = options
        # Whether a fusion node is to be waited for, recorded and measured.
        self._observing: bool = options.measure or options.record is not None
        self._observer: FusionObserver | None = None
        self._late = array('d')
        self._complete = False
        self._told = False
        self._said_slow = False
        self._recorder: BagRecorder | None = None
        self._played: Counter[str] = Counter()
        self._served_at = 0
        self._rounds = 1
        self._found: list[str] = []
        self._problems: list[str] = []
        with BagReader(options.bag) as reader:
            topics = dict(reader.topics)
            self._pace = Pace(reader.start, reader.end, options.rate)
            self._seconds = (reader.end - reader.start) / _NANOSECONDS
            self._storage = reader.storage
            self._tell_problems(reader.problems)
            self._sources: dict[str, Source] = {}
            given = (options.visible, options.thermal)
            try:
                found = find_sources(topics, *given, encoding_of=encodings_in(reader))
                self._sources = {found.visible: 'visible', found.thermal: 'thermal'}
                self.get_logger().info(f'using {found}')
            except BagError:
                # Anything can be played, but measuring needs to know which topic is which.
                if options.measure or any(given):
                    raise
        self._raw = self._create_publishers(topics)
        # The topics to wait for: all images, if it is not known which is which.
        self._awaited = list(self._sources) or [
            name for name in self._raw if topics[name].type in _IMAGE_TYPES
        ]
        self._clock_publisher: Any = None
        if options.clock:
            self._clock_publisher = self.create_publisher(ClockMessage, '/clock', 10)
            self.create_timer(
                1.0 / options.clock, self._tick, clock=Clock(clock_type=ClockType.STEADY_TIME)
            )

    def _create_publishers(self, topics: Mapping[str, Any]) -> dict[str, Any]:
        """Return a publisher for each topic to play."""
        wanted = self._options.topics
        names = list(topics) if wanted is None else [f'/{name.lstrip("/")}' for name in wanted]
        missing = [name for name in names if name not in topics]
        if missing:
            raise PlayError(
                f'{self._options.bag} has no topic {missing[0]}; it has {", ".join(topics)}'
            )
        # Never played from the bag: the clock, and the topics that are observed.
        own = ['/clock'] if self._options.clock else []
        if self._observing:
            made = ('fused', *(f'{source}/restored' for source in SOURCES))
            own += ['/diagnostics', *map(self.resolve_topic_name, made)]
        types = {name: topics[name].kind for name in names if topics[name].count}
        publishers = raw_publishers(self, types, own)
        if not publishers:
            raise nothing_to_play(self._options.bag, topics)
        silent = [name for name in self._sources if name not in publishers]
        if silent and self._options.measure:
            raise PlayError(f'nothing to measure: {silent[0]} is not played')
        return publishers

    def _tick(self) -> None:
        now = self._pace.time(time.monotonic_ns())
        stamp = Time(sec=now // _NANOSECONDS, nanosec=now % _NANOSECONDS)
        self._clock_publisher.publish(ClockMessage(clock=stamp))

    # The run

    def run(self, executor: SingleThreadedExecutor) -> None:
        """
        Wait for subscribers, play, and wait for the node.

        :raises PlayError: nobody subscribed, the recording failed, or nothing was fused.
        :raises ProcessError: the node failed.
        """
        client = FusionClient(self, executor, self.get_namespace())
        if self._observing:
            client.meanwhile += [client.require_sound, self._require_recording]
            hand_on = None if self._options.record is None else self._record
            self._observer = FusionObserver(client, hand_on)
            if self._options.measure:
                self._observer.listen(FUSED, IMAGE_TYPE)
        self._wait(client)
        if self._observer is not None:
            self._observer.begin()
        if self._options.record is not None:
            self._recorder = BagRecorder(self._options.record, self._storage)
        self.get_logger().info(
            f'playing {len(self._raw)} topics of {self._options.bag}, {self._seconds:.1f} s'
        )
        while self._play(client) and self._options.loop:
            self._start_over()
        if self._observer is None:
            client.spin(0.5)  # so that the subscribers receive the last messages
            self._complete = True
            return
        try:
            self._observer.settle()
        except ProcessError as error:
            client.require_sound()
            self._tell_problems([str(error)])
        self._complete = True
        self._observer.require_output()

    def _record(self, topic: str, type_name: str, data: bytes, now: int) -> None:
        if self._recorder is not None:
            self._recorder.write(topic, type_name, data, self._pace.unrolled(now))

    def _require_recording(self) -> None:
        if self._recorder is None:
            return
        if self._recorder.error is not None:
            raise PlayError(f'cannot record: {self._recorder.error}')
        if self._recorder.left_out and not self._said_slow:
            self._said_slow = True
            self.get_logger().warning('the recording has gaps: the disk is too slow')

    def _wait(self, client: FusionClient) -> None:
        images = {name: self._raw[name] for name in self._awaited if name in self._raw}
        end = time.monotonic() + self._options.wait
        self.get_logger().info(f'waiting for subscribers of {", ".join(images) or "nothing"}')
        while True:
            if self._observer is not None:
                self._observer.listen_to_what_is_there()
            silent = [name for name, p in images.items() if p.get_subscription_count() == 0]
            if self._observing and not client.values:
                silent.append('/diagnostics of the fusion node')
            if not silent:
                break
            if time.monotonic() >= end:
                text = f'after {self._options.wait:g} s, still waiting for {", ".join(silent)}'
                if self._observing:
                    raise PlayError(f'{text}: is the fusion node running and active?')
                self.get_logger().warning(f'{text}; playing anyway')
                return
            client.spin(0.05)
        # They may discover us a little later than we discover them.
        client.spin(0.5)
        if self._observer is not None:
            self._observer.listen_to_what_is_there()

    def _records(self) -> Iterator[Record]:
        with BagReader(self._options.bag) as reader:
            yield from reader.records(self._raw)
            self._found = list(reader.problems)

    def _play(self, client: FusionClient) -> bool:
        """Play the bag once; return whether it was played to its end and was not empty."""
        pace = self._pace
        read_ahead = ReadAhead(self._records)
        try:
            while True:
                try:
                    record = read_ahead.take(0.02)
                except queue.Empty:
                    self._spin_until(client, 0)
                    continue
                except PlayError as error:
                    self._tell_problems([f'played only up to here: {error}'])
                    return False
                if record is None:
                    break
                if not self._played:
                    # Time starts with the first message from the disk.
                    pace.begin(time.monotonic_ns())
                due = pace.due(record.time)
                self._spin_until(client, due)
                self._publish(record, due)
        finally:
            read_ahead.close()
        self._tell_problems(self._found)
        if not self._played:
            return False
        self._spin_until(client, pace.due(pace.end))
        return True

    def _spin_until(self, client: FusionClient, due: int) -> None:
        """Serve the clock and subscriptions until ``due``, in nanoseconds of the steady clock."""
        while True:
            for check in client.meanwhile:
                check()
            now = time.monotonic_ns()
            if now >= due and now - self._served_at < _SERVE_NANOSECONDS:
                return
            client.spin_once((due - now) / _NANOSECONDS)
            self._served_at = time.monotonic_ns()

    def _publish(self, record: Record, due: int) -> None:
        now = time.monotonic_ns()
        self._late.append((now - due) / _NANOSECONDS)
        if len(self._late) > _KEPT_TIMES:
            del self._late[: _KEPT_TIMES // 2]
        source = self._sources.get(record.topic)
        if source is not None and self._observer is not None:
            with suppress(ValueError):
                stamp = header_stamp(record.data)
                self._observer.published(source, stamp, now / _NANOSECONDS)
        self._raw[record.topic].publish(record.data)
        self._played[record.topic] += 1

    def _start_over(self) -> None:
        self._rounds = 1 + self._pace.start_over()
        if self._observer is not None:
            self._observer.start_over()
        if self._clock_publisher is not None:
            self._tick()  # the jump comes before the images of the new round

    def _tell_problems(self, problems: Sequence[str]) -> None:
        for problem in problems:
            if problem not in self._problems:
                self._problems.append(problem)
                self.get_logger().warning(problem)

    def summary(self) -> dict[str, Any]:
        """Return what was played and what the node did with it, for JSON."""
        played = {source: self._played[topic] for topic, source in self._sources.items()}
        summary = {
            'bag': str(self._options.bag),
            'topics': dict(self._played),
            'sources': {source: topic for topic, source in self._sources.items()},
            'seconds': round(self._seconds, 3),
            'rate': self._options.rate,
            'rounds': self._rounds,
            'complete': self._complete,
            'problems': self._problems,
            'behind_schedule_ms': percentiles_ms(self._late),
            'played': played,
            'recorded': dict(self._recorder.counts) if self._recorder else {},
        }
        if self._observer is not None:
            summary.update(self._observer.summary())
            # If playing stopped early, some may still be on their way.
            lost = {s: max(0, played[s] - summary['received'][s]) for s in played}
            summary['lost'] = lost if self._complete else {}
        return summary

    def close(self) -> str:
        """
        Finish the recording and the measurement.

        :return: a line on what was played.
        """
        if self._recorder is not None:
            self._recorder.close()
            if self._recorder.error is not None:
                self._tell_problems([f'the recording is incomplete: {self._recorder.error}'])
            if self._recorder.problem:
                self._tell_problems([self._recorder.problem])
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
        recorded = f'; recorded: {sum(self._recorder.counts.values())}' if self._recorder else ''
        count, topics = sum(self._played.values()), len(self._played)
        return f'played: {count} messages of {topics} topics{recorded}'


def main(args: list[str] | None = None) -> int:
    """Play until the end or an interruption; return the process's exit code."""
    arguments = sys.argv if args is None else ['dig2dig', *args]
    options = parse_arguments(remove_ros_args(arguments)[1:])
    # Images only fit into a larger shared-memory segment, which is set by the sender.
    os.environ.update(fast_dds_environment())
    create = partial(BagPlayer, options)
    refusals = (PlayError, BagError, ProcessError)
    return run_node(create, BagPlayer.run, BagPlayer.close, arguments, refusals)
