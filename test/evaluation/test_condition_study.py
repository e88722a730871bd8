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

from collections.abc import Sequence
import json
from pathlib import Path

import cv2
from detections.test_boxes import boxes_of
import numpy as np
import pytest

from dig2dig_ros.detections.boxes import Detections
from dig2dig_ros.evaluation.condition_study import ConditionStudy
from dig2dig_ros.evaluation.conditions import parse_conditions
from dig2dig_ros.evaluation.detection_rows import DetectionRows
from dig2dig_ros.evaluation.labels import ImageLabels, LabelSet
from dig2dig_ros.evaluation.methods import baseline_method, FusionMethod
from dig2dig_ros.evaluation.study import as_json
from dig2dig_ros.images.placement import Placement
from dig2dig_ros.images.registration import Registration
from dig2dig_ros.streams.preparation import registered_image

NIGHT, WARM = [8.0, 10.0, 20.0, 40.0], [40.0, 10.0, 52.0, 40.0]


class BrightAreas:
    """Stands in for the network: what is bright is a person."""

    def __init__(self) -> None:
        self.seen = 0

    def detect(self, image: np.ndarray) -> Detections:
        self.seen += 1
        grey = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
        bright = (grey >= 100).astype(np.uint8)
        _, _, areas, _ = cv2.connectedComponentsWithStats(bright)
        x, y, width, height = areas[1:, :4].T.astype(np.float64)
        boxes = np.stack([x, y, x + width, y + height], axis=1)
        return Detections(boxes, np.full(len(boxes), 0.6))


def scene() -> tuple[np.ndarray, np.ndarray]:
    """Return a pair in which each camera shows a person of its own."""
    visible = np.full((48, 64, 3), (40, 50, 60), np.uint8)
    thermal = np.full((48, 64), 30, np.uint8)
    visible[10:40, 8:20] = (250, 240, 250)
    thermal[10:40, 40:52] = 240
    return visible, thermal


def brighter(images: Sequence[np.ndarray], placements: Sequence[Placement | None]) -> np.ndarray:
    visible, thermal = images
    return np.maximum(visible, thermal[..., None])


def study_of(
    conditions: str, images: int = 6, labelled: bool = True
) -> tuple[ConditionStudy, BrightAreas]:
    names = [f'image{index}' for index in range(images)]
    truth = ImageLabels(boxes_of([NIGHT, WARM]), boxes_of([]))
    labels = LabelSet(Path('labels.json'), dict.fromkeys(names, truth)) if labelled else None
    detector = BrightAreas()
    rows = DetectionRows(detector, {'mean': baseline_method('mean'), 'fused': brighter})
    study = ConditionStudy(parse_conditions(conditions), rows, labels, resamples=50)
    for name in names:
        assert study.take([name], *scene())
    return study, detector


def column(table, title: str) -> dict[str, str]:
    index = table.header.index(title)
    return {row[0]: row[index] for row in table.rows}


HALF = f'{100 * 51 / 101:.1f}'


def test_rows_are_measured_under_every_condition():
    study, _ = study_of('clean,black_visible,dead_thermal:mild')
    assert (study.images, study.persons) == (6, 12)
    table, over = study.tables()
    rows = ('visible', 'thermal', 'mean', 'fused', 'late_nms', 'late_noisy_or')
    assert table.header == ('condition', *rows)
    assert [row[0] for row in table.rows] == [
        *('clean', 'black_visible:medium', 'dead_thermal:mild', 'mean')
    ]
    assert column(table, 'visible')['clean'] == HALF
    assert column(table, 'visible')['black_visible:medium'] == '0.0'
    assert column(table, 'thermal')['black_visible:medium'] == HALF
    for row in ('fused', 'late_nms', 'late_noisy_or'):
        assert column(table, row)['clean'] == '100.0'
        assert column(table, row)['black_visible:medium'] == HALF
    assert 'labels' in table.notes[0]
    assert 'black_visible:medium: the visible image is black' in table.notes[1]
    assert column(over, 'worst')['visible'] == '0.0'
    assert column(over, 'worst under')['visible'] == 'black_visible:medium'
    assert float(column(over, 'to the better camera')['thermal']) < 0
    assert column(over, 'fused - row')['fused'] == ''
    low, high = map(float, column(over, '95 % interval')['visible'].split(' to '))
    assert 0 < low <= float(column(over, 'fused - row')['visible']) <= high


def test_cameras_that_a_condition_leaves_alone_are_looked_at_once():
    _, detector = study_of('clean,visible_noise,dark,thermal_noise,both_noise', images=1)
    # Of each condition two fusions; of the cameras clean ones, and of noise, dark and noise.
    assert detector.seen == 5 * 2 + 2 + 2 + 1


