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
A visible and a thermal camera without hardware: image pairs of a folder, or the synthetic street.

Sends the images of :mod:`dig2dig_ros.evaluation.camera_sources`, each when it is due.

On request, the cameras are like real ones: they point in different directions, have imperfect
lenses and sensors, and fail for a while (:mod:`dig2dig_ros.evaluation.camera_faults`).
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from functools import partial
import os
import random
import sys
import time
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
import rclpy
from rclpy.duration import Duration
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from dig2dig_ros.evaluation.camera_faults import Alteration, Fault, FaultyCamera
from dig2dig_ros.evaluation.camera_sources import (
    Capture,
    DirectorySource,
    PARAMETERS,
    StreetSource,
)
from dig2dig_ros.evaluation.imperfect_cameras import CameraGeometry, ImperfectionError
from dig2dig_ros.fusion.parameter_spec import ParameterSpec
from dig2dig_ros.images.image_pairs import ImagePairError
from dig2dig_ros.nodes.parameters import descriptor, print_help, warn_of_unknown
from dig2dig_ros.nodes.remappings import stray_remappings
from dig2dig_ros.nodes.run import run_node
from dig2dig_ros.nodes.signals import until_unread
from dig2dig_ros.resources import fast_dds_environment
from dig2dig_ros.streams.codec import decode, decode_compressed, encode, encode_compressed
from dig2dig_ros.streams.pairing import Source, SOURCES

_NANOSECONDS = 1_000_000_000
# After a delay of more than this many seconds, the schedule is shifted.
_LATEST = 0.5


def pack(pixels: NDArray[Any], encoding: str, source: Source, transport: str) -> Any:
    """Return pixels as a message without a header: raw, or compressed as by image_transport."""
    if transport == 'raw':
        return encode(pixels, encoding, Header(), Image)
    kind = 'jpeg' if source == 'visible' else 'png'
    return encode_compressed(pixels, encoding, Header(), CompressedImage, kind=kind)


def altered(capture: Capture, alteration: Alteration, source: Source) -> Capture:
    """Return an image with its pixels altered, for the same transport."""
    message = capture.message
    if isinstance(message, CompressedImage):
        transport, encoding = 'compressed', message.format.split(';')[0]
        pixels = decode_compressed(message)
    else:
        transport, encoding = 'raw', message.encoding
        # Blue first, whatever the encoding was; the new message states its own order.
        pixels = decode(message)
    pixels, encoding = alteration(pixels, encoding)
    camera = capture.camera.resized((pixels.shape[1], pixels.shape[0]))
    return Capture(pack(pixels, encoding, source, transport), camera)


