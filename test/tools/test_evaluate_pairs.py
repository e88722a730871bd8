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
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
import pytest

from dig2dig_ros.evaluation.baselines import mean, to_uint8
from dig2dig_ros.evaluation.metrics import evaluate_pair, luma, METRICS
from dig2dig_ros.tools import evaluate_pairs
from dig2dig_ros.tools.evaluate_pairs import load_parameters, main, UsageError

pytestmark = pytest.mark.skipif(
    find_spec('skimage') is None, reason='scikit-image (extra "evaluation") is not installed'
)

Image = NDArray[np.uint8]
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


def table(output: str) -> dict[str, dict[str, float]]:
    """Parse the Markdown table that the tool prints, after checking that it is aligned."""
    lines = [line for line in output.splitlines() if line.startswith('|')]
    assert len({len(line) for line in lines}) == 1
    cells = [[cell.strip() for cell in line.strip('|').split('|')] for line in lines]
    assert all(set(cell) <= {'-', ':'} for cell in cells[1])
    return {row[0]: dict(zip(cells[0][1:], map(float, row[1:]), strict=True)) for row in cells[2:]}


def test_table_holds_the_means_of_every_metric(
    pairs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(pairs), '--compare', 'laplacian,mean']) == 0
    captured = capsys.readouterr()
    rows = table(captured.out)
    assert list(rows) == ['laplacian', 'mean']
    assert list(rows['mean']) == [*(metric.title for metric in METRICS.values()), 'ms']

    expected = []
    for name in SHAPES:
        visible = luma(cv2.imread(str(pairs / 'visible' / f'{name}.png'), cv2.IMREAD_COLOR))
        thermal = cv2.imread(str(pairs / 'thermal' / f'{name}.png'), cv2.IMREAD_GRAYSCALE)
        expected.append(evaluate_pair(to_uint8(mean([visible, thermal])), visible, thermal))
    for name, metric in METRICS.items():
        value = np.mean([row[name] for row in expected])
        assert rows['mean'][metric.title] == pytest.approx(value, rel=1e-3, abs=1e-4), name
    assert '3 pairs of 52x44 to 64x48 pixels' in captured.out
    assert '[3/3]' in captured.err


def test_limit_takes_the_first_pairs(pairs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(pairs), '--compare', 'mean', '--limit', '1']) == 0
    assert '1 pair of 64x48 pixels' in capsys.readouterr().out


def test_csv_and_images(pairs: Path, tmp_path: Path) -> None:
    lines = tmp_path / 'values.csv'
    images = tmp_path / 'new' / 'images'
    arguments = ['--compare', 'mean,laplacian', '--csv', str(lines), '--save', str(images)]
    assert main([str(pairs), *arguments]) == 0
    with lines.open(encoding='utf-8', newline='') as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    assert {path.name for path in images.iterdir()} == {
        f'{row["pair"]}__{row["method"]}.png' for row in rows
    }
    row = next(row for row in rows if (row['pair'], row['method']) == ('two', 'laplacian'))
    assert (row['width'], row['height']) == ('52', '44')
    saved = cv2.imread(str(images / 'two__laplacian.png'), cv2.IMREAD_UNCHANGED)
    visible = luma(cv2.imread(str(pairs / 'visible' / 'two.png'), cv2.IMREAD_COLOR))
    thermal = cv2.imread(str(pairs / 'thermal' / 'two.png'), cv2.IMREAD_GRAYSCALE)
    values = evaluate_pair(saved, visible, thermal)
    assert {name: float(row[name]) for name in METRICS} == pytest.approx(values)


