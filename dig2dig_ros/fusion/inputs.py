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
Images as people have them (files, arrays, PIL images, tensors, batches) to arrays of sources.

What comes out is what :meth:`Fuser.fuse` takes: arrays in blue-green-red order, thermal counts
mapped to intensities, and where each image lies on the first one.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
import os
from pathlib import Path
import sys
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dig2dig_ros.fusion.sources import FusionInputError, holds_counts, mapped, source_name
from dig2dig_ros.images.bit_depth import BitDepth
from dig2dig_ros.images.encoded import EncodedImageError, MAX_PIXELS, refuse_large
from dig2dig_ros.images.geometry import RegistrationError, size_of, stretch_text
from dig2dig_ros.images.image_pairs import (
    has_colour,
    ImagePairError,
    looks_like_palette,
    NO_PALETTE,
    read_photograph,
    same_picture,
    to_grey,
)
from dig2dig_ros.images.placement import Placement
from dig2dig_ros.images.registration import Registration, SOFT_EDGE
from dig2dig_ros.images.registration_file import load_registration
from dig2dig_ros.images.thermal_range import ThermalRange, ThermalRangeError, without_rows
from dig2dig_ros.images.video import VIDEO_SUFFIXES

_PIL_MODES = 'L, I;16, I, F, RGB, RGBA, LA or P'
_SWAP = 'if the first image is the thermal one, swap them'


class PilImage(Protocol):
    """What is used of a ``PIL.Image.Image``, which need not be installed."""

    @property
    def mode(self) -> str:
        """Return the names of the channels."""

    @property
    def size(self) -> tuple[int, int]:
        """Return (width, height)."""


Image: TypeAlias = 'NDArray[Any] | Tensor | PilImage | str | os.PathLike[str]'
"""
An image as :class:`Fuser` takes it.

- An array is (H, W), (H, W, 1), (H, W, 3) blue-green-red or (H, W, 4) with alpha, which is left
  out, as OpenCV has them.
- A path is that of a JPEG, PNG, TIFF, WebP, BMP or PNM file of 8 or 16 bits.
- A PIL image is RGB, and turned as its EXIF data say.
- A tensor is (C, H, W) red-green-blue or (H, W), as torchvision and kornia have them, of any
  device.
"""


Registered: TypeAlias = Registration | Placement | str | os.PathLike[str] | None
"""Where the thermal image lies on the visible one, or the file that says so; None all over it."""

Others: TypeAlias = Literal['thermal', 'photographs', 'either']
"""
What the images behind the first one are.

- Those of thermal cameras are grey; 16 bits are counts.
- Of photographs, any may have colour, and 16 bits are no counts.
- Where nobody has said it, those with colour are photographs, and those without are thermal.
"""


@dataclass(frozen=True)
class Inputs:
    """
    What :meth:`Fuser.fuse` takes.

    :param images: one for each source.
    :param placements: where the pixels of the first one lie in each; None where all over it.
    :param notes: see :class:`~dig2dig_ros.fusion.result.FusionResult`.
    """

    images: tuple[NDArray[Any], ...]
    placements: tuple[Placement | None, ...]
    notes: tuple[str, ...]


