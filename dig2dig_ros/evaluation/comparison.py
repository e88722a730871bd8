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
What is compared with what, and what the scores say.

First the rows of a table: named fusions (:data:`FUSIONS`), changes of their settings
(:func:`parse_rows`), the command-line options that choose them, and the ablations of the paper
(:data:`ABLATIONS`). Then the statistics: ranks over several metrics, paired differences with
intervals, and scores of other methods from a file.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
import json
import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dig2dig_ros.evaluation.baselines import BASELINES
from dig2dig_ros.evaluation.metrics import metric_info, METRICS
from dig2dig_ros.evaluation.options import UsageError
from dig2dig_ros.evaluation.perceptual import NETWORKS
from dig2dig_ros.fusion.settings import FusionSettings, SETTINGS

# The row with the settings from the parameters.
FUSED = 'fused'
# Metrics that compare with the sources; PSNR would count the MSE twice.
RANKED_METRICS = ('SSIM', 'MSE', 'CC', 'Nabf', 'Qabf', 'VIF', 'SCD', 'MI')
# With fewer pairs, even differences of the same sign are not significant at the 95 % level: five
# have the same sign by chance in 2 of 32 cases.
FEWEST_PAIRS = 6
# Bootstrap draws that are in memory at a time: 8 MB.
_BLOCK_NUMBERS = 1_000_000

Array = NDArray[np.float64]
Scores = Mapping[str, Mapping[str, float]]  # method -> metric -> value


class ComparisonError(UsageError):
    """A comparison cannot be made; the message says why."""


@dataclass(frozen=True)
class Fusion:
    """
    A way to fuse: changes of the chosen settings.

    :param meaning: one line.
    :param overrides: settings that it needs, by name.
    :param preset: the shipped preset that it starts from, in place of the chosen settings.
    :param is_control: an experiment without the prior; not part of ``all``.
    """

    meaning: str
    overrides: Mapping[str, Any] = field(default_factory=dict)
    preset: str | None = None
    is_control: bool = False


def _chain(**changes: Any) -> dict[str, Any]:
    """Return the settings of the guided chain, with changes."""
    return {
        'sampler': 'ddim',
        'guidance': 'score',
        'weights': 'dig',
        'num_inference_steps': 25,
        'dig_refresh_interval': 5,
        **changes,
    }


FUSIONS: dict[str, Fusion] = {
    FUSED: Fusion('the fusion that the parameters ask for'),
    'uniform': Fusion('as fused, but equal weights', {'weights': 'uniform'}),
    'rd': Fusion('as fused, but relative dominability (TTD)', {'weights': 'rd'}),
    'dig_chain': Fusion('guided DDIM chain, information gains', _chain()),
    'dig_chain_4': Fusion(
        'as dig_chain, in 4 steps', _chain(num_inference_steps=4, dig_refresh_interval=2)
    ),
    'dig_chain_10': Fusion('as dig_chain, in 10 steps', _chain(num_inference_steps=10)),
    'uniform_chain': Fusion('as dig_chain, but equal weights', _chain(weights='uniform')),
    'rd_chain': Fusion('as dig_chain, but relative dominability', _chain(weights='rd')),
    # DDFM samples with fresh noise from t 999, which needs a prior that can generate a scene.
    'em': Fusion('as dig_chain, but expectation maximisation (DDFM)', _chain(guidance='em')),
    'dig_literal': Fusion('Dig2DIG as printed: the preset paper', preset='paper'),
    'block_means': Fusion(
        'as fused, but with means of 16x16 pixels in place of the denoiser; a control',
        is_control=True,
    ),
}


@dataclass(frozen=True)
class Ablation:
    """
    Rows that differ in one setting from the guided chain ``dig_chain``.

    :param title: what is varied, and where in the paper.
    :param rows: settings by the label of their row.
    """

    title: str
    rows: Mapping[str, Mapping[str, Any]]


