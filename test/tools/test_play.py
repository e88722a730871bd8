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

"""The command line of dig2dig play."""

import pytest

pytest.importorskip('rclpy', reason='needs rclpy')
pytest.importorskip('rosbags', reason='comes with the extra evaluation')
pytest.importorskip('mcap', reason='comes with the extra evaluation')

from dig2dig_ros.tools.play import parse_arguments


def test_the_command_line_has_defaults_for_all_but_the_bag(tmp_path):
    options = parse_arguments([str(tmp_path)])
    assert options.bag == tmp_path
    assert (options.rate, options.loop, options.clock, options.measure) == (
        1.0,
        False,
        None,
        False,
    )
    assert parse_arguments([str(tmp_path), '--clock']).clock == 100.0
    assert parse_arguments([str(tmp_path), '--clock', '40']).clock == 40.0
    assert parse_arguments([str(tmp_path), '--summary', 'a.json']).measure


@pytest.mark.parametrize(
    ('arguments', 'reason'),
    [
        (['no/such/bag'], 'no/such/bag does not exist'),
        (['.', '--rate', '0'], 'must be above 0, not 0'),
        (['.', '--rate', 'nan'], 'must be above 0, not nan'),
        (['.', '--clock', '-1'], 'must be above 0, not -1'),
        (['.', '--wait', '-1'], '--wait must be 0 or more, not -1'),
        (['.', '--record', '.'], '. exists; name a new bag'),
    ],
)
def test_a_bad_command_line_says_why(capsys, arguments, reason):
    with pytest.raises(SystemExit) as end:
        parse_arguments(arguments)
    assert end.value.code == 2
    assert reason in capsys.readouterr().err
