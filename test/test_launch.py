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

"""The launch file on the real launch system, first with a stand-in for the node, then with it."""

import os
from pathlib import Path

import pytest
import yaml

pytest.importorskip('launch', reason='comes with a ROS installation')
pytest.importorskip('launch_ros', reason='comes with a ROS installation')

from launch import LaunchContext
from launch.actions import EmitEvent, ExecuteProcess, RegisterEventHandler
from launch.event_handlers import OnProcessExit, OnProcessIO
from launch.events import Shutdown
from launch_files import (
    CHECKOUT,
    FUSION_NODE,
    Installation,
    launch_log,
    parameters,
    PROFILE_VARIABLES,
    RECORDER,
    remappings,
)

FILE = 'fusion.launch.py'


@pytest.fixture
def installation(tmp_path, monkeypatch):
    return Installation(tmp_path, monkeypatch)


@pytest.fixture
def prefix(installation):
    return installation.prefix


@pytest.fixture
def launched(installation):
    """Return a function that launches a stand-in and returns how it was started."""
    installation.add_executable('fusion_node', RECORDER)

    def launch(**arguments):
        code = installation.launch(FILE, arguments)
        record = installation.record('fusion_node')
        if record is None:
            raise RuntimeError(f'the node was not started; launch ended with {code}')
        return record

    return launch


def test_arguments_are_declared_at_the_top_with_descriptions(installation):
    description = installation.source(FILE).get_launch_description(LaunchContext())
    declared = {argument.name: argument for argument in description.get_launch_arguments()}
    assert set(declared) == {
        'namespace',
        'visible_topic',
        'thermal_topic',
        'visible_transport',
        'thermal_transport',
        'visible_camera_info_topic',
        'thermal_camera_info_topic',
        'thermal_to_visible',
        'extrinsics',
        'visible_degradation',
        'thermal_degradation',
        'missing_modality',
        'N',
        'S',
        'device',
        'params_file',
        'fast_dds_profile',
        'log_level',
        'respawn',
        'shutdown_on_exit',
        'use_sim_time',
        'autostart',
    }
    for argument in declared.values():
        assert argument.description.partition(' Valid choices')[0].endswith('.')
        assert argument.default_value is not None


def test_defaults_start_the_node_with_the_shipped_parameters(launched, prefix):
    record = launched()
    ((path, text),) = record['parameter_files']
    assert Path(path).samefile(prefix / 'share' / 'dig2dig' / 'config' / 'fusion.yaml')
    assert text == (CHECKOUT / 'config' / 'fusion.yaml').read_text(encoding='utf-8')
    names = remappings(record)
    assert names['__node'] == 'fusion_node'
    assert names['visible/image_raw'] == 'visible/image_raw'
    assert names['visible/camera_info'] == 'visible/camera_info'
    assert names['thermal/image_raw'] == 'thermal/image_raw'


def test_given_arguments_win_over_the_file_with_their_types(launched):
    given = {'N': '7', 'S': '3', 'device': 'cuda:1'}
    record = launched(**given, autostart='False', use_sim_time='true')
    assert len(record['parameter_files']) == 2
    given = yaml.safe_load(record['parameter_files'][1][1])
    (values,) = (section['ros__parameters'] for section in given.values())
    assert values == {
        'fusion.num_inference_steps': 7,
        'fusion.dig_refresh_interval': 3,
        'device': 'cuda:1',
        'autostart': False,
        'use_sim_time': True,
    }
    assert type(values['fusion.num_inference_steps']) is int
    assert type(values['autostart']) is bool


@pytest.mark.parametrize('preset', ['realtime', 'paper'])
def test_presets_go_by_name(launched, preset):
    shipped = yaml.safe_load((CHECKOUT / 'config' / f'{preset}.yaml').read_text(encoding='utf-8'))
    ((_, text),) = launched(params_file=preset)['parameter_files']
    assert yaml.safe_load(text) == shipped


def test_a_file_of_ones_own_is_taken_and_single_arguments_still_win(launched, tmp_path):
    own = tmp_path / 'own.yaml'
    own.write_text('/**: {ros__parameters: {fusion: {num_inference_steps: 9, seed: 5}}}')
    values = parameters(launched(params_file=str(own), N='4'))
    assert values == {'fusion.num_inference_steps': 4, 'fusion.seed': 5}


