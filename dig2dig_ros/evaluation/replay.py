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
Replay a bag through the node's own pipeline.

Nothing here depends on a clock, and nothing is dropped because of time: the messages go in as
they were recorded, one after the other, and every pair is fused. So a bag gives the same images
on any machine. A live node differs in two ways: it drops pairs that come while it is busy, and
after a pause of the cameras it pairs what it has instead of waiting.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, TYPE_CHECKING

from dig2dig_ros.evaluation.bag_reader import BagReader
from dig2dig_ros.evaluation.bag_topics import SourceTopics
from dig2dig_ros.evaluation.bag_types import BagError, COMPRESSED_IMAGE_TYPE, IMAGE_TYPE, Record
from dig2dig_ros.images.geometry import RegistrationError
from dig2dig_ros.streams.pairing import PairingError
from dig2dig_ros.streams.pipeline import Pipeline
from dig2dig_ros.streams.preparation import FusedFrame, Work
from dig2dig_ros.streams.statistics import FaultyImages, kind_of

# Importing torch takes seconds, so a wrong bag is reported before.
if TYPE_CHECKING:
    from dig2dig_ros.fusion.fuser import Fuser

_NANOSECONDS = 1_000_000_000
# Stamps of each camera to compare if nothing pairs: an hour at 30 Hz.
_STAMPS_KEPT = 108_000


def stamp_text(stamp: int) -> str:
    """Return nanoseconds as seconds with nine decimals."""
    return f'{stamp // _NANOSECONDS}.{stamp % _NANOSECONDS:09d}'


