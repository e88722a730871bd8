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

"""Lens models, compared with what OpenCV makes of points in space."""

from __future__ import annotations

import math
from types import SimpleNamespace

import cv2
from images.cameras import (
    camera,
    DISTORTIONS,
    inside,
    pixels_of,
    project,
    VISIBLE_SIZE,
)
import numpy as np
import pytest

from dig2dig_ros.images.camera_model import CameraModel
from dig2dig_ros.images.geometry import RegistrationError

# Lenses


@pytest.mark.parametrize('model', DISTORTIONS)
def test_distortion_is_that_of_opencv_and_can_be_undone(model: str) -> None:
    lens = camera(model, VISIBLE_SIZE, 0.7)
    pixels = pixels_of(VISIBLE_SIZE)
    ideal = lens.undistorted(pixels)
    rays = (ideal - lens.matrix[:2, 2]) / np.diag(lens.matrix)[:2]
    directions = np.column_stack([rays, np.ones(len(rays))])
    np.testing.assert_allclose(project(lens, directions), pixels, atol=1e-6)
    np.testing.assert_allclose(lens.distorted(ideal), pixels, atol=1e-6)
    moved = np.abs(ideal - pixels).max()
    assert moved == 0 if model == 'none' else moved > 1.0


def test_a_wide_fisheye_sees_what_is_in_front_of_it_only() -> None:
    # 120 degrees to either side at the left and right: beyond 90, no ideal pixel exists.
    lens = CameraModel(
        np.array([[15.0, 0, 31.5], [0, 15.0, 23.5], [0, 0, 1]]),
        np.zeros(4),
        'equidistant',
        VISIBLE_SIZE,
    )
    pixels = pixels_of(VISIBLE_SIZE)
    angle = np.hypot(*(pixels - (31.5, 23.5)).T) / 15.0
    seen = ~np.isnan(lens.undistorted(pixels)).any(axis=1)
    np.testing.assert_array_equal(seen, angle < math.atan(100))
    assert 0 < seen.sum() < len(seen)


@pytest.mark.parametrize('tangential', [0.0, 0.01])
def test_what_a_lens_folds_back_is_not_seen(tangential: float) -> None:
    # Rises up to an ideal radius of sqrt(2 / 3), to 0.544 in the image, and then falls.
    lens = CameraModel(
        np.array([[40.0, 0, 31.5], [0, 40.0, 23.5], [0, 0, 1]]),
        np.array([-0.5, 0, tangential, 0, 0]),
        'plumb_bob',
        VISIBLE_SIZE,
    )
    # OpenCV shows a point far out in the middle of the image.
    ghost = np.array([[1.35, 0.0, 1.0]])
    assert inside(project(lens, ghost), VISIBLE_SIZE).all()
    assert np.isnan(lens.distorted(ghost[:, :2] * 40 + (31.5, 23.5))).all()
    pixels = pixels_of(VISIBLE_SIZE)
    ideal = lens.undistorted(pixels)
    seen = ~np.isnan(ideal).any(axis=1)
    radius = np.hypot(*(pixels - (31.5, 23.5)).T) / 40
    slack = 3 * tangential
    assert seen[radius < 0.54 - slack].all()
    assert not seen[radius > 0.545 + slack].any()
    assert np.hypot(*(ideal[seen] - (31.5, 23.5)).T).max() / 40 < math.sqrt(2 / 3)
    np.testing.assert_allclose(lens.distorted(ideal[seen]), pixels[seen], atol=1e-6)


