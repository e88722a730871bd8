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
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
import time
from typing import Any
from weakref import WeakKeyDictionary

import cv2
import numpy as np
from numpy.typing import NDArray
import torch
from torch import Tensor

from dig2dig_ros.fusion.degradation import Degradation
from dig2dig_ros.fusion.denoising import LUMA_NOISE, NEGLIGIBLE_NOISE
from dig2dig_ros.fusion.device import (
    describe_device,
    give_back_freed_memory,
    is_lost,
    keep_freed_memory,
    resolve_device,
    resolve_precision,
    use_exact_float32,
)
from dig2dig_ros.fusion.device_fusion import fuse_pair, Fused, SourceTask, Task
from dig2dig_ros.fusion.estimates import FusionCancelled
from dig2dig_ros.fusion.graphs import Input, Replayer, RUNS_BEFORE
from dig2dig_ros.fusion.observation import fitting_size, forget_operators
from dig2dig_ros.fusion.sampler import StepState
from dig2dig_ros.fusion.settings import FusionSettings
from dig2dig_ros.images.camera_noise import CameraNoise
from dig2dig_ros.images.contrast import stretched
from dig2dig_ros.images.no_data import filled, placement_of_data
from dig2dig_ros.images.placement import Placement
from dig2dig_ros.images.sensor_noise import measure_noise, SensorNoise
from dig2dig_ros.images.stripes import Stripes, without_stripes
from dig2dig_ros.images.thermal_range import ThermalRange, ThermalRangeError
from dig2dig_ros.priors import load_prior, Prior, PriorError

__all__ = [
    'Fuser',
    'FusionCancelled',
    'FusionInputError',
    'FusionResult',
    'FusionSettings',
    'NotFiniteError',
]

# Noise that stays in memory: 128 MB in float32, a hundred draws at 640x512.
_KEPT_NOISE_PIXELS = 32_000_000
# Deviation up to which noise is left alone, in grey levels of 255.
_QUIET = 255 * NEGLIGIBLE_NOISE
# Chains of more steps are not recorded: that would take as long as many pairs.
_MOST_RECORDED_STEPS = 50


class NotFiniteError(ValueError):
    """A fusion came to no numbers; the message says what may be the cause."""


class FusionInputError(ValueError):
    """The images cannot be fused; the message says which one, why, and what is expected."""


@dataclass(frozen=True)
class FusionResult:
    """
    A fused image and how it came about.

    :param image: uint8; (H, W, 3) where a source that the chroma is taken of has colour, else
        (H, W).
    :param weights: (K, H, W) float32, summing to 1 over the sources: the mean over the intervals
        between refreshes, each counting as much as it gained at the pixel. Where they were not
        asked for, (0, H, W).
    :param contributions: likewise, how much of what the fused image shows at the pixel came from
        each source: the weights times the contrast that they weigh. For pictures.
    :param prior_calls: images that went through the prior, to restore sources and to fuse them.
    :param seconds: from the arrays to the arrays.
    :param restored: where they were asked for, the sources as they were fused: restored, on the
        pixels of the first one, (H, W) or (H, W, 3) uint8. Beyond what a source reaches it is
        black, with the soft edge of its placement; trust changes nothing. Otherwise empty.
    :param slowed: why it took longer than it should, in a sentence; empty where it did not.
    """

    image: NDArray[np.uint8]
    weights: NDArray[np.float32]
    contributions: NDArray[np.float32]
    prior_calls: int
    seconds: float
    restored: tuple[NDArray[np.uint8], ...] = ()
    slowed: str = ''


@dataclass(frozen=True)
class _Source:
    """A source to fuse, checked; pixels of uint8, uint16 or float32."""

    pixels: NDArray[Any]
    full_scale: float
    placement: Placement | None
    trust: float
    noise: CameraNoise = field(default_factory=CameraNoise)


