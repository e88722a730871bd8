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
The noise of a camera, estimated from a single image, on the host, at little cost.

All deviations are in grey levels of 255, whatever the type of the image.
"""

from __future__ import annotations

from dataclasses import dataclass
import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

# Pixels a side of the blocks that are looked at, and how many of them there are, about.
_BLOCK, _BLOCKS = 16, 120
# Pixels a side from which noise can be estimated.
SMALLEST_FOR_NOISE = 2 * _BLOCK
# Classes of brightness in which noise is measured, where there are enough blocks.
_CLASSES, _FEWEST_OF_CLASS = 4, 12
# Part of the blocks of a class, the flattest, in which noise is measured.
_FLAT_SHARE = 0.3
# Part of a block's pixels that must not be clipped.
_LEAST_UNCLIPPED = 0.2
# Texture has this many times the power an octave further down, for amplitudes of 1/f, and
# noise measured there may be this many times larger by chance before it is called texture.
_OCTAVE, _CHANCE = 4.0, 1.1
# How wrong a variance may be: by rounding to whole grey levels, as part of the power that was
# measured, and as part of what was taken for texture.
_ROUNDING, _ERROR_OF_NOISE, _ERROR_OF_TEXTURE = 0.1, 0.07, 0.5
# Variances of the error that the square of the slope loses.
_DOUBT = 3.0

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class CameraNoise:
    """
    Noise of the luma of a camera's image: its variance at brightness y is read^2 + gain y.

    :param read: deviation of the part that does not depend on light, in grey levels of 255.
    :param gain: photon noise: variance in squares of grey levels by grey level of brightness.
    :param deviation: the noise at the mean brightness of this image, in grey levels.
    """

    read: float = 0.0
    gain: float = 0.0
    deviation: float = 0.0

    def at(self, brightness: float) -> float:
        """Return the deviation at a brightness, both in grey levels of 255."""
        return math.sqrt(self.read**2 + self.gain * max(0.0, brightness))


def estimate_noise(image: NDArray[Any], *, full_scale: float) -> CameraNoise:
    """
    Estimate white noise and how it grows with light, whatever the image shows.

    In blocks of 16x16 pixels all over the image, the power of second differences along both
    diagonals' frequencies is that of noise and texture. Texture grows by octaves and noise does
    not, which separates them; and only the flattest blocks of each brightness count, flatness
    being judged by lower frequencies. What clipping at black and white took of a block's noise
    follows from how much of the block is clipped (the variance of a censored normal variable).

    Noise that a sensor or compression has filtered, so that it is no longer white, does not count:
    it has little power at the highest frequencies.

    :param image: (H, W), or (H, W, 3) blue-green-red: numbers in [0, full_scale], at least 32x32.
        Of colours, the noise is that of their luma, which is smaller.
    :param full_scale: the value of white: 255 for uint8, 65535 for uint16, 1 for floats.
    :raises ValueError: the image has another shape, type or size.
    """
    _check(image, full_scale)
    blocks = _block_statistics(image, full_scale)
    unclipped = blocks[_UNCLIPPED]
    if unclipped.min() < 1:
        blocks = blocks[:, unclipped > _LEAST_UNCLIPPED]
        if blocks.shape[1] == 0:
            return CameraNoise()
        blocks[_FINE : _COARSE + 1] /= np.interp(blocks[_UNCLIPPED], _SEEN, _VARIANCE_OF_SEEN)
    count = blocks.shape[1]
    classes = min(_CLASSES, max(1, count // _FEWEST_OF_CLASS))
    size = count // classes
    flat = max(1, round(_FLAT_SHARE * size))
    order = blocks[_BRIGHTNESS].argsort()[: classes * size].reshape(classes, size)
    ranks = blocks[_TEXTURE][order].argpartition(flat - 1, axis=1)[:, :flat]
    chosen = blocks[:_UNCLIPPED, order[np.arange(classes)[:, np.newaxis], ranks]]
    chosen.sort(axis=2)
    brightness, fine, coarse = chosen[[_BRIGHTNESS, _FINE, _COARSE], :, flat // 2].tolist()
    return _line_through(brightness, fine, coarse, float(blocks[_BRIGHTNESS].sum()) / count)


def _check(image: NDArray[Any], full_scale: float) -> None:
    if image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,)):
        raise ValueError(f'the image must be (H, W) or (H, W, 3), but its shape is {image.shape}')
    if image.dtype not in (np.uint8, np.uint16, np.float32):
        raise ValueError(f'the image must be uint8, uint16 or float32, but is {image.dtype}')
    if min(image.shape[:2]) < SMALLEST_FOR_NOISE:
        raise ValueError(
            f'noise is estimated in images of at least {SMALLEST_FOR_NOISE} pixels a side, but '
            f'this one has {image.shape[1]}x{image.shape[0]}'
        )
    if not full_scale > 0:
        raise ValueError(f'full_scale is {full_scale}, but must be positive')


# What is known of each block, in rows: the power of what is coarser than the noise is measured
# in, that of the finest details along the diagonals, that of details twice as large (of white
# noise, the variance both), the mean grey level, and the part that is neither black nor white.
_TEXTURE, _FINE, _COARSE, _BRIGHTNESS, _UNCLIPPED = range(5)


def _block_statistics(image: NDArray[Any], full_scale: float) -> Floats:
    """Return (5, blocks)."""
    mosaic = _mosaic(image)
    height, width = mosaic.shape[:2]
    luma, seen = mosaic, mosaic
    if mosaic.ndim == 3:
        # Green is most of the luma: its clipping stands for all channels.
        luma, seen = cv2.cvtColor(mosaic, cv2.COLOR_BGR2GRAY), cv2.extractChannel(mosaic, 1)
    grey = luma.astype(np.float32)
    if full_scale != 255:
        grey *= 255 / full_scale
    half = cv2.resize(grey, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    quarter = cv2.resize(half, (width // 4, height // 4), interpolation=cv2.INTER_AREA)
    # Floats are clipped only where they are exactly at an end of the range.
    margin = full_scale * 1e-6 if seen.dtype == np.float32 else 1.0
    inside = cv2.inRange(seen, margin, full_scale - margin)
    size = (width // _BLOCK, height // _BLOCK)
    blocks = np.empty((5, size[1], size[0]), np.float32)
    brightness = _block_means(quarter, _WHOLE)
    blocks[_TEXTURE] = _block_means(quarter * quarter, _WHOLE)
    blocks[_TEXTURE] -= brightness * brightness
    blocks[_FINE] = _noise_power(grey, _BLOCK)
    blocks[_COARSE] = _noise_power(half, _BLOCK // 2)
    # Means of four pixels have a quarter of the variance of their noise.
    blocks[_COARSE] *= 4
    blocks[_BRIGHTNESS] = brightness
    np.divide(cv2.resize(inside, size, interpolation=cv2.INTER_AREA), 255, blocks[_UNCLIPPED])
    return blocks.reshape(5, -1)


def _mosaic(image: NDArray[Any]) -> NDArray[Any]:
    """Return blocks of the image, regularly sampled, side by side: (rows 16, columns 16[, 3])."""
    height, width = image.shape[:2]
    step = max(_BLOCK, math.isqrt(height * width // _BLOCKS))
    if step > _BLOCK and step % 8 == 0:
        # Else all blocks lay the same way in the 8x8 blocks of JPEG.
        step -= 1
    rows, columns = height // step, width // step
    margin = (step - _BLOCK) // 2
    cells = image[: rows * step, : columns * step]
    cells = cells.reshape(rows, step, columns, step, *image.shape[2:])
    blocks = cells[:, margin : margin + _BLOCK, :, margin : margin + _BLOCK]
    return np.ascontiguousarray(blocks).reshape(rows * _BLOCK, columns * _BLOCK, *image.shape[2:])


def _inner(side: int) -> Floats:
    """Return the weights of a mean over a block's pixels along a side but the outermost two."""
    weights = np.zeros(side, np.float32)
    weights[1:-1] = 1 / (side - 2)
    return weights


