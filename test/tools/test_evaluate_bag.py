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


"""dig2dig evaluate on small bags: its files, its messages, interruptions and lost processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
import csv
from dataclasses import dataclass
from functools import lru_cache
from io import StringIO
import json
import math
import multiprocessing
import os
from pathlib import Path
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
import pytest

pytest.importorskip('rosbags')
pytest.importorskip('mcap')
pytest.importorskip('skimage')
pytest.importorskip('matplotlib')

from evaluation.bag_files import (
    camera_info,
    compressed_image,
    image,
    SECOND,
    serialised,
    START,
    store_with,
    write_bag,
    write_mcap,
)
from rosbags.highlevel import AnyReader

from dig2dig_ros.detections.boxes import Detections
from dig2dig_ros.evaluation.metrics import METRICS
from dig2dig_ros.evaluation.replay import stamp_text
from dig2dig_ros.evaluation.scores import format_value
from dig2dig_ros.fusion.fuser import Fuser, FusionSettings
from dig2dig_ros.images.registration import Registration
from dig2dig_ros.images.registration_file import save_registration
from dig2dig_ros.images.thermal_range import ThermalRange
from dig2dig_ros.streams.cascade import Cascade
from dig2dig_ros.streams.codec import decode, decode_compressed
from dig2dig_ros.tools.evaluate import main

Image = NDArray[np.uint8]
Message = tuple[str, Any, int]
VISIBLE, THERMAL, INFO = '/visible/image_raw', '/thermal/image_raw', '/visible/camera_info'
MS = SECOND // 1000
STEP = SECOND // 10
# Where the thermal stamps are, after the visible ones.
LAG = 4 * MS
FUSION = ('--preset', 'realtime', '--device', 'cpu')
# One pair is scored.
QUICK = (*FUSION, '--compare', 'fused', '--every', '1000')
PATIENCE_S = 90.0


def realtime_fuser() -> Fuser:
    """Return what the preset makes."""
    return Fuser(FusionSettings(prior_downscale=4), prior='nano', device='cpu')


@lru_cache(maxsize=256)
def picture(seed: int, *shape: int) -> Image:
    """Return an image with structure, of 64x48 pixels or of another shape."""
    noise = np.random.default_rng(seed).standard_normal(shape or (48, 64))
    smooth = cv2.GaussianBlur(noise, (0, 0), 2)
    return np.asarray(cv2.normalize(smooth, None, 10, 240, cv2.NORM_MINMAX)).astype(np.uint8)


def visible_of(number: int) -> Image:
    return picture(number, 48, 64, 3)


def thermal_of(number: int) -> Image:
    return picture(1000 + number)


def drive(count: int = 8) -> list[Message]:
    """Return pairs at 10 Hz with camera_info, as two cameras would have them recorded."""
    messages: list[Message] = []
    for number in range(count):
        stamp = START + number * STEP
        message = image(stamp, visible_of(number % 8), frame='front')
        messages.append((INFO, camera_info(stamp, 64, 48, 'elsewhere'), stamp + MS))
        messages.append((VISIBLE, message, stamp + 2 * MS))
        message = image(stamp + LAG, thermal_of(number % 8), frame='heat')
        messages.append((THERMAL, message, stamp + LAG + 3 * MS))
    return messages


@dataclass(frozen=True)
class Run:
    """One call of the tool: exit code and what it printed."""

    code: int
    out: str
    err: str


def call(*arguments: object) -> Run:
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main([str(argument) for argument in arguments])
    assert 'Traceback' not in err.getvalue()
    return Run(code, out.getvalue(), err.getvalue())


def rows_of(folder: Path, name: str = 'metrics.csv') -> list[dict[str, str]]:
    with (folder / name).open(encoding='utf-8', newline='') as file:
        return list(csv.DictReader(file))


def summary_of(folder: Path) -> Any:
    def refuse(name: str) -> None:
        raise AssertionError(f'{name} is not JSON')

    text = (folder / 'summary.json').read_text(encoding='utf-8')
    return json.loads(text, parse_constant=refuse)


def fused_bag(folder: Path) -> dict[str, list[Any]]:
    """Return the messages of a fused bag by topic, as another library's user reads them."""
    messages: dict[str, list[Any]] = {}
    with AnyReader([folder / 'fused']) as reader:
        for connection, _, data in reader.messages():
            message = reader.deserialize(data, connection.msgtype)
            messages.setdefault(connection.topic, []).append(message)
    return messages


def stamp(message: Any) -> int:
    return int(message.header.stamp.sec) * SECOND + int(message.header.stamp.nanosec)