class Fuser:
    """
    Fuses images of one scene; holds the prior on its device.

    Deterministic: the noise is a function of seed and resolution, so the same images with the
    same settings give the same bytes. Not thread-safe: use it from one thread at a time.

    :param settings: how to fuse where a call does not say it.
    :param prior: name or path, see :func:`~dig2dig_ros.priors.load_prior`, or a loaded prior.
    :param device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    :param precision: of the prior: ``auto``, ``fp32``, ``bf16`` or ``fp16``; all else is float32.
    :param graphs: record what comes again and again as CUDA graphs; default: on CUDA devices. The
        CPU then goes the same way, and gains nothing.
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
        graphs: bool | None = None,
    ) -> None:
        self._settings = settings or FusionSettings()
        self.device = resolve_device(device)
        self.dtype = resolve_precision(precision, self.device)
        self.prior = self._load(prior)
        if self.dtype == torch.float16 and not _stays_finite(self.prior, self.device):
            if precision != 'auto':
                raise PriorError(
                    f"prior '{self.prior.name}' leaves the range of fp16: set precision to bf16 "
                    'or fp32'
                )
            self.dtype = torch.float32
            self.prior = self._load(prior)  # not the same again: that has been rounded
        self._noise: OrderedDict[tuple[int, int, int, int], Tensor] = OrderedDict()
        self._placed: WeakKeyDictionary[Placement, tuple[Tensor, Tensor]] = WeakKeyDictionary()
        on_gpu = self.device.type == 'cuda'
        self._replayer: Replayer[Fused] | None = None
        if on_gpu or graphs:
            self._replayer = Replayer(self.device, record=on_gpu if graphs is None else graphs)
        if on_gpu:
            # Some of its ways to the same sum add in any order.
            torch.backends.cudnn.deterministic = True
            use_exact_float32()
            # The prior is used on another stream than the one that brought it here.
            torch.cuda.synchronize(self.device)
        else:
            keep_freed_memory()

    def _load(self, prior: str | Prior) -> Prior:
        loaded = load_prior(prior) if isinstance(prior, str) else prior
        return loaded.to(self.device, self.dtype)

    @property
    def settings(self) -> FusionSettings:
        """Return how this fuser fuses where a call does not say it."""
        return self._settings

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
            # What recordings hold is among it.
            'GPU memory of this process (MiB)': f'{own / 2**20:.0f}',
            'GPU memory free (MiB)': f'{free / 2**20:.0f} of {total / 2**20:.0f}',
            'CUDA graphs': str(self.recorded),
        }

    @property
    def recorded(self) -> int:
        """How many computations are replayed: on CUDA devices, as graphs."""
        return 0 if self._replayer is None else self._replayer.recorded

    def is_lost(self, reason: str) -> bool:
        """Return whether an error has ended all use of the device in this process."""
        return is_lost(self.device, reason)

    def close(self) -> None:
        """Give the device memory back; the fuser cannot be used afterwards."""
        self.free_memory()
        self._placed.clear()
        del self.prior
        if self.device.type == 'cuda':
            torch.cuda.empty_cache()

    def free_memory(self) -> None:
        """Give back what is kept from pair to pair but the prior."""
        self._noise.clear()
        forget_operators()
        if self._replayer is not None:
            self._replayer.clear()
        if self.device.type == 'cuda':
            torch.cuda.empty_cache()
        else:
            give_back_freed_memory()

    def warm_up(self, width: int, height: int, sources: int = 2) -> float:
        """
        Fuse synthetic images, so that the first real ones do not pay for the set-up.

        :param sources: K.
        :return: seconds it took.
        """
        images = []
        for index, degradation in enumerate(self.settings.degradations(sources)):
            # The camera's own size, which restoration enlarges to the one asked for.
            small = [max(1, round(side / degradation.factor)) for side in (height, width)]
            # Motion and noise auto need images of some size.
            rows, columns = np.indices(fitting_size(degradation, (small[0], small[1])))
            pattern = ((rows + columns) % 256).astype(np.uint8)
            # As from a robot's cameras: colours, and counts that were mapped to 0 to 1.
            images.append(
                pattern[::-1] / np.float32(255) if index else np.stack([pattern] * 3, axis=-1)
            )
        start = time.perf_counter()
        if self._replayer is None:
            self.fuse(*images)
        else:  # recorded as well
            for weights in (True, False):
                for _ in range(RUNS_BEFORE + 1):
                    self.fuse(*images, weights=weights)
        return time.perf_counter() - start

    @torch.inference_mode()
    def fuse(
        self,
        visible: NDArray[Any],
        thermal: NDArray[Any],
        *others: NDArray[Any],
        settings: FusionSettings | None = None,
        placements: Sequence[Placement | None] = (),
        trust: Sequence[float] = (),
        weights: bool = True,
        restored: bool = False,
        noise: Sequence[SensorNoise | None] = (),
        ranges: Sequence[ThermalRange | None] = (),
        stamp: float | None = None,
        callback: Callable[[StepState], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> FusionResult:
        """
        Fuse a visible image with a thermal one, or any two or more images of one scene.

        Sources are restored in their own pixels, as the settings declare their degradation. Then
        those of another size than the first are resized to it, or warped as their placement says.

        :param visible: (H, W) or (H, W, 3) blue-green-red; uint8, uint16 (full range) or float
            in [0, 1].
        :param thermal: likewise; but grey images of 16 bits, of other integers, or of floats
            beyond [0, 1] are a thermal camera's counts or temperatures: they are mapped by its
            range, with no weight where they hold no data. So are ``others``. Divide a grey
            photograph of 16 bits by 65535.
        :param settings: how to fuse; default: as the fuser was made.
        :param placements: for each source in turn, where the pixels of the first one lie in it;
            None, and for those left out, where the whole image covers the first one.
        :param trust: 0 to 1 for each source in turn, 1 for those left out; 0 is no weight.
        :param weights: whether weights and contributions are wanted; without them it is faster.
        :param restored: whether the restored sources are wanted, as above.
        :param noise: for each source in turn, what is known of its noise from the images before;
            None, and for those left out, it is measured in this one. Of what the settings do not
            declare as ``auto``, nothing is taken.
        :param ranges: for each source in turn, what maps its counts, to be kept for the next
            images of its camera; None, and for those left out, counts are stretched as in the
            node, each image for itself.
        :param stamp: time of the images in s, which ranges that follow the scene need. Without it
            they start again with each call.
        :param callback: called after every step of the sampler, to look inside.
        :param cancelled: asked before every call of the prior whether to give up.
        :raises FusionCancelled: ``cancelled`` said so.
        :raises FusionInputError: wrong shape, dtype or values, or a placement for another size.
        :raises DegradationError: a declared degradation cannot be that of the image.
        :raises NotFiniteError: there is a NaN or an infinity in what came out.
        :raises PriorError: the prior was not trained for the timesteps of the settings.
        """
        start = time.perf_counter()
        settings = settings or self._settings
        arrays, placements = _mapped((visible, thermal, *others), placements, ranges, stamp)
        sources = _checked_sources(arrays, placements, trust)
        sources = _measured_sources(sources, settings.degradations(len(sources)), noise)
        with nullcontext() if self._replayer is None else self._replayer.stream():
            task = self._task(sources, settings, weights, restored)
            fused = self._run(task, sources, callback, cancelled)
            results = self._arrays(fused)
        # Downloaded with the rest: nothing has waited for it.
        if not np.isfinite(results['finite']).all():
            raise NotFiniteError(
                f"the result is not finite: the prior '{self.prior.name}' may be damaged, or of "
                f'numbers too large for {str(self.dtype).removeprefix("torch.")}; use another '
                'prior, or precision fp32'
            )
        image = results['image']
        nothing = np.empty((0, *image.shape[:2]), np.float32)
        own = [results[f'restored {index}'] for index in range(len(sources))] if restored else []
        seconds = time.perf_counter() - start
        slowed = '' if self._replayer is None else self._replayer.problem
        return FusionResult(
            image,
            results.get('weights', nothing),
            results.get('contributions', nothing),
            fused.prior_calls,
            seconds,
            tuple(own),
            slowed,
        )

    def _task(
        self, sources: Sequence[_Source], settings: FusionSettings, weights: bool, restored: bool
    ) -> Task:
        tasks = []
        for source, degradation in zip(sources, settings.degradations(len(sources)), strict=True):
            placement, shrunk = source.placement, None
            if placement is not None:
                shrunk = placement.reduced_size(*degradation.scene_size(*source.pixels.shape[:2]))
            # What is recorded takes out as much noise as there is, so that one graph does for all.
            is_noisy = (
                degradation.noise != 0 if self._replayer else source.noise.deviation > _QUIET
            )
            is_noisy = is_noisy and degradation.is_only_noise and source.trust > 0
            is_placed, is_trusted = placement is not None, source.trust > 0
            tasks.append(SourceTask(source.full_scale, is_placed, shrunk, is_trusted, is_noisy))
        full_trust = all(source.trust == 1 for source in sources)
        return Task(settings, tuple(tasks), full_trust, weights, restored)

    def _run(
        self,
        task: Task,
        sources: Sequence[_Source],
        callback: Callable[[StepState], None] | None,
        cancelled: Callable[[], bool] | None,
    ) -> Fused:
        height, width = sources[0].pixels.shape[:2]

        def noise(index: int) -> Tensor:
            return self._noise_for(height, width, task.settings.seed, index)

        def compute(tensors: Mapping[str, Tensor], recording: bool) -> Fused:
            ask = None if recording else cancelled
            return fuse_pair(self.prior, task, tensors, noise, callback, ask)

        inputs = self._inputs(sources, task)
        if self._replayer is None:
            return compute({name: given.tensor for name, given in inputs.items()}, False)
        recordable = callback is None and self._is_recordable(task.settings, height * width)
        # Drawn and uploaded before: other fusions may have pushed it out.
        draws = [noise(index) for index in range(_draws(task.settings))] if recordable else []
        return self._replayer.run(task, compute, inputs, recordable, draws)

    def _arrays(self, fused: Fused) -> dict[str, NDArray[Any]]:
        if self._replayer is not None:
            return self._replayer.download(fused)
        return {name: _array(tensor) for name, tensor in fused.tensors.items()}

    def _is_recordable(self, settings: FusionSettings, pixels: int) -> bool:
        """Return whether a fusion only enqueues kernels, and few enough to be recorded."""
        return (
            self.prior.only_enqueues
            and settings.num_inference_steps <= _MOST_RECORDED_STEPS
            # As long as all its noise is kept, none has to be drawn and uploaded.
            and _draws(settings) * pixels <= _KEPT_NOISE_PIXELS
            and all(degradation.is_only_noise for degradation in settings.degradations(2))
        )

    def _inputs(self, sources: Sequence[_Source], task: Task) -> dict[str, Input]:
        """Return what :func:`fuse_pair` wants to have on the device, by its names."""
        trust = tuple(source.trust for source in sources)
        inputs = {'trust': Input(torch.tensor(trust, dtype=torch.float32), trust)}
        degradations = task.settings.degradations(len(sources))
        for index, source in enumerate(sources):
            inputs[f'image {index}'] = Input(self._pixels(source.pixels))
            if task.sources[index].is_noisy or not degradations[index].is_only_noise:
                own = source.noise
                levels = tuple(value / 255 for value in (own.read, own.gain, own.deviation))
                inputs[f'noise {index}'] = Input(torch.tensor(levels), levels)
            if source.placement is not None:
                grid, coverage = self._on_device(source.placement)
                inputs[f'grid {index}'] = Input(grid, source.placement)
                inputs[f'coverage {index}'] = Input(coverage, source.placement)
        return inputs

    def _pixels(self, array: NDArray[Any]) -> Tensor:
        """Return checked pixels as a tensor of the host, which may share their memory."""
        if array.dtype == np.uint16:
            # Few torch operations know uint16, and none of them on older versions.
            array = array.astype(np.float32) if self.device.type == 'cpu' else array.view(np.int16)
        if array.ndim == 3 and self.device.type == 'cpu':
            # Channel by channel, as all that follows takes them; OpenCV is quick at that.
            planes = np.empty((array.shape[2], *array.shape[:2]), array.dtype)
            cv2.split(np.ascontiguousarray(array), list(planes))
            return torch.from_numpy(planes).permute(1, 2, 0)
        if not array.flags.writeable or not array.flags.c_contiguous:
            # Torch holds neither read-only memory nor the negative strides of a flipped view.
            array = array.copy()
        return torch.from_numpy(array)

    def _on_device(self, placement: Placement) -> tuple[Tensor, Tensor]:
        if placement not in self._placed:
            self._placed[placement] = (
                torch.tensor(placement.grid, device=self.device),
                torch.tensor(placement.coverage, device=self.device),
            )
        return self._placed[placement]

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


@torch.inference_mode()
def _stays_finite(prior: Prior, device: torch.device) -> bool:
    """Return whether a prior's estimates are finite for images at their extremes."""
    place = torch.arange(64, device=device)
    fine = ((place[:, None] + place) % 2).float() * 2 - 1
    edge = (place > 32).float().expand(64, 64) * 2 - 1
    images = torch.stack([fine, edge, torch.ones_like(fine)])[:, None]
    last = prior.num_train_timesteps - 1
    return all(
        bool(prior.denoise(images, torch.full((3,), timestep, device=device)).isfinite().all())
        for timestep in (0, min(400, last), last)
    )


