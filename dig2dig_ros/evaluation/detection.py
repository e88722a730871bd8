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
Person detection as a measure of fused images: an ONNX detector, labels, and average precision.

Boxes are (n, 4) float64 arrays of x1, y1, x2, y2 in pixels of the full image, x2 and y2 one past
the last pixel. The average precision is COCO's (Lin et al., "Microsoft COCO: common objects in
context", ECCV 2014, and its evaluation code): per IoU threshold, greedy matching by score, the
precision made monotonic, and its mean over 101 recall levels; all box areas, at most 100
detections an image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
import importlib
import json
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
# (boxes (n, 4), scores (n,)) of a detector's raw output, in pixels of its input.
Candidates = tuple[Array, Array]

IOU_THRESHOLDS: tuple[float, ...] = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
RECALL_LEVELS: Array = np.linspace(0.0, 1.0, 101)
MAX_DETECTIONS = 100

LAYOUTS = ('yolov5', 'yolov8', 'yolox')
PROVIDERS = ('auto', 'cpu', 'cuda')
DEFAULT_SIZE = 640

_STRIDES = (8, 16, 32)
# Some models have a finer or a coarser level more.
_STRIDE_SETS = (_STRIDES, (8, 16, 32, 64), (4, 8, 16, 32))
_PADDING_GREY = 114


class DetectorError(ValueError):
    """The detector cannot be used; the message says why and what to do."""


class LabelError(ValueError):
    """Labels are missing or make no sense; the message says where and what is wrong."""


@dataclass(frozen=True)
class Detections:
    """
    What a detector found in one image, best first.

    :param boxes: (n, 4).
    :param scores: (n,) in [0, 1], not increasing.
    """

    boxes: Array
    scores: Array


@dataclass(frozen=True)
class ImageLabels:
    """
    The truth about one image.

    :param boxes: (m, 4), the persons to be found.
    :param ignore: (k, 4), regions in which a detection counts neither as right nor as wrong.
    """

    boxes: Array
    ignore: Array


# --- The detector -------------------------------------------------------------------------------


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
    return _corners(values[:, :4]), values[:, 4] * values[:, 5 + person_class]


def decode_yolov8(output: NDArray[Any], person_class: int = 0) -> Candidates:
    """
    Decode the output of YOLOv8 and its successors with the same head.

    :param output: (4 + classes, n): centre x and y, width and height in pixels of the input,
        class probabilities.
    :return: boxes in pixels of the input, and the probability of a person.
    """
    values = output.astype(np.float64)
    return _corners(values[:4].T), values[4 + person_class]


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
    corners, strides = [], []
    for stride in _STRIDES:
        y, x = np.mgrid[: height // stride, : width // stride]
        corners.append(np.stack([x.ravel(), y.ravel()], axis=1))
        strides.append(np.full((x.size, 1), stride))
    pixels = np.concatenate(strides)
    with np.errstate(over='ignore'):
        sizes = np.exp(values[:, 2:4].astype(np.float32)) * pixels
    if not np.isfinite(sizes).all():
        raise DetectorError(
            'box sizes of the YOLOX output are not finite: export the model without decoding'
        )
    boxes = np.concatenate([(values[:, :2] + np.concatenate(corners)) * pixels, sizes], axis=1)
    return _corners(boxes), values[:, 4] * values[:, 5 + person_class]


def _corners(boxes: Array) -> Array:
    """Return corners of (n, 4) boxes given by centre and size."""
    half = boxes[:, 2:4] / 2
    return np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1)


def _area(boxes: Array) -> Array:
    """Return the areas (n,) of boxes (n, 4)."""
    sides: Array = np.clip(boxes[:, 2:] - boxes[:, :2], 0.0, None)
    return sides[:, 0] * sides[:, 1]


def _intersection(first: Array, second: Array) -> Array:
    """Return the areas (n, m) that boxes (n, 4) and boxes (m, 4) share."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    sides: Array = np.clip(high - low, 0.0, None)
    return sides[..., 0] * sides[..., 1]


def _divide(numerator: Array, denominator: Array) -> Array:
    """Divide, with 0 where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)


def intersection_over_union(first: Array, second: Array) -> Array:
    """
    Return the overlap of every box of one set with every box of another.

    :param first: (n, 4).
    :param second: (m, 4).
    :return: (n, m) in [0, 1]; 0 where both boxes are empty.
    """
    shared = _intersection(first, second)
    return _divide(shared, _area(first)[:, None] + _area(second)[None] - shared)


