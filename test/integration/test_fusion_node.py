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

"""The node as a process over real DDS: what a robot sees of it."""

import array
import re
import signal
import time

from builtin_interfaces.msg import Time
import cv2
from diagnostic_msgs.msg import DiagnosticStatus
import numpy as np
import pytest
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from dig2dig_ros.nodes.client import is_settled, waiting_images
from dig2dig_ros.nodes.fusion_node import main
from dig2dig_ros.streams.codec import decode, decode_compressed, encode
from dig2dig_ros.streams.pairing import SOURCES
from dig2dig_ros.streams.parameters import PARAMETERS
from integration.harness import (
    FAST,
    heat,
    HEIGHT,
    in_this_process,
    ros_arguments,
    running,
    street,
    WIDTH,
)


@pytest.fixture(scope='module')
def active(shared_node):
    """Return (client, process) of the shared node, active with its default parameters."""
    client, process = shared_node()
    # Longer than any pause of a busy machine.
    client.parameters_of_module = {'stale_timeout': 30.0}
    client.start_anew({})
    client.wait_active()
    yield client, process
    assert process.process.poll() is None, process.output()


@pytest.fixture
def robot(active):
    """Return a client beside the active node, which a test leaves as it found it."""
    return active[0]


@pytest.fixture
def to_renew(active):
    """Return a client beside the active node, which is started anew after the test."""
    client, process = active
    yield client
    assert process.process.poll() is None, process.output()
    client.start_anew({})
    client.wait_active()


def test_fused_image_carries_the_visible_header_and_size(robot):
    header, fused = robot.fuse_one()
    assert fused.header == header
    assert (fused.width, fused.height) == (WIDTH, HEIGHT)
    assert (fused.encoding, fused.step) == ('bgr8', 3 * WIDTH)
    assert decode(fused).std() > 5


def test_weights_sum_to_one_at_every_pixel(robot):
    for encoding, one, tolerance in (('mono8', 255, 1), ('32FC1', 1.0, 1e-5)):
        assert robot.set_parameter('weights_encoding', encoding) == (True, '')
        robot.fuse_one('fused/weights/visible')
        header, thermal = robot.fuse_one('fused/weights/thermal')
        visible = robot.until(lambda h=header: robot.of_header('fused/weights/visible', h))
        assert visible.encoding == thermal.encoding == encoding
        total = decode(visible).astype(float) + decode(thermal)
        assert total.shape == (HEIGHT, WIDTH)
        np.testing.assert_allclose(total, one, atol=tolerance)
    robot.set_parameter('weights_encoding', 'mono8')


def test_overlay_is_there_for_who_subscribes(robot):
    header, overlay = robot.fuse_one('fused/weights/overlay')
    robot.unsubscribe('fused/weights/overlay')
    assert overlay.encoding == 'bgr8'
    assert overlay.header == header


@pytest.mark.parametrize(
    ('encoding', 'image_format', 'text', 'tolerance'),
    [
        # JPEG halves the resolution of colour, which changes much in so small an image.
        ('bgr8', 'jpeg', 'bgr8; jpeg compressed bgr8', 6),
        ('rgb8', 'png', 'rgb8; png compressed bgr8', 0),
        ('mono8', 'jpeg', 'mono8; jpeg compressed mono8', 2),
    ],
)
def test_compressed_images_are_there_for_who_subscribes(
    robot, encoding, image_format, text, tolerance
):
    parameters = {
        'output_encoding': encoding,
        'compressed_format': image_format,
        'jpeg_quality': 95,
    }
    for name, value in parameters.items():
        assert robot.set_parameter(name, value) == (True, '')
    places = ('fused/image_raw', 'fused/weights/overlay', 'thermal/restored/image_raw')
    topics = ('fused/image_raw', *(f'{place}/compressed' for place in places))
    robot.subscribe(topics[0])
    for topic in topics[1:]:
        robot.subscribe(topic, CompressedImage)
    for _ in range(10):  # until all connections are there
        header, _ = robot.fuse_one()
        robot.spin(0.3)
        raw, compressed, overlay, thermal = (robot.of_header(topic, header) for topic in topics)
        if raw and compressed and overlay and thermal:
            break
    for topic in topics[1:]:
        robot.unsubscribe(topic)
    for name, value in (('output_encoding', 'bgr8'), ('compressed_format', 'jpeg')):
        robot.set_parameter(name, value)
    assert compressed.format == text
    assert overlay.format == f'bgr8; {image_format} compressed bgr8'
    difference = decode_compressed(compressed).astype(int) - decode(raw)
    assert np.abs(difference).mean() <= tolerance
    assert decode_compressed(overlay).shape == (HEIGHT, WIDTH, 3)
    assert thermal.format == text
    shape = (HEIGHT, WIDTH) if encoding == 'mono8' else (HEIGHT, WIDTH, 3)
    assert decode_compressed(thermal).shape == shape


