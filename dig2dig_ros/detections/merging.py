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
Late fusion: merges the detections of one detector in several images of a scene.

The sources are the registered cameras and the fused image. A score is taken as the probability of
an object, given what the source shows, and the sources as independent, so their scores merge as a
noisy-or (Pearl, "Probabilistic Reasoning in Intelligent Systems", 1988): there is no object only
if every source that found one is wrong. Boxes are averaged as in
weighted boxes fusion (Solovyev et al., Image and Vision Computing 107, 2021).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dig2dig_ros.detections.boxes import (
    Array,
    Detections,
    intersection_over_union,
    MAX_DETECTIONS,
    suppress,
)

# Best boxes of each source that are kept: hostile input costs no more than a crowd.
MAX_OF_SOURCE = 300
# Boxes compared at a time with all others: few calls, and little memory.
_BLOCK = 64

# If a source has its full say and finds nothing, 1 - DENIAL of the score is left. This and the
# part of an equal share that is a full say are chosen on halves of MSRS, FLIR, M3FD and LLVIP.
DENIAL = 0.15
_FULL_SAY = 0.25

Calibration = Callable[[Array], Array]
# From boxes (n, 4) to the say of a source in each, (n,) in [0, 1].
Say = Callable[[Array], Array]


@dataclass(frozen=True)
class Merged(Detections):
    """
    The merged detections of K sources, best first.

    :param source_scores: (n, K), the contribution of each source to the score, see
        :func:`late_nms` and :func:`noisy_or`; 0 if it found nothing.
    """

    source_scores: Array


@dataclass(frozen=True)
class LogisticCalibration:
    """
    A monotone map of scores: ``slope`` and ``offset`` apply to the log-odds (Platt, 1999).

    1 and 0 are the identity. A slope below 1 tempers an overconfident source.

    :raises ValueError: the slope is not above 0, or a number is not finite.
    """

    slope: float = 1.0
    offset: float = 0.0

    def __post_init__(self) -> None:
        """Check the numbers."""
        if not (0 < self.slope < np.inf and np.isfinite(self.offset)):
            raise ValueError(
                f'a calibration has slope {self.slope} and offset {self.offset}: both must be '
                'finite, and the slope above 0'
            )

    def __call__(self, scores: Array) -> Array:
        """Map scores in [0, 1], (n,), to scores in [0, 1], keeping their order."""
        inside = np.clip(scores, 1e-12, 1 - 1e-12)
        log_odds = np.log(inside) - np.log1p(-inside)
        calibrated = 1 / (1 + np.exp(-(self.slope * log_odds + self.offset)))
        # No evidence stays no evidence.
        return np.where(scores > 0, calibrated, 0.0)


def late_nms(
    detections: Sequence[Detections], iou: float = 0.6, limit: int = MAX_DETECTIONS
) -> Merged:
    """
    Put the boxes of all sources together and suppress those that overlap a better one.

    :param detections: of each source.
    :param iou: a box that overlaps a better one by more is dropped.
    :param limit: the most boxes to keep.
    :return: the remaining boxes, unchanged. In ``source_scores``, only the source of a box is
        above 0.
    :raises ValueError: there is no source.
    """
    boxes, scores, sources = _stacked(detections)
    kept = suppress(boxes, scores, iou, limit)
    source_scores = np.zeros((len(kept), len(detections)))
    source_scores[np.arange(len(kept)), sources[kept]] = scores[kept]
    return Merged(boxes[kept], scores[kept], source_scores)


def noisy_or(
    detections: Sequence[Detections],
    says: Sequence[Say | None] | None = None,
    calibrations: Sequence[Calibration | None] | None = None,
    iou: float = 0.5,
    denial: float = DENIAL,
    limit: int = MAX_DETECTIONS,
) -> Merged:
    """
    Merge the boxes of several sources of one class as probabilities.

    The evidence of a box of source k is p = v c(s): its score, calibrated, times the say of the
    source inside it. From the strongest evidence down, each box that is still free starts a
    cluster of all free boxes that overlap it by at least ``iou``. The box of each source with the
    strongest evidence counts; its others in the cluster are duplicates and dropped.
    With F the sources that have a box in the cluster, and N those that have none there:

    - box = sum_F p_k box_k / sum_F p_k;
    - d = prod_N (1 - denial v_k), with the say v_k inside that box;
    - score = d (1 - prod_F (1 - p_k));
    - source_scores = d p_k, none of which is above the score.

    A source without a say neither confirms nor denies: it changes neither score nor box, and a box
    that only it found gets the score 0 and is left out. One whose say is unknown (None) has its
    full say where it finds something, and denies nothing; without ``says``, this is the plain
    noisy-or.

    :param detections: of each source; its best 300 boxes are used.
    :param says: for each source, a function from boxes to its say in them, such as
        :func:`say_of_boxes` of its weight map.
    :param calibrations: for each source, a map of scores that keeps their order; None: identity.
    :param iou: the least overlap with the best box of a cluster.
    :param denial: in [0, 1], the fraction of the score that is lost if a source with its full say
        finds nothing: how reliably the detector finds what is there.
    :param limit: the most boxes to keep.
    :raises ValueError: there is no source, or not one say or calibration for each.
    """
    boxes, _, sources = _stacked(detections)
    evidence = _evidence(detections, says, calibrations)
    order = np.argsort(-evidence, kind='stable')
    order = order[evidence[order] > 0]
    boxes, evidence, sources = boxes[order], evidence[order], sources[order]
    clusters = _clusters(boxes, iou)
    # In a cluster, the first box of each source is its best.
    pairs, first = np.unique(np.stack([clusters, sources]), axis=1, return_index=True)
    cluster, source = pairs
    shape = (clusters.max(initial=-1) + 1, len(detections))
    source_scores = np.zeros(shape)
    source_scores[cluster, source] = evidence[first]
    placed = np.zeros((*shape, 4))
    placed[cluster, source] = boxes[first]
    total = source_scores.sum(axis=1, keepdims=True)
    mean = (source_scores[..., None] * placed).sum(axis=1) / total
    scores = 1 - np.prod(1 - source_scores, axis=1)
    for say, own in zip(says or (), source_scores.T, strict=False):
        if say is not None and len(mean):
            left = np.where(own > 0, 1.0, 1 - denial * say(mean))
            scores *= left
            source_scores *= left[:, None]
    # Agreement of weak boxes may outdo a strong one.
    ranks = np.argsort(-scores, kind='stable')[:limit]
    return Merged(mean[ranks], scores[ranks], source_scores[ranks])


