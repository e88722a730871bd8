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
What the weights should follow, and what the sources gain: Theorem 1 and Figure 5 of Dig2DIG.

==============================  =======================================================
here                            Dig2DIG
==============================  =======================================================
distance                        zeta, Eq. 4, of the estimate
GuidanceCovariance.projection   B_k, Eq. 7
GuidanceCovariance.covariance   Cov(w_k, B_k), Eq. 5
GuidanceCovariance.coefficient  A, Eq. 5
cumulative_gain                 the curves of Figure 5
==============================  =======================================================

The theorem takes expectations over data. Here a datum is the neighbourhood of a pixel, so that
the weights, which differ from pixel to pixel, have a covariance within one image:

- With <a, b> the mean of a b over the window around pixel p (:func:`local_mean`, the window that
  the gains are averaged over), zeta is the local distance |x_hat_0(x_t) - x*|: of the estimate,
  because the distance of x_t itself is mostly noise. As in :mod:`dig2dig_ros.fusion.guidance`,
  there is no back-propagation through the prior, so d x_hat_0 / d x_t = 1 / sqrt(alpha_bar_t).
- Then v_t = (x* - x_hat_0) / (sqrt(alpha_bar_t) |x* - x_hat_0|), whose norm is the same
  1 / sqrt(alpha_bar_t) everywhere. With the conditional score s_k = sqrt(alpha_bar_t) /
  (1 - alpha_bar_t) lambda (c_k - x_hat_0), B_k(p) = |s_k| cos(theta) = <s_k, x* - x_hat_0> /
  |x* - x_hat_0|.
- Cov(w_k, B_k) is over the pixels p of an image. A is the coefficient of the conditional score in
  the step (Eq. 3) times |v_t|, so that A sum_k Cov(w_k, B_k) is in image units: what the step
  takes off the mean of zeta because the weights follow B. That holds to first order, for weights
  that hardly change within a window. Long steps at strong noise do far less than that, since the
  theorem counts the second order as constant.

Besides, the step takes off A sum_k E[w_k] E[B_k], which the proof holds to be equal for all
weights that sum to 1. That is so only where all sources have the same E[B_k] or E[w_k] = 1 / K;
:attr:`GuidanceCovariance.mean_term` says what it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
import math

import numpy as np
from numpy.typing import NDArray
import torch
from torch import Tensor
import torch.nn.functional as F

from dig2dig_ros.fusion.estimates import estimate_sources
from dig2dig_ros.fusion.information_gain import local_mean, reconstruction_loss
from dig2dig_ros.fusion.sampler import StepState
from dig2dig_ros.fusion.settings import GainLoss
from dig2dig_ros.priors.base import Prior


@dataclass(frozen=True)
class GuidanceCovariance:
    """
    How the weights of one step go with what each source contributes towards the ideal.

    :param timestep: t.
    :param coefficient: A, with the norm of v_t; image units ([-1, 1]) for a unit of score, to
        first order.
    :param covariance: Cov(w_k, B_k) over the pixels for each source, in units of score.
    :param weight: E[w_k] for each source.
    :param projection: E[B_k] for each source.
    :param correlation: sum_k Cov(w_k, B_k) over the square root of sum_k Var(w_k) sum_k Var(B_k),
        in [-1, 1]; NaN where the weights, or the B_k, are the same everywhere.
    """

    timestep: int
    coefficient: float
    covariance: tuple[float, ...]
    weight: tuple[float, ...]
    projection: tuple[float, ...]
    correlation: float

    @property
    def total(self) -> float:
        """Return sum_k Cov(w_k, B_k)."""
        return math.fsum(self.covariance)

    @property
    def covariance_term(self) -> float:
        """Return A sum_k Cov(w_k, B_k): what the step takes off the bound of Eq. 5."""
        return self.coefficient * self.total

    @property
    def mean_term(self) -> float:
        """Return A sum_k (E[w_k] - 1 / K) E[B_k], what the theorem leaves out; 0 if uniform."""
        shift = [weight - 1 / len(self.weight) for weight in self.weight]
        return self.coefficient * math.fsum(
            d * b for d, b in zip(shift, self.projection, strict=True)
        )