@pytest.fixture(scope='module')
def bags(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with bags of eight pairs in both storages."""
    folder = tmp_path_factory.mktemp('bags')
    write_bag(folder / 'drive', 'mcap', drive())
    write_bag(folder / 'drive_sqlite', 'sqlite3', drive())
    return folder


@pytest.fixture(scope='module')
def first(bags: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path]:
    """Evaluate the drive once; return the call and its folder."""
    output = tmp_path_factory.mktemp('first')
    run = call(bags / 'drive', '-o', output, *FUSION)
    return run, output / 'drive'


def markdown_rows(text: str) -> dict[str, dict[str, str]]:
    """Parse the first table that was printed."""
    block = re.search(r'(?:^\|.*\n)+', text, flags=re.MULTILINE)
    assert block is not None
    cells = [
        [cell.strip() for cell in line.strip('|').split('|')] for line in block[0].splitlines()
    ]
    return {row[0]: dict(zip(cells[0][1:], row[1:], strict=True)) for row in cells[2:]}


@pytest.mark.slow
def test_every_file_is_there_and_they_agree(first: tuple[Run, Path]) -> None:
    run, folder = first
    assert run.code == 0
    assert run.err.splitlines()[-1] == f'drive: 8 pairs, {folder / "report.html"}'
    taken = f'drive: using visible {VISIBLE} with thermal {THERMAL}; camera_info {INFO}'
    assert taken in run.err.splitlines()
    video = next(folder.glob('video.*')).name
    assert {path.name for path in folder.iterdir()} == {
        *('metrics.csv', 'timing.csv', 'summary.json', 'report.html', 'fused', video),
    }
    assert [path.name for path in folder.parent.iterdir()] == ['drive']

    rows, summary = rows_of(folder), summary_of(folder)
    methods = ['mean', 'laplacian', 'fused']
    assert [row['method'] for row in rows] == methods * 8
    assert [row['pair'] for row in rows[::3]] == [stamp_text(START + n * STEP) for n in range(8)]
    assert {(row['width'], row['height'], row['offset (s)']) for row in rows} == {
        ('64', '48', '0.004000000')
    }
    assert rows[0]['thermal stamp'] == stamp_text(START + LAG)
    printed = markdown_rows(run.out)
    for method in methods:
        own = [row for row in rows if row['method'] == method]
        for name, metric in METRICS.items():
            mean = np.mean([float(row[name]) for row in own])
            assert summary['metrics'][method][name] == pytest.approx(mean, rel=1e-12)
            assert printed[method][metric.title] == format_value(float(mean))
    weights = [float(row['mean weight of visible']) for row in rows if row['method'] == 'fused']
    assert summary['mean_weights']['visible'] == pytest.approx(np.mean(weights))
    assert sum(summary['mean_weights'].values()) == pytest.approx(1)
    text = run.out + (folder / 'metrics.csv').read_text() + (folder / 'summary.json').read_text()
    assert re.search(r'\bnan\b', text, re.IGNORECASE) is None
    assert len(rows_of(folder, 'timing.csv')) == 24
    # What a fusion costs is that of the pairs, not of a fusion beside them.
    fuser = realtime_fuser()
    calls = fuser.fuse(visible_of(0), thermal_of(0)).prior_calls
    assert printed['fused']['denoiser calls'] == str(calls)
    assert 'fused - mean' in run.out


def test_the_summary_has_what_decides(first: tuple[Run, Path]) -> None:
    _, folder = first
    summary = summary_of(folder)
    assert summary['topics'] == {
        'visible': VISIBLE,
        'thermal': THERMAL,
        'visible camera_info': INFO,
    }
    assert summary['sizes'] == {'visible': {'64x48': 8}, 'thermal': {'64x48': 8}}
    assert summary['received'] == {'visible': 8, 'thermal': 8}
    assert summary['dropped'] == {}
    assert summary['interrupted'] is False
    assert summary['health'] == summary['faults'] == summary['lossy'] == {}
    assert summary['warnings'] == []
    assert summary['diagnostics']['resolution'] == '64x48'
    assert (summary['pairs'], summary['scored_pairs']) == (8, 8)
    assert summary['bag']['storage'] == 'mcap'
    fuser = summary['fuser']
    assert fuser == realtime_fuser().describe()
    assert {'device', 'precision', 'N', 'S'} <= set(fuser)
    assert {'python', 'numpy', 'torch', 'machine'} <= set(summary['versions'])
    assert summary['parameters']['sync_tolerance'] == 0.05
    assert summary['parameters']['device'] == 'cpu'
    assert 'the fusion that the parameters ask for' in summary['rows']['fused']


def test_the_page_shows_all(first: tuple[Run, Path]) -> None:
    _, folder = first
    page = (folder / 'report.html').read_text(encoding='utf-8')
    for text in (
        'drive: fusion evaluated',
        f'{VISIBLE} with {THERMAL}',
        'Pair offset',
        'Means over 8 pairs',
        'Differences pair by pair',
        'href="./fused/"',
        'sync_tolerance',
        stamp_text(START),
    ):
        assert text in page


@pytest.mark.slow
def test_bytes_depend_neither_on_the_run_nor_on_the_storage(
    bags: Path, first: tuple[Run, Path], tmp_path: Path
) -> None:
    run = call(bags / 'drive', bags / 'drive_sqlite', '-o', tmp_path, *FUSION)
    assert run.code == 0
    expected = (first[1] / 'metrics.csv').read_bytes()
    images = fused_bag(first[1])
    for name in ('drive', 'drive_sqlite'):
        assert (tmp_path / name / 'metrics.csv').read_bytes() == expected
        again = fused_bag(tmp_path / name)
        assert {t: len(m) for t, m in again.items()} == {t: len(m) for t, m in images.items()}
        for topic in ('/fused/image_raw', '/fused/weights/visible'):
            for one, other in zip(images[topic], again[topic], strict=True):
                assert np.array_equal(one.data, other.data)
    # Both are in a table of their own.
    assert '# drive\n' in run.out
    assert '# drive_sqlite\n' in run.out
    assert 'All bags:' in run.out


@pytest.mark.slow
@pytest.mark.parametrize(
    ('storage', 'kind', 'lone'),
    [
        ('sqlite3', 'raw', False),
        ('mcap', 'raw', True),
        ('mcap', 'compressed', False),
        ('sqlite3', 'compressed', True),
    ],
)
def test_the_fused_bag_is_what_the_node_would_publish(
    tmp_path: Path, storage: str, kind: str, lone: bool
) -> None:
    counts = [7000 + 3 * thermal_of(n).astype(np.uint16) for n in range(3)]
    messages: list[Message] = []
    for topic, message, time_ns in drive(3):
        number = (stamp(message) - START) // STEP
        if topic == THERMAL:
            message = image(stamp(message), counts[number], frame='heat')
        if kind == 'compressed' and topic != INFO:
            array = visible_of(number) if topic == VISIBLE else counts[number]
            form = 'jpeg' if topic == VISIBLE else 'png'
            message = compressed_image(stamp(message), array, form, message.header.frame_id)
            topic += '/compressed'
        messages.append((topic, message, time_ns))
    file = write_bag(tmp_path / 'bag', storage, messages)
    run = call(file if lone else tmp_path / 'bag', '-o', tmp_path / 'out', *QUICK)
    assert run.code == 0
    folder = tmp_path / 'out' / (file.stem if lone else 'bag')
    suffix = {'sqlite3': '.db3', 'mcap': '.mcap'}[storage]
    assert any(path.suffix == suffix for path in (folder / 'fused').iterdir())

    found = fused_bag(folder)
    topics = ('image_raw', 'camera_info', 'weights/visible', 'weights/thermal')
    assert set(found) == {f'/fused/{name}' for name in topics}
    fuser, ranges = realtime_fuser(), ThermalRange()
    inputs = [message for topic, message, _ in messages if topic.startswith(VISIBLE)]
    for number, message in enumerate(inputs):
        visible = decode(message) if kind == 'raw' else decode_compressed(message)
        time_s = (START + number * STEP + LAG) / SECOND
        expected = fuser.fuse(visible, ranges(counts[number], time_s))
        fused, info, *maps = (found[f'/fused/{name}'][number] for name in topics)
        assert np.array_equal(decode(fused), expected.image)
        assert fused.encoding == 'bgr8'
        for plane, weights in zip(maps, expected.weights, strict=True):
            assert np.abs(decode(plane) - 255.0 * weights).max() <= 0.51
        total = sum(decode(plane).astype(int) for plane in maps)
        assert np.abs(total - 255).max() <= 1
        for output in (fused, info, *maps):
            assert (stamp(output), output.header.frame_id) == (START + number * STEP, 'front')
        assert (info.width, info.height, info.k[0]) == (64, 48, 64.0)


def test_pairs_are_those_of_the_node_with_a_parameter_file(tmp_path: Path) -> None:
    # 30 and 9 Hz, one thermal image missing; thermal stamps are 40 ms late.
    times = {
        VISIBLE: [START + 33 * MS * n for n in range(40)],
        THERMAL: [START + 111 * MS * n + 40 * MS for n in range(11) if n != 4],
    }
    colour, grey = visible_of(0), thermal_of(0)
    messages = [
        (topic, image(moment, colour if topic == VISIBLE else grey), moment + 5 * MS)
        for topic, moments in times.items()
        for moment in moments
    ]
    messages.sort(key=lambda message: message[2])
    write_bag(tmp_path / 'rates', 'sqlite3', messages)
    parameters = tmp_path / 'mine.yaml'
    parameters.write_text(
        'fusion_node:\n'
        '  ros__parameters:\n'
        '    prior: nano\n'
        '    device: cpu\n'
        '    sync_tolerance: 0.015\n'
        '    thermal_time_offset: -0.04\n'
        '    output_encoding: mono8\n'
        '    weights_encoding: 32FC1\n',
        encoding='utf-8',
    )
    cascade: Cascade[None] = Cascade('nearest', 0.015, 30, -0.04)
    groups = []
    for topic, message, _ in messages:
        groups += cascade.add('visible' if topic == VISIBLE else 'thermal', stamp(message), None)
    groups += cascade.flush()
    arguments = ('--preset', parameters, '--compare', 'fused')
    assert call(tmp_path / 'rates', '-o', tmp_path / 'out', *arguments).code == 0
    folder = tmp_path / 'out' / 'rates'
    rows = [(row['pair'], row['thermal stamp'], row['offset (s)']) for row in rows_of(folder)]
    assert rows == [(*map(stamp_text, group.stamps), f'{group.offset:.9f}') for group in groups]
    drops = cascade.counters
    assert len(rows) == drops.pop('groups') > 5
    summary = summary_of(folder)
    assert summary['dropped'] == drops
    assert summary['parameters']['thermal_time_offset'] == -0.04
    found = fused_bag(folder)
    assert {message.encoding for message in found['/fused/image_raw']} == {'mono8'}
    maps = [found[f'/fused/weights/{name}'][0] for name in ('visible', 'thermal')]
    assert np.allclose(sum(map(decode, maps)), 1, atol=1e-5)


@pytest.mark.slow
def test_the_first_pairs_and_every_third_of_them(
    bags: Path, first: tuple[Run, Path], tmp_path: Path
) -> None:
    run = call(bags / 'drive', '-o', tmp_path, *FUSION, '--limit', '5', '--every', '3')
    assert run.code == 0
    folder = tmp_path / 'drive'
    everything = rows_of(first[1])
    assert rows_of(folder) == everything[:3] + everything[9:12]
    assert len(rows_of(folder, 'timing.csv')) == 5 + 2 * 2
    assert len(fused_bag(folder)['/fused/image_raw']) == 5
    summary = summary_of(folder)
    assert (summary['pairs'], summary['scored_pairs']) == (5, 2)
    assert (summary['limit'], summary['every']) == (5, 3)
    assert summary['interrupted'] is False


@pytest.mark.slow
def test_sources_that_are_equal_give_an_infinite_psnr(tmp_path: Path) -> None:
    messages: list[Message] = []
    for number in range(7):
        moment = START + number * STEP
        messages += [(VISIBLE, image(moment, thermal_of(number)), moment)]
        messages += [(THERMAL, image(moment, thermal_of(number)), moment)]
    write_bag(tmp_path / 'equal', 'mcap', messages)
    run = call(tmp_path / 'equal', '-o', tmp_path / 'out', *FUSION, '--compare', 'mean,fused')
    assert run.code == 0
    folder = tmp_path / 'out' / 'equal'
    summary = summary_of(folder)
    assert summary['metrics']['mean']['PSNR_sum'] == 'inf'
    values = [float(row['PSNR_sum']) for row in rows_of(folder) if row['method'] == 'mean']
    assert values == [math.inf] * 7
    assert markdown_rows(run.out)['mean']['PSNR_sum ↑'] == '∞'
    assert 'A PSNR is infinite where the fused image equals a source' in run.out
    text = run.out + (folder / 'metrics.csv').read_text() + (folder / 'summary.json').read_text()
    assert re.search(r'\bnan\b', text, re.IGNORECASE) is None


def truncated_mcap(folder: Path) -> Path:
    file = write_mcap(folder / 'cut.mcap', drive(12), chunk_size=40_000)
    os.truncate(file, int(file.stat().st_size * 0.6))
    return file


def truncated_db3(folder: Path) -> Path:
    file = write_bag(folder / 'cut', 'sqlite3', drive(12))
    os.truncate(file, int(file.stat().st_size * 0.6) // 4096 * 4096)
    return folder / 'cut'


def malformed_db3(folder: Path) -> Path:
    file = write_bag(folder / 'cut', 'sqlite3', drive(12))
    with file.open('r+b') as data:
        data.seek(int(file.stat().st_size * 0.6))
        data.write(b'\xff' * 20_000)
    return folder / 'cut'


@pytest.mark.parametrize('damage', [truncated_mcap, truncated_db3, malformed_db3])
def test_what_is_left_of_a_damaged_bag_is_evaluated(tmp_path: Path, damage: Any) -> None:
    run = call(damage(tmp_path), '-o', tmp_path / 'out', *QUICK)
    assert run.code == 0
    folder = tmp_path / 'out' / 'cut'
    summary = summary_of(folder)
    assert 3 <= summary['pairs'] < 12
    assert len(fused_bag(folder)['/fused/image_raw']) == summary['pairs']
    assert summary['warnings']
    warning = summary['warnings'][0]
    assert re.search('cut short|damaged|lacks', warning)
    assert f'cut: {warning}' in run.err
    assert str(tmp_path) in (folder / 'report.html').read_text(encoding='utf-8')


def shifted(topic: str, shift: int) -> list[Message]:
    """Return a drive at 1 Hz, one of whose cameras has its own clock."""
    messages: list[Message] = []
    for number in range(4):
        moment = START + number * SECOND
        for name, array in ((VISIBLE, visible_of(0)), (THERMAL, thermal_of(0))):
            messages.append((name, image(moment + shift * (name == topic), array), moment))
    return messages


UNKNOWN = {'acme_msgs/msg/Frame': 'uint8[] data'}


def unknown_types(folder: Path) -> None:
    store = store_with(UNKNOWN)
    message = store.types['acme_msgs/msg/Frame'](data=np.zeros(5, np.uint8))
    write_bag(folder, 'mcap', [('/acme/frames', message, START)], store=store)


@pytest.mark.parametrize(
    ('messages', 'options', 'expected'),
    [
        ([m for m in drive(2) if m[0] != THERMAL], (), ['no topic', 'thermal', f'\n  {VISIBLE}']),
        (drive(2), ('--visible', '/front'), ['no visible topic /front', f'\n  {THERMAL}']),
        (drive(2), ('--thermal', INFO), ['must be an image', f'\n  {VISIBLE}']),
        (drive(2), ('--camera-info', '/front/info'), ['/front/info is not in the bag']),
        (
            [*drive(2), *[('/lwir/image_raw', m, t) for n, m, t in drive(2) if n == THERMAL]],
            (),
            ['more than one topic (/lwir/image_raw, /thermal/image_raw)', '--thermal TOPIC', '\n'],
        ),
        (
            shifted(THERMAL, 300 * MS),
            (),
            ['no stamps lie within sync_tolerance, 0.05 s', 'set thermal_time_offset: -0.300'],
        ),
        (shifted(THERMAL, -30 * SECOND), (), ['30.000 s before', 'thermal_time_offset: 30.000']),
        (
            [(topic, image(0) if topic == VISIBLE else m, time) for topic, m, time in drive(2)],
            (),
            ['2 of 2 visible images have no stamp', 'driver'],
        ),
        (drive(2), ('--detections', 'fused=/yolo'), ['no detections on /yolo', 'not in the bag']),
        (drive(2), ('--detections', f'fused={INFO}'), ['it is sensor_msgs/msg/CameraInfo']),
        (drive(2), ('--lpips', 'vgg'), ['pip install lpips']),
        (drive(2), ('--detector', 'none.onnx'), ['none.onnx does not exist']),
    ],
)
def test_a_bag_that_cannot_be_evaluated_gets_one_clear_message(
    tmp_path: Path, messages: list[Message], options: tuple[str, ...], expected: list[str]
) -> None:
    write_bag(tmp_path / 'bag', 'mcap', messages)
    run = call(tmp_path / 'bag', '-o', tmp_path / 'out', *QUICK, *options)
    assert run.code == 2
    assert run.out == ''
    said = [text for text in run.err.splitlines() if text.startswith('bag: ')]
    lines = [text for text in said if not text.startswith('bag: using ')]
    assert len(lines) == 1
    assert lines[0].startswith('bag: not evaluated, ')
    assert 'Error' not in run.err
    for text in expected:
        assert text in run.err
    # Nothing half done is left.
    assert list((tmp_path / 'out').iterdir()) == []


def with_nir(pairs: int, late: int) -> list[Message]:
    """Return a drive with a third camera, whose stamps are late by nanoseconds."""
    messages = drive(pairs)
    for number in range(pairs):
        moment = START + number * STEP - MS
        messages.append(('/nir/image_raw', image(moment + late, picture(50 + number)), moment))
    return sorted(messages, key=lambda message: message[2])


def of_unknown_encoding(topic: str) -> list[Message]:
    messages = drive(2)
    for name, message, _ in messages:
        if name == topic:
            message.encoding = 'nonsense'
    return messages


def delayed(topic: str, steps: int, count: int) -> list[Message]:
    """Return what is recorded of a drive if one camera comes so many steps late."""
    late = [(t, m, time + steps * STEP * (t == topic)) for t, m, time in drive(count)]
    end = START + count * STEP
    return sorted((m for m in late if m[2] < end), key=lambda message: message[2])


@pytest.mark.parametrize(
    ('messages', 'parameters', 'options', 'expected', 'absent'),
    [
        # It is not the stamps.
        (of_unknown_encoding(VISIBLE), '', (), 'first of 2 visible malformed', 'sync_tolerance'),
        # It is not the thermal camera.
        (
            with_nir(2, 5 * SECOND),
            '',
            ('--source', 'nir=/nir/image_raw'),
            'no stamp of nir lies within sync_tolerance',
            'thermal_time_offset',
        ),
        # Late by more than half a second looks like a clock that differs: both are said.
        (
            delayed(THERMAL, 8, 12),
            'queue_size: 3',
            (),
            'a larger queue_size, if the thermal images really come 0.8 s late',
            'sync_tolerance',
        ),
    ],
)
def test_the_advice_where_there_is_no_pair_fits_the_cause(
    tmp_path: Path,
    messages: list[Message],
    parameters: str,
    options: tuple[str, ...],
    expected: str,
    absent: str,
) -> None:
    file = tmp_path / 'node.yaml'
    file.write_text(f'/**:\n  ros__parameters:\n    prior: nano\n    {parameters}\n')
    write_bag(tmp_path / 'bag', 'mcap', messages)
    arguments = ('--preset', file, '--device', 'cpu', '--compare', 'fused', *options)
    run = call(tmp_path / 'bag', '-o', tmp_path / 'out', *arguments)
    assert run.code == 2
    assert expected in run.err
    assert absent not in run.err


def test_damage_that_took_the_topics_is_said(tmp_path: Path) -> None:
    whole = write_bag(tmp_path / 'whole', 'mcap', drive(4)).read_bytes()
    (tmp_path / 'half.mcap').write_bytes(whole[: len(whole) // 2])
    run = call(tmp_path / 'half.mcap', '-o', tmp_path / 'out', *QUICK)
    assert run.code == 2
    assert re.search('half: not evaluated, .*half.mcap is cut short or damaged', run.err)


def test_where_nothing_can_be_written_is_said_before_the_fusion_is_set_up(
    bags: Path, tmp_path: Path
) -> None:
    file = tmp_path / 'file'
    file.touch()
    run = call(bags / 'drive', '-o', file / 'out', *QUICK)
    assert run.code == 2
    assert f'no results can be written to {file / "out"} (Not a directory): choose' in run.err
    assert '.part-' not in run.err
    assert 'setting up' not in run.err


def test_a_name_that_sqlite3_cannot_have_does_not_keep_a_bag_from_results(
    bags: Path, tmp_path: Path
) -> None:
    bag = tmp_path / 'drive#1 50%'
    shutil.copytree(bags / 'drive_sqlite', bag)
    run = call(bag, '-o', tmp_path / 'out', *QUICK, '--limit', '1')
    assert run.code == 0
    folder = tmp_path / 'out' / 'drive_1 50_'
    assert len(fused_bag(folder)['/fused/image_raw']) == 1
    assert run.err.splitlines()[-1] == f'drive_1 50_: 1 pair, {folder / "report.html"}'


def test_topics_that_are_empty_or_of_unknown_types(tmp_path: Path) -> None:
    only = [m for m in drive(2) if m[0] != THERMAL]
    kinds = {THERMAL: 'sensor_msgs/msg/Image'}
    write_bag(tmp_path / 'empty', 'sqlite3', only, empty_topics=kinds)
    unknown_types(tmp_path / 'unknown')
    write_bag(tmp_path / 'good', 'mcap', drive(2))
    names = ('empty', 'missing', 'good', 'unknown')
    run = call(*(tmp_path / name for name in names), '-o', tmp_path / 'out', *QUICK)
    assert run.code == 1
    assert f'empty: not evaluated, the thermal topic {THERMAL} has no messages' in run.err
    assert 'missing: not evaluated, no bag at' in run.err
    assert 'unknown: not evaluated, no topic' in run.err
    assert '/acme/frames  acme_msgs/msg/Frame  1 messages' in run.err
    assert [path.name for path in (tmp_path / 'out').iterdir()] == ['good']
    assert summary_of(tmp_path / 'out' / 'good')['pairs'] == 2
    table = markdown_rows(run.out[run.out.index('All bags:') :])
    assert list(table) == list(names)
    assert [table[name]['pairs'] for name in names] == ['', '', '2', '']


@pytest.mark.slow
def test_what_is_odd_in_a_bag_is_said_and_the_rest_evaluated(tmp_path: Path) -> None:
    messages: list[Message] = []
    for number in range(8):
        moment = START + number * STEP
        side = (60, 80, 3) if number in (2, 3) else (48, 64, 3)
        visible: Any = compressed_image(moment, picture(number, *side))
        thermal: Any = image(moment, picture(number, 24, 32))
        if number == 4:
            visible.data[20:] = 0
        if number == 5:
            thermal.encoding = 'nonsense'
        if number == 6:
            kind, data = serialised(thermal)
            thermal = (kind, data[:-100])
        messages.append((f'{VISIBLE}/compressed', visible, moment))
        messages.append((THERMAL, thermal, moment + MS))
    write_bag(tmp_path / 'odd', 'mcap', messages)
    run = call(tmp_path / 'odd', '-o', tmp_path / 'out', *FUSION, '--compare', 'mean,fused')
    assert run.code == 0
    folder = tmp_path / 'out' / 'odd'
    summary = summary_of(folder)
    assert summary['pairs'] == summary['scored_pairs'] == 5
    assert summary['dropped'] == {
        'thermal malformed': 2,
        'visible refused': 1,
        'visible unpaired': 2,
    }
    assert summary['sizes'] == {
        'visible': {'64x48': 3, '80x60': 2},
        'thermal': {'32x24': 5},
    }
    found = fused_bag(folder)['/fused/image_raw']
    assert [(message.width, message.height) for message in found] == [
        *[(64, 48)] * 2,
        *[(80, 60)] * 2,
        (64, 48),
    ]
    warnings = '\n'.join(summary['warnings'])
    assert 'visible changes its size (pairs of each): 64x48 (3), 80x60 (2)' in warnings
    assert 'resized' in warnings
    assert re.search(
        r"thermal images are refused: .*encoding 'nonsense'.* \(the first of 2 thermal mal",
        warnings,
    )
    assert re.search('visible images are refused: .*jpeg', warnings)
    for warning in summary['warnings']:
        assert f'odd: {warning}' in run.err
    assert 'odd: not fused: 2 thermal malformed, 1 visible refused, 2 visible' in run.err
    assert 'nonsense' in (folder / 'report.html').read_text(encoding='utf-8')


def test_what_cameras_did_wrong_is_said_with_counts(tmp_path: Path) -> None:
    messages: list[Message] = []
    for topic, message, time_ns in drive(12):
        number = (stamp(message) - START) // STEP
        if topic == VISIBLE and number in (1, 2):
            message = image(stamp(message), np.zeros((48, 64, 3), np.uint8))
        if topic == THERMAL:
            # Five times the same, which is a fault from the fourth repetition on: 0.4 s.
            still = thermal_of(4 if 4 <= number <= 8 else number)
            heat = np.full_like(still, 255) if number == 9 else still
            colours = cv2.applyColorMap(still, cv2.COLORMAP_JET)
            message = image(stamp(message), colours if number == 10 else heat)
        messages.append((topic, message, time_ns))
    write_bag(tmp_path / 'faulty', 'mcap', messages)
    run = call(tmp_path / 'faulty', '-o', tmp_path / 'out', *QUICK)
    assert run.code == 0
    folder = tmp_path / 'out' / 'faulty'
    summary = summary_of(folder)
    assert summary['pairs'] == 11
    assert list(summary['faults'].values()) == [2, 1, 1]
    covered, frozen, white, refused = summary['warnings']
    assert covered == (
        'the visible image is all black: is the lens covered? (so in 2 of 12 visible images)'
    )
    assert frozen == 'the thermal image has been frozen for 0.4 s (so in 1 of 12 thermal images)'
    assert white == (
        'the thermal image is saturated: 100 % of it is white (so in 1 of 12 thermal images)'
    )
    assert refused.startswith('thermal images are refused: the thermal image looks like a colour')
    assert refused.endswith('(the first of 1 thermal refused)')
    page = (folder / 'report.html').read_text(encoding='utf-8')
    for warning in summary['warnings']:
        assert f'faulty: {warning}\n' in run.err
        assert warning in page


@pytest.mark.slow
def test_all_fusions_get_the_thermal_image_as_the_node_does(tmp_path: Path) -> None:
    messages: list[Message] = []
    for number in range(2):
        moment = START + number * STEP
        messages.append((VISIBLE, image(moment, visible_of(number)), moment))
        messages.append((THERMAL, image(moment, picture(number + 20, 24, 24)), moment + MS))
    write_bag(tmp_path / 'drive', 'mcap', messages)
    scaled = np.array([[2.0, 0, 8.5], [0, 2, 0.5], [0, 0, 1]])
    registration = tmp_path / 'registration.yaml'
    save_registration(Registration(scaled, (24, 24), (64, 48)), registration)
    # The increments do not depend on the seed, but the rows are fused one by one.
    names = ('fused', 'fused:seed=1')
    options = ('--compare', ','.join(names), '--thermal-to-visible', registration)
    run = call(tmp_path / 'drive', '-o', tmp_path / 'out', *FUSION, *options)
    assert run.code == 0
    rows = rows_of(tmp_path / 'out' / 'drive')
    fused, other = ([row for row in rows if row['method'] == name] for name in names)
    assert len(fused) == len(other) == 2
    metrics = [name for name in METRICS if name in fused[0]]
    assert len(metrics) > 10
    for own, theirs in zip(fused, other, strict=True):
        assert [own[name] for name in metrics] == [theirs[name] for name in metrics]


def test_images_too_small_for_the_metrics_are_fused_all_the_same(tmp_path: Path) -> None:
    messages: list[Message] = []
    for number in range(2):
        moment = START + number * STEP
        messages += [(VISIBLE, image(moment, picture(0, 24, 32, 3)), moment)]
        messages += [(THERMAL, image(moment, picture(1, 24, 32)), moment)]
    write_bag(tmp_path / 'small', 'mcap', messages)
    run = call(tmp_path / 'small', '-o', tmp_path / 'out', *FUSION)
    assert run.code == 0
    assert re.search('small: 2 pairs not scored: .*24', run.err)
    summary = summary_of(tmp_path / 'out' / 'small')
    assert summary['pairs'] == 2
    assert 'metrics' not in summary


def test_results_are_replaced_only_if_asked_for(bags: Path, tmp_path: Path) -> None:
    arguments = (bags / 'drive', '-o', tmp_path, *QUICK, '--limit', '1')
    folder = tmp_path / 'drive'
    folder.mkdir()
    (folder / 'notes.txt').write_text('mine', encoding='utf-8')
    (folder / 'summary.json').write_text('old', encoding='utf-8')
    run = call(*arguments)
    assert run.code == 2
    assert f'{folder} is not empty: choose another --output, or replace' in run.err
    for _ in range(2):
        assert call(*arguments, '--overwrite').code == 0
        assert summary_of(folder)['pairs'] == 1
        assert (folder / 'notes.txt').read_text(encoding='utf-8') == 'mine'
        assert len(fused_bag(folder)['/fused/image_raw']) == 1
    # A failure leaves what was there.
    before = (folder / 'metrics.csv').read_bytes()
    assert call(*arguments, '--overwrite', '--visible', '/none').code == 2
    assert (folder / 'metrics.csv').read_bytes() == before
    # So does a folder that is somebody else's.
    shutil.rmtree(folder / 'fused')
    (folder / 'fused').mkdir()
    (folder / 'fused' / 'mine.png').touch()
    run = call(*arguments, '--overwrite')
    assert run.code == 2
    assert f'{folder / "fused"} is not a bag of an earlier evaluation' in run.err
    assert (folder / 'fused' / 'mine.png').exists()
    shutil.rmtree(folder)
    folder.touch()
    run = call(*arguments, '--overwrite')
    assert (run.code, 'is a file: choose another --output' in run.err) == (2, True)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('fusion.temperature: hot', "fusion.temperature is 'hot', but must be a number"),
        ('sync_tolerance: -1.0', 'sync_tolerance is -1.0, but must be 0 to 10'),
        ('sync_policy: soon', "sync_policy is 'soon', but must be one of: nearest"),
        ('additional_sources: [nir]', 'give its topic with --source nir=TOPIC'),
        ('fusion: {num_inference_steps: 900}', 'first_timestep'),
    ],
)
def test_parameters_that_are_refused(bags: Path, tmp_path: Path, text: str, message: str) -> None:
    parameters = tmp_path / 'bad.yaml'
    parameters.write_text(f'/**: {{ros__parameters: {{{text}}}}}\n', encoding='utf-8')
    run = call(bags / 'drive', '-o', tmp_path / 'out', '--preset', parameters)
    assert run.code == 2
    (line,) = run.err.splitlines()
    assert line.startswith('dig2dig evaluate: ')
    assert message in line
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (('--preset', 'nowhere'), 'neither a file nor a preset'),
        (('--compare', 'mean'), '--compare needs the row fused'),
        (('--against', 'rd'), '--against needs rd among the rows'),
        (('--source', 'visible=/x'), "'visible' is taken"),
    ],
)
def test_options_that_are_refused(
    bags: Path, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    run = call(bags / 'drive', '-o', tmp_path / 'out', *options)
    assert run.code == 2
    assert message in run.err
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (
            ('--detections', 'termal=/a'),
            'unknown input termal: use one of visible, thermal, fused',
        ),
        (('--detections', 'fused=/a', '--detections', 'fused=/b'), 'fused has more than one'),
        (('--detections', 'fused=/a', '--detector', 'x.onnx'), 'not both'),
        (('--labels', 'x.json'), '--labels needs --detector or --detections'),
        (('--source', '/nir'), "'/nir' is not NAME=TOPIC"),
        (('--limit', '0'), 'must be 1 or more, not 0'),
        (('--compare', 'fused:X=1'), 'is not a setting'),
    ],
)
def test_command_lines_that_make_no_sense(
    capsys: pytest.CaptureFixture[str], options: tuple[str, ...], message: str
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(['bag', *options])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_help_names_rows_and_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(['--help'])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for part in ('Exit code', '--scheduler', 'uniform', 'bag of the same storage'):
        assert part in text


@pytest.mark.slow
def test_a_further_source(tmp_path: Path) -> None:
    write_bag(tmp_path / 'three', 'mcap', with_nir(2, 0))
    source = ('--source', 'nir=/nir/image_raw')
    run = call(tmp_path / 'three', '-o', tmp_path / 'out', *QUICK, *source)
    assert run.code == 0
    folder = tmp_path / 'out' / 'three'
    assert summary_of(folder)['topics']['nir'] == '/nir/image_raw'
    page = (folder / 'report.html').read_text(encoding='utf-8')
    assert 'Pair offset: farthest stamp minus visible stamp' in page
    assert 'mean weight of nir' in rows_of(folder)[0]
    found = fused_bag(folder)
    fuser = realtime_fuser()
    result = fuser.fuse(visible_of(1), thermal_of(1), picture(51))
    assert np.array_equal(decode(found['/fused/image_raw'][1]), result.image)
    maps = [found[f'/fused/weights/{name}'][1] for name in ('visible', 'thermal', 'nir')]
    total = sum(decode(plane).astype(int) for plane in maps)
    assert np.abs(total - 255).max() <= 2


# Detection. A person whom both cameras see, and one whom the thermal camera alone sees.
SEEN, HIDDEN = [4, 4, 20, 40], [40, 8, 56, 44]


def draw(boxes: Sequence[Sequence[int]], level: int, *shape: int) -> Image:
    canvas = np.zeros(shape, np.uint8)
    for x1, y1, x2, y2 in boxes:
        canvas[y1:y2, x1:x2] = level
    return canvas


def night_walk(count: int) -> list[Message]:
    """Return pairs with persons; the thermal image has half the size."""
    half = [[side // 2 for side in box] for box in (SEEN, HIDDEN)]
    messages: list[Message] = []
    for number in range(count):
        moment = START + number * STEP
        messages.append((VISIBLE, image(moment, draw([SEEN], 200, 48, 64, 3)), moment))
        messages.append((THERMAL, image(moment + LAG, draw(half, 240, 24, 32)), moment + LAG))
    return messages


class BrightAreas:
    """Stands in for the network: finds bright areas."""

    def __init__(self, path: Path, **options: Any) -> None:
        self._name = path.name

    def describe(self) -> str:
        return self._name

    def detect(self, image: Image) -> Detections:
        grey = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
        _, _, statistics, _ = cv2.connectedComponentsWithStats((grey >= 100).astype(np.uint8))
        x, y, width, height = statistics[1:, :4].T.astype(np.float64)
        boxes = np.stack([x, y, x + width, y + height], axis=1)
        return Detections(boxes, np.full(len(boxes), 0.9))


def write_labels(path: Path, count: int) -> Path:
    boxes = {stamp_text(START + n * STEP): [SEEN, HIDDEN] for n in range(count)}
    path.write_text(json.dumps({'boxes': boxes}), encoding='utf-8')
    return path


@pytest.mark.slow
def test_a_detector_sees_sources_and_fusions_and_labels_are_found_by_stamp(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('dig2dig_ros.evaluation.detector.Detector', BrightAreas)
    write_bag(tmp_path / 'walk', 'mcap', night_walk(3))
    labels = write_labels(tmp_path / 'labels.json', 2)
    arguments = ('--detector', 'bright.onnx', '--labels', labels, '--compare', 'mean,fused')
    run = call(tmp_path / 'walk', '-o', tmp_path / 'out', *FUSION, *arguments)
    assert run.code == 0
    folder = tmp_path / 'out' / 'walk'
    found = summary_of(folder)['detection']
    assert (found['frames'], found['labelled'], found['persons']) == (3, 2, 4)
    assert list(found['inputs']) == ['visible', 'thermal', 'mean', 'fused']
    assert found['inputs']['thermal']['ap50'] == 1
    assert found['inputs']['visible']['miss_rate'] == 0.5
    assert '| thermal |  100.0 |' in re.sub(' +', ' ', run.out).replace('| 100', '|  100')
    page = (folder / 'report.html').read_text(encoding='utf-8')
    for text in ('Persons found by the detector', 'persons in fused', 'bright.onnx'):
        assert text in page
    assert 'no label in' not in run.err

    labels.write_text(json.dumps({'boxes': {'frame_1': [SEEN]}}), encoding='utf-8')
    run = call(tmp_path / 'walk', '-o', tmp_path / 'other', *FUSION, *arguments)
    assert run.code == 0
    text = f'it has names such as frame_1, but the first image is {stamp_text(START)}'
    assert text in run.err
    assert text in '\n'.join(summary_of(tmp_path / 'other' / 'walk')['warnings'])


@pytest.mark.slow
def test_conditions_are_made_from_the_pairs_of_a_bag(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('dig2dig_ros.evaluation.detector.Detector', BrightAreas)
    write_bag(tmp_path / 'walk', 'mcap', night_walk(3))
    arguments = ('--detector', 'bright.onnx', '--conditions', 'clean,dark,black_visible')
    run = call(tmp_path / 'walk', '-o', tmp_path / 'out', *FUSION, *arguments, '--every', '2')
    assert run.code == 0
    found = summary_of(tmp_path / 'out' / 'walk')['conditions']
    assert (found['images'], found['truth']) == (2, 'cameras')
    assert list(found['ap50']) == ['clean', 'dark:medium', 'black_visible:medium']
    assert found['ap50']['clean']['late_noisy_or'] == 1
    assert found['ap50']['black_visible:medium']['visible'] == 0
    assert 'Detection of persons under conditions' in run.out


def built(kind: str, **fields: Any) -> Any:
    """Return a message of a type that is known without ROS, zero where nothing is given."""
    from dig2dig_ros.evaluation.bag_types import default_typestore

    store = default_typestore()
    values = {}
    for name, (node, details) in store.fielddefs[kind][1]:
        if name in fields:
            values[name] = fields[name]
        elif node.name == 'NAME':
            values[name] = built(details)
        elif node.name == 'BASE':
            values[name] = '' if details[0] == 'string' else 0
        elif node.name == 'ARRAY':
            values[name] = np.zeros(details[1])
        else:
            values[name] = []
    return store.types[kind](**values)


def vision_detections(moment: int, boxes: Sequence[Sequence[float]]) -> Any:
    package = 'vision_msgs/msg'
    detections = []
    for x1, y1, x2, y2 in boxes:
        position = built(f'{package}/Point2D', x=(x1 + x2) / 2, y=(y1 + y2) / 2)
        center = built(f'{package}/Pose2D', position=position)
        bbox = built(f'{package}/BoundingBox2D', center=center, size_x=x2 - x1, size_y=y2 - y1)
        hypothesis = built(f'{package}/ObjectHypothesis', class_id='person', score=0.9)
        result = built(f'{package}/ObjectHypothesisWithPose', hypothesis=hypothesis)
        detections.append(built(f'{package}/Detection2D', results=[result], bbox=bbox))
    return built(f'{package}/Detection2DArray', header=header_of(moment), detections=detections)


def yolo_detections(moment: int, boxes: Sequence[Sequence[float]]) -> Any:
    package = 'yolo_msgs/msg'
    detections = []
    for x1, y1, x2, y2 in boxes:
        position = built(f'{package}/Point2D', x=(x1 + x2) / 2, y=(y1 + y2) / 2)
        center = built(f'{package}/Pose2D', position=position)
        size = built(f'{package}/Vector2', x=x2 - x1, y=y2 - y1)
        bbox = built(f'{package}/BoundingBox2D', center=center, size=size)
        names = {'class_id': 0, 'class_name': 'person', 'score': 0.8}
        detections.append(built(f'{package}/Detection', bbox=bbox, **names))
    return built(f'{package}/DetectionArray', header=header_of(moment), detections=detections)


def header_of(moment: int) -> Any:
    return image(moment).header


@pytest.mark.slow
def test_detections_of_a_live_detector_are_found_by_the_stamps_of_their_images(
    tmp_path: Path,
) -> None:
    from dig2dig_ros.evaluation.bag_types import default_typestore

    half = [[side / 2 for side in box] for box in (SEEN, HIDDEN)]
    messages = night_walk(4)
    for number in range(4):
        moment = START + number * STEP
        # They come when the next images are there already; one does not come at all.
        late = moment + 150 * MS
        messages.append(('/detections/visible', vision_detections(moment, [SEEN]), late))
        if number != 2:
            thermal = yolo_detections(moment + LAG, half)
            messages.append(('/detections/thermal', thermal, late))
        fused = vision_detections(moment, [SEEN, HIDDEN])
        messages.append(('/detections/fused', fused, late))
    messages.sort(key=lambda message: message[2])
    write_bag(tmp_path / 'walk', 'sqlite3', messages, store=default_typestore())
    labels = write_labels(tmp_path / 'labels.json', 4)
    inputs = ('visible', 'thermal', 'fused')
    topics = [part for name in inputs for part in ('--detections', f'{name}=/detections/{name}')]
    arguments = (*FUSION, '--compare', 'fused', '--labels', labels)
    run = call(tmp_path / 'walk', '-o', tmp_path / 'out', *arguments, *topics)
    assert run.code == 0
    found = summary_of(tmp_path / 'out' / 'walk')['detection']
    assert (found['frames'], found['labelled']) == (3, 3)
    # Thermal boxes are in pixels of thermal images, half as large as those of the labels.
    assert {name: entry['ap50'] for name, entry in found['inputs'].items()} == {
        'visible': pytest.approx(51 / 101),
        'thermal': 1,
        'fused': 1,
    }
    assert 'for 1 images, no message' in run.err


# Ctrl-C and lost processes


LONG = 900


@pytest.fixture(scope='module')
def long_bags(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of bags that take longer than any of these tests needs."""
    folder = tmp_path_factory.mktemp('long')
    write_bag(folder / 'one', 'mcap', drive(LONG))
    # Too small for the metrics, and so without what they cost.
    messages: list[Message] = []
    for number in range(LONG):
        moment = START + number * STEP
        messages += [(VISIBLE, image(moment, picture(0, 24, 32, 3)), moment)]
        messages += [(THERMAL, image(moment, picture(1, 24, 32)), moment)]
    write_bag(folder / 'small', 'mcap', messages)
    return folder


class Terminal:
    """Runs the tool in processes of its own with a terminal for its messages."""

    def __init__(self, *arguments: object) -> None:
        self._master, slave = os.openpty()
        self._text = b''
        command = [sys.executable, '-m', 'dig2dig_ros', 'evaluate', *map(str, arguments)]
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=slave,
            stdin=subprocess.DEVNULL,
            text=True,
            env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)},
            start_new_session=True,
        )
        os.close(slave)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._master, 4096)
            except OSError:
                return
            self._text += data

    @property
    def shown(self) -> str:
        return self._text.decode('utf-8', 'replace')

    def wait_for(self, pattern: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while re.search(pattern, self.shown, re.DOTALL) is None:
            assert time.monotonic() < deadline, self.shown
            assert self.process.poll() is None, self.shown
            time.sleep(0.05)

    def end(self) -> tuple[int, str]:
        """Return the exit code and standard output."""
        output, _ = self.process.communicate(timeout=PATIENCE_S)
        self._reader.join(PATIENCE_S)
        return self.process.returncode, output

    def close(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.communicate()
        os.close(self._master)


@pytest.fixture
def terminal() -> Iterator[Any]:
    started: list[Terminal] = []

    def start(*arguments: object) -> Terminal:
        started.append(Terminal(*arguments))
        return started[-1]

    yield start
    for entry in started:
        entry.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ('names', 'options'),
    [
        (['one'], ()),
        (['small', 'small_2'], ('--jobs', '2')),
    ],
)
def test_ctrl_c_ends_with_what_there_is(
    long_bags: Path,
    tmp_path: Path,
    terminal: Any,
    names: list[str],
    options: tuple[str, ...],
) -> None:
    bags = [long_bags / names[0]] * len(names)
    running = terminal(*bags, '-o', tmp_path, *QUICK, *options)
    running.wait_for('.*'.join(rf'{name}: \d+/{LONG} pairs' for name in names))
    # A terminal signals all processes.
    os.killpg(running.process.pid, signal.SIGINT)
    code, output = running.end()
    assert code == 130
    assert (
        'interrupted: finishing with the results so far; press again to stop at once'
        in running.shown
    )
    assert 'Traceback' not in running.shown
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    for name in names:
        folder = tmp_path / name
        summary = summary_of(folder)
        pairs = summary['pairs']
        assert 0 < pairs < LONG
        assert summary['interrupted'] is True
        assert f'interrupted after {pairs} of about {LONG} pairs' in summary['warnings'][0]
        count = '1 pair' if pairs == 1 else f'{pairs} pairs'
        assert f'{name}: interrupted, {count}, {folder / "report.html"}' in running.shown
        assert len(rows_of(folder, 'timing.csv')) == pairs
        scored = [stamp_text(START)] if name == 'one' else []
        assert [row['pair'] for row in rows_of(folder)] == scored
        assert len(fused_bag(folder)['/fused/image_raw']) == pairs
        assert 'interrupted after' in (folder / 'report.html').read_text(encoding='utf-8')
        received = sum(summary['received'].values())
        assert received == 2 * pairs + sum(summary['dropped'].values())
    assert ('| fused' in output) == ('one' in names)


@pytest.fixture(scope='module')
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """Return a bag, and its metrics.csv as one process makes it."""
    folder = tmp_path_factory.mktemp('alone')
    write_bag(folder / 'one', 'mcap', drive(40))
    assert call(folder / 'one', '-o', folder / 'out', *SPREAD).code == 0
    return folder / 'one', (folder / 'out' / 'one' / 'metrics.csv').read_bytes()


SPREAD = (*FUSION, '--compare', 'fused', '--every', '20')


def kill_what_evaluates(output: Path, name: str, processes: Any) -> threading.Thread:
    """
    Kill the process that evaluates a bag, once it has fused a few pairs.

    :param processes: returns the ids of those that it may be.
    """

    def works_on_it(pid: int) -> bool:
        for descriptor in Path(f'/proc/{pid}/fd').iterdir():
            try:
                if f'/.{name}.part-' in os.readlink(descriptor):
                    return True
            except OSError:
                continue
        return False

    def watch() -> None:
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            for file in output.glob(f'.{name}.part-*/timing.csv'):
                if file.read_text(encoding='utf-8').count('\n') > 5:
                    for pid in processes():
                        if works_on_it(pid):
                            os.kill(pid, signal.SIGKILL)
                            return
            time.sleep(0.01)

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


needs_proc = pytest.mark.skipif(not Path('/proc/self/fd').is_dir(), reason='needs /proc')


@needs_proc
@pytest.mark.slow
def test_a_killed_process_costs_nothing_but_time(
    alone: tuple[Path, bytes], tmp_path: Path
) -> None:
    bag, expected = alone

    def children() -> list[int]:
        return [child.pid for child in multiprocessing.active_children() if child.pid]

    killer = kill_what_evaluates(tmp_path, 'one', children)
    run = call(bag, bag, '-o', tmp_path, *SPREAD, '--jobs', '2')
    killer.join()
    assert run.code == 0
    assert re.search('one: its worker was lost.*attempt 2 on', run.err)
    assert 'one: 40 pairs (attempt 2)' in run.err
    assert 'one_2: 40 pairs, ' in run.err
    for name in ('one', 'one_2'):
        assert (tmp_path / name / 'metrics.csv').read_bytes() == expected
    # Nothing of the lost attempt is left.
    assert sorted(path.name for path in tmp_path.iterdir()) == ['one', 'one_2']


@pytest.mark.slow
def test_a_cluster_gives_the_same_results(alone: tuple[Path, bytes], tmp_path: Path) -> None:
    # Where one of its workers is killed: test_jobs.
    distributed = pytest.importorskip('distributed')
    bag, expected = alone
    with distributed.LocalCluster(
        n_workers=1,
        threads_per_worker=1,
        processes=False,
        protocol='tcp://',
        host='127.0.0.1',
        dashboard_address=None,
    ) as cluster:
        address = cluster.scheduler_address
        run = call(bag, bag, '-o', tmp_path, *SPREAD, '--scheduler', address)
    assert run.code == 0
    for name in ('one', 'one_2'):
        assert (tmp_path / name / 'metrics.csv').read_bytes() == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ['one', 'one_2']


def test_a_cluster_that_is_not_there(bags: Path, tmp_path: Path) -> None:
    pytest.importorskip('distributed')
    run = call(bags / 'drive', '-o', tmp_path, *QUICK, '--scheduler', 'udp://127.0.0.1:1')
    assert run.code == 2
    assert 'no Dask scheduler can be reached at udp://127.0.0.1:1' in run.err
