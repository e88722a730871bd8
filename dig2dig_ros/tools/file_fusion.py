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

"""What ``dig2dig fuse`` does with its inputs: which they are, how they are read and fused."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import cached_property
import os
from pathlib import Path
import sys
from typing import Any, TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from dig2dig_ros.evaluation.options import (
    chosen_parameters,
    find_registration,
    load_parameters,
    report,
    set_up_fuser,
    TASKS,
    thermal_range,
    THERMAL_TASK,
    UsageError,
)
from dig2dig_ros.images.encoded import write_image
from dig2dig_ros.images.image_pairs import (
    find_pairs,
    ImagePair,
    pair_folders,
    read_photograph,
    unpaired,
)
from dig2dig_ros.images.output_files import OutputError
from dig2dig_ros.images.overlay import weight_map, with_legend
from dig2dig_ros.images.thermal_range import ThermalRangeError
from dig2dig_ros.images.video import VIDEO_SUFFIXES
from dig2dig_ros.resources import config_file
from dig2dig_ros.streams.parameters import PARAMETERS_BY_NAME
from dig2dig_ros.streams.statistics import kind_of

# Importing torch takes seconds, so a wrong command line is reported before.
if TYPE_CHECKING:
    from dig2dig_ros.fusion.fuser import Fuser
    from dig2dig_ros.fusion.inputs import InputReader, Inputs, Others
    from dig2dig_ros.fusion.result import FusionResult
    from dig2dig_ros.fusion.settings import FusionSettings

Show = Callable[[NDArray[np.uint8], int], bool]
"""Shows a picture until a key is pressed, or for some milliseconds; returns whether to go on."""
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
    Return what shows pictures in a window, in which Esc or q ends what goes on.

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

    def show(picture: NDArray[np.uint8], milliseconds: int) -> bool:
        cv2.imshow(_TITLE, picture)
        return cv2.waitKey(milliseconds) & 0xFF not in (_ESCAPE, ord('q'))

    return show


class FileFusion:
    """
    Fuses as a command line says.

    :ivar parameters: of ``fusion_node``; in ascending order, the preset of the task, the file of
        ``--preset``, the other options.
    :ivar read: makes images ready.
    :ivar weight_maps: whether they are to be written.
    :raises UsageError: the parameter file, or a value in it, cannot be used.
    :raises FusionInputError: the registration cannot be used.
    :raises FileNotFoundError: the preset is not installed.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        preset = TASKS.get(args.task)
        defaults = load_parameters(str(config_file(f'{preset}.yaml'))) if preset else {}
        self.parameters: dict[str, Any] = chosen_parameters(args, defaults)
        self.read = self._reader(args.task)
        self.weight_maps: bool = args.weights

    def _reader(self, task: str | None) -> InputReader:
        from dig2dig_ros.fusion.inputs import InputReader

        others: Others = 'thermal' if task == THERMAL_TASK else 'photographs'
        if task is None and self.parameters.get('fusion.chroma') != 'all':
            others = 'either'

        def value(name: str) -> Any:
            return self.parameters.get(name, PARAMETERS_BY_NAME[name].default)

        try:
            return InputReader(
                others,
                find_registration(self.parameters),
                thermal_range(self.parameters, value('thermal_range_smoothing')),
                value('thermal_crop'),
                edge=value('registration_edge'),
                advice='if it is a photograph, use --task multi-focus or multi-exposure',
            )
        except ThermalRangeError as error:
            raise UsageError(str(error)) from error

    @cached_property
    def fuser(self) -> Fuser:
        """
        Return what fuses, loaded at the first use.

        :raises UsageError: a value is refused, or the device or the prior is missing.
        """
        return set_up_fuser(self.parameters)

    def prepare(self, images: Sequence[NDArray[Any]], paths: Sequence[Path]) -> Inputs:
        """
        Make images of one scene ready, and report what was noticed in them.

        :raises FusionInputError: one cannot be used.
        """
        inputs = self.read(images, names=[*map(str, paths)])
        for note in inputs.notes:
            report(f'dig2dig fuse: {note}')
        return inputs

    def settings(self, inputs: Inputs) -> FusionSettings:
        """Return how to fuse: unless told otherwise, with the colour of all that have colour."""
        settings = self.fuser.settings
        if 'fusion.chroma' in self.parameters or all(x.ndim == 2 for x in inputs.images[1:]):
            return settings
        return settings.changed(chroma='all')

    def fuse(self, inputs: Inputs) -> FusionResult:
        """Fuse images of one scene; raises what :meth:`Fuser.fuse` does."""
        return self.fuser.fuse(
            *inputs.images,
            settings=self.settings(inputs),
            placements=inputs.placements,
            weight_maps=self.weight_maps,
        )