_INNER = {side: _inner(side) for side in (_BLOCK, _BLOCK // 2)}
_WHOLE = np.full(_BLOCK // 4, 4 / _BLOCK, np.float32)
# The response to white noise has the variance of the noise.
_SECOND_DIFFERENCE = np.array([1, -2, 1], np.float32) / np.float32(math.sqrt(6))


def _noise_power(mosaic: Floats, side: int) -> Floats:
    """Return the mean square of the second differences in the blocks of a mosaic."""
    response = cv2.sepFilter2D(mosaic, -1, _SECOND_DIFFERENCE, _SECOND_DIFFERENCE)
    return _block_means(response * response, _INNER[side])


def _block_means(mosaic: Floats, weights: Floats) -> Floats:
    """Return weighted means of blocks, (rows, columns): a weight for each pixel of their sides."""
    side = len(weights)
    rows, columns = mosaic.shape[0] // side, mosaic.shape[1] // side
    along = mosaic.reshape(-1, side) @ weights
    return np.asarray(weights @ along.reshape(rows, side, columns))


def _censored_variance() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return parts of a normal variable that are not clipped, and the variance that is left."""
    bound = np.linspace(-4.0, 4.0, 801)
    above = np.array([0.5 * math.erfc(-value / math.sqrt(2)) for value in bound])
    density = np.exp(-(bound**2) / 2) / math.sqrt(2 * math.pi)
    mean = bound * above + density
    return above, (bound**2 + 1) * above + bound * density - mean**2


_SEEN, _VARIANCE_OF_SEEN = _censored_variance()


def _line_through(
    brightness: list[float], power: list[float], coarse: list[float], mean: float
) -> CameraNoise:
    """
    Take the texture from the powers, class by class, and lay a line through what is left.

    That is variance = read^2 + gain brightness, where neither is negative.

    :param mean: brightness of the image.
    """
    texture = [
        max(0.0, low - _CHANCE * high) / (_OCTAVE - 1)
        for high, low in zip(power, coarse, strict=True)
    ]
    weights, total, x, y = [], 0.0, 0.0, 0.0
    variance = [max(0.0, high - own) for high, own in zip(power, texture, strict=True)]
    for place, value, high, own in zip(brightness, variance, power, texture, strict=True):
        weight = (_ROUNDING + _ERROR_OF_NOISE * high + _ERROR_OF_TEXTURE * own) ** -2
        weights.append(weight)
        total += weight
        x += weight * place
        y += weight * value
    x, y = x / total, y / total
    spread = rise = 0.0
    for weight, place, value in zip(weights, brightness, variance, strict=True):
        spread += weight * (place - x) ** 2
        rise += weight * (place - x) * (value - y)
    gain = rise / spread if rise > 0 else 0.0
    # A rise within its error is none (James & Stein, 1961): classes of about the same brightness
    # say nothing of others.
    gain *= max(0.0, 1 - _DOUBT / (gain**2 * spread)) if gain > 0 else 0.0
    read = y - gain * x
    if read < 0:
        read, gain = 0.0, y / x
    return CameraNoise(math.sqrt(read), gain, math.sqrt(read + gain * mean))
