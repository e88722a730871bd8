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
Pairs of images in a folder: visible and thermal, or of other tasks.

Two layouts are known: two folders of images with the same names, and one folder of NAME_A and
NAME_B, or NAME-A and NAME-B. The two folders may hold others in place of images, such as
``visible/train`` and ``infrared/train``. The first image of a pair is called visible and the
second thermal, even if they differ in focus or exposure instead.

All images are rotated as their files say (EXIF), as in viewers, labels and most data sets; for
TIFF, OpenCV always does that. Messages are not: their pixels are those of the sensor, which
camera_info and registrations refer to.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dig2dig_ros.errors import Refusal
from dig2dig_ros.images.bit_depth import BitDepth
from dig2dig_ros.images.encoded import EncodedImageError, read_image
from dig2dig_ros.images.luma import LUMA_BGR
from dig2dig_ros.images.thermal_range import without_rows

# If a folder has a name twice, the earlier suffix wins: lossless ones first.
_SUFFIXES = ('.png', '.tif', '.tiff', '.bmp', '.pgm', '.ppm', '.webp', '.jpg', '.jpeg')
_VISIBLE_FOLDERS = ('visible', 'vis', 'vi', 'rgb', 'color', 'colour')
_THERMAL_FOLDERS = ('thermal', 'infrared', 'ir', 'inf', 'tir', 'lwir')
# Common names of the folders of other tasks: two only count together, with images in both.
_OTHER_FOLDERS = (('a', 'b'), ('near', 'far'), ('over', 'under'), ('source_1', 'source_2'))
_ENDINGS = (('_a', '_b'), ('-a', '-b'))
# By how many of 255 levels the channels of a coloured pixel differ, and what fraction of all
# pixels must be coloured: more than grey after lossy compression, less than dark photographs.
_COLOURED_LEVELS = 8
_COLOURED_SHARE = 0.01
# Keeps bits and channels; IMREAD_UNCHANGED would ignore the orientation.
_AS_IT_IS = cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH
# A palette differs from a photograph: its colours lie on one line, so that the chroma of a pixel
# predicts its brightness, and leaves at most this part of the variance. Of 187 photographs in
# MEFB, MFFW and six data sets of streets, one is below it. Chroma is counted in steps of this
# many levels.
_UNEXPLAINED, _CHROMA_STEP = 0.07, 8
# Part of the pixels that must be coloured, by how many levels, and how much brightness varies.
_PALETTE_SHARE, _PALETTE_LEVELS, _LEAST_DEVIATION = 0.1, 40, 4.0
# Fewest and most colours of a palette if compression lost none: drawings have fewer.
_FEWEST_COLOURS, _MOST_COLOURS, _UNEXPLAINED_THEN = 16, 256, 0.15
_PALETTE_PIXELS = 40_000
# Two images are one if these many of their rows differ by no more than rounding, in grey levels,
# and are not all of one brightness.
_COMPARED_ROWS, _ROUNDING, _LEAST_CONTRAST = 32, 2, 8
NO_PALETTE = (
    'the thermal image looks like a colour palette (false colour): a palette is not intensity, so '
    'save white-hot grey or raw counts of 16 bits'
)


class ImagePairError(Refusal, ValueError):
    """There are no pairs, or an image cannot be read; the message says where and why."""


@dataclass(frozen=True)
class ImagePair:
    """
    Two images of one scene.

    :param name: the common part of their file names.
    :param visible: path of the visible image, or the first one.
    :param thermal: path of the thermal image, or the second one.
    """

    name: str
    visible: Path
    thermal: Path


def find_pairs(directory: str | Path) -> list[ImagePair]:
    """
    Return the pairs in a folder, sorted by name.

    Folders may be named visible, vis, vi, rgb, color or colour, and thermal, infrared, ir, inf,
    tir or lwir; for other tasks A and B, near and far, over and under, or source_1 and source_2;
    all of them in upper or lower case. If they hold no images, those in all their own folders are
    used. The first layout in this order that has pairs counts, NAME_A and NAME_B last.

    The suffixes of a pair may differ. If a name has several files, a lossless one is used, and for
    the second image one with the counts of a sensor: one channel of 16 bits.

    :raises ImagePairError: the folder does not exist or holds no pair.
    """
    visible, thermal, place = _sources(Path(directory))
    names = sorted(visible.keys() & thermal.keys())
    if not names:
        raise ImagePairError(
            f'no pairs in {directory}: {place} hold {len(visible)} visible and {len(thermal)} '
            f'thermal images ({", ".join(_SUFFIXES)}), but no two have the same name'
        )
    return [ImagePair(name, visible[name], thermal[name]) for name in names]


