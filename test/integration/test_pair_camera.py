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

"""The camera without hardware as a process over real DDS."""

from contextlib import contextmanager
import itertools
import re
import signal
import time

from builtin_interfaces.msg import Time
import cv2
import numpy as np
import pytest
from rcl_interfaces.srv import DescribeParameters, SetParameters
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from dig2dig_ros.evaluation.camera_sources import PARAMETERS, StreetSource
from dig2dig_ros.evaluation.imperfect_cameras import true_homography, Warp
from dig2dig_ros.evaluation.synthetic_scene import SyntheticScene
from dig2dig_ros.streams.codec import decode, decode_compressed
from dig2dig_ros.tools.pair_camera import main
from integration.harness import in_this_process, ListenedProcess, ros_arguments

SMALL = {'width': 64, 'height': 48}
SENT = r'sent: visible=(\d+), thermal=(\d+), pairs=(\d+)'


def seconds(stamp: Time) -> float:
    return stamp.sec + stamp.nanosec * 1e-9


class Camera(ListenedProcess):
    """A running pair_camera and someone who listens to it."""

    def __init__(self, domain, parameters, arguments=()):
        arguments = [*ros_arguments(parameters), *arguments]
        super().__init__(domain, ['dig2dig_ros.tools.pair_camera'], arguments)
        self.images = {'visible': [], 'thermal': []}
        self.infos = {'visible': [], 'thermal': []}

    def listen(self, prefix=''):
        reliable = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)
        for source in self.images:
            for kind, topic, store in (
                (CameraInfo, 'camera_info', self.infos),
                (Image, 'image_raw', self.images),
            ):
                self.node.create_subscription(
                    kind, f'{prefix}{source}/{topic}', store[source].append, reliable
                )

    def sent(self):
        """Return (visible, thermal, pairs) of the line at the end."""
        (line,) = re.findall(SENT, self.output())
        return tuple(map(int, line))


@contextmanager
def camera(domain, parameters, arguments=(), listen=True):
    running = Camera(domain, parameters, arguments)
    try:
        if listen:
            running.listen()
        yield running
    finally:
        running.close()


