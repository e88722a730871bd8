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

"""Pairs from a directory."""

import cv2
import numpy as np
import pytest

from dig2dig_ros.evaluation.image_pairs import (
    find_pairs,
    ImagePair,
    ImagePairError,
    load_pair,
    unpaired,
)


def write(path, image=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    if image is None:
        image = np.full((4, 6, 3), 7, np.uint8)
    assert cv2.imwrite(str(path), image)
    return path


@pytest.mark.parametrize(
    ('visible', 'thermal'),
    [
        ('visible', 'thermal'),
        ('vi', 'ir'),
        ('VIS', 'INF'),
        ('rgb', 'TIR'),
        ('Visible', 'infrared'),
    ],
)
def test_two_folders_of_same_names(tmp_path, visible, thermal):
    for name in ('b', 'a', 'c'):
        write(tmp_path / visible / f'{name}.png')
        write(tmp_path / thermal / f'{name}.jpg')
    pairs = find_pairs(tmp_path)
    assert [pair.name for pair in pairs] == ['a', 'b', 'c']
    assert pairs[0].visible == tmp_path / visible / 'a.png'
    assert pairs[0].thermal == tmp_path / thermal / 'a.jpg'


def test_visible_and_thermal_are_preferred_over_other_names(tmp_path):
    for folder in ('ir', 'rgb', 'thermal', 'visible', 'visible_hr'):
        write(tmp_path / folder / 'a.png')
    (pair,) = find_pairs(str(tmp_path))
    assert (pair.visible.parent.name, pair.thermal.parent.name) == ('visible', 'thermal')


def test_one_folder_of_a_and_b(tmp_path):
    for name in ('night_A.JPG', 'night_B.png', 'day_1_A.png', 'day_1_B.png', 'other.png'):
        write(tmp_path / name)
    pairs = find_pairs(tmp_path)
    assert [pair.name for pair in pairs] == ['day_1', 'night']
    assert pairs[1] == ImagePair('night', tmp_path / 'night_A.JPG', tmp_path / 'night_B.png')


def test_unpaired_images_are_named(tmp_path):
    for name in ('visible/a.png', 'visible/b.png', 'thermal/b.bmp', 'thermal/c.png'):
        write(tmp_path / name)
    (tmp_path / 'visible' / 'notes.txt').write_text('no image')
    assert unpaired(tmp_path) == ['thermal/c.png', 'visible/a.png']
    assert [pair.name for pair in find_pairs(tmp_path)] == ['b']


def test_lossless_file_wins_where_a_name_comes_twice(tmp_path):
    for name in ('visible/a.jpg', 'visible/a.png', 'thermal/a.png'):
        write(tmp_path / name)
    assert find_pairs(tmp_path)[0].visible.name == 'a.png'


def test_missing_directory(tmp_path):
    with pytest.raises(ImagePairError, match=r'nowhere: it does not exist'):
        find_pairs(tmp_path / 'nowhere')
    with pytest.raises(ImagePairError, match='it is a file'):
        find_pairs(write(tmp_path / 'image.png'))


def test_no_pairs_says_what_was_looked_for(tmp_path):
    with pytest.raises(ImagePairError, match=r'visible and thermal.*NAME_A and NAME_B'):
        find_pairs(tmp_path)
    write(tmp_path / 'visible' / 'a.png')
    write(tmp_path / 'thermal' / 'b.png')
    with pytest.raises(ImagePairError, match=r'1 visible and 1 thermal images .* no two of one'):
        find_pairs(tmp_path)
    with pytest.raises(ImagePairError):
        unpaired(tmp_path / 'visible')


def test_load_keeps_colour_order_and_counts(tmp_path):
    colour = np.zeros((5, 7, 3), np.uint8)
    colour[:] = (10, 60, 200)
    counts = np.arange(35, dtype=np.uint16).reshape(5, 7) * 400
    pair = ImagePair('a', write(tmp_path / 'v.png', colour), write(tmp_path / 't.png', counts))
    visible, thermal = load_pair(pair)
    np.testing.assert_array_equal(visible, colour)
    np.testing.assert_array_equal(thermal, counts)
    assert thermal.dtype == np.uint16


def test_load_reduces_thermal_to_one_channel_and_visible_to_three(tmp_path):
    grey = np.arange(35, dtype=np.uint8).reshape(5, 7)
    alpha = np.dstack([grey, grey, grey, np.full_like(grey, 255)])
    for name, image in (('grey', grey), ('colour', np.dstack([grey] * 3)), ('alpha', alpha)):
        path = write(tmp_path / f'{name}.png', image)
        visible, thermal = load_pair(ImagePair(name, path, path))
        assert visible.shape == (5, 7, 3)
        assert visible.dtype == thermal.dtype == np.uint8
        np.testing.assert_array_equal(thermal, grey)


def test_unreadable_files_are_named(tmp_path):
    good = write(tmp_path / 'good.png')
    broken = tmp_path / 'broken.png'
    broken.write_bytes(b'no image')
    with pytest.raises(ImagePairError, match=r'broken\.png: not an image'):
        load_pair(ImagePair('a', good, broken))
    with pytest.raises(ImagePairError, match=r'gone\.png: no such file'):
        load_pair(ImagePair('a', tmp_path / 'gone.png', good))
    floats = write(tmp_path / 'float.tif', np.zeros((4, 4), np.float32))
    with pytest.raises(ImagePairError, match='float32'):
        load_pair(ImagePair('a', good, floats))


@pytest.mark.parametrize(('folder', 'count'), [('tno', 25), ('roadscene/dev', 28)])
def test_finds_all_pairs_of_the_development_data(shared, folder, count):
    pairs = find_pairs(shared / 'data' / folder)
    assert len(pairs) == count
    visible, thermal = load_pair(pairs[0])
    assert visible.shape[:2] == thermal.shape
    assert unpaired(shared / 'data' / folder) == []
