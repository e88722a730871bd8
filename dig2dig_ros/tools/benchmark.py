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
Measure how fast the fusion is: the fuser alone, and the node over DDS.

``fuser`` runs the fusion with every preset, precision and device, the baselines, and other
people's fusion networks (``--plugin``) in turns on the same video. ``node`` runs ``fusion_node``
and ``pair_camera`` as processes over DDS, on this machine only, and receives the fused images like
any subscriber.

``cuda`` is for a device that is new to you: in less than ten minutes it checks that the fusion
works on it, and times it.

Exit code: 0; 1 if a check or a process failed; 2 if nothing could be done, for example without a
CUDA device; 130 after Ctrl-C.

Tables go to standard output; ``--output`` writes all measurements as JSON.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
import json
from pathlib import Path
import tempfile
import time
from typing import Any, TYPE_CHECKING

from dig2dig_ros.evaluation.device_check import failures, measure_device
from dig2dig_ros.evaluation.fusion_timing import (
    camera_noise,
    compare_fusions,
    machine,
    origin,
    Variant,
    variants,
)
from dig2dig_ros.evaluation.options import (
    add_parameter,
    load_parameters,
    parameter_file,
    positive,
    report,
    size_argument,
    UsageError,
    within,
)
from dig2dig_ros.evaluation.study import as_json
from dig2dig_ros.evaluation.tables import figure, Table
from dig2dig_ros.images.output_files import check_output_file
from dig2dig_ros.nodes.child_processes import assignments, Child, enter_domain, ProcessError
from dig2dig_ros.nodes.signals import interrupt_on_termination, run_tool
from dig2dig_ros.streams.statistics import percentiles_ms

# Importing rclpy takes a while, so a wrong command line is reported before.
if TYPE_CHECKING:
    from dig2dig_ros.nodes.client import FusionClient

Measured = tuple[list[dict[str, Any]], list[Table]]

