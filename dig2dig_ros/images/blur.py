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
Blur of thermal images: out of focus, or enlarged from a sensor of fewer pixels.

A blurred camera has its people as glowing clouds, and they cover what the other one sees. Both
kinds of blur show in a single image: that of a lens in how fast the spectrum falls, enlargement in
kinks at equal distances. How far it can be undone is a matter of noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

# Pixels a side from which on the spectrum says something.
SMALLEST_FOR_BLUR = 64
# Rows, and columns, that are looked at.
_LINES = 64

# Bands of the spectrum: their ends in cycles per pixel.
_BANDS = np.geomspace(0.008, 0.5, 25)
# Bands at the upper end of which the lowest is taken for noise, and how far the scene must be
# above it to be seen.
_NOISE_BANDS, _ABOVE_NOISE = 6, 4.0
# Fewest bands that a blur is seen in, and how far it must have dimmed the last of them: the power
# is e to the minus this.
_FEWEST_BANDS, _DIMMED = 8, 4.0
# Power spectra of scenes fall with this power of the frequency, give or take the inverse root of
# the weight (Field, "Relations between the statistics of natural images ...", JOSA A 4, 1987).
_EXPONENT, _WEIGHT = 2.0, 0.25
# Deviation of a Gaussian from which on an image is blurred: sharp ones have up to 1.4 pixels.
LEAST_BLUR = 1.8
# What is left of the blur when it is undone, and the most that a frequency is amplified.
_LEFT, _MOST = 0.25, 12.0

# Deviations up to which a sharpened image counts as a sharp one, and from which on least.
# Chosen on halves of MSRS, FLIR, M3FD and LLVIP by the people that detectors find in fused images.
_USEFUL, _LEAST_SHARPNESS = (2.5, 4.0), 0.1

# Factors of enlargement that are looked for.
_FACTORS = (3.0, 16.0)
# Part of the bends of lines that must be at equal distances, how many of the strongest distances
# are tried, and of which of their multiples.
_KINKS, _PEAKS, _DIVISORS = 0.02, 4, (1, 2, 3, 4)
# What straight lines between the kinks leave of the detail of an enlarged image, at most; they
# leave nearly all of it in others, the blocks of JPEG included.
_UNEXPLAINED = 0.45
# From some of the lines, and what they leave if all of them cannot be below that.
_SOME, _HOPELESS = 8, 0.6
# Frequencies above that of the former pixels are images of others; the filter ends as far above.
_ROLL_OFF = 1.25
# Least part of a frequency that is made whole.
_LEAST_PASSED = 0.35
# Number of deviations, or of former pixels, by which the image is continued beyond its border.
_MARGIN = 3.0
# Logarithm of the ratio of two factors that are one.
_STEP_OF_FACTOR = 0.1
# Steps of the deviation, in parts of it, and of the noise, in powers of 2, between filters.
_STEP = 1 / 32


@dataclass(frozen=True)
class Blur:
    """
    How an image is blurred.

    :param deviation: of a Gaussian, in pixels; 0 is none.
    :param factor: by which it was enlarged, linearly, from an image of fewer pixels; 1 is not.
    :param noise: power of the noise in parts of that of the sharp scene at a frequency of 1 cycle
        per pixel.
    """

    deviation: float = 0.0
    factor: float = 1.0
    noise: float = 0.0

    @property
    def is_none(self) -> bool:
        """Whether the image stays as it is."""
        return self.deviation == 0 and self.factor == 1

    def sharpness(self, enlargement: float = 1.0) -> float:
        """
        Return how much the sharpened image counts, in (0, 1]; 1 if it was sharp all along.

        :param enlargement: factor by which it is yet to be enlarged.
        """
        # Area averages and linear interpolation together have a deviation of half the factor.
        deviation = enlargement * max(self.deviation, self.factor / 2)
        return float(np.interp(deviation, _USEFUL, (1.0, _LEAST_SHARPNESS)))

    def is_like(self, other: Blur) -> bool:
        """Whether both are of one kind: none, of a lens, or of much the same enlargement."""
        same_factor = abs(math.log(self.factor / other.factor)) < _STEP_OF_FACTOR
        return self.is_none == other.is_none and same_factor

    def towards(self, other: Blur, share: float) -> Blur:
        """Return what lies between this and another of its kind, ``other`` for a share of 1."""
        ours, theirs = (
            np.array([each.deviation, each.factor, each.noise]) for each in (self, other)
        )
        return Blur(*(float(value) for value in ours + share * (theirs - ours)))

    def __str__(self) -> str:
        """Return what diagnostics say."""
        if self.factor > 1:
            return f'enlarged {self.factor:.1f} times'
        return f'{self.deviation:.1f} pixels'


def estimate_blur(image: NDArray[Any], *, full_scale: float) -> Blur:
    """
    Return how an image is blurred; noise and stripes of more than a grey level hide it.

    :param image: (H, W), uint8, uint16 or float32 in [0, full_scale], 64 pixels a side or more.
    :param full_scale: what is white: 255 of uint8, 65535 of uint16, 1 of floats.
    """
    unit = 255 / full_scale
    lines = _lines(image, unit), _lines(image.T, unit)
    factor = _enlargement(lines)
    return Blur(factor=factor) if factor > 1 else _gaussian(lines)


