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
Look at what the fusion does with cameras that are unaligned, degraded or faulty.

The synthetic street is recorded by imperfect cameras, and goes through the node's own pairing,
preparation and fusion, on simulated time and without ROS. For every behaviour a line goes to the
standard output with what was measured; --output also draws one picture each, cameras_NAME.jpg.
Exit code: 0, or 2 if nothing could be done.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
import math
from pathlib import Path
import sys
from tempfile import TemporaryDirectory
import textwrap
from typing import Any

from dig2dig_ros.nodes.signals import hear_interrupts, run_tool

if __name__ == '__main__':  # before the imports that take seconds
    hear_interrupts('inspect_cameras')

from camera_trials import both, Course, Outcome, regularly, Robot, Street
import cv2
import numpy as np
from numpy.typing import NDArray
from sheets import crop, Curves, draw, Panel, Sheet
import yaml

from dig2dig_ros.evaluation.imperfect_cameras import Flaws, Warp
from dig2dig_ros.evaluation.metrics import luma, ssim
from dig2dig_ros.evaluation.options import load_fuser, size_argument, UsageError
from dig2dig_ros.images.alignment import align, corner_distance
from dig2dig_ros.images.geometry import RegistrationError
from dig2dig_ros.images.registration import Registration
from dig2dig_ros.images.registration_file import save_registration
from dig2dig_ros.streams.codec import decode
from dig2dig_ros.streams.pairing import Source, SOURCES
from dig2dig_ros.streams.parameters import complete_values, fusion_settings
from dig2dig_ros.streams.preparation import registered_image

Image = NDArray[np.uint8]

_SMALLEST = (64, 48)


@dataclass(frozen=True)
class Finding:
    """What one behaviour came to: a picture, and the figures that it shows."""

    figures: str
    sheet: Sheet


def thermal_picture(outcome: Outcome) -> Image:
    """Return the thermal image as the fusion takes it, in its own pixels."""
    assert outcome.prepared is not None
    return _eight_bits(outcome.prepared.images[1])


def visible_picture(outcome: Outcome) -> Image:
    """Return the visible image as the fusion takes it."""
    assert outcome.prepared is not None
    return _eight_bits(outcome.prepared.images[0])


def _eight_bits(image: NDArray[Any]) -> Image:
    if image.dtype == np.uint8:
        return image
    return np.rint(np.asarray(image, np.float32) * 255).astype(np.uint8)


def fused_panel(outcome: Outcome | None, title: str, **looks: Any) -> Panel:
    """Return a fused image with its bar, or a card that says why there is none."""
    if outcome is None:
        return Panel(None, title, 'nothing is fused:\nit waits for\nthe other camera', **looks)
    if outcome.fused is None:
        return Panel(None, title, outcome.refusal or 'not fused', **looks)
    return Panel(outcome.fused, title, share=outcome.weight, **looks)


@dataclass(frozen=True)
class Studio:
    """Where the behaviours are tried: a street, a robot, and a folder for its files."""

    street: Street
    robot: Robot
    folder: Path


_BARS = 'Bar: mean weight of the visible camera (blue) and of the thermal one (orange)'


