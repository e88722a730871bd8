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

"""The executables of the package, which handle signals from the very start."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from importlib import import_module
import sys
from typing import NamedTuple

import dig2dig_ros
from dig2dig_ros.errors import Refusal
from dig2dig_ros.nodes.signals import hear_interrupts, run_command, run_tool


class Command(NamedTuple):
    """
    A subcommand of ``dig2dig``.

    :param name: one word, or two.
    :param module: in ``dig2dig_ros.tools``, with ``main(arguments) -> exit code`` and
        ``parse_arguments(arguments)``; imported when the command is run.
    :param help: one line.
    :param is_node: handles signals like a node: Ctrl-C is a normal end.
    """

    name: str
    module: str
    help: str
    is_node: bool = False


# The first word of each is also a link in libexec/, for `ros2 run`.
COMMANDS = (
    Command('fuse', 'fuse', 'fuse images, folders or videos'),
    Command('demo', 'demo', 'run the fusion node on two simulated cameras'),
    Command('evaluate', 'evaluate', 'score the fusion on bags or a folder of image pairs'),
    Command('calibrate', 'calibrate', 'register the thermal camera to the visible one'),
    Command('play', 'play', 'play a bag over DDS, and record and measure the fused topics', True),
    Command('bag', 'bag', 'make a bag from image pairs or from the synthetic street'),
    Command('benchmark', 'benchmark', 'measure how fast the fusion is on this machine'),
    Command('train', 'train', 'train a denoiser on your own images'),
    Command('export', 'export', 'export the fusion as an ONNX file, for C++ and TensorRT'),
    Command('doctor', 'doctor', 'check this machine: what is missing or wrong, and what to do'),
    Command(
        'dev registration', 'dev_registration', 'measure how well calibrate recovers known warps'
    ),
    Command('dev restoration', 'dev_restoration', 'measure what undoing known degradations gains'),
)


def fusion_node() -> int:
    """Run the fusion node."""
    return run_command('dig2dig_ros.nodes.fusion_node')


def detection_fusion() -> int:
    """Run the node that merges detections."""
    return run_command('dig2dig_ros.nodes.detection_fusion_node')


def pair_camera() -> int:
    """Run the node that stands in for two cameras."""
    return run_command('dig2dig_ros.tools.pair_camera')


def dig2dig(arguments: Sequence[str] | None = None) -> int:
    """
    Run a subcommand.

    :param arguments: its name and arguments; default: those of this process.
    :return: the exit code.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    for command in COMMANDS:
        count = len(command.name.split())
        if words[:count] != command.name.split():
            continue
        return run_tool(f'dig2dig {command.name}', partial(_run, command, words[count:]))
    return run_tool('dig2dig', partial(_without_command, words))


def _run(command: Command, arguments: list[str]) -> int:
    """
    Import a subcommand and run it.

    :raises Refusal: a package that it imports is not installed.
    """
    module = f'dig2dig_ros.tools.{command.module}'
    try:
        if command.is_node:
            return run_command(module, arguments)
        hear_interrupts(f'dig2dig {command.name}')
        return int(import_module(module).main(arguments))
    except ImportError as error:
        raise Refusal(f'{error}: dig2dig doctor says what is missing') from error


def _without_command(words: Sequence[str]) -> int:
    """Handle a command line without a known command."""
    group = 'dev ' if words[:1] == ['dev'] else ''
    names = [each.name for each in COMMANDS if each.name.startswith(group)]
    width = max(map(len, names))
    parser = argparse.ArgumentParser(
        prog=f'dig2dig {group}'.rstrip(),
        usage=f'dig2dig {group}COMMAND [options]',
        description='Fuse a visible and a thermal camera.',
        epilog='commands:\n'
        + '\n'.join(f'  {c.name:<{width}}  {c.help}' for c in COMMANDS if c.name in names)
        + f'\n\nFor the options of a command: dig2dig {group}COMMAND --help',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--version', action='version', version=dig2dig_ros.__version__)
    rest = words[1:] if group else words
    if not rest:
        parser.print_help(sys.stderr)
        return 2
    if not rest[0].startswith('-'):
        import difflib

        close = difflib.get_close_matches(f'{group}{rest[0]}', names, 1)
        hint = f'; did you mean {close[0]}?' if close else f'; choose from {", ".join(names)}'
        parser.error(f'{rest[0]} is not a command{hint}')
    parser.parse_args(rest)
    return 0
