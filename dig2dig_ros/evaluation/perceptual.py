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
Learned perceptual image patch similarity (LPIPS) with weights that the user provides.

Zhang, Isola, Efros, Shechtman and Wang, "The unreasonable effectiveness of deep features as a
perceptual metric", CVPR 2018, Eq. 1, in version 0.1 of the authors' implementation. The weights
are not shipped. Needed are the features of AlexNet or VGG16 as torchvision saves them
(``features.0.weight`` and so on) and the authors' linear heads for the same network
(``lin0.model.1.weight`` and so on; ``lpips/weights/v0.1/alex.pth`` or ``vgg.pth`` there), in two
files, or both in one, such as the saved state of the authors' ``lpips.LPIPS``. Published values
mostly are AlexNet's; those of the two networks are not comparable.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
import re
from typing import TYPE_CHECKING
import zipfile

from dig2dig_ros.evaluation.metrics import Array, checked_images, Luma

# Importing torch takes seconds, and only LPIPS needs it here.
if TYPE_CHECKING:
    import torch
    from torch import Tensor

# Mean and standard deviation of ImageNet's red, green and blue, on the scale -1 to 1.
_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)
# Values of features that are compared at once, which bounds the memory that this takes.
_BAND_VALUES = 2**22

# The state of the authors' whole network names features by slice and layer, and heads twice.
_FEATURE_KEY = re.compile(r'(?:features|net\.slice\d+)\.(\d+)\.(weight|bias)')
_HEAD_KEY = re.compile(r'(?:lin|lins\.)(\d+)\.model\.[01]\.weight')


class LpipsError(ValueError):
    """The weights cannot be used; the message says which file, and what is needed."""


@dataclass(frozen=True)
class _Convolution:
    """
    A convolution with a square kernel, followed by a rectifier.

    :param layer: its number in torchvision's ``features``.
    """

    layer: int
    outputs: int
    inputs: int
    kernel: int
    stride: int = 1
    padding: int = 1


@dataclass(frozen=True)
class _Network:
    """
    The convolutions of a network; LPIPS compares what each stage puts out.

    :param pool: side of the windows of the maximum pooling, whose stride is 2.
    :param pooled: how many stages begin with a pooling, from the second on.
    :param smallest_side: pixels of the smallest image that has features in every stage.
    """

    name: str
    pool: int
    pooled: int
    smallest_side: int
    stages: tuple[tuple[_Convolution, ...], ...]

    def shapes(self) -> dict[int, tuple[int, ...]]:
        """Return the shape of every weight by the number of its layer."""
        return {
            c.layer: (c.outputs, c.inputs, c.kernel, c.kernel)
            for stage in self.stages
            for c in stage
        }

    def channels(self) -> list[int]:
        """Return how many channels each stage puts out."""
        return [stage[-1].outputs for stage in self.stages]


_NETWORKS = (
    # Krizhevsky, "One weird trick for parallelizing convolutional neural networks", 2014.
    _Network(
        'AlexNet',
        pool=3,
        pooled=2,
        smallest_side=31,
        stages=(
            (_Convolution(0, 64, 3, 11, stride=4, padding=2),),
            (_Convolution(3, 192, 64, 5, padding=2),),
            (_Convolution(6, 384, 192, 3),),
            (_Convolution(8, 256, 384, 3),),
            (_Convolution(10, 256, 256, 3),),
        ),
    ),
    # Simonyan and Zisserman, "Very deep convolutional networks for large-scale image
    # recognition", ICLR 2015, configuration D.
    _Network(
        'VGG16',
        pool=2,
        pooled=4,
        smallest_side=16,
        stages=(
            (_Convolution(0, 64, 3, 3), _Convolution(2, 64, 64, 3)),
            (_Convolution(5, 128, 64, 3), _Convolution(7, 128, 128, 3)),
            (
                _Convolution(10, 256, 128, 3),
                _Convolution(12, 256, 256, 3),
                _Convolution(14, 256, 256, 3),
            ),
            (
                _Convolution(17, 512, 256, 3),
                _Convolution(19, 512, 512, 3),
                _Convolution(21, 512, 512, 3),
            ),
            (
                _Convolution(24, 512, 512, 3),
                _Convolution(26, 512, 512, 3),
                _Convolution(28, 512, 512, 3),
            ),
        ),
    ),
)