def registration(studio: Studio) -> Finding:
    """Cameras that look past each other, before and after their registration was found."""
    street = studio.street
    warp = Warp(rotation=3.0, scale=0.8, shift_x=0.05, shift_y=-0.04)
    cameras = street.cameras(0.5, warp=warp)
    begin, _ = street.meeting()
    moments = [2.0 * index for index in range(6)]
    shots = street.record(begin, both(moments), cameras)
    pairs = [
        (decode(visible.message), decode(thermal.message))
        for visible, thermal in zip(shots[::2], shots[1::2], strict=True)
    ]
    found = align(pairs)
    size = cameras.geometry('thermal').size
    path = studio.folder / 'registration.yaml'
    save_registration(Registration(found.thermal_to_visible, size, street.size), path)
    parameters = {'thermal_to_visible': str(path)}
    # So that the cameras still see the same part of the street.
    knock = replace(warp, shift_x=warp.shift_x - 0.04)
    knocked = street.record(begin, both(moments), street.cameras(0.5, warp=knock))
    as_sent = studio.robot.run(shots, wanted=moments[:1])
    registered = studio.robot.run(shots, parameters, wanted=moments[:1])
    moved = studio.robot.run(knocked, parameters, wanted=moments[:1])
    before, after, late = (each.outcomes[0] for each in (as_sent, registered, moved))
    coverage = _coverage(after)
    assert after.thermal_weight is not None
    weight = after.thermal_weight.astype(np.float32)
    error = corner_distance(found.thermal_to_visible, cameras.homography, size)
    figures = (
        f'found from {len(pairs)} pairs, {"" if found.trusted else "not "}trusted: corners off by '
        f'{error:.2f} thermal pixels of {size[0]}x{size[1]}; mean thermal weight '
        f'{_mean(weight[coverage == 1]):.2f} where it reaches, {_mean(weight[coverage == 0]):.2f} '
        f'beyond; misalignment (px): {as_sent.misalignment} before, {registered.misalignment} '
        f'after, {moved.misalignment} once the camera was knocked by 4 % of the width'
    )
    sheet = Sheet(
        'Registration: where the thermal image lies in the visible one',
        'The thermal camera is rotated by 3 degrees, shifted, and has a narrower view. Its '
        'registration was found from six pairs.',
        (
            (
                'as sent',
                (
                    Panel(visible_picture(before), 'visible'),
                    Panel(_of_size(thermal_picture(before), street.size), 'thermal'),
                    Panel(before.fused, 'fused as if aligned: everybody twice'),
                ),
            ),
            (
                'registered',
                (
                    Panel(_placed(after), 'thermal in its place, with a soft edge'),
                    Panel(after.overlay, 'blue from visible, orange from thermal'),
                    Panel(after.fused, 'fused: everybody once'),
                ),
            ),
            (
                'knocked later',
                (
                    Panel(_placed(late), 'thermal where it used to be', frame=True),
                    Panel(None, 'the monitor', _monitor_text(moved)),
                    Panel(late.fused, 'fused: everybody twice again'),
                ),
            ),
        ),
    )
    return Finding(figures, sheet)


def lens(studio: Studio) -> Finding:
    """Lenses that bend, with and without what camera_info says of it."""
    street = studio.street
    cameras = street.cameras(
        0.5,
        warp=Warp(rotation=-2.0, scale=1.05, shift_x=0.02, shift_y=0.03),
        visible=Flaws(distortion=(-0.05, 0.0)),
        thermal=Flaws(distortion=(-0.3, 0.08)),
    )
    begin, _ = street.meeting()
    moments = [2.0 * index for index in range(6)]
    shots = street.record(begin, both(moments), cameras)
    straight = [
        replace(shot, camera=replace(shot.camera, distortion=np.zeros(5))) for shot in shots
    ]
    rotation = cameras.geometry('thermal').rotation
    extrinsics = {'rotation': rotation.tolist(), 'translation': [0.0, 0.0, 0.0]}
    path = studio.folder / 'extrinsics.yaml'
    path.write_text(yaml.safe_dump(extrinsics), encoding='utf-8')
    parameters = {'extrinsics': str(path)}
    courses = {
        'fused as if aligned': studio.robot.run(shots, wanted=moments[:1]),
        'by K alone: right in the middle only': studio.robot.run(
            straight, parameters, wanted=moments[:1]
        ),
        'by K and D: right everywhere': studio.robot.run(shots, parameters, wanted=moments[:1]),
    }
    first = [course.outcomes[0] for course in courses.values()]
    left = [course.misalignment for course in courses.values()]
    figures = (
        f'misalignment (px): {left[0]} as sent, {left[1]} with K alone, {left[2]} with K and D'
    )
    width, height = street.size
    corner = (0.0, 0.25 * height, 0.33 * width, 0.75 * height)
    sheet = Sheet(
        'Lens distortion: removed by camera_info and extrinsics',
        'The thermal lens distorts the image, the visible one a little. The fused image keeps the '
        'pixels of the visible one.',
        (
            (
                'as sent',
                (
                    Panel(visible_picture(first[0]), 'visible'),
                    Panel(_of_size(thermal_picture(first[0]), street.size), 'thermal'),
                    Panel(_placed(first[2]), 'thermal, warped into place'),
                ),
            ),
            (
                'fused',
                [Panel(each.fused, name) for name, each in zip(courses, first, strict=True)],
            ),
            (
                'the left of it, larger',
                [
                    Panel(crop(each.fused, corner, 1.0, 1.25))
                    for each in first
                    if each.fused is not None
                ],
            ),
        ),
    )
    return Finding(figures, sheet)