def suppress(boxes: Array, scores: Array, iou: float, limit: int = MAX_DETECTIONS) -> NDArray[Any]:
    """
    Greedy non-maximum suppression among boxes of one class.

    :param boxes: (n, 4).
    :param scores: (n,).
    :param iou: a box that overlaps a better one by more is dropped.
    :param limit: keep so many at most.
    :return: indices of the kept boxes, best first.
    """
    order = np.argsort(-scores, kind='stable')
    kept: list[int] = []
    while len(order) and len(kept) < limit:
        best = order[0]
        kept.append(int(best))
        others = order[1:]
        overlap = intersection_over_union(boxes[best][None], boxes[others])[0]
        order = others[overlap <= iou]
    return np.asarray(kept, dtype=np.intp)


def find_layout(shape: Sequence[int], height: int, width: int) -> str:
    """
    Tell from its shape in which layout a detector answers.

    :param shape: of the output, the batch included.
    :param height: of the input in pixels.
    :param width: of the input in pixels.
    :return: one of :data:`LAYOUTS`.
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
        f'the output has shape {tuple(shape)} for an input of {width}x{height} pixels, which is '
        'no layout of YOLOv5, YOLOv8 or YOLOX: export the model without non-maximum suppression, '
        'or name the layout'
    )


class Detector:
    """
    A person detector in an ONNX file, run by ONNX Runtime.

    YOLOv5 and YOLOv8 see the image in red-green-blue order in [0, 1], letterboxed in the middle;
    YOLOX in blue-green-red order in [0, 255], letterboxed at the top left.

    :param path: of the model: one input (1, 3, H, W), one output, or more of which the first is
        the one, before non-maximum suppression.
    :param layout: of the output, one of :data:`LAYOUTS`, or ``auto``.
    :param size: side of the square input in pixels, a multiple of 32; None is the model's own,
        or 640 where the model takes any.
    :param person_class: index of the class of persons.
    :param iou: of the non-maximum suppression.
    :param floor: detections with a smaller score are dropped.
    :param provider: ``cpu``, ``cuda``, or ``auto``, which is CUDA where there is one.
    :param threads: CPU threads; 0 leaves the choice to ONNX Runtime.
    :raises DetectorError: the file, its layout or a parameter is not usable, or ONNX Runtime is
        missing.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        layout: str = 'auto',
        size: int | None = None,
        person_class: int = 0,
        iou: float = 0.6,
        floor: float = 0.001,
        provider: str = 'auto',
        threads: int = 0,
    ) -> None:
        if layout not in ('auto', *LAYOUTS):
            raise DetectorError(f'layout {layout!r} is unknown: auto, {", ".join(LAYOUTS)}')
        if size is not None and (size < 32 or size % 32):
            raise DetectorError(f'the input size {size} is no multiple of 32')
        if not 0 < iou <= 1 or not 0 <= floor <= 1:
            raise DetectorError(f'IoU {iou} or score {floor} is not between 0 and 1')
        self.path = Path(path)
        self._person_class = person_class
        self._iou = iou
        self._floor = floor
        self._session = _open_session(self.path, provider, threads)
        self._read_input(size)
        # What it answers is only known for sure once it has answered; this also warms it up.
        grey = np.full((self.height, self.width, 3), _PADDING_GREY, np.uint8)
        shape = self._run(grey, layout == 'yolox').shape
        try:
            self.layout = (
                find_layout(shape, self.height, self.width) if layout == 'auto' else layout
            )
            self._check_output(shape)
        except DetectorError as error:
            raise DetectorError(f'{self.path}: {error}') from error

    def describe(self) -> str:
        """Return what a report should say about the detector."""
        provider = self._session.get_providers()[0].removesuffix('ExecutionProvider')
        return f'{self.path.name} ({self.layout}, {self.width}x{self.height}, {provider})'

    def detect(self, image: NDArray[np.uint8]) -> Detections:
        """
        Return the persons in an image.

        :param image: (H, W, 3) uint8 in blue-green-red order, or (H, W), which is taken as grey.
        :return: at most 100 detections, clipped to the image.
        :raises DetectorError: the image has another type, or the detector fails.
        """
        grey = image.ndim == 2
        if image.dtype != np.uint8 or not image.size or not (grey or image.shape[2:] == (3,)):
            raise DetectorError(
                f'the image is {image.dtype} of shape {image.shape}: uint8 (H, W) or (H, W, 3) '
                'needed'
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
        inside = _area(boxes) > 0
        return Detections(boxes[inside], scores[inside])

    def _read_input(self, size: int | None) -> None:
        """Take name, type and size of the input from the model."""
        inputs = self._session.get_inputs()
        shape = list(inputs[0].shape) if len(inputs) == 1 else []
        types = {'tensor(float)': np.float32, 'tensor(float16)': np.float16}
        fixed = [side if isinstance(side, int) else None for side in shape]
        if len(shape) != 4 or fixed[0] not in (None, 1) or fixed[1] not in (None, 3):
            found = ', '.join(f'{entry.name} {entry.shape}' for entry in inputs)
            raise DetectorError(
                f'{self.path} is no detector of this kind: its input is {found or "nothing"}, '
                'but (1, 3, height, width) is needed'
            )
        if inputs[0].type not in types:
            raise DetectorError(
                f'{self.path} takes {inputs[0].type}, but float or float16 is needed'
            )
        self._input = inputs[0].name
        self._type = types[inputs[0].type]
        self.height = fixed[2] or size or DEFAULT_SIZE
        self.width = fixed[3] or size or DEFAULT_SIZE
        if size is not None and (self.height, self.width) != (size, size):
            raise DetectorError(
                f'{self.path} has a fixed input of {self.width}x{self.height} pixels: leave the '
                f'size out, or export the model with {size}x{size}'
            )

    def _check_output(self, shape: Sequence[int]) -> None:
        """
        Check that the output has the layout.

        :raises DetectorError: it has not, or it has no such class.
        """
        first = 4 if self.layout == 'yolov8' else 5
        classes = (shape[1] if self.layout == 'yolov8' else shape[2]) - first
        if classes < 1 or (
            self.layout == 'yolox' and find_layout(shape, self.height, self.width) != 'yolox'
        ):
            raise DetectorError(f'an output of shape {tuple(shape)} is not of {self.layout}')
        if not 0 <= self._person_class < classes:
            raise DetectorError(
                f'class {self._person_class} for persons is not one of 0 to {classes - 1}'
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
                f'{self.path} is no detector of this kind: its first output has shape '
                f'{output.shape}, but (1, n, values) or (1, values, n) is needed'
            )
        return output


def _open_session(path: Path, provider: str, threads: int) -> Any:
    """
    Open a model with ONNX Runtime.

    :raises DetectorError: it is missing, is no model, or the provider is not there.
    """
    if provider not in PROVIDERS:
        raise DetectorError(f'provider {provider!r} is unknown: {", ".join(PROVIDERS)}')
    if not path.is_file():
        raise DetectorError(f'there is no detector {path}')
    try:
        # By name, as it is not needed for anything else.
        runtime = importlib.import_module('onnxruntime')
    except ImportError as error:
        raise DetectorError(
            'a detector needs ONNX Runtime: install the extra "detection" of dig2dig, or pip '
            f'install onnxruntime (onnxruntime-gpu for CUDA); {error}'
        ) from error
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors
    cuda = 'CUDAExecutionProvider'
    available = cuda in runtime.get_available_providers()
    wanted = [cuda] if provider != 'cpu' and available else []
    try:
        session = runtime.InferenceSession(
            str(path), options, providers=[*wanted, 'CPUExecutionProvider']
        )
    except Exception as error:  # those of ONNX Runtime have no other base
        raise DetectorError(f'{path} cannot be read as an ONNX model: {error}') from error
    # It falls back to the CPU without an error where a library of CUDA is missing.
    if provider == 'cuda' and session.get_providers()[0] != cuda:
        raise DetectorError(
            'ONNX Runtime cannot use CUDA: install onnxruntime-gpu in place of onnxruntime, in a '
            'version for your CUDA, or take the provider cpu'
        )
    return session


# --- Labels -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LabelSet:
    """
    The labels of a data set, by name of the image without folder and suffix.

    :param source: where they were read.
    :param images: labels by name; of fractions of the image's size if ``relative``.
    :param relative: boxes are fractions of width and height.
    :param complete: an image that is not in it has no person, rather than no label.
    :param sizes: (width, height) of those images that it knows.
    """

    source: Path
    images: Mapping[str, ImageLabels]
    relative: bool = False
    complete: bool = False
    sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def find(self, names: Sequence[str], width: int, height: int) -> ImageLabels | None:
        """
        Return the labels of an image, None if it has not been labelled.

        :param names: that it may have; the first that is known counts.
        :param width: of the image in pixels.
        :param height: of the image in pixels.
        :raises LabelError: it was labelled in another size.
        """
        name = next((name for name in names if name in self.images), None)
        if name is None:
            return ImageLabels(_no_boxes(), _no_boxes()) if self.complete else None
        size = self.sizes.get(name, (width, height))
        if size != (width, height):
            raise LabelError(
                f'{name} is {width}x{height} pixels, but {size[0]}x{size[1]} in {self.source}'
            )
        found = self.images[name]
        if not self.relative:
            return found
        scale = np.array([width, height, width, height], dtype=np.float64)
        return ImageLabels(found.boxes * scale, found.ignore * scale)


def load_labels(path: str | Path, person: str | None = None) -> LabelSet:
    """
    Read labels in one of three forms.

    - JSON with ``boxes`` and, if there are any, ``ignore``: lists of [x1, y1, x2, y2] by name.
    - JSON of COCO. Annotations with ``iscrowd`` or ``ignore`` are regions to ignore.
    - A folder of YOLO's NAME.txt, with lines ``class x y width height``, in fractions of the
      image; an image without such a file has no person.

    :param path: of the file or folder.
    :param person: name or number of the class of persons. Default: class 0 of YOLO's; COCO's
        category person or pedestrian, or its only one.
    :raises LabelError: there is nothing, or it makes no sense.
    """
    path = Path(path)
    if path.is_dir():
        return _read_yolo(path, person)
    try:
        document = json.loads(path.read_text(encoding='utf-8'))
    except FileNotFoundError as error:
        raise LabelError(f'there are no labels {path}') from error
    except (OSError, ValueError) as error:
        raise LabelError(f'{path} cannot be read as JSON: {error}') from error
    if isinstance(document, dict) and {'images', 'annotations'} <= document.keys():
        return _read_coco(path, document, person)
    if isinstance(document, dict) and isinstance(document.get('boxes'), dict):
        return _read_simple(path, document)
    raise LabelError(
        f'{path} has neither "boxes" by image nor the "images" and "annotations" of COCO'
    )


def _no_boxes() -> Array:
    return np.zeros((0, 4))


def _checked_boxes(values: Any, place: str) -> Array:
    """
    Return lists of corners as an array.

    :raises LabelError: they are no boxes.
    """
    try:
        boxes = np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise LabelError(f'{place}: not a list of boxes of four numbers') from error
    if boxes.size == 0:
        return _no_boxes()
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not np.isfinite(boxes).all():
        raise LabelError(f'{place}: not a list of boxes of four numbers')
    empty = np.flatnonzero((boxes[:, 2:] <= boxes[:, :2]).any(axis=1))
    if len(empty):
        raise LabelError(f'{place}: box {boxes[empty[0]].tolist()} is empty')
    return boxes


def _read_simple(path: Path, document: Mapping[str, Any]) -> LabelSet:
    boxes, ignore = document['boxes'], document.get('ignore') or {}
    if not isinstance(ignore, dict):
        raise LabelError(f'{path}: "ignore" has no lists of boxes by image')
    return LabelSet(
        path,
        {
            name: ImageLabels(
                _checked_boxes(boxes.get(name, []), f'{path}, boxes of {name}'),
                _checked_boxes(ignore.get(name, []), f'{path}, ignore of {name}'),
            )
            for name in dict.fromkeys((*boxes, *ignore))
        },
    )


def _coco_category(path: Path, document: Mapping[str, Any], person: str | None) -> int:
    """Return the number of the category of persons."""
    names = {int(entry['id']): str(entry['name']) for entry in document.get('categories', [])}
    if person is not None:
        found = [number for number, name in names.items() if person in (name, str(number))]
    else:
        found = [n for n, name in names.items() if name.lower() in ('person', 'pedestrian')]
        found = found or list(names)
    if len(found) != 1:
        raise LabelError(
            f'{path}: which category is a person? It has {", ".join(names.values()) or "none"}'
        )
    return found[0]


def _read_coco(path: Path, document: Mapping[str, Any], person: str | None) -> LabelSet:
    try:
        category = _coco_category(path, document, person)
        names: dict[Any, str] = {}
        sizes: dict[str, tuple[int, int]] = {}
        boxes: dict[str, list[list[float]]] = {}
        ignore: dict[str, list[list[float]]] = {}
        for image in document['images']:
            name = Path(image['file_name']).stem
            if name in boxes:
                raise LabelError(f'{path} has two images {name}')
            names[image['id']] = name
            boxes[name], ignore[name] = [], []
            if 'width' in image and 'height' in image:
                sizes[name] = (int(image['width']), int(image['height']))
        for annotation in document['annotations']:
            if annotation['category_id'] == category:
                x, y, width, height = map(float, annotation['bbox'])
                left_out = annotation.get('iscrowd') or annotation.get('ignore')
                chosen = ignore if left_out else boxes
                chosen[names[annotation['image_id']]].append([x, y, x + width, y + height])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, LabelError):
            raise
        raise LabelError(
            f'{path} is not as COCO has it: {type(error).__name__} {error}'
        ) from error
    return LabelSet(
        path,
        {
            name: ImageLabels(
                _checked_boxes(boxes[name], f'{path}, boxes of {name}'),
                _checked_boxes(ignore[name], f'{path}, ignored boxes of {name}'),
            )
            for name in boxes
        },
        sizes=sizes,
    )


