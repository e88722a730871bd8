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
Show the fusion at work: simulated cameras and the fusion node over DDS, then pictures.

Starts ``fusion_node`` and ``pair_camera`` as separate processes, subscribes to every topic of the
node, stops both after a fixed number of pairs, and writes pictures, a video and a summary. Exits
with code 0 only if everything worked.

With ``--unaligned``, the cameras do not share a view: ``dig2dig calibrate`` listens to them first,
as it would on a robot, and the fusion node uses the registration that it writes. The true
registration is known here, so the demo also says how good the estimate is.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
import platform
import re
import sys
import time
from typing import Any

from sensor_msgs.msg import CameraInfo
from sensor_msgs.msg import Image as ImageMessage

from dig2dig_ros.evaluation.demo_pictures import (
    FrameCollector,
    FUSED,
    OVERLAY,
    Pictures,
    THERMAL,
    VISIBLE,
)
from dig2dig_ros.evaluation.demo_report import (
    camera_parameters,
    fusion_parameters,
    OutputFolder,
    problems,
    registration_facts,
    registration_verdict,
    render_summary,
    write_json,
)
from dig2dig_ros.evaluation.options import (
    add_parameter,
    parameter_file,
    size_argument,
    UsageError,
)
from dig2dig_ros.images.image_pairs import find_pairs
from dig2dig_ros.images.registration import Registration
from dig2dig_ros.images.registration_file import load_registration
from dig2dig_ros.nodes.child_processes import assignments, Child, enter_domain, ProcessError
from dig2dig_ros.nodes.client import (
    FusionClient,
    node_summary,
    STALL_SECONDS,
    waiting_images,
)
from dig2dig_ros.nodes.signals import interrupt_on_termination, run_tool
from dig2dig_ros.streams.pairing import SOURCES
from dig2dig_ros.streams.parameters import PRESETS
from dig2dig_ros.tools.calibrate import UNTRUSTED

