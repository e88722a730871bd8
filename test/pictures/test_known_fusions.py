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

"""Pairs whose ideal fused image is known."""

import cv2
from known_fusions import (
    complementary_fusion,
    DEFECTS,
    known_fusions,
    PAIR_KINDS,
    scene_fusion,
)
import numpy as np
import pytest

from dig2dig_ros.evaluation.metrics import luma
from dig2dig_ros.evaluation.synthetic_scene import SyntheticScene
from dig2dig_ros.images.thermal_range import ThermalRange

WIDTH, HEIGHT = 160, 128


@pytest.fixture(scope='module')
def ideal():
    visible = SyntheticScene(WIDTH, HEIGHT, seed=2).render(1.0, noise=False).visible
    return np.sqrt(luma(visible) / 255).astype(np.float32)


@pytest.mark.parametrize('kind', PAIR_KINDS)
def test_pairs_have_one_shape_and_range_and_are_the_same_again(kind):
    pairs = list(known_fusions(kind, 3, WIDTH, HEIGHT, seed=1))
    again = list(known_fusions(kind, 3, WIDTH, HEIGHT, seed=1))
    assert len(pairs) == len({pair.name for pair in pairs}) == 3
    for pair, other in zip(pairs, again, strict=True):
        assert pair.sources.shape == (2, HEIGHT, WIDTH)
        assert pair.ideal.shape == (HEIGHT, WIDTH)
        assert len(pair.source_names) == 2
        for image in (pair.sources, pair.ideal):
            assert image.dtype == np.float32
            assert image.min() >= 0
            assert image.max() <= 1
        np.testing.assert_array_equal(pair.sources, other.sources)
        np.testing.assert_array_equal(pair.ideal, other.ideal)
    assert np.abs(pairs[0].ideal - pairs[1].ideal).mean() > 0.01


def test_people_of_the_ideal_are_warm_and_its_lit_places_are_visible():
    scene = SyntheticScene(WIDTH, HEIGHT, seed=2)
    pair = scene_fusion(scene, 1.0)
    visible, thermal = pair.sources
    people = scene.people(1.0) > 0.95
    assert people.sum() > 50
    # What is left of the difference is the sensors' noise.
    assert np.abs(pair.ideal - thermal)[people].mean() < 0.02
    assert np.abs(pair.ideal - visible)[people].mean() > 0.3
    light = cv2.GaussianBlur(visible, (0, 0), 6)
    lit = (light > 0.2) & (scene.people(1.0) == 0)
    dark = (light < 0.03) & ~people
    assert lit.sum() > 50
    assert dark.sum() > 50
    assert np.abs(pair.ideal - visible)[lit].mean() < 0.02
    assert np.abs(pair.ideal - thermal)[dark].mean() < 0.02


def test_ideal_lies_between_the_images_without_noise():
    scene = SyntheticScene(WIDTH, HEIGHT, seed=2)
    ranges = ThermalRange()
    ranges(scene.render(1.0).thermal, 0.0)
    clean = scene.render(1.0, noise=False)
    visible, thermal = luma(clean.visible) / 255, ranges(clean.thermal, 0.0)
    ideal = scene_fusion(scene, 1.0).ideal
    assert (ideal >= np.minimum(visible, thermal) - 1e-6).all()
    assert (ideal <= np.maximum(visible, thermal) + 1e-6).all()


@pytest.mark.parametrize('defect', DEFECTS)
def test_each_source_is_ideal_where_the_other_one_is_not(ideal, defect):
    pair = complementary_fusion(ideal, defect, seed=4)
    assert pair.ideal is ideal
    errors = np.abs(pair.sources - ideal)
    intact = errors < 1e-6
    # About half of the image each, and hardly a pixel that neither has intact.
    assert 0.3 < intact[0].mean() < 0.7
    assert 0.3 < intact[1].mean() < 0.7
    assert (intact[0] | intact[1]).mean() > 0.8
    assert errors[0][intact[1]].mean() > 0.005
    assert errors[1][intact[0]].mean() > 0.005
    other = complementary_fusion(ideal, defect, seed=5)
    assert np.abs(other.sources - pair.sources).mean() > 0.005


def test_unknown_kinds_are_refused(ideal):
    with pytest.raises(ValueError, match='noise'):
        complementary_fusion(ideal, 'noise', seed=0)
    with pytest.raises(ValueError, match='street'):
        list(known_fusions('street', 1, WIDTH, HEIGHT))
    with pytest.raises(ValueError, match='8x8'):
        list(known_fusions('scene', 1, 8, 8))
