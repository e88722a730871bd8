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
VIDEOS, visible and thermal, become one video. The result has the colour of all that have colour.
Grey images behind the first one are thermal, and their 16 bits are mapped to a range as the node
maps counts, except with --task multi-focus or multi-exposure.

What was done is printed in one line; everything else goes to standard error. Exit code: 0; 1
if some pairs or frames could not be fused; 2 if nothing could be done; 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TYPE_CHECKING

import cv2
from numpy.typing import NDArray

from dig2dig_ros.evaluation.options import add_fusion_options, check_output, TASKS, UsageError
from dig2dig_ros.images.encoded import EncodedImageError
from dig2dig_ros.images.image_pairs import read_photograph
from dig2dig_ros.images.output_files import check_output_file
from dig2dig_ros.nodes.signals import run_tool
from dig2dig_ros.tools.file_fusion import (
    check_pair_files,
    FileFusion,
    fuse_folders,
    fuse_videos,
    kind_of_inputs,
    output_files,
    paired,
    Show,
    window,
    write_pictures,
)

DEFAULT_OUTPUTS = {'images': 'fused.png', 'folders': 'fused', 'videos': 'fused.mp4'}

# Importing torch takes seconds, which a mistake in the command line need not cost.
if TYPE_CHECKING:
    from dig2dig_ros.fusion.fuser import Fuser


def check_files(files: Sequence[Path], inputs: Sequence[Path], overwrite: bool) -> None:
    """
    Find out before the work what would fail after it.

    :raises UsageError, OutputError: a file cannot be written, or may not.
    """
    suffix = files[0].suffix
    if not cv2.haveImageWriter(f'image{suffix}'):
        problem = f'the suffix {suffix!r}' if suffix else 'a name without a suffix'
        raise UsageError(
            f'{files[0]} cannot be written: OpenCV has no image format for {problem}; '
            'use .png, .tif or .jpg'
        )
    for path in files:
        check_output_file(path, overwrite, inputs=inputs)


def description(fuser: Fuser) -> str:
    """Return how a fuser fuses, and where."""
    about = fuser.describe()
    return (
        f'N {about["N"]}, S {about["S"]}, denoiser {about["prior"]}, {about["device"]}, '
        f'{about["precision"]}'
    )


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; exit with code 2 if it is invalid."""
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
        help='show the fused images in a window as well; Esc or q ends and keeps what is fused')
    add('--weights', action='store_true',
        help='of images and folders, also write OUT.overlay.png (in colours, which image what is '
        'seen came from) and OUT.weights.1.png and so on (the weights of the fusion)')
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
    :raises UsageError, OutputError: it cannot be done.
    :raises ImagePairError, FusionInputError: an image cannot be used.
    :raises EncodedImageError: OpenCV cannot write the images in this format.
    :raises OSError: a file cannot be written.
    """
    kind = kind_of_inputs(args.inputs)
    output = args.output or Path(DEFAULT_OUTPUTS[kind])
    overwrite = args.overwrite or args.output is not None
    files = output_files(output, len(args.inputs), args.weights)
    if kind == 'images':
        check_files(files, args.inputs, overwrite)
    elif kind == 'folders':
        check_output_file(output, inputs=args.inputs, folder=True)
        check_output(output, args.overwrite)
    else:
        check_output_file(output, overwrite, inputs=args.inputs)
        if args.weights:
            raise UsageError('--weights is for images and folders')
    show = window() if args.show else None
    # Before torch is imported, which takes seconds.
    images = [read_photograph(path) for path in args.inputs] if kind == 'images' else []
    pairs = paired(args.inputs) if kind == 'folders' else []
    check_pair_files(pairs, output, args.weights)
    fusion = FileFusion(args)
    if kind == 'images':
        return fuse_images(images, args.inputs, files, fusion, show)
    fuser = fusion.fuser
    if kind == 'videos':
        done, skipped = fuse_videos(args.inputs, output, fusion, show)
    else:
        output.mkdir(exist_ok=True)
        done, skipped = fuse_folders(pairs, output, fusion, show)
    what = 'frames' if kind == 'videos' else 'pairs'
    left_out = f', {skipped} left out' if skipped else ''
    print(f'{output}: {done} {what} fused{left_out}, {description(fuser)}')
    return 1 if skipped else 0


def fuse_images(
    images: Sequence[NDArray[Any]],
    paths: Sequence[Path],
    files: Sequence[Path],
    fusion: FileFusion,
    show: Show | None,
) -> int:
    """Fuse images of one scene; see :func:`fuse`."""
    inputs = fusion.prepare(images, paths)
    fuser = fusion.fuser
    try:
        result = fusion.fuse(inputs)
    except (ValueError, RuntimeError) as error:
        # A prior that does not know the timesteps, or memory that is not enough.
        raise UsageError(f'the images cannot be fused: {error}') from error
    write_pictures(files, result, [f'{n}: {path.name}' for n, path in enumerate(paths, start=1)])
    sizes = dict.fromkeys(f'{image.shape[1]}x{image.shape[0]}' for image in inputs.images)
    chroma = fusion.settings(inputs).chroma
    colour = 'grey' if result.image.ndim == 2 else f'chroma {chroma}'
    text = (
        f'{files[0]}: {len(paths)} images of {" and ".join(sizes)} pixels, {colour}, '
        f'{description(fuser)}, {result.seconds * 1e3:.0f} ms, {result.prior_calls} denoiser calls'
    )
    if len(files) > 1:
        text += f'; weights in {files[1]} to {files[-2]} and {files[-1]}'
    print(text)
    if show is not None:
        show(result.image, 0)
    return 0


def main(argv: Sequence[str]) -> int:
    """Run the tool; see the module's description."""
    return run_tool(
        'dig2dig fuse', lambda: fuse(parse_arguments(argv)), refusals=(EncodedImageError,)
    )
