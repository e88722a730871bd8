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

"""dig2dig bag makes bags of pairs and of the street, and replaces nothing unasked."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip('cv2', reason='OpenCV is not installed')
pytest.importorskip('rosbags', reason='comes with the extra evaluation')

import cv2

from dig2dig_ros.evaluation.bag_reader import BagReader
from dig2dig_ros.tools.bag import main

SMALL = ['--size', '64x48', '--count', '3']
NAMES = [
    '/thermal/camera_info',
    '/thermal/image_raw',
    '/visible/camera_info',
    '/visible/image_raw',
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the present folder, with two pairs in ``pairs``."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name in ('visible', 'thermal'):
        (tmp_path / 'pairs' / name).mkdir(parents=True)
        for index in range(2):
            shape = (48, 64, 3) if name == 'visible' else (24, 32)
            kind = np.uint8 if name == 'visible' else np.uint16
            image = rng.integers(0, 255, shape).astype(kind)
            assert cv2.imwrite(str(tmp_path / 'pairs' / name / f'{index}.png'), image)
    return tmp_path


def messages(path: str) -> dict[str, list[tuple[float, Any]]]:
    """Return of each topic the times in seconds from the first and the messages."""
    found: dict[str, list[tuple[float, Any]]] = {}
    with BagReader(Path(path)) as reader:
        assert not reader.problems
        for record in reader.records(reader.topics):
            seconds = (record.time - reader.start) / 1e9
            found.setdefault(record.topic, []).append((seconds, reader.decode(record)))
    return found


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
def test_pairs_become_images_of_one_instant(
    folder: Path, storage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(['pairs', '-o', 'drive', '--rate', '4', '--storage', storage]) == 0
    line = f'drive: 2 visible and 2 thermal images, 0.2 s, {storage}\n'
    assert capsys.readouterr().out == line
    found = messages('drive')
    assert sorted(found) == NAMES
    for source, size in (('visible', (64, 48)), ('thermal', (32, 24))):
        assert [seconds for seconds, _ in found[f'/{source}/image_raw']] == [0.0, 0.25]
        for index, (_, message) in enumerate(found[f'/{source}/image_raw']):
            image = cv2.imread(f'pairs/{source}/{index}.png', cv2.IMREAD_UNCHANGED)
            assert message.encoding == ('bgr8' if source == 'visible' else 'mono16')
            assert bytes(message.data) == image.tobytes()
            assert message.header.stamp.nanosec == index * 250_000_000
        info = found[f'/{source}/camera_info'][0][1]
        assert (info.width, info.height) == size
        assert info.header.frame_id == f'{source}_optical_frame'
        assert info.header.stamp.sec == found[f'/{source}/image_raw'][0][1].header.stamp.sec


def test_the_street_is_seen_by_two_cameras_and_always_the_same(folder: Path) -> None:
    for name in ('one', 'two'):
        assert main(['-o', name, *SMALL, '--visible-rate', '20', '--rate', '10']) == 0
    one, two = messages('one'), messages('two')
    assert [seconds for seconds, _ in one['/thermal/image_raw']] == [0.0, 0.1, 0.2]
    assert [seconds for seconds, _ in one['/visible/image_raw']][:3] == [0.0, 0.05, 0.1]
    for topic in ('/visible/image_raw', '/thermal/image_raw'):
        assert [bytes(m.data) for _, m in one[topic]] == [bytes(m.data) for _, m in two[topic]]
    assert main(['-o', 'three', *SMALL, '--seed', '1']) == 0
    other = messages('three')['/visible/image_raw'][0][1]
    assert bytes(other.data) != bytes(one['/visible/image_raw'][0][1].data)


def test_a_bag_is_replaced_only_when_asked_for(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(['pairs', '-o', 'drive']) == 0
    assert main(['pairs', '-o', 'drive']) == 2
    assert 'replace it with --overwrite' in capsys.readouterr().err
    assert main(['pairs', '-o', 'drive', '--count', '1', '--overwrite']) == 0
    assert len(messages('drive')['/thermal/image_raw']) == 1
    assert main(['pairs', '-o', 'pairs', '--overwrite']) == 2
    assert 'pairs is not a bag' in capsys.readouterr().err
    assert main(['pairs', '-o', 'pairs/visible/0.png', '--overwrite']) == 2
    assert '0.png is not a bag, so --overwrite does not replace it' in capsys.readouterr().err
    assert sorted(path.name for path in folder.iterdir()) == ['drive', 'pairs']


def test_a_bag_that_fails_leaves_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (folder / 'pairs' / 'thermal').iterdir():
        path.write_bytes(b'no image')
    assert main(['pairs', '-o', 'drive']) == 2
    assert 'none of the 2 pairs can be read' in capsys.readouterr().err
    assert [path.name for path in folder.iterdir()] == ['pairs']


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        ('nowhere -o drive', 'no pairs in nowhere'),
        ('-o new/drive', 'there is no folder'),
        ('-o drive --size 10x10', 'width is 10, but must be 64 to 3840'),
    ],
)
def test_what_cannot_be_done_is_said(
    folder: Path, capsys: pytest.CaptureFixture[str], words: str, message: str
) -> None:
    assert main(words.split()) == 2
    assert message in capsys.readouterr().err


def test_options_of_the_street_are_not_for_a_folder(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(['pairs', '-o', 'drive', '--size', '64x48'])
    assert stop.value.code == 2
    assert '--size is for the street' in capsys.readouterr().err
