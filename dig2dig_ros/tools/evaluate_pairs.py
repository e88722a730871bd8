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
Fuse the image pairs of a folder and compare methods in tables.

DIR holds two folders of images with the same names (visible and thermal or such; A and B, near and
far, or over and under for other tasks), or images NAME_A and NAME_B. Metrics are those of the luma
of the fused images against the two sources, averaged over the pairs. Tables go to the standard
output, everything else to the standard error. With --output, a folder gets the fused images,
metrics.csv, timing.csv, summary.json, a video and report.html, a page to open in a browser. Ctrl-C
ends with what there is.

Exit code: 0, 1 if a pair was skipped, 2 if nothing could be done, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
import csv
from dataclasses import dataclass, replace
from pathlib import Path
import sys
import time
from typing import Any

import cv2
from numpy.typing import NDArray

from dig2dig_ros.evaluation.baselines import BASELINES
from dig2dig_ros.evaluation.comparison import (
    ABLATIONS,
    add_compare_option,
    add_score_options,
    changed_settings,
    ComparisonError,
    FUSED,
    load_peers,
    Peers,
    Row,
    rows_against,
    rows_help,
    split_rows,
)
from dig2dig_ros.evaluation.detection_study import DetectionStudy
from dig2dig_ros.evaluation.detector import (
    add_detector_options,
    Detector,
    detector_options,
    DetectorError,
    DetectorOptions,
)
from dig2dig_ros.evaluation.image_pairs import (
    find_pairs,
    ImagePair,
    ImagePairError,
    load_pair,
    second_is_colour,
    unpaired,
)
from dig2dig_ros.evaluation.jobs import Interruption
from dig2dig_ros.evaluation.labels import LabelError
from dig2dig_ros.evaluation.methods import (
    COMMON_SIZE,
    describe_rows,
    FusionMethod,
    method_costs,
    prepare_methods,
    row_settings,
    thread_count,
    time_left,
    time_methods,
)
from dig2dig_ros.evaluation.metrics import LPIPS, metric_names
from dig2dig_ros.evaluation.options import (
    add_fusion_options,
    check_output,
    fusion_overrides,
    INTERRUPTED,
    load_parameters,
    positive,
    report,
    size_argument,
    TASKS,
    thermal_range,
    THERMAL_TASK,
    UsageError,
    with_overrides,
)
from dig2dig_ros.evaluation.perceptual import load_lpips, Lpips, LpipsError
from dig2dig_ros.evaluation.scores import (
    ablation_table,
    comparison_table,
    Cost,
    difference_table,
    fuse_with,
    Fused,
    grey_8_bits,
    Image,
    LPIPS_MISSING,
    Method,
    score_images,
    ScoreBook,
    ScoreFile,
    to_8_bits,
)
from dig2dig_ros.evaluation.study import Findings, Frame, Study, STUDY_FILES
from dig2dig_ros.evaluation.tables import Table
from dig2dig_ros.images.thermal_range import ThermalRange
from dig2dig_ros.streams.resources import config_file

METHODS = (*BASELINES, FUSED)
ABLATION_METRICS = ('PSNR_sum', 'SSIM', 'MSE', 'CC', LPIPS, 'Qabf', 'VIF')


@dataclass(frozen=True)
class Scene:
    """
    A pair as it was read.

    :param images: what the methods take: uint8, or float in [0, 1] for mapped thermal counts.
    :param shown: the same on the 8-bit scale.
    """

    name: str
    images: tuple[NDArray[Any], NDArray[Any]]
    shown: tuple[Image, Image]

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.shown[0].shape[1], self.shown[0].shape[0]


def read_scene(pair: ImagePair, ranges: ThermalRange | None) -> Scene:
    """
    Read one pair.

    :param ranges: maps thermal counts; None for two photographs.
    :raises ImagePairError: it cannot be read, or the two images differ in size.
    :raises ThermalRangeError: the second image is not thermal.
    """
    first, second = load_pair(pair, thermal=ranges is not None, same_size=True)
    if ranges is None:
        return Scene(pair.name, (first, second), (first, second))
    # All methods, and the metrics, see the same 8-bit thermal image.
    thermal = to_8_bits(ranges(second, 0.0))
    return Scene(pair.name, (first, thermal), (first, thermal))


