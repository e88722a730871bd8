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
Detections in ROS messages: ``vision_msgs/Detection2DArray`` and yolo_ros's ``DetectionArray``.

Messages are objects whose attributes are the fields of the definition, as in rclpy and rosbags;
ROS is not needed. To write messages, pass their classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
import math
from typing import Any, NamedTuple

import numpy as np

from dig2dig_ros.detections.boxes import Detections
from dig2dig_ros.detections.merging import Merged

DETECTION_2D_ARRAY = 'vision_msgs/msg/Detection2DArray'
DETECTION_ARRAY = 'yolo_msgs/msg/DetectionArray'
TYPES = (DETECTION_2D_ARRAY, DETECTION_ARRAY)

# Most boxes in a message; detectors stop at a few hundred.
MAX_HYPOTHESES = 1000
# Rounding may move a score this far out of [0, 1].
_SCORE_SLACK = 1e-6
# Largest coordinate of a box in pixels: no image is larger.
_LARGEST = 1e6


class MessageError(ValueError):
    """A message holds no valid detections; the message says why, and what to do."""


class Label(NamedTuple):
    """A class: its name, and its number as text. Either may be empty."""

    name: str
    number: str

    def __str__(self) -> str:
        """Return the name, or the number if there is none."""
        return self.name or self.number


class Hypothesis(NamedTuple):
    """One class of one box: corners x1, y1, x2, y2 in pixels, those of the upright box."""

    label: Label
    score: float
    box: tuple[float, float, float, float]


def hypotheses(message: Any, type_name: str) -> Iterator[Hypothesis]:
    """
    Yield everything in a message, unchecked.

    :param message: of that type; of ``Detection2DArray`` the layouts of vision_msgs 1 to 4.
    :param type_name: one of :data:`TYPES`.
    :raises MessageError: the type is unknown, or the message does not have it.
    """
    if type_name not in TYPES:
        raise MessageError(
            f'detections in {type_name} are not supported: use {" or ".join(TYPES)}'
        )
    try:
        for detection in message.detections:
            if type_name == DETECTION_ARRAY:
                box = detection.bbox
                corners = _upright(box.center, box.size.x, box.size.y)
                label = Label(str(detection.class_name), str(detection.class_id))
                yield Hypothesis(label, float(detection.score), corners)
                continue
            corners = _upright(detection.bbox.center, detection.bbox.size_x, detection.bbox.size_y)
            for result in detection.results:
                # Up to vision_msgs 2 a result has the fields of its hypothesis itself.
                known = getattr(result, 'hypothesis', result)
                kind = str(known.class_id if hasattr(known, 'class_id') else known.id)
                label = Label('', kind) if kind.lstrip('-').isdigit() else Label(kind, '')
                yield Hypothesis(label, float(known.score), corners)
    except AttributeError as error:
        raise MessageError(f'the message is not a {type_name}: {error}') from error


def sound_detections(message: Any, type_name: str) -> dict[Label, Detections]:
    """
    Return the detections in a message by class, each class best first.

    Boxes without area, as when an object just leaves the image, are left out.

    :raises MessageError: see :func:`hypotheses`; or a number is not finite, a side is negative,
        a score is not in [0, 1], a box is beyond any image, or there are too many.
    """
    found: dict[Label, list[Hypothesis]] = {}
    for count, each in enumerate(hypotheses(message, type_name)):
        if count >= MAX_HYPOTHESES:
            raise MessageError(
                f'there are more than {MAX_HYPOTHESES} detections in one image: raise the score '
                'threshold of the detector, or limit their number'
            )
        _check(each)
        left, top, right, bottom = each.box
        if right > left and bottom > top:
            found.setdefault(each.label, []).append(each)
    detections = {}
    for label, group in found.items():
        scores = np.clip([each.score for each in group], 0.0, 1.0)
        order = np.argsort(-scores, kind='stable')
        boxes = np.array([each.box for each in group])
        detections[label] = Detections(boxes[order], scores[order])
    return detections


def message_of(
    merged: Mapping[Label, Merged],
    header: Any,
    sources: Sequence[str],
    type_name: str,
    types: Any,
) -> Any:
    """
    Return merged boxes as a message of the type that the detectors send, best first.

    In ``Detection2DArray``, the first result of each detection is the merged one. Another one
    follows for each source that found it, with the class 'CLASS/SOURCE' and its contribution,
    which never exceeds the merged score. ``DetectionArray`` has no place for that, see
    :func:`message_of_source`.

    :param sources: names, in the order of the columns of ``source_scores``.
    :param type_name: one of :data:`TYPES`.
    :param types: the module with the classes of its package, such as ``vision_msgs.msg``.
    """
    return _message(_ranked(merged), header, sources, type_name, types)