def _read_yolo(folder: Path, person: str | None) -> LabelSet:
    try:
        number = int(person or 0)
    except ValueError as error:
        raise LabelError(
            f'{folder}: YOLO labels have numbers for classes, so {person} is none'
        ) from error
    images = {}
    for path in sorted(folder.glob('*.txt')):
        if path.name == 'classes.txt':  # names of the classes, by some programs
            continue
        boxes = []
        try:
            for line in path.read_text(encoding='utf-8').splitlines():
                if line.strip():
                    label, x, y, width, height = line.split()
                    if int(label) == number:
                        boxes.append([float(x), float(y), float(width), float(height)])
        except (OSError, ValueError) as error:
            raise LabelError(
                f'{path}: not lines of class, x, y, width and height: {error}'
            ) from error
        corners = _corners(np.array(boxes, dtype=np.float64).reshape(-1, 4))
        images[path.stem] = ImageLabels(_checked_boxes(corners, str(path)), _no_boxes())
        if corners.size and (corners.min() < -0.5 or corners.max() > 1.5):
            raise LabelError(f'{path}: boxes are not in fractions of the image')
    if not images:
        raise LabelError(f'there are no labels NAME.txt in {folder}')
    return LabelSet(folder, images, relative=True, complete=True)


# --- Average precision --------------------------------------------------------------------------


