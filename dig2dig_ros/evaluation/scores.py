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
Scores of fusions, pair by pair, and their tables.

Values are kept as plain arrays of numbers, so that thousands of pairs take a few megabytes.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
import csv
from dataclasses import dataclass
import math
from pathlib import Path
import time
from typing import Any, IO

import cv2
import numpy as np
from numpy.typing import NDArray

from dig2dig_ros.evaluation.baselines import to_uint8
from dig2dig_ros.evaluation.comparison import (
    Difference,
    FEWEST_PAIRS,
    FUSED,
    mean_ranks,
    metric_ranks,
    paired_differences,
    RANKED_METRICS,
)
from dig2dig_ros.evaluation.metrics import evaluate_pair, LPIPS, luma, metric_info
from dig2dig_ros.evaluation.perceptual import Lpips
from dig2dig_ros.evaluation.tables import Table
from dig2dig_ros.images.placement import Placement

Image = NDArray[np.uint8]
# Images of one scene (visible, thermal, others), each of any size, and their placements on the
# visible one, or none, to the fused image, in colour or not.
Method = Callable[[Sequence[NDArray[Any]], Sequence[Placement | None]], Image]

NOT_AVAILABLE = 'n/a'
MEAN = 'mean'
# Rows from which on their mean ranks are worth comparing.
_ENOUGH_ROWS = 6
LPIPS_MISSING = 'LPIPS is missing: --lpips computes it, with the package lpips and its weights.'


@dataclass(frozen=True)
class MethodOutput:
    """
    The output of one method for one pair.

    :param image: (H, W), or (H, W, 3) in blue-green-red order.
    :param milliseconds: from the images to the fused one.
    """

    image: Image
    milliseconds: float


@dataclass(frozen=True)
class Cost:
    """
    The cost of a method for one pair; None if unknown or not applicable.

    :param prior_calls: images that go through the prior.
    :param gflop: billions of floating-point operations of the prior.
    :param milliseconds: from the images to the fused one, median.
    """

    prior_calls: int | None = None
    gflop: float | None = None
    milliseconds: float | None = None


def to_8_bits(image: NDArray[Any]) -> Image:
    """
    Return an image on the 8-bit scale, as metrics, detectors and people see it.

    :param image: uint8, which is returned as it is, uint16 (full range) or float in [0, 1].
    :raises ValueError: it has another type.
    """
    if image.dtype == np.uint8:
        return image
    if image.dtype == np.uint16:
        return to_uint8(image.astype(np.float32) / np.float32(257.0))
    if image.dtype.kind == 'f':
        return to_uint8(image.astype(np.float32) * np.float32(255.0))
    raise ValueError(f'an image of {image.dtype} has no 8-bit scale: use uint8, uint16 or float')


def grey_8_bits(image: NDArray[Any], size: tuple[int, int] | None = None) -> Image:
    """
    Return the 8-bit luma of an image.

    :param image: see :func:`to_8_bits`; (H, W) or (H, W, 3).
    :param size: (width, height) in pixels to resize it to: bilinear to enlarge, by area to
        reduce.
    """
    grey = luma(to_8_bits(image))
    if size is None or size == (grey.shape[1], grey.shape[0]):
        return grey
    shrinks = size[0] < grey.shape[1] or size[1] < grey.shape[0]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(grey, size, interpolation=method), dtype=np.uint8)


def fuse_with(
    methods: Mapping[str, Method],
    images: Sequence[NDArray[Any]],
    known: Mapping[str, MethodOutput] | None = None,
    placements: Sequence[Placement | None] = (),
) -> dict[str, MethodOutput]:
    """
    Fuse one pair with every method; rows that share a method fuse once.

    :param known: existing results, by name.
    :param placements: of each image, where it does not cover the visible one.
    """
    fused: dict[str, MethodOutput] = {}
    done: dict[Method, MethodOutput] = {}
    for name, method in methods.items():
        if known is not None and name in known:
            fused[name] = known[name]
            continue
        if method not in done:
            start = time.perf_counter()
            image = method(images, placements)
            done[method] = MethodOutput(image, (time.perf_counter() - start) * 1e3)
        fused[name] = done[method]
    return fused


def score_images(
    fused: Mapping[str, MethodOutput],
    visible: Image,
    thermal: Image,
    lpips: Lpips | None = None,
    threads: int = 1,
) -> dict[str, dict[str, float]]:
    """
    Return every metric of every fused image, by method and metric.

    :param visible: luma (H, W).
    :param thermal: likewise, of the same size.
    :param threads: number of methods to score at a time; does not affect the values.
    :raises MetricError: an image is too small, or sizes differ.
    """
    entries = {id(entry): entry for entry in fused.values()}

    def score(entry: MethodOutput) -> dict[str, float]:
        return evaluate_pair(luma(entry.image), visible, thermal, lpips)

    with ThreadPoolExecutor(max(1, min(threads, len(entries)))) as pool:
        done = dict(zip(entries, pool.map(score, entries.values()), strict=True))
    return {name: done[id(entry)] for name, entry in fused.items()}


