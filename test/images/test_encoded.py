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

"""Files of images: what they state, and what a few kilobytes must not be able to take."""

import struct
import subprocess
import sys
import zlib

import cv2
import numpy as np
import pytest

from dig2dig_ros.images.encoded import (
    decode_image,
    EncodedImageError,
    MAX_PIXELS,
    read_image,
    Stated,
    stated_size,
)

HEIGHT, WIDTH = 48, 64


def picture() -> np.ndarray:
    rows, columns = np.indices((HEIGHT, WIDTH))
    return np.dstack([rows * 4, columns * 3, rows + columns]).astype(np.uint8)


def encoded(suffix: str, *options: int) -> bytes:
    done, data = cv2.imencode(suffix, picture(), options)
    assert done
    return bytes(data)


def frame_header(width: int, height: int) -> bytes:
    """Return the header of a grey baseline JPEG of this size."""
    return b'\xff\xc0\x00\x0b\x08' + struct.pack('>HH', height, width) + b'\x01\x01\x11\x00'


def png(width: int, height: int, *more: tuple[bytes, bytes]) -> bytes:
    """Return a grey PNG of zeros, with further chunks behind its header."""

    def chunk(name: bytes, body: bytes) -> bytes:
        check = zlib.crc32(name + body).to_bytes(4, 'big')
        return len(body).to_bytes(4, 'big') + name + body + check

    def header(columns: int, rows: int) -> bytes:
        return struct.pack('>IIBBBBB', columns, rows, 8, 0, 0, 0, 0)

    rows = zlib.compress(bytes((width + 1) * height), 9)
    chunks = [chunk(b'IHDR', header(width, height)), *(chunk(*each) for each in more)]
    chunks += [chunk(b'IDAT', rows), chunk(b'IEND', b'')]
    return b'\x89PNG\r\n\x1a\n' + b''.join(chunks)


def tiff(*tags: tuple[int, int, int, int], big: bool = False) -> bytes:
    """Return a grey TIFF of 3x2 with further tags: number, type, count, value."""
    pixels = bytes([10, 20, 30, 40, 50, 60])
    begin = 16 if big else 8
    own = [(256, 3), (257, 2), (258, 8), (259, 1), (262, 1), (273, begin), (277, 1), (278, 2)]
    entries = sorted([*((tag, 3, 1, value) for tag, value in (*own, (279, 6))), *tags])
    if big:
        head = b'II+\0' + struct.pack('<HHQ', 8, 0, begin + 6) + pixels
        body = struct.pack('<Q', len(entries)) + b''.join(
            struct.pack('<HHQQ', *entry) for entry in entries
        )
    else:
        head = b'II*\0' + struct.pack('<I', begin + 6) + pixels
        body = struct.pack('<H', len(entries)) + b''.join(
            struct.pack('<HHII', *entry) for entry in entries
        )
    return head + body + bytes(8)


@pytest.mark.parametrize(
    ('suffix', 'kind', 'options'),
    [
        ('.jpg', 'JPEG', ()),
        ('.jpg', 'JPEG', (cv2.IMWRITE_JPEG_PROGRESSIVE, 1)),
        ('.jpg', 'JPEG', (cv2.IMWRITE_JPEG_RST_INTERVAL, 2)),
        ('.png', 'PNG', ()),
        ('.tiff', 'TIFF', ()),
        ('.webp', 'WebP', (cv2.IMWRITE_WEBP_QUALITY, 90)),
        ('.webp', 'WebP', (cv2.IMWRITE_WEBP_QUALITY, 101)),
        ('.bmp', 'BMP', ()),
        ('.ppm', 'PNM', ()),
    ],
)
def test_what_encoders_write_is_read_with_its_size(suffix, kind, options):
    data = encoded(suffix, *options)
    stated = stated_size(data)
    assert stated == Stated(kind, WIDTH, HEIGHT)
    image = decode_image(data, stated, cv2.IMREAD_UNCHANGED, WIDTH * HEIGHT)
    assert np.abs(image.astype(int) - picture()).mean() < 5
    with pytest.raises(EncodedImageError, match='64x48 is beyond the limit of 3071'):
        decode_image(data, stated, cv2.IMREAD_UNCHANGED, WIDTH * HEIGHT - 1)


