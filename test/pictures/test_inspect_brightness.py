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

"""The picture of the sky by day, with and without its brightness."""

from importlib.util import find_spec

import cv2
from inspect_brightness import main
import numpy as np
import pytest

needs_matplotlib = pytest.mark.skipif(
    find_spec('matplotlib') is None, reason='matplotlib (extra "evaluation") is not installed'
)


@pytest.fixture
def folder(tmp_path):
    """Return a folder with a pair: a sky that is bright and cold, over a warm road."""
    visible = np.full((96, 128, 3), 210, np.uint8)
    thermal = np.full((96, 128), 30, np.uint8)
    visible[48:], thermal[48:] = 90, 150
    for name, image in (('visible', visible), ('thermal', thermal)):
        (tmp_path / name).mkdir()
        cv2.imwrite(str(tmp_path / name / 'a.png'), image)
    return tmp_path


@needs_matplotlib
@pytest.mark.slow
def test_the_sky_is_dark_in_one_picture_and_bright_in_the_other(folder):
    output = folder / 'pictures'
    words = [str(folder), '--pair', 'a', '--device', 'cpu', '--output', str(output)]
    assert main(words) == 0
    picture = cv2.imread(str(output / 'brightness.jpg'), cv2.IMREAD_GRAYSCALE)
    # The middle of the sky in each of the four panels of the row.
    rows, columns = picture.shape
    sky = picture[round(0.5 * rows), [round(x * columns) for x in (0.15, 0.39, 0.63, 0.87)]]
    visible, thermal, weighed, kept = (int(grey) for grey in sky)
    assert visible > 200 > weighed > thermal
    assert abs(kept - visible) <= 5


def test_what_is_missing_is_said(folder, capsys):
    words = [str(folder), '--device', 'cpu', '--output', str(folder / 'pictures')]
    assert main([*words, '--pair', 'a', 'b']) == 2
    assert 'has no pair b' in capsys.readouterr().err
