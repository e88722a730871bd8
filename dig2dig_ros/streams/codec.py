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
Image messages to NumPy arrays and back, without ROS at import.

Reading shares memory with the message if the layout allows, writing copies once. Any object with
the fields of ``sensor_msgs/Image`` will do, so messages from a bag reader need no ROS either.
Colour arrays are (H, W, 3) uint8 in **BGR** order, as in OpenCV.

Encodings are those of ``sensor_msgs/image_encodings``; cv_bridge is only used for those not in
:data:`SUPPORTED_ENCODINGS`, and only after a trial, see ``cv_bridge_trial``.
"""

from __future__ import annotations

from array import array as byte_array
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
import re
import sys
from typing import Any, Protocol, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from dig2dig_ros.images.bit_depth import BitDepth
from dig2dig_ros.images.encoded import (
    decode_image,
    EncodedImageError,
    LONGEST_SIDE,
    MAX_PIXELS,
    refuse_large,
    stated_size,
)
from dig2dig_ros.streams.cv_bridge_trial import cv_bridge, why_not

# What image_transport's ``compressed`` sends.
_TRANSPORTED = ('JPEG', 'PNG', 'TIFF')
# Surplus data after an image: up to its own size plus this many bytes is a driver's buffer.
_MOST_SURPLUS = 65_536
# Compressed images: a size that needs no check, and bytes of a pixel of four floats.
_FEW_BYTES = 1 << 23
_MOST_BYTES_OF_PIXEL = 16
# PNG compression, 0 to 9; image_transport's default.
_PNG_LEVEL = 3
# Characters of a message's own text that an error quotes: it may be megabytes.
_QUOTED = 60


class CodecError(ValueError):
    """A message cannot be read or written; the message names topic, encoding and problem."""


class ImageMessage(Protocol):
    """The fields of ``sensor_msgs/Image``; ``data`` is any buffer of bytes."""

    header: Any
    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: Any


class CompressedImageMessage(Protocol):
    """The fields of ``sensor_msgs/CompressedImage``; ``data`` is any buffer of bytes."""

    header: Any
    format: str
    data: Any


ImageMessageT = TypeVar('ImageMessageT', bound=ImageMessage)
CompressedImageMessageT = TypeVar('CompressedImageMessageT', bound=CompressedImageMessage)


@dataclass(frozen=True)
class _Layout:
    """The memory layout of an encoding, and its conversion to BGR (None: none needed)."""

    dtype: str
    channels: int = 1
    to_bgr: int | None = None
    # Pixels that share one chroma sample, (across, down). Down 2 means a second plane below.
    chroma: tuple[int, int] = (1, 1)
    smallest: int = 1


def _bayer(dtype: str, to_bgr: int) -> _Layout:
    # OpenCV fills the border from its neighbours, and an image without an interior with 0.
    return _Layout(dtype, to_bgr=to_bgr, smallest=3)


# ROS names a Bayer pattern by its first row, OpenCV by the second and third pixel of its second
# row: rggb is OpenCV's BG.
_BAYER = {
    'rggb': cv2.COLOR_BayerBG2BGR,
    'bggr': cv2.COLOR_BayerRG2BGR,
    'gbrg': cv2.COLOR_BayerGR2BGR,
    'grbg': cv2.COLOR_BayerGB2BGR,
}

_LAYOUTS = {
    'mono8': _Layout('u1'),
    '8UC1': _Layout('u1'),
    'mono16': _Layout('u2'),
    '16UC1': _Layout('u2'),
    '32FC1': _Layout('f4'),
    '8SC1': _Layout('i1'),
    '16SC1': _Layout('i2'),
    '32SC1': _Layout('i4'),
    '64FC1': _Layout('f8'),
    'bgr8': _Layout('u1', 3),
    '8UC3': _Layout('u1', 3),
    '8UC4': _Layout('u1', 4, cv2.COLOR_BGRA2BGR),
    'bgr16': _Layout('u2', 3),
    '16UC3': _Layout('u2', 3),
    '16UC4': _Layout('u2', 4, cv2.COLOR_BGRA2BGR),
    'rgb16': _Layout('u2', 3, cv2.COLOR_RGB2BGR),
    'bgra16': _Layout('u2', 4, cv2.COLOR_BGRA2BGR),
    'rgba16': _Layout('u2', 4, cv2.COLOR_RGBA2BGR),
    'rgb8': _Layout('u1', 3, cv2.COLOR_RGB2BGR),
    'bgra8': _Layout('u1', 4, cv2.COLOR_BGRA2BGR),
    'rgba8': _Layout('u1', 4, cv2.COLOR_RGBA2BGR),
    'yuv422': _Layout('u1', 2, cv2.COLOR_YUV2BGR_UYVY, chroma=(2, 1)),
    'uyvy': _Layout('u1', 2, cv2.COLOR_YUV2BGR_UYVY, chroma=(2, 1)),
    'yuv422_yuy2': _Layout('u1', 2, cv2.COLOR_YUV2BGR_YUY2, chroma=(2, 1)),
    'yuyv': _Layout('u1', 2, cv2.COLOR_YUV2BGR_YUY2, chroma=(2, 1)),
    'nv12': _Layout('u1', 1, cv2.COLOR_YUV2BGR_NV12, chroma=(2, 2)),
    'nv21': _Layout('u1', 1, cv2.COLOR_YUV2BGR_NV21, chroma=(2, 2)),
    **{f'bayer_{name}8': _bayer('u1', code) for name, code in _BAYER.items()},
    **{f'bayer_{name}16': _bayer('u2', code) for name, code in _BAYER.items()},
}

SUPPORTED_ENCODINGS = tuple(_LAYOUTS)
_SUPPORTED_TEXT = f'supported are {", ".join(SUPPORTED_ENCODINGS)}'

WRITABLE_ENCODINGS = (
    'mono8',
    '8UC1',
    'mono16',
    '16UC1',
    '32FC1',
    'bgr8',
    '8UC3',
    'rgb8',
)


def decode(
    msg: ImageMessage,
    topic: str = '',
    *,
    max_pixels: int = MAX_PIXELS,
    depth: BitDepth | None = None,
) -> NDArray[Any]:
    """
    Return the pixels of an image message.

    mono8, 8UC1, mono16, 16UC1, 32FC1, bgr8 and 8UC3 are views of the message's memory (padded
    rows included): keep them for as long as you like, but do not write to them. Samples in the
    other byte order or at odd addresses are copied, other colour encodings converted.
    bayer_*16 and colour of 16 bits are reduced to 8, from all 16 or from those that ``depth``
    finds. Signed integers and 64FC1 become float32. 32FC1 may hold NaN and infinities.

    :param msg: a ``sensor_msgs/Image`` or an object with its fields.
    :param topic: where it came from, for the error text.
    :param max_pixels: larger images are refused before anything is allocated.
    :param depth: how many bits are used, for images that are reduced to 8; default: all 16.
    :return: (H, W) uint8, uint16 or float32, or (H, W, 3) uint8 in BGR order.
    :raises CodecError: the encoding is unknown, or size, step and data contradict each other.
    """
    refuse = partial(_refusal, topic, f'encoding {_quoted(msg.encoding)}')
    layout = _checked_layout(msg, refuse, max_pixels)
    if layout is None:
        return _decode_with_cv_bridge(msg, refuse)
    image = _view(msg, layout, refuse)
    if not image.dtype.isnative:
        image = image.astype(image.dtype.newbyteorder('='))
    elif not image.flags.aligned:
        image = image.copy()
    if layout.to_bgr is None:
        return _supported(image, refuse)
    try:
        return _colour(cv2.cvtColor(_to_8_bit(image, depth), layout.to_bgr))
    except cv2.error as error:
        raise refuse(f'OpenCV cannot convert it: {error}') from error


def check(msg: ImageMessage, topic: str = '', *, max_pixels: int = MAX_PIXELS) -> None:
    """
    Refuse what :func:`decode` would refuse, in microseconds, without reading a pixel.

    Only encodings that are left to cv_bridge can still fail later.

    :raises CodecError: the encoding is unknown, or size, step and data contradict each other.
    """
    refuse = partial(_refusal, topic, f'encoding {_quoted(msg.encoding)}')
    layout = _checked_layout(msg, refuse, max_pixels)
    if layout is not None:
        _view(msg, layout, refuse)
    else:
        _refuse_surplus(len(msg.data), int(msg.step) * int(msg.height), refuse)
        # The executor must not wait for its trial, so a message that passes may fail later.
        _require_cv_bridge(why_not(), refuse)


def check_compressed(
    msg: CompressedImageMessage, topic: str = '', *, max_pixels: int = MAX_PIXELS
) -> None:
    """
    Refuse data that take more memory in the queue than their image could need.

    :raises CodecError: the image is beyond the limit or damaged, or there is more than an image.
    """
    refuse = partial(_refusal, topic, f'format {_quoted(msg.format)}')
    data = _as_bytes(msg.data, refuse)
    if data.size <= _FEW_BYTES:
        return
    try:
        stated = stated_size(data.tobytes(), _TRANSPORTED)
        refuse_large(stated.width, stated.height, max_pixels)
    except EncodedImageError as error:
        raise refuse(str(error)) from error
    if data.size > _FEW_BYTES + _MOST_BYTES_OF_PIXEL * stated.width * stated.height:
        raise refuse(
            f'{data.size} bytes of data are far more than a {stated.kind} of '
            f'{stated.width}x{stated.height} takes: have the driver send the image alone'
        )


def _checked_layout(
    msg: ImageMessage, refuse: Callable[[str], CodecError], max_pixels: int
) -> _Layout | None:
    """Return the layout of an image of a plausible size; None leaves it to cv_bridge."""
    height, width = int(msg.height), int(msg.width)
    if height <= 0 or width <= 0:
        raise refuse(f'the size {width}x{height} has no pixels')
    try:
        refuse_large(width, height, max_pixels)
    except EncodedImageError as error:
        raise refuse(str(error)) from None
    layout = _LAYOUTS.get(msg.encoding)
    if layout is None:
        if re.fullmatch(r'(8|16|32)[US]C\d+|(32|64)FC\d+', msg.encoding):
            raise refuse(f'this encoding cannot be fused; {_SUPPORTED_TEXT}')
        return None
    across, down = layout.chroma
    if width % across or height % down:
        raise refuse(f'{width}x{height} does not divide into its blocks of {across}x{down} pixels')
    if min(width, height) < layout.smallest:
        raise refuse(f'{width}x{height} is too small, at least 3x3 pixels are needed')
    return layout


def _refuse_surplus(size: int, needed: int, refuse: Callable[[str], CodecError]) -> None:
    """Refuse data far beyond the image, as max_pixels must bound the memory of the queue."""
    if size > 2 * needed + _MOST_SURPLUS:
        raise refuse(
            f'{size} bytes of data are far more than the {needed} of its rows: have the driver '
            'send the image alone'
        )


def _view(msg: ImageMessage, layout: _Layout, refuse: Callable[[str], CodecError]) -> NDArray[Any]:
    """Return a view of the samples in the message's memory, without the padding of rows."""
    height, width, step = int(msg.height), int(msg.width), int(msg.step)
    dtype = np.dtype(('>' if msg.is_bigendian else '<') + layout.dtype)
    pixel_bytes = layout.channels * dtype.itemsize
    row_bytes = width * pixel_bytes
    down = layout.chroma[1]
    rows = height if down == 1 else height + height // down
    buffer = _as_bytes(msg.data, refuse)
    if down > 1 and buffer.size == row_bytes * rows:
        # Publishers disagree about the step of a two-plane image; this size is unambiguous.
        step = row_bytes
    if step < row_bytes:
        raise refuse(f'step {step} is less than the {row_bytes} bytes of a row of {width} pixels')
    needed = step * (rows - 1) + row_bytes
    if buffer.size < needed:
        raise refuse(
            f'{buffer.size} bytes of data are too few: {width}x{height} with step {step} '
            f'needs {needed}'
        )
    _refuse_surplus(buffer.size, step * rows, refuse)
    if step > LONGEST_SIDE * pixel_bytes:
        raise refuse(
            f'step {step} is longer than any row, which has {LONGEST_SIDE} pixels at most'
        )
    shape: tuple[int, ...] = (rows, width)
    strides: tuple[int, ...] = (step, pixel_bytes)
    if layout.channels > 1:
        shape += (layout.channels,)
        strides += (dtype.itemsize,)
    view: NDArray[Any] = np.ndarray(shape, dtype, buffer=buffer, strides=strides)
    return view


