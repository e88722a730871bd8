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


"""Detections of several sources, joined by stamp and merged; each message accounted for."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from detections.fake_messages import Header, Time, YOLO
import numpy as np
from numpy.typing import NDArray
import pytest

from dig2dig_ros.detections.messages import DETECTION_ARRAY, Label
from dig2dig_ros.streams.detection_fusion import CAUSES, DetectionFusion, MergedFrame
from dig2dig_ros.streams.detection_parameters import (
    check_together,
    ParameterError,
    PARAMETERS,
)

ALL = ('visible', 'thermal', 'fused')
PERSON = Label('person', '0')
# x1, y1, x2, y2, score
LEFT = (8, 8, 24, 40, 0.6)
RIGHT = (40, 8, 56, 40, 0.5)
PERIOD_MS = 100


class Robot:
    """Detectors, and a clock that goes on with their messages."""

    def __init__(self, **given: Any) -> None:
        values = {**{spec.name: spec.default for spec in PARAMETERS}, **given}
        self.now = 100.0
        self.said: list[str] = []
        self.fusion = DetectionFusion(
            values,
            {name: f'/{name}/detections' for name in values['sources']},
            publishers=lambda topic: 1,
            log=self.said.append,
            clock=lambda: self.now,
        )
        self.moment = 1000

    def send(
        self, source: str, *boxes: Sequence[float], at: int | None = None, name: str = 'person'
    ) -> list[MergedFrame]:
        """Send what was found in an image, by default one of this moment in ms."""
        moment = self.moment if at is None else at
        stamp = Time(moment // 1000, moment % 1000 * 1_000_000)
        message = YOLO.DetectionArray(header=Header(stamp, f'{source}_frame'))
        for x1, y1, x2, y2, score in boxes:
            detection = YOLO.Detection(class_name=name, score=score)
            center, size = detection.bbox.center.position, detection.bbox.size
            center.x, center.y, size.x, size.y = (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1
            message.detections.append(detection)
        return self.fusion.add(source, message, DETECTION_ARRAY)

    def weigh(self, source: str, weights: NDArray[Any], encoding: str = '32FC1') -> None:
        self.fusion.add_weights(
            source,
            SimpleNamespace(
                header=Header(Time(self.moment // 1000, self.moment % 1000 * 1_000_000)),
                height=weights.shape[0],
                width=weights.shape[1],
                encoding=encoding,
                is_bigendian=0,
                step=weights.shape[1] * weights.itemsize,
                data=np.ascontiguousarray(weights).reshape(-1).view(np.uint8),
            ),
        )

    def frame(self, *sources: str, boxes: Sequence[Sequence[float]] = (LEFT,)) -> list[Any]:
        """Let these sources send, and go on to the next frame."""
        out = [merged for source in sources for merged in self.send(source, *boxes)]
        self.next()
        return out

    def next(self) -> None:
        self.moment += PERIOD_MS
        self.now += PERIOD_MS * 1e-3

    def count(self, key: str) -> int:
        return int(self.fusion.table()[key])

    def drops(self, source: str) -> dict[str, int]:
        counts = {cause: self.count(f'dropped: {source} {cause}') for cause in CAUSES}
        return {cause: number for cause, number in counts.items() if number}

    def check_books(self) -> None:
        """Each message is merged, dropped, or waits."""
        waiting = 0
        for name in self.fusion.sources:
            left = self.count(f'{name} received') - self.count(f'{name} merged')
            left -= sum(self.drops(name).values())
            assert left >= 0, name
            waiting += left
        assert waiting == self.count('waiting')


def stamps_of(frames: Sequence[MergedFrame]) -> list[int]:
    return [each.header.stamp.sec * 1000 + each.header.stamp.nanosec // 10**6 for each in frames]


def test_three_sources_become_one_set_under_the_header_of_the_first() -> None:
    robot = Robot()
    assert robot.send('fused', LEFT) == []
    assert robot.send('thermal', LEFT, RIGHT) == []
    (frame,) = robot.send('visible')
    assert frame.header.frame_id == 'visible_frame'
    assert frame.header.stamp == Time(1, 0)
    merged = frame.merged[PERSON]
    assert merged.scores == pytest.approx(np.array([0.84, 0.5]))
    assert merged.source_scores == pytest.approx(np.array([[0, 0.6, 0.6], [0, 0.5, 0]]))
    robot.check_books()
    assert robot.count('merged frames') == 1
    assert robot.count('boxes') == 2
    assert robot.fusion.health() == []


def test_classes_do_not_mix() -> None:
    robot = Robot(sources=['visible', 'thermal'])
    robot.send('visible', LEFT, name='person')
    (frame,) = robot.send('thermal', LEFT, name='dog')
    assert {str(label): each.scores.tolist() for label, each in frame.merged.items()} == {
        'person': [pytest.approx(0.6)],
        'dog': [pytest.approx(0.6)],
    }


def test_stamps_join_within_the_tolerance_only() -> None:
    robot = Robot(sources=['visible', 'thermal'], sync_tolerance=0.02)
    for _ in range(10):
        robot.send('thermal', LEFT, at=robot.moment + 10)
        robot.frame('visible')
    robot.fusion.settle()
    assert robot.count('merged frames') == 10
    robot.fusion.values = {**robot.fusion.values, 'sync_tolerance': 0.005}
    for _ in range(30):
        robot.send('thermal', LEFT, at=robot.moment + 10)
        assert robot.frame('visible') == []
    robot.check_books()
    (text,) = robot.fusion.health()
    assert 'none of their stamps lie within sync_tolerance, 0.005 s' in text


def test_a_frame_that_a_detector_passed_over_is_dropped_and_counted() -> None:
    robot = Robot()
    for number in range(9):
        robot.frame(*(ALL if number % 3 else ('thermal', 'visible')))
    robot.check_books()
    assert robot.count('merged frames') == 6
    assert robot.drops('visible') == {'unpaired': 3}
    assert robot.drops('thermal') == {'unpaired': 3}
    assert robot.drops('fused') == {}


def test_a_silent_source_holds_the_others_up_for_the_timeout_only() -> None:
    robot = Robot(stale_timeout=1.0)
    robot.frame(*ALL)
    frames = [robot.frame('visible', 'thermal') for _ in range(30)]
    assert not any(frames[:9])
    assert all(len(each) == 1 for each in frames[12:])
    assert robot.fusion.table()['sources'] == 'visible, thermal'
    (text,) = robot.fusion.health()
    assert text.startswith('no valid detections of fused on /fused/detections for 3.1 s (pub')
    assert text.endswith('merged without it; if it is just slow, set a longer stale_timeout')
    assert robot.said == ['fused is silent: the others are merged without it']
    # It comes back with its second message.
    assert len(robot.frame(*ALL)) == 1
    assert len(robot.frame(*ALL)) == 1
    assert robot.fusion.table()['sources'] == 'visible, thermal, fused'
    assert robot.fusion.health() == []
    assert robot.drops('fused') == {'without counterpart': 1}
    robot.check_books()


def test_the_last_source_goes_alone_and_its_stamps_increase() -> None:
    robot = Robot(stale_timeout=1.0)
    for _ in range(15):
        robot.frame('thermal')
    (frame,) = robot.frame('thermal')
    assert frame.header.frame_id == 'thermal_frame'
    assert frame.merged[PERSON].source_scores.tolist() == [[0, pytest.approx(0.6), 0]]
    assert robot.send('thermal', LEFT, at=0) == []
    assert robot.send('thermal', LEFT, at=robot.moment - PERIOD_MS) == []
    assert robot.send('thermal', LEFT, at=robot.moment - 2 * PERIOD_MS) == []
    drops = robot.drops('thermal')
    drops.pop('without counterpart')
    assert drops == {'zero stamp': 1, 'duplicate stamp': 1, 'late': 1}
    robot.check_books()


def test_sources_come_and_go_and_every_message_is_accounted_for() -> None:
    robot = Robot(stale_timeout=0.5)
    generator = np.random.default_rng(7)
    there = [True, True, True]
    stamps = []
    for _ in range(300):
        if generator.random() < 0.05:
            which = generator.integers(3)
            there[which] = not there[which]
        names = [name for name, is_there in zip(ALL, there, strict=True) if is_there]
        names = [name for name in names if generator.random() < 0.9]
        generator.shuffle(names)
        stamps += stamps_of(robot.frame(*names))
        robot.check_books()
    assert len(stamps) > 100
    assert all(np.diff(stamps) > 0)
    robot.fusion.clear('shutdown')
    robot.check_books()
    assert robot.count('waiting') == 0
    assert 'received visible' in robot.fusion.summary()


def test_a_pause_of_all_sends_nobody_alone() -> None:
    robot = Robot(stale_timeout=1.0)
    robot.frame(*ALL)
    robot.now += 100
    robot.moment += 100_000
    assert len(robot.frame(*ALL)) == 1
    # Slower than the timeout, but together.
    for _ in range(10):
        robot.now += 1.5
        robot.moment += 1500
        assert len(robot.frame(*ALL)) == 1
    assert robot.fusion.table()['sources'] == ', '.join(ALL)


def test_bad_messages_are_counted_and_said() -> None:
    robot = Robot()
    robot.frame(*ALL)
    assert robot.send('thermal', (8, 8, 4, 40, 0.6)) == []
    assert robot.drops('thermal') == {'malformed': 1}
    assert robot.send('visible', LEFT, at=0) == []
    assert robot.drops('visible') == {'zero stamp': 1}
    texts = robot.fusion.health()
    assert (
        'detections of thermal are refused: a box of person has the negative size -4 x 32'
        in texts[0]
    )
    assert 'detections of visible are refused: they have no stamp' in texts[1]
    robot.check_books()
    robot.now += 1.9
    robot.frame(*ALL)
    robot.now += 1.9
    robot.frame(*ALL)
    assert robot.fusion.health() == []


def test_a_clock_that_jumps_back_begins_anew() -> None:
    robot = Robot()
    for _ in range(5):
        robot.frame(*ALL)
    robot.send('visible', LEFT)
    robot.moment = 2
    assert len(robot.frame(*ALL)) == 1
    assert robot.drops('visible') == {'clock jump': 1}
    robot.check_books()


@pytest.mark.parametrize('names', [ALL, ['thermal']])
def test_a_short_recording_that_loops_is_united_in_every_round(names: Sequence[str]) -> None:
    robot = Robot(stale_timeout=1.0)
    for _ in range(60):
        robot.frame(*names)
    begin = robot.moment
    for _ in range(4):
        robot.moment = begin
        merged = [robot.frame(*names) for _ in range(9)]
        assert sum(map(len, merged)) >= 8
    robot.check_books()


def test_weight_maps_give_each_camera_its_say() -> None:
    robot = Robot()
    blind = np.full((48, 64), 0.5, np.float32)
    blind[:, :32] = 0.0  # the visible camera says nothing on the left
    robot.weigh('visible', blind)
    robot.weigh('thermal', (255 - blind * 255).astype(np.uint8), 'mono8')
    robot.send('visible', LEFT, RIGHT)
    robot.send('thermal', LEFT, RIGHT)
    (frame,) = robot.send('fused', RIGHT)
    merged = frame.merged[PERSON]
    assert merged.scores == pytest.approx(np.array([1 - 0.5**3, 0.6]), abs=0.01)
    assert merged.source_scores[1] == pytest.approx(np.array([0, 0.6, 0]), abs=0.01)
    assert robot.count('frames without weight maps') == 0
    robot.next()
    # No map of this moment: every say is full.
    robot.send('visible', LEFT)
    robot.send('thermal', LEFT)
    (frame,) = robot.send('fused')
    assert frame.merged[PERSON].scores == pytest.approx(np.array([0.84]))
    assert robot.count('frames without weight maps') == 1


def test_maps_are_bounded_and_bad_ones_refused() -> None:
    robot = Robot(queue_size=3, max_pixels=5000)
    for _ in range(10):
        robot.weigh('visible', np.zeros((48, 64), np.float32))
        robot.next()
    robot.moment = 1000  # long forgotten
    robot.send('visible', LEFT)
    robot.send('thermal')
    (frame,) = robot.send('fused')
    assert frame.merged[PERSON].scores == pytest.approx(np.array([0.6]))
    robot.weigh('visible', np.zeros((480, 640), np.float32))
    robot.weigh('visible', np.zeros((48, 64), np.uint16), 'mono16')
    assert robot.count('weight maps refused') == 2
    assert 'a weight map of visible is refused' in robot.said[-1]


def test_scores_are_calibrated_and_weak_boxes_left_out() -> None:
    robot = Robot(
        sources=['visible', 'thermal'],
        calibration_slopes=[1.0, 0.5],
        calibration_offsets=[0.0, -1.0],
        min_score=0.4,
    )
    robot.send('visible', LEFT)
    (frame,) = robot.send('thermal', RIGHT)
    assert frame.merged[PERSON].scores == pytest.approx(np.array([0.6]))
    robot.fusion.values = {**robot.fusion.values, 'min_score': 0.0}
    robot.next()
    robot.send('visible', LEFT)
    (frame,) = robot.send('thermal', RIGHT)
    assert frame.merged[PERSON].scores == pytest.approx(np.array([0.6, 1 / (1 + np.e)]))


def test_parameters_have_to_fit_together() -> None:
    values = {spec.name: spec.default for spec in PARAMETERS}
    check_together({**values, 'sources': ['visible', 'thermal']})
    with pytest.raises(ParameterError, match='calibration_slopes has 2 numbers for 3 sources'):
        check_together({**values, 'calibration_slopes': [1.0, 0.5]})


@pytest.mark.parametrize(
    ('name', 'value', 'reason'),
    [
        ('sources', ['visible'], 'two names or more'),
        ('sources', ['visible', 'visible'], 'only once'),
        ('sources', ['visible', 'thermal/x'], 'not a valid topic name'),
        ('calibration_slopes', [1.0, 0.0], 'above 0'),
        ('calibration_offsets', [float('nan')], 'finite'),
        ('message_type', 'std_msgs/msg/String', 'must be one of: auto, vision_msgs'),
    ],
)
def test_bad_values_are_refused(name: str, value: Any, reason: str) -> None:
    (spec,) = (spec for spec in PARAMETERS if spec.name == name)
    assert reason in (spec.problem(value) or '')
