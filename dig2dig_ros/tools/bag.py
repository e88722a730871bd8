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
Make a ROS 2 bag from a folder of image pairs, or from the synthetic street.

FOLDER holds two folders of images with the same names, visible/ and thermal/, or images NAME_A and
NAME_B; the two images of a pair get the same stamp. Without it, the bag shows a synthetic street,
seen by a visible and a slower thermal camera. Topics: visible/image_raw, thermal/image_raw and the
camera_info of both. The same options give the same images and stamps, byte for byte.

Needs no ROS. Exit code: 0; 2 if nothing could be done; 130 after Ctrl-C, which leaves no bag.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
import shutil
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import numpy as np

from dig2dig_ros.evaluation.bag_reader import is_bag
from dig2dig_ros.evaluation.bag_types import default_typestore, IMAGE_TYPE
from dig2dig_ros.evaluation.bag_writer import BagWriter, image_message
from dig2dig_ros.evaluation.camera_sources import DirectorySource, PARAMETERS, StreetSource
from dig2dig_ros.evaluation.imperfect_cameras import CameraGeometry
from dig2dig_ros.evaluation.options import (
    positive,
    report,
    size_argument,
    UsageError,
    within,
)
from dig2dig_ros.images.output_files import check_output_file
from dig2dig_ros.nodes.signals import run_tool
from dig2dig_ros.streams.pairing import SOURCES

_INFO_TYPE = 'sensor_msgs/msg/CameraInfo'
_NANOSECONDS = 1_000_000_000
# Stamp of the first images: 2026-01-01 00:00 UTC.
_START = 1_767_225_600 * _NANOSECONDS
# Thermal images of the street without --count.
_STREET_PAIRS = 90


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; exit with code 2 if it is invalid."""
    parser = argparse.ArgumentParser(
        prog='dig2dig bag',
        usage='%(prog)s [FOLDER] -o BAG [options]',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    # fmt: off
    add('folder', type=Path, nargs='?', metavar='FOLDER', help='image pairs; default: the street')
    add('-o', '--output', type=Path, required=True, metavar='BAG', help='bag to make, a folder')
    add('--overwrite', action='store_true', help='replace an existing bag')
    add('--storage', choices=('mcap', 'sqlite3'), default='mcap', help='format; default: mcap')
    add('--count', type=positive, metavar='PAIRS',
        help=f'pairs to write; default: all of the folder, {_STREET_PAIRS} of the street')
    add('--rate', type=within(0.01, 240), default=9.0, metavar='HZ',
        help='pairs per second; for the street, thermal images per second; default: 9')
    group = parser.add_argument_group('the synthetic street')
    group.add_argument('--visible-rate', type=within(0.01, 240), metavar='HZ',
                       help='visible images per second; default: 30')
    group.add_argument('--size', type=size_argument, metavar='WxH', help='default: 640x512')
    group.add_argument('--seed', type=int, metavar='NUMBER', help='random seed; default: 0')
    # fmt: on
    args = parser.parse_args(argv)
    if args.folder is not None:
        for action in group._group_actions:
            if getattr(args, action.dest) is not None:
                parser.error(f'{action.option_strings[0]} is for the street, not for a folder')
    return args


def check_output(path: Path, overwrite: bool) -> None:
    """
    Make sure that a bag can be written.

    :raises UsageError, OutputError: it cannot, or would replace something that is not a bag.
    """
    check_output_file(path, overwrite, folder=True)
    if path.exists() and not (path.is_dir() and is_bag(path)):
        raise UsageError(f'{path} is not a bag, so --overwrite does not replace it')


def make_source(args: argparse.Namespace) -> StreetSource | DirectorySource:
    """
    Return what the cameras send.

    :raises ImagePairError: the folder holds no pairs.
    :raises UsageError: the street cannot be drawn in this size.
    """
    values: dict[str, Any] = {spec.name: spec.default for spec in PARAMETERS}
    values.update(thermal_rate=args.rate, count=args.count or 0, loop=False)

    def pack(pixels: Any, encoding: str, source: str) -> Any:
        return image_message(pixels, encoding, None)

    if args.folder is not None:
        values['directory'] = str(args.folder)
        return DirectorySource(values, pack, report)
    values['count'] = args.count or _STREET_PAIRS
    width, height = args.size or (values['width'], values['height'])
    given = {'width': width, 'height': height, 'seed': args.seed}
    given['visible_rate'] = args.visible_rate
    values.update({name: value for name, value in given.items() if value is not None})
    for spec in PARAMETERS:
        problem = spec.problem(values[spec.name])
        if problem is not None:
            raise UsageError(problem)
    return StreetSource(values, pack)


def camera_info(camera: CameraGeometry, header: Any) -> Any:
    """Return the ``sensor_msgs/CameraInfo`` of ``rosbags`` for a calibrated camera."""
    types = default_typestore().types
    matrix = camera.matrix
    return types[_INFO_TYPE](
        header=header,
        height=camera.size[1],
        width=camera.size[0],
        distortion_model=camera.model,
        d=np.asarray(camera.distortion, float),
        k=matrix.ravel(),
        r=np.eye(3).ravel(),
        p=np.column_stack([matrix, np.zeros(3)]).ravel(),
        binning_x=0,
        binning_y=0,
        roi=types['sensor_msgs/msg/RegionOfInterest'](0, 0, 0, 0, False),
    )


def write(source: StreetSource | DirectorySource, path: Path, storage: str) -> str:
    """
    Write what the cameras send into a bag.

    :return: a line on its content.
    :raises BagError: it cannot be written.
    """
    counts: Counter[str] = Counter()
    last = 0.0
    with BagWriter(path, storage) as bag:
        for name in SOURCES:
            bag.add_topic(f'/{name}/image_raw', IMAGE_TYPE)
            bag.add_topic(f'/{name}/camera_info', _INFO_TYPE)
        report(f'preparing {source.description}')
        for _ in source.prepare():
            pass
        for seconds, name, capture in source.schedule():
            stamp = _START + round(seconds * _NANOSECONDS)
            time = SimpleNamespace(sec=stamp // _NANOSECONDS, nanosec=stamp % _NANOSECONDS)
            header = SimpleNamespace(stamp=time, frame_id=f'{name}_optical_frame')
            bag.write(f'/{name}/camera_info', camera_info(capture.camera, header), stamp)
            capture.message.header = header
            bag.write(f'/{name}/image_raw', capture.message, stamp)
            counts[name] += 1
            last = seconds
    images = ' and '.join(f'{counts[name]} {name}' for name in SOURCES)
    return f'{images} images, {last:.1f} s, {storage}'


def make_bag(args: argparse.Namespace) -> int:
    """
    Run the command.

    :return: the exit code.
    :raises UsageError, ImagePairError, OSError: it cannot be done.
    """
    output: Path = args.output.absolute()
    check_output(output, args.overwrite)
    source = make_source(args)
    # An incomplete bag must not replace another.
    with TemporaryDirectory(prefix=f'.{output.name}.', dir=output.parent) as folder:
        made = Path(folder) / output.name
        content = write(source, made, args.storage)
        if output.exists():
            shutil.rmtree(output)
        made.rename(output)
    print(f'{args.output}: {content}')
    return 0


def main(argv: Sequence[str]) -> int:
    """Run the tool; see the module's description."""
    return run_tool('dig2dig bag', lambda: make_bag(parse_arguments(argv)))
