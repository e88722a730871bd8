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
Bad conditions, made from good pairs: noise, night, fog, a blind camera.

A useful fusion must not suffer when one camera fails. Each condition has a name, three severities
and its own seed, so a pair is always degraded in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
import zlib

import cv2
import numpy as np
from numpy.typing import NDArray

from dig2dig_ros.evaluation.imperfect_cameras import of_type
from dig2dig_ros.evaluation.metrics import luma
from dig2dig_ros.evaluation.options import UsageError
from dig2dig_ros.streams.pairing import Source, SOURCES

Image = NDArray[np.uint8]
Float = NDArray[np.float32]
# From an image (H, W, C) float32 on the 8-bit scale, the severity as a number and a random
# generator to the degraded image; rounding and clipping follow.
_Effect = Callable[[Float, float, np.random.Generator], Any]

SEVERITIES = ('mild', 'medium', 'severe')
CLEAN, EACH, ALL = 'clean', 'each', 'all'

# Photons that a pixel collects from white in good light, and its readout noise in photons.
_PHOTONS = 400.0
_READ_PHOTONS = 4.0
# Noise of an unamplified readout, in grey levels.
_READ_NOISE = 1.0
_MID_GREY = 128.0


class ConditionError(UsageError):
    """A condition is unknown; the message lists the known ones."""


def _noise(image: Float, sigma: float, random: np.random.Generator) -> Any:
    return image + np.float32(sigma) * random.standard_normal(image.shape, np.float32)


def _night_shot(image: Float, light: float, random: np.random.Generator) -> Any:
    """
    Return a scene in a fraction of the light, amplified to its original brightness.

    Photon and readout noise follow Foi et al., IEEE TIP 17(10), 2008. With 5 % of the light, white
    is 20 photons, and the readout adds 51 grey levels of noise.
    """
    photons = _PHOTONS * light
    gathered = random.poisson(image * (photons / 255.0)).astype(np.float32)
    return _noise(gathered, _READ_PHOTONS, random) * np.float32(255.0 / photons)


def _dark(image: Float, light: float, random: np.random.Generator) -> Any:
    return _noise(image * np.float32(light), _READ_NOISE, random)


def _glare(image: Float, radius: float, random: np.random.Generator) -> Any:
    """Return an image with a lamp in its upper half: white within the radius, and a veil."""
    height, width = image.shape[:2]
    x, y = random.uniform(0.2, 0.8) * width, random.uniform(0.2, 0.5) * height
    rows, columns = np.ogrid[:height, :width]
    square = ((columns - x) ** 2 + (rows - y) ** 2) / (radius * height) ** 2
    # Stray light in a lens falls with the square of the angle (Vos, 1984).
    veil = (2.0 * 255.0 / (1.0 + square)).astype(np.float32)
    return image + veil[..., None]


def _fog(image: Float, left: float, random: np.random.Generator) -> Any:
    """
    Return a scene in fog (Koschmieder, 1924), with distances that grow from bottom to middle.

    :param left: fraction of the light that comes through from there.
    """
    height = image.shape[0]
    distance = np.clip(np.linspace(2.0, 0.0, height, dtype=np.float32), 0.1, 1.0)
    through = (np.float32(left) ** distance)[:, None, None]
    air = np.percentile(image, 95)
    return _noise(image * through + (1.0 - through) * np.float32(air), _READ_NOISE, random)


def _low_resolution(image: Float, factor: float, random: np.random.Generator) -> Any:
    height, width = image.shape[:2]
    size = max(1, round(width / factor)), max(1, round(height / factor))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)


def _blur(image: Float, sigma: float, random: np.random.Generator) -> Any:
    return cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101)


def _stripes(image: Float, sigma: float, random: np.random.Generator) -> Any:
    """
    Return an image with an offset on each column, and on each row with half the deviation.

    Uncooled sensors read column by column, so that columns differ more.
    """
    height, width = image.shape[:2]
    columns = random.standard_normal((1, width, 1), np.float32)
    rows = random.standard_normal((height, 1, 1), np.float32)
    return image + np.float32(sigma) * (columns + rows / 2)


def _flat(image: Float, part: float, random: np.random.Generator) -> Any:
    mean = np.float32(image.mean())
    return _noise(mean + np.float32(part) * (image - mean), _READ_NOISE, random)


def _black(image: Float, sigma: float, random: np.random.Generator) -> Any:
    return _noise(np.zeros_like(image), sigma, random)


def _dead(image: Float, sigma: float, random: np.random.Generator) -> Any:
    return _noise(np.full_like(image, _MID_GREY), sigma, random)


def _shift(image: Float, pixels: float, random: np.random.Generator) -> Any:
    margin = round(pixels)
    padded = cv2.copyMakeBorder(image, 0, 0, margin, 0, cv2.BORDER_REPLICATE)
    return padded[:, : image.shape[1]]


@dataclass(frozen=True)
class _Kind:
    """
    What a condition does.

    :param meaning: one line; {} stands for the level.
    :param levels: one for each of :data:`SEVERITIES`.
    :param sources: the cameras that it affects.
    """

    meaning: str
    effect: _Effect
    levels: tuple[float, float, float]
    sources: tuple[Source, ...]


