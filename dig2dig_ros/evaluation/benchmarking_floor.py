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

from collections.abc import Callable
from dataclasses import dataclass
import time
from typing import Any

import torch
from torch import Tensor
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

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
