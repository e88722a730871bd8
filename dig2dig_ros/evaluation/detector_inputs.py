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

"""The inputs of a person detector: the cameras' images and fusions of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from dig2dig_ros.evaluation.baselines import BASELINES, to_uint8
from dig2dig_ros.evaluation.metrics import luma
from dig2dig_ros.evaluation.scores import Image
from dig2dig_ros.images.luma import LUMA_BGR

# Inputs with a meaning of their own, besides the fused images of this package.
VISIBLE, THERMAL, REFERENCE = 'visible', 'thermal', 'mean'


def with_chroma_of(visible: Image, fused: NDArray[np.float32]) -> Image:
    """
    Give a fused luma the colour of the visible image, as in this package's fused images.

    :param visible: (H, W, 3) in blue-green-red order, or grey, (H, W).
    :param fused: (H, W) on the 8-bit scale.
    :return: the shape of ``visible``, with its Cb and Cr, except for clipping.
    """
    if visible.ndim == 2:
        return to_uint8(fused)
    colour = visible.astype(np.float32)
    change = fused - colour @ np.array(LUMA_BGR, np.float32)
    return to_uint8(colour + change[..., None])


def detector_inputs(
    names: Sequence[str],
    visible: Image,
    thermal: Image,
    fused: Mapping[str, Image] = MappingProxyType({}),
) -> dict[str, Image]:
    """
    Return the images to run a detector on.

    :param names: ``visible``, ``thermal``, those of
        :data:`~dig2dig_ros.evaluation.baselines.BASELINES`, which get the colour of the visible
        image, and those of ``fused``.
    :param visible: (H, W, 3) in blue-green-red order, or grey, (H, W).
    :param thermal: (H, W), registered with it.
    :param fused: images by name, unchanged if they have the shape of ``visible``; grey ones of
        its size get its colour.
    :return: one image for each name, in their order.
    :raises ValueError: a name is unknown, or a baseline gets images of two sizes.
    """
    known = {VISIBLE: visible, THERMAL: thermal}
    for name, image in fused.items():
        if image.shape == visible.shape:
            known[name] = image
        elif name not in BASELINES and image.shape == visible.shape[:2]:
            known[name] = with_chroma_of(visible, image.astype(np.float32))
    images: dict[str, Image] = {}
    for name in names:
        if name in known:
            images[name] = known[name]
        elif name in BASELINES:
            images[name] = with_chroma_of(visible, BASELINES[name]([luma(visible), thermal]))
        else:
            there = dict.fromkeys((VISIBLE, THERMAL, *BASELINES, *fused))
            raise ValueError(f'unknown input {name}: use one of {", ".join(there)}')
    return images
