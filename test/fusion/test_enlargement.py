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
import torch.nn.functional as F

from dig2dig_ros.evaluation.synthetic_scene import SyntheticScene
from dig2dig_ros.fusion.enlargement import enlarged, sharpened_for_enlargement


def enlarged_by(image, factor):
    return enlarged(image, image.shape[-2] * factor, image.shape[-1] * factor)


def test_images_are_enlarged_by_cubic_interpolation():
    torch.manual_seed(0)
    image = torch.rand(2, 7, 9)
    for size in ((28, 36), (7, 9), (20, 31), (8, 100)):
        expected = F.interpolate(image[None], size, mode='bicubic', align_corners=False)[0]
        torch.testing.assert_close(enlarged(image, *size), expected.clamp(0, 1))


def test_what_pixels_and_interpolation_dim_is_made_up_for():
    # Hardly anything in it is too fine for a quarter of the pixels.
    thermal = SyntheticScene(320, 256).render(1.0, noise=False).thermal.astype(np.float32)
    levels = (thermal - thermal.min()) / (thermal.max() - thermal.min())
    whole = torch.from_numpy(cv2.GaussianBlur(levels, (0, 0), 2.5))[None]
    small = F.avg_pool2d(whole, 4)

    def error(image):
        return (enlarged_by(image, 4) - whole).square().mean()

    assert error(sharpened_for_enlargement(small)) < 0.6 * error(small)


def test_waves_keep_their_contrast_up_to_where_it_is_halved():
    for frequency, least, most in ((0.05, 0.98, 1.02), (0.2, 0.93, 1.07), (0.45, 0.7, 0.95)):
        places = torch.arange(1024) / 8
        wave = 0.5 + 0.3 * torch.cos(2 * torch.pi * frequency * places)
        whole = wave.expand(1, 64, 1024)
        large = enlarged_by(sharpened_for_enlargement(F.avg_pool2d(whole, 8)), 8)
        middle = slice(300, 700)
        kept = ((large - 0.5) * (whole - 0.5))[..., middle].sum()
        kept = kept / (whole - 0.5).square()[..., middle].sum()
        assert least < kept < most, (frequency, kept)


def test_a_plain_image_stays_as_it_is_and_nothing_leaves_the_range():
    plain = torch.full((1, 5, 4), 0.3)
    torch.testing.assert_close(sharpened_for_enlargement(plain), plain)
    torch.manual_seed(0)
    sharp = sharpened_for_enlargement(torch.rand(2, 20, 30).round())
    assert sharp.shape == (2, 20, 30)
    assert 0 <= sharp.min() <= sharp.max() <= 1
