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
Whether a process keeps its size: what the kernel says of it, over time, and how that is judged.

Everything is read from Linux's ``/proc``. A leak is a trend, which samples of a process that
works hide in noise: what is judged is the median of each part of the run, by the slope of Theil
(1950) and Sen (1968), the median of the slopes between all parts, with Sen's interval for it. A
step, which that slope does not see, shows between the first and the last third of the run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Parts of a run whose medians are compared.
_PARTS = 30
# Of the normal distribution, for an interval of 95 %.
_TWO_SIDED = 1.96
_KIB_PER_MIB = 1024.0
# Colours of the picture.
_INK, _WARM_UP, _TREND = '#0072b2', '#bbbbbb', '#d55e00'


@dataclass(frozen=True)
class Measure:
    """
    What is sampled, and how much it may grow.

    :param unit: of the values; empty for counts.
    :param growth: over the judged part of a run, in ``unit``, that still counts as flat; infinite
        for what is told but not judged.
    :param share: the same as a part of the median; the larger of both holds.
    """

    title: str
    unit: str
    growth: float
    share: float = 0.0

    def tolerance(self, median: float) -> float:
        """Return the growth that counts as flat around ``median``."""
        return max(self.growth, self.share * median)


# Threads and descriptors come and go one by one: a trend of less than one is none. What a process
# is charged for shared pages grows when others that share them end: that is not judged.
MEASURES: dict[str, Measure] = {
    'resident': Measure('resident memory (RSS)', 'MiB', 4.0, 0.01),
    'proportional': Measure('proportional memory (PSS)', 'MiB', math.inf),
    'private': Measure('private memory (anonymous)', 'MiB', 4.0, 0.01),
    'shared': Measure('shared memory', 'MiB', 4.0, 0.01),
    'shared_files': Measure('files in /dev/shm', '', 1.0),
    'threads': Measure('threads', '', 1.0),
    'descriptors': Measure('file descriptors', '', 1.0),
    'device': Measure('GPU memory', 'MiB', 4.0, 0.01),
}


class ProcessGone(RuntimeError):
    """The process has ended, or is not ours to look at."""


def sample_process(pid: int) -> dict[str, float]:
    """
    Return what the kernel says of a process, under the names of :data:`MEASURES`.

    Memory in MiB. The proportional size counts pages that several processes share in parts; it
    is NaN where the kernel does not tell it.

    :raises ProcessGone: there is no such process, or it belongs to somebody else.
    """
    folder = Path('/proc') / str(pid)
    try:
        status = _fields((folder / 'status').read_text())
        if 'VmRSS' not in status:
            raise ProcessGone(f'process {pid} has ended')
        # Each segment of the middleware is a file there; its name may be of a former one.
        maps = (folder / 'maps').read_text()
        files = {line.split(None, 5)[5] for line in maps.splitlines() if ' /dev/shm/' in line}
        descriptors = sum(1 for _ in (folder / 'fd').iterdir())
        return {
            'resident': status['VmRSS'] / _KIB_PER_MIB,
            'proportional': _proportional(folder) / _KIB_PER_MIB,
            'private': status.get('RssAnon', math.nan) / _KIB_PER_MIB,
            'shared': status.get('RssShmem', math.nan) / _KIB_PER_MIB,
            'shared_files': float(len(files)),
            'threads': status['Threads'],
            'descriptors': float(descriptors),
        }
    except (FileNotFoundError, ProcessLookupError):
        raise ProcessGone(f'process {pid} has ended') from None
    except PermissionError:
        raise ProcessGone(f'process {pid} belongs to another user') from None


def _fields(text: str) -> dict[str, float]:
    """Return the numbers of lines such as 'VmRSS:  1234 kB'."""
    fields = {}
    for line in text.splitlines():
        name, _, value = line.partition(':')
        words = value.split()
        if words and words[0].isdigit():
            fields[name] = float(words[0])
    return fields


def _proportional(folder: Path) -> float:
    try:
        return _fields((folder / 'smaps_rollup').read_text()).get('Pss', math.nan)
    except OSError:  # an old kernel, or one that is locked down
        return math.nan


@dataclass(frozen=True)
class Trend:
    """
    How a measure went over the judged part of a run.

    :param median: in the measure's unit.
    :param growth: over the judged part, by the robust slope.
    :param low: lower end of the growth's 95 % interval.
    :param high: upper end.
    :param rise: of the median of the last third of the parts over that of the first.
    :param tolerance: growth that still counts as flat.
    """

    median: float
    growth: float
    low: float
    high: float
    rise: float
    tolerance: float

    @property
    def is_judged(self) -> bool:
        """Whether there is a tolerance."""
        return math.isfinite(self.tolerance)

    @property
    def is_flat(self) -> bool:
        """Whether it neither grows nor rises by more than the tolerance."""
        return max(self.growth, self.rise) <= self.tolerance

    def as_json(self) -> dict[str, Any]:
        """Return all of it, rounded."""
        rounded = {
            key: round(value, 3) if math.isfinite(value) else None
            for key, value in asdict(self).items()
        }
        return {**rounded, 'flat': self.is_flat}


