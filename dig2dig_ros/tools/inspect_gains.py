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
Look at what Theorem 1 and Figure 5 of Dig2DIG are about.

Without a pair of your own: fuse synthetic pairs whose ideal fused image is known (scene: what the
two cameras see; complementary: one image, degraded in one half here and in the other half there)
and print, step by step, the covariance of the weights with the projections B of the sources'
guidance on the direction to the ideal image, for weights from information gains (dig), relative
dominability (rd) and 1/K each (uniform). Above zero, the weights lower the bound of the error.
Each rule goes along a chain of its own.
Then, for the first pair or for your own, print how early each source gains its information,
region by region. Tables go to the standard output, everything else to the standard error;
--output draws both. Exit code: 0, or 2 if nothing could be done.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
import csv
from dataclasses import dataclass, replace
import math
from pathlib import Path
import sys
from typing import Any, TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from dig2dig_ros.evaluation.comparison import changed_settings
from dig2dig_ros.evaluation.image_pairs import ImagePair, ImagePairError, load_pair
from dig2dig_ros.evaluation.known_fusions import known_fusions, KnownFusion, PAIR_KINDS, PairKind
from dig2dig_ros.evaluation.metrics import luma
from dig2dig_ros.evaluation.options import (
    add_fusion_options,
    fusion_overrides,
    fusion_settings,
    load_fuser,
    load_parameters,
    positive,
    report,
    size_argument,
    thermal_range,
    UsageError,
    with_overrides,
)
from dig2dig_ros.evaluation.tables import markdown_table
from dig2dig_ros.fusion.schedule import reduced_timesteps
from dig2dig_ros.fusion.settings import FusionSettings, WeightRule

if TYPE_CHECKING:
    from torch import Tensor

    from dig2dig_ros.evaluation.information import GuidanceCovariance, GainCurve, Region
    from dig2dig_ros.fusion.fuser import Fuser

# The theorem's own terms: from pure noise, with noise in the estimates, a step at a time.
DEFAULTS: dict[str, Any] = {
    'sampler': 'ddim',
    'num_inference_steps': 25,
    'dig_refresh_interval': 5,
    'first_timestep': 999,
    'noise_draws': 1,
}
RULES: tuple[WeightRule, ...] = ('dig', 'rd', 'uniform')
# Where the curves begin, in noise so strong that little more than the brightness can be told
# (above, most of what is gained is the difference to a mid-grey image); their number of noise
# levels; and the side of the squares in parts of the image's smaller side.
CURVE_START = 600
CURVE_STEPS = 24
SQUARE = 1 / 5
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


@dataclass(frozen=True)
class RegionGain:
    """The cumulative gain within one region, and what to call it."""

    name: str
    region: Region
    curve: GainCurve


def mean_and_error(values: Iterable[float]) -> tuple[float, float]:
    """Return the mean and its standard error, which is NaN for a single value."""
    array = np.asarray(list(values), dtype=np.float64)
    error = array.std(ddof=1) / math.sqrt(len(array)) if len(array) > 1 else math.nan
    return float(array.mean()), float(error)


def chain_settings(args: argparse.Namespace) -> tuple[dict[str, Any], FusionSettings]:
    """
    Return the parameters and the settings that the command line asks for.

    :raises UsageError: a value is refused.
    """
    values = load_parameters(args.params) if args.params else dict(DEFAULTS)
    values = with_overrides(values, fusion_overrides(args))
    if values.get('sampler', 'increments') == 'increments':
        values['sampler'] = 'ddim'
        if args.params:
            report("the sampler 'increments' has no chain to look at: ddim in its place")
    if values.get('guidance', 'score') != 'score':
        report(f'guidance {values["guidance"]} makes its own weights: score in its place')
    values['guidance'] = 'score'
    try:
        return values, fusion_settings(values)
    except (TypeError, ValueError) as error:
        raise UsageError(f'the chain cannot be set up: {error}') from error


