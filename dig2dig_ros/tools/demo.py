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
Show the fusion at work: a camera process and the fusion node over real DDS, then pictures.

Starts ``fusion_node`` and ``pair_camera`` as processes of their own, listens to every topic of
the node as any subscriber would, stops both after a bounded number of pairs, and leaves pictures,
a video and a summary behind. Ends with code 0 only if all went well.

With ``--unaligned`` the cameras do not share a view: ``calibrate_registration`` listens to them
first, as it would on a robot, and the fusion node takes the registration that it finds. How the
cameras were set up is known here, so that the demo can tell how good that is.
"""

from __future__ import annotations

import argparse
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
import os
from pathlib import Path
import platform
import re
import sys
import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
import numpy as np
from numpy.typing import NDArray
import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CameraInfo
from sensor_msgs.msg import Image as ImageMessage

from dig2dig_ros.evaluation.demo_report import (
    ContactSheet,
    DemoError,
    Frame,
    OutputFolder,
    registration_verdict,
    render_summary,
    unit_to_bgr,
    write_json,
)
from dig2dig_ros.evaluation.image_pairs import find_pairs, ImagePairError, load_pair
from dig2dig_ros.evaluation.imperfect_cameras import true_homography, Warp
from dig2dig_ros.evaluation.options import parameter_file, PRESETS, UsageError
from dig2dig_ros.evaluation.video import to_bgr, Video
from dig2dig_ros.images.alignment import corner_distance
from dig2dig_ros.images.geometry import RegistrationError
from dig2dig_ros.images.registration import Registration
from dig2dig_ros.images.registration_file import load_registration
from dig2dig_ros.images.thermal_range import ThermalRange
from dig2dig_ros.nodes.child_processes import (
    assignments,
    Child,
    middleware_environment,
    ProcessError,
    STATUS_SUFFIX,
)
from dig2dig_ros.nodes.client import (
    counter,
    drops,
    is_counter,
    is_settled,
    number,
    subtract_counters,
    waiting_images,
)
from dig2dig_ros.nodes.signals import deferred_signals, interrupt_on_termination
from dig2dig_ros.streams.codec import decode
from dig2dig_ros.streams.pairing import SOURCES
from dig2dig_ros.streams.preparation import stamp_of
from dig2dig_ros.streams.statistics import percentiles_ms
from dig2dig_ros.tools.calibrate_registration import UNTRUSTED

# Without any progress for so long, something is wrong.
STALL_SECONDS = 60.0
# The node loads torch and the prior and warms up; from a cold disk that takes its time.
START_SECONDS = 180.0
# Images kept until the fused one comes; a slow node may be tens of images behind.
KEPT_IMAGES = 128

# Of --unaligned. All that the thermal camera sees is in the visible image, so that nothing has to
# be made up where the images come from a folder.
WARP = Warp(rotation=4.0, scale=0.85, shift_x=0.05, shift_y=-0.04)
# Pairs to calibrate from, as many to check with, and how many a second: slow enough that the
# scene has changed.
CALIBRATION_FRAMES, CALIBRATION_RATE = 6, 2.0
# How far the corners may be off the truth: thermal pixels in the built-in scene; part of the
# longer side for a folder, whose pairs may never have been aligned that well.
CORNER_LIMIT, FOLDER_CORNER_LIMIT = 1.5, 0.02


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; ends the program with code 2 where it makes no sense."""
    parser = argparse.ArgumentParser(
        prog='demo',
        description='Fuse a synthetic night street, or image pairs from a folder, over real DDS.',
    )
    add = parser.add_argument
    # fmt: off
    add('--pairs', type=Path, metavar='DIR', help='fuse the pairs of this folder, each once: '
        'same-named images in visible/ and thermal/, or NAME_A and NAME_B; without it, a '
        'built-in night street')
    add('--unaligned', action='store_true', help='cameras that do not share a view: the thermal '
        'one is turned, shifted and of a narrower field; calibrated from the live topics first; '
        'the pairs of a folder must have one size')
    add('--count', type=int, metavar='PAIRS', help='pairs to send; without it, 40 of the '
        'built-in scene, all of a folder')
    add('--rate', type=float, metavar='HZ', help='pairs sent per second; without it, 10 of the '
        'built-in scene, of a folder as many as the node turns out to manage')
    add('--width', type=int, default=640, help='of the built-in scene in pixels (%(default)s)')
    add('--height', type=int, default=512, help='of the built-in scene in pixels (%(default)s)')
    add('--params', default='fusion', metavar='PRESET|FILE', help='parameters of the node: '
        f'{", ".join(PRESETS)}, or a YAML file (%(default)s)')
    add('--N', type=int, metavar='STEPS', help='steps of the reverse chain, instead of the '
        "preset's")
    add('--S', type=int, metavar='STEPS', help='steps between two refreshes of the information '
        "gains, instead of the preset's")
    add('--device', help="auto, cpu, cuda or cuda:N, instead of the preset's")
    add('--output', type=Path, default=Path('demo_output'), metavar='DIR',
        help='folder for pictures, video and summary (%(default)s)')
    add('--sheet-rows', type=int, default=8, metavar='ROWS',
        help='of the contact sheet, at most (%(default)s)')
    add('--domain-id', type=int, metavar='ID', help='ROS domain, 0 to 101; without it, one made '
        'from the process id, to stay away from whatever else runs')
    add('--time-limit', type=float, default=900.0, metavar='SECONDS',
        help='give up after so long (%(default)g)')
    # fmt: on
    options = parser.parse_args(arguments)

    if options.pairs is not None and not options.pairs.is_dir():
        parser.error(f'--pairs: {options.pairs} is not a folder')
    for name in ('count', 'N', 'S', 'width', 'height', 'rate', 'time_limit', 'sheet_rows'):
        value = getattr(options, name)
        if value is not None and not value > 0:
            parser.error(f'--{name.replace("_", "-")} must be positive, not {value}')
    if options.domain_id is not None and not 0 <= options.domain_id <= 101:
        parser.error(f'--domain-id must be 0 to 101, not {options.domain_id}')
    try:
        parameter_file(options.params)
    except UsageError as error:
        parser.error(str(error))
    if options.output.exists() and not options.output.is_dir():
        parser.error(f'--output: {options.output} exists and is not a folder')
    return options


