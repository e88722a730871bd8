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
Decompression of bags (messages, chunks, whole files), within limits of memory and disk.

Fifty kilobytes of zstd or lz4 can stand for gigabytes, and their headers may lie: so everything
is decompressed in pieces, which stops when it becomes too large.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
import importlib
from io import BytesIO
from pathlib import Path
import shutil
import struct
import sys
from typing import Any
import zlib

from dig2dig_ros.evaluation.bag_types import BagError

ZSTD_MAGIC = b'\x28\xb5\x2f\xfd'
# An image of 64 million pixels in colour has less, and so has a chunk: a few MiB, or one message.
LARGEST_MESSAGE = 256 << 20
# Records in a chunk: a usual one has thousands, and each becomes an object.
_MOST_RECORDS = 250_000
_MOST_FRAMES = 64
_PIECE = 1 << 20
# mcap: kind and length of a record; channel, sequence, recording and publishing time.
_RECORD_HEAD, _MESSAGE_HEAD = struct.Struct('<BQ'), struct.Struct('<HIQQ')
# A file may become so much larger, whatever its size, ...
_FREE_GROWTH = 1 << 30
# ... and beyond that, this many times as large. Camera recordings shrink to a third or a tenth.
_MOST_GROWTH = 100
# Part of the disk that stays free.
_LEFT_FREE = 1 << 30


class BombError(ValueError):
    """Decompressed data exceed their limit."""


def zstd() -> Any:
    """Return the module that ``rosbags`` itself depends on."""
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd


def decompressed(data: bytes, limit: int = LARGEST_MESSAGE) -> bytes:
    """
    Return what was compressed with zstd.

    :raises BombError: it is larger than ``limit``.
    :raises ZstdError: (of zstd) it is damaged, or cut short.
    """
    pieces: list[bytes] = []
    total = 0
    # In pieces, as the header cannot be trusted about the memory needed. Recorders write one
    # frame.
    for _ in range(_MOST_FRAMES):
        decompressor = zstd().ZstdDecompressor()
        piece = decompressor.decompress(data, _PIECE)
        while True:
            pieces.append(piece)
            total += len(piece)
            if total > limit:
                raise BombError(f'it becomes larger than {limit >> 20} MiB')
            if decompressor.eof:
                break
            if not piece and decompressor.needs_input:
                raise zstd().ZstdError('it ends early')
            piece = decompressor.decompress(b'', _PIECE)
        data = decompressor.unused_data
        if not data:
            return b''.join(pieces)
    raise BombError(f'it has more than {_MOST_FRAMES} frames')


def _decompressed_lz4(data: bytes, limit: int) -> bytes:
    # Comes with mcap; by name, as it has no types.
    decompressor = importlib.import_module('lz4.frame').LZ4FrameDecompressor()
    pieces = [decompressor.decompress(data, _PIECE)]
    total = len(pieces[0])
    while not decompressor.eof:
        if total > limit:
            raise BombError(f'it becomes larger than {limit >> 20} MiB')
        if not pieces[-1] and decompressor.needs_input:
            raise ValueError('it ends early')
        pieces.append(decompressor.decompress(b'', _PIECE))
        total += len(pieces[-1])
    return b''.join(pieces)


def records_of_chunk(chunk: Any) -> Iterator[Any]:
    """
    Return the schemas, channels and messages in a chunk of mcap, one after the other.

    :raises BombError: it is too large, or has too many records.
    :raises Exception: it is damaged, as the libraries say it.
    """
    from mcap.data_stream import ReadDataStream
    from mcap.opcode import Opcode
    from mcap.records import Channel, Message, Schema

    if chunk.uncompressed_size > LARGEST_MESSAGE:
        raise BombError(f'it states {chunk.uncompressed_size} bytes')
    data = chunk.data
    # What it becomes must be what it states.
    if chunk.compression == 'zstd':
        data = decompressed(data, chunk.uncompressed_size)
    elif chunk.compression == 'lz4':
        data = _decompressed_lz4(data, chunk.uncompressed_size)
    elif chunk.compression:
        raise ValueError(f'its compression {chunk.compression[:20]!r} is unknown')
    if chunk.uncompressed_crc and zlib.crc32(data) != chunk.uncompressed_crc:
        raise ValueError('its check sum is wrong')
    # Read here, and not by the library: ten times as fast, and a length may be anything.
    kinds: dict[int, Any] = {Opcode.CHANNEL: Channel, Opcode.SCHEMA: Schema}
    position = 0
    for _ in range(_MOST_RECORDS):
        if position == len(data):
            return
        opcode, length = _RECORD_HEAD.unpack_from(data, position)
        position += _RECORD_HEAD.size
        body = data[position : position + length]
        position += length
        if len(body) < length:
            raise ValueError('it ends inside a record')
        if opcode == Opcode.MESSAGE:
            channel, sequence, logged, published = _MESSAGE_HEAD.unpack_from(body)
            yield Message(channel, logged, body[_MESSAGE_HEAD.size :], published, sequence)
        elif opcode in kinds:
            yield kinds[opcode].read(ReadDataStream(BytesIO(body)))
    raise BombError(f'it has more than {_MOST_RECORDS} records')


def decompressed_copy(
    path: Path,
    scratch_folder: Callable[[], Path],
    note: Callable[[str], None],
    magics: Sequence[bytes],
) -> Path:
    """
    Return a decompressed copy of a file that the recorder compressed as a whole.

    :param scratch_folder: makes a folder to decompress to, which its owner removes.
    :param note: is called with a sentence on what cannot be read.
    :param magics: how what comes out has to begin.
    :raises BagError: it is not a bag, or too large for the disk or for what it is compressed from.
    """
    way_out = 'decompress it yourself (zstd -d) where you have room, if you trust it'
    try:
        folder = scratch_folder()
        copy = folder / path.stem
        most = _FREE_GROWTH + _MOST_GROWTH * path.stat().st_size
        with zstd().open(path, 'rb') as source, copy.open('wb') as target:
            written = 0
            # In small pieces: the one with the damage is lost.
            while piece := source.read(1 << 15):
                if not written and not piece.startswith(tuple(magics)):
                    raise BagError(f'{path} is not a bag: it is neither mcap nor sqlite3')
                written += len(piece)
                if written > most:
                    raise BagError(
                        f'{path} becomes more than {most >> 20} MiB, over {_MOST_GROWTH} times '
                        f'its size, when decompressed: {way_out}'
                    )
                if written % _PIECE < len(piece) and shutil.disk_usage(folder).free < _LEFT_FREE:
                    raise BagError(
                        f'{path} does not fit into {folder} when decompressed, as less than '
                        f'{_LEFT_FREE >> 20} MiB would stay free: set TMPDIR to a folder with '
                        f'room, or {way_out}'
                    )
                target.write(piece)
    except (EOFError, zstd().ZstdError) as error:
        note(f'{path} is cut short or damaged ({error}): read up to there')
    except OSError as error:
        raise BagError(
            f'cannot decompress {path} ({error.strerror}): set TMPDIR to a folder with room for '
            'the decompressed file'
        ) from error
    return copy
