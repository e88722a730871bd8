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


"""The node that merges detections, as a process of its own over real DDS."""

from contextlib import contextmanager
from importlib import import_module
import os
from pathlib import Path
import shutil
import signal
import subprocess
import sys
import tempfile
from types import SimpleNamespace
from xml.etree import ElementTree

from domains import reserved_domain
import pytest

pytest.importorskip('rclpy', reason='needs rclpy')

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus
import numpy as np
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from dig2dig_ros.nodes.client import FusionClient
from dig2dig_ros.resources import config_file
from dig2dig_ros.streams.codec import encode
from integration.harness import environment, ros_arguments
from integration.message_packages import DEFINITIONS, PREFIX

ALL = ('visible', 'thermal', 'fused')
LEFT, RIGHT = (8, 8, 24, 40), (40, 8, 56, 40)
_COMMAND = (
    'import sys; from dig2dig_ros.tools.entry_points import detection_fusion; '
    'sys.exit(detection_fusion())'
)
_TYPES = {
    'vision_msgs': 'vision_msgs/msg/Detection2DArray',
    'yolo_msgs': 'yolo_msgs/msg/DetectionArray',
}


def _are_installed():
    try:
        return all(import_module(f'{package}.msg') for package in DEFINITIONS)
    except ImportError:
        return False