@dataclass
class Seen:
    """A message and when it came, on the steady clock."""

    message: Any
    at: float
    number: int = 0


class Observer:
    """
    Subscribes to everything that the fusion node takes and gives, as any other node could.

    Not a thread: messages come while :meth:`spin` runs. Images are kept by stamp, the last few
    of each topic, until :meth:`take` puts those that belong together into a frame.
    """

    def __init__(self, context: Context) -> None:
        self._executor = SingleThreadedExecutor(context=context)
        self._node = Node('demo', context=context, enable_rosout=False)
        self._executor.add_node(self._node)
        self._images: dict[str, OrderedDict[int, Seen]] = {}
        self._thermal_range = ThermalRange('auto')
        self._waiting: list[int] = []
        self._first_stamp: int | None = None
        self.received: dict[str, int] = {}
        self.values: dict[str, str] = {}
        self.error = ''
        self.diagnostics_count = 0
        self.latencies: list[float] = []
        self.fused_times: list[float] = []

        sensor = QoSProfile(depth=20, reliability=ReliabilityPolicy.BEST_EFFORT)
        reliable = QoSProfile(depth=20, reliability=ReliabilityPolicy.RELIABLE)
        for topic in ('visible/image_raw', 'thermal/image_raw'):
            self._subscribe(ImageMessage, topic, sensor)
        for topic in (
            'fused/image_raw',
            'fused/weights/visible',
            'fused/weights/thermal',
            'fused/weights/overlay',
        ):
            self._subscribe(ImageMessage, topic, reliable)
        self._subscribe(CameraInfo, 'fused/camera_info', reliable)
        self._node.create_subscription(
            DiagnosticArray, '/diagnostics', self._on_diagnostics, reliable
        )

    def _subscribe(self, kind: Any, topic: str, qos: QoSProfile) -> None:
        self._images[topic] = OrderedDict()
        self.received[topic] = 0
        self._node.create_subscription(kind, topic, lambda m: self._on_message(topic, m), qos)

    def _on_message(self, topic: str, message: Any) -> None:
        now = time.monotonic()
        stamp = stamp_of(message.header)
        kept = self._images[topic]
        self.received[topic] += 1
        kept[stamp] = Seen(message, now, self.received[topic])
        while len(kept) > KEPT_IMAGES:
            kept.popitem(last=False)
        if topic == 'fused/image_raw':
            self.fused_times.append(now)
            self._waiting.append(stamp)
            if stamp in self._images['visible/image_raw']:
                self.latencies.append(now - self._images['visible/image_raw'][stamp].at)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name.endswith(STATUS_SUFFIX):
                self.values = {item.key: item.value for item in status.values}
                self.error = status.message if status.level == DiagnosticStatus.ERROR else ''
                self.diagnostics_count += 1

    def spin(self, seconds: float) -> None:
        """Take messages for so long."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            with deferred_signals():
                self._executor.spin_once(timeout_sec=min(left, 0.1))

    def forget(self) -> None:
        """Begin anew: what came so far was only a warm-up."""
        self._waiting.clear()
        self._first_stamp = None
        self.latencies.clear()
        self.fused_times.clear()
        for topic, kept in self._images.items():
            kept.clear()
            self.received[topic] = 0

    def take(self, rest: bool = False) -> list[Frame]:
        """
        Return the frames that are complete, each once.

        :param rest: also those whose overlay has not come.
        """
        overlays = self._images['fused/weights/overlay']
        ready = [stamp for stamp in self._waiting if rest or stamp in overlays]
        self._waiting = [stamp for stamp in self._waiting if stamp not in ready]
        frames = [self._frame(stamp) for stamp in ready]
        return [frame for frame in frames if frame is not None]

    def _frame(self, stamp: int) -> Frame | None:
        visible = self._images['visible/image_raw'].get(stamp)
        thermals = self._images['thermal/image_raw']
        fused = self._images['fused/image_raw'].get(stamp)
        if visible is None or fused is None or not thermals:
            return None
        thermal = thermals[min(thermals, key=lambda other: abs(other - stamp))]
        overlay = self._images['fused/weights/overlay'].get(stamp)
        weight = self._images['fused/weights/thermal'].get(stamp)
        if self._first_stamp is None:
            self._first_stamp = stamp
        seconds = (stamp - self._first_stamp) / 1e9
        return Frame(
            number=visible.number,
            stamp_s=seconds,
            visible=to_bgr(_array(visible)),
            thermal=self._show_thermal(_array(thermal), seconds),
            fused=to_bgr(_array(fused)),
            overlay=None if overlay is None else to_bgr(_array(overlay)),
            thermal_weight=None if weight is None else _mean_weight(_array(weight)),
        )

    def _show_thermal(self, thermal: NDArray[Any], stamp_s: float) -> NDArray[np.uint8]:
        if thermal.dtype == np.uint8:
            return to_bgr(thermal)
        return unit_to_bgr(self._thermal_range(thermal, stamp_s))

    def close(self) -> None:
        """Leave the graph."""
        self._executor.shutdown()
        self._node.destroy_node()


def _array(seen: Seen) -> NDArray[Any]:
    return decode(seen.message)


def _mean_weight(weights: NDArray[Any]) -> float:
    scale = 255.0 if weights.dtype == np.uint8 else 1.0
    return round(float(weights.mean()) / scale, 4)


class Demo:
    """One run: the two processes, the observer, and what it writes."""

    def __init__(self, options: argparse.Namespace, folder: OutputFolder) -> None:
        self._options = options
        self._folder = folder
        self._started = time.monotonic()
        self._pairs = [] if options.pairs is None else find_pairs(options.pairs)
        self._next_pair = 0
        self._children: list[Child] = []
        self._context = Context()
        domain_id = options.domain_id
        if domain_id is None:
            # Domain 0 is everybody's; above 101 the ports collide with short-lived ones.
            domain_id = 1 + os.getpid() % 101
        os.environ.update(middleware_environment(domain_id))
        rclpy.init(
            args=[],
            context=self._context,
            domain_id=domain_id,
            signal_handler_options=SignalHandlerOptions.NO,
        )
        self._observer = Observer(self._context)
        self._sheet = ContactSheet(options.sheet_rows)
        self._rate = options.rate or 10.0
        self._video: Video | None = None
        self._frames = 0
        self._sizes: set[str] = set()
        self._streaming_values: dict[str, str] = {}
        self._baseline: dict[str, str] = {}
        self._registration: dict[str, Any] = {}
        print(f'ROS domain {domain_id}, discovery on this machine only')

    def run(self) -> dict[str, Any]:
        """
        Do it all and return the summary.

        :raises DemoError: what went wrong, in words for the person who started it.
        """
        options = self._options
        if options.unaligned:
            self._calibrate()
        fusion = self._start_node('nodes.fusion_node', self._fusion_arguments())
        print('waiting for fusion_node: it loads torch and the prior and warms up ...', flush=True)
        self._wait_for_active(fusion)
        values = self._observer.values
        print(
            f'fusion_node is active: {values.get("device", "?")}, '
            f'{values.get("precision", "?")}, prior {values.get("prior", "?")}, '
            f'N {values.get("N", "?")}, S {values.get("S", "?")}',
            flush=True,
        )
        if options.pairs is not None and options.rate is None:
            self._rate = self._measure_rate(fusion)
        self._video = Video(self._folder.file, 1.0 if options.pairs else self._rate)
        camera = self._start_node('tools.pair_camera', self._camera_arguments(options.count))
        sent = self._stream(fusion, camera)
        self._settle(fusion)
        fusion.stop()
        fusion.require_success()
        return self._finish(sent)

    def _start(self, module: str, arguments: Sequence[str], log: str) -> Child:
        child = Child(module, arguments, self._folder.file(log))
        self._children.append(child)
        return child

    def _start_node(self, module: str, arguments: Sequence[str], log: str = '') -> Child:
        name = module.rpartition('.')[2]
        return self._start(module, ['--ros-args', *arguments], log or f'{name}.log')

    def _calibrate(self) -> None:
        """
        Let calibrate_registration find the registration from the live topics.

        :raises DemoError: it found none at all.
        """
        path = self._folder.file('registration.yaml')
        print(
            f'calibrating: calibrate_registration --live takes {2 * CALIBRATION_FRAMES} pairs of '
            'cameras that do not share a view ...',
            flush=True,
        )
        camera = self._start_node(
            'tools.pair_camera', self._endless_camera_arguments(), 'calibration_camera.log'
        )
        arguments = [
            '--live',
            f'--output={path}',
            f'--overlay={self._folder.file("registration.png")}',
            f'--params={self._options.params}',
            f'--frames={CALIBRATION_FRAMES}',
            f'--interval={0.5 / CALIBRATION_RATE}',
            f'--timeout={STALL_SECONDS}',
            # That of pair_camera holds all of the truth but the rotation.
            '--camera-info=ignore',
            # To show also what failed; the demo says so.
            '--force',
        ]
        tool = self._start('tools.calibrate_registration', arguments, 'calibrate_registration.log')
        while tool.running:
            self._observer.spin(0.1)
            self._observer.forget()
            if tool.running:
                camera.require_running()
            self._check_time()
        if tool.code != UNTRUSTED:
            tool.require_success()
        camera.stop()
        camera.require_success()
        # What it sent last may still be on its way.
        self._observer.spin(0.3)
        self._observer.forget()
        registration = load_registration(path)
        self._registration = registration_facts(
            registration, tool.code != UNTRUSTED, from_folder=self._options.pairs is not None
        )
        placement = registration.placement(0.0)
        self._sheet = ContactSheet(self._options.sheet_rows, placement=placement)
        print(f'registration {registration_verdict(self._registration)}')
        for name in ('residual', 'left_over'):
            print(f'  {name.replace("_", " "):<12} {self._registration[name]}', flush=True)

    def _fusion_arguments(self) -> list[str]:
        options = self._options
        values: dict[str, Any] = {'diagnostics_period': 0.5}
        if options.pairs is None:
            values['warmup_size'] = f'[{options.width}, {options.height}]'
        if options.N is not None:
            values['num_inference_steps'] = options.N
        if options.S is not None:
            values['dig_refresh_interval'] = options.S
        if options.device is not None:
            values['device'] = options.device
        if options.unaligned:
            registration = _quoted(str(self._folder.path.resolve() / 'registration.yaml'))
            # A run is short: look more often at what misalignment is left.
            values.update(thermal_to_visible=registration, alignment_period=1.0)
        return [
            '--params-file',
            str(parameter_file(options.params)),
            *assignments('fusion_node', values),
        ]

    def _camera_arguments(self, count: int | None) -> list[str]:
        values = self._camera_values(float(self._rate))
        values['loop'] = False
        if self._options.pairs is None:
            values['count'] = count or 40
        elif count is not None:
            values['count'] = count
        return assignments('pair_camera', values)

    def _endless_camera_arguments(self) -> list[str]:
        values = self._camera_values(CALIBRATION_RATE)
        return assignments('pair_camera', {**values, 'loop': True})

    def _camera_values(self, rate: float) -> dict[str, Any]:
        """Return the parameters of the cameras, but for when they end."""
        options = self._options
        values: dict[str, Any] = {
            'visible_rate': rate,
            'thermal_rate': rate,
            'wait_for_subscribers': STALL_SECONDS,
            # The demo and who works with the images: one may be discovered seconds after the
            # other.
            'min_subscribers': 2,
        }
        if options.pairs is None:
            # As of two free-running cameras.
            values.update(
                width=options.width,
                height=options.height,
                thermal_offset=0.012,
                stamp_jitter=0.002,
            )
        else:
            values.update(directory=_quoted(str(options.pairs.resolve())))
            values.update(thermal_offset=0.0, stamp_jitter=0.0)
        if options.unaligned:
            warp = (WARP.rotation, WARP.scale, WARP.shift_x, WARP.shift_y)
            values['thermal_warp'] = list(warp)
        return values

    def _check_time(self) -> None:
        limit = self._options.time_limit
        if time.monotonic() - self._started > limit:
            raise DemoError(
                f'not done within {limit:.0f} s (--time-limit); fused so far: '
                f'{len(self._observer.fused_times)}'
            )

    def _wait_for_active(self, fusion: Child) -> None:
        deadline = time.monotonic() + START_SECONDS
        while self._observer.values.get('state') != 'active':
            self._observer.spin(0.1)
            fusion.require_running()
            self._check_time()
            if self._observer.error:
                raise DemoError(f'fusion_node: {self._observer.error}')
            if time.monotonic() > deadline:
                state = self._observer.values.get('state', 'not heard of')
                raise DemoError(
                    fusion.describe(
                        f'was not active within {START_SECONDS:.0f} s (its state: {state})'
                    )
                )

    def _measure_rate(self, fusion: Child) -> float:
        """
        Fuse the first pair of the folder ahead of the run and return a rate that suits it.

        The pairs of a folder may all differ in size, and the first one of a size costs the node
        more than those that follow. The node keeps only the newest pair while it is busy, so
        the pairs must come slower than it can fuse; twice as slow leaves room.
        """
        print('fusing one pair to find a pace ...', flush=True)
        camera = self._start_node('tools.pair_camera', self._camera_arguments(1))
        deadline = time.monotonic() + STALL_SECONDS
        while camera.running or not self._observer.latencies:
            self._observer.spin(0.05)
            if not camera.running:
                camera.require_success()
            fusion.require_running()
            self._check_time()
            if time.monotonic() > deadline:
                raise DemoError(fusion.describe(f'fused nothing for {STALL_SECONDS:.0f} s'))
        self._settle(fusion, show=False)
        # Not the latency: in front of a single pair the node waits for a closer one.
        milliseconds = number(self._observer.values, 'fusion time p50 (ms)')
        seconds = self._observer.latencies[0] if milliseconds is None else milliseconds / 1e3
        self._baseline = dict(self._observer.values)
        self._observer.forget()
        # Decoding and publishing come on top.
        rate = min(5.0, 0.5 / (seconds + 0.05))
        print(f'one pair took {seconds:.2f} s: sending {rate:.2f} pairs a second', flush=True)
        return rate

    def _stream(self, fusion: Child, camera: Child) -> dict[str, int]:
        """Let the camera run to its end and return what it says that it sent."""
        print('streaming ...', flush=True)
        progress = (0, 0)
        since = time.monotonic()
        while camera.running:
            self._observer.spin(0.05)
            fusion.require_running()
            self._check_time()
            self._show(self._observer.take())
            if self._observer.received['visible/image_raw'] > 0 and camera.running:
                self._streaming_values = self._observer.values
            seen = self._observer.received
            now = (seen['visible/image_raw'], seen['fused/image_raw'])
            if now != progress:
                progress, since = now, time.monotonic()
            elif time.monotonic() - since > max(STALL_SECONDS, 5.0 / self._rate):
                raise DemoError(
                    camera.describe(
                        f'sent nothing new for {time.monotonic() - since:.0f} s '
                        f'({now[0]} visible images so far)'
                    )
                )
        camera.require_success()
        return parse_sent(camera.output())

    def _settle(self, fusion: Child, show: bool = True) -> None:
        """
        Wait until the node has nothing left to do, by two equal diagnostics in a row.

        :param show: put the frames that come meanwhile into the pictures.
        """
        observer = self._observer
        first = observer.diagnostics_count
        previous: Mapping[str, str] = {}
        seen = first
        since = time.monotonic()
        while True:
            observer.spin(0.1)
            fusion.require_running()
            self._check_time()
            if show:
                self._show(observer.take())
            if observer.diagnostics_count > seen:
                seen = observer.diagnostics_count
                counters = _progress(observer.values)
                if counters != previous:
                    previous, since = counters, time.monotonic()
                # The first one may tell of the time before the last pair arrived.
                elif seen > first + 2 and is_settled(observer.values):
                    return
            if time.monotonic() - since > STALL_SECONDS:
                raise DemoError(
                    fusion.describe(
                        f'did not finish: for {STALL_SECONDS:.0f} s no pair was fused or dropped '
                        f'(pairs {observer.values.get("pairs", "?")}, '
                        f'fused {observer.values.get("fused", "?")})'
                    )
                )

    def _show(self, frames: Sequence[Frame]) -> None:
        for frame in frames:
            self._frames += 1
            self._sizes.add(f'{frame.fused.shape[1]}x{frame.fused.shape[0]}')
            if self._pairs:
                frame = replace(frame, name=self._name_of(frame.visible))
            self._folder.write_image(f'fused/{frame.file_name}', frame.fused)
            if frame.overlay is not None:
                self._folder.write_image(f'overlay/{frame.file_name}', frame.overlay)
            self._sheet.add(frame)
            if self._video is not None:
                pictures = (frame.visible, frame.thermal, frame.fused)
                self._video.add(pictures, frame.stamp_s)
            if self._frames % 10 == 0:
                print(f'{self._frames} pairs fused', flush=True)

    def _name_of(self, visible: NDArray[np.uint8]) -> str:
        """Return the name of the pair that a visible image is from, or nothing."""
        # They come in order; a few may have been dropped.
        for index in range(self._next_pair, min(self._next_pair + 5, len(self._pairs))):
            if np.array_equal(load_pair(self._pairs[index])[0], visible):
                self._next_pair = index + 1
                return self._pairs[index].name
        return ''

    def _finish(self, sent: dict[str, int]) -> dict[str, Any]:
        self._show(self._observer.take(rest=True))
        values = subtract_counters(self._observer.values, self._baseline)
        summary = self._summary(sent, values)
        self.write_pictures(summary)
        summary['files'] = sorted([*self._folder.files, 'summary.json'])
        write_json(self._folder, 'summary.json', summary)
        return summary

    def write_pictures(self, facts: Mapping[str, Any] | None = None) -> None:
        """Finish the video and write the contact sheet with what came so far."""
        if self._video is not None:
            self._video.close()
        node = (facts or {}).get('node', self._observer.values)
        verdict = registration_verdict(self._registration) if self._registration else ''
        sheet = self._sheet.render(
            f'dig2dig: {node.get("device", "?")}, {node.get("precision", "?")}, '
            f'N {node.get("N", "?")}, S {node.get("S", "?")}',
            verdict and f'registration {verdict}',
        )
        if sheet is not None:
            self._folder.write_image('contact_sheet.png', sheet)

    def _summary(self, sent: dict[str, int], values: Mapping[str, str]) -> dict[str, Any]:
        observer = self._observer
        times = observer.fused_times
        span = times[-1] - times[0] if len(times) > 1 else 0.0
        streaming = self._streaming_values
        node_facts = ('device', 'precision', 'prior', 'N', 'S')
        options = self._options
        summary = {
            'source': str(options.pairs) if options.pairs else 'synthetic scene',
            'params': options.params,
            'node': {key: values.get(key, '') for key in node_facts},
            'system': {'python': platform.python_version(), 'machine': platform.machine()},
            'sizes': sorted(self._sizes),
            'send_rate_hz': round(float(self._rate), 4),
            'sent': sent,
            'received': {source: counter(values, f'{source} received') for source in SOURCES},
            'pairs': counter(values, 'pairs'),
            'fused': counter(values, 'fused'),
            'dropped': drops(values),
            'waiting': waiting_images(values),
            'seen': dict(observer.received),
            'input_rate_hz': {
                source: number(streaming, f'input rate {source} (Hz)') for source in SOURCES
            },
            'output_rate_hz': round((len(times) - 1) / span, 2) if span > 0 else None,
            'latency_ms': {
                'p50': number(values, 'latency p50 (ms)'),
                'p95': number(values, 'latency p95 (ms)'),
            },
            'seen_latency_ms': percentiles_ms(observer.latencies),
            'fusion_time_ms': {'p50': number(values, 'fusion time p50 (ms)')},
            'pair_offset_ms': {
                'median': number(values, 'pair offset median (ms)'),
                'max': number(values, 'pair offset max (ms)'),
            },
            'last_error': values.get('last error', ''),
        }
        if self._registration:
            left = values.get('misalignment (px)', 'not measured')
            summary['registration'] = {**self._registration, 'misalignment': left}
        return summary

    def close(self) -> None:
        """End whatever still runs."""
        for child in reversed(self._children):
            try:
                child.stop()
            except ProcessError as error:
                print(f'demo: {error}', file=sys.stderr)
            except KeyboardInterrupt:
                child.kill()
        self._observer.close()
        rclpy.try_shutdown(context=self._context)


def _progress(values: Mapping[str, str]) -> dict[str, str]:
    """Return those diagnostics that change as long as the node has something to do."""
    return {key: value for key, value in values.items() if is_counter(key)}


def _quoted(text: str) -> str:
    """Return ``text`` as a YAML string, so that no folder's name is taken for a number."""
    return "'" + text.replace("'", "''") + "'"