def test_without_labels_both_cameras_as_they_are_tell_the_truth():
    study, _ = study_of('clean,black_visible', images=2, labelled=False)
    table, over = study.tables()
    assert study.persons == 4
    assert column(table, 'late_noisy_or')['clean'] == '100.0'
    assert column(table, 'fused')['black_visible:medium'] == HALF
    assert 'no labels' in table.notes[0]
    assert column(over, '95 % interval')['visible'] == ''
    assert any('needs at least' in note for note in over.notes)


def test_images_without_labels_are_left_out():
    study, _ = study_of('clean', images=1)
    assert not study.take(['stranger'], *scene())
    assert study.images == 1
    empty, _ = study_of('clean', images=0)
    assert empty.tables() == []
    assert empty.summary()['persons'] == 0


def test_a_pair_counts_under_all_conditions_or_not_at_all():
    study, _ = study_of('clean,dark,fog', images=1)
    asked = iter([False, False, True])
    assert not study.take(['image0'], *scene(), lambda: next(asked))
    assert study.images == 1
    assert column(study.tables()[0], 'visible')['clean'] == HALF


def test_the_summary_is_json_and_repeats():
    study, _ = study_of('clean,glare:severe')
    summary = as_json(study.summary())
    assert json.loads(json.dumps(summary)) == as_json(study_of('clean,glare:severe')[0].summary())
    assert summary['ap50']['clean']['visible'] == pytest.approx(51 / 101)
    assert summary['truth'] == 'labels'
    assert set(summary['rows']['fused']) >= {'mean', 'worst', 'to_better_camera', 'fused_minus'}
    difference, interval = summary['fused_minus']['clean']['visible']
    assert difference == pytest.approx(50 / 101)
    assert interval[0] <= difference <= interval[1]


def test_boxes_of_restored_cameras_and_the_fused_image_are_rows():
    from dig2dig_ros.fusion.fuser import Fuser

    fused = FusionMethod(Fuser(prior='nano', device='cpu'))
    rows = DetectionRows(BrightAreas(), {'fused': fused})
    assert rows.names[-2:] == ('boxes', 'boxes_unweighted')
    found = rows.detect(*scene(), {})
    assert tuple(found) == rows.names
    for name in ('boxes', 'boxes_unweighted', 'late_noisy_or'):
        assert {tuple(box) for box in found[name].boxes.round()} >= {tuple(NIGHT), tuple(WARM)}


def test_a_small_thermal_image_is_degraded_and_fused_in_its_own_pixels():
    from dig2dig_ros.fusion.fuser import Fuser

    visible, thermal = scene()
    small = cv2.resize(thermal[:, 16:], (24, 24), interpolation=cv2.INTER_AREA)
    scaled = np.array([[2.0, 0, 16.5], [0, 2, 0.5], [0, 0, 1]])
    placement = Registration(scaled, (24, 24), (64, 48)).placement()
    pictures = []

    class Watching(BrightAreas):
        def detect(self, image: np.ndarray) -> Detections:
            pictures.append(image)
            return super().detect(image)

    fuser = Fuser(prior='nano', device='cpu')
    rows = DetectionRows(
        Watching(), {'fused': FusionMethod(fuser), 'mean': baseline_method('mean')}
    )
    truth = ImageLabels(boxes_of([NIGHT, WARM]), boxes_of([]))
    labels = LabelSet(Path('labels.json'), {'image': truth})
    study = ConditionStudy(parse_conditions('clean,shift:mild'), rows, labels)
    assert study.take(['image'], visible, small, placement=placement)
    assert column(study.tables()[0], 'thermal')['clean'] == HALF
    # Two of its own pixels are four of the visible image.
    shifted = np.hstack([small[:, :1], small[:, :1], small[:, :-2]])
    for image in (small, shifted):
        fused = fuser.fuse(visible, image, placements=(None, placement)).image
        assert any(np.array_equal(fused, picture) for picture in pictures)
        registered = registered_image(image, placement, (64, 48))
        assert any(np.array_equal(registered, picture) for picture in pictures)


def test_all_rows_are_compared_with_the_boxes():
    from dig2dig_ros.fusion.fuser import Fuser

    fused = FusionMethod(Fuser(prior='nano', device='cpu'))
    rows = DetectionRows(BrightAreas(), {'fused': fused})
    names = [f'image{index}' for index in range(6)]
    truth = ImageLabels(boxes_of([NIGHT, WARM]), boxes_of([]))
    labels = LabelSet(Path('labels.json'), dict.fromkeys(names, truth))
    study = ConditionStudy(parse_conditions('clean,dark'), rows, labels, resamples=50)
    for name in names:
        assert study.take([name], *scene())
    _, over = study.tables()
    mean = {name: float(value) for name, value in column(over, 'mean').items()}
    difference = column(over, 'boxes - row')
    assert difference['boxes'] == ''
    assert float(difference['visible']) == pytest.approx(mean['boxes'] - mean['visible'], abs=0.11)
    assert float(difference['visible']) > 10
    own = study.summary()['rows']['visible']
    low, high = own['boxes_minus_interval']
    assert low <= own['boxes_minus'] <= high
