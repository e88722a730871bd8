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
What the last pairs of a video knew: the sources' estimates, as long as nothing moves.

The estimates c_hat_k^t (Eq. 10) cost most of a fusion, and change little from one pair of a video
to the next where nothing moves. There they are reused. Nothing else is: gains, weights and
increments are always those of the pair itself, and the last increment is what the source shows
*now* beyond the estimate, whatever pair that was made of. With the same weights in all intervals
the increments telescope to the sources of now; otherwise an estimate that is off by e leaves an
error of the difference between the weights of two intervals times e. So reuse is harmless as long
as the estimate of then is close to what it would be now:

- *The motion check.* The means of small cells are compared with those of the pair that the
  estimates were made of, not of the last pair: slow changes add up, and are noticed.
- *What moved* gets new estimates, but coarser ones: the prior sees the whole picture with
  :data:`STAND_IN_DOWNSCALE` pixels a side averaged into one, which takes a sixteenth of its
  operations. Crops of the picture in full would take more: what a prior says of a pixel depends
  on its surroundings, and within three grey levels of 255 for the smallest one only with 32 pixels
  of them on each side.
- *The camera moves*, or the thermal range jumps: where a large part of the picture has changed,
  the prior is asked as if there were no memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
import torch.nn.functional as F

from dig2dig_ros.fusion.information_gain import cell_means, refined
from dig2dig_ros.fusion.sampler import estimate_sources
from dig2dig_ros.priors.base import Prior

# Pixels a side of the cells in which motion is looked for.
MOTION_CELL = 8
# Of the mean of a cell, on [-1, 1]: three grey levels of 255. Noise of ten levels moves the mean
# of 64 pixels by 1.25.
MOTION_TOLERANCE = 3 / 127.5
# Of the cells: with more of them changed than this, it is not objects that move, but the camera.
MOST_CHANGED = 0.5
# Of the estimates for what moved, see prior_downscale of the settings; where that is as coarse,
# they are made anew as soon as anything has moved.
STAND_IN_DOWNSCALE = 4


@dataclass(frozen=True)
class _Known:
    """
    What was estimated of an earlier pair.

    :param key: all that the estimates depend on but the values of the sources.
    :param means: (K, 1, h, w) of the sources, in cells.
    :param estimates: (R, K, 1, H, W).
    """

    key: tuple[object, ...]
    means: Tensor
    estimates: Tensor


class VideoMemory:
    """
    The estimates of an earlier pair of one video, for the sampler to reuse.

    Give one to :meth:`~dig2dig_ros.fusion.fuser.Fuser.fuse` with every pair of a video, in their
    order, and :meth:`clear` it where the video is cut, as when the clock jumps. It starts anew by
    itself when size, number of sources, prior or timesteps change. What is fused is a function of
    the pairs since then. It holds the estimates of one pair, and no more.

    :ivar reused: part of the last pair whose estimates were reused, 0 to 1.
    """

    def __init__(self) -> None:
        self.reused = 0.0
        self._known: _Known | None = None
        self._age = 0
        self._cuts = 0

    def clear(self) -> None:
        """Forget everything: the next pair is not of the same video. From any thread."""
        self._cuts += 1  # for a pair that is being fused, and will leave what it knows
        self._known = None

    @torch.inference_mode()
    def estimates(
        self,
        prior: Prior,
        sources: Tensor,
        timesteps: tuple[int, ...],
        downscale: int,
        pairs: int,
    ) -> tuple[Tensor, int]:
        """
        Return the estimates of a pair without noise, from the prior or from memory.

        :param sources: (K, 1, H, W) in [-1, 1], of the next pair.
        :param timesteps: see :func:`~dig2dig_ros.fusion.sampler.estimate_sources`, as
            ``downscale``.
        :param pairs: how many pairs in a row may reuse what the prior said.
        :return: (R, K, 1, H, W), not to be changed; and the images that went through the prior.
        """
        key = (
            self._cuts,
            prior.name,
            timesteps,
            downscale,
            sources.shape,
            sources.device,
            sources.dtype,
        )
        calls = len(timesteps) * len(sources)
        means = cell_means(sources, MOTION_CELL)
        known = self._known
        if known is not None and known.key == key and self._age < pairs:
            changed = _changed_cells(means, known.means)
            share = float(changed.mean())
            if share == 0 or (share <= MOST_CHANGED and downscale < STAND_IN_DOWNSCALE):
                self._age += 1
                self.reused = 1 - share
                if share == 0:
                    return known.estimates, 0
                stand_in, _ = estimate_sources(
                    prior, sources, timesteps, [], downscale=STAND_IN_DOWNSCALE
                )
                # From cell to cell, so that no edge shows.
                blend = refined(changed, MOTION_CELL, *sources.shape[-2:])
                return torch.lerp(known.estimates, stand_in, blend), calls
        estimates, _ = estimate_sources(prior, sources, timesteps, [], downscale=downscale)
        self._known = _Known(key, means, estimates)
        self._age = 0
        self.reused = 0.0
        return estimates, calls


def _changed_cells(means: Tensor, earlier: Tensor) -> Tensor:
    """Return 1 where any source has changed, or a cell beside, else 0: (1, 1, h, w)."""
    difference = (means - earlier).abs_().amax(dim=0, keepdim=True)
    changed = (difference > MOTION_TOLERANCE).to(means.dtype)
    return F.max_pool2d(changed, 3, stride=1, padding=1)
