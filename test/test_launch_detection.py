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
"""The detection launch file on the real launch system, with stand-ins for node and detector."""

from pathlib import Path

import pytest

pytest.importorskip('launch', reason='comes with a ROS installation')
pytest.importorskip('launch_ros', reason='comes with a ROS installation')

from launch import LaunchContext
from launch.actions import SetLaunchConfiguration
from launch_files import Installation, launch_log, parameters, RECORDER, remappings
from launch_ros.actions import PushRosNamespace

FILE = 'detection.launch.py'
SOURCES = ('visible', 'thermal', 'fused')

# Starts a stand-in with all launch configurations that it sees.
DETECTOR = """
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch_ros.actions import Node

def start(context):
    seen = context.launch_configurations
    words = [f'{name}={seen[name]}' for name in sorted(seen) if isinstance(seen[name], str)]
    last = seen.get('namespace', '').rpartition('/')[2]
    name = f'detector_{last}' if last in ('visible', 'thermal', 'fused') else 'detector'
    return [Node(package='dig2dig', executable=name, arguments=words)]

def generate_launch_description():
    return LaunchDescription([
        DeclareLaunchArgument('device', default_value='cuda:0'),
        DeclareLaunchArgument('params_file', default_value='its own'),
        OpaqueFunction(function=start),
    ])
"""


@pytest.fixture
def installation(tmp_path, monkeypatch):
    """Return an installation with stand-ins for the node and for yolo_ros."""
    installation = Installation(tmp_path, monkeypatch)
    installation.add_executable('fusion_node', RECORDER)
    for name in ('detector', *(f'detector_{source}' for source in SOURCES), 'detection_fusion'):
        installation.add_executable(name, RECORDER)
    return installation


def add_detector(installation, package='yolo_bringup', file='yolo.launch.py'):
    folder = installation.add_package(package) / 'launch'
    folder.mkdir()
    (folder / file).write_text(DETECTOR, encoding='utf-8')


def detector_arguments(installation, name='detector'):
    """Return the arguments that the detector's launch file has seen."""
    words = installation.record(name)['arguments']
    words = words[: words.index('--ros-args')]
    return dict(word.split('=', 1) for word in words)


def test_arguments_of_both_are_declared_with_descriptions(installation):
    description = installation.source(FILE).get_launch_description(LaunchContext())
    declared = {argument.name: argument for argument in description.get_launch_arguments()}
    assert {'detector_package', 'detector_model', 'visible_topic', 'device'} < set(declared)
    for argument in declared.values():
        assert argument.description.partition(' Valid choices')[0].endswith('.')
        assert argument.default_value is not None


def test_yolo_reads_the_fused_images_reliably_and_nothing_else_of_ours(installation):
    add_detector(installation)
    given = {'visible_topic': '/front/image', 'device': 'cpu', 'params_file': 'realtime', 'N': '3'}
    assert installation.launch(FILE, given) == 0
    assert detector_arguments(installation) == {
        'input_image_topic': '/fused/image_raw',
        'image_reliability': '1',
        'namespace': 'yolo',
        'device': 'cuda:0',
        'params_file': 'its own',
    }
    node = installation.record('fusion_node')
    assert 'visible/image_raw:=/front/image' in node['arguments']
    assert parameters(node)['device'] == 'cpu'
    assert parameters(node)['fusion.num_inference_steps'] == 3


def test_what_is_given_for_the_detector_reaches_it(installation):
    add_detector(installation)
    given = {
        'detector_model': '/models/night people.pt',
        'detector_device': 'cpu',
        'detector_threshold': '0.4',
        'detector_arguments': "use_debug:=False image_reliability:=2 title:='two words'",
    }
    assert installation.launch(FILE, given) == 0
    seen = detector_arguments(installation)
    assert seen['model'] == '/models/night people.pt'
    assert seen['device'] == 'cpu'
    assert seen['threshold'] == '0.4'
    assert seen['use_debug'] == 'False'
    assert seen['image_reliability'] == '2'
    assert seen['title'] == 'two words'


@pytest.mark.parametrize('namespace', ['robot', '/robot', 'robot/'])
def test_the_detector_goes_with_the_namespace(installation, namespace):
    add_detector(installation)
    assert installation.launch(FILE, {'namespace': namespace}) == 0
    seen = detector_arguments(installation)
    assert seen['input_image_topic'] == '/robot/fused/image_raw'
    assert seen['namespace'] == 'robot/yolo'


def test_a_namespace_around_the_file_counts_for_the_topic(installation):
    add_detector(installation)
    around = PushRosNamespace('fleet')
    assert installation.launch(FILE, {'namespace': 'robot'}, around) == 0
    node, detector = installation.record('fusion_node'), installation.record('detector')
    assert '__ns:=/fleet/robot' in node['arguments']
    assert 'input_image_topic=/fleet/robot/fused/image_raw' in detector['arguments']
    assert '__ns:=/fleet' in detector['arguments']  # into which its own namespace goes


def test_any_other_detector_by_its_names(installation):
    add_detector(installation, 'my_detector', 'people.launch.py')
    given = {
        'detector_package': 'my_detector',
        'detector_launch_file': 'people.launch.py',
        'detector_image_argument': 'image',
        'detector_namespace': '',
    }
    outer = SetLaunchConfiguration('colour', 'red')
    assert installation.launch(FILE, given, outer) == 0
    seen = detector_arguments(installation)
    assert seen['image'] == '/fused/image_raw'
    assert not {'namespace', 'input_image_topic', 'colour', 'detector_package'} & set(seen)


