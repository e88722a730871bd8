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

"""What a fuser reuses of a video: cameras that stand still, things that move, cuts."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dig2dig_ros.fusion.fuser import Fuser, FusionSettings
from dig2dig_ros.fusion.video_memory import VideoMemory

WIDTH, HEIGHT = 160, 128
SETTINGS = FusionSettings(gain_window=9, structure_window=15, gain_reuse=4)


@pytest.fixture(scope='module')
def fuser():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Fuser(SETTINGS, prior='nano', device='cpu', precision='fp32')
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def settings(fuser):
    """Undo what a test has changed."""
    yield
    fuser.settings = SETTINGS


def street(shift=0, walker=20, noise=0, seed=0, size=(HEIGHT, WIDTH)):
    """Draw a textured wall and a warm walker at a column, as two cameras see them."""
    rows, columns = np.indices(size)
    across = columns + shift
    visible = 90 + 40 * np.sin(across / 5) + 30 * ((rows // 16 + across // 24) % 2)
    thermal = 70 + 0.2 * rows + 20 * np.cos(across / 17)
    body = (abs(columns - walker) < 6) & (abs(rows - 70) < 20)
    thermal = np.where(body, 220, thermal)
    visible = np.where(body, 40, visible)
    rng = np.random.default_rng(seed)
    noisy = (image + rng.normal(0, noise, size) for image in (visible, thermal))
    return tuple(np.uint8(np.clip(np.rint(image), 0, 255)) for image in noisy)


def levels(one, other):
    return np.abs(one.image.astype(float) - other.image)


def test_without_memory_or_without_reuse_a_pair_is_fused_as_ever(fuser):
    anew = fuser.fuse(*street())
    fuser.settings = replace(SETTINGS, gain_reuse=0)
    memory = VideoMemory()
    for _ in range(2):
        same = fuser.fuse(*street(), memory=memory)
        assert same.image.tobytes() == anew.image.tobytes()
        assert same.weights.tobytes() == anew.weights.tobytes()
        assert same.statistics.prior_calls == anew.statistics.prior_calls == 2
        assert memory.reused == 0


def test_a_scene_that_stands_still_does_not_flicker_and_spares_the_prior(fuser):
    memory = VideoMemory()
    results = [fuser.fuse(*street(), memory=memory) for _ in range(11)]
    assert len({result.image.tobytes() for result in results}) == 1
    assert results[0].image.tobytes() == fuser.fuse(*street()).image.tobytes()
    calls = [result.statistics.prior_calls for result in results]
    assert calls == [2, 0, 0, 0, 0, 2, 0, 0, 0, 0, 2]
    assert memory.reused == 0


def test_noise_is_no_motion_and_the_noise_of_now_stays_in_the_image(fuser):
    memory = VideoMemory()
    fuser.fuse(*street(noise=4), memory=memory)
    for seed in range(1, 4):
        pair = street(noise=4, seed=seed)
        result, anew = fuser.fuse(*pair, memory=memory), fuser.fuse(*pair)
        assert result.statistics.prior_calls == 0
        assert memory.reused == 1
        assert levels(result, anew).mean() < 0.5
        assert levels(result, anew).max() < 6


def test_what_moves_leaves_no_ghost(fuser):
    memory = VideoMemory()
    fuser.fuse(*street(walker=20), memory=memory)
    for walker in (30, 44, 60):
        pair = street(walker=walker)
        result, anew = fuser.fuse(*pair, memory=memory), fuser.fuse(*pair)
        assert 0.5 < memory.reused < 1
        error = levels(result, anew)
        assert error[45:95, 8:80].mean() < 3  # of a walker who stands out by more than 100
        assert error[:, 100:].mean() < 1


def test_a_camera_that_moves_is_fused_as_without_memory(fuser):
    memory = VideoMemory()
    for shift in (0, 6, 12, 18):
        pair = street(shift=shift)
        result, anew = fuser.fuse(*pair, memory=memory), fuser.fuse(*pair)
        assert result.image.tobytes() == anew.image.tobytes()
        assert memory.reused == 0


def test_slow_changes_add_up(fuser):
    fuser.settings = replace(SETTINGS, gain_reuse=1000)
    memory = VideoMemory()
    visible, thermal = street()
    calls = [
        fuser.fuse(visible, thermal + np.uint8(2 * step), memory=memory).statistics.prior_calls
        for step in range(5)
    ]
    assert calls == [2, 0, 2, 0, 2]


def test_what_is_cut_is_not_reused(fuser):
    memory = VideoMemory()
    fuser.fuse(*street(), memory=memory)
    memory.clear()
    assert fuser.fuse(*street(), memory=memory).statistics.prior_calls == 2
    assert fuser.fuse(*street(), memory=memory).statistics.prior_calls == 0


@pytest.mark.parametrize(
    'change',
    [{'first_timestep': 300}, {'num_inference_steps': 2}, {'prior_downscale': 2}],
    ids=str,
)
def test_other_estimates_are_made_anew(fuser, change):
    memory = VideoMemory()
    fuser.fuse(*street(), memory=memory)
    fuser.settings = replace(SETTINGS, **change)
    result, anew = fuser.fuse(*street(), memory=memory), fuser.fuse(*street())
    assert result.image.tobytes() == anew.image.tobytes()
    assert result.statistics.prior_calls == anew.statistics.prior_calls


def test_another_size_or_number_of_sources_begins_anew(fuser):
    memory = VideoMemory()
    visible, thermal = street()
    for images in ((visible, thermal), street(size=(96, 112)), (visible, thermal, thermal)):
        result, anew = fuser.fuse(*images, memory=memory), fuser.fuse(*images)
        assert result.image.tobytes() == anew.image.tobytes()
        assert result.statistics.prior_calls == len(images)


def test_weights_follow_their_settings_while_estimates_are_reused(fuser):
    memory = VideoMemory()
    fuser.fuse(*street(), memory=memory)
    fuser.settings = replace(SETTINGS, temperature=0.3)
    result, anew = fuser.fuse(*street(), memory=memory), fuser.fuse(*street())
    assert result.statistics.prior_calls == 0
    assert result.image.tobytes() == anew.image.tobytes()


@pytest.mark.parametrize(
    'change',
    [{'noise_draws': 1}, {'sampler': 'ddim'}],
    ids=str,
)
def test_where_noise_is_drawn_nothing_is_reused(fuser, change):
    fuser.settings = replace(SETTINGS, **change)
    memory = VideoMemory()
    anew = fuser.fuse(*street())
    for _ in range(2):
        result = fuser.fuse(*street(), memory=memory)
        assert result.image.tobytes() == anew.image.tobytes()
        assert result.statistics.prior_calls == anew.statistics.prior_calls


def test_the_coarsest_estimates_are_made_anew_as_soon_as_something_moves(fuser):
    fuser.settings = replace(SETTINGS, prior_downscale=4)
    memory = VideoMemory()
    fuser.fuse(*street(walker=20), memory=memory)
    assert fuser.fuse(*street(walker=20), memory=memory).statistics.prior_calls == 0
    pair = street(walker=40)
    result = fuser.fuse(*pair, memory=memory)
    assert result.image.tobytes() == fuser.fuse(*pair).image.tobytes()
