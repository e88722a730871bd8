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

"""The fusion node as its own process over real DDS, and a client to talk to it."""

from array import array
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass
import os
from pathlib import Path
import signal
import subprocess
import sys
import tempfile
import time

from builtin_interfaces.msg import Time
import numpy as np
from rcl_interfaces.msg import Parameter, ParameterValue
from rcl_interfaces.srv import DescribeParameters, GetParameters, ListParameters
from rclpy.parameter import parameter_value_to_python
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from dig2dig_ros.nodes.child_processes import ProcessError
from dig2dig_ros.nodes.client import counter, FusionClient
from dig2dig_ros.streams.codec import decode, encode
from dig2dig_ros.streams.pairing import SOURCES

CHECKOUT = Path(__file__).resolve().parents[2]
NODE = '/fusion_node'
# What the command of this name does, which is there only where the package is installed.
_COMMAND = (
    'import sys; from dig2dig_ros.tools.entry_points import fusion_node; sys.exit(fusion_node())'
)
# Parameters with which the fused image is the mean of the two.
MEAN = {'fusion.weights': 'uniform', 'fusion.contrast_gain': 1.0, 'fusion.overshoot': 1.0}
WIDTH, HEIGHT = 64, 48
FAST = {
    'device': 'cpu',
    'num_threads': 1,
    'warmup_size': [WIDTH, HEIGHT],
    'fusion.num_inference_steps': 1,
    'fusion.dig_refresh_interval': 1,
    'diagnostics_period': 0.2,
}


def environment(domain):
    """Return the environment of a process that stays on this host, in a domain of its own."""
    env = dict(os.environ)
    env.update(
        ROS_DOMAIN_ID=str(domain),
        ROS_AUTOMATIC_DISCOVERY_RANGE='LOCALHOST',
        ROS_LOG_DIR=tempfile.gettempdir(),
        OMP_WAIT_POLICY='PASSIVE',
        PYTHONUNBUFFERED='1',
        PYTHONPATH=os.pathsep.join([str(CHECKOUT), env.get('PYTHONPATH', '')]),
    )
    return env


def ros_arguments(parameters):
    def text(value):
        if isinstance(value, bool):
            return str(value).lower()
        return f"'{value}'" if isinstance(value, str) and not value else str(value)

    arguments = ['--ros-args']
    for name, value in parameters.items():
        arguments += ['-p', f'{name}:={text(value)}']
    return arguments


class NodeProcess:
    """A running fusion node; ``prelude`` is code that runs in its process before anything else."""

    def __init__(self, domain, parameters=None, arguments=(), prelude=''):
        self.output_file = tempfile.TemporaryFile('w+')  # noqa: SIM115
        command = [sys.executable, '-c', f'{prelude}\n{_COMMAND}']
        command += ros_arguments({**FAST, **(parameters or {})})
        self.process = subprocess.Popen(
            [*command, *arguments],
            env=environment(domain),
            stdout=self.output_file,
            stderr=subprocess.STDOUT,
        )

    def output(self):
        self.output_file.seek(0)
        return self.output_file.read()

    def wait(self, timeout=60.0):
        return self.process.wait(timeout)

    def stop(self, number=signal.SIGINT, timeout=60.0):
        """Send a signal and return the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(timeout)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()


class ListenedProcess:
    """A process of one of the package's commands, and a node that listens to it."""

    def __init__(self, domain, command, arguments):
        self._output = tempfile.TemporaryFile('w+')  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, '-m', *command, *arguments],
            env=environment(domain),
            stdout=self._output,
            stderr=subprocess.STDOUT,
        )
        self.client = FusionClient.connect('listener', domain)
        self.node = self.client.node

    def until(self, condition, timeout=60.0):
        try:
            self.client.until(condition, timeout, 'what was waited for')
        except ProcessError as error:
            raise AssertionError(f'{error}: {self.output()}') from None

    def finish(self):
        """Listen until the process has ended and return its exit code."""
        self.until(lambda: self.process.poll() is not None)
        self.client.spin(0.2)
        return self.process.returncode

    def output(self):
        self._output.seek(0)
        return self._output.read()

    def close(self):
        if self.process.poll() is None:
            # Not killed at once: its services would stay in sight of the next test.
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.client.close()


@dataclass(frozen=True)
class Output:
    """
    What came of one pair.

    :param image: the fused image.
    :param weights: of each source, (H, W).
    """

    header: Header
    image: np.ndarray
    weights: dict[str, np.ndarray]


@dataclass(frozen=True)
class Diagnosis:
    """One message of the node's diagnostics."""

    level: bytes
    text: str
    values: dict[str, str]


