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
Run the commands in the code blocks of README.md and docs/*.md, each in a folder of its own.

Inputs are small and synthetic, under the names that the pages use. Prints for every command
whether it ran, failed (with its output), or is not run and why. What the tables below do not name
is run as it stands. Exit code: 0; 1 if a command failed.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
import json
import os
from pathlib import Path
import re
import shlex
import shutil
import signal
import subprocess
import sys
from tempfile import TemporaryDirectory
from textwrap import dedent
import time

CHECKOUT = Path(__file__).resolve().parents[1]
PAGES = (CHECKOUT / 'README.md', *sorted((CHECKOUT / 'docs').glob('*.md')))

_TIMEOUT = 300.0
# So long runs what ends with Ctrl-C.
_NODE_SECONDS = 15
_WIDTH, _HEIGHT, _PAIRS = 160, 128, 6
_SHELLS = ('bash', 'console', 'sh')
_BLOCK = re.compile(r'^( *)```(\w*)\n(.*?)^\1```', re.DOTALL | re.MULTILINE)

PYTHON = shlex.quote(sys.executable)
_FUSION_NODE = f'{PYTHON} -m dig2dig_ros.nodes.fusion_node'
_PAIR_CAMERA = f'{PYTHON} -m dig2dig_ros.tools.pair_camera'
FOR_A_WHILE = f'timeout --preserve-status --signal INT {_NODE_SECONDS}'

# What is not run, and why.
NOT_RUN = (
    (r'git clone |cd ~/ros2_ws/src && git clone ', 'needs a network'),
    (r'pip install ', 'needs a network; scripts/environment.sh does it'),
    (r'\. \.venv/bin/activate', 'what runs this has an environment'),
    (r'python3 -m venv ', 'what runs this has an environment'),
    (r'bash scripts/test\.sh', 'these are the tests'),
    (r'python -m pytest -m cuda ', 'needs a GPU'),
    (r'.* --device cuda ', 'needs a GPU'),
    (r'trtexec ', 'needs TensorRT'),
    (r'docker ', 'needs Docker and a network'),
    (r'.* --scheduler ', 'needs a Dask cluster; test/evaluation/test_jobs.py starts one'),
    (r'ros2 launch dig2dig ', 'needs ros2 launch; test/test_launch*.py start the files'),
    (r'ros2 (launch|run) (?!dig2dig )', 'needs the package of somebody else'),
    (r'ros2 (bag|security) ', 'needs the ros2 command line'),
    (r'export (GSCAM_CONFIG|ROS_DOMAIN_ID|ROS_SECURITY_KEYSTORE)=', 'is for the lines below it'),
    (r'export FASTDDS_|share=', 'needs the ros2 command line'),
    (r'ros2 run dig2dig fusion_node --ros-args --enclave', 'needs a keystore'),
    (r'source /opt/ros/', 'needs a ROS distribution'),
    (r'rosdep |colcon ', 'needs a ROS distribution; .ci/run builds with colcon'),
    (r'xdg-open ', 'needs a desktop'),
)

# What is written another way here: first what runs it, then what it reads.
STAND_INS = (
    (r'\bbash scripts/demo\.sh', 'dig2dig demo'),
    (r'^ros2 run dig2dig fusion_node', f'{FOR_A_WHILE} {_FUSION_NODE}'),
    (r'^ros2 run dig2dig pair_camera', f'{FOR_A_WHILE} {_PAIR_CAMERA}'),
    (
        r'^ros2 param set /fusion_node (\S+) (.+)$',
        rf'{FOR_A_WHILE} {_FUSION_NODE} --ros-args -p \1:=\2',
    ),
    (r'\bros2 run dig2dig ', 'dig2dig '),
    (r'\bPYTHONPATH=test\b', f'PYTHONPATH={shlex.quote(f"{CHECKOUT}:{CHECKOUT}/test")}'),
    (r'\bDIR\b', 'pairs'),
    (r'^dig2dig play ', 'dig2dig play --wait 100 '),  # for its companion
    (r' --show$', ''),  # a window
    (r'(?<!\S)dig2dig ', f'{PYTHON} -m dig2dig_ros '),
    (r'(?<!\S)python ', f'{PYTHON} '),
)

# Options that make a command quick.
QUICKER = (
    ('bash scripts/demo.sh', '--count 4 --size 64x48'),
    ('dig2dig bag -o', '--count 4 --size 64x48'),
    ('dig2dig export --size', '--size 64x48'),
    ('ros2 run dig2dig benchmark fuser', '--size 64x48 --rounds 2'),
    ('ros2 run dig2dig benchmark node', '--size 64x48 --rate 5 --seconds 1'),
    ('ros2 run dig2dig benchmark cuda', '--device cpu --pairs 2 --size 64x48 --sizes 64x48'),
    ('python -m prior_floor', '--size 64x48 --seconds 0.05'),
)

# What has to run alongside a command.
COMPANIONS = (
    (
        'ros2 run dig2dig calibrate --live',
        f'{_PAIR_CAMERA} --ros-args -r visible/image_raw:=/camera/image_raw',
    ),
    ('dig2dig play', f'{_FUSION_NODE} --ros-args -p use_sim_time:=true'),
)

# Exit codes besides 0: the doctor finds what is wrong with this machine.
OTHER_CODES = (('dig2dig doctor', 1),)

# Python blocks by their first line: their arguments, or why they are not run.
SCRIPT_ARGUMENTS = (('import sys', ('pairs', 'made', 'mcap')),)
SCRIPTS_NOT_RUN = (
    ('from mcap.reader import make_reader', 'needs mcap-protobuf-support and a recording'),
    ('def load():', 'is a form to fill in; test/evaluation/test_fusion_timing.py has one'),
)


@dataclass(frozen=True)
class Documented:
    """
    A command of a page, or a block of Python.

    :param text: of the command on one line, without its comment; of the whole block.
    :param is_script: it is Python.
    """

    page: str
    text: str
    is_script: bool = False

    @property
    def title(self) -> str:
        """Its page and, of a script, its first line."""
        return f'{self.page}: {self.text.splitlines()[0]}'

    def reason(self) -> str:
        """Return why it is not run; empty if it is."""
        if self.is_script:
            return next((why for line, why in SCRIPTS_NOT_RUN if self.starts(line)), '')
        return next((why for what, why in NOT_RUN if re.match(what, self.text)), '')

    def command(self) -> str:
        """Return what the shell gets to run it."""
        if self.is_script:
            words = next((words for line, words in SCRIPT_ARGUMENTS if self.starts(line)), ())
            return f'{PYTHON} script.py {shlex.join(words)}'
        command = self.text
        for what, stand_in in STAND_INS:
            command = re.sub(what, stand_in, command)
        options = next((more for begin, more in QUICKER if self.starts(begin)), '')
        return f'{command} {options}'.strip()

    def companion(self) -> str:
        """Return the command that has to run alongside it; empty if none has to."""
        return next((other for begin, other in COMPANIONS if self.starts(begin)), '')

    def made(self) -> set[str]:
        """Return the names of the files and folders that it makes and that are no input of it."""
        return set(re.findall(r'(?:-o|--output|--record) (\S+)', self.text))

    def codes(self) -> set[int]:
        """Return the exit codes with which it has done what it should."""
        return {0, *(code for begin, code in OTHER_CODES if self.starts(begin))}

    def starts(self, begin: str) -> bool:
        """Return whether it begins so, after the variables before it."""
        return re.sub(r'^(?:[A-Z_]+=\S+ )+', '', self.text).startswith(begin)


def documented() -> list[Documented]:
    """Return all commands and Python blocks, in the order of the pages."""
    found: list[Documented] = []
    for page in PAGES:
        name = str(page.relative_to(CHECKOUT))
        text = page.read_text(encoding='utf-8')
        for _, language, block in _BLOCK.findall(text):
            if language == 'python':
                found.append(Documented(name, block, True))
            elif language in _SHELLS or not language:
                # Without a language: what is typed stands after a prompt, with its output below.
                prompt = '' if language else '$ '
                found += [Documented(name, line) for line in _lines(block, prompt)]
    return found


def _lines(block: str, prompt: str) -> Iterator[str]:
    for line in re.sub(r' *\\\n\s*', ' ', dedent(block)).splitlines():
        if not line.startswith(prompt):
            continue
        # A # in quotes is none of our commands'.
        command = re.sub(r'(^|\s+)#.*', '', line.removeprefix(prompt)).strip()
        if command:
            yield command


# --- Inputs -------------------------------------------------------------------------------------


def make_inputs(folder: Path) -> None:
    """Make what the commands read, with the package's own commands where there is one."""
    from dig2dig_ros.evaluation.bag_reader import BagReader
    from dig2dig_ros.evaluation.replay import stamp_text

    folder.mkdir()
    _make_images(folder)

    def dig2dig(*words: str) -> None:
        subprocess.run([sys.executable, '-m', 'dig2dig_ros', *words], cwd=folder, check=True)

    dig2dig('bag', 'pairs', '-o', 'drive')
    dig2dig('bag', '-o', 'street', '--count', '4', '--size', '64x48')
    dig2dig('calibrate', 'pairs', '-o', 'registration.yaml', '--overlay', 'overlay.png')
    _make_detector(folder / 'yolo.onnx')
    with BagReader(folder / 'drive') as bag:
        boxes = {stamp_text(bag.start): [[70, 45, 90, 85]]}
    (folder / 'labels.json').write_text(json.dumps({'boxes': boxes}), encoding='utf-8')


def _make_images(folder: Path) -> None:
    """Write pairs of the synthetic street, single images and videos of them."""
    import cv2

    from dig2dig_ros.evaluation.synthetic_scene import SyntheticScene

    street = SyntheticScene(_WIDTH, _HEIGHT)
    coder = cv2.VideoWriter.fourcc(*'mp4v')
    for source in ('visible', 'thermal'):
        (folder / 'pairs' / source).mkdir(parents=True)
        video = cv2.VideoWriter(str(folder / f'{source}.mp4'), coder, 5, (_WIDTH, _HEIGHT))
        for index in range(_PAIRS):
            frame = street.render(index / 2)
            image = frame.visible if source == 'visible' else frame.thermal
            cv2.imwrite(str(folder / 'pairs' / source / f'{index}.png'), image)
            grey = cv2.normalize(image, None, 0, 255, cv2.NORM_MINMAX, cv2.CV_8U)
            video.write(image if source == 'visible' else cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR))
        video.release()
        shutil.copy(folder / 'pairs' / source / '0.png', folder / f'{source}.png')
    sharp = street.render(0.0).visible
    for index, name in enumerate(('near', 'middle', 'far')):
        image = cv2.GaussianBlur(sharp, (0, 0), 2)
        part = slice(index * _WIDTH // 3, (index + 1) * _WIDTH // 3)
        image[:, part] = sharp[:, part]
        cv2.imwrite(str(folder / f'{name}.jpg'), image)
    for name, gain in (('dark', 0.4), ('bright', 2.5)):
        cv2.imwrite(str(folder / f'{name}.jpg'), cv2.convertScaleAbs(sharp, alpha=gain))


def _make_detector(path: Path) -> None:
    """Write a model in the layout of YOLOv5 that finds one person, the same in every image."""
    import numpy as np
    from onnx import helper, numpy_helper, save, TensorProto

    side, classes = 64, 2
    cells = 3 * sum((side // stride) ** 2 for stride in (8, 16, 32))
    found = np.zeros((1, cells, 5 + classes), np.float32)
    found[0, 0] = [32, 32, 8, 16, 1, 1, 0]
    graph = helper.make_graph(
        [
            helper.make_node('ReduceMean', ['images'], ['mean'], keepdims=0),
            helper.make_node('Mul', ['mean', 'zero'], ['nothing']),
            helper.make_node('Add', ['nothing', 'found'], ['output']),
        ],
        'constant',
        [helper.make_tensor_value_info('images', TensorProto.FLOAT, [1, 3, side, side])],
        [helper.make_tensor_value_info('output', TensorProto.FLOAT, found.shape)],
        [
            numpy_helper.from_array(found, 'found'),
            numpy_helper.from_array(np.zeros((), np.float32), 'zero'),
        ],
    )
    opset = helper.make_opsetid('', 13)
    save(helper.make_model(graph, opset_imports=[opset], ir_version=8), str(path))


# --- Running ------------------------------------------------------------------------------------


def run(item: Documented, inputs: Path, folder: Path) -> tuple[bool, str]:
    """
    Run a command or script in a new folder with all inputs but those that it makes itself.

    :return: whether it did what it should, and its output.
    """
    shutil.copytree(inputs, folder, ignore=lambda _, names: item.made() & set(names))
    if item.is_script:
        (folder / 'script.py').write_text(item.text, encoding='utf-8')
    environment = {**os.environ, 'PYTHONPATH': str(CHECKOUT)}
    companion = None
    if item.companion():
        companion = subprocess.Popen(
            shlex.split(item.companion()),
            cwd=folder,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    try:
        done = subprocess.run(
            ['bash', '-euo', 'pipefail', '-c', item.command()],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors='replace',
            timeout=_TIMEOUT,
        )
    except subprocess.TimeoutExpired as error:
        output = error.output or b''
        return False, f'{output.decode(errors="replace")}\nnot done after {_TIMEOUT:g} s'
    finally:
        if companion is not None:
            companion.send_signal(signal.SIGINT)
            companion.wait(60)
    return done.returncode in item.codes(), f'{done.stdout}\nexit code {done.returncode}'


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the commands; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument('--list', action='store_true', help='run nothing, say what would be run')
    parser.add_argument('--only', metavar='TEXT', help='commands and pages that contain this')
    options = parser.parse_args(arguments)
    chosen = [each for each in documented() if (options.only or '') in each.title]
    if options.list:
        for item in chosen:
            print(f'{item.title}\n    {item.reason() or item.command()}')
        return 0

    from dig2dig_ros.nodes.child_processes import enter_domain

    enter_domain()
    failures = 0
    with TemporaryDirectory(prefix='dig2dig_documented_') as work:
        inputs = Path(work, 'inputs')
        make_inputs(inputs)
        for number, item in enumerate(chosen):
            if item.reason():
                print(f'not run    {item.title}  ({item.reason()})', flush=True)
                continue
            begin = time.monotonic()
            done, output = run(item, inputs, Path(work, str(number)))
            seconds = time.monotonic() - begin
            print(f'{"ran" if done else "FAILED":<6}{seconds:4.0f} {item.title}', flush=True)
            if not done:
                failures += 1
                print(f'    $ {item.command()}\n    ' + output.strip().replace('\n', '\n    '))
            shutil.rmtree(Path(work, str(number)), ignore_errors=True)
    return int(failures > 0)


if __name__ == '__main__':
    sys.exit(main())
