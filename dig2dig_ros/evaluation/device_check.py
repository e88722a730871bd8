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
Whether the fusion does on a CUDA device what it should: to be run at first contact with one.

Each check reports what it found. On a CPU, those that make sense there are run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import Any, TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dig2dig_ros.evaluation.fusion_timing import (
    compare_fusions,
    make_fuser,
    moving_pairs,
    Variant,
    variants,
)
from dig2dig_ros.evaluation.options import load_parameters, report, UsageError
from dig2dig_ros.evaluation.tables import Table
from dig2dig_ros.fusion.memory_fallback import first_line, is_out_of_memory, MemoryFallback
from dig2dig_ros.streams.codec import encode
from dig2dig_ros.streams.parameters import complete_values, PRESETS
from dig2dig_ros.streams.pipeline import Pipeline
from dig2dig_ros.streams.trial import python_command

# Importing torch takes seconds, which a mistake in the command line need not cost.
if TYPE_CHECKING:
    from dig2dig_ros.fusion.fuser import Fuser

# In grey levels: what two ways to the same sum, rounded, may be apart, and are on average.
MOST_APART, MEAN_APART = 2, 0.05
# Pairs that are fused before anything is asked: a graph is recorded after the third.
_BEFORE = 5
# Left of the device's memory while it is to run out, and an image that does not fit into it.
_LEFT_BYTES, _LARGE = 64 * 2**20, (1920, 1080)
# For the process whose device fails: to import, to load, to fail and to end.
_CHILD_SECONDS = 180.0
# The exit code of that process where it has noticed, and where it has not.
LOST, NOT_LOST = 1, 3


@dataclass(frozen=True)
class Check:
    """
    One thing that was looked at.

    :param passed: None where this device cannot show it.
    :param found: figures, or what is wrong.
    """

    name: str
    passed: bool | None
    found: str


class _NotHere(Exception):
    """The device cannot be asked this; the text says why."""


def require_device(device: str) -> None:
    """
    Check that there is the device.

    :raises UsageError: there is not, with the sentence that says what to do.
    """
    from dig2dig_ros.fusion.device import DeviceError, resolve_device

    try:
        resolve_device(device)
    except DeviceError as error:
        raise UsageError(str(error)) from error


def _fuser(preset: str, device: str, precision: str = 'auto') -> Fuser:
    return make_fuser(Variant(preset, preset, device, precision), None)


def _is_cuda(device: str) -> bool:
    return device.startswith('cuda')


def agrees_with_cpu(device: str, preset: str, size: tuple[int, int]) -> tuple[bool, str]:
    """Compare float32 on the device with float32 on the CPU, on the synthetic street."""
    ours, theirs = (_fuser(preset, name, 'fp32') for name in (device, 'cpu'))
    apart = []
    for pair in moving_pairs(*size, 2):
        images = [fuser.fuse(*pair).image.astype(int) for fuser in (ours, theirs)]
        apart.append(np.abs(images[0] - images[1]))
    most, mean = max(each.max() for each in apart), float(np.mean(apart))
    found = f'at most {most} grey levels apart, {mean:.4f} on average'
    return bool(most <= MOST_APART and mean <= MEAN_APART), found


def is_recorded(device: str, preset: str, size: tuple[int, int]) -> tuple[bool, str]:
    """Look whether the pairs of a preset come to be replayed."""
    fuser = _with_graphs(preset, device)
    counts, slowed = [fuser.recorded], ''
    for pair in moving_pairs(*size, _BEFORE):
        slowed = fuser.fuse(*pair).slowed
        counts.append(fuser.recorded)
    found = f'recorded: {", ".join(map(str, counts))} {slowed}'.rstrip()
    return counts[-1] > counts[0] and not slowed, found


def _with_graphs(preset: str, device: str, graphs: bool = True) -> Fuser:
    from dig2dig_ros.fusion.fuser import Fuser
    from dig2dig_ros.streams.parameters import fusion_settings

    parameters = load_parameters(preset)
    prior = parameters.get('prior', 'compact')
    return Fuser(fusion_settings(parameters), prior=prior, device=device, graphs=graphs)


