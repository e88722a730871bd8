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

"""The program inspect_noise on tiny pairs."""

from importlib.util import find_spec
import sys

import cv2
from inspect_noise import main
from noise_study import LEVELS
import pytest

needs_matplotlib = pytest.mark.skipif(
    find_spec('matplotlib') is None, reason='matplotlib (extra "evaluation") is not installed'
)

TINY = ['--size', '64x48', '--count', '1', '--device', 'cpu', '--prior', 'nano']


def rows(output):
    """Return the rows of the Markdown table as dictionaries."""
    lines = [line for line in output.splitlines() if line.startswith('|')]
    header, _, *cells = ([cell.strip() for cell in line.strip('|').split('|')] for line in lines)
    return [dict(zip(header, map(float, row), strict=True)) for row in cells]


@needs_matplotlib
@pytest.mark.slow
def test_noise_takes_information_and_weight_from_the_visible_camera(tmp_path, capsys):
    folder = tmp_path / 'new' / 'plots'
    assert main([*TINY, '--output', str(folder)]) == 0
    captured = capsys.readouterr()
    assert '[pair 1/1] noise of 40 grey levels' in captured.err
    table = rows(captured.out)
    assert [row['noise'] for row in table] == list(LEVELS)
    first, last = table[0], table[-1]
    for band in ('structure', 'details'):
        assert last[f'visible, {band}'] < 0.8 * first[f'visible, {band}']
        assert last[f'thermal, {band}'] == first[f'thermal, {band}']
    assert last['by default'] > last['without the gate']
    assert last['without the gate'] > last['without gate and noise estimate']
    for name, width in (('noise.png', 900), ('night_shot.jpg', 1000)):
        path = folder / name
        assert path.stat().st_size < 150_000
        picture = cv2.imread(str(path))
        assert picture.shape[0] > 300
        assert picture.shape[1] >= width
        # More than an empty picture.
        assert 0.01 < (picture < 200).any(axis=2).mean() < 0.9


def test_missing_matplotlib_ends_with_the_remedy(monkeypatch, tmp_path, capsys):
    monkeypatch.delitem(sys.modules, 'gain_plots', raising=False)
    monkeypatch.setitem(sys.modules, 'matplotlib.figure', None)
    assert main([*TINY, '--output', str(tmp_path / 'plots')]) == 2
    assert 'pip install matplotlib' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('arguments', 'reason'),
    [
        (['--size', '8x8'], '8x8'),
        (['--seed', '-1'], '-1'),
        (['--prior', 'none-such'], 'none-such'),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(arguments, reason, capsys):
    assert main([*TINY, *arguments]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith('inspect_noise: ')
    assert reason in error


@pytest.mark.parametrize('arguments', [['--size', '320'], ['--count', '0']])
def test_wrong_options_are_refused(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