class Lpips:
    """
    The distance of images as people see it, by the features of a network; :func:`load_lpips`.

    0 for equal images, seldom above 1. It is computed in float32, without TF32, so that devices
    agree to about five digits.
    """

    def __init__(
        self,
        network: _Network,
        features: Mapping[int, tuple[Tensor, Tensor]],
        heads: Sequence[Tensor],
        device: torch.device,
    ) -> None:
        self._network = network
        self._features = {
            layer: (weight.to(device), bias.to(device))
            for layer, (weight, bias) in features.items()
        }
        self._heads = [head.to(device) for head in heads]
        self._device = device

    @property
    def network(self) -> str:
        """The name of the network, for captions: AlexNet or VGG16."""
        return self._network.name

    def __call__(self, image: Luma, *sources: Luma) -> float:
        """
        Return the mean over the sources of their distance to an image.

        Luma stands for red, green and blue, so that differences of colour do not count.
        With VGG16, a call takes up to about 1.3 KiB of memory per pixel for two sources; with
        AlexNet a tenth of that.

        :param image: (H, W) on the scale 0 to 255, at least 31 pixels a side (VGG16: 16).
        :param sources: one or more of the same size.
        :raises MetricError: an image has another shape, range or type, or is not finite.
        """
        import torch

        if not sources:
            raise TypeError('LPIPS needs at least one image to compare with')
        names = ['fused', *(f'source {index}' for index in range(1, len(sources) + 1))]
        images = checked_images(
            self._network.smallest_side, **dict(zip(names, (image, *sources), strict=True))
        )
        with (
            torch.inference_mode(),
            torch.backends.cudnn.flags(
                enabled=True, benchmark=False, deterministic=True, allow_tf32=False
            ),
        ):
            states = [self._input(values) for values in images]
            total = 0.0
            for index, head in enumerate(self._heads):
                # In place, so that no more than one image has two sets of features at a time.
                for number, state in enumerate(states):
                    states[number] = self._stage(index, state)
                for state in states[1:]:
                    total += _difference(states[0], state, head)
        return total / len(sources)

    def _input(self, image: Array) -> Tensor:
        """Return what the network takes, (1, 3, H, W)."""
        import torch

        grey = torch.from_numpy(image / 127.5 - 1.0).to(self._device, torch.float32)
        shift = torch.tensor(_SHIFT, device=self._device)[:, None, None]
        scale = torch.tensor(_SCALE, device=self._device)[:, None, None]
        return ((grey - shift) / scale)[None]

    def _stage(self, index: int, state: Tensor) -> Tensor:
        """Return the features of a stage, (1, C, H, W), from those of the stage before it."""
        import torch.nn.functional as F

        if 1 <= index <= self._network.pooled:
            state = F.max_pool2d(state, self._network.pool, stride=2)
        for convolution in self._network.stages[index]:
            weight, bias = self._features[convolution.layer]
            state = F.conv2d(state, weight, bias, convolution.stride, convolution.padding)
            state = state.relu_()
        return state


