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

from dig2dig_ros import Fuser, FusionSettings
from fusion.priors import GaussianPrior

HEIGHT, WIDTH = 96, 128
SKY, ROAD = slice(0, 40), slice(56, 96)


@pytest.fixture(scope='module')
def fuser():
    settings = FusionSettings(visible_degradation='none', thermal_degradation='none')
    return Fuser(settings, prior=GaussianPrior(), device='cpu', precision='fp32')


def day(sky=200, road=100):
    """Return a bright sky over a road that is warm, with somebody on it."""
    texture = np.random.default_rng(0).integers(-20, 20, (HEIGHT, WIDTH))
    visible = np.full((HEIGHT, WIDTH), sky)
    visible[48:] = road + texture[48:]
    thermal = np.full((HEIGHT, WIDTH), 30)
    thermal[48:] = 120 + texture[:48]
    thermal[60:80, 60:68] = 240
    return visible.astype(np.uint8), thermal.astype(np.uint8)


def sky_of(image):
    return image[SKY].astype(float).mean()


def test_a_bright_sky_keeps_its_brightness_and_the_rest_stays(fuser):
    visible, thermal = day()
    by_weights = fuser(visible, thermal).image
    assert sky_of(by_weights) < 140
    kept = fuser(visible, thermal, visible_brightness=1).image
    np.testing.assert_allclose(kept[SKY].astype(int), 200, atol=1)
    np.testing.assert_array_equal(kept[ROAD], by_weights[ROAD])
    half = fuser(visible, thermal, visible_brightness=0.5).image
    assert sky_of(half) == pytest.approx((sky_of(by_weights) + 200) / 2, abs=1)


@pytest.mark.parametrize('sampler', ['increments', 'ddim'])
def test_it_holds_for_every_sampler(fuser, sampler):
    visible, thermal = day()
    kept = fuser(visible, thermal, sampler=sampler, visible_brightness=1).image
    assert sky_of(kept) == pytest.approx(200, abs=2)


def test_a_dark_sky_and_a_warm_one_stay_as_they_are(fuser):
    visible, thermal = day(sky=50)
    night = fuser(visible, thermal)
    assert (fuser(visible, thermal, visible_brightness=1).image == night.image).all()
    visible, thermal = day()
    warm = 255 - thermal
    as_weighed = fuser(visible, warm).image
    assert (fuser(visible, warm, visible_brightness=1).image[SKY] == as_weighed[SKY]).all()


def test_what_the_thermal_camera_sees_in_the_sky_stays_visible(fuser):
    visible, thermal = day()
    thermal[20, 30:90] = 60
    kept = fuser(visible, thermal, visible_brightness=1).image.astype(int)
    assert (kept[20, 40:80] - kept[14, 40:80]).min() >= 10


def test_weights_follow(fuser):
    visible, thermal = day()
    kept = fuser(visible, thermal, visible_brightness=1)
    as_weighed = fuser(visible, thermal)
    for name in ('weights', 'contributions'):
        planes = getattr(kept, name)
        np.testing.assert_allclose(planes.sum(axis=0), 1, atol=1e-5)
        np.testing.assert_allclose(planes[0][SKY], 1, atol=1e-5)
        np.testing.assert_array_equal(planes[:, ROAD], getattr(as_weighed, name)[:, ROAD])


def test_where_the_thermal_camera_is_not_trusted_nothing_changes(fuser):
    visible, thermal = day()
    as_weighed = fuser.fuse(visible, thermal, trust=(1, 0))
    settings = FusionSettings(visible_brightness=1)
    kept = fuser.fuse(visible, thermal, settings=settings, trust=(1, 0))
    np.testing.assert_array_equal(kept.image, as_weighed.image)
    np.testing.assert_array_equal(kept.image, visible)


def test_photographs_have_no_thermal_image(fuser):
    visible, other = day()
    as_weighed = fuser(visible, other, chroma='all').image
    kept = fuser(visible, other, chroma='all', visible_brightness=1).image
    np.testing.assert_array_equal(kept, as_weighed)
