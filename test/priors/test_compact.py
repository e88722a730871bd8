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

import copy
from dataclasses import replace
import json

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
import torch
from torch.utils.flop_counter import FlopCounterMode

from dig2dig_ros.priors import EMBEDDED_PRIORS, load_prior, PriorError
from dig2dig_ros.priors.base import linear_alpha_bar
from dig2dig_ros.priors.compact import CompactConfig, CompactPrior, CompactUNet, save

TINY = CompactConfig(widths=(8, 12), blocks=(1, 1), stem=2)


def tiny_network(stem=2):
    torch.manual_seed(0)
    network = CompactUNet(replace(TINY, stem=stem))
    for parameter in network.parameters():  # the zero initialisation would hide mistakes
        torch.nn.init.normal_(parameter, std=0.1)
    return network


def test_schedule_is_the_one_of_the_pretrained_models():
    alpha_bar = linear_alpha_bar()
    beta = np.linspace(1e-4, 0.02, 1000)
    np.testing.assert_allclose(alpha_bar, np.cumprod(1 - beta), rtol=1e-12)


@pytest.mark.parametrize('name', EMBEDDED_PRIORS)
def test_embedded_prior_denoises(name):
    prior = load_prior(name)
    rows, columns = torch.meshgrid(torch.arange(96), torch.arange(128), indexing='ij')
    clean = (0.5 * torch.sin(rows / 9) * torch.cos(columns / 13))[None, None]
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        for timestep in (30, 100, 300):
            level = float(prior.alpha_bar[timestep])
            noisy = level**0.5 * clean + (1 - level) ** 0.5 * noise
            estimate = prior.denoise(noisy, torch.tensor([timestep]))
            error = (estimate - clean).square().mean()
            assert error < 0.1 * (noisy / level**0.5 - clean).square().mean()


def test_nano_needs_at_most_a_third_of_the_operations_of_compact():
    operations = {}
    for name in EMBEDDED_PRIORS:
        prior = load_prior(name)
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            prior.denoise(torch.zeros((1, 1, 64, 64)), torch.tensor([400]))
        operations[name] = counter.get_total_flops()
    assert 0 < operations['nano'] <= operations['compact'] / 3


def test_velocity_is_turned_into_the_clean_image():
    network = tiny_network()
    prior = CompactPrior(network)
    noisy, timesteps = torch.randn((2, 1, 8, 8)), torch.tensor([10, 700])
    level = prior.alpha_bar[timesteps].view(-1, 1, 1, 1).float()
    with torch.inference_mode():
        expected = level.sqrt() * noisy - (1 - level).sqrt() * network(noisy, timesteps)
        torch.testing.assert_close(prior.denoise(noisy, timesteps), expected)


@pytest.mark.parametrize('size', [(1, 1), (7, 13), (16, 16), (33, 20)])
def test_any_size_is_padded_inside(size):
    output = CompactPrior(tiny_network()).denoise(torch.randn((1, 1, *size)), torch.tensor([5]))
    assert output.shape == (1, 1, *size)


def test_images_of_a_batch_do_not_influence_each_other():
    prior = CompactPrior(tiny_network()).eval()
    noisy, timesteps = torch.randn((3, 1, 16, 16)), torch.tensor([1, 300, 900])
    with torch.inference_mode():
        together = prior.denoise(noisy, timesteps)
        for i in range(3):
            alone = prior.denoise(noisy[i : i + 1], timesteps[i : i + 1])
            torch.testing.assert_close(alone, together[i : i + 1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('stem', [2, 3, 4])
def test_inference_gives_what_training_gives(stem, dtype):
    network = tiny_network(stem).to(dtype).to(memory_format=torch.channels_last)
    noisy = torch.randn((3, 1, 24, 36)).to(dtype)
    trained = network(noisy, torch.tensor([300, 300, 300])).detach()
    tolerance = 1e-5 if dtype == torch.float32 else 0.03
    with torch.inference_mode():
        for timesteps in ([300, 300, 300], [300]):
            output = network(noisy, torch.tensor(timesteps))
            torch.testing.assert_close(output, trained, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize('stem', [2, 3, 4])
def test_training_reaches_every_weight(stem):
    network = tiny_network(stem)
    network(torch.randn((2, 1, 24, 36)), torch.tensor([300, 10])).square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_images_that_share_timesteps_may_come_in_any_order():
    prior = CompactPrior(tiny_network()).eval()
    noisy, timesteps = torch.randn((5, 1, 16, 16)), torch.tensor([300, 300, 10, 300, 10])
    with torch.inference_mode():
        together = prior.denoise(noisy, timesteps)
        order = torch.tensor([0, 3, 1, 4, 2])
        sorted_by_timestep = prior.denoise(noisy[order], timesteps[order])
    torch.testing.assert_close(together[order], sorted_by_timestep, rtol=1e-4, atol=1e-5)


def test_schedule_keeps_its_precision_when_the_network_is_cast():
    prior = CompactPrior(tiny_network())
    before = prior.alpha_bar.clone()
    prior.to(torch.bfloat16)
    assert torch.equal(prior.alpha_bar, before)


def test_weights_survive_the_file(tmp_path):
    network = tiny_network()
    save(network, tmp_path / 'tiny.safetensors', {'data': 'none'})
    loaded = load_prior(str(tmp_path / 'tiny.safetensors'))
    assert loaded.name == 'tiny'
    assert loaded.network.config == TINY
    for a, b in zip(network.parameters(), loaded.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)


def test_missing_file_is_named():
    with pytest.raises(PriorError, match=r'/no/where.*neither an embedded denoiser.*nor a file'):
        load_prior('/no/where.safetensors')


def test_pickle_is_refused_unexecuted(tmp_path):
    class Malicious:
        def __reduce__(self):
            return (open, (str(tmp_path / 'executed'), 'w'))

    path = tmp_path / 'evil.safetensors'
    torch.save({'x': Malicious()}, path)
    with pytest.raises(PriorError, match='cannot be read as safetensors'):
        load_prior(str(path))
    assert not (tmp_path / 'executed').exists()


def test_truncated_file_is_refused(tmp_path):
    path = tmp_path / 'cut.safetensors'
    save(tiny_network(), path, {})
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(PriorError, match=r'cut\.safetensors cannot be read'):
        load_prior(str(path))


def test_foreign_weights_are_refused(tmp_path):
    path = tmp_path / 'foreign.safetensors'
    save_file({'weight': torch.zeros(3)}, str(path))
    with pytest.raises(PriorError, match='format None'):
        load_prior(str(path))


@pytest.mark.parametrize(
    'config',
    [
        {'widths': [8, 16], 'blocks': [1, 1], 'stem': 2, 'num_train_timesteps': 1000},
        {'widths': [8], 'blocks': [1, 1], 'stem': 2, 'num_train_timesteps': 1000},
        {'layers': 3, 'widths': [8], 'blocks': [1]},
        {},
    ],
)
def test_weights_of_another_shape_are_refused(tmp_path, config):
    path = tmp_path / 'other.safetensors'
    save(tiny_network(), path, {})
    state = copy.deepcopy(load_file(str(path)))
    metadata = {'format': 'dig2dig-compact-1', 'config': json.dumps(config)}
    save_file(state, str(path), metadata=metadata)
    with pytest.raises(PriorError, match='does not match its own description'):
        load_prior(str(path))
