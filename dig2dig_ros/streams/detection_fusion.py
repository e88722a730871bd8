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
Detections of several sources into one set: check each message, join by stamp, merge, and count.

The sources are the images of a scene that one detector ran on: the cameras' and the fused one.
Everything that determines the detections is here and below; no ROS.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
import math
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dig2dig_ros.detections.boxes import Array, Detections
from dig2dig_ros.detections.merging import LogisticCalibration, Merged, noisy_or, say_of_boxes
from dig2dig_ros.detections.messages import Label, MessageError, sound_detections
from dig2dig_ros.streams.cascade import Cascade
from dig2dig_ros.streams.codec import CodecError, decode
from dig2dig_ros.streams.detection_parameters import FUSED
from dig2dig_ros.streams.pairing import Group
from dig2dig_ros.streams.preparation import stamp_of
from dig2dig_ros.streams.timeline import RecentStamps

# Why a message may be dropped without being merged; counted by source.
CAUSES = (
    *('malformed', 'zero stamp', 'duplicate stamp', 'late', 'unpaired'),
    *('without counterpart', 'clock jump', 'shutdown'),
)
# A source that sent within this many stale_timeouts may just be slow.
_SLOW = 5
# The fusion computes weights on cells of this side, so a finer map gains nothing.
_CELL = 4
_NOTHING = Detections(np.zeros((0, 4)), np.zeros(0))


@dataclass(frozen=True)
class Found:
    """The detections of one message, by class, best first."""

    source: str
    header: Any
    detections: Mapping[Label, Detections]


@dataclass(frozen=True)
class MergedFrame:
    """
    The merged detections of several sources in the images of one moment.

    :param header: of the first source that is present.
    :param merged: by class; columns of ``source_scores`` are the sources of the parameters.
    """

    header: Any
    merged: Mapping[Label, Merged]


