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
Checks of ONNX files before ONNX Runtime loads them: they must not refer to other files.

A model may keep its weights in other files, whose names its author chose.
"""

from __future__ import annotations

from collections.abc import Iterator

# Fields of ONNX's protocol buffer messages (onnx.proto3) that lead to tensors.
_INSIDE = {
    'model': {7: 'graph', 20: 'training', 25: 'function'},
    'training': {1: 'graph', 2: 'graph'},
    'function': {7: 'node', 11: 'attribute'},
    'graph': {1: 'node', 5: 'tensor', 15: 'sparse'},
    'node': {5: 'attribute'},
    'attribute': {5: 'tensor', 6: 'graph', 10: 'tensor', 11: 'graph', 22: 'sparse', 23: 'sparse'},
    'sparse': {1: 'tensor', 2: 'tensor'},
}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14
_DEEPEST = 64


class OnnxError(ValueError):
    """A file is not an ONNX model, or one that must not be loaded."""


def check_self_contained(data: bytes) -> None:
    """
    Refuse a model that refers to other files.

    :raises OnnxError: it does, or is not a protocol buffer.
    """
    pending = [('model', 0, len(data), 0)]
    while pending:
        kind, begin, end, depth = pending.pop()
        if depth > _DEEPEST:
            raise OnnxError(f'its graphs are nested more than {_DEEPEST} levels deep')
        for number, wire, start, stop in _fields(data, begin, end):
            if kind == 'tensor':
                is_elsewhere = number == _DATA_LOCATION and data[start:stop].strip(b'\x80\0')
                if is_elsewhere or number == _EXTERNAL_DATA:
                    raise OnnxError(
                        'it keeps its weights in other files: save it as one file, with '
                        'onnx.save(onnx.load(FILE), FILE)'
                    )
            elif wire == 2 and number in _INSIDE[kind]:
                pending.append((_INSIDE[kind][number], start, stop, depth + 1))


def _fields(data: bytes, begin: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Return number, wire type and place of each field of a message."""
    position = begin
    while position < end:
        key, position = _varint(data, position, end)
        wire, start = key & 7, position
        if wire == 0:
            _, position = _varint(data, position, end)
        elif wire == 2:
            length, start = _varint(data, position, end)
            position = start + length
        elif wire in (1, 5):
            position += 8 if wire == 1 else 4
        else:
            raise OnnxError('it is not a protocol buffer')
        if position > end:
            raise OnnxError('it ends early')
        yield key >> 3, wire, start, position


def _varint(data: bytes, position: int, end: int) -> tuple[int, int]:
    value = 0
    for place in range(min(10, end - position)):
        byte = data[position + place]
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, position + place + 1
    raise OnnxError('it is not a protocol buffer')
