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
"""The player as a process over real DDS, alone and with the fusion node."""

from contextlib import contextmanager
from itertools import pairwise
import json
import re
import signal

import pytest

pytest.importorskip('rosbags', reason='comes with the extra evaluation')
pytest.importorskip('mcap', reason='comes with the extra evaluation')

from rclpy.qos import qos_profile_sensor_data, QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image
from small_bags import DELAY, PERIOD, stamps, write_bag

from dig2dig_ros.evaluation.bag_reader import BagReader
from dig2dig_ros.nodes.raw_topics import header_stamp
from dig2dig_ros.tools.play import main
from integration.harness import in_this_process, ListenedProcess, running

CAMERA = ('/camera/image_raw', '/thermal/image_raw')


class Player(ListenedProcess):
    """A running dig2dig play and someone who listens to it."""

    def __init__(self, domain, arguments):
        super().__init__(domain, ['dig2dig_ros', 'play'], map(str, arguments))
        self.received = {}

    def listen(self, kind, topic, qos=None, raw=True):
        """Keep what comes on a topic, as it is serialised."""
        self.received[topic] = []
        qos = qos or QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)
        self.node.create_subscription(kind, topic, self.received[topic].append, qos, raw=raw)


@contextmanager
def playing(domain, *arguments):
    player = Player(domain, arguments)
    try:
        yield player
    finally:
        player.close()


def play_here(domain, *arguments):
    """Run the player in this process and return its exit code."""
    with in_this_process(domain):
        return main([str(argument) for argument in arguments])


@pytest.fixture(scope='module')
def node(module_domain):
    """Return a client of a fusion node on the topics of the bags."""
    remaps = ['visible/image_raw:=/camera/image_raw', 'visible/camera_info:=/camera/camera_info']
    words = [word for remap in remaps for word in ('-r', remap)]
    with running(module_domain, {'prior': 'nano', 'autostart': False}, words) as (client, _):
        yield client


def activate(node, parameters):
    node.reset(parameters)
    assert node.change_state('configure')
    assert node.change_state('activate')


@pytest.fixture(autouse=True)
def local_discovery(monkeypatch):
    monkeypatch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')


@pytest.fixture
def bag(tmp_path):
    return write_bag(tmp_path / 'drive')


def recorded(path, topic):
    with BagReader(path) as reader:
        return [record.data for record in reader.records([topic])]


def test_every_message_comes_as_it_was_recorded(domain, tmp_path):
    bag = write_bag(tmp_path / 'drive', 'mcap', unknown=True)
    with playing(domain, bag, '--clock', '200', '--rate', '2', '--wait', '30') as player:
        player.listen(Image, CAMERA[0])
        player.listen(Image, CAMERA[1], qos_profile_sensor_data)
        player.listen(CameraInfo, '/camera/camera_info')
        player.listen(Clock, '/clock', raw=False)
        assert player.finish() == 0, player.output()
    for topic in (*CAMERA, '/camera/camera_info'):
        whole = recorded(bag, topic)
        assert len(player.received[topic]) == len(whole)
        for came, data in zip(player.received[topic], whole, strict=True):
            # DDS fills up to a multiple of four bytes.
            assert came[: len(data)] == data
            assert came[len(data) :] == bytes(-len(data) % 4)
    times = [c.clock.sec * 10**9 + c.clock.nanosec for c in player.received['/clock']]
    assert times == sorted(times)
    assert times[0] == stamps()[0] + DELAY - 1_000_000  # while it waited
    assert stamps()[-1] < times[-1] < stamps()[-1] + 20 * PERIOD
    line = r'not played, as this ROS installation lacks their types: /detections \(vision_msgs'
    assert len(re.findall(line, player.output())) == 1
    assert 'played: 18 messages of 3 topics' in player.output()


def test_topics_can_be_chosen_and_remapped(domain, bag):
    remap = ['--ros-args', '-r', '/thermal/image_raw:=/boson/image']
    with playing(domain, bag, '--topics', 'thermal/image_raw', '--rate', '4', *remap) as player:
        player.listen(Image, '/boson/image')
        player.listen(Image, CAMERA[0])
        assert player.finish() == 0, player.output()
    assert player.received['/boson/image'] == recorded(bag, CAMERA[1])
    assert not player.received[CAMERA[0]]


def test_a_loop_turns_the_clock_back_until_it_is_interrupted(domain, tmp_path):
    bag = write_bag(tmp_path / 'drive', count=3)
    with playing(domain, bag, '--loop', '--clock', '--rate', '2') as player:
        for topic in CAMERA:
            player.listen(Image, topic)
        player.listen(Clock, '/clock', raw=False)
        player.until(lambda: len(player.received[CAMERA[0]]) > 7)
        player.process.send_signal(signal.SIGINT)
        assert player.finish() == 0, player.output()
    images = recorded(bag, CAMERA[0])
    assert player.received[CAMERA[0]][:7] == [*images, *images, images[0]]
    times = [c.clock.sec * 10**9 + c.clock.nanosec for c in player.received['/clock']]
    assert any(later < earlier for earlier, later in pairwise(times))
    assert 'Traceback' not in player.output()


