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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
import math
import os
import time
from types import TracebackType
from typing import Any, overload
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray
import torch
from torch import Tensor

from dig2dig_ros.fusion.denoising import NEGLIGIBLE_NOISE
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
from dig2dig_ros.fusion.enlargement import LEAST_ENLARGEMENT
from dig2dig_ros.fusion.estimates import FusionCancelled
from dig2dig_ros.fusion.graphs import Input, Replayer, RUNS_BEFORE
from dig2dig_ros.fusion.inputs import Image, InputReader, Inputs, Registered, split_batches
from dig2dig_ros.fusion.observation import fitting_size, forget_operators
from dig2dig_ros.fusion.presets import check_fuser_arguments, load_preset, PRESETS
from dig2dig_ros.fusion.result import FusionResult
from dig2dig_ros.fusion.sampler import StepState
from dig2dig_ros.fusion.sequences import (
    fuse_pairs,
    fuse_videos,
    named_pairs,
    Progress,
    Show,
    video_paths,
)
from dig2dig_ros.fusion.settings import FusionSettings
from dig2dig_ros.fusion.sources import (
    checked_sources,
    FusionInputError,
    mapped,
    measured_sources,
    Source,
)
from dig2dig_ros.fusion.transfer import to_array, to_tensor
from dig2dig_ros.images.placement import Placement
from dig2dig_ros.images.sensor_noise import SensorNoise
from dig2dig_ros.images.thermal_range import ThermalRange
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


