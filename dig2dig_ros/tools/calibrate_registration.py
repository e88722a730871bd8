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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
import math
from pathlib import Path
import sys
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dig2dig_ros.evaluation.bag_types import BagError
from dig2dig_ros.evaluation.image_pairs import ImagePairError
from dig2dig_ros.evaluation.options import load_parameters, positive, report, UsageError
from dig2dig_ros.evaluation.registration_pairs import (
    choose_frames,
    from_bag,
    from_directory,
    LiveTopics,
    Recording,
)
from dig2dig_ros.evaluation.registration_points import (
    counted,
    find_board,
    fit_points,
    load_points,
    load_yaml,
    matching_order,
    project,
    rms,
)
from dig2dig_ros.evaluation.registration_report import click_page, overlay, Row, write_text
from dig2dig_ros.images.alignment import align
from dig2dig_ros.images.camera_model import CameraModel
from dig2dig_ros.images.geometry import RegistrationError
from dig2dig_ros.images.misalignment import MisalignmentMonitor
from dig2dig_ros.images.placement import Placement
from dig2dig_ros.images.registration import Registration
from dig2dig_ros.images.registration_file import save_registration
from dig2dig_ros.streams.pairing import SOURCES
from dig2dig_ros.streams.parameters import complete_values
from dig2dig_ros.streams.preparation import registered_image

Array = NDArray[np.float64]

UNTRUSTED = 3
# Frames to estimate from.
_FRAMES = 8
_BOARD_FRAMES = 40
# Rows of the overlay.
_ROWS = 3
# Of a frame that was not used, this part of the visible image's longer side is too far off.
_MOST_LEFT_OVER = 0.01
_LEAST_LEFT_OVER = 3.0
# How well a person clicks, and a corner of a board is found, in thermal pixels, until the
# residuals tell.
_CLICK_SIGMA, _CORNER_SIGMA = 1.0, 0.3

_ADVICE = {
    'images': 'more frames of other scenes with edges in both images (--frames, another '
    'recording); --thermal-width, if one camera sees much more than the other; or points by '
    'hand: --click PAGE.html, then --points FILE',
    'points': 'more points, in all parts of both images, of things at the distance that matters; '
    'correct or remove those with the largest residuals',
    'board': 'more frames, with the board in all parts of both images, at the distance that '
    'matters, and warm or lit by the sun so that the thermal camera sees its squares',
}


@dataclass(frozen=True)
class Estimate:
    """
    A homography and how good it is.

    :param matrix: (3, 3) from thermal to visible pixels, of undistorted ones where camera models
        are used.
    :param method: a key of the advice.
    :param facts: (name, text) to print and to keep.
    :param reasons: why it is not to be trusted.
    :param used: indices of the pairs that it comes from.
    :param checks: indices of pairs to check it with.
    :param points: by index of a pair, or -1 for all pairs: visible and thermal points, (N, 2)
        each, pixels of the images as they are.
    """

    matrix: Array
    method: str
    facts: tuple[tuple[str, str], ...]
    reasons: tuple[str, ...]
    used: tuple[int, ...]
    checks: tuple[int, ...]
    points: Mapping[int, tuple[Array, Array]] = field(default_factory=dict)


@dataclass(frozen=True)
class Cameras:
    """
    The camera models in use.

    :param text: what was decided, and why.
    :param guess: (3, 3) thermal to visible, of cameras that look the same way.
    """

    visible: CameraModel | None
    thermal: CameraModel | None
    text: str
    guess: Array | None = None

    def undistorted(self, visible: Array, thermal: Array) -> tuple[Array, Array]:
        """
        Return points as the cameras would show them without distortion.

        :raises UsageError: a point is where a camera sees nothing, by its calibration.
        """
        results = []
        for source, points in zip(SOURCES, (visible, thermal), strict=True):
            camera = getattr(self, source)
            ideal = points if camera is None else camera.undistorted(points)
            lost = np.flatnonzero(~np.isfinite(ideal).all(axis=1))
            if lost.size:
                raise UsageError(
                    f'point {lost[0] + 1} is where the {source} camera sees nothing by its '
                    'calibration: remove it, or go without with --camera-info ignore'
                )
            results.append(ideal)
        return results[0], results[1]


# Camera models