def decode_compressed(
    msg: CompressedImageMessage,
    topic: str = '',
    *,
    max_pixels: int = MAX_PIXELS,
    depth: BitDepth | None = None,
) -> NDArray[Any]:
    """
    Return the pixels of a JPEG, PNG or TIFF message of image_transport's ``compressed``.

    The first bytes identify the data. ``format`` adds what they do not say: channels that were
    compressed in red-green-blue order (``'rgb8; jpeg compressed rgb8'``, ``'rgb8; tiff compressed
    '``), a Bayer mosaic that was compressed unconverted (``'bayer_rggb8; png compressed '``), and
    16-bit counts that JPEG reduced to 8 bits (``'mono16; jpeg compressed mono8'``), which are
    scaled back to 16.

    :param msg: a ``sensor_msgs/CompressedImage`` or an object with its fields.
    :param topic: where it came from, for the error text.
    :param max_pixels: larger images are refused before they are decompressed.
    :param depth: how many bits are used, for images that are reduced to 8; default: all 16.
    :return: (H, W) uint8, uint16 or float32 (TIFF), or (H, W, 3) uint8 in BGR order.
    :raises CodecError: the data is of another kind, cut short or damaged.
    """

    def refuse(reason: str) -> CodecError:
        return _refusal(topic, f'format {_quoted(msg.format)}', reason)

    if 'compressedDepth' in msg.format:
        raise refuse('this is the compressedDepth transport: use raw or compressed')
    data = _as_bytes(msg.data, refuse).tobytes()
    try:
        stated = stated_size(data, _TRANSPORTED)
        # Unchanged keeps 16 bits, and the orientation of the sensor (no EXIF rotation).
        image = decode_image(data, stated, cv2.IMREAD_UNCHANGED, max_pixels)
    except EncodedImageError as error:
        raise refuse(str(error)) from error

    image = _supported(image, refuse, depth)
    encoding, target = _compressed_from(msg.format)
    if image.ndim == 3:
        # image_transport converts colour to BGR first, but not for TIFF.
        is_rgb = target.startswith('rgb') or (stated.kind == 'TIFF' and encoding.startswith('rgb'))
        return _colour(cv2.cvtColor(image, cv2.COLOR_RGB2BGR)) if is_rgb else image
    bayer = re.fullmatch(f'bayer_({"|".join(_BAYER)})(8|16)', encoding)
    if bayer and target in ('', encoding):
        if min(image.shape) < 3:
            size = f'{stated.width}x{stated.height}'
            raise refuse(f'{size} is too small, at least 3x3 pixels are needed')
        return _colour(cv2.cvtColor(_to_8_bit(image, depth), _BAYER[bayer[1]]))
    if stated.kind == 'JPEG' and encoding in ('mono16', '16UC1'):
        return image.astype(np.uint16) << 8
    return image


