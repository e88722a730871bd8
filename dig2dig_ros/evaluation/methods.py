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

"""The fusions that the evaluation compares, and their costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from math import ceil
import os
from pathlib import Path
import sys
import time
from typing import Any, TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dig2dig_ros.evaluation.baselines import BASELINES, to_uint8
from dig2dig_ros.evaluation.comparison import changed_settings, FUSIONS, Row
from dig2dig_ros.evaluation.options import (
    load_fuser,
    load_parameters,
    report,
    UsageError,
)
from dig2dig_ros.evaluation.plugins import check_fused, load_plugin
from dig2dig_ros.evaluation.scores import (
    Cost,
    fuse_with,
    grey_8_bits,
    Image,
    Method,
    to_8_bits,
)
from dig2dig_ros.fusion.settings import FusionSettings
from dig2dig_ros.images.geometry import size_of
from dig2dig_ros.images.placement import Placement
from dig2dig_ros.streams.parameters import fusion_settings
from dig2dig_ros.streams.preparation import registered_images

# Importing torch takes seconds, which the baselines do not need.
if TYPE_CHECKING:
    from dig2dig_ros.fusion.fuser import Fuser, FusionResult
    from dig2dig_ros.priors import Prior

# Width and height in pixels at which costs are compared.
COMMON_SIZE = (640, 512)


class FusionMethod:
    """The fusion of this package as a :data:`Method`; keeps what the last one made."""

    def __init__(self, fuser: Fuser) -> None:
        self.fuser = fuser
        self.result: FusionResult | None = None

    def __call__(
        self, images: Sequence[NDArray[Any]], placements: Sequence[Placement | None]
    ) -> Image:
        """Fuse one pair."""
        self.result = self.fuser.fuse(*images, placements=placements)
        return self.result.image

    @property
    def prior_calls(self) -> int:
        """Images that went through the prior for the last fusion."""
        return 0 if self.result is None else self.result.prior_calls

    def about(self) -> str:
        """Return text for a caption: device, denoiser and so on."""
        return ', '.join(f'{key} {value}' for key, value in self.fuser.describe().items())


def baseline_method(name: str) -> Method:
    """Return the baseline ``name`` on luma, rounded to 8 bits, in the size of the first image."""
    fuse = BASELINES[name]

    def method(images: Sequence[NDArray[Any]], placements: Sequence[Placement | None]) -> Image:
        size = size_of(images[0])
        registered = registered_images(images, placements, size)
        return to_uint8(fuse([grey_8_bits(image, size) for image in registered]))

    return method


def plugin_method(path: Path) -> Method:
    """
    Return an external fusion, see :func:`~dig2dig_ros.evaluation.plugins.load_plugin`.

    :raises UsageError: it cannot be loaded.
    """
    plugin = load_plugin(path)

    def method(images: Sequence[NDArray[Any]], placements: Sequence[Placement | None]) -> Image:
        size = size_of(images[0])
        visible, thermal = registered_images(images, placements, size)[:2]
        visible, thermal = to_8_bits(visible), grey_8_bits(thermal, size)
        if visible.ndim == 2:
            visible = np.repeat(visible[..., None], 3, axis=2)
        fused = plugin.fuse(visible, thermal)
        check_fused(plugin, fused, (visible, thermal))
        return fused

    return method


def row_settings(row: Row, parameters: Mapping[str, Any]) -> FusionSettings:
    """
    Return the settings of a row that is not a baseline.

    :raises UsageError: they do not exist, or the preset of the row is missing.
    """
    fusion = FUSIONS[row.base]
    base = load_parameters(fusion.preset) if fusion.preset else parameters
    try:
        return replace(fusion_settings(base), **{**fusion.overrides, **row.overrides})
    except (TypeError, ValueError) as error:
        raise UsageError(f'{row.name} cannot be set up: {error}') from error


def block_means() -> Prior:
    """Return the control in place of a prior; importing it takes torch."""
    from dig2dig_ros.evaluation.block_means import BlockMeans

    return BlockMeans()


def prepare_methods(
    rows: Sequence[Row],
    parameters: Mapping[str, Any],
    size: tuple[int, int],
    plugins: Sequence[Path] = (),
) -> dict[str, Method]:
    """
    Set up every row.

    Rows of the same settings share one method; all fusions but controls share one prior.

    :param size: (width, height) in pixels to warm up with.
    :param plugins: files of other fusions, which become rows of their names.
    :raises UsageError: a row cannot be set up; the message names it.
    """
    methods: dict[str, Method] = {}
    by_settings: dict[tuple[FusionSettings, bool], FusionMethod] = {}
    prior: Prior | None = None
    for row in rows:
        if row.is_baseline:
            methods[row.name] = baseline_method(row.base)
            continue
        settings, is_control = row_settings(row, parameters), FUSIONS[row.base].is_control
        key = (settings, is_control)
        if key not in by_settings:
            report(f'setting up {row.name}')
            try:
                fuser = load_fuser(parameters, settings, block_means() if is_control else prior)
                fuser.warm_up(*size)
            except (TypeError, ValueError) as error:
                raise UsageError(f'{row.name} cannot be set up: {error}') from error
            by_settings[key] = FusionMethod(fuser)
            if not is_control:
                prior = fuser.prior
        methods[row.name] = by_settings[key]
    for path in plugins:
        if path.stem in methods:
            raise UsageError(f'two rows are named {path.stem}: rename the plug-in {path}')
        methods[path.stem] = plugin_method(path)
    return methods


def thread_count() -> int:
    """Return how many threads the fusion may use, which scoring then uses as well."""
    torch = sys.modules.get('torch')
    return int(torch.get_num_threads()) if torch is not None else os.cpu_count() or 1


def time_left(elapsed: float, done: int, total: int) -> str:
    """Return in words how long the rest takes, if ``done`` took ``elapsed`` seconds."""
    seconds = elapsed / done * (total - done)
    if seconds >= 120:
        return f'{seconds / 60:.0f} min left'
    return f'{seconds:.0f} s left'


def time_methods(
    methods: Mapping[str, Method], size: tuple[int, int], repetitions: int
) -> dict[str, float]:
    """
    Measure every method on one synthetic colour pair, in turns.

    In turns, so that other load on the machine affects all of them alike.

    :param size: (width, height) in pixels; the methods have been warmed up with it.
    :return: median in milliseconds by name.
    """
    width, height = size
    levels = np.random.default_rng(0).integers(0, 256, (height, width, 4), dtype=np.uint8)
    images = (levels[..., :3].copy(), levels[..., 3].copy())
    if any(
        isinstance(method, FusionMethod) and method.fuser.device.type == 'cuda'
        for method in methods.values()
    ):
        from dig2dig_ros.fusion.graphs import RUNS_BEFORE

        for _ in range(RUNS_BEFORE + 2):  # until the computation has been recorded
            fuse_with(methods, images)
    times: dict[str, list[float]] = {name: [] for name in methods}
    started = time.perf_counter()
    for index in range(1, repetitions + 1):
        for name, entry in fuse_with(methods, images).items():
            times[name].append(entry.milliseconds)
        left = time_left(time.perf_counter() - started, index, repetitions)
        report(f'timing at {width}x{height}: [{index}/{repetitions}]; {left}')
    return {name: float(np.median(values)) for name, values in times.items()}


def prior_gflop(prior: Prior, size: tuple[int, int]) -> float:
    """
    Count the floating-point operations of one call of the prior with one image.

    Those of convolutions and matrix products, two for a multiplication with its addition.

    :param size: (width, height) in pixels.
    :return: in billions.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    device = next((parameter.device for parameter in prior.parameters()), None)
    image = torch.zeros((1, 1, size[1], size[0]), device=device)
    timestep = torch.zeros(1, dtype=torch.int64, device=device)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        prior.denoise(image, timestep)
    return float(counter.get_total_flops()) / 1e9


