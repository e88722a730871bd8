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
The fusion of a visible and a thermal image as one ONNX file, for programs without Python.

The file computes :func:`~dig2dig_ros.fusion.device_fusion.fuse_pair` for one size, with settings,
weights of the denoiser and registration baked in. What the host estimates from each image (noise,
stripes, contrast, the range of thermal counts) is not part of it. docs/export.md describes the
file for its users.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
import importlib
import json
import logging
from typing import Any
import warnings

import numpy as np
from numpy.typing import NDArray
import torch
from torch import nn, Tensor

import dig2dig_ros
from dig2dig_ros.fusion.degradation import Degradation
from dig2dig_ros.fusion.denoising import LUMA_NOISE, NEGLIGIBLE_NOISE
from dig2dig_ros.fusion.device_fusion import fuse_pair, SourceTask, Task
from dig2dig_ros.fusion.enlargement import LEAST_ENLARGEMENT
from dig2dig_ros.fusion.settings import FusionSettings
from dig2dig_ros.images.blur import Blur
from dig2dig_ros.images.placement import Placement
from dig2dig_ros.priors import Prior
from dig2dig_ros.priors.compact import CompactPrior

# The lowest that PyTorch's exporter writes, for older runtimes.
OPSET = 18
# Largest constant, in bytes, that is computed beforehand.
_MOST_FOLDED = 1 << 26
_CAMERAS = ('visible', 'thermal')
_LAYOUTS = {
    'visible': 'uint8 (1, H, W, 3), blue-green-red, 0 to 255',
    'thermal': 'float32 (1, h, w), 0 (cold) to 1 (hot)',
    'fused': 'uint8 (1, H, W, 3), blue-green-red, 0 to 255, in the pixels of visible',
    'weights': 'float32 (1, 2, H, W), 0 to 1: visible, thermal; their sum is 1',
}
_HOW_TO_INSTALL = "install the extra 'export' of dig2dig, or pip install onnx onnxscript"


class ExportError(ValueError):
    """A fusion cannot be exported; the message says why, and what to do."""


@dataclass(frozen=True)
class Deviation:
    """
    The largest differences between the outputs of an exported file and those of PyTorch.

    :param fused: in grey levels of 255, beyond the half level of rounding.
    :param weights: on [0, 1].
    """

    fused: float
    weights: float