def test_wide_thermal_counts_are_mapped_for_all_methods(
    pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = pairs / 'thermal' / 'one.png'
    counts = 7000 + 5 * cv2.imread(str(path), cv2.IMREAD_GRAYSCALE).astype(np.uint16)
    assert cv2.imwrite(str(path), counts)
    parameters = tmp_path / 'fixed.yaml'
    parameters.write_text(
        'fusion_node:\n'
        '  ros__parameters:\n'
        '    thermal_range: fixed\n'
        '    thermal_range_limits: [7000.0, 8275.0]\n',
        encoding='utf-8',
    )
    arguments = [str(pairs), '--compare', 'mean', '--limit', '1']
    assert main([*arguments, '--params', str(parameters)]) == 0
    mapped = table(capsys.readouterr().out)['mean']
    assert cv2.imwrite(str(path), ((counts - 7000) // 5).astype(np.uint8))
    assert main(arguments) == 0
    plain = table(capsys.readouterr().out)['mean']
    del mapped['ms'], plain['ms']
    assert mapped == plain


@pytest.mark.parametrize('problem', ['broken', 'other size'])
def test_a_pair_that_fails_is_named_and_skipped(
    pairs: Path, capsys: pytest.CaptureFixture[str], problem: str
) -> None:
    path = pairs / 'thermal' / 'two.png'
    if problem == 'broken':
        path.write_bytes(b'not an image')
    else:
        assert cv2.imwrite(str(path), structure(5, (60, 60)))
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
    assert 'without a counterpart, left out: thermal/two.png' in captured.err


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
    monkeypatch.setitem(evaluate_pairs.sys.modules, 'skimage.metrics', None)
    assert main([str(pairs), '--compare', 'mean']) == 2
    assert 'pip install scikit-image' in capsys.readouterr().err


@pytest.mark.parametrize(
    'arguments',
    [['--compare', 'mean,median'], ['--compare', ','], ['--limit', '0'], ['-N', '0'], ['-S', 'x']],
)
def test_bad_arguments_are_refused(
    pairs: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main([str(pairs), *arguments])
    assert stop.value.code == 2
    assert f'argument {arguments[0]}' in capsys.readouterr().err


def test_parameters_of_the_node_win_over_the_wildcard(tmp_path: Path) -> None:
    path = tmp_path / 'parameters.yaml'
    path.write_text(
        '/fusion_node: {ros__parameters: {seed: 7}}\n'
        '/**: {ros__parameters: {seed: 1, num_inference_steps: 4}}\n'
        'pair_camera: {ros__parameters: {seed: 9}}\n',
        encoding='utf-8',
    )
    assert load_parameters(str(path)) == {'seed': 7, 'num_inference_steps': 4}


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('seed: 1', 'has no ros__parameters for fusion_node'),
        ('- 1', 'has no ros__parameters'),
        ('', 'has no ros__parameters'),
        ('other: {ros__parameters: {seed: 1}}', 'has no ros__parameters'),
        ('{', 'cannot be read as YAML'),
    ],
)
def test_files_that_set_nothing_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / 'parameters.yaml'
    path.write_text(text, encoding='utf-8')
    with pytest.raises(UsageError, match=message):
        load_parameters(str(path))


def test_unknown_preset_is_refused() -> None:
    with pytest.raises(UsageError, match='neither a file nor a preset'):
        load_parameters('no_such_preset')


def test_fused_is_what_the_fuser_makes(
    pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from dig2dig_ros.fusion.fuser import Fuser, FusionSettings

    parameters = tmp_path / 'parameters.yaml'
    parameters.write_text(
        'fusion_node:\n'
        '  ros__parameters:\n'
        '    num_inference_steps: 5\n'
        '    temperature: 0.25\n'
        '    precision: fp32\n'
        '    warmup_size: [64, 48]\n'
        '    sync_tolerance: 0.1\n',
        encoding='utf-8',
    )
    arguments = ['--params', str(parameters), '-N', '2', '-S', '1', '--device', 'cpu']
    arguments += ['--limit', '2', '--save', str(tmp_path)]
    assert main([str(pairs), *arguments]) == 0
    output = capsys.readouterr().out
    rows = table(output)
    assert list(rows) == ['mean', 'laplacian', 'fused']
    assert rows['fused']['ms'] > 0
    assert 'N 2' in output
    assert 'S 1' in output

    settings = FusionSettings(num_inference_steps=2, dig_refresh_interval=1, temperature=0.25)
    fuser = Fuser(settings, device='cpu', precision='fp32')
    visible = cv2.imread(str(pairs / 'visible' / 'three.png'), cv2.IMREAD_COLOR)
    thermal = cv2.imread(str(pairs / 'thermal' / 'three.png'), cv2.IMREAD_GRAYSCALE)
    saved = cv2.imread(str(tmp_path / 'three__fused.png'), cv2.IMREAD_UNCHANGED)
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
