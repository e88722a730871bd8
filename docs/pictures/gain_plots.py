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

"""Plots of :mod:`gain_study` and :mod:`noise_study`; importing this module needs matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import io
import math
from pathlib import Path
from typing import Any, TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import withStroke
import numpy as np
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    from gain_study import Chain
    from information import GainCurve

# Also for people with colour blindness (Okabe and Ito).
_BLUE, _VERMILION, _GREEN, _GREY = '#0072b2', '#d55e00', '#009e73', '#777777'
_YELLOW = '#f0e442'
_RULES = {
    'dig': ('DIG', _BLUE, 'o', '-'),
    'rd': ('relative dominability', _VERMILION, 's', '-'),
    'uniform': ('uniform (1/K)', _GREY, '', '--'),
}
_SOURCES = (_BLUE, _VERMILION, _GREEN, _GREY)
_GREY_LEVELS = 127.5
_DPI = 100


def _save(figure: Figure, path: Path) -> None:
    """Write a PNG with a palette, which takes half the room of one with all colours."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format='png', dpi=_DPI)
    picture = Image.open(drawn).convert('RGB')
    picture.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


def _noise_axis(axes: Any, timesteps: Sequence[int]) -> None:
    """Let the noise fall from left to right, with room for the many steps at low noise."""
    axes.set_xscale('function', functions=(lambda t: np.sqrt(np.maximum(t, 0)), np.square))
    first = max(timesteps)
    ticks: list[int] = []
    for t in (0, 10, 50, 100, 200, 400, 600, 800, 999):
        # Labels need room.
        if t <= first and (not ticks or math.sqrt(t) - math.sqrt(ticks[-1]) > 0.1 * first**0.5):
            ticks.append(t)
    axes.set_xticks(ticks, [str(t) for t in ticks])
    axes.set_xlim(1.04 * first, 0)
    axes.grid(alpha=0.3)


def _legend(figure: Any, axes: Any, band: str) -> None:
    """Put the lines of ``axes`` above the figure, with what the bands mean."""
    lines = axes.get_legend_handles_labels()[0]
    handles = [*lines, Patch(color=_GREY, alpha=0.3, lw=0, label=band)]
    figure.legend(handles=handles, loc='outside upper center', ncols=len(handles), frameon=False)


def draw_theorem(path: Path, chains: Sequence[Chain]) -> None:
    """
    Draw how the weights go with the guidance over the steps, one column for each kind of pairs.

    Above, the correlation; below, what a step takes off the bound. Bands are standard errors.
    """
    kinds = list(dict.fromkeys(chain.kind for chain in chains))
    figure = Figure(figsize=(1 + 4.2 * len(kinds), 5.6), layout='constrained')
    grid = figure.subplots(2, len(kinds), sharex=True, squeeze=False)
    for column, kind in enumerate(kinds):
        for rule, (label, colour, marker, line) in _RULES.items():
            own = [chain.steps for chain in chains if (chain.kind, chain.rule) == (kind, rule)]
            if not own:
                continue
            timesteps = [step.timestep for step in own[0]]
            # Constant weights have no correlation, and a covariance of zero.
            correlation = np.array(
                [[0.0 if math.isnan(s.correlation) else s.correlation for s in c] for c in own]
            )
            term = np.array([[step.covariance_term for step in c] for c in own]) * _GREY_LEVELS
            for row, values in enumerate((correlation, term)):
                axes = grid[row, column]
                _line_with_error(axes, timesteps, values, label, colour, line, marker)
                _noise_axis(axes, timesteps)
        count = len({chain.pair for chain in chains if chain.kind == kind})
        grid[0, column].set_title(f'{kind}, {count} pair{"s" if count > 1 else ""}')
        grid[0, column].set_ylim(-1, 1)
        grid[1, column].set_xlabel('timestep t (noise falls to the right)')
    grid[0, 0].set_ylabel('correlation of $w_k$ and $B_k$')
    grid[1, 0].set_ylabel(r'$A\,\sum_k\,\mathrm{Cov}(w_k, B_k)$, grey levels')
    _legend(figure, grid[0, 0], '± standard error over the pairs')
    _save(figure, path)


