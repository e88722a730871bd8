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

"""The options that the evaluating commands share for what is compared with what."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from dig2dig_ros.evaluation.baselines import BASELINES
from dig2dig_ros.evaluation.comparison import (
    ComparisonError,
    FUSIONS,
    parse_rows,
    Row,
    split_rows,
)
from dig2dig_ros.evaluation.options import UsageError
from dig2dig_ros.evaluation.perceptual import NETWORKS
from dig2dig_ros.evaluation.scores import FUSED


def add_compare_option(group: argparse._ActionsContainer, default: str) -> None:
    """
    Add ``--compare``.

    :param default: its rows, separated by commas.
    """
    group.add_argument(
        '--compare',
        type=rows_argument,
        default=parse_rows(default),
        metavar='ROWS',
        help=f'ways to fuse that are scored, see below, default: {default}',
    )


def add_score_options(group: argparse._ActionsContainer) -> None:
    """Add ``--against`` and ``--lpips``."""
    group.add_argument(
        '--against',
        type=split_rows,
        metavar='ROWS',
        help=f'rows from which {FUSED} is told apart pair by pair, in a table of its own; '
        'default: uniform and rd where present, else mean',
    )
    group.add_argument(
        '--lpips',
        choices=tuple(NETWORKS),
        help='compute LPIPS too, with AlexNet or VGG16; needs the package lpips and its weights',
    )


def rows_argument(text: str) -> list[Row]:
    """Parse the value of ``--compare``."""
    try:
        return parse_rows(text)
    except ComparisonError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def rows_help() -> str:
    """Return the end of the help: which rows there are."""
    lines = [f'  {name:14} baseline, no prior' for name in BASELINES]
    for name, fusion in FUSIONS.items():
        changes = ', '.join(f'{key}={value}' for key, value in fusion.overrides.items())
        lines.append(f'  {name:14} {fusion.meaning}' + (f'\n{"":17}{changes}' if changes else ''))
    return (
        'rows for --compare (all: every one of them but the control):\n'
        + '\n'.join(lines)
        + '\nWhat a row does not set is as --params, -N and -S say. Settings may follow the name '
        'of a\nfusion, such as fused:num_inference_steps=2,temperature=1; N and S stand for the '
        "paper's."
    )


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