class PairCamera(Node):  # type: ignore[misc]
    """
    Publishes the images of a source when they are due.

    :param arguments: the command line, to warn about parts that have no effect.
    :raises ImagePairError: the folder holds no pairs.
    :raises ImperfectionError: a parameter describes an impossible camera or fault.
    """

    def __init__(self, arguments: Sequence[str] = ()) -> None:
        super().__init__('pair_camera')
        values = {spec.name: self._declare(spec) for spec in PARAMETERS}
        warn_of_unknown(self, values, arguments)
        self._values = values
        self._random = random.Random(values['seed'])
        self._images, self._infos = {}, {}
        topics: list[str] = []
        for source in SOURCES:
            is_compressed = values[f'{source}_transport'] == 'compressed'
            topic = f'{source}/image_raw/compressed' if is_compressed else f'{source}/image_raw'
            kind = CompressedImage if is_compressed else Image
            self._images[source] = self._publisher(kind, topic)
            self._infos[source] = self._publisher(CameraInfo, f'{source}/camera_info')
            topics += topic, f'{source}/camera_info'
        for text in stray_remappings(self, arguments, topics):
            self.get_logger().warning(text)
        faults = [Fault.parse(text) for text in values['faults']]
        self._faulty: dict[Source, FaultyCamera[Capture]] = {
            source: FaultyCamera(source, faults, partial(altered, source=source), values['seed'])
            for source in SOURCES
        }
        # Stamps of the last images, in nanoseconds.
        self._stamps: dict[Source, int] = {}
        # Steady clock and node's clock in nanoseconds; images of one instant share them exactly.
        self._exposure = (-1, 0)
        self.sent: dict[Source, int] = dict.fromkeys(SOURCES, 0)
        self.source: StreetSource | DirectorySource = (
            DirectorySource(values, self._pack, self.get_logger().warning)
            if values['directory']
            else StreetSource(values, self._pack)
        )

    def _pack(self, pixels: NDArray[Any], encoding: str, source: Source) -> Any:
        return pack(pixels, encoding, source, self._values[f'{source}_transport'])

    def _publisher(self, message_type: Any, topic: str) -> Any:
        return self.create_publisher(
            message_type,
            topic,
            # One object each: an override by parameter changes it.
            QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE),
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )

    def _declare(self, spec: ParameterSpec) -> Any:
        described = descriptor(spec)
        # The images are prepared for these values.
        described.additional_constraints = ''
        described.read_only = True
        value = self.declare_parameter(spec.name, spec.default, described).value
        if value is None:  # an empty list from a command line
            value = []
        elif isinstance(value, array):
            value = value.tolist()
        problem = spec.problem(value)
        if problem is not None:
            raise ImperfectionError(problem)
        return value

    def run(self, executor: SingleThreadedExecutor) -> None:
        """
        Prepare, wait for subscribers, and send until the end or until the context ends.

        :raises ImagePairError: no pair of the folder can be read.
        """
        self.get_logger().info(f'preparing {self.source.description}')
        begin = time.monotonic()
        for _ in self.source.prepare():
            if not rclpy.ok():
                return
            executor.spin_once(timeout_sec=0.0)
        self.get_logger().info(
            f'ready after {time.monotonic() - begin:.1f} s; waiting for subscribers'
        )
        self._wait_for_subscribers(executor)
        start = time.monotonic_ns()
        last = 0.0
        for exposure, source, image in self.source.schedule():
            due = start + round(exposure * _NANOSECONDS)
            self._spin_until(executor, due)
            if not rclpy.ok():
                return
            late = (time.monotonic_ns() - due) / _NANOSECONDS
            if late > _LATEST:
                # If the process was paused, continue from here instead of sending a burst.
                start += round(late * _NANOSECONDS)
                due += round(late * _NANOSECONDS)
            self._send(source, image, exposure, due)
            last = exposure
        self._spin_until(executor, start + round((last + 0.1) * _NANOSECONDS))
        self._see_off(executor)

    def _spin_until(self, executor: SingleThreadedExecutor, due: int) -> None:
        """Spin until ``due``, in nanoseconds of the steady clock."""
        while rclpy.ok():
            rest = (due - time.monotonic_ns()) / _NANOSECONDS
            if rest <= 0:
                return
            executor.spin_once(timeout_sec=rest)

    def _wait_for_subscribers(self, executor: SingleThreadedExecutor) -> None:
        end = time.monotonic_ns() + round(self._values['wait_for_subscribers'] * _NANOSECONDS)
        while time.monotonic_ns() < end and rclpy.ok():
            counts = [publisher.get_subscription_count() for publisher in self._images.values()]
            if min(counts) >= self._values['min_subscribers']:
                # They may discover us a little later than we discover them.
                self._spin_until(executor, time.monotonic_ns() + _NANOSECONDS // 2)
                return
            self._spin_until(executor, time.monotonic_ns() + _NANOSECONDS // 20)

    def _see_off(self, executor: SingleThreadedExecutor) -> None:
        """Give the subscribers time to receive the last images."""
        if not rclpy.ok():
            return
        for publisher in self._images.values():
            publisher.wait_for_all_acked(Duration(seconds=2))
        self._spin_until(executor, time.monotonic_ns() + _NANOSECONDS // 2)

    def _send(self, source: Source, image: Capture, exposure: float, due: int) -> None:
        """Publish an image that was due at ``due`` nanoseconds of the steady clock."""
        if self._exposure[0] != due:
            # The due time on the node's clock: our own delay does not delay an exposure.
            moment = self.get_clock().now().nanoseconds - (time.monotonic_ns() - due)
            self._exposure = (due, moment)
        error = self._random.uniform(-1, 1) * self._values['stamp_jitter']
        if source == 'thermal':
            error += self._values['thermal_offset']
        sent = self._faulty[source].send(exposure, image)
        if sent is None:
            return
        if not sent.repeats_stamp:
            stamp = self._exposure[1] + round((error + sent.late) * _NANOSECONDS)
            self._stamps[source] = max(0, stamp)
        message = sent.image.message
        message.header = Header(
            stamp=Time(nanoseconds=self._stamps[source]).to_msg(),
            frame_id=f'{source}_optical_frame',
        )
        self._infos[source].publish(camera_info(sent.image.camera, message.header))
        self._images[source].publish(message)
        self.sent[source] += 1

    def summary(self) -> str:
        """Return what was sent, in one line."""
        visible, thermal = self.sent['visible'], self.sent['thermal']
        return f'sent: visible={visible}, thermal={thermal}, pairs={min(visible, thermal)}'


def camera_info(camera: CameraGeometry, header: Header) -> CameraInfo:
    """Return the CameraInfo of a calibrated camera, under the header of an image."""
    matrix = camera.matrix
    return CameraInfo(
        header=header,
        width=camera.size[0],
        height=camera.size[1],
        distortion_model=camera.model,
        d=camera.distortion.tolist(),
        k=matrix.ravel().tolist(),
        r=np.eye(3).ravel().tolist(),
        p=np.column_stack([matrix, np.zeros(3)]).ravel().tolist(),
    )


def main(args: list[str] | None = None) -> int:
    """Send until the end or an interruption; return the process's exit code."""
    arguments = sys.argv if args is None else args
    if print_help(arguments, 'Stands in for a visible and a thermal camera.', PARAMETERS):
        return 0
    # Leave the cores to the fusion.
    cv2.setNumThreads(1)
    # Images only fit into a larger shared-memory segment, which is set by the sender.
    os.environ.update(fast_dds_environment())
    refusals = (ImagePairError, ImperfectionError)
    create = partial(PairCamera, arguments)
    return run_node(create, PairCamera.run, PairCamera.summary, args, refusals)


if __name__ == '__main__':
    sys.exit(until_unread(main))
