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


"""
Write what is made from the tables of parameters: ``config/fusion.yaml``,
``config/detection_fusion.yaml`` and ``docs/parameters.md``.

Those of the fusion node are in ``dig2dig_ros/fusion/settings.py`` (the group ``fusion``) and
``dig2dig_ros/streams/parameters.py`` (the others), those of the node that merges detections in
``dig2dig_ros/streams/detection_parameters.py``. A test fails where a file is not fresh.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
import sys
from textwrap import wrap

import yaml

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CHECKOUT))

from dig2dig_ros.fusion.parameter_spec import ParameterSpec  # noqa: E402
from dig2dig_ros.streams.detection_parameters import PARAMETERS as DETECTION_PARAMETERS  # noqa: E402
from dig2dig_ros.streams.parameters import (  # noqa: E402
    FUSION_PREFIX,
    SECTIONS,
    transport_parameter,
)

_YAML_HEAD = """\
# All parameters of the fusion node with their defaults. Made by scripts/parameters.py.
# To change some of them, copy this file, keep the lines that you change, and start with
#   ros2 launch dig2dig fusion.launch.py params_file:=/path/to/copy.yaml
# Those marked live can be set while the node runs, and take effect on the next pair:
#   ros2 param set /fusion_node fusion.num_inference_steps 4
/**:
  ros__parameters:
"""
_YAML_TAIL = """
    # QoS of a topic, by its resolved name, for example a camera with a single reliable reader:
    # qos_overrides:
    #   /thermal/image_raw:
    #     subscription:
    #       reliability: reliable
"""
_DETECTION_YAML_HEAD = """\
# All parameters of detection_fusion with their defaults. Made by scripts/parameters.py.
# To change some of them, copy this file, keep the lines that you change, and start with
#   ros2 launch dig2dig detection.launch.py mode:=boxes detection_params_file:=/path/to/copy.yaml
# Those marked live can be set while the node runs.
/**:
  ros__parameters:
"""
_DETECTION_HEADING = 'The node that merges detections'
_PAGE_HEAD = """\
# Parameters

All parameters of `fusion_node`, and at the end those of [`detection_fusion`](detection.md). *Live*
ones take effect on the next pair; the others need `cleanup` first, and `autostart` (like those of
`detection_fusion`) a new start. A bad value is refused with its reason, at start and
at run time; a name that does not exist is logged with the nearest one that does, and listed in
`/diagnostics`.

```bash
ros2 run dig2dig fusion_node --ros-args -p fusion.num_inference_steps:=4    # at start
ros2 param set /fusion_node fusion.num_inference_steps 4                    # at run time
ros2 launch dig2dig fusion.launch.py params_file:=my.yaml                   # from a file
```

```yaml
# my.yaml: what is not named keeps its default
/**:
  ros__parameters:
    prior: nano
    fusion:
      num_inference_steps: 4
```

`dig2dig evaluate` and the other commands read the same files (`--params`), and have the
parameters of the group `fusion` as options: `dig2dig evaluate FOLDER
--fusion.num_inference_steps 4`. The terms
are explained in [method.md](method.md) and [cameras.md](cameras.md).

*Made by `scripts/parameters.py` from the tables that the nodes declare, as are
[config/fusion.yaml](../config/fusion.yaml) and
[config/detection_fusion.yaml](../config/detection_fusion.yaml).*
"""


def parameter_file() -> str:
    """Return the text of ``config/fusion.yaml``."""
    text = _YAML_HEAD
    for number, (heading, specs) in enumerate(SECTIONS.items()):
        text += '\n' * (number > 0) + f'    # {heading}\n'
        indent = ' ' * 4
        if specs[0].name.startswith(FUSION_PREFIX):
            text += f'{indent}{FUSION_PREFIX[:-1]}:\n'
            indent += '  '
        text += ''.join(_entry(spec, indent) for spec in specs)
    return text + _YAML_TAIL


def detection_parameter_file() -> str:
    """Return the text of ``config/detection_fusion.yaml``."""
    entries = (_entry(spec, ' ' * 4) for spec in DETECTION_PARAMETERS)
    return _DETECTION_YAML_HEAD + ''.join(entries)


def _entry(spec: ParameterSpec, indent: str) -> str:
    """Return the lines of one parameter."""
    value = yaml.safe_dump(spec.default, default_flow_style=True).splitlines()[0]
    name = spec.name.removeprefix(FUSION_PREFIX)
    return '\n'.join([*_comment(spec, indent), f'{indent}{name}: {value}\n'])


def _comment(spec: ParameterSpec, indent: str) -> list[str]:
    # The description names the choices.
    facts = [fact for fact in ('live' * spec.live, '' if spec.choices else spec.allowed) if fact]
    text = f'({", ".join(facts)}) {spec.description}' if facts else spec.description
    start = f'{indent}# '
    return wrap(text, 99, initial_indent=start, subsequent_indent=start, break_on_hyphens=False)


def page() -> str:
    """Return the text of ``docs/parameters.md``."""
    text = _PAGE_HEAD
    for heading, specs in {**SECTIONS, _DETECTION_HEADING: DETECTION_PARAMETERS}.items():
        text += f'\n## {heading}\n\n'
        text += '| parameter | default | what | range | live |\n| --- | --- | --- | --- | --- |\n'
        text += ''.join(f'{row}\n' for spec in specs for row in _rows(spec))
    return text


def _rows(spec: ParameterSpec) -> Iterator[str]:
    value = yaml.safe_dump(spec.default, default_flow_style=True).splitlines()[0]
    allowed = ', '.join(f'`{choice}`' for choice in spec.choices) or spec.allowed
    live = 'yes' if spec.live else ''
    yield f'| `{spec.name}` | `{value}` | {spec.description} | {allowed} | {live} |'
    if spec.name == 'additional_sources':
        yield from _rows(transport_parameter('NAME'))


# What each file has to hold, by its place in the checkout.
FILES = {
    'config/fusion.yaml': parameter_file,
    'config/detection_fusion.yaml': detection_parameter_file,
    'docs/parameters.md': page,
}

if __name__ == '__main__':
    for name, made in FILES.items():
        (CHECKOUT / name).write_text(made(), encoding='utf-8')
        print(f'{name} written')
