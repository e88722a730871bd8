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

"""The command dig2dig dev registration on small synthetic pairs."""

import json

import cv2
import numpy as np
import pytest

from dig2dig_ros.evaluation.registration_trials import FAILURE
from dig2dig_ros.tools.dev_registration import main

GENTLE = ['--rotation', '2', '--scale', '1.05', '--shift', '0.05']


def write_pairs(folder, count=2, size=(96, 72), thermal_size=None):
    """Write the same shapes as two cameras see them, lying on each other exactly."""
    for name in ('visible', 'thermal'):
        (folder / name).mkdir()
    for index in range(count):
        random = np.random.default_rng(index)
        visible = np.full((size[1], size[0], 3), 90, np.uint8)
        thermal = np.full(size[::-1], 8000, np.uint16)
        for _ in range(30):
            x, y = int(random.integers(size[0])), int(random.integers(size[1]))
            w, h = (int(side) for side in random.integers(4, size[0] // 5, 2))
            colour = tuple(int(value) for value in random.integers(0, 255, 3))
            heat = int(random.integers(7600, 8600))
            cv2.rectangle(visible, (x, y), (x + w, y + h), colour, -1)
            cv2.rectangle(thermal, (x, y), (x + w, y + h), heat, -1)
        if thermal_size:
            thermal = cv2.resize(thermal, thermal_size, interpolation=cv2.INTER_AREA)
        assert cv2.imwrite(str(folder / 'visible' / f'{index:02}.png'), visible)
        assert cv2.imwrite(str(folder / 'thermal' / f'{index:02}.png'), thermal)
    return folder


def rows(output):
    """Return the lines of the table by their first cell."""
    lines = [line for line in output.splitlines() if line.startswith('|')]
    cells = [[cell.strip() for cell in line.strip('|').split('|')] for line in lines]
    return {line[0]: line[1:] for line in cells if not set(line[1]) <= {'-', ':'}}


@pytest.mark.slow
def test_errors_before_and_after(tmp_path, capsys):
    output = tmp_path / 'result.json'
    arguments = [str(write_pairs(tmp_path)), *GENTLE, '--seed', '3', '--output', str(output)]
    assert main(arguments) == 0
    captured = capsys.readouterr()
    document = json.loads(output.read_text())
    trials = document['trials']
    assert [trial['pairs'] for trial in trials] == [['00'], ['01']]
    # The pairs lie on each other exactly, so that both errors are those of the registration.
    for trial in trials:
        assert trial['before'] > 1.5
        assert max(trial['nominal'], trial['relative']) < 1.5 < FAILURE
        assert trial['seconds'] > 0
    table = rows(captured.out)
    assert table['all'][0] == '2'
    median = np.median([trial['nominal'] for trial in trials])
    assert float(table['all'][3]) == pytest.approx(median, abs=0.01)
    trusted = [trial for trial in trials if trial['trusted']]
    assert table['trusted'][0] == str(len(trusted))
    for words in ('Nominal: compared', 'Relative: compared', 'above 5 pixels', 'not flagged: 0'):
        assert words in captured.out
    assert '[2/2] 01: ' in captured.err
    assert document['table']['rows'][0][0] == 'all'

    # The seed decides.
    assert main([*arguments, '--trials', '1']) == 0
    first = json.loads(output.read_text())['trials']
    assert len(first) == 1
    assert {**first[0], 'seconds': 0} == {**trials[0], 'seconds': 0}


def test_groups_of_another_thermal_size(tmp_path, capsys):
    output = tmp_path / 'result.json'
    folder = write_pairs(tmp_path, thermal_size=(48, 36))
    options = ['--group', '2', '--thermal-size', '40x32', '--one-camera']
    assert main([str(folder), *GENTLE, *options, '--output', str(output)]) == 0
    (trial,) = json.loads(output.read_text())['trials']
    assert sorted(trial['pairs']) == ['00', '01']
    assert trial['nominal'] < 1
    captured = capsys.readouterr()
    assert 'groups of 2 pairs' in captured.out
    assert 'pairs of the set together' in captured.out


def test_mismatched_pairs_are_flagged(tmp_path, capsys):
    folder = write_pairs(tmp_path)
    assert main([str(folder), *GENTLE, '--mismatched']) == 0
    output = capsys.readouterr().out
    assert 'Flagged as untrusted: 2 of 2 (100%)' in output
    assert 'Relative' not in output
    assert 'nominal error above' in output


@pytest.mark.slow
def test_a_similarity_cannot_follow_a_perspective(tmp_path, capsys):
    folder = write_pairs(tmp_path, count=1)
    output = tmp_path / 'result.json'
    options = [*GENTLE, '--model', 'similarity', '--output', str(output)]
    errors = {}
    for perspective in ('0', '0.1'):
        assert main([str(folder), *options, '--perspective', perspective]) == 0
        errors[perspective] = json.loads(output.read_text())['trials'][0]['nominal']
        table = capsys.readouterr().out
        assert f'perspective up to {float(perspective):.0%}' in table
        assert 'estimated: a similarity' in table
    assert errors['0'] < 1.5
    assert errors['0.1'] > 4


@pytest.mark.slow
def test_a_failure_on_other_cameras_is_flagged(shared, capsys):
    # It matches better than any other place, and is off all the same.
    assert main([str(shared / 'data' / 'm3fd'), '--trials', '1']) == 0
    assert 'above 5 pixels): 1, of them not flagged: 0' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (['--group', '3'], 'only 2 pairs'),
        (['--output', 'nowhere/there/result.json'], 'there is no folder nowhere/there'),
    ],
)
def test_what_cannot_be_done_is_told(tmp_path, capsys, monkeypatch, options, words):
    monkeypatch.chdir(tmp_path)
    folder = write_pairs(tmp_path, size=(64, 48))
    assert main([str(folder), *GENTLE, *options]) == 2
    error = capsys.readouterr().err
    assert 'dig2dig dev registration: ' in error
    assert words in error


def test_a_folder_without_pairs(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    assert 'no pairs in' in capsys.readouterr().err


@pytest.mark.parametrize(
    'options',
    [
        ['--thermal-size', '4x4'],
        ['--rotation', '90'],
        ['--scale', '0.5'],
        ['--scale', 'nan'],
        ['--seed', '-1'],
        ['--one-camera', '--mismatched'],
    ],
)
def test_options_that_make_no_sense(tmp_path, options):
    with pytest.raises(SystemExit) as end:
        main([str(tmp_path), *options])
    assert end.value.code == 2
