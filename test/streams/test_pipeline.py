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

"""From messages to fused images: what comes out, and what is said of what does not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray
import pytest
import torch

from dig2dig_ros.fusion.device import is_lost
from dig2dig_ros.fusion.device_fusion import fuse_pair
from dig2dig_ros.fusion.fuser import Fuser, FusionCancelled
from dig2dig_ros.fusion.graphs import RUNS_BEFORE
from dig2dig_ros.priors import load_prior
from dig2dig_ros.streams.codec import encode
from dig2dig_ros.streams.outgoing_camera_info import OutgoingCameraInfo
from dig2dig_ros.streams.parameters import complete_values, fusion_settings
from dig2dig_ros.streams.pipeline import Pipeline
from dig2dig_ros.streams.preparation import FusedFrame, PreparationError, Work
from dig2dig_ros.streams.statistics import FaultyImages

SECOND = 1_000_000_000
START = 1_000 * SECOND
TOPICS = {'visible': '/robot/visible/image_raw', 'thermal': '/robot/thermal/image_raw'}


def values(**changes: Any) -> dict[str, Any]:
    return complete_values({'prior': 'nano', 'device': 'cpu', 'precision': 'fp32', **changes})


class Clock:
    """A clock that stands where it was set, in seconds."""

    now = 50.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope='module')
def fuser() -> Fuser:
    return Fuser(fusion_settings(values()), prior='nano', device='cpu', precision='fp32')


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def pipeline(clock: Clock, fuser: Fuser, said: list[str]) -> Pipeline:
    made = Pipeline(values(), TOPICS, clock=clock, log=said.append)
    made.fuser = fuser
    return made


def image(source: str, index: int, encoding: str = '', **changes: Any) -> Any:
    """Return a message of 64x48 pixels of noise, stamped a tenth of a second per index."""
    noise = np.random.default_rng(index)
    array: NDArray[Any]
    if source == 'visible':
        array, encoding = noise.integers(0, 256, (48, 64, 3), np.uint8), encoding or 'bgr8'
    else:
        array, encoding = noise.integers(3000, 4000, (48, 64), np.uint16), encoding or 'mono16'
    stamp = START + index * SECOND // 10
    seconds, nanoseconds = divmod(changes.pop('stamp', stamp), SECOND)
    header = SimpleNamespace(
        stamp=SimpleNamespace(sec=seconds, nanosec=nanoseconds), frame_id=f'{source}_optical'
    )
    message = encode(array, encoding, header, SimpleNamespace)
    vars(message).update(changes)
    return message


def camera_info(width: int, height: int, **changes: Any) -> Any:
    """Return what a calibrated camera says of itself."""
    roi = dict.fromkeys(('x_offset', 'y_offset', 'width', 'height'), 0)
    k = [50.0, 0.0, 31.5, 0.0, 50.0, 23.5, 0.0, 0.0, 1.0]
    fields = {'binning_x': 0, 'binning_y': 0, 'roi': SimpleNamespace(**roi), 'k': k}
    return SimpleNamespace(width=width, height=height, **{**fields, **changes})


def send(pipeline: Pipeline, clock: Clock, index: int, *sources: str) -> list[Work]:
    """Send an image of each source, a tenth of a second after those of the index before."""
    clock.now = 50.0 + index / 10
    return [
        work
        for source in sources or ('visible', 'thermal')
        for work in pipeline.add(source, image(source, index), round(clock.now * SECOND))
    ]


def test_a_pair_becomes_a_fused_image(pipeline: Pipeline, clock: Clock, fuser: Fuser) -> None:
    works = send(pipeline, clock, 0) + send(pipeline, clock, 1) + pipeline.flush()
    assert [len(work.messages) for work in works] == [2, 2]
    info = camera_info(64, 48)
    pipeline.camera_info('visible', info)
    clock.now += 0.25
    fused = pipeline.process(works[0])
    assert fused is not None
    assert fused.frame_id == 'visible_optical'
    assert fused.header is works[0].messages[0].message.header
    assert fused.camera_info is info
    expected = fuser.fuse(*fused.prepared.images, settings=fusion_settings(values()))
    assert np.array_equal(fused.result.image, expected.image)
    assert fused.result.restored == ()
    table = pipeline.table()
    assert table['resolution'] == '64x48'
    assert (table['pairs'], table['fused']) == ('2', '1')
    assert table['visible received'] == table['thermal received'] == '2'
    assert table['latency p50 (ms)'] == '350.0'
    assert table['visible condition'] == 'sound'
    assert pipeline.health() == []


def test_with_a_further_camera_one_image_of_each_is_fused(clock: Clock, fuser: Fuser) -> None:
    topics = {**TOPICS, 'nir': '/robot/nir/image_raw'}
    pipeline = Pipeline(values(additional_sources=['nir']), topics, clock=clock)
    pipeline.fuser = fuser
    (work,) = send(pipeline, clock, 0, 'visible', 'thermal', 'nir') + pipeline.flush()
    assert [message.source for message in work.messages] == ['visible', 'thermal', 'nir']
    fused = pipeline.process(work)
    assert fused is not None
    assert fused.result.weights.shape == (3, 48, 64)
    # A pair without the third one is none.
    assert send(pipeline, clock, 1) + pipeline.flush() == []
    assert pipeline.statistics.drops == {'nir missing': 1}


def test_restored_images_are_there_for_who_asks(
    pipeline: Pipeline, clock: Clock, fuser: Fuser
) -> None:
    (work,) = send(pipeline, clock, 0) + pipeline.flush()
    fused = pipeline.process(work, restored=lambda: True)
    assert fused is not None
    images = fused.prepared.images
    expected = fuser.fuse(*images, settings=fusion_settings(values()), restored=True)
    assert np.array_equal(fused.result.image, expected.image)
    assert len(fused.result.restored) == 2
    for restored, own in zip(fused.result.restored, expected.restored, strict=True):
        assert np.array_equal(restored, own)


def test_a_frame_is_handed_out_before_it_counts(pipeline: Pipeline, clock: Clock) -> None:
    counts = []

    def deliver(fused: FusedFrame) -> None:
        counts.append(pipeline.table()['fused'])

    (work,) = send(pipeline, clock, 0) + pipeline.flush()
    pipeline.process(work, deliver=deliver)
    assert counts == ['0']
    assert pipeline.table()['fused'] == '1'


def test_what_fails_on_the_way_out_is_not_fused(
    pipeline: Pipeline, clock: Clock, said: list[str]
) -> None:
    def deliver(fused: FusedFrame) -> None:
        raise RuntimeError('no such publisher')

    (work,) = send(pipeline, clock, 0) + pipeline.flush()
    assert pipeline.process(work, deliver=deliver) is None
    table = pipeline.table()
    assert (table['fused'], table['dropped: fusion error']) == ('0', '1')
    assert pipeline.health() == ['not fused: RuntimeError: no such publisher']
    assert said == ['dropped (fusion error): RuntimeError: no such publisher']
    clock.now += values()['stale_timeout']
    assert not any('publisher' in text for text in pipeline.health())


def test_an_end_in_mid_fusion_is_a_shutdown(pipeline: Pipeline, clock: Clock) -> None:
    def ended() -> bool:
        raise RuntimeError('the context is gone')

    (work,) = send(pipeline, clock, 0) + pipeline.flush()
    assert pipeline.process(work, weights=ended, cancelled=lambda: True) is None
    assert pipeline.statistics.drops == {'shutdown': 1}


def test_malformed_images_are_counted_and_never_paired(
    pipeline: Pipeline, clock: Clock, said: list[str]
) -> None:
    assert pipeline.add('thermal', image('thermal', 0, step=3), 50 * SECOND) == []
    assert pipeline.pending == 0
    assert pipeline.statistics.drops == {'thermal malformed': 1}
    (sentence,) = said
    assert sentence.startswith('dropped (thermal malformed): ')
    assert TOPICS['thermal'] in sentence
    pipeline.reject('visible', 'cannot be read')
    assert pipeline.statistics.images_received == {'visible': 1, 'thermal': 1}
    assert pipeline.statistics.examples['visible malformed'] == 'cannot be read'


def test_malformed_images_are_warned_of_while_they_come(pipeline: Pipeline, clock: Clock) -> None:
    send(pipeline, clock, 0)
    pipeline.add('thermal', image('thermal', 1, step=3), 50 * SECOND)
    (sentence,) = pipeline.health()
    assert sentence.startswith('thermal images are refused: image on')
    assert 'step 3' in sentence
    # Nothing else comes of that camera any more.
    send(pipeline, clock, 30, 'visible')
    pipeline.reject('thermal', 'cannot be read')
    absent, refused = pipeline.health()
    assert absent.endswith('for 3.0 s, but malformed images')
    assert refused == 'thermal images are refused: cannot be read'
    send(pipeline, clock, 60)
    assert pipeline.health() == []


def test_what_images_show_is_counted(pipeline: Pipeline, clock: Clock) -> None:
    black = {'data': bytes(64 * 48 * 3)}
    for index in range(5):
        clock.now = 50.0 + index / 10
        changes: dict[str, Any] = black if index in (1, 2) else {}
        works = pipeline.add('visible', image('visible', index, **changes), 50 * SECOND)
        works += pipeline.add('thermal', image('thermal', index), 50 * SECOND)
        for work in works:
            pipeline.process(work)
    faults = pipeline.statistics.faults
    text = 'the visible image is all black: is the lens covered?'
    assert faults == [FaultyImages('visible', text, 2, 5)]
    table = pipeline.table()
    assert (table['visible faulty'], table['thermal faulty']) == ('2', '0')
    pipeline.restart()
    assert pipeline.statistics.faults == []


def test_images_beyond_max_pixels_are_malformed(clock: Clock) -> None:
    pipeline = Pipeline(values(max_pixels=64 * 48 - 1), TOPICS, clock=clock)
    assert send(pipeline, clock, 0) + pipeline.flush() == []
    assert pipeline.statistics.drops == {'visible malformed': 1, 'thermal malformed': 1}


def test_an_image_that_is_not_thermal_is_refused_while_it_lasts(
    pipeline: Pipeline, clock: Clock
) -> None:
    coloured = image('visible', 0)
    pipeline.add('visible', image('visible', 0), round(clock.now * SECOND))
    (work,) = pipeline.add('thermal', coloured, round(clock.now * SECOND))
    assert pipeline.process(work) is None
    assert pipeline.statistics.drops == {'thermal refused': 1}
    (sentence,) = pipeline.health()
    assert sentence.startswith('thermal images are refused: ')
    with pytest.raises(PreparationError, match='looks like a colour palette'):
        pipeline.prepare(work, values())


def test_an_image_that_is_left_out_is_counted_and_the_reason_said(
    clock: Clock, fuser: Fuser, said: list[str]
) -> None:
    pipeline = Pipeline(values(missing_modality='any'), TOPICS, clock=clock, log=said.append)
    pipeline.fuser = fuser
    pipeline.add('visible', image('visible', 0), round(clock.now * SECOND))
    (work,) = pipeline.add('thermal', image('visible', 0), round(clock.now * SECOND))
    fused = pipeline.process(work)
    assert fused is not None
    assert fused.prepared.present == (True, False)
    table = pipeline.table()
    assert (table['visible left out'], table['thermal left out']) == ('0', '1')
    assert table['last error'].startswith('thermal refused: ')
    assert 'looks like a colour palette' in table['last error']
    (sentence,) = (sentence for sentence in pipeline.health() if 'refused' in sentence)
    assert sentence.startswith('thermal images are refused: ')
    assert any(line.startswith('thermal left out (thermal refused): ') for line in said)


def test_a_fusion_that_is_given_up_is_no_error(pipeline: Pipeline, clock: Clock) -> None:
    (work,) = send(pipeline, clock, 0) + pipeline.flush()
    assert pipeline.process(work, cancelled=lambda: True) is None
    assert pipeline.statistics.drops == {'shutdown': 1}
    assert pipeline.health() == []


class Failing:
    """A fuser that fails as often as it is told, and then fuses."""

    def __init__(self, fuser: Fuser, *errors: Exception) -> None:
        self._fuser = fuser
        self._errors = list(errors)
        self.freed = 0
        self.used: list[int] = []

    def fuse(self, *images: Any, settings: Any, **how: Any) -> Any:
        self.used.append(settings.prior_downscale)
        if self._errors:
            raise self._errors.pop(0)
        return self._fuser.fuse(*images, settings=settings, **how)

    def free_memory(self) -> None:
        self.freed += 1


def test_a_pair_without_memory_is_tried_once_more_with_less(
    pipeline: Pipeline, clock: Clock, fuser: Fuser, said: list[str]
) -> None:
    failing = Failing(fuser, MemoryError('no more'))
    pipeline.fuser = failing  # type: ignore[assignment]
    (work,) = send(pipeline, clock, 0) + pipeline.flush()
    assert pipeline.process(work) is not None
    assert failing.used == [1, 4]
    assert failing.freed == 1
    assert said[0].startswith('memory ran out: fusing with S 1 and the denoiser at 1/4')
    assert pipeline.health()[0].startswith('memory ran out')
    assert pipeline.table()['settings'] == 'the cheapest: memory ran out'


def test_a_pair_that_never_fits_is_dropped(pipeline: Pipeline, clock: Clock, fuser: Fuser) -> None:
    pipeline.fuser = Failing(fuser, *[MemoryError('no more')] * 2)  # type: ignore[assignment]
    (work,) = send(pipeline, clock, 0) + pipeline.flush()
    assert pipeline.process(work) is None
    assert pipeline.statistics.drops == {'out of memory': 1}
    assert 'not fused: memory ran out' in pipeline.health()


def test_cancellation_inside_the_fusion(pipeline: Pipeline, clock: Clock, fuser: Fuser) -> None:
    pipeline.fuser = Failing(fuser, FusionCancelled())  # type: ignore[assignment]
    (work,) = send(pipeline, clock, 0) + pipeline.flush()
    assert pipeline.process(work) is None
    assert pipeline.statistics.drops == {'shutdown': 1}


def test_a_camera_goes_on_alone_and_back(clock: Clock, fuser: Fuser) -> None:
    pipeline = Pipeline(values(missing_modality='any'), TOPICS, clock=clock)
    pipeline.fuser = fuser
    (work,) = send(pipeline, clock, 0) + pipeline.settle()
    assert pipeline.process(work) is not None
    works = [work for index in range(1, 30) for work in send(pipeline, clock, index, 'thermal')]
    # The first that comes after stale_timeout, 2 s, and all after it.
    assert [len(work.messages) for work in works] == [1] * 9
    fused = pipeline.process(works[0])
    assert fused is not None
    assert fused.frame_id == 'visible_optical'
    assert fused.header.frame_id == 'thermal_optical'
    assert fused.result.weights.shape == (2, 48, 64)
    assert (fused.result.weights[1] == 1).all()
    (sentence,) = pipeline.health()
    assert sentence == f'no visible image on {TOPICS["visible"]} for 2.9 s: ' + (
        'using the thermal image alone'
    )
    assert pipeline.table()['visible condition'] == 'missing'
    assert pipeline.statistics.drops == {'thermal without counterpart': 20}
    works = send(pipeline, clock, 30) + pipeline.settle()
    assert [len(work.messages) for work in works] == [1, 2][-len(works) :]


def test_changed_values_hold_for_the_next_image(pipeline: Pipeline, clock: Clock) -> None:
    late = image('thermal', 0, stamp=START + SECOND // 5)
    pipeline.values = values(thermal_time_offset=-0.2, sync_tolerance=0.0)
    pipeline.add('visible', image('visible', 0), 0)
    (work,) = pipeline.add('thermal', late, 0)
    assert work.stamps == (START, START)


def test_a_restart_counts_from_zero(pipeline: Pipeline, clock: Clock) -> None:
    send(pipeline, clock, 0, 'visible')
    pipeline.clear('shutdown')
    assert pipeline.statistics.drops == {'visible shutdown': 1}
    pipeline.restart()
    assert pipeline.statistics.drops == {}
    assert pipeline.table()['visible received'] == '0'
    assert pipeline.health() == [
        f'no {source} image on {topic} yet' for source, topic in TOPICS.items()
    ]


@pytest.mark.parametrize(('offset', 'side'), [(1.5, 'after'), (-1.5, 'before')])
def test_pairs_of_clocks_that_differ_are_said_with_the_offset(
    pipeline: Pipeline, clock: Clock, offset: float, side: str
) -> None:
    """Thermal stamps 1.5 s off pair with images that came 1.5 s before or after."""
    works = []
    for index in range(40):
        clock.now = 50.0 + index / 10
        for source in ('visible', 'thermal'):
            stamp = START + index * SECOND // 10 + round(offset * SECOND) * (source == 'thermal')
            message = image(source, index, stamp=stamp)
            works += pipeline.add(source, message, round(clock.now * SECOND))
    assert len(works) > 20
    assert all(abs(work.offset) < 0.05 for work in works)
    (sentence,) = pipeline.health()
    assert sentence.startswith(f'the thermal stamps are 1.500 s {side} the visible ones')
    assert 'pairs were not taken together' in sentence
    assert f'set thermal_time_offset: {-offset:.3f}, or synchronise' in sentence
    table = pipeline.table()
    assert table['stamp offset thermal (s)'] == f'{offset:.3f}'
    # What is published shows what came 1.5 s ago.
    assert pipeline.process(works[-1]) is not None
    assert float(pipeline.table()['latency p50 (ms)']) >= 1500
    pipeline.values = values(thermal_time_offset=-offset)
    assert pipeline.health() == []


def test_where_nothing_pairs_the_offset_is_said_once(pipeline: Pipeline, clock: Clock) -> None:
    for index in range(60):
        clock.now = 50.0 + index / 10
        for source in ('visible', 'thermal'):
            ahead = 8_004_000_000 * (source == 'thermal')
            message = image(source, index, stamp=START + index * SECOND // 10 + ahead)
            assert pipeline.add(source, message, round(clock.now * SECOND)) == []
    (sentence,) = pipeline.health()
    assert 'no pair for 5.9 s' in sentence
    assert 'set thermal_time_offset: -8.004, or synchronise' in sentence


def test_stamps_of_whole_seconds_are_said(pipeline: Pipeline, clock: Clock) -> None:
    for index in range(60):
        clock.now = 50.0 + index / 10
        for source in ('visible', 'thermal'):
            second = START + index // 10 * SECOND
            pipeline.add(source, image(source, index, stamp=second), round(clock.now * SECOND))
    texts = pipeline.health()
    assert [text.partition(' and are')[0] for text in texts] == [
        f'54 of the last 60 {source} images repeat the previous stamp, in whole seconds,'
        for source in ('visible', 'thermal')
    ]
    assert pipeline.statistics.drops == {f'{s} duplicate stamp': 54 for s in TOPICS}


def test_images_without_stamps_are_said(pipeline: Pipeline, clock: Clock, said: list[str]) -> None:
    assert pipeline.add('visible', image('visible', 0, stamp=0), 0) == []
    assert pipeline.statistics.drops == {'visible zero stamp': 1}
    assert said == ['dropped (visible zero stamp): the driver sends images without a stamp']


class BrokenFuser:
    """A fuser on a device that has failed."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def fuse(self, *images: Any, **how: Any) -> Any:
        raise self.error

    def free_memory(self) -> None:
        raise RuntimeError('CUDA error: invalid argument\nCompile with ...')

    def is_lost(self, reason: str) -> bool:
        return is_lost(torch.device('cpu'), reason)


