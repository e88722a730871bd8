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
Visible/thermal fusion on ROS 2, guided by diffusion information gains.

    from dig2dig_ros import Fuser

    fuser = Fuser.from_preset('realtime')
    fuser('visible.png', 'thermal.png').save('fused.png')

The names below are loaded when they are first asked for, since torch takes seconds.
"""

import importlib as _importlib
import os as _os
from typing import Any as _Any

__version__ = '0.1.0'

# OpenCV looks at this once, as it loads. It is the wall behind the checks of images/encoded.py,
# for what they do not know: no image of more than their MAX_PIXELS is decompressed. It is 2^30
# pixels otherwise, which are gigabytes.
_os.environ.setdefault('OPENCV_IO_MAX_IMAGE_PIXELS', '64000000')

_MODULES = {
    'FusionInputError': 'dig2dig_ros.fusion.sources',
    'FusionResult': 'dig2dig_ros.fusion.result',
    'FusionSettings': 'dig2dig_ros.fusion.settings',
    'Fuser': 'dig2dig_ros.fusion.fuser',
}
__all__ = ['__version__', *_MODULES]


def __getattr__(name: str) -> _Any:
    if name not in _MODULES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(_importlib.import_module(_MODULES[name]), name)
