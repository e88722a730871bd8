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
Files of ``torch.save`` that may be anybody's.

PyTorch itself executes nothing that is in them (``weights_only``), but a hundred bytes can stand
for any number of bytes in memory: what is compressed, and what is no tensor. So the file is looked
at before PyTorch sees it, in the one way in which PyTorch reads it.
"""

from __future__ import annotations

from io import SEEK_END
from pathlib import Path
import pickletools
import struct
from typing import Any, BinaryIO, IO
import zipfile

import torch

from dig2dig_ros.priors.base import PriorError

# Bytes that describe the tensors of a network, at most: a few hundred for each.
_LARGEST_PICKLE = 1 << 24
# Number of pickles in files from before zip archives; the numbers follow them.
_OLD_PICKLES = 5


def read_pickled(path: Path) -> Any:
    """
    Return what ``torch.save`` wrote, without executing anything from it.

    It takes no more memory than the file has bytes, except for tensors that are views: their
    shapes are for the caller to check.

    :raises PriorError: it is compressed.
    :raises Exception: it is damaged, which may be said in any way, or holds more than tensors.
    """
    with path.open('rb') as file:
        # For PyTorch this makes an archive, and not, as for zipfile, a directory at the end.
        is_archive = file.read(4) == b'PK\3\4'
        file.seek(0)
        if is_archive:
            _check_archive(file, path)
        else:
            for _ in range(_OLD_PICKLES):
                _check_pickle(file)
    # Only the newer format, a zip archive, can be mapped into memory.
    return torch.load(path, map_location='cpu', weights_only=True, mmap=is_archive)


def _check_archive(file: BinaryIO, path: Path) -> None:
    """
    Refuse a compressed zip archive: PyTorch never compresses, and bombs do.

    :raises ValueError: it has two readings, or ends early.
    """
    size = file.seek(0, SEEK_END)
    file.seek(max(0, size - 98))
    if not _has_one_directory(file.read(), size):
        raise ValueError('its directory is not at its end')
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
        if not stored or sum(entry.file_size for entry in entries) > size:
            raise PriorError(
                f'denoiser {path} is a compressed archive, as PyTorch does not write it: save it '
                'again, with torch.save'
            )
        for entry in entries:
            if entry.filename.lower().endswith('.pkl'):
                with archive.open(entry) as part:
                    _check_pickle(part)


def _has_one_directory(end: bytes, size: int) -> bool:
    """
    Return whether all readers of a zip archive find one directory (APPNOTE, 4.3.14 to 4.3.16).

    :param end: the last bytes of the file: record and locator for 64 bits, if any, and record.
    """
    begin = size - 22
    if end[-22:-18] != b'PK\5\6' or end[-2:] != b'\0\0':
        return False
    length, offset = struct.unpack('<II', end[-10:-2])
    if end[-42:-38] == b'PK\6\7':
        begin -= 20 + 56
        if end[-98:-94] != b'PK\6\6' or int.from_bytes(end[-34:-26], 'little') != begin:
            return False
        length, offset = struct.unpack('<QQ', end[-58:-42])
    return bool(offset + length == begin)


def _check_pickle(file: IO[bytes]) -> None:
    """
    Refuse a pickle that makes more than tensors: a bytearray of gigabytes takes a few bytes.

    :raises ValueError: it does, is damaged, or is larger than those of networks.
    """
    begin = file.tell()
    for operation, argument, position in pickletools.genops(file):
        is_global = operation.name in ('GLOBAL', 'STACK_GLOBAL', 'INST')
        if is_global and not str(argument).startswith(('torch', 'collections OrderedDict')):
            raise ValueError(f'it asks for {argument}')
        if position is not None and position - begin > _LARGEST_PICKLE:
            raise ValueError(f'its description has more than {_LARGEST_PICKLE} bytes')