def _draws(settings: FusionSettings) -> int:
    """Return how many draws of noise a fusion takes."""
    if settings.sampler == 'increments':
        return settings.noise_draws
    fresh = settings.num_inference_steps if settings.sampler == 'ancestral' else 0
    return max(1 + fresh, settings.noise_draws)


def _array(tensor: Tensor) -> NDArray[Any]:
    """Return a tensor of the CPU as an array, an image pixel by pixel."""
    if tensor.ndim != 3 or tensor.dtype != torch.uint8:
        return tensor.numpy()
    # Its channels lie apart, and OpenCV brings them together many times as fast as torch.
    return np.asarray(cv2.merge(list(tensor.permute(2, 0, 1).numpy())))


def _mapped(
    arrays: Sequence[NDArray[Any]],
    placements: Sequence[Placement | None],
    ranges: Sequence[ThermalRange | None],
    stamp: float | None,
) -> tuple[list[NDArray[Any]], list[Placement | None]]:
    """Return the sources with thermal counts as intensities, and all of their placements."""
    count = len(arrays)
    for what, values in (('ranges', ranges), ('placements', placements)):
        if len(values) > count:
            raise FusionInputError(f'{len(values)} {what} for {count} sources: give one for each')
    images = [np.asarray(array) for array in arrays]
    placed = [*placements, *[None] * (count - len(placements))]
    for index, image in enumerate(images):
        range_ = ranges[index] if index < len(ranges) else None
        if range_ is None and not (index and _holds_counts(image)):
            continue
        range_ = range_ or ThermalRange()
        if stamp is None:
            range_.reset()
        try:
            mapped = range_(image[..., 0] if image.shape[2:] == (1,) else image, stamp or 0.0)
        except ThermalRangeError as error:
            raise FusionInputError(f'{_name(index)}: {error}') from error
        found = range_.no_data
        if found is not None:
            mapped = filled(mapped, found.mask)
            if index and images[0].ndim > 1 and images[0].size:
                first = images[0].shape[1], images[0].shape[0]
                placement = placed[index]
                if placement is not None:
                    _check_fits(placement, mapped, (first[1], first[0]), _name(index))
                placed[index] = placement_of_data(found.mask, placement, first)
        images[index] = mapped
    return images, placed