def test_the_quality_of_compressed_images_changes_at_run_time(robot):
    sizes = []
    for quality in (5, 100):
        assert robot.set_parameter('jpeg_quality', quality) == (True, '')
        robot.subscribe('fused/image_raw/compressed', CompressedImage)
        sizes.append(len(robot.fuse_one('fused/image_raw/compressed')[1].data))
    robot.unsubscribe('fused/image_raw/compressed')
    assert sizes[0] < sizes[1]


@pytest.mark.parametrize('encoding', ['bgr8', 'mono8'])
def test_restored_images_are_there_for_who_subscribes(robot, encoding):
    assert robot.set_parameter('output_encoding', encoding) == (True, '')
    robot.subscribe('visible/restored/image_raw')
    header, thermal = robot.fuse_one('thermal/restored/image_raw')
    visible = robot.until(lambda: robot.of_header('visible/restored/image_raw', header))
    for source in SOURCES:
        robot.unsubscribe(f'{source}/restored/image_raw')
    robot.set_parameter('output_encoding', 'bgr8')
    assert (thermal.width, thermal.height, thermal.encoding) == (WIDTH, HEIGHT, encoding)
    # Sound cameras: as they see it, each for itself.
    grey = decode(thermal) if encoding == 'mono8' else decode(thermal)[..., 0]
    assert np.corrcoef(grey.ravel(), heat().ravel())[0, 1] > 0.99
    sent = street() if encoding == 'bgr8' else cv2.cvtColor(street(), cv2.COLOR_BGR2GRAY)
    np.testing.assert_array_equal(decode(visible), sent)


def test_camera_info_comes_with_the_same_stamp(robot):
    views = ('fused', 'visible/restored', 'thermal/restored')
    for view in views:
        robot.subscribe(f'{view}/image_raw')
        robot.subscribe(f'{view}/camera_info', CameraInfo)
    robot.wait_active()
    robot.until(robot.info.get_subscription_count)
    info = CameraInfo(width=WIDTH, height=HEIGHT, distortion_model='plumb_bob')
    info.k[0] = 123.0
    infos = []
    for _ in range(10):  # until both ends of both connections have found each other
        info.header = robot.header()
        robot.info.publish(info)
        robot.spin(0.2)
        header, _ = robot.fuse_one()
        robot.spin(0.2)
        infos = [robot.of_header(f'{view}/camera_info', header) for view in views]
        if all(infos):
            break
    for view, info in zip(views, infos, strict=True):
        assert info is not None, view
        assert robot.of_header(f'{view}/image_raw', header), view
        assert info.k[0] == 123.0
        assert (info.width, info.height) == (WIDTH, HEIGHT)
        assert info.distortion_model == 'plumb_bob'
        robot.unsubscribe(f'{view}/camera_info')


