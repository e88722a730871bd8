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
Fuse the image pairs of a folder and print one table of metrics.

DIR holds the folders visible and thermal (or such) with images of the same names, or images
NAME_A and NAME_B. Metrics are those of the luma of the fused images against the two sources,
averaged over the pairs; ms is the median time of a fusion. The table goes to the standard output,
everything else to the standard error. Exit code: 0, 1 if a pair was skipped, 2 if nothing could
be done.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
import csv
from dataclasses import dataclass, fields
from pathlib import Path
import sys
import time
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
import yaml

from dig2dig_ros.evaluation.baselines import BASELINES, to_uint8
from dig2dig_ros.evaluation.image_pairs import (
    find_pairs,
    ImagePair,
    ImagePairError,
    load_pair,
    unpaired,
)
from dig2dig_ros.evaluation.metrics import evaluate_pair, luma, METRICS
from dig2dig_ros.fusion.settings import FusionSettings
from dig2dig_ros.images.thermal_range import ThermalRange
from dig2dig_ros.tools.resources import config_file

Image = NDArray[np.uint8]
# (visible BGR or grey, thermal grey) to the fused image, in colour or not.
Method = Callable[[Image, Image], Image]

FUSED = 'fused'
METHODS = (*BASELINES, FUSED)
NODE = 'fusion_node'


class UsageError(ValueError):
    """What was asked for cannot be done; the message says why."""


@dataclass(frozen=True)
class Score:
    """
    What one method made of one pair.

    :param size: (width, height) of the pair in pixels.
    :param metrics: values by name, see :data:`~dig2dig_ros.evaluation.metrics.METRICS`.
    :param milliseconds: from the two images to the fused one.
    """

    pair: str
    method: str
    size: tuple[int, int]
    metrics: dict[str, float]
    milliseconds: float


def load_parameters(name: str) -> dict[str, Any]:
    """
    Read the parameters that a ROS 2 parameter file sets for ``fusion_node``.

    :param name: a file, or the name of a shipped preset, for example ``realtime``.
    :raises UsageError: the file is missing or is not a ROS 2 parameter file.
    """
    path = Path(name)
    if not path.is_file():
        try:
            path = config_file(f'{name}.yaml')
        except FileNotFoundError as error:
            raise UsageError(f'--params {name} is neither a file nor a preset: {error}') from error
    try:
        document = yaml.safe_load(path.read_text(encoding='utf-8'))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f'{path} cannot be read as YAML: {error}') from error
    parameters: dict[str, Any] = {}
    found = False
    # The name of the node goes before the wildcard, as in ROS 2.
    for node in ('/**', f'/**/{NODE}', NODE, f'/{NODE}'):
        section = document.get(node) if isinstance(document, Mapping) else None
        values = section.get('ros__parameters') if isinstance(section, Mapping) else None
        if isinstance(values, Mapping):
            found = True
            parameters.update(values)
    if not found:
        raise UsageError(f'{path} has no ros__parameters for {NODE} or /**')
    return parameters


def fused_method(
    parameters: Mapping[str, Any], overrides: Mapping[str, Any]
) -> tuple[Method, str]:
    """
    Load the prior, warm up, and return the fusion of this package and its description.

    :param parameters: of ``fusion_node``; those that do not concern the fusion are ignored.
    :param overrides: values that replace them, None where they do not.
    :raises UsageError: a value is refused, or the device or the prior is missing.
    """
    # Here, because importing torch takes seconds that the baselines do not need.
    import torch

    from dig2dig_ros.fusion.fuser import Fuser

    values = {**parameters, **{k: v for k, v in overrides.items() if v is not None}}
    settings = {f.name: values[f.name] for f in fields(FusionSettings) if f.name in values}
    try:
        threads = int(values.get('num_threads', 0))
        if threads > 0:
            torch.set_num_threads(threads)
        where = {name: values[name] for name in ('device', 'precision', 'prior') if name in values}
        fuser = Fuser(FusionSettings(**settings), **where)
        width, height = values.get('warmup_size', (640, 512))
        fuser.warm_up(width, height)
    except (TypeError, ValueError) as error:
        raise UsageError(f'{FUSED} cannot be set up: {error}') from error
    about = ', '.join(f'{key} {value}' for key, value in fuser.describe().items())
    return lambda visible, thermal: fuser.fuse(visible, thermal).image, about


