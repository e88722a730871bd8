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
Evaluate a folder of image pairs, for ``dig2dig evaluate``.

Metrics are those of the luma of the fused images against the two sources, averaged over the
pairs.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dig2dig_ros.evaluation.baselines import BASELINES
from dig2dig_ros.evaluation.comparison import (
    ABLATIONS,
    changed_settings,
    FUSED,
    load_peers,
    Peers,
    Row,
    rows_against,
)
from dig2dig_ros.evaluation.condition_study import rows_under_conditions
from dig2dig_ros.evaluation.detector import detector_options
from dig2dig_ros.evaluation.methods import COMMON_SIZE, row_settings
from dig2dig_ros.evaluation.options import (
    check_output,
    chosen_parameters,
    given_parameters,
    INTERRUPTED,
    load_parameters,
    positive,
    report,
    size_argument,
    TASKS,
    THERMAL_TASK,
    UsageError,
)
from dig2dig_ros.evaluation.pair_evaluation import PairEvaluation, PairJob
from dig2dig_ros.images.image_pairs import (
    find_pairs,
    ImagePair,
    ImagePairError,
    looks_like_palette,
    NO_PALETTE,
    read_photograph,
    second_is_colour,
    unpaired,
)
from dig2dig_ros.nodes.signals import interruption
from dig2dig_ros.resources import config_file

COMPARED = ','.join((*BASELINES, FUSED))
# Settings chosen on one half of the pairs should be quoted on the other.
HALVES = ('choose', 'quote')


def half_of(pairs: list[ImagePair], half: str | None) -> list[ImagePair]:
    """
    Return one of :data:`HALVES` of the pairs, or all of them.

    :raises UsageError: it is empty.
    """
    if half is None:
        return pairs
    found = pairs[HALVES.index(half) :: len(HALVES)]
    if not found:
        raise UsageError(f'--half {half} is empty, as there is only one pair: leave it out')
    return found


def size_or_pairs(text: str) -> tuple[int, int] | None:
    """Parse ``WIDTHxHEIGHT``, or ``pairs``, which becomes None."""
    return None if text == 'pairs' else size_argument(text)


def add_pair_options(
    parser: argparse.ArgumentParser, tables: argparse._MutuallyExclusiveGroup
) -> list[argparse._ArgumentGroup]:
    """
    Add the options that only folders of pairs have; return their groups.

    :param tables: gets the option that excludes ``--compare``.
    """
    group = parser.add_argument_group('folders of pairs')
    add = group.add_argument
    add(
        '--task',
        choices=tuple(TASKS),
        help='what the images are; chooses the default parameters. Without it, '
        f'{THERMAL_TASK}, or, if the second image has colour, photographs with the same '
        'parameters',
    )
    tables.add_argument(
        '--ablation',
        choices=(*ABLATIONS, 'all'),
        help="for pairs, in place of --compare: the paper's ablations, on the row dig_chain",
    )
    add(
        '--half',
        choices=HALVES,
        help='use every other pair, in the order of their names: choose starts with the first, '
        'quote with the second, so that settings chosen on one half can be quoted on the other',
    )
    add('--peers', type=Path, metavar='FILE', help='JSON file with scores of other methods')
    add('--peers-set', metavar='NAME', help='image set in the --peers file')
    add(
        '--time-size',
        type=size_or_pairs,
        default=COMMON_SIZE,
        metavar='WxH|pairs',
        help='size of the synthetic pair on which all rows are timed in turns, or pairs: the '
        'median over the evaluated pairs; default: 640x512',
    )
    text = 'timed runs for --time-size; default: 5'
    add('--repetitions', type=positive, default=5, metavar='COUNT', help=text)
    add('--save', type=Path, metavar='DIR', help='write the fused images of every row')
    return [group]


