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
from dig2dig_ros.evaluation.detection_study import (
    DetectionStudy,
    height_class,
    NIGHT_LUMA,
    pair_up,
    sky_luma,
)
from dig2dig_ros.evaluation.labels import ImageLabels, LabelError, LabelSet
from dig2dig_ros.evaluation.study import as_json
from dig2dig_ros.evaluation.tables import Table

WIDTH, HEIGHT = 640, 480
BRIGHT, DARK = (np.full((HEIGHT, WIDTH), level, np.uint8) for level in (200, 30))

# Persons of 100, 50 and 20 rows, and one more.
NEAR, MEDIUM, FAR = [0, 0, 50, 100], [100, 0, 125, 50], [200, 0, 210, 20]
OTHER = [300, 0, 350, 100]
Boxes = Sequence[Sequence[float]]


def found(*boxes: Sequence[float], scores: Sequence[float] | None = None) -> Detections:
    return Detections(boxes_of(boxes), np.array(scores or [0.9] * len(boxes)))


def label_set(**images: Boxes) -> LabelSet:
    return LabelSet(
        Path('labels.json'),
        {name: ImageLabels(boxes_of(boxes), boxes_of([])) for name, boxes in images.items()},
    )


def column(table: Table, title: str) -> dict[str, str]:
    index = table.header.index(title)
    return {row[0]: row[index] for row in table.rows}


# --- With labels --------------------------------------------------------------------------------


def labelled_study(images: int = 6) -> DetectionStudy:
    """Return a study of images in which visible shows one and mean both of two persons."""
    names = [f'image{index}' for index in range(images)]
    labels = label_set(**{name: [NEAR, MEDIUM] for name in names})
    study = DetectionStudy(['visible', 'mean', 'fused'], labels, resamples=100)
    for name in names:
        detections = {
            'visible': found(NEAR, OTHER, scores=[0.9, 0.3]),
            'mean': found(NEAR, MEDIUM),
            'fused': found(MEDIUM, NEAR, scores=[0.8, 0.1]),
        }
        counts = study.add([name], BRIGHT, detections)
        assert counts == {'visible': 2, 'mean': 2, 'fused': 1}
    return study


def test_inputs_are_measured_against_labels() -> None:
    study = labelled_study()
    assert (study.frames, study.labelled, study.persons) == (6, 6, 12)
    table, _ = study.tables()
    half = f'{100 * 51 / 101:.1f}'
    assert column(table, 'AP50') == {'visible': half, 'mean': '100.0', 'fused': '100.0'}
    assert column(table, 'miss rate at 0.25') == {
        'visible': '50.0',
        'mean': '0.0',
        'fused': '50.0',
    }
    assert column(table, 'FPPI') == {'visible': '1.00', 'mean': '0.00', 'fused': '0.00'}
    assert column(table, 'AP50 - mean') == {'visible': '-49.5', 'mean': '', 'fused': '+0.0'}
    assert set(column(table, 'boxes').values()) == {'12'}
    assert table.notes[0].startswith(
        'These images do not separate the AP50 of fused from that of mean'
    )
    assert any('100 resamples' in note and 'the same drive' in note for note in table.notes)


def test_a_sentence_says_which_of_fused_and_mean_is_ahead() -> None:
    for fused, mean, word in (([NEAR], [], 'above'), ([], [NEAR], 'below')):
        names = [f'image{index}' for index in range(6)]
        study = DetectionStudy(['mean', 'fused'], label_set(**{name: [NEAR] for name in names}))
        for name in names:
            study.add([name], BRIGHT, {'mean': found(*mean), 'fused': found(*fused)})
        table, _ = study.tables()
        assert table.notes[0].startswith(f'The AP50 of fused is {word} that of mean: ')


