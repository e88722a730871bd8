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

"""The command benchmark at sizes at which speed says nothing."""

import json
from pathlib import Path
import re
from typing import Any

import pytest

from dig2dig_ros.evaluation.device_check import fail_on_device, NOT_LOST
from dig2dig_ros.tools.benchmark import main

SIZE = '64x48'
PLUGIN = """
def load():
    return None

def fuse(model, visible, thermal):
    return thermal
"""


def run(folder: Path, *words: str) -> dict[str, Any]:
    """Run the command and return the document that it writes."""
    path = folder / 'result.json'
    assert main([*words, '--size', SIZE, '--threads', '1', '--output', str(path)]) == 0
    document: dict[str, Any] = json.loads(path.read_text(encoding='utf-8'))
    assert document['format'] == 1
    assert document['benchmark'] == words[0]
    assert document['options']['size'] == [[64, 48]]
    machine = document['machine']
    assert machine['cpu']
    assert {'python', 'torch', 'numpy'} <= machine['versions'].keys()
    # The node computes in a process of its own, and tells its threads with its device.
    assert words[0] == 'node' or machine['torch_threads'] == 1
    return document


def fails_with(capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    assert main(words) == 2
    captured = capsys.readouterr()
    last = captured.err.splitlines()[-1]
    assert last.startswith('dig2dig benchmark: ')
    assert message in last
    assert captured.out == ''


def test_fuser_beside_other_fusions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plugin = tmp_path / 'copy.py'
    plugin.write_text(PLUGIN, encoding='utf-8')
    options = [
        '--preset',
        'realtime',
        '--precision',
        'fp32',
        'bf16',
        '--rounds',
        '3',
        '--device',
        'cpu',
    ]
    options += ['--plugin', str(plugin)]
    document = run(tmp_path, 'fuser', *options)
    rows = {row['name']: row for row in document['results']}
    assert list(rows) == ['realtime fp32', 'realtime bf16', 'mean', 'laplacian', 'copy']
    for name, row in rows.items():
        assert row['size'] == SIZE
        assert row['pairs'] == 3
        assert row['ms'].keys() == {'p50', 'p95', 'p99', 'max'}
        assert row['ratio'].keys() == {'realtime fp32', 'realtime bf16'}
        assert row['ratio'].get(name, 1) == 1
    assert rows['realtime bf16']['about']['precision'] == 'bfloat16'
    assert [row['kind'] for row in rows.values()] == ['dig2dig'] * 2 + ['baseline'] * 2 + [
        'plugin'
    ]
    table = capsys.readouterr().out
    assert 'The fuser alone at 64x48:' in table
    assert '| copy ' in table


@pytest.mark.integration
def test_node_over_dds(
    tmp_path: Path,
    domain: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from dig2dig_ros.nodes.child_processes import middleware_environment

    # The command sets them for its processes; set here, they are taken back after the test.
    for name, value in middleware_environment(domain).items():
        monkeypatch.setenv(name, value)
    options = ['--preset', 'realtime', '--device', 'cpu', '--rate', '20', '--seconds', '0.5']
    options += ['--domain-id', str(domain)]
    document = run(tmp_path, 'node', *options)
    paced, flat_out = document['results']
    assert (paced['flat_out'], flat_out['flat_out']) == (False, True)
    for row in (paced, flat_out):
        assert (row['name'], row['size']) == ('realtime', SIZE)
        assert row['about']['prior'] == 'nano'
        assert row['about']['device'] == 'cpu (1 thread)'
        # Every pair of the run, and of this run alone, is accounted for.
        assert 0 < row['fused'] <= row['sent']
        assert row['fused'] + row['superseded'] <= row['sent']
        assert 0 < row['received'] <= row['fused']
        assert row['fusion_ms'] > 0
        assert row['node_latency_ms']['p50'] >= row['fusion_ms']
    assert paced['sent_hz'] == 20
    assert paced['sent'] == 10
    # The first three are not counted, and a busy machine may pass over all the others.
    assert (paced['latency_ms'] is None) == (paced['received'] <= 3)
    assert paced['latency_ms'] is None or paced['latency_ms']['p50'] > 0
    table = capsys.readouterr().out
    assert 'The node over DDS at 64x48:' in table
    assert '| realtime, flat out |' in table


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['fuser', '--plugin', 'nowhere.py'], 'plug-in nowhere.py does not exist'),
        (['fuser', '--preset', 'nothing'], '--preset nothing is neither a file nor a preset'),
        (['fuser', '--device', 'cuda:99'], "device 'cuda:99' was asked for"),
        (['fuser', '--output', 'nowhere/result.json'], 'there is no folder nowhere'),
    ],
)
def test_what_cannot_be_measured(
    capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    fails_with(capsys, [*words, '--size', SIZE], message)


def test_two_plugins_of_one_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = []
    for folder in ('a', 'b'):
        (tmp_path / folder).mkdir()
        files.append(tmp_path / folder / 'mean.py')
        files[-1].write_text(PLUGIN, encoding='utf-8')
    words = [word for file in files for word in ('--plugin', str(file))]
    fails_with(
        capsys,
        ['fuser', '--preset', 'realtime', '--size', SIZE, *words],
        'two fusions are named mean',
    )


@pytest.mark.parametrize(
    'words',
    [
        [],
        ['fuser', '--size', '640'],
        ['node', '--rate', '0'],
        ['node', '--seconds', '0'],
        ['node', '--domain-id', '102'],
        ['floor'],
        ['fuser', '--precision', 'int8'],
    ],
)
def test_command_line_that_makes_no_sense(words: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2


@pytest.mark.slow
def test_a_device_is_checked_as_far_as_it_can_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / 'result.json'
    words = ['--device', 'cpu', '--size', SIZE, '--sizes', SIZE, '--pairs', '3', '--rounds', '1']
    assert main(['cuda', *words, '--output', str(path)]) == 0
    document = json.loads(path.read_text(encoding='utf-8'))
    checks = {check['name']: check for check in document['results'][0]['checks']}
    assert checks['paper: fp32 as on the CPU']['found'].startswith('at most 0 grey levels apart')
    assert checks['realtime: recorded']['found'] == 'recorded: 0, 0, 0, 0, 1, 1'
    assert checks['fusion: replayed as eager']['found'] == '3 of 3 random pairs equal'
    not_here = [name for name, check in checks.items() if check['passed'] is None]
    assert not_here == ['fusion: out of memory, and back', 'a device assert ends the process']
    assert all(check['passed'] for name, check in checks.items() if name not in not_here)
    printed = capsys.readouterr().out
    assert re.search(r'\| realtime: recorded +\| +passed \|', printed)
    assert re.search(r'\| realtime +\|', printed)  # its speed


def test_without_the_device_it_is_said_in_one_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('torch.cuda.is_available', lambda: False)
    fails_with(capsys, ['cuda'], "device 'cuda' was asked for, but torch")


def test_a_check_that_fails_is_an_exit_code(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: Any) -> Any:
        raise RuntimeError('CUDA error: invalid configuration argument\nCompile with ...')

    monkeypatch.setattr('dig2dig_ros.evaluation.device_check.moving_pairs', broken)
    monkeypatch.setattr('dig2dig_ros.evaluation.device_check.random_pair', broken)
    words = ['--device', 'cpu', '--size', SIZE, '--sizes', SIZE, '--pairs', '1', '--rounds', '1']
    assert main(['cuda', *words]) == 1
    captured = capsys.readouterr()
    assert 'RuntimeError: CUDA error: invalid configuration argument |' in captured.out
    assert 'the device failed these checks: fusion: fp32 as on the CPU' in captured.err


def test_an_error_of_a_kernel_on_the_cpu_loses_no_device(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert fail_on_device('cpu') == NOT_LOST
    assert 'fusion error' in capsys.readouterr().err
