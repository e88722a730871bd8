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
"""The notebooks run from the first cell to the last, on small images."""

import ast
import json
from pathlib import Path

import cv2
import pytest
import torch

FOLDER = Path(__file__).resolve().parents[1] / 'docs' / 'notebooks'


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Return what runs a notebook in an empty folder, and gives back its names."""
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()

    def run_cells(name):
        shown, names = [], {}
        for cell in json.loads((FOLDER / name).read_text(encoding='utf-8'))['cells']:
            if cell['cell_type'] != 'code':
                continue
            tree = ast.parse(''.join(cell['source']))
            last = tree.body[-1]
            shows = isinstance(last, ast.Expr)
            exec(compile(ast.Module(tree.body[: -1 if shows else None], []), name, 'exec'), names)
            # What a notebook shows.
            if shows:
                shown.append(eval(compile(ast.Expression(last.value), name, 'eval'), names))
        return names, shown

    yield run_cells
    torch.set_num_threads(threads)


@pytest.mark.slow
def test_two_cameras_ends_with_a_video(run):
    names, shown = run('two_cameras.ipynb')
    assert any(value is not None and hasattr(value, '_repr_png_') for value in shown)
    assert cv2.imread('fused.png').shape == (256, 320, 3)
    assert cv2.imread('overlay.png').shape == (256, 320, 3)
    assert cv2.imread('strengths.png').shape == (256, 960, 3)
    means = next(value for value in shown if isinstance(value, list))
    assert len(set(means)) == 3
    capture = cv2.VideoCapture(names['video'].name)
    frames = 0
    while (read := capture.read())[0]:
        assert read[1].shape == (256, 640, 3)
        frames += 1
    assert frames == names['FRAMES'] == 20


@pytest.mark.parametrize('path', sorted(FOLDER.glob('*.ipynb')), ids=lambda path: path.name)
def test_notebooks_are_kept_without_outputs(path):
    cells = json.loads(path.read_text(encoding='utf-8'))['cells']
    assert not any(cell.get('outputs') or cell.get('execution_count') for cell in cells)
