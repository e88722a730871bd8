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

"""Image messages to arrays and back: every encoding, layout and way to be malformed."""

from array import array as byte_array
from dataclasses import dataclass, field, replace
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from dig2dig_ros.streams import codec, cv_bridge_trial
from dig2dig_ros.streams.codec import (
    check,
    check_compressed,
    CodecError,
    decode,
    decode_compressed,
    encode,
    encode_compressed,
)

HEIGHT, WIDTH = 12, 16
NATIVE = '>' if sys.byteorder == 'big' else '<'


@dataclass
class PlainImage:
    """What a bag reader without ROS yields: the same fields, data as a NumPy array."""

    header: object = None
    height: int = 0
    width: int = 0
    encoding: str = ''
    is_bigendian: int = 0
    step: int = 0
    data: object = field(default_factory=lambda: np.empty(0, np.uint8))


@pytest.fixture(params=['ros', 'plain'])
def image_type(request):
    if request.param == 'ros':
        return pytest.importorskip('sensor_msgs.msg').Image
    return PlainImage


def plain(encoding, pixels, step=None, is_bigendian=NATIVE == '>', height=None):
    """Return a message whose rows are those of ``pixels``, padded with 0xAB up to ``step``."""
    rows = np.ascontiguousarray(pixels).view(np.uint8).reshape(len(pixels), -1)
    step = step or rows.shape[1]
    data = np.full((len(rows), step), 0xAB, np.uint8)
    data[:, : rows.shape[1]] = rows
    return PlainImage(
        height=height or len(pixels),
        width=pixels.shape[1],
        encoding=encoding,
        is_bigendian=int(is_bigendian),
        step=step,
        data=data.reshape(-1),
    )


