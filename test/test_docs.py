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

"""Links and pictures of the documents are there, and every picture can be made again."""

import ast
from functools import lru_cache
from pathlib import Path
import re
import runpy
import subprocess
import sys

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    [*CHECKOUT.glob('*.md'), *(CHECKOUT / 'docs').glob('*.md'), *CHECKOUT.glob('.github/*.md')]
)
PICTURES = {path.name for path in (CHECKOUT / 'docs' / 'images').glob('*')}

pytestmark = pytest.mark.skipif(not PICTURES, reason='needs the checkout')


@lru_cache
def text_of(page):
    """Return a page without its code."""
    return re.sub(r'```.*?```|`[^`\n]*`', '', page.read_text(encoding='utf-8'), flags=re.DOTALL)


def links_of(page):
    """Return the targets of links and pictures that are not on the web."""
    targets = re.findall(r'\]\(([^)\s]+)\)', text_of(page))
    return [target for target in targets if not re.match(r'[a-z]+:', target)]


@lru_cache
def anchors_of(page):
    """Return what GitHub lets a link point to: the headings in lower case, with hyphens."""
    text = re.sub(r'```.*?```', '', page.read_text(encoding='utf-8'), flags=re.DOTALL)
    titles = re.findall(r'^#+ +(.+?) *$', text, flags=re.MULTILINE)
    return {re.sub(r'[^\w\- ]', '', title.lower()).replace(' ', '-') for title in titles}


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for link in links_of(page):
        name, _, anchor = link.partition('#')
        target = (page.parent / name).resolve() if name else page
        # Of a pull request, links are relative to its address.
        if '/blob/main/' in link:
            target = CHECKOUT / link.split('/blob/main/')[1]
        assert target.is_relative_to(CHECKOUT), link
        assert target.exists(), link
        if anchor:
            assert anchor in anchors_of(target), link


def definitions(path):
    """Return the functions and classes of a module, methods as Class.method."""
    names = set()
    for node in ast.parse(path.read_text(encoding='utf-8')).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
            names.update(
                f'{node.name}.{each.name}'
                for each in ast.iter_child_nodes(node)
                if isinstance(each, ast.FunctionDef)
            )
    return names


def test_the_architecture_names_what_is_there():
    package = CHECKOUT / 'dig2dig_ros'
    text = (CHECKOUT / 'docs' / 'architecture.md').read_text(encoding='utf-8')
    for name in re.findall(r'`([a-z_]+/[a-z_/]+\.(?:py|md))`', text):
        assert (package / name).is_file() or (CHECKOUT / name).is_file(), name
    # Rows of the tables of steps: what is done, in which file, by which function.
    steps = re.findall(
        r'^\| [^|]+ \| (`[^|]+\.py`) \| (`[A-Z][^|]+`|`[a-z_]+`) \|$', text, re.MULTILINE
    )
    assert len(steps) > 20
    for files, names in steps:
        there = set()
        for file in re.findall(r'`(.+?)`', files):
            there |= definitions(package / file)
        assert there >= set(re.findall(r'`(.+?)`', names)), (files, names)


def test_the_reference_has_every_public_name():
    import dig2dig_ros

    text = (CHECKOUT / 'docs' / 'reference.md').read_text(encoding='utf-8')
    sections = dict(re.findall(r'^## (\w+)\n\n\[([\w/.]+)\]', text, re.MULTILINE))
    for name, file in sections.items():
        assert name in definitions(CHECKOUT / file), (name, file)
    assert set(sections) >= set(dig2dig_ros.__all__) - {'__version__'}


def test_every_picture_is_shown():
    shown = {Path(link).name for page in PAGES for link in links_of(page)}
    assert shown >= PICTURES


def test_every_picture_has_a_text():
    for page in PAGES:
        assert '![](' not in text_of(page), page


def test_every_picture_is_made_by_a_command():
    listed = subprocess.run(
        [sys.executable, str(CHECKOUT / 'scripts' / 'pictures.py'), '--list'],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout.splitlines()
    commands = dict(line.split(maxsplit=1) for line in listed)
    assert set(commands) == PICTURES
    told = (CHECKOUT / 'CONTRIBUTING.md').read_text(encoding='utf-8')
    for name, command in commands.items():
        assert f'`{name}`' in told or f'`{name.split("_")[0]}_*{Path(name).suffix}`' in told
        assert command.split(',')[0].split(' night')[0] in told


@pytest.mark.slow
def test_the_street_of_the_report_is_a_bag(tmp_path):
    pytest.importorskip('rosbags')
    from dig2dig_ros.evaluation.bag_reader import BagReader

    record = runpy.run_path(str(CHECKOUT / 'scripts' / 'pictures.py'))['record_street']
    record(tmp_path / 'street', 64, 48)
    with BagReader(tmp_path / 'street') as bag:
        counts = {name: topic.count for name, topic in bag.topics.items()}
    assert counts == {'/camera/image_raw': 31, '/thermal/image_raw': 11}


def test_the_site_is_built_without_a_warning(tmp_path):
    for module in ('latex2mathml', 'material', 'mkdocs', 'mkdocstrings_handlers.python'):
        pytest.importorskip(module, reason="comes with pip install '.[docs]'")
    built = subprocess.run(
        [sys.executable, '-m', 'mkdocs', 'build', '--strict', '--site-dir', str(tmp_path)],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert built.returncode == 0, built.stderr
    pages = {path.stem: path.read_text(encoding='utf-8') for path in tmp_path.glob('*.html')}
    assert {'index', 'usage', 'cameras', 'evaluation', 'method', 'contributing'} <= set(pages)
    assert '<math' in pages['method']
    assert 'formula0mark' not in pages['method']
    # Each section of the reference has what its docstring says.
    for part in ('id="dig2dig_ros.fusion.fuser.Fuser.fuse"', 'PriorError', 'sqrt(alpha_bar_t)'):
        assert part in pages['reference']
    assert ':func:' not in pages['reference']
    assert pages['index'].count('<li>\n<p><strong><a') == 5  # cards
    for name, page in pages.items():
        fetched = re.findall(r'<(?:script|link|img)[^>]*(?:src|href)="?(https?://[^"> ]+)', page)
        assert not fetched, name
