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
Replay a bag through the node's own pairing, image preparation and fusion.

Nothing here looks at a clock, and nothing is dropped because something else takes time: the
messages go in as they were recorded, one after the other, and every pair is fused. So a bag
gives the same images however fast the machine is. A live node differs in two ways: it drops
pairs that come while it is busy, and after a pause of the cameras it pairs what it has rather
than wait.
"""

from __future__ import annotations

from array import array
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dig2dig_ros.evaluation.bag_reader import BagReader
from dig2dig_ros.evaluation.bag_topics import SourceTopics
from dig2dig_ros.evaluation.bag_types import BagError, COMPRESSED_IMAGE_TYPE, IMAGE_TYPE, Record
from dig2dig_ros.images.geometry import RegistrationError
from dig2dig_ros.streams.cascade import Cascade
from dig2dig_ros.streams.codec import check, CodecError
from dig2dig_ros.streams.pairing import Group, PairingError
from dig2dig_ros.streams.preparation import (
    Arrived,
    Preparation,
    PreparationError,
    registered_image,
    stamp_of,
)
from dig2dig_ros.streams.registrar import Registrar

# Importing torch takes seconds, which a mistake in the bag need not cost.
if TYPE_CHECKING:
    from dig2dig_ros.fusion.fuser import Fuser, FusionResult


@dataclass(frozen=True)
class _Recorded:
    """A message with its type, and the time of its recording in nanoseconds."""

    message: Any
    type: str
    time: int


@dataclass(frozen=True)
class ReplayedPair:
    """
    One pair (a group, with more than two sources) and what the fusion made of it.

    :param stamps: of the messages in nanoseconds, visible first, as the pairing compares them.
    :param headers: of the messages.
    :param camera_info: the latest of the visible camera by then, or None.
    :param recorded: time in nanoseconds at which the last message of the pair was recorded.
    :param images: as the fuser took them, see
        :class:`~dig2dig_ros.streams.preparation.SourceImages`; registered to the visible one,
        where a registration is in use.
    """

    stamps: tuple[int, ...]
    headers: tuple[Any, ...]
    camera_info: Any
    recorded: int
    images: tuple[NDArray[Any], ...]
    result: FusionResult

    @property
    def name(self) -> str:
        """The visible stamp as text, in seconds with nine decimals."""
        return stamp_text(self.stamps[0])

    @property
    def offset(self) -> float:
        """Seconds from the visible stamp to the one that is farthest from it."""
        return max((stamp - self.stamps[0] for stamp in self.stamps[1:]), key=abs) * 1e-9


def stamp_text(stamp: int) -> str:
    """Return nanoseconds as seconds with nine decimals."""
    return f'{stamp // 1_000_000_000}.{stamp % 1_000_000_000:09d}'


class BagReplay:
    """
    Goes once through a bag and yields its pairs, fused.

    :param reader: of the bag, open.
    :param topics: which of its topics are the sources.
    :param values: all of the node's parameters by name; the transports are told by the types
        of the topics.
    :param fuser: with the settings of ``values``.
    :ivar received: how many images of each source came, by its name.
    :ivar sizes: how many of the fused images of each source had which (width, height).
    :ivar examples: the first reason of every cause in :attr:`dropped` that has reasons.
    :ivar stopped: whether :meth:`pairs` was told to stop before the bag was through.
    :raises BagError: the pairing cannot be set up as the parameters say.
    """

    def __init__(
        self,
        reader: BagReader,
        topics: SourceTopics,
        values: Mapping[str, Any],
        fuser: Fuser,
    ) -> None:
        try:
            self._cascade: Cascade[_Recorded] = Cascade(
                values['sync_policy'],
                values['sync_tolerance'],
                values['queue_size'],
                values['thermal_time_offset'],
                tuple(topics.others),
            )
        except PairingError as error:
            raise BagError(f'the pairing cannot be set up: {error}') from error
        self._reader = reader
        self._values = values
        self._fuser = fuser
        try:
            self._registrar = Registrar(values)
        except RegistrationError as error:
            raise BagError(f'the images cannot be registered: {error}') from error
        self._topic_of = {
            'visible': topics.visible,
            'thermal': topics.thermal,
            **topics.others,
        }
        self._preparation = Preparation(self.sources, self._registrar)
        self._camera_of = {topics.camera_info: 'visible'}
        if self._registrar.wants_camera_info:
            self._camera_of[topics.thermal_camera_info] = 'thermal'
        self._camera_info: Any = None
        self._dropped: Counter[str] = Counter()
        self._groups: deque[Group[_Recorded]] = deque()
        self._stamps = {name: array('q') for name in self._topic_of}
        self.stopped = False
        self.received: Counter[str] = Counter()
        self.sizes: dict[str, Counter[tuple[int, int]]] = {
            name: Counter() for name in self.sources
        }
        self.examples: dict[str, str] = {}

    @property
    def sources(self) -> tuple[str, ...]:
        """The names of the sources, visible and thermal first."""
        return tuple(self._topic_of)

    @property
    def expected(self) -> int:
        """The number of pairs if every message of the slowest source finds its partner."""
        return min(self._reader.topics[topic].count for topic in self._topic_of.values())

    @property
    def dropped(self) -> Counter[str]:
        """How many images or pairs were not fused, by the causes that the node reports."""
        counters = self._cascade.counters
        del counters['groups']
        return +(counters + self._dropped)

    def pairs(self, stopping: Callable[[], bool] = lambda: False) -> Iterator[ReplayedPair]:
        """
        Fuse pair after pair, in the order of the visible stamps.

        What cannot be fused is counted in :attr:`dropped`, with the first reason of each cause
        in :attr:`examples`.

        :param stopping: asked at every message and every pair; once it is true, no pair follows.
        """
        source_of = {topic: source for source, topic in self._topic_of.items()}
        topics = [*source_of, *(topic for topic in self._camera_of if topic is not None)]
        for record in self._reader.records(topics):
            if self._stops(stopping):
                return
            self._take(record, source_of.get(record.topic))
            yield from self._fused_groups(stopping)
        if not self._stops(stopping):
            self._groups.extend(self._cascade.flush())
            yield from self._fused_groups(stopping)

    def _stops(self, stopping: Callable[[], bool]) -> bool:
        self.stopped = self.stopped or stopping()
        return self.stopped

    def _take(self, record: Record, source: str | None) -> None:
        """Take a message in; ``source`` is None for the camera_info."""
        if source is not None:
            self.received[source] += 1
        try:
            message = self._reader.decode(record)
            if source is None:
                camera = self._camera_of[record.topic]
                self._registrar.camera_info(camera, message)
                if camera == 'visible':
                    self._camera_info = message
                return
            if record.type == IMAGE_TYPE:
                check(message, record.topic)
            elif record.type != COMPRESSED_IMAGE_TYPE:
                raise BagError(f'a message on {record.topic} is no image, but a {record.type}')
        except (BagError, CodecError) as error:
            self._drop(f'{source or "camera_info"} malformed', str(error))
            return
        stamp = stamp_of(message.header)
        self._stamps[source].append(stamp)
        recorded = _Recorded(message, record.type, record.time)
        self._groups.extend(self._cascade.add(source, stamp, recorded))

    def _fused_groups(self, stopping: Callable[[], bool]) -> Iterator[ReplayedPair]:
        while self._groups and not self._stops(stopping):
            pair = self._fused(self._groups.popleft())
            if pair is not None:
                yield pair

    def finish(self, cause: str) -> None:
        """Give up what waits for a partner or to be fused, and count it as ``cause``."""
        waiting = sum(len(group.messages) for group in self._groups)
        self._dropped[cause] += self._cascade.pending + waiting
        self._groups.clear()

    def nearest_offset(self) -> float | None:
        """
        Return how far the stamps of the sources are apart, where no pair came of them.

        :return: the median of the seconds from a visible stamp to the nearest thermal one, as
            recorded, over the images of the source that has fewer; None if one has no stamps.
        """
        visible, thermal = (
            np.unique(np.array(self._stamps[source], dtype=np.int64))
            for source in ('visible', 'thermal')
        )
        visible, thermal = visible[visible > 0], thermal[thermal > 0]
        if not (len(visible) and len(thermal)):
            return None
        if len(thermal) < len(visible):
            return -float(np.median(_to_nearest(thermal, visible))) * 1e-9
        return float(np.median(_to_nearest(visible, thermal))) * 1e-9

    def _fused(self, group: Group[_Recorded]) -> ReplayedPair | None:
        arrived = [
            Arrived(
                source,
                entry.message,
                stamp,
                compressed=entry.type == COMPRESSED_IMAGE_TYPE,
                topic=self._topic_of[source],
            )
            for source, entry, stamp in zip(
                self.sources, group.messages, group.stamps, strict=True
            )
        ]
        try:
            # What is compared are pairs: no image goes on alone.
            values = {**self._values, 'missing_modality': 'wait'}
            prepared = self._preparation(arrived, values)
            result = self._fuser.fuse(
                *prepared.images,
                placements=prepared.placements,
                trust=prepared.trust,
            )
        except PreparationError as error:
            self._drop(error.cause, str(error))
            return None
        except Exception as error:
            # As in the node: nothing that one group does may end all others. What is expected is
            # a ValueError with a sentence, all else needs its type to be understood.
            expected = isinstance(error, ValueError) and str(error)
            reason = str(error) if expected else f'{type(error).__name__}: {error}'
            self._drop('fusion error', reason)
            return None
        height, width = result.image.shape[:2]
        for source, image in zip(self.sources, prepared.images, strict=True):
            self.sizes[source][(image.shape[1], image.shape[0])] += 1
        return ReplayedPair(
            stamps=group.stamps,
            headers=tuple(entry.message.header for entry in group.messages),
            camera_info=self._camera_info,
            recorded=max(entry.time for entry in group.messages),
            images=tuple(
                registered_image(image, placement, (width, height)) if placement else image
                for image, placement in zip(prepared.images, prepared.placements, strict=True)
            ),
            result=result,
        )

    def _drop(self, cause: str, reason: str) -> None:
        self._dropped[cause] += 1
        self.examples.setdefault(cause, reason)


def _to_nearest(stamps: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how far it is from each stamp to the nearest of others, which are sorted."""
    after = np.searchsorted(others, stamps)
    before, behind = (
        others[np.clip(after + step, 0, len(others) - 1)] - stamps for step in (-1, 0)
    )
    return np.where(np.abs(before) <= np.abs(behind), before, behind)
