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

"""The sentence that a report begins with."""

from pathlib import Path

import numpy as np

from dig2dig_ros.detections.boxes import Array, Detections
from dig2dig_ros.evaluation.detection_study import DetectionStudy
from dig2dig_ros.evaluation.labels import ImageLabels, LabelSet
from dig2dig_ros.evaluation.verdict import verdict

IMAGE = np.full((120, 160), 90, np.uint8)
PERSON, OTHER = [0.0, 0.0, 20.0, 50.0], [100.0, 0.0, 120.0, 50.0]


def boxes(*corners: list[float]) -> Array:
    return np.array(corners, np.float64).reshape(-1, 4)


def found(*corners: list[float]) -> Detections:
    return Detections(boxes(*corners), np.full(len(corners), 0.9))


def study(images: int, labelled: bool, **detections: Detections) -> DetectionStudy:
    truth = ImageLabels(boxes(PERSON, OTHER), boxes())
    labels = LabelSet(Path('labels.json'), {str(number): truth for number in range(images)})
    result = DetectionStudy(list(detections), labels if labelled else None, resamples=20)
    for number in range(images):
        result.add([str(number)], IMAGE, detections)
    return result


def test_without_a_detector_it_is_what_the_fused_image_keeps() -> None:
    kept = {
        'fused': {'visible': 0.594, 'thermal': 0.487},
        'mean': {'visible': 0.371, 'thermal': 0.36},
    }
    assert verdict(1200, kept, not_fused='50 visible unpaired') == (
        'The fused image keeps 59 % of the visible edges and 49 % of the thermal edges (the mean '
        'image keeps 37 % and 36 %); 1,200 pairs were fused (left out: 50 visible unpaired); '
        'nothing looked wrong.'
    )


def test_with_labels_it_is_where_the_detector_did_best() -> None:
    detection = study(6, True, visible=found(PERSON), thermal=found(), fused=found(PERSON, OTHER))
    assert verdict(6, {'fused': {'visible': 0.5}}, detection, warnings=2) == (
        'The detector did best on the fused image (AP50 of persons: 100.0 against visible 50.5, '
        'thermal 0.0); 6 pairs were fused; 2 warnings need a look.'
    )
    few = study(1, True, visible=found(PERSON), fused=found(PERSON, OTHER))
    assert ', on a single labelled image; 1 pair was fused' in verdict(1, {}, few)


def test_images_that_are_equally_good_share_the_first_place() -> None:
    detection = study(6, True, visible=found(), thermal=found(PERSON), fused=found(PERSON))
    assert 'best on the thermal image and the fused image (' in verdict(6, {}, detection)
    same = study(6, True, visible=found(PERSON), fused=found(PERSON))
    assert verdict(6, {}, same).startswith(
        'The detector did as well on all images (AP50 of persons: 50.5); '
    )


def test_without_labels_more_persons_are_no_verdict() -> None:
    detection = study(2, False, visible=found(PERSON), fused=found(PERSON, OTHER))
    text = verdict(2, {'fused': {'visible': 0.5}}, detection, warnings=1)
    assert text == (
        'The detector found most persons in the fused image (persons per image: 2.00 against '
        'visible 1.00), but without labels it is unknown how many of them are real; 2 pairs were '
        'fused; 1 warning needs a look.'
    )


def test_nothing_but_pairs() -> None:
    assert verdict(3, {}) == '3 pairs were fused; nothing looked wrong.'