def make_fuser(values: Mapping[str, Any], settings: FusionSettings) -> Fuser:
    """
    Load the prior.

    :raises UsageError: device or prior are missing, or the prior does not know the timesteps.
    """
    try:
        fuser = load_fuser(values, settings)
        fuser.prior.check_timesteps(settings.chain().timesteps)
        return fuser
    except (TypeError, ValueError) as error:
        raise UsageError(f'the fusion cannot be set up: {error}') from error


def to_tensor(images: NDArray[np.float32], fuser: Fuser) -> Tensor:
    """Return images (K, H, W) in [0, 1] as (K, 1, H, W) in [-1, 1] on the fuser's device."""
    import torch

    return torch.from_numpy(images)[:, None].to(fuser.device) * 2 - 1


def follow(fuser: Fuser, kind: PairKind, pair: KnownFusion, window: int) -> Chain:
    """
    Fuse a pair with the fuser's settings and measure every step.

    :param window: of the projections, odd, in pixels.
    """
    from dig2dig_ros.evaluation.information import distance, guidance_covariance
    from dig2dig_ros.fusion.sampler import StepState

    sources, ideal = to_tensor(pair.sources, fuser), to_tensor(pair.ideal[None], fuser)
    settings = fuser.settings
    steps: list[GuidanceCovariance] = []
    final = sources[:1]

    def callback(state: StepState) -> None:
        nonlocal final
        steps.append(
            guidance_covariance(
                state, sources, ideal, fuser.prior, settings.guidance_scale, window
            )
        )
        final = state.kept + state.unconditional + state.multimodal + state.noise

    fuser.fuse(*pair.sources, callback=callback)
    error = float(distance(final, ideal, window).mean())
    return Chain(kind, pair.name, settings.weights, steps, error)


def follow_all(fuser: Fuser, args: argparse.Namespace, window: int) -> list[Chain]:
    """Fuse all synthetic pairs with all rules; pair i has the seed of the options plus i."""
    chains = []
    settings = fuser.settings
    width, height = args.size
    for kind in args.pairs:
        pairs = known_fusions(kind, args.count, width, height, args.seed)
        for index, pair in enumerate(pairs):
            report(f'[{kind} {index + 1}/{args.count}] {pair.name}')
            for rule in RULES:
                fuser.settings = replace(settings, weights=rule, seed=args.seed + index)
                chains.append(follow(fuser, kind, pair, window))
    fuser.settings = settings
    return chains


def with_error(values: Iterable[float], factor: float = 1.0, sign: str = '+') -> str:
    """Return mean and standard error as text, to the first digit of the error."""
    mean, error = mean_and_error(factor * value for value in values)
    if math.isnan(mean):
        return 'n/a'
    if not error > 0:
        return f'{mean:{sign}.3g}' if mean else '0'
    decimals = max(0, -math.floor(math.log10(error)))
    # No minus before a mean that rounds to zero.
    mean = round(mean, decimals) + 0.0
    return f'{mean:{sign}.{decimals}f} ± {error:.{decimals}f}'


def step_table(chains: Sequence[Chain]) -> str:
    """Return the table of the steps of one kind of pairs: means over the pairs."""
    by_rule = {rule: [c.steps for c in chains if c.rule == rule] for rule in RULES}
    header = ['t']
    header += [f'Cov {rule}' for rule in RULES]
    header += [f'r {rule}' for rule in RULES if rule != 'uniform']
    header += [f'A Cov {rule}' for rule in RULES if rule != 'uniform']
    rows = []
    for index, step in enumerate(chains[0].steps):
        at = {rule: [steps[index] for steps in by_rule[rule]] for rule in RULES}
        row = [str(step.timestep)]
        row += [with_error(a.total for a in at[rule]) for rule in RULES]
        for rule in RULES[:-1]:
            row.append(with_error(a.correlation for a in at[rule]))
        for rule in RULES[:-1]:
            row.append(with_error((a.covariance_term for a in at[rule]), GREY))
        rows.append(row)
    return markdown_table(header, rows)


def verdict(values: Sequence[float]) -> int:
    """Return 1 or -1 where the mean is two standard errors above or below zero, else 0."""
    mean, error = mean_and_error(values)
    # A single value has no error; its sign is all there is.
    margin = 0.0 if math.isnan(error) else 2 * error
    return int(mean > margin) - int(mean < -margin)


