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

"""The doctor as a process: with cameras over real DDS, and where things are missing or broken."""

import os
import re
import signal
import subprocess
import sys

import pytest

pytest.importorskip('rclpy', reason='needs rclpy')

from integration.harness import cameras, environment, running, street
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from dig2dig_ros.nodes.client import FusionClient
from dig2dig_ros.streams.installation import Finding
from dig2dig_ros.tools import doctor

pytestmark = [pytest.mark.integration, pytest.mark.slow]

COMMAND = [sys.executable, '-m', 'dig2dig_ros', 'doctor']
STREET = {'width': 64, 'height': 48, 'wait_for_subscribers': 60.0}


def run(domain, *arguments, folder=None, **variables):
    """Return exit code and output of a doctor; ``folder`` has packages before the real ones."""
    env = {**environment(domain), **variables}
    if folder is not None:
        env['PYTHONPATH'] = os.pathsep.join([str(folder), env['PYTHONPATH']])
    done = subprocess.run(
        [*COMMAND, *arguments], env=env, capture_output=True, text=True, timeout=240
    )
    assert 'Traceback' not in done.stdout + done.stderr, done.stdout + done.stderr
    return done.returncode, ' '.join(done.stdout.split())


def test_cameras_are_found_with_what_they_send(domain):
    with cameras(domain, {**STREET, 'thermal_transport': 'compressed'}) as pair:
        code, output = run(domain, '--seconds', '8')
        assert pair.process.poll() is None, pair.output()
    assert 'cameras 2 image topics in 8 s' in output
    assert '/visible/image_raw Image, bgr8 64x48, ' in output
    assert (
        '/thermal/image_raw/compressed CompressedImage, mono16; png compressed 64x48, ' in output
    )
    visible = output.split('/visible/image_raw Image, ')[1]
    assert ' Hz, reliable, stamped ' in visible
    # Whatever this machine lacks, it is not to do with the cameras.
    assert '-> ' not in visible
    assert code in (0, 1)
    assert (code == 0) == output.endswith('Nothing needs attention.')


def test_clocks_that_differ_are_said_with_what_to_set(domain):
    with cameras(domain, {**STREET, 'thermal_offset': 2.0}):
        # On a busy machine, too few images may come in time, or some come late.
        for _ in range(4):
            code, output = run(domain, '--seconds', '8')
            said = re.search(r'-> the /thermal/image_raw stamps are (\d\.\d+) s', output)
            if said is not None:
                break
    assert code == 1
    assert said is not None, output
    assert float(said[1]) == pytest.approx(2.0, abs=0.45)
    assert f'set thermal_time_offset: -{said[1]}' in output


def test_what_is_wrong_with_a_topic_is_said(domain):
    client = FusionClient.connect('cameras', domain)
    quality = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    make = client.node.create_publisher
    visible = [make(Image, 'visible/image_raw', quality) for _ in range(2)]
    make(Image, 'thermal/image_raw', quality)
    data = street()[..., 0].tobytes()[:100]
    message = Image(height=48, width=64, step=64, encoding='mono8', header=Header())
    message.data = data
    process = subprocess.Popen(
        [*COMMAND, '--seconds', '4'], env=environment(domain), stdout=subprocess.PIPE, text=True
    )
    try:
        while process.poll() is None:
            visible[0].publish(message)
            client.spin(0.1)
        output = ' '.join(process.stdout.read().split())
    finally:
        process.kill()
        process.wait()
        client.close()
    assert process.returncode == 1
    assert 'visible/image_raw Image, ' in output
    assert 'best effort' in output
    assert '-> /visible/image_raw has 2 publishers' in output
    assert (
        "image on '/visible/image_raw' with encoding 'mono8': 100 bytes of data are too" in output
    )
    assert 'visible/image_raw images have no stamp' in output
    assert '-> /thermal/image_raw has a publisher, but no image came' in output