def registration_facts(
    registration: Registration, trusted: bool, from_folder: bool
) -> dict[str, Any]:
    """
    Return what calibrate_registration found, and how far that is off the truth.

    :param trusted: what calibrate_registration says.
    :param from_folder: the images are recorded ones. Then the truth is only what was done to
        them: where they were not aligned before, a perfect registration is off by that.
    """
    visible, thermal = registration.visible_size, registration.thermal_size
    truth = true_homography(WARP, thermal, visible)
    stretched = true_homography(Warp(), thermal, visible)
    estimate = registration.estimate
    return {
        'trusted': trusted,
        'reasons': list(estimate.get('reasons', [])),
        'residual': str(estimate.get('residual', '')),
        'left_over': str(estimate.get('left over', '')),
        'thermal_to_visible': registration.thermal_to_visible.tolist(),
        'true_thermal_to_visible': truth.tolist(),
        'truth': "the folder's own alignment" if from_folder else 'the truth',
        'corner_error_px': round(
            corner_distance(registration.thermal_to_visible, truth, thermal), 3
        ),
        'corner_error_before_px': round(corner_distance(stretched, truth, thermal), 3),
        'corner_error_limit_px': max(CORNER_LIMIT, FOLDER_CORNER_LIMIT * max(thermal))
        if from_folder
        else CORNER_LIMIT,
    }


