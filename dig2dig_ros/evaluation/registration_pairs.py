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
Where the pairs come from that a registration is estimated from, and which of them are worth it.

A directory, a bag or live topics; the messages of the latter two are paired and decoded as the
fusion node does. ROS is imported for live topics only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
import os
from pathlib import Path
import time
from typing import Any, TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from dig2dig_ros.evaluation.bag_reader import BagReader
from dig2dig_ros.evaluation.bag_topics import find_sources
from dig2dig_ros.evaluation.bag_types import (
    BagError,
    CAMERA_INFO_TYPE,
    COMPRESSED_IMAGE_TYPE,
    is_image,
)
from dig2dig_ros.evaluation.image_pairs import find_pairs, ImagePairError, load_pair
from dig2dig_ros.evaluation.options import report, thermal_range, UsageError
from dig2dig_ros.evaluation.replay import stamp_text
from dig2dig_ros.images.thermal_range import ThermalRangeError
from dig2dig_ros.nodes.signals import deferred_signals
from dig2dig_ros.streams.cascade import Cascade
from dig2dig_ros.streams.codec import check, CodecError, decode, decode_compressed
from dig2dig_ros.streams.pairing import Group, PairingError, SOURCES
from dig2dig_ros.streams.preparation import stamp_of
from dig2dig_ros.streams.resources import fast_dds_environment

if TYPE_CHECKING:
    from rclpy.node import Node

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
# When no camera has sent anything for so many seconds, what can be paired is.
_QUIET_SECONDS = 0.3
_PROGRESS_SECONDS = 5.0