def trend(times: Sequence[float], values: Sequence[float], measure: Measure) -> Trend:
    """
    Return the trend of samples; NaN among them are left out.

    :param times: ascending, any unit.
    :raises ValueError: fewer than four samples, or no time between them.
    """
    at, of = np.asarray(times, np.float64), np.asarray(values, np.float64)
    at, of = at[np.isfinite(of)], of[np.isfinite(of)]
    if len(of) < 4 or not at[-1] > at[0]:
        raise ValueError(f'{len(of)} samples tell no trend: at least 4 at different times do')
    parts = min(_PARTS, len(of) // 2)
    where = [np.median(part) for part in np.array_split(at, parts)]
    what = [np.median(part) for part in np.array_split(of, parts)]
    slope, low, high = _theil_sen(np.asarray(where), np.asarray(what))
    third = max(1, parts // 3)
    rise = float(np.median(what[-third:]) - np.median(what[:third]))
    span, median = float(at[-1] - at[0]), float(np.median(of))
    return Trend(median, slope * span, low * span, high * span, rise, measure.tolerance(median))


def _theil_sen(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float, float]:
    """Return the median of all slopes, and the ends of its interval (Sen 1968, Eq. 2.6)."""
    first, second = np.triu_indices(len(x), 1)
    slopes = np.sort((y[second] - y[first]) / (x[second] - x[first]))
    count, points = len(slopes), len(x)
    # The variance of Kendall's score of as many points.
    spread = _TWO_SIDED * math.sqrt(points * (points - 1) * (2 * points + 5) / 18.0)
    low = max(0, math.floor((count - spread) / 2))
    high = min(count - 1, math.ceil((count + spread) / 2))
    return float(np.median(slopes)), float(slopes[low]), float(slopes[high])


def trends(
    times: Sequence[float], samples: Sequence[Mapping[str, float]], warm_up: float
) -> dict[str, Trend]:
    """
    Return the trend of every measure that the samples have, from ``warm_up`` on.

    :param times: of the samples, from the beginning of the run, in the unit of ``warm_up``.
    :raises ValueError: too few samples are left for a trend.
    """
    judged = [index for index, time in enumerate(times) if time >= warm_up]
    result = {}
    for name, measure in MEASURES.items():
        values = [samples[index].get(name, math.nan) for index in judged]
        if any(map(math.isfinite, values)):
            result[name] = trend([times[index] for index in judged], values, measure)
    if not result:
        raise ValueError('no samples after the warm-up: let it run longer')
    return result


def latency_figures(seconds: Sequence[float]) -> dict[str, float] | None:
    """Return count, percentiles in milliseconds, and p99/p50; nothing without values."""
    if not len(seconds):
        return None
    values = np.asarray(seconds, np.float64) * 1e3
    p50, p95, p99 = (float(value) for value in np.percentile(values, (50, 95, 99)))
    return {
        'count': len(values),
        'p50': round(p50, 2),
        'p95': round(p95, 2),
        'p99': round(p99, 2),
        'max': round(float(values.max()), 2),
        'p99/p50': round(p99 / p50, 3) if p50 > 0 else math.nan,
    }


def draw(
    path: Path,
    title: str,
    times: Sequence[float],
    samples: Sequence[Mapping[str, float]],
    warm_up: float,
    latencies: Sequence[tuple[float, float]],
) -> None:
    """
    Draw every measure over the run, and the latencies, as a picture of the type of ``path``.

    :param times: of the samples, in minutes.
    :param warm_up: minutes that are not judged, in grey.
    :param latencies: (minutes, seconds) of each.
    :raises ImportError: matplotlib is missing.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            'the picture needs matplotlib: install the extra "evaluation" of dig2dig, or pip '
            'install matplotlib, or apt install python3-matplotlib'
        ) from error
    found = trends(times, samples, warm_up)
    at = np.asarray(times)
    figure = Figure(figsize=(11, 2.1 * (1 + (len(found) + 1) // 2)), layout='constrained')
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    grid = figure.add_gridspec(1 + (len(found) + 1) // 2, 2)
    for number, (name, line) in enumerate(found.items()):
        axes = figure.add_subplot(grid[number // 2, number % 2])
        values = np.array([sample.get(name, math.nan) for sample in samples])
        axes.plot(at, values, color=_INK, lw=0.8)
        judged = at[at >= warm_up]
        ends = np.array([judged[0], judged[-1]])
        axes.plot(ends, line.median + line.growth * np.array([-0.5, 0.5]), color=_TREND, lw=1.5)
        unit = MEASURES[name].unit
        growth = f'{max(line.growth, line.rise):+.2f} {unit}'.rstrip()
        judged_by = f'flat to {line.tolerance:.3g}' if line.is_judged else 'not judged'
        axes.set_title(f'{MEASURES[name].title}: {growth} ({judged_by})', fontsize='medium')
        axes.set_ylabel(unit)
        # From nought, noise looks like what it is; the tolerance must still be visible.
        low, high = np.nanmin(values), np.nanmax(values)
        room = max(high - low, 4 * line.tolerance if line.is_judged else 1.0)
        axes.set_ylim(max(0.0, (low + high - 1.1 * room) / 2), (low + high + 1.1 * room) / 2)
    axes = figure.add_subplot(grid[-1, :])
    if latencies:
        minutes, seconds = np.asarray(latencies).T
        axes.plot(minutes, seconds * 1e3, '.', color=_INK, ms=1.5, rasterized=True)
        axes.set_ylim(0, 1.3 * float(np.percentile(seconds, 99.5)) * 1e3)
    axes.set_title('latency, image sent to fused image received', fontsize='medium')
    axes.set_ylabel('ms')
    axes.set_xlabel('minutes')
    for axes in figure.axes:
        axes.axvspan(0, warm_up, color=_WARM_UP, alpha=0.3, lw=0)
        axes.set_xlim(0, max(times))
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)