def summary_table(chains: Sequence[Chain]) -> str:
    """Return the table of the rules for one kind of pairs: sums over the steps."""
    rows = []
    for rule in RULES:
        own = [chain for chain in chains if chain.rule == rule]
        verdicts = [
            verdict([chain.steps[index].total for chain in own])
            for index in range(len(own[0].steps))
        ]
        rows.append(
            [
                rule,
                *(str(verdicts.count(sign)) for sign in (1, 0, -1)),
                with_error((sum(a.covariance_term for a in c.steps) for c in own), GREY),
                with_error((sum(a.mean_term for a in c.steps) for c in own), GREY),
                with_error((c.distance for c in own), GREY, ''),
            ]
        )
    header = ['weights', 'steps > 0', '~ 0', '< 0', 'sum of A Cov', 'sum of mean terms',
              'final distance']  # fmt: skip
    return markdown_table(header, rows)


def half_gained(curve: GainCurve, source: int) -> str:
    """Return the noise level by which a source has gained half of what it gains."""
    total = curve.mean[source, -1]
    if total <= 0:
        return 'n/a'
    # Counting down; a curve may fall where the prior errs, so take the last crossing.
    below = np.flatnonzero(curve.mean[source] < total / 2)
    after = int(below[-1]) + 1
    gained = curve.mean[source, after - 1 : after + 1]
    t = curve.timesteps[after - 1 : after + 1]
    share = (total / 2 - gained[0]) / (gained[1] - gained[0])
    return f'{t[0] + share * (t[1] - t[0]):.0f}'


def gain_table(gains: Sequence[RegionGain], sources: Sequence[str]) -> str:
    """Return the table of the regions: total gain, and when half of it is gained."""
    header = ['region', 'x, y, w, h', *(f'gain {name}' for name in sources)]
    header += [f'std {name}' for name in sources] + [f't of half, {name}' for name in sources]
    rows = []
    for gain in gains:
        r, curve = gain.region, gain.curve
        row = [gain.name, f'{r.x}, {r.y}, {r.width}, {r.height}']
        row += [f'{curve.mean[k, -1]:.4f}' for k in range(len(sources))]
        row += [f'{math.sqrt(curve.variance[k, -1]):.4f}' for k in range(len(sources))]
        row += [half_gained(curve, k) for k in range(len(sources))]
        rows.append(row)
    return markdown_table(header, rows)


def measure_gains(
    fuser: Fuser,
    sources: NDArray[np.float32],
    names: Sequence[str],
    asked: Sequence[Region],
    start: int = CURVE_START,
) -> list[RegionGain]:
    """
    Return the curves of the regions asked for, or of telling ones, and of the whole image.

    :param sources: (K, H, W) in [0, 1].
    :param start: t where counting begins.
    :raises UsageError: a region is not within the image, or the prior does not know ``start``.
    """
    import torch

    from dig2dig_ros.evaluation.information import contrasting_regions, cumulative_gain, Region

    settings = fuser.settings
    height, width = sources.shape[1:]
    images = to_tensor(sources, fuser)
    regions = list(asked)
    titles = ['region'] * len(regions)
    if not regions:
        regions = contrasting_regions(images, max(8, round(SQUARE * min(height, width))))
        titles = [*(f'{name} shows more' for name in names), 'both show much']
    regions.append(Region(0, 0, width, height))
    titles.append('whole image')
    generator = torch.Generator().manual_seed(settings.seed)
    draws = [
        torch.randn((1, 1, height, width), generator=generator).to(fuser.device)
        for _ in range(settings.noise_draws)
    ]
    try:
        curves = cumulative_gain(
            fuser.prior,
            images,
            reduced_timesteps(min(CURVE_STEPS, start), start),
            draws,
            regions,
            settings.gain_loss,
            settings.gain_window,
        )
    except ValueError as error:
        raise UsageError(str(error)) from error
    return [
        RegionGain(f'({chr(ord("a") + index)}) {title}', region, curve)
        for index, (title, region, curve) in enumerate(zip(titles, regions, curves, strict=True))
    ]


