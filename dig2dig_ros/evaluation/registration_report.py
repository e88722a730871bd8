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
Pictures to judge a registration by, and a page to make one in.

The overlay shows both cameras in one picture, before and after; the click page is one HTML file
in which the same points are marked in both images.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
import hashlib
import html
from importlib.resources import files
import json
from string import Template
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dig2dig_ros.evaluation.gallery import jpeg
from dig2dig_ros.evaluation.registration_pairs import LoadedPair
from dig2dig_ros.evaluation.video import to_bgr
from dig2dig_ros.images.geometry import Array, size_of
from dig2dig_ros.images.luma import grey
from dig2dig_ros.images.placement import Placement
from dig2dig_ros.streams.preparation import registered_image

Image = NDArray[np.uint8]

_TILE = 400
# The detail is this part of the image in either direction.
_DETAIL = 4
_GAP = 6
_CAPTION = 26
_PAPER = 245
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_INK = (40, 40, 40)
# Blue-green-red.
_EDGE_COLOUR = (0, 150, 255)
_RIM_COLOUR = (255, 200, 0)
_POINT_COLOUR = (90, 230, 60)
# Gradients of a thermal image above these percentiles continue an edge, and begin one.
_EDGE_PERCENTILES = (88.0, 95.0)


@dataclass(frozen=True)
class Row:
    """
    A pair to show in the overlay, with the points that belong to it.

    :param visible_points: (N, 2) pixels of the visible image.
    :param mapped_points: (N, 2) the same points of the thermal image, as registered.
    """

    pair: LoadedPair
    visible_points: Array | None = None
    mapped_points: Array | None = None


def overlay(rows: Sequence[Row], placement: Placement) -> Image:
    """
    Return a picture of pairs before and after a registration, one row each.

    Before is what the fusion does without a registration: the thermal image is stretched over the
    visible one. Edges of the thermal image are drawn on the visible one, as a whole and as a
    detail; and both images are blended, visible as cyan and thermal as red, which make grey where
    they agree.
    """
    return np.vstack([_legend(), *(_row(row, placement) for row in rows)])


def _row(row: Row, placement: Placement) -> Image:
    visible = displayed(row.pair.visible)
    size = size_of(visible)
    width = size[0]
    views = []
    everywhere = np.ones_like(placement.coverage)
    for place, coverage in ((None, everywhere), (placement, placement.coverage)):
        thermal = registered_image(row.pair.thermal, place, size)
        views.append((displayed(thermal, coverage), coverage))
    detail = rows_shown, columns = _detail(visible, *views[1])
    corners = np.array([[columns.start, rows_shown.start], [columns.stop, rows_shown.stop]])
    scale = _TILE / width
    # Tile pixels for each thermal one, about.
    zoom = _TILE / row.pair.thermal.shape[1]
    edges, details, colours = [], [], []
    for thermal, coverage in views:
        whole = _scaled(visible, thermal, coverage)
        edges.append(edge_picture(*whole, zoom))
        colours.append(_colour_tile(*whole))
        part = _scaled(visible[detail], thermal[detail], coverage[detail])
        details.append(edge_picture(*part, zoom * width / (columns.stop - columns.start)))
    for tile in edges:
        (left, top), (right, bottom) = np.rint(corners * scale).astype(int).tolist()
        cv2.rectangle(tile, (left, top), (right - 1, bottom - 1), (255, 255, 255), 1)
    if row.visible_points is not None and row.mapped_points is not None:
        _draw_points(edges[1], row.visible_points, row.mapped_points, scale)
    blocks = []
    for tiles, what in ((edges, 'edges'), (details, 'detail'), (colours, 'colours')):
        # Details of the same shape need not round to the same height.
        for tile, when in zip(tiles, ('before', 'after'), strict=True):
            _label(tile, f'{when}: {what}')
            lacking = max(edges[0].shape[0] - tile.shape[0], 0)
            tile = tile[: edges[0].shape[0]]
            border = ((0, lacking + _GAP), (0, _GAP), (0, 0))
            blocks.append(np.pad(tile, border, constant_values=_PAPER))
    strip = np.hstack(blocks)
    return np.vstack([_caption(row.pair.name, strip.shape[1]), strip])


