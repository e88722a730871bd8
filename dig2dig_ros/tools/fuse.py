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
Fuse images, folders or videos, without ROS.

Two or more IMAGES of one scene become one, with the size of the first. Two FOLDERS, visible and
thermal, or one that holds both, are paired by file name, and each pair is fused for itself. Two
VIDEOS, visible and thermal, become one video. All have the colour of the first; photographs, with
--task multi-focus or multi-exposure, that of all. Grey images of 16 bits are mapped to a range as
the node maps thermal counts, except with these tasks.

What was done is printed in one line; everything else goes to the standard error. Exit code: 0; 1
if some pairs or frames could not be fused; 2 if nothing could be done; 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from dig2dig_ros.evaluation.options import (
    add_fusion_options,
    check_output,
    chosen_parameters,
    load_parameters,
    report,
    set_up_fuser,
    TASKS,
    thermal_crop,
    thermal_range,
    THERMAL_TASK,
    UsageError,
)
from dig2dig_ros.images.bit_depth import BitDepth
from dig2dig_ros.images.encoded import EncodedImageError, write_image
from dig2dig_ros.images.geometry import size_of, stretch_text
from dig2dig_ros.images.image_pairs import (
    has_colour,
    looks_like_palette,
    NO_PALETTE,
    read_photograph,
)
from dig2dig_ros.images.no_data import filled, NoData, placement_of_data
from dig2dig_ros.images.output_files import check_output_file
from dig2dig_ros.images.overlay import weight_map, with_legend
from dig2dig_ros.images.placement import Placement
from dig2dig_ros.images.registration_file import load_registration
from dig2dig_ros.images.thermal_range import ThermalRangeError, without_rows
from dig2dig_ros.nodes.signals import run_tool
from dig2dig_ros.resources import config_file
from dig2dig_ros.streams.parameters import PARAMETERS_BY_NAME
from dig2dig_ros.tools.fuse_sequences import (
    fuse_folders,
    fuse_videos,
    kind_of_inputs,
    Show,
    window,
)

DEFAULT_OUTPUTS = {'images': 'fused.png', 'folders': 'fused', 'videos': 'fused.mp4'}

# Importing torch takes seconds, which a mistake in the command line need not cost.
if TYPE_CHECKING:
    from dig2dig_ros.fusion.fuser import Fuser, FusionResult


def output_files(fused: Path, sources: int, weights: bool) -> list[Path]:
    """
    Return the files to write: the fused image, and what ``--weights`` asks for.

    That is OUT.weights.1.png and so on for each source, white where it alone counts, and
    OUT.overlay.png, the fused image coloured by what came from which source.
    """
    maps = [f'weights.{index}' for index in range(1, sources + 1)]
    names = [f'{fused.stem}.{name}.png' for name in [*maps, 'overlay']] if weights else []
    return [fused, *(fused.with_name(name) for name in names)]


def check_files(files: Sequence[Path], inputs: Sequence[Path]) -> None:
    """
    Find out before the work what would fail after it.

    :raises UsageError, OutputError: a file cannot be written, or is one of the inputs.
    """
    suffix = files[0].suffix
    if not cv2.haveImageWriter(f'image{suffix}'):
        problem = f'the suffix {suffix!r}' if suffix else 'a name without a suffix'
        raise UsageError(
            f'{files[0]} cannot be written: OpenCV has no image format for {problem}; '
            'use .png, .tif or .jpg'
        )
    for path in files:
        check_output_file(path, inputs=inputs)


def choose_parameters(args: argparse.Namespace, images: Sequence[NDArray[Any]]) -> dict[str, Any]:
    """
    Return the parameters of ``fusion_node`` to fuse with.

    In ascending order: the preset of the task, the file of ``--preset``, the other options.
    Without a task, all images with colour count unless the file says something else.

    :raises UsageError: the parameter file, or a value in it, cannot be used.
    :raises FileNotFoundError: the preset is not installed.
    """
    parameters: dict[str, Any] = {}
    if args.task is not None:
        parameters.update(load_parameters(str(config_file(f'{TASKS[args.task]}.yaml'))))
    elif any(image.ndim == 3 for image in images[1:]):
        parameters['fusion.chroma'] = 'all'
    return chosen_parameters(args, parameters)


def check_colours(paths: Sequence[Path], images: Sequence[NDArray[Any]], task: str | None) -> None:
    """
    Refuse thermal images in false colours, as the node does.

    :raises UsageError: an image is one; without a task, one that looks like it.
    """
    if task not in (None, THERMAL_TASK):
        return
    for index, (path, image) in enumerate(zip(paths, images, strict=True)):
        is_thermal = task is not None and index == 1
        if index and (looks_like_palette(image) or (is_thermal and has_colour(image))):
            raise UsageError(
                f'{path}: {NO_PALETTE}; if it is a photograph, say --task multi-focus or '
                'multi-exposure'
            )


