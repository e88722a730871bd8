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

"""The options that the evaluating commands share for a person detector, and what they mean."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from dig2dig_ros.evaluation.detection import (
    Detector,
    DetectorError,
    LabelSet,
    LAYOUTS,
    load_labels,
    PROVIDERS,
)
from dig2dig_ros.evaluation.options import positive


@dataclass(frozen=True)
class DetectorOptions:
    """
    Which detector is to run how, and what is known about the truth.

    :param model: ONNX file; None where detections come from a recording.
    :param labels: file or folder of labels, or None.
    :param person_class: name or number of the class of persons; None is the usual one.
    :param night: patterns of the names of images taken at night.
    """

    model: Path | None
    labels: Path | None = None
    label_class: str | None = None
    layout: str = 'auto'
    size: int | None = None
    person_class: str | None = None
    iou: float = 0.6
    score: float = 0.25
    provider: str = 'auto'
    threads: int = 0
    night: tuple[str, ...] = ()

    def load(self) -> Detector:
        """
        Load the detector.

        :raises DetectorError: it cannot be used, or ONNX Runtime is missing.
        """
        assert self.model is not None
        person = self.person_class or '0'
        if not person.isdecimal():
            raise DetectorError(
                f'--person-class is {person!r}, but the classes of {self.model} have numbers only'
            )
        return Detector(
            self.model,
            layout=self.layout,
            size=self.size,
            person_class=int(person),
            iou=self.iou,
            provider=self.provider,
            threads=self.threads,
        )

    def load_labels(self, default: Path | None = None) -> LabelSet | None:
        """
        Read the labels.

        :param default: file to read if none is named and it is there.
        :raises LabelError: there are none where they should be, or they make no sense.
        """
        path = self.labels
        if path is None and default is not None and default.exists():
            path = default
        return None if path is None else load_labels(path, self.label_class)


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


def add_detector_options(group: argparse._ActionsContainer, labels: str) -> None:
    """
    Add ``--detector`` and what belongs to it.

    :param labels: which labels are taken without ``--labels``, in words.
    """
    add = group.add_argument
    add(
        '--detector',
        type=Path,
        metavar='FILE',
        help='a person detector, ONNX: YOLOv5, YOLOv8 (and successors of its head) or YOLOX',
    )
    add(
        '--labels',
        type=Path,
        metavar='FILE|DIR',
        help='JSON with "boxes" (and "ignore") by image, JSON of COCO, or a folder of YOLO\'s '
        f'NAME.txt; default: {labels}; without labels, the agreement of the inputs is reported',
    )
    add(
        '--label-class',
        metavar='NAME|NUMBER',
        help="the labels' class of persons; default: COCO's person or pedestrian, YOLO's 0",
    )
    add(
        '--layout',
        choices=('auto', *LAYOUTS),
        default='auto',
        help="of the detector's output; default: auto, told by its shape",
    )
    add(
        '--detector-size',
        type=positive,
        metavar='PIXELS',
        help="side of its input; default: the model's own, or 640 where it takes any",
    )
    add(
        '--person-class',
        metavar='NUMBER|NAME',
        help="the detector's class of persons; default: 0, or person or pedestrian where recorded "
        'detections have names',
    )
    add(
        '--iou',
        type=fraction,
        default=0.6,
        help='of the non-maximum suppression, default: 0.6',
    )
    add(
        '--score',
        type=fraction,
        default=0.25,
        help='of detections that count as found, default: 0.25',
    )
    add(
        '--provider',
        choices=PROVIDERS,
        default='auto',
        help='of ONNX Runtime; default: auto, CUDA where there is one',
    )
    add(
        '--detector-threads',
        type=not_negative,
        default=0,
        metavar='COUNT',
        help="CPU threads of the detector; default: 0, ONNX Runtime's choice",
    )
    add(
        '--night',
        action='append',
        default=[],
        metavar='GLOB',
        help='it is night in the images whose names fit, and day in all others; may be given '
        'more than once; default: the brightness of the sky tells',
    )


def detector_options(args: argparse.Namespace) -> DetectorOptions:
    """Return what the options of :func:`add_detector_options` say."""
    return DetectorOptions(
        model=args.detector.resolve() if args.detector is not None else None,
        labels=args.labels.resolve() if args.labels is not None else None,
        label_class=args.label_class,
        layout=args.layout,
        size=args.detector_size,
        person_class=args.person_class,
        iou=args.iou,
        score=args.score,
        provider=args.provider,
        threads=args.detector_threads,
        night=tuple(args.night),
    )


def describe_detector(options: DetectorOptions, detector: Detector) -> str:
    """Return what a report should say about the detector."""
    return f'{detector.describe()}, NMS {options.iou:g}, score {options.score:g}'
