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
Files of images (JPEG, PNG, TIFF, WebP, BMP, PNM) that may be anybody's, to arrays and back.

A few kilobytes can stand for gigabytes of pixels. So the size that a file states is read here,
strictly, before OpenCV sees it: what could be read in two ways is refused, and so is what turns
out to be of another size. OpenCV has a limit of its own, see ``dig2dig_ros/__init__.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
import re
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

MAX_PIXELS = 64_000_000
# A line of a million pixels is no image, and takes as much memory as one of sixteen lines.
LONGEST_SIDE = 16_384
_LARGEST_FILE = 1 << 30
# Each scan of a progressive JPEG goes over all pixels; encoders make about ten.
_MOST_SCANS = 100
# Texts and colour profiles of a PNG that are compressed: for each, libpng holds up to 8 MB.
_MOST_COMPRESSED_TEXTS = 16
# Comments in the header of a PNM included.
_LONGEST_PNM_HEADER = 1 << 16
# A decoder holds a whole tile of a TIFF, however small the image is.
_LARGEST_TILE = 1 << 24
KINDS = ('JPEG', 'PNG', 'TIFF', 'WebP', 'BMP', 'PNM')


class EncodedImageError(ValueError):
    """An image cannot be decoded; the text says what is wrong with it."""


@dataclass(frozen=True)
class Stated:
    """What an image says of itself: ``kind`` is such as 'JPEG', the rest is in pixels."""

    kind: str
    width: int
    height: int


def stated_size(data: bytes, kinds: Sequence[str] = KINDS) -> Stated:
    """
    Read kind and size of an image from its headers; no pixel is looked at.

    :param kinds: what it may be.
    :raises EncodedImageError: of no known kind, cut short, damaged, or of more than one reading.
    """
    for magic, kind, read in (
        (rb'\xff\xd8\xff', 'JPEG', _jpeg),
        (rb'\x89PNG\r\n\x1a\n', 'PNG', _png),
        (rb'II[*+]\0|MM\0[*+]', 'TIFF', _tiff),
        (rb'RIFF....WEBP', 'WebP', _webp),
        (rb'BM', 'BMP', _bmp),
        (rb'P[1-6]\s', 'PNM', _pnm),
    ):
        if kind in kinds and re.match(magic, data, re.DOTALL):
            size = read(data)
            if size is None or 0 in size:
                raise EncodedImageError(
                    f'the {kind} data is damaged or ends early: it does not state a size'
                )
            return Stated(kind, *size)
    raise EncodedImageError(f'its {len(data)} bytes are neither {" nor ".join(kinds)}')


def refuse_large(width: int, height: int, max_pixels: int) -> None:
    """
    Check a size.

    :raises EncodedImageError: it is beyond ``max_pixels`` or :data:`LONGEST_SIDE`.
    """
    if height * width > max_pixels:
        raise EncodedImageError(
            f'the size {width}x{height} is beyond the limit of {max_pixels} pixels'
        )
    if max(height, width) > LONGEST_SIDE:
        raise EncodedImageError(
            f'the size {width}x{height} is beyond {LONGEST_SIDE} pixels along a side'
        )


def decode_image(data: bytes, stated: Stated, flags: int, max_pixels: int) -> NDArray[Any]:
    """
    Decompress an image.

    :param stated: what :func:`stated_size` read from it.
    :param flags: of ``cv2.imread``.
    :param max_pixels: larger ones are refused before they are decompressed.
    :raises EncodedImageError: too large, damaged, or not of the size that it states.
    """
    refuse_large(stated.width, stated.height, max_pixels)
    try:
        image: NDArray[Any] | None = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except (cv2.error, MemoryError) as error:
        raise EncodedImageError(f'OpenCV cannot decompress it: {error}') from error
    if image is None:
        raise EncodedImageError(f'the {stated.kind} data is damaged')
    height, width = image.shape[:2]
    sizes = {(stated.width, stated.height)}
    if not flags & cv2.IMREAD_IGNORE_ORIENTATION:  # which is part of unchanged
        sizes.add((stated.height, stated.width))
    if (width, height) not in sizes:
        raise EncodedImageError(
            f'the {stated.kind} data states {stated.width}x{stated.height} pixels, but holds '
            f'{width}x{height}'
        )
    return image


