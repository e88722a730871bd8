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

"""The embedded prior: a small U-Net without normalisation, working on 4x4 pixel blocks."""

from __future__ import annotations

from dataclasses import asdict, dataclass
import json
import math
from pathlib import Path

from safetensors import safe_open, SafetensorError
from safetensors.torch import save as serialize
import torch
from torch import nn, Tensor
import torch.nn.functional as F

from dig2dig_ros.priors.base import linear_alpha_bar, Prior, PriorError

FORMAT = 'dig2dig-compact-1'
_MOST_CHANNELS, _MOST_BLOCKS, _LARGEST_STEM, _MOST_TIMESTEPS = 1024, 16, 8, 10_000
# Types by their size in bytes, to move pixels with.
_WORDS = {4: torch.int32, 8: torch.int64, 16: torch.complex128}


@dataclass(frozen=True)
class CompactConfig:
    """
    The shape of a :class:`CompactUNet`.

    :param widths: channels of each resolution level, finest first.
    :param blocks: residual blocks of each level, on the way down and again on the way up.
    :param stem: side of the pixel blocks that the stem folds into channels.
    :param num_train_timesteps: noise levels of the linear schedule it is trained on.
    """

    widths: tuple[int, ...] = (48, 64, 96)
    blocks: tuple[int, ...] = (1, 2, 2)
    stem: int = 4
    num_train_timesteps: int = 1000

    def __post_init__(self) -> None:
        if len(self.widths) != len(self.blocks) or not self.widths:
            raise ValueError(
                f'widths {self.widths} and blocks {self.blocks} must name the same levels, '
                'at least one'
            )
        # They come from a file, which is untrusted: the network must stay affordable.
        for name, numbers, most in (
            ('widths', self.widths, _MOST_CHANNELS),
            ('blocks', self.blocks, _MOST_BLOCKS),
            ('stem', (self.stem, len(self.widths)), _LARGEST_STEM),
            ('num_train_timesteps', (self.num_train_timesteps,), _MOST_TIMESTEPS),
        ):
            if not all(type(number) is int and 1 <= number <= most for number in numbers):
                raise ValueError(f'{name} must be whole numbers of 1 to {most}')

    @property
    def multiple(self) -> int:
        """Image sides are padded to a multiple of this many pixels."""
        return int(self.stem * 2 ** (len(self.widths) - 1))


