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

"""The command dig2dig dev restoration on small synthetic pairs."""

from collections import defaultdict
import csv

import cv2
import numpy as np
import pytest

from dig2dig_ros.evaluation.restoration_study import Case, METHODS, METRICS
from dig2dig_ros.fusion.degradation import Degradation
from dig2dig_ros.tools.dev_restoration import DEFAULT_CASES, main

SIZE = (96, 72)


def write_pairs(folder, count=1, colour=True):
    """Write bars and discs as two cameras see them."""
    for name in ('visible', 'thermal'):
        (folder / name).mkdir()
    for index in range(count):
        visible = np.full((SIZE[1], SIZE[0], 3), 90, np.uint8)
        thermal = np.full(SIZE[::-1], 60, np.uint8)
        for x in range(6 + index, 60, 10):
            tint = (200, 160, 40 + 2 * x) if colour else (200, 200, 200)
            cv2.rectangle(visible, (x, 10), (x + 4, 45), tint, -1)
        cv2.circle(visible, (75, 50), 15, (20, 30, 60) if colour else (30, 30, 30), -1)
        cv2.circle(thermal, (30, 50), 15, 230, -1)
        cv2.line(thermal, (60, 10), (90, 60), 160, 3)
        visible = cv2.GaussianBlur(visible, (0, 0), 0.8)
        thermal = cv2.GaussianBlur(thermal, (0, 0), 0.8)
        assert cv2.imwrite(str(folder / 'visible' / f'{index:02}.png'), visible)
        assert cv2.imwrite(str(folder / 'thermal' / f'{index:02}.png'), thermal)
    return folder


def tables(output):
    """Return the tables by title, each as its rows by their first cell."""
    found = {}
    for block in output.split('\n\n'):
        if block.endswith(':'):
            title = block.removesuffix(':')
        elif block.startswith('|'):
            cells = [
                [cell.strip() for cell in line.strip('|').split('|')]
                for line in block.splitlines()
            ]
            assert tuple(cells[0][1:]) == METHODS
            found[title] = {row[0]: [float(cell) for cell in row[1:]] for row in cells[2:]}
    return found


@pytest.mark.slow
@pytest.mark.parametrize('colour', [True, False], ids=['colour', 'grey'])
def test_declaring_a_degradation_pays(tmp_path, capsys, colour):
    output = tmp_path / 'values.csv'
    cases = ['noise 25', 'blur 2', 'blur 1, noise 10; blur 1, x2, noise 10']
    arguments = ['--degrade', *cases, '--output', str(output), '--device', 'cpu']
    assert main([str(write_pairs(tmp_path, 2, colour)), *arguments]) == 0
    captured = capsys.readouterr()
    shown = tables(captured.out)
    assert [title.split()[0].rstrip(',') for title in shown] == [*METRICS, 'ms']
    ssim = shown['SSIM ↑']
    assert list(ssim) == cases
    for clean, degraded, _, by_default, declared, _ in ssim.values():
        assert clean == 1
        assert declared > degraded
        assert by_default > degraded
    with output.open(newline='', encoding='utf-8') as file:
        lines = list(csv.DictReader(file))
    for case, row in ssim.items():
        values = defaultdict(list)
        for line in lines:
            if line['visible; thermal'] == case:
                values[line['method']].append(float(line['SSIM']))
        assert all(len(pairs) == 2 for pairs in values.values())
        assert row[1] == pytest.approx(np.mean(values['degraded']), abs=1e-4)
        first = [np.mean(pairs) for name, pairs in values.items() if name.startswith('restored')]
        assert row[2] == pytest.approx(max(first), abs=1e-4)
    # What has no noise has none to be estimated.
    assert ssim['blur 2'][4] == pytest.approx(ssim['blur 2'][5], abs=0.02)
    assert '[2/2] 01: done' in captured.err
    assert '2 pairs; ' in captured.out


def test_default_cases():
    cases = [Case.parse(text) for text in DEFAULT_CASES]
    assert [str(case) for case in cases] == list(DEFAULT_CASES)
    assert cases[0].visible == cases[0].thermal == Degradation(noise=15)
    assert cases[4].visible.is_none
    assert cases[4].thermal.factor == 2


def test_a_pair_that_cannot_be_used_is_skipped(tmp_path, capsys):
    folder = write_pairs(tmp_path, 2)
    (folder / 'thermal' / '00.png').write_bytes(b'')
    assert main([str(folder), '--degrade', 'noise 20']) == 1
    captured = capsys.readouterr()
    assert '00: skipped' in captured.err
    assert '1 pair, 1 skipped' in captured.out


def test_rows_of_telemetry_are_left_out_as_in_the_node(tmp_path, capsys):
    folder = write_pairs(tmp_path)
    path = str(folder / 'thermal' / '00.png')
    telemetry = np.tile(np.uint8([0, 255]), (2, SIZE[0] // 2))
    assert cv2.imwrite(path, np.vstack([cv2.imread(path, cv2.IMREAD_GRAYSCALE), telemetry]))
    arguments = [str(folder), '--degrade', 'noise 20', '--device', 'cpu', '--preset']
    preset = tmp_path / 'crop.yaml'
    preset.write_text('/**: {ros__parameters: {thermal_crop: [0, 2]}}')
    assert main([*arguments, 'fusion']) == 2
    assert main([*arguments, str(preset)]) == 0
    assert '1 pair; ' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        # A longer movement than the image has pixels.
        (['--degrade', 'motion 190 0'], 'none of the 1 pairs'),
        (['--output', 'nowhere/values.csv'], 'there is no folder nowhere'),
        (['--prior', 'nowhere'], 'the fusion cannot be set up'),
        (['--preset', 'nowhere'], 'neither a file nor a preset'),
    ],
)
def test_what_cannot_be_done_is_told(tmp_path, capsys, monkeypatch, options, words):
    monkeypatch.chdir(tmp_path)
    assert main([str(write_pairs(tmp_path)), *options]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        ('x2', "write 'none; x2'"),
        ('noise auto', 'give the noise as a number'),
        ('foggy', 'foggy'),
        ('none; none; none', 'more than two'),
    ],
)
def test_degradations_that_cannot_be_made(tmp_path, capsys, text, words):
    with pytest.raises(SystemExit) as error:
        main([str(tmp_path), '--degrade', text])
    assert error.value.code == 2
    assert words in capsys.readouterr().err
