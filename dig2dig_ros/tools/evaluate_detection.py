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
Run a person detector on a folder of image pairs and print what it finds in each input.

DIR holds the folders visible and thermal (or such) with images of the same names, or images
NAME_A and NAME_B. Inputs are the visible image, the thermal image, classical fusions and the
fused image of this package; each fusion has the colour of the visible image.

With labels, AP50 and AP50:95 are COCO's average precision of persons, in percent; the miss rate
and the false positives per image (FPPI) count detections of at least --score at an IoU of 0.5.
Intervals are 95 % bootstrap intervals over the images; that of a difference to the mean is
paired, and a difference whose interval contains 0 is no finding. A second table has the miss
rate by size of the person and by day and night. Without labels, tables say how far the inputs
agree, which is not the truth.

The tables go to the standard output, everything else to the standard error. Exit code: 0, 1 if a
pair was skipped, 2 if nothing could be done, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
import sys

import cv2

from dig2dig_ros.evaluation.baselines import BASELINES, to_uint8
from dig2dig_ros.evaluation.detecting import (
    add_detector_options,
    describe_detector,
    detector_options,
    not_negative,
)
from dig2dig_ros.evaluation.detection import Detector, DetectorError, LabelError, LabelSet
from dig2dig_ros.evaluation.detection_study import (
    DetectionStudy,
    detector_inputs,
    THERMAL,
    VISIBLE,
)
from dig2dig_ros.evaluation.image_pairs import (
    find_pairs,
    ImagePair,
    ImagePairError,
    load_pair,
    unpaired,
)
from dig2dig_ros.evaluation.methods import fused_method
from dig2dig_ros.evaluation.options import (
    add_fusion_options,
    fusion_overrides,
    load_parameters,
    positive,
    report,
    thermal_range,
    UsageError,
)
from dig2dig_ros.evaluation.scores import FUSED, Image, Method
from dig2dig_ros.images.thermal_range import ThermalRange

INPUTS = (VISIBLE, THERMAL, *BASELINES, FUSED)