def _holds_counts(image: NDArray[Any]) -> bool:
    """Return whether a source that is not the first one holds what a thermal camera measured."""
    if image.size == 0 or not (image.ndim == 2 or image.shape[2:] == (1,)):
        return False
    if image.dtype.kind == 'f':
        # What is hardly beyond [0, 1] was meant to be within; also True with NaN.
        return not (image.min() >= -1 and image.max() <= 2)
    return image.dtype.kind in 'iu' and image.dtype.itemsize > 1


def _name(index: int) -> str:
    return ('visible', 'thermal')[index] if index < 2 else f'source {index + 1}'


def _checked_sources(
    arrays: Sequence[NDArray[Any]],
    placements: Sequence[Placement | None],
    trust: Sequence[float],
) -> list[_Source]:
    """Check the sources; placements and trust may be given for fewer."""
    count = len(arrays)
    if len(trust) > count:
        raise FusionInputError(f'{len(trust)} trust for {count} sources: give one for each')
    if not all(0 <= value <= 1 for value in trust):
        raise FusionInputError(f'trust is {tuple(trust)}: every value must be 0 to 1')
    sources: list[_Source] = []
    for index, array in enumerate(arrays):
        name = _name(index)
        pixels, full_scale = _checked(array, name)
        placement = placements[index] if index < len(placements) else None
        if placement is not None:
            first = sources[0].pixels if sources else pixels
            _check_fits(placement, pixels, (first.shape[0], first.shape[1]), name)
        how_far = trust[index] if index < len(trust) else 1.0
        sources.append(_Source(pixels, full_scale, placement, how_far))
    return sources