# By default, noise is taken out.
AS_THEY_ARE = {'fusion.visible_degradation': 'none', 'fusion.thermal_degradation': 'none'}


def degradations(studio: Studio) -> Finding:
    """Poor sensors, fused as they are and with their degradation declared."""
    street = studio.street
    begin, box = street.meeting()
    moment = both([0.0])
    # Counts of a grey level, of the range that the street fills.
    clean = studio.robot.run(street.record(begin, moment, noisy=())).outcomes[0]
    level = float(np.subtract(*np.percentile(clean.sent['thermal'], (99.5, 1.0)))) / 255
    cases = (
        (
            'few pixels',
            street.cameras(0.25, thermal=Flaws(noise=2 * level)),
            {'fusion.thermal_degradation': 'lepton'},
        ),
        (
            'noise',
            street.cameras(thermal=Flaws(noise=25 * level)),
            {'fusion.thermal_degradation': 'noise auto'},
        ),
        (
            'blur',
            street.cameras(thermal=Flaws(blur=2.5, noise=2 * level)),
            {'fusion.thermal_degradation': 'blur 2.5, noise auto'},
        ),
        (
            'visible noise',
            street.cameras(visible=Flaws(noise=25.0)),
            {'fusion.visible_degradation': 'low_light'},
        ),
    )
    rows, texts = [], []
    assert clean.fused is not None
    for name, cameras, parameters in cases:
        shots = street.record(begin, moment, cameras, noisy=())
        plain = studio.robot.run(shots, AS_THEY_ARE).outcomes[0]
        declared = studio.robot.run(shots, parameters).outcomes[0]
        assert plain.fused is not None
        assert declared.fused is not None
        ((source, text),) = parameters.items()
        source = source.removeprefix('fusion.').partition('_')[0]
        degraded = thermal_picture(plain) if source == 'thermal' else visible_picture(plain)
        degraded = cv2.resize(degraded, street.size, interpolation=cv2.INTER_NEAREST)
        likeness = [_likeness(image, clean.fused) for image in (plain.fused, declared.fused)]
        texts.append(f'{source} {text}: {likeness[0]:.3f}, {likeness[1]:.3f}')
        pictures = {
            f'{source}, as sent': degraded,
            f'fused as it is: {likeness[0]:.2f}': plain.fused,
            f"as '{text}': {likeness[1]:.2f}": declared.fused,
            'with perfect cameras': clean.fused,
        }
        panels = [Panel(crop(image, box, 1.3, 1.25), title) for title, image in pictures.items()]
        rows.append((name, panels))
    figures = 'SSIM to the fusion of perfect cameras, undeclared and declared: ' + '; '.join(texts)
    sheet = Sheet(
        'Degradations: declared, they are undone in the fusion',
        'Numbers: SSIM of the whole fused image to the one with perfect cameras (last column).',
        rows,
    )
    return Finding(figures, sheet)


