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
That the host and the device do not wait for each other, shown without a GPU.

Tensors on the meta device have no values: what asks for one fails, and what comes from the host
can be told from what is there.
"""

from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dig2dig_ros.fusion.device_fusion import (
    filled_sources,
    fuse_pair,
    SourceTask,
    Task,
    weights_of_originals,
)
from dig2dig_ros.fusion.sampler import sample
from dig2dig_ros.fusion.settings import FusionSettings
from dig2dig_ros.priors import load_prior
from fusion.priors import random_sources

HEIGHT, WIDTH = 48, 64
META = torch.device('meta')
# What reads values, or makes a tensor whose size follows from them.
WAITING = {
    '_local_scalar_dense',
    'equal',
    'nonzero',
    'masked_select',
    'unique_consecutive',
    'unique_dim',
    '_unique2',
    'repeat_interleave',
}
# What makes a tensor of numbers of the host.
COPYING = {'tensor', 'as_tensor', 'asarray', 'new_tensor', 'from_numpy'}


class Kernels(TorchDispatchMode):
    """Counts kernels; fails at one that waits for the device or has to do with the host."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        devices = devices_of(args, kwargs, result)
        assert devices in ({'meta'}, {'cpu'}), f'{func} has to do with {devices}'
        if devices == {'meta'}:
            assert func.overloadpacket.__name__ not in WAITING, f'{func} waits for the device'
            self.count += 1
        return result


