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
Theorem 1 and Figure 5 of Dig2DIG measured on pairs of images, and the tables of what was found.

The sums of the theorem are shown in grey levels of 255, and as means over the pairs with their
standard errors.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
import math

from information import (
    contrasting_regions,
    cumulative_gain,
    distance,
    GainCurve,
    guidance_covariance,
    GuidanceCovariance,
    Region,
)
from known_fusions import known_fusions, KnownFusion, PairKind
import numpy as np
from numpy.typing import NDArray
import torch
from torch import Tensor

from dig2dig_ros.evaluation.options import report
from dig2dig_ros.evaluation.tables import Table
from dig2dig_ros.fusion.fuser import Fuser
from dig2dig_ros.fusion.sampler import StepState
from dig2dig_ros.fusion.settings import FusionSettings, GainLoss, reduced_timesteps, WeightRule

RULES: tuple[WeightRule, ...] = ('dig', 'rd', 'uniform')
# Uniform weights covary with nothing.
_COVARYING = RULES[:-1]
# Where the curves begin, in noise so strong that little more than the brightness is left
# (above, most of what is gained is the difference to a mid-grey image); their number of noise
# levels; and the side of the squares in parts of the image's smaller side.
CURVE_START = 600
_CURVE_STEPS = 24
_SQUARE = 1 / 5
# Image units ([-1, 1]) to grey levels of 255.
GREY = 127.5


@dataclass(frozen=True)
class Chain:
    """
    One pair, fused with the weights of one rule.

    :param steps: noisiest first.
    :param distance: mean local distance of the fused image to the ideal, in image units.
    """

    kind: PairKind
    pair: str
    rule: WeightRule
    steps: list[GuidanceCovariance]
    distance: float


def follow_chains(
    fuser: Fuser, kinds: Sequence[PairKind], count: int, size: tuple[int, int], seed: int
) -> list[Chain]:
    """
    Fuse synthetic pairs with the weights of every rule, and measure every step.

    :param fuser: its settings except ``weights`` and ``seed`` hold.
    :param count: of pairs of each kind; pair i has the seed ``seed + i``.
    :param size: (width, height) of the pairs.
    """
    chains = []
    for kind in kinds:
        for index, pair in enumerate(known_fusions(kind, count, *size, seed)):
            report(f'[{kind} {index + 1}/{count}] {pair.name}')
            for rule in RULES:
                settings = replace(fuser.settings, weights=rule, seed=seed + index)
                steps, error = _follow(fuser, settings, pair)
                chains.append(Chain(kind, pair.name, rule, steps, error))
    return chains


def _follow(
    fuser: Fuser, settings: FusionSettings, pair: KnownFusion
) -> tuple[list[GuidanceCovariance], float]:
    """Return the steps of a chain, and the distance of what it ends with."""
    sources, ideal = _to_tensor(pair.sources, fuser), _to_tensor(pair.ideal[None], fuser)
    scale, window = settings.guidance_scale, settings.gain_window
    steps: list[GuidanceCovariance] = []
    fused = sources[:1]

    def callback(state: StepState) -> None:
        nonlocal fused
        steps.append(guidance_covariance(state, sources, ideal, fuser.prior, scale, window))
        fused = state.kept + state.unconditional + state.multimodal + state.noise

    fuser.fuse(*pair.sources, settings=settings, callback=callback)
    return steps, float(distance(fused, ideal, window).mean())


def region_gains(
    fuser: Fuser, sources: NDArray[np.float32], names: Sequence[str], asked: Sequence[Region]
) -> list[GainCurve]:
    """
    Return the curves of the regions asked for, or of contrasting ones, and of the whole image.

    Counting begins at :data:`CURVE_START`, or at ``first_timestep`` where that is less.

    :param sources: (K, H, W) in [0, 1].
    :param names: of the K sources.
    :raises ValueError: a region is not within the image.
    """
    settings = fuser.settings
    height, width = sources.shape[1:]
    images = _to_tensor(sources, fuser)
    regions, titles = list(asked), ['region'] * len(asked)
    if not regions:
        regions = contrasting_regions(images, max(8, round(_SQUARE * min(height, width))))
        titles = [*(f'{name} shows more' for name in names), 'both show much']
    regions.append(Region(0, 0, width, height))
    titles.append('whole image')
    generator = torch.Generator().manual_seed(settings.seed)
    draws = [
        torch.randn((1, 1, height, width), generator=generator).to(fuser.device)
        for _ in range(settings.noise_draws)
    ]
    start = min(CURVE_START, settings.first_timestep)
    timesteps = reduced_timesteps(min(_CURVE_STEPS, start), start)
    named = {
        f'({chr(ord("a") + index)}) {title}': region
        for index, (title, region) in enumerate(zip(titles, regions, strict=True))
    }
    loss, window = settings.gain_loss, settings.gain_window
    return cumulative_gain(fuser.prior, images, timesteps, draws, named, loss, window)


def _to_tensor(images: NDArray[np.float32], fuser: Fuser) -> Tensor:
    """Return images (K, H, W) in [0, 1] as (K, 1, H, W) in [-1, 1] on the fuser's device."""
    return torch.from_numpy(images)[:, None].to(fuser.device) * 2 - 1


