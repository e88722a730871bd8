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

"""Fixtures for the tests of pages: a real browser without a window."""

from collections.abc import Callable, Iterator
from pathlib import Path
import shutil
from typing import Any

import pytest

# Chromium neither fetches nor sends anything of its own; without a sandbox, as tests may run as
# root in a container.
_ARGUMENTS = (
    '--headless=new',
    '--no-sandbox',
    '--disable-gpu',
    '--disable-dev-shm-usage',
    '--disable-quic',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
)


@pytest.fixture(scope='session')
def _chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Start Chromium once; skip where it, its driver or selenium is missing."""
    webdriver = pytest.importorskip('selenium.webdriver')
    names = ('chromium', 'chromium-browser', 'google-chrome')
    chromium = next((path for path in map(shutil.which, names) if path), None)
    driver = shutil.which('chromedriver')
    if chromium is None or driver is None:
        pytest.skip('needs chromium and chromedriver')
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in (*_ARGUMENTS, f'--user-data-dir={tmp_path_factory.mktemp("chromium")}'):
        options.add_argument(argument)
    options.set_capability('goog:loggingPrefs', {'browser': 'ALL'})
    service = webdriver.ChromeService(executable_path=driver)
    browser = webdriver.Chrome(options=options, service=service)
    browser.set_page_load_timeout(60)
    yield browser
    browser.quit()


@pytest.fixture
def open_page(_chromium: Any) -> Iterator[Callable[..., Any]]:
    """
    Open HTML files in a real browser, which must not complain about them.

    Returns a function that takes the path of the file, perhaps the size of the window in CSS
    pixels, the colour scheme, and whether scripts run, and returns selenium's driver.
    """

    def show(
        path: Path,
        width: int = 1280,
        height: int = 900,
        scheme: str = 'light',
        scripts: bool = True,
    ) -> Any:
        command = _chromium.execute_cdp_cmd
        metrics = {'width': width, 'height': height, 'deviceScaleFactor': 1}
        command('Emulation.setDeviceMetricsOverride', {**metrics, 'mobile': width < 600})
        colours = [{'name': 'prefers-color-scheme', 'value': scheme}]
        command('Emulation.setEmulatedMedia', {'features': colours})
        command('Emulation.setScriptExecutionDisabled', {'value': not scripts})
        _chromium.get(path.resolve().as_uri())
        return _chromium

    yield show
    messages = _chromium.get_log('browser')
    _chromium.execute_cdp_cmd('Emulation.setScriptExecutionDisabled', {'value': False})
    _chromium.get('about:blank')
    assert messages == []
