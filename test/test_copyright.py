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

"""Every source file names its copyright holder and licence."""

from pathlib import Path

import pytest

pytest.importorskip('ament_copyright', reason='comes with a ROS installation')

from ament_copyright.main import main

CHECKOUT = Path(__file__).resolve().parents[1]


@pytest.mark.copyright
@pytest.mark.linter
def test_copyright():
    sources = ('dig2dig_ros', 'launch', 'test', 'setup.py')
    assert main(argv=[str(CHECKOUT / name) for name in sources]) == 0
