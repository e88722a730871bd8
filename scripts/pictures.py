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
Redraw the pictures of the documentation: ``bash scripts/docs.sh --pictures``.

Every picture in docs/images is made here, by a command of this package and, where that says so,
scaled down or stored as JPEG. Everything that is seen comes from the built-in scene, except
pictures of the public data sets RoadScene and LLVIP, which are not shipped: ``--pairs`` and
``--people``.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
import subprocess
import sys
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[1]

# Topics of the street's bag, as a robot would have recorded them.
_SECONDS, _VISIBLE_RATE, _THERMAL_RATE, _THERMAL_DELAY = 1.0, 30, 10, 0.0081
_START = 1_700_000_000.0
# The pair of LLVIP, and what has to stand with a picture of it.
_PEOPLE_PAIR = '010009'
_PEOPLE_SOURCE = 'Pair of LLVIP (Jia et al., 2021); less light is simulated.'
# Pairs of RoadScene, and likewise.
_DAY_PAIRS = ('FLIR_00603', 'FLIR_04598')
_DAY_SOURCE = 'Pairs of RoadScene (Xu et al., 2022).'
# The part of the page that the picture shows, in pixels.
_PAGE = (1185, 1330)


@dataclass(frozen=True)
class Drawing:
    """
    A command that draws pictures.

    :param names: of the files in docs/images.
    :param command: what a user would type.
    :param draw: does it: gets a folder for the pictures, an empty one to work in, and the options.
    """

    names: tuple[str, ...]
    command: str
    draw: Callable[[Path, Path, argparse.Namespace], None]


def _dig2dig(*arguments: object) -> None:
    command = [sys.executable, '-m', 'dig2dig_ros', *map(str, arguments)]
    subprocess.run(command, check=True, cwd=CHECKOUT)


def _program(name: str, *arguments: object) -> None:
    program = CHECKOUT / 'docs' / 'pictures' / f'{name}.py'
    subprocess.run([sys.executable, program, *map(str, arguments)], check=True, cwd=CHECKOUT)


def _store(source: Path, target: Path, quality: int, scale: float = 1.0) -> None:
    """Store a picture as JPEG of this quality."""
    import cv2

    image = cv2.imread(str(source))
    if image is None:
        raise SystemExit(f'{source} was not written.')
    if scale != 1:
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    if not cv2.imwrite(str(target), image, [cv2.IMWRITE_JPEG_QUALITY, quality]):
        raise SystemExit(f'Could not write {target}.')


def _demo(output: Path, work: Path, _: argparse.Namespace) -> None:
    _dig2dig('demo', '--sheet-rows', 3, '--output', work)
    _store(work / 'contact_sheet.png', output / 'demo.jpg', 88)


def _unaligned(output: Path, work: Path, _: argparse.Namespace) -> None:
    _dig2dig('demo', '--unaligned', '--sheet-rows', 2, '--output', work)
    _store(work / 'contact_sheet.png', output / 'unaligned.jpg', 85)


def _roadscene(output: Path, work: Path, options: argparse.Namespace) -> None:
    if options.pairs is None:
        print('roadscene_pairs.jpg: left as it is; --pairs FOLDER draws it.', file=sys.stderr)
        return
    _dig2dig('demo', '--pairs', options.pairs, '--sheet-rows', 10, '--output', work)
    _store(work / 'contact_sheet.png', output / 'roadscene_pairs.jpg', 82, 0.75)


def _brightness(output: Path, work: Path, options: argparse.Namespace) -> None:
    if options.pairs is None:
        print('brightness.jpg: left as it is; --pairs FOLDER draws it.', file=sys.stderr)
        return
    pairs = ('--pair', *_DAY_PAIRS, '--source', _DAY_SOURCE)
    program = ('inspect_brightness', options.pairs, *pairs, '--device', 'cpu')
    _program(*program, '--output', output)


def _people(output: Path, work: Path, options: argparse.Namespace) -> None:
    if options.people is None or options.detector is None:
        missing = '--people FOLDER and --detector MODEL.onnx draw it.'
        print(f'people.jpg: left as it is; {missing}', file=sys.stderr)
        return
    pair = ('--pair', _PEOPLE_PAIR, '--source', _PEOPLE_SOURCE)
    model = ('--detector', options.detector, '--device', 'cpu')
    _program('inspect_people', options.people, *pair, *model, '--output', output)


def _gains(output: Path, work: Path, _: argparse.Namespace) -> None:
    _program('inspect_gains', '--device', 'cpu', '--output', output)


def _noise(output: Path, work: Path, _: argparse.Namespace) -> None:
    _program('inspect_noise', '--device', 'cpu', '--output', output)


def _cameras(output: Path, work: Path, _: argparse.Namespace) -> None:
    _program('inspect_cameras', '--output', output)


def _report(output: Path, work: Path, _: argparse.Namespace) -> None:
    bag = work / 'night_street'
    record_street(bag)
    _dig2dig('evaluate', bag, '--output', work / 'evaluation')
    page = work / 'evaluation' / 'night_street' / 'report.html'
    _photograph(page, work / 'report.png')
    _store(work / 'report.png', output / 'report.jpg', 82)