class TimestepEmbedding(nn.Module):
    """Sinusoidal features of the timestep, followed by a two-layer perceptron."""

    def __init__(self, features: int, channels: int) -> None:
        super().__init__()
        half = features // 2
        # Always computed: without values (device meta) torch would load its compiler for this,
        # which takes seconds and 70 MiB and leaves a folder behind.
        steps = torch.arange(half, device='cpu')
        frequencies = torch.exp(-math.log(10000.0) * steps / half)
        self.register_buffer('frequencies', frequencies, persistent=False)
        self.projection = nn.Linear(features, channels)
        self.output = nn.Linear(channels, channels)

    def forward(self, timesteps: Tensor) -> Tensor:
        # The phase needs float32: in half precision neighbouring timesteps would coincide.
        frequencies = torch.as_tensor(self.frequencies, dtype=torch.float32)
        phase = timesteps.float()[:, None] * frequencies[None, :]
        features = torch.cat([phase.cos(), phase.sin()], dim=1)
        hidden = F.silu(self.projection(features.to(self.projection.weight.dtype)))
        return F.silu(self.output(hidden))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions; the timestep scales and shifts the features between them."""

    def __init__(self, channels: int, embedding: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(channels, channels, 3, padding=1)
        self.modulation = nn.Linear(embedding, 2 * channels)
        self.conv_out = nn.Conv2d(channels, channels, 3, padding=1)
        # A block starts as the identity: that trains stably without normalisation layers,
        # which would cost memory bandwidth and make a pixel depend on the whole image.
        nn.init.zeros_(self.conv_out.weight)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.modulation(embedding).chunk(2, dim=1)
        if len(embedding) == 1 and not torch.is_grad_enabled():
            # A convolution that scales and shifts as it goes spares a pass over the features.
            scale = 1 + scale[0]
            weight = self.conv_in.weight * scale[:, None, None, None]
            assert self.conv_in.bias is not None
            bias = torch.addcmul(shift[0], self.conv_in.bias, scale)
            hidden = F.silu(F.conv2d(x, weight, bias, padding=1), inplace=True)
        else:
            scale, shift = scale[:, :, None, None], shift[:, :, None, None]
            hidden = F.silu(torch.addcmul(shift, self.conv_in(x), 1 + scale))
        output: Tensor = self.conv_out(hidden).add_(x)
        return output


class CompactUNet(nn.Module):
    """
    A U-Net that predicts v = sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) x_0.

    The stem is a pixel-unshuffle, so that every convolution runs at 1/stem of the resolution
    in each direction; skips are added, not concatenated. It is purely convolutional: any
    height and width, padded inside to :attr:`CompactConfig.multiple`.
    """

    def __init__(self, config: CompactConfig) -> None:
        super().__init__()
        self.config = config
        embedding = 4 * config.widths[0]
        pixels = config.stem**2
        self.embedding = TimestepEmbedding(64, embedding)
        self.stem = nn.Conv2d(pixels, config.widths[0], 3, padding=1)
        self.encoder = nn.ModuleList()
        self.downsample = nn.ModuleList()
        self.upsample = nn.ModuleList()
        self.decoder = nn.ModuleList()
        levels = list(zip(config.widths, config.blocks, strict=True))
        for level, (width, blocks) in enumerate(levels):
            self.encoder.append(self._blocks(width, blocks, embedding))
            if level + 1 < len(levels):
                below = config.widths[level + 1]
                self.downsample.append(nn.Conv2d(width, below, 2, stride=2))
                self.upsample.append(nn.ConvTranspose2d(below, width, 2, stride=2))
                self.decoder.append(self._blocks(width, blocks, embedding))
        self.head = nn.Conv2d(config.widths[0], pixels, 3, padding=1)
        nn.init.zeros_(self.head.weight)

    @staticmethod
    def _blocks(width: int, count: int, embedding: int) -> nn.ModuleList:
        return nn.ModuleList(ResidualBlock(width, embedding) for _ in range(count))

    @staticmethod
    def _run(blocks: nn.Module, x: Tensor, embedding: Tensor) -> Tensor:
        for block in blocks.children():
            x = block(x, embedding)
        return x

    def forward(self, noisy: Tensor, timesteps: Tensor) -> Tensor:
        """
        Return v.

        :param noisy: (B, 1, H, W).
        :param timesteps: (B,), or (1,) for one that all images share, which is faster.
        """
        height, width = noisy.shape[-2:]
        multiple = self.config.multiple
        padding = (0, -width % multiple, 0, -height % multiple)
        padded = F.pad(noisy, padding, mode='replicate') if any(padding) else noisy
        embedding = self.embedding(timesteps)
        x = self.stem(_blocks_to_channels(padded, self.config.stem))
        skips: list[Tensor] = []
        for level, blocks in enumerate(self.encoder):
            x = self._run(blocks, x, embedding)
            if level < len(self.downsample):
                skips.append(x)
                x = self.downsample[level](x)
        for level in reversed(range(len(self.upsample))):
            x = self.upsample[level](x).add_(skips[level])
            x = self._run(self.decoder[level], x, embedding)
        velocity = _channels_to_blocks(self.head(x), self.config.stem)
        return velocity[..., :height, :width]


def _blocks_to_channels(images: Tensor, side: int) -> Tensor:
    """Do what ``pixel_unshuffle`` does, (B, 1, H, W) to (B, side^2, h, w), into channels_last."""
    count, _, height, width = images.shape
    blocks = images.reshape(count, height // side, side, width // side, side)
    blocks = _swapped(blocks).reshape(count, height // side, width // side, side**2)
    return blocks.permute(0, 3, 1, 2)


def _channels_to_blocks(features: Tensor, side: int) -> Tensor:
    """Do what ``pixel_shuffle`` does, (B, side^2, h, w) to (B, 1, H, W), from channels_last."""
    count, _, height, width = features.shape
    blocks = features.permute(0, 2, 3, 1).reshape(count, height, width, side, side)
    return _swapped(blocks).reshape(count, 1, height * side, width * side)


def _swapped(blocks: Tensor) -> Tensor:
    """
    Swap the second and third dimension from the last.

    :param blocks: (..., n, m, side) -> (..., m, n, side).
    """
    word = _WORDS.get(blocks.shape[-1] * blocks.element_size())
    if word is None or torch.is_grad_enabled() or torch.compiler.is_exporting():
        # No gradient goes through a view of another type, nor of the same one; ONNX has none.
        return blocks.transpose(-3, -2).contiguous()
    # The rows of the blocks move as one number each: several times as fast on a CPU.
    rows = blocks.contiguous().view(word)
    return rows.transpose(-3, -2).contiguous().view(blocks.dtype)


class CompactPrior(Prior):
    """The embedded denoiser behind the :class:`~dig2dig_ros.priors.base.Prior` interface."""

    only_enqueues = True

    def __init__(self, network: CompactUNet, name: str = 'compact') -> None:
        super().__init__(name, linear_alpha_bar(network.config.num_train_timesteps))
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def denoise(self, noisy: Tensor, timesteps: Tensor) -> Tensor:
        if len(timesteps) > 1 and timesteps.stride(0) == 0:
            # One timestep for all images is one set of weights.
            return self._estimate(noisy, timesteps[:1])
        is_on_cpu = noisy.device.type == 'cpu' and not torch.compiler.is_exporting()
        if is_on_cpu and not torch.is_grad_enabled():
            # On a GPU, asking for the timesteps would wait for it.
            distinct, images = torch.unique_consecutive(timesteps, return_counts=True)
            parts = torch.split(noisy, images.tolist())
            estimates = [
                self._estimate(part, distinct[index : index + 1])
                for index, part in enumerate(parts)
            ]
            return estimates[0] if len(estimates) == 1 else torch.cat(estimates)
        return self._estimate(noisy, timesteps)

    def _estimate(self, noisy: Tensor, timesteps: Tensor) -> Tensor:
        """Estimate the clean images; one timestep may be that of all of them."""
        signal, noise = self.coefficients(timesteps, noisy)
        dtype = self.network.stem.weight.dtype
        velocity: Tensor = self.network(noisy.to(dtype), timesteps).to(noisy.dtype)
        return torch.addcmul(signal * noisy, noise, velocity, value=-1)

    @classmethod
    def from_file(cls, path: Path, name: str = 'compact') -> CompactPrior:
        """
        Load weights that :func:`save` wrote.

        :raises PriorError: the file is missing, truncated, or not of this architecture.
        """
        try:
            with safe_open(path, framework='pt') as file:
                network = _described(file.metadata() or {}, path)
                names = list(file.keys())
                shapes = _shapes_of(network)
                # All of it is known before any of it takes memory.
                fits = len(names) == len(shapes) and shapes == {
                    name: tuple(file.get_slice(name).get_shape()) for name in names
                }
                state = {name: file.get_tensor(name).float() for name in names if fits}
        except (OSError, SafetensorError) as error:
            raise PriorError(f'denoiser {path} cannot be read as safetensors: {error}') from error
        reason = '' if fits else 'names or shapes of the weights belong to another network'
        if not all(value.isfinite().all() for value in state.values()):
            reason = 'weights are not finite'
        if reason:
            raise PriorError(f'denoiser {path} does not match its own description: {reason}')
        network = CompactUNet(network.config)
        network.load_state_dict(state)
        return cls(network, name)


def _described(metadata: dict[str, str], path: Path) -> CompactUNet:
    """
    Return the network that a file describes, without memory for its weights.

    :raises PriorError: it has another architecture.
    """
    if metadata.get('format') != FORMAT:
        raise PriorError(
            f'denoiser {path} has format {metadata.get("format")!r}, not {FORMAT!r}: use the '
            'embedded "compact" or a file from dig2dig train'
        )
    try:
        fields = json.loads(metadata['config'])
        fields.update({key: tuple(fields[key]) for key in ('widths', 'blocks')})
        with torch.device('meta'):
            return CompactUNet(CompactConfig(**fields))
    except (
        AttributeError,
        KeyError,
        TypeError,
        ValueError,
        RuntimeError,
        RecursionError,
    ) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise PriorError(
            f'denoiser {path} does not match its own description: {reason}'
        ) from error


def _shapes_of(network: CompactUNet) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in network.state_dict().items()}


def save(network: CompactUNet, path: Path, facts: dict[str, str]) -> None:
    """
    Write weights as float16 safetensors, with the configuration in the same file.

    :param facts: about the training (data, steps, ...), for readers.
    """
    metadata = {'format': FORMAT, 'config': json.dumps(asdict(network.config)), **facts}
    state = {
        key: value.detach().to('cpu', torch.float16).contiguous()
        for key, value in network.state_dict().items()
    }
    # Not save_file, which leaves a file that only its owner may read.
    path.write_bytes(serialize(state, metadata=metadata))
