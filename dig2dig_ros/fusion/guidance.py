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
Multimodal guidance: what the sources want the estimate of the clean image to be (Eq. 2-3).

With a Gaussian likelihood around what is known of source k, the conditional score
grad log p(c_k | x_t) points from the prior's estimate x_hat_0 to that knowledge. Weighted over
the sources and applied to x_hat_0 instead of x_t, it needs no back-propagation through the
prior: x_hat_0 moves towards one target image by ``guidance_scale``.
"""

from __future__ import annotations

import torch
from torch import Tensor


def increment_targets(estimates: Tensor, sources: Tensor, weights: Tensor) -> Tensor:
    """
    Return what the weighted sources have resolved by the end of each interval.

    Between two refreshes, the reverse process of source k resolves the increment
    c_hat_k^{t'} - c_hat_k^t. Each increment is weighted by the gain of the very interval that
    resolves it, and they sum up, so that a pixel can take its coarse structure from one source
    and its texture from another. With equal weights, the last target is the mean of the
    sources.

    :param estimates: (R, K, 1, H, W), c_hat_k^t (Eq. 10) at the beginnings of the intervals,
        noisiest first.
    :param sources: (K, 1, H, W), the end of every source's chain.
    :param weights: (R, K, 1, H, W), summing to 1 over the sources.
    :return: (R, 1, H, W), the target of each interval.
    """
    following = torch.cat([estimates[1:], sources[None]])
    resolved = (weights * (following - estimates)).sum(dim=1)
    base = estimates[0].mean(dim=0, keepdim=True)
    return base + resolved.cumsum(dim=0)


def guide(estimate: Tensor, target: Tensor, guidance_scale: float) -> Tensor:
    """
    Move the prior's estimate of the clean image towards the sources' target.

    :param guidance_scale: strength of the likelihood against the prior; 0 ignores the sources,
        1 ignores the prior.
    """
    return torch.lerp(estimate, target, guidance_scale)
