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
Sequences of images: two folders, two iterables or two videos, fused one pair after the other.

The functions take what fuses a pair, so that nothing here knows the fuser.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from dataclasses import replace
from itertools import zip_longest
import os
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from torch import Tensor

from dig2dig_ros.fusion.inputs import Inputs, kind_of
from dig2dig_ros.fusion.result import FusionResult
from dig2dig_ros.fusion.sources import FusionInputError
from dig2dig_ros.images.image_pairs import ImagePairError, pair_folders
from dig2dig_ros.images.output_files import check_output_file, OutputError
from dig2dig_ros.images.video import Video, VIDEO_SUFFIXES, VideoError, VideoFrames

Read: TypeAlias = Callable[[tuple[object, object], float, str], Inputs]
"""Makes a pair ready for the fusion: the images, their time in s, and where they are."""
Fuse: TypeAlias = Callable[[Inputs], FusionResult]
Progress: TypeAlias = Callable[[int, int], None]
"""Called after every frame: how many are done, and of how many, 0 where that is not known."""
Show: TypeAlias = Callable[[FusionResult], bool | None]
"""Called with every result; False ends the video with this one."""

_MISSING = object()
# Frame rates that differ by less are those of cameras that run together.
_SAME_RATE = 1e-3
# Seconds that are only rounding.
_TIE = 1e-6


def named_pairs(visible: object, thermal: object) -> Iterator[tuple[str, object, object]]:
    """
    Yield the pairs of two folders or two iterables, with their names; the latter have none.

    What can be found out at once is found out before the first pair is asked for.

    :raises FusionInputError: they are neither, or not as many of one as of the other.
    """
    paths = [isinstance(each, (str, os.PathLike)) for each in (visible, thermal)]
    if all(paths):
        try:
            pairs, _ = pair_folders(str(visible), str(thermal))
        except ImagePairError as error:
            raise FusionInputError(
                f'{error}; fuse_many takes two folders, or two iterables of images'
            ) from error
        return ((pair.name, pair.visible, pair.thermal) for pair in pairs)
    for name, each in (('visible', visible), ('thermal', thermal)):
        is_one = isinstance(each, (np.ndarray, Tensor)) and kind_of(each) == 'image'
        if any(paths) or is_one or not isinstance(each, Iterable):
            raise FusionInputError(
                f'{name} is of type {type(each).__name__}: fuse_many takes two folders, or two '
                'iterables of images; for two images, call fuser(visible, thermal)'
            )
    if isinstance(visible, Sized) and isinstance(thermal, Sized) and len(visible) != len(thermal):
        raise FusionInputError(
            f'there are {len(visible)} visible and {len(thermal)} thermal images: give as many of '
            'each'
        )
    return _zipped(visible, thermal)  # type: ignore[arg-type]


def _zipped(
    visible: Iterable[object], thermal: Iterable[object]
) -> Iterator[tuple[str, object, object]]:
    for index, pair in enumerate(zip_longest(visible, thermal, fillvalue=_MISSING)):
        if any(each is _MISSING for each in pair):
            more, fewer = ('thermal', 'visible') if pair[0] is _MISSING else ('visible', 'thermal')
            raise FusionInputError(
                f'{fewer} ends after {index} images, but {more} goes on: give as many of each'
            )
        yield '', *pair


def fuse_pairs(
    pairs: Iterator[tuple[str, object, object]], rate: float, read: Read, fuse: Fuse
) -> Iterator[FusionResult]:
    """
    Fuse pairs as they are asked for.

    :param pairs: see :func:`named_pairs`.
    :param rate: pairs per second of the scene.
    :raises FusionInputError: a pair cannot be fused; the message says which and why.
    """
    for index, (name, *images) in enumerate(pairs):
        inputs = read((images[0], images[1]), index / rate, '' if name else f'[{index}]')
        yield replace(fuse(inputs), name=name, notes=inputs.notes)


def video_paths(visible: object, thermal: object, output: object) -> tuple[Path, Path, Path]:
    """
    Return what the caller of :meth:`Fuser.fuse_video` has given as paths.

    :raises FusionInputError: one of them is none.
    """
    paths = []
    for name, path in (('visible', visible), ('thermal', thermal), ('output', output)):
        if not isinstance(path, (str, os.PathLike)):
            raise FusionInputError(
                f'{name} is of type {type(path).__name__}, not the path of a video: for frames, '
                'call fuse_many(visible, thermal)'
            )
        paths.append(Path(path))
    return paths[0], paths[1], paths[2]


