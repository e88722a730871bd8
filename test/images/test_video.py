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

"""Videos of pictures side by side."""

from collections.abc import Sequence
import os
from pathlib import Path
import struct

import cv2
import numpy as np
from numpy.typing import NDArray
import pytest

from dig2dig_ros.images.video import (
    fitted,
    FOR_BROWSERS,
    MPEG4_FIRST,
    to_bgr,
    Video,
    VideoError,
    VideoFrames,
)


def read_video(path: Path) -> list[NDArray[np.uint8]]:
    capture = cv2.VideoCapture(str(path))
    frames: list[NDArray[np.uint8]] = []
    while True:
        done, frame = capture.read()
        if not done:
            return frames
        frames.append(frame.astype(np.uint8))


def pictures(width: int = 97, height: int = 64) -> list[NDArray[np.uint8]]:
    return [np.full((height, width, 3), level, np.uint8) for level in (40, 90, 140)]


@pytest.mark.parametrize('formats', [MPEG4_FIRST, FOR_BROWSERS])
def test_video_holds_each_frame_until_the_next_stamp(
    tmp_path: Path, formats: tuple[tuple[str, str], ...]
) -> None:
    video = Video(tmp_path.joinpath, rate=10.0, formats=formats)
    for stamp in (0.0, 0.1, 0.5):
        video.add(pictures(), stamp)
    video.close()
    assert video.name is not None
    frames = read_video(tmp_path / video.name)
    assert len(frames) == 1 + 4 + 1
    assert frames[0].shape == (64, 3 * 96, 3)
    # But for the codec's losses.
    thirds = [float(part.mean()) for part in np.array_split(frames[0], 3, axis=1)]
    assert thirds == pytest.approx([40, 90, 140], abs=6)


def test_pictures_of_another_size_are_fitted_into_the_first_one(tmp_path: Path) -> None:
    video = Video(tmp_path.joinpath, rate=10.0)
    video.add(pictures(96, 64), 0.0)
    video.add([np.full((32, 32), 200, np.uint8)] * 3, 0.1)
    video.close()
    assert video.name is not None
    _, second = read_video(tmp_path / video.name)
    assert second.shape == (64, 3 * 96, 3)
    assert second[32, 48].mean() > 150
    assert second[32, 4].mean() < 40


def test_video_without_frames_leaves_no_file(tmp_path: Path) -> None:
    video = Video(tmp_path.joinpath, rate=10.0)
    video.close()
    assert video.name is None
    assert not list(tmp_path.glob('video*'))


def test_video_falls_back_to_motion_jpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = cv2.VideoWriter

    def without_mpeg4(path: str, code: int, rate: float, size: tuple[int, int]) -> object:
        return real() if path.endswith('.mp4') else real(path, code, rate, size)

    without_mpeg4.fourcc = real.fourcc  # type: ignore[attr-defined]
    monkeypatch.setattr(cv2, 'VideoWriter', without_mpeg4)
    video = Video(tmp_path.joinpath, rate=10.0)
    video.add(pictures(), 0.0)
    video.close()
    assert video.name == 'video.avi'
    assert len(read_video(tmp_path / 'video.avi')) == 1


@pytest.mark.parametrize(('width', 'height'), [(64, 64), (31, 90), (200, 20)])
def test_fitted_keeps_the_aspect_ratio(width: int, height: int) -> None:
    image = np.full((40, 80, 3), 255, np.uint8)
    picture = fitted(image, width, height)
    assert picture.shape == (height, width, 3)
    lit = picture[:, :, 0] > 0
    inner_width, inner_height = int(lit.any(axis=0).sum()), int(lit.any(axis=1).sum())
    assert inner_width == width or inner_height == height
    assert abs(inner_width - 2 * inner_height) <= 2


def test_grey_pictures_become_three_equal_channels() -> None:
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    colour = to_bgr(grey)
    assert colour.shape == (3, 4, 3)
    assert (colour == grey[..., None]).all()