ABLATIONS: dict[str, Ablation] = {
    'distance': Ablation(
        'Distance l of the information gain; none: equal weights (Dig2DIG, Table 3)',
        {
            'none': {'weights': 'uniform'},
            **{loss: {'gain_loss': loss} for loss in ('l1', 'ssim', 'l2')},
        },
    ),
    'interval': Ablation(
        'Steps S between two refreshes, N 25 (Dig2DIG, Table 4)',
        {f'S {steps}': {'dig_refresh_interval': steps} for steps in (1, 5, 10, 20)},
    ),
    'steps': Ablation(
        'Steps N of the chain, S 5 (Dig2DIG, Table 5)',
        {f'N {steps}': {'num_inference_steps': steps} for steps in (15, 20, 25, 50)},
    ),
}


@dataclass(frozen=True)
class Row:
    """
    A row of a table: a baseline, or a fusion with its own settings.

    :param name: as the table shows it.
    :param base: a key of :data:`~dig2dig_ros.evaluation.baselines.BASELINES` or
        :data:`FUSIONS`.
    :param overrides: settings that replace those of the base.
    """

    name: str
    base: str
    overrides: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_baseline(self) -> bool:
        """Whether it needs no prior."""
        return self.base in BASELINES


def split_rows(text: str) -> list[str]:
    """Split row names at commas, except those between settings."""
    names: list[str] = []
    for part in (part.strip() for part in text.split(',')):
        if '=' in part and ':' not in part and names:
            names[-1] += f',{part}'
        elif part:
            names.append(part)
    return list(dict.fromkeys(names))


def parse_rows(text: str) -> list[Row]:
    """
    Read the rows of a table.

    :param text: names of baselines and of :data:`FUSIONS`, separated by commas; the latter
        optionally with settings, as in ``fused:num_inference_steps=2,temperature=1``; N and S are
        those of the paper; ``all`` is every name except the controls.
    :raises ComparisonError: a name, a setting or its value is unknown.
    """
    known = [*BASELINES, *FUSIONS]
    rows: list[Row] = []
    for name in split_rows(text):
        if name == 'all':
            rows += [Row(base, base) for base in known if not _is_control(base)]
            continue
        base, colon, settings = name.partition(':')
        if base not in known:
            raise ComparisonError(f'unknown row {base}: use one or more of {", ".join(known)}')
        if colon and base in BASELINES:
            raise ComparisonError(f'{name}: {base} has no settings')
        rows.append(Row(name, base, _parse_settings(settings) if colon else {}))
    if not rows:
        raise ComparisonError(f'no row given: use one or more of {", ".join(known)}')
    return list({row.name: row for row in rows}.values())


def _is_control(base: str) -> bool:
    return base in FUSIONS and FUSIONS[base].is_control


def _parse_settings(text: str) -> dict[str, Any]:
    """Parse ``key=value,key=value`` into settings of the right types."""
    short = {'N': 'num_inference_steps', 'S': 'dig_refresh_interval'}
    settings: dict[str, Any] = {}
    for part in text.split(','):
        key, _, value = (piece.strip() for piece in part.partition('='))
        key = short.get(key, key)
        if key not in SETTINGS:
            known = ', '.join(SETTINGS)
            raise ComparisonError(f'{part!r} is not a setting: use one of {known}')
        try:
            settings[key] = SETTINGS[key].parsed(value)
        except ValueError as error:
            raise ComparisonError(str(error)) from error
    return settings


def changed_settings(settings: FusionSettings) -> str:
    """Return the settings that differ from the defaults, as ``key=value`` separated by commas."""
    default = FusionSettings()
    changes = (
        f'{f.name}={getattr(settings, f.name)}'
        for f in fields(settings)
        if getattr(settings, f.name) != getattr(default, f.name)
    )
    return ', '.join(changes) or 'default settings'


def add_compare_option(group: argparse._ActionsContainer, default: str) -> None:
    """
    Add ``--compare``, whose value is None if it is not given.

    :param default: the rows used then, in words.
    """
    group.add_argument(
        '--compare',
        type=rows_argument,
        metavar='ROWS',
        help=f'fusions to score, from the list below; default: {default}',
    )


