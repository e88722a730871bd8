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

"""The frames of a run to show, with their pictures: a limited number, however long the run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

BEST, WORST, SPACED = 'best', 'worst', 'evenly spaced'


@dataclass(frozen=True)
class GalleryFrame:
    """
    A fused pair to show.

    :param index: running number of the pair, from 0.
    :param name: its stamp or file name.
    :param score: decides whether it is best or worst, higher is better; NaN if it has none.
    :param labels: why it was chosen: one or more of :data:`BEST`, :data:`WORST`, :data:`SPACED`.
    :param pictures: JPEG files by what they show, in the order of the page.
    :param facts: what to show next to the pictures: metrics and detections, by name.
    """

    index: int
    name: str
    score: float
    labels: tuple[str, ...]
    pictures: dict[str, bytes]
    facts: dict[str, str]


class Gallery:
    """
    Keeps the best, the worst and evenly spaced frames of a run of unknown length.

    Never holds more than ``best + worst + 2 * spaced`` frames.
    Deterministic: of frames with equal scores, the earlier ones are kept.

    :param best: number of frames of the highest scores to keep.
    :param worst: number of frames of the lowest scores.
    :param spaced: number of frames spread over the run; shorter runs are kept whole.
    """

    def __init__(self, best: int = 4, worst: int = 4, spaced: int = 8) -> None:
        if min(best, worst, spaced) < 0:
            raise ValueError(f'a gallery cannot keep {min(best, worst, spaced)} frames')
        self._numbers = {BEST: best, WORST: worst}
        self._spaced_number = spaced
        self._ranked: dict[str, list[GalleryFrame]] = {BEST: [], WORST: []}
        self._spaced: list[GalleryFrame] = []
        self._stride = 1
        self._added = 0
        self._scored = 0

    def add(
        self,
        index: int,
        name: str,
        score: float,
        make_pictures: Callable[[], dict[str, bytes]],
        facts: Mapping[str, str],
    ) -> None:
        """
        Take the next frame of the run, and keep it if it is among those to show.

        :param index: running number of the pair, higher than that of the frame before.
        :param score: the higher the better; one of NaN is neither best nor worst.
        :param make_pictures: called at once, and only if the frame is kept.
        """
        ranks = [label for label in self._ranked if self._ranks(label, score)]
        spaced = self._spaced_number > 0 and self._added % self._stride == 0
        self._added += 1
        self._scored += not math.isnan(score)
        if not ranks and not spaced:
            return
        frame = GalleryFrame(index, name, score, (), make_pictures(), dict(facts))
        for label in ranks:
            kept = self._ranked[label]
            kept.append(frame)
            # The sort is stable, so that the earlier of equal frames comes first.
            kept.sort(key=lambda frame: frame.score, reverse=label == BEST)
            del kept[self._numbers[label] :]
        if spaced:
            self._spaced.append(frame)
            if len(self._spaced) >= 2 * self._spaced_number:
                # Every other one of 2n still covers the run with n.
                del self._spaced[1::2]
                self._stride *= 2

    def _ranks(self, label: str, score: float) -> bool:
        """Return whether a frame of this score is among the best, or worst, so far."""
        kept, number = self._ranked[label], self._numbers[label]
        if math.isnan(score) or number == 0:
            return False
        if len(kept) < number:
            return True
        last = kept[-1].score
        return score > last if label == BEST else score < last

    def frames(self) -> list[GalleryFrame]:
        """
        Return the chosen frames by index, each with its labels.

        No frame is both best and worst: of a short run, the upper half is best.
        """
        best = self._ranked[BEST][: (self._scored + 1) // 2]
        chosen = {
            BEST: {frame.index for frame in best},
            WORST: {frame.index for frame in self._ranked[WORST][: self._scored // 2]},
            SPACED: {frame.index for frame in self._evenly_spaced()},
        }
        chosen[WORST] -= chosen[BEST]
        held = {
            frame.index: frame
            for frame in (*self._ranked[BEST], *self._ranked[WORST], *self._spaced)
        }
        labelled = (
            replace(held[index], labels=tuple(lb for lb, own in chosen.items() if index in own))
            for index in sorted(held)
        )
        return [frame for frame in labelled if frame.labels]

    def _evenly_spaced(self) -> list[GalleryFrame]:
        """Return the frames to show of those held, which are up to twice as many."""
        held, number = self._spaced, self._spaced_number
        places = np.linspace(0, len(held) - 1, min(number, len(held))).round().astype(int)
        return [held[place] for place in places]


def jpeg(image: NDArray[Any], longest_side: int = 960, quality: int = 85) -> bytes:
    """
    Return an image as a JPEG file, reduced in size if a page does not need all of it.

    :param image: (H, W) grey or (H, W, 3) blue-green-red, uint8.
    :param longest_side: pixels that height and width may have.
    :param quality: 0 to 100.
    :raises ValueError: the image has another shape or type, or is empty.
    """
    colours = image.ndim == 3 and image.shape[2] == 3
    if image.dtype != np.uint8 or not image.size or not (image.ndim == 2 or colours):
        raise ValueError(
            f'a picture must be uint8 of shape (H, W) or (H, W, 3), not {image.dtype} of shape '
            f'{image.shape}'
        )
    scale = longest_side / max(image.shape[:2])
    if scale < 1:
        height, width = (max(1, round(side * scale)) for side in image.shape[:2])
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return bytes(data)
