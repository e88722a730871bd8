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
import torch

from dig2dig_ros.fusion.colour import luma, mixed_chroma, replace_luma


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
    assert torch.equal(replace_luma(image, new, luma(image)), result)


def test_result_is_clipped():
    image = torch.tensor([0.0, 0.5, 1.0]).view(3, 1, 1)
    assert replace_luma(image, torch.ones((1, 1))).max() == 1
    assert replace_luma(image, torch.zeros((1, 1))).min() == 0


def plain(blue, green, red, shape=(48, 64)):
    return torch.tensor([blue, green, red]).view(3, 1, 1).expand(3, *shape).clone()


def chroma(image):
    return image - luma(image)


def equal_weights(count, shape=(48, 64)):
    return torch.full((count, *shape), 1 / count)


def test_chroma_of_one_image_is_its_own():
    image = to_tensor(random_image())
    assert mixed_chroma([image], torch.zeros((2, 20, 30))) is image


def test_chroma_follows_weight_times_saturation():
    blue, red = plain(0.6, 0.2, 0.2), plain(0.4, 0.4, 0.6)  # saturated by 0.4 and 0.2
    weights = torch.stack([torch.full((48, 64), 0.25), torch.full((48, 64), 0.75)])
    mixed = mixed_chroma([blue, red], weights)
    expected = (0.25 * 0.4 * chroma(blue) + 0.75 * 0.2 * chroma(red)) / (0.25 * 0.4 + 0.75 * 0.2)
    torch.testing.assert_close(mixed, expected, atol=2e-3, rtol=0)
    assert luma(mixed).abs().max() < 1e-6


@pytest.mark.parametrize('weight', [1.0, 0.5, 0.0])
def test_a_grey_image_takes_no_colour_away(weight):
    colour, grey = plain(0.2, 0.3, 0.7), plain(0.5, 0.5, 0.5)
    weights = torch.stack([torch.full((48, 64), weight), torch.full((48, 64), 1 - weight)])
    mixed = mixed_chroma([colour, grey], weights)
    torch.testing.assert_close(mixed, chroma(colour))


def test_grey_images_stay_grey():
    images = [plain(x, x, x) for x in (0.0, 0.5, 1.0)]
    assert mixed_chroma(images, equal_weights(3)).abs().max() < 1e-6


def test_weights_of_images_without_a_say_are_ignored():
    images = [plain(0.6, 0.2, 0.2), plain(0.2, 0.2, 0.6)]
    weights = equal_weights(2)
    more = torch.cat([weights, torch.ones((1, 48, 64))])
    assert torch.equal(mixed_chroma(images, more), mixed_chroma(images, weights))


@pytest.mark.parametrize('shape', [(1, 1), (17, 33), (40, 50), (48, 64)])
def test_the_only_colour_is_kept_wherever_it_is(shape):
    height, width = shape
    grey = plain(0.5, 0.5, 0.5, shape)
    for row, column in (
        (0, 0),
        (height - 1, width - 1),
        (height // 2, width - 1),
        (min(15, height - 1), min(31, width - 1)),
    ):
        image = grey.clone()
        image[:, row, column] = torch.tensor([0.1, 0.5, 0.9])
        mixed = mixed_chroma([image, grey], equal_weights(2, shape))
        torch.testing.assert_close(mixed, chroma(image))


def test_a_clipped_spot_does_not_switch_between_exposures():
    """Where one exposure clips to white for some pixels, its surroundings still have a say."""
    first, second = plain(0.3, 0.4, 0.6), plain(0.3, 0.4, 0.6)
    second[:, 20:26, 30:36] = 1.0
    weights = torch.stack([torch.full((48, 64), 0.1), torch.full((48, 64), 0.9)])
    share = torch.linalg.vector_norm(mixed_chroma([first, second], weights), dim=0)
    share = share / torch.linalg.vector_norm(chroma(first), dim=0)
    assert share[:, :8].min() > 0.99
    # By the saturation of single pixels it would be 1, whatever the fusion chose there.
    assert share[20:26, 30:36].max() < 0.3


def test_the_fringes_of_a_blurred_image_do_not_spread():
    """Beside a saturated object the blurred image is the more saturated one, but is not chosen."""
    sharp = plain(0.5, 0.5, 0.5)
    sharp[:, :, 24:40] = torch.tensor([0.1, 0.1, 0.9]).view(3, 1, 1)
    blurred = np.ascontiguousarray(sharp.permute(1, 2, 0).numpy())
    blurred = torch.from_numpy(cv2.GaussianBlur(blurred, (0, 0), 3)).permute(2, 0, 1)
    weights = torch.stack([torch.full((48, 64), 0.95), torch.full((48, 64), 0.05)])
    mixed = mixed_chroma([sharp, blurred], weights)
    error = (mixed - chroma(sharp)).abs().amax(dim=0)
    fringe = (chroma(blurred) - chroma(sharp)).abs().amax(dim=0)
    assert error[:, 18:46].max() < 0.1 * fringe[:, 18:46].max()
