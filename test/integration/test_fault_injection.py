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
Nothing takes the node down: seeded faults over real DDS.

``FAULTS=10000 FAULTS_SEED=0 pytest -s test/integration/test_fault_injection.py`` sends that many
messages and tells in the end what became of them; without, it is as many as every day has time
for.
"""

from collections import Counter
import json
import math
import os
from pathlib import Path
import pickle
import random
import signal
import struct
import subprocess
import sys
import time

from builtin_interfaces.msg import Time
from domains import next_domain
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
import numpy as np
import pytest
from rcl_interfaces.msg import Parameter, ParameterValue
from rcl_interfaces.srv import SetParameters
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image

from dig2dig_ros.priors import compact
from dig2dig_ros.streams.codec import encode
from dig2dig_ros.streams.pairing import SOURCES
from dig2dig_ros.streams.parameters import PARAMETERS_BY_NAME
from integration.fault_injection import Siege
from integration.harness import environment, NodeProcess, street

MESSAGES = int(os.environ.get('FAULTS', '500'))
IS_LONG = MESSAGES >= 5000
SEED = int(os.environ.get('FAULTS_SEED', '0'))
# Shares of the messages.
SHARES = {
    'malformed': 0.2,
    'storm': 0.2,
    'compressed': 0.2,
    'lifecycle': 0.1,
    'simulated': 0.1,
    'registered': 0.1,
    'three': 0.1,
}
# What a process may take more than at rest: MiB (larger images were fused), threads, files.
GROWTH = 400, 4, 8
READER = """
import rclpy
from sensor_msgs.msg import Image
rclpy.init()
node = rclpy.create_node('reader')
node.create_subscription(Image, 'fused/image_raw', print, 10)
print('ready', flush=True)
rclpy.spin(node)
"""
CAMERA = """
import rclpy, time
from sensor_msgs.msg import Image
rclpy.init()
node = rclpy.create_node('camera')
publisher = node.create_publisher(Image, 'visible/image_raw', 10)
image = Image(width=2, height=2, encoding='mono8', step=2, data=b'1234')
while True:
    now = time.time_ns()
    image.header.stamp.sec, image.header.stamp.nanosec = divmod(now, 10**9)
    publisher.publish(image)
    if publisher.get_subscription_count():
        print('sent', flush=True)
    time.sleep(0.02)
