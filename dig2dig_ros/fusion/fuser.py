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

"""Images in, fused image out: the one door to the fusion for nodes, tools and scripts."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field, fields
import time
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
import torch
from torch import Tensor
import torch.nn.functional as F

from dig2dig_ros.fusion.device import describe_device, resolve_device, resolve_precision
from dig2dig_ros.fusion.information_gain import (
    GAIN_LOSSES,
    GainLoss,
    information_gain,
    relative_gain,
    softmax_weights,
    uniform_weights,
)
from dig2dig_ros.fusion.sampler import sample, StepState
from dig2dig_ros.fusion.schedule import (
    reduced_timesteps,
    ReverseChain,
    TIMESTEP_SPACINGS,
    TimestepSpacing,
)
from dig2dig_ros.images.colour import luma, replace_luma
from dig2dig_ros.priors import load_prior, Prior

WeightRule = Literal['dig', 'uniform']
WEIGHT_RULES: tuple[WeightRule, ...] = ('dig', 'uniform')

# Resolutions whose noise stays in memory; a robot has one, a folder of images has many.
_KEPT_RESOLUTIONS = 4


class FusionInputError(ValueError):
    """The images cannot be fused; the message says which one, why, and what is expected."""


@dataclass(frozen=True)
class FusionSettings:
    """
    How to fuse. Every value is checked; the error names the setting, its value and the range.

    :param num_inference_steps: N, steps of the reverse chain.
    :param dig_refresh_interval: S, steps between two refreshes of the information gains.
    :param timestep_spacing: ``quadratic`` (larger steps at high noise) or ``uniform``.
    :param first_timestep: t_N, where the chain starts; 999 is pure noise.
    :param weights: ``dig`` (Eq. 11) or ``uniform`` (1/K, the static baseline).
    :param gain_loss: l of Eq. 8: ``l2``, ``l1`` or ``ssim`` (1 - SSIM).
    :param gain_window: side of the window that l averages over, odd, in pixels.
    :param normalize_gain: divide the gains by their local scale; false is Eq. 11 as printed.
    :param temperature: of the softmax over the sources; small is decisive, large is uniform.
    :param guidance_scale: strength of the sources against the prior, 0 to 1.
    :param seed: of the noise, which is drawn once for each resolution.
    """

    num_inference_steps: int = 6
    dig_refresh_interval: int = 3
    timestep_spacing: TimestepSpacing = 'quadratic'
    first_timestep: int = 400
    weights: WeightRule = 'dig'
    gain_loss: GainLoss = 'l2'
    gain_window: int = 7
    normalize_gain: bool = True
    temperature: float = 0.5
    guidance_scale: float = 0.9
    seed: int = 0

    def __post_init__(self) -> None:
        def require(condition: bool, name: str, expected: str) -> None:
            if not condition:
                raise ValueError(f'{name} is {getattr(self, name)!r}, but must be {expected}')

        require(1 <= self.num_inference_steps <= 1000, 'num_inference_steps', '1 to 1000')
        require(1 <= self.dig_refresh_interval <= 1000, 'dig_refresh_interval', '1 to 1000')
        require(
            self.timestep_spacing in TIMESTEP_SPACINGS,
            'timestep_spacing',
            f'one of {TIMESTEP_SPACINGS}',
        )
        require(
            self.num_inference_steps <= self.first_timestep <= 999,
            'first_timestep',
            f'{self.num_inference_steps} (num_inference_steps) to 999',
        )
        require(self.weights in WEIGHT_RULES, 'weights', f'one of {WEIGHT_RULES}')
        require(self.gain_loss in GAIN_LOSSES, 'gain_loss', f'one of {GAIN_LOSSES}')
        require(
            1 <= self.gain_window <= 99 and self.gain_window % 2 == 1,
            'gain_window',
            'odd, 1 to 99',
        )
        require(0 < self.temperature < float('inf'), 'temperature', 'positive and finite')
        require(0 <= self.guidance_scale <= 1, 'guidance_scale', '0 to 1')
        require(0 <= self.seed < 2**63, 'seed', '0 to 2^63 - 1')

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Return the names of all settings."""
        return tuple(item.name for item in fields(cls))

    def chain(self) -> ReverseChain:
        """Return the steps and refreshes that these settings ask for."""
        timesteps = reduced_timesteps(
            self.num_inference_steps, self.first_timestep, self.timestep_spacing
        )
        return ReverseChain(timesteps, self.dig_refresh_interval)


