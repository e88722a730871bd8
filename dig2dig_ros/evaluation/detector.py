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

"""Person detectors in ONNX files: YOLOv5, YOLOv8 and YOLOX, run by ONNX Runtime."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
import importlib
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dig2dig_ros.detections.boxes import area, Array, corners, Detections, suppress
from dig2dig_ros.evaluation.labels import LabelSet, load_labels
from dig2dig_ros.evaluation.onnx_files import check_self_contained, OnnxError
from dig2dig_ros.evaluation.options import positive, UsageError

# (boxes (n, 4), scores (n,)) of a detector's raw output, in pixels of its input.
Candidates = tuple[Array, Array]

DEFAULT_SIZE = 640

_STRIDES = (8, 16, 32)
# Some models have a finer or a coarser level more.
_STRIDE_SETS = (_STRIDES, (8, 16, 32, 64), (4, 8, 16, 32))
_PADDING_GREY = 114
_LARGEST_INPUT = 4096
# More a protocol buffer cannot have.
_LARGEST_MODEL = 2 << 30


class DetectorError(UsageError):
    """The detector cannot be used; the message says why and what to do."""


def letterbox(
    image: NDArray[np.uint8], height: int, width: int, centred: bool
) -> tuple[NDArray[np.uint8], float, tuple[int, int]]:
    """
    Resize an image to fit into another size and pad the rest with the grey that YOLO is used to.

    :param image: (H, W, 3) uint8.
    :param centred: put the image into the middle; else at the top left.
    :return: (height, width, 3), the scale, and (left, top) of the image in it.
    """
    scale = min(height / image.shape[0], width / image.shape[1])
    rows = max(1, round(image.shape[0] * scale))
    columns = max(1, round(image.shape[1] * scale))
    # Halves are rounded down.
    left = math.ceil((width - columns) / 2 - 0.5) if centred else 0
    top = math.ceil((height - rows) / 2 - 0.5) if centred else 0
    padded = np.full((height, width, 3), _PADDING_GREY, np.uint8)
    padded[top : top + rows, left : left + columns] = cv2.resize(
        image, (columns, rows), interpolation=cv2.INTER_LINEAR
    )
    return padded, scale, (left, top)


def decode_yolov5(output: NDArray[Any], person_class: int = 0) -> Candidates:
    """
    Decode the output of YOLOv5.

    :param output: (n, 5 + classes): centre x and y, width and height in pixels of the input,
        objectness, class probabilities.
    :return: boxes in pixels of the input, and objectness times probability of a person.
    """
    values = output.astype(np.float64)
    return corners(values[:, :4]), values[:, 4] * values[:, 5 + person_class]


def decode_yolov8(output: NDArray[Any], person_class: int = 0) -> Candidates:
    """
    Decode the output of YOLOv8 and its successors with the same head.

    :param output: (4 + classes, n): centre x and y, width and height in pixels of the input,
        class probabilities.
    :return: boxes in pixels of the input, and the probability of a person.
    """
    values = output.astype(np.float64)
    return corners(values[:4].T), values[4 + person_class]


def decode_yolox(
    output: NDArray[Any], height: int, width: int, person_class: int = 0
) -> Candidates:
    """
    Decode the raw output of YOLOX (Ge et al., "YOLOX: exceeding YOLO series in 2021", 2021).

    :param output: (n, 5 + classes), the cells of the grids of strides 8, 16 and 32, row by row:
        offset of the centre from the cell's corner in cells, logarithm of width and height in
        cells, objectness, class probabilities.
    :param height: of the input in pixels.
    :param width: of the input in pixels.
    :return: boxes in pixels of the input, and objectness times probability of a person.
    :raises DetectorError: the sizes are not finite: they are no logarithms.
    """
    values = output.astype(np.float64)
    cells, strides = [], []
    for stride in _STRIDES:
        y, x = np.mgrid[: height // stride, : width // stride]
        cells.append(np.stack([x.ravel(), y.ravel()], axis=1))
        strides.append(np.full((x.size, 1), stride))
    pixels = np.concatenate(strides)
    with np.errstate(over='ignore'):
        sizes = np.exp(values[:, 2:4].astype(np.float32)) * pixels
    if not np.isfinite(sizes).all():
        raise DetectorError(
            'box sizes of the YOLOX output are not finite: export the model without decoding'
        )
    boxes = np.concatenate([(values[:, :2] + np.concatenate(cells)) * pixels, sizes], axis=1)
    return corners(boxes), values[:, 4] * values[:, 5 + person_class]


def find_layout(shape: Sequence[int], height: int, width: int) -> str:
    """
    Return the layout of a detector's output, judging by its shape.

    :param shape: of the output, the batch included.
    :param height: of the input in pixels.
    :param width: of the input in pixels.
    :return: ``yolov5``, ``yolov8`` or ``yolox``.
    :raises DetectorError: the shape belongs to none of them.
    """

    def cells(strides: Sequence[int]) -> int:
        return sum((height // stride) * (width // stride) for stride in strides)

    if len(shape) == 3:
        _, rows, columns = shape
        grids = [cells(strides) for strides in _STRIDE_SETS]
        if columns in grids and rows > 4:
            return 'yolov8'
        # Three anchors a cell; YOLOX has none.
        if rows in [3 * grid for grid in grids] and columns > 5:
            return 'yolov5'
        if rows == grids[0] and columns > 5:
            return 'yolox'
    raise DetectorError(
        f'the output of shape {tuple(shape)} for an input of {width}x{height} pixels does not '
        'look like YOLOv5, YOLOv8 or YOLOX: export the model without non-maximum suppression'
    )


class Detector:
    """
    A person detector in an ONNX file, run by ONNX Runtime.

    YOLOv5 and YOLOv8 get the image in red-green-blue order in [0, 1], letterboxed in the middle;
    YOLOX in blue-green-red order in [0, 255], letterboxed at the top left.

    :param path: of the model: one input (1, 3, H, W); the first output is used, before
        non-maximum suppression, and its shape gives the layout.
    :param size: side of the square input in pixels, a multiple of 32; None: the model's own, or
        640 if the model takes any.
    :param person_class: index of the class of persons.
    :param iou: of the non-maximum suppression.
    :param floor: detections with a smaller score are dropped.
    :raises DetectorError: the file or a parameter cannot be used, or ONNX Runtime is missing.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        size: int | None = None,
        person_class: int = 0,
        iou: float = 0.6,
        floor: float = 0.001,
    ) -> None:
        if size is not None and (size < 32 or size % 32):
            raise DetectorError(f'the input size {size} must be a multiple of 32')
        if not 0 < iou <= 1 or not 0 <= floor <= 1:
            raise DetectorError(f'IoU {iou} and score {floor} must be between 0 and 1')
        self.path = Path(path)
        self._person_class = person_class
        self._iou = iou
        self._floor = floor
        self._session = _open_session(self.path)
        self._read_input(size)
        # Only a run shows the true shape of the output; this also warms up the model.
        grey = np.full((self.height, self.width, 3), _PADDING_GREY, np.uint8)
        shape = self._run(grey, raw=False).shape
        try:
            self.layout = find_layout(shape, self.height, self.width)
        except DetectorError as error:
            raise DetectorError(f'{self.path}: {error}') from error
        classes = shape[1] - 4 if self.layout == 'yolov8' else shape[2] - 5
        if not 0 <= person_class < classes:
            raise DetectorError(
                f'{self.path} has no class {person_class} for persons: use 0 to {classes - 1}'
            )

    def describe(self) -> str:
        """Return a description of the detector for a report."""
        provider = self._session.get_providers()[0].removesuffix('ExecutionProvider')
        return f'{self.path.name} ({self.layout}, {self.width}x{self.height}, {provider})'

    def detect(self, image: NDArray[np.uint8]) -> Detections:
        """
        Return the persons in an image.

        :param image: (H, W, 3) uint8 in blue-green-red order, or grey, (H, W).
        :return: at most 100 detections, clipped to the image.
        :raises DetectorError: the image has another type, or the detector fails.
        """
        grey = image.ndim == 2
        if image.dtype != np.uint8 or not image.size or not (grey or image.shape[2:] == (3,)):
            raise DetectorError(
                f'the image is {image.dtype} of shape {image.shape}, but must be uint8 of shape '
                '(H, W) or (H, W, 3)'
            )
        raw = self.layout == 'yolox'
        colour = np.repeat(image[..., None], 3, axis=2) if grey else image
        padded, scale, offset = letterbox(colour, self.height, self.width, centred=not raw)
        boxes, scores = self._decode(self._run(padded, raw)[0])
        likely = scores >= self._floor
        boxes, scores = boxes[likely], scores[likely]
        kept = suppress(boxes, scores, self._iou)
        boxes, scores = (boxes[kept] - np.tile(offset, 2)) / scale, scores[kept]
        height, width = image.shape[:2]
        boxes = np.clip(boxes, 0, [width, height, width, height])
        inside = area(boxes) > 0
        return Detections(boxes[inside], scores[inside])

    def _read_input(self, size: int | None) -> None:
        """Read name, type and size of the input from the model."""
        inputs = self._session.get_inputs()
        shape = list(inputs[0].shape) if len(inputs) == 1 else []
        types = {'tensor(float)': np.float32, 'tensor(float16)': np.float16}
        fixed = [side if isinstance(side, int) else None for side in shape]
        if len(shape) != 4 or fixed[0] not in (None, 1) or fixed[1] not in (None, 3):
            found = ', '.join(f'{entry.name} {entry.shape}' for entry in inputs)
            raise DetectorError(
                f'{self.path} is not a supported detector: its input is {found or "nothing"}, '
                'but must be (1, 3, height, width)'
            )
        if inputs[0].type not in types:
            raise DetectorError(
                f'{self.path} takes {inputs[0].type}, but must take float or float16'
            )
        self._input = inputs[0].name
        self._type = types[inputs[0].type]
        self.height = fixed[2] or size or DEFAULT_SIZE
        self.width = fixed[3] or size or DEFAULT_SIZE
        if not 0 < max(self.height, self.width) <= _LARGEST_INPUT:
            raise DetectorError(
                f'{self.path} takes images of {self.width}x{self.height} pixels, but a side may '
                f'have at most {_LARGEST_INPUT}'
            )
        if size is not None and (self.height, self.width) != (size, size):
            raise DetectorError(
                f'{self.path} has a fixed input of {self.width}x{self.height} pixels: leave out '
                f'the size, or export the model with {size}x{size}'
            )

    def _decode(self, output: NDArray[Any]) -> Candidates:
        if self.layout == 'yolox':
            return decode_yolox(output, self.height, self.width, self._person_class)
        decode = decode_yolov5 if self.layout == 'yolov5' else decode_yolov8
        return decode(output, self._person_class)

    def _run(self, padded: NDArray[np.uint8], raw: bool) -> NDArray[Any]:
        """
        Run the network on an image of its size.

        :param padded: (H, W, 3) in blue-green-red order.
        :param raw: YOLOX's colour order and range.
        :return: (1, ...), the first output.
        """
        image = padded if raw else padded[..., ::-1].astype(np.float32) / 255
        blob = np.ascontiguousarray(image.transpose(2, 0, 1)[None], dtype=self._type)
        try:
            output: NDArray[Any] = self._session.run(None, {self._input: blob})[0]
        except Exception as error:  # those of ONNX Runtime have no other base
            raise DetectorError(f'{self.path} fails: {error}') from error
        if output.ndim != 3 or len(output) != 1 or 0 in output.shape:
            raise DetectorError(
                f'{self.path} is not a supported detector: its first output has shape '
                f'{output.shape}, but must be (1, n, values) or (1, values, n)'
            )
        return output