def test_webp_with_transparency_states_its_canvas():
    with_alpha = np.dstack([picture(), picture()[:, :, 1]])
    data = bytes(cv2.imencode('.webp', with_alpha, [cv2.IMWRITE_WEBP_QUALITY, 50])[1])
    assert data[12:16] == b'VP8X'
    assert stated_size(data) == Stated('WebP', WIDTH, HEIGHT)


def test_a_bmp_with_the_header_of_os2_and_one_of_rows_from_top_to_bottom_are_read():
    pixels = bytes(range(24))  # two rows of three pixels and three bytes to fill them up
    old = struct.pack('<2sIHHIIHHHH', b'BM', 50, 0, 0, 26, 12, 3, 2, 1, 24) + pixels
    usual = struct.pack('<2sIHHIIiiHH24x', b'BM', 78, 0, 0, 54, 40, 3, -2, 1, 24) + pixels
    images = []
    for data in (old, usual):
        assert stated_size(data) == Stated('BMP', 3, 2)
        images.append(decode_image(data, stated_size(data), cv2.IMREAD_COLOR, 6))
    np.testing.assert_array_equal(images[0], images[1][::-1])


def test_a_large_tiff_of_64_bit_offsets_is_read():
    data = tiff(big=True)
    assert stated_size(data) == Stated('TIFF', 3, 2)
    image = decode_image(data, stated_size(data), cv2.IMREAD_UNCHANGED, MAX_PIXELS)
    assert image.tolist() == [[10, 20, 30], [40, 50, 60]]


@pytest.mark.parametrize('code', [0xD0, 0xD7, 0x01, 0xD8, 0xD9])
def test_a_jpeg_with_a_decoy_behind_a_marker_without_length(code):
    # Who takes the next two bytes, FFFE, for a length lands at the small frame header; a decoder
    # reads a comment, and then the large one.
    data = bytes([0xFF, 0xD8, 0xFF, code]) + b'\xff\xfe\x00\x02' + frame_header(20000, 20000)
    data = data.ljust(4 + 0xFFFE, b'\0') + frame_header(16, 16) + b'\xff\xd9'
    with pytest.raises(EncodedImageError, match=f'marker FF{code:02X} stands among'):
        stated_size(data)


@pytest.mark.parametrize('code', [0xC4, 0xC8, 0xCC])
def test_markers_of_a_jpeg_that_look_like_those_of_frames(code):
    # Tables of codes, an extension of JPEG, and conditions of arithmetic codes, of which a
    # decoder takes the last two for no frame header either; here their bytes would be 16x16.
    looks_like = bytes([0xFF, code]) + frame_header(16, 16)[2:]
    data = encoded('.jpg')
    assert stated_size(data[:2] + looks_like + data[2:]) == Stated('JPEG', WIDTH, HEIGHT)


@pytest.mark.parametrize('code', [c for c in range(0xC0, 0xD0) if c not in (0xC4, 0xC8, 0xCC)])
def test_all_frame_headers_of_a_jpeg_state_a_size(code):
    header = bytes([0xFF, code]) + frame_header(640, 480)[2:]
    data = b'\xff\xd8' + header + b'\xff\xda\x00\x02' + b'\xff\xd9'
    assert stated_size(data) == Stated('JPEG', 640, 480)


