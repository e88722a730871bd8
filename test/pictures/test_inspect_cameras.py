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

"""The pictures of cameras in the documentation, on a tiny street."""

from importlib.util import find_spec
import re

from camera_trials import both, regularly, Robot, Street
import cv2
from inspect_cameras import BEHAVIOURS, main
import numpy as np
import pytest
from sheets import crop, Curves, draw, Panel, Sheet

needs_matplotlib = pytest.mark.skipif(
    find_spec('matplotlib') is None, reason='matplotlib (extra "evaluation") is not installed'
)

TINY = ['--size', '64x48', '--device', 'cpu', '--prior', 'nano']


def figures(output, pattern):
    """Return the numbers that stand in the places of a pattern's groups."""
    found = re.search(pattern, output)
    assert found is not None, output
    return [float(text) for text in found.groups()]


def picture(data):
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None
    return decoded


@pytest.fixture(scope='module')
def robot():
    from dig2dig_ros.fusion.fuser import Fuser

    return Robot(Fuser(prior='nano', device='cpu'))


@pytest.fixture(scope='module')
def street():
    return Street((64, 48), seed=0)


@needs_matplotlib
@pytest.mark.slow
def test_pictures_and_figures_of_what_was_asked_for(tmp_path, capsys):
    folder = tmp_path / 'new' / 'pictures'
    arguments = [*TINY, '--only', 'frozen', 'false_colour', '--output', str(folder)]
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    files = [folder / f'cameras_{name}.jpg' for name in ('frozen', 'false_colour')]
    assert sorted(folder.iterdir()) == sorted(files)
    for path, line in zip(files, lines, strict=True):
        assert line.endswith(f' -> {path}')
        assert path.stat().st_size < 150_000
        drawn = picture(path.read_bytes())
        assert drawn.shape[0] > 300
        assert drawn.shape[1] == 1000
        # More than an empty sheet.
        assert 0.1 < (drawn < 200).any(axis=2).mean() < 0.9
    before, frozen, after, noticed = figures(
        lines[0],
        r'weight ([\d.]+) before, ([\d.]+) while frozen, ([\d.]+) after; noticed after ([\d.]+) s',
    )
    assert before > 0.2
    assert frozen == 0
    assert after == pytest.approx(before, rel=0.3)
    assert 0 < noticed < 0.5
    refused, pairs = figures(lines[1], r'(\d+) of (\d+) pairs refused: thermal refused: .*mono16')
    assert (refused, pairs) == (10, 31)


