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
From K sources to the fused image: the reverse chain, and its reduced-step version.

==================  ==========================================================
here                Dig2DIG
==================  ==========================================================
settings.timesteps  the N reverse steps t_N > ... > t_1
noise(i)            eps of Eq. 9, the same for all sources and timesteps; z of Eq. 1
estimates           c_hat_k^t (Eq. 10)
gains, weights      DIG_k(t) (Eq. 8), w_k(t) (Eq. 11), refreshed every S steps
x, x0               x_t and the estimate of the clean image made from it
level               alpha_bar_t
==================  ==========================================================

Every step is a sum as in Eq. 3: what is kept of x_t, the unconditional and the multimodal
guidance, and noise. docs/method.md derives the increments from the chain.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
import math

import torch
from torch import Tensor

from dig2dig_ros.fusion.estimates import add_noise, estimate_sources, timesteps_on
from dig2dig_ros.fusion.guidance import em_guidance, score_guidance, weighted_increment
from dig2dig_ros.fusion.information_gain import (
    pure_noise_estimate,
    refined,
    uniform_weights,
    weigh_sources,
    Weighing,
)
from dig2dig_ros.fusion.observation import Observation
from dig2dig_ros.fusion.restoration import jointly_corrected
from dig2dig_ros.fusion.settings import FusionSettings
from dig2dig_ros.priors.base import Prior


@dataclass(frozen=True)
class StepState:
    """
    What a step callback sees; tensors live on the device and must not be changed.

    The state after the step is ``kept + unconditional + multimodal + noise``, the terms of Eq. 3.

    Shapes are (1, 1, H, W) where nothing else is said.

    :param step: 0-based, noisiest first.
    :param timestep: t at its beginning; the first step of ``increments`` begins at pure noise,
        one above the prior's last timestep.
    :param x: the state before the step: x_t, or what ``increments`` has resolved.
    :param x0: the prior's estimate of the clean image from it; with ``increments`` the state.
    :param guided: that estimate after the guidance.
    :param weights: (K, 1, H, W), in force at this step.
    :param gains: (K, 1, h, w), the evidence that they follow from, see
        :class:`~dig2dig_ros.fusion.information_gain.Weighing`; zero where they follow from none.
    :param kept: x_t / sqrt(alpha), with alpha over the whole step.
    :param unconditional: what the score of the prior adds.
    :param multimodal: what the weighted conditional scores of the sources add.
    :param noise: sigma z; zero except in the ``ancestral`` chain.
    """

    step: int
    timestep: int
    x: Tensor
    x0: Tensor
    guided: Tensor
    weights: Tensor
    gains: Tensor
    kept: Tensor
    unconditional: Tensor
    multimodal: Tensor
    noise: Tensor


@dataclass(frozen=True)
class Sample:
    """
    The result of a sampler, in R intervals between refreshes of the gains.

    :param fused: (1, 1, H, W) in about [-1, 1], not clipped.
    :param weights: (R, K, 1, H, W), one map for each source and interval. The first interval of
        ``increments`` lies between pure noise and the first refresh.
    :param weighing: the same on a grid of cells, with the evidence that they follow from.
    """

    fused: Tensor
    weights: Tensor
    weighing: Weighing

    @torch.inference_mode()
    def mean_weights(self) -> Tensor:
        """Return :meth:`Weighing.mean_weights` for every pixel, (K, 1, H, W)."""
        return self._refined(self.weighing.mean_weights())

    @torch.inference_mode()
    def contributions(self) -> Tensor:
        """Return :meth:`Weighing.contributions` for every pixel, (K, 1, H, W)."""
        return self._refined(self.weighing.contributions())

    def _refined(self, planes: Tensor) -> Tensor:
        return refined(planes, self.weighing.cell, *self.fused.shape[-2:])


Callback = Callable[[StepState], None]
Noise = Callable[[int], Tensor]


