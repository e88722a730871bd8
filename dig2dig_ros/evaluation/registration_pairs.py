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
The pairs to estimate a registration from: a folder, a bag, or live topics.

Messages go through the pipeline of the fusion node up to the fusion.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dig2dig_ros.evaluation.bag_reader import BagReader
from dig2dig_ros.evaluation.bag_topics import encodings_in, find_sources
from dig2dig_ros.evaluation.bag_types import BagError, COMPRESSED_IMAGE_TYPE, IMAGE_TYPE
from dig2dig_ros.evaluation.options import report, thermal_crop, thermal_range, UsageError
from dig2dig_ros.evaluation.replay import stamp_text
from dig2dig_ros.images.geometry import Size, size_of
from dig2dig_ros.images.image_pairs import find_pairs, ImagePairError, load_pair
from dig2dig_ros.images.luma import grey
from dig2dig_ros.images.thermal_range import ThermalRangeError
from dig2dig_ros.streams.pairing import PairingError, SOURCES
from dig2dig_ros.streams.pipeline import Pipeline
from dig2dig_ros.streams.preparation import PreparationError, Work

# Frames as the cameras see them, each by itself, as those that are kept are far apart.
_UNREGISTERED = {
    'missing_modality': 'wait',
    'thermal_range_smoothing': 0.0,
    'thermal_to_visible': '',
    'extrinsics': '',
}

# Scenes are compared by their edges, on images of this longer side, and by fields of them.
_SIDE = 96
_FIELDS = (8, 6)
# Fields with stronger edges than this, of the range of the image, are no better.
_STRONG_EDGE = 0.1
# The least range of an image in [0, 1] that is no noise.
_LEAST_RANGE = 0.04
# Frames with less texture than this part of the median show too little.
_LEAST_TEXTURE = 0.25
_NOTHING = 1e-4
# Frames that differ by less, from 0 to 1, are one and the same.
_SAME = 1e-3
# Frames that differ by more are different enough.
_DIFFERENT = 0.5


@dataclass(frozen=True)
class LoadedPair:
    """
    One visible and one thermal image of an instant.

    :param name: of its files, or its visible stamp in seconds.
    :param visible: (H, W) or (H, W, 3) blue-green-red, uint8 or uint16.
    :param thermal: (h, w) float32 in [0, 1].
    """

    name: str
    visible: NDArray[Any]
    thermal: NDArray[np.float32]


@dataclass(frozen=True)
class CalibrationImages:
    """
    What there is to calibrate with.

    :param pairs: some, spread evenly over the source, in its order.
    :param total: how many pairs the source has.
    :param place: the source, in words.
    :param infos: camera_info by camera, of those that have one.
    :param rectified: cameras whose images are rectified already, as the names of their topics
        (``image_rect...``) say.
    :raises UsageError: the pairs differ in size.
    """

    pairs: tuple[LoadedPair, ...]
    total: int
    place: str
    infos: Mapping[str, Any] = field(default_factory=dict)
    rectified: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        """Check that all pairs are of one size."""
        for source, size in zip(SOURCES, self.sizes, strict=True):
            for pair in self.pairs:
                other = size_of(getattr(pair, source))
                if other != size:
                    raise UsageError(
                        f'the {source} images differ in size: {self.pairs[0].name} has '
                        f'{size[0]}x{size[1]} pixels, {pair.name} has {other[0]}x{other[1]}; a '
                        'registration is for one pair of cameras, each at one resolution'
                    )

    @property
    def sizes(self) -> tuple[Size, Size]:
        """(width, height) of the visible and of the thermal images."""
        return size_of(self.pairs[0].visible), size_of(self.pairs[0].thermal)


def from_directory(directory: Path, number: int, values: Mapping[str, Any]) -> CalibrationImages:
    """
    Read pairs from a folder, see :func:`~dig2dig_ros.images.image_pairs.find_pairs`.

    :param number: of pairs to read at most.
    :param values: the node's parameters, for the thermal range and crop.
    :raises ImagePairError: it holds no pairs, or none that can be read.
    :raises UsageError: the pairs differ in size.
    """
    found = find_pairs(directory)
    places = np.linspace(0, len(found) - 1, min(number, len(found))).round().astype(int)
    pairs = []
    for place in places:
        try:
            visible, thermal = load_pair(found[place], thermal_crop=thermal_crop(values))
            mapped = thermal_range(values)(thermal, 0.0)
        except (ImagePairError, ThermalRangeError) as error:
            report(f'left out {found[place].name}: {error}')
            continue
        pairs.append(LoadedPair(found[place].name, visible, mapped))
    if not pairs:
        raise ImagePairError(f'none of the {len(places)} pairs of {directory} can be read')
    return CalibrationImages(tuple(pairs), len(found), str(directory))


