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

"""What noise of the visible camera does to the information and the weights of the cameras."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from camera_trials import Street
import numpy as np
from numpy.typing import NDArray
from sheets import crop, Panel, Sheet
import torch

from dig2dig_ros.evaluation.conditions import Condition
from dig2dig_ros.evaluation.imperfect_cameras import of_type
from dig2dig_ros.evaluation.options import report
from dig2dig_ros.evaluation.synthetic_scene import SyntheticScene
from dig2dig_ros.evaluation.tables import Table
from dig2dig_ros.fusion.denoising import denoising_share
from dig2dig_ros.fusion.fuser import Fuser
from dig2dig_ros.fusion.information_gain import frame_information
from dig2dig_ros.fusion.sampler import StepState
from dig2dig_ros.images.sensor_noise import measure_noise, SensorNoise
from dig2dig_ros.images.thermal_range import ThermalRange
from dig2dig_ros.streams.pairing import SOURCES

# Deviations of the noise, in grey levels of 255, of each channel.
LEVELS = (0, 5, 10, 15, 20, 30, 40)
# What the fusion does without, and the settings that make it so.
_UNGATED: dict[str, Any] = {'least_information': 0.0}
_UNAWARE: dict[str, Any] = {
    **_UNGATED,
    'visible_degradation': 'none',
    'thermal_degradation': 'none',
}
VARIANTS: dict[str, dict[str, Any]] = {
    'by default': {},
    'without the gate': _UNGATED,
    'without gate and noise estimate': _UNAWARE,
}
BANDS = ('structure', 'details')
_CONDITION = Condition('night_shot', 'medium')

Image = NDArray[np.uint8]
Floats = NDArray[np.float64]


def street_pair(scene: SyntheticScene, time_s: float) -> tuple[Image, Image]:
    """Return the visible image, (H, W, 3), and the thermal one, (H, W), mapped as by default."""
    frame = scene.render(time_s)
    thermal = ThermalRange()(frame.thermal, 0.0)
    return frame.visible, np.rint(255 * thermal).astype(np.uint8)


def information(steps: Sequence[StepState], noise: Sequence[SensorNoise]) -> Floats:
    """Return the information of each camera about the scene, (bands, cameras), in nats."""
    gains = torch.stack([step.gains for step in steps])
    levels = gains.new_tensor([each.white.deviation / 255 for each in noise])
    # On [-1, 1], as the images of the prior; the first interval begins at pure noise.
    nats: Floats = frame_information(gains, 1, 2 * denoising_share(levels) * levels).cpu().numpy()
    return nats.reshape(len(BANDS), 2)


def follow_noise(
    fuser: Fuser, count: int, size: tuple[int, int], seed: int
) -> tuple[Floats, dict[str, Floats]]:
    """
    Add noise to the visible images of as many streets, and look at what becomes of it.

    :return: nats, (pairs, levels, bands, cameras), thermal weights by variant, (pairs, levels).
    :raises ValueError: sizes or a seed that :class:`SyntheticScene` refuses.
    """
    nats = np.empty((count, len(LEVELS), len(BANDS), 2))
    weights = {name: np.empty((count, len(LEVELS))) for name in VARIANTS}
    for index in range(count):
        scene = SyntheticScene(*size, seed=seed + index)
        clean, thermal = street_pair(scene, scene.period * (index + 0.5) / count)
        draw = np.random.default_rng(seed + index).standard_normal(clean.shape, np.float32)
        for place, level in enumerate(LEVELS):
            report(f'[pair {index + 1}/{count}] noise of {level} grey levels')
            visible = of_type(clean + np.float32(level) * draw, np.uint8)
            noise = [measure_noise(image, full_scale=255) for image in (visible, thermal)]
            for name, changes in VARIANTS.items():
                settings = replace(fuser.settings, **changes)
                steps: list[StepState] = []
                fused = fuser.fuse(
                    visible, thermal, settings=settings, noise=noise, callback=steps.append
                )
                weights[name][index, place] = fused.weights[1].mean()
                if not changes:
                    nats[index, place] = information(steps, noise)
    return nats, weights


def noise_table(nats: Floats, weights: dict[str, Floats]) -> Table:
    """Return the means over the pairs."""
    header = ['noise', *(f'{name}, {band}' for band in BANDS for name in SOURCES)]
    rows = []
    for place, level in enumerate(LEVELS):
        row = [str(level), *(f'{value:.2f}' for value in nats[:, place].mean(axis=0).flatten())]
        row += [f'{values[:, place].mean():.2f}' for values in weights.values()]
        rows.append(tuple(row))
    note = 'Noise: deviation in grey levels of each channel; nats a sample; mean thermal weights.'
    return Table('', (*header, *weights), tuple(rows), (note,))


def night_sheet(fuser: Fuser, size: tuple[int, int], seed: int) -> Sheet:
    """Return a pair in little light, fused without and with what is known of its noise."""
    street = Street(size, seed)
    moment, box = street.meeting()
    visible, thermal = _CONDITION.apply(*street_pair(street.scene(), moment), 'street')
    panels = [Panel(visible, 'visible'), Panel(thermal, 'thermal')]
    ways = {'fused, noise unknown, no gate': _UNAWARE, 'fused by default': {}}
    for title, changes in ways.items():
        fused = fuser.fuse(visible, thermal, settings=replace(fuser.settings, **changes))
        panels.append(Panel(fused.image, title, share=float(fused.weights[1].mean())))
    near = [Panel(crop(each.image, box, 1.3, 1.25)) for each in panels if each.image is not None]
    meaning = f'{_CONDITION.meaning[0].upper()}{_CONDITION.meaning[1:]}'
    return Sheet(
        'A night shot: noise is estimated, taken out, and not taken for information',
        f'{meaning}. Bar: mean weight of visible (blue) and thermal (orange).',
        (('the street', panels), ('a part of it', near)),
    )
