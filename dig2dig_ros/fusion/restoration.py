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
Restoration of a degraded source: the prior and the observation model take turns.

What should be fused is not what a camera gave, y = A c + n, but the scene c:

1. The prior takes the noise from y where it is white: in the observed image, at the noise level
   of that very image. It is a denoiser, and this is what it was trained for.
2. Data consistency: c becomes the best linear estimate given the prior's estimate and y.
3. The prior denoises c, at a level that falls from step to step.

Steps 2 and 3 are half-quadratic splitting with the prior as the regulariser (Zhang et al.,
"Plug-and-play image restoration with deep denoiser prior", TPAMI 2022), with the regularised
pseudo-inverse for the quadratic half. No noise is added on the way: a small prior would leave it
in. A source that is only denoised is done after step 1.

A chain corrects its estimates at every step in the same terms: the sources with
:func:`data_consistent`, and f = sum_k w_k c_k with :func:`fusion_consistent`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
import math

import torch
from torch import Tensor
import torch.nn.functional as F

from dig2dig_ros.fusion.colour import replace_luma
from dig2dig_ros.fusion.degradation import DegradationError
from dig2dig_ros.fusion.denoising import LUMA_NOISE, smoothed_chroma, with_luma
from dig2dig_ros.fusion.estimates import denoise
from dig2dig_ros.fusion.linear_operators import Identity, LinearOperator
from dig2dig_ros.fusion.observation import GREY_LEVEL, Observation
from dig2dig_ros.priors.base import Prior

# Least noise to reckon with: that of rounding to 8 bits is 0.29, and no blur is known exactly.
NOISE_FLOOR = 0.45 * GREY_LEVEL
# Less noise than this is not worth a call of the prior, and cannot be separated from texture.
NEGLIGIBLE_NOISE = 2.0 * GREY_LEVEL
# Part of the noise that is left after the prior has denoised an observation; and that part of
# it which no scene explains, since the prior leaves nothing as fine as that.
_NOISE_LEFT, _FINE_NOISE_LEFT = 0.2, 0.05
# How steeply the confidence in an operator falls where it explains the observation badly.
_MISTRUST = 3
# Noise levels of the prior between which restoration goes down.
_FIRST_LEVEL, _LAST_LEVEL = 6.0 * GREY_LEVEL, 1.5 * GREY_LEVEL
# What a blur took is less certain than the level says at which the prior last denoised: by this
# factor, the variance of the estimate is larger.
_UNCERTAINTY = 10.0


def data_consistent(estimate: Tensor, observation: Observation, deviation: float) -> Tensor:
    """
    Correct an estimate by what was observed: ``argmin |y - A c|^2 / s^2 + |c - c_hat|^2 / d^2``.

    :param estimate: c_hat, (1, 1, H, W).
    :param deviation: d, how far off the estimate is, on [-1, 1]; positive.
    :return: (1, 1, H, W). Without noise (s = 0) it is what satisfies y = A c nearest to c_hat.
    """
    operator = observation.operator
    innovation = observation.image - operator(estimate)
    return estimate + operator.pseudo_inverse(innovation, (observation.noise / deviation) ** 2)


def fusion_consistent(
    estimate: Tensor, sources: Tensor, weights: Tensor, guidance_scale: float
) -> tuple[Tensor, Tensor]:
    """
    Return the nearest point to (f_hat, c_1 .. c_K) on the plane f = sum_k w_k c_k.

    The squared distance of the c_k counts lambda sum_k w_k^2 / (1 - lambda) times that of f: so f
    moves just as :func:`~dig2dig_ros.fusion.guidance.score_guidance` moves it, which is this
    projection with the sources held; and the sources move by what is missing.

    :param estimate: f_hat, (1, 1, H, W), the prior's.
    :param sources: (K, 1, H, W).
    :param weights: (K, 1, H, W), summing to 1 over the sources.
    :param guidance_scale: lambda, 0 to 1; 1 keeps the sources.
    :return: f, (1, 1, H, W), and the sources, (K, 1, H, W).
    """
    misfit = estimate - (weights * sources).sum(dim=0, keepdim=True)
    power = weights.square().sum(dim=0, keepdim=True)
    fused = estimate - guidance_scale * misfit
    return fused, sources + (1 - guidance_scale) * weights / power * misfit