@pytest.mark.parametrize('encoding', ['rgb8', 'mono8', 'bgr8'])
def test_output_encoding_changes_at_run_time(robot, encoding):
    assert robot.set_parameter('output_encoding', encoding) == (True, '')
    _, fused = robot.fuse_one()
    assert fused.encoding == encoding
    assert fused.step == WIDTH * (1 if encoding == 'mono8' else 3)


def test_n_and_s_change_at_run_time(robot):
    assert robot.set_parameter('fusion.num_inference_steps', 4) == (True, '')
    assert robot.set_parameter('fusion.dig_refresh_interval', 2) == (True, '')
    _, more = robot.fuse_one()
    robot.until(lambda: (robot.values['N'], robot.values['S']) == ('4', '2'))
    robot.set_parameter('fusion.num_inference_steps', 1)
    _, less = robot.fuse_one()
    robot.until(lambda: robot.values['N'] == '1')
    assert bytes(more.data) != bytes(less.data)


@pytest.mark.parametrize(
    ('name', 'value', 'reason'),
    [
        ('fusion.num_inference_steps', 0, 'fusion.num_inference_steps'),
        ('fusion.num_inference_steps', 900, r'first_timestep is 400.*900'),
        ('fusion.gain_window', 4, 'fusion.gain_window is 4, but must be odd'),
        ('fusion.weights', 'best', 'weights.*one of: dig, rd, uniform'),
        ('fusion.temperature', -1.0, 'fusion.temperature'),
        ('sync_tolerance', 1, 'Wrong parameter type'),
        ('thermal_range_percentiles', [99.0, 1.0], 'low < high'),
        ('device', 'cpu:0', 'must be auto, cpu, cuda'),
        ('prior', '/other.safetensors', 'fixed while the node is active'),
    ],
)
def test_bad_values_are_refused_with_their_reason(robot, name, value, reason):
    before = robot.parameters()[name][0]
    successful, text = robot.set_parameter(name, value)
    assert not successful
    assert re.search(reason, text), text
    after = robot.parameters()[name][0]
    assert list(np.atleast_1d(after)) == list(np.atleast_1d(before))


def test_parameters_are_described(robot):
    declared = robot.parameters()
    for spec in PARAMETERS:
        _, descriptor = declared[spec.name]
        assert descriptor.description == spec.description
        if spec.limits:
            assert descriptor.integer_range or descriptor.floating_point_range
        for choice in spec.choices:
            assert str(choice) in descriptor.additional_constraints


def test_qos_can_be_overridden_by_parameters(robot):
    names = robot.parameters()
    assert 'qos_overrides./fused/image_raw.publisher.reliability' in names
    assert 'qos_overrides./visible/image_raw.subscription.reliability' in names


def test_what_is_given_at_start_is_taken_and_logged(domain):
    parameters = {
        'qos_overrides./fused/image_raw.publisher.depth': 7,
        'qos_overrides./visible/image_raw.subscription.reliability': 'reliable',
        # Each alone would be refused beside the other's default.
        'fusion.num_inference_steps': 401,
        'fusion.first_timestep': 401,
        'prior': 'nano',
    }
    with running(domain, parameters) as (client, process):
        client.until(lambda: client.values.get('N') == '401', 60)
        line = next(x for x in process.output().splitlines() if 'warm-up' in x)
        for word in ('torch', 'device cpu', 'precision', 'denoiser nano', 'N 401', 'S 1'):
            assert word in line
        assert f'resolution {WIDTH}x{HEIGHT}' in line
        assert FAST['device'] == 'cpu'
        assert client.set_parameter('fusion.num_inference_steps', 1) == (True, '')
        declared = client.parameters()
        assert declared['fusion.first_timestep'][0] == 401
        # An override of one topic leaves the others alone.
        assert declared['qos_overrides./fused/image_raw.publisher.depth'][0] == 7
        assert declared['qos_overrides./fused/camera_info.publisher.depth'][0] == 5
        topic = 'qos_overrides./{}.subscription.reliability'
        assert declared[topic.format('visible/image_raw')][0] == 'reliable'
        assert declared[topic.format('thermal/image_raw')][0] == 'best_effort'
        client.fuse_one()


