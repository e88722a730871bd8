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
Run a person detector on a folder of labelled image pairs and print what it finds in each input.

DIR holds the folders visible and thermal (or such) with images of the same names, or images
NAME_A and NAME_B. Inputs are the visible image, the thermal image, classical fusions and the
fused image of this package; each fusion has the colour of the visible image. AP50 and AP50:95
are COCO's average precision of persons, in percent; the miss rate and the false positives per
image (FPPI) count detections of at least --score at an IoU of 0.5. Intervals are 95 % bootstrap
intervals over the images; that of a difference to the mean is paired, and a difference whose
interval contains 0 is no finding. The table goes to the standard output, everything else to the
standard error. Exit code: 0, 1 if a pair was skipped, 2 if nothing could be done.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
import sys
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dig2dig_ros.evaluation.baselines import BASELINES, to_uint8
from dig2dig_ros.evaluation.detection import (
    Detector,
    DetectorError,
    draw_images,
    Evaluation,
    ImageMatches,
    interval,
    LabelError,
    LabelSet,
    LAYOUTS,
    load_labels,
    match,
    PROVIDERS,
)
from dig2dig_ros.evaluation.image_pairs import (
    find_pairs,
    ImagePair,
    ImagePairError,
    load_pair,
    unpaired,
)
from dig2dig_ros.evaluation.metrics import luma
from dig2dig_ros.evaluation.tables import markdown_table
from dig2dig_ros.images.thermal_range import ThermalRange
from dig2dig_ros.tools.methods import FUSED, fused_method, Image
from dig2dig_ros.tools.options import (
    add_fusion_options,
    fusion_overrides,
    load_parameters,
    positive,
    report,
    thermal_range,
    UsageError,
)

# (visible BGR, thermal grey) to the image that the detector sees, grey or BGR.
Input = Callable[[Image, Image], Image]

VISIBLE, THERMAL, REFERENCE = 'visible', 'thermal', 'mean'
INPUTS = (VISIBLE, THERMAL, *BASELINES, FUSED)


def with_chroma_of(visible: Image, fused: NDArray[np.float32]) -> Image:
    """
    Give a fused luma the colour of the visible image, as the fused image of this package has it.

    :param visible: (H, W, 3) in blue-green-red order.
    :param fused: (H, W) on the 8-bit scale.
    :return: (H, W, 3), with the visible image's Cb and Cr but for clipping.
    """
    colour = visible.astype(np.float32)
    change = fused - colour @ np.array([0.114, 0.587, 0.299], dtype=np.float32)
    return to_uint8(colour + change[..., None])


def simple_input(name: str) -> Input:
    """Return one of :data:`INPUTS` other than the fused image."""
    if name == VISIBLE:
        return lambda visible, thermal: visible
    if name == THERMAL:
        return lambda visible, thermal: thermal
    fuse = BASELINES[name]
    return lambda visible, thermal: with_chroma_of(visible, fuse([luma(visible), thermal]))


def evaluate_pair(
    pair: ImagePair,
    labels: LabelSet,
    inputs: Mapping[str, Input],
    ranges: ThermalRange,
    detector: Detector,
) -> tuple[dict[str, ImageMatches], tuple[int, int]] | None:
    """
    Detect persons in every input of one pair.

    :return: matches by input, and (width, height) of the pair; None if it has no labels.
    :raises ValueError: the pair cannot be read, fused or evaluated; the message says why.
    """
    visible, counts = load_pair(pair)
    height, width = visible.shape[:2]
    if counts.shape != (height, width):
        raise ValueError(
            f'visible is {width}x{height}, thermal {counts.shape[1]}x{counts.shape[0]} pixels: '
            'labels need registered pairs of one size'
        )
    truth = labels.find((pair.name, pair.visible.stem, pair.thermal.stem), width, height)
    if truth is None:
        return None
    # All inputs are made of the same 8-bit thermal image.
    thermal = to_uint8(ranges(counts, 0.0) * 255)
    matches = {
        name: match(detector.detect(make(visible, thermal)), truth)
        for name, make in inputs.items()
    }
    return matches, (width, height)


def percent(value: float) -> str:
    """Return a fraction in percent with one decimal."""
    return f'{100 * value:.1f}'


def percent_range(ends: tuple[float, float], sign: str = '') -> str:
    """Return an interval of fractions in percent."""
    return ' to '.join(f'{100 * end:{sign}.1f}' for end in ends)


