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

"""
Start the fusion node and a detector that reads the fused images: yolo_ros, or another one.

The arguments of ``fusion.launch.py`` are arguments of this file as well; ``--show-args`` lists
all. The detector takes none of them by accident: ``device`` and ``params_file`` are the node's.
"""

from pathlib import Path
import posixpath
import shlex

from ament_index_python.packages import get_package_share_directory, PackageNotFoundError
from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import (
    DeclareLaunchArgument,
    IncludeLaunchDescription,
    LogInfo,
    OpaqueFunction,
    PopLaunchConfigurations,
    PushLaunchConfigurations,
    UnsetLaunchConfiguration,
)
from launch.launch_description_sources import (
    AnyLaunchDescriptionSource,
    PythonLaunchDescriptionSource,
)
from launch.substitutions import LaunchConfiguration
from launch_ros.utilities import make_namespace_absolute, prefix_namespace

# The package that starts yolo_ros.
YOLO = 'yolo_bringup'

# fmt: off
# Name, default and description.
_TABLE = (
    ('detector_package', YOLO, 'Package of the launch file that starts the detector.'),
    ('detector_launch_file', 'yolo.launch.py',
     'That launch file, in the folder launch of the package.'),
    ('detector_image_argument', 'input_image_topic',
     'Its argument that names the topic of the images.'),
    ('detector_namespace', 'yolo',
     'Its argument namespace, below the namespace of the fusion node unless it begins with /; '
     'empty: not given.'),
    ('detector_model', '',
     "Its argument model, such as a file of weights; empty: the detector's own."),
    ('detector_device', '',
     "Its argument device, such as cuda:0 or cpu; empty: the detector's own."),
    ('detector_threshold', '',
     "Its argument threshold, the least confidence of a detection, 0 to 1; empty: the detector's "
     'own.'),
    ('detector_arguments', '', 'More of its arguments: NAME:=VALUE, separated by spaces.'),
)
# fmt: on
ARGUMENTS = tuple(
    DeclareLaunchArgument(name, default_value=default, description=description)
    for name, default, description in _TABLE
)


def detector_launch_file(package: str, name: str) -> Path:
    """Return the path of the detector's launch file."""
    try:
        folder = Path(get_package_share_directory(package), 'launch')
    except (PackageNotFoundError, ValueError) as error:
        if package == YOLO:
            advice = (
                'it comes with yolo_ros: in the src folder of the workspace, git clone '
                'https://github.com/mgonzs13/yolo_ros.git, and install what its README asks for '
                'as to Python; in the workspace, rosdep install --from-paths src '
                '--ignore-src -r -y && colcon build && source install/setup.bash'
            )
        else:
            advice = (
                'install it (apt install '
                f'ros-$ROS_DISTRO-{package.replace("_", "-")}, or git clone into the src '
                'folder of the workspace and colcon build), and source its setup.bash'
            )
        raise RuntimeError(
            f"the detector's package '{package}' is not installed; {advice}; or name another "
            'detector with detector_package'
        ) from error
    path = folder / name
    if not path.is_file():
        shipped = ', '.join(sorted(p.name for p in folder.glob('*launch*') if p.is_file()))
        raise RuntimeError(
            f"detector_launch_file is '{name}', but {package} has {shipped or 'no launch files'}"
        )
    return path


def more_arguments(text: str) -> dict[str, str]:
    """Return the arguments in ``text`` by name."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise RuntimeError(f"detector_arguments is '{text}': {error}") from error
    bad = [word for word in words if not word.partition(':=')[0] or ':=' not in word]
    if bad:
        raise RuntimeError(f"detector_arguments has '{bad[0]}', which is not NAME:=VALUE")
    return dict(word.split(':=', 1) for word in words)


def given(context: LaunchContext, name: str) -> str:
    """Return the value of an argument."""
    return LaunchConfiguration(name).perform(context)


def check_detector(context: LaunchContext) -> None:
    """Refuse a detector that cannot be started before the fusion node is."""
    detector_launch_file(
        given(context, 'detector_package'), given(context, 'detector_launch_file')
    )
    more_arguments(given(context, 'detector_arguments'))


def start_detector(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Return the detector's launch file with its arguments, in a scope of its own."""
    base = context.launch_configurations.get('ros_namespace')  # of PushROSNamespace
    namespace = make_namespace_absolute(prefix_namespace(base, given(context, 'namespace')))
    # Absolute, because the detector has a namespace of its own.
    topic = posixpath.join(namespace or '/', 'fused/image_raw')
    arguments = {
        given(context, 'detector_image_argument'): topic,
        # Of yolo_ros: 1 is reliable, as the fused images are sent. Others do not mind.
        'image_reliability': '1',
    }
    for name in ('model', 'device', 'threshold'):
        if given(context, f'detector_{name}'):
            arguments[name] = given(context, f'detector_{name}')
    if given(context, 'detector_namespace'):
        below = given(context, 'namespace').strip('/')
        arguments['namespace'] = posixpath.join(below, given(context, 'detector_namespace'))
    arguments.update(more_arguments(given(context, 'detector_arguments')))
    path = detector_launch_file(
        given(context, 'detector_package'), given(context, 'detector_launch_file')
    )
    # Included files see the arguments of the including one, and several are common names.
    ours = set(context.launch_configurations) - {'ros_namespace', 'ros_remaps', 'global_params'}
    return [
        LogInfo(msg=f'{path.name} of {path.parent.parent.name} reads {topic}'),
        PushLaunchConfigurations(),
        *(UnsetLaunchConfiguration(name) for name in sorted(ours)),
        IncludeLaunchDescription(
            AnyLaunchDescriptionSource(str(path)), launch_arguments=arguments.items()
        ),
        PopLaunchConfigurations(),
    ]


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments, see that the detector is there, and start both."""
    fusion = Path(get_package_share_directory('dig2dig'), 'launch', 'fusion.launch.py')
    return LaunchDescription(
        [
            *ARGUMENTS,
            OpaqueFunction(function=check_detector),
            IncludeLaunchDescription(PythonLaunchDescriptionSource(str(fusion))),
            OpaqueFunction(function=start_detector),
        ]
    )
