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

import zlib

import cv2
import numpy as np
import pytest

from dig2dig_ros.evaluation.synthetic_scene import SyntheticScene
from dig2dig_ros.images.image_pairs import (
    find_pairs,
    ImagePair,
    ImagePairError,
    load_pair,
    looks_like_palette,
    pair_folders,
    read_photograph,
    same_picture,
    second_is_colour,
    unpaired,
)
from dig2dig_ros.images.thermal_range import ThermalRangeError


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


def test_one_folder_of_a_and_b_with_hyphens(tmp_path):
    for name in ('lytro-01-A.jpg', 'lytro-01-B.jpg', 'lytro-02-A.jpg', 'notes_a.png'):
        write(tmp_path / name)
    (pair,) = find_pairs(tmp_path)
    assert (pair.name, pair.thermal.name) == ('lytro-01', 'lytro-01-B.jpg')
    assert unpaired(tmp_path) == ['lytro-02-A.jpg']


@pytest.mark.parametrize(
    ('first', 'second'),
    [('A', 'B'), ('near', 'far'), ('Over', 'Under'), ('source_1', 'source_2')],
)
def test_two_folders_of_other_tasks(tmp_path, first, second):
    for name in (f'{first}/1.jpg', f'{second}/1.png', f'{first}/2.png'):
        write(tmp_path / name)
    assert find_pairs(tmp_path) == [
        ImagePair('1', tmp_path / first / '1.jpg', tmp_path / second / '1.png')
    ]
    assert unpaired(tmp_path) == [f'{first}/2.png']


def test_folders_that_hold_no_images_do_not_hide_a_and_b(tmp_path):
    for name in ('a/notes.png', 'x_A.png', 'x_B.png'):
        write(tmp_path / name)
    (tmp_path / 'b').mkdir()
    assert [pair.name for pair in find_pairs(tmp_path)] == ['x']
    # Visible and thermal folders come before all others.
    for name in ('vi/y.png', 'ir/y.png', 'b/notes.png'):
        write(tmp_path / name)
    assert [pair.name for pair in find_pairs(tmp_path)] == ['y']


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


def test_folders_of_folders(tmp_path):
    # As LLVIP is published.
    for camera in ('visible', 'infrared'):
        for name in ('train/010001.jpg', 'train/010002.jpg', 'test/190001.jpg'):
            write(tmp_path / camera / name)
    write(tmp_path / 'visible' / 'test' / '190002.jpg')
    pairs = find_pairs(tmp_path)
    assert [pair.name for pair in pairs] == ['010001', '010002', '190001']
    assert pairs[2].thermal == tmp_path / 'infrared' / 'test' / '190001.jpg'
    assert unpaired(tmp_path) == ['visible/test/190002.jpg']


def test_names_that_come_in_several_folders_are_told_apart(tmp_path):
    for name in ('vi/day/1.png', 'vi/night/1.png', 'vi/night/2.png', 'ir/night/1.png'):
        write(tmp_path / name)
    (pair,) = find_pairs(tmp_path)
    assert pair.name == 'night_1'
    assert (pair.visible.parent.name, pair.thermal.parent.name) == ('night', 'night')


def test_where_pairs_are_in_folders_below_they_are_named(tmp_path):
    # As MSRS is published.
    for part in ('train', 'test'):
        for camera in ('vi', 'ir'):
            write(tmp_path / part / camera / '1.png')
    with pytest.raises(ImagePairError, match=r'perhaps in its folders: name one of test, train$'):
        find_pairs(tmp_path)
    assert len(find_pairs(tmp_path / 'test')) == 1


@pytest.mark.parametrize('layout', ['{}/x.{}', 'x_{}.{}'])
def test_counts_are_taken_rather_than_the_palette_beside_them(tmp_path, layout):
    first, second = ('visible', 'thermal') if '/' in layout else ('A', 'B')
    counts = np.arange(7000, 7024, dtype=np.uint16).reshape(4, 6)
    write(tmp_path / layout.format(first, 'png'))
    write(tmp_path / layout.format(first, 'tiff'))
    write(tmp_path / layout.format(second, 'png'))
    write(tmp_path / layout.format(second, 'tiff'), counts)
    (pair,) = find_pairs(tmp_path)
    assert (pair.visible.suffix, pair.thermal.suffix) == ('.png', '.tiff')
    _, thermal = load_pair(pair)
    assert np.array_equal(thermal, counts)


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
    with pytest.raises(
        ImagePairError, match=r'1 visible and 1 thermal images .* no two have the same'
    ):
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