def test_a_fusion_node_is_listened_to_and_is_no_camera(domain):
    with running(domain, {'stale_timeout': 0.5}) as (client, process):
        client.until(lambda: 'no visible image on /visible/image_raw' in client.text)
        code, output = run(domain, '--seconds', '3')
        assert process.process.poll() is None, process.output()
    assert code == 1
    # Those of the client, which stands in for them and sends nothing.
    assert 'cameras 2 image topics in 3 s /thermal/image_raw Image, 0 in 3 s' in output
    assert 'fused/' not in output.split('cameras 2')[1]
    assert 'fusion_node active, cpu (1 thread)' in output
    assert '-> fusion_node says: no visible image on /visible/image_raw' in output


def test_without_cameras_it_says_what_to_start(domain):
    code, output = run(domain, '--seconds', '0.5')
    assert code == 1
    assert 'cameras 0 image topics in 0.5 s -> no image topic is published' in output
    assert f'discovery domain {domain}, discovery LOCALHOST' in output


def test_what_is_broken_costs_its_own_line(domain, tmp_path):
    for name, code in {
        'cv2': 'import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)',
        'torch': 'raise ImportError("libcudart.so.12 is missing")',
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / '__init__.py').write_text(code)
    code, output = run(
        domain,
        '--no-topics',
        folder=tmp_path,
        RMW_IMPLEMENTATION='rmw_unheard_of',
        ROS_DOMAIN_ID='abc',
    )
    assert code == 1
    assert 'OpenCV crashes (SIGSEGV) ->' in output
    assert 'libcudart.so.12 is missing' in output
    assert 'RMW_IMPLEMENTATION is rmw_unheard_of: install it, or unset the variable' in output
    assert "ROS_DOMAIN_ID is 'abc'" in output
    assert output.endswith('4 things need attention: see ->.')


def test_without_ros_the_rest_is_looked_at(domain, tmp_path):
    without = (
        'import importlib.util\n_find = importlib.util.find_spec\n'
        'importlib.util.find_spec = lambda name, *more: (\n'
        '    None if name in ("rclpy", "torch") else _find(name, *more))\n'
    )
    (tmp_path / 'sitecustomize.py').write_text(without)
    code, output = run(domain, folder=tmp_path, ROS_DISTRO='jazzy')
    assert code == 1
    assert 'torch not installed for' in output
    assert 'ROS ROS 2 Jazzy, no rclpy ->' in output
    assert 'cannot import rclpy: use the python3 that ROS 2 Jazzy was built for' in output
    assert 'cameras' not in output


@pytest.mark.parametrize('arguments', [['--seconds', '0'], ['--seconds', 'x'], ['now']])
def test_a_bad_command_line_ends_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        doctor.main(arguments)
    assert end.value.code == 2
    assert 'usage: dig2dig doctor' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('advice', 'code', 'last'),
    [
        ((), 0, 'Nothing needs attention.'),
        (('turn it on',), 1, '1 thing needs attention: see ->.'),
        (('turn it on', 'and off'), 1, '2 things need attention: see ->.'),
    ],
)
def test_the_exit_code_says_whether_something_needs_attention(
    advice, code, last, monkeypatch, capsys
):
    monkeypatch.setattr(doctor, 'look', lambda options: [Finding('lamp', 'dark', advice)])
    assert doctor.main([]) == code
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ['lamp', 'dark']
    assert lines[1:] == [*(f'  -> {each}' for each in advice), last]


def test_ctrl_c_while_it_listens_is_one_line(domain):
    process = subprocess.Popen(
        [*COMMAND, '--seconds', '600'],
        env=environment(domain),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    client = FusionClient.connect('looker', domain)
    try:
        # Before, its name is that of a process that tries whether ROS works.
        next(line for line in process.stdout if line.startswith('memory'))
        client.spin(1.0)
        client.until(lambda: 'dig2dig_doctor' in client.node.get_node_names(), 60, 'the doctor')
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
        client.close()
    assert process.returncode == 130
    assert errors.splitlines()[-1] == 'dig2dig doctor: interrupted'
    assert 'Traceback' not in errors


def test_a_reader_that_leaves_ends_it_without_a_word(domain):
    process = subprocess.Popen(
        [*COMMAND, '--no-topics'],
        env=environment(domain),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdout.close()
    errors = process.stderr.read()
    assert (process.wait(120), errors) == (141, b'')