class Calls(TorchFunctionMode):
    """Fails at the copies from the host that never become kernels on the meta device."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if 'meta' in devices_of(result):
            made = func.__name__ in COPYING and not isinstance(args[-1], torch.Tensor)
            # A list as an index becomes a tensor.
            listed = func.__name__ in ('__getitem__', '__setitem__') and has_list(args[1])
            assert not made, f'{func.__name__} copies to the device'
            assert not listed, 'an index that is a list is copied to the device'
        return result


def devices_of(*values):
    leaves = tree_leaves(values)
    return {leaf.device.type for leaf in leaves if isinstance(leaf, torch.Tensor)}


def has_list(index):
    indices = index if isinstance(index, tuple) else (index,)
    return any(isinstance(each, list | np.ndarray) for each in indices)


@contextmanager
def device_only():
    """Fail where a computation waits for the device or gives it something of the host."""
    with Kernels() as kernels, Calls():
        yield kernels


@pytest.fixture(scope='module')
def prior():
    return load_prior('nano').to(META)


def meta(*shape, dtype=torch.float32):
    return torch.empty(shape, dtype=dtype, device=META)


def noise(index):
    return meta(1, 1, HEIGHT, WIDTH)


PLAIN = {
    'trust': meta(2),
    'image 0': meta(HEIGHT, WIDTH, 3, dtype=torch.uint8),
    'image 1': meta(HEIGHT, WIDTH),
}
WARPED = {**PLAIN, 'grid 1': meta(HEIGHT, WIDTH, 2), 'coverage 1': meta(HEIGHT, WIDTH)}
SMALL = {**PLAIN, 'image 1': meta(HEIGHT // 2, WIDTH // 2)}
WIDE = {**PLAIN, 'image 1': meta(96, 128, dtype=torch.int16)}
NOISY = {**PLAIN, 'noise 0': meta(3), 'noise 1': meta(3)}
VISIBLE, THERMAL = SourceTask(255.0), SourceTask(1.0)
NOISY_VISIBLE, NOISY_THERMAL = (
    SourceTask(255.0, is_noisy=True),
    SourceTask(1.0, is_noisy=True),
)
SETTINGS = FusionSettings(num_inference_steps=3, dig_refresh_interval=2)


def task(settings, thermal=THERMAL, visible=VISIBLE, **options):
    return Task(settings, (visible, thermal), **options)


@pytest.mark.parametrize(
    ('task', 'tensors'),
    [
        (task(FusionSettings()), PLAIN),
        (task(SETTINGS), PLAIN),
        (task(replace(SETTINGS, noise_draws=2, gain_loss='ssim')), PLAIN),
        (task(replace(SETTINGS, weights='rd', gain_window=11), weights=False), PLAIN),
        (task(replace(SETTINGS, prior_downscale=2)), PLAIN),
        (task(replace(SETTINGS, chroma='all'), SourceTask(65535.0)), WIDE),
        (task(SETTINGS, SourceTask(1.0, is_placed=True), full_trust=False), WARPED),
        (task(SETTINGS, SourceTask(1.0, is_placed=True), restored=True), WARPED),
        (task(SETTINGS, SourceTask(1.0, is_placed=True, shrunk=(20, 30))), WARPED),
        (task(SETTINGS, visible=SourceTask(255.0, is_trusted=False), full_trust=False), PLAIN),
        (task(SETTINGS, NOISY_THERMAL, NOISY_VISIBLE), NOISY),
        (task(replace(SETTINGS, prior_downscale=4), visible=NOISY_VISIBLE), NOISY),
        (task(replace(SETTINGS, thermal_strength=0.8), NOISY_THERMAL, restored=True), NOISY),
        (task(replace(SETTINGS, sampler='ddim'), NOISY_THERMAL), NOISY),
        (task(replace(SETTINGS, visible_brightness=1.0)), PLAIN),
        (task(SETTINGS, SourceTask(1.0, is_enlarged=True), restored=True), SMALL),
        (task(replace(SETTINGS, sampler='ddim')), PLAIN),
        (task(replace(SETTINGS, sampler='ancestral', noise_draws=1)), PLAIN),
        (task(replace(SETTINGS, sampler='ddim', weights='uniform')), PLAIN),
        (task(replace(SETTINGS, sampler='ddim', guidance='em')), PLAIN),
    ],
)
def test_nothing_waits_between_upload_and_download(prior, task, tensors):
    assert prior.only_enqueues
    counts = []
    prior.coefficients(meta(1, dtype=torch.int64), meta(1))
    for _ in range(2):
        with device_only() as kernels:
            fused = fuse_pair(prior, task, tensors, noise)
        counts.append(kernels.count)
    assert fused.tensors['image'].shape == (HEIGHT, WIDTH, 3)
    assert fused.tensors['image'].dtype == torch.uint8
    assert ('weights' in fused.tensors) == task.weights
    assert ('restored 1' in fused.tensors) == task.restored
    # A recording is as good as a run: it is the same kernels every time. Only at the very first
    # call may constants come from the host.
    assert counts[0] == counts[1] > 20


def test_all_gains_of_a_pair_are_one_call_of_the_network(prior):
    calls = []
    hook = prior.network.register_forward_pre_hook(lambda _, inputs: calls.append(inputs))
    settings = FusionSettings(num_inference_steps=4, dig_refresh_interval=1)
    sample(prior, meta(2, 1, HEIGHT, WIDTH), noise, settings)
    sample(prior, meta(2, 1, HEIGHT, WIDTH), noise, FusionSettings(num_inference_steps=1))
    hook.remove()
    # Where all images have the same timestep, the network is told but one.
    assert [(len(noisy), len(times)) for noisy, times in calls] == [(8, 8), (2, 1)]


@pytest.mark.parametrize(
    'waits',
    [
        lambda x: x.sum().item(),
        lambda x: x[x > 0],
        lambda x: x + torch.tensor([1.0, 2.0]).to(META).sum(),
        lambda x: torch.tensor([1, 2], device=META),
        lambda x: x[[0, 0]],
        lambda x: x.new_tensor([1.0, 2.0]),
        lambda x: x * 2 if x.sum() > 0 else x,
    ],
)
def test_what_waits_is_found(waits):
    with device_only(), pytest.raises((AssertionError, RuntimeError, NotImplementedError)):
        waits(meta(2, 3))


# Sources that are only partly trusted


def random_maps(sources):
    generator = torch.Generator().manual_seed(8)
    return torch.rand(sources.shape, generator=generator, dtype=sources.dtype)


def test_full_trust_changes_nothing():
    sources = random_sources(3)
    full = torch.ones_like(sources)
    torch.testing.assert_close(filled_sources(sources, full), sources)
    weights = random_maps(sources).softmax(dim=0)
    torch.testing.assert_close(weights_of_originals(weights, full), weights)


def test_a_source_without_trust_becomes_the_other_one():
    sources = random_sources(2)
    trust_maps = torch.stack([torch.ones_like(sources[0]), torch.zeros_like(sources[0])])
    filled = filled_sources(sources, trust_maps)
    torch.testing.assert_close(filled[0], sources[0], rtol=0, atol=0)
    torch.testing.assert_close(filled[1], sources[0])
    weights = weights_of_originals(torch.full_like(sources, 0.5), trust_maps)
    assert (weights[0] == 1).all()
    assert (weights[1] == 0).all()


def test_weights_are_those_of_the_originals_in_the_sum_of_filled_sources():
    sources = random_sources(3)
    trust_maps = random_maps(sources)
    weights = random_maps(sources).softmax(dim=0)
    fused = (weights * filled_sources(sources, trust_maps)).sum(dim=0)
    originals = weights_of_originals(weights, trust_maps)
    torch.testing.assert_close((originals * sources).sum(dim=0), fused)
    torch.testing.assert_close(originals.sum(dim=0), torch.ones_like(originals[0]))


def test_where_nobody_is_trusted_all_are_the_mean():
    sources = random_sources(2)
    nothing = torch.zeros_like(sources)
    mean = sources.mean(dim=0, keepdim=True).expand_as(sources)
    torch.testing.assert_close(filled_sources(sources, nothing), mean)
