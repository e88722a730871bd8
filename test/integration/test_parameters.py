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

"""Parameters of the running node: what a file loads, and what nobody declared."""

from pathlib import Path
import subprocess
import sys

import pytest
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import parameter_dict_from_yaml_file

from integration.harness import CHECKOUT, environment, NODE, running

GIVEN = {
    # As in the shipped file.
    'device': 'auto',
    'num_threads': 0,
    'warmup_size': [640, 512],
    'diagnostics_period': 1.0,
    # What ROS, its topics and its sources bring along is known.
    'use_sim_time': True,
    'qos_overrides./fused/image_raw.publisher.depth': 7,
    # The others are not.
    'temprature': 2.0,
    'num_inference_step': 3,
    'nir_transport': 'raw',
}


@pytest.fixture(scope='module')
def node(module_domain, tmp_path_factory):
    """Return (client, process) of an active node with the parameters above."""
    other = str(tmp_path_factory.mktemp('parameters') / 'other.yaml')
    text = '/robot:\n  fuser:\n    ros__parameters:\n      prior: nano\n'
    Path(other).write_text(text, encoding='utf-8')
    # ROS reads it, and Python's own reader comes to no end.
    nested = other.replace('other', 'nested')
    Path(nested).write_text(f'{text}      deep: {"[" * 2000}{"]" * 2000}\n', encoding='utf-8')
    with running(
        module_domain,
        GIVEN,
        [
            *('-r', 'visibel/image_raw:=/x', '-r', 'thermal/image_raw:=/y'),
            *('-p', 'fusion:prior:=nano', '--params-file', other, '--params-file', nested),
            *('--', '--prier', 'nano'),
        ],
    ) as (client, process):
        client.until(lambda: client.values.get('state') == 'active', 60, 'active')
        yield client, process


def test_the_shipped_file_loads_into_a_node_that_runs_with_it(node):
    client, _ = node
    # As ``ros2 param load`` does it.
    path = str(CHECKOUT / 'config' / 'fusion.yaml')
    parameters = list(parameter_dict_from_yaml_file(path, True, target_nodes=[NODE]).values())
    request = SetParameters.Request(parameters=parameters)
    results = client.call(SetParameters, 'set_parameters', request).results
    refused = {
        parameter.name: result.reason
        for parameter, result in zip(parameters, results, strict=True)
        if not result.successful
    }
    assert 'warmup_size' in {parameter.name for parameter in parameters}
    assert refused == {}


def test_another_value_of_a_fixed_list_is_refused(node):
    client, _ = node
    successful, reason = client.set_parameter('warmup_size', [64, 48])
    assert not successful
    assert 'warmup_size is fixed while the node is active' in reason


def test_what_has_no_effect_is_named_with_what_was_probably_meant(node):
    client, process = node
    assert client.values['unknown parameters'] == 'temprature, num_inference_step, nir_transport'
    log = process.output()
    assert 'no parameter temprature: its value has no effect' in log
    assert 'did you mean fusion.temperature?' in log
    assert 'did you mean fusion.num_inference_steps?' in log
    assert "the argument '--prier' is unknown and has no effect" in log
    assert '-p prior:=VALUE' in log
    assert 'qos_overrides' not in log
    assert '-p fusion:prior:=nano is for fusion and has no effect: this node is /fusion_n' in log
    assert 'other.yaml is for robot/fuser and has no effect' in log
    assert '-r visibel/image_raw:=/x has no effect: this node has no topic visibel/image_' in log
    assert 'did you mean visible/image_raw?' in log
    assert '-r thermal/image_raw:=/y' not in log


@pytest.mark.parametrize(
    ('module', 'words'),
    [
        ('nodes.fusion_node', ('usage: fusion_node', 'sync_tolerance (default: ')),
        ('nodes.detection_fusion_node', ('usage: detection_fusion_node', 'min_score (default: ')),
        ('tools.pair_camera', ('usage: pair_camera', 'wait_for_subscribers (default: ')),
    ],
)
def test_help_is_printed_and_nothing_started(domain, module, words):
    done = subprocess.run(
        [sys.executable, '-m', f'dig2dig_ros.{module}', '--help'],
        env=environment(domain),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, '')
    for text in words:
        assert text in done.stdout


def test_a_level_that_log_messages_do_not_have_is_one_sentence(domain):
    level = ['--ros-args', '--log-level', 'loud']
    done = subprocess.run(
        [sys.executable, '-m', 'dig2dig_ros.nodes.fusion_node', *level],
        env=environment(domain),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert "Couldn't parse log level: '--log-level loud'" in done.stderr
    assert 'Traceback' not in done.stderr
