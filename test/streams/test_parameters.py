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


"""The table of parameters, the files that are made from it, and parameter files."""

from pathlib import Path
import runpy

import pytest
import yaml

from dig2dig_ros.fusion.parameter_spec import nearest_name
from dig2dig_ros.fusion.settings import FusionSettings, SETTINGS
from dig2dig_ros.images.registration import SOFT_EDGE
from dig2dig_ros.streams.parameters import (
    argument_choices,
    complete_values,
    fusion_settings,
    no_parameter,
    PARAMETERS,
    PARAMETERS_BY_NAME,
    read_parameters,
    transport_parameter,
    unknown_arguments,
)

CHECKOUT = Path(__file__).resolve().parents[2]
MADE_FILES = runpy.run_path(str(CHECKOUT / 'scripts' / 'parameters.py'))['FILES']
DEFAULTS = {spec.name: spec.default for spec in PARAMETERS}


def same_type(value, default):
    if isinstance(default, list):
        return isinstance(value, list) and all(same_type(x, default[0]) for x in value)
    return type(value) is type(default)


@pytest.mark.parametrize('name', MADE_FILES)
def test_files_made_from_the_table_are_fresh(name):
    made = (CHECKOUT / name).read_text(encoding='utf-8')
    assert made == MADE_FILES[name](), f'{name} is stale: python scripts/parameters.py'


def test_readme_shows_rows_of_the_page_of_parameters():
    page = (CHECKOUT / 'docs' / 'parameters.md').read_text(encoding='utf-8').splitlines()
    readme = (CHECKOUT / 'README.md').read_text(encoding='utf-8')
    section = readme.split('\n## Parameters\n')[1].split('\n#')[0].splitlines()
    rows = [line for line in section if line.startswith('| `')]
    assert len(rows) >= 10
    assert [row for row in rows if row not in page] == []


def test_names_are_unique_and_described():
    assert len(PARAMETERS_BY_NAME) == len(PARAMETERS)
    for spec in PARAMETERS:
        assert spec.description.endswith('.')
        assert spec.problem(spec.default) is None
        # Files show the description without the choices.
        assert all(str(choice) in spec.description for choice in spec.choices), spec.name


def test_defaults_of_the_fusion_are_those_of_the_fuser():
    assert fusion_settings(DEFAULTS) == fusion_settings({}) == FusionSettings()
    assert {f'fusion.{name}' for name in SETTINGS} <= set(DEFAULTS)


def test_fusion_yaml_sets_every_parameter_to_its_default():
    assert read_parameters(CHECKOUT / 'config' / 'fusion.yaml') == DEFAULTS


@pytest.mark.parametrize(
    'preset', ['fusion', 'realtime', 'paper', 'multi_focus', 'multi_exposure']
)
def test_presets_are_declared_typed_and_valid(preset):
    path = CHECKOUT / 'config' / f'{preset}.yaml'
    read = read_parameters(path)
    # As ROS reads it, which takes no whole number for a float.
    document = yaml.safe_load(path.read_text(encoding='utf-8'))['/**']['ros__parameters']
    settings = document.pop('fusion')
    written = {**document, **{f'fusion.{name}': value for name, value in settings.items()}}
    assert read == written
    for name, value in written.items():
        assert same_type(value, PARAMETERS_BY_NAME[name].default), f'{name}: {value!r}'
    complete_values(read)


def test_paper_preset_is_the_paper():
    settings = fusion_settings(read_parameters(CHECKOUT / 'config' / 'paper.yaml'))
    assert (settings.num_inference_steps, settings.dig_refresh_interval) == (25, 10)
    assert (settings.normalize_gain, settings.temperature) == (False, 1.0)


