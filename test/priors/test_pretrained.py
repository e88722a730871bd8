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

import json
import math
import pickle
import socket
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch

from dig2dig_ros.priors import load_prior, PriorError
from dig2dig_ros.priors.base import linear_alpha_bar

# A small network of the family of 256x256_diffusion_uncond.pt.
WIDTHS = (32, 64, 128)
BLOCKS = 2
ATTENTION = (False, True, True)
CHANNELS, OUTPUTS = 3, 6

# What the original implementation of guided-diffusion makes of guided_weights() and
# guided_input(): eps, averaged over the colours, as mean and standard deviation and at pixels.
EPS_STATISTICS = [(0.00186, 0.32988), (-0.00004, 0.32817)]
EPS_PIXELS = {
    (0, 0, 0): -0.07662,
    (0, 5, 17): -0.58527,
    (0, 31, 23): 0.31736,
    (1, 0, 23): -0.13818,
    (1, 16, 11): -0.03286,
    (1, 30, 2): -0.03813,
}

TINY_UNET = {
    'sample_size': 16,
    'in_channels': 3,
    'out_channels': 3,
    'block_out_channels': (8, 16, 16),
    'down_block_types': ('DownBlock2D', 'AttnDownBlock2D', 'DownBlock2D'),
    'up_block_types': ('UpBlock2D', 'AttnUpBlock2D', 'UpBlock2D'),
    'layers_per_block': 1,
    'norm_num_groups': 4,
    'attention_head_dim': 4,
}


@pytest.fixture(autouse=True)
def seed():
    """Make random images the same in every run."""
    torch.manual_seed(0)


@pytest.fixture
def diffusers():
    """Return the optional package that the networks come from."""
    return pytest.importorskip('diffusers')


@pytest.fixture
def unet(diffusers):
    """Return a function that makes a small network of diffusers with random weights."""

    def make(**changes):
        torch.manual_seed(0)
        return diffusers.UNet2DModel(**{**TINY_UNET, **changes}).eval()

    return make


def guided_shapes(widths=WIDTHS, blocks=BLOCKS, attention=ATTENTION, outputs=OUTPUTS):
    """Return the shape of every tensor of a guided-diffusion checkpoint, by its name."""
    shapes = {}
    embedding = 4 * widths[0]

    def layer(name, *shape):
        shapes[f'{name}.weight'] = shape
        shapes[f'{name}.bias'] = shape[:1]

    def residual(name, inputs, width):
        layer(f'{name}.in_layers.0', inputs)
        layer(f'{name}.in_layers.2', width, inputs, 3, 3)
        layer(f'{name}.emb_layers.1', 2 * width, embedding)
        layer(f'{name}.out_layers.0', width)
        layer(f'{name}.out_layers.3', width, width, 3, 3)
        if inputs != width:
            layer(f'{name}.skip_connection', width, inputs, 1, 1)

    def attend(name, width):
        layer(f'{name}.norm', width)
        layer(f'{name}.qkv', 3 * width, width, 1)
        layer(f'{name}.proj_out', width, width, 1)

    layer('time_embed.0', embedding, widths[0])
    layer('time_embed.2', embedding, embedding)
    layer('input_blocks.0.0', widths[0], CHANNELS, 3, 3)
    skips, width, number = [widths[0]], widths[0], 1
    for level, level_width in enumerate(widths):
        for _ in range(blocks):
            residual(f'input_blocks.{number}.0', width, level_width)
            width = level_width
            if attention[level]:
                attend(f'input_blocks.{number}.1', width)
            skips.append(width)
            number += 1
        if level + 1 < len(widths):
            residual(f'input_blocks.{number}.0', width, width)
            skips.append(width)
            number += 1
    residual('middle_block.0', width, width)
    attend('middle_block.1', width)
    residual('middle_block.2', width, width)
    number = 0
    for level in reversed(range(len(widths))):
        for i in range(blocks + 1):
            residual(f'output_blocks.{number}.0', width + skips.pop(), widths[level])
            width = widths[level]
            if attention[level]:
                attend(f'output_blocks.{number}.1', width)
            if level > 0 and i == blocks:
                residual(f'output_blocks.{number}.{1 + attention[level]}', width, width)
            number += 1
    layer('out.0', width)
    layer('out.2', outputs, width, 3, 3)
    return shapes


