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
Estimate where the thermal camera's pixels lie in the visible image, for the fusion node.

SOURCE is a folder of image pairs (folders visible/ and thermal/ with the same file names) or a
bag; --live listens to the topics visible/image_raw and thermal/image_raw. By default, the
homography is estimated from the images alone: any scene will do that has edges in both images.
--points uses points that you marked by hand, on a page that --click writes; --checkerboard uses a
board that both cameras see. If camera_info has lens distortion, the homography maps undistorted
pixels, and the file contains both camera models; points are always given in pixels of the
original images.

Writes the registration, and a picture to check it with: always look at it. The result goes to
standard output, everything else to standard error. Exit code: 0; 2 after an error; 3 if the
registration is not trustworthy (it is then only written with --force); 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
import time
from typing import Any, get_args

import cv2
import numpy as np

from dig2dig_ros.evaluation.calibration import (
    camera_models,
    Estimate,
    from_checkerboard,
    from_images,
    from_points,
    left_over,
)
from dig2dig_ros.evaluation.options import (
    load_parameters,
    positive,
    report,
    UsageError,
    within,
)
from dig2dig_ros.evaluation.registration_pairs import (
    CalibrationImages,
    choose_frames,
    from_bag,
    from_directory,
    PairCollector,
)
from dig2dig_ros.evaluation.registration_points import counted, load_points
from dig2dig_ros.evaluation.registration_report import click_page, overlay, OverlayPair
from dig2dig_ros.images.alignment import Model
from dig2dig_ros.images.geometry import RegistrationError
from dig2dig_ros.images.output_files import check_output_file
from dig2dig_ros.images.registration import Registration
from dig2dig_ros.images.registration_file import save_registration
from dig2dig_ros.nodes.signals import run_tool
from dig2dig_ros.streams.pairing import SOURCES
from dig2dig_ros.streams.parameters import complete_values

UNTRUSTED = 3
# Frames to estimate from.
_FRAMES = 8
_BOARD_FRAMES = 40
# Rows of the overlay.
_ROWS = 3
_PROGRESS_SECONDS = 5.0
_ADVICE = {
    'images': 'more frames, of other scenes with edges in both images (--frames, another '
    'recording); --thermal-width, if one camera sees much more than the other; or points marked '
    'by hand: --click PAGE.html, then --points FILE',
    'points': 'more points, in all parts of both images, on things at the distance that matters; '
    'correct or remove those with the largest residuals',
    'board': 'more frames, with the board in all parts of both images, at the distance that '
    'matters, and warm or in the sun, so that the thermal camera sees its squares',
}


