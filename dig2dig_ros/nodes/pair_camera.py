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
A visible and a thermal camera that need no hardware: image pairs of a directory, or a street.

Without a directory, a moving night street is rendered before the first image is sent, so that
sending costs next to nothing afterwards; the two cameras run at rates of their own. With a
directory, both images of a pair belong to one instant, and each keeps its size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
import math
import os
from pathlib import Path
import random
import sys
import time
from typing import Any

import cv2
import numpy as np
import rclpy
from rclpy.duration import Duration
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from dig2dig_ros.evaluation.image_pairs import (
    find_pairs,
    ImagePair,
    ImagePairError,
    load_pair,
    unpaired,
)
from dig2dig_ros.evaluation.synthetic_scene import SyntheticScene
from dig2dig_ros.nodes.parameters import ParameterSpec
from dig2dig_ros.nodes.process import run_node
from dig2dig_ros.streams.codec import encode
from dig2dig_ros.streams.pairing import Source, SOURCES
from dig2dig_ros.tools.resources import fast_dds_environment

# Of images held in memory: rendered frames, or pairs that were read before.
_MEMORY = 200_000_000
# More visible images than this would take long to render.
_MOST_FRAMES = 600
_SHORTEST_LOOP, _LONGEST_LOOP = 4.0, 20.0
_NANOSECONDS = 1_000_000_000
# After a longer delay than this many seconds the schedule moves.
_LATEST = 0.5

PARAMETERS: tuple[ParameterSpec, ...] = (
    ParameterSpec(
        'directory',
        '',
        'Directory of pairs: two folders of same-named images, or NAME_A and NAME_B; empty for '
        'the synthetic street.',
    ),
    ParameterSpec('width', 640, 'Of the street in pixels.', minimum=64, maximum=3840),
    ParameterSpec('height', 512, 'Of the street in pixels.', minimum=48, maximum=2160),
    ParameterSpec(
        'visible_rate',
        30.0,
        'Visible images a second, in Hz; a directory is sent at thermal_rate.',
        minimum=0.01,
        maximum=240.0,
    ),
    ParameterSpec(
        'thermal_rate',
        9.0,
        'Thermal images a second, in Hz.',
        minimum=0.01,
        maximum=240.0,
    ),
    ParameterSpec(
        'thermal_offset',
        0.0,
        'Seconds by which a thermal stamp is later than its exposure.',
        minimum=-10.0,
        maximum=10.0,
    ),
    ParameterSpec(
        'stamp_jitter',
        0.0,
        'Largest random error of every stamp in seconds, uniform to either side.',
        minimum=0.0,
        maximum=1.0,
    ),
    ParameterSpec(
        'count',
        0,
        'Pairs (thermal images) to send before the node ends with exit code 0; 0 for no end.',
        minimum=0,
        maximum=2**31 - 1,
    ),
    ParameterSpec('loop', True, 'Start a directory over after its last pair.'),
    ParameterSpec(
        'seed',
        0,
        'Of the street and of the jitter.',
        minimum=0,
        maximum=2**31 - 1,
    ),
    ParameterSpec(
        'wait_for_subscribers',
        10.0,
        'Longest wait in seconds until both image topics have their subscribers.',
        minimum=0.0,
        maximum=3600.0,
    ),
    ParameterSpec(
        'min_subscribers',
        1,
        'Subscribers of each image topic to wait for; discovery may find them seconds apart.',
        minimum=1,
        maximum=100,
    ),
)


@dataclass(frozen=True)
class Shot:
    """
    An image to send.

    :param exposure: seconds after the first image.
    :param source: visible or thermal.
    :param image: without a header.
    """

    exposure: float
    source: Source
    image: Image


