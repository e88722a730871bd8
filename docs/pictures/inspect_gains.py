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
Look at what Theorem 1 and Figure 5 of Dig2DIG are about.

Without a pair of your own: fuse synthetic pairs whose ideal fused image is known (scene: what the
two cameras see; complementary: one image, degraded in one half here and in the other half there)
and print, step by step, the covariance of the weights with the projections B of the sources'
guidance on the direction to the ideal image, for weights from information gains (dig), relative
dominability (rd) and 1/K each (uniform). Above zero, the weights lower the bound of the error.
Each rule goes along a chain of its own.
Then, for the first pair or for your own, print how early each source gains its information,
region by region. Tables go to standard output, everything else to standard error;
--output draws both. Exit code: 0, or 2 if nothing could be done.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
import sys
from typing import Any, TYPE_CHECKING

from dig2dig_ros.nodes.signals import hear_interrupts, run_tool

if __name__ == '__main__':  # before the imports that take seconds
    hear_interrupts('inspect_gains')

import cv2
from known_fusions import known_fusions, PAIR_KINDS
import numpy as np
from numpy.typing import NDArray

from dig2dig_ros.evaluation.comparison import changed_settings
from dig2dig_ros.evaluation.metrics import luma
from dig2dig_ros.evaluation.options import (
    add_fusion_options,
    chosen_parameters,
    load_fuser,
    positive,
    report,
    size_argument,
    thermal_range,
    UsageError,
)
from dig2dig_ros.fusion.settings import FusionSettings
from dig2dig_ros.images.image_pairs import ImagePair, load_pair
from dig2dig_ros.streams.parameters import fusion_settings

# Importing torch takes seconds, which a mistake in the command line need not cost.
if TYPE_CHECKING:
    from gain_study import Chain

    from dig2dig_ros.fusion.fuser import Fuser

# The theorem's own terms: from pure noise, with noise in the estimates, a step at a time.
DEFAULTS: dict[str, Any] = {
    'fusion.sampler': 'ddim',
    'fusion.num_inference_steps': 25,
    'fusion.dig_refresh_interval': 5,
    'fusion.first_timestep': 999,
    'fusion.noise_draws': 1,
}


def chain_parameters(args: argparse.Namespace) -> tuple[dict[str, Any], FusionSettings]:
    """
    Return the parameters that the command line asks for, and the settings among them.

    :raises UsageError: a value is refused.
    """
    values = chosen_parameters(args, {} if args.preset else DEFAULTS)
    try:
        settings = fusion_settings(values)
    except ValueError as error:
        raise UsageError(f'the chain cannot be set up: {error}') from error
    if settings.sampler == 'increments':
        settings = replace(settings, sampler='ddim')
        report("the sampler 'increments' has no chain to look at: ddim in its place")
    if settings.guidance != 'score':
        report(f'guidance {settings.guidance} makes its own weights: score in its place')
    return values, replace(settings, guidance='score')


def make_fuser(values: Mapping[str, Any], settings: FusionSettings) -> Fuser:
    """
    Load the prior.

    :raises UsageError: device or prior are missing, or the prior does not know the timesteps.
    """
    try:
        fuser = load_fuser(values, settings)
        fuser.prior.check_timesteps(settings.timesteps)
        return fuser
    except (TypeError, ValueError) as error:
        raise UsageError(f'the fusion cannot be set up: {error}') from error


def load_own_pair(args: argparse.Namespace, values: Mapping[str, Any]) -> NDArray[np.float32]:
    """
    Read the pair of the command line.

    :return: (2, H, W) in [0, 1].
    :raises ImagePairError: an image cannot be read.
    :raises UsageError: the sizes differ.
    """
    visible, counts = load_pair(ImagePair('pair', args.visible, args.thermal))
    thermal = thermal_range(values)(counts, 0.0)
    grey = luma(visible).astype(np.float32) / 255
    if grey.shape != thermal.shape:
        raise UsageError(
            f'visible is {grey.shape[1]}x{grey.shape[0]}, thermal {thermal.shape[1]}x'
            f'{thermal.shape[0]} pixels: give a registered pair of one size'
        )
    return np.stack([grey, thermal])


