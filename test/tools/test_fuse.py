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

"""The command line from files to files, and what the presets of its tasks do to images."""

from collections.abc import Callable
import os
from pathlib import Path
import struct
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
import pytest

from dig2dig_ros.evaluation.options import load_parameters
from dig2dig_ros.fusion.fuser import Fuser, FusionResult
from dig2dig_ros.fusion.settings import FusionSettings
from dig2dig_ros.images.overlay import contribution_overlay, weight_map
from dig2dig_ros.images.registration import Registration
from dig2dig_ros.images.registration_file import save_registration
from dig2dig_ros.images.thermal_range import ThermalRange
from dig2dig_ros.priors.compact import CompactConfig, CompactUNet, save
from dig2dig_ros.streams.parameters import fusion_settings
from dig2dig_ros.tools import file_fusion
from dig2dig_ros.tools.fuse import main

Image = NDArray[Any]
SHAPE = (48, 64)


def structure(seed: int, shape: tuple[int, ...] = SHAPE, sigma: float = 2.0) -> Image:
    """Return soft random structure, 10 to 240."""
    noise = np.random.default_rng(seed).standard_normal(shape)
    smooth = cv2.GaussianBlur(noise, (0, 0), sigma)
    return cv2.normalize(smooth, None, 10, 240, cv2.NORM_MINMAX).astype(np.uint8)


def colour(seed: int) -> Image:
    return structure(seed, (*SHAPE, 3))


def write(path: Path, image: Image) -> str:
    assert cv2.imwrite(str(path), image)
    return str(path)


def read(path: Path) -> Image:
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert image is not None, path
    return image


