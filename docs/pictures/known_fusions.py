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
Pairs whose ideal fused image is known, because it was there before its sources.

The error of a fused image, and Theorem 1 of Dig2DIG, are about a distance to an ideal x*(c) that
nobody can see on real pairs. Two constructions have one, both from the synthetic street:

- ``scene``: the sources are what the two cameras see, noise included. The ideal is made of their
  images without noise: people from the thermal one, everything else from the visible one where
  there is light to see by, and from the thermal one where it is dark. That is a definition; other
  people may want another image.
- ``complementary``: the ideal is one image, and each source is that image with the half of it
  degraded that the other source has intact. Here the ideal is beyond dispute.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
import math
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from dig2dig_ros.evaluation.metrics import luma
from dig2dig_ros.evaluation.synthetic_scene import SyntheticScene
from dig2dig_ros.images.thermal_range import ThermalRange

PairKind = Literal['scene', 'complementary']
PAIR_KINDS: tuple[PairKind, ...] = ('scene', 'complementary')
Defect = Literal['blur', 'contrast']
DEFECTS: tuple[Defect, ...] = ('blur', 'contrast')

# Mean luma of the surroundings, in [0, 1], below which the visible camera shows nothing and above
# which it shows all; about 10 and 30 grey levels of 255.
_DARK, _LIT = 0.04, 0.12
# In parts of the image's height: the surroundings, the patches, and the blur of a source.
_SURROUNDINGS, _PATCH, _BLUR = 1 / 32, 1 / 8, 1 / 90
# What is left of the contrast in a washed-out half.
_CONTRAST = 0.3
# Share of the standard deviation of the field over which one half gives way to the other.
_TRANSITION = 0.15

Image = NDArray[np.float32]


@dataclass(frozen=True)
class KnownFusion:
    """
    Two sources and the image that their fusion should be.

    :param name: of the pair.
    :param source_names: of the K sources.
    :param sources: (K, H, W) float32 in [0, 1], luma.
    :param ideal: (H, W) float32 in [0, 1], x*.
    """

    name: str
    source_names: tuple[str, ...]
    sources: NDArray[np.float32]
    ideal: Image


def scene_fusion(scene: SyntheticScene, time_s: float) -> KnownFusion:
    """
    Return what the two cameras see at ``time_s`` seconds, and the ideal as described above.

    Thermal counts are mapped to [0, 1] as the node does by default; the ideal has the range that
    was found for the noisy frame.
    """
    frame, clean = scene.render(time_s), scene.render(time_s, noise=False)
    ranges = ThermalRange()
    thermal = ranges(frame.thermal, 0.0)
    # The same stamp: the range stays.
    ideal_thermal = ranges(clean.thermal, 0.0)
    visible, ideal_visible = _unit_luma(frame.visible), _unit_luma(clean.visible)
    light = _blurred(ideal_visible, _SURROUNDINGS)
    darkness = np.clip((_LIT - light) / (_LIT - _DARK), 0, 1)
    share = np.maximum(scene.people(time_s), darkness)
    ideal = share * ideal_thermal + (1 - share) * ideal_visible
    return KnownFusion(
        f'scene at {time_s:.2f} s',
        ('visible', 'thermal'),
        np.stack([visible, thermal]),
        np.asarray(ideal, np.float32),
    )


def complementary_fusion(ideal: Image, defect: Defect, seed: int) -> KnownFusion:
    """
    Make two sources of an image, each degraded in the half where the other one is intact.

    The halves are random patches of about an eighth of the height with soft borders.

    :param ideal: (H, W) in [0, 1].
    :param defect: ``blur``, a Gaussian of a ninetieth of the height, or ``contrast``, of
        which 0.3 is left around the mean of the image.
    :param seed: of the patches.
    :raises ValueError: unknown ``defect``.
    """
    if defect == 'blur':
        degraded = _blurred(ideal, _BLUR)
    elif defect == 'contrast':
        degraded = (ideal.mean() + _CONTRAST * (ideal - ideal.mean())).astype(np.float32)
    else:
        raise ValueError(f'defect {defect!r} is unknown: use {DEFECTS}')
    draw = np.random.default_rng(seed).standard_normal(ideal.shape, np.float32)
    field = _blurred(draw, _PATCH)
    field = (field - np.median(field)) / field.std()
    share = np.clip(0.5 + field / (2 * _TRANSITION), 0, 1)
    sources = np.stack(
        [share * ideal + (1 - share) * degraded, (1 - share) * ideal + share * degraded]
    )
    # Rounding must not leave the range.
    sources = np.clip(sources, 0, 1).astype(np.float32)
    return KnownFusion(f'{defect} {seed}', ('first', 'second'), sources, ideal)


def known_fusions(
    kind: PairKind, count: int, width: int, height: int, seed: int = 0
) -> Iterator[KnownFusion]:
    """
    Yield pairs of another street each, at moments spread over its period.

    :param kind: ``scene``, or ``complementary``: what the visible camera sees without noise, its
        dark parts lifted by a square root, blurred and washed out in turn.
    :param seed: of the first street and its patches; the following ones have the next seeds.
    :raises ValueError: unknown ``kind``, or sizes that :class:`SyntheticScene` refuses.
    """
    if kind not in PAIR_KINDS:
        raise ValueError(f'kind {kind!r} of pairs is unknown: use {PAIR_KINDS}')
    for index in range(count):
        scene = SyntheticScene(width, height, seed=seed + index)
        time_s = scene.period * (index + 0.5) / count
        if kind == 'scene':
            yield scene_fusion(scene, time_s)
        else:
            visible = _unit_luma(scene.render(time_s, noise=False).visible)
            defect = DEFECTS[index % len(DEFECTS)]
            yield complementary_fusion(
                np.asarray(np.sqrt(visible), np.float32), defect, seed + index
            )


def _unit_luma(image: NDArray[np.uint8]) -> Image:
    return np.asarray(luma(image) / 255, np.float32)


def _blurred(image: Image, share: float) -> Image:
    """Blur with a Gaussian whose sigma is a share of the height."""
    sigma = max(share * image.shape[0], 0.5)
    # OpenCV picks a kernel too short for float images of its own accord.
    side = 2 * math.ceil(3 * sigma) + 1
    blurred: Image = cv2.GaussianBlur(image, (side, side), sigma)
    return blurred
