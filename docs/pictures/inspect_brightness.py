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
Look at pairs of real images by day: each camera, and both fused without and with their brightness.

``visible_brightness`` is 0 in the third column and 1 in the fourth one. --output draws them,
brightness.jpg. Exit code: 0, or 2 if nothing could be done.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
import sys

from dig2dig_ros.nodes.signals import hear_interrupts, run_tool

if __name__ == '__main__':  # before the imports that take seconds
    hear_interrupts('inspect_brightness')

from sheets import draw, Panel, Sheet

from dig2dig_ros.evaluation.options import set_up_fuser, UsageError
from dig2dig_ros.images.image_pairs import find_pairs, load_pair

_VALUES = (0.0, 1.0)


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; exit with code 2 if it is invalid."""
    parser = argparse.ArgumentParser(
        'inspect_brightness',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    # fmt: off
    add = parser.add_argument
    add('pairs', type=Path, metavar='FOLDER', help='image pairs, as dig2dig evaluate takes them')
    add('--pair', required=True, nargs='+', metavar='NAME', help='which of them')
    add('--source', default='', help='the source of the images, for the note below the title')
    add('--device', default='auto', help='auto, cpu, cuda or cuda:N')
    add('-o', '--output', required=True, type=Path, metavar='DIR',
        help='draw brightness.jpg into this folder (needs matplotlib)')
    # fmt: on
    return parser.parse_args(argv)


def inspect(args: argparse.Namespace) -> int:
    """
    Do what the command line asks for.

    :return: exit code.
    :raises UsageError, ImagePairError: nothing can be done.
    :raises OSError, ImportError: a result cannot be written, or matplotlib is missing.
    """
    pairs = {pair.name: pair for pair in find_pairs(args.pairs)}
    for name in args.pair:
        if name not in pairs:
            raise UsageError(f'{args.pairs} has no pair {name}')
    fuser = set_up_fuser({'device': args.device})
    rows = []
    for name in args.pair:
        visible, thermal = load_pair(pairs[name], same_size=True)
        panels = [Panel(visible, 'visible'), Panel(thermal, 'thermal')]
        for value in _VALUES:
            result = fuser(visible, thermal, visible_brightness=value, weight_maps=False)
            panels.append(Panel(result.image, f'fused, visible_brightness {value:g}'))
        rows.append((name, panels))
    args.output.mkdir(parents=True, exist_ok=True)
    sheet = Sheet('The sky by day', args.source, rows)
    (args.output / 'brightness.jpg').write_bytes(draw(sheet))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; see the module's description."""
    return run_tool('inspect_brightness', lambda: inspect(parse_arguments(argv)))


if __name__ == '__main__':
    sys.exit(main())