def guided_weights(**layout):
    """Return weights that are the same everywhere, none of them zero."""
    generator = np.random.Generator(np.random.PCG64(0))
    weights = {}
    for name, shape in guided_shapes(**layout).items():
        values = 2 * generator.random(shape) - 1
        if len(shape) > 1:
            values *= math.sqrt(3 / math.prod(shape[1:]))
        else:
            values *= 0.3
            values += name.endswith('.weight')  # of a normalisation
        if name.startswith('input_blocks.0.'):
            values *= 3e-3  # so small that the epsilon of the next normalisation counts
        weights[name] = torch.from_numpy(values).float()
    return weights


def guided_input():
    """Return two noisy images and their timesteps."""
    noisy = np.random.Generator(np.random.PCG64(1)).random((2, 1, 32, 24)) * 2 - 1
    return torch.from_numpy(noisy).float(), torch.tensor([10, 700])


def write(weights, path):
    torch.save(weights, path)
    return str(path)


def predicted(prior, noisy, timesteps):
    """Return the eps behind an estimate of x_0."""
    level = prior.alpha_bar[timesteps].view(-1, 1, 1, 1)
    with torch.inference_mode():
        clean = prior.denoise(noisy, timesteps)
    return ((noisy - level.sqrt() * clean) / (1 - level).sqrt()).float()


class Malicious:
    """Leaves a trace when it is unpickled."""

    def __init__(self, trace):
        self.trace = str(trace)

    def __reduce__(self):
        return (open, (self.trace, 'w'))


# Checkpoints of guided-diffusion


@pytest.mark.slow
def test_guided_diffusion_checkpoint_predicts_what_the_original_does(diffusers, tmp_path):
    prior = load_prior(write(guided_weights(), tmp_path / 'tiny.pt'))
    eps = predicted(prior, *guided_input())[:, 0]
    for image, (mean, deviation) in zip(eps, EPS_STATISTICS, strict=True):
        assert image.mean().item() == pytest.approx(mean, abs=1e-4)
        assert image.std().item() == pytest.approx(deviation, abs=1e-4)
    for pixel, value in EPS_PIXELS.items():
        assert eps[pixel].item() == pytest.approx(value, abs=2e-4)


def test_guided_diffusion_checkpoint_has_the_schedule_of_its_training(diffusers, tmp_path):
    prior = load_prior(write(guided_weights(), tmp_path / 'tiny.pt'))
    assert prior.name == 'tiny'
    assert torch.equal(prior.alpha_bar, linear_alpha_bar(1000))


@pytest.mark.parametrize(
    'layout',
    [
        {'widths': (64,), 'blocks': 1, 'attention': (False,)},
        {'widths': (64,), 'blocks': 3, 'attention': (True,)},
        {'widths': (32, 32, 64, 64), 'blocks': 1, 'attention': (False, False, False, True)},
        {'widths': (64, 64), 'blocks': 2, 'attention': (True, False), 'outputs': 3},
    ],
)
def test_depth_widths_and_attention_are_read_off_the_weights(diffusers, tmp_path, layout):
    weights = guided_weights(**layout)
    prior = load_prior(write(weights, tmp_path / 'other.pt'))
    assert sum(p.numel() for p in prior.parameters()) == sum(w.numel() for w in weights.values())
    estimate = prior.denoise(torch.zeros((1, 1, 16, 8)), torch.tensor([500]))
    assert estimate.isfinite().all()


def test_checkpoint_in_the_format_before_zip_archives_is_read(diffusers, tmp_path):
    weights = guided_weights()
    torch.save(weights, tmp_path / 'old.pt', _use_new_zipfile_serialization=False)
    old = load_prior(str(tmp_path / 'old.pt'))
    new = load_prior(write(weights, tmp_path / 'new.pt'))
    for a, b in zip(old.parameters(), new.parameters(), strict=True):
        assert torch.equal(a, b)


