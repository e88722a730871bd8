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

"""The demo's pictures: frames of the images that belong together, a contact sheet and a video."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
import time
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dig2dig_ros.evaluation.demo_report import Image, OutputFolder
from dig2dig_ros.evaluation.image_pairs import ImagePair, load_pair
from dig2dig_ros.evaluation.registration_report import displayed, edge_picture
from dig2dig_ros.evaluation.video import fitted, to_bgr, Video
from dig2dig_ros.images.placement import Placement
from dig2dig_ros.images.thermal_range import ThermalRange
from dig2dig_ros.streams.codec import decode
from dig2dig_ros.streams.preparation import registered_image, stamp_of

# Topics whose images make a frame.
VISIBLE, THERMAL = 'visible/image_raw', 'thermal/image_raw'
FUSED, OVERLAY = 'fused/image_raw', 'fused/weights/overlay'
THERMAL_WEIGHT = 'fused/weights/thermal'
# Images of a topic that are kept; a slow node may be tens of images behind.
_KEPT_IMAGES = 128
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


@dataclass
class _Seen:
    """A message and its number among those of its topic, from 1."""

    message: Any
    number: int


class FrameCollector:
    """
    Keeps images by stamp until those that belong together make a frame.

    :param topics: that messages come from, those of the images among them.
    """

    def __init__(self, topics: Iterable[str]) -> None:
        self._images: dict[str, OrderedDict[int, _Seen]] = {t: OrderedDict() for t in topics}
        self._thermal_range = ThermalRange('auto')
        self._waiting: list[int] = []
        self._first_stamp: int | None = None
        self.received: dict[str, int] = dict.fromkeys(self._images, 0)
        # When fused images came, on the steady clock.
        self.fused_times: list[float] = []

    def add(self, topic: str, message: Any) -> None:
        """Keep a message."""
        stamp = stamp_of(message.header)
        kept = self._images[topic]
        self.received[topic] += 1
        kept[stamp] = _Seen(message, self.received[topic])
        while len(kept) > _KEPT_IMAGES:
            kept.popitem(last=False)
        if topic == FUSED:
            self.fused_times.append(time.monotonic())
            self._waiting.append(stamp)

    def forget(self) -> None:
        """Begin anew: what came so far was only a warm-up."""
        self.__init__(self._images)  # type: ignore[misc]

    def take(self, rest: bool = False) -> list[Frame]:
        """
        Return the frames that are complete, each once.

        :param rest: also those whose overlay has not come.
        """
        ready = [stamp for stamp in self._waiting if rest or stamp in self._images[OVERLAY]]
        self._waiting = [stamp for stamp in self._waiting if stamp not in ready]
        frames = [self._frame(stamp) for stamp in ready]
        return [frame for frame in frames if frame is not None]

    def _frame(self, stamp: int) -> Frame | None:
        visible, fused = self._images[VISIBLE].get(stamp), self._images[FUSED].get(stamp)
        thermals = self._images[THERMAL]
        if visible is None or fused is None or not thermals:
            return None
        thermal = thermals[min(thermals, key=lambda other: abs(other - stamp))]
        overlay = self._images[OVERLAY].get(stamp)
        weight = self._images[THERMAL_WEIGHT].get(stamp)
        if self._first_stamp is None:
            self._first_stamp = stamp
        seconds = (stamp - self._first_stamp) / 1e9
        return Frame(
            number=visible.number,
            stamp_s=seconds,
            visible=to_bgr(decode(visible.message)),
            thermal=self._show_thermal(decode(thermal.message), seconds),
            fused=to_bgr(decode(fused.message)),
            overlay=None if overlay is None else to_bgr(decode(overlay.message)),
            thermal_weight=None if weight is None else _mean_weight(decode(weight.message)),
        )

    def _show_thermal(self, thermal: NDArray[Any], stamp_s: float) -> Image:
        if thermal.dtype == np.uint8:
            return to_bgr(thermal)
        return to_bgr(np.rint(np.clip(self._thermal_range(thermal, stamp_s), 0.0, 1.0) * 255.0))


def _mean_weight(weights: NDArray[Any]) -> float:
    scale = 255.0 if weights.dtype == np.uint8 else 1.0
    return round(float(weights.mean()) / scale, 4)


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
        visible = displayed(fitted(frame.visible, *size))
        placement = self._placement
        everywhere = np.full(frame.visible.shape[:2], 255, np.uint8)
        reached = everywhere if placement is None else to_bgr(placement.coverage * 255.0)[..., 0]
        pictures = []
        for where, coverage in ((None, everywhere), (placement, reached)):
            thermal = fitted(registered_image(frame.thermal, where, full_size), *size)
            mask = fitted(to_bgr(coverage), *size)[..., 0] / np.float32(255.0)
            pictures.append(edge_picture(visible, thermal[..., 0].astype(np.float32), mask))
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


class Pictures:
    """
    Writes the frames of a run as pictures, a video and a contact sheet.

    :param folder: takes the files.
    :param sheet_rows: of the contact sheet, at most.
    :param rate: frames per second of the video.
    :param pairs: of a folder, whose names the frames get.
    :param placement: of thermal images that do not share the view, for the contact sheet.
    """

    def __init__(
        self,
        folder: OutputFolder,
        sheet_rows: int,
        rate: float,
        pairs: Sequence[ImagePair] = (),
        placement: Placement | None = None,
    ) -> None:
        self._folder = folder
        self._sheet = ContactSheet(sheet_rows, placement=placement)
        self._video = Video(folder.file, rate)
        self._pairs = pairs
        self._next_pair = 0
        self.count = 0
        self.sizes: set[str] = set()

    def add(self, frame: Frame) -> None:
        """Write a frame."""
        self.count += 1
        self.sizes.add(f'{frame.fused.shape[1]}x{frame.fused.shape[0]}')
        if self._pairs:
            frame = replace(frame, name=self._name_of(frame.visible))
        self._folder.write_image(f'fused/{frame.file_name}', frame.fused)
        if frame.overlay is not None:
            self._folder.write_image(f'overlay/{frame.file_name}', frame.overlay)
        self._sheet.add(frame)
        self._video.add((frame.visible, frame.thermal, frame.fused), frame.stamp_s)

    def _name_of(self, visible: Image) -> str:
        """Return the name of the pair that a visible image is from, or nothing."""
        # They come in order; a few may have been dropped.
        for index in range(self._next_pair, min(self._next_pair + 5, len(self._pairs))):
            if np.array_equal(load_pair(self._pairs[index])[0], visible):
                self._next_pair = index + 1
                return self._pairs[index].name
        return ''

    def finish(self, title: str, note: str) -> None:
        """Finish the video and write the contact sheet with what came so far."""
        self._video.close()
        sheet = self._sheet.render(title, note)
        if sheet is not None:
            self._folder.write_image('contact_sheet.png', sheet)
