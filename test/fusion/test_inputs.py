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
"""Images as people have them: arrays, files, PIL images, tensors, batches, and what is refused."""

import io
from pathlib import Path
import pickle
import struct
import warnings
import zlib

import cv2
import numpy as np
import pytest
import torch

from dig2dig_ros.fusion.fuser import Fuser, FusionInputError
from dig2dig_ros.fusion.settings import FusionSettings
from dig2dig_ros.images.registration import Registration
from dig2dig_ros.images.registration_file import save_registration
from dig2dig_ros.images.thermal_range import ThermalRange

SHAPE = (48, 64)


def structure(seed):
    """Return an 8-bit image that has something to fuse."""
    rng = np.random.default_rng(seed)
    smooth = cv2.GaussianBlur(rng.standard_normal(SHAPE), (0, 0), 2)
    return cv2.normalize(smooth, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


VISIBLE = np.dstack([structure(1), structure(2), structure(3)])
THERMAL = structure(4)
COUNTS = THERMAL.astype(np.uint16) * 4 + 8000


@pytest.fixture(scope='module')
def fuser():
    return Fuser(prior='nano', device='cpu', precision='fp32')


@pytest.fixture(scope='module')
def fused(fuser):
    """Return what becomes of the two as arrays."""
    return fuser.fuse(VISIBLE, THERMAL).image


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Work in a folder with the images as files."""
    monkeypatch.chdir(tmp_path)
    for name, image in (('visible', VISIBLE), ('thermal', THERMAL), ('counts', COUNTS)):
        assert cv2.imwrite(f'{name}.png', image)


def test_files_are_the_same_as_their_pixels(fuser, fused, files):
    assert np.array_equal(fuser('visible.png', Path('thermal.png')).image, fused)
    assert np.array_equal(fuser(VISIBLE, cv2.imread('thermal.png')).image, fused)


def test_pil_images_are_rgb(fuser, fused, files):
    pil = pytest.importorskip('PIL.Image')
    assert np.array_equal(fuser(pil.open('visible.png'), pil.open('thermal.png')).image, fused)
    transparent = pil.open('visible.png').convert('RGBA')
    assert np.array_equal(fuser(transparent, pil.open('thermal.png')).image, fused)
    counts = fuser(VISIBLE, COUNTS).image
    assert np.array_equal(fuser(VISIBLE, pil.open('counts.png')).image, counts)
    with pytest.raises(FusionInputError, match=r'a PIL image of mode CMYK: expected L,'):
        fuser(pil.new('CMYK', (64, 48)), THERMAL)
    back = fuser(VISIBLE, THERMAL).to_pil()
    assert back.mode == 'RGB'
    assert np.array_equal(np.asarray(back)[..., ::-1], fused)


def test_pil_images_are_turned_as_their_exif_data_say(fuser, fused, tmp_path):
    pil = pytest.importorskip('PIL.Image')
    turned = pil.fromarray(np.ascontiguousarray(np.rot90(VISIBLE)[..., ::-1]))
    exif = turned.getexif()
    exif[274] = 6  # to be turned clockwise
    turned.save(tmp_path / 'turned.png', exif=exif)
    assert np.array_equal(fuser(pil.open(tmp_path / 'turned.png'), THERMAL).image, fused)


def test_pil_images_have_the_limit_of_files(fuser, tmp_path):
    pil = pytest.importorskip('PIL.Image')
    pil.new('1', (8001, 8000)).save(tmp_path / 'large.png')
    with pytest.raises(FusionInputError, match='8001x8000 is beyond the limit of 64000000'):
        fuser(pil.open(tmp_path / 'large.png'), THERMAL)


def png(*extra):
    """Return a black PNG of 64x48 with more chunks, each (name, data), behind its pixels."""
    header = struct.pack('>IIBBBBB', 64, 48, 8, 0, 0, 0, 0)
    chunks = [(b'IHDR', header), (b'IDAT', zlib.compress(bytes(65 * 48))), *extra, (b'IEND', b'')]
    return b'\x89PNG\r\n\x1a\n' + b''.join(
        struct.pack('>I', len(data)) + name + data + struct.pack('>I', zlib.crc32(name + data))
        for name, data in chunks
    )


@pytest.mark.parametrize(
    ('data', 'words'),
    [
        (png()[:60], 'truncated'),
        (png((b'zTXt', b'a\0\0' + zlib.compress(bytes(1 << 24)))), 'Decompressed data too large'),
        (png((b'eXIf', b'XX*\0')), 'not a TIFF file'),
        (b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 48\n%%EndComments\n', 'is a program'),
    ],
)
def test_damaged_and_hostile_pil_images_are_refused(fuser, data, words):
    pil = pytest.importorskip('PIL.Image')
    with pytest.raises(FusionInputError, match=f'visible is a PIL image that cannot be .*{words}'):
        fuser(pil.open(io.BytesIO(data)), THERMAL)


@pytest.mark.parametrize('suffix', ['npy', 'pkl', 'png'])
def test_files_that_are_no_images_are_not_loaded(fuser, suffix, tmp_path):
    path, mark = tmp_path / f'a.{suffix}', tmp_path / 'mark'
    array = np.array([Touch(mark)], dtype=object)
    if suffix == 'npy':
        np.save(path, array, allow_pickle=True)
    else:
        path.write_bytes(pickle.dumps(array))
    with pytest.raises(FusionInputError, match='bytes are neither JPEG nor PNG'):
        fuser(path, THERMAL)
    assert not mark.exists()


class Touch:
    """Makes a file where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_tensors_are_rgb_with_the_channels_first(fuser, fused):
    rgb = torch.from_numpy(np.ascontiguousarray(VISIBLE[..., ::-1])).permute(2, 0, 1)
    grey = torch.from_numpy(THERMAL)
    assert np.array_equal(fuser(rgb, grey).image, fused)
    assert np.array_equal(fuser(rgb, grey[None]).image, fused)
    (only,) = fuser(rgb[None].double() / 255, grey[None, None].double() / 255)
    assert np.abs(only.image.astype(int) - fused).max() <= 1
    with pytest.raises(FusionInputError, match=r'tensor of shape \(2, 2\d*, 48, 64\)'):
        fuser([torch.zeros(2, 2, 48, 64)], [grey])


def test_batches_are_lists_of_results(fuser, fused):
    other = fuser.fuse(VISIBLE[::-1], THERMAL[::-1]).image
    flipped = VISIBLE[::-1], THERMAL[::-1]
    for visible, thermal in (
        ([VISIBLE, flipped[0]], (THERMAL, flipped[1])),
        (np.stack([VISIBLE, flipped[0]]), np.stack([THERMAL, flipped[1]])),
        (np.stack([VISIBLE, flipped[0]]), np.stack([THERMAL, flipped[1]])[..., None]),
    ):
        first, second = fuser(visible, thermal)
        assert np.array_equal(first.image, fused)
        assert np.array_equal(second.image, other)
    # Three grey images beside three that are surely a batch.
    assert len(fuser(np.stack([VISIBLE] * 3), np.stack([THERMAL] * 3))) == 3


def test_counts_of_a_batch_are_mapped_image_by_image(fuser):
    alone = fuser(VISIBLE, COUNTS).image
    _, second = fuser([VISIBLE] * 2, [COUNTS + np.uint16(3000), COUNTS])
    assert np.array_equal(second.image, alone)


def test_a_thermal_range_maps_also_8_bits(fuser):
    low = THERMAL // 4
    wide = ThermalRange(mode='fixed', limits=(0, 63))
    mapped = low.astype(np.float32) / 63
    assert np.array_equal(
        fuser(VISIBLE, low, thermal_range=wide).image, fuser.fuse(VISIBLE, mapped).image
    )


def test_rows_that_are_no_image_are_left_out(fuser, tmp_path):
    telemetry = np.vstack([COUNTS, np.full((2, SHAPE[1]), 60000, np.uint16)])
    expected = fuser(VISIBLE, COUNTS).image
    crop = {'thermal_crop': (0, 2)}
    assert np.array_equal(fuser(VISIBLE, telemetry, **crop).image, expected)
    (result,) = fuser.fuse_many([VISIBLE], [telemetry], **crop)
    assert np.array_equal(result.image, expected)
    with pytest.raises(FusionInputError, match=r'thermal: thermal_crop \[0, 50\] leaves nothing'):
        fuser(VISIBLE, telemetry, thermal_crop=(0, 50))
    for wrong in ((2,), (0, -2)):
        with pytest.raises(FusionInputError, match=r'but must be \(top, bottom\), in rows from 0'):
            fuser(VISIBLE, telemetry, thermal_crop=wrong)


def test_each_pair_of_a_batch_is_scaled_by_its_own_bits(fuser):
    visible = VISIBLE.astype(np.uint16) * 16  # of 12 bits
    _, second = fuser([VISIBLE.astype(np.uint16) * 257, visible], [THERMAL] * 2)
    assert np.array_equal(second.image, fuser(visible, THERMAL).image)


def test_further_images_are_taken_as_the_thermal_one_is(fuser):
    palette = cv2.applyColorMap(THERMAL, cv2.COLORMAP_JET)
    with pytest.raises(FusionInputError, match='source 3: the thermal image looks like'):
        fuser(VISIBLE, THERMAL, palette)
    coloured = fuser(VISIBLE, THERMAL, cv2.merge([THERMAL] * 3)).image
    assert np.array_equal(coloured, fuser(VISIBLE, THERMAL, THERMAL).image)


def test_settings_are_for_one_call(fuser, fused):
    strong = fuser(VISIBLE, THERMAL, thermal_strength=1.0, num_inference_steps=np.int64(2))
    settings = FusionSettings(thermal_strength=1.0, num_inference_steps=2)
    expected = fuser.fuse(VISIBLE, THERMAL, settings=settings).image
    assert np.array_equal(strong.image, expected)
    assert not np.array_equal(expected, fused)
    assert np.array_equal(fuser(VISIBLE, THERMAL).image, fused)


def test_weight_maps_can_be_left_out(fuser, fused):
    result = fuser(VISIBLE, THERMAL, weight_maps=False)
    assert np.array_equal(result.image, fused)
    assert result.weights.shape == result.contributions.shape == (0, *SHAPE)
    (only,) = fuser([VISIBLE], [THERMAL])
    assert only.weights.shape == only.contributions.shape == (2, *SHAPE)
    # The setting of this name, which takes the rule, is another thing.
    with pytest.raises(ValueError, match='weights is False, but must be'):
        fuser(VISIBLE, THERMAL, weights=False)


def test_visible_bits_are_found_and_noted(fuser, fused):
    visible = VISIBLE.astype(np.uint16) * 16  # of 12 bits
    result = fuser(visible, THERMAL)
    assert np.abs(result.image.astype(int) - fused).max() <= 2
    assert result.notes == ('visible uses 12 of 16 bits and is scaled accordingly',)


def test_other_sizes_are_noted(fuser):
    result = fuser(VISIBLE, THERMAL[:24])
    first, second = result.notes
    assert first == 'thermal has 64x24 pixels and is resized to 64x48'
    assert 'in height 2.00 times as much as in width' in second


def test_swapped_images_are_noticed(fuser):
    with pytest.raises(FusionInputError, match='if the first image is the thermal one, swap them'):
        fuser(THERMAL, VISIBLE)
    with pytest.raises(FusionInputError) as refused:
        fuser(VISIBLE, VISIBLE)
    assert 'swap' not in str(refused.value)


def test_one_image_twice_is_noted(fuser):
    assert fuser(THERMAL, THERMAL).notes == ('thermal is the same image as visible',)
    assert fuser(VISIBLE, VISIBLE, chroma='all').notes == ('thermal is the same image as visible',)


def test_a_registration_or_its_file_places_the_thermal_image(fuser, tmp_path):
    small = cv2.resize(THERMAL, (32, 24), interpolation=cv2.INTER_AREA)
    matrix = np.array([[1.5, 0, 8], [0, 1.5, 6], [0, 0, 1]])
    registration = Registration(matrix, (32, 24), (64, 48))
    expected = fuser.fuse(VISIBLE, small, placements=(None, registration.placement())).image
    save_registration(registration, tmp_path / 'registration.yaml')
    for given in (registration, registration.placement(), tmp_path / 'registration.yaml'):
        result = fuser(VISIBLE, small, registration=given)
        assert np.array_equal(result.image, expected)
        assert result.notes == ()
    with pytest.raises(FusionInputError, match='thermal ones of 32x24 pixels, but they are'):
        fuser(VISIBLE, THERMAL, registration=registration)


def test_photographs_may_have_colour(fuser):
    second = VISIBLE[:, ::-1]
    result = fuser(VISIBLE, second, chroma='all')
    settings = FusionSettings(chroma='all')
    assert np.array_equal(result.image, fuser.fuse(VISIBLE, second, settings=settings).image)
    dark, bright = (np.uint16(scale) * THERMAL for scale in (40, 257))
    scaled = [image / np.float32(65535) for image in (dark, bright)]
    assert np.array_equal(
        fuser(dark, bright, chroma='all').image, fuser.fuse(*scaled, settings=settings).image
    )
    palette = cv2.applyColorMap(THERMAL, cv2.COLORMAP_JET)
    for coloured in (palette, palette.astype(np.float32) / 255):
        with pytest.raises(FusionInputError, match=r"palette .* set chroma='all'"):
            fuser(VISIBLE, coloured)


@pytest.mark.parametrize(
    ('visible', 'thermal', 'words'),
    [
        (None, THERMAL, 'visible is None: cv2.imread returns None where it cannot read the file'),
        (VISIBLE, None, 'thermal is None'),
        (VISIBLE, 3, 'thermal is of type int, not an image: pass an array, a path, a PIL image'),
        ('none.png', THERMAL, 'visible: cannot read none.png: no such file'),
        ('.', THERMAL, r'visible: \. is a folder: call fuse_many'),
        (VISIBLE, 'a.MP4', 'thermal: a.MP4 is a video: call fuse_video'),
        ((each for each in [VISIBLE]), THERMAL, 'visible is a generator: call fuse_many'),
        (VISIBLE, [THERMAL], 'visible is one image, but another source is a batch'),
        ([VISIBLE], [THERMAL] * 2, 'visible has 1, thermal has 2'),
        ([], [], 'visible has 0, thermal has 0'),
        ([VISIBLE, None], [THERMAL] * 2, r'visible\[1\] is None'),
        ([[1, 2], [3, 4]], [THERMAL] * 2, r'visible\[0\] is of type list'),
        (np.moveaxis(VISIBLE, -1, 0), THERMAL, r'visible has shape \(3, 48, 64\), which may be'),
        (VISIBLE[:0], THERMAL, r'visible has shape \(0, 64, 3\): .* no empty side'),
        (VISIBLE, THERMAL[0], r'thermal has shape \(64,\): expected \(H, W\)'),
        (VISIBLE > 3, THERMAL, 'visible has dtype bool'),
    ],
)
def test_what_is_no_image_is_refused_with_what_to_do(fuser, visible, thermal, words):
    with pytest.raises(FusionInputError, match=words):
        fuser(visible, thermal)


@pytest.mark.parametrize('image', [None, 'visible.png', torch.zeros(48, 64, 3)])
def test_fuse_takes_arrays_only(fuser, image):
    with pytest.raises(FusionInputError, match=r'visible is \w+, but fuse\(\) takes arrays: call'):
        fuser.fuse(image, THERMAL)


def test_half_precision_is_mapped_as_single(fuser):
    kelvin = (280 + THERMAL / np.float32(8)).astype(np.float16)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        result = fuser(VISIBLE, kelvin)
    assert np.array_equal(result.image, fuser(VISIBLE, kelvin.astype(np.float32)).image)


def test_a_mask_is_not_ignored(fuser):
    for fuse in (fuser, fuser.fuse):
        with pytest.raises(FusionInputError, match=r'thermal is a masked array: .* with NaN'):
            fuse(VISIBLE, np.ma.masked_less(THERMAL, 50))
        nothing = np.ma.masked_less(THERMAL, 0)
        assert np.array_equal(fuse(VISIBLE, nothing).image, fuser.fuse(VISIBLE, THERMAL).image)


def test_registrations_are_checked(fuser):
    with pytest.raises(FusionInputError, match=r'registered: none\.yaml cannot be read'):
        fuser(VISIBLE, THERMAL, registration='none.yaml')
    with pytest.raises(FusionInputError, match='registration is of type ndarray: pass the path'):
        fuser(VISIBLE, THERMAL, registration=np.eye(3))


def test_wrong_settings_name_the_nearest(fuser):
    with pytest.raises(TypeError, match="no setting 'temprature': did you mean 'temperature'"):
        fuser(VISIBLE, THERMAL, temprature=2)
    with pytest.raises(TypeError, match="no setting 'x': see docs"):
        fuser(VISIBLE, THERMAL, x=2)
    with pytest.raises(ValueError, match="num_inference_steps is '4', but must be a whole number"):
        fuser(VISIBLE, THERMAL, num_inference_steps='4')
