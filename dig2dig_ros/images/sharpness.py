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

"""Sharpness: how finely an image resolves its scene, estimated blindly, on the host, cheaply."""

from __future__ import annotations

from itertools import pairwise
import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

# Pixels from one line that is looked at to the next.
_STEP = 16
# Distances in pixels between which brightness is compared.
_DISTANCES = (1, 2, 4, 8, 16)
# Pixels a side from which blur can be estimated.
SMALLEST_FOR_BLUR = 2 * _DISTANCES[-1]
# By how much faster the structure function D grows from d to 2 d than from d / 2 to d in street
# scenes, visible and thermal ones alike, that a Gaussian of so many d has blurred.
_GROWTH = (1.0, 1.5, 2.35, 3.33, 3.8)
_BLUR = (0.0, 0.25, 0.5, 1.0, 2.0)
# A growth of D must be so many times its standard error to be reckoned with.
_SIGNIFICANT = 5.0
# Pixels below which blur is that of any lens.
LEAST_BLUR = 1.2


def effective_blur(image: NDArray[Any]) -> float:
    """
    Estimate how blurred an image is, whether by a lens or by enlarging a smaller one.

    Brightness at two points differs by D(d) in the mean square, d pixels apart: in proportion to d
    across sharp edges, and to its square within a blurred one. From how fast D grows from one
    octave of distances to the next follows the blur; noise adds the same at every distance, and
    so does not count.

    :param image: (H, W), or (H, W, 3) blue-green-red; uint8, uint16 or float32, at least 32x32.
    :return: deviation in pixels of the Gaussian that blurs as much; 0 of a sharp image, or where
        nothing can be told: a uniform one, or one that noise covers.
    :raises ValueError: it is no such image.
    """
    if image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,)):
        raise ValueError(f'the image must be (H, W) or (H, W, 3), but its shape is {image.shape}')
    if image.dtype not in (np.uint8, np.uint16, np.float32):
        raise ValueError(f'the image must be uint8, uint16 or float32, but is {image.dtype}')
    if min(image.shape[:2]) < SMALLEST_FOR_BLUR:
        raise ValueError(
            f'blur is estimated in images of at least {SMALLEST_FOR_BLUR} pixels a side, but this '
            f'one has {image.shape[1]}x{image.shape[0]}'
        )
    # Green is most of what is bright.
    plane = image if image.ndim == 2 else image[..., 1]
    start = _STEP // 2
    rows = np.ascontiguousarray(plane[start::_STEP])
    columns = np.ascontiguousarray(plane[:, start::_STEP].T)
    differences = _structure(rows, columns)
    error = differences[0] * math.sqrt(2 / (rows.size + columns.size))
    growths = [after - before for before, after in pairwise(differences)]
    found = [
        distance * float(np.interp(growth / before, _GROWTH, _BLUR))
        for distance, (before, growth) in zip(_DISTANCES[1:], pairwise(growths), strict=False)
        if before > _SIGNIFICANT * error
    ]
    # Fine details, where there are any, are proof; coarse ones may be so by themselves.
    if not found or found[0] < LEAST_BLUR:
        return 0.0
    blur = sorted(found)[len(found) // 2]
    return blur if blur >= LEAST_BLUR else 0.0


def _structure(rows: NDArray[Any], columns: NDArray[Any]) -> list[float]:
    """Return D at all distances: mean squared differences along the lines, each (n, length)."""
    return [
        sum(
            cv2.norm(lines[:, distance:], lines[:, :-distance], cv2.NORM_L2SQR)
            / (len(lines) * (lines.shape[1] - distance))
            for lines in (rows, columns)
        )
        / 2
        for distance in _DISTANCES
    ]
