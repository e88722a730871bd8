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

"""Cheaper settings while memory is too small for the chosen ones. No torch, no ROS."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
import math
import re
import time
import traceback
from typing import Any, TYPE_CHECKING

from numpy.typing import NDArray

from dig2dig_ros.fusion.settings import FusionSettings, PRIOR_DOWNSCALES

if TYPE_CHECKING:
    from dig2dig_ros.fusion.fuser import Fuser, FusionResult

# Seconds until the chosen settings are tried again. The wait doubles each time they fail.
_FIRST_WAIT, _LONGEST_WAIT = 30.0, 1920.0
# Messages of the allocators of torch, of the libraries below it and of OpenCV, in lower case. The
# primitive is from oneDNN, the engine from cuDNN, neither of which says more.
_OUT_OF_MEMORY = re.compile(
    "(can't|cannot|failed to|could not) allocate|(not enough|insufficient|out of) memory|"
    'bad_alloc|alloc_failed|could not create a (primitive|memory)|unable to find an engine'
)


def is_out_of_memory(error: BaseException) -> bool:
    """
    Return whether an error means that the host or the device has run out of memory.

    For host memory, and for the libraries below torch, only the message shows it.
    """
    if isinstance(error, MemoryError) or type(error).__name__ == 'OutOfMemoryError':
        return True
    of_a_library = isinstance(error, RuntimeError) or type(error).__module__ == 'cv2'
    text = str(error).lower()
    return of_a_library and _OUT_OF_MEMORY.search(text) is not None


def first_line(error: Exception) -> str:
    """Return an error without the stack trace of its library."""
    name = type(error).__name__
    return f'{name}: {error}'.splitlines()[0] if str(error) else name


def free_memory(fuser: Fuser, error: Exception) -> str:
    """
    Free what a fusion that ran out of memory has left behind.

    :return: why that failed, for example after a device error; empty if it worked.
    """
    # The tensors in all stack frames of the error.
    traceback.clear_frames(error.__traceback__)
    try:
        fuser.free_memory()
    except Exception as problem:
        return f'memory could not be freed: {first_line(problem)}'
    return ''


def cheapest(settings: FusionSettings) -> FusionSettings:
    """
    Return the similar settings that need the least memory.

    The gains are not refreshed, there is only one draw of noise, and the prior sees the sources at
    the lowest resolution: the estimates of all refreshes and draws are held at once.
    """
    return replace(
        settings,
        dig_refresh_interval=max(settings.dig_refresh_interval, settings.num_inference_steps),
        noise_draws=min(1, settings.noise_draws),
        prior_downscale=max(PRIOR_DOWNSCALES),
    )


class MemoryFallback:
    """
    Fuses with the cheapest settings when memory runs out, and later with the chosen ones again.

    One thread fuses; any other may call :meth:`table` and :meth:`warning`.

    :param clock: returns seconds of a steady clock.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._begin(FusionSettings())

    def _begin(self, asked: FusionSettings) -> None:
        # The chosen and the used settings: assigned together, as other threads read them.
        self._in_force = (asked, asked)
        self._wait = _FIRST_WAIT
        self._tried_at, self._retry_at = -math.inf, math.inf

    def fuse(
        self,
        fuser: Fuser,
        images: Sequence[NDArray[Any]],
        asked: FusionSettings,
        log: Callable[[str], None],
        **how: Any,
    ) -> FusionResult:
        """
        Fuse; if memory runs out, once more with the cheapest settings.

        They are likely to be enough, so the stream has no gap. A pair that fails again is not
        worth the time of the next one.

        :param log: called with a sentence when the settings are lowered.
        :param how: further arguments of :meth:`Fuser.fuse`.
        :raises Exception: whatever the last attempt raises.
        """
        settings = self._settings_for(asked)
        try:
            return fuser.fuse(*images, settings=settings, **how)
        except Exception as error:
            if not is_out_of_memory(error) or settings == cheapest(asked):
                raise
            self._lower()
            problem = free_memory(fuser, error)
            log(f'{self.warning()} ({first_line(error)}{problem and "; " + problem})')
        return fuser.fuse(*images, settings=cheapest(asked), **how)

    def _settings_for(self, asked: FusionSettings) -> FusionSettings:
        """Return the settings for the next pair; newly chosen ones are tried."""
        now = self._clock()
        if asked != self._in_force[0]:
            self._begin(asked)
        elif now >= self._retry_at:
            self._tried_at, self._retry_at = now, math.inf
            self._in_force = (asked, asked)
        return self._in_force[1]

    def _lower(self) -> None:
        """Note that memory ran out with the chosen settings."""
        asked, now = self._in_force[0], self._clock()
        held = now - self._tried_at > self._wait
        self._wait = _FIRST_WAIT if held else min(2 * self._wait, _LONGEST_WAIT)
        self._retry_at = now + self._wait
        self._in_force = (asked, cheapest(asked))

    def table(self, asked: FusionSettings) -> dict[str, str]:
        """Return the current settings, and why they are used, for diagnostics."""
        known, used = self._in_force
        if asked != known:
            used = asked
        return {
            'N': str(used.num_inference_steps),
            'S': str(used.dig_refresh_interval),
            'prior downscale': str(used.prior_downscale),
            'settings': 'as asked' if used == asked else 'the cheapest: memory ran out',
        }

    def warning(self) -> str | None:
        """Return a warning while the settings are lowered, else None."""
        asked, used = self._in_force
        if used == asked:
            return None
        return (
            f'memory ran out: fusing with S {used.dig_refresh_interval} and the denoiser at '
            f'1/{used.prior_downscale} for now; use smaller images, a smaller denoiser or a lower '
            'num_inference_steps'
        )
