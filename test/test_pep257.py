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

"""Docstrings follow ROS 2's rules."""

from pathlib import Path

import pytest

pytest.importorskip('ament_pep257', reason='comes with a ROS installation')

from ament_pep257.main import main

CHECKOUT = Path(__file__).resolve().parents[1]


@pytest.mark.linter
@pytest.mark.pep257
def test_pep257():
    sources = ('dig2dig_ros', 'launch', 'test', 'setup.py')
    # D401 (imperative mood) is left to ruff, which knows that a property is a noun.
    argv = ['--add-ignore', 'D401', '--', *(str(CHECKOUT / name) for name in sources)]
    assert main(argv=argv) == 0
