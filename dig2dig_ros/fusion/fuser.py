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
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
import time
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray
import torch
from torch import Tensor
import torch.nn.functional as F

from dig2dig_ros.fusion.confidence import confident_sources, confident_weights
from dig2dig_ros.fusion.degradation import Degradation
from dig2dig_ros.fusion.device import describe_device, resolve_device, resolve_precision
from dig2dig_ros.fusion.observation import fitting_size, Observation, observe
from dig2dig_ros.fusion.restoration import explained, observe_luma, restore, restore_colour
from dig2dig_ros.fusion.sampler import sample, StepState
from dig2dig_ros.fusion.settings import FusionSettings
from dig2dig_ros.images.colour import luma, mixed_chroma, replace_luma
from dig2dig_ros.images.placement import Placement
from dig2dig_ros.priors import load_prior, Prior

__all__ = ['Fuser', 'FusionInputError', 'FusionResult', 'FusionSettings', 'FusionStatistics']

# Noise that stays in memory: 128 MB in float32, a hundred draws at 640x512.
_KEPT_NOISE_PIXELS = 32_000_000


class FusionInputError(ValueError):
    """The images cannot be fused; the message says which one, why, and what is expected."""


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

    :param steps: one entry a step, noisiest first; none where only one source is to be relied on.
    :param prior_calls: images that went through the prior, to restore sources and to fuse them.
    :param seconds: from the arrays to the arrays.
    """

    steps: tuple[StepStatistics, ...]
    prior_calls: int
    seconds: float


@dataclass(frozen=True)
class FusionResult:
    """
    A fused image and how it came about.

    :param image: uint8; (H, W, 3) with the chroma of the sources that the settings name, where
        one of them has colour, else (H, W).
    :param weights: (K, H, W) float32, summing to 1 over the sources at every pixel: the mean
        over the intervals between refreshes, each counting as much as it gained there.
    """

    image: NDArray[np.uint8]
    weights: NDArray[np.float32]
    statistics: FusionStatistics


@dataclass
class _Recorder:
    """Collects step statistics without waiting for the device."""

    callback: Callable[[StepState], None] | None = None
    started: float = field(default_factory=time.perf_counter)
    rows: list[tuple[int, int, Tensor, float]] = field(default_factory=list)

    def __call__(self, state: StepState) -> None:
        if self.callback is not None:
            self.callback(state)
        now = time.perf_counter()
        means = state.weights.mean(dim=(1, 2, 3))
        self.rows.append((state.timestep, state.prior_calls, means, now - self.started))
        self.started = now

    def statistics(self) -> tuple[StepStatistics, ...]:
        return tuple(
            StepStatistics(timestep, calls, tuple(means.tolist()), seconds)
            for timestep, calls, means, seconds in self.rows
        )


@dataclass(frozen=True)
class _PlacementOnDevice:
    """
    A placement as the device wants it.

    :param step: parts of the source's width and height from one pixel of the first source to the
        next.
    """

    grid: Tensor
    coverage: Tensor
    step: tuple[float, float]


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
        self._noise: OrderedDict[tuple[int, int, int, int], Tensor] = OrderedDict()
        self._placed: WeakKeyDictionary[Placement, _PlacementOnDevice] = WeakKeyDictionary()

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

    def memory(self) -> dict[str, str]:
        """Return the device memory in use as texts; empty on the CPU."""
        if self.device.type != 'cuda':
            return {}
        free, total = torch.cuda.mem_get_info(self.device)
        own = torch.cuda.memory_reserved(self.device)
        return {
            'GPU memory of this process (MiB)': f'{own / 2**20:.0f}',
            'GPU memory free (MiB)': f'{free / 2**20:.0f} of {total / 2**20:.0f}',
        }

    def close(self) -> None:
        """Give the device memory back; the fuser cannot be used afterwards."""
        self._noise.clear()
        del self.prior
        if self.device.type == 'cuda':
            torch.cuda.empty_cache()

    def warm_up(self, width: int, height: int, sources: int = 2) -> float:
        """
        Fuse synthetic images, so that the first real ones do not pay for the set-up.

        :param sources: K.
        :return: seconds it took.
        """
        images = []
        for index, degradation in enumerate(self.settings.degradations(sources)):
            # As small as a camera is of which so many pixels are to be made.
            small = [max(1, round(side / degradation.factor)) for side in (height, width)]
            # A mask or noise auto may be of images of another size than the warm-up's.
            rows, columns = np.indices(fitting_size(degradation, (small[0], small[1])))
            pattern = ((rows + columns) % 256).astype(np.uint8)
            images.append(pattern[::-1] if index == 1 else pattern)
        start = time.perf_counter()
        self.fuse(*images)
        return time.perf_counter() - start

    def fuse(
        self,
        visible: NDArray[Any],
        thermal: NDArray[Any],
        *others: NDArray[Any],
        placements: Sequence[Placement | None] = (),
        trust: Sequence[float] = (),
        callback: Callable[[StepState], None] | None = None,
    ) -> FusionResult:
        """
        Fuse a visible image with a thermal one, or any two or more images of one scene.

        Sources whose degradation the settings declare are restored in their own pixels. Then
        those of another size than the first are resized to it, or warped as their placement says.

        :param visible: (H, W) or (H, W, 3) blue-green-red; uint8, uint16 (full range) or float
            in [0, 1]. Whose chroma the fused image has is a setting (``chroma``).
        :param thermal: likewise, as all ``others``.
        :param placements: for each source in turn, where the pixels of the first one lie in it;
            None, and for those left out, where the whole image covers the first one.
        :param trust: for each source in turn, how far it is to be relied on, 0 to 1; 1 for those
            left out. A source at 0 has weight 0.
        :param callback: called after every step of the sampler, to look inside.
        :return: see :class:`FusionResult`.
        :raises FusionInputError: wrong shape, dtype or values, or a placement for another size.
        :raises DegradationError: a declared degradation cannot be that of the image.
        :raises PriorError: the prior was not trained for the timesteps of the settings.
        """
        start = time.perf_counter()
        settings = self.settings
        arrays = (visible, thermal, *others)
        placements = _completed(placements, None, len(arrays), 'placements')
        trusts = _completed(trust, 1.0, len(arrays), 'trust')
        if not all(0 <= value <= 1 for value in trusts):
            raise FusionInputError(f'trust is {tuple(trusts)}: every value must be 0 to 1')
        images = [
            self._upload(array, self._source_name(index)) for index, array in enumerate(arrays)
        ]
        degradations = settings.degradations(len(images))
        observations: list[Observation | None] = [None] * len(images)
        calls = 0
        for index, degradation in enumerate(degradations):
            if not degradation.is_none:
                images[index], observations[index], new = self._restored(
                    images[index], degradation
                )
                calls += new
        height, width = images[0].shape[-2:]
        for index, placement in enumerate(placements):
            if placement is None and images[index].shape[-2:] == (height, width):
                continue
            images[index] = (
                _resized(images[index], height, width)
                if placement is None
                else self._warped(images[index], arrays[index], placement, height, width, index)
            )
            observations[index] = None  # of other pixels
        sources = greys = torch.stack([_grey(image) for image in images])
        confidence = self._confidence(sources, placements, trusts)
        relied = [index for index, value in enumerate(trusts) if value > 0]
        if confidence is not None and len(relied) == 1:
            # Nobody fills in for what the only source lacks: it is black.
            (only,) = relied
            sources = sources * confidence[only] / trusts[only]
            confidence = None
        if confidence is not None:
            sources = confident_sources(sources, confidence)
            observations = [None] * len(images)
        recorder = _Recorder(callback)

        def noise(index: int) -> Tensor:
            return self._noise_for(height, width, settings.seed, index)

        if len(relied) == 1:
            fused = sources[relied[0], 0].clamp(0, 1)
            weights = F.one_hot(torch.tensor(relied), len(images)).to(sources)
            weights = weights.reshape(-1, 1, 1, 1).expand(sources.shape)
        else:
            result = sample(self.prior, sources * 2 - 1, noise, settings, recorder, observations)
            fused = ((result.fused[0, 0] + 1) / 2).clamp_(0, 1)
            weights = result.mean_weights
            calls += result.prior_calls
        if confidence is not None:
            weights = confident_weights(weights[None], confidence)[0]
        weights = weights[:, 0]
        coloured = images if settings.chroma == 'all' else images[:1]
        coloured = [image if len(image) == 3 else image.expand(3, -1, -1) for image in coloured]
        if any(len(image) == 3 for image in images[: len(coloured)]):
            colour = mixed_chroma(coloured, weights)
            old_luma = greys[0, 0] if colour is images[0] else None
            output = replace_luma(colour, fused, old_luma).permute(1, 2, 0)
        else:
            output = fused
        image = output.mul_(255).round_().to(torch.uint8).cpu().numpy()
        seconds = time.perf_counter() - start
        statistics = FusionStatistics(recorder.statistics(), calls, seconds)
        return FusionResult(image, weights.cpu().numpy(), statistics)

    def _restored(
        self, image: Tensor, degradation: Degradation
    ) -> tuple[Tensor, Observation | None, int]:
        """
        Undo a declared degradation in the camera's own pixels.

        :return: the image, (1 or 3, H, W); what was observed of its luma, if a chain is to keep
            to it; the images that went through the prior.
        """
        settings = self.settings
        if len(image) == 3:
            restored, calls = restore_colour(
                self.prior, image, degradation, settings.restoration_steps
            )
        else:
            observation = observe(degradation, image[None] * 2 - 1)
            scene, calls = restore(self.prior, observation, settings.restoration_steps)
            restored = ((scene[0] + 1) / 2).clamp(0, 1)
        if settings.sampler == 'increments':
            return restored, None, calls
        if len(image) == 3:
            observation = observe_luma(degradation, image)
        return restored, explained(observation, _grey(restored)[None] * 2 - 1), calls

    def _warped(
        self,
        image: Tensor,
        array: NDArray[Any],
        placement: Placement,
        height: int,
        width: int,
        index: int,
    ) -> Tensor:
        """Return an uploaded image (C, H, W) on the pixels of the first source."""
        name = self._source_name(index)
        size = (array.shape[1], array.shape[0])
        if placement.source_size != size or placement.grid.shape[:2] != (height, width):
            rows, columns = placement.grid.shape[:2]
            raise FusionInputError(
                f'the placement of {name} is for {placement.source_size[0]}x'
                f'{placement.source_size[1]} pixels on {columns}x{rows}, but the image has '
                f'{size[0]}x{size[1]} and the first one {width}x{height}'
            )
        on_device = self._on_device(placement)
        # Less than about one pixel of the image to a pixel of the first, or it would alias.
        step_x, step_y = (on_device.step[axis] * image.shape[-1 - axis] for axis in (0, 1))
        if max(step_x, step_y) > 1.5:
            smaller = (
                max(1, round(image.shape[-2] / max(1.0, step_y))),
                max(1, round(image.shape[-1] / max(1.0, step_x))),
            )
            image = _resized(image, *smaller)
        warped = F.grid_sample(
            image[None],
            on_device.grid[None],
            mode='bicubic',
            padding_mode='border',
            align_corners=False,
        )
        return warped[0].clamp(0, 1)

    def _on_device(self, placement: Placement) -> _PlacementOnDevice:
        if placement not in self._placed:
            self._placed[placement] = _PlacementOnDevice(
                torch.tensor(placement.grid, device=self.device),
                torch.tensor(placement.coverage, device=self.device),
                (_typical_step(placement, 0), _typical_step(placement, 1)),
            )
        return self._placed[placement]

    def _confidence(
        self, sources: Tensor, placements: Sequence[Placement | None], trusts: Sequence[float]
    ) -> Tensor | None:
        """Return (K, 1, H, W), or None where all sources are good everywhere."""
        if all(placement is None for placement in placements) and all(t == 1 for t in trusts):
            return None
        planes = [
            torch.full_like(sources[0], trust)
            if placement is None
            else trust * self._on_device(placement).coverage[None]
            for placement, trust in zip(placements, trusts, strict=True)
        ]
        return torch.stack(planes)

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
        if not array.flags.writeable or not array.flags.c_contiguous:
            # Torch holds neither read-only memory nor the negative strides of a flipped view.
            array = array.copy()
        tensor = torch.from_numpy(array).to(self.device).float()
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

    def _noise_for(self, height: int, width: int, seed: int, index: int) -> Tensor:
        """Return the ``index``-th draw of the noise of this resolution and seed."""
        key = (height, width, seed, index)
        if key not in self._noise:
            # Drawn on the CPU, so that all devices see the same noise.
            generator = torch.Generator().manual_seed((seed + (index << 32)) % 2**63)
            noise = torch.randn((1, 1, height, width), generator=generator)
            self._noise[key] = noise.to(self.device)
            kept = sum(draw.numel() for draw in self._noise.values())
            while kept > _KEPT_NOISE_PIXELS and len(self._noise) > 1:
                kept -= self._noise.popitem(last=False)[1].numel()
        self._noise.move_to_end(key)
        return self._noise[key]


def _typical_step(placement: Placement, axis: int) -> float:
    """
    Return the median step along an axis of the image, 0 for x, as a part of its side.

    That is from a pixel to the next of its row and of its column together: where the camera is
    mounted turned, its x runs along columns.
    """
    position, coverage = placement.grid[..., axis], placement.coverage
    steps = np.hypot(np.diff(position, axis=1)[:-1], np.diff(position, axis=0)[:, :-1]) / 2
    reached = np.minimum(coverage[:-1, :-1], np.minimum(coverage[:-1, 1:], coverage[1:, :-1])) > 0
    return float(np.median(steps[reached])) if reached.any() else 0.0


def _completed(values: Sequence[Any], default: Any, count: int, name: str) -> list[Any]:
    """Return one value for each source."""
    if len(values) > count:
        raise FusionInputError(f'{len(values)} {name} for {count} sources: give one for each')
    return [*values, *[default] * (count - len(values))]


def _resized(image: Tensor, height: int, width: int) -> Tensor:
    """Return an uploaded image (C, H, W) in the size of the first source."""
    if image.shape[-2:] == (height, width):
        return image
    return F.interpolate(
        image[None], (height, width), mode='bilinear', align_corners=False, antialias=True
    )[0]


def _grey(image: Tensor) -> Tensor:
    """Return the (1, H, W) luma of an uploaded image."""
    return luma(image)[None] if len(image) == 3 else image