class InputReader:
    """
    Makes images of one scene ready for the fusion.

    Keeps, from one pair of a sequence to the next, the range of the thermal counts and how many
    bits the visible camera uses. Not thread-safe.

    :param others: what the images behind the first one are.
    :param registration: where the thermal image lies on the visible one, or the path of a file
        that says so.
    :param thermal_range: maps thermal images; default: what holds counts, as the node does.
    :param thermal_crop: rows at the top and bottom of the thermal image that are no image.
    :param edge: pixels of the visible image over which the thermal one fades out.
    :param advice: what to do with a photograph that is taken for a thermal image, for messages.
    :raises FusionInputError: the registration or the crop cannot be used.
    """

    def __init__(
        self,
        others: Others = 'thermal',
        registration: Registered = None,
        thermal_range: ThermalRange | None = None,
        thermal_crop: Sequence[int] = (0, 0),
        *,
        edge: float = SOFT_EDGE,
        advice: str = "for two photographs, set chroma='all'",
    ) -> None:
        self._others = others
        self._registration, self._placement = _registered(registration, edge)
        self._range = thermal_range
        self._crop = tuple(thermal_crop)
        if len(self._crop) != 2 or min(self._crop) < 0:
            raise FusionInputError(
                f'thermal_crop is {self._crop}, but must be (top, bottom), in rows from 0'
            )
        self._edge = edge
        self._advice = advice
        self._ranges: dict[int, ThermalRange] = {}
        self._depths: dict[int, BitDepth] = {}

    def __call__(
        self,
        images: Sequence[object],
        stamp: float | None = None,
        place: str = '',
        names: Sequence[str] = (),
    ) -> Inputs:
        """
        Read one image of each source.

        :param stamp: time in s, by which the range of thermal counts follows the scene; None for
            images that are no sequence.
        :param place: in a batch or sequence, for error messages, such as '[3]'.
        :param names: of the images in messages, where they have others than visible and thermal.
        :raises FusionInputError: one cannot be used; the message says which, why, and what to do.
        """
        if stamp is None:
            self._depths.clear()
        called = names or [source_name(index) + place for index in range(len(images))]
        notes: list[str] = []
        arrays: list[NDArray[Any]] = []
        ranges: list[ThermalRange | None] = []
        for index, (image, name) in enumerate(zip(images, called, strict=True)):
            array = as_array(image, name)
            if index and self._others != 'photographs':
                array = self._without_colour(array, index, name, arrays[0])
            is_thermal = index > 0 and self._others != 'photographs' and array.ndim == 2
            if index == 1 and is_thermal:
                try:
                    array = without_rows(array, self._crop)
                except ThermalRangeError as error:
                    raise FusionInputError(f'{name}: {error}') from error
            if self._others == 'photographs' and array.dtype == np.uint16:
                # Bits that are not used say how dark it is; and floats are not taken for counts.
                array = array / np.float32(65535)
            elif not is_thermal and array.dtype == np.uint16:
                depth = self._depths.setdefault(index, BitDepth())
                array = depth.full_scale(array)
                if depth.bits < 16:
                    notes.append(f'{name} uses {depth.bits} of 16 bits and is scaled accordingly')
            arrays.append(array)
            ranges.append(self._range_of(index, array) if is_thermal else None)
        if self._registration is not None:
            try:
                self._registration.check_sizes(*map(size_of, arrays[:2]))
            except RegistrationError as error:
                raise FusionInputError(f'the images cannot be registered: {error}') from error
        placements = (None, self._placement)[: len(arrays)]
        for index, array in enumerate(arrays):
            if index and (index != 1 or self._placement is None):
                notes += _resized(array, arrays[0], called[index])
        arrays, placed = mapped(arrays, placements, ranges, stamp, notes, names, self._edge)
        for array, name in zip(arrays[1:], called[1:], strict=True):
            if self._others == 'either' and array.ndim == 3 and _is_grey(arrays[0]):
                notes.append(
                    f'{name} has colour and {called[0]} has none: they are fused as photographs; '
                    f'{_SWAP}'
                )
            if same_picture(arrays[0], array):
                notes.append(f'{name} is the same image as {called[0]}')
        return Inputs(tuple(arrays), tuple(placed), tuple(notes))

    def _without_colour(
        self, array: NDArray[Any], index: int, name: str, first: NDArray[Any]
    ) -> NDArray[Any]:
        """
        Return an image that has no colour with one channel, and others as they are.

        :raises FusionInputError: it has colour and must not, or has false colours.
        """
        if array.ndim == 2 or array.shape[2] != 3 or array.dtype.kind not in 'uf':
            return array
        levels = array
        if array.dtype.kind == 'f':
            array = array.astype(np.float32)
            levels = np.rint(np.clip(np.nan_to_num(array), 0, 1) * 255).astype(np.uint8)
        if not has_colour(levels):
            return to_grey(array)
        if (index == 1 and self._others == 'thermal') or looks_like_palette(levels):
            advice = f'{_SWAP}; {self._advice}' if _is_grey(first) else self._advice
            raise FusionInputError(f'{name}: {NO_PALETTE}; {advice}')
        return array

    def _range_of(self, index: int, array: NDArray[Any]) -> ThermalRange | None:
        """Return what maps a thermal image; None where it is to be taken as it is."""
        if array.ndim != 2 or (self._range is None and not holds_counts(array)):
            return None
        if index not in self._ranges:
            self._ranges[index] = ThermalRange() if self._range is None else copy(self._range)
        return self._ranges[index]


