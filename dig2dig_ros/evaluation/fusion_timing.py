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
How fast fusions are: several of them on the same images, at the same time.

The times of a run can be compared: the fusions take turns pair by pair, in a new random order
every round, so that other load on the machine affects all of them alike. Ratios are medians over
the rounds, each between two fusions of the same pair, a few milliseconds apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
import os
from pathlib import Path
import platform
import sys
import time
from typing import Any, TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dig2dig_ros.evaluation.baselines import BASELINES
from dig2dig_ros.evaluation.imperfect_cameras import of_type
from dig2dig_ros.evaluation.methods import baseline_method
from dig2dig_ros.evaluation.options import (
    load_fuser,
    load_parameters,
    report,
    UsageError,
)
from dig2dig_ros.evaluation.plugins import check_fused, Contender, load_plugin
from dig2dig_ros.evaluation.study import versions
from dig2dig_ros.evaluation.synthetic_scene import SyntheticScene
from dig2dig_ros.evaluation.tables import figure, Table
from dig2dig_ros.images.thermal_range import ThermalRange
from dig2dig_ros.streams.parameters import fusion_settings
from dig2dig_ros.streams.statistics import percentiles_ms

# Importing torch takes seconds, so a wrong command line is reported before.
if TYPE_CHECKING:
    from dig2dig_ros.fusion.fuser import Fuser

Image = NDArray[np.uint8]

# Seconds from one image of the video to the next, as of a camera of 10 Hz.
_FRAME_SECONDS = 0.1
# Determines how OpenMP's threads wait, and so the cost of a pair.
_VARIABLES = ('OMP_NUM_THREADS', 'OMP_WAIT_POLICY', 'GOMP_SPINCOUNT', 'MKL_NUM_THREADS')
# Rounds that are not counted: memory is allocated, kernels are chosen, caches are filled, and on a
# GPU a graph is recorded after the third.
_WARM_UP_ROUNDS = 6
# Number of different images in the video.
_FRAMES = 8


@dataclass
class Timing:
    """A contender's time for every pair, and the processor time of all threads meanwhile."""

    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)


def moving_pairs(
    width: int, height: int, count: int, noise: float = 0.0
) -> list[tuple[Image, Image]]:
    """
    Return a short video of the synthetic street.

    :param count: frames, a tenth of a second apart. Played forwards and backwards, it has no
        jump.
    :param noise: deviation of the white noise added to both images, in grey levels; the street's
        own is below 1.
    :return: visible (H, W, 3) in blue-green-red order and thermal (H, W), for each frame.
    :raises ValueError: the size is below 16 pixels.
    """
    scene = SyntheticScene(width, height)
    ranges = ThermalRange()
    pairs = []
    for index in range(count):
        frame = scene.render(index * _FRAME_SECONDS)
        thermal = ranges(frame.thermal, index * _FRAME_SECONDS)
        pair = frame.visible, np.round(thermal * 255).astype(np.uint8)
        pairs.append(pair if noise == 0 else _noisy(pair, noise, np.random.default_rng(index)))
    return pairs


def camera_noise(deviation: float) -> dict[str, float]:
    """Return the parameters of the street's cameras for the noise of :func:`moving_pairs`."""
    if deviation == 0:
        return {}
    thermal = SyntheticScene(320, 256).render(0.0, noise=False).thermal
    # The counts that become 0 to 255.
    low, high = np.percentile(thermal, (1.0, 99.5))
    return {'visible_noise': deviation, 'thermal_noise': deviation * float(high - low) / 255}


def _noisy(
    pair: tuple[Image, Image], deviation: float, random: np.random.Generator
) -> tuple[Image, Image]:
    visible, thermal = (
        image + deviation * random.standard_normal(image.shape, np.float32) for image in pair
    )
    return of_type(visible, np.uint8), of_type(thermal, np.uint8)