@pytest.fixture(scope='module')
def packages():
    """Let this process and its children import both packages of messages."""
    if _are_installed():
        yield
        return
    if not (PREFIX / 'include' / 'rosidl_runtime_c').is_dir() or not shutil.which('g++'):
        pytest.skip('vision_msgs and yolo_msgs are not installed, nor what makes them')
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        made = subprocess.run(
            [sys.executable, str(Path(__file__).with_name('message_packages.py')), folder],
            env={**os.environ, 'AMENT_PREFIX_PATH': str(PREFIX)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert made.returncode == 0, made.stdout
        paths = filter(None, (folder, os.environ.get('PYTHONPATH', '')))
        patch.setenv('PYTHONPATH', os.pathsep.join(paths))
        patch.syspath_prepend(folder)
        yield
        for name in list(sys.modules):
            if name.partition('.')[0] in DEFINITIONS:
                del sys.modules[name]


class Listener(FusionClient):
    """Detectors, and who listens to the node."""

    def on_diagnostics(self, message):
        for status in message.status:
            if status.name == '/detection_fusion: detections':
                self.level, self.text = status.level, status.message
                self.values = {item.key: item.value for item in status.values}
                self.diagnosis_count += 1

    def use(self, package, sources=ALL):
        """Publish the detections of a package's type, and hear the merged ones."""
        self.types = import_module(f'{package}.msg')
        self.package = package
        kind = getattr(self.types, _TYPES[package].rpartition('/')[2])
        self.detectors = {
            name: self.node.create_publisher(kind, f'{name}/detections', 10) for name in sources
        }
        self.merged = []
        self.listen('detections', kind, self.merged.append)
        self.clock = 1000

    def connected(self):
        self.until(
            lambda: all(each.get_subscription_count() for each in self.detectors.values()),
            60,
            'the subscriptions of the node',
        )
        self.until(lambda: self.node.count_publishers('detections'), 60, 'its publisher')
        self.spin(0.5)

    def header(self):
        return Header(
            stamp=Time(sec=self.clock // 1000, nanosec=self.clock % 1000 * 1_000_000),
            frame_id='visible_optical_frame',
        )

    def send(self, source, *boxes):
        """Publish boxes of persons with their scores."""
        detections = [self.detection(box, score) for box, score in boxes]
        publisher = self.detectors[source]
        publisher.publish(publisher.msg_type(header=self.header(), detections=detections))

    def detection(self, box, score):
        x1, y1, x2, y2 = map(float, box)
        if self.package == 'yolo_msgs':
            detection = self.types.Detection(class_id=0, class_name='person', score=score)
            detection.bbox.size.x, detection.bbox.size.y = x2 - x1, y2 - y1
        else:
            detection = self.types.Detection2D()
            result = self.types.ObjectHypothesisWithPose()
            result.hypothesis.class_id, result.hypothesis.score = 'person', score
            detection.results.append(result)
            detection.bbox.size_x, detection.bbox.size_y = x2 - x1, y2 - y1
        center = detection.bbox.center.position
        center.x, center.y = (x1 + x2) / 2, (y1 + y2) / 2
        return detection

    def next_union(self):
        """Return the next message of the node, and go on to the next frame."""
        self.until(lambda: self.merged, 60, f'merged detections ({self.values})')
        self.clock += 100
        return self.merged.pop(0)

    def frame(self, *sources):
        for name in sources:
            self.send(name, (LEFT, 0.6))
        self.clock += 100

    def diagnose(self, key, value):
        self.until(lambda: self.values.get(key) == value, 60, f'{key}: {value} ({self.values})')


@contextmanager
def running(parameters=(), arguments=()):
    """Give a listener beside a running node; the node ends well."""
    with reserved_domain() as domain, tempfile.TemporaryFile('w+') as output:
        process = subprocess.Popen(
            [
                *(sys.executable, '-c', _COMMAND),
                *ros_arguments({'diagnostics_period': 0.2, **dict(parameters)}),
                *arguments,
            ],
            env=environment(domain),
            stdout=output,
            stderr=subprocess.STDOUT,
        )

        client = Listener.connect('listener', domain)
        node = SimpleNamespace(client=client, said='')
        try:
            yield node
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
            process.wait(60)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            output.seek(0)
            node.said = output.read()
            assert process.returncode == 0, node.said
            client.close()


def test_vision_msgs_are_found_joined_and_merged(packages):
    remapped = ('detection/thermal:=/x', 'detections/thermal:=/y', 'fused/weights/thermal:=/z')
    with running((), [word for each in remapped for word in ('-r', each)]) as node:
        client = node.client
        client.use('vision_msgs')
        client.connected()
        header = client.header()
        client.send('fused', (LEFT, 0.6))
        client.send('thermal', (LEFT, 0.5), (RIGHT, 0.7))
        client.send('visible')
        message = client.next_union()
        assert message.header == header
        first, second = message.detections
        assert [(each.hypothesis.class_id, each.hypothesis.score) for each in first.results] == [
            ('person', pytest.approx(0.8)),
            ('person/thermal', pytest.approx(0.5)),
            ('person/fused', pytest.approx(0.6)),
        ]
        assert first.bbox.center.position.x == pytest.approx(16)
        assert first.bbox.size_y == pytest.approx(32)
        assert second.results[0].hypothesis.score == pytest.approx(0.7)

        client.send('thermal', ((8, 8, 24, float('nan')), 0.5))
        client.diagnose('dropped: thermal malformed', '1')
        assert client.level == DiagnosticStatus.WARN
        assert 'thermal are refused: a box of person is not finite' in client.text
        client.frame(*ALL)
        client.diagnose('merged frames', '2')
        assert client.values['visible received'] == '2'
        assert client.values['thermal received'] == '3'
        assert client.values['message type'] == _TYPES['vision_msgs']
    assert 'merged frames 2; dropped: thermal malformed 1' in node.said
    assert 'no topic detection/thermal; did you mean detections/thermal?' in node.said
    assert node.said.count('has no effect') == 1


def test_yolo_msgs_with_weight_maps_and_a_source_that_ends(packages):
    parameters = {'message_type': _TYPES['yolo_msgs'], 'stale_timeout': 0.5}
    with running(parameters) as node:
        client = node.client
        client.use('yolo_msgs')
        maps = {
            name: client.node.create_publisher(Image, f'fused/weights/{name}', 10)
            for name in ('visible', 'thermal')
        }
        of_thermal = []
        client.listen('detections/thermal', client.types.DetectionArray, of_thermal.append)
        client.connected()
        client.until(
            lambda: all(each.get_subscription_count() for each in maps.values()), 60, 'its maps'
        )
        weights = np.zeros((48, 64), np.uint8)
        weights[:, :32] = 255  # the thermal camera says nothing on the right
        for name, plane in (('visible', 255 - weights), ('thermal', weights)):
            maps[name].publish(encode(plane, 'mono8', client.header(), Image))
        client.diagnose('weight maps received', '2')
        client.send('thermal', (LEFT, 0.5), (RIGHT, 0.9))
        client.send('visible', (RIGHT, 0.4))
        client.send('fused')
        message = client.next_union()
        assert [(each.class_name, each.score) for each in message.detections] == [
            ('person', pytest.approx(0.5)),
            ('person', pytest.approx(0.4)),
        ]
        client.until(lambda: of_thermal, 60, 'the scores of the thermal camera')
        assert [each.score for each in of_thermal[0].detections] == [pytest.approx(0.5), 0]
        client.diagnose('frames without weight maps', '0')

        # From here on without the fused image: held up for half a second, and never again.
        while not client.merged:
            client.frame('visible', 'thermal')
            client.spin(0.1)
        client.diagnose('sources', 'visible, thermal')
        assert client.level == DiagnosticStatus.WARN
        assert 'no valid detections of fused on /fused/detections for' in client.text
        assert client.merged[0].detections[0].score == pytest.approx(0.84)


def test_the_policy_allows_what_the_node_has(packages):
    profile = next(
        each
        for each in ElementTree.parse(config_file('sros2_policy.xml')).iter('profile')
        if each.get('node') == 'detection_fusion'
    )
    named = {
        (right, entry.text.replace('~', '/detection_fusion'))
        for group in profile
        for right in ('subscribe', 'publish', 'reply')
        if group.get(right) == 'ALLOW'
        for entry in group
    }
    named = {(right, name if name[0] == '/' else f'/{name}') for right, name in named}
    with running({'message_type': _TYPES['yolo_msgs']}) as node:
        client = node.client
        client.use('yolo_msgs')
        client.connected()
        present = {
            (right, name)
            for right, names in {
                'publish': client.node.get_publisher_names_and_types_by_node,
                'subscribe': client.node.get_subscriber_names_and_types_by_node,
                'reply': client.node.get_service_names_and_types_by_node,
            }.items()
            for name, _ in names('detection_fusion', '/')
        }
    assert present <= named
    optional = {
        *(('subscribe', '/clock'), ('subscribe', '/parameter_events')),
        *(('publish', '/parameter_events'), ('reply', '/detection_fusion/get_type_description')),
    }
    assert named - present <= optional


@pytest.mark.parametrize(
    ('parameters', 'reason'),
    [
        ({'sources': "['visible']"}, 'must be two names or more'),
        ({'calibration_slopes': '[1.0, 0.5]'}, 'calibration_slopes has 2 numbers for 3 sources'),
    ],
)
def test_what_cannot_work_ends_the_node_with_a_sentence(parameters, reason):
    with reserved_domain() as domain:
        ended = subprocess.run(
            [sys.executable, '-c', _COMMAND, *ros_arguments(parameters)],
            env=environment(domain),
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert ended.returncode == 1
    assert reason in ended.stderr
    assert 'Traceback' not in ended.stderr