@pytest.fixture(scope='module')
def prior(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the path of a prior that takes no time: with an untrained head, v = 0."""
    path = tmp_path_factory.mktemp('prior') / 'tiny.safetensors'
    network = CompactUNet(CompactConfig(widths=(4,), blocks=(1,)))
    network.head.bias.data.zero_()
    save(network, path, {})
    return str(path)


@pytest.fixture
def fuse(tmp_path: Path, prior: str) -> Callable[..., int]:
    """Return the tool on images instead of files, with the tiny prior on the CPU."""

    def run(*images: Image, options: tuple[str, ...] = ()) -> int:
        paths = [write(tmp_path / f'{index}.png', image) for index, image in enumerate(images)]
        output = ['-o', str(tmp_path / 'fused.png')]
        return main([*paths, *output, '--prior', prior, '--device', 'cpu', *options])

    return run


def expected(prior: str, *sources: Image, **settings: Any) -> FusionResult:
    return Fuser(FusionSettings(**settings), prior=prior, device='cpu').fuse(*sources)


def exif_orientation(jpeg: bytes, orientation: int) -> bytes:
    """Put an EXIF segment behind the start of a JPEG file."""
    tag = struct.pack('>HHIHH', 0x0112, 3, 1, orientation, 0)
    tiff = b'MM\0*' + struct.pack('>IH', 8, 1) + tag + bytes(4)
    segment = b'Exif\0\0' + tiff
    return jpeg[:2] + b'\xff\xe1' + struct.pack('>H', len(segment) + 2) + segment + jpeg[2:]


@pytest.mark.parametrize('number', [2, 3, 4])
def test_colour_sources_and_their_weights(
    number: int,
    fuse: Callable[..., int],
    prior: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    images = [colour(seed) for seed in range(number)]
    assert fuse(*images, options=('--weights',)) == 0
    result = expected(prior, *images, chroma='all')
    fused = read(tmp_path / 'fused.png')
    assert np.array_equal(fused, result.image)
    assert fused.shape == (*SHAPE, 3)
    maps = [read(tmp_path / f'fused.weights.{index + 1}.png') for index in range(number)]
    for plane, weight in zip(maps, result.weights, strict=True):
        assert np.array_equal(plane, weight_map(weight))
    assert np.abs(np.sum(maps, axis=0, dtype=int) - 255).max() <= number / 2
    overlay = read(tmp_path / 'fused.overlay.png')
    coloured = contribution_overlay(result.image, result.contributions)
    assert np.array_equal(overlay[: SHAPE[0]], coloured)
    assert len(overlay) > SHAPE[0]  # the legend
    assert len(list(tmp_path.iterdir())) == 2 * number + 2

    captured = capsys.readouterr()
    (line,) = captured.out.splitlines()
    default = FusionSettings()
    steps = f'N {default.num_inference_steps}, S {default.dig_refresh_interval}'
    start = f'fused.png: {number} images of 64x48 pixels, chroma all, {steps}, denoiser tiny'
    assert start in line
    assert f'fused.weights.{number}.png and' in line
    assert captured.err == ''


def test_only_the_fused_image_is_written_unless_weights_are_asked_for(
    fuse: Callable[..., int], tmp_path: Path
) -> None:
    assert fuse(colour(1), colour(2)) == 0
    assert {path.name for path in tmp_path.iterdir()} == {'0.png', '1.png', 'fused.png'}


@pytest.mark.parametrize('suffix', ['.PNG', '.jpg', '.tif', '.bmp', '.webp'])
def test_format_is_that_of_the_suffix(suffix: str, prior: str, tmp_path: Path) -> None:
    paths = [write(tmp_path / f'{index}.png', colour(index)) for index in range(2)]
    output = tmp_path / f'fused{suffix}'
    assert main([*paths, '-o', str(output), '--prior', prior, '--weights']) == 0
    image = expected(prior, colour(0), colour(1), chroma='all').image
    assert np.abs(read(output).astype(int) - image).mean() < 8
    assert read(tmp_path / 'fused.weights.2.png').shape == SHAPE


def test_grey_sources_give_a_grey_image_however_they_were_saved(
    fuse: Callable[..., int], prior: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = structure(1), structure(2)
    assert fuse(first, cv2.cvtColor(second, cv2.COLOR_GRAY2BGR)) == 0
    assert np.array_equal(read(tmp_path / 'fused.png'), expected(prior, first, second).image)
    assert 'pixels, grey, N' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('options', 'chroma'),
    [
        ((), 'all'),
        (('--task', 'multi-exposure', '--preset', 'fusion'), None),
        (('--task', 'multi-exposure'), 'all'),
        (('--preset', 'fusion'), None),
    ],
)
def test_colour_of_a_later_image_counts_unless_the_first_is_the_visible_one(
    options: tuple[str, ...],
    chroma: str | None,
    fuse: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert fuse(structure(1), colour(2), options=options) == 0
    fused = read(tmp_path / 'fused.png')
    assert fused.ndim == (3 if chroma else 2)
    assert (f'chroma {chroma}' if chroma else 'grey') in capsys.readouterr().out


@pytest.mark.parametrize('task', [None, 'visible-thermal'])
@pytest.mark.parametrize('palette', [cv2.COLORMAP_JET, cv2.COLORMAP_RAINBOW, cv2.COLORMAP_INFERNO])
def test_palettes_are_refused_as_in_the_node(
    task: str | None, palette: int, fuse: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    thermal = cv2.applyColorMap(structure(2), palette)
    assert fuse(colour(1), thermal, options=('--task', task) if task else ()) == 2
    error = capsys.readouterr().err
    assert '1.png: the thermal image looks like a colour palette (false colour)' in error
    assert 'if it is a photograph, use --task multi-focus or multi-exposure' in error
    assert fuse(colour(1), thermal, options=('--task', 'multi-focus')) == 0


def test_a_visible_image_of_12_bits_in_16_is_scaled_and_that_is_said(
    fuse: Callable[..., int], prior: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bright = np.maximum(colour(1), 20)
    assert fuse(bright.astype(np.uint16) * 16, structure(2)) == 0
    assert '0.png uses 12 of 16 bits and is scaled accordingly' in capsys.readouterr().err
    difference = read(tmp_path / 'fused.png').astype(int)
    difference -= expected(prior, bright, structure(2)).image
    assert np.abs(difference).mean() < 2


def test_a_thermal_image_has_no_colour(
    fuse: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert fuse(colour(1), colour(2), options=('--task', 'visible-thermal')) == 2
    assert 'white-hot grey or raw counts' in capsys.readouterr().err


def test_counts_without_data_have_no_weight_and_it_is_said(
    fuse: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    counts = 28400 + 8 * structure(2).astype(np.uint16)
    counts[:10] = 0
    assert fuse(colour(1), counts, options=('--weights',)) == 0
    assert (read(tmp_path / 'fused.weights.2.png')[:10] == 0).all()
    assert read(tmp_path / 'fused.weights.2.png')[30:].max() > 50
    error = capsys.readouterr().err
    assert '1.png image is 0, far from the rest: taken as no data, without weight' in error
    assert 'resized' not in error


def test_black_bars_have_no_weight_and_it_is_said(
    fuse: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    thermal = np.clip(structure(2), 60, 255)
    thermal[:10] = 0
    assert fuse(colour(1), thermal, options=('--weights',)) == 0
    assert (read(tmp_path / 'fused.weights.2.png')[:10] == 0).all()
    assert read(tmp_path / 'fused.weights.2.png')[30:].max() > 50
    error = capsys.readouterr().err
    assert 'image has black bars (top 10 pixels): taken as no data, without weight' in error


def test_a_colour_and_a_grey_image_keep_the_colour_of_the_first(
    fuse: Callable[..., int], prior: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fuse(colour(1), structure(2)) == 0
    image = expected(prior, colour(1), structure(2), chroma='first').image
    assert np.array_equal(read(tmp_path / 'fused.png'), image)
    assert 'chroma first' in capsys.readouterr().out


@pytest.mark.parametrize('task', [None, 'visible-thermal'])
def test_wide_thermal_counts_are_stretched_each_with_its_own_range(
    task: str | None, fuse: Callable[..., int], prior: str, tmp_path: Path
) -> None:
    counts = [7000 + 3 * structure(2).astype(np.uint16), 21000 + structure(3).astype(np.uint16)]
    assert fuse(colour(1), *counts, options=('--task', task) if task else ()) == 0
    mapped = [ThermalRange()(image, 0.0) for image in counts]
    assert all(image.max() - image.min() == 1 for image in mapped)
    image = expected(prior, colour(1), *mapped).image
    assert np.array_equal(read(tmp_path / 'fused.png'), image)


def test_the_range_of_thermal_counts_is_a_parameter(
    fuse: Callable[..., int], prior: str, tmp_path: Path
) -> None:
    parameters = tmp_path / 'fixed.yaml'
    parameters.write_text(
        'fusion_node:\n'
        '  ros__parameters:\n'
        '    thermal_range: fixed\n'
        '    thermal_range_limits: [7000.0, 9000.0]\n',
        encoding='utf-8',
    )
    counts = 7000 + 3 * structure(2).astype(np.uint16)
    assert fuse(structure(1), counts, options=('--preset', str(parameters))) == 0
    mapped = (counts.astype(np.float32) - 7000) / 2000
    difference = read(tmp_path / 'fused.png').astype(int)
    difference -= expected(prior, structure(1), mapped).image
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
def test_black_hot_images_are_inverted_as_in_the_node(
    fuse: Callable[..., int], prior: str, tmp_path: Path, dtype: type
) -> None:
    parameters = tmp_path / 'black_hot.yaml'
    parameters.write_text(
        'fusion_node:\n  ros__parameters:\n    thermal_polarity: black_hot\n', encoding='utf-8'
    )
    thermal = structure(2).astype(dtype)
    assert fuse(structure(1), thermal, options=('--preset', str(parameters))) == 0
    mapped = ThermalRange(polarity='black_hot')(thermal, 0.0)
    difference = read(tmp_path / 'fused.png').astype(int)
    difference -= expected(prior, structure(1), mapped).image
    assert np.abs(difference).max() <= 1


def test_rows_of_telemetry_are_left_out_as_in_the_node(
    fuse: Callable[..., int],
    prior: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    parameters = tmp_path / 'crop.yaml'
    text = 'fusion_node:\n  ros__parameters:\n    thermal_crop: [0, {}]\n'
    parameters.write_text(text.format(2), encoding='utf-8')
    counts = 7000 + 3 * structure(2).astype(np.uint16)
    telemetry = np.full((2, SHAPE[1]), 60000, np.uint16)
    options = ('--preset', str(parameters))
    assert fuse(colour(1), np.vstack([counts, telemetry]), options=options) == 0
    image = expected(prior, colour(1), ThermalRange()(counts, 0.0)).image
    assert np.array_equal(read(tmp_path / 'fused.png'), image)
    assert capsys.readouterr().err == ''
    parameters.write_text(text.format(50), encoding='utf-8')
    assert fuse(colour(1), np.vstack([counts, telemetry]), options=options) == 2
    assert '1.png: thermal_crop [0, 50] leaves nothing of 50 rows' in capsys.readouterr().err


def test_16_bit_photographs_are_no_thermal_counts(
    fuse: Callable[..., int], prior: str, tmp_path: Path
) -> None:
    dark, bright = structure(1).astype(np.uint16) * 40, structure(1).astype(np.uint16) * 257
    assert fuse(dark, bright, options=('--task', 'multi-exposure')) == 0
    settings = fusion_settings(load_parameters('multi_exposure'))
    scale = np.float32(65535)
    image = Fuser(settings, prior=prior, device='cpu').fuse(dark / scale, bright / scale).image
    assert np.array_equal(read(tmp_path / 'fused.png'), image)


def test_images_of_other_sizes_are_resized_and_that_is_said(
    fuse: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fuse(colour(1), structure(2, (24, 32)), options=('--weights',)) == 0
    assert read(tmp_path / 'fused.png').shape == (*SHAPE, 3)
    assert read(tmp_path / 'fused.weights.2.png').shape == SHAPE
    captured = capsys.readouterr()
    assert '1.png has 32x24 pixels and is resized to 64x48' in captured.err
    assert '2 images of 64x48 and 32x24 pixels' in captured.out


def test_a_registration_places_the_second_image(
    fuse: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    visible, thermal = colour(1), structure(2, (24, 32))
    registration = tmp_path / 'registration.yaml'
    to_the_right = np.array([[1.0, 0, 32], [0, 1, 0], [0, 0, 1]])
    save_registration(Registration(to_the_right, (32, 24), (64, 48)), registration)
    options = ('--task', 'visible-thermal', '--thermal-to-visible', str(registration))
    assert fuse(visible, thermal, options=options) == 0
    fused = read(tmp_path / 'fused.png')
    np.testing.assert_array_equal(fused[:, :32], visible[:, :32])
    np.testing.assert_array_equal(fused[24:], visible[24:])
    assert (fused[:20, 52:] != visible[:20, 52:]).any()
    assert 'resized' not in capsys.readouterr().err
    assert fuse(thermal, structure(3), options=options) == 2
    assert 'the images cannot be registered' in capsys.readouterr().err


def test_images_of_another_shape_are_stretched_with_a_word(
    fuse: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert fuse(colour(1), structure(2, (48, 20))) == 0
    captured = capsys.readouterr()
    assert '20x48 pixels are stretched onto 64x48, in width 3.20 times' in captured.err


def test_photographs_are_turned_as_their_exif_data_say(prior: str, tmp_path: Path) -> None:
    smooth = structure(1, (*SHAPE, 3), sigma=8)
    upright = tmp_path / 'upright.jpg'
    write(upright, smooth)
    jpeg = cv2.imencode('.jpg', np.rot90(smooth))[1].tobytes()
    turned = tmp_path / 'turned.jpg'
    turned.write_bytes(exif_orientation(jpeg, 6))
    output = tmp_path / 'fused.png'
    assert main([str(turned), str(upright), '-o', str(output), '--prior', prior]) == 0
    fused = read(output)
    assert fused.shape == smooth.shape
    assert np.abs(fused.astype(int) - smooth).mean() < 12


def test_transparency_does_not_count(fuse: Callable[..., int], prior: str, tmp_path: Path) -> None:
    alpha = np.dstack([colour(1), structure(5)])
    assert fuse(alpha, structure(2)) == 0
    image = expected(prior, colour(1), structure(2)).image
    assert np.array_equal(read(tmp_path / 'fused.png'), image)


def test_options_win_over_the_file_and_the_file_over_the_task(
    fuse: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def line(*options: str) -> str:
        assert fuse(colour(1), colour(2), options=options) == 0
        return capsys.readouterr().out

    parameters = tmp_path / 'own.yaml'
    parameters.write_text(
        '/**: {ros__parameters: {fusion: {num_inference_steps: 4, chroma: first}}}\n',
        encoding='utf-8',
    )
    assert 'chroma all, N 25, S 10' in line('--preset', 'paper')
    assert 'chroma all, N 2, S 1' in line('--task', 'multi-exposure')
    own = ('--task', 'multi-exposure', '--preset', str(parameters))
    assert 'chroma first, N 4, S 1' in line(*own)
    assert 'chroma first, N 5, S 2' in line(*own, '-N', '5', '-S', '2')


@pytest.mark.parametrize(
    ('task', 'preset'),
    [
        ('visible-thermal', 'fusion'),
        ('multi-focus', 'multi_focus'),
        ('multi-exposure', 'multi_exposure'),
    ],
)
def test_a_task_is_its_shipped_preset(
    task: str,
    preset: str,
    fuse: Callable[..., int],
    prior: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = fusion_settings(load_parameters(preset))
    # A file that happens to have the name of the preset is not meant.
    (tmp_path / preset).write_text('nothing', encoding='utf-8')
    monkeypatch.chdir(tmp_path)
    # A thermal image has no colour.
    second = structure(2, SHAPE) if task == 'visible-thermal' else colour(2)
    images = colour(1), second
    assert fuse(*images, options=('--task', task)) == 0
    image = Fuser(settings, prior=prior, device='cpu').fuse(*images).image
    assert np.array_equal(read(tmp_path / 'fused.png'), image)


def test_swapped_images_are_reported(
    fuse: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert fuse(structure(2), colour(1)) == 0
    text = 'has none: they are fused as photographs; if the first image is the thermal one, swap'
    assert text in capsys.readouterr().err
    assert fuse(colour(1), structure(2)) == 0
    assert 'swap' not in capsys.readouterr().err


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ('a.png -o out.png', 'two or more images needed, but there is only a.png'),
        ('a.png missing.png -o out.png', 'cannot read missing.png: no such file'),
        ('a.png folder -o out.png', 'folder is a folder, but a.png is not'),
        ('a.png text.png -o out.png', 'bytes are neither JPEG nor PNG'),
        ('a.png float.tif -o out.png', 'float.tif holds float32, but must have 8 or 16 bits'),
        ('a.png b.png -o out.xyz', "no image format for the suffix '.xyz'; use .png"),
        ('a.png b.png -o out', 'no image format for a name without a suffix'),
        ('a.png b.png -o new/out.png', 'there is no folder new: make it, or name another one'),
        ('a.png b.png -o ./b.png', 'b.png is one of the inputs: name another output'),
        ('a.png x.weights.1.png -o x.png --weights', 'x.weights.1.png is one of the inputs'),
        ('a.png b.png -o folder.png', 'folder.png is a folder: name a file'),
        ('a.png b.png -o out.pgm', 'cannot save a colour image of 64x48 pixels as .pgm'),
        ('a.png b.png -o out.png --preset none', 'none is neither a file nor a preset'),
        ('a.png b.png -o out.png --preset text.png', 'has no ros__parameters for fusion_node'),
        ('a.png b.png -o out.png --device cuda:99', "device 'cuda:99'"),
        ('a.png b.png -o out.png --prior none', "denoiser 'none' is neither an embedded denoiser"),
        ('a.png b.png -o out.png --prior text.png', 'denoiser text.png'),
        ('a.png b.png -o out.png -N 500', 'first_timestep is 400, but must be at least 500'),
    ],
)
def test_what_cannot_be_done_is_one_sentence_and_leaves_no_file(
    arguments: str,
    message: str,
    prior: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ('a.png', 'b.png', 'x.weights.1.png'):
        write(Path(name), colour(ord(name[0])))
    write(Path('float.tif'), np.zeros(SHAPE, np.float32))
    Path('text.png').write_text('no image', encoding='utf-8')
    for name in ('folder', 'folder.png'):
        Path(name).mkdir()
    command = arguments.split()
    before = {path: path.read_bytes() for path in tmp_path.rglob('*') if path.is_file()}

    assert main(command if '--prior' in command else [*command, '--prior', prior]) == 2
    captured = capsys.readouterr()
    assert captured.out == ''
    # OpenCV may add lines of its own.
    (line,) = (x for x in captured.err.splitlines() if x.startswith('dig2dig fuse: '))
    assert message in line
    assert 'Traceback' not in captured.err
    assert {path: path.read_bytes() for path in tmp_path.rglob('*') if path.is_file()} == before


@pytest.mark.parametrize(
    ('line', 'message'),
    [
        ('fusion.temperature: 0.0', 'temperature is 0.0, but must be 0.001 to 1000'),
        ('fusion.temperature: low', "temperature is 'low', but must be a number"),
        ('fusion.num_inference_steps: 2.5', 'steps is 2.5, but must be a whole number'),
        ('fusion.gain_window: true', 'gain_window is True, but must be a whole number'),
        ('fusion.normalize_gain: 1', 'normalize_gain is 1, but must be true or false'),
        ('prior: 3', 'prior is 3, but must be a text'),
        ('num_threads: many', "num_threads is 'many', but must be a whole number"),
        ('thermal_range: narrow', "thermal_range is 'narrow', but must be one of: auto"),
    ],
)
def test_values_that_are_refused_are_named(
    line: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parameters = tmp_path / 'parameters.yaml'
    parameters.write_text(f'/**:\n  ros__parameters:\n    {line}\n', encoding='utf-8')
    paths = [write(tmp_path / f'{index}.png', colour(index)) for index in range(2)]
    output = tmp_path / 'out.png'
    assert main([*paths, '-o', str(output), '--preset', str(parameters)]) == 2
    assert message in capsys.readouterr().err
    assert not output.exists()


@pytest.mark.skipif(os.geteuid() == 0, reason='root may write everywhere')
def test_a_folder_that_cannot_be_written_is_found_out_before(
    tmp_path: Path, prior: str, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [write(tmp_path / f'{index}.png', colour(index)) for index in range(2)]
    folder = tmp_path / 'closed'
    folder.mkdir(mode=0o555)
    assert main([*paths, '-o', str(folder / 'out.png'), '--prior', prior]) == 2
    assert 'permission denied' in capsys.readouterr().err


def test_mistakes_are_found_out_before_anything_is_loaded(
    fuse: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unexpected(*_: Any) -> None:
        raise AssertionError('the prior was loaded')

    monkeypatch.setattr(file_fusion, 'set_up_fuser', unexpected)
    assert fuse(colour(1)) == 2
    assert fuse(colour(1), np.zeros(SHAPE, np.uint8), options=('--preset', 'none')) == 2


@pytest.mark.parametrize(
    'arguments',
    [
        '-o out.png',
        'a.png b.png -o out.png --task macro',
        'a.png b.png -o out.png -N 0',
        'a.png b.png -o out.png -S many',
    ],
)
def test_command_lines_without_sense_end_with_code_2(
    arguments: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(arguments.split())
    assert ended.value.code == 2
    assert list(tmp_path.iterdir()) == []


# What follows is with the embedded prior: what the tasks promise.


def textured(seed: int, shape: tuple[int, int]) -> Image:
    """Return a colour image with detail at several scales and hard edges, 0 to 1."""
    rng = np.random.default_rng(seed)
    image = np.full((*shape, 3), 0.5)
    for sigma, strength in ((1.0, 0.10), (3.0, 0.12), (12.0, 0.12)):
        layer = cv2.GaussianBlur(rng.standard_normal((*shape, 3)), (0, 0), sigma)
        image += strength * layer / layer.std()
    for _ in range(24):
        centre = tuple(int(x) for x in rng.integers(0, shape[::-1]))
        paint = tuple(float(x) for x in rng.uniform(0.1, 0.9, 3))
        cv2.circle(image, centre, int(rng.integers(3, 9)), paint, -1)
    return np.clip(image, 0.02, 0.98)


def to_8_bit(image: Image) -> Image:
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)


def run_task(folder: Path, task: str, *images: Image) -> tuple[Image, list[Image]]:
    """Return what the tool makes of the images: the fused one and the weights, 0 to 1."""
    paths = [write(folder / f'{index}.png', image) for index, image in enumerate(images)]
    output = folder / 'fused.png'
    assert main([*paths, '-o', str(output), '--task', task, '--weights', '--device', 'cpu']) == 0
    names = (f'fused.weights.{index + 1}.png' for index in range(len(images)))
    return read(output), [read(folder / name) / 255 for name in names]


def squared_error(image: Image, reference: Image) -> float:
    return float(np.mean((image.astype(float) - reference) ** 2))


def chroma(image: Image) -> Image:
    """Return blue - green and red - green, which no change of the luma touches."""
    values = image.astype(float)
    return values[..., [0, 2]] - values[..., [1]]


@pytest.mark.parametrize('number', [2, 3])
def test_multi_focus_takes_every_pixel_from_the_sharp_image(number: int, tmp_path: Path) -> None:
    sharp = to_8_bit(textured(number, (96, 160)))
    blurred = cv2.GaussianBlur(sharp, (0, 0), 2.5)
    owner = np.arange(160) * number // 160
    images = [np.where((owner == k)[None, :, None], sharp, blurred) for k in range(number)]
    fused, weights = run_task(tmp_path, 'multi-focus', *images)

    nearest = min(squared_error(image, sharp) for image in images)
    mean = np.mean(images, axis=0)
    assert squared_error(fused, sharp) < 0.4 * min(nearest, squared_error(mean, sharp))
    tint = min(squared_error(chroma(image), chroma(sharp)) for image in (*images, mean))
    assert squared_error(chroma(fused), chroma(sharp)) < 0.5 * tint
    for k, weight in enumerate(weights):
        assert weight[:, owner == k].mean() > 0.75


def exposures() -> tuple[Image, Image, Image]:
    """
    Return the texture of a scene with a dark red half beside a bright blue one, and two exposures.

    The first one shows hardly anything of the left half, the second nothing of the right one.
    """
    texture = textured(5, (96, 160)).mean(axis=2, keepdims=True)
    left = np.arange(160)[None, :, None] < 80
    tint = np.where(left, (0.55, 0.7, 1.0), (1.0, 0.7, 0.55))
    radiance = texture * tint * np.where(left, 0.02, 1.0)
    under, over = (to_8_bit((radiance * time) ** (1 / 2.2)) for time in (0.5, 12.0))
    return texture[..., 0], under, over


def detail(image: Image) -> Image:
    """Return what is finer than about ten pixels."""
    grey = image.astype(np.float32)
    grey = cv2.cvtColor(grey, cv2.COLOR_BGR2GRAY) if grey.ndim == 3 else grey
    return grey - cv2.GaussianBlur(grey, (0, 0), 4)


def test_multi_exposure_shows_the_detail_and_the_colour_of_both(tmp_path: Path) -> None:
    texture, under, over = exposures()
    fused, _ = run_task(tmp_path, 'multi-exposure', under, over)

    for half, lost, shown in (
        (np.s_[8:-8, 8:72], under, over),
        (np.s_[8:-8, 88:152], over, under),
    ):
        contrast = [float(detail(image)[half].std()) for image in (lost, fused, shown)]
        assert contrast[1] > 2 * contrast[0]
        assert contrast[1] > 0.5 * contrast[2]
        agreement = np.corrcoef(detail(fused)[half].ravel(), detail(texture)[half].ravel())
        assert agreement[0, 1] > 0.9
        # The colour is that of the exposure that shows it: neither grey nor of the other hue.
        colours = [chroma(image)[half].mean(axis=(0, 1)) for image in (fused, shown)]
        cosine = colours[0] @ colours[1] / np.linalg.norm(colours[0]) / np.linalg.norm(colours[1])
        assert cosine > 0.95
        assert np.linalg.norm(colours[0]) > 0.5 * np.linalg.norm(colours[1])
    # In between the two, and the bright half stays the brighter one.
    assert under.mean() + 20 < fused.mean() < over.mean() - 20
    assert fused[:, 88:].mean() > fused[:, :72].mean()


def pairs_in(folder: Path, *names: str) -> None:
    for number, name in enumerate(names):
        for source, image in (('visible', colour(number)), ('thermal', structure(9 + number))):
            (folder / source).mkdir(parents=True, exist_ok=True)
            write(folder / source / f'{name}.png', image)


@pytest.mark.parametrize('paths', [('pairs',), ('pairs/visible', 'pairs/thermal')])
def test_folders_are_paired_by_name(
    paths: tuple[str, ...],
    tmp_path: Path,
    prior: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    pairs_in(tmp_path / 'pairs', 'a', 'b')
    write(tmp_path / 'pairs/visible/alone.png', colour(5))
    options = ('--prior', prior, '--device', 'cpu')
    assert main([*paths, '--weights', *options]) == 0
    out, err = capsys.readouterr()
    assert out.startswith('fused: 2 pairs fused, N 1, S 1, denoiser tiny')
    assert 'left out, as they have no counterpart (1): ' in err
    assert 'alone.png' in err
    kinds = ('.overlay.png', '.png', '.weights.1.png', '.weights.2.png')
    assert sorted(path.name for path in (tmp_path / 'fused').iterdir()) == [
        name + kind for name in 'ab' for kind in kinds
    ]
    result = expected(prior, colour(1), structure(10))
    assert np.array_equal(read(tmp_path / 'fused/b.png'), result.image)
    assert main([*paths, *options]) == 2
    assert 'fused is not empty' in capsys.readouterr().err
    assert main([*paths, '--overwrite', *options]) == 0


def test_no_folder_of_inputs_is_written_to(
    tmp_path: Path, prior: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs_in(tmp_path, 'a', 'b')
    options = ('--overwrite', '--prior', prior, '--device', 'cpu')
    linked = tmp_path / 'out'
    linked.mkdir()
    (linked / 'b.png').symlink_to(tmp_path / 'thermal' / 'b.png')
    before = {path: path.read_bytes() for path in tmp_path.rglob('*.png')}
    for output, name in ((tmp_path / 'visible', 'visible/a.png'), (linked, 'out/b.png')):
        assert main([str(tmp_path), '-o', str(output), *options]) == 2
        assert f'{name} is one of the inputs: name another output' in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tmp_path.rglob('*.png')} == before


def test_a_pair_that_cannot_be_fused_is_left_out(
    tmp_path: Path, prior: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs_in(tmp_path, 'a', 'b')
    (tmp_path / 'thermal/a.png').write_bytes(b'no image')
    options = ('-o', str(tmp_path / 'out'), '--prior', prior, '--device', 'cpu')
    assert main([str(tmp_path), *options]) == 1
    out, err = capsys.readouterr()
    assert '1 pairs fused, 1 left out' in out
    assert 'a is left out: cannot read' in err
    assert [path.name for path in (tmp_path / 'out').iterdir()] == ['b.png']
    (tmp_path / 'thermal/b.png').write_bytes(b'no image')
    assert main([str(tmp_path), '--overwrite', *options]) == 2
    assert 'none of the 2 pairs could be fused' in capsys.readouterr().err


def test_two_photographs_are_fused_wherever_they_are(
    tmp_path: Path, prior: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, second in (('a', colour(1)), ('b', structure(1)), ('c', colour(1))):
        for folder, image in (('visible', colour(0)), ('thermal', second)):
            (tmp_path / folder).mkdir(exist_ok=True)
            write(tmp_path / folder / f'{name}.png', image)
    false_colours = cv2.applyColorMap(structure(2), cv2.COLORMAP_JET)
    write(tmp_path / 'thermal' / 'c.png', false_colours)
    options = ('--prior', prior, '--device', 'cpu')
    assert main([str(tmp_path), '-o', str(tmp_path / 'out'), *options]) == 1
    assert 'use --task multi-focus or multi-exposure' in capsys.readouterr().err
    both = expected(prior, colour(0), colour(1), chroma='all').image
    assert np.array_equal(read(tmp_path / 'out/a.png'), both)
    thermal = expected(prior, colour(0), structure(1)).image
    assert np.array_equal(read(tmp_path / 'out/b.png'), thermal)
    frames = [video(tmp_path / f'{number}.avi', [colour(number)]) for number in range(2)]
    out = tmp_path / 'out.avi'
    assert main([*frames, '-o', str(out), *options]) == 0
    first, second, fused = (cv2.VideoCapture(str(path)).read()[1] for path in (*frames, out))
    image = expected(prior, first, second, chroma='all').image
    assert np.abs(fused.astype(int) - image).mean() < 6  # JPEG


@pytest.mark.parametrize('is_folder', [False, True])
def test_a_grey_first_image_of_16_bits_is_the_visible_one_as_in_the_node(
    is_folder: bool, tmp_path: Path, prior: str, capsys: pytest.CaptureFixture[str]
) -> None:
    grey = np.maximum(structure(1), 20).astype(np.uint16) * 16
    paths = []
    for name, image in (('visible', grey), ('thermal', structure(2))):
        (tmp_path / name).mkdir()
        paths.append(write(tmp_path / name / 'a.png', image))
    output = tmp_path / 'out' / 'a.png'
    output.parent.mkdir()
    where = [str(tmp_path), '-o', str(output.parent)] if is_folder else [*paths, '-o', str(output)]
    assert main([*where, '--prior', prior, '--device', 'cpu']) == 0
    assert f'{paths[0]} uses 12 of 16 bits and is scaled accordingly' in capsys.readouterr().err
    assert np.array_equal(read(output), expected(prior, grey << 4, structure(2)).image)


def test_counts_and_crops_in_folders_are_those_of_single_images(
    tmp_path: Path, prior: str
) -> None:
    counts = (structure(9).astype(np.uint16) * 4 + 7000)[:, :]
    telemetry = np.full((2, SHAPE[1]), 60000, np.uint16)
    for source, image in (('visible', colour(0)), ('thermal', np.vstack([counts, telemetry]))):
        (tmp_path / source).mkdir()
        write(tmp_path / source / 'a.png', image)
    preset = tmp_path / 'crop.yaml'
    preset.write_text('/**: {ros__parameters: {thermal_crop: [0, 2]}}')
    options = ('--preset', str(preset), '--prior', prior, '--device', 'cpu')
    assert main([str(tmp_path), '-o', str(tmp_path / 'out'), *options]) == 0
    result = expected(prior, colour(0), ThermalRange()(counts, 0.0))
    assert np.array_equal(read(tmp_path / 'out/a.png'), result.image)


def video(path: Path, frames: list[Image]) -> str:
    codec = cv2.VideoWriter_fourcc(*'MJPG')  # type: ignore[attr-defined]
    size = (frames[0].shape[1], frames[0].shape[0])
    writer = cv2.VideoWriter(str(path), codec, 10.0, size)
    for frame in frames:
        writer.write(frame if frame.ndim == 3 else cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR))
    writer.release()
    return str(path)


def test_two_videos_become_one(
    tmp_path: Path, prior: str, capsys: pytest.CaptureFixture[str]
) -> None:
    visible = video(tmp_path / 'v.avi', [colour(number) for number in range(3)])
    thermal = video(tmp_path / 't.avi', [structure(9 + number) for number in range(3)])
    out = tmp_path / 'out.avi'
    options = ('--prior', prior, '--device', 'cpu')
    assert main([visible, thermal, '-o', str(out), *options]) == 0
    assert f'{out}: 3 frames fused' in capsys.readouterr().out
    capture = cv2.VideoCapture(str(out))
    frames = [capture.read()[1] for _ in range(3)]
    assert not capture.read()[0]
    capture.release()
    first = [cv2.VideoCapture(path).read()[1] for path in (visible, thermal)]
    result = expected(prior, first[0], cv2.cvtColor(first[1], cv2.COLOR_BGR2GRAY))
    assert np.abs(frames[0].astype(int) - result.image).mean() < 6  # JPEG
    assert main([visible, thermal, '-o', str(out), '--weights', *options]) == 2


def test_crop_and_range_of_a_preset_hold_for_videos(tmp_path: Path, prior: str) -> None:
    preset = tmp_path / 'preset.yaml'
    values = 'thermal_crop: [0, 8], thermal_range: fixed, thermal_range_limits: [0.0, 510.0]'
    preset.write_text(f'/**: {{ros__parameters: {{{values}}}}}')
    flat = np.full(SHAPE, 100, np.uint8)
    rows = np.vstack([np.full(SHAPE, 200, np.uint8), np.full((8, SHAPE[1]), 255, np.uint8)])
    paths = [video(tmp_path / 'v.avi', [flat] * 2), video(tmp_path / 't.avi', [rows] * 2)]
    out = tmp_path / 'out.avi'
    options = ('--preset', str(preset), '--prior', prior, '--device', 'cpu')
    assert main([*paths, '-o', str(out), *options]) == 0
    # Two flat images of one level are that level.
    fused = cv2.VideoCapture(str(out)).read()[1]
    assert fused.shape == (*SHAPE, 3)
    assert np.abs(fused.astype(int) - 100).max() < 6


def test_a_frame_that_cannot_be_fused_is_left_out(
    tmp_path: Path, prior: str, capsys: pytest.CaptureFixture[str]
) -> None:
    flat = [np.full(SHAPE, level, np.uint8) for level in (40, 80, 120)]
    false_colours = cv2.applyColorMap(structure(2), cv2.COLORMAP_JET)
    visible = video(tmp_path / 'v.avi', flat)
    thermal = video(tmp_path / 't.avi', [flat[0], false_colours, flat[2]])
    out = tmp_path / 'out.avi'
    options = ('--prior', prior, '--device', 'cpu')
    assert main([visible, thermal, '-o', str(out), *options]) == 1
    captured = capsys.readouterr()
    assert 'thermal of frame 1: the thermal image looks like a colour palette' in captured.err
    assert '2 frames fused, 1 left out' in captured.out
    capture = cv2.VideoCapture(str(out))
    # As long as the scene: the frame before is held.
    shown = [capture.read()[1].mean() for _ in range(3)]
    assert shown == pytest.approx([40, 40, 120], abs=6)
    assert not capture.read()[0]
    capture.release()
    video(tmp_path / 't.avi', [false_colours] * 3)
    other = tmp_path / 'other.avi'
    assert main([visible, thermal, '-o', str(other), *options]) == 2
    assert f'none of the 3 frames of {visible} can be fused' in capsys.readouterr().err
    assert not other.exists()


def test_weight_maps_are_computed_only_where_they_are_written(
    tmp_path: Path, prior: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = []
    fuse = Fuser.fuse

    def noted(self: Fuser, *images: Image, **how: Any) -> FusionResult:
        wanted.append(how['weight_maps'])
        return fuse(self, *images, **how)

    monkeypatch.setattr(Fuser, 'fuse', noted)
    monkeypatch.chdir(tmp_path)
    pairs_in(tmp_path / 'pairs', 'a')
    frames = video(tmp_path / 'a.avi', [structure(1)])
    for inputs in (['pairs/visible/a.png', 'pairs/thermal/a.png'], ['pairs'], [frames, frames]):
        for options in ([], ['--weights']) if frames not in inputs else ([],):
            assert main([*inputs, '--overwrite', '--prior', prior, *options]) == 0
    assert wanted == [False, True, False, True, False]


@pytest.mark.parametrize('key', ['q', '\x1b'])
def test_a_key_in_the_window_ends_and_keeps_what_is_fused(
    key: str,
    tmp_path: Path,
    prior: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shown: list[Image] = []
    monkeypatch.setenv('DISPLAY', ':0')
    monkeypatch.setattr(cv2, 'namedWindow', lambda *_: None)
    monkeypatch.setattr(cv2, 'imshow', lambda _, picture: shown.append(picture))
    monkeypatch.setattr(cv2, 'waitKey', lambda _: ord(key) if len(shown) % 2 == 0 else -1)
    monkeypatch.chdir(tmp_path)
    pairs_in(tmp_path / 'pairs', 'a', 'b', 'c')
    options = ('--show', '--prior', prior, '--device', 'cpu')
    assert main(['pairs', *options]) == 0
    assert 'fused: 2 pairs fused,' in capsys.readouterr().out
    assert sorted(path.name for path in Path('fused').iterdir()) == ['a.png', 'b.png']
    assert np.array_equal(read(Path('fused/b.png')), shown[1])
    frames = video(
        tmp_path / 'a.avi', [np.full(SHAPE, level, np.uint8) for level in (40, 80, 120)]
    )
    assert main([frames, frames, '-o', 'out.avi', *options]) == 0
    assert 'out.avi: 2 frames fused,' in capsys.readouterr().out
    capture = cv2.VideoCapture('out.avi')
    assert [capture.read()[1].mean() for _ in range(2)] == pytest.approx([40, 80], abs=6)
    assert not capture.read()[0]


def test_ctrl_c_leaves_no_half_written_video(
    tmp_path: Path, prior: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    fuse = Fuser.fuse

    def interrupted(self: Fuser, *images: Image, **how: Any) -> FusionResult:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return fuse(self, *images, **how)

    monkeypatch.setattr(Fuser, 'fuse', interrupted)
    monkeypatch.chdir(tmp_path)
    path = video(tmp_path / 'a.avi', [structure(1)] * 3)
    assert main([path, path, '--prior', prior, '--device', 'cpu']) == 130
    assert [each.name for each in tmp_path.iterdir()] == ['a.avi']


def test_the_default_output_is_not_replaced(
    tmp_path: Path,
    prior: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    images = [write(tmp_path / 'a.png', colour(0)), write(tmp_path / 'b.png', structure(1))]
    options = ('--prior', prior, '--device', 'cpu')
    assert main([*images, *options]) == 0
    assert np.array_equal(
        read(tmp_path / 'fused.png'), expected(prior, colour(0), structure(1)).image
    )
    assert main([*images, *options]) == 2
    assert 'fused.png exists' in capsys.readouterr().err
    assert main([*images, '--overwrite', *options]) == 0


@pytest.mark.parametrize(
    ('command', 'message'),
    [
        ('folder a.png', 'folder is a folder, but a.png is not: give images, two folders, or two'),
        ('a.png b.mp4', 'b.mp4 is a video, but a.png is not: give images, two folders, or two'),
        ('b.mp4', '1 videos: give the visible one and the thermal one'),
        ('b.mp4 b.mp4 b.mp4', '3 videos: give the visible one and the thermal one'),
        ('folder', 'folder'),
        ('a.png a.png --show', '--show needs a display: DISPLAY and WAYLAND_DISPLAY are not set'),
    ],
)
def test_inputs_that_do_not_go_together(
    command: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ('DISPLAY', 'WAYLAND_DISPLAY'):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / 'folder').mkdir()
    write(tmp_path / 'a.png', colour(0))
    assert main([*command.split(), '--device', 'cpu']) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / 'fused.png').exists()


def test_a_registration_of_folders_has_the_edge_of_the_preset(tmp_path: Path, prior: str) -> None:
    pairs_in(tmp_path / 'pairs', 'a')
    write(tmp_path / 'pairs/thermal/a.png', structure(2, (24, 32)))
    registration = tmp_path / 'registration.yaml'
    to_the_right = np.array([[1.0, 0, 32], [0, 1, 0], [0, 0, 1]])
    save_registration(Registration(to_the_right, (32, 24), (64, 48)), registration)
    options = ('--thermal-to-visible', str(registration), '--prior', prior, '--device', 'cpu')
    weights = []
    for edge in (0, 16):
        preset = tmp_path / f'{edge}.yaml'
        preset.write_text(f'/**: {{ros__parameters: {{registration_edge: {edge}.0}}}}')
        out = tmp_path / f'out{edge}'
        command = [str(tmp_path / 'pairs'), '-o', str(out), '--weights', '--preset', str(preset)]
        assert main([*command, *options]) == 0
        weights.append(read(out / 'a.weights.2.png'))
    assert (weights[0][:, :32] == 0).all()
    assert weights[0][2, 34] > 20 > weights[1][2, 34]


def test_what_holds_no_data_has_the_edge_of_the_preset_too(tmp_path: Path, prior: str) -> None:
    counts = 28400 + 8 * structure(2).astype(np.uint16)
    counts[:10] = 0
    pairs_in(tmp_path / 'pairs', 'a')
    write(tmp_path / 'pairs/thermal/a.png', counts)
    beside = []
    for edge in (0, 16):
        preset = tmp_path / f'{edge}.yaml'
        preset.write_text(f'/**: {{ros__parameters: {{registration_edge: {edge}.0}}}}')
        out = tmp_path / f'out{edge}'
        command = [str(tmp_path / 'pairs'), '-o', str(out), '--weights', '--preset', str(preset)]
        assert main([*command, '--prior', prior, '--device', 'cpu']) == 0
        beside.append(read(out / 'a.weights.2.png')[12:14].mean())
    assert beside[0] > 2 * beside[1]
