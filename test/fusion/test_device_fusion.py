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
    confident_sources,
    confident_weights,
    fuse_pair,
    PairTensors,
    Task,
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


def task_of(settings, **changes):
    task = Task(
        settings=settings,
        full_scales=(255.0, 1.0),
        placed=(False, False),
        shrunk=(None, None),
        relied=(True, True),
        full_trust=True,
        weights=True,
    )
    return replace(task, **changes)


def meta(*shape, dtype=torch.float32):
    return torch.empty(shape, dtype=dtype, device=META)


def noise(index):
    return meta(1, 1, HEIGHT, WIDTH)


VISIBLE = meta(HEIGHT, WIDTH, 3, dtype=torch.uint8)
PLAIN = PairTensors((VISIBLE, meta(HEIGHT, WIDTH)), meta(2))
WARPED = replace(PLAIN, grids=(meta(HEIGHT, WIDTH, 2),), coverages=(meta(HEIGHT, WIDTH),))
WIDE = PairTensors((VISIBLE, meta(96, 128, dtype=torch.int16)), meta(2))
SETTINGS = FusionSettings(num_inference_steps=3, dig_refresh_interval=2)


@pytest.mark.parametrize(
    ('settings', 'changes', 'tensors'),
    [
        (FusionSettings(), {}, PLAIN),
        (SETTINGS, {}, PLAIN),
        (replace(SETTINGS, noise_draws=2, gain_loss='ssim'), {}, PLAIN),
        (replace(SETTINGS, weights='rd', gain_window=11), {'weights': False}, PLAIN),
        (replace(SETTINGS, prior_downscale=2), {}, PLAIN),
        (replace(SETTINGS, chroma='all'), {'full_scales': (255.0, 65535.0)}, WIDE),
        (SETTINGS, {'full_trust': False, 'placed': (False, True)}, WARPED),
        (SETTINGS, {'placed': (False, True), 'shrunk': (None, (20, 30))}, WARPED),
        (SETTINGS, {'full_trust': False, 'relied': (False, True)}, PLAIN),
        (replace(SETTINGS, sampler='ddim'), {}, PLAIN),
        (replace(SETTINGS, sampler='ancestral', noise_draws=1), {}, PLAIN),
        (replace(SETTINGS, sampler='ddim', weights='uniform'), {}, PLAIN),
        (replace(SETTINGS, sampler='ddim', guidance='em'), {}, PLAIN),
    ],
)
def test_nothing_waits_between_upload_and_download(prior, settings, changes, tensors):
    assert prior.only_enqueues
    task = task_of(settings, **changes)
    counts = []
    prior.coefficients(meta(1, dtype=torch.int64), meta(1))
    for _ in range(2):
        with device_only() as kernels:
            fused = fuse_pair(prior, task, tensors, noise)
        counts.append(kernels.count)
    assert fused.image.shape == (HEIGHT, WIDTH, 3)
    assert fused.image.dtype == torch.uint8
    assert (fused.weights is not None) == task.weights
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


# Sources that are not to be relied on everywhere


def random_confidence(sources):
    generator = torch.Generator().manual_seed(8)
    return torch.rand(sources.shape, generator=generator, dtype=sources.dtype)


def test_full_confidence_changes_nothing():
    sources = random_sources(3)
    full = torch.ones_like(sources)
    torch.testing.assert_close(confident_sources(sources, full), sources)
    weights = torch.rand(2, *sources.shape, dtype=sources.dtype).softmax(dim=1)
    torch.testing.assert_close(confident_weights(weights, full), weights)


def test_a_source_without_confidence_becomes_the_other_one():
    sources = random_sources(2)
    confidence = torch.stack([torch.ones_like(sources[0]), torch.zeros_like(sources[0])])
    filled = confident_sources(sources, confidence)
    torch.testing.assert_close(filled[0], sources[0], rtol=0, atol=0)
    torch.testing.assert_close(filled[1], sources[0])
    weights = torch.full((1, *sources.shape), 0.5, dtype=sources.dtype)
    shares = confident_weights(weights, confidence)
    assert (shares[:, 0] == 1).all()
    assert (shares[:, 1] == 0).all()


def test_weights_tell_what_the_weighted_sum_of_filled_sources_holds():
    sources = random_sources(3)
    confidence = random_confidence(sources)
    weights = random_confidence(sources)[None].softmax(dim=1)
    fused = (weights[0] * confident_sources(sources, confidence)).sum(dim=0)
    shares = confident_weights(weights, confidence)
    torch.testing.assert_close((shares[0] * sources).sum(dim=0), fused)
    torch.testing.assert_close(shares.sum(dim=1), torch.ones_like(shares[:, 0]))


def test_nobody_with_confidence_is_everybody():
    sources = random_sources(2)
    nothing = torch.zeros_like(sources)
    mean = sources.mean(dim=0, keepdim=True).expand_as(sources)
    torch.testing.assert_close(confident_sources(sources, nothing), mean)