def step_table(chains: Sequence[Chain]) -> Table:
    """Return the table of the steps of one kind of pairs: means over the pairs."""
    header = ['t', *(f'Cov {rule}' for rule in RULES), *(f'r {rule}' for rule in _COVARYING)]
    header += [f'A Cov {rule}' for rule in _COVARYING]
    rows = []
    for index, step in enumerate(chains[0].steps):
        at = {rule: [c.steps[index] for c in chains if c.rule == rule] for rule in RULES}
        row = [str(step.timestep)]
        row += [_mean_text(s.total for s in at[rule]) for rule in RULES]
        row += [_mean_text(s.correlation for s in at[rule]) for rule in _COVARYING]
        row += [_mean_text(GREY * s.covariance_term for s in at[rule]) for rule in _COVARYING]
        rows.append(tuple(row))
    note = (
        'Cov: sum over the sources of Cov(w, B), in units of score; r: the same as a correlation; '
        'A Cov: what the step takes off the bound, in grey levels of 255, which overstates long '
        'steps at strong noise. Means ± standard errors over the pairs.'
    )
    return Table('', tuple(header), tuple(rows), (note,))


def summary_table(chains: Sequence[Chain]) -> Table:
    """Return the table of the rules for one kind of pairs: sums over the steps."""
    rows = []
    for rule in RULES:
        own = [chain for chain in chains if chain.rule == rule]
        totals = zip(*([step.total for step in chain.steps] for chain in own), strict=True)
        signs = [_sign(over_pairs) for over_pairs in totals]
        rows.append(
            (
                rule,
                *(str(signs.count(sign)) for sign in (1, 0, -1)),
                _mean_text(GREY * sum(s.covariance_term for s in c.steps) for c in own),
                _mean_text(GREY * sum(s.mean_term for s in c.steps) for c in own),
                _mean_text((GREY * c.distance for c in own), sign=''),
            )
        )
    sums = ('sum of A Cov', 'sum of mean terms', 'final distance')
    note = (
        'Steps: where the covariance is more than two standard errors from zero, or not. Sums and '
        'distances in grey levels; the mean terms are what the mean weights do, against 1/K; the '
        'final distance is that of the fused to the ideal image.'
    )
    return Table('', ('weights', 'steps > 0', '~ 0', '< 0', *sums), tuple(rows), (note,))


def gain_table(curves: Sequence[GainCurve], names: Sequence[str], loss: GainLoss) -> Table:
    """Return the table of the regions: total gain of every source, and when half is gained."""
    header = ['region', 'x, y, w, h', *(f'gain {name}' for name in names)]
    header += [f'std {name}' for name in names] + [f't of half, {name}' for name in names]
    rows = []
    for curve in curves:
        r = curve.region
        row = [curve.name, f'{r.x}, {r.y}, {r.width}, {r.height}']
        row += [f'{total:.4f}' for total in curve.mean[:, -1]]
        row += [f'{math.sqrt(total):.4f}' for total in curve.variance[:, -1]]
        row += [half_gained(curve, k) for k in range(len(names))]
        rows.append(tuple(row))
    note = (
        f'Gain: from t = {curves[0].timesteps[0]} to the clean image, mean over the region '
        f'of {loss} on [-1, 1]; t of half: the noise level by which half is gained.'
    )
    return Table('', tuple(header), tuple(rows), (note,))


def half_gained(curve: GainCurve, source: int) -> str:
    """Return the noise level by which a source has gained half of what it gains."""
    total = curve.mean[source, -1]
    if total <= 0:
        return 'n/a'
    # Counting down; a curve may fall where the prior errs, so take the last crossing.
    last = int(np.flatnonzero(curve.mean[source] < total / 2)[-1])
    before, after = curve.mean[source, last : last + 2]
    t_before, t_after = curve.timesteps[last : last + 2]
    share = (total / 2 - before) / (after - before)
    return f'{t_before + share * (t_after - t_before):.0f}'


def mean_and_error(values: Iterable[float]) -> tuple[float, float]:
    """Return the mean and its standard error, which is NaN for a single value."""
    array = np.asarray(list(values), dtype=np.float64)
    error = array.std(ddof=1) / math.sqrt(len(array)) if len(array) > 1 else math.nan
    return float(array.mean()), float(error)


def _mean_text(values: Iterable[float], sign: str = '+') -> str:
    """Return mean and standard error as text, to the first digit of the error."""
    mean, error = mean_and_error(values)
    if math.isnan(mean):
        return 'n/a'
    if not error > 0:
        return f'{mean:{sign}.3g}' if mean else '0'
    decimals = max(0, -math.floor(math.log10(error)))
    # No minus before a mean that rounds to zero.
    mean = round(mean, decimals) + 0.0
    return f'{mean:{sign}.{decimals}f} ± {error:.{decimals}f}'


def _sign(values: Sequence[float]) -> int:
    """Return 1 or -1 where the mean is two standard errors above or below zero, else 0."""
    mean, error = mean_and_error(values)
    # A single value has no error; its sign is all there is.
    margin = 0.0 if math.isnan(error) else 2 * error
    return int(mean > margin) - int(mean < -margin)
