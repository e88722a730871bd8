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


"""The meaning of a parameter, and its allowed values."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

_TYPE_NAMES = {bool: 'true or false', int: 'a whole number', float: 'a number', str: 'a text'}


@dataclass(frozen=True)
class ParameterSpec:
    """
    One parameter, of a node or of a fusion.

    :param name: as in YAML files.
    :param default: its Python type is the parameter's; for an empty list, see ``check``.
    :param description: one sentence or more; units in it.
    :param live: may change while the node is configured; takes effect on the next pair.
    :param limits: smallest and largest number allowed.
    :param choices: the values allowed; empty for any.
    :param check: returns what is wrong with a value of the right type, or None.
    """

    name: str
    default: Any
    description: str
    live: bool = False
    limits: tuple[float, float] | None = None
    choices: tuple[Any, ...] = ()
    check: Callable[[Any], str | None] | None = None

    @property
    def allowed(self) -> str:
        """Return the choices, or the range, in words; empty if there is neither."""
        if self.choices:
            return ', '.join(map(str, self.choices))
        return f'{self.limits[0]:.15g} to {self.limits[1]:.15g}' if self.limits else ''

    def problem(self, value: Any) -> str | None:
        """Return why ``value`` is refused, or None if it is valid."""
        reason = self._wrong_type(value)
        if reason is None and self.choices and value not in self.choices:
            reason = f'must be one of: {self.allowed}'
        if reason is None and self.limits and not self.limits[0] <= value <= self.limits[1]:
            reason = f'must be {self.allowed}'
        if reason is None and self.check is not None:
            reason = self.check(value)
        return f'{self.name} is {value!r}, but {reason}' if reason else None

    def _wrong_type(self, value: Any) -> str | None:
        if not isinstance(self.default, list):
            kind = type(self.default)
            return None if _is(kind, value) else f'must be {_TYPE_NAMES[kind]}'
        if not self.default:
            return None
        kind = type(self.default[0])
        if isinstance(value, list) and all(_is(kind, item) for item in value):
            return None
        return f'must be a list like {self.default}'

    def checked(self, value: Any) -> Any:
        """
        Return a value from a file; whole numbers become floats if the parameter is a float.

        :raises ValueError: it is refused; the message says why.
        """
        problem = self.problem(value)
        if problem is not None:
            raise ValueError(problem)
        return float(value) if isinstance(self.default, float) else value

    def parsed(self, text: str) -> Any:
        """
        Parse a value from a command line; lists are not supported there.

        :raises ValueError: it is refused; the message says why.
        """
        value: Any = text
        kind = type(self.default)
        if kind is bool:
            value = {'true': True, 'false': False}.get(text.lower(), text)
        elif kind in (int, float):
            with suppress(ValueError):  # anything else is refused below, quoted as written
                value = kind(text)
        return self.checked(value)


def _is(kind: type, value: Any) -> bool:
    """Return whether a value has a type; whole numbers are numbers, but true is not."""
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)


def nearest_name(name: str, known: Iterable[str]) -> str:
    """Return the known name that ``name`` was probably meant to be; empty if none is near."""
    # By the last part, because the group is easily forgotten.
    by_last_part = {other.rpartition('.')[2]: other for other in known}
    nearest = get_close_matches(name.rpartition('.')[2], by_last_part, 1)
    return by_last_part[nearest[0]] if nearest else ''