def test_boxes_of_three_detectors_are_united(installation):
    add_detector(installation)
    given = {'mode': 'boxes', 'namespace': 'robot', 'detector_model': 'people.pt'}
    assert installation.launch(FILE, given) == 0
    images = {
        'visible': '/robot/visible/restored/image_raw',
        'thermal': '/robot/thermal/restored/image_raw',
        'fused': '/robot/fused/image_raw',
    }
    for name, topic in images.items():
        seen = detector_arguments(installation, f'detector_{name}')
        assert seen['input_image_topic'] == topic
        assert seen['namespace'] == f'robot/yolo/{name}'
        assert seen['model'] == 'people.pt'
        assert seen['threshold'] == '0.1'
        assert seen['use_tracking'] == seen['use_debug'] == 'False'
    assert installation.record('fusion_node') is not None
    node = installation.record('detection_fusion')
    assert '__ns:=/robot' in node['arguments']
    assert remappings(node) == {
        '__node': 'detection_fusion',
        '__ns': '/robot',
        **{f'{name}/detections': f'/robot/yolo/{name}/detections' for name in SOURCES},
    }
    values = parameters(node)
    assert tuple(values['sources']) == SOURCES
    assert values['min_score'] == 0.5
    assert values['iou'] == 0.5


def test_boxes_of_two_sources_with_settings_of_their_own(installation, tmp_path):
    add_detector(installation)
    file = tmp_path / 'merged.yaml'
    file.write_text('/**:\n  ros__parameters:\n    iou: 0.6\n', encoding='utf-8')
    given = {
        'mode': 'boxes',
        'detector_sources': 'thermal fused',
        'detector_threshold': '0.3',
        'detector_topic': 'tracking',
        'detector_namespace': '/eyes',
        'detection_params_file': str(file),
        'united_threshold': '0.4',
        'use_sim_time': 'true',
    }
    assert installation.launch(FILE, given) == 0
    assert installation.record('detector_visible') is None
    seen = detector_arguments(installation, 'detector_thermal')
    assert (seen['namespace'], seen['threshold']) == ('/eyes/thermal', '0.3')
    node = installation.record('detection_fusion')
    assert remappings(node)['fused/detections'] == '/eyes/fused/tracking'
    assert parameters(node) == {
        'iou': 0.6,
        'sources': ('thermal', 'fused'),
        'min_score': 0.4,
        'use_sim_time': True,
    }


def test_a_namespace_around_the_file_counts_for_all_topics(installation):
    add_detector(installation)
    given = {'mode': 'boxes', 'namespace': 'robot'}
    assert installation.launch(FILE, given, PushRosNamespace('fleet')) == 0
    seen = detector_arguments(installation, 'detector_thermal')
    assert seen['input_image_topic'] == '/fleet/robot/thermal/restored/image_raw'
    assert seen['namespace'] == 'robot/yolo/thermal'
    node = installation.record('detection_fusion')
    assert '__ns:=/fleet/robot' in node['arguments']
    assert remappings(node)['thermal/detections'] == '/fleet/robot/yolo/thermal/detections'


@pytest.mark.parametrize(
    ('arguments', 'reason'),
    [
        ({}, "'yolo_bringup' is not installed; it comes with yolo_ros: in the src folder"),
        ({'detector_package': 'my_yolo'}, 'apt install ros-$ROS_DISTRO-my-yolo'),
        (
            {'detector_package': 'other', 'detector_launch_file': 'nix.launch.py'},
            "'nix.launch.py', but other has yolo.launch.py",
        ),
        (
            {'detector_package': 'other', 'detector_arguments': 'threshold=0.3'},
            "has 'threshold=0.3', which is not NAME:=VALUE",
        ),
        (
            {'detector_package': 'other', 'detector_arguments': "a:='b"},
            'No closing quotation',
        ),
        ({'detector_package': 'other', 'mode': 'both'}, "Valid options are: ['image', 'boxes']"),
        (
            {'detector_package': 'other', 'mode': 'boxes', 'detector_sources': 'visible nir'},
            "detector_sources is 'visible nir', but has to be two or three of visible",
        ),
        (
            {'detector_package': 'other', 'mode': 'boxes', 'detector_namespace': ''},
            'starts the detector several times',
        ),
        (
            {'detector_package': 'other', 'united_threshold': 'half'},
            "united_threshold is 'half', but has to be 0 to 1",
        ),
        (
            {'detector_package': 'other', 'detection_params_file': 'nix.yaml'},
            "detection_params_file is 'nix.yaml', which is not a file",
        ),
    ],
)
def test_a_detector_that_cannot_start_ends_the_launch_before_the_node(
    installation, monkeypatch, caplog, arguments, reason
):
    # Whatever this machine has installed: yolo_bringup, for one.
    monkeypatch.setenv('AMENT_PREFIX_PATH', str(installation.prefix))
    add_detector(installation, 'other')
    with launch_log(caplog):
        assert installation.launch(FILE, arguments) == 1
    assert reason in caplog.text
    assert not list(Path(installation.records).iterdir())