def test_extreme_coefficients_never_give_a_wrong_answer() -> None:
    random = np.random.default_rng(1)
    matrix = np.array([[30.0, 0, 31.5], [0, 30.0, 23.5], [0, 0, 1]])
    pixels = pixels_of(VISIBLE_SIZE)
    for model, number in (('plumb_bob', 5), ('rational_polynomial', 8), ('equidistant', 4)):
        for _ in range(20):
            lens = CameraModel(matrix, random.normal(0, 0.4, number), model, VISIBLE_SIZE)
            ideal = lens.undistorted(pixels)
            seen = ~np.isnan(ideal).any(axis=1)
            assert seen[24 * 64 + 32]
            assert np.isfinite(ideal[seen]).all()
            np.testing.assert_allclose(lens.distorted(ideal[seen]), pixels[seen], atol=1e-5)


# Cameras from messages and their errors


def camera_info(**changes: object) -> SimpleNamespace:
    values = {
        'k': [50.0, 0, 31, 0, 51, 23, 0, 0, 1],
        'd': [-0.2, 0.1, 0, 0, 0],
        'distortion_model': 'plumb_bob',
        'width': 64,
        'height': 48,
        'p': [44.0, 0, 30, 0, 0, 45, 22, 0, 0, 0, 1, 0],
        'r': [1.0, 0, 0, 0, 1, 0, 0, 0, 1],
    }
    return SimpleNamespace(**{**values, **changes})


def test_a_real_camera_info_becomes_a_camera() -> None:
    messages = pytest.importorskip('sensor_msgs.msg')
    model = CameraModel.from_camera_info(messages.CameraInfo(**vars(camera_info())))
    assert (model.model, model.size) == ('plumb_bob', (64, 48))
    np.testing.assert_array_equal(model.matrix, [[50, 0, 31], [0, 51, 23], [0, 0, 1]])
    np.testing.assert_array_equal(model.distortion, [-0.2, 0.1, 0, 0, 0])
    with pytest.raises(RegistrationError, match='not calibrated'):
        CameraModel.from_camera_info(messages.CameraInfo(width=64, height=48))
    for rectified in (False, True):
        with pytest.raises(RegistrationError, match='not calibrated'):
            CameraModel.from_camera_info(messages.CameraInfo(), rectified)


def test_a_rectified_image_has_the_projection_and_no_distortion() -> None:
    model = CameraModel.from_camera_info(camera_info(), rectified=True)
    np.testing.assert_array_equal(model.matrix, [[44, 0, 30], [0, 45, 22], [0, 0, 1]])
    np.testing.assert_array_equal(model.undistorted([[3, 4]]), [[3, 4]])


def test_drivers_write_no_distortion_in_many_ways() -> None:
    pixels = pixels_of(VISIBLE_SIZE)
    for model, values in (
        ('', []),
        ('', [0.0] * 5),
        ('none', [0.0] * 8),
        ('plumb_bob', []),
        ('plumb_bob', [0.0] * 4),
        ('plumb_bob', [0.0] * 14),
        ('rational_polynomial', []),
    ):
        lens = CameraModel.from_camera_info(camera_info(distortion_model=model, d=values))
        np.testing.assert_array_equal(lens.undistorted(pixels), pixels)
        np.testing.assert_array_equal(lens.distorted(pixels), pixels)


@pytest.mark.parametrize(
    ('changes', 'text'),
    [
        ({'k': [0.0] * 9}, 'not calibrated .*: calibrate it'),
        ({'k': [50.0] * 8}, 'has 8 values, not 9'),
        ({'k': [np.nan, 0, 31, 0, 51, 23, 0, 0, 1]}, 'camera matrix has numbers .* not finite'),
        ({'k': [-50.0, 0, 31, 0, 51, 23, 0, 0, 1]}, 'focal lengths above 0'),
        ({'k': [50.0, 0, 31, 0, 0, 23, 0, 0, 1]}, 'focal lengths above 0'),
        ({'k': [50.0, 3, 31, 0, 51, 23, 0, 0, 1]}, r'\[fx, 0, cx\]'),
        ({'width': 0}, 'its size is 0x48 pixels: have the driver set the size'),
        ({'distortion_model': 'bent'}, "model 'bent' is unknown: .* plumb_bob"),
        ({'d': [np.inf, 0, 0, 0]}, 'coefficients .* must be finite'),
        ({'d': [0.1, 0.1]}, "'plumb_bob' has 4 or 5 coefficients, not 2"),
        ({'d': [0.1] * 8}, "'plumb_bob' has 4 or 5 coefficients, not 8"),
        ({'distortion_model': '', 'd': [0.1] * 5}, "'none' has 0 coefficients"),
        ({'distortion_model': 'equidistant', 'd': []}, "'equidistant' has 4 coefficients"),
    ],
)
def test_a_camera_info_that_makes_no_sense_is_refused(
    changes: dict[str, object], text: str
) -> None:
    with pytest.raises(RegistrationError, match=text):
        CameraModel.from_camera_info(camera_info(**changes))