class ScoreBook:
    """
    The scores of a set of pairs.

    :param methods: their names.
    :param metrics: names of the metrics, see :mod:`~dig2dig_ros.evaluation.metrics`.
    """

    def __init__(self, methods: Iterable[str], metrics: Iterable[str]) -> None:
        self.methods = tuple(methods)
        self.metrics = tuple(metrics)
        self.pairs = 0
        self._values = {method: array('d') for method in self.methods}
        self._milliseconds = {method: array('d') for method in self.methods}

    def add(
        self, values: Mapping[str, Mapping[str, float]], milliseconds: Mapping[str, float]
    ) -> None:
        """Add one pair: values by method and metric, and times by method."""
        for method in self.methods:
            self._values[method].extend(values[method][metric] for metric in self.metrics)
            self._milliseconds[method].append(milliseconds[method])
        self.pairs += 1

    def values(self, method: str) -> NDArray[np.float64]:
        """Return the values of one method, (pairs, metrics)."""
        # Copied: an array whose memory is shared could not grow any more.
        return np.array(self._values[method]).reshape(self.pairs, len(self.metrics))

    def column(self, method: str, metric: str) -> NDArray[np.float64]:
        """Return the values of one method and metric, (pairs,)."""
        column: NDArray[np.float64] = self.values(method)[:, self.metrics.index(metric)]
        return column

    def means(self) -> dict[str, dict[str, float]]:
        """Return the means over the pairs, by method and metric; infinite if a value is."""
        return {
            method: dict(
                zip(self.metrics, map(float, self.values(method).mean(axis=0)), strict=True)
            )
            for method in self.methods
        }

    def milliseconds(self, method: str) -> NDArray[np.float64]:
        """Return the times of one method, (pairs,)."""
        return np.array(self._milliseconds[method])

    def median_milliseconds(self) -> dict[str, float]:
        """Return the median over the pairs of the time of a fusion, by method."""
        return {method: float(np.median(self.milliseconds(method))) for method in self.methods}


class ScoreFile:
    """
    A CSV file of scores, with one line per pair and method, written immediately.

    :param path: is replaced.
    :param columns: names of the columns before the metrics, which identify a line.
    :param metrics: names of the metrics.
    :param after: names of what follows them.
    """

    def __init__(
        self,
        path: Path,
        columns: Sequence[str],
        metrics: Sequence[str],
        after: Sequence[str] = (),
    ) -> None:
        self._metrics = tuple(metrics)
        self._file: IO[str] = path.open('w', newline='', encoding='utf-8')
        self._writer = csv.writer(self._file, lineterminator='\n')
        self._writer.writerow([*columns, *metrics, *after])

    def add(
        self, cells: Sequence[object], values: Mapping[str, float], after: Sequence[object] = ()
    ) -> None:
        """Write one line, with numbers as Python prints them, which read back exactly."""
        self._writer.writerow([*cells, *(values[name] for name in self._metrics), *after])

    def flush(self) -> None:
        """Flush to the operating system."""
        self._file.flush()

    def close(self) -> None:
        """Finish the file."""
        self._file.close()


def format_value(value: float) -> str:
    """Return a metric's value with four or five significant digits."""
    if math.isinf(value):
        return '∞' if value > 0 else '-∞'
    digits = 4 if abs(value) < 10 else 2 if abs(value) < 1000 else 1
    return f'{value:.{digits}f}'


def optional(value: float | None, form: Callable[[float], str] = format_value) -> str:
    """Return a value as text, ``n/a`` if there is none."""
    return NOT_AVAILABLE if value is None else form(value)


def comparison_table(
    scores: Mapping[str, Mapping[str, float]],
    metrics: Sequence[str],
    costs: Mapping[str, Cost],
) -> Table:
    """
    Return the table of all rows, with ranks.

    :param scores: mean values by row and metric.
    :param metrics: its columns.
    :param costs: by row, for those that have been measured.
    """
    ranking = mean_ranks(scores)
    rows = []
    for name, values in scores.items():
        cost = costs.get(name, Cost())
        rows.append(
            (
                name,
                *(optional(values.get(metric)) for metric in metrics),
                optional(ranking.get(name), '{:.2f}'.format),
                optional(cost.prior_calls, '{:d}'.format),
                optional(cost.gflop),
                optional(cost.milliseconds, '{:.1f}'.format),
            )
        )
    titles = (metric_info(metric).title for metric in metrics)
    header = ('method', *titles, 'mean rank ↓', 'denoiser calls', 'GFLOP', 'ms')
    notes = [rank_sentences(scores, metrics, ranking)]
    if LPIPS not in metrics:
        notes.append(LPIPS_MISSING)
    return Table('', header, tuple(rows), tuple(notes))


