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
Score the fusion on recordings: bags, or a folder of image pairs.

PATH is a ROS 2 bag (its folder, or an .mcap or .db3 file), or several. They are replayed through
the node's own pairing and fusion, with its parameters; no pair is dropped because of time, so a
bag gives the same images and scores each time. --output (default: evaluation/) gets a folder
named after each bag, with fused/ (a bag of the same storage with the fused images, weight maps
and camera_info), metrics.csv, timing.csv, summary.json, a video, and report.html, a page to open
in a browser.

Or PATH is a folder of image pairs: two folders of images with the same names (visible and thermal
or similar; A and B, near and far, or over and under for other tasks), or images NAME_A and NAME_B.
The methods are compared in tables; --output gets the same files, and the fused images.

Tables go to standard output, everything else to standard error. After Ctrl-C, the results so far
are written. Exit code: 0; 1 if a bag or a pair could not be evaluated; 2 if nothing could be done;
130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import os
from pathlib import Path

from dig2dig_ros.evaluation.bag_reader import is_bag
from dig2dig_ros.evaluation.comparison import (
    add_compare_option,
    add_plugin_option,
    add_score_options,
    parse_rows,
    rows_help,
)
from dig2dig_ros.evaluation.condition_study import add_condition_option
from dig2dig_ros.evaluation.detector import add_detector_options
from dig2dig_ros.evaluation.options import add_fusion_options, positive, UsageError
from dig2dig_ros.nodes.signals import run_tool
from dig2dig_ros.tools import evaluate_bag, evaluate_pairs


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """
    Parse the command line; exit with code 2 if it is invalid.

    :return: the options; ``bags`` is true if the paths are bags, false if a folder of pairs.
    """
    parser = argparse.ArgumentParser(
        prog='dig2dig evaluate',
        usage='%(prog)s PATH [PATH ...] [options]',
        description=__doc__,
        epilog=rows_help(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    # fmt: off
    add('paths', type=Path, nargs='+', metavar='PATH', help='bags, or a folder of image pairs')
    add('-o', '--output', type=Path, metavar='DIR',
        help='output folder; default: evaluation for bags, none for pairs')
    add('--overwrite', action='store_true', help='replace the results of an earlier evaluation')
    add('--limit', type=positive, metavar='PAIRS', help='use only the first pairs')
    add('--thermal-to-visible', metavar='FILE',
        help='registration of the thermal images, as dig2dig calibrate writes it; default: that '
        'of --preset, if any')
    # fmt: on
    add_fusion_options(parser)
    scores = parser.add_argument_group('scores')
    tables = scores.add_mutually_exclusive_group()
    add_compare_option(tables, f'{evaluate_pairs.COMPARED}, for bags {evaluate_bag.COMPARED}')
    add_plugin_option(scores)
    add_score_options(scores)
    detection = parser.add_argument_group('detection')
    text = (
        'labels.json in the folder of pairs, none for bags, whose images are named by their stamps'
    )
    add_detector_options(detection, text)
    add_condition_option(detection)
    of_pairs = evaluate_pairs.add_pair_options(parser, tables)
    of_bags = evaluate_bag.add_bag_options(parser)

    args = parser.parse_args(argv)
    args.bags = are_bags(args.paths)
    what, kind = ('a bag', 'pairs') if args.bags else ('a folder of pairs', 'bags')
    for group in of_pairs if args.bags else of_bags:
        for action in group._group_actions:
            if getattr(args, action.dest) != action.default:
                option = action.option_strings[-1]
                parser.error(f'{option} is for {kind}, but {args.paths[0]} is {what}')
    if args.bags:
        if args.ablation:
            parser.error(f'--ablation is for pairs, but {args.paths[0]} is {what}')
        evaluate_bag.check_bag_options(parser, args)
    else:
        evaluate_pairs.check_pair_options(parser, args)
    args.compare_default = parse_rows((evaluate_bag if args.bags else evaluate_pairs).COMPARED)
    if args.compare is None:
        args.compare = args.compare_default
    return args


def are_bags(paths: Sequence[Path]) -> bool:
    """
    Return whether the paths are bags, rather than a folder of pairs.

    Anything that is neither, and a folder of bags, counts as bags: reading it gives the better
    message.
    """
    first = paths[0]
    return (
        len(paths) > 1
        or is_bag(first)
        or not first.is_dir()
        or any(is_bag(path) for path in first.iterdir() if path.is_dir())
    )


def evaluate(args: argparse.Namespace) -> int:
    """
    Run the command.

    :return: the exit code.
    :raises Refusal, OSError, ImportError: nothing can be done.
    """
    if len(args.paths) == 1 and not args.paths[0].exists():
        raise UsageError(f'there is no {args.paths[0]}: name a bag, or a folder of image pairs')
    return (evaluate_bag.evaluate_bags if args.bags else evaluate_pairs.evaluate_pairs)(args)


def main(argv: Sequence[str]) -> int:
    """Run the tool; see the module's description."""
    # Read by OpenMP when torch loads: waiting threads must not occupy cores.
    os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
    note = 'interrupted, nothing more is written'
    return run_tool('dig2dig evaluate', lambda: evaluate(parse_arguments(argv)), note)
