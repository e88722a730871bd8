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
Pairs of visible and thermal images in a directory.

Two layouts are known: two sub-folders of images with the same names, one for each camera, and
one folder of NAME_A and NAME_B, A being the visible image.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

# Where a folder holds one name twice, the earlier suffix wins: rather without loss.
_SUFFIXES = ('.png', '.tif', '.tiff', '.bmp', '.pgm', '.ppm', '.webp', '.jpg', '.jpeg')
_VISIBLE_FOLDERS = ('visible', 'vis', 'vi', 'rgb', 'color', 'colour')
_THERMAL_FOLDERS = ('thermal', 'infrared', 'ir', 'inf', 'tir', 'lwir')
_VISIBLE_ENDING, _THERMAL_ENDING = '_a', '_b'


class ImagePairError(ValueError):
    """There are no pairs, or an image cannot be read; the text says where and what is wrong."""


@dataclass(frozen=True)
class ImagePair:
    """
    Two images of one scene.

    :param name: the common part of their file names.
    :param visible: path of the visible image.
    :param thermal: path of the thermal image.
    """

    name: str
    visible: Path
    thermal: Path


def find_pairs(directory: str | Path) -> list[ImagePair]:
    """
    Return the pairs in a directory, sorted by name.

    Folders may be named visible, vis, vi, rgb, color or colour, and thermal, infrared, ir, inf,
    tir or lwir, in upper or lower case. The suffixes of a pair may differ.

    :raises ImagePairError: the directory is missing or holds no pair.
    """
    visible, thermal, place = _sources(Path(directory))
    names = sorted(visible.keys() & thermal.keys())
    if not names:
        raise ImagePairError(
            f'no pairs in {directory}: {place} hold {len(visible)} visible and {len(thermal)} '
            f'thermal images ({", ".join(_SUFFIXES)}), but no two of one name'
        )
    return [ImagePair(name, visible[name], thermal[name]) for name in names]


def unpaired(directory: str | Path) -> list[str]:
    """
    Return the images of a directory that have no counterpart, as paths relative to it, sorted.

    :raises ImagePairError: the directory is missing, or laid out in neither known way.
    """
    directory = Path(directory)
    visible, thermal, _ = _sources(directory)
    alone = [visible[name] for name in visible.keys() - thermal.keys()]
    alone += [thermal[name] for name in thermal.keys() - visible.keys()]
    return sorted(path.relative_to(directory).as_posix() for path in alone)


def load_pair(pair: ImagePair) -> tuple[NDArray[np.uint8], NDArray[Any]]:
    """
    Read both images as the sensors have them (no EXIF rotation).

    :return: visible (H, W, 3) uint8 in blue-green-red order, thermal (H, W) uint8 or uint16; a
        thermal image that was saved in colour is reduced to its luma.
    :raises ImagePairError: one cannot be read, or the thermal image is neither 8 nor 16 bits.
    """
    visible = _read(pair.visible, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    # Unchanged keeps 16 bits, and ignores the orientation too.
    thermal = _read(pair.thermal, cv2.IMREAD_UNCHANGED)
    if thermal.dtype not in (np.uint8, np.uint16):
        raise ImagePairError(f'{pair.thermal} holds {thermal.dtype}, but must have 8 or 16 bits')
    if thermal.ndim == 3:
        channels = thermal.shape[2]
        if channels == 3:
            thermal = cv2.cvtColor(thermal, cv2.COLOR_BGR2GRAY)
        elif channels == 4:
            thermal = cv2.cvtColor(thermal, cv2.COLOR_BGRA2GRAY)
        else:
            # Grey, perhaps with transparency.
            thermal = np.ascontiguousarray(thermal[:, :, 0])
    return visible, thermal


def _read(path: Path, flags: int) -> NDArray[Any]:
    try:
        image: NDArray[Any] | None = cv2.imread(str(path), flags)
    except cv2.error as error:
        raise ImagePairError(f'cannot read {path}: {error}') from error
    if image is None:
        reason = 'not an image that OpenCV knows' if path.is_file() else 'no such file'
        raise ImagePairError(f'cannot read {path}: {reason}')
    return image


def _sources(directory: Path) -> tuple[dict[str, Path], dict[str, Path], str]:
    """
    Return visible and thermal images by name, and words for where they were looked for.

    :raises ImagePairError: the directory is missing, or laid out in neither known way.
    """
    if not directory.is_dir():
        reason = 'is a file' if directory.exists() else 'does not exist'
        raise ImagePairError(f'no pairs in {directory}: it {reason}')
    folders = {path.name.lower(): path for path in sorted(directory.iterdir()) if path.is_dir()}
    visible = next((folders[name] for name in _VISIBLE_FOLDERS if name in folders), None)
    thermal = next((folders[name] for name in _THERMAL_FOLDERS if name in folders), None)
    if visible is not None and thermal is not None:
        place = f'its folders {visible.name} and {thermal.name}'
        return _images(visible), _images(thermal), place

    images = _images(directory)
    by_ending: list[dict[str, Path]] = []
    for ending in (_VISIBLE_ENDING, _THERMAL_ENDING):
        cut = len(ending)
        by_ending.append({n[:-cut]: p for n, p in images.items() if n.lower().endswith(ending)})
    if not any(by_ending):
        raise ImagePairError(
            f'no pairs in {directory}: looked for two folders of images with the same names '
            f'({_VISIBLE_FOLDERS[0]} and {_THERMAL_FOLDERS[0]}, or '
            f'{"/".join(_VISIBLE_FOLDERS[1:])} and '
            f'{"/".join(_THERMAL_FOLDERS[1:])}), and for images NAME_A and NAME_B'
        )
    return by_ending[0], by_ending[1], 'its images NAME_A and NAME_B'


def _images(folder: Path) -> dict[str, Path]:
    """Return the images of a folder by their names without suffix."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        suffix = path.suffix.lower()
        if suffix not in _SUFFIXES or not path.is_file() or path.name.startswith('.'):
            continue
        other = found.get(path.stem)
        if other is None or _SUFFIXES.index(suffix) < _SUFFIXES.index(other.suffix.lower()):
            found[path.stem] = path
    return found
