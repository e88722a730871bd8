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
Fuse the image pairs of a folder and compare methods in tables.

DIR holds the folders visible and thermal (or such) with images of the same names, or images
NAME_A and NAME_B. Metrics are those of the luma of the fused images against the two sources,
averaged over the pairs. Tables go to the standard output, everything else to the standard error.
Exit code: 0, 1 if a pair was skipped, 2 if nothing could be done.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
import csv
from dataclasses import dataclass, replace
from pathlib import Path
import sys
import time
from typing import Any, TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from dig2dig_ros.evaluation.baselines import BASELINES, to_uint8
from dig2dig_ros.evaluation.comparison import (
    ABLATIONS,
    changed_settings,
    ComparisonError,
    Difference,
    FEWEST_PAIRS,
    FUSIONS,
    load_peers,
    mean_ranks,
    metric_ranks,
    paired_differences,
    parse_rows,
    Peers,
    RANKED_METRICS,
    Row,
    split_rows,
)
from dig2dig_ros.evaluation.image_pairs import (
    find_pairs,
    ImagePair,
    ImagePairError,
    load_pair,
    unpaired,
)
from dig2dig_ros.evaluation.metrics import evaluate_pair, luma, METRICS
from dig2dig_ros.evaluation.tables import markdown_table
from dig2dig_ros.fusion.settings import FusionSettings
from dig2dig_ros.images.thermal_range import ThermalRange
from dig2dig_ros.tools.methods import (
    baseline_method,
    COMMON_SIZE,
    FUSED,
    FusionMethod,
    Image,
    make_fusion,
    Method,
)
from dig2dig_ros.tools.options import (
    add_fusion_options,
    fusion_overrides,
    fusion_settings,
    load_parameters,
    positive,
    report,
    thermal_range,
    UsageError,
    with_overrides,
)

# Importing torch takes seconds, which the baselines do not need.
if TYPE_CHECKING:
    from dig2dig_ros.priors import Prior

METHODS = (*BASELINES, FUSED)
ABLATION_METRICS = ('PSNR_sum', 'SSIM', 'MSE', 'CC', 'Qabf', 'VIF')
NOT_AVAILABLE = 'n/a'


@dataclass(frozen=True)
class Score:
    """
    What one method made of one pair.

    :param size: (width, height) of the pair in pixels.
    :param metrics: values by name, see :data:`~dig2dig_ros.evaluation.metrics.METRICS`.
    :param milliseconds: from the two images to the fused one.
    """

    pair: str
    method: str
    size: tuple[int, int]
    metrics: dict[str, float]
    milliseconds: float


@dataclass(frozen=True)
class Cost:
    """
    What a row costs for one pair; None where it is not known or there is no such thing.

    :param prior_calls: images that go through the prior.
    :param gflop: billions of floating-point operations of the prior.
    :param milliseconds: from the two images to the fused one, median.
    """

    prior_calls: int | None = None
    gflop: float | None = None
    milliseconds: float | None = None


def row_settings(row: Row, parameters: Mapping[str, Any]) -> FusionSettings:
    """
    Return the settings of a row that is not a baseline.

    :raises UsageError: they do not exist, or the preset of the row is missing.
    """
    fusion = FUSIONS[row.base]
    base = load_parameters(fusion.preset) if fusion.preset else parameters
    try:
        return fusion_settings({**base, **fusion.overrides, **row.overrides})
    except (TypeError, ValueError) as error:
        raise UsageError(f'{row.name} cannot be set up: {error}') from error


def prepare_methods(
    rows: Sequence[Row], parameters: Mapping[str, Any], size: tuple[int, int]
) -> dict[str, Method]:
    """
    Set up every row. Rows of the same settings share one method, and all fusions one prior.

    :param size: (width, height) in pixels to warm up with.
    :raises UsageError: a row cannot be set up; the message names it.
    """
    methods: dict[str, Method] = {}
    by_settings: dict[FusionSettings, FusionMethod] = {}
    prior: Prior | None = None
    for row in rows:
        if row.is_baseline:
            methods[row.name] = baseline_method(row.base)
            continue
        settings = row_settings(row, parameters)
        if settings not in by_settings:
            report(f'setting up {row.name}')
            try:
                by_settings[settings] = make_fusion(parameters, settings, size, prior)
            except (TypeError, ValueError) as error:
                raise UsageError(f'{row.name} cannot be set up: {error}') from error
            prior = by_settings[settings].fuser.prior
        methods[row.name] = by_settings[settings]
    return methods


