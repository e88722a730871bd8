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
What one person detector finds in several inputs: the cameras' images and fusions of them.

With labels, it measures how accurate the inputs are; without, only how far they agree. All inputs
are compared on the same images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
import math
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dig2dig_ros.detections.boxes import Detections, intersection_over_union
from dig2dig_ros.evaluation.average_precision import (
    DetectionAccuracy,
    draw_images,
    ImageMatches,
    Interval,
    interval,
    match,
)
from dig2dig_ros.evaluation.comparison import FEWEST_PAIRS, FUSED
from dig2dig_ros.evaluation.detector import Detector
from dig2dig_ros.evaluation.detector_inputs import detector_inputs, REFERENCE, THERMAL, VISIBLE
from dig2dig_ros.evaluation.labels import LabelSet
from dig2dig_ros.evaluation.metrics import luma
from dig2dig_ros.evaluation.person_contrast import person_contrast, RING
from dig2dig_ros.evaluation.scores import Image
from dig2dig_ros.evaluation.tables import Table

Array = NDArray[np.float64]

# Lower limits of a person's height as a part of the image's height, see :func:`height_class`.
SIZES = {'near': 80 / 480, 'medium': 30 / 480, 'far': 0.0}
DAY, NIGHT = 'day', 'night'
# It is night below this :func:`sky_luma`. That agrees with the eye in all 193 street scenes of
# RoadScene (102 of them at night) and in 32 night scenes of LLVIP. The mean luma of the image
# fails in 9 % of those scenes at its best threshold: cameras brighten the night.
NIGHT_LUMA = 170.0

AGREEMENT_IOU = 0.5


def height_class(height: float) -> str:
    """
    Return the group of :data:`SIZES` that a person belongs to.

    The limits are those of the Caltech benchmark (Dollár et al., "Pedestrian detection: an
    evaluation of the state of the art", PAMI 34(4), 2012): near from 80 pixels, far below 30
    pixels. Its images have 480 rows. As parts of the height of the image they mean the same
    whatever the resolution.

    :param height: of the person as a part of the image's height.
    """
    # Not just below a limit because of rounding.
    return next(name for name, limit in SIZES.items() if height >= limit - 1e-9)