class Client(FusionClient):
    """What a robot has around the node: cameras, a detector, and an operator."""

    def __init__(self, node, executor):
        super().__init__(node, executor)
        self.domain = node.context.get_domain_id()
        self.received = defaultdict(list)
        self.diagnoses = []
        reliable = QoSProfile(depth=50, reliability=ReliabilityPolicy.RELIABLE)
        self.reliable = reliable
        self.visible = self.node.create_publisher(Image, 'visible/image_raw', reliable)
        self.thermal = self.node.create_publisher(Image, 'thermal/image_raw', reliable)
        self.info = self.node.create_publisher(CameraInfo, 'visible/camera_info', reliable)
        self._subscriptions = {}
        self._first_parameters = None
        # What start_anew sets in addition to what its caller asks for.
        self.parameters_of_module = {}
        self.clock = 1_000

    def on_diagnostics(self, message):
        heard = self.diagnosis_count
        super().on_diagnostics(message)
        if self.diagnosis_count > heard:
            self.diagnoses.append(Diagnosis(self.level, self.text, self.values))

    def subscribe(self, topic, message_type=Image):
        if topic not in self._subscriptions:
            self._subscriptions[topic] = self.node.create_subscription(
                message_type, topic, self.received[topic].append, self.reliable
            )

    def unsubscribe(self, topic):
        self.node.destroy_subscription(self._subscriptions.pop(topic))
        self.received.pop(topic, None)

    def of_header(self, topic, header):
        """Return what has come on a topic with this header, or None."""
        return next((m for m in self.received[topic] if m.header == header), None)

    def until(self, condition, timeout=60.0, what='condition'):
        """Spin until ``condition()`` is true and return its value."""
        return super().until(condition, timeout, f'{what} (last diagnostics: {self.values})')

    def wait_active(self):
        """
        Wait until the node is active and hears both cameras.

        The two ends of a connection find each other one after the other, and what a camera
        sends in between is lost: so pairs are sent until the node has counted some.
        """
        # Not by the client's own: the last diagnostics may still tell of an error before.
        self.until(lambda: self.values.get('state') == 'active', 60, 'active')
        self.until(
            lambda: (
                self.visible.get_subscription_count() and self.thermal.get_subscription_count()
            ),
            what='subscribed',
        )

        def heard():
            return self.counter('visible received') and self.counter('thermal received')

        for _ in range(50):
            if heard():
                return
            self.send_pair()
            self.spin(0.4)
        raise AssertionError(f'the node hears no images; diagnostics: {self.values}')

    def header(self, milliseconds=None, frame='visible_optical_frame'):
        """Return a header; by default 100 ms after the last one."""
        if milliseconds is None:
            self.clock += 100
            milliseconds = self.clock
        stamp = Time(sec=milliseconds // 1000, nanosec=milliseconds % 1000 * 1_000_000)
        return Header(stamp=stamp, frame_id=frame)

    def send_pair(self, visible=None, thermal=None, offset_ms=10):
        """Publish a pair of images (arrays or messages) and return the visible header."""
        header = self.header()
        milliseconds = header.stamp.sec * 1000 + header.stamp.nanosec // 1_000_000
        late = self.header(milliseconds + offset_ms, 'thermal_optical_frame')
        visible = street() if visible is None else visible
        thermal = heat() if thermal is None else thermal
        if isinstance(visible, np.ndarray):
            visible = encode(visible, 'bgr8', header, Image)
        if isinstance(thermal, np.ndarray):
            encoding = 'mono8' if thermal.dtype == np.uint8 else 'mono16'
            thermal = encode(thermal, encoding, late, Image)
        visible.header, thermal.header = header, late
        self.visible.publish(visible)
        self.thermal.publish(thermal)
        return header

    def fuse_one(self, topic='fused/image_raw', **pair):
        """
        Send one pair and return (its visible header, the message that came of it).

        More pairs are sent if the output of the first one came before we were connected.
        """
        self.wait_active()
        self.subscribe(topic)
        self.until(lambda: self.node.count_publishers(topic), what=f'publisher of {topic}')
        for _ in range(10):
            header = self.send_pair(**pair)
            end = time.monotonic() + 3
            while time.monotonic() < end:
                for message in self.received[topic]:
                    if message.header == header:
                        return header, message
                self.spin_once(0.05)
        raise AssertionError(f'nothing on {topic}; diagnostics: {self.values}')

    def send_one(self, source, image, milliseconds=None):
        """Publish an image of one camera and return its header."""
        header = self.header(milliseconds, f'{source}_optical_frame')
        if isinstance(image, np.ndarray):
            encodings = {'visible': 'bgr8', 'thermal': f'mono{8 * image.itemsize}'}
            image = encode(image, encodings[source], header, Image)
        image.header = header
        {'visible': self.visible, 'thermal': self.thermal}[source].publish(image)
        return header

    def output(self, stamp, timeout=5.0):
        """Return what came, or comes, of the image with this stamp; None in the end."""
        topics = ['fused/image_raw', 'fused/weights/visible', 'fused/weights/thermal']
        for topic in topics:
            self.subscribe(topic)
        end = time.monotonic() + timeout
        while True:
            found = {
                topic: message
                for topic in topics
                for message in self.received[topic]
                if message.header.stamp == stamp
            }
            if len(found) == len(topics):
                header = found[topics[0]].header
                assert all(message.header == header for message in found.values())
                image, *weights = (decode(found[topic]) for topic in topics)
                return Output(header, image, dict(zip(SOURCES, weights, strict=True)))
            if time.monotonic() > end:
                return None
            self.spin_once(0.05)

    def fuse(self, **pair):
        """Send a pair, again until it does not get lost, and return its output."""
        for _ in range(10):
            output = self.output(self.send_pair(**pair).stamp)
            if output is not None:
                return output
        raise AssertionError(f'nothing comes of any pair; diagnostics: {self.values}')

    def diagnose(self):
        """Wait for diagnostics of what was done before, and return them."""
        seen = len(self.diagnoses)
        # The first one may have been on its way already.
        self.until(lambda: len(self.diagnoses) >= seen + 2, what='diagnostics')
        return self.diagnoses[-1]

    def counter(self, key):
        return counter(self.values, key)

    def parameters(self):
        """Return the node's parameters by name, with their descriptors."""
        names = self.call(ListParameters, 'list_parameters', ListParameters.Request()).result.names
        values = self.call(GetParameters, 'get_parameters', GetParameters.Request(names=names))
        about = self.call(
            DescribeParameters, 'describe_parameters', DescribeParameters.Request(names=names)
        )
        return {
            name: (parameter_value_to_python(value), descriptor)
            for name, value, descriptor in zip(
                names, values.values, about.descriptors, strict=True
            )
        }

    def clean_up(self):
        """Take the node to where every parameter may be set."""
        for state, transition in (('active', 'deactivate'), ('inactive', 'cleanup')):
            if self.state() == state:
                assert self.change_state(transition)

    def reset(self, parameters):
        """Clean the node up, set all parameters back, and then these."""
        self.clean_up()
        for messages in self.received.values():
            messages.clear()
        present = {name: value for name, (value, _) in self.parameters().items()}
        if self._first_parameters is None:
            self._first_parameters = present
        for name, value in {**self._first_parameters, **parameters}.items():
            value = value.tolist() if isinstance(value, array) else value
            if value != (list(present[name]) if isinstance(value, list) else present[name]):
                assert self.set_parameter(name, value) == (True, '')

    def start_anew(self, parameters):
        """Reset the node to these parameters and wait until it is active and hears images."""
        parameters = {**self.parameters_of_module, **parameters}
        self.reset(parameters)
        assert self.change_state('configure'), self.diagnose()
        assert self.change_state('activate'), self.diagnose()
        self.diagnose()
        topics = [
            f'{source}/image_raw' + '/compressed' * (parameters.get(key) == 'compressed')
            for source in SOURCES
            for key in [f'{source}_transport']
        ]
        for topic in topics:
            self.until(
                lambda t=topic: self.node.count_subscribers(t), what=f'subscriber of {topic}'
            )


def connect(domain):
    """Return a client in a domain of this computer."""
    os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
    return Client.connect('client', domain)


def street():
    rows, columns, channels = np.mgrid[:HEIGHT, :WIDTH, :3]
    # Smooth, so that there is no noise to take out.
    waves = np.sin(columns / 5 + channels) * np.cos(rows / 7 + 2 * channels)
    return (100 + 95 * waves).astype(np.uint8)


def heat(dtype=np.uint16):
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    warm = (rows - HEIGHT / 2) ** 2 + (columns - WIDTH / 2) ** 2 < 100
    counts = np.where(warm, 9000, 7500) + columns
    return counts.astype(np.uint16) if dtype == np.uint16 else (counts // 64).astype(np.uint8)


@contextmanager
def in_this_process(domain):
    """Let a command's main() work here as in a process of its own, of which nothing remains."""
    before = dict(os.environ)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    os.environ.update(environment(domain))
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        for number, handler in handlers.items():
            signal.signal(number, handler)


@contextmanager
def running(domain, parameters=None, arguments=(), prelude=''):
    """Run a node and a client in ``domain``; yield (client, process)."""
    process = NodeProcess(domain, parameters, arguments, prelude)
    try:
        client = connect(domain)
        try:
            yield client, process
        finally:
            client.close()
    finally:
        process.stop()


@contextmanager
def cameras(domain, parameters):
    """Run a pair_camera in ``domain``; yield it as a :class:`ListenedProcess`."""
    process = ListenedProcess(domain, ['dig2dig_ros.tools.pair_camera'], ros_arguments(parameters))
    try:
        yield process
    finally:
        process.close()


__all__ = [
    'Client',
    'NodeProcess',
    'Parameter',
    'ParameterValue',
    'cameras',
    'environment',
    'running',
]
