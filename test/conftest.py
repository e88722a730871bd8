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

"""Fixtures that every test may use."""

import os
from pathlib import Path
import signal

from domains import reserved_domain
import pytest

INTEGRATION = Path(__file__).with_name('integration')
# The images of tests are too small for threads, which cost more than they save. Read when torch is
# loaded, by the processes under test as well.
os.environ.setdefault('OMP_NUM_THREADS', '1')


@pytest.fixture(scope='session')
def shared() -> Path:
    """Return the folder of development data, which a user's machine does not have."""
    default = Path(__file__).resolve().parents[2] / 'shared'
    folder = Path(os.environ.get('DIG2DIG_SHARED', default))
    if not folder.is_dir():
        pytest.skip(f'development data not found in {folder}')
    return folder


@pytest.fixture
def domain():
    """Return a ROS domain for one test."""
    pytest.importorskip('rclpy', reason='needs rclpy')
    with reserved_domain() as number:
        yield number


@pytest.fixture(scope='module')
def module_domain():
    """Return a ROS domain for what the tests of a module share."""
    pytest.importorskip('rclpy', reason='needs rclpy')
    with reserved_domain() as number:
        yield number


# Of Fast DDS, in place of three seconds each: how often a process announces itself, and how often
# a writer asks its readers what they have received.
_ANNOUNCEMENTS = (
    '<builtin><discovery_config><leaseAnnouncement><sec>0</sec><nanosec>200000000</nanosec>'
    '</leaseAnnouncement></discovery_config></builtin>'
)
_HEARTBEATS = (
    '<data_writer profile_name="writer" is_default_profile="true"><times><heartbeat_period>'
    '<sec>0</sec><nanosec>100000000</nanosec></heartbeat_period></times></data_writer>'
)


@pytest.fixture(scope='session')
def quick_dds_variables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the variables of the shipped Fast DDS profile, made quick to connect and to end."""
    from dig2dig_ros.resources import config_file, fast_dds_environment

    shipped = config_file('fast_dds.xml').read_text(encoding='utf-8')
    profile = shipped.replace('<rtps>', f'<rtps>{_ANNOUNCEMENTS}')
    file = tmp_path_factory.mktemp('dds') / 'fast_dds.xml'
    variables = fast_dds_environment(str(file))
    if 'FASTDDS_DEFAULT_PROFILES_FILE' in variables:
        # Fast DDS 2 has another name for the period.
        profile = profile.replace('</profiles>', f'{_HEARTBEATS}</profiles>')
    file.write_text(profile, encoding='utf-8')
    return variables


@pytest.fixture(autouse=True)
def _quick_dds(request: pytest.FixtureRequest) -> None:
    """Let the processes of an integration test find each other, and part, without waiting."""
    if request.node.get_closest_marker('integration'):
        monkeypatch = request.getfixturevalue('monkeypatch')
        for name, value in request.getfixturevalue('quick_dds_variables').items():
            monkeypatch.setenv(name, value)


def pytest_configure() -> None:
    """Let the processes under test hear Ctrl-C, which a shell's background jobs have ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of processes and browsers, and skip those for CUDA where there is none."""
    for item in items:
        if INTEGRATION in item.path.parents:
            item.add_marker(pytest.mark.integration)
        if item.get_closest_marker('integration'):
            # In a parallel run, one worker starts all nodes, one after the other.
            item.add_marker(pytest.mark.xdist_group('nodes'))
        if 'open_page' in getattr(item, 'fixturenames', ()):
            item.add_marker(pytest.mark.slow)
    for_cuda = [item for item in items if 'cuda' in item.keywords]
    if not for_cuda:
        # The linters run on machines without torch, too.
        return
    import torch

    if not torch.cuda.is_available():
        for item in for_cuda:
            item.add_marker(pytest.mark.skip(reason='needs a CUDA device'))
