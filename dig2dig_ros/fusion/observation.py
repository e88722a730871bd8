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
A camera's observation of the scene c, y = A c + n: the image, its operator and its noise.

:func:`observe` makes an :class:`Observation` from an image and its camera's declared degradation.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
import math

from torch import Tensor

from dig2dig_ros.fusion.degradation import Degradation, DegradationError
from dig2dig_ros.fusion.linear_operators import (
    Convolution,
    down_sampling,
    gaussian_blur,
    Identity,
    LinearOperator,
    motion_psf,
    Size,
)

# One grey level of 255 on [-1, 1].
GREY_LEVEL = 2 / 255

# A 4K scene: more takes seconds and gigabytes, and no robot's camera shows that much.
_MOST_SCENE_PIXELS = 3840 * 2160
# Number of operators, for cameras and sizes, that stay in memory.
_KEPT_OPERATORS = 8


@dataclass(frozen=True)
class Observation:
    """
    One camera's observation: y = A c + n.

    :param image: y, (1, 1, h, w) in [-1, 1].
    :param operator: A, from the size of the scene to that of y.
    :param noise: standard deviation of n, on [-1, 1].
    """

    image: Tensor
    operator: LinearOperator
    noise: float

    def __post_init__(self) -> None:
        if self.image.shape != (1, 1, *self.operator.output_size):
            raise ValueError(
                f'the observed image has shape {tuple(self.image.shape)}, but its operator gives '
                f'(1, 1, {self.operator.output_size[0]}, {self.operator.output_size[1]})'
            )
        if not 0 <= self.noise < math.inf:
            raise ValueError(f'noise is {self.noise}, but must be at least 0 and finite')


def observe(degradation: Degradation, image: Tensor, noise: float) -> Observation:
    """
    Model how a camera made an image; operators are made once per size.

    :param image: (1, 1, h, w) in [-1, 1].
    :param noise: standard deviation of its noise, on [-1, 1].
    :raises DegradationError: the degradation is impossible for the size of the image.
    """
    if image.ndim != 4 or image.shape[:2] != (1, 1):
        raise ValueError(f'the image has shape {tuple(image.shape)}, but must be (1, 1, h, w)')
    height, width = image.shape[-2:]
    rows, columns = degradation.scene_size(height, width)
    if degradation.factor > 1 and rows * columns > _MOST_SCENE_PIXELS:
        raise DegradationError(
            f"'{degradation}' turns an image of {width}x{height} into {columns}x{rows} pixels: "
            f'declare a smaller factor, for at most {_MOST_SCENE_PIXELS} pixels'
        )
    return Observation(image, _operator(degradation, (height, width)), noise)


def fitting_size(degradation: Degradation, size: Size) -> Size:
    """Return the size nearest to (h, w) of an image that can be degraded like this."""
    spread = motion_psf(*degradation.motion).shape
    height, width = (
        max(side, math.ceil(reach / degradation.factor))
        for side, reach in zip(size, spread, strict=True)
    )
    return height, width


def forget_operators() -> None:
    """Free the memory of the kept operators, on every device."""
    _operator.cache_clear()


@lru_cache(maxsize=_KEPT_OPERATORS)
def _operator(degradation: Degradation, size: Size) -> LinearOperator:
    """Return A, from the scene to images of this size."""
    scene = degradation.scene_size(*size)
    operator: LinearOperator = Identity(scene)
    if degradation.blur:
        operator = gaussian_blur(scene, degradation.blur)
    elif degradation.motion[0] > 0:
        psf = motion_psf(*degradation.motion)
        if psf.shape[0] > scene[0] or psf.shape[1] > scene[1]:
            raise DegradationError(
                f"'{degradation}' blurs over {psf.shape[1]}x{psf.shape[0]} pixels, but the scene "
                f'has only {scene[1]}x{scene[0]}'
            )
        operator = Convolution(psf, scene)
    if scene != size:
        operator = down_sampling(scene, size) @ operator
    return operator
