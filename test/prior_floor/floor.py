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
The time below which a prior cannot get on a device: its operations and its bytes.

Operations are those of convolutions and matrix products, two for a multiplication with its
addition. Bytes follow a model: each convolution and matrix product reads its input and its weights
and writes its output once, in the precision of the prior; whatever lies between them is fused into
them and costs nothing. Caches that keep an activation from one layer to the next may do better
than that, and no device reaches both of its peaks: the floor is a scale, not a promise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from dig2dig_ros.evaluation.fusion_timing import make_fuser, moving_pairs, Variant
from dig2dig_ros.evaluation.options import report
from dig2dig_ros.evaluation.tables import figure, Table
from dig2dig_ros.fusion.fuser import Fuser
from dig2dig_ros.priors.base import Prior

# In inference mode, layers arrive under the names that they are called by.
_LAYERS = frozenset(
    getattr(torch.ops.aten, name)
    for name in (
        'conv1d',
        'conv2d',
        'conv3d',
        'conv_transpose1d',
        'conv_transpose2d',
        'conv_transpose3d',
        'convolution',
        'linear',
        'matmul',
        'addmm',
        'mm',
        'bmm',
        'baddbmm',
        'scaled_dot_product_attention',
    )
)
# Bytes of the buffers that are copied: far beyond the caches.
_COPY_BYTES = {'cpu': 2**28, 'cuda': 2**30}
# Of a convolution (images, channels, side) and of a square matrix product: enough to fill the
# device, a small part of a second each.
_CONVOLUTION = {'cpu': (4, 128, 64), 'cuda': (32, 512, 64)}
_MATRIX = {'cpu': 1536, 'cuda': 8192}


@dataclass(frozen=True)
class LayerCost:
    """
    What convolutions and matrix products cost.

    :param flop: operations.
    :param bytes: read and written.
    """

    flop: int
    bytes: int


@dataclass(frozen=True)
class Peak:
    """
    What a device was measured to do at best, at one precision.

    :param convolution: operations a second of a 3x3 convolution in channels_last.
    :param matrix: the same of a matrix product.
    :param bandwidth: bytes a second that a copy reads and writes.
    """

    convolution: float
    matrix: float
    bandwidth: float

    @property
    def flop_rate(self) -> float:
        """The better of the two."""
        return max(self.convolution, self.matrix)

    def floor(self, cost: LayerCost) -> tuple[float, float]:
        """Return the seconds for the operations and for the bytes; the larger is the floor."""
        return cost.flop / self.flop_rate, cost.bytes / self.bandwidth


class _Traffic(TorchDispatchMode):  # type: ignore[misc,no-untyped-call]
    """Adds up the bytes of the tensors that go in and out of the layers."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if func.overloadpacket in _LAYERS:
            tensors = [value for value in (*args, output) if isinstance(value, Tensor)]
            self.bytes += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        return output


def layer_cost(call: Callable[[], Any]) -> LayerCost:
    """
    Count what one call costs; see the module for what counts.

    :param call: computes with torch; what runs inside a captured CUDA graph is not seen.
    """
    traffic = _Traffic()
    with torch.inference_mode(), FlopCounterMode(display=False) as counter, traffic:
        call()
    return LayerCost(int(counter.get_total_flops()), traffic.bytes)


def prior_cost(prior: Prior, width: int, height: int, images: int = 1) -> LayerCost:
    """Count what one call of the prior costs with so many images of one timestep."""
    call = prior_call(prior, width, height, images)
    return layer_cost(call)


def prior_call(prior: Prior, width: int, height: int, images: int) -> Callable[[], Tensor]:
    """Return a call of the prior with so many grey images of one timestep, as the sampler's."""
    device = next((parameter.device for parameter in prior.parameters()), torch.device('cpu'))
    noisy = torch.zeros((images, 1, height, width), device=device)
    timesteps = torch.full((1,), 1, dtype=torch.int64, device=device).expand(images)
    return lambda: prior.denoise(noisy, timesteps)


def seconds_of(call: Callable[[], Any], device: torch.device, budget: float) -> list[float]:
    """
    Time a call again and again, after a warm-up.

    :param device: whose work is waited for.
    :param budget: seconds to spend, at least three calls.
    """
    times: list[float] = []
    with torch.inference_mode():
        for _ in range(2):
            call()
        _finish(device)
        end = time.perf_counter() + budget
        while len(times) < 3 or time.perf_counter() < end:
            start = time.perf_counter()
            call()
            _finish(device)
            times.append(time.perf_counter() - start)
    return times


