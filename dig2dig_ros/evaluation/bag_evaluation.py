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
The evaluation of one bag: replay it, fuse, score, detect, and write the results to a folder.

A job and its result can be pickled, so it can run in another process or on another machine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
import glob
import math
from pathlib import Path
import re
import shutil
import time
from typing import Any
import uuid

import cv2

from dig2dig_ros.detections.boxes import Detections
from dig2dig_ros.evaluation.bag_reader import BagReader
from dig2dig_ros.evaluation.bag_topics import encodings_in, find_sources, SourceTopics
from dig2dig_ros.evaluation.bag_types import BagError, CAMERA_INFO_TYPE, IMAGE_TYPE
from dig2dig_ros.evaluation.bag_writer import BagWriter, image_message
from dig2dig_ros.evaluation.comparison import FUSED, Row
from dig2dig_ros.evaluation.condition_study import ConditionStudy
from dig2dig_ros.evaluation.conditions import Condition
from dig2dig_ros.evaluation.detection_rows import DetectionRows
from dig2dig_ros.evaluation.detection_study import DetectionStudy
from dig2dig_ros.evaluation.detector import DetectorOptions
from dig2dig_ros.evaluation.detector_inputs import detector_inputs
from dig2dig_ros.evaluation.jobs import ProgressFunction, StoppingFunction
from dig2dig_ros.evaluation.methods import (
    describe_rows,
    FusionMethod,
    method_costs,
    prepare_methods,
    thread_count,
)
from dig2dig_ros.evaluation.metrics import metric_names
from dig2dig_ros.evaluation.options import check_output, UsageError
from dig2dig_ros.evaluation.perceptual import load_lpips
from dig2dig_ros.evaluation.recorded_detections import RecordedDetections
from dig2dig_ros.evaluation.replay import BagReplay, stamp_text
from dig2dig_ros.evaluation.report import Report
from dig2dig_ros.evaluation.scores import (
    comparison_table,
    difference_table,
    fuse_with,
    grey_8_bits,
    Image,
    MethodOutput,
    score_images,
    ScoreBook,
    to_8_bits,
)
from dig2dig_ros.evaluation.study import Study, STUDY_FILES, StudyPair
from dig2dig_ros.evaluation.tables import Table
from dig2dig_ros.streams.preparation import fused_picture, FusedFrame, stamp_of, weight_plane
from dig2dig_ros.streams.statistics import why_unfused

# The file by which an earlier evaluation is recognised, so that it may be replaced.
RESULTS = (*STUDY_FILES, 'fused')
COLUMNS = ('pair', 'thermal stamp', 'offset (s)', 'width', 'height')
# Drop causes of messages that were read when the evaluation ended before the bag.
EARLY_END = BEYOND_LIMIT, INTERRUPTED = 'beyond the limit', 'interrupted'
# Reading and writing continue between two of these, so they can be rare.
_PROGRESS_SECONDS = 0.2


@dataclass(frozen=True)
class BagJob:
    """
    One bag and everything that determines its results.

    :param folder: of the results; it appears when they are complete.
    :param values: all parameters of ``fusion_node`` by name.
    :param rows: the fusions to compare, always including ``fused``.
    :param against: rows that ``fused`` is compared with pair by pair.
    :param visible: topic; None, here and below: found in the bag.
    :param thermal: topic.
    :param camera_info: topic, of the visible camera.
    :param others: topics of additional sources by name.
    :param every: score and detect only in every n-th pair; all are fused.
    :param limit: fuse at most this many pairs.
    :param lpips: network for LPIPS, see :func:`~dig2dig_ros.evaluation.perceptual.load_lpips`.
    :param detector: what to detect with, or None.
    :param recorded: topics of recorded detections by input, in place of a detector.
    :param plugins: files of other fusions, which become rows, see
        :func:`~dig2dig_ros.evaluation.plugins.load_plugin`.
    :param conditions: conditions under which to detect as well, in every scored pair.
    """

    bag: Path
    folder: Path
    values: Mapping[str, Any]
    rows: tuple[Row, ...]
    against: tuple[str, ...] = ()
    visible: str | None = None
    thermal: str | None = None
    camera_info: str | None = None
    others: tuple[tuple[str, str], ...] = ()
    every: int = 1
    limit: int | None = None
    lpips: str | None = None
    detector: DetectorOptions | None = None
    recorded: tuple[tuple[str, str], ...] = ()
    plugins: tuple[Path, ...] = ()
    conditions: tuple[Condition, ...] = ()


