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
The parameters of the fusion node: one table of names, defaults, ranges and meanings.

ROS is only needed for the descriptors: tools that run without it read parameter files with the
same table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
import math
import re
from typing import Any, TYPE_CHECKING

from dig2dig_ros.fusion.settings import (
    CHROMAS,
    FusionSettings,
    GAIN_LOSSES,
    GUIDANCES,
    PRIOR_DOWNSCALES,
    SAMPLERS,
    TIMESTEP_SPACINGS,
    WEIGHT_RULES,
)
from dig2dig_ros.streams.pairing import SOURCES

if TYPE_CHECKING:
    from rcl_interfaces.msg import ParameterDescriptor

_FUSION = FusionSettings()
# An 8K image; to warm up with more would only take the robot's memory.
_MOST_PIXELS = 7680 * 4320
MISSING_MODALITIES = ('wait', 'visible', 'thermal', 'any')
# Sources and outputs that the node always has: NAME/image_raw and fused/weights/NAME.
_TAKEN_NAMES = (*SOURCES, 'fused', 'overlay')


@dataclass(frozen=True)
class ParameterSpec:
    """
    One parameter of the node.

    :param name: as in YAML files.
    :param default: its Python type fixes the parameter's type; of an empty list, ``check`` does.
    :param description: one sentence; units in it.
    :param live: may change while the node is configured; takes effect on the next pair.
    :param minimum: smallest number allowed.
    :param maximum: largest number allowed.
    :param choices: the strings allowed.
    :param check: returns what is wrong with a value, or nothing.
    """

    name: str
    default: Any
    description: str
    live: bool = False
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    check: Callable[[Any], str | None] | None = None

    def descriptor(self) -> ParameterDescriptor:
        """Return the descriptor that ``ros2 param describe`` shows."""
        from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor

        descriptor = ParameterDescriptor(description=self.description)
        constraints = [f'one of: {", ".join(self.choices)}'] if self.choices else []
        if not self.live:
            constraints.append('fixed while the node is configured: clean up first')
        descriptor.additional_constraints = '; '.join(constraints)
        # To rclpy an empty list is one of bytes, and one from a YAML file is no value at all.
        descriptor.dynamic_typing = self.default == []
        if self.minimum is not None and self.maximum is not None:
            if isinstance(self.default, float):
                bounds = FloatingPointRange(
                    from_value=float(self.minimum), to_value=float(self.maximum), step=0.0
                )
                descriptor.floating_point_range = [bounds]
            else:
                descriptor.integer_range = [
                    IntegerRange(from_value=int(self.minimum), to_value=int(self.maximum), step=1)
                ]
        return descriptor

    def checked(self, value: Any) -> Any:
        """
        Return a value from a YAML file, checked as the node would.

        :return: the value; a whole number as float where the parameter is one.
        :raises ValueError: its type or range is wrong, or :meth:`problem` says so.
        """
        if isinstance(self.default, float) and type(value) is int:
            value = float(value)
        if isinstance(self.default, list):
            # Of an empty default the check knows the type of the elements.
            wanted = type(self.default[0]) if self.default else object
            fits = isinstance(value, list) and all(
                isinstance(item, wanted) or (wanted is float and type(item) is int)
                for item in value
            )
        else:
            # Not isinstance: true and false are whole numbers to it.
            wanted = type(self.default)
            fits = type(value) is wanted
        if not fits:
            raise ValueError(f'{self.name} is {value!r}, but must be like {self.default!r}')
        low, high = self.minimum, self.maximum
        if low is not None and high is not None and not low <= value <= high:
            raise ValueError(f'{self.name} is {value!r}, but must be {low:g} to {high:g}')
        problem = self.problem(value)
        if problem is not None:
            raise ValueError(problem)
        return value

    def problem(self, value: Any) -> str | None:
        """Return why ``value`` is refused, beyond type and range, or None where it is fine."""
        if self.choices and value not in self.choices:
            return f"{self.name} is '{value}', but must be one of: {', '.join(self.choices)}"
        reason = self.check(value) if self.check else None
        return f'{self.name} is {value!r}, but {reason}' if reason else None