def _difference(a: Tensor, b: Tensor, head: Tensor) -> float:
    """
    Return the mean over the positions of the weighted squared difference of unit features.

    :param a: (1, C, H, W).
    :param b: same shape.
    :param head: (1, C, 1, 1), the weight of every channel.
    """
    _, channels, height, width = a.shape
    rows = max(1, _BAND_VALUES // (channels * width))
    total = 0.0
    for top in range(0, height, rows):
        difference = _unit(a[:, :, top : top + rows]) - _unit(b[:, :, top : top + rows])
        total += float((difference.square_() * head).sum(dim=1).double().sum())
    return total / (height * width)


def _unit(features: Tensor) -> Tensor:
    """Return features of length 1 at each position; where all are zero, they stay zero."""
    length = features.square().sum(dim=1, keepdim=True).sqrt_()
    return features / (length + 1e-10)


def load_lpips(paths: Sequence[Path | str], device: str = 'cpu') -> Lpips:
    """
    Read the weights of LPIPS.

    :param paths: one file with everything, or one of the features and one of the linear heads,
        in any order: ``.safetensors``, else files of PyTorch, from which no code is executed.
    :param device: auto, cpu, cuda or cuda:N.
    :raises LpipsError: a file cannot be read, or the files do not hold what is needed.
    :raises DeviceError: there is no such device.
    :raises ImportError: PyTorch is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            'the metric LPIPS needs PyTorch: install the extra "torch" of dig2dig, or pip '
            'install torch'
        ) from error
    from dig2dig_ros.fusion.device import resolve_device

    place = resolve_device(device)
    files = [Path(path) for path in paths]
    features: dict[int, dict[str, Tensor]] = {}
    heads: dict[int, Tensor] = {}
    origins: dict[str, Path] = {}
    for path in files:
        own_features, own_heads = _sort(_read_weights(path), path)
        for what, part in (('features', own_features), ('linear heads', own_heads)):
            if part and what in origins:
                raise LpipsError(
                    f'both {origins[what]} and {path} hold {what}: LPIPS needs the features of a '
                    'network and the linear heads for it, once each'
                )
            if part:
                origins[what] = path
        if not own_features and not own_heads:
            raise LpipsError(
                f'{path} holds neither features of AlexNet or VGG16 as torchvision saves them '
                '(features.0.weight, ...) nor linear heads of LPIPS (lin0.model.1.weight, ...)'
            )
        features |= own_features
        heads |= own_heads
    given = ' and '.join(str(path) for path in files) or 'no file'
    if not features:
        raise LpipsError(
            f'{given} holds no features: LPIPS also needs AlexNet or VGG16 as torchvision saves '
            'them (features.0.weight, ...)'
        )
    if not heads:
        raise LpipsError(
            f'{given} holds no linear heads: LPIPS also needs those of its authors, such as '
            'lpips/weights/v0.1/alex.pth (lin0.model.1.weight, ...)'
        )
    network = _recognised(features, origins['features'])
    _check_heads(network, heads, origins['linear heads'])

    # Copies: a file that is mapped into memory may change, or hold a classifier as well.
    def own(tensor: Tensor) -> Tensor:
        return tensor.to(torch.float32, copy=True)

    return Lpips(
        network,
        {layer: (own(part['weight']), own(part['bias'])) for layer, part in features.items()},
        [own(heads[index]) for index in range(len(heads))],
        place,
    )


def _sort(
    state: Mapping[str, Tensor], path: Path
) -> tuple[dict[int, dict[str, Tensor]], dict[int, Tensor]]:
    """
    Return the features by layer and by weight or bias, and the heads by stage.

    :raises LpipsError: one of them has values that are not finite.
    """
    features: dict[int, dict[str, Tensor]] = {}
    heads: dict[int, Tensor] = {}
    for key, tensor in state.items():
        feature, head = _FEATURE_KEY.fullmatch(key), _HEAD_KEY.fullmatch(key)
        if feature is not None:
            features.setdefault(int(feature[1]), {})[feature[2]] = tensor
        elif head is not None:
            heads[int(head[1])] = tensor
        else:
            continue
        if not tensor.is_floating_point() or not bool(tensor.isfinite().all()):
            raise LpipsError(f'{path}: {key} has values that are not finite real numbers')
    return features, heads


def _recognised(features: Mapping[int, Mapping[str, Tensor]], path: Path) -> _Network:
    """
    Return the network of which these are the features.

    :raises LpipsError: of none that LPIPS is made for.
    """
    for network in _NETWORKS:
        shapes = network.shapes()
        if features.keys() == shapes.keys() and all(
            part.keys() == {'weight', 'bias'}
            and part['weight'].shape == shapes[layer]
            and part['bias'].shape == shapes[layer][:1]
            for layer, part in features.items()
        ):
            return network
    raise LpipsError(
        f'the features in {path} are neither those of AlexNet nor of VGG16 (without batch '
        'normalisation) as torchvision saves them: other networks, or parts, cannot be used'
    )


def _check_heads(network: _Network, heads: Mapping[int, Tensor], path: Path) -> None:
    """
    Check that the heads were made for the features.

    :raises LpipsError: for another network, or for none.
    """

    def fit(other: _Network) -> bool:
        return heads.keys() == set(range(len(other.stages))) and all(
            heads[index].shape == (1, channels, 1, 1)
            for index, channels in enumerate(other.channels())
        )

    if fit(network):
        return
    others = [other.name for other in _NETWORKS if fit(other)]
    whose = f'for {others[0]}' if others else 'for neither AlexNet nor VGG16'
    raise LpipsError(
        f'the linear heads in {path} are {whose}, but the features are those of {network.name}: '
        'give the heads for it'
    )


def _read_weights(path: Path) -> dict[str, Tensor]:
    """
    Return the tensors of a file without executing anything from it.

    :raises LpipsError: it cannot be read, or holds something else.
    """
    import torch

    if not path.is_file():
        raise LpipsError(f'weights of LPIPS {path} cannot be read: there is no such file')
    try:
        if path.suffix == '.safetensors':
            return dict(_safetensors(path))
        # Only the newer format, a zip archive, can be mapped into memory.
        state = torch.load(
            path, map_location='cpu', weights_only=True, mmap=zipfile.is_zipfile(path)
        )
    except PermissionError as error:
        raise LpipsError(f'weights of LPIPS {path} cannot be read: permission denied') from error
    except Exception as error:  # a damaged file can fail in any way, also with an OSError
        raise LpipsError(
            f'weights of LPIPS {path} cannot be read: the file is damaged, of another format, or '
            'holds code, which is never executed'
        ) from error
    if not isinstance(state, dict) or not all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in state.items()
    ):
        raise LpipsError(
            f'weights of LPIPS {path} hold something other than named weights: save the state of '
            'the network (state_dict), not the network itself'
        )
    return state


def _safetensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    from safetensors import safe_open

    with safe_open(path, framework='pt') as file:
        for key in file.keys():  # noqa: SIM118
            yield key, file.get_tensor(key)
