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

import numpy as np
import pytest
import torch

from dig2dig_ros.fusion.transfer import to_array, to_tensor

CPU = torch.device('cpu')


def images():
    random = np.random.default_rng(0)
    for shape in ((5, 7), (5, 7, 3)):
        yield random.integers(0, 256, shape, np.uint8)
        yield random.random(shape, np.float32)


@pytest.mark.parametrize('image', list(images()))
def test_pixels_stay_what_they_are(image):
    for given in (image, image[::-1], np.asfortranarray(image)):
        tensor = to_tensor(given, CPU)
        assert tensor.shape == given.shape
        np.testing.assert_array_equal(to_array(tensor), given)


def test_16_bits_keep_their_values_and_for_a_gpu_their_bits():
    image = np.array([[0, 1, 40000, 65535]], np.uint16)
    on_cpu = to_tensor(image, CPU)
    assert on_cpu.dtype == torch.float32
    np.testing.assert_array_equal(on_cpu.numpy(), image)
    for_cuda = to_tensor(image, torch.device('cuda'))
    np.testing.assert_array_equal(for_cuda.numpy().view(np.uint16), image)


def test_memory_that_must_not_change_is_copied():
    image = np.zeros((4, 4), np.float32)
    image.flags.writeable = False
    tensor = to_tensor(image, CPU)
    tensor += 1
    assert (image == 0).all()