def score_pair(
    pair: ImagePair, methods: Mapping[str, Method], ranges: ThermalRange, save: Path | None
) -> list[Score]:
    """
    Fuse one pair with every method.

    :param save: folder that takes the fused images as ``PAIR__METHOD.png``.
    :raises ValueError: the pair cannot be read, fused or evaluated; the message says why.
    """
    visible, counts = load_pair(pair)
    # All methods, and the metrics, see the same 8-bit thermal image.
    thermal = to_uint8(ranges(counts, 0.0) * 255)
    visible_luma = luma(visible)
    height, width = visible_luma.shape
    if thermal.shape != visible_luma.shape:
        raise ValueError(
            f'visible is {width}x{height}, thermal {thermal.shape[1]}x{thermal.shape[0]} pixels: '
            'metrics need registered pairs of one size'
        )
    scores: list[Score] = []
    done: dict[Method, tuple[Image, Score]] = {}
    for name, method in methods.items():
        if method not in done:
            start = time.perf_counter()
            fused = method(visible, thermal)
            milliseconds = (time.perf_counter() - start) * 1e3
            values = evaluate_pair(luma(fused), visible_luma, thermal)
            done[method] = fused, Score(pair.name, name, (width, height), values, milliseconds)
        fused, score = done[method]
        scores.append(replace(score, method=name))
        if save is not None:
            path = save / f'{pair.name}__{name}.png'
            if not cv2.imwrite(str(path), fused):
                raise OSError(f'{path} cannot be written')
    return scores


def score_pairs(
    pairs: Sequence[ImagePair],
    methods: Mapping[str, Method],
    ranges: ThermalRange,
    save: Path | None,
) -> tuple[list[Score], list[str]]:
    """Fuse all pairs with every method; return the scores, and the pairs that were skipped."""
    scores: list[Score] = []
    skipped: list[str] = []
    started = time.perf_counter()
    for index, pair in enumerate(pairs, start=1):
        try:
            scores += score_pair(pair, methods, ranges, save)
            result = 'done'
        except (ValueError, RuntimeError, OSError, cv2.error) as error:
            skipped.append(pair.name)
            result = f'skipped, {error}'
        left = time_left(started, index, len(pairs))
        report(f'[{index}/{len(pairs)}] {pair.name}: {result}; {left}')
    return scores, skipped


def time_left(started: float, done: int, total: int) -> str:
    """Return in words how long the rest takes, at the pace so far."""
    seconds = (time.perf_counter() - started) / done * (total - done)
    if seconds >= 120:
        return f'{seconds / 60:.0f} min left'
    return f'{seconds:.0f} s left'


def time_methods(
    methods: Mapping[str, Method], size: tuple[int, int], repetitions: int
) -> dict[str, float]:
    """
    Measure every method on one synthetic colour pair, in turns.

    In turns, so that what else the machine does meanwhile affects all of them alike.

    :param size: (width, height) in pixels; the methods have been warmed up with it.
    :return: median in milliseconds by name.
    """
    width, height = size
    levels = np.random.default_rng(0).integers(0, 256, (height, width, 4), dtype=np.uint8)
    visible, thermal = levels[..., :3].copy(), levels[..., 3].copy()
    times: dict[Method, list[float]] = {method: [] for method in methods.values()}
    started = time.perf_counter()
    for index in range(1, repetitions + 1):
        for method, own in times.items():
            start = time.perf_counter()
            method(visible, thermal)
            own.append((time.perf_counter() - start) * 1e3)
        left = time_left(started, index, repetitions)
        report(f'timing at {width}x{height}: [{index}/{repetitions}]; {left}')
    return {name: float(np.median(times[method])) for name, method in methods.items()}


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
    costs: dict[str, Cost] = {}
    gflop: float | None = None
    for name, method in methods.items():
        if isinstance(method, FusionMethod):
            if gflop is None:
                gflop = prior_gflop(method.fuser.prior, size)
            calls = method.prior_calls
            costs[name] = Cost(calls, calls * gflop, milliseconds[name])
        else:
            costs[name] = Cost(milliseconds=milliseconds[name])
    return costs


