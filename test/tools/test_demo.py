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

"""The demo: its pictures, its folder, its figures, and short runs over real DDS."""

from collections.abc import Sequence
import json
import os
from pathlib import Path
import subprocess
import sys
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
import pytest

from dig2dig_ros.evaluation.demo_pictures import ContactSheet, Frame
from dig2dig_ros.evaluation.demo_report import (
    OutputFolder,
    problems,
    registration_facts,
    render_summary,
    WARP,
)
from dig2dig_ros.evaluation.imperfect_cameras import true_homography
from dig2dig_ros.evaluation.options import UsageError
from dig2dig_ros.images.overlay import contribution_legend
from dig2dig_ros.images.registration import Registration
from dig2dig_ros.images.registration_file import load_registration

ROOT = Path(__file__).resolve().parents[2]


def make_frame(
    width: int = 64, height: int = 48, stamp_s: float = 0.0, **changes: object
) -> Frame:
    def picture(level: int) -> NDArray[np.uint8]:
        return np.full((height, width, 3), level, np.uint8)

    fields = {
        'visible': picture(40),
        'thermal': picture(90),
        'fused': picture(140),
        'overlay': picture(190),
    }
    return Frame(stamp_s=stamp_s, **{**fields, **changes})  # type: ignore[arg-type]


def make_summary(**changes: object) -> dict[str, object]:
    summary: dict[str, object] = {
        'sent': {'visible': 40, 'thermal': 40, 'pairs': 40},
        'received': {'visible': 40, 'thermal': 40},
        'pairs': 39,
        'fused': 12,
        'dropped': {'superseded': 27, 'visible unpaired': 1, 'thermal late': 0},
        'waiting': {'visible': 0, 'thermal': 1},
        'seen': {'fused/image_raw': 12},
        'node_latency_ms': {'p50': 310.4, 'p95': 402.5},
        'node': {
            'device': 'cpu',
            'precision': 'fp32',
            'prior': 'compact',
            'N': '4',
            'S': '2',
        },
        'sizes': ['640x512'],
        'last_error': '',
    }
    return {**summary, **changes}


def make_registration_facts(**changes: object) -> dict[str, object]:
    facts: dict[str, object] = {
        'trusted': True,
        'reasons': [],
        'truth': 'the truth',
        'corner_error_px': 0.25,
        'corner_error_before_px': 90.4,
        'corner_error_limit_px': 1.5,
        'misalignment': '0.2 (thermal is 0.2 too far right and 0.1 too far up)',
    }
    return {**facts, **changes}


# The contact sheet


def test_sheet_shows_the_four_pictures_side_by_side() -> None:
    sheet = ContactSheet(tile_width=64)
    sheet.add(make_frame(), 'a pair')
    image = sheet.render('title')
    assert image is not None
    row = image[-30]  # well within the last row of pictures, above the margin
    levels = [level for level in (40, 90, 140, 190) if (row == level).all(axis=1).sum() == 64]
    assert levels == [40, 90, 140, 190]
    firsts = [int(np.argmax((row == level).all(axis=1))) for level in levels]
    assert firsts == sorted(firsts)


def test_sheet_says_above_the_last_column_what_its_colours_mean() -> None:
    sheet = ContactSheet(tile_width=128)
    sheet.add(make_frame(), 'a pair')
    for title in ('title', ''):
        image = sheet.render(title)
        assert image is not None
        legend = contribution_legend(('visible', 'thermal'))
        np.testing.assert_array_equal(image[6:32, -6 - legend.shape[1] : -6], legend)


def test_sheet_has_at_most_so_many_rows_spread_over_the_run() -> None:
    def rows(count: int) -> NDArray[np.uint8]:
        sheet = ContactSheet(max_rows=3, tile_width=64)
        for number in range(count):
            level = np.full((48, 64, 3), number % 200, np.uint8)
            sheet.add(make_frame(fused=level), 'a pair')
        image = sheet.render()
        assert image is not None
        return image

    assert rows(3).shape == rows(100).shape
    assert rows(2).shape[0] < rows(3).shape[0]
    # The third column shows frames of the beginning, the middle and the end of 100.
    middle = rows(100)[:, 2 * (64 + 6) + 6 + 32, 0]
    shown = {int(level) for level in middle if 0 < level < 100}
    assert min(shown | {0}) < 34
    assert any(34 <= level < 67 for level in shown)
    assert max(shown) >= 67