@dataclass(frozen=True)
class ImageMatches:
    """
    How the detections of one image agree with its labels.

    :param scores: (n,), best first.
    :param right: (T, n) bool for each threshold of :data:`IOU_THRESHOLDS`: found a person.
    :param ignored: (T, n) bool: counts neither as right nor as wrong.
    :param found_with: (m,) for each person to be found, the score of the detection that found it
        at an IoU of 0.5; -1 where none did.
    """

    scores: Array
    right: NDArray[np.bool_]
    ignored: NDArray[np.bool_]
    found_with: Array

    @property
    def persons(self) -> int:
        """Return the number of persons to be found."""
        return len(self.found_with)


def match(detections: Detections, labels: ImageLabels) -> ImageMatches:
    """
    Match the detections of one image with its labels as COCO does.

    Best score first, a detection takes the free person that it overlaps most, by at least the
    threshold. One that finds none free is ignored if an ignore region covers at least that part
    of its own area (any number of detections may be in one region), and is wrong otherwise.
    """
    order = np.argsort(-detections.scores, kind='stable')[:MAX_DETECTIONS]
    boxes, scores = detections.boxes[order], detections.scores[order]
    overlaps = intersection_over_union(boxes, labels.boxes)
    covered = _divide(
        _intersection(boxes, labels.ignore),
        np.broadcast_to(_area(boxes)[:, None], (len(boxes), len(labels.ignore))),
    ).max(axis=1, initial=0.0)
    right = np.zeros((len(IOU_THRESHOLDS), len(boxes)), dtype=bool)
    found_with = np.full(len(labels.boxes), -1.0)
    for level, threshold in enumerate(IOU_THRESHOLDS):
        free = np.ones(len(labels.boxes), dtype=bool)
        for index, overlap in enumerate(overlaps):
            candidates = np.where(free, overlap, -1.0)
            if len(candidates) and candidates.max() >= threshold:
                # The last of equal ones, as COCO's code has it.
                best = len(candidates) - 1 - int(candidates[::-1].argmax())
                free[best] = False
                right[level, index] = True
                if level == 0:
                    found_with[best] = scores[index]
    ignored = ~right & (covered[None] >= np.array(IOU_THRESHOLDS)[:, None])
    return ImageMatches(scores, right, ignored, found_with)