def prepare_sources(
    images: Sequence[NDArray[Any]], task: str | None, parameters: Mapping[str, Any]
) -> tuple[list[NDArray[Any]], dict[int, NoData]]:
    """
    Map thermal images to [0, 1]: all that are grey, but for a first one of 8 bits.

    :return: the images, and by their numbers where some hold no measurement.
    :raises UsageError: a value of the parameters is refused.
    """
    if task not in (None, THERMAL_TASK):
        # A grey photograph of 16 bits is no thermal image, which the fuser would take it for.
        scale = np.float32(65535)
        return [
            image / scale if image.dtype == np.uint16 and image.ndim == 2 else image
            for image in images
        ], {}
    ranges = thermal_range(parameters)
    sources, found = [], {}
    for index, image in enumerate(images):
        if image.ndim == 2 and (index > 0 or image.dtype == np.uint16):
            image = ranges(image, 0.0)
            if ranges.no_data is not None:
                found[index] = ranges.no_data
                image = filled(image, ranges.no_data.mask)
        sources.append(image)
    return sources, found


def place_sources(
    images: Sequence[NDArray[Any]],
    parameters: Mapping[str, Any],
    no_data: Mapping[int, NoData],
) -> tuple[Placement | None, ...]:
    """
    Return where the others lie on the first, if ``thermal_to_visible`` tells or data are missing.

    :raises UsageError: the file cannot be used, or is for images of other sizes.
    """
    path = parameters.get('thermal_to_visible', '')
    if not path and not no_data:
        return ()
    edge = parameters.get('registration_edge', PARAMETERS_BY_NAME['registration_edge'].default)
    placements: list[Placement | None] = [None] * len(images)
    size = size_of(images[0])
    try:
        if path:
            registration = load_registration(path)
            registration.check_sizes(size, size_of(images[1]))
            placements[1] = registration.placement(float(edge))
        for index, found in no_data.items():
            if index:  # the first one is what all lie on
                mask = found.mask
                placements[index] = placement_of_data(mask, placements[index], size, float(edge))
    except (TypeError, ValueError) as error:
        raise UsageError(f'the images cannot be registered: {error}') from error
    return tuple(placements)


def size_text(image: NDArray[Any]) -> str:
    """Return the size of an image as WIDTHxHEIGHT."""
    return f'{image.shape[1]}x{image.shape[0]}'


def description(fuser: Fuser) -> str:
    """Return how a fuser fuses, and where."""
    about = fuser.describe()
    return (
        f'N {about["N"]}, S {about["S"]}, prior {about["prior"]}, {about["device"]}, '
        f'{about["precision"]}'
    )