def output_files(fused: Path, sources: int, weights: bool) -> list[Path]:
    """
    Return the files to write: the fused image, and what ``--weights`` asks for.

    That is OUT.weights.1.png and so on for each source, white where it alone counts, and
    OUT.overlay.png, the fused image coloured by what came from which source.
    """
    maps = [f'weights.{index}' for index in range(1, sources + 1)]
    names = [f'{fused.stem}.{name}.png' for name in [*maps, 'overlay']] if weights else []
    return [fused, *(fused.with_name(name) for name in names)]


def write_pictures(files: Sequence[Path], result: FusionResult, names: Sequence[str]) -> None:
    """
    Write the fused image and, where there are files for them, weight maps and overlay.

    :param files: see :func:`output_files`.
    :param names: of the sources, for the legend.
    """
    pictures = [result.image]
    if len(files) > 1:
        pictures += [weight_map(weight) for weight in result.weights]
        pictures.append(with_legend(result.overlay(), names))
    for path, picture in zip(files, pictures, strict=True):
        write_image(path, picture)


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
            f'dig2dig fuse: left out, as they have no counterpart ({len(alone)}): '
            f'{", ".join(alone[:_MOST_NAMED])}{more}'
        )
    return pairs


def check_pair_files(pairs: Sequence[ImagePair], output: Path, weights: bool) -> None:
    """
    Make sure that no fused image replaces an image of a pair, by its name or as a link.

    :raises OutputError: one would.
    """
    sources = [path for pair in pairs for path in (pair.visible, pair.thermal) if path.exists()]
    inputs = {(found.st_dev, found.st_ino) for found in map(Path.stat, sources)}
    for pair in pairs:
        for path in output_files(output / f'{pair.name}.png', 2, weights):
            if path.exists() and (path.stat().st_dev, path.stat().st_ino) in inputs:
                raise OutputError(f'{path} is one of the inputs: name another output')


def fuse_folders(
    pairs: Sequence[ImagePair], output: Path, fusion: FileFusion, show: Show | None
) -> tuple[int, int]:
    """
    Fuse pairs into a folder, each for itself; those that cannot be fused are reported.

    :return: how many pairs were fused, and how many were left out.
    :raises UsageError: none could be fused, or memory is not enough.
    """
    done = skipped = 0
    for number, pair in enumerate(pairs, start=1):
        try:
            files = pair.visible, pair.thermal
            inputs = fusion.prepare([*map(read_photograph, files)], files)
            result = fusion.fuse(inputs)
        except RuntimeError as error:  # memory that is not enough
            raise UsageError(f'{pair.name} cannot be fused: {error}') from error
        except ValueError as error:
            skipped += 1
            report(f'dig2dig fuse: {pair.name} is left out: {error}')
            continue
        is_thermal = fusion.settings(inputs).chroma == 'first'
        names = ('visible', 'thermal') if is_thermal else ('first', 'second')
        written = output_files(output / f'{pair.name}.png', 2, fusion.weight_maps)
        write_pictures(written, result, names)
        done += 1
        _progress(number, len(pairs))
        if show is not None and not show(result.image, 1):
            break
    if not done:
        raise UsageError(f'none of the {skipped} pairs could be fused, see above')
    return done, skipped


def fuse_videos(
    paths: Sequence[Path], output: Path, fusion: FileFusion, show: Show | None
) -> tuple[int, int]:
    """
    Fuse two videos into a third one, which appears when it is complete.

    :return: how many frames were fused, and how many were left out.
    :raises UsageError: it cannot be done.
    """
    from dig2dig_ros.fusion import sequences

    noted: set[str] = set()

    def look(result: FusionResult) -> bool:
        for note in result.notes:
            # The same for every frame, except for numbers.
            if (kind := kind_of(note)) not in noted:
                noted.add(kind)
                report(f'dig2dig fuse: {note}')
        return show is None or show(result.image, 1)

    visible, thermal = paths
    skipped = 0

    def leave_out(error: str) -> None:
        nonlocal skipped
        skipped += 1
        report(f'dig2dig fuse: {error}; left out')

    try:
        done = sequences.fuse_videos(
            visible,
            thermal,
            output,
            fusion.read,
            fusion.fuse,
            thermal_time_offset=fusion.parameters.get('thermal_time_offset', 0.0),
            progress=_progress,
            show=look,
            on_error=leave_out,
        )
    except (ValueError, RuntimeError) as error:
        raise UsageError(f'the videos cannot be fused: {error}') from error
    return done, skipped


def _progress(done: int, total: int) -> None:
    """Report how far the work is, at powers of two and every hundred pairs."""
    if done % 100 == 0 or done == total or done & (done - 1) == 0:
        report(f'dig2dig fuse: {done}{f" of {total}" if total else ""} done')
