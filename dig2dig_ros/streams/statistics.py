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

"""Counts and times of images and pairs."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
import re
import threading
import time
from typing import Protocol

import numpy as np

from dig2dig_ros.streams.pairing import SOURCES

# Rates, latencies and offsets are over this many recent events.
_WINDOW = 200
# Seconds over which a rate is counted.
_RATE_SECONDS = 5.0
# Why an image may be dropped before it is in a pair or continues alone; counted by source.
IMAGE_CAUSES = (
    *('malformed', 'zero stamp', 'duplicate stamp', 'late', 'unpaired'),
    *('without counterpart', 'clock jump', 'shutdown'),
)


class Pairing(Protocol):
    """Pairs images, and counts those that it drops."""

    @property
    def counters(self) -> Counter[str]:
        """The drops by cause, and 'groups'."""
        ...


def pair_causes(sources: Sequence[str] = SOURCES) -> tuple[str, ...]:
    """Return every cause for which a pair, or an image alone, may be dropped."""
    refused = (f'{source} refused' for source in sources)
    return ('superseded', *refused, 'registration', 'fusion error', 'out of memory', 'shutdown')


def drop_causes(sources: Sequence[str] = SOURCES) -> tuple[str, ...]:
    """Return every cause for which an image or a pair may be dropped, in the order of its path."""
    return (
        *(f'{source} {cause}' for cause in IMAGE_CAUSES for source in sources),
        # The first two make a pair, which then waits for each of the others.
        *(f'{source} missing' for source in sources[2:]),
        *pair_causes(sources),
    )


@dataclass(frozen=True)
class FaultyImages:
    """
    How many images of a source showed a fault.

    :param text: the message of diagnostics about the first of them.
    :param count: images that showed it.
    :param of: images of the source that were checked.
    """

    source: str
    text: str
    count: int
    of: int


def kind_of(sentence: str) -> str:
    """Return a sentence without its numbers; equal results are about the same problem."""
    return re.sub(r'[-+.\d]+', '', sentence)


def why_unfused(cause: str, reason: str) -> str:
    """Return the message of diagnostics for one of :func:`drop_causes`."""
    source, _, kind = cause.rpartition(' ')
    if source == 'camera_info':
        return f'camera_info is refused: {reason}'
    if kind in ('malformed', 'refused'):
        return f'{source} images are refused: {reason}'
    if cause == 'out of memory':
        return 'not fused: memory ran out'
    return f'not registered: {reason}' if cause == 'registration' else f'not fused: {reason}'


def _percentile(values: Sequence[float], percent: float) -> float:
    return float(np.percentile(values, percent)) if values else float('nan')


class _Rate:
    """Events per second over the recent past, by a steady clock."""

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=2000)

    def add(self, now: float) -> None:
        self._times.append(now)

    def value(self, now: float) -> float:
        while self._times and self._times[0] < now - _RATE_SECONDS:
            self._times.popleft()
        if len(self._times) < 2:
            return 0.0
        first, last = self._times[0], self._times[-1]
        gaps = len(self._times) - 1
        # The current gap counts once it is longer than usual, as in a pause.
        end = now if now - last > 2 * (last - first) / gaps else last
        return gaps / max(end - first, 1e-9)


class StreamStatistics:
    """
    Counters and recent timings of a pipeline; safe to use from several threads.

    Every image is accounted for, and so is every pair or image alone. At any time, with the names
    in the diagnostics:

    - for each source, received = pairs + alone + dropped for one of :data:`IMAGE_CAUSES` of its
      name + 'missing' of each additional source after it + those that still wait;
    - pairs + alone of both = fused + dropped for one of :func:`pair_causes` + unfinished.

    :mod:`dig2dig_ros.nodes.client` reads them back from the diagnostics.

    Times are seconds of a steady clock: ROS time may stand still or jump in a simulation.

    :param clock: returns the time.
    :param sources: their names; with more than two, a pair is one image of each.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, sources: Sequence[str] = SOURCES
    ) -> None:
        self._clock = clock
        self._sources = tuple(sources)
        self._lock = threading.Lock()
        self.restart()

    def restart(self, pairing: Pairing | None = None) -> None:
        """
        Set everything to zero.

        :param pairing: what counts the images that it drops itself.
        """
        with self._lock:
            self._pairing = pairing
            self._received: Counter[str] = Counter()
            self._dropped: Counter[str] = Counter()
            self._fused = 0
            self._pairs = 0
            self._alone: Counter[str] = Counter()
            self._left_out: Counter[str] = Counter()
            self._input_rates = {source: _Rate() for source in self._sources}
            self._output_rate = _Rate()
            self._latencies: deque[float] = deque(maxlen=_WINDOW)
            self._fusion_times: deque[float] = deque(maxlen=_WINDOW)
            self._overheads: deque[float] = deque(maxlen=_WINDOW)
            self._offsets: deque[float] = deque(maxlen=_WINDOW)
            self._last_error = ''
            self._examples: dict[str, str] = {}
            self._looked_at: Counter[str] = Counter()
            self._faulty: Counter[str] = Counter()
            # By source and kind of sentence: the first sentence, and how many images.
            self._faults: dict[tuple[str, str], tuple[str, int]] = {}

    @property
    def examples(self) -> Mapping[str, str]:
        """The first reason of every cause that has reasons."""
        with self._lock:
            return dict(self._examples)

    @property
    def faults(self) -> list[FaultyImages]:
        """The faults that the images showed, in the order in which they began."""
        with self._lock:
            return [
                FaultyImages(source, text, count, self._looked_at[source])
                for (source, _), (text, count) in self._faults.items()
            ]

    @property
    def images_received(self) -> Counter[str]:
        """How many images of each source arrived."""
        with self._lock:
            return +self._received

    @property
    def drops(self) -> Counter[str]:
        """The drops by cause, see :func:`drop_causes`."""
        with self._lock:
            return self._all_drops()

    def _all_drops(self) -> Counter[str]:
        counters = Counter(self._dropped)
        if self._pairing is not None:
            counters.update(self._pairing.counters)
            del counters['groups']
        return +counters

    def received(self, source: str) -> None:
        """Count an image that arrived."""
        now = self._clock()
        with self._lock:
            self._received[source] += 1
            self._input_rates[source].add(now)

    def paired(self, offset: float) -> None:
        """Count a pair whose farthest stamp is ``offset`` seconds after the visible one."""
        with self._lock:
            self._pairs += 1
            self._offsets.append(offset)

    def went_alone(self, source: str) -> None:
        """Count an image that continues without its missing counterpart."""
        with self._lock:
            self._alone[source] += 1

    def left_out(self, source: str, reason: str) -> None:
        """Count a pair that continues without its image of ``source``, which is unusable."""
        with self._lock:
            self._left_out[source] += 1
            self._last_error = reason

    def looked_at(self, source: str, faults: Sequence[str]) -> None:
        """Count a decoded image, and the faults that it showed, in sentences."""
        with self._lock:
            self._looked_at[source] += 1
            self._faulty[source] += bool(faults)
            for text in faults:
                key = (source, kind_of(text))
                first, count = self._faults.get(key, (text, 0))
                self._faults[key] = (first, count + 1)

    def dropped(self, cause: str, count: int = 1, reason: str = '') -> None:
        """Count drops; ``cause`` is one of :func:`drop_causes`."""
        with self._lock:
            self._dropped[cause] += count
            if reason:
                self._last_error = f'{cause}: {reason}'
                self._examples.setdefault(cause, reason)

    def fused(self, arrival: float, fusion_seconds: float, waited: float = 0.0) -> None:
        """
        Count a published pair.

        :param arrival: of its last image.
        :param waited: seconds that its first image had waited by then. The fused image is as old
            as that one, so the latency counts from there.
        """
        now = self._clock()
        with self._lock:
            self._fused += 1
            self._output_rate.add(now)
            self._latencies.append(now - arrival + waited)
            self._fusion_times.append(fusion_seconds)
            self._overheads.append(now - arrival - fusion_seconds)

    def table(self) -> dict[str, str]:
        """Return all figures as texts, in the order in which diagnostics show them."""
        now = self._clock()
        with self._lock:
            offsets = [abs(offset) * 1e3 for offset in self._offsets]
            latencies = [latency * 1e3 for latency in self._latencies]
            fusion_times = [seconds * 1e3 for seconds in self._fusion_times]
            table = {f'{name} received': str(self._received[name]) for name in self._sources}
            table['pairs'] = str(self._pairs)
            table.update({f'{name} alone': str(self._alone[name]) for name in SOURCES})
            table.update({f'{name} left out': str(self._left_out[name]) for name in SOURCES})
            table.update({f'{name} faulty': str(self._faulty[name]) for name in self._sources})
            table['fused'] = str(self._fused)
            for source in self._sources:
                rate = self._input_rates[source].value(now)
                table[f'input rate {source} (Hz)'] = f'{rate:.2f}'
            table['output rate (Hz)'] = f'{self._output_rate.value(now):.2f}'
            table['latency p50 (ms)'] = f'{_percentile(latencies, 50):.1f}'
            table['latency p95 (ms)'] = f'{_percentile(latencies, 95):.1f}'
            table['fusion time p50 (ms)'] = f'{_percentile(fusion_times, 50):.1f}'
            overheads = [seconds * 1e3 for seconds in self._overheads]
            table['overhead p50 (ms)'] = f'{_percentile(overheads, 50):.1f}'
            table['pair offset median (ms)'] = f'{_percentile(offsets, 50):.1f}'
            table['pair offset max (ms)'] = f'{_percentile(offsets, 100):.1f}'
            dropped = self._all_drops()
            for cause in drop_causes(self._sources):
                table[f'dropped: {cause}'] = str(dropped[cause])
            table['last error'] = self._last_error
        return table

    def summary(self) -> str:
        """Return the counters as one line for a log."""
        with self._lock:
            drops = ', '.join(f'{cause} {n}' for cause, n in self._all_drops().items())
            received = ', '.join(f'{name} {self._received[name]}' for name in self._sources)
            alone = ', '.join(f'{name} {n}' for name, n in self._alone.items() if n)
            return (
                f'received {received}; pairs {self._pairs}; '
                + (f'alone {alone}; ' if alone else '')
                + f'fused {self._fused}; '
                f'dropped: {drops or "none"}'
            )


def percentiles_ms(seconds: Sequence[float]) -> dict[str, float] | None:
    """Return p50, p95, p99 and max of durations in milliseconds, or nothing without values."""
    if not len(seconds):
        return None
    values = np.percentile(np.asarray(seconds) * 1e3, (50, 95, 99, 100))
    return {
        name: round(float(value), 3)
        for name, value in zip(('p50', 'p95', 'p99', 'max'), values, strict=True)
    }
