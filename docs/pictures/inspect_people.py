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
Look at what a detector finds in one pair of real images: in each camera, their mean, and fused.

The pair is shown as it is, and as its visible camera would have taken it with a twentieth of the
light (the condition night_shot of dig2dig evaluate). Printed: how many of the persons are found.
--output draws both, people.jpg. Exit code: 0, or 2 if nothing could be done.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
import sys

from dig2dig_ros.nodes.signals import hear_interrupts, run_tool

if __name__ == '__main__':  # before the imports that take seconds
    hear_interrupts('inspect_people')

import cv2
import numpy as np
from sheets import draw, Image, Panel, Sheet

from dig2dig_ros.detections.boxes import Detections
from dig2dig_ros.evaluation.average_precision import match
from dig2dig_ros.evaluation.conditions import parse_conditions
from dig2dig_ros.evaluation.detector import Detector
from dig2dig_ros.evaluation.detector_inputs import detector_inputs
from dig2dig_ros.evaluation.labels import ImageLabels, load_labels
from dig2dig_ros.evaluation.options import set_up_fuser, UsageError
from dig2dig_ros.images.image_pairs import find_pairs, load_pair

_FOUND, _WRONG = (115, 158, 0), (0, 94, 213)  # blue-green-red
_INPUTS = {'visible': 'visible', 'thermal': 'thermal', 'mean': 'average', 'fused': 'fused'}
_CONDITIONS = {'clean': 'as recorded', 'night_shot': '5 % of the light'}


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; exit with code 2 if it is invalid."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser('inspect_people', description=__doc__, formatter_class=raw)
    # fmt: off
    add = parser.add_argument
    add('pairs', type=Path, metavar='FOLDER', help='image pairs with labels, as dig2dig '
        'evaluate takes them')
    add('--pair', required=True, metavar='NAME', help='which of them')
    add('--detector', required=True, type=Path, metavar='MODEL.onnx')
    add('--score', type=float, default=0.4, help='of the boxes that are drawn, default: 0.4')
    add('--source', default='', help='the source of the images, for the note below the title')
    add('--device', default='auto', help='auto, cpu, cuda or cuda:N')
    add('-o', '--output', type=Path, metavar='DIR',
        help='draw people.jpg into this folder (needs matplotlib)')
    # fmt: on
    return parser.parse_args(argv)


def inspect(args: argparse.Namespace) -> int:
    """
    Do what the command line asks for.

    :return: exit code.
    :raises UsageError, ImagePairError: nothing can be done.
    :raises OSError, ImportError: a result cannot be written, or matplotlib is missing.
    """
    detector = Detector(args.detector)
    pair = next((pair for pair in find_pairs(args.pairs) if pair.name == args.pair), None)
    if pair is None:
        raise UsageError(f'{args.pairs} has no pair {args.pair}')
    images = load_pair(pair, same_size=True)
    height, width = images[0].shape[:2]
    truth = load_labels(args.pairs / 'labels.json').find([pair.name], width, height)
    if truth is None:
        raise UsageError(f'{args.pairs / "labels.json"} says nothing about {pair.name}')
    fuser = set_up_fuser({'device': args.device})
    rows = []
    for condition in parse_conditions(','.join(_CONDITIONS)):
        visible, thermal = condition.apply(*images, pair.name)
        fused = {'fused': fuser.fuse(visible, thermal, weight_maps=False).image}
        panels = []
        for name, image in detector_inputs(tuple(_INPUTS), visible, thermal, fused).items():
            found, drawn = _find(detector, image, truth, args.score)
            print(f'{condition.name}, {name}: {found} of {len(truth.boxes)}')
            panels.append(Panel(drawn, f'{_INPUTS[name]}: {found} of {len(truth.boxes)}'))
        rows.append((_CONDITIONS[condition.name], panels))
    if args.output is not None:
        args.output.mkdir(parents=True, exist_ok=True)
        note = f'Boxes of a score of {args.score:g} or more; green: right, orange: wrong.'
        title = f'Persons that {args.detector.stem} finds'
        sheet = Sheet(title, f'{note} {args.source}'.strip(), rows)
        (args.output / 'people.jpg').write_bytes(draw(sheet))
    return 0


def _find(detector: Detector, image: Image, truth: ImageLabels, score: float) -> tuple[int, Image]:
    """Return how many persons are found, and the image with all boxes."""
    found = detector.detect(image)
    sure = found.scores >= score
    found = Detections(found.boxes[sure], found.scores[sure])
    right = match(found, truth, (0.5,)).right[0]
    drawn = np.stack([image] * 3, axis=-1) if image.ndim == 2 else image.copy()
    thickness = max(2, round(drawn.shape[1] / 300))
    for box, is_right in zip(found.boxes, right, strict=True):
        left, top, across, down = (round(float(value)) for value in box)
        colour = _FOUND if is_right else _WRONG
        cv2.rectangle(drawn, (left, top), (across, down), colour, thickness)
    return int(right.sum()), drawn


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; see the module's description."""
    return run_tool('inspect_people', lambda: inspect(parse_arguments(argv)))


if __name__ == '__main__':
    sys.exit(main())