def _clusters(boxes: Array, iou: float) -> NDArray[np.intp]:
    """Return the number of the cluster of each box, strongest first."""
    clusters = np.full(len(boxes), -1, dtype=np.intp)
    number = 0
    for start in range(0, len(boxes), _BLOCK):
        near = intersection_over_union(boxes[start : start + _BLOCK], boxes) >= iou
        for index, row in enumerate(near, start):
            if clusters[index] < 0:
                row[index] = True  # an empty box does not even overlap itself
                clusters[row & (clusters < 0)] = number
                number += 1
    return clusters


def say_of_boxes(weights: NDArray[np.float32], boxes: Array, share: float) -> Array:
    """
    Return the say of a source inside boxes: its mean weight there, relative to an equal share.

    The weights of the fusion include the trust in each camera: a source that shows nothing new, or
    is not trusted, has weights near 0 and no say. From a quarter of the equal share on, its say is
    full, as what another source adds is no reason to doubt this one.

    :param weights: (H, W) in [0, 1], the weight map of the source; over the sources of the fusion
        they sum to 1 at every pixel.
    :param boxes: (n, 4) in the pixels of the map, which may reach beyond it.
    :param share: the equal share, 1 / K.
    :return: (n,) in [0, 1].
    """
    height, width = weights.shape
    # Sums over all pixels above and left of a corner.
    sums = np.zeros((height + 1, width + 1))
    np.cumsum(np.cumsum(weights, axis=0, dtype=np.float64), axis=1, out=sums[1:, 1:])
    # At least one pixel of the map.
    left, top = (
        np.clip(np.floor(boxes[:, axis]), 0, size - 1).astype(np.intp)
        for axis, size in enumerate((width, height))
    )
    right = np.maximum(np.clip(np.ceil(boxes[:, 2]), 0, width).astype(np.intp), left + 1)
    bottom = np.maximum(np.clip(np.ceil(boxes[:, 3]), 0, height).astype(np.intp), top + 1)
    total = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
    mean = total / ((right - left) * (bottom - top))
    return np.clip(mean / (_FULL_SAY * share), 0.0, 1.0)


def _stacked(detections: Sequence[Detections]) -> tuple[Array, Array, NDArray[np.intp]]:
    """Return the boxes, scores and source indices of all sources, the best of each."""
    if not detections:
        raise ValueError('there are no sources to merge: give one or more')
    boxes = [each.boxes[:MAX_OF_SOURCE] for each in detections]
    scores = [each.scores[:MAX_OF_SOURCE] for each in detections]
    sources = np.repeat(np.arange(len(detections)), [len(each) for each in scores])
    return np.concatenate(boxes), np.concatenate(scores), sources


def _evidence(
    detections: Sequence[Detections],
    says: Sequence[Say | None] | None,
    calibrations: Sequence[Calibration | None] | None,
) -> Array:
    """Return the calibrated scores times the say, in the order of :func:`_stacked`."""
    count = len(detections)
    for what, given in (('says', says), ('calibrations', calibrations)):
        if given is not None and len(given) != count:
            raise ValueError(f'there are {len(given)} {what} for {count} sources: give one each')
    evidence = []
    for index, found in enumerate(detections):
        calibrate = calibrations[index] if calibrations else None
        say = says[index] if says else None
        scores = found.scores[:MAX_OF_SOURCE]
        scores = calibrate(scores) if calibrate else scores
        evidence.append(scores * say(found.boxes[:MAX_OF_SOURCE]) if say else scores)
    return np.concatenate(evidence)