def test_a_jpeg_of_thousands_of_scans():
    data = encoded('.jpg', cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    scan = data.index(b'\xff\xda')
    bomb = data[:-2] + data[scan:-2] * 50 + b'\xff\xd9'
    with pytest.raises(EncodedImageError, match='more than 100 scans'):
        stated_size(bomb)


@pytest.mark.parametrize('tag', [256, 257])
def test_a_tiff_that_states_its_size_twice(tag):
    with pytest.raises(EncodedImageError, match=f'it has tag {tag} twice'):
        stated_size(tiff((tag, 3, 1, 16384)))


def test_a_tiff_whose_size_is_no_number():
    data = tiff()
    position = data.index(struct.pack('<HHI', 256, 3, 1))
    for kind, count in ((12, 1), (3, 2), (16, 1)):
        changed = struct.pack('<HHI', 256, kind, count)
        with pytest.raises(EncodedImageError, match='tag 256 is not a number'):
            stated_size(data[:position] + changed + data[position + 8 :])


def test_a_tiff_with_tiles_beyond_all_measure():
    with pytest.raises(EncodedImageError, match='tiles of 16384x16384 pixels for an image of 3x2'):
        stated_size(tiff((322, 3, 1, 16384), (323, 3, 1, 16384)))


def test_a_png_with_two_headers():
    second = (b'IHDR', struct.pack('>IIBBBBB', 20000, 20000, 8, 0, 0, 0, 0))
    assert stated_size(png(16, 16)) == Stated('PNG', 16, 16)
    with pytest.raises(EncodedImageError, match='two headers'):
        stated_size(png(16, 16, second))


def test_a_png_whose_texts_would_be_inflated_by_the_thousand():
    text = (b'zTXt', b'Comment\0\0' + zlib.compress(bytes(1 << 20)))
    texts = [text, (b'iTXt', text[1]), (b'iCCP', text[1])] * 5
    assert stated_size(png(16, 16, *texts, text)) == Stated('PNG', 16, 16)
    with pytest.raises(EncodedImageError, match='more than 16 compressed texts'):
        stated_size(png(16, 16, *texts, text, text))
    assert stated_size(png(16, 16, *[(b'tEXt', b'a\0b')] * 100)) == Stated('PNG', 16, 16)


@pytest.mark.parametrize('filling', [b' ', b'#\n'])
def test_a_pnm_whose_header_is_megabytes(filling):
    # The memory of the search is a multiple of what is searched.
    head, tail = b'P5\n', b'16 1\n255\n' + bytes(16)
    assert stated_size(head + filling * 1000 + tail) == Stated('PNM', 16, 1)
    with pytest.raises(EncodedImageError, match='does not state a size'):
        stated_size(head + filling * (1 << 16) + tail)


def test_animations_are_no_images():
    with pytest.raises(EncodedImageError, match='PNG data is an animation'):
        stated_size(png(16, 16, (b'acTL', bytes(8))))
    webp = b'RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0' + b'\x02\0\0\0' + b'\x3f\0\0\x2f\0\0'
    with pytest.raises(EncodedImageError, match='WebP data is an animation'):
        stated_size(webp)


def test_what_holds_another_size_than_it_states_is_refused():
    data = encoded('.png')
    with pytest.raises(EncodedImageError, match='states 32x48 pixels, but holds 64x48'):
        decode_image(data, Stated('PNG', 32, 48), cv2.IMREAD_UNCHANGED, MAX_PIXELS)
    # Lying on its side it may be turned, but only where that is asked for.
    turned = Stated('PNG', HEIGHT, WIDTH)
    assert decode_image(data, turned, cv2.IMREAD_COLOR, MAX_PIXELS).shape == (HEIGHT, WIDTH, 3)
    with pytest.raises(EncodedImageError, match='states 48x64'):
        decode_image(data, turned, cv2.IMREAD_UNCHANGED, MAX_PIXELS)


def test_files_have_a_limit_too(tmp_path):
    path = tmp_path / 'large.png'
    path.write_bytes(png(8001, 8000))
    with pytest.raises(EncodedImageError, match='8001x8000 is beyond the limit of 64000000'):
        read_image(path, cv2.IMREAD_COLOR)
    path.write_bytes(encoded('.png'))
    assert np.array_equal(read_image(path, cv2.IMREAD_COLOR), picture())
    with pytest.raises(EncodedImageError, match='no such file'):
        read_image(tmp_path / 'none.png', cv2.IMREAD_COLOR)
    with pytest.raises(EncodedImageError, match='it is not a file'):
        read_image(tmp_path, cv2.IMREAD_COLOR)


def test_a_file_of_holes_is_not_read(tmp_path):
    path = tmp_path / 'sparse.png'
    with path.open('wb') as file:
        file.write(encoded('.png'))
        file.truncate(1 << 40)
    with pytest.raises(EncodedImageError, match='more than 1024 MiB'):
        read_image(path, cv2.IMREAD_COLOR)


def test_opencv_itself_refuses_what_is_beyond_every_limit(tmp_path):
    path = tmp_path / 'large.png'
    path.write_bytes(png(8001, 8000))
    program = (
        'import sys, dig2dig_ros, cv2\n'
        'try:\n    image = cv2.imread(sys.argv[1])\n'
        'except cv2.error:\n    image = None\n'
        'print(image is None)'
    )
    done = subprocess.run(
        [sys.executable, '-c', program, str(path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == 'True'
