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

SOURCE is a directory of image pairs (folders visible/ and thermal/ with same-named images) or a
bag; with --live, the topics visible/image_raw and thermal/image_raw are listened to. Without
further options the homography comes from the images themselves, of any scene with edges that
both cameras see. --points takes points marked by hand, for which --click writes a page;
--checkerboard takes a board that both cameras see. With lens distortion in camera_info, the
homography is one of undistorted pixels, and the file holds both camera models. Points are pixels
of the images as they are, also then.

Writes the registration, and a picture to look at beside it: a number is no proof. The result goes
to the standard output, everything else to the standard error. Exit code: 0; 2 after an error; 3
if the estimate is not to be trusted, which is written only with --force; 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
import math
from pathlib import Path
import sys

import cv2
import numpy as np
from numpy.typing import NDArray

from dig2dig_ros.evaluation.bag_types import BagError
from dig2dig_ros.evaluation.image_pairs import ImagePairError
from dig2dig_ros.evaluation.options import load_parameters, positive, report, UsageError
from dig2dig_ros.evaluation.registration_cameras import camera_models, Cameras
from dig2dig_ros.evaluation.registration_estimates import (
    Estimate,
    from_checkerboard,
    from_images,
    from_points,
    left_over,
)
from dig2dig_ros.evaluation.registration_pairs import (
    choose_frames,
    from_bag,
    from_directory,
    LiveTopics,
    Recording,
)
from dig2dig_ros.evaluation.registration_points import (
    counted,
    load_points,
)
from dig2dig_ros.evaluation.registration_report import click_page, overlay, Row, write_text
from dig2dig_ros.images.geometry import RegistrationError
from dig2dig_ros.images.registration import Registration
from dig2dig_ros.images.registration_file import save_registration
from dig2dig_ros.streams.pairing import SOURCES
from dig2dig_ros.streams.parameters import complete_values

UNTRUSTED = 3
# Frames to estimate from.
_FRAMES = 8
_BOARD_FRAMES = 40
# Rows of the overlay.
_ROWS = 3
_ADVICE = {
    'images': 'more frames of other scenes with edges in both images (--frames, another '
    'recording); --thermal-width, if one camera sees much more than the other; or points by '
    'hand: --click PAGE.html, then --points FILE',
    'points': 'more points, in all parts of both images, of things at the distance that matters; '
    'correct or remove those with the largest residuals',
    'board': 'more frames, with the board in all parts of both images, at the distance that '
    'matters, and warm or lit by the sun so that the thermal camera sees its squares',
}


def overlay_rows(
    estimate: Estimate, recording: Recording, registration: Registration
) -> list[Row]:
    """Return a few pairs to show: rather those that the estimate has not seen."""
    # The board itself is what to see.
    wanted = list(estimate.used if estimate.method == 'board' else estimate.checks)
    wanted = wanted or list(estimate.used) or list(range(len(recording.pairs)))
    places = np.linspace(0, len(wanted) - 1, min(_ROWS, len(wanted))).round().astype(int)
    rows = []
    for index in (wanted[place] for place in places):
        points = estimate.points.get(index, estimate.points.get(-1))
        if points is None:
            rows.append(Row(recording.pairs[index]))
        else:
            mapped = registration.to_visible(points[1])
            rows.append(Row(recording.pairs[index], points[0], mapped))
    return rows


