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


"""The configurations of Foxglove and RViz show what the node publishes."""

from collections.abc import Iterator
import json
from typing import Any

import pytest
import yaml

from dig2dig_ros.resources import config_file
from integration.harness import NODE

IMAGE, COMPRESSED = 'sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage'
DIAGNOSTICS = 'diagnostic_msgs/msg/DiagnosticArray'


@pytest.fixture
def published(shared_node):
    """Return the type of each topic that the active node publishes."""
    client, _ = shared_node()

    def names_and_types():
        return dict(client.node.get_publisher_names_and_types_by_node(NODE[1:], '/'))

    client.until(lambda: '/fused/image_raw' in names_and_types(), what='its publishers')
    return {name: types for name, (types,) in names_and_types().items()}


def leaves(layout: Any) -> Iterator[str]:
    """Yield the panels of Foxglove's tree of panels."""
    if isinstance(layout, str):
        yield layout
        return
    assert layout['direction'] in ('row', 'column')
    assert 0 < layout['splitPercentage'] < 100
    for side in ('first', 'second'):
        yield from leaves(layout[side])


def test_the_foxglove_layout_shows_compressed_images_and_diagnostics(published):
    layout = json.loads(config_file('foxglove_layout.json').read_text(encoding='utf-8'))
    panels = layout['configById']
    assert sorted(leaves(layout['layout'])) == sorted(panels)
    shown = {}
    for name, config in panels.items():
        kind = name.split('!')[0]
        topic = config['imageMode']['imageTopic'] if kind == 'Image' else config['topicToRender']
        shown[topic] = {'Image': COMPRESSED, 'DiagnosticSummary': DIAGNOSTICS}[kind]
    assert shown.items() <= published.items()
    assert list(shown.values()).count(COMPRESSED) == 4
    assert DIAGNOSTICS in shown.values()
    # What Foxglove asks of a file before it is imported.
    assert layout['globalVariables'] == {}
    assert layout['playbackConfig']['speed'] == 1


def test_the_rviz_configuration_shows_images_that_are_published(published):
    config = yaml.safe_load(config_file('fusion.rviz').read_text(encoding='utf-8'))
    displays = config['Visualization Manager']['Displays']
    shown = {display['Topic']['Value']: IMAGE for display in displays}
    assert shown.items() <= published.items()
    assert len(shown) == 4
    assert {display['Class'] for display in displays} == {'rviz_default_plugins/Image'}
    # Qt finds a panel again by its name, which it writes in two bytes a letter.
    state = bytes.fromhex(config['Window Geometry']['QMainWindow State'])
    for name in ('Displays', *(display['Name'] for display in displays)):
        assert name.encode('utf-16-be') in state
        assert config['Window Geometry'][name] == {'collapsed': False}