def mean_scores(scores: Sequence[Score], methods: Iterable[str]) -> dict[str, dict[str, float]]:
    """Return the means over the pairs, by method and metric."""
    return {
        method: {
            name: float(np.mean([s.metrics[name] for s in scores if s.method == method]))
            for name in METRICS
        }
        for method in methods
    }


def median_milliseconds(scores: Sequence[Score], methods: Iterable[str]) -> dict[str, float]:
    """Return the median over the pairs of the time of a fusion, by method."""
    return {
        method: float(np.median([s.milliseconds for s in scores if s.method == method]))
        for method in methods
    }


def format_value(value: float) -> str:
    """Return a metric's value with four or five significant digits."""
    digits = 4 if abs(value) < 10 else 2 if abs(value) < 1000 else 1
    return f'{value:.{digits}f}'


def optional(value: float | None, form: Callable[[float], str] = format_value) -> str:
    """Return a value as text, ``n/a`` where there is none."""
    return NOT_AVAILABLE if value is None else form(value)


def comparison_table(
    scores: Mapping[str, Mapping[str, float]],
    ranking: Mapping[str, float],
    costs: Mapping[str, Cost],
) -> str:
    """
    Return the table of all rows.

    :param scores: mean values by row and metric.
    :param ranking: mean rank by row, for those that have one.
    :param costs: by row, for those that have been measured.
    """
    rows = []
    for name, values in scores.items():
        cost = costs.get(name, Cost())
        rows.append(
            [
                name,
                *(optional(values.get(metric)) for metric in METRICS),
                optional(ranking.get(name), '{:.2f}'.format),
                optional(cost.prior_calls, '{:d}'.format),
                optional(cost.gflop),
                optional(cost.milliseconds, '{:.1f}'.format),
            ]
        )
    titles = (metric.title for metric in METRICS.values())
    return markdown_table(['method', *titles, 'mean rank ↓', 'prior calls', 'GFLOP', 'ms'], rows)


def rank_sentences(scores: Mapping[str, Mapping[str, float]], ranking: Sequence[str]) -> str:
    """
    Say over which rows the mean ranks are, and which rank the fusion has in every metric.

    :param scores: mean values by row and metric.
    :param ranking: the rows that have a mean rank.
    """
    text = (
        f'Mean rank: over {", ".join(RANKED_METRICS)}, among the {len(ranking)} rows '
        f'{", ".join(ranking)}.'
    )
    if FUSED in scores:
        places = []
        for metric in METRICS:
            place = metric_ranks(scores, metric)
            places.append(f'{metric} {place[FUSED]:g}/{len(place)}')
        text += f'\nRanks of {FUSED}: {", ".join(places)}.'
    return text


def format_difference(difference: Difference, higher_is_better: bool) -> str:
    """Return a mean difference with its interval, marked where that excludes zero."""
    low, high = difference.low, difference.high
    size = max(abs(value) for value in (difference.mean, low or 0.0, high or 0.0))
    digits = 4 if size < 10 else 2 if size < 1000 else 1

    def signed(value: float) -> str:
        return f'{round(value, digits) + 0.0:+.{digits}f}'

    if low is None or high is None:
        return signed(difference.mean)
    mark = {'better': ' ✓', 'worse': ' ✗', 'open': ''}[difference.verdict(higher_is_better)]
    return f'{signed(difference.mean)} [{signed(low)}, {signed(high)}]{mark}'


def difference_table(scores: Sequence[Score], against: Sequence[str]) -> str:
    """
    Return the table of the paired differences of the fusion to other rows, and its caption.

    :param against: the other rows.
    """

    def values(method: str) -> NDArray[np.float64]:
        own = [score for score in scores if score.method == method]
        return np.array([[score.metrics[name] for name in METRICS] for score in own])

    ours = values(FUSED)
    columns = [paired_differences(ours, values(name)) for name in against]
    rows = [
        [
            metric.title,
            *(format_difference(column[index], metric.higher_is_better) for column in columns),
        ]
        for index, metric in enumerate(METRICS.values())
    ]
    table = markdown_table(['metric', *(f'{FUSED} - {name}' for name in against)], rows)
    if len(ours) < FEWEST_PAIRS:
        text = (
            f'Mean differences. Not enough pairs ({len(ours)}) for an interval, which needs '
            f'{FEWEST_PAIRS}.'
        )
    else:
        text = (
            f'Mean differences over {len(ours)} pairs with 95 % percentile intervals of a paired '
            'bootstrap (10,000 resamples, seed 0), each metric by itself. ✓ better, ✗ worse: the '
            'interval excludes zero.'
        )
    return f'{table}\n\n{text}'


