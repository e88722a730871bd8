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
Sources that show only a part of the scene, or that are only partly to be believed.

A source has a confidence m_k in [0, 1] at every pixel: 0 where its camera does not reach or while
it is broken, 1 where it is as good as any. What it lacks is filled with what the others show:

    c_k' = m_k c_k + (1 - m_k) sum_j m_j c_j / sum_j m_j.

So the fusion meets no false edge where a camera ends, and where all but one have no confidence,
all sources are that one, and so is the fused image. Of what is fused at a weight w_k, the part
m_k is source k's own; :func:`confident_weights` tells whose the rest is.
"""

from __future__ import annotations

import torch
from torch import Tensor


def _shares(confidence: Tensor) -> Tensor:
    """Return m_k / sum_j m_j; equal shares where nobody has any confidence."""
    total = confidence.sum(dim=0, keepdim=True)
    known = total > 0
    shares = confidence / torch.where(known, total, 1.0)
    return torch.where(known, shares, 1.0 / len(confidence))


def confident_sources(sources: Tensor, confidence: Tensor) -> Tensor:
    """
    Return the sources with what they lack filled in from the others.

    :param sources: (K, 1, H, W).
    :param confidence: (K, 1, H, W) in [0, 1]; where it is 0 for all sources, each is the mean.
    :return: (K, 1, H, W).
    """
    common = (_shares(confidence) * sources).sum(dim=0, keepdim=True)
    return common + confidence * (sources - common)


def confident_weights(weights: Tensor, confidence: Tensor) -> Tensor:
    """
    Return how much of each original source the weighted sum of the filled ones holds.

    :param weights: (R, K, 1, H, W), summing to 1 over the sources.
    :param confidence: (K, 1, H, W) in [0, 1].
    :return: (R, K, 1, H, W), summing to 1 over the sources.
    """
    own = weights * confidence
    lent = (weights - own).sum(dim=1, keepdim=True)
    return own + lent * _shares(confidence)
