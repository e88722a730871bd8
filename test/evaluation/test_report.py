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

"""The report page: what is in the file, and how it behaves in a real browser."""

from collections.abc import Callable
import html
from html.parser import HTMLParser
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from dig2dig_ros.evaluation.gallery import BEST, GalleryFrame, jpeg, SPACED, WORST
from dig2dig_ros.evaluation.glossary import explanation
from dig2dig_ros.evaluation.report import render, Report, write_report
from dig2dig_ros.evaluation.tables import Table
from dig2dig_ros.images.video import FOR_BROWSERS, Video

OpenPage = Callable[..., Any]

# Blue-green-red; each picture of a frame has one colour, so that a screenshot tells which it is.
COLOURS = {
    'visible': (200, 60, 30),
    'thermal': (30, 40, 210),
    'fused': (40, 180, 60),
    'contributions': (40, 190, 220),
}
NASTY = '</script><script>alert("1")</script> & \'$title\' <img src=x onerror=alert(2)> <!--'


def picture(name: str) -> bytes:
    return jpeg(np.full((48, 64, 3), COLOURS[name], np.uint8))


def frame(index: int, score: float, *labels: str) -> GalleryFrame:
    pictures = {name: picture(name) for name in COLOURS}
    facts = {'Qabf': f'{score:.3f}', 'pair offset': '+4.1 ms'}
    return GalleryFrame(index, f'pair {index}', score, labels, pictures, facts)


def table(rows: int) -> Table:
    values = ['1,234', '-', '+0.01 [-0.02, 0.04]', '−5', '', '12 %', '9', '∞', '1e-3']
    return Table(
        'Rows',
        ('name', 'value', 'a column with a rather long name', 'and another one of the kind'),
        tuple((f'row {i}', values[i % len(values)], str(i), 'text') for i in range(rows)),
        ('A note.',),
    )


def report(**changes: Any) -> Report:
    contents: dict[str, Any] = {
        'title': 'night drive',
        'verdict': 'The fused image keeps most.',
        'subtitle': 'fused on the CPU',
        'summary': (('pairs fused', '2,000'), ('dropped', '3'), ('Qabf', '0.551')),
        'warnings': ('LPIPS is missing: no weights were given.',),
        'frames': (
            frame(0, 0.5, SPACED),
            frame(7, 0.9, BEST, SPACED),
            frame(12, 0.1, WORST),
            frame(20, math.nan, SPACED),
        ),
        'tables': (table(9), table(60)),
        'plots': (('Weights', '<svg viewBox="0 0 10 10"><text>a plot</text></svg>'),),
        'files': (('values of every pair', 'metrics.csv'), ('video', 'sub folder/video.mp4')),
        'settings': (('weights', 'dig'), ('seed', '0')),
        'ranking': 'Qabf',
        'sources': ('visible', 'thermal'),
    }
    return Report(**{**contents, **changes})


