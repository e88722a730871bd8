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

"""Recording and replaying; on the CPU, to replay is to run the recorded function again."""

from dataclasses import dataclass, replace
import gc
import inspect
import logging
import threading

import numpy as np
import pytest
import torch

from dig2dig_ros.fusion.fuser import Fuser, FusionCancelled
from dig2dig_ros.fusion.graphs import Input, MOST_RECORDINGS, Replayer, RUNS_BEFORE, Staging
from dig2dig_ros.fusion.settings import FusionSettings
from dig2dig_ros.images.registration import Registration

CPU = torch.device('cpu')
SETTINGS = FusionSettings(num_inference_steps=2, dig_refresh_interval=1)
# Enough for a recording and another replay of it.
OFTEN = RUNS_BEFORE + 2


@pytest.fixture(scope='module', autouse=True)
def _nothing_old_to_collect():
    """Keep what other tests hold out of the collection that comes before every recording."""
    gc.freeze()
    yield
    gc.unfreeze()


def images(seed, height=24, width=32):
    rng = np.random.default_rng(seed)
    return (
        rng.integers(0, 255, (height, width, 3), dtype=np.uint8),
        rng.random((height, width), dtype=np.float32),
    )


def placement(shift):
    matrix = np.array([[1.0, 0, shift], [0, 1, 0], [0, 0, 1]])
    return Registration(matrix, (32, 24), (32, 24)).placement(4.0)


def film():
    """Yield what may change from pair to pair; everything comes often enough to be replayed."""
    for moment in range(OFTEN):
        yield SETTINGS, images(moment), {}
    for moment in range(OFTEN):
        yield SETTINGS, images(moment), {'weight_maps': False}
    for moment in range(OFTEN):
        yield SETTINGS, images(moment), {'restored': True}
    # A camera that fades out, and is warped by a placement that is replaced on the way.
    places = [placement(shift) for shift in (-4, 3)]
    for moment in range(OFTEN):
        options = {'trust': (1.0, 1 - 0.1 * moment), 'placements': (None, places[moment > 3])}
        yield SETTINGS, images(moment), options
    for moment in range(OFTEN):
        yield SETTINGS, images(moment), {'trust': (0.0, 0.9)}
    # Another N, and noise, which is read as well; another resolution; other types.
    noisy = replace(SETTINGS, num_inference_steps=3, noise_draws=1)
    for moment in range(OFTEN):
        yield noisy, images(moment), {}
    for moment in range(OFTEN):
        yield SETTINGS, images(moment, 28, 20), {}
        visible, thermal = images(moment)
        yield SETTINGS, (visible.astype(np.uint16) * 257, thermal), {}
    # What was recorded is still there.
    yield SETTINGS, images(0), {}


def agree(plain, recorded):
    """Fuse the film with both, and return how far the images are apart at most."""
    worst = 0
    for settings, pair, options in film():
        expected, result = (
            fuser.fuse(*pair, settings=settings, **options) for fuser in (plain, recorded)
        )
        assert result.image.shape == expected.image.shape
        assert result.weights.shape == expected.weights.shape
        worst = max(worst, int(np.abs(result.image.astype(int) - expected.image).max()))
        np.testing.assert_allclose(result.weights, expected.weights, atol=1e-4)
        # What is recorded takes the noise from each source, as much as there is: here none.
        assert result.prior_calls == expected.prior_calls + sum(
            trust > 0 for trust in options.get('trust', (1.0, 1.0))
        )
        for pictures in zip(result.restored, expected.restored, strict=True):
            np.testing.assert_allclose(*pictures, atol=1)
    return worst


@pytest.mark.slow
def test_replays_are_fusions_of_the_images_of_the_moment():
    options = {'prior': 'nano', 'device': 'cpu', 'precision': 'fp32'}
    assert agree(Fuser(**options), Fuser(**options, graphs=True)) == 0


def test_one_recording_does_for_clean_and_noisy_pairs():
    options = {'prior': 'nano', 'device': 'cpu', 'precision': 'fp32'}
    plain, recorded = Fuser(SETTINGS, **options), Fuser(SETTINGS, **options, graphs=True)
    rows, columns = np.mgrid[:48, :64]
    thermal = (120 + 60 * np.sin(rows / 9) * np.cos(columns / 11)).astype(np.float32)
    visible = np.repeat(thermal[::-1, :, np.newaxis] / 2 + 60, 3, axis=2)
    thermal[:20, :20] = 0
    random = np.random.default_rng(1)
    calls, asking = set(), []
    for moment, level in enumerate((0, 12, 0, 25, 4, 0)):
        pair = [
            np.clip(image + random.normal(0, level, image.shape), 0, 255).astype(np.uint8)
            for image in (visible, thermal)
        ]
        expected = plain.fuse(*pair)
        # What is recorded cannot be given up, and does not ask.
        result = recorded.fuse(*pair, cancelled=lambda at=moment: bool(asking.append(at)))
        np.testing.assert_array_equal(result.image, expected.image)
        np.testing.assert_array_equal(result.weights, expected.weights)
        calls.add((expected.prior_calls, result.prior_calls))
    assert calls == {(4, 6), (6, 6)}
    assert set(asking) == set(range(RUNS_BEFORE))


