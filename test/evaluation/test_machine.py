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

"""What decides on the speed besides the code."""

import json

import torch

from dig2dig_ros.evaluation.machine import machine, origin


def test_machine_goes_into_json() -> None:
    facts = machine()
    assert facts['cpu']
    assert facts['torch_threads'] >= 1
    assert facts['versions']['torch'] == torch.__version__
    assert json.loads(json.dumps(facts)) == facts
    assert facts['load'] >= 0


def test_a_line_says_where_figures_come_from() -> None:
    facts = {'cpu': 'one', 'versions': {'torch': '2'}, 'variables': {'OMP_NUM_THREADS': '1'}}
    results = [{'about': {'device': 'cpu', 'precision': 'float32'}}, {'about': {}}]
    line = origin(results, facts, 0.1)
    assert line == 'cpu, float32; one; torch 2; OMP_NUM_THREADS=1; load before 0.1'
