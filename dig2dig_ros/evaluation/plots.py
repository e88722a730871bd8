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
Plots for the report page, as SVG that takes its colours from the page.

Drawn by matplotlib, independent of pyplot's state and of a user's matplotlibrc. Text stays text,
in the font of the page. Text and axes have ``currentColor``, everything else CSS variables
(``--plot-grid``, ``--plot-1`` and so on) with a fallback, so that a plot is legible on light and
dark backgrounds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
import hashlib
import io
import re
from typing import Any, TYPE_CHECKING
import warnings
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = NDArray[np.float64]

# Distinguishable with colour blindness, too (Okabe and Ito).
_COLOURS = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#a6761d', '#56b4e9')
# A source keeps its colour in all plots: cool visible, warm thermal, as in the weight overlay.
_COLOUR_OF = {'visible': 0, 'thermal': 1, 'fused': 2, 'mean': 3}
# Placeholders that matplotlib draws with, and that become the colours of the page.
_INK, _GRID, _LINE = '#010101', '#010102', '#0102{:02x}'
# In points, pixels on the page; two plots fit side by side on a desktop, one on a phone.
_WIDTH, _HEIGHT, _FONT = 400.0, 195.0, 11.0
# Twice the pixels of the plot: more points cannot be told apart.


def line_plot(
    title: str,
    unit: str,
    x: Sequence[float],
    lines: Mapping[str, Sequence[float]],
    x_label: str = 'time (s)',
) -> str:
    """
    Draw values over the course of a run.

    A line has gaps where values are missing or infinite; a value between two gaps is a dot. Long
    runs are thinned to what can be seen.

    :param unit: of the values; empty if they have none.
    :param x: place of each value, ascending.
    :param lines: values by name, each as long as ``x``; NaN where there is none.
    :return: SVG to stand in an HTML page.
    :raises ValueError: a line has another length than ``x``.
    :raises ImportError: matplotlib is missing.
    """
    places = np.asarray(x, np.float64)
    drawn = False
    with _figure(_WIDTH, _HEIGHT) as figure:
        axes = figure.subplots()
        handles = []
        for name, (colour, dashes, _) in _looks(lines).items():
            values = np.array(lines[name], np.float64)
            if values.shape != places.shape:
                raise ValueError(f'{name} has {len(values)} values at {len(places)} places')
            values[~np.isfinite(values)] = np.nan
            drawn = drawn or not np.isnan(values).all()
            handles += axes.plot(places, values, lw=1.3, color=colour, linestyle=dashes)
            alone = _alone(values)
            axes.plot(places[alone], values[alone], '.', color=colour, ms=4)
        axes.set_xlabel(x_label)
        axes.set_ylabel(unit)
        axes.margins(x=0.01)
        _widen(axes)
        if not drawn:
            _say_empty(axes)
        elif len(lines) > 1:
            _legend(figure, handles, list(lines))
        return _svg(figure, title)


def quality_runtime_plot(points: Mapping[str, tuple[float, float]], metric_title: str) -> str:
    """
    Draw quality against runtime (Dig2DIG, Table 5, as a picture).

    :param points: (milliseconds a pair, value of the metric) by name; those that are not finite,
        or take no time, are only named below the plot.
    :param metric_title: name of the metric, ideally with an arrow in the better direction.
    :return: SVG to stand in an HTML page.
    :raises ImportError: matplotlib is missing.
    """
    missing = [
        name for name, point in points.items() if point[0] <= 0 or not np.isfinite(point).all()
    ]
    known = {name: point for name, point in points.items() if name not in missing}
    with _figure(_WIDTH, 1.35 * _HEIGHT) as figure:
        from matplotlib.ticker import LogLocator, NullFormatter

        axes = figure.subplots()
        axes.set_xscale('log')
        axes.set_xlabel(
            'time for a pair (ms)' + (f'\nnot drawn: {", ".join(missing)}' if missing else '')
        )
        axes.set_ylabel(metric_title)
        handles = []
        for name, (colour, _, marker) in _looks(known).items():
            handles += axes.plot(*known[name], marker, color=colour, ms=6)
        axes.margins(x=0.1, y=0.14)
        low, high = axes.get_xlim()
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
        axes.xaxis.set_major_formatter(lambda value, _: f'{value:g}')
        axes.xaxis.set_minor_formatter(NullFormatter())
        if known:
            _legend(figure, handles, list(known))
        else:
            _say_empty(axes)
        return _svg(figure, f'{metric_title} against the time for a pair')


def _widen(axes: Any) -> None:
    """Show values that hardly differ as such, rather than the noise of their last digits."""
    low, high = axes.get_ylim()
    least = 0.02 * max(abs(low), abs(high))
    if high - low < least:
        middle = (low + high) / 2
        axes.set_ylim(middle - least / 2, middle + least / 2)


def _say_empty(axes: Any) -> None:
    axes.set(xticks=[], yticks=[])
    axes.text(0.5, 0.5, 'no values', ha='center', transform=axes.transAxes)


def _alone(values: Array) -> NDArray[np.bool_]:
    """Return which values have no neighbour to draw a line to."""
    known = np.concatenate([[False], np.isfinite(values), [False]])
    alone: NDArray[np.bool_] = known[1:-1] & ~known[:-2] & ~known[2:]
    return alone


def _line_colour(number: int) -> str:
    return _LINE.format(number % len(_COLOURS))


