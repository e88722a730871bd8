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
What an evaluation keeps of every pair, and the files that it writes.

Bags and folders of pairs are evaluated by the same :class:`Study`: `metrics.csv` and
`timing.csv` are written pair by pair, `summary.json`, the video and `report.html` at the end.
Memory only grows by a few numbers per pair.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
import json
import math
from pathlib import Path
import platform
import sys
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dig2dig_ros.evaluation.baselines import BASELINES
from dig2dig_ros.evaluation.comparison import Difference, FUSED
from dig2dig_ros.evaluation.detection_study import DetectionStudy
from dig2dig_ros.evaluation.detector_inputs import REFERENCE, with_chroma_of
from dig2dig_ros.evaluation.gallery import Gallery, jpeg
from dig2dig_ros.evaluation.metrics import edges_kept, luma, metric_info
from dig2dig_ros.evaluation.plots import (
    line_plot,
    quality_runtime_plot,
)
from dig2dig_ros.evaluation.report import Report, write_report
from dig2dig_ros.evaluation.scores import (
    differences,
    format_value,
    MethodOutput,
    ScoreBook,
    ScoreFile,
)
from dig2dig_ros.evaluation.verdict import verdict
from dig2dig_ros.images.overlay import contribution_overlay
from dig2dig_ros.images.video import FOR_BROWSERS, Image, Video

# The best and worst frames of the page are those in which the fused image keeps most and least of
# the sources' edges.
GALLERY_METRIC = 'Qabf'
# Plotted over the run: one that rewards the mean of the sources, and two that reward detail.
PLOTTED_METRICS = ('SSIM', 'Qabf', 'VIF')
# Names of the videos that OpenCV writes.
PLAYED_BY_BROWSERS = ('video.webm',)
# Files that it writes, and that the next evaluation may replace.
STUDY_FILES = (
    'metrics.csv',
    'timing.csv',
    'summary.json',
    'report.html',
    *(name for name, _ in FOR_BROWSERS),
)
# Name of the picture of the contributions.
CONTRIBUTIONS = 'contributions'
# Frames that share a video have no time between them.
_FOLDER_RATE = 1.0
# Width in pixels of each of the three pictures of the video: encoding takes as long as fusing.
_PANEL_WIDTH = 480
_PACKAGES = ('dig2dig', 'torch', 'numpy', 'opencv-python-headless', 'opencv-python', 'rosbags')


@dataclass(frozen=True)
class StudyPair:
    """
    One fused pair.

    :param name: its stamp or file name.
    :param sources: 8-bit images, in colour or grey, by name; visible first.
    :param fused: the fused image, in the size of the first source.
    :param weights: (K, H, W), see :class:`~dig2dig_ros.fusion.fuser.FusionResult`.
    :param contributions: likewise.
    :param milliseconds: of its fusion.
    :param time: in seconds from the first pair, or its number in a folder.
    :param offset: seconds between the stamps of the pair; None in a folder.
    :param cells: its entries in `metrics.csv`, in the order of the study's columns.
    """

    name: str
    sources: Mapping[str, Image]
    fused: Image
    weights: NDArray[np.float32]
    contributions: NDArray[np.float32]
    milliseconds: float
    time: float
    offset: float | None = None
    cells: tuple[object, ...] = ()