def ablation_table(
    labels: Mapping[str, str],
    scores: Mapping[str, Mapping[str, float]],
    costs: Mapping[str, Cost],
) -> str:
    """
    Return the table of one ablation.

    :param labels: what the table calls each row, by the name of the row.
    """
    rows = [
        [
            label,
            *(format_value(scores[name][metric]) for metric in ABLATION_METRICS),
            optional(costs[name].prior_calls, '{:d}'.format),
            optional(costs[name].milliseconds, '{:.1f}'.format),
        ]
        for name, label in labels.items()
    ]
    titles = (METRICS[name].title for name in ABLATION_METRICS)
    return markdown_table(['', *titles, 'prior calls', 'ms'], rows)


def caption(
    scores: Sequence[Score], skipped: int, args: argparse.Namespace, methods: Mapping[str, Method]
) -> str:
    """Return what the tables were measured on, and with what."""
    sizes = sorted({score.size for score in scores}, key=lambda size: size[0] * size[1])
    ends = ' to '.join(
        f'{width}x{height}' for width, height in dict.fromkeys((sizes[0], sizes[-1]))
    )
    pairs = len({score.pair for score in scores})
    text = f'{pairs} pair{"s" if pairs > 1 else ""} of {ends} pixels'
    if skipped:
        text += f', {skipped} skipped'
    width, height = args.time_size or COMMON_SIZE
    if args.time_size:
        times = f'at {width}x{height}, median of {args.repetitions} in turns'
    else:
        times = 'median over the pairs'
    if not args.ablation:
        text += f'; GFLOP: of the prior at {width}x{height}'
    text += f'; ms: {times}'
    fusions = {name: fuse for name, fuse in methods.items() if isinstance(fuse, FusionMethod)}
    if fusions:
        name = FUSED if FUSED in fusions else next(iter(fusions))
        text += f'; {name}: {fusions[name].about()}'
    return text


def describe_rows(rows: Sequence[Row], methods: Mapping[str, Method]) -> str:
    """Return a line for every fusion among the rows: what it is, and its settings."""
    text = ''
    for row in rows:
        method = methods[row.name]
        if isinstance(method, FusionMethod):
            settings = changed_settings(method.fuser.settings)
            text += f'\n- {row.name}: {FUSIONS[row.base].meaning} ({settings})'
    return text


def write_csv(path: Path, scores: Sequence[Score]) -> None:
    """Write one line for each pair and method."""
    with path.open('w', newline='', encoding='utf-8') as file:
        writer = csv.writer(file)
        writer.writerow(['pair', 'method', 'width', 'height', *METRICS, 'ms'])
        for score in scores:
            values = (score.metrics[name] for name in METRICS)
            writer.writerow([score.pair, score.method, *score.size, *values, score.milliseconds])


def rows_argument(text: str) -> list[Row]:
    """Parse the value of ``--compare``."""
    try:
        return parse_rows(text)
    except ComparisonError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def size_argument(text: str) -> tuple[int, int] | None:
    """Parse ``WIDTHxHEIGHT``, or ``pairs``, which is None."""
    if text == 'pairs':
        return None
    width, _, height = text.partition('x')
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f'{text!r} is neither WIDTHxHEIGHT nor pairs')
    return int(width), int(height)