@pytest.mark.parametrize(
    ('name', 'bad'),
    [
        ('device', 'tpu'),
        ('fusion.gain_window', 8),
        ('warmup_size', [640]),
        ('warmup_size', [0, 5]),
        ('warmup_size', [10000, 10000]),
        ('thermal_range_percentiles', [50.0, 50.0]),
        ('thermal_range_limits', [5.0, 1.0]),
        ('thermal_crop', [-1, 0]),
        ('thermal_crop', [0, 1001]),
        ('thermal_crop', [2]),
        ('visible_bits', 7),
        ('visible_bits', 17),
        ('sync_policy', 'closest'),
        ('additional_sources', ['1st']),
        ('additional_sources', ['near infrared']),
        ('additional_sources', ['nir/left']),
        ('additional_sources', ['nir\n']),
        ('additional_sources', ['']),
        ('additional_sources', ['nir', 'swir', 'nir']),
        ('additional_sources', ['visible']),
        ('additional_sources', ['thermal']),
        ('additional_sources', ['fused']),
        ('additional_sources', ['overlay']),
        ('additional_sources', 'nir'),
        ('additional_sources', [1, 2]),
        ('additional_sources', None),
    ],
)
def test_problems_name_the_parameter_and_the_value(name, bad):
    problem = PARAMETERS_BY_NAME[name].problem(bad)
    assert problem is not None
    assert name in problem
    assert str(bad) in problem


def test_additional_sources_are_names_and_fixed_once_configured():
    spec = PARAMETERS_BY_NAME['additional_sources']
    for names in ([], ['nir'], ['nir', 'swir_2', '_x', 'NIR']):
        assert spec.problem(names) is None
    assert not spec.live


def test_every_source_has_the_same_choice_of_transports():
    for source in ('visible', 'thermal'):
        assert transport_parameter(source) == PARAMETERS_BY_NAME[f'{source}_transport']
    spec = transport_parameter('nir')
    assert (spec.name, spec.default, spec.live) == ('nir_transport', 'raw', False)
    assert spec.problem('zip') == "nir_transport is 'zip', but must be one of: raw, compressed"


@pytest.mark.parametrize(
    'text',
    [
        '/**: {ros__parameters: {fusion: {temperature: 2.5}, prior: nano}}',
        '/**: {ros__parameters: {fusion.temperature: 2.5, prior: nano}}',
        '/**: {ros__parameters: {prior: nano}}\n'
        'fusion_node: {ros__parameters: {fusion.temperature: 2.5}}',
    ],
)
def test_nested_names_and_names_with_dots_are_the_same(tmp_path, text):
    path = tmp_path / 'parameters.yaml'
    path.write_text(text, encoding='utf-8')
    assert read_parameters(path) == {'prior': 'nano', 'fusion.temperature': 2.5}


def test_other_names_of_a_file_are_left_as_they_are(tmp_path):
    path = tmp_path / 'parameters.yaml'
    path.write_text(
        '/**: {ros__parameters: {use_sim_time: true, qos_overrides: {/a: {depth: 1}}}}',
        encoding='utf-8',
    )
    assert read_parameters(path) == {'use_sim_time': True, 'qos_overrides./a.depth': 1}


def test_the_default_edge_is_that_of_registrations():
    assert PARAMETERS_BY_NAME['registration_edge'].default == SOFT_EDGE


def test_given_values_are_completed_and_checked():
    values = complete_values({'fusion.temperature': 2, 'use_sim_time': True})
    assert values == {**DEFAULTS, 'fusion.temperature': 2.0}
    assert isinstance(values['fusion.temperature'], float)
    values = complete_values({'additional_sources': ['nir'], 'nir_transport': 'compressed'})
    assert values['nir_transport'] == 'compressed'
    assert complete_values({'additional_sources': ['nir']})['nir_transport'] == 'raw'


@pytest.mark.parametrize(
    ('name', 'bad'),
    [
        ('sync_tolerance', -0.1),
        ('sync_tolerance', 'short'),
        ('sync_tolerance', float('nan')),
        ('fusion.num_inference_steps', 2.5),
        ('fusion.num_inference_steps', True),
        ('fusion.num_inference_steps', 0),
        ('fusion.normalize_gain', 1),
        ('fusion.prior_downscale', 3),
        ('fusion.thermal_degradation', 'fog'),
        ('sync_policy', 'closest'),
        ('thermal_range_percentiles', [1, 'all']),
        ('thermal_range_percentiles', 5.0),
        ('additional_sources', [1]),
    ],
)
def test_what_the_node_would_refuse_is_refused_in_files(name, bad):
    with pytest.raises(ValueError, match=name):
        complete_values({name: bad})