def missing(studio: Studio) -> Finding:
    """Show a camera that falls silent and comes back."""
    begin, _ = studio.street.meeting()
    start, end, seconds, timeout = 1.2, 3.2, 4.6, 0.5
    times = {'a': 1.1, 'b': 1.5, 'c': 2.5, 'd': 3.3, 'e': 3.5, 'f': 4.4}
    parameters = {'missing_modality': 'any', 'stale_timeout': timeout}
    rows, lines, texts = [], {}, []
    for source in reversed(SOURCES):
        shots = studio.street.record(
            begin - 2.0,
            both(regularly(seconds)),
            faults=[f'drop {source} {start} {end - start}'],
        )
        course = studio.robot.run(shots, parameters)
        lines[f'{source} camera silent'] = _line(course, regularly(seconds))
        silent = [each.time for each in course.outcomes if start <= each.time < end]
        wait = min(silent, default=math.nan) - start
        texts.append(
            f'{source} silent: mean thermal weight {course.mean_weight(0.0, start - 0.05):.2f} '
            f'before, {course.mean_weight(start, end - 0.05):.2f} meanwhile (first image after '
            f'{wait:.1f} s), {course.mean_weight(end + 0.8, seconds):.2f} after'
        )
        rows.append(
            (
                f'{source} silent',
                [
                    fused_panel(course.at(time), f'{letter}: {time:.1f} s')
                    for letter, time in times.items()
                ],
            )
        )
    spans = ((start, end, 'one camera is silent'),)
    sheet = Sheet(
        'A missing camera: the other one is used alone',
        f'missing_modality: any, stale_timeout: {timeout:g}. {_BARS}.',
        rows,
        (Curves('thermal weight', lines, spans, times),),
    )
    return Finding('; '.join(texts), sheet)


def frozen(studio: Studio) -> Finding:
    """Show a thermal camera that repeats its image while its shutter is closed."""
    begin, _ = studio.street.meeting()
    start, end, seconds = 1.0, 2.8, 4.0
    times = {'a': 0.9, 'b': 1.3, 'c': 1.5, 'd': 2.7, 'e': 3.0, 'f': 3.8}
    shots = studio.street.record(
        begin - 2.0,
        both(regularly(seconds)),
        faults=[f'freeze thermal {start} {end - start}'],
    )
    unwatched = studio.robot.run(shots, {'frozen_timeout': 0.0}, wanted=list(times.values()))
    course = studio.robot.run(shots)
    noticed = [each.time for each in course.outcomes if 'frozen' in each.conditions['thermal']]
    figures = (
        f'mean thermal weight {course.mean_weight(0.0, start):.2f} before, '
        f'{course.mean_weight(start + 0.8, end - 0.05):.2f} while frozen, '
        f'{course.mean_weight(end + 0.5, seconds):.2f} after; noticed after '
        f'{min(noticed, default=math.nan) - start:.1f} s'
    )
    rows = []
    for name, which in (('frozen_timeout: 0', unwatched), ('watched', course)):
        panels = [
            fused_panel(which.at(time), f'{letter}: {time:.1f} s')
            for letter, time in times.items()
        ]
        rows.append((name, panels))
    moments = regularly(seconds)
    lines = {
        'weight': _line(course, moments),
        'trust': (
            [each.time for each in course.outcomes],
            [each.trust('thermal') for each in course.outcomes],
        ),
    }
    thermal = [
        Panel(thermal_picture(each), f'{letter}: {time:.1f} s', frame=start <= time < end)
        for letter, time in times.items()
        if (each := course.at(time)) is not None
    ]
    sheet = Sheet(
        'A frozen thermal camera: its weight fades out, and in again',
        f'Orange frame: the camera repeats its last image. {_BARS}.',
        [('thermal', thermal), *rows],
        (
            Curves(
                'of the thermal camera',
                lines,
                ((start, end, 'the shutter is closed'),),
                times,
            ),
        ),
    )
    return Finding(figures, sheet)


