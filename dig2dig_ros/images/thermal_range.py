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
The range of a thermal image: raw counts to [0, 1], steady over time.

A 14- or 16-bit camera fills a few hundred of its counts with a scene, somewhere in its range.
Stretching every frame on its own makes the picture flicker as soon as something hot enters it, so
the range follows the scene with a time constant.
"""

from __future__ import annotations

from collections.abc import Sequence
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dig2dig_ros.images.no_data import find_no_data, NoData
from dig2dig_ros.images.quantiles import nearest_ranks

MODES = ('auto', 'percentile', 'fixed', 'encoding')
WHITE_HOT, BLACK_HOT = POLARITIES = ('white_hot', 'black_hot')

# Most pixels that the percentiles are taken from.
_SAMPLE_PIXELS = 65536
# After a gap of this many time constants the old range says nothing about the new frame.
_GAP = 5.0
# Grey levels by which the channels of an 8-bit grey image may differ: conversions and lossy
# compression leave up to 4, and the palette nearest to grey (bone) has 32.
_GREY_LEVELS = 6
# Two ranges that share less than this part of the smaller one belong to different scenes.
_SAME_SCENE = 0.25
# So do two ranges if one is more than this many times the other, or if the present one leaves out
# more than this part of the pixels.
_OTHER_SCALE, _MOST_CLIPPED = 100.0, 1 / 3
# Part of its share by which a pixel at the new bound may change, as a few lie beyond it.
_AT_BOUND = 0.9
# Part of the pixels at each end that is not the bulk of the scene, and how many times as far
# as the bulk spreads the range may be without leaving that part out.
_BULK_TAIL, _BULK_SPANS = 0.025, 10.0


class ThermalRangeError(ValueError):
    """An image is not thermal, or a setting is wrong; the message says what to do."""


def without_rows(image: NDArray[Any], crop: Sequence[int]) -> NDArray[Any]:
    """
    Return an image without its first and last rows, such as telemetry.

    :param image: (H, W, ...).
    :param crop: number of rows at the top, and at the bottom.
    :return: a view of what is left.
    :raises ThermalRangeError: nothing is.
    """
    top, bottom = crop
    if top + bottom >= len(image):
        raise ThermalRangeError(
            f'thermal_crop [{top}, {bottom}] leaves nothing of {len(image)} rows: set it to the '
            'rows at the top and bottom that are not image'
        )
    return image[top : len(image) - bottom]


class ThermalRange:
    """
    Maps thermal images to float32 in [0, 1], where 1 is hot.

    Modes:

    - ``auto``: ``encoding`` for uint8 (the camera has chosen a range already), ``percentile``
      for everything else.
    - ``percentile``: two percentiles of the frame, smoothed over time. Each bound follows its
      percentile with the time constant ``smoothing``, and moves at most by
      ``1 - exp(-dt / smoothing)`` times the present span a frame, so that no pixel of a still
      background changes by more than that share, however hot what enters. Inwards it moves as
      fast as that share allows, so that what was hot is soon forgotten. A range that hardly
      overlaps the present one (another scene, another gain of the camera) is taken over at once;
      so is one of which the present one leaves out a third of the pixels (after a shutter that
      the camera shows), and the first one after a stamp that went back or a gap of five time
      constants. The span
      is at least ``minimum_span`` around its centre: noise is not stretched to full contrast,
      and a constant image becomes 0.5. It is at most ten times that of the central 95 % of the
      pixels, which it exceeds by one such span at either end: a few pixels set no range.
    - ``fixed``: ``limits``, in counts of the image.
    - ``encoding``: the full range of the integer type; [0, 1] for floating point. No number in it
      stands for no data.

    With ``polarity`` ``black_hot``, high counts are cold, and the range is inverted.

    Values outside the range are clipped. Infinities count by their sign. What is no measurement
    counts as coldest (0): NaN, and what :func:`~dig2dig_ros.images.no_data.find_no_data` finds.
    Neither takes part in the percentiles.

    Not thread-safe: frames have an order.

    :ivar no_data: where the latest frame holds no measurement, and nothing that is called
        intensity here is one; None where it holds measurements only.
    """

    def __init__(
        self,
        mode: str = 'auto',
        percentiles: tuple[float, float] = (1.0, 99.5),
        limits: tuple[float, float] = (0.0, 65535.0),
        smoothing: float = 1.0,
        minimum_span: float | None = None,
        polarity: str = WHITE_HOT,
    ) -> None:
        """
        Check and keep the settings.

        :param mode: one of :data:`MODES`.
        :param percentiles: low and high, in percent.
        :param limits: of mode ``fixed``: the counts that become 0 and 1.
        :param smoothing: time constant of mode ``percentile`` in s; 0 does not smooth.
        :param minimum_span: of mode ``percentile``, in counts. None means 16 counts for 8-bit
            and 64 for wider integers (sensor noise of 3 counts spans 15); for floating point a
            thousandth of the magnitude (0.3 K for kelvin), and at least 0.001: state it for
            degrees Celsius.
        :param polarity: one of :data:`POLARITIES`: whether high counts are hot, or low ones.
        :raises ThermalRangeError: a setting is out of its range.
        """
        if mode not in MODES:
            raise ThermalRangeError(f"unknown thermal range '{mode}': use {', '.join(MODES)}")
        if polarity not in POLARITIES:
            raise ThermalRangeError(
                f"polarity '{polarity}' is unknown: use {' or '.join(POLARITIES)}"
            )
        low, high = (float(value) for value in percentiles)
        if not 0.0 <= low < high <= 100.0:
            raise ThermalRangeError(f'percentiles {low:g}, {high:g} must rise within 0 to 100')
        bottom, top = (float(value) for value in limits)
        if not (math.isfinite(bottom) and math.isfinite(top) and bottom < top):
            raise ThermalRangeError(f'limits {bottom:g}, {top:g} must rise')
        if not (math.isfinite(smoothing) and smoothing >= 0.0):
            raise ThermalRangeError(f'smoothing must be 0 s or more, not {smoothing:g}')
        if minimum_span is not None and not (math.isfinite(minimum_span) and minimum_span > 0.0):
            raise ThermalRangeError(f'the minimum span must be above 0, not {minimum_span:g}')
        self.mode = mode
        self.percentiles = (low, high)
        self.limits = (bottom, top)
        self.smoothing = float(smoothing)
        self.minimum_span = minimum_span
        self.polarity = polarity
        self.no_data: NoData | None = None
        self._range: tuple[float, float] | None = None
        self._stamp = 0.0

    def reset(self) -> None:
        """Forget the past: the next frame sets the range by itself."""
        self._range = None

    def __call__(self, array: NDArray[Any], stamp: float) -> NDArray[np.float32]:
        """
        Map one frame.

        :param array: (H, W) integers or floating point, or grey (H, W, 3): the channels of 8-bit
            images may differ by 6 grey levels, as after JPEG, those of other types not at all.
        :param stamp: time of the frame in s, from the header.
        :return: new (H, W) array in [0, 1].
        :raises ThermalRangeError: the image has colour, no pixels or no finite value.
        """
        image = grey_thermal(array)
        mode = self.mode
        if mode == 'auto':
            mode = 'encoding' if image.dtype == np.uint8 else 'percentile'
        # Only where it is set by name, encoding takes all numbers as measurements.
        found = find_no_data(image, marks=self.mode != 'encoding')
        sample = _measured_sample(image, found)
        self.no_data = found
        if mode == 'fixed':
            low, high = self.limits
        elif mode == 'encoding':
            low, high = _encoding_range(image.dtype)
        else:
            low, high = self._follow(sample, float(stamp))

        with np.errstate(over='ignore'):
            mapped = image.astype(np.float32, order='C')
            mapped -= np.float32(low)
            mapped *= np.float32(1.0 / (high - low))
        np.clip(mapped, 0.0, 1.0, out=mapped)
        if self.polarity == BLACK_HOT:
            np.subtract(1.0, mapped, out=mapped)
        if found is not None:
            mapped[found.mask] = 0.0
        return mapped

    def _measure(self, sample: NDArray[Any]) -> tuple[float, float]:
        """Return the percentiles of one frame (nearest rank), at least the minimum span apart."""
        parts = (*(percent / 100.0 for percent in self.percentiles), _BULK_TAIL, 1.0 - _BULK_TAIL)
        if sample.dtype in (np.uint8, np.uint16):
            ranks = [round((sample.size - 1) * part) for part in parts]
            cumulative = np.bincount(sample).cumsum()
            values = [float(np.searchsorted(cumulative, rank, 'right')) for rank in ranks]
        else:
            values = nearest_ranks(sample, parts)
        low, high, bulk_low, bulk_high = values
        bulk = max(bulk_high - bulk_low, self._least_span(sample.dtype, bulk_high))
        if high - low > _BULK_SPANS * bulk:
            low, high = max(low, bulk_low - bulk), min(high, bulk_high + bulk)
        span = self._least_span(sample.dtype, high)
        if high - low < span:
            centre = 0.5 * (low + high)
            low, high = centre - 0.5 * span, centre + 0.5 * span
        return low, high

    def _least_span(self, dtype: np.dtype[Any], value: float) -> float:
        """Return the least span of a range about a value."""
        if self.minimum_span is not None:
            return self.minimum_span
        if dtype.kind == 'f':
            return max(1e-3, 1e-3 * abs(value))
        return 16.0 if dtype.itemsize == 1 else 64.0

    def _follow(self, sample: NDArray[Any], stamp: float) -> tuple[float, float]:
        """Move the range towards the one of this frame, as the class describes."""
        measured = self._measure(sample)
        elapsed = stamp - self._stamp
        self._stamp = stamp
        if (
            self._range is None
            or self.smoothing == 0.0
            or not 0.0 <= elapsed <= _GAP * self.smoothing
        ):
            self._range = measured
            return measured
        low, high = self._range
        span, own_span = high - low, measured[1] - measured[0]
        overlap = max(0.0, min(high, measured[1]) - max(low, measured[0]))
        overlap /= min(span, own_span)
        other_scene = max(0.0, 1.0 - overlap / _SAME_SCENE)
        clipped = float(((sample < low) | (sample > high)).mean())
        if (
            other_scene == 1.0
            or (elapsed > 0 and clipped > _MOST_CLIPPED)
            or max(span, own_span) > _OTHER_SCALE * min(span, own_span)
        ):
            # Not smoothed: next to a wild frame, the sum of old and new is all rounding.
            self._range = measured
            return measured
        share = -math.expm1(-elapsed / self.smoothing)

        def follow(bound: float, other: float, target: float) -> float:
            step = share * min(max(target - bound, -span), span)
            inside = (target - other) / (bound - other)
            if 0.0 < inside < 1.0:
                # Narrower: pixels at the new bound become brighter or darker by the share.
                narrow = (target - other) / min(1.0, inside + _AT_BOUND * share) - bound + other
                step = max(step, narrow, key=abs)
            bound += step
            return bound + other_scene * (target - bound)

        self._range = follow(low, high, measured[0]), follow(high, low, measured[1])
        return self._range


def grey_thermal(array: NDArray[Any]) -> NDArray[Any]:
    """Return the image as (H, W), or say why it is not a thermal image."""
    if array.ndim == 3 and array.shape[2] == 3 and array.size:
        blue, green, red = (array[:, :, channel] for channel in range(3))
        largest, smallest = (of(of(blue, green), red) for of in (np.maximum, np.minimum))
        # Other types have not been through JPEG.
        tolerance = _GREY_LEVELS if array.dtype == np.uint8 else 0
        if not (largest == smallest).all() and (largest - smallest).max() > tolerance:
            raise ThermalRangeError(
                'the thermal image looks like a colour palette (false colour): a palette is not '
                'intensity, so have the camera publish white-hot grey (mono8) or raw counts '
                '(mono16, 16UC1), without coloured marks in it'
            )
        # Green follows luma best, and errors of chroma least.
        array = green
    if array.ndim != 2 or array.size == 0 or array.dtype.kind not in 'iuf':
        raise ThermalRangeError(
            f'a thermal image must be (H, W) of numbers, not {array.dtype} of shape {array.shape}'
        )
    return array


def _measured_sample(image: NDArray[Any], no_data: NoData | None) -> NDArray[Any]:
    """Return measured pixels on a regular grid, at most :data:`_SAMPLE_PIXELS` of them."""
    stride = math.ceil(math.sqrt(image.size / _SAMPLE_PIXELS))
    sample: NDArray[Any] = image[::stride, ::stride].ravel()
    if image.dtype.kind != 'f' and no_data is None:
        return sample
    measured = np.isfinite(sample)
    if no_data is not None:
        measured &= ~no_data.mask[::stride, ::stride].ravel()
    if measured.any():
        return np.asarray(sample[measured])
    measured = np.isfinite(image)
    if no_data is not None:
        measured &= ~no_data.mask
    if not measured.any():
        raise ThermalRangeError('the thermal image has no finite value')
    return np.asarray(image[measured])


def _encoding_range(dtype: np.dtype[Any]) -> tuple[float, float]:
    if dtype.kind == 'f':
        return 0.0, 1.0
    info = np.iinfo(dtype)
    return float(info.min), float(info.max)