def _checked(array: NDArray[Any], name: str) -> tuple[NDArray[Any], float]:
    """Check an image; return it as :class:`_Source` holds it, and its full scale."""
    array = np.asarray(array)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    channels = 1 if array.ndim == 2 else array.shape[2] if array.ndim == 3 else 0
    if channels not in (1, 3) or 0 in array.shape:
        raise FusionInputError(
            f'{name} has shape {array.shape}: expected (H, W) or (H, W, 3) and no empty side'
        )
    full_scale = {'uint8': 255.0, 'uint16': 65535.0}.get(array.dtype.name)
    if full_scale is not None:
        return array, full_scale
    if not np.issubdtype(array.dtype, np.floating):
        raise FusionInputError(
            f'{name} has dtype {array.dtype}: expected uint8, uint16 or float in [0, 1]; map '
            'other numbers before, such as thermal counts with ranges'
        )
    array = array.astype(np.float32, copy=False)
    low, high = array.min(), array.max()
    if not (low >= 0 and high <= 1):  # also when either is NaN
        raise FusionInputError(
            f'{name} has values from {low:g} to {high:g}: floats must be finite and in [0, 1]; '
            'temperatures and counts become that by a ThermalRange among ranges'
        )
    return array, 1.0


def _measured_sources(
    sources: Sequence[_Source],
    degradations: Sequence[Degradation],
    known: Sequence[SensorNoise | None],
) -> list[_Source]:
    """Return the sources without stripes, stretched, and with their white noise; see ``fuse``."""
    if len(known) > len(sources):
        raise FusionInputError(
            f'{len(known)} noises for {len(sources)} sources: give one for each'
        )
    measured = []
    for index, (source, degradation) in enumerate(zip(sources, degradations, strict=True)):
        stripes, contrast = degradation.stripes, degradation.contrast
        white = degradation.noise is None
        noise = known[index] if index < len(known) else None
        pixels, full_scale = source.pixels, source.full_scale
        if source.trust == 0 or not (stripes or contrast or degradation.noise != 0):
            measured.append(source)
            continue
        if noise is None:
            noise = measure_noise(
                pixels, full_scale=full_scale, white=white, stripes=stripes, contrast=contrast
            )
        if stripes and pixels.ndim == 2:
            _check_stripes(noise.stripes, pixels, index)
            pixels = without_stripes(pixels, noise.stripes, full_scale=full_scale)
        level = noise.white
        if degradation.noise is not None:
            deviation = degradation.noise * (LUMA_NOISE if pixels.ndim == 3 else 1)
            level = CameraNoise(read=deviation, deviation=deviation)
        if contrast and pixels.ndim == 2:
            pixels, full_scale = stretched(pixels, noise.contrast, full_scale=full_scale)
            level = noise.contrast.of_noise(level)
        measured.append(replace(source, pixels=pixels, full_scale=full_scale, noise=level))
    return measured


def _check_stripes(stripes: Stripes, pixels: NDArray[Any], index: int) -> None:
    height, width = pixels.shape
    for what, offsets, count in (
        ('columns', stripes.column_offsets, width),
        ('rows', stripes.row_offsets, height),
    ):
        if offsets is not None and offsets.shape != (count,):
            raise FusionInputError(
                f'the noise of source {index + 1} has stripes of {len(offsets)} {what}, but the '
                f'image has {count}: give the noise of images of this size'
            )


def _check_fits(
    placement: Placement, array: NDArray[Any], first: tuple[int, int], name: str
) -> None:
    """Check that a placement is for an image and for the (height, width) of the first source."""
    size = (array.shape[1], array.shape[0])
    if placement.source_size != size or placement.coverage.shape != first:
        rows, columns = placement.coverage.shape
        raise FusionInputError(
            f'the placement of {name} is for {placement.source_size[0]}x'
            f'{placement.source_size[1]} pixels on {columns}x{rows}, but the image has '
            f'{size[0]}x{size[1]} and the first one {first[1]}x{first[0]}'
        )