def random_pair(seed: int, size: tuple[int, int]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Return images of noise, of the width and height ``size``."""
    random = np.random.default_rng(seed)
    shape = size[::-1]
    return (
        random.integers(0, 256, (*shape, 3), dtype=np.uint8),
        random.random(shape, dtype=np.float32),
    )


def replays_equal(device: str, preset: str, size: tuple[int, int], pairs: int) -> tuple[bool, str]:
    """Compare what is replayed with what runs kernel by kernel, byte for byte."""
    replayed, eager = (_with_graphs(preset, device, graphs) for graphs in (True, False))
    different, most, slowed = 0, 0, ''
    for seed in range(_BEFORE + pairs):
        pair = random_pair(seed, size)
        ours, plain = (fuser.fuse(*pair) for fuser in (replayed, eager))
        if seed < _BEFORE:
            continue
        slowed = ours.slowed
        is_equal = np.array_equal(ours.image, plain.image)
        if not is_equal or not np.array_equal(ours.weights, plain.weights):
            different += 1
            most = max(most, int(np.abs(ours.image.astype(int) - plain.image).max()))
    found = f'{pairs - different} of {pairs} random pairs equal'
    if different:
        found += f', the others up to {most} grey levels apart'
    if not replayed.recorded:
        found += f'; nothing was replayed {slowed}'.rstrip()
    return different == 0 and replayed.recorded > 0, found


def survives_shortage(device: str, preset: str, size: tuple[int, int]) -> tuple[bool, str]:
    """Let the device's memory run out, and see that the pairs after that are as before."""
    if not _is_cuda(device):
        raise _NotHere('only the memory of a CUDA device can be limited')
    import torch

    fuser = _fuser(preset, device)
    pair = moving_pairs(*size, 1)[0]
    expected = [fuser.fuse(*pair).image for _ in range(_BEFORE)][-1]
    total = torch.cuda.mem_get_info(fuser.device)[1]
    limit = (torch.cuda.memory_reserved(fuser.device) + _LEFT_BYTES) / total
    said: list[str] = []
    outcome = 'fused with cheaper settings'
    torch.cuda.set_per_process_memory_fraction(limit, fuser.device)
    try:
        MemoryFallback().fuse(fuser, random_pair(0, _LARGE), fuser.settings, said.append)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        outcome = 'not fused, for even the cheapest settings do not fit'
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, fuser.device)
    fuser.free_memory()
    again = [fuser.fuse(*pair).image for _ in range(_BEFORE)]
    recovered = np.array_equal(again[-1], expected)
    found = f'a large pair: {outcome}; the pairs after it {"as" if recovered else "NOT as"} before'
    if not said:
        found += '; but memory did not run out'
    return recovered and bool(said), found


def fail_on_device(device: str) -> int:
    """
    Let a kernel fail in the middle of a pair, as a process of its own.

    :return: :data:`LOST` where the pipeline says that the device is lost, else :data:`NOT_LOST`.
    """
    import torch

    values = complete_values({'prior': 'nano', 'device': device})
    said: list[str] = []
    pipeline = Pipeline(values, {'visible': 'visible', 'thermal': 'thermal'}, log=said.append)
    fuser = pipeline.fuser = _fuser('realtime', device)

    def fail(noisy: Any, timesteps: Any) -> Any:
        beyond = torch.full((1,), noisy.numel() + 9, device=noisy.device)
        return noisy + noisy.flatten()[beyond]

    fuser.prior.denoise = fail  # type: ignore[method-assign]
    works = []
    visible, thermal = random_pair(0, (64, 48))
    images: tuple[tuple[str, NDArray[Any]], ...] = (('bgr8', visible), ('32FC1', thermal))
    for source, (encoding, image) in zip(pipeline.sources, images, strict=True):
        stamp = SimpleNamespace(sec=1, nanosec=0)
        header = SimpleNamespace(stamp=stamp, frame_id=source)
        works += pipeline.add(source, encode(image, encoding, header, SimpleNamespace), 10**9)
    for work in [*works, *pipeline.flush()]:
        pipeline.process(work)
    print(pipeline.lost or '; '.join(said), file=sys.stderr, flush=True)
    return LOST if pipeline.lost else NOT_LOST