def colourful(shape=(12, 16), seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), np.uint8)


def test_photographs_keep_their_colour(tmp_path):
    first, second = colourful(seed=1), colourful(seed=2)
    pair = ImagePair('a', write(tmp_path / 'a.png', first), write(tmp_path / 'b.png', second))
    loaded = load_pair(pair, thermal=False)
    np.testing.assert_array_equal(loaded, (first, second))
    assert all(image.dtype == np.uint8 for image in loaded)
    # A thermal image has none.
    with pytest.raises(ImagePairError, match='looks like a colour palette'):
        load_pair(pair)


def test_photographs_without_colour_are_grey(tmp_path):
    grey = colourful()[:, :, 0]
    single = write(tmp_path / 'single.png', grey)
    triple = write(tmp_path / 'triple.png', np.dstack([grey] * 3))
    clear = write(tmp_path / 'clear.png', np.dstack([grey] * 3 + [np.full_like(grey, 99)]))
    for path in (single, triple, clear):
        for image in load_pair(ImagePair('a', single, path), thermal=False):
            np.testing.assert_array_equal(image, grey)
    # Beside a coloured one, a grey one has three channels too.
    colour = write(tmp_path / 'colour.png', colourful(seed=3))
    first, second = load_pair(ImagePair('a', single, colour), thermal=False)
    np.testing.assert_array_equal(first, np.dstack([grey] * 3))
    np.testing.assert_array_equal(second, colourful(seed=3))


def test_photographs_of_16_bits_keep_their_scale(tmp_path):
    levels = np.array([[0, 128, 129, 257 * 7, 65406, 65407, 65535]], np.uint16)
    path = write(tmp_path / 'grey.png', levels)
    deep = np.dstack([levels, levels[:, ::-1], levels])
    colour = write(tmp_path / 'colour.png', deep)
    first, second = load_pair(ImagePair('a', path, colour), thermal=False)
    assert first[:, :, 0].tolist() == [[0, 0, 1, 7, 254, 255, 255]]
    assert second[:, :, 1].tolist() == [[255, 255, 254, 7, 1, 0, 0]]
    assert first.dtype == second.dtype == np.uint8
    # Thermal counts have no such scale, and stay.
    assert load_pair(ImagePair('a', colour, path))[1].dtype == np.uint16


def turned_jpeg(path, image, orientation):
    """Write an image with an EXIF orientation."""
    header = bytes.fromhex('ffe1002245786966000049492a000800000001001201030001000000')
    plain = write(path, image).read_bytes()
    path.write_bytes(plain[:2] + header + bytes((orientation, *[0] * 7)) + plain[2:])
    return path


def turned_png(path, image, orientation):
    data = bytes.fromhex('49492a000800000001001201030001000000') + bytes((orientation, *[0] * 7))
    chunk = len(data).to_bytes(4, 'big') + b'eXIf' + data
    plain = write(path, image).read_bytes()
    checked = chunk + zlib.crc32(chunk[4:]).to_bytes(4, 'big')
    path.write_bytes(plain[:33] + checked + plain[33:])
    return path


@pytest.mark.parametrize('thermal', [True, False])
@pytest.mark.parametrize(('orientation', 'turns'), [(1, 0), (3, 2), (6, 3)])
def test_all_images_are_turned_as_their_files_say(tmp_path, thermal, orientation, turns):
    dark = np.zeros((8, 24, 3), np.uint8)
    dark[:, :8] = 200  # blocks of JPEG
    grey = dark[:, :, 0]
    visible = turned_jpeg(tmp_path / 'a.jpg', dark, orientation)
    counts = turned_png(tmp_path / 'b.png', grey.astype(np.uint16) * 257, orientation)
    first, second = load_pair(ImagePair('a', visible, counts), thermal=thermal)
    first = first if first.ndim == 2 else first[:, :, 0]
    np.testing.assert_allclose(first, np.rot90(grey, turns), atol=4)
    scale = 257 if thermal else 1
    np.testing.assert_array_equal(second, np.rot90(grey.astype(np.uint16), turns) * scale)
    np.testing.assert_array_equal(read_photograph(counts), np.rot90(grey, turns) * np.uint16(257))
    # Whether it has colour is asked of the same picture.
    assert not second_is_colour(ImagePair('a', visible, visible))