class Fuser:
    """
    Fuses images of one scene; holds the denoiser on its device.

    ``fuser(visible, thermal)`` takes images as people have them, :meth:`fuse_many` folders and
    sequences, :meth:`fuse_video` videos. :meth:`fuse` is for arrays of a stream whose ranges,
    placements and noise somebody keeps, as the node does. After use, or at the end of a ``with``
    block, :meth:`close` gives the device memory back.

    >>> fuser = Fuser.from_preset('realtime')
    >>> fuser('visible.png', 'thermal.png').save('fused.png')

    Deterministic: the noise is a function of seed and resolution, so the same images with the
    same settings give the same bytes. Not thread-safe: use it from one thread at a time.

    :param settings: how to fuse where a call does not say it.
    :param prior: the denoiser: its name or path, see :func:`~dig2dig_ros.priors.load_prior`, or a
        loaded one.
    :param device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``, or a ``torch.device``.
    :param precision: of the prior: ``auto``, ``fp32``, ``bf16`` or ``fp16``; all else is float32.
    :param graphs: record what comes again and again as CUDA graphs; default: on CUDA devices. The
        CPU then goes the same way, and gains nothing.
    :raises DeviceError: the device or precision is not available.
    :raises PriorError: the prior cannot be loaded.
    :raises TypeError: an argument is of a wrong type; the message says what to pass.
    """

    def __init__(
        self,
        settings: FusionSettings | None = None,
        *,
        prior: str | os.PathLike[str] | Prior = 'compact',
        device: str | torch.device = 'auto',
        precision: str = 'auto',
        graphs: bool | None = None,
    ) -> None:
        check_fuser_arguments(settings, prior, device)
        self._settings = settings or FusionSettings()
        self._closed = False
        self.device = resolve_device(str(device))
        self.dtype = resolve_precision(precision, self.device)
        self.prior = self._load(prior)
        if self.dtype == torch.float16 and not self.prior.stays_finite(self.device):
            if precision != 'auto':
                raise PriorError(
                    f"denoiser '{self.prior.name}' leaves the range of fp16: use precision bf16 "
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

    @classmethod
    def from_preset(
        cls,
        name: str,
        *,
        prior: str | os.PathLike[str] | Prior | None = None,
        device: str | torch.device | None = None,
        precision: str | None = None,
        num_threads: int | None = None,
        **settings: Any,
    ) -> Fuser:
        """
        Return a fuser with the settings and the denoiser of a shipped preset.

        :param name: ``fusion`` (for GPUs), ``realtime`` (for CPUs), ``paper``, ``multi_focus`` or
            ``multi_exposure``.
        :param prior: in place of the preset's; likewise ``device`` and ``precision``.
        :param num_threads: CPU threads of torch, for the whole process; 0 leaves them as they are.
            By default as the preset says: ``realtime`` is fastest on one.
        :param settings: fields of :class:`FusionSettings` that differ from the preset's.
        :raises ValueError: there is no such preset, or a value is refused.
        :raises TypeError: there is no setting of this name.
        """
        if not isinstance(name, str):
            raise TypeError(
                f'from_preset takes a name, not {type(name).__name__}: {", ".join(PRESETS)}'
            )
        preset, where = load_preset(name)
        given = {'prior': prior, 'device': device, 'precision': precision}
        where |= {key: value for key, value in given.items() if value is not None}
        threads = where.pop('num_threads', 0)
        fuser = cls(preset.changed(**settings), **where)
        threads = threads if num_threads is None else num_threads
        if threads > 0:
            torch.set_num_threads(threads)
        return fuser

    def __repr__(self) -> str:
        """Return what :meth:`describe` does, in a line."""
        about = 'closed'
        if not self._closed:
            about = ', '.join(f'{name} {value}' for name, value in self.describe().items())
        return f'<Fuser: {about}>'

    def __enter__(self) -> Fuser:
        """Return itself, to be closed at the end of the block."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    def _load(self, prior: str | os.PathLike[str] | Prior) -> Prior:
        loaded = prior if isinstance(prior, Prior) else load_prior(os.fspath(prior))
        return loaded.to(self.device, self.dtype)

    @property
    def settings(self) -> FusionSettings:
        """
        Return how this fuser fuses where a call does not say it.

        :raises RuntimeError: it is closed.
        """
        if self._closed:
            raise RuntimeError('this fuser is closed: make a new one')
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
        if self._closed:
            return
        self._closed = True
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
                    self.fuse(*images, weight_maps=weights)
        return time.perf_counter() - start

    @overload
    def __call__(
        self,
        visible: Sequence[Image],
        thermal: Sequence[Image],
        *others: Sequence[Image],
        registration: Registered = None,
        thermal_range: ThermalRange | None = None,
        thermal_crop: Sequence[int] = (0, 0),
        weight_maps: bool = True,
        restored: bool = False,
        callback: Callable[[StepState], None] | None = None,
        **settings: Any,
    ) -> list[FusionResult]: ...

    @overload
    def __call__(
        self,
        visible: Image,
        thermal: Image,
        *others: Image,
        registration: Registered = None,
        thermal_range: ThermalRange | None = None,
        thermal_crop: Sequence[int] = (0, 0),
        weight_maps: bool = True,
        restored: bool = False,
        callback: Callable[[StepState], None] | None = None,
        **settings: Any,
    ) -> FusionResult: ...

    def __call__(
        self,
        visible: Any,
        thermal: Any,
        *others: Any,
        registration: Registered = None,
        thermal_range: ThermalRange | None = None,
        thermal_crop: Sequence[int] = (0, 0),
        weight_maps: bool = True,
        restored: bool = False,
        callback: Callable[[StepState], None] | None = None,
        **settings: Any,
    ) -> FusionResult | list[FusionResult]:
        """
        Fuse a visible image with a thermal one, or a batch of each.

        An image is an array as OpenCV has it (blue-green-red), the path of a file, a PIL image, or
        a tensor as torchvision has it (red-green-blue, channels first). A batch is a list of
        images, an array (N, H, W[, C]) or a tensor (N[, C], H, W), and its pairs are fused one by
        one; for a sequence, see :meth:`fuse_many`.

        The visible image has 8 or 16 bits or floats in [0, 1], and colour or not. The thermal one
        is grey; one that is not has been coloured with a palette, which is no intensity, and is
        refused. Thermal counts and temperatures, which are 16 bits, other integers, and floats
        beyond [0, 1], become intensities as in the node. With ``chroma='all'``, all images are
        photographs: any of them may have colour, and 16 bits are not counts.

        :param others: further images of the scene, taken as the thermal one is.
        :param registration: where the thermal image lies on the visible one: the path of the file
            that ``calibrate`` writes, or a :class:`Registration`. Without it, images of other
            sizes than the visible one are resized to it.
        :param thermal_range: maps thermal images; default: what holds counts, by percentiles.
        :param thermal_crop: rows at the top and bottom of the thermal image to leave out.
        :param weight_maps: whether ``result.weights`` and ``result.contributions`` are wanted;
            without them it is faster.
        :param restored: whether ``result.restored`` is wanted.
        :param callback: see :meth:`fuse`.
        :param settings: fields of :class:`FusionSettings`, for this call only.
        :return: of a batch a list.
        :raises FusionInputError: an image cannot be used; the message says which, why, and what to
            do.
        :raises TypeError: there is no setting of this name; the message says the nearest one.
        :raises ValueError: a setting is refused.
        """
        chosen = self.settings.changed(**settings)
        batch = split_batches((visible, thermal, *others))
        read = _reader(chosen, registration, thermal_range, thermal_crop)
        fuse = partial(
            self._fuse_inputs,
            settings=chosen,
            weight_maps=weight_maps,
            restored=restored,
            callback=callback,
        )

        def one(images: Sequence[object], place: str) -> FusionResult:
            inputs = read(images, place=place)
            return replace(fuse(inputs), notes=inputs.notes)

        if batch is None:
            return one((visible, thermal, *others), '')
        return [one(images, f'[{index}]') for index, images in enumerate(batch)]

    def fuse_many(
        self,
        visible: str | os.PathLike[str] | Iterable[Image],
        thermal: str | os.PathLike[str] | Iterable[Image],
        *,
        rate: float = 30.0,
        registration: Registered = None,
        thermal_range: ThermalRange | None = None,
        thermal_crop: Sequence[int] = (0, 0),
        weight_maps: bool = True,
        **settings: Any,
    ) -> Iterator[FusionResult]:
        """
        Fuse the images of two folders or two iterables, one pair each time that one is asked for.

        The images of folders are paired by their names without suffix, in the order of the names;
        those without a counterpart are left out. ``result.name`` is the name of the pair. What is
        iterated over may be a generator, and must yield as many images of the one as of the other.

        They are taken as a sequence of two cameras: the range of thermal counts follows the scene.
        For pairs of different scenes, pass ``thermal_range=ThermalRange(smoothing=0)``.

        :param rate: pairs per second of the scene, by which the range follows it.
        :param settings: and all else as for a single pair.
        :raises FusionInputError: the images cannot be paired, or one cannot be used.
        """
        if not (math.isfinite(rate) and rate > 0):
            raise ValueError(f'rate is {rate}, but must be above 0')
        chosen = self.settings.changed(**settings)
        read = _reader(chosen, registration, thermal_range, thermal_crop)
        fuse = partial(self._fuse_inputs, settings=chosen, weight_maps=weight_maps)
        return fuse_pairs(named_pairs(visible, thermal), rate, read, fuse)

    def fuse_video(
        self,
        visible: str | os.PathLike[str],
        thermal: str | os.PathLike[str],
        output: str | os.PathLike[str],
        *,
        thermal_time_offset: float = 0.0,
        registration: Registered = None,
        thermal_range: ThermalRange | None = None,
        thermal_crop: Sequence[int] = (0, 0),
        weight_maps: bool = True,
        progress: Progress | None = None,
        show: Show | None = None,
        on_error: Callable[[str], None] | None = None,
        **settings: Any,
    ) -> int:
        """
        Fuse two videos into a third one, which has the size and the frame rate of the visible one.

        Frames are paired by their number where both videos have the same frame rate; otherwise
        every visible frame with the thermal one that is nearest in time. What has no counterpart
        is left out. Videos are MP4, MOV, MKV, WebM or AVI files; thermal counts are one channel of
        16 bits, such as FFV1 in MKV.

        :param output: ``.mp4``, ``.mov``, ``.mkv``, ``.webm`` or ``.avi``; what is there is
            replaced when the video is complete.
        :param thermal_time_offset: seconds added to the times of the thermal video; negative
            where it is late.
        :param weight_maps: whether the results that ``show`` is called with are to have them.
        :param progress: called after every frame with how many are done, and of how many; 0 where
            the files do not say.
        :param show: called with every result, for example to show it; False ends the video there.
        :param on_error: called with what is wrong with a frame that cannot be fused, in whose
            place the one before is held; without it, such a frame ends the work.
        :param settings: and all else as for a single pair.
        :return: how many frames were fused.
        :raises FusionInputError: a video cannot be read or written, or its images not be fused.
        """
        chosen = self.settings.changed(**settings)
        weight_maps = weight_maps and show is not None
        return fuse_videos(
            *video_paths(visible, thermal, output),
            _reader(chosen, registration, thermal_range, thermal_crop),
            partial(self._fuse_inputs, settings=chosen, weight_maps=weight_maps),
            thermal_time_offset=thermal_time_offset,
            progress=progress,
            show=show,
            on_error=on_error,
        )

    def _fuse_inputs(self, inputs: Inputs, **how: Any) -> FusionResult:
        return self.fuse(*inputs.images, placements=inputs.placements, **how)

    @torch.inference_mode()
    def fuse(
        self,
        visible: NDArray[Any],
        thermal: NDArray[Any],
        *others: NDArray[Any],
        settings: FusionSettings | None = None,
        placements: Sequence[Placement | None] = (),
        trust: Sequence[float] = (),
        weight_maps: bool = True,
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
        :param weight_maps: whether weights and contributions are wanted; without them it is
            faster.
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
        settings = settings or self.settings
        arrays, placements = mapped((visible, thermal, *others), placements, ranges, stamp)
        sources = checked_sources(arrays, placements, trust)
        sources = measured_sources(sources, settings.degradations(len(sources)), noise)
        with nullcontext() if self._replayer is None else self._replayer.stream():
            task = self._task(sources, settings, weight_maps, restored)
            fused = self._run(task, sources, callback, cancelled)
            results = self._arrays(fused)
        # Downloaded with the rest: nothing has waited for it.
        if not np.isfinite(results['finite']).all():
            raise NotFiniteError(
                f"the result is not finite: denoiser '{self.prior.name}' may be damaged, or have "
                f'numbers too large for {str(self.dtype).removeprefix("torch.")}; use another '
                'denoiser, or precision fp32'
            )
        image = results['image']
        nothing = np.empty((0, *image.shape[:2]), np.float32)
        own = [results[f'restored {index}'] for index in range(len(sources))] if restored else []
        seconds = time.perf_counter() - start
        slowed = '' if self._replayer is None else self._replayer.problem
        maps, shares = (results.get(each, nothing) for each in ('weights', 'contributions'))
        return FusionResult(image, maps, shares, fused.prior_calls, seconds, tuple(own), slowed)

    def _task(
        self, sources: Sequence[Source], settings: FusionSettings, weights: bool, restored: bool
    ) -> Task:
        tasks, all_sharp = [], True
        for source, degradation in zip(sources, settings.degradations(len(sources)), strict=True):
            placement, shrunk = source.placement, None
            if placement is not None:
                shrunk = placement.reduced_size(*degradation.scene_size(*source.pixels.shape[:2]))
            # What is recorded takes out as much noise as there is, so that one graph does for all,
            # and weighs by sharpness wherever it is estimated.
            is_noisy = (
                degradation.noise != 0 if self._replayer else source.noise.deviation > _QUIET
            )
            is_noisy = is_noisy and degradation.is_only_noise and source.trust > 0
            all_sharp &= degradation.blur is not None if self._replayer else source.sharpness == 1
            tasks.append(
                SourceTask(
                    source.full_scale,
                    is_placed=placement is not None,
                    shrunk=shrunk,
                    is_trusted=source.trust > 0,
                    is_noisy=is_noisy,
                    is_enlarged=source.enlargement >= LEAST_ENLARGEMENT,
                )
            )
        full_trust = all(source.trust == 1 for source in sources)
        return Task(settings, tuple(tasks), full_trust, all_sharp, weights, restored)

    def _run(
        self,
        task: Task,
        sources: Sequence[Source],
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
        return {name: to_array(tensor) for name, tensor in fused.tensors.items()}

    def _is_recordable(self, settings: FusionSettings, pixels: int) -> bool:
        """Return whether a fusion only enqueues kernels, and few enough to be recorded."""
        return (
            self.prior.only_enqueues
            and settings.num_inference_steps <= _MOST_RECORDED_STEPS
            # As long as all its noise is kept, none has to be drawn and uploaded.
            and _draws(settings) * pixels <= _KEPT_NOISE_PIXELS
            and all(degradation.is_only_noise for degradation in settings.degradations(2))
        )

    def _inputs(self, sources: Sequence[Source], task: Task) -> dict[str, Input]:
        """Return what :func:`fuse_pair` wants to have on the device, by its names."""
        trust = tuple(source.trust for source in sources)
        inputs = {'trust': Input(torch.tensor(trust, dtype=torch.float32), trust)}
        if not task.all_sharp:
            sharpness = tuple(source.sharpness for source in sources)
            inputs['sharpness'] = Input(torch.tensor(sharpness, dtype=torch.float32), sharpness)
        degradations = task.settings.degradations(len(sources))
        for index, source in enumerate(sources):
            inputs[f'image {index}'] = Input(to_tensor(source.pixels, self.device))
            if task.sources[index].is_noisy or not degradations[index].is_only_noise:
                own = source.noise
                levels = tuple(value / 255 for value in (own.read, own.gain, own.deviation))
                inputs[f'noise {index}'] = Input(torch.tensor(levels), levels)
            if source.placement is not None:
                grid, coverage = self._on_device(source.placement)
                inputs[f'grid {index}'] = Input(grid, source.placement)
                inputs[f'coverage {index}'] = Input(coverage, source.placement)
        return inputs

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


def _reader(settings: FusionSettings, *how: Any) -> InputReader:
    return InputReader('photographs' if settings.chroma == 'all' else 'thermal', *how)


def _draws(settings: FusionSettings) -> int:
    """Return how many draws of noise a fusion takes."""
    if settings.sampler == 'increments':
        return settings.noise_draws
    fresh = settings.num_inference_steps if settings.sampler == 'ancestral' else 0
    return max(1 + fresh, settings.noise_draws)