def write_csv(path: Path, chains: Sequence[Chain]) -> None:
    """Write one line for each pair, rule, step and source."""
    with path.open('w', newline='', encoding='utf-8') as file:
        writer = csv.writer(file)
        writer.writerow(
            ['kind', 'pair', 'weights', 't', 'A', 'source', 'covariance', 'mean weight',
             'mean projection', 'correlation over the sources', 'distance before the step']
        )  # fmt: skip
        for chain in chains:
            for step in chain.steps:
                for source, values in enumerate(
                    zip(step.covariance, step.weight, step.projection, strict=True)
                ):
                    writer.writerow(
                        [chain.kind, chain.pair, chain.rule, step.timestep, step.coefficient,
                         source, *values, step.correlation, step.distance]
                    )  # fmt: skip


def load_own_pair(args: argparse.Namespace, values: Mapping[str, Any]) -> NDArray[np.float32]:
    """
    Read the pair of the command line.

    :return: (2, H, W) in [0, 1].
    :raises ImagePairError: an image cannot be read.
    :raises UsageError: the sizes differ.
    """
    visible, counts = load_pair(ImagePair('pair', args.visible, args.thermal))
    thermal = thermal_range(values)(counts, 0.0)
    grey = luma(visible).astype(np.float32) / 255
    if grey.shape != thermal.shape:
        raise UsageError(
            f'visible is {grey.shape[1]}x{grey.shape[0]}, thermal {thermal.shape[1]}x'
            f'{thermal.shape[0]} pixels: give a registered pair of one size'
        )
    return np.stack([grey, thermal])


def region_argument(text: str) -> tuple[int, int, int, int]:
    """Parse X,Y,WIDTH,HEIGHT."""
    try:
        x, y, width, height = (int(part) for part in text.split(','))
    except ValueError:
        raise argparse.ArgumentTypeError(f'{text} is not x,y,width,height in pixels') from None
    return x, y, width, height


