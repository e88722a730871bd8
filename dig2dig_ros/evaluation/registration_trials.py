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

"""Registrations whose truth is known, because the thermal images were warped on purpose."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
import math
import time
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dig2dig_ros.evaluation.options import UsageError
from dig2dig_ros.evaluation.tables import Table
from dig2dig_ros.images.alignment import align, corner_distance, Model
from dig2dig_ros.images.alignment_search import centred_guess, SearchRange
from dig2dig_ros.images.geometry import (
    Array,
    resizing,
    similarity,
    Size,
    size_of,
    to_unit_image,
    translation,
)

# A visible and a thermal image.
Images = tuple[NDArray[Any], NDArray[Any]]

# A trial has failed if the corners are off by more than this, in thermal pixels.
FAILURE = 5.0
# The search reaches farther than the draws: a user's first guess is only just good enough.
_ROOM = 1.25
# How far off the images of a data set that calls itself registered may be.
_NEAR = SearchRange(math.radians(1.5), 1.035, 0.05)


@dataclass(frozen=True)
class Trial:
    """
    One registration of a thermal camera in a known place.

    :param before: corner distance of the first guess from the nominal truth, in thermal pixels.
    :param nominal: that of the registration.
    :param relative: its distance from the reference; None for images that do not belong together.
    :param seconds: per pair.
    """

    pairs: tuple[str, ...]
    before: float
    nominal: float
    relative: float | None
    trusted: bool
    reference_trusted: bool
    seconds: float

    @property
    def error(self) -> float:
        """What decides whether it has failed."""
        return self.nominal if self.relative is None else self.relative


@dataclass(frozen=True)
class Draws:
    """
    What homographies are drawn, uniformly.

    :param rotation: degrees to either side.
    :param scale: the largest factor; its inverse is the smallest.
    :param shift: part of the width and of the height, to either side.
    :param perspective: the largest change of scale at the ends of the longer side.
    """

    rotation: float
    scale: float
    shift: float
    perspective: float

    def homography(self, size: Size, random: np.random.Generator) -> Array:
        """Return (3, 3) from pixels of the new camera to those of an image of that size."""
        turn = math.radians(random.uniform(-self.rotation, self.rotation))
        scale = math.exp(random.uniform(-1, 1) * math.log(self.scale))
        perspective = np.eye(3)
        perspective[2, :2] = random.uniform(-self.perspective, self.perspective, 2)
        shift = translation(*random.uniform(-self.shift, self.shift, 2) * size)
        unit = to_unit_image(size)
        about = np.linalg.inv(unit)
        return np.asarray(shift @ about @ perspective @ similarity(turn, scale) @ unit)

    @property
    def search(self) -> SearchRange:
        """Where the registration looks for them."""
        return SearchRange(
            math.radians(max(self.rotation, 1.0) * _ROOM),
            max(self.scale, 1.02) ** _ROOM,
            max(self.shift, 0.02) * _ROOM,
        )


def another_camera(
    thermal: NDArray[Any], homography: Array, size: Size
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """
    Return what a thermal camera in another place would see, and where that is known.

    :param homography: (3, 3) from its pixels to those of the image.
    :param size: (width, height) of its images.
    """
    scale = math.sqrt(abs(float(np.linalg.det(homography[:2, :2]))))
    if scale > 1:
        # Its larger pixels average over this.
        thermal = cv2.GaussianBlur(thermal, (0, 0), max(0.4 * math.sqrt(scale**2 - 1), 0.1))
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    image = cv2.warpPerspective(thermal, homography, size, flags=flags)
    whole = np.full(thermal.shape[:2], 255, np.uint8)
    known = cv2.warpPerspective(whole, homography, size, flags=flags) == 255
    return np.asarray(image), np.asarray(known)


def common_crop(pairs: Sequence[Images]) -> list[Images]:
    """
    Crop pairs about their centres to the size that all of them have.

    :raises UsageError: the pairs differ in size, and so do the images within one.
    """
    if len({(size_of(visible), size_of(thermal)) for visible, thermal in pairs}) == 1:
        return list(pairs)
    if any(size_of(visible) != size_of(thermal) for visible, thermal in pairs):
        raise UsageError(
            'pairs of several sizes whose visible and thermal images differ in size cannot be '
            'grouped: leave out --group, --one-camera and --mismatched'
        )
    width, height = (min(size_of(visible)[axis] for visible, _ in pairs) for axis in (0, 1))

    def crop(image: NDArray[Any]) -> NDArray[Any]:
        left, top = (image.shape[1] - width) // 2, (image.shape[0] - height) // 2
        return np.ascontiguousarray(image[top : top + height, left : left + width])

    return [(crop(visible), crop(thermal)) for visible, thermal in pairs]


def reference(pairs: Sequence[Images]) -> tuple[Array, bool]:
    """Return the homography of pairs as they are, thermal to visible, and if it is trusted."""
    guess = resizing(size_of(pairs[0][1]), size_of(pairs[0][0]))
    found = align(pairs, guess=guess, search=_NEAR)
    return found.thermal_to_visible, found.trusted


def run_trial(
    names: Sequence[str],
    pairs: Sequence[Images],
    known: tuple[Array, bool] | None,
    draws: Draws,
    size: Size | None,
    random: np.random.Generator,
    model: Model = 'homography',
) -> Trial:
    """
    Move the thermal camera, and register it.

    :param known: the reference; None if the images do not belong together.
    :param size: (width, height) of the moved camera's images; None leaves them as they are.
    :param model: what to estimate.
    """
    visible_size, thermal_size = size_of(pairs[0][0]), size_of(pairs[0][1])
    size = size or thermal_size
    moved = draws.homography(thermal_size, random) @ resizing(size, thermal_size)
    truth = resizing(thermal_size, visible_size) @ moved
    seen = [another_camera(thermal, moved, size) for _, thermal in pairs]
    started = time.perf_counter()
    found = align(
        [(visible, image) for (visible, _), (image, _) in zip(pairs, seen, strict=True)],
        search=draws.search,
        thermal_mask=seen[0][1],
        model=model,
    )
    seconds = (time.perf_counter() - started) / len(pairs)
    estimate = found.thermal_to_visible
    return Trial(
        pairs=tuple(names),
        before=corner_distance(centred_guess(visible_size, size), truth, size),
        nominal=corner_distance(estimate, truth, size),
        relative=None if known is None else corner_distance(estimate, known[0] @ moved, size),
        trusted=found.trusted,
        reference_trusted=known is None or known[1],
        seconds=seconds,
    )


def summary(trials: Sequence[Trial], args: argparse.Namespace) -> Table:
    """Return the table of all trials and of the trusted ones, with an explanation."""
    rows = []
    for name, some in (('all', trials), ('trusted', [t for t in trials if t.trusted])):
        cells = [name, str(len(some))]
        relative = [t.relative for t in some if t.relative is not None]
        for values in ([t.before for t in some], [t.nominal for t in some], relative):
            cells += [f'{np.percentile(values, q):.2f}' if values else '' for q in (50, 90)]
        # The worst relative error, or nominal if there are no others.
        cells.append(f'{max(t.error for t in some):.2f}' if some else '')
        rows.append(tuple(cells))
    group = f', groups of {args.group} pairs' if args.group > 1 else ''
    title = (
        f'{len(trials)} trials{group}; rotation up to {args.rotation:g} degrees, scale '
        f'{1 / args.scale:.2f} to {args.scale:.2f}, shift up to {args.shift:.0%}, perspective up '
        f'to {args.perspective:.0%}, seed {args.seed}; estimated: a {args.model}'
    )
    header = ('trials', 'number', 'before: median', '90 %', 'nominal: median', '90 %',
              'relative: median', '90 %', 'worst')  # fmt: skip
    return Table(title, header, tuple(rows), tuple(_notes(trials, args)))


def _notes(trials: Sequence[Trial], args: argparse.Namespace) -> list[str]:
    """Return what the columns mean, and how often trust was right."""
    if args.mismatched:
        reference_note = (
            'Each visible image has the thermal image of another pair: every registration is '
            'wrong, and all of them have to be flagged.'
        )
    else:
        source = 'pairs of the set together' if args.one_camera else 'same pairs'
        untrusted = sum(not t.reference_trusted for t in trials)
        reference_note = (
            f'Relative: compared with the homography of the {source} before the thermal images '
            f'were warped, which is itself untrusted in {untrusted} of {len(trials)} trials.'
        )
    failures = [t for t in trials if t.error > FAILURE]
    good = [t for t in trials if t.error <= FAILURE]
    flagged = sum(not t.trusted for t in trials)
    kind = 'nominal' if args.mismatched else 'relative'
    return [
        'Corner distances, root mean square over the four, in thermal pixels. Before: of the '
        'first guess, that both cameras have one view. Nominal: compared with the homography that '
        "was drawn, so it includes errors of the data set's own registration.",
        reference_note,
        f'Flagged as untrusted: {flagged} of {len(trials)} ({flagged / len(trials):.0%}). '
        f'Failures ({kind} error above {FAILURE:g} pixels): {len(failures)}, of them not '
        f'flagged: {sum(t.trusted for t in failures)}. Flagged without being a failure: '
        f'{sum(not t.trusted for t in good)} of {len(good)}. '
        f'{np.mean([t.seconds for t in trials]):.2f} seconds a pair.',
    ]