def verdict(difference: float, ends: tuple[float, float]) -> str:
    """Return a sentence on the AP50 of the fused image less that of the mean."""
    if ends[0] > 0 or ends[1] < 0:
        start = f'The AP50 of {FUSED} is {"above" if ends[0] > 0 else "below"} that of {REFERENCE}'
    else:
        start = f'These images do not tell the AP50 of {FUSED} from that of {REFERENCE}'
    return f'{start}: {100 * difference:+.1f}, 95 % interval {percent_range(ends, "+")}.'


def table(
    evaluations: Mapping[str, Evaluation], score: float, draws: NDArray[np.int64]
) -> tuple[str, str]:
    """
    Return the table, one row for each input, and a sentence on the fused image and the mean.

    :param score: of detections that count for the miss rate.
    :param draws: see :func:`~dig2dig_ros.evaluation.detection.draw_images`.
    :return: the sentence is empty where one of the two is not among the inputs.
    """
    header = ['input', 'AP50', '95 % interval', 'AP50:95', f'miss rate at {score:g}', 'FPPI']
    resampled = {name: entry.bootstrap(draws) for name, entry in evaluations.items()}
    compared = REFERENCE in evaluations and len(evaluations) > 1
    if compared:
        header += [f'AP50 - {REFERENCE}', '95 % interval']
    rows = []
    sentence = ''
    for name, entry in evaluations.items():
        row = [
            name,
            percent(entry.average_precision()),
            percent_range(interval(resampled[name])),
            percent(entry.mean_average_precision()),
            percent(entry.miss_rate(score)),
            f'{entry.false_positives_per_image(score):.2f}',
        ]
        if compared and name == REFERENCE:
            row += ['', '']
        elif compared:
            reference = evaluations[REFERENCE]
            difference = entry.average_precision() - reference.average_precision()
            ends = interval(resampled[name] - resampled[REFERENCE])
            row += [f'{100 * difference:+.1f}', percent_range(ends, '+')]
            if name == FUSED:
                sentence = verdict(difference, ends)
        rows.append([*row, str(entry.persons), str(entry.images)])
    return markdown_table([*header, 'boxes', 'images'], rows), sentence


def input_names(text: str) -> list[str]:
    """Split and check the value of ``--compare``."""
    names = list(dict.fromkeys(name.strip() for name in text.split(',') if name.strip()))
    unknown = [name for name in names if name not in INPUTS]
    if unknown or not names:
        raise argparse.ArgumentTypeError(
            f'{", ".join(unknown) or "nothing"} is unknown: name one or more of '
            f'{", ".join(INPUTS)}, separated by commas'
        )
    return names