def jointly_corrected(
    estimate: Tensor,
    sources: Tensor,
    weights: Tensor,
    guidance_scale: float,
    observations: Sequence[Observation | None],
    uncertainty: float,
) -> Tensor:
    """
    Return the sources, corrected by what f is estimated to be and by what the cameras saw of them.

    Projected on the fusion constraint first, on those of the cameras then, which are closer to
    the truth.

    Of an observation with noise, the noise would come back with every step: give it as
    :func:`explained` returns it.

    :param estimate: f_hat, (1, 1, H, W), the prior's.
    :param sources: (K, 1, H, W).
    :param weights: (K, 1, H, W), summing to 1 over the sources.
    :param guidance_scale: lambda, see :func:`fusion_consistent`.
    :param observations: for each source in turn; one without, or with None, stays as it is.
    :param uncertainty: how far off the estimate is, on [-1, 1]; positive. The sources are never
        further off than restoration left them.
    :return: (K, 1, H, W).
    """
    _, moved = fusion_consistent(estimate, sources, weights, guidance_scale)
    uncertainty = min(uncertainty, _LAST_LEVEL * math.sqrt(_UNCERTAINTY))
    corrected = [sources[index : index + 1] for index in range(len(sources))]
    for index, observation in enumerate(observations):
        if observation is not None:
            level = math.hypot(observation.noise, NOISE_FLOOR)
            level *= _mistrust(observation.operator, observation.image, level)
            observed = replace(observation, noise=level)
            corrected[index] = data_consistent(moved[index : index + 1], observed, uncertainty)
    return torch.cat(corrected)


@torch.inference_mode()
def restore(prior: Prior, observation: Observation, steps: int = 2) -> Tensor:
    """
    Restore the scene that a camera saw degraded.

    An operator that leaves much of the observation unexplained is trusted less, so that a blur
    which is declared but not there is not undone.

    :param steps: of data consistency and prior, for operators other than the identity.
    :return: (1, 1, H, W) in about [-1, 1], the scene.
    """
    if steps < 1:
        raise ValueError(f'steps is {steps}, but must be at least 1')
    operator, noise = observation.operator, observation.noise
    image = observation.image
    level = expected = math.hypot(noise, NOISE_FLOOR)
    if noise >= NEGLIGIBLE_NOISE:
        image = denoise(prior, image, noise)
        level = math.hypot(_NOISE_LEFT * noise, NOISE_FLOOR)
        expected = math.hypot(_FINE_NOISE_LEFT * noise, NOISE_FLOOR)
    if isinstance(operator, Identity):
        return image
    level *= _mistrust(operator, image, expected)
    cleaned = Observation(image, operator, level)
    scene = _enlarged(image, operator)
    spread = math.sqrt(_UNCERTAINTY)
    for step in range(steps):
        certainty = _FIRST_LEVEL * (_LAST_LEVEL / _FIRST_LEVEL) ** (step / max(1, steps - 1))
        scene = data_consistent(scene, cleaned, certainty * spread)
        scene = denoise(prior, scene, certainty)
    return data_consistent(scene, cleaned, _LAST_LEVEL * spread)


def explained(observation: Observation, scene: Tensor) -> Observation:
    """
    Return an observation without the noise that a restoration took from it.

    :param scene: (1, 1, H, W) on [-1, 1], what :func:`restore` made of it.
    """
    operator = observation.operator
    return Observation(operator(scene), operator, _NOISE_LEFT * observation.noise)


@torch.inference_mode()
def restore_colour(prior: Prior, bgr: Tensor, observation: Observation, steps: int = 2) -> Tensor:
    """
    Restore a colour image that a camera gave degraded: the luma as :func:`restore` does.

    The chroma is freed from noise; the eye, and what is fused, need no sharp one.

    :param bgr: (3, h, w), blue first, in [0, 1].
    :param observation: of its luma, without down-sampling.
    :return: (3, h, w) in [0, 1].
    :raises DegradationError: it has down-sampling.
    """
    if observation.operator.input_size != observation.operator.output_size:
        raise DegradationError(
            'down-sampling is declared of an image with colour, which is fused in the pixels that '
            'it has: leave that term out'
        )
    scene = restore(prior, observation, steps)
    restored = (scene[0, 0] + 1) / 2
    if observation.noise < NEGLIGIBLE_NOISE:
        return replace_luma(bgr, restored)
    level = bgr.new_tensor(observation.noise / 2 / LUMA_NOISE)
    return with_luma(smoothed_chroma(bgr, restored, level), restored)


def _mistrust(operator: LinearOperator, image: Tensor, expected: float) -> float:
    """
    Return the factor, 1 or more, by which to overstate the noise of an observation.

    A blur that is declared where there is none, or less, would make the image worse than it is.

    :param image: (1, 1, h, w), the observed image.
    :param expected: deviation of the noise in it, of frequencies that no scene explains.
    """
    if isinstance(operator, Identity):
        return 1.0
    return max(1.0, operator.misfit(image) / expected) ** _MISTRUST


def _enlarged(image: Tensor, operator: LinearOperator) -> Tensor:
    """Return a first guess of the scene, (1, 1, H, W)."""
    if operator.output_size == operator.input_size:
        return image
    enlarged = F.interpolate(image, operator.input_size, mode='bicubic', align_corners=False)
    return enlarged.clamp(-1, 1)
