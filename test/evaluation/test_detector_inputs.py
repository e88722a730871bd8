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
import cv2
import numpy as np
import pytest

from dig2dig_ros.evaluation.detector_inputs import detector_inputs, with_chroma_of


def test_inputs_of_a_detector() -> None:
    rng = np.random.default_rng(0)
    visible = rng.integers(90, 160, (24, 32, 3)).astype(np.uint8)
    thermal = rng.integers(90, 160, (24, 32)).astype(np.uint8)
    ours = rng.integers(0, 256, (24, 32, 3)).astype(np.uint8)
    names = ['mean', 'visible', 'fused', 'thermal', 'laplacian']
    images = detector_inputs(names, visible, thermal, {'fused': ours})
    assert list(images) == names
    assert images['visible'] is visible
    assert images['thermal'] is thermal
    assert images['fused'] is ours
    source = cv2.cvtColor(visible, cv2.COLOR_BGR2YCrCb).astype(int)
    for name in ('mean', 'laplacian'):
        fused = cv2.cvtColor(images[name], cv2.COLOR_BGR2YCrCb).astype(int)
        assert np.abs(fused[..., 1:] - source[..., 1:]).max() <= 1, name
    grey = detector_inputs(['mean'], np.full((4, 4), 10, np.uint8), np.full((4, 4), 21, np.uint8))
    assert grey['mean'].tolist() == [[16] * 4] * 4
    plain = detector_inputs(['peer'], visible, thermal, {'peer': thermal})['peer']
    np.testing.assert_array_equal(plain, with_chroma_of(visible, thermal.astype(np.float32)))
    with pytest.raises(ValueError, match='unknown input median: use one of visible, thermal'):
        detector_inputs(['median'], visible, thermal)
    with pytest.raises(ValueError, match='one shape'):
        detector_inputs(['mean'], visible, thermal[:-1])


def test_colour_is_given_as_the_fused_image_has_it() -> None:
    import torch

    from dig2dig_ros.fusion.colour import replace_luma

    rng = np.random.default_rng(1)
    visible = rng.integers(0, 256, (8, 9, 3)).astype(np.uint8)
    fused = rng.uniform(0, 255, (8, 9)).astype(np.float32)
    colour = torch.from_numpy(visible).permute(2, 0, 1) / 255
    expected = replace_luma(colour, torch.from_numpy(fused) / 255).permute(1, 2, 0) * 255
    assert np.abs(with_chroma_of(visible, fused) - expected.numpy()).max() <= 0.51
