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

"""What the tests of the launch files share: an installation, and stand-ins for processes."""

from contextlib import contextmanager
from functools import cache
import json
import logging
import os
from pathlib import Path
import sys

from domains import next_domain
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
import yaml

CHECKOUT = Path(__file__).resolve().parents[1]
PROFILE_VARIABLES = ('FASTDDS_DEFAULT_PROFILES_FILE', 'FASTRTPS_DEFAULT_PROFILES_FILE')

# Writes down how it was started, and ends.
RECORDER = """
import json, os, sys
files = [sys.argv[i + 1] for i, word in enumerate(sys.argv) if word == '--params-file']
record = {
    'arguments': sys.argv[1:],
    'environment': dict(os.environ),
    'parameter_files': [[name, open(name).read()] for name in files],
}
folder = os.environ['DIG2DIG_TEST_RECORDS']
path = os.path.join(folder, os.path.basename(sys.argv[0]) + '.json')
with open(path + '.part', 'w') as file:
    json.dump(record, file)
os.replace(path + '.part', path)
"""

FUSION_NODE = """
import sys
from dig2dig_ros.tools.entry_points import fusion_node
sys.exit(fusion_node())
"""


@cache
def _domain():
    """Return the ROS domain of all that is launched in this run."""
    return next_domain()


class Installation:
    """A prefix in which ROS 2 finds this checkout as the package, without executables."""

    def __init__(self, tmp_path, monkeypatch):
        self.prefix = tmp_path / 'prefix'
        self.records = tmp_path / 'records'
        self.records.mkdir()
        share = self.add_package('dig2dig')
        for name in ('package.xml', 'config', 'launch'):
            (share / name).symlink_to(CHECKOUT / name)
        others = os.environ.get('AMENT_PREFIX_PATH', '')
        prefixes = filter(None, (str(self.prefix), others))
        monkeypatch.setenv('AMENT_PREFIX_PATH', os.pathsep.join(prefixes))
        monkeypatch.setenv('ROS_LOG_DIR', str(tmp_path / 'log'))
        monkeypatch.setenv('DIG2DIG_TEST_RECORDS', str(self.records))
        monkeypatch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
        monkeypatch.setenv('ROS_DOMAIN_ID', str(_domain()))
        paths = filter(None, (str(CHECKOUT), os.environ.get('PYTHONPATH', '')))
        monkeypatch.setenv('PYTHONPATH', os.pathsep.join(paths))
        for name in (*PROFILE_VARIABLES, 'FASTDDS_BUILTIN_TRANSPORTS', 'ROS_DISTRO'):
            monkeypatch.delenv(name, raising=False)

    def add_package(self, name):
        """Make the package known; return its share folder."""
        index = self.prefix / 'share' / 'ament_index' / 'resource_index' / 'packages'
        index.mkdir(parents=True, exist_ok=True)
        (index / name).touch()
        share = self.prefix / 'share' / name
        share.mkdir(exist_ok=True)
        return share

    def add_executable(self, name, code, folder=None):
        path = (folder or self.prefix / 'lib' / 'dig2dig') / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'#!{sys.executable}\n{code}', encoding='utf-8')
        path.chmod(0o755)

    def source(self, file):
        path = self.prefix / 'share' / 'dig2dig' / 'launch' / file
        return PythonLaunchDescriptionSource(str(path))

    def launch(self, file, arguments, *actions):
        """Launch until all has ended; return the exit code."""
        included = IncludeLaunchDescription(self.source(file), launch_arguments=arguments.items())
        service = LaunchService(noninteractive=True)
        service.include_launch_description(LaunchDescription([*actions, included]))
        return service.run()

    def record(self, name):
        """Return how a stand-in was started, once; None if it was not."""
        path = self.records / f'{name}.json'
        if not path.exists():
            return None
        result = json.loads(path.read_text(encoding='utf-8'))
        path.unlink()
        return result


@contextmanager
def launch_log(caplog):
    """Let ``caplog`` see what launch logs."""
    loggers = [logging.getLogger(name) for name in ('launch', 'launch.user')]
    for logger in loggers:  # they do not propagate
        logger.addHandler(caplog.handler)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(caplog.handler)


def parameters(record):
    """Return the parameters of all files, where later ones win."""
    values = {}
    for _, text in record['parameter_files']:
        # launch_ros writes lists as tuples of Python.
        for section in yaml.full_load(text).values():
            values.update(joined(section['ros__parameters']))
    return values


def joined(values, prefix=''):
    """Return nested values by their names with dots."""
    found = {}
    for name, value in values.items():
        found |= (
            joined(value, f'{prefix}{name}.')
            if isinstance(value, dict)
            else {f'{prefix}{name}': value}
        )
    return found


def remappings(record):
    words = record['arguments']
    pairs = [words[i + 1].split(':=') for i, word in enumerate(words) if word == '-r']
    return dict(pairs)