def pair_folders(visible: str | Path, thermal: str | Path) -> tuple[list[ImagePair], list[Path]]:
    """
    Pair the images of two folders by their names without suffix.

    As :func:`find_pairs` does once it has found the two folders.

    :return: the pairs, sorted by name, and the images without a counterpart.
    :raises ImagePairError: one is not a folder, or no two images have the same name.
    """
    for folder in map(Path, (visible, thermal)):
        if not folder.is_dir():
            reason = 'is a file' if folder.exists() else 'does not exist'
            raise ImagePairError(f'no images in {folder}: it {reason}')
    first, second = _images_of_two(Path(visible), Path(thermal))
    names = sorted(first.keys() & second.keys())
    if not names:
        raise ImagePairError(
            f'no pairs in {visible} ({len(first)} images) and {thermal} ({len(second)} images; '
            f'{", ".join(_SUFFIXES)}): no two have the same name'
        )
    alone = [first[name] for name in first.keys() - second.keys()]
    alone += [second[name] for name in second.keys() - first.keys()]
    return [ImagePair(name, first[name], second[name]) for name in names], sorted(alone)


def unpaired(directory: str | Path) -> list[str]:
    """
    Return the images in a folder that have no counterpart, as sorted relative paths.

    :raises ImagePairError: the directory is missing, or laid out in neither known way.
    """
    directory = Path(directory)
    visible, thermal, _ = _sources(directory)
    alone = [visible[name] for name in visible.keys() - thermal.keys()]
    alone += [thermal[name] for name in thermal.keys() - visible.keys()]
    return sorted(path.relative_to(directory).as_posix() for path in alone)


def load_pair(
    pair: ImagePair,
    *,
    thermal: bool = True,
    same_size: bool = False,
    thermal_crop: Sequence[int] = (0, 0),
) -> tuple[NDArray[np.uint8], NDArray[Any]]:
    """
    Read both images.

    :param thermal: the second image is a thermal one. Otherwise both are photographs, such as two
        focal planes or exposures, and read as viewers show them.
    :param same_size: refuse a pair whose images differ in size.
    :param thermal_crop: rows at the top and bottom of a thermal image that are not image.
    :return: with ``thermal``, visible (H, W, 3) uint8 in blue-green-red order, and thermal (H, W)
        uint8 or uint16; a grey thermal image that was saved in colour is reduced to its luma.
        Otherwise two uint8 images, (H, W) where both are grey, else (H, W, 3) in blue-green-red
        order; of 16 bits the full scale becomes 0 to 255.
    :raises ImagePairError: one cannot be read or has another number of bits, the thermal image
        has colour, or the sizes must not differ but do.
    :raises ThermalRangeError: nothing is left of the thermal image.
    """
    if thermal:
        first = _visible(pair.visible)
        second = _checked_depth(_read(pair.thermal, _AS_IT_IS), pair.thermal)
        if has_colour(second):
            raise ImagePairError(f'{pair.thermal}: {NO_PALETTE}')
        second = without_rows(to_grey(second), thermal_crop)
    else:
        first, second = _photograph(pair.visible), _photograph(pair.thermal)
        if first.ndim != second.ndim:
            first, second = (
                image if image.ndim == 3 else cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
                for image in (first, second)
            )
    if same_size and first.shape[:2] != second.shape[:2]:
        names = ('visible', 'thermal') if thermal else (str(pair.visible), str(pair.thermal))
        sizes = (f'{image.shape[1]}x{image.shape[0]}' for image in (first, second))
        of_each = ', '.join(f'{name} is {size}' for name, size in zip(names, sizes, strict=True))
        raise ImagePairError(
            f'pair {pair.name}: {of_each} pixels, but both must be registered and have one size'
        )
    return first, second


def second_is_colour(pair: ImagePair) -> bool:
    """
    Return whether the second image of a pair has colour, as no thermal image has.

    :raises ImagePairError: it cannot be read.
    """
    return has_colour(_read(pair.thermal, cv2.IMREAD_COLOR))


def has_colour(image: NDArray[Any]) -> bool:
    """
    Return whether an image has colour.

    A grey image that was saved in colour has none, nor do the slight tints of lossy compression
    count.

    :param image: (H, W), or (H, W, C) blue-green-red; uint8 or uint16.
    """
    if image.ndim == 2 or image.shape[2] < 3:
        return False
    levels = _COLOURED_LEVELS * (257 if image.dtype == np.uint16 else 1)
    return float((_spread(image) > levels).mean()) > _COLOURED_SHARE


def _spread(image: NDArray[Any]) -> NDArray[Any]:
    """Return how much the channels of each pixel differ."""
    blue, green, red = (image[:, :, channel] for channel in range(3))
    highest, lowest = (of(of(blue, green), red) for of in (np.maximum, np.minimum))
    return np.asarray(highest - lowest)


