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

"""Plots of the report page, read back from their SVG."""

import math
import re
import sys
from xml.etree import ElementTree

import numpy as np
import pytest

pytest.importorskip('matplotlib')

from dig2dig_ros.evaluation.plots import (
    line_plot,
    quality_runtime_plot,
)


def texts(svg: str) -> list[str]:
    return [element.text or '' for element in ElementTree.fromstring(svg).iter('text')]


def curves(svg: str) -> list[np.ndarray]:
    """Return the points of each curve, (N, 2) in drawing units, NaN where it is lifted."""
    found = []
    for path in ElementTree.fromstring(svg).iter('path'):
        if 'clip-path' not in path.attrib or 'var(--plot-grid' in path.get('style', ''):
            continue
        points: list[tuple[float, float]] = []
        for command, x, y in re.findall(r'([ML]) ([-\d.]+) ([-\d.]+)', path.get('d', '')):
            if command == 'M' and points:
                points.append((math.nan, math.nan))
            points.append((float(x), float(y)))
        found.append(np.array(points))
    return found


def line(values: list[float], **more: list[float]) -> str:
    return line_plot('A run', 'ms', range(len(values)), {'fused': values, **more})


def test_svg_stands_alone_in_a_page() -> None:
    svg = line([1.0, 3.0, 2.0])
    assert 'http' not in svg
    assert '<style' not in svg
    assert 'font-family' not in svg
    root = ElementTree.fromstring(svg)
    assert root.get('aria-label') == 'A run'
    assert {'time (s)', 'ms'} <= set(texts(svg))


def test_colours_are_those_of_the_page() -> None:
    svg = line([1.0, 3.0, 2.0], visible=[2.0, 2.0, 2.0])
    colours = set(re.findall(r'(?:fill|stroke): ([^;"]+)', svg))
    assert 'currentColor' in colours
    assert all(c in ('none', 'currentColor') or c.startswith('var(--plot-') for c in colours)


def test_a_source_keeps_its_colour() -> None:
    alone = re.findall(r'var\(--plot-\d', line([1.0, 2.0]))
    beside = re.findall(r'var\(--plot-\d', line([1.0, 2.0], other=[2.0, 3.0]))
    assert set(alone) == {'var(--plot-3'}
    assert 'var(--plot-3' in beside
    assert len(set(beside)) == 2


def test_more_lines_than_colours_are_told_apart_by_dashes() -> None:
    lines = {f'row {number}': [0.0, float(number)] for number in range(8)}
    svg = line_plot('', '', [0, 1], lines)
    assert {f'row {number}' for number in range(8)} <= set(texts(svg))
    assert 'stroke-dasharray' in svg


def test_names_are_shown_as_they_are() -> None:
    name = '_$a_1$ <b>&'
    svg = line([1.0, 2.0], **{name: [2.0, 1.0]})
    assert name in texts(svg)
    assert name in texts(quality_runtime_plot({name: (1.0, 2.0)}, 'Qabf'))


def test_long_series_are_thinned_without_hiding_extremes() -> None:
    values = np.random.default_rng(0).normal(size=20_000)
    values[[1234, 15_001]] = 50, -40
    svg = line(values.tolist())
    (points,) = curves(svg)
    assert len(points) <= 2000
    assert len(svg) < 60_000
    # Drawing units go down. The axes are as wide as the extremes, with matplotlib's margin.
    high, low = points[:, 1].min(), points[:, 1].max()
    per_unit = (low - high) / 90
    assert points[0, 1] == pytest.approx(high + (50 - values[0]) * per_unit, abs=0.1)
    assert points[-1, 1] == pytest.approx(high + (50 - values[-1]) * per_unit, abs=0.1)
    # And they stand where they belong.
    width = points[-1, 0] - points[0, 0]
    place = (points[points[:, 1].argmin(), 0] - points[0, 0]) / width
    assert place == pytest.approx(1234 / 19_999, abs=1e-3)


@pytest.mark.parametrize('length', [30, 30_000])
def test_a_line_never_crosses_a_gap(length: int) -> None:
    values = np.sin(np.arange(length))
    third = length // 3
    values[third : 2 * third] = np.nan
    values[third + 5] = np.inf
    (points,) = curves(line(values.tolist()))
    lifted = np.flatnonzero(np.isnan(points[:, 0]))
    assert len(lifted) == 1
    gap = (points[lifted[0] + 1, 0] - points[lifted[0] - 1, 0]) / np.ptp(points[[0, -1], 0])
    assert gap == pytest.approx(1 / 3, abs=0.1)


@pytest.mark.parametrize(
    ('values', 'dots'),
    [([1, 2, 3], 0), ([1, 2, math.nan, 3], 1), ([math.nan, 1, math.nan, 2, math.inf, 3], 3)],
)
def test_a_value_without_neighbours_is_a_dot(values: list[float], dots: int) -> None:
    assert len(re.findall(r'<use [^>]*var\(--plot-3', line(values))) == dots


@pytest.mark.parametrize('values', [[], [math.nan, math.nan], [math.inf]])
def test_no_values_are_said_to_be_none(values: list[float]) -> None:
    assert 'no values' in texts(line(values))


def test_values_that_hardly_differ_look_alike() -> None:
    (nearly,) = curves(line([8.1, 8.1001, 8.0999, 8.1]))
    assert np.ptp(nearly[:, 1]) < 2
    (apart,) = curves(line([8.1, 9.1, 7.1, 8.1]))
    assert np.ptp(apart[:, 1]) > 50


def test_lines_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match='fused has 2 values at 3 places'):
        line_plot('', '', [0, 1, 2], {'fused': [1.0, 2.0]})


def test_plots_are_the_same_again() -> None:
    assert line([1.0, 3.0]) == line([1.0, 3.0])
    assert line([1.0, 3.0]) != line([1.0, 4.0])


def test_quality_against_runtime_names_every_row() -> None:
    points = {'mean': (0.2, 0.4), 'fused': (100.0, 0.6), 'fused too': (101.0, 0.601)}
    shown = texts(quality_runtime_plot({**points, 'no time': (0.0, 1.0)}, 'Qabf ↑'))
    assert {*points, 'Qabf ↑', 'not drawn: no time'} <= set(shown)
    assert {'1', '10', '100'} <= set(shown)


@pytest.mark.parametrize('points', [{}, {'a': (math.nan, 1.0)}])
def test_quality_against_runtime_without_points(points: dict[str, tuple[float, float]]) -> None:
    assert 'no values' in texts(quality_runtime_plot(points, 'Qabf'))


def test_times_within_a_decade_have_ticks() -> None:
    shown = texts(quality_runtime_plot({'a': (3.1, 1.0), 'b': (6.2, 2.0)}, 'Qabf'))
    assert '5' in shown
    assert not any('$' in text for text in shown)


def test_missing_matplotlib_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, 'matplotlib.figure', None)
    with pytest.raises(ImportError, match='extra "evaluation"'):
        line([1.0])


def test_settings_of_matplotlib_stay_as_they_were() -> None:
    import matplotlib

    with matplotlib.rc_context({'font.size': 31.0, 'axes.grid': False}):
        with_own_settings = line([1.0, 3.0])
        assert matplotlib.rcParams['font.size'] == 31.0
    assert with_own_settings == line([1.0, 3.0])
