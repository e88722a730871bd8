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
Hooks for mkdocs: the pages read the same in the repository and on the site.

Links are written for the repository. Files outside docs/ that a page links to are added: the
README and the like as pages, source files unchanged. Formulas become MathML, which browsers draw
without a script. Each section of the Python reference gets its docstring. Nothing on the site is
fetched from elsewhere.
"""

from __future__ import annotations

import os.path
from pathlib import Path
import re
from typing import Any

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

CHECKOUT = Path(__file__).resolve().parents[1]

# Files of the checkout that are pages of the site.
PAGES = {
    'README.md': 'usage.md',
    'CONTRIBUTING.md': 'contributing.md',
    'QUALITY_DECLARATION.md': 'quality_declaration.md',
    'SECURITY.md': 'reporting.md',
    'CHANGELOG.rst': 'changelog.md',
}
_CODE = re.compile(r'(```.*?```|`[^`\n]*`)', re.DOTALL)
_FORMULA = re.compile(r'\$\$(.+?)\$\$|\$([^$\n]+(?:\n[^$\n]+)?)\$', re.DOTALL)
# A section of the page that names what is public, and the file with its docstring.
_REFERENCE = 'reference.md'
_SECTION = re.compile(r'^## (\w+)\n\n\[[^]]*\]\([./]*(dig2dig_ros/[\w/]+)\.py\)$', re.MULTILINE)
_ROLE = re.compile(r':\w+:<code>~?(?:[\w.]+\.)?(\w+)</code>')
_LINK = re.compile(r'(\]\()([^)#\s:]+)((?:#[^)\s]*)?\))')

_formulas: dict[str, list[str]] = {}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages and files outside of docs/."""
    for name, uri in PAGES.items():
        files.append(File.generated(config, uri, content=_page_text(CHECKOUT / name)))
    # Pages that come along may link to more.
    waiting = [file for file in files if file.is_documentation_page()]
    while waiting:
        page = waiting.pop()
        for _, target, _ in _LINK.findall(_CODE.sub('', page.content_string)):
            path = _in_checkout(page.src_uri, target)
            uri = _uri(path)
            if uri in files.src_uris or not (CHECKOUT / path).is_file():
                continue
            file = File.generated(config, uri, abs_src_path=str(CHECKOUT / path))
            files.append(file)
            if file.is_documentation_page():
                waiting.append(file)
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Point links at the files of the site, and put marks where formulas go."""
    uri = page.file.src_uri
    formulas = _formulas[uri] = []

    def link(match: re.Match[str]) -> str:
        target = _uri(_in_checkout(uri, match[2]))
        return match[1] + os.path.relpath(target, os.path.dirname(uri)) + match[3]

    def mark(match: re.Match[str]) -> str:
        kind = 'block' if match[1] else 'inline'
        formula = convert((match[1] or match[2]).strip(), display=kind)
        # Browsers do not know this attribute, but the letter.
        formulas.append(formula.replace('<mi mathvariant="script">N</mi>', '<mi>𝒩</mi>'))
        # Markdown would take a formula's own signs for its own.
        return f'formula{len(formulas) - 1}mark'

    if uri == _REFERENCE:
        markdown = _SECTION.sub(_with_docstring, markdown)
    parts = _CODE.split(markdown)
    parts[::2] = [_FORMULA.sub(mark, _LINK.sub(link, part)) for part in parts[::2]]
    return ''.join(parts)


def on_page_content(html: str, page: Page, **_: Any) -> str:
    """Replace the marks by the formulas, and Sphinx's roles in docstrings by the names."""
    formulas = _formulas[page.file.src_uri]
    html = _ROLE.sub(r'<code>\1</code>', html)
    return re.sub(r'formula(\d+)mark', lambda match: formulas[int(match[1])], html)


def _with_docstring(section: re.Match[str]) -> str:
    """Add what mkdocstrings replaces by the docstring."""
    module = section[2].replace('/', '.').removesuffix('.__init__')
    return f'{section[0]}\n\n::: {module}.{section[1]}'


def _in_checkout(uri: str, target: str) -> str:
    """Return the path in the checkout that a link means on the page with this URI."""
    origin = next((name for name, page in PAGES.items() if page == uri), None)
    if origin is None:
        origin = uri.removeprefix('source/') if uri.startswith('source/') else f'docs/{uri}'
    return os.path.normpath(os.path.join(os.path.dirname(origin), target))


def _uri(path: str) -> str:
    """Return where a file of the checkout lies on the site."""
    return PAGES.get(path) or (path[5:] if path.startswith('docs/') else f'source/{path}')


def _page_text(path: Path) -> str:
    """Return a page as Markdown; of reStructuredText, what a changelog has."""
    text = path.read_text(encoding='utf-8')
    if path.suffix != '.rst':
        return text
    text = re.sub(r'^\^+\n(.+)\n\^+$', r'# \1', text, flags=re.MULTILINE)
    text = re.sub(r'^(.+)\n-+$', r'## \1', text, flags=re.MULTILINE)
    return re.sub(r'`([^`<]+) <([^`>]+)>`_', r'[\1](\2)', text)
