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

"""The shipped presets: what a pair costs with them, and how calm the fused image is."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from torch.utils.flop_counter import FlopCounterMode

from dig2dig_ros.evaluation.synthetic_scene import SyntheticScene
from dig2dig_ros.fusion.fuser import Fuser
from dig2dig_ros.streams.parameters import complete_values, fusion_settings, read_parameters

CONFIG = Path(__file__).resolve().parents[2] / 'config'
WIDTH, HEIGHT = 640, 512


def load(preset):
    values = complete_values(read_parameters(CONFIG / f'{preset}.yaml'))
    return Fuser(fusion_settings(values), prior=values['prior'], device='cpu')


def operations(preset):
    """Return the floating-point operations of a pair at 640x512 in GFLOP."""
    fuser = load(preset)
    rng = np.random.default_rng(4)
    visible = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    thermal = rng.integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)
    with FlopCounterMode(display=False) as counter:
        result = fuser.fuse(visible, thermal)
    assert result.image.shape == (HEIGHT, WIDTH, 3)
    return counter.get_total_flops() / 1e9


def test_realtime_takes_few_operations_and_the_default_is_for_gpus():
    realtime, default = operations('realtime'), operations('fusion')
    assert 0 < realtime < 1
    assert 10 * realtime < default < 60


# A street of 8 bits, of which the fuser sees a part.
SCENE = (136, 168)
MARGIN = 12


@pytest.fixture(scope='module')
def street():
    frame = SyntheticScene(SCENE[1], SCENE[0], seed=3).render(1.0)
    thermal = cv2.normalize(frame.thermal, None, 0, 255, cv2.NORM_MINMAX, cv2.CV_8U)
    return frame.visible, thermal


def part(pair, offset):
    height, width = SCENE[0] - 8, SCENE[1] - 8
    rows, columns = slice(offset, offset + height), slice(offset, offset + width)
    return [np.ascontiguousarray(image[rows, columns]) for image in pair]


def noisy(pair, deviation):
    rng = np.random.default_rng(7)
    return [
        np.clip(np.rint(image + rng.normal(0, deviation, image.shape)), 0, 255).astype(np.uint8)
        for image in pair
    ]


def fused_grey(fuser, pair):
    image = fuser.fuse(*pair, weight_maps=False).image
    return cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).astype(np.float32)


def smooth(image):
    """Return where an image has no edges: less than two grey levels from pixel to pixel."""
    soft = cv2.GaussianBlur(image, (0, 0), 1.5)
    slope = np.hypot(*(cv2.Sobel(soft, cv2.CV_32F, x, 1 - x, scale=0.125) for x in (0, 1)))
    mask = cv2.erode((slope < 2).astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool)
    inner = np.zeros_like(mask)
    inner[MARGIN:-MARGIN, MARGIN:-MARGIN] = True
    assert (mask & inner).mean() > 0.1
    return mask & inner


@pytest.mark.parametrize('preset', ['fusion', 'realtime'])
def test_smooth_regions_stay_where_the_cameras_shift(street, preset):
    fuser = load(preset)
    first, second = (fused_grey(fuser, part(street, offset)) for offset in (0, 2))
    change = np.abs(first[2:, 2:] - second[:-2, :-2])[smooth(first)[2:, 2:]]
    # Of the rounding, one level here and there.
    assert change.mean() < 0.3
    assert np.percentile(change, 99) <= 1


@pytest.mark.parametrize('preset', ['fusion', 'realtime'])
def test_noise_does_not_lift_or_lower_smooth_regions(street, preset):
    pair = part(street, 0)
    fuser = load(preset)
    clean = fused_grey(fuser, pair)
    change = fused_grey(fuser, noisy(pair, 3.0)) - clean
    assert np.percentile(np.abs(cv2.blur(change, (9, 9)))[smooth(clean)], 99) < 1
