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
Average precision of detections: how accurate a detector is.

It is COCO's (Lin et al., "Microsoft COCO: common objects in context", ECCV 2014, and its
evaluation code): per IoU threshold, greedy matching by score, the precision made monotonic, and
its mean over 101 recall levels; all box areas, at most 100 detections an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dig2dig_ros.detections.boxes import (
    area,
    Array,
    Detections,
    divide,
    intersection,
    intersection_over_union,
    MAX_DETECTIONS,
)
from dig2dig_ros.evaluation.labels import ImageLabels

# The two ends.
Interval = tuple[float, float]

IOU_THRESHOLDS: tuple[float, ...] = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
RECALL_LEVELS: Array = np.linspace(0.0, 1.0, 101)


@dataclass(frozen=True)
class ImageMatches:
    """
    How the detections of one image match its labels.

    :param scores: (n,), best first.
    :param right: (T, n) bool for each threshold: true positive.
    :param ignored: (T, n) bool: counts neither as true nor as false positive.
    :param found_with: (m,) for each labelled person, the score of the detection that found it at
        the first threshold, an IoU of 0.5; -1 if none did.
    """

    scores: Array
    right: NDArray[np.bool_]
    ignored: NDArray[np.bool_]
    found_with: Array

    @property
    def persons(self) -> int:
        """Return the number of labelled persons."""
        return len(self.found_with)


def match(
    detections: Detections,
    labels: ImageLabels,
    thresholds: Sequence[float] = IOU_THRESHOLDS,
) -> ImageMatches:
    """
    Match the detections of one image with its labels as COCO does.

    Best score first, a detection takes the unmatched person that it overlaps most, by at least the
    threshold. Without one, it is ignored if an ignore region covers at least that fraction of its
    area (any number of detections may be in one region), and is a false positive otherwise.

    :param thresholds: of the overlap, the first ones of :data:`IOU_THRESHOLDS`.
    """
    order = np.argsort(-detections.scores, kind='stable')[:MAX_DETECTIONS]
    boxes, scores = detections.boxes[order], detections.scores[order]
    overlaps = intersection_over_union(boxes, labels.boxes)
    covered = divide(
        intersection(boxes, labels.ignore),
        np.broadcast_to(area(boxes)[:, None], (len(boxes), len(labels.ignore))),
    ).max(axis=1, initial=0.0)
    right = np.zeros((len(thresholds), len(boxes)), dtype=bool)
    found_with = np.full(len(labels.boxes), -1.0)
    for level, threshold in enumerate(thresholds):
        free = np.ones(len(labels.boxes), dtype=bool)
        for index, overlap in enumerate(overlaps):
            candidates = np.where(free, overlap, -1.0)
            if len(candidates) and candidates.max() >= threshold:
                # The last of equal ones, as in COCO's code.
                best = len(candidates) - 1 - int(candidates[::-1].argmax())
                free[best] = False
                right[level, index] = True
                if level == 0:
                    found_with[best] = scores[index]
    ignored = ~right & (covered[None] >= np.array(thresholds)[:, None])
    return ImageMatches(scores, right, ignored, found_with)


class DetectionAccuracy:
    """
    What a detector achieved on a set of images.

    :param images: one entry per image, all with the same thresholds.
    """

    def __init__(self, images: Sequence[ImageMatches]) -> None:
        self.images = len(images)
        self._persons = np.array([image.persons for image in images], dtype=np.int64)
        self.persons = int(self._persons.sum())
        scores = np.concatenate([np.zeros(0), *(image.scores for image in images)])
        order = np.argsort(-scores, kind='stable')
        self._scores = scores[order]
        counts = [len(image.scores) for image in images]
        self._image = np.repeat(np.arange(len(images)), counts)[order]
        none = np.zeros((len(images[0].right) if images else 1, 0), dtype=bool)
        right = np.concatenate([none, *(image.right for image in images)], axis=1)[:, order]
        ignored = np.concatenate([none, *(image.ignored for image in images)], axis=1)[:, order]
        self._right = right
        self._wrong = ~right & ~ignored

    def average_precision(
        self, threshold: float = 0.5, counts: NDArray[np.integer[Any]] | None = None
    ) -> float:
        """
        Return the average precision at one IoU threshold, in [0, 1].

        :param threshold: one of :data:`IOU_THRESHOLDS`.
        :param counts: (images,), how often each image counts; default: once.
        :return: NaN if there is no person.
        """
        level = IOU_THRESHOLDS.index(threshold)
        weights = np.ones(self.images, dtype=np.int64) if counts is None else counts
        persons = int((self._persons * weights).sum())
        if persons == 0:
            return math.nan
        weight = weights[self._image]
        right = np.cumsum(self._right[level] * weight)
        wrong = np.cumsum(self._wrong[level] * weight)
        precision = divide(right.astype(np.float64), (right + wrong).astype(np.float64))
        precision = np.maximum.accumulate(precision[::-1])[::-1]
        first = np.searchsorted(right / persons, RECALL_LEVELS, side='left')
        # Zero where the recall is never reached.
        return float(np.append(precision, 0.0)[first].mean())

    def mean_average_precision(self) -> float:
        """Return the mean over the thresholds 0.5 to 0.95; NaN if there is no person."""
        return float(np.mean([self.average_precision(level) for level in IOU_THRESHOLDS]))

    def miss_rate(self, score: float) -> float:
        """
        Return the fraction of persons that no detection of at least ``score`` finds.

        At an IoU of 0.5; NaN if there is no person.
        """
        if self.persons == 0:
            return math.nan
        return 1.0 - float(self._right[0][self._scores >= score].sum()) / self.persons

    def false_positives_per_image(self, score: float) -> float:
        """Return wrong detections of at least ``score`` at an IoU of 0.5, per image."""
        return float(self._wrong[0][self._scores >= score].sum()) / max(self.images, 1)

    def bootstrap(self, draws: NDArray[np.integer[Any]]) -> Array:
        """
        Return the AP50 of resampled sets of images.

        :param draws: (B, images), see :func:`draw_images`.
        :return: (B,), NaN for sets without a person.
        """
        return np.array([self.average_precision(0.5, counts) for counts in draws])


def draw_images(images: int, resamples: int, seed: int = 0) -> NDArray[np.int32]:
    """
    Draw sets of images with replacement (Efron, "Bootstrap methods", 1979).

    To compare two inputs, use the same draws for both, so that images that are hard for both do
    not add to the difference.

    :return: (resamples, images), how often each image is in each set.
    """
    generator = np.random.default_rng(seed)
    draws = np.empty((resamples, images), dtype=np.int32)
    for draw in draws:  # one by one, as thousands of images would take much memory
        draw[:] = np.bincount(generator.integers(0, images, images), minlength=images)
    return draws


def interval(values: Array, level: float = 0.95) -> Interval | None:
    """Return the percentile interval of bootstrapped values; None if all of them are NaN."""
    finite = values[~np.isnan(values)]
    if not len(finite):
        return None
    low, high = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