def deblurred(image: NDArray[Any], blur: Blur, *, full_scale: float) -> tuple[NDArray[Any], float]:
    """
    Return the sharpened image, clipped, and what is white in it; itself where it is not blurred.

    :param image: (H, W), uint8, uint16 or float32 in [0, full_scale].
    """
    if blur.is_none:
        return image, full_scale
    values = image.astype(np.float32)
    values *= np.float32(1 / full_scale)
    reach = math.ceil(_MARGIN * max(blur.deviation, blur.factor))
    continued, top, left = _continued(values, reach)
    gain = _gain(continued.shape, _rounded(blur))
    sharp = cv2.idct(cv2.dct(continued) * gain)
    height, width = values.shape
    result = sharp[top : top + height, left : left + width]
    return np.clip(result, 0, 1), 1.0


def _lines(image: NDArray[Any], unit: float) -> Floats:
    """Return rows at equal distances in grey levels of 255."""
    step = max(1, image.shape[0] // _LINES)
    lines = image[step // 2 :: step][:_LINES].astype(np.float32, order='C')
    if unit != 1:
        lines *= np.float32(unit)
    return lines


# Enlargement


def _enlargement(directions: tuple[Floats, Floats]) -> float:
    """Return the factor by which an image was enlarged along both sides, 1 where it was not."""
    first = _factor(directions[0])
    second = _factor(directions[1]) if first > 1 else 1.0
    # Sides that are no multiples of the factor make it differ a little.
    if second == 1 or not 0.9 < first / second < 1.1:
        return 1.0
    return math.sqrt(first * second)


def _factor(lines: Floats) -> float:
    """
    Return the distance in pixels between the kinks of lines, 1 where there are none.

    Interpolation shows in second differences (Gallagher, "Detection of linear and cubic
    interpolation in JPEG compressed images", CRV 2005).
    """
    length = lines.shape[1]
    bend = np.abs(np.diff(lines, n=2, axis=1)).mean(axis=0)
    strengths = np.abs(np.fft.rfft(bend - bend.mean(), n=length))
    first, last = math.ceil(length / _FACTORS[1]), math.floor(length / _FACTORS[0])
    seen = strengths[first : last + 1]
    # Harmonics may be stronger, and so may the scene.
    counts = {
        (first + int(peak)) // divisor
        for peak in np.argsort(seen)[-_PEAKS:]
        for divisor in _DIVISORS
        if seen[peak] > _KINKS * bend.sum()
    }
    some = lines[::_SOME]
    found = [(_unexplained(some, count), count) for count in counts if count >= first]
    least, count = min(found, default=(1.0, 0))
    if least > _HOPELESS or _unexplained(lines, count) > _UNEXPLAINED:
        return 1.0
    return float(length / count)


def _unexplained(lines: Floats, count: int) -> float:
    """
    Return which part of the detail of lines is not that of straight lines between kinks.

    :param count: of the pixels before the enlargement, at whose centres the kinks are.
    """
    before, between, left, share, nearest = _kinks(lines.shape[1], count)
    kinks = lines[:, before] * (1 - between) + lines[:, before + 1] * between
    straight = kinks[:, left] * (1 - share) + kinks[:, left + 1] * share
    straight -= lines
    flat = kinks[:, nearest]
    flat -= lines
    errors = [float(np.vdot(each, each)) for each in (straight, flat)]
    return math.sqrt(errors[0] / errors[1]) if errors[1] > 0 else 1.0


@lru_cache(maxsize=64)
def _kinks(length: int, count: int) -> tuple[NDArray[Any], ...]:
    """
    Return where the kinks are, and what is between them.

    :return: for each kink, the pixel before it and the share of the next one; for each pixel, the
        kink before it, the share of the next one, and the nearest kink.
    """
    factor = length / count
    centres = (np.arange(count) + 0.5) * factor - 0.5
    before = np.minimum(centres.astype(np.intp), length - 2)
    between = (centres - before).astype(np.float32)
    pixels = np.arange(length)
    place = ((pixels + 0.5) / factor - 0.5).clip(0, count - 1)
    left = np.minimum(place.astype(np.intp), count - 2)
    share = (place - left).astype(np.float32)
    nearest = np.minimum((pixels / factor).astype(np.intp), count - 1)
    return before, between, left, share, nearest


# The blur of a lens


def _gaussian(directions: tuple[Floats, Floats]) -> Blur:
    """Fit a spectrum of a scene behind a Gaussian; bands below the noise do not count."""
    powers, counts = np.zeros(len(_BANDS) - 1), np.zeros(len(_BANDS) - 1)
    for lines in directions:
        bands, window = _bands(lines.shape[1])
        own = (lines - lines.mean(axis=1, keepdims=True)) * window
        power = _power(own)
        inside = bands >= 0
        powers += np.bincount(bands[inside], power[inside], len(powers))
        counts += np.bincount(bands[inside], minlength=len(powers))
    seen = counts > 0
    powers, frequencies = powers[seen] / counts[seen], _centres()[seen]
    noise = float(powers[-_NOISE_BANDS:].min())
    hidden = powers < _ABOVE_NOISE * noise
    end = int(np.argmax(hidden)) if hidden.any() else len(powers)
    if noise <= 0 or end < _FEWEST_BANDS:
        return Blur()
    frequencies, levels = frequencies[:end], np.log(powers[:end])
    columns = np.ones(end), -np.log(frequencies), -((2 * math.pi * frequencies) ** 2)
    equations = np.vstack([np.stack(columns, axis=1), [0, math.sqrt(_WEIGHT), 0]])
    values = np.append(levels, math.sqrt(_WEIGHT) * _EXPONENT)
    level, exponent, variance = np.linalg.lstsq(equations, values, rcond=None)[0]
    if variance < LEAST_BLUR**2 or variance * (2 * math.pi * frequencies[-1]) ** 2 < _DIMMED:
        return Blur()
    # The sharp scene at 1 cycle, from where the spectrum is seen last.
    scene = math.exp(level) * frequencies[-1] ** (_EXPONENT - exponent)
    return Blur(deviation=math.sqrt(variance), noise=noise / scene)


def _power(lines: Floats) -> Floats:
    """Return the mean power spectrum of lines, of the frequencies of ``rfftfreq``."""
    # A quarter of the time of NumPy's, which computes it in float64. Packed by OpenCV: the mean,
    # real and imaginary parts in turn, and, if the length is even, the highest frequency.
    packed = np.square(cv2.dft(lines, flags=cv2.DFT_ROWS)).mean(axis=0)
    length = lines.shape[1]
    power: Floats = np.zeros(length // 2 + 1, np.float32)
    power[0] = packed[0]
    last = (length - 1) // 2
    power[1 : last + 1] = packed[1 : 2 * last + 1].reshape(-1, 2).sum(axis=1)
    if length % 2 == 0:
        power[-1] = packed[-1]
    return power


def _centres() -> NDArray[np.float64]:
    return np.sqrt(_BANDS[:-1] * _BANDS[1:])


@lru_cache(maxsize=8)
def _bands(length: int) -> tuple[NDArray[np.intp], Floats]:
    """Return the band of each frequency of lines, -1 for none, and the window for them."""
    bands = np.searchsorted(_BANDS, np.fft.rfftfreq(length), side='right') - 1
    bands[bands == len(_BANDS) - 1] = len(_BANDS) - 2  # the upper end counts
    return bands, np.hanning(length).astype(np.float32)


# The filter


def _continued(values: Floats, reach: int) -> tuple[Floats, int, int]:
    """
    Return an image that goes on beyond its border, point-symmetric to it, in a size for the DCT.

    :return: also the row and the column where the image begins.
    """
    before, after = [], []
    for side in values.shape:
        most = min(reach, side - 1)
        size = 2 * cv2.getOptimalDFTSize(side // 2 + most)
        before.append(most)
        after.append(size - side - most)
    margins = tuple(zip(before, after, strict=True))
    result = np.pad(values, margins, mode='reflect', reflect_type='odd')
    return result, before[0], before[1]


def _rounded(blur: Blur) -> Blur:
    """Return a blur in steps, so that a camera whose blur wavers keeps its filter."""

    def near(value: float) -> float:
        return math.exp(_STEP * round(math.log(value) / _STEP)) if value > 0 else 0.0

    return Blur(near(blur.deviation), near(blur.factor), near(blur.noise))


@lru_cache(maxsize=4)
def _gain(shape: tuple[int, int], blur: Blur) -> Floats:
    """Return by how much each frequency of the DCT of an image is amplified, (H, W)."""
    rows, columns = (np.arange(size) / (2 * size) for size in shape)
    if blur.factor > 1:
        gain = np.outer(_of_former_pixels(rows, blur), _of_former_pixels(columns, blur))
        return gain.astype(np.float32)
    squared = rows[:, None] ** 2 + columns**2
    passed = np.exp(-2 * (math.pi * blur.deviation) ** 2 * squared)
    noise = np.maximum(blur.noise * squared, 1 / (4 * _MOST**2))
    # Wiener's filter, to an image that is still a little blurred.
    gain = passed / (passed**2 + noise) * passed ** (_LEFT**2)
    result: Floats = (gain / gain[0, 0]).astype(np.float32)
    return result


def _of_former_pixels(frequencies: NDArray[np.float64], blur: Blur) -> NDArray[np.float64]:
    """Return the inverse of the mean over a pixel, and of linear interpolation, up to Nyquist."""
    former = frequencies * blur.factor
    passed = np.sinc(former.clip(max=_ROLL_OFF / 2)) ** 3
    roll_off = ((_ROLL_OFF / 2 - former) / (_ROLL_OFF / 2 - 0.5)).clip(0, 1)
    gain: NDArray[np.float64] = roll_off / passed.clip(min=_LEAST_PASSED)
    return gain
