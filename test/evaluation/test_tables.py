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

"""Tables of results."""

from dig2dig_ros.evaluation.tables import markdown_table, Table


def test_tables_are_aligned() -> None:
    table = markdown_table(['name', 'value'], [['a', '1.25'], ['longer', '10']])
    assert table.splitlines() == [
        '| name   | value |',
        '| ------ | ----: |',
        '| a      |  1.25 |',
        '| longer |    10 |',
    ]


def test_title_and_notes_stand_around_a_table() -> None:
    table = Table('Quality', ('name', 'value'), (('a', '1'),), ('A note.', 'Another.'))
    lines = table.markdown().split('\n\n')
    assert lines[0] == 'Quality:'
    assert lines[1].startswith('| name')
    assert lines[2:] == ['A note.', 'Another.']