def _codec_for(output: Path, inputs: Sequence[Path]) -> str:
    """Return the codec of a video to be written, or say why none can be written there."""
    codec = VIDEO_SUFFIXES.get(output.suffix.lower())
    if codec is None:
        raise FusionInputError(
            f'{output} cannot be written: a video is one of {", ".join(VIDEO_SUFFIXES)}'
        )
    try:
        check_output_file(output, inputs=inputs)
    except OutputError as error:
        raise FusionInputError(str(error)) from error
    return codec


def fuse_videos(
    visible: Path,
    thermal: Path,
    output: Path,
    read: Read,
    fuse: Fuse,
    *,
    thermal_time_offset: float = 0.0,
    progress: Progress | None = None,
    show: Show | None = None,
    on_error: Callable[[str], None] | None = None,
) -> int:
    """
    Fuse two videos into a third one; see :meth:`Fuser.fuse_video`.

    The output appears under its name when it is complete.

    :param on_error: called with what is wrong with a frame; the one before is then held.
    """
    codec = _codec_for(output, (visible, thermal))
    opened: list[VideoFrames] = []
    part = output.with_name(f'.{output.stem}.part{output.suffix}')
    writer: Video | None = None
    done = failed = 0
    try:
        opened += (VideoFrames(path) for path in (visible, thermal))
        counts = [frames.count for frames in opened]
        total = min(counts) if _run_together(opened[0], opened[1]) else counts[0]
        for stamp, *images in _paired(opened[0], opened[1], thermal_time_offset):
            try:
                inputs = read((images[0], images[1]), stamp, f' of frame {done + failed}')
                result = replace(fuse(inputs), notes=inputs.notes)
            except FusionInputError as error:
                if on_error is None:
                    raise
                on_error(f'frame {done + failed} of {visible}: {error}')
                failed += 1
                continue
            if writer is None:
                width = result.image.shape[1]
                writer = Video(lambda _: part, opened[0].rate, width, ((output.name, codec),))
            writer.add([result.image], stamp)
            if writer.name is None:
                raise VideoError(f'{output} cannot be written: OpenCV has no codec {codec} for it')
            done += 1
            if progress is not None:
                progress(done, max(done, total) if total else 0)
            if show is not None and show(result) is False:
                break
        if failed and writer is None:
            raise VideoError(f'none of the {failed} frames of {visible} can be fused')
        if writer is None:
            raise VideoError(
                f'no frames of {visible} and {thermal} belong together: they are empty, or '
                f'thermal_time_offset {thermal_time_offset:g} s moves one beyond the other'
            )
        writer.close()
        part.replace(output)
    except VideoError as error:
        raise FusionInputError(str(error)) from error
    finally:
        if writer is not None:
            writer.close()
        part.unlink(missing_ok=True)
        for frames in opened:
            frames.close()
    return done


def _run_together(visible: VideoFrames, thermal: VideoFrames) -> bool:
    return abs(visible.rate - thermal.rate) <= _SAME_RATE * visible.rate


def _paired(
    visible: VideoFrames, thermal: VideoFrames, offset: float
) -> Iterator[tuple[float, Any, Any]]:
    """
    Yield time, visible frame and thermal frame of each pair.

    By number where the two have one frame rate; otherwise each visible frame has the thermal one
    that is nearest in time, and none where that is further than a period of the thermal camera.
    """
    if offset == 0.0 and _run_together(visible, thermal):
        for (stamp, first), (_, second) in zip(visible, thermal, strict=False):
            yield stamp, first, second
        return
    coming = iter(thermal)
    now = next(coming, None)
    after = next(coming, None)
    for stamp, first in visible:
        time = stamp - offset
        while now and after and abs(after[0] - time) <= abs(now[0] - time) + _TIE:
            now, after = after, next(coming, None)
        if now is not None and abs(now[0] - time) <= 1 / thermal.rate + _TIE:
            yield stamp, first, now[1]