def check_pair_options(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Exit with code 2 if the options of pairs contradict each other."""
    if (args.peers is None) != (args.peers_set is None):
        parser.error('give both --peers and --peers-set, or neither')
    steps = {'fusion.num_inference_steps', 'fusion.dig_refresh_interval'}
    if args.ablation and (args.peers or args.against or steps & given_parameters(args).keys()):
        parser.error('--ablation sets rows, N and S: leave out --peers, --against, -N and -S')
    if args.ablation and (args.plugin or args.conditions):
        parser.error('--ablation sets the rows: leave out --plugin and --conditions')
    if args.labels is not None and args.detector is None:
        parser.error('--labels needs --detector')


def choose_rows(args: argparse.Namespace) -> tuple[list[Row], dict[str, dict[str, str]]]:
    """Return the rows, and by the title of each ablation the labels of its rows."""
    if args.ablation is None:
        return rows_under_conditions(args, args.compare_default), {}
    rows: list[Row] = []
    tables: dict[str, dict[str, str]] = {}
    for name, ablation in ABLATIONS.items():
        if args.ablation in (name, 'all'):
            labels = {f'{name}_{label}'.replace(' ', '_'): label for label in ablation.rows}
            rows += [Row(row, 'dig_chain', ablation.rows[label]) for row, label in labels.items()]
            tables[ablation.title] = labels
    return rows, tables


def choose_peers(args: argparse.Namespace) -> Peers:
    """
    Return the scores of other methods to show; a row of the table itself takes precedence.

    :raises ComparisonError: the file cannot be used.
    """
    if args.peers is None:
        return Peers()
    peers = load_peers(args.peers, args.peers_set)
    own = {row.name for row in args.compare}
    scores = {name: values for name, values in peers.scores.items() if name not in own}
    # Their operations are only known at one size.
    comparable = args.time_size in (None, COMMON_SIZE)
    gflop = {name: value for name, value in peers.gflop.items() if comparable and name in scores}
    return Peers(scores, gflop)


def choose_task(
    args: argparse.Namespace, pairs: Sequence[ImagePair]
) -> tuple[bool, dict[str, Any]]:
    """
    Return whether the second images are thermal, and the parameters of ``fusion_node``.

    In ascending order: the preset of the task, the file of ``--preset``, the other options.

    :raises UsageError: the parameter file, or a value in it, cannot be used.
    :raises FileNotFoundError: the preset is not installed.
    """
    thermal = args.task in (None, THERMAL_TASK)
    parameters: dict[str, Any] = {}
    if args.task is not None:
        parameters.update(load_parameters(str(config_file(f'{TASKS[args.task]}.yaml'))))
    elif _is_colour(pairs[0]):
        if looks_like_palette(read_photograph(pairs[0].thermal)):
            raise UsageError(
                f'{pairs[0].thermal}: {NO_PALETTE}; if it is a photograph, use --task multi-focus '
                'or multi-exposure'
            )
        thermal = False
        parameters['fusion.chroma'] = 'all'
        report(
            'the second images have colour, so they are treated as photographs, not as thermal '
            'images; --task multi-focus or multi-exposure chooses parameters for them'
        )
    return thermal, chosen_parameters(args, parameters)


def _is_colour(pair: ImagePair) -> bool:
    try:
        return second_is_colour(pair)
    except ImagePairError:
        return False  # it is skipped later, with the reason


def make_job(args: argparse.Namespace) -> PairJob:
    """
    Return the job that the command line describes.

    :raises UsageError: the options contradict each other, or results would be replaced.
    :raises ImagePairError: there are no pairs.
    """
    (directory,) = args.paths
    pairs = half_of(find_pairs(directory), args.half)[: args.limit]
    thermal, parameters = choose_task(args, pairs)
    if args.conditions and not thermal:
        raise UsageError('--conditions needs visible and thermal images: leave it out')
    alone = unpaired(directory)
    if alone:
        report(f'left out, as they have no counterpart: {", ".join(alone)}')
    rows, ablations = choose_rows(args)
    job = PairJob(
        directory=directory,
        pairs=pairs,
        unpaired=alone,
        task=args.task or (THERMAL_TASK if thermal else 'photographs'),
        thermal=thermal,
        parameters=parameters,
        rows=rows,
        against=rows_against(rows, args.against, args.plugin),
        ablations=ablations,
        peers=choose_peers(args),
        lpips=args.lpips,
        detector=detector_options(args) if args.detector is not None else None,
        plugins=args.plugin,
        conditions=args.conditions,
        time_size=args.time_size,
        repetitions=args.repetitions,
        output=args.output,
        save=args.save,
    )
    if args.output is not None:
        if not ablations and FUSED not in [row.name for row in rows]:
            raise UsageError(f'--output needs the row {FUSED}: add it to --compare')
        check_output(args.output, args.overwrite)
    if args.save is not None:
        check_output(args.save, args.overwrite, '--save')
    return job


def evaluate_pairs(args: argparse.Namespace) -> int:
    """
    Evaluate the folder of pairs on the command line.

    :return: exit code.
    :raises UsageError: nothing can be done.
    :raises OSError: a result cannot be written.
    """
    job = make_job(args)
    evaluation = PairEvaluation(job)
    # Held until the report is written, so that a second Ctrl-C does not lose it.
    with interruption(lambda: report(INTERRUPTED)) as interrupted:
        evaluation.run(interrupted.is_set)
        if not evaluation.scores.pairs and evaluation.interrupted:
            report('dig2dig evaluate: interrupted before the first pair, so there are no results')
            return 130
        if not evaluation.scores.pairs:
            raise UsageError(
                f'none of the {len(job.pairs)} pairs of {job.directory} could be evaluated'
            )
        show(args, job, evaluation)
    skipped = evaluation.skipped
    if skipped:
        report(f'skipped {len(skipped)} of {len(job.pairs)} pairs: {", ".join(skipped)}')
    if interrupted.is_set():
        return 130
    return 1 if skipped else 0


def show(args: argparse.Namespace, job: PairJob, evaluation: PairEvaluation) -> None:
    """Print the tables and the settings, and write the report."""
    tables, about = evaluation.tables(), evaluation.about()
    for sentence in evaluation.odd():
        report(sentence)
    for table in tables:
        print(table.markdown(), end='\n\n')
    if job.ablations:
        base = changed_settings(row_settings(Row('dig_chain', 'dig_chain'), job.parameters))
        print(f'{about}\nFixed in each table: {base}.')
    else:
        notes = [f'{name}: {text}' for name, text in evaluation.rows().items()]
        if job.peers.scores:
            names = ', '.join(job.peers.scores)
            notes.append(f'as in {args.peers.name}, {args.peers_set}, over all its pairs: {names}')
        print('\n- '.join([about, *notes]))
    if job.peers.scores and (args.limit or evaluation.skipped):
        report(f'the scores in {args.peers.name} are means over more pairs than those made here')
    page = evaluation.write_report(tables)
    if page is not None:
        report(f'written: {page}')
    elif args.save is None:
        report('no files written: --output DIR writes a report page, scores and fused images')