def camera_models(args: argparse.Namespace, recording: Recording) -> Cameras:
    """
    Decide on the camera models.

    :raises UsageError: those that are asked for are missing, wrong or for other images.
    """
    if args.camera_info == 'ignore':
        return Cameras(None, None, 'not used: --camera-info ignore')
    given = args.visible_camera is not None
    infos = recording.infos
    if given:
        infos = {source: load_camera(getattr(args, f'{source}_camera')) for source in SOURCES}
    missing = [source for source in SOURCES if source not in infos]
    if missing and args.camera_info == 'use':
        raise UsageError(
            f'there is no camera_info of the {" and ".join(missing)} camera: give '
            '--visible-camera FILE and --thermal-camera FILE'
        )
    if missing:
        return Cameras(
            None, None, f'none of the {" and ".join(missing)} camera; lenses count as they are'
        )
    try:
        models: dict[str, CameraModel] = {
            source: CameraModel.from_camera_info(
                infos[source], rectified=not given and source in recording.rectified
            )
            for source in SOURCES
        }
        _require_sizes(models, dict(zip(SOURCES, recording.sizes, strict=True)))
    except RegistrationError as error:
        if given or args.camera_info == 'use':
            raise UsageError(f'the camera models cannot be used: {error}') from error
        report(f'warning: camera_info is not used: {error}')
        return Cameras(None, None, 'not used, see the warning; lenses count as they are')
    guess = models['visible'].matrix @ np.linalg.inv(models['thermal'].matrix)
    bent = [source for source, model in models.items() if np.any(model.distortion)]
    if not (bent or given or args.camera_info == 'use'):
        return Cameras(None, None, 'of both cameras, without distortion: not kept', guess)
    text = f'of both cameras, kept; the {" and ".join(bent) or "none"} has distortion'
    return Cameras(models['visible'], models['thermal'], text, guess)


def _require_sizes(models: Mapping[str, CameraModel], sizes: Mapping[Any, Any]) -> None:
    for source, model in models.items():
        if tuple(model.size) != sizes[source]:
            raise RegistrationError(
                f'the {source} camera is calibrated for {model.size[0]}x{model.size[1]} pixels, '
                f'but its images have {sizes[source][0]}x{sizes[source][1]}'
            )


def load_camera(path: Path) -> Any:
    """
    Read a calibration as camera_calibration of ROS writes it.

    :return: what has the fields of sensor_msgs/CameraInfo.
    :raises UsageError: it cannot be read, or lacks something.
    """
    document = load_yaml(path)
    try:
        return SimpleNamespace(
            width=int(document['image_width']),
            height=int(document['image_height']),
            distortion_model=str(document.get('distortion_model', '')),
            k=[float(value) for value in document['camera_matrix']['data']],
            d=[float(value) for value in document['distortion_coefficients']['data']],
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f'{path} is no calibration as ROS writes it, with image_width, image_height, '
            'camera_matrix.data, distortion_model and distortion_coefficients.data: '
            f'{type(error).__name__} {error}'
        ) from error