def record_street(bag: Path, width: int = 640, height: int = 512) -> None:
    """Write a bag of the synthetic street, as two cameras of different rates see it."""
    from dig2dig_ros.evaluation.bag_writer import BagWriter, image_message
    from dig2dig_ros.evaluation.synthetic_scene import SyntheticScene

    street = SyntheticScene(width, height)
    cameras = (
        ('/camera/image_raw', 'bgr8', _VISIBLE_RATE, 0.0),
        ('/thermal/image_raw', 'mono16', _THERMAL_RATE, _THERMAL_DELAY),
    )
    shots = sorted(
        (index / rate + delay, topic, encoding)
        for topic, encoding, rate, delay in cameras
        for index in range(round(_SECONDS * rate) + 1)
    )
    with BagWriter(bag, 'mcap') as writer:
        for topic, *_ in cameras:
            writer.add_topic(topic, 'sensor_msgs/msg/Image')
        for seconds, topic, encoding in shots:
            frame = street.render(seconds)
            stamp = round((_START + seconds) * 1e9)
            time = SimpleNamespace(sec=stamp // 10**9, nanosec=stamp % 10**9)
            header: Any = SimpleNamespace(stamp=time, frame_id=topic.split('/')[1])
            image = frame.visible if encoding == 'bgr8' else frame.thermal
            writer.write(topic, image_message(image, encoding, header), stamp)


# Leaves out the time of a fusion, which says what else the machine had to do, and calls back when
# all pictures in sight have been decoded and drawn.
_WHEN_DRAWN = """
const done = arguments[0];
[...document.querySelectorAll('.cards > div')].filter(
  card => card.textContent.startsWith('time of a fusion')).forEach(card => card.remove());
const seen = [...document.images].filter(
  image => image.getBoundingClientRect().top < window.innerHeight);
Promise.all(seen.map(image => image.decode().catch(() => null)))
  .then(() => requestAnimationFrame(() => requestAnimationFrame(done)));
"""


def _photograph(page: Path, picture: Path) -> None:
    """Store what Chromium shows of a page."""
    from selenium import webdriver

    width, height = _PAGE
    with TemporaryDirectory() as profile:
        options = webdriver.ChromeOptions()
        for argument in (
            '--headless=new',
            '--no-sandbox',
            '--disable-gpu',
            '--hide-scrollbars',
            f'--user-data-dir={profile}',
        ):
            options.add_argument(argument)
        browser = webdriver.Chrome(options=options)
        try:
            screen = {'width': width, 'height': height, 'deviceScaleFactor': 1, 'mobile': False}
            browser.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', screen)
            browser.get(page.resolve().as_uri())
            browser.execute_async_script(_WHEN_DRAWN)
            if not browser.save_screenshot(str(picture)):
                raise SystemExit(f'Could not write {picture}.')
        finally:
            browser.quit()


DRAWINGS = (
    Drawing(('demo.jpg',), 'bash scripts/demo.sh --sheet-rows 3', _demo),
    Drawing(('unaligned.jpg',), 'bash scripts/demo.sh --unaligned --sheet-rows 2', _unaligned),
    Drawing(
        ('roadscene_pairs.jpg',),
        'bash scripts/demo.sh --pairs FOLDER --sheet-rows 10',
        _roadscene,
    ),
    Drawing(
        ('brightness.jpg',),
        'python docs/pictures/inspect_brightness.py FOLDER --pair FLIR_00603 FLIR_04598 '
        '--device cpu --output docs/images',
        _brightness,
    ),
    Drawing(
        ('people.jpg',),
        'python docs/pictures/inspect_people.py FOLDER --pair 010009 --detector MODEL.onnx',
        _people,
    ),
    Drawing(
        ('report.jpg',), 'dig2dig evaluate night_street, a bag of the synthetic street', _report
    ),
    Drawing(
        ('theorem.png', 'cumulative_gain.png'),
        'python docs/pictures/inspect_gains.py --device cpu --output docs/images',
        _gains,
    ),
    Drawing(
        ('noise.png', 'night_shot.jpg'),
        'python docs/pictures/inspect_noise.py --device cpu --output docs/images',
        _noise,
    ),
    Drawing(
        tuple(
            f'cameras_{name}.jpg'
            for name in (
                'degradations',
                'false_colour',
                'faults',
                'frozen',
                'late',
                'lens',
                'missing',
                'range',
                'registration',
            )
        ),
        'python docs/pictures/inspect_cameras.py --output docs/images',
        _cameras,
    ),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw the pictures; the exit code is 0, or that of the command that failed."""
    names = [name for drawing in DRAWINGS for name in drawing.names]
    parser = argparse.ArgumentParser(
        prog='docs.sh --pictures', description='Redraw the pictures of the documentation.'
    )
    add = parser.add_argument
    add('--list', action='store_true', help='only print which command makes which picture')
    add('--only', nargs='+', choices=names, metavar='NAME', help='those that make these pictures')
    add('--pairs', type=Path, metavar='FOLDER', help='RoadScene, for the pictures of it')
    add('--people', type=Path, metavar='FOLDER', help='LLVIP with labels, for the picture of it')
    add('--detector', type=Path, metavar='MODEL.onnx', help='YOLOv5n, for the same')
    add(
        '--output',
        type=Path,
        default=CHECKOUT / 'docs' / 'images',
        metavar='FOLDER',
        help='where they go; default: docs/images',
    )
    options = parser.parse_args(arguments)
    for name in ('pairs', 'people'):
        folder = getattr(options, name)
        if folder is not None and not folder.is_dir():
            parser.error(f'--{name}: {folder} is not a folder')
    chosen = [d for d in DRAWINGS if options.only is None or set(d.names) & set(options.only)]
    if options.list:
        for drawing in chosen:
            for name in drawing.names:
                print(f'{name:28} {drawing.command}')
        return 0
    output = options.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    for drawing in chosen:
        print(f'== {drawing.command}', file=sys.stderr)
        with TemporaryDirectory(prefix='dig2dig_pictures_') as work:
            try:
                drawing.draw(output, Path(work), options)
            except subprocess.CalledProcessError as error:
                return error.returncode or 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