def baseline_method(name: str) -> Method:
    """Return the baseline ``name`` on luma, rounded to 8 bits."""
    fuse = BASELINES[name]
    return lambda visible, thermal: to_uint8(fuse([luma(visible), thermal]))


def thermal_range(parameters: Mapping[str, Any]) -> ThermalRange:
    """
    Return the mapping of thermal counts that the parameters ask for, without memory.

    :raises UsageError: a value is refused.
    """
    arguments = {
        'mode': 'thermal_range',
        'percentiles': 'thermal_range_percentiles',
        'limits': 'thermal_range_limits',
    }
    given = {name: parameters[key] for name, key in arguments.items() if key in parameters}
    try:
        return ThermalRange(**given, smoothing=0.0)
    except (TypeError, ValueError) as error:
        raise UsageError(f'thermal_range cannot be set up: {error}') from error


def score_pair(
    pair: ImagePair, methods: Mapping[str, Method], ranges: ThermalRange, save: Path | None
) -> list[Score]:
    """
    Fuse one pair with every method.

    :param save: folder that takes the fused images as ``PAIR__METHOD.png``.
    :raises ValueError: the pair cannot be read, fused or evaluated; the message says why.
    """
    visible, counts = load_pair(pair)
    # All methods, and the metrics, see the same 8-bit thermal image.
    thermal = to_uint8(ranges(counts, 0.0) * 255)
    visible_luma = luma(visible)
    height, width = visible_luma.shape
    if thermal.shape != visible_luma.shape:
        raise ValueError(
            f'visible is {width}x{height}, thermal {thermal.shape[1]}x{thermal.shape[0]} pixels: '
            'metrics need registered pairs of one size'
        )
    scores = []
    for name, method in methods.items():
        start = time.perf_counter()
        fused = method(visible, thermal)
        milliseconds = (time.perf_counter() - start) * 1e3
        values = evaluate_pair(luma(fused), visible_luma, thermal)
        scores.append(Score(pair.name, name, (width, height), values, milliseconds))
        if save is not None:
            path = save / f'{pair.name}__{name}.png'
            if not cv2.imwrite(str(path), fused):
                raise OSError(f'{path} cannot be written')
    return scores


