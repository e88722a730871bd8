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

"""Denoisers whose answers are known, for tests of what is around a prior."""

import torch

from dig2dig_ros.priors.base import linear_alpha_bar, Prior


class GaussianPrior(Prior):
    """
    The exact denoiser of independent pixels x_0 ~ N(0, variance).

    E[x_0 | x_t] = sqrt(a) v / (a v + 1 - a) x_t, with a = alpha_bar_t.
    """

    def __init__(self, variance=0.25):
        super().__init__('gaussian', linear_alpha_bar())
        self.variance = variance
        self.batches = []

    def denoise(self, noisy, timesteps):
        self.batches.append(len(noisy))
        level = self.alpha_bar[timesteps].view(-1, 1, 1, 1)
        factor = level.sqrt() * self.variance / (level * self.variance + 1 - level)
        return (factor.to(noisy.dtype) * noisy).to(noisy.dtype)


def random_sources(count=2, height=8, width=10, dtype=torch.float64):
    generator = torch.Generator().manual_seed(3)
    return torch.rand((count, 1, height, width), generator=generator, dtype=dtype) * 2 - 1
