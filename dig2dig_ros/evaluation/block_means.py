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

"""A control for experiments: the fusion without a trained denoiser."""

from __future__ import annotations

from torch import Tensor
import torch.nn.functional as F

from dig2dig_ros.priors.base import linear_alpha_bar, Prior

# Side of a block in pixels.
BLOCK = 16


class BlockMeans(Prior):
    """
    Estimates an image by the interpolated means of its blocks: no network, nothing learned.

    Used in place of a prior, it shows how much of a result is due to the prior.
    """

    only_enqueues = True

    def __init__(self) -> None:
        super().__init__('block_means', linear_alpha_bar())

    def denoise(self, noisy: Tensor, timesteps: Tensor) -> Tensor:
        """Return blurred images at the scale of clean ones, see :meth:`Prior.denoise`."""
        signal, _ = self.coefficients(timesteps, noisy)
        means = F.avg_pool2d(noisy / signal, BLOCK, ceil_mode=True, count_include_pad=False)
        return F.interpolate(means, noisy.shape[-2:], mode='bilinear', align_corners=False)