def take_turns(
    contenders: Sequence[Contender],
    pairs: Sequence[tuple[Image, Image]],
    rounds: int,
) -> dict[str, Timing]:
    """
    Have all contenders fuse every pair in turns, as fast as they can.

    :param pairs: a video, played forwards and backwards.
    :param rounds: to count; a few more go before them as a warm-up.
    :return: by name, one time per round.
    :raises UsageError: a plug-in fails, or does not return a fused image.
    """
    random = np.random.default_rng(0)
    video = [*pairs, *pairs[-2:0:-1]]
    timings = {contender.name: Timing() for contender in contenders}
    for index in range(-_WARM_UP_ROUNDS, rounds):
        pair = video[(index + _WARM_UP_ROUNDS) % len(video)]
        for place in random.permutation(len(contenders)):
            contender = contenders[place]
            cpu, start = time.process_time(), time.perf_counter()
            fused = contender.fuse(*pair)
            end, cpu_end = time.perf_counter(), time.process_time()
            if index >= 0:
                timing = timings[contender.name]
                timing.seconds.append(end - start)
                timing.cpu_seconds.append(cpu_end - cpu)
            else:
                check_fused(contender, fused, pair)
    return timings


def timing_facts(
    timings: Mapping[str, Timing], name: str, references: Sequence[str]
) -> dict[str, Any]:
    """
    Return the figures of one contender.

    :param references: names of contenders to compare its time with.
    :return: ``pairs``, ``rate_hz`` (pairs a second at the median time), ``ms`` (p50, p95, p99 of
        a pair), ``cpu_ms`` (median processor time of a pair, all threads together), ``ratio``:
        its time over that of each reference, the median over the rounds.
    """
    seconds = np.array(timings[name].seconds)
    ratios = {other: seconds / timings[other].seconds for other in references}
    return {
        'pairs': len(seconds),
        'rate_hz': round(1 / float(np.median(seconds)), 3),
        'ms': percentiles_ms(timings[name].seconds),
        'cpu_ms': round(float(np.median(timings[name].cpu_seconds)) * 1e3, 3),
        'ratio': {other: round(float(np.median(each)), 4) for other, each in ratios.items()},
    }


@dataclass(frozen=True)
class Variant:
    """
    The fusion of this package with one of the chosen presets, devices and precisions.

    :param name: in the tables.
    :param preset: a shipped one or a file.
    """

    name: str
    preset: str
    device: str
    precision: str


def variants(
    presets: Sequence[str], devices: Sequence[str], precisions: Sequence[str]
) -> list[Variant]:
    """Return all combinations, each once; device and precision are named if they differ."""
    found = {}
    for preset, device, precision in product(presets, devices, precisions):
        words = [Path(preset).stem]
        words += [device] if len(set(devices)) > 1 else []
        words += [precision] if len(set(precisions)) > 1 else []
        name = ' '.join(words)
        found[name] = Variant(name, preset, device, precision)
    return list(found.values())


def make_fuser(variant: Variant, threads: int | None) -> Fuser:
    """
    Set up a variant.

    :raises UsageError: the preset, the device or a value of the parameters is refused.
    """
    # Fusions in one process share its threads, whatever the presets say.
    parameters = {
        **load_parameters(variant.preset),
        'device': variant.device,
        'precision': variant.precision,
        'num_threads': threads or 0,
    }
    try:
        return load_fuser(parameters, fusion_settings(parameters))
    except (TypeError, ValueError) as error:
        raise UsageError(f'{variant.name} cannot be set up: {error}') from error


def _own(variant: Variant, threads: int | None) -> Contender:
    """Return the fusion of this package as in a node without subscribers to weights."""
    fuser = make_fuser(variant, threads)

    def fuse(visible: Image, thermal: Image) -> Image:
        return fuser.fuse(visible, thermal, weight_maps=False).image

    return Contender(variant.name, 'dig2dig', fuse, fuser.describe())


def _baseline(name: str) -> Contender:
    method = baseline_method(name)
    return Contender(name, 'baseline', lambda *images: method(images, ()))


