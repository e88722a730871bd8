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

"""The parameters, the output and the checks of the demo."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dig2dig_ros.evaluation.imperfect_cameras import true_homography, Warp
from dig2dig_ros.evaluation.options import given_parameters, UsageError
from dig2dig_ros.images.alignment import corner_distance
from dig2dig_ros.images.registration import Registration
from dig2dig_ros.streams.pairing import SOURCES

Image = NDArray[np.uint8]

MANIFEST = 'demo_files.txt'
# For --unaligned. The thermal view lies within the visible image, so that no pixels have to be
# invented if the images come from a folder.
WARP = Warp(rotation=4.0, scale=0.85, shift_x=0.05, shift_y=-0.04)
# Largest error of the corners: thermal pixels for the synthetic street; a fraction of the longer
# side for a folder, whose pairs may not be well aligned themselves.
CORNER_LIMIT, FOLDER_CORNER_LIMIT = 1.5, 0.02
# Default number of pairs of the synthetic street.
_SCENE_PAIRS = 40


class OutputFolder:
    """
    A folder in which each run of the demo replaces the files of the last one, and no others.

    The names of the files that a run writes are kept in a manifest in the folder, each added
    before its file is written, so that a run that was killed is cleaned up too.

    :raises UsageError: the folder cannot be created or written to.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files: list[str] = []
        self._manifest = path / MANIFEST
        try:
            path.mkdir(parents=True, exist_ok=True)
            if self._manifest.is_file():
                for name in self._manifest.read_text(encoding='utf-8').splitlines():
                    file = path / name
                    # The manifest may have been edited: stay inside the folder.
                    if file.is_file() and path.resolve() in file.resolve().parents:
                        file.unlink()
            self._manifest.write_text('', encoding='utf-8')
        except OSError as error:
            raise UsageError(f'cannot write to the output folder {path}: {error}') from None

    def file(self, name: str) -> Path:
        """
        Return the path for ``name``, and record that the demo wrote it.

        :raises UsageError: there is already a file that the demo did not write.
        """
        path = self.path / name
        if name not in self.files:
            if path.exists():
                raise UsageError(
                    f'{path} exists and was not written by the demo; '
                    'choose another folder with --output'
                )
            path.parent.mkdir(parents=True, exist_ok=True)
            self.files.append(name)
            with self._manifest.open('a', encoding='utf-8') as manifest:
                manifest.write(name + '\n')
        return path

    def write_image(self, name: str, image: Image) -> None:
        """Write ``image`` as PNG."""
        # imwrite() fails silently, and on some systems for names that are not ASCII.
        done, data = cv2.imencode('.png', image)
        if not done:
            raise UsageError(f'OpenCV could not encode {name}')
        self.file(name).write_bytes(data.tobytes())


def fusion_parameters(options: argparse.Namespace, registration: Path) -> dict[str, Any]:
    """
    Return the parameters of the fusion node, except those of the preset.

    :param registration: the file of --unaligned.
    """
    values: dict[str, Any] = {'diagnostics_period': 0.5}
    if options.pairs is None:
        values['warmup_size'] = list(options.size)
    if options.unaligned:
        # A run is short: measure the remaining misalignment more often.
        values.update(thermal_to_visible=str(registration.resolve()), alignment_period=1.0)
    return {**values, **given_parameters(options)}


def camera_parameters(options: argparse.Namespace, rate: float, wait: float) -> dict[str, Any]:
    """
    Return the parameters of pair_camera.

    :param rate: pairs per second.
    :param wait: seconds to wait for subscribers.
    """
    values: dict[str, Any] = {
        'visible_rate': rate,
        'thermal_rate': rate,
        'loop': False,
        'wait_for_subscribers': wait,
        # The demo and the fusion node: one may be discovered seconds after the other.
        'min_subscribers': 2,
    }
    if options.pairs is None:
        # Like two free-running cameras.
        values.update(width=options.size[0], height=options.size[1])
        values.update(thermal_offset=0.012, stamp_jitter=0.002)
        values['count'] = options.count or _SCENE_PAIRS
    else:
        values.update(directory=str(options.pairs.resolve()), count=options.count or 0)
    if options.unaligned:
        values['thermal_warp'] = [WARP.rotation, WARP.scale, WARP.shift_x, WARP.shift_y]
    return values