def _is_grey(image: NDArray[Any]) -> bool:
    return image.ndim == 2 or bool((image == image[..., :1]).all())


def as_array(image: object, name: str) -> NDArray[Any]:
    """
    Return an image as an array: (H, W) or (H, W, 3) blue-green-red, of any numeric type.

    :param image: see :data:`Image`.
    :param name: of the source, for error messages.
    :raises FusionInputError: it is none, or cannot be read.
    """
    if isinstance(image, np.ndarray):
        array = image
    elif isinstance(image, (str, os.PathLike)):
        array = _from_file(Path(image), name)
    elif isinstance(image, Tensor):
        array = _from_tensor(image, name)
    elif _is_pil(image):
        array = _from_pil(image, name)
    else:
        raise FusionInputError(_no_image(image, name))
    if array.ndim not in (2, 3) or 0 in array.shape:
        raise FusionInputError(
            f'{name} has shape {array.shape}: expected (H, W) or (H, W, 3) and no empty side'
        )
    if array.ndim == 3 and array.shape[2] == 4:
        array = array[..., :3]
    return array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array


def split_batches(images: Sequence[object]) -> list[tuple[object, ...]] | None:
    """
    Return the pairs of a batch; None where the images are single ones.

    A batch is a list or a tuple of images, an array (N, H, W, C) or (N, H, W), or a tensor
    (N, C, H, W) or (N, H, W).

    :param images: one, or one batch, of each source.
    :raises FusionInputError: some are batches and some are not, or of different lengths, or an
        array may be an image with its channels first.
    """
    kinds = [kind_of(image) for image in images]
    if 'batch' not in kinds:
        for index, kind in enumerate(kinds):
            if kind == 'either':
                shape = getattr(images[index], 'shape', ())
                raise FusionInputError(
                    f'{source_name(index)} has shape {tuple(shape)}, which may be an image with '
                    'its channels first or a batch of grey images: transpose the image to '
                    '(H, W, C), or pass the batch as a list'
                )
        return None
    batches: list[Sequence[object]] = []
    for index, (image, kind) in enumerate(zip(images, kinds, strict=True)):
        if kind == 'image':
            raise FusionInputError(
                f'{source_name(index)} is one image, but another source is a batch: pass a batch '
                'of each'
            )
        batches.append(image if isinstance(image, (list, tuple)) else list(image))  # type: ignore[call-overload]
    lengths = [len(batch) for batch in batches]
    if len(set(lengths)) != 1 or not lengths[0]:
        sizes = ', '.join(f'{source_name(i)} has {length}' for i, length in enumerate(lengths))
        raise FusionInputError(
            f'a batch needs the same number of images of each source, 1 or more: {sizes}'
        )
    return list(zip(*batches, strict=True))


def kind_of(image: object) -> Literal['image', 'batch', 'either']:
    """Return what an argument is; either where its shape does not say."""
    if isinstance(image, (list, tuple)):
        return 'batch'
    if isinstance(image, Tensor):
        single = image.ndim < 3 or (image.ndim == 3 and image.shape[0] in (1, 3, 4))
        return 'image' if single else 'batch'
    if not isinstance(image, np.ndarray) or image.ndim < 3:
        return 'image'
    if image.ndim > 3:
        return 'batch'
    if image.shape[2] in (1, 3, 4):
        return 'image'
    return 'either' if image.shape[0] in (1, 3) else 'batch'