def add_plugin_option(group: argparse._ActionsContainer) -> None:
    """Add ``--plugin``."""
    group.add_argument(
        '--plugin',
        type=Path,
        action='append',
        default=[],
        metavar='FILE.py',
        help='another fusion to compare: a Python file with load() and fuse(model, visible, '
        'thermal), see docs/performance.md; it runs with your permissions; may be repeated',
    )


def add_score_options(group: argparse._ActionsContainer) -> None:
    """Add ``--against`` and ``--lpips``."""
    group.add_argument(
        '--against',
        type=split_rows,
        metavar='ROWS',
        help=f'rows to compare {FUSED} with pair by pair, in a separate table; default: uniform '
        'and rd if present, else mean',
    )
    group.add_argument(
        '--lpips',
        choices=tuple(NETWORKS),
        help='also compute LPIPS, with AlexNet or VGG16; needs the package lpips and its weights',
    )


def rows_argument(text: str) -> list[Row]:
    """Parse the value of ``--compare``."""
    try:
        return parse_rows(text)
    except ComparisonError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def rows_help() -> str:
    """Return the list of rows at the end of the help."""
    lines = [f'  {name:14} baseline, no denoiser' for name in BASELINES]
    for name, fusion in FUSIONS.items():
        changes = ', '.join(f'{key}={value}' for key, value in fusion.overrides.items())
        lines.append(f'  {name:14} {fusion.meaning}' + (f'\n{"":17}{changes}' if changes else ''))
    return (
        'rows for --compare (all: every row except the control):\n'
        + '\n'.join(lines)
        + '\nOther settings come from --preset, -N and -S. To change settings of a row, append '
        'them,\nas in fused:num_inference_steps=2,temperature=1; N and S are short for these two '
        'settings.'
    )


def rows_against(
    rows: Sequence[Row], asked: Sequence[str] | None, plugins: Sequence[Path] = ()
) -> list[str]:
    """
    Return the rows that the fusion is compared with pair by pair.

    :param asked: value of ``--against``.
    :param plugins: values of ``--plugin``; their rows are named after the files.
    :raises UsageError: one of them, or the fusion itself, is not among the rows.
    """
    names = [*(row.name for row in rows), *(path.stem for path in plugins)]
    if asked is None:
        if FUSED not in names:
            return []
        rules = [name for name in names if name in ('uniform', 'rd')]
        return rules or [name for name in names if name == 'mean']
    missing = [name for name in (FUSED, *asked) if name not in names]
    if missing:
        raise UsageError(
            f'--against needs {", ".join(missing)} among the rows of --compare: add it there'
        )
    return [name for name in asked if name != FUSED]


def ranks(values: Sequence[float], higher_is_better: bool) -> list[float]:
    """Return the rank of each value, 1 for the best; equal values share their mean rank."""
    signed = np.asarray(values, dtype=np.float64) * (1 if higher_is_better else -1)
    better = (signed[None, :] > signed[:, None]).sum(axis=1)
    equal = (signed[None, :] == signed[:, None]).sum(axis=1)
    return [float(rank) for rank in better + (equal + 1) / 2]


def metric_ranks(scores: Scores, metric: str) -> dict[str, float]:
    """Return the ranks in one of :data:`METRICS`, for the rows that have it."""
    own = {row: values[metric] for row, values in scores.items() if metric in values}
    ordered = ranks(list(own.values()), metric_info(metric).higher_is_better)
    return dict(zip(own, ordered, strict=True))


def mean_ranks(scores: Scores, metrics: Iterable[str] = RANKED_METRICS) -> dict[str, float]:
    """Return each row's mean rank over the metrics, among the rows that have all of them."""
    metrics = tuple(metrics)
    complete = {
        row: values for row, values in scores.items() if all(name in values for name in metrics)
    }
    by_metric = [metric_ranks(complete, name) for name in metrics]
    return {row: float(np.mean([rank[row] for rank in by_metric])) for row in complete}


@dataclass(frozen=True)
class Difference:
    """
    How much one method differs from another on the same pairs.

    :param mean: over the pairs.
    :param low: lower end of its interval; None for fewer than :data:`FEWEST_PAIRS` pairs, or
        if a value is infinite.
    :param high: upper end.
    """

    mean: float
    low: float | None
    high: float | None

    def verdict(self, higher_is_better: bool) -> Literal['better', 'worse', 'open']:
        """Return the side of zero on which the interval lies; open if it contains zero."""
        if self.low is None or self.high is None or self.low <= 0 <= self.high:
            return 'open'
        return 'better' if (self.low > 0) == higher_is_better else 'worse'


