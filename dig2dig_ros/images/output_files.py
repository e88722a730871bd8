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

"""Finds out before the work whether the file that takes its result can be written."""

from collections.abc import Sequence
import os
from pathlib import Path

from dig2dig_ros.errors import Refusal


class OutputError(Refusal, ValueError):
    """A file cannot be written; the message says why, and what to do."""


def check_output_file(
    path: Path, overwrite: bool = True, *, inputs: Sequence[Path] = (), folder: bool = False
) -> None:
    """
    Make sure that a file can be written.

    :param overwrite: whether it may replace one that is there.
    :param inputs: what the result is made of, which it must not replace.
    :param folder: what is written is a folder.
    :raises OutputError: it cannot, or may not.
    """
    parent = path.absolute().parent
    if path.is_dir() and not folder:
        raise OutputError(f'{path} is a folder: name a file')
    if not parent.is_dir():
        raise OutputError(f'there is no folder {path.parent}: make it, or name another one')
    exists = path.exists()
    if exists and any(each.exists() and path.samefile(each) for each in inputs):
        raise OutputError(f'{path} is one of the inputs: name another output')
    if exists and not overwrite:
        raise OutputError(f'{path} exists: name another output, or replace it with --overwrite')
    if not os.access(path if exists else parent, os.W_OK):
        raise OutputError(f'{path} cannot be written: permission denied')
