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

"""Tables of results: one form for the terminal, for files and for the report page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
import math


@dataclass(frozen=True)
class Table:
    """
    A table of results.

    :param title: a line above it; empty where none is needed.
    :param header: names of the columns; the first one holds names, the others numbers.
    :param rows: texts as they are shown; an empty one where there is no value.
    :param notes: sentences below it.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def markdown(self) -> str:
        """Return title, table and notes as Markdown, separated by empty lines."""
        parts = [f'{self.title}:'] if self.title else []
        parts += [markdown_table(self.header, self.rows), *self.notes]
        return '\n\n'.join(parts)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return an aligned Markdown table; the first column is text, the others are numbers."""
    widths = [max(len(line[i]) for line in (header, *rows)) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        first = cells[0].ljust(widths[0])
        others = [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
        return f'| {" | ".join([first, *others])} |'

    rule = ['-' * widths[0], *('-' * (width - 1) + ':' for width in widths[1:])]
    return '\n'.join([line(header), line(rule), *map(line, rows)])


def figure(value: float | None) -> str:
    """Return a number with three digits or so; nothing where there is none."""
    if value is None or not math.isfinite(value):
        return ''
    return f'{value:.0f}' if value >= 1000 else f'{value:.3g}' if value < 10 else f'{value:.1f}'