def test_sheet_takes_pictures_of_other_sizes_and_missing_overlays() -> None:
    sheet = ContactSheet(tile_width=64)
    sheet.add(make_frame(width=64, height=48), 'a pair')
    small = np.full((20, 30, 3), 90, np.uint8)
    sheet.add(make_frame(width=101, height=33, thermal=small, overlay=None), 'a pair')
    image = sheet.render()
    assert image is not None
    assert image.shape[2] == 3
    assert image.shape[1] == 4 * 64 + 3 * 6 + 2 * 6


def test_sheet_without_frames_is_none() -> None:
    assert ContactSheet().render('title') is None


ORANGE, BLUE = (0, 150, 255), (255, 200, 0)


def square(top: int, left: int) -> NDArray[np.uint8]:
    picture = np.full((96, 128, 3), 60, np.uint8)
    picture[top : top + 30, left : left + 30] = 200
    return picture


def shifted_by(x: int, y: int) -> Registration:
    """Return a registration whose thermal pixels lie so far to the right and down."""
    return Registration(np.array([[1.0, 0, x], [0, 1, y], [0, 0, 1]]), (128, 96), (128, 96))


def outline_distance(picture: NDArray[np.uint8], top: int, left: int) -> float:
    """Return how far the orange pixels are at most from the outline of a square of 30 pixels."""
    y, x = np.nonzero((picture == ORANGE).all(axis=2))
    assert len(y) > 40
    across = np.maximum(np.abs(x - left - 14.5), np.abs(y - top - 14.5))
    return float(np.abs(across - 15).max())


def test_sheet_shows_thermal_edges_before_and_after_registration() -> None:
    sheet = ContactSheet(tile_width=128, placement=shifted_by(24, -10).placement(0.0))
    # What the visible camera sees at (50, 30), the thermal one sees at (26, 40).
    sheet.add(
        make_frame(visible=square(30, 50), thermal=square(40, 26), fused=square(30, 50)), 'a pair'
    )
    image = sheet.render('title', 'a note')
    assert image is not None
    assert image.shape[1] == 6 * 128 + 5 * 6 + 2 * 6
    row = image[-6 - 96 : -6]
    tiles = [row[:, left : left + 128] for left in range(6, 6 + 6 * 134, 134)]
    assert (tiles[0] == square(30, 50)).all()
    assert (tiles[1] == square(40, 26)).all()
    assert (tiles[4] == square(30, 50)).all()
    before, after = tiles[2:4]
    assert outline_distance(before, 40, 26) <= 2
    assert outline_distance(after, 30, 50) <= 2
    # The thermal image begins 24 pixels from the left and ends 10 above the bottom.
    assert not (before == BLUE).all(axis=2).any()
    y, x = np.nonzero((after == BLUE).all(axis=2))
    assert (x.min(), y.max()) == (24, 85)


# The output folder


def test_next_run_replaces_the_files_of_the_previous_one(tmp_path: Path) -> None:
    first = OutputFolder(tmp_path / 'out')
    first.write_image('fused/0001.png', np.zeros((8, 8, 3), np.uint8))
    first.file('video.mp4').write_bytes(b'old')
    (tmp_path / 'out' / 'mine.txt').write_text('keep me')
    (tmp_path / 'out' / 'fused' / 'mine.png').write_bytes(b'keep me')

    second = OutputFolder(tmp_path / 'out')
    left = {p.relative_to(tmp_path / 'out').as_posix() for p in (tmp_path / 'out').rglob('*.*')}
    assert left == {'mine.txt', 'fused/mine.png', 'demo_files.txt'}
    second.write_image('fused/0001.png', np.full((8, 8, 3), 7, np.uint8))
    image = cv2.imread(str(tmp_path / 'out' / 'fused' / '0001.png'))
    assert image is not None
    assert (image == 7).all()


def test_foreign_file_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / 'summary.json').write_text('mine')
    folder = OutputFolder(tmp_path)
    with pytest.raises(UsageError, match='not written by the demo'):
        folder.file('summary.json')
    assert (tmp_path / 'summary.json').read_text() == 'mine'


def test_manifest_cannot_reach_outside_the_folder(tmp_path: Path) -> None:
    outside = tmp_path / 'outside.txt'
    outside.write_text('keep me')
    OutputFolder(tmp_path / 'out')
    with (tmp_path / 'out' / 'demo_files.txt').open('a') as manifest:
        manifest.write(f'../outside.txt\n{outside}\n')
    OutputFolder(tmp_path / 'out')
    assert outside.read_text() == 'keep me'


