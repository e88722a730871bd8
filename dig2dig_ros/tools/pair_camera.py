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

On request the cameras are as cameras are: they do not point the same way, have lenses and sensors
of their own, and fail for a while (:mod:`dig2dig_ros.evaluation.camera_faults`).
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
import itertools
import math
import os
from pathlib import Path
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

from dig2dig_ros.evaluation.camera_faults import Alteration, Fault, FAULTS, FaultyCamera
from dig2dig_ros.evaluation.image_pairs import (
    find_pairs,
    ImagePair,
    ImagePairError,
    load_pair,
    unpaired,
)
from dig2dig_ros.evaluation.imperfect_cameras import (
    CameraGeometry,
    Flaws,
    ImperfectCameras,
    ImperfectionError,
    Warp,
)
from dig2dig_ros.evaluation.synthetic_scene import SceneFrame, SyntheticScene
from dig2dig_ros.nodes.run import run_node
from dig2dig_ros.streams.codec import decode, decode_compressed, encode
from dig2dig_ros.streams.pairing import Source, SOURCES
from dig2dig_ros.streams.parameters import ParameterSpec
from dig2dig_ros.streams.resources import fast_dds_environment

# Of images held in memory: rendered frames, or pairs that were read before.
_MEMORY = 200_000_000
# More visible images than this would take long to render.
_MOST_FRAMES = 600
_SHORTEST_LOOP, _LONGEST_LOOP = 4.0, 20.0
_NANOSECONDS = 1_000_000_000
# After a longer delay than this many seconds the schedule moves.
_LATEST = 0.5
# Of a directory, images whose noise differs.
_NOISE_LOOP = 16
# As image_transport has them.
_JPEG_QUALITY, _PNG_LEVEL = 95, 3


def _check_warp(value: Any) -> str | None:
    if (
        len(value) == 4
        and abs(value[0]) <= 180
        and 0.25 <= value[1] <= 4
        and all(abs(shift) <= 1 for shift in value[2:])
    ):
        return None
    return (
        'must be [rotation in degrees, scale, shift_x, shift_y] with a scale of 0.25 to 4 and '
        'shifts of at most 1'
    )


def _check_size(value: Any) -> str | None:
    if len(value) == 2 and (list(value) == [0, 0] or 8 <= min(value) <= max(value) <= 3840):
        return None
    return 'must be [width, height] in pixels, each 8 to 3840, or [0, 0]'


def _check_distortion(value: Any) -> str | None:
    if len(value) == 2 and all(abs(number) <= 1 for number in value):
        return None
    return 'must be [k1, k2], each -1 to 1'


def _check_faults(value: Any) -> str | None:
    if not (isinstance(value, (list, tuple)) and all(isinstance(text, str) for text in value)):
        return "must be a list of texts, such as ['freeze thermal 5 2']"
    try:
        for text in value:
            Fault.parse(text)
    except ImperfectionError as error:
        return str(error)
    return None


def _camera_parameters(source: Source) -> tuple[ParameterSpec, ...]:
    """Return the parameters of one camera's lens, sensor and driver."""
    unit = 'grey levels' if source == 'visible' else 'counts'
    return (
        ParameterSpec(
            f'{source}_distortion',
            [0.0, 0.0],
            f'[k1, k2] of the {source} lens, radial, as in the model plumb_bob.',
            check=_check_distortion,
        ),
        ParameterSpec(
            f'{source}_blur',
            0.0,
            f'Blur of the {source} lens: standard deviation in pixels, before down-sampling.',
            minimum=0.0,
            maximum=50.0,
        ),
        ParameterSpec(
            f'{source}_noise',
            -1.0,
            f'Standard deviation of the {source} noise in {unit}, in place of that of the street; '
            '-1 leaves it as it is.',
            minimum=-1.0,
            maximum=10000.0,
        ),
        ParameterSpec(
            f'{source}_transport',
            'raw',
            f'compressed sends {"JPEG" if source == "visible" else "PNG"} on <topic>/compressed '
            'instead.',
            choices=('raw', 'compressed'),
        ),
    )


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
    ParameterSpec(
        'thermal_warp',
        [0.0, 1.0, 0.0, 0.0],
        '[rotation in degrees, scale, shift_x, shift_y] of the thermal image in the visible one, '
        'shifts as parts of its width and height; a scale above 1 is a wider field.',
        check=_check_warp,
    ),
    ParameterSpec(
        'thermal_size',
        [0, 0],
        '[width, height] in pixels of the thermal images, which show the same field; [0, 0]: as '
        'the visible ones, or as in the directory.',
        check=_check_size,
    ),
    *(spec for source in SOURCES for spec in _camera_parameters(source)),
    ParameterSpec(
        'faults',
        [],
        "What goes wrong for a while: 'KIND SOURCE START DURATION' in seconds after the first "
        f'image, 0 for ever; kinds: {", ".join(FAULTS)}.',
        check=_check_faults,
    ),
)


