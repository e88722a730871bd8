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

"""Which registration holds, from a file or from camera_info."""

from types import SimpleNamespace

import numpy as np
import pytest

from dig2dig_ros.images.geometry import RegistrationError
from dig2dig_ros.images.registration import Registration
from dig2dig_ros.images.registration_file import save_registration
from dig2dig_ros.streams.registrar import Registrar

VISIBLE, THERMAL = (64, 48), (32, 24)
VALUES = {
    'thermal_to_visible': '',
    'extrinsics': '',
    'plane_distance': 10.0,
    'rectified': False,
    'registration_edge': 2.0,
    'max_pixels': 1_000_000,
}


def camera_info(size, focal, frame='camera', distortion=(), roi=(0, 0, 0, 0), binning=(0, 0)):
    width, height = size
    x, y, roi_width, roi_height = roi
    return SimpleNamespace(
        header=SimpleNamespace(frame_id=frame),
        width=width,
        height=height,
        distortion_model='plumb_bob',
        d=list(distortion),
        r=[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
        p=[focal, 0.0, width / 2, 0.0, 0.0, focal, height / 2, 0.0, 0.0, 0.0, 1.0, 0.0],
        k=[focal, 0.0, (width - 1) / 2, 0.0, focal, (height - 1) / 2, 0.0, 0.0, 1.0],
        binning_x=binning[0],
        binning_y=binning[1],
        roi=SimpleNamespace(
            x_offset=x, y_offset=y, width=roi_width, height=roi_height, do_rectify=False
        ),
    )


@pytest.fixture
def extrinsics(tmp_path):
    path = tmp_path / 'extrinsics.yaml'
    path.write_text('rpy_degrees: [0, 0, 0]\ntranslation: [0.1, 0, 0]\n')
    return {**VALUES, 'extrinsics': str(path)}


def test_without_parameters_the_images_are_aligned():
    registrar = Registrar(VALUES)
    assert not registrar.wants_camera_info
    assert registrar(VISIBLE, THERMAL, VALUES) is None


def test_a_file_places_the_thermal_image(tmp_path):
    path = tmp_path / 'registration.yaml'
    save_registration(Registration(np.diag([2.0, 2.0, 1.0]), THERMAL, VISIBLE), path)
    values = {**VALUES, 'thermal_to_visible': str(path)}
    registrar = Registrar(values)
    placement = registrar(VISIBLE, THERMAL, values)
    assert placement.grid.shape == (48, 64, 2)
    assert registrar(VISIBLE, THERMAL, values) is placement
    softer = registrar(VISIBLE, THERMAL, {**values, 'registration_edge': 8.0})
    assert softer is not placement
    with pytest.raises(RegistrationError, match='64x48'):
        registrar(VISIBLE, VISIBLE, values)


@pytest.mark.parametrize(
    ('changes', 'reason'),
    [
        ({'thermal_to_visible': 'a.yaml', 'extrinsics': 'b.yaml'}, 'leave one empty'),
        ({'thermal_to_visible': 'missing.yaml'}, 'missing.yaml'),
        ({'extrinsics': 'missing.yaml'}, 'missing.yaml'),
        ({'extrinsics': 'tf'}, 'needs a running node'),
    ],
)
def test_what_cannot_be_used_is_said_at_once(changes, reason):
    with pytest.raises(RegistrationError, match=reason):
        Registrar({**VALUES, **changes})


def test_camera_info_and_extrinsics_make_the_homography(extrinsics):
    registrar = Registrar(extrinsics)
    assert registrar.wants_camera_info
    with pytest.raises(RegistrationError, match='no visible/camera_info has come yet'):
        registrar(VISIBLE, THERMAL, extrinsics)
    registrar.camera_info('visible', camera_info(VISIBLE, 50.0))
    with pytest.raises(RegistrationError, match='no thermal/camera_info'):
        registrar(VISIBLE, THERMAL, extrinsics)
    registrar.camera_info('thermal', camera_info(THERMAL, 25.0))
    near = registrar.registration(extrinsics)
    # The thermal camera is 0.1 m to the right: at 10 m that is half a pixel of the visible one.
    np.testing.assert_allclose(near.to_visible([[15.5, 11.5]]), [[32.0, 23.5]], atol=1e-6)
    assert registrar.registration(extrinsics) is near
    far = registrar.registration({**extrinsics, 'plane_distance': 1e6})
    np.testing.assert_allclose(far.to_visible([[15.5, 11.5]]), [[31.5, 23.5]], atol=1e-4)


def test_the_same_camera_info_again_changes_nothing_and_another_one_does(extrinsics):
    registrar = Registrar(extrinsics)
    registrar.camera_info('visible', camera_info(VISIBLE, 50.0))
    registrar.camera_info('thermal', camera_info(THERMAL, 25.0))
    first = registrar.registration(extrinsics)
    registrar.camera_info('thermal', camera_info(THERMAL, 25.0))
    assert registrar.registration(extrinsics) is first
    registrar.camera_info('thermal', camera_info(THERMAL, 30.0))
    assert registrar.registration(extrinsics) is not first


def test_a_region_of_interest_and_binning_are_part_of_the_geometry(extrinsics):
    values = {**extrinsics, 'plane_distance': 1e6}
    registrar = Registrar(values)
    # Twice the resolution and more around it, of which the images are a part, binned.
    window = {'roi': (30, 20, 128, 96), 'binning': (2, 2)}
    registrar.camera_info('visible', camera_info((200, 150), 100.0, 'a', **window))
    registrar.camera_info('thermal', camera_info(THERMAL, 25.0, 'b'))
    # The axis, at pixel (99.5, 74.5), lies 69.5 and 54.5 pixels into the part.
    seen = registrar.registration(values).to_visible([[15.5, 11.5]])
    np.testing.assert_allclose(seen, [[34.5, 27.0]], atol=1e-3)
    assert registrar(VISIBLE, THERMAL, values).coverage.shape == (48, 64)
    moved = {**window, 'roi': (50, 20, 128, 96)}
    registrar.camera_info('visible', camera_info((200, 150), 100.0, 'a', **moved))
    seen = registrar.registration(values).to_visible([[15.5, 11.5]])
    np.testing.assert_allclose(seen, [[24.5, 27.0]], atol=1e-3)


def test_images_that_are_not_the_window_are_refused_with_its_name(extrinsics):
    registrar = Registrar(extrinsics)
    window = {'roi': (8, 4, 48, 40), 'binning': (2, 1)}
    registrar.camera_info('visible', camera_info(VISIBLE, 50.0, 'a', **window))
    registrar.camera_info('thermal', camera_info(THERMAL, 25.0, 'b'))
    registrar((24, 40), THERMAL, extrinsics)
    wanted = (
        r'visible/camera_info is for 24x40 pixels \(its roi, 48x40 at \(8, 4\) of 64x48, binned '
        r'2x1\), but the images have 64x48: have the driver set roi and binning'
    )
    with pytest.raises(RegistrationError, match=wanted):
        registrar(VISIBLE, THERMAL, extrinsics)
    with pytest.raises(RegistrationError, match='thermal/camera_info is for 32x24 pixels, but'):
        registrar((24, 40), VISIBLE, extrinsics)


@pytest.mark.parametrize('source', ['visible', 'thermal'])
def test_a_size_beyond_max_pixels_is_refused_before_it_takes_memory(source, extrinsics, tmp_path):
    sizes = {'visible': VISIBLE, 'thermal': THERMAL, source: (65_000, 65_000)}
    registrar = Registrar(extrinsics)
    for name, size in sizes.items():
        registrar.camera_info(name, camera_info(size, 50.0, name))
    path = tmp_path / 'registration.yaml'
    matrix = np.diag([*np.divide(sizes['visible'], sizes['thermal']).clip(0.1, 10), 1.0])
    save_registration(Registration(matrix, sizes['thermal'], sizes['visible']), path)
    of_file = {**VALUES, 'thermal_to_visible': str(path)}
    for made, values in ((registrar, extrinsics), (Registrar(of_file), of_file)):
        wanted = f'{source} images of 65000x65000, which is more than max_pixels, 1000000'
        with pytest.raises(RegistrationError, match=wanted):
            made(sizes['visible'], sizes['thermal'], values)
        assert made.visible_size(values) is None


def from_tf(visible, thermal, pose):
    values = {**VALUES, 'extrinsics': 'tf'}
    registrar = Registrar(values, lambda target, source: pose)
    registrar.camera_info('visible', camera_info(VISIBLE, 50.0, visible))
    registrar.camera_info('thermal', camera_info(THERMAL, 25.0, thermal))
    registrar.registration(values)
    return registrar.doubts


def test_frames_that_tell_nothing_of_the_cameras_are_said():
    beside = np.eye(3), np.array([0.1, 0.0, 0.0])
    still = np.eye(3), np.zeros(3)
    assert from_tf('eye_optical_frame', 'heat_optical', beside) == ()
    assert from_tf('rig/eye_optical_frame', 'heat', beside) == ()
    (said,) = from_tf('camera_optical_frame', 'camera_optical_frame', still)
    assert "both camera_info have frame 'camera_optical_frame'" in said
    (said,) = from_tf('eye_optical_frame', 'heat_optical_frame', still)
    assert "tf puts 'heat_optical_frame' exactly where 'eye_optical_frame' is" in said
    (said,) = from_tf('eye_link', 'heat_link', beside)
    assert "neither 'eye_link' nor 'heat_link' is named like one" in said
    assert len(from_tf('camera', 'camera', still)) == 2


def test_a_pose_from_a_file_may_be_none_and_in_any_frame(extrinsics, tmp_path):
    path = tmp_path / 'same.yaml'
    path.write_text('rpy_degrees: [0, 0, 0]\ntranslation: [0, 0, 0]\n')
    values = {**VALUES, 'extrinsics': str(path)}
    registrar = Registrar(values)
    registrar.camera_info('visible', camera_info(VISIBLE, 50.0))
    registrar.camera_info('thermal', camera_info(THERMAL, 25.0))
    registrar.registration(values)
    assert registrar.doubts == ()
    registrar.camera_info('thermal', camera_info(VISIBLE, 50.0))
    registrar.registration(values)
    assert 'are the same: remap each' in registrar.doubts[0]


def test_a_camera_that_is_not_calibrated_is_named(extrinsics):
    registrar = Registrar(extrinsics)
    registrar.camera_info('visible', camera_info(VISIBLE, 50.0))
    registrar.camera_info('thermal', camera_info(THERMAL, 0.0))
    with pytest.raises(RegistrationError, match='thermal/camera_info'):
        registrar(VISIBLE, THERMAL, extrinsics)


def test_the_pose_may_come_from_elsewhere():
    values = {**VALUES, 'extrinsics': 'tf'}
    asked = []

    def look_up(target, source):
        asked.append((target, source))
        return np.eye(3), np.array([0.1, 0.0, 0.0])

    registrar = Registrar(values, look_up)
    registrar.camera_info('visible', camera_info(VISIBLE, 50.0, 'eye'))
    registrar.camera_info('thermal', camera_info(THERMAL, 25.0, 'heat'))
    registration = registrar.registration(values)
    np.testing.assert_allclose(registration.to_visible([[15.5, 11.5]]), [[32.0, 23.5]], atol=1e-6)
    assert asked == [('eye', 'heat')]


def test_of_rectified_images_the_projection_counts(extrinsics):
    values = {**extrinsics, 'rectified': True}
    registrar = Registrar(values)
    registrar.camera_info('visible', camera_info(VISIBLE, 50.0, distortion=[-0.3]))
    registrar.camera_info('thermal', camera_info(THERMAL, 25.0, distortion=[-0.2]))
    registration = registrar.registration({**values, 'plane_distance': 1e6})
    # The principal points are half a pixel further than in the raw images.
    np.testing.assert_allclose(registration.to_visible([[16.0, 12.0]]), [[32.0, 24.0]], atol=1e-3)


def test_diagnostics_tell_where_the_registration_is_from_and_its_parallax(extrinsics):
    assert 'aligned' in Registrar(VALUES).describe(VALUES)
    registrar = Registrar(extrinsics)
    assert 'waits' in registrar.describe(extrinsics)
    registrar.camera_info('visible', camera_info(VISIBLE, 50.0))
    registrar.camera_info('thermal', camera_info(THERMAL, 25.0))
    registrar.registration(extrinsics)
    # 5 px m of baseline: 2.5 at 2 m and 1 at 5 m, of which 0.5 are taken off.
    assert 'right at 10 m (off by 2.0 px at 2 m, 0.5 px at 5 m, 0.5 px at inf m)' in (
        registrar.describe(extrinsics)
    )


def test_diagnostics_are_whole_where_nothing_so_near_is_seen_by_both(tmp_path):
    path = tmp_path / 'ahead.yaml'
    path.write_text('translation: [0.1, 0.0, 3.0]\nrpy_degrees: [0, 0, 0]\n')
    values = {**VALUES, 'extrinsics': str(path), 'plane_distance': 10.0}
    registrar = Registrar(values)
    registrar.camera_info('visible', camera_info(VISIBLE, 50.0))
    registrar.camera_info('thermal', camera_info(THERMAL, 25.0))
    registrar.registration(values)
    assert registrar.describe(values) == 'from camera_info, right at 10 m'


def test_a_path_may_begin_at_home(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    save_registration(Registration(np.eye(3), THERMAL, VISIBLE), tmp_path / 'registration.yaml')
    values = {**VALUES, 'thermal_to_visible': '~/registration.yaml'}
    assert Registrar(values).registration(values) is not None
