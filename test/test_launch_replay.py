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
"""The replay launch file on the real launch system: with stand-ins, then with node and player."""

import json
import os
import re
import sys

import pytest

pytest.importorskip('launch', reason='comes with a ROS installation')
pytest.importorskip('launch_ros', reason='comes with a ROS installation')
pytest.importorskip('rosbags', reason='comes with the extra evaluation')
pytest.importorskip('mcap', reason='comes with the extra evaluation')

from launch import LaunchContext
from launch_files import (
    CHECKOUT,
    FUSION_NODE,
    Installation,
    launch_log,
    parameters,
    RECORDER,
    remappings,
)
from small_bags import write_bag

from dig2dig_ros.evaluation.bag_reader import BagReader

FILE = 'replay.launch.py'

# A node that runs until it is told to end.
RUNNING = f"""
{RECORDER}
import signal
try:
    signal.pause()
except KeyboardInterrupt:
    pass
"""

# A player that ends when the node has written down how it was started.
PLAYER = f"""
{RECORDER}
import time
for _ in range(400):
    if os.path.exists(os.path.join(folder, 'fusion_node.json')):
        break
    time.sleep(0.05)
sys.exit(int(os.environ.get('DIG2DIG_TEST_CODE', 0)))
"""

# The lifecycle of a node that becomes active a while after its start.
LIFECYCLE = f"""
{RECORDER}
import rclpy
from rclpy.lifecycle import LifecycleNode
rclpy.init()
node = LifecycleNode('fusion_node')
node.trigger_configure()
active = os.path.join(folder, 'active')

def activate():
    if not os.path.exists(active):
        open(active, 'w').close()
        node.trigger_activate()

steady = rclpy.clock.Clock(clock_type=rclpy.clock.ClockType.STEADY_TIME)
node.create_timer(2.0, activate, clock=steady)
try:
    rclpy.spin(node)
except (KeyboardInterrupt, rclpy.executors.ExternalShutdownException):
    pass
"""

# Stands in for rosbag2: its recorder runs until it is told to end, its player ends at once.
ROS2 = f"""
import os, sys
verb = sys.argv[2]
sys.argv[0] = os.path.join(os.path.dirname(sys.argv[0]), verb)
{RECORDER}
if verb == 'play':
    ready = [os.path.exists(os.path.join(folder, name)) for name in ('active', 'recording')]
    with open(os.path.join(folder, 'play_when_ready'), 'w') as file:
        file.write(str(ready))
else:
    import rclpy
    from sensor_msgs.msg import Image
    rclpy.init()
    node = rclpy.create_node('recorder')
    open(os.path.join(folder, 'recording'), 'w').close()
    node.create_subscription(Image, '/robot/fused/image_raw', lambda message: None, 10)
    try:
        rclpy.spin(node)
    except (KeyboardInterrupt, rclpy.executors.ExternalShutdownException):
        pass
"""