def test_memory_that_cannot_be_freed_is_said_and_ends_nothing(
    pipeline: Pipeline, clock: Clock, fuser: Fuser, said: list[str]
) -> None:
    first, second = send(pipeline, clock, 0) + send(pipeline, clock, 1) + pipeline.flush()
    pipeline.fuser = BrokenFuser(MemoryError())  # type: ignore[assignment]
    assert pipeline.process(first) is None
    assert pipeline.statistics.drops == {'out of memory': 1}
    why = 'memory could not be freed: RuntimeError: CUDA error: invalid argument'
    assert f'not fused: memory ran out, and {why}' in pipeline.health()
    assert said[-1].endswith(why)
    assert not pipeline.lost
    pipeline.fuser = fuser
    assert pipeline.process(second) is not None


@pytest.mark.parametrize(
    ('text', 'is_fatal'),
    [
        ('CUDA error: device-side assert triggered\nCompile with ...', True),
        ('CUDA error: an illegal memory access was encountered', True),
        ('CUDA error: unspecified launch failure', True),
        ('CUDA error: invalid configuration argument', False),
        ('an illegal memory access of the plug-in', False),
    ],
)
def test_a_device_that_is_lost_is_told_from_one_bad_pair(
    pipeline: Pipeline, clock: Clock, text: str, is_fatal: bool
) -> None:
    (work,) = send(pipeline, clock, 0) + pipeline.flush()
    pipeline.fuser = BrokenFuser(RuntimeError(text))  # type: ignore[assignment]
    assert pipeline.process(work) is None
    assert pipeline.statistics.drops == {'fusion error': 1}
    assert bool(pipeline.lost) == is_fatal
    assert (pipeline.lost in pipeline.health()) == is_fatal