def _open_session(path: Path) -> Any:
    """
    Open a model with ONNX Runtime, on CUDA if available.

    :raises DetectorError: it is missing, or is not a model.
    """
    if not path.is_file():
        raise DetectorError(f'the detector {path} does not exist')
    try:
        # By name, as it is optional.
        runtime = importlib.import_module('onnxruntime')
    except ImportError as error:
        raise DetectorError(
            'a detector needs ONNX Runtime: install the extra "detection" of dig2dig, or pip '
            f'install onnxruntime (onnxruntime-gpu for CUDA); {error}'
        ) from error
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # errors
    known = ('CUDAExecutionProvider', 'CPUExecutionProvider')
    providers = [name for name in known if name in runtime.get_available_providers()]
    try:
        if path.stat().st_size > _LARGEST_MODEL:
            raise OnnxError(f'it has more than {_LARGEST_MODEL >> 20} MiB')
        # Loads exactly the bytes that were checked, even if the file changes.
        model = path.read_bytes()
        check_self_contained(model)
        return runtime.InferenceSession(model, options, providers=providers)
    except Exception as error:  # those of ONNX Runtime have no other base
        raise DetectorError(f'{path} cannot be read as an ONNX model: {error}') from error


# Options of the commands


@dataclass(frozen=True)
class DetectorOptions:
    """
    Which detector to run, how, and the ground truth.

    :param model: ONNX file; None if the detections come from a recording.
    :param labels: file or folder of labels, or None.
    :param person_class: name or number of the class of persons; None: the usual one.
    :param night: patterns for the names of images taken at night.
    """

    model: Path | None
    labels: Path | None = None
    label_class: str | None = None
    size: int | None = None
    person_class: str | None = None
    iou: float = 0.6
    score: float = 0.25
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
                f'--person-class is {person!r}, but {self.model} has numbers: give one of them'
            )
        return Detector(self.model, size=self.size, person_class=int(person), iou=self.iou)

    def load_labels(self, default: Path | None = None) -> LabelSet | None:
        """
        Read the labels.

        :param default: file to read if none is given and this one exists.
        :raises LabelError: the labels are missing or invalid.
        """
        path = self.labels
        if path is None and default is not None and default.exists():
            path = default
        return None if path is None else load_labels(path, self.label_class)

    def describe(self, detector: Detector) -> str:
        """Return a description of the detector for a report."""
        return f'{detector.describe()}, NMS {self.iou:g}, score {self.score:g}'