def encode(
    array: NDArray[Any], encoding: str, header: Any, message_type: Callable[[], ImageMessageT]
) -> ImageMessageT:
    """
    Return an image message with the pixels of ``array``.

    :param array: (H, W) for mono8, 8UC1 (uint8), mono16, 16UC1 (uint16) and 32FC1 (float32);
        (H, W, 3) uint8 **in BGR order** for bgr8, 8UC3 and rgb8, which is swapped here.
    :param encoding: one of :data:`WRITABLE_ENCODINGS`.
    :param header: becomes the header of the message itself, not a copy.
    :param message_type: ``sensor_msgs.msg.Image``.
    :raises CodecError: encoding and array do not match.
    """
    layout = _LAYOUTS.get(encoding)
    if layout is None or encoding not in WRITABLE_ENCODINGS:
        raise CodecError(
            f"cannot write encoding '{encoding}': use one of {', '.join(WRITABLE_ENCODINGS)}"
        )
    dtype = np.dtype(layout.dtype)
    tail = () if layout.channels == 1 else (layout.channels,)
    if array.dtype != dtype or array.ndim < 2 or array.shape[2:] != tail or array.size == 0:
        wanted = ', '.join(['H', 'W', *map(str, tail)])
        raise CodecError(
            f"cannot write encoding '{encoding}' from {array.dtype} of shape {array.shape}: "
            f'it takes {dtype} of shape ({wanted})'
        )
    if layout.to_bgr is None:
        pixels = np.ascontiguousarray(array)
    else:
        pixels = cv2.cvtColor(array, cv2.COLOR_BGR2RGB)
    # The setter of a ROS message takes an array.array as it is, and iterates over anything else.
    data = byte_array('B')
    data.frombytes(pixels.reshape(-1).view(np.uint8).data)

    message = message_type()
    message.header = header
    message.height, message.width = array.shape[:2]
    message.encoding = encoding
    message.is_bigendian = int(sys.byteorder == 'big')
    message.step = array.shape[1] * layout.channels * dtype.itemsize
    message.data = data
    return message