def test_output_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / 'file').write_text('')
    with pytest.raises(UsageError, match='cannot write to the output folder'):
        OutputFolder(tmp_path / 'file' / 'out')


# Figures


def test_summary_lines_tell_the_causes_that_happened() -> None:
    text = render_summary(make_summary())
    assert '40 (visible 40, thermal 40)' in text
    assert '27 superseded, 1 visible unpaired' in text
    assert 'thermal late' not in text
    assert 'median 310 ms, p95 402 ms' in text
    assert 'visible 40, thermal 40' in text
    assert 'sizes        640x512' in text
    assert 'cpu, fp32, denoiser compact, N 4, S 2' in text
    assert 'still without a partner: 1 thermal' in text
    assert 'registration' not in text


def test_summary_lines_tell_of_the_registration() -> None:
    text = render_summary(make_summary(registration=make_registration_facts()))
    assert (
        'trusted; its corners are 0.25 thermal pixels off the truth (limit 1.5), 90.4 without it'
        in text
    )
    assert 'measured by the node: 0.2 (thermal is 0.2 too far right' in text
    distrusted = make_registration_facts(trusted=False)
    assert 'not trusted; its' in render_summary(make_summary(registration=distrusted))


# From here on with ROS's Python packages


@pytest.fixture
def demo() -> Any:
    pytest.importorskip('rclpy')
    from dig2dig_ros.tools import demo as module

    return module


@pytest.mark.parametrize(
    ('arguments', 'complaint'),
    [
        (['--pairs', 'nowhere'], 'nowhere is not a folder'),
        (['--preset', 'fastest'], 'neither a file nor a preset'),
        (['--count', '0'], '--count must be positive'),
        (['--rate', 'nan'], '--rate must be positive'),
        (['-N', '-3'], 'num_inference_steps is -3, but must be 1 to 999'),
        (['--sheet-rows', '0'], '--sheet-rows must be positive'),
        (['--domain-id', '102'], '--domain-id must be 0 to 101'),
        (['--output', __file__], 'exists and is not a folder'),
        (['--size', 'wide'], 'is not WIDTHxHEIGHT'),
    ],
)
def test_wrong_argument_ends_with_a_sentence(
    demo: Any, capsys: pytest.CaptureFixture[str], arguments: Sequence[str], complaint: str
) -> None:
    with pytest.raises(SystemExit) as stop:
        demo.parse_arguments(arguments)
    assert stop.value.code == 2
    assert complaint in capsys.readouterr().err


def test_defaults(demo: Any) -> None:
    options = demo.parse_arguments([])
    assert (options.preset, options.size) == (None, (640, 512))
    assert options.pairs is None
    assert options.output == Path('demo_output')
    assert not options.unaligned


@pytest.mark.parametrize(
    ('device', 'has_gpu', 'preset'),
    [
        *(('auto', True, 'fusion'), ('auto', False, 'realtime')),
        *(('cpu', True, 'realtime'), ('cuda:0', False, 'fusion')),
    ],
)
def test_the_preset_keeps_up_on_the_device(
    demo: Any, monkeypatch: pytest.MonkeyPatch, device: str, has_gpu: bool, preset: str
) -> None:
    monkeypatch.setattr('torch.cuda.is_available', lambda: has_gpu)
    assert demo.preset_for(device) == preset


def test_sent_is_read_from_the_camera(demo: Any) -> None:
    from dig2dig_ros.nodes.child_processes import ProcessError

    output = 'something else\n[INFO] [x]: sent: visible=40, thermal=36, pairs=35\n'
    assert demo.parse_sent(output) == {'visible': 40, 'thermal': 36, 'pairs': 35}
    with pytest.raises(ProcessError, match='without saying'):
        demo.parse_sent('nothing of the kind')


def test_good_run_has_no_problems() -> None:
    assert problems(make_summary(), each_pair_once=False) == []


@pytest.mark.parametrize(
    ('changes', 'complaint'),
    [
        ({'fused': 0}, 'nothing was fused'),
        (
            {'dropped': {'fusion error': 2}, 'last_error': 'fusion error: out of memory'},
            '2 pairs failed: fusion error: out of memory',
        ),
        ({'received': {'visible': 38, 'thermal': 40}}, '2 visible images were lost'),
        ({'waiting': {'visible': 0, 'thermal': 1}}, '1 thermal images were neither'),
        ({'seen': {'fused/image_raw': 11}}, 'only 11 of 12 fused images'),
    ],
)
def test_problems_are_named(changes: dict[str, Any], complaint: str) -> None:
    summary = make_summary(waiting={'visible': 0, 'thermal': 0}) | changes
    found = problems(summary, each_pair_once=True)
    assert len(found) == 1
    assert complaint in found[0]


