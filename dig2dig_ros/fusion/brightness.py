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
The brightness of the visible camera, kept where it is bright and the thermal one cold.

By day, the sky is bright in one camera and the coldest thing in the other; what is fused of both
is a sky at dusk. A cold place shows nobody, so its brightness can be that of the visible image.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dig2dig_ros.fusion.information_gain import cell_means, COARSE_CELL, refined

# Standard deviations below the mean of the thermal image from which on a place begins to be
# cold, and is.
_COLD = (0.1, 0.6)
# Least deviation by which it is judged: of images on [0, 1].
_LEAST_DEVIATION = 0.02
# Visible brightness of [0, 1] from which on a place begins to be bright, and is.
_BRIGHT = (0.25, 0.45)


def bright_and_cold(sources: Tensor) -> Tensor:
    """
    Return where the first source is bright and the second one cold.

    :param sources: (K, 1, H, W) in [0, 1], visible and thermal first.
    :return: (1, 1, h, w) in [0, 1], on cells of :data:`COARSE_CELL` pixels.
    """
    visible, thermal = cell_means(sources[:2], COARSE_CELL).unbind()
    deviation, mean = torch.std_mean(thermal, unbiased=False)
    cold = _smooth_step((mean - thermal) / (deviation + _LEAST_DEVIATION), *_COLD)
    return (cold * _smooth_step(visible, *_BRIGHT))[None]


def keep_brightness(fused: Tensor, sources: Tensor, kept: Tensor) -> Tensor:
    """
    Give the fused image the brightness of the first source, with its own detail.

    :param fused: (H, W) in [0, 1].
    :param sources: (K, 1, H, W) in [0, 1], visible and thermal first.
    :param kept: (1, 1, h, w), how far, such as of :func:`bright_and_cold`.
    :return: (H, W) in [0, 1]. It is within what the fused image and the sources span at a pixel,
        except for thermal detail, such as a wire, which a bright sky would hide.
    """
    thermal = sources[1:2]
    missing = kept * cell_means(sources[:1] - fused, COARSE_CELL)
    planes = torch.cat([missing, cell_means(thermal, COARSE_CELL)])
    missing, coarse_thermal = refined(planes, COARSE_CELL, *fused.shape)[:, 0]
    detail = thermal[0, 0] - coarse_thermal
    lowest = torch.minimum(fused, sources.amin(dim=0)[0]).add_(detail.clamp_max(0))
    highest = torch.maximum(fused, sources.amax(dim=0)[0]).add_(detail.clamp_min_(0))
    corrected: Tensor = missing.add_(fused)
    return corrected.clamp_(lowest.clamp_min_(0), highest.clamp_max_(1))


def with_share_of_first(weights: Tensor, kept: Tensor) -> Tensor:
    """
    Return the weights of sources when as much as that of the brightness is the first one's.

    :param weights: (K, 1, H, W), summing to 1 over the sources.
    :param kept: (1, 1, h, w) in [0, 1].
    """
    share = refined(kept, COARSE_CELL, *weights.shape[-2:])
    left = weights * (1 - share)
    return torch.cat([left[:1] + share, left[1:]])


def _smooth_step(x: Tensor, begin: float, end: float) -> Tensor:
    """Rise from 0 to 1 between two values, without a kink."""
    x = ((x - begin) / (end - begin)).clamp(0, 1)
    return x.square() * (3 - 2 * x)
