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

"""Remappings on the command line that have no effect: ROS accepts them silently."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from itertools import pairwise

from rclpy.exceptions import InvalidTopicNameException
from rclpy.node import Node

# Topics that every node may have.
_OF_ALL = ('/tf', '/tf_static', '/clock', '/rosout', '/parameter_events', '/diagnostics')


def stray_remappings(node: Node, arguments: Sequence[str], topics: Iterable[str]) -> list[str]:
    """
    Return warnings about remappings of topics that a node does not have.

    :param arguments: the command line.
    :param topics: of the node, as it names them.
    """
    known = {_full(node, topic): topic for topic in topics}
    return [
        f'-r {name}:={target} has no effect: this node has no topic {name}'
        + _hint(node, name, target, known)
        for name, target in _remapped(node, arguments)
        if _full(node, name) not in (*known, *_OF_ALL)
    ]


def _remapped(node: Node, arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the topics that a command line remaps for a node, and their targets."""
    for option, value in pairwise(arguments):
        if option not in ('-r', '--remap') or ':=' not in value:
            continue
        name, _, target = value.partition(':=')
        other, is_for_one, rest = name.rpartition(':')
        if is_for_one and '://' not in name and other != node.get_name():
            continue
        name = rest.removeprefix('//') if '://' in name else rest
        # Names of node and namespace, services, and wildcards.
        if not name.startswith(('__', '~')) and '*' not in name and other != 'rosservice':
            yield name, target


def _full(node: Node, name: str) -> str:
    try:
        return str(node.resolve_topic_name(name, only_expand=True))
    except InvalidTopicNameException:
        return name


def _hint(node: Node, name: str, target: str, known: dict[str, str]) -> str:
    if target in (*known, *known.values()):
        return f'; did you mean -r {target}:={name}?'
    # Without the parts that all names share.
    bare = _full(node, name).removeprefix(f'{node.get_namespace().rstrip("/")}/').strip('/')
    nearest = get_close_matches(bare, known.values(), 1)
    return f'; did you mean {nearest[0]}?' if nearest else ''
