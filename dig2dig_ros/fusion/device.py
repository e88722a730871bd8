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

"""Where to compute, and how precisely: from names to torch devices and dtypes."""

from __future__ import annotations

import ctypes
from functools import cache
import os
import re
import sys

import torch

from dig2dig_ros.errors import Refusal

PRECISIONS = {'fp32': torch.float32, 'bf16': torch.bfloat16, 'fp16': torch.float16}
PRECISION_CHOICES = ('auto', *PRECISIONS)

# Parameters of glibc's malloc: from malloc.h, with the variables by which a user sets them.
_TRIM_THRESHOLD = (-1, 'MALLOC_TRIM_THRESHOLD_')
_MMAP_THRESHOLD = (-3, 'MALLOC_MMAP_THRESHOLD_')
_ARENA_MAX = (-8, 'MALLOC_ARENA_MAX')
# More than any buffer of a pair at 1920x1080; older versions of glibc take half of it at most.
_LARGEST_KEPT = 64 * 2**20
# Most freed memory that stays with the process: more than a pair at 1280x720 needs.
_MOST_KEPT = 256 * 2**20


# Messages of CUDA errors after which nothing works until the process ends.
_LOST = re.compile(
    r'CUDA.*(device-side assert|illegal (memory access|instruction)|misaligned address|'
    r'unspecified launch failure|launch timed out|hardware stack error|invalid program counter|'
    r'uncorrectable|not supported on (global|local)|unknown error)',
    re.IGNORECASE | re.DOTALL,
)


class DeviceError(Refusal, ValueError):
    """The device or precision is not available here; the message says why."""


def resolve_device(name: str) -> torch.device:
    """
    Turn ``auto``, ``cpu``, ``cuda`` or ``cuda:N`` into a torch device.

    ``auto`` takes the first CUDA device, else the CPU; a named device is never replaced.

    :raises DeviceError: the name is unknown, or the named device is missing.
    """
    if name == 'auto':
        return torch.device('cuda', 0) if torch.cuda.is_available() else torch.device('cpu')
    if name == 'cpu':
        return torch.device('cpu')
    match = re.fullmatch(r'cuda(?::(\d+))?', name)
    if match is None:
        raise DeviceError(f"unknown device '{name}': use auto, cpu, cuda or cuda:N")
    if not torch.cuda.is_available():
        build = torch.version.cuda or 'no CUDA'
        raise DeviceError(
            f"device '{name}' was asked for, but torch {torch.__version__} (built for {build}) "
            'finds no CUDA device: install a CUDA build of torch and the driver, or set device '
            "to 'cpu' or 'auto'"
        )
    index = int(match.group(1) or 0)
    if index >= torch.cuda.device_count():
        raise DeviceError(
            f"device '{name}' was asked for, but there are only "
            f'{torch.cuda.device_count()} CUDA devices'
        )
    return torch.device('cuda', index)


def has_fast_bf16(device: torch.device) -> bool:
    """Return whether bfloat16 convolutions are faster than float32 ones on ``device``."""
    if device.type == 'cuda':
        return torch.cuda.get_device_capability(device)[0] >= 8
    # Without these instructions oneDNN emulates bfloat16, several times slower than float32.
    if not hasattr(torch.cpu, 'get_capabilities'):  # older versions of torch
        return False
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get('avx512_bf16') or capabilities.get('amx_bf16'))


def resolve_precision(name: str, device: torch.device) -> torch.dtype:
    """
    Turn ``auto``, ``fp32``, ``bf16`` or ``fp16`` into the dtype the prior computes in.

    ``auto`` is bf16 if the hardware has it, else fp16 on a CUDA device, else fp32.

    :raises DeviceError: the name is unknown.
    """
    if name == 'auto':
        if has_fast_bf16(device):
            return torch.bfloat16
        return torch.float16 if device.type == 'cuda' else torch.float32
    if name not in PRECISIONS:
        raise DeviceError(f"unknown precision '{name}': use one of {PRECISION_CHOICES}")
    return PRECISIONS[name]


@cache
def keep_freed_memory() -> bool:
    """
    Keep the buffers of a pair in the process for the next pair, as far as malloc can.

    By default, glibc returns large buffers to the kernel, which clears them before they are used
    again; that takes a tenth of the time of a fusion on a CPU. Settings from environment variables
    are not changed. Applies to the whole process, for good.

    :return: whether something was changed; false if malloc is not glibc's.
    """
    libc = _glibc()
    if libc is None or 'glibc.malloc' in os.environ.get('GLIBC_TUNABLES', ''):
        return False
    changed = False
    for (parameter, variable), values in (
        (_MMAP_THRESHOLD, (_LARGEST_KEPT, _LARGEST_KEPT // 2)),
        (_TRIM_THRESHOLD, (_MOST_KEPT,)),
        # Buffers of threads other than the first would still be returned.
        (_ARENA_MAX, (1,)),
    ):
        if variable not in os.environ:
            changed |= any(libc.mallopt(parameter, value) for value in values)
    return changed


def give_back_freed_memory() -> None:
    """Return what :func:`keep_freed_memory` has kept to the kernel."""
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    if sys.platform != 'linux':
        return None
    libc = ctypes.CDLL(None)
    names = ('gnu_get_libc_version', 'mallopt', 'malloc_trim')
    return libc if all(hasattr(libc, name) for name in names) else None


def use_exact_float32() -> None:
    """
    Have CUDA compute float32 in full precision, for the whole process.

    By default, cuDNN computes float32 convolutions in TF32, with 10 bits in place of 23.
    """
    # All versions of torch know these; newer settings take precedence.
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    if hasattr(torch.backends.cudnn, 'conv'):
        torch.backends.cudnn.conv.fp32_precision = 'ieee'
        torch.backends.cuda.matmul.fp32_precision = 'ieee'


def is_lost(device: torch.device, reason: str) -> bool:
    """
    Return whether an error, judging by its message, made the device unusable in this process.

    After an error in a kernel, such as a failed assertion, every CUDA call fails with the same
    error; in a new process, the device works again.
    """
    if _LOST.search(reason):
        return True
    if device.type != 'cuda':
        return False
    try:
        torch.cuda.synchronize(device)
    except Exception:  # any error: it does not answer
        return True
    return False


def describe_device(device: torch.device) -> str:
    """Return the device's name for people."""
    if device.type == 'cuda':
        return f'{device} ({torch.cuda.get_device_name(device)})'
    threads = torch.get_num_threads()
    return f'{device} ({threads} thread{"" if threads == 1 else "s"})'
