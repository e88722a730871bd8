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

"""Finding the installed configuration, however the package was installed."""

import importlib.util
from pathlib import Path
import shutil
from types import ModuleType

import pytest

from dig2dig_ros import resources


def install(prefix: Path, packages: str) -> ModuleType:
    """Put the module below ``prefix``/``packages`` and import it from there."""
    target = prefix / packages / 'dig2dig_ros' / 'resources.py'
    target.parent.mkdir(parents=True)
    shutil.copy(resources.__file__, target)
    spec = importlib.util.spec_from_file_location('installed_resources', target)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_share(prefix: Path) -> Path:
    share = prefix / 'share' / 'dig2dig'
    (share / 'config').mkdir(parents=True)
    (share / 'package.xml').write_text('<package/>')
    (share / 'config' / 'realtime.yaml').write_text('')
    return share


@pytest.mark.parametrize(
    'packages',
    [
        'lib/python3.12/site-packages',  # a virtual environment, or colcon's install space
        'local/lib/python3.10/dist-packages',  # Debian's Python
        '.',  # pip install --target
    ],
)
def test_share_of_the_prefix_is_found(tmp_path: Path, packages: str) -> None:
    share = make_share(tmp_path)
    module = install(tmp_path, packages)
    assert module.share_directory() == share
    assert module.config_file('realtime.yaml') == share / 'config' / 'realtime.yaml'


def test_nearest_prefix_wins(tmp_path: Path) -> None:
    make_share(tmp_path)
    near = make_share(tmp_path / 'install' / 'dig2dig')
    module = install(tmp_path / 'install' / 'dig2dig', 'lib/python3.12/site-packages')
    assert module.share_directory() == near


def test_source_tree_is_its_own_share(tmp_path: Path) -> None:
    (tmp_path / 'package.xml').write_text('<package/>')
    (tmp_path / 'setup.py').write_text('')
    assert install(tmp_path, '.').share_directory() == tmp_path


def test_missing_files_are_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv('AMENT_PREFIX_PATH', raising=False)
    module = install(tmp_path, 'lib/python3.12/site-packages')
    with pytest.raises(FileNotFoundError, match='install it again'):
        module.share_directory()


def test_missing_config_names_what_there_is(tmp_path: Path) -> None:
    make_share(tmp_path)
    module = install(tmp_path, '.')
    with pytest.raises(FileNotFoundError, match=r'no fast\.yaml; it has realtime\.yaml'):
        module.config_file('fast.yaml')


def test_this_package_has_its_config() -> None:
    for name in ('fusion.yaml', 'realtime.yaml', 'paper.yaml', 'fast_dds.xml'):
        assert resources.config_file(name).is_file()


@pytest.mark.parametrize(
    ('distribution', 'variable'),
    [
        ('', 'FASTDDS_DEFAULT_PROFILES_FILE'),
        ('kilted', 'FASTDDS_DEFAULT_PROFILES_FILE'),
        ('jazzy', 'FASTRTPS_DEFAULT_PROFILES_FILE'),
        ('humble', 'FASTRTPS_DEFAULT_PROFILES_FILE'),
    ],
)
def test_fast_dds_gets_the_profile_by_the_name_it_knows(monkeypatch, distribution, variable):
    for name in ('FASTDDS_DEFAULT_PROFILES_FILE', 'FASTRTPS_DEFAULT_PROFILES_FILE'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv('FASTDDS_BUILTIN_TRANSPORTS', raising=False)
    monkeypatch.setenv('ROS_DISTRO', distribution)
    environment = resources.fast_dds_environment()
    assert environment == {variable: str(resources.config_file('fast_dds.xml'))}


@pytest.mark.parametrize(
    'chosen',
    [
        'FASTDDS_DEFAULT_PROFILES_FILE',
        'FASTRTPS_DEFAULT_PROFILES_FILE',
        'FASTDDS_BUILTIN_TRANSPORTS',
    ],
)
def test_a_choice_of_the_user_is_left_alone(monkeypatch, chosen):
    monkeypatch.setenv(chosen, 'something')
    assert resources.fast_dds_environment() == {}
    # But for a profile that is asked for by its name.
    assert list(resources.fast_dds_environment('/mine.xml').values()) == ['/mine.xml']