@pytest.mark.parametrize(
    ('changes', 'complaint'),
    [
        (
            {'trusted': False, 'reasons': ['too dark', 'too few']},
            'not trusted: too dark; too few',
        ),
        ({'corner_error_px': 1.7}, '1.7 thermal pixels off the truth; at most 1.5 are allowed'),
        ({'corner_error_px': float('nan')}, 'nan thermal pixels'),
    ],
)
def test_bad_registration_is_a_problem(changes: dict[str, Any], complaint: str) -> None:
    good = make_summary(registration=make_registration_facts())
    assert problems(good, each_pair_once=False) == []
    found = problems(
        make_summary(registration=make_registration_facts(**changes)), each_pair_once=False
    )
    assert len(found) == 1
    assert complaint in found[0]


def test_pairs_that_do_not_fit_the_registration_are_a_problem() -> None:
    summary = make_summary(
        registration=make_registration_facts(),
        dropped={'registration': 3},
        last_error='registration: for other sizes',
    )
    (found,) = problems(summary, each_pair_once=False)
    assert '3 pairs do not fit the registration: registration: for other sizes' in found


def test_registration_is_compared_with_the_truth() -> None:
    truth = true_homography(WARP, (320, 256), (640, 512))
    exact = Registration(truth, (320, 256), (640, 512), estimate={'reasons': ['dark']})
    facts = registration_facts(exact, trusted=False, from_folder=False)
    assert facts['corner_error_px'] == 0.0
    assert facts['corner_error_before_px'] > 20
    assert (facts['trusted'], facts['reasons']) == (False, ['dark'])
    # Two visible pixels, of which two make a thermal one, and the thermal image is smaller.
    moved = np.array([[1.0, 0, 2], [0, 1, 0], [0, 0, 1]]) @ truth
    off = Registration(moved, (320, 256), (640, 512))
    facts = registration_facts(off, trusted=True, from_folder=True)
    assert facts['corner_error_px'] == pytest.approx(1 / WARP.scale, abs=1e-3)
    assert facts['corner_error_limit_px'] == pytest.approx(0.02 * 320)
    json.dumps(facts)


