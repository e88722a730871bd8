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
    chosen_parameters,
    load_parameters,
    UsageError,
)
from dig2dig_ros.fusion.settings import SETTINGS
from dig2dig_ros.streams.parameters import fusion_settings


def test_parameters_of_the_node_win_over_the_wildcard(tmp_path: Path) -> None:
    path = tmp_path / 'parameters.yaml'
    path.write_text(
        '/fusion_node: {ros__parameters: {fusion: {seed: 7}}}\n'
        '/**: {ros__parameters: {fusion.seed: 1, fusion: {num_inference_steps: 4}}}\n'
        'pair_camera: {ros__parameters: {seed: 9}}\n',
        encoding='utf-8',
    )
    assert load_parameters(str(path)) == {'fusion.seed': 7, 'fusion.num_inference_steps': 4}


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
        ('fusion: {gain_window: true}', 'fusion.gain_window is True, but must be a whole number'),
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
    path.write_text('/**: {ros__parameters: {fusion.temperature: 1}}\n', encoding='utf-8')
    assert load_parameters(str(path)) == {'fusion.temperature': 1.0}


def test_unknown_preset_is_refused() -> None:
    with pytest.raises(UsageError, match='neither a file nor a preset: use one of fusion, real'):
        load_parameters('no_such_preset')
    with pytest.raises(UsageError, match="neither a file nor a preset: did you mean 'realtime'"):
        load_parameters('realtim')
    # Shipped, but for another node.
    with pytest.raises(UsageError, match='detection_fusion is neither a file nor a preset'):
        load_parameters('detection_fusion')


@pytest.mark.parametrize('preset', ['fusion', 'realtime', 'paper', 'multi_focus'])
def test_presets_are_settings(preset: str) -> None:
    settings = fusion_settings(load_parameters(preset))
    assert settings.timesteps


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_fusion_options(parser, 'something')
    return parser.parse_args(words)


def test_options_win_over_files_and_files_over_defaults(tmp_path: Path) -> None:
    path = tmp_path / 'parameters.yaml'
    path.write_text('/**: {ros__parameters: {fusion: {seed: 5, temperature: 2.0}}}\n')
    args = parsed('-N', '4', '--device', 'cpu', '--fusion.temperature', '3', '--preset', str(path))
    assert chosen_parameters(args, {'fusion.seed': 1, 'fusion.noise_draws': 1}) == {
        'fusion.noise_draws': 1,
        'fusion.seed': 5,
        'fusion.temperature': 3.0,
        'fusion.num_inference_steps': 4,
        'device': 'cpu',
    }


def test_every_setting_is_an_option_with_its_meaning_and_its_limits() -> None:
    parser = argparse.ArgumentParser()
    add_fusion_options(parser, 'something')
    # argparse breaks lines at hyphens, too.
    text = ' '.join(parser.format_help().split()).replace('- ', '-')
    assert 'default: something' in text
    for name, spec in SETTINGS.items():
        assert f'--fusion.{name}' in text
        assert spec.description.replace('- ', '-') in text
        assert ','.join(map(str, spec.choices)) in text
        assert spec.choices or spec.allowed in text


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        ('-N 0', 'fusion.num_inference_steps is 0, but must be 1 to 999'),
        ('--fusion.sampler x', "fusion.sampler is 'x', but must be one of: increments, ddim"),
        ('--fusion.gain_window 4', 'fusion.gain_window is 4, but must be odd'),
        ('--fusion.temperature warm', "fusion.temperature is 'warm', but must be a number"),
        ('--device tpu', "device is 'tpu', but must be auto, cpu, cuda or cuda:N"),
    ],
)
def test_an_option_is_checked_as_the_parameter_is(
    capsys: pytest.CaptureFixture[str], words: str, message: str
) -> None:
    with pytest.raises(SystemExit):
        parsed(*words.split())
    assert message in capsys.readouterr().err


def test_a_name_in_a_file_that_does_not_exist_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / 'parameters.yaml'
    path.write_text(
        '/**: {ros__parameters: {temperature: 2.0, use_sim_time: true, nir_transport: raw, '
        'qos_overrides: {/a: {depth: 1}}}}\n'
    )
    assert 'temperature' in load_parameters(str(path))
    assert capsys.readouterr().err == (
        f'{path}: there is no parameter temperature: its value has no effect; did you mean '
        'fusion.temperature?\n'
    )