@pytest.fixture(autouse=True)
def local_discovery(monkeypatch):
    monkeypatch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Return a directory of pairs of different sizes; the last is 16 bits, one is broken."""
    directory = tmp_path_factory.mktemp('pairs')
    rng = np.random.default_rng(0)
    for index, (height, width) in enumerate([(30, 40), (20, 50), (24, 32)]):
        for source in ('visible', 'thermal'):
            (directory / source).mkdir(exist_ok=True)
            shape = (height, width, 3) if source == 'visible' else (height // 2, width // 2)
            image = rng.integers(0, 255, shape, dtype=np.uint8)
            if source == 'thermal' and index == 2:
                image = image.astype(np.uint16) * 100
            assert cv2.imwrite(str(directory / source / f'{index}.png'), image)
    for source in ('visible', 'thermal'):
        (directory / source / '1_broken.png').write_bytes(b'no image')
    (directory / 'visible' / 'alone.png').write_bytes(b'no image')
    return directory


def test_street_has_two_rates_an_offset_and_camera_info_and_ends_after_count(domain):
    parameters = {**SMALL, 'visible_rate': 20.0, 'thermal_rate': 8.0, 'thermal_offset': 0.03}
    with camera(domain, {**parameters, 'count': 12}) as cam:
        assert cam.finish() == 0, cam.output()
        visible, thermal = cam.images['visible'], cam.images['thermal']
        assert len(thermal) == 12
        # One visible image after the last thermal one, for who waits for a nearer one.
        assert len(visible) == 29
        assert cam.sent() == (29, 12, 12)
        assert {m.encoding for m in visible} == {'bgr8'}
        assert {m.encoding for m in thermal} == {'mono16'}
        assert {m.header.frame_id for m in visible} == {'visible_optical_frame'}
        assert {m.header.frame_id for m in thermal} == {'thermal_optical_frame'}
        assert decode(visible[0]).shape == (48, 64, 3)
        assert 6500 < decode(thermal[0]).min() < decode(thermal[0]).max() < 2**14
        first = seconds(visible[0].header.stamp)
        np.testing.assert_allclose(
            [seconds(m.header.stamp) - first for m in visible], np.arange(29) / 20, atol=0.005
        )
        np.testing.assert_allclose(
            [seconds(m.header.stamp) - first for m in thermal],
            np.arange(12) / 8 + 0.03,
            atol=0.005,
        )
        assert abs(first - time.time()) < 120
        assert (decode(visible[0]) != decode(visible[-1])).mean() > 0.3

        for source in ('visible', 'thermal'):
            images = {(m.header.stamp.sec, m.header.stamp.nanosec): m for m in cam.images[source]}
            infos = cam.infos[source]
            assert len(infos) == len(images)
            for info in infos:
                image = images[info.header.stamp.sec, info.header.stamp.nanosec]
                assert info.header == image.header
                assert (info.width, info.height) == (image.width, image.height)
                assert 0.5 * image.width < info.k[0] == info.k[4] < 3 * image.width
                assert (info.k[2], info.k[5], info.k[8]) == (32.0, 24.0, 1.0)
                assert list(info.p[:3]) == list(info.k[:3])


def test_jitter_is_bounded_and_of_both_signs(domain):
    parameters = {**SMALL, 'visible_rate': 20.0, 'thermal_rate': 20.0, 'stamp_jitter': 0.01}
    with camera(domain, {**parameters, 'count': 30}) as cam:
        assert cam.finish() == 0, cam.output()
        stamps = np.array([seconds(m.header.stamp) for m in cam.images['thermal']])
        error = stamps - np.arange(len(stamps)) / 20
        error -= (error.max() + error.min()) / 2
        assert 0.006 < error.max() - error.min() < 0.024
        pair = stamps - [seconds(m.header.stamp) for m in cam.images['visible']][: len(stamps)]
        assert pair.min() < -0.001 < 0.001 < pair.max()


def test_directory_is_sent_once_as_it_is(domain, folder):
    parameters = {'directory': folder, 'thermal_rate': 5.0, 'thermal_offset': -0.02, 'loop': False}
    with camera(domain, parameters) as cam:
        assert cam.finish() == 0, cam.output()
        assert cam.sent() == (3, 3, 3)
        assert 'left out 1_broken' in cam.output()
        assert 'visible/alone.png' in cam.output()
        for index, (visible, thermal) in enumerate(
            zip(cam.images['visible'], cam.images['thermal'], strict=True)
        ):
            paths = [str(folder / source / f'{index}.png') for source in ('visible', 'thermal')]
            np.testing.assert_array_equal(decode(visible), cv2.imread(paths[0]))
            np.testing.assert_array_equal(
                decode(thermal), cv2.imread(paths[1], cv2.IMREAD_UNCHANGED)
            )
            assert thermal.encoding == ('mono16' if index == 2 else 'mono8')
            offset = seconds(thermal.header.stamp) - seconds(visible.header.stamp)
            assert offset == pytest.approx(-0.02, abs=1e-6)


def test_directory_starts_over_until_count(domain, folder):
    parameters = {'directory': folder, 'thermal_rate': 20.0, 'count': 7}
    with camera(domain, parameters) as cam:
        assert cam.finish() == 0, cam.output()
        assert cam.sent() == (7, 7, 7)
        sizes = [(m.height, m.width) for m in cam.images['visible']]
        assert sizes == [(30, 40), (20, 50), (24, 32)] * 2 + [(30, 40)]
        # Without an offset the two stamps of a pair are the same to the nanosecond.
        assert [m.header.stamp for m in cam.images['visible']] == [
            m.header.stamp for m in cam.images['thermal']
        ]


def test_an_interrupt_ends_it_cleanly_and_it_says_what_it_sent(domain):
    with camera(domain, {**SMALL, 'visible_rate': 10.0}) as cam:
        cam.until(lambda: len(cam.images['thermal']) >= 3)
        cam.process.send_signal(signal.SIGINT)
        assert cam.finish() == 0, cam.output()
        assert 'Traceback' not in cam.output()
        visible, thermal, pairs = cam.sent()
        assert pairs == thermal >= 3
        assert visible >= thermal


def test_it_waits_for_subscribers_but_not_for_ever(domain):
    parameters = {**SMALL, 'visible_rate': 20.0, 'thermal_rate': 20.0, 'count': 4}
    with camera(domain, {**parameters, 'wait_for_subscribers': 600.0}, listen=False) as cam:
        cam.until(lambda: 'waiting for subscribers' in cam.output())
        for _ in range(20):
            cam.client.spin_once(0.05)
        assert cam.process.poll() is None
        cam.listen()
        assert cam.finish() == 0, cam.output()
        assert len(cam.images['thermal']) == 4
    with camera(domain, {**parameters, 'wait_for_subscribers': 0.0}, listen=False) as cam:
        assert cam.finish() == 0, cam.output()
        assert cam.sent() == (5, 4, 4)


def test_namespace_and_quality_of_service_can_be_given_but_parameters_are_fixed(domain):
    arguments = ['-r', '__ns:=/robot', '-r', 'visibel/image_raw:=/x']
    arguments += ['-r', 'thermal/image_raw:=thermal/image_raw', '-p', 'camera:seed:=3', '-p']
    arguments += ['qos_overrides./robot/visible/image_raw.publisher.reliability:=best_effort']

    def call(kind, name, request):
        client = cam.node.create_client(kind, f'/robot/pair_camera/{name}')
        cam.until(client.service_is_ready)
        # The server may see a request before it sees who waits for the answer: ask again.
        answers = []

        def answered():
            if not answers or time.monotonic() > answers[-1][0] + 5.0:
                answers.append((time.monotonic(), client.call_async(request)))
            return any(future.done() for _, future in answers)

        cam.until(answered)
        return next(future.result() for _, future in answers if future.done())

    given = {**SMALL, 'thermal_nois': 3.0}
    with camera(domain, given, arguments, listen=False) as cam:
        topics = [f'/robot/{source}/image_raw' for source in ('visible', 'thermal')]
        cam.until(lambda: all(map(cam.node.count_publishers, topics)))
        found = []
        for topic in topics:
            (publisher,) = cam.node.get_publishers_info_by_topic(topic)
            found.append(publisher.qos_profile.reliability)
        assert found == [ReliabilityPolicy.BEST_EFFORT, ReliabilityPolicy.RELIABLE]

        names = [spec.name for spec in PARAMETERS]
        request = DescribeParameters.Request(names=names)
        for spec, about in zip(
            PARAMETERS,
            call(DescribeParameters, 'describe_parameters', request).descriptors,
            strict=True,
        ):
            assert about.description == spec.description
            assert bool(about.integer_range or about.floating_point_range) == bool(spec.limits)
        parameter = Parameter('count', value=5).to_parameter_msg()
        request = SetParameters.Request(parameters=[parameter])
        (result,) = call(SetParameters, 'set_parameters', request).results
        assert not result.successful
        assert 'read-only' in result.reason
        cam.process.terminate()
        assert cam.finish() == 0, cam.output()
        log = cam.output()
        assert 'thermal_nois: its value has no effect; did you mean thermal_noise?' in log
        assert 'topic visibel/image_raw; did you mean visible/image_raw?' in log
        assert '-p camera:seed:=3 is for camera and has no effect' in log
        assert log.count('has no effect') == 3


@pytest.mark.parametrize(
    ('parameters', 'reason'),
    [
        ({'directory': '/nowhere/to/be/found'}, r'/nowhere/to/be/found: it does not exist'),
        ({'width': 8}, 'width'),
        ({'visible_rate': 0.0}, 'visible_rate'),
        ({'thermal_rate': 9}, 'thermal_rate'),
        ({'count': -1}, 'count'),
        ({'thermal_warp': [0.0, 9.0, 0.0, 0.0]}, r'thermal_warp is .* a scale of 0\.25 to 4'),
        ({**SMALL, 'thermal_distortion': [-0.9, 0.0]}, 'thermal lens of k1 = -0.9 .* folds'),
        (
            {'faults': ['freeze thermal 1']},
            r"faults is .*'freeze thermal 1' is not a fault: write",
        ),
        ({'faults': 'drop thermal 1 1'}, "faults is 'drop .* must be a list of texts, such as"),
    ],
)
def test_bad_values_end_it_with_one_sentence(domain, capfd, parameters, reason):
    with in_this_process(domain):
        assert main(['pair_camera', *ros_arguments(parameters)]) == 1
    printed = capfd.readouterr().err
    assert 'Traceback' not in printed
    (line,) = [text for text in printed.splitlines() if 'FATAL' in text]
    assert re.search(reason, line), line


def test_a_directory_without_a_readable_pair_ends_it(domain, tmp_path, capfd):
    for source in ('visible', 'thermal'):
        (tmp_path / source).mkdir()
        (tmp_path / source / 'a.png').write_bytes(b'no image')
    parameters = {'directory': tmp_path, 'wait_for_subscribers': 0.0}
    with in_this_process(domain):
        assert main(['pair_camera', *ros_arguments(parameters)]) == 1
    assert 'none of the 1 pairs can be read' in capfd.readouterr().err


def test_imperfect_cameras_send_what_their_parameters_say(domain):
    warp = [4.0, 0.9, 0.05, -0.05]
    parameters = {**SMALL, 'visible_rate': 20.0, 'thermal_rate': 20.0, 'count': 8}
    parameters.update(thermal_warp=warp, thermal_size=[32, 24], visible_blur=1.0)
    parameters.update(thermal_noise=20.0, visible_noise=0.0, thermal_distortion=[-0.1, 0.01])
    with camera(domain, parameters) as cam:
        assert cam.finish() == 0, cam.output()
        homography = true_homography(Warp(*warp), (32, 24), (64, 48))
        assert f'thermal pixel (x, y, 1) to visible pixel by {homography.round(6).tolist()}' in (
            cam.output()
        )
        thermal = [decode(message) for message in cam.images['thermal']]
        assert {image.shape for image in thermal} == {(24, 32)}
        assert {decode(message).shape for message in cam.images['visible']} == {(48, 64, 3)}
        # In the sky little moves: what is left is noise.
        still = np.diff([image[:3].astype(float) for image in thermal], axis=0)
        assert 15 < still.std() / np.sqrt(2) < 60
        visible_info, info = cam.infos['visible'][0], cam.infos['thermal'][0]
        assert (info.width, info.height, info.distortion_model) == (32, 24, 'plumb_bob')
        assert list(info.d) == [-0.1, 0.01, 0.0, 0.0, 0.0]
        assert not any(visible_info.d)
        c, s = np.cos(np.radians(4.0)), np.sin(np.radians(4.0))
        turn = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
        visible_matrix, matrix = (np.reshape(i.k, (3, 3)) for i in (visible_info, info))
        found = visible_matrix @ turn @ np.linalg.inv(matrix)
        np.testing.assert_allclose(found, homography, atol=1e-9)


def test_faults_come_and_go(domain):
    parameters = {**SMALL, 'visible_rate': 10.0, 'thermal_rate': 10.0, 'count': 12}
    faults = ['freeze thermal 0.15 0.3', 'repeat_stamp thermal 0.55 0.2', 'drop thermal 0.85 0.1']
    faults += ['late thermal 0.95 0.1 0.05', 'half_size visible 0.15 0.2']
    faults += ['reencode visible 0.55 0.2 mono8', 'cover visible 0.85 0']
    with camera(domain, {**parameters, 'faults': faults}) as cam:
        assert cam.finish() == 0, cam.output()
        assert cam.sent() == (13, 11, 11)
        visible, thermal = cam.images['visible'], cam.images['thermal']
        same = [a.data == b.data for a, b in itertools.pairwise(thermal)]
        # Of 0 to 11: 2, 3 and 4 are frozen, 6 and 7 repeat a stamp too, and 9 is dropped.
        assert same == [False, True, True, True, False, True, True, False, False, False]
        first = seconds(thermal[0].header.stamp)
        np.testing.assert_allclose(
            [seconds(message.header.stamp) - first for message in thermal],
            [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.5, 0.5, 0.8, 1.05, 1.1],
            atol=0.005,
        )
        assert thermal[5].header.stamp == thermal[6].header.stamp == thermal[7].header.stamp
        widths = [message.width for message in visible]
        assert widths == [64, 64, 32, 32] + 9 * [64]
        for message, info in zip(visible, cam.infos['visible'], strict=True):
            assert (info.width, info.height) == (message.width, message.height)
            assert info.k[0] == pytest.approx(54.0 * message.width / 64)
        encodings = [message.encoding for message in visible]
        assert encodings == 6 * ['bgr8'] + 2 * ['mono8'] + 5 * ['bgr8']
        assert [decode(message).max() < 10 for message in visible] == 9 * [False] + 4 * [True]


def test_compressed_images_replace_raw_ones(domain):
    parameters = {**SMALL, 'visible_rate': 10.0, 'thermal_rate': 10.0, 'count': 3}
    parameters.update(visible_transport='compressed', thermal_transport='compressed')
    parameters['faults'] = ['false_colour thermal 0.15 0']
    with camera(domain, parameters, listen=False) as cam:
        received = {'visible': [], 'thermal': []}
        for source, store in received.items():
            reliable = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)
            topic = f'{source}/image_raw/compressed'
            cam.node.create_subscription(CompressedImage, topic, store.append, reliable)
        assert cam.finish() == 0, cam.output()
    formats = [message.format for message in received['thermal']]
    assert formats == 2 * ['mono16; png compressed '] + ['bgr8; png compressed bgr8']
    sent = {spec.name: spec.default for spec in PARAMETERS}
    sent.update(**SMALL, visible_rate=10.0, thermal_rate=10.0, count=3)
    street = StreetSource(sent, lambda pixels, encoding, source: pixels)
    for _ in street.prepare():
        pass
    images = list(street.schedule())
    raw = [image.message for _, source, image in images if source == 'thermal']
    for message, image in zip(received['thermal'][:2], raw, strict=False):
        np.testing.assert_array_equal(decode_compressed(message), image)
    assert decode_compressed(received['thermal'][2]).shape == (48, 64, 3)
    assert {message.format for message in received['visible']} == {'bgr8; jpeg compressed bgr8'}
    raw = [image.message for _, source, image in images if source == 'visible']
    error = decode_compressed(received['visible'][0]).astype(float) - raw[0]
    assert 0 < np.abs(error).mean() < 5
    assert {message.header.frame_id for message in received['visible']} == {
        'visible_optical_frame'
    }


def test_pairs_of_a_directory_are_degraded_as_well(domain, tmp_path):
    scene = SyntheticScene(64, 48).render(0.0)
    for source, image in (('visible', scene.visible), ('thermal', scene.thermal)):
        (tmp_path / source).mkdir()
        assert cv2.imwrite(str(tmp_path / source / 'a.png'), image)
    parameters = {'directory': tmp_path, 'thermal_rate': 20.0, 'count': 18}
    parameters.update(thermal_size=[32, 24], thermal_noise=10.0)
    parameters['faults'] = ['dead_channel visible 0.42 0 blue']
    with camera(domain, parameters) as cam:
        assert cam.finish() == 0, cam.output()
        thermal = [decode(message) for message in cam.images['thermal']]
        # A single pair, and yet no camera that stands still.
        assert len({image.tobytes() for image in thermal}) == 18
        half = cv2.resize(scene.thermal, (32, 24), interpolation=cv2.INTER_AREA)
        assert np.std(thermal[0].astype(float) - half) == pytest.approx(10.0, rel=0.15)
        visible = [decode(message) for message in cam.images['visible']]
        for index in range(9):
            np.testing.assert_array_equal(visible[index], scene.visible)
        assert not visible[9][..., 0].any()
        np.testing.assert_array_equal(visible[9][..., 1:], scene.visible[..., 1:])