class BagReplay:
    """
    Goes once through a bag and yields its pairs, fused.

    :param reader: of the bag, open.
    :param topics: which of its topics are the sources.
    :param values: all of the node's parameters by name. The transports follow the types of the
        topics, and only pairs are fused: no image is used alone.
    :param fuser: to fuse with the settings of ``values``.
    :ivar sizes: how many of the fused images of each source had each (width, height).
    :ivar lossy: how many of the fused images of each source except the visible one were JPEG.
    :ivar stopped: whether :meth:`pairs` was asked to stop before the end of the bag.
    :raises BagError: the pairing or the registration cannot be set up with the parameters.
    """

    def __init__(
        self,
        reader: BagReader,
        topics: SourceTopics,
        values: Mapping[str, Any],
        fuser: Fuser,
    ) -> None:
        self._reader = reader
        self._source_of = {
            topics.visible: 'visible',
            topics.thermal: 'thermal',
            **{topic: source for source, topic in topics.others.items()},
        }
        self._now = 0.0
        try:
            self._pipeline = Pipeline(
                {**values, 'missing_modality': 'wait'},
                {source: topic for topic, source in self._source_of.items()},
                clock=lambda: self._now,
                stamps_kept=_STAMPS_KEPT,
            )
        except PairingError as error:
            raise BagError(f'the pairing cannot be set up: {error}') from error
        except RegistrationError as error:
            raise BagError(f'the images cannot be registered: {error}') from error
        self._pipeline.fuser = fuser
        if not self._pipeline.registrar.wants_camera_info:
            topics = replace(topics, thermal_camera_info=None)
        self._cameras_of = topics.cameras_of_info()
        self._waiting: deque[Work] = deque()
        self._next_look = 0.0
        # Warnings in the current second of the recording.
        self._lasting: frozenset[str] = frozenset()
        self._said: dict[str, str] = {}
        self._seconds: Counter[str] = Counter()
        self.stopped = False
        self.lossy: Counter[str] = Counter()
        self.sizes: dict[str, Counter[tuple[int, int]]] = {
            source: Counter() for source in self.sources
        }

    @property
    def sources(self) -> tuple[str, ...]:
        """The names of the sources, visible and thermal first."""
        return self._pipeline.sources

    @property
    def expected(self) -> int:
        """The number of pairs if every message of the slowest source finds its partner."""
        return min(self._reader.topics[topic].count for topic in self._source_of)

    @property
    def received(self) -> Counter[str]:
        """How many images each source sent, by its name."""
        return self._pipeline.statistics.images_received

    @property
    def dropped(self) -> Counter[str]:
        """How many images or pairs were not fused, by the causes that the node reports."""
        return self._pipeline.statistics.drops

    @property
    def examples(self) -> Mapping[str, str]:
        """The first reason of every cause in :attr:`dropped` that has reasons."""
        return self._pipeline.statistics.examples

    @property
    def faults(self) -> list[FaultyImages]:
        """The warnings of live diagnostics about images, and for how many of them."""
        return self._pipeline.statistics.faults

    @property
    def health(self) -> dict[str, int]:
        """The other warnings of live diagnostics, and for how many seconds."""
        of_images = {kind_of(fault.text) for fault in self.faults}
        return {
            self._said[kind]: seconds
            for kind, seconds in self._seconds.items()
            if kind not in of_images
        }

    @property
    def table(self) -> dict[str, str]:
        """The table of live diagnostics at the end: settings, counters, cameras."""
        return self._pipeline.table()

    def pairs(self, stopping: Callable[[], bool] = lambda: False) -> Iterator[FusedFrame]:
        """
        Fuse one pair after the other, in the order of the visible stamps.

        Anything that cannot be fused is counted in :attr:`dropped`, with the first reason of each
        cause in :attr:`examples`.

        :param stopping: called at every message and every pair; once true, no more pairs follow.
        """
        topics = [*self._source_of, *self._cameras_of]
        for record in self._reader.records(topics):
            if self._stops(stopping):
                return
            self._take(record)
            yield from self._fused(stopping)
        if not self._stops(stopping):
            self._waiting.extend(self._pipeline.flush())
            yield from self._fused(stopping)
            self._listen()

    def _stops(self, stopping: Callable[[], bool]) -> bool:
        self.stopped = self.stopped or stopping()
        return self.stopped

    def _take(self, record: Record) -> None:
        """Take in a message of a source or of a camera_info."""
        self._look(record.time / _NANOSECONDS)
        source = self._source_of.get(record.topic)
        try:
            message = self._reader.decode(record)
            if source is not None and record.type not in (IMAGE_TYPE, COMPRESSED_IMAGE_TYPE):
                raise BagError(f'a message on {record.topic} is not an image but a {record.type}')
        except BagError as error:
            if source is None:
                self._pipeline.statistics.dropped('camera_info malformed', reason=str(error))
            else:
                self._pipeline.reject(source, str(error))
            return
        if source is None:
            for camera in self._cameras_of[record.topic]:
                self._pipeline.camera_info(camera, message)
        else:
            self._waiting.extend(self._pipeline.add(source, message, record.time))

    def _look(self, now: float) -> None:
        """Collect the warnings of live diagnostics once per second of the recording."""
        is_first = not self._now
        self._now = max(self._now, now)
        if is_first:
            self._pipeline.restart()
            # A camera that starts later than the other is not missing yet.
            self._next_look = now + self._pipeline.values['stale_timeout']
        elif now >= self._next_look:
            self._next_look = now + 1.0
            self._lasting = frozenset()
            self._listen()

    def _listen(self) -> None:
        """Note the current warnings of live diagnostics, each once per second."""
        said = {kind_of(text): text for text in self._pipeline.health()}
        for kind, text in said.items():
            if kind not in self._lasting:
                self._said.setdefault(kind, text)
                self._seconds[kind] += 1
        self._lasting |= said.keys()

    def _fused(self, stopping: Callable[[], bool]) -> Iterator[FusedFrame]:
        while self._waiting and not self._stops(stopping):
            fused = self._pipeline.process(self._waiting.popleft())
            if self._pipeline.lost:
                raise BagError(self._pipeline.lost)
            if fused is None:
                continue
            for source, image in zip(self.sources, fused.prepared.images, strict=True):
                self.sizes[source][(image.shape[1], image.shape[0])] += 1
            for arrived in fused.work.messages[1:]:
                self.lossy[arrived.source] += arrived.is_jpeg
            yield fused

    def finish(self, cause: str) -> None:
        """Drop what still waits for a partner or for the fusion, counted as ``cause``."""
        waiting = sum(len(work.messages) for work in self._waiting)
        self._waiting.clear()
        self._pipeline.statistics.dropped(cause, self._pipeline.pending + waiting)

    def pairing_advice(self) -> str | None:
        """Return why stamps do not pair, see :meth:`Attendance.pairing_advice`."""
        return self._pipeline.attendance.pairing_advice(self._pipeline.values)