def method_costs(
    methods: Mapping[str, Method], milliseconds: Mapping[str, float], size: tuple[int, int]
) -> dict[str, Cost]:
    """
    Return the costs of all methods, which must have been used at least once.

    :param milliseconds: median by name.
    :param size: (width, height) in pixels for which operations are counted.
    """

    @cache
    def gflop(prior: Prior, downscale: int) -> float:
        return prior_gflop(prior, (ceil(size[0] / downscale), ceil(size[1] / downscale)))

    costs: dict[str, Cost] = {}
    for name, method in methods.items():
        costs[name] = Cost(milliseconds=milliseconds[name])
        if isinstance(method, FusionMethod):
            prior, settings = method.fuser.prior, method.fuser.settings
            calls = method.prior_calls
            # Only the estimates of the sources use smaller images.
            whole = 0 if settings.sampler == 'increments' else settings.num_inference_steps
            smaller = (calls - whole) * gflop(prior, settings.prior_downscale)
            total = smaller + (whole * gflop(prior, 1) if whole else 0.0)
            costs[name] = Cost(calls, total, milliseconds[name])
    return costs


def describe_rows(rows: Sequence[Row], methods: Mapping[str, Method]) -> dict[str, str]:
    """Return for every fusion among the rows what it is, and its settings, by name."""
    about = {}
    for row in rows:
        method = methods[row.name]
        if isinstance(method, FusionMethod):
            settings = changed_settings(method.fuser.settings)
            about[row.name] = f'{FUSIONS[row.base].meaning} ({settings})'
    return about
