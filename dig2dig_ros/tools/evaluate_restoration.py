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
Measure what declaring a degradation is worth: degrade pairs, fuse them, compare with clean fusion.

DIR holds pairs of images that lie on each other, visible and thermal, in two folders of images
with the same names. They are degraded as cameras do it, rounded and clipped to 8 bits, and fused:

- clean: without degradation, for what the metrics say of that;
- degraded: as they are, a smaller thermal image resized to the visible one;
- restored first: noise taken with OpenCV's non-local means, at the strength that serves best of
  several parts of the noise's deviation, and the thermal image enlarged bicubically;
- declared: with the degradation declared to the fusion, by visible_degradation and
  thermal_degradation;
- noise estimated: likewise, with "noise auto" in place of the noise's deviation.

SSIM is that of the luma to the fusion of the clean images, Qabf that of the luma to the clean
images, both means over the pairs; where restoring first has several strengths, each metric shows
its best. Tables go to the standard output, progress to the standard error; --output takes the
values of every pair as JSON. The noise is always the same.

Exit code: 0, 1 if a pair was skipped, 2 if nothing could be done, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
import json
from pathlib import Path
import sys
import time
from typing import Any, TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from dig2dig_ros.evaluation.image_pairs import find_pairs, ImagePair, ImagePairError, load_pair
from dig2dig_ros.evaluation.jobs import Interruption
from dig2dig_ros.evaluation.methods import time_left
from dig2dig_ros.evaluation.metrics import luma, qabf, ssim
from dig2dig_ros.evaluation.options import (
    add_fusion_options,
    fusion_overrides,
    fusion_settings,
    INTERRUPTED,
    load_fuser,
    load_parameters,
    positive,
    report,
    thermal_range,
    UsageError,
    with_overrides,
)
from dig2dig_ros.evaluation.scores import to_8_bits
from dig2dig_ros.evaluation.tables import Table
from dig2dig_ros.fusion.degradation import Degradation, DegradationError
from dig2dig_ros.fusion.settings import FusionSettings
from dig2dig_ros.images.thermal_range import ThermalRange

# Importing torch takes seconds, which a mistake in the command line need not cost.
if TYPE_CHECKING:
    from dig2dig_ros.fusion.fuser import Fuser

Image = NDArray[np.uint8]
# Visible; thermal. One text is for both.
DEFAULT_CASES = (
    'noise 15',
    'noise 25',
    'noise 50',
    'blur 2',
    'none; x2',
    'none; x4',
    'blur 1.5, noise 15; blur 1.5, x2, noise 15',
)
CLEAN, DEGRADED, RESTORED, DECLARED, ESTIMATED = (
    'clean',
    'degraded',
    'restored first',
    'declared',
    'noise estimated',
)
METHODS = (CLEAN, DEGRADED, RESTORED, DECLARED, ESTIMATED)
# Strengths of non-local means, as parts of the noise's deviation.
STRENGTHS = (0.5, 0.75, 1.0, 1.5)
METRICS = ('SSIM', 'Qabf')
SEED = 0


@dataclass(frozen=True)
class Case:
    """What the two cameras do to their images."""

    visible: Degradation
    thermal: Degradation

    @classmethod
    def parse(cls, text: str) -> Case:
        """
        Read ``VISIBLE; THERMAL``, or one degradation for both.

        :raises DegradationError: one is not understood, or cannot be made.
        """
        parts = text.split(';')
        if len(parts) > 2:
            raise DegradationError(f'{text!r} names more than two degradations')
        case = cls(Degradation.parse(parts[0]), Degradation.parse(parts[-1]))
        if case.visible.factor != 1:
            raise DegradationError(
                f'{text!r} reduces the visible image, whose pixels the fused image has: write '
                "'none; x2' to reduce the thermal one"
            )
        if None in (case.visible.noise, case.thermal.noise):
            raise DegradationError(f'{text!r} has noise auto, but noise is made by a number')
        return case

    def __str__(self) -> str:
        """Return what :meth:`parse` reads."""
        if self.visible == self.thermal:
            return str(self.visible)
        return f'{self.visible}; {self.thermal}'

    @property
    def strengths(self) -> tuple[float, ...]:
        """Strengths of non-local means to try."""
        return STRENGTHS if self.visible.noise or self.thermal.noise else (0.0,)

    def estimated(self) -> Case:
        """Return the same with all noise to be estimated."""
        return Case(replace(self.visible, noise=None), replace(self.thermal, noise=None))


