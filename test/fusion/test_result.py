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
"""What can be done with a fused image, and the life of a fuser."""

from pathlib import Path
import re

import cv2
import numpy as np
import pytest
import torch

from dig2dig_ros.fusion.fuser import Fuser
from dig2dig_ros.fusion.presets import PRESETS
from dig2dig_ros.fusion.settings import FusionSettings
from dig2dig_ros.images.encoded import EncodedImageError
from dig2dig_ros.images.overlay import contribution_overlay
from dig2dig_ros.resources import config_file
from dig2dig_ros.streams.parameters import fusion_settings, read_parameters

ROWS, COLUMNS = np.indices((48, 64))
VISIBLE = np.dstack([ROWS * 5, COLUMNS * 3, ROWS + COLUMNS]).astype(np.uint8)
THERMAL = (COLUMNS * 4).astype(np.uint8)


@pytest.fixture(scope='module')
def fuser():
    return Fuser(prior='nano', device='cpu', precision='fp32')


@pytest.fixture(scope='module')
def result(fuser):
    return fuser(VISIBLE, THERMAL)


def test_it_is_saved_and_shown_without_loss(result, tmp_path):
    path = result.save(tmp_path / 'fused.png')
    assert np.array_equal(cv2.imread(str(path)), result.image)
    shown = cv2.imdecode(np.frombuffer(result._repr_png_(), np.uint8), cv2.IMREAD_COLOR)
    assert np.array_equal(shown, result.image)
    with pytest.raises(EncodedImageError, match=r'as \.xyz; use \.png, \.tif or \.jpg'):
        result.save(tmp_path / 'fused.xyz')
    with pytest.raises(FileNotFoundError):
        result.save(tmp_path / 'none' / 'fused.png')


def test_it_is_printed_in_a_line(fuser, result):
    line = f'<FusionResult: 64x48, weights of 2 sources, {1e3 * result.seconds:.0f} ms>'
    assert repr(result) == line
    plain = fuser(VISIBLE, THERMAL, weight_maps=False)
    assert re.fullmatch(r'<FusionResult: 64x48, \d+ ms>', repr(plain))
    small = fuser(VISIBLE, np.maximum(THERMAL[::2, ::2], 60))
    assert repr(small).endswith("notes=['thermal has 32x24 pixels and is resized to 64x48']>")
    assert result == result
    assert result != plain
    assert repr(fuser).startswith('<Fuser: device cpu (')
    assert 'prior nano' in repr(fuser)
    with Fuser(prior='nano', device='cpu') as other:
        pass
    assert repr(other) == '<Fuser: closed>'


def test_the_overlay_is_that_of_the_node(fuser, result):
    expected = contribution_overlay(result.image, result.contributions)
    assert np.array_equal(result.overlay(), expected)
    with pytest.raises(ValueError, match='fuse with weight_maps=True'):
        fuser.fuse(VISIBLE, THERMAL, weight_maps=False).overlay()


@pytest.mark.parametrize('name', PRESETS)
def test_presets_are_the_files_of_the_node(name):
    values = read_parameters(config_file(f'{name}.yaml'))
    fuser = Fuser.from_preset(name, device='cpu', num_threads=0)
    assert fuser.settings == fusion_settings(values)
    assert fuser.prior.name == values.get('prior', 'compact')


def test_all_presets_of_the_fusion_are_known():
    shipped = {path.stem for path in config_file('fusion.yaml').parent.glob('*.yaml')}
    assert shipped == {*PRESETS, 'detection_fusion'}


def test_a_preset_is_changed_by_arguments():
    before = torch.get_num_threads()
    fuser = Fuser.from_preset(
        'realtime', prior='compact', device='cpu', num_threads=0, thermal_strength=0.6
    )
    assert fuser.settings == FusionSettings(prior_downscale=4, thermal_strength=0.6)
    assert fuser.prior.name == 'compact'
    assert torch.get_num_threads() == before
    try:
        Fuser.from_preset('realtime', device='cpu')
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ('name', 'error', 'words'),
    [
        ('realtme', ValueError, "no preset 'realtme': did you mean 'realtime'"),
        ('/tmp/x', ValueError, 'use one of fusion, realtime, paper'),
        (None, TypeError, 'from_preset takes a name, not NoneType: fusion, realtime'),
    ],
)
def test_presets_that_are_not_there(name, error, words):
    with pytest.raises(error, match=words):
        Fuser.from_preset(name)


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        ({'settings': 'realtime'}, r"call Fuser\.from_preset\('realtime'\)"),
        ({'settings': 'nano'}, r"call Fuser\(prior='nano'\)"),
        ({'settings': {'seed': 1}}, r'settings must be FusionSettings, not dict: for example'),
        ({'prior': 3}, 'prior is of type int: pass the name or the path of a denoiser'),
        ({'device': 0}, "device is of type int: pass 'auto', 'cpu', 'cuda' or 'cuda:0'"),
    ],
)
def test_wrong_types_are_refused_where_they_enter(arguments, words):
    with pytest.raises(TypeError, match=words):
        Fuser(**arguments)


def test_paths_and_devices_are_taken_as_they_are(result):
    weights = Path(__file__).parents[2] / 'dig2dig_ros/priors/weights/nano.safetensors'
    fuser = Fuser(prior=weights, device=torch.device('cpu'), precision='fp32')
    assert np.array_equal(fuser(VISIBLE, THERMAL).image, result.image)


def test_a_fuser_is_closed_once(result):
    with Fuser(prior='nano', device='cpu', precision='fp32') as fuser:
        assert np.array_equal(fuser(VISIBLE, THERMAL).image, result.image)
    fuser.close()
    with pytest.raises(RuntimeError, match='this fuser is closed: make a new one'):
        fuser(VISIBLE, THERMAL)


def test_settings_are_keywords_of_one_call(fuser, result):
    strong = fuser(VISIBLE, THERMAL, thermal_strength=1.0, num_inference_steps=np.int64(2))
    settings = FusionSettings(thermal_strength=1.0, num_inference_steps=2)
    expected = fuser.fuse(VISIBLE, THERMAL, settings=settings).image
    assert np.array_equal(strong.image, expected)
    assert not np.array_equal(expected, result.image)
    with pytest.raises(TypeError, match="no setting 'temprature': did you mean 'temperature'"):
        fuser(VISIBLE, THERMAL, temprature=2)
    with pytest.raises(TypeError, match="no setting 'x': see docs"):
        fuser(VISIBLE, THERMAL, x=2)
    with pytest.raises(ValueError, match="num_inference_steps is '4', but must be a whole number"):
        fuser(VISIBLE, THERMAL, num_inference_steps='4')