def paired_differences(
    ours: Array, theirs: Array, resamples: int = 10_000, seed: int = 0
) -> list[Difference]:
    """
    Return the mean differences ``ours - theirs`` with their 95 % bootstrap intervals.

    Pairs of images are drawn with replacement, the same for every metric; the interval is the
    percentile interval (Efron and Tibshirani, "An introduction to the bootstrap", 1993). It is
    valid for other pairs of the same kind, and for one metric at a time.

    :param ours: (pairs, metrics).
    :param theirs: same shape and order of pairs.
    :return: one for each metric.
    :raises ValueError: the shapes differ, or there is no pair.
    """
    if ours.shape != theirs.shape or ours.ndim != 2 or not len(ours):
        raise ValueError(
            f'values have shapes {ours.shape} and {theirs.shape}: both must be (pairs, metrics)'
        )
    pairs = len(ours)
    with np.errstate(invalid='ignore'):
        differences = ours - theirs
        differences[ours == theirs] = 0.0  # also for two infinities, if both equal a source
        means = differences.mean(axis=0)
    if pairs < FEWEST_PAIRS:
        return [Difference(float(mean), None, None) for mean in means]
    finite = np.isfinite(means)
    known = np.where(finite, differences, 0.0)
    rng = np.random.default_rng(seed)
    drawn = np.empty((resamples, len(means)))
    # Counting how often each pair is drawn turns the means into one product; in blocks, as there
    # may be thousands of pairs.
    block = max(1, _BLOCK_NUMBERS // pairs)
    for start in range(0, resamples, block):
        end = min(start + block, resamples)
        counts = rng.multinomial(pairs, np.full(pairs, 1 / pairs), end - start)
        drawn[start:end] = counts @ known / pairs
    lows, highs = np.quantile(drawn, (0.025, 0.975), axis=0)
    return [
        Difference(float(mean), *((float(low), float(high)) if known else (None, None)))
        for mean, low, high, known in zip(means, lows, highs, finite, strict=True)
    ]


@dataclass(frozen=True)
class Peers:
    """
    Scores of other methods.

    :param scores: mean values over a set of images by method and metric.
    :param gflop: billions of floating-point operations for a pair of 640x512 pixels, by method.
    """

    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    gflop: dict[str, float] = field(default_factory=dict)


def load_peers(path: Path, name: str) -> Peers:
    """
    Read scores of other methods from a JSON file.

    :param path: ``{NAME: {method: {metric: value}}}`` with the names of :data:`METRICS`, other
        metrics are ignored; ``{"gflops": {method: value}}`` may accompany the sets.
    :param name: NAME of the set of images.
    :raises ComparisonError: the file cannot be read, lacks the set, or a value is not a number.
    """
    try:
        document = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise ComparisonError(f'{path} cannot be read as JSON: {error}') from error
    sets = {
        key: value
        for key, value in (document.items() if isinstance(document, dict) else ())
        if isinstance(value, dict) and value and all(isinstance(v, dict) for v in value.values())
    }
    if name not in sets:
        raise ComparisonError(f'{path} has no set {name}; it has {", ".join(sets) or "none"}')

    def numbers(values: Mapping[str, Any], what: str) -> dict[str, float]:
        for key, value in values.items():
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not math.isfinite(value):
                raise ComparisonError(f'{path}: {key} of {what} is {value!r}, not a finite number')
        return {key: float(value) for key, value in values.items()}

    scores = {
        method: numbers({key: values[key] for key in values if key in METRICS}, method)
        for method, values in sets[name].items()
    }
    for method, values in scores.items():
        if not values:
            raise ComparisonError(f'{path}: {method} of {name} has none of {", ".join(METRICS)}')
    gflop = document.get('gflops')
    return Peers(scores, numbers(gflop, 'gflops') if isinstance(gflop, dict) else {})