def case_argument(text: str) -> Case:
    """Parse a case on the command line."""
    try:
        return Case.parse(text)
    except DegradationError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


@dataclass(frozen=True)
class Score:
    """What one method made of one pair."""

    values: Mapping[str, float]
    milliseconds: float


class Evaluation:
    """
    Degrades pairs, fuses them in all ways, and keeps the scores.

    :param fuser: to whose settings each case adds what it declares.
    :param ranges: maps thermal counts.
    """

    def __init__(self, fuser: Fuser, ranges: ThermalRange, cases: Sequence[Case]) -> None:
        self._fuser = fuser
        self._ranges = ranges
        self.cases = cases
        self.pairs: list[str] = []
        self.skipped: list[str] = []
        # By case and method, in the order of the pairs.
        self.scores: dict[tuple[str, str], list[Score]] = defaultdict(list)

    def run(self, pairs: Sequence[ImagePair], interruption: Interruption) -> None:
        """Take pair after pair; one that cannot be used is named and skipped."""
        started = time.perf_counter()
        for index, pair in enumerate(pairs):
            if interruption.requested:
                break
            try:
                scores = self._take(pair, index)
            except (ValueError, RuntimeError, OSError, cv2.error) as error:
                self.skipped.append(pair.name)
                result = f'skipped, {error}'
            else:
                self.pairs.append(pair.name)
                for key, score in scores.items():
                    self.scores[key].append(score)
                result = 'done'
            left = time_left(time.perf_counter() - started, index + 1, len(pairs))
            report(f'[{index + 1}/{len(pairs)}] {pair.name}: {result}; {left}')

    def _take(self, pair: ImagePair, index: int) -> dict[tuple[str, str], Score]:
        visible, counts = load_pair(pair, same_size=True)
        thermal = to_8_bits(self._ranges(counts, 0.0))
        if (visible == visible[:, :, :1]).all():
            # Noise must not give colour to what has none.
            visible = np.ascontiguousarray(visible[:, :, 0])
        scores = {}
        for case in self.cases:
            for method, score in self._compare(case, visible, thermal, index).items():
                scores[str(case), method] = score
        return scores

    def _compare(self, case: Case, visible: Image, thermal: Image, index: int) -> dict[str, Score]:
        """Return the scores of all methods, by name."""
        height, width = (int(side / case.thermal.factor) for side in thermal.shape)
        scene = case.thermal.scene_size(height, width)
        clean = [
            np.ascontiguousarray(image[: scene[0], : scene[1]]) for image in (visible, thermal)
        ]
        declared = (case.visible, case.thermal)
        seen = [
            degrade(image, degradation, np.random.default_rng((SEED, index, source)))
            for source, (image, degradation) in enumerate(zip(clean, declared, strict=True))
        ]
        target = luma(self._fuser.fuse(*clean).image)

        def score(make: Callable[[], Sequence[Image]], declaration: Case | None = None) -> Score:
            settings = self._declaring(declaration)
            started = time.perf_counter()
            fused = luma(self._fuser.fuse(*make(), settings=settings).image)
            milliseconds = 1e3 * (time.perf_counter() - started)
            # SSIM is the sum over two sources.
            values = (ssim(fused, target, target) / 2, qabf(fused, luma(clean[0]), clean[1]))
            return Score(dict(zip(METRICS, values, strict=True)), milliseconds)

        scores = {CLEAN: score(lambda: clean), DEGRADED: score(lambda: seen)}
        for strength in case.strengths:
            scores[f'{RESTORED} {strength:g}'] = score(
                partial(restored_first, seen, declared, strength)
            )
        for method, chosen in ((DECLARED, case), (ESTIMATED, case.estimated())):
            scores[method] = score(lambda: seen, chosen)
        return scores

    def _declaring(self, case: Case | None) -> FusionSettings:
        texts = ('none', 'none') if case is None else (str(case.visible), str(case.thermal))
        return replace(
            self._fuser.settings, visible_degradation=texts[0], thermal_degradation=texts[1]
        )

    def best(self, case: Case, method: str, metric: str) -> tuple[str, float]:
        """Return the method, or that of its strengths which serves best, and its mean."""
        names = [method]
        if method == RESTORED:
            names = [f'{RESTORED} {strength:g}' for strength in case.strengths]
        means = {
            name: float(np.mean([score.values[metric] for score in self.scores[str(case), name]]))
            for name in names
        }
        name = max(means, key=means.__getitem__)
        return name, means[name]

    def milliseconds(self, case: Case, method: str) -> float:
        """Return the median over the pairs, at the strength that serves SSIM best."""
        name, _ = self.best(case, method, 'SSIM')
        return float(np.median([score.milliseconds for score in self.scores[str(case), name]]))


