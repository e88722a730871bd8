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

"""The code follows ROS 2's Python style, as configured in setup.cfg."""

from pathlib import Path

import pytest

pytest.importorskip('ament_flake8', reason='comes with a ROS installation')

from ament_flake8.main import main_with_errors

CHECKOUT = Path(__file__).resolve().parents[1]


@pytest.mark.flake8
@pytest.mark.linter
def test_flake8():
    sources = ('dig2dig_ros', 'launch', 'test', 'setup.py')
    status, errors = main_with_errors(
        argv=['--config', str(CHECKOUT / 'setup.cfg'), *(str(CHECKOUT / name) for name in sources)]
    )
    assert status == 0, '\n'.join(errors)