def sky_luma(visible: Image) -> float:
    """
    Return how bright the sky is: the upper quartile of the luma in the upper third of an image.

    :param visible: (H, W, 3) in blue-green-red order, or grey, (H, W).
    :return: 0 to 255.
    """
    rows = max(1, visible.shape[0] // 3)
    return float(np.percentile(luma(np.ascontiguousarray(visible[:rows])), 75))


def pair_up(first: Array, second: Array, iou: float = AGREEMENT_IOU) -> list[tuple[int, int]]:
    """
    Match boxes of the same person in two sets: the largest overlap first, one to one.

    :param first: (n, 4).
    :param second: (m, 4).
    :param iou: the smallest overlap that counts.
    :return: indices into both.
    """
    overlaps = intersection_over_union(first, second)
    rows, columns = np.nonzero(overlaps >= iou)
    pairs: list[tuple[int, int]] = []
    free_rows, free_columns = set(rows.tolist()), set(columns.tolist())
    for index in np.argsort(-overlaps[rows, columns], kind='stable'):
        row, column = int(rows[index]), int(columns[index])
        if row in free_rows and column in free_columns:
            pairs.append((row, column))
            free_rows.remove(row)
            free_columns.remove(column)
    return pairs


@dataclass(frozen=True)
class _LabelledImage:
    """Matches and contrasts by input, sizes of the persons, and whether it is day or night."""

    matches: dict[str, ImageMatches]
    contrasts: dict[str, Array]
    sizes: tuple[str, ...]
    time: str


_FUSION_COUNTS = (
    *('persons', 'confirmed_by_visible', 'confirmed_by_thermal', 'in_neither_camera'),
    *('persons_of_the_cameras', 'missed'),
)


@dataclass(frozen=True)
class _Result:
    """
    The figures of an input on the labelled images, as fractions; NaN if undefined.

    The names are those of `summary.json`, where the reference is the mean.

    :param by_time: AP50 and miss rate by time of day.
    :param person_contrast: mean over the persons, in grey levels.
    """

    ap50: float
    ap50_interval: Interval | None
    ap50_95: float
    miss_rate: float
    false_positives_per_image: float
    ap50_minus_mean: float | None
    ap50_minus_mean_interval: Interval | None
    miss_rate_by_size: dict[str, float]
    by_time: dict[str, dict[str, float]]
    person_contrast: float


class DetectionStudy:
    """
    Collects the detections image by image, and makes tables from them.

    It keeps no images. For each labelled image, it keeps scores and matches of at most 100
    detections per input; for images without labels, only sums.

    :param inputs: names of what the detector sees; ``visible``, ``thermal``, ``mean`` and
        ``fused`` have a meaning in the tables.
    :param labels: the truth about some of the images, or None.
    :param score: least score of a detection to count, except for the average precision, which
        uses all.
    :param night: shell patterns for names; if given, it is night in the images that match, and
        day in all others. Otherwise, :data:`NIGHT_LUMA` decides.
    :param resamples: of the bootstrap over the labelled images.
    :ivar frames: number of images so far.
    :ivar persons: number of persons in the labels of those that have any.
    :ivar contrasts: mean person contrast in the last image, by input; empty without boxes.
    :raises ValueError: there is no input.
    """

    def __init__(
        self,
        inputs: Sequence[str],
        labels: LabelSet | None = None,
        score: float = 0.25,
        night: Sequence[str] = (),
        resamples: int = 2000,
    ) -> None:
        if not inputs:
            raise ValueError('there is no input to run the detector on: give one or more')
        self.inputs = tuple(dict.fromkeys(inputs))
        self.frames = 0
        self.persons = 0
        self.contrasts: dict[str, float] = {}
        self._heights: set[int] = set()
        self._labels = labels
        self._labels_fit = False
        self._first_name = ''
        self._score = score
        self._night = tuple(night)
        self._resamples = resamples
        self._labelled: list[_LabelledImage] = []
        self._found = dict.fromkeys(self.inputs, 0)
        # Sum and number of the contrasts at persons without labels.
        self._contrasts = {name: (0.0, 0) for name in self.inputs}
        self._shared = {(a, b): 0 for a in self.inputs for b in self.inputs if a != b}
        # For each fusion, next to both cameras: persons by the camera that shows them.
        both = {VISIBLE, THERMAL} <= set(self.inputs)
        fusions = [name for name in self.inputs if both and name not in (VISIBLE, THERMAL)]
        self._fusions = {name: dict.fromkeys(_FUSION_COUNTS, 0) for name in fusions}
        self._results: tuple[int, dict[str, _Result]] | None = None

    @property
    def labelled(self) -> int:
        """Return the number of images that have labels."""
        return len(self._labelled)

    def detect(
        self,
        detector: Detector,
        names: Sequence[str],
        visible: Image,
        thermal: Image,
        fused: Mapping[str, Image],
    ) -> dict[str, int]:
        """
        Run a detector on the inputs of one scene, and add the detections like :meth:`add`.

        :param names: see :meth:`add`, the images :func:`detector_inputs`.
        """
        images = detector_inputs(self.inputs, visible, thermal, fused)
        found = {name: detector.detect(image) for name, image in images.items()}
        return self.add(names, visible, found, images)

    def add(
        self,
        names: Sequence[str],
        visible: Image,
        detections: Mapping[str, Detections],
        images: Mapping[str, Image] = MappingProxyType({}),
    ) -> dict[str, int]:
        """
        Add the detections in one image; if this raises, the image does not count.

        :param names: possible names of the image in the labels and in the patterns of night.
        :param visible: the visible image, (H, W, 3) uint8 in blue-green-red order or (H, W).
        :param detections: by input, in pixels of an image of that size.
        :param images: the images, for the contrast of persons; optional.
        :return: number of detections with at least the score, by input.
        :raises LabelError: the image was labelled in another size.
        :raises ValueError: the detections of an input are missing.
        """
        missing = [name for name in self.inputs if name not in detections]
        if missing:
            raise ValueError(
                f'there are no detections for {", ".join(missing)}: leave the image out, as all '
                'inputs are compared on the same images'
            )
        likely = {
            name: detections[name].boxes[detections[name].scores >= self._score]
            for name in self.inputs
        }
        height, width = visible.shape[:2]
        truth = self._labels.find(names, width, height) if self._labels else None
        persons = self._persons_of_cameras(likely) if truth is None else truth.boxes
        contrasts = {name: person_contrast(image, persons) for name, image in images.items()}
        self.contrasts = {
            name: float(np.nanmean(values))
            for name, values in contrasts.items()
            if not np.isnan(values).all()
        }
        if truth is None:
            for name, values in contrasts.items():
                total, count = self._contrasts[name]
                known = values[~np.isnan(values)]
                self._contrasts[name] = total + float(known.sum()), count + len(known)
        else:
            heights = (truth.boxes[:, 3] - truth.boxes[:, 1]) / height
            image = _LabelledImage(
                {name: match(detections[name], truth) for name in self.inputs},
                contrasts,
                tuple(height_class(part) for part in heights),
                self._time_of_day(names, visible),
            )
            self._labelled.append(image)
            self._heights.add(height)
            self.persons += len(heights)
        if self._labels is not None:
            self._labels_fit |= any(name in self._labels.images for name in names)
        if not self.frames and names:
            self._first_name = names[0]
        self.frames += 1
        self._compare(likely)
        return {name: len(boxes) for name, boxes in likely.items()}

    def warnings(self) -> list[str]:
        """Return a sentence if there are labels, but none for the images so far."""
        if self._labels is None or self._labels_fit or not self.frames:
            return []
        known = next(iter(self._labels.images), None)
        names = 'none' if known is None else f'names such as {known}'
        return [
            f'no label in {self._labels.source} is for an image here: it has {names}, but the '
            f'first image is {self._first_name}'
        ]

    def tables(self) -> list[Table]:
        """Return the results: against the labels, or how far the inputs agree."""
        if not self._labelled:
            return self._agreement_tables()
        results = self._measure()
        return [self._precision_table(results), self._group_table(results)]

    def ranking(self) -> tuple[str, dict[str, str]]:
        """
        Return the figure that compares the most important inputs, highest first.

        :return: what it is, and its values as text for the cameras, their mean and ``fused``.
        """
        inputs = [name for name in self.inputs if name in (VISIBLE, THERMAL, REFERENCE, FUSED)]
        if self.persons:
            results = self._measure()
            figures = {name: 100 * results[name].ap50 for name in inputs}
            title, form = 'AP50 of persons', '.1f'
        else:
            figures = {name: self._found[name] / max(self.frames, 1) for name in inputs}
            title, form = 'persons per image', '.2f'
        order = sorted(inputs, key=lambda name: -figures[name])
        return title, {name: format(figures[name], form) for name in order}

    def summary(self) -> dict[str, Any]:
        """Return the figures for `summary.json`: rates as fractions, NaN if undefined."""
        summary: dict[str, Any] = {
            'score': self._score,
            'frames': self.frames,
            'labelled': self.labelled,
            'agreement': {
                'persons': dict(self._found),
                'found_as_well_in': {
                    first: {
                        second: _part(self._shared[first, second], self._found[first])
                        for second in self.inputs
                        if second != first
                    }
                    for first in self.inputs
                },
            },
        }
        if self._fusions:
            summary['agreement']['fusions'] = {n: dict(c) for n, c in self._fusions.items()}
        if self._labelled:
            persons, images = self._group_counts()
            summary.update(
                persons=self.persons,
                persons_by_group=persons,
                images_by_time=images,
                night=list(self._night) if self._night else {'sky_luma_below': NIGHT_LUMA},
                resamples=self._resamples,
                seed=0,
                inputs={name: asdict(result) for name, result in self._measure().items()},
            )
        return summary

    # --- With labels ----------------------------------------------------------------------------

    def _time_of_day(self, names: Sequence[str], visible: Image) -> str:
        night = sky_luma(visible) < NIGHT_LUMA
        if self._night:
            night = any(fnmatchcase(name, part) for name in names for part in self._night)
        return NIGHT if night else DAY

    def _group_counts(self) -> tuple[dict[str, int], dict[str, int]]:
        """Return persons by size and by time of day, and images by time of day."""
        persons = dict.fromkeys((*SIZES, DAY, NIGHT), 0)
        images = dict.fromkeys((DAY, NIGHT), 0)
        for image in self._labelled:
            images[image.time] += 1
            for group in (*image.sizes, *[image.time] * len(image.sizes)):
                persons[group] += 1
        return persons, images

    def _accuracy(self, name: str, *times: str) -> DetectionAccuracy:
        """Return the accuracy of an input in the labelled images of these times of day."""
        return DetectionAccuracy([i.matches[name] for i in self._labelled if i.time in times])

    def _measure(self) -> dict[str, _Result]:
        """Return the results by input, cached until there are more images."""
        if self._results is not None and self._results[0] == self.labelled:
            return self._results[1]
        accuracies = {name: self._accuracy(name, DAY, NIGHT) for name in self.inputs}
        # With fewer images, an interval means nothing.
        draws = draw_images(self.labelled, self._resamples if self.labelled >= FEWEST_PAIRS else 0)
        resampled = {name: entry.bootstrap(draws) for name, entry in accuracies.items()}
        results = {}
        for name, entry in accuracies.items():
            difference, ends = None, None
            if REFERENCE in accuracies and name != REFERENCE:
                difference = entry.average_precision()
                difference -= accuracies[REFERENCE].average_precision()
                ends = interval(resampled[name] - resampled[REFERENCE])
            parts = {time: self._accuracy(name, time) for time in (DAY, NIGHT)}
            results[name] = _Result(
                entry.average_precision(),
                interval(resampled[name]),
                entry.mean_average_precision(),
                entry.miss_rate(self._score),
                entry.false_positives_per_image(self._score),
                difference,
                ends,
                self._size_misses(name),
                {
                    time: {
                        'ap50': part.average_precision(),
                        'miss_rate': part.miss_rate(self._score),
                    }
                    for time, part in parts.items()
                },
                self._contrast(name),
            )
        self._results = self.labelled, results
        return results

    def _contrast(self, name: str) -> float:
        """Return the mean contrast of the persons in an input, NaN if there is none."""
        none = np.zeros(0)
        values = np.concatenate([none, *(i.contrasts.get(name, none) for i in self._labelled)])
        values = values[~np.isnan(values)]
        return float(values.mean()) if len(values) else math.nan

    def _size_misses(self, name: str) -> dict[str, float]:
        """Return the miss rate of an input by size."""
        sizes = np.array([size for image in self._labelled for size in image.sizes], dtype=str)
        found = np.concatenate([image.matches[name].found_with for image in self._labelled])
        missed = found < self._score
        return {
            size: float(missed[sizes == size].mean()) if (sizes == size).any() else math.nan
            for size in SIZES
        }

    def _precision_table(self, results: Mapping[str, _Result]) -> Table:
        header = ['input', 'AP50', '95 % interval', 'AP50:95']
        header += [f'miss rate at {self._score:g}', 'FPPI']
        contrasts = not all(math.isnan(result.person_contrast) for result in results.values())
        if contrasts:
            header.append('person contrast')
        compared = REFERENCE in results and len(results) > 1
        if compared:
            header += [f'AP50 - {REFERENCE}', '95 % interval']
        rows = []
        for name, result in results.items():
            row = [name, _percent(result.ap50), _percent_range(result.ap50_interval)]
            row += [_percent(result.ap50_95), _percent(result.miss_rate)]
            row += [f'{result.false_positives_per_image:.2f}']
            if contrasts:
                row.append(_levels(result.person_contrast))
            if compared:
                row += [_percent(result.ap50_minus_mean, '+')]
                row += [_percent_range(result.ap50_minus_mean_interval, '+')]
            rows.append((*row, str(self.persons), str(self.labelled)))
        notes = []
        ours = results.get(FUSED)
        if ours is not None and ours.ap50_minus_mean_interval is not None:
            difference = ours.ap50 - results[REFERENCE].ap50
            notes.append(_verdict(difference, ours.ap50_minus_mean_interval))
        notes.append(
            'AP50 and AP50:95 are the average precision of persons in percent, as COCO defines '
            'it; miss rate (percent) and false positives per image (FPPI) are those of '
            f'detections of at least {self._score:g} at an IoU of 0.5.'
        )
        if contrasts:
            notes.append(
                'Person contrast is for the eye: the mean luma inside the box of a person minus '
                f'that of a ring around it, {RING:g} times as wide and high, in grey levels.'
            )
        if self.labelled < FEWEST_PAIRS:
            notes.append(f'An interval needs at least {FEWEST_PAIRS} images.')
        else:
            notes.append(
                f'Intervals are from {self._resamples} resamples of the images, seed 0, which are '
                'taken as independent: frames of the same drive are alike, which makes their '
                'intervals too narrow.'
                + (' If an interval contains 0, it is not significant.' if compared else '')
            )
        columns = (*header, 'boxes', 'images')
        return Table('Detection of persons', columns, tuple(rows), tuple(notes))

    def _group_table(self, results: Mapping[str, _Result]) -> Table:
        persons, images = self._group_counts()
        header = ['input', *(f'missed {size} ({persons[size]})' for size in SIZES)]
        for time in (DAY, NIGHT):
            header += [f'AP50 {time} ({persons[time]})', f'missed {time} ({persons[time]})']
        rows = []
        for name, result in results.items():
            row = [name, *(_percent(value) for value in result.miss_rate_by_size.values())]
            for part in result.by_time.values():
                row += [_percent(value) for value in part.values()]
            rows.append(tuple(row))
        limits = [SIZES[size] for size in ('near', 'medium')]
        near, medium = (f'1/{1 / limit:.0f}' for limit in limits)
        here = ''
        if len(self._heights) == 1:
            pixels = (f'{limit * height:.0f}' for height in self._heights for limit in limits)
            here = f', here {" and ".join(pixels)} pixels'
        reason = (
            f'the name fits {" or ".join(self._night)}'
            if self._night
            else 'the upper third of the visible image is dark: the upper quartile of its luma is '
            f'below {NIGHT_LUMA:g} of 255'
        )
        return Table(
            'Detection by size of the person and by time of day',
            tuple(header),
            tuple(rows),
            (
                f'Missed is the miss rate at {self._score:g} in percent, with the number of '
                'persons in brackets. Cells without persons are empty; few persons say little.',
                f'A person is near from {near} of the height of the image upwards, far below '
                f'{medium} of it, and medium in between{here}. In images of 480 rows these are '
                'the 80 and 30 pixels of the Caltech benchmark (Dollár et al., 2012).',
                f'It is night in the {images[NIGHT]} of {self.labelled} images in which {reason}.',
            ),
        )

    # --- Without labels -------------------------------------------------------------------------

    @staticmethod
    def _persons_of_cameras(boxes: Mapping[str, Array]) -> Array:
        """Return the persons that the cameras show, each once; all persons without cameras."""
        cameras = [boxes[name] for name in (VISIBLE, THERMAL) if name in boxes]
        persons, *others = cameras or boxes.values()
        for own in others:
            known = {index for _, index in pair_up(persons, own)}
            new = [index for index in range(len(own)) if index not in known]
            persons = np.concatenate([persons, own[new]])
        return persons

    def _compare(self, boxes: Mapping[str, Array]) -> None:
        """Count the persons that the inputs have in common in one image."""
        common: dict[tuple[str, str], list[tuple[int, int]]] = {}
        for index, first in enumerate(self.inputs):
            self._found[first] += len(boxes[first])
            for second in self.inputs[index + 1 :]:
                pairs = pair_up(boxes[first], boxes[second])
                common[first, second], common[second, first] = pairs, [(b, a) for a, b in pairs]
                self._shared[first, second] += len(pairs)
                self._shared[second, first] += len(pairs)
        for name, counts in self._fusions.items():
            own, both = len(boxes[name]), common[VISIBLE, THERMAL]
            visible, thermal = dict(common[VISIBLE, name]), dict(common[THERMAL, name])
            # The persons of the two cameras, each once.
            cameras = len(boxes[VISIBLE]) + len(boxes[THERMAL]) - len(both)
            found = (
                len(visible) + len(thermal) - sum(v in visible and t in thermal for v, t in both)
            )
            neither = own - len({*visible.values(), *thermal.values()})
            numbers = (own, len(visible), len(thermal), neither, cameras, cameras - found)
            for count, number in zip(_FUSION_COUNTS, numbers, strict=True):
                counts[count] += number

    def _agreement_tables(self) -> list[Table]:
        many = len(self.inputs) > 1
        header = ['input', 'persons', 'persons per image']
        header += [f'also in {name}' for name in self.inputs if many]
        contrasts = any(known for _, known in self._contrasts.values())
        if contrasts:
            header.append('person contrast')
        rows = []
        for first in self.inputs:
            count = self._found[first]
            row = [first, str(count), f'{count / self.frames:.2f}' if self.frames else '']
            for second in self.inputs if many else ():
                same = first == second
                row.append('' if same else _percent(_part(self._shared[first, second], count)))
            if contrasts:
                total, known = self._contrasts[first]
                row.append(_levels(total / known if known else math.nan))
            rows.append(tuple(row))
        notes = [
            f'Persons are detections with a score of at least {self._score:g} in {self.frames} '
            'images without labels'
            + (
                f'; also in: percent of them that are also in the other input, at an IoU of '
                f'{AGREEMENT_IOU:g}, one to one.'
                if many
                else '.'
            ),
            'Agreement is not truth: a detection in all inputs may be a false alarm, one in a '
            'single input may be a person that the others miss, and more persons are not better '
            'in themselves. Only labels can tell.',
        ]
        if contrasts:
            notes.append(
                'Person contrast: the mean luma inside the box of a person that a camera shows, '
                'minus that of the ring around it, in grey levels.'
            )
        title = 'Agreement of the inputs' if many else 'Persons found'
        tables = [Table(title, tuple(header), tuple(rows), tuple(notes))]
        return [*tables, self._fusion_table()] if self._fusions else tables

    def _fusion_table(self) -> Table:
        rows = []
        for name, counts in self._fusions.items():
            persons, visible, thermal, neither, cameras, missed = counts.values()
            parts = (_percent(_part(count, persons)) for count in (visible, thermal, neither))
            row = (name, str(persons), *parts, str(cameras), _percent(_part(missed, cameras)))
            rows.append(row)
        header = ('fusion', 'persons', f'confirmed by {VISIBLE}', f'confirmed by {THERMAL}')
        return Table(
            'Fusions and the two cameras',
            (*header, 'by neither', 'persons of the cameras', 'missed'),
            tuple(rows),
            (
                'Percent of the persons in the fusion that the detector also finds in a camera '
                'image; missed: percent of the persons that it finds in at least one camera '
                'image (one in both counts once), but not in the fusion.',
                'A person that only the fusion shows may be too weak in each camera alone, or a '
                'false alarm; one that it misses may be a false alarm of a camera.',
            ),
        )


def _part(count: int, total: int) -> float:
    """Return a fraction, NaN if there is nothing."""
    return count / total if total else math.nan


def _percent(value: float | None, sign: str = '') -> str:
    """Return a fraction in percent with one decimal; empty if there is none."""
    return '' if value is None or math.isnan(value) else f'{100 * value:{sign}.1f}'


def _percent_range(ends: Interval | None, sign: str = '') -> str:
    """Return an interval of fractions in percent; empty if there is none."""
    return ' to '.join(_percent(end, sign) for end in ends or ())


def _levels(value: float) -> str:
    """Return grey levels with their sign; empty if there are none."""
    return '' if math.isnan(value) else f'{value:+.0f}'


def _verdict(difference: float, ends: Interval) -> str:
    """Return a sentence on the difference in AP50 of the fused image and the reference."""
    if ends[0] > 0 or ends[1] < 0:
        start = f'The AP50 of {FUSED} is {"above" if ends[0] > 0 else "below"} that of {REFERENCE}'
    else:
        start = f'These images do not separate the AP50 of {FUSED} from that of {REFERENCE}'
    percents = f'{100 * difference:+.1f}, 95 % interval {_percent_range(ends, "+")}'
    return f'{start}: {percents}.'