def test_weights_do_not_depend_on_the_file_once_loaded(diffusers, tmp_path):
    path = tmp_path / 'tiny.pt'
    prior = load_prior(write(guided_weights(), path))
    expected = predicted(prior, *guided_input())
    path.write_bytes(bytes(path.stat().st_size))
    assert torch.equal(predicted(prior, *guided_input()), expected)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'out.0.bias': None}, r'lacks weights out\.0\.bias'),
        ({'middle_block.1.qkv.bias': None}, r'lacks weights middle_block\.1\.qkv\.bias'),
        ({'input_blocks.9.0.out_layers.3.bias': torch.zeros(1)}, 'has the unknown weights'),
        ({'ema.decay': torch.zeros(1)}, r'has the unknown weights ema\.decay'),
        ({'label_emb.weight': torch.zeros((1000, 128))}, 'class-conditional'),
        ({'out.2.weight': torch.zeros((5, 32, 3, 3))}, '3 input and 5 output channels'),
        ({'input_blocks.0.0.weight': torch.zeros((32, 4, 3, 3))}, '4 input and 6 output'),
        ({'input_blocks.0.0.weight': torch.zeros(())}, 'not a U-Net of guided-diffusion'),
        ({'input_blocks.3.0.op.weight': torch.zeros((32, 32, 3, 3))}, 'has the unknown weights'),
        ({'middle_block.1.qkv.weight': torch.zeros((384, 64, 1))}, 'has shape'),
        ({'middle_block.1.qkv.weight': torch.zeros((100, 128, 1))}, 'not query, key and value'),
        # Without a scale beside the shift:
        ({'middle_block.0.emb_layers.1.weight': torch.zeros((128, 128))}, 'has shape'),
    ],
)
def test_checkpoint_of_another_architecture_is_refused(diffusers, tmp_path, change, message):
    weights = {k: v for k, v in {**guided_weights(), **change}.items() if v is not None}
    with pytest.raises(PriorError, match=message):
        load_prior(write(weights, tmp_path / 'other.pt'))


def test_attention_that_does_not_split_into_heads_is_refused(tmp_path):
    weights = guided_weights(widths=(32, 96), blocks=1, attention=(False, True))
    with pytest.raises(PriorError, match='attention over'):
        load_prior(write(weights, tmp_path / 'heads.pt'))


@pytest.mark.parametrize(
    'content',
    [
        {'weight': torch.zeros(3)},
        {},
        {'input_blocks.x.0.weight': torch.zeros(3)},
    ],
)
def test_weights_of_something_else_are_refused(tmp_path, content):
    with pytest.raises(PriorError, match=r'else\.pt is not a U-Net of guided-diffusion'):
        load_prior(write(content, tmp_path / 'else.pt'))


@pytest.mark.parametrize('content', [[torch.zeros(3)], {'epoch': 3}, {3: torch.zeros(3)}])
def test_file_of_more_than_weights_is_refused(tmp_path, content):
    with pytest.raises(PriorError, match='not a file of named weights'):
        load_prior(write(content, tmp_path / 'state.pt'))


