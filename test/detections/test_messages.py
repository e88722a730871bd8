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


"""Detections in messages of both types: read soundly, written back."""

from __future__ import annotations

from typing import Any

from detections.fake_messages import VISION, YOLO
from detections.test_boxes import boxes_of
import numpy as np
import pytest

from dig2dig_ros.detections.boxes import Detections
from dig2dig_ros.detections.merging import Merged, noisy_or
from dig2dig_ros.detections.messages import (
    DETECTION_2D_ARRAY,
    DETECTION_ARRAY,
    Label,
    MAX_HYPOTHESES,
    message_of,
    message_of_source,
    MessageError,
    sound_detections,
)

TYPES = [(DETECTION_2D_ARRAY, VISION), (DETECTION_ARRAY, YOLO)]
SOURCES = ('visible', 'thermal')
PERSON = Label('person', '0')
CAR = Label('car', '2')


def found(*boxes: tuple[list[float], float]) -> Detections:
    return Detections(boxes_of([box for box, _ in boxes]), np.array([score for _, score in boxes]))


def a_merge() -> dict[Label, Merged]:
    return {
        CAR: noisy_or([found(([0, 0, 40, 20], 0.7)), found()]),
        PERSON: noisy_or([found(([10, 10, 20, 40], 0.6)), found(([10, 10, 20, 40], 0.5))]),
    }


def yolo_message(*boxes: tuple[float, float, float, float, float]) -> Any:
    """Return persons by centre, size and score."""
    message = YOLO.DetectionArray()
    for x, y, width, height, score in boxes:
        detection = YOLO.Detection(class_name='person', score=score)
        box = detection.bbox
        box.center.position.x, box.center.position.y, box.size.x, box.size.y = x, y, width, height
        message.detections.append(detection)
    return message


@pytest.mark.parametrize(('type_name', 'types'), TYPES)
def test_what_is_written_is_read_again(type_name: str, types: Any) -> None:
    message = message_of(a_merge(), 'the header', SOURCES, type_name, types)
    assert message.header == 'the header'
    read = {str(label): each for label, each in sound_detections(message, type_name).items()}
    assert read['person'].boxes.tolist() == [[10, 10, 20, 40]]
    assert read['person'].scores == pytest.approx(np.array([0.8]))
    assert read['car'].boxes.tolist() == [[0, 0, 40, 20]]


def test_the_first_result_is_the_united_one_and_none_of_a_source_is_above_it() -> None:
    message = message_of(a_merge(), 'header', SOURCES, DETECTION_2D_ARRAY, VISION)
    person, car = message.detections  # best first, whatever the class
    results = [(each.hypothesis.class_id, each.hypothesis.score) for each in person.results]
    assert [name for name, _ in results] == ['person', 'person/visible', 'person/thermal']
    assert [score for _, score in results] == pytest.approx([0.8, 0.6, 0.5])
    assert person.header == 'header'
    assert [each.hypothesis.class_id for each in car.results] == ['car', 'car/visible']


def test_yolo_messages_keep_numbers_and_have_one_message_for_each_source() -> None:
    merged = a_merge()
    message = message_of(merged, 'header', SOURCES, DETECTION_ARRAY, YOLO)
    assert [(each.class_id, each.class_name) for each in message.detections] == [
        (0, 'person'),
        (2, 'car'),
    ]
    thermal = message_of_source(merged, 'header', 1, DETECTION_ARRAY, YOLO)
    assert [each.score for each in thermal.detections] == pytest.approx([0.5, 0])
    assert [each.bbox for each in thermal.detections] == [each.bbox for each in message.detections]


def test_classes_of_vision_msgs_may_be_numbers() -> None:
    numbered = {Label('', '0'): a_merge()[PERSON]}
    message = message_of(numbered, 'header', SOURCES, DETECTION_2D_ARRAY, VISION)
    assert [each.hypothesis.class_id for each in message.detections[0].results] == [
        *('0', '0/visible', '0/thermal')
    ]


def test_detections_are_read_best_first_and_empty_boxes_left_out() -> None:
    message = yolo_message((5, 5, 2, 2, 0.3), (5, 5, 4, 4, 1.0000001), (5, 5, 0, 4, 0.9))
    (read,) = sound_detections(message, DETECTION_ARRAY).values()
    assert read.scores.tolist() == [1.0, 0.3]
    assert read.boxes.tolist() == [[3, 3, 7, 7], [4, 4, 6, 6]]


@pytest.mark.parametrize(
    ('box', 'reason'),
    [
        ((np.nan, 5, 2, 2, 0.3), 'a box of person is not finite'),
        ((5, 5, np.inf, 2, 0.3), 'a box of person is not finite'),
        ((5, 5, -2, 2, 0.3), 'the negative size -2 x 2'),
        ((1e9, 5, 2, 2, 0.3), r'reaches to 1e\+09 pixels'),
        ((5, 5, 2, 2, 1.5), 'person has the score 1.5'),
        ((5, 5, 2, 2, np.nan), 'person has the score nan'),
    ],
)
def test_what_is_no_sound_detection_is_refused(box: Any, reason: str) -> None:
    with pytest.raises(MessageError, match=reason):
        sound_detections(yolo_message((5, 5, 2, 2, 0.9), box), DETECTION_ARRAY)


def test_a_flood_is_refused_and_not_read_to_its_end() -> None:
    message = yolo_message((5, 5, 2, 2, 0.9))
    message.detections = iter(message.detections * (MAX_HYPOTHESES + 10))
    with pytest.raises(MessageError, match='more than 1000 detections'):
        sound_detections(message, DETECTION_ARRAY)
    assert len(list(message.detections)) == 9


def test_another_type_is_refused() -> None:
    with pytest.raises(
        MessageError, match=r'detections in sensor_msgs/msg/Image are not supported'
    ):
        sound_detections(None, 'sensor_msgs/msg/Image')
    with pytest.raises(MessageError, match='is not a vision_msgs/msg/Detection2DArray'):
        sound_detections(yolo_message((5, 5, 2, 2, 0.9)), DETECTION_2D_ARRAY)
