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

"""The table of parameters as parameters of a ROS node: declared, checked, read as one snapshot."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
import json
from pathlib import Path
import textwrap
from typing import Any

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.utilities import remove_ros_args

from dig2dig_ros.fusion.parameter_spec import nearest_name, ParameterSpec
from dig2dig_ros.images.plain_yaml import read_plain
from dig2dig_ros.streams.parameters import (
    fusion_settings,
    no_parameter,
    PARAMETERS,
    transport_parameter,
)


def descriptor(spec: ParameterSpec) -> ParameterDescriptor:
    """Return what ``ros2 param describe`` shows, and what ROS itself checks."""
    described = ParameterDescriptor(description=spec.description)
    constraints = [f'one of: {spec.allowed}'] if spec.choices else []
    if not spec.live:
        constraints.append('fixed while the node is configured: clean up first')
    described.additional_constraints = '; '.join(constraints)
    # To rclpy, an empty list is a list of bytes, and one from a YAML file has no value.
    described.dynamic_typing = spec.default == []
    if spec.limits and isinstance(spec.default, float):
        low, high = map(float, spec.limits)
        described.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
    elif spec.limits:
        first, last = map(int, spec.limits)
        described.integer_range = [IntegerRange(from_value=first, to_value=last, step=1)]
    return described


def print_help(arguments: Sequence[str], purpose: str, specs: Iterable[ParameterSpec]) -> bool:
    """
    Print the help of a node if its command line asks for it.

    :param arguments: the command line, beginning with the name of the program.
    :return: whether it was printed; the node is then not started.
    """
    program, *words = list(arguments) or ['']
    # ROS checks its own arguments later.
    before, _, rest = ' '.join(words).partition('--ros-args')
    if not {'-h', '--help'} & {*before.split(), *rest.partition(' -- ')[2].split()}:
        return False
    name = Path(program).name.removesuffix('.py')
    print(f'usage: {name} [--ros-args [-p NAME:=VALUE] [--params-file FILE] [-r FROM:=TO] ...]\n')
    print(f'{purpose}\n\nparameters:')
    for spec in specs:
        text = spec.description + (f' ({spec.allowed})' if spec.allowed else '')
        default = json.dumps(spec.default, ensure_ascii=False)
        print(f'  {spec.name} (default: {default})')
        print(textwrap.indent(textwrap.fill(text, 92), '      '))
    return True


def _addressed(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield each source of parameters in a command line, and the node that it is for."""
    for option, value in pairwise(words):
        if option in ('-p', '--param') and ':' in value.partition(':=')[0]:
            yield f'-p {value}', value.partition(':=')[0].rpartition(':')[0]
        elif option == '--params-file':
            with suppress(OSError, ValueError):
                content = read_plain(Path(value))
                yield from ((f'--params-file {value}', name) for name in _nodes_of(content))


def _nodes_of(content: Any, above: str = '') -> Iterator[str]:
    """Yield the names of the nodes in a parameter file."""
    for name, below in content.items() if isinstance(content, dict) else ():
        path = f'{above}/{str(name).strip("/")}'
        if isinstance(below, dict) and 'ros__parameters' in below:
            yield path
        else:
            yield from _nodes_of(below, path)


def _warn_of_other_nodes(node: Node, arguments: Sequence[str]) -> None:
    """Log which files and assignments are only for nodes of other names."""
    own = {node.get_name(), node.get_fully_qualified_name().strip('/')}
    others: dict[str, list[str]] = {}
    for origin, name in _addressed(arguments):
        others.setdefault(origin, []).append(name.strip('/'))
    for origin, names in others.items():
        # With wildcards, it may be for this node.
        if not any(name in own or '*' in name for name in names):
            node.get_logger().warning(
                f'{origin} is for {", ".join(names)} and has no effect: this node is '
                f'{node.get_fully_qualified_name()}'
            )