def rank_sentences(
    scores: Mapping[str, Mapping[str, float]],
    metrics: Sequence[str],
    ranking: Mapping[str, float],
) -> str:
    """
    Say which rows the mean ranks are over, and the rank of the fusion in every metric.

    :param scores: mean values by row and metric.
    :param ranking: mean rank by row, for those that have one.
    """
    text = (
        f'Mean rank: over {", ".join(RANKED_METRICS)}, among the {len(ranking)} rows '
        f'{", ".join(ranking)}.'
    )
    if FUSED in scores:
        places = []
        for metric in metrics:
            place = metric_ranks(scores, metric)
            places.append(f'{metric} {place[FUSED]:g}/{len(place)}')
        text += f'\nRanks of {FUSED}: {", ".join(places)}.'
    if MEAN in ranking and len(ranking) < _ENOUGH_ROWS:
        text += (
            f'\nAmong fewer than {_ENOUGH_ROWS} rows, mean ranks say little: {MEAN} is close to '
            'the best possible PSNR, SSIM, MSE and CC, whatever it looks like.'
        )
    infinite = [name for name, row in scores.items() if not all(map(math.isfinite, row.values()))]
    if infinite:
        text += (
            '\nA PSNR is infinite where the fused image equals a source, and so is its mean: '
            f'{", ".join(infinite)}.'
        )
    return text


def format_difference(difference: Difference, higher_is_better: bool) -> str:
    """
    Return a mean difference with its interval, marked if that excludes zero.

    If both methods have infinite values, for different pairs, there is no mean: ``n/a``.
    """
    if math.isnan(difference.mean):
        return NOT_AVAILABLE
    low, high = difference.low, difference.high
    size = max(abs(value) for value in (difference.mean, low or 0.0, high or 0.0))
    digits = 4 if size < 10 else 2 if size < 1000 else 1

    def signed(value: float) -> str:
        if math.isinf(value):
            return format_value(value).rjust(2, '+')
        return f'{round(value, digits) + 0.0:+.{digits}f}'

    if low is None or high is None:
        return signed(difference.mean)
    mark = {'better': ' ✓', 'worse': ' ✗', 'open': ''}[difference.verdict(higher_is_better)]
    return f'{signed(difference.mean)} [{signed(low)}, {signed(high)}]{mark}'


def differences(scores: ScoreBook, against: Iterable[str]) -> dict[str, list[Difference]]:
    """Return the paired differences of the fusion to other rows, one for each metric."""
    ours = scores.values(FUSED)
    return {name: paired_differences(ours, scores.values(name)) for name in against}


def difference_table(scores: ScoreBook, against: Sequence[str]) -> Table:
    """
    Return the table of the paired differences of the fusion to other rows.

    :param against: the other rows.
    """
    columns = differences(scores, against)
    rows = []
    for index, name in enumerate(scores.metrics):
        metric = metric_info(name)
        cells = (
            format_difference(column[index], metric.higher_is_better)
            for column in columns.values()
        )
        rows.append((metric.title, *cells))
    if scores.pairs < FEWEST_PAIRS:
        note = (
            f'Mean differences. {scores.pairs} pairs are too few for an interval, which needs '
            f'{FEWEST_PAIRS}.'
        )
    else:
        note = (
            f'Mean differences over {scores.pairs} pairs with 95 % percentile intervals of a '
            'paired bootstrap (10,000 resamples, seed 0), each metric by itself. ✓ better, ✗ '
            'worse: the interval excludes zero.'
        )
    header = ('metric', *(f'{FUSED} - {name}' for name in against))
    return Table('', header, tuple(rows), (note,))


def ablation_table(
    title: str,
    labels: Mapping[str, str],
    metrics: Sequence[str],
    scores: Mapping[str, Mapping[str, float]],
    costs: Mapping[str, Cost],
) -> Table:
    """
    Return the table of one ablation.

    :param labels: what the table calls each row, by the name of the row.
    """
    rows = tuple(
        (
            label,
            *(format_value(scores[name][metric]) for metric in metrics),
            optional(costs[name].prior_calls, '{:d}'.format),
            optional(costs[name].milliseconds, '{:.1f}'.format),
        )
        for name, label in labels.items()
    )
    titles = (metric_info(name).title for name in metrics)
    return Table(title, ('', *titles, 'denoiser calls', 'ms'), rows)
