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
The report on an evaluation: one HTML file that opens from disk.

The page contains everything except the video, which is next to it: pictures, plots, style and
script; its content security policy keeps it from loading anything else. Except for the
before/after slider, the tooltips on touch screens and the sorting of tables, it is static HTML,
and without scripts the pictures of a frame are shown side by side.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
import hashlib
import html
from importlib.resources import files
import math
import os
from pathlib import Path
from string import Template
from urllib.parse import quote

from dig2dig_ros.evaluation.gallery import GalleryFrame
from dig2dig_ros.evaluation.glossary import explanation
from dig2dig_ros.evaluation.tables import Table
from dig2dig_ros.images.overlay import source_colours

# Further warnings are folded away, so that the pictures stay near the top.
_WARNINGS_SHOWN = 5
# Characters of a fact that fit on one line in large type.
_LONG = 14


@dataclass(frozen=True)
class Report:
    """
    The content of the page, in its order.

    All texts are plain, and may contain any characters.

    :param title: what was evaluated.
    :param verdict: the result, in a sentence.
    :param subtitle: a line below it: with what, on what, when.
    :param summary: (name, value) of the most important facts, the most important first.
    :param warnings: sentences on what was left out or looked wrong.
    :param frames: for the before/after slider.
    :param tables: of results.
    :param video: path relative to the page, of a format that browsers play; empty without.
    :param plots: (title, SVG as :mod:`~dig2dig_ros.evaluation.plots` draws it).
    :param files: (what it is, path relative to the page).
    :param settings: (name, value) of everything needed to repeat the run.
    :param ranking: the metric by which frames are best or worst, such as 'Qabf'; may be empty.
    :param sources: names of what was fused, for the legend of the contributions; empty without.
    """

    title: str
    verdict: str = ''
    subtitle: str = ''
    summary: tuple[tuple[str, str], ...] = ()
    warnings: tuple[str, ...] = ()
    frames: tuple[GalleryFrame, ...] = ()
    tables: tuple[Table, ...] = ()
    video: str = ''
    plots: tuple[tuple[str, str], ...] = ()
    files: tuple[tuple[str, str], ...] = ()
    settings: tuple[tuple[str, str], ...] = ()
    ranking: str = ''
    sources: tuple[str, ...] = ()


def render(report: Report) -> str:
    """Return the page as HTML."""
    style, script, page = map(_resource, ('page.css', 'page.js', 'page.html'))
    sections = [
        ('frames', 'Frames', _frames(report)),
        ('video', 'Video', _video(report.video)),
        ('plots', 'Plots', ''.join(_plot(title, svg) for title, svg in report.plots)),
        ('tables', 'Tables', ''.join(map(_table, report.tables))),
        ('files', 'Files', _files(report.files)),
        ('settings', 'Settings', _settings(report.settings)),
    ]
    present = [(name, title, body) for name, title, body in sections if body]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return Template(page).substitute(
        title=_text(report.title),
        subtitle=_tag('p', report.subtitle, 'subtitle') if report.subtitle else '',
        links=''.join(f'<a href="#{name}">{title}</a>' for name, title, _ in present),
        verdict=_tag('p', report.verdict, 'verdict') if report.verdict else '',
        summary=_summary(report.summary),
        warnings=_warnings(report.warnings),
        sections='\n'.join(
            f'<section id="{name}" aria-labelledby="{name}-title">\n'
            f'<h2 id="{name}-title">{title}</h2>\n{body}\n</section>'
            for name, title, body in present
        ),
        style=style,
        script=script,
        script_digest=digest,
    )


def write_report(path: Path, report: Report) -> None:
    """
    Write the page atomically: a reader sees either the old page or the new one.

    :raises OSError: it cannot be written; an old page is unchanged.
    """
    # File names may be invalid text; those characters become question marks.
    page = render(report).encode('utf-8', errors='replace')
    temporary = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
    try:
        temporary.write_bytes(page)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _resource(name: str) -> str:
    resource = files('dig2dig_ros.evaluation') / 'report_page' / name
    return resource.read_text(encoding='utf-8')


def _text(text: str) -> str:
    return html.escape(text, quote=True)


def _tag(name: str, text: str, style: str = '') -> str:
    start = f'<{name} class="{style}">' if style else f'<{name}>'
    return f'{start}{_text(text)}</{name}>'


def _term(text: str) -> str:
    """Return a heading, with a tooltip if the glossary has it."""
    about = explanation(text)
    return f'<abbr title="{_text(about)}">{_text(text)}</abbr>' if about else _text(text)


def _definitions(pairs: Iterable[tuple[str, str]], style: str) -> str:
    rows = ''.join(
        f'<div><dt>{_term(name)}</dt>{_tag("dd", value)}</div>\n' for name, value in pairs
    )
    return f'<dl class="{style}">\n{rows}</dl>'


def _summary(summary: Sequence[tuple[str, str]]) -> str:
    if not summary:
        return ''
    cards = (
        f'<div><dt>{_term(name)}</dt>'
        f'{_tag("dd", value, "long" if len(value) > _LONG else "")}</div>\n'
        for name, value in summary
    )
    return f'<dl class="cards">\n{"".join(cards)}</dl>'