def run_demo(domain: int, folder: Path, *arguments: str) -> 'subprocess.CompletedProcess[str]':
    environment = os.environ | {'PYTHONPATH': f'{ROOT}{os.pathsep}{os.getenv("PYTHONPATH", "")}'}
    return subprocess.run(
        [
            *(sys.executable, '-m', 'dig2dig_ros', 'demo', '--domain-id', str(domain)),
            *('--output', str(folder), *arguments),
        ],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def names(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir()}


@pytest.mark.integration
def test_scene_over_real_dds(domain: int, demo: Any, tmp_path: Path) -> None:
    folder = tmp_path / 'demo output'
    run = run_demo(
        domain, folder, '--size', '160x128', '--count', '6', '--rate', '5',
        '--device', 'cpu', '-N', '3', '-S', '1', '--time-limit', '240',
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    summary = json.loads((folder / 'summary.json').read_text())
    assert summary['sent']['pairs'] == summary['sent']['thermal'] == 6
    assert summary['received']['thermal'] == 6
    assert summary['node']['N'] == '3'
    assert summary['sizes'] == ['160x128']
    fused = summary['fused']
    assert 1 <= fused <= 6
    assert summary['pairs'] == fused + summary['dropped']['superseded']
    # Everything that the node gives has come, once for each fused pair.
    seen = summary['seen']
    topics = [
        'fused/image_raw',
        'fused/camera_info',
        'fused/weights/visible',
        'fused/weights/thermal',
        'fused/weights/overlay',
    ]
    assert [seen[topic] for topic in topics] == [fused] * 5
    assert len(names(folder / 'fused')) == len(names(folder / 'overlay')) == fused
    assert {'contact_sheet.png', 'summary.json', 'fusion_node.log'} <= names(folder)
    assert names(folder) & {'video.mp4', 'video.avi'}
    image = cv2.imread(str(next((folder / 'fused').iterdir())))
    assert image is not None
    assert image.shape == (128, 160, 3)
    assert image.std() > 5


@pytest.mark.integration
def test_unaligned_cameras_are_registered_over_real_dds(
    domain: int, demo: Any, tmp_path: Path
) -> None:
    run = run_demo(
        domain, tmp_path, '--unaligned', '--size', '160x128', '--count', '6',
        '--rate', '5', '--preset', 'realtime', '--device', 'cpu', '--time-limit', '240',
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    assert 'registration trusted' in run.stdout
    summary = json.loads((tmp_path / 'summary.json').read_text())
    facts = summary['registration']
    assert facts['trusted'] is True
    assert facts['corner_error_px'] < 1.5 < 15 < facts['corner_error_before_px']
    assert 1 <= summary['fused'] <= 6
    assert summary['dropped']['registration'] == 0
    found = load_registration(tmp_path / 'registration.yaml')
    assert found.thermal_to_visible.tolist() == facts['thermal_to_visible']
    assert {'registration.png', 'calibrate.log'} <= names(tmp_path)
    assert {'registration.png', 'registration.yaml'} <= set(summary['files'])
    sheet = cv2.imread(str(tmp_path / 'contact_sheet.png'))
    assert sheet is not None
    assert sheet.shape[1] == 6 * 320 + 5 * 6 + 2 * 6
    # Where the thermal image does not reach, all comes from the visible one: blue.
    placement = found.placement(0.0)
    (name, *_) = sorted(names(tmp_path / 'fused'))
    overlay = cv2.imread(str(tmp_path / 'overlay' / name))
    assert overlay is not None
    warmth = overlay[..., 2].astype(int) - overlay[..., 0]
    assert (warmth[placement.coverage == 0] < 0).all()
    assert (warmth[placement.coverage > 0] > 20).any()


@pytest.mark.integration
def test_registration_that_is_not_to_be_trusted_ends_with_code_1(
    domain: int, demo: Any, tmp_path: Path
) -> None:
    rng = np.random.default_rng(5)
    for source in ('visible', 'thermal'):
        folder = tmp_path / 'pairs' / source
        folder.mkdir(parents=True)
        for index in range(2):
            noise = rng.integers(0, 256, (72, 96), np.uint8)
            cv2.imwrite(str(folder / f'{index}.png'), cv2.GaussianBlur(noise, (0, 0), 1.5))
    run = run_demo(
        domain, tmp_path / 'out', '--unaligned', '--pairs', str(tmp_path / 'pairs'), '--rate', '2',
        '--preset', 'realtime', '--device', 'cpu', '--time-limit', '240',
    )  # fmt: skip
    assert run.returncode == 1, run.stdout + run.stderr
    assert 'the registration is not trusted: ' in run.stderr
    assert 'Traceback' not in run.stderr
    # The pictures that show why are there all the same.
    assert {'contact_sheet.png', 'registration.png', 'summary.json'} <= names(tmp_path / 'out')


@pytest.mark.integration
def test_pairs_of_a_folder_are_fused_each_once(domain: int, demo: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    sizes = [(120, 90), (150, 100), (101, 77)]
    for index, (width, height) in enumerate(sizes):
        for source in ('visible', 'thermal'):
            folder = tmp_path / 'pairs' / source
            folder.mkdir(parents=True, exist_ok=True)
            picture = rng.integers(0, 256, (height, width, 3), np.uint8)
            cv2.imwrite(
                str(folder / f'{index}.png'), picture if source == 'visible' else picture[..., 0]
            )
    run = run_demo(
        domain, tmp_path / 'out', '--pairs', str(tmp_path / 'pairs'), '--device', 'cpu',
        '-N', '2', '-S', '1', '--time-limit', '240',
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    summary = json.loads((tmp_path / 'out' / 'summary.json').read_text())
    assert summary['sent'] == {'visible': 3, 'thermal': 3, 'pairs': 3}
    assert summary['fused'] + summary['dropped']['superseded'] == 3
    for name in names(tmp_path / 'out' / 'fused'):
        image = cv2.imread(str(tmp_path / 'out' / 'fused' / name))
        assert image is not None
        width, height = sizes[int(Path(name).stem)]
        assert image.shape == (height, width, 3)


@pytest.mark.integration
def test_node_that_cannot_start_is_told_with_its_reason(
    domain: int, demo: Any, tmp_path: Path
) -> None:
    run = run_demo(domain, tmp_path, '--size', '64x64', '--device', 'cuda:99')
    assert run.returncode == 1
    assert 'cuda:99' in run.stderr
    assert 'Traceback' not in run.stderr
