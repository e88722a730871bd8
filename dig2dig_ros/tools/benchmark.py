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
Measure how fast the fusion is: the fuser alone, the node over DDS, and the floor of the prior.

``fuser`` lets the fusion with every preset, precision and device, the baselines and other
people's fusion networks (``--plugin``) fuse the same video in turns, as fast as they can and at
fixed rates. ``node`` runs ``fusion_node`` and ``pair_camera`` as processes over DDS, on this
machine only, and takes the fused images as any subscriber would. ``floor`` counts the operations
and bytes of the prior, measures what the device does at best, and says how far from that it is.

Tables go to the standard output, everything that was measured to ``--output`` as JSON.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
import json
import math
import os
from pathlib import Path
import sys
import tempfile
import time
from typing import Any, TYPE_CHECKING

import numpy as np

from dig2dig_ros.evaluation.baselines import BASELINES
from dig2dig_ros.evaluation.benchmarking import (
    busy_share,
    Contender,
    FORMAT,
    Image,
    keep_pace,
    load_plugin,
    machine,
    moving_pairs,
    percentiles,
    PluginError,
    take_turns,
    timing_facts,
)
from dig2dig_ros.evaluation.methods import baseline_method
from dig2dig_ros.evaluation.options import (
    fusion_settings,
    load_fuser,
    load_parameters,
    parameter_file,
    positive,
    report,
    size_argument,
    UsageError,
    with_overrides,
)
from dig2dig_ros.evaluation.study import as_json
from dig2dig_ros.evaluation.tables import Table
from dig2dig_ros.nodes.child_processes import (
    assignments,
    Child,
    middleware_environment,
    ProcessError,
    STATUS_SUFFIX,
)
from dig2dig_ros.nodes.signals import deferred_signals, interrupt_on_termination

# Importing torch or rclpy takes seconds, which a mistake in the command line need not cost.
if TYPE_CHECKING:
    from dig2dig_ros.evaluation.benchmarking_floor import Peak
    from dig2dig_ros.fusion.fuser import Fuser

SIZES = [(320, 256), (640, 512), (1280, 720)]
PRESETS = ['realtime', 'fusion']
RATES = [10.0, 15.0, 30.0]
# Different images in the video.
_FRAMES = 8
# A share of the processor that others use from which a run is called disturbed.
_BUSY = 0.1
# Flat out, the cameras send so much faster than the fuser alone would take the pairs, and faster
# still if that does not keep the node busy. The camera's own limit, in Hz.
_FLAT_OUT, _FASTER, _CAMERA_LIMIT = 1.3, 1.6, 240.0
_WAIT = 60.0
# A share of pairs passed over from which they wait for each other.
_FEW = 0.05
# The first images of a run, whose connections were made a moment ago.
_SETTLING = 3