def thermal_range(studio: Studio) -> Finding:
    """Something hot enters and leaves, and later the counts of the whole scene jump."""
    begin, _ = studio.street.meeting()
    hot, gone, jump, seconds = 1.0, 3.0, 9.0, 11.0
    times = {'a': 0.8, 'b': 1.0, 'c': 2.0, 'd': 3.5, 'e': 5.5, 'f': 9.0}
    faults = [f'hot_object thermal {hot} {gone - hot}', f'level_jump thermal {jump} 0 2000']
    moments = regularly(seconds)
    shots = studio.street.record(begin, both(moments), faults=faults)
    rows, lines, texts = [], {}, []
    for smoothing in (0.0, 1.0):
        course = studio.robot.run(shots, {'thermal_range_smoothing': smoothing}, wanted=())
        # Above the hot object there are only houses and the sky.
        houses = [
            float(np.median(image[: round(0.45 * len(image))]))
            for image in map(thermal_picture, course.outcomes)
        ]
        name = f'smoothing {smoothing:g} s'
        lines[name] = ([each.time for each in course.outcomes], houses)
        usual = houses[0]
        enters, leaves, jumps = (moments.index(time) for time in (hot, gone, jump))
        back = [time for time, grey in zip(moments, houses, strict=True)
                if gone <= time < jump and abs(grey - usual) <= 0.1 * usual]  # fmt: skip
        off = [grey for grey in houses[jumps:] if abs(grey - usual) > 0.1 * usual]
        texts.append(
            f'{name}: houses at grey {usual:.0f}, {houses[enters]:.0f} in the first image with '
            f'something hot, {min(houses[enters:leaves]):.0f} at worst, within a tenth of before '
            f'{min(back, default=math.nan) - gone:.1f} s after it left; off by more for '
            f'{len(off)} images after all counts jumped'
        )
        panels = [
            Panel(thermal_picture(each), f'{letter}: {time:.1f} s')
            for letter, time in times.items()
            if (each := course.at(time)) is not None
        ]
        rows.append((name, panels))
    spans = ((hot, gone, 'something very hot'), (jump, seconds, 'all counts + 2000'))
    sheet = Sheet(
        'Thermal range: from raw counts to grey, steady over time',
        'The thermal images as they go into the fusion: thermal_range percentile, without and '
        'with thermal_range_smoothing.',
        rows,
        (Curves('grey level of the houses', lines, spans, times, (-5, 260)),),
    )
    return Finding('; '.join(texts), sheet)


def false_colour(studio: Studio) -> Finding:
    """Show a thermal driver that is set to a colour palette for a while."""
    begin, _ = studio.street.meeting()
    start, end, seconds = 1.0, 2.0, 3.0
    times = {'a': 0.8, 'b': 1.5, 'c': 2.4}
    shots = studio.street.record(
        begin, both(regularly(seconds)), faults=[f'false_colour thermal {start} {end - start}']
    )
    course = studio.robot.run(shots, wanted=list(times.values()))
    refused = [each for each in course.outcomes if each.refusal]
    figures = f'{len(refused)} of {len(course.outcomes)} pairs refused' + (
        f': {refused[0].refusal}' if refused else ''
    )
    thermal, fused = [], []
    for letter, time in times.items():
        outcome = course.at(time)
        assert outcome is not None
        title = f'{letter}: {time:.1f} s'
        if outcome.refusal:
            thermal.append(Panel(_eight_bits(outcome.sent['thermal']), title, frame=True))
            text = textwrap.fill(outcome.refusal, 44)
            fused.append(Panel(None, title, f'refused\n\n{text}'))
        else:
            thermal.append(Panel(thermal_picture(outcome), title))
            fused.append(fused_panel(outcome, title))
    sheet = Sheet(
        'False colours: refused, never fused as if they were intensity',
        'Orange frame: the driver was set to a colour palette.',
        (('thermal, as sent', thermal), ('fused', fused)),
    )
    return Finding(figures, sheet)


def faults(studio: Studio) -> Finding:
    """Covered lenses, a saturated sensor, a dead colour channel."""
    begin, _ = studio.street.meeting()
    start, seconds, moment = 0.3, 1.5, 1.4
    cases: tuple[tuple[str, str, Source], ...] = (
        ('visible lens covered', 'cover visible', 'visible'),
        ('thermal lens covered', 'cover thermal', 'thermal'),
        ('thermal saturated', 'saturate thermal', 'thermal'),
        ('no red channel', 'dead_channel visible', 'visible'),
    )
    rows, texts = [], []
    for name, fault, source in cases:
        shots = studio.street.record(
            begin - moment, both(regularly(seconds)), faults=[f'{fault} {start} 0']
        )
        believed = studio.robot.run(shots, wanted=[moment], relies=True).at(moment)
        course = studio.robot.run(shots, wanted=[0.2, moment])
        before, after = course.at(0.2), course.at(moment)
        assert before is not None
        assert after is not None
        other: Source = 'thermal' if source == 'visible' else 'visible'
        pictures = {
            'visible': _eight_bits(after.sent['visible']),
            'thermal': _like(after.sent['thermal'], before.sent['thermal']),
        }
        trust = after.trust(source)
        weights = [
            each.weight if source == 'thermal' else 1 - each.weight for each in (before, after)
        ]
        texts.append(
            f'{name} ({after.conditions[source]}): mean {source} weight {weights[0]:.2f} before, '
            f'{weights[1]:.2f} with it, trust {trust:.2f}'
        )
        rows.append(
            (
                name,
                (
                    Panel(pictures[source], f'{source}: {after.conditions[source]}', frame=True),
                    Panel(pictures[other], other),
                    fused_panel(believed, 'fused, if it were trusted'),
                    fused_panel(after, f'fused: {source} trust {trust:.2f}'),
                ),
            )
        )
    sheet = Sheet(
        'Faulty cameras: what shows nothing loses its weight',
        f'Orange frame: the faulty camera. {_BARS}.',
        rows,
    )
    return Finding('; '.join(texts), sheet)


