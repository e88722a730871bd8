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

from collections.abc import Callable
from importlib.util import find_spec
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
import pytest

from dig2dig_ros.evaluation import detecting
from dig2dig_ros.evaluation.detection import Detections, DetectorError
from dig2dig_ros.tools import evaluate_detection
from dig2dig_ros.tools.evaluate_detection import main

Image = NDArray[np.uint8]
WIDTH, HEIGHT = 96, 64
# A person whom both cameras see, and one whom the thermal camera alone sees.
SEEN, HIDDEN = [8, 8, 24, 48], [56, 16, 72, 56]


class BrightAreas:
    """Stands in for the network: finds bright areas, and keeps the images it was shown."""

    shown: list[Image]
    options: dict[str, Any]

    def __init__(self, path: Path, **options: Any) -> None:
        if not path.is_file():
            raise DetectorError(f'there is no detector {path}')
        type(self).shown = []
        type(self).options = options

    def describe(self) -> str:
        return 'bright areas'

    def detect(self, image: Image) -> Detections:
        self.shown.append(image)
        grey = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
        _, _, statistics, _ = cv2.connectedComponentsWithStats((grey >= 100).astype(np.uint8))
        x, y, width, height = statistics[1:, :4].T.astype(np.float64)
        boxes = np.stack([x, y, x + width, y + height], axis=1)
        scores = np.array([grey[int(b[1]) + 4, int(b[0]) + 4] / 255 for b in boxes])
        order = np.argsort(-scores)
        return Detections(boxes[order], scores[order])


@pytest.fixture
def detector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the arguments that choose the stand-in of the detector."""
    monkeypatch.setattr(detecting, 'Detector', BrightAreas)
    path = tmp_path / 'detector.onnx'
    path.touch()
    return ['--detector', str(path)]


def draw(boxes: list[list[int]], level: int, channels: int) -> Image:
    image = np.zeros((HEIGHT, WIDTH, channels), np.uint8)
    for x1, y1, x2, y2 in boxes:
        image[y1:y2, x1:x2] = level
    return image


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Return a folder of six labelled pairs of three kinds, the third without a person."""
    folder = tmp_path / 'pairs'
    for side in ('visible', 'thermal'):
        (folder / side).mkdir(parents=True)
    contents = {'one': ([SEEN], [SEEN, HIDDEN]), 'two': ([], [HIDDEN]), 'three': ([], [])}
    boxes = {}
    for name, (visible, thermal) in contents.items():
        for number in '12':
            file = f'{name}{number}.png'
            assert cv2.imwrite(str(folder / 'visible' / file), draw(visible, 200, 3))
            assert cv2.imwrite(str(folder / 'thermal' / file), draw(thermal, 240, 1))
            boxes[f'{name}{number}'] = thermal
    (folder / 'labels.json').write_text(json.dumps({'boxes': boxes}), encoding='utf-8')
    return folder


def tables(output: str) -> list[dict[str, list[str]]]:
    """Parse the Markdown tables that the tool prints, after checking that they are aligned."""
    found = []
    for part in output.split('\n\n'):
        lines = part.splitlines()
        if not part.startswith('|'):
            continue
        assert len({len(line) for line in lines}) == 1
        cells = [[cell.strip() for cell in line.strip('|').split('|')] for line in lines]
        assert all(set(cell) <= {'-', ':'} for cell in cells[1])
        found.append({row[0]: row[1:] for row in cells if row is not cells[1]})
    return found


def table(output: str) -> dict[str, list[str]]:
    """Parse the first of the tables."""
    return tables(output)[0]