def malformed(kind):
    message = encode(street(), 'bgr8', None, Image)
    if kind == 'short data':
        message.data = message.data[:-WIDTH]
    elif kind == 'small step':
        message.step = WIDTH
    elif kind == 'zero size':
        message.width = message.height = 0
    elif kind == 'absurd size':
        message.width = message.height = message.step = 2**31
    else:
        message.encoding = 'unheard-of'
    return message


@pytest.mark.parametrize(
    'kind', ['short data', 'small step', 'zero size', 'absurd size', 'unknown encoding']
)
def test_malformed_image_is_dropped_counted_and_survived(robot, kind):
    robot.wait_active()
    before = robot.counter('dropped: visible malformed')
    robot.send_pair(visible=malformed(kind))
    robot.until(lambda: robot.counter('dropped: visible malformed') == before + 1)
    assert 'visible malformed' in robot.values['last error']
    robot.fuse_one()


def test_images_of_other_sizes_and_types_are_fused(robot):
    half = np.ascontiguousarray(heat()[::2, ::2])
    for thermal in (half, heat(np.uint8), heat()):
        _, fused = robot.fuse_one(thermal=thermal)
        assert (fused.width, fused.height) == (WIDTH, HEIGHT)
    wide = np.repeat(street(), 2, axis=1)
    _, fused = robot.fuse_one(visible=wide)
    assert fused.width == 2 * WIDTH
    robot.until(lambda: robot.values['resolution'] == f'{2 * WIDTH}x{HEIGHT}')


def test_static_scene_gives_a_static_output(robot):
    robot.set_parameter('thermal_range', 'encoding')
    # Trust in a camera that stood still while the other one moved comes back within a second.
    images = [bytes(robot.fuse_one()[1].data) for _ in range(16)]
    robot.set_parameter('thermal_range', 'auto')
    assert len(set(images[-4:])) == 1


def test_stamps_that_cannot_be_paired_are_counted_by_cause(robot):
    robot.wait_active()
    before = {cause: robot.counter(f'dropped: {cause}') for cause in ('visible zero stamp',)}
    image = encode(street(), 'bgr8', Header(), Image)
    robot.visible.publish(image)
    robot.until(
        lambda: robot.counter('dropped: visible zero stamp') == before['visible zero stamp'] + 1
    )
    robot.fuse_one()
    duplicates = robot.counter('dropped: visible duplicate stamp')
    late = robot.counter('dropped: visible late')
    image.header = robot.header(robot.clock)
    robot.visible.publish(image)
    robot.until(
        lambda: (
            robot.counter('dropped: visible duplicate stamp')
            + robot.counter('dropped: visible late')
            == duplicates + late + 1
        )
    )
    robot.fuse_one()


def test_time_offset_shifts_the_pairing_at_run_time(robot):
    robot.wait_active()
    assert robot.set_parameter('thermal_time_offset', -0.5) == (True, '')
    robot.fuse_one(offset_ms=500)
    assert robot.set_parameter('thermal_time_offset', 0.0) == (True, '')
    robot.clock += 2000
    robot.fuse_one()


def test_every_image_is_accounted_for(robot):
    robot.wait_active()
    robot.set_parameter('fusion.num_inference_steps', 30)
    for _ in range(40):
        robot.send_pair()
        robot.spin(0.005)
    robot.set_parameter('fusion.num_inference_steps', 1)
    robot.fuse_one()

    robot.until(lambda: is_settled(robot.values))
    assert robot.counter('dropped: superseded') > 0
    assert all(0 <= waiting <= 30 for waiting in waiting_images(robot.values).values())


