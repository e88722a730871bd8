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

"""Labels of persons in images, from three kinds of files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
import json
from pathlib import Path
from typing import Any

import numpy as np

from dig2dig_ros.detections.boxes import Array, corners
from dig2dig_ros.evaluation.options import UsageError


class LabelError(UsageError):
    """Labels are missing or invalid; the message says where and why."""


@dataclass(frozen=True)
class ImageLabels:
    """
    The truth about one image.

    :param boxes: (m, 4), the persons to be found.
    :param ignore: (k, 4), regions whose detections count neither as true nor as false positives.
    """

    boxes: Array
    ignore: Array


@dataclass(frozen=True)
class LabelSet:
    """
    The labels of a data set, by name of the image without folder and suffix.

    :param source: where they were read.
    :param images: labels by name.
    :param relative: boxes are fractions of the image's width and height.
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

        :param names: its possible names; the first known one counts.
        :param width: of the image in pixels.
        :param height: of the image in pixels.
        :raises LabelError: it was labelled in another size.
        """
        name = next((name for name in names if name in self.images), None)
        if name is None:
            return ImageLabels(_boxes([]), _boxes([])) if self.complete else None
        size = self.sizes.get(name, (width, height))
        if size != (width, height):
            raise LabelError(
                f'{name} is {width}x{height} pixels, but {size[0]}x{size[1]} in {self.source}'
            )
        found = self.images[name]
        scale = np.array([width, height] * 2, np.float64) if self.relative else 1.0
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
    :raises LabelError: the labels are missing or invalid.
    """
    path = Path(path)
    if path.is_dir():
        return _read_yolo(path, person)
    try:
        document = json.loads(path.read_text(encoding='utf-8'))
    except FileNotFoundError as error:
        raise LabelError(f'the labels {path} do not exist') from error
    except (OSError, ValueError) as error:
        raise LabelError(f'{path} cannot be read as JSON: {error}') from error
    if isinstance(document, dict) and {'images', 'annotations'} <= document.keys():
        return _read_coco(path, document, person)
    if isinstance(document, dict) and isinstance(document.get('boxes'), dict):
        boxes, ignore = document['boxes'], document.get('ignore') or {}
        if not isinstance(ignore, dict):
            raise LabelError(f'{path}: "ignore" must have lists of boxes by image')
        return LabelSet(path, _labels(path, boxes, ignore))
    raise LabelError(
        f'{path} has neither "boxes" by image nor the "images" and "annotations" of COCO'
    )


def _boxes(values: Any, place: str = '') -> Array:
    """
    Return lists of corners as an array.

    :raises LabelError: they are not boxes.
    """
    try:
        boxes = np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise LabelError(f'{place}: not a list of boxes of four numbers') from error
    if boxes.size == 0:
        return np.zeros((0, 4))
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not np.isfinite(boxes).all():
        raise LabelError(f'{place}: not a list of boxes of four numbers')
    empty = np.flatnonzero((boxes[:, 2:] <= boxes[:, :2]).any(axis=1))
    if len(empty):
        raise LabelError(f'{place}: box {boxes[empty[0]].tolist()} is empty')
    return boxes


def _labels(
    path: Path, boxes: Mapping[str, Any], ignore: Mapping[str, Any]
) -> dict[str, ImageLabels]:
    return {
        name: ImageLabels(
            _boxes(boxes.get(name, []), f'{path}, boxes of {name}'),
            _boxes(ignore.get(name, []), f'{path}, ignore of {name}'),
        )
        for name in dict.fromkeys((*boxes, *ignore))
    }


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
            f'{path}: no category is a person: name one with --label-class; there are '
            f'{", ".join(names.values()) or "none"}'
        )
    return found[0]


def _read_coco(path: Path, document: Mapping[str, Any], person: str | None) -> LabelSet:
    names: dict[Any, str] = {}
    sizes: dict[str, tuple[int, int]] = {}
    boxes: dict[str, list[list[float]]] = {}
    ignore: dict[str, list[list[float]]] = {}
    try:
        category = _coco_category(path, document, person)
        for image in document['images']:
            name = Path(image['file_name']).stem
            if name in boxes:
                raise LabelError(f'{path} has two images named {name}')
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
    except LabelError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise LabelError(
            f'{path} is not in COCO format: {type(error).__name__} {error}'
        ) from error
    return LabelSet(path, _labels(path, boxes, ignore), sizes=sizes)


def _read_yolo(folder: Path, person: str | None) -> LabelSet:
    if person is not None and not person.isdecimal():
        raise LabelError(
            f'{folder}: classes of YOLO labels are numbers, not names such as {person}'
        )
    images = {}
    for path in sorted(folder.glob('*.txt')):
        if path.name == 'classes.txt':  # names of the classes, by some programs
            continue
        found = []
        try:
            for line in path.read_text(encoding='utf-8').splitlines():
                if line.strip():
                    label, x, y, width, height = line.split()
                    if int(label) == int(person or 0):
                        found.append([float(x), float(y), float(width), float(height)])
        except (OSError, ValueError) as error:
            raise LabelError(
                f'{path}: not lines of class, x, y, width and height: {error}'
            ) from error
        boxes = _boxes(corners(np.array(found).reshape(-1, 4)), str(path))
        if boxes.size and (boxes.min() < -0.5 or boxes.max() > 1.5):
            raise LabelError(f'{path}: boxes must be fractions of the image')
        images[path.stem] = ImageLabels(boxes, _boxes([]))
    if not images:
        raise LabelError(f'{folder} has no labels NAME.txt')
    return LabelSet(folder, images, relative=True, complete=True)
