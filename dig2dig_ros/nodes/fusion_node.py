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
The fusion node: two or more image streams in, the fused stream and its weight maps out.

The way of one pair (a group, with more than two sources): the executor's callbacks check each
message and hand it to the pairers; a decided group goes to the worker, which prepares it (decodes
it without a copy where possible, looks whether the cameras are sound, maps the thermal counts to
an image, finds where it lies in the visible one), fuses, and publishes. While a camera is missing
the other one's images may go to the worker alone. Callbacks never wait for the fusion.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import partial
import math
import os
import sys
import time
import traceback
from typing import Any, TYPE_CHECKING

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock, ClockType, JumpThreshold, TimeJump
from rclpy.duration import Duration
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import qos_profile_sensor_data, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from dig2dig_ros.fusion.memory_fallback import is_out_of_memory, MemoryFallback
from dig2dig_ros.images.overlay import weight_overlay
from dig2dig_ros.nodes.parameters import NodeParameters
from dig2dig_ros.nodes.run import run_node
from dig2dig_ros.nodes.worker import LatestWorker
from dig2dig_ros.streams.alignment_watch import AlignmentWatch
from dig2dig_ros.streams.attendance import Attendance
from dig2dig_ros.streams.cascade import Cascade
from dig2dig_ros.streams.codec import check, CodecError, encode
from dig2dig_ros.streams.pairing import Group, SOURCES
from dig2dig_ros.streams.parameters import fusion_settings
from dig2dig_ros.streams.preparation import (
    Arrived,
    fused_picture,
    Preparation,
    PreparationError,
    Prepared,
    stamp_of,
    weight_plane,
)
from dig2dig_ros.streams.registrar import FROM_TF, Pose, Registrar
from dig2dig_ros.streams.statistics import NodeStatistics

if TYPE_CHECKING:
    # Imports torch, which takes seconds: at run time it comes with on_configure.
    from dig2dig_ros.fusion.fuser import Fuser, FusionResult

# At most one log line in so many seconds for what may happen with every frame.
_LOG_PERIOD = 5.0
# When no camera has sent anything for so many seconds, what can be paired is.
_QUIET_SECONDS = 0.2


@dataclass(frozen=True)
class ArrivedMessage:
    """A message with the time of its arrival, in seconds of a steady clock."""

    message: Any
    arrival: float


ArrivedGroup = Group[ArrivedMessage]


@dataclass(frozen=True)
class Work:
    """
    What the worker makes one fused image of.

    :param sources: the names of the sources of the messages: all, or one that goes on alone.
    """

    sources: tuple[str, ...]
    messages: tuple[ArrivedMessage, ...]
    stamps: tuple[int, ...]