def fraction(text: str) -> float:
    """Parse a number from 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f'{text} is not between 0 and 1')
    return value


def add_detector_options(group: argparse._ActionsContainer, labels: str) -> None:
    """
    Add ``--detector`` and related options.

    :param labels: the labels used without ``--labels``, in words.
    """
    add = group.add_argument
    add(
        '--detector',
        type=Path,
        metavar='FILE',
        help='person detector as an ONNX file: YOLOv5, YOLOv8 (and later ones with its head) or '
        'YOLOX, recognised by the shape of its output',
    )
    add(
        '--labels',
        type=Path,
        metavar='FILE|DIR',
        help='JSON with "boxes" (and "ignore") by image, COCO JSON, or a folder of YOLO NAME.txt '
        f'files; default: {labels}; without labels, the agreement of the inputs is reported',
    )
    add(
        '--label-class',
        metavar='NAME|NUMBER',
        help='class of persons in the labels; default: person or pedestrian in COCO, 0 in YOLO',
    )
    add(
        '--detector-size',
        type=positive,
        metavar='PIXELS',
        help="side of the detector's input; default: the model's own, or 640 if it takes any",
    )
    add(
        '--person-class',
        metavar='NUMBER|NAME',
        help="the detector's class of persons; default: 0, or person or pedestrian if recorded "
        'detections have names',
    )
    add('--iou', type=fraction, default=0.6, help='IoU of non-maximum suppression; default: 0.6')
    add('--score', type=fraction, default=0.25, help='least score that counts; default: 0.25')
    add(
        '--night',
        action='append',
        default=[],
        metavar='GLOB',
        help='names of the images taken at night, all others being day; may be repeated; '
        'default: judged by the brightness of the sky',
    )


def detector_options(args: argparse.Namespace) -> DetectorOptions:
    """Return the values of :func:`add_detector_options`."""
    return DetectorOptions(
        model=args.detector.resolve() if args.detector is not None else None,
        labels=args.labels.resolve() if args.labels is not None else None,
        label_class=args.label_class,
        size=args.detector_size,
        person_class=args.person_class,
        iou=args.iou,
        score=args.score,
        night=tuple(args.night),
    )
