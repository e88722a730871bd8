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
The parameters of the node that merges detections, in a table like that of the fusion node.

``config/detection_fusion.yaml`` and its part of ``docs/parameters.md`` are written from it by
``scripts/parameters.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
import math
import re
from typing import Any

from dig2dig_ros.detections.merging import DENIAL
from dig2dig_ros.detections.messages import TYPES
from dig2dig_ros.fusion.parameter_spec import ParameterSpec
from dig2dig_ros.streams.parameters import PARAMETERS_BY_NAME

NODE = 'detection_fusion'
FUSED = 'fused'
AUTO = 'auto'


class ParameterError(ValueError):
    """Parameters contradict each other; the message says which, and what to do."""


def _check_sources(value: Any) -> str | None:
    if not 2 <= len(value) <= 8:
        return 'must be two names or more (at most eight), such as [visible, thermal]'
    for name in value:
        if not re.fullmatch(r'[A-Za-z_][A-Za-z0-9_]*', name):
            return f"'{name}' is not a valid topic name: use letters, digits and underscores"
    if len(set(value)) < len(value):
        return 'must name each source only once'
    return None


def _check_slopes(value: Any) -> str | None:
    if value and all(map(math.isfinite, value)) and min(value) > 0:
        return None
    return 'must be numbers above 0'


def _check_offsets(value: Any) -> str | None:
    return None if value and all(map(math.isfinite, value)) else 'must be finite numbers'


# fmt: off
PARAMETERS: tuple[ParameterSpec, ...] = (
    ParameterSpec('sources', ['visible', 'thermal', FUSED], 'The images the detector runs on, '
                  'each with a topic NAME/detections: two or more of visible, thermal, fused and '
                  'additional cameras. The output has the header of the first.',
                  check=_check_sources),
    ParameterSpec('message_type', AUTO, 'Message type of the detections, in and out; auto takes '
                  'that of the first topic that is published.', choices=(AUTO, *TYPES)),
    ParameterSpec('sync_tolerance', 0.05, 'Largest difference in seconds between the stamps of '
                  'detections that belong together.', live=True, limits=(0.0, 10.0)),
    ParameterSpec('queue_size', 30, 'Messages of each source that may wait for the others: at '
                  'least those that arrive while the slowest detector works on one image.',
                  limits=(1, 1000)),
    ParameterSpec('stale_timeout', 2.0, 'Seconds without detections of a source, while others '
                  'send, before the others are merged without it.',
                  live=True, limits=(0.1, 3600.0)),
    ParameterSpec('iou', 0.5, 'Least overlap (intersection over union) of boxes of the same '
                  'object.', live=True, limits=(0.01, 0.99)),
    ParameterSpec('min_score', 0.0, 'Merged boxes with a lower score are not published.',
                  live=True, limits=(0.0, 1.0)),
    ParameterSpec('calibration_slopes', [1.0, 1.0, 1.0], 'For each source: factor on the '
                  'log-odds of its scores, below 1 if the detector is overconfident there.',
                  live=True,
                  check=_check_slopes),
    ParameterSpec('calibration_offsets', [0.0, 0.0, 0.0], 'For each source: offset added to the '
                  'log-odds of its scores after that.', live=True, check=_check_offsets),
    ParameterSpec('use_weights', True, 'Scale how much each camera counts in a box by its weight '
                  'map from the fusion, fused/weights/NAME; where there is none, it counts '
                  'fully.'),
    ParameterSpec('denial', DENIAL, 'Fraction of its score that a box loses if a camera that '
                  'counts fully finds nothing there; needs weight maps.',
                  live=True, limits=(0.0, 1.0)),
    ParameterSpec('equal_share', 0.5, 'Weight from which a camera counts fully: that of cameras '
                  'that contribute equally, 1 / number of cameras fused.', live=True,
                  limits=(0.01, 1.0)),
    replace(PARAMETERS_BY_NAME['max_pixels'], description='Weight maps with more pixels are '
            'refused before memory is allocated.'),
    PARAMETERS_BY_NAME['diagnostics_period'],
)
# fmt: on


def check_together(values: Mapping[str, Any]) -> None:
    """
    Check parameters that depend on each other.

    :raises ParameterError: they contradict each other; the message says why.
    """
    sources = values['sources']
    for name in ('calibration_slopes', 'calibration_offsets'):
        numbers = values[name]
        if len(numbers) != len(sources) and len(set(numbers)) > 1:
            raise ParameterError(
                f'{name} has {len(numbers)} numbers for {len(sources)} sources: give one for each'
            )