def parse_sent(output: str) -> dict[str, int]:
    """
    Return what pair_camera says at its end: 'sent: visible=40, thermal=36, pairs=36'.

    :raises DemoError: it did not say it.
    """
    found = re.findall(r'sent: visible=(\d+), thermal=(\d+), pairs=(\d+)', output)
    if not found:
        raise DemoError('pair_camera ended without saying what it sent')
    return dict(zip((*SOURCES, 'pairs'), map(int, found[-1]), strict=True))


def problems(summary: Mapping[str, Any], each_pair_once: bool) -> list[str]:
    """
    Return what is wrong with a finished run, in sentences.

    :param each_pair_once: the pairs came one by one, so that none may still wait for its other
        half and none may be lost on its way.
    """
    found = []
    fused, dropped = summary['fused'], summary['dropped']
    if fused == 0:
        found.append('nothing was fused')
    if dropped.get('fusion error', 0):
        found.append(f'{dropped["fusion error"]} pairs failed: {summary["last_error"]}')
    if each_pair_once:
        for source in SOURCES:
            lost = summary['sent'][source] - summary['received'][source]
            if lost > 0:
                found.append(f'{lost} {source} images were lost on the way to fusion_node')
            if summary['waiting'][source] > 0:
                found.append(
                    f'{summary["waiting"][source]} {source} images were neither paired nor '
                    'dropped for a stated reason'
                )
    seen = summary['seen']['fused/image_raw']
    if seen < fused:
        found.append(f'only {seen} of {fused} fused images reached the demo')
    if 'registration' in summary:
        found += _registration_problems(summary['registration'])
        refused = dropped.get('registration', 0)
        if refused:
            found.append(f'{refused} pairs do not fit the registration: {summary["last_error"]}')
    return found