def odd(text: str) -> int:
    """Parse an odd number of pixels."""
    value = int(text)
    if value < 1 or value % 2 == 0:
        raise argparse.ArgumentTypeError(f'{value} is not an odd number above 0')
    return value


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; ends the program with code 2 where it makes no sense."""
    parser = argparse.ArgumentParser(
        prog='inspect_gains',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    group = parser.add_argument_group('synthetic pairs')
    group.add_argument(
        '--pairs',
        nargs='+',
        choices=PAIR_KINDS,
        default=list(PAIR_KINDS),
        help=f'kinds of pairs, default: {" ".join(PAIR_KINDS)}',
    )
    group.add_argument(
        '--count', type=positive, default=8, metavar='PAIRS', help='of each kind, default: 8'
    )
    group.add_argument(
        '--size',
        type=size_argument,
        default=(320, 256),
        metavar='WIDTHxHEIGHT',
        help='of the pairs, default: 320x256',
    )
    group.add_argument('--seed', type=int, default=0, help='of streets and noise, default: 0')

    group = parser.add_argument_group('your own pair (its gains only: its ideal is not known)')
    group.add_argument('--visible', type=Path, metavar='FILE', help='visible image')
    group.add_argument(
        '--thermal', type=Path, metavar='FILE', help='thermal image of the same size'
    )

    group = parser.add_argument_group('fusion')
    own = ', '.join(f'{name} {value}' for name, value in DEFAULTS.items())
    add_fusion_options(group, f'its defaults, but {own}')
    group.add_argument(
        '--window',
        type=odd,
        metavar='PIXELS',
        help='over which guidance is projected on the ideal direction; default: gain_window',
    )

    group = parser.add_argument_group('results')
    group.add_argument(
        '--region',
        type=region_argument,
        action='append',
        default=[],
        metavar='X,Y,WIDTH,HEIGHT',
        help='of the gains, in pixels; may be repeated; default: squares of different contrast',
    )
    group.add_argument(
        '--curve-start',
        type=positive,
        metavar='T',
        help=f'timestep where the gains begin to count, default: {CURVE_START}, or '
        'first_timestep where that is less',
    )
    group.add_argument(
        '--output',
        type=Path,
        metavar='DIR',
        help='draw theorem.png and cumulative_gain.png into this folder (needs matplotlib)',
    )
    group.add_argument(
        '--csv', type=Path, metavar='FILE', help='write the values of each pair, step and source'
    )
    args = parser.parse_args(argv)
    if (args.visible is None) != (args.thermal is None):
        parser.error('--visible and --thermal make a pair: give both')
    if args.visible is not None and args.csv is not None:
        parser.error('--csv holds covariances, for which the ideal of your own pair is missing')
    return args


def print_covariances(chains: Sequence[Chain]) -> None:
    """Print the two tables of every kind of pairs."""
    for kind in dict.fromkeys(chain.kind for chain in chains):
        own = [chain for chain in chains if chain.kind == kind]
        pairs = len({chain.pair for chain in own})
        print(f'## Weights and guidance: {kind}, {pairs} pair{"s" if pairs > 1 else ""}\n')
        print(step_table(own))
        print(
            '\nCov: sum over the sources of Cov(w, B), in units of score; r: the same as a '
            'correlation; A Cov: what the step takes off the bound, in grey levels of 255, which '
            'overstates long steps at strong noise. Means ± standard errors over the pairs.\n'
        )
        print(summary_table(own))
        print(
            '\nSteps: where the covariance is more than two standard errors from zero, or not. '
            'Sums and distances in grey levels; the mean terms are what the mean weights do, '
            'against 1/K; the final distance is that of the fused to the ideal image.\n'
        )


def inspect(args: argparse.Namespace) -> int:
    """
    Do what the command line asks for.

    :return: exit code.
    :raises UsageError: nothing can be done.
    :raises ImagePairError: the pair cannot be read.
    :raises OSError: a result cannot be written.
    :raises ImportError: matplotlib is missing.
    """
    plots: Any = None
    if args.output is not None:
        try:
            from dig2dig_ros.evaluation import gain_plots as plots
        except ImportError as error:
            raise ImportError(
                f'{error}: plots need matplotlib; pip install matplotlib, or leave out --output'
            ) from error
        args.output.mkdir(parents=True, exist_ok=True)
    values, settings = chain_settings(args)
    if args.visible is not None:
        names: Sequence[str] = ('visible', 'thermal')
        sources = load_own_pair(args, values)
    else:
        width, height = args.size
        try:
            example = next(known_fusions(args.pairs[0], 1, width, height, args.seed))
        except ValueError as error:
            raise UsageError(str(error)) from error
        names, sources = example.source_names, example.sources
    fuser = make_fuser(values, settings)

    from dig2dig_ros.evaluation.information import Region

    if args.visible is None:
        window = args.window or settings.gain_window
        chains = follow_all(fuser, args, window)
        print_covariances(chains)
        print(f'{width}x{height} pixels, projected over a window of {window}.\n')
        if args.csv is not None:
            write_csv(args.csv, chains)
        if plots is not None:
            plots.draw_theorem(args.output / 'theorem.png', chains)
    start = args.curve_start or min(CURVE_START, settings.first_timestep)
    regions = [Region(*region) for region in args.region]
    gains = measure_gains(fuser, sources, names, regions, start)
    print('## Cumulative information gain\n')
    print(gain_table(gains, names))
    print(
        f'\nGain: from t = {start} to the clean image, mean over the region of '
        f'{settings.gain_loss} on [-1, 1]; t of half: the noise level by which half is gained.\n'
    )
    about = ', '.join(f'{key} {value}' for key, value in fuser.describe().items())
    print(f'{about}; other than the defaults: {changed_settings(settings)}')
    if plots is not None:
        plots.draw_gains(args.output / 'cumulative_gain.png', sources, names, gains)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; see the module's description."""
    args = parse_arguments(argv)
    try:
        return inspect(args)
    except (UsageError, ImagePairError, OSError, ImportError, cv2.error) as error:
        report(f'inspect_gains: {error}')
        return 2


if __name__ == '__main__':
    sys.exit(main())
