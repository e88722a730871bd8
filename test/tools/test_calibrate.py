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

"""The command dig2dig calibrate: scenes warped by a known homography, points, boards."""

from collections.abc import Callable
import dataclasses
import importlib.util
from pathlib import Path
import re
import subprocess
import sys
from typing import Any

import cv2
from images.scenes import scene as shapes
import numpy as np
import pytest
import yaml

from dig2dig_ros.evaluation.imperfect_cameras import Flaws, ImperfectCameras, Warp
from dig2dig_ros.evaluation.registration_pairs import from_bag
from dig2dig_ros.evaluation.synthetic_scene import SyntheticScene
from dig2dig_ros.images.alignment import corner_distance
from dig2dig_ros.images.registration import Registration
from dig2dig_ros.images.registration_file import load_registration
from dig2dig_ros.streams.parameters import complete_values
from dig2dig_ros.tools.calibrate import main, UNTRUSTED

# A browser for the page.
pytest_plugins = ['evaluation.conftest']
needs_rosbags = pytest.mark.skipif(
    importlib.util.find_spec('rosbags') is None, reason='needs rosbags (extra "evaluation")'
)
OpenPage = Callable[..., Any]

VISIBLE, THERMAL = (192, 144), (128, 96)
WARP = Warp(rotation=3.0, scale=1.1, shift_x=0.05, shift_y=-0.04)
# Thermal to visible, of small images whose content does not matter.
TRUTH = np.array([[1.55, 0.06, 4.0], [-0.05, 1.5, 3.0], [1e-4, -2e-4, 1.0]])


def scene(cameras: ImperfectCameras, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    street = SyntheticScene(*cameras.scene_size)
    frames = [street.render(12 * index / count) for index in range(count)]
    return [
        (cameras.look('visible', f.visible, i), cameras.look('thermal', f.thermal, i))
        for i, f in enumerate(frames)
    ]


def write_pairs(folder: Path, pairs: list[tuple[np.ndarray, np.ndarray]]) -> Path:
    for index, pair in enumerate(pairs):
        for name, image in zip(('visible', 'thermal'), pair, strict=True):
            (folder / name).mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(folder / name / f'{index:02}.png'), image)
    return folder


@pytest.fixture(scope='module')
def cameras() -> ImperfectCameras:
    return ImperfectCameras(VISIBLE, THERMAL, warp=WARP, with_margin=True)


