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
Fuse two or more images of one scene into one, without ROS.

The fused image has the size of the first one, and the colour of all that have colour; with --task
visible-thermal that of the first only. Images are 8- or 16-bit; grey ones of 16 bits are mapped
to a range as the node maps thermal counts, except for --task multi-focus and multi-exposure. One
line on what was done goes to the standard output, everything else to the standard error; the time
in it is that of a first fusion, without warm-up. Exit code: 0, or 2 after an error.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
import os
from pathlib import Path
from typing import Any, TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from dig2dig_ros.evaluation.options import (
    add_fusion_options,
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
from dig2dig_ros.images.overlay import contribution_overlay, weight_map, with_legend
from dig2dig_ros.images.placement import Placement
from dig2dig_ros.images.registration_file import load_registration
from dig2dig_ros.images.thermal_range import ThermalRangeError, without_rows
from dig2dig_ros.nodes.signals import run_tool
from dig2dig_ros.resources import config_file
from dig2dig_ros.streams.parameters import PARAMETERS_BY_NAME

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

    :raises UsageError: a file cannot be written, or is one of the inputs.
    """
    suffix, folder = files[0].suffix, files[0].parent
    if not cv2.haveImageWriter(f'image{suffix}'):
        problem = f'the suffix {suffix!r}' if suffix else 'a name without a suffix'
        raise UsageError(
            f'{files[0]} cannot be written: OpenCV has no image format for {problem}; '
            'use .png, .tif or .jpg'
        )
    if not folder.is_dir():
        raise UsageError(f'{files[0]} cannot be written: there is no folder {folder}')
    taken = {path.resolve() for path in inputs}
    for path in files:
        if path.resolve() in taken:
            raise UsageError(f'{path} is one of the images to fuse: choose another -o')
        if path.is_dir():
            raise UsageError(f'{path} cannot be written: it is a folder')
        if not os.access(path if path.exists() else folder, os.W_OK):
            raise UsageError(f'{path} cannot be written: permission denied')


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


def summary(
    files: Sequence[Path], fuser: Fuser, images: Sequence[NDArray[Any]], result: FusionResult
) -> str:
    """Return the line that says what was done."""
    sizes = dict.fromkeys(size_text(image) for image in images)
    about = fuser.describe()
    colour = 'grey' if result.image.ndim == 2 else f'chroma {fuser.settings.chroma}'
    text = (
        f'{files[0]}: {len(images)} images of {" and ".join(sizes)} pixels, {colour}, '
        f'N {about["N"]}, S {about["S"]}, prior {about["prior"]}, {about["device"]}, '
        f'{about["precision"]}, {result.seconds * 1e3:.0f} ms, {result.prior_calls} prior calls'
    )
    if len(files) > 1:
        text += f'; weights in {files[1]} to {files[-2]} and {files[-1]}'
    return text


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; ends the program with code 2 where it makes no sense."""
    parser = argparse.ArgumentParser(
        prog='dig2dig fuse',
        usage='%(prog)s IMAGE IMAGE [IMAGE ...] -o OUT [options]',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    # fmt: off
    add('images', nargs='+', type=Path, metavar='IMAGE',
        help='two or more images of one scene; others are resized to the first')
    add('-o', '--output', type=Path, required=True, metavar='OUT', help='for example fused.png')
    add('--weights', action='store_true',
        help='also write OUT.weights.1.png and so on, how much each image counted where, and '
        'OUT.overlay.png, the fused image in colours that say what came from which')
    add('--task', choices=TASKS,
        help='what the images are, for settings that fit; default: those of the node, and the '
        'colour of all images that have colour')
    add_fusion_options(parser, 'those of --task, over which it wins')
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
    if len(args.images) < 2:
        raise UsageError(f'two or more images needed, but there is only {args.images[0]}')
    files = output_files(args.output, len(args.images), args.weights)
    check_files(files, args.images)
    images = [read_photograph(path) for path in args.images]
    check_colours(args.images, images, args.task)
    if args.task in (None, THERMAL_TASK) and images[0].ndim == 3 and images[0].dtype == np.uint16:
        depth = BitDepth()
        images[0] = depth.full_scale(images[0])
        if depth.bits < 16:
            report(f'dig2dig fuse: {args.images[0]} uses {depth.bits} of 16 bits, scaled by them')
    parameters = choose_parameters(args, images)
    if args.task in (None, THERMAL_TASK):
        try:
            images[1] = without_rows(images[1], thermal_crop(parameters))
        except ThermalRangeError as error:
            raise UsageError(f'{args.images[1]}: {error}') from error
    sources, no_data = prepare_sources(images, args.task, parameters)
    fuser = set_up_fuser(parameters)
    placements = place_sources(images, parameters, no_data)
    for index, found in no_data.items():
        fate = ('without weight',) if index else ('filled from around it where it is small',)
        for text in found.sentences(str(args.images[index]), *fate):
            report(f'dig2dig fuse: {text}')
    for index, (path, image) in enumerate(zip(args.images, images, strict=True)):
        placed = index == 1 and bool(parameters.get('thermal_to_visible'))
        if size_of(image) != size_of(images[0]) and not placed:
            report(
                f'dig2dig fuse: {path} has {size_text(image)} pixels and is resized to '
                f'the {size_text(images[0])} of {args.images[0]}'
            )
            if stretched := stretch_text(size_of(image), size_of(images[0])):
                report(f'warning: of {path}, {stretched}')
    try:
        result = fuser.fuse(*sources, placements=placements)
    except (ValueError, RuntimeError) as error:
        # A prior that does not know the timesteps, or memory that is not enough.
        raise UsageError(f'the images cannot be fused: {error}') from error
    pictures = [result.image]
    if args.weights:
        pictures += [weight_map(weight) for weight in result.weights]
        names = [f'{number}: {path.name}' for number, path in enumerate(args.images, start=1)]
        overlay = contribution_overlay(result.image, result.contributions)
        pictures.append(with_legend(overlay, names))
    for path, picture in zip(files, pictures, strict=True):
        write_image(path, picture)
    print(summary(files, fuser, images, result))
    return 0


def main(argv: Sequence[str]) -> int:
    """Run the tool; see the module's description."""
    return run_tool(
        'dig2dig fuse', lambda: fuse(parse_arguments(argv)), refusals=(EncodedImageError,)
    )
