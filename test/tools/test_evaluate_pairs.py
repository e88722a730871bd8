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

import csv
from importlib.util import find_spec
import json
import os
from pathlib import Path
import re
import signal
import sys
import threading
import time
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
import pytest

from dig2dig_ros.detections.boxes import Detections
from dig2dig_ros.evaluation import pair_evaluation
from dig2dig_ros.evaluation.baselines import BASELINES, mean, to_uint8
from dig2dig_ros.evaluation.comparison import ABLATIONS, changed_settings, FUSIONS
from dig2dig_ros.evaluation.metrics import evaluate_pair, luma, METRICS
from dig2dig_ros.evaluation.options import load_parameters
from dig2dig_ros.fusion.settings import FusionSettings
from dig2dig_ros.images.registration import Registration
from dig2dig_ros.images.registration_file import save_registration
from dig2dig_ros.streams.parameters import fusion_settings
from dig2dig_ros.tools.evaluate import main

pytestmark = pytest.mark.skipif(
    find_spec('skimage') is None, reason='scikit-image (extra "evaluation") is not installed'
)

Image = NDArray[np.uint8]
QUICK = ['--time-size', '64x48', '--repetitions', '1']
FREE = 'fused:num_inference_steps=2,dig_refresh_interval=1'
SHAPES = {'one': (48, 64), 'two': (44, 52), 'three': (48, 64)}