class ExportedFusion(nn.Module):
    """
    A fusion with everything but the two images fixed, in PyTorch and as an ONNX file.

    :param prior: on the CPU, in float32.
    :param settings: anything declared ``auto`` is left out, see :func:`left_out`, except for what
        ``blur auto`` does for the enlargement by the placement.
    :param size: (width, height) of the visible image.
    :param placement: where its pixels lie in the thermal image; default: the images are aligned,
        and of the same size.
    :raises ExportError: the settings, or the prior, cannot be exported.
    """

    def __init__(
        self,
        prior: Prior,
        settings: FusionSettings,
        size: tuple[int, int],
        placement: Placement | None = None,
    ) -> None:
        super().__init__()
        _check(prior, settings)
        self.prior = prior
        self.settings = without_estimates(settings)
        self.size = size
        self.thermal_size = size if placement is None else placement.source_size
        shrunk, enlargement = None, 1.0
        self._constants = {'trust': torch.ones(2)}
        if placement is not None:
            if placement.coverage.shape != size[::-1]:
                height, width = placement.coverage.shape
                raise ExportError(
                    f'the registration is for visible images of {width}x{height} pixels, not of '
                    f'{size[0]}x{size[1]}: export for that size'
                )
            shrunk = placement.reduced_size(*self.thermal_size[::-1])
            self._constants['grid 1'] = torch.tensor(placement.grid)
            self._constants['coverage 1'] = torch.tensor(placement.coverage)
            if settings.degradations(2)[1].blur is None:
                enlargement = placement.enlargement(*self.thermal_size[::-1])
        sharpness = Blur().sharpness(enlargement)
        if sharpness < 1:
            self._constants['sharpness'] = torch.tensor([1.0, sharpness])
        levels = _noise_levels(self.settings)
        for index, level in enumerate(levels):
            if level > 0:
                self._constants[f'noise {index}'] = torch.tensor([level, 0.0, level])
        self._task = Task(
            self.settings,
            (
                SourceTask(255.0, is_noisy=levels[0] > 0),
                SourceTask(
                    1.0,
                    is_placed=placement is not None,
                    shrunk=shrunk,
                    is_noisy=levels[1] > 0,
                    is_enlarged=enlargement >= LEAST_ENLARGEMENT,
                ),
            ),
            all_sharp=sharpness == 1,
            rounded=False,
        )

    def unrounded(self, visible: Tensor, thermal: Tensor) -> tuple[Tensor, Tensor]:
        """Return what :meth:`forward` does, with the fused image as float32 in [0, 255]."""
        # TensorRT can only convert 8-bit images.
        images = {'image 0': visible.float()[0], 'image 1': thermal[0]}
        given = {**images, **self._constants}
        results = fuse_pair(self.prior, self._task, given, _no_noise).tensors
        return results['image'][None], results['weights'][None]

    def forward(self, visible: Tensor, thermal: Tensor) -> tuple[Tensor, Tensor]:
        """
        Fuse a pair.

        :param visible: (1, H, W, 3) uint8, blue-green-red.
        :param thermal: (1, h, w) float32 in [0, 1].
        :return: the fused image, (1, H, W, 3) uint8, and the weights, (1, 2, H, W) float32.
        """
        fused, weights = self.unrounded(visible, thermal)
        return fused.round().to(torch.uint8), weights

    def to_onnx(self, facts: Mapping[str, str] | None = None) -> bytes:
        """
        Return the ONNX file.

        :param facts: further entries of its metadata.
        :raises ExportError: a package is missing.
        """
        try:
            importlib.import_module('onnx')
            optimizer = importlib.import_module('onnxscript.optimizer')
        except ImportError as error:
            raise ExportError(f'{error.name} is missing: {_HOW_TO_INSTALL}') from error
        images = self._example()
        # Values from the schedule must be plain numbers before the computation is traced.
        self.prior.noise_ratios()
        with _quiet(), torch.inference_mode():
            program = torch.onnx.export(
                self,
                images,
                dynamo=True,
                opset_version=OPSET,
                input_names=list(_LAYOUTS)[:2],
                output_names=list(_LAYOUTS)[2:],
                optimize=False,
                verbose=False,
            )
            assert program is not None
            # Everything that only depends on constants, such as float64, which TensorRT lacks.
            optimizer.fold_constants(
                program.model, input_size_limit=_MOST_FOLDED, output_size_limit=_MOST_FOLDED
            )
            optimizer.remove_unused_nodes(program.model)
        proto = program.model_proto
        for node in proto.graph.node:
            # Stack traces of this machine.
            del node.metadata_props[:]
        for value in (*proto.graph.value_info, *proto.graph.input, *proto.graph.output):
            del value.metadata_props[:]
        del proto.graph.metadata_props[:], proto.metadata_props[:]
        proto.producer_name, proto.producer_version = 'dig2dig', dig2dig_ros.__version__
        for key, value in {**self._description(), **(facts or {})}.items():
            proto.metadata_props.add(key=f'dig2dig.{key}', value=value)
        data: bytes = proto.SerializeToString()
        return data

    def deviation(
        self, model: bytes, visible: NDArray[np.uint8], thermal: NDArray[np.float32]
    ) -> Deviation:
        """
        Compare the outputs of ONNX Runtime, on the CPU, and of PyTorch for a pair.

        :param model: from :meth:`to_onnx`.
        :param visible: (H, W, 3) in blue-green-red.
        :param thermal: (h, w) in [0, 1].
        :raises ExportError: ONNX Runtime is missing.
        """
        try:
            runtime = importlib.import_module('onnxruntime')
        except ImportError as error:
            raise ExportError(
                'the check needs ONNX Runtime: install the extra "export" of dig2dig, or pip '
                'install onnxruntime'
            ) from error
        session = runtime.InferenceSession(model, providers=['CPUExecutionProvider'])
        fused, weights = session.run(None, {'visible': visible[None], 'thermal': thermal[None]})
        with torch.inference_mode():
            pair = torch.from_numpy(visible[None]), torch.from_numpy(thermal[None])
            image, shares = self.unrounded(*pair)
        # NaN fails this comparison.
        apart = np.abs(fused - image.numpy()).max() - 0.5
        return Deviation(
            float(np.maximum(apart, 0.0)), float(np.abs(weights - shares.numpy()).max())
        )

    def _example(self) -> tuple[Tensor, Tensor]:
        """Return a pair of the sizes that are baked in."""
        (width, height), (columns, rows) = self.size, self.thermal_size
        visible = torch.zeros((1, height, width, 3), dtype=torch.uint8)
        return visible, torch.zeros((1, rows, columns))

    def _description(self) -> dict[str, str]:
        """Return facts about the file, for programs and people."""
        return {
            'version': dig2dig_ros.__version__,
            'prior': self.prior.name,
            'settings': json.dumps(asdict(self.settings)),
            'size': '{}x{}'.format(*self.size),
            'thermal_size': '{}x{}'.format(*self.thermal_size),
            **_LAYOUTS,
        }


