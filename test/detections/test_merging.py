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


"""Merging boxes: by suppression, and as probabilities with a say for each source."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from detections.test_boxes import boxes_of
import numpy as np
import pytest

from dig2dig_ros.detections.boxes import Detections
from dig2dig_ros.detections.merging import (
    late_nms,
    LogisticCalibration,
    MAX_OF_SOURCE,
    noisy_or,
    Say,
    say_of_boxes,
)

PERSON = (10.0, 10.0, 20.0, 40.0)
SHIFTED = (11.0, 10.0, 21.0, 40.0)  # IoU .82
OTHER = (50.0, 10.0, 60.0, 40.0)
NOTHING = Detections(boxes_of([]), np.zeros(0))


def says(value: float) -> Say:
    """Return a say that is the same everywhere."""
    return lambda boxes: np.full(len(boxes), value)


def found(*boxes: tuple[Sequence[float], float]) -> Detections:
    return Detections(boxes_of([box for box, _ in boxes]), np.array([score for _, score in boxes]))


def test_nms_of_the_union_keeps_the_better_box_as_it_was() -> None:
    merged = late_nms([found((PERSON, 0.6), (OTHER, 0.2)), found((SHIFTED, 0.8))])
    assert merged.boxes.tolist() == [list(SHIFTED), list(OTHER)]
    assert merged.scores.tolist() == [0.8, 0.2]
    assert merged.source_scores.tolist() == [[0, 0.8], [0.2, 0]]


def test_sources_that_agree_confirm_each_other() -> None:
    merged = noisy_or([found((PERSON, 0.6), (OTHER, 0.7)), found((SHIFTED, 0.5))])
    assert merged.scores == pytest.approx(np.array([0.8, 0.7]))
    assert merged.source_scores.tolist() == [[0.6, 0.5], [0.7, 0]]
    # The box is averaged by score: it has moved by 5 parts of 11 of the pixel between both.
    assert merged.boxes[0] == pytest.approx(np.add(PERSON, [5 / 11, 0, 5 / 11, 0]))


def test_a_single_source_is_left_as_it_is() -> None:
    only = found((PERSON, 0.9), (OTHER, 0.3))
    merged = noisy_or([NOTHING, only, NOTHING])
    assert merged.boxes == pytest.approx(only.boxes)
    assert merged.scores == pytest.approx(only.scores)
    assert merged.source_scores.shape == (2, 3)


def test_of_a_source_its_best_box_counts_once() -> None:
    merged = noisy_or([found((PERSON, 0.6), (SHIFTED, 0.6)), found((PERSON, 0.5))])
    assert merged.scores == pytest.approx(np.array([0.8]))


def test_a_source_without_a_say_neither_confirms_nor_denies() -> None:
    thermal = found((PERSON, 0.6))
    noisy = found((SHIFTED, 0.9), (OTHER, 0.9))
    merged = noisy_or([thermal, noisy], [says(1.0), says(0.0)])
    assert merged.boxes == pytest.approx(thermal.boxes)
    assert merged.scores == pytest.approx(thermal.scores)
    assert merged.source_scores.tolist() == [[0.6, 0]]


def test_half_a_say_is_half_the_evidence() -> None:
    merged = noisy_or([found((PERSON, 0.6)), found((PERSON, 0.8))], [None, says(0.5)])
    assert merged.scores == pytest.approx(np.array([1 - 0.4 * 0.6]))
    assert merged.source_scores == pytest.approx(np.array([[0.6, 0.4]]))


def test_a_source_that_has_a_say_and_finds_nothing_denies() -> None:
    thermal = found((PERSON, 0.6), (OTHER, 0.5))
    for say, left in ((1.0, 0.8), (0.5, 0.9), (0.0, 1.0)):
        merged = noisy_or([thermal, NOTHING], [says(1.0), says(say)], denial=0.2)
        assert merged.scores == pytest.approx(thermal.scores * left)
        assert merged.source_scores[:, 0] == pytest.approx(merged.scores)
    # One whose say is not known denies nothing.
    merged = noisy_or([thermal, NOTHING], [says(1.0), None], denial=0.2)
    assert merged.scores == pytest.approx(thermal.scores)
    # Each box by itself.
    visible = found((SHIFTED, 0.5))
    merged = noisy_or([thermal, visible], [says(1.0), says(1.0)], denial=0.2)
    assert merged.scores == pytest.approx(np.array([0.8, 0.4]))
    assert (merged.source_scores <= merged.scores[:, None] + 1e-12).all()


def test_a_say_may_differ_from_box_to_box() -> None:
    weights = np.zeros((48, 64), np.float32)
    weights[:, :32] = 0.5
    say = partial(say_of_boxes, weights, share=0.5)
    merged = noisy_or([found((PERSON, 0.6), (OTHER, 0.6)), NOTHING], [None, say], denial=0.5)
    assert merged.boxes[0] == pytest.approx(np.array(OTHER))
    assert merged.scores == pytest.approx(np.array([0.6, 0.3]))


def test_weak_boxes_that_agree_may_outdo_a_strong_one() -> None:
    weak = found((PERSON, 0.6))
    merged = noisy_or([weak, weak, found((OTHER, 0.9))])
    assert merged.scores == pytest.approx(np.array([0.9, 0.84]))
    merged = noisy_or([weak, weak, weak, found((OTHER, 0.9))])
    assert merged.scores == pytest.approx(np.array([0.936, 0.9]))


def test_calibration_moves_scores_and_keeps_their_order() -> None:
    calm = LogisticCalibration(slope=0.5, offset=-1.0)
    scores = np.array([0.0, 0.1, 0.5, 0.9, 1.0])
    assert np.all(np.diff(calm(scores)) > 0)
    assert calm(scores)[0] == 0
    assert LogisticCalibration()(scores) == pytest.approx(scores)
    merged = noisy_or([found((PERSON, 0.5))], calibrations=[calm])
    assert merged.scores == pytest.approx(1 / (1 + np.exp(1.0)))
    assert merged.source_scores == pytest.approx(merged.scores[:, None])
    with pytest.raises(ValueError, match='slope -1'):
        LogisticCalibration(slope=-1)


def test_input_is_bounded_and_output_limited() -> None:
    grid = np.stack(np.meshgrid(np.arange(40), np.arange(40)), axis=-1).reshape(-1, 2) * 20.0
    boxes = np.concatenate([grid, grid + 10], axis=1)
    crowd = Detections(boxes, np.linspace(0.9, 0.1, len(boxes)))
    assert len(noisy_or([crowd, crowd], limit=1000).scores) == MAX_OF_SOURCE
    assert len(noisy_or([crowd, crowd]).scores) == 100
    assert len(late_nms([crowd, crowd], limit=7).scores) == 7


def test_nothing_found_is_nothing_united() -> None:
    for merged in (noisy_or([NOTHING, NOTHING]), late_nms([NOTHING, NOTHING])):
        assert merged.boxes.shape == (0, 4)
        assert merged.scores.shape == (0,)
        assert merged.source_scores.shape == (0, 2)


def test_what_does_not_fit_together_is_refused() -> None:
    with pytest.raises(ValueError, match='no source'):
        noisy_or([])
    with pytest.raises(ValueError, match='1 says for 2 sources'):
        noisy_or([NOTHING, NOTHING], [None])
    with pytest.raises(ValueError, match='2 calibrations for 1 sources'):
        noisy_or([NOTHING], calibrations=[None, None])


def test_say_is_the_mean_weight_as_part_of_a_quarter_of_an_equal_share() -> None:
    weights = np.zeros((48, 64), np.float32)
    # A quarter of the equal share is a full say.
    weights[:, 32:] = 0.0625
    weights[:, 48:] = 0.125
    boxes = boxes_of(
        [
            *([0, 0, 20, 20], [32, 0, 48, 20], [24, 0, 40, 48], [50, 10, 60, 40]),
            *([-50, -50, -20, -20], [60, 40, 100, 100], [50.2, 10.2, 50.4, 10.4]),
        ]
    )
    says = say_of_boxes(weights, boxes, share=0.5)
    assert says == pytest.approx(np.array([0, 0.5, 0.25, 1, 0, 1, 1]))
    assert say_of_boxes(weights, boxes_of([]), share=0.5).shape == (0,)