def parse_arguments(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """
    Parse the command line; ends the program with code 2 where it makes no sense.

    :return: the options, and the arguments for ROS.
    """
    parser = argparse.ArgumentParser(
        prog='calibrate_registration',
        description=__doc__,
        epilog='With --live, ROS arguments go to the end: --ros-args -r '
        'visible/image_raw:=/camera/image_raw -r thermal/image_raw:=/lwir/image_raw',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    # fmt: off
    add('source', type=Path, nargs='?', metavar='SOURCE', help='directory of pairs, folder of a '
        'bag, or an .mcap or .db3 file')
    add('-o', '--output', type=Path, default=Path('registration.yaml'), metavar='FILE',
        help='the registration; default: registration.yaml')
    add('--overlay', type=Path, metavar='FILE', help='the picture to look at; default: as '
        '--output, with .png')
    add('--overwrite', action='store_true', help='replace files of an earlier calibration')
    add('--force', action='store_true', help='write also what is not to be trusted')
    add('--params', metavar='PRESET|FILE', help='parameters of the fusion node; those of pairing '
        'and of the thermal range count')

    group = parser.add_argument_group('how to estimate', 'from the images, but for')
    how = group.add_mutually_exclusive_group()
    add = how.add_argument
    add('--points', type=Path, metavar='FILE', help='points marked by hand: YAML of '
        'the click page, or CSV with xv, yv, xt, yt')
    add('--checkerboard', type=_board, metavar='COLSxROWS', help='a board of so '
        'many inner corners, such as 9x6')
    add('--click', type=Path, metavar='PAGE.html', help='write a page to mark '
        'points in, and no registration')
    add = group.add_argument
    add('--frames', type=positive, metavar='COUNT', help='pairs to estimate from, '
        f'at most; default: {_FRAMES}, and {_BOARD_FRAMES} to look for a checkerboard in')
    add('--thermal-width', type=_part, metavar='PART', help='part of the visible '
        "image's width that the thermal one covers, about, such as 0.6; for the images; default: "
        'what camera_info says, else 1')

    add = parser.add_argument_group('lens distortion').add_argument
    add('--camera-info', choices=('auto', 'use', 'ignore'), default='auto',
        help='auto, the default, uses camera_info of bags and live topics where both cameras '
        'have one, and one has distortion')
    for source in SOURCES:
        add(f'--{source}-camera', type=Path, metavar='FILE', help=f'calibration '
            f'of the {source} camera instead, in the YAML of ROS')

    add = parser.add_argument_group('bags').add_argument
    for source in SOURCES:
        add(f'--{source}', metavar='TOPIC', help=f'images of the {source} camera; '
            'default: found by name')

    add = parser.add_argument_group('live').add_argument
    add('--live', action='store_true', help='listen to visible/image_raw and '
        'thermal/image_raw, raw or compressed')
    add('--timeout', type=_seconds, default=60.0, metavar='SECONDS', help='go on '
        'with what there is after so long; default: 60')
    add('--interval', type=_seconds, default=1.0, metavar='SECONDS', help='time '
        'between two pairs, for the scene to change; default: 1')
    # fmt: on
    argv = list(argv)
    split = argv.index('--ros-args') if '--ros-args' in argv else len(argv)
    args = parser.parse_args(argv[:split])
    if args.live == (args.source is not None):
        parser.error('give either a SOURCE or --live')
    if argv[split:] and not args.live:
        parser.error('--ros-args are for --live')
    if (args.visible_camera is None) != (args.thermal_camera is None):
        parser.error('--visible-camera and --thermal-camera need each other')
    if args.visible_camera is not None and args.camera_info == 'ignore':
        parser.error('--camera-info ignore and --visible-camera exclude each other')
    return args, argv[split:]


def _board(text: str) -> tuple[int, int]:
    columns, _, rows = text.lower().partition('x')
    if not (columns.isdecimal() and rows.isdecimal() and min(int(columns), int(rows)) > 2):
        raise argparse.ArgumentTypeError(
            f'{text!r} is not COLSxROWS of inner corners, each 3 or more'
        )
    return int(columns), int(rows)


def _part(text: str) -> float:
    value = float(text)
    if not 0.1 <= value <= 10.0:
        raise argparse.ArgumentTypeError(f'must be 0.1 to 10, not {text}')
    return value


def _seconds(text: str) -> float:
    value = float(text)
    if not 0.0 < value < math.inf:
        raise argparse.ArgumentTypeError(f'must be above 0, not {text}')
    return value


def check_outputs(args: argparse.Namespace) -> None:
    """
    Find out before the work what would fail after it.

    :raises UsageError: a file exists and is not to be replaced, or cannot be written.
    """
    if args.overlay is None:
        args.overlay = args.output.with_suffix('.png')
    if args.overlay.suffix.lower() not in ('.png', '.jpg'):
        raise UsageError(f'{args.overlay} cannot be written: use the suffix .png or .jpg')
    if args.overlay == args.output:
        raise UsageError(f'--output and --overlay are both {args.output}')
    for path in (args.click,) if args.click is not None else (args.output, args.overlay):
        if path.is_dir():
            raise UsageError(f'{path} is a folder: name a file')
        if path.exists() and not args.overwrite:
            raise UsageError(f'{path} exists: choose another name, or replace it with --overwrite')


def read_source(args: argparse.Namespace, ros_arguments: Sequence[str]) -> Recording:
    """
    Read the pairs to work with, as many as there is use for.

    :raises UsageError: there are none, or they do not fit together.
    """
    try:
        values = complete_values(load_parameters(args.params) if args.params else {})
    except (TypeError, ValueError) as error:
        raise UsageError(str(error)) from error
    frames = args.frames
    if args.live:
        # Of those from the images, half are to check with.
        number = frames if args.checkerboard or args.points or args.click else 2 * frames
        topics = LiveTopics(ros_arguments, values, args.interval)
        return topics.collect(number, args.timeout)
    number = frames if args.checkerboard else 4 * frames
    if not args.source.exists():
        raise UsageError(f'{args.source} does not exist')
    if args.source.is_dir() and not _is_bag_folder(args.source):
        if args.visible or args.thermal:
            raise UsageError(f'{args.source} is no bag, so it has no topics to name')
        return from_directory(args.source, number, values)
    return from_bag(args.source, number, values, args.visible, args.thermal)


def _is_bag_folder(path: Path) -> bool:
    return any(
        each.name == 'metadata.yaml' or each.suffix in ('.mcap', '.db3', '.zstd')
        for each in path.iterdir()
    )


def estimate_registration(
    args: argparse.Namespace, recording: Recording, cameras: Cameras
) -> Estimate:
    """Estimate as the command line asks for."""
    if args.points is not None:
        points = load_points(args.points, recording.sizes)
        return from_points(points, recording, cameras, args.frames)
    if args.checkerboard is not None:
        return from_checkerboard(args.checkerboard, recording, cameras)
    return from_images(recording, cameras, args.frames, args.thermal_width)


def calibrate(args: argparse.Namespace, ros_arguments: Sequence[str]) -> int:
    """
    Do what the command line asks for.

    :return: the exit code.
    :raises UsageError: it cannot be done.
    """
    check_outputs(args)
    args.frames = args.frames or (_BOARD_FRAMES if args.checkerboard else _FRAMES)
    recording = read_source(args, ros_arguments)
    (visible_width, visible_height), (thermal_width, thermal_height) = recording.sizes
    source = (
        f'{counted(recording.total, "pair")} of {recording.place}, visible '
        f'{visible_width}x{visible_height}, thermal {thermal_width}x{thermal_height}'
    )
    if args.click is not None:
        used, _ = choose_frames(recording.pairs, args.frames)
        pairs = [recording.pairs[index] for index in used] or recording.pairs[: args.frames]
        write_text(args.click, click_page(pairs, recording.place))
        print(
            f'{args.click}: open it in a browser, mark points, save the text as points.yaml, '
            'and run again with --points points.yaml'
        )
        return 0
    cameras = camera_models(args, recording)
    estimate = estimate_registration(args, recording, cameras)
    facts = dict((('source', source), *estimate.facts, ('camera_info', cameras.text)))
    reasons = list(estimate.reasons)
    try:
        registration = Registration(
            estimate.matrix,
            recording.sizes[1],
            recording.sizes[0],
            cameras.thermal,
            cameras.visible,
        )
        placement = registration.placement(0.0)
    except RegistrationError as error:
        raise UsageError(
            f'what was found is no registration: {error}. What helps: {_ADVICE[estimate.method]}'
        ) from error
    facts['left over'], doubt = left_over(estimate, recording, placement)
    if doubt and estimate.method == 'images':
        reasons.append(doubt)
    elif doubt:
        report(f'warning: {doubt}; the scene may be at other distances than the points')
    facts['trusted'] = 'no' if reasons else 'yes'
    print('\n'.join(f'{name:<12} {text}' for name, text in facts.items()))
    picture = overlay(overlay_rows(estimate, recording, registration), placement)
    _write_picture(args.overlay, picture)
    if reasons:
        report('warning: this registration is not to be trusted: ' + '; '.join(reasons))
        report(f'what helps: {_ADVICE[estimate.method]}')
        if not args.force:
            report(
                f'{args.output} is not written, --force would write it all the same; see what '
                f'is wrong in {args.overlay}'
            )
            return UNTRUSTED
    args.output.parent.mkdir(parents=True, exist_ok=True)
    documented = replace(registration, estimate={**facts, 'reasons': reasons})
    save_registration(documented, args.output)
    print(f'{"written":<12} {args.output}; look at {args.overlay}')
    return UNTRUSTED if reasons else 0


def _write_picture(path: Path, picture: NDArray[np.uint8]) -> None:
    done, data = cv2.imencode(path.suffix, picture)
    if not done:
        raise UsageError(f'{path} cannot be written: OpenCV cannot save it')
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.tobytes())


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; see the module's description."""
    args, ros_arguments = parse_arguments(sys.argv[1:] if argv is None else argv)
    try:
        return calibrate(args, ros_arguments)
    except (
        UsageError,
        BagError,
        ImagePairError,
        RegistrationError,
        OSError,
        ImportError,
    ) as error:
        report(f'calibrate_registration: {error}')
        return 2
    except KeyboardInterrupt:
        report('calibrate_registration: interrupted, nothing is written')
        return 130


if __name__ == '__main__':
    sys.exit(main())
