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

"""The control that has nothing learned."""

import torch

from dig2dig_ros.evaluation.block_means import BLOCK, BlockMeans


def test_estimates_are_means_of_blocks_at_the_scale_of_clean_images() -> None:
    control = BlockMeans()
    clean = torch.linspace(-1, 1, 3 * BLOCK).expand(2, 1, 2 * BLOCK, -1).contiguous()
    timesteps = torch.tensor([0, 400])
    signal, _ = control.coefficients(timesteps, clean)
    estimates = control.denoise(signal * clean, timesteps)
    assert estimates.shape == clean.shape
    # The same at every noise level, and a ramp of block means stays a ramp between their centres.
    assert torch.allclose(estimates[0], estimates[1], atol=1e-5)
    middle = slice(BLOCK // 2, -BLOCK // 2)
    assert torch.allclose(estimates[..., middle], clean[..., middle], atol=1e-5)
    # Within a block, detail is gone.
    fine = torch.ones(2 * BLOCK, 2 * BLOCK)
    fine[::2] = -1
    assert control.denoise(fine[None, None], timesteps[:1]).abs().max() < 1e-5


def test_images_need_not_be_whole_blocks() -> None:
    level = torch.full((1, 1, 2 * BLOCK - 5, BLOCK + 3), 0.25)
    control = BlockMeans()
    timesteps = torch.tensor([200])
    signal, _ = control.coefficients(timesteps, level)
    assert torch.allclose(control.denoise(signal * level, timesteps), level, atol=1e-6)
