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

"""The interface between the fusion and any pretrained denoiser."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
import torch
from torch import nn, Tensor


class PriorError(ValueError):
    """A prior cannot be loaded; the message says which file, why, and what to do."""


def linear_alpha_bar(
    num_train_timesteps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02
) -> Tensor:
    """
    Return the cumulative signal level of the linear variance schedule.

    ``alpha_bar[t] = prod_{i<=t} (1 - beta_i)`` (Dig2DIG, section 3; DDPM). Index 0 is the
    cleanest of the trained noise levels, ``num_train_timesteps - 1`` is nearly pure noise.

    :return: float64 tensor of shape (num_train_timesteps,), strictly decreasing in (0, 1).
    """
    beta = torch.linspace(beta_start, beta_end, num_train_timesteps, dtype=torch.float64)
    return torch.cumprod(1.0 - beta, dim=0)


class Prior(nn.Module, ABC):
    """
    A pretrained denoiser of single-channel images scaled to [-1, 1].

    A prior has the noise schedule that it was trained for, as its timesteps mean nothing without
    it. Subclasses implement :meth:`denoise` for any image size, and pad to what their network
    needs.

    :cvar only_enqueues: whether :meth:`denoise`, on a GPU, neither waits for it nor copies to or
        from it, so that a CUDA graph can record it; then it does so at every call but the first.
    """

    only_enqueues = False

    def __init__(self, name: str, alpha_bar: Tensor) -> None:
        super().__init__()
        self.name = name
        # Not a buffer: casting the network to half precision must not round the schedule.
        self.alpha_bar = alpha_bar.to('cpu', torch.float64)
        self._alpha_bar_there: tuple[Tensor, Tensor] | None = None
        self._noise_ratios: tuple[Tensor, NDArray[np.float64]] | None = None

    @property
    def num_train_timesteps(self) -> int:
        """Number of trained noise levels; valid timesteps are 0 .. this - 1."""
        return int(self.alpha_bar.shape[0])

    def check_timesteps(self, timesteps: Sequence[int]) -> None:
        """
        Check that this prior was trained for these noise levels.

        :raises PriorError: one of them is not in 0 .. ``num_train_timesteps`` - 1.
        """
        last = self.num_train_timesteps - 1
        unknown = [timestep for timestep in timesteps if not 0 <= timestep <= last]
        if unknown:
            raise PriorError(
                f"denoiser '{self.name}' was trained for timesteps 0 to {last}, not "
                f'{max(unknown)}: set first_timestep to {last} or less, or use another denoiser'
            )

    @abstractmethod
    def denoise(self, noisy: Tensor, timesteps: Tensor) -> Tensor:
        """
        Estimate the clean image in one step (Dig2DIG, Eq. 10).

        :param noisy: (B, 1, H, W), ``sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps``.
        :param timesteps: (B,) int64, one noise level an image.
        :return: (B, 1, H, W) estimate of x_0 in the dtype of ``noisy``, not clipped.
        """

    @torch.inference_mode()
    def stays_finite(self, device: torch.device) -> bool:
        """Return whether the estimates are finite for images at their extremes."""
        place = torch.arange(64, device=device)
        fine = ((place[:, None] + place) % 2).float() * 2 - 1
        edge = (place > 32).float().expand(64, 64) * 2 - 1
        images = torch.stack([fine, edge, torch.ones_like(fine)])[:, None]
        last = self.num_train_timesteps - 1
        return all(
            bool(self.denoise(images, torch.full((3,), timestep, device=device)).isfinite().all())
            for timestep in (0, min(400, last), last)
        )

    def coefficients(self, timesteps: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return sqrt(alpha_bar) and sqrt(1 - alpha_bar) at ``timesteps`` as (B, 1, 1, 1)."""
        level = self.levels_on(timesteps.device)[timesteps].view(-1, 1, 1, 1)
        return level.sqrt().to(like.dtype), (1.0 - level).sqrt().to(like.dtype)

    def levels(self, timesteps: Sequence[int]) -> list[float]:
        """Return alpha_bar at ``timesteps``, as the host knows it: nothing waits for a device."""
        levels: list[float] = self.alpha_bar[list(timesteps)].tolist()
        return levels

    def noise_ratios(self) -> NDArray[np.float64]:
        """Return sqrt((1 - alpha_bar) / alpha_bar) of all timesteps, noise to signal."""
        known = self._noise_ratios
        if known is None or known[0] is not self.alpha_bar:
            level = self.alpha_bar.numpy()
            known = self._noise_ratios = (self.alpha_bar, np.sqrt((1 - level) / level))
        return known[1]

    def levels_on(self, device: torch.device) -> Tensor:
        """Return alpha_bar of all timesteps on a device, to which it is copied once."""
        if device == self.alpha_bar.device:
            return self.alpha_bar
        there = self._alpha_bar_there
        # Another schedule may have been put in the place of the one that was copied.
        if there is None or there[0] is not self.alpha_bar or there[1].device != device:
            there = self._alpha_bar_there = (self.alpha_bar, self.alpha_bar.to(device))
        return there[1]
