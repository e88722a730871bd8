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
Pretrained diffusion checkpoints as priors.

Two kinds are read: the unconditional pixel-space models of guided-diffusion (Dhariwal and
Nichol, 2021), such as ``256x256_diffusion_uncond.pt`` that Dig2DIG uses, and folders with a
``UNet2DModel`` of diffusers. Both run on the network of diffusers, an optional dependency that
is imported only here and only when such a prior is loaded. A checkpoint is data: no code from it
is executed, and nothing is fetched.
"""

from __future__ import annotations

from dataclasses import dataclass
import importlib
import json
from pathlib import Path
import sys
from typing import Any

from safetensors import safe_open, SafetensorError
import torch
from torch import nn, Tensor

from dig2dig_ros.priors.base import linear_alpha_bar, Prior, PriorError
from dig2dig_ros.priors.pickled import read_pickled
from dig2dig_ros.priors.tiling import apply_in_tiles, LARGEST_SIDE, Tiling

PREDICTION_TYPES = ('epsilon', 'sample', 'v_prediction')
DEFAULT_TILE = 256

# Attention heads of all published unconditional guided-diffusion models; the number of heads
# leaves no trace in the shapes of the weights.
_HEAD_CHANNELS = 64
# Far beyond any published network: files with larger numbers are refused before building it.
_MOST_TENSORS, _MOST_LEVELS, _MOST_BLOCKS, _LARGEST_NUMBER = 10_000, 16, 32, 100_000
_LARGEST_CONFIGURATION = 1 << 20
_WEIGHT_FILES = ('diffusion_pytorch_model.safetensors', 'diffusion_pytorch_model.bin')

# Names of the layers in guided-diffusion, by their names in diffusers.
_OUTER_LAYERS = {
    'conv_in': 'input_blocks.0.0',
    'time_embedding.linear_1': 'time_embed.0',
    'time_embedding.linear_2': 'time_embed.2',
    'conv_norm_out': 'out.0',
    'conv_out': 'out.2',
}
_RESIDUAL_LAYERS = {
    'norm1': 'in_layers.0',
    'conv1': 'in_layers.2',
    'time_emb_proj': 'emb_layers.1',
    'norm2': 'out_layers.0',
    'conv2': 'out_layers.3',
    'conv_shortcut': 'skip_connection',
}
_ATTENTION_LAYERS = {
    'group_norm': 'norm',
    'to_q': 'qkv',
    'to_k': 'qkv',
    'to_v': 'qkv',
    'to_out.0': 'proj_out',
}
# What the attention layers were called in folders that the first versions of diffusers wrote.
_FORMER_NAMES = {'query': 'to_q', 'key': 'to_k', 'value': 'to_v', 'proj_attn': 'to_out.0'}


class PretrainedPrior(Prior):
    """
    A diffusers ``UNet2DModel`` behind the :class:`~dig2dig_ros.priors.base.Prior` interface.

    A network of colour images sees the luma in all three channels, and the mean of its three
    outputs counts. Images are padded to what the network can halve, and go through in tiles
    where they are larger than one.

    :param network: returns an object whose ``sample`` is (B, C, H, W), of which the first
        ``channels`` count; the others, if any, are a learned variance.
    :param alpha_bar: (T,), see :func:`~dig2dig_ros.priors.base.linear_alpha_bar`.
    :param channels: 1 or 3.
    :param prediction_type: what the network predicts: ``epsilon``, ``sample`` (x_0), or
        ``v_prediction``, sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) x_0.
    :param tiling: tiles near the size that the network was trained on suit it best.
    """

    def __init__(
        self,
        network: nn.Module,
        alpha_bar: Tensor,
        *,
        name: str,
        channels: int,
        prediction_type: str,
        tiling: Tiling,
    ) -> None:
        super().__init__(name, alpha_bar)
        self.network = network.eval()
        self.channels = channels
        self.prediction_type = prediction_type
        self.tiling = tiling

    def denoise(self, noisy: Tensor, timesteps: Tensor) -> Tensor:
        # Near pure noise x_0 is a small difference of large numbers.
        precise = noisy.to(torch.promote_types(noisy.dtype, torch.float32))
        predicted = apply_in_tiles(self._predict, precise, timesteps, self.tiling)
        if self.prediction_type == 'sample':
            return predicted.to(noisy.dtype)
        signal, sigma = self.coefficients(timesteps, precise)
        if self.prediction_type == 'v_prediction':
            return (signal * precise - sigma * predicted).to(noisy.dtype)
        return ((precise - sigma * predicted) / signal).to(noisy.dtype)

    def _predict(self, tiles: Tensor, timesteps: Tensor) -> Tensor:
        dtype = next(self.network.parameters()).dtype
        images = tiles.to(dtype).expand(-1, self.channels, -1, -1)
        output: Tensor = self.network(images, timesteps).sample[:, : self.channels]
        return output.to(tiles.dtype).mean(dim=1, keepdim=True)

    @classmethod
    def from_guided_diffusion(cls, path: Path) -> PretrainedPrior:
        """
        Load an unconditional checkpoint in the format of guided-diffusion.

        Widths, depth and attention levels are read off the weights. The rest is that of the
        published unconditional models: residual blocks that also change the resolution,
        timesteps that scale and shift, attention heads of 64 channels, a linear schedule of
        1000 timesteps, and a prediction of eps.

        :raises PriorError: the file cannot be read or is of another architecture.
        """
        state = _read_weights(path)
        layout = _GuidedLayout.infer(state, path)
        network = _build_network(layout.unet_config(), path)
        _fill_network(network, layout.converted(state, network, path), path)
        return cls(
            network,
            linear_alpha_bar(),
            name=path.stem,
            channels=layout.in_channels,
            prediction_type='epsilon',
            tiling=_tiling(layout.image_size, layout.multiple, path),
        )

    @classmethod
    def from_diffusers(cls, folder: Path) -> PretrainedPrior:
        """
        Load a folder with a ``UNet2DModel``, or with a pipeline around one.

        The noise schedule and what the network predicts are read from
        ``scheduler_config.json``; without one, they are the linear schedule of 1000 timesteps
        and eps.

        :raises PriorError: the folder cannot be read or is of another architecture.
        """
        home = next((f for f in (folder, folder / 'unet') if (f / 'config.json').is_file()), None)
        if home is None:
            raise PriorError(
                f'denoiser {folder} is a folder without config.json or unet/config.json: give one '
                'with a UNet2DModel of diffusers, or a pipeline around one'
            )
        weights = next((home / f for f in _WEIGHT_FILES if (home / f).is_file()), None)
        if weights is None:
            raise PriorError(
                f'denoiser {home} lacks weights: {" or ".join(_WEIGHT_FILES)} is needed'
            )
        config = _read_json(home / 'config.json')
        channels = _check_unet_config(config, home)
        alpha_bar, prediction_type = _read_schedule(folder, home)
        network = _build_network(config, home)
        state = {_current_name(key): value for key, value in _read_weights(weights).items()}
        _fill_network(network, state, weights)
        # Each resolution level but the last one halves the image.
        multiple = 2 ** (len(config['block_out_channels']) - 1)
        return cls(
            network,
            alpha_bar,
            name=folder.resolve().name,
            channels=channels,
            prediction_type=prediction_type,
            tiling=_tiling(_sample_size(config, home), multiple, home),
        )


def _tiling(sample_size: int, multiple: int, path: Path) -> Tiling:
    """Return tiles of the size that a network was trained on, as far as that is possible."""
    # A tile must hold at least an overlap and a little more.
    side = max(min(sample_size, LARGEST_SIDE), 2 * multiple)
    try:
        return Tiling.for_side(side, multiple)
    except ValueError as error:
        raise PriorError(f'denoiser {path} cannot work in tiles: {error}') from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


# The network of diffusers


def _of_diffusers(name: str, path: Path) -> Any:
    """Return a class of diffusers, which only such priors need."""
    try:
        return getattr(importlib.import_module('diffusers'), name)
    except (ImportError, RuntimeError) as error:  # it wraps what fails inside it in the latter
        raise PriorError(
            f'denoiser {path} needs the Python package diffusers, which {sys.executable} cannot '
            f'import ({_first_line(error)}): install it with "pip install diffusers", or '
            'with "pip install \'.[pretrained]\'" in the source folder of dig2dig'
        ) from error


def _build_network(config: dict[str, Any], path: Path) -> nn.Module:
    """Return a ``UNet2DModel`` without memory for its weights."""
    model_class = _of_diffusers('UNet2DModel', path)
    try:
        with torch.device('meta'):
            network: nn.Module = model_class.from_config(config)
    except Exception as error:  # anything that the values of an untrusted configuration cause
        raise PriorError(
            f'denoiser {path} is not a valid UNet2DModel: {_first_line(error)}'
        ) from error
    return network


def _fill_network(network: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """
    Give the network its weights, as float32.

    :raises PriorError: names or shapes of the weights are not the network's.
    """
    expected = network.state_dict()
    _check_names(expected.keys() - state.keys(), state.keys() - expected.keys(), path)
    for name, tensor in state.items():
        if tensor.shape != expected[name].shape:
            raise PriorError(
                f'denoiser {path} does not fit its network: {name} has shape '
                f'{tuple(tensor.shape)}, not {tuple(expected[name].shape)}'
            )
    # Copies, because the file may be changed while a mapping of it is in use.
    copied = {name: tensor.to(torch.float32, copy=True) for name, tensor in state.items()}
    network.load_state_dict(copied, assign=True)
    if any(tensor.is_meta for tensor in (*network.parameters(), *network.buffers())):
        raise PriorError(f'denoiser {path} uses blocks whose constants are not in the file')


def _check_names(missing: set[str], unexpected: set[str], path: Path) -> None:
    for what, names in (('lacks', missing), ('has the unknown', unexpected)):
        if names:
            more = f' and {len(names) - 1} more' if len(names) > 1 else ''
            raise PriorError(
                f'denoiser {path} does not have the architecture that it claims: it {what} '
                f'weights {min(names)}{more}'
            )


# Files


def _read_weights(path: Path) -> dict[str, Tensor]:
    """
    Return the tensors of a file without executing anything from it.

    :raises PriorError: it cannot be read, or holds more than plain numbers.
    """
    try:
        if path.suffix == '.safetensors':
            with safe_open(path, framework='pt') as file:
                names = list(file.keys())
                _check_count(len(names), path)
                return _checked_weights({name: file.get_tensor(name) for name in names}, path)
        state = read_pickled(path)
    except (OSError, SafetensorError) as error:
        raise PriorError(f'denoiser {path} cannot be read: {error}') from error
    except PriorError:
        raise
    except Exception as error:  # a damaged pickle can fail in any way
        raise PriorError(
            f'denoiser {path} cannot be read as PyTorch weights: it is truncated, has another '
            'format, or contains code, which is never executed'
        ) from error
    if not isinstance(state, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()
    ):
        raise PriorError(
            f'denoiser {path} is not a file of named weights: give that of a network alone, not '
            'of a whole training state'
        )
    return _checked_weights(state, path)


def _check_count(count: int, path: Path) -> None:
    if count > _MOST_TENSORS:
        raise PriorError(f'denoiser {path} has {count} weights, more than {_MOST_TENSORS}')


def _checked_weights(state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """
    Return weights that may be copied: finite numbers that take no more memory than the file.

    A view of one number can have any shape, and tensors without values, too.
    """
    _check_count(len(state), path)
    for name, tensor in state.items():
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != 'cpu':
            raise PriorError(f'denoiser {path}: {name} is not a plain tensor of numbers')
        if not tensor.is_floating_point():
            raise PriorError(f'denoiser {path}: {name} holds {tensor.dtype}, not floats')
    stated = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    if stated > path.stat().st_size:
        raise PriorError(
            f'denoiser {path} has {path.stat().st_size} bytes, but its weights have the shapes of '
            f'{stated}: save them again, as contiguous tensors'
        )
    for name, tensor in state.items():
        # In float32: few operations know numbers of 8 bits.
        if not bool(tensor.float().isfinite().all()):
            raise PriorError(f'denoiser {path} is damaged: {name} is not finite')
    return state


def _read_json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _LARGEST_CONFIGURATION:
            raise ValueError(f'it has more than {_LARGEST_CONFIGURATION} bytes')
        content = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError, RecursionError) as error:
        raise PriorError(f'denoiser configuration {path} cannot be read: {error}') from error
    if not isinstance(content, dict):
        raise PriorError(f'denoiser configuration {path} must be a JSON object')
    return content


# Folders of diffusers


def _current_name(key: str) -> str:
    if '.attentions.' not in key:
        return key
    layer, _, leaf = key.rpartition('.')
    block, _, part = layer.rpartition('.')
    return f'{block}.{_FORMER_NAMES[part]}.{leaf}' if part in _FORMER_NAMES else key


def _check_unet_config(config: dict[str, Any], path: Path) -> int:
    """Return the number of image channels, if the network can be used as a prior."""
    kind = config.get('_class_name')
    if kind != 'UNet2DModel':
        raise PriorError(f'denoiser {path} is a {kind}, not a UNet2DModel of diffusers')
    if config.get('num_class_embeds') is not None or config.get('class_embed_type') is not None:
        raise PriorError(f'denoiser {path} is class-conditional: use an unconditional one')
    if config.get('time_embedding_type', 'positional') == 'fourier':
        raise PriorError(
            f'denoiser {path} is conditioned on noise scales, not on timesteps: use a model of a '
            'variance-preserving diffusion (DDPM)'
        )
    if not isinstance(config.get('block_out_channels'), list) or not config['block_out_channels']:
        raise PriorError(f'denoiser {path} is not a valid UNet2DModel: no block_out_channels')
    for name, value in config.items():
        _check_affordable(name, value, path)
    return _check_channels(config.get('in_channels', 3), config.get('out_channels', 3), path)


def _check_affordable(name: str, value: Any, path: Path) -> None:
    """Refuse numbers that would take for ever to build the network."""
    values = value if isinstance(value, list) else [value]
    if len(values) > _MOST_LEVELS:
        raise PriorError(
            f'denoiser {path}: {name} has {len(values)} entries, not {_MOST_LEVELS} or less'
        )
    most = _MOST_BLOCKS if name == 'layers_per_block' else _LARGEST_NUMBER
    for number in values:
        if isinstance(number, (int, float)) and not abs(number) <= most:
            raise PriorError(f'denoiser {path}: {name} is {number}, not {most} or less')


def _check_channels(inputs: int, outputs: int, path: Path) -> int:
    if inputs not in (1, 3) or outputs not in (inputs, 2 * inputs):
        raise PriorError(
            f'denoiser {path} has {inputs} input and {outputs} output channels, but must have 1 '
            'or 3 in, and as many or (with a learned variance) twice as many out'
        )
    return inputs


def _sample_size(config: dict[str, Any], path: Path) -> int:
    """Return the shorter side of the images that a network was trained on."""
    size = config.get('sample_size') or DEFAULT_TILE
    sides = size if isinstance(size, list) else [size]
    if not all(isinstance(side, int) and side > 0 for side in sides):
        raise PriorError(f'denoiser {path} is not a valid UNet2DModel: sample_size is {size!r}')
    return min(sides)


def _read_schedule(folder: Path, home: Path) -> tuple[Tensor, str]:
    """Return alpha_bar and the prediction type of a folder."""
    places = [folder / 'scheduler', folder]
    if folder.resolve().name == 'unet':  # part of a pipeline
        places.append(folder.resolve().parent / 'scheduler')
    files = [place / 'scheduler_config.json' for place in places]
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        return linear_alpha_bar(), 'epsilon'
    config = _read_json(file)
    # Before prediction_type there was predict_epsilon.
    former = 'epsilon' if config.get('predict_epsilon', True) else 'sample'
    prediction_type = config.get('prediction_type', former)
    if prediction_type not in PREDICTION_TYPES:
        raise PriorError(
            f'denoiser {home}: {file} says that it predicts {prediction_type!r}, not one of '
            f'{PREDICTION_TYPES}'
        )
    try:
        return _alpha_bar(config, _of_diffusers('DDPMScheduler', home)), prediction_type
    except (KeyError, TypeError, ValueError, RuntimeError, NotImplementedError) as error:
        reason = f'no {error}' if isinstance(error, KeyError) else _first_line(error)
        raise PriorError(f'denoiser {home}: {file} has no usable schedule: {reason}') from error


def _alpha_bar(config: dict[str, Any], scheduler_class: Any) -> Tensor:
    """
    Return alpha_bar of a scheduler of diffusers.

    :raises KeyError, TypeError, ValueError, RuntimeError, NotImplementedError: it has none, or it
        is not strictly decreasing in (0, 1).
    """
    steps = config['num_train_timesteps']
    if not isinstance(steps, int) or not 1 <= steps <= 100_000:
        raise ValueError(f'num_train_timesteps {steps!r}')
    # No default if missing: not every scheduler is defined by variances.
    options = {'num_train_timesteps': steps, 'beta_schedule': config['beta_schedule']}
    for name in ('beta_start', 'beta_end', 'trained_betas', 'rescale_betas_zero_snr'):
        if name in config:
            options[name] = config[name]
    beta = scheduler_class(**options).betas.double()
    if beta.shape != (steps,):
        raise ValueError(f'its betas must be {steps} numbers')
    if not bool(((beta > 0) & (beta < 1)).all()):  # also where one is not a number
        raise ValueError('its betas must be between 0 and 1')
    return torch.cumprod(1 - beta, dim=0)


# Checkpoints of guided-diffusion


@dataclass(frozen=True)
class _GuidedLayout:
    """
    The shape of a guided-diffusion U-Net, and where its layers are in one of diffusers.

    Their blocks are numbered through: ``input_blocks`` are the first convolution and then, for
    each level, its residual blocks and one that halves the resolution; ``output_blocks`` are,
    from the coarsest level on, the residual blocks, the last of a level with one that doubles
    the resolution.

    :param widths: channels of each resolution level, finest first.
    :param attention: whether a level has attention.
    :param blocks: residual blocks of each level on the way down; one more on the way up.
    """

    in_channels: int
    out_channels: int
    widths: tuple[int, ...]
    attention: tuple[bool, ...]
    blocks: int

    @classmethod
    def infer(cls, state: dict[str, Tensor], path: Path) -> _GuidedLayout:
        """
        Read the layout off the names and shapes of the weights.

        :raises PriorError: it cannot be a network of this family.
        """
        if 'label_emb.weight' in state:
            raise PriorError(f'denoiser {path} is class-conditional: use an unconditional one')
        # Anything not checked here is missing or left over when the weights are named.
        outputs = {key.split('.')[1] for key in state if key.startswith('output_blocks.')}
        doubling = [
            number
            for number in outputs
            if any(f'output_blocks.{number}.{i}.in_layers.0.weight' in state for i in (1, 2))
        ]
        levels = len(doubling) + 1
        per_level = len(outputs) // levels
        first = [1 + level * per_level for level in range(levels)]
        try:
            widths = [state[f'input_blocks.{i}.0.out_layers.3.weight'].shape[0] for i in first]
            in_channels = state['input_blocks.0.0.weight'].shape[1]
            out_channels = state['out.2.weight'].shape[0]
        except (KeyError, IndexError) as error:
            raise PriorError(
                f'denoiser {path} is not a U-Net of guided-diffusion with residual blocks that '
                'change the resolution, such as 256x256_diffusion_uncond.pt'
            ) from error
        layout = cls(
            _check_channels(in_channels, out_channels, path),
            out_channels,
            tuple(widths),
            tuple(f'input_blocks.{i}.1.qkv.weight' in state for i in first),
            per_level - 1,
        )
        if levels > _MOST_LEVELS or per_level > _MOST_BLOCKS:
            raise PriorError(
                f'denoiser {path} has {levels} levels of {per_level} blocks, more than '
                f'{_MOST_LEVELS} of {_MOST_BLOCKS}'
            )
        # There is always attention at the lowest resolution.
        headed = [w for w, a in zip(widths, layout.attention, strict=True) if a] + widths[-1:]
        if any(width % _HEAD_CHANNELS for width in headed):
            raise PriorError(
                f'denoiser {path} has attention over {headed} channels, but it must be a multiple '
                f'of {_HEAD_CHANNELS}, the size of an attention head in guided-diffusion'
            )
        return layout

    @property
    def multiple(self) -> int:
        """Image sides must be multiples of this many pixels."""
        return int(2 ** (len(self.widths) - 1))

    @property
    def image_size(self) -> int:
        """The side of the images it was trained on: these networks end at 8x8."""
        return 8 * self.multiple

    def unet_config(self) -> dict[str, Any]:
        """Return the configuration of the same network in diffusers."""
        down = ['AttnDownBlock2D' if a else 'ResnetDownsampleBlock2D' for a in self.attention]
        up = ['AttnUpBlock2D' if a else 'ResnetUpsampleBlock2D' for a in self.attention]
        return {
            'sample_size': self.image_size,
            'in_channels': self.in_channels,
            'out_channels': self.out_channels,
            'block_out_channels': list(self.widths),
            'layers_per_block': self.blocks,
            'down_block_types': down,
            'up_block_types': up[::-1],
            'downsample_type': 'resnet',
            'upsample_type': 'resnet',
            'resnet_time_scale_shift': 'scale_shift',
            'attention_head_dim': _HEAD_CHANNELS,
            'norm_num_groups': 32,
            'attn_norm_num_groups': 32,
            'norm_eps': 1e-5,
            'act_fn': 'silu',
            'time_embedding_type': 'positional',
            'flip_sin_to_cos': True,
            'freq_shift': 0,
        }

    def blocks_by_name(self) -> dict[str, str]:
        """Return the name of every block in guided-diffusion, by its name in diffusers."""
        levels, blocks = len(self.widths), self.blocks
        names = {
            'mid_block.resnets.0': 'middle_block.0',
            'mid_block.attentions.0': 'middle_block.1',
            'mid_block.resnets.1': 'middle_block.2',
        }
        for level in range(levels):
            for i in range(blocks):
                number = 1 + level * (blocks + 1) + i
                names[f'down_blocks.{level}.resnets.{i}'] = f'input_blocks.{number}.0'
                names[f'down_blocks.{level}.attentions.{i}'] = f'input_blocks.{number}.1'
            number = (level + 1) * (blocks + 1)
            names[f'down_blocks.{level}.downsamplers.0'] = f'input_blocks.{number}.0'
            for i in range(blocks + 1):
                number = level * (blocks + 1) + i
                names[f'up_blocks.{level}.resnets.{i}'] = f'output_blocks.{number}.0'
                names[f'up_blocks.{level}.attentions.{i}'] = f'output_blocks.{number}.1'
            last = (level + 1) * (blocks + 1) - 1
            position = 2 if self.attention[levels - 1 - level] else 1
            names[f'up_blocks.{level}.upsamplers.0'] = f'output_blocks.{last}.{position}'
        return names

    def converted(
        self, state: dict[str, Tensor], network: nn.Module, path: Path
    ) -> dict[str, Tensor]:
        """
        Return the weights under the names of diffusers.

        :raises PriorError: weights are missing or left over.
        """
        layers = dict(_OUTER_LAYERS)
        for block, theirs in self.blocks_by_name().items():
            kind = _ATTENTION_LAYERS if '.attentions.' in block else _RESIDUAL_LAYERS
            layers.update({f'{block}.{k}': f'{theirs}.{v}' for k, v in kind.items()})
        sources = {}
        for name in network.state_dict():
            layer, _, leaf = name.rpartition('.')
            sources[name] = f'{layers[layer]}.{leaf}'
        used = set(sources.values())
        _check_names(used - state.keys(), state.keys() - used, path)
        return {name: _as_layer(name, state[key], key, path) for name, key in sources.items()}


def _as_layer(name: str, tensor: Tensor, key: str, path: Path) -> Tensor:
    """Return what the layer ``name`` of diffusers needs of the guided-diffusion weights."""
    layer = name.rpartition('.')[0]
    part = layer.rpartition('.')[2]
    if '.attentions.' in layer and tensor.ndim == 3 and tensor.shape[2] == 1:
        tensor = tensor[:, :, 0]  # a convolution of length 1 here, a linear layer there
    if part not in ('to_q', 'to_k', 'to_v'):
        return tensor
    if tensor.shape[0] % (3 * _HEAD_CHANNELS):
        raise PriorError(
            f'denoiser {path} does not fit its network: {key} has {tensor.shape[0]} rows, not '
            f'query, key and value of attention heads of {_HEAD_CHANNELS} channels'
        )
    # Query, key and value of one head after the other.
    rows = tensor.reshape(-1, 3, _HEAD_CHANNELS, *tensor.shape[1:])
    return rows[:, ('to_q', 'to_k', 'to_v').index(part)].flatten(0, 1)
