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

"""The command that writes a fusion as an ONNX file, and what it refuses."""

import numpy as np
import pytest

from dig2dig_ros.fusion import export as fusion_export
from dig2dig_ros.images.registration import Registration
from dig2dig_ros.images.registration_file import save_registration
from dig2dig_ros.tools.export import main


@pytest.fixture
def registration(tmp_path):
    path = tmp_path / 'registration.yaml'
    matrix = np.array([[2.0, 0.0, 0.5], [0.0, 2.0, 0.5], [0.0, 0.0, 1.0]])
    save_registration(Registration(matrix, (32, 24), (64, 48)), path)
    return path


@pytest.mark.slow
def test_a_checked_file_is_written(registration, tmp_path, capsys):
    onnx = pytest.importorskip('onnx')
    pytest.importorskip('onnxscript')
    pytest.importorskip('onnxruntime')
    path = tmp_path / 'street.onnx'
    words = ['--preset', 'realtime', '--thermal-to-visible', str(registration), '-o', str(path)]
    assert main(words) == 0
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert lines[0].startswith('random images: fused image at most 0.0')
    assert lines[1].startswith('synthetic street: fused image at most 0.0')
    assert lines[2].startswith(f'{path}: 64x48, ')
    assert 'not in the file' in said.err
    assert 'contrast auto, blur auto, noise auto (thermal)' in said.err
    graph = onnx.load(path).graph
    shapes = [[side.dim_value for side in each.type.tensor_type.shape.dim] for each in graph.input]
    assert shapes == [[1, 48, 64, 3], [1, 24, 32]]

    assert main(words) == 2
    assert 'street.onnx exists: name another output' in capsys.readouterr().err


@pytest.mark.parametrize('damage', [0.6, float('nan')])
def test_a_file_that_differs_is_not_written(damage, tmp_path, capsys, monkeypatch):
    pytest.importorskip('onnxscript')
    monkeypatch.setattr(fusion_export.ExportedFusion, 'to_onnx', lambda *_: b'')
    found = fusion_export.Deviation(damage, 0.0)
    monkeypatch.setattr(fusion_export.ExportedFusion, 'deviation', lambda *_: found)
    path = tmp_path / 'fusion.onnx'
    assert main(['--size', '64x48', '--prior', 'nano', '-o', str(path)]) == 2
    assert 'differ by more than 0.5 grey levels on random images' in capsys.readouterr().err
    assert not path.exists()


@pytest.mark.parametrize(
    ('words', 'reason'),
    [
        (['--size', '64x48', '-o', 'none/fusion.onnx'], 'there is no folder none'),
        (['--size', '64x48', '-o', '.'], 'is a folder'),
        ([], 'the size of the images is missing: give it, for example --size 640x512'),
        (['--size', '8x48'], '8x48 is too small'),
        (['--thermal-to-visible', 'none.yaml'], 'none.yaml cannot be read'),
        (['--size', '64x48', '--preset', 'paper'], "use sampler 'increments'"),
        (['--size', '64x48', '--prior', 'nothing'], 'nothing'),
    ],
)
def test_what_cannot_be_done_ends_with_one_sentence(words, reason, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    said = capsys.readouterr()
    assert not said.out
    assert reason in said.err
    assert len(said.err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_registration_for_another_size_is_refused(registration, tmp_path, capsys):
    path = tmp_path / 'fusion.onnx'
    words = ['--size', '80x48', '--thermal-to-visible', str(registration), '-o', str(path)]
    assert main(words) == 2
    assert 'for visible images of 64x48 pixels, not of 80x48' in capsys.readouterr().err
