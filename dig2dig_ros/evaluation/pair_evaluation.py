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

"""The evaluation of a folder of image pairs: fuse, score, detect, and write the results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
import csv
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
import time
from typing import Any

import cv2
from numpy.typing import NDArray

from dig2dig_ros.evaluation.comparison import FUSED, Peers, Row
from dig2dig_ros.evaluation.condition_study import ConditionStudy
from dig2dig_ros.evaluation.conditions import Condition
from dig2dig_ros.evaluation.detection_rows import DetectionRows, in_visible_pixels
from dig2dig_ros.evaluation.detection_study import DetectionStudy
from dig2dig_ros.evaluation.detector import DetectorOptions
from dig2dig_ros.evaluation.detector_inputs import THERMAL, VISIBLE
from dig2dig_ros.evaluation.jobs import StoppingFunction
from dig2dig_ros.evaluation.methods import (
    COMMON_SIZE,
    describe_rows,
    FusionMethod,
    method_costs,
    prepare_methods,
    thread_count,
    time_left,
    time_methods,
)
from dig2dig_ros.evaluation.metrics import LPIPS, metric_names
from dig2dig_ros.evaluation.options import (
    find_registration,
    report,
    thermal_crop,
    thermal_range,
)
from dig2dig_ros.evaluation.perceptual import load_lpips
from dig2dig_ros.evaluation.report import Report
from dig2dig_ros.evaluation.scores import (
    ablation_table,
    comparison_table,
    Cost,
    difference_table,
    fuse_with,
    grey_8_bits,
    Image,
    LPIPS_MISSING,
    score_images,
    ScoreBook,
    to_8_bits,
)
from dig2dig_ros.evaluation.study import Study, STUDY_FILES, StudyPair
from dig2dig_ros.evaluation.tables import Table
from dig2dig_ros.images.geometry import size_of, stretch_text
from dig2dig_ros.images.image_pairs import ImagePair, load_pair
from dig2dig_ros.images.no_data import filled, placement_of_data
from dig2dig_ros.images.placement import Placement
from dig2dig_ros.images.registration import SOFT_EDGE

ABLATION_METRICS = ('PSNR_sum', 'SSIM', 'MSE', 'CC', LPIPS, 'Qabf', 'VIF')


@dataclass(frozen=True)
class PairJob:
    """
    A folder of pairs and everything that determines its results.

    :param unpaired: images without a counterpart, which are left out.
    :param task: one of :data:`~dig2dig_ros.evaluation.options.TASKS`.
    :param thermal: whether the second images are thermal; else both are photographs.
    :param parameters: of ``fusion_node``, where they differ from its defaults.
    :param rows: the fusions to compare.
    :param against: rows that ``fused`` is compared with pair by pair.
    :param ablations: by the title of its table, labels of rows by their names.
    :param peers: scores of other methods.
    :param lpips: network for LPIPS, see :func:`~dig2dig_ros.evaluation.perceptual.load_lpips`.
    :param plugins: files of other fusions, which become rows, see
        :func:`~dig2dig_ros.evaluation.plugins.load_plugin`.
    :param conditions: conditions under which to detect as well; thermal pairs only.
    :param time_size: (width, height) of a synthetic pair that all rows are timed on, in turns;
        None for the median over the pairs.
    :param repetitions: of that timing.
    :param output: folder for the report and its files.
    :param save: folder for the fused images, as ``PAIR__METHOD.png``.
    """

    directory: Path
    pairs: Sequence[ImagePair]
    unpaired: Sequence[str]
    task: str
    thermal: bool
    parameters: Mapping[str, Any]
    rows: Sequence[Row]
    against: Sequence[str] = ()
    ablations: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    peers: Peers = field(default_factory=Peers)
    lpips: str | None = None
    detector: DetectorOptions | None = None
    plugins: Sequence[Path] = ()
    conditions: Sequence[Condition] = ()
    time_size: tuple[int, int] | None = None
    repetitions: int = 5
    output: Path | None = None
    save: Path | None = None


class PairEvaluation:
    """
    Evaluates the pairs of a folder; the methods are in the order in which they are used.

    :ivar scores: of the pairs so far.
    :ivar skipped: names of the pairs that could not be evaluated.
    :ivar interrupted: whether it ended before all pairs were done.
    :raises UsageError: a row cannot be set up.
    :raises ValueError: labels, the detector or LPIPS cannot be used.
    :raises OSError: results cannot be written.
    """

    def __init__(self, job: PairJob) -> None:
        self._job = job
        self.skipped: list[str] = []
        self.interrupted = False
        self._sizes: set[tuple[int, int]] = set()
        ranges = thermal_range(job.parameters)
        self._ranges = ranges if job.thermal else None
        self._edge: float = job.parameters.get('registration_edge', SOFT_EDGE)
        self._registration = find_registration(job.parameters) if job.thermal else None
        self._placement: Placement | None = None
        if self._registration is not None:
            self._placement = self._registration.placement(self._edge)
        self._resized = 0
        self._stretched: Counter[str] = Counter()
        self._lpips = load_lpips(job.lpips) if job.lpips else None
        warm_up = job.time_size or tuple(job.parameters.get('warmup_size', COMMON_SIZE))
        self._methods = prepare_methods(job.rows, job.parameters, warm_up, job.plugins)
        self._persons: DetectionStudy | None = None
        self._under_conditions: ConditionStudy | None = None
        if job.detector is not None:
            labels = job.detector.load_labels(job.directory / 'labels.json')
            self._persons = DetectionStudy(
                (VISIBLE, THERMAL, *self._methods),
                labels,
                job.detector.score,
                night=job.detector.night,
            )
            self._detector = job.detector.load()
            if job.conditions:
                self._under_conditions = ConditionStudy(
                    job.conditions,
                    DetectionRows(self._detector, self._methods),
                    labels,
                    job.detector.score,
                )
        if job.save is not None:
            job.save.mkdir(parents=True, exist_ok=True)
        self._times: dict[str, float] = {}
        if job.time_size is not None:
            self._times = time_methods(self._methods, job.time_size, job.repetitions)
        self.scores = ScoreBook(self._methods, metric_names(self._lpips is not None))
        self._study: Study | None = None
        if job.output is not None:
            # Last, as it removes an earlier result.
            _prepare_output(job.output)
            self._study = Study(
                job.output,
                ('visible', 'thermal') if job.thermal else ('first', 'second'),
                self.scores,
                ('pair', 'width', 'height'),
                self._persons,
                # The rows of the ablations are of one family, so the first represents them.
                shown=FUSED if FUSED in self._methods else next(iter(self._methods)),
            )

    def run(self, stopping: StoppingFunction) -> None:
        """Evaluate one pair after the other; a pair that fails is reported and skipped."""
        pairs = self._job.pairs
        started = time.perf_counter()
        for index, pair in enumerate(pairs, start=1):
            if stopping():
                break
            try:
                self._take(pair, stopping)
                result = 'done'
            except (ValueError, RuntimeError, OSError, cv2.error) as error:
                self.skipped.append(pair.name)
                result = f'skipped, {error}'
            left = time_left(time.perf_counter() - started, index, len(pairs))
            report(f'[{index}/{len(pairs)}] {pair.name}: {result}; {left}')
        self.interrupted = stopping()
        if self._study is not None:
            self._study.close()

    def _take(self, pair: ImagePair, stopping: StoppingFunction) -> None:
        visible, thermal, placement = self._read(pair)
        images = (visible, thermal)
        fused = fuse_with(self._methods, images, placements=(None, placement))
        first, second = grey_8_bits(visible), in_visible_pixels(thermal, placement, visible)
        values = score_images(fused, first, second, self._lpips, thread_count())
        persons: dict[str, int] | None = None
        if self._persons is not None:
            names = (pair.name, pair.visible.stem, pair.thermal.stem)
            found = {name: entry.image for name, entry in fused.items()}
            if self._under_conditions is not None:
                self._under_conditions.take(
                    names, visible, grey_8_bits(thermal), stopping, placement
                )
            persons = self._persons.detect(self._detector, names, visible, second, found)
        size = (first.shape[1], first.shape[0])
        self._sizes.add(size)
        if self._job.save is not None:
            for name, entry in fused.items():
                _write_image(self._job.save / f'{pair.name}__{name}.png', entry.image)
        if self._study is None:
            self.scores.add(values, {name: entry.milliseconds for name, entry in fused.items()})
            return
        shown_sources = images if self._ranges is None else (visible, second)
        method, shown = self._methods[self._study.shown], fused[self._study.shown]
        assert isinstance(method, FusionMethod)
        assert method.result is not None
        _write_image(self._study.folder / 'fused' / f'{pair.name}.png', shown.image)
        frame = StudyPair(
            name=pair.name,
            sources=dict(zip(self._study.sources, shown_sources, strict=True)),
            fused=shown.image,
            weights=method.result.weights,
            contributions=method.result.contributions,
            milliseconds=shown.milliseconds,
            time=float(self._study.pairs),
            cells=(pair.name, *size),
        )
        self._study.add(frame, fused, values, persons)

    def _read(self, pair: ImagePair) -> tuple[Image, Image, Placement | None]:
        """
        Return both images of a pair, 8-bit, and the placement of the second one.

        All methods and metrics use the same ones.

        :raises ImagePairError: it cannot be read, or two photographs differ in size.
        :raises ThermalRangeError: the second image is not thermal.
        :raises RegistrationError: the registration is for other sizes.
        """
        first, second = load_pair(
            pair,
            thermal=self._ranges is not None,
            same_size=self._ranges is None,
            thermal_crop=thermal_crop(self._job.parameters),
        )
        if self._ranges is None:
            return first, second, None
        sizes = size_of(first), size_of(second)
        if self._registration is not None:
            self._registration.check_sizes(*sizes)
        placement = self._placement
        mapped = self._ranges(second, 0.0)
        found = self._ranges.no_data
        if found is not None:
            mapped = filled(mapped, found.mask)
            placement = placement_of_data(found.mask, placement, sizes[0], self._edge)
            for text in found.sentences('thermal'):
                report(f'{pair.name}: {text}')
        if self._registration is None and sizes[0] != sizes[1]:
            self._resized += 1
            self._stretched += Counter(filter(None, [stretch_text(sizes[1], sizes[0])]))
        return first, to_8_bits(mapped), placement

    # Results over all pairs, of which there must be at least one

    def about(self) -> str:
        """Return a line on the pairs, the device and the settings of the tables."""
        job = self._job
        sizes = sorted(self._sizes, key=lambda size: size[0] * size[1])
        ends = ' to '.join(f'{w}x{h}' for w, h in dict.fromkeys((sizes[0], sizes[-1])))
        text = f'{self.scores.pairs} pair{"s" if self.scores.pairs > 1 else ""} of {ends} pixels'
        if self.skipped:
            text += f', {len(self.skipped)} skipped'
        width, height = job.time_size or COMMON_SIZE
        if not job.ablations:
            text += f'; GFLOP: of the denoiser at {width}x{height}'
        if job.time_size:
            text += f'; ms: at {width}x{height}, median of {job.repetitions} in turns'
        else:
            text += '; ms: median over the pairs'
        fusions = {n: fuse for n, fuse in self._methods.items() if isinstance(fuse, FusionMethod)}
        if fusions:
            name = FUSED if FUSED in fusions else next(iter(fusions))
            text += f'; {name}: {fusions[name].about()}'
        if job.detector is not None and self._persons is not None and self._persons.frames:
            text += f'; detector: {job.detector.describe(self._detector)}'
        return text

    @cached_property
    def _costs(self) -> dict[str, Cost]:
        times = self._times or self.scores.median_milliseconds()
        return method_costs(self._methods, times, self._job.time_size or COMMON_SIZE)

    def rows(self) -> dict[str, str]:
        """Return the description and settings of every fusion among the rows, by name."""
        return describe_rows(self._job.rows, self._methods)

    def odd(self) -> list[str]:
        """Return warnings about the sizes of the images and about the labels, in sentences."""
        of_labels = self._persons.warnings() if self._persons is not None else []
        return [*self._about_sizes(), *of_labels]

    def tables(self) -> list[Table]:
        """Return the tables of all rows, or of the ablations, and of the detections."""
        job, scores = self._job, self.scores
        means, costs = scores.means(), self._costs
        if job.ablations:
            metrics = [name for name in ABLATION_METRICS if name in scores.metrics]
            tables = [
                ablation_table(title, labels, metrics, means, costs)
                for title, labels in job.ablations.items()
            ]
            missing = () if LPIPS in metrics else (LPIPS_MISSING,)
            notes = ('PSNR and SSIM are sums over the sources.', *missing)
            tables[-1] = replace(tables[-1], notes=notes)
        else:
            costs = costs | {name: Cost(gflop=value) for name, value in job.peers.gflop.items()}
            tables = [comparison_table({**means, **job.peers.scores}, scores.metrics, costs)]
            if job.against:
                tables.append(difference_table(scores, job.against))
        if self._persons is not None and self._persons.frames:
            tables += self._persons.tables()
        if self._under_conditions is not None:
            tables += self._under_conditions.tables()
        return tables

    def write_report(self, tables: Sequence[Table]) -> Path | None:
        """Write `summary.json` and the report page, and return its path; None without a folder."""
        job, study = self._job, self._study
        if study is None:
            return None
        method = self._methods[study.shown]
        assert isinstance(method, FusionMethod)
        fuser = method.fuser.describe()
        left = {'skipped': self.skipped, 'without counterpart': job.unpaired}
        settings = [('folder', str(job.directory.resolve()))]
        settings += [(key, str(value)) for key, value in fuser.items()]
        settings += [(f'row {name}', text) for name, text in self.rows().items()]
        settings += [(key, str(value)) for key, value in vars(method.fuser.settings).items()]
        study.finish(
            Report(
                title=f'{job.directory.resolve().name}: fusion evaluated',
                subtitle=self.about(),
                summary=(('pairs fused', str(study.pairs)),),
                warnings=tuple(self._warnings()),
                tables=tuple(tables),
                files=(('fused images', 'fused/'),),
                settings=tuple(settings),
            ),
            {
                'directory': str(job.directory),
                'task': job.task,
                'skipped': self.skipped,
                'unpaired': job.unpaired,
                'sizes': sorted(f'{width}x{height}' for width, height in self._sizes),
                'fuser': fuser,
                'rows': self.rows(),
                'parameters': job.parameters,
                'costs': {name: vars(cost) for name, cost in self._costs.items()},
                'interrupted': self.interrupted,
                'conditions': (
                    self._under_conditions.summary() if self._under_conditions is not None else {}
                ),
            },
            job.against,
            job.ablations,
            ', '.join(f'{len(names)} {why}' for why, names in left.items() if names),
        )
        return study.folder / 'report.html'

    def _warnings(self) -> list[str]:
        warnings = []
        if self.interrupted:
            done, total = self.scores.pairs, len(self._job.pairs)
            warnings.append(f'interrupted after {done} of {total} pairs')
        if self.skipped:
            names = ', '.join(self.skipped)
            warnings.append(f'skipped, as they could not be evaluated: {names}')
        if self._job.unpaired:
            names = ', '.join(self._job.unpaired)
            warnings.append(f'left out, as they have no counterpart: {names}')
        return warnings + self.odd()

    def _about_sizes(self) -> list[str]:
        pairs = f'of {self.scores.pairs} pairs'
        texts = [f'thermal images of {text} ({n} {pairs})' for text, n in self._stretched.items()]
        if self._resized:
            texts.append(
                f'{self._resized} {pairs} have a thermal image of another size, which was resized '
                'to that of the visible one, for the fusion and for the scores: they must be '
                'registered'
            )
        return texts


def _prepare_output(folder: Path) -> None:
    """
    Create the folder for the results, and remove those of an earlier evaluation.

    :raises OSError: it cannot be created.
    """
    (folder / 'fused').mkdir(parents=True, exist_ok=True)
    with suppress(OSError, UnicodeDecodeError, csv.Error):
        with (folder / 'metrics.csv').open(encoding='utf-8', newline='') as file:
            earlier = {row.get('pair') or '' for row in csv.DictReader(file)}
        for name in earlier:
            (folder / 'fused' / f'{name}.png').unlink(missing_ok=True)
    for name in STUDY_FILES:
        (folder / name).unlink(missing_ok=True)


def _write_image(path: Path, image: NDArray[Any]) -> None:
    """
    Write an image in the format that the suffix names.

    :raises OSError: it cannot be written.
    """
    # imwrite() fails silently, and on some systems for names that are not ASCII.
    done, data = cv2.imencode(path.suffix, image)
    if not done:
        raise OSError(f'{path} cannot be written')
    path.write_bytes(data.tobytes())