def ends_with_device(device: str, preset: str, size: tuple[int, int]) -> tuple[bool, str]:
    """See that a process whose device fails ends with the reason, and that the next one works."""
    if not _is_cuda(device):
        raise _NotHere('only a CUDA device is lost by a failed assertion')
    code = (
        f'import sys; from {__name__} import fail_on_device; sys.exit(fail_on_device({device!r}))'
    )
    start = time.monotonic()
    done = subprocess.run(
        python_command(code), capture_output=True, text=True, timeout=_CHILD_SECONDS
    )
    seconds = time.monotonic() - start
    last = (done.stderr.strip().splitlines() or ['(it said nothing)'])[-1]
    _fuser(preset, device).fuse(*moving_pairs(*size, 1)[0])
    lost = 'the device failed' in done.stderr
    found = f'code {done.returncode} after {seconds:.0f} s: {last}'
    return done.returncode == LOST and lost, found


def check_device(
    device: str,
    presets: Sequence[str] = PRESETS,
    size: tuple[int, int] = (320, 256),
    pairs: int = 500,
) -> list[Check]:
    """
    Do all checks, each whatever became of those before it.

    :param presets: shipped ones, or files; the first one is taken where one is enough.
    :param pairs: that are replayed and compared.
    """
    main = presets[0]
    todo: list[tuple[str, Callable[[], tuple[bool, str]]]] = []
    for preset in presets:
        comparison = partial(agrees_with_cpu, device, preset, size)
        todo.append((f'{preset}: fp32 as on the CPU', comparison))
    for preset in presets:
        todo.append((f'{preset}: recorded', partial(is_recorded, device, preset, size)))
    todo += [
        (f'{main}: replayed as eager', partial(replays_equal, device, main, size, pairs)),
        (f'{main}: out of memory, and back', partial(survives_shortage, device, main, size)),
        ('a device assert ends the process', partial(ends_with_device, device, main, size)),
    ]
    checks = []
    for name, look in todo:
        report(f'{name} ...')
        passed: bool | None
        try:
            passed, found = look()
        except _NotHere as reason:
            passed, found = None, str(reason)
        except Exception as error:  # this is what the check is for
            passed, found = False, first_line(error)
        checks.append(Check(name, passed, found))
    return checks


def check_table(checks: Sequence[Check], device: str) -> Table:
    """Return the checks as a table."""
    words = {True: 'passed', False: 'FAILED', None: 'not here'}
    rows = tuple((check.name, words[check.passed], check.found) for check in checks)
    return Table(f'Checks of {device}', ('check', 'result', 'found'), rows)


def measure_device(
    device: str,
    size: tuple[int, int],
    pairs: int,
    sizes: Sequence[tuple[int, int]],
    presets: Sequence[str],
    rounds: int,
) -> tuple[list[dict[str, Any]], list[Table]]:
    """
    Check a device and time the fusion on it, in all precisions.

    :param size: of the images of the checks, ``pairs`` of which are replayed.
    :param sizes: of those that are timed, with ``presets``, ``rounds`` pairs of each.
    :return: what was found, for JSON, and as tables.
    :raises UsageError: there is no such device.
    """
    require_device(device)
    checks = check_device(device, size=size, pairs=pairs)
    precisions = ['fp32', 'bf16', 'fp16'] if _is_cuda(device) else ['fp32']
    ours = variants(presets, [device], precisions)
    timed, tables = compare_fusions(ours, [], sizes, rounds, None)
    results = [{'checks': [asdict(check) for check in checks]}, *timed]
    return results, [check_table(checks, device), *tables]


def failures(results: Sequence[Any]) -> list[str]:
    """Return the names of the checks that failed, of what was measured."""
    checks = [check for row in results for check in row.get('checks', ())]
    return [check['name'] for check in checks if check['passed'] is False]
