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
How fast fusions are: several of them on the same images in the same minutes.

What one run measures can be compared: the fusions take turns pair by pair, in another random
order every round, so that whatever else the machine does meanwhile hits all of them alike. Ratios
are medians over the rounds, each between two fusions of the same pair, a few milliseconds apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
import importlib.util
import math
import os
from pathlib import Path
import platform
import sys
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dig2dig_ros.evaluation.study import versions
from dig2dig_ros.evaluation.synthetic_scene import SyntheticScene
from dig2dig_ros.images.thermal_range import ThermalRange

Image = NDArray[np.uint8]
Fuse = Callable[[Image, Image], Image]

# Layout of the JSON documents.
FORMAT = 1
# Seconds from one image of the video to the next, as of a camera of 10 Hz.
_FRAME_SECONDS = 0.1
# Rounds that are not counted: memory is allocated, kernels are chosen, caches are filled, and on a
# GPU a graph is recorded after the third.
_WARM_UP_ROUNDS = 6
# At a fixed rate the fusions take turns in blocks of so many seconds.
_BLOCK_SECONDS = 2.0
_PERCENTILES = {'p50': 50, 'p95': 95, 'p99': 99}
# Decides how OpenMP's threads wait, and with that what a pair costs.
_VARIABLES = ('OMP_NUM_THREADS', 'OMP_WAIT_POLICY', 'GOMP_SPINCOUNT', 'MKL_NUM_THREADS')


class PluginError(ValueError):
    """A fusion of the user's cannot be used; the message names the file and says why."""


@dataclass(frozen=True)
class Contender:
    """
    A fusion that takes part.

    :param name: in the tables.
    :param kind: ``dig2dig``, ``baseline`` or ``plugin``.
    :param fuse: visible (H, W, 3) uint8 in blue-green-red order and thermal (H, W) uint8 to the
        fused image, (H, W) or (H, W, 3) uint8; returns when the bytes are on the host.
    :param facts: what a report should say of it, such as device and precision.
    """

    name: str
    kind: str
    fuse: Fuse
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Timing:
    """
    What a contender took.

    :param seconds: of every pair, in the order of the rounds.
    :param cpu_seconds: of the process's threads together while it ran; less than the wall clock
        shows disturbed by what other processes do.
    """

    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)


@dataclass
class Latency:
    """
    What a contender did with pairs that came at a fixed rate.

    :param seconds: from the moment when a pair was due to its fused image.
    :param superseded: pairs that were passed over because a newer one was due.
    """

    seconds: list[float] = field(default_factory=list)
    superseded: int = 0


def moving_pairs(width: int, height: int, count: int) -> list[tuple[Image, Image]]:
    """
    Return a short video of the synthetic street.

    :param count: frames, a tenth of a second apart. Played forwards and backwards in turn it has
        no jump.
    :return: visible (H, W, 3) in blue-green-red order and thermal (H, W), for each frame.
    :raises ValueError: the size is below 16 pixels.
    """
    scene = SyntheticScene(width, height)
    ranges = ThermalRange()
    pairs = []
    for index in range(count):
        frame = scene.render(index * _FRAME_SECONDS)
        thermal = ranges(frame.thermal, index * _FRAME_SECONDS)
        pairs.append((frame.visible, np.round(thermal * 255).astype(np.uint8)))
    return pairs