@dataclass(frozen=True)
class StepStatistics:
    """
    What one step of the chain did.

    :param timestep: t.
    :param prior_calls: images that went through the prior for this step, the estimates of the
        sources (all in the first step) included.
    :param mean_weights: mean over the image of each source's weight.
    :param seconds: on CUDA devices, time to enqueue the step, not to finish it.
    """

    timestep: int
    prior_calls: int
    mean_weights: tuple[float, ...]
    seconds: float


@dataclass(frozen=True)
class FusionStatistics:
    """
    What a fusion cost.

    :param steps: one entry a step, noisiest first.
    :param prior_calls: images that went through the prior.
    :param seconds: from the arrays to the arrays.
    """

    steps: tuple[StepStatistics, ...]
    prior_calls: int
    seconds: float


@dataclass(frozen=True)
class FusionResult:
    """
    A fused image and how it came about.

    :param image: uint8; (H, W, 3) with the chroma of a colour first source, else (H, W).
    :param weights: (K, H, W) float32, summing to 1 over the sources at every pixel: the mean
        over the refreshes, each counting as much as it gained there.
    """

    image: NDArray[np.uint8]
    weights: NDArray[np.float32]
    statistics: FusionStatistics


@dataclass
class _Recorder:
    """Collects step statistics without waiting for the device."""

    started: float = field(default_factory=time.perf_counter)
    rows: list[tuple[int, int, Tensor, float]] = field(default_factory=list)

    def __call__(self, state: StepState) -> None:
        now = time.perf_counter()
        means = state.weights.mean(dim=(1, 2, 3))
        self.rows.append((state.timestep, state.prior_calls, means, now - self.started))
        self.started = now

    def statistics(self) -> tuple[StepStatistics, ...]:
        return tuple(
            StepStatistics(timestep, calls, tuple(means.tolist()), seconds)
            for timestep, calls, means, seconds in self.rows
        )