def parse_arguments(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return the options, and the arguments for ROS; exit with code 2 if they are invalid."""
    parser = argparse.ArgumentParser(
        prog='dig2dig calibrate',
        description=__doc__,
        epilog='With --live, ROS arguments go to the end: --ros-args -r '
        'visible/image_raw:=/camera/image_raw -r thermal/image_raw:=/lwir/image_raw',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    # fmt: off
    add('source', type=Path, nargs='?', metavar='SOURCE', help='folder of image pairs, or a bag '
        '(its folder, or an .mcap or .db3 file)')
    add('-o', '--output', type=Path, default=Path('registration.yaml'), metavar='FILE',
        help='registration file to write; default: registration.yaml')
    add('--overlay', type=Path, metavar='FILE', help='picture to check it with; default: as '
        '--output, with .png')
    add('--overwrite', action='store_true', help='replace the files of an earlier calibration')
    add('--force', action='store_true', help='write the registration even if it is not '
        'trustworthy')
    add('--preset', metavar='PRESET|FILE', help='parameters of the fusion node; used are those '
        'of pairing and of the thermal range')

    group = parser.add_argument_group(
        'how to estimate', 'from the images alone, unless --points or --checkerboard is given'
    )
    how = group.add_mutually_exclusive_group()
    add = how.add_argument
    add('--points', type=Path, metavar='FILE', help='points marked by hand: the YAML of '
        'the --click page')
    add('--checkerboard', type=_board, metavar='COLSxROWS', help='a board with '
        'this number of inner corners, such as 9x6')
    add('--click', type=Path, metavar='PAGE.html', help='only write a page to mark points on')
    add = group.add_argument
    add('--frames', type=positive, metavar='COUNT', help='number of pairs to estimate from, '
        f'at most; default: {_FRAMES}, or {_BOARD_FRAMES} with --checkerboard')
    add('--model', choices=get_args(Model), default='homography', help='what to estimate from '
        'the images alone; similarity (rotation, scale and shift) is for cameras that look in '
        'the same direction, if too few edges constrain a homography; default: homography')
    add('--thermal-width', type=within(0.1, 10), metavar='PART', help="rough fraction of the "
        "visible image's width that the thermal image covers, such as 0.6; for estimates from "
        'the images alone; default: from camera_info, else 1')

    add = parser.add_argument_group('lens distortion').add_argument
    add('--camera-info', choices=('auto', 'ignore'), default='auto',
        help='auto (default) uses the camera_info of bags and live topics if both cameras have '
        'one and at least one has distortion')
    for source in SOURCES:
        add(f'--{source}-camera', type=Path, metavar='FILE', help=f'calibration '
            f'file of the {source} camera (ROS YAML), in place of camera_info')

    add = parser.add_argument_group('bags').add_argument
    for source in SOURCES:
        add(f'--{source}', metavar='TOPIC', help=f'images of the {source} camera; '
            'default: found by name')

    add = parser.add_argument_group('live').add_argument
    add('--live', action='store_true', help='listen to visible/image_raw and '
        'thermal/image_raw, raw or compressed')
    add('--timeout', type=within(0.001, 86400), default=60.0, metavar='SECONDS', help='stop '
        'collecting after this time and use the pairs that came; default: 60')
    add('--interval', type=within(0.001, 86400), default=1.0, metavar='SECONDS', help='time '
        'between two pairs, so that the scene changes; default: 1')
    # fmt: on
    argv = list(argv)
    split = argv.index('--ros-args') if '--ros-args' in argv else len(argv)
    args = parser.parse_args(argv[:split])
    if args.live == (args.source is not None):
        parser.error('give either a SOURCE or --live')
    if argv[split:] and not args.live:
        parser.error('--ros-args needs --live')
    if (args.visible_camera is None) != (args.thermal_camera is None):
        parser.error('give both --visible-camera and --thermal-camera, or neither')
    if args.visible_camera is not None and args.camera_info == 'ignore':
        parser.error('--camera-info ignore excludes --visible-camera')
    if args.model != 'homography' and (args.points or args.checkerboard or args.click):
        parser.error('--model is only for estimates from the images alone')
    return args, argv[split:]


def _board(text: str) -> tuple[int, int]:
    columns, _, rows = text.lower().partition('x')
    if not (columns.isdecimal() and rows.isdecimal() and min(int(columns), int(rows)) > 2):
        raise argparse.ArgumentTypeError(
            f'{text!r} is not COLSxROWS of inner corners, each 3 or more'
        )
    return int(columns), int(rows)


def check_outputs(args: argparse.Namespace) -> None:
    """Check before the work that the files can be written; else raise Usage- or OutputError."""
    if args.overlay is None:
        args.overlay = args.output.with_suffix('.png')
    if args.overlay.suffix.lower() not in ('.png', '.jpg'):
        raise UsageError(f'{args.overlay} cannot be written: use the suffix .png or .jpg')
    if args.overlay == args.output:
        raise UsageError(f'--output and --overlay are both {args.output}')
    for path in (args.click,) if args.click is not None else (args.output, args.overlay):
        check_output_file(path, args.overwrite)


def read_source(args: argparse.Namespace, ros_arguments: Sequence[str]) -> CalibrationImages:
    """
    Read as many pairs as the estimate can use.

    :raises UsageError: there are none, or they do not fit together.
    """
    try:
        values = complete_values(load_parameters(args.preset) if args.preset else {})
    except (TypeError, ValueError) as error:
        raise UsageError(str(error)) from error
    if args.live:
        # Half of the frames are used to estimate, the other half to check.
        from_images_only = not (args.checkerboard or args.points or args.click)
        return listen(args, ros_arguments, (1 + from_images_only) * args.frames, values)
    number = args.frames if args.checkerboard else 4 * args.frames
    source = args.source
    if not source.exists():
        raise UsageError(f'{source} does not exist')
    if source.is_dir() and not any(
        each.name == 'metadata.yaml' or each.suffix in ('.mcap', '.db3', '.zstd')
        for each in source.iterdir()
    ):
        if args.visible or args.thermal:
            raise UsageError(f'{source} is not a bag: leave out --visible and --thermal')
        return from_directory(source, number, values)
    return from_bag(source, number, values, args.visible, args.thermal)


def listen(
    args: argparse.Namespace,
    ros_arguments: Sequence[str],
    number: int,
    values: Mapping[str, Any],
) -> CalibrationImages:
    """
    Collect pairs from live topics, until there are ``number`` of them or the time is up.

    :raises UsageError: no pair came, or the images changed size.
    :raises ImportError: ROS is not installed.
    """
    from dig2dig_ros.nodes.image_collector import ImageCollector

    with ImageCollector('calibrate', ros_arguments) as cameras:
        interval = round(args.interval * 1e9)
        pairs = PairCollector(cameras.topics, 2 * number, values, interval)
        report(f'listening to {" and ".join(cameras.topics.values())}, raw or compressed')
        said = time.monotonic()

        def done() -> bool:
            nonlocal said
            if time.monotonic() - said > _PROGRESS_SECONDS:
                said = time.monotonic()
                report(f'{len(pairs.kept)} of {number} pairs')
            return len(pairs.kept) >= number

        cameras.collect(
            lambda source, message: pairs.take(
                pairs.pipeline.add(source, message, time.monotonic_ns())
            ),
            pairs.infos.setdefault,
            lambda: pairs.take(pairs.pipeline.settle()),
            done,
            args.timeout,
        )
        place = ' and '.join(cameras.topics.values())
    if not pairs.kept:
        raise UsageError(f'no pairs within {args.timeout:g} s: {pairs.explanation()}')
    if len(pairs.kept) < number:
        report(
            f'only {len(pairs.kept)} of {number} pairs came within {args.timeout:g} s; '
            'continuing with these'
        )
    return pairs.images(place)


def calibrate(args: argparse.Namespace, images: CalibrationImages) -> int:
    """
    Estimate a registration and write it, with its picture.

    :return: the exit code.
    :raises UsageError: it cannot be done.
    """
    files = None
    if args.visible_camera is not None:
        files = {'visible': args.visible_camera, 'thermal': args.thermal_camera}
    cameras = camera_models(images, files, args.camera_info == 'ignore')
    if args.points is not None:
        points = load_points(args.points, images.sizes)
        estimate = from_points(points, images, cameras, args.frames)
    elif args.checkerboard is not None:
        estimate = from_checkerboard(args.checkerboard, images, cameras)
    else:
        estimate = from_images(images, cameras, args.frames, args.thermal_width, args.model)
    visible_size, thermal_size = images.sizes
    source = (
        f'{counted(images.total, "pair")} of {images.place}, visible '
        f'{visible_size[0]}x{visible_size[1]}, thermal {thermal_size[0]}x{thermal_size[1]}'
    )
    facts = {'source': source, **dict(estimate.facts), 'camera_info': cameras.text}
    reasons = list(estimate.reasons)
    try:
        registration = Registration(
            estimate.matrix, thermal_size, visible_size, cameras.thermal, cameras.visible
        )
        placement = registration.placement(0.0)
    except RegistrationError as error:
        raise UsageError(
            f'the estimate is not a valid registration: {error}. What helps: '
            f'{_ADVICE[estimate.method]}'
        ) from error
    facts['left over'], doubt = left_over(estimate, images, placement)
    if doubt and estimate.method == 'images':
        reasons.append(doubt)
    elif doubt:
        report(f'warning: {doubt}; the scene may be at another distance than the points')
    facts['trusted'] = 'no' if reasons else 'yes'
    print('\n'.join(f'{name:<12} {text}' for name, text in facts.items()))
    picture = overlay(overlay_rows(estimate, images, registration), placement)
    args.overlay.write_bytes(bytes(cv2.imencode(args.overlay.suffix, picture)[1]))
    if reasons:
        report('warning: do not trust this registration: ' + '; '.join(reasons))
        advice = [estimate.advice] if estimate.advice else []
        report(f'what helps: {"; or ".join([*advice, _ADVICE[estimate.method]])}')
        if not args.force:
            report(
                f'{args.output} is not written (--force writes it anyway); see what is wrong in '
                f'{args.overlay}'
            )
            return UNTRUSTED
    save_registration(replace(registration, estimate={**facts, 'reasons': reasons}), args.output)
    print(f'{"written":<12} {args.output}; look at {args.overlay}')
    return UNTRUSTED if reasons else 0


def overlay_rows(
    estimate: Estimate, images: CalibrationImages, registration: Registration
) -> list[OverlayPair]:
    """Return a few pairs to show, preferably ones that the estimate has not used."""
    # With a board, the board is what you want to see.
    wanted = estimate.used if estimate.method == 'board' else estimate.checks
    wanted = wanted or estimate.used or tuple(range(len(images.pairs)))
    places = np.linspace(0, len(wanted) - 1, min(_ROWS, len(wanted))).round().astype(int)
    rows = []
    for index in (wanted[place] for place in places):
        visible, thermal = estimate.points.get(index, estimate.points.get(-1, (None, None)))
        mapped = None if thermal is None else registration.to_visible(thermal)
        rows.append(OverlayPair(images.pairs[index], visible, mapped))
    return rows


def write_click_page(args: argparse.Namespace, images: CalibrationImages) -> None:
    """Write the page to mark points on, with the most detailed frames."""
    used, _ = choose_frames(images.pairs, args.frames)
    pairs = [images.pairs[index] for index in used] or images.pairs[: args.frames]
    args.click.write_bytes(click_page(pairs, images.place).encode())
    print(
        f'{args.click}: open it in a browser, mark points, save the text as points.yaml, '
        'and run again with --points points.yaml'
    )


def run(args: argparse.Namespace, ros_arguments: Sequence[str]) -> int:
    """
    Run the command.

    :return: the exit code.
    :raises UsageError, ImagePairError, RegistrationError, OSError, ImportError: it cannot be done.
    """
    args.frames = args.frames or (_BOARD_FRAMES if args.checkerboard else _FRAMES)
    check_outputs(args)
    images = read_source(args, ros_arguments)
    if args.click is None:
        return calibrate(args, images)
    write_click_page(args, images)
    return 0


def main(argv: Sequence[str]) -> int:
    """Run the tool; see the module's description."""
    return run_tool(
        'dig2dig calibrate', lambda: run(*parse_arguments(argv)), 'interrupted, nothing is written'
    )
