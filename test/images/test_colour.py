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
import torch

from dig2dig_ros.images.colour import luma, replace_luma


def random_image():
    rng = np.random.default_rng(0)
    return rng.integers(60, 190, (20, 30, 3), dtype=np.uint8)


def to_tensor(image):
    return torch.from_numpy(image).permute(2, 0, 1).float() / 255


def test_luma_is_that_of_opencv():
    image = random_image()
    expected = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    np.testing.assert_allclose(luma(to_tensor(image)) * 255, expected, atol=0.51)


def test_new_luma_is_taken_and_chroma_kept():
    image = to_tensor(random_image())
    new = luma(image) * 0.5 + 0.2
    result = replace_luma(image, new)
    torch.testing.assert_close(luma(result), new)
    torch.testing.assert_close(result[0] - luma(result), image[0] - luma(image))
    torch.testing.assert_close(result[2] - luma(result), image[2] - luma(image))


def test_result_is_clipped():
    image = torch.tensor([0.0, 0.5, 1.0]).view(3, 1, 1)
    assert replace_luma(image, torch.ones((1, 1))).max() == 1
    assert replace_luma(image, torch.zeros((1, 1))).min() == 0