def _no_noise(index: int) -> Tensor:
    raise AssertionError(f'draw {index} of noise was asked for')


def without_estimates(settings: FusionSettings) -> FusionSettings:
    """Return the settings without anything that is estimated from each image."""
    visible, thermal = (
        str(
            replace(
                each,
                stripes=False,
                contrast=False,
                blur=each.blur or 0.0,
                noise=each.noise or 0.0,
            )
        )
        for each in settings.degradations(2)
    )
    return replace(settings, visible_degradation=visible, thermal_degradation=thermal)


def left_out(settings: FusionSettings) -> dict[str, str]:
    """
    Return what the file leaves to the program that uses it.

    :return: by camera, the terms of its degradation that are estimated from each image.
    """
    found = {}
    for camera, degradation in zip(_CAMERAS, settings.degradations(2), strict=True):
        estimated = Degradation(
            stripes=degradation.stripes,
            contrast=degradation.contrast,
            blur=None if degradation.blur is None else 0.0,
            noise=None if degradation.noise is None else 0.0,
        )
        if not estimated.is_none:
            found[camera] = str(estimated)
    return found


def _noise_levels(settings: FusionSettings) -> tuple[float, float]:
    """Return the deviation of the noise in each luma that is to be removed, in [0, 1]."""
    visible, thermal = settings.degradations(2)
    levels = (visible.noise or 0.0) * LUMA_NOISE / 255, (thermal.noise or 0.0) / 255
    first, second = (level if level > NEGLIGIBLE_NOISE else 0.0 for level in levels)
    return first, second


def _check(prior: Prior, settings: FusionSettings) -> None:
    """Raise for what cannot be part of a file."""
    if settings.sampler != 'increments':
        raise ExportError(
            f"sampler '{settings.sampler}' follows a chain with noise and cannot be exported: "
            "use sampler 'increments'"
        )
    if settings.noise_draws:
        raise ExportError(
            f'noise_draws is {settings.noise_draws}, but noise cannot be exported: use 0'
        )
    for camera, degradation in zip(_CAMERAS, settings.degradations(2), strict=True):
        if not degradation.is_only_noise:
            raise ExportError(
                f"{camera}_degradation is '{degradation}', but blur, motion and down-sampling "
                "cannot be undone in an exported file: use 'none', or 'noise' with a number"
            )
    if not isinstance(prior, CompactPrior):
        raise ExportError(
            f"denoiser '{prior.name}' cannot be exported: use compact, nano, or one that dig2dig "
            'has trained'
        )
    prior.check_timesteps(settings.timesteps)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's messages about itself, such as missing optional packages."""
    loggers: list[Any] = [logging.getLogger(name) for name in ('torch.onnx', 'onnxscript')]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
