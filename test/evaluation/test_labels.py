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

"""Labels of persons in three forms."""

from __future__ import annotations

import json
from pathlib import Path

from detections.test_boxes import boxes_of
import pytest

from dig2dig_ros.evaluation.labels import LabelError, load_labels

A, B, C = [10.0, 10.0, 20.0, 40.0], [50.0, 10.0, 70.0, 60.0], [80.0, 0.0, 90.0, 30.0]


def write_json(path: Path, document: object) -> Path:
    path.write_text(json.dumps(document), encoding='utf-8')
    return path


def coco(**changes: object) -> dict[str, object]:
    return {
        'images': [
            {'id': 7, 'file_name': 'night/one.jpg', 'width': 100, 'height': 80},
            {'id': 8, 'file_name': 'two.png'},
        ],
        'categories': [{'id': 1, 'name': 'car'}, {'id': 3, 'name': 'Person'}],
        'annotations': [
            {'image_id': 7, 'category_id': 3, 'bbox': [10, 20, 30, 40]},
            {'image_id': 7, 'category_id': 1, 'bbox': [1, 2, 3, 4]},
            {'image_id': 7, 'category_id': 3, 'bbox': [0, 0, 50, 60], 'iscrowd': 1},
            {'image_id': 7, 'category_id': 3, 'bbox': [5, 5, 5, 5], 'iscrowd': 0, 'ignore': 1},
        ],
        **changes,
    }


def test_simple_labels(tmp_path: Path) -> None:
    path = write_json(
        tmp_path / 'labels.json',
        {'boxes': {'one': [A, B], 'two': []}, 'ignore': {'two': [C], 'three': [C]}},
    )
    labels = load_labels(path)
    one = labels.find(['unknown', 'one', 'two'], 100, 80)
    assert one is not None
    assert (one.boxes.tolist(), one.ignore.tolist()) == ([A, B], [])
    for name in ('two', 'three'):
        other = labels.find([name], 100, 80)
        assert other is not None
        assert (other.boxes.tolist(), other.ignore.tolist()) == ([], [C])
    assert labels.find(['unknown'], 100, 80) is None


def test_coco_labels(tmp_path: Path) -> None:
    path = write_json(tmp_path / 'coco.json', coco())
    labels = load_labels(path)
    one = labels.find(['one'], 100, 80)
    assert one is not None
    assert one.boxes.tolist() == [[10, 20, 40, 60]]
    assert one.ignore.tolist() == [[0, 0, 50, 60], [5, 5, 10, 10]]
    two = labels.find(['two'], 33, 44)
    assert two is not None
    assert two.boxes.shape == (0, 4)
    assert labels.find(['three'], 100, 80) is None
    with pytest.raises(LabelError, match='one is 50x40 pixels, but 100x80'):
        labels.find(['one'], 50, 40)
    for category in ('car', '1'):
        cars = load_labels(path, category).find(['one'], 100, 80)
        assert cars is not None
        assert cars.boxes.tolist() == [[1, 2, 4, 6]]


def test_yolo_labels(tmp_path: Path) -> None:
    (tmp_path / 'one.txt').write_text('0 0.5 0.5 0.2 0.5\n\n2 0.1 0.1 0.1 0.1\n', encoding='utf-8')
    (tmp_path / 'classes.txt').write_text('person\nbicycle\ncar\n', encoding='utf-8')
    labels = load_labels(tmp_path)
    one = labels.find(['one'], 200, 100)
    assert one is not None
    assert one.boxes == pytest.approx(boxes_of([[80, 25, 120, 75]]))
    empty = labels.find(['two'], 200, 100)
    assert empty is not None
    assert empty.boxes.shape == (0, 4)
    cars = load_labels(tmp_path, '2').find(['one'], 200, 100)
    assert cars is not None
    assert cars.boxes == pytest.approx(boxes_of([[10, 5, 30, 15]]))


@pytest.mark.parametrize(
    ('document', 'message'),
    [
        ([], 'neither "boxes" by image nor'),
        ({'boxes': [A]}, 'neither "boxes" by image nor'),
        ({'boxes': {'one': [[1, 2, 3]]}}, 'boxes of one: not a list of boxes of four numbers'),
        ({'boxes': {'one': [['a', 2, 3, 4]]}}, 'not a list of boxes of four numbers'),
        ({'boxes': {'one': [[5, 5, 5, 9]]}}, r'box \[5.0, 5.0, 5.0, 9.0\] is empty'),
        ({'boxes': {}, 'ignore': [A]}, '"ignore" must have lists'),
        (
            coco(categories=[{'id': 1, 'name': 'a'}, {'id': 2, 'name': 'b'}]),
            'no category .* a, b',
        ),
        (coco(images=[{'id': 7}]), 'is not in COCO format: KeyError'),
        (coco(images=[]), 'is not in COCO format: KeyError'),
        (
            coco(images=[{'id': i, 'file_name': f'{i}/one.jpg'} for i in (7, 8)]),
            'has two images named one',
        ),
    ],
)
def test_json_that_makes_no_sense_is_refused(
    tmp_path: Path, document: object, message: str
) -> None:
    with pytest.raises(LabelError, match=message):
        load_labels(write_json(tmp_path / 'labels.json', document))


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('0 0.5 0.5 0.2\n', r'one\.txt: not lines of class, x, y, width and height'),
        ('person 0.5 0.5 0.2 0.2\n', 'not lines of class'),
        ('0 50 50 20 20\n', 'must be fractions of the image'),
        ('0 0.5 0.5 0 0\n', 'is empty'),
    ],
)
def test_text_that_makes_no_sense_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / 'one.txt').write_text(text, encoding='utf-8')
    with pytest.raises(LabelError, match=message):
        load_labels(tmp_path)


def test_missing_labels_are_named(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match=r'the labels .*none\.json do not exist'):
        load_labels(tmp_path / 'none.json')
    with pytest.raises(LabelError, match=r'has no labels NAME\.txt'):
        load_labels(tmp_path)
    (tmp_path / 'broken.json').write_text('{', encoding='utf-8')
    with pytest.raises(LabelError, match='cannot be read as JSON'):
        load_labels(tmp_path / 'broken.json')
    (tmp_path / 'one.txt').write_text('', encoding='utf-8')
    with pytest.raises(LabelError, match='are numbers, not names such as person'):
        load_labels(tmp_path, 'person')
