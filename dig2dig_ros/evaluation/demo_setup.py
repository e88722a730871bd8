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

"""How the demo sets up cameras and node, and how good a registration of such cameras is."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from dig2dig_ros.evaluation.imperfect_cameras import true_homography, Warp
from dig2dig_ros.images.alignment import corner_distance
from dig2dig_ros.images.registration import Registration

# Of --unaligned. All that the thermal camera sees is in the visible image, so that nothing has to
# be made up where the images come from a folder.
WARP = Warp(rotation=4.0, scale=0.85, shift_x=0.05, shift_y=-0.04)
# How far the corners may be off the truth: thermal pixels in the built-in scene; part of the
# longer side for a folder, whose pairs may never have been aligned that well.
CORNER_LIMIT, FOLDER_CORNER_LIMIT = 1.5, 0.02
# Pairs that the built-in scene sends where nothing else is said.
_SCENE_PAIRS = 40


def fusion_parameters(options: argparse.Namespace, registration: Path) -> dict[str, Any]:
    """
    Return the parameters of the fusion node, but for those of the preset.

    :param registration: the file of --unaligned.
    """
    values: dict[str, Any] = {'diagnostics_period': 0.5}
    if options.pairs is None:
        values['warmup_size'] = [options.width, options.height]
    if options.unaligned:
        # A run is short: look more often at what misalignment is left.
        values.update(thermal_to_visible=str(registration.resolve()), alignment_period=1.0)
    asked = {
        'fusion.num_inference_steps': options.N,
        'fusion.dig_refresh_interval': options.S,
        'device': options.device,
    }
    return {**values, **{name: value for name, value in asked.items() if value is not None}}


def camera_parameters(options: argparse.Namespace, rate: float, wait: float) -> dict[str, Any]:
    """
    Return the parameters of pair_camera.

    :param rate: pairs a second.
    :param wait: seconds to wait for subscribers.
    """
    values: dict[str, Any] = {
        'visible_rate': rate,
        'thermal_rate': rate,
        'loop': False,
        'wait_for_subscribers': wait,
        # The demo and who works with the images: one may be discovered seconds after the other.
        'min_subscribers': 2,
    }
    if options.pairs is None:
        # As of two free-running cameras.
        values.update(width=options.width, height=options.height)
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
    Return what calibrate_registration found, and how far that is off the truth.

    :param trusted: what calibrate_registration says.
    :param from_folder: the images are recorded ones. Then the truth is only what was done to
        them: where they were not aligned before, a perfect registration is off by that.
    """
    visible, thermal = registration.visible_size, registration.thermal_size
    truth = true_homography(WARP, thermal, visible)
    stretched = true_homography(Warp(), thermal, visible)
    estimate = registration.estimate
    return {
        'trusted': trusted,
        'reasons': list(estimate.get('reasons', [])),
        'residual': str(estimate.get('residual', '')),
        'left_over': str(estimate.get('left over', '')),
        'thermal_to_visible': registration.thermal_to_visible.tolist(),
        'true_thermal_to_visible': truth.tolist(),
        'truth': "the folder's own alignment" if from_folder else 'the truth',
        'corner_error_px': round(
            corner_distance(registration.thermal_to_visible, truth, thermal), 3
        ),
        'corner_error_before_px': round(corner_distance(stretched, truth, thermal), 3),
        'corner_error_limit_px': max(CORNER_LIMIT, FOLDER_CORNER_LIMIT * max(thermal))
        if from_folder
        else CORNER_LIMIT,
    }
