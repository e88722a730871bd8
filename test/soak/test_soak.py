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

"""The soak: its options, and a short run over real DDS."""

import json
import os
from pathlib import Path
import subprocess
import sys

import pytest

pytest.importorskip('rclpy', reason='needs rclpy')

from soak import __main__ as soak

TESTS = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--minutes', '0'], '--minutes must be positive'),
        (['--rate', 'nan'], '--rate must be positive'),
        (['--minutes', '1', '--warm-up', '1'], '--warm-up must be shorter'),
        (['--minutes', '0.1', '--interval', '5'], 'too short for a trend'),
        (['--preset', 'none_such'], 'neither a file nor a preset'),
    ],
)
def test_what_makes_no_sense_is_refused(arguments, message, capsys):
    with pytest.raises(SystemExit, match='2'):
        soak.parse_arguments(arguments)
    assert message in capsys.readouterr().err


def test_results_that_are_there_are_not_replaced(tmp_path, capsys):
    (tmp_path / 'mine.txt').write_text('')
    assert soak.main(['--output', str(tmp_path)]) == 2
    assert 'is not empty' in capsys.readouterr().err


@pytest.mark.integration
def test_a_short_run_with_faults_keeps_on_and_is_reported(tmp_path, domain):
    pytest.importorskip('torch', reason='needs torch')
    command = [sys.executable, '-m', 'soak', '--minutes', '0.07', '--faults']
    command += [
        '--domain-id',
        str(domain),
        '--interval',
        '0.15',
        '--size',
        '64x48',
        '--threads',
        '1',
        '--device',
        'cpu',
    ]
    environment = {**os.environ, 'ROS_LOG_DIR': str(tmp_path)}
    environment['PYTHONPATH'] = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    output = tmp_path / 'output'
    done = subprocess.run(
        [*command, '--output', str(output)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    # So short a run may still be growing: what it is judged by is tested elsewhere.
    assert done.returncode in (0, soak.GREW), done.stdout + done.stderr
    report = json.loads((output / 'soak.json').read_text())
    assert report['flat'] == (done.returncode == 0)
    assert done.stdout.rstrip().endswith('FLAT')
    assert report['fused'] > 0
    assert report['latency_ms']['p99'] >= report['latency_ms']['p50'] > 0
    assert report['resolution'] == '64x48'
    assert report['sent']['broken'] > 0
    dropped = report['counters']['dropped']
    assert dropped['visible malformed'] > 0
    assert set(report['measures']) >= {'resident', 'private', 'threads', 'descriptors'}
    assert len(report['series']['resident']) == report['samples']
    assert 'fused' in (output / 'fusion_node.log').read_text()