def distance(image: Tensor, ideal: Tensor, window: int) -> Tensor:
    """
    Return zeta: the root of the mean squared difference over the window around each pixel.

    :param image: (..., H, W).
    :param ideal: of the same shape.
    :param window: odd side in pixels.
    :return: (..., H, W), not negative.
    """
    return local_mean((image - ideal).square(), window).clamp_min(0).sqrt()


def project(
    estimate: Tensor,
    sources: Tensor,
    ideal: Tensor,
    level: float,
    guidance_scale: float,
    window: int,
) -> Tensor:
    """
    Return B_k: the conditional scores of the sources, projected on the ideal direction (Eq. 7).

    :param estimate: (1, 1, H, W), x_hat_0.
    :param sources: (K, 1, H, W), in the range of the estimate.
    :param ideal: (1, 1, H, W), x*.
    :param level: alpha_bar_t.
    :param guidance_scale: lambda, strength of the likelihood.
    :param window: odd side in pixels.
    :return: (K, 1, H, W); zero where the estimate is ideal in the whole window: there is no
        direction to go.
    """
    direction = ideal - estimate
    length = distance(estimate, ideal, window)
    score = math.sqrt(level) / (1 - level) * guidance_scale * (sources - estimate)
    along = local_mean(score * direction, window)
    return torch.where(length > 0, along / length, torch.zeros_like(along))


def guidance_covariance(
    state: StepState,
    sources: Tensor,
    ideal: Tensor,
    prior: Prior,
    guidance_scale: float,
    window: int,
) -> GuidanceCovariance:
    """
    Measure how the weights of one step go with the projections B_k (Theorem 1).

    To be called by the callback of a chain, once a step. Computed in float64.

    :param state: of a step of the samplers ``ddim`` or ``ancestral``.
    :param sources: (K, 1, H, W) in [-1, 1], as the sampler got them.
    :param ideal: (1, 1, H, W) in [-1, 1], x*.
    :param prior: of the chain; its noise levels are needed.
    :param guidance_scale: lambda of the chain.
    :param window: odd side in pixels; that of the gains, if the weights are to follow B.
    :raises ValueError: the state is one of ``increments``, which has no chain.
    """
    if state.timestep >= prior.num_train_timesteps or not state.unconditional.any():
        raise ValueError(
            "the state has no score: B is defined for the samplers 'ddim' and 'ancestral' only"
        )
    level = float(prior.alpha_bar[state.timestep])
    x, x0, weights = state.x.double(), state.x0.double(), state.weights.double()
    sources, ideal = sources.to(x), ideal.to(x)
    # How much of a score the step takes in is its own affair: read it off the prior's share.
    score = (math.sqrt(level) * x0 - x) / (1 - level)
    rate = float((state.unconditional.double() * score).sum() / score.square().sum())

    projections = project(x0, sources, ideal, level, guidance_scale, window)
    weight_deviations, projection_deviations = _deviations(weights), _deviations(projections)
    covariance = (weight_deviations * projection_deviations).mean(dim=1)
    spread = math.sqrt(
        float(weight_deviations.square().mean(dim=1).sum())
        * float(projection_deviations.square().mean(dim=1).sum())
    )
    return GuidanceCovariance(
        timestep=state.timestep,
        coefficient=rate / math.sqrt(level),
        covariance=tuple(covariance.tolist()),
        weight=tuple(weights.mean(dim=(1, 2, 3)).tolist()),
        projection=tuple(projections.mean(dim=(1, 2, 3)).tolist()),
        correlation=float(covariance.sum()) / spread if spread > 0 else math.nan,
    )


def _deviations(maps: Tensor) -> Tensor:
    """Return (K, pixels) of (K, 1, H, W), each less its mean: exactly zero if all are equal."""
    flat = maps.flatten(1)
    flat = flat - flat[:, :1]
    return flat - flat.mean(dim=1, keepdim=True)