@pytest.mark.slow
def test_figures_alone_need_no_matplotlib(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(__import__('sys').modules, 'matplotlib.figure', None)
    assert main([*TINY, '--only', 'late', 'faults']) == 0
    late, faults = capsys.readouterr().out.splitlines()
    assert '.jpg' not in late + faults
    assert figures(late, r'offset 0: exposed ([\d.]+) s .*offset -0.3: exposed ([\d.]+) s') == [
        0.3,
        0.0,
    ]
    weights = figures(
        faults,
        r'visible lens covered \(black\): mean visible weight ([\d.]+) before, ([\d.]+) with',
    )
    assert weights[0] > 0.2
    assert weights[1] == 0
    before, after, trust = figures(
        faults,
        r'no red channel \(dead channel\): mean visible weight ([\d.]+) before, ([\d.]+) with it, '
        r'trust ([\d.]+)',
    )
    assert 0 < after < before
    assert trust == 0.7

    assert main([*TINY, '--only', 'late', '--output', str(tmp_path)]) == 2
    assert 'pip install matplotlib' in capsys.readouterr().err


@pytest.mark.slow
def test_degradations_are_those_of_the_cameras_that_are_named(capsys):
    assert main([*TINY, '--only', 'degradations']) == 0
    output = capsys.readouterr().out
    for what in ('thermal noise auto', 'visible low_light'):
        plain, declared = figures(output, rf'[:;] {what}: ([\d.]+), ([\d.]+)')
        assert plain < declared


@pytest.mark.slow
def test_camera_info_removes_distortion(capsys):
    assert main([*TINY[2:], '--size', '160x128', '--only', 'lens']) == 0
    (remaining,) = figures(capsys.readouterr().out, r'([\d.]+) \(thermal is [^)]*\) with K and D')
    assert remaining < 1


@pytest.mark.parametrize(
    ('arguments', 'reason'),
    [
        (['--size', '32x32'], '32x32'),
        (['--seed', '-1'], '-1'),
        (['--prior', 'none-such'], 'none-such'),
        (['--device', 'none-such'], 'none-such'),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(arguments, reason, capsys):
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ''
    error = captured.err.splitlines()[-1]
    assert error.startswith('inspect_cameras: ')
    assert reason in error


@needs_matplotlib
def test_a_file_is_no_folder_for_pictures(tmp_path, capsys):
    path = tmp_path / 'file'
    path.touch()
    assert main([*TINY, '--output', str(path)]) == 2
    assert str(path) in capsys.readouterr().err


@pytest.mark.parametrize('arguments', [['--only', 'none-such'], ['--only'], ['--size', '320']])
def test_wrong_options_are_refused(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2


def test_help_names_all_behaviours(capsys):
    with pytest.raises(SystemExit):
        main(['--help'])
    output = capsys.readouterr().out
    assert all(name in output for name in BEHAVIOURS)


def test_a_recording_is_the_same_again_and_its_faults_are_in_it(street):
    times = both(regularly(1.0))
    first, second = (
        street.record(0.0, times, faults=['drop visible 0.5 0.2', 'late thermal 0 0 0.3'])
        for _ in range(2)
    )
    assert [(shot.source, shot.time) for shot in first] == sorted(
        [('visible', time) for time in times['visible'] if time not in (0.5, 0.6)]
        + [('thermal', time) for time in times['thermal']],
        key=lambda shot: (shot[1], shot[0] == 'thermal'),
    )
    for one, other in zip(first, second, strict=True):
        assert one.stamp == other.stamp
        assert bytes(one.message.data) == bytes(other.message.data)
    late = [shot.stamp * 1e-9 - 1000 - shot.time for shot in first if shot.source == 'thermal']
    np.testing.assert_allclose(late, 0.3, atol=1e-6)


def test_the_robot_fuses_only_what_is_wanted(street, robot):
    shots = street.record(0.0, both(regularly(1.0)))
    course = robot.run(shots, wanted=[0.5])
    assert len(course.outcomes) == 11
    assert [each.time for each in course.outcomes if each.fused is not None] == [0.5]
    chosen = course.at(0.5)
    assert chosen is not None
    assert chosen.fused.shape == (48, 64, 3)
    assert chosen.conditions == {'visible': 'sound', 'thermal': 'sound'}
    assert chosen.exposures == {'visible': 0.5, 'thermal': 0.5}
    assert course.at(3.0) is None
    assert np.isnan(course.mean_weight(0.0, 0.3))
    assert course.mean_weight(0.0, 1.0) == pytest.approx(chosen.weight)


def test_a_missing_camera_ends_in_an_image_alone(street, robot):
    shots = street.record(0.0, both(regularly(1.5)), faults=['drop thermal 0.3 0'])
    values = {'missing_modality': 'visible', 'stale_timeout': 0.5}
    alone = [each for each in robot.run(shots, values).outcomes if 'thermal' not in each.sent]
    assert alone
    assert alone[0].time > 0.2 + 0.5
    assert {each.weight for each in alone} == {0.0}
    assert not [each for each in robot.run(shots).outcomes if 'thermal' not in each.sent]


@pytest.mark.parametrize(
    ('box', 'corner'),
    [((20, 10, 30, 20), (17, 10)), ((60, 40, 64, 48), (51, 40)), ((0, 0, 4, 8), (0, 0))],
)
def test_a_crop_is_around_the_box_and_within_the_image(box, corner):
    rows, columns = np.mgrid[:48, :64]
    image = np.stack([columns, rows], axis=-1)
    cut = crop(image, box, 1.0, 1.6)
    assert cut.shape[1] == round(1.6 * cut.shape[0])
    assert tuple(cut[0, 0]) == corner


@needs_matplotlib
def test_a_sheet_holds_cards_bars_and_curves():
    image = np.full((48, 64), 90, np.uint8)
    panels = [Panel(image, 'a', share=0.25, frame=True), Panel(None, 'b', 'nothing')]
    curves = Curves(
        'weight', {'thermal': ([0, 1, 2], [0.5, np.nan, 0.5])}, [(1, 2, 'x')], {'a': 1}
    )
    without = picture(draw(Sheet('title', 'note', [('row', panels)])))
    drawn = picture(draw(Sheet('title', 'note', [('row', panels)], [curves])))
    assert drawn.shape[0] > without.shape[0] + 100
    # Blue: a quarter of the bar is thermal.
    bar = drawn[(drawn[:, :, 0].astype(int) - drawn[:, :, 2] > 100).any(axis=1)]
    blue = (bar[:, :500, 0].astype(int) - bar[:, :500, 2] > 100).sum()
    orange = (bar[:, :500, 2].astype(int) - bar[:, :500, 0] > 100).sum()
    assert blue == pytest.approx(3 * orange, rel=0.2)
