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

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dig2dig_ros.detections.boxes import Detections
from dig2dig_ros.evaluation.bag_types import BagError
from dig2dig_ros.evaluation.recorded_detections import RecordedDetections
from dig2dig_ros.streams.preparation import stamp_of

VISION, YOLO = 'vision_msgs/msg/Detection2DArray', 'yolo_msgs/msg/DetectionArray'
SECOND = 1_000_000_000

# What the fields are called in the definitions of vision_msgs 4 and of yolo_msgs.
DEFINITIONS = {
    'vision_msgs/msg/Point2D': 'float64 x\nfloat64 y',
    'vision_msgs/msg/Pose2D': 'vision_msgs/Point2D position\nfloat64 theta',
    'vision_msgs/msg/BoundingBox2D': ('vision_msgs/Pose2D center\nfloat64 size_x\nfloat64 size_y'),
    'vision_msgs/msg/ObjectHypothesis': 'string class_id\nfloat64 score',
    'vision_msgs/msg/ObjectHypothesisWithPose': (
        'vision_msgs/ObjectHypothesis hypothesis\ngeometry_msgs/PoseWithCovariance pose'
    ),
    'vision_msgs/msg/Detection2D': (
        'std_msgs/Header header\nvision_msgs/ObjectHypothesisWithPose[] results\n'
        'vision_msgs/BoundingBox2D bbox\nstring id'
    ),
    VISION: 'std_msgs/Header header\nvision_msgs/Detection2D[] detections',
    'yolo_msgs/msg/Point2D': 'float64 x\nfloat64 y',
    'yolo_msgs/msg/Vector2': 'float64 x\nfloat64 y',
    'yolo_msgs/msg/Pose2D': 'yolo_msgs/Point2D position\nfloat64 theta',
    'yolo_msgs/msg/BoundingBox2D': 'yolo_msgs/Pose2D center\nyolo_msgs/Vector2 size',
    'yolo_msgs/msg/Detection': (
        'int32 class_id\nstring class_name\nfloat64 score\nstring id\nyolo_msgs/BoundingBox2D bbox'
    ),
    YOLO: 'std_msgs/Header header\nyolo_msgs/Detection[] detections',
}

# Class, score, and centre and size of the box.
Found = tuple[str, float, tuple[float, float, float, float]]
PERSON: Found = ('person', 0.5, (50, 40, 20, 30))
BETTER: Found = ('Pedestrian', 0.75, (150, 40, 10, 20))
CAR: Found = ('car', 0.9, (50, 40, 20, 30))


def header(stamp: int = 0) -> SimpleNamespace:
    return SimpleNamespace(
        stamp=SimpleNamespace(sec=stamp // SECOND, nanosec=stamp % SECOND), frame_id='camera'
    )


def message(*found: Found, stamp: int = 0, theta: float = 0.0) -> SimpleNamespace:
    """Return a message in the layout of vision_msgs 4."""
    return SimpleNamespace(
        header=header(stamp),
        detections=[
            SimpleNamespace(
                results=[SimpleNamespace(hypothesis=SimpleNamespace(class_id=kind, score=score))],
                bbox=SimpleNamespace(
                    center=SimpleNamespace(position=SimpleNamespace(x=x, y=y), theta=theta),
                    size_x=width,
                    size_y=height,
                ),
            )
            for kind, score, (x, y, width, height) in found
        ],
    )


def old_message(*found: tuple[Any, float, tuple[float, float, float, float]]) -> SimpleNamespace:
    """Return a message in the layout of vision_msgs 1 and 2."""
    return SimpleNamespace(
        header=header(),
        detections=[
            SimpleNamespace(
                results=[SimpleNamespace(id=kind, score=score)],
                bbox=SimpleNamespace(
                    center=SimpleNamespace(x=x, y=y, theta=0.0), size_x=width, size_y=height
                ),
            )
            for kind, score, (x, y, width, height) in found
        ],
    )


def yolo_message(*found: tuple[int, Found]) -> SimpleNamespace:
    return SimpleNamespace(
        header=header(),
        detections=[
            SimpleNamespace(
                class_id=number,
                class_name=kind,
                score=score,
                bbox=SimpleNamespace(
                    center=SimpleNamespace(position=SimpleNamespace(x=x, y=y), theta=0.0),
                    size=SimpleNamespace(x=width, y=height),
                ),
            )
            for number, (kind, score, (x, y, width, height)) in found
        ],
    )


def detections_of(read: Any, type_name: str, person: str | None = None) -> Detections:
    """Return what is kept of one message."""
    recorded = RecordedDetections('visible', '/detections', person)
    recorded.add(read, type_name)
    found = recorded.take(stamp_of(read.header))
    assert found is not None
    return found


# --- Messages -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('read', 'type_name'),
    [
        (message(PERSON, CAR, BETTER), VISION),
        (old_message(PERSON, CAR, BETTER), VISION),
        (yolo_message((0, PERSON), (2, CAR), (0, BETTER)), YOLO),
    ],
)
def test_persons_of_every_layout_best_first(read: Any, type_name: str) -> None:
    found = detections_of(read, type_name)
    assert found.boxes.tolist() == [[145, 30, 155, 50], [40, 25, 60, 55]]
    assert found.scores.tolist() == [0.75, 0.5]
    cars = detections_of(read, type_name, person='car')
    assert cars.scores.tolist() == [0.9]