def _check_device(value: str) -> str | None:
    if re.fullmatch(r'auto|cpu|cuda(:\d+)?', value):
        return None
    return 'must be auto, cpu, cuda or cuda:N'


def _check_odd(value: int) -> str | None:
    return None if value % 2 else 'must be odd'


def _check_size(value: Any) -> str | None:
    if len(value) == 2 and min(value) >= 1 and value[0] * value[1] <= _MOST_PIXELS:
        return None
    return f'must be [width, height] in pixels, at least 1 each and {_MOST_PIXELS} together'


def _check_sources(value: Any) -> str | None:
    if not (isinstance(value, (list, tuple)) and all(isinstance(name, str) for name in value)):
        return "must be a list of names, such as ['nir', 'swir']"
    for name in value:
        if not re.fullmatch(r'[A-Za-z_][A-Za-z0-9_]*', name):
            return (
                f"'{name}' is no name of a topic: use letters, digits and underscores, and no "
                'digit first'
            )
        if name in _TAKEN_NAMES:
            return f"'{name}' is taken by a topic of the node: choose another name"
        if value.count(name) > 1:
            return f"'{name}' is there more than once: give each source its own name"
    return None


def _check_downscale(value: Any) -> str | None:
    return None if value in PRIOR_DOWNSCALES else f'must be one of: {PRIOR_DOWNSCALES}'


def _check_percentiles(value: Any) -> str | None:
    if len(value) == 2 and 0.0 <= value[0] < value[1] <= 100.0:
        return None
    return 'must be [low, high] with 0 <= low < high <= 100'


def _check_limits(value: Any) -> str | None:
    if len(value) == 2 and all(map(math.isfinite, value)) and value[0] < value[1]:
        return None
    return 'must be [low, high] with low < high, both finite'


def transport_parameter(source: str) -> ParameterSpec:
    """Return the parameter that chooses the image transport of a source."""
    return ParameterSpec(
        f'{source}_transport',
        'raw',
        f'Image transport of the {source} input; compressed subscribes to <topic>/compressed.',
        choices=('raw', 'compressed'),
    )


