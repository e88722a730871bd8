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

"""How to fuse: the settings of a fuser, checked. No torch, so that a node starts fast."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any, get_args, get_type_hints, Literal, TypeVar

from dig2dig_ros.fusion.degradation import Degradation, DegradationError
from dig2dig_ros.fusion.parameter_spec import nearest_name, ParameterSpec

TimestepSpacing = Literal['quadratic', 'uniform']
Sampler = Literal['increments', 'ddim', 'ancestral']
WeightRule = Literal['dig', 'rd', 'uniform']
Guidance = Literal['score', 'em']
GainLoss = Literal['l2', 'l1', 'ssim']
Chroma = Literal['first', 'all']
PRIOR_DOWNSCALES = (1, 2, 4)

T = TypeVar('T')


def _setting(default: T, description: str, **facts: Any) -> T:
    """Describe a setting; ``facts`` as of :class:`ParameterSpec`, choices also by the type."""
    described: T = field(default=default, metadata={'description': description, **facts})
    return described


def _odd(value: int) -> str | None:
    return None if value % 2 else 'must be odd'


def _odd_or_zero(value: int) -> str | None:
    return None if value == 0 else _odd(value)


def _degradation(text: str) -> str | None:
    try:
        Degradation.parse(text)
    except DegradationError as error:
        return str(error)
    return None


def _visible_degradation(text: str) -> str | None:
    problem = _degradation(text)
    if problem is None and Degradation.parse(text).factor != 1:
        return 'the fused image has the pixels of the visible one: leave out the down-sampling'
    if problem is None and Degradation.parse(text).stripes:
        return 'stripes are only estimated in thermal images: leave out stripes auto'
    if problem is None and Degradation.parse(text).contrast:
        return 'only thermal images are stretched: leave out contrast auto'
    if problem is None and Degradation.parse(text).blur is None:
        return 'only the blur of thermal images is estimated: leave out blur auto'
    return problem


def reduced_timesteps(
    num_inference_steps: int, first_timestep: int, spacing: TimestepSpacing = 'quadratic'
) -> tuple[int, ...]:
    """
    Choose N of the prior's timesteps, noisiest first: the reduced reverse chain.

    ``quadratic`` takes larger steps at high noise and smaller ones at low noise, where a step
    gains more (Dig2DIG, section 4.5): t_i = first_timestep (i / N)^2. ``uniform`` spaces
    evenly. Where rounding would repeat a timestep, the noisier one moves up by one.

    :param num_inference_steps: N, at least 1.
    :param first_timestep: t_N, the noisiest timestep, at least N.
    :return: N strictly decreasing timesteps, all above 0; the end of the chain is the clean image.
    """
    exponent = {'quadratic': 2, 'uniform': 1}[spacing]
    timesteps: list[int] = []
    for i in range(1, num_inference_steps + 1):
        ideal = round(first_timestep * (i / num_inference_steps) ** exponent)
        timesteps.append(max(ideal, timesteps[-1] + 1 if timesteps else 1))
    return tuple(reversed(timesteps))


@dataclass(frozen=True)
class FusionSettings:
    """
    How to fuse. Each setting is described once, next to its default.

    The node's parameters ``fusion.NAME``, the shipped parameter file, the page of parameters and
    the command-line options are generated from these fields, through :data:`SETTINGS`.

    :raises ValueError: a value is refused; the message names the setting, the value and the range.
    """

    sampler: Sampler = _setting(
        'increments',
        'How to fuse: increments (no chain: what each source resolves between two noise levels '
        'is weighted and added up), ddim (the deterministic guided chain) or ancestral (the '
        'chain with fresh noise at every step, Eq. 1 and 3 of the paper).',
    )
    num_inference_steps: int = _setting(
        1, 'N of the paper: steps from noise to image.', limits=(1, 999)
    )
    dig_refresh_interval: int = _setting(
        1,
        'S of the paper: steps between two refreshes of the information gains.',
        limits=(1, 999),
    )
    timestep_spacing: TimestepSpacing = _setting(
        'quadratic',
        'How the steps are spread over the noise levels: quadratic (larger steps at high noise) '
        'or uniform.',
    )
    first_timestep: int = _setting(
        400,
        'Noise level at which fusion starts, at least num_inference_steps; 999 is nearly pure '
        'noise.',
        limits=(1, 999),
    )
    noise_draws: int = _setting(
        0,
        "Number of noise draws over which the sources' estimates are averaged. 0 denoises the "
        'sources without added noise, which is sharper and deterministic; no denoiser was '
        'trained for that, so keep first_timestep at 400 or below.',
        limits=(0, 16),
    )
    prior_downscale: int = _setting(
        1,
        'Downscaling factor before the denoiser: 1, 2 (a quarter of the operations) or 4 (a '
        'sixteenth). Its estimates are enlarged again; the fused image keeps its full '
        'resolution.',
        choices=PRIOR_DOWNSCALES,
    )
    weights: WeightRule = _setting(
        'dig',
        'Weight rule: dig (information gains, Eq. 11), rd (relative dominability, TTD) or '
        'uniform (equal).',
    )
    gain_loss: GainLoss = _setting(
        'l2',
        'Distance between an estimate and its source (l of Eq. 8): l2, l1 or ssim (1 - SSIM).',
    )
    gain_window: int = _setting(
        31,
        'Side in pixels of the window over which the distance is averaged; odd.',
        limits=(1, 99),
        check=_odd,
    )
    structure_window: int = _setting(
        45,
        'The same for the coarse structure, before the first noise level: about the size of the '
        'objects that matter; odd.',
        limits=(1, 999),
        check=_odd,
    )
    normalize_gain: bool = _setting(
        True, 'Divide the gains by their local scale; false is Eq. 11 as printed.'
    )
    temperature: float = _setting(
        1.3,
        'Temperature of the softmax over the sources: low values pick one source, high ones '
        'weight all equally.',
        limits=(0.001, 1000.0),
    )
    structure_temperature: float = _setting(
        6.0,
        'The same for the coarse structure; lower values give more contrast.',
        limits=(0.001, 1000.0),
    )
    least_information: float = _setting(
        0.25,
        "A source with less than this fraction of the best source's information (in nats, mean "
        'over the frame) loses weight, by the square of what is missing: a blind, dark or noisy '
        'camera. 0 turns this off.',
        limits=(0.0, 1.0),
    )
    thermal_strength: float = _setting(
        0.5,
        'Shifts the balance between the cameras: 0 is the visible camera alone, 1 the thermal '
        'one alone; 0.5 leaves it to the information gains.',
        limits=(0.0, 1.0),
    )
    visible_brightness: float = _setting(
        0.0,
        'How much of the visible brightness is kept where the visible image is bright and the '
        'thermal one cold, as in the sky by day: 0 (as much as the weights say) to 1 (all of it). '
        'For images that people look at.',
        limits=(0.0, 1.0),
    )
    decision_window: int = _setting(
        0,
        'Side in pixels of the window in which the gains of all noise levels together choose one '
        'source, for multi-focus; odd. 0 weights every level by its own gains.',
        limits=(0, 99),
        check=_odd_or_zero,
    )
    contrast_gain: float = _setting(
        1.2,
        'Largest amplification that restores contrast lost by averaging the sources; 1 turns '
        'this off.',
        limits=(1.0, 2.0),
    )
    overshoot: float = _setting(
        0.0,
        'How far the fused image may leave the range of the sources at a pixel, as a fraction of '
        'full scale; 1 is no limit.',
        limits=(0.0, 1.0),
    )
    guidance: Guidance = _setting(
        'score',
        'Guidance of a chain (sampler ddim or ancestral): score (the weighted conditional '
        'scores, Eq. 2) or em (the expectation-maximisation step of DDFM, which makes its own '
        'weights).',
    )
    guidance_scale: float = _setting(
        0.9,
        'Strength of the sources relative to the denoiser in a chain; 1 ignores the denoiser.',
        limits=(0.0, 1.0),
    )
    chroma: Chroma = _setting(
        'first',
        'Where colour comes from: first (the visible camera) or all (every source by its weight '
        'and saturation, for multi-focus and multi-exposure).',
    )
    visible_degradation: str = _setting(
        'noise auto',
        'Degradation of the visible camera, to be undone: noise auto (estimated in every image), '
        "none, or terms such as 'blur 1.5, noise auto' (docs/cameras.md).",
        check=_visible_degradation,
    )
    thermal_degradation: str = _setting(
        'stripes auto, contrast auto, blur auto, noise auto',
        'Degradation of the thermal camera, to be undone: stripes auto (column and row offsets), '
        'contrast auto (stretches flat images), blur auto (sharpens blurred and enlarged ones), '
        "noise auto, none, lepton, boson, or terms such as 'x4, noise auto', where x4 is a sensor "
        'with a quarter of the pixels along each side.',
        check=_degradation,
    )
    restoration_steps: int = _setting(
        2,
        'Iterations that undo a degradation other than noise.',
        limits=(1, 100),
    )
    seed: int = _setting(
        0,
        'Seed of the noise, which is drawn once per resolution.',
        limits=(0, 2**31 - 1),
    )

    def __post_init__(self) -> None:
        for name, spec in SETTINGS.items():
            spec.checked(getattr(self, name))
        if self.first_timestep < self.num_inference_steps:
            raise ValueError(
                f'first_timestep is {self.first_timestep}, but must be at least '
                f'{self.num_inference_steps} (num_inference_steps)'
            )
        if self.guidance != 'score' and self.sampler == 'increments':
            raise ValueError(
                f"guidance is {self.guidance!r}, but sampler 'increments' has no chain to guide: "
                'use score, or sampler ddim or ancestral'
            )

    def changed(self, **changes: Any) -> FusionSettings:
        """
        Return these settings with some of them changed.

        :raises TypeError: there is no setting of this name; the message suggests the nearest one.
        :raises ValueError: a value is refused.
        """
        for name in changes.keys() - SETTINGS.keys():
            nearest = nearest_name(name, SETTINGS)
            raise TypeError(
                f"there is no setting '{name}': "
                + (f"did you mean '{nearest}'?" if nearest else 'see docs/parameters.md')
            )
        # Numbers of NumPy, as from a sweep, become Python's.
        values = {
            name: value.item() if hasattr(value, 'item') else value
            for name, value in changes.items()
        }
        return replace(self, **values)

    def degradations(self, sources: int) -> tuple[Degradation, ...]:
        """Return the degradation of each source; it is only declared for the first two."""
        declared = (
            Degradation.parse(self.visible_degradation),
            Degradation.parse(self.thermal_degradation),
        )
        return (declared + (Degradation(),) * sources)[:sources]

    @property
    def timesteps(self) -> tuple[int, ...]:
        """The visited timesteps t_N > ... > t_1 > 0."""
        return reduced_timesteps(
            self.num_inference_steps, self.first_timestep, self.timestep_spacing
        )

    @property
    def refresh_timesteps(self) -> tuple[int, ...]:
        """
        The timesteps at which the gains are refreshed, noisiest first.

        That is at every S-th step, including the first one; they are measured over the following S
        steps (Dig2DIG, section 4.5).
        """
        return self.timesteps[:: self.dig_refresh_interval]


def _described_settings() -> dict[str, ParameterSpec]:
    types = get_type_hints(FusionSettings)
    return {
        setting.name: ParameterSpec(
            setting.name,
            setting.default,
            live=True,
            **{'choices': get_args(types[setting.name]), **setting.metadata},
        )
        for setting in fields(FusionSettings)
    }


# The meaning and allowed values of each setting, by name.
SETTINGS: dict[str, ParameterSpec] = _described_settings()