def encode_compressed(
    array: NDArray[Any],
    encoding: str,
    header: Any,
    message_type: Callable[[], CompressedImageMessageT],
    *,
    kind: str = 'jpeg',
    jpeg_quality: int = 95,
) -> CompressedImageMessageT:
    """
    Return a message with the pixels of ``array`` compressed, in the form of image_transport.

    :param array: (H, W) or, **in BGR order** whatever the encoding, (H, W, 3) uint8; for PNG also
        (H, W) uint16.
    :param encoding: what a receiver should decode it to, such as rgb8.
    :param header: becomes the header of the message itself, not a copy.
    :param message_type: ``sensor_msgs.msg.CompressedImage``.
    :param kind: ``jpeg`` or ``png``.
    :param jpeg_quality: 1 to 100.
    :raises CodecError: this kind cannot hold the array.
    """
    is_jpeg, is_colour = kind == 'jpeg', array.ndim == 3
    if array.dtype != np.uint8 and (is_jpeg or is_colour or array.dtype != np.uint16):
        raise CodecError(
            f'cannot compress {array.dtype} of shape {array.shape} as {kind}: it takes uint8'
            + (', or uint16 of shape (H, W)' if not is_jpeg else '')
        )
    options = (
        [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality]
        if is_jpeg
        else [cv2.IMWRITE_PNG_COMPRESSION, _PNG_LEVEL]
    )
    try:
        done, encoded = cv2.imencode(f'.{kind}', array, options)
    except cv2.error as error:
        raise CodecError(f'cannot compress shape {array.shape} as {kind}: {error}') from error
    if not done:
        raise CodecError(f'OpenCV cannot compress shape {array.shape} as {kind}')
    data = byte_array('B')
    data.frombytes(encoded.data)
    # The compressed encoding: colours in blue-green-red order, and grey JPEG has 8 bits.
    target = 'bgr8' if is_colour else 'mono8' if is_jpeg else ''
    message = message_type()
    message.header = header
    message.format = f'{encoding}; {kind} compressed {target}'
    message.data = data
    return message