def format_value(value: float) -> str:
    """Return a metric's value with four or five significant digits."""
    digits = 4 if abs(value) < 10 else 2 if abs(value) < 1000 else 1
    return f'{value:.{digits}f}'


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return an aligned Markdown table; the first column is text, the others are numbers."""
    widths = [max(len(line[i]) for line in (header, *rows)) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        first = cells[0].ljust(widths[0])
        others = [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
        return f'| {" | ".join([first, *others])} |'

    rule = ['-' * widths[0], *('-' * (width - 1) + ':' for width in widths[1:])]
    return '\n'.join([line(header), line(rule), *map(line, rows)])


def summary_table(scores: Sequence[Score], methods: Sequence[str]) -> str:
    """Return the table of means over the pairs, one row for each method."""
    rows = []
    for method in methods:
        own = [score for score in scores if score.method == method]
        means = [format_value(float(np.mean([s.metrics[name] for s in own]))) for name in METRICS]
        median = float(np.median([score.milliseconds for score in own]))
        rows.append([method, *means, f'{median:.1f}'])
    header = ['method', *(metric.title for metric in METRICS.values()), 'ms']
    return markdown_table(header, rows)


def caption(scores: Sequence[Score], skipped: int, about: str) -> str:
    """Return the line below the table: what it was measured on."""
    sizes = sorted({score.size for score in scores}, key=lambda size: size[0] * size[1])
    ends = ' to '.join(
        f'{width}x{height}' for width, height in dict.fromkeys((sizes[0], sizes[-1]))
    )
    pairs = len({score.pair for score in scores})
    text = f'{pairs} pair{"s" if pairs > 1 else ""} of {ends} pixels'
    if skipped:
        text += f', {skipped} skipped'
    return f'{text}; {FUSED}: {about}' if about else text


def write_csv(path: Path, scores: Sequence[Score]) -> None:
    """Write one line for each pair and method."""
    with path.open('w', newline='', encoding='utf-8') as file:
        writer = csv.writer(file)
        writer.writerow(['pair', 'method', 'width', 'height', *METRICS, 'ms'])
        for score in scores:
            values = (score.metrics[name] for name in METRICS)
            writer.writerow([score.pair, score.method, *score.size, *values, score.milliseconds])


def method_names(text: str) -> list[str]:
    """Split and check the value of ``--compare``."""
    names = list(dict.fromkeys(name.strip() for name in text.split(',') if name.strip()))
    unknown = [name for name in names if name not in METHODS]
    if unknown or not names:
        raise argparse.ArgumentTypeError(
            f'{", ".join(unknown) or "nothing"} is unknown: name one or more of '
            f'{", ".join(METHODS)}, separated by commas'
        )
    return names


def positive(text: str) -> int:
    """Parse a whole number from 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f'{value} is not 1 or more')
    return value


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; ends the program with code 2 where it makes no sense."""
    parser = argparse.ArgumentParser(
        prog='evaluate_pairs',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('directory', type=Path, metavar='DIR', help='folder of image pairs')
    parser.add_argument(
        '--compare',
        type=method_names,
        default=list(METHODS),
        metavar='METHODS',
        help=f'rows of the table, default: {",".join(METHODS)}',
    )
    parser.add_argument(
        '--limit', type=positive, metavar='PAIRS', help='take the first pairs only'
    )
    parser.add_argument(
        '--params',
        metavar='PRESET|FILE',
        help=f'parameters of {NODE}: a shipped preset or a YAML file; default: its defaults',
    )
    parser.add_argument('-N', type=positive, metavar='STEPS', help='steps of the reverse chain')
    parser.add_argument(
        '-S',
        type=positive,
        metavar='STEPS',
        help='steps between two refreshes of the information gains',
    )
    parser.add_argument('--device', help='auto, cpu, cuda or cuda:N')
    parser.add_argument('--csv', type=Path, metavar='FILE', help='write the values of every pair')
    parser.add_argument('--save', type=Path, metavar='DIR', help='write the fused images')
    return parser.parse_args(argv)


def report(text: str) -> None:
    """Tell something that does not belong to the table."""
    print(text, file=sys.stderr, flush=True)


def evaluate(args: argparse.Namespace) -> int:
    """
    Do what the command line asks for.

    :return: exit code.
    :raises UsageError: nothing can be done.
    :raises ImagePairError: there are no pairs.
    :raises OSError: a result cannot be written.
    """
    parameters = load_parameters(args.params) if args.params else {}
    ranges = thermal_range(parameters)
    pairs = find_pairs(args.directory)[: args.limit]
    alone = unpaired(args.directory)
    if alone:
        report(f'without a counterpart, left out: {", ".join(alone)}')
    methods: dict[str, Method] = {}
    about = ''
    for name in args.compare:
        if name == FUSED:
            overrides = {
                'num_inference_steps': args.N,
                'dig_refresh_interval': args.S,
                'device': args.device,
            }
            methods[name], about = fused_method(parameters, overrides)
        else:
            methods[name] = baseline_method(name)
    if args.save is not None:
        args.save.mkdir(parents=True, exist_ok=True)

    scores: list[Score] = []
    skipped: list[str] = []
    for index, pair in enumerate(pairs, start=1):
        try:
            new = score_pair(pair, methods, ranges, args.save)
        except (ValueError, RuntimeError, OSError, cv2.error) as error:
            skipped.append(pair.name)
            report(f'[{index}/{len(pairs)}] {pair.name}: skipped, {error}')
            continue
        scores += new
        times = ', '.join(f'{score.method} {score.milliseconds:.1f} ms' for score in new)
        report(f'[{index}/{len(pairs)}] {pair.name}: {times}')
    if not scores:
        raise UsageError(f'none of the {len(pairs)} pairs of {args.directory} could be evaluated')
    print(summary_table(scores, list(methods)))
    print()
    print(caption(scores, len(skipped), about))
    if args.csv is not None:
        write_csv(args.csv, scores)
    if skipped:
        report(f'skipped {len(skipped)} of {len(pairs)} pairs: {", ".join(skipped)}')
    return 1 if skipped else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; see the module's description."""
    args = parse_arguments(argv)
    try:
        return evaluate(args)
    except (UsageError, ImagePairError, OSError, ImportError) as error:
        report(f'evaluate_pairs: {error}')
        return 2


if __name__ == '__main__':
    sys.exit(main())