def from_bag(
    path: Path,
    number: int,
    values: Mapping[str, Any],
    visible: str | None = None,
    thermal: str | None = None,
) -> CalibrationImages:
    """
    Read pairs of a bag, in one pass, whatever its length.

    :param number: of pairs to hold at most.
    :param values: the node's parameters.
    :param visible: topic of the visible images, by default found by name; ``thermal`` likewise.
    :raises BagError: the bag, or what is asked of it, cannot be read.
    :raises UsageError: it holds no pairs, or they differ in size.
    """
    with BagReader(path) as reader:
        encoding_of = encodings_in(reader)
        topics = find_sources(reader.topics, visible, thermal, encoding_of=encoding_of)
        report(f'{path}: using {topics}')
        source_of = {topics.visible: 'visible', topics.thermal: 'thermal'}
        cameras_of = topics.cameras_of_info()
        pairs = PairCollector({s: topic for topic, s in source_of.items()}, number, values)
        for record in reader.records([*source_of, *cameras_of]):
            source = source_of.get(record.topic)
            try:
                message = reader.decode(record)
            except BagError as error:
                if source is not None:
                    pairs.pipeline.reject(source, str(error))
                continue
            if source is None:
                for camera in cameras_of[record.topic]:
                    pairs.infos.setdefault(camera, message)
            elif record.type in (IMAGE_TYPE, COMPRESSED_IMAGE_TYPE):
                pairs.take(pairs.pipeline.add(source, message, record.time))
        pairs.take(pairs.pipeline.flush())
        for problem in reader.problems:
            report(problem)
    if not pairs.kept:
        raise UsageError(f'{path} gives no pairs: {pairs.explanation()}')
    return pairs.images(str(path))


class PairCollector:
    """
    Makes pairs of messages and keeps some, spread evenly over whatever comes.

    :param topics: of the visible and of the thermal images, by source.
    :param most: pairs to hold; from there on, every other one goes.
    :param values: the node's parameters.
    :param interval: least time in nanoseconds between the stamps of two pairs that are kept.
    :ivar pipeline: takes the messages.
    :ivar infos: camera_info by camera.
    :raises UsageError: the parameters cannot be used.
    """

    def __init__(
        self, topics: Mapping[str, str], most: int, values: Mapping[str, Any], interval: int = 0
    ) -> None:
        try:
            self.pipeline = Pipeline({**values, **_UNREGISTERED}, topics)
        except PairingError as error:
            raise UsageError(f'the pairing cannot be set up: {error}') from error
        self.infos: dict[str, Any] = {}
        self.kept: list[LoadedPair] = []
        self._most = max(2, most)
        self._interval = interval
        self._stride = 1
        self._total = 0
        self._last: int | None = None
        self._refusal = ''

    def take(self, works: Iterable[Work]) -> None:
        """Keep of the pairs that the pipeline made what is wanted."""
        for work in works:
            self._total += 1
            stamp = work.stamps[0]
            near = self._last is not None and abs(stamp - self._last) < self._interval
            if near or (self._total - 1) % self._stride:
                continue
            try:
                prepared = self.pipeline.prepare(work, self.pipeline.values)
            except PreparationError as error:
                self._refusal = self._refusal or str(error)
                continue
            self._last = stamp
            self.kept.append(LoadedPair(stamp_text(stamp), *prepared.images))
            if len(self.kept) > self._most:
                # Every other one still covers the whole.
                del self.kept[1::2]
                self._stride *= 2

    def images(self, place: str) -> CalibrationImages:
        """Return what was kept; ``place`` says where from. Warn where the clocks differ."""
        stamps = self.pipeline.attendance.stamps
        for text in stamps.clock_warnings(self.pipeline.values, ()):
            report(f'warning: {text}')
        rectified = frozenset(
            source
            for source, topic in self.pipeline.topics.items()
            if topic.removesuffix('/compressed').rpartition('/')[2].startswith('image_rect')
        )
        return CalibrationImages(tuple(self.kept), self._total, place, self.infos, rectified)

    def explanation(self) -> str:
        """Return why no pair came of the messages, in one sentence."""
        received = self.pipeline.statistics.images_received
        silent = [source for source in SOURCES if not received[source]]
        if silent:
            names = ' and '.join(f'{source} ({self.pipeline.topics[source]})' for source in silent)
            heard = [f'{number} {source}' for source, number in received.items() if number]
            others = f', but {" and ".join(heard)} images' if heard else ''
            return f'nothing came on the topic of the camera {names}{others}; check the names'
        reasons = [*self.pipeline.statistics.examples.values(), self._refusal]
        if reason := next(filter(None, reasons), ''):
            return reason
        drops = self.pipeline.statistics.drops
        for source in SOURCES:
            count = drops[f'{source} zero stamp']
            if 2 * count > received[source]:
                return (
                    f'{count} of {received[source]} {source} images have no stamp, which the '
                    'driver must set: without one they cannot be paired'
                )
        numbers = ' and '.join(f'{received[source]} {source}' for source in SOURCES)
        values = self.pipeline.values
        advice = self.pipeline.attendance.pairing_advice(values) or 'they have no stamps'
        return f'of {numbers} images no two pair: {advice}, in a file for --preset'