def region(x: int, y: int, width: int, height: int, do_rectify: bool = False) -> SimpleNamespace:
    return SimpleNamespace(
        x_offset=x, y_offset=y, width=width, height=height, do_rectify=do_rectify
    )


@pytest.mark.parametrize('rectified', [False, True])
@pytest.mark.parametrize(
    ('window', 'binning'),
    [
        ((0, 0, 0, 0), (0, 0)),
        ((0, 0, 64, 48), (1, 1)),
        ((20, 12, 24, 18), (1, 1)),
        ((20, 12, 0, 0), (0, 0)),
        ((0, 0, 0, 0), (2, 2)),
        ((20, 12, 24, 18), (2, 3)),
        ((1, 3, 63, 45), (4, 4)),
    ],
)
def test_a_region_of_interest_and_binning_show_the_same_rays(
    window: tuple[int, int, int, int], binning: tuple[int, int], rectified: bool
) -> None:
    full = CameraModel.from_camera_info(camera_info(), rectified)
    changes = {'roi': region(*window), 'binning_x': binning[0], 'binning_y': binning[1]}
    part = CameraModel.from_camera_info(camera_info(**changes), rectified)
    (x, y, width, height), step = window, np.maximum(binning, 1)
    width, height = width or 64 - x, height or 48 - y
    assert part.size == (width // step[0], height // step[1])
    # What a pixel of the part shows is what the middle of its block in the full image shows.
    pixels = pixels_of(part.size)
    blocks = pixels * step + (step - 1) / 2 + (x, y)
    rays = [
        (model.undistorted(points) - model.matrix[:2, 2]) / model.focal_lengths
        for model, points in ((part, pixels), (full, blocks))
    ]
    np.testing.assert_allclose(*rays, atol=1e-9)


@pytest.mark.parametrize(
    ('changes', 'text'),
    [
        ({'roi': region(50, 0, 20, 10)}, r'its roi, 20x10 pixels at \(50, 0\), .* the 64x48 of'),
        ({'roi': region(64, 0, 0, 0)}, r'its roi, 0x48 pixels at \(64, 0\)'),
        ({'binning_x': 65}, 'its binning of 65x1 leaves nothing of 64x48 pixels'),
        ({'binning_y': 2**32 - 1}, 'its binning of 1x4294967295 leaves nothing'),
    ],
)
def test_a_window_that_is_none_is_refused(changes: dict[str, object], text: str) -> None:
    with pytest.raises(RegistrationError, match=text):
        CameraModel.from_camera_info(camera_info(**changes))


def test_binning_may_leave_a_single_column() -> None:
    assert CameraModel.from_camera_info(camera_info(binning_x=64)).size == (1, 48)


def test_a_camera_rectified_for_stereo_is_refused() -> None:
    turned = cv2.Rodrigues(np.array([0.0, 0.02, 0.0]))[0].ravel()
    with pytest.raises(RegistrationError, match='stereo'):
        CameraModel.from_camera_info(camera_info(r=turned), rectified=True)
    with pytest.raises(RegistrationError, match='not calibrated'):
        CameraModel.from_camera_info(camera_info(p=[0.0] * 12), rectified=True)