def looks_like_palette(image: NDArray[Any]) -> bool:
    """
    Return whether an image in colour is probably a thermal one in false colours, not a photograph.

    A palette such as jet or ironbow runs through the colours on one line. Colours that are nearly
    grey, and those of strong compression, may be missed.

    :param image: (H, W, 3) blue-green-red; uint8 or uint16.
    """
    if not has_colour(image):
        return False
    stride = max(1, int(np.sqrt(image.shape[0] * image.shape[1] / _PALETTE_PIXELS)))
    pixels = image[::stride, ::stride, :3]
    if pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    if float((_spread(pixels) > _PALETTE_LEVELS).mean()) < _PALETTE_SHARE:
        return False
    blue, green, red = (channel.ravel().astype(np.int32) for channel in cv2.split(pixels))
    luma = np.asarray(LUMA_BGR) @ np.stack([blue, green, red])
    if luma.std() < _LEAST_DEVIATION:
        return False
    steps = ((blue - green) // _CHROMA_STEP + 32) * 64 + (red - green) // _CHROMA_STEP + 32
    _, steps = np.unique(steps, return_inverse=True)
    count = np.bincount(steps)
    means = np.bincount(steps, luma) / count
    unexplained = float(np.mean((luma - means[steps]) ** 2) / luma.var())
    colours = np.unique((blue << 16) + (green << 8) + red).size
    if _FEWEST_COLOURS <= colours <= _MOST_COLOURS:
        return unexplained < _UNEXPLAINED_THEN
    return colours > _MOST_COLOURS and unexplained < _UNEXPLAINED


def same_picture(first: NDArray[Any], second: NDArray[Any]) -> bool:
    """
    Return whether two images are one, in colour or grey, and not of one brightness.

    :param first: (H, W) or (H, W, 3) blue-green-red; uint8, uint16, or float in [0, 1].
    :param second: likewise.
    """
    if first.shape[:2] != second.shape[:2]:
        return False
    stride = max(1, first.shape[0] // _COMPARED_ROWS)
    levels = []
    for image in (first, second):
        rows = np.ascontiguousarray(image[::stride])
        scale = {'u1': 1.0, 'u2': 1 / 257}.get(rows.dtype.str[1:], 255.0)
        levels.append(to_grey(rows.astype(np.float32) * np.float32(scale)))
    own, other = levels
    with np.errstate(invalid='ignore'):
        same = np.abs(own - other).max() <= _ROUNDING
    return bool(same and own.max() - own.min() >= _LEAST_CONTRAST)


def to_grey(image: NDArray[Any]) -> NDArray[Any]:
    """Reduce an image of any number of channels to one."""
    if image.ndim == 2:
        return image
    if image.shape[2] in (3, 4):
        return np.asarray(cv2.cvtColor(image[:, :, :3], cv2.COLOR_BGR2GRAY))
    # Grey, perhaps with transparency.
    return np.ascontiguousarray(image[:, :, 0])


def read_photograph(path: Path) -> NDArray[Any]:
    """
    Read an image as viewers show it: rotated by its EXIF data, without transparency.

    :return: uint8 or uint16; (H, W), also where it was saved in colour but has none, or
        (H, W, 3) blue-green-red.
    :raises ImagePairError: it cannot be read, or has neither 8 nor 16 bits.
    """
    image = _checked_depth(_read(path, _AS_IT_IS), path)
    if image.ndim == 3 and (image == image[:, :, :1]).all():
        image = np.ascontiguousarray(image[:, :, 0])
    return image


def _visible(path: Path) -> NDArray[np.uint8]:
    """Read a visible image in colour and 8 bits, of 16 from those that its camera uses."""
    image = _read(path, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    if image.dtype == np.uint16:
        return np.asarray(cv2.convertScaleAbs(image, alpha=255 / ((1 << BitDepth()(image)) - 1)))
    return image if image.dtype == np.uint8 else _read(path, cv2.IMREAD_COLOR)


def _photograph(path: Path) -> NDArray[np.uint8]:
    """Return an image as :func:`read_photograph` does, in 8 bits."""
    image = read_photograph(path)
    if image.dtype == np.uint16:
        # 65535 = 255 * 257; the sum stays within 32 bits.
        image = (image.astype(np.uint32) + 128) // 257
    return np.ascontiguousarray(image, dtype=np.uint8)


def _checked_depth(image: NDArray[Any], path: Path) -> NDArray[Any]:
    if image.dtype not in (np.uint8, np.uint16):
        raise ImagePairError(f'{path} holds {image.dtype}, but must have 8 or 16 bits')
    return image


def _read(path: Path, flags: int) -> NDArray[Any]:
    try:
        return read_image(path, flags)
    except EncodedImageError as error:
        raise ImagePairError(f'cannot read {path}: {error}') from error


def _sources(directory: Path) -> tuple[dict[str, Path], dict[str, Path], str]:
    """
    Return visible and thermal images by name, and a description of where they were searched.

    :raises ImagePairError: the directory is missing, or laid out in neither known way.
    """
    if not directory.is_dir():
        reason = 'is a file' if directory.exists() else 'does not exist'
        raise ImagePairError(f'no pairs in {directory}: it {reason}')
    folders = {path.name.lower(): path for path in sorted(directory.iterdir()) if path.is_dir()}
    layouts: list[tuple[dict[str, Path], dict[str, Path], str]] = []
    for names in ((_VISIBLE_FOLDERS, _THERMAL_FOLDERS), *(zip(names) for names in _OTHER_FOLDERS)):
        first, second = (next((folders[n] for n in own if n in folders), None) for own in names)
        if first is not None and second is not None:
            place = f'its folders {first.name} and {second.name}'
            layouts.append((*_images_of_two(first, second), place))
    for endings in _ENDINGS:
        first_images, second_images = (
            {name[:-2]: path for name, path in images.items() if name.lower().endswith(ending)}
            for images, ending in zip(
                (_images(directory), _images(directory, raw=True)), endings, strict=True
            )
        )
        described = ' and '.join(f'NAME{ending.upper()}' for ending in endings)
        layouts.append((first_images, second_images, f'its images {described}'))
    # The first layout with pairs, else one with images.
    for layout in sorted(layouts, key=lambda layout: not layout[0].keys() & layout[1].keys()):
        if layout[0] or layout[1]:
            return layout
    others = ', '.join(' and '.join(names) for names in _OTHER_FOLDERS)
    below = [path.name for path in folders.values() if _has_two_folders(path)]
    if below:
        raise ImagePairError(
            f'no pairs in {directory} itself, but perhaps in its folders: name one of '
            f'{", ".join(below)}'
        )
    raise ImagePairError(
        f'no pairs in {directory}: looked for two folders of images with the same names '
        f'({_VISIBLE_FOLDERS[0]} and {_THERMAL_FOLDERS[0]}, or '
        f'{"/".join(_VISIBLE_FOLDERS[1:])} and {"/".join(_THERMAL_FOLDERS[1:])}, or {others}), '
        'and for images NAME_A and NAME_B'
    )


def _has_two_folders(directory: Path) -> bool:
    """Return whether a folder has one for each camera."""
    names = {path.name.lower() for path in directory.iterdir() if path.is_dir()}
    return not (names.isdisjoint(_VISIBLE_FOLDERS) or names.isdisjoint(_THERMAL_FOLDERS))


def _images_of_two(first: Path, second: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    """Return the images of two folders by name, or where there are none, of their own folders."""
    here = _images(first), _images(second, raw=True)
    if any(here):
        return here
    (below, names), (second_below, second_names) = (
        _images_below(folder, raw) for folder, raw in ((first, False), (second, True))
    )
    # A name that comes twice needs its folder, in both places.
    names |= second_names

    def told_apart(images: dict[tuple[str, str], Path]) -> dict[str, Path]:
        return {
            name if names[name] == 1 else f'{part}_{name}': path
            for (part, name), path in images.items()
        }

    return told_apart(below), told_apart(second_below)


def _images_below(folder: Path, raw: bool) -> tuple[dict[tuple[str, str], Path], Counter[str]]:
    """Return the images by (folder, name), and how often each name comes."""
    found = {
        (part.name, name): path
        for part in sorted(folder.iterdir())
        if part.is_dir()
        for name, path in _images(part, raw).items()
    }
    return found, Counter(name for _, name in found)


def _images(folder: Path, raw: bool = False) -> dict[str, Path]:
    """
    Return the images of a folder by their names without suffix.

    :param raw: of several files of one name, one of 16 bits and one channel is preferred.
    """
    found: dict[str, list[Path]] = {}
    for path in folder.iterdir():
        suffix = path.suffix.lower()
        if suffix in _SUFFIXES and path.is_file() and not path.name.startswith('.'):
            found.setdefault(path.stem, []).append(path)

    def order(path: Path) -> tuple[bool, int, str]:
        return raw and not _is_raw(path), _SUFFIXES.index(path.suffix.lower()), path.name

    return {
        name: paths[0] if len(paths) == 1 else min(paths, key=order)
        for name, paths in sorted(found.items())
    }


def _is_raw(path: Path) -> bool:
    """Return whether an image has one channel of 16 bits."""
    try:
        image = _read(path, cv2.IMREAD_UNCHANGED)
    except ImagePairError:
        return False
    return image.ndim == 2 and image.dtype == np.uint16