def test_the_contrast_of_persons_is_measured_where_there_are_images() -> None:
    study = DetectionStudy(['visible', 'thermal'], label_set(one=[MEDIUM], two=[MEDIUM]))
    warm = np.full((HEIGHT, WIDTH), 100, np.uint8)
    warm[0:50, 100:125] = 180
    detections = {'visible': found(), 'thermal': found(MEDIUM)}
    study.add(['one'], BRIGHT, detections, {'visible': BRIGHT, 'thermal': warm})
    study.add(['two'], BRIGHT, detections, {'visible': BRIGHT, 'thermal': DARK})
    table = study.tables()[0]
    assert column(table, 'person contrast') == {'visible': '+0', 'thermal': '+40'}
    assert any('grey levels' in note for note in table.notes)
    assert study.summary()['inputs']['thermal']['person_contrast'] == 40.0
    assert 'person contrast' not in labelled_study().tables()[0].header


def test_the_best_of_cameras_mean_and_fusion_comes_first() -> None:
    title, values = labelled_study().ranking()
    assert title == 'AP50 of persons'
    half = f'{100 * 51 / 101:.1f}'
    assert list(values.items()) == [('mean', '100.0'), ('fused', '100.0'), ('visible', half)]
    study = DetectionStudy(['visible', 'thermal', 'mean', 'fused'])
    for _ in range(2):
        persons = {name: found(NEAR) for name in study.inputs}
        study.add(['image'], BRIGHT, {**persons, 'fused': found(NEAR, MEDIUM)})
    title, values = study.ranking()
    assert title == 'persons per image'
    expected = {'fused': '2.00', 'visible': '1.00', 'thermal': '1.00', 'mean': '1.00'}
    assert list(values.items()) == list(expected.items())


def test_few_images_have_no_interval() -> None:
    study = labelled_study(5)
    table, _ = study.tables()
    assert all(row[2] == '' and row[7] == '' for row in table.rows)
    assert column(table, 'AP50 - mean')['visible'] == '-49.5'
    assert not any('do not tell' in note for note in table.notes)
    assert 'An interval needs at least 6 images.' in table.notes
    assert study.summary()['inputs']['visible']['ap50_interval'] is None


def test_intervals_repeat_and_take_images_that_come_later() -> None:
    rng = np.random.default_rng(0)
    labels = label_set(**{str(index): [NEAR, MEDIUM] for index in range(20)})
    shown = [[box for box in (NEAR, MEDIUM) if rng.random() < 0.5] for _ in range(20)]

    def study_of(images: int) -> DetectionStudy:
        study = DetectionStudy(['visible', 'mean'], labels, resamples=200)
        for index in range(images):
            add(study, index)
        return study

    def add(study: DetectionStudy, index: int) -> None:
        detections = {'visible': found(*shown[index]), 'mean': found(NEAR, MEDIUM)}
        study.add([str(index)], BRIGHT, detections)

    study = study_of(10)
    first = study.tables()
    assert study.tables() == study_of(10).tables() == first
    for index in range(10, 20):
        add(study, index)
    later = study.tables()[0]
    assert column(later, 'images')['visible'] == '20'
    low, high = map(float, later.rows[0][2].split(' to '))
    assert low < float(column(later, 'AP50')['visible']) < high


def test_misses_are_told_by_size() -> None:
    labels = label_set(one=[NEAR, MEDIUM, MEDIUM, FAR], two=[NEAR])
    study = DetectionStudy(['visible', 'thermal'], labels)
    study.add(
        ['one'],
        BRIGHT,
        {'visible': found(NEAR, MEDIUM), 'thermal': found(FAR, NEAR, scores=[0.9, 0.2])},
    )
    study.add(['two'], BRIGHT, {'visible': found(), 'thermal': found(NEAR)})
    groups = study.tables()[1]
    assert column(groups, 'missed near (2)') == {'visible': '50.0', 'thermal': '50.0'}
    assert column(groups, 'missed medium (2)') == {'visible': '50.0', 'thermal': '100.0'}
    assert column(groups, 'missed far (1)') == {'visible': '100.0', 'thermal': '0.0'}
    assert any('80 and 30 pixels' in note for note in groups.notes)
    sizes = study.summary()['inputs']['thermal']['miss_rate_by_size']
    assert sizes == {'near': 0.5, 'medium': 1.0, 'far': 0.0}


