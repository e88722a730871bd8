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
Detections that a live detector published, read from the messages of a recording.

Messages are objects whose attributes are the fields of the definition, as in rosbags and rclpy;
ROS is not needed.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np

from dig2dig_ros.detections.boxes import Detections
from dig2dig_ros.detections.messages import hypotheses, Hypothesis, Label, MessageError, TYPES
from dig2dig_ros.evaluation.bag_reader import BagReader
from dig2dig_ros.evaluation.bag_types import BagError
from dig2dig_ros.streams.preparation import stamp_of

PERSON_NAMES = ('person', 'pedestrian')
PERSON_NUMBER = '0'
# Between the stamps of an image and of its detections, for detectors that round.
TOLERANCE_NS = 1_000_000


class RecordedDetections:
    """
    Finds the detections that belong to an image, by the stamp that a detector passes on.

    Detections come after their image, by as much as the detector takes. So first :meth:`add` all
    messages of a topic, then :meth:`take` what belongs to each image, in any order and as often
    as needed: an image may be part of two pairs. What is kept of a message are the upright boxes
    of its persons, best first, without those that have no area or numbers that are not finite.

    A live detector only publishes detections above its own threshold, so the average precision
    from its messages is lower than that of the detector itself.

    :param name: of the input that the detector saw, see
        :class:`~dig2dig_ros.evaluation.detection_study.DetectionStudy`.
    :param topic: of the messages.
    :param person: name or number of the class of persons. Default: the name person or
        pedestrian; where classes have no names, the number 0.
    """

    def __init__(self, name: str, topic: str, person: str | None = None) -> None:
        self.topic = topic
        self._name = name
        self._person = person
        self._detections: dict[int, Detections] = {}
        self._stamps: list[int] = []
        self._taken: set[int] = set()
        self._missed = self._replaced = 0
        self._classes: Counter[str] = Counter()
        self._damaged: list[str] = []

    def add(self, message: Any, type_name: str) -> None:
        """
        Take a message in; a later one with the same stamp replaces it.

        :param type_name: of the message, one of :data:`TYPES`.
        :raises BagError: the type is another one, or the message is not of it.
        """
        try:
            stamp = stamp_of(message.header)
        except AttributeError as error:
            raise BagError(f'the message has no stamp: {error}') from error
        found = _hypotheses(message, type_name)
        self._classes.update({str(each.label) for each in found})
        if stamp in self._detections:
            self._replaced += 1
        else:
            insort(self._stamps, stamp)
        self._detections[stamp] = _persons(found, self._person)

    def take(self, stamp: int) -> Detections | None:
        """
        Return the detections in an image: those of its stamp, or the nearest within 1 ms.

        :param stamp: of the image, in nanoseconds.
        :return: None if there is no message for the image; one without persons has no boxes.
        """
        place = bisect_left(self._stamps, stamp)
        near = self._stamps[max(0, place - 1) : place + 1]
        nearest = min(near, key=lambda known: abs(known - stamp), default=None)
        if nearest is None or abs(nearest - stamp) > TOLERANCE_NS:
            self._missed += 1
            return None
        self._taken.add(nearest)
        return self._detections[nearest]

    def warnings(self) -> list[str]:
        """Return a sentence on every problem; empty if there is none."""
        topic, kept = self.topic, len(self._detections)
        sentences = []
        if self._damaged:
            sentences.append(
                f'{len(self._damaged)} messages on {topic} cannot be read, the first: '
                f'{self._damaged[0]}'
            )
        if not kept:
            return [f'{self._name}: {text}' for text in (*sentences, f'nothing is on {topic}')]
        if self._replaced:
            sentences.append(
                f'{self._replaced} messages on {topic} repeat a stamp; the last one of each counts'
            )
        if self._missed:
            sentences.append(
                f'for {self._missed} images, no message on {topic} has their stamp: a detector '
                'must copy the stamp of the image'
            )
        unmatched = kept - len(self._taken)
        if unmatched:
            sentences.append(
                f'{unmatched} of {kept} messages on {topic} do not belong to an evaluated image'
            )
        if self._classes and not any(len(entry.scores) for entry in self._detections.values()):
            usual = ', '.join(repr(kind) for kind, _ in self._classes.most_common(5))
            wanted = self._person or f'{" or ".join(PERSON_NAMES)} or {PERSON_NUMBER}'
            sentences.append(
                f'no class on {topic} is {wanted}: give that of persons; there are {usual}'
            )
        return [f'{self._name}: {text}' for text in sentences]

    def read(self, reader: BagReader) -> None:
        """
        Take in all messages of a bag; damaged ones are counted.

        :raises BagError: the topic is not in the bag, or of another type.
        """
        known = reader.topics
        found = known[self.topic].type if self.topic in known else 'not in the bag'
        if found not in TYPES:
            some = [name for name, entry in known.items() if entry.type in TYPES]
            raise BagError(
                f'no detections on {self.topic} of {reader.path}: it is {found}; topics of '
                f'{" or ".join(TYPES)}: {", ".join(some) or "none"}'
            )
        for record in reader.records([self.topic]):
            try:
                self.add(reader.decode(record), record.type)
            except BagError as error:
                self._damaged.append(str(error))


def _persons(found: Iterable[Hypothesis], person: str | None) -> Detections:
    """Return the valid detections of persons, best first."""
    persons = [each for each in found if _is_person(each.label, person)]
    boxes = np.array([each.box for each in persons], dtype=np.float64).reshape(-1, 4)
    scores = np.array([each.score for each in persons], dtype=np.float64)
    usable = np.isfinite(boxes).all(axis=1) & np.isfinite(scores)
    usable &= (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    boxes, scores = boxes[usable], scores[usable]
    order = np.argsort(-scores, kind='stable')
    return Detections(boxes[order], scores[order])


def _is_person(label: Label, person: str | None) -> bool:
    if person is not None:
        return person in label
    return label.name.lower() in PERSON_NAMES if label.name else label.number == PERSON_NUMBER


def _hypotheses(message: Any, type_name: str) -> list[Hypothesis]:
    """
    Return all detections in a message, persons or not.

    :raises BagError: the type is unknown, or the message does not have it.
    """
    try:
        return list(hypotheses(message, type_name))
    except MessageError as error:
        raise BagError(str(error)) from error
