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

"""What is written in several places agrees, and all that belongs to the package is in it."""

import ast
from fnmatch import fnmatch
import importlib
from importlib import resources
import os
from pathlib import Path
import runpy
import subprocess
import sys
from xml.etree import ElementTree

import pytest
import yaml

from dig2dig_ros.tools.entry_points import COMMANDS

CHECKOUT = Path(__file__).resolve().parents[1]

# Python modules whose rosdep key is not their name.
ROSDEP_KEYS = {
    'tf2_ros': 'tf2_ros_py',
    'cv2': 'python3-opencv',
    'numpy': 'python3-numpy',
    'yaml': 'python3-yaml',
}
# Installed with pip: package.xml says why. Those but torch and safetensors are for tools alone.
NOT_IN_PACKAGE_XML = {
    *('matplotlib', 'mcap', 'PIL', 'rosbags', 'safetensors', 'scipy', 'skimage', 'torch'),
    # Comes with rosbags where Python has no zstd of its own, which is the second.
    *('backports', 'compression'),
}


@pytest.fixture(scope='module')
def manifest():
    return ElementTree.parse(CHECKOUT / 'package.xml').getroot()


@pytest.fixture
def setup_arguments(monkeypatch):
    """Return what setup.py hands to setuptools."""
    setuptools = pytest.importorskip('setuptools')
    collected = {}
    monkeypatch.setattr(setuptools, 'setup', collected.update)
    monkeypatch.chdir(CHECKOUT)
    runpy.run_path('setup.py')
    return collected


def test_setup_py_says_what_package_xml_says(manifest, setup_arguments):
    for field in ('name', 'version', 'license', 'maintainer', 'author'):
        assert setup_arguments[field] == manifest.findtext(field)
    assert setup_arguments['maintainer_email'] == manifest.find('maintainer').get('email')
    assert manifest.get('format') == '3'
    assert manifest.findtext('export/build_type') == 'ament_python'


def test_the_package_says_its_version_and_offers_the_fuser(manifest):
    import dig2dig_ros

    assert dig2dig_ros.__version__ == manifest.findtext('version')
    from dig2dig_ros import Fuser, FusionSettings
    from dig2dig_ros.fusion import fuser

    assert Fuser is fuser.Fuser
    assert FusionSettings is fuser.FusionSettings
    with pytest.raises(AttributeError, match="no attribute 'Fusor'"):
        _ = dig2dig_ros.Fusor


def test_the_package_itself_loads_no_torch():
    code = 'import sys, dig2dig_ros; sys.exit("torch" in sys.modules)'
    subprocess.run([sys.executable, '-c', code], cwd=CHECKOUT, check=True, timeout=60)


def test_package_xml_names_what_the_code_imports(manifest):
    declared = {entry.text for entry in manifest.findall('exec_depend')}
    imported = set()
    for folder in ('dig2dig_ros', 'launch'):
        for source in (CHECKOUT / folder).rglob('*.py'):
            for statement in ast.walk(ast.parse(source.read_text(encoding='utf-8'))):
                if isinstance(statement, ast.Import):
                    imported.update(alias.name.split('.')[0] for alias in statement.names)
                elif isinstance(statement, ast.ImportFrom) and statement.module:
                    imported.add(statement.module.split('.')[0])
    imported -= {'dig2dig_ros', *sys.stdlib_module_names, *NOT_IN_PACKAGE_XML}
    assert 'rclpy' in imported
    assert {ROSDEP_KEYS.get(name, name) for name in imported} <= declared


def test_every_module_is_installed(setup_arguments):
    folders = {source.parent for source in (CHECKOUT / 'dig2dig_ros').rglob('*.py')}
    modules = {'.'.join(folder.relative_to(CHECKOUT).parts) for folder in folders}
    assert modules == set(setup_arguments['packages'])