@pytest.mark.parametrize('kept', [0, 10, 1000, -100])
def test_truncated_checkpoint_is_refused(tmp_path, kept):
    path = tmp_path / 'cut.pt'
    write(guided_weights(), path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(PriorError, match=r'cut\.pt cannot be read as PyTorch weights'):
        load_prior(str(path))


def test_file_that_is_no_checkpoint_is_refused(tmp_path):
    path = tmp_path / 'photo.jpg'
    path.write_bytes(b'\xff\xd8\xff\xe0 not weights')
    with pytest.raises(PriorError, match=r'photo\.jpg cannot be read as PyTorch weights'):
        load_prior(str(path))


@pytest.mark.parametrize('name', ['evil.pt', 'unet/diffusion_pytorch_model.bin'])
@pytest.mark.parametrize('how', ['zip', 'legacy', 'pickle'])
def test_code_in_a_checkpoint_is_refused_unexecuted(diffusers, unet, tmp_path, name, how):
    path = tmp_path / name
    if path.suffix == '.bin':
        unet().save_config(path.parent)
    weights = {**guided_weights(), 'x': Malicious(tmp_path / 'executed')}
    if how == 'pickle':
        path.write_bytes(pickle.dumps(weights, protocol=2))
    else:
        torch.save(weights, path, _use_new_zipfile_serialization=how == 'zip')
    with pytest.raises(PriorError, match='contains code, which is never executed'):
        load_prior(str(path if path.suffix == '.pt' else tmp_path))
    assert not (tmp_path / 'executed').exists()


# Folders of diffusers


@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize('safe', [True, False])
def test_folder_is_loaded_with_its_network(unet, tmp_path, channels, safe):
    network = unet(in_channels=channels, out_channels=channels)
    network.save_pretrained(tmp_path, safe_serialization=safe)
    prior = load_prior(str(tmp_path))
    assert prior.name == tmp_path.name
    assert torch.equal(prior.alpha_bar, linear_alpha_bar(1000))
    noisy, timesteps = torch.randn((2, 1, 16, 12)), torch.tensor([3, 600])
    with torch.inference_mode():
        output = network(noisy.expand(-1, channels, -1, -1), timesteps).sample
    eps = predicted(prior, noisy, timesteps)
    torch.testing.assert_close(eps, output.mean(dim=1, keepdim=True), rtol=1e-4, atol=1e-4)


def test_a_learned_variance_is_left_out(unet, tmp_path):
    network = unet(in_channels=1, out_channels=2)
    network.save_pretrained(tmp_path)
    noisy, timesteps = torch.randn((1, 1, 16, 16)), torch.tensor([600])
    with torch.inference_mode():
        expected = network(noisy, timesteps).sample[:, :1]
    eps = predicted(load_prior(str(tmp_path)), noisy, timesteps)
    torch.testing.assert_close(eps, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('prediction', ['epsilon', 'sample', 'v_prediction'])
@pytest.mark.parametrize('schedule', ['linear', 'scaled_linear', 'squaredcos_cap_v2'])
def test_pipeline_folder_says_what_is_predicted_and_when(
    diffusers, unet, tmp_path, prediction, schedule
):
    scheduler = diffusers.DDPMScheduler(
        num_train_timesteps=400,
        beta_start=8e-4,
        beta_end=0.01,
        beta_schedule=schedule,
        prediction_type=prediction,
        clip_sample=False,
    )
    network = unet()
    diffusers.DDPMPipeline(network, scheduler).save_pretrained(tmp_path)
    clean = torch.zeros((1, 1, 16, 16)).uniform_(-1, 1)
    noisy = scheduler.add_noise(clean, torch.randn(clean.shape), torch.tensor([150]))
    with torch.inference_mode():
        output = network(noisy.expand(-1, 3, -1, -1), 150).sample.mean(dim=1, keepdim=True)
    expected = scheduler.step(output, 150, noisy).pred_original_sample
    for folder in (tmp_path, tmp_path / 'unet'):
        prior = load_prior(str(folder))
        assert prior.num_train_timesteps == 400
        assert prior.alpha_bar.dtype == torch.float64
        level = scheduler.alphas_cumprod.double()
        torch.testing.assert_close(prior.alpha_bar, level, rtol=1e-4, atol=1e-9)
        with torch.inference_mode():
            estimate = prior.denoise(noisy, torch.tensor([150]))
        torch.testing.assert_close(estimate, expected, rtol=1e-3, atol=1e-3)


def test_configurations_of_early_versions_are_understood(unet, tmp_path):
    network = unet()
    network.save_config(tmp_path)
    former = {'to_q': 'query', 'to_k': 'key', 'to_v': 'value', 'to_out.0': 'proj_attn'}
    weights = {}
    for name, value in network.state_dict().items():
        for new, old in former.items():
            name = name.replace(f'.{new}.', f'.{old}.')
        weights[name] = value
    write(weights, tmp_path / 'diffusion_pytorch_model.bin')
    configuration = {
        '_class_name': 'DDPMScheduler',
        'num_train_timesteps': 3,
        'beta_schedule': 'linear',
        'trained_betas': [0.1, 0.2, 0.3],
        'predict_epsilon': False,
    }
    (tmp_path / 'scheduler_config.json').write_text(json.dumps(configuration))
    prior = load_prior(str(tmp_path))
    np.testing.assert_allclose(prior.alpha_bar, [0.9, 0.9 * 0.8, 0.9 * 0.8 * 0.7])
    noisy = torch.randn((1, 1, 16, 16))
    with torch.inference_mode():
        expected = network(noisy.expand(-1, 3, -1, -1), 2).sample.mean(dim=1, keepdim=True)
        estimate = prior.denoise(noisy, torch.tensor([2]))
    torch.testing.assert_close(estimate, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'_class_name': 'UNet2DConditionModel'}, 'is a UNet2DConditionModel, not a UNet2DModel'),
        ({'num_class_embeds': 10}, 'class-conditional'),
        ({'time_embedding_type': 'fourier'}, 'conditioned on noise scales'),
        ({'in_channels': 4, 'out_channels': 4}, '4 input and 4 output channels'),
        ({'in_channels': 'many'}, 'many input'),
        ({'block_out_channels': None}, 'no block_out_channels'),
        ({'down_block_types': ['DownBlock2D']}, 'is not a valid UNet2DModel'),
        ({'down_block_types': ['DownBlock2D', 'Exec', 'DownBlock2D']}, 'not a valid UNet2DModel'),
        ({'block_out_channels': [8, 24, 24]}, 'has shape'),
        ({'layers_per_block': 2}, 'lacks weights'),
        ({'sample_size': 'large'}, 'sample_size'),
    ],
)
def test_folder_with_an_unsuitable_network_is_refused(unet, tmp_path, change, message):
    unet().save_pretrained(tmp_path)
    file = tmp_path / 'config.json'
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(PriorError, match=message):
        load_prior(str(tmp_path))


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'prediction_type': 'flow'}, "predicts 'flow'"),
        ({'beta_schedule': 'steps'}, 'steps is not implemented'),
        ({'beta_schedule': None}, 'None is not implemented'),
        ({'beta_end': 1.5}, 'betas must be between 0 and 1'),
        ({'beta_start': 'small'}, 'no usable schedule'),
        ({'num_train_timesteps': 0}, 'num_train_timesteps 0'),
        ({'num_train_timesteps': '1000'}, "num_train_timesteps '1000'"),
        ({'trained_betas': [0.1]}, 'betas must be 1000 numbers'),
        ({'rescale_betas_zero_snr': True}, 'betas must be between 0 and 1'),
    ],
)
def test_folder_with_an_unsuitable_schedule_is_refused(diffusers, unet, tmp_path, change, message):
    unet().save_pretrained(tmp_path)
    diffusers.DDPMScheduler().save_pretrained(tmp_path)
    file = tmp_path / 'scheduler_config.json'
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(PriorError, match=message):
        load_prior(str(tmp_path))