@dataclass(frozen=True)
class Pair:
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
class Recording:
    """
    What a source holds.

    :param pairs: some, spread evenly over it, in its order; all of one size.
    :param total: how many pairs it has.
    :param place: what it is, in words.
    :param infos: camera_info by camera, of those that have one.
    :param rectified: cameras whose images are rectified already, as the names of their topics
        (``image_rect...``) say.
    """

    pairs: tuple[Pair, ...]
    total: int
    place: str
    infos: Mapping[str, Any] = field(default_factory=dict)
    rectified: frozenset[str] = frozenset()

    @property
    def sizes(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """(width, height) of the visible and of the thermal images."""
        return size_of(self.pairs[0].visible), size_of(self.pairs[0].thermal)


def size_of(image: NDArray[Any]) -> tuple[int, int]:
    """Return (width, height)."""
    return image.shape[1], image.shape[0]


def from_directory(directory: Path, number: int, values: Mapping[str, Any]) -> Recording:
    """
    Read pairs of a directory, see :func:`~dig2dig_ros.evaluation.image_pairs.find_pairs`.

    :param number: of pairs to read at most.
    :param values: the node's parameters, for the thermal range.
    :raises ImagePairError: it holds no pairs, or none that can be read.
    :raises UsageError: the pairs differ in size.
    """
    found = find_pairs(directory)
    places = np.linspace(0, len(found) - 1, min(number, len(found))).round().astype(int)
    pairs = []
    for place in places:
        try:
            visible, thermal = load_pair(found[place])
            mapped = thermal_range(values)(thermal, 0.0)
        except (ImagePairError, ThermalRangeError) as error:
            report(f'left out {found[place].name}: {error}')
            continue
        pairs.append(Pair(found[place].name, visible, mapped))
    if not pairs:
        raise ImagePairError(f'none of the {len(places)} pairs of {directory} can be read')
    _require_one_size(pairs)
    return Recording(tuple(pairs), len(found), str(directory))


def from_bag(
    path: Path,
    number: int,
    values: Mapping[str, Any],
    visible: str | None = None,
    thermal: str | None = None,
) -> Recording:
    """
    Read pairs of a bag, in one pass, whatever its length.

    The camera_info of an image topic is taken from the topic of that name beside it.

    :param number: of pairs to hold at most.
    :param values: the node's parameters, for pairing and thermal range.
    :param visible: topic of the visible images; found by its name where it is not given.
    :param thermal: likewise.
    :raises BagError: the bag, or what is asked of it, cannot be read.
    :raises UsageError: it holds no pairs, or they differ in size.
    """
    with BagReader(path) as reader:
        topics = find_sources(reader.topics, visible, thermal)
        by_source = {'visible': topics.visible, 'thermal': topics.thermal}
        source_of = {topic: source for source, topic in by_source.items()}
        info_of = {}
        for source, topic in by_source.items():
            name = _beside(topic, 'camera_info')
            if name in reader.topics and reader.topics[name].type == CAMERA_INFO_TYPE:
                info_of[name] = source
        pairing = _Pairing(values, by_source)
        spread = _Spread(number)
        infos: dict[str, Any] = {}
        for record in reader.records([*source_of, *info_of]):
            try:
                message = reader.decode(record)
            except BagError as error:
                pairing.drop(f'{source_of.get(record.topic, "camera_info")} malformed', error)
                continue
            if record.topic in info_of:
                infos.setdefault(info_of[record.topic], message)
            elif is_image(reader.topics[record.topic]):
                source = source_of[record.topic]
                compressed = record.type == COMPRESSED_IMAGE_TYPE
                for group in pairing.add(source, message, compressed):
                    spread.add(group, pairing.decoded)
        for group in pairing.flush():
            spread.add(group, pairing.decoded)
        for problem in reader.problems:
            report(problem)
    if not spread.kept:
        raise UsageError(f'{path} gives no pairs: {pairing.explanation()}')
    _require_one_size(spread.kept)
    rectified = frozenset(s for s, topic in by_source.items() if _is_rectified(topic))
    return Recording(tuple(spread.kept), spread.seen, str(path), infos, rectified)


class LiveTopics:
    """
    Listens to ``visible/image_raw`` and ``thermal/image_raw`` until it has enough pairs.

    The images may be raw or compressed; of a topic that is there in both transports the raw one is
    taken. The camera_info is ``visible/camera_info`` and ``thermal/camera_info``, or, where an
    image topic is remapped and its camera_info is not, the one beside the image.

    :param arguments: for ROS, ``--ros-args`` and what follows it.
    :param values: the node's parameters, for pairing and thermal range.
    :param interval: least time in seconds between the stamps of two pairs that are kept.
    """

    def __init__(
        self, arguments: Sequence[str], values: Mapping[str, Any], interval: float
    ) -> None:
        self._arguments = list(arguments)
        self._values = values
        self._interval = round(interval * 1e9)
        self._topics: dict[str, str] = {}
        self._pairing = _Pairing(values, self._topics)
        self._infos: dict[str, Any] = {}
        self._pairs: list[Pair] = []
        self._paired = 0
        self._last: int | None = None
        self._arrival = time.monotonic()

    def collect(self, number: int, timeout: float) -> Recording:
        """
        Listen until there are ``number`` pairs, or ``timeout`` seconds have passed.

        :raises UsageError: no pair came, or the images changed their size meanwhile.
        :raises ImportError: there is no ROS.
        """
        # Images fit into shared memory only with a larger segment.
        os.environ.update(fast_dds_environment())
        import rclpy
        from rclpy.context import Context
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.node import Node
        from rclpy.signals import SignalHandlerOptions

        context = Context()
        with deferred_signals():
            # Without handlers of its own, Ctrl-C is Python's KeyboardInterrupt.
            rclpy.init(
                args=self._arguments,
                context=context,
                signal_handler_options=SignalHandlerOptions.NO,
            )
            executor = SingleThreadedExecutor(context=context)
            node = Node('calibrate_registration', context=context)
            executor.add_node(node)
        try:
            self._listen(node, executor, number, timeout)
        finally:
            with deferred_signals():
                executor.shutdown()
                node.destroy_node()
                rclpy.shutdown(context=context)
        if not self._pairs:
            raise UsageError(f'no pairs within {timeout:g} s: {self._pairing.explanation()}')
        if len(self._pairs) < number:
            report(
                f'only {len(self._pairs)} of {number} pairs came within {timeout:g} s; going on '
                'with them'
            )
        _require_one_size(self._pairs)
        rectified = frozenset(s for s, topic in self._topics.items() if _is_rectified(topic))
        place = ' and '.join(self._topics[source] for source in SOURCES)
        return Recording(tuple(self._pairs), self._paired, place, self._infos, rectified)

    def _listen(self, node: Node, executor: Any, number: int, timeout: float) -> None:
        for source in SOURCES:
            self._topics[source] = node.resolve_topic_name(f'{source}/image_raw')
        report(f'listening to {" and ".join(self._topics.values())}, raw or compressed')
        end = time.monotonic() + timeout
        tell = time.monotonic() + _PROGRESS_SECONDS
        waiting = list(SOURCES)
        while len(self._pairs) < number and (left := end - time.monotonic()) > 0:
            with deferred_signals():
                waiting = [camera for camera in waiting if not self._subscribe(node, camera)]
                executor.spin_once(timeout_sec=min(left, 0.1))
                if time.monotonic() - self._arrival > _QUIET_SECONDS:
                    self._take(self._pairing.settle())
            if time.monotonic() > tell:
                tell += _PROGRESS_SECONDS
                report(f'{len(self._pairs)} of {number} pairs')

    def _subscribe(self, node: Node, source: str) -> bool:
        """Subscribe to what is published of a camera, if anything is."""
        from rclpy.qos import qos_profile_sensor_data
        from sensor_msgs.msg import CameraInfo, CompressedImage, Image

        # By the names as they are written, which is what remappings are about.
        name = f'{source}/image_raw'
        for topic, kind in ((name, Image), (f'{name}/compressed', CompressedImage)):
            full = node.resolve_topic_name(topic)
            if topic.endswith('/compressed') and full == node.resolve_topic_name(
                topic, only_expand=True
            ):
                full = f'{self._topics[source]}/compressed'
            if not node.count_publishers(full):
                continue
            compressed = kind is CompressedImage

            def on_image(message: Any, compressed: bool = compressed) -> None:
                self._on_image(source, message, compressed)

            node.create_subscription(kind, full, on_image, qos_profile_sensor_data)
            info = f'{source}/camera_info'
            place = node.resolve_topic_name(info)
            if place == node.resolve_topic_name(info, only_expand=True):
                place = _beside(self._topics[source], 'camera_info')
            node.create_subscription(
                CameraInfo,
                place,
                lambda message: self._infos.setdefault(source, message),
                qos_profile_sensor_data,
            )
            return True
        return False

    def _on_image(self, source: str, message: Any, compressed: bool) -> None:
        self._arrival = time.monotonic()
        self._take(self._pairing.add(source, message, compressed))

    def _take(self, groups: Sequence[Group[_Message]]) -> None:
        for group in groups:
            self._paired += 1
            stamp = group.stamps[0]
            if self._last is not None and abs(stamp - self._last) < self._interval:
                continue
            pair = self._pairing.decoded(group)
            if pair is not None:
                self._last = stamp
                self._pairs.append(pair)


@dataclass(frozen=True)
class _Message:
    message: Any
    compressed: bool


class _Pairing:
    """The pairing and decoding of the node, and why there is nothing where there is nothing."""

    def __init__(self, values: Mapping[str, Any], topics: Mapping[str, str]) -> None:
        try:
            self._cascade: Cascade[_Message] = Cascade(
                values['sync_policy'],
                values['sync_tolerance'],
                values['queue_size'],
                values['thermal_time_offset'],
            )
        except PairingError as error:
            raise UsageError(f'the pairing cannot be set up: {error}') from error
        self._tolerance = values['sync_tolerance']
        self._range = thermal_range(values)
        self._topics = topics
        self._received: Counter[str] = Counter()
        self._stamps: dict[str, list[int]] = {source: [] for source in SOURCES}
        self._examples: dict[str, str] = {}

    def add(self, source: str, message: Any, compressed: bool) -> list[Group[_Message]]:
        self._received[source] += 1
        if not compressed:
            try:
                check(message, self._topics[source])
            except CodecError as error:
                self.drop(f'{source} malformed', error)
                return []
        stamp = stamp_of(message.header)
        self._stamps[source].append(stamp)
        return self._cascade.add(source, stamp, _Message(message, compressed))

    def settle(self) -> list[Group[_Message]]:
        return self._cascade.settle()

    def flush(self) -> list[Group[_Message]]:
        return self._cascade.flush()

    def decoded(self, group: Group[_Message]) -> Pair | None:
        """Return the images, or None if one cannot be read."""
        images = []
        for source, entry in zip(SOURCES, group.messages, strict=True):
            read = decode_compressed if entry.compressed else decode
            try:
                image = read(entry.message, self._topics[source])
                # Each by itself, as the frames that are looked at are far apart.
                images.append(image if source == 'visible' else self._range(image, 0.0))
            except (CodecError, ThermalRangeError) as error:
                self.drop(f'{source} malformed', error)
                return None
        return Pair(stamp_text(group.stamps[0]), images[0], images[1])

    def drop(self, cause: str, error: Exception) -> None:
        self._examples.setdefault(cause, str(error))

    def explanation(self) -> str:
        """Return why no pair came of the messages, in one sentence."""
        silent = [source for source in SOURCES if not self._received[source]]
        if silent:
            names = ' and '.join(f'{source} ({self._topics[source]})' for source in silent)
            heard = [f'{n} {source}' for source, n in self._received.items() if n]
            others = f', but {" and ".join(heard)} images' if heard else ''
            return f'nothing came on the topic of the camera {names}{others}; check the names'
        if self._examples:
            return next(iter(self._examples.values()))
        numbers = ' and '.join(f'{self._received[source]} {source}' for source in SOURCES)
        visible, thermal = (np.unique(self._stamps[source]) for source in SOURCES)
        after = np.searchsorted(thermal, visible)
        around = [thermal[np.clip(after + step, 0, len(thermal) - 1)] for step in (-1, 0)]
        apart = np.abs(np.array(around) - visible).min(axis=0)
        return (
            f'of {numbers} images no two have stamps within {self._tolerance:g} s; '
            f'they are {float(np.median(apart)) * 1e-9:.3f} s apart: set thermal_time_offset or '
            'sync_tolerance in a file for --params'
        )


class _Spread:
    """Keeps evenly spread pairs of a sequence whose length is not known, decoding few more."""

    def __init__(self, number: int) -> None:
        self._number = max(2, number)
        self._stride = 1
        self.seen = 0
        self.kept: list[Pair] = []

    def add(
        self, group: Group[_Message], decoded: Callable[[Group[_Message]], Pair | None]
    ) -> None:
        wanted = self.seen % self._stride == 0
        self.seen += 1
        pair = decoded(group) if wanted else None
        if pair is None:
            return
        self.kept.append(pair)
        if len(self.kept) > self._number:
            # Every other one still covers the whole.
            del self.kept[1::2]
            self._stride *= 2


def _beside(topic: str, name: str) -> str:
    """Return the topic of a name in the name space of an image topic."""
    return f'{topic.removesuffix("/compressed").rpartition("/")[0]}/{name}'


def _is_rectified(topic: str) -> bool:
    leaf = topic.removesuffix('/compressed').rpartition('/')[2]
    return leaf.startswith('image_rect')


def _require_one_size(pairs: Sequence[Pair]) -> None:
    first = pairs[0]
    for source in SOURCES:
        size = size_of(getattr(first, source))
        for pair in pairs:
            other = size_of(getattr(pair, source))
            if other != size:
                raise UsageError(
                    f'the {source} images differ in size: {first.name} has {size[0]}x{size[1]} '
                    f'pixels, {pair.name} has {other[0]}x{other[1]}; a registration is for one '
                    'pair of cameras, each at one resolution'
                )


def choose_frames(pairs: Sequence[Pair], number: int) -> tuple[list[int], list[int]]:
    """
    Return the pairs to estimate from, and others to check the estimate with.

    Those that show much in both cameras, in many parts of the image, and each something else:
    one after the other, the one with the highest product of texture and difference from those
    chosen before. Frames that are the same as another one, or show next to nothing, are neither.

    :param number: of pairs to estimate from, at most; so many more, at most, to check with.
    :return: indices in rising order, twice.
    """
    edges = [tuple(_edges(image) for image in (_grey(p.visible), p.thermal)) for p in pairs]
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


def _grey(image: NDArray[Any]) -> NDArray[np.float32]:
    """Return (H, W) in [0, 1]."""
    grey = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    full = 1.0 if grey.dtype.kind == 'f' else float(np.iinfo(grey.dtype).max)
    return np.asarray(grey / np.float32(full), np.float32)


def _edges(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return how strong edges are, on a small image, as parts of its range."""
    scale = min(1.0, _SIDE / max(grey.shape))
    size = (max(8, round(grey.shape[1] * scale)), max(8, round(grey.shape[0] * scale)))
    small = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
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
