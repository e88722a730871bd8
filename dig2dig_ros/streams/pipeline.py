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
The path of a pair of frames: check each message, pair, prepare, fuse, and count the outcome.

The node feeds it live messages, the evaluation of bags recorded ones; everything that determines
an image is here and below. No ROS.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
import math
import time
from typing import Any, TYPE_CHECKING

from dig2dig_ros.fusion.memory_fallback import (
    first_line,
    free_memory,
    is_out_of_memory,
    MemoryFallback,
)
from dig2dig_ros.images.geometry import size_of
from dig2dig_ros.streams.alignment_watch import AlignmentWatch
from dig2dig_ros.streams.attendance import Attendance
from dig2dig_ros.streams.cascade import Cascade
from dig2dig_ros.streams.codec import check, check_compressed, CodecError
from dig2dig_ros.streams.outgoing_camera_info import OutgoingCameraInfo
from dig2dig_ros.streams.pairing import Group, SOURCES
from dig2dig_ros.streams.parameters import fusion_settings
from dig2dig_ros.streams.preparation import (
    ArrivedImage,
    FusedFrame,
    Preparation,
    PreparationError,
    Prepared,
    stamp_of,
    Work,
)
from dig2dig_ros.streams.registrar import Pose, Registrar
from dig2dig_ros.streams.sensor_watch import Condition
from dig2dig_ros.streams.statistics import StreamStatistics, why_unfused

if TYPE_CHECKING:
    # Imports torch, which takes seconds, so wrong parameters are reported before.
    from dig2dig_ros.fusion.fuser import Fuser, FusionResult