def test_sizes_do_not_depend_on_the_resolution() -> None:
    for height in (120, 480, 1080):
        parts = {rows: height_class(rows * height / 480 / height) for rows in (80, 79.9, 30, 29.9)}
        assert parts == {80: 'near', 79.9: 'medium', 30: 'medium', 29.9: 'far'}
    labels = label_set(one=2 * boxes_of([NEAR, MEDIUM, FAR]))
    study = DetectionStudy(['visible'], labels)
    study.add(['one'], np.zeros((2 * HEIGHT, 2 * WIDTH, 3), np.uint8), {'visible': found()})
    table = study.tables()[1]
    assert [title for title in table.header if title.startswith('missed')][:3] == [
        *('missed near (1)', 'missed medium (1)', 'missed far (1)')
    ]
    assert any('here 160 and 60 pixels' in note for note in table.notes)


def test_day_and_night_are_told_by_the_sky() -> None:
    labels = label_set(day=[NEAR, MEDIUM], night=[NEAR], empty=[])
    study = DetectionStudy(['visible'], labels)
    study.add(['day'], BRIGHT, {'visible': found(NEAR, MEDIUM)})
    study.add(['night'], cv2.cvtColor(DARK, cv2.COLOR_GRAY2BGR), {'visible': found()})
    study.add(['empty'], DARK, {'visible': found()})
    groups = study.tables()[1]
    assert groups.rows[0][4:] == ('100.0', '0.0', '0.0', '100.0')
    assert groups.header[4] == 'AP50 day (2)'
    assert groups.header[6] == 'AP50 night (1)'
    assert any('in the 2 of 3 images' in note for note in groups.notes)
    assert study.summary()['images_by_time'] == {'day': 1, 'night': 2}


def test_patterns_of_night_overrule_the_brightness() -> None:
    labels = label_set(set03_1=[NEAR], set00_1=[MEDIUM])
    study = DetectionStudy(['visible'], labels, night=['set0[345]*'])
    study.add(['frame', 'set03_1'], BRIGHT, {'visible': found()})
    study.add(['set00_1'], DARK, {'visible': found(MEDIUM)})
    groups = study.tables()[1]
    assert groups.rows[0][4:] == ('100.0', '0.0', '0.0', '100.0')
    assert any('set0[345]*' in note for note in groups.notes)


def test_a_cell_without_persons_is_empty() -> None:
    study = DetectionStudy(['visible', 'mean'], label_set(one=[]))
    study.add(['one'], BRIGHT, {'visible': found(NEAR), 'mean': found()})
    table, groups = study.tables()
    assert all(set(row[1:]) == {''} for row in groups.rows)
    assert table.rows[0][1:5] == ('', '', '', '')
    assert column(table, 'FPPI') == {'visible': '1.00', 'mean': '0.00'}
    assert as_json(study.summary())['inputs']['visible']['ap50'] is None
    assert study.ranking() == ('persons per image', {'visible': '1.00', 'mean': '0.00'})
    json.dumps(as_json(study.summary()), allow_nan=False)


def test_images_without_labels_count_for_agreement_alone() -> None:
    study = DetectionStudy(['visible', 'thermal'], label_set(one=[NEAR]))
    study.add(['one'], BRIGHT, {'visible': found(NEAR), 'thermal': found(NEAR)})
    study.add(['two'], BRIGHT, {'visible': found(), 'thermal': found(OTHER)})
    assert (study.frames, study.labelled) == (2, 1)
    assert column(study.tables()[0], 'images') == {'visible': '1', 'thermal': '1'}
    assert study.summary()['agreement']['persons'] == {'visible': 1, 'thermal': 2}