@pytest.mark.parametrize(
    ('info', 'fits'),
    [
        (camera_info(64, 48), True),
        (camera_info(128, 96, binning_x=2, binning_y=2), True),
        (camera_info(0, 0, k=[0.0] * 9), True),  # of a driver that knows no calibration
        (camera_info(640, 512), False),
        (camera_info(64, 48, binning_x=2, binning_y=2), False),
        (camera_info(0, 0), False),
    ],
)
def test_only_a_camera_info_that_is_true_of_the_image_goes_out(
    pipeline: Pipeline, clock: Clock, info: Any, fits: bool
) -> None:
    (work,) = send(pipeline, clock, 0) + pipeline.flush()
    pipeline.camera_info('visible', info)
    fused = pipeline.process(work)
    assert fused is not None
    assert fused.camera_info is (info if fits else None)
    said = [text for text in pipeline.health() if 'fused/camera_info is not published' in text]
    assert len(said) == (not fits)
    assert ('not published' in pipeline.table()['camera_info']) == (not fits)
    clock.now += values()['stale_timeout']
    assert not any('camera_info' in text for text in pipeline.health())
    # Before an image comes, what makes no sense by itself is said as well.
    assert pipeline.table()['camera_info'].startswith(('that of', 'fused/camera_info is not'))


