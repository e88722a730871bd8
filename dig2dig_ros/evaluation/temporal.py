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
How a video that is fused in another way differs from the same one fused pair by pair.

Errors are against the reference fusion, in grey levels of 255. They are told apart by what moved:
where a fusion remembers what is gone, its ghost stands where something moved; where nothing did,
what differs from pair to pair is flicker.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from dig2dig_ros.evaluation.metrics import ssim

# Deviation in pixels of the blur that takes noise away before images are compared; by how many
# grey levels what moved then differs; and how far around that its ghost may reach.
_BLUR, _MOVED_LEVELS, _REACH = 2.0, 6.0, 8

Grey = NDArray[np.uint8]
Mask = NDArray[np.bool_]


class MotionMask:
    """
    Tells where something moved in the last pairs of a video, in any source.

    :param pairs: how many pairs back.
    """

    def __init__(self, pairs: int) -> None:
        self._earlier: deque[list[NDArray[np.float32]]] = deque(maxlen=pairs)

    def __call__(self, sources: Sequence[Grey]) -> Mask:
        """
        Take the next pair.

        :param sources: (H, W) each, of one size.
        :return: (H, W), true where a source differs from itself in one of the last pairs, beyond
            noise, and up to eight pixels around; false everywhere for the first pair of a size.
        """
        now = [cv2.GaussianBlur(np.float32(grey), (0, 0), _BLUR) for grey in sources]
        if self._earlier and self._earlier[-1][0].shape != now[0].shape:
            self._earlier.clear()
        moved = np.zeros(now[0].shape, np.uint8)
        for earlier in self._earlier:
            for one, other in zip(now, earlier, strict=True):
                moved |= (np.abs(one - other) > _MOVED_LEVELS).astype(np.uint8)
        self._earlier.append(now)
        around = np.ones((2 * _REACH + 1, 2 * _REACH + 1), np.uint8)
        return np.asarray(cv2.dilate(moved, around) > 0)


@dataclass
class VideoDifference:
    """
    Collects by how much one fusion of a video differs from the reference.

    Give it the pairs of the video in their order. Means over no pixels are NaN.
    """

    _squares: list[float] = field(default_factory=list)
    _ssim: list[float] = field(default_factory=list)
    _moved: list[float] = field(default_factory=list)
    _worst: list[float] = field(default_factory=list)
    _still: list[float] = field(default_factory=list)
    _flicker: list[float] = field(default_factory=list)
    _last: Grey | None = None

    def add(self, fused: Grey, reference: Grey, moved: Mask) -> None:
        """
        Take the next pair.

        :param fused: (H, W), the luma of the fused image.
        :param reference: (H, W), that of the reference.
        :param moved: (H, W), see :class:`MotionMask`.
        """
        error = np.abs(fused.astype(np.float32) - reference.astype(np.float32))
        self._squares.append(float(np.mean(np.square(error, dtype=np.float64))))
        self._ssim.append(ssim(fused, reference, reference) / 2)  # a sum over two sources
        if moved.any():
            self._moved.append(float(error[moved].mean()))
            self._worst.append(float(np.percentile(error[moved], 99)))
        if not moved.all():
            self._still.append(float(error[~moved].mean()))
            if self._last is not None and self._last.shape == fused.shape:
                change = np.abs(fused.astype(np.float32) - self._last.astype(np.float32))
                self._flicker.append(float(change[~moved].mean()))
        self._last = fused

    @property
    def psnr(self) -> float:
        """Of the whole video against the reference, in dB; infinite where they are the same."""
        mean = _mean(self._squares)
        return float('inf') if mean == 0 else float(10 * np.log10(255**2 / mean))

    @property
    def ssim(self) -> float:
        """Mean over the pairs."""
        return _mean(self._ssim)

    @property
    def ghosting(self) -> tuple[float, float]:
        """Error where something moved: its mean, and the one that 1 % of the pixels exceed."""
        return _mean(self._moved), _mean(self._worst)

    @property
    def still(self) -> float:
        """Mean error where nothing moved."""
        return _mean(self._still)

    @property
    def flicker(self) -> float:
        """Mean change from a pair to the next, where nothing moved."""
        return _mean(self._flicker)


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float('nan')