_CONDITIONS: dict[str, _Kind] = {
    'visible_noise': _Kind(
        'white noise of {} grey levels on the visible image', _noise, (10, 25, 50), ('visible',)
    ),
    'thermal_noise': _Kind(
        'white noise of {} grey levels on the thermal image', _noise, (10, 25, 50), ('thermal',)
    ),
    'both_noise': _Kind(
        'white noise of {} grey levels on both images', _noise, (10, 25, 50), SOURCES
    ),
    'night_shot': _Kind(
        'the visible camera has {} of the light, amplified: photon and readout noise',
        _night_shot, (0.1, 0.05, 0.03), ('visible',),
    ),
    'dark': _Kind(
        'the visible image has {} of its brightness', _dark, (0.2, 0.1, 0.05), ('visible',)
    ),
    'glare': _Kind(
        'a lamp of a radius of {} image heights in the visible image',
        _glare, (0.1, 0.25, 0.5), ('visible',),
    ),
    'fog': _Kind(
        'fog lets {} of the visible light through', _fog, (0.5, 0.25, 0.1), ('visible',)
    ),
    'low_resolution': _Kind(
        'a thermal pixel is {} pixels wide', _low_resolution, (4, 8, 12), ('thermal',)
    ),
    'blur': _Kind(
        'the thermal image is blurred by a Gaussian of {} pixels', _blur, (2, 4, 8), ('thermal',)
    ),
    'stripes': _Kind(
        'offsets of {} grey levels on the columns of the thermal image, half of that on its rows',
        _stripes, (6, 12, 24), ('thermal',),
    ),
    'flat_thermal': _Kind(
        'the thermal image has {} of its contrast', _flat, (0.3, 0.15, 0.08), ('thermal',)
    ),
    'black_visible': _Kind(
        'the visible image is black, with noise of {} grey levels',
        _black, (0.5, 2, 8), ('visible',),
    ),
    'dead_thermal': _Kind(
        'the thermal image is grey, with noise of {} grey levels',
        _dead, (0.5, 2, 8), ('thermal',),
    ),
    'shift': _Kind(
        'the thermal image is shifted by {} pixels', _shift, (2, 4, 8), ('thermal',)
    ),
}  # fmt: skip

NAMES = (CLEAN, *_CONDITIONS)


@dataclass(frozen=True)
class Condition:
    """
    A condition and how bad it is.

    :param name: one of :data:`NAMES`.
    :param severity: one of :data:`SEVERITIES`; empty for :data:`CLEAN`.
    """

    name: str
    severity: str = ''

    def __str__(self) -> str:
        """Return what :func:`parse_conditions` reads."""
        return f'{self.name}:{self.severity}' if self.severity else self.name

    @property
    def meaning(self) -> str:
        """Return what it is, in a line."""
        if self.name == CLEAN:
            return 'the images as they are'
        return _CONDITIONS[self.name].meaning.format(f'{self._level:g}')

    @property
    def _level(self) -> float:
        return _CONDITIONS[self.name].levels[SEVERITIES.index(self.severity)]

    def spoils(self, source: Source) -> str:
        """
        Return a key for what it does to a camera's images; equal keys give equal images.

        :return: empty if it leaves them unchanged.
        """
        if self.name == CLEAN or source not in _CONDITIONS[self.name].sources:
            return ''
        return f'{_CONDITIONS[self.name].effect.__name__} {self._level:g}'

    def apply(self, visible: Image, thermal: Image, image: str) -> tuple[Image, Image]:
        """
        Return the degraded images of a pair.

        :param visible: (H, W, 3) in blue-green-red order, or grey, (H, W); uint8.
        :param thermal: (H, W), uint8, registered with it.
        :param image: name of the pair, which with the condition seeds the noise.
        :return: two images of the same shapes; an unchanged one is the same object.
        :raises ValueError: an image has another type or shape.
        """
        return self._seen('visible', visible, image), self._seen('thermal', thermal, image)

    def _seen(self, source: Source, image: Image, name: str) -> Image:
        if image.dtype != np.uint8 or not (image.ndim == 2 or image.shape[2:] == (3,)):
            raise ValueError(
                f'the {source} image is {image.dtype} of shape {image.shape}, but must be uint8 '
                'of shape (H, W) or (H, W, 3)'
            )
        spoils = self.spoils(source)
        if not spoils:
            return image
        # Noise must not colour a grey image.
        grey = image.ndim == 2 or bool((image == image[..., :1]).all())
        scene = luma(image)[..., None] if grey else image
        random = np.random.default_rng([zlib.crc32(f'{source} {spoils} {name}'.encode())])
        seen = _CONDITIONS[self.name].effect(scene.astype(np.float32), self._level, random)
        # OpenCV drops an axis of one channel.
        counts: Image = of_type(seen.reshape(scene.shape), np.uint8)
        if image.ndim == 2:
            return counts[..., 0]
        return np.ascontiguousarray(np.broadcast_to(counts, image.shape))


def parse_conditions(text: str) -> list[Condition]:
    """
    Read conditions: ``NAME``, ``NAME:SEVERITY`` or ``NAME:each``, separated by commas.

    Without a severity, it is medium; ``all`` stands for every name.

    :raises ConditionError: a name or a severity is unknown, or there is no name.
    """
    found: list[Condition] = []
    for part in filter(None, (part.strip() for part in text.split(','))):
        name, colon, severity = part.partition(':')
        if name not in (ALL, *NAMES):
            raise ConditionError(
                f'unknown condition {name}: use {ALL}, or some of {", ".join(NAMES)}'
            )
        if colon and name == CLEAN:
            raise ConditionError(f'{part}: {name} has no severity: leave it out')
        if colon and severity not in (EACH, *SEVERITIES):
            raise ConditionError(f'{part}: use {", ".join(SEVERITIES)} or {EACH} as the severity')
        chosen = SEVERITIES if severity == EACH else (severity or 'medium',)
        for each in NAMES if name == ALL else (name,):
            found += [Condition(each, level) for level in _severities(each, chosen)]
    if not found:
        raise ConditionError(f'no condition given: use {ALL}, or some of {", ".join(NAMES)}')
    return list(dict.fromkeys(found))


def _severities(name: str, chosen: Sequence[str]) -> Sequence[str]:
    return ('',) if name == CLEAN else chosen
