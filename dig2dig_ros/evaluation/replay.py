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

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dig2dig_ros.evaluation.bags import BagError, BagReader, SourceTopics, stamp_of
from dig2dig_ros.streams.cascade import Cascade, Group
from dig2dig_ros.streams.codec import check, CodecError
from dig2dig_ros.streams.pairing import PairingError
from dig2dig_ros.streams.pipeline import SourceImages

# Importing torch takes seconds, which a mistake in the bag need not cost.
if TYPE_CHECKING:
    from dig2dig_ros.fusion.fuser import Fuser, FusionResult

_COMPRESSED = 'sensor_msgs/msg/CompressedImage'


@dataclass(frozen=True)
class _Recorded:
    """A message with the time of its recording in nanoseconds."""

    message: Any
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
        :class:`~dig2dig_ros.streams.pipeline.SourceImages`.
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
        self._images = SourceImages()
        self._topic_of = {
            'visible': topics.visible,
            'thermal': topics.thermal,
            **topics.others,
        }
        self._camera_info_topic = topics.camera_info
        self._camera_info: Any = None
        self._dropped: Counter[str] = Counter()
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

    def pairs(self) -> Iterator[ReplayedPair]:
        """
        Fuse pair after pair, in the order of the visible stamps.

        What cannot be fused is counted in :attr:`dropped`, with the first reason of each cause
        in :attr:`examples`.
        """
        source_of: dict[str, list[str]] = {}
        for source, topic in self._topic_of.items():
            source_of.setdefault(topic, []).append(source)
        topics = list(source_of)
        if self._camera_info_topic is not None:
            topics.append(self._camera_info_topic)
        for record in self._reader.records(topics):
            try:
                message = self._reader.decode(record)
            except BagError as error:
                cause = source_of.get(record.topic, ['camera_info'])[0]
                self._drop(f'{cause} malformed', str(error))
                continue
            if record.topic == self._camera_info_topic:
                self._camera_info = message
                continue
            for source in source_of[record.topic]:
                self.received[source] += 1
                if record.type != _COMPRESSED:
                    try:
                        check(message, record.topic)
                    except CodecError as error:
                        self._drop(f'{source} malformed', str(error))
                        continue
                recorded = _Recorded(message, record.time)
                for group in self._cascade.add(source, stamp_of(message), recorded):
                    yield from self._fused(group)
        for group in self._cascade.flush():
            yield from self._fused(group)

    def finish(self, cause: str) -> None:
        """Give up what waits for a partner, after an interruption, and count it as ``cause``."""
        self._cascade.clear(cause)

    def _fused(self, group: Group[_Recorded]) -> Iterator[ReplayedPair]:
        images = []
        cause = 'fusion error'
        try:
            for source, entry, stamp in zip(
                self.sources, group.messages, group.stamps, strict=True
            ):
                cause = f'{source} malformed'
                topic = self._topic_of[source]
                images.append(
                    self._images(
                        source,
                        entry.message,
                        stamp,
                        self._values,
                        compressed=self._reader.topics[topic].type == _COMPRESSED,
                        topic=topic,
                    )
                )
            cause = 'fusion error'
            result = self._fuser.fuse(*images)
        except (ValueError, RuntimeError) as error:
            self._drop(cause, f'{type(error).__name__}: {error}')
            return
        for source, image in zip(self.sources, images, strict=True):
            self.sizes[source][(image.shape[1], image.shape[0])] += 1
        yield ReplayedPair(
            stamps=group.stamps,
            headers=tuple(entry.message.header for entry in group.messages),
            camera_info=self._camera_info,
            recorded=max(entry.time for entry in group.messages),
            images=tuple(np.asarray(image) for image in images),
            result=result,
        )

    def _drop(self, cause: str, reason: str) -> None:
        self._dropped[cause] += 1
        self.examples.setdefault(cause, reason)
