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
Start the fusion node and a detector, yolo_ros or another one: ``mode:=image`` or ``mode:=boxes``.

With ``image`` the detector reads the fused images. With ``boxes`` it is started on each of
``detector_sources``, and the node ``detection_fusion`` merges what it finds, on ``detections``.

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
from launch_ros.actions import Node
from launch_ros.utilities import make_namespace_absolute, prefix_namespace

from dig2dig_ros.resources import config_file
from dig2dig_ros.streams.parameters import unknown_arguments

# The package that starts yolo_ros.
YOLO = 'yolo_bringup'
# What the detector reads, in the namespace of the fusion node.
IMAGES = {
    'visible': 'visible/restored/image_raw',
    'thermal': 'thermal/restored/image_raw',
    'fused': 'fused/image_raw',
}
# For the detectors whose boxes are merged: weak boxes that agree make a strong one.
LOW_THRESHOLD = '0.1'

# fmt: off
# Name, default and description.
_TABLE = (
    ('mode', 'image', 'Where the detector looks: on the fused image (image), or on several images '
     'whose boxes are merged (boxes).'),
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
     f'own, but {LOW_THRESHOLD} with mode:=boxes.'),
    ('detector_arguments', '', 'More of its arguments: NAME:=VALUE, separated by spaces.'),
    ('detector_sources', 'visible thermal fused',
     'With mode:=boxes: the images that it reads, two or three of visible, thermal (both restored '
     'and registered) and fused.'),
    ('detector_topic', 'detections',
     'With mode:=boxes: the topic of its detections, in its namespace.'),
    ('detection_params_file', 'detection_fusion',
     'With mode:=boxes: parameters of the node that merges, the path of a YAML file or the '
     'defaults (detection_fusion).'),
    ('united_threshold', '0.5',
     'With mode:=boxes: the least score of a merged detection, 0 to 1.'),
)
# fmt: on
_CHOICES = {'mode': ['image', 'boxes']}
ARGUMENTS = tuple(
    DeclareLaunchArgument(
        name, default_value=default, description=description, choices=_CHOICES.get(name)
    )
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


def sources(context: LaunchContext) -> list[str]:
    """Return what the detector looks at."""
    if given(context, 'mode') == 'image':
        return ['fused']
    names = given(context, 'detector_sources').split()
    if len(set(names)) < len(names) or len(names) < 2 or not set(names) <= set(IMAGES):
        raise RuntimeError(
            f"detector_sources is '{' '.join(names)}', but has to be two or three of "
            f'{", ".join(IMAGES)}, separated by spaces'
        )
    if not given(context, 'detector_namespace'):
        raise RuntimeError(
            'mode:=boxes starts the detector several times, each in a namespace of its own: give '
            'detector_namespace'
        )
    return names


def united_threshold(context: LaunchContext) -> float:
    """Return the least score of a merged detection."""
    text = given(context, 'united_threshold')
    try:
        score = float(text)
    except ValueError:
        score = -1.0
    if not 0 <= score <= 1:
        raise RuntimeError(f"united_threshold is '{text}', but has to be 0 to 1")
    return score


def parameter_file(choice: str) -> str:
    """Return the path of the parameters of the node that merges."""
    if choice == 'detection_fusion':
        return str(config_file('detection_fusion.yaml'))
    if not Path(choice).is_file():
        raise RuntimeError(f"detection_params_file is '{choice}', which is not a file")
    return choice


def warn_of_unknown(
    context: LaunchContext, fusion: PythonLaunchDescriptionSource
) -> list[LogInfo]:
    """Say what the command line gives to no argument."""
    theirs = fusion.get_launch_description(context).get_launch_arguments()
    names = [argument.name for argument in (*ARGUMENTS, *theirs)]
    return [LogInfo(msg=text) for text in unknown_arguments('detection.launch.py', names)]


def check_detector(context: LaunchContext) -> None:
    """Refuse a detector that cannot be started before the fusion node is."""
    detector_launch_file(
        given(context, 'detector_package'), given(context, 'detector_launch_file')
    )
    more_arguments(given(context, 'detector_arguments'))
    sources(context)
    united_threshold(context)
    parameter_file(given(context, 'detection_params_file'))


def absolute(context: LaunchContext, *names: str) -> str:
    """Return the full name of what lies below the namespace around this file, if any."""
    base = context.launch_configurations.get('ros_namespace')  # from PushROSNamespace
    return str(make_namespace_absolute(prefix_namespace(base, posixpath.join(*names))))


def detector_namespace(context: LaunchContext, source: str) -> str:
    """Return the namespace of the detector, below the one around this file; '' for none."""
    name = given(context, 'detector_namespace')
    below = given(context, 'namespace').strip('/')
    own = source if given(context, 'mode') == 'boxes' else ''
    return posixpath.join(below, name, own).rstrip('/') if name else ''


def start_detector(context: LaunchContext, source: str) -> list[LaunchDescriptionEntity]:
    """Return the detector's launch file with its arguments, in a scope of its own."""
    merged = given(context, 'mode') == 'boxes'
    # Absolute, because the detector has a namespace of its own.
    topic = posixpath.join(absolute(context, given(context, 'namespace')) or '/', IMAGES[source])
    arguments = {
        given(context, 'detector_image_argument'): topic,
        # For yolo_ros: 1 is reliable, as the images are sent. Other detectors ignore it.
        'image_reliability': '1',
    }
    if merged:
        # For yolo_ros, too: there is one scene to track, on the merged detections.
        arguments.update(threshold=LOW_THRESHOLD, use_tracking='False', use_debug='False')
    for name in ('model', 'device', 'threshold'):
        if given(context, f'detector_{name}'):
            arguments[name] = given(context, f'detector_{name}')
    if given(context, 'detector_namespace'):
        arguments['namespace'] = detector_namespace(context, source)
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


def merge(context: LaunchContext) -> Node:
    """Return the node that merges the detections."""
    names, topic = sources(context), given(context, 'detector_topic')
    overrides: dict[str, object] = {
        'sources': names,
        'min_score': united_threshold(context),
    }
    if given(context, 'use_sim_time'):
        overrides['use_sim_time'] = given(context, 'use_sim_time').lower() == 'true'
    return Node(
        package='dig2dig',
        executable='detection_fusion',
        name='detection_fusion',
        namespace=given(context, 'namespace'),
        parameters=[parameter_file(given(context, 'detection_params_file')), overrides],
        remappings=[
            (
                f'{name}/detections',
                posixpath.join(absolute(context, detector_namespace(context, name)), topic),
            )
            for name in names
        ],
        ros_arguments=['--log-level', given(context, 'log_level')],
        respawn=given(context, 'respawn').lower() == 'true',
        respawn_delay=2.0,
        output='both',
    )


def start_detectors(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Return the detectors, and the node that merges their boxes if there are several."""
    started = [each for name in sources(context) for each in start_detector(context, name)]
    return [*started, merge(context)] if given(context, 'mode') == 'boxes' else started


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments, see that the detector is there, and start all."""
    fusion = Path(get_package_share_directory('dig2dig'), 'launch', 'fusion.launch.py')
    source = PythonLaunchDescriptionSource(str(fusion))
    return LaunchDescription(
        [
            *ARGUMENTS,
            OpaqueFunction(function=warn_of_unknown, args=[source]),
            OpaqueFunction(function=check_detector),
            IncludeLaunchDescription(source),
            OpaqueFunction(function=start_detectors),
        ]
    )
