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

"""The result of an evaluation, in the one sentence at the top of its page."""

from __future__ import annotations

from collections.abc import Mapping

from dig2dig_ros.evaluation.comparison import FEWEST_PAIRS
from dig2dig_ros.evaluation.detection_study import DetectionStudy


def verdict(
    pairs: int,
    edges_kept: Mapping[str, Mapping[str, float]],
    detection: DetectionStudy | None = None,
    not_fused: str = '',
    warnings: int = 0,
) -> str:
    """
    Say which images the detector did best on, or what the fused image keeps, and any problems.

    :param pairs: that were fused.
    :param edges_kept: fraction of each source's edges that an image preserves, 0 to 1, by image
        and source; empty if nothing was scored.
    :param detection: the detections; None without a detector.
    :param not_fused: what was left out, by cause; empty if nothing was.
    :param warnings: how many the page shows.
    """
    clauses = []
    if detection is not None and detection.frames:
        clauses.append(_detection(detection))
    elif edges_kept:
        clauses.append(_edges(edges_kept))
    fused = f'{pairs:,} pair{" was" if pairs == 1 else "s were"} fused'
    clauses.append(fused + (f' (left out: {not_fused})' if not_fused else ''))
    if warnings:
        look = 'warning needs' if warnings == 1 else 'warnings need'
        clauses.append(f'{warnings} {look} a look')
    else:
        clauses.append('nothing looked wrong')
    text = '; '.join(clauses)
    return f'{text[0].upper()}{text[1:]}.'


def _detection(detection: DetectionStudy) -> str:
    title, values = detection.ranking()
    best_value = next(iter(values.values()))
    best = ' and '.join(
        f'the {name} image' for name, value in values.items() if value == best_value
    )
    rest = ', '.join(f'{name} {value}' for name, value in values.items() if value != best_value)
    figures = f'{title}: {best_value}' + (f' against {rest}' if rest else '')
    if not rest and len(values) > 1:
        return f'the detector did as well on all images ({figures})'
    if not detection.persons:
        return (
            f'the detector found most persons in {best} ({figures}), but without labels it is '
            'unknown how many of them are real'
        )
    few = detection.labelled < FEWEST_PAIRS
    images = (
        'a single labelled image'
        if detection.labelled == 1
        else (f'only {detection.labelled} labelled images')
    )
    doubt = f', on {images}' if few else ''
    return f'the detector did best on {best} ({figures}){doubt}'


def _edges(edges_kept: Mapping[str, Mapping[str, float]]) -> str:
    ours, *others = edges_kept
    parts = ' and '.join(
        f'{100 * part:.0f} % of the {source} edges' for source, part in edges_kept[ours].items()
    )
    compared = ''.join(
        f' (the {name} image keeps {" and ".join(f"{100 * p:.0f} %" for p in kept.values())})'
        for name, kept in ((name, edges_kept[name]) for name in others)
    )
    return f'the {ours} image keeps {parts}{compared}'