# Layout of the JSON document.
FORMAT = 1
SIZES = [(320, 256), (640, 512), (1280, 720)]
PRESETS = ['realtime', 'fusion']
# Load before the run, in processes per core, above which times are reported as disturbed.
_BUSY = 0.2
# Flat out, the cameras send faster than the fuser alone could fuse, by this factor, and by the
# next one if the node still keeps up. Then the cameras' own limit, in Hz.
_FLAT_OUT, _FASTER, _CAMERA_LIMIT = 1.3, 1.6, 240.0
_WAIT = 60.0
# Fraction of superseded pairs above which pairs wait for each other.
_FEW = 0.05
# First images of a run, which are left out: connections have only just been made.
_SETTLING = 3


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; exit with code 2 if it is invalid."""
    parser = argparse.ArgumentParser(
        prog='dig2dig benchmark',
        description='Measure how fast the fusion is.',
    )
    commands = parser.add_subparsers(dest='command', required=True)
    fuser = commands.add_parser('fuser', help='the fuser alone, next to other fusions')
    node = commands.add_parser('node', help='the node over DDS, from camera to subscriber')
    cuda = commands.add_parser('cuda', help='check a CUDA device and measure its speed')
    # fmt: off
    for command in (fuser, node):
        add = command.add_argument
        add('--size', nargs='+', type=size_argument, metavar='WxH', default=SIZES,
            help='size of both images; default: 320x256 640x512 1280x720')
        add('--preset', nargs='+', metavar='PRESET|FILE', default=PRESETS,
            help=f'shipped presets or YAML files; default: {" ".join(PRESETS)}')
        add_parameter(command, 'device', nargs='+', default=['auto'])
        add_parameter(command, 'precision', nargs='+', default=['auto'])
        add('--threads', type=positive, metavar='COUNT',
            help='CPU threads for the fusion; default: all for fuser, num_threads of the preset '
            'for node')
        add('--noise', type=within(0, 127), metavar='LEVELS', default=0.0,
            help='standard deviation of white noise added to both cameras, in grey levels of 255; '
            'noise of 1.5 or more is removed; default: %(default)g')
        add('-o', '--output', type=Path, metavar='FILE', help='write everything as JSON')
    fuser.add_argument('--rounds', type=positive, metavar='COUNT', default=60,
                       help='pairs to time for each fusion; default: %(default)s')
    fuser.add_argument('--plugin', action='append', default=[], metavar='FILE.py',
                       help='another fusion to compare: a Python file with load() and '
                       'fuse(model, visible, thermal), see docs/performance.md; it runs with your '
                       'permissions; may be repeated')
    node.add_argument('--rate', nargs='*', type=within(0.1, _CAMERA_LIMIT), metavar='HZ',
                      default=[10.0, 15.0, 30.0],
                      help='pairs per second to measure latency at; default: 10 15 30')
    node.add_argument('--seconds', type=within(0.1, 3600), metavar='SECONDS', default=6.0,
                      help='duration at each rate; default: %(default)g')
    node.add_argument('--domain-id', type=int, metavar='ID', help='ROS domain, 0 to 101; '
                      'default: one derived from the process id, to keep clear of other nodes')
    cuda.add_argument('--device', default='cuda', help='cuda or cuda:N; with cpu, only the checks '
                      'that need no GPU; default: %(default)s')
    cuda.add_argument('--pairs', type=positive, metavar='COUNT', default=500,
                      help='random pairs to replay and compare; default: %(default)s')
    cuda.add_argument('--size', type=size_argument, metavar='WxH', default=(320, 256),
                      help='image size for the checks; default: 320x256')
    cuda.add_argument('--sizes', nargs='+', type=size_argument, metavar='WxH', default=SIZES,
                      help='image sizes to time; default: 320x256 640x512 1280x720')
    cuda.add_argument('--rounds', type=positive, metavar='COUNT', default=100,
                      help='pairs to time for each fusion; default: %(default)s')
    cuda.add_argument('-o', '--output', type=Path, metavar='FILE', help='write everything as JSON')
    # fmt: on
    args = parser.parse_args(argv)
    if args.command == 'node' and not 0 <= (args.domain_id or 0) <= 101:
        parser.error(f'--domain-id must be 0 to 101, not {args.domain_id}')
    return args


def _ours(args: argparse.Namespace) -> list[Variant]:
    return variants(args.preset, args.device, args.precision)


def measure_fuser(args: argparse.Namespace) -> Measured:
    """Measure the fuser: see :func:`compare_fusions`."""
    plugins = [Path(path) for path in args.plugin]
    return compare_fusions(_ours(args), plugins, args.size, args.rounds, args.threads, args.noise)


# The node


@contextmanager
def _running(name: str, arguments: Sequence[str], log: Path) -> Iterator[Child]:
    """Run a node as a process that ends with the block."""
    child = Child(name, ['--ros-args', *arguments], log)
    try:
        yield child
    finally:
        try:
            child.stop()
        finally:
            child.kill()


def measure_node(args: argparse.Namespace) -> Measured:
    """
    Measure the node, from the camera to the subscriber.

    :raises UsageError: a preset is missing.
    :raises ProcessError: a process fails.
    """
    try:
        from dig2dig_ros.nodes.client import FusionClient
    except ImportError as error:
        raise UsageError(
            f'dig2dig benchmark node needs ROS 2 ({error}): source its setup.bash, or pip install '
            "'dig2dig[ros]'"
        ) from error
    for preset in args.preset:
        load_parameters(preset)
    client = FusionClient.connect('benchmark', enter_domain(args.domain_id))
    results: list[dict[str, Any]] = []
    try:
        with tempfile.TemporaryDirectory(prefix='dig2dig_benchmark_') as folder:
            for variant in _ours(args):
                for size in args.size:
                    results += _measure_variant(args, variant, size, client, Path(folder))
    finally:
        client.close()
    return results, _node_tables(results)


def _measure_variant(
    args: argparse.Namespace,
    variant: Variant,
    size: tuple[int, int],
    client: FusionClient,
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
    preset = str(parameter_file(variant.preset))
    arguments = ['--params-file', preset, *assignments('fusion_node', values)]
    name = f'{variant.name} at {size[0]}x{size[1]}'
    results: list[dict[str, Any]] = []

    def run(rate: float, seconds: float, flat_out: bool = False) -> dict[str, Any]:
        report(f'{name}: {rate:.3g} Hz' + (' (flat out)' if flat_out else ''))
        log = folder / 'pair_camera.log'
        found = _stream(client, size, rate, seconds, args.noise, log)
        head = {'name': variant.name, 'size': f'{size[0]}x{size[1]}', 'flat_out': flat_out}
        return {**head, **found}

    with _running('fusion_node', arguments, folder / 'fusion_node.log') as node:
        report(f'{name}: waiting for the node to warm up')
        # The previous node may have published diagnostics as it ended.
        client.meanwhile.clear()
        client.spin(0.2)
        client.values, client.level = {}, None
        client.meanwhile += [node.require_running, client.require_sound]
        client.wait_active()
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


def _stream(
    client: FusionClient,
    size: tuple[int, int],
    rate: float,
    seconds: float,
    noise: float,
    log: Path,
) -> dict[str, Any]:
    """Let the cameras send for some seconds, and return the figures."""
    from sensor_msgs.msg import Image

    from dig2dig_ros.nodes.client import node_summary, number

    count = max(10, round(rate * seconds))
    values = {
        'width': size[0],
        'height': size[1],
        'visible_rate': float(rate),
        'thermal_rate': float(rate),
        'count': count,
        **camera_noise(noise),
        'wait_for_subscribers': _WAIT,
    }
    # Reactivated, the node counts and times from zero.
    client.change_state('deactivate')
    client.change_state('activate')
    begun = client.diagnosis_count
    client.until(lambda: client.diagnosis_count >= begun + 2, _WAIT, 'diagnostics')
    # Arrival of the fused images, and how long after their exposure, in s.
    moments: list[float] = []
    latencies: list[float] = []

    def on_fused(message: Any) -> None:
        now, stamp = time.time_ns(), message.header.stamp
        moments.append(now * 1e-9)
        latencies.append((now - stamp.sec * 10**9 - stamp.nanosec) * 1e-9)

    subscription = client.listen('fused/image_raw', Image, on_fused)
    with _running('pair_camera', assignments('pair_camera', values), log) as camera:
        limit = 2 * _WAIT + 3 * count / rate
        client.until(lambda: not camera.running, limit, 'the last image of the cameras')
        camera.require_success()
    client.settle()
    client.node.destroy_subscription(subscription)
    found = node_summary(client.values)
    dropped = {cause: lost for cause, lost in found['dropped'].items() if lost}
    if not found['fused'] or 'fusion error' in dropped:
        raise ProcessError(f'fusion_node could not fuse: {found["last_error"]}')
    settled = moments[_SETTLING:]
    span = settled[-1] - settled[0] if len(settled) > 1 else 0.0
    superseded = dropped.get('superseded', 0)
    return {
        'sent_hz': rate,
        'sent': count,
        'fused': found['fused'],
        'received': len(moments),
        'superseded': superseded,
        'dropped': dropped,
        'rate_hz': round((len(settled) - 1) / span, 3) if span > 0 else None,
        'latency_ms': percentiles_ms(latencies[_SETTLING:]),
        'node_latency_ms': found['node_latency_ms'],
        'fusion_ms': found['fusion_time_ms']['p50'],
        # Waiting for the previous pair is not overhead of the node.
        'overhead_ms': (
            number(client.values, 'overhead p50 (ms)') if superseded <= _FEW * count else None
        ),
        'about': found['node'],
    }


def _node_tables(results: Sequence[Mapping[str, Any]]) -> list[Table]:
    header = (
        'fusion', 'sent Hz', 'fused Hz', 'fused', 'superseded', 'camera to subscriber p50 ms',
        'p95 ms', 'p99 ms', 'in the node p50 ms', 'p95 ms', 'fuser ms', 'overhead ms',
    )  # fmt: skip
    by_size: dict[str, list[tuple[str, ...]]] = {}
    for row in results:
        seen = row['latency_ms'] or {}
        by_size.setdefault(row['size'], []).append(
            (
                f'{row["name"]}, flat out' if row['flat_out'] else row['name'],
                figure(row['sent_hz']),
                figure(row['rate_hz']),
                str(row['fused']),
                str(row['superseded']),
                *(figure(seen.get(key)) for key in ('p50', 'p95', 'p99')),
                *(figure(row['node_latency_ms'][key]) for key in ('p50', 'p95')),
                figure(row['fusion_ms']),
                figure(row['overhead_ms']),
            )
        )
    return [
        Table(f'The node over DDS at {size}', header, tuple(rows))
        for size, rows in by_size.items()
    ]


def measure_cuda(args: argparse.Namespace) -> Measured:
    """Check and time a device: see :func:`measure_device`."""
    how = (args.size, args.pairs, args.sizes, PRESETS, args.rounds)
    return measure_device(args.device, *how)


# All of them

_MEASURE: dict[str, Callable[[argparse.Namespace], Measured]] = {
    'fuser': measure_fuser,
    'node': measure_node,
    'cuda': measure_cuda,
}


def benchmark(args: argparse.Namespace) -> int:
    """
    Run the command: print the tables and write the document.

    :return: the exit code.
    :raises UsageError: it cannot be done.
    :raises OSError: the document cannot be written.
    """
    if args.output:
        check_output_file(args.output)
    load = machine()['load']
    if load > _BUSY:
        report(f'the load is {load:g} processes per core: times are disturbed')
    results, tables = _MEASURE[args.command](args)
    facts = machine()
    options = {key: value for key, value in vars(args).items() if key != 'output'}
    document: dict[str, Any] = as_json(
        {
            'format': FORMAT,
            'benchmark': args.command,
            'machine': {**facts, 'load': load},
            'options': options,
            'results': results,
        }
    )
    for table in tables:
        print(table.markdown(), end='\n\n')
    print(origin(results, facts, load))
    if args.output:
        args.output.write_text(f'{json.dumps(document, indent=1)}\n', encoding='utf-8')
    failed = failures(results)
    if failed:
        raise ProcessError(f'the device failed these checks: {", ".join(failed)}')
    return 0


def main(argv: Sequence[str]) -> int:
    """Run the tool; see the module's description."""
    interrupt_on_termination()
    return run_tool(
        'dig2dig benchmark',
        lambda: benchmark(parse_arguments(argv)),
        'interrupted, nothing is written',
    )