def read_image(path: Path, flags: int, max_pixels: int = MAX_PIXELS) -> NDArray[Any]:
    """
    Read an image file, as ``cv2.imread`` does.

    :raises EncodedImageError: it cannot be read, or is refused; the text does not name the file.
    """
    try:
        if not path.exists():
            raise EncodedImageError('no such file')
        # A pipe or a device would be read for ever.
        if not path.is_file():
            raise EncodedImageError('it is not a file')
        if path.stat().st_size > _LARGEST_FILE:
            raise EncodedImageError(f'it has more than {_LARGEST_FILE >> 20} MiB')
        data = path.read_bytes()
    except OSError as error:
        raise EncodedImageError(error.strerror or str(error)) from error
    return decode_image(data, stated_size(data), flags, max_pixels)


def encode_image(suffix: str, image: NDArray[Any]) -> bytes:
    """
    Compress an image.

    :param suffix: names the format, such as ``.png``.
    :param image: (H, W) or (H, W, 3) blue-green-red; uint8, of some formats also uint16.
    :raises EncodedImageError: OpenCV cannot write this image in this format.
    """
    try:
        done, data = cv2.imencode(suffix, image)
    except cv2.error:
        done = False
    if not done:
        kind = 'colour' if image.ndim == 3 else 'grey'
        size = f'{image.shape[1]}x{image.shape[0]}'
        what = f'as {suffix}' if suffix else 'without a suffix'
        raise EncodedImageError(
            f'OpenCV cannot save a {kind} image of {size} pixels {what}; use .png, .tif or .jpg'
        )
    return bytes(data)


def write_image(path: Path, image: NDArray[Any]) -> None:
    """
    Write an image in the format that the suffix names.

    :raises EncodedImageError: OpenCV cannot write this image in this format.
    :raises OSError: the file cannot be written.
    """
    # cv2.imwrite() does not say why it fails.
    try:
        data = encode_image(path.suffix, image)
    except EncodedImageError as error:
        raise EncodedImageError(f'{path} cannot be written: {error}') from None
    path.write_bytes(data)


def _jpeg(data: bytes) -> tuple[int, int] | None:
    """
    Return (width, height) from the frame header (ITU-T T.81, B.2.2).

    :raises EncodedImageError: what stands before it can be skipped in more than one way, there
        are too many scans, or the end is missing.
    """
    position = 2
    while position + 9 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:
            position += 1
            continue
        if marker <= 0x01 or 0xD0 <= marker <= 0xDA:
            # These have no length (or are no headers): a decoder reads on right behind them, and
            # whoever takes the next bytes for a length meets other headers than it does.
            raise EncodedImageError(
                f'the JPEG data is damaged: a marker FF{marker:02X} stands among its headers'
            )
        length = int.from_bytes(data[position + 2 : position + 4], 'big')
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height = int.from_bytes(data[position + 5 : position + 7], 'big')
            width = int.from_bytes(data[position + 7 : position + 9], 'big')
            _check_jpeg_scans(data, position)
            return width, height
        if length < 2:
            return None
        position += 2 + length
    return None


def _check_jpeg_scans(data: bytes, begin: int) -> None:
    """Check what follows the frame header at ``begin``."""
    if data.count(b'\xff\xda', begin) > _MOST_SCANS:
        raise EncodedImageError(f'the JPEG data has more than {_MOST_SCANS} scans')
    # OpenCV 4 fills the missing part of a truncated JPEG with grey and calls it a success. A
    # thumbnail before the frame header has an end marker of its own.
    if data.rfind(b'\xff\xd9', begin) < 0:
        raise EncodedImageError('the JPEG data ends early: its end marker is missing')


def _png(data: bytes) -> tuple[int, int] | None:
    """
    Return (width, height) from the header chunk, which comes first (PNG, 11.2.2).

    :raises EncodedImageError: it has another one, is an animation, has too many texts, or its end
        is missing.
    """
    if data[8:16] != b'\0\0\0\rIHDR' or len(data) < 33:
        return None
    position, texts = 33, 0
    while position + 12 <= len(data):
        name = data[position + 4 : position + 8]
        if name == b'IEND':
            return int.from_bytes(data[16:20], 'big'), int.from_bytes(data[20:24], 'big')
        if name == b'IHDR':
            raise EncodedImageError('the PNG data is damaged: it has two headers')
        if name in (b'acTL', b'fcTL', b'fdAT'):
            raise EncodedImageError('the PNG data is an animation: give a single image')
        texts += name in (b'zTXt', b'iTXt', b'iCCP')
        if texts > _MOST_COMPRESSED_TEXTS:
            raise EncodedImageError(
                f'the PNG data has more than {_MOST_COMPRESSED_TEXTS} compressed texts'
            )
        position += 12 + int.from_bytes(data[position : position + 4], 'big')
    raise EncodedImageError('the PNG data ends early: its end marker is missing')