def rows_help() -> str:
    """Return the end of the help: which rows there are."""
    lines = [f'  {name:14} baseline, no prior' for name in BASELINES]
    for name, fusion in FUSIONS.items():
        changes = ', '.join(f'{key}={value}' for key, value in fusion.overrides.items())
        lines.append(f'  {name:14} {fusion.meaning}' + (f'\n{"":17}{changes}' if changes else ''))
    return (
        'rows for --compare (all: every one of them):\n'
        + '\n'.join(lines)
        + '\nWhat a row does not set is as --params, -N and -S say. Settings may follow the name '
        'of a\nfusion, such as fused:num_inference_steps=2,temperature=1; N and S stand for the '
        "paper's."
    )


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; ends the program with code 2 where it makes no sense."""
    parser = argparse.ArgumentParser(
        prog='evaluate_pairs',
        description=__doc__,
        epilog=rows_help(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add('directory', type=Path, metavar='DIR', help='folder of image pairs')
    tables = parser.add_mutually_exclusive_group()
    tables.add_argument(
        '--compare',
        type=rows_argument,
        default=[Row(name, name) for name in METHODS],
        metavar='ROWS',
        help=f'rows of the table, see below, default: {",".join(METHODS)}',
    )
    tables.add_argument(
        '--ablation',
        choices=(*ABLATIONS, 'all'),
        help="instead: the paper's ablations, on the row dig_chain",
    )
    add('--limit', type=positive, metavar='PAIRS', help='take the first pairs only')
    add_fusion_options(parser)
    add(
        '--against',
        type=split_rows,
        metavar='ROWS',
        help=f'rows from which {FUSED} is told apart pair by pair, in a second table; default: '
        'uniform and rd where present, else mean',
    )
    add('--peers', type=Path, metavar='FILE', help='scores of other methods, as JSON')
    add('--peers-set', metavar='NAME', help='the set of images in that file')
    add(
        '--peers-rows',
        type=split_rows,
        metavar='METHODS',
        help='which of them; default: all whose name is not among the rows',
    )
    add(
        '--time-size',
        type=size_argument,
        default=COMMON_SIZE,
        metavar='WIDTHxHEIGHT|pairs',
        help='ms on one synthetic pair of this size, all rows in turns, or as the median over '
        'the pairs; default: 640x512',
    )
    add('--repetitions', type=positive, default=5, metavar='COUNT', help='for that; default: 5')
    add('--csv', type=Path, metavar='FILE', help='write the values of every pair')
    add('--save', type=Path, metavar='DIR', help='write the fused images')
    args = parser.parse_args(argv)
    if (args.peers is None) != (args.peers_set is None):
        parser.error('--peers and --peers-set belong together')
    if args.peers_rows and args.peers is None:
        parser.error('--peers-rows needs --peers')
    if args.ablation and any((args.peers, args.against, args.N, args.S)):
        parser.error('--ablation has its own rows, N and S: no --peers, --against, -N or -S')
    return args


def rows_against(rows: Sequence[Row], asked: Sequence[str] | None) -> list[str]:
    """
    Return the rows from which the fusion is told apart.

    :param asked: value of ``--against``.
    :raises UsageError: one of them, or the fusion itself, is not among the rows.
    """
    names = [row.name for row in rows]
    if asked is None:
        if FUSED not in names:
            return []
        rules = [name for name in names if name in ('uniform', 'rd')]
        return rules or [name for name in names if name == 'mean']
    missing = [name for name in (FUSED, *asked) if name not in names]
    if missing:
        raise UsageError(
            f'--against compares {FUSED} with other rows of --compare, but {", ".join(missing)} '
            'is not among them'
        )
    return [name for name in asked if name != FUSED]


def choose_peers(args: argparse.Namespace) -> Peers:
    """
    Return the scores of other methods that the table is to show.

    :raises UsageError: a row that was asked for is unknown or would be there twice.
    :raises ComparisonError: the file cannot be used.
    """
    if args.peers is None:
        return Peers({}, {})
    peers = load_peers(args.peers, args.peers_set)
    own = {row.name for row in args.compare}
    for name in args.peers_rows or ():
        if name not in peers.scores:
            known = ', '.join(peers.scores)
            raise UsageError(f'--peers-rows: {name} is not in {args.peers_set}; it has {known}')
        if name in own:
            raise UsageError(f'--peers-rows: {name} is a row of --compare as well')
    names = args.peers_rows or [name for name in peers.scores if name not in own]
    # Their operations are known at one size only.
    comparable = args.time_size in (None, COMMON_SIZE)
    return Peers(
        {name: peers.scores[name] for name in names},
        {name: peers.gflop[name] for name in names if comparable and name in peers.gflop},
    )


def ablation_rows(choice: str) -> dict[str, dict[str, str]]:
    """Return, for every ablation of ``--ablation``, the labels of its rows by their names."""
    return {
        name: {f'{name}_{label}'.replace(' ', '_'): label for label in ablation.rows}
        for name, ablation in ABLATIONS.items()
        if choice in (name, 'all')
    }


def print_ablations(
    tables: Mapping[str, Mapping[str, str]],
    scores: Mapping[str, Mapping[str, float]],
    costs: Mapping[str, Cost],
) -> None:
    """Print the tables of ``--ablation``."""
    for name, labels in tables.items():
        print(f'{ABLATIONS[name].title}:\n')
        print(ablation_table(labels, scores, costs))
        print()
    print(
        'PSNR and SSIM are sums over the sources. LPIPS is left out: its weights are not shipped.'
    )


def print_comparison(
    scores: Sequence[Score],
    means: Mapping[str, Mapping[str, float]],
    costs: Mapping[str, Cost],
    peers: Peers,
    against: Sequence[str],
) -> None:
    """Print the tables of ``--compare``."""
    together = {**means, **peers.scores}
    ranking = mean_ranks(together)
    published = {name: Cost(gflop=value) for name, value in peers.gflop.items()}
    print(comparison_table(together, ranking, {**costs, **published}))
    print()
    print(rank_sentences(together, list(ranking)))
    if against:
        print()
        print(difference_table(scores, against))
    print()


def evaluate(args: argparse.Namespace) -> int:
    """
    Do what the command line asks for.

    :return: exit code.
    :raises UsageError: nothing can be done.
    :raises ComparisonError: the scores of other methods cannot be used.
    :raises ImagePairError: there are no pairs.
    :raises OSError: a result cannot be written.
    """
    parameters = with_overrides(
        load_parameters(args.params) if args.params else {}, fusion_overrides(args)
    )
    ranges = thermal_range(parameters)
    pairs = find_pairs(args.directory)[: args.limit]
    alone = unpaired(args.directory)
    if alone:
        report(f'without a counterpart, left out: {", ".join(alone)}')
    tables = ablation_rows(args.ablation) if args.ablation else {}
    rows: list[Row] = args.compare
    if tables:
        rows = [
            Row(name, 'dig_chain', ABLATIONS[table].rows[label])
            for table, labels in tables.items()
            for name, label in labels.items()
        ]
    against = rows_against(rows, args.against)
    peers = choose_peers(args)
    if args.save is not None:
        args.save.mkdir(parents=True, exist_ok=True)

    warm_up_size = args.time_size or tuple(parameters.get('warmup_size', COMMON_SIZE))
    methods = prepare_methods(rows, parameters, warm_up_size)
    size = args.time_size or COMMON_SIZE
    times = time_methods(methods, size, args.repetitions) if args.time_size else {}
    scores, skipped = score_pairs(pairs, methods, ranges, args.save)
    if not scores:
        raise UsageError(f'none of the {len(pairs)} pairs of {args.directory} could be evaluated')
    means = mean_scores(scores, methods)
    costs = method_costs(methods, times or median_milliseconds(scores, methods), size)

    if tables:
        print_ablations(tables, means, costs)
        base = changed_settings(row_settings(Row('dig_chain', 'dig_chain'), parameters))
        notes = f'\nWhat a table does not vary: {base}.'
    else:
        print_comparison(scores, means, costs, peers, against)
        notes = describe_rows(rows, methods)
        if peers.scores:
            names = ', '.join(peers.scores)
            notes += f'\n- as in {args.peers.name}, {args.peers_set}, over all its pairs: {names}'
    print(caption(scores, len(skipped), args, methods) + notes)
    if peers.scores and (args.limit or skipped):
        report(f'the scores of {args.peers.name} are of more pairs than those made here')
    if args.csv is not None:
        write_csv(args.csv, scores)
    if skipped:
        report(f'skipped {len(skipped)} of {len(pairs)} pairs: {", ".join(skipped)}')
    return 1 if skipped else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; see the module's description."""
    args = parse_arguments(argv)
    try:
        return evaluate(args)
    except (UsageError, ComparisonError, ImagePairError, OSError, ImportError) as error:
        report(f'evaluate_pairs: {error}')
        return 2


if __name__ == '__main__':
    sys.exit(main())
