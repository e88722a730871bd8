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

"""Start the fusion node. ``--show-args`` lists the arguments."""

from pathlib import Path
import posixpath

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from dig2dig_ros.streams.resources import config_file, fast_dds_environment

PRESETS = ('fusion', 'realtime', 'paper')

# Launch argument: the parameter that it sets, and its type. Empty leaves it to params_file.
OVERRIDES = {
    'N': ('num_inference_steps', int),
    'S': ('dig_refresh_interval', int),
    'visible_transport': ('visible_transport', str),
    'thermal_transport': ('thermal_transport', str),
    'thermal_to_visible': ('thermal_to_visible', str),
    'extrinsics': ('extrinsics', str),
    'visible_degradation': ('visible_degradation', str),
    'thermal_degradation': ('thermal_degradation', str),
    'missing_modality': ('missing_modality', str),
    'device': ('device', str),
    'autostart': ('autostart', bool),
    'use_sim_time': ('use_sim_time', bool),
}

ARGUMENTS = (
    DeclareLaunchArgument(
        'namespace', default_value='', description='Namespace of the node and its topics.'
    ),
    DeclareLaunchArgument(
        'visible_topic',
        default_value='visible/image_raw',
        description='Topic of the visible images, without the suffix of an image transport.',
    ),
    DeclareLaunchArgument(
        'thermal_topic',
        default_value='thermal/image_raw',
        description='Topic of the thermal images, without the suffix of an image transport.',
    ),
    DeclareLaunchArgument(
        'visible_transport',
        default_value='',
        description='raw, or compressed for visible_topic/compressed; empty: the value of '
        'params_file.',
    ),
    DeclareLaunchArgument(
        'thermal_transport',
        default_value='',
        description='raw, or compressed for thermal_topic/compressed; empty: the value of '
        'params_file.',
    ),
    DeclareLaunchArgument(
        'visible_camera_info_topic',
        default_value='',
        description='Topic of the visible CameraInfo; empty: camera_info beside visible_topic.',
    ),
    DeclareLaunchArgument(
        'thermal_camera_info_topic',
        default_value='',
        description='Topic of the thermal CameraInfo, which extrinsics asks for; empty: '
        'camera_info beside thermal_topic.',
    ),
    DeclareLaunchArgument(
        'thermal_to_visible',
        default_value='',
        description='Registration of the thermal camera, a YAML file of calibrate_registration; '
        'empty: the value of params_file.',
    ),
    DeclareLaunchArgument(
        'extrinsics',
        default_value='',
        description='Pose of the thermal camera, a YAML file or tf; empty: the value of '
        'params_file.',
    ),
    DeclareLaunchArgument(
        'visible_degradation',
        default_value='',
        description='Noise and blur of the visible camera to undo, such as low_light; empty: the '
        'value of params_file.',
    ),
    DeclareLaunchArgument(
        'thermal_degradation',
        default_value='',
        description='Low resolution, noise and blur of the thermal camera to undo, such as '
        'lepton or boson; empty: the value of params_file.',
    ),
    DeclareLaunchArgument(
        'missing_modality',
        default_value='',
        description='What goes on alone while the other camera is missing: wait, visible, '
        'thermal or any; empty: the value of params_file.',
    ),
    DeclareLaunchArgument(
        'N',
        default_value='',
        description='Steps of the reverse chain; empty: the value of params_file.',
    ),
    DeclareLaunchArgument(
        'S',
        default_value='',
        description='Steps between two refreshes of the information gains; empty: the value of '
        'params_file.',
    ),
    DeclareLaunchArgument(
        'device',
        default_value='',
        description='auto, cpu, cuda or cuda:N; empty: the value of params_file.',
    ),
    DeclareLaunchArgument(
        'params_file',
        default_value='fusion',
        description=f'Parameters of the node: a preset ({", ".join(PRESETS)}) or the path of a '
        'YAML file.',
    ),
    DeclareLaunchArgument(
        'fast_dds_profile',
        default_value=PathJoinSubstitution([FindPackageShare('dig2dig'), 'config/fast_dds.xml']),
        description='XML profile for Fast DDS; empty: none. The default one gives way to a '
        'choice made in the environment.',
    ),
    DeclareLaunchArgument(
        'log_level', default_value='info', description='debug, info, warn, error or fatal.'
    ),
    DeclareLaunchArgument(
        'use_sim_time',
        default_value='',
        description='Take the time from /clock (true, false); empty: the value of params_file.',
    ),
    DeclareLaunchArgument(
        'autostart',
        default_value='',
        description='Configure and activate the node at start (true, false); empty: the value '
        'of params_file.',
    ),
)