@pytest.mark.parametrize('number', [0, '0'])
def test_where_classes_have_numbers_persons_are_0(number: Any) -> None:
    box = (50, 40, 20, 30)
    read = old_message((number, 0.5, box), (type(number)(1), 0.25, box))
    assert detections_of(read, VISION).scores.tolist() == [0.5]
    assert detections_of(read, VISION, person='1').scores.tolist() == [0.25]


def test_a_name_says_more_than_a_number() -> None:
    # A model of its own classes, whose number 0 is no person.
    read = yolo_message((0, CAR), (7, PERSON))
    assert detections_of(read, YOLO).scores.tolist() == [0.5]
    assert detections_of(read, YOLO, person='0').scores.tolist() == [0.9]
    nameless = yolo_message((0, ('', 0.5, PERSON[2])), (1, ('', 0.9, PERSON[2])))
    assert detections_of(nameless, YOLO).scores.tolist() == [0.5]


def test_messages_as_a_bag_holds_them() -> None:
    typesys = pytest.importorskip('rosbags.typesys')
    store = typesys.get_typestore(typesys.Stores.ROS2_HUMBLE)
    for name, definition in DEFINITIONS.items():
        store.register(typesys.get_types_from_msg(definition, name))
    t = store.types
    stamp = t['builtin_interfaces/msg/Time'](sec=3, nanosec=7)
    head = t['std_msgs/msg/Header'](stamp=stamp, frame_id='camera')

    def pose(package: str) -> Any:
        point = t[f'{package}/msg/Point2D'](x=50.0, y=40.0)
        return t[f'{package}/msg/Pose2D'](position=point, theta=0.0)

    g = 'geometry_msgs/msg/'
    nowhere = t[g + 'PoseWithCovariance'](
        pose=t[g + 'Pose'](
            position=t[g + 'Point'](x=0.0, y=0.0, z=0.0),
            orientation=t[g + 'Quaternion'](x=0.0, y=0.0, z=0.0, w=1.0),
        ),
        covariance=np.zeros(36),
    )
    results = [
        t['vision_msgs/msg/ObjectHypothesisWithPose'](
            hypothesis=t['vision_msgs/msg/ObjectHypothesis'](class_id=kind, score=score),
            pose=nowhere,
        )
        for kind, score in (('car', 0.9), ('person', 0.5))
    ]
    box = t['vision_msgs/msg/BoundingBox2D'](center=pose('vision_msgs'), size_x=20.0, size_y=30.0)
    one = t['vision_msgs/msg/Detection2D'](header=head, results=results, bbox=box, id='')
    size = t['yolo_msgs/msg/Vector2'](x=20.0, y=30.0)
    two = t['yolo_msgs/msg/Detection'](
        class_id=0,
        class_name='person',
        score=0.5,
        id='',
        bbox=t['yolo_msgs/msg/BoundingBox2D'](center=pose('yolo_msgs'), size=size),
    )
    for type_name, detection in ((VISION, one), (YOLO, two)):
        data = store.serialize_cdr(t[type_name](header=head, detections=[detection]), type_name)
        read = store.deserialize_cdr(data, type_name)
        found = detections_of(read, type_name)
        assert stamp_of(read.header) == 3 * SECOND + 7
        assert found.boxes.tolist() == [[40, 25, 60, 55]]
        assert found.scores.tolist() == [0.5]


def test_a_rotated_box_becomes_the_upright_one_around_it() -> None:
    quarter = detections_of(message(PERSON, theta=np.pi / 2), VISION)
    assert quarter.boxes == pytest.approx(np.array([[35.0, 30, 65, 50]]))
    tilted = detections_of(message(('person', 0.5, (0, 0, 10, 10)), theta=-np.pi / 4), VISION)
    half = 5 * np.sqrt(2)
    assert tilted.boxes == pytest.approx(np.array([[-half, -half, half, half]]))


def test_boxes_that_make_no_sense_are_left_out() -> None:
    nan = float('nan')
    broken = [
        ('person', 0.5, (50.0, 40.0, 0.0, 30.0)),
        ('person', 0.5, (nan, 40.0, 20.0, 30.0)),
        ('person', nan, (50.0, 40.0, 20.0, 30.0)),
    ]
    found = detections_of(message(*broken, PERSON), VISION)
    assert found.boxes.tolist() == [[40, 25, 60, 55]]
    empty = detections_of(message(), VISION)
    assert (empty.boxes.shape, empty.scores.shape) == ((0, 4), (0,))


