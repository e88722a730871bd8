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

"""Tooltips: every metric has one, which says which way is better as its title does."""

import pytest

from dig2dig_ros.evaluation.glossary import explanation
from dig2dig_ros.evaluation.metrics import metric_info, metric_names


@pytest.mark.parametrize('name', metric_names(True))
def test_every_metric_is_explained_with_its_direction(name: str) -> None:
    metric = metric_info(name)
    about = explanation(metric.title)
    assert about
    direction = 'Higher' if metric.higher_is_better else 'Lower'
    assert f'{direction} is better' in about or f'{direction} counts as better' in about


@pytest.mark.parametrize(
    ('term', 'start'),
    [
        ('AP50', 'Average precision of persons'),
        ('AP50 night (12)', 'Average precision of persons'),
        ('AP50:95', 'Average precision, averaged'),
        ('AP50 - mean', 'AP50 minus'),
        ('miss rate at 0.25', 'Labelled persons'),
        ('missed near (5)', 'Persons that were'),
        ('person contrast in fused', 'Mean luma'),
        ('persons in fused', 'Boxes'),
        ('Pair offset: thermal stamp minus visible stamp', 'Stamp of the thermal'),
        ('mean rank ↓', 'Place among'),
    ],
)
def test_terms_with_more_words_are_explained(term: str, start: str) -> None:
    assert explanation(term).startswith(start)


@pytest.mark.parametrize('term', ['', 'method', 'fused', 'mean', 'misty', 'MSE2', '↑'])
def test_other_terms_speak_for_themselves(term: str) -> None:
    assert explanation(term) == ''
