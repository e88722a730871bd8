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
Evaluate bags, for ``dig2dig evaluate``.

Visible and thermal images are paired by the node's own pairing and fused as the node would fuse
them, with its parameters; no pair is dropped because of time, so a bag gives the same images and
scores each time.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import os
from pathlib import Path
import sys
import threading
import time
from typing import Any

from dig2dig_ros.evaluation.bag_evaluation import (
    BagJob,
    BagResult,
    count_of_pairs,
    evaluate_or_refuse,
    remove_partial_results,
    result_folders,
)
from dig2dig_ros.evaluation.comparison import (
    FUSED,
    Row,
    rows_against,
)
from dig2dig_ros.evaluation.condition_study import rows_under_conditions
from dig2dig_ros.evaluation.detector import detector_options
from dig2dig_ros.evaluation.jobs import Outcome, run_jobs
from dig2dig_ros.evaluation.methods import time_left
from dig2dig_ros.evaluation.options import (
    chosen_parameters,
    INTERRUPTED,
    positive,
    report,
    UsageError,
)
from dig2dig_ros.evaluation.scores import format_value
from dig2dig_ros.evaluation.tables import Table
from dig2dig_ros.nodes.signals import interruption
from dig2dig_ros.streams.parameters import complete_values

COMPARED = 'mean,laplacian,fused'
OUTPUT = Path('evaluation')
# Metrics in the table over several bags.
OVERVIEW_METRICS = ('SSIM', 'Qabf', 'VIF', 'MI', 'EN', 'SD')
_LINE_SECONDS = 10.0


def add_bag_options(parser: argparse.ArgumentParser) -> list[argparse._ArgumentGroup]:
    """Add the options that only bags have; return their groups."""
    topics = parser.add_argument_group('topics of bags', 'by default found by their names')
    topics.add_argument('--visible', metavar='TOPIC', help='images of the visible camera')
    topics.add_argument('--thermal', metavar='TOPIC', help='images of the thermal camera')
    topics.add_argument('--camera-info', metavar='TOPIC', help='camera_info of the visible camera')
    text = 'another source to fuse; may be repeated'
    _add_named_topics(topics, '--source', 'NAME=TOPIC', text)
    text = (
        'use recorded detections in place of --detector: vision_msgs/Detection2DArray or '
        'yolo_msgs/DetectionArray, for the input visible, thermal or fused; may be repeated'
    )
    _add_named_topics(topics, '--detections', 'INPUT=TOPIC', text)
    group = parser.add_argument_group('bags')
    text = 'score only every n-th pair to save time; all are fused; default: 1'
    group.add_argument('--every', type=positive, default=1, metavar='PAIRS', help=text)
    text = 'number of bags to evaluate in parallel, each in its own process; default: 1'
    group.add_argument('-j', '--jobs', type=positive, default=1, metavar='COUNT', help=text)
    group.add_argument(
        '--scheduler',
        metavar='ADDRESS',
        help='evaluate on the workers of a Dask cluster, for example tcp://host:8786; they need '
        'this package, and the same paths to the bags and the output',
    )
    return [topics, group]