def _rectified(image: NDArray[Any], camera: CameraModel | None) -> NDArray[Any]:
    """Return an image without the distortion of its lens."""
    if camera is None:
        return image
    height, width = image.shape[:2]
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1)
    at = camera.distorted(grid.reshape(-1, 2)).reshape(height, width, 2)
    maps = np.nan_to_num(at, nan=-1e4).astype(np.float32)
    return np.asarray(
        cv2.remap(
            image, maps[..., 0], maps[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
    )


# From the images


def from_images(
    recording: Recording, cameras: Cameras, number: int, width: float | None
) -> Estimate:
    """
    Estimate from the images themselves.

    :param number: of frames, at most.
    :param width: part of the visible image's width that the thermal one covers, about; None if
        nobody knows.
    """
    used, checks = choose_frames(recording.pairs, number)
    if not used:
        raise UsageError(
            f'{recording.place} shows nothing in one of the cameras: both images need edges'
        )
    chosen = [recording.pairs[index] for index in used]
    images = [
        (_rectified(p.visible, cameras.visible), _rectified(p.thermal, cameras.thermal))
        for p in chosen
    ]
    mask = None
    if cameras.thermal is not None:
        columns, rows = recording.sizes[1]
        seen = np.pad(np.ones((rows - 2, columns - 2), np.float32), 1)
        mask = _rectified(seen, cameras.thermal) > 0.99
    guess = cameras.guess if width is None else _guess(recording.sizes, width)
    report(f'aligning {counted(len(images), "frame")}, which takes some seconds')
    found = align(images, guess=guess, thermal_mask=mask)
    scale = _scale(found.thermal_to_visible, recording.sizes[1])
    facts = (
        ('method', f'from the images, {counted(len(used), "frame")} of {recording.total}'),
        (
            'residual',
            f'corners known to {found.corner_spread:.2f} thermal pixels '
            f'({found.corner_spread * scale:.2f} visible)',
        ),
        ('match', f'score {found.score:.3f}, {found.margin:.0%} above the next best place'),
    )
    return Estimate(
        found.thermal_to_visible,
        'images',
        facts,
        tuple(found.reasons),
        tuple(used),
        tuple(checks),
    )


def _guess(sizes: tuple[tuple[int, int], tuple[int, int]], width: float) -> Array:
    """Return the homography of a thermal image in the middle of the visible one."""
    visible, thermal = (np.array(size) for size in sizes)
    scale = width * visible[0] / thermal[0]
    x, y = ((visible - 1) - scale * (thermal - 1)) / 2
    return np.array([[scale, 0, x], [0, scale, y], [0, 0, 1]], np.float64)


# From points


def from_points(points: Array, recording: Recording, cameras: Cameras, number: int) -> Estimate:
    """Estimate from points marked by hand; the pairs only serve to check."""
    visible, thermal = points[:, :2], points[:, 2:]
    fit = fit_points(*cameras.undistorted(visible, thermal), recording.sizes, _CLICK_SIGMA)
    facts = [('method', f'from {len(points)} points marked by hand'), *fit.facts()]
    for index, (row, error) in enumerate(zip(points, fit.errors, strict=True), start=1):
        place = f'({row[0]:g}, {row[1]:g}) - ({row[2]:g}, {row[3]:g})'
        state = '' if fit.inside[index - 1] else ', left out'
        facts.append((f'point {index}', f'{place}: {error:.2f} thermal pixels{state}'))
    if len(points) == 4:
        report('warning: four points fit nearly anywhere, so nothing confirms them: mark more')
    used, checks = choose_frames(recording.pairs, number)
    order = tuple(sorted((*used, *checks)))
    return Estimate(
        fit.matrix, 'points', tuple(facts), fit.reasons(), (), order, {-1: (visible, thermal)}
    )


# From a checkerboard


def from_checkerboard(board: tuple[int, int], recording: Recording, cameras: Cameras) -> Estimate:
    """
    Estimate from the corners of a checkerboard.

    :param board: inner corners along a row and along a column.
    :raises UsageError: no frame shows it to both cameras.
    """
    found: dict[str, set[int]] = {source: set() for source in SOURCES}
    corners: dict[int, tuple[Array, Array]] = {}
    for index, pair in enumerate(recording.pairs):
        visible = find_board(pair.visible, board)
        thermal = find_board(pair.thermal, board)
        for source, points in zip(SOURCES, (visible, thermal), strict=True):
            if points is not None:
                found[source].add(index)
        if visible is not None and thermal is not None:
            corners[index] = visible, matching_order(visible, thermal, board)
    total = len(recording.pairs)
    seen = (
        f'in {len(found["visible"])} visible and {len(found["thermal"])} thermal images of '
        f'{total}, in both of {counted(len(corners), "frame")}'
    )
    if not corners:
        raise UsageError(
            f'no frame shows the board of {board[0]}x{board[1]} inner corners to both cameras: '
            f'found {seen}; for the thermal one its squares must differ in temperature'
        )
    groups = np.repeat(list(corners), [len(v) for v, _ in corners.values()])
    visible = np.concatenate([v for v, _ in corners.values()])
    thermal = np.concatenate([t for _, t in corners.values()])
    ideal = cameras.undistorted(visible, thermal)
    fit = fit_points(*ideal, recording.sizes, _CORNER_SIGMA, groups)
    facts = [
        ('method', f'from a checkerboard, found {seen}'),
        *fit.facts(),
        *(
            (
                f'frame {recording.pairs[index].name}',
                f'RMS {rms(fit.errors[groups == index]):.2f} thermal pixels, worst '
                f'{fit.errors[groups == index].max():.2f}',
            )
            for index in corners
        ),
    ]
    others = tuple(index for index in range(total) if index not in corners)
    return Estimate(
        fit.matrix, 'board', tuple(facts), fit.reasons(), tuple(corners), others, corners
    )


# What all have in common


def _scale(matrix: Array, size: tuple[int, int]) -> float:
    """Return visible pixels per thermal pixel at the centre of the thermal image."""
    centre = (np.array(size) - 1) / 2
    square = project(matrix, centre + np.array([[0, 0], [1, 0], [0, 1]]))
    sides = square[1:] - square[0]
    return math.sqrt(abs(float(np.linalg.det(sides))))


def left_over(estimate: Estimate, recording: Recording, placement: Placement) -> tuple[str, str]:
    """
    Measure what a registration leaves of the misalignment on frames that it does not come from.

    :return: what to say, and why the estimate is not to be trusted, empty if nothing is wrong.
    """
    pairs = [recording.pairs[index] for index in estimate.checks]
    if not pairs:
        return 'not measured: there are no other frames', ''
    together, single = MisalignmentMonitor(len(pairs)), MisalignmentMonitor(1)
    distances = []
    for pair in pairs:
        thermal = registered_image(pair.thermal, placement, recording.sizes[0])
        images = (pair.visible, thermal, placement.coverage)
        all_by_now = together.look(*images)
        alone = single.look(*images)
        if alone.trusted:
            distances.append(alone.distance)
    scale = _scale(estimate.matrix, recording.sizes[1])
    frames = counted(len(pairs), 'other frame' if estimate.used else 'frame')
    if not all_by_now.trusted:
        return f'cannot be measured: {frames} show too little together', ''
    most = max(_MOST_LEFT_OVER * max(recording.sizes[0]), _LEAST_LEFT_OVER)
    distance = all_by_now.distance
    text = f'{distance:.1f} visible pixels ({distance / scale:.1f} thermal) over {frames}'
    if distances:
        median = float(np.median(distances))
        text += (
            f'; median {median:.1f}, worst {max(distances):.1f}, of the {len(distances)} that '
            'tell by themselves'
        )
    if distance <= most:
        return text, ''
    return text, f'{frames} are off by {distance:.1f} visible pixels, of at most {most:.1f}'


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


# The command


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