def test_every_config_and_launch_file_is_installed(setup_arguments):
    installed = {Path(name) for _, names in setup_arguments['data_files'] for name in names}
    assert {Path('package.xml'), Path('resource/dig2dig')} <= installed
    for folder in ('config', 'launch'):
        present = {
            path.relative_to(CHECKOUT)
            for path in (CHECKOUT / folder).iterdir()
            if path.name != '__pycache__'
        }
        assert present
        assert present <= installed
    assert all((CHECKOUT / path).is_file() for path in installed)


def test_the_embedded_prior_is_installed_with_its_model_card(setup_arguments):
    weights = resources.files('dig2dig_ros.priors') / 'weights'
    files = {entry.name: entry for entry in weights.iterdir()}
    patterns = setup_arguments['package_data']['dig2dig_ros.priors']
    assert all(any(fnmatch(f'weights/{name}', p) for p in patterns) for name in files)
    assert {'compact.safetensors', 'nano.safetensors'} <= set(files)
    assert any(name.endswith('.md') for name in files)
    assert len(files['compact.safetensors'].read_bytes()) <= 10e6


def test_every_console_script_exists(setup_arguments):
    for module in ('cv2', 'rclpy', 'torch'):
        pytest.importorskip(module)
    scripts = setup_arguments['entry_points']['console_scripts']
    names = {script.split(' = ')[0] for script in scripts}
    assert names == {'dig2dig', 'fusion_node', 'detection_fusion', 'pair_camera'}
    for script in scripts:
        module, function = script.split(' = ')[1].split(':')
        assert callable(getattr(importlib.import_module(module), function))


def test_setup_py_works_where_colcon_links_to_it(tmp_path, monkeypatch):
    # colcon build --symlink-install runs a link to it in a folder with links to what it names.
    setuptools = pytest.importorskip('setuptools')
    collected = {}
    monkeypatch.setattr(setuptools, 'setup', collected.update)
    (tmp_path / 'setup.py').symlink_to(CHECKOUT / 'setup.py')
    monkeypatch.chdir(tmp_path)
    runpy.run_path('setup.py')
    assert collected['long_description'].startswith('# ')


def test_every_subcommand_is_an_executable_for_ros2_run(setup_arguments):
    (files,) = (
        names for folder, names in setup_arguments['data_files'] if folder == 'lib/dig2dig'
    )
    assert {Path(name).name for name in files} == {each.name.split()[0] for each in COMMANDS}
    for name in files:
        assert os.access(CHECKOUT / name, os.X_OK), name
    done = subprocess.run(
        [sys.executable, CHECKOUT / 'libexec' / 'fuse', '--help'],
        env={**os.environ, 'PYTHONPATH': str(CHECKOUT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.startswith('usage: dig2dig fuse '), done.stderr


@pytest.mark.parametrize(
    'preset', ['fusion', 'realtime', 'paper', 'multi_focus', 'multi_exposure']
)
def test_presets_are_parameter_files_for_any_node_name(preset):
    text = (CHECKOUT / 'config' / f'{preset}.yaml').read_text(encoding='utf-8')
    document = yaml.safe_load(text)
    assert list(document) == ['/**']
    assert document['/**']['ros__parameters']


def test_fast_dds_profile_is_the_default_and_holds_several_images():
    root = ElementTree.parse(CHECKOUT / 'config' / 'fast_dds.xml').getroot()
    namespace = {'dds': 'http://www.eprosima.com'}
    (participant,) = root.findall('.//dds:participant', namespace)
    assert participant.get('is_default_profile') == 'true'
    described = {
        transport.findtext('dds:transport_id', namespaces=namespace): transport
        for transport in root.findall('.//dds:transport_descriptor', namespace)
    }
    used = [
        e.text for e in participant.findall('.//dds:userTransports/dds:transport_id', namespace)
    ]
    assert set(used) == set(described)
    types = {t.findtext('dds:type', namespaces=namespace): t for t in described.values()}
    assert set(types) == {'SHM', 'UDPv4'}
    segment = int(types['SHM'].findtext('dds:segment_size', namespaces=namespace))
    assert segment >= 4 * 1920 * 1080 * 3