class Pipeline:
    """
    From messages to fused images.

    One thread adds messages and asks for :meth:`health` and :meth:`table`; one, which may be
    another, processes. Times are seconds of ``clock``; arrivals are nanoseconds of it.

    :param values: all of the node's parameters by name.
    :param topics: the topic of each source, visible and thermal first.
    :param look_up: with ``extrinsics: tf``, see :class:`~dig2dig_ros.streams.registrar.Registrar`.
    :param publishers: returns how many publishers the topic of a source has, if known.
    :param camera_info: published with the images, see
        :class:`~dig2dig_ros.streams.outgoing_camera_info.OutgoingCameraInfo`.
    :param log: called with a sentence on every problem with an image.
    :param stamps_kept: of each source, to find their offset if nothing pairs.
    :ivar fuser: to be set before the first work is processed.
    :ivar lost: why this process can no longer fuse, once its device has failed for good.
    :raises PairingError: the parameters of the pairing are invalid.
    :raises RegistrationError: those of the registration are.
    """

    def __init__(
        self,
        values: Mapping[str, Any],
        topics: Mapping[str, str],
        *,
        look_up: Callable[[str, str], Pose] | None = None,
        publishers: Callable[[str], object] | None = None,
        camera_info: OutgoingCameraInfo | None = None,
        log: Callable[[str], None] = lambda text: None,
        clock: Callable[[], float] = time.monotonic,
        stamps_kept: int = 60,
    ) -> None:
        self.topics = dict(topics)
        self.sources = tuple(topics)
        self.fuser: Fuser | None = None
        self.lost = ''
        self.registrar = Registrar(values, look_up)
        self.preparation = Preparation(self.sources, self.registrar)
        self.alignment = AlignmentWatch()
        self.statistics = StreamStatistics(clock, self.sources)
        self.attendance = Attendance(self.sources, stamps_kept)
        self._values = values
        self._publishers = publishers
        self._camera_info = camera_info or OutgoingCameraInfo()
        self._log = log
        self._clock = clock
        self._memory = MemoryFallback()
        self._visible_frame = ''
        self._seen_visible = False
        self._resolution = ''
        self._slowed = ''
        self.restart()

    @property
    def values(self) -> Mapping[str, Any]:
        """The parameters by name; may be replaced at any time, as a whole."""
        return self._values

    @values.setter
    def values(self, values: Mapping[str, Any]) -> None:
        self._values = values
        self._cascade.tolerance = values['sync_tolerance']
        self._cascade.thermal_time_offset = values['thermal_time_offset']

    def restart(self) -> None:
        """Start counting from zero, with nothing held and nothing seen."""
        values = self._values
        self._cascade: Cascade[ArrivedImage] = Cascade(
            values['sync_policy'],
            values['sync_tolerance'],
            values['queue_size'],
            values['thermal_time_offset'],
            self.sources[2:],
        )
        self.statistics.restart(self._cascade)
        self.attendance.reset(self._clock())
        self._camera_info.reset(self._clock())
        # When and why an image of each source was last unusable, by cause; replaced as a whole,
        # the first by the thread that adds and the second by the one that processes.
        self._malformed: dict[str, tuple[float, str]] = {}
        self._refused: dict[str, tuple[float, str]] = {}
        # When and why sound images last could not be fused.
        self._unfused = (-math.inf, '')

    # Messages in

    def add(self, source: str, message: Any, arrival: int) -> list[Work]:
        """
        Take in an image.

        :param message: a ``sensor_msgs/Image`` or a ``CompressedImage``.
        :param arrival: in nanoseconds.
        :return: what to process now, in the order of the visible stamps.
        """
        self.statistics.received(source)
        image = ArrivedImage(
            source, message, stamp_of(message.header), arrival, self.topics[source]
        )
        look = check_compressed if image.compressed else check
        try:
            look(message, image.topic, max_pixels=self._values['max_pixels'])
        except CodecError as error:
            self._drop_malformed(source, str(error))
            return []
        seconds = arrival * 1e-9
        self.attendance.seen(source, image.stamp, seconds)
        if image.stamp <= 0:
            self._log(f'dropped ({source} zero stamp): the driver sends images without a stamp')
        if self.attendance.alone(source, self._values, seconds):
            # Images that wait for the missing camera would wait for ever.
            self._cascade.clear('without counterpart')
            self.statistics.went_alone(source)
            return [Group((image,), (image.stamp,))]
        return self._counted(self._cascade.add(source, image.stamp, image))

    def reject(self, source: str, reason: str) -> None:
        """Count an image that arrived and cannot be read at all."""
        self.statistics.received(source)
        self._drop_malformed(source, reason)

    def _drop_malformed(self, source: str, reason: str) -> None:
        self.attendance.malformed(source)
        cause = f'{source} malformed'
        said = why_unfused(cause, reason)
        self._malformed = {**self._malformed, source: (self._clock(), said)}
        self._drop(cause, reason)

    def camera_info(self, source: str, message: Any) -> None:
        """Take in a ``sensor_msgs/CameraInfo`` of 'visible' or 'thermal'."""
        if source == 'visible':
            self._camera_info.take(message)
        self.registrar.camera_info(source, message)

    def settle(self) -> list[Work]:
        """Return what can be paired while all cameras pause; the rest keeps waiting."""
        return self._counted(self._cascade.settle())

    def flush(self) -> list[Work]:
        """Return what can be paired if nothing more comes; the rest is dropped."""
        return self._counted(self._cascade.flush())

    def clear(self, cause: str) -> None:
        """Drop what waits for its counterpart, with a cause such as 'shutdown'."""
        self._cascade.clear(cause)

    @property
    def pending(self) -> int:
        """How many images wait for their counterpart."""
        return self._cascade.pending

    def _counted(self, groups: list[Work]) -> list[Work]:
        for group in groups:
            self.statistics.paired(group.offset)
            # If clocks differ, the first of them may have come long before.
            latest = max(image.arrival for image in group.messages)
            self.attendance.paired(latest * 1e-9)
        return groups

    # From a group to the fused image

    def process(
        self,
        work: Work,
        *,
        weights: Callable[[], bool] = lambda: True,
        restored: Callable[[], bool] = lambda: False,
        cancelled: Callable[[], bool] = lambda: False,
        deliver: Callable[[FusedFrame], None] = lambda fused: None,
    ) -> FusedFrame | None:
        """
        Prepare and fuse; errors are counted and logged, never raised.

        :param weights: called once; whether the weight maps are wanted.
        :param restored: called once; whether the restored images are wanted.
        :param cancelled: called now and then; whether to give up.
        :param deliver: called with the result before it counts as fused.
        :return: None if it failed.
        """
        # Read once, so that a whole pair is processed with the same values.
        values = self._values
        try:
            prepared = self.prepare(work, values)
            result = self._fuse(prepared, values, weights(), restored(), cancelled)
            size = size_of(result.image)
            fused = FusedFrame(
                work,
                prepared,
                result,
                self._camera_info.fitting(size, self._seen_visible, self._clock()),
                self._visible_frame or work.messages[0].message.header.frame_id,
            )
            self._resolution = f'{size[0]}x{size[1]}'
            self._slowed = fused.result.slowed
            deliver(fused)
        except Exception as error:  # a failure of one pair must not stop the others
            self.failed(error, cancelled())
            return None
        self.statistics.fused(fused.arrival * 1e-9, fused.result.seconds, fused.waited * 1e-9)
        if len(work.messages) > 1:
            try:
                self.alignment(prepared, work.stamps[0] * 1e-9, values)
            except Exception as error:  # the pair is published, and the next one must follow
                self._log(f'the misalignment was not measured: {type(error).__name__}: {error}')
        return fused

    def prepare(self, work: Work, values: Mapping[str, Any]) -> Prepared:
        """
        Return the input of the fuser.

        :raises PreparationError: an image cannot be used, or the registration does not fit.
        """
        before = self.preparation.images.conditions
        try:
            prepared = self.preparation(work, values)
        finally:
            self._count_faults(before)
        error = prepared.left_out
        if error is not None:
            self._note_refusal(error)
            self.statistics.left_out(error.source, f'{error.cause}: {error}')
            self._log(f'{error.source} left out ({error.cause}): {error}')
        first = work.messages[0]
        if first.source == 'visible':
            self._visible_frame = first.message.header.frame_id
            self._seen_visible = True
        return prepared

    def _count_faults(self, before: Mapping[str, Condition]) -> None:
        """Count the faults that the images of a group show; ``before`` has the previous ones."""
        for source, condition in self.preparation.images.conditions.items():
            if condition is not before.get(source):
                self.statistics.looked_at(source, condition.faults)

    def _fuse(
        self,
        prepared: Prepared,
        values: Mapping[str, Any],
        weights: bool,
        restored: bool,
        cancelled: Callable[[], bool],
    ) -> FusionResult:
        import torch

        assert self.fuser is not None
        # A new thread needs this to keep to num_threads.
        torch.get_num_threads()
        return self._memory.fuse(
            self.fuser,
            prepared.images,
            fusion_settings(values),
            self._log,
            placements=prepared.placements,
            trust=prepared.trust,
            noise=prepared.noise,
            weight_maps=weights,
            restored=restored,
            cancelled=cancelled,
        )

    def failed(self, error: BaseException, is_cancelled: bool = False) -> None:
        """Count and log a pair that ended with an error."""
        from dig2dig_ros.fusion.fuser import FusionCancelled

        now = self._clock()
        if isinstance(error, FusionCancelled) or is_cancelled:
            self.statistics.dropped('shutdown')
        elif isinstance(error, PreparationError):
            if error.cause == 'registration':
                self._unfused = (now, why_unfused(error.cause, str(error)))
            else:
                self._note_refusal(error)
            self._drop(error.cause, str(error))
        elif isinstance(error, Exception) and is_out_of_memory(error):
            problem = '' if self.fuser is None else free_memory(self.fuser, error)
            reason = first_line(error) + (problem and f'; {problem}')
            said = why_unfused('out of memory', reason) + (problem and f', and {problem}')
            self._unfused = (now, said)
            self._drop('out of memory', reason)
            if problem:
                self._note_loss(problem)
        else:
            # Expected errors are ValueErrors with a sentence; all others need their type.
            is_expected = isinstance(error, ValueError) and str(error)
            reason = str(error) if is_expected else f'{type(error).__name__}: {error}'
            self._unfused = (now, why_unfused('fusion error', reason))
            self._drop('fusion error', reason)
            self._note_loss(reason)

    def _note_loss(self, reason: str) -> None:
        if self.fuser is not None and self.fuser.is_lost(reason):
            said = reason.splitlines()[0]
            self.lost = f'the device failed, and this process can no longer use it: {said}'

    def _note_refusal(self, error: PreparationError) -> None:
        said = why_unfused(f'{error.source} refused', str(error))
        self._refused = {**self._refused, error.source: (self._clock(), said)}

    def _drop(self, cause: str, reason: str) -> None:
        self.statistics.dropped(cause, reason=reason)
        self._log(f'dropped ({cause}): {reason}')

    # Diagnostics

    def health(self) -> list[str]:
        """Return the current problems, in sentences; empty if there are none."""
        values, now = self._values, self._clock()
        timeout = values['stale_timeout']
        missing = self.attendance.missing(timeout, now)
        warnings = self.attendance.missing_texts(values, now, self.topics, self._publishers)
        mismatch = None if missing else self.attendance.mismatch(values, now)
        stamps = self.attendance.stamps
        # If nothing pairs, that sentence already has the offset of the thermal camera.
        left_out = {*missing, *(SOURCES[1:] if mismatch else ())}
        warnings += [mismatch or '', *stamps.clock_warnings(values, left_out)]
        warnings += stamps.stamp_warnings(missing)
        for refused in (self._malformed, self._refused):
            warnings += [
                said
                for source, (moment, said) in refused.items()
                # If the camera sends nothing else, this is why it is missing.
                if now - moment < timeout and (source not in missing or refused is self._malformed)
            ]
        moment, reason = self._unfused
        if now - moment < timeout:
            warnings.append(reason)
        warnings.append(self.lost)
        warnings.append(self._memory.warning() or '')
        warnings.append(self._slowed)
        for source, condition in self.preparation.images.conditions.items():
            if source not in missing:
                warnings += condition.faults
        warnings.append(self.alignment.warning(values))
        warnings += self.registrar.doubts
        warnings.append(self._camera_info.warning(values, now))
        return [warning for warning in warnings if warning]

    def table(self) -> dict[str, str]:
        """Return the current settings, all counters and times, and each camera's condition."""
        values = self._values
        now, timeout = self._clock(), values['stale_timeout']
        missing = self.attendance.missing(timeout, now)
        return {
            **self._memory.table(fusion_settings(values)),
            'resolution': self._resolution,
            **self.statistics.table(),
            **self.attendance.stamps.table(values['sync_tolerance']),
            **self.preparation.images.table(missing),
            **self.preparation.noise_table(),
            **self.alignment.table(),
            'registration': self.registrar.describe(values),
            'camera_info': self._camera_info.describe(now, timeout),
        }