def degrade(image: Image, degradation: Degradation, random: np.random.Generator) -> Image:
    """
    Return what a camera of 8 bits would give of a scene.

    :param image: (H, W) or (H, W, 3), of the size that the degradation makes whole pixels of.
    :return: (h, w) or (h, w, 3); noise is independent in all channels.
    """
    import torch

    from dig2dig_ros.fusion.observation import observe

    factor = degradation.factor
    height, width = (int(side / factor) for side in image.shape[:2])
    # The operator is that of an image of this size, whatever is in it.
    blank = torch.zeros(1, 1, height, width)
    operator = observe(replace(degradation, noise=0.0), blank).operator
    planes = torch.from_numpy(image.reshape(*image.shape[:2], -1)).permute(2, 0, 1)
    seen = operator(planes.float()).permute(1, 2, 0).numpy()
    seen = seen + random.normal(0.0, degradation.noise or 0.0, seen.shape)
    counts: Image = np.clip(np.rint(seen), 0, 255).astype(np.uint8)
    return counts.reshape(height, width, *image.shape[2:])


def restored_first(
    images: Sequence[Image], degradations: Sequence[Degradation], strength: float
) -> list[Image]:
    """
    Return visible and thermal images without noise and in one size, as OpenCV makes them.

    :param strength: of non-local means, as a part of the noise's deviation; 0 leaves it out.
    """
    size = (images[0].shape[1], images[0].shape[0])
    restored = []
    for image, degradation in zip(images, degradations, strict=True):
        level = strength * (degradation.noise or 0.0)
        if level and image.ndim == 3:
            image = cv2.fastNlMeansDenoisingColored(image, None, level, level, 7, 21)
        elif level:
            image = cv2.fastNlMeansDenoising(image, None, level, 7, 21)
        if image.shape[:2] != size[::-1]:
            image = cv2.resize(image, size, interpolation=cv2.INTER_CUBIC)
        restored.append(image)
    return restored


def result_tables(evaluation: Evaluation) -> list[Table]:
    """Return a table for each metric, and one of the time."""
    cases = evaluation.cases
    tables = []
    for metric in METRICS:
        rows = []
        for case in cases:
            values = [evaluation.best(case, method, metric)[1] for method in METHODS]
            rows.append((str(case), *(f'{value:.4f}' for value in values)))
        tables.append(Table(f'{metric} \u2191', ('visible; thermal', *METHODS), tuple(rows)))
    rows = []
    for case in cases:
        times = [evaluation.milliseconds(case, method) for method in METHODS]
        rows.append((str(case), *(f'{value:.0f}' for value in times)))
    chosen = [
        f'{case}: ' + ', '.join(f'{chosen_strength(evaluation, case, m)} ({m})' for m in METRICS)
        for case in cases
        if len(case.strengths) > 1
    ]
    notes = [caption(evaluation)]
    if chosen:
        notes.append(
            "Restored first, strength of non-local means as a part of the noise's deviation: "
            f'{"; ".join(chosen)}.'
        )
    tables.append(
        Table(
            'ms, median over the pairs', ('visible; thermal', *METHODS), tuple(rows), tuple(notes)
        )
    )
    return tables