def test_scheduler_without_variances_is_refused(unet, tmp_path):
    unet().save_pretrained(tmp_path)
    (tmp_path / 'scheduler_config.json').write_text('{"_class_name": "ScoreSdeVeScheduler"}')
    with pytest.raises(PriorError, match="no 'num_train_timesteps'"):
        load_prior(str(tmp_path))


def test_folder_without_a_network_is_refused(tmp_path):
    with pytest.raises(PriorError, match=r'without config\.json'):
        load_prior(str(tmp_path))
    (tmp_path / 'config.json').write_text('{}')
    with pytest.raises(PriorError, match='lacks weights'):
        load_prior(str(tmp_path))
    write({}, tmp_path / 'diffusion_pytorch_model.bin')
    with pytest.raises(PriorError, match='is a None, not a UNet2DModel'):
        load_prior(str(tmp_path))
    for text in ('{', '[]'):
        (tmp_path / 'config.json').write_text(text)
        with pytest.raises(PriorError, match=r'denoiser configuration .*config\.json'):
            load_prior(str(tmp_path))


def test_truncated_weights_of_a_folder_are_refused(unet, tmp_path):
    unet().save_pretrained(tmp_path)
    path = tmp_path / 'diffusion_pytorch_model.safetensors'
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(PriorError, match=r'safetensors cannot be read'):
        load_prior(str(tmp_path))


def test_nothing_is_fetched_and_no_code_of_the_folder_is_run(unet, tmp_path, monkeypatch):
    def refuse(*arguments):
        raise AssertionError('the network was used')

    unet().save_pretrained(tmp_path)
    file = tmp_path / 'config.json'
    foreign = {'auto_map': {'AutoModel': 'model.Network'}, '_name_or_path': 'someone/something'}
    file.write_text(json.dumps({**json.loads(file.read_text()), **foreign}))
    (tmp_path / 'model.py').write_text('raise AssertionError')
    monkeypatch.setattr(socket.socket, 'connect', refuse)
    monkeypatch.setattr(socket, 'getaddrinfo', refuse)
    load_prior(str(tmp_path))


# Files that were made to take memory or time, or that hold no numbers


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
@pytest.mark.parametrize('safe', [True, False])
def test_weights_that_are_not_finite_are_refused(unet, tmp_path, value, safe):
    network = unet()
    with torch.no_grad():
        network.conv_out.bias[0] = value
    network.save_pretrained(tmp_path, safe_serialization=safe)
    with pytest.raises(PriorError, match=r'is damaged: conv_out\.bias is not finite'):
        load_prior(str(tmp_path))


