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
The fusion node: two or more image streams in; the fused stream, weight maps and more out.

The executor's callbacks pass messages to the pipeline, which pairs them; the worker thread has the
pipeline prepare and fuse the latest pair, and publishes. Callbacks never wait for the fusion.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
import os
import sys
import time
from typing import Any, TYPE_CHECKING

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.clock import Clock, ClockType, JumpThreshold, TimeJump
from rclpy.duration import Duration
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn

from dig2dig_ros.nodes.camera_topics import (
    camera_info_topic,
    CameraInputs,
    image_topic,
    input_topics,
    publishers_of,
)
from dig2dig_ros.nodes.diagnostics import diagnostics_of
from dig2dig_ros.nodes.parameters import NodeParameters, print_help
from dig2dig_ros.nodes.publishing import output_topics, Outputs
from dig2dig_ros.nodes.remappings import stray_remappings
from dig2dig_ros.nodes.run import run_node
from dig2dig_ros.nodes.signals import until_unread
from dig2dig_ros.nodes.worker import LatestWorker, STOP_SECONDS
from dig2dig_ros.streams.outgoing_camera_info import OutgoingCameraInfo
from dig2dig_ros.streams.pairing import SOURCES
from dig2dig_ros.streams.parameters import fusion_settings, PARAMETERS
from dig2dig_ros.streams.pipeline import Pipeline
from dig2dig_ros.streams.preparation import Work
from dig2dig_ros.streams.registrar import FROM_TF, Pose

if TYPE_CHECKING:
    # Imports torch, which takes seconds: imported in on_configure at run time.
    from dig2dig_ros.fusion.fuser import Fuser

# At most one log line in this many seconds for problems that may occur with every frame.
_LOG_PERIOD = 5.0
# Seconds for a pair after which something is wrong with the device or the settings.
_LONG_SECONDS = 10.0
# When no camera has sent anything for this many seconds, whatever can be paired is paired.
_QUIET_SECONDS = 0.2
# Seconds for the last messages to leave before the process ends.
_LAST_WORDS_SECONDS = 0.3


class DeviceLost(RuntimeError):
    """The device has failed for good in this process, which must be restarted."""