class Reader(HTMLParser):
    """Collects the tags, addresses and visible text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.attributes: list[str] = []
        self.text = ''
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]
        self.addresses += [value or '' for name, value in attrs if name in ('src', 'href')]

    def handle_data(self, data: str) -> None:
        if self.tags[-1:] not in (['script'], ['style']):
            self.text += data


def test_the_page_holds_what_the_report_says() -> None:
    text = Reader(render(report())).text
    parts = ['night drive', 'fused on the CPU', 'The fused image keeps most.']
    parts += ['2,000', '1 warning', 'LPIPS is missing']
    parts += [
        'Best and worst by Qabf.',
        'came from: visible  thermal',
        'pair 12',
        '+4.1 ms',
        'Weights',
        'a plot',
        'row 59',
    ]
    parts += ['A note.', 'metrics.csv', 'All 2 settings', 'seed']
    assert [part for part in parts if part not in text] == []
    # In the order of their importance.
    places = [
        text.index(part)
        for part in (
            *('keeps most', '2,000', '1 warning', 'pair 0'),
            *('a plot', 'row 0', 'metrics.csv', 'seed'),
        )
    ]
    assert places == sorted(places)


def test_texts_are_escaped_everywhere() -> None:
    pictures = {NASTY: picture('fused')}
    plain = Reader(render(report(frames=(), tables=())))
    nasty = Reader(
        render(
            Report(
                title=NASTY,
                verdict=NASTY,
                video=NASTY,
                subtitle=NASTY,
                summary=((NASTY, NASTY),),
                warnings=(NASTY,) * 7,
                frames=(GalleryFrame(0, NASTY, 0.5, (BEST,), pictures, {NASTY: NASTY}),),
                tables=(Table(NASTY, (NASTY, NASTY), ((NASTY, NASTY),), (NASTY,)),),
                plots=((NASTY, '<svg></svg>'),),
                files=((NASTY, NASTY),),
                settings=((NASTY, NASTY),),
                ranking=NASTY,
                sources=(NASTY, NASTY, NASTY),
            )
        )
    )
    assert nasty.tags.count('script') == plain.tags.count('script') == 1
    assert nasty.tags.count('img') == 1
    assert 'onerror' not in nasty.attributes
    # Twice the title and each setting, seven warnings, and so on: all of them, as they are.
    assert nasty.text.count(NASTY) == 32


def test_the_page_refers_to_nothing_but_itself_and_its_files() -> None:
    page = render(report())
    addresses = Reader(page).addresses
    assert addresses
    assert all(address.startswith(('data:', '#', './')) for address in addresses)
    assert 'http://' not in page
    assert 'https://' not in page
    assert "default-src 'none'" in page


@pytest.mark.parametrize(
    ('path', 'address'),
    [
        ('metrics.csv', './metrics.csv'),
        ('a b/ü?#.csv', './a%20b/%C3%BC%3F%23.csv'),
        ('javascript:alert(1)', './javascript%3Aalert%281%29'),
        ('//elsewhere.example/x', './//elsewhere.example/x'),
        ('not text \udcff', './not%20text%20%FF'),
    ],
)
def test_links_lead_to_files_of_any_name(path: str, address: str) -> None:
    assert address in Reader(render(report(files=(('a file', path),)))).addresses


def test_terms_of_the_glossary_are_explained() -> None:
    page = render(report(frames=(frame(0, 0.5, SPACED),)))
    assert f'<dt><abbr title="{html.escape(explanation("Qabf"))}">Qabf</abbr></dt>' in page
    assert '<dt>dropped</dt>' in page


def test_what_there_is_not_is_left_out() -> None:
    reader = Reader(render(Report('Nothing')))
    assert 'Nothing' in reader.text
    assert not {'table', 'dl', 'nav a', 'h2', 'figure', 'details'} & set(reader.tags)


def test_many_warnings_are_folded() -> None:
    reader = Reader(render(report(warnings=tuple(f'warning {i}.' for i in range(9)), settings=())))
    assert '9 warnings' in reader.text
    assert '4 more' in reader.text
    assert 'warning 8.' in reader.text
    assert reader.tags.count('details') == 1


def test_a_page_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / 'report.html'
    write_report(path, report())
    write_report(path, report(title='another \udcff'))
    assert '<title>another ?</title>' in path.read_text(encoding='utf-8')
    taken = tmp_path / 'folder'
    taken.mkdir()
    with pytest.raises(OSError, match='folder'):
        write_report(taken, report())
    assert sorted(each.name for each in tmp_path.iterdir()) == ['folder', 'report.html']


@pytest.fixture
def page(tmp_path: Path) -> Path:
    path = tmp_path / 'report.html'
    write_report(path, report())
    return path


def keys(browser: Any, *sent: str) -> None:
    from selenium.webdriver import ActionChains

    ActionChains(browser, duration=0).send_keys(*sent).perform()


def handle(browser: Any) -> Any:
    return browser.find_element('css selector', '[role=slider]')


def split(browser: Any) -> int:
    return int(handle(browser).get_attribute('aria-valuenow'))


def screenshot(browser: Any, selector: str) -> np.ndarray:
    data = browser.find_element('css selector', selector).screenshot_as_png
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


def colour_at(browser: Any, percent: float) -> str:
    """Return the name of the picture that is seen at this part of the stage's width."""
    stage = screenshot(browser, '.stage')
    height, width = stage.shape[:2]
    seen = stage[height // 4, int(width * percent / 100)].astype(int)
    return min(COLOURS, key=lambda name: np.abs(seen - COLOURS[name]).sum())


def pull(browser: Any, percent: float, *, touch: bool = False, press: float | None = None) -> None:
    """Press at a part of the stage's width, or ``press``, and let go at another."""
    from selenium.webdriver.common.actions.action_builder import ActionBuilder
    from selenium.webdriver.common.actions.pointer_input import PointerInput

    stage = browser.find_element('css selector', '.stage')
    browser.execute_script('arguments[0].scrollIntoView({block: "center"})', stage)
    width = stage.rect['width']
    kind = 'touch' if touch else 'mouse'
    actions = ActionBuilder(browser, mouse=PointerInput(kind, kind), duration=50)
    pointer = actions.pointer_action

    def move(to: float) -> None:
        pointer.move_to(stage, int((to / 100 - 0.5) * width), 30)

    move(percent if press is None else press)
    pointer.pointer_down()
    if press is not None:
        move((press + percent) / 2)
        move(percent)
    pointer.pointer_up()
    actions.perform()


def test_a_click_moves_the_divider(open_page: OpenPage, page: Path) -> None:
    browser = open_page(page)
    assert split(browser) == 50
    assert [colour_at(browser, at) for at in (10, 40, 60, 90)] == ['visible'] * 2 + ['fused'] * 2
    pull(browser, 25)
    assert split(browser) == pytest.approx(25, abs=1)
    assert [colour_at(browser, at) for at in (10, 40, 60, 90)] == ['visible'] + ['fused'] * 3


@pytest.mark.parametrize('touch', [False, True], ids=['mouse', 'finger'])
def test_the_divider_is_dragged(open_page: OpenPage, page: Path, touch: bool) -> None:
    browser = open_page(page, *((360, 740) if touch else ()))
    pull(browser, 80, press=50, touch=touch)
    assert split(browser) == pytest.approx(80, abs=1)
    assert colour_at(browser, 70) == 'visible'
    # Beyond the edge is the edge.
    pull(browser, 101, press=80, touch=touch)
    assert split(browser) == 100


def test_the_divider_follows_the_keyboard(open_page: OpenPage, page: Path) -> None:
    from selenium.webdriver import Keys

    browser = open_page(page)
    browser.execute_script('arguments[0].focus()', handle(browser))
    seen = []
    for key in (
        *(Keys.ARROW_LEFT, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.PAGE_UP),
        *(Keys.HOME, Keys.ARROW_LEFT, Keys.END, Keys.PAGE_DOWN),
    ):
        keys(browser, key)
        seen.append(split(browser))
    assert seen == [49, 50, 51, 61, 0, 0, 100, 90]
    assert 'visible' in handle(browser).get_attribute('aria-valuetext')


def test_pictures_are_chosen_for_both_sides(open_page: OpenPage, page: Path) -> None:
    from selenium.webdriver.support.select import Select

    browser = open_page(page)
    left, right = map(Select, browser.find_elements('css selector', '.sides select'))
    assert [option.text for option in left.options] == list(COLOURS)
    left.select_by_visible_text('thermal')
    right.select_by_visible_text('contributions')
    assert [colour_at(browser, at) for at in (25, 75)] == ['thermal', 'contributions']
    # The choice stays for the next frame.
    browser.find_elements('css selector', '.steps button')[1].click()
    assert [colour_at(browser, at) for at in (25, 75)] == ['thermal', 'contributions']


def test_high_pictures_stay_on_the_screen(open_page: OpenPage, tmp_path: Path) -> None:
    path = tmp_path / 'report.html'
    high = {name: jpeg(np.full((300, 100), 90, np.uint8)) for name in ('visible', 'fused')}
    write_report(path, report(frames=(GalleryFrame(0, 'high', 0.5, (BEST,), high, {}),)))
    browser = open_page(path, height=900)
    assert 600 < browser.find_element('css selector', '.stage').rect['height'] < 900


def shown(browser: Any) -> str:
    return browser.find_element('css selector', '.details h3').text


def test_frames_are_stepped_through(open_page: OpenPage, page: Path) -> None:
    browser = open_page(page)
    previous, following = browser.find_elements('css selector', '.steps button')
    seen = [shown(browser)]
    for button in (*[following] * 4, *[previous] * 3):
        button.click()
        seen.append(shown(browser))
    numbers = [0, 7, 12, 20, 0, 20, 12, 7]
    assert seen == [f'pair {number}' for number in numbers]
    assert browser.find_element('css selector', '.position').text == '2 of 4'
    details = browser.find_element('css selector', '.details').text
    assert 'best, evenly spaced' in details
    assert '0.900' in details


def test_frames_are_picked(open_page: OpenPage, page: Path) -> None:
    from selenium.webdriver import Keys

    browser = open_page(page)
    browser.find_elements('css selector', '.strip label')[1].click()
    assert shown(browser) == 'pair 7'
    # The thumbnails are one choice for the keyboard.
    keys(browser, Keys.ARROW_RIGHT)
    assert shown(browser) == 'pair 12'


def column(browser: Any, number: int = 0, place: int = 0) -> list[str]:
    return browser.execute_script(
        'return [...document.querySelectorAll("table")[arguments[0]].tBodies[0].rows]'
        '.map((row) => row.cells[arguments[1]].textContent)',
        place,
        number,
    )


def test_tables_are_sorted_by_click(open_page: OpenPage, page: Path) -> None:
    browser = open_page(page)
    original = column(browser, 1)
    header = browser.find_elements('css selector', 'table:first-of-type th[scope=col]')[1]
    button = header.find_element('css selector', 'button')
    states = []
    for _ in range(3):
        button.click()
        states.append((header.get_attribute('aria-sort'), column(browser, 1)))
    numbers = ['−5', '1e-3', '+0.01 [-0.02, 0.04]', '9', '12 %', '1,234', '∞']
    assert states == [
        ('ascending', [*numbers, '-', '']),
        ('descending', [*reversed(numbers), '-', '']),
        (None, original),
    ]


def test_tables_are_sorted_by_keyboard(open_page: OpenPage, page: Path) -> None:
    from selenium.webdriver import Keys

    browser = open_page(page)
    script = 'document.querySelectorAll(".table")[1].querySelector("thead button").focus()'
    browser.execute_script(script)
    keys(browser, Keys.ENTER)
    names = [f'row {number}' for number in range(60)]
    # Numbers within names count as numbers, so that row 10 is not the second one.
    assert column(browser, 0, 1) == names
    keys(browser, Keys.SPACE)
    assert column(browser, 0, 1) == names[::-1]
    keys(browser, Keys.TAB, Keys.ENTER)
    sorts = browser.execute_script(
        'return [...document.querySelectorAll(".table")[1].querySelectorAll("thead th")]'
        '.map((header) => header.getAttribute("aria-sort"))'
    )
    assert sorts == [None, 'ascending', None, None]


def tip(browser: Any) -> str:
    """Return what the tooltip says; empty while it is hidden."""
    return browser.find_element('css selector', '.tip').text


def test_terms_are_explained_to_the_mouse_the_keyboard_and_the_finger(
    open_page: OpenPage, tmp_path: Path
) -> None:
    from selenium.webdriver import ActionChains, Keys

    path = tmp_path / 'report.html'
    scores = Table('', ('method', 'SSIM ↑'), (('fused', '1.4'), ('mean', '1.5')))
    write_report(path, report(tables=(scores,)))
    browser = open_page(path)
    term = browser.find_element('css selector', '.facts abbr')
    ActionChains(browser, duration=0).move_to_element(term).perform()
    assert tip(browser) == explanation('Qabf')
    keys(browser, Keys.ESCAPE)
    assert tip(browser) == ''
    # In the header of a table it is the button that has the focus.
    button = browser.find_elements('css selector', 'thead button')[1]
    browser.execute_script('arguments[0].focus()', button)
    assert tip(browser) == explanation('SSIM')
    assert button.get_attribute('aria-describedby') == 'tip'
    browser = open_page(path, 360, 740)
    term = browser.find_element('css selector', '.cards abbr')
    term.click()
    assert tip(browser) == explanation('Qabf')
    box = browser.find_element('css selector', '.tip').rect
    assert box['x'] >= 8
    assert box['x'] + box['width'] <= 352


def test_the_video_plays_from_disk(open_page: OpenPage, tmp_path: Path) -> None:
    video = Video(tmp_path.joinpath, 5.0, formats=FOR_BROWSERS[:1])
    for number in range(4):
        video.add([np.full((48, 64), 40 * number, np.uint8)], number / 5)
    video.close()
    if video.name is None:
        pytest.skip('OpenCV cannot write WebM here')
    path = tmp_path / 'report.html'
    write_report(path, report(video=video.name))
    browser = open_page(path)
    width = browser.execute_async_script(
        'const done = arguments[0], video = document.querySelector("video");'
        'const answer = () => done(video.error ? video.error.message : video.videoWidth);'
        'video.addEventListener("loadeddata", answer); video.addEventListener("error", answer);'
        'video.load();'
    )
    assert width == 64


def test_a_phone_scrolls_tables_but_not_the_page(open_page: OpenPage, page: Path) -> None:
    browser = open_page(page, 360, 740)
    size = 'const e = document.querySelector(arguments[0]); return [e.scrollWidth, e.clientWidth]'
    assert browser.execute_script(size, 'html') == [360, 360]
    content, box = browser.execute_script(size, '.box')
    assert content > box
    # The names of the rows stay while the values pass by.
    left = browser.execute_script(
        'const box = document.querySelector(".box"); box.scrollLeft = 200;'
        'return box.querySelector("tbody th").getBoundingClientRect().left'
        ' - box.getBoundingClientRect().left'
    )
    assert left == pytest.approx(0, abs=2)
    outside = browser.execute_script(
        'return [...document.querySelectorAll("button, select, a, summary")]'
        '.filter((e) => !e.closest(".box"))'
        '.filter((e) => e.getBoundingClientRect().right > 360).map((e) => e.textContent)'
    )
    assert outside == []


def test_long_names_stay_within_a_phone(open_page: OpenPage, tmp_path: Path) -> None:
    name = 'a_name_without_any_place_to_break_it' * 4
    path = tmp_path / 'report.html'
    pictures = {'fused': picture('fused')}
    write_report(
        path,
        Report(
            title=name,
            subtitle=name,
            summary=((name, name),),
            warnings=(name,),
            frames=(GalleryFrame(0, name, 0.5, (BEST,), pictures, {name: name}),),
            tables=(Table(name, (name, name), ((name, name),), (name,)),),
            plots=((name, '<svg viewBox="0 0 400 200"></svg>'),),
            files=((name, name),),
            settings=((name, name),),
            ranking=name,
        ),
    )
    browser = open_page(path, 360, 740)
    browser.find_element('css selector', '#settings summary').click()
    assert browser.execute_script('return document.documentElement.scrollWidth') == 360


def test_dark_mode_is_dark_and_legible(open_page: OpenPage, page: Path) -> None:
    script = (
        'const rgb = (e, k) => getComputedStyle(e)[k].match(/[\\d.]+/g).slice(0, 3).map(Number);'
        'const soft = document.querySelector(".note"), body = document.body;'
        'return [rgb(body, "backgroundColor"), rgb(body, "color"), rgb(soft, "color")]'
    )

    def luminance(colour: list[float]) -> float:
        # WCAG 2, "relative luminance".
        parts = np.array(colour) / 255
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ (0.2126, 0.7152, 0.0722))

    papers = {}
    for scheme in ('light', 'dark'):
        browser = open_page(page, scheme=scheme)
        paper, *inks = map(luminance, browser.execute_script(script))
        papers[scheme] = paper
        for ink in inks:
            assert (max(paper, ink) + 0.05) / (min(paper, ink) + 0.05) > 5.5
    assert papers['dark'] < 0.05
    assert papers['light'] > 0.9


