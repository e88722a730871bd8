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

"""dig2dig evaluate finds out what it was given."""

from pathlib import Path

import pytest

pytest.importorskip('cv2', reason='OpenCV is not installed')
pytest.importorskip('torch', reason='PyTorch is not installed')
pytest.importorskip('rosbags', reason='comes with the extra evaluation')

from dig2dig_ros.tools.evaluate import main, parse_arguments


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with a bag (drive), a file of one (drive.mcap), and pairs."""
    monkeypatch.chdir(tmp_path)
    for name in ('drive', 'pairs/visible', 'pairs/thermal', 'drives/one'):
        (tmp_path / name).mkdir(parents=True)
    for name in ('drive/metadata.yaml', 'drive.mcap', 'drives/one/one_0.db3'):
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ('paths', 'bags', 'rows'),
    [
        (['drive'], True, ['mean', 'laplacian', 'fused']),
        (['drive.mcap'], True, ['mean', 'laplacian', 'fused']),
        (['drive', 'drive.mcap'], True, ['mean', 'laplacian', 'fused']),
        (['pairs'], False, ['visible', 'thermal', 'mean', 'max', 'laplacian', 'fused']),
    ],
)
def test_bags_and_pairs_are_known_apart(
    folder: Path, paths: list[str], bags: bool, rows: list[str]
) -> None:
    args = parse_arguments(paths)
    assert args.bags is bags
    names = [row.name for row in args.compare]
    assert names == rows if bags else set(names) <= set(rows) and names[-1] == 'fused'


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        ('pairs --jobs 2', '--jobs is for bags, but pairs is a folder of pairs'),
        ('pairs --visible /a', '--visible is for bags, but pairs is a folder of pairs'),
        ('drive --task multi-focus', '--task is for pairs, but drive is a bag'),
        ('drive --ablation all', '--ablation is for pairs, but drive is a bag'),
        ('drive --save images', '--save is for pairs, but drive is a bag'),
    ],
)
def test_options_of_the_other_kind_are_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], words: str, message: str
) -> None:
    with pytest.raises(SystemExit) as stop:
        parse_arguments(words.split())
    assert stop.value.code == 2
    assert f'dig2dig evaluate: error: {message}' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('path', 'message'),
    [
        ('nowhere', 'there is no'),
        ('drives', 'bags are in its folders one'),
        ('pairs', 'pairs'),
    ],
)
def test_what_is_neither_is_said(
    folder: Path, capsys: pytest.CaptureFixture[str], path: str, message: str
) -> None:
    assert main([path]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert path in line
