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
Seeded faults for the fusion node over real DDS, and what must hold whatever they do.

Messages that lie about themselves, cameras that die and return, parameters and lifecycle
transitions at any moment. What is sent is a function of the seed and of the test's name; what
arrives, and when, is DDS's affair.
"""

from array import array
from collections import Counter, deque
from dataclasses import dataclass
import math
import os
from pathlib import Path
import random
import struct
import time

from builtin_interfaces.msg import Time
import cv2
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
import numpy as np
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
import rclpy
from rclpy.serialization import serialize_message
from rclpy.task import Future
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from dig2dig_ros.fusion.parameter_spec import ParameterSpec
from dig2dig_ros.nodes.child_processes import ProcessError
from dig2dig_ros.nodes.client import (
    counter,
    drops,
    is_counter,
    unfinished_pairs,
    waiting_images,
)
from dig2dig_ros.streams.codec import encode, SUPPORTED_ENCODINGS
from dig2dig_ros.streams.pairing import SOURCES
from dig2dig_ros.streams.parameters import PARAMETERS
from integration.harness import connect, heat, HEIGHT, NODE, NodeProcess, street, WIDTH

# Not set at random: they would slow the test itself down, or speak of this computer.
_LEFT_ALONE = ('autostart', 'device', 'diagnostics_period', 'num_threads', 'warmup_size')
# What is lost on the way tests nothing.
_HEAR_ALL = {
    f'qos_overrides./{topic}.subscription.{policy}': value
    for topic in (
        *(f'{source}/image_raw' for source in (*SOURCES, 'nir')),
        *(f'{source}/image_raw/compressed' for source in SOURCES),
    )
    for policy, value in (('reliability', 'reliable'), ('depth', 100))
}
TRACEBACKS = ('Traceback (most recent call last)', 'Segmentation fault', 'terminate called')

_LARGEST = 2**32 - 1
_TRANSITIONS = ('configure', 'activate', 'deactivate', 'cleanup')
# Costs that a robot would pay, too, are no fault: these keep a pair to milliseconds.
_AFFORDABLE = {
    'fusion.num_inference_steps': (1, 2, 4),
    'fusion.first_timestep': (4, 50, 400, 999),
    'fusion.dig_refresh_interval': (1, 2, 999),
    'fusion.noise_draws': (0, 1, 2),
    'fusion.restoration_steps': (1, 2, 3),
    'fusion.gain_window': (1, 3, 31, 99),
    'fusion.structure_window': (1, 45, 999),
    'fusion.visible_degradation': ('none', 'low_light', 'blur 1.5, noise auto', 'motion 9 30'),
    'fusion.thermal_degradation': (
        *('none', 'lepton', 'boson', 'x3', 'x2.5, noise 10', 'noise auto', 'blur 50'),
        'motion 200 -17, x2',
    ),
    'alignment_period': (0.0, 0.1, 5.0),
    'stale_timeout': (0.1, 0.3, 2.0),
}
_WRONG_TEXTS = (
    *('', 'x', 'x99', 'x0', 'blur -1', 'noise nan', 'blur 1, blur 2', '\0', '%s%n', 'ÿ\u202e'),
    *('x4,' * 50, 'motion ' + '9' * 4000 + ' 0', 'é' * 10_000),
)


class Violation(AssertionError):
    """Something that must hold whatever comes did not."""


@dataclass(frozen=True)
class Vitals:
    """
    What a process takes of its computer: MiB, threads, file descriptors.

    :param memory: resident.
    :param data: private memory that it may write to, also where it never did.
    """

    memory: float
    data: float
    threads: int
    files: int

    @classmethod
    def of(cls, pid: int) -> 'Vitals':
        status = Path(f'/proc/{pid}/status').read_text()
        fields = dict(line.split(':', 1) for line in status.splitlines())
        return cls(
            int(fields['VmRSS'].split()[0]) / 1024,
            int(fields['VmData'].split()[0]) / 1024,
            int(fields['Threads']),
            len(os.listdir(f'/proc/{pid}/fd')),
        )


class HostileMessages:
    """
    Messages of a broken or malicious driver.

    :param generator: all chance comes from it.
    """

    def __init__(self, generator: random.Random) -> None:
        self._random = generator
        self.nanoseconds = 1_000_000_000_000
        noise = np.random.default_rng(generator.getrandbits(32))
        self._bytes = noise.bytes(1 << 16)
        self._counts = [heat() + noise.integers(0, 40, (HEIGHT, WIDTH), np.uint16) for _ in '1234']

    def header(self, source: str, sound: bool) -> Header:
        """Return a header of now, or one that is out of order, out of range, or too long."""
        offset = self._random.randrange(10_000_000) if source == 'thermal' else 0
        nanoseconds = self.nanoseconds + offset
        stamp = Time(sec=nanoseconds // 10**9, nanosec=nanoseconds % 10**9)
        frame = f'{source}_optical_frame'
        if not sound:
            pick = self._random.choice
            stamp = pick(
                [
                    Time(),
                    Time(sec=2**31 - 1, nanosec=_LARGEST),
                    Time(sec=-(2**31), nanosec=0),
                    Time(sec=-1, nanosec=999_999_999),
                    Time(sec=stamp.sec, nanosec=_LARGEST),
                    Time(sec=stamp.sec - self._random.randrange(4), nanosec=stamp.nanosec),
                    Time(sec=stamp.sec + self._random.randrange(100), nanosec=stamp.nanosec),
                    stamp,
                ]
            )
            frame = pick([frame, '', 'f' * 100_000, 'ÿ\u202e\n\x1b[2J', '%s%s%n'])
        return Header(stamp=stamp, frame_id=frame)

    def image(self, source: str) -> Image:
        """Return a sound image."""
        header = self.header(source, True)
        if source == 'visible':
            return encode(np.roll(street(), self._random.randrange(64), 1), 'bgr8', header, Image)
        return encode(self._random.choice(self._counts), 'mono16', header, Image)

    def odd_image(self, source: str) -> Image:
        """Return an image that is consistent, but of an unusual size, encoding or content."""
        pick = self._random.choice
        header = self.header(source, self._random.random() < 0.5)
        encoding = pick(['mono8', 'mono16', '32FC1', 'bgr8', 'rgb8', *SUPPORTED_ENCODINGS])
        width = pick([1, 2, 3, 7, 64, 65, 200, 1000])
        height = pick([1, 2, 3, 48, 49, 100])
        item = 2 if '16' in encoding else 4 if encoding == '32FC1' else 1
        channels = 4 if 'a8' in encoding else 3 if '8' in encoding and 'gr' in encoding else 2
        step = width * item * channels + pick([0, 0, 1, 13])
        size = step * (height + (height + 1) // 2)
        if encoding == '32FC1':
            value = pick([math.nan, math.inf, -math.inf, 0.0, 3e38, 1e-45, 300.0])
            plane = np.full(size // 4 + 1, value, np.float32)
            plane[:: pick([1, 2, 50])] = pick([math.nan, math.inf, 295.0, -1.0])
            data = plane.tobytes()[:size]
        else:
            data = pick([bytes(size), b'\xff' * size, (self._bytes * (size // 65536 + 1))[:size]])
        return Image(
            header=header,
            width=width,
            height=height,
            encoding=encoding,
            is_bigendian=pick([0, 1, 255]),
            step=step,
            data=array('B', data),
        )

    def broken_image(self, source: str) -> Image:
        """Return an image whose fields contradict each other."""
        pick = self._random.choice
        message = self.image(source)
        if self._random.random() < 0.3:
            message.header = self.header(source, False)
        for _ in range(pick([1, 1, 2])):
            what = self._random.randrange(8)
            if what == 0:
                message.step = pick([0, 1, max(0, message.step - 1), 193, 129, _LARGEST])
            elif what == 1:
                message.data = message.data[: self._random.randrange(len(message.data) + 1)]
            elif what == 2:
                message.data = array('B', self._bytes)
            elif what == 3:
                message.width = pick([0, 1, 2, 65535, 2**31, _LARGEST])
            elif what == 4:
                message.height = pick([0, 1, 2, 65535, 2**31, _LARGEST])
            elif what == 5:
                message.width, message.height = _LARGEST, 2
            elif what == 6:
                message.is_bigendian = pick([1, 2, 255])
            else:
                message.encoding = pick(
                    ['', ' ', 'mono9', '64FC4', '8UC99', 'jpeg', 'MONO8', '\n', 'x' * 10_000]
                )
        return message

    def compressed(self, source: str, sound: bool) -> CompressedImage:
        """Return a JPEG, PNG or TIFF; not sound: garbage, cut short, changed, or mislabelled."""
        pick = self._random.choice
        colour = source == 'visible'
        picture = street() if colour else self._random.choice(self._counts)
        kind = pick(['.jpg', '.png', '.tiff'] if colour else ['.png', '.tiff'])
        data = cv2.imencode(kind, picture)[1].tobytes()
        text = 'bgr8; jpeg compressed bgr8' if colour else 'mono16; png compressed '
        if not sound:
            what = self._random.randrange(6)
            position = self._random.randrange(len(data))
            if what == 0:
                data = data[:position]
            elif what == 1:
                changed = bytearray(data)
                for _ in range(pick([1, 4, 64])):
                    changed[self._random.randrange(len(data))] = self._random.randrange(256)
                data = bytes(changed)
            elif what == 2:
                data = data[: pick([0, 2, 3, 8, 16])] + self._bytes[position : position + 500]
            elif what == 3:
                data = pick([b'', b'\xff\xd8\xff', b'II*\0', b'MM\0*' + b'\xff' * 99, b'GIF89a'])
            elif what == 4:  # a small file that claims many pixels
                side = struct.pack('>II', pick([7999, 2**31, _LARGEST]), pick([7999, 65535]))
                data = b'\x89PNG\r\n\x1a\n\0\0\0\rIHDR' + side + data[24:] + b'IEND'
            text = pick([text, '', 'compressedDepth', ';', 'bayer_rggb8; png compressed ', 'ÿ;%n'])
        header = self.header(source, sound or self._random.random() < 0.5)
        return CompressedImage(header=header, format=text, data=array('B', data))

    def camera_info(self, source: str, sound: bool) -> CameraInfo:
        """Return a calibration, or numbers that are none."""
        pick = self._random.choice
        message = CameraInfo(header=self.header(source, sound), width=WIDTH, height=HEIGHT)
        message.k = [60.0, 0.0, 31.5, 0.0, 60.0, 23.5, 0.0, 0.0, 1.0]
        message.p = [60.0, 0.0, 31.5, 0.0, 0.0, 60.0, 23.5, 0.0, 0.0, 0.0, 1.0, 0.0]
        message.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
        message.distortion_model = 'plumb_bob'
        message.d = [0.0] * 5
        if not sound:
            wild = [0.0, -1.0, 1e-300, 1e300, math.nan, math.inf, -math.inf, 60.0, 1e9]
            for field in ('k', 'p', 'r'):
                if self._random.random() < 0.5:
                    values = list(getattr(message, field))
                    for _ in range(pick([1, 9])):
                        values[self._random.randrange(len(values))] = pick(wild)
                    setattr(message, field, values)
            message.d = [pick([*wild, 0.1, -0.3]) for _ in range(pick([0, 1, 4, 5, 8, 14, 5000]))]
            message.distortion_model = pick(
                ['plumb_bob', 'rational_polynomial', 'equidistant', '', 'nonsense', 'ÿ\n']
            )
            message.width = pick([WIDTH, 0, 1, _LARGEST])
            message.height = pick([HEIGHT, 0, 1, _LARGEST])
        return message

    def damaged(self, message: Image | CompressedImage | CameraInfo) -> bytes:
        """Return the serialised message with bytes changed: what no honest writer sends."""
        data = bytearray(serialize_message(message))
        what = self._random.randrange(4)
        position = self._random.randrange(4, min(len(data), 120))
        if what == 0:
            return bytes(data[:position])
        if what == 1:
            for _ in range(4):
                data[self._random.randrange(4, min(len(data), 120))] = self._random.randrange(256)
        elif what == 2:
            position -= position % 4
            data[position : position + 4] = struct.pack('<I', self._random.choice([_LARGEST, 9]))
        else:
            data[:4] = self._bytes[position : position + 4]
        return bytes(data)

    def parameter(self, spec: ParameterSpec, sound: bool) -> ParameterValue:
        """Return a value that a parameter may have, or one that it may not."""
        pick = self._random.choice
        if not sound:
            return pick(
                [
                    _value(pick([math.nan, math.inf, -math.inf, -1.0, 1e308, 0.0, 5e-324])),
                    _value(pick([-1, 0, 2**63 - 1, -(2**63), 1000])),
                    _value(pick(_WRONG_TEXTS).replace('\0', '')),
                    _value(pick([True, False])),
                    _value([math.nan, math.inf]),
                    _value([-math.inf, math.inf]),
                    _value([-1.0] * 1000),
                    _value([2**62, 2**62]),
                    _value(['', 'a b']),
                    ParameterValue(),
                ]
            )
        if spec.name in _AFFORDABLE:
            return _value(pick(_AFFORDABLE[spec.name]))
        if spec.choices:
            return _value(pick(spec.choices))
        if spec.name == 'thermal_range_percentiles':
            return _value(pick([[0.0, 100.0], [1.0, 99.5], [49.9, 50.0]]))
        if spec.name == 'thermal_range_limits':
            return _value(pick([[0.0, 1.0], [-1e308, 1e308], [7000.0, 7000.0000001]]))
        if spec.limits:
            low, high = spec.limits
            if isinstance(spec.default, float):
                return _value(pick([low, high, self._random.uniform(low, min(high, 50.0))]))
            return _value(pick([low, high, spec.default]))
        return _value(spec.default)


def _value(value: object) -> ParameterValue:
    return rclpy.parameter.Parameter('any', value=value).get_parameter_value()


class Siege:
    """
    A node under fire.

    :param domain: the ROS domain of both.
    :param seed: of everything that happens.
    :param parameters: of the node.
    """

    def __init__(self, domain: int, seed: int = 0) -> None:
        self._seed = seed
        self.renew('')
        self.process = NodeProcess(
            domain, {'prior': 'nano', 'diagnostics_period': 0.1, **_HEAR_ALL}
        )
        self.client = connect(domain)
        self.sent = 0
        # What the node counted while it was active, of all times that are accounted for.
        self.counted: Counter[str] = Counter()
        self.log: deque[str] = deque(maxlen=40)
        node, reliable = self.client.node, self.client.reliable
        self._types = {}
        for source in SOURCES:
            self._types[f'{source}/image_raw'] = Image
            self._types[f'{source}/image_raw/compressed'] = CompressedImage
            self._types[f'{source}/camera_info'] = CameraInfo
        self._types['nir/image_raw'] = Image
        self._types['/clock'] = Clock
        self.publishers = {
            topic: node.create_publisher(kind, topic, reliable)
            for topic, kind in self._types.items()
        }
        self._set = node.create_client(SetParameters, f'{NODE}/set_parameters')
        self._change = node.create_client(ChangeState, f'{NODE}/change_state')

    def close(self) -> None:
        self.client.close()
        if self.process.process.poll() is None:
            self.process.process.kill()
            self.process.process.wait()

    def renew(self, name: str) -> None:
        """Begin anew with the chance of a test's name, whatever was sent before."""
        self.random = random.Random(f'{self._seed} {name}')
        self.messages = HostileMessages(self.random)

    # Invariants

    def check(self, seconds: float = 60.0) -> Vitals:
        """Check that the node lives, says nothing of a traceback, and goes on with diagnostics."""
        seen = len(self.client.diagnoses)
        end = time.monotonic() + seconds
        while True:
            self._lives()
            if len(self.client.diagnoses) >= seen + 2:
                break
            if time.monotonic() > end:
                self.violated(f'no diagnostics for {seconds:g} s: the executor is stuck')
            self.client.spin_once(0.05)
        diagnoses = list(self.client.diagnoses)
        # Before it checks them, so that one that is wrong is told of once.
        del self.client.diagnoses[:-5]
        for diagnosis in diagnoses:
            if 'the diagnostics are incomplete' in diagnosis.text:
                self.violated(diagnosis.text)
            self._adds_up(diagnosis.values)
        for received in self.client.received.values():
            received.clear()
        return Vitals.of(self.process.process.pid)

    def _adds_up(self, values: dict[str, str]) -> None:
        """Check that no more has an end than had a beginning; one pair waits, one is in work."""
        if min(waiting_images(values).values()) < 0 or not 0 <= unfinished_pairs(values) <= 2:
            self.violated(f'the counters do not add up: {values}')

    def _lives(self) -> None:
        code = self.process.process.poll()
        if code is not None:
            self.violated(f'the process ended with {code}')
        text = self.process.output()
        if any(sign in text for sign in TRACEBACKS):
            self.violated('a traceback in the log')

    def violated(self, what: str) -> None:
        last = '\n'.join(self.log)
        raise Violation(
            f'{what}\n--- done before:\n{last}\n--- log:\n{self.process.output()[-6000:]}'
        )

    def works(self) -> None:
        """Check that the worker still fuses: sound pairs, sent slowly, must come out."""
        self.set_parameters(
            {
                'missing_modality': 'wait',
                'sync_tolerance': 0.05,
                'thermal_time_offset': 0.0,
                'thermal_range': 'auto',
                'fusion.visible_degradation': 'none',
                'fusion.thermal_degradation': 'none',
                'max_pixels': 10_000,
            }
        )
        self.check()
        before = self.client.counter('fused')
        for _ in range(60):
            self.step(10**8)
            for source in SOURCES:
                self.send(f'{source}/image_raw{self.suffix}', self.sound(source), 'sound')
            self.client.spin(0.15)
            self._lives()
            if self.client.counter('fused') >= before + 3:
                return
        self.violated(f'nothing is fused any more; diagnostics: {self.client.values}')

    suffix = ''

    def sound(self, source: str) -> Image | CompressedImage:
        if self.suffix:
            return self.messages.compressed(source, True)
        return self.messages.image(source)

    def account(self) -> None:
        """Deactivate, so that nothing waits or is in work, and check that all is accounted for."""
        if self.client.state() == 'active' and not self.transition('deactivate'):
            self.violated('the node refuses to deactivate')
        self.check()
        values = self.client.values
        if any(waiting_images(values).values()) or unfinished_pairs(values):
            self.violated(
                f'{waiting_images(values)} images and {unfinished_pairs(values)} pairs are '
                f'unaccounted for: {values}'
            )
        self.counted.update({key: counter(values, key) for key in values if is_counter(key)})
        self.log.append(f'all of {counter(values, "pairs")} pairs accounted for')

    def ends(self) -> Counter[str]:
        """Return how many images and pairs ended as what, by the last diagnostics."""
        values = self.client.values
        ends = Counter({cause: number for cause, number in drops(values).items() if number})
        ends['fused'] = counter(values, 'fused')
        return +ends

    def until_ended(self, expected: Counter[str]) -> None:
        """Wait until everything ended as expected; anything else is a violation."""
        try:
            self.client.until(lambda: self.ends() == expected)
        except ProcessError:
            self.violated(f'{self.ends()}, but {expected} was sent')

    # Faults

    def step(self, nanoseconds: int = 33_000_000) -> None:
        self.messages.nanoseconds += nanoseconds

    def send(self, topic: str, message: object, what: str) -> None:
        self.log.append(f'{what} to {topic}')
        self.publishers[topic].publish(message)
        self.sent += 1

    def fire(
        self, count: int, pause: float = 0.004, faults: float = 0.5, damaged: float = 0.03
    ) -> None:
        """Send messages: sound ones of both cameras, and ``faults`` of all that are not."""
        pick, chance = self.random.choice, self.random.random
        end = self.sent + count
        while self.sent < end:
            self.step()
            burst = chance() < 0.02
            for _ in range(30 if burst else 1):
                for source in SOURCES:
                    topic = f'{source}/image_raw{self.suffix}'
                    if chance() >= faults:
                        self.send(topic, self.sound(source), 'sound')
                        continue
                    if self.suffix:
                        message = self.messages.compressed(source, False)
                    else:
                        message = pick((self.messages.broken_image, self.messages.odd_image))(
                            source
                        )
                    if chance() < damaged / faults:
                        self.send(topic, self.messages.damaged(message), 'damaged')
                    else:
                        self.send(topic, message, _described(message))
                if chance() < 0.1:
                    source = pick(SOURCES)
                    info = self.messages.camera_info(source, chance() < 0.5)
                    self.send(f'{source}/camera_info', info, 'info')
                if burst:
                    self.step()
            self.client.spin_once(pause)
            if chance() < 0.003:
                self.log.append('silence')
                self.client.spin(pick([0.3, 0.6]))
            if chance() < 0.01:
                self.churn()

    def churn(self) -> None:
        """Let a publisher die and return, and a subscriber come or go."""
        topic = self.random.choice(sorted(self._types))
        self.log.append(f'publisher of {topic} dies and returns')
        node = self.client.node
        node.destroy_publisher(self.publishers[topic])
        self.publishers[topic] = node.create_publisher(
            self._types[topic], topic, self.client.reliable
        )
        topic = self.random.choice(
            ['fused/image_raw', 'fused/weights/visible', 'fused/weights/overlay']
        )
        if topic in self.client._subscriptions:
            self.client.unsubscribe(topic)
        else:
            self.client.subscribe(topic)

    def _await(self, future: Future, what: str, seconds: float = 60.0) -> object:
        end = time.monotonic() + seconds
        while not future.done():
            self._lives_quickly()
            if time.monotonic() > end:
                self.violated(f'no answer of {what} for {seconds:g} s')
            self.client.spin_once(0.02)
        return future.result()

    def _lives_quickly(self) -> None:
        if self.process.process.poll() is not None:
            self._lives()

    def set_parameters(self, values: dict) -> list[tuple[bool, str]]:
        """Set parameters, values or ParameterValues, in one call; return (successful, reason)."""
        parameters = [
            Parameter(
                name=name, value=value if isinstance(value, ParameterValue) else _value(value)
            )
            for name, value in values.items()
        ]
        self.log.append('set ' + ', '.join(f'{p.name} {_brief(p.value)}' for p in parameters))
        request = SetParameters.Request(parameters=parameters)
        answer = self._await(self.ask(request), 'set_parameters')
        return [(result.successful, result.reason) for result in answer.results]

    def ask(self, request: SetParameters.Request) -> Future:
        """Send a request that may get no answer."""
        self._set.wait_for_service(20)
        return self._set.call_async(request)

    def storm(self, number: int, fixed: bool = False) -> None:
        """Set random parameters, half of them to what they may not be."""
        own = [
            spec for spec in PARAMETERS if (spec.live or fixed) and spec.name not in _LEFT_ALONE
        ]
        values = {}
        for _ in range(number):
            spec = self.random.choice(own)
            values[spec.name] = self.messages.parameter(spec, self.random.random() < 0.5)
        for name, (successful, reason) in zip(values, self.set_parameters(values), strict=True):
            if not successful and not reason:
                self.violated(f'{name} is refused without a reason')
        self.log.append('  the last set was answered')

    def transition(self, label: str) -> bool:
        """Ask for a lifecycle transition, allowed in this state or not."""
        self.log.append(f'transition {label}')
        transition = Transition(label=label)
        transition.id = getattr(Transition, f'TRANSITION_{label.upper()}')
        return self.change(ChangeState.Request(transition=transition)).success

    def change(self, request: ChangeState.Request) -> ChangeState.Response:
        """Send a request of a transition."""
        self._change.wait_for_service(20)
        return self._await(self._change.call_async(request), request.transition.label, 60)

    def clean_up(self) -> None:
        """Bring the node to the state unconfigured, whatever state it is in."""
        for label in ('deactivate', 'cleanup'):
            self.transition(label)

    def random_transitions(self, number: int) -> None:
        """Ask for transitions in any order, while messages come."""
        for _ in range(number):
            label = self.random.choice(_TRANSITIONS)
            if self.transition(label) and label == 'deactivate':
                self.account()
            self.fire(self.random.randrange(2, 12), pause=0.001)

    def start(self, parameters: dict | None = None) -> None:
        """Bring the node to the state active, whatever state it is in, with these parameters."""
        self.clean_up()
        defaults = {spec.name: spec.default for spec in PARAMETERS if spec.default != []}
        values = {name: value for name, value in defaults.items() if name not in _LEFT_ALONE}
        values |= {'prior': 'nano', 'stale_timeout': 0.5, **(parameters or {})}
        values['additional_sources'] = ParameterValue(
            type=ParameterType.PARAMETER_STRING_ARRAY,
            string_array_value=(parameters or {}).get('additional_sources', []),
        )
        # They are set one after the other: a second time, all fit to the first ones.
        self.set_parameters(values)
        for name, (successful, reason) in zip(values, self.set_parameters(values), strict=True):
            if not successful:
                self.violated(f'{name} cannot be set back: {reason}')
        for label in ('configure', 'activate'):
            if not self.transition(label):
                self.check()
                self.violated(f'{label} fails: {self.client.text}')
        self.suffix = '/compressed' if values.get('visible_transport') == 'compressed' else ''
        topics = [f'{source}/image_raw{self.suffix}' for source in SOURCES]
        self.client.until(
            lambda: all(self.publishers[topic].get_subscription_count() for topic in topics)
        )
        self.client.diagnose()


def _described(message: object) -> str:
    if isinstance(message, Image):
        stamp = message.header.stamp
        return (
            f'{message.width}x{message.height} {message.encoding[:20]!r} step {message.step} '
            f'endian {message.is_bigendian} {len(message.data)} bytes at {stamp.sec} s '
            f'{stamp.nanosec} ns'
        )
    return f'{message.format[:20]!r} {bytes(message.data[:30])!r} {len(message.data)} bytes'


def _brief(value: ParameterValue) -> str:
    return repr(rclpy.parameter.parameter_value_to_python(value))[:60]
