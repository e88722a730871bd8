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
Replay a bag through the fusion node on simulated time, and record the fused topics.

It ends by itself when the bag does. The arguments of ``fusion.launch.py`` are arguments of this
file as well; ``--show-args`` lists all.
"""

from importlib.util import find_spec
import os
from pathlib import Path
from typing import Any, NamedTuple

from ament_index_python.packages import get_package_share_directory, PackageNotFoundError
from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    ExecuteProcess,
    IncludeLaunchDescription,
    LogInfo,
    OpaqueFunction,
    RegisterEventHandler,
    SetLaunchConfiguration,
    TimerAction,
)
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.events.process import ProcessExited
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.ros_adapters import get_ros_node
from launch_ros.utilities import make_namespace_absolute, prefix_namespace

from dig2dig_ros.fusion.parameter_spec import ParameterSpec
from dig2dig_ros.streams.parameters import argument_choices, unknown_arguments

FUSED_TOPICS = (
    'fused/image_raw',
    'fused/camera_info',
    'fused/weights/visible',
    'fused/weights/thermal',
    'fused/weights/overlay',
)
CLOCK_RATE = 100
# For the node to load torch and the prior and to warm up, which takes minutes on some boards.
START_SECONDS = 300.0
# For the publishers and subscribers of player, node and recorder to find each other, where rosbag2
# plays; and how long the recorder is waited for.
DISCOVERY_SECONDS = 3.0
RECORDER_SECONDS = 15.0
# For the last pair, where rosbag2 plays: it does not know of the node.
REST_SECONDS = 5.0

# fmt: off
OPTIONS = {spec.name: spec for spec in (
    ParameterSpec('bag', '', 'The bag: its folder, or an .mcap or .db3 file.'),
    ParameterSpec('visible_topic', '', 'Topic of the visible images in the bag; empty: found by '
                  'name and type.'),
    ParameterSpec('thermal_topic', '', 'Topic of the thermal images in the bag; empty: found by '
                  'name and type.'),
    ParameterSpec('rate', 1.0, 'Pace of the replay; 1.0 is that of the recording.',
                  limits=(0.001, 1000.0)),
    ParameterSpec('loop', False, 'Start over at the end, until Ctrl-C. Time jumps back then, '
                  'which costs the images that the node holds at that moment.'),
    ParameterSpec('output', '', 'Folder to make for the bag of the fused topics and the '
                  'measurements; empty: replay_NAME in the present folder.'),
    ParameterSpec('measure', True, 'Measure latency and drops, into replay.json in output; '
                  "only dig2dig's own player does."),
    ParameterSpec('player', 'auto', 'auto, dig2dig or rosbag2. auto is dig2dig, which waits for '
                  'the node, so that no first frame is lost, and for its last pair, and measures; '
                  'it is rosbag2 where the Python package rosbags is missing.',
                  choices=('auto', 'dig2dig', 'rosbag2')),
)}
# fmt: on


class Replay(NamedTuple):
    """What is replayed and how; ``arguments`` are those of ``fusion.launch.py`` for the bag."""

    bag: Path
    folder: Path
    rate: float
    loop: bool
    measure: bool
    arguments: dict[str, str]


def given(context: LaunchContext, name: str) -> Any:
    """Return the value of an argument; one of this file is checked and has its type."""
    text = LaunchConfiguration(name, default='').perform(context).strip()
    if name not in OPTIONS:
        return text
    try:
        return OPTIONS[name].parsed(text)
    except ValueError as error:
        raise RuntimeError(str(error)) from error


def choose_player(context: LaunchContext) -> str:
    """Return the player that was asked for, or the best one that is there."""
    choice: str = given(context, 'player')
    has_rosbag2 = is_installed('ros2bag')
    if choice == 'auto':
        choice = 'dig2dig' if find_spec('rosbags') or not has_rosbag2 else 'rosbag2'
    if choice == 'dig2dig' and not find_spec('rosbags'):
        raise RuntimeError(
            'dig2dig play reads bags with the Python package rosbags, which is missing: '
            'python3 -m pip install rosbags'
            + ('; or player:=rosbag2' if has_rosbag2 else '; or install ros-$ROS_DISTRO-rosbag2')
        )
    if choice == 'rosbag2' and not has_rosbag2:
        raise RuntimeError(
            'rosbag2 is not installed in this ROS environment: apt install '
            'ros-$ROS_DISTRO-rosbag2, or take player:=dig2dig'
        )
    return choice


def is_installed(package: str) -> bool:
    """Return whether the ROS environment has a package."""
    try:
        get_package_share_directory(package)
    except (PackageNotFoundError, ValueError):
        return False
    return True


def existing_bag(context: LaunchContext) -> Path:
    """Return the path of the bag, which must be there."""
    text = given(context, 'bag')
    bag = Path(text).expanduser()
    if not text or not bag.exists():
        raise RuntimeError(f"bag is '{text}', which does not exist")
    return bag.resolve()


def output_folder(context: LaunchContext, bag: Path) -> Path:
    """Make the folder of the results and return its path; nothing of an earlier run is lost."""
    text = given(context, 'output')
    name = bag.stem if bag.is_file() else bag.name
    folder = Path(text).expanduser() if text else Path(f'replay_{name}')
    left = [name for name in ('fused', 'replay.json') if (folder / name).exists()]
    if left:
        raise RuntimeError(
            f"output is '{folder}', which holds the {' and '.join(left)} of an earlier replay; "
            'move it away, or name another output'
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RuntimeError(f"output is '{folder}', which cannot be made: {error}") from error
    return folder.resolve()


def input_arguments(context: LaunchContext, bag: Path) -> dict[str, str]:
    """Return the arguments of ``fusion.launch.py`` that fit the bag."""
    visible, thermal = (given(context, f'{source}_topic') for source in ('visible', 'thermal'))
    if not find_spec('rosbags'):
        if not visible or not thermal:
            raise RuntimeError(
                'to look for the topics in the bag takes the Python package rosbags (python3 -m '
                'pip install rosbags); without it, name visible_topic and thermal_topic'
            )
        return {'visible_topic': visible, 'thermal_topic': thermal}

    from dig2dig_ros.evaluation.bag_reader import BagReader
    from dig2dig_ros.evaluation.bag_topics import encodings_in, find_sources
    from dig2dig_ros.evaluation.bag_types import BagError

    try:
        with BagReader(bag) as reader:
            encoding_of = encodings_in(reader)
            sources = find_sources(
                reader.topics, visible or None, thermal or None, encoding_of=encoding_of
            )
            types = {name: topic.type for name, topic in reader.topics.items()}
    except BagError as error:
        raise RuntimeError(str(error)) from error
    arguments = {}
    for source, topic in (('visible', sources.visible), ('thermal', sources.thermal)):
        if types[topic].endswith('/CompressedImage'):
            arguments[f'{source}_transport'] = 'compressed'
            topic = topic.removesuffix('/compressed')
        arguments[f'{source}_topic'] = topic
    for source, topic in (
        ('visible', sources.camera_info),
        ('thermal', sources.thermal_camera_info),
    ):
        if topic and not given(context, f'{source}_camera_info_topic'):
            arguments[f'{source}_camera_info_topic'] = topic
    return arguments


def prepare(
    context: LaunchContext, players: list[LaunchDescriptionEntity]
) -> list[LaunchDescriptionEntity]:
    """
    Return the arguments of the node, and what ends the launch with it.

    :param players: gets the player and what follows its end.
    """
    bag = existing_bag(context)
    player = choose_player(context)
    rate, loop, measure = (given(context, name) for name in ('rate', 'loop', 'measure'))
    arguments = input_arguments(context, bag)
    folder = output_folder(context, bag)
    job = Replay(bag, folder, rate, loop, measure, arguments)
    play = play_with_dig2dig if player == 'dig2dig' else play_with_rosbag2
    players += play(context, job)
    return [
        *(SetLaunchConfiguration(name, value) for name, value in arguments.items()),
        LogInfo(msg=f'visible {arguments["visible_topic"]}, thermal {arguments["thermal_topic"]}'),
        LogInfo(msg=f'{player} replays {bag}; the fused topics go to {folder / "fused"}'),
        RegisterEventHandler(OnProcessExit(on_exit=end_early)),
    ]


def play_with_dig2dig(context: LaunchContext, job: Replay) -> list[LaunchDescriptionEntity]:
    """Return the package's own player, which waits, records and measures by itself."""
    words = [str(job.bag), '--rate', str(job.rate), '--clock', str(CLOCK_RATE)]
    words += ['--record', str(job.folder / 'fused'), '--wait', str(START_SECONDS)]
    for source in ('visible', 'thermal'):
        suffix = '/compressed' if f'{source}_transport' in job.arguments else ''
        words += [f'--{source}', job.arguments[f'{source}_topic'] + suffix]
    words += ['--loop'] if job.loop else []
    words += ['--summary', str(job.folder / 'replay.json')] if job.measure else []
    node = Node(
        package='dig2dig',
        executable='play',
        name='bag_player',
        namespace=given(context, 'namespace'),
        arguments=words,
        output='both',
        # It has a bag to finish.
        sigterm_timeout='20',
    )
    return [node, RegisterEventHandler(OnProcessExit(target_action=node, on_exit=end))]


