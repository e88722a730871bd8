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

"""What declaring a degradation gains: fusions of degraded pairs, compared with clean ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
import time
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from dig2dig_ros.evaluation.metrics import luma, qabf, ssim
from dig2dig_ros.evaluation.scores import ScoreBook, ScoreFile, to_8_bits
from dig2dig_ros.evaluation.tables import Table
from dig2dig_ros.fusion.degradation import Degradation, DegradationError
from dig2dig_ros.images.image_pairs import ImagePair, load_pair
from dig2dig_ros.images.thermal_range import ThermalRange

# Importing torch takes seconds, so a wrong command line is reported before.
if TYPE_CHECKING:
    from dig2dig_ros.fusion.fuser import Fuser

Image = NDArray[np.uint8]
CLEAN, DEGRADED, RESTORED = 'clean', 'degraded', 'restored first'
DEFAULT, DECLARED, ESTIMATED = 'not declared', 'declared', 'noise estimated'
METHODS = (CLEAN, DEGRADED, RESTORED, DEFAULT, DECLARED, ESTIMATED)
METRICS = ('SSIM', 'Qabf')
# Strengths of non-local means, as parts of the noise's deviation.
_STRENGTHS = (0.5, 0.75, 1.0, 1.5)
_SEED = 0


@dataclass(frozen=True)
class Case:
    """The degradations of the two cameras."""

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
            raise DegradationError(f'{text!r} has more than two degradations: give one or two')
        case = cls(Degradation.parse(parts[0]), Degradation.parse(parts[-1]))
        if case.visible.factor != 1:
            raise DegradationError(
                f'{text!r} reduces the visible image, whose pixels the fused image has: write '
                "'none; x2' to reduce the thermal one"
            )
        if None in (case.visible.noise, case.thermal.noise):
            raise DegradationError(f'{text!r} has noise auto: give the noise as a number')
        return case

    def __str__(self) -> str:
        """Return what :meth:`parse` reads."""
        if self.visible == self.thermal:
            return str(self.visible)
        return f'{self.visible}; {self.thermal}'

    def strengths(self) -> dict[str, float]:
        """Return the strengths of non-local means to try, by the names of the methods."""
        if not (self.visible.noise or self.thermal.noise):
            return {RESTORED: 0.0}
        return {f'{RESTORED} {strength:g}': strength for strength in _STRENGTHS}

    def best(self, scores: ScoreBook, method: str, metric: str) -> str:
        """Return the method, or the best of its strengths."""
        names = self.strengths() if method == RESTORED else (method,)
        return max(names, key=lambda name: scores.column(name, metric).mean())


class RestorationStudy:
    """
    Degrades pairs, fuses them in all ways, and keeps the scores.

    :param fuser: each case adds its declarations to the settings.
    :param ranges: maps thermal counts.
    :param cases: rows of the tables.
    :param lines: takes the scores of every pair as well.
    :param crop: rows at the top and bottom of thermal images that are left out.
    """

    def __init__(
        self,
        fuser: Fuser,
        ranges: ThermalRange,
        cases: Iterable[Case],
        lines: ScoreFile | None = None,
        crop: Sequence[int] = (0, 0),
    ) -> None:
        self._fuser = fuser
        self._ranges = ranges
        self._lines = lines
        self._crop = crop
        self._scores = {
            case: ScoreBook(
                (CLEAN, DEGRADED, *case.strengths(), DEFAULT, DECLARED, ESTIMATED), METRICS
            )
            for case in cases
        }

    def take(self, pair: ImagePair, index: int) -> None:
        """
        Degrade and fuse a pair in all ways.

        :param index: of the pair; its noise is always the same.
        :raises ValueError, RuntimeError, OSError, cv2.error: the pair cannot be used.
        """
        visible, counts = load_pair(pair, same_size=True, thermal_crop=self._crop)
        thermal = to_8_bits(self._ranges(counts, 0.0))
        if (visible == visible[:, :, :1]).all():
            # Noise must not colour a grey image.
            visible = np.ascontiguousarray(visible[:, :, 0])
        found = {case: self._compare(case, visible, thermal, index) for case in self._scores}
        for case, (values, milliseconds) in found.items():
            self._scores[case].add(values, milliseconds)
            if self._lines is not None:
                for method, row in values.items():
                    self._lines.add([pair.name, case, method], row, [milliseconds[method]])

    def _compare(
        self, case: Case, visible: Image, thermal: Image, index: int
    ) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
        """Return the metrics of all methods, and their times in milliseconds."""
        height, width = (int(side / case.thermal.factor) for side in thermal.shape)
        scene = case.thermal.scene_size(height, width)
        clean = [
            np.ascontiguousarray(image[: scene[0], : scene[1]]) for image in (visible, thermal)
        ]
        declared = (case.visible, case.thermal)
        seen = [
            degrade(image, degradation, np.random.default_rng((_SEED, index, source)))
            for source, (image, degradation) in enumerate(zip(clean, declared, strict=True))
        ]

        def fuse(images: Sequence[Image], visible: str = 'none', thermal: str = 'none') -> Image:
            settings = replace(
                self._fuser.settings, visible_degradation=visible, thermal_degradation=thermal
            )
            return luma(self._fuser.fuse(*images, settings=settings).image)

        def restored(strength: float) -> Image:
            return fuse(restored_first(seen, declared, strength))

        chosen = self._fuser.settings
        estimated = [str(replace(degradation, noise=None)) for degradation in declared]
        methods: dict[str, Callable[[], Image]] = {
            CLEAN: lambda: fuse(clean),
            DEGRADED: lambda: fuse(seen),
            **{name: partial(restored, each) for name, each in case.strengths().items()},
            DEFAULT: lambda: fuse(seen, chosen.visible_degradation, chosen.thermal_degradation),
            DECLARED: lambda: fuse(seen, *map(str, declared)),
            ESTIMATED: lambda: fuse(seen, *estimated),
        }
        target = fuse(clean)
        values, milliseconds = {}, {}
        for name, method in methods.items():
            started = time.perf_counter()
            fused = method()
            milliseconds[name] = 1e3 * (time.perf_counter() - started)
            # SSIM is the sum over two sources.
            scores = (ssim(fused, target, target) / 2, qabf(fused, luma(clean[0]), clean[1]))
            values[name] = dict(zip(METRICS, scores, strict=True))
        return values, milliseconds

    def tables(self) -> list[Table]:
        """Return a table for each metric, and one of the time."""
        tables = []
        for metric in METRICS:
            rows = []
            for case, scores in self._scores.items():
                names = [case.best(scores, method, metric) for method in METHODS]
                means = [scores.column(name, metric).mean() for name in names]
                rows.append((str(case), *(f'{mean:.4f}' for mean in means)))
            tables.append(Table(f'{metric} \u2191', ('visible; thermal', *METHODS), tuple(rows)))
        rows, chosen = [], []
        for case, scores in self._scores.items():
            names = [case.best(scores, method, 'SSIM') for method in METHODS]
            medians = scores.median_milliseconds()
            rows.append((str(case), *(f'{medians[name]:.0f}' for name in names)))
            strengths = case.strengths()
            if len(strengths) > 1:
                best = {m: strengths[case.best(scores, RESTORED, m)] for m in METRICS}
                chosen.append(f'{case}: {", ".join(f"{s:g} ({m})" for m, s in best.items())}')
        notes = ['Noise and strength in grey levels; each colour channel has its own noise.']
        if chosen:
            notes.append(
                "Restored first: strength of non-local means relative to the noise's deviation: "
                f'{"; ".join(chosen)}.'
            )
        header = ('visible; thermal', *METHODS)
        return [*tables, Table('ms, median over the pairs', header, tuple(rows), tuple(notes))]


def degrade(image: Image, degradation: Degradation, random: np.random.Generator) -> Image:
    """
    Return the image of a scene from an 8-bit camera with this degradation.

    :param image: (H, W) or (H, W, 3), of a size that the degradation maps to whole pixels.
    :return: (h, w) or (h, w, 3); noise is independent in all channels.
    """
    import torch

    from dig2dig_ros.fusion.observation import observe

    factor = degradation.factor
    height, width = (int(side / factor) for side in image.shape[:2])
    # The operator is that of an image of this size, whatever is in it.
    blank = torch.zeros(1, 1, height, width)
    operator = observe(degradation, blank, 0.0).operator
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