@dataclass(frozen=True)
class BagResult:
    """
    The results of a bag.

    :param pairs: number of fused pairs.
    :param not_fused: images and pairs that were not fused, by cause.
    :param metrics: mean values by row and metric; empty if no pair was scored.
    :param tables: as the report page shows them.
    :param device: a description of the device.
    :param interrupted: it ended early.
    """

    folder: Path
    pairs: int
    not_fused: dict[str, int]
    metrics: dict[str, dict[str, float]]
    tables: tuple[Table, ...]
    warnings: tuple[str, ...]
    device: str
    interrupted: bool


def evaluate_or_refuse(
    job: BagJob, progress: ProgressFunction, stopping: StoppingFunction
) -> BagResult | str:
    """Call :func:`evaluate_bag`, but return a refusal as a sentence."""
    try:
        return evaluate_bag(job, progress, stopping)
    except UsageError as error:
        return str(error)
    except (OSError, ImportError) as error:
        return f'{type(error).__name__}: {error}'


def evaluate_bag(job: BagJob, progress: ProgressFunction, stopping: StoppingFunction) -> BagResult:
    """
    Evaluate one bag.

    :param progress: called with pairs done, pairs expected, and the stamp of the last one.
    :param stopping: called between two pairs; once it returns true, the results so far count.
    :raises BagError: the bag cannot be read, lacks a topic, or gives no pair.
    :raises UsageError: the fusion cannot be set up.
    :raises ValueError: labels, detector or LPIPS cannot be used.
    """
    with BagReader(job.bag) as reader, _results_folder(job.folder) as folder:
        return _BagEvaluation(job, reader, folder).run(progress, stopping)


def result_folders(bags: Sequence[Path], output: Path, overwrite: bool) -> list[Path]:
    """
    Return a folder for the results of each bag: its name, with a number if that is taken.

    :raises UsageError: a folder already has files that must not be replaced.
    """
    folders: list[Path] = []
    for bag in bags:
        # Either names the bag.
        path = bag.resolve()
        stem = path.parent.name if path.name == 'metadata.yaml' else path.name
        for suffix in ('.zstd', '.mcap', '.db3'):
            stem = stem.removesuffix(suffix)
        # No bag of sqlite3 can be written to a path with one of these.
        stem = re.sub('[#?%]', '_', stem)
        names = [output / stem, *(output / f'{stem}_{n}' for n in range(2, len(bags) + 1))]
        folders.append(next(name for name in names if name not in folders))
    for folder in folders:
        check_output(folder, overwrite)
        own = folder / 'fused'
        if own.is_dir() and any(own.iterdir()) and not (own / 'metadata.yaml').is_file():
            raise UsageError(
                f'{own} is not a bag of an earlier evaluation, so --overwrite does not '
                'replace it: choose another --output'
            )
    return folders


@contextmanager
def _results_folder(folder: Path) -> Iterator[Path]:
    """
    Yield a temporary folder that is renamed when all is complete.

    So there are no partial results, and a killed process does not block the next.

    :raises UsageError: nothing can be written there.
    """
    partial = folder.with_name(f'{_partial_prefix(folder)}{uuid.uuid4().hex[:8]}')
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise UsageError(
            f'no results can be written to {folder.parent} ({error.strerror}): choose another '
            '--output'
        ) from error
    try:
        yield partial
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    folder.mkdir(parents=True, exist_ok=True)
    for name in RESULTS:
        old = folder / name
        if old.is_dir():
            shutil.rmtree(old)
        else:
            old.unlink(missing_ok=True)
    for path in partial.iterdir():
        path.rename(folder / path.name)
    partial.rmdir()


def _partial_prefix(folder: Path) -> str:
    return f'.{folder.name}.part-'


def remove_partial_results(folder: Path) -> None:
    """Remove the partial results that killed processes left next to a folder."""
    for path in folder.parent.glob(f'{glob.escape(_partial_prefix(folder))}*'):
        shutil.rmtree(path, ignore_errors=True)