def test_an_image_that_fails_leaves_no_trace() -> None:
    labels = LabelSet(
        Path('labels.json'),
        {'one': ImageLabels(boxes_of([NEAR]), boxes_of([]))},
        sizes={'one': (WIDTH, HEIGHT)},
    )
    study = DetectionStudy(['visible', 'thermal'], labels)
    detections = {'visible': found(NEAR), 'thermal': found(NEAR)}
    with pytest.raises(LabelError, match='320x240'):
        study.add(['one'], BRIGHT[::2, ::2], detections)
    with pytest.raises(ValueError, match='no detections for thermal'):
        study.add(['one'], BRIGHT, {'visible': found(NEAR)})
    assert (study.frames, study.labelled, study.persons) == (0, 0, 0)


def test_the_summary_of_labels_is_json() -> None:
    study = labelled_study()
    summary = as_json(study.summary())
    assert summary['score'] == 0.25
    assert (summary['frames'], summary['labelled'], summary['persons']) == (6, 6, 12)
    visible = summary['inputs']['visible']
    assert visible['ap50'] == pytest.approx(51 / 101)
    assert visible['ap50_minus_mean'] == pytest.approx(-50 / 101)
    assert visible['miss_rate'] == 0.5
    assert visible['by_time']['day'] == {'ap50': visible['ap50'], 'miss_rate': 0.5}
    assert visible['by_time']['night'] == {'ap50': None, 'miss_rate': None}
    assert summary['inputs']['mean']['ap50_minus_mean'] is None
    assert summary['persons_by_group'] == {'near': 6, 'medium': 6, 'far': 0, 'day': 12, 'night': 0}


# --- Without labels -----------------------------------------------------------------------------


def agreement_study() -> DetectionStudy:
    study = DetectionStudy(['visible', 'thermal', 'fused'])
    # Seen by both cameras, by each alone, and by neither; the second is missing in the fused one.
    study.add(
        ['one'],
        BRIGHT,
        {
            'visible': found(NEAR, MEDIUM),
            'thermal': found([1, 0, 50, 100], OTHER, FAR, scores=[0.9, 0.8, 0.1]),
            'fused': found([0, 1, 50, 100], OTHER, [400, 0, 450, 100]),
        },
    )
    study.add(['two'], BRIGHT, {name: found() for name in study.inputs})
    return study


def test_agreement_of_inputs_without_labels() -> None:
    study = agreement_study()
    assert (study.frames, study.labelled) == (2, 0)
    table, fusions = study.tables()
    assert column(table, 'persons') == {'visible': '2', 'thermal': '2', 'fused': '3'}
    assert column(table, 'persons per image') == {
        'visible': '1.00',
        'thermal': '1.00',
        'fused': '1.50',
    }
    assert column(table, 'also in visible') == {'visible': '', 'thermal': '50.0', 'fused': '33.3'}
    assert column(table, 'also in thermal') == {'visible': '50.0', 'thermal': '', 'fused': '66.7'}
    assert column(table, 'also in fused') == {'visible': '50.0', 'thermal': '100.0', 'fused': ''}
    assert any('Agreement is not truth' in note for note in table.notes)
    assert fusions.rows == (('fused', '3', '33.3', '66.7', '33.3', '3', '33.3'),)
    assert as_json(study.summary())['agreement'] == {
        'persons': {'visible': 2, 'thermal': 2, 'fused': 3},
        'found_as_well_in': {
            'visible': {'thermal': 0.5, 'fused': 0.5},
            'thermal': {'visible': 0.5, 'fused': 1.0},
            'fused': {'visible': pytest.approx(1 / 3), 'thermal': pytest.approx(2 / 3)},
        },
        'fusions': {
            'fused': {
                'persons': 3,
                'confirmed_by_visible': 1,
                'confirmed_by_thermal': 2,
                'in_neither_camera': 1,
                'persons_of_the_cameras': 3,
                'missed': 1,
            }
        },
    }


