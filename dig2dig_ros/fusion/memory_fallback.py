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
The step budget: which of ever cheaper settings hold a rate and fit into the memory.

Free of torch and of ROS: it is told what the user asked for, how long pairs took and when memory
ran out, and answers with the settings for the next pair.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
import math
from statistics import median
import threading
import time

from dig2dig_ros.fusion.settings import FusionSettings, PRIOR_DOWNSCALES

# Of the time between two pairs: the rest is for the callbacks and the robot's other work.
_SHARE = 0.9
# A better rung is tried where it would leave so much of that time unused.
_HEADROOM = 0.15
# Pairs in a row that all take longer than that whole time, for a step down at once.
_TOO_LONG = 4
# The same of the first pairs on a rung that take so many times as long.
_FAR_TOO_LONG, _TIMES = 2, 4.0
# Pairs whose median is the time of a rung: at least, to be compared with another, and at most.
_FEWEST, _WINDOW = 4, 15
# Seconds before a better rung is tried, and from which on having been there was no failure.
_SETTLE, _PROVEN = 5.0, 60.0
# Half-life in seconds of what was measured of a better rung: its load may be gone by now.
_TRUST = 60.0
# Seconds before settings for which memory ran out are tried again.
_MEMORY_WAIT = 30.0
# Every failure doubles these waits, up to so many times.
_RATE_DOUBLINGS, _MEMORY_DOUBLINGS = 4, 6
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

    Torch has a class of error for the memory of GPUs; for that of the host, and for libraries
    below it, only the text of a RuntimeError says so, and OpenCV that of its own error.
    """
    if isinstance(error, MemoryError) or type(error).__name__ == 'OutOfMemoryError':
        return True
    of_a_library = isinstance(error, RuntimeError) or type(error).__module__ == 'cv2'
    text = str(error).lower()
    return of_a_library and any(phrase in text for phrase in _OUT_OF_MEMORY)


@dataclass(frozen=True)
class Rung:
    """
    Settings on the ladder.

    :param cost: images of full size that the prior would take as long for as for a pair.
    """

    settings: FusionSettings
    cost: float


def ladder(asked: FusionSettings) -> tuple[Rung, ...]:
    """
    Return the settings asked for, and after them ever cheaper ones.

    First N is halved down to 1, then the draws of noise, then the prior sees the sources smaller.
    S stays what it was, as far as N allows. What would spare the prior nothing is left out.
    """
    rungs = [Rung(asked, _cost(asked))]

    def add(settings: FusionSettings) -> None:
        cost = _cost(settings)
        if cost < rungs[-1].cost:
            rungs.append(Rung(settings, cost))

    steps = asked.num_inference_steps
    while steps > 1:
        steps //= 2
        interval = min(steps, asked.dig_refresh_interval)
        add(replace(asked, num_inference_steps=steps, dig_refresh_interval=interval))
    draws = asked.noise_draws
    while draws > 1:
        draws //= 2
        add(replace(rungs[-1].settings, noise_draws=draws))
    for downscale in PRIOR_DOWNSCALES:
        if downscale > asked.prior_downscale:
            add(replace(rungs[-1].settings, prior_downscale=downscale))
    return tuple(rungs)


def _cost(settings: FusionSettings) -> float:
    steps = settings.num_inference_steps
    estimates = 2 * math.ceil(steps / settings.dig_refresh_interval) * max(1, settings.noise_draws)
    weighed = estimates / settings.prior_downscale**2
    if settings.sampler == 'increments':
        return weighed
    if settings.guidance == 'em' or settings.weights == 'uniform':
        return steps
    return weighed + steps


class Budget:
    """
    Lowers the settings until a rate is held and the memory suffices, and raises them again.

    It steps down when a few pairs in a row or the median of more take too long, past rungs that
    cannot suffice either. It steps up where the estimated time of the next better rung leaves
    room. What was measured of that rung is believed less and less, because the load may have
    passed; each step up that does not last doubles the time until the next, so that the settings
    do not swing. When memory runs out, it steps down as well, and tries again later.

    Safe to use from several threads. The one that fuses calls :meth:`settings_for` before a pair
    and :meth:`took` or :meth:`out_of_memory` after it; any other may call :meth:`table` and
    :meth:`warning`.

    :param clock: returns seconds of a steady clock.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._asked = FusionSettings()
        self._target_rate = 0.0
        self._rungs = ladder(self._asked)
        self._rung = 0
        # The best rung that the memory allows, as far as is known.
        self._best = 0
        self._memory_failures = 0
        self._memory_retry = 0.0
        self._begin_rate()

    def settings_for(self, asked: FusionSettings, target_rate: float) -> FusionSettings:
        """
        Return what to fuse the next pair with.

        :param asked: what the user asks for; with other settings than before, all begins anew.
        :param target_rate: pairs a second; 0 is no target. With another one than before, all but
            what is known of the memory begins anew.
        """
        with self._lock:
            self._ask(asked, target_rate)
            now = self._clock()
            if self._best > 0 and now >= self._memory_retry:
                self._best -= 1
                self._memory_retry = now + self._memory_wait()
            if self._target_rate == 0:
                self._move(self._best)
            return self._rungs[self._rung].settings

    def took(self, seconds: float) -> None:
        """Note how long the pair took, from its messages to the fused one."""
        with self._lock:
            if self._target_rate == 0:
                return
            self._times.append(max(seconds, 1e-6))
            self._compare()
            times, interval = list(self._times), 1 / self._target_rate
            latest = times[-_TOO_LONG:]
            begins_far_too_slow = len(times) == _FAR_TOO_LONG and min(times) > _TIMES * interval
            if begins_far_too_slow or (len(latest) == _TOO_LONG and min(latest) > interval):
                self._step_down(median(latest), _SHARE * interval)
            elif len(times) == _WINDOW and median(times) > _SHARE * interval:
                self._step_down(median(times), _SHARE * interval)
            elif len(times) == _WINDOW and self._rung > self._best:
                self._step_up(median(times), _SHARE * interval)

    def out_of_memory(self) -> bool:
        """
        Note that memory ran out for the pair, and step down.

        :return: whether there were cheaper settings to step down to.
        """
        with self._lock:
            last = len(self._rungs) - 1
            can_step = self._rung < last
            self._memory_failures = self._failures_after(self._memory_failures, _MEMORY_DOUBLINGS)
            self._memory_retry = self._clock() + self._memory_wait()
            self._best = min(self._rung + 1, last)
            self._move(self._best)
            return can_step

    def table(self, asked: FusionSettings, target_rate: float) -> dict[str, str]:
        """Return the settings in force, and why they are, as diagnostics show them."""
        with self._lock:
            self._ask(asked, target_rate)
            settings = self._rungs[self._rung].settings
            return {
                'N': str(settings.num_inference_steps),
                'S': str(settings.dig_refresh_interval),
                'prior downscale': str(settings.prior_downscale),
                'target rate (Hz)': f'{target_rate:g}' if target_rate else 'off',
                'budget': self._reason(),
            }

    def warning(self) -> str | None:
        """Return what a user should know: that memory ran out, or that the rate is not held."""
        with self._lock:
            if self._best > 0:
                return (
                    f'memory ran out: fusing with {self._difference()} for now; use smaller '
                    'images, a smaller prior or a lower num_inference_steps'
                )
            if self._rung < len(self._rungs) - 1 or len(self._times) < _FEWEST:
                return None
            typical = median(self._times)
            if typical * self._target_rate <= _SHARE:
                return None
            return (
                f'the target rate of {self._target_rate:g} Hz is not held: a pair takes '
                f'{typical * 1e3:.0f} ms with the cheapest settings ({self._difference()}); use '
                'smaller images, a smaller prior or a lower target_rate'
            )

    # What was asked for

    def _begin(self, asked: FusionSettings) -> None:
        self._asked = asked
        self._rungs = ladder(asked)
        self._best = self._memory_failures = 0
        self._begin_rate()

    def _begin_rate(self) -> None:
        costs = [rung.cost for rung in self._rungs]
        self._rung = self._best
        self._times: deque[float] = deque(maxlen=_WINDOW)
        # How many times as long as the next cheaper one each rung takes. At most as much as the
        # prior does, because everything else takes the same time on all of them.
        self._ratios = [costs[i] / costs[i + 1] for i in range(len(costs) - 1)]
        self._failures = [0] * len(costs)
        # The rung before this one and its time, until it has been compared with this one's.
        self._left: tuple[int, float] | None = None
        self._changed = self._clock()
        self._rose = -math.inf

    def _ask(self, asked: FusionSettings, target_rate: float) -> None:
        same_rate = target_rate == self._target_rate
        self._target_rate = target_rate
        if asked != self._asked:
            self._begin(asked)
        elif not same_rate:
            self._begin_rate()

    # From rung to rung

    def _move(self, rung: int, typical: float | None = None) -> None:
        """Go to a rung; ``typical`` are the seconds of a pair on this one, where known."""
        if rung == self._rung:
            return
        self._left = None if typical is None else (self._rung, typical)
        self._changed = self._clock()
        self._rose = self._changed if rung < self._rung else -math.inf
        self._rung = rung
        self._times.clear()

    def _failures_after(self, failures: int, most: int) -> int:
        """Return how many steps up to this rung have failed, now that this one did."""
        lasted = self._clock() - self._rose >= _PROVEN
        return 0 if lasted else min(failures + 1, most)

    def _step_down(self, typical: float, allowed: float) -> None:
        last = len(self._rungs) - 1
        if self._rung == last:
            return
        self._failures[self._rung] = self._failures_after(
            self._failures[self._rung], _RATE_DOUBLINGS
        )
        per_image = typical / self._rungs[self._rung].cost
        rung = self._rung + 1
        while rung < last and per_image * self._rungs[rung].cost > allowed:
            rung += 1
        self._move(rung, typical)

    def _step_up(self, typical: float, allowed: float) -> None:
        better = self._rung - 1
        waits = 2.0 ** self._failures[better]
        waited = self._clock() - self._changed
        if waited < _SETTLE * waits:
            return
        trust = 0.5 ** (waited / (_TRUST * waits))
        estimate = typical * (1 + (self._ratios[better] - 1) * trust)
        if estimate <= (1 - _HEADROOM) * allowed:
            self._move(better, typical)

    def _compare(self) -> None:
        """Learn from the times on both sides of a move how those of the rungs compare."""
        if self._left is None or len(self._times) < _FEWEST:
            return
        (upper, slow), (lower, fast) = sorted([self._left, (self._rung, median(self._times))])
        self._left = None
        costs = [rung.cost for rung in self._rungs[upper : lower + 1]]
        slow = min(max(slow, fast), fast * costs[0] / costs[-1])
        # Of the rungs between them: in proportion to what they spare the prior.
        rate = (slow - fast) / (costs[0] - costs[-1])
        times = [fast + rate * (cost - costs[-1]) for cost in costs]
        for index in range(len(costs) - 1):
            self._ratios[upper + index] = times[index] / times[index + 1]

    def _memory_wait(self) -> float:
        return _MEMORY_WAIT * 2.0**self._memory_failures

    # In words

    def _difference(self) -> str:
        asked, settings = self._asked, self._rungs[self._rung].settings
        parts = []
        for letter, now, before in (
            ('N', settings.num_inference_steps, asked.num_inference_steps),
            ('noise draws', settings.noise_draws, asked.noise_draws),
        ):
            if now != before:
                parts.append(f'{letter} {now} of {before}')
        if settings.prior_downscale != asked.prior_downscale:
            parts.append(f'prior at 1/{settings.prior_downscale}')
        return ', '.join(parts) or 'what is asked for'

    def _reason(self) -> str:
        if self._rung == 0:
            return 'as asked'
        out_of_memory = self._rung == self._best
        reason = 'memory ran out' if out_of_memory else f'to hold {self._target_rate:g} Hz'
        return f'{self._difference()}: {reason}'