def _scaled(visible: Image, thermal: Image, coverage: NDArray[np.float32]) -> tuple[Any, Any, Any]:
    """Return them as wide as a tile, the thermal image as float32: steps would become edges."""
    height, width = visible.shape
    size = (_TILE, max(1, round(height * _TILE / width)))
    method = cv2.INTER_AREA if width > _TILE else cv2.INTER_LINEAR
    layers = (visible, thermal.astype(np.float32), coverage)
    visible, thermal, coverage = (cv2.resize(a, size, interpolation=method) for a in layers)
    return visible, thermal, coverage


def _detail(visible: Image, thermal: Image, coverage: NDArray[np.float32]) -> tuple[slice, slice]:
    """Return the part of the image in which both cameras show most edges."""
    height, width = visible.shape
    size = (max(8, width // _DETAIL), max(8, height // _DETAIL))
    both = [np.minimum(_gradient(image), 100.0) for image in (visible, thermal)]
    # Thermal edges that are not exactly on visible ones count, too.
    reach = (2 * (width // 100) + 3,) * 2
    product = both[0] * cv2.blur(both[1], reach) * (coverage > 0.99)
    sums = cv2.boxFilter(
        product, cv2.CV_32F, size, normalize=False, borderType=cv2.BORDER_CONSTANT
    )
    top, left = (
        int(np.clip(middle - side // 2, 0, whole - side))
        for middle, side, whole in zip(
            np.unravel_index(int(sums.argmax()), sums.shape), size[::-1], sums.shape, strict=True
        )
    )
    return slice(top, top + size[1]), slice(left, left + size[0])


def _gradient(image: Image) -> NDArray[np.float32]:
    smooth = cv2.GaussianBlur(image, (0, 0), 1.2)
    gx, gy = (cv2.Sobel(smooth, cv2.CV_32F, *axis) for axis in ((1, 0), (0, 1)))
    return np.asarray(cv2.magnitude(gx, gy), np.float32)


def _legend() -> Image:
    return _caption(
        'Orange: edges of the thermal image; they should lie on the edges of the visible image. '
        'Blue: how far the thermal image reaches. White: the detail. Colours: visible is cyan, '
        'thermal is red; what both show alike is grey.',
        6 * (_TILE + _GAP),
    )


def _caption(text: str, width: int) -> Image:
    strip = np.full((_CAPTION, width, 3), _PAPER, np.uint8)
    # OpenCV's fonts know ASCII only.
    ascii_text = text.encode('ascii', errors='replace').decode()
    cv2.putText(strip, ascii_text, (8, 18), _FONT, 0.5, _INK, 1, cv2.LINE_AA)
    return strip


def _label(tile: Image, text: str) -> None:
    (width, height), _ = cv2.getTextSize(text, _FONT, 0.5, 1)
    cv2.rectangle(tile, (0, 0), (width + 12, height + 12), (20, 20, 20), -1)
    cv2.putText(tile, text, (6, height + 5), _FONT, 0.5, (255, 255, 255), 1, cv2.LINE_AA)


def displayed(image: NDArray[Any], coverage: NDArray[np.float32] | None = None) -> Image:
    """Return an image as 8-bit grey, dark scenes lifted; the range is that of what is covered."""
    values = grey(image)
    shown = values if coverage is None else values[coverage > 0.01]
    low, high = np.percentile(shown, (1.0, 99.5))
    unit = np.clip((values.astype(np.float32) - low) / max(float(high - low), 1e-3), 0.0, 1.0)
    return np.asarray(np.rint(np.sqrt(unit) * 255), np.uint8)


def edge_picture(
    visible: Image,
    thermal: NDArray[np.float32],
    coverage: NDArray[np.float32],
    zoom: float = 1.0,
) -> Image:
    """
    Draw the edges of a thermal image, and how far it reaches, on a visible one.

    :param visible: (H, W).
    :param thermal: (H, W), on a scale of 0 to 255.
    :param coverage: (H, W) in [0, 1], 1 where the thermal image reaches.
    :param zoom: by how much the thermal image was enlarged, which makes edges wide and weak.
    :return: (H, W, 3) blue-green-red.
    """
    # Darker than it is, so that the lines stand out.
    picture = to_bgr((visible * 0.75).astype(np.uint8))
    picture[_thermal_edges(thermal, coverage, zoom)] = _EDGE_COLOUR
    if not (coverage > 0.99).all():
        rim = (coverage > 0.01).astype(np.uint8)
        outlines, _ = cv2.findContours(rim, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        cv2.drawContours(picture, outlines, -1, _RIM_COLOUR, 1)
    return picture


def _thermal_edges(
    thermal: NDArray[np.float32], coverage: NDArray[np.float32], zoom: float
) -> NDArray[np.bool_]:
    """Return where a thermal image has edges; its border is none."""
    wide = max(1.0, zoom)
    smooth = cv2.GaussianBlur(thermal, (0, 0), 1.2 * wide) * np.float32(wide)
    gx, gy = (
        np.rint(cv2.Sobel(smooth, cv2.CV_32F, *axis).clip(-2e4, 2e4)).astype(np.int16)
        for axis in ((1, 0), (0, 1))
    )
    inside = cv2.erode((coverage > 0.99).astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
    strength = np.abs(gx.astype(np.int32)) + np.abs(gy.astype(np.int32))
    low, high = np.percentile(strength[inside], _EDGE_PERCENTILES) if inside.any() else (0, 0)
    edges = cv2.Canny(gx, gy, max(low, 20.0), max(high, 40.0)) > 0
    return np.asarray(edges & inside)


def _colour_tile(
    visible: Image, thermal: NDArray[np.float32], coverage: NDArray[np.float32]
) -> Image:
    # As bright as each other, or one colour would drown the other.
    cyan, red = (cv2.equalizeHist(image.astype(np.uint8)) for image in (visible, thermal))
    mixed = np.rint(red * coverage + cyan * (1 - coverage)).astype(np.uint8)
    return np.ascontiguousarray(np.dstack([cyan, cyan, mixed]))


def _draw_points(tile: Image, visible: Array, mapped: Array, scale: float) -> None:
    for first, second in zip(visible, mapped, strict=True):
        if not (np.isfinite(first).all() and np.isfinite(second).all()):
            continue
        # With four bits behind the point.
        ends = [tuple(round(((c + 0.5) * scale - 0.5) * 16) for c in p) for p in (first, second)]
        cv2.line(tile, ends[0], ends[1], _EDGE_COLOUR, 1, cv2.LINE_AA, 4)
        cv2.circle(tile, ends[0], 3 * 16, _POINT_COLOUR, 1, cv2.LINE_AA, 4)


def click_page(pairs: Sequence[LoadedPair], place: str) -> str:
    """
    Return an HTML page in which the same points are marked in both images of pairs.

    It holds all it needs, loads nothing, and gives the text of a file for ``--points``.

    :param place: what the pairs are of, in words.
    """
    folder = files('dig2dig_ros.evaluation') / 'click_page'
    style, script, page = (
        (folder / f'page.{kind}').read_text(encoding='utf-8') for kind in ('css', 'js', 'html')
    )
    data = [
        {'name': pair.name, 'images': [_data_url(pair.visible), _data_url(pair.thermal)]}
        for pair in pairs
    ]
    sizes = [size_of(pairs[0].visible), size_of(pairs[0].thermal)]
    # What ends a script element must not appear within it.
    content = json.dumps({'place': place, 'sizes': sizes, 'pairs': data}).replace('<', '\\u003c')
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return Template(page).substitute(
        place=html.escape(place),
        style=style,
        data=content,
        script=script,
        script_digest=digest,
    )


def _data_url(image: NDArray[Any]) -> str:
    if image.ndim == 2 or image.dtype != np.uint8:
        image = displayed(image)
    data = base64.b64encode(jpeg(image, longest_side=1920, quality=90)).decode()
    return f'data:image/jpeg;base64,{data}'