@dataclass(frozen=True)
class Variant:
    """
    The fusion of this package in one of the ways that are asked for.

    :param name: in the tables.
    :param preset: a shipped one or a file.
    """

    name: str
    preset: str
    device: str
    precision: str


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; ends the program with code 2 where it makes no sense."""
    parser = argparse.ArgumentParser(
        prog='benchmark',
        description='Measure how fast the fusion is, and how fast it could be.',
    )
    commands = parser.add_subparsers(dest='command', required=True)
    fuser = commands.add_parser('fuser', help='the fuser alone, beside other fusions')
    node = commands.add_parser('node', help='the node over DDS, from camera to subscriber')
    floor = commands.add_parser('floor', help='what the operations and bytes of the prior need')
    # fmt: off
    for command in (fuser, node, floor):
        add = command.add_argument
        add('--size', nargs='+', type=size_argument, metavar='WxH', default=SIZES,
            help='of both images (320x256 640x512 1280x720)')
        add('--preset', nargs='+', metavar='PRESET|FILE', default=PRESETS,
            help=f'parameters of fusion_node: a shipped preset or a file ({" ".join(PRESETS)})')
        add('--device', nargs='+', metavar='DEVICE', default=['auto'],
            help='auto, cpu, cuda or cuda:N (auto)')
        add('--precision', nargs='+', default=['auto'], choices=('auto', 'fp32', 'bf16', 'fp16'),
            help='of the prior (auto)')
        add('--threads', type=positive, metavar='COUNT',
            help='of the processor for the fusion; without it, all, and in the node as many as '
            'the preset says')
        add('-o', '--output', type=Path, metavar='FILE', help='write everything as JSON')
    for command in (fuser, node):
        command.add_argument('--rate', nargs='*', type=_rate, metavar='HZ', default=RATES,
                             help='pairs a second at which latency is measured (10 15 30)')
        command.add_argument('--seconds', type=_seconds, metavar='SECONDS', default=6.0,
                             help='at each rate (%(default)g)')
    floor.add_argument('--seconds', type=_seconds, metavar='SECONDS', default=1.5,
                       help='for every time that is measured (%(default)g)')
    fuser.add_argument('--rounds', type=positive, metavar='COUNT', default=60,
                       help='pairs that every fusion fuses flat out (%(default)s)')
    fuser.add_argument('--plugin', action='append', default=[], metavar='FILE.py',
                       help='another fusion, which runs with all your rights: a Python file with '
                       'load() and fuse(model, visible, thermal), see docs/performance.md; may be '
                       'given several times')
    node.add_argument('--domain-id', type=int, metavar='ID', help='ROS domain, 0 to 101; without '
                      'it, one made from the process id, to stay away from whatever else runs')
    # fmt: on
    args = parser.parse_args(argv)
    if args.command == 'node' and not 0 <= (args.domain_id or 0) <= 101:
        parser.error(f'--domain-id must be 0 to 101, not {args.domain_id}')
    return args


def _rate(text: str) -> float:
    value = float(text)
    if not 0.1 <= value <= _CAMERA_LIMIT:
        raise argparse.ArgumentTypeError(f'{value:g} Hz is not 0.1 to {_CAMERA_LIMIT:g}')
    return value


def _seconds(text: str) -> float:
    value = float(text)
    if not 0.1 <= value <= 3600:
        raise argparse.ArgumentTypeError(f'{value:g} is not 0.1 to 3600 seconds')
    return value


def variants(args: argparse.Namespace) -> list[Variant]:
    """Return all combinations of what the command line asks for, each once."""
    several = [len(set(values)) > 1 for values in (args.device, args.precision)]
    found = {}
    for preset in args.preset:
        for device in args.device:
            for precision in args.precision:
                words = [Path(preset).stem]
                words += [device] if several[0] else []
                words += [precision] if several[1] else []
                name = ' '.join(words)
                found[name] = Variant(name, preset, device, precision)
    return list(found.values())


def make_fuser(variant: Variant, threads: int | None) -> Fuser:
    """
    Set up a variant.

    :raises UsageError: the preset, the device or a value of the parameters is refused.
    """
    # Fusions that take turns in a process share its threads, whatever a preset says.
    overrides = {
        'device': variant.device,
        'precision': variant.precision,
        'num_threads': threads or 0,
    }
    parameters = with_overrides(load_parameters(variant.preset), overrides)
    try:
        return load_fuser(parameters, fusion_settings(parameters))
    except (TypeError, ValueError) as error:
        raise UsageError(f'{variant.name} cannot be set up: {error}') from error


# The fuser alone


def own_contender(name: str, fuser: Fuser) -> Contender:
    """Return the fusion of this package as the node uses it while nobody asks for weights."""

    def fuse(visible: Image, thermal: Image) -> Image:
        return fuser.fuse(visible, thermal, weights=False).image

    return Contender(name, 'dig2dig', fuse, fuser.describe())


def baseline_contender(name: str) -> Contender:
    """Return a classical fusion; of the luma alone, its result is grey."""
    method = baseline_method(name)

    def fuse(visible: Image, thermal: Image) -> Image:
        return method(visible, thermal)

    return Contender(name, 'baseline', fuse)


def measure_fuser(args: argparse.Namespace) -> tuple[list[dict[str, Any]], list[Table]]:
    """
    Measure the fuser beside the baselines and the plug-ins, size by size.

    :raises UsageError: a variant cannot be set up.
    :raises PluginError: a plug-in fails.
    """
    plugins = [load_plugin(Path(path)) for path in args.plugin]
    ours = [(variant.name, make_fuser(variant, args.threads)) for variant in variants(args)]
    contenders = [own_contender(name, fuser) for name, fuser in ours]
    contenders += [baseline_contender(name) for name in BASELINES] + plugins
    names = [contender.name for contender in contenders]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise UsageError(f'there are two of {", ".join(sorted(twice))}: rename a file')
    references = [name for name, _ in ours]
    results, tables = [], []
    for width, height in args.size:
        size = f'{width}x{height}'
        pairs = moving_pairs(width, height, _FRAMES)
        timings = take_turns(contenders, pairs, args.rounds, _progress(size, args.rounds))
        paced = {}
        for rate in args.rate:
            report(f'{size} at {rate:g} Hz: {len(contenders) * args.seconds:.0f} s')
            paced[f'{rate:g}'] = keep_pace(contenders, pairs, rate, args.seconds)
        rows = []
        for contender in contenders:
            facts = timing_facts(timings, contender.name, references)
            latency = {
                rate: {
                    'ms': percentiles(found[contender.name].seconds),
                    'fused': len(found[contender.name].seconds),
                    'superseded': found[contender.name].superseded,
                }
                for rate, found in paced.items()
            }
            rows.append(
                {
                    'name': contender.name,
                    'kind': contender.kind,
                    'size': size,
                    **facts,
                    'latency': latency,
                    'about': dict(contender.facts),
                }
            )
        results += rows
        tables.append(_fuser_table(size, rows, references, list(paced)))
    return results, tables


def _progress(size: str, rounds: int) -> Callable[[int], None]:
    step = max(1, rounds // 4)

    def progress(done: int) -> None:
        if done % step == 0:
            report(f'{size} flat out: {done} of {rounds} rounds')

    return progress


def _fuser_table(
    size: str, rows: Sequence[Mapping[str, Any]], references: Sequence[str], rates: Sequence[str]
) -> Table:
    header = ['fusion', 'pairs/s', 'p50 ms', 'p95 ms', 'p99 ms', 'CPU ms']
    header += [f'time / {name}' for name in references]
    header += [f'{rate} Hz p50 / p95 ms' for rate in rates]
    lines = []
    for row in rows:
        line = [row['name'], _number(row['rate_hz'])]
        line += [_number(row['ms'][name]) for name in ('p50', 'p95', 'p99')]
        line.append(_number(row['cpu_ms']))
        line += [_number(row['ratio'][name]) for name in references]
        line += [_latency_text(row['latency'][rate]) for rate in rates]
        lines.append(tuple(line))
    return Table(f'The fuser alone at {size}', tuple(header), tuple(lines))


def _latency_text(latency: Mapping[str, Any]) -> str:
    if latency['ms'] is None:
        return ''
    text = f'{_number(latency["ms"]["p50"])} / {_number(latency["ms"]["p95"])}'
    lost = latency['superseded']
    share = lost / max(1, lost + latency['fused'])
    return f'{text} ({share:.0%} passed over)' if lost else text


def _number(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return ''
    return f'{value:.0f}' if value >= 1000 else f'{value:.3g}' if value < 10 else f'{value:.1f}'


# The floor


def measure_floor(args: argparse.Namespace) -> tuple[list[dict[str, Any]], list[Table]]:
    """
    Compare the prior with what its operations and bytes need at least.

    :raises UsageError: a variant cannot be set up.
    """
    from dig2dig_ros.evaluation.benchmarking_floor import measure_peak

    peaks: dict[tuple[str, str], Peak] = {}
    results = []
    for variant in variants(args):
        fuser = make_fuser(variant, args.threads)
        about = fuser.describe()
        key = (about['device'], about['precision'])
        if key not in peaks:
            report(f'measuring {" ".join(key)}')
            peaks[key] = measure_peak(fuser.device, fuser.dtype, 3 * args.seconds)
        for size in args.size:
            report(f'{variant.name} at {size[0]}x{size[1]}')
            found = _over_floor(fuser, size, peaks[key], args.seconds)
            head = {'name': variant.name, 'size': f'{size[0]}x{size[1]}'}
            results.append({**head, **found, 'about': about})
    return results, [_floor_table(results), _peak_table(results)]


def _over_floor(fuser: Fuser, size: tuple[int, int], peak: Peak, seconds: float) -> dict[str, Any]:
    """Return what the prior needs at least for a pair, and what it and the fuser take."""
    from dig2dig_ros.evaluation.benchmarking_floor import prior_call, prior_cost, seconds_of

    visible, thermal = moving_pairs(*size, 1)[0]
    calls = fuser.fuse(visible, thermal).prior_calls
    settings = fuser.settings
    # Only a chain sees all pixels whatever the setting.
    shrunk = settings.prior_downscale if settings.sampler == 'increments' else 1
    seen = (-(-size[0] // shrunk), -(-size[1] // shrunk))
    cost = prior_cost(fuser.prior, *seen)
    compute, memory = (needed * calls for needed in peak.floor(cost))
    floor = max(compute, memory)
    # As the sampler calls it: both sources at once.
    call = prior_call(fuser.prior, *seen, images=2)
    prior = float(np.median(seconds_of(call, fuser.device, seconds))) / 2 * calls
    pair = float(
        np.median(
            seconds_of(lambda: fuser.fuse(visible, thermal, weights=False), fuser.device, seconds)
        )
    )
    return {
        'prior_size': f'{seen[0]}x{seen[1]}',
        'calls': calls,
        'gflop': cost.flop / 1e9,
        'gflop_of_pair': cost.flop * calls / 1e9,
        'megabytes': cost.bytes / 1e6,
        'peak_gflop_s': {
            'convolution': peak.convolution / 1e9,
            'matrix': peak.matrix / 1e9,
        },
        'bandwidth_gb_s': peak.bandwidth / 1e9,
        'compute_ms': compute * 1e3,
        'memory_ms': memory * 1e3,
        'floor_ms': floor * 1e3,
        'prior_ms': prior * 1e3,
        'pair_ms': pair * 1e3,
        'prior_over_floor': prior / floor,
        'pair_over_floor': pair / floor,
    }


def _floor_table(results: Sequence[Mapping[str, Any]]) -> Table:
    header = (
        'fusion', 'size', 'GFLOP a call', 'MB a call', 'calls a pair', 'compute ms', 'memory ms',
        'floor ms', 'prior ms', 'prior / floor', 'pair ms', 'pair / floor',
    )  # fmt: skip
    keys = (
        'gflop', 'megabytes', 'calls', 'compute_ms', 'memory_ms', 'floor_ms', 'prior_ms',
        'prior_over_floor', 'pair_ms', 'pair_over_floor',
    )  # fmt: skip
    rows = tuple(
        (
            row['name'],
            row['size'],
            *(str(row[key]) if key == 'calls' else _number(row[key]) for key in keys),
        )
        for row in results
    )
    note = 'A call is one image through the prior; the times are those of all calls of a pair.'
    return Table('The floor', header, rows, (note,))


def _peak_table(results: Sequence[Mapping[str, Any]]) -> Table:
    rows = {
        f'{row["about"]["device"]}, {row["about"]["precision"]}': (
            _number(row['peak_gflop_s']['convolution']),
            _number(row['peak_gflop_s']['matrix']),
            _number(row['bandwidth_gb_s']),
        )
        for row in results
    }
    header = ('device', 'convolution GFLOP/s', 'matrix product GFLOP/s', 'copy GB/s')
    return Table('Measured peaks', header, tuple((name, *row) for name, row in rows.items()))


# The node


@dataclass
class _Received:
    """Fused images as a subscriber gets them: when, and how long after their exposure."""

    moments: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)


class Subscriber:
    """
    Hears the fused images and the diagnostics of the node, and sends it through its states.

    Not a thread: messages come while :meth:`until` runs.

    :param domain_id: of ROS.
    """

    def __init__(self, domain_id: int) -> None:
        from diagnostic_msgs.msg import DiagnosticArray
        from lifecycle_msgs.srv import ChangeState
        import rclpy
        from rclpy.context import Context
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.node import Node
        from rclpy.qos import QoSProfile, ReliabilityPolicy
        from rclpy.signals import SignalHandlerOptions
        from sensor_msgs.msg import Image as ImageMessage

        self._context = Context()
        rclpy.init(
            args=[],
            context=self._context,
            domain_id=domain_id,
            signal_handler_options=SignalHandlerOptions.NO,
        )
        self._executor = SingleThreadedExecutor(context=self._context)
        self._node = Node('benchmark', context=self._context, enable_rosout=False)
        self._executor.add_node(self._node)
        reliable = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
        self._node.create_subscription(ImageMessage, 'fused/image_raw', self._on_image, reliable)
        self._node.create_subscription(
            DiagnosticArray, '/diagnostics', self._on_diagnostics, reliable
        )
        self._change = self._node.create_client(ChangeState, '/fusion_node/change_state')
        self.values: dict[str, str] = {}
        self.count = 0
        self.error = ''
        self.received = _Received()

    def _on_image(self, message: Any) -> None:
        now = time.time_ns()
        stamp = message.header.stamp
        self.received.moments.append(now * 1e-9)
        self.received.latencies.append((now - stamp.sec * 10**9 - stamp.nanosec) * 1e-9)

    def _on_diagnostics(self, message: Any) -> None:
        from diagnostic_msgs.msg import DiagnosticStatus

        for status in message.status:
            if status.name.endswith(STATUS_SUFFIX):
                self.values = {item.key: item.value for item in status.values}
                self.error = status.message if status.level == DiagnosticStatus.ERROR else ''
                self.count += 1

    def until(
        self, condition: Callable[[], bool], children: Sequence[Child], what: str, timeout: float
    ) -> None:
        """
        Take messages until the condition holds.

        :param children: that must go on running meanwhile.
        :raises ProcessError: it does not hold in time, or the node or a child is in trouble.
        """
        end = time.monotonic() + timeout
        while not condition():
            with deferred_signals():
                self._executor.spin_once(timeout_sec=0.05)
            for child in children:
                child.require_running()
            if self.error:
                raise ProcessError(f'fusion_node: {self.error}')
            if time.monotonic() > end:
                raise ProcessError(children[0].describe(f'{what} did not come in {timeout:.0f} s'))

    def start_anew(self, node: Child) -> None:
        """Deactivate and activate the node, which then counts and times from zero."""
        from lifecycle_msgs.msg import Transition
        from lifecycle_msgs.srv import ChangeState

        self.until(self._change.service_is_ready, [node], 'its service', _WAIT)
        for transition in (Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_ACTIVATE):
            request = ChangeState.Request(transition=Transition(id=transition))
            future = self._change.call_async(request)
            self.until(future.done, [node], 'an answer to a transition', _WAIT)
        self.received = _Received()
        self.until(self._fresh_after(self.count + 2), [node], 'diagnostics', _WAIT)

    def settle(self, node: Child) -> None:
        """Wait for diagnostics of a node that has nothing left to do."""
        from dig2dig_ros.nodes.client import is_settled

        fresh = self._fresh_after(self.count + 2)
        self.until(
            lambda: fresh() and is_settled(self.values), [node], 'the end of its work', _WAIT
        )

    def _fresh_after(self, count: int) -> Callable[[], bool]:
        return lambda: self.count >= count

    def close(self) -> None:
        """Leave the graph."""
        import rclpy

        self._executor.shutdown()
        self._node.destroy_node()
        rclpy.try_shutdown(context=self._context)


@contextmanager
def _running(module: str, arguments: Sequence[str], log: Path) -> Iterator[Child]:
    """Run a node as a process, which ends with the block."""
    child = Child(module, ['--ros-args', *arguments], log)
    try:
        yield child
    finally:
        try:
            child.stop()
        finally:
            child.kill()


def measure_node(args: argparse.Namespace) -> tuple[list[dict[str, Any]], list[Table]]:
    """
    Measure the node from the camera's clock to the subscriber's.

    :raises UsageError: a preset is missing.
    :raises ProcessError: a process fails.
    """
    try:
        import rclpy  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f'benchmark node needs ROS 2 ({error}): source its setup.bash, or pip install '
            "'dig2dig[ros]'"
        ) from error
    for preset in args.preset:
        load_parameters(preset)
    domain = args.domain_id
    if domain is None:
        domain = 1 + os.getpid() % 101
    os.environ.update(middleware_environment(domain))
    subscriber = Subscriber(domain)
    results: list[dict[str, Any]] = []
    try:
        with tempfile.TemporaryDirectory(prefix='dig2dig_benchmark_') as folder:
            for variant in variants(args):
                for size in args.size:
                    results += _measure_variant(args, variant, size, subscriber, Path(folder))
    finally:
        subscriber.close()
    return results, _node_tables(results)


def _measure_variant(
    args: argparse.Namespace,
    variant: Variant,
    size: tuple[int, int],
    subscriber: Subscriber,
    folder: Path,
) -> list[dict[str, Any]]:
    values: dict[str, Any] = {
        'warmup_size': list(size),
        'diagnostics_period': 0.2,
        'device': variant.device,
        'precision': variant.precision,
    }
    if args.threads is not None:
        values['num_threads'] = args.threads
    arguments = [
        '--params-file',
        str(parameter_file(variant.preset)),
        *assignments('fusion_node', values),
    ]
    name = f'{variant.name} at {size[0]}x{size[1]}'
    results = []
    with _running('nodes.fusion_node', arguments, folder / 'fusion_node.log') as node:
        report(f'{name}: waiting for the node to warm up')
        subscriber.values = {}
        subscriber.until(
            lambda: subscriber.values.get('state') == 'active', [node], 'its activation', 180.0
        )

        def run(rate: float, seconds: float, flat_out: bool = False) -> dict[str, Any]:
            report(f'{name}: {rate:.3g} Hz' + (' (flat out)' if flat_out else ''))
            log = folder / 'pair_camera.log'
            found = _stream(subscriber, node, size, rate, seconds, log)
            about = {key: subscriber.values.get(key, '') for key in _NODE_FACTS}
            head = {'name': variant.name, 'size': f'{size[0]}x{size[1]}', 'flat_out': flat_out}
            return {**head, **found, 'about': about}

        for rate in args.rate:
            results.append(run(rate, args.seconds))
        probe = results[0] if results else run(5.0, 1.0)
        sent = min(_CAMERA_LIMIT, _FLAT_OUT * 1e3 / max(probe['fusion_ms'] or 1.0, 1.0))
        while True:
            flat_out = run(sent, args.seconds, flat_out=True)
            if flat_out['superseded'] > 0.03 * flat_out['sent'] or sent >= _CAMERA_LIMIT:
                break
            sent = min(_CAMERA_LIMIT, sent * _FASTER)
        results.append(flat_out)
    return results


_NODE_FACTS = ('device', 'precision', 'prior', 'N', 'S', 'resolution')


def _stream(
    subscriber: Subscriber,
    node: Child,
    size: tuple[int, int],
    rate: float,
    seconds: float,
    log: Path,
) -> dict[str, Any]:
    """Let the camera send for so many seconds, and return what came of it."""
    from dig2dig_ros.nodes.client import counter, drops, number

    count = max(10, round(rate * seconds))
    values = {
        'width': size[0],
        'height': size[1],
        'visible_rate': float(rate),
        'thermal_rate': float(rate),
        'count': count,
        'wait_for_subscribers': _WAIT,
    }
    subscriber.start_anew(node)
    with _running('tools.pair_camera', assignments('pair_camera', values), log) as camera:
        subscriber.until(
            lambda: not camera.running, [node], 'the last image', 2 * _WAIT + 3 * count / rate
        )
        camera.require_success()
    subscriber.settle(node)
    table = subscriber.values
    received = subscriber.received
    moments = received.moments[_SETTLING:]
    span = moments[-1] - moments[0] if len(moments) > 1 else 0.0
    dropped = {cause: lost for cause, lost in drops(table).items() if lost}
    if not counter(table, 'fused') or 'fusion error' in dropped:
        raise ProcessError(node.describe(f'could not fuse: {table.get("last error", "")}'))
    latency = {name: number(table, f'latency {name} (ms)') for name in ('p50', 'p95')}
    fusion = number(table, 'fusion time p50 (ms)')
    median = latency['p50']
    superseded = dropped.get('superseded', 0)
    overhead = None if median is None or fusion is None else round(median - fusion, 3)
    return {
        'sent_hz': rate,
        'sent': count,
        'fused': counter(table, 'fused'),
        'received': len(received.moments),
        'superseded': superseded,
        'dropped': dropped,
        'rate_hz': round((len(moments) - 1) / span, 3) if span > 0 else None,
        'latency_ms': percentiles(received.latencies[_SETTLING:]),
        'node_latency_ms': latency,
        'fusion_ms': fusion,
        # A pair that waits for the one before is no overhead of the node.
        'overhead_ms': overhead if superseded <= _FEW * count else None,
    }


def _node_tables(results: Sequence[Mapping[str, Any]]) -> list[Table]:
    header = (
        'fusion', 'sent Hz', 'fused Hz', 'fused', 'passed over', 'camera to subscriber p50 ms',
        'p95 ms', 'p99 ms', 'in the node p50 ms', 'p95 ms', 'fuser ms', 'overhead ms',
    )  # fmt: skip
    by_size: dict[str, list[tuple[str, ...]]] = {}
    for row in results:
        seen = row['latency_ms'] or {}
        by_size.setdefault(row['size'], []).append(
            (
                f'{row["name"]}, flat out' if row['flat_out'] else row['name'],
                _number(row['sent_hz']),
                _number(row['rate_hz']),
                str(row['fused']),
                str(row['superseded']),
                *(_number(seen.get(key)) for key in ('p50', 'p95', 'p99')),
                *(_number(row['node_latency_ms'][key]) for key in ('p50', 'p95')),
                _number(row['fusion_ms']),
                _number(row['overhead_ms']),
            )
        )
    return [
        Table(f'The node over DDS at {size}', header, tuple(rows))
        for size, rows in by_size.items()
    ]


# All of them

_MEASURE: dict[str, Callable[[argparse.Namespace], tuple[list[dict[str, Any]], list[Table]]]] = {
    'fuser': measure_fuser,
    'node': measure_node,
    'floor': measure_floor,
}


def benchmark(args: argparse.Namespace) -> dict[str, Any]:
    """
    Do what the command line asks for: print the tables, write and return the document.

    :raises UsageError: something that was asked for cannot be done.
    :raises PluginError: a plug-in fails.
    :raises OSError: the document cannot be written.
    """
    if args.output and not args.output.absolute().parent.is_dir():
        raise UsageError(
            f'there is no folder {args.output.parent}: make it, or choose another --output'
        )
    busy = busy_share(0.5)
    if busy > _BUSY:
        report(f'other processes use {busy:.0%} of the processor: times are disturbed')
    results, tables = _MEASURE[args.command](args)
    facts = machine()
    options = {key: value for key, value in vars(args).items() if key != 'output'}
    document: dict[str, Any] = as_json(
        {
            'format': FORMAT,
            'benchmark': args.command,
            'machine': {**facts, 'busy_before': busy},
            'options': options,
            'results': results,
        }
    )
    for table in tables:
        print(table.markdown(), end='\n\n')
    print(_description(results, facts, busy))
    if args.output:
        args.output.write_text(f'{json.dumps(document, indent=1)}\n', encoding='utf-8')
    return document


def _description(
    results: Sequence[Mapping[str, Any]], facts: Mapping[str, Any], busy: float
) -> str:
    """Return in a line where and with what the figures came about."""
    about = dict.fromkeys(
        ', '.join(row['about'][key] for key in ('device', 'precision'))
        for row in results
        if row.get('about', {}).get('device')
    )
    parts = [*about, facts['cpu']]
    parts += [
        f'{name} {number}' for name, number in facts['versions'].items() if name != 'machine'
    ]
    parts += [f'{name}={value}' for name, value in facts['variables'].items()]
    if math.isfinite(busy):
        parts.append(f'{busy:.0%} of the processor in use by others before')
    return '; '.join(parts)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; return the process's exit code."""
    args = parse_arguments(argv)
    interrupt_on_termination()
    try:
        benchmark(args)
    except (UsageError, PluginError, OSError, ImportError) as error:
        report(f'benchmark: {error}')
        return 2
    except KeyboardInterrupt:
        report('benchmark: interrupted, nothing is written')
        return 130
    except ProcessError as error:
        report(f'benchmark: {error}')
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