class Study:
    """
    Takes the pairs of one evaluation one after the other.

    :param folder: where to write; it must exist.
    :param sources: their names.
    :param scores: for the scores of the scored pairs.
    :param columns: columns of `metrics.csv` before the metrics, in addition to the method.
    :param detection: what a detector finds in the pairs; None without one.
    :param rate: frames per second of the video; None for pairs without time.
    :param shown: the row whose images and weights are shown, and by whose scores frames are best
        and worst.
    """

    def __init__(
        self,
        folder: Path,
        sources: Sequence[str],
        scores: ScoreBook,
        columns: Sequence[str],
        detection: DetectionStudy | None = None,
        rate: float | None = None,
        shown: str = FUSED,
    ) -> None:
        self.folder = folder
        self.scores = scores
        self.pairs = 0
        self.shown = shown
        self.sources = tuple(sources)
        self._timed = rate is not None
        self._metrics = ScoreFile(
            folder / 'metrics.csv',
            [*columns, 'method'],
            scores.metrics,
            [f'mean weight of {source}' for source in self.sources],
        )
        self._timing = ScoreFile(folder / 'timing.csv', ['pair', 'method', 'ms'], ())
        self._gallery = Gallery()
        self._video = Video(folder.joinpath, rate or _FOLDER_RATE, _PANEL_WIDTH, FOR_BROWSERS)
        self._times = array('d')
        self._scored_times = array('d')
        self._offsets = array('d')
        self._milliseconds = array('d')
        self._weights = {source: array('d') for source in self.sources}
        self._edges_kept: dict[str, dict[str, array[float]]] = {}
        self._detection = detection
        self._persons = {name: array('d') for name in detection.inputs} if detection else {}
        self._person_times = array('d')

    def add(
        self,
        pair: StudyPair,
        fused: Mapping[str, MethodOutput],
        values: Mapping[str, Mapping[str, float]] | None = None,
        persons: Mapping[str, int] | None = None,
    ) -> None:
        """
        Take a pair in.

        :param fused: the output of every method.
        :param values: their scores by method and metric, for scored pairs.
        :param persons: found by a detector, by input.
        """
        means = [float(plane.mean()) for plane in pair.weights]
        self._times.append(pair.time)
        self._milliseconds.append(pair.milliseconds)
        if pair.offset is not None:
            self._offsets.append(pair.offset * 1e3)
        for source, mean in zip(self.sources, means, strict=True):
            self._weights[source].append(mean)
        if persons is not None:
            self._person_times.append(pair.time)
            for name, count in persons.items():
                self._persons[name].append(count)
        for name, entry in fused.items():
            self._timing.add([pair.name, name, f'{entry.milliseconds:.3f}'], {})
        score = math.nan
        lumas = [luma(image) for image in pair.sources.values()]
        average = with_chroma_of(next(iter(pair.sources.values())), BASELINES[REFERENCE](lumas))
        if values is not None:
            for name, image in {self.shown: pair.fused, REFERENCE: average}.items():
                kept = edges_kept(luma(image), *lumas)
                for source, part in zip(self.sources, kept, strict=True):
                    self._edges_kept.setdefault(name, {}).setdefault(source, array('d')).append(
                        part
                    )
            self._scored_times.append(pair.time)
            self.scores.add(values, {name: entry.milliseconds for name, entry in fused.items()})
            score = values.get(self.shown, {}).get(GALLERY_METRIC, math.nan)
            for name, row in values.items():
                # The weights are those of the fusion, and do not apply to other rows.
                own = means if name == self.shown else [''] * len(means)
                self._metrics.add([*pair.cells, name], row, own)
        self._metrics.flush()
        self._timing.flush()
        self._gallery.add(
            self.pairs,
            f'pair {self.pairs + 1}, {f"{pair.time:.2f} s" if self._timed else pair.name}',
            score,
            lambda: self._pictures(pair, average),
            self._facts(pair, values, persons),
        )
        shown = [pair.sources[source] for source in self.sources[:2]]
        self._video.add([*shown, pair.fused], pair.time)
        self.pairs += 1

    @staticmethod
    def _pictures(pair: StudyPair, mean: Image) -> dict[str, bytes]:
        pictures = {name: jpeg(image) for name, image in pair.sources.items()}
        pictures[REFERENCE] = jpeg(mean)
        pictures[FUSED] = jpeg(pair.fused)
        pictures[CONTRIBUTIONS] = jpeg(contribution_overlay(pair.fused, pair.contributions))
        return pictures

    def _facts(
        self,
        pair: StudyPair,
        values: Mapping[str, Mapping[str, float]] | None,
        persons: Mapping[str, int] | None,
    ) -> dict[str, str]:
        facts = {}
        if self._timed:
            facts['stamp'] = pair.name
        height, width = pair.fused.shape[:2]
        facts['size'] = f'{width}x{height}'
        if pair.offset is not None:
            facts['pair offset'] = f'{pair.offset * 1e3:+.1f} ms'
        for name, value in (values or {}).get(self.shown, {}).items():
            facts[metric_info(name).title] = format_value(value)
        for name, count in (persons or {}).items():
            facts[f'persons in {name}'] = str(count)
        if persons is not None and self._detection is not None:
            for name, contrast in self._detection.contrasts.items():
                facts[f'person contrast in {name}'] = f'{contrast:+.0f}'
        return facts

    def close(self) -> None:
        """Finish the files that grow with the pairs."""
        self._metrics.close()
        self._timing.close()
        self._video.close()

    def finish(
        self,
        report: Report,
        facts: Mapping[str, Any],
        against: Sequence[str] = (),
        groups: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
        not_fused: str = '',
    ) -> dict[str, Any]:
        """
        Write the results over all pairs: `summary.json` and `report.html`.

        Call :meth:`close` before.

        :param report: content of the page beyond the study's own.
        :param facts: likewise for `summary.json`.
        :param against: rows that the fusion is compared with pair by pair.
        :param groups: rows whose quality is drawn against their time together, with their labels,
            by the title of the group; empty for all rows in one plot.
        :param not_fused: what was left out, by cause; empty if nothing was.
        :return: the content of `summary.json`.
        """
        apart: dict[str, list[Difference]] = {}
        if self.scores.pairs and FUSED in self.scores.methods:
            apart = differences(self.scores, against)
        figures = self._figures(apart)
        summary = {**facts, 'versions': versions(), **figures, 'warnings': list(report.warnings)}
        text = json.dumps(as_json(summary), indent=2, ensure_ascii=False, allow_nan=False)
        (self.folder / 'summary.json').write_text(text + '\n', encoding='utf-8')

        files = [*report.files]
        if self._video.name:
            files.append((f'video: {", ".join((*self.sources[:2], FUSED))}', self._video.name))
        files += [
            ('scores of every pair', 'metrics.csv'),
            ('times of every pair', 'timing.csv'),
            ('all figures and settings', 'summary.json'),
        ]
        page = replace(
            report,
            verdict=verdict(
                self.pairs,
                figures.get('edges_kept', {}),
                self._detection,
                not_fused,
                len(report.warnings),
            ),
            summary=(*report.summary, *self._summary_rows(figures)),
            video=self._video.name if self._video.name in PLAYED_BY_BROWSERS else '',
            frames=tuple(self._gallery.frames()),
            plots=tuple(self._plots(groups)),
            files=tuple(files),
            ranking=metric_info(GALLERY_METRIC).name,
            sources=self.sources,
        )
        write_report(self.folder / 'report.html', page)
        return summary

    def _figures(self, apart: Mapping[str, Sequence[Difference]]) -> dict[str, Any]:
        """Return the entries of `summary.json` about the pairs."""
        figures: dict[str, Any] = {'pairs': self.pairs}
        if self.pairs:
            p50, p95 = np.percentile(np.asarray(self._milliseconds), [50, 95])
            figures['mean_weights'] = {
                source: float(np.mean(values)) for source, values in self._weights.items()
            }
            figures['fusion_ms'] = {'p50': round(float(p50), 2), 'p95': round(float(p95), 2)}
        if self.scores.pairs:
            figures['scored_pairs'] = self.scores.pairs
            figures['metrics'] = self.scores.means()
            figures['edges_kept'] = {
                name: {source: float(np.mean(parts)) for source, parts in kept.items()}
                for name, kept in self._edges_kept.items()
            }
            figures['differences'] = {
                f'{FUSED} - {name}': {
                    metric: [entry.mean, entry.low, entry.high]
                    for metric, entry in zip(self.scores.metrics, own, strict=True)
                }
                for name, own in apart.items()
            }
        detected = self._detection is not None and self._detection.frames
        figures['detection'] = self._detection.summary() if self._detection and detected else {}
        return figures

    def _summary_rows(self, figures: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Return the first rows of the page about the pairs."""
        rows: list[tuple[str, str]] = []
        if self.pairs:
            text = '{p50:.0f} ms median, {p95:.0f} ms 95th percentile'
            rows.append(('time of a fusion', text.format(**figures['fusion_ms'])))
        if self.scores.pairs:
            means = figures['metrics'][self.shown]
            text = ', '.join(f'{name} {format_value(means[name])}' for name in PLOTTED_METRICS[:2])
            rows.append((f'quality of {self.shown}', text))
        if self._detection is not None and self._detection.frames:
            title, ranked = self._detection.ranking()
            rows.append((title, ', '.join(f'{name} {value}' for name, value in ranked.items())))
        return rows

    def _plots(self, groups: Mapping[str, Mapping[str, str]]) -> list[tuple[str, str]]:
        plots: list[tuple[str, str]] = []
        x_label = 'time (s)' if self._timed else 'pair'

        def over_run(
            title: str, unit: str, x: Sequence[float], lines: Mapping[str, Sequence[float]]
        ) -> None:
            if len(x) > 1:
                plots.append((title, line_plot(title, unit, x, lines, x_label)))

        over_run('Mean weight of each source', '', self._times, self._weights)
        scores = self.scores
        for metric in PLOTTED_METRICS:
            if metric in scores.metrics and scores.pairs:
                lines = {name: scores.column(name, metric).tolist() for name in scores.methods}
                over_run(metric_info(metric).title, '', self._scored_times, lines)
        if self._persons:
            over_run('Persons found by the detector', '', self._person_times, self._persons)
        if self._offsets:
            # With more than two sources, the one farthest from the visible one.
            second = self.sources[1] if len(self.sources) == 2 else 'farthest'
            title = f'Pair offset: {second} stamp minus {self.sources[0]} stamp'
            over_run(title, 'ms', self._times, {'offset': self._offsets})
        over_run('Time of the fusion', 'ms', self._times, {FUSED: self._milliseconds})
        if scores.pairs and len(scores.methods) > 1:
            means, times = scores.means(), scores.median_milliseconds()
            for group, labels in (groups or {'': {name: name for name in scores.methods}}).items():
                for metric in PLOTTED_METRICS[:2]:
                    points = {
                        label: (times[name], means[name][metric]) for name, label in labels.items()
                    }
                    title = metric_info(metric).title
                    heading = f'{title} against time' + (f': {group}' if group else '')
                    plots.append((heading, quality_runtime_plot(points, title)))
        return plots


def versions() -> dict[str, str]:
    """Return the versions of everything that affects the results, and the machine."""
    found = {'python': platform.python_version(), 'machine': platform.machine()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    torch = sys.modules.get('torch')
    if torch is not None:
        found['torch'] = str(torch.__version__)
    return found


def as_json(value: Any) -> Any:
    """
    Convert a value for JSON.

    Infinities become text (which ``float`` reads), as do paths and the like; NaN becomes null.
    """
    if isinstance(value, Mapping):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, array)):
        return [as_json(item) for item in value]
    if isinstance(value, (bool, int, str)) or value is None:
        return value
    if isinstance(value, (float, np.floating)):
        number = None if math.isnan(value) else float(value)
        return str(number) if number is not None and math.isinf(number) else number
    if isinstance(value, np.integer):
        return int(value)
    return str(value)
