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

"""YAML without aliases, for files that may be anybody's."""

from __future__ import annotations

from typing import Any

import yaml


class WithoutAliases:
    """
    Beside a loader of YAML: refuses aliases, which ROS's own parameter files do not have either.

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
