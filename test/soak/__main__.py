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
Run the fusion node for long at its full rate, and tell whether it keeps its size.

Starts ``fusion_node`` as a process of its own over real DDS, sends it pairs as fast as it takes
them, and looks at the process all the while: memory, threads, file descriptors, shared memory.
Or looks at a node that runs already (``--attach PID``), with whatever cameras it has.
Ends with code 0 if all of it stayed flat, 3 if something grew, 1 if the node did not keep on.
"""

from __future__ import annotations

import argparse
from array import array
from collections.abc import Mapping, Sequence
import json
from pathlib import Path
import platform
import sys
import time
from typing import Any

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus
import numpy as np
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from dig2dig_ros.evaluation.options import (
    check_output,
    parameter_file,
    positive,
    size_argument,
    UsageError,
)
from dig2dig_ros.evaluation.synthetic_scene import SyntheticScene
from dig2dig_ros.nodes.child_processes import assignments, Child, enter_domain, ProcessError
from dig2dig_ros.nodes.client import (
    counter,
    drops,
    FusionClient,
    number,
    STALL_SECONDS,
    START_SECONDS,
)
from dig2dig_ros.nodes.signals import interrupt_on_termination
from dig2dig_ros.streams.codec import encode
from dig2dig_ros.streams.pairing import SOURCES
from dig2dig_ros.streams.parameters import PRESETS
from dig2dig_ros.streams.preparation import stamp_of
from soak.process_growth import (
    draw,
    latency_figures,
    MEASURES,
    ProcessGone,
    sample_process,
    Trend,
    trends,
)

GREW = 3
# Different frames that are sent in turn; each is rendered once.
FRAMES = 24
# One pair is fused while the next one waits: the node is never idle, and nothing is superseded.
IN_FLIGHT = 2
# A pair of which nothing was heard for so long is lost: inputs are best-effort.
LOST_SECONDS = 2.0
# With --faults: after so many pairs comes something broken, and after so many seconds does a
# subscriber of the overlay come or go.
FAULT_EVERY, CHURN_SECONDS = 10, 5.0
_GPU_KEY = 'GPU memory of this process (MiB)'


class SoakError(RuntimeError):
    """The node cannot be soaked, or did not keep on; the message says why."""


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; exit with code 2 if it is invalid."""
    parser = argparse.ArgumentParser(
        prog='soak',
        description='Run the fusion node at full rate over real DDS and tell whether its memory, '
        'threads and file descriptors stay flat. Exit code: 0 flat, 3 not, 1 it did not keep on, '
        '2 results are there already, 130 after Ctrl-C.',
    )
    add = parser.add_argument
    # fmt: off
    add('--minutes', type=float, default=30.0, help='how long (%(default)g)')
    add('--warm-up', type=float, metavar='MINUTES', help='minutes at the beginning that are not '
        'judged; without it, a sixth of the run')
    add('--interval', type=float, default=2.0, metavar='SECONDS',
        help='between two looks at the process (%(default)g)')
    add('--size', type=size_argument, default=(640, 512), metavar='WIDTHxHEIGHT',
        help='of the images (640x512)')
    add('--rate', type=float, metavar='HZ', help='pairs a second; without it, as many as the '
        'node takes')
    add('--preset', default='realtime', metavar='PRESET|FILE', help='parameters of the node: '
        f'{", ".join(PRESETS)}, or a YAML file (%(default)s)')
    add('--device', help="auto, cpu, cuda or cuda:N, instead of the preset's")
    add('--threads', type=positive, metavar='N', help='num_threads of the node')
    add('--faults', action='store_true', help='also send broken messages, images of another size '
        'and repeated ones, and let a subscriber come and go')
    add('--attach', type=int, metavar='PID', help='look at this running node, in the ROS domain '
        'of the environment, with its own cameras; its latency is the age of the fused image by '
        'its stamp')
    add('--domain-id', type=int, metavar='ID', help='ROS domain of the node that is started, 0 '
        'to 232; without it, one made from the process id')
    add('-o', '--output', type=Path, default=Path('soak_output'), metavar='DIR',
        help='folder for soak.json, soak.png and the log (%(default)s)')
    add('--overwrite', action='store_true', help='replace results that are there')
    # fmt: on
    options = parser.parse_args(arguments)
    if options.warm_up is None:
        options.warm_up = options.minutes / 6.0
    for name in ('minutes', 'interval', 'rate'):
        value = getattr(options, name)
        if value is not None and not 0 < value < float('inf'):
            parser.error(f'--{name} must be positive, not {value}')
    if not 0 <= options.warm_up < options.minutes:
        parser.error('--warm-up must be shorter than --minutes')
    if 60 * (options.minutes - options.warm_up) < 8 * options.interval:
        parser.error('too short for a trend: give more --minutes or a smaller --interval')
    if options.domain_id is not None and not 0 <= options.domain_id <= 232:
        parser.error(f'--domain-id must be 0 to 232, not {options.domain_id}')
    try:
        parameter_file(options.preset)
    except UsageError as error:
        parser.error(str(error))
    return options