def test_results_stay_when_the_buffers_are_used_again():
    fuser = Fuser(SETTINGS, prior='nano', device='cpu', precision='fp32', graphs=True)
    first = [fuser.fuse(*images(1)) for _ in range(OFTEN)]
    copies = [(result.image.copy(), result.weights.copy()) for result in first]
    fuser.fuse(*images(2))
    for result, (image, weights) in zip(first, copies, strict=True):
        np.testing.assert_array_equal(result.image, image)
        np.testing.assert_array_equal(result.weights, weights)


@pytest.mark.parametrize('graphs', [False, True])
def test_callbacks_see_every_step_of_every_pair_and_cancelling_ends_one(graphs):
    fuser = Fuser(SETTINGS, prior='nano', device='cpu', precision='fp32', graphs=graphs)
    for _ in range(OFTEN):
        states = []
        fuser.fuse(*images(0), callback=states.append)
        assert len(states) == 3
    asked = []
    chain = replace(SETTINGS, sampler='ddim')
    with pytest.raises(FusionCancelled):
        fuser.fuse(
            *images(0),
            settings=chain,
            cancelled=lambda: bool(asked.append(0) or len(asked) > 1),
        )
    assert len(asked) == 2
    for _ in range(OFTEN):
        image = fuser.fuse(*images(1), cancelled=lambda: False).image
    np.testing.assert_array_equal(image, fuser.fuse(*images(1), callback=states.append).image)


# The replayer by itself


@dataclass
class Doubled:
    tensors: dict[str, torch.Tensor]
    recording: bool = False


class Counted:
    """Doubles its input, and counts how often Python does so."""

    def __init__(self):
        self.runs = 0
        self.failing = False

    def __call__(self, tensors, recording):
        self.runs += 1
        if self.failing and recording:
            raise RuntimeError('not while recording')
        return Doubled({'twice': tensors['x'] * 2}, recording)


def doubled(replayer, computation, value, key='double', **options):
    given = Input(torch.full((3,), float(value)))
    result = replayer.run(key, computation, {'x': given}, **options)
    assert replayer.download(result)['twice'].tolist() == [2.0 * value] * 3
    return result.recording


def test_a_computation_is_recorded_after_some_runs():
    replayer, computation = Replayer(CPU), Counted()
    recorded = [doubled(replayer, computation, value) for value in range(OFTEN)]
    assert recorded == [False] * RUNS_BEFORE + [True] * 2
    assert replayer.recorded == 1
    # Where it must not be replayed, it is not, and uses the same buffers.
    assert not doubled(replayer, computation, 9, recordable=False)
    replayer.clear()
    assert replayer.recorded == 0
    assert not doubled(replayer, computation, 5)


def test_nothing_is_recorded_where_it_is_not_wanted():
    replayer = Replayer(CPU, record=False)
    assert not any(doubled(replayer, Counted(), value) for value in range(OFTEN))


def test_runs_of_another_thread_do_not_count():
    replayer, computation = Replayer(CPU), Counted()
    thread = threading.Thread(
        target=lambda: [doubled(replayer, computation, value) for value in range(RUNS_BEFORE)]
    )
    thread.start()
    thread.join()
    assert not doubled(replayer, computation, 1)


def test_what_cannot_be_recorded_runs_as_before_and_is_said_once(caplog):
    replayer, computation = Replayer(CPU), Counted()
    computation.failing = True
    with caplog.at_level(logging.WARNING):
        for value in range(OFTEN):
            assert not doubled(replayer, computation, value)
            assert not doubled(replayer, computation, value, key='another')
    assert [record.levelname for record in caplog.records] == ['WARNING']
    assert 'not while recording' in caplog.text
    assert 'not while recording' in replayer.problem
    # It was tried once for each.
    assert computation.runs == 2 * OFTEN + 2
    good = Counted()
    assert [doubled(replayer, good, value, key='good') for value in range(OFTEN)][-1]


def test_the_number_of_recordings_is_bounded():
    replayer, computation = Replayer(CPU), Counted()
    for key in range(2 * MOST_RECORDINGS):
        for value in range(OFTEN):
            doubled(replayer, computation, value, key=key)
    assert replayer.recorded == MOST_RECORDINGS
    assert doubled(replayer, computation, 1, key=2 * MOST_RECORDINGS - 1)
    assert not doubled(replayer, computation, 1, key=0)