def warn_of_unknown(
    node: Node, known: Iterable[str], arguments: Sequence[str] = ()
) -> tuple[str, ...]:
    """
    Log what has no effect: misspelt parameters and nodes, stray arguments.

    :param known: the names of the node's parameters, all of which are declared.
    :param arguments: the command line, beginning with the name of the program.
    :return: the names of the parameters.
    """
    _warn_of_other_nodes(node, arguments)
    # rclpy shows overrides only of what was declared.
    unknown = tuple(
        name
        for name in node._parameter_overrides
        if not node.has_parameter(name) and not name.startswith('qos_overrides.')
    )
    names = list(known)
    for name in unknown:
        node.get_logger().warning(no_parameter(name, names))
    for word in remove_ros_args(list(arguments))[1:]:
        name = nearest_name(word.strip('-').partition('=')[0], names) or 'NAME'
        node.get_logger().warning(
            f"the argument '{word}' is unknown and has no effect; a parameter is set by "
            f'--ros-args -p {name}:=VALUE'
        )
    return unknown


class NodeParameters:
    """
    The parameters of a node, by default those of the fusion node.

    A change is refused with a reason if a value is bad, if the values contradict each other, or if
    a parameter is fixed in the current state of the node.
    """

    def __init__(
        self,
        node: Node,
        state: Callable[[], str],
        on_change: Callable[[Mapping[str, Any]], None] = lambda values: None,
        specs: Sequence[ParameterSpec] = PARAMETERS,
        check: Callable[[Mapping[str, Any]], object] = fusion_settings,
    ) -> None:
        """
        Declare the parameters, with values from files and the command line.

        :param state: returns the node's state; only live parameters change after ``unconfigured``.
        :param on_change: called with all values after every change.
        :param check: raises ValueError if the values contradict each other.
        """
        self._node = node
        self._state = state
        self._on_change = on_change
        self._check_together = check
        self._specs: dict[str, ParameterSpec] = {spec.name: spec for spec in specs}
        self._values: dict[str, Any] = {spec.name: spec.default for spec in specs}
        # Before the declarations, so that values from the command line are checked as well; one
        # by one, because parameters that they depend on may not be declared yet.
        self._declared = False
        node.add_on_set_parameters_callback(self._check)
        for spec in specs:
            node.declare_parameter(spec.name, spec.default, descriptor(spec))
            if self._values[spec.name] == []:  # so that its type can be queried
                node.set_parameters([Parameter(spec.name, Parameter.Type.STRING_ARRAY, [])])
        self._declared = True
        self.declare_transports()

    @property
    def values(self) -> Mapping[str, Any]:
        """Return the current values by name; a change replaces the mapping as a whole."""
        return self._values

    def declare_transports(self) -> None:
        """Declare the parameters of additional sources; earlier ones stay."""
        for source in self._values.get('additional_sources', ()):
            spec = transport_parameter(source)
            if not self._node.has_parameter(spec.name):
                self._specs[spec.name] = spec
                self._values = {**self._values, spec.name: spec.default}
                self._node.declare_parameter(spec.name, spec.default, descriptor(spec))

    def warn_of_unknown(self, arguments: Sequence[str] = ()) -> tuple[str, ...]:
        """Log what has no effect: see :func:`warn_of_unknown`."""
        return warn_of_unknown(self._node, self._specs, arguments)

    def _check(self, parameters: list[Parameter]) -> SetParametersResult:
        values = dict(self._values)
        for parameter in parameters:
            spec = self._specs.get(parameter.name)
            if spec is None:  # use_sim_time, qos_overrides and the like are not ours
                continue
            value = parameter.value
            if isinstance(value, array):  # from rclpy, for the numbers in a message
                value = value.tolist()
            if value is None and spec.default == [] and not self._declared:
                value = []  # an empty list in YAML files and command lines arrives as None
            problem = spec.problem(value)
            if problem is None and not spec.live and self._state() != 'unconfigured':
                if value == values[spec.name]:
                    continue
                problem = (
                    f'{spec.name} is fixed while the node is {self._state()}: '
                    'deactivate and clean up first'
                )
            if problem is not None:
                return SetParametersResult(successful=False, reason=problem)
            values[spec.name] = value
        try:
            if self._declared:
                self._check_together(values)
        except ValueError as error:
            return SetParametersResult(successful=False, reason=str(error))
        # One assignment, so that other threads see either all old or all new values.
        self._values = values
        self._on_change(values)
        return SetParametersResult(successful=True)