class _BagEvaluation:
    """The evaluation of one bag; the methods are in the order in which they are used."""

    def __init__(self, job: BagJob, reader: BagReader, folder: Path) -> None:
        self._job = job
        self._reader = reader
        self._unscored: Counter[str] = Counter()
        self._first_stamp: int | None = None
        self._topics = self._find_topics()
        self._lpips = load_lpips(job.lpips) if job.lpips else None
        options = job.detector or DetectorOptions(None)
        self._recorded = {
            name: RecordedDetections(name, topic, options.person_class)
            for name, topic in job.recorded
        }
        for recorded in self._recorded.values():
            recorded.read(reader)
        self._detector = options.load() if options.model is not None else None
        size = job.values['warmup_size']
        self._methods = prepare_methods(job.rows, job.values, (size[0], size[1]), job.plugins)
        fused = self._methods[FUSED]
        assert isinstance(fused, FusionMethod)
        self._fused = fused
        self._replay = BagReplay(reader, self._topics, job.values, fused.fuser)
        inputs = tuple(self._recorded)
        if self._detector is not None:
            inputs = ('visible', 'thermal', *self._methods)
        labels = options.load_labels() if inputs else None
        self._persons = (
            DetectionStudy(inputs, labels, options.score, night=options.night) if inputs else None
        )
        self._under_conditions = (
            ConditionStudy(
                job.conditions,
                DetectionRows(self._detector, self._methods),
                labels,
                options.score,
            )
            if self._detector is not None and job.conditions
            else None
        )
        self._study = Study(
            folder,
            self._replay.sources,
            ScoreBook(self._methods, metric_names(self._lpips is not None)),
            COLUMNS,
            self._persons,
            self._rate(),
        )

    def _find_topics(self) -> SourceTopics:
        job = self._job
        try:
            return find_sources(
                self._reader.topics,
                job.visible,
                job.thermal,
                job.camera_info,
                dict(job.others),
                encodings_in(self._reader),
            )
        except BagError as error:
            # A topic may be missing because a part of the bag is.
            raise BagError('; '.join([*self._reader.problems, str(error)])) from error

    @property
    def _seconds(self) -> float:
        return (self._reader.end - self._reader.start) * 1e-9

    def _rate(self) -> float:
        """Return the frame rate of the video: that of the slowest source."""
        rate = (self._replay.expected - 1) / self._seconds if self._seconds > 0 else 10.0
        return min(max(rate, 1.0), 60.0)

    def run(self, progress: ProgressFunction, stopping: StoppingFunction) -> BagResult:
        study, replay, limit = self._study, self._replay, self._job.limit
        expected = min(replay.expected, limit or replay.expected)
        reported = -math.inf
        progress(0, 0, f'using {self._topics}')
        with BagWriter(study.folder / 'fused', self._reader.storage) as writer:
            self._add_topics(writer)
            for pair in replay.pairs(stopping):
                self._write(writer, pair)
                self._take(pair, stopping)
                if (now := time.monotonic()) - reported >= _PROGRESS_SECONDS:
                    reported = now
                    name = stamp_text(pair.work.stamps[0])
                    progress(study.pairs, max(expected, study.pairs), name)
                if study.pairs == limit:
                    replay.finish(BEYOND_LIMIT)
                    break
        interruption = ''
        if replay.stopped:
            replay.finish(INTERRUPTED)
            interruption = f'interrupted after {study.pairs} of about {expected} pairs'
        if study.pairs:
            progress(study.pairs, study.pairs, 'writing the report')
        study.close()
        return self._finish(interruption)

    def _add_topics(self, writer: BagWriter) -> None:
        writer.add_topic('/fused/image_raw', IMAGE_TYPE)
        if self._topics.camera_info is not None:
            writer.add_topic('/fused/camera_info', CAMERA_INFO_TYPE)
        for source in self._replay.sources:
            writer.add_topic(f'/fused/weights/{source}', IMAGE_TYPE)

    def _write(self, writer: BagWriter, pair: FusedFrame) -> None:
        """Write what the node would publish, with the header of the visible image."""
        values, header, result = self._job.values, pair.header, pair.result
        encoding, map_encoding = values['output_encoding'], values['weights_encoding']
        images = {'/fused/image_raw': (fused_picture(result.image, encoding), encoding)}
        for source, weights in zip(self._replay.sources, result.weights, strict=True):
            plane = weight_plane(weights, map_encoding)
            images[f'/fused/weights/{source}'] = (plane, map_encoding)
        if pair.camera_info is not None:
            info = replace(pair.camera_info, header=header)
            writer.write('/fused/camera_info', info, pair.arrival)
        for topic, (image, kind) in images.items():
            writer.write(topic, image_message(image, kind, header), pair.arrival)

    def _take(self, pair: FusedFrame, stopping: StoppingFunction) -> None:
        """Score a pair, detect in it, and hand it to the study."""
        visible = to_8_bits(pair.images[0])
        size = (visible.shape[1], visible.shape[0])
        sources = {'visible': visible}
        for source, image in zip(self._replay.sources[1:], pair.images[1:], strict=True):
            sources[source] = grey_8_bits(image, size)
        milliseconds = pair.result.seconds * 1e3
        # The method was not called for this pair, but its costs are known from the result.
        self._fused.result = pair.result
        fused = {FUSED: MethodOutput(pair.result.image, milliseconds)}
        values: dict[str, dict[str, float]] | None = None
        persons: dict[str, int] | None = None
        if self._study.pairs % self._job.every == 0:
            # A failure of one pair does not stop the others.
            try:
                inputs = pair.prepared
                compared = fuse_with(self._methods, inputs.images, fused, inputs.placements)
                grey, thermal = grey_8_bits(visible), sources['thermal']
                values = score_images(compared, grey, thermal, self._lpips, thread_count())
                fused = compared
            except (ValueError, RuntimeError, cv2.error) as error:
                self._unscored[f'not scored: {error}'] += 1
            try:
                if self._under_conditions is not None:
                    self._under_conditions.take(
                        (stamp_text(pair.work.stamps[0]),),
                        visible,
                        grey_8_bits(pair.prepared.images[1]),
                        stopping,
                        pair.prepared.placements[1],
                    )
                persons = self._detect(pair, sources, fused)
            except (ValueError, RuntimeError, cv2.error) as error:
                self._unscored[f'without detections: {error}'] += 1
        stamp, offset = pair.work.stamps[0], pair.work.offset
        if self._first_stamp is None:
            self._first_stamp = stamp
        frame = StudyPair(
            name=stamp_text(stamp),
            sources=sources,
            fused=pair.result.image,
            weights=pair.result.weights,
            contributions=pair.result.contributions,
            milliseconds=milliseconds,
            time=(stamp - self._first_stamp) * 1e-9,
            offset=offset,
            cells=(stamp_text(stamp), stamp_text(pair.work.stamps[1]), f'{offset:.9f}', *size),
        )
        self._study.add(frame, fused, values, persons)

    def _detect(
        self, pair: FusedFrame, sources: Mapping[str, Image], fused: Mapping[str, MethodOutput]
    ) -> dict[str, int] | None:
        if self._persons is None:
            return None
        names, visible = (stamp_text(pair.work.stamps[0]),), sources['visible']
        if self._detector is not None:
            images = {name: entry.image for name, entry in fused.items()}
            thermal = sources['thermal']
            return self._persons.detect(self._detector, names, visible, thermal, images)
        taken = {name: self._take_recorded(pair, name) for name in self._persons.inputs}
        found = {name: entry for name, entry in taken.items() if entry is not None}
        if len(found) < len(taken):
            return None
        known = [name for name in found if name in sources or name in fused]
        images = {name: entry.image for name, entry in fused.items()}
        seen = detector_inputs(known, visible, sources['thermal'], images)
        return self._persons.add(names, visible, found, seen)

    def _take_recorded(self, pair: FusedFrame, name: str) -> Detections | None:
        """Return recorded detections in pixels of the visible image."""
        index = self._replay.sources.index(name) if name in self._replay.sources else 0
        found = self._recorded[name].take(stamp_of(pair.work.messages[index].message.header))
        if found is None or index == 0:
            return found
        values = self._job.values
        if name == 'thermal' and (values['thermal_to_visible'] or values['extrinsics']):
            return found  # in the registered image
        # As they came: where a part holds no data, they are warped to the visible one as well.
        sizes = (pair.prepared.images[i].shape[:2] for i in (0, index))
        (height, width), (own_height, own_width) = sizes
        scale = (width / own_width, height / own_height)
        return replace(found, boxes=found.boxes * (*scale, *scale))

    # Results over all pairs

    def _finish(self, interruption: str) -> BagResult:
        job, study, reader, replay = self._job, self._study, self._reader, self._replay
        warnings = [*reader.problems, *self._warnings()]
        if interruption:
            warnings.insert(len(reader.problems), interruption)
        if not study.pairs:
            reasons = '; '.join(warnings) or 'it was interrupted before the first one'
            raise BagError(f'no pair of {reader.path} could be fused: {reasons}')
        dropped = dict(sorted(replay.dropped.items()))
        not_fused = {cause: n for cause, n in dropped.items() if cause not in EARLY_END}
        fuser, tables = self._fused.fuser.describe(), self._tables()
        causes = ', '.join(f'{count} {cause}' for cause, count in not_fused.items())
        limited = ' (--limit)' if study.pairs == job.limit else ''
        sizes = ', '.join(f'{w}x{h}' for w, h in list(replay.sizes['visible'])[:3])
        study.finish(
            Report(
                title=f'{reader.name}: fusion evaluated',
                subtitle=f'{self._seconds:.1f} s recorded ({reader.storage}), '
                f'{self._topics.visible} with {self._topics.thermal}, {sizes}; '
                f'{study.scores.pairs} of {study.pairs} pairs scored',
                summary=(
                    ('pairs fused', f'{study.pairs}{limited}'),
                    ('not fused', causes or 'none'),
                ),
                warnings=tuple(warnings),
                tables=tuple(tables),
                files=(('fused images and weight maps, a bag', 'fused/'),),
                settings=tuple(self._settings(fuser)),
            ),
            self._facts(fuser, dropped),
            job.against,
            not_fused=causes,
        )
        return BagResult(
            folder=job.folder,
            pairs=study.pairs,
            not_fused=not_fused,
            metrics=study.scores.means() if study.scores.pairs else {},
            tables=tuple(tables),
            warnings=tuple(warnings),
            device=self._fused.about(),
            interrupted=replay.stopped,
        )

    def _warnings(self) -> list[str]:
        """Return what is odd about the streams, in sentences."""
        replay = self._replay
        warnings = self._said_live()
        for source, count in (+replay.lossy).items():
            warnings.append(
                f'{count_of_pairs(count)} with a {source} image that was recorded as JPEG, which '
                'loses faint contrast and adds block edges that the fusion may take for detail: '
                'record raw images, or use png as the format of the compressed topic'
            )
        for source, sizes in replay.sizes.items():
            if len(sizes) > 1:
                text = ', '.join(f'{w}x{h} ({count})' for (w, h), count in sizes.most_common(3))
                more = f' and {len(sizes) - 3} sizes more' if len(sizes) > 3 else ''
                warnings.append(
                    f'{source} changes its size (pairs of each): {text}{more}; each pair was '
                    'fused in the size of its visible image'
                )
        visible, thermal = (set(replay.sizes[source]) for source in ('visible', 'thermal'))
        if visible and visible.isdisjoint(thermal):
            warnings.append(
                'thermal images were resized to the size of the visible ones, for the fusion and '
                'for the scores: they must be registered'
            )
        for reason, count in self._unscored.items():
            warnings.append(f'{count_of_pairs(count)} {reason}')
        for source, received in replay.received.items():
            count = replay.dropped[f'{source} zero stamp']
            if count:
                warnings.append(
                    f'{count} of {received} {source} images have no stamp, which the driver '
                    'must set: without one they cannot be paired'
                )
        if not sum(replay.sizes['visible'].values()):
            warnings += self._pairing_advice()
        for recorded in self._recorded.values():
            warnings += recorded.warnings()
        return warnings + (self._persons.warnings() if self._persons is not None else [])

    def _said_live(self) -> list[str]:
        """Return the warnings of live diagnostics, with how often."""
        replay = self._replay
        warnings = [
            f'{fault.text} (so in {fault.count} of {fault.of} {fault.source} images)'
            for fault in replay.faults
        ]
        unfused = {cause: why_unfused(cause, why) for cause, why in replay.examples.items()}
        for cause, text in unfused.items():
            warnings.append(f'{text} (the first of {replay.dropped[cause]} {cause})')
        for text, seconds in replay.health.items():
            if text not in unfused.values():
                warnings.append(f'{text} (so in {seconds} s of the recording)')
        return warnings

    def _pairing_advice(self) -> list[str]:
        """Say why there is no pair, and what to do; nothing if the stamps are not the cause."""
        dropped = self._replay.dropped
        lonely = [cause for cause in dropped if cause.endswith((' unpaired', ' missing'))]
        advice = self._replay.pairing_advice()
        # Without one, a camera has no stamps, which is reported elsewhere.
        if not lonely or advice is None:
            return []
        missing = [k.removesuffix(' missing') for k in lonely if k.endswith(' missing')]
        if missing and self._job.values['sync_policy'] != 'exact':
            advice = (
                f'no stamp of {missing[0]} lies within sync_tolerance, '
                f'{self._job.values["sync_tolerance"]:g} s, of a pair: widen it, or fuse without '
                f'--source {missing[0]}'
            )
        counts = ', '.join(f'{dropped[cause]} {cause}' for cause in lonely)
        return [f'{counts}: {advice}']

    def _tables(self) -> list[Table]:
        tables = []
        scores, sources = self._study.scores, self._replay.sources
        if scores.pairs:
            ((size, _),) = self._replay.sizes['visible'].most_common(1)
            costs = method_costs(self._methods, scores.median_milliseconds(), size)
            table = comparison_table(scores.means(), scores.metrics, costs)
            title = (
                f'Means over {count_of_pairs(scores.pairs)}; GFLOP of the denoiser at '
                f'{size[0]}x{size[1]}; ms: median'
            )
            notes = table.notes
            if len(sources) > 2:
                others = ', '.join(sources[2:])
                notes += (
                    f'All rows also fuse {others}; the scores are against visible and thermal.',
                )
            tables.append(replace(table, title=title, notes=notes))
            if self._job.against:
                table = difference_table(scores, self._job.against)
                tables.append(replace(table, title='Differences pair by pair'))
        if self._persons is not None and self._persons.frames:
            tables += self._persons.tables()
        if self._under_conditions is not None:
            tables += self._under_conditions.tables()
        return tables

    def _settings(self, fuser: Mapping[str, Any]) -> list[tuple[str, str]]:
        rows = [('bag', str(self._reader.path))]
        rows += [(key, str(value)) for key, value in fuser.items()]
        about = describe_rows(self._job.rows, self._methods)
        rows += [(f'row {name}', text) for name, text in about.items()]
        if self._detector is not None and self._job.detector is not None:
            rows.append(('detector', self._job.detector.describe(self._detector)))
        rows += [(f'detections of {name}', topic) for name, topic in self._job.recorded]
        rows += [('OpenCV', cv2.__version__)]
        rows += [(name, str(value)) for name, value in self._job.values.items()]
        return rows

    def _facts(self, fuser: Mapping[str, Any], dropped: Mapping[str, int]) -> dict[str, Any]:
        """Return what `summary.json` has beyond the entries of every study."""
        job, reader, replay = self._job, self._reader, self._replay
        return {
            'bag': {
                'name': reader.name,
                'path': str(reader.path),
                'storage': reader.storage,
                'start': stamp_text(reader.start),
                'seconds': self._seconds,
            },
            'topics': {
                'visible': self._topics.visible,
                'thermal': self._topics.thermal,
                **self._topics.others,
                'visible camera_info': self._topics.camera_info,
            },
            'received': dict(replay.received),
            'dropped': dropped,
            # Warnings of live diagnostics about images, and for how many of them.
            'faults': {fault.text: fault.count for fault in replay.faults},
            # Other warnings, and in how many seconds of the recording.
            'health': dict(replay.health),
            'diagnostics': replay.table,
            'lossy': dict(+replay.lossy),
            'sizes': {
                source: {f'{w}x{h}': count for (w, h), count in sizes.items()}
                for source, sizes in replay.sizes.items()
            },
            'fuser': fuser,
            'rows': describe_rows(job.rows, self._methods),
            'parameters': dict(job.values),
            'every': job.every,
            'limit': job.limit,
            'interrupted': replay.stopped,
            'conditions': (
                self._under_conditions.summary() if self._under_conditions is not None else {}
            ),
        }


def count_of_pairs(count: int) -> str:
    """Return ``1 pair``, ``2 pairs`` and so on."""
    return f'{count} pair{"" if count == 1 else "s"}'
