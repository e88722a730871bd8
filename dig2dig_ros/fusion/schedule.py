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

"""The reduced reverse chain: which of the prior's noise levels are visited, and when."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

TimestepSpacing = Literal['quadratic', 'uniform']
TIMESTEP_SPACINGS: tuple[TimestepSpacing, ...] = ('quadratic', 'uniform')


def reduced_timesteps(
    num_inference_steps: int, first_timestep: int, spacing: TimestepSpacing = 'quadratic'
) -> tuple[int, ...]:
    """
    Choose N of the prior's timesteps, noisiest first.

    ``quadratic`` takes larger steps at high noise and smaller ones at low noise, where a step
    gains more (Dig2DIG, section 4.5): t_i = first_timestep (i / N)^2. ``uniform`` spaces
    evenly. Where rounding would repeat a timestep, the noisier one moves up by one.

    :param num_inference_steps: N, at least 1.
    :param first_timestep: t_N, the noisiest timestep; must leave room for N different ones.
    :return: N strictly decreasing timesteps, the first of which is ``first_timestep``.
    :raises ValueError: no such chain exists; the message says why.
    """
    if spacing not in TIMESTEP_SPACINGS:
        raise ValueError(f'timestep_spacing {spacing!r} is unknown: use {TIMESTEP_SPACINGS}')
    if num_inference_steps < 1:
        raise ValueError(f'num_inference_steps is {num_inference_steps}, but must be at least 1')
    if first_timestep < num_inference_steps:
        raise ValueError(
            f'first_timestep {first_timestep} leaves no room for num_inference_steps '
            f'{num_inference_steps}: it must be at least as large'
        )
    exponent = {'quadratic': 2, 'uniform': 1}[spacing]
    timesteps: list[int] = []
    for i in range(1, num_inference_steps + 1):
        ideal = round(first_timestep * (i / num_inference_steps) ** exponent)
        timesteps.append(max(ideal, timesteps[-1] + 1 if timesteps else 1))
    return tuple(reversed(timesteps))


@dataclass(frozen=True)
class ReverseChain:
    """
    The visited timesteps and the refreshes of the information gains among them.

    :param timesteps: t_N > ... > t_1 > 0. The end of the chain is the clean image.
    :param dig_refresh_interval: S; the gains are refreshed at every S-th step, the first one
        included, and measured over the S steps that follow (Dig2DIG, section 4.5).
    """

    timesteps: tuple[int, ...]
    dig_refresh_interval: int

    def __post_init__(self) -> None:
        if self.dig_refresh_interval < 1:
            raise ValueError(
                f'dig_refresh_interval is {self.dig_refresh_interval}, but must be at least 1'
            )

    @property
    def refresh_timesteps(self) -> tuple[int, ...]:
        """Return the timesteps at which the gains are refreshed, noisiest first."""
        return self.timesteps[:: self.dig_refresh_interval]

    def refresh_of(self, step: int) -> int:
        """Return which refresh (0-based) is in force at ``step`` (0-based, noisiest first)."""
        return step // self.dig_refresh_interval
