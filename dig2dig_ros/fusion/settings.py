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

"""How to fuse: the settings of a fuser, checked. Free of torch, so that a node starts fast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dig2dig_ros.fusion.degradation import Degradation, DegradationError

TimestepSpacing = Literal['quadratic', 'uniform']
TIMESTEP_SPACINGS: tuple[TimestepSpacing, ...] = ('quadratic', 'uniform')
Sampler = Literal['increments', 'ddim', 'ancestral']
SAMPLERS: tuple[Sampler, ...] = ('increments', 'ddim', 'ancestral')
WeightRule = Literal['dig', 'rd', 'uniform']
WEIGHT_RULES: tuple[WeightRule, ...] = ('dig', 'rd', 'uniform')
Guidance = Literal['score', 'em']
GUIDANCES: tuple[Guidance, ...] = ('score', 'em')
GainLoss = Literal['l2', 'l1', 'ssim']
GAIN_LOSSES: tuple[GainLoss, ...] = ('l2', 'l1', 'ssim')
Chroma = Literal['first', 'all']
CHROMAS: tuple[Chroma, ...] = ('first', 'all')
PRIOR_DOWNSCALES = (1, 2, 4)


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
    How to fuse. Every value is checked; the error names the setting, its value and the range.

    :param sampler: ``increments``, the reduced-step version: no chain, what the sources resolve
        between the refreshes is weighted and summed up; ``ddim``, the deterministic guided chain;
        ``ancestral``, the one with fresh noise at every step (Eq. 1 and 3).
    :param num_inference_steps: N, steps of the reverse chain.
    :param dig_refresh_interval: S, steps between two refreshes of the information gains.
    :param timestep_spacing: ``quadratic`` (larger steps at high noise) or ``uniform``.
    :param first_timestep: t_N, where the chain starts; 999 is nearly pure noise.
    :param noise_draws: draws of noise over which the sources' estimates are averaged; 0 denoises
        them without noise, which is sharper and deterministic but needs a ``first_timestep`` of
        at most about 400, because no prior was trained on such an input.
    :param prior_downscale: 1, 2 or 4: the prior sees the noisy sources with so many pixels a side
        averaged into one, which takes a quarter or a sixteenth of its operations, and its
        estimates are interpolated. The fused image keeps all its pixels: what the estimates lack
        is in the last increment. Averaging takes noise away, and the prior is told so; timesteps
        mean the same as without. In a chain, this is for the sources' estimates alone.
    :param weights: ``dig`` (Eq. 11), ``rd`` (relative dominability, TTD) or ``uniform`` (1/K, the
        static baseline).
    :param gain_loss: l of Eq. 8: ``l2``, ``l1`` or ``ssim`` (1 - SSIM).
    :param gain_window: side of the window that l averages over, odd, in pixels.
    :param structure_window: the same for the coarse structure, which the prior resolves before
        the first refresh; about the size of the objects that matter.
    :param normalize_gain: divide the gains by their local scale; false is Eq. 11 as printed.
    :param temperature: of the softmax over the sources; small is decisive, large is uniform.
    :param structure_temperature: the same for the coarse structure.
    :param contrast_gain: by how much ``increments`` may be amplified to make up for the contrast
        that averaging takes from them; 1 is off.
    :param overshoot: of ``increments``: by how much, of the full range, the fused image may leave
        what the sources span at a pixel; 1 is no limit.
    :param guidance: of a chain: ``score`` (the weighted conditional scores, Eq. 2) or ``em``
        (the expectation-maximisation step of DDFM, which makes its own weights).
    :param guidance_scale: of a chain: strength of the sources against the prior, 0 to 1.
    :param chroma: whose colour the fused image has: ``first`` (of the first source, the visible
        camera) or ``all`` (of all sources by weight and saturation: multi-focus, multi-exposure).
    :param visible_degradation: how the first source's camera degrades the scene, see
        :class:`~dig2dig_ros.fusion.degradation.Degradation`; ``none`` takes its image as it is.
    :param thermal_degradation: the same of the second source.
    :param restoration_steps: steps of data consistency and prior that undo a degradation other
        than noise.
    :param seed: of the noise, which is drawn once for each resolution.
    """

    sampler: Sampler = 'increments'
    num_inference_steps: int = 1
    dig_refresh_interval: int = 1
    timestep_spacing: TimestepSpacing = 'quadratic'
    first_timestep: int = 400
    noise_draws: int = 0
    prior_downscale: int = 1
    weights: WeightRule = 'dig'
    gain_loss: GainLoss = 'l2'
    gain_window: int = 31
    structure_window: int = 45
    normalize_gain: bool = True
    temperature: float = 1.3
    structure_temperature: float = 6.0
    contrast_gain: float = 1.2
    overshoot: float = 0.0
    guidance: Guidance = 'score'
    guidance_scale: float = 0.9
    chroma: Chroma = 'first'
    visible_degradation: str = 'none'
    thermal_degradation: str = 'none'
    restoration_steps: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        def require(condition: bool, name: str, expected: str) -> None:
            if not condition:
                raise ValueError(f'{name} is {getattr(self, name)!r}, but must be {expected}')

        require(self.sampler in SAMPLERS, 'sampler', f'one of {SAMPLERS}')
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
        require(0 <= self.noise_draws <= 16, 'noise_draws', '0 to 16')
        require(
            self.prior_downscale in PRIOR_DOWNSCALES,
            'prior_downscale',
            f'one of {PRIOR_DOWNSCALES}',
        )
        require(self.weights in WEIGHT_RULES, 'weights', f'one of {WEIGHT_RULES}')
        require(self.gain_loss in GAIN_LOSSES, 'gain_loss', f'one of {GAIN_LOSSES}')
        require(
            1 <= self.gain_window <= 99 and self.gain_window % 2 == 1,
            'gain_window',
            'odd, 1 to 99',
        )
        require(
            1 <= self.structure_window <= 999 and self.structure_window % 2 == 1,
            'structure_window',
            'odd, 1 to 999',
        )
        for name in ('temperature', 'structure_temperature'):
            require(0 < getattr(self, name) < float('inf'), name, 'positive and finite')
        require(1 <= self.contrast_gain <= 2, 'contrast_gain', '1 to 2')
        require(0 <= self.overshoot <= 1, 'overshoot', '0 to 1')
        require(self.guidance in GUIDANCES, 'guidance', f'one of {GUIDANCES}')
        require(
            self.guidance == 'score' or self.sampler != 'increments',
            'guidance',
            "score, or sampler ddim or ancestral: sampler 'increments' has no chain to guide",
        )
        require(0 <= self.guidance_scale <= 1, 'guidance_scale', '0 to 1')
        require(self.chroma in CHROMAS, 'chroma', f'one of {CHROMAS}')
        for name in ('visible_degradation', 'thermal_degradation'):
            try:
                Degradation.parse(getattr(self, name))
            except DegradationError as error:
                raise ValueError(f'{name}: {error}') from error
        if Degradation.parse(self.visible_degradation).factor != 1:
            raise ValueError(
                f'visible_degradation is {self.visible_degradation!r}, but the fused image has '
                'the pixels of the visible one: declare no down-sampling of it'
            )
        require(1 <= self.restoration_steps <= 100, 'restoration_steps', '1 to 100')
        require(0 <= self.seed < 2**63, 'seed', '0 to 2^63 - 1')

    def degradations(self, sources: int) -> tuple[Degradation, ...]:
        """Return how each of the sources is degraded; only of the first two it is declared."""
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

        That is at every S-th step, the first one included; they are measured over the S steps
        that follow (Dig2DIG, section 4.5).
        """
        return self.timesteps[:: self.dig_refresh_interval]
