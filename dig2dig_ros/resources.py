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

"""Find what is installed with the Python package: config and launch files."""

from collections.abc import Mapping
import os
from pathlib import Path

PACKAGE = 'dig2dig'
FAST_DDS_PROFILE = 'fast_dds.xml'

# Fast DDS 2 only knows the second name, and Fast DDS 3 complains about it.
PROFILE_VARIABLES = ('FASTDDS_DEFAULT_PROFILES_FILE', 'FASTRTPS_DEFAULT_PROFILES_FILE')
TRANSPORTS_VARIABLE = 'FASTDDS_BUILTIN_TRANSPORTS'


def share_directory() -> Path:
    """
    Return the folder that holds ``config``, ``launch`` and ``package.xml``.

    The source tree itself when the module runs from one (also after an editable or a
    ``--symlink-install`` build); else ``share/dig2dig`` of the prefix into which pip or colcon
    installed the module: the nearest one above it.

    :raises FileNotFoundError: when there is neither, naming where the module lies.
    """
    module = Path(__file__).resolve().parent
    source = module.parent
    if (source / 'package.xml').is_file() and (source / 'setup.py').is_file():
        return source
    for prefix in module.parents:
        share = prefix / 'share' / PACKAGE
        if (share / 'package.xml').is_file():
            return share
    raise FileNotFoundError(
        f'the installed files of {PACKAGE} (config, launch) were not found: there is no '
        f'share/{PACKAGE} above {module}; install it again'
    )


def config_file(name: str) -> Path:
    """
    Return the path of the shipped configuration file ``name``, for example 'realtime.yaml'.

    :raises FileNotFoundError: when it is not shipped, naming those that are.
    """
    folder = share_directory() / 'config'
    path = folder / name
    if not path.is_file():
        alike = f'*{Path(name).suffix or ".*"}'
        shipped = ', '.join(sorted(p.name for p in folder.glob(alike))) or 'nothing'
        raise FileNotFoundError(f'{folder} has no {name}; it has {shipped}')
    return path


def fast_dds_environment(profile: str = '') -> dict[str, str]:
    """
    Return the variables that make a process load a Fast DDS profile, the shipped one for images.

    They must be set before rclpy is initialised.

    :param profile: path of a profile to load in any case. Without one, there are no variables
        where the user's environment has made a choice already.
    """
    chosen = (*PROFILE_VARIABLES, TRANSPORTS_VARIABLE)
    if not profile and any(os.environ.get(name) for name in chosen):
        return {}
    return {profile_variable(os.environ): profile or str(config_file(FAST_DDS_PROFILE))}


def profile_variable(environ: Mapping[str, str]) -> str:
    """Return the variable that names the profile to the Fast DDS of this ROS distribution."""
    return PROFILE_VARIABLES[environ.get('ROS_DISTRO') in ('humble', 'iron', 'jazzy')]