def choose_frames(pairs: Sequence[LoadedPair], number: int) -> tuple[list[int], list[int]]:
    """
    Return the pairs to estimate from, and others to check the estimate with.

    Those that show much in both cameras, in many parts of the image, and each something else:
    one after the other, the one with the highest product of texture and difference from those
    chosen before. Frames that are the same as another one, or show next to nothing, are neither.

    :param number: of pairs to estimate from, at most; likewise of those to check with.
    :return: indices in rising order, twice.
    """
    edges = [(_edges(pair.visible), _edges(pair.thermal)) for pair in pairs]
    texture = np.array([_texture(visible, thermal) for visible, thermal in edges])
    described = [np.stack([_unit(e) for e in both]) for both in edges]
    rich = texture >= max(_LEAST_TEXTURE * float(np.median(texture)), _NOTHING)
    chosen: list[int] = []
    nearest = np.full(len(pairs), _DIFFERENT)
    while len(chosen) < 2 * number:
        worth = np.where(rich & (nearest > _SAME), texture * nearest, -1.0)
        worth[chosen] = -1.0
        best = int(worth.argmax())
        if worth[best] < 0.0:
            break
        chosen.append(best)
        alike = np.array([float((d * described[best]).sum()) / 2 for d in described])
        nearest = np.minimum(nearest, 1.0 - alike)
    return sorted(chosen[:number]), sorted(chosen[number:])


def _edges(image: NDArray[Any]) -> NDArray[np.float32]:
    """Return how strong edges are, on a small image, as parts of its range."""
    full = 1.0 if image.dtype.kind == 'f' else float(np.iinfo(image.dtype).max)
    unit = np.asarray(grey(image) / np.float32(full), np.float32)
    scale = min(1.0, _SIDE / max(unit.shape))
    size = (max(8, round(unit.shape[1] * scale)), max(8, round(unit.shape[0] * scale)))
    small = cv2.resize(unit, size, interpolation=cv2.INTER_AREA)
    low, high = np.percentile(small, (2.0, 98.0))
    small = small / np.float32(max(float(high - low), _LEAST_RANGE))
    gx = cv2.Scharr(small, cv2.CV_32F, 1, 0, scale=1 / 32)
    gy = cv2.Scharr(small, cv2.CV_32F, 0, 1, scale=1 / 32)
    return np.asarray(cv2.GaussianBlur(cv2.magnitude(gx, gy), (0, 0), 1.0), np.float32)


def _texture(visible: NDArray[np.float32], thermal: NDArray[np.float32]) -> float:
    """Return how much both images show in the same fields, the mean over fields."""
    fields = [
        np.minimum(cv2.resize(edges, _FIELDS, interpolation=cv2.INTER_AREA), _STRONG_EDGE)
        for edges in (visible, thermal)
    ]
    return float(np.sqrt(fields[0] * fields[1]).mean())


def _unit(edges: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return edges of any size as a vector of one size, without mean, of length 1."""
    vector = cv2.resize(edges, (64, 48), interpolation=cv2.INTER_AREA)
    vector = vector - vector.mean()
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-9), np.float32)
