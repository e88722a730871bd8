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

"""What the demo leaves behind: pictures, a video and a summary, in a folder of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dig2dig_ros.evaluation.registration_report import (
    DARK_PERCENTILES,
    EDGE_COLOUR,
    RIM_COLOUR,
    thermal_edge_mask,
)
from dig2dig_ros.evaluation.video import fitted, to_bgr
from dig2dig_ros.images.placement import Placement
from dig2dig_ros.streams.pairing import SOURCES
from dig2dig_ros.streams.preparation import registered_image

Image = NDArray[np.uint8]

MANIFEST = 'demo_files.txt'
COLUMNS = ('visible', 'thermal', 'fused', 'weights (red: thermal)')
UNALIGNED_COLUMNS = (
    'visible',
    'thermal, as it comes',
    'edges before registration',
    'edges after registration',
    *COLUMNS[2:],
)
LEGEND = (
    'orange: edges of the thermal image, on the visible one   '
    'blue: how far the thermal image reaches'
)

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_PAPER = 245
_INK = (40, 40, 40)
_GAP = 6


class DemoError(RuntimeError):
    """The demo cannot go on; the message is for the person who started it."""


@dataclass(frozen=True)
class Frame:
    """
    One fused pair, ready to be shown.

    :param number: of the visible image among those of the run, from 1.
    :param stamp_s: the visible image's stamp in seconds since the first one of the run.
    :param visible: (H, W, 3) BGR.
    :param thermal: (H', W', 3), grey, mapped to 8 bits.
    :param fused: (H, W, 3) BGR.
    :param overlay: (H, W, 3) BGR, or nothing when none came.
    :param thermal_weight: mean weight of the thermal source, 0 to 1, or nothing.
    :param name: of the pair in its folder; empty for the built-in scene.
    """

    number: int
    stamp_s: float
    visible: Image
    thermal: Image
    fused: Image
    overlay: Image | None
    thermal_weight: float | None = None
    name: str = ''

    @property
    def file_name(self) -> str:
        """The name of the frame's pictures."""
        return f'{self.name or f"{self.number:04d}"}.png'

    @property
    def caption(self) -> str:
        """One line that tells this frame from the others."""
        weight = self.thermal_weight
        share = '' if weight is None else f'   mean thermal weight {weight:.2f}'
        return (self.name or f'pair {self.number}   t = {self.stamp_s:.2f} s') + share