def test_what_the_node_makes_of_a_bag_is_recorded_and_measured(node, tmp_path):
    bag = write_bag(tmp_path / 'drive', 'mcap')
    out, summary_file = tmp_path / 'out', tmp_path / 'results' / 'summary.json'
    options = ['--clock', '--wait', '60', '--record', out, '--summary', summary_file]
    activate(node, {'use_sim_time': True})
    with playing(node.domain, bag, *options) as player:
        assert player.finish() == 0, player.output()
    with BagReader(out) as reader:
        assert reader.storage == 'mcap'
        counts = {name: topic.count for name, topic in reader.topics.items()}
        fused = list(reader.records(['/fused/image_raw']))
    summary = json.loads(summary_file.read_text(encoding='utf-8'))
    # A busy machine may be too slow for some of the pairs, which is counted then.
    superseded = summary['dropped'].pop('superseded')
    count = 6 - superseded
    assert count > 0
    weights = [f'/fused/weights/{name}' for name in ('visible', 'thermal', 'overlay')]
    assert counts == dict.fromkeys(['/fused/image_raw', '/fused/camera_info', *weights], count)
    found = [header_stamp(record.data) for record in fused]
    assert found == [stamp for stamp in stamps() if stamp in found]
    assert len(found) == count
    # Recorded at simulated time, so that both bags lie on one time line.
    assert all(0 < each.time - header_stamp(each.data) < 60 * 10**9 for each in fused)

    assert summary['complete']
    assert summary['sources'] == {'visible': CAMERA[0], 'thermal': CAMERA[1]}
    assert summary['played'] == summary['received'] == {'visible': 6, 'thermal': 6}
    assert summary['lost'] == {'visible': 0, 'thermal': 0}
    assert summary['pairs'] == 6
    assert summary['fused'] == summary['fused_received'] == count
    assert not any(summary['dropped'].values())
    assert summary['node']['prior'].startswith('nano')
    assert summary['recorded'] == counts
    latency = summary['latency_ms']
    assert 0 < latency['p50'] <= latency['p95'] <= latency['max']
    assert summary['behind_schedule_ms']['max'] >= 0
    assert f'{count} of 6 pairs' in player.output()


def test_an_interruption_keeps_what_was_recorded(node, tmp_path, bag):
    out, summary_file = tmp_path / 'out', tmp_path / 'summary.json'
    options = ['--loop', '--wait', '60', '--record', out]
    activate(node, {})
    with playing(node.domain, bag, *options, '--summary', summary_file) as player:
        player.listen(Image, '/fused/image_raw')
        player.until(lambda: len(player.received['/fused/image_raw']) >= 8)
        player.process.send_signal(signal.SIGINT)
        assert player.finish() == 0, player.output()
    with BagReader(out) as reader:
        assert reader.storage == 'sqlite3'
        assert not reader.problems
        found = [header_stamp(record.data) for record in reader.records(['/fused/image_raw'])]
    # The bag begins again more than a second back in time, which the node takes as a jump.
    assert len(found) >= 7
    assert set(found) <= set(stamps())
    summary = json.loads(summary_file.read_text(encoding='utf-8'))
    assert not summary['complete']
    assert summary['rounds'] >= 2
    assert summary['lost'] == {}


def test_nobody_there_is_an_error_where_a_node_is_needed_and_a_warning_else(domain, bag, capfd):
    assert play_here(domain, bag, '--measure', '--wait', '0.5') == 1
    printed = capfd.readouterr().err
    assert 'still waiting for /camera/image_raw, /thermal/image_raw' in printed
    assert 'is the fusion node running and active?' in printed
    assert play_here(domain, bag, '--wait', '0', '--rate', '10') == 0
    printed = capfd.readouterr().err
    assert 'playing anyway' in printed
    assert 'played: 18 messages' in printed


def test_a_node_that_cannot_be_configured_ends_the_player_with_its_reason(node, bag, tmp_path):
    node.reset({'prior': '/no/such/prior.safetensors'})
    assert not node.change_state('configure')
    with playing(node.domain, bag, '--wait', '60', '--record', tmp_path / 'out') as player:
        assert player.finish() == 1
    assert 'fusion_node: configuration failed' in player.output()
    assert '/no/such/prior.safetensors' in player.output()
    assert not (tmp_path / 'out').exists()


def test_a_bag_that_was_cut_off_is_played_as_far_as_it_goes(domain, tmp_path):
    bag = write_bag(tmp_path / 'drive', 'sqlite3', count=30)
    (file,) = bag.glob('*.db3')
    whole = recorded(bag, CAMERA[0])
    data = file.read_bytes()
    file.write_bytes(data[: len(data) * 2 // 3])
    with playing(domain, bag, '--rate', '8', '--wait', '30') as player:
        for topic in CAMERA:
            player.listen(Image, topic)
        assert player.finish() == 0, player.output()
    found = player.received[CAMERA[0]]
    assert 0 < len(found) < len(whole)
    assert found == whole[: len(found)]
    assert 'WARN' in player.output()


@pytest.mark.parametrize(
    ('arguments', 'reason'),
    [
        (['--topics', '/nix'], 'has no topic /nix; it has /camera/camera_info'),
        (['--measure', '--visible', '/nix'], 'no visible topic /nix'),
        (['--measure', '--topics', CAMERA[0]], 'nothing to measure: /thermal/image_raw is not'),
    ],
)
def test_what_the_bag_does_not_hold_is_said(domain, bag, capfd, arguments, reason):
    assert play_here(domain, bag, *arguments) == 1
    assert reason in capfd.readouterr().err
