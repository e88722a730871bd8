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

"""One check, and one wording, for everything that writes a file."""

import os
from pathlib import Path

import pytest

from dig2dig_ros.images.output_files import check_output_file, OutputError


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path('folder').mkdir()
    Path('a').write_text('mine')
    Path('link').symlink_to('a')


@pytest.mark.parametrize(
    ('path', 'how', 'words'),
    [
        ('folder', {}, 'folder is a folder: name a file'),
        ('new/a', {}, 'there is no folder new: make it, or name another one'),
        ('a', {'overwrite': False}, 'a exists: name another output, or replace it with --over'),
        ('folder', {'folder': True, 'overwrite': False}, 'folder exists: name another output'),
        (
            'a',
            {'inputs': [Path('b'), Path('link')]},
            'a is one of the inputs: name another output',
        ),
        ('folder/../a', {'inputs': [Path('a')]}, 'a is one of the inputs'),
        ('folder', {'inputs': [Path('folder')], 'folder': True}, 'folder is one of the inputs'),
    ],
)
def test_what_cannot_be_written_is_said_before_the_work(path, how, words):
    with pytest.raises(OutputError, match=words):
        check_output_file(Path(path), **how)


@pytest.mark.skipif(os.geteuid() == 0, reason='root may write everywhere')
def test_permissions_count():
    for path, mode in (('a', 0o444), ('folder', 0o555)):
        Path(path).chmod(mode)
    for path in ('a', 'folder/b'):
        with pytest.raises(OutputError, match=f'{path} cannot be written: permission denied'):
            check_output_file(Path(path))


def test_what_can_be_written_is_left_as_it_is():
    for path, how in (
        ('a', {}),
        ('b', {'overwrite': False, 'inputs': [Path('a')]}),
        ('folder', {'folder': True}),
        ('folder/b', {}),
    ):
        check_output_file(Path(path), **how)
    assert sorted(path.name for path in Path().rglob('*')) == ['a', 'folder', 'link']
    assert Path('a').read_text() == 'mine'
