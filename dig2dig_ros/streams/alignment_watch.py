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

"""Watches whether the images of the two cameras are still aligned."""

from __future__ import annotations

from collections.abc import Mapping
import math
from typing import Any

from dig2dig_ros.images.misalignment import Misalignment, MisalignmentMonitor
from dig2dig_ros.images.placement import Placement
from dig2dig_ros.streams.preparation import Prepared, registered_image
from dig2dig_ros.streams.timeline import CLOCK_JUMP


class AlignmentWatch:
    """
    Measures the misalignment between the images as the fusion sees them.

    It detects a mount that was knocked, a lens that was refocused, or the registration of another
    robot. Call it with every pair; it checks one every ``alignment_period``. :meth:`table` and
    :meth:`warning` may be called from another thread.
    """

    def __init__(self) -> None:
        self._monitor = MisalignmentMonitor()
        self._placement: Placement | None = None
        # The last pair, and the time of the last check; None before the first.
        self._stamp = 0.0
        self._elapsed = math.inf
        # The latest result with the width of the image, replaced as a whole.
        self._latest: tuple[Misalignment, int] | None = None

    def __call__(self, prepared: Prepared, stamp: float, values: Mapping[str, Any]) -> None:
        """
        Check a pair, if it is time.

        :param stamp: of the visible image in seconds.
        :param values: the node's parameters by name.
        """
        period = values['alignment_period']
        if period == 0:
            self._latest = None
            return
        step, self._stamp = stamp - self._stamp, stamp
        # A step back begins a new timeline. In a short loop, it does not trigger a check.
        self._elapsed += math.inf if step < -CLOCK_JUMP * 1e-9 else max(step, 0.0)
        if self._elapsed < period or min(prepared.trust[:2]) < 1:
            return
        self._elapsed = 0.0
        visible, thermal, placement = *prepared.images[:2], prepared.placements[1]
        if placement is not self._placement:
            self._placement = placement
            self._monitor.reset()
        height, width = visible.shape[:2]
        coverage = None if placement is None else placement.coverage
        warped = registered_image(thermal, placement, (width, height))
        self._latest = self._monitor.look(visible, warped, coverage), width

    def table(self) -> dict[str, str]:
        """Return the entries for diagnostics."""
        if self._latest is None:
            return {'misalignment (px)': 'not measured'}
        found, _ = self._latest
        if not found.trusted:
            return {'misalignment (px)': 'uncertain'}
        right, down = found.shift
        return {
            'misalignment (px)': f'{found.distance:.1f} (thermal is {abs(right):.1f} too far '
            f'{"right" if right > 0 else "left"} and {abs(down):.1f} too far '
            f'{"down" if down > 0 else "up"})'
        }

    def warning(self, values: Mapping[str, Any]) -> str:
        """Return a sentence if the images are off by more than ``alignment_tolerance``."""
        if self._latest is None:
            return ''
        found, width = self._latest
        if not found.trusted or found.distance <= values['alignment_tolerance'] * width:
            return ''
        return (
            f'the thermal image is {found.distance:.1f} pixels off: calibrate the cameras again '
            '(dig2dig calibrate)'
        )