@pytest.fixture
def installation(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    installation = Installation(tmp_path, monkeypatch)
    installation.add_executable('fusion_node', RUNNING)
    installation.add_executable('play', PLAYER)
    return installation


@pytest.fixture
def bag(tmp_path):
    return write_bag(tmp_path / 'drive', 'mcap')


def player_options(installation):
    """Return the player's options by name; those without a value are true."""
    words = installation.record('play')['arguments']
    words = words[: words.index('--ros-args')]
    options = {'bag': words.pop(0)}
    while words:
        name = words.pop(0)
        options[name] = words.pop(0) if words and not words[0].startswith('--') else True
    return options


def test_arguments_are_declared_at_the_top_with_descriptions(installation):
    description = installation.source(FILE).get_launch_description(LaunchContext())
    declared = {argument.name: argument for argument in description.get_launch_arguments()}
    assert {'bag', 'rate', 'loop', 'output', 'player', 'N', 'params_file'} < set(declared)
    for argument in declared.values():
        assert argument.description.partition(' Valid choices')[0].endswith('.')
        assert argument.default_value is not None or argument.name == 'bag'


def test_node_and_player_are_started_on_the_topics_of_the_bag(installation, bag, tmp_path):
    assert installation.launch(FILE, {'bag': str(bag), 'N': '3', 'rate': '0.5'}) == 0
    node = installation.record('fusion_node')
    names = remappings(node)
    assert names['visible/image_raw'] == '/camera/image_raw'
    assert names['visible/camera_info'] == '/camera/camera_info'
    assert names['thermal/image_raw'] == '/thermal/image_raw'
    values = parameters(node)
    assert values['use_sim_time'] is True
    assert values['fusion.num_inference_steps'] == 3
    output = tmp_path / 'replay_drive'
    assert output.is_dir()
    options = player_options(installation)
    assert float(options.pop('--wait')) > 60
    assert options == {
        'bag': str(bag),
        '--rate': '0.5',
        '--clock': '100',
        '--record': str(output / 'fused'),
        '--visible': '/camera/image_raw',
        '--thermal': '/thermal/image_raw',
        '--summary': str(output / 'replay.json'),
    }


def test_output_loop_and_measure_reach_the_player_and_the_namespace_both(installation, bag):
    arguments = {
        'bag': str(bag),
        'output': 'results/night',
        'loop': 'True',
        'measure': 'false',
        'namespace': 'robot',
    }
    assert installation.launch(FILE, arguments) == 0
    record = json.loads((installation.records / 'play.json').read_text(encoding='utf-8'))
    assert remappings(record)['__ns'] == '/robot'
    assert remappings(installation.record('fusion_node'))['__ns'] == '/robot'
    options = player_options(installation)
    assert options['--record'] == os.path.join(os.getcwd(), 'results', 'night', 'fused')
    assert options['--loop'] is True
    assert '--summary' not in options


def test_a_compressed_topic_sets_the_transport(installation, tmp_path):
    bag = write_bag(tmp_path / 'drive', 'sqlite3', compressed=True)
    assert installation.launch(FILE, {'bag': str(bag)}) == 0
    node = installation.record('fusion_node')
    names = remappings(node)
    assert names['visible/image_raw'] == '/camera/image_raw'
    assert names['visible/image_raw/compressed'] == '/camera/image_raw/compressed'
    values = parameters(node)
    assert (values['visible_transport'], values['thermal_transport']) == ('compressed', 'raw')
    assert player_options(installation)['--visible'] == '/camera/image_raw/compressed'


@pytest.mark.parametrize(
    ('arguments', 'reason'),
    [
        ({'bag': '/no/such/bag'}, "bag is '/no/such/bag', which does not exist"),
        ({'visible_topic': '/nix'}, '/camera/image_raw'),
        ({'rate': 'fast'}, "rate is 'fast', but must be a number"),
        ({'rate': '-1'}, 'rate is -1.0, but must be 0.001 to 1000'),
        ({'loop': 'often'}, 'Argument "loop" provided value "often" is not valid'),
        ({'player': 'vlc'}, "Valid options are: ['auto', 'dig2dig', 'rosbag2']"),
        ({'output': 'used'}, "output is 'used', which holds the replay.json of an earlier"),
        ({'output': 'drive/metadata.yaml'}, 'which cannot be made'),
        ({'params_file': 'fast'}, 'neither a file nor a preset'),
    ],
)
def test_a_bad_argument_ends_the_launch_before_anything_starts(
    installation, bag, tmp_path, caplog, arguments, reason
):
    (tmp_path / 'used').mkdir()
    (tmp_path / 'used' / 'replay.json').touch()
    with launch_log(caplog):
        assert installation.launch(FILE, {'bag': str(bag), **arguments}) == 1
    assert reason in caplog.text
    assert not list(installation.records.iterdir())


def test_without_rosbags_it_says_what_to_install(installation, bag, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, 'rosbags', None)
    with launch_log(caplog):
        assert installation.launch(FILE, {'bag': str(bag)}) == 1
    assert 'pip install rosbags; or install ros-$ROS_DISTRO-rosbag2' in caplog.text


def test_a_player_that_fails_fails_the_launch(installation, bag, monkeypatch, caplog):
    monkeypatch.setenv('DIG2DIG_TEST_CODE', '1')
    with launch_log(caplog):
        assert installation.launch(FILE, {'bag': str(bag)}) == 1
    assert re.search(r'play-\d+ ended with code 1', caplog.text)


def test_a_node_that_dies_ends_the_replay(installation, bag, caplog):
    installation.add_executable('fusion_node', 'raise SystemExit(3)')
    with launch_log(caplog):
        assert installation.launch(FILE, {'bag': str(bag)}) == 1
    assert 'fusion_node ended with code 3 before the replay did' in caplog.text


@pytest.mark.parametrize('distribution', ['humble', 'jazzy'])
def test_rosbag2_plays_when_node_and_recorder_are_ready(
    installation, bag, tmp_path, monkeypatch, distribution
):
    pytest.importorskip('rclpy')
    monkeypatch.setenv('ROS_DISTRO', distribution)
    installation.add_package('ros2bag')
    installation.add_executable('fusion_node', LIFECYCLE)
    installation.add_executable('ros2', ROS2, tmp_path / 'bin')
    path = os.pathsep.join([str(tmp_path / 'bin'), os.environ['PATH']])
    monkeypatch.setenv('PATH', path)
    arguments = {'bag': str(bag), 'player': 'rosbag2', 'rate': '2', 'namespace': '/robot'}
    assert installation.launch(FILE, arguments) == 0
    ready = (installation.records / 'play_when_ready').read_text(encoding='utf-8')
    assert ready == '[True, True]'
    play = installation.record('play')['arguments']
    assert play[:7] == ['bag', 'play', str(bag), '--rate', '2.0', '--clock', '100']
    assert float(play[play.index('--delay') + 1]) > 0
    record = installation.record('record')['arguments']
    assert record[record.index('-o') + 1] == str(tmp_path / 'replay_drive' / 'fused')
    assert record[record.index('-s') + 1] == 'mcap'
    assert '/robot/fused/image_raw' in record
    assert '/robot/fused/weights/overlay' in record
    assert ('--topics' in record) == (distribution == 'jazzy')


def test_auto_takes_rosbag2_where_rosbags_is_missing(installation, bag, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, 'rosbags', None)
    installation.add_package('ros2bag')
    with launch_log(caplog):
        assert installation.launch(FILE, {'bag': str(bag)}) == 1
    assert 'name visible_topic and thermal_topic' in caplog.text


@pytest.mark.integration
def test_a_bag_goes_through_the_node_into_another_bag(installation, bag, tmp_path):
    for module in ('cv2', 'rclpy', 'torch'):
        pytest.importorskip(module)
    installation.add_executable('fusion_node', FUSION_NODE)
    installation.add_executable('play', (CHECKOUT / 'libexec' / 'play').read_text())
    small = tmp_path / 'small.yaml'
    small.write_text(
        '/**:\n  ros__parameters:\n    {prior: nano, warmup_size: [64, 48], num_threads: 1}\n'
    )
    arguments = {'bag': str(bag), 'device': 'cpu', 'params_file': str(small)}
    assert installation.launch(FILE, arguments) == 0
    output = tmp_path / 'replay_drive'
    with BagReader(bag) as reader:
        stamps = [
            reader.decode(record).header.stamp for record in reader.records(['/camera/image_raw'])
        ]
    with BagReader(output / 'fused') as reader:
        assert reader.storage == 'mcap'
        fused = [
            reader.decode(record).header.stamp for record in reader.records(['/fused/image_raw'])
        ]
    summary = json.loads((output / 'replay.json').read_text(encoding='utf-8'))
    assert summary['complete']
    # A busy machine may be too slow for some of them, which is counted then.
    assert 0 < len(fused) == len(stamps) - summary['dropped']['superseded']
    assert fused == [stamp for stamp in stamps if stamp in fused]
    assert summary['fused'] == summary['fused_received'] == len(fused)