def test_one_row_for_each_input(
    pairs: Path, detector: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ['--compare', 'visible,thermal,mean', '--resamples', '200']
    assert main([str(pairs), *detector, *arguments]) == 0
    captured = capsys.readouterr()
    rows = table(captured.out)
    assert rows['input'] == [
        *('AP50', '95 % interval', 'AP50:95', 'miss rate at 0.25', 'FPPI'),
        *('AP50 - mean', '95 % interval', 'boxes', 'images'),
    ]
    assert list(rows) == ['input', 'visible', 'thermal', 'mean']
    # One of three: the 34 lowest of 101 recall levels.
    assert rows['visible'][0] == f'{100 * 34 / 101:.1f}'
    assert rows['visible'][2:5] == [f'{100 * 34 / 101:.1f}', '66.7', '0.00']
    low, high = map(float, rows['visible'][1].split(' to '))
    assert low < 100 * 34 / 101 < high
    assert rows['thermal'][:5] == ['100.0', '100.0 to 100.0', '100.0', '0.0', '0.00']
    assert all(row[-2:] == ['6', '6'] for name, row in rows.items() if name != 'input')
    assert rows['mean'][5:7] == ['', '']
    assert '6 pairs of 96x64 pixels; detector: bright areas, NMS 0.6' in captured.out
    assert '200 resamples of the images, seed 0' in captured.out
    assert '[1/6] one1: persons 2, detections in visible 1, thermal 2, mean 2' in captured.err


def test_a_second_table_has_sizes_and_times_of_day(
    pairs: Path, detector: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(pairs), *detector, '--compare', 'visible,thermal']
    assert main(arguments) == 0
    _, groups = tables(capsys.readouterr().out)
    assert groups['input'] == [
        *('missed near (6)', 'missed medium (0)', 'missed far (0)'),
        *('AP50 day (0)', 'missed day (0)', 'AP50 night (6)', 'missed night (6)'),
    ]
    assert groups['visible'] == ['66.7', '', '', '', '', f'{100 * 34 / 101:.1f}', '66.7']
    assert main([*arguments, '--night', 'two*', '--night', '*x']) == 0
    output = capsys.readouterr().out
    _, groups = tables(output)
    assert groups['input'][3:] == [
        *('AP50 day (4)', 'missed day (4)', 'AP50 night (2)', 'missed night (2)')
    ]
    assert groups['visible'][3:] == [f'{100 * 51 / 101:.1f}', '50.0', '0.0', '100.0']
    assert groups['thermal'][3:] == ['100.0', '0.0', '100.0', '0.0']
    assert 'the name fits two* or *x' in output


def test_without_labels_the_agreement_of_the_inputs_is_measured(
    pairs: Path, detector: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (pairs / 'labels.json').unlink()
    assert main([str(pairs), *detector, '--compare', 'visible,thermal,mean']) == 0
    captured = capsys.readouterr()
    agreement, fusions = tables(captured.out)
    assert agreement == {
        'input': [
            *('persons', 'persons per image'),
            *('also in visible', 'also in thermal', 'also in mean'),
        ],
        'visible': ['2', '0.33', '', '100.0', '100.0'],
        'thermal': ['6', '1.00', '33.3', '', '100.0'],
        'mean': ['6', '1.00', '33.3', '100.0', ''],
    }
    assert fusions['mean'] == ['6', '33.3', '100.0', '0.0', '6', '0.0']
    assert 'Agreement is not truth' in captured.out
    assert 'labels.json: only the agreement of the inputs can be measured' in captured.err
    assert '[1/6] one1: detections in visible 1, thermal 2, mean 2' in captured.err


def test_difference_to_the_mean_is_paired_and_repeatable(
    pairs: Path, detector: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(pairs), *detector, '--compare', 'mean,laplacian,thermal', '--seed', '5']
    assert main(arguments) == 0
    first = capsys.readouterr().out
    rows = table(first)
    assert rows['thermal'][5:7] == ['+0.0', '+0.0 to +0.0']
    assert main(arguments) == 0
    assert capsys.readouterr().out == first


def test_without_the_mean_there_is_no_difference(
    pairs: Path, detector: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(pairs), *detector, '--compare', 'thermal']) == 0
    assert 'mean' not in table(capsys.readouterr().out)


@pytest.mark.parametrize(
    ('level', 'fuse', 'sentence'),
    [
        (130, lambda visible, thermal: thermal, 'The AP50 of fused is above that of mean: +'),
        (240, lambda visible, thermal: visible * 0, 'The AP50 of fused is below that of mean: -'),
        # Better on the pair two, worse on the pair one.
        (
            130,
            lambda visible, thermal: thermal * (visible.max() == 0),
            'These images do not tell the AP50 of fused from that of mean: ',
        ),
    ],
)
def test_a_sentence_says_whether_fused_and_mean_can_be_told_apart(
    pairs: Path,
    detector: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    level: int,
    fuse: Callable[[Image, Image], Image],
    sentence: str,
) -> None:
    asked: list[tuple[Any, Any]] = []

    def fused_method(parameters: Any, overrides: Any) -> tuple[Callable[..., Image], str]:
        asked.append((parameters, overrides))
        return fuse, 'a stand-in'

    monkeypatch.setattr(evaluate_detection, 'fused_method', fused_method)
    # Half of 130 is too dark for the detector, half of 240 is not.
    for name, boxes in {'one': [SEEN, HIDDEN], 'two': [HIDDEN]}.items():
        for number in '12':
            assert cv2.imwrite(
                str(pairs / 'thermal' / f'{name}{number}.png'), draw(boxes, level, 1)
            )
    arguments = ['--compare', 'mean,fused', '--params', 'realtime', '-N', '4', '-S', '2']
    assert main([str(pairs), *detector, *arguments, '--device', 'cpu']) == 0
    output = capsys.readouterr().out
    assert sentence in output
    assert output.rstrip().endswith('fused: a stand-in')
    ((parameters, overrides),) = asked
    assert parameters['prior'] == 'nano'
    assert overrides == {'num_inference_steps': 4, 'dig_refresh_interval': 2, 'device': 'cpu'}


def test_options_reach_the_detector(pairs: Path, detector: list[str]) -> None:
    arguments = ['--compare', 'mean', '--layout', 'yolox', '--size', '320', '--person-class', '2']
    arguments += ['--iou', '0.5', '--provider', 'cpu', '--threads', '1']
    assert main([str(pairs), *detector, *arguments]) == 0
    assert BrightAreas.options == {
        'layout': 'yolox',
        'size': 320,
        'person_class': 2,
        'iou': 0.5,
        'provider': 'cpu',
        'threads': 1,
    }


def test_score_is_that_of_miss_rate_and_false_positives(
    pairs: Path, detector: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    labels = pairs / 'labels.json'
    boxes = {'boxes': {'one1': [HIDDEN], 'two1': [HIDDEN]}}
    labels.write_text(json.dumps(boxes), encoding='utf-8')
    for score, values in (('0.5', ['0.0', '0.50']), ('0.95', ['100.0', '0.00'])):
        assert main([str(pairs), *detector, '--compare', 'thermal', '--score', score]) == 0
        captured = capsys.readouterr()
        rows = table(captured.out)
        assert rows['input'][3] == f'miss rate at {score}'
        assert rows['thermal'][3:5] == values
        assert rows['thermal'][-2:] == ['2', '2']
        assert 'without labels, left out: one2, three1, three2, two2' in captured.err


def test_fusions_keep_the_colour_of_the_visible_image(pairs: Path, detector: list[str]) -> None:
    rng = np.random.default_rng(0)
    visible = rng.integers(90, 160, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    thermal = rng.integers(90, 160, (HEIGHT, WIDTH)).astype(np.uint8)
    assert cv2.imwrite(str(pairs / 'visible' / 'one1.png'), visible)
    assert cv2.imwrite(str(pairs / 'thermal' / 'one1.png'), thermal)
    arguments = ['--compare', 'visible,thermal,mean,laplacian', '--limit', '1']
    assert main([str(pairs), *detector, *arguments]) == 0
    shown = dict(zip(('visible', 'thermal', 'mean', 'laplacian'), BrightAreas.shown, strict=True))
    assert np.array_equal(shown['visible'], visible)
    assert np.array_equal(shown['thermal'], thermal)
    source = cv2.cvtColor(visible, cv2.COLOR_BGR2YCrCb).astype(int)
    for name in ('mean', 'laplacian'):
        fused = cv2.cvtColor(shown[name], cv2.COLOR_BGR2YCrCb).astype(int)
        assert np.abs(fused[..., 1:] - source[..., 1:]).max() <= 1, name
    luma = cv2.cvtColor(shown['mean'], cv2.COLOR_BGR2GRAY).astype(int)
    assert np.abs(luma - (source[..., 0] + thermal) / 2).max() <= 1


def test_wide_thermal_counts_are_mapped(
    pairs: Path, tmp_path: Path, detector: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (pairs / 'thermal').iterdir():
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
    arguments = ['--compare', 'thermal', '--params', str(parameters)]
    assert main([str(pairs), *detector, *arguments]) == 0
    assert table(capsys.readouterr().out)['thermal'][0] == '100.0'


def test_labels_may_be_named_after_one_of_the_two_images(
    tmp_path: Path, detector: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, labels = tmp_path / 'pairs', tmp_path / 'labels'
    folder.mkdir()
    labels.mkdir()
    assert cv2.imwrite(str(folder / 'one_A.png'), draw([], 200, 3))
    assert cv2.imwrite(str(folder / 'one_B.png'), draw([SEEN], 240, 1))
    x1, y1, x2, y2 = SEEN
    centre = f'{(x1 + x2) / 2 / WIDTH} {(y1 + y2) / 2 / HEIGHT}'
    (labels / 'one_B.txt').write_text(
        f'4 {centre} {(x2 - x1) / WIDTH} {(y2 - y1) / HEIGHT}\n', encoding='utf-8'
    )
    arguments = ['--labels', str(labels), '--label-class', '4', '--compare', 'thermal']
    assert main([str(folder), *detector, *arguments]) == 0
    assert table(capsys.readouterr().out)['thermal'][0] == '100.0'


@pytest.mark.parametrize('problem', ['broken', 'other size'])
def test_a_pair_that_fails_is_named_and_skipped(
    pairs: Path, detector: list[str], capsys: pytest.CaptureFixture[str], problem: str
) -> None:
    path = pairs / 'thermal' / 'two1.png'
    if problem == 'broken':
        path.write_bytes(b'not an image')
    else:
        assert cv2.imwrite(str(path), np.zeros((60, 60), np.uint8))
    assert main([str(pairs), *detector, '--compare', 'thermal']) == 1
    captured = capsys.readouterr()
    assert table(captured.out)['thermal'][-2:] == ['5', '5']
    assert 'two1: skipped, ' in captured.err
    assert 'skipped 1 of 6 pairs: two1' in captured.err


@pytest.mark.parametrize(
    ('labels', 'message'),
    [
        ({'boxes': {'three1': []}}, 'no labelled person in 1 of the 6 pairs'),
        ({'boxes': {'four': [SEEN]}}, 'no labelled person in 0 of the 6 pairs'),
        ({'boxes': {'one1': [[1, 2]]}}, 'not a list of boxes'),
    ],
)
def test_labels_that_do_not_serve_are_an_error(
    pairs: Path,
    detector: list[str],
    capsys: pytest.CaptureFixture[str],
    labels: dict[str, Any],
    message: str,
) -> None:
    (pairs / 'labels.json').write_text(json.dumps(labels), encoding='utf-8')
    assert main([str(pairs), *detector, '--compare', 'thermal']) == 2
    captured = capsys.readouterr()
    assert captured.out == ''
    assert message in captured.err


def test_without_labels_a_pair_has_to_be_usable(
    tmp_path: Path, detector: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / 'pairs'
    folder.mkdir()
    assert cv2.imwrite(str(folder / 'one_A.png'), draw([], 0, 3))
    assert cv2.imwrite(str(folder / 'one_B.png'), np.zeros((60, 60), np.uint8))
    assert main([str(folder), *detector, '--compare', 'thermal']) == 2
    captured = capsys.readouterr()
    assert captured.out == ''
    assert 'one: skipped, visible is 96x64, thermal 60x60 pixels' in captured.err
    assert 'none of the 1 pairs' in captured.err


def test_ctrl_c_ends_with_a_sentence(
    pairs: Path,
    detector: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(self: BrightAreas, image: Image) -> Detections:
        raise KeyboardInterrupt

    monkeypatch.setattr(BrightAreas, 'detect', interrupted)
    assert main([str(pairs), *detector, '--compare', 'thermal']) == 130
    assert capsys.readouterr().err.endswith('evaluate_detection: interrupted\n')


def test_what_is_missing_is_named(
    pairs: Path, detector: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main([str(pairs), '--detector', str(tmp_path / 'none.onnx')]) == 2
    assert 'there is no detector' in capsys.readouterr().err
    assert main([str(pairs), *detector, '--labels', str(tmp_path / 'none.json')]) == 2
    assert 'there are no labels' in capsys.readouterr().err
    assert main([str(tmp_path / 'nowhere'), *detector]) == 2
    assert 'nowhere' in capsys.readouterr().err
    assert main([str(pairs), *detector, '--params', 'none']) == 2
    assert '--params none' in capsys.readouterr().err


@pytest.mark.parametrize(
    'arguments',
    [
        ['--compare', 'mean,median'],
        ['--compare', ','],
        ['--limit', '0'],
        ['--score', '1.5'],
        ['--iou', 'x'],
        ['--layout', 'ssd'],
        ['--seed', '-1'],
    ],
)
def test_bad_arguments_are_refused(
    pairs: Path, detector: list[str], capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main([str(pairs), *detector, *arguments])
    assert stop.value.code == 2
    assert f'argument {arguments[0]}' in capsys.readouterr().err


def test_classes_of_a_model_have_no_names(
    pairs: Path, detector: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(pairs), *detector, '--person-class', 'person']) == 2
    assert "--person-class is 'person', but the classes of" in capsys.readouterr().err


def test_help_can_be_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(['--help'])
    assert stop.value.code == 0
    assert '95 % bootstrap' in capsys.readouterr().out


@pytest.mark.skipif(
    find_spec('onnxruntime') is None, reason='onnxruntime (extra "detection") is not installed'
)
def test_a_public_detector_on_a_street_pair(
    shared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, folder = shared / 'models' / 'yolox_nano_coco.onnx', shared / 'data' / 'llvip'
    if not model.is_file() or not folder.is_dir():
        pytest.skip('detector or street pairs are not there')
    arguments = ['--detector', str(model), '--provider', 'cpu', '--threads', '1', '--limit', '1']
    assert main([str(folder), *arguments, '--compare', 'visible,mean', '--score', '0.3']) == 0
    output = capsys.readouterr().out
    rows = table(output)
    assert float(rows['mean'][0]) > 80
    assert rows['mean'][-2:] == ['6', '1']
    assert 'yolox_nano_coco.onnx (yolox, 640x640, CPU)' in output
