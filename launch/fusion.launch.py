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

from dataclasses import replace
from functools import partial
from pathlib import Path
import posixpath

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import DeclareLaunchArgument, EmitEvent, LogInfo, OpaqueFunction
from launch.events import Shutdown
from launch.events.process import ProcessExited
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from dig2dig_ros.fusion.parameter_spec import ParameterSpec
from dig2dig_ros.resources import config_file, fast_dds_environment
from dig2dig_ros.streams.parameters import (
    argument_choices,
    PARAMETERS_BY_NAME,
    PRESETS,
    TRUE_OR_FALSE,
    unknown_arguments,
)

# The parameters that have arguments of their own, by the names of those.
PARAMETERS = {
    'N': PARAMETERS_BY_NAME['fusion.num_inference_steps'],
    'S': PARAMETERS_BY_NAME['fusion.dig_refresh_interval'],
    'visible_degradation': PARAMETERS_BY_NAME['fusion.visible_degradation'],
    'thermal_degradation': PARAMETERS_BY_NAME['fusion.thermal_degradation'],
    **{
        name: PARAMETERS_BY_NAME[name]
        for name in (
            'visible_transport',
            'thermal_transport',
            'thermal_to_visible',
            'extrinsics',
            'missing_modality',
            'device',
            'autostart',
        )
    },
    'use_sim_time': ParameterSpec('use_sim_time', False, 'Take the time from /clock.'),
}

# fmt: off
# Name, default and description.
_TABLE = (
    ('params_file', 'fusion',
     f'Parameters of the node: a preset ({", ".join(PRESETS)}) or the path of a YAML file.'),
    *((name, '', f'{spec.description} Empty: the value of params_file.')
      for name, spec in PARAMETERS.items()),
    ('namespace', '', 'Namespace of the node and its topics.'),
    ('visible_topic', 'visible/image_raw',
     'Topic of the visible images, without the suffix of an image transport.'),
    ('thermal_topic', 'thermal/image_raw',
     'Topic of the thermal images, without the suffix of an image transport.'),
    ('visible_camera_info_topic', '',
     'Topic of the visible CameraInfo; empty: camera_info next to visible_topic.'),
    ('thermal_camera_info_topic', '',
     'Topic of the thermal CameraInfo, which extrinsics needs; empty: camera_info next to '
     'thermal_topic.'),
    ('fast_dds_profile',
     PathJoinSubstitution([FindPackageShare('dig2dig'), 'config/fast_dds.xml']),
     'XML profile for Fast DDS; empty: none. The default one gives way to a choice made in the '
     'environment.'),
    ('log_level', 'info', 'Of the nodes.'),
    ('respawn', 'false', 'Start the node again, after two seconds, whenever it has ended.'),
    ('shutdown_on_exit', 'false', 'End the whole launch when the node has ended.'),
)
# The values of arguments that are no parameters; those of parameters have theirs from the table.
_CHOICES = {
    'log_level': ['debug', 'info', 'warn', 'error', 'fatal'],
    'respawn': list(TRUE_OR_FALSE),
    'shutdown_on_exit': list(TRUE_OR_FALSE),
}
_RESPAWN_SECONDS = 2.0
# fmt: on
ARGUMENTS = tuple(
    DeclareLaunchArgument(
        name,
        default_value=default,
        description=description,
        choices=_CHOICES.get(name)
        or (argument_choices(PARAMETERS[name], '') if name in PARAMETERS else None),
    )
    for name, default, description in _TABLE
)


def parameter_file(choice: str) -> str:
    """Return the path of a preset, or ``choice`` itself where it is the path of a file."""
    if Path(choice).is_file():
        return choice
    try:
        return str(config_file(f'{choice}.yaml'))
    except FileNotFoundError as error:
        raise RuntimeError(
            f"params_file is '{choice}', which is neither a file nor a preset: {error}"
        ) from error


def parameter_value(argument: str, text: str) -> object:
    """Return what an argument says of its parameter, which must be a value of that."""
    try:
        value = replace(PARAMETERS[argument], name=argument).parsed(text)
    except ValueError as error:
        raise RuntimeError(str(error)) from error
    # Without its type, '1' would become a number.
    return ParameterValue(value, value_type=str) if isinstance(value, str) else value


def profile_environment(profile: str) -> dict[str, str]:
    """Return the environment variables that make Fast DDS load ``profile``."""
    if not profile:
        return {}
    if not Path(profile).is_file():
        raise RuntimeError(f"fast_dds_profile is '{profile}', which is not a file")
    if Path(profile).samefile(config_file('fast_dds.xml')) and not fast_dds_environment():
        return {}  # the environment has made another choice
    return fast_dds_environment(profile)


def warn_of_unknown(context: LaunchContext) -> list[LogInfo]:
    """Say what the command line gives to no argument, where it starts this file itself."""
    names = [argument.name for argument in ARGUMENTS]
    return [LogInfo(msg=text) for text in unknown_arguments('fusion.launch.py', names)]


def end(
    respawn: bool, shutdown: bool, event: ProcessExited, context: LaunchContext
) -> LaunchDescriptionEntity | None:
    """Do what is asked for when the node has ended by itself, or say what may be."""
    if context.is_shutdown:
        return None
    said = f'fusion_node ended with code {event.returncode}'
    if shutdown:
        if event.returncode:
            raise RuntimeError(said)
        return EmitEvent(event=Shutdown(reason=said))
    if respawn:
        return LogInfo(msg=f'{said}, and is started again')
    return LogInfo(
        msg=f'{said}, and nothing is fused any more: respawn:=true starts it again, '
        'shutdown_on_exit:=true ends all'
    )


def is_true(context: LaunchContext, name: str) -> bool:
    """Return the value of an argument that is true or false."""
    return LaunchConfiguration(name).perform(context).lower() == 'true'


def assemble(context: LaunchContext) -> list[Node]:
    """Return the node with parameters, remappings and environment as the arguments ask."""
    respawn, shutdown = (is_true(context, name) for name in ('respawn', 'shutdown_on_exit'))
    if respawn and shutdown:
        raise RuntimeError('respawn and shutdown_on_exit exclude each other: give one of them')
    given = {
        argument.name: LaunchConfiguration(argument.name).perform(context)
        for argument in ARGUMENTS
    }
    overrides = {
        spec.name: parameter_value(name, given[name])
        for name, spec in PARAMETERS.items()
        if given[name]
    }
    visible, thermal = given['visible_topic'], given['thermal_topic']
    camera_info = {
        source: given[f'{source}_camera_info_topic']
        or posixpath.join(posixpath.dirname(topic.removesuffix('/compressed')), 'camera_info')
        for source, topic in (('visible', visible), ('thermal', thermal))
    }
    return [
        Node(
            package='dig2dig',
            executable='fusion_node',
            name='fusion_node',
            namespace=given['namespace'],
            parameters=[parameter_file(given['params_file']), *([overrides] if overrides else [])],
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
            respawn=respawn,
            respawn_delay=_RESPAWN_SECONDS,
            on_exit=partial(end, respawn, shutdown),
            # The pair in work is finished first, which takes seconds on a CPU with many steps.
            sigterm_timeout='20',
        )
    ]


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments at the top, where ``--show-args`` sees them, and start the node."""
    return LaunchDescription(
        [
            *ARGUMENTS,
            OpaqueFunction(function=warn_of_unknown),
            OpaqueFunction(function=assemble),
        ]
    )