# Pairs to calibrate from (the same number again checks the result), and their rate: slow enough
# that the scene changes between them.
CALIBRATION_FRAMES, CALIBRATION_RATE = 6, 2.0
FUSED_INFO = 'fused/camera_info'
WEIGHTS = tuple(f'fused/weights/{source}' for source in SOURCES)


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; exit with code 2 if it is invalid."""
    parser = argparse.ArgumentParser(
        prog='dig2dig demo',
        description='Run the fusion node over DDS on the synthetic street or a folder of pairs.',
    )
    add = parser.add_argument
    # fmt: off
    add('--pairs', type=Path, metavar='DIR', help='fuse the pairs of this folder, each once: '
        'same-named images in visible/ and thermal/, or NAME_A and NAME_B; default: the '
        'synthetic street')
    add('--unaligned', action='store_true', help='cameras with different views: the thermal one '
        'is rotated and shifted, with a narrower field of view; it is first calibrated from the '
        'live topics; all pairs of a folder must have the same size')
    add('--count', type=int, metavar='PAIRS', help='pairs to send; default: all of the '
        'folder, 40 of the street')
    add('--rate', type=float, metavar='HZ', help='pairs per second; default: 2 from a '
        'folder, 10 of the street')
    add('--size', type=size_argument, default=(640, 512), metavar='WxH',
        help='image size of the street; default: 640x512')
    add('--preset', metavar='PRESET|FILE', help='parameters of the node: '
        f'{", ".join(PRESETS)}, or a YAML file; default: fusion with a GPU, else realtime')
    for name in ('fusion.num_inference_steps', 'fusion.dig_refresh_interval', 'device'):
        add_parameter(parser, name)
    add('-o', '--output', type=Path, default=Path('demo_output'), metavar='DIR',
        help='output folder; default: %(default)s')
    add('--sheet-rows', type=int, default=8, metavar='ROWS',
        help='maximum number of rows of the contact sheet; default: %(default)s')
    add('--domain-id', type=int, metavar='ID', help='ROS domain, 0 to 101; default: one '
        'derived from the process id, to keep clear of other nodes')
    add('--time-limit', type=float, default=900.0, metavar='SECONDS',
        help='give up after this time; default: %(default)g')
    # fmt: on
    options = parser.parse_args(arguments)

    if options.pairs is not None and not options.pairs.is_dir():
        parser.error(f'--pairs: {options.pairs} is not a folder')
    for name in ('count', 'rate', 'time_limit', 'sheet_rows'):
        value = getattr(options, name)
        if value is not None and not value > 0:
            parser.error(f'--{name.replace("_", "-")} must be positive, not {value}')
    if options.domain_id is not None and not 0 <= options.domain_id <= 101:
        parser.error(f'--domain-id must be 0 to 101, not {options.domain_id}')
    if options.preset is not None:
        try:
            parameter_file(options.preset)
        except UsageError as error:
            parser.error(str(error))
    if options.output.exists() and not options.output.is_dir():
        parser.error(f'--output: {options.output} exists and is not a folder')
    return options


def preset_for(device: str) -> str:
    """Return the shipped preset that keeps up with cameras on a device."""
    import torch  # takes seconds, so a wrong command line is reported before

    on_gpu = torch.cuda.is_available() if device == 'auto' else device.startswith('cuda')
    return 'fusion' if on_gpu else 'realtime'


class Demo:
    """One run: the processes, a client that listens to them, and its output."""

    def __init__(self, options: argparse.Namespace, folder: OutputFolder) -> None:
        self._options = options
        self._folder = folder
        self._started = time.monotonic()
        self._pairs = [] if options.pairs is None else find_pairs(options.pairs)
        self._children: list[Child] = []
        domain_id = enter_domain(options.domain_id)
        self._client = FusionClient.connect('demo', domain_id)
        self._client.meanwhile.append(self._check_time)
        outputs = (FUSED, *WEIGHTS, OVERLAY)
        self._frames = FrameCollector([VISIBLE, THERMAL, *outputs, FUSED_INFO])
        for topic in (VISIBLE, THERMAL):
            self._listen(topic, ImageMessage, reliable=False)
        for topic in outputs:
            self._listen(topic, ImageMessage)
        self._listen(FUSED_INFO, CameraInfo)
        self._rate = float(options.rate or (10.0 if options.pairs is None else 2.0))
        self._pictures: Pictures | None = None
        self._registration: dict[str, Any] = {}
        print(f'ROS domain {domain_id}, discovery on this machine only')

    def _listen(self, topic: str, kind: Any, reliable: bool = True) -> None:
        self._client.listen(topic, kind, partial(self._frames.add, topic), reliable=reliable)

    def run(self) -> dict[str, Any]:
        """
        Run the demo and return the summary.

        :raises ProcessError: a process ended, or was not done in time.
        """
        options, client = self._options, self._client
        placement = self._calibrate().placement(0.0) if options.unaligned else None
        fusion = self._start('fusion_node', self._fusion_arguments())
        client.meanwhile.append(fusion.require_running)
        print('waiting for fusion_node to load the denoiser and warm up ...', flush=True)
        client.wait_active()
        print(f'fusion_node is active: {self._description()}', flush=True)
        self._pictures = Pictures(
            self._folder,
            options.sheet_rows,
            1.0 if options.pairs else self._rate,
            self._pairs,
            placement,
        )
        client.meanwhile.append(self._show)
        camera = self._start('pair_camera', self._camera_arguments(self._rate))
        sent = self._stream(camera)
        client.settle()
        fusion.stop()
        fusion.require_success()
        self._show(rest=True)
        return self._finish(sent)

    def _description(self) -> str:
        values = self._client.values
        return ', '.join(
            [values.get('device', '?'), values.get('precision', '?')]
            + [f'denoiser {values.get("prior", "?")}']
            + [f'{name} {values.get(name, "?")}' for name in ('N', 'S')]
        )

    def _start(self, name: str, arguments: Sequence[str], log: str = '') -> Child:
        log = log or f'{name.split()[-1]}.log'
        self._children.append(Child(name, arguments, self._folder.file(log)))
        return self._children[-1]

    def _fusion_arguments(self) -> list[str]:
        values = fusion_parameters(self._options, self._folder.path / 'registration.yaml')
        preset = str(parameter_file(self._options.preset))
        return ['--ros-args', '--params-file', preset, *assignments('fusion_node', values)]

    def _camera_arguments(self, rate: float, **changes: object) -> list[str]:
        values = camera_parameters(self._options, rate, STALL_SECONDS)
        return ['--ros-args', *assignments('pair_camera', {**values, **changes})]

    def _calibrate(self) -> Registration:
        """
        Run ``dig2dig calibrate`` on the live topics.

        :raises ProcessError: it wrote no registration.
        """
        path = self._folder.file('registration.yaml')
        print(
            f'dig2dig calibrate --live: taking {2 * CALIBRATION_FRAMES} pairs of cameras that '
            'do not share a view ...',
            flush=True,
        )
        camera = self._start(
            'pair_camera',
            self._camera_arguments(CALIBRATION_RATE, count=0, loop=True),
            'calibration_camera.log',
        )
        arguments = [
            '--live',
            f'--output={path}',
            f'--overlay={self._folder.file("registration.png")}',
            f'--preset={self._options.preset}',
            f'--frames={CALIBRATION_FRAMES}',
            f'--interval={0.5 / CALIBRATION_RATE}',
            f'--timeout={STALL_SECONDS}',
            # The camera_info of pair_camera contains the whole truth except the rotation.
            '--camera-info=ignore',
            # So that the demo also shows a failure, and says so.
            '--force',
        ]
        tool = self._start('dig2dig calibrate', arguments)
        while tool.running:
            self._client.spin(0.1)
            if tool.running:
                camera.require_running()
        if tool.code != UNTRUSTED:
            tool.require_success()
        camera.stop()
        camera.require_success()
        # Its last images may still be on their way.
        self._client.spin(0.3)
        self._frames.forget()
        registration = load_registration(path)
        self._registration = registration_facts(
            registration, tool.code != UNTRUSTED, from_folder=self._options.pairs is not None
        )
        print(f'registration {registration_verdict(self._registration)}', flush=True)
        return registration

    def _check_time(self) -> None:
        limit = self._options.time_limit
        if time.monotonic() - self._started > limit:
            raise ProcessError(
                f'not done within {limit:.0f} s (--time-limit); fused so far: '
                f'{self._frames.received[FUSED]}'
            )

    def _stream(self, camera: Child) -> dict[str, int]:
        """Let the camera run to its end, and return how much it reports to have sent."""
        print('streaming ...', flush=True)
        limit = self._options.time_limit
        self._client.until(lambda: not camera.running, limit, 'the last pair of the cameras')
        camera.require_success()
        return parse_sent(camera.output())

    def _show(self, rest: bool = False) -> None:
        """Write the complete frames; with ``rest``, also those without an overlay."""
        if self._pictures is None:
            return
        for frame in self._frames.take(rest):
            self._pictures.add(frame)
            if self._pictures.count % 10 == 0:
                print(f'{self._pictures.count} pairs fused', flush=True)

    def finish_pictures(self) -> None:
        """Finish the video, and write the contact sheet from what has come so far."""
        if self._pictures is not None:
            facts = self._registration
            note = f'registration {registration_verdict(facts)}' if facts else ''
            self._pictures.finish(f'dig2dig: {self._description()}', note)

    def _finish(self, sent: Mapping[str, int]) -> dict[str, Any]:
        self.finish_pictures()
        values, options = self._client.values, self._options
        summary = {
            'source': str(options.pairs) if options.pairs else 'synthetic street',
            'preset': options.preset,
            'system': {'python': platform.python_version(), 'machine': platform.machine()},
            'sizes': sorted(self._pictures.sizes) if self._pictures else [],
            'send_rate_hz': round(self._rate, 4),
            'sent': dict(sent),
            **node_summary(values),
            'waiting': waiting_images(values),
            'seen': dict(self._frames.received),
        }
        if self._registration:
            left = values.get('misalignment (px)', 'not measured')
            summary['registration'] = {**self._registration, 'misalignment': left}
        summary['files'] = sorted([*self._folder.files, 'summary.json'])
        write_json(self._folder, 'summary.json', summary)
        return summary

    def close(self) -> None:
        """Stop the processes that still run."""
        for child in reversed(self._children):
            try:
                child.stop()
            except ProcessError as error:
                print(f'dig2dig demo: {error}', file=sys.stderr)
            except KeyboardInterrupt:
                child.kill()
        self._client.close()


def parse_sent(output: str) -> dict[str, int]:
    """
    Parse the last line of pair_camera: 'sent: visible=40, thermal=36, pairs=36'.

    :raises ProcessError: there is no such line.
    """
    found = re.findall(r'sent: visible=(\d+), thermal=(\d+), pairs=(\d+)', output)
    if not found:
        raise ProcessError('pair_camera ended without saying what it sent')
    return dict(zip((*SOURCES, 'pairs'), map(int, found[-1]), strict=True))


def show(options: argparse.Namespace) -> int:
    """
    Run the command.

    :return: the exit code.
    :raises ProcessError, UsageError, ImagePairError, RegistrationError, OSError: it failed.
    """
    demo: Demo | None = None
    try:
        folder = OutputFolder(options.output)
        options.preset = options.preset or preset_for(options.device or 'auto')
        demo = Demo(options, folder)
        try:
            summary = demo.run()
        except (ProcessError, KeyboardInterrupt):
            demo.finish_pictures()
            raise
        wrong = problems(summary, each_pair_once=options.pairs is not None)
        print(render_summary(summary))
        print(f'written to {folder.path}; look at contact_sheet.png first')
        if options.pairs is not None and summary['dropped'].get('superseded', 0):
            rate = summary['send_rate_hz']
            print(f'Pairs were superseded while the node was busy: try --rate {rate / 2:.2g}')
        for sentence in wrong:
            print(f'dig2dig demo: {sentence}', file=sys.stderr)
        return 1 if wrong else 0
    finally:
        if demo is not None:
            demo.close()


def main(argv: Sequence[str]) -> int:
    """Run the tool; see the module's description."""
    interrupt_on_termination()
    return run_tool('dig2dig demo', lambda: show(parse_arguments(argv)))
