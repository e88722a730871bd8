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

"""The picture of the persons found: counts of each image, in good and in little light."""

from importlib.util import find_spec
import json

import cv2
import inspect_people
from inspect_people import main
import numpy as np
import pytest

from dig2dig_ros.detections.boxes import Detections

needs_matplotlib = pytest.mark.skipif(
    find_spec('matplotlib') is None, reason='matplotlib (extra "evaluation") is not installed'
)


class WarmBlocks:
    """A detector of what is bright; an image that is dark on the whole hides nobody."""

    def __init__(self, path):
        self.path = path

    def detect(self, image):
        grey = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
        _, _, stats, _ = cv2.connectedComponentsWithStats(
            (cv2.blur(grey, (5, 5)) > 150).view(np.uint8)
        )
        boxes = [(x, y, x + w, y + h) for x, y, w, h, area in stats[1:] if area > 100]
        return Detections(np.array(boxes, float).reshape(-1, 4), np.full(len(boxes), 0.9))


@pytest.fixture
def folder(tmp_path):
    """Return a folder with a pair: two warm persons, of whom the visible camera sees none."""
    thermal = np.full((96, 128), 20, np.uint8)
    boxes = [[20, 20, 40, 70], [80, 30, 100, 80]]
    for left, top, right, bottom in boxes:
        thermal[top:bottom, left:right] = 250
    visible = np.full((96, 128, 3), 60, np.uint8)
    for name, image in (('visible', visible), ('thermal', thermal)):
        (tmp_path / name).mkdir()
        cv2.imwrite(str(tmp_path / name / 'a.png'), image)
    labels = {'boxes': {'a': boxes}, 'ignore': {}}
    (tmp_path / 'labels.json').write_text(json.dumps(labels))
    return tmp_path


@needs_matplotlib
@pytest.mark.slow
def test_found_persons_are_counted_and_drawn(folder, capsys, monkeypatch):
    monkeypatch.setattr(inspect_people, 'Detector', WarmBlocks)
    output = folder / 'pictures'
    words = [str(folder), '--pair', 'a', '--detector', 'warm.onnx', '--device', 'cpu']
    assert main([*words, '--output', str(output)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ['clean, visible: 0 of 2', 'clean, thermal: 2 of 2']
    assert [line.split(',')[0] for line in lines] == ['clean'] * 4 + ['night_shot'] * 4
    picture = cv2.imread(str(output / 'people.jpg'))
    assert picture.shape[1] >= 1000


def test_what_is_missing_is_said(folder, capsys, monkeypatch):
    monkeypatch.setattr(inspect_people, 'Detector', WarmBlocks)
    words = ['--detector', 'warm.onnx', '--device', 'cpu']
    assert main([str(folder), '--pair', 'b', *words]) == 2
    assert 'has no pair b' in capsys.readouterr().err
    assert main([str(folder / 'nowhere'), '--pair', 'a', *words]) == 2
    assert 'nowhere' in capsys.readouterr().err
    (folder / 'labels.json').write_text(json.dumps({'boxes': {'c': []}, 'ignore': {}}))
    assert main([str(folder), '--pair', 'a', *words]) == 2
    assert 'says nothing about a' in capsys.readouterr().err
