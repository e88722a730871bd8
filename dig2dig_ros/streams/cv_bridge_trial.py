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
cv_bridge, for encodings that the codec does not know, after a trial in a child process.

The package of a distribution is built for that distribution's NumPy. With another version, it
loads with a warning, and the first conversion crashes the process: no error can be caught then.
"""

from __future__ import annotations

from functools import lru_cache
import importlib
import importlib.util
from typing import Any

import numpy as np

from dig2dig_ros.streams.trial import attempt

_PROGRAM = """
from types import SimpleNamespace
import numpy as np
from cv_bridge import CvBridge
for encoding, size, wanted in (('rgb16', 6, 'bgr8'), ('mono16', 2, 'passthrough')):
    message = SimpleNamespace(header=None, height=16, width=16, encoding=encoding, is_bigendian=0)
    message.step, message.data = 16 * size, bytes(16 * 16 * size)
    assert CvBridge().imgmsg_to_cv2(message, wanted).shape[:2] == (16, 16)
"""
_outcome: list[tuple[Any, str]] = []


def cv_bridge() -> tuple[Any, str]:
    """Return (a CvBridge, '') or (None, the reason). The first call takes seconds."""
    if not _outcome:
        _outcome.append(_found())
    return _outcome[0]


def why_not() -> str:
    """Return why there is no cv_bridge, if already known, without a trial."""
    return _outcome[0][1] if _outcome else _missing()


def forget() -> None:
    """Try again at the next call."""
    _outcome.clear()
    _missing.cache_clear()


@lru_cache(maxsize=1)
def _missing() -> str:
    try:
        found = importlib.util.find_spec('cv_bridge') is not None
    except (ImportError, ValueError):
        found = False
    return '' if found else 'cv_bridge, which supports more, is not installed'


def _found() -> tuple[Any, str]:
    reason = _missing() or _failure()
    if reason:
        return None, reason
    try:
        return importlib.import_module('cv_bridge').CvBridge(), ''
    except Exception as error:
        # Built for another NumPy, it may raise AttributeError, SystemError and others.
        return None, f'cv_bridge does not load ({type(error).__name__}: {error})'


def _failure() -> str:
    """Return how cv_bridge fails in a separate process; empty if it works."""
    _, failure = attempt(_PROGRAM)
    if not failure:
        return ''
    spared = (
        ' in a separate trial, so it is not used: it was probably built for another NumPy than '
        f'{np.__version__}'
    )
    return f'cv_bridge {failure}{spared * failure.startswith("crashes")}'
