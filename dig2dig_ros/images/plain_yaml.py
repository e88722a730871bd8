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

"""YAML without aliases, for untrusted files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

_LARGEST_FILE = 1 << 20


class WithoutAliases:
    """
    Makes a loader refuse aliases, which the parameter files of ROS do not have either.

    With them, a few lines can stand for more than fits into memory.
    """

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Return the next node, as the loader does."""
        loader: Any = super()
        if self.check_event(yaml.AliasEvent):  # type: ignore[attr-defined]
            raise yaml.YAMLError('it has aliases (*name): write out what they stand for')
        return loader.compose_node(parent, index)


class PlainLoader(WithoutAliases, yaml.SafeLoader):  # type: ignore[misc]
    """Reads numbers, texts, lists and mappings."""


class TextLoader(WithoutAliases, yaml.BaseLoader):  # type: ignore[misc]
    """Reads texts, lists and mappings."""


def read_plain(path: Path) -> Any:
    """
    Read a small YAML file of numbers, texts, lists and mappings.

    :raises OSError: it cannot be read.
    :raises ValueError: it is not such a file; the text, of one line, says why.
    """
    size = path.stat().st_size
    # A device or a pipe may go on for ever.
    if size > _LARGEST_FILE or not (path.is_file() or path.is_dir()):
        raise ValueError(f'it is not a file, or has more than {_LARGEST_FILE} bytes')
    try:
        return yaml.load(path.read_text(encoding='utf-8'), Loader=PlainLoader)
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise ValueError(' '.join(str(error).split())) from error


def ros_parameters(path: Path, node: str) -> dict[str, Any]:
    """
    Read what a ROS 2 parameter file sets for a node; nested names are joined by dots.

    :return: values by name, as they are in the file.
    :raises ValueError: the file is not a parameter file, or sets nothing for the node.
    """
    try:
        document = read_plain(path)
    except (OSError, ValueError) as error:
        raise ValueError(f'{path} cannot be read as YAML: {error}') from error
    parameters: dict[str, Any] = {}
    found = False
    # The name of the node goes before the wildcard, as in ROS 2.
    for key in ('/**', f'/**/{node}', node, f'/{node}'):
        section = document.get(key) if isinstance(document, Mapping) else None
        values = section.get('ros__parameters') if isinstance(section, Mapping) else None
        if isinstance(values, Mapping):
            found = True
            parameters.update(_joined(values))
    if not found:
        raise ValueError(f'{path} has no ros__parameters for {node} or /**')
    return parameters


def _joined(values: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
    joined: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            joined.update(_joined(value, f'{prefix}{key}.'))
        else:
            joined[f'{prefix}{key}'] = value
    return joined