@pytest.mark.parametrize('zipped', [True, False])
def test_views_of_one_number_are_not_made_weights(tmp_path, zipped):
    path = tmp_path / 'views.pt'
    weights = {f'input_blocks.{i}.0.weight': torch.zeros(1).expand(1 << 30) for i in range(2)}
    torch.save(weights, path, _use_new_zipfile_serialization=zipped)
    assert path.stat().st_size < 20_000
    with pytest.raises(PriorError, match=r'views\.pt has \d+ bytes, but .* shapes of 8589934592'):
        load_prior(str(path))


@pytest.mark.parametrize(
    ('tensor', 'message'),
    [
        (torch.zeros(3).to_sparse(), 'not a plain tensor'),
        (torch.empty((1 << 20, 1 << 20), device='meta'), 'not a plain tensor'),
        (torch.zeros(3, dtype=torch.int64), 'holds torch.int64'),
        (torch.zeros(3, dtype=torch.complex64), 'holds torch.complex64'),
    ],
)
def test_tensors_of_another_kind_are_refused(tmp_path, tensor, message):
    path = tmp_path / 'other.pt'
    torch.save({'input_blocks.0.0.weight': tensor}, path)
    with pytest.raises(PriorError, match=rf'other\.pt.*{message}'):
        load_prior(str(path))


def zipped_again(path, method):
    """Return what PyTorch wrote, as another program zips it: all but the directory, and that."""
    with zipfile.ZipFile(path) as plain, zipfile.ZipFile(path.with_suffix('.zip'), 'w') as again:
        for name in plain.namelist():
            again.writestr(name, plain.read(name), method)
    content = path.with_suffix('.zip').read_bytes()
    begin = content.index(b'PK\1\2')
    return content[:begin], content[begin:-22], content[-22:]


def test_an_archive_that_is_compressed_is_not_unpacked(tmp_path):
    path = tmp_path / 'packed.pt'
    torch.save({'weight': torch.zeros(1 << 16)}, path)
    path.write_bytes(b''.join(zipped_again(path, zipfile.ZIP_DEFLATED)))
    with pytest.raises(PriorError, match=r'packed\.pt is a compressed archive'):
        load_prior(str(path))


def test_an_archive_of_two_readings_is_not_unpacked(tmp_path):
    path = tmp_path / 'packed.pt'
    torch.save({'weight': torch.zeros(4)}, path)
    files, directory, end = zipped_again(path, zipfile.ZIP_DEFLATED)
    _, stored, _ = zipped_again(path, zipfile.ZIP_STORED)
    for content in (
        files + directory + end + b'PK\5\6',  # an archive for PyTorch, but not for zipfile
        files + directory + stored + end,  # zipfile takes the directory right before the end
    ):
        path.write_bytes(content)
        with pytest.raises(PriorError, match=r'packed\.pt cannot be read as PyTorch weights'):
            load_prior(str(path))


@pytest.mark.parametrize('how', ['zip', 'legacy'])
def test_what_is_no_tensor_is_not_made(tmp_path, how):
    class Zeros:
        def __reduce__(self):
            return bytearray, (1 << 20,)

    # Twenty bytes of the file for any number of bytes in memory.
    content = pickle.dumps({'a': Zeros()}, protocol=2, fix_imports=False)
    whole, path = tmp_path / 'whole.pt', tmp_path / 'zeros.pt'
    torch.save({'a': 1}, whole, _use_new_zipfile_serialization=how == 'zip')
    if how == 'zip':
        with zipfile.ZipFile(whole) as archive, zipfile.ZipFile(path, 'w') as changed:
            for name in archive.namelist():
                is_pickle = name.endswith('.pkl')
                changed.writestr(name, content if is_pickle else archive.read(name))
    else:
        plain = pickle.dumps({'a': 1}, protocol=2)
        assert plain in whole.read_bytes()
        path.write_bytes(whole.read_bytes().replace(plain, content))
    with pytest.raises(PriorError, match='contains code, which is never executed'):
        load_prior(str(path))


