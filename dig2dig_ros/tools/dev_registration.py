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
Measure how well dig2dig calibrate registers the thermal camera from the images alone.

DIR holds registered image pairs in two folders, visible and thermal, with the same file names.
Each thermal image is warped by a random homography (rotation, scale, shift and perspective), which
the estimator has to recover. Errors are distances of the corners of the thermal image, root mean
square over the four, in thermal pixels. The table goes to standard output, progress to standard
error; --output writes the table and every trial as JSON. The same seed gives the same trials.

Exit code: 0; 2 if nothing could be done; 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
import json
import math
from pathlib import Path
from typing import get_args

import cv2
import numpy as np

from dig2dig_ros.evaluation.options import (
    positive,
    report,
    size_argument,
    UsageError,
    within,
)
from dig2dig_ros.evaluation.registration_trials import (
    common_crop,
    Draws,
    Images,
    reference,
    run_trial,
    summary,
    Trial,
)
from dig2dig_ros.images.alignment import Model
from dig2dig_ros.images.geometry import Array, size_of
from dig2dig_ros.images.image_pairs import find_pairs, ImagePair, load_pair
from dig2dig_ros.images.output_files import check_output_file
from dig2dig_ros.nodes.signals import run_tool

# Pairs for a common reference: more do not improve it.
_MOST_FOR_REFERENCE = 16


def evaluate(args: argparse.Namespace) -> int:
    """
    Run all trials and print their table.

    :raises UsageError: an option does not fit the pairs.
    :raises ImagePairError: there are no pairs, or one cannot be read.
    :raises RegistrationError: images cannot be registered.
    """
    if args.output:
        check_output_file(args.output)
    found = find_pairs(args.directory)
    count = len(found)
    if args.group > count or (args.mismatched and count < 2):
        raise UsageError(f'there are only {count} pairs in {args.directory}: ask for fewer')
    draws = Draws(args.rotation, args.scale, args.shift, args.perspective)
    one = _common_reference(found) if args.one_camera else None
    trials: list[Trial] = []
    number = args.trials or (count if args.group == 1 else max(1, count // args.group))
    for index in range(number):
        # One for each trial, so that more trials do not change the first ones.
        random = np.random.default_rng((args.seed, index))
        if args.group == 1:
            picked = [index % count]
        else:
            picked = [int(i) for i in random.choice(count, args.group, replace=False)]
        pairs: list[Images] = [load_pair(found[i]) for i in picked]
        if args.mismatched:
            others = [load_pair(found[(i + count // 2) % count]) for i in picked]
            own = common_crop(pairs + others)
            half = len(pairs)
            pairs = [(v, t) for (v, _), (_, t) in zip(own[:half], own[half:], strict=True)]
            known = None
        else:
            pairs = common_crop(pairs)
            known = one or reference(pairs)
        names = [found[i].name for i in picked]
        trial = run_trial(names, pairs, known, draws, args.thermal_size, random, args.model)
        trials.append(trial)
        verdict = 'trusted' if trial.trusted else 'untrusted'
        report(
            f'[{index + 1}/{number}] {", ".join(names)}: {trial.before:.1f} -> '
            f'{trial.error:.2f} pixels, {verdict}, {trial.seconds:.1f} s per pair'
        )
    table = summary(trials, args)
    print(table.markdown())
    if args.output:
        document = {'table': asdict(table), 'trials': [asdict(trial) for trial in trials]}
        args.output.write_text(json.dumps(document, indent=1) + '\n', encoding='utf-8')
    return 0


def _common_reference(found: Sequence[ImagePair]) -> tuple[Array, bool]:
    """Return the common reference of pairs from the same two cameras."""
    chosen = found[:: math.ceil(len(found) / _MOST_FOR_REFERENCE)]
    report(f'reference from {len(chosen)} pairs')
    loaded = [load_pair(pair) for pair in chosen]
    if len({(size_of(visible), size_of(thermal)) for visible, thermal in loaded}) > 1:
        raise UsageError('the pairs differ in size, as of several cameras: leave out --one-camera')
    return reference(loaded)


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; exit with code 2 if it is invalid."""
    parser = argparse.ArgumentParser(
        prog='dig2dig dev registration',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    # fmt: off
    add('directory', type=Path, metavar='DIR', help='folder of registered image pairs')
    add('--trials', type=positive, metavar='N', help='default: one for each pair or group')
    add('--group', type=positive, default=1, metavar='K', help='register K pairs, drawn at '
        'random, together; default: 1')
    add('--rotation', type=within(0, 20), default=5.0, metavar='DEGREES',
        help='largest rotation to either side; default: 5')
    add('--scale', type=within(1, 1.6), default=1.25, metavar='FACTOR',
        help='largest scale factor, up or down; default: 1.25')
    add('--shift', type=within(0, 0.4), default=0.15, metavar='PART',
        help='largest shift, as a fraction of width and height; default: 0.15')
    add('--perspective', type=within(0, 0.1), default=0.02, metavar='PART', help='largest '
        'change of scale at the ends of the longer side, as a fraction; default: 0.02')
    add('--model', choices=get_args(Model), default='homography', help='what to estimate; '
        'default: homography')
    add('--seed', type=int, default=0, help='random seed, 0 or more; default: 0')
    add('--thermal-size', type=size_argument, metavar='WxH', help='size of the thermal images to '
        "register; default: the data set's")
    add('-o', '--output', type=Path, metavar='FILE.json', help='write the table and all trials')
    add = parser.add_mutually_exclusive_group().add_argument
    add('--one-camera', action='store_true', help='all pairs come from the same two cameras: '
        'take one reference from many of them')
    add('--mismatched', action='store_true', help='combine images of different pairs, which the '
        'estimator must refuse to trust')
    # fmt: on
    args = parser.parse_args(argv)
    if args.seed < 0:
        parser.error('--seed must be 0 or more')
    return args


def main(argv: Sequence[str]) -> int:
    """Run the tool; see the module's description."""
    return run_tool(
        'dig2dig dev registration',
        lambda: evaluate(parse_arguments(argv)),
        'interrupted, nothing is written',
        refusals=(cv2.error,),
    )