def test_without_room_all_are_given_up_and_recorded_anew():
    replayer, computation = Replayer(CPU), Counted()
    for key in range(MOST_RECORDINGS + 1):
        recorded = [doubled(replayer, computation, value, key=key) for value in range(OFTEN)]
        assert recorded[-1]
    assert replayer.recorded == 1
    assert [doubled(replayer, computation, value, key=0) for value in range(OFTEN)][-1]


def test_one_that_cannot_be_recorded_takes_the_graphs_of_others_along_for_a_run():
    replayer, good, bad = Replayer(CPU), Counted(), Counted()
    bad.failing = True
    assert [doubled(replayer, good, value, key='good') for value in range(OFTEN)][-1]
    replayed = [doubled(replayer, bad, value, key='bad') for value in range(OFTEN)]
    assert True not in replayed
    assert [doubled(replayer, good, value, key='good') for value in range(3)] == [
        False,
        True,
        True,
    ]


def test_a_thread_that_came_after_another_is_not_that_one():
    # The system numbers them alike.
    replayer, computation, recorded = Replayer(CPU), Counted(), []

    def run():
        for value in range(RUNS_BEFORE):
            recorded.append(doubled(replayer, computation, value))

    for _ in range(3):
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    assert recorded == [False] * 3 * RUNS_BEFORE


def test_inputs_that_did_not_change_are_not_copied_again():
    replayer = Replayer(CPU)
    value = torch.zeros(2)

    def total(tensors, recording):
        return Doubled({'total': tensors['x'].sum()})

    sums = []
    for version in ('a', 'a', 'b', 'b', None, None):
        value += 1
        result = replayer.run('total', total, {'x': Input(value, version)})
        sums.append(float(replayer.download(result)['total']))
    assert sums == [2, 2, 6, 6, 10, 12]


def test_staged_tensors_do_not_overlap():
    staging = Staging(pinned=False)
    tensors = {
        'bytes': torch.arange(7, dtype=torch.uint8),
        'floats': torch.rand(3, 5),
        'shorts': torch.arange(6, dtype=torch.int16).view(2, 3),
        'none': torch.zeros(0),
        'scalar': torch.tensor(4.0),
    }
    for _ in range(2):
        places = staging.places(tensors)
        for name, tensor in tensors.items():
            places[name].copy_(tensor)
        for name, tensor in tensors.items():
            assert torch.equal(places[name], tensor)
        again = staging.places({'floats': tensors['floats']})['floats']
        assert again.data_ptr() == places['bytes'].data_ptr()


def test_no_garbage_is_collected_while_something_is_recorded():
    collections = []

    def note(phase, info):
        collections.append(phase)

    replayer, states = Replayer(CPU), []

    def computation(inputs, is_recorded):
        if is_recorded and not states:
            states.append((gc.isenabled(), bool(collections)))
        return Doubled({'value': inputs['value'] * 2}, is_recorded)

    gc.callbacks.append(note)
    try:
        for value in range(OFTEN):
            with replayer.stream():
                given = {'value': Input(torch.full((2,), float(value)))}
                replayer.download(replayer.run('key', computation, given))
    finally:
        gc.callbacks.remove(note)
    assert states == [(False, True)]  # collected before, and not meanwhile
    assert gc.isenabled()


# On a GPU


@pytest.mark.cuda
def test_a_run_in_flight_is_waited_for_before_its_memory_is_given_up():
    device = torch.device('cuda')
    replayer, runs = Replayer(device), []

    def computation(inputs, is_recorded):
        value = inputs['value']
        for _ in range(200):
            value = value @ inputs['value']
        return Doubled({'value': value}, is_recorded)

    for _ in range(OFTEN):
        with replayer.stream():
            given = {'value': Input(torch.eye(2048))}
            result = replayer.run('key', computation, given)
            done = torch.cuda.Event()
            done.record()
            if len(runs) < OFTEN - 1:
                replayer.download(result)
            runs.append(done)
    replayer.clear()
    assert runs[-1].query()


@pytest.mark.cuda
@pytest.mark.parametrize('precision', ['fp32', 'bf16', 'fp16'])
def test_graphs_agree_with_single_kernels(precision):
    options = {'prior': 'nano', 'device': 'cuda', 'precision': precision}
    # The libraries may choose other kernels for a stream that is recorded.
    recorded = Fuser(**options)
    assert agree(Fuser(**options, graphs=False), recorded) <= 1
    assert int(recorded.memory()['CUDA graphs']) > 0