def _refusal(topic: str, kind: str, reason: str) -> CodecError:
    place = f" on '{topic}'" if topic else ''
    return CodecError(f'image{place} with {kind}: {reason}')


def _quoted(text: str) -> str:
    """Return a message's own text, short and printable, for logs and terminals."""
    return repr(text if len(text) <= _QUOTED else f'{text[:_QUOTED]}...')


def _as_bytes(data: Any, refuse: Callable[[str], CodecError]) -> NDArray[np.uint8]:
    """Return the data field as a flat uint8 array that shares its memory."""
    try:
        # An empty buffer is an error to frombuffer in some versions of NumPy.
        return np.frombuffer(data, np.uint8) if len(data) else np.empty(0, np.uint8)
    except (TypeError, ValueError, BufferError) as error:
        raise refuse(f'its data ({type(data).__name__}) is not a buffer of bytes') from error


def _to_8_bit(image: NDArray[Any], depth: BitDepth | None) -> NDArray[Any]:
    if image.dtype == np.uint16:
        bits = 16 if depth is None else depth(image)
        scaled: NDArray[np.uint8] = cv2.convertScaleAbs(image, alpha=255.0 / ((1 << bits) - 1))
        return scaled
    return image


def _colour(image: Any) -> NDArray[np.uint8]:
    """Name the type of what OpenCV returned."""
    colour: NDArray[np.uint8] = image
    return colour


