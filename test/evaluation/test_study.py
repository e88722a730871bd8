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


"""What is kept of the pairs, and the files that an evaluation leaves."""

from array import array
import csv
import gc
import json
import math
from pathlib import Path
import platform
import re
import tracemalloc
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
import pytest

pytest.importorskip('matplotlib')

from dig2dig_ros.evaluation.detection_study import DetectionStudy
from dig2dig_ros.evaluation.metrics import METRICS
from dig2dig_ros.evaluation.report import Report
from dig2dig_ros.evaluation.scores import MethodOutput, score_images, ScoreBook
from dig2dig_ros.evaluation.study import as_json, Study, StudyPair, versions
from dig2dig_ros.evaluation.tables import Table

Image = NDArray[np.uint8]
COLUMNS = ['pair', 'width', 'height']
SOURCES = ('visible', 'thermal')


def picture(seed: int, *shape: int) -> Image:
    noise = np.random.default_rng(seed)
    return noise.integers(0, 256, shape or (48, 64), dtype=np.uint8)


VISIBLE, THERMAL, OTHER = picture(0, 48, 64, 3), picture(1), picture(2)
SCORES = {
    'mean': dict.fromkeys(METRICS, 1.0),
    'fused': {name: 2.0 + index for index, name in enumerate(METRICS)},
}


def frame(number: int, **changes: Any) -> StudyPair:
    share = np.full((48, 64), 0.25 + 0.5 * (number % 2), np.float32)
    given = {
        'name': f'pair{number}',
        'sources': {'visible': VISIBLE, 'thermal': THERMAL},
        'fused': VISIBLE,
        'weights': np.stack([share, 1 - share]),
        'contributions': np.stack([1 - share, share]),
        'milliseconds': 10.0 + number,
        'time': 0.1 * number,
        'offset': 0.002,
        'cells': (f'pair{number}', 64, 48),
    }
    return StudyPair(**{**given, **changes})


FUSED = {'mean': MethodOutput(OTHER, 1.0), 'fused': MethodOutput(VISIBLE, 10.0)}


def study_in(folder: Path, inputs: tuple[str, ...] = (), rate: float | None = 10.0) -> Study:
    detection = DetectionStudy(inputs) if inputs else None
    return Study(folder, SOURCES, ScoreBook(FUSED, METRICS), COLUMNS, detection, rate)


def lines(path: Path) -> list[dict[str, str]]:
    with path.open(encoding='utf-8', newline='') as file:
        return list(csv.DictReader(file))


def summary(folder: Path) -> Any:
    def refuse(name: str) -> None:
        raise AssertionError(f'{name} is not JSON')

    text = (folder / 'summary.json').read_text(encoding='utf-8')
    return json.loads(text, parse_constant=refuse)