class Listener:
    """
    Times the fused images.

    :param client: hears them while it spins.
    """

    def __init__(self, client: FusionClient) -> None:
        self.client = client
        self.fused = 0
        # (seconds of the steady clock, latency in seconds), of every image whose sending is known.
        self.latencies: list[tuple[float, float]] = []
        self.last_fused = time.monotonic()
        self.longest_gap = 0.0
        client.listen('fused/image_raw', Image, self.on_fused)

    def on_fused(self, message: Any) -> None:
        """Note when a fused image came."""
        now = time.monotonic()
        if self.fused:
            self.longest_gap = max(self.longest_gap, now - self.last_fused)
        self.fused += 1
        self.last_fused = now
        latency = self.latency(stamp_of(message.header), now)
        # Stamps of another clock, or of a replayed bag, tell nothing.
        if latency is not None and 0 <= latency < STALL_SECONDS:
            self.latencies.append((now, latency))

    def latency(self, stamp: int, now: float) -> float | None:
        """Return how old an image of this stamp is, in seconds."""
        return (time.time_ns() - stamp) * 1e-9


class Feeder(Listener):
    """
    A listener that is the cameras, too.

    :param size: (width, height) of the images.
    :param rate: pairs a second; None for as many as the node takes.
    :param faults: also send what is broken.
    """

    def __init__(
        self, client: FusionClient, size: tuple[int, int], rate: float | None, faults: bool
    ) -> None:
        super().__init__(client)
        self._rate = rate
        self._faults = faults
        sensor = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
        self._publishers = [
            client.node.create_publisher(Image, f'{source}/image_raw', sensor)
            for source in SOURCES
        ]
        scene = SyntheticScene(*size)
        header = Header(frame_id='soak')
        self._pairs = []
        for index in range(FRAMES):
            frame = scene.render(index / 10.0)
            visible = encode(frame.visible, 'bgr8', header, Image)
            self._pairs.append((visible, encode(frame.thermal, 'mono16', header, Image)))
        self._sent_at: dict[int, float] = {}
        self._overlay: Any = None
        self.sent = 0
        self.broken = 0
        self.lost = 0

    @property
    def is_heard(self) -> bool:
        """Whether both topics have a subscriber."""
        return all(publisher.get_subscription_count() for publisher in self._publishers)

    def begin(self) -> None:
        """Send from now on."""
        node = self.client.node
        if self._rate is not None:
            node.create_timer(1.0 / self._rate, self._send_pair)
        node.create_timer(LOST_SECONDS / 4, self._look_after_lost)
        if self._faults:
            node.create_timer(CHURN_SECONDS, self._churn)
        self._fill()

    def on_fused(self, message: Any) -> None:
        """Note when a fused image came, and send the next pair."""
        super().on_fused(message)
        self._fill()

    def latency(self, stamp: int, now: float) -> float | None:
        """Return the seconds since the pair of this stamp was sent."""
        sent = self._sent_at.get(stamp)
        # Pairs come out in their order: those before have been dropped, and say so.
        for other in [other for other in self._sent_at if other <= stamp]:
            del self._sent_at[other]
        return None if sent is None else now - sent

    def _look_after_lost(self) -> None:
        now = time.monotonic()
        for stamp in [s for s, at in self._sent_at.items() if now - at > LOST_SECONDS]:
            del self._sent_at[stamp]
            self.lost += 1
        self._fill()

    def _fill(self) -> None:
        """Without a rate, keep as many pairs on their way as keep the node busy."""
        while self._rate is None and len(self._sent_at) < IN_FLIGHT:
            self._send_pair()

    def _send_pair(self) -> None:
        pair = self._pairs[self.sent % FRAMES]
        # Both at once, so that pairing adds nothing to the latency.
        self._sent_at[self._publish(*pair)] = time.monotonic()
        self.sent += 1
        if self._faults and self.sent % FAULT_EVERY == 0:
            self._send_broken(self.sent // FAULT_EVERY)

    def _publish(self, visible: Any, thermal: Any) -> int:
        stamp = time.time_ns()
        for publisher, message in zip(self._publishers, (visible, thermal), strict=True):
            message.header.stamp = Time(sec=stamp // 10**9, nanosec=stamp % 10**9)
            publisher.publish(message)
        return stamp

    def _send_broken(self, turn: int) -> None:
        """Send one of the things that must neither end the node nor stay in its memory."""
        whole = self._pairs[turn % FRAMES][0]
        repeated = whole.header.stamp
        visible = Image(
            header=Header(stamp=repeated, frame_id='soak'),
            height=whole.height,
            width=whole.width,
            encoding=whole.encoding,
            step=whole.step,
            data=whole.data,
        )
        kind = turn % 7
        self.broken += 1
        if kind == 0:
            visible.data = array('B', bytes(whole.step))
        elif kind == 1:
            visible.step = 1
        elif kind == 2:
            visible.encoding = 'none that there is'
        elif kind == 3:
            visible.height = visible.width = 2**31
        elif kind == 4:
            visible.header.stamp = Time()
        elif kind == 5:  # a pair of another size, without a single finite count
            height, width = max(16, whole.height // 2), max(16, whole.width // 2)
            colours = np.full((height, width, 3), 90, np.uint8)
            counts = np.full((height, width), np.nan, np.float32)
            self._publish(
                encode(colours, 'bgr8', visible.header, Image),
                encode(counts, '32FC1', visible.header, Image),
            )
            return
        # The last kind is an image that came before.
        self._publishers[0].publish(visible)

    def _churn(self) -> None:
        if self._overlay is None:
            self._overlay = self.client.listen('fused/weights/overlay', Image, lambda _: None)
        else:
            self.client.node.destroy_subscription(self._overlay)
            self._overlay = None


class Soak:
    """One run: the node, who feeds it, and what was seen of it."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._child: Child | None = None
        self._listener: Listener
        if options.attach is None:
            domain_id = enter_domain(options.domain_id)
            self._client = FusionClient.connect('soak', domain_id)
            self._listener = Feeder(self._client, options.size, options.rate, options.faults)
        else:
            self._client = FusionClient.connect('soak', options.domain_id)
            self._listener = Listener(self._client)
        self._times: list[float] = []
        self._samples: list[dict[str, float]] = []
        self._started = time.monotonic()

    def run(self) -> None:
        """
        Look at the node for as long as asked.

        :raises SoakError: it did not keep on.
        :raises ProcessError: it ended, with its last lines.
        :raises ProcessGone: the process that was to be looked at is not there.
        """
        options, listener = self._options, self._listener
        pid = options.attach
        if pid is None:
            pid = self._start()
        self._started = listener.last_fused = time.monotonic()
        end = self._started + 60.0 * options.minutes
        told = 0.0
        while (now := time.monotonic()) < end:
            self._client.spin(min(options.interval, end - now))
            minutes = (time.monotonic() - self._started) / 60.0
            sample = sample_process(pid)
            device = number(self._client.values, _GPU_KEY)
            if device is not None:
                sample['device'] = device
            self._times.append(minutes)
            self._samples.append(sample)
            if time.monotonic() - listener.last_fused > STALL_SECONDS:
                raise SoakError(
                    f'nothing was fused for {STALL_SECONDS:.0f} s; '
                    f'diagnostics: {self._complaint()}'
                )
            if minutes - told >= 1.0:
                told = minutes
                print(
                    f'{minutes:5.1f} min: {listener.fused} fused, '
                    f'{sample["resident"]:.1f} MiB resident, {sample["threads"]:.0f} threads, '
                    f'{sample["descriptors"]:.0f} descriptors',
                    flush=True,
                )

    def _complaint(self) -> str:
        """Return what the node says is wrong."""
        failure = self._client.text if self._client.level == DiagnosticStatus.ERROR else ''
        return failure or self._client.values.get('last error') or 'no error'

    def _start(self) -> int:
        options, listener = self._options, self._listener
        assert isinstance(listener, Feeder)
        values: dict[str, Any] = {'warmup_size': list(options.size)}
        if options.device is not None:
            values['device'] = options.device
        if options.threads is not None:
            values['num_threads'] = options.threads
        arguments = ['--ros-args', '--params-file', str(parameter_file(options.preset))]
        arguments += assignments('fusion_node', values)
        self._child = Child('fusion_node', arguments, options.output / 'fusion_node.log')
        self._client.meanwhile.append(self._child.require_running)
        print('waiting for fusion_node to load the denoiser and warm up ...', flush=True)
        self._client.wait_active()
        self._client.until(lambda: listener.is_heard, START_SECONDS, 'a subscriber of both images')
        listener.begin()
        return self._child.pid

    def report(self) -> dict[str, Any]:
        """
        Return what was found, and write it as JSON and as a picture.

        :raises SoakError: nothing was fused.
        :raises ValueError: the run was too short for a trend.
        """
        options, listener = self._options, self._listener
        if not listener.fused:
            raise SoakError(f'nothing was fused; diagnostics: {self._complaint()}')
        found = trends(self._times, self._samples, options.warm_up)
        begun = self._started + 60.0 * options.warm_up
        latencies = [latency for at, latency in listener.latencies if at >= begun]
        values = self._client.values
        minutes = self._times[-1]
        report: dict[str, Any] = {
            'flat': all(line.is_flat for line in found.values()),
            'minutes': round(minutes, 2),
            'warm_up_minutes': round(options.warm_up, 2),
            'samples': len(self._samples),
            'attached': options.attach is not None,
            'faults': options.faults,
            'node': {key: values.get(key, '') for key in ('device', 'precision', 'prior', 'N')},
            'resolution': values.get('resolution', ''),
            'system': {'python': platform.python_version(), 'machine': platform.machine()},
            'fused': listener.fused,
            'rate_hz': round(listener.fused / (60.0 * minutes), 2),
            'longest_gap_ms': round(1e3 * listener.longest_gap, 1),
            'latency_ms': latency_figures(latencies),
            'node_latency_ms': {
                name: number(values, f'latency {name} (ms)') for name in ('p50', 'p95')
            },
            'counters': {
                'received': {name: counter(values, f'{name} received') for name in SOURCES},
                'pairs': counter(values, 'pairs'),
                'fused': counter(values, 'fused'),
                'dropped': {cause: count for cause, count in drops(values).items() if count},
            },
            'last_error': values.get('last error', ''),
            'measures': {name: line.as_json() for name, line in found.items()},
        }
        if isinstance(listener, Feeder):
            report['sent'] = {
                'pairs': listener.sent,
                'broken': listener.broken,
                'unanswered': listener.lost,
            }
        print(render(report, found))
        folder = options.output
        columns = {
            'minutes': [round(value, 4) for value in self._times],
            **{name: [sample.get(name) for sample in self._samples] for name in found},
        }
        text = json.dumps({**report, 'series': columns}, indent=1, ensure_ascii=False)
        (folder / 'soak.json').write_text(text + '\n', encoding='utf-8')
        title = f'{minutes:.1f} minutes, {listener.fused} pairs fused, {report["resolution"]}'
        timed = [((at - self._started) / 60.0, latency) for at, latency in listener.latencies]
        try:
            draw(folder / 'soak.png', title, self._times, self._samples, options.warm_up, timed)
        except ImportError as error:
            print(f'soak: {error}', file=sys.stderr)
        return report

    def close(self) -> None:
        """
        End the node, if it was started here.

        :raises ProcessError: it did not end in good order.
        """
        try:
            if self._child is not None:
                self._child.stop()
        finally:
            self._client.close()


def render(report: Mapping[str, Any], found: Mapping[str, Trend]) -> str:
    """Return the report as a screenful of text."""
    node = report['node']
    lines = [
        f'{report["minutes"]:g} minutes ({report["warm_up_minutes"]:g} of them warm-up), '
        f'{node["device"]}, {node["precision"]}, denoiser {node["prior"]}, N {node["N"]}, '
        f'{report["resolution"]}: {report["fused"]} fused, {report["rate_hz"]:g} a second, '
        f'longest gap {report["longest_gap_ms"]:g} ms'
    ]
    latency = report['latency_ms']
    if latency is not None:
        lines.append(
            f'latency of {latency["count"]} images: p50 {latency["p50"]:g} ms, p95 '
            f'{latency["p95"]:g} ms, p99 {latency["p99"]:g} ms, max {latency["max"]:g} ms, '
            f'p99/p50 {latency["p99/p50"]:g}'
        )
    dropped = report['counters']['dropped']
    lines.append(
        'dropped: ' + (', '.join(f'{cause} {count}' for cause, count in dropped.items()) or 'none')
    )
    lines.append(
        f'{"":34} {"median":>9} {"growth":>8} {"95 % interval":>17} {"rise":>8} {"flat to":>8}'
    )
    for name, line in found.items():
        measure = MEASURES[name]
        title = f'{measure.title}, {measure.unit}' if measure.unit else measure.title
        interval = f'{line.low:+.2f} .. {line.high:+.2f}'
        verdict = f'{line.tolerance:8.2f}  {"flat" if line.is_flat else "GROWS"}'
        lines.append(
            f'{title:34} {line.median:9.1f} {line.growth:+8.2f} {interval:>17} {line.rise:+8.2f} '
            + (verdict if line.is_judged else '       -')
        )
    lines.append('FLAT' if report['flat'] else 'NOT FLAT')
    return '\n'.join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the soak; return the process's exit code."""
    options = parse_arguments(arguments)
    interrupt_on_termination()
    soak: Soak | None = None
    code = 1
    try:
        check_output(options.output, options.overwrite)
        options.output.mkdir(parents=True, exist_ok=True)
        soak = Soak(options)
        try:
            soak.run()
        except KeyboardInterrupt:
            print('soak: interrupted; what was seen until now:', file=sys.stderr)
            soak.report()
            raise
        code = 0 if soak.report()['flat'] else GREW
    except (ProcessError, SoakError, ProcessGone, ValueError, OSError) as error:
        print(f'soak: {error}', file=sys.stderr)
        code = 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt:
        code = 130
    finally:
        if soak is not None:
            try:
                soak.close()
            except ProcessError as error:
                print(f'soak: {error}', file=sys.stderr)
                code = code or 1
    return code


if __name__ == '__main__':
    sys.exit(main())
