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

"""Images of two cameras without hardware: their loops, and what they remember."""

import numpy as np
import pytest

from dig2dig_ros.evaluation.camera_sources import loop_frames, PARAMETERS, StreetSource


@pytest.mark.parametrize(
    ('rates', 'frames'), [((30.0, 9.0), (160, 48)), ((10.0, 10.0), (56, 56)), ((0.1, 0.1), (1, 1))]
)
def test_a_loop_closes_for_both_cameras(rates, frames):
    assert loop_frames(*rates, 5.65) == frames


@pytest.mark.parametrize('rates', [(30.0, 9.0), (29.97, 8.7), (9.0, 60.0), (1.0, 0.3)])
def test_a_loop_shows_both_cameras_the_same_moment(rates):
    visible, thermal = loop_frames(*rates, 15.0)
    period = visible / rates[0]
    assert abs(thermal / rates[1] - period) < 0.06 / rates[1]


def street(**changed):
    values = {spec.name: spec.default for spec in PARAMETERS}
    return StreetSource({**values, **changed}, lambda pixels, encoding, source: pixels)


@pytest.mark.slow
def test_a_long_stream_repeats_a_bounded_number_of_images():
    cameras = street(width=64, height=48, visible_rate=200.0, thermal_rate=50.0)
    for _ in cameras.prepare():
        pass
    images = cameras.schedule()
    seen = {}
    for _ in range(1500):
        exposure, source, image = next(images)
        seen.setdefault((source, id(image)), []).append(exposure)
    visible = [times for (name, _), times in seen.items() if name == 'visible']
    assert len(visible) == 600
    period = 3.0
    for times in seen.values():
        np.testing.assert_allclose(np.diff(times), period)