class PairStudy:
    """
    Detects persons in every input of the pairs of a folder, one pair after the other.

    :param labels: the truth; without it, only agreement is measured.
    :param fusions: those of :data:`INPUTS` that are no baselines.
    :param ranges: makes the 8-bit thermal image of which all inputs are made.
    """

    def __init__(
        self,
        study: DetectionStudy,
        labels: LabelSet | None,
        fusions: Mapping[str, Method],
        ranges: ThermalRange,
        detector: Detector,
    ) -> None:
        self.study = study
        self.sizes: set[tuple[int, int]] = set()
        self._labels = labels
        self._fusions = fusions
        self._ranges = ranges
        self._detector = detector

    def add(self, pair: ImagePair) -> dict[str, int] | None:
        """
        Take one pair.

        :return: number of persons found by input; None if the others have labels and it has none.
        :raises ValueError: it cannot be read, fused or evaluated; the message says why.
        """
        visible, counts = load_pair(pair)
        height, width = visible.shape[:2]
        if counts.shape != (height, width):
            raise ValueError(
                f'visible is {width}x{height}, thermal {counts.shape[1]}x{counts.shape[0]} '
                'pixels: boxes of persons need registered pairs of one size'
            )
        names = (pair.name, pair.visible.stem, pair.thermal.stem)
        # Fusing and detecting take long, so look before.
        if self._labels is not None and self._labels.find(names, width, height) is None:
            return None
        thermal = to_uint8(self._ranges(counts, 0.0) * 255)
        fused: dict[str, Image] = {
            name: fuse(visible, thermal) for name, fuse in self._fusions.items()
        }
        images = detector_inputs(self.study.inputs, visible, thermal, fused)
        detections = {name: self._detector.detect(image) for name, image in images.items()}
        found = self.study.add(names, visible, detections)
        self.sizes.add((width, height))
        return found


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


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; ends the program with code 2 where it makes no sense."""
    parser = argparse.ArgumentParser(
        prog='evaluate_detection',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('directory', type=Path, metavar='DIR', help='folder of image pairs')
    parser.add_argument(
        '--compare',
        type=input_names,
        default=list(INPUTS),
        metavar='INPUTS',
        help=f'rows of the tables, default: {",".join(INPUTS)}',
    )
    parser.add_argument(
        '--limit', type=positive, metavar='PAIRS', help='take the first pairs only'
    )

    group = parser.add_argument_group('detector')
    add_detector_options(group, 'labels.json of DIR', required=True)

    group = parser.add_argument_group('fusion')
    add_fusion_options(group)

    group = parser.add_argument_group('intervals')
    group.add_argument(
        '--resamples', type=positive, default=2000, help='of the bootstrap, default: 2000'
    )
    group.add_argument('--seed', type=not_negative, default=0, help='of the bootstrap, default: 0')
    return parser.parse_args(argv)


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
    options = detector_options(args)
    usual = args.directory / 'labels.json'
    labels = options.load_labels(usual)
    if labels is None:
        report(f'no --labels and no {usual}: only the agreement of the inputs can be measured')
    detector = options.load()
    fusions: dict[str, Method] = {}
    about = ''
    if FUSED in args.compare:
        fusions[FUSED], about = fused_method(parameters, fusion_overrides(args))
    study = DetectionStudy(args.compare, labels, options.score, night=options.night)
    pair_study = PairStudy(study, labels, fusions, ranges, detector)

    skipped: list[str] = []
    unlabelled: list[str] = []
    for index, pair in enumerate(pairs, start=1):
        place = f'[{index}/{len(pairs)}] {pair.name}'
        labelled = study.persons
        try:
            found = pair_study.add(pair)
        except (ValueError, RuntimeError, OSError, cv2.error) as error:
            skipped.append(pair.name)
            report(f'{place}: skipped, {error}')
            continue
        if found is None:
            unlabelled.append(pair.name)
            continue
        counts = ', '.join(f'{name} {count}' for name, count in found.items())
        truth = f'persons {study.persons - labelled}, ' if labels is not None else ''
        report(f'{place}: {truth}detections in {counts}')
    if unlabelled:
        report(f'without labels, left out: {", ".join(unlabelled)}')
    if labels is not None and not study.persons:
        raise UsageError(
            f'no labelled person in {study.labelled} of the {len(pairs)} pairs of '
            f'{args.directory} that could be evaluated with {labels.source}'
        )
    if not study.frames:
        raise UsageError(f'none of the {len(pairs)} pairs of {args.directory} could be evaluated')
    for table in study.tables(args.resamples, args.seed):
        print(table.markdown(), end='\n\n')
    print(caption(study.frames, pair_study.sizes, describe_detector(options, detector), about))
    if skipped:
        report(f'skipped {len(skipped)} of {len(pairs)} pairs: {", ".join(skipped)}')
    return 1 if skipped else 0


def caption(pairs: int, sizes: set[tuple[int, int]], detector: str, about: str) -> str:
    """Return the line below the tables: what they were measured with."""
    ordered = sorted(sizes, key=lambda size: (size[0] * size[1], size))
    ends = ' to '.join(f'{w}x{h}' for w, h in dict.fromkeys((ordered[0], ordered[-1])))
    text = f'{pairs} pair{"s" if pairs > 1 else ""} of {ends} pixels; detector: {detector}'
    return f'{text}; {FUSED}: {about}' if about else text


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; see the module's description."""
    args = parse_arguments(argv)
    try:
        return evaluate(args)
    except (UsageError, ImagePairError, LabelError, DetectorError, OSError, ImportError) as error:
        report(f'evaluate_detection: {error}')
        return 2
    except KeyboardInterrupt:
        report('evaluate_detection: interrupted')
        return 130


if __name__ == '__main__':
    sys.exit(main())