def parameter_file(choice: str) -> str:
    """Return the path of a preset, or ``choice`` itself where it is the path of a file."""
    if choice in PRESETS:
        return str(Path(get_package_share_directory('dig2dig'), 'config', f'{choice}.yaml'))
    if not Path(choice).is_file():
        raise RuntimeError(
            f"params_file is '{choice}', which is neither a file nor a preset "
            f'({", ".join(PRESETS)})'
        )
    return choice


def profile_environment(profile: str) -> dict[str, str]:
    """Return the environment variables that make Fast DDS load ``profile``."""
    if not profile:
        return {}
    if not Path(profile).is_file():
        raise RuntimeError(f"fast_dds_profile is '{profile}', which is not a file")
    if Path(profile).samefile(config_file('fast_dds.xml')) and not fast_dds_environment():
        return {}  # the environment has made another choice
    return fast_dds_environment(profile)


def typed_value(context: LaunchContext, argument: str, value_type: type) -> ParameterValue:
    """Return the value of ``argument``, which must be of the parameter's type."""
    value = ParameterValue(LaunchConfiguration(argument), value_type=value_type)
    try:
        value.evaluate(context)
    except ValueError as error:
        text = LaunchConfiguration(argument).perform(context)
        expected = {
            int: 'a whole number',
            bool: 'true or false',
            str: 'text',
        }[value_type]
        raise RuntimeError(f"{argument} is '{text}', but must be {expected}") from error
    return value


def assemble(context: LaunchContext) -> list[Node]:
    """Return the node with parameters, remappings and environment as the arguments ask."""
    given = {
        argument.name: LaunchConfiguration(argument.name).perform(context)
        for argument in ARGUMENTS
    }
    parameters: list[object] = [parameter_file(given['params_file'])]
    overrides = {
        parameter: typed_value(context, argument, value_type)
        for argument, (parameter, value_type) in OVERRIDES.items()
        if given[argument]
    }
    if overrides:
        parameters.append(overrides)
    visible, thermal = given['visible_topic'], given['thermal_topic']
    camera_info = {
        source: given[f'{source}_camera_info_topic']
        or posixpath.join(posixpath.dirname(topic), 'camera_info')
        for source, topic in (('visible', visible), ('thermal', thermal))
    }
    return [
        Node(
            package='dig2dig',
            executable='fusion_node',
            name='fusion_node',
            namespace=given['namespace'],
            parameters=parameters,
            remappings=[
                ('visible/image_raw', visible),
                ('visible/image_raw/compressed', f'{visible}/compressed'),
                ('visible/camera_info', camera_info['visible']),
                ('thermal/image_raw', thermal),
                ('thermal/image_raw/compressed', f'{thermal}/compressed'),
                ('thermal/camera_info', camera_info['thermal']),
            ],
            ros_arguments=['--log-level', given['log_level']],
            # For this node alone: an environment action would reach what is started after it.
            additional_env=profile_environment(given['fast_dds_profile']),
            output='both',
            # The pair in work is finished first, which takes seconds on a CPU with many steps.
            sigterm_timeout='20',
        )
    ]


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments at the top, where ``--show-args`` sees them, and start the node."""
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=assemble)])