def late(studio: Studio) -> Finding:
    """Show a thermal driver that stamps late."""
    delay, seconds, moment = 0.3, 1.5, 0.8
    begin, box = studio.street.meeting()
    times: dict[Source, Sequence[float]] = {
        'visible': regularly(seconds, 20.0),
        'thermal': regularly(seconds, 10.0),
    }
    shots = studio.street.record(begin - moment, times, faults=[f'late thermal 0 0 {delay}'])
    panels, texts = [], []
    for offset in (0.0, -delay):
        course = studio.robot.run(shots, {'thermal_time_offset': offset}, wanted=[moment])
        outcome = course.at(moment)
        if outcome is None or outcome.fused is None:
            raise UsageError('late stamps: no pair came about')
        apart = outcome.exposures['thermal'] - outcome.exposures['visible']
        texts.append(f'thermal_time_offset {offset:g}: exposed {abs(apart):.2f} s apart')
        title = 'everybody twice' if offset == 0 else 'once'
        panels += [
            Panel(
                _eight_bits(outcome.sent['visible']),
                f'visible, of {outcome.exposures["visible"]:.1f} s',
            ),
            Panel(thermal_picture(outcome), f'thermal, of {outcome.exposures["thermal"]:.1f} s'),
            Panel(outcome.fused, f'fused, thermal_time_offset {offset:g}: {title}'),
        ]
    width, height = studio.street.size
    rows = []
    for label, row in (('as stamped', panels[:3]), ('corrected', panels[3:])):
        cut = [
            replace(panel, image=crop(panel.image, box, 1.1, width / height))
            for panel in row
            if panel.image is not None
        ]
        rows.append((label, cut))
    sheet = Sheet(
        f'Late stamps: a thermal driver that stamps {delay:g} s late',
        'Stamps say which images belong together; times here are those of the exposures.',
        rows,
    )
    return Finding('; '.join(texts), sheet)


def _line(course: Course, times: Sequence[float]) -> tuple[Sequence[float], Sequence[float]]:
    """Return the thermal weight at the times of a course; NaN where nothing was fused."""
    found = [course.at(time) for time in times]
    return times, [math.nan if each is None else each.weight for each in found]


def _coverage(outcome: Outcome) -> NDArray[np.float32]:
    """Return how far the thermal image reaches, (H, W) in [0, 1]."""
    assert outcome.prepared is not None
    placement = outcome.prepared.placements[1]
    assert placement is not None
    return placement.coverage


def _placed(outcome: Outcome) -> Image:
    """Return the registered thermal image, black where it does not reach."""
    assert outcome.prepared is not None
    coverage = _coverage(outcome)
    rows, columns = coverage.shape
    placement = outcome.prepared.placements[1]
    placed = registered_image(thermal_picture(outcome), placement, (columns, rows))
    return np.rint(placed * coverage).astype(np.uint8)


def _monitor_text(course: Course) -> str:
    """Return what diagnostics say, for a card."""
    texts = [f'misalignment (px): {course.misalignment}']
    if course.warning:
        texts.append(f'WARN: {course.warning}')
    return '\n\n'.join(textwrap.fill(text, 44) for text in texts)


