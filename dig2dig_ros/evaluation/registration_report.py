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
from dig2dig_ros.images.geometry import Array, size_of
from dig2dig_ros.images.luma import grey
from dig2dig_ros.images.placement import Placement
from dig2dig_ros.images.video import to_bgr
from dig2dig_ros.streams.preparation import registered_image

Image = NDArray[np.uint8]

# The width of a picture; large, so that small errors show.
_WIDTH = 960
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
class OverlayPair:
    """
    A pair to show in the overlay, with the points that belong to it.

    :param visible_points: (N, 2) pixels of the visible image.
    :param mapped_points: (N, 2) the same points of the thermal image, as registered.
    """

    pair: LoadedPair
    visible_points: Array | None = None
    mapped_points: Array | None = None


def overlay(rows: Sequence[OverlayPair], placement: Placement) -> Image:
    """
    Return a picture of pairs before and after a registration, one row each.

    Edges of the thermal image are drawn on the visible one. Before is what the fusion does without
    a registration: the thermal image is stretched over the visible one.
    """
    legend = (
        'Orange: edges of the thermal image; they should lie on the edges of the visible image. '
        'Blue: how far the thermal image reaches. Left: before, right: after registration.'
    )
    strips = [_caption(legend)]
    for row in rows:
        tiles = [_tile(row, None), _tile(row, placement)]
        strips += [_caption(row.pair.name), np.hstack(tiles)]
    return np.vstack(strips)


def _tile(row: OverlayPair, placement: Placement | None) -> Image:
    visible = displayed(row.pair.visible)
    size = size_of(visible)
    coverage = np.ones(visible.shape, np.float32) if placement is None else placement.coverage
    thermal = displayed(registered_image(row.pair.thermal, placement, size), coverage)
    scale = _WIDTH / size[0]
    tile_size = (_WIDTH, max(1, round(size[1] * scale)))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    # The thermal image as float32, as steps would become edges.
    layers = (visible, thermal.astype(np.float32), coverage)
    visible, thermal, coverage = (cv2.resize(x, tile_size, interpolation=method) for x in layers)
    tile = edge_picture(visible, thermal, coverage, _WIDTH / row.pair.thermal.shape[1])
    if placement is not None and row.visible_points is not None and row.mapped_points is not None:
        _draw_points(tile, row.visible_points, row.mapped_points, scale)
    return np.pad(tile, ((0, _GAP), (0, _GAP), (0, 0)), constant_values=_PAPER)


def _caption(text: str) -> Image:
    strip = np.full((_CAPTION, 2 * (_WIDTH + _GAP), 3), _PAPER, np.uint8)
    # OpenCV's fonts know ASCII only.
    ascii_text = text.encode('ascii', errors='replace').decode()
    cv2.putText(strip, ascii_text, (8, 18), _FONT, 0.5, _INK, 1, cv2.LINE_AA)
    return strip


def displayed(image: NDArray[Any], coverage: NDArray[np.float32] | None = None) -> Image:
    """Return an image as 8-bit grey, dark scenes lifted; the range is that of what is covered."""
    values = grey(image)
    shown = values if coverage is None else values[coverage > 0.01]
    low, high = np.percentile(shown, (1.0, 99.5))
    unit = np.clip((values.astype(np.float32) - low) / max(float(high - low), 1e-3), 0.0, 1.0)
    return np.asarray(np.rint(np.sqrt(unit) * 255), np.uint8)


def edge_picture(
    visible: Image, thermal: NDArray[np.float32], coverage: NDArray[np.float32], zoom: float = 1.0
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
        place=html.escape(place), style=style, data=content, script=script, script_digest=digest
    )


def _data_url(image: NDArray[Any]) -> str:
    if image.ndim == 2 or image.dtype != np.uint8:
        image = displayed(image)
    data = base64.b64encode(jpeg(image, longest_side=1920, quality=90)).decode()
    return f'data:image/jpeg;base64,{data}'