class FusionNode(LifecycleNode):  # type: ignore[misc]
    """Lifecycle node that pairs, fuses and publishes; see docs/topics.md for its interface."""

    def __init__(self, arguments: Sequence[str] = ()) -> None:
        """Declare the parameters, and warn about arguments that have no effect."""
        super().__init__('fusion_node')
        self._arguments = arguments
        self._state = 'unconfigured'
        self._failure = ''
        self._sources: tuple[str, ...] = SOURCES
        self._pipeline: Pipeline | None = None
        self._fuser: Fuser | None = None
        self._worker: LatestWorker[Work] | None = None
        # Torch's own choice, before it is changed.
        self._usual_threads = 0
        self._transforms: Any = None
        self._device_facts: dict[str, str] = {}
        self._outputs: Outputs | None = None
        self._inputs: CameraInputs | None = None
        self._quiet_timer: Any = None
        self._node_parameters = NodeParameters(self, lambda: self._state, self._on_parameters)
        self._unknown_parameters = ', '.join(self._node_parameters.warn_of_unknown(arguments))
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', 10)
        # A steady timer: diagnostics matter most when simulated time stands still.
        self._diagnostics_timer = self.create_timer(
            self.values['diagnostics_period'],
            self.publish_diagnostics,
            clock=Clock(clock_type=ClockType.STEADY_TIME),
        )
        self._jump_handle = self.get_clock().create_jump_callback(
            JumpThreshold(
                min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=True
            ),
            post_callback=self._on_clock_jump,
        )

    @property
    def lost(self) -> str:
        """Why this process can no longer fuse, if so: see :class:`Pipeline`."""
        return '' if self._pipeline is None else self._pipeline.lost

    @property
    def values(self) -> Mapping[str, Any]:
        """Return the current parameters by name."""
        return self._node_parameters.values

    def _on_parameters(self, values: Mapping[str, Any]) -> None:
        if self._pipeline is not None:
            self._pipeline.values = values

    # Lifecycle

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the prior, warm up at the real resolution, and create the publishers."""
        if not self._succeeds('configuration', self._configure, self._release):
            return TransitionCallbackReturn.FAILURE
        self._state = 'inactive'
        return TransitionCallbackReturn.SUCCESS

    def _succeeds(self, what: str, begin: Callable[[], None], undo: Callable[[], None]) -> bool:
        try:
            begin()
        except Exception as error:  # rclpy would swallow it
            self._failure = f'{what} failed: {error}'
            self.get_logger().error(self._failure)
            undo()
            return False
        self._failure = ''
        return True

    def _configure(self) -> None:
        self._node_parameters.declare_transports()
        values = self.values
        self._diagnostics_timer.timer_period_ns = round(1e9 * values['diagnostics_period'])
        self._diagnostics_timer.reset()  # or the next message would come when the old one was due
        self._sources = (*SOURCES, *values['additional_sources'])
        topics = (*input_topics(self._sources), *output_topics(self._sources))
        for text in stray_remappings(self, self._arguments, topics):
            self.get_logger().warning(text)
        pipeline = Pipeline(
            values,
            {source: self._image_topic(source) for source in self._sources},
            look_up=self._pose_from_tf(values),
            publishers=lambda name: publishers_of(self, name, self._is_compressed(name)),
            camera_info=OutgoingCameraInfo(
                camera_info_topic(self, 'visible'),
                lambda: self._outputs is not None and self._outputs.wants_camera_info(),
            ),
            log=self._log,
        )
        pipeline.fuser = self._load_fuser(values)
        self._pipeline = pipeline
        self._outputs = Outputs(self, self._sources)

    def _image_topic(self, source: str) -> str:
        """Return the full name of the image topic of a source."""
        topic = image_topic(self, source, self._is_compressed(source))
        return str(self.resolve_topic_name(topic))

    def _is_compressed(self, source: str) -> bool:
        return bool(self.values[f'{source}_transport'] == 'compressed')

    def _pose_from_tf(self, values: Mapping[str, Any]) -> Callable[[str, str], Pose] | None:
        if values['extrinsics'] != FROM_TF:
            return None
        from dig2dig_ros.nodes.transforms import Transforms

        transforms = self._transforms = Transforms(self)
        return transforms.pose

    def _load_fuser(self, values: Mapping[str, Any]) -> Fuser:
        # Read by OpenMP when torch loads. Spinning threads would take cores from the robot's
        # other processes, and from this one's callbacks.
        os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
        try:
            import torch

            from dig2dig_ros.fusion.fuser import Fuser
        except ImportError as error:
            raise RuntimeError(
                f'{error}, for {sys.executable}: install PyTorch and safetensors for this '
                'interpreter (docs/install.md says which build for which platform)'
            ) from error
        self._usual_threads = self._usual_threads or torch.get_num_threads()
        torch.set_num_threads(values['num_threads'] or self._usual_threads)
        fuser = self._fuser = Fuser(
            fusion_settings(values),
            prior=values['prior'],
            device=values['device'],
            precision=values['precision'],
        )
        width, height = values['warmup_size']
        warm_up = fuser.warm_up(width, height, len(self._sources))
        facts = fuser.describe()
        self._device_facts = {key: str(facts[key]) for key in ('device', 'precision', 'prior')}
        self.get_logger().info(
            f'torch {facts["torch"]} of {sys.executable}, device {facts["device"]}, '
            f'precision {facts["precision"]}, denoiser {facts["prior"]}, N {facts["N"]}, '
            f'S {facts["S"]}, resolution {width}x{height}, warm-up {warm_up:.2f} s'
        )
        return fuser

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start the worker and subscribe."""
        if not self._succeeds('activation', self._start_streams, self._stop_streams):
            return TransitionCallbackReturn.FAILURE
        self._state = 'active'
        return super().on_activate(state)

    def _start_streams(self) -> None:
        pipeline = self._pipeline
        assert pipeline is not None
        pipeline.restart()
        self._worker = LatestWorker(self._process, pipeline.failed)
        self._inputs = CameraInputs(
            self,
            {source: self._is_compressed(source) for source in self._sources},
            self._on_image,
            pipeline.camera_info,
            SOURCES if pipeline.registrar.wants_camera_info else SOURCES[:1],
        )
        self._quiet_timer = self.create_timer(
            _QUIET_SECONDS, self._on_quiet, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe and cancel the current pair; fails if that takes too long."""
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
        """Stop everything and free the device."""
        return self._end('shutdown', 'finalized')

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Return to unconfigured, so that the node can be configured again."""
        return self._end('the way back from an error', 'unconfigured')

    def _end(self, what: str, state: str) -> TransitionCallbackReturn:
        try:
            self._stop_streams()
        except TimeoutError as error:  # the node is finalised then, in either case
            self._failure = f'{what} failed: {error}: end the process'
            self.get_logger().error(self._failure)
            self._state = 'finalized'
            return TransitionCallbackReturn.FAILURE
        self._release()
        self._state = state
        return TransitionCallbackReturn.SUCCESS

    def _finish_ending(self) -> None:
        """Free what was still in use when the node had to be finalised."""
        if self._state == 'finalized' and self._worker is not None:
            try:
                self._stop_streams(0.0)
            except TimeoutError:
                return
            self._release()
            self._failure = ''

    def _stop_streams(self, timeout: float = STOP_SECONDS) -> None:
        if self._inputs is not None:
            self._inputs.close()
            self._inputs = None
        if self._quiet_timer is not None:
            self.destroy_timer(self._quiet_timer)
            self._quiet_timer = None
        waiting = None
        if self._worker is not None:
            waiting = self._worker.stop(timeout)
            self._worker = None
        if self._pipeline is not None:
            if waiting is not None:
                self._pipeline.statistics.dropped('shutdown')
            self._pipeline.clear('shutdown')

    def _release(self) -> None:
        held = (self._outputs, self._transforms, self._fuser)
        self._outputs = self._transforms = self._fuser = None
        if self._pipeline is not None:  # its counters stay until the next configuration
            self._pipeline.fuser = None
        for each in held:
            try:
                if each is not None:
                    each.close()
            except Exception as error:  # of a failed device, for example: the rest is still freed
                self._log(f'not freed: {type(error).__name__}: {error}')

    # Messages in (the executor's thread)

    def _on_image(self, source: str, message: Any) -> None:
        pipeline = self._pipeline
        if pipeline is None or self._worker is None:  # unsubscribed in the meantime
            return
        self._offer(pipeline.add(source, message, time.monotonic_ns()), self._worker)
        if self._quiet_timer is not None and pipeline.pending:
            self._quiet_timer.reset()

    def _on_quiet(self) -> None:
        if self._quiet_timer is not None:
            self._quiet_timer.cancel()
        if self._pipeline is not None and self._worker is not None:
            self._offer(self._pipeline.settle(), self._worker)

    def _offer(self, works: list[Work], worker: LatestWorker[Work]) -> None:
        for work in works:
            if worker.offer(work) is not None:
                assert self._pipeline is not None
                self._pipeline.statistics.dropped('superseded')

    def _on_clock_jump(self, jump: TimeJump) -> None:
        if self._pipeline is not None:
            self._pipeline.clear('clock jump')

    def _log(self, text: str) -> None:
        self.get_logger().warning(text, throttle_duration_sec=_LOG_PERIOD)

    # Fused images out (the worker's thread)

    def _process(self, work: Work) -> None:
        pipeline, outputs = self._pipeline, self._outputs
        if pipeline is not None and outputs is not None:
            pipeline.process(
                work,
                weights=outputs.wants_weights,
                restored=outputs.wants_restored,
                cancelled=self._is_stopping,
                deliver=lambda fused: outputs.publish(fused, self.values),
            )

    def _is_stopping(self) -> bool:
        """Return whether the current fusion should be cancelled."""
        worker = self._worker
        return (worker is not None and worker.is_stopping) or not self.context.ok()

    # Diagnostics

    def publish_diagnostics(self) -> None:
        """Publish the state of the node, in any state."""
        self._finish_ending()
        tables: list[Callable[[], Mapping[str, str]]] = [self._own_table]
        if self._pipeline is not None:
            tables.append(self._pipeline.table)
        if self._fuser is not None:
            tables.append(self._fuser.memory)
        hardware = self._device_facts.get('device', '')
        self._diagnostics.publish(diagnostics_of(self, 'fusion', self._health, tables, hardware))

    def _own_table(self) -> dict[str, str]:
        table = {'state': self._state, **self._device_facts}
        if self._unknown_parameters:
            table['unknown parameters'] = self._unknown_parameters
        return table

    def _health(self) -> tuple[bytes, str]:
        if self._failure:
            return DiagnosticStatus.ERROR, self._failure
        if self._state != 'active' or self._pipeline is None:
            return DiagnosticStatus.OK, self._state
        if self.lost:
            return DiagnosticStatus.ERROR, self.lost
        warnings = self._pipeline.health()
        busy = 0.0 if self._worker is None else self._worker.busy_seconds
        if busy > _LONG_SECONDS:
            warnings.append(
                f'the current pair has taken {busy:.0f} s so far: use fewer steps, a smaller '
                'denoiser or smaller images'
            )
        text = '; '.join(warnings)
        if text:
            self.get_logger().warning(text, throttle_duration_sec=30.0)
            return DiagnosticStatus.WARN, text
        return DiagnosticStatus.OK, 'fusing'

    def close(self) -> str:
        """
        End the worker and free the device, in any state.

        :return: the counters as one line.
        """
        self._diagnostics_timer.cancel()
        self._stop_streams()
        self._release()
        return (
            'never configured' if self._pipeline is None else self._pipeline.statistics.summary()
        )


def _run(node: FusionNode, executor: SingleThreadedExecutor) -> None:
    # A failure is logged and shown in diagnostics; the node stays, so that a parameter can be
    # corrected and the node configured again.
    autostart = node.values['autostart']
    if autostart and node.trigger_configure() == TransitionCallbackReturn.SUCCESS:
        node.trigger_activate()
    # The diagnostics' timer, at the latest, lets it look.
    while node.context.ok() and not node.lost:
        executor.spin_once()
    if node.lost:
        node.publish_diagnostics()
        time.sleep(_LAST_WORDS_SECONDS)
        raise DeviceLost(f'{node.lost}; restart it (respawn:=true of the launch file does that)')


def main(args: list[str] | None = None) -> int:
    """Run the node until it is interrupted; return the process's exit code."""
    arguments = sys.argv if args is None else args
    if print_help(arguments, 'Fuses a visible and a thermal image stream.', PARAMETERS):
        return 0
    # A middleware thread sends the images: after a subscriber was stopped or killed, Fast DDS
    # maps its shared memory again for every fragment, until it drops that subscriber.
    os.environ.setdefault('RMW_FASTRTPS_PUBLICATION_MODE', 'ASYNCHRONOUS')
    create = partial(FusionNode, arguments)
    return run_node(create, _run, FusionNode.close, args, refusals=(DeviceLost,))


if __name__ == '__main__':
    sys.exit(until_unread(main))