@dataclass(frozen=True)
class Region:
    """
    A rectangle in pixels.

    :param x: first column.
    :param y: first row.
    """

    x: int
    y: int
    width: int
    height: int

    def of(self, maps: Tensor) -> Tensor:
        """
        Cut the region out of maps, (..., H, W).

        :raises ValueError: the region is empty or reaches beyond the image.
        """
        height, width = maps.shape[-2:]
        if not (
            0 <= self.x < self.x + self.width <= width
            and 0 <= self.y < self.y + self.height <= height
        ):
            raise ValueError(
                f'region {self.x},{self.y},{self.width},{self.height} (x, y, width, height) is '
                f'not within the image of {width}x{height} pixels'
            )
        return maps[..., self.y : self.y + self.height, self.x : self.x + self.width]


@dataclass(frozen=True)
class GainCurve:
    """
    The cumulative gain of every source within a region.

    :param name: what to call the region.
    :param timesteps: (R + 1,), from the noise level where counting starts to 0, the clean image.
    :param mean: (K, R + 1) over the pixels of the region, 0 at the first timestep.
    :param variance: (K, R + 1), likewise.
    """

    name: str
    region: Region
    timesteps: NDArray[np.int64]
    mean: NDArray[np.float64]
    variance: NDArray[np.float64]


@torch.inference_mode()
def cumulative_gain(
    prior: Prior,
    sources: Tensor,
    timesteps: Sequence[int],
    draws: Sequence[Tensor],
    regions: Mapping[str, Region],
    loss: GainLoss = 'l2',
    window: int = 11,
) -> list[GainCurve]:
    """
    Sum up the information gains from a noise level downwards (Figure 5).

    The sum of DIG_k (Eq. 8) from t_R down to t is l(c_hat_k^{t_R}, c_k) - l(c_hat_k^t, c_k); it
    ends at the clean source, whose loss is zero.

    :param sources: (K, 1, H, W) in [-1, 1].
    :param timesteps: R of them, strictly decreasing, above 0; counting starts at the first.
    :param draws: noise, each (1, 1, H, W), over which the estimates are averaged; none takes the
        scaled sources as they are, see ``noise_draws`` of the settings.
    :param regions: by name, one curve each.
    :param loss: l of Eq. 8.
    :param window: side of the window that l averages over, odd, in pixels.
    :raises ValueError: timesteps that do not decrease, or a region beyond the image.
    :raises PriorError: the prior was not trained for the timesteps.
    """
    steps = [*timesteps, 0]
    if not timesteps or any(a <= b for a, b in pairwise(steps)):
        raise ValueError(f'timesteps {list(timesteps)} are not strictly decreasing and above 0')
    prior.check_timesteps(timesteps)
    estimates, _ = estimate_sources(prior, sources, tuple(timesteps), list(draws))
    losses = reconstruction_loss(estimates, sources, loss, window)
    gains = losses[:1] - torch.cat([losses, torch.zeros_like(losses[:1])])
    curves = []
    for name, region in regions.items():
        inside = region.of(gains).double().flatten(2)
        mean, variance = (
            values.T.cpu().numpy()
            for values in (inside.mean(dim=2), inside.var(dim=2, unbiased=False))
        )
        curves.append(GainCurve(name, region, np.array(steps), mean, variance))
    return curves


def contrasting_regions(sources: Tensor, side: int) -> list[Region]:
    """
    Return squares in which the sources show different things, judged by their contrast.

    :param sources: (K, 1, H, W), K at least 2.
    :param side: of the squares, in pixels; at most the sides of the image.
    :return: K + 1 squares: for each source the one in which its standard deviation exceeds that of
        all others the most, and the one in which the least of the standard deviations is largest.
        They do not overlap where the image has room.
    """
    images = sources.double()
    mean, square = (F.avg_pool2d(part, side, stride=1) for part in (images, images.square()))
    contrast = (square - mean.square()).clamp_min(0).sqrt()[:, 0]
    # Of each source, the others.
    others = torch.stack([contrast.roll(-k, 0)[1:].amax(dim=0) for k in range(len(contrast))])
    free = torch.ones_like(contrast[0], dtype=torch.bool)
    regions = []
    for score in (*(contrast - others), contrast.amin(dim=0)):
        row, column = divmod(int(torch.where(free, score, -torch.inf).argmax()), score.shape[-1])
        regions.append(Region(column, row, side, side))
        near = (slice(max(0, start - side + 1), start + side) for start in (row, column))
        free[tuple(near)] = False
    return regions
