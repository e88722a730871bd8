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
Sheets of pictures with curves below them, for ``inspect_cameras.py`` and ``inspect_noise.py``.

Only :func:`draw` needs matplotlib.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
import io
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Panel:
    """
    A picture within the picture.

    :param image: (H, W[, 3]), blue first; None for a card with the text alone.
    :param text: on the card.
    :param title: above it.
    :param share: mean thermal weight, for a bar below it.
    :param frame: whether the camera is faulty there.
    """

    image: Image | None
    title: str = ''
    text: str = ''
    share: float | None = None
    frame: bool = False


@dataclass(frozen=True)
class Curves:
    """
    Values over time, below the panels.

    :param label: what they are.
    :param lines: (times, values) by name; NaN where there is none.
    :param spans: (start, end, what happens then), in seconds.
    :param marks: times by the letter of the panels.
    :param limits: of the values.
    """

    label: str
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]]
    spans: Sequence[tuple[float, float, str]]
    marks: Mapping[str, float]
    limits: tuple[float, float] = (-0.03, 1.03)


@dataclass(frozen=True)
class Sheet:
    """
    A picture.

    :param rows: (what the row is, its panels).
    :param note: what the bars and frames mean, below the title.
    """

    title: str
    note: str
    rows: Sequence[tuple[str, Sequence[Panel]]]
    curves: Sequence[Curves] = ()


def crop(image: NDArray[Any], box: Box, margin: float, aspect: float) -> NDArray[Any]:
    """
    Return the part of an image around a box.

    :param box: (x1, y1, x2, y2) in pixels.
    :param margin: height of the part as a multiple of the box's.
    :param aspect: width of the part as a multiple of its height.
    """
    x1, y1, x2, y2 = box
    rows, columns = image.shape[:2]
    height = min(rows, max(8, round(margin * (y2 - y1))), int(columns / aspect))
    width = round(aspect * height)
    left = min(max(0, round((x1 + x2) / 2 - width / 2)), columns - width)
    top = min(max(0, round((y1 + y2) / 2 - height / 2)), rows - height)
    return image[top : top + height, left : left + width]


# Also for people with colour blindness (Okabe and Ito).
_BLUE, _VERMILION, _GREEN, _GREY = '#0072b2', '#d55e00', '#009e73', '#777777'
_LINES = ((_VERMILION, '-'), (_BLUE, '--'), (_GREEN, ':'))
_DPI = 100
_QUALITY = 78
# Inches: the sheet; its margin, the labels of rows, between panels, above all rows, above a
# panel, a bar, and curves without and with their axis.
_WIDTH, _SIDE, _LABEL, _GAP = 10.0, 0.12, 0.3, 0.08
_HEAD, _TITLE, _BAR, _CURVE, _AXIS = 0.56, 0.21, 0.2, 1.35, 0.55


def draw(sheet: Sheet) -> bytes:
    """
    Return a sheet as a JPEG file.

    :raises ImportError: matplotlib is missing.
    """
    from matplotlib.figure import Figure
    from PIL import Image as Pictures

    heights = []
    for _, panels in sheet.rows:
        width = _panel_width(len(panels))
        images = [panel.image for panel in panels if panel.image is not None]
        tallest = max((image.shape[0] / image.shape[1] for image in images), default=0.75)
        bar = _BAR if any(panel.share is not None for panel in panels) else 0.0
        heights.append((width * tallest, bar))
    total = _HEAD + sum(height + bar + _TITLE + _GAP for height, bar in heights)
    total += sum(_CURVE + _AXIS for _ in sheet.curves) + 0.05
    figure = Figure(figsize=(_WIDTH, total), dpi=_DPI)

    def axes(left: float, top: float, width: float, height: float) -> Any:
        return figure.add_axes(
            (left / _WIDTH, 1 - (top + height) / total, width / _WIDTH, height / total)
        )

    figure.text(_SIDE / _WIDTH, 1 - 0.08 / total, sheet.title, size=12, weight='bold', va='top')
    figure.text(_SIDE / _WIDTH, 1 - 0.33 / total, sheet.note, size=9, color='#444444', va='top')
    top = _HEAD
    for (label, panels), (height, bar) in zip(sheet.rows, heights, strict=True):
        width = _panel_width(len(panels))
        figure.text(
            (_SIDE + 0.1) / _WIDTH, 1 - (top + _TITLE + height / 2) / total, label,
            size=9, rotation=90, ha='center', va='center',
        )  # fmt: skip
        for index, panel in enumerate(panels):
            left = _SIDE + _LABEL + index * (width + _GAP)
            _draw_panel(axes(left, top + _TITLE, width, height), panel)
            if panel.share is not None and not math.isnan(panel.share):
                _draw_bar(axes(left, top + _TITLE + height + 0.03, width, 0.13), panel.share)
        top += _TITLE + height + bar + _GAP
    for curves in sheet.curves:
        _draw_curves(axes(0.65, top + 0.2, _WIDTH - 0.8, _CURVE), curves)
        top += _CURVE + _AXIS
    drawn = io.BytesIO()
    figure.savefig(drawn, format='png', dpi=_DPI)
    data = io.BytesIO()
    Pictures.open(drawn).convert('RGB').save(data, 'JPEG', quality=_QUALITY, optimize=True)
    return data.getvalue()