def _like(counts: NDArray[Any], sound: NDArray[Any]) -> Image:
    """Return counts with the range of a sound image of the same camera."""
    low, high = (float(value) for value in np.percentile(sound, (1.0, 99.5)))
    levels = (counts.astype(np.float64) - low) * (255 / max(1.0, high - low))
    return np.rint(np.clip(levels, 0, 255)).astype(np.uint8)


def _mean(values: NDArray[Any]) -> float:
    return float(values.mean(dtype=np.float64)) if values.size else math.nan


def _of_size(image: Image, size: tuple[int, int]) -> Image:
    """Return an image enlarged, with its pixels to be seen."""
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_NEAREST))


def _likeness(image: Image, ideal: Image) -> float:
    """Return the structural similarity of the lumas of two images."""
    grey = luma(ideal)
    return ssim(luma(image), grey, grey) / 2


BEHAVIOURS: dict[str, Callable[[Studio], Finding]] = {
    'registration': registration,
    'lens': lens,
    'degradations': degradations,
    'missing': missing,
    'frozen': frozen,
    'range': thermal_range,
    'false_colour': false_colour,
    'faults': faults,
    'late': late,
}


# The command


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; exit with code 2 if it is invalid."""
    parser = argparse.ArgumentParser(
        prog='inspect_cameras',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        *('-o', '--output'),
        type=Path,
        metavar='DIR',
        help='draw cameras_NAME.jpg into this folder (needs matplotlib)',
    )
    parser.add_argument(
        '--only',
        nargs='+',
        choices=list(BEHAVIOURS),
        default=list(BEHAVIOURS),
        metavar='NAME',
        help=f'of {", ".join(BEHAVIOURS)}; default: all',
    )
    parser.add_argument(
        '--size',
        type=size_argument,
        default=(320, 256),
        metavar='WIDTHxHEIGHT',
        help='of the visible images, default: 320x256',
    )
    parser.add_argument('--device', default='auto', help='auto, cpu, cuda or cuda:N')
    parser.add_argument(
        '--prior', default='compact', help='compact, nano, or a path; default: compact'
    )
    parser.add_argument('--seed', type=int, default=0, help='of street and noise, default: 0')
    return parser.parse_args(arguments)


def inspect(args: argparse.Namespace) -> int:
    """
    Do what the command line asks for.

    :return: exit code.
    :raises UsageError: nothing can be done.
    :raises OSError: a picture cannot be written.
    :raises ImportError: matplotlib is missing.
    """
    if args.size[0] < _SMALLEST[0] or args.size[1] < _SMALLEST[1]:
        raise UsageError(
            f'--size is {args.size[0]}x{args.size[1]}, but the cameras need at least '
            f'{_SMALLEST[0]}x{_SMALLEST[1]} pixels'
        )
    if args.seed < 0:
        raise UsageError(f'--seed is {args.seed}, but must not be negative')
    if args.output is not None:
        try:
            import matplotlib.figure  # noqa: F401
        except ImportError as error:
            raise ImportError(
                f'{error}: pictures need matplotlib; pip install matplotlib, or leave out --output'
            ) from error
        args.output.mkdir(parents=True, exist_ok=True)
    try:
        where = {'device': args.device, 'prior': args.prior}
        fuser = load_fuser(where, fusion_settings(complete_values({})))
    except (TypeError, ValueError) as error:
        raise UsageError(f'the fusion cannot be set up: {error}') from error
    street = Street(args.size, args.seed)
    with TemporaryDirectory() as folder:
        studio = Studio(street, Robot(fuser), Path(folder))
        for name in dict.fromkeys(args.only):
            try:
                finding = BEHAVIOURS[name](studio)
            except RegistrationError as error:
                raise UsageError(f'{name}: {error}; a larger --size may do') from error
            line = f'{name}: {finding.figures}'
            if args.output is not None:
                path = args.output / f'cameras_{name}.jpg'
                path.write_bytes(draw(finding.sheet))
                line += f' -> {path}'
            print(line, flush=True)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; see the module's description."""
    return run_tool('inspect_cameras', lambda: inspect(parse_arguments(argv)))


if __name__ == '__main__':
    sys.exit(main())