def structure(seed: int, shape: tuple[int, ...]) -> Image:
    noise = np.random.default_rng(seed).standard_normal(shape)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2)
    return cv2.normalize(smooth, None, 10, 240, cv2.NORM_MINMAX).astype(np.uint8)


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Return a folder of three small pairs, colour with 8-bit thermal."""
    folder = tmp_path / 'pairs'
    for index, (name, shape) in enumerate(SHAPES.items()):
        for side, image in (
            ('visible', structure(index, (*shape, 3))),
            ('thermal', structure(10 + index, shape)),
        ):
            (folder / side).mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(folder / side / f'{name}.png'), image)
    return folder


def tables(output: str) -> list[dict[str, dict[str, str]]]:
    """Parse the Markdown tables that the tool prints, after checking that they are aligned."""
    found = []
    for block in re.findall(r'(?:^\|.*\n)+', output, flags=re.MULTILINE):
        lines = block.splitlines()
        assert len({len(line) for line in lines}) == 1
        cells = [[cell.strip() for cell in line.strip('|').split('|')] for line in lines]
        assert all(set(cell) <= {'-', ':'} for cell in cells[1])
        found.append({row[0]: dict(zip(cells[0][1:], row[1:], strict=True)) for row in cells[2:]})
    return found


def table(output: str) -> dict[str, dict[str, float]]:
    """Return the numbers of the first table."""
    return {
        name: {key: float(cell) for key, cell in row.items() if cell != 'n/a'}
        for name, row in tables(output)[0].items()
    }


def test_table_holds_the_means_of_every_metric(
    pairs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(pairs), '--compare', 'laplacian,mean']) == 0
    captured = capsys.readouterr()
    rows = table(captured.out)
    assert list(rows) == ['laplacian', 'mean']
    titles = [metric.title for metric in METRICS.values()]
    assert list(rows['mean']) == [*titles, 'mean rank ↓', 'ms']
    row = tables(captured.out)[0]['mean']
    assert (row['denoiser calls'], row['GFLOP']) == ('n/a', 'n/a')

    expected = []
    for name in SHAPES:
        visible = luma(cv2.imread(str(pairs / 'visible' / f'{name}.png'), cv2.IMREAD_COLOR))
        thermal = cv2.imread(str(pairs / 'thermal' / f'{name}.png'), cv2.IMREAD_GRAYSCALE)
        expected.append(evaluate_pair(to_uint8(mean([visible, thermal])), visible, thermal))
    for name, metric in METRICS.items():
        value = np.mean([row[name] for row in expected])
        assert rows['mean'][metric.title] == pytest.approx(value, rel=1e-3, abs=1e-4), name
    assert '3 pairs of 52x44 to 64x48 pixels' in captured.out
    assert '[3/3] two: done; 0 s left' in captured.err
    assert 'no files written: --output DIR writes a report page' in captured.err


def test_limit_takes_the_first_pairs(pairs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(pairs), '--compare', 'mean', '--limit', '1']) == 0
    assert '1 pair of 64x48 pixels' in capsys.readouterr().out


def test_images_of_every_row(pairs: Path, tmp_path: Path) -> None:
    images = tmp_path / 'new' / 'images'
    assert main([str(pairs), '--compare', 'mean,laplacian', '--save', str(images)]) == 0
    assert {path.name for path in images.iterdir()} == {
        f'{pair}__{row}.png' for pair in SHAPES for row in ('mean', 'laplacian')
    }
    saved = cv2.imread(str(images / 'two__laplacian.png'), cv2.IMREAD_UNCHANGED)
    visible = luma(cv2.imread(str(pairs / 'visible' / 'two.png'), cv2.IMREAD_COLOR))
    thermal = cv2.imread(str(pairs / 'thermal' / 'two.png'), cv2.IMREAD_GRAYSCALE)
    assert np.array_equal(saved, to_uint8(BASELINES['laplacian']([visible, thermal])))


def test_wide_thermal_counts_are_cropped_and_mapped_for_all_methods(
    pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = pairs / 'thermal' / 'one.png'
    counts = 7000 + 5 * cv2.imread(str(path), cv2.IMREAD_GRAYSCALE).astype(np.uint16)
    assert cv2.imwrite(str(path), counts)
    telemetry = np.full_like(counts[:2], 60000)
    assert cv2.imwrite(str(path), np.vstack([counts, telemetry]))
    parameters = tmp_path / 'fixed.yaml'
    parameters.write_text(
        'fusion_node:\n'
        '  ros__parameters:\n'
        '    thermal_crop: [0, 2]\n'
        '    thermal_range: fixed\n'
        '    thermal_range_limits: [7000.0, 8275.0]\n',
        encoding='utf-8',
    )
    arguments = [str(pairs), '--compare', 'mean', '--limit', '1']
    assert main([*arguments, '--preset', str(parameters)]) == 0
    mapped = table(capsys.readouterr().out)['mean']
    assert cv2.imwrite(str(path), ((counts - 7000) // 5).astype(np.uint8))
    assert main(arguments) == 0
    plain = table(capsys.readouterr().out)['mean']
    del mapped['ms'], plain['ms']
    assert mapped == plain


def scores_of_one(pairs: Path, thermal: Image) -> dict[str, float]:
    visible = luma(cv2.imread(str(pairs / 'visible' / 'one.png'), cv2.IMREAD_COLOR))
    return evaluate_pair(to_uint8(mean([visible, thermal])), visible, thermal)


def test_a_thermal_image_of_another_size_is_resized_and_reported(
    pairs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = pairs / 'thermal' / 'one.png'
    small = structure(5, (20, 32))
    assert cv2.imwrite(str(path), small)
    assert main([str(pairs), '--compare', 'mean', '--limit', '1']) == 0
    captured = capsys.readouterr()
    expected = scores_of_one(pairs, cv2.resize(small, (64, 48)))
    assert table(captured.out)['mean']['MSE ↓'] == pytest.approx(expected['MSE'], rel=1e-3)
    assert '1 of 1 pairs have a thermal image of another size' in captured.err
    assert 'thermal images of 32x20 pixels are stretched onto 64x48' in captured.err


def test_a_registration_places_the_thermal_images(
    pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, registration = pairs / 'thermal' / 'one.png', tmp_path / 'registration.yaml'
    full = structure(10, SHAPES['one'])
    assert cv2.imwrite(str(path), full[:, 16:])
    to_the_right = np.array([[1.0, 0, 16], [0, 1, 0], [0, 0, 1]])
    save_registration(Registration(to_the_right, (48, 48), (64, 48)), registration)
    options = ['--compare', 'mean', '--thermal-to-visible', str(registration)]
    assert main([str(pairs), *options]) == 1
    captured = capsys.readouterr()
    # Outside of the thermal image, its border is continued.
    expected = scores_of_one(pairs, np.hstack([full[:, 16:17]] * 16 + [full[:, 16:]]))
    assert table(captured.out)['mean']['MSE ↓'] == pytest.approx(expected['MSE'], rel=1e-3)
    assert 'two: skipped, the registration is for visible images of 64x48' in captured.err
    assert 'of another size' not in captured.err

    preset = tmp_path / 'robot.yaml'
    preset.write_text('/**: {ros__parameters: {extrinsics: pose.yaml}}', encoding='utf-8')
    assert main([str(pairs), '--compare', 'mean', '--preset', str(preset)]) == 2
    assert 'extrinsics need camera_info, which image files do not' in capsys.readouterr().err


def test_a_pair_that_fails_is_named_and_skipped(
    pairs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (pairs / 'thermal' / 'two.png').write_bytes(b'not an image')
    assert main([str(pairs), '--compare', 'mean']) == 1
    captured = capsys.readouterr()
    assert '2 pairs of 64x48 pixels, 1 skipped' in captured.out
    assert 'two: skipped, ' in captured.err
    assert 'skipped 1 of 3 pairs: two' in captured.err


def test_images_without_counterpart_are_listed(
    pairs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (pairs / 'visible' / 'two.png').unlink()
    assert main([str(pairs), '--compare', 'mean']) == 0
    captured = capsys.readouterr()
    assert '2 pairs of 64x48 pixels' in captured.out
    assert 'left out, as they have no counterpart: thermal/two.png' in captured.err


def test_nothing_to_evaluate_is_an_error(
    pairs: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for path in (pairs / 'thermal').iterdir():
        path.write_bytes(b'')
    assert main([str(pairs), '--compare', 'mean']) == 2
    captured = capsys.readouterr()
    assert captured.out == ''
    assert 'none of the 3 pairs' in captured.err
    assert main([str(tmp_path / 'nowhere'), '--compare', 'mean']) == 2
    assert 'nowhere' in capsys.readouterr().err


def test_missing_scikit_image_ends_with_the_remedy(
    pairs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, 'skimage.metrics', None)
    assert main([str(pairs), '--compare', 'mean']) == 2
    assert 'pip install scikit-image' in capsys.readouterr().err


@pytest.mark.parametrize(
    'arguments',
    [
        ['--compare', 'mean,median'],
        ['--compare', ','],
        ['--compare', 'fused:N=two'],
        ['--limit', '0'],
        ['-N', '0'],
        ['-S', 'x'],
        ['--time-size', '640'],
        ['--time-size', '0x5'],
        ['--ablation', 'colour'],
        ['--score', '1.5'],
        ['--iou', 'x'],
        ['--detector-size', '0'],
    ],
)
def test_bad_arguments_are_refused(
    pairs: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main([str(pairs), *arguments])
    assert stop.value.code == 2
    assert f'argument {arguments[0]}' in capsys.readouterr().err


def test_fused_is_what_the_fuser_makes(
    pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from dig2dig_ros.fusion.fuser import Fuser, FusionSettings

    parameters = tmp_path / 'parameters.yaml'
    parameters.write_text(
        'fusion_node:\n'
        '  ros__parameters:\n'
        '    fusion:\n'
        '      num_inference_steps: 5\n'
        '      temperature: 0.25\n'
        '    precision: fp32\n'
        '    warmup_size: [64, 48]\n'
        '    sync_tolerance: 0.1\n',
        encoding='utf-8',
    )
    arguments = ['--preset', str(parameters), '-N', '2', '-S', '1', '--device', 'cpu']
    arguments += ['--limit', '2', '--save', str(tmp_path / 'saved'), *QUICK]
    assert main([str(pairs), *arguments]) == 0
    output = capsys.readouterr().out
    rows = table(output)
    assert list(rows) == ['mean', 'laplacian', 'fused']
    assert rows['fused']['ms'] > 0
    assert 'N 2' in output
    assert 'S 1' in output
    # What was asked for, as far as it differs from the defaults.
    line = next(line for line in output.splitlines() if line.startswith('- fused: '))
    assert line.endswith('(num_inference_steps=2, temperature=0.25)')

    settings = FusionSettings(num_inference_steps=2, dig_refresh_interval=1, temperature=0.25)
    fuser = Fuser(settings, device='cpu', precision='fp32')
    visible = cv2.imread(str(pairs / 'visible' / 'three.png'), cv2.IMREAD_COLOR)
    thermal = cv2.imread(str(pairs / 'thermal' / 'three.png'), cv2.IMREAD_GRAYSCALE)
    saved = cv2.imread(str(tmp_path / 'saved' / 'three__fused.png'), cv2.IMREAD_UNCHANGED)
    assert saved.shape == visible.shape
    assert np.abs(saved.astype(int) - fuser.fuse(visible, thermal).image).max() <= 1


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--device', 'cuda:99'], "device 'cuda:99'"),
        (['-N', '900'], 'first_timestep'),
    ],
)
def test_a_fusion_that_cannot_be_set_up_is_explained(
    pairs: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main([str(pairs), '--compare', 'fused', *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ''
    assert 'fused cannot be set up' in captured.err
    assert message in captured.err


@pytest.mark.slow
def test_every_row_can_be_made(pairs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from dig2dig_ros.fusion.fuser import Fuser, FusionSettings

    rows = f'all,block_means,{FREE}'
    assert main([str(pairs), '--compare', rows, '--limit', '1', '--device', 'cpu', *QUICK]) == 0
    output = capsys.readouterr().out
    found = table(output)
    assert list(found) == [*BASELINES, *FUSIONS, FREE]
    # Calls are those of the fuser, operations are proportional to them.
    settings = FusionSettings(**FUSIONS['dig_chain_4'].overrides)
    image = structure(0, (48, 64))
    result = Fuser(settings, device='cpu').fuse(image, image)
    assert found['dig_chain_4']['denoiser calls'] == result.prior_calls
    a_call = [
        found[row]['GFLOP'] / found[row]['denoiser calls']
        for row in (*FUSIONS, FREE)
        if row != 'block_means'
    ]
    assert found['block_means']['GFLOP'] == 0
    assert found['block_means']['denoiser calls'] == found['fused']['denoiser calls']
    assert found['block_means']['Qabf ↑'] != found['fused']['Qabf ↑']
    assert a_call == pytest.approx([a_call[0]] * len(a_call), rel=0.01)
    assert a_call[0] > 0
    # The literal method is the shipped preset, whatever the parameters are.
    literal = fusion_settings(load_parameters('paper'))
    assert (
        f'- dig_literal: {FUSIONS["dig_literal"].meaning} ({changed_settings(literal)})' in output
    )
    # Another rule of weights makes another image.
    assert found['uniform']['Qabf ↑'] != found['fused']['Qabf ↑'] != found['rd']['Qabf ↑']
    assert 'among the 14 rows mean, laplacian, fused' in output
    assert 'say little' not in output
    places = re.search(r'^Ranks of fused: (.*)\.$', output, flags=re.MULTILINE)
    assert places is not None
    assert [place.split()[0] for place in places[1].split(', ')] == list(METRICS)


def test_settings_of_a_row_come_after_those_of_the_parameters(
    pairs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = 'fused,uniform,dig_chain,fused:N=3,S=3,weights=rd'
    arguments = ['--compare', rows, '-N', '2', '-S', '1', '--device', 'cpu']
    assert main([str(pairs), *arguments, '--limit', '1', *QUICK]) == 0
    output = capsys.readouterr().out
    steps = {'num_inference_steps': 2, 'dig_refresh_interval': 1}
    expected = {
        'fused': steps,
        'uniform': {**steps, 'weights': 'uniform'},
        'dig_chain': FUSIONS['dig_chain'].overrides,
        'fused:N=3,S=3,weights=rd': {
            'num_inference_steps': 3,
            'dig_refresh_interval': 3,
            'weights': 'rd',
        },
    }
    lines = [line for line in output.splitlines() if line.startswith('- ')]
    for line, (name, settings) in zip(lines, expected.items(), strict=True):
        assert line.startswith(f'- {name}: ')
        assert line.endswith(f'({changed_settings(FusionSettings(**settings))})')


def test_rows_of_the_same_settings_are_made_once(
    pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = ['--compare', 'fused,fused:N=2,fused:seed=0', '-N', '2', '-S', '2']
    arguments = [*rows, '--limit', '1', '--save', str(tmp_path / 'saved'), *QUICK]
    assert main([str(pairs), *arguments]) == 0
    captured = capsys.readouterr()
    values = tables(captured.out)[0]
    assert list(values) == ['fused', 'fused:N=2', 'fused:seed=0']
    # The very same measurement, its time included.
    assert values['fused'] == values['fused:N=2'] == values['fused:seed=0']
    assert len(list((tmp_path / 'saved').glob('*.png'))) == 3
    assert captured.err.count('setting up') == 1


def test_time_over_the_pairs(pairs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(pairs), '--compare', 'mean,laplacian', '--time-size', 'pairs']) == 0
    captured = capsys.readouterr()
    assert 'ms: median over the pairs' in captured.out
    assert 'timing' not in captured.err
    assert main([str(pairs), '--compare', 'mean', '--time-size', '70x50']) == 0
    captured = capsys.readouterr()
    assert 'ms: at 70x50, median of 5 in turns' in captured.out
    assert 'timing at 70x50: [5/5]' in captured.err


def add_pairs(pairs: Path, count: int) -> None:
    """Add pairs, so that there are enough for an interval."""
    for index in range(count):
        for side, seed in (('visible', 20), ('thermal', 30)):
            path = pairs / side / f'more{index}.png'
            assert cv2.imwrite(str(path), structure(seed + index, (48, 64)))


def test_differences_pair_by_pair(pairs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add_pairs(pairs, 4)
    rows = ['--compare', 'mean,fused,laplacian', '-N', '1', '-S', '1']
    assert main([str(pairs), *rows, '--against', 'mean,laplacian', *QUICK]) == 0
    output = capsys.readouterr().out
    means, differences = tables(output)
    assert list(differences) == [metric.title for metric in METRICS.values()]
    for metric in METRICS.values():
        cell = differences[metric.title]['fused - mean']
        match = re.fullmatch(r'(\S+) \[(\S+), (\S+)\]( ✓| ✗)?', cell)
        assert match is not None
        value, low, high = (float(match[index]) for index in (1, 2, 3))
        assert low <= value <= high
        between = float(means['fused'][metric.title]) - float(means['mean'][metric.title])
        assert value == pytest.approx(between, rel=0.01, abs=0.02)
        if low > 0 or high < 0:
            assert match[4] == (' ✓' if (low > 0) == metric.higher_is_better else ' ✗')
    # The mean minimises the squared error, and has no edges of its own.
    assert differences['MSE ↓']['fused - mean'].endswith('✗')
    assert differences['SD ↑']['fused - mean'].endswith('✓')
    assert 'over 7 pairs with 95 % percentile intervals of a paired bootstrap' in output


@pytest.mark.parametrize(
    ('rows', 'columns'),
    [
        ('mean,fused', ['fused - mean']),
        ('mean,rd,fused,uniform', ['fused - rd', 'fused - uniform']),
        ('fused', None),
        ('mean,laplacian', None),
    ],
)
def test_differences_by_default(
    pairs: Path, capsys: pytest.CaptureFixture[str], rows: str, columns: list[str] | None
) -> None:
    arguments = ['--compare', rows, '-N', '1', '-S', '1', '--limit', '1', *QUICK]
    assert main([str(pairs), *arguments]) == 0
    output = capsys.readouterr().out
    rest = tables(output)[1:]
    assert [list(row['SSIM ↑']) for row in rest] == ([columns] if columns else [])
    assert ('1 pairs are too few for an interval, which needs 6' in output) == bool(columns)


def test_differences_to_a_row_that_is_not_there(
    pairs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(pairs), '--compare', 'mean', '--against', 'mean,rd']) == 2
    assert '--against needs fused, rd among the rows' in capsys.readouterr().err


@pytest.fixture
def peers(tmp_path: Path) -> list[str]:
    """Return the options for a file of scores: a perfect method, a hopeless one, one in part."""
    best = {name: 1e6 if metric.higher_is_better else -1e6 for name, metric in METRICS.items()}
    document = {
        'gflops': {'Best': 12.5},
        'street': {
            'Best': best,
            'Worst': {name: -value for name, value in best.items() if name != 'EI'},
            'Partial': {'SSIM': 1.5},
            'mean': best,
        },
    }
    path = tmp_path / 'peers.json'
    path.write_text(json.dumps(document), encoding='utf-8')
    return ['--peers', str(path), '--peers-set', 'street']


def test_other_methods_are_ranked_with_the_rows(
    pairs: Path, peers: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ['--compare', 'mean,laplacian', '--limit', '1']
    assert main([str(pairs), *arguments, *peers]) == 0
    captured = capsys.readouterr()
    rows = table(captured.out)
    assert list(rows) == ['mean', 'laplacian', 'Best', 'Worst', 'Partial']
    assert rows['Best']['mean rank ↓'] == 1
    assert rows['Worst']['mean rank ↓'] == 4
    assert rows['mean']['mean rank ↓'] + rows['laplacian']['mean rank ↓'] == 5
    assert 'mean rank ↓' not in rows['Partial']
    assert rows['Best']['GFLOP'] == 12.5
    assert 'EI ↑' not in rows['Worst']
    assert 'among the 4 rows mean, laplacian, Best, Worst.' in captured.out
    assert 'peers.json are means over more pairs' in captured.err

    # Counted for another size, operations cannot be compared.
    assert main([str(pairs), *arguments, *peers, '--time-size', '64x48']) == 0
    rows = table(capsys.readouterr().out)
    assert list(rows) == ['mean', 'laplacian', 'Best', 'Worst', 'Partial']
    assert 'GFLOP' not in rows['Best']


def test_other_methods_that_are_not_there(
    pairs: Path, peers: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(pairs), '--compare', 'mean', *peers, '--peers-set', 'night']) == 2
    captured = capsys.readouterr()
    assert captured.out == ''
    assert 'has no set night; it has street' in captured.err


@pytest.mark.parametrize(
    'arguments',
    [
        ['--peers', 'peers.json'],
        ['--peers-set', 'street'],
        ['--ablation', 'all', '--compare', 'mean'],
        ['--ablation', 'all', '--against', 'mean'],
        ['--ablation', 'steps', '-N', '3'],
    ],
)
def test_options_that_do_not_go_together(pairs: Path, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([str(pairs), *arguments])
    assert stop.value.code == 2


@pytest.mark.slow
def test_ablations(pairs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ['--ablation', 'all', '--limit', '1', '--prior', 'nano', *QUICK]
    assert main([str(pairs), *arguments]) == 0
    captured = capsys.readouterr()
    distance, interval, steps = tables(captured.out)
    assert list(distance) == ['none', 'l1', 'ssim', 'l2']
    assert list(interval) == ['S 1', 'S 5', 'S 10', 'S 20']
    assert list(steps) == ['N 15', 'N 20', 'N 25', 'N 50']
    names = ('PSNR_sum', 'SSIM', 'MSE', 'CC', 'Qabf', 'VIF')
    titles = [METRICS[name].title for name in names]
    assert list(steps['N 50']) == [*titles, 'denoiser calls', 'ms']
    # The same settings in all three tables, computed and timed once.
    assert distance['l2'] == interval['S 5'] == steps['N 25']
    assert captured.err.count('setting up') == 10
    assert distance['none'] != distance['l2'] != distance['l1']
    calls = [int(row['denoiser calls']) for row in (*interval.values(), *steps.values())]
    assert sorted(calls[:4], reverse=True) == calls[:4]
    assert sorted(calls[4:]) == calls[4:]
    assert 'LPIPS is missing' in captured.out


@pytest.mark.slow
def test_base_of_an_ablation_is_in_the_parameters(
    pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parameters = tmp_path / 'parameters.yaml'
    parameters.write_text(
        'fusion_node: {ros__parameters: {fusion: {temperature: 0.25, sampler: increments}}}\n',
        encoding='utf-8',
    )
    arguments = ['--ablation', 'interval', '--limit', '1', '--preset', str(parameters)]
    arguments += ['--prior', 'nano']
    assert main([str(pairs), *arguments, *QUICK]) == 0
    output = capsys.readouterr().out
    assert len(tables(output)) == 1
    settings = FusionSettings(**{**FUSIONS['dig_chain'].overrides, 'temperature': 0.25})
    assert f'Fixed in each table: {changed_settings(settings)}.' in output


def test_help_names_every_row(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(['--help'])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for name, fusion in FUSIONS.items():
        assert f'  {name}' in text
        assert fusion.meaning in text


# A folder of results

needs_matplotlib = pytest.mark.skipif(
    find_spec('matplotlib') is None, reason='matplotlib (extra "evaluation") is not installed'
)
NANO = ['--preset', 'realtime', '--device', 'cpu', '--time-size', 'pairs']


def realtime_fuser():
    """Return what the preset makes."""
    from dig2dig_ros.fusion.fuser import Fuser, FusionSettings

    return Fuser(FusionSettings(prior_downscale=4), prior='nano', device='cpu')


def summary_of(folder: Path) -> Any:
    def refuse(name: str) -> None:
        raise AssertionError(f'{name} is not JSON')

    text = (folder / 'summary.json').read_text(encoding='utf-8')
    return json.loads(text, parse_constant=refuse)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding='utf-8', newline='') as file:
        return list(csv.DictReader(file))


@needs_matplotlib
@pytest.mark.slow
def test_a_folder_of_results(
    pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (pairs / 'visible' / 'alone.png').write_bytes((pairs / 'visible' / 'one.png').read_bytes())
    (pairs / 'visible' / 'two.png').write_bytes(b'not an image')
    folder = tmp_path / 'results' / 'street'
    assert main([str(pairs), *NANO, '-o', str(folder)]) == 1
    captured = capsys.readouterr()
    assert f'written: {folder / "report.html"}' in captured.err
    video = next(folder.glob('video.*')).name
    assert {path.name for path in folder.iterdir()} == {
        *('metrics.csv', 'timing.csv', 'summary.json', 'report.html', 'fused', video),
    }
    assert {path.name for path in (folder / 'fused').iterdir()} == {'one.png', 'three.png'}
    visible = cv2.imread(str(pairs / 'visible' / 'one.png'), cv2.IMREAD_COLOR)
    thermal = cv2.imread(str(pairs / 'thermal' / 'one.png'), cv2.IMREAD_GRAYSCALE)
    result = realtime_fuser().fuse(visible, thermal)
    saved = cv2.imread(str(folder / 'fused' / 'one.png'), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(saved, result.image)

    rows, summary = rows_of(folder / 'metrics.csv'), summary_of(folder)
    assert [(row['pair'], row['method']) for row in rows] == [
        (name, method) for name in ('one', 'three') for method in ('mean', 'laplacian', 'fused')
    ]
    assert 'ms' not in rows[0]
    printed = table(captured.out)
    for method in ('mean', 'laplacian', 'fused'):
        for name, metric in METRICS.items():
            values = [float(row[name]) for row in rows if row['method'] == method]
            assert summary['metrics'][method][name] == pytest.approx(np.mean(values))
            shown = pytest.approx(float(np.mean(values)), rel=1e-3, abs=1e-4)
            assert printed[method][metric.title] == shown
    weights = [float(row['mean weight of visible']) for row in rows if row['method'] == 'fused']
    assert weights[0] == pytest.approx(float(result.weights[0].mean()))
    assert summary['mean_weights']['visible'] == pytest.approx(np.mean(weights))
    assert (summary['pairs'], summary['interrupted']) == (2, False)
    assert (summary['skipped'], summary['unpaired']) == (['two'], ['visible/alone.png'])
    assert summary['sizes'] == ['64x48']
    assert summary['task'] == 'visible-thermal'
    assert summary['fuser']['prior'] == 'nano'
    assert {'numpy', 'torch'} <= set(summary['versions'])
    assert len(rows_of(folder / 'timing.csv')) == 6
    page = (folder / 'report.html').read_text(encoding='utf-8')
    for text in ('pairs: fusion evaluated', 'skipped, as they could', 'alone.png', 'fused/'):
        assert text in page


@needs_matplotlib
@pytest.mark.slow
def test_results_are_the_same_bytes_and_replaced_only_if_asked_for(
    pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / 'results'
    arguments = [str(pairs), *NANO, '--compare', 'fused,mean', '-o', str(folder)]
    assert main(arguments) == 0
    before = (folder / 'metrics.csv').read_bytes()
    (folder / 'notes.txt').write_text('mine', encoding='utf-8')
    assert main(arguments) == 2
    assert f'{folder} is not empty: choose another --output' in capsys.readouterr().err
    assert main([*arguments, '--overwrite']) == 0
    assert (folder / 'metrics.csv').read_bytes() == before
    assert (folder / 'notes.txt').read_text(encoding='utf-8') == 'mine'
    # A mistake in what was asked for costs nothing.
    assert main([*arguments, '--overwrite', '--detector', 'none.onnx']) == 2
    assert (folder / 'metrics.csv').read_bytes() == before
    (folder / 'fused' / 'mine.png').touch()
    assert main([*arguments, '--overwrite', '--limit', '1']) == 0
    kept = {row['pair'] for row in rows_of(folder / 'metrics.csv')}
    assert len(kept) == 1
    assert {path.stem for path in (folder / 'fused').iterdir()} == {*kept, 'mine'}
    # Results of before do not stand beside those of a run that comes to nothing.
    for path in (pairs / 'visible').iterdir():
        path.write_bytes(b'')
    assert main([*arguments, '--overwrite']) == 2
    assert not (folder / 'summary.json').exists()
    assert not (folder / 'report.html').exists()
    file = tmp_path / 'file'
    file.touch()
    assert main([str(pairs), *NANO, '-o', str(file), '--overwrite']) == 2
    assert f'{file} is a file: choose another --output' in capsys.readouterr().err


def test_a_folder_of_results_needs_the_fusion(
    pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / 'results'
    assert main([str(pairs), '--compare', 'mean', '-o', str(folder)]) == 2
    assert '--output needs the row fused: add it to --compare' in capsys.readouterr().err
    assert not folder.exists()


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Return a folder of one pair, each of which has another half in focus, in colour."""
    sharp = structure(40, (48, 64, 3))
    blurred = cv2.GaussianBlur(sharp, (0, 0), 3)
    folder = tmp_path / 'focus'
    folder.mkdir()
    for side, columns in (('A', slice(0, 32)), ('B', slice(32, 64))):
        image = blurred.copy()
        image[:, columns] = sharp[:, columns]
        assert cv2.imwrite(str(folder / f'scene_{side}.png'), image)
    return folder


