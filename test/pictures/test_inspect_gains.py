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

"""The program inspect_gains on tiny pairs."""

from importlib.util import find_spec
import sys

import cv2
from inspect_gains import main
import numpy as np
import pytest
import yaml

needs_matplotlib = pytest.mark.skipif(
    find_spec('matplotlib') is None, reason='matplotlib (extra "evaluation") is not installed'
)

TINY = ['--size', '48x40', '-N', '3', '-S', '2', '--device', 'cpu']


def tables(output):
    """Return the rows of all Markdown tables, after checking that each is aligned."""
    result = []
    for block in output.split('\n\n'):
        rows = [line for line in block.splitlines() if line.startswith('|')]
        if not rows:
            continue
        assert len({len(line) for line in rows}) == 1
        cells = [[cell.strip() for cell in line.strip('|').split('|')] for line in rows]
        assert all(set(cell) <= {'-', ':'} for cell in cells[1])
        result.append([dict(zip(cells[0], row, strict=True)) for row in cells[2:]])
    return result


@pytest.mark.slow
def test_tables_for_all_rules_and_kinds_of_pairs(capsys):
    assert main([*TINY, '--count', '2']) == 0
    captured = capsys.readouterr()
    scene, scene_sums, complementary, complementary_sums, gains = tables(captured.out)
    for steps, sums in ((scene, scene_sums), (complementary, complementary_sums)):
        timesteps = [int(row['t']) for row in steps]
        assert timesteps[0] == 999
        assert sorted(set(timesteps), reverse=True) == timesteps
        assert [row['Cov uniform'] for row in steps] == ['0'] * 3
        assert all('±' in row['Cov dig'] and '±' in row['A Cov rd'] for row in steps)
        assert [row['weights'] for row in sums] == ['dig', 'rd', 'uniform']
        assert sums[2]['~ 0'] == '3'
        assert sums[2]['sum of mean terms'] == '0'
    assert [row['region'][:3] for row in gains] == ['(a)', '(b)', '(c)', '(d)']
    assert gains[-1]['x, y, w, h'] == '0, 0, 48, 40'
    assert 'prior ' in captured.out
    assert '[scene 2/2]' in captured.err


def test_one_kind_of_pairs_with_a_preset(capsys):
    arguments = ['--pairs', 'complementary', '--count', '1', '--preset', 'paper', *TINY]
    assert main(arguments) == 0
    output = capsys.readouterr().out
    assert 'complementary, 1 pair\n' in output
    assert 'scene' not in output
    assert 'ancestral' in output
    # One pair has no standard error.
    assert '±' not in ''.join(line for line in output.splitlines() if line.startswith('|'))


@pytest.fixture
def parameters(tmp_path):
    """Return a function that writes a parameter file and returns the options for it."""

    def write(**values):
        path = tmp_path / 'parameters.yaml'
        path.write_text(yaml.safe_dump({'/**': {'ros__parameters': {'fusion': values}}}))
        return ['--preset', str(path)]

    return write


def test_sampler_without_a_chain_is_replaced(parameters, capsys):
    options = parameters(sampler='increments', first_timestep=350)
    assert main(['--pairs', 'scene', '--count', '1', *options, *TINY]) == 0
    captured = capsys.readouterr()
    assert 'increments' in captured.err
    assert 'sampler=ddim' in captured.out
    assert tables(captured.out)[0][0]['t'] == '350'
    assert 'from t = 350' in captured.out


@pytest.fixture
def pair(tmp_path):
    """Return the options for a pair whose halves hold texture here and there."""
    rng = np.random.default_rng(0)
    visible = np.full((40, 48, 3), 90, np.uint8)
    thermal = np.full((40, 48), 90, np.uint8)
    visible[:, :24] = rng.integers(0, 255, (40, 24, 1))
    thermal[:, 24:] = rng.integers(0, 255, (40, 24))
    for name, image in (('visible', visible), ('thermal', thermal)):
        assert cv2.imwrite(str(tmp_path / f'{name}.png'), image)
    return [
        '--visible', str(tmp_path / 'visible.png'), '--thermal', str(tmp_path / 'thermal.png'),
    ]  # fmt: skip


def test_own_pair_gains_where_it_has_something_to_show(pair, parameters, capsys):
    regions = ['--region', '0,0,18,40', '--region', '30,0,18,40']
    options = parameters(first_timestep=400, noise_draws=1, gain_window=5)
    assert main([*pair, *regions, *options, *TINY]) == 0
    output = capsys.readouterr().out
    assert 'Cov' not in output
    (gains,) = tables(output)
    assert [row['x, y, w, h'] for row in gains] == [
        '0, 0, 18, 40',
        '30, 0, 18, 40',
        '0, 0, 48, 40',
    ]
    left, right, _ = gains
    assert float(left['gain visible']) > 5 * float(left['gain thermal'])
    assert float(right['gain thermal']) > 5 * float(right['gain visible'])


@needs_matplotlib
@pytest.mark.slow
def test_plots_are_small_pictures(tmp_path, capsys):
    folder = tmp_path / 'new' / 'plots'
    assert main([*TINY, '--count', '1', '--output', str(folder)]) == 0
    for name in ('theorem.png', 'cumulative_gain.png'):
        data = (folder / name).read_bytes()
        assert len(data) < 150_000
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        assert picture.shape[0] > 400
        assert picture.shape[1] > 700
        # More than an empty figure.
        assert 0.01 < (picture < 200).any(axis=2).mean() < 0.9


@needs_matplotlib
@pytest.mark.slow
def test_own_pair_has_no_plot_of_the_theorem(pair, tmp_path, capsys):
    assert main([*pair, *TINY, '--output', str(tmp_path / 'plots')]) == 0
    assert [path.name for path in (tmp_path / 'plots').iterdir()] == ['cumulative_gain.png']


def test_missing_matplotlib_ends_with_the_remedy(monkeypatch, tmp_path, capsys):
    monkeypatch.delitem(sys.modules, 'gain_plots', raising=False)
    monkeypatch.setitem(sys.modules, 'matplotlib.figure', None)
    assert main([*TINY, '--output', str(tmp_path / 'plots')]) == 2
    assert 'pip install matplotlib' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('arguments', 'reason'),
    [
        (['--visible', 'missing.png', '--thermal', 'missing.png'], r'missing.png'),
        (['--size', '8x8'], '8x8'),
        (['--seed', '-1'], '-1'),
        (['-N', '3', '--preset', 'none-such'], 'none-such'),
        (['--region', '40,0,20,20', '--count', '1', *TINY], '48x40'),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(arguments, reason, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith('inspect_gains: ')
    assert reason in error


@pytest.mark.parametrize(
    'arguments',
    [
        ['--visible', 'a.png'],
        ['--size', '320'],
        ['--region', '1,2,3'],
        ['--count', '0'],
        ['--pairs', 'street'],
    ],
)
def test_wrong_options_are_refused(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