def check_bag_options(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Exit with code 2 if the options of bags contradict each other."""
    if args.detector is not None and args.detections:
        parser.error('give either --detector or --detections, not both')
    inputs = [name for name, _ in args.detections]
    known = ('visible', 'thermal', FUSED, *(name for name, _ in args.source))
    for name in inputs:
        if name not in known:
            parser.error(f'--detections: unknown input {name}: use one of {", ".join(known)}')
        if inputs.count(name) > 1:
            parser.error(f'--detections: {name} has more than one topic')
    if args.labels is not None and not (args.detector or args.detections):
        parser.error('--labels needs --detector or --detections')


def _add_named_topics(
    group: argparse._ActionsContainer, option: str, metavar: str, text: str
) -> None:
    def named_topic(text: str) -> tuple[str, str]:
        name, equals, topic = text.partition('=')
        if not (name and equals and topic):
            raise argparse.ArgumentTypeError(f'{text!r} is not {metavar}')
        return name, topic

    group.add_argument(
        option, type=named_topic, action='append', default=[], metavar=metavar, help=text
    )


def parameter_values(args: argparse.Namespace) -> dict[str, Any]:
    """
    Return all parameters of the node as the command line sets them.

    :raises UsageError: a value is refused, or contradicts ``--source``.
    """
    given = chosen_parameters(args)
    sources = [name for name, _ in args.source]
    if sources:
        given['additional_sources'] = sources
    try:
        values = complete_values(given)
    except (TypeError, ValueError) as error:
        raise UsageError(str(error)) from error
    missing = [name for name in values['additional_sources'] if name not in sources]
    if missing:
        raise UsageError(
            f'the parameters name the additional source {missing[0]}: give its topic with '
            f'--source {missing[0]}=TOPIC'
        )
    return values


class Console:
    """
    Shows progress: on a terminal one line that changes, elsewhere a line now and then.

    :param bags: their names.
    :param interrupted: once it is set, a line confirms it.
    """

    def __init__(self, bags: Sequence[str], interrupted: threading.Event) -> None:
        self._bags = bags
        self._interrupted = interrupted
        self._confirmed = False
        self._terminal = sys.stderr.isatty()
        # (pairs done, pairs expected, current activity) of the running jobs.
        self._latest: dict[int, tuple[int, int, str]] = {}
        self._started: dict[int, float] = {}
        self._shown = time.monotonic()
        self._width = 0

    def progress(self, job: int, done: int, total: int, text: str) -> None:
        """Take in the progress of a bag; without a total, a message about it."""
        now = time.monotonic()
        if done == 0 or job not in self._started:
            self._started[job] = now
        if self._interrupted.is_set() and not self._confirmed:
            self._confirmed = True
            self._tell(INTERRUPTED)
        if not total:
            self._tell(f'{self._bags[job]}: {text}')
            return
        self._latest[job] = (done, total, text)
        if self._terminal:
            self._rewrite('; '.join(map(self._describe, self._latest)))
        elif now - self._shown >= _LINE_SECONDS:
            self._shown = now
            for running in self._latest:
                report(self._describe(running))

    def _describe(self, job: int) -> str:
        done, total, doing = self._latest[job]
        text = f'{self._bags[job]}: {done}/{total} pairs'
        elapsed = time.monotonic() - self._started[job]
        if 0 < done < total and elapsed > 1:
            text += f', {done / elapsed:.1f}/s, {time_left(elapsed, done, total)}'
        elif doing and done >= total:
            text += f', {doing}'
        return text

    def _rewrite(self, text: str) -> None:
        # A terminal that does not know its width, such as a serial line, reports zero.
        columns = os.get_terminal_size(sys.stderr.fileno()).columns or 80
        text = text[: max(columns - 1, 20)]
        sys.stderr.write('\r' + text.ljust(self._width))
        sys.stderr.flush()
        self._width = len(text)

    def _tell(self, text: str) -> None:
        """Write a permanent line in place of the changing one."""
        if self._terminal and self._width:
            self._rewrite('')
            sys.stderr.write('\r')
            self._width = 0
        report(text)

    def outcome(self, outcome: Outcome[BagResult | str]) -> None:
        """Report the outcome of a bag, in permanent lines."""
        self._latest.pop(outcome.job, None)
        name = self._bags[outcome.job]
        again = f' (attempt {outcome.attempts})' if outcome.attempts > 1 else ''
        result = outcome.result
        if not isinstance(result, BagResult):
            # Only an unexpected error has a traceback, which helps to find its cause.
            details = f'\n{outcome.details.rstrip()}' if outcome.details else ''
            self._tell(f'{name}: not evaluated{again}, {result or outcome.error}{details}')
            return
        for warning in result.warnings:
            self._tell(f'{name}: {warning}')
        causes = [f'{count} {cause}' for cause, count in result.not_fused.items()]
        if causes:
            self._tell(f'{name}: not fused: {", ".join(causes)}')
        state = 'interrupted, ' if result.interrupted else ''
        state += count_of_pairs(result.pairs) + again
        self._tell(f'{name}: {state}, {result.folder / "report.html"}')


def overview(results: Sequence[BagResult | None], names: Sequence[str]) -> Table:
    """Return the table over all bags: one line each, with None for those without results."""
    rows = []
    for result, name in zip(results, names, strict=True):
        if result is None:
            rows.append((name, '', '', *('' for _ in OVERVIEW_METRICS)))
            continue
        own = result.metrics.get(FUSED, {})
        cells = (format_value(own[m]) if m in own else '' for m in OVERVIEW_METRICS)
        dropped = sum(result.not_fused.values())
        rows.append((name, str(result.pairs), str(dropped), *cells))
    header = ('bag', 'pairs', 'dropped', *OVERVIEW_METRICS)
    devices = {result.device for result in results if result is not None}
    notes = [f'Means of {FUSED} over the scored pairs of each bag; {"; ".join(sorted(devices))}.']
    if len(devices) > 1:
        notes.append(
            'The bags were fused on different devices or in different precisions, so the last '
            'digits are not comparable: set device and precision.'
        )
    return Table('All bags', header, tuple(rows), tuple(notes))


def make_jobs(args: argparse.Namespace) -> list[BagJob]:
    """
    Return what to do with each bag.

    :raises UsageError: the options contradict each other, or earlier results are in the way.
    """
    values = parameter_values(args)
    rows: tuple[Row, ...] = tuple(rows_under_conditions(args, args.compare_default))
    if FUSED not in [row.name for row in rows]:
        raise UsageError(f'--compare needs the row {FUSED} for bags: add it')
    against = tuple(rows_against(rows, args.against, args.plugin))
    detects = args.detector is not None or bool(args.detections)
    return [
        BagJob(
            bag=bag.resolve(),
            folder=folder.resolve(),
            values=values,
            rows=rows,
            against=against,
            visible=args.visible,
            thermal=args.thermal,
            camera_info=args.camera_info,
            others=tuple(args.source),
            every=args.every,
            limit=args.limit,
            lpips=args.lpips,
            detector=detector_options(args) if detects else None,
            recorded=tuple(args.detections),
            plugins=tuple(path.resolve() for path in args.plugin),
            conditions=tuple(args.conditions),
        )
        for bag, folder in zip(
            args.paths,
            result_folders(args.paths, args.output or OUTPUT, args.overwrite),
            strict=True,
        )
    ]


def evaluate_bags(args: argparse.Namespace) -> int:
    """
    Evaluate the bags on the command line.

    :return: exit code.
    :raises UsageError: nothing can be done.
    :raises ClusterError: the cluster cannot be used.
    """
    jobs = make_jobs(args)
    names = [job.folder.name for job in jobs]
    processes = min(args.jobs, len(jobs))
    with interruption() as interrupted:
        console = Console(names, interrupted)
        try:
            outcomes = run_jobs(
                evaluate_or_refuse,
                jobs,
                processes=processes,
                # Together they use all cores once, unless the parameters set num_threads.
                threads=jobs[0].values['num_threads']
                or max(1, (os.cpu_count() or 1) // processes),
                scheduler=args.scheduler,
                on_progress=console.progress,
                on_outcome=console.outcome,
                stopping=interrupted.is_set,
            )
        finally:
            for job in jobs:
                remove_partial_results(job.folder)
    results = [
        outcome.result if isinstance(outcome.result, BagResult) else None for outcome in outcomes
    ]
    for name, result in zip(names, results, strict=True):
        if result is not None:
            title = f'# {name}\n\n' if len(jobs) > 1 else ''
            print(title + '\n\n'.join(table.markdown() for table in result.tables), end='\n\n')
    if len(jobs) > 1 and any(results):
        print(overview(results, names).markdown())
    if interrupted.is_set():
        return 130
    if not any(results):
        return 2
    return 0 if all(results) else 1