class PairEvaluation:
    """
    Goes through the pairs of a folder, scores every method, and hands results on.

    :param methods: ways to fuse by name.
    :param ranges: maps thermal counts; None for photographs.
    :param lpips: the metric, where its weights are given.
    :param scores: takes the scores; that of the study, if there is one.
    :param detector: detects persons in the inputs of ``persons``; None goes without.
    :param persons: takes what was detected.
    :param save: folder that takes the fused images as ``PAIR__METHOD.png``.
    :param lines: takes the values of every pair.
    :param study: takes everything for a report.
    """

    def __init__(
        self,
        methods: Mapping[str, Method],
        ranges: ThermalRange | None,
        lpips: Lpips | None,
        scores: ScoreBook,
        detector: Detector | None = None,
        persons: DetectionStudy | None = None,
        save: Path | None = None,
        lines: ScoreFile | None = None,
        study: Study | None = None,
    ) -> None:
        self._methods = methods
        self._ranges = ranges
        self._lpips = lpips
        self._save = save
        self._lines = lines
        self._study = study
        self._detector = detector
        self._persons = persons
        self.scores = scores
        self.sizes: set[tuple[int, int]] = set()
        self.skipped: list[str] = []

    def run(self, pairs: Sequence[ImagePair], interruption: Interruption) -> None:
        """Take pair after pair; one that cannot be evaluated is named and skipped."""
        started = time.perf_counter()
        for index, pair in enumerate(pairs, start=1):
            if interruption.requested:
                break
            try:
                self._take(pair)
                result = 'done'
            except (ValueError, RuntimeError, OSError, cv2.error) as error:
                self.skipped.append(pair.name)
                result = f'skipped, {error}'
            left = time_left(time.perf_counter() - started, index, len(pairs))
            report(f'[{index}/{len(pairs)}] {pair.name}: {result}; {left}')

    def _take(self, pair: ImagePair) -> None:
        scene = read_scene(pair, self._ranges)
        fused = fuse_with(self._methods, scene.images)
        first, second = (grey_8_bits(image) for image in scene.shown)
        values = score_images(fused, first, second, self._lpips, thread_count())
        persons = self._detect(pair, scene, fused)
        self.sizes.add(scene.size)
        if self._lines is not None:
            for name, row in values.items():
                after = [fused[name].milliseconds]
                self._lines.add([scene.name, name, *scene.size], row, after)
        if self._save is not None:
            for name, entry in fused.items():
                write_image(self._save / f'{scene.name}__{name}.png', entry.image)
        if self._study is None:
            times = {name: entry.milliseconds for name, entry in fused.items()}
            self.scores.add(values, times)
        else:
            self._hand_over(self._study, scene, fused, values, persons)

    def _detect(
        self, pair: ImagePair, scene: Scene, fused: Mapping[str, Fused]
    ) -> dict[str, int] | None:
        if self._detector is None or self._persons is None:
            return None
        visible, thermal = scene.shown[0], grey_8_bits(scene.shown[1])
        names = (pair.name, pair.visible.stem, pair.thermal.stem)
        images = {name: entry.image for name, entry in fused.items()}
        return self._persons.detect(self._detector, names, visible, thermal, images)

    def _hand_over(
        self,
        study: Study,
        scene: Scene,
        fused: Mapping[str, Fused],
        values: Mapping[str, Mapping[str, float]],
        persons: Mapping[str, int] | None,
    ) -> None:
        method = self._methods[study.shown]
        assert isinstance(method, FusionMethod)
        assert method.result is not None
        result = fused[study.shown].image
        write_image(study.folder / 'fused' / f'{scene.name}.png', result)
        frame = Frame(
            name=scene.name,
            sources=dict(zip(study.sources, scene.shown, strict=True)),
            fused=result,
            weights=method.result.weights,
            milliseconds=fused[study.shown].milliseconds,
            time=float(study.pairs),
            cells=(scene.name, *scene.size),
        )
        study.add(frame, fused, values, persons)