def compare_fusions(
    ours: Sequence[Variant],
    plugins: Sequence[Path],
    sizes: Sequence[tuple[int, int]],
    rounds: int,
    threads: int | None,
    noise: float = 0.0,
) -> tuple[list[dict[str, Any]], list[Table]]:
    """
    Time the fusion of this package, the baselines and plug-ins, size by size.

    :param rounds: pairs that every fusion fuses flat out.
    :param noise: see :func:`moving_pairs`.
    :return: what was measured, for JSON, and as tables.
    :raises UsageError: a variant cannot be set up, a plug-in fails, or two have one name.
    """
    others = [load_plugin(path) for path in plugins]
    contenders = [_own(variant, threads) for variant in ours]
    references = [contender.name for contender in contenders]
    contenders += [_baseline(name) for name in BASELINES]
    contenders += others
    names = [contender.name for contender in contenders]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise UsageError(f'two fusions are named {", ".join(sorted(twice))}: rename a file')
    results, tables = [], []
    for width, height in sizes:
        size = f'{width}x{height}'
        pairs = moving_pairs(width, height, _FRAMES, noise)
        report(f'{size}: {rounds} rounds of {len(contenders)} fusions')
        timings = take_turns(contenders, pairs, rounds)
        rows = [
            {
                'name': each.name,
                'kind': each.kind,
                'size': size,
                **timing_facts(timings, each.name, references),
                'about': dict(each.facts),
            }
            for each in contenders
        ]
        results += rows
        tables.append(_table(size, rows, references))
    return results, tables


def _table(size: str, rows: Sequence[Mapping[str, Any]], references: Sequence[str]) -> Table:
    header = ['fusion', 'pairs/s', 'p50 ms', 'p95 ms', 'p99 ms', 'CPU ms']
    header += [f'time / {name}' for name in references]
    lines = []
    for row in rows:
        line = [row['name'], figure(row['rate_hz'])]
        line += [figure(row['ms'][name]) for name in ('p50', 'p95', 'p99')]
        line.append(figure(row['cpu_ms']))
        line += [figure(row['ratio'][name]) for name in references]
        lines.append(tuple(line))
    return Table(f'The fuser alone at {size}', tuple(header), tuple(lines))


def machine() -> dict[str, Any]:
    """
    Return what determines speed besides the code: processor, threads, versions, variables.

    ``load`` is the number of processes that ran or waited in the last minute, per core; ``cuda``
    names the GPUs, and is empty without torch.
    """
    cores = os.cpu_count() or 1
    facts: dict[str, Any] = {
        'cpu': _cpu_model(),
        'cpu_count': cores,
        'load': round(os.getloadavg()[0] / cores, 2),
        'versions': versions(),
        'variables': {name: os.environ[name] for name in _VARIABLES if name in os.environ},
        'cuda': [],
    }
    torch = sys.modules.get('torch')
    if torch is not None:
        gpus = range(torch.cuda.device_count())
        facts['torch_threads'] = torch.get_num_threads()
        facts['cuda'] = [torch.cuda.get_device_name(index) for index in gpus]
    return facts


def _cpu_model() -> str:
    try:
        lines = Path('/proc/cpuinfo').read_text(encoding='utf-8').splitlines()
    except OSError:  # not Linux
        return platform.processor()
    names = [line.partition(':')[2].strip() for line in lines if line.startswith('model name')]
    return names[0] if names else platform.processor()


def origin(results: Sequence[Mapping[str, Any]], facts: Mapping[str, Any], load: float) -> str:
    """
    Return a line on how and where figures were measured.

    :param results: each with ``about``, whose device and precision are named.
    :param facts: of :func:`machine`.
    :param load: of the machine before.
    """
    about = dict.fromkeys(
        ', '.join(row['about'][key] for key in ('device', 'precision'))
        for row in results
        if row.get('about', {}).get('device')
    )
    software = (f'{name} {v}' for name, v in facts['versions'].items() if name != 'machine')
    variables = (f'{name}={value}' for name, value in facts['variables'].items())
    return '; '.join([*about, facts['cpu'], *software, *variables, f'load before {load:g}'])
