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

"""What the node says that it does to the rest of the system: no network, no files, known names."""

import os
from pathlib import Path
import subprocess
import sys
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs rclpy')
pytest.importorskip('torch', reason='needs torch')

from dig2dig_ros.resources import config_file
from integration.harness import CHECKOUT, NODE, running

POLICY = 'sros2_policy.xml'
# Of the policy, what the node has with other parameters only.
OPTIONAL = {
    *('/visible/image_raw/compressed', '/thermal/image_raw/compressed'),
    *('/thermal/camera_info', '/tf', '/tf_static', '/clock'),
    # Needed by what rclpy does on its own; not every version shows it.
    *('/parameter_events', f'{NODE}/get_type_description'),
}
# Python tells of every connection and every name that is looked up; what libraries do below it
# is seen by a namespace without network, see docs/security.md.
WATCH = """
import os, sys

def watch(event, arguments):
    remote = event == 'socket.getaddrinfo' or (
        event in ('socket.connect', 'socket.sendto') and not isinstance(arguments[1], (str, bytes))
    )
    if remote or event.startswith(('urllib.', 'http.client.', 'ftplib.', 'smtplib.')):
        os.write(2, f'NETWORK {event} {arguments!r}\\n'.encode())
        os._exit(99)

sys.addaudithook(watch)
"""


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Give processes places of their own, and watch them; return the folders by name."""
    folders = {name: tmp_path / name for name in ('home', 'work', 'temporary', 'log', 'watch')}
    for folder in folders.values():
        folder.mkdir()
    (folders['watch'] / 'sitecustomize.py').write_text(WATCH)
    python_path = os.pathsep.join([str(folders['watch']), os.environ.get('PYTHONPATH', '')])
    for name, value in {
        'HOME': folders['home'],
        'TMPDIR': folders['temporary'],
        'ROS_LOG_DIR': folders['log'],
        'PYTHONPATH': python_path,
        'PYTHONDONTWRITEBYTECODE': '1',
    }.items():
        monkeypatch.setenv(name, str(value))
    for name in ('ROS_HOME', 'XDG_CACHE_HOME', 'XDG_CONFIG_HOME', 'MPLCONFIGDIR', 'TORCH_HOME'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(folders['work'])
    return folders


def left_behind(folders):
    return [
        str(path)
        for name in ('home', 'work', 'temporary')
        for path in sorted(folders[name].rglob('*'))
    ]


def allowed(kind, right):
    """Return the full names of what the policy allows."""
    profile = ElementTree.parse(config_file(POLICY)).find('enclaves/enclave/profiles/profile')
    names = set()
    for group in profile.findall(f'{kind}s'):
        if group.get(right) == 'ALLOW':
            for entry in group.findall(kind):
                name = entry.text.replace('~', NODE)
                names.add(name if name.startswith('/') else f'/{name}')
    return names


def test_the_node_uses_no_network_writes_only_its_log_and_has_the_names_of_its_policy(
    places, domain
):
    with running(domain) as (client, process):
        client.wait_active()
        client.fuse_one()
        assert client.state() == 'active'
        graph = {}
        for right, names in {
            ('topic', 'publish'): client.node.get_publisher_names_and_types_by_node,
            ('topic', 'subscribe'): client.node.get_subscriber_names_and_types_by_node,
            ('service', 'reply'): client.node.get_service_names_and_types_by_node,
        }.items():
            graph[right] = {name for name, _ in names(NODE[1:], '/')}
        assert process.stop() == 0, process.output()
    assert 'NETWORK' not in process.output()
    assert left_behind(places) == []
    for (kind, right), present in graph.items():
        named = allowed(kind, right)
        assert present <= named, f'{POLICY} does not allow the node its {right}'
        assert named - present <= OPTIONAL, f'{POLICY} allows what the node does not have'


def test_a_tool_uses_no_network_and_writes_only_what_it_is_asked_for(places):
    rng = np.random.default_rng(0)
    for name, channels in (('visible', 3), ('thermal', 1)):
        image = rng.integers(0, 255, (48, 64, channels), dtype=np.uint8)
        cv2.imwrite(str(places['log'] / f'{name}.png'), image)
    inputs = [str(places['log'] / f'{name}.png') for name in ('visible', 'thermal')]
    command = [sys.executable, '-m', 'dig2dig_ros', 'fuse', *inputs, '-o', 'fused.png']
    python_path = os.pathsep.join([os.environ['PYTHONPATH'], str(CHECKOUT)])
    done = subprocess.run(
        command,
        env={**os.environ, 'PYTHONPATH': python_path},
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert [Path(path).name for path in left_behind(places)] == ['fused.png']


def test_the_watch_sees_what_it_is_for(places):
    code = "import socket; socket.create_connection(('192.0.2.1', 9), 0.1)"
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 99
    assert 'NETWORK' in done.stderr