def _supported(
    image: NDArray[Any], refuse: Callable[[str], CodecError], depth: BitDepth | None = None
) -> NDArray[Any]:
    """Convert the output of another decoder (BGR or BGRA order) to the types that we return."""
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[:, :, 0]
    if image.ndim == 2 and image.dtype.kind in 'iuf':
        if image.dtype in (np.uint8, np.uint16, np.float32):
            return image
        with np.errstate(over='ignore'):  # values beyond float32 become infinite
            return image.astype(np.float32)
    if image.ndim == 3 and image.dtype in (np.uint8, np.uint16) and image.shape[2] in (3, 4):
        image = _to_8_bit(image, depth)
        return _colour(cv2.cvtColor(image, cv2.COLOR_BGRA2BGR)) if image.shape[2] == 4 else image
    raise refuse(f'an image of {image.dtype} of shape {image.shape} cannot be fused')


def _compressed_from(format_text: str) -> tuple[str, str]:
    """Return the original encoding, and the one it was converted to for compression, or ''."""
    encoding, semicolon, how = format_text.partition(';')
    target = re.search(r'compressed\s+(\w+)', how if semicolon else format_text)
    return encoding.strip() if semicolon else '', target[1] if target else ''


def _require_cv_bridge(reason: str, refuse: Callable[[str], CodecError]) -> None:
    if reason:
        raise refuse(f'{reason}; {_SUPPORTED_TEXT}')


def _decode_with_cv_bridge(msg: ImageMessage, refuse: Callable[[str], CodecError]) -> NDArray[Any]:
    bridge, reason = cv_bridge()
    _require_cv_bridge(reason, refuse)
    has_colour = re.match('bgr|rgb|bayer|yuv|uyvy|yuyv|nv', msg.encoding) is not None
    try:
        image = bridge.imgmsg_to_cv2(msg, 'bgr8' if has_colour else 'passthrough')
    except Exception as error:
        # Its own error class cannot be imported if its extension module fails to load.
        raise refuse(f'cv_bridge cannot convert it ({error}); {_SUPPORTED_TEXT}') from error
    image = np.asarray(image)
    if image.shape[:2] != (int(msg.height), int(msg.width)):
        raise refuse(f'cv_bridge returned an image of shape {image.shape}; {_SUPPORTED_TEXT}')
    return _supported(image, refuse)