def chosen_strength(evaluation: Evaluation, case: Case, metric: str) -> str:
    """Return the strength that serves best."""
    return evaluation.best(case, RESTORED, metric)[0].removeprefix(RESTORED).strip()


def caption(evaluation: Evaluation) -> str:
    """Return what the tables were measured on."""
    count = len(evaluation.pairs)
    text = f'{count} pair{"s" if count > 1 else ""}'
    if evaluation.skipped:
        text += f', {len(evaluation.skipped)} skipped'
    return f'{text}; noise and strength in grey levels, each colour channel has its own noise.'


def document(evaluation: Evaluation, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return everything, for JSON."""
    return {
        'pairs': evaluation.pairs,
        'skipped': evaluation.skipped,
        'fuser': dict(facts),
        'cases': {
            str(case): {
                method: {
                    **{m: [score.values[m] for score in scores] for m in METRICS},
                    'ms': [score.milliseconds for score in scores],
                }
                for (name, method), scores in evaluation.scores.items()
                if name == str(case)
            }
            for case in evaluation.cases
        },
    }


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; ends the program with code 2 where it makes no sense."""
    parser = argparse.ArgumentParser(
        prog='evaluate_restoration',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add('directory', type=Path, metavar='DIR', help='folder of image pairs')
    add(
        '--degrade',
        nargs='+',
        type=case_argument,
        default=[Case.parse(text) for text in DEFAULT_CASES],
        metavar='TEXT',
        help='rows of the tables, each a degradation as the parameters take it, for both images, '
        f"or 'VISIBLE; THERMAL'; default: {', '.join(map(repr, DEFAULT_CASES))}",
    )
    add('--limit', type=positive, metavar='PAIRS', help='take the first pairs only')
    add_fusion_options(parser)
    add('--prior', metavar='NAME|FILE', help='the denoiser, default: compact')
    add('-o', '--output', type=Path, metavar='FILE', help='write the values of every pair as JSON')
    return parser.parse_args(argv)


def evaluate(args: argparse.Namespace) -> int:
    """
    Do what the command line asks for.

    :return: exit code.
    :raises UsageError: nothing can be done.
    :raises ImagePairError: there are no pairs.
    :raises OSError: the result cannot be written.
    """
    if args.output and not args.output.absolute().parent.is_dir():
        raise UsageError(
            f'there is no folder {args.output.parent}: make it, or choose another --output'
        )
    pairs = find_pairs(args.directory)[: args.limit]
    parameters = load_parameters(args.params) if args.params else {}
    parameters = with_overrides(parameters, {**fusion_overrides(args), 'prior': args.prior})
    ranges = thermal_range(parameters)
    try:
        fuser = load_fuser(parameters, fusion_settings(parameters))
    except (TypeError, ValueError) as error:
        raise UsageError(f'the fusion cannot be set up: {error}') from error
    # One row a case, however often it is named.
    evaluation = Evaluation(fuser, ranges, list(dict.fromkeys(args.degrade)))
    interruption = Interruption()
    with interruption.on_sigint(lambda: report(INTERRUPTED)):
        evaluation.run(pairs, interruption)
        if not evaluation.pairs and interruption.requested:
            report('evaluate_restoration: interrupted before there was a result')
            return 130
        if not evaluation.pairs:
            raise UsageError(f'none of the {len(pairs)} pairs of {args.directory} could be used')
        facts = fuser.describe()
        for table in result_tables(evaluation):
            print(table.markdown(), end='\n\n')
        print(', '.join(f'{key} {value}' for key, value in facts.items()))
        if args.output:
            text = json.dumps(document(evaluation, facts), indent=1)
            args.output.write_text(f'{text}\n', encoding='utf-8')
    if interruption.requested:
        return 130
    return 1 if evaluation.skipped else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; see the module's description."""
    args = parse_arguments(argv)
    try:
        return evaluate(args)
    except (UsageError, ImagePairError, OSError, ImportError) as error:
        report(f'evaluate_restoration: {error}')
        return 2
    except KeyboardInterrupt:
        report('evaluate_restoration: interrupted, nothing more is written')
        return 130


if __name__ == '__main__':
    sys.exit(main())
