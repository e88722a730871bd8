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

"""Files of videos: frames one after the other, and pictures side by side as they come."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import contextmanager
import math
import os
from pathlib import Path
import re
from typing import Any, TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from dig2dig_ros.images.encoded import EncodedImageError, MAX_PIXELS, refuse_large

if TYPE_CHECKING:
    from collections.abc import Iterator

Image = NDArray[np.uint8]

# (file name, four-character code), in the order in which they are tried.
MPEG4_FIRST = (('video.mp4', 'mp4v'), ('video.avi', 'MJPG'))
# VP8 in WebM plays in every browser, which OpenCV's MPEG-4 does not.
FOR_BROWSERS = (('video.webm', 'VP80'), *MPEG4_FIRST)

# The codec for each kind of file that FFmpeg in OpenCV's wheels and in Debian can write.
VIDEO_SUFFIXES = {'.mp4': 'mp4v', '.mkv': 'mp4v', '.mov': 'mp4v', '.avi': 'MJPG', '.webm': 'VP80'}

# MP4 and MOV, Matroska and WebM, AVI. FFmpeg itself would also follow a playlist to other files.
_CONTAINERS = re.compile(
    rb'....(ftyp|moov|mdat|wide|free|skip|pnot)|\x1a\x45\xdf\xa3|RIFF....AVI ', re.DOTALL
)
# FFmpeg looks at more than the beginning: it shall take nothing for a format of another kind.
_ONLY_CONTAINERS = 'format_whitelist;mov,matroska,webm,avi|protocol_whitelist;file'
# Each thread of a decoder holds a frame, which may be larger than the file states. OpenCV 4.6 does
# not know how to say so.
_ONE_THREAD = [cv2.CAP_PROP_N_THREADS, 1] if hasattr(cv2, 'CAP_PROP_N_THREADS') else []
# Values of CAP_PROP_CODEC_PIXEL_FORMAT for one channel of 16 bits, as in thermal videos.
_GREY_16 = int.from_bytes(b'Y1\0\x10', 'little')
# Frames per second that a file may state; others say nothing.
_RATES = (0.01, 1000.0)
_USUAL_RATE = 25.0

# Seconds after which a pause is cut short: nothing happens in it.
_LONGEST_PAUSE = 5.0


class VideoError(ValueError):
    """A video cannot be read or written; the text says which and why."""


class VideoFrames:
    """
    The frames of a video file, in order.

    :param path: an MP4, MOV, MKV, WebM or AVI file.
    :param max_pixels: of a frame, as the file states it; FFmpeg may decode the first one to know.
    :ivar rate: frames per second as the file states them.
    :ivar count: how many frames the file states; 0 where it does not. There may be more or fewer.
    :raises VideoError: it cannot be opened, or its frames are too large; the latter also later.
    """

    def __init__(self, path: Path, max_pixels: int = MAX_PIXELS) -> None:
        self._path = path
        self._max_pixels = max_pixels
        try:
            if not path.is_file():
                reason = 'it is not a file' if path.exists() else 'no such file'
                raise VideoError(f'cannot read {path}: {reason}')
            with path.open('rb') as file:
                begin = file.read(12)
        except OSError as error:
            raise VideoError(f'cannot read {path}: {error.strerror or error}') from error
        if not _CONTAINERS.match(begin):
            raise VideoError(f'cannot read {path}: it is no MP4, MOV, MKV, WebM or AVI video')
        with _quiet(), _restricted():
            # With a full path nothing in the name is taken for a protocol.
            name = str(path.resolve())
            self._capture = cv2.VideoCapture(name, cv2.CAP_FFMPEG, _ONE_THREAD)
        if not self._capture.isOpened():
            raise VideoError(
                f'cannot read {path}: it is damaged, its codec is unknown, or OpenCV has no FFmpeg'
            )
        width, height = (
            int(self._capture.get(each))
            for each in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
        )
        try:
            refuse_large(width, height, max_pixels)
        except EncodedImageError as error:
            self.close()
            raise VideoError(f'cannot read {path}: {error}') from None
        rate = float(self._capture.get(cv2.CAP_PROP_FPS))
        self.rate = rate if _RATES[0] <= rate <= _RATES[1] else _USUAL_RATE
        count = float(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.count = int(count) if math.isfinite(count) and count > 0 else 0
        if int(self._capture.get(cv2.CAP_PROP_CODEC_PIXEL_FORMAT)) == _GREY_16:
            self._capture.set(cv2.CAP_PROP_CONVERT_RGB, 0)

    def __iter__(self) -> Iterator[tuple[float, NDArray[Any]]]:
        """
        Yield time in s from the first frame on, and frame.

        (H, W, 3) uint8, blue-green-red; or (H, W) uint16 where the video has one channel of 16
        bits.
        """
        first, last, index = 0.0, -1.0, 0
        while True:
            done, frame = self._capture.read()
            if not done:
                return
            height, width = frame.shape[:2]
            try:
                refuse_large(width, height, self._max_pixels)
            except EncodedImageError as error:
                raise VideoError(f'cannot read {self._path}: frame {index}: {error}') from None
            stamp = float(self._capture.get(cv2.CAP_PROP_POS_MSEC)) / 1000
            if index == 0:
                first = stamp
            stamp -= first
            # A file without times has all of them 0.
            last = stamp if stamp > last else last + 1 / self.rate
            index += 1
            yield last, frame

    def close(self) -> None:
        """Close the file."""
        self._capture.release()


class Video:
    """
    Pictures of one moment side by side, each moment held until the next one's stamp.

    So the video runs as fast as the scene did. Where OpenCV can write none of the formats, there
    is no video, and `name` stays None.

    :param file: returns the path for a file name, and is asked only for what is written.
    :param rate: frames per second of the file.
    :param max_panel_width: of one picture in pixels.
    :param formats: file names and codecs to try.
    """

    def __init__(
        self,
        file: Callable[[str], Path],
        rate: float,
        max_panel_width: int = 640,
        formats: Sequence[tuple[str, str]] = MPEG4_FIRST,
    ) -> None:
        self._file = file
        self._rate = rate
        self._max_panel_width = max_panel_width
        self._formats = formats
        self._panel = (0, 0)
        self._panels = 0
        self._writer: Any = None
        self._failed = False
        self._last: tuple[float, Image] | None = None
        self.name: str | None = None

    def add(self, pictures: Sequence[Image], stamp_s: float) -> None:
        """
        Append a moment; the first one sets the size, others are fitted into it.

        :param pictures: (H, W) or (H, W, 3) BGR; always as many as at first. The last one
            decides on the size of a panel.
        :param stamp_s: in seconds, from any beginning.
        """
        if self._failed:
            return
        if self._writer is None:
            height, width = pictures[-1].shape[:2]
            scale = min(1.0, self._max_panel_width / width)
            # Most codecs store colour at half the resolution: sides must be even.
            self._panel = (_even(width * scale), _even(height * scale))
            self._panels = len(pictures)
            self._open()
            if self._failed:
                return
        picture = np.hstack([fitted(to_bgr(image), *self._panel) for image in pictures])
        if self._last is not None:
            stamp, previous = self._last
            repeats = round((stamp_s - stamp) * self._rate)
            for _ in range(min(max(repeats, 1), round(_LONGEST_PAUSE * self._rate))):
                self._writer.write(previous)
        self._last = (stamp_s, picture)

    def _open(self) -> None:
        size = (self._panels * self._panel[0], self._panel[1])
        for name, codec in self._formats:
            path = self._file(name)
            code = cv2.VideoWriter_fourcc(*codec)  # type: ignore[attr-defined]
            with _quiet():
                writer = cv2.VideoWriter(str(path), code, self._rate, size)
            if writer.isOpened():
                self._writer, self.name = writer, name
                return
            writer.release()
            path.unlink(missing_ok=True)
        self._failed = True

    def close(self) -> None:
        """Finish the file; without any frame there is none."""
        if self._writer is not None:
            if self._last is not None:
                self._writer.write(self._last[1])
            self._writer.release()
            self._writer = None


@contextmanager
def _restricted() -> Iterator[None]:
    """Have OpenCV open nothing but the containers that are known, from files."""
    name = 'OPENCV_FFMPEG_CAPTURE_OPTIONS'
    kept = os.environ.get(name)
    # The later of two wins.
    os.environ[name] = f'{kept}|{_ONLY_CONTAINERS}' if kept else _ONLY_CONTAINERS
    try:
        yield
    finally:
        if kept is None:
            del os.environ[name]
        else:
            os.environ[name] = kept


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep back what FFmpeg prints about codecs, on the process's own standard error."""
    kept = os.dup(2)
    silence = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(silence, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(silence)


def to_bgr(image: NDArray[Any]) -> Image:
    """Return an 8-bit image of shape (H, W) or (H, W, 3) as (H, W, 3) BGR, contiguous."""
    if image.ndim == 2:
        image = np.repeat(image[:, :, None], 3, axis=2)
    return np.ascontiguousarray(image, dtype=np.uint8)


def fitted(image: Image, width: int, height: int) -> Image:
    """Scale ``image`` (H, W, 3) to fit into ``width`` x ``height`` and centre it on black."""
    scale = min(width / image.shape[1], height / image.shape[0])
    inner_width = _fit(image.shape[1] * scale, width)
    inner_height = _fit(image.shape[0] * scale, height)
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    canvas = np.zeros((height, width, 3), np.uint8)
    top, left = (height - inner_height) // 2, (width - inner_width) // 2
    canvas[top : top + inner_height, left : left + inner_width] = cv2.resize(
        image, (inner_width, inner_height), interpolation=method
    )
    return canvas


def _fit(side: float, available: int) -> int:
    """Round a side to whole pixels, and up to all of them where only a sliver would be left."""
    rounded = max(1, round(side))
    return available if rounded >= available - 1 else rounded


def _even(side: float) -> int:
    return max(2, int(side) // 2 * 2)