def test_topics_are_remapped_and_camera_info_goes_with_the_image(launched):
    names = remappings(launched(visible_topic='/front/image', thermal_topic='/boson/image_raw'))
    assert names['visible/image_raw'] == '/front/image'
    assert names['visible/image_raw/compressed'] == '/front/image/compressed'
    assert names['visible/camera_info'] == '/front/camera_info'
    assert names['thermal/image_raw'] == '/boson/image_raw'
    assert names['thermal/image_raw/compressed'] == '/boson/image_raw/compressed'
    assert names['thermal/camera_info'] == '/boson/camera_info'
    names = remappings(launched(visible_topic='/front/image/compressed'))
    assert names['visible/camera_info'] == '/front/camera_info'
    names = remappings(launched(visible_topic='image', visible_camera_info_topic='/calibration'))
    assert names['visible/camera_info'] == '/calibration'
    names = remappings(launched(thermal_topic='/ir', thermal_camera_info_topic='/calibration'))
    assert names['thermal/camera_info'] == '/calibration'


def test_registration_degradation_and_faults_are_set_by_arguments(launched):
    asked = {
        'thermal_to_visible': '/robot/registration.yaml',
        'extrinsics': 'tf',
        'visible_degradation': 'low_light',
        'thermal_degradation': 'x4, noise auto',
        'missing_modality': 'visible',
    }
    values = parameters(launched(**asked))
    for name, value in asked.items():
        assert values[f'fusion.{name}' if name.endswith('degradation') else name] == value


def test_namespace_and_log_level_reach_the_node(launched):
    record = launched(namespace='robot', log_level='debug')
    assert remappings(record)['__ns'] == '/robot'
    words = record['arguments']
    assert words[words.index('--log-level') + 1] == 'debug'


@pytest.mark.parametrize(
    ('distribution', 'variable'),
    [
        ('humble', 'FASTRTPS_DEFAULT_PROFILES_FILE'),
        ('jazzy', 'FASTRTPS_DEFAULT_PROFILES_FILE'),
        ('kilted', 'FASTDDS_DEFAULT_PROFILES_FILE'),
        ('', 'FASTDDS_DEFAULT_PROFILES_FILE'),
    ],
)
def test_fast_dds_gets_the_shipped_profile(launched, prefix, monkeypatch, distribution, variable):
    monkeypatch.setenv('ROS_DISTRO', distribution)
    environment = launched()['environment']
    profile = str(prefix / 'share' / 'dig2dig' / 'config' / 'fast_dds.xml')
    assert {name: environment.get(name) for name in PROFILE_VARIABLES} == {
        name: profile if name == variable else None for name in PROFILE_VARIABLES
    }
    assert variable not in os.environ  # for the node alone


@pytest.mark.parametrize('variable', [*PROFILE_VARIABLES, 'FASTDDS_BUILTIN_TRANSPORTS'])
def test_a_choice_in_the_environment_is_left_alone(launched, monkeypatch, variable):
    monkeypatch.setenv(variable, 'LARGE_DATA')
    environment = launched()['environment']
    found = {name: environment[name] for name in PROFILE_VARIABLES if name in environment}
    assert found == ({variable: 'LARGE_DATA'} if variable in PROFILE_VARIABLES else {})


def test_a_profile_named_in_the_command_wins_and_an_empty_one_is_none(
    launched, monkeypatch, tmp_path
):
    assert not set(PROFILE_VARIABLES) & set(launched(fast_dds_profile='')['environment'])
    own = tmp_path / 'own.xml'
    own.touch()
    monkeypatch.setenv('FASTDDS_DEFAULT_PROFILES_FILE', '/elsewhere.xml')
    environment = launched(fast_dds_profile=str(own))['environment']
    assert environment['FASTDDS_DEFAULT_PROFILES_FILE'] == str(own)


@pytest.mark.parametrize(
    ('arguments', 'reason'),
    [
        ({'params_file': 'fast'}, 'neither a file nor a preset'),
        ({'fast_dds_profile': '/no/such.xml'}, "'/no/such.xml', which is not a file"),
        ({'N': 'many'}, "N is 'many', but must be a whole number"),
        ({'N': '2.5'}, "N is '2.5', but must be a whole number"),
        ({'autostart': '3'}, 'Argument "autostart" provided value "3" is not valid'),
        ({'log_level': 'loud'}, "Valid options are: ['debug', 'info', 'warn', 'error', 'fatal']"),
        ({'visible_transport': 'zip'}, 'Argument "visible_transport" provided value "zip" is not'),
        ({'missing_modality': 'both'}, "'wait', 'visible', 'thermal', 'any']"),
        ({'respawn': 'true', 'shutdown_on_exit': 'true'}, 'exclude each other'),
    ],
)
def test_a_bad_argument_ends_the_launch_with_its_reason(launched, caplog, arguments, reason):
    with launch_log(caplog), pytest.raises(RuntimeError, match='launch ended with 1'):
        launched(**arguments)
    assert reason in caplog.text


