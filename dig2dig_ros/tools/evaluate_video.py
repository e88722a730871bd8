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
Measure what reusing the last pairs of a video saves and costs: time, errors, ghosts, flicker.

The videos are bags, or the built-in night street, once with a camera that stands still and once
with one that sways. Every row of --compare fuses them pair after pair with a memory of its own,
in turns with the reference, which is the fusion that the parameters ask for, without memory.

- ms: of a pair, the median and the mean; times: by which factor the mean is below the reference's.
- reused: part of the pixels whose estimates were reused, mean over the pairs.
- PSNR and SSIM: of the luma against the reference.
- ghosts: difference to the reference in grey levels where something moved within the last ten
  pairs, mean and 99th percentile; elsewhere: its mean where nothing did. A row that fuses every
  pair anew, with other settings, has such a difference as well, but no ghosts.
- flicker: change in grey levels from a pair to the next where nothing moved, the sensors' noise
  included; that of the reference stands in its row.

Tables go to the standard output, progress to the standard error.

Exit code: 0, 2 if nothing could be done, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
import sys
from typing import Any, TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dig2dig_ros.evaluation.comparison import ComparisonError, parse_rows, Row
from dig2dig_ros.evaluation.jobs import Interruption
from dig2dig_ros.evaluation.methods import make_fusion, row_prior, row_settings
from dig2dig_ros.evaluation.options import (
    add_fusion_options,
    fusion_overrides,
    fusion_settings,
    INTERRUPTED,
    load_parameters,
    positive,
    report,
    size_argument,
    UsageError,
    with_overrides,
)
from dig2dig_ros.evaluation.scores import FUSED, grey_8_bits
from dig2dig_ros.evaluation.synthetic_scene import SyntheticScene
from dig2dig_ros.evaluation.tables import Table
from dig2dig_ros.evaluation.temporal import MotionMask, VideoDifference
from dig2dig_ros.images.thermal_range import ThermalRange

# Importing torch takes seconds, which a mistake in the command line need not cost.
if TYPE_CHECKING:
    from dig2dig_ros.fusion.fuser import Fuser
    from dig2dig_ros.fusion.video_memory import VideoMemory

Images = tuple[NDArray[Any], ...]
ROWS = 'fused:gain_reuse=1,fused:gain_reuse=4,fused:gain_reuse=9,fused:prior_downscale=4'
REFERENCE = 'every pair anew'
HEADER = (
    'row',
    'ms median',
    'ms mean',
    'times',
    'reused',
    'PSNR',
    'SSIM',
    'ghosts',
    'ghosts 99 %',
    'elsewhere',
    'flicker',
)
# Seconds from the beginning of the built-in scene, at which its street is busy.
_START = 1.0


class VideoRow:
    """One way to fuse a video, and what came of it."""

    def __init__(self, name: str, fuser: Fuser, memory: VideoMemory | None) -> None:
        self.name = name
        self._fuser = fuser
        self._memory = memory
        self._seconds: list[float] = []
        self._reused: list[float] = []
        self._difference = VideoDifference()

    def fuse(self, images: Images) -> NDArray[np.uint8]:
        """Fuse the next pair; return its luma."""
        visible, thermal, *others = images
        result = self._fuser.fuse(visible, thermal, *others, weights=False, memory=self._memory)
        self._seconds.append(result.statistics.seconds)
        self._reused.append(0.0 if self._memory is None else self._memory.reused)
        return grey_8_bits(result.image)

    def compare(
        self, fused: NDArray[np.uint8], reference: NDArray[np.uint8], moved: NDArray[np.bool_]
    ) -> None:
        """Take what :meth:`fuse` returned, and what the reference did."""
        self._difference.add(fused, reference, moved)

    @property
    def mean_seconds(self) -> float:
        """Of a pair."""
        return float(np.mean(self._seconds))

    def cells(self, reference: VideoRow) -> tuple[str, ...]:
        """Return the row of the table."""
        milliseconds = 1e3 * np.array(self._seconds)
        found = self._difference
        ghosts, worst = found.ghosting
        numbers = [
            f'{np.median(milliseconds):.1f}',
            f'{milliseconds.mean():.1f}',
            f'{reference.mean_seconds / self.mean_seconds:.2f}',
            f'{np.mean(self._reused):.2f}',
            f'{found.psnr:.1f}' if np.isfinite(found.psnr) else '∞',
            f'{found.ssim:.4f}',
            *(f'{value:.2f}' for value in (ghosts, worst, found.still, found.flicker)),
        ]
        return (self.name, *(number.replace('nan', '') for number in numbers))


def scene_pairs(size: tuple[int, int], rate: float, sways: bool) -> Iterator[Images]:
    """Yield pairs of the built-in scene, whose thermal range is mapped as the node does."""
    scene = SyntheticScene(*size, sways=sways)
    ranges = ThermalRange()
    index = 0
    while True:
        time = _START + index / rate
        frame = scene.render(time)
        yield frame.visible, ranges(frame.thermal, time)
        index += 1


