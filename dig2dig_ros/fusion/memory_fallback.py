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

"""Cheaper settings while memory does not suffice for those asked for. Free of torch and ROS."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
import math
import time
import traceback
from typing import Any, TYPE_CHECKING

from numpy.typing import NDArray

from dig2dig_ros.fusion.settings import FusionSettings, PRIOR_DOWNSCALES

if TYPE_CHECKING:
    from dig2dig_ros.fusion.fuser import Fuser, FusionResult

# Seconds until the settings asked for are tried again. The wait doubles each time they fail.
_FIRST_WAIT, _LONGEST_WAIT = 30.0, 1920.0
# What the allocators of torch, of the libraries below it and of OpenCV say, in lower case.
_OUT_OF_MEMORY = (
    "can't allocate memory",
    'cannot allocate memory',
    'failed to allocate',
    'could not allocate',
    'not enough memory',
    'insufficient memory',
    'out of memory',
    'bad_alloc',
    'alloc_failed',
    # Of oneDNN, which tells no more; after a warm-up, there is nothing else that it can mean.
    'could not create a primitive',
    'could not create a memory',
    # Of cuDNN through torch, which tried all its engines and found no memory for any.
    'unable to find an engine',
)


def is_out_of_memory(error: BaseException) -> bool:
    """
    Tell whether an error means that no memory was left, of the host or of the device.

    For the memory of the host, and of the libraries below torch, only a text says so.
    """
    if isinstance(error, MemoryError) or type(error).__name__ == 'OutOfMemoryError':
        return True
    of_a_library = isinstance(error, RuntimeError) or type(error).__module__ == 'cv2'
    text = str(error).lower()
    return of_a_library and any(phrase in text for phrase in _OUT_OF_MEMORY)


def first_line(error: Exception) -> str:
    """Return an error without the stack of the library that it came from."""
    return f'{type(error).__name__}: {error}'.splitlines()[0]


def free_memory(fuser: Fuser, error: Exception) -> None:
    """Free what a fusion that ran out of memory has left behind."""
    # The tensors in all the frames that the error came through.
    traceback.clear_frames(error.__traceback__)
    fuser.free_memory()


def cheaper(settings: FusionSettings) -> FusionSettings | None:
    """
    Return settings that need less memory, or None where there are none.

    First N is halved down to 1, then the draws of noise, then the prior sees the sources smaller.
    S stays what it was, as far as N allows.
    """
    steps, draws = settings.num_inference_steps, settings.noise_draws
    while steps > 1:
        steps //= 2
        interval = min(steps, settings.dig_refresh_interval)
        fewer = replace(settings, num_inference_steps=steps, dig_refresh_interval=interval)
        # The estimates of all refreshes are held at once.
        if len(fewer.refresh_timesteps) < len(settings.refresh_timesteps):
            return fewer
    if draws > 1:
        return replace(settings, noise_draws=draws // 2)
    for downscale in PRIOR_DOWNSCALES:
        if downscale > settings.prior_downscale:
            return replace(settings, prior_downscale=downscale)
    return None


class MemoryFallback:
    """
    Fuses with cheaper settings when memory runs out, and later as asked again.

    One thread fuses; any other may call :meth:`table` and :meth:`warning`.

    :param clock: returns seconds of a steady clock.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._begin(FusionSettings())

    def _begin(self, asked: FusionSettings) -> None:
        # What is asked for and what is used: assigned as one, since other threads read them.
        self._in_force = (asked, asked)
        # What was used before the settings asked for were tried again.
        self._fallback: FusionSettings | None = None
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
        Fuse; where memory runs out, once more with cheaper settings.

        They are likely to suffice, and the stream has no gap. A pair that fails again is not
        worth the time of the next one.

        :param log: called with a sentence when the settings are lowered.
        :param how: what else :meth:`Fuser.fuse` is to be given.
        :raises Exception: whatever the last attempt raises.
        """
        for is_last_attempt in (False, True):
            try:
                return fuser.fuse(*images, settings=self._settings_for(asked), **how)
            except Exception as error:
                if not is_out_of_memory(error) or not self._lower() or is_last_attempt:
                    raise
                free_memory(fuser, error)
                log(f'{self.warning()} ({first_line(error)})')
        raise AssertionError('the last attempt returns or raises')

    def _settings_for(self, asked: FusionSettings) -> FusionSettings:
        """Return what to fuse the next pair with; what has just been asked for is tried."""
        if asked != self._in_force[0]:
            self._begin(asked)
        now, used = self._clock(), self._in_force[1]
        if used != asked and now >= self._retry_at:
            self._fallback, self._tried_at = used, now
            self._in_force = (asked, asked)
        return self._in_force[1]

    def _lower(self) -> bool:
        """Lower the settings, for which memory ran out; return whether they could be."""
        asked, used = self._in_force
        now, lower = self._clock(), cheaper(used)
        if used == asked:
            held = now - self._tried_at > self._wait
            self._wait = _FIRST_WAIT if held else min(2 * self._wait, _LONGEST_WAIT)
            lower = self._fallback or lower
        self._retry_at = now + self._wait
        if lower is not None:
            self._in_force = (asked, lower)
        return lower is not None

    def table(self, asked: FusionSettings) -> dict[str, str]:
        """Return the settings in force, and why they are, as diagnostics show them."""
        known, used = self._in_force
        if asked != known:
            used = asked
        lowered = _difference(asked, used)
        return {
            'N': str(used.num_inference_steps),
            'S': str(used.dig_refresh_interval),
            'prior downscale': str(used.prior_downscale),
            'settings': f'{lowered}: memory ran out' if lowered else 'as asked',
        }

    def warning(self) -> str | None:
        """Return what a user should know while the settings are lowered, else None."""
        lowered = _difference(*self._in_force)
        return lowered and (
            f'memory ran out: fusing with {lowered} for now; use smaller images, a smaller prior '
            'or a lower num_inference_steps'
        )


def _difference(asked: FusionSettings, used: FusionSettings) -> str | None:
    """Return in words by what the settings are lowered; None where they are not."""
    parts = []
    if used.num_inference_steps != asked.num_inference_steps:
        parts.append(f'N {used.num_inference_steps} of {asked.num_inference_steps}')
    if used.noise_draws != asked.noise_draws:
        parts.append(f'noise draws {used.noise_draws} of {asked.noise_draws}')
    if used.prior_downscale != asked.prior_downscale:
        parts.append(f'prior at 1/{used.prior_downscale}')
    return ', '.join(parts) or None
