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

"""
Every command line in the documents is one that its subcommand takes.

``scripts/documented_commands.py`` runs those in code blocks; here only its tables are checked.
"""

from importlib import import_module
import importlib.util
from pathlib import Path
import re
import shlex
import sys
from typing import Any

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


@pytest.fixture(scope='module')
def script() -> Any:
    """Return the module that runs the commands."""
    spec = importlib.util.spec_from_file_location(
        'documented_commands', CHECKOUT / 'scripts' / 'documented_commands.py'
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # A dataclass looks for the module in which it is defined.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_what_the_script_runs_is_ours_and_the_rest_has_a_reason(script: Any) -> None:
    for item in script.documented():
        assert item.reason() or f'{script.PYTHON} ' in item.command(), item.title


def test_the_tables_of_the_script_are_of_what_is_documented(script: Any) -> None:
    commands = [each for each in script.documented() if not each.is_script]
    scripts = [each.text for each in script.documented() if each.is_script]
    # Of several that fit, the first one counts.
    reasons = {
        next((what for what, _ in script.NOT_RUN if re.match(what, each.text)), '')
        for each in commands
    }
    assert reasons >= {what for what, _ in script.NOT_RUN}
    run = [each for each in commands if not each.reason()]
    for what, _ in script.STAND_INS:
        assert any(re.search(what, each.text) for each in run), what
    for table in (script.QUICKER, script.COMPANIONS, script.OTHER_CODES):
        for begin, _ in table:
            assert any(each.starts(begin) for each in run), begin
    for begin, _ in (*script.SCRIPT_ARGUMENTS, *script.SCRIPTS_NOT_RUN):
        assert any(text.startswith(begin) for text in scripts), begin


def test_documented_launch_arguments_are_declared() -> None:
    lines = [
        line
        for page in PAGES
        for block in re.findall(r'```bash\n(.*?)```', page.read_text(encoding='utf-8'), re.DOTALL)
        for line in re.sub(r'\\\n', ' ', block).splitlines()
        if line.startswith('ros2 launch dig2dig ')
    ]
    assert lines
    sources = '\n'.join(file.read_text(encoding='utf-8') for file in CHECKOUT.glob('launch/*.py'))
    for line in lines:
        file = line.split()[3]
        assert (CHECKOUT / 'launch' / file).is_file(), line
        for name in re.findall(r' (\w+):=', line):
            assert f"'{name}'" in sources, (name, line)


@pytest.mark.parametrize(
    ('text', 'done', 'said'),
    [
        ('cat words && test ! -e made.txt && : -o made.txt', True, 'input\nexit code 0'),
        ('cat words && cat missing', False, 'input\ncat: missing: '),
        ('python -c "print(6 * 7)"', True, '42\nexit code 0'),
    ],
)
def test_a_command_runs_where_its_inputs_are_and_its_outputs_are_not(
    script: Any, tmp_path: Path, text: str, done: bool, said: str
) -> None:
    inputs = tmp_path / 'inputs'
    inputs.mkdir()
    (inputs / 'words').write_text('input\n', encoding='utf-8')
    (inputs / 'made.txt').touch()
    result, output = script.run(script.Documented('page.md', text), inputs, tmp_path / 'work')
    assert result == done
    assert output.replace('\n\n', '\n').startswith(said)
