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
Measure what declaring a degradation gains: degrade pairs, fuse them, compare with clean fusion.

DIR holds registered image pairs in two folders, visible and thermal, with the same file names.
They are degraded as a camera would degrade them, rounded and clipped to 8 bits, and fused:

- clean: without degradation, for reference;
- degraded: as they are, with a smaller thermal image resized to the visible one;
- restored first: denoised with OpenCV's non-local means, at the best of several strengths, and
  the thermal image enlarged bicubically;
- not declared: with the settings as they are, by default all that can be estimated;
- declared: with the degradation declared in visible_degradation and thermal_degradation;
- noise estimated: the same, with "noise auto" in place of the noise's deviation.

SSIM compares the luma with the fusion of the clean images, Qabf with the clean images themselves;
both are means over the pairs. Each metric shows the best strength of restoring first. Tables go to
standard output, progress to standard error. The noise is the same in every run.

Exit code: 0; 1 if a pair was skipped; 2 if nothing could be done; 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
import time

import cv2

from dig2dig_ros.evaluation.methods import time_left
from dig2dig_ros.evaluation.options import (
    add_fusion_options,
    chosen_parameters,
    INTERRUPTED,
    positive,
    report,
    set_up_fuser,
    thermal_crop,
    thermal_range,
    UsageError,
)
from dig2dig_ros.evaluation.restoration_study import Case, METRICS, RestorationStudy
from dig2dig_ros.evaluation.scores import ScoreFile
from dig2dig_ros.fusion.degradation import DegradationError
from dig2dig_ros.images.image_pairs import find_pairs
from dig2dig_ros.images.output_files import check_output_file
from dig2dig_ros.nodes.signals import interruption, run_tool

# 'VISIBLE; THERMAL', or one degradation for both.
DEFAULT_CASES = (
    'noise 15',
    'noise 25',
    'noise 50',
    'blur 2',
    'none; x2',
    'none; x4',
    'blur 1.5, noise 15; blur 1.5, x2, noise 15',
)


def case_argument(text: str) -> Case:
    """Parse a case on the command line."""
    try:
        return Case.parse(text)
    except DegradationError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; exit with code 2 if it is invalid."""
    parser = argparse.ArgumentParser(
        prog='dig2dig dev restoration',
        usage='%(prog)s DIR [options]',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    # fmt: off
    add('directory', type=Path, metavar='DIR', help='folder of image pairs')
    add('--degrade', nargs='+', type=case_argument, metavar='TEXT',
        default=[Case.parse(text) for text in DEFAULT_CASES],
        help='rows of the tables: each a degradation of both images, written as in the '
        "parameters, or 'VISIBLE; THERMAL'; default: "
        f"{', '.join(map(repr, DEFAULT_CASES))}")
    add('--limit', type=positive, metavar='PAIRS', help='use only the first pairs')
    add_fusion_options(parser)
    add('-o', '--output', type=Path, metavar='FILE.csv', help='write the values of every pair')
    # fmt: on
    return parser.parse_args(argv)


def evaluate(args: argparse.Namespace) -> int:
    """
    Run the command.

    :return: exit code.
    :raises UsageError: nothing can be done.
    :raises ImagePairError: there are no pairs.
    :raises OSError: the values cannot be written.
    """
    if args.output:
        check_output_file(args.output)
    pairs = find_pairs(args.directory)[: args.limit]
    parameters = chosen_parameters(args)
    ranges = thermal_range(parameters)
    fuser = set_up_fuser(parameters)
    columns = ('pair', 'visible; thermal', 'method')
    lines = ScoreFile(args.output, columns, METRICS, ['ms']) if args.output else None
    # One row per case, however often it is named.
    cases = dict.fromkeys(args.degrade)
    study = RestorationStudy(fuser, ranges, cases, lines, thermal_crop(parameters))
    done = skipped = 0
    started = time.perf_counter()
    with interruption(lambda: report(INTERRUPTED)) as interrupted:
        for index, pair in enumerate(pairs):
            if interrupted.is_set():
                break
            try:
                study.take(pair, index)
                done += 1
                result = 'done'
            except (ValueError, RuntimeError, OSError, cv2.error) as error:
                skipped += 1
                result = f'skipped, {error}'
            left = time_left(time.perf_counter() - started, index + 1, len(pairs))
            report(f'[{index + 1}/{len(pairs)}] {pair.name}: {result}; {left}')
    if lines is not None:
        lines.close()
    if done:
        for table in study.tables():
            print(table.markdown(), end='\n\n')
        print(f'{done} pair{"s" if done > 1 else ""}', end='')
        print(f', {skipped} skipped' if skipped else '', end='; ')
        print(', '.join(f'{key} {value}' for key, value in fuser.describe().items()))
    elif not interrupted.is_set():
        raise UsageError(f'none of the {len(pairs)} pairs of {args.directory} could be used')
    if interrupted.is_set():
        return 130
    return 1 if skipped else 0


def main(argv: Sequence[str]) -> int:
    """Run the tool; see the module's description."""
    return run_tool(
        'dig2dig dev restoration',
        lambda: evaluate(parse_arguments(argv)),
        'interrupted, nothing more is written',
    )