def play_with_rosbag2(context: LaunchContext, job: Replay) -> list[LaunchDescriptionEntity]:
    """Return a recorder, and a player that starts when the node is active."""
    namespace = absolute_namespace(context)
    topics = [f'{namespace}/{name}' for name in FUSED_TOPICS]
    # Before Jazzy, --topics is no option of it.
    option = [] if os.environ.get('ROS_DISTRO') in ('humble', 'iron') else ['--topics']
    storage = 'mcap' if job.bag.suffix == '.mcap' or any(job.bag.glob('*.mcap*')) else 'sqlite3'
    record = ExecuteProcess(
        name='record',
        cmd=[
            *('ros2', 'bag', 'record', '--use-sim-time', '-s', storage),
            *('-o', str(job.folder / 'fused'), *option, *topics),
        ],
        output='both',
        sigterm_timeout='20',
    )
    play = ExecuteProcess(
        name='play',
        cmd=[
            *('ros2', 'bag', 'play', str(job.bag), '--rate', str(job.rate)),
            *('--clock', str(CLOCK_RATE)),
            # Its publishers are there by then, and need time to find who subscribes.
            *('--delay', str(DISCOVERY_SECONDS)),
            *('--disable-keyboard-controls', *(['--loop'] if job.loop else [])),
        ],
        output='both',
    )

    def end_with_rest(event: ProcessExited, context: LaunchContext) -> object:
        if event.returncode or context.is_shutdown:
            return end(event, context)
        return TimerAction(
            period=REST_SECONDS, actions=[OpaqueFunction(function=lambda _: [end(event, context)])]
        )

    return [
        *([LogInfo(msg='rosbag2 does not measure latency and drops')] if job.measure else []),
        record,
        RegisterEventHandler(OnProcessExit(target_action=play, on_exit=end_with_rest)),
        wait_for_node(context, f'{namespace}/fusion_node', topics[0], play),
    ]