def region_argument(text: str) -> tuple[int, int, int, int]:
    """Parse X,Y,WIDTH,HEIGHT."""
    try:
        x, y, width, height = (int(part) for part in text.split(','))
    except ValueError:
        raise argparse.ArgumentTypeError(f'{text} is not x,y,width,height in pixels') from None
    return x, y, width, height


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; exit with code 2 if it is invalid."""
    parser = argparse.ArgumentParser(
        prog='inspect_gains',
        usage='%(prog)s [options]',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    # fmt: off
    add = parser.add_argument_group('synthetic pairs').add_argument
    add('--pairs', nargs='+', choices=PAIR_KINDS, default=list(PAIR_KINDS),
        help=f'kinds of pairs, default: {" ".join(PAIR_KINDS)}')
    add('--count', type=positive, default=8, metavar='PAIRS', help='of each kind, default: 8')
    add('--size', type=size_argument, default=(320, 256), metavar='WIDTHxHEIGHT',
        help='of the pairs, default: 320x256')
    add('--seed', type=int, default=0, help='of streets and noise, default: 0')

    group = parser.add_argument_group('your own pair (its gains only: its ideal is not known)')
    add = group.add_argument
    add('--visible', type=Path, metavar='FILE', help='visible image')
    add('--thermal', type=Path, metavar='FILE', help='thermal image of the same size')

    own = ', '.join(f'{name} {value}' for name, value in DEFAULTS.items())
    add_fusion_options(parser, f'its defaults, but {own}')

    add = parser.add_argument_group('results').add_argument
    add('--region', type=region_argument, action='append', default=[], metavar='X,Y,WIDTH,HEIGHT',
        help='of the gains, in pixels; may be repeated; default: squares of different contrast')
    add('-o', '--output', type=Path, metavar='DIR',
        help='draw theorem.png and cumulative_gain.png into this folder (needs matplotlib)')
    # fmt: on
    args = parser.parse_args(argv)
    if (args.visible is None) != (args.thermal is None):
        parser.error('--visible and --thermal make a pair: give both')
    return args


def inspect(args: argparse.Namespace) -> int:
    """
    Do what the command line asks for.

    :return: exit code.
    :raises UsageError: nothing can be done.
    :raises ImagePairError: the pair cannot be read.
    :raises OSError: a result cannot be written.
    :raises ImportError: matplotlib is missing.
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
    values, settings = chain_parameters(args)
    width, height = args.size
    if args.visible is not None:
        names: Sequence[str] = ('visible', 'thermal')
        sources = load_own_pair(args, values)
    else:
        try:
            example = next(known_fusions(args.pairs[0], 1, width, height, args.seed))
        except ValueError as error:
            raise UsageError(str(error)) from error
        names, sources = example.source_names, example.sources
    fuser = make_fuser(values, settings)

    import gain_study
    from information import Region

    if args.visible is None:
        chains = gain_study.follow_chains(fuser, args.pairs, args.count, args.size, args.seed)
        print_covariances(chains)
        print(f'{width}x{height} pixels, projected over a window of {settings.gain_window}.\n')
        if plots is not None:
            plots.draw_theorem(args.output / 'theorem.png', chains)
    try:
        regions = [Region(*region) for region in args.region]
        curves = gain_study.region_gains(fuser, sources, names, regions)
    except ValueError as error:
        raise UsageError(str(error)) from error
    table = gain_study.gain_table(curves, names, settings.gain_loss)
    print(f'## Cumulative information gain\n\n{table.markdown()}\n')
    about = ', '.join(f'{key} {value}' for key, value in fuser.describe().items())
    print(f'{about}; other than the defaults: {changed_settings(settings)}')
    if plots is not None:
        plots.draw_gains(args.output / 'cumulative_gain.png', sources, names, curves)
    return 0


def print_covariances(chains: Sequence[Chain]) -> None:
    """Print the two tables of every kind of pairs."""
    from gain_study import step_table, summary_table

    for kind in dict.fromkeys(chain.kind for chain in chains):
        own = [chain for chain in chains if chain.kind == kind]
        pairs = len({chain.pair for chain in own})
        print(f'## Weights and guidance: {kind}, {pairs} pair{"s" if pairs > 1 else ""}\n')
        for table in (step_table(own), summary_table(own)):
            print(f'{table.markdown()}\n')


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; see the module's description."""
    return run_tool('inspect_gains', lambda: inspect(parse_arguments(argv)), refusals=(cv2.error,))


if __name__ == '__main__':
    sys.exit(main())