def test_frames_have_times_and_are_bounded(tmp_path: Path) -> None:
    video = Video(tmp_path.joinpath, rate=12.5, max_panel_width=96)
    for index in range(3):
        video.add(pictures(96, 64)[index : index + 1], index / 12.5)
    video.close()
    path = tmp_path / 'video.mp4'
    frames = VideoFrames(path)
    assert (frames.rate, frames.count) == (12.5, 3)
    stamps, images = zip(*frames, strict=True)
    frames.close()
    assert stamps == pytest.approx([0, 0.08, 0.16])
    assert [float(image.mean()) for image in images] == pytest.approx([40, 90, 140], abs=6)
    with pytest.raises(VideoError, match='96x64 is beyond the limit of 6000 pixels'):
        VideoFrames(path, max_pixels=6000)


def test_playlists_are_not_followed(tmp_path: Path) -> None:
    path = tmp_path / 'list.mp4'
    path.write_text('#EXTM3U\n#EXTINF:1,\nvideo.ts\n')
    with pytest.raises(VideoError, match='it is no MP4, MOV, MKV, WebM or AVI video'):
        VideoFrames(path)


def motion_jpeg(folder: Path, sizes: Sequence[tuple[int, int]]) -> Path:
    """Write an AVI whose header states the first size, with a frame of each."""
    path = folder / 'frames.avi'
    code = cv2.VideoWriter.fourcc(*'MJPG')
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, code, 10.0, sizes[0])
    writer.write(np.zeros((sizes[0][1], sizes[0][0], 3), np.uint8))
    writer.release()
    head, _, _ = path.read_bytes().partition(b'movi')
    frames = [cv2.imencode('.jpg', np.zeros((h, w, 3), np.uint8))[1].tobytes() for w, h in sizes]
    body = b'movi' + b''.join(
        b'00dc' + struct.pack('<I', len(each)) + each + b'\0' * (len(each) % 2) for each in frames
    )
    path.write_bytes(head[:-4] + struct.pack('<I', len(body)) + body)
    return path


def test_frames_larger_than_the_header_states_are_bounded(tmp_path: Path) -> None:
    later = VideoFrames(motion_jpeg(tmp_path, [(64, 48), (256, 192)]), max_pixels=4000)
    # OpenCV scales what changes its size to that of the first frame.
    assert [frame.shape for _, frame in later] == [(48, 64, 3)] * 2
    later.close()
    with pytest.raises(VideoError, match='256x192 is beyond the limit of 4000 pixels'):
        list(VideoFrames(motion_jpeg(tmp_path, [(256, 192)]), max_pixels=4000))


def test_other_formats_behind_the_mark_of_a_container_are_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / 'stream.mkv'
    packet = b'\x47' + bytes(187)
    path.write_bytes(b'\x1a\x45\xdf\xa3\0\nv=0\nc=IN IP4 127.0.0.1\n' + packet * 50)
    monkeypatch.setenv('OPENCV_FFMPEG_CAPTURE_OPTIONS', 'format_whitelist;sdp,mpegts')
    with pytest.raises(VideoError, match='it is damaged, its codec is unknown'):
        VideoFrames(path)
    assert os.environ['OPENCV_FFMPEG_CAPTURE_OPTIONS'] == 'format_whitelist;sdp,mpegts'


def test_counts_of_16_bits_are_kept(tmp_path: Path) -> None:
    counts = (np.arange(64 * 96).reshape(64, 96) + 8000).astype(np.uint16)
    path = tmp_path / 'counts.mkv'
    code = cv2.VideoWriter.fourcc(*'FFV1')
    depth = [cv2.VIDEOWRITER_PROP_IS_COLOR, 0, cv2.VIDEOWRITER_PROP_DEPTH, cv2.CV_16U]
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, code, 10.0, (96, 64), depth)
    if not writer.isOpened():
        pytest.skip('this OpenCV writes no video of 16 bits')
    writer.write(counts)
    writer.release()
    ((_, frame),) = VideoFrames(path)
    assert np.array_equal(frame, counts)