PARAMETERS: tuple[ParameterSpec, ...] = (
    # The device and the prior
    ParameterSpec(
        'autostart', True, 'Configure and activate at start, without a lifecycle manager.'
    ),
    ParameterSpec(
        'device',
        'auto',
        'Where to compute: auto (CUDA where there is one), cpu, cuda or cuda:N; a device asked '
        'for by name is never replaced by another.',
        check=_check_device,
    ),
    ParameterSpec(
        'precision',
        'auto',
        'Number format of the prior; auto takes the fastest that the device has in hardware.',
        choices=('auto', 'fp32', 'bf16', 'fp16'),
    ),
    ParameterSpec(
        'prior',
        'compact',
        'The denoiser: compact or nano (embedded), or the path of a .safetensors file of '
        'train_prior, of a guided-diffusion checkpoint, or of a folder with a UNet2DModel of '
        'diffusers.',
    ),
    ParameterSpec(
        'num_threads',
        0,
        'CPU threads for the fusion; 0 leaves the choice to torch. Where the robot has other '
        'work, at most one less than its cores.',
        minimum=0,
        maximum=256,
    ),
    ParameterSpec(
        'warmup_size',
        [640, 512],
        '[width, height] in pixels of the visible camera, to warm up with before the first pair.',
        check=_check_size,
    ),
    # The fusion
    ParameterSpec(
        'sampler',
        _FUSION.sampler,
        'increments (no chain: what the cameras resolve between refreshes, weighted and summed '
        'up), ddim (deterministic guided chain), or ancestral (the same with fresh noise).',
        live=True,
        choices=SAMPLERS,
    ),
    ParameterSpec(
        'num_inference_steps',
        _FUSION.num_inference_steps,
        'Steps of the reverse chain (N of the paper).',
        live=True,
        minimum=1,
        maximum=999,
    ),
    ParameterSpec(
        'dig_refresh_interval',
        _FUSION.dig_refresh_interval,
        'Steps between two refreshes of the information gains (S of the paper).',
        live=True,
        minimum=1,
        maximum=999,
    ),
    ParameterSpec(
        'timestep_spacing',
        _FUSION.timestep_spacing,
        'How the steps are spread over the noise levels; quadratic: larger at high noise.',
        live=True,
        choices=TIMESTEP_SPACINGS,
    ),
    ParameterSpec(
        'first_timestep',
        _FUSION.first_timestep,
        'Noise level at which the chain starts; 999 is pure noise.',
        live=True,
        minimum=1,
        maximum=999,
    ),
    ParameterSpec(
        'noise_draws',
        _FUSION.noise_draws,
        "Draws of noise over which the cameras' estimates are averaged; 0 denoises without noise, "
        'for first_timestep up to about 400.',
        live=True,
        minimum=0,
        maximum=16,
    ),
    ParameterSpec(
        'prior_downscale',
        _FUSION.prior_downscale,
        'So many pixels a side are averaged into one before the prior sees the cameras: 1, 2 or '
        '4; the fused image keeps all its pixels.',
        live=True,
        minimum=1,
        maximum=4,
        check=_check_downscale,
    ),
    ParameterSpec(
        'weights',
        _FUSION.weights,
        'Rule of the weights: dig (information gains), rd (relative dominability, TTD) or uniform '
        '(equal).',
        live=True,
        choices=WEIGHT_RULES,
    ),
    ParameterSpec(
        'gain_loss',
        _FUSION.gain_loss,
        'Distance between an estimate and its source; ssim is 1 - SSIM.',
        live=True,
        choices=GAIN_LOSSES,
    ),
    ParameterSpec(
        'gain_window',
        _FUSION.gain_window,
        'Side in pixels of the window over which the gains are averaged; odd.',
        live=True,
        minimum=1,
        maximum=99,
        check=_check_odd,
    ),
    ParameterSpec(
        'structure_window',
        _FUSION.structure_window,
        'The same for the coarse structure: about the size in pixels of the objects that matter; '
        'odd.',
        live=True,
        minimum=1,
        maximum=999,
        check=_check_odd,
    ),
    ParameterSpec(
        'normalize_gain',
        _FUSION.normalize_gain,
        "Divide the gains by their local scale; false is the paper's formula as printed.",
        live=True,
    ),
    ParameterSpec(
        'temperature',
        _FUSION.temperature,
        'Of the softmax over the sources; small decides, large gives equal weights.',
        live=True,
        minimum=0.001,
        maximum=1000.0,
    ),
    ParameterSpec(
        'structure_temperature',
        _FUSION.structure_temperature,
        'The same for the coarse structure; small gives more contrast.',
        live=True,
        minimum=0.001,
        maximum=1000.0,
    ),
    ParameterSpec(
        'contrast_gain',
        _FUSION.contrast_gain,
        'How much increments may be amplified to make up for the contrast that averaging takes; '
        '1 is off.',
        live=True,
        minimum=1.0,
        maximum=2.0,
    ),
    ParameterSpec(
        'overshoot',
        _FUSION.overshoot,
        'How far the fused image may leave what the cameras span at a pixel, as a part of the '
        'full range; 1 is no limit.',
        live=True,
        minimum=0.0,
        maximum=1.0,
    ),
    ParameterSpec(
        'guidance',
        _FUSION.guidance,
        'Of a chain (sampler ddim or ancestral): score (weighted conditional scores) or em '
        '(expectation maximisation, DDFM).',
        live=True,
        choices=GUIDANCES,
    ),
    ParameterSpec(
        'guidance_scale',
        _FUSION.guidance_scale,
        'Of a chain: strength of the sources against the prior; 1 ignores the prior.',
        live=True,
        minimum=0.0,
        maximum=1.0,
    ),
    ParameterSpec(
        'chroma',
        _FUSION.chroma,
        'Whose colour the fused image has: first (the visible camera) or all (every source by its '
        'weight and saturation).',
        live=True,
        choices=CHROMAS,
    ),
    ParameterSpec(
        'visible_degradation',
        _FUSION.visible_degradation,
        'What the visible camera does to the scene, to be undone: none, low_light, or terms such '
        "as 'blur 1.5, noise auto' (docs/cameras.md).",
        live=True,
    ),
    ParameterSpec(
        'thermal_degradation',
        _FUSION.thermal_degradation,
        "The same of the thermal camera: none, lepton, boson, or terms such as 'x4, noise auto'; "
        'xF is a sensor with an F-th of the pixels along each side.',
        live=True,
    ),
    ParameterSpec(
        'restoration_steps',
        _FUSION.restoration_steps,
        'Steps that undo a declared degradation other than noise.',
        live=True,
        minimum=1,
        maximum=100,
    ),
    ParameterSpec(
        'seed',
        _FUSION.seed,
        'Of the noise, which is drawn once for each resolution.',
        live=True,
        minimum=0,
        maximum=2**62,
    ),
    # The two streams
    ParameterSpec(
        'sync_policy',
        'nearest',
        'How visible and thermal images are paired; the latter two need message_filters.',
        choices=('nearest', 'approximate', 'exact'),
    ),
    ParameterSpec(
        'sync_tolerance',
        0.05,
        'Largest difference in seconds between the stamps of a pair.',
        live=True,
        minimum=0.0,
        maximum=10.0,
    ),
    ParameterSpec(
        'queue_size',
        30,
        'Images of each camera that may wait for their counterpart: those of the faster camera '
        'during a period of the slower one and its extra delay.',
        minimum=1,
        maximum=1000,
    ),
    ParameterSpec(
        'thermal_time_offset',
        0.0,
        'Seconds added to thermal stamps before pairing; negative where they are late.',
        live=True,
        minimum=-10.0,
        maximum=10.0,
    ),
    *(transport_parameter(source) for source in SOURCES),
    ParameterSpec(
        'additional_sources',
        [],
        'Names of further cameras to fuse, each with the topic NAME/image_raw and a parameter '
        'NAME_transport.',
        check=_check_sources,
    ),
    # Where the thermal image lies in the visible one
    ParameterSpec(
        'thermal_to_visible',
        '',
        'Path of the YAML file that calibrate_registration writes; empty where the images are '
        'aligned.',
    ),
    ParameterSpec(
        'extrinsics',
        '',
        'Instead of it, computes the registration from the camera_info of both cameras and the '
        "pose of the thermal camera: path of a YAML file, or 'tf'.",
    ),
    ParameterSpec(
        'plane_distance',
        20.0,
        'Of extrinsics: metres from the visible camera at which both images shall match.',
        live=True,
        minimum=0.01,
        maximum=1e6,
    ),
    ParameterSpec(
        'rectified',
        False,
        'Of extrinsics: the images are rectified (image_rect), so that P of camera_info holds '
        'for them, not K and D.',
    ),
    ParameterSpec(
        'registration_edge',
        16.0,
        'Pixels of the visible image over which the thermal one fades out where it ends.',
        live=True,
        minimum=0.0,
        maximum=1000.0,
    ),
    ParameterSpec(
        'alignment_period',
        5.0,
        'Seconds between two looks whether the images still match, for diagnostics; 0 is never.',
        live=True,
        minimum=0.0,
        maximum=3600.0,
    ),
    ParameterSpec(
        'alignment_tolerance',
        0.02,
        "Part of the visible image's width by which the images may be off until diagnostics warn.",
        live=True,
        minimum=0.0,
        maximum=1.0,
    ),
    # What cameras do wrong
    ParameterSpec(
        'missing_modality',
        'wait',
        'What goes on alone, its weight 1, while the other camera is silent for stale_timeout: '
        'nothing (wait), visible, thermal, or any.',
        live=True,
        choices=MISSING_MODALITIES,
    ),
    ParameterSpec(
        'frozen_timeout',
        0.3,
        'Seconds of the same thermal image, while the visible one changes, until it counts as '
        'frozen and its weight fades out; 0 is never.',
        live=True,
        minimum=0.0,
        maximum=60.0,
    ),
    ParameterSpec(
        'trust_fade',
        0.4,
        'Seconds over which the weight of a faulty camera fades out, and in again.',
        live=True,
        minimum=0.0,
        maximum=60.0,
    ),
    ParameterSpec(
        'max_pixels',
        4096 * 2304,
        'Images of more pixels are refused before they take memory; a fusion takes about 130 '
        'bytes of it for each pixel of the visible image, a chain of many steps up to 450.',
        live=True,
        minimum=1,
        maximum=_MOST_PIXELS,
    ),
    # From thermal counts to an image
    ParameterSpec(
        'thermal_range',
        'auto',
        'How thermal counts become an image: percentile, fixed (thermal_range_limits), encoding '
        '(full range of the type), or auto: percentile, but encoding for 8-bit images.',
        live=True,
        choices=('auto', 'percentile', 'fixed', 'encoding'),
    ),
    ParameterSpec(
        'thermal_range_percentiles',
        [1.0, 99.5],
        '[low, high] percentiles of the counts that become black and white.',
        live=True,
        check=_check_percentiles,
    ),
    ParameterSpec(
        'thermal_range_limits',
        [0.0, 65535.0],
        '[low, high] counts that become black and white where thermal_range is fixed.',
        live=True,
        check=_check_limits,
    ),
    ParameterSpec(
        'thermal_range_smoothing',
        1.0,
        'Time constant in seconds of the percentile range, against flicker; 0 is off.',
        live=True,
        minimum=0.0,
        maximum=60.0,
    ),
    # What comes out
    ParameterSpec(
        'output_encoding',
        'bgr8',
        'Encoding of fused/image_raw.',
        live=True,
        choices=('bgr8', 'rgb8', 'mono8'),
    ),
    ParameterSpec(
        'weights_encoding',
        'mono8',
        'Encoding of the weight maps: mono8 (weight x 255) or 32FC1 (exact).',
        live=True,
        choices=('mono8', '32FC1'),
    ),
    ParameterSpec(
        'stale_timeout',
        2.0,
        'Seconds without a usable image of a camera until diagnostics warn and missing_modality '
        'takes effect.',
        live=True,
        minimum=0.1,
        maximum=3600.0,
    ),
    ParameterSpec(
        'diagnostics_period',
        1.0,
        'Seconds between two diagnostics messages.',
        minimum=0.1,
        maximum=60.0,
    ),
)

