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

"""What ``dig2dig fuse`` does with folders and videos: one pair after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import os
from pathlib import Path
import sys
from typing import Any, TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from dig2dig_ros.evaluation.options import report, thermal_crop, thermal_range, UsageError
from dig2dig_ros.images.image_pairs import (
    find_pairs,
    ImagePair,
    pair_folders,
    read_photograph,
    unpaired,
)
from dig2dig_ros.images.placement import Placement
from dig2dig_ros.images.registration_file import load_registration
from dig2dig_ros.images.thermal_range import without_rows
from dig2dig_ros.images.video import VIDEO_SUFFIXES
from dig2dig_ros.streams.parameters import PARAMETERS_BY_NAME
from dig2dig_ros.streams.statistics import kind_of

# Importing torch takes seconds, which a mistake in the command line need not cost.
if TYPE_CHECKING:
    from dig2dig_ros.fusion.fuser import Fuser
    from dig2dig_ros.fusion.result import FusionResult

Show = Callable[[NDArray[np.uint8], int], None]
"""Shows a picture and waits for a key, that many milliseconds or, with 0, for ever."""
Write = Callable[['FusionResult', str], None]
"""Writes a result under the name of its pair."""
# Of many paths, a message names the first.
_MOST_NAMED = 3
_TITLE = 'dig2dig fuse'
_ESCAPE = 27


def kind_of_inputs(paths: Sequence[Path]) -> str:
    """
    Return what the command is to fuse: 'images', 'folders' or 'videos'.

    :raises UsageError: the paths are not all of one kind, or too many or too few of it.
    """
    kinds = {
        'folders': [path.is_dir() for path in paths],
        'videos': [path.suffix.lower() in VIDEO_SUFFIXES for path in paths],
    }
    for kind, matches in kinds.items():
        if not any(matches):
            continue
        if not all(matches):
            other = paths[matches.index(False)]
            raise UsageError(
                f'{paths[matches.index(True)]} is a {kind.removesuffix("s")}, but {other} is not: '
                'give images, two folders, or two videos'
            )
        if len(paths) != 2 and (kind, len(paths)) != ('folders', 1):
            raise UsageError(f'{len(paths)} {kind}: give the visible one and the thermal one')
        return kind
    if len(paths) < 2:
        raise UsageError(f'two or more images needed, but there is only {paths[0]}')
    return 'images'


def window() -> Show:
    """
    Return what shows pictures in a window, in which Esc or q ends the command as Ctrl-C does.

    :raises UsageError: there is no display, or OpenCV here has no windows.
    """
    if sys.platform == 'linux' and not any(map(os.environ.get, ('DISPLAY', 'WAYLAND_DISPLAY'))):
        # Without one, Qt ends the process.
        raise UsageError('--show needs a display: DISPLAY and WAYLAND_DISPLAY are not set')
    try:
        cv2.namedWindow(_TITLE, cv2.WINDOW_NORMAL)
    except cv2.error as error:
        raise UsageError(
            '--show needs an OpenCV with windows: replace opencv-python-headless by '
            'opencv-python, or use the python3-opencv of your distribution'
        ) from error

    def show(picture: NDArray[np.uint8], milliseconds: int) -> None:
        cv2.imshow(_TITLE, picture)
        if cv2.waitKey(milliseconds) & 0xFF in (_ESCAPE, ord('q')):
            raise KeyboardInterrupt

    return show


def paired(paths: Sequence[Path]) -> list[ImagePair]:
    """
    Return the pairs of two folders, or of one that holds both; report what has no counterpart.

    :raises ImagePairError: there are none.
    """
    if len(paths) == 1:
        pairs, alone = find_pairs(paths[0]), unpaired(paths[0])
    else:
        pairs, left_out = pair_folders(*paths)
        alone = [str(path) for path in left_out]
    if alone:
        more = ' and others' if len(alone) > _MOST_NAMED else ''
        report(
            f'dig2dig fuse: {len(alone)} images without a counterpart are left out: '
            f'{", ".join(alone[:_MOST_NAMED])}{more}'
        )
    return pairs


def fuse_folders(
    paths: Sequence[Path],
    fuser: Fuser,
    parameters: Mapping[str, Any],
    write: Write,
    show: Show | None,
    weight_maps: bool,
) -> tuple[int, int]:
    """
    Fuse the pairs of folders, each for itself; those that cannot be fused are reported.

    :param parameters: of ``fusion_node``.
    :return: how many pairs were fused, and how many were left out.
    :raises ImagePairError: there are no pairs.
    :raises UsageError: the registration cannot be used.
    """
    registration = _registration(parameters)
    photographs = fuser.settings.chroma == 'all'
    pairs = paired(paths)
    skipped = 0
    for number, pair in enumerate(pairs, start=1):
        try:
            visible, thermal = read_photograph(pair.visible), read_photograph(pair.thermal)
            if not photographs:
                thermal = without_rows(thermal, thermal_crop(parameters))
            result = fuser(
                visible,
                thermal,
                registration=registration,
                thermal_range=thermal_range(parameters),
                weight_maps=weight_maps,
            )
        except RuntimeError as error:  # memory that is not enough
            raise UsageError(f'{pair.name} cannot be fused: {error}') from error
        except ValueError as error:
            skipped += 1
            report(f'dig2dig fuse: {pair.name} is left out: {error}')
            continue
        for note in result.notes:
            report(f'dig2dig fuse: {pair.name}: {note}')
        write(result, pair.name)
        if show is not None:
            show(result.image, 1)
        _progress(number, len(pairs))
    return len(pairs) - skipped, skipped


def fuse_videos(
    paths: Sequence[Path],
    output: Path,
    fuser: Fuser,
    parameters: Mapping[str, Any],
    show: Show | None,
) -> tuple[int, int]:
    """
    Fuse two videos into a third one, which appears when it is complete.

    :param parameters: of ``fusion_node``.
    :return: how many frames were fused, and how many were left out.
    :raises UsageError: it cannot be done.
    """
    if any(thermal_crop(parameters)):
        raise UsageError('thermal_crop is not for videos: cut the rows off before, with ffmpeg')
    noted: set[str] = set()

    def look(result: FusionResult) -> None:
        for note in result.notes:
            # Of every frame the same, but for numbers.
            if (kind := kind_of(note)) not in noted:
                noted.add(kind)
                report(f'dig2dig fuse: {note}')
        if show is not None:
            show(result.image, 1)

    skipped = 0

    def leave_out(error: str) -> None:
        nonlocal skipped
        skipped += 1
        report(f'dig2dig fuse: {error}; left out')

    visible, thermal = paths
    try:
        done = fuser.fuse_video(
            visible,
            thermal,
            output,
            thermal_time_offset=float(parameters.get('thermal_time_offset', 0.0)),
            registration=_registration(parameters),
            weight_maps=False,
            progress=_progress,
            show=look,
            on_error=leave_out,
        )
    except (ValueError, RuntimeError) as error:
        raise UsageError(f'the videos cannot be fused: {error}') from error
    return done, skipped


def _registration(parameters: Mapping[str, Any]) -> Placement | None:
    path = parameters.get('thermal_to_visible')
    edge = parameters.get('registration_edge', PARAMETERS_BY_NAME['registration_edge'].default)
    try:
        return load_registration(path).placement(float(edge)) if path else None
    except (TypeError, ValueError) as error:
        raise UsageError(f'the images cannot be registered: {error}') from error


def _progress(done: int, total: int) -> None:
    """Report how far the work is, at powers of two and every hundred pairs."""
    if done % 100 == 0 or done == total or done & (done - 1) == 0:
        report(f'dig2dig fuse: {done}{f" of {total}" if total else ""} done')