class Fuser:
    """
    Fuses images of one scene; holds the prior on its device.

    Deterministic: the noise is a function of seed and resolution, so the same images with the
    same settings give the same bytes, and a static scene does not flicker. Not thread-safe:
    use it from one thread at a time.

    :param settings: how to fuse; may be replaced at any time between two calls.
    :param prior: name or path, see :func:`~dig2dig_ros.priors.load_prior`, or a loaded prior.
    :param device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    :param precision: of the prior: ``auto``, ``fp32``, ``bf16`` or ``fp16``. Everything else is
        computed in float32.
    :raises DeviceError: the device or precision is not available.
    :raises PriorError: the prior cannot be loaded.
    """

    def __init__(
        self,
        settings: FusionSettings | None = None,
        *,
        prior: str | Prior = 'compact',
        device: str = 'auto',
        precision: str = 'auto',
    ) -> None:
        self.settings = settings or FusionSettings()
        self.device = resolve_device(device)
        self.dtype = resolve_precision(precision, self.device)
        loaded = load_prior(prior) if isinstance(prior, str) else prior
        self.prior = loaded.to(self.device, self.dtype)
        self._noise: OrderedDict[tuple[int, int, int], Tensor] = OrderedDict()

    def describe(self) -> dict[str, Any]:
        """Return what a log or a report should say about this fuser."""
        return {
            'device': describe_device(self.device),
            'precision': str(self.dtype).removeprefix('torch.'),
            'prior': self.prior.name,
            'N': self.settings.num_inference_steps,
            'S': self.settings.dig_refresh_interval,
            'torch': torch.__version__,
        }

    def warm_up(self, width: int, height: int) -> float:
        """
        Fuse one synthetic pair, so that the first real one does not pay for the set-up.

        :return: seconds it took.
        """
        rows, columns = np.mgrid[:height, :width]
        pattern = ((rows + columns) % 256).astype(np.uint8)
        start = time.perf_counter()
        self.fuse(pattern, pattern[::-1])
        return time.perf_counter() - start

    def fuse(
        self, visible: NDArray[Any], thermal: NDArray[Any], *others: NDArray[Any]
    ) -> FusionResult:
        """
        Fuse a visible image with a thermal one (and any further sources).

        Sources of another size than the first are resized to it.

        :param visible: (H, W) or (H, W, 3) blue-green-red; uint8, uint16 (full range) or float
            in [0, 1]. Its chroma is kept.
        :param thermal: likewise; of a colour image, the luma is taken.
        :return: see :class:`FusionResult`.
        :raises FusionInputError: wrong shape, dtype or values.
        """
        start = time.perf_counter()
        settings = self.settings
        images = [
            self._upload(array, self._source_name(index))
            for index, array in enumerate((visible, thermal, *others))
        ]
        height, width = images[0].shape[-2:]
        sources = torch.stack([self._luma(image, height, width) for image in images])
        recorder = _Recorder()
        result = sample(
            self.prior,
            sources * 2 - 1,
            self._noise_for(height, width, settings.seed),
            settings.chain(),
            self._gain,
            self._weigh,
            settings.guidance_scale,
            recorder,
        )
        fused = ((result.fused[0, 0] + 1) / 2).clamp(0, 1)
        colour = images[0]
        output = replace_luma(colour, fused).permute(1, 2, 0) if len(colour) == 3 else fused
        image = (output * 255).round_().to(torch.uint8).cpu().numpy()
        weights = _mean_weights(result.weights, result.gains).cpu().numpy()
        seconds = time.perf_counter() - start
        statistics = FusionStatistics(recorder.statistics(), result.prior_calls, seconds)
        return FusionResult(image, weights, statistics)

    def _gain(self, estimates: Tensor, sources: Tensor) -> Tensor:
        return information_gain(
            estimates, sources, self.settings.gain_loss, self.settings.gain_window
        )

    def _weigh(self, gain: Tensor) -> Tensor:
        if self.settings.weights == 'uniform':
            return uniform_weights(gain)
        if self.settings.normalize_gain:
            gain = relative_gain(gain)
        return softmax_weights(gain, self.settings.temperature)

    @staticmethod
    def _source_name(index: int) -> str:
        return ('visible', 'thermal')[index] if index < 2 else f'source {index + 1}'

    def _upload(self, array: NDArray[Any], name: str) -> Tensor:
        """Return a (1 or 3, H, W) float32 tensor in [0, 1] on the device."""
        array = np.asarray(array)
        channels = 1 if array.ndim == 2 else array.shape[2] if array.ndim == 3 else 0
        if channels not in (1, 3) or 0 in array.shape:
            raise FusionInputError(
                f'{name} has shape {array.shape}: expected (H, W) or (H, W, 3) and no empty side'
            )
        full_scale = {'uint8': 255.0, 'uint16': 65535.0}.get(array.dtype.name)
        if full_scale is None and not np.issubdtype(array.dtype, np.floating):
            raise FusionInputError(
                f'{name} has dtype {array.dtype}: expected uint8, uint16 or float in [0, 1]'
            )
        if array.dtype == np.uint16:
            # Few torch operations know uint16, and none of them on older versions.
            array = array.astype(np.float32)
        # Flipped and swapped views have negative strides, which torch cannot hold.
        tensor = torch.from_numpy(np.ascontiguousarray(array)).to(self.device).float()
        if full_scale is not None:
            tensor = tensor / full_scale
        else:
            low, high = tensor.aminmax()
            if not (low >= 0 and high <= 1):  # also when either is NaN
                raise FusionInputError(
                    f'{name} has values from {low.item():g} to {high.item():g}: floats must be '
                    'finite and in [0, 1]'
                )
        return tensor[None] if tensor.ndim == 2 else tensor.permute(2, 0, 1)

    @staticmethod
    def _luma(image: Tensor, height: int, width: int) -> Tensor:
        """Return the (1, H, W) luma of an uploaded image, resized to the first source."""
        grey = luma(image)[None] if len(image) == 3 else image
        if grey.shape[-2:] == (height, width):
            return grey
        return F.interpolate(
            grey[None], (height, width), mode='bilinear', align_corners=False, antialias=True
        )[0]

    def _noise_for(self, height: int, width: int, seed: int) -> Tensor:
        key = (height, width, seed)
        if key not in self._noise:
            # Drawn on the CPU, so that all devices see the same noise.
            generator = torch.Generator().manual_seed(seed)
            noise = torch.randn((1, 1, height, width), generator=generator)
            self._noise[key] = noise.to(self.device)
            if len(self._noise) > _KEPT_RESOLUTIONS:
                self._noise.popitem(last=False)
        self._noise.move_to_end(key)
        return self._noise[key]


def _mean_weights(weights: Tensor, gains: Tensor) -> Tensor:
    """
    Average the weights over the refreshes, each counting as much as it gained at the pixel.

    :param weights: (R, K, 1, H, W).
    :param gains: (R, K, 1, H, W).
    :return: (K, H, W), summing to 1 over the sources.
    """
    importance = gains.abs().sum(dim=1, keepdim=True) + torch.finfo(gains.dtype).eps
    share = importance / importance.sum(dim=0, keepdim=True)
    return (share * weights).sum(dim=0)[:, 0]