def bag_pairs(bag: Path, parameters: Mapping[str, Any], fuser: Fuser) -> Iterator[Images]:
    """
    Yield the pairs of a bag as the node would fuse them.

    :raises UsageError: it cannot be read.
    """
    from dig2dig_ros.evaluation.bag_reader import BagReader
    from dig2dig_ros.evaluation.bag_topics import find_sources
    from dig2dig_ros.evaluation.bag_types import BagError
    from dig2dig_ros.evaluation.replay import BagReplay
    from dig2dig_ros.streams.parameters import complete_values

    try:
        values = complete_values(parameters)
        with BagReader(bag) as reader:
            topics = find_sources(reader.topics)
            for pair in BagReplay(reader, topics, values, fuser).pairs():
                yield pair.images
    except (BagError, TypeError, ValueError) as error:
        raise UsageError(f'{bag}: {error}') from error


def measure(
    name: str, pairs: Iterator[Images], rows: Sequence[VideoRow], interruption: Interruption
) -> Table:
    """
    Fuse a video with all rows, in turns.

    :param rows: the reference first.
    :raises UsageError: there is no pair.
    """
    mask: MotionMask | None = None
    count = 0
    for images in pairs:
        if interruption.requested:
            break
        size = (images[0].shape[1], images[0].shape[0])
        mask = mask or MotionMask(10)
        moved = mask([grey_8_bits(image, size) for image in images])
        # In turns, so that what else the machine does affects all of them alike.
        fused = [row.fuse(images) for row in rows]
        for row, image in zip(rows, fused, strict=True):
            row.compare(image, fused[0], moved)
        count += 1
        if count % 10 == 0:
            report(f'{name}: {count} pairs')
    if not count:
        raise UsageError(f'{name} has no pair to fuse')
    cells = tuple(row.cells(rows[0]) for row in rows)
    return Table(f'{name}, {count} pairs of {size[0]}x{size[1]}', HEADER, cells)


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; ends the program with code 2 where it makes no sense."""
    parser = argparse.ArgumentParser(
        prog='evaluate_video',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add('bags', type=Path, nargs='*', metavar='BAG', help='default: the built-in scene')
    add('--compare', default=ROWS, metavar='ROWS', help=f'default: {ROWS}')
    add('--limit', type=positive, default=60, metavar='PAIRS', help='of each video; default: 60')
    add(
        '--size',
        type=size_argument,
        default=(640, 512),
        metavar='WIDTHxHEIGHT',
        help='of the built-in scene; default: 640x512',
    )
    add(
        '--rate',
        type=float,
        default=10.0,
        metavar='HZ',
        help='pairs a second of the built-in scene; default: 10',
    )
    add_fusion_options(parser)
    args = parser.parse_args(argv)
    if not args.rate > 0:
        parser.error(f'--rate is {args.rate}, but must be above 0')
    return args


def video_rows(compared: Sequence[Row], parameters: Mapping[str, Any]) -> list[VideoRow]:
    """
    Set up the reference and the rows, with one prior for all and empty memories.

    :raises UsageError: a row cannot be set up, or is a baseline.
    """
    from dig2dig_ros.fusion.video_memory import VideoMemory

    try:
        asked = replace(fusion_settings(parameters), gain_reuse=0)
        reference = make_fusion(parameters, asked, (64, 64))
        rows = [VideoRow(REFERENCE, reference.fuser, None)]
        for row in compared:
            if row.is_baseline:
                raise UsageError(f'{row.name} has no prior whose estimates could be reused')
            settings = row_settings(row, parameters)
            prior = row_prior(row) or reference.fuser.prior
            fusion = make_fusion(parameters, settings, (64, 64), prior)
            rows.append(VideoRow(row.name.removeprefix(f'{FUSED}:'), fusion.fuser, VideoMemory()))
    except UsageError:
        raise
    except (TypeError, ValueError) as error:
        raise UsageError(f'the fusion cannot be set up: {error}') from error
    return rows


def evaluate(args: argparse.Namespace) -> int:
    """
    Do what the command line asks for.

    :return: the exit code.
    :raises UsageError: nothing could be done.
    """
    base = load_parameters(args.params) if args.params else {}
    parameters = with_overrides(base, fusion_overrides(args))
    compared = parse_rows(args.compare)
    videos: list[Path | bool] = [*args.bags] or [False, True]
    interruption = Interruption()
    with interruption.on_sigint(lambda: report(INTERRUPTED)):
        for video in videos:
            rows = video_rows(compared, parameters)
            if isinstance(video, Path):
                name = video.name
                # One of its own, whose memory is not that of the reference.
                fuser = make_fusion(parameters, fusion_settings(parameters), (64, 64)).fuser
                pairs = bag_pairs(video, parameters, fuser)
            else:
                name = f'Built-in scene, camera {"sways" if video else "stands still"}'
                pairs = scene_pairs(args.size, args.rate, video)
            table = measure(name, islice(pairs, args.limit), rows, interruption)
            print(f'{table.markdown()}\n', flush=True)
            if interruption.requested:
                return 130
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    args = parse_arguments(argv)
    try:
        return evaluate(args)
    except (UsageError, ComparisonError) as error:
        report(f'evaluate_video: {error}')
        return 2
    except KeyboardInterrupt:
        report('evaluate_video: interrupted')
        return 130


if __name__ == '__main__':
    sys.exit(main())
