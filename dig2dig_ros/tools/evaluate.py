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
Evaluate the fusion on what was recorded: bags, or a folder of image pairs.

PATH may be a bag (its folder, or an .mcap or .db3 file) or several, or a folder of image pairs.
Which of the two it is decides the options: see ``dig2dig evaluate PATH --help``.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
import sys

from dig2dig_ros.evaluation.bag_reader import is_bag
from dig2dig_ros.evaluation.options import report


def main(arguments: Sequence[str]) -> int:
    """Run the tool; see the module's description."""
    paths = [path for path in map(Path, arguments) if path.exists()]
    if not paths and {'-h', '--help'} & set(arguments):
        print(f'usage: dig2dig evaluate PATH [PATH ...] [options]\n{__doc__}', end='')
        sys.exit(0)
    if not paths:
        report('dig2dig evaluate: name a bag, or a folder of image pairs, that exists')
        return 2
    name = 'evaluate_bag' if any(map(is_bag, paths)) else 'evaluate_pairs'
    return int(import_module(f'dig2dig_ros.tools.{name}').main(arguments))