def test_counters_begin_anew_with_every_activation(robot):
    robot.wait_active()
    robot.visible.publish(encode(street(), 'bgr8', Header(), Image))
    robot.until(lambda: robot.counter('dropped: visible zero stamp') > 0)
    assert robot.change_state('deactivate')
    robot.until(lambda: robot.values['state'] == 'inactive')
    assert robot.change_state('activate')
    robot.until(lambda: robot.values['state'] == 'active')
    robot.fuse_one()
    robot.until(lambda: robot.counter('fused') >= 1)
    assert robot.counter('dropped: visible zero stamp') == 0
    assert robot.counter('dropped: shutdown') == 0


def test_lifecycle_goes_round_and_comes_back(robot):
    robot.fuse_one()
    assert robot.change_state('deactivate')
    assert robot.state() == 'inactive'
    robot.until(lambda: robot.values['state'] == 'inactive')
    robot.until(lambda: not robot.visible.get_subscription_count())
    assert robot.change_state('cleanup')
    assert robot.set_parameter('device', 'auto') == (True, '')
    assert robot.set_parameter('device', 'cpu') == (True, '')
    assert robot.change_state('configure')
    assert robot.change_state('activate')
    robot.fuse_one()
    robot.until(lambda: robot.counter('fused') >= 1)


def test_another_period_of_diagnostics_holds_from_the_next_configuration_on(to_renew):
    client = to_renew
    client.clean_up()
    assert client.set_parameter('diagnostics_period', 60.0) == (True, '')
    assert client.change_state('configure')
    assert client.set_parameter('diagnostics_period', 0.2)[0] is False
    assert client.change_state('cleanup')
    assert client.set_parameter('diagnostics_period', 0.2) == (True, '')
    seen = len(client.diagnoses)
    assert client.change_state('configure')
    # At the old period this would take minutes.
    client.until(lambda: len(client.diagnoses) >= seen + 5)


def test_simulated_clock_that_jumps_back_clears_what_waits(to_renew):
    client = to_renew
    clock = client.node.create_publisher(Clock, '/clock', client.reliable)
    client.start_anew({'use_sim_time': True})
    client.until(clock.get_subscription_count)
    client.until(lambda: 'no time has come on /clock (publishers: 1)' in client.text)
    assert client.level == DiagnosticStatus.WARN

    def tick(seconds):
        clock.publish(Clock(clock=Time(sec=seconds)))

    tick(200)
    client.until(lambda: '/clock' not in client.text)
    client.clock = 200_000
    client.fuse_one()
    client.visible.publish(encode(street(), 'bgr8', client.header(), Image))
    received = client.counter('visible received')
    client.until(lambda: client.counter('visible received') > received)
    tick(100)
    client.until(lambda: client.counter('dropped: visible clock jump') == 1)
    client.clock = 100_000
    client.fuse_one()
    assert client.counter('dropped: visible late') == 0
    client.node.destroy_publisher(clock)


def test_compressed_inputs(to_renew):
    client = to_renew
    client.start_anew({f'{source}_transport': 'compressed' for source in ('visible', 'thermal')})
    visible, thermal = (
        client.node.create_publisher(
            CompressedImage, f'{source}/image_raw/compressed', client.reliable
        )
        for source in ('visible', 'thermal')
    )
    client.subscribe('fused/image_raw')
    client.until(lambda: visible.get_subscription_count() and thermal.get_subscription_count())
    client.until(lambda: client.node.count_publishers('fused/image_raw'))

    def send(corrupt=False):
        header = client.header()
        jpeg = cv2.imencode('.jpg', street())[1].tobytes()
        data = array.array('B', jpeg[:20] if corrupt else jpeg)
        visible.publish(CompressedImage(header=header, format='bgr8; jpeg', data=data))
        png = array.array('B', cv2.imencode('.png', heat())[1].tobytes())
        thermal.publish(CompressedImage(header=header, format='mono16; png', data=png))
        return header

    headers = []

    def refused_and_fused():
        send(corrupt=True)
        headers.append(send())
        client.spin(0.2)
        return client.counter('dropped: visible refused') and client.received['fused/image_raw']

    client.until(refused_and_fused)
    assert all(m.header in headers for m in client.received['fused/image_raw'])
    for publisher in (visible, thermal):
        client.node.destroy_publisher(publisher)