class Evaluation:
    """
    What a detector achieved on a set of images.

    :param images: one entry an image.
    """

    def __init__(self, images: Sequence[ImageMatches]) -> None:
        self.images = len(images)
        self._persons = np.array([image.persons for image in images], dtype=np.int64)
        self.persons = int(self._persons.sum())
        scores = np.concatenate([np.zeros(0), *(image.scores for image in images)])
        order = np.argsort(-scores, kind='stable')
        self._scores = scores[order]
        counts = [len(image.scores) for image in images]
        self._image = np.repeat(np.arange(len(images)), counts)[order]
        none = np.zeros((len(IOU_THRESHOLDS), 0), dtype=bool)
        right = np.concatenate([none, *(image.right for image in images)], axis=1)[:, order]
        ignored = np.concatenate([none, *(image.ignored for image in images)], axis=1)[:, order]
        self._right = right
        self._wrong = ~right & ~ignored

    def average_precision(
        self, threshold: float = 0.5, counts: NDArray[np.integer[Any]] | None = None
    ) -> float:
        """
        Return the average precision at one IoU threshold, in [0, 1].

        :param threshold: one of :data:`IOU_THRESHOLDS`.
        :param counts: (images,), how often each image counts; default: once.
        :return: NaN where there is no person.
        """
        level = IOU_THRESHOLDS.index(threshold)
        weights = np.ones(self.images, dtype=np.int64) if counts is None else counts
        persons = int((self._persons * weights).sum())
        if persons == 0:
            return math.nan
        weight = weights[self._image]
        right = np.cumsum(self._right[level] * weight)
        wrong = np.cumsum(self._wrong[level] * weight)
        precision = _divide(right.astype(np.float64), (right + wrong).astype(np.float64))
        precision = np.maximum.accumulate(precision[::-1])[::-1]
        first = np.searchsorted(right / persons, RECALL_LEVELS, side='left')
        # Zero where the recall is never reached.
        return float(np.append(precision, 0.0)[first].mean())

    def mean_average_precision(self) -> float:
        """Return the mean over the thresholds 0.5 to 0.95; NaN where there is no person."""
        return float(np.mean([self.average_precision(level) for level in IOU_THRESHOLDS]))

    def miss_rate(self, score: float) -> float:
        """
        Return the part of the persons that no detection of at least ``score`` finds.

        At an IoU of 0.5; NaN where there is no person.
        """
        if self.persons == 0:
            return math.nan
        return 1.0 - float(self._right[0][self._scores >= score].sum()) / self.persons

    def false_positives_per_image(self, score: float) -> float:
        """Return wrong detections of at least ``score`` at an IoU of 0.5, per image."""
        return float(self._wrong[0][self._scores >= score].sum()) / max(self.images, 1)

    def bootstrap(self, draws: NDArray[np.integer[Any]]) -> Array:
        """
        Return the AP50 of resampled sets of images.

        :param draws: (B, images), see :func:`draw_images`.
        :return: (B,), NaN for sets without a person.
        """
        return np.array([self.average_precision(0.5, counts) for counts in draws])


def draw_images(images: int, resamples: int, seed: int = 0) -> NDArray[np.int32]:
    """
    Draw sets of images with replacement (Efron, "Bootstrap methods", 1979).

    To compare two inputs, use the same draws for both: what makes an image hard for both is then
    no difference.

    :return: (resamples, images), how often each image is in each set.
    """
    generator = np.random.default_rng(seed)
    draws = np.empty((resamples, images), dtype=np.int32)
    for draw in draws:  # one by one, for the memory that thousands of images would take
        draw[:] = np.bincount(generator.integers(0, images, images), minlength=images)
    return draws


def interval(values: Array, level: float = 0.95) -> tuple[float, float]:
    """
    Return the percentile interval of bootstrapped values; those that are NaN are left out.

    :return: its two ends; NaN if no value is left.
    """
    finite = values[~np.isnan(values)]
    if not len(finite):
        return math.nan, math.nan
    low, high = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