def draw_gains(
    path: Path,
    sources: NDArray[np.float32],
    names: Sequence[str],
    curves: Sequence[GainCurve],
) -> None:
    """
    Draw the cumulative gain of every source in every region, and where the regions are.

    :param sources: (K, H, W) in [0, 1].
    :param curves: the last of them is of the whole image. Bands are one standard deviation over
        the pixels.
    """
    columns = math.ceil(len(curves) / 2)
    height, width = sources.shape[1:]
    figure = Figure(figsize=(3.4 + 3.3 * columns, 5.6), layout='constrained')
    parts: Any = figure.subfigures(1, 2, width_ratios=[3.4, 3.3 * columns])
    left, right = parts
    outlined = [withStroke(linewidth=2, foreground='black')]
    pictures = np.atleast_1d(left.subplots(len(sources), 1))
    for axes, source, name in zip(pictures, sources, names, strict=True):
        axes.imshow(source, cmap='gray', vmin=0, vmax=1, interpolation='nearest')
        axes.set_title(name)
        axes.set_axis_off()
        for curve in curves[:-1]:
            r = curve.region
            frame = Rectangle((r.x, r.y), r.width, r.height, fill=False, ec=_YELLOW, lw=1.5)
            axes.add_patch(frame)
            axes.text(
                min(r.x + 0.02 * width, 0.9 * width),
                r.y + 0.02 * height,
                curve.name.split()[0],
                color=_YELLOW,
                va='top',
                fontsize=9,
                path_effects=outlined,
            )
    plots = right.subplots(2, columns, sharex=True, squeeze=False).flatten()
    for axes, curve in zip(plots, curves, strict=False):
        for index, name in enumerate(names):
            mean, spread = curve.mean[index], np.sqrt(curve.variance[index])
            colour = _SOURCES[index % len(_SOURCES)]
            axes.plot(curve.timesteps, mean, color=colour, label=name)
            axes.fill_between(
                curve.timesteps, mean - spread, mean + spread, color=colour, alpha=0.18, lw=0
            )
        axes.set_title(curve.name, fontsize=10)
        _noise_axis(axes, curve.timesteps.tolist())
    for axes in plots[len(curves) :]:
        axes.set_axis_off()
    for row in range(2):
        plots[row * columns].set_ylabel('cumulative DIG')
    for axes in plots[-columns:]:
        axes.set_xlabel('timestep t')
    _legend(right, plots[0], '± standard deviation over the pixels')
    _save(figure, path)


def draw_noise(
    path: Path,
    levels: Sequence[float],
    information: NDArray[np.float64],
    weights: Mapping[str, NDArray[np.float64]],
) -> None:
    """
    Draw each camera's information, and the thermal weight, over the visible camera's noise.

    :param levels: L deviations of the noise added to the visible image, in grey levels.
    :param information: (P, L, 2, 2): pairs, levels, bands (structure, details), cameras; in nats.
    :param weights: mean thermal weight by what the fusion does, (P, L). Bands are standard errors.
    """
    figure = Figure(figsize=(9.6, 3.9), layout='constrained')
    left, right = figure.subplots(1, 2)
    for source, (name, colour) in enumerate((('visible', _BLUE), ('thermal', _VERMILION))):
        for band, (what, line) in enumerate((('structure', '-'), ('details', '--'))):
            _line_with_error(
                left, levels, information[:, :, band, source], f'{name}, {what}', colour, line
            )
    styles = ((_VERMILION, '-', 'o'), (_BLUE, '--', 's'), (_GREY, ':', '^'))
    for (name, values), (colour, line, marker) in zip(weights.items(), styles, strict=True):
        _line_with_error(right, levels, values, name, colour, line, marker)
    left.set_title('Information of a camera about the scene', fontsize=11)
    left.set_ylabel('nats a sample, mean over the frame')
    # The legend has room above.
    left.set_ylim(0, 1.4 * information.mean(axis=0).max())
    right.set_title('How much of the fused image is thermal', fontsize=11)
    right.set_ylabel('mean thermal weight')
    right.set_ylim(0.3, 0.9)
    for axes in (left, right):
        axes.set_xlabel('white noise added to the visible image, grey levels')
        axes.set_xlim(min(levels), max(levels))
        axes.grid(alpha=0.3)
    left.legend(loc='upper center', ncols=2, fontsize=9, frameon=False)
    right.legend(loc='upper left', fontsize=9, frameon=False)
    _save(figure, path)


def _line_with_error(
    axes: Any,
    places: Sequence[float],
    values: NDArray[np.float64],
    label: str,
    colour: str,
    line: str,
    marker: str = 'o',
) -> None:
    """Draw the means over the first axis of (P, L), with their standard errors as a band."""
    mean = values.mean(axis=0)
    axes.plot(places, mean, line, color=colour, marker=marker, ms=3.5, label=label)
    if len(values) > 1:
        error = values.std(axis=0, ddof=1) / math.sqrt(len(values))
        axes.fill_between(places, mean - error, mean + error, color=colour, alpha=0.2, lw=0)