@pytest.mark.skipif('__import__("torch").cuda.is_available()', reason='there is a CUDA device')
def test_missing_cuda_fails_configuration_and_can_be_put_right(to_renew, active):
    client, process = active
    client.clean_up()
    logged = process.output().count('configuration failed')
    assert client.set_parameter('device', 'cuda') == (True, '')
    assert not client.change_state('configure')
    client.until(lambda: client.level == DiagnosticStatus.ERROR, 60)
    assert 'finds no CUDA device' in client.text
    assert client.state() == 'unconfigured'
    assert 'Traceback' not in process.output()
    assert process.output().count('configuration failed') == logged + 1
    assert client.set_parameter('device', 'cpu') == (True, '')
    assert client.change_state('configure')
    assert client.change_state('activate')
    client.fuse_one()


@pytest.mark.parametrize(
    ('parameters', 'words'),
    [
        # By the package, by its type, by its range, and by the choices.
        ({'fusion.gain_window': 4}, 'fusion.gain_window is 4, but must be odd'),
        ({'fusion.num_inference_steps': 'many'}, 'fusion.num_inference_steps'),
        ({'fusion.temperature': 0.0}, 'fusion.temperature'),
        ({'output_encoding': 'cmyk'}, 'output_encoding'),
    ],
)
def test_bad_value_at_start_ends_with_one_sentence(domain, capfd, parameters, words):
    with in_this_process(domain):
        assert main(['fusion_node', *ros_arguments({**FAST, **parameters})]) == 1
    printed = capfd.readouterr().err
    assert words in printed
    assert 'Traceback' not in printed


def test_values_that_do_not_fit_together_fail_configuration(domain):
    with running(domain, {'fusion.num_inference_steps': 500}) as (client, process):
        client.until(lambda: client.level == DiagnosticStatus.ERROR, 60)
        assert 'first_timestep is 400' in client.text
        assert 'Traceback' not in process.output()


def test_interrupt_while_configuring_ends_with_code_0(domain):
    with running(domain) as (client, process):
        client.until(lambda: client.node.count_publishers('/diagnostics'), 60)
        assert process.stop(signal.SIGINT) == 0, process.output()
        assert 'Traceback' not in process.output()


def test_termination_in_mid_fusion_ends_with_code_0(domain):
    with running(domain, {'fusion.num_inference_steps': 50}) as (client, process):
        client.wait_active()
        before = client.counter('pairs')
        for _ in range(10):
            client.send_pair()
        client.until(lambda: client.counter('pairs') > before)
        assert process.stop(signal.SIGTERM) == 0, process.output()
        assert 'Traceback' not in process.output()
        assert 'rosout' not in process.output(), process.output()
        assert 'received visible' in process.output()


def test_second_interrupt_does_not_spoil_the_end(domain):
    large = np.repeat(np.repeat(street(), 4, axis=0), 4, axis=1)
    slow = {'prior': 'nano', 'fusion.num_inference_steps': 100}
    with running(domain, slow) as (client, process):
        client.wait_active()
        before = client.counter('pairs')
        for _ in range(5):
            client.send_pair(visible=large)
        client.until(lambda: client.counter('pairs') > before)
        for _ in range(3):
            process.process.send_signal(signal.SIGINT)
            time.sleep(0.1)
        assert process.wait(60) == 0, process.output()
        for word in ('terminate', 'Traceback', 'rosout'):
            assert word not in process.output()
        assert 'received visible' in process.output()