def load_plugin(path: Path, name: str = '') -> Contender:
    """
    Load somebody else's fusion from a Python file, which runs with all rights of this process.

    The file has two functions. ``load()`` returns a model, whatever that is: device, precision
    and weights are its own affair. ``fuse(model, visible, thermal)`` takes visible (H, W, 3) uint8
    in blue-green-red order and thermal (H, W) uint8, not to be written to, and returns the fused
    image as a NumPy array, (H, W) or (H, W, 3) uint8, when it is on the host.

    :param name: in the tables; the name of the file where it is empty.
    :raises PluginError: the file cannot be imported, or a function is missing or fails.
    """
    path = path.expanduser()
    if not path.is_file():
        raise PluginError(f'plug-in {path}: there is no such file')
    specification = importlib.util.spec_from_file_location(f'dig2dig_plugin_{path.stem}', path)
    if specification is None or specification.loader is None:
        raise PluginError(f'plug-in {path}: not a Python file (NAME.py)')
    module = importlib.util.module_from_spec(specification)
    try:
        specification.loader.exec_module(module)
    except Exception as error:  # whatever is in the file
        raise PluginError(
            f'plug-in {path} cannot be imported: {type(error).__name__}: {error}'
        ) from error
    for function in ('load', 'fuse'):
        if not callable(getattr(module, function, None)):
            raise PluginError(
                f'plug-in {path} has no function {function}: it needs load() and '
                'fuse(model, visible, thermal)'
            )
    try:
        model = module.load()
    except Exception as error:
        raise PluginError(
            f'plug-in {path}: load() failed: {type(error).__name__}: {error}'
        ) from error

    def fuse(visible: Image, thermal: Image) -> Image:
        try:
            fused: Image = module.fuse(model, visible, thermal)
        except Exception as error:
            raise PluginError(
                f'plug-in {path}: fuse(model, visible, thermal) failed: '
                f'{type(error).__name__}: {error}'
            ) from error
        return fused

    return Contender(name or path.stem, 'plugin', fuse, {'file': path.name})


def check_fused(contender: Contender, fused: Any, pair: tuple[Image, Image]) -> None:
    """
    Refuse what is no fused image of a pair.

    :raises PluginError: it is no uint8 array of shape (H, W) or (H, W, 3).
    """
    height, width = pair[1].shape
    shapes = ((height, width), (height, width, 3))
    if not isinstance(fused, np.ndarray):
        found = f'a {type(fused).__name__}'
    elif fused.dtype != np.uint8 or fused.shape not in shapes:
        found = f'{fused.dtype} of shape {fused.shape}'
    else:
        return
    raise PluginError(
        f'{contender.name} returned {found} for images of {width}x{height}: it must return a '
        f'NumPy array, uint8 of shape {shapes[0]} or {shapes[1]}'
    )


def take_turns(
    contenders: Sequence[Contender],
    pairs: Sequence[tuple[Image, Image]],
    rounds: int,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Timing]:
    """
    Let all contenders fuse every pair, in turns, as fast as they can.

    :param pairs: a video, played forwards and backwards.
    :param rounds: to count; a few more go before them as a warm-up.
    :param progress: called with the number of every counted round.
    :return: by name, one time a round.
    :raises PluginError: a plug-in fails, or returns something else than a fused image.
    """
    random = np.random.default_rng(0)
    timings = {contender.name: Timing() for contender in contenders}
    for index in range(-_WARM_UP_ROUNDS, rounds):
        pair = _frame(pairs, index + _WARM_UP_ROUNDS)
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
        if progress is not None and index >= 0:
            progress(index + 1)
    return timings


def keep_pace(
    contenders: Sequence[Contender],
    pairs: Sequence[tuple[Image, Image]],
    rate: float,
    seconds: float,
) -> dict[str, Latency]:
    """
    Let every contender fuse pairs that come at a fixed rate; in between it waits.

    As in the node, what is not begun when the next pair is due is passed over. The contenders,
    which have been warmed up, take turns in blocks of two seconds.

    :param rate: pairs a second.
    :param seconds: for each contender.
    """
    latencies = {contender.name: Latency() for contender in contenders}
    blocks = max(1, round(seconds / _BLOCK_SECONDS))
    # The first pair of a block meets what the contender before has left, and is not counted.
    count = max(2, round(rate * seconds / blocks) + 1)
    for _ in range(blocks):
        for contender in contenders:
            latency = latencies[contender.name]
            start, index = time.perf_counter(), 0
            while index < count:
                wait = start + index / rate - time.perf_counter()
                if wait > 0:
                    time.sleep(wait)
                newest = min(count - 1, int((time.perf_counter() - start) * rate))
                if newest > index:
                    latency.superseded += newest - index
                    index = newest
                contender.fuse(*_frame(pairs, index))
                if index > 0:
                    latency.seconds.append(time.perf_counter() - start - index / rate)
                index += 1
    return latencies