def test_files_can_be_read_while_they_grow(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    for number in range(3):
        study.add(frame(number), FUSED, SCORES if number != 1 else None)
        scored = [line['pair'] for line in lines(tmp_path / 'metrics.csv')]
        timed = [line['pair'] for line in lines(tmp_path / 'timing.csv')]
        assert scored == [f'pair{n}' for n in range(number + 1) if n != 1 for _ in FUSED]
        assert timed == [f'pair{n}' for n in range(number + 1) for _ in FUSED]
    study.close()
    first, second, *_ = lines(tmp_path / 'metrics.csv')
    assert list(first) == [
        *COLUMNS,
        'method',
        *METRICS,
        'mean weight of visible',
        'mean weight of thermal',
    ]
    assert (first['method'], first['SSIM'], first['mean weight of visible']) == ('mean', '1.0', '')
    assert (second['method'], second['mean weight of thermal']) == ('fused', '0.75')
    assert lines(tmp_path / 'timing.csv')[1] == {
        'pair': 'pair0',
        'method': 'fused',
        'ms': '10.000',
    }


@pytest.mark.slow
def test_memory_does_not_grow_with_the_pairs(tmp_path: Path) -> None:
    study = study_in(tmp_path, inputs=('visible', 'fused'))

    def add(first: int, count: int) -> None:
        for number in range(first, first + count):
            image = picture(number, 48, 64, 3)
            entry = frame(number, sources={'visible': image, 'thermal': THERMAL}, fused=image)
            study.add(entry, FUSED, SCORES, {'visible': 1, 'fused': 2})

    # The gallery has all the frames that it holds at most, and the codec its buffers.
    add(0, 300)
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    add(300, 300)
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    study.close()
    # Some forty numbers a pair; one picture is 9216 bytes.
    assert (after - before) / 300 < 1500
    assert study.pairs == 600


def test_what_is_said_of_all_pairs(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    for number in range(8):
        study.add(frame(number), FUSED, SCORES)
    study.close()
    report = Report(
        title='A drive',
        subtitle='in the rain',
        summary=(('pairs fused', '8'),),
        warnings=('thermal changes its size',),
        tables=(Table('Means', ('method', 'SSIM'), (('fused', '3.0'),)),),
        files=(('fused images', 'fused/'),),
        settings=(('seed', '0'),),
    )
    returned = study.finish(report, {'bag': Path('drive'), 'interrupted': False}, ['mean'])
    found = summary(tmp_path)
    assert found == as_json(returned)
    assert (found['bag'], found['interrupted']) == ('drive', False)
    assert (found['pairs'], found['scored_pairs']) == (8, 8)
    assert found['mean_weights'] == {'visible': 0.5, 'thermal': 0.5}
    assert found['fusion_ms'] == {'p50': 13.5, 'p95': 16.65}
    assert found['metrics'] == SCORES
    assert set(found['edges_kept']) == {'fused', 'mean'}
    assert found['edges_kept']['fused']['visible'] > 0.95
    assert found['differences']['fused - mean']['PSNR_sum'] == [1.0, 1.0, 1.0]
    assert found['warnings'] == ['thermal changes its size']
    assert found['versions']['python'] == platform.python_version()

    page = (tmp_path / 'report.html').read_text(encoding='utf-8')
    plots = ('Mean weight of each source', 'Pair offset: thermal stamp minus visible stamp')
    names = ('pair 1, 0.00 s', 'pair 8, 0.70 s', 'alt="mean"', 'alt="contributions"')
    assert re.search(r'The fused image keeps 9\d % of the visible edges and \d+ % of', page)
    assert '8 pairs were fused; 1 warning needs a look.' in page
    for text in ('A drive', 'in the rain', 'thermal changes its size', 'pair0', *names, *plots):
        assert text in page
    video = next(tmp_path.glob('video.*')).name
    for name in ('fused/', 'metrics.csv', 'timing.csv', 'summary.json', video):
        assert f'href="./{name}"' in page
    assert 'video: visible, thermal, fused' in page
    assert {path.name for path in tmp_path.iterdir()} == {
        *('metrics.csv', 'timing.csv', 'summary.json', 'report.html', video),
    }


def test_frames_of_the_video_come_as_fast_as_they_were_recorded(tmp_path: Path) -> None:
    study = study_in(tmp_path, rate=10.0)
    for number in range(5):
        study.add(frame(number), FUSED)
    study.close()
    video = cv2.VideoCapture(str(next(tmp_path.glob('video.*'))))
    assert video.get(cv2.CAP_PROP_FPS) == pytest.approx(10)
    frames = 0
    while True:
        done, picture = video.read()
        if not done:
            break
        frames += 1
        assert picture.shape == (48, 3 * 64, 3)
    assert frames == 5


def test_pairs_without_scores_or_time(tmp_path: Path) -> None:
    study = Study(tmp_path, ('first', 'second'), ScoreBook(FUSED, METRICS), COLUMNS)
    sources = {'first': VISIBLE, 'second': THERMAL}
    for number in range(2):
        study.add(frame(number, sources=sources, offset=None), FUSED)
    study.close()
    study.finish(Report('Photographs'), {}, ['mean'])
    found = summary(tmp_path)
    assert found['pairs'] == 2
    assert 'metrics' not in found
    page = (tmp_path / 'report.html').read_text(encoding='utf-8')
    assert 'video: first, second, fused' in page
    assert 'Pair offset' not in page
    assert lines(tmp_path / 'metrics.csv') == []


def test_a_fused_image_that_equals_a_source(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    grey = np.ascontiguousarray(VISIBLE[..., 0])
    fused = {'mean': MethodOutput(OTHER, 1.0), 'fused': MethodOutput(grey, 10.0)}
    values = score_images(fused, grey, THERMAL)
    for number in range(6):
        study.add(frame(number, fused=grey), fused, values)
    study.close()
    study.finish(Report('Equal'), {}, ['mean'])
    found = summary(tmp_path)
    assert found['metrics']['fused']['PSNR_sum'] == 'inf'
    assert found['differences']['fused - mean']['PSNR_sum'] == ['inf', None, None]
    own = [line for line in lines(tmp_path / 'metrics.csv') if line['method'] == 'fused']
    assert {float(line['PSNR_sum']) for line in own} == {math.inf}
    page = (tmp_path / 'report.html').read_text(encoding='utf-8')
    assert '∞' in page
    text = (tmp_path / 'summary.json').read_text() + (tmp_path / 'metrics.csv').read_text()
    assert 'nan' not in text.lower()


def test_persons_are_plotted(tmp_path: Path) -> None:
    study = study_in(tmp_path, inputs=('visible', 'fused'))
    for number in range(3):
        persons = {'visible': 1, 'fused': number} if number != 1 else None
        study.add(frame(number), FUSED, SCORES, persons)
    study.close()
    study.finish(Report('Persons'), {})
    page = (tmp_path / 'report.html').read_text(encoding='utf-8')
    assert 'Persons found by the detector' in page
    assert 'persons in fused' in page


def test_versions_are_those_of_what_decides(tmp_path: Path) -> None:
    found = versions()
    assert found['numpy'] == np.__version__
    assert found['machine'] == platform.machine()


@pytest.mark.parametrize(
    ('value', 'expected'),
    [
        (math.inf, 'inf'),
        (-math.inf, '-inf'),
        (math.nan, None),
        (np.float32(0.5), 0.5),
        (np.int64(3), 3),
        (array('d', [1.0, math.inf]), [1.0, 'inf']),
        ((1, True, None, 'text'), [1, True, None, 'text']),
        ({1: Path('a')}, {'1': 'a'}),
    ],
)
def test_values_as_json(value: Any, expected: Any) -> None:
    assert as_json(value) == expected
    assert json.loads(json.dumps(as_json(value), allow_nan=False)) == expected