def write_image(path: Path, image: Image) -> None:
    """
    Write an image in the format that the suffix names.

    :raises OSError: it cannot be written.
    """
    # imwrite() fails silently, and on names that are not ASCII on some systems.
    done, data = cv2.imencode(path.suffix, image)
    if not done:
        raise OSError(f'{path} cannot be written')
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.tobytes())


def caption(
    evaluation: PairEvaluation, args: argparse.Namespace, methods: Mapping[str, Method]
) -> str:
    """Return what the tables were measured on, and with what."""
    sizes = sorted(evaluation.sizes, key=lambda size: size[0] * size[1])
    ends = ' to '.join(
        f'{width}x{height}' for width, height in dict.fromkeys((sizes[0], sizes[-1]))
    )
    pairs = evaluation.scores.pairs
    text = f'{pairs} pair{"s" if pairs > 1 else ""} of {ends} pixels'
    if evaluation.skipped:
        text += f', {len(evaluation.skipped)} skipped'
    width, height = args.time_size or COMMON_SIZE
    if args.time_size:
        times = f'at {width}x{height}, median of {args.repetitions} in turns'
    else:
        times = 'median over the pairs'
    if not args.ablation:
        text += f'; GFLOP: of the prior at {width}x{height}'
    text += f'; ms: {times}'
    fusions = {name: fuse for name, fuse in methods.items() if isinstance(fuse, FusionMethod)}
    if fusions:
        name = FUSED if FUSED in fusions else next(iter(fusions))
        text += f'; {name}: {fusions[name].about()}'
    return text