def _panel_width(count: int) -> float:
    return (_WIDTH - 2 * _SIDE - _LABEL - (count - 1) * _GAP) / count


def _draw_panel(axes: Any, panel: Panel) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(panel.title, size=9, loc='left', pad=3)
    for spine in axes.spines.values():
        spine.set_visible(panel.frame or panel.image is None)
        spine.set_color(_VERMILION if panel.frame else '#bbbbbb')
        spine.set_linewidth(3 if panel.frame else 1)
    if panel.image is None:
        axes.set_facecolor('#eeeeee')
        axes.text(
            0.5, 0.5, panel.text, size=8.5, ha='center', va='center', transform=axes.transAxes
        )
        return
    if panel.image.ndim == 2:
        axes.imshow(panel.image, cmap='gray', vmin=0, vmax=255, interpolation='antialiased')
    else:
        axes.imshow(panel.image[..., ::-1], interpolation='antialiased')
    axes.set_anchor('N')


def _draw_bar(axes: Any, share: float) -> None:
    """Draw the mean weight of each camera: visible to the left, thermal to the right."""
    axes.set_axis_off()
    axes.set_xlim(0, 1)
    axes.barh(0, 1 - share, color=_BLUE)
    axes.barh(0, share, left=1 - share, color=_VERMILION)
    for value, place, side in ((1 - share, 0.015, 'left'), (share, 0.985, 'right')):
        if value > 0.005:
            axes.text(place, -0.03, f'{value:.2f}', size=7.5, color='white', ha=side, va='center')


def _draw_curves(axes: Any, curves: Curves) -> None:
    for (name, (times, values)), (colour, style) in zip(
        curves.lines.items(), _LINES, strict=False
    ):
        axes.plot(times, values, style, color=colour, lw=1.8, label=name)
    low, high = curves.limits
    axes.set_ylim(low, high)
    first = min(min(times) for times, _ in curves.lines.values())
    last = max(max(times) for times, _ in curves.lines.values())
    axes.set_xlim(first, last)
    for start, end, text in curves.spans:
        axes.axvspan(start, min(end, last), color=_VERMILION, alpha=0.13, lw=0)
        middle = (start + min(end, last)) / 2
        axes.text(
            middle, (low + high) / 2, text, size=8.5, color='#a04000', ha='center', va='center'
        )
    for letter, time in curves.marks.items():
        axes.axvline(time, color=_GREY, lw=0.8, ls=(0, (2, 2)))
        axes.text(
            time,
            high + 0.02 * (high - low),
            letter,
            size=9,
            ha='center',
            va='bottom',
            weight='bold',
        )
    axes.set_ylabel(curves.label, size=9)
    axes.set_xlabel('seconds', size=9, labelpad=1)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25)
    if len(curves.lines) > 1:
        axes.legend(fontsize=8, loc='best', framealpha=0.9)
