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
What a fusion is worth to a detector in bad conditions: all rows under all conditions.

Averages over good pairs do not show what happens when a camera fails, which is when a second
camera matters. So every pair is degraded in all ways of
:mod:`~dig2dig_ros.evaluation.conditions`, and each row is scored by its mean over the conditions,
its worst condition, and how far it falls below the better camera.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dig2dig_ros.detections.boxes import Detections
from dig2dig_ros.detections.merging import noisy_or
from dig2dig_ros.evaluation.average_precision import (
    DetectionAccuracy,
    draw_images,
    ImageMatches,
    Interval,
    interval,
    match,
)
from dig2dig_ros.evaluation.comparison import FEWEST_PAIRS, FUSED, parse_rows, Row
from dig2dig_ros.evaluation.conditions import Condition, NAMES, parse_conditions, SEVERITIES
from dig2dig_ros.evaluation.detection_rows import BOXES, DetectionRows, in_visible_pixels
from dig2dig_ros.evaluation.detector_inputs import THERMAL, VISIBLE
from dig2dig_ros.evaluation.jobs import StoppingFunction
from dig2dig_ros.evaluation.labels import ImageLabels, LabelSet
from dig2dig_ros.evaluation.options import UsageError
from dig2dig_ros.evaluation.scores import Image
from dig2dig_ros.evaluation.tables import Table
from dig2dig_ros.images.placement import Placement
from dig2dig_ros.streams.pairing import SOURCES

Array = NDArray[np.float64]

# Default rows of --compare under conditions.
COMPARED = 'mean,block_means,fused'


# Rows that all others are compared with.
_REFERENCES = (FUSED, BOXES)


@dataclass(frozen=True)
class _Standing:
    """
    The figures of a row over all conditions; AP50 as a fraction.

    :param worst: the lowest AP50, and its condition.
    :param gap: the lowest difference in AP50 to the better camera, and its condition.
    :param references: by reference row, its mean AP50 less that of this row, and the interval.
    """

    mean: float
    worst: tuple[float, str]
    gap: tuple[float, str]
    references: dict[str, tuple[float, Interval | None]]


@dataclass(frozen=True)
class _Results:
    """AP50 and its differences by condition and row, and the figures of each row."""

    precision: dict[str, dict[str, float]]
    fused_minus: dict[str, dict[str, tuple[float, Interval | None]]]
    standings: dict[str, _Standing]