def size_or_pairs(text: str) -> tuple[int, int] | None:
    """Parse ``WIDTHxHEIGHT``, or ``pairs``, which is None."""
    return None if text == 'pairs' else size_argument(text)


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; ends the program with code 2 where it makes no sense."""
    parser = argparse.ArgumentParser(
        prog='evaluate_pairs',
        description=__doc__,
        epilog=rows_help(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add('directory', type=Path, metavar='DIR', help='folder of image pairs')
    add(
        '--task',
        choices=tuple(TASKS),
        help=f'what the images are, which chooses parameters; default: {THERMAL_TASK}, or two '
        'photographs with the same parameters where the second image has colour',
    )
    tables = parser.add_mutually_exclusive_group()
    add_compare_option(tables, ','.join(METHODS))
    tables.add_argument(
        '--ablation',
        choices=(*ABLATIONS, 'all'),
        help="instead: the paper's ablations, on the row dig_chain",
    )
    add('--limit', type=positive, metavar='PAIRS', help='take the first pairs only')
    add_fusion_options(parser)
    add_score_options(parser)
    add('--peers', type=Path, metavar='FILE', help='scores of other methods, as JSON')
    add('--peers-set', metavar='NAME', help='the set of images in that file')
    add(
        '--peers-rows',
        type=split_rows,
        metavar='METHODS',
        help='which of them; default: all whose name is not among the rows',
    )
    add(
        '--time-size',
        type=size_or_pairs,
        default=COMMON_SIZE,
        metavar='WIDTHxHEIGHT|pairs',
        help='ms on one synthetic pair of this size, all rows in turns, or as the median over '
        'the pairs; default: 640x512',
    )
    add('--repetitions', type=positive, default=5, metavar='COUNT', help='for that; default: 5')
    add('--csv', type=Path, metavar='FILE', help='write the values of every pair')
    add('--save', type=Path, metavar='DIR', help='write the fused images of every row')
    add('-o', '--output', type=Path, metavar='DIR', help='write the results and a report page')
    add('--overwrite', action='store_true', help='replace the results in that folder')
    group = parser.add_argument_group('detection')
    add_detector_options(group, 'labels.json of DIR')
    args = parser.parse_args(argv)
    if (args.peers is None) != (args.peers_set is None):
        parser.error('--peers and --peers-set belong together')
    if args.peers_rows and args.peers is None:
        parser.error('--peers-rows needs --peers')
    if args.ablation and any((args.peers, args.against, args.N, args.S)):
        parser.error('--ablation has its own rows, N and S: no --peers, --against, -N or -S')
    if args.labels is not None and args.detector is None:
        parser.error('--labels needs --detector')
    return args


def choose_peers(args: argparse.Namespace) -> Peers:
    """
    Return the scores of other methods that the table is to show.

    :raises UsageError: a row that was asked for is unknown or would be there twice.
    :raises ComparisonError: the file cannot be used.
    """
    if args.peers is None:
        return Peers({}, {})
    peers = load_peers(args.peers, args.peers_set)
    own = {row.name for row in args.compare}
    for name in args.peers_rows or ():
        if name not in peers.scores:
            known = ', '.join(peers.scores)
            raise UsageError(f'--peers-rows: {name} is not in {args.peers_set}; it has {known}')
        if name in own:
            raise UsageError(f'--peers-rows: {name} is a row of --compare as well')
    names = args.peers_rows or [name for name in peers.scores if name not in own]
    # Their operations are known at one size only.
    comparable = args.time_size in (None, COMMON_SIZE)
    return Peers(
        {name: peers.scores[name] for name in names},
        {name: peers.gflop[name] for name in names if comparable and name in peers.gflop},
    )


def ablation_rows(choice: str) -> dict[str, dict[str, str]]:
    """Return, for every ablation of ``--ablation``, the labels of its rows by their names."""
    return {
        name: {f'{name}_{label}'.replace(' ', '_'): label for label in ablation.rows}
        for name, ablation in ABLATIONS.items()
        if choice in (name, 'all')
    }


def choose_task(
    args: argparse.Namespace, pairs: Sequence[ImagePair]
) -> tuple[bool, dict[str, Any]]:
    """
    Return whether the second images are thermal, and the parameters of ``fusion_node``.

    In ascending order: the preset of the task, the file of ``--params``, the other options.

    :raises UsageError: the parameter file, or a value in it, cannot be used.
    :raises FileNotFoundError: the preset is not installed.
    """
    thermal = args.task in (None, THERMAL_TASK)
    parameters: dict[str, Any] = {}
    if args.task is not None:
        parameters.update(load_parameters(str(config_file(f'{TASKS[args.task]}.yaml'))))
    elif _is_colour(pairs[0]):
        thermal = False
        parameters['chroma'] = 'all'
        report(
            'the second images have colour: they are taken as photographs; --task multi-focus or '
            f'multi-exposure chooses parameters for such, --task {THERMAL_TASK} takes their luma'
        )
    if args.params is not None:
        parameters.update(load_parameters(args.params))
    return thermal, with_overrides(parameters, fusion_overrides(args))


def _is_colour(pair: ImagePair) -> bool:
    try:
        return second_is_colour(pair)
    except ImagePairError:
        return False  # it will be skipped, with the reason


def prepare_output(folder: Path) -> None:
    """
    Make the folder of ``--output``, without the results of an earlier evaluation.

    :raises OSError: it cannot be made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with suppress(OSError, UnicodeDecodeError, csv.Error):
        with (folder / 'metrics.csv').open(encoding='utf-8', newline='') as file:
            earlier = {row.get('pair') or '' for row in csv.DictReader(file)}
        for name in earlier:
            (folder / 'fused' / f'{name}.png').unlink(missing_ok=True)
    for name in STUDY_FILES:
        (folder / name).unlink(missing_ok=True)


def evaluate(args: argparse.Namespace) -> int:
    """
    Do what the command line asks for.

    :return: exit code.
    :raises UsageError: nothing can be done.
    :raises ComparisonError: the scores of other methods cannot be used.
    :raises ImagePairError: there are no pairs.
    :raises OSError: a result cannot be written.
    """
    with ExitStack() as until_end:
        return _evaluate(args, until_end)