class FusionNode(LifecycleNode):  # type: ignore[misc]
    """Lifecycle node that pairs, fuses and publishes; see the README for its interface."""

    def __init__(self, arguments: Sequence[str] = ()) -> None:
        """
        Declare the parameters; the rest is made in ``on_configure``.

        :param arguments: the command line, to warn of what in it has no effect.
        """
        super().__init__('fusion_node')
        self._sources: tuple[str, ...] = SOURCES
        self._state = 'unconfigured'
        self._failure = ''
        self._statistics = NodeStatistics()
        self._fuser: Fuser | None = None
        self._fuser_facts: dict[str, str] = {}
        self._fallback = MemoryFallback()
        # Of torch, before anyone set it.
        self._usual_threads = 0
        self._pairer: Cascade[ArrivedMessage] | None = None
        self._worker: LatestWorker[Work] | None = None
        self._attendance = Attendance(SOURCES)
        self._preparation: Preparation | None = None
        self._registrar: Registrar | None = None
        self._alignment = AlignmentWatch()
        # When and why an image of a source could last not be used; replaced as a whole.
        self._refused: dict[str, tuple[float, str]] = {}
        # When and why a group of sound images could last not be fused.
        self._unfused = (-math.inf, '')
        self._transforms: Any = None
        self._camera_info: CameraInfo | None = None
        # Of the latest visible image; that of a thermal image that goes on alone in its place.
        self._visible_frame = ''
        self._resolution = ''
        self._reported_drops: Counter[str] = Counter()
        self._outputs: dict[str, Any] = {}
        self._inputs: list[Any] = []
        self._quiet_timer: Any = None

        self._node_parameters = NodeParameters(self, lambda: self._state, self._on_parameters)
        self._unknown_parameters = ', '.join(self._node_parameters.warn_of_unknown(arguments))
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', 10)
        # A steady timer: diagnostics matter most when simulated time stands still.
        self._diagnostics_timer = self.create_timer(
            self.values['diagnostics_period'],
            self._publish_diagnostics,
            clock=Clock(clock_type=ClockType.STEADY_TIME),
        )
        self._jump_handle = self.get_clock().create_jump_callback(
            JumpThreshold(
                min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=True
            ),
            post_callback=self._on_clock_jump,
        )

    @property
    def values(self) -> Mapping[str, Any]:
        """Return the parameters' present values by name."""
        return self._node_parameters.values

    def _on_parameters(self, values: Mapping[str, Any]) -> None:
        if self._pairer is not None:
            self._pairer.tolerance = values['sync_tolerance']
            self._pairer.thermal_time_offset = values['thermal_time_offset']

    # Lifecycle

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the prior, warm up at the real resolution, and create the publishers."""
        try:
            self._configure()
        except Exception as error:
            self._failure = f'configuration failed: {error}'
            self.get_logger().error(self._failure)
            self._release()
            return TransitionCallbackReturn.FAILURE
        self._failure = ''
        self._state = 'inactive'
        return TransitionCallbackReturn.SUCCESS

    def _configure(self) -> None:
        # Read by OpenMP when torch loads. Waiting threads that spin would take the cores from
        # the robot's other processes, and from this one's callbacks.
        os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
        try:
            import torch

            from dig2dig_ros.fusion.fuser import Fuser
        except ImportError as error:
            raise RuntimeError(
                f'{error}, for {sys.executable}: install PyTorch and safetensors for this '
                'interpreter (the README says which build for which platform)'
            ) from error

        self._node_parameters.declare_transports()
        values = self.values
        self._diagnostics_timer.timer_period_ns = round(1e9 * values['diagnostics_period'])
        self._diagnostics_timer.reset()  # the next message would come when it was due before
        self._pairer = Cascade(
            values['sync_policy'],
            values['sync_tolerance'],
            values['queue_size'],
            values['thermal_time_offset'],
            values['additional_sources'],
        )
        self._sources = self._pairer.sources
        self._statistics = NodeStatistics(sources=self._sources)
        self._attendance = Attendance(self._sources)
        self._registrar = Registrar(values, self._pose_from_tf(values))
        self._preparation = Preparation(self._sources, self._registrar)
        self._alignment = AlignmentWatch()
        self._fallback = MemoryFallback()
        self._usual_threads = self._usual_threads or torch.get_num_threads()
        torch.set_num_threads(values['num_threads'] or self._usual_threads)
        fuser = Fuser(
            fusion_settings(values),
            prior=values['prior'],
            device=values['device'],
            precision=values['precision'],
        )
        width, height = values['warmup_size']
        warm_up = fuser.warm_up(width, height, len(self._sources))
        self._fuser = fuser
        facts = fuser.describe()
        self._fuser_facts = {key: str(facts[key]) for key in ('device', 'precision', 'prior')}
        self.get_logger().info(
            f'torch {facts["torch"]} of {sys.executable}, device {facts["device"]}, '
            f'precision {facts["precision"]}, prior {facts["prior"]}, N {facts["N"]}, '
            f'S {facts["S"]}, resolution {width}x{height}, warm-up {warm_up:.2f} s'
        )
        self._create_outputs()

    def _pose_from_tf(self, values: Mapping[str, Any]) -> Callable[[str, str], Pose] | None:
        if values['extrinsics'] != FROM_TF:
            return None
        from dig2dig_ros.nodes.transforms import Transforms

        transforms = self._transforms = Transforms(self)
        return transforms.pose

    def _create_outputs(self) -> None:
        for topic, message_type in (
            ('fused/image_raw', Image),
            ('fused/camera_info', CameraInfo),
            *((f'fused/weights/{source}', Image) for source in self._sources),
            ('fused/weights/overlay', Image),
        ):
            self._outputs[topic] = self.create_lifecycle_publisher(
                message_type,
                topic,
                # One for each: rclpy writes the user's overrides into the profile itself.
                QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE),
                qos_overriding_options=QoSOverridingOptions.with_default_policies(),
            )

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start the worker and subscribe."""
        try:
            self._start_streams()
        except Exception as error:  # rclpy would swallow it
            self._failure = f'activation failed: {error}'
            self.get_logger().error(self._failure)
            self._stop_streams()
            return TransitionCallbackReturn.FAILURE
        self._state = 'active'
        return super().on_activate(state)

    def _start_streams(self) -> None:
        self._statistics.reset()
        assert self._pairer is not None
        # The pairer goes on counting where it was before a deactivation.
        self._reported_drops = Counter(self._pairer.counters)
        self._attendance.reset(time.monotonic())
        self._refused, self._unfused = {}, (-math.inf, '')
        self._worker = LatestWorker(self._process)
        for source in self._sources:
            topic = f'{source}/image_raw'
            compressed = self.values[f'{source}_transport'] == 'compressed'
            self._subscribe(
                CompressedImage if compressed else Image,
                f'{topic}/compressed' if compressed else topic,
                partial(self._on_image, source, compressed),
            )
        self._quiet_timer = self.create_timer(
            _QUIET_SECONDS, self._on_quiet, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )
        assert self._registrar is not None
        for source in SOURCES if self._registrar.wants_camera_info else SOURCES[:1]:
            self._subscribe(
                CameraInfo, f'{source}/camera_info', partial(self._on_camera_info, source)
            )

    def _subscribe(self, message_type: type, topic: str, callback: Any) -> None:
        self._inputs.append(
            self.create_subscription(
                message_type,
                topic,
                callback,
                copy(qos_profile_sensor_data),
                qos_overriding_options=QoSOverridingOptions.with_default_policies(),
            )
        )

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe and give up the pair in work; fails where that takes long."""
        try:
            self._stop_streams()
        except TimeoutError as error:  # rclpy would finalise the node
            self._failure = f'deactivation failed: {error}: deactivate again'
            self.get_logger().error(self._failure)
            return TransitionCallbackReturn.FAILURE
        self._failure = ''
        self._state = 'inactive'
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the device and remove the publishers."""
        self._release()
        self._state = 'unconfigured'
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop whatever runs and free the device."""
        self._stop_streams()
        self._release()
        self._state = 'finalized'
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Return to unconfigured, from where the node can be configured again."""
        self._stop_streams()
        self._release()
        self._state = 'unconfigured'
        return TransitionCallbackReturn.SUCCESS

    def _stop_streams(self) -> None:
        for subscription in self._inputs:
            self.destroy_subscription(subscription)
        self._inputs.clear()
        if self._quiet_timer is not None:
            self.destroy_timer(self._quiet_timer)
            self._quiet_timer = None
        if self._worker is not None:
            waiting = self._worker.stop()
            if waiting is not None:
                self._statistics.dropped('shutdown')
            self._worker = None
        if self._pairer is not None:
            self._pairer.clear('shutdown')
            self._report_pairer_drops()
        self._camera_info = None

    def _release(self) -> None:
        for publisher in self._outputs.values():
            self.destroy_lifecycle_publisher(publisher)
        self._outputs.clear()
        self._pairer = None
        self._preparation = None
        self._registrar = None
        if self._transforms is not None:
            self._transforms.close()
            self._transforms = None
        if self._fuser is not None:
            self._fuser.close()
            self._fuser = None

    # Messages in (the executor's thread)

    def _on_image(self, source: str, compressed: bool, message: Any) -> None:
        arrival = self._statistics.received(source)
        pairer, worker = self._pairer, self._worker
        if pairer is None or worker is None:
            self._statistics.dropped(f'{source} shutdown')
            return
        try:
            if not compressed:
                check(message, f'{source}/image_raw', max_pixels=self.values['max_pixels'])
        except CodecError as error:
            self._drop(f'{source} malformed', str(error))
            return
        stamp = stamp_of(message.header)
        arrived = ArrivedMessage(message, arrival)
        self._attendance.seen(source, stamp, arrival)
        if self._attendance.alone(source, self.values, arrival):
            # What waits for the missing camera would wait for ever.
            pairer.clear('without counterpart')
            self._report_pairer_drops()
            self._statistics.went_alone(source)
            self._offer(Work((source,), (arrived,), (stamp,)), worker)
            return
        self._hand_over(pairer.add(source, stamp, arrived), worker)
        if self._quiet_timer is not None and pairer.pending:
            self._quiet_timer.reset()

    def _on_quiet(self) -> None:
        if self._quiet_timer is not None:
            self._quiet_timer.cancel()
        if self._pairer is not None and self._worker is not None:
            self._hand_over(self._pairer.settle(), self._worker)

    def _hand_over(self, groups: list[ArrivedGroup], worker: LatestWorker[Work]) -> None:
        self._report_pairer_drops()
        for group in groups:
            self._statistics.paired(group.offset)
            self._attendance.paired(group.messages[0].arrival)
            self._offer(Work(self._sources, group.messages, group.stamps), worker)

    def _offer(self, work: Work, worker: LatestWorker[Work]) -> None:
        if worker.offer(work) is not None:
            self._statistics.dropped('superseded')

    def _on_camera_info(self, source: str, message: CameraInfo) -> None:
        if source == 'visible':
            self._camera_info = message
        if self._registrar is not None:
            self._registrar.camera_info(source, message)

    def _on_clock_jump(self, jump: TimeJump) -> None:
        if self._pairer is not None:
            self._pairer.clear('clock jump')
            self._report_pairer_drops()

    def _report_pairer_drops(self) -> None:
        """Move what the pairer has dropped since the last call to the statistics."""
        if self._pairer is None:
            return
        for cause, count in self._pairer.counters.items():
            new = count - self._reported_drops[cause]
            if cause != 'groups' and new > 0:
                self._statistics.dropped(cause, new)
                if cause.endswith('zero stamp'):
                    self._log(f'dropped ({cause}): the driver sends images without a time stamp')
            self._reported_drops[cause] = count

    def _drop(self, cause: str, reason: str) -> None:
        self._statistics.dropped(cause, reason=reason)
        self._log(f'dropped ({cause}): {reason}')

    def _log(self, text: str) -> None:
        self.get_logger().warning(text, throttle_duration_sec=_LOG_PERIOD)

    # From a group to the outputs (the worker's thread)

    def _process(self, work: Work) -> None:
        # Read once: all of one group is done with the same values.
        values = self.values
        try:
            prepared = self._prepare(work, values)
            result = self._fuse(prepared, values)
            height, width = result.image.shape[:2]
            self._resolution = f'{width}x{height}'
            self._publish(result, self._output_header(work), values)
        except Exception as error:  # nothing that one group does may end the node
            from dig2dig_ros.fusion.fuser import FusionCancelled

            if isinstance(error, FusionCancelled) or not self.context.ok():
                # A transition or a signal came while it was in work.
                self._statistics.dropped('shutdown')
            elif isinstance(error, PreparationError):
                if error.cause == 'registration':
                    self._unfused = (time.monotonic(), f'not registered: {error}')
                else:
                    self._note_refusal(error)
                self._drop(error.cause, str(error))
            elif is_out_of_memory(error):
                self._free_memory(error)
                self._unfused = (time.monotonic(), 'not fused: memory ran out')
                self._drop('out of memory', _first_line(error))
            else:
                self._unfused = (time.monotonic(), f'not fused: {error}')
                self._drop('fusion error', f'{type(error).__name__}: {error}')
            return
        arrival = max(arrived.arrival for arrived in work.messages)
        self._statistics.fused(arrival, result.statistics.seconds)
        if len(work.sources) > 1:
            try:
                self._alignment(prepared, work.stamps[0] * 1e-9, values)
            except Exception as error:  # the pair is out, and the worker has to go on
                self._log(f'the misalignment was not measured: {type(error).__name__}: {error}')

    def _is_stopping(self) -> bool:
        """Tell whether the fusion in work is not wanted any more."""
        worker = self._worker
        return (worker is not None and worker.is_stopping) or not self.context.ok()

    def _is_listened_to(self, topics: str) -> bool:
        """Tell whether anybody subscribed to one of the outputs whose topics begin so."""
        return any(
            publisher.get_subscription_count() > 0
            for topic, publisher in self._outputs.items()
            if topic.startswith(topics)
        )

    def _fuse(self, prepared: Prepared, values: Mapping[str, Any]) -> FusionResult:
        """
        Fuse; where memory runs out, once more with cheaper settings.

        They are likely to suffice, and the stream has no gap. A pair that fails again is not
        worth the time of the next one.
        """
        import torch

        assert self._fuser is not None
        # Only with this a new thread is sure to keep to num_threads.
        torch.get_num_threads()
        asked = fusion_settings(values)
        for is_last_attempt in (False, True):
            try:
                return self._fuser.fuse(
                    *prepared.images,
                    settings=self._fallback.settings_for(asked),
                    placements=prepared.placements,
                    trust=prepared.trust,
                    weights=self._is_listened_to('fused/weights/'),
                    cancelled=self._is_stopping,
                )
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                if not self._fallback.out_of_memory() or is_last_attempt:
                    raise
                self._free_memory(error)
                self._log(f'{self._fallback.warning()} ({_first_line(error)})')
        raise AssertionError('the last attempt returns or raises')

    def _free_memory(self, error: Exception) -> None:
        """Free what a fusion that ran out of memory has left behind."""
        # The tensors in all the frames that the error came through.
        traceback.clear_frames(error.__traceback__)
        if self._fuser is not None:
            self._fuser.free_memory()

    def _prepare(self, work: Work, values: Mapping[str, Any]) -> Prepared:
        assert self._preparation is not None
        group = []
        for source, arrived, stamp in zip(work.sources, work.messages, work.stamps, strict=True):
            compressed = values[f'{source}_transport'] == 'compressed'
            topic = f'{source}/image_raw' + ('/compressed' if compressed else '')
            group.append(Arrived(source, arrived.message, stamp, compressed, topic))
        if len(work.sources) == 1:
            prepared = self._preparation.alone(group[0], values)
        else:
            prepared = self._preparation(group, values)
        error = prepared.left_out
        if error is not None:
            self._note_refusal(error)
            self._statistics.left_out(error.source, f'{error.cause}: {error}')
            self._log(f'{error.source} left out ({error.cause}): {error}')
        if 'visible' in work.sources:
            self._visible_frame = work.messages[0].message.header.frame_id
        return prepared

    def _note_refusal(self, error: PreparationError) -> None:
        self._refused = {**self._refused, error.source: (time.monotonic(), str(error))}

    def _output_header(self, work: Work) -> Any:
        """Return the header of the visible image, or one that stands in for it."""
        header = work.messages[0].message.header
        if work.sources[0] == 'visible' or not self._visible_frame:
            return header
        return Header(stamp=header.stamp, frame_id=self._visible_frame)

    def _publish(self, result: FusionResult, header: Any, values: Mapping[str, Any]) -> None:
        """Publish a result under the header of its visible image; only what is listened to."""
        encoding = values['output_encoding']
        image = fused_picture(result.image, encoding)
        # camera_info first: who waits for both should have it when the image comes.
        info = self._camera_info
        if info is not None:
            self._outputs['fused/camera_info'].publish(_with_header(info, header))
        self._outputs['fused/image_raw'].publish(encode(image, encoding, header, Image))
        if not len(result.weights):  # nobody listened when it was fused
            return
        for source, weights in zip(self._sources, result.weights, strict=True):
            publisher = self._outputs[f'fused/weights/{source}']
            if publisher.get_subscription_count() > 0:
                map_encoding = values['weights_encoding']
                plane = weight_plane(weights, map_encoding)
                publisher.publish(encode(plane, map_encoding, header, Image))
        overlay = self._outputs['fused/weights/overlay']
        if overlay.get_subscription_count() > 0:
            picture = weight_overlay(result.image, result.weights)
            overlay.publish(encode(picture, 'bgr8', header, Image))

    # Diagnostics

    def _publish_diagnostics(self) -> None:
        level, text = self._health()
        table = {
            'state': self._state,
            **self._fuser_facts,
            **self._settings_table(),
            'resolution': self._resolution,
            **self._statistics.table(),
            **self._camera_table(),
            **self._alignment.table(),
        }
        if self._unknown_parameters:
            table['unknown parameters'] = self._unknown_parameters
        if self._registrar is not None:
            table['registration'] = self._registrar.describe(self.values)
        if self._fuser is not None:
            table.update(self._fuser.memory())
        status = DiagnosticStatus(
            level=level,
            name=f'{self.get_fully_qualified_name()}: fusion',
            message=text,
            hardware_id=self._fuser_facts.get('device', ''),
            values=[KeyValue(key=key, value=value) for key, value in table.items()],
        )
        array = DiagnosticArray(status=[status])
        array.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(array)

    def _settings_table(self) -> dict[str, str]:
        """Return the settings in force."""
        values = self.values
        try:
            return self._fallback.table(fusion_settings(values))
        except ValueError:  # what the command line gave does not fit together: none are
            return {'N': str(values['num_inference_steps'])}

    def _health(self) -> tuple[bytes, str]:
        if self._failure:
            return DiagnosticStatus.ERROR, self._failure
        if self._state != 'active':
            return DiagnosticStatus.OK, self._state
        now = time.monotonic()
        timeout = self.values['stale_timeout']
        warnings = []
        missing = self._attendance.missing(timeout, now)
        for source, subscription in zip(self._sources, self._inputs, strict=False):
            if source in missing:
                warnings.append(self._missing_text(source, subscription.topic_name, missing))
        if not missing:
            mismatch = self._attendance.mismatch(timeout, now)
            if mismatch is not None:
                warnings.append(mismatch)
        for source, (moment, reason) in self._refused.items():
            if source not in missing and now - moment < timeout:
                warnings.append(f'{source} images are refused: {reason}')
        moment, reason = self._unfused
        if now - moment < timeout:
            warnings.append(reason)
        lowered = self._fallback.warning()
        if lowered:
            warnings.append(lowered)
        if self._preparation is not None:
            for source, condition in self._preparation.images.conditions.items():
                if source not in missing:
                    warnings += condition.faults
        warning = self._alignment.warning(self.values)
        if warning:
            warnings.append(warning)
        if warnings:
            text = '; '.join(warnings)
            self.get_logger().warning(text, throttle_duration_sec=30.0)
            return DiagnosticStatus.WARN, text
        return DiagnosticStatus.OK, 'fusing'

    def _missing_text(self, source: str, topic: str, missing: Mapping[str, float | None]) -> str:
        silence = missing[source]
        text = (
            f'no {source} image on {topic} '
            + ('yet' if silence is None else f'for {silence:.1f} s')
            + f' (publishers: {self.count_publishers(topic)})'
            + self._attendance.complaint(source)
        )
        policy = self.values['missing_modality']
        live = [name for name in SOURCES if name not in missing and policy in (name, 'any')]
        return f'{text}: the {live[0]} image goes on alone' if live else text

    def _camera_table(self) -> dict[str, str]:
        """Return what diagnostics say of each camera's condition."""
        if self._preparation is None:
            return {}
        images = self._preparation.images
        missing = self._attendance.missing(self.values['stale_timeout'], time.monotonic())
        table = {}
        for source, condition in images.conditions.items():
            gone = source in missing
            table[f'{source} trust'] = f'{0.0 if gone else condition.trust:.2f}'
            table[f'{source} condition'] = (
                'missing' if gone else ', '.join(condition.kinds) or 'sound'
            )
        for what, count in sorted(images.changes.items()):
            table[what] = str(count)
        return table

    def close(self) -> str:
        """
        End the worker and free the device, whatever state the node is in.

        :return: what was received, fused and dropped, as one line.
        """
        self._diagnostics_timer.cancel()
        if self._worker is not None:
            self._stop_streams()
        self._release()
        return self._statistics.summary()


def _first_line(error: Exception) -> str:
    """Return an error without the stack of the library that it came from."""
    return f'{type(error).__name__}: {error}'.splitlines()[0]


def _with_header(info: CameraInfo, header: Any) -> CameraInfo:
    """Return a copy of ``info`` under another header."""
    derived = copy(info)
    derived.header = header
    return derived


def _run(node: FusionNode, executor: SingleThreadedExecutor) -> None:
    # A failure is logged and shown in diagnostics; the node stays, so that a parameter can be
    # put right and the node configured again.
    autostart = node.values['autostart']
    if autostart and node.trigger_configure() == TransitionCallbackReturn.SUCCESS:
        node.trigger_activate()
    executor.spin()


def main(args: list[str] | None = None) -> int:
    """Run the node until it is interrupted; return the process's exit code."""
    # Images leave by a thread of the middleware: with a subscriber that was stopped or killed,
    # Fast DDS makes its shared memory anew with every fragment until it gives the other one up.
    os.environ.setdefault('RMW_FASTRTPS_PUBLICATION_MODE', 'ASYNCHRONOUS')
    create = partial(FusionNode, sys.argv if args is None else args)
    return run_node(create, _run, FusionNode.close, args)


if __name__ == '__main__':
    sys.exit(main())
