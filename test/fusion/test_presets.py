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

"""The shipped presets: what a pair costs with them."""

from pathlib import Path

import numpy as np
from torch.utils.flop_counter import FlopCounterMode

from dig2dig_ros.fusion.fuser import Fuser
from dig2dig_ros.streams.parameters import complete_values, fusion_settings, read_parameters

CONFIG = Path(__file__).resolve().parents[2] / 'config'
WIDTH, HEIGHT = 640, 512


def operations(preset):
    """Return the floating-point operations of a pair at 640x512 in GFLOP."""
    values = complete_values(read_parameters(CONFIG / f'{preset}.yaml'))
    fuser = Fuser(fusion_settings(values), prior=values['prior'], device='cpu')
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
