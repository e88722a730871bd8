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

"""Parameters and options that the commands share."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from dig2dig_ros.evaluation.options import (
    add_fusion_options,
    fusion_overrides,
    fusion_settings,
    load_parameters,
    UsageError,
    with_overrides,
)


def test_parameters_of_the_node_win_over_the_wildcard(tmp_path: Path) -> None:
    path = tmp_path / 'parameters.yaml'
    path.write_text(
        '/fusion_node: {ros__parameters: {seed: 7}}\n'
        '/**: {ros__parameters: {seed: 1, num_inference_steps: 4}}\n'
        'pair_camera: {ros__parameters: {seed: 9}}\n',
        encoding='utf-8',
    )
    assert load_parameters(str(path)) == {'seed': 7, 'num_inference_steps': 4}


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('seed: 1', 'has no ros__parameters for fusion_node'),
        ('- 1', 'has no ros__parameters'),
        ('', 'has no ros__parameters'),
        ('other: {ros__parameters: {seed: 1}}', 'has no ros__parameters'),
        ('{', 'cannot be read as YAML'),
    ],
)
def test_files_that_set_nothing_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / 'parameters.yaml'
    path.write_text(text, encoding='utf-8')
    with pytest.raises(UsageError, match=message):
        load_parameters(str(path))


@pytest.mark.parametrize(
    ('line', 'message'),
    [
        ('prior: 3', 'prior is 3, but must be a text'),
        ('gain_window: true', 'gain_window is True, but must be a whole number'),
        ('num_threads: many', "num_threads is 'many', but must be a whole number"),
    ],
)
def test_values_of_another_type_are_refused(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / 'parameters.yaml'
    path.write_text(f'/**: {{ros__parameters: {{{line}}}}}\n', encoding='utf-8')
    with pytest.raises(UsageError, match=message):
        load_parameters(str(path))


def test_whole_numbers_are_numbers(tmp_path: Path) -> None:
    path = tmp_path / 'parameters.yaml'
    path.write_text('/**: {ros__parameters: {temperature: 1}}\n', encoding='utf-8')
    assert load_parameters(str(path)) == {'temperature': 1}


def test_unknown_preset_is_refused() -> None:
    with pytest.raises(UsageError, match='neither a file nor a preset'):
        load_parameters('no_such_preset')


@pytest.mark.parametrize('preset', ['fusion', 'realtime', 'paper', 'multi_focus'])
def test_presets_are_settings(preset: str) -> None:
    settings = fusion_settings(load_parameters(preset))
    assert settings.timesteps


def test_options_override_parameters_where_they_are_given() -> None:
    parser = argparse.ArgumentParser()
    add_fusion_options(parser, 'something')
    args = parser.parse_args(['-N', '4', '--device', 'cpu'])
    parameters = with_overrides(
        {'num_inference_steps': 2, 'dig_refresh_interval': 2}, fusion_overrides(args)
    )
    assert parameters == {'num_inference_steps': 4, 'dig_refresh_interval': 2, 'device': 'cpu'}
    assert 'default: something' in ' '.join(parser.format_help().split())