def test_a_visible_image_of_12_bits_in_16_is_as_bright_as_of_8(tmp_path):
    image = np.maximum(colourful(), 20)
    image[0, 0] = 255
    pair = ImagePair(
        'a',
        write(tmp_path / 'a.png', image.astype(np.uint16) * 16),
        write(tmp_path / 'b.png', image[:, :, 0]),
    )
    np.testing.assert_allclose(load_pair(pair)[0].astype(int), image, atol=1)
    write(pair.visible, image.astype(np.uint16) * 257)
    np.testing.assert_array_equal(load_pair(pair)[0], image)


@pytest.mark.parametrize('thermal', [True, False])
def test_two_sizes_are_refused_where_they_must_be_one(tmp_path, thermal):
    pair = ImagePair(
        'street',
        write(tmp_path / 'street_A.png', colourful((12, 16))),
        write(tmp_path / 'street_B.png', colourful((10, 16))[:, :, 0]),
    )
    assert [image.shape[:2] for image in load_pair(pair, thermal=thermal)] == [(12, 16), (10, 16)]
    names = ('visible', 'thermal') if thermal else (r'.*street_A\.png', r'.*street_B\.png')
    message = rf'pair street: {names[0]} is 16x12, {names[1]} is 16x10 pixels'
    with pytest.raises(ImagePairError, match=message):
        load_pair(pair, thermal=thermal, same_size=True)


def test_rows_that_are_no_image_are_left_out_before_sizes_are_compared(
    tmp_path,
):
    thermal = np.arange(15 * 16, dtype=np.uint16).reshape(15, 16)
    pair = ImagePair(
        'street',
        write(tmp_path / 'street_A.png', colourful((12, 16))),
        write(tmp_path / 'street_B.png', thermal),
    )
    _, cropped = load_pair(pair, same_size=True, thermal_crop=(1, 2))
    np.testing.assert_array_equal(cropped, thermal[1:13])
    with pytest.raises(ThermalRangeError, match='leaves nothing of 15 rows'):
        load_pair(pair, thermal_crop=(8, 7))