def _evaluate(args: argparse.Namespace, until_end: ExitStack) -> int:
    pairs = find_pairs(args.directory)[: args.limit]
    thermal, parameters = choose_task(args, pairs)
    ranges = thermal_range(parameters)
    alone = unpaired(args.directory)
    if alone:
        report(f'without a counterpart, left out: {", ".join(alone)}')
    ablations = ablation_rows(args.ablation) if args.ablation else {}
    rows: list[Row] = args.compare
    if ablations:
        rows = [
            Row(name, 'dig_chain', ABLATIONS[table].rows[label])
            for table, labels in ablations.items()
            for name, label in labels.items()
        ]
    against = rows_against(rows, args.against)
    peers = choose_peers(args)
    lpips = load_lpips(args.lpips) if args.lpips else None
    if args.output is not None:
        if not ablations and FUSED not in [row.name for row in rows]:
            raise UsageError(f'--output shows the row {FUSED}: name it in --compare')
        check_output(args.output, args.overwrite)
    if args.save is not None:
        args.save.mkdir(parents=True, exist_ok=True)

    warm_up_size = args.time_size or tuple(parameters.get('warmup_size', COMMON_SIZE))
    methods = prepare_methods(rows, parameters, warm_up_size)
    options = detector_options(args)
    detector, persons = prepare_detection(options, args, list(methods))
    size = args.time_size or COMMON_SIZE
    times = time_methods(methods, size, args.repetitions) if args.time_size else {}

    scores = ScoreBook(methods, metric_names(lpips is not None))
    study = None
    if args.output is not None:
        # Not before all else is known to be there: an earlier result goes.
        prepare_output(args.output)
        sources = ('visible', 'thermal') if thermal else ('first', 'second')
        study = Study(
            args.output,
            sources,
            scores,
            ('pair', 'width', 'height'),
            persons.inputs if persons is not None else (),
            # The rows of the ablations are all of one family; the first stands for it.
            shown=FUSED if FUSED in methods else next(iter(methods)),
        )
    lines = None
    if args.csv is not None:
        lines = ScoreFile(args.csv, ('pair', 'method', 'width', 'height'), scores.metrics, ('ms',))
    evaluation = PairEvaluation(
        methods,
        ranges if thermal else None,
        lpips,
        scores,
        detector,
        persons,
        args.save,
        lines,
        study,
    )
    interruption = Interruption()
    # What there is includes the report, which must not be lost to the same wish.
    until_end.enter_context(interruption.on_sigint(lambda: report(INTERRUPTED)))
    evaluation.run(pairs, interruption)
    interrupted = interruption.requested
    for file in (lines, study):
        if file is not None:
            file.close()
    if not scores.pairs and interrupted:
        report('evaluate_pairs: interrupted before the first pair, so there are no results')
        return 130
    if not scores.pairs:
        raise UsageError(f'none of the {len(pairs)} pairs of {args.directory} could be evaluated')

    means = scores.means()
    costs = method_costs(methods, times or scores.median_milliseconds(), size)
    about = caption(evaluation, args, methods)
    tables = result_tables(scores, means, costs, peers, against, ablations)
    if persons is not None and persons.frames:
        tables += persons.tables()
        assert detector is not None
        about += f'; detector: {options.describe(detector)}'
    odd = persons.warnings() if persons is not None else []
    for sentence in odd:
        report(sentence)
    for table in tables:
        print(table.markdown(), end='\n\n')
    if ablations:
        base = changed_settings(row_settings(Row('dig_chain', 'dig_chain'), parameters))
        print(f'{about}\nWhat a table does not vary: {base}.')
    else:
        notes = [f'{name}: {text}' for name, text in describe_rows(rows, methods).items()]
        if peers.scores:
            names = ', '.join(peers.scores)
            notes.append(f'as in {args.peers.name}, {args.peers_set}, over all its pairs: {names}')
        print('\n- '.join([about, *notes]))
    if peers.scores and (args.limit or evaluation.skipped):
        report(f'the scores of {args.peers.name} are of more pairs than those made here')
    skipped = evaluation.skipped
    if study is not None:
        warnings = []
        if interrupted:
            warnings.append(f'interrupted after {scores.pairs} of {len(pairs)} pairs')
        if skipped:
            warnings.append(f'skipped, as they could not be evaluated: {", ".join(skipped)}')
        if alone:
            warnings.append(f'without a counterpart, left out: {", ".join(alone)}')
        warnings += odd
        findings = Findings(
            title=f'{args.directory.resolve().name}: fusion evaluated',
            subtitle=about,
            summary=[
                *summary_rows(study),
                *([persons.headline()] if persons and persons.frames else []),
            ],
            warnings=warnings,
            tables=tables,
            against=against,
            groups={ABLATIONS[name].title: labels for name, labels in ablations.items()},
            files=[('fused images', 'fused/')],
            settings=setting_rows(args, rows, methods, study.shown),
            facts={
                'directory': str(args.directory),
                'task': args.task or (THERMAL_TASK if thermal else 'photographs'),
                'skipped': skipped,
                'unpaired': alone,
                'sizes': sorted(f'{width}x{height}' for width, height in evaluation.sizes),
                'fuser': fuser_facts(methods[study.shown]),
                'rows': describe_rows(rows, methods),
                'parameters': parameters,
                'costs': {name: vars(cost) for name, cost in costs.items()},
                'interrupted': interrupted,
                'detection': persons.summary() if persons and persons.frames else {},
            },
        )
        study.finish(findings)
        report(f'written: {args.output / "report.html"}')
    if skipped:
        report(f'skipped {len(skipped)} of {len(pairs)} pairs: {", ".join(skipped)}')
    if interruption.requested:
        return 130
    return 1 if skipped else 0