def test_settings_that_do_not_fit_together_are_refused():
    with pytest.raises(ValueError, match='first_timestep is 400, but must be at least 500'):
        complete_values({'fusion.num_inference_steps': 500})


@pytest.mark.parametrize(
    ('wrong', 'meant'),
    [
        ('temprature', 'fusion.temperature'),
        ('seed', 'fusion.seed'),
        ('fusion.prior', 'prior'),
        ('sync_tolerence', 'sync_tolerance'),
        ('completely_different', ''),
    ],
)
def test_a_misspelt_name_is_told_the_nearest(wrong, meant):
    assert nearest_name(wrong, PARAMETERS_BY_NAME) == meant


@pytest.mark.parametrize(
    'text',
    [
        'a: &a [x, x]\nb: &b [*a, *a]\n/**: {ros__parameters: {prior: *b}}',
        'a: &a {x: 1}\n/**: {ros__parameters: {p: *a, q: *a}}',
        '[' * 1000,
        '/**: {ros__parameters: {prior: 2001-99-99}}',
        '/**:\n  ros__parameters:\n    prior: !!python/name:os.system\n',
        '/**: {ros__parameters: {prior: nano}}\n' + '#' * (1 << 20),
    ],
)
def test_a_parameter_file_that_is_no_plain_yaml_is_refused(tmp_path, text):
    path = tmp_path / 'parameters.yaml'
    path.write_text(text)
    with pytest.raises(ValueError, match=r'parameters\.yaml cannot be read as YAML') as caught:
        read_parameters(path)
    assert len(str(caught.value).splitlines()) == 1


def test_a_device_is_no_parameter_file():
    with pytest.raises(ValueError, match=r'/dev/zero cannot be read as YAML: it is not a file'):
        read_parameters(Path('/dev/zero'))


@pytest.mark.parametrize(
    ('name', 'more', 'choices'),
    [
        ('sync_policy', (), ['nearest', 'approximate', 'exact']),
        ('sync_policy', ('',), ['', 'nearest', 'approximate', 'exact']),
        ('fusion.prior_downscale', (), ['1', '2', '4']),
        ('fusion.normalize_gain', ('',), ['', 'true', 'false', 'True', 'False']),
        ('sync_tolerance', ('',), None),
    ],
)
def test_what_a_launch_argument_may_be(name, more, choices):
    assert argument_choices(PARAMETERS_BY_NAME[name], *more) == choices


@pytest.mark.parametrize(
    ('word', 'hint'),
    [
        ('devise:=cpu', 'devise: its value has no effect; did you mean device?'),
        (
            'temprature:=2.0',
            'temprature: its value has no effect; the parameter fusion.temperature is set in a '
            'file: params_file:=FILE',
        ),
        ('qwertz:=', 'qwertz: its value has no effect'),
    ],
)
def test_launch_arguments_that_nobody_declares_are_said(word, hint):
    known = ('device', 'params_file')
    argv = ['before:=1', '/opt/launch/fusion.launch.py', 'device:=cpu', word, '--debug']
    (said,) = unknown_arguments('fusion.launch.py', known, argv)
    assert said == f'there is no argument {hint}'
    assert unknown_arguments('replay.launch.py', known, argv) == []


def test_parameters_that_nobody_reads_are_said():
    said = no_parameter('temprature', ('temperature', 'device'))
    assert said == 'there is no parameter temprature: its value has no effect; did you mean ' + (
        'temperature?'
    )
    said = no_parameter('qwertz', ('temperature', 'device'))
    assert said == 'there is no parameter qwertz: its value has no effect'
