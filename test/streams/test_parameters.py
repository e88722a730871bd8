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

"""Parameter table, YAML files and README must say the same."""

from pathlib import Path
import re

import pytest
import yaml

from dig2dig_ros.fusion.settings import FusionSettings
from dig2dig_ros.streams.parameters import (
    complete_values,
    FUSION_PARAMETERS,
    fusion_settings,
    PARAMETERS,
    PARAMETERS_BY_NAME,
    transport_parameter,
)

CHECKOUT = Path(__file__).resolve().parents[2]


def yaml_parameters(name):
    document = yaml.safe_load((CHECKOUT / 'config' / name).read_text(encoding='utf-8'))
    return document['/**']['ros__parameters']


def same_type(value, default):
    if isinstance(default, list):
        return isinstance(value, list) and all(same_type(x, default[0]) for x in value)
    return type(value) is type(default)


def test_names_are_unique_and_described():
    assert len(PARAMETERS_BY_NAME) == len(PARAMETERS)
    for spec in PARAMETERS:
        assert spec.description.endswith('.')
        assert spec.problem(spec.default) is None


def test_defaults_of_the_fusion_are_those_of_the_fuser():
    defaults = {spec.name: spec.default for spec in PARAMETERS}
    assert fusion_settings(defaults) == FusionSettings()
    assert set(FUSION_PARAMETERS) <= set(defaults)


def test_fusion_yaml_holds_every_parameter_with_its_default():
    values = yaml_parameters('fusion.yaml')
    assert values == {spec.name: spec.default for spec in PARAMETERS}


@pytest.mark.parametrize(
    'preset',
    ['fusion.yaml', 'realtime.yaml', 'paper.yaml', 'multi_focus.yaml', 'multi_exposure.yaml'],
)
def test_yaml_values_are_declared_typed_and_valid(preset):
    values = yaml_parameters(preset)
    for name, value in values.items():
        spec = PARAMETERS_BY_NAME[name]
        assert same_type(value, spec.default), f'{name}: {value!r}'
        assert spec.problem(value) is None
        if spec.minimum is not None:
            assert spec.minimum <= value <= spec.maximum
    fusion_settings({spec.name: spec.default for spec in PARAMETERS} | values)


def test_paper_preset_is_the_paper():
    values = yaml_parameters('paper.yaml')
    assert (values['num_inference_steps'], values['dig_refresh_interval']) == (25, 10)
    assert (values['normalize_gain'], values['temperature']) == (False, 1.0)


def test_readme_lists_every_parameter_with_its_default():
    text = (CHECKOUT / 'README.md').read_text(encoding='utf-8')
    rows = dict(re.findall(r'^\| `(\w+)` \| `([^`]*)` \|', text, re.MULTILINE))
    expected = {spec.name: spec.default for spec in PARAMETERS}
    assert {name: yaml.safe_load(rows[name]) for name in expected if name in rows} == expected


@pytest.mark.parametrize(
    ('name', 'bad'),
    [
        ('device', 'tpu'),
        ('gain_window', 8),
        ('warmup_size', [640]),
        ('warmup_size', [0, 5]),
        ('warmup_size', [10000, 10000]),
        ('thermal_range_percentiles', [50.0, 50.0]),
        ('thermal_range_limits', [5.0, 1.0]),
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
    pytest.importorskip('rcl_interfaces', reason='needs the ROS message packages')
    # rclpy takes an empty list for one of bytes, so the check stands in for the type.
    assert spec.descriptor().dynamic_typing
    assert not PARAMETERS_BY_NAME['warmup_size'].descriptor().dynamic_typing


def test_every_source_has_the_same_choice_of_transports():
    for source in ('visible', 'thermal'):
        assert transport_parameter(source) == PARAMETERS_BY_NAME[f'{source}_transport']
    spec = transport_parameter('nir')
    assert (spec.name, spec.default, spec.live) == ('nir_transport', 'raw', False)
    assert spec.problem('zip') == "nir_transport is 'zip', but must be one of: raw, compressed"


def test_a_parameter_file_is_completed_and_checked_without_ros():
    values = complete_values({'temperature': 2, 'use_sim_time': True})
    assert values['temperature'] == 2.0
    assert isinstance(values['temperature'], float)
    defaults = {spec.name: spec.default for spec in PARAMETERS}
    assert values == {**defaults, 'temperature': 2.0}
    values = complete_values({'additional_sources': ['nir'], 'nir_transport': 'compressed'})
    assert values['nir_transport'] == 'compressed'
    assert complete_values({'additional_sources': ['nir']})['nir_transport'] == 'raw'


@pytest.mark.parametrize(
    ('name', 'bad'),
    [
        ('sync_tolerance', -0.1),
        ('sync_tolerance', 'short'),
        ('num_inference_steps', 2.5),
        ('num_inference_steps', True),
        ('num_inference_steps', 0),
        ('normalize_gain', 1),
        ('sync_policy', 'closest'),
        ('thermal_range_percentiles', [1, 'all']),
        ('thermal_range_percentiles', 5.0),
        ('additional_sources', [1]),
    ],
)
def test_what_the_node_would_refuse_is_refused_in_files(name, bad):
    with pytest.raises(ValueError, match=name):
        complete_values({name: bad})