class ConditionStudy:
    """
    Collects the detections under all conditions, image by image, and makes tables from them.

    It keeps no images, only the scores and matches of at most 100 detections for every image,
    condition and row.

    :param conditions: in the order of the table.
    :param rows: the rows to compare.
    :param labels: the truth about some of the images; the others are left out. None: the truth is
        what is found in both cameras together in good conditions.
    :param score: least score of a detection to count as that truth.
    :param resamples: of the bootstrap over the images.
    :ivar images: number of images so far.
    :ivar persons: number of persons in them.
    """

    def __init__(
        self,
        conditions: Sequence[Condition],
        rows: DetectionRows,
        labels: LabelSet | None,
        score: float = 0.25,
        resamples: int = 1000,
    ) -> None:
        self.images = 0
        self.persons = 0
        self._conditions = tuple(conditions)
        self._rows = rows
        self._labels = labels
        self._score = score
        self._resamples = resamples
        self._matches: dict[tuple[str, str], list[ImageMatches]] = {
            (str(condition), name): [] for condition in conditions for name in rows.names
        }
        self._results: tuple[int, _Results] | None = None

    def take(
        self,
        names: Sequence[str],
        visible: Image,
        thermal: Image,
        stopping: StoppingFunction = lambda: False,
        placement: Placement | None = None,
    ) -> bool:
        """
        Degrade a pair in all ways, and detect; if this raises, the pair does not count.

        :param names: possible names of the pair in the labels; the first seeds its noise.
        :param visible: (H, W, 3) in blue-green-red order, or grey, (H, W).
        :param thermal: (H', W'), in the pixels of its camera, in which it is degraded.
        :param stopping: called before every condition; once true, the pair does not count.
        :param placement: of the thermal image; None if it covers the visible one.
        :return: whether it counts.
        :raises LabelError: the image was labelled in another size.
        """
        # Detections in a camera's image, by its degradation.
        seen: dict[tuple[str, str], Detections] = {}
        registered = in_visible_pixels(thermal, placement, visible)
        truth = self._truth(names, visible, registered, seen)
        if truth is None:
            return False
        found: dict[tuple[str, str], ImageMatches] = {}
        for condition in self._conditions:
            if stopping():
                return False
            images = condition.apply(visible, thermal, names[0])
            keys = {source: (source, condition.spoils(source)) for source in SOURCES}
            known: dict[str, Detections] = {
                source: seen[key] for source, key in keys.items() if key in seen
            }
            detections = self._rows.detect(*images, known, placement)
            seen |= {key: detections[source] for source, key in keys.items()}
            for name, own in detections.items():
                found[str(condition), name] = match(own, truth, (0.5,))
        for key, matches in found.items():
            self._matches[key].append(matches)
        self.images += 1
        self.persons += len(truth.boxes)
        return True

    def _truth(
        self,
        names: Sequence[str],
        visible: Image,
        thermal: Image,
        seen: dict[tuple[str, str], Detections],
    ) -> ImageLabels | None:
        if self._labels is not None:
            return self._labels.find(names, visible.shape[1], visible.shape[0])
        for source, image in ((VISIBLE, visible), (THERMAL, thermal)):
            seen[source, ''] = self._rows.detector.detect(image)
        merged = noisy_or(list(seen.values()))
        return ImageLabels(merged.boxes[merged.scores >= self._score], np.zeros((0, 4)))

    def tables(self) -> list[Table]:
        """Return AP50 under each condition, and each row over all of them."""
        if not self.persons:
            return []
        results = self._measure()
        header = ('condition', *self._rows.names)
        rows = [
            (condition, *(_percent(own[name]) for name in self._rows.names))
            for condition, own in results.precision.items()
        ]
        means = (_percent(standing.mean) for standing in results.standings.values())
        meanings = [f'{each}: {each.meaning}' for each in self._conditions if each.severity]
        note = (
            f'AP50 of persons in percent: {self.persons} persons in {self.images} images. '
            + self._about_truth()
        )
        title = 'Detection of persons under conditions'
        notes = (note, '; '.join(meanings) + '.') if meanings else (note,)
        return [
            Table(title, header, (*rows, ('mean', *means)), notes),
            self._standing_table(results),
        ]

    def _about_truth(self) -> str:
        if self._labels is not None:
            return 'The labels are the truth.'
        return (
            'There are no labels: the truth is what noisy-or finds in both undegraded images, '
            f'with a score of at least {self._score:g}, so a row shows what a condition costs, '
            'not how accurate it is.'
        )

    def _standing_table(self, results: _Results) -> Table:
        references = [name for name in _REFERENCES if name in results.standings]
        header = ['row', 'mean', 'worst', 'worst under', 'to the better camera', 'farthest under']
        for reference in references:
            header += [f'{reference} - row', '95 % interval']
        rows = []
        for name, own in results.standings.items():
            row = [name, _percent(own.mean), _percent(own.worst[0]), own.worst[1]]
            row += [_percent(own.gap[0], '+'), own.gap[1]]
            for reference in references:
                difference, ends_of = own.references[reference]
                ends = ' to '.join(_percent(end, '+') for end in ends_of or ())
                row += ['', ''] if name == reference else [_percent(difference, '+'), ends]
            rows.append(tuple(row))
        notes = [
            'AP50 in percent over the conditions: the mean, the worst, and the lowest difference '
            'to the better camera.'
        ]
        if references and self.images < FEWEST_PAIRS:
            notes.append(f'An interval needs at least {FEWEST_PAIRS} images.')
        elif references:
            notes.append(
                f'Intervals are of the difference of the means, from {self._resamples} resamples '
                'of the images, the same for all rows and conditions, seed 0; if one contains 0, '
                'the difference is not significant. Frames of the same drive are alike, which '
                'makes their intervals too narrow.'
            )
        return Table('Over all conditions', tuple(header), tuple(rows), tuple(notes))

    def summary(self) -> dict[str, Any]:
        """Return the figures for `summary.json`: rates as fractions."""
        summary: dict[str, Any] = {
            'conditions': {str(each): each.meaning for each in self._conditions},
            'images': self.images,
            'persons': self.persons,
            'truth': 'cameras' if self._labels is None else 'labels',
        }
        if not self.persons:
            return summary
        results = self._measure()
        return {
            **summary,
            'resamples': self._resamples,
            'seed': 0,
            'ap50': results.precision,
            'fused_minus': results.fused_minus,
            'rows': {
                name: {
                    'mean': own.mean,
                    'worst': own.worst[0],
                    'worst_condition': own.worst[1],
                    'to_better_camera': own.gap[0],
                    'to_better_camera_condition': own.gap[1],
                    **{
                        f'{reference}_minus{word}': value
                        for reference, compared in own.references.items()
                        for word, value in zip(('', '_interval'), compared, strict=True)
                    },
                }
                for name, own in results.standings.items()
            },
        }

    def _measure(self) -> _Results:
        """Return the results, cached until there are more images."""
        if self._results is not None and self._results[0] == self.images:
            return self._results[1]
        # With fewer images, an interval means nothing.
        enough = self.images >= FEWEST_PAIRS and FUSED in self._rows.names
        draws = draw_images(self.images, self._resamples if enough else 0)
        precision: dict[str, dict[str, float]] = {}
        resampled: dict[str, dict[str, Array]] = {}
        for condition in map(str, self._conditions):
            own = {n: DetectionAccuracy(self._matches[condition, n]) for n in self._rows.names}
            precision[condition] = {n: each.average_precision() for n, each in own.items()}
            resampled[condition] = {n: each.bootstrap(draws) for n, each in own.items()}
        results = _Results(
            precision,
            {
                condition: {
                    name: (own[FUSED] - own[name], _difference(resampled[condition], name))
                    for name in own
                }
                for condition, own in precision.items()
                if FUSED in own
            },
            {name: self._standing(name, precision, resampled) for name in self._rows.names},
        )
        self._results = self.images, results
        return results

    def _standing(
        self,
        name: str,
        precision: Mapping[str, Mapping[str, float]],
        resampled: Mapping[str, Mapping[str, Array]],
    ) -> _Standing:
        own = {condition: values[name] for condition, values in precision.items()}
        gaps = {c: own[c] - max(v[VISIBLE], v[THERMAL]) for c, v in precision.items()}
        worst, farthest = min(own, key=own.__getitem__), min(gaps, key=gaps.__getitem__)
        mean = float(np.mean(list(own.values())))
        references = {}
        for reference in _REFERENCES:
            if reference in self._rows.names:
                theirs = float(np.mean([values[reference] for values in precision.values()]))
                means = {
                    n: np.mean([values[n] for values in resampled.values()], axis=0)
                    for n in (reference, name)
                }
                references[reference] = theirs - mean, _difference(means, name, reference)
        return _Standing(mean, (own[worst], worst), (gaps[farthest], farthest), references)