def _no_image(image: object, name: str) -> str:
    """Return why what is no image is refused, and what to do."""
    if image is None:
        return (
            f'{name} is None: cv2.imread returns None where it cannot read the file, so check the '
            'path'
        )
    if hasattr(image, '__next__'):
        return f'{name} is a generator: call fuse_many(visible, thermal), which goes through it'
    return (
        f'{name} is of type {type(image).__name__}, not an image: pass an array, a path, a PIL '
        'image or a tensor'
    )


def _from_file(path: Path, name: str) -> NDArray[Any]:
    if path.is_dir():
        raise FusionInputError(
            f'{name}: {path} is a folder: call fuse_many(visible, thermal) for two folders'
        )
    if path.suffix.lower() in VIDEO_SUFFIXES:
        raise FusionInputError(
            f'{name}: {path} is a video: call fuse_video(visible, thermal, output) for two videos'
        )
    try:
        return read_photograph(path)
    except ImagePairError as error:
        raise FusionInputError(f'{name}: {error}') from error


def _from_tensor(tensor: Tensor, name: str) -> NDArray[Any]:
    tensor = tensor.detach().cpu()
    if tensor.is_floating_point():
        tensor = tensor.float()
    array = tensor.numpy()
    if array.ndim == 2:
        return array
    if array.ndim != 3 or array.shape[0] not in (1, 3, 4):
        raise FusionInputError(
            f'{name} is a tensor of shape {tuple(tensor.shape)}: expected (C, H, W) with 1 or 3 '
            'channels, red-green-blue, or (H, W)'
        )
    # Blue, green, red, and channels last.
    return np.ascontiguousarray(np.moveaxis(array[:3][::-1], 0, -1))


def _is_pil(image: object) -> bool:
    # Nobody has one who has not imported it.
    pil = sys.modules.get('PIL.Image')
    return pil is not None and isinstance(image, pil.Image)


def _from_pil(image: Any, name: str) -> NDArray[Any]:
    from PIL import ImageOps

    try:
        # An opened file is decoded only now.
        refuse_large(image.width, image.height, MAX_PIXELS)
        if image.format == 'EPS':
            raise EncodedImageError('EPS is a program: convert it to PNG')
        image = ImageOps.exif_transpose(image)
        mode = str(image.mode)
        if mode in ('RGB', 'RGBA', 'P', 'PA'):
            return np.ascontiguousarray(np.asarray(image.convert('RGB'))[..., ::-1])
        if mode == 'LA':
            return np.asarray(image.convert('L'))
        if mode in ('L', 'F', 'I') or mode.startswith('I;16'):
            array = np.asarray(image)
            if array.dtype == np.int32 and array.min() >= 0 and array.max() <= 65535:
                # How older versions of Pillow open 16 bits.
                return array.astype(np.uint16)
            return array.astype(array.dtype.newbyteorder('='))
    except Exception as error:  # each of Pillow's decoders has its own
        raise FusionInputError(f'{name} is a PIL image that cannot be read: {error}') from error
    raise FusionInputError(
        f'{name} is a PIL image of mode {mode}: expected {_PIL_MODES}; convert it with '
        "image.convert('RGB')"
    )


def _registered(
    registration: Registered, edge: float
) -> tuple[Registration | None, Placement | None]:
    if registration is None or isinstance(registration, Placement):
        return None, registration
    if not isinstance(registration, (str, os.PathLike, Registration)):
        raise FusionInputError(
            f'registration is of type {type(registration).__name__}: pass the path of a file that '
            'calibrate writes, or a Registration'
        )
    try:
        if not isinstance(registration, Registration):
            registration = load_registration(Path(registration))
        return registration, registration.placement(edge)
    except RegistrationError as error:
        raise FusionInputError(f'the images cannot be registered: {error}') from error


def _resized(image: NDArray[Any], first: NDArray[Any], name: str) -> list[str]:
    """Return what is to be said of an image that has another size than the first one."""
    size, onto = size_of(image), size_of(first)
    if size == onto or 0 in (*size, *onto):
        return []
    text = f'{name} has {size[0]}x{size[1]} pixels and is resized to {onto[0]}x{onto[1]}'
    stretched = stretch_text(size, onto)
    return [text, f'of {name}, {stretched}'] if stretched else [text]