def test_without_labels_contrast_is_that_of_the_persons_of_the_cameras() -> None:
    study = DetectionStudy(['visible', 'thermal', 'fused'])
    warm = DARK.copy()
    x1, y1, x2, y2 = MEDIUM
    warm[y1:y2, x1:x2] += 40
    # One person in both cameras, who counts once, one in the thermal image alone; and what only
    # the fused image shows does not count.
    boxes = {
        'visible': found(NEAR),
        'thermal': found([1, 0, 50, 100], MEDIUM),
        'fused': found(NEAR, OTHER),
    }
    images = {'visible': BRIGHT, 'thermal': warm, 'fused': warm}
    study.add(['one'], BRIGHT, boxes, images)
    assert study.contrasts == {'visible': 0.0, 'thermal': 20.0, 'fused': 20.0}
    agreement, _ = study.tables()
    assert column(agreement, 'person contrast') == {
        'visible': '+0',
        'thermal': '+20',
        'fused': '+20',
    }
    study.add(['two'], BRIGHT, {name: found() for name in boxes}, images)
    assert study.contrasts == {}


def test_labels_that_fit_no_image_leave_agreement() -> None:
    study = DetectionStudy(['visible', 'thermal'], label_set(other=[NEAR]))
    study.add(['one'], BRIGHT, {'visible': found(NEAR), 'thermal': found()})
    (table,) = study.tables()
    assert table.title == 'Agreement of the inputs'
    assert column(table, 'also in thermal')['visible'] == '0.0'
    (warning,) = study.warnings()
    assert 'it has names such as other, but the first image is one' in warning
    study.add(['other'], BRIGHT, {'visible': found(NEAR), 'thermal': found()})
    assert study.warnings() == []
    # Nothing was found, so there is nothing to agree on.
    assert column(table, 'also in visible')['thermal'] == ''


def test_one_input_has_nothing_to_agree_with() -> None:
    study = DetectionStudy(['thermal'])
    (table,) = study.tables()
    assert table.rows == (('thermal', '0', ''),)
    study.add(['one'], BRIGHT, {'thermal': found(NEAR)})
    (table,) = study.tables()
    assert table.rows == (('thermal', '1', '1.00'),)


def test_without_an_input_there_is_no_study() -> None:
    with pytest.raises(ValueError, match='no input'):
        DetectionStudy([])


def test_persons_are_paired_one_to_one_largest_overlap_first() -> None:
    first = boxes_of([[0, 0, 10, 100], [0, 0, 10, 90], [50, 0, 60, 40]])
    second = boxes_of([[0, 0, 10, 91], [50, 0, 60, 100]])
    assert pair_up(first, second) == [(1, 0)]
    assert pair_up(first, second, iou=0.4) == [(1, 0), (2, 1)]
    assert [(b, a) for a, b in pair_up(second, first, iou=0.4)] == [(1, 0), (2, 1)]
    assert pair_up(first, boxes_of([])) == []


# --- Brightness ----------------------------------------------------------------------------------


def test_sky_is_the_bright_part_of_the_upper_third() -> None:
    image = np.zeros((90, 100), np.uint8)
    image[30:] = 255  # a bright road
    assert sky_luma(image) == 0
    image[:30, :50] = 180  # sky beside a dark tree
    assert sky_luma(image) == 180
    assert sky_luma(cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)) == 180
    assert sky_luma(np.full((1, 4), 7, np.uint8)) == 7


def test_night_scenes_are_below_the_threshold(shared: Path) -> None:
    paths = sorted((shared / 'data' / 'llvip' / 'visible').glob('*'))
    day = sorted((shared / 'data' / 'roadscene' / 'dev' / 'visible').glob('FLIR_0[01]*'))
    if not paths or not day:
        pytest.skip('street scenes are not there')
    for path in (*paths[:4], *day):
        image = cv2.imread(str(path))
        assert image is not None
        assert (sky_luma(np.asarray(image, np.uint8)) < NIGHT_LUMA) == (path in paths), path