def loop_frames(visible_rate: float, thermal_rate: float, seconds: float) -> tuple[int, int]:
    """
    Return how many visible and thermal images make a loop of at most ``seconds``.

    Of all whole numbers of visible images in the upper half of that time, the one whose time is
    nearest to a whole number of thermal images, so that both streams begin anew together.
    """
    most = max(1, int(visible_rate * seconds + 1e-9))

    def error(frames: int) -> float:
        thermal = frames * thermal_rate / visible_rate
        return abs(thermal - max(1, round(thermal))) / thermal_rate

    frames = min(range(most, most // 2, -1), key=lambda n: round(error(n), 9))
    return frames, max(1, round(frames * thermal_rate / visible_rate))


@dataclass
class _Stream:
    """
    The images of one camera of the street, in steps of equal time.

    :param rate: images a second.
    :param count: images that are rendered.
    :param step: seconds from one rendered image to the next.
    """

    rate: float
    count: int
    step: float
    images: list[Image]

    def image(self, index: int) -> Image:
        """Return what to send as the image ``index``, in a loop."""
        return self.images[math.floor(index / self.rate / self.step + 1e-6) % self.count]


class StreetSource:
    """
    Two free-running cameras on the synthetic street, rendered beforehand.

    What a bounded number of pairs needs is rendered as it is where it fits into the memory;
    anything longer is a loop without a seam.

    :param values: the node's parameters.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._visible_rate: float = values['visible_rate']
        self._thermal_rate: float = values['thermal_rate']
        self._count: int = values['count']
        visible_rate, thermal_rate, count = self._visible_rate, self._thermal_rate, self._count
        width, height = values['width'], values['height']
        size: dict[Source, int] = {'visible': 3 * width * height, 'thermal': 2 * width * height}
        period = 12.0
        if (
            count > 0
            and max(self._visible_count(), count) <= _MOST_FRAMES
            and self._visible_count() * size['visible'] + count * size['thermal'] <= _MEMORY
        ):
            visible = _Stream(visible_rate, self._visible_count(), 1 / visible_rate, [])
            thermal = _Stream(thermal_rate, count, 1 / thermal_rate, [])
        else:
            # Images of the stream that needs more memory are sent twice, three times, ...
            rate: dict[Source, float] = {'visible': visible_rate, 'thermal': thermal_rate}
            repeat = dict.fromkeys(SOURCES, 1)
            load = {source: size[source] * rate[source] for source in SOURCES}
            while sum(load.values()) * _SHORTEST_LOOP > _MEMORY:
                heavy = max(SOURCES, key=lambda source: load[source])
                repeat[heavy] += 1
                load[heavy] = size[heavy] * rate[heavy] / repeat[heavy]
            slow = [rate[source] / repeat[source] for source in SOURCES]
            seconds = min(_LONGEST_LOOP, _MEMORY / sum(load.values()), _MOST_FRAMES / max(slow))
            visible_count, thermal_count = loop_frames(slow[0], slow[1], seconds)
            period = visible_count / slow[0]
            visible = _Stream(visible_rate, visible_count, period / visible_count, [])
            thermal = _Stream(thermal_rate, thermal_count, period / thermal_count, [])
        self._streams: dict[Source, _Stream] = {'visible': visible, 'thermal': thermal}
        self._scene = SyntheticScene(width, height, seed=values['seed'], period=period)
        self.description = (
            f'a synthetic street of {width}x{height}, visible at {visible_rate:g} Hz, thermal at '
            f'{thermal_rate:g} Hz'
        )

    def _visible_count(self) -> int:
        """Return the visible images until one comes after the last thermal image."""
        end = (self._count - 1) / self._thermal_rate
        return math.floor(end * self._visible_rate + 1e-6) + 2

    def prepare(self) -> Iterator[None]:
        """Render; yields after each frame, so that the caller may stop."""
        wanted: dict[float, list[Source]] = {}
        for source, stream in self._streams.items():
            for index in range(stream.count):
                wanted.setdefault(round(index * stream.step, 6), []).append(source)
        for moment in sorted(wanted):
            frame = self._scene.render(moment)
            for source in wanted[moment]:
                image = (
                    encode(frame.visible, 'bgr8', Header(), Image)
                    if source == 'visible'
                    else encode(frame.thermal, 'mono16', Header(), Image)
                )
                self._streams[source].images.append(image)
            yield

    def shots(self) -> Iterator[Shot]:
        """Return the images by exposure; visible first where they coincide."""
        index = dict.fromkeys(SOURCES, 0)
        end: dict[Source, float] = {'visible': math.inf, 'thermal': math.inf}
        if self._count:
            end = {'visible': self._visible_count(), 'thermal': self._count}
        while True:
            running = [source for source in SOURCES if index[source] < end[source]]
            if not running:
                return
            exposure = {name: index[name] / self._streams[name].rate for name in running}
            source = min(running, key=lambda name: round(exposure[name], 9))
            yield Shot(exposure[source], source, self._streams[source].image(index[source]))
            index[source] += 1


class DirectorySource:
    """
    The pairs of a directory, one after the other.

    :param values: the node's parameters.
    :raises ImagePairError: the directory holds no pairs.
    """

    def __init__(self, values: Mapping[str, Any], log: Any) -> None:
        directory = Path(values['directory']).expanduser()
        self._pairs = find_pairs(directory)
        self._rate = values['thermal_rate']
        self._count = values['count']
        self._loop = values['loop']
        self._log = log
        self._kept: dict[str, tuple[Image, Image]] = {}
        self._kept_bytes = 0
        self.description = f'{len(self._pairs)} pairs of {directory} at {self._rate:g} Hz'
        alone = unpaired(directory)
        if alone:
            some = ', '.join(alone[:5]) + (', ...' if len(alone) > 5 else '')
            log.warning(f'{len(alone)} images of {directory} have no counterpart: {some}')

    def prepare(self) -> Iterator[None]:
        """Do nothing: pairs are read as they are needed."""
        return iter(())

    def shots(self) -> Iterator[Shot]:
        """
        Return visible and thermal image of one pair after the other; unreadable ones are left out.

        :raises ImagePairError: none of the pairs can be read.
        """
        sent = 0
        while True:
            readable = 0
            for pair in self._pairs:
                if self._count and sent == self._count:
                    return
                images = self._read(pair)
                if images is None:
                    continue
                readable += 1
                for source, image in zip(SOURCES, images, strict=True):
                    yield Shot(sent / self._rate, source, image)
                sent += 1
            if not readable:
                raise ImagePairError(f'none of the {len(self._pairs)} pairs can be read')
            if not self._loop:
                return

    def _read(self, pair: ImagePair) -> tuple[Image, Image] | None:
        if pair.name in self._kept:
            return self._kept[pair.name]
        try:
            visible, thermal = load_pair(pair)
        except ImagePairError as error:
            self._log.warning(f'left out {pair.name}: {error}')
            return None
        encoding = 'mono8' if thermal.dtype == np.uint8 else 'mono16'
        images = (
            encode(visible, 'bgr8', Header(), Image),
            encode(thermal, encoding, Header(), Image),
        )
        size = visible.nbytes + thermal.nbytes
        if self._kept_bytes + size <= _MEMORY:
            self._kept[pair.name] = images
            self._kept_bytes += size
        return images


class PairCamera(Node):  # type: ignore[misc]
    """
    Publishes the images of a source when they are due.

    :raises ImagePairError: the directory holds no pairs.
    """

    def __init__(self) -> None:
        super().__init__('pair_camera')
        values = {spec.name: self._declare(spec) for spec in PARAMETERS}
        self._values = values
        self._random = random.Random(values['seed'])
        self._images, self._infos = (
            {
                source: self.create_publisher(
                    message_type,
                    f'{source}/{topic}',
                    # One each: an override by parameter changes the object.
                    QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE),
                    qos_overriding_options=QoSOverridingOptions.with_default_policies(),
                )
                for source in SOURCES
            }
            for message_type, topic in ((Image, 'image_raw'), (CameraInfo, 'camera_info'))
        )
        # Steady and node's clock in nanoseconds; images of one instant share it exactly.
        self._exposure = (-1, 0)
        self.sent: dict[Source, int] = dict.fromkeys(SOURCES, 0)
        self.source: StreetSource | DirectorySource = (
            DirectorySource(values, self.get_logger())
            if values['directory']
            else StreetSource(values)
        )

    def _declare(self, spec: ParameterSpec) -> Any:
        descriptor = spec.descriptor()
        # What is sent is prepared for these values.
        descriptor.additional_constraints = ''
        descriptor.read_only = True
        return self.declare_parameter(spec.name, spec.default, descriptor).value

    def run(self, executor: SingleThreadedExecutor) -> None:
        """
        Prepare, wait for subscribers, and send to the end or until the context ends.

        :raises ImagePairError: no pair of the directory can be read.
        """
        self.get_logger().info(f'preparing {self.source.description}')
        begin = time.monotonic()
        for _ in self.source.prepare():
            if not rclpy.ok():
                return
            executor.spin_once(timeout_sec=0.0)
        self.get_logger().info(
            f'ready after {time.monotonic() - begin:.1f} s; waiting for subscribers of the images'
        )
        self._wait_for_subscribers(executor)
        start = time.monotonic_ns()
        last = 0.0
        for shot in self.source.shots():
            due = start + round(shot.exposure * _NANOSECONDS)
            self._spin_until(executor, due)
            if not rclpy.ok():
                return
            late = (time.monotonic_ns() - due) / _NANOSECONDS
            if late > _LATEST:
                # After a pause of the process, go on from here instead of sending a burst.
                start += round(late * _NANOSECONDS)
                due += round(late * _NANOSECONDS)
            self._send(shot, due)
            last = shot.exposure
        self._spin_until(executor, start + round((last + 0.1) * _NANOSECONDS))
        self._see_off(executor)

    def _spin_until(self, executor: SingleThreadedExecutor, due: int) -> None:
        """Serve parameters and the like until ``due``, in nanoseconds of the steady clock."""
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
                # They know of us as well a little later than we of them.
                self._spin_until(executor, time.monotonic_ns() + _NANOSECONDS // 2)
                return
            self._spin_until(executor, time.monotonic_ns() + _NANOSECONDS // 20)

    def _see_off(self, executor: SingleThreadedExecutor) -> None:
        """Leave the subscribers time to take what was sent last."""
        if not rclpy.ok():
            return
        for publisher in self._images.values():
            publisher.wait_for_all_acked(Duration(seconds=2))
        self._spin_until(executor, time.monotonic_ns() + _NANOSECONDS // 2)

    def _send(self, shot: Shot, due: int) -> None:
        """Publish an image that was due at ``due`` nanoseconds of the steady clock."""
        if self._exposure[0] != due:
            # When it was due, by the node's clock: what delayed us does not delay an exposure.
            moment = self.get_clock().now().nanoseconds - (time.monotonic_ns() - due)
            self._exposure = (due, moment)
        error = self._random.uniform(-1, 1) * self._values['stamp_jitter']
        if shot.source == 'thermal':
            error += self._values['thermal_offset']
        stamp = max(0, self._exposure[1] + round(error * _NANOSECONDS))
        image = shot.image
        image.header = Header(
            stamp=Time(nanoseconds=stamp).to_msg(), frame_id=f'{shot.source}_optical_frame'
        )
        self._infos[shot.source].publish(camera_info(image))
        self._images[shot.source].publish(image)
        self.sent[shot.source] += 1

    def summary(self) -> str:
        """Return what was sent, in one line."""
        visible, thermal = self.sent['visible'], self.sent['thermal']
        return f'sent: visible={visible}, thermal={thermal}, pairs={min(visible, thermal)}'


def camera_info(image: Image) -> CameraInfo:
    """Return the info of a pinhole without distortion for an image, under its header."""
    focal = SyntheticScene.focal_length(image.height)
    x, y = image.width / 2, image.height / 2
    return CameraInfo(
        header=image.header,
        width=image.width,
        height=image.height,
        distortion_model='plumb_bob',
        d=[0.0] * 5,
        k=[focal, 0.0, x, 0.0, focal, y, 0.0, 0.0, 1.0],
        r=[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
        p=[focal, 0.0, x, 0.0, 0.0, focal, y, 0.0, 0.0, 0.0, 1.0, 0.0],
    )


def main(args: list[str] | None = None) -> int:
    """Send until the end or an interruption; return the process's exit code."""
    # Leave the cores to who computes.
    cv2.setNumThreads(1)
    # Images fit into shared memory only with a larger segment, and that is the sender's.
    os.environ.update(fast_dds_environment())
    return run_node(PairCamera, PairCamera.run, PairCamera.summary, args, (ImagePairError,))


if __name__ == '__main__':
    sys.exit(main())