def _frame(pairs: Sequence[tuple[Image, Image]], index: int) -> tuple[Image, Image]:
    """Return a pair of a video that is played forwards and backwards."""
    last = len(pairs) - 1
    if last == 0:
        return pairs[0]
    place = index % (2 * last)
    return pairs[place if place <= last else 2 * last - place]


def percentiles(seconds: Sequence[float]) -> dict[str, float] | None:
    """Return p50, p95 and p99 in milliseconds; None without values."""
    if not seconds:
        return None
    values = np.percentile(np.asarray(seconds) * 1e3, list(_PERCENTILES.values()))
    return {name: round(float(value), 3) for name, value in zip(_PERCENTILES, values, strict=True)}


def timing_facts(
    timings: Mapping[str, Timing], name: str, references: Sequence[str]
) -> dict[str, Any]:
    """
    Return what to report of one contender.

    :param references: the names that its time is put in relation to.
    :return: ``pairs``, ``rate_hz`` (pairs a second at the median time), ``ms`` (p50, p95, p99 of
        a pair), ``cpu_ms`` (median processor time of a pair, all threads together), ``ratio``:
        its time over that of each reference, the median over the rounds, and ``cpu_ratio``: the
        same of the processor time.
    """
    timing = timings[name]
    ms = percentiles(timing.seconds)
    return {
        'pairs': len(timing.seconds),
        'rate_hz': round(1e3 / ms['p50'], 3) if ms else None,
        'ms': ms,
        'cpu_ms': round(float(np.median(timing.cpu_seconds)) * 1e3, 3) if ms else None,
        'ratio': {
            other: _median_ratio(timing.seconds, timings[other].seconds) for other in references
        },
        'cpu_ratio': {
            other: _median_ratio(timing.cpu_seconds, timings[other].cpu_seconds)
            for other in references
        },
    }


def _median_ratio(seconds: Sequence[float], reference: Sequence[float]) -> float | None:
    """Return the median over the rounds; None without any, or where the clock did not move."""
    ratios = [value / other for value, other in zip(seconds, reference, strict=True) if other > 0]
    return round(float(np.median(ratios)), 4) if ratios else None


def machine() -> dict[str, Any]:
    """
    Return what decides on the speed, besides the code: processor, threads, versions, variables.

    ``cuda`` names the GPUs and their drivers, and is empty without torch.
    """
    facts: dict[str, Any] = {
        'cpu': _cpu_model(),
        'cpu_count': os.cpu_count(),
        'system': f'{platform.system()} {platform.release()}',
        'versions': versions(),
        'variables': {name: os.environ[name] for name in _VARIABLES if name in os.environ},
        'load_average': [round(value, 2) for value in os.getloadavg()],
        'cuda': [],
    }
    cv2 = sys.modules.get('cv2')
    if cv2 is not None:
        facts['opencv_threads'] = cv2.getNumThreads()
    torch = sys.modules.get('torch')
    if torch is not None:
        facts['torch_threads'] = torch.get_num_threads()
        facts['torch_cuda'] = torch.version.cuda
        if torch.cuda.is_available():
            facts['cuda'] = [
                torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())
            ]
    return facts


def _cpu_model() -> str:
    try:
        lines = Path('/proc/cpuinfo').read_text(encoding='utf-8').splitlines()
    except OSError:  # not Linux
        return platform.processor()
    names = [line.partition(':')[2].strip() for line in lines if line.startswith('model name')]
    return names[0] if names else platform.processor()


def busy_share(seconds: float) -> float:
    """
    Tell how much of the processor others use: watch it for so long, doing nothing.

    :return: 0 to 1, of all cores together; NaN where the system does not tell.
    """
    before = _processor_times()
    time.sleep(seconds)
    after = _processor_times()
    if before is None or after is None or after[1] <= before[1]:
        return math.nan
    return round(1 - (after[0] - before[0]) / (after[1] - before[1]), 3)


def _processor_times() -> tuple[int, int] | None:
    """Return idle and all ticks since the start of the system."""
    try:
        with Path('/proc/stat').open(encoding='utf-8') as file:
            ticks = [int(value) for value in file.readline().split()[1:9]]
    except (OSError, ValueError):
        return None
    return sum(ticks[3:5]), sum(ticks)
