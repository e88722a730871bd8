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

"""Average precision of detections, and its bootstrap."""

from __future__ import annotations

from collections.abc import Sequence
import math

from detections.test_boxes import boxes_of
import numpy as np
import pytest

from dig2dig_ros.detections.boxes import Detections
from dig2dig_ros.evaluation.average_precision import (
    DetectionAccuracy,
    draw_images,
    interval,
    IOU_THRESHOLDS,
    match,
)
from dig2dig_ros.evaluation.labels import ImageLabels

A, B, C = [10.0, 10.0, 20.0, 40.0], [50.0, 10.0, 70.0, 60.0], [80.0, 0.0, 90.0, 30.0]
NOWHERE = [200.0, 200.0, 210.0, 230.0]
Found = Sequence[tuple[float, list[float]]]


def evaluation(
    *images: tuple[Found, Sequence[list[float]]], ignore: Sequence[list[float]] = ()
) -> DetectionAccuracy:
    """Evaluate images of (score, box) and persons."""
    return DetectionAccuracy(
        [
            match(
                Detections(boxes_of([box for _, box in found]), np.array([s for s, _ in found])),
                ImageLabels(boxes_of(persons), boxes_of(ignore)),
            )
            for found, persons in images
        ]
    )


def test_all_found_and_nothing_else_is_perfect() -> None:
    result = evaluation(([(0.9, A), (0.3, B)], [B, A]), ([(0.5, C)], [C]), ([], []))
    assert result.average_precision() == 1.0
    assert result.mean_average_precision() == 1.0
    assert result.miss_rate(0.0) == 0.0
    assert result.false_positives_per_image(0.0) == 0.0
    assert (result.persons, result.images) == (3, 3)


@pytest.mark.parametrize('found', [[], [(0.9, NOWHERE)]])
def test_all_missed_is_zero(found: Found) -> None:
    result = evaluation((found, [A, B]))
    assert result.average_precision() == 0.0
    assert result.mean_average_precision() == 0.0
    assert result.miss_rate(0.0) == 1.0
    assert result.false_positives_per_image(0.5) == len(found)


def test_without_persons_it_is_not_defined() -> None:
    result = evaluation(([(0.9, A)], []))
    assert math.isnan(result.average_precision())
    assert math.isnan(result.mean_average_precision())
    assert math.isnan(result.miss_rate(0.5))
    assert result.false_positives_per_image(0.5) == 1.0


def test_half_found_reaches_the_lower_51_of_101_recall_levels() -> None:
    assert evaluation(([(0.9, A)], [A, B])).average_precision() == pytest.approx(51 / 101)


def test_a_second_detection_of_one_person_is_wrong() -> None:
    # Precision 1, 1/2, 2/3 at recall 1/2, 1/2, 1.
    result = evaluation(([(0.9, A), (0.8, A), (0.7, B)], [A, B]))
    assert result.average_precision() == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert result.false_positives_per_image(0.8) == 1.0


def test_scores_order_detections_across_images() -> None:
    first_right = evaluation(([(0.9, A)], [A]), ([(0.8, NOWHERE)], []))
    assert first_right.average_precision() == 1.0
    first_wrong = evaluation(([(0.8, A)], [A]), ([(0.9, NOWHERE)], []))
    assert first_wrong.average_precision() == pytest.approx(0.5)
    # In whatever order they are given.
    mixed = evaluation(([(0.2, NOWHERE), (0.9, A)], [A]))
    assert mixed.average_precision() == 1.0


def test_precision_is_that_of_any_higher_recall() -> None:
    # Precision 0, 1/2, 2/3: interpolated, 2/3 at every recall.
    result = evaluation(([(0.9, NOWHERE), (0.8, A), (0.7, B)], [A, B]))
    assert result.average_precision() == pytest.approx(2 / 3)


def test_thresholds_are_on_the_overlap() -> None:
    # 72 of 100 rows: right up to an IoU of 0.70.
    result = evaluation(([(0.9, [0, 0, 10, 72])], [[0, 0, 10, 100]]))
    values = [result.average_precision(threshold) for threshold in IOU_THRESHOLDS]
    assert values == [1.0] * 5 + [0.0] * 5
    assert result.mean_average_precision() == pytest.approx(0.5)
    assert evaluation(([(0.9, [0, 0, 10, 50])], [[0, 0, 10, 100]])).average_precision() == 1.0


def test_a_detection_takes_the_person_it_overlaps_most() -> None:
    near, person, other = [0, 0, 10, 95], [0, 0, 10, 100], [0, 0, 10, 60]
    result = evaluation(([(0.9, near), (0.8, other)], [other, person]))
    assert result.average_precision() == 1.0