def absolute_namespace(context: LaunchContext) -> str:
    """Return the namespace of the fusion node, without a slash at the end."""
    base = context.launch_configurations.get('ros_namespace')  # from PushROSNamespace
    namespace = prefix_namespace(base, given(context, 'namespace'))
    return (make_namespace_absolute(namespace) or '').rstrip('/')


def wait_for_node(
    context: LaunchContext, name: str, recorded: str, action: LaunchDescriptionEntity
) -> LaunchDescriptionEntity:
    """Return an action that lets ``action`` follow when node and recorder are ready."""
    from lifecycle_msgs.msg import State
    from lifecycle_msgs.srv import GetState

    node = get_ros_node(context)
    client = node.create_client(GetState, f'{name}/get_state')
    answers = []
    left = [START_SECONDS]
    recorder_left = [RECORDER_SECONDS]

    def begin(context: LaunchContext) -> list[LaunchDescriptionEntity]:
        # The recorder subscribes to what it finds, a little after the node has begun to publish.
        recorder_left[0] -= 0.5
        if not node.count_subscribers(recorded) and recorder_left[0] > 0:
            return [TimerAction(period=0.5, actions=[OpaqueFunction(function=begin)])]
        return [action]

    def look(context: LaunchContext) -> list[LaunchDescriptionEntity]:
        done = answers and answers[-1].done()
        if done and answers.pop().result().current_state.id == State.PRIMARY_STATE_ACTIVE:
            return begin(context)
        if not answers and client.service_is_ready():
            answers.append(client.call_async(GetState.Request()))
        left[0] -= 0.5
        if left[0] <= 0:
            raise RuntimeError(f'{name} was not active within {START_SECONDS:.0f} s')
        return [TimerAction(period=0.5, actions=[OpaqueFunction(function=look)])]

    return OpaqueFunction(function=look)


def end(event: ProcessExited, context: LaunchContext) -> EmitEvent:
    """Shut the launch down after the player; with an error if the player had one."""
    if event.returncode and not context.is_shutdown:
        raise RuntimeError(
            f'{event.process_name} ended with code {event.returncode}; it said why above'
        )
    return EmitEvent(event=Shutdown(reason='the replay is over'))


def end_early(event: ProcessExited, context: LaunchContext) -> None:
    """Do not play on to nobody."""
    name = event.process_name.rpartition('-')[0]
    if name in ('fusion_node', 'record') and not context.is_shutdown:
        raise RuntimeError(f'{name} ended with code {event.returncode} before the replay did')


def warn_of_unknown(
    context: LaunchContext, fusion: PythonLaunchDescriptionSource
) -> list[LogInfo]:
    """Say what the command line gives to no argument."""
    theirs = fusion.get_launch_description(context).get_launch_arguments()
    names = [*OPTIONS, *(argument.name for argument in theirs)]
    return [LogInfo(msg=text) for text in unknown_arguments('replay.launch.py', names)]


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments, start the node on the clock of the player, and the player."""
    players: list[LaunchDescriptionEntity] = []
    fusion = Path(get_package_share_directory('dig2dig'), 'launch', 'fusion.launch.py')
    source = PythonLaunchDescriptionSource(str(fusion))
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(
                    name,
                    default_value=None if name == 'bag' else str(spec.default).lower(),
                    description=spec.description,
                    choices=argument_choices(spec),
                )
                for name, spec in OPTIONS.items()
            ),
            OpaqueFunction(function=warn_of_unknown, args=[source]),
            OpaqueFunction(function=prepare, args=[players]),
            IncludeLaunchDescription(
                source,
                launch_arguments={'use_sim_time': 'true'}.items(),
            ),
            # Last: the arguments of the node may be refused, and then nothing may have started.
            OpaqueFunction(function=lambda context: players),
        ]
    )