class DetectionFusion:
    """
    From messages to merged detections; used from one thread.

    A detector that ends, or never starts, does not block the others: once they have sent for
    ``stale_timeout`` seconds without it, they continue, and wait for it again as soon as two of
    its messages have come within that time.

    Every message is accounted for. For each source, received = merged + dropped for one of
    :data:`CAUSES` + those that wait.

    :param values: all parameters by name, see :mod:`~dig2dig_ros.streams.detection_parameters`.
    :param topics: of each source, for messages.
    :param publishers: returns how many publishers a topic has, if known.
    :param log: called with a sentence on every problem with a message.
    :param clock: seconds of a steady clock.
    """

    def __init__(
        self,
        values: Mapping[str, Any],
        topics: Mapping[str, str],
        *,
        publishers: Callable[[str], int] | None = None,
        log: Callable[[str], None] = lambda text: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.sources: tuple[str, ...] = tuple(values['sources'])
        self.cameras = tuple(name for name in self.sources if name != FUSED)
        self._values = values
        self._topics = topics
        self._publishers = publishers
        self._log = log
        self._clock = clock
        self._began = clock()
        self._counts: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()
        # When each source last sent, and how long it has been silent while the others send.
        self._heard: dict[str, float] = {}
        self._silence = dict.fromkeys(self.sources, 0.0)
        self._latest = math.nan
        self._last_union = self._began
        self._united_stamps = RecentStamps()
        # Reason and time of the last refusal, by source.
        self._refused: dict[str, tuple[str, float]] = {}
        self._weights: dict[int, dict[str, NDArray[Any]]] = {}
        self._present: tuple[str, ...] = self.sources
        self._cascade = self._new_cascade()

    @property
    def values(self) -> Mapping[str, Any]:
        """The parameters by name; may be replaced at any time, as a whole."""
        return self._values

    @values.setter
    def values(self, values: Mapping[str, Any]) -> None:
        self._values = values
        if self._cascade is not None:
            self._cascade.tolerance = values['sync_tolerance']

    # Messages in

    def add(self, source: str, message: Any, type_name: str) -> list[MergedFrame]:
        """
        Take in the detections in one image.

        :param message: of that type, see :mod:`~dig2dig_ros.detections.messages`.
        :return: what can be merged now, in the order of the stamps.
        """
        self._counts[f'{source} received'] += 1
        try:
            found = Found(source, message.header, sound_detections(message, type_name))
        except MessageError as error:
            self._dropped[f'{source} malformed'] += 1
            self._refuse(source, str(error))
            return []
        stamp = stamp_of(message.header)
        if stamp > 0:
            self._note(source)
        else:
            self._refuse(
                source, 'they have no stamp: the detector must copy the stamp of the image'
            )
        if self._cascade is not None and source in self._present:
            return self._unite_all(self._cascade.add(source, stamp, found))
        cause = self._why_not_alone(source, stamp)
        if cause:
            self._dropped[f'{source} {cause}'] += 1
            return []
        return self._unite_all([Group((found,), (stamp,))])

    def _why_not_alone(self, source: str, stamp: int) -> str:
        """Return the cause to drop a message without a cascade; '' if there is none."""
        if stamp <= 0:
            return 'zero stamp'
        if source not in self._present:
            return 'without counterpart'
        # A source that continues alone, or the last one of those before it.
        if self._united_stamps.begins_anew(stamp):
            self._united_stamps.clear()
        latest = self._united_stamps.latest
        self._united_stamps.insert(stamp)
        if latest is None or stamp > latest:
            return ''
        return 'duplicate stamp' if stamp == latest else 'late'

    def add_weights(self, source: str, message: Any) -> None:
        """Take in the weight map of a camera, a ``sensor_msgs/Image`` (mono8 or 32FC1)."""
        self._counts['weight maps received'] += 1
        try:
            plane = decode(message, max_pixels=self._values['max_pixels'])
            if message.encoding not in ('mono8', '32FC1'):
                raise CodecError(
                    f'{message.encoding} is not an encoding of weight maps: use mono8 or 32FC1'
                )
        except CodecError as error:
            self._counts['weight maps refused'] += 1
            self._log(f'a weight map of {source} is refused: {error}')
            return
        # A copy, so that the rest of the message is freed.
        weights = plane[::_CELL, ::_CELL].astype(np.float32)
        if message.encoding == 'mono8':
            weights /= 255
        stamp = stamp_of(message.header)
        maps = self._weights.pop(stamp, {})
        maps[source] = np.clip(np.nan_to_num(weights), 0.0, 1.0)
        self._weights[stamp] = maps
        while len(self._weights) > self._values['queue_size']:
            del self._weights[next(iter(self._weights))]

    def settle(self) -> list[MergedFrame]:
        """Merge what can be merged while all sources pause; the rest keeps waiting."""
        return self._unite_all(self._cascade.settle() if self._cascade is not None else [])

    def clear(self, cause: str) -> None:
        """Drop what waits for its counterparts; ``cause`` is one of :data:`CAUSES`."""
        if self._cascade is not None:
            self._cascade.clear(cause)
        self._united_stamps.clear()
        self._weights.clear()

    @property
    def pending(self) -> int:
        """How many messages wait for their counterparts."""
        return 0 if self._cascade is None else self._cascade.pending

    # Which sources are present

    def _note(self, source: str) -> None:
        """Note that a source sent something valid, and wait for the sources that are present."""
        now, timeout = self._clock(), self._values['stale_timeout']
        # If all sources pause, none is missing, however long it takes.
        gap = 0.0 if math.isnan(self._latest) else min(now - self._latest, timeout / 2)
        for other in self.sources:
            self._silence[other] += gap
        self._silence[source] = 0.0
        returns = now - self._heard.get(source, -math.inf) <= timeout
        self._heard[source] = self._latest = now
        present = tuple(
            name
            for name in self.sources
            if (name in self._present and self._silence[name] <= timeout)
            or (name == source and (returns or not self._present))
        )
        if present == self._present:
            return
        for name in self._present:
            if name not in present:
                self._log(f'{name} is silent: the others are merged without it')
        self._retire()
        self._present = present
        self._cascade = self._new_cascade()

    def _new_cascade(self) -> Cascade[Found] | None:
        """Return what joins the sources that are present; None if there is only one."""
        if len(self._present) < 2:
            return None
        return Cascade(
            'nearest',
            self._values['sync_tolerance'],
            self._values['queue_size'],
            additional_sources=self._present[2:],
            first=self._present[:2],
        )

    def _retire(self) -> None:
        """Drop what waits, but keep the counts."""
        if self._cascade is not None:
            self._cascade.clear('without counterpart')
            self._dropped += self._drops_of_cascade()
            self._cascade = None

    def _drops_of_cascade(self) -> Counter[str]:
        drops: Counter[str] = Counter()
        if self._cascade is None:
            return drops
        sources = self._cascade.sources
        for what, number in self._cascade.counters.items():
            source, _, cause = what.partition(' ')
            if cause == 'missing':
                # With it, a message of each source before was dropped.
                for earlier in sources[: sources.index(source)]:
                    drops[f'{earlier} unpaired'] += number
            elif cause:  # 'groups' has none
                drops[what] += number
        return drops

    # Out

    def _unite_all(self, groups: list[Group[Found]]) -> list[MergedFrame]:
        return [self._unite(group) for group in groups]

    def _unite(self, group: Group[Found]) -> MergedFrame:
        values = self._values
        stamp, latest = group.stamps[0], self._united_stamps.latest
        if latest is not None and stamp < latest:
            # The stamps of the output only step back at a new timeline.
            self._united_stamps.clear()
        self._united_stamps.insert(stamp)
        there = {found.source: found for found in group.messages}
        header = group.messages[0].header
        maps = self._weights.get(stamp_of(header), {}) if values['use_weights'] else {}
        says = [
            # A detector that is not present denies nothing.
            partial(_say, maps[name], values['equal_share'])
            if name in maps and name in there
            else None
            for name in self.sources
        ]
        calibrations = self._calibrations()
        merged: dict[Label, Merged] = {}
        for label in dict.fromkeys(
            label for found in group.messages for label in found.detections
        ):
            of_label = [
                there[name].detections.get(label, _NOTHING) if name in there else _NOTHING
                for name in self.sources
            ]
            boxes = noisy_or(
                of_label, says, calibrations, iou=values['iou'], denial=values['denial']
            )
            merged[label] = _at_least(boxes, values['min_score'])
        self._count(there, bool(maps), merged)
        return MergedFrame(header, merged)

    def _calibrations(self) -> list[LogisticCalibration | None]:
        slopes, offsets = (
            (list(self._values[f'calibration_{what}']) * len(self.sources))[: len(self.sources)]
            for what in ('slopes', 'offsets')
        )
        return [
            LogisticCalibration(slope, offset) if (slope, offset) != (1.0, 0.0) else None
            for slope, offset in zip(slopes, offsets, strict=True)
        ]

    def _count(
        self, there: Mapping[str, Found], weighted: bool, merged: Mapping[Label, Merged]
    ) -> None:
        self._last_union = self._clock()
        self._counts['merged frames'] += 1
        self._counts['boxes'] += sum(len(each.scores) for each in merged.values())
        self._counts['frames without weight maps'] += not weighted
        for name in self.sources:
            self._counts[f'{name} merged' if name in there else f'frames without {name}'] += 1

    # Diagnostics

    def _refuse(self, source: str, reason: str) -> None:
        self._refused[source] = reason, self._clock()
        self._log(f'detections of {source} on {self._topics[source]} are refused: {reason}')

    def health(self) -> list[str]:
        """Return the current problems, in sentences; empty if there are none."""
        now, timeout = self._clock(), self._values['stale_timeout']
        warnings = []
        for name in self.sources:
            heard = self._heard.get(name)
            if heard is None or now - heard > timeout:
                silence = 'yet' if heard is None else f'for {now - heard:.1f} s'
                topic = self._topics[name]
                count = f' (publishers: {self._publishers(topic)})' if self._publishers else ''
                goes_on = ': the others are merged without it'
                if heard is not None and now - heard < _SLOW * timeout:
                    goes_on += '; if it is just slow, set a longer stale_timeout'
                warnings.append(
                    f'no valid detections of {name} on {topic} {silence}{count}'
                    + goes_on * (name not in self._present)
                )
        for source, (reason, moment) in self._refused.items():
            if now - moment <= timeout:
                warnings.append(f'detections of {source} are refused: {reason}')
        if not warnings and now - self._last_union > timeout:
            warnings.append(
                f'all sources send, but for {now - self._last_union:.1f} s none of their stamps '
                f'lie within sync_tolerance, {self._values["sync_tolerance"]:g} s: have the '
                'detectors copy the stamps of the images, or widen it'
            )
        return warnings

    def table(self) -> dict[str, str]:
        """Return all counters as texts, in the order in which diagnostics show them."""
        drops = self._dropped + self._drops_of_cascade()
        names = [
            *(f'{name} {what}' for name in self.sources for what in ('received', 'merged')),
            *('merged frames', 'boxes', *(f'frames without {name}' for name in self.sources)),
            *('weight maps received', 'weight maps refused', 'frames without weight maps'),
        ]
        return {
            'sources': ', '.join(self._present),
            **{name: str(self._counts[name]) for name in names},
            'waiting': str(self.pending),
            **{
                f'dropped: {name} {cause}': str(drops[f'{name} {cause}'])
                for name in self.sources
                for cause in CAUSES
            },
        }

    def summary(self) -> str:
        """Return the counters as one line for a log."""
        drops = +(self._dropped + self._drops_of_cascade())
        return (
            'received '
            + ', '.join(f'{name} {self._counts[f"{name} received"]}' for name in self.sources)
            + f'; merged frames {self._counts["merged frames"]}; dropped: '
            + (', '.join(f'{cause} {number}' for cause, number in drops.items()) or 'none')
        )


def _say(weights: NDArray[Any], share: float, boxes: Array) -> Array:
    """Return how much a camera counts in each box, from the cells of its weight map."""
    return say_of_boxes(weights, boxes / _CELL, share)


def _at_least(merged: Merged, score: float) -> Merged:
    likely = merged.scores >= score
    return Merged(merged.boxes[likely], merged.scores[likely], merged.source_scores[likely])
