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

"""Every command line in the documents is one that its subcommand takes."""

from importlib import import_module
from pathlib import Path
import re
import shlex

import pytest

pytest.importorskip('cv2', reason='OpenCV is not installed')
pytest.importorskip('rclpy', reason='needs ROS')
pytest.importorskip('rosbags', reason='comes with the extra evaluation')
pytest.importorskip('torch', reason='PyTorch is not installed')

from dig2dig_ros.tools.entry_points import COMMANDS

CHECKOUT = Path(__file__).resolve().parents[1]
PAGES = [CHECKOUT / 'README.md', CHECKOUT / 'CONTRIBUTING.md', *CHECKOUT.glob('docs/*.md')]
NODES = ('fusion_node', 'detection_fusion', 'pair_camera')
# What a command line of ours begins with, after variables of the environment.
_BEGIN = re.compile(
    r'(?:[A-Z_]+=\S+ )*(?:(?:ros2 run dig2dig|dig2dig|python -m dig2dig_ros|'
    r'bash scripts/(?=demo\.sh)) ?)(?=[a-z])(.*)'
)
# What stands for a folder of pairs; everything else that a command reads is a bag.
_FOLDERS = ('FOLDER', 'DIR', 'pairs')
_BAGS = ('BAG', 'drive', 'drives/*', 'street', 'long', '/data/drives/*')


def command_lines(text: str) -> list[str]:
    """Return the lines of a page's shell code, and what its text quotes with arguments."""
    found = []
    for language, block in re.findall(r'```(\w*)\n(.*?)```', text, re.DOTALL):
        if language in ('', 'bash', 'sh', 'console'):
            lines = re.sub(r'\\\n\s*', ' ', block).splitlines()
            found += [line.strip().removeprefix('$ ') for line in lines]
    for span in re.findall(r'`([^`]+)`', re.sub(r'```.*?```', '', text, flags=re.DOTALL)):
        if re.search(r'\s(-|[A-Z]{3,}\b)', span):
            found.append(' '.join(span.split()).removesuffix(' ...'))
    return [match[1] for line in found if (match := _BEGIN.fullmatch(line))]


LINES = [
    pytest.param(line, id=f'{page.name}: {line}')
    for page in sorted(PAGES)
    for line in command_lines(page.read_text(encoding='utf-8'))
]
pytestmark = pytest.mark.skipif(not LINES, reason='needs the checkout')


@pytest.mark.parametrize('line', LINES)
def test_a_command_in_the_documents_is_one(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in _FOLDERS:
        (tmp_path / name).mkdir()
    for name in _BAGS[:-1]:
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / 'metadata.yaml').touch()
    words = shlex.split(line.replace('demo.sh', 'demo'), comments=True)
    if words[0] in NODES:
        assert words[1:2] in ([], ['--ros-args'])
        return
    (command,) = (c for c in COMMANDS if words[: len(c.name.split())] == c.name.split())
    arguments = words[len(command.name.split()) :]
    if arguments[-1:] == ['--help']:
        return
    if command.is_node and '--ros-args' in arguments:
        arguments = arguments[: arguments.index('--ros-args')]
    import_module(f'dig2dig_ros.tools.{command.module}').parse_arguments(arguments)


def test_the_documents_show_every_subcommand() -> None:
    shown = [param.values[0] for param in LINES]
    for command in COMMANDS:
        assert any(line.startswith(command.name) for line in shown), command.name
