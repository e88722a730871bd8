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

import os
import subprocess
import sys

import pytest
import torch

from dig2dig_ros.fusion.device import (
    DeviceError,
    keep_freed_memory,
    resolve_device,
    resolve_precision,
)


def test_auto_takes_what_is_there():
    assert resolve_device('auto').type == ('cuda' if torch.cuda.is_available() else 'cpu')


@pytest.mark.slow
@pytest.mark.parametrize(
    'before',
    [
        'pass',
        'torch.backends.fp32_precision = "tf32"',
        'torch.set_float32_matmul_precision("high")',
    ],
)
def test_float32_is_no_tf32_whatever_was_set_before(before):
    if not hasattr(torch.backends.cudnn, 'conv'):
        pytest.skip('this version of torch has one switch only')
    code = f"""
import torch
from dig2dig_ros.fusion.device import use_exact_float32
{before}
use_exact_float32()
print(torch.backends.cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision)
"""
    done = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, timeout=120
    )
    assert done.stdout == 'ieee ieee\n', done.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a CUDA device')
@pytest.mark.parametrize('name', ['cuda', 'cuda:1'])
def test_missing_cuda_is_an_error_that_says_what_to_do(name):
    with pytest.raises(DeviceError, match=f"'{name}'.*finds no CUDA device.*'cpu' or 'auto'"):
        resolve_device(name)


@pytest.mark.cuda
def test_cuda_devices_are_found_by_index():
    assert resolve_device('cuda') == torch.device('cuda', 0)
    with pytest.raises(DeviceError, match='only'):
        resolve_device('cuda:99')


@pytest.mark.parametrize('name', ['gpu', 'cuda:', 'cuda:x', ''])
def test_unknown_devices_are_refused(name):
    with pytest.raises(DeviceError, match='unknown'):
        resolve_device(name)


def test_precisions():
    cpu = torch.device('cpu')
    assert resolve_precision('bf16', cpu) == torch.bfloat16
    assert resolve_precision('auto', cpu) in (torch.bfloat16, torch.float32)
    with pytest.raises(DeviceError, match='fp8'):
        resolve_precision('fp8', cpu)


_COUNT_FAULTS = """
import resource
import torch
from dig2dig_ros.fusion.device import give_back_freed_memory, keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    # Eight blocks of 8 MB each time, as the features of a network are.
    for _ in range(5):
        blocks = [torch.ones(2**21) for _ in range(8)]
        del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

if keep_freed_memory():
    faults()
    kept = faults()
    give_back_freed_memory()
    print(kept, faults(), 5 * 8 * 2**23 // resource.getpagesize())
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != 'linux', reason='a matter of glibc')
def test_freed_memory_is_not_fetched_from_the_kernel_again():
    # In a process of its own, whose heap no other test has been in.
    variables = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(('MALLOC_', 'GLIBC_TUNABLES'))
    }
    run = subprocess.run(
        [sys.executable, '-c', _COUNT_FAULTS],
        env=variables, check=True, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    if not run.stdout:
        pytest.skip('malloc is not that of glibc')
    kept, given_back, pages = map(int, run.stdout.split())
    assert kept < 0.05 * pages
    assert given_back > 0.1 * pages


@pytest.mark.parametrize(
    'variables',
    [
        {'GLIBC_TUNABLES': 'glibc.malloc.trim_threshold=131072'},
        {
            'MALLOC_TRIM_THRESHOLD_': '131072',
            'MALLOC_MMAP_THRESHOLD_': '131072',
            'MALLOC_ARENA_MAX': '2',
        },
    ],
)
def test_what_the_user_has_set_for_malloc_stays(monkeypatch, variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    keep_freed_memory.cache_clear()  # as in a new process
    assert not keep_freed_memory()
    keep_freed_memory.cache_clear()