def _looks(names: Iterable[str]) -> dict[str, tuple[str, str, str]]:
    """Return colour, dashes and marker for each name; distinct even if the colours run out."""
    names = list(names)
    own = {name: _COLOUR_OF[name] for name in names if name in _COLOUR_OF}
    # Next to a name with a fixed colour, avoid the fixed colours of other names.
    reserved = set(_COLOUR_OF.values()) if own else set()
    free = sorted(set(range(len(_COLOURS))) - set(own.values()), key=lambda n: (n in reserved, n))
    others = iter([*free, *range(len(_COLOURS), len(_COLOURS) + len(names))])
    numbers = {name: own[name] if name in own else next(others) for name in names}
    return {
        name: (
            _line_colour(number),
            ('-', '--', ':', '-.')[number // len(_COLOURS) % 4],
            'os^D'[number // len(_COLOURS) % 4],
        )
        for name, number in numbers.items()
    }


def _legend(figure: Figure, handles: Sequence[Any], names: Sequence[str]) -> None:
    """Name the lines above the plot, in as many columns as fit."""
    widest = max(map(len, names)) * 0.6 * _FONT + 36
    columns = int(max(1, min(len(names), _WIDTH // widest)))
    numbers = [str(number) for number in range(len(names))]
    legend = figure.legend(
        handles, numbers, loc='outside upper left', ncols=columns, handlelength=1.2
    )
    # Set afterwards: matplotlib leaves out labels that begin with an underscore.
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_text(name)


@contextmanager
def _figure(width: float, height: float) -> Iterator[Figure]:
    """
    Yield a figure in the style of the page.

    :param width: points.
    :param height: points.
    :raises ImportError: matplotlib is missing.
    """
    try:
        from matplotlib import style
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            'plots need matplotlib: install the extra "evaluation" of dig2dig, or pip install '
            'matplotlib, or apt install python3-matplotlib'
        ) from error
    colours = dict.fromkeys(
        ('text.color', 'axes.labelcolor', 'axes.edgecolor', 'xtick.color', 'ytick.color'), _INK
    )
    looks: dict[str, Any] = {
        **colours,
        'figure.facecolor': 'none',
        'axes.facecolor': 'none',
        'axes.linewidth': 0.8,
        'axes.spines.top': False,
        'axes.spines.right': False,
        'axes.axisbelow': True,
        'axes.grid': True,
        'grid.color': _GRID,
        'grid.linewidth': 0.8,
        'font.size': _FONT,
        'axes.labelsize': _FONT,
        'legend.frameon': False,
        'legend.borderpad': 0,
        'path.simplify_threshold': 1.0,
        # Names are not formulas.
        'text.parse_math': False,
        'svg.fonttype': 'none',
        'svg.hashsalt': 'dig2dig',
    }
    # All drawing happens in this context: matplotlib reads its settings until the end.
    with style.context(looks, after_reset=True), warnings.catch_warnings():
        # The font that matplotlib measures with lacks some glyphs of the page's font.
        warnings.filterwarnings('ignore', message='Glyph')
        figure = Figure(figsize=(width / 72, height / 72), dpi=72, layout='constrained')
        FigureCanvasSVG(figure)
        yield figure


def _svg(figure: Figure, title: str) -> str:
    """Return a figure as SVG for HTML: no prologue, no namespaces, colours of the page."""
    buffer = io.StringIO()
    figure.savefig(buffer, format='svg', metadata={'Date': None})
    root = ElementTree.fromstring(buffer.getvalue())
    # A page holds several plots: references by name must stay within their own plot.
    prefix = f'p{hashlib.sha256(buffer.getvalue().encode()).hexdigest()[:8]}-'
    names = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', buffer.getvalue()))
    for element in root.iter():
        for child in list(element):
            if _local(child.tag) in ('metadata', 'style'):
                element.remove(child)
        element.tag = _local(element.tag)
        attributes = {_local(key): value for key, value in element.attrib.items()}
        element.attrib.clear()
        for key, value in attributes.items():
            if key == 'id':
                if value not in names:
                    continue
                value = prefix + value
            elif key == 'style':
                value = _page_style(value)
            elif key == 'href':
                value = value.replace('#', f'#{prefix}')
            elif key == 'clip-path':
                value = value.replace('url(#', f'url(#{prefix}')
            if value:
                element.set(key, value)
    box = root.attrib['viewBox']
    root.attrib.clear()
    root.attrib |= {
        'viewBox': box,
        'role': 'img',
        'aria-label': title,
        'style': 'stroke-linejoin: round',
    }
    return ElementTree.tostring(root, encoding='unicode', short_empty_elements=False)


def _local(name: str) -> str:
    return name.rpartition('}')[2]


def _page_style(style: str) -> str:
    """Return a style with the colours of the page, and without a font of its own."""
    # Older versions of matplotlib write size and family in one property.
    style = re.sub(r'font: [^;]*?([\d.]+px)[^;]*', r'font-size: \1', style)
    style = re.sub(r'font-family:[^;]*(; *|$)', '', style)
    style = style.replace(_INK, 'currentColor').replace(_GRID, 'var(--plot-grid, #cccccc)')
    for number, fallback in enumerate(_COLOURS):
        style = style.replace(_line_colour(number), f'var(--plot-{number + 1}, {fallback})')
    return style.strip('; ')