@torch.inference_mode()
def sample(
    prior: Prior,
    sources: Tensor,
    noise: Noise,
    settings: FusionSettings,
    callback: Callback | None = None,
    observations: Sequence[Observation | None] = (),
    sensor_noise: Tensor | None = None,
    sharpness: Tensor | None = None,
) -> Sample:
    """
    Fuse K sources as the settings ask for.

    :param sources: (K, 1, H, W) in [-1, 1].
    :param noise: gives the i-th draw of standard normal noise, (1, 1, H, W), always the same one;
        the result is a function of it.
    :param callback: called after every step.
    :param observations: for each source in turn, what its camera saw of it, degraded; None, and
        for those left out, where the source is what was seen. A chain corrects such a source at
        every step, together with the fused image; ``increments`` takes it as it is.
    :param sensor_noise: see :func:`~dig2dig_ros.fusion.information_gain.weigh_sources`.
    :param sharpness: likewise.
    :raises PriorError: the prior was not trained for the timesteps of the settings.
    """
    prior.check_timesteps(settings.timesteps)
    if settings.sampler == 'increments':
        return _sum_increments(prior, sources, noise, settings, callback, sensor_noise, sharpness)
    return _follow_chain(
        prior, sources, noise, settings, callback, observations, sensor_noise, sharpness
    )


def _sum_increments(
    prior: Prior,
    sources: Tensor,
    noise: Noise,
    settings: FusionSettings,
    callback: Callback | None,
    sensor_noise: Tensor | None,
    sharpness: Tensor | None,
) -> Sample:
    """
    Sum up what the sources resolve between refreshes, each increment weighted by its own gain.

    Between two refreshes, the reverse process of source k resolves c_hat_k^{t'} - c_hat_k^t. What
    has been resolved before the first refresh is an interval as well: it begins at pure noise,
    where no prior has to be asked.
    """
    timesteps = (prior.num_train_timesteps, *settings.refresh_timesteps)
    draws = [noise(index) for index in range(settings.noise_draws)]
    estimates, _ = estimate_sources(prior, sources, timesteps[1:], draws, settings.prior_downscale)
    weighing = weigh_sources(estimates, sources, settings, True, sensor_noise, sharpness)
    weights = refined(weighing.weights, weighing.cell, *sources.shape[-2:])
    known = [pure_noise_estimate(sources), *estimates, sources]

    if settings.decision_window:
        # One decision for all intervals holds for the mean brightness, too.
        fused = (weights[0] * known[0]).sum(dim=0, keepdim=True)
    else:
        # The mean of all, plus what the shares differ from equal ones.
        beyond = (weighing.shares - 1 / len(sources)) * known[0]
        fused = (known[0].mean(dim=0, keepdim=True) + beyond.sum(dim=0, keepdim=True)).contiguous()
    for step, (before, target) in enumerate(pairwise(known)):
        # Contrast of coarse structure is between distant places, that of details within a window.
        window = settings.gain_window if step > 0 else None
        resolved = weighted_increment(
            target - before, weights[step], settings.contrast_gain, window
        )
        x, fused = fused, _clamped(resolved.add_(fused), target, settings.overshoot)
        if callback is not None:
            nothing = torch.zeros_like(x)
            callback(
                StepState(
                    step=step,
                    timestep=timesteps[step],
                    x=x,
                    x0=x,
                    guided=fused,
                    weights=weights[step],
                    gains=weighing.gains[step],
                    kept=x,
                    unconditional=nothing,
                    multimodal=fused - x,
                    noise=nothing,
                )
            )
    return Sample(fused, weights, weighing)


def _clamped(fused: Tensor, target: Tensor, overshoot: float) -> Tensor:
    """Clamp ``fused`` to what the sources span at a pixel: what is beyond is a halo."""
    if overshoot >= 1:
        return fused
    lowest, highest = target.amin(dim=0, keepdim=True), target.amax(dim=0, keepdim=True)
    if overshoot > 0:
        # Settings speak of the full range, which is [-1, 1] here.
        lowest -= 2 * overshoot
        highest += 2 * overshoot
    return fused.clamp_(lowest, highest)