def test_colour_of_the_second_image(tmp_path):
    grey = colourful((40, 50))[:, :, 0]
    tinted = np.dstack([grey // 2 + 40, grey // 2 + 44, grey // 2 + 47])
    spot = np.dstack([grey] * 3)
    spot[:3, :4] = (0, 0, 255)  # a mark of the camera's display
    dark = np.zeros((40, 50, 3), np.uint8)
    dark[10:20, 10:20] = (10, 20, 40)
    for name, image, expected in (
        ('grey', grey, False),
        ('counts', grey.astype(np.uint16) * 100, False),
        ('three', np.dstack([grey] * 3), False),
        ('tinted', tinted, False),
        ('spot', spot, False),
        ('dark', dark, True),
        ('deep', colourful().astype(np.uint16) * 257, True),
    ):
        path = write(tmp_path / f'{name}.png', image)
        assert second_is_colour(ImagePair(name, tmp_path / 'gone.png', path)) == expected, name
    jpeg = write(tmp_path / 'three.jpg', np.dstack([grey] * 3))
    assert not second_is_colour(ImagePair('jpeg', jpeg, jpeg))
    with pytest.raises(ImagePairError, match=r'gone\.png: no such file'):
        second_is_colour(ImagePair('gone', jpeg, tmp_path / 'gone.png'))


def test_unreadable_files_are_named(tmp_path):
    good = write(tmp_path / 'good.png')
    broken = tmp_path / 'broken.png'
    broken.write_bytes(b'no image')
    with pytest.raises(ImagePairError, match=r'broken\.png: its .* bytes are neither'):
        load_pair(ImagePair('a', good, broken))
    with pytest.raises(ImagePairError, match=r'gone\.png: no such file'):
        load_pair(ImagePair('a', tmp_path / 'gone.png', good))
    floats = write(tmp_path / 'float.tif', np.zeros((4, 4), np.float32))
    with pytest.raises(ImagePairError, match='float32'):
        load_pair(ImagePair('a', good, floats))
    with pytest.raises(ImagePairError, match='float32'):
        load_pair(ImagePair('a', floats, good), thermal=False)


@pytest.mark.parametrize(('folder', 'count'), [('tno', 25), ('roadscene/dev', 28)])
def test_finds_all_pairs_of_the_development_data(shared, folder, count):
    pairs = find_pairs(shared / 'data' / folder)
    assert len(pairs) == count
    visible, thermal = load_pair(pairs[0])
    assert visible.shape[:2] == thermal.shape
    assert unpaired(shared / 'data' / folder) == []
    assert not any(second_is_colour(pair) for pair in pairs)


@pytest.mark.parametrize(('folder', 'count'), [('mffw', 7), ('mefb', 15)])
def test_finds_all_pairs_of_other_tasks(shared, folder, count):
    pairs = find_pairs(shared / 'data' / folder)
    assert len(pairs) == count
    assert all(second_is_colour(pair) for pair in pairs)
    first, second = load_pair(pairs[0], thermal=False, same_size=True)
    assert first.shape == second.shape == (*first.shape[:2], 3)
    assert unpaired(shared / 'data' / folder) == []


PALETTES = ('JET', 'RAINBOW', 'INFERNO', 'HOT', 'PLASMA', 'VIRIDIS', 'TURBO', 'HSV', 'MAGMA')


def heat(size=(160, 128)):
    counts = SyntheticScene(*size, seed=2).render(0.5).thermal.astype(np.float64)
    low, high = np.percentile(counts, (1, 99.5))
    return np.clip((counts - low) * 255 / (high - low), 0, 255).astype(np.uint8)


def test_one_picture_is_recognised_in_colour_grey_and_floats():
    colour = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    grey = cv2.cvtColor(colour, cv2.COLOR_BGR2GRAY)
    for other in (colour, grey, grey.astype(np.uint16) * 257, grey / np.float32(255)):
        assert same_picture(colour, other)
        assert same_picture(other, grey)
    # Rows between those that are compared differ seldom by themselves; a person differs in many.
    person = grey.copy()
    person[10:40, 20:30] ^= 8
    assert not same_picture(colour, person)
    assert not same_picture(colour, colour[:, 1:])
    assert not same_picture(colour, np.where(grey > 0, np.nan, 0).astype(np.float32))
    dark = np.full_like(grey, 3)
    assert not same_picture(dark, dark)


@pytest.mark.parametrize('palette', PALETTES)
def test_a_palette_is_told_from_a_photograph(palette):
    image = cv2.applyColorMap(heat(), getattr(cv2, f'COLORMAP_{palette}'))
    assert looks_like_palette(image)
    assert looks_like_palette(image[:, :, ::-1])
    assert looks_like_palette(image.astype(np.uint16) * 257)


@pytest.mark.parametrize('palette', ['JET', 'RAINBOW', 'INFERNO'])
def test_thermal_images_in_a_palette_are_refused(tmp_path, palette):
    image = cv2.applyColorMap(heat(), getattr(cv2, f'COLORMAP_{palette}'))
    visible = write(tmp_path / 'a_A.png', colourful(image.shape[:2]))
    for name in ('a_B.png', 'a_B.jpg'):
        thermal = write(tmp_path / name, image)
        with pytest.raises(ImagePairError, match=r'colour palette.*white-hot grey or raw counts'):
            load_pair(ImagePair('a', visible, thermal))


def test_photographs_and_grey_images_are_no_palettes():
    street = SyntheticScene(160, 128, seed=2).render(0.5).visible
    for image in (street, colourful((128, 160)), np.dstack([heat()] * 3), heat()):
        assert not looks_like_palette(image)


def test_no_photograph_of_a_street_looks_like_a_palette(shared):
    paths = [
        path
        for folder in ('roadscene/dev', 'm3fd', 'llvip', 'msrs', 'flir')
        for path in sorted((shared / 'data' / folder / 'visible').glob('*'))[:4]
    ]
    if not paths:
        pytest.skip('no images')
    assert not [path for path in paths if looks_like_palette(cv2.imread(str(path)))]


def test_two_folders_of_any_names(tmp_path):
    for name in ('left/2.png', 'left/1.jpg', 'left/alone.png', 'right/1.png', 'right/2.tif'):
        write(tmp_path / name)
    pairs, alone = pair_folders(tmp_path / 'left', str(tmp_path / 'right'))
    assert pairs == [
        ImagePair('1', tmp_path / 'left' / '1.jpg', tmp_path / 'right' / '1.png'),
        ImagePair('2', tmp_path / 'left' / '2.png', tmp_path / 'right' / '2.tif'),
    ]
    assert alone == [tmp_path / 'left' / 'alone.png']
    write(tmp_path / 'other' / 'x.png')
    with pytest.raises(
        ImagePairError, match=r'left \(3 images\) and .*other \(1 images; .*: no two have the same'
    ):
        pair_folders(tmp_path / 'left', tmp_path / 'other')
    with pytest.raises(ImagePairError, match=r'no images in .*1\.png: it is a file'):
        pair_folders(tmp_path / 'right' / '1.png', tmp_path)
