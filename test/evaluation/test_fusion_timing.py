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

import json
from pathlib import Path
import time

import numpy as np
from numpy.typing import NDArray
import pytest
import torch

from dig2dig_ros.evaluation.fusion_timing import (
    check_fused,
    Contender,
    load_plugin,
    machine,
    moving_pairs,
    origin,
    take_turns,
    timing_facts,
    variants,
)
from dig2dig_ros.evaluation.options import UsageError
from dig2dig_ros.images.camera_noise import estimate_noise

WIDTH, HEIGHT = 48, 32
GOOD = """
def load():
    return {'level': 7}

def fuse(model, visible, thermal):
    fused = visible.copy()
    fused[..., 0] = model['level'] + thermal // 2
    return fused
"""

Image = NDArray[np.uint8]


class Recorder:
    """A contender that notes what it was given and sleeps for a while."""

    def __init__(self, name: str, seconds: float = 0.0) -> None:
        self.given: list[tuple[Image, Image]] = []
        self.seconds = seconds
        self.contender = Contender(name, 'plugin', self)

    def __call__(self, visible: Image, thermal: Image) -> Image:
        self.given.append((visible, thermal))
        time.sleep(self.seconds)
        return thermal


@pytest.fixture(scope='module')
def pairs() -> list[tuple[Image, Image]]:
    return moving_pairs(WIDTH, HEIGHT, 3)


def write(folder: Path, text: str) -> Path:
    path = folder / 'other.py'
    path.write_text(text, encoding='utf-8')
    return path


def test_moving_pairs_are_a_video_of_both_cameras(pairs: list[tuple[Image, Image]]) -> None:
    assert len(pairs) == 3
    for visible, thermal in pairs:
        assert visible.dtype == thermal.dtype == np.uint8
        assert visible.shape == (HEIGHT, WIDTH, 3)
        assert thermal.shape == (HEIGHT, WIDTH)
        assert thermal.max() - thermal.min() > 100
    assert not np.array_equal(pairs[0][1], pairs[1][1])


def test_moving_pairs_have_the_noise_that_is_asked_for() -> None:
    for noise, least, most in ((0, 0.0, 1.5), (10, 8.0, 12.0)):
        for image in moving_pairs(320, 256, 1, noise)[0]:
            assert image.dtype == np.uint8
            planes = image[..., None] if image.ndim == 2 else image
            for channel in range(planes.shape[2]):
                plane = np.ascontiguousarray(planes[..., channel])
                assert least <= estimate_noise(plane, full_scale=255).deviation <= most


# Plug-ins


def test_plugin_fuses(tmp_path: Path, pairs: list[tuple[Image, Image]]) -> None:
    contender = load_plugin(write(tmp_path, GOOD))
    assert (contender.name, contender.kind) == ('other', 'plugin')
    fused = contender.fuse(*pairs[0])
    assert np.array_equal(fused[..., 0], 7 + pairs[0][1] // 2)
    check_fused(contender, fused, pairs[0])


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('def load(): pass\n', 'has no function fuse: it needs load'),
        ('fuse = 3\ndef load(): pass\n', 'has no function fuse'),
        ('def fuse(model, visible, thermal): return thermal\n', 'has no function load'),
        ('import no_such_module\n', 'cannot be imported: ModuleNotFoundError'),
        ('def load(:\n', 'cannot be imported: SyntaxError'),
        (
            'def load():\n    raise OSError("no weights")\ndef fuse(*images): pass\n',
            r'load\(\) failed: OSError: no weights',
        ),
    ],
)
def test_plugin_that_cannot_be_loaded(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        load_plugin(write(tmp_path, text))
    assert str(tmp_path / 'other.py') in str(caught.value)


def test_plugin_that_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match='does not exist'):
        load_plugin(tmp_path / 'missing.py')
    (tmp_path / 'weights.pth').write_bytes(b'1')
    with pytest.raises(UsageError, match='not a Python file'):
        load_plugin(tmp_path / 'weights.pth')


@pytest.mark.parametrize(
    ('result', 'message'),
    [
        ('None', 'a NoneType for images of 48x32'),
        ('thermal.astype("float32")', r'float32 of shape \(32, 48\)'),
        ('thermal[:-1]', r'uint8 of shape \(31, 48\)'),
        ('visible[..., :2]', r'uint8 of shape \(32, 48, 2\)'),
    ],
)
def test_plugin_that_returns_no_image(
    tmp_path: Path, pairs: list[tuple[Image, Image]], result: str, message: str
) -> None:
    text = f'def load(): pass\ndef fuse(model, visible, thermal): return {result}\n'
    contender = load_plugin(write(tmp_path, text))
    with pytest.raises(UsageError, match=message):
        take_turns([contender], pairs, 1)


def test_plugin_that_fails_on_a_pair(tmp_path: Path, pairs: list[tuple[Image, Image]]) -> None:
    text = 'def load(): pass\ndef fuse(model, visible, thermal): return visible / model\n'
    with pytest.raises(UsageError, match=r'failed: TypeError'):
        take_turns([load_plugin(write(tmp_path, text))], pairs, 1)


# Timing


def test_all_contenders_get_the_same_pairs_in_turns(pairs: list[tuple[Image, Image]]) -> None:
    recorders = [Recorder('a'), Recorder('b'), Recorder('c')]
    timings = take_turns([r.contender for r in recorders], pairs, 5)
    # Six rounds more to warm up, forwards and backwards through the video.
    order = [0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 2]
    for recorder in recorders:
        assert len(timings[recorder.contender.name].seconds) == 5
        assert len(timings[recorder.contender.name].cpu_seconds) == 5
        assert len(recorder.given) == len(order)
        for index, given in zip(order, recorder.given, strict=True):
            assert given[0] is pairs[index][0]
            assert given[1] is pairs[index][1]


def test_facts_of_a_contender(pairs: list[tuple[Image, Image]]) -> None:
    fast, slow = Recorder('fast', 0.002), Recorder('slow', 0.03)
    timings = take_turns([fast.contender, slow.contender], pairs[:1], 4)
    facts = timing_facts(timings, 'slow', ['fast', 'slow'])
    assert facts['pairs'] == 4
    assert facts['ms']['p50'] >= 30
    assert facts['ms']['p50'] <= facts['ms']['p95'] <= facts['ms']['p99']
    assert facts['rate_hz'] == pytest.approx(1e3 / facts['ms']['p50'], rel=1e-3)
    assert facts['ratio']['slow'] == 1
    assert facts['ratio']['fast'] > 1
    assert facts['cpu_ms'] >= 0


def test_variants_are_named_by_what_tells_them_apart() -> None:
    assert [each.name for each in variants(['realtime'], ['cpu'], ['auto'])] == ['realtime']
    names = [each.name for each in variants(['a.yaml', 'b'], ['cpu', 'cuda'], ['auto'])]
    assert names == ['a cpu', 'a cuda', 'b cpu', 'b cuda']


def test_machine_goes_into_json() -> None:
    facts = machine()
    assert facts['cpu']
    assert facts['torch_threads'] >= 1
    assert facts['versions']['torch'] == torch.__version__
    assert json.loads(json.dumps(facts)) == facts
    assert facts['load'] >= 0


def test_a_line_says_where_figures_come_from() -> None:
    facts = {'cpu': 'one', 'versions': {'torch': '2'}, 'variables': {'OMP_NUM_THREADS': '1'}}
    results = [{'about': {'device': 'cpu', 'precision': 'float32'}}, {'about': {}}]
    line = origin(results, facts, 0.1)
    assert line == 'cpu, float32; one; torch 2; OMP_NUM_THREADS=1; load before 0.1'