@dataclass(frozen=True)
class Capture:
    """
    An image as it is sent, but without a header, and the camera that it fits.

    :param message: an Image, or a CompressedImage.
    :param camera: of the same size.
    """

    message: Any
    camera: CameraGeometry


@dataclass(frozen=True)
class Shot:
    """
    An image to send.

    :param exposure: seconds after the first image.
    :param source: visible or thermal.
    :param image: what the camera took.
    """

    exposure: float
    source: Source
    image: Capture


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


def imperfect_cameras(
    values: Mapping[str, Any],
    visible_size: tuple[int, int],
    thermal_size: tuple[int, int],
    with_margin: bool = False,
) -> ImperfectCameras:
    """
    Return the two cameras as the parameters describe them.

    :param values: the node's parameters.
    :param visible_size: (width, height) of the visible images.
    :param thermal_size: of the thermal ones where the parameter leaves it open.
    :param with_margin: the scene is rendered larger than the visible image where needed.
    :raises ImperfectionError: a lens would fold its image over.
    """
    visible, thermal = (
        Flaws(
            (values[f'{source}_distortion'][0], values[f'{source}_distortion'][1]),
            values[f'{source}_blur'],
            max(0.0, values[f'{source}_noise']),
        )
        for source in SOURCES
    )
    width, height = values['thermal_size']
    return ImperfectCameras(
        visible_size,
        (width, height) if width else thermal_size,
        warp=Warp(*values['thermal_warp']),
        visible=visible,
        thermal=thermal,
        with_margin=with_margin,
        seed=values['seed'],
    )


