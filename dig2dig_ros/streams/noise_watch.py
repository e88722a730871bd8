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

"""Noise, stripes and contrast of a camera: estimates of single images, smoothed over time."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dig2dig_ros.fusion.degradation import Degradation
from dig2dig_ros.images.blur import Blur
from dig2dig_ros.images.camera_noise import CameraNoise
from dig2dig_ros.images.contrast import Contrast
from dig2dig_ros.images.sensor_noise import measure_noise, NOISY, SensorNoise
from dig2dig_ros.images.stripes import Stripes

# s. Time constants: of noise that follows the light, of a sensor's offsets, and of how fast a
# stretched image may become brighter, and a sharpened one sharper.
NOISE_SECONDS, STRIPES_SECONDS, CONTRAST_SECONDS, BLUR_SECONDS = 0.5, 2.0, 1.0, 1.0
# s. After such a gap, the past says nothing about the new image.
_GAP = 10.0
# An estimate is a jump if it is above the smoothed one by this factor.
_JUMP = 1.3
# A gain that falls below this fraction of the smoothed one is taken at once, or all were white.
_FALL = 0.7
# A gain on its way to 1 has arrived when it is nearer than this.
_AS_IT_IS = 0.02
# Images in a row with stripes, or blur, after which a camera has them, and without after which it
# has none.
_WITH, _WITHOUT = 2, 5
# s. Blur is a matter of the lens and the driver: it is looked for no more often than this.
BLUR_PERIOD = 0.19


class NoiseWatch:
    """
    The noise of one camera, measured in every image, blur now and then, and smoothed over time.

    Not thread-safe: images have an order.

    :ivar noise: that of the latest image.
    """

    def __init__(self) -> None:
        self._white, self._stripes = NoiseTracker(), StripeTracker()
        self._contrast, self._blur = ContrastTracker(), BlurTracker()
        self._looked_for_blur: tuple[float, tuple[int, ...]] = (math.inf, ())
        self.noise = SensorNoise()

    def __call__(
        self, image: NDArray[Any], stamp: float, degradation: Degradation
    ) -> SensorNoise | None:
        """
        Measure the noise of the next image.

        :param image: (H, W) or (H, W, 3) uint8, uint16 or float32 in [0, 1].
        :param stamp: in s.
        :param degradation: declared for the camera.
        :return: what to remove from the image; None if nothing has to be measured.
        """
        white, stripes = degradation.noise is None, degradation.stripes
        blur = degradation.blur is None
        if not (white or stripes or degradation.contrast or blur):
            self.noise = SensorNoise()
            return None
        looks = blur and self._blur_is_due(stamp, image.shape)
        full_scale = 1.0 if image.dtype.kind == 'f' else float(np.iinfo(image.dtype).max)
        found = measure_noise(
            image,
            full_scale=full_scale,
            white=white,
            stripes=stripes,
            contrast=degradation.contrast,
            blur=looks,
        )
        contrast = self._contrast(found.contrast, stamp)
        if looks:
            known_blur = self._blur(found.blur, stamp)
        else:
            known_blur = self.noise.blur if blur else Blur()
        self.noise = SensorNoise(
            self._white(found.white, stamp, contrast.gain),
            self._stripes(found.stripes, stamp, image.shape),
            contrast,
            known_blur,
        )
        return self.noise

    def _blur_is_due(self, stamp: float, shape: tuple[int, ...]) -> bool:
        last, same = self._looked_for_blur
        if shape == same and 0 <= stamp - last < BLUR_PERIOD:
            return False
        self._looked_for_blur = stamp, shape
        return True

    def table(self, source: str) -> dict[str, str]:
        """Return the entries for diagnostics, in grey levels of 255."""
        noise, stripes = self.noise.white.deviation, self.noise.stripes
        table = {f'{source} noise': f'{noise:.1f}'}
        if not stripes.are_none:
            table[f'{source} stripes'] = f'{max(stripes.columns, stripes.rows):.1f}'
        if not self.noise.contrast.is_enough:
            table[f'{source} contrast'] = f'stretched by {self.noise.contrast.gain:.1f}'
        if not self.noise.blur.is_none:
            table[f'{source} blur'] = str(self.noise.blur)
        return table


class NoiseTracker:
    """
    Follows the noise of one camera.

    A camera is quiet until two images in a row are noisier than ``noisy`` (or the first one is),
    and noisy until the smoothed deviation is below ``quiet``, so nothing flickers between the two.
    Variances approach those of the images exponentially; a jump upwards in two images in a row is
    followed at once, so that noise does not show for long when the light goes out.

    Not thread-safe: images have an order.

    :param noisy: deviation from which noise counts, in grey levels of 255.
    :param quiet: deviation below which it no longer counts; at most ``noisy``.
    :param seconds: time constant of the smoothing; 0 does not smooth.
    :raises ValueError: the thresholds or the time are impossible.
    """

    def __init__(
        self, *, noisy: float = NOISY, quiet: float = 1.25, seconds: float = NOISE_SECONDS
    ) -> None:
        if not 0 <= quiet <= noisy < math.inf:
            raise ValueError(f'quiet is {quiet:g}, but must be from 0 to noisy, {noisy:g}')
        self.noisy, self.quiet = noisy, quiet
        self._clock = _Clock(seconds)
        self.reset()

    def reset(self) -> None:
        """Forget the past: the next image counts as the first."""
        self._clock.reset()
        self._smoothed = self._last = CameraNoise()
        self._is_noisy = False

    def __call__(self, noise: CameraNoise, stamp: float, gain: float = 1.0) -> CameraNoise:
        """
        Take the estimate of the next image.

        :param stamp: of the image in s; where it goes back, or 10 s on, the past is forgotten.
        :param gain: by which the image, and its noise, will be stretched.
        :return: the noise to remove; that of a quiet camera is exactly 0.
        """
        share = self._clock.share(stamp)
        if share is None:
            self._smoothed, self._last, self._is_noisy = noise, noise, False
        agreed = min(noise, self._last, key=lambda each: each.deviation)
        if agreed.deviation > _JUMP * self._smoothed.deviation:
            self._smoothed = agreed
        elif share is not None:
            self._smoothed = _between(self._smoothed, noise, share)
        self._last = noise
        level = self._smoothed if self._is_noisy else agreed
        threshold = self.quiet if self._is_noisy else self.noisy
        self._is_noisy = gain * level.deviation >= threshold
        return self._smoothed if self._is_noisy else CameraNoise()


class StripeTracker:
    """
    Follows the stripes of one camera, which last for seconds while the scene changes.

    What the scene adds to the offsets of single images averages out. Stripes are present as soon
    as two images in a row have them (or the first one has), and gone after five without.

    Not thread-safe: images have an order.

    :param seconds: time constant of the smoothing; 0 takes each image for itself.
    :raises ValueError: the time is impossible.
    """

    def __init__(self, *, seconds: float = STRIPES_SECONDS) -> None:
        self._clock = _Clock(seconds)
        self.reset()

    def reset(self) -> None:
        """Forget the past: the next image counts as the first."""
        self._clock.reset()
        self._size: tuple[int, ...] = ()
        self._columns, self._rows = _Offsets(), _Offsets()

    def __call__(self, stripes: Stripes, stamp: float, size: tuple[int, ...]) -> Stripes:
        """
        Take the estimate of the next image.

        :param stamp: of the image in s; where it goes back, or 10 s on, the past is forgotten.
        :param size: of the image, (H, W); if it changes, the past is forgotten too.
        :return: the stripes to subtract.
        """
        if size != self._size:
            self.reset()
            self._size = size
        share = self._clock.share(stamp)
        if share is None:
            self._columns, self._rows = _Offsets(), _Offsets()
        columns = self._columns.add(stripes.column_offsets, share)
        rows = self._rows.add(stripes.row_offsets, share)
        return Stripes(_deviation(columns), _deviation(rows), columns, rows)


class ContrastTracker:
    """
    Follows how the images of one camera should be stretched.

    Gain and offset approach those of the images exponentially, so that a still background does
    not flicker. A gain that falls by more than a third is taken at once, and one that rises as far
    as soon as two images in a row agree.

    Not thread-safe: images have an order.

    :param seconds: time constant of the smoothing; 0 takes each image for itself.
    :raises ValueError: the time is impossible.
    """

    def __init__(self, *, seconds: float = CONTRAST_SECONDS) -> None:
        self._clock = _Clock(seconds)
        self._smoothed = self._last = Contrast()

    def __call__(self, contrast: Contrast, stamp: float) -> Contrast:
        """
        Take the estimate of the next image.

        :param stamp: of the image in s; where it goes back, or 10 s on, the past is forgotten.
        :return: how to stretch it.
        """
        share, past = self._clock.share(stamp), self._smoothed
        agreed = min(contrast, self._last, key=lambda each: each.gain)
        self._last = contrast
        if share is None or contrast.gain < _FALL * past.gain:
            self._smoothed = contrast
        elif _FALL * agreed.gain > past.gain:
            self._smoothed = agreed
        elif past != contrast:
            self._smoothed = Contrast(
                past.gain + share * (contrast.gain - past.gain),
                past.offset + share * (contrast.offset - past.offset),
            )
            if abs(self._smoothed.gain - 1) < _AS_IT_IS and contrast.is_enough:
                self._smoothed = contrast
        return self._smoothed


class BlurTracker:
    """
    Follow the blur of one camera: of its lens, or of an enlargement.

    It is there as soon as two images in a row have it (or the first one has), and gone after five
    without; so it is where one kind follows the other. The deviation approaches those of the
    images exponentially.

    Not thread-safe: images have an order.

    :param seconds: time constant of the smoothing; 0 takes each image for itself.
    :raises ValueError: the time is impossible.
    """

    def __init__(self, *, seconds: float = BLUR_SECONDS) -> None:
        self._clock = _Clock(seconds)
        self._smoothed = self._last = Blur()
        self._missed = 0

    def __call__(self, blur: Blur, stamp: float) -> Blur:
        """
        Take the estimate of the next image.

        :param stamp: of the image in s; where it goes back, or 10 s on, the past is forgotten.
        :return: the blur to undo.
        """
        share, last = self._clock.share(stamp), self._last
        self._last = blur
        if share is None:
            self._smoothed, self._missed = blur, 0
        elif not blur.is_none and blur.is_like(self._smoothed):
            self._smoothed, self._missed = self._smoothed.towards(blur, share), 0
        else:
            self._missed += 1
            if blur.is_like(last) and (self._smoothed.is_none or self._missed >= _WITHOUT):
                self._smoothed, self._missed = blur, 0
        return self._smoothed


class _Clock:
    """The weight of a new estimate, from the time since the last one."""

    def __init__(self, seconds: float) -> None:
        if not 0 <= seconds < math.inf:
            raise ValueError(f'seconds is {seconds:g}, but must be a time of 0 s or more')
        self._seconds = seconds
        self.reset()

    def reset(self) -> None:
        self._stamp = -math.inf

    def share(self, stamp: float) -> float | None:
        """Return the weight of the next estimate; None if there is nothing to smooth it with."""
        elapsed, self._stamp = stamp - self._stamp, stamp
        if not 0 <= elapsed <= _GAP:
            return None
        return -math.expm1(-elapsed / self._seconds) if self._seconds else 1.0


class _Offsets:
    """The offsets of the columns, or rows, of one camera."""

    def __init__(self) -> None:
        self._smoothed: NDArray[np.float32] | None = None
        self._found = self._missed = 0

    def add(
        self, offsets: NDArray[np.float32] | None, share: float | None
    ) -> NDArray[np.float32] | None:
        if offsets is None:
            self._found, self._missed = 0, self._missed + 1
            if self._missed >= _WITHOUT:
                self._smoothed = None
            return self._smoothed
        self._found, self._missed = self._found + 1, 0
        if self._smoothed is not None and share is not None:
            self._smoothed = self._smoothed + np.float32(share) * (offsets - self._smoothed)
        elif share is None or self._found >= _WITH:
            self._smoothed = offsets
        return self._smoothed


def _deviation(offsets: NDArray[np.float32] | None) -> float:
    return 0.0 if offsets is None else float(offsets.std())


def _between(past: CameraNoise, new: CameraNoise, share: float) -> CameraNoise:
    """Interpolate between two estimates; variances are linear."""
    read, deviation = (
        math.sqrt((1 - share) * before**2 + share * now**2)
        for before, now in ((past.read, new.read), (past.deviation, new.deviation))
    )
    return CameraNoise(read, (1 - share) * past.gain + share * new.gain, deviation)