PARAMETERS_BY_NAME: dict[str, ParameterSpec] = {spec.name: spec for spec in PARAMETERS}

# The parameters that are settings of the fuser, under the same names.
FUSION_PARAMETERS: tuple[str, ...] = tuple(item.name for item in fields(FusionSettings))


def fusion_settings(values: Mapping[str, Any]) -> FusionSettings:
    """
    Build the fuser's settings from parameter values.

    :raises ValueError: the values do not fit together; the message says which and why.
    """
    return FusionSettings(**{name: values[name] for name in FUSION_PARAMETERS})


def complete_values(given: Mapping[str, Any]) -> dict[str, Any]:
    """
    Return all of the node's parameters: the given ones, and defaults for the rest.

    Names that are not the node's own (``use_sim_time``, ``qos_overrides``) are left out.

    :raises ValueError: a value is refused; the message says which and why.
    """
    values = {spec.name: spec.default for spec in PARAMETERS}
    for spec in PARAMETERS:
        if spec.name in given:
            values[spec.name] = spec.checked(given[spec.name])
    for source in values['additional_sources']:
        spec = transport_parameter(source)
        values[spec.name] = spec.checked(given.get(spec.name, spec.default))
    fusion_settings(values)
    return values


def nearest_name(name: str, known: Iterable[str]) -> str:
    """Return the known name that ``name`` was probably meant to be; empty where none is near."""
    # By the last part, because the group is what gets forgotten.
    by_last_part = {other.rpartition('.')[2]: other for other in known}
    nearest = get_close_matches(name.rpartition('.')[2], by_last_part, 1)
    return by_last_part[nearest[0]] if nearest else ''