def _follow_chain(
    prior: Prior,
    sources: Tensor,
    noise: Noise,
    settings: FusionSettings,
    callback: Callback | None,
    observations: Sequence[Observation | None],
    sensor_noise: Tensor | None,
    sharpness: Tensor | None,
) -> Sample:
    """Follow the guided reverse chain: Eq. 3, with alpha over the whole of a reduced step."""
    timesteps = timesteps_on(sources.device, settings.timesteps)
    levels = [*prior.levels(settings.timesteps), 1.0]
    # With the same noise for all, the mean of the noisy sources is the noisy mean: x_{t_N}.
    x = add_noise(prior, sources.mean(dim=0, keepdim=True), timesteps[:1], noise(0))
    x0, weighing = _begin(prior, sources, noise, settings, x, sensor_noise, sharpness)
    weights = refined(weighing.weights, weighing.cell, *sources.shape[-2:])
    scales = sources.new_ones((len(sources), 1, 1, 1))
    for step, (level, following) in enumerate(pairwise(levels)):
        if step > 0:
            x0 = prior.denoise(x, timesteps[step : step + 1])
        interval = step // settings.dig_refresh_interval
        share = weights[interval]
        if settings.guidance == 'em':
            rectified, share, scales = em_guidance(x0, sources, scales)
            weights[interval] = share
            guided = torch.lerp(x0, rectified, settings.guidance_scale)
        else:
            scale = settings.guidance_scale
            seen = _corrected(x0, sources, share, scale, observations, level)
            guided = score_guidance(x0, seen, share, scale)

        # The scores of Eq. 2: of the prior, and of the sources under their weights.
        score = (math.sqrt(level) * x0 - x) / (1 - level)
        conditional = math.sqrt(level) * (guided - x0) / (1 - level)
        rate, sigma = _STEPS[settings.sampler](level, following)
        kept = x / math.sqrt(level / following)
        unconditional, multimodal = rate * score, rate * conditional
        before, x = x, kept + unconditional + multimodal
        fresh = sigma * noise(1 + step) if sigma > 0 else None
        if fresh is not None:
            x = x + fresh
        if callback is not None:
            callback(
                StepState(
                    step=step,
                    timestep=settings.timesteps[step],
                    x=before,
                    x0=x0,
                    guided=guided,
                    weights=share,
                    gains=weighing.gains[interval],
                    kept=kept,
                    unconditional=unconditional,
                    multimodal=multimodal,
                    noise=torch.zeros_like(x) if fresh is None else fresh,
                )
            )
    return Sample(x, weights, weighing)


def _begin(
    prior: Prior,
    sources: Tensor,
    noise: Noise,
    settings: FusionSettings,
    x: Tensor,
    sensor_noise: Tensor | None,
    sharpness: Tensor | None,
) -> tuple[Tensor, Weighing]:
    """
    Return the estimate made from x_{t_N}, and how the sources are weighed, in one prior call.

    Uniform weights, and those that EM makes, do not ask what the sources gain.
    """
    if settings.guidance == 'em' or settings.weights == 'uniform':
        nothing = sources.new_zeros((len(settings.refresh_timesteps), *sources.shape))
        x0 = prior.denoise(x, timesteps_on(x.device, settings.timesteps[:1]))
        shares = sources.new_full((len(sources), 1, 1, 1), 1 / len(sources))
        return x0, Weighing(nothing, uniform_weights(nothing), 1, shares)
    draws = [noise(index) for index in range(settings.noise_draws)]
    estimates, x0 = estimate_sources(
        prior, sources, settings.refresh_timesteps, draws, settings.prior_downscale, x
    )
    return x0, weigh_sources(estimates, sources, settings, False, sensor_noise, sharpness)


def _corrected(
    x0: Tensor,
    sources: Tensor,
    weights: Tensor,
    guidance_scale: float,
    observations: Sequence[Observation | None],
    level: float,
) -> Tensor:
    """
    Return the restored sources, corrected by x0 and by what the cameras saw of them.

    Of the restored ones at every step: from step to step, what no camera saw of the early
    estimates, which are nearly noise, would pile up in them.
    """
    if all(observation is None for observation in observations):
        return sources
    uncertainty = math.sqrt(min(1.0, (1 - level) / level))
    return jointly_corrected(x0, sources, weights, guidance_scale, observations, uncertainty)


def _ancestral_step(level: float, following: float) -> tuple[float, float]:
    """
    Return how much of the scores a step of Eq. 1 takes in, and the deviation of its noise.

    :param level: alpha_bar at its beginning.
    :param following: alpha_bar at its end.
    """
    alpha = level / following
    sigma = math.sqrt((1 - alpha) * (1 - following) / (1 - level))
    return (1 - alpha) / math.sqrt(alpha), sigma


def _ddim_step(level: float, following: float) -> tuple[float, float]:
    """Return the same of a deterministic step (Song et al., "DDIM", ICLR 2021, Eq. 12)."""
    alpha = level / following
    return (1 - level) / math.sqrt(alpha) - math.sqrt((1 - following) * (1 - level)), 0.0


_STEPS = {'ancestral': _ancestral_step, 'ddim': _ddim_step}