def random_pixels(encoding, seed=0):
    generator = np.random.default_rng(seed)
    if encoding == '32FC1':
        return generator.normal(size=(HEIGHT, WIDTH)).astype(np.float32)
    if encoding in ('mono16', '16UC1'):
        return generator.integers(0, 65536, (HEIGHT, WIDTH), dtype=np.uint16)
    if encoding in ('mono8', '8UC1'):
        return generator.integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)
    return generator.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def colour_patches(height=32, width=48):
    """Return a BGR image of six flat colours; flat, so that subsampled chroma loses nothing."""
    colours = [(200, 30, 40), (30, 180, 60), (20, 40, 220), (60, 90, 120), (0, 0, 0), (255,) * 3]
    image = np.empty((height, width, 3), np.uint8)
    for index, colour in enumerate(colours):
        row, column = divmod(index, 3)
        rows = slice(row * height // 2, (row + 1) * height // 2)
        image[rows, column * width // 3 : (column + 1) * width // 3] = colour
    return image


def inside_patches(height=32, width=48, margin=2):
    """Return the pixels that are not beside a border between patches."""
    mask = np.zeros((height, width), bool)
    for row in range(2):
        for column in range(3):
            rows = slice(row * height // 2 + margin, (row + 1) * height // 2 - margin)
            columns = slice(column * width // 3 + margin, (column + 1) * width // 3 - margin)
            mask[rows, columns] = True
    return mask


def yuv(bgr):
    """Convert to Y, U, V by ITU-R BT.601 with 8-bit video range."""
    blue, green, red = (bgr[..., channel].astype(np.float64) / 255.0 for channel in range(3))
    y = 0.299 * red + 0.587 * green + 0.114 * blue
    u = (blue - y) / 1.772
    v = (red - y) / 1.402
    return tuple(
        np.rint(plane).astype(np.uint8) for plane in (16 + 219 * y, 128 + 224 * u, 128 + 224 * v)
    )


def mosaic(bgr, pattern):
    """Sample one colour a pixel; ``pattern`` names the first two rows' colours, as ROS does."""
    channel = {'b': 0, 'g': 1, 'r': 2}
    raw = np.empty(bgr.shape[:2], bgr.dtype)
    for position, colour in enumerate(pattern):
        row, column = divmod(position, 2)
        raw[row::2, column::2] = bgr[row::2, column::2, channel[colour]]
    return raw


@pytest.mark.parametrize('encoding', codec.WRITABLE_ENCODINGS)
def test_round_trip(encoding, image_type):
    pixels = random_pixels(encoding)
    header = image_type().header if image_type is not PlainImage else SimpleNamespace(frame_id='')
    header.frame_id = 'camera_optical_frame'

    message = encode(pixels, encoding, header, image_type)

    assert message.header is header
    assert (message.height, message.width) == (HEIGHT, WIDTH)
    assert message.encoding == encoding
    assert message.step == pixels.strides[0]
    assert message.is_bigendian == (NATIVE == '>')
    assert isinstance(message.data, byte_array)
    assert len(message.data) == pixels.nbytes
    result = decode(message)
    assert result.dtype == pixels.dtype
    np.testing.assert_array_equal(result, pixels)


def test_rgb8_is_swapped_on_the_wire():
    blue = np.zeros((2, 2, 3), np.uint8)
    blue[..., 0] = 200
    assert bytes(encode(blue, 'rgb8', None, PlainImage).data[:3]) == bytes([0, 0, 200])
    assert bytes(encode(blue, 'bgr8', None, PlainImage).data[:3]) == bytes([200, 0, 0])


def test_encode_of_a_strided_array_copies_the_right_pixels():
    pixels = random_pixels('bgr8')
    for strided in (pixels[::2, ::3], pixels[:, ::-1], pixels[..., ::-1]):
        for encoding in ('bgr8', 'rgb8'):
            message = encode(strided, encoding, None, PlainImage)
            np.testing.assert_array_equal(decode(message), strided)


def test_encode_does_not_share_memory():
    pixels = random_pixels('mono8')
    message = encode(pixels, 'mono8', None, PlainImage)
    assert not np.shares_memory(np.frombuffer(message.data, np.uint8), pixels)


@pytest.mark.parametrize(
    ('encoding', 'pixels'),
    [
        ('bgr8', np.zeros((4, 4), np.uint8)),
        ('bgr8', np.zeros((4, 4, 4), np.uint8)),
        ('bgr8', np.zeros((4, 4, 3), np.float32)),
        ('mono8', np.zeros((4, 4, 3), np.uint8)),
        ('mono8', np.zeros((4, 4), np.uint16)),
        ('mono8', np.zeros(4, np.uint8)),
        ('mono8', np.zeros((0, 4), np.uint8)),
        ('mono16', np.zeros((4, 4), np.int16)),
        ('32FC1', np.zeros((4, 4), np.float64)),
    ],
)
def test_encode_refuses_what_does_not_fit(encoding, pixels):
    with pytest.raises(CodecError, match=f"'{encoding}'.*{pixels.dtype}.*it takes"):
        encode(pixels, encoding, None, PlainImage)


@pytest.mark.parametrize('encoding', ['yuv422', 'bayer_rggb8', 'h264'])
def test_encode_refuses_other_encodings(encoding):
    with pytest.raises(CodecError, match=f"'{encoding}'.*bgr8"):
        encode(np.zeros((4, 4), np.uint8), encoding, None, PlainImage)


@pytest.mark.parametrize('encoding', ['mono8', '8UC1', 'mono16', '16UC1', '32FC1', 'bgr8', '8UC3'])
@pytest.mark.parametrize('padding', [0, 8])
def test_no_copy_even_of_padded_rows(encoding, padding):
    pixels = random_pixels(encoding)
    message = plain(encoding, pixels, step=pixels.strides[0] + padding)
    result = decode(message)
    np.testing.assert_array_equal(result, pixels)
    assert np.shares_memory(result, message.data)
    assert result.strides[0] == pixels.strides[0] + padding


@pytest.mark.parametrize('kind', [bytes, bytearray, memoryview, byte_array])
def test_no_copy_of_any_buffer(kind):
    pixels = random_pixels('mono8')
    message = plain('mono8', pixels)
    raw = message.data.tobytes()
    message.data = byte_array('B', raw) if kind is byte_array else kind(raw)
    result = decode(message)
    np.testing.assert_array_equal(result, pixels)
    assert np.shares_memory(result, np.frombuffer(message.data, np.uint8))


def test_the_last_row_needs_no_padding():
    pixels = random_pixels('mono16')
    message = plain('mono16', pixels, step=pixels.strides[0] + 6)
    message.data = message.data[:-6]
    np.testing.assert_array_equal(decode(message), pixels)


@pytest.mark.parametrize('encoding', ['mono16', '16UC1', '32FC1'])
@pytest.mark.parametrize('padding', [0, 8])
def test_the_other_byte_order(encoding, padding):
    pixels = random_pixels(encoding)
    message = plain(
        encoding,
        pixels.byteswap(),
        step=pixels.strides[0] + padding,
        is_bigendian=NATIVE == '<',
    )
    result = decode(message)
    assert result.dtype == pixels.dtype
    assert result.dtype.isnative
    np.testing.assert_array_equal(result, pixels)


def test_bytes_have_no_order():
    pixels = random_pixels('mono8')
    np.testing.assert_array_equal(decode(plain('mono8', pixels, is_bigendian=True)), pixels)


@pytest.mark.parametrize('encoding', ['mono16', '32FC1'])
def test_odd_addresses_and_steps_give_an_aligned_array(encoding):
    pixels = random_pixels(encoding)
    message = plain(encoding, pixels, step=pixels.strides[0] + 1)
    storage = np.empty(message.data.size + 1, np.uint8)
    storage[1:] = message.data
    message.data = storage[1:]
    result = decode(message)
    assert result.flags.aligned
    np.testing.assert_array_equal(result, pixels)


def test_float_keeps_what_is_not_finite():
    pixels = np.array([[np.nan, np.inf], [-np.inf, 1.0]], np.float32)
    np.testing.assert_array_equal(decode(plain('32FC1', pixels)), pixels)


@pytest.mark.parametrize('padding', [0, 5])
@pytest.mark.parametrize(
    ('encoding', 'order'),
    [
        ('rgb8', [2, 1, 0]),
        ('bgra8', [0, 1, 2, 3]),
        ('rgba8', [2, 1, 0, 3]),
    ],
)
def test_channel_orders_become_bgr(encoding, order, padding):
    bgr = random_pixels('bgr8')
    pixels = np.dstack([bgr, np.full((HEIGHT, WIDTH), 77, np.uint8)])[..., order]
    result = decode(plain(encoding, pixels, step=WIDTH * len(order) + padding))
    np.testing.assert_array_equal(result, bgr)
    assert result.flags.c_contiguous


@pytest.mark.parametrize('padding', [0, 6])
@pytest.mark.parametrize(
    ('encoding', 'luma_first'),
    [('yuv422', False), ('uyvy', False), ('yuv422_yuy2', True), ('yuyv', True)],
)
def test_packed_yuv(encoding, luma_first, padding):
    bgr = colour_patches()
    y, u, v = yuv(bgr)
    chroma = np.where(np.arange(bgr.shape[1]) % 2 == 0, u, v)
    pixels = np.dstack([y, chroma] if luma_first else [chroma, y])
    result = decode(plain(encoding, pixels, step=2 * bgr.shape[1] + padding))
    assert result.shape == bgr.shape
    assert result.dtype == np.uint8
    np.testing.assert_allclose(result.astype(int), bgr, atol=3)


@pytest.mark.parametrize('padding', [0, 16])
@pytest.mark.parametrize(('encoding', 'u_first'), [('nv12', True), ('nv21', False)])
def test_two_plane_yuv(encoding, u_first, padding):
    bgr = colour_patches()
    height, width = bgr.shape[:2]
    y, u, v = yuv(bgr)
    pair = (u, v) if u_first else (v, u)
    chroma = np.dstack([plane[::2, ::2] for plane in pair]).reshape(height // 2, width)
    message = plain(encoding, np.vstack([y, chroma]), step=width + padding, height=height)
    result = decode(message)
    assert result.shape == bgr.shape
    np.testing.assert_allclose(result.astype(int), bgr, atol=3)


@pytest.mark.parametrize('step', [0, 72, 96])
def test_two_plane_yuv_without_padding_needs_no_right_step(step):
    bgr = colour_patches()
    height, width = bgr.shape[:2]
    y, u, v = yuv(bgr)
    chroma = np.dstack([u[::2, ::2], v[::2, ::2]]).reshape(height // 2, width)
    message = plain('nv12', np.vstack([y, chroma]), height=height)
    message.step = step
    np.testing.assert_allclose(decode(message).astype(int), bgr, atol=3)


@pytest.mark.parametrize('padding', [0, 10])
@pytest.mark.parametrize('pattern', ['rggb', 'bggr', 'gbrg', 'grbg'])
def test_bayer_colours(pattern, padding):
    bgr = colour_patches()
    raw = mosaic(bgr, pattern)
    inside = inside_patches()
    eight = decode(plain(f'bayer_{pattern}8', raw, step=raw.shape[1] + padding))
    np.testing.assert_array_equal(eight[inside], bgr[inside])
    wide = raw.astype(np.uint16) * 257
    sixteen = decode(plain(f'bayer_{pattern}16', wide, step=2 * raw.shape[1] + padding))
    assert sixteen.dtype == np.uint8
    np.testing.assert_array_equal(sixteen[inside], bgr[inside])


def test_bayer_16_in_the_other_byte_order():
    raw = mosaic(colour_patches(), 'rggb').astype(np.uint16) * 257
    swapped = plain('bayer_rggb16', raw.byteswap(), is_bigendian=NATIVE == '<')
    np.testing.assert_array_equal(decode(swapped), decode(plain('bayer_rggb16', raw)))


def test_every_supported_encoding_is_decoded_to_the_promised_type():
    for encoding, layout in codec._LAYOUTS.items():
        rows = 12 if layout.chroma[1] == 2 else 8
        pixels = np.zeros((rows, 10, layout.channels), layout.dtype)
        result = decode(plain(encoding, pixels, height=8))
        assert result.shape in [(8, 10), (8, 10, 3)], encoding
        assert result.dtype in (np.uint8, np.uint16, np.float32), encoding
        assert result.ndim == 2 or result.dtype == np.uint8, encoding


@pytest.mark.parametrize(
    ('change', 'reason'),
    [
        ({'width': 0}, 'no pixels'),
        ({'height': 0}, 'no pixels'),
        ({'step': WIDTH * 3 - 1}, 'step 47 is less than the 48 bytes'),
        ({'step': 0}, 'step 0'),
        ({'data': np.zeros(HEIGHT * WIDTH * 3 - 1, np.uint8)}, '575 bytes of data are too few'),
        ({'data': b''}, '0 bytes of data'),
        ({'data': np.empty(0, np.uint8)}, '0 bytes of data'),
        ({'step': WIDTH * 3 + 1}, 'too few'),
        ({'height': 2**32 - 1, 'width': 2**32 - 1, 'step': 2**32 - 1}, 'beyond the limit'),
        ({'height': 8001, 'width': 8000, 'step': 24000}, '8000x8001 is beyond the limit'),
        ({'data': [0] * (HEIGHT * WIDTH * 3)}, r'data \(list\)'),
        ({'data': None}, r'data \(NoneType\)'),
        ({'data': np.zeros((HEIGHT * WIDTH * 3, 2), np.uint8)[:, 0]}, r'data \(ndarray\)'),
    ],
)
def test_malformed_messages_are_refused(change, reason):
    message = plain('bgr8', random_pixels('bgr8'))
    for name, value in change.items():
        setattr(message, name, value)
    with pytest.raises(CodecError, match=f"'/camera/image_raw'.*'bgr8'.*{reason}"):
        decode(message, '/camera/image_raw')


@pytest.mark.parametrize('encoding', ['mono8', 'bgr8', 'nv12', 'unheard-of'])
def test_data_far_beyond_the_image_is_refused_at_the_door(encoding):
    message = PlainImage(
        height=16,
        width=16,
        encoding=encoding,
        is_bigendian=0,
        step=48 if encoding == 'bgr8' else 16,
        data=bytes(20_000_000),
    )
    with pytest.raises(CodecError, match='20000000 bytes of data are far more than the'):
        check(message)


def test_a_row_longer_than_any_image_is_refused_at_the_door():
    message = PlainImage(None, 16, 16, 'mono8', 0, 1_000_000, bytes(16_000_000))
    with pytest.raises(CodecError, match='step 1000000 is longer than any row'):
        check(message)


def test_a_driver_may_send_its_whole_buffer():
    pixels = random_pixels('mono8')
    message = plain('mono8', pixels)
    # Of a page, and of the colour that nobody asked for.
    for rest in (65_536, message.data.size):
        message.data = np.concatenate([message.data, np.zeros(rest, np.uint8)])
        check(message)
        np.testing.assert_array_equal(decode(message), pixels)
        message = plain('mono8', pixels)
    # Of an image that this one is a part of.
    part = plain('mono8', pixels, step=4096)
    check(part)
    np.testing.assert_array_equal(decode(part), pixels)


@pytest.mark.parametrize('suffix', ['.png', '.jpg', '.tif'])
def test_compressed_data_far_beyond_its_image_is_refused_at_the_door(suffix):
    data = cv2.imencode(suffix, random_pixels('mono8'))[1].tobytes()
    check_compressed(SimpleNamespace(format='mono8', data=data))
    # Not with more behind it than is worth a look.
    check_compressed(SimpleNamespace(format='mono8', data=data + bytes(1 << 21)))
    tail = bytes(20_000_000) + b'IEND\xaeB`\x82\xff\xd9'
    with pytest.raises(CodecError, match=r'bytes of data are far more than a .* of 16x12|ends'):
        check_compressed(SimpleNamespace(format='mono8', data=data + tail))


def test_large_compressed_data_may_be_a_large_image():
    noise = np.random.default_rng(0).integers(0, 256, (1700, 1800, 3), np.uint8)
    data = cv2.imencode('.png', noise)[1].tobytes()
    message = SimpleNamespace(format='bgr8; png', data=data)
    assert len(message.data) > 1 << 23
    check_compressed(message)
    with pytest.raises(CodecError, match='beyond the limit of 1000000 pixels'):
        check_compressed(message, max_pixels=1_000_000)


def test_malformed_ros_message_is_refused(image_type):
    with pytest.raises(CodecError, match='no pixels'):
        decode(image_type())


@pytest.mark.parametrize(
    ('encoding', 'shape', 'reason'),
    [
        ('yuv422', (4, 5, 2), '2x1'),
        ('nv12', (6, 5), '2x2'),
        ('bayer_rggb8', (4, 2), 'too small'),
    ],
)
def test_sizes_that_an_encoding_cannot_have(encoding, shape, reason):
    with pytest.raises(CodecError, match=reason):
        decode(plain(encoding, np.zeros(shape, np.uint8), height=4))


def test_odd_heights_of_two_plane_images():
    with pytest.raises(CodecError, match='2x2'):
        decode(plain('nv12', np.zeros((5, 4), np.uint8)))


def test_the_limit_of_pixels_is_a_setting():
    message = plain('mono8', random_pixels('mono8'))
    assert decode(message, max_pixels=HEIGHT * WIDTH).shape == (HEIGHT, WIDTH)
    with pytest.raises(CodecError, match='beyond'):
        decode(message, max_pixels=HEIGHT * WIDTH - 1)


@pytest.mark.parametrize(
    ('encoding', 'pixels', 'expected'),
    [
        ('8SC1', np.full((4, 4), -5, np.int8), np.full((4, 4), -5, np.float32)),
        ('16SC1', np.full((4, 4), -500, np.int16), np.full((4, 4), -500, np.float32)),
        ('32SC1', np.full((4, 4), 29315, np.int32), np.full((4, 4), 29315, np.float32)),
        ('64FC1', np.full((4, 4), 293.5), np.full((4, 4), 293.5, np.float32)),
        ('64FC1', np.full((4, 4), 1e300), np.full((4, 4), np.inf, np.float32)),
        ('8UC4', np.full((4, 4, 4), [9, 8, 7, 1], np.uint8), [9, 8, 7]),
        ('bgr16', np.full((4, 4, 3), [257 * 9, 257 * 8, 65535], np.uint16), [9, 8, 255]),
        ('16UC3', np.full((4, 4, 3), [257 * 9, 257 * 8, 65535], np.uint16), [9, 8, 255]),
        ('rgb16', np.full((4, 4, 3), [65535, 257 * 8, 257 * 9], np.uint16), [9, 8, 255]),
        ('bgra16', np.full((4, 4, 4), [257 * 9, 257 * 8, 65535, 5], np.uint16), [9, 8, 255]),
        ('16UC4', np.full((4, 4, 4), [257 * 9, 257 * 8, 65535, 5], np.uint16), [9, 8, 255]),
        ('rgba16', np.full((4, 4, 4), [65535, 257 * 8, 257 * 9, 5], np.uint16), [9, 8, 255]),
    ],
)
@pytest.mark.parametrize('other_order', [False, True])
def test_wide_colour_and_signed_numbers(encoding, pixels, expected, other_order, monkeypatch):
    monkeypatch.setitem(sys.modules, 'cv_bridge', None)
    if pixels.ndim == 3:
        expected = np.full((4, 4, 3), expected, np.uint8)
    big = (NATIVE == '>') != other_order
    ordered = pixels.astype(pixels.dtype.newbyteorder('>' if big else '<'))
    message = plain(encoding, ordered, step=4 * pixels.strides[1] + 8, is_bigendian=big)
    codec.check(message)
    result = decode(message)
    assert result.dtype == expected.dtype
    np.testing.assert_array_equal(result, expected)


@pytest.fixture
def forget_cv_bridge():
    cv_bridge_trial.forget()
    yield
    cv_bridge_trial.forget()
    sys.modules.pop('cv_bridge', None)


@pytest.mark.usefixtures('forget_cv_bridge')
class TestOtherEncodings:
    """What the codec does not know goes to cv_bridge, or is refused with reasons."""

    message = plain('nv24', np.zeros((4, 4), np.uint8))

    def with_bridge(self, monkeypatch, folder, body, head=''):
        """Install a cv_bridge whose conversion has this body."""
        monkeypatch.delitem(sys.modules, 'cv_bridge', raising=False)
        package = folder / 'cv_bridge'
        package.mkdir()
        (package / '__init__.py').write_text(
            f'import os, signal\nimport numpy as np\n{head}\n'
            f'class CvBridge:\n    def imgmsg_to_cv2(self, message, desired):\n        {body}\n'
        )
        monkeypatch.syspath_prepend(folder)

    def test_without_cv_bridge(self, monkeypatch):
        monkeypatch.setitem(sys.modules, 'cv_bridge', None)
        for read in (codec.check, decode):
            with pytest.raises(CodecError) as caught:
                read(self.message, '/camera/image_raw')
            for part in ('/camera/image_raw', "'nv24'", 'installed', *codec.SUPPORTED_ENCODINGS):
                assert part in str(caught.value)

    @pytest.mark.parametrize('error', ['AttributeError', 'SystemError', 'ImportError'])
    def test_with_a_broken_cv_bridge(self, monkeypatch, tmp_path, error):
        attempts = tmp_path / 'attempts'
        head = f"open({str(attempts)!r}, 'a').write('x')\nraise {error}('_ARRAY_API not found')"
        self.with_bridge(monkeypatch, tmp_path, 'pass', head)
        # The thread that takes messages in does not wait for the trial.
        codec.check(self.message)
        for read in (decode, decode, codec.check):
            with pytest.raises(CodecError, match=r'_ARRAY_API not found.*mono8'):
                read(self.message)
        assert attempts.read_text() == 'x'

    def test_a_cv_bridge_that_crashes_takes_a_child_with_it_and_not_the_node(
        self, monkeypatch, tmp_path
    ):
        self.with_bridge(monkeypatch, tmp_path, 'os.kill(os.getpid(), signal.SIGSEGV)')
        for read in (decode, codec.check):
            with pytest.raises(CodecError, match=r'cv_bridge crashes \(SIGSEGV\).*another NumPy'):
                read(self.message)

    def test_cv_bridge_makes_colour(self, monkeypatch, tmp_path):
        body = (
            'return np.full((message.height, message.width, 3), 7 * (desired == "bgr8"), np.uint8)'
        )
        self.with_bridge(monkeypatch, tmp_path, body)
        np.testing.assert_array_equal(decode(self.message), np.full((4, 4, 3), 7, np.uint8))

    @pytest.mark.parametrize('encoding', ['8UC2', '32FC2', '8SC3', '64FC4', '16UC5'])
    def test_what_no_fusion_can_use_is_refused(self, encoding):
        message = plain(encoding, np.zeros((4, 4, 2), np.float32))
        for read in (codec.check, decode):
            with pytest.raises(CodecError, match=f"'{encoding}'.*cannot be fused"):
                read(message)

    @pytest.mark.parametrize(
        ('body', 'reason'),
        [
            ('raise TypeError("no conversion")', 'cannot convert it .*no conversion'),
            ('return np.zeros((9, 9), np.uint8)', r'returned an image of shape \(9, 9\)'),
            ('return np.zeros((4, 4, 2), np.uint8)', 'cannot be fused'),
        ],
    )
    def test_cv_bridge_that_fails_only_now(self, monkeypatch, tmp_path, body, reason):
        fine = 'return np.zeros((message.height, message.width), np.uint8)'
        sound = f'if message.encoding != "nv24": {fine}\n        {body}'
        self.with_bridge(monkeypatch, tmp_path, sound)
        with pytest.raises(CodecError, match=f"'nv24'.*{reason}"):
            decode(self.message)

    def test_sizes_are_checked_first(self, monkeypatch, tmp_path):
        self.with_bridge(monkeypatch, tmp_path, 'pass', 'raise RuntimeError("asked")')
        with pytest.raises(CodecError, match='no pixels'):
            decode(replace(self.message, width=0))


def compressed(extension, pixels, format_text):
    done, data = cv2.imencode(extension, pixels, [cv2.IMWRITE_JPEG_QUALITY, 98])
    assert done
    return SimpleNamespace(format=format_text, data=data.reshape(-1))


def smooth(shape, scale=1):
    ramp = np.linspace(20, 200, shape[1]) + np.linspace(0, 40, shape[0])[:, None]
    if len(shape) == 3:
        ramp = np.dstack([ramp, 0.5 * ramp, 255 - ramp])
    return np.rint(ramp * scale).astype(np.uint8 if scale == 1 else np.uint16)


@pytest.mark.parametrize('format_text', ['bgr8; jpeg compressed bgr8', 'jpeg', 'jpg', ''])
def test_compressed_jpeg_colour(format_text):
    pixels = smooth((HEIGHT, WIDTH, 3))
    result = decode_compressed(compressed('.jpg', pixels, format_text))
    assert result.dtype == np.uint8
    np.testing.assert_allclose(result.astype(int), pixels, atol=12)


@dataclass
class PlainCompressed:
    """The fields of a compressed message."""

    header: object = None
    format: str = ''
    data: object = b''


@pytest.mark.parametrize(
    ('encoding', 'kind', 'format_text'),
    [
        ('bgr8', 'jpeg', 'bgr8; jpeg compressed bgr8'),
        ('rgb8', 'jpeg', 'rgb8; jpeg compressed bgr8'),
        ('mono8', 'jpeg', 'mono8; jpeg compressed mono8'),
        ('rgb8', 'png', 'rgb8; png compressed bgr8'),
        ('mono8', 'png', 'mono8; png compressed '),
        ('mono16', 'png', 'mono16; png compressed '),
    ],
)
def test_compression_writes_what_image_transport_writes(encoding, kind, format_text):
    is_wide = encoding == 'mono16'
    pixels = smooth((HEIGHT, WIDTH, 3)[: 2 + ('mono' not in encoding)], 200 if is_wide else 1)
    header = object()
    message = encode_compressed(pixels, encoding, header, PlainCompressed, kind=kind)
    assert message.format == format_text
    assert message.header is header
    result = decode_compressed(message)
    assert result.dtype == pixels.dtype
    atol = 12 if kind == 'jpeg' else 0
    np.testing.assert_allclose(result.astype(int), pixels.astype(int), atol=atol)


def test_quality_of_jpeg_is_paid_for_in_bytes():
    pixels = random_pixels('bgr8')
    messages = [
        encode_compressed(pixels, 'bgr8', None, PlainCompressed, jpeg_quality=quality)
        for quality in (1, 50, 100)
    ]
    small, middle, large = (len(message.data) for message in messages)
    assert small < middle < large
    np.testing.assert_allclose(decode_compressed(messages[-1]).mean(), pixels.mean(), atol=4)


def test_a_compressed_message_of_ros_is_filled():
    kind = pytest.importorskip('sensor_msgs.msg').CompressedImage
    pixels = random_pixels('bgr8')
    header = pytest.importorskip('std_msgs.msg').Header(frame_id='camera')
    message = encode_compressed(pixels, 'bgr8', header, kind, kind='png')
    assert message.header.frame_id == 'camera'
    np.testing.assert_array_equal(decode_compressed(message), pixels)


@pytest.mark.parametrize(
    ('pixels', 'kind', 'reason'),
    [
        (np.zeros((4, 4), np.uint16), 'jpeg', 'it takes uint8$'),
        (np.zeros((4, 4), np.float32), 'png', r'float32 .*or uint16 of shape \(H, W\)'),
        (np.zeros((4, 4, 3), np.uint16), 'png', 'or uint16 of shape'),
        (np.zeros((0, 4), np.uint8), 'jpeg', 'cannot compress'),
        (np.zeros((4, 4, 3), np.uint8), 'unheard-of', 'cannot compress'),
    ],
)
def test_what_a_format_cannot_hold_is_refused(pixels, kind, reason):
    with pytest.raises(CodecError, match=reason):
        encode_compressed(pixels, 'bgr8', None, PlainCompressed, kind=kind)


def test_compressed_message_of_ros():
    message = pytest.importorskip('sensor_msgs.msg').CompressedImage()
    pixels = random_pixels('bgr8')
    message.format = 'rgb8; png compressed bgr8'
    message.data = cv2.imencode('.png', pixels)[1].tobytes()
    np.testing.assert_array_equal(decode_compressed(message), pixels)


@pytest.mark.parametrize('extension', ['.jpg', '.png'])
def test_compressed_in_rgb_order(extension):
    pixels = smooth((HEIGHT, WIDTH, 3))
    name = 'jpeg' if extension == '.jpg' else 'png'
    message = compressed(extension, pixels[..., ::-1], f'rgb8; {name} compressed rgb8')
    result = decode_compressed(message)
    np.testing.assert_allclose(result.astype(int), pixels, atol=30)


def test_compressed_jpeg_grey():
    pixels = smooth((HEIGHT, WIDTH))
    result = decode_compressed(compressed('.jpg', pixels, 'mono8; jpeg compressed '))
    assert result.shape == pixels.shape
    assert result.dtype == np.uint8
    np.testing.assert_allclose(result.astype(int), pixels, atol=4)


@pytest.mark.parametrize('source', ['mono16', '16UC1'])
def test_compressed_jpeg_of_16_bits_is_scaled_back(source):
    pixels = smooth((HEIGHT, WIDTH))
    result = decode_compressed(compressed('.jpg', pixels, f'{source}; jpeg compressed '))
    assert result.dtype == np.uint16
    np.testing.assert_allclose(result.astype(int), pixels.astype(int) * 256, atol=4 * 256)


@pytest.mark.parametrize(
    ('shape', 'scale', 'format_text'),
    [
        ((HEIGHT, WIDTH), 200, 'mono16; png compressed '),
        ((HEIGHT, WIDTH), 200, '16UC1; png compressed '),
        ((HEIGHT, WIDTH), 200, 'png'),
        ((HEIGHT, WIDTH), 1, 'mono8; png compressed '),
        ((HEIGHT, WIDTH, 3), 1, 'bgr8; png compressed bgr8'),
    ],
)
def test_compressed_png_is_lossless(shape, scale, format_text):
    pixels = smooth(shape, scale)
    result = decode_compressed(compressed('.png', pixels, format_text))
    assert result.dtype == pixels.dtype
    np.testing.assert_array_equal(result, pixels)


def test_compressed_png_of_wide_or_transparent_colour_becomes_bgr8():
    pixels = smooth((HEIGHT, WIDTH, 3))
    wide = compressed('.png', pixels.astype(np.uint16) * 257, 'png')
    np.testing.assert_array_equal(decode_compressed(wide), pixels)
    alpha = np.dstack([pixels, np.full((HEIGHT, WIDTH), 99, np.uint8)])
    np.testing.assert_array_equal(decode_compressed(compressed('.png', alpha, 'png')), pixels)


# What image_transport's `compressed` writes: encoding, file kind and what it converts to before.
WRITTEN_FORMATS = [
    ('bgr8', '.jpg', 'jpeg compressed bgr8'),
    ('rgb8', '.jpg', 'jpeg compressed bgr8'),
    ('rgba8', '.jpg', 'jpeg compressed bgr8'),
    ('bgr16', '.jpg', 'jpeg compressed bgr8'),
    ('bgr8', '.png', 'png compressed bgr8'),
    ('rgb8', '.png', 'png compressed bgr8'),
    ('bgr16', '.png', 'png compressed bgr16'),
    ('rgb16', '.png', 'png compressed bgr16'),
    ('bgr8', '.tiff', 'tiff compressed '),
    ('bgra8', '.tiff', 'tiff compressed '),
    ('rgb8', '.tiff', 'tiff compressed '),
    ('rgba8', '.tiff', 'tiff compressed '),
    ('rgb16', '.tiff', 'tiff compressed '),
]


@pytest.mark.parametrize(('encoding', 'extension', 'how'), WRITTEN_FORMATS)
def test_compressed_colour_as_image_transport_writes_it(encoding, extension, how):
    bgr = smooth((HEIGHT, WIDTH, 3))
    pixels = bgr
    if encoding.startswith('rgb') and extension == '.tiff':
        pixels = pixels[..., ::-1]
    if 'a8' in encoding and extension == '.tiff':
        pixels = np.dstack([pixels, np.full((HEIGHT, WIDTH), 50, np.uint8)])
    if encoding.endswith('16') and extension != '.jpg':
        pixels = pixels.astype(np.uint16) * 257
    result = decode_compressed(compressed(extension, pixels, f'{encoding}; {how}'))
    assert result.dtype == np.uint8
    np.testing.assert_allclose(result.astype(int), bgr, atol=12 if extension == '.jpg' else 0)


@pytest.mark.parametrize(
    ('encoding', 'pixels'),
    [
        ('mono8', smooth((HEIGHT, WIDTH))),
        ('mono16', smooth((HEIGHT, WIDTH), 200)),
        ('16UC1', smooth((HEIGHT, WIDTH), 200)),
        ('32FC1', random_pixels('32FC1')),
    ],
)
def test_compressed_tiff_is_lossless(encoding, pixels):
    result = decode_compressed(compressed('.tiff', pixels, f'{encoding}; tiff compressed '))
    assert result.dtype == pixels.dtype
    np.testing.assert_array_equal(result, pixels)


def test_compressed_tiff_in_the_other_byte_order():
    pixels = smooth((2, 3))
    entries = [(256, 3), (257, 2), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, 2)]
    entries.append((279, pixels.size))
    data = b'MM\0*' + (8 + pixels.size).to_bytes(4, 'big') + pixels.tobytes()
    data += len(entries).to_bytes(2, 'big')
    for tag, value in entries:
        data += b''.join(number.to_bytes(2, 'big') for number in (tag, 3, 0, 1, value, 0))
    message = SimpleNamespace(format='mono8; tiff compressed ', data=data + bytes(4))
    np.testing.assert_array_equal(decode_compressed(message), pixels)
    with pytest.raises(CodecError, match='3x2 is beyond the limit'):
        decode_compressed(message, max_pixels=5)


@pytest.mark.parametrize('source', ['mono16', '16UC1'])
def test_compressed_jpeg_of_16_bits_names_its_target_in_newer_versions(source):
    pixels = smooth((HEIGHT, WIDTH))
    result = decode_compressed(compressed('.jpg', pixels, f'{source}; jpeg compressed mono8'))
    assert result.dtype == np.uint16
    np.testing.assert_allclose(result.astype(int), pixels.astype(int) * 256, atol=4 * 256)


@pytest.mark.parametrize(
    ('extension', 'bits'), [('.png', 16), ('.tiff', 8), ('.jpg', 8), ('.jpg', 16)]
)
@pytest.mark.parametrize('pattern', ['rggb', 'bggr', 'gbrg', 'grbg'])
def test_compressed_bayer_mosaic_becomes_colour(pattern, bits, extension):
    bgr = np.full((32, 48, 3), (200, 120, 40), np.uint8)
    raw = mosaic(bgr, pattern)
    if bits == 16 and extension != '.jpg':
        raw = raw.astype(np.uint16) * 257
    name = {'.png': 'png', '.tiff': 'tiff', '.jpg': 'jpeg'}[extension]
    message = compressed(extension, raw, f'bayer_{pattern}{bits}; {name} compressed ')
    result = decode_compressed(message)
    assert result.dtype == np.uint8
    np.testing.assert_allclose(result.astype(int), bgr, atol=12 if extension == '.jpg' else 0)


def test_compressed_bayer_that_was_converted_before_is_as_it_is():
    grey, colour = smooth((HEIGHT, WIDTH)), smooth((HEIGHT, WIDTH, 3))
    of_grey = decode_compressed(compressed('.png', grey, 'bayer_rggb8; jpeg compressed mono8'))
    np.testing.assert_array_equal(of_grey, grey)
    of_colour = decode_compressed(compressed('.png', colour, 'bayer_rggb8; jpeg compressed bgr8'))
    np.testing.assert_array_equal(of_colour, colour)


def test_compressed_bayer_without_an_interior_is_refused():
    message = compressed('.png', np.zeros((2, 8), np.uint8), 'bayer_rggb8; png compressed ')
    with pytest.raises(CodecError, match='8x2 is too small'):
        decode_compressed(message)


@pytest.mark.parametrize('format_text', ['', 'jpeg', 'png', 'mono8; jpeg compressed ', '; ;'])
@pytest.mark.parametrize('extension', ['.png', '.tiff'])
def test_compressed_data_counts_and_not_what_the_format_calls_it(extension, format_text):
    pixels = smooth((HEIGHT, WIDTH))
    result = decode_compressed(compressed(extension, pixels, format_text))
    np.testing.assert_array_equal(result, pixels)


@pytest.mark.parametrize('format_text', ['png', 'mono8; png compressed ', 'tiff'])
def test_compressed_jpeg_under_another_name(format_text):
    pixels = smooth((HEIGHT, WIDTH))
    result = decode_compressed(compressed('.jpg', pixels, format_text))
    np.testing.assert_allclose(result.astype(int), pixels, atol=4)


@pytest.mark.parametrize('left', [0.5, 0.9])
def test_compressed_jpeg_with_a_thumbnail_cut_short(left):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    message = compressed('.jpg', pixels, 'jpeg')
    thumbnail = cv2.imencode('.jpg', pixels[:8, :8])[1].tobytes()
    segment = b'\xff\xe1' + (2 + len(thumbnail)).to_bytes(2, 'big') + thumbnail
    data = message.data.tobytes()
    data = data[:2] + segment + data[2:]
    whole = decode_compressed(SimpleNamespace(format='jpeg', data=data))
    np.testing.assert_array_equal(whole, decode_compressed(message))
    with pytest.raises(CodecError, match='ends early'):
        decode_compressed(SimpleNamespace(format='jpeg', data=data[: int(left * len(data))]))


@pytest.mark.parametrize('extension', ['.jpg', '.png', '.tiff'])
@pytest.mark.parametrize('left', [0.02, 0.3, 0.6, 0.95])
def test_compressed_data_cut_short(extension, left):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    message = compressed(extension, pixels, 'bgr8; compressed bgr8')
    message.data = message.data[: int(left * message.data.size)]
    with pytest.raises(CodecError, match=r'ends early|does not state') as caught:
        decode_compressed(message, '/camera/compressed')
    assert "'/camera/compressed' with format 'bgr8; compressed bgr8'" in str(caught.value)


def test_compressed_png_with_damaged_pixels():
    message = compressed('.png', random_pixels('bgr8'), 'png')
    message.data[60:90] = 0xFF
    with pytest.raises(CodecError, match='damaged'):
        decode_compressed(message)


@pytest.mark.parametrize(
    ('data', 'reason'),
    [
        (b'', '0 bytes are neither'),
        (b'GIF89a' + bytes(100), 'neither JPEG nor PNG nor TIFF'),
        (b'\xff\xd8\xff', 'does not state a size'),
        (b'\xff\xd8\xff\xe0' + bytes(100), 'does not state a size'),
        (b'\xff\xd8' + b'\xff' * 100 + b'\xff\xd9', 'does not state a size'),
        (b'\x89PNG\r\n\x1a\n', 'does not state a size'),
        (b'\x89PNG\r\n\x1a\n' + bytes(100), 'does not state a size'),
        (b'II*\0', 'does not state a size'),
        (b'MM\0*' + bytes(100), 'does not state a size'),
        (b'II*\0' + b'\xff' * 100, 'does not state a size'),
        (b'RIFF' + bytes(4) + b'WEBPVP8 ' + bytes(100), 'neither JPEG nor PNG nor TIFF'),
        ('text', r'data \(str\)'),
    ],
)
def test_compressed_garbage(data, reason):
    with pytest.raises(CodecError, match=reason):
        decode_compressed(SimpleNamespace(format='jpeg', data=data))


@pytest.mark.parametrize('extension', ['.jpg', '.png', '.tiff'])
def test_compressed_bombs_are_refused_before_they_open(extension, monkeypatch):
    message = compressed(extension, random_pixels('bgr8'), 'any')
    monkeypatch.setattr(cv2, 'imdecode', lambda *_: pytest.fail('decompressed'))
    with pytest.raises(CodecError, match=f'{WIDTH}x{HEIGHT} is beyond the limit'):
        decode_compressed(message, max_pixels=HEIGHT * WIDTH - 1)


def test_compressed_progressive_jpeg_states_its_size():
    pixels = smooth((HEIGHT, WIDTH, 3))
    data = cv2.imencode('.jpg', pixels, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].reshape(-1)
    result = decode_compressed(SimpleNamespace(format='jpeg', data=data))
    assert result.shape == pixels.shape


@pytest.mark.parametrize(
    'format_text', ['16UC1; compressedDepth png', '32FC1; compressedDepth rvl', 'compressedDepth']
)
def test_compressed_depth_is_named(format_text):
    message = SimpleNamespace(format=format_text, data=bytes(100))
    with pytest.raises(CodecError, match='compressedDepth transport'):
        decode_compressed(message)


@pytest.mark.parametrize('encoding', ['bgr8', 'mono16', 'nv12', 'bayer_rggb8'])
def test_check_refuses_what_decode_refuses_and_nothing_else(encoding):
    data = np.zeros(8 * 6 * 3, np.uint8)
    image = PlainImage(height=6, width=8, encoding=encoding, step=24, data=data)
    if encoding == 'nv12':
        image.data = data[: 8 * 6 * 3 // 2]
    codec.check(image)
    decode(image)
    for change in ({'width': 0}, {'step': 1, 'data': b'123'}, {'encoding': 'unheard-of'}):
        broken = replace(image, **change)
        for function in (codec.check, decode):
            with pytest.raises(CodecError, match=broken.encoding):
                function(broken)