def registration_facts(
    registration: Registration, trusted: bool, from_folder: bool
) -> dict[str, Any]:
    """
    Return the result of ``dig2dig calibrate``, and its error.

    :param trusted: whether ``dig2dig calibrate`` trusts it.
    :param from_folder: the images are recorded ones. The known truth is then only the warp that
        was applied: if they were misaligned before, a perfect registration is off by that.
    """
    visible, thermal = registration.visible_size, registration.thermal_size
    truth = true_homography(WARP, thermal, visible)
    stretched = true_homography(Warp(), thermal, visible)
    found, limit = registration.thermal_to_visible, CORNER_LIMIT
    if from_folder:
        limit = max(limit, FOLDER_CORNER_LIMIT * max(thermal))
    return {
        'trusted': trusted,
        'reasons': list(registration.estimate.get('reasons', [])),
        'thermal_to_visible': found.tolist(),
        'truth': "the folder's own alignment" if from_folder else 'the truth',
        'corner_error_px': round(corner_distance(found, truth, thermal), 3),
        'corner_error_before_px': round(corner_distance(stretched, truth, thermal), 3),
        'corner_error_limit_px': limit,
    }


def render_summary(summary: Mapping[str, Any]) -> str:
    """Return the summary as the lines that the demo prints."""
    sent, received, node = summary['sent'], summary['received'], summary['node']
    causes = ', '.join(f'{count} {cause}' for cause, count in summary['dropped'].items() if count)
    alone = ', '.join(f'{count} {source}' for source, count in summary['waiting'].items() if count)
    waiting = f'; still without a partner: {alone}' if alone else ''
    sizes = summary['sizes']
    p50, p95 = (
        '?' if value is None else f'{value:.0f}' for value in summary['node_latency_ms'].values()
    )
    arrived = ', '.join(f'{source} {received[source]}' for source in SOURCES)
    rows = [
        ('pairs sent', f'{sent["pairs"]} (visible {sent["visible"]}, thermal {sent["thermal"]})'),
        ('received', arrived),
        ('pairs formed', f'{summary["pairs"]}{waiting}'),
        ('pairs fused', f'{summary["fused"]}'),
        ('dropped', causes or 'none'),
        ('latency', f'median {p50} ms, p95 {p95} ms, from arrival to publication'),
        ('sizes', ', '.join(sizes) if len(sizes) <= 3 else f'{len(sizes)} different ones'),
        (
            'with',
            f'{node["device"]}, {node["precision"]}, denoiser {node["prior"]}, '
            f'N {node["N"]}, S {node["S"]}',
        ),
    ]
    if 'registration' in summary:
        facts = summary['registration']
        rows.append(('registration', registration_verdict(facts)))
        left = facts['misalignment']
        rows.append(('', f'misalignment left, in visible pixels, measured by the node: {left}'))
    return '\n'.join(f'  {name:<12} {text}' for name, text in rows)


def registration_verdict(facts: Mapping[str, Any]) -> str:
    """Return the outcome of the calibration in one line."""
    trusted = 'trusted' if facts['trusted'] else 'not trusted'
    return (
        f'{trusted}; its corners are {facts["corner_error_px"]:.2f} thermal pixels off '
        f'{facts["truth"]} (limit {facts["corner_error_limit_px"]:.1f}), '
        f'{facts["corner_error_before_px"]:.1f} without it'
    )


def write_json(folder: OutputFolder, name: str, content: Mapping[str, Any]) -> None:
    """Write ``content`` as readable JSON."""
    text = json.dumps(content, indent=2, ensure_ascii=False)
    folder.file(name).write_text(text + '\n', encoding='utf-8')


def problems(summary: Mapping[str, Any], each_pair_once: bool) -> list[str]:
    """
    Return the problems of a finished run, in sentences.

    :param each_pair_once: the pairs came one by one, so no image may still be unpaired, and none
        may be lost in transport.
    """
    found = []
    fused, dropped = summary['fused'], summary['dropped']
    if fused == 0:
        found.append('nothing was fused')
    if dropped.get('fusion error', 0):
        found.append(f'{dropped["fusion error"]} pairs failed: {summary["last_error"]}')
    if each_pair_once:
        for source in SOURCES:
            lost = summary['sent'][source] - summary['received'][source]
            if lost > 0:
                found.append(f'{lost} {source} images were lost in transport to fusion_node')
            if (count := summary['waiting'][source]) > 0:
                found.append(f'{count} {source} images were neither paired nor dropped')
    seen = summary['seen']['fused/image_raw']
    if seen < fused:
        found.append(f'only {seen} of {fused} fused images reached the demo')
    if 'registration' in summary:
        facts = summary['registration']
        if not facts['trusted']:
            found.append(f'the registration is not trusted: {"; ".join(facts["reasons"])}')
        error, limit = facts['corner_error_px'], facts['corner_error_limit_px']
        # Written this way so that NaN counts as wrong.
        if not error <= limit:
            found.append(
                f'the registration puts the corners of the thermal image {error:.1f} thermal '
                f'pixels off {facts["truth"]}; at most {limit:.1f} are allowed'
            )
        if count := dropped.get('registration', 0):
            found.append(f'{count} pairs do not fit the registration: {summary["last_error"]}')
    return found