@pytest.mark.cuda
def test_more_kinds_of_pairs_than_are_kept_are_fused_as_without_graphs():
    options = {'prior': 'nano', 'device': 'cuda', 'precision': 'bf16'}
    plain, recorded = Fuser(**options, graphs=False), Fuser(**options)
    for moment in range(3 * OFTEN):
        for steps in range(1, MOST_RECORDINGS + 2 if moment % OFTEN == 0 else 4):
            settings = replace(SETTINGS, num_inference_steps=steps)
            expected, image = (
                fuser.fuse(*images(moment), settings=settings).image.astype(int)
                for fuser in (plain, recorded)
            )
            assert np.abs(image - expected).max() <= 1


@pytest.mark.cuda
def test_after_a_warm_up_pairs_of_a_robot_are_replayed():
    fuser = Fuser(SETTINGS, prior='nano', device='cuda')
    fuser.warm_up(32, 24)
    assert fuser.memory()['CUDA graphs'] == '2'
    fuser.fuse(*images(0), weight_maps=False)
    fuser.fuse(*images(0))
    assert fuser.memory()['CUDA graphs'] == '2'


@pytest.mark.cuda
def test_replays_on_a_gpu_are_the_same_every_time():
    fuser = Fuser(SETTINGS, device='cuda')
    fused = [fuser.fuse(*images(3)).image for _ in range(OFTEN)]
    for image in fused[RUNS_BEFORE + 1 :]:
        np.testing.assert_array_equal(image, fused[RUNS_BEFORE])


@pytest.mark.cuda
def test_memory_does_not_grow_over_pairs_and_changes_of_the_settings():
    fuser = Fuser(SETTINGS, prior='nano', device='cuda')
    reserved = []
    for _ in range(4):
        for steps in range(1, MOST_RECORDINGS + 3):
            settings = replace(SETTINGS, num_inference_steps=steps)
            for moment in range(OFTEN):
                fuser.fuse(*images(moment), settings=settings)
        reserved.append(torch.cuda.memory_reserved())
    assert reserved[-1] <= reserved[1]
    fuser.close()


@pytest.mark.cuda
def test_a_recording_keeps_alive_what_it_reads(monkeypatch):
    begin = torch.cuda.CUDAGraph.capture_begin
    if 'check_input_liveness' not in inspect.signature(begin).parameters:
        pytest.skip('this version of torch cannot tell')
    monkeypatch.setattr(
        torch.cuda.CUDAGraph,
        'capture_begin',
        lambda graph, **options: begin(graph, check_input_liveness=True, **options),
    )
    settings = [replace(SETTINGS, noise_draws=1, seed=seed) for seed in range(3)]
    fuser = Fuser(prior='nano', device='cuda')
    fused = []
    for _ in range(2):
        for each in settings:
            often = [fuser.fuse(*images(0), settings=each).image for _ in range(OFTEN)]
            fused.append(often[-1])
        # So much other noise that what was drawn before is not kept.
        for seed in (8, 9):
            other = replace(SETTINGS, noise_draws=16, seed=seed)
            fuser.fuse(*images(0, 1024, 1024), settings=other)
        torch.cuda.empty_cache()
    for first, again in zip(fused[:3], fused[3:], strict=True):
        np.testing.assert_array_equal(first, again)


@pytest.mark.cuda
def test_without_memory_for_a_graph_the_fusion_goes_on(monkeypatch, caplog):
    fuser = Fuser(SETTINGS, prior='nano', device='cuda')
    expected = fuser.fuse(*images(0)).image

    def fail(*args, **options):
        raise torch.cuda.OutOfMemoryError('CUDA out of memory')

    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda.CUDAGraph, 'capture_begin', fail)
        for _ in range(OFTEN):
            np.testing.assert_array_equal(fuser.fuse(*images(0)).image, expected)
    assert 'out of memory' in caplog.text
    # Other computations are still recorded.
    settings = replace(SETTINGS, num_inference_steps=3)
    for _ in range(OFTEN):
        fuser.fuse(*images(0), settings=settings)
    assert fuser.memory()['CUDA graphs'] == '1'


@pytest.mark.cuda
def test_a_prior_that_waits_though_it_says_otherwise_falls_back(caplog):
    fuser = Fuser(SETTINGS, prior='nano', device='cuda')
    denoise = fuser.prior.denoise

    def waiting(noisy, timesteps):
        assert float(noisy.sum()) != 0.1
        return denoise(noisy, timesteps)

    fuser.prior.denoise = waiting
    expected = fuser.fuse(*images(0)).image
    for _ in range(OFTEN):
        np.testing.assert_array_equal(fuser.fuse(*images(0)).image, expected)
    assert fuser.memory()['CUDA graphs'] == '0'
    assert len(caplog.records) == 1
