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

"""The sources of a fusion as arrays: checked, thermal counts mapped, and its noise measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dig2dig_ros.errors import Refusal
from dig2dig_ros.fusion.degradation import Degradation
from dig2dig_ros.fusion.denoising import LUMA_NOISE
from dig2dig_ros.images.blur import deblurred
from dig2dig_ros.images.camera_noise import CameraNoise
from dig2dig_ros.images.contrast import stretched
from dig2dig_ros.images.no_data import (
    filled,
    find_no_data,
    NoData,
    placement_of_data,
    SOFT_EDGE,
)
from dig2dig_ros.images.placement import Placement
from dig2dig_ros.images.sensor_noise import measure_noise, NOISY, SensorNoise
from dig2dig_ros.images.stripes import Stripes, without_stripes
from dig2dig_ros.images.thermal_range import ThermalRange, ThermalRangeError


class FusionInputError(Refusal, ValueError):
    """The images cannot be fused; the message says which one, why, and what is expected."""


@dataclass(frozen=True)
class Source:
    """
    A source to fuse, checked; pixels of uint8, uint16 or float32.

    :param noise: white noise that it has.
    :param sharpness: see :meth:`~dig2dig_ros.images.blur.Blur.sharpness`.
    :param enlargement: how many pixels of the first source, along a side, a pixel becomes, if
        that is to be done without blur; else 1.
    """

    pixels: NDArray[Any]
    full_scale: float
    placement: Placement | None
    trust: float
    noise: CameraNoise = field(default_factory=CameraNoise)
    sharpness: float = 1.0
    enlargement: float = 1.0


def mapped(
    arrays: Sequence[NDArray[Any]],
    placements: Sequence[Placement | None],
    ranges: Sequence[ThermalRange | None],
    stamp: float | None,
    notes: list[str] | None = None,
    names: Sequence[str] = (),
    edge: float = SOFT_EDGE,
) -> tuple[list[NDArray[Any]], list[Placement | None]]:
    """
    Return the sources with thermal counts as intensities, and all of their placements.

    :param notes: takes what is to be said of pixels that hold no measurement.
    :param names: of the sources in messages, where they have others.
    :param edge: pixels of the first one over which others fade out around those.
    :raises FusionInputError: one is no array or no thermal image, or a placement does not fit.
    """
    count = len(arrays)
    for what, values in (('ranges', ranges), ('placements', placements)):
        if len(values) > count:
            raise FusionInputError(f'{len(values)} {what} for {count} sources: give one for each')
    for index, array in enumerate(arrays):
        if not isinstance(array, np.ndarray):
            raise FusionInputError(
                f'{source_name(index)} is {type(array).__name__}, but fuse() takes arrays: call '
                'fuser(visible, thermal), which also takes paths, PIL images and tensors'
            )
        if np.ma.is_masked(array):
            raise FusionInputError(
                f'{source_name(index)} is a masked array: convert it to floats, with NaN where '
                'nothing was measured'
            )
    # Values that others are compared with are beyond the range of float16.
    images = [x.astype(np.float32) if x.dtype == np.float16 else x for x in arrays]
    placed = [*placements, *[None] * (count - len(placements))]
    for index, image in enumerate(images):
        range_ = ranges[index] if index < len(ranges) else None
        name = names[index] if names else source_name(index)
        if range_ is not None or (index and holds_counts(image)):
            levels, found = _intensities(image, range_ or ThermalRange(), stamp, name)
        elif index and image.ndim == 2 and image.dtype == np.uint8:
            levels, found = image, find_no_data(image)
        else:
            continue
        if found is not None:
            levels = filled(levels, found.mask).astype(levels.dtype)
            if notes is not None:
                fate = () if index else ('filled from around it where it is small',)
                notes += found.sentences(name, *fate)
            if index and images[0].ndim > 1 and images[0].size:
                first = images[0].shape[1], images[0].shape[0]
                placement = placed[index]
                if placement is not None:
                    _check_fits(placement, levels, (first[1], first[0]), name)
                placed[index] = placement_of_data(found.mask, placement, first, edge)
        images[index] = levels
    return images, placed


def _intensities(
    image: NDArray[Any], range_: ThermalRange, stamp: float | None, name: str
) -> tuple[NDArray[np.float32], NoData | None]:
    """Return thermal counts mapped to [0, 1], and where they hold no measurement."""
    if stamp is None:
        range_.reset()
    try:
        levels = range_(image[..., 0] if image.shape[2:] == (1,) else image, stamp or 0.0)
    except ThermalRangeError as error:
        raise FusionInputError(f'{name}: {error}') from error
    return levels, range_.no_data


def holds_counts(image: NDArray[Any]) -> bool:
    """Return whether a source that is not the first one holds what a thermal camera measured."""
    if image.size == 0 or not (image.ndim == 2 or image.shape[2:] == (1,)):
        return False
    if image.dtype.kind == 'f':
        # What is hardly beyond [0, 1] was meant to be within; also True with NaN.
        return not (image.min() >= -1 and image.max() <= 2)
    return image.dtype.kind in 'iu' and image.dtype.itemsize > 1


def source_name(index: int) -> str:
    return ('visible', 'thermal')[index] if index < 2 else f'source {index + 1}'


def checked_sources(
    arrays: Sequence[NDArray[Any]],
    placements: Sequence[Placement | None],
    trust: Sequence[float],
) -> list[Source]:
    """Check the sources; placements and trust may be given for fewer."""
    count = len(arrays)
    if len(trust) > count:
        raise FusionInputError(f'{len(trust)} trust for {count} sources: give one for each')
    if not all(0 <= value <= 1 for value in trust):
        raise FusionInputError(f'trust is {tuple(trust)}: every value must be 0 to 1')
    sources: list[Source] = []
    for index, array in enumerate(arrays):
        name = source_name(index)
        pixels, full_scale = _checked(array, name)
        placement = placements[index] if index < len(placements) else None
        if placement is not None:
            first = sources[0].pixels if sources else pixels
            _check_fits(placement, pixels, (first.shape[0], first.shape[1]), name)
        how_far = trust[index] if index < len(trust) else 1.0
        sources.append(Source(pixels, full_scale, placement, how_far))
    return sources


def _checked(array: NDArray[Any], name: str) -> tuple[NDArray[Any], float]:
    """Check an image; return it as :class:`Source` holds it, and its full scale."""
    array = np.asarray(array)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    channels = 1 if array.ndim == 2 else array.shape[2] if array.ndim == 3 else 0
    if channels not in (1, 3) or 0 in array.shape:
        raise FusionInputError(
            f'{name} has shape {array.shape}: expected (H, W) or (H, W, 3) and no empty side'
        )
    full_scale = {'uint8': 255.0, 'uint16': 65535.0}.get(array.dtype.name)
    if full_scale is not None:
        return array, full_scale
    if not np.issubdtype(array.dtype, np.floating):
        raise FusionInputError(
            f'{name} has dtype {array.dtype}: expected uint8, uint16 or float in [0, 1]; map '
            'other numbers before, such as thermal counts with ranges'
        )
    array = array.astype(np.float32, copy=False)
    low, high = array.min(), array.max()
    if not (low >= 0 and high <= 1):  # also when either is NaN
        raise FusionInputError(
            f'{name} has values from {low:g} to {high:g}: floats must be finite and in [0, 1]; '
            'temperatures and counts become that by a ThermalRange among ranges'
        )
    return array, 1.0


def measured_sources(
    sources: Sequence[Source],
    degradations: Sequence[Degradation],
    known: Sequence[SensorNoise | None],
) -> list[Source]:
    """Return the sources without stripes, sharpened, stretched, and with their white noise."""
    if len(known) > len(sources):
        raise FusionInputError(
            f'{len(known)} noises for {len(sources)} sources: give one for each'
        )
    measured = []
    for index, (source, degradation) in enumerate(zip(sources, degradations, strict=True)):
        stripes, contrast = degradation.stripes, degradation.contrast
        white, blur = degradation.noise is None, degradation.blur is None
        noise = known[index] if index < len(known) else None
        pixels, full_scale = source.pixels, source.full_scale
        if source.trust == 0 or not (stripes or contrast or blur or degradation.noise != 0):
            measured.append(source)
            continue
        if noise is None:
            noise = measure_noise(
                pixels,
                full_scale=full_scale,
                white=white,
                stripes=stripes,
                contrast=contrast,
                blur=blur,
            )
        if stripes and pixels.ndim == 2:
            _check_stripes(noise.stripes, pixels, index)
            pixels = without_stripes(pixels, noise.stripes, full_scale=full_scale)
        level, sharpness, enlargement = noise.white, 1.0, 1.0
        if degradation.noise is not None:
            deviation = degradation.noise * (LUMA_NOISE if pixels.ndim == 3 else 1)
            level = CameraNoise(read=deviation, deviation=deviation)
        if blur and pixels.ndim == 2:
            factor = _enlargement(source, sources[0]) / degradation.factor
            sharpness = noise.blur.sharpness(factor)
            if noise.blur.is_none:
                enlargement = factor
            elif level.deviation < NOISY:
                pixels, full_scale = deblurred(pixels, noise.blur, full_scale=full_scale)
        if contrast and pixels.ndim == 2:
            pixels, full_scale = stretched(pixels, noise.contrast, full_scale=full_scale)
            level = noise.contrast.of_noise(level)
        measured.append(
            replace(
                source,
                pixels=pixels,
                full_scale=full_scale,
                noise=level,
                sharpness=sharpness,
                enlargement=enlargement,
            )
        )
    return measured


def _enlargement(source: Source, first: Source) -> float:
    """Return how many pixels of the first source, along a side, a pixel of another one covers."""
    rows, columns = source.pixels.shape[:2]
    if source.placement is not None:
        return source.placement.enlargement(rows, columns)
    height, width = first.pixels.shape[:2]
    return math.sqrt(height * width / (rows * columns))


def _check_stripes(stripes: Stripes, pixels: NDArray[Any], index: int) -> None:
    height, width = pixels.shape
    for what, offsets, count in (
        ('columns', stripes.column_offsets, width),
        ('rows', stripes.row_offsets, height),
    ):
        if offsets is not None and offsets.shape != (count,):
            raise FusionInputError(
                f'the noise of source {index + 1} has stripes of {len(offsets)} {what}, but the '
                f'image has {count}: give the noise of images of this size'
            )


def _check_fits(
    placement: Placement, array: NDArray[Any], first: tuple[int, int], name: str
) -> None:
    """Check that a placement is for an image and for the (height, width) of the first source."""
    size = (array.shape[1], array.shape[0])
    if placement.source_size != size or placement.coverage.shape != first:
        rows, columns = placement.coverage.shape
        raise FusionInputError(
            f'the placement of {name} is for {placement.source_size[0]}x'
            f'{placement.source_size[1]} pixels on {columns}x{rows}, but the image has '
            f'{size[0]}x{size[1]} and the first one {first[1]}x{first[0]}'
        )