def pack(pixels: NDArray[Any], encoding: str, source: Source, transport: str) -> Any:
    """Return pixels as a message without a header: raw, or as image_transport compresses them."""
    if transport == 'raw':
        return encode(pixels, encoding, Header(), Image)
    if source == 'visible':
        kind, options = 'jpeg', [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
    else:
        kind, options = 'png', [cv2.IMWRITE_PNG_COMPRESSION, _PNG_LEVEL]
    # Colours are compressed in blue-green-red order, whatever the encoding was.
    order = 'bgr8' if pixels.ndim == 3 else ''
    data = cv2.imencode(f'.{kind}', pixels, options)[1].tobytes()
    # The setter takes an array.array as it is, and walks over anything else.
    return CompressedImage(format=f'{encoding}; {kind} compressed {order}', data=array('B', data))


def altered(capture: Capture, alteration: Alteration, source: Source) -> Capture:
    """Return an image with its pixels altered, for the same transport."""
    message = capture.message
    if isinstance(message, CompressedImage):
        transport, encoding = 'compressed', message.format.split(';')[0]
        pixels = decode_compressed(message)
    else:
        transport, encoding = 'raw', message.encoding
        # Blue first, whatever the encoding; what is written says its order again.
        pixels = decode(message)
    pixels, encoding = alteration(pixels, encoding)
    camera = capture.camera.resized((pixels.shape[1], pixels.shape[0]))
    return Capture(pack(pixels, encoding, source, transport), camera)


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
    images: list[Capture]

    def image(self, index: int) -> Capture:
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
        self._values = values
        self._cameras = imperfect_cameras(
            values, (width, height), (width, height), with_margin=True
        )
        size: dict[Source, int] = {
            'visible': 3 * width * height,
            'thermal': 2 * math.prod(self._cameras.geometry('thermal').size),
        }
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
        self._scene = SyntheticScene(*self._cameras.scene_size, seed=values['seed'], period=period)
        self.description = (
            f'a synthetic street of {width}x{height}, visible at {visible_rate:g} Hz, thermal at '
            f'{thermal_rate:g} Hz'
        )
        if not np.array_equal(self._cameras.homography, np.eye(3)):
            rows = self._cameras.homography.round(6).tolist()
            self.description += f', thermal pixel (x, y, 1) to visible pixel by {rows}'

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
            # With the noise of both cameras, or without.
            frames: dict[bool, SceneFrame] = {}
            for source in wanted[moment]:
                noise = self._values[f'{source}_noise'] < 0
                if noise not in frames:
                    frames[noise] = self._scene.render(moment, noise)
                visible = source == 'visible'
                scene = frames[noise].visible if visible else frames[noise].thermal
                images = self._streams[source].images
                pixels = self._cameras.look(source, scene, len(images))
                transport = self._values[f'{source}_transport']
                message = pack(pixels, 'bgr8' if visible else 'mono16', source, transport)
                images.append(Capture(message, self._cameras.geometry(source)))
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
        self._values = values
        self._cameras = lru_cache(maxsize=4)(partial(imperfect_cameras, values))
        self._rate = values['thermal_rate']
        self._count = values['count']
        self._loop = values['loop']
        self._log = log
        noisy = max(values[f'{source}_noise'] for source in SOURCES) > 0
        self._variants = math.ceil(_NOISE_LOOP / len(self._pairs)) if noisy else 1
        self._kept: dict[tuple[str, int], tuple[Capture, Capture]] = {}
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
        for turn in itertools.count():
            readable = 0
            for index, pair in enumerate(self._pairs):
                if self._count and sent == self._count:
                    return
                images = self._read(pair, index, turn % self._variants)
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

    def _read(self, pair: ImagePair, index: int, variant: int) -> tuple[Capture, Capture] | None:
        """Return a pair as the cameras see it, in one variant of the noise; None: unreadable."""
        if (pair.name, variant) in self._kept:
            return self._kept[pair.name, variant]
        try:
            scenes = load_pair(pair)
        except ImagePairError as error:
            self._log.warning(f'left out {pair.name}: {error}')
            return None
        cameras = self._cameras(*((scene.shape[1], scene.shape[0]) for scene in scenes))

        def capture(source: Source, scene: NDArray[Any], encoding: str) -> Capture:
            pixels = cameras.look(source, scene, variant * len(self._pairs) + index)
            message = pack(pixels, encoding, source, self._values[f'{source}_transport'])
            return Capture(message, cameras.geometry(source))

        visible, thermal = scenes
        images = (
            capture('visible', visible, 'bgr8'),
            capture('thermal', thermal, 'mono8' if thermal.dtype == np.uint8 else 'mono16'),
        )
        size = sum(len(image.message.data) for image in images)
        if self._kept_bytes + size <= _MEMORY:
            self._kept[pair.name, variant] = images
            self._kept_bytes += size
        return images


class PairCamera(Node):  # type: ignore[misc]
    """
    Publishes the images of a source when they are due.

    :raises ImagePairError: the directory holds no pairs.
    :raises ImperfectionError: a parameter describes no camera or no fault.
    """

    def __init__(self) -> None:
        super().__init__('pair_camera')
        values = {spec.name: self._declare(spec) for spec in PARAMETERS}
        self._values = values
        self._random = random.Random(values['seed'])
        self._images = {
            source: self._publisher(CompressedImage, f'{source}/image_raw/compressed')
            if values[f'{source}_transport'] == 'compressed'
            else self._publisher(Image, f'{source}/image_raw')
            for source in SOURCES
        }
        self._infos = {
            source: self._publisher(CameraInfo, f'{source}/camera_info') for source in SOURCES
        }
        faults = [Fault.parse(text) for text in values['faults']]
        self._faulty: dict[Source, FaultyCamera[Capture]] = {
            source: FaultyCamera(source, faults, partial(altered, source=source), values['seed'])
            for source in SOURCES
        }
        # Of the images that were sent last, in nanoseconds.
        self._stamps: dict[Source, int] = {}
        # Steady and node's clock in nanoseconds; images of one instant share it exactly.
        self._exposure = (-1, 0)
        self.sent: dict[Source, int] = dict.fromkeys(SOURCES, 0)
        self.source: StreetSource | DirectorySource = (
            DirectorySource(values, self.get_logger())
            if values['directory']
            else StreetSource(values)
        )

    def _publisher(self, message_type: Any, topic: str) -> Any:
        return self.create_publisher(
            message_type,
            topic,
            # One each: an override by parameter changes the object.
            QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE),
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )

    def _declare(self, spec: ParameterSpec) -> Any:
        descriptor = spec.descriptor()
        # What is sent is prepared for these values.
        descriptor.additional_constraints = ''
        descriptor.read_only = True
        value = self.declare_parameter(spec.name, spec.default, descriptor).value
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
        sent = self._faulty[shot.source].send(shot.exposure, shot.image)
        if sent is None:
            return
        if not sent.repeats_stamp:
            stamp = self._exposure[1] + round((error + sent.late) * _NANOSECONDS)
            self._stamps[shot.source] = max(0, stamp)
        message = sent.image.message
        message.header = Header(
            stamp=Time(nanoseconds=self._stamps[shot.source]).to_msg(),
            frame_id=f'{shot.source}_optical_frame',
        )
        self._infos[shot.source].publish(camera_info(sent.image.camera, message.header))
        self._images[shot.source].publish(message)
        self.sent[shot.source] += 1

    def summary(self) -> str:
        """Return what was sent, in one line."""
        visible, thermal = self.sent['visible'], self.sent['thermal']
        return f'sent: visible={visible}, thermal={thermal}, pairs={min(visible, thermal)}'


def camera_info(camera: CameraGeometry, header: Header) -> CameraInfo:
    """Return what a calibrated camera sends beside its images, under the header of one."""
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
    # Leave the cores to who computes.
    cv2.setNumThreads(1)
    # Images fit into shared memory only with a larger segment, and that is the sender's.
    os.environ.update(fast_dds_environment())
    refusals = (ImagePairError, ImperfectionError)
    return run_node(PairCamera, PairCamera.run, PairCamera.summary, args, refusals)


if __name__ == '__main__':
    sys.exit(main())