@pytest.mark.slow
def test_a_screenshot_shows_the_page(open_page: OpenPage, page: Path, tmp_path: Path) -> None:
    browser = open_page(page)
    target = tmp_path / 'screenshot.png'
    assert browser.save_screenshot(str(target))
    image = cv2.imread(str(target))
    assert image.shape[1] == 1280
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 100
    loaded = browser.execute_script(
        'return performance.getEntriesByType("resource").map((entry) => entry.name)'
        '.filter((name) => !name.startsWith("data:"))'
    )
    assert loaded == []
    assert browser.execute_script(
        'return [...document.querySelectorAll("#comparer img")].every((e) => e.naturalWidth > 0)'
    )


def test_without_scripts_all_is_there_to_read(open_page: OpenPage, page: Path) -> None:
    browser = open_page(page, scripts=False)
    pictures = browser.find_elements('css selector', '.frames img')
    assert len(pictures) == 16
    assert all(each.is_displayed() for each in pictures)
    assert browser.find_elements('css selector', '#comparer *') == []
    assert len(browser.find_elements('css selector', 'tbody tr')) == 69


def test_nasty_names_do_nothing_in_a_browser(open_page: OpenPage, tmp_path: Path) -> None:
    path = tmp_path / 'report.html'
    nasty = GalleryFrame(0, NASTY, 0.5, (BEST,), {NASTY: picture('fused')}, {NASTY: NASTY})
    changes = {'title': NASTY, 'frames': (nasty, frame(1, 0.4, WORST)), 'files': ((NASTY, NASTY),)}
    write_report(path, report(**changes))
    browser = open_page(path)
    assert shown(browser) == NASTY
    assert browser.title == NASTY
    assert browser.find_element('css selector', '.tag').text == NASTY
    browser.find_elements('css selector', '.steps button')[1].click()
    assert shown(browser) == 'pair 1'
