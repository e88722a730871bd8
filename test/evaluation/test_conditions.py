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

from dig2dig_ros.evaluation.conditions import (
    Condition,
    ConditionError,
    NAMES,
    parse_conditions,
    SEVERITIES,
)

EVERY = parse_conditions('all:each')
SPOILT = EVERY[1:]
BOTH = {'both_noise'}
VISIBLE = {'visible_noise', 'night_shot', 'dark', 'glare', 'fog', 'black_visible'}


def scene(colour: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Return a visible image of (48, 64, 3) or (48, 64), and a thermal one with a person."""
    rows, columns = np.mgrid[:48, :64]
    grey = (60 + columns + 40 * ((rows // 8 + columns // 8) % 2)).astype(np.uint8)
    thermal = (50 + rows).astype(np.uint8)
    thermal[16:40, 28:36] = 220
    if not colour:
        return grey, thermal
    return np.stack([grey, grey[::-1], 255 - grey], axis=2), thermal


def mean_change(condition: Condition, source: int) -> float:
    images = scene()
    changed = condition.apply(*images, 'street')[source]
    return float(np.abs(changed.astype(float) - images[source]).mean())


def test_all_is_every_name_once_and_each_its_severities():
    assert [condition.name for condition in parse_conditions('all')] == list(NAMES)
    assert len(EVERY) == 1 + 3 * (len(NAMES) - 1)
    assert [
        str(condition) for condition in parse_conditions(' fog:mild, clean,fog:mild ,dark')
    ] == [
        'fog:mild',
        'clean',
        'dark:medium',
    ]
    assert all(parse_conditions(str(condition)) == [condition] for condition in EVERY)


@pytest.mark.parametrize('text', ['rain', 'fog:bad', 'clean:mild', '', ' , ', 'fog:'])
def test_what_is_unknown_is_refused_with_what_is_known(text: str):
    with pytest.raises(ConditionError, match=r'clean|severe'):
        parse_conditions(text)


@pytest.mark.parametrize('condition', EVERY, ids=str)
def test_shapes_and_types_stay_and_the_image_decides_on_chance(condition: Condition):
    for colour in (True, False):
        images = scene(colour)
        first = condition.apply(*images, 'street')
        again = condition.apply(*images, 'street')
        for before, after, same in zip(images, first, again, strict=True):
            assert after.shape == before.shape
            assert after.dtype == np.uint8
            np.testing.assert_array_equal(after, same)


@pytest.mark.parametrize('condition', SPOILT, ids=str)
def test_only_the_cameras_it_befalls_change(condition: Condition):
    images = scene()
    seen = condition.apply(*images, 'street')
    befallen = (
        condition.name in BOTH | VISIBLE,
        condition.name in BOTH or condition.name not in VISIBLE,
    )
    for before, after, changes, source in zip(
        images, seen, befallen, ('visible', 'thermal'), strict=True
    ):
        assert (after is not before) == changes == bool(condition.spoils(source))


@pytest.mark.parametrize('name', NAMES[1:])
def test_severities_are_worse_one_after_the_other(name: str):
    changes = [
        sum(mean_change(Condition(name, severity), source) for source in (0, 1))
        for severity in SEVERITIES
    ]
    if name not in ('black_visible', 'dead_thermal'):  # which show nothing of the scene anyway
        assert changes == sorted(changes)
    assert len({Condition(name, severity).meaning for severity in SEVERITIES}) == 3


def test_noise_has_its_deviation_and_differs_from_image_to_image():
    flat = np.full((128, 128, 3), 120, np.uint8)
    flat[0, 0] = (119, 120, 121)  # in colour
    (condition,) = parse_conditions('visible_noise:medium')
    first, thermal = condition.apply(flat, flat[..., 0], 'a')
    other, _ = condition.apply(flat, flat[..., 0], 'b')
    assert abs(first.astype(float) - 120).max() > 50
    assert first.std() == pytest.approx(25, abs=0.5)
    assert (first != other).mean() > 0.9
    assert (thermal == 120).mean() > 0.999


def test_both_cameras_have_noise_of_their_own():
    flat = np.full((64, 64), 120, np.uint8)
    visible, thermal = Condition('both_noise', 'medium').apply(flat, flat, 'a')
    assert abs(np.corrcoef(visible.ravel(), thermal.ravel())[0, 1]) < 0.1


def test_noise_gives_no_colour_to_grey_images():
    grey = np.repeat(scene(colour=False)[0][..., None], 3, axis=2)
    for name in ('visible_noise', 'night_shot', 'dark'):
        seen, _ = Condition(name, 'severe').apply(grey, grey[..., 0], 'street')
        assert (seen == seen[..., :1]).all()


def test_a_night_shot_keeps_the_brightness_and_has_noise_of_photons_and_readout():
    condition = Condition('night_shot', 'mild')  # white is 40 photons
    for level in (128, 160):
        image = np.full((128, 128), level, np.uint8)
        seen = condition.apply(image, image, 'a')[0].astype(float)
        assert seen.mean() == pytest.approx(level, rel=0.02)
        photons = 40 * level / 255
        # A count of n photons deviates by the root of n.
        assert seen.std() == pytest.approx(255 / 40 * (photons + 4**2) ** 0.5, rel=0.05)


def test_the_thermal_image_moves_by_whole_pixels():
    visible, thermal = scene()
    moved = Condition('shift', 'severe').apply(visible, thermal, 'street')[1]
    np.testing.assert_array_equal(moved[:, 8:], thermal[:, :-8])


def test_images_of_another_kind_are_refused():
    visible, thermal = scene()
    with pytest.raises(ValueError, match='uint16'):
        Condition('clean').apply(visible, thermal.astype(np.uint16), 'street')
    with pytest.raises(ValueError, match='uint8'):
        Condition('clean').apply(visible[..., :2], thermal, 'street')


def test_what_two_conditions_do_alike_has_one_word_and_one_image():
    noise, both = (Condition(name, 'severe') for name in ('thermal_noise', 'both_noise'))
    assert noise.spoils('thermal') == both.spoils('thermal')
    images = [condition.apply(*scene(), 'street')[1] for condition in (noise, both)]
    np.testing.assert_array_equal(*images)
