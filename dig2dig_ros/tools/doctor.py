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
Check on one screen whether this machine can run dig2dig, and say what to do about problems.

Looks at Python, OpenCV, torch and its device, ROS and its middleware, the DDS profile, shared
memory, and the cameras that publish images. Attach the output to bug reports. Exit code: 0 if
nothing needs attention, 1 if something does.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
import importlib.util
import os
import sys
import textwrap

from dig2dig_ros.nodes.signals import run_tool
from dig2dig_ros.streams.installation import find_opencv, find_python, find_torch, Finding
from dig2dig_ros.streams.middleware import find_memory, find_profile, find_settings
from dig2dig_ros.streams.trial import ask

# Width of the screen, and of the names on its left.
_WIDTH, _NAMES = 100, 13
_SURVEY = 'dig2dig_ros.nodes.topic_survey'
_LONGEST = 600.0


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value <= _LONGEST:
        raise argparse.ArgumentTypeError(f'must be above 0 and at most {_LONGEST:g}')
    return value


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(prog='dig2dig doctor', description=__doc__)
    parser.add_argument(
        '--seconds',
        type=_seconds,
        default=5.0,
        metavar='S',
        help='how long to listen to the cameras; default: 5',
    )
    parser.add_argument('--no-topics', action='store_true', help='do not listen to the cameras')
    return parser.parse_args(arguments)


def find_ros() -> tuple[Finding, str]:
    """Return the ROS installation, and its middleware if it works."""
    distribution = os.environ.get('ROS_DISTRO', '')
    name = f'ROS 2 {distribution.capitalize()}' if distribution else 'no distribution sourced'
    if importlib.util.find_spec('rclpy') is None:
        advice = (
            f'{sys.executable} cannot import rclpy: '
            + (
                f'use the python3 that ROS 2 {distribution.capitalize()} was built for, or a '
                'virtual environment based on it with --system-site-packages'
                if distribution
                else "source /opt/ros/DISTRO/setup.bash, or pip install '.[ros]'"
            )
            + ' (not needed to fuse files)'
        )
        return Finding('ROS', f'{name}, no rclpy', (advice,)), ''
    facts, failure = ask(_SURVEY, 'rclpy_facts')
    if not failure:
        found = f'{name}, {facts["middleware"]}, rclpy in {facts["path"]}'
        return Finding('ROS', found), str(facts['middleware'])
    chosen = os.environ.get('RMW_IMPLEMENTATION')
    advice = (
        f'RMW_IMPLEMENTATION is {chosen}: install it, or unset the variable'
        if chosen
        else 'source the setup.bash of ROS for this Python, or reinstall its packages'
    )
    return Finding('ROS', name, (f'rclpy {failure}: {advice}',)), ''


def find_cameras(seconds: float) -> list[Finding]:
    """Return what the cameras send, and the state of a fusion node."""
    from dig2dig_ros.nodes.client import FusionClient
    from dig2dig_ros.nodes.topic_survey import TopicSurvey

    client = FusionClient.connect('dig2dig_doctor')
    try:
        survey = TopicSurvey(client)
        survey.listen(seconds)
        return survey.findings()
    finally:
        client.close()


def look(options: argparse.Namespace) -> Iterator[Finding]:
    """Check one thing after the other."""
    yield find_python()
    yield from _survive('OpenCV', lambda: [find_opencv()])
    yield from _survive('torch', find_torch)
    ros, middleware = find_ros()
    yield ros
    yield find_settings(os.environ)
    if not middleware:
        return
    profile, transports = find_profile(os.environ, middleware)
    yield profile
    yield find_memory(transports)
    if not options.no_topics:
        yield from _survive('cameras', lambda: find_cameras(options.seconds))


def _survive(name: str, find: Callable[[], list[Finding]]) -> list[Finding]:
    try:
        return find()
    except Exception as error:  # the other checks are still useful
        advice = f'{name}: {type(error).__name__}: {error}'
        return [Finding(name, 'could not be looked at', (advice,))]


def show(finding: Finding) -> None:
    """Print a finding, and what to do about it below."""
    indent = ' ' * (_NAMES + 1)
    print(
        textwrap.fill(
            f'{finding.name:<{_NAMES}} {finding.found}',
            _WIDTH,
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
        )
    )
    for advice in finding.advice:
        print(
            textwrap.fill(
                ' '.join(advice.split()),
                _WIDTH,
                initial_indent='  -> ',
                subsequent_indent='     ',
                break_long_words=False,
                break_on_hyphens=False,
            )
        )
    sys.stdout.flush()


def examine(options: argparse.Namespace) -> int:
    """Print all findings; return the exit code."""
    count = 0
    for finding in look(options):
        show(finding)
        count += len(finding.advice)
    things = 'thing needs' if count == 1 else 'things need'
    print(f'{count} {things} attention: see ->.' if count else 'Nothing needs attention.')
    return int(count > 0)


def main(arguments: Sequence[str]) -> int:
    """Run the tool; see the module's description."""
    return run_tool('dig2dig doctor', lambda: examine(parse_arguments(arguments)))