def _warnings(warnings: Sequence[str]) -> str:
    if not warnings:
        return ''

    def items(texts: Sequence[str]) -> str:
        return f'<ul>{"".join(_tag("li", text) for text in texts)}</ul>'

    shown, folded = warnings[:_WARNINGS_SHOWN], warnings[_WARNINGS_SHOWN:]
    rest = f'<details><summary>{len(folded)} more</summary>{items(folded)}</details>'
    title = '1 warning' if len(warnings) == 1 else f'{len(warnings)} warnings'
    return (
        '<section class="warnings" aria-labelledby="warnings-title">\n'
        f'<h2 id="warnings-title">{title}</h2>\n{items(shown)}{rest if folded else ""}\n'
        '</section>'
    )


def _frames(report: Report) -> str:
    if not report.frames:
        return ''
    ranking = f'Best and worst by {report.ranking}.' if report.ranking else ''
    return (
        f'{_tag("p", ranking, "note") if ranking else ""}\n'
        f'{_legend(report.sources)}\n'
        '<div id="comparer"></div>\n'
        f'<ol class="frames" id="frame-list">\n{"".join(map(_frame, report.frames))}</ol>'
    )


def _legend(sources: Sequence[str]) -> str:
    """Return the key to the colours of :func:`contribution_overlay`."""
    if not sources:
        return ''
    colours = [
        f'rgb({red:.0f} {green:.0f} {blue:.0f})'
        for blue, green, red in source_colours(len(sources))
    ]
    if len(sources) == 2:
        # By way of grey: where both contribute alike, the overlay has no colour.
        gradient = f'linear-gradient(90deg, {colours[0]}, #969696, {colours[1]})'
        names = [_text(name) for name in sources]
        key = f'{names[0]} <i class="bar" style="background: {gradient}"></i> {names[1]}'
    else:
        key = ' '.join(
            f'<i style="background: {colour}"></i> {_text(name)}'
            for name, colour in zip(sources, colours, strict=True)
        )
    return f'<p class="note legend">Contributions, by the camera they came from: {key}</p>'


def _frame(frame: GalleryFrame) -> str:
    pictures = ''.join(
        f'<figure><img alt="{_text(name)}" decoding="async" src="data:image/jpeg;base64,'
        f'{base64.b64encode(data).decode()}">{_tag("figcaption", name)}</figure>\n'
        for name, data in frame.pictures.items()
    )
    score = '' if math.isnan(frame.score) else f'{frame.score:#.4g}'.rstrip('.')
    labels = ', '.join(_tag('span', label, 'label') for label in frame.labels)
    return (
        f'<li data-index="{frame.index}" data-score="{score}">\n'
        f'{_tag("h3", frame.name)}\n<p class="labels">{labels}</p>\n'
        f'<div class="pictures">\n{pictures}</div>\n'
        f'{_definitions(frame.facts.items(), "facts")}\n</li>\n'
    )


def _video(path: str) -> str:
    if not path:
        return ''
    address = _address(path)
    return (
        f'<video controls preload="metadata" src="{address}"><a href="{address}">Video</a></video>'
    )


def _plot(title: str, svg: str) -> str:
    return (
        f'<figure class="plot"><figcaption>{_term(title)}</figcaption>\n'
        f'<div class="drawing">{svg}</div>\n</figure>\n'
    )


def _table(table: Table) -> str:
    header = ''.join(f'<th scope="col">{_term(cell)}</th>' for cell in table.header)
    rows = ''.join(
        f'<tr><th scope="row">{_term(row[0])}</th>'
        f'{"".join(_tag("td", cell) for cell in row[1:])}</tr>\n'
        for row in table.rows
    )
    title = _tag('h3', table.title) if table.title else ''
    name = _text(table.title or 'Table')
    notes = ''.join(_tag('p', note, 'note') for note in table.notes)
    return (
        f'<div class="table">{title}\n'
        f'<div class="box" tabindex="0" role="region" aria-label="{name}">\n'
        f'<table><thead><tr>{header}</tr></thead>\n<tbody>\n{rows}</tbody></table></div>\n'
        f'{notes}</div>\n'
    )


def _address(path: str) -> str:
    """Return the address of a file next to the page."""
    # The leading dot keeps a name such as "javascript:x" a name.
    return './' + quote(path, errors='surrogateescape')


def _files(entries: Sequence[tuple[str, str]]) -> str:
    def row(what: str, path: str) -> str:
        return (
            f'<div>{_tag("dt", what)}<dd><a href="{_address(path)}">{_text(path)}</a></dd></div>\n'
        )

    rows = ''.join(row(what, path) for what, path in entries)
    return f'<dl class="files">\n{rows}</dl>' if rows else ''


def _settings(settings: Sequence[tuple[str, str]]) -> str:
    if not settings:
        return ''
    return (
        f'<details><summary>All {len(settings)} settings of this run</summary>\n'
        f'{_definitions(settings, "settings")}\n</details>'
    )