def _tiff(data: bytes) -> tuple[int, int] | None:
    """
    Return (width, height) from the first directory (TIFF 6.0, section 2; BigTIFF).

    :raises EncodedImageError: it has a tag twice, of another type, or tiles beyond all measure.
    """
    order: Literal['little', 'big'] = 'little' if data.startswith(b'II') else 'big'
    big = b'+' in data[2:4]
    word, entry = (8, 20) if big else (4, 12)

    def number(position: int, size: int) -> int:
        return int.from_bytes(data[position : position + size], order)

    directory = number(8 if big else 4, word)
    count = number(directory, 8 if big else 2)
    begin = directory + (8 if big else 2)
    if begin + entry * count > len(data):
        return None
    found: dict[int, int] = {}
    for position in range(begin, begin + entry * count, entry):
        tag, kind = number(position, 2), number(position + 2, 2)
        if tag in found:
            # Some readers take the first of them, some the last.
            raise EncodedImageError(f'the TIFF data is damaged: it has tag {tag} twice')
        # Type 3 has 16 bits, 4 has 32; others, and lists of numbers, no writer uses for sizes.
        length = {3: 2, 4: 4}.get(kind, 0)
        found[tag] = number(position + 4 + word, length)
        if tag in (256, 257, 322, 323) and (not length or number(position + 4, word) != 1):
            raise EncodedImageError(f'the TIFF data is damaged: tag {tag} is not a number')
    if not {256, 257} <= found.keys():
        return None
    width, height = found[256], found[257]
    tile = found.get(322, 0) * found.get(323, 0)
    if tile > max(_LARGEST_TILE, width * height):
        raise EncodedImageError(
            f'the TIFF data has tiles of {found[322]}x{found[323]} pixels for an image of '
            f'{width}x{height}'
        )
    return width, height


def _webp(data: bytes) -> tuple[int, int] | None:
    """
    Return (width, height) from the first chunk (RFC 9649).

    :raises EncodedImageError: it is an animation.
    """
    chunk, body = data[12:16], data[20:30]
    if len(body) < 10:
        return None
    if chunk == b'VP8X':
        if body[0] & 2:
            raise EncodedImageError('the WebP data is an animation: give a single image')
        width, height = (int.from_bytes(body[i : i + 3], 'little') for i in (4, 7))
        return width + 1, height + 1
    if chunk == b'VP8L' and body[0] == 0x2F:
        bits = int.from_bytes(body[1:5], 'little')
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if chunk == b'VP8 ' and body[3:6] == b'\x9d\x01\x2a':
        width, height = (int.from_bytes(body[i : i + 2], 'little') & 0x3FFF for i in (6, 8))
        return width, height
    return None


def _bmp(data: bytes) -> tuple[int, int] | None:
    """Return (width, height) from the header, which has three forms of one beginning."""
    if len(data) < 26:
        return None
    if int.from_bytes(data[14:18], 'little') == 12:
        return int.from_bytes(data[18:20], 'little'), int.from_bytes(data[20:22], 'little')
    width, height = (int.from_bytes(data[i : i + 4], 'little', signed=True) for i in (18, 22))
    # Negative where the rows go from top to bottom.
    return max(width, 0), abs(height)


def _pnm(data: bytes) -> tuple[int, int] | None:
    """Return (width, height) from the header, which is text (Netpbm)."""
    gap = rb'(?:\s|#[^\n\r]*[\n\r])+'
    pattern = rb'P[1-6]' + gap + rb'(\d{1,9})' + gap + rb'(\d{1,9})\s'
    # To search gigabytes of white space, re takes a hundred times as much memory.
    header = re.match(pattern, data[:_LONGEST_PNM_HEADER])
    return (int(header[1]), int(header[2])) if header else None