def message_of_source(
    merged: Mapping[Label, Merged], header: Any, column: int, type_name: str, types: Any
) -> Any:
    """
    Return the detections of :func:`message_of`, in its order, with the scores of one source.

    :param column: of the source in ``source_scores``; the score is 0 where it found nothing.
    """
    found = [each._replace(score=each.source_scores[column]) for each in _ranked(merged)]
    return _message(found, header, (), type_name, types)


class _Found(NamedTuple):
    """One merged detection."""

    label: Label
    score: float
    box: Sequence[float]
    source_scores: Sequence[float]


def _ranked(merged: Mapping[Label, Merged]) -> list[_Found]:
    """Return the detections of all classes, best first."""
    found = [
        _Found(label, score, box, source_scores)
        for label, each in merged.items()
        for score, box, source_scores in zip(
            each.scores.tolist(), each.boxes.tolist(), each.source_scores.tolist(), strict=True
        )
    ]
    return sorted(found, key=lambda each: -each.score)


def _message(
    found: Sequence[_Found], header: Any, sources: Sequence[str], type_name: str, types: Any
) -> Any:
    if type_name == DETECTION_ARRAY:
        return types.DetectionArray(
            header=header, detections=[_yolo_detection(each, types) for each in found]
        )
    return types.Detection2DArray(
        header=header, detections=[_detection_2d(each, header, sources, types) for each in found]
    )


def _detection_2d(found: _Found, header: Any, sources: Sequence[str], types: Any) -> Any:
    kind = str(found.label)
    scores = {kind: found.score}
    for source, score in zip(sources, found.source_scores if sources else (), strict=True):
        if score > 0:
            scores[f'{kind}/{source}'] = score
    detection = types.Detection2D(header=header)
    detection.results = [
        types.ObjectHypothesisWithPose(
            hypothesis=types.ObjectHypothesis(class_id=class_id, score=score)
        )
        for class_id, score in scores.items()
    ]
    box = detection.bbox
    center = box.center.position
    center.x, center.y, box.size_x, box.size_y = _centre_and_size(found.box)
    return detection


def _yolo_detection(found: _Found, types: Any) -> Any:
    detection = types.Detection(
        class_id=int(found.label.number or 0), class_name=found.label.name, score=found.score
    )
    center, size = detection.bbox.center.position, detection.bbox.size
    center.x, center.y, size.x, size.y = _centre_and_size(found.box)
    return detection


def _centre_and_size(box: Sequence[float]) -> tuple[float, float, float, float]:
    left, top, right, bottom = box
    return (left + right) / 2, (top + bottom) / 2, right - left, bottom - top


def _check(found: Hypothesis) -> None:
    left, top, right, bottom = found.box
    if not all(map(math.isfinite, found.box)):
        raise MessageError(f'a box of {found.label} is not finite: check the detector')
    if right < left or bottom < top:
        raise MessageError(
            f'a box of {found.label} has the negative size {right - left:g} x {bottom - top:g}: '
            'check the detector'
        )
    if max(map(abs, found.box)) > _LARGEST:
        raise MessageError(
            f'a box of {found.label} reaches to {max(map(abs, found.box)):g} pixels, beyond any '
            'image: check the detector'
        )
    if not -_SCORE_SLACK <= found.score <= 1 + _SCORE_SLACK:  # nor NaN
        raise MessageError(
            f'{found.label} has the score {found.score:g}, which is not a probability: have the '
            'detector give scores of 0 to 1'
        )


def _upright(center: Any, width: float, height: float) -> tuple[float, float, float, float]:
    """
    Return the corners of the upright box around a rotated one.

    :param center: with ``x``, ``y`` and ``theta``, or with ``position`` and ``theta``.
    """
    position = getattr(center, 'position', center)
    x, y, angle = float(position.x), float(position.y), float(center.theta)
    width, height = float(width), float(height)
    if angle and math.isfinite(angle):
        cosine, sine = abs(math.cos(angle)), abs(math.sin(angle))
        width, height = width * cosine + height * sine, width * sine + height * cosine
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2