def _registration_problems(facts: Mapping[str, Any]) -> list[str]:
    found = []
    if not facts['trusted']:
        found.append(f'the registration is not to be trusted: {"; ".join(facts["reasons"])}')
    error, limit = facts['corner_error_px'], facts['corner_error_limit_px']
    # Not the opposite comparison: NaN is wrong, too.
    if not error <= limit:
        found.append(
            f'the registration puts the corners of the thermal image {error:.1f} thermal pixels '
            f'off {facts["truth"]}, of at most {limit:.1f}'
        )
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; return the process's exit code."""
    options = parse_arguments(arguments)
    interrupt_on_termination()
    demo: Demo | None = None
    try:
        folder = OutputFolder(options.output)
        demo = Demo(options, folder)
        try:
            summary = demo.run()
        except (DemoError, ProcessError, KeyboardInterrupt):
            demo.write_pictures()
            raise
        wrong = problems(summary, each_pair_once=options.pairs is not None)
        print(render_summary(summary))
        print(f'written to {folder.path}: {", ".join(_main_files(folder))}')
        if options.pairs is not None and summary['dropped'].get('superseded', 0):
            rate = summary['send_rate_hz']
            print(f'Superseded pairs came while the node was busy: try --rate {rate / 2:.2g}')
        for sentence in wrong:
            print(f'demo: {sentence}', file=sys.stderr)
        return 1 if wrong else 0
    except (DemoError, ProcessError, ImagePairError, RegistrationError, OSError) as error:
        print(f'demo: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('demo: interrupted', file=sys.stderr)
        return 130
    finally:
        if demo is not None:
            demo.close()


def _main_files(folder: OutputFolder) -> list[str]:
    """Return the files a person looks at first, and the folders of the many."""
    top = [name for name in folder.files if '/' not in name and not name.endswith('.log')]
    return sorted(top) + sorted({name.split('/')[0] + '/' for name in folder.files if '/' in name})


if __name__ == '__main__':
    sys.exit(main())
