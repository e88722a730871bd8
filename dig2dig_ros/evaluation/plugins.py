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

"""Fusions of other people, loaded from Python files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dig2dig_ros.evaluation.options import UsageError

Image = NDArray[np.uint8]
Fuse = Callable[[Image, Image], Image]


@dataclass(frozen=True)
class Contender:
    """
    A fusion that takes part.

    :param name: in the tables.
    :param kind: ``dig2dig``, ``baseline`` or ``plugin``.
    :param fuse: visible (H, W, 3) uint8 in blue-green-red order and thermal (H, W) uint8 to the
        fused image, (H, W) or (H, W, 3) uint8; returns when the bytes are on the host.
    :param facts: for reports, such as device and precision.
    """

    name: str
    kind: str
    fuse: Fuse
    facts: Mapping[str, Any] = field(default_factory=dict)


def load_plugin(path: Path) -> Contender:
    """
    Load another fusion from a Python file, which runs with all permissions of this process.

    The file has two functions. ``load()`` returns a model of any kind: device, precision and
    weights are up to it. ``fuse(model, visible, thermal)`` takes visible (H, W, 3) uint8 in
    blue-green-red order and thermal (H, W) uint8, which it must not write to, and returns the
    fused image as a NumPy array on the host, (H, W) or (H, W, 3) uint8.

    :raises UsageError: the file cannot be imported, or a function is missing or fails.
    """
    path = path.expanduser()

    @contextmanager
    def blamed(what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # anything from the file
            raise UsageError(f'plug-in {path} {what}: {type(error).__name__}: {error}') from error

    if not path.is_file():
        raise UsageError(f'plug-in {path} does not exist')
    specification = importlib.util.spec_from_file_location(f'dig2dig_plugin_{path.stem}', path)
    if specification is None or specification.loader is None:
        raise UsageError(f'plug-in {path} is not a Python file (NAME.py)')
    module = importlib.util.module_from_spec(specification)
    with blamed('cannot be imported'):
        specification.loader.exec_module(module)
    for function in ('load', 'fuse'):
        if not callable(getattr(module, function, None)):
            raise UsageError(
                f'plug-in {path} has no function {function}: it needs load() and '
                'fuse(model, visible, thermal)'
            )
    with blamed('load() failed'):
        model = module.load()

    def fuse(visible: Image, thermal: Image) -> Image:
        with blamed('fuse(model, visible, thermal) failed'):
            fused: Image = module.fuse(model, visible, thermal)
        return fused

    return Contender(path.stem, 'plugin', fuse, {'file': path.name})


def check_fused(contender: Contender, fused: Any, pair: tuple[Image, Image]) -> None:
    """
    Refuse anything that is not a fused image of a pair.

    :raises UsageError: it is not a uint8 array of shape (H, W) or (H, W, 3).
    """
    height, width = pair[1].shape
    shapes = ((height, width), (height, width, 3))
    if not isinstance(fused, np.ndarray):
        found = f'a {type(fused).__name__}'
    elif fused.dtype != np.uint8 or fused.shape not in shapes:
        found = f'{fused.dtype} of shape {fused.shape}'
    else:
        return
    raise UsageError(
        f'{contender.name} returned {found} for images of {width}x{height}: it must return a '
        f'NumPy array, uint8 of shape {shapes[0]} or {shapes[1]}'
    )