@pytest.fixture(scope='module')
def street(cameras: ImperfectCameras, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return pairs of a street in a folder."""
    return write_pairs(tmp_path_factory.mktemp('street'), scene(cameras, 6))


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """Return pairs for points marked by hand, of random fields."""
    rng = np.random.default_rng(0)
    pairs = []
    for _ in range(2):
        coarse = rng.integers(20, 235, (18, 24), dtype=np.uint8)
        visible = cv2.resize(coarse, VISIBLE, interpolation=cv2.INTER_CUBIC)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        pairs.append((visible, cv2.warpPerspective(visible, TRUTH, THERMAL, flags=flags)))
    return write_pairs(tmp_path / 'plain', pairs)


def project(matrix: np.ndarray, points: Any) -> np.ndarray:
    return cv2.perspectiveTransform(np.array(points, float).reshape(-1, 1, 2), matrix)[:, 0]


def points_file(
    path: Path, thermal: Any, noise: float = 0.0, **wrong: tuple[float, float]
) -> Path:
    """
    Write a file with points of both images, by :data:`TRUTH`.

    :param wrong: by how much points are off, of those named ``point_1`` and so on.
    """
    rng = np.random.default_rng(1)
    visible = project(TRUTH, thermal) + rng.normal(0, noise, (len(thermal), 2))
    for name, shift in wrong.items():
        visible[int(name.removeprefix('point_')) - 1] += shift
    rows = np.column_stack([visible, thermal]).round(3)
    path.write_text(yaml.safe_dump({'visible_size': list(VISIBLE), 'points': rows.tolist()}))
    return path


# All over the thermal image; also every other one.
SPREAD = [
    *((10, 12), (60, 8), (115, 14), (14, 50), (66, 44), (110, 52)),
    *((9, 85), (58, 88), (104, 82), (40, 66), (58, 10), (86, 30)),
]


def run(*arguments: Any) -> int:
    return main([str(argument) for argument in arguments])


def refused(capsys: pytest.CaptureFixture[str], *arguments: Any) -> str:
    """Return the sentence with which the command ends, which is one line."""
    assert run(*arguments) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith('dig2dig calibrate: ')
    return error.removeprefix('dig2dig calibrate: ')


# From the images


@pytest.mark.slow
def test_a_directory_gives_the_homography_an_overlay_and_the_residual(
    street: Path,
    cameras: ImperfectCameras,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / 'registration.yaml'
    assert run(street, '--output', output, '--frames', 3) == 0
    found = load_registration(output)
    assert (found.visible_size, found.thermal_size) == (VISIBLE, THERMAL)
    assert found.visible_camera is None
    before = corner_distance(np.diag([1.5, 1.5, 1.0]), cameras.homography, THERMAL)
    after = corner_distance(found.thermal_to_visible, cameras.homography, THERMAL)
    assert before > 8
    assert after < 1.0
    printed = capsys.readouterr().out
    assert '3 frames of 6' in printed
    # What it says of itself is what it is.
    stated = float(re.search(r'known to ([\d.]+) thermal pixels', printed)[1])
    assert 0 < after < 3 * stated
    left = float(re.search(r'left over +([\d.]+) visible pixels .* over 3 other', printed)[1])
    assert left < 1.0
    assert 'trusted      yes' in printed
    assert yaml.safe_load(output.read_text())['estimate']['trusted'] == 'yes'
    picture = cv2.imread(str(output.with_suffix('.png')))
    # A row for each of three frames, before and after.
    assert picture.shape[0] > 3 * 720
    assert picture.shape[1] > 2 * 960
    orange = (np.abs(picture.astype(int) - (0, 150, 255)).max(axis=2) < 3).sum()
    assert orange > 1000


@pytest.mark.slow
def test_what_does_not_belong_together_is_not_written(
    street: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    for index in range(2):
        (tmp_path / 'pairs' / 'thermal').mkdir(parents=True, exist_ok=True)
        thermal = cv2.GaussianBlur(rng.normal(0, 1, THERMAL[::-1]), (0, 0), 3)
        thermal = cv2.normalize(thermal, None, 7000, 9000, cv2.NORM_MINMAX).astype(np.uint16)
        cv2.imwrite(str(tmp_path / 'pairs' / 'thermal' / f'{index:02}.png'), thermal)
    (tmp_path / 'pairs' / 'visible').symlink_to(street / 'visible')
    output = tmp_path / 'registration.yaml'
    assert run(tmp_path / 'pairs', '--output', output) == UNTRUSTED
    printed = capsys.readouterr()
    assert not output.exists()
    # To see what is wrong.
    assert output.with_suffix('.png').exists()
    assert 'trusted      no' in printed.out
    assert 'do not trust this registration: ' in printed.err
    assert '--click' in printed.err
    assert '--force' in printed.err


@pytest.mark.slow
def test_a_similarity_is_advised_where_no_edges_hold_the_corners(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    visible, thermal = shapes(4)
    visible[:, 60:], thermal[:, 60:] = 90, 8000
    folder = write_pairs(tmp_path / 'strip', [(visible, thermal)])
    output = tmp_path / 'registration.yaml'
    assert run(folder, '-o', output) == UNTRUSTED
    error = capsys.readouterr().err
    assert 'no edges hold them' in error
    assert 'what helps: --model similarity, if both cameras look in the same direction' in error
    stated = float(re.search(r'its corners are known to ([\d.]+) thermal pixels', error)[1])

    assert run(folder, '-o', output, '--overwrite', '--model', 'similarity') == 0
    printed = capsys.readouterr()
    assert 'a similarity from the images, 1 frame of 1' in printed.out
    assert f'corners known to {stated:.2f} thermal pixels' in printed.out
    assert '--model similarity' not in printed.err
    found = load_registration(output).thermal_to_visible
    assert corner_distance(found, np.eye(3), (160, 120)) < 1


@pytest.mark.slow
def test_a_thermal_camera_with_a_narrow_field_needs_its_width(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    narrow = ImperfectCameras(VISIBLE, THERMAL, warp=Warp(2.0, 0.6, 0.05), with_margin=True)
    pairs = write_pairs(tmp_path / 'narrow', scene(narrow, 3))
    output = tmp_path / 'registration.yaml'
    assert run(pairs, '-o', output) == UNTRUSTED
    assert '--thermal-width' in capsys.readouterr().err
    assert run(pairs, '-o', output, '--overwrite', '--thermal-width', '0.55') == 0
    found = load_registration(output)
    assert corner_distance(found.thermal_to_visible, narrow.homography, THERMAL) < 1.5
    # All frames are used, so none is left to check with.
    assert 'not measured: there are no other frames' in capsys.readouterr().out


def test_the_same_frame_many_times_is_one_frame(
    street: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ('visible', 'thermal'):
        (tmp_path / 'pairs' / name).mkdir(parents=True)
        for copy in range(5):
            (tmp_path / 'pairs' / name / f'{copy}.png').symlink_to(street / name / '00.png')
    page = tmp_path / 'page.html'
    assert run(tmp_path / 'pairs', '--click', page) == 0
    assert page.read_text().count('"name"') == 1


# Bags


def write_bag(
    path: Path,
    pairs: list[Any],
    infos: dict[str, Any],
    late: int = 4_000_000,
    stamp_of: Callable[[int], int] = lambda stamp: stamp,
) -> Path:
    from evaluation.bag_files import compressed_image, image, START
    from evaluation.bag_files import write_bag as write

    messages = []
    for index, (visible, thermal) in enumerate(pairs):
        stamp = START + index * 250_000_000
        messages.append(('/camera/image_raw/compressed', compressed_image(stamp, visible), stamp))
        messages.append(
            ('/thermal/image_raw', image(stamp_of(stamp + late), thermal), stamp + late)
        )
        for name, info in infos.items():
            messages.append((f'/{name}/camera_info', info, stamp))
    write(path, 'mcap', messages)
    return path


def info_of(cameras: ImperfectCameras, source: str) -> Any:
    from evaluation.bag_files import camera_info, START

    geometry = cameras.geometry(source)
    info = camera_info(START, *geometry.size)
    return dataclasses.replace(
        info, k=geometry.matrix.reshape(-1), d=np.array(geometry.distortion, float)
    )


@needs_rosbags
@pytest.mark.slow
def test_a_bag_with_distorted_lenses_gives_undistorted_pixels_and_both_cameras(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cameras = ImperfectCameras(
        VISIBLE,
        THERMAL,
        warp=WARP,
        visible=Flaws(distortion=(-0.25, 0.03)),
        thermal=Flaws(distortion=(-0.3, 0.05)),
        with_margin=True,
    )
    infos = {'camera': info_of(cameras, 'visible'), 'thermal': info_of(cameras, 'thermal')}
    bag = write_bag(tmp_path / 'drive', scene(cameras, 4), infos)
    output = tmp_path / 'registration.yaml'
    assert run(bag, '-o', output, '--frames', 3) == 0
    found = load_registration(output)
    assert found.visible_camera is not None
    assert found.thermal_camera is not None
    np.testing.assert_allclose(found.thermal_camera.distortion[:2], (-0.3, 0.05))
    assert corner_distance(found.thermal_to_visible, cameras.homography, THERMAL) < 1.0
    printed = capsys.readouterr().out
    assert '4 pairs of ' in printed
    assert 'the visible and thermal has distortion' in printed


@needs_rosbags
def test_of_a_long_bag_pairs_are_kept_all_over_it(tmp_path: Path) -> None:
    pairs = [(np.full((8, 8, 3), i, np.uint8), np.full((8, 8), i, np.uint8)) for i in range(40)]
    bag = write_bag(tmp_path / 'long', pairs, {})
    recording = from_bag(bag, 8, complete_values({}))
    assert recording.total == 40
    numbers = [int(pair.visible[0, 0, 0]) for pair in recording.pairs]
    assert 4 <= len(numbers) <= 8
    assert numbers[0] == 0
    assert numbers[-1] >= 32
    # JPEG may be off by one.
    assert np.ptp(np.diff(numbers)) <= 2


@needs_rosbags
def test_pairs_of_clocks_that_differ_are_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = [(np.full((8, 8, 3), i, np.uint8), np.full((8, 8), i, np.uint8)) for i in range(20)]
    sound = write_bag(tmp_path / 'sound', pairs, {})
    assert from_bag(sound, 4, complete_values({})).total == 20
    assert 'warning' not in capsys.readouterr().err
    bag = write_bag(tmp_path / 'clock', pairs, {}, stamp_of=lambda stamp: stamp - 1_500_000_000)
    assert from_bag(bag, 4, complete_values({})).total == 14
    warning = capsys.readouterr().err
    assert 'warning: the thermal stamps are 1.496 s before the visible ones' in warning
    assert 'pairs were not taken together' in warning


@needs_rosbags
def test_a_bag_without_pairs_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = [(np.zeros((48, 64, 3), np.uint8), np.zeros((48, 64), np.uint16))] * 3
    apart = write_bag(tmp_path / 'apart', pairs, {}, late=100_000_000)
    assert re.search(
        r'apart gives no pairs: of 3 visible and 3 thermal images no two pair: no stamps lie '
        r'within sync_tolerance, 0.05 s; .* 0.100 s after .*: set thermal_time_offset: -0.100, .* '
        r'--preset',
        refused(capsys, apart, '-o', tmp_path / 'r.yaml'),
    )
    for ahead in (8_004_000_000, -37_004_000_000):
        clock = write_bag(tmp_path / f'clock{ahead}', pairs, {}, 0, lambda s, a=ahead: s + a)
        hint = f'set thermal_time_offset: {-ahead * 1e-9:.3f}, or synchronise'
        assert hint in refused(capsys, clock, '-o', tmp_path / 'r.yaml')
    zero = write_bag(tmp_path / 'zero', pairs, {}, stamp_of=lambda stamp: 0)
    assert refused(capsys, zero, '-o', tmp_path / 'r.yaml').endswith(
        'zero gives no pairs: 3 of 3 thermal images have no stamp, which the driver must '
        'set: without one they cannot be paired'
    )
    colour = [(pairs[0][0], np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8))]
    palette = write_bag(tmp_path / 'palette', colour, {})
    sentence = refused(capsys, palette, '-o', tmp_path / 'r.yaml')
    assert 'palette gives no pairs: the thermal image' in sentence
    assert 'mono16' in sentence
    # What the bag holds follows the sentence.
    assert run(apart, '--thermal', '/nowhere', '-o', tmp_path / 'r.yaml') == 2
    assert 'no thermal topic /nowhere in the bag, which holds' in capsys.readouterr().err


# Points marked by hand


def test_points_give_the_homography_and_the_residual_of_each(
    plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = points_file(tmp_path / 'points.yaml', SPREAD, noise=0.3, point_4=(25.0, -18.0))
    output = tmp_path / 'registration.yaml'
    assert run(plain, '--points', file, '-o', output) == 0
    found = load_registration(output)
    assert corner_distance(found.thermal_to_visible, TRUTH, THERMAL) < 1.0
    printed = capsys.readouterr().out
    assert re.search(r'residual +RMS 0\.\d+ thermal pixels .* of 11 points; 1 left out', printed)
    lines = [line for line in printed.splitlines() if line.startswith('point ')]
    assert len(lines) == 12
    assert [line.endswith('left out') for line in lines].index(True) == 3
    assert float(re.search(r': ([\d.]+) thermal', lines[3])[1]) > 15


def test_four_points_are_enough_but_nothing_confirms_them(
    plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corners = [(2, 3), (118, 6), (116, 88), (3, 90)]
    file = points_file(tmp_path / 'points.yaml', corners)
    assert run(plain, '--points', file, '-o', tmp_path / 'registration.yaml') == 0
    found = load_registration(tmp_path / 'registration.yaml')
    assert corner_distance(found.thermal_to_visible, TRUTH, THERMAL) < 1.0
    assert 'nothing checks them' in capsys.readouterr().err


def test_points_in_one_place_are_not_to_be_trusted(
    plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    close = [(50, 40), (66, 42), (52, 54), (64, 56), (58, 48), (60, 40)]
    file = points_file(tmp_path / 'points.yaml', close)
    output = tmp_path / 'registration.yaml'
    assert run(plain, '--points', file, '-o', output) == UNTRUSTED
    assert not output.exists()
    warning = capsys.readouterr().err
    assert 'too few, too close together' in warning
    assert 'in all parts of both images' in warning
    assert run(plain, '--points', file, '-o', output, '--force', '--overwrite') == UNTRUSTED
    estimate = yaml.safe_load(output.read_text())['estimate']
    assert estimate['trusted'] == 'no'
    assert 'uncertain' in estimate['reasons'][0]


def test_contradicting_points_are_not_to_be_trusted(
    plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = {'point_1': (30, 0), 'point_3': (-25, 30), 'point_7': (0, -40), 'point_9': (-22, -22)}
    file = points_file(tmp_path / 'points.yaml', SPREAD, **wrong)
    assert run(plain, '--points', file, '-o', tmp_path / 'r.yaml') == UNTRUSTED
    assert 'do not fit the others' in capsys.readouterr().err


def test_points_on_a_line_are_refused(
    plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = [(10 + 10 * i, 20 + 5 * i) for i in range(8)]
    sentence = 'all points, or all but one, lie on a line in the visible image'
    for points in (line, [*line, (100, 20)], [(5, 5), (5, 5), (60, 60), (120, 8)]):
        file = points_file(tmp_path / 'points.yaml', points)
        assert sentence in refused(capsys, plain, '--points', file, '-o', tmp_path / 'r.yaml')


@pytest.mark.parametrize(
    ('text', 'sentence'),
    [
        ('points: [[1, 2, 3, 4]]', 'has 1 point: a homography needs four'),
        ('points: [[1, 2, 3]]', 'point 1 is [1, 2, 3], but must be four numbers'),
        ('points: [[1, 2, 3, .nan]]', 'point 1 is [1, 2, 3, nan], but must be four numbers'),
        ('points: [7, 8]', 'point 1 is 7, but must be four numbers'),
        ('points: none', 'has no list of points'),
        (
            'points: [[1, 2, 3, 4], [5, 2, 3, 4], [1, 9, 3, 4], [1, 2, 300, 4]]',
            'thermal image, which',
        ),
        ('[[1, 2, 3, 4]]', 'is not a mapping of keys to values'),
        ('{visible_size: [10, 10], points: []}', 'for visible images of [10, 10] pixels'),
        ('a: [', 'is not valid YAML'),
    ],
)
def test_what_is_wrong_with_a_points_file_is_said(
    plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, sentence: str
) -> None:
    file = tmp_path / 'points.yaml'
    file.write_text(text)
    assert run(plain, '--points', file, '-o', tmp_path / 'r.yaml') == 2
    error = capsys.readouterr().err
    assert 'points.yaml' in error
    assert sentence in error


# A checkerboard


def board_pairs(size: tuple[int, int]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return three frames with a board of 7x5 inner corners, and one that only thermal sees."""
    squares = np.indices((6, 8)).sum(axis=0) % 2
    board = np.kron(squares, np.ones((40, 40))) * 200 + 30
    board = np.pad(board, 40, constant_values=230).astype(np.uint8)
    height, width = board.shape
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    places = [
        [[25, 20], [210, 35], [205, 160], [30, 150]],
        [[100, 70], [300, 60], [305, 215], [110, 195]],
        [[20, 95], [190, 80], [215, 225], [15, 220]],
        [[120, 20], [305, 30], [290, 140], [125, 150]],
    ]
    pairs = []
    for index, place in enumerate(places):
        to_visible = cv2.getPerspectiveTransform(corners, np.array(place, np.float32))
        to_thermal = np.linalg.inv(BOARD_TRUTH) @ to_visible
        flags = cv2.INTER_AREA
        visible = cv2.warpPerspective(board, to_visible, (320, 240), flags=flags, borderValue=120)
        # Dark squares are warm.
        cold = cv2.warpPerspective(255 - board, to_thermal, size, flags=flags, borderValue=120)
        thermal = cv2.GaussianBlur(cold, (0, 0), 0.6).astype(np.uint16) * 4 + 7000
        pairs.append((np.full_like(visible, 90) if index == 3 else visible, thermal))
    return pairs


BOARD_TRUTH = np.array([[1.95, 0.05, 5.0], [-0.04, 1.9, 6.0], [1e-5, -2e-5, 1.0]])


def test_a_checkerboard_gives_the_homography_though_thermal_is_inverted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    size = (160, 120)
    pairs = write_pairs(tmp_path / 'board', board_pairs(size))
    output = tmp_path / 'registration.yaml'
    assert run(pairs, '--checkerboard', '7x5', '-o', output) == 0
    found = load_registration(output)
    assert corner_distance(found.thermal_to_visible, BOARD_TRUTH, size) < 0.5
    printed = capsys.readouterr().out
    assert 'in 3 visible and 4 thermal images of 4, in both of 3 frames' in printed
    assert re.search(r'residual +RMS 0\.\d+ thermal pixels .* of 105 points', printed)
    assert len(re.findall(r'^frame 0\d +RMS', printed, re.MULTILINE)) == 3


@pytest.mark.slow
def test_a_board_that_nobody_sees_is_said(
    plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sentence = refused(capsys, plain, '--checkerboard', '7x5', '-o', tmp_path / 'r.yaml')
    assert 'no frame shows the board of 7x5 inner corners in both images' in sentence
    assert 'in 0 visible and 0 thermal images of 2' in sentence


# Camera models from files


def calibration(path: Path, size: tuple[int, int], distortion: float) -> Path:
    width, height = size
    matrix = [width, 0, (width - 1) / 2, 0, width, (height - 1) / 2, 0, 0, 1]
    path.write_text(
        yaml.safe_dump(
            {
                'image_width': width,
                'image_height': height,
                'camera_name': 'any',
                'camera_matrix': {'rows': 3, 'cols': 3, 'data': matrix},
                'distortion_model': 'plumb_bob',
                'distortion_coefficients': {
                    'rows': 1,
                    'cols': 5,
                    'data': [distortion, 0, 0, 0, 0],
                },
            }
        )
    )
    return path


def test_points_are_undistorted_by_calibration_files(plain: Path, tmp_path: Path) -> None:
    visible = calibration(tmp_path / 'visible.yaml', VISIBLE, -0.2)
    thermal = calibration(tmp_path / 'thermal.yaml', THERMAL, -0.3)
    ideal = Registration(TRUTH, THERMAL, VISIBLE)
    output = tmp_path / 'registration.yaml'
    files = ['--visible-camera', visible, '--thermal-camera', thermal]
    # First only to have the models.
    first = points_file(tmp_path / 'first.yaml', SPREAD)
    run(plain, '--points', first, '-o', output, '--force', *files)
    models = load_registration(output)
    truth = dataclasses.replace(
        ideal, visible_camera=models.visible_camera, thermal_camera=models.thermal_camera
    )
    rows = np.column_stack([truth.to_visible(np.array(SPREAD, float)), SPREAD])
    file = tmp_path / 'points.yaml'
    file.write_text(yaml.safe_dump({'points': rows.tolist()}))
    assert run(plain, '--points', file, '-o', output, '--overwrite', *files) == 0
    found = load_registration(output)
    assert corner_distance(found.thermal_to_visible, TRUTH, THERMAL) < 0.3


def test_what_is_wrong_with_a_calibration_is_said(
    plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    visible = calibration(tmp_path / 'visible.yaml', VISIBLE, 0.1)
    thermal = calibration(tmp_path / 'thermal.yaml', (64, 48), 0.1)
    output = tmp_path / 'r.yaml'

    def sentence() -> str:
        files = ['--visible-camera', visible, '--thermal-camera', thermal]
        return refused(capsys, plain, '-o', output, *files)

    assert 'the thermal camera is calibrated for 64x48 pixels, but its images have' in sentence()
    thermal.write_text('image_width: 128')
    assert 'thermal.yaml is not a ROS calibration file' in sentence()


# What is asked for wrongly


def test_wrong_sources_and_outputs_are_refused(
    plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / 'registration.yaml'
    assert 'does not exist' in refused(capsys, tmp_path / 'none', '-o', output)
    (tmp_path / 'empty').mkdir()
    assert 'no pairs in ' in refused(capsys, tmp_path / 'empty', '-o', output)
    output.write_text('mine')
    assert 'replace it with --overwrite' in refused(capsys, plain, '-o', output)
    assert output.read_text() == 'mine'
    assert 'is a folder' in refused(capsys, plain, '-o', tmp_path / 'empty')
    overlay = ['--overlay', tmp_path / 'picture.gif']
    assert 'suffix .png or .jpg' in refused(capsys, plain, '-o', tmp_path / 'r.yaml', *overlay)
    cv2.imwrite(str(plain / 'visible' / '01.png'), np.zeros((20, 30), np.uint8))
    assert 'the visible images differ in size: 00 has 192x144 pixels, 01 has 30x20' in refused(
        capsys, plain, '-o', tmp_path / 'r.yaml'
    )


def test_images_without_anything_to_see_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blank = [(np.full((96, 128, 3), 70, np.uint8), np.full((96, 128), 7000, np.uint16))] * 2
    pairs = write_pairs(tmp_path / 'blank', blank)
    assert 'shows nothing in one of the cameras' in refused(
        capsys, pairs, '-o', tmp_path / 'r.yaml'
    )


@pytest.mark.parametrize(
    'arguments',
    [
        [],
        ['pairs', '--live'],
        ['pairs', '--points', 'p.yaml', '--checkerboard', '7x5'],
        ['pairs', '--checkerboard', '7'],
        ['pairs', '--checkerboard', '2x5'],
        ['pairs', '--thermal-width', '0'],
        ['pairs', '--points', 'p.yaml', '--model', 'similarity'],
        ['pairs', '--visible-camera', 'v.yaml'],
        ['pairs', '--ros-args', '-r', 'a:=b'],
        ['--live', '--timeout', '0'],
    ],
)
def test_command_lines_without_sense_end_with_two(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as error:
        main(arguments)
    assert error.value.code == 2


def test_ros_is_not_imported_for_files(plain: Path, tmp_path: Path) -> None:
    program = (
        'import sys\n'
        'from dig2dig_ros.tools.calibrate import main\n'
        f'assert main([{str(plain)!r}, "--click", {str(tmp_path / "page.html")!r}]) == 0\n'
        'assert not {"rclpy", "torch"} & set(sys.modules)\n'
    )
    subprocess.run([sys.executable, '-c', program], check=True)


# The page to mark points in


@pytest.fixture
def page(plain: Path, tmp_path: Path) -> Path:
    path = tmp_path / 'page.html'
    assert run(plain, '--click', path) == 0
    return path


def click(browser: Any, source: str, at: tuple[float, float], touch: bool = False) -> None:
    """Press and let go at a pixel of an image."""
    from selenium.webdriver.common.actions.action_builder import ActionBuilder
    from selenium.webdriver.common.actions.pointer_input import PointerInput

    stage = browser.find_element('css selector', f'#{source} .stage')
    browser.execute_script('arguments[0].scrollIntoView({block: "center"})', stage)
    width, height = VISIBLE if source == 'visible' else THERMAL
    x = ((at[0] + 0.5) / width - 0.5) * stage.rect['width']
    y = ((at[1] + 0.5) / height - 0.5) * stage.rect['height']
    kind = 'touch' if touch else 'mouse'
    actions = ActionBuilder(browser, mouse=PointerInput(kind, kind), duration=20)
    # A finger comes down beside, and is moved to the place.
    actions.pointer_action.move_to(stage, round(x) - 8 * touch, round(y))
    actions.pointer_action.pointer_down()
    actions.pointer_action.move_to(stage, round(x), round(y))
    actions.pointer_action.pointer_up()
    actions.perform()


def text_of(browser: Any, name: str) -> str:
    element = browser.find_element('css selector', f'#{name}')
    return element.get_attribute('value') if name == 'text' else element.text


def points_of(browser: Any) -> list[list[float]]:
    return yaml.safe_load(text_of(browser, 'text'))['points']


def overhang(browser: Any) -> int:
    """Return by how many pixels the page is wider than its window."""
    page = 'document.documentElement'
    return int(browser.execute_script(f'return {page}.scrollWidth - {page}.clientWidth'))


def marks(browser: Any, source: str) -> list[str]:
    found = browser.find_elements('css selector', f'#{source} .mark')
    return [mark.text for mark in found]


@pytest.mark.parametrize('touch', [False, True], ids=['mouse', 'finger'])
def test_points_are_marked_in_turns_and_make_a_registration(
    open_page: OpenPage, page: Path, plain: Path, tmp_path: Path, touch: bool
) -> None:
    browser = open_page(page, width=1000)
    assert overhang(browser) == 0
    assert text_of(browser, 'status').startswith('Point 1: click a point in the visible image')
    for number, thermal in enumerate(SPREAD[::2], start=1):
        (visible,) = project(TRUTH, [thermal])
        # In either order.
        order = [('visible', visible), ('thermal', thermal)][:: 1 if number % 2 else -1]
        for source, at in order:
            click(browser, source, at, touch)
        assert marks(browser, 'visible') == marks(browser, 'thermal')
        assert len(marks(browser, 'visible')) == number
    found = np.array(points_of(browser))
    expected = np.column_stack([project(TRUTH, SPREAD[::2]), SPREAD[::2]])
    # By less than two pixels on the screen.
    assert np.abs(found - expected).max() < 0.8
    file = tmp_path / 'points.yaml'
    file.write_text(text_of(browser, 'text'))
    output = tmp_path / 'registration.yaml'
    assert run(plain, '--points', file, '-o', output) == 0
    matrix = load_registration(output).thermal_to_visible
    assert corner_distance(matrix, TRUTH, THERMAL) < 2.0


def test_marks_are_moved_undone_and_removed(open_page: OpenPage, page: Path) -> None:
    from selenium.webdriver import ActionChains, Keys

    browser = open_page(page, width=1000)
    click(browser, 'visible', (20, 30))
    click(browser, 'visible', (100, 90))
    assert text_of(browser, 'status') == 'Point 1: now click the same point in the thermal image'
    assert marks(browser, 'visible') == ['1']
    assert points_of(browser) == []
    click(browser, 'thermal', (60, 50))
    before = points_of(browser)[0]
    assert before[:2] == pytest.approx((100, 90), abs=0.4)
    ActionChains(browser, duration=0).send_keys(Keys.ARROW_RIGHT, Keys.ARROW_UP).perform()
    assert points_of(browser)[0] == pytest.approx(np.add(before, (0, 0, 1, -1)))
    click(browser, 'thermal', (10, 10))
    browser.find_element('css selector', '#undo').click()
    assert marks(browser, 'thermal') == ['1']
    browser.find_element('css selector', '#undo').click()
    assert marks(browser, 'thermal') == []
    assert points_of(browser) == []
    for x in (20, 40):
        click(browser, 'visible', (x, 30))
        click(browser, 'thermal', (x, 30))
    browser.find_element('css selector', '[aria-label="Remove point 1"]').click()
    assert points_of(browser)[0][0] == pytest.approx(40, abs=0.4)


def test_each_frame_has_its_own_marks_and_all_count(open_page: OpenPage, page: Path) -> None:
    from selenium.webdriver.support.select import Select

    browser = open_page(page, width=1000, scheme='dark')
    paper = browser.execute_script('return getComputedStyle(document.body).backgroundColor')
    assert max(map(int, re.findall(r'\d+', paper)[:3])) < 60
    click(browser, 'visible', (20, 30))
    click(browser, 'thermal', (20, 30))
    click(browser, 'visible', (50, 30))
    browser.find_element('css selector', '#next').click()
    # The point that was begun is of the other frame.
    assert marks(browser, 'visible') == []
    assert text_of(browser, 'status').startswith('Point 2: click a point in the visible image')
    click(browser, 'visible', (90, 60))
    click(browser, 'thermal', (70, 50))
    assert marks(browser, 'visible') == ['2']
    assert len(points_of(browser)) == 2
    chosen = Select(browser.find_element('css selector', '#frame'))
    assert [option.text for option in chosen.options] == ['1: 00, 1 point', '2: 01, 1 point']
    chosen.select_by_index(0)
    assert marks(browser, 'visible') == ['1']
    assert re.search(r'\]  # "00"\n- .*# "01"', text_of(browser, 'text'))


def test_the_text_is_copied_and_saved(open_page: OpenPage, page: Path, tmp_path: Path) -> None:
    browser = open_page(page, width=1000)
    browser.execute_cdp_cmd(
        'Browser.setDownloadBehavior', {'behavior': 'allow', 'downloadPath': str(tmp_path)}
    )
    click(browser, 'visible', (20, 30))
    click(browser, 'thermal', (20, 30))
    browser.find_element('css selector', '#copy').click()
    done = browser.find_element('css selector', '#done')
    from selenium.webdriver.support.wait import WebDriverWait

    WebDriverWait(browser, 10).until(lambda _: done.text)
    assert done.text == 'Copied'
    browser.find_element('css selector', '#save').click()
    saved = tmp_path / 'points.yaml'
    WebDriverWait(browser, 10).until(lambda _: saved.is_file())
    assert saved.read_text() == text_of(browser, 'text')


def test_the_page_loads_nothing_and_fits_a_phone(open_page: OpenPage, page: Path) -> None:
    html = page.read_text()
    assert 'http://' not in html
    assert 'https://' not in html
    assert "default-src 'none'" in html
    browser = open_page(page, 360, 740)
    assert overhang(browser) == 0
    loaded = browser.execute_script(
        'return performance.getEntriesByType("resource").map((entry) => entry.name)'
        '.filter((name) => !name.startsWith("data:"))'
    )
    assert loaded == []


def test_names_of_files_do_nothing_in_a_page(
    open_page: OpenPage, plain: Path, tmp_path: Path
) -> None:
    nasty = '</script><script>alert(1)<!-- & $title'
    folder = tmp_path / 'a & <b>'
    for source in ('visible', 'thermal'):
        (folder / source).mkdir(parents=True)
        name = nasty.replace('/', '_')
        (folder / source / f'{name}.png').symlink_to(plain / source / '00.png')
    path = tmp_path / 'page.html'
    assert run(folder, '--click', path) == 0
    browser = open_page(path)
    assert browser.title.endswith('a & <b>')
    click(browser, 'visible', (20, 30))
    click(browser, 'thermal', (20, 30))
    assert len(points_of(browser)) == 1
    assert name in text_of(browser, 'text')