def summary(
    files: Sequence[Path], fuser: Fuser, images: Sequence[NDArray[Any]], result: FusionResult
) -> str:
    """Return the line that says what was done."""
    sizes = dict.fromkeys(size_text(image) for image in images)
    colour = 'grey' if result.image.ndim == 2 else f'chroma {fuser.settings.chroma}'
    text = (
        f'{files[0]}: {len(images)} images of {" and ".join(sizes)} pixels, {colour}, '
        f'{description(fuser)}, {result.seconds * 1e3:.0f} ms, {result.prior_calls} prior calls'
    )
    if len(files) > 1:
        text += f'; weights in {files[1]} to {files[-2]} and {files[-1]}'
    return text


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; ends the program with code 2 where it makes no sense."""
    parser = argparse.ArgumentParser(
        prog='dig2dig fuse',
        usage='%(prog)s PATH PATH [PATH ...] [-o OUT] [options]',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    # fmt: off
    add('inputs', nargs='+', type=Path, metavar='PATH',
        help='images of one scene, two folders (or one with both), or two videos')
    add('-o', '--output', type=Path, metavar='OUT',
        help='file or folder to write; default: fused.png, fused or fused.mp4')
    add('--overwrite', action='store_true',
        help='replace an existing output that was not named, or a folder that is not empty')
    add('--show', action='store_true',
        help='show the fused images in a window as well; Esc or q ends, like Ctrl-C')
    add('--weights', action='store_true',
        help='of images and folders, also write OUT.weights.1.png and so on (how much each image '
        'counted at each pixel) and OUT.overlay.png (the same in colours)')
    add('--task', choices=TASKS,
        help='what the images are, which chooses settings; default: those of the node')
    add_fusion_options(parser, 'that of --task; it takes precedence over --task')
    add('--thermal-to-visible', metavar='FILE',
        help='registration of the second image, as dig2dig calibrate writes it; default: '
        'the images are aligned')
    # fmt: on
    return parser.parse_args(argv)


def fuse(args: argparse.Namespace) -> int:
    """
    Do what the command line asks for, and print the line that says what was done.

    :return: the exit code.
    :raises UsageError: it cannot be done.
    :raises ImagePairError: an image cannot be read.
    :raises EncodedImageError: OpenCV cannot write the images in this format.
    :raises OSError: a file cannot be written.
    """
    kind = kind_of_inputs(args.inputs)
    output = args.output or Path(DEFAULT_OUTPUTS[kind])
    if kind == 'folders':
        check_output_file(output, inputs=args.inputs, folder=True)
        check_output(output, args.overwrite)
    elif kind == 'videos' or args.output is None:
        check_output_file(output, args.overwrite or args.output is not None)
    show = window() if args.show else None
    if kind == 'images':
        return fuse_images(args, output, show)
    if kind == 'videos' and args.weights:
        raise UsageError('--weights is for images and folders')
    parameters = choose_parameters(args, ())
    fuser = set_up_fuser(parameters)
    if kind == 'videos':
        done, skipped = fuse_videos(args.inputs, output, fuser, parameters, show)
        left_out = f', {skipped} left out' if skipped else ''
        print(f'{output}: {done} frames fused{left_out}, {description(fuser)}')
        return 1 if skipped else 0
    output.mkdir(exist_ok=True)
    names = ['visible', 'thermal'] if fuser.settings.chroma == 'first' else ['first', 'second']

    def write(result: FusionResult, name: str) -> None:
        write_pictures(output_files(output / f'{name}.png', 2, args.weights), result, names)

    done, skipped = fuse_folders(args.inputs, fuser, parameters, write, show, args.weights)
    if not done:
        raise UsageError(f'none of the {skipped} pairs could be fused, see above')
    left_out = f', {skipped} left out' if skipped else ''
    print(f'{output}: {done} pairs fused{left_out}, {description(fuser)}')
    return 1 if skipped else 0


def fuse_images(args: argparse.Namespace, output: Path, show: Show | None) -> int:
    """Fuse images of one scene; see :func:`fuse`."""
    paths: Sequence[Path] = args.inputs
    files = output_files(output, len(paths), args.weights)
    check_files(files, paths)
    images = [read_photograph(path) for path in paths]
    check_colours(paths, images, args.task)
    if args.task in (None, THERMAL_TASK) and images[0].ndim == 3 and images[0].dtype == np.uint16:
        depth = BitDepth()
        images[0] = depth.full_scale(images[0])
        if depth.bits < 16:
            report(f'dig2dig fuse: {paths[0]} uses {depth.bits} of 16 bits, scaled by them')
    parameters = choose_parameters(args, images)
    if args.task in (None, THERMAL_TASK):
        try:
            images[1] = without_rows(images[1], thermal_crop(parameters))
        except ThermalRangeError as error:
            raise UsageError(f'{paths[1]}: {error}') from error
    sources, no_data = prepare_sources(images, args.task, parameters)
    fuser = set_up_fuser(parameters)
    placements = place_sources(images, parameters, no_data)
    for index, found in no_data.items():
        fate = ('without weight',) if index else ('filled from around it where it is small',)
        for text in found.sentences(str(paths[index]), *fate):
            report(f'dig2dig fuse: {text}')
    for index, (path, image) in enumerate(zip(paths, images, strict=True)):
        placed = index == 1 and bool(parameters.get('thermal_to_visible'))
        if size_of(image) != size_of(images[0]) and not placed:
            report(
                f'dig2dig fuse: {path} has {size_text(image)} pixels and is resized to '
                f'the {size_text(images[0])} of {paths[0]}'
            )
            if stretched := stretch_text(size_of(image), size_of(images[0])):
                report(f'warning: of {path}, {stretched}')
    try:
        result = fuser.fuse(*sources, placements=placements, weight_maps=args.weights)
    except (ValueError, RuntimeError) as error:
        # A prior that does not know the timesteps, or memory that is not enough.
        raise UsageError(f'the images cannot be fused: {error}') from error
    write_pictures(files, result, [f'{n}: {path.name}' for n, path in enumerate(paths, start=1)])
    print(summary(files, fuser, images, result))
    if show is not None:
        show(result.image, 0)
    return 0


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


def main(argv: Sequence[str]) -> int:
    """Run the tool; see the module's description."""
    return run_tool(
        'dig2dig fuse', lambda: fuse(parse_arguments(argv)), refusals=(EncodedImageError,)
    )