def _difference(
    resampled: Mapping[str, Array], name: str, reference: str = FUSED
) -> Interval | None:
    """Return the interval of the difference of a reference and a row."""
    return interval(resampled[reference] - resampled[name])


def _percent(value: float, sign: str = '') -> str:
    return '' if math.isnan(value) else f'{100 * value:{sign}.1f}'


# What the commands ask


def add_condition_option(group: argparse._ActionsContainer) -> None:
    """Add ``--conditions``."""

    def conditions(text: str) -> list[Condition]:
        try:
            return parse_conditions(text)
        except UsageError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    group.add_argument(
        '--conditions',
        type=conditions,
        default=[],
        metavar='NAMES',
        help='also detect under bad conditions, made from each pair: all, or some of '
        f'{", ".join(NAMES)}; NAME:SEVERITY with {", ".join(SEVERITIES)} or each, medium if '
        f'left out; default rows: {COMPARED}, and the late fusion of boxes',
    )


def rows_under_conditions(args: argparse.Namespace, default: object) -> list[Row]:
    """
    Return the rows of ``--compare``, by default those for conditions.

    :param default: value of ``args.compare`` if it was not given.
    :raises UsageError: there are conditions, but no detector.
    """
    if not args.conditions:
        return list(args.compare)
    if args.detector is None:
        raise UsageError('--conditions needs --detector: they are scored by the persons found')
    return parse_rows(COMPARED) if args.compare is default else list(args.compare)
