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

"""The demo's pictures: frames of matching images, a contact sheet and a video."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from dig2dig_ros.evaluation.demo_report import Image, OutputFolder
from dig2dig_ros.evaluation.registration_report import displayed, edge_picture
from dig2dig_ros.images.image_pairs import ImagePair, load_pair
from dig2dig_ros.images.overlay import contribution_legend
from dig2dig_ros.images.placement import Placement
from dig2dig_ros.images.thermal_range import ThermalRange
from dig2dig_ros.images.video import fitted, to_bgr, Video
from dig2dig_ros.streams.codec import decode
from dig2dig_ros.streams.pairing import SOURCES
from dig2dig_ros.streams.preparation import registered_image, stamp_of

# Topics whose images make a frame.
VISIBLE, THERMAL = 'visible/image_raw', 'thermal/image_raw'
FUSED, OVERLAY = 'fused/image_raw', 'fused/weights/overlay'
# Images kept for each topic; a slow node may lag tens of images behind.
_KEPT_IMAGES = 128
COLUMNS = ('visible', 'thermal', 'fused', 'contributions')
UNALIGNED_COLUMNS = (
    'visible',
    'thermal',
    'edges before registration',
    'edges after registration',
    *COLUMNS[2:],
)
LEGEND = (
    'orange: edges of the thermal image, on the visible one   blue: border of the thermal image'
)

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_PAPER = 245
_INK = (40, 40, 40)
_GAP = 6


@dataclass(frozen=True)
class Frame:
    """
    One fused pair, ready to be shown.

    :param stamp_s: the visible image's stamp in seconds since the first one of the run.
    :param visible: (H, W, 3) BGR.
    :param thermal: (H', W', 3), grey, mapped to 8 bits.
    :param fused: (H, W, 3) BGR.
    :param overlay: (H, W, 3) BGR; None if there was none.
    """

    stamp_s: float
    visible: Image
    thermal: Image
    fused: Image
    overlay: Image | None


class FrameCollector:
    """
    Keeps images by stamp until a frame is complete.

    :param topics: topics to collect, including those of the images.
    """

    def __init__(self, topics: Iterable[str]) -> None:
        self._images: dict[str, dict[int, Any]] = {topic: {} for topic in topics}
        self._thermal_range = ThermalRange('auto')
        self._waiting: list[int] = []
        self._first_stamp: int | None = None
        self.received: dict[str, int] = dict.fromkeys(self._images, 0)

    def add(self, topic: str, message: Any) -> None:
        """Keep a message."""
        kept, stamp = self._images[topic], stamp_of(message.header)
        self.received[topic] += 1
        kept[stamp] = message
        if len(kept) > _KEPT_IMAGES:
            del kept[next(iter(kept))]
        if topic == FUSED:
            self._waiting.append(stamp)

    def forget(self) -> None:
        """Start over, and discard all messages so far."""
        self._waiting.clear()
        for topic, kept in self._images.items():
            kept.clear()
            self.received[topic] = 0

    def take(self, rest: bool = False) -> list[Frame]:
        """
        Return the complete frames, each once.

        :param rest: also the frames whose overlay is still missing.
        """
        ready = [stamp for stamp in self._waiting if rest or stamp in self._images[OVERLAY]]
        self._waiting = [stamp for stamp in self._waiting if stamp not in ready]
        frames = [self._frame(stamp) for stamp in ready]
        return [frame for frame in frames if frame is not None]

    def _frame(self, stamp: int) -> Frame | None:
        visible, fused, overlay = (
            None if (message := self._images[topic].get(stamp)) is None else decode(message)
            for topic in (VISIBLE, FUSED, OVERLAY)
        )
        thermals = self._images[THERMAL]
        if visible is None or fused is None or not thermals:
            return None
        thermal = decode(thermals[min(thermals, key=lambda other: abs(other - stamp))])
        if self._first_stamp is None:
            self._first_stamp = stamp
        seconds = (stamp - self._first_stamp) / 1e9
        if thermal.dtype != np.uint8:
            thermal = np.rint(self._thermal_range(thermal, seconds) * 255.0)
        return Frame(
            stamp_s=seconds,
            visible=to_bgr(visible),
            thermal=to_bgr(thermal),
            fused=to_bgr(fused),
            overlay=None if overlay is None else to_bgr(overlay),
        )


class ContactSheet:
    """
    Rows of visible, thermal, fused and overlay, evenly spread over a run of unknown length.

    :param max_rows: the largest number of rows.
    :param tile_width: width of one picture in pixels.
    :param placement: where the thermal image lies, if the cameras do not share a view; the rows
        then also show its edges on the visible image, before and after registration.
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

    def add(self, frame: Frame, caption: str) -> None:
        """Offer a frame; memory stays bounded, however many there are."""
        if self._seen % self._stride == 0:
            self._rows.append((caption, self._tiles(frame)))
        self._seen += 1
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
        Return the sheet as (H, W, 3) BGR, or None if there was no frame.

        :param note: a line below the title.
        """
        if not self._rows:
            return None
        count = min(self._max_rows, len(self._rows))
        chosen = np.unique(np.linspace(0, len(self._rows) - 1, count).round().astype(int))
        legend = LEGEND if self._placement is not None else ''
        texts = [text for text in (title, note, legend) if text] or ['']
        parts = [self._strip([text], 0.5) for text in texts]
        # Above the last column, what its colours mean.
        key = contribution_legend(SOURCES)
        width = min(key.shape[1], parts[-1].shape[1])
        parts[-1][:, -width:] = key[:, -width:]
        parts.append(self._strip(self._columns, 0.6))
        for index in chosen:
            caption, tiles = self._rows[index]
            parts += [self._strip([caption], 0.45), tiles]
        margins = ((_GAP, _GAP), (_GAP, _GAP), (0, 0))
        return np.pad(np.vstack(parts), margins, constant_values=_PAPER)

    def _strip(self, texts: Sequence[str], scale: float) -> Image:
        """Return a line of texts, each above its column."""
        width = len(self._columns) * (self._tile_width + _GAP) - _GAP
        strip = np.full((26, width, 3), _PAPER, np.uint8)
        for column, text in enumerate(texts):
            place = (2 + column * (self._tile_width + _GAP), 18)
            cv2.putText(strip, text, place, _FONT, scale, _INK, 1, cv2.LINE_AA)
        return strip


class Pictures:
    """
    Writes the frames of a run as pictures, a video and a contact sheet.

    :param folder: where to write.
    :param sheet_rows: of the contact sheet, at most.
    :param rate: frames per second of the video.
    :param pairs: the pairs of a folder, after which frames are named.
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
        self._pairs = list(pairs)
        self.count = 0
        self.sizes: set[str] = set()

    def add(self, frame: Frame) -> None:
        """Write a frame."""
        self.count += 1
        self.sizes.add(f'{frame.fused.shape[1]}x{frame.fused.shape[0]}')
        name = self._take_name(frame.visible)
        file = f'{name or f"{self.count:04d}"}.png'
        self._folder.write_image(f'fused/{file}', frame.fused)
        if frame.overlay is not None:
            self._folder.write_image(f'overlay/{file}', frame.overlay)
        caption = name or f'pair {self.count}   t = {frame.stamp_s:.2f} s'
        self._sheet.add(frame, caption)
        self._video.add((frame.visible, frame.thermal, frame.fused), frame.stamp_s)

    def _take_name(self, visible: Image) -> str:
        """Return the name of the pair that a visible image belongs to, or an empty string."""
        # They come in order; a few may have been dropped.
        for index, pair in enumerate(self._pairs[:5]):
            if np.array_equal(load_pair(pair)[0], visible):
                del self._pairs[: index + 1]
                return pair.name
        return ''

    def finish(self, title: str, note: str) -> None:
        """Finish the video and write the contact sheet with the frames so far."""
        self._video.close()
        sheet = self._sheet.render(title, note)
        if sheet is not None:
            self._folder.write_image('contact_sheet.png', sheet)