@needs_matplotlib
def test_photographs_of_a_task_keep_the_colour_of_both(
    photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from dig2dig_ros.fusion.fuser import Fuser

    folder = tmp_path / 'results'
    arguments = [str(photographs), '--compare', 'mean,fused', '--time-size', 'pairs']
    task = ['--task', 'multi-focus', '--device', 'cpu', '-o', str(folder)]
    assert main([*arguments, *task]) == 0
    assert 'the second images have colour' not in capsys.readouterr().err
    first, second = (
        cv2.imread(str(photographs / f'scene_{side}.png'), cv2.IMREAD_COLOR) for side in 'AB'
    )
    settings = fusion_settings(load_parameters('multi_focus'))
    result = Fuser(settings, device='cpu').fuse(first, second)
    saved = cv2.imread(str(folder / 'fused' / 'scene.png'), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(saved, result.image)
    # Each half is that of the photograph in which it is sharp, colour included.
    sharp = structure(40, (48, 64, 3))
    for columns, blurred in ((slice(4, 24), second), (slice(40, 60), first)):
        own, other = (
            np.abs(image[:, columns].astype(int) - sharp[:, columns]).mean()
            for image in (saved, blurred)
        )
        assert own < other / 2
    summary = summary_of(folder)
    assert summary['task'] == 'multi-focus'
    assert set(summary['mean_weights']) == {'first', 'second'}
    assert 'mean weight of second' in rows_of(folder / 'metrics.csv')[0]


def test_photographs_without_a_task_get_a_hint(
    photographs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(photographs), '--compare', 'mean', '--time-size', 'pairs']
    assert main(arguments) == 0
    captured = capsys.readouterr()
    assert '--task multi-focus or multi-exposure chooses parameters for them' in captured.err
    assert main([*arguments, '--task', 'visible-thermal']) == 2
    assert 'scene_B.png: the thermal image looks like a colour palette' in capsys.readouterr().err


def test_a_folder_of_thermal_images_in_a_palette_is_refused(
    pairs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (pairs / 'thermal').iterdir():
        grey = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        assert cv2.imwrite(str(path), cv2.applyColorMap(grey, cv2.COLORMAP_JET))
    arguments = [str(pairs), '--compare', 'mean', '--time-size', 'pairs']
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert 'the thermal image looks like a colour palette (false colour)' in error
    assert 'if it is a photograph, use --task multi-focus or multi-exposure' in error


class Bright:
    """Stands in for the network: everything that is bright is one person."""

    options: dict[str, Any]

    def __init__(self, path: Path, **options: Any) -> None:
        self._name = path.name
        type(self).options = options

    def describe(self) -> str:
        return self._name

    def detect(self, image: Image) -> Detections:
        rows, columns = np.nonzero(luma(image) > 128)
        box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        return Detections(np.array([box], dtype=np.float64), np.array([0.9]))


@pytest.fixture
def detector(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the arguments that choose the stand-in of the detector."""
    monkeypatch.setattr('dig2dig_ros.evaluation.detector.Detector', Bright)
    return ['--time-size', 'pairs', '--detector', 'bright.onnx']


@needs_matplotlib
@pytest.mark.slow
def test_a_detector_sees_sources_and_fusions(
    pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], detector: list[str]
) -> None:
    labels = {'boxes': {'one': [[0, 0, 64, 48]], 'three': [[0, 0, 64, 48]]}}
    (pairs / 'labels.json').write_text(json.dumps(labels), encoding='utf-8')
    folder = tmp_path / 'results'
    arguments = ['--compare', 'mean,fused', '-o', str(folder), '--night', 'th*', '--night', 'x']
    assert main([str(pairs), *NANO, *detector, *arguments]) == 0
    captured = capsys.readouterr()
    assert 'detector: bright.onnx, NMS 0.6, score 0.25' in captured.out
    precision, groups = tables(captured.out)[-2:]
    assert list(precision) == list(groups) == ['visible', 'thermal', 'mean', 'fused']
    assert list(groups['mean']) == [
        *('missed near (2)', 'missed medium (0)', 'missed far (0)'),
        *('AP50 day (1)', 'missed day (1)', 'AP50 night (1)', 'missed night (1)'),
    ]
    assert 'the name fits th* or x' in captured.out
    found = summary_of(folder)['detection']
    assert (found['frames'], found['labelled']) == (3, 2)
    assert list(found['inputs']) == ['visible', 'thermal', 'mean', 'fused']
    assert 'Persons found by the detector' in (folder / 'report.html').read_text(encoding='utf-8')


def test_labels_may_be_named_after_one_of_the_two_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], detector: list[str]
) -> None:
    folder, labels = tmp_path / 'pairs', tmp_path / 'labels'
    folder.mkdir()
    labels.mkdir()
    thermal = np.zeros((48, 64), np.uint8)
    thermal[8:40, 8:24] = 240
    assert cv2.imwrite(str(folder / 'one_A.png'), structure(0, (48, 64, 3)))
    assert cv2.imwrite(str(folder / 'one_B.png'), thermal)
    (labels / 'one_B.txt').write_text('4 0.25 0.5 0.25 0.6666667\n', encoding='utf-8')
    arguments = ['--labels', str(labels), '--label-class', '4', '--compare', 'mean']
    assert main([str(folder), *detector, *arguments]) == 0
    assert tables(capsys.readouterr().out)[1]['thermal']['AP50'] == '100.0'


def test_without_labels_the_agreement_of_the_inputs_is_measured(
    pairs: Path, capsys: pytest.CaptureFixture[str], detector: list[str]
) -> None:
    assert main([str(pairs), *detector, '--compare', 'mean']) == 0
    output = capsys.readouterr().out
    agreement, fusions = tables(output)[1:]
    assert list(fusions) == ['mean']
    assert list(agreement) == ['visible', 'thermal', 'mean']
    assert 'Agreement is not truth' in output


def test_options_reach_the_detector(
    pairs: Path, capsys: pytest.CaptureFixture[str], detector: list[str]
) -> None:
    arguments = [str(pairs), *detector, '--compare', 'mean', '--limit', '1']
    options = ['--detector-size', '320', '--person-class', '2']
    options += ['--iou', '0.5']
    assert main([*arguments, *options]) == 0
    assert Bright.options == {'size': 320, 'person_class': 2, 'iou': 0.5}
    capsys.readouterr()
    assert main([*arguments, '--person-class', 'person']) == 2
    assert "--person-class is 'person', but " in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(
    find_spec('onnxruntime') is None, reason='onnxruntime (extra "detection") is not installed'
)
def test_a_public_detector_on_a_street_pair(
    shared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, folder = shared / 'models' / 'yolox_nano_coco.onnx', shared / 'data' / 'llvip'
    if not model.is_file() or not folder.is_dir():
        pytest.skip('detector or street pairs are not there')
    arguments = ['--detector', str(model), '--limit', '1', '--compare', 'mean']
    arguments += ['--time-size', 'pairs']
    assert main([str(folder), *arguments, '--score', '0.3']) == 0
    output = capsys.readouterr().out
    row = tables(output)[1]['mean']
    assert float(row['AP50']) > 80
    assert (row['boxes'], row['images']) == ('6', '1')
    assert 'yolox_nano_coco.onnx (yolox, 640x640, CPU)' in output


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--detector', 'none.onnx'], 'none.onnx does not exist'),
        (
            ['--detector', 'none.onnx', '--labels', 'none.json'],
            'none.json do not exist',
        ),
        (['--lpips', 'alex'], 'pip install lpips'),
        (['--task', 'multi-focus', '--preset', 'nowhere'], 'neither a file nor a preset'),
    ],
)
def test_files_that_are_not_there(
    pairs: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main([str(pairs), '--compare', 'mean', *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ''
    assert message in captured.err


def test_lpips_is_a_column_where_asked_for(
    pairs: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from evaluation.test_perceptual import install_stand_in

    install_stand_in(monkeypatch, tmp_path)
    arguments = [str(pairs), '--compare', 'mean', '--limit', '1', '--time-size', 'pairs']
    assert main([*arguments, '--lpips', 'alex']) == 0
    output = capsys.readouterr().out
    assert table(output)['mean']['LPIPS ↓'] > 0
    assert 'LPIPS is missing' not in output


def interrupt_after(lines: int, path: Path) -> threading.Thread:
    """Send SIGINT to this process once a file has so many lines."""

    def watch() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if path.exists() and path.read_text(encoding='utf-8').count('\n') >= lines:
                os.kill(os.getpid(), signal.SIGINT)
                return
            time.sleep(0.005)

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


@needs_matplotlib
@pytest.mark.slow
def test_ctrl_c_ends_with_what_there_is(
    pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_pairs(pairs, 300)
    folder = tmp_path / 'results'
    before = signal.getsignal(signal.SIGINT)
    watcher = interrupt_after(3, folder / 'metrics.csv')
    code = main([str(pairs), *NANO, '--compare', 'fused', '-o', str(folder)])
    watcher.join()
    assert code == 130
    assert signal.getsignal(signal.SIGINT) is before
    captured = capsys.readouterr()
    assert (
        'interrupted: finishing with the results so far; press again to stop at once'
        in captured.err
    )
    summary = summary_of(folder)
    done = summary['pairs']
    assert 2 <= done < 303
    assert summary['interrupted'] is True
    assert f'interrupted after {done} of 303 pairs' in summary['warnings']
    assert len(rows_of(folder / 'metrics.csv')) == done
    assert len(list((folder / 'fused').iterdir())) == done
    assert f'{done} pairs of' in captured.out
    assert 'interrupted after' in (folder / 'report.html').read_text(encoding='utf-8')


@needs_matplotlib
@pytest.mark.slow
def test_ctrl_c_while_the_report_is_written_does_not_cost_it(
    pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish = pair_evaluation.Study.finish

    def interrupted(*arguments: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return finish(*arguments)

    monkeypatch.setattr(pair_evaluation.Study, 'finish', interrupted)
    folder = tmp_path / 'results'
    assert main([str(pairs), *NANO, '--compare', 'fused', '-o', str(folder)]) == 130
    summary = summary_of(folder)
    # All pairs were evaluated by then.
    assert (summary['pairs'], summary['interrupted'], summary['warnings']) == (3, False, [])
    assert (folder / 'report.html').is_file()


def test_ctrl_c_before_the_first_pair(
    pairs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    load = pair_evaluation.load_pair

    def interrupted(*arguments: Any, **options: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        (pairs / 'visible' / 'one.png').write_bytes(b'')
        return load(*arguments, **options)

    monkeypatch.setattr(pair_evaluation, 'load_pair', interrupted)
    assert main([str(pairs), '--compare', 'mean', '--time-size', 'pairs']) == 130
    captured = capsys.readouterr()
    assert captured.out == ''
    assert 'interrupted before the first pair' in captured.err


@pytest.mark.slow
def test_ablations_get_a_report_too(pairs: Path, tmp_path: Path) -> None:
    output = tmp_path / 'report'
    arguments = ['--ablation', 'steps', '--limit', '2', '--prior', 'nano', *QUICK]
    arguments += ['-o', str(output)]
    assert main([str(pairs), *arguments]) == 0
    page = (output / 'report.html').read_text(encoding='utf-8')
    title = ABLATIONS['steps'].title
    assert f'SSIM ↑ against time: {title}' in page
    summary = json.loads((output / 'summary.json').read_text(encoding='utf-8'))
    assert list(summary['metrics']) == ['steps_N_15', 'steps_N_20', 'steps_N_25', 'steps_N_50']
    assert summary['fuser']['N'] == 15


@pytest.mark.slow
@needs_matplotlib
def test_conditions_have_tables_of_their_own(
    pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], detector: list[str]
) -> None:
    labels = {'boxes': {'one': [[0, 0, 64, 48]], 'three': [[0, 0, 64, 48]]}}
    (pairs / 'labels.json').write_text(json.dumps(labels), encoding='utf-8')
    folder = tmp_path / 'results'
    arguments = ['--conditions', 'clean,fog:severe,shift', '-o', str(folder)]
    assert main([str(pairs), *NANO, *detector, *arguments]) == 0
    under, over = tables(capsys.readouterr().out)[-2:]
    rows = ['visible', 'thermal', 'mean', 'block_means', 'fused', 'late_nms', 'late_noisy_or']
    assert list(over) == [*rows, 'boxes', 'boxes_unweighted']
    assert list(under) == ['clean', 'fog:severe', 'shift:medium', 'mean']
    summary = summary_of(folder)['conditions']
    assert (summary['images'], summary['persons'], summary['truth']) == (2, 2, 'labels')
    assert list(summary['ap50']['fog:severe']) == list(over)
    assert 'fog:severe' in (folder / 'report.html').read_text(encoding='utf-8')


def test_conditions_need_a_detector_and_thermal_images(
    pairs: Path, capsys: pytest.CaptureFixture[str], detector: list[str]
) -> None:
    assert main([str(pairs), '--conditions', 'all']) == 2
    assert '--conditions needs --detector' in capsys.readouterr().err
    assert main([str(pairs), *detector, '--conditions', 'fog', '--task', 'multi-focus']) == 2
    assert 'needs visible and thermal images' in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([str(pairs), *detector, '--conditions', 'rain'])
    assert 'unknown condition rain' in capsys.readouterr().err


def test_halves_share_no_pair(pairs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    counts = {'choose': ('one', 'two'), 'quote': ('three',)}
    for half, names in counts.items():
        assert main([str(pairs), '--compare', 'mean', '--half', half]) == 0
        errors = capsys.readouterr().err
        assert [name for name in SHAPES if f'] {name}: done' in errors] == list(names)
    assert main([str(pairs), '--compare', 'mean', '--half', 'quote', '--limit', '1']) == 0


def test_a_plugin_is_a_row(
    pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plugin = tmp_path / 'darker.py'
    plugin.write_text(
        'def load():\n    return 2\n\n'
        'def fuse(model, visible, thermal):\n    return thermal // model\n',
        encoding='utf-8',
    )
    arguments = [str(pairs), '--compare', 'mean', '--plugin', str(plugin)]
    assert main(arguments) == 0
    assert list(tables(capsys.readouterr().out)[0]) == ['mean', 'darker']
    assert main([*arguments, '--plugin', str(plugin)]) == 2
    assert 'two rows are named darker' in capsys.readouterr().err
    assert main([str(pairs), '--compare', 'mean', '--plugin', 'none.py']) == 2
    assert 'does not exist' in capsys.readouterr().err
