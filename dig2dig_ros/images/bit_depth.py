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
How many of the 16 bits of its samples a camera uses.

Drivers put the 10, 12 or 14 bits of a sensor into the lower ones of 16. Taken for the full range,
such an image is nearly black.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Bits that sensors have. With fewer, a camera looks like a covered lens.
_FOUND, _FEWEST = (10, 12, 14, 16), 8
_SAMPLE_PIXELS = 20_000
# Part of the pixels that may lie above: hot ones.
_OUTLIERS = 0.0005


class BitDepth:
    """
    Follows how many bits the images of one camera use: as many as the brightest so far.

    :param stated: how many they are, if known; 0 detects it.
    :ivar bits: that the latest image was asked for with; to be set to 16 before the next one.
    """

    def __init__(self, stated: int = 0) -> None:
        self.stated = stated
        self.bits = 16
        self._found = 0

    def __call__(self, samples: NDArray[Any]) -> int:
        """
        Return the bits that are used, with the next image.

        :param samples: uint16, of any shape, as the sensor has them.
        """
        if self.stated:
            return self.stated
        flat = samples.reshape(-1)
        some = flat[:: max(1, math.ceil(flat.size / _SAMPLE_PIXELS))]
        place = round((1 - _OUTLIERS) * (some.size - 1))
        brightest = int(np.partition(some, place)[place]) if some.size else 0
        if brightest >= 1 << _FEWEST:
            needed = next(bits for bits in _FOUND if brightest < 1 << bits)
            self._found = max(self._found, needed)
        self.bits = self._found or 16
        return self.bits

    def full_scale(self, image: NDArray[Any]) -> NDArray[Any]:
        """Return an image of uint16 whose bits that are used are the upper ones of 16."""
        bits = self(image)
        if bits == 16:
            return image
        top = np.uint16((1 << bits) - 1)
        return np.asarray(np.minimum(image, top) << np.uint16(16 - bits))

    def sentence(self, source: str) -> str:
        """Return the warnings; none where the bits were stated, or all are used."""
        if self.stated or self.bits == 16:
            return ''
        text = f'the {source} image uses {self.bits} of 16 bits and is scaled accordingly'
        if source != 'visible':
            return text
        return f'{text}: set visible_bits to {self.bits}, or to 16 if it is just dark'