"""


@pytest.fixture(scope='module')
def shared(module_domain):
    siege = Siege(module_domain, SEED)
    yield siege
    causes = {key.removeprefix('dropped: '): n for key, n in sorted(siege.counted.items()) if n}
    print(f'\nseed {SEED}: {siege.sent} messages sent; accounted for: {causes}')
    siege.close()


@pytest.fixture(scope='module')
def at_rest(shared):
    """Return what the process takes before anything hostile comes."""
    shared.client.until(lambda: shared.client.values.get('state') == 'active', 180)
    shared.start()
    shared.fire(40, faults=0.001)
    return shared.check()


@pytest.fixture
def siege(shared, at_rest, request):
    """Return the node under fire, active; it must work and have stayed small at the end."""
    shared.renew(request.node.name)
    shared.start()
    yield shared
    if shared.process.process.poll() is not None:
        return
    if shared.client.state() != 'active':
        shared.transition('activate')
    shared.works()
    vitals = shared.check()
    print(f'\n{shared.sent} sent, {vitals}')
    for what, most in zip(('memory', 'threads', 'files'), GROWTH, strict=True):
        if getattr(vitals, what) > getattr(at_rest, what) + most:
            shared.violated(f'{vitals} at last, {at_rest} at first')


def goal(siege, what):
    """Return how many messages will have been sent when this part is done."""
    return siege.sent + round(SHARES[what] * MESSAGES)


def test_malformed_messages_are_all_accounted_for(siege):
    siege.fire(round(SHARES['malformed'] * MESSAGES), pause=0.008)
    siege.account()


def test_live_parameters_in_a_storm(siege):
    end = goal(siege, 'storm')
    while siege.sent < end:
        siege.fire(40, pause=0.008)
        siege.storm(5)
        siege.check()
    siege.account()


def test_compressed_garbage(siege):
    siege.start({'visible_transport': 'compressed', 'thermal_transport': 'compressed'})
    siege.fire(round(SHARES['compressed'] * MESSAGES), pause=0.008)
    siege.account()


def test_transitions_in_every_order_under_load(siege):
    end = goal(siege, 'lifecycle')
    while siege.sent < end:
        siege.random_transitions(8)
        siege.storm(6, fixed=True)
        siege.check()
    siege.start()


def test_simulated_time_that_jumps(siege):
    siege.set_parameters({'use_sim_time': True})
    end = goal(siege, 'simulated')
    pick = siege.random.choice
    while siege.sent < end:
        seconds = pick([0, 1, 100, 50, 2**31 - 1, -1, -(2**31)])
        clock = Clock(clock=Time(sec=seconds, nanosec=pick([0, 1, 999_999_999, 2**32 - 1])))
        siege.send('/clock', clock, f'{seconds} s')
        if siege.random.random() < 0.1:
            siege.messages.nanoseconds = pick([10**12, 10**9, 10**15])  # a bag begins again
        siege.fire(12, pause=0.008)
    siege.check()
    siege.set_parameters({'use_sim_time': False})
    siege.account()


def test_camera_info_that_makes_no_sense(siege, tmp_path):
    path = tmp_path / 'extrinsics.yaml'
    path.write_text('translation: [0.1, 0.0, 0.0]\nrpy_degrees: [0.0, 0.0, 1.0]\n')
    for rectified in (False, True):
        siege.start({'extrinsics': str(path), 'rectified': rectified})
        end = siege.sent + SHARES['registered'] / 2 * MESSAGES
        while siege.sent < end:
            for source in ('visible', 'thermal'):
                info = siege.messages.camera_info(source, siege.random.random() < 0.5)
                siege.send(f'{source}/camera_info', info, 'info')
            siege.set_parameters(
                {
                    name: siege.messages.parameter(PARAMETERS_BY_NAME[name], True)
                    for name in ('plane_distance', 'registration_edge')
                }
            )
            siege.fire(6, pause=0.01, faults=0.05)
        siege.account()
    siege.start()


def test_a_third_camera(siege):
    siege.start({'additional_sources': ['nir']})
    end = goal(siege, 'three')
    while siege.sent < end:
        siege.fire(8, pause=0.008, faults=0.2)
        image = siege.messages.image('thermal')
        if siege.random.random() < 0.3:
            image = siege.messages.broken_image('thermal')
        siege.send('nir/image_raw', image, 'nir')
    siege.account()
    siege.start()


def test_parameters_of_no_type(siege):
    request = SetParameters.Request(
        parameters=[Parameter(name='fusion.seed', value=ParameterValue(type=77))]
    )
    siege.log.append('set seed to a value of type 77')
    siege.ask(request)
    siege.client.spin(0.3)
    for name in ('sync_tolerance', 'fusion.temperature', 'frozen_timeout'):
        ((successful, _),) = siege.set_parameters({name: math.nan})
        assert not successful
    assert not siege.set_parameters({'thermal_range_limits': [-math.inf, math.inf]})[0][0]


def test_long_texts_are_not_repeated(siege):
    message = siege.messages.image('visible')
    message.encoding = 'x' * 200_000
    for _ in range(5):
        siege.send('visible/image_raw', message, '200 kB of encoding')
        siege.client.spin(0.1)
    siege.check()
    assert int(siege.client.values['dropped: visible malformed']) > 0
    assert len(siege.client.values['last error']) < 2000


def test_a_reader_that_stands_still_and_a_camera_that_is_killed(siege):
    reader, camera = (
        subprocess.Popen(
            [sys.executable, '-c', program],
            env=environment(siege.client.domain),
            stdout=subprocess.PIPE,
        )
        for program in (READER, CAMERA)
    )
    try:
        for process in (reader, camera):
            process.stdout.readline()
        reader.send_signal(signal.SIGSTOP)
        camera.kill()
        # A stamp of today, and then those of the test's own time: a clock that jumps back.
        siege.works()
        assert float(siege.client.values['latency p50 (ms)']) < 1000
    finally:
        for process in (reader, camera):
            process.kill()
            process.wait()


def test_hopeless_fusions_can_be_stopped(siege):
    siege.set_parameters({'fusion.noise_draws': 2, 'fusion.first_timestep': 999})
    siege.set_parameters({'fusion.num_inference_steps': 999, 'fusion.sampler': 'ancestral'})
    for _ in range(3):
        siege.step()
        for source in ('visible', 'thermal'):
            siege.send(f'{source}/image_raw', siege.messages.image(source), 'sound')
    siege.client.spin(0.5)
    begin = time.monotonic()
    while not siege.transition('deactivate'):
        if time.monotonic() - begin > 60:
            siege.violated('the node never deactivates')
        siege.check()
    siege.account()
    siege.start()


def pair(siege):
    siege.step(10**8)
    for source in SOURCES:
        siege.send(f'{source}/image_raw', siege.messages.image(source), 'sound')
    return Counter(fused=1)


def palette(siege):
    siege.step(10**8)
    siege.send('visible/image_raw', siege.messages.image('visible'), 'sound')
    colours = np.zeros((48, 64, 3), np.uint8)
    colours[:24, :, 0] = colours[24:, :, 2] = 200
    message = encode(colours, 'bgr8', siege.messages.header('thermal', True), Image)
    siege.send('thermal/image_raw', message, 'palette')
    return Counter({'thermal refused': 1})


def malformed(siege):
    message = siege.messages.image('visible')
    message.step = 1
    siege.send('visible/image_raw', message, 'malformed')
    return Counter({'visible malformed': 1})


def without_stamp(siege):
    message = siege.messages.image('thermal')
    message.header.stamp = Time()
    siege.send('thermal/image_raw', message, 'without stamp')
    return Counter({'thermal zero stamp': 1})


def repeated(siege):
    ends = pair(siege)
    message = siege.messages.image('visible')
    siege.send('visible/image_raw', message, 'repeated')
    return ends + Counter({'visible duplicate stamp': 1})


def lonely(siege):
    siege.step(10**8)
    siege.send('visible/image_raw', siege.messages.image('visible'), 'lonely')
    return pair(siege) + Counter({'visible unpaired': 1})


def set_back(siege):
    siege.step(10**8)
    siege.send('visible/image_raw', siege.messages.image('visible'), 'before the clock jumps')
    siege.messages.nanoseconds -= 10**10
    return pair(siege) + Counter({'visible clock jump': 1})


def test_every_image_ends_for_its_own_cause(siege):
    siege.start()
    images = []
    subscription = siege.client.listen('fused/image_raw', Image, images.append, depth=100)
    expected = Counter()
    # Until the subscription is there.
    for _ in range(60):
        expected += pair(siege)
        siege.until_ended(expected)
        siege.client.spin(0.2)
        if images:
            break
    before = expected['fused'] - len(images)
    everything = [pair, palette, malformed, without_stamp, repeated, lonely, set_back] * 2
    siege.random.shuffle(everything)
    for send in everything:
        expected += send(siege)
        siege.until_ended(expected)
    siege.client.until(lambda: len(images) >= expected['fused'] - before)
    siege.account()
    siege.until_ended(expected)
    siege.client.node.destroy_subscription(subscription)
    assert len(images) == expected['fused'] - before


def test_what_waits_at_a_deactivation_is_counted(siege):
    siege.start({'max_pixels': 320 * 240})
    # Many steps of a large image: it is in work until it is given up.
    siege.set_parameters({'fusion.noise_draws': 2, 'fusion.first_timestep': 999})
    siege.set_parameters({'fusion.dig_refresh_interval': 999})
    siege.set_parameters({'fusion.num_inference_steps': 999, 'fusion.sampler': 'ancestral'})
    for pairs in (1, 2):
        siege.step(10**8)
        header = siege.messages.header('visible', True)
        large = encode(np.tile(street(), (5, 5, 1)), 'bgr8', header, Image)
        siege.send('visible/image_raw', large, 'large')
        siege.send('thermal/image_raw', siege.messages.image('thermal'), 'sound')
        siege.client.until(lambda n=pairs: siege.client.counter('pairs') == n)
    siege.step(10**8)
    siege.send('thermal/image_raw', siege.messages.image('thermal'), 'without counterpart')
    siege.client.until(lambda: siege.client.counter('thermal received') == 3)
    while not siege.transition('deactivate'):
        siege.check()
    siege.account()
    assert siege.ends() == {'shutdown': 2, 'thermal shutdown': 1}
    siege.start()


def test_what_was_sent_is_not_kept(siege):
    siege.start()
    grown = []
    for _ in range(4):
        before = siege.check()
        for _ in range(40):
            siege.client.spin_once(0.002)
            pair(siege)
            palette(siege)
            siege.send('visible/image_raw', siege.messages.image('visible'), 'repeated')
        siege.client.settle()
        after = siege.check()
        grown.append((after.memory - before.memory, after.data - before.data))
    # What grows with the messages, 200 of 9 kB a part, grows in every part; what is set up with
    # the first of them does not.
    assert max(min(each) for each in zip(*grown, strict=True)) < 2, grown


class Code:
    """What makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def write_hostile_priors(folder, mark):
    """Write files that are no priors, and return their names."""
    sound = (Path(compact.__file__).parent / 'weights' / 'nano.safetensors').read_bytes()
    code = pickle.dumps(Code(mark))
    huge = json.dumps({'a': {'dtype': 'F32', 'shape': [2**40], 'data_offsets': [0, 2**42]}})
    # Of diffusers, with weights that are code.
    network = folder / 'network'
    network.mkdir()
    config = {'_class_name': 'UNet2DModel', 'block_out_channels': [64], 'in_channels': 1}
    (network / 'config.json').write_text(json.dumps({**config, 'out_channels': 1}))
    (network / 'diffusion_pytorch_model.bin').write_bytes(code)
    (folder / 'deep').mkdir()
    (folder / 'deep' / 'config.json').write_text('[' * 100_000)
    (folder / 'deep' / 'diffusion_pytorch_model.bin').write_bytes(code)
    files = {
        'none.safetensors': b'',
        'short.safetensors': sound[:1000],
        'cut.safetensors': sound[:-1],
        'wide.safetensors': sound.replace(b'[8, 24, 48, 64]', b'[9, 24, 48, 64]'),
        'header.safetensors': struct.pack('<Q', 2**62) + sound[8:],
        'shape.safetensors': struct.pack('<Q', len(huge)) + huge.encode() + bytes(64),
        'code.safetensors': code,
        'code.pt': code,
        'code.pth': code,
        'code.bin': code,
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    names = [*files, 'network', 'deep', 'missing.safetensors', '.']
    # The loaders have tests of their own, and some take seconds to import.
    return names if IS_LONG else ['cut.safetensors', 'header.safetensors', 'code.pt', 'deep']


def test_hostile_priors_are_refused_unexecuted(siege, tmp_path):
    mark = tmp_path / 'executed'
    siege.clean_up()
    for name in write_hostile_priors(tmp_path, mark):
        assert siege.set_parameters({'prior': str(tmp_path / name)})[0][0]
        assert not siege.transition('configure'), name
        siege.check()
        assert 'configuration failed: denoiser' in siege.client.text
    assert not mark.exists()
    siege.set_parameters({'prior': 'nano'})
    assert siege.transition('configure')
    siege.start()


def test_files_that_are_bombs_are_refused(siege, tmp_path):
    lines = ['a: &a0 [1.0, 1.0]']
    lines += [f'a{n}: &a{n} [{", ".join([f"*a{n - 1}"] * 10)}]' for n in range(1, 12)]
    files = {
        'bomb.yaml': '\n'.join([*lines, 'homography: *a11']).encode(),
        'deep.yaml': b'[' * 100_000,
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    os.mkfifo(tmp_path / 'pipe.yaml')
    siege.clean_up()
    for parameter in ('thermal_to_visible', 'extrinsics'):
        for name in ('bomb.yaml', 'deep.yaml', 'pipe.yaml'):
            siege.set_parameters({parameter: str(tmp_path / name)})
            assert not siege.transition('configure'), name
            siege.check()
            assert name in siege.client.text
        siege.set_parameters({parameter: ''})
    siege.start()
    siege.account()


def hears_signals(process):
    """Return whether somebody listens to signals: before, one ends any process at once."""
    for line in Path(f'/proc/{process.pid}/status').read_text().splitlines():
        if line.startswith('SigCgt'):
            return bool(int(line.split()[1], 16) >> (signal.SIGTERM - 1) & 1)
    return False


def test_signals_at_any_moment():
    chance = random.Random(f'{SEED} signals')
    codes = Counter()
    for _ in range(max(3, MESSAGES // 250)):
        node = NodeProcess(next_domain(), {'prior': 'nano'})
        if chance.random() < 0.8:
            while not hears_signals(node.process):
                assert node.process.poll() is None
                time.sleep(0.001)
            time.sleep(chance.uniform(0, 2))
        else:
            time.sleep(chance.uniform(0, 0.1))
        heard = hears_signals(node.process)
        number = chance.choice([signal.SIGINT, signal.SIGTERM])
        node.process.send_signal(number)
        if chance.random() < 0.4:
            time.sleep(chance.uniform(0, 0.1))
            if node.process.poll() is None:
                node.process.send_signal(chance.choice([signal.SIGINT, signal.SIGTERM]))
        code = node.wait()
        codes[code] += 1
        # Before Python has read the entry point, it ends as it ends any program.
        if heard:
            assert code == 0, (number, node.output())
            assert 'Traceback' not in node.output()
    print(f'\nexit codes: {dict(codes)}')


def test_signals_while_modules_are_imported():
    for number in (signal.SIGINT, signal.SIGTERM):
        node = NodeProcess(next_domain(), {'prior': 'nano'})
        while not hears_signals(node.process):
            assert node.process.poll() is None
            time.sleep(0.001)
        node.process.send_signal(number)
        assert node.wait() == 0
        assert not node.output()


def test_a_signal_under_load(shared, at_rest):
    shared.renew('a signal under load')
    shared.start()
    shared.fire(60)
    shared.process.process.send_signal(signal.SIGINT)
    shared.fire(20)
    assert shared.process.wait() == 0
    assert 'Traceback' not in shared.process.output()


@pytest.mark.skipif(not IS_LONG, reason='takes a node of its own')
def test_shutdown_ends_the_streams_and_a_signal_the_process():
    siege = Siege(next_domain(), SEED)
    try:
        siege.client.until(lambda: siege.client.values.get('state') == 'active', 60)
        siege.start()
        siege.fire(20)
        transition = Transition(id=Transition.TRANSITION_ACTIVE_SHUTDOWN, label='shutdown')
        assert siege.change(ChangeState.Request(transition=transition)).success
        siege.fire(20)
        siege.check()
        assert siege.client.values['state'] == 'finalized'
        assert siege.process.stop(signal.SIGTERM) == 0
    finally:
        siege.close()