class OutputFolder:
    """
    A folder whose files the demo replaces at every run, leaving other people's files alone.

    The names of the files that a run writes are kept in a manifest beside them, each added
    before its file is written, so that a run that was killed is cleaned up too.

    :raises DemoError: the folder cannot be made or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files: list[str] = []
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._remove_previous()
            self._manifest = path / MANIFEST
            self._manifest.write_text(
                '# Files written by the dig2dig demo; its next run replaces them.\n',
                encoding='utf-8',
            )
        except OSError as error:
            raise DemoError(f'cannot write to the output folder {path}: {error}') from None

    def _remove_previous(self) -> None:
        manifest = self.path / MANIFEST
        if not manifest.is_file():
            return
        root = self.path.resolve()
        folders = set()
        for name in manifest.read_text(encoding='utf-8').splitlines():
            if not name or name.startswith('#'):
                continue
            file = self.path / name
            # A manifest is a text file that anybody may have edited: stay inside the folder.
            if root not in file.resolve().parents or not file.is_file():
                continue
            file.unlink()
            if file.parent != self.path:
                folders.add(file.parent)
        for folder in folders:
            if not any(folder.iterdir()):
                folder.rmdir()
        manifest.unlink()

    def file(self, name: str) -> Path:
        """
        Return the path to write ``name`` to and remember it as the demo's own.

        :raises DemoError: somebody else's file is there already.
        """
        path = self.path / name
        if name not in self.files:
            if path.exists():
                raise DemoError(
                    f'{path} exists and was not written by the demo; '
                    'choose another folder with --output'
                )
            path.parent.mkdir(parents=True, exist_ok=True)
            self.files.append(name)
            with self._manifest.open('a', encoding='utf-8') as manifest:
                manifest.write(name + '\n')
        return path

    def write_image(self, name: str, image: Image) -> None:
        """Write ``image`` as PNG."""
        # imwrite() fails silently, and on names that are not ASCII on some systems.
        done, data = cv2.imencode('.png', image)
        if not done:
            raise DemoError(f'OpenCV could not encode {name}')
        self.file(name).write_bytes(data.tobytes())


def unit_to_bgr(image: NDArray[np.floating[Any]]) -> Image:
    """Return a grey image in [0, 1], shape (H, W), as 8-bit (H, W, 3)."""
    return to_bgr(np.rint(np.clip(image, 0.0, 1.0) * 255.0))


def thermal_edges(visible: Image, thermal: Image, coverage: NDArray[np.float32]) -> Image:
    """
    Draw the edges of a thermal image, and how far it reaches, on a visible one.

    :param visible: (H, W, 3) BGR; shown grey, its dark parts lifted.
    :param thermal: (H, W, 3) grey, on the same pixels.
    :param coverage: (H, W) in [0, 1], 1 where the thermal image reaches.
    :return: (H, W, 3) BGR.
    """
    grey = cv2.cvtColor(visible, cv2.COLOR_BGR2GRAY)
    low, high = np.percentile(grey, DARK_PERCENTILES)
    unit = np.clip((grey - low) / max(high - low, 1.0), 0.0, 1.0)
    # Darker than it could be, so that the lines stand out.
    picture = to_bgr(np.rint(np.sqrt(unit) * 190.0))
    picture[thermal_edge_mask(thermal[..., 0].astype(np.float32), coverage)] = EDGE_COLOUR
    reached = (coverage > 0.5).astype(np.uint8)
    if not reached.all():
        rim, _ = cv2.findContours(reached, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        cv2.drawContours(picture, rim, -1, RIM_COLOUR, 1)
    return picture


class ContactSheet:
    """
    Rows of visible, thermal, fused and overlay, evenly spread over a run of unknown length.

    :param max_rows: at most so many rows.
    :param tile_width: width of one picture in pixels.
    :param placement: where the thermal image lies, of frames whose cameras do not share a view;
        the rows then show its edges on the visible image as well, before and after registration.
    """

    def __init__(
        self, max_rows: int = 8, tile_width: int = 320, placement: Placement | None = None
    ) -> None:
        self._max_rows = max_rows
        self._tile_width = tile_width
        self._placement = placement
        self._columns = COLUMNS if placement is None else UNALIGNED_COLUMNS
        self._stride = 1
        self._seen = 0
        self._rows: list[tuple[str, Image]] = []

    def add(self, frame: Frame) -> None:
        """Offer a frame; memory stays bounded however many come."""
        chosen = self._seen % self._stride == 0
        self._seen += 1
        if not chosen:
            return
        self._rows.append((frame.caption, self._tiles(frame)))
        if len(self._rows) > 2 * self._max_rows:
            self._rows = self._rows[::2]
            self._stride *= 2

    def _tiles(self, frame: Frame) -> Image:
        width = self._tile_width
        aspect = frame.fused.shape[0] / frame.fused.shape[1]
        height = max(1, round(width * min(aspect, 1.5)))
        pictures = [frame.visible, frame.thermal, frame.fused, frame.overlay]
        if self._placement is not None:
            pictures[2:2] = self._edges(frame, (width, height))
        tiles = []
        for picture in pictures:
            if picture is None:
                tile = np.full((height, width, 3), 128, np.uint8)
                cv2.putText(tile, 'none', (10, 24), _FONT, 0.5, (255, 255, 255), 1, cv2.LINE_AA)
            else:
                tile = fitted(picture, width, height)
            tiles += [tile, np.full((height, _GAP, 3), _PAPER, np.uint8)]
        return np.hstack(tiles[:-1])

    def _edges(self, frame: Frame, size: tuple[int, int]) -> list[Image]:
        """Return the thermal edges before and after registration, with lines of a tile's scale."""
        full_size = (frame.visible.shape[1], frame.visible.shape[0])
        visible = fitted(frame.visible, *size)
        placement = self._placement
        everywhere = np.full(frame.visible.shape[:2], 255, np.uint8)
        reached = everywhere if placement is None else to_bgr(placement.coverage * 255.0)[..., 0]
        pictures = []
        for where, coverage in ((None, everywhere), (placement, reached)):
            thermal = registered_image(frame.thermal, where, full_size)
            mask = fitted(to_bgr(coverage), *size)[..., 0] / np.float32(255.0)
            pictures.append(thermal_edges(visible, fitted(thermal, *size), mask))
        return pictures

    def render(self, title: str = '', note: str = '') -> Image | None:
        """
        Return the sheet as (H, W, 3) BGR, or nothing when no frame came.

        :param note: a line below the title.
        """
        if not self._rows:
            return None
        count = min(self._max_rows, len(self._rows))
        chosen = np.unique(np.linspace(0, len(self._rows) - 1, count).round().astype(int))
        parts = [self._strip(title, 0.55)] if title else []
        if note:
            parts.append(self._strip(note, 0.5))
        if self._placement is not None:
            parts.append(self._strip(LEGEND, 0.5))
        parts.append(self._header())
        for index in chosen:
            caption, tiles = self._rows[index]
            parts += [self._strip(caption, 0.45), tiles]
        margins = ((_GAP, _GAP), (_GAP, _GAP), (0, 0))
        return np.pad(np.vstack(parts), margins, constant_values=_PAPER)

    @property
    def _width(self) -> int:
        columns = len(self._columns)
        return columns * self._tile_width + (columns - 1) * _GAP

    def _strip(self, text: str, scale: float) -> Image:
        strip = np.full((26, self._width, 3), _PAPER, np.uint8)
        cv2.putText(strip, text, (2, 18), _FONT, scale, _INK, 1, cv2.LINE_AA)
        return strip

    def _header(self) -> Image:
        header = np.full((28, self._width, 3), _PAPER, np.uint8)
        for column, name in enumerate(self._columns):
            left = 2 + column * (self._tile_width + _GAP)
            cv2.putText(header, name, (left, 20), _FONT, 0.6, (0, 0, 0), 1, cv2.LINE_AA)
        return header


