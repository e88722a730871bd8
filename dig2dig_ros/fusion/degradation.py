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
The degradation of a camera, as declared in a parameter.

Free of torch, so that nodes start fast; :mod:`dig2dig_ros.fusion.observation` makes linear
operators from it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
import re
from typing import Any

# Short names for makes and situations; every term can be written out as well.
PRESETS: dict[str, str] = {
    'lepton': 'x4, stripes auto, contrast auto, noise auto',
    'boson': 'x2, stripes auto, contrast auto, noise auto',
    'low_light': 'noise auto',
}
_TERMS = (
    'x4 (down-sampling), blur 1.5 (standard deviation in pixels), motion 9 30 '
    '(length in pixels, degrees), stripes auto (of columns and rows), contrast auto (little of '
    'it), blur auto, noise 10 (standard deviation in grey levels of 255) or noise auto'
)
_NUMBER = r'([0-9]+(?:\.[0-9]*)?|\.[0-9]+)'
_LARGEST_FACTOR = 16.0


class DegradationError(ValueError):
    """A declared degradation is not understood, or impossible for an image."""


@dataclass(frozen=True)
class Degradation:
    """
    What happens to the scene on its way through a camera: y = A c + n.

    In this order: blur (or motion), down-sampling, loss of contrast, stripes, noise.

    :param factor: the scene has this many times the pixels of the image along each side; each of
        these is the mean over its own, as on a sensor.
    :param blur: standard deviation of a Gaussian, in pixels of the scene; None is estimated for
        every frame, as is a factor by which the image was enlarged.
    :param motion: length of a straight movement in pixels of the scene and its direction in
        degrees, counter-clockwise from the right; length 0 is none.
    :param stripes: whether columns and rows have offsets, which are estimated for every frame.
    :param contrast: whether it may have little contrast, which is then stretched.
    :param noise: standard deviation in grey levels of 255; None is estimated for every frame.
    """

    factor: float = 1.0
    blur: float | None = 0.0
    motion: tuple[float, float] = (0.0, 0.0)
    stripes: bool = False
    contrast: bool = False
    noise: float | None = 0.0

    @property
    def is_only_noise(self) -> bool:
        """Whether every pixel shows its own part of the scene, with noise or without."""
        blur = self.blur or 0.0
        return replace(self, stripes=False, contrast=False, blur=blur, noise=0.0).is_none

    @property
    def is_none(self) -> bool:
        """Whether nothing is declared at all."""
        return self == Degradation()

    def scene_size(self, height: int, width: int) -> tuple[int, int]:
        """Return (height, width) of the scene that an image of the given size shows."""
        return round(height * self.factor), round(width * self.factor)

    @staticmethod
    @lru_cache(maxsize=64)
    def parse(text: str) -> Degradation:
        """
        Parse ``none``, a name of :data:`PRESETS`, or terms separated by commas.

        :raises DegradationError: a term is unknown or repeated; the message lists all terms.
        """
        words = text.strip()
        if words in ('', 'none'):
            return Degradation()
        values: dict[str, Any] = {}
        for term in PRESETS.get(words, words).split(','):
            for name, value in _term(term.strip(), text).items():
                if name in values:
                    raise DegradationError(f"'{text}' has {name} twice: give each term once")
                values[name] = value
        degradation = Degradation(**values)
        if degradation.blur != 0 and degradation.motion[0] > 0:
            raise DegradationError(f"'{text}' has both blur and motion: give one of them")
        return degradation

    def __str__(self) -> str:
        """Return the text that :meth:`parse` reads."""
        terms = []
        if self.blur:
            terms.append(f'blur {self.blur:g}')
        if self.motion[0]:
            terms.append(f'motion {self.motion[0]:g} {self.motion[1]:g}')
        if self.factor != 1:
            terms.append(f'x{self.factor:g}')
        if self.stripes:
            terms.append('stripes auto')
        if self.contrast:
            terms.append('contrast auto')
        if self.blur is None:
            terms.append('blur auto')
        if self.noise != 0:
            terms.append('noise auto' if self.noise is None else f'noise {self.noise:g}')
        return ', '.join(terms) or 'none'


def _term(term: str, text: str) -> dict[str, Any]:
    """Return the fields that one term sets."""
    if match := re.fullmatch(rf'x\s*{_NUMBER}', term):
        factor = float(match[1])
        if not 1 <= factor <= _LARGEST_FACTOR:
            raise DegradationError(
                f"'{term}' is not a down-sampling: the factor must be 1 to {_LARGEST_FACTOR:g}"
            )
        return {'factor': factor}
    if match := re.fullmatch(rf'blur\s+{_NUMBER}', term):
        return {'blur': _at_most(float(match[1]), 50, term)}
    if match := re.fullmatch(rf'motion\s+{_NUMBER}\s+([-+]?{_NUMBER})', term):
        return {'motion': (_at_most(float(match[1]), 200, term), float(match[2]))}
    if term == 'stripes auto':
        return {'stripes': True}
    if term == 'contrast auto':
        return {'contrast': True}
    if term == 'blur auto':
        return {'blur': None}
    if term == 'noise auto':
        return {'noise': None}
    if match := re.fullmatch(rf'noise\s+{_NUMBER}', term):
        return {'noise': _at_most(float(match[1]), 127, term)}
    known = ', '.join(PRESETS)
    raise DegradationError(
        f"unknown degradation '{term}' in '{text}': use none, {known}, or terms with commas: "
        f'{_TERMS}'
    )


def _at_most(value: float, most: float, term: str) -> float:
    if value > most:
        raise DegradationError(f"'{term}' is out of range: at most {most:g}")
    return value