def measure_peak(device: torch.device, dtype: torch.dtype, budget: float = 3.0) -> Peak:
    """
    Measure what the device does at best: the fastest of many repetitions.

    :param dtype: that the prior computes in.
    :param budget: seconds to spend.
    """
    kind = device.type
    images, channels, side = _CONVOLUTION[kind]
    features = torch.randn((images, channels, side, side), device=device).to(dtype)
    features = features.contiguous(memory_format=torch.channels_last)
    kernel = torch.randn((channels, channels, 3, 3), device=device).to(dtype)
    kernel = kernel.contiguous(memory_format=torch.channels_last)

    def convolve() -> Tensor:
        return F.conv2d(features, kernel, padding=1)

    convolution = layer_cost(convolve).flop / min(seconds_of(convolve, device, budget / 3))
    size = _MATRIX[kind]
    left = torch.randn((size, size), device=device).to(dtype)
    right = torch.randn((size, size), device=device).to(dtype)
    product = 2 * size**3 / min(seconds_of(lambda: left @ right, device, budget / 3))
    source = torch.zeros(_COPY_BYTES[kind], dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)
    copied = min(seconds_of(lambda: target.copy_(source), device, budget / 3))
    return Peak(convolution, product, 2 * source.numel() / copied)


def _finish(device: torch.device) -> None:
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


def compare_with_floor(
    variants: Sequence[Variant],
    sizes: Sequence[tuple[int, int]],
    seconds: float,
    threads: int | None,
) -> tuple[list[dict[str, Any]], list[Table]]:
    """
    Compare the prior with what its operations and bytes need at least.

    :param seconds: for every time that is measured.
    :return: what was measured, for JSON, and as tables.
    :raises UsageError: a variant cannot be set up.
    """
    peaks: dict[tuple[str, str], Peak] = {}
    results = []
    for variant in variants:
        fuser = make_fuser(variant, threads)
        about = fuser.describe()
        key = (about['device'], about['precision'])
        if key not in peaks:
            report(f'measuring {" ".join(key)}')
            peaks[key] = measure_peak(fuser.device, fuser.dtype, 3 * seconds)
        for size in sizes:
            report(f'{variant.name} at {size[0]}x{size[1]}')
            found = _over_floor(fuser, size, peaks[key], seconds)
            head = {'name': variant.name, 'size': f'{size[0]}x{size[1]}'}
            results.append({**head, **found, 'about': about})
    return results, [_floor_table(results), _peak_table(results)]


def _over_floor(fuser: Fuser, size: tuple[int, int], peak: Peak, seconds: float) -> dict[str, Any]:
    """Return what the prior needs at least for a pair, and what it and the fuser take."""
    visible, thermal = moving_pairs(*size, 1)[0]
    # Without what noise of the cameras adds, which depends on the images.
    settings = replace(fuser.settings, visible_degradation='none', thermal_degradation='none')
    calls = fuser.fuse(visible, thermal, settings=settings).prior_calls
    # Only a chain sees all pixels whatever the setting.
    shrunk = settings.prior_downscale if settings.sampler == 'increments' else 1
    seen = (-(-size[0] // shrunk), -(-size[1] // shrunk))
    cost = prior_cost(fuser.prior, *seen)
    compute, memory = (needed * calls for needed in peak.floor(cost))
    floor = max(compute, memory)
    # As the sampler calls it: both sources at once.
    call = prior_call(fuser.prior, *seen, images=2)
    prior = float(np.median(seconds_of(call, fuser.device, seconds))) / 2 * calls
    fused = seconds_of(
        lambda: fuser.fuse(visible, thermal, settings=settings, weight_maps=False),
        fuser.device,
        seconds,
    )
    pair = float(np.median(fused))
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
            *(str(row[key]) if key == 'calls' else figure(row[key]) for key in keys),
        )
        for row in results
    )
    note = 'A call is one image through the denoiser; the times are those of all calls of a pair.'
    return Table('The floor', header, rows, (note,))


def _peak_table(results: Sequence[Mapping[str, Any]]) -> Table:
    rows = {
        f'{row["about"]["device"]}, {row["about"]["precision"]}': (
            figure(row['peak_gflop_s']['convolution']),
            figure(row['peak_gflop_s']['matrix']),
            figure(row['bandwidth_gb_s']),
        )
        for row in results
    }
    header = ('device', 'convolution GFLOP/s', 'matrix product GFLOP/s', 'copy GB/s')
    return Table('Measured peaks', header, tuple((name, *row) for name, row in rows.items()))