def test_of_persons_that_it_overlaps_alike_a_detection_takes_the_last() -> None:
    left, middle, right = [8.0, 0, 18, 10], [10.0, 0, 20, 10], [12.0, 0, 22, 10]
    found = Detections(boxes_of([middle]), np.array([0.9]))
    result = match(found, ImageLabels(boxes_of([left, right, NOWHERE]), boxes_of([])))
    assert result.found_with.tolist() == [-1.0, 0.9, -1.0]


def test_ignored_regions_swallow_any_number_of_detections() -> None:
    region = [100.0, 100.0, 200.0, 200.0]
    inside = [(0.9, [110.0, 110.0, 120.0, 130.0]), (0.8, [150.0, 110.0, 160.0, 130.0])]
    half_outside = [(0.7, [85.0, 110.0, 105.0, 130.0])]
    result = evaluation(([*inside, (0.6, A)], [A]), ignore=[region])
    assert result.average_precision() == 1.0
    assert result.false_positives_per_image(0.5) == 0.0
    result = evaluation(([*half_outside, (0.6, A)], [A]), ignore=[region])
    assert result.average_precision() == pytest.approx(0.5)


def test_persons_in_an_ignored_region_still_count() -> None:
    result = evaluation(([(0.9, A)], [A, B]), ignore=[[0.0, 0.0, 100.0, 100.0]])
    assert result.persons == 2
    assert result.miss_rate(0.5) == 0.5
    assert result.average_precision() == pytest.approx(51 / 101)


def test_only_the_best_100_detections_of_an_image_count() -> None:
    wrong = [(0.9 - 0.001 * i, NOWHERE) for i in range(100)]
    assert evaluation(([*wrong[:99], (0.1, A)], [A])).average_precision() == pytest.approx(0.01)
    assert evaluation(([*wrong, (0.1, A)], [A])).average_precision() == 0.0


def test_miss_rate_counts_detections_of_the_stated_score() -> None:
    result = evaluation(([(0.9, A), (0.5, B), (0.4, C), (0.3, NOWHERE)], [A, B, C]), ([], [A]))
    assert result.miss_rate(0.5) == 0.5
    assert result.miss_rate(0.4) == 0.25
    assert result.false_positives_per_image(0.3) == 0.5
    assert result.false_positives_per_image(0.4) == 0.0


def test_a_match_says_with_which_score_each_person_was_found() -> None:
    found = Detections(boxes_of([C, A, A]), np.array([0.9, 0.6, 0.5]))
    result = match(found, ImageLabels(boxes_of([A, B, C]), boxes_of([])))
    assert result.found_with.tolist() == [0.6, -1.0, 0.9]
    assert result.persons == 3


# --- Bootstrap ----------------------------------------------------------------------------------


def random_images(seed: int) -> list[tuple[Found, list[list[float]]]]:
    rng = np.random.default_rng(seed)
    images = []
    for _ in range(6):
        persons = [[x, 0.0, x + 10.0, 30.0] for x in rng.permutation(8)[:3] * 20.0]
        found = [(float(rng.random()), person) for person in persons[:2]]
        found += [(float(rng.random()), [x + 200.0, 0.0, x + 210.0, 30.0]) for x in range(2)]
        images.append((found, persons))
    return images


def test_an_image_drawn_twice_counts_as_two() -> None:
    images = random_images(0)
    counts = np.array([2, 0, 1, 3, 0, 1])
    copies = [image for image, n in zip(images, counts, strict=True) for _ in range(n)]
    expected = evaluation(*copies)
    for threshold in (0.5, 0.75):
        value = evaluation(*images).average_precision(threshold, counts)
        assert value == pytest.approx(expected.average_precision(threshold), abs=1e-12)
    assert 0 < value < 1


def test_draws_are_seeded_and_keep_the_number_of_images() -> None:
    draws = draw_images(6, 50, seed=3)
    assert draws.shape == (50, 6)
    assert (draws.sum(axis=1) == 6).all()
    assert np.array_equal(draws, draw_images(6, 50, seed=3))
    assert not np.array_equal(draws, draw_images(6, 50, seed=4))


def test_bootstrap_spreads_around_the_value() -> None:
    result = evaluation(*random_images(0))
    values = result.bootstrap(draw_images(6, 200))
    low, high = interval(values) or (1.0, 0.0)
    assert low < result.average_precision() < high
    assert np.mean((values >= low) & (values <= high)) >= 0.95


def test_same_draws_make_a_difference_paired() -> None:
    draws = draw_images(6, 50)
    first, same = (evaluation(*random_images(0)).bootstrap(draws) for _ in range(2))
    assert interval(first - same) == (0.0, 0.0)


def test_draws_without_a_person_are_left_out() -> None:
    result = evaluation(([(0.9, A)], [A]), ([], []))
    values = result.bootstrap(np.array([[1, 1], [0, 2], [2, 0]]))
    assert np.isnan(values).tolist() == [False, True, False]
    assert interval(values) == (1.0, 1.0)
    assert interval(np.array([math.nan])) is None