def prepare_detection(
    options: DetectorOptions, args: argparse.Namespace, methods: Sequence[str]
) -> tuple[Detector | None, DetectionStudy | None]:
    """
    Load the detector and the labels, if there is to be one.

    :raises DetectorError: it cannot be used.
    :raises LabelError: the labels cannot be read.
    """
    if options.model is None:
        return None, None
    labels = options.load_labels(args.directory / 'labels.json')
    inputs = ('visible', 'thermal', *methods)
    study = DetectionStudy(inputs, labels, options.score, night=options.night)
    return options.load(), study


def result_tables(
    scores: ScoreBook,
    means: Mapping[str, Mapping[str, float]],
    costs: Mapping[str, Cost],
    peers: Peers,
    against: Sequence[str],
    ablations: Mapping[str, Mapping[str, str]],
) -> list[Table]:
    """Return the tables of ``--compare`` or ``--ablation``."""
    if ablations:
        metrics = [name for name in ABLATION_METRICS if name in scores.metrics]
        tables = [
            ablation_table(ABLATIONS[name].title, labels, metrics, means, costs)
            for name, labels in ablations.items()
        ]
        notes = ['PSNR and SSIM are sums over the sources.']
        if LPIPS not in metrics:
            notes.append(LPIPS_MISSING)
        return [*tables[:-1], replace(tables[-1], notes=tuple(notes))]
    together = {**means, **peers.scores}
    published = {name: Cost(gflop=value) for name, value in peers.gflop.items()}
    tables = [comparison_table(together, scores.metrics, {**costs, **published})]
    if against:
        tables.append(difference_table(scores, against))
    return tables


def fuser_facts(method: Method) -> dict[str, Any]:
    """Return what a fusion runs on, and with what."""
    return method.fuser.describe() if isinstance(method, FusionMethod) else {}


def summary_rows(study: Study) -> list[tuple[str, str]]:
    """Return what the report page shows first."""
    return [
        ('pairs fused', str(study.pairs)),
        study.quality_row(),
        study.weight_row(),
        study.time_row(),
    ]


def setting_rows(
    args: argparse.Namespace, rows: Sequence[Row], methods: Mapping[str, Method], shown: str
) -> list[tuple[str, str]]:
    """
    Return what the report page shows at its end.

    :param shown: the row whose settings are told in full.
    """
    method = methods[shown]
    settings = [('folder', str(args.directory.resolve()))]
    settings += [(key, str(value)) for key, value in fuser_facts(method).items()]
    settings += [(f'row {n}', text) for n, text in describe_rows(rows, methods).items()]
    if isinstance(method, FusionMethod):
        settings += [(key, str(value)) for key, value in vars(method.fuser.settings).items()]
    return settings


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; see the module's description."""
    args = parse_arguments(argv)
    try:
        return evaluate(args)
    except (
        UsageError,
        ComparisonError,
        ImagePairError,
        DetectorError,
        LabelError,
        LpipsError,
        OSError,
        ImportError,
    ) as error:
        report(f'evaluate_pairs: {error}')
        return 2
    except KeyboardInterrupt:
        report('evaluate_pairs: interrupted, nothing more is written')
        return 130


if __name__ == '__main__':
    sys.exit(main())