COUNTED = """
import os, sys
path = os.path.join(os.environ['DIG2DIG_TEST_RECORDS'], 'starts')
with open(path, 'a') as file:
    file.write('started ')
sys.exit(3)
"""


def starts(installation, arguments, *actions):
    """Launch a node that ends with 3 at once; return the launch's code and the node's starts."""
    installation.add_executable('fusion_node', COUNTED)
    code = installation.launch(FILE, arguments, *actions)
    return code, (installation.records / 'starts').read_text(encoding='utf-8').split()


def test_a_node_that_dies_is_said_and_started_again_on_request(installation, caplog):
    waiting = ExecuteProcess(cmd=['sleep', '600'])
    # Where somebody else still runs, and after the third start.
    seen = []

    def stop_waiting(event, context):
        if 'fusion_node' not in event.process_name:
            return None
        seen.append(event.returncode)
        return EmitEvent(event=Shutdown(reason='seen')) if len(seen) == limit else None

    for arguments, limit, words in (
        ({}, 1, 'nothing is fused any more: respawn:=true starts it again'),
        ({'respawn': 'true'}, 2, 'fusion_node ended with code 3, and is started again'),
    ):
        seen.clear()
        caplog.clear()
        (installation.records / 'starts').unlink(missing_ok=True)
        handler = RegisterEventHandler(OnProcessExit(on_exit=stop_waiting))
        with launch_log(caplog):
            code, begun = starts(installation, arguments, waiting, handler)
        assert (code, len(begun), seen) == (0, limit, [3] * limit)
        assert words in caplog.text
        waiting = ExecuteProcess(cmd=['sleep', '600'])


def test_a_node_that_dies_ends_all_on_request(installation, caplog):
    waiting = ExecuteProcess(cmd=['sleep', '600'])
    with launch_log(caplog):
        code, begun = starts(installation, {'shutdown_on_exit': 'true'}, waiting)
    assert (code, len(begun)) == (1, 1)
    assert 'fusion_node ended with code 3' in caplog.text


def test_what_the_command_line_gives_to_no_argument_is_said(installation, monkeypatch, caplog):
    installation.add_executable('fusion_node', RECORDER)
    words = ['visible_topc:=/a', 'temprature:=2.0', 'N:=1', 'nonsense:=1']
    monkeypatch.setattr('sys.argv', ['ros2', 'launch', 'dig2dig', FILE, *words])
    with launch_log(caplog):
        assert installation.launch(FILE, {'N': '1'}) == 0
    assert 'there is no argument visible_topc: its value has no effect; did you' in caplog.text
    assert 'did you mean visible_topic?' in caplog.text
    assert 'the parameter fusion.temperature is set in a file: params_file:=FILE' in caplog.text
    assert 'there is no argument nonsense: its value has no effect' in caplog.text
    assert 'no argument N' not in caplog.text


@pytest.mark.integration
def test_the_node_itself_comes_up_and_ends_cleanly(installation, tmp_path):
    for module in ('cv2', 'rclpy', 'torch'):
        pytest.importorskip(module)
    installation.add_executable('fusion_node', FUSION_NODE)
    small = tmp_path / 'small.yaml'
    small.write_text('/**:\n  ros__parameters:\n    warmup_size: [64, 48]\n')
    arguments = {'N': '3', 'S': '2', 'device': 'cpu', 'params_file': str(small)}
    output = []
    ends = []

    def read(event):
        # The first sign of an active node: it looks out for its cameras.
        output.append(event.text.decode())
        if 'no visible image on' in ''.join(output):
            return EmitEvent(event=Shutdown(reason='the node is up'))
        return None

    code = installation.launch(
        FILE,
        arguments,
        RegisterEventHandler(OnProcessIO(on_stdout=read, on_stderr=read)),
        RegisterEventHandler(
            OnProcessExit(on_exit=lambda event, _: ends.append(event.returncode))
        ),
    )
    assert code == 0
    assert ends == [0], ''.join(output)
    log = ''.join(output)
    assert 'N 3, S 2, resolution 64x48' in log
