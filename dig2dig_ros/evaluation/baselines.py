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
Classical fusions that every table shows for comparison.

Sources are luma images of equal shape (H, W), any scale; the result is float32 on the same scale
and not clipped: :func:`to_uint8` turns it into an 8-bit image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Sources = Sequence[NDArray[Any]]


def _stacked(sources: Sources) -> NDArray[np.float32]:
    """
    Return the sources as one (K, H, W) float32 array.

    :raises ValueError: there is none, one is not (H, W) or is empty, or the sizes differ.
    """
    shapes = [source.shape for source in sources]
    if not shapes or len(shapes[0]) != 2 or 0 in shapes[0] or len(set(shapes)) > 1:
        raise ValueError(
            f'sources have shapes {shapes}, but must be luma images of one shape (H, W)'
        )
    return np.stack([np.asarray(source, dtype=np.float32) for source in sources])


def mean(sources: Sources) -> NDArray[np.float32]:
    """
    Return the mean of the sources.

    :param sources: K images (H, W).
    :return: (H, W).
    :raises ValueError: the sources do not fit together.
    """
    return np.asarray(_stacked(sources).mean(axis=0), dtype=np.float32)


def laplacian(sources: Sources, levels: int = 5) -> NDArray[np.float32]:
    """
    Fuse with a Laplacian pyramid: the strongest detail of any source, the mean of the bases.

    Burt and Adelson, "The Laplacian pyramid as a compact image code", IEEE Trans.
    Communications 31(4), 1983, with the detail coefficient of largest magnitude (the first
    source's where equal) as in Burt, "The pyramid as a structure for efficient computation",
    1984.

    :param sources: K images (H, W).
    :param levels: of detail; each halves the resolution of the base.
    :return: (H, W); details may overshoot the range of the sources.
    :raises ValueError: the sources do not fit together.
    """
    base = list(_stacked(sources))
    strongest: list[NDArray[np.float32]] = []
    for _ in range(levels):
        reduced = [cv2.pyrDown(image) for image in base]
        height, width = base[0].shape
        details = np.stack(
            [
                image - cv2.pyrUp(small, dstsize=(width, height))
                for image, small in zip(base, reduced, strict=True)
            ]
        )
        source = np.abs(details).argmax(axis=0)
        strongest.append(np.take_along_axis(details, source[None], axis=0)[0])
        base = [np.asarray(small, dtype=np.float32) for small in reduced]
    fused = np.mean(base, axis=0, dtype=np.float32)
    for detail in reversed(strongest):
        height, width = detail.shape
        fused = cv2.pyrUp(fused, dstsize=(width, height)) + detail
    return np.asarray(fused, dtype=np.float32)


def to_uint8(image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """
    Round an image on the 8-bit scale and clip it to 0 to 255.

    Halves are rounded up. Rounding to even, as NumPy does, would favour the even levels in a mean
    of two 8-bit images, which shows in the metrics EN and MI.
    """
    rounded: NDArray[np.uint8] = np.floor(np.clip(image, 0, 255) + 0.5).astype(np.uint8)
    return rounded


BASELINES: dict[str, Callable[[Sources], NDArray[np.float32]]] = {
    'mean': mean,
    'laplacian': laplacian,
}