def test_a_thermal_image_alone_does_not_go_out_with_what_the_visible_camera_says(
    clock: Clock, fuser: Fuser
) -> None:
    pipeline = Pipeline(values(missing_modality='any'), TOPICS, clock=clock)
    pipeline.fuser = fuser
    pipeline.camera_info('visible', camera_info(64, 48))
    works = [work for index in range(30) for work in send(pipeline, clock, index, 'thermal')]
    fused = pipeline.process(works[0])
    assert fused is not None
    # Its size fits, but it is on the pixels and in the frame of the thermal camera.
    assert (fused.frame_id, fused.camera_info) == ('thermal_optical', None)
    assert any('no visible image has come yet, and visible/c' in t for t in pipeline.health())


def test_a_camera_info_that_does_not_come_is_said_to_who_wants_it(clock: Clock) -> None:
    wanted = [False]
    outgoing = OutgoingCameraInfo('/robot/visible/camera_info', lambda: wanted[0])
    pipeline = Pipeline(values(), TOPICS, clock=clock, camera_info=outgoing)
    sentence = (
        'fused/camera_info is not published, though it has subscribers: none came on '
        '/robot/visible/camera_info'
    )
    clock.now += values()['stale_timeout'] + 0.1
    assert sentence not in pipeline.health()
    assert pipeline.table()['camera_info'].startswith('none has come on /robot/visible/camera_i')
    wanted[0] = True
    assert sentence in pipeline.health()
    pipeline.camera_info('visible', camera_info(64, 48))
    assert sentence not in pipeline.health()
    assert (
        pipeline.table()['camera_info'] == 'that of /robot/visible/camera_info, for 64x48 pixels'
    )


