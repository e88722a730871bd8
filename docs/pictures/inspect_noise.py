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
Look at what noise of the visible camera does to the information and the weights of the cameras.

White noise is added to the visible images of the synthetic street. Printed for every deviation:
the information of each camera about the scene, in nats per sample, and the mean thermal weight of
the fused image, by default, without the gate (least_information), and without the noise estimate.
--output draws that, noise.png, and a sheet of one pair whose visible image was taken in very
little light, night_shot.jpg. Exit code: 0, or 2 if nothing could be done.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
import sys
from typing import Any

from dig2dig_ros.nodes.signals import hear_interrupts, run_tool

if __name__ == '__main__':  # before the imports that take seconds
    hear_interrupts('inspect_noise')

from sheets import draw

from dig2dig_ros.evaluation.options import (
    positive,
    set_up_fuser,
    size_argument,
    UsageError,
)


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; exit with code 2 if it is invalid."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser('inspect_noise', description=__doc__, formatter_class=raw)
    # fmt: off
    add = parser.add_argument
    add('--count', type=positive, default=3, metavar='PAIRS', help='default: 3')
    add('--size', type=size_argument, default=(320, 256), metavar='WIDTHxHEIGHT',
        help='of the pairs, default: 320x256')
    add('--seed', type=int, default=0, help='of streets and noise, default: 0')
    add('--device', default='auto', help='auto, cpu, cuda or cuda:N')
    add('--prior', default='compact', help='compact, nano, or a path; default: compact')
    add('-o', '--output', type=Path, metavar='DIR',
        help='draw noise.png and night_shot.jpg into this folder (needs matplotlib)')
    # fmt: on
    return parser.parse_args(argv)


def inspect(args: argparse.Namespace) -> int:
    """
    Do what the command line asks for.

    :return: exit code.
    :raises UsageError: nothing can be done.
    :raises OSError, ImportError: a result cannot be written, or matplotlib is missing.
    """
    plots: Any = None
    if args.output is not None:
        try:
            import gain_plots as plots
        except ImportError as error:
            raise ImportError(
                f'{error}: plots need matplotlib; pip install matplotlib, or leave out --output'
            ) from error
        args.output.mkdir(parents=True, exist_ok=True)
    fuser = set_up_fuser({'device': args.device, 'prior': args.prior})

    # Importing torch takes seconds, which a mistake in the command line need not cost.
    import noise_study

    try:
        nats, weights = noise_study.follow_noise(fuser, args.count, args.size, args.seed)
    except ValueError as error:
        raise UsageError(str(error)) from error
    print(noise_study.noise_table(nats, weights).markdown())
    if plots is not None:
        plots.draw_noise(args.output / 'noise.png', noise_study.LEVELS, nats, weights)
        sheet = noise_study.night_sheet(fuser, args.size, args.seed)
        (args.output / 'night_shot.jpg').write_bytes(draw(sheet))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; see the module's description."""
    return run_tool('inspect_noise', lambda: inspect(parse_arguments(argv)))


if __name__ == '__main__':
    sys.exit(main())