def test_two_million_layers_are_not_built(tmp_path):
    number = torch.zeros(1)  # the same for all: a file has a part for each
    weights = {f'output_blocks.{i}.0.weight': number for i in range(10_001)}
    with pytest.raises(PriorError, match='has 10001 weights, more than 10000'):
        load_prior(write(weights, tmp_path / 'many.pt'))
    weights = {f'output_blocks.{i}.0.weight': number for i in range(9_000)}
    for name in ('input_blocks.0.0', 'input_blocks.1.0.out_layers.3', 'out.2'):
        weights[f'{name}.weight'] = torch.zeros((3, 3, 1, 1))
    with pytest.raises(PriorError, match='has 1 levels of 9000 blocks'):
        load_prior(write(weights, tmp_path / 'deep.pt'))


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'layers_per_block': 2_000_000}, 'layers_per_block is 2000000, not 32 or less'),
        ({'block_out_channels': [8] * 20_000}, 'has 20000 entries, not 16 or less'),
        ({'block_out_channels': [8, 16, 10**9]}, 'block_out_channels is 1000000000'),
        ({'norm_eps': float('nan')}, 'norm_eps is nan'),
        ({'attention_head_dim': float('inf')}, 'attention_head_dim is inf'),
        ({'act_fn': 'x' * (1 << 21)}, 'more than 1048576 bytes'),
    ],
)
def test_a_folder_that_describes_a_network_beyond_all_measure(unet, tmp_path, change, message):
    unet().save_pretrained(tmp_path)
    file = tmp_path / 'config.json'
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(PriorError, match=message):
        load_prior(str(tmp_path))


# In use


@pytest.fixture
def prior(unet, tmp_path):
    """Return a small prior of colour images, in tiles of 16 pixels."""
    unet().save_pretrained(tmp_path / 'tiny')
    return load_prior(str(tmp_path / 'tiny'))


@pytest.mark.parametrize('size', [(1, 1), (3, 50), (7, 13), (16, 16), (33, 20)])
def test_images_may_have_any_size(prior, size):
    noisy = torch.randn((1, 1, *size))
    with torch.inference_mode():
        estimate = prior.denoise(noisy, torch.tensor([400]))
    assert estimate.shape == noisy.shape
    assert estimate.isfinite().all()


def test_images_of_a_batch_do_not_influence_each_other(prior):
    noisy, timesteps = torch.randn((3, 1, 24, 16)), torch.tensor([1, 300, 900])
    with torch.inference_mode():
        together = prior.denoise(noisy, timesteps)
        for i in range(3):
            alone = prior.denoise(noisy[i : i + 1], timesteps[i : i + 1])
            torch.testing.assert_close(alone, together[i : i + 1], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float16])
def test_network_runs_in_any_precision_and_the_schedule_stays_exact(prior, dtype):
    noisy, timesteps = torch.randn((2, 1, 16, 16)), torch.tensor([20, 300])
    with torch.inference_mode():
        expected = prior.denoise(noisy, timesteps)
        prior.to('cpu', dtype)
        estimate = prior.denoise(noisy, timesteps)
    assert {parameter.dtype for parameter in prior.parameters()} == {dtype}
    assert estimate.dtype == torch.float32
    assert prior.alpha_bar.dtype == torch.float64
    torch.testing.assert_close(estimate, expected, rtol=0.05, atol=0.05)


@pytest.mark.cuda
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float16])
def test_prior_runs_on_a_cuda_device(prior, dtype):
    noisy, timesteps = torch.randn((2, 1, 40, 24)), torch.tensor([20, 300])
    with torch.inference_mode():
        expected = prior.denoise(noisy, timesteps)
        prior.to('cuda', dtype)
        estimate = prior.denoise(noisy.cuda(), timesteps.cuda())
    torch.testing.assert_close(estimate.cpu(), expected, rtol=0.05, atol=0.05)


def test_large_images_pass_the_network_in_tiles_near_its_training_size(prior):
    shapes = []
    prior.network.register_forward_pre_hook(lambda _, inputs: shapes.append(inputs[0].shape))
    with torch.inference_mode():
        prior.denoise(torch.randn((1, 1, 70, 50)), torch.tensor([400]))
    assert {tuple(shape[1:]) for shape in shapes} == {(3, 16, 16)}


def test_missing_package_is_named_with_the_way_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'diffusers', None)
    path = write(guided_weights(), tmp_path / 'tiny.pt')
    with pytest.raises(PriorError, match=r'needs the Python package diffusers.*pip install'):
        load_prior(path)


@pytest.mark.slow
def test_diffusers_is_imported_only_when_it_is_needed():
    program = 'import sys, dig2dig_ros.priors as p; p.load_prior("compact"); print(*sys.modules)'
    run = subprocess.run(
        [sys.executable, '-c', program], capture_output=True, text=True, check=True, timeout=120
    )
    assert 'dig2dig_ros.priors.pretrained' in run.stdout.split()
    assert 'diffusers' not in run.stdout.split()