def test_what_cannot_be_recorded_is_said_as_long_as_it_lasts(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = Pipeline(values(), TOPICS, clock=clock)
    fuser = pipeline.fuser = Fuser(
        fusion_settings(values()), prior='nano', device='cpu', precision='fp32', graphs=True
    )
    calls = []

    def once_unfit(*arguments: Any) -> Any:
        calls.append(len(calls))
        if len(calls) == RUNS_BEFORE + 1:  # the recording
            raise RuntimeError('no waiting while recording\nmore of it')
        return fuse_pair(*arguments)

    monkeypatch.setattr('dig2dig_ros.fusion.fuser.fuse_pair', once_unfit)
    for index in range(RUNS_BEFORE + 2):
        for work in send(pipeline, clock, index) + pipeline.flush():
            assert pipeline.process(work) is not None
    said = 'runs kernel by kernel, which is slower: RuntimeError: no waiting while recording'
    assert any(text.endswith(said) for text in pipeline.health())
    assert fuser.recorded == 0
    fuser.free_memory()
    for work in send(pipeline, clock, 9) + pipeline.flush():
        assert pipeline.process(work) is not None
    assert not any('slower' in text for text in pipeline.health())


def test_what_a_damaged_prior_makes_is_counted_and_said_and_never_delivered(
    clock: Clock, said: list[str]
) -> None:
    prior: Any = load_prior('nano')
    with torch.no_grad():
        prior.network.head.bias[0] = float('nan')
    pipeline = Pipeline(values(), TOPICS, clock=clock, log=said.append)
    pipeline.fuser = Fuser(fusion_settings(values()), prior=prior, device='cpu', precision='fp32')
    (work,) = send(pipeline, clock, 1)
    delivered: list[FusedFrame] = []
    assert pipeline.process(work, deliver=delivered.append) is None
    assert delivered == []
    assert pipeline.statistics.drops['fusion error'] == 1
    sentence = "the result is not finite: denoiser 'nano' may be damaged"
    assert any(f'not fused: {sentence}' in text for text in pipeline.health())
    assert any(sentence in text for text in said)