@pytest.mark.parametrize(
    ('read', 'type_name', 'reason'),
    [
        (message(), 'sensor_msgs/msg/Image', f'Image are not supported.*{VISION}'),
        (message(PERSON), YOLO, f'not a {YOLO}'),
        (yolo_message((0, PERSON)), VISION, f'not a {VISION}'),
        (SimpleNamespace(header=header()), VISION, 'detections'),
    ],
)
def test_other_messages_are_refused(read: Any, type_name: str, reason: str) -> None:
    with pytest.raises(BagError, match=reason):
        detections_of(read, type_name)


# --- A recording --------------------------------------------------------------------------------


def recording(*stamps: int, topic: str = '/fused/detections') -> RecordedDetections:
    """Return messages with one person each, of a score that tells which it is."""
    recorded = RecordedDetections('fused', topic)
    for index, stamp in enumerate(stamps):
        person = ('person', (index + 1) / 10, PERSON[2])
        recorded.add(message(person, stamp=stamp), VISION)
    return recorded


def taken(recorded: RecordedDetections, stamp: int) -> float | None:
    found = recorded.take(stamp)
    return None if found is None else float(found.scores[0])


def test_detections_belong_to_the_image_of_their_stamp() -> None:
    recorded = recording(2 * SECOND, SECOND, 3 * SECOND)
    assert taken(recorded, SECOND) == 0.2
    assert taken(recorded, 3 * SECOND) == 0.3
    # An image may be part of two pairs.
    assert taken(recorded, 3 * SECOND) == 0.3
    (unmatched,) = recorded.warnings()
    assert '1 of 3 messages on /fused/detections do not belong to an evaluated image' in unmatched


def test_a_stamp_may_be_off_by_a_millisecond() -> None:
    recorded = recording(SECOND, SECOND + 1_500_000, 5 * SECOND)
    assert taken(recorded, SECOND + 700_000) == 0.1
    assert taken(recorded, SECOND + 800_000) == 0.2
    assert taken(recorded, SECOND - 1_000_000) == 0.1
    assert taken(recorded, 5 * SECOND + 1_000_000) == 0.3
    assert taken(recorded, SECOND - 1_000_001) is None
    assert taken(recorded, 5 * SECOND + 1_000_001) is None
    assert 'for 2 images' in recorded.warnings()[0]
    # One that comes later is found as well.
    recorded.add(message(PERSON, stamp=8 * SECOND), VISION)
    assert taken(recorded, 8 * SECOND + 1) == 0.5


def test_a_message_without_persons_is_not_a_missing_one() -> None:
    recorded = RecordedDetections('fused', '/f')
    recorded.add(message(CAR, stamp=SECOND), VISION)
    found = recorded.take(SECOND)
    assert found is not None
    assert len(found.boxes) == 0
    assert RecordedDetections('visible', '/v').take(SECOND) is None


def test_the_class_of_persons_is_a_parameter() -> None:
    recorded = RecordedDetections('fused', '/f', person='car')
    recorded.add(message(CAR, PERSON, stamp=SECOND), VISION)
    assert taken(recorded, SECOND) == 0.9


def test_the_last_message_of_a_stamp_counts() -> None:
    recorded = recording(SECOND, SECOND)
    assert taken(recorded, SECOND) == 0.2
    (warning,) = recorded.warnings()
    assert '1 messages on /fused/detections repeat a stamp' in warning


def test_what_did_not_fit_is_said() -> None:
    recorded = recording(SECOND, 2 * SECOND)
    assert taken(recorded, SECOND) == 0.1
    assert taken(recorded, 2 * SECOND) == 0.2
    assert recorded.warnings() == []
    recorded = recording(SECOND, 2 * SECOND)
    assert taken(recorded, 9 * SECOND) is None
    missed, unmatched = recorded.warnings()
    assert 'for 1 images, no message' in missed
    assert '2 of 2 messages on /fused/detections' in unmatched
    assert RecordedDetections('fused', '/f').warnings() == ['fused: nothing is on /f']


def test_classes_without_a_person_are_named() -> None:
    recorded = RecordedDetections('fused', '/f')
    for index in range(3):
        stamp = SECOND * index
        recorded.add(message(('1', 0.9, CAR[2]), stamp=stamp), VISION)
        assert recorded.take(stamp) is not None
    (warning,) = recorded.warnings()
    assert (
        "no class on /f is person or pedestrian or 0: give that of persons; there are '1'"
        in warning
    )


def test_a_message_that_cannot_be_read_is_not_kept() -> None:
    recorded = recording(SECOND)
    with pytest.raises(BagError, match='no stamp'):
        recorded.add(SimpleNamespace(detections=[]), VISION)
    with pytest.raises(BagError, match='are not supported'):
        recorded.add(message(stamp=2 * SECOND), 'std_msgs/msg/String')
    assert taken(recorded, SECOND) == 0.1
    assert recorded.warnings() == []