def fraction(text: str) -> float:
    """Parse a number from 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f'{text} is not between 0 and 1')
    return value


def not_negative(text: str) -> int:
    """Parse a whole number from 0."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f'{value} is negative')
    return value


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; ends the program with code 2 where it makes no sense."""
    parser = argparse.ArgumentParser(
        prog='evaluate_detection',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('directory', type=Path, metavar='DIR', help='folder of image pairs')
    parser.add_argument(
        '--detector', type=Path, required=True, metavar='FILE', help='the detector, ONNX'
    )
    parser.add_argument(
        '--labels',
        type=Path,
        metavar='FILE|DIR',
        help='JSON with "boxes" (and "ignore") by image, JSON of COCO, or a folder of YOLO\'s '
        'NAME.txt; default: labels.json of DIR',
    )
    parser.add_argument(
        '--label-class',
        metavar='NAME|NUMBER',
        help="the labels' class of persons; default: COCO's person or pedestrian, YOLO's 0",
    )
    parser.add_argument(
        '--compare',
        type=input_names,
        default=list(INPUTS),
        metavar='INPUTS',
        help=f'rows of the table, default: {",".join(INPUTS)}',
    )
    parser.add_argument(
        '--limit', type=positive, metavar='PAIRS', help='take the first pairs only'
    )

    group = parser.add_argument_group('detector')
    group.add_argument(
        '--layout',
        choices=('auto', *LAYOUTS),
        default='auto',
        help='of its output; default: auto, told by its shape',
    )
    group.add_argument(
        '--size',
        type=positive,
        metavar='PIXELS',
        help="side of its input; default: the model's own, or 640 where it takes any",
    )
    group.add_argument(
        '--person-class',
        type=not_negative,
        default=0,
        metavar='NUMBER',
        help="the detector's class of persons, default: 0",
    )
    group.add_argument(
        '--iou',
        type=fraction,
        default=0.6,
        help='of the non-maximum suppression, default: 0.6',
    )
    group.add_argument(
        '--score',
        type=fraction,
        default=0.25,
        help='of detections that count for the miss rate and FPPI, default: 0.25',
    )
    group.add_argument(
        '--provider',
        choices=PROVIDERS,
        default='auto',
        help='of ONNX Runtime; default: auto, CUDA where there is one',
    )
    group.add_argument(
        '--threads',
        type=not_negative,
        default=0,
        help="CPU threads of the detector; default: 0, ONNX Runtime's choice",
    )

    group = parser.add_argument_group('fusion')
    add_fusion_options(group)

    group = parser.add_argument_group('intervals')
    group.add_argument(
        '--resamples', type=positive, default=2000, help='of the bootstrap, default: 2000'
    )
    group.add_argument('--seed', type=not_negative, default=0, help='of the bootstrap, default: 0')
    return parser.parse_args(argv)


def prepare_inputs(
    args: argparse.Namespace, parameters: Mapping[str, Any]
) -> tuple[dict[str, Input], str]:
    """Return what makes each input, and what a report should say about the fusion."""
    inputs: dict[str, Input] = {}
    about = ''
    for name in args.compare:
        if name == FUSED:
            inputs[name], about = fused_method(parameters, fusion_overrides(args))
        else:
            inputs[name] = simple_input(name)
    return inputs, about


def evaluate(args: argparse.Namespace) -> int:
    """
    Do what the command line asks for.

    :return: exit code.
    :raises UsageError: nothing can be done.
    :raises ImagePairError: there are no pairs.
    :raises LabelError: the labels cannot be read.
    :raises DetectorError: the detector cannot be used.
    """
    parameters = load_parameters(args.params) if args.params else {}
    ranges = thermal_range(parameters)
    pairs = find_pairs(args.directory)[: args.limit]
    alone = unpaired(args.directory)
    if alone:
        report(f'without a counterpart, left out: {", ".join(alone)}')
    labels = load_labels(args.labels or args.directory / 'labels.json', args.label_class)
    detector = Detector(
        args.detector,
        layout=args.layout,
        size=args.size,
        person_class=args.person_class,
        iou=args.iou,
        provider=args.provider,
        threads=args.threads,
    )
    inputs, about = prepare_inputs(args, parameters)

    matches: dict[str, list[ImageMatches]] = {name: [] for name in inputs}
    sizes: list[tuple[int, int]] = []
    skipped: list[str] = []
    unlabelled: list[str] = []
    for index, pair in enumerate(pairs, start=1):
        place = f'[{index}/{len(pairs)}] {pair.name}'
        try:
            result = evaluate_pair(pair, labels, inputs, ranges, detector)
        except (ValueError, RuntimeError, OSError, cv2.error) as error:
            skipped.append(pair.name)
            report(f'{place}: skipped, {error}')
            continue
        if result is None:
            unlabelled.append(pair.name)
            continue
        found, size = result
        sizes.append(size)
        for name, entry in found.items():
            matches[name].append(entry)
        parts = (
            f'{name} {int((entry.right[0] & (entry.scores >= args.score)).sum())}'
            for name, entry in found.items()
        )
        persons = next(iter(found.values())).persons
        report(f'{place}: persons {persons}, found in {", ".join(parts)}')
    if unlabelled:
        report(f'without labels, left out: {", ".join(unlabelled)}')
    evaluations = {name: Evaluation(entries) for name, entries in matches.items()}
    first = next(iter(evaluations.values()))
    if not first.persons:
        raise UsageError(
            f'no labelled person in {first.images} of the {len(pairs)} pairs of {args.directory} '
            f'that could be evaluated with {labels.source}'
        )
    draws = draw_images(first.images, args.resamples, args.seed)
    lines, sentence = table(evaluations, args.score, draws)
    print(lines)
    print()
    if sentence:
        print(sentence)
    print(caption(sizes, detector, args, about))
    if skipped:
        report(f'skipped {len(skipped)} of {len(pairs)} pairs: {", ".join(skipped)}')
    return 1 if skipped else 0


def caption(
    sizes: Sequence[tuple[int, int]], detector: Detector, args: argparse.Namespace, about: str
) -> str:
    """Return the line below the table: what it was measured with."""
    ordered = sorted(set(sizes), key=lambda size: size[0] * size[1])
    ends = ' to '.join(f'{w}x{h}' for w, h in dict.fromkeys((ordered[0], ordered[-1])))
    text = (
        f'{len(sizes)} pair{"s" if len(sizes) > 1 else ""} of {ends} pixels; detector: '
        f'{detector.describe()}, NMS {args.iou:g}; {args.resamples} resamples, seed {args.seed}'
    )
    return f'{text}; {FUSED}: {about}' if about else text


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; see the module's description."""
    args = parse_arguments(argv)
    try:
        return evaluate(args)
    except (UsageError, ImagePairError, LabelError, DetectorError, OSError, ImportError) as error:
        report(f'evaluate_detection: {error}')
        return 2


if __name__ == '__main__':
    sys.exit(main())