def render_summary(summary: Mapping[str, Any]) -> str:
    """Return the summary as the lines that the demo prints."""
    sent, received, node = summary['sent'], summary['received'], summary['node']
    rates = summary['input_rate_hz']
    causes = ', '.join(f'{count} {cause}' for cause, count in summary['dropped'].items() if count)
    waiting = ', '.join(
        f'{count} {source}' for source, count in summary['waiting'].items() if count
    )
    arrived = ', '.join(
        f'{source} {received[source]} ({_figure(rates[source], "Hz", 1)})' for source in SOURCES
    )
    rows = [
        ('pairs sent', f'{sent["pairs"]} (visible {sent["visible"]}, thermal {sent["thermal"]})'),
        ('received', arrived),
        ('pairs made', f'{summary["pairs"]}' + (f'; still alone: {waiting}' if waiting else '')),
        ('pairs fused', f'{summary["fused"]}'),
        ('dropped', causes or 'none'),
        ('latency', f'{_latency(summary["latency_ms"])}, from arrival to publication'),
        ('', f'{_latency(summary["seen_latency_ms"])}, as a subscriber of both sees it'),
        ('output', f'{_figure(summary["output_rate_hz"], "frames/s", 1)}, {_sizes(summary)}'),
        (
            'with',
            f'{node["device"]}, {node["precision"]}, prior {node["prior"]}, '
            f'N {node["N"]}, S {node["S"]}',
        ),
    ]
    if 'registration' in summary:
        facts = summary['registration']
        rows.append(('registration', registration_verdict(facts)))
        left = facts['misalignment']
        rows.append(('', f'visible pixels that are left, as the node sees it: {left}'))
    return '\n'.join(f'  {name:<12} {text}' for name, text in rows)


def registration_verdict(facts: Mapping[str, Any]) -> str:
    """Return what became of the calibration, in one line."""
    trusted = 'trusted' if facts['trusted'] else 'not to be trusted'
    return (
        f'{trusted}; its corners are {facts["corner_error_px"]:.2f} thermal pixels off '
        f'{facts["truth"]} (limit {facts["corner_error_limit_px"]:.1f}), '
        f'{facts["corner_error_before_px"]:.1f} without it'
    )


def _sizes(summary: Mapping[str, Any]) -> str:
    sizes = summary['sizes']
    return ', '.join(sizes) if len(sizes) <= 3 else f'{len(sizes)} different sizes'


def _figure(value: float | None, unit: str, digits: int = 0) -> str:
    return f'? {unit}' if value is None else f'{value:.{digits}f} {unit}'


def _latency(values: Mapping[str, float | None] | None) -> str:
    values = values or {'p50': None, 'p95': None}
    return f'median {_figure(values["p50"], "ms")}, p95 {_figure(values["p95"], "ms")}'


def write_json(folder: OutputFolder, name: str, content: Mapping[str, Any]) -> None:
    """Write ``content`` as readable JSON."""
    text = json.dumps(content, indent=2, ensure_ascii=False)
    folder.file(name).write_text(text + '\n', encoding='utf-8')
