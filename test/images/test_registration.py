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

"""
Geometry of two cameras, compared with what OpenCV makes of points in space.

Frames are optical: x right, y down, z forward; X_visible = R @ X_thermal + t.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
import re
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from dig2dig_ros.images.placement import Placement
from dig2dig_ros.images.registration import (
    CameraModel,
    load_extrinsics,
    plane_error,
    Registration,
    RegistrationError,
    rotation_of_quaternion,
)

VISIBLE_SIZE, THERMAL_SIZE = (64, 48), (40, 30)
DISTORTIONS = {
    'none': (),
    'plumb_bob': (-0.3, 0.12, 2e-3, -1e-3, -0.02),
    'rational_polynomial': (0.6, 0.2, 1e-3, -2e-3, 0.01, 0.9, 0.3, 0.02),
    'equidistant': (0.03, -0.01, 0.004, -0.001),
}
# A thermal camera to the right, below and behind the visible one, turned a little.
ROTATION = cv2.Rodrigues(np.radians([3.0, -4.0, 2.0]))[0]
TRANSLATION = np.array([0.08, 0.05, -0.03])
DISTANCE = 4.0


def camera(model: str, size: tuple[int, int], focal: float = 1.0) -> CameraModel:
    """Return a camera whose focal length is so many times the width of the image."""
    length, (width, height) = focal * size[0], size
    matrix = [[length, 0, width / 2 - 1.3], [0, 1.02 * length, height / 2 + 0.9], [0, 0, 1]]
    return CameraModel(np.array(matrix), np.array(DISTORTIONS[model]), model, size)


def project(model: CameraModel, points: np.ndarray) -> np.ndarray:
    """Return the pixels of points in the camera's frame, by OpenCV."""
    still, matrix = np.zeros(3), np.array(model.matrix)
    if model.model == 'equidistant':
        distortion = np.array(model.distortion)
        pixels = cv2.fisheye.projectPoints(points[None], still, still, matrix, distortion)[0]
    else:
        distortion = np.array(model.distortion) if len(model.distortion) else np.zeros(5)
        pixels = cv2.projectPoints(points, still, still, matrix, distortion)[0]
    return pixels.reshape(-1, 2)


def pixels_of(size: tuple[int, int]) -> np.ndarray:
    """Return the centres of all pixels, row by row."""
    y, x = np.mgrid[: size[1], : size[0]]
    return np.stack([x.ravel(), y.ravel()], axis=1).astype(float)


def inside(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return ((pixels >= -0.5) & (pixels <= np.array(size) - 0.5)).all(axis=1)


def shifted(x: float, y: float = 0.0, scale: float = 1.0) -> np.ndarray:
    return np.array([[scale, 0, x], [0, scale, y], [0, 0, 1]])


def sampled(image: np.ndarray, placement: Placement) -> np.ndarray:
    """Warp an image (H, W) as a fusion does."""
    torch = pytest.importorskip('torch')
    warped = torch.nn.functional.grid_sample(
        torch.from_numpy(image)[None, None],
        torch.from_numpy(placement.grid)[None],
        padding_mode='border',
        align_corners=False,
    )
    return warped[0, 0].numpy()


def texture(size: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Return a smooth image (H, W) in [0, 1]."""
    noise = np.random.default_rng(seed).random(size[::-1]).astype(np.float32)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2.5), None, 0, 1, cv2.NORM_MINMAX)


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
        ({'k': [50.0, 3, 31, 0, 51, 23, 0, 0, 1]}, r'\[fx, 0, cx\]'),
        ({'width': 0}, r'size of the camera is not .* but \(0, 48\)'),
        ({'distortion_model': 'bent'}, "model 'bent' is unknown: .* plumb_bob"),
        ({'d': [np.inf, 0, 0, 0]}, 'coefficients have numbers that are not finite'),
        ({'d': [0.1, 0.1]}, "'plumb_bob' has 4 or 5 coefficients, but there are 2"),
        ({'d': [0.1] * 8}, "'plumb_bob' has 4 or 5 coefficients, but there are 8"),
        ({'distortion_model': '', 'd': [0.1] * 5}, "'none' has 0 coefficients"),
        ({'distortion_model': 'equidistant', 'd': []}, "'equidistant' has 4 coefficients"),
    ],
)
def test_a_camera_info_that_makes_no_sense_is_refused(
    changes: dict[str, object], text: str
) -> None:
    with pytest.raises(RegistrationError, match=text):
        CameraModel.from_camera_info(camera_info(**changes))


def test_a_camera_rectified_for_stereo_is_refused() -> None:
    turned = cv2.Rodrigues(np.array([0.0, 0.02, 0.0]))[0].ravel()
    with pytest.raises(RegistrationError, match='stereo'):
        CameraModel.from_camera_info(camera_info(r=turned), rectified=True)
    with pytest.raises(RegistrationError, match='not calibrated'):
        CameraModel.from_camera_info(camera_info(p=[0.0] * 12), rectified=True)


# Two cameras and a plane


@pytest.mark.parametrize('visible', DISTORTIONS)
@pytest.mark.parametrize('thermal', DISTORTIONS)
def test_points_of_the_plane_agree_in_both_cameras(visible: str, thermal: str) -> None:
    cameras = camera(visible, VISIBLE_SIZE), camera(thermal, THERMAL_SIZE, 1.1)
    registration = Registration.from_cameras(*cameras, ROTATION, TRANSLATION, DISTANCE)
    random = np.random.default_rng(0)
    points = np.column_stack([random.uniform(-2, 2, (400, 2)), np.full(400, DISTANCE)])
    visible_pixels = project(cameras[0], points)
    thermal_pixels = project(cameras[1], (points - TRANSLATION) @ ROTATION)
    seen = inside(visible_pixels, VISIBLE_SIZE) & inside(thermal_pixels, THERMAL_SIZE)
    assert seen.sum() > 50
    visible_pixels, thermal_pixels = visible_pixels[seen], thermal_pixels[seen]
    np.testing.assert_allclose(registration.to_visible(thermal_pixels), visible_pixels, atol=1e-6)
    np.testing.assert_allclose(registration.to_thermal(visible_pixels), thermal_pixels, atol=1e-6)


@pytest.mark.parametrize('model', DISTORTIONS)
def test_placement_is_what_each_pixel_of_the_plane_shows(model: str) -> None:
    # So far turned and so wide that parts of the plane are behind the thermal camera.
    rotation = cv2.Rodrigues(np.radians([5.0, 45.0, 0.0]))[0]
    visible, thermal = camera('none', VISIBLE_SIZE, 0.2), camera(model, THERMAL_SIZE, 1.0)
    registration = Registration.from_cameras(visible, thermal, rotation, TRANSLATION, DISTANCE)
    placement = registration.placement(0.0)
    rays = (pixels_of(VISIBLE_SIZE) - visible.matrix[:2, 2]) / np.diag(visible.matrix)[:2]
    points = (DISTANCE * np.column_stack([rays, np.ones(len(rays))]) - TRANSLATION) @ rotation
    assert (points[:, 2] < 0).any()
    pixels = project(thermal, points)
    # Nothing beyond 60 degrees is in this image; distortions fold back only further out.
    ahead = points[:, 2] > 0.5 * np.linalg.norm(points, axis=1)
    reached = ahead & inside(pixels, THERMAL_SIZE)
    assert 20 < reached.sum() < 1000
    np.testing.assert_array_equal(placement.coverage.ravel(), reached.astype(np.float32))
    found = (placement.grid.reshape(-1, 2)[reached] + 1) * THERMAL_SIZE / 2 - 0.5
    np.testing.assert_allclose(found, pixels[reached], atol=1e-4)


def test_what_one_of_the_lenses_folds_back_is_not_reached() -> None:
    # Both look at the same, one of them up to a radius of 0.544 in its image, as above.
    matrix = np.array([[40.0, 0, 31.5], [0, 40.0, 23.5], [0, 0, 1]])
    folding = CameraModel(matrix, np.array([-0.5, 0, 0, 0]), 'plumb_bob', VISIBLE_SIZE)
    short = np.array([[16.0, 0, 31.5], [0, 16.0, 23.5], [0, 0, 1]])
    wide = CameraModel(short, np.zeros(0), 'none', VISIBLE_SIZE)
    pixels = pixels_of(VISIBLE_SIZE)

    def reached(visible: CameraModel, thermal: CameraModel) -> np.ndarray:
        registration = Registration.from_cameras(visible, thermal, np.eye(3), np.zeros(3), 3.0)
        return registration.placement(0.0).coverage.ravel() == 1

    found = reached(folding, wide)
    radius = np.hypot(*(pixels - (31.5, 23.5)).T) / 40
    assert not found[radius > 0.545].any()
    assert found[radius < 0.54].sum() > 1000

    found = reached(wide, folding)
    radius = np.hypot(*(pixels - (31.5, 23.5)).T) / 16
    assert not found[radius > math.sqrt(2 / 3)].any()
    assert found[radius < 0.6].all()
    # OpenCV shows some of what is further out a second time.
    rays = np.column_stack([(pixels - (31.5, 23.5)) / 16, np.ones(len(pixels))])
    assert inside(project(folding, rays), VISIBLE_SIZE)[~found].sum() > 100


def test_translation_is_that_of_the_thermal_camera_in_the_visible_frame() -> None:
    visible, thermal = camera('none', VISIBLE_SIZE), camera('none', THERMAL_SIZE)
    registration = Registration.from_cameras(visible, thermal, np.eye(3), (0.1, 0, 0), 5.0)
    axis = thermal.matrix[:2, 2][None]
    moved = registration.to_visible(axis) - visible.matrix[:2, 2]
    np.testing.assert_allclose(moved, [[64 * 0.1 / 5.0, 0]], atol=1e-9)


def test_a_turn_to_the_right_is_positive_about_y() -> None:
    # About y, which points down: z goes towards x.
    rotation = cv2.Rodrigues(np.radians([0.0, 10.0, 0.0]))[0]
    visible, thermal = camera('none', VISIBLE_SIZE), camera('none', THERMAL_SIZE)
    registration = Registration.from_cameras(visible, thermal, rotation, np.zeros(3), math.inf)
    moved = registration.to_visible(thermal.matrix[:2, 2][None]) - visible.matrix[:2, 2]
    np.testing.assert_allclose(moved, [[64 * math.tan(math.radians(10)), 0]], atol=1e-9)


@pytest.mark.parametrize('distance', [1.5, 4.0, math.inf])
def test_plane_error_is_how_far_other_things_are_off(distance: float) -> None:
    visible, thermal = camera('none', VISIBLE_SIZE), camera('none', THERMAL_SIZE)
    registration = Registration.from_cameras(visible, thermal, ROTATION, TRANSLATION, distance)
    things = np.array([[0, 0, 2.0], [0, 0, 5.0], [0, 0, 1e9]])
    shown = registration.to_visible(project(thermal, (things - TRANSLATION) @ ROTATION))
    expected = np.linalg.norm(shown - visible.matrix[:2, 2], axis=1)
    errors = plane_error(visible, TRANSLATION, distance)
    np.testing.assert_allclose(errors, expected, atol=1e-6)
    assert plane_error(visible, TRANSLATION, distance, (distance,)) == pytest.approx((0.0,))


@pytest.mark.parametrize('distance', [0.0, -1.0, 0.2, math.nan])
def test_a_plane_that_is_not_in_front_of_both_cameras_is_refused(distance: float) -> None:
    visible, thermal = camera('none', VISIBLE_SIZE), camera('none', THERMAL_SIZE)
    ahead = (0.0, 0.0, 0.3)
    with pytest.raises(RegistrationError, match='not in front of both cameras'):
        Registration.from_cameras(visible, thermal, np.eye(3), ahead, distance)
    with pytest.raises(RegistrationError, match='not in front of both cameras'):
        plane_error(visible, ahead, 2.0, (distance,))


def test_what_is_no_rotation_or_translation_is_refused() -> None:
    visible, thermal = camera('none', VISIBLE_SIZE), camera('none', THERMAL_SIZE)
    for rotation in (1.01 * np.eye(3), np.diag([1, 1, -1]), np.ones((3, 3))):
        with pytest.raises(RegistrationError, match='the rotation between the cameras is none'):
            Registration.from_cameras(visible, thermal, rotation, np.zeros(3), 5.0)
    with pytest.raises(RegistrationError, match='translation between the cameras has shape'):
        Registration.from_cameras(visible, thermal, np.eye(3), np.zeros(2), 5.0)


def test_cameras_that_do_not_look_at_the_same_are_refused() -> None:
    visible, thermal = camera('none', VISIBLE_SIZE), camera('none', THERMAL_SIZE)
    # The rotation from an optical frame into one of a robot's body, a common mistake.
    rotation = np.array([[0, 0, 1], [-1, 0, 0], [0, -1, 0]])
    with pytest.raises(RegistrationError):
        Registration.from_cameras(visible, thermal, rotation, np.zeros(3), 5.0).placement(0.0)
    with pytest.raises(RegistrationError, match='reaches no pixel of the visible'):
        Registration(shifted(100), VISIBLE_SIZE, VISIBLE_SIZE).placement(0.0)


# Placements of homographies


def test_identity_changes_nothing() -> None:
    placement = Registration(np.eye(3), VISIBLE_SIZE, VISIBLE_SIZE).placement(8.0)
    assert placement.source_size == VISIBLE_SIZE
    assert (placement.coverage == 1).all()
    image = texture(VISIBLE_SIZE)
    np.testing.assert_allclose(sampled(image, placement), image, atol=1e-5)


def test_an_image_of_fewer_pixels_that_shows_the_same_is_resized() -> None:
    # Outer edges agree: the first thermal pixel covers the visible ones at 0 and 1.
    size = (32, 24)
    placement = Registration(shifted(0.5, 0.5, 2.0), size, VISIBLE_SIZE).placement(8.0)
    assert (placement.coverage == 1).all()
    image = texture(size)
    expected = cv2.resize(image, VISIBLE_SIZE, interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(sampled(image, placement), expected, atol=1e-5)
    # A restored image, of more pixels than the placement is made for.
    finer = texture(VISIBLE_SIZE)
    np.testing.assert_allclose(sampled(finer, placement), finer, atol=1e-5)


def test_warped_images_are_those_of_opencv() -> None:
    homography = np.array([[1.4, 0.15, 3.3], [-0.1, 1.5, -2.2], [4e-4, -6e-4, 1]])
    placement = Registration(homography, THERMAL_SIZE, VISIBLE_SIZE).placement(0.0)
    image = texture(THERMAL_SIZE)
    expected = cv2.warpPerspective(
        image, homography, VISIBLE_SIZE, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    reached = placement.coverage == 1
    assert 0.3 < reached.mean() < 0.95
    # OpenCV rounds positions to 1/32 pixel.
    steepest = max(np.abs(np.diff(image, axis=axis)).max() for axis in (0, 1))
    assert np.abs(sampled(image, placement) - expected)[reached].max() < steepest / 16


@pytest.mark.parametrize('factor', [1.0, -3.0, 1e-4])
def test_a_homography_is_known_up_to_a_factor(factor: float) -> None:
    homography = np.array([[1.4, 0.15, 3.3], [-0.1, 1.5, -2.2], [4e-4, -6e-4, 1]])
    first, second = (
        Registration(matrix, THERMAL_SIZE, VISIBLE_SIZE)
        for matrix in (homography, factor * homography)
    )
    np.testing.assert_array_equal(second.thermal_to_visible, factor * homography)
    np.testing.assert_allclose(second.placement(3).grid, first.placement(3).grid, atol=1e-6)
    corner = cv2.perspectiveTransform(np.array([[[39.0, 29.0]]]), homography)[0]
    np.testing.assert_allclose(second.to_visible([[39, 29]]), corner, atol=1e-9)
    np.testing.assert_allclose(second.to_thermal(corner), [[39, 29]], atol=1e-9)


def test_coverage_of_a_shift_rises_from_the_border_inwards() -> None:
    coverage = Registration(shifted(20), VISIBLE_SIZE, VISIBLE_SIZE).placement(8.0).coverage
    assert (coverage[:, :20] == 0).all()
    # Ends at the width; the right, upper and lower borders are those of the visible image.
    assert (coverage[:, 28:] == 1).all()
    np.testing.assert_array_equal(coverage, np.broadcast_to(coverage[0], coverage.shape))
    ramp = coverage[0, 20:28]
    assert (np.diff(ramp) > 0).all()
    assert 0 < ramp[0] < 0.05
    np.testing.assert_allclose(ramp + ramp[::-1], 1, atol=1e-6)


def test_no_edge_is_a_hard_border() -> None:
    coverage = Registration(shifted(20), VISIBLE_SIZE, VISIBLE_SIZE).placement(0.0).coverage
    np.testing.assert_array_equal(coverage[0], (np.arange(64) >= 20).astype(np.float32))


def test_the_soft_edge_is_measured_in_visible_pixels() -> None:
    # Twice as large, turned by 30 degrees, and as a whole inside of the visible image.
    cosine, sine = 2 * math.cos(math.radians(30)), 2 * math.sin(math.radians(30))
    homography = np.array([[cosine, -sine, 60], [sine, cosine, 30], [0, 0, 1]])
    registration = Registration(homography, THERMAL_SIZE, (160, 128))
    coverage = registration.placement(10.0).coverage
    x, y = registration.to_thermal(pixels_of((160, 128))).T
    to_border = 2 * np.minimum.reduce([x + 0.5, 39.5 - x, y + 0.5, 29.5 - y])
    part = np.clip(to_border / 10.0, 0, 1).reshape(coverage.shape)
    np.testing.assert_allclose(coverage, part**2 * (3 - 2 * part), atol=0.12)
    # Not where rounding decides.
    assert (coverage.ravel()[to_border < -1e-4] == 0).all()
    assert (coverage.ravel()[to_border > 1e-4] > 0).all()


@pytest.mark.parametrize('edge', [-1.0, math.nan, math.inf])
def test_an_impossible_edge_is_refused(edge: float) -> None:
    with pytest.raises(RegistrationError, match='soft edge'):
        Registration(np.eye(3), VISIBLE_SIZE, VISIBLE_SIZE).placement(edge)


@pytest.mark.parametrize(
    ('matrix', 'text'),
    [
        (np.eye(2), 'shape'),
        (np.diag([1, np.nan, 1]), 'not finite'),
        (np.ones((3, 3)), 'not invertible'),
        (np.zeros((3, 3)), 'infinity'),
        (np.array([[1, 0, 0], [0, 1, 0], [-0.05, 0, 1]]), 'to infinity'),
        (np.array([[-1, 0, 39], [0, 1, 0], [0, 0, 1]]), 'mirrors'),
        (np.diag([60, 60, 1]), 'scales the thermal image by 60 to 60'),
        (np.diag([0.01, 1, 1]), r'not within 1/50 and 50'),
    ],
)
def test_a_homography_that_no_two_cameras_have_is_refused(matrix: np.ndarray, text: str) -> None:
    with pytest.raises(RegistrationError, match=text):
        Registration(matrix, THERMAL_SIZE, VISIBLE_SIZE)


def test_sizes_are_checked() -> None:
    registration = Registration(np.eye(3), THERMAL_SIZE, VISIBLE_SIZE)
    registration.check_sizes(VISIBLE_SIZE, THERMAL_SIZE)
    with pytest.raises(RegistrationError, match=r'64x48 .* 40x30 .* are 64x48 and 80x60'):
        registration.check_sizes(VISIBLE_SIZE, (80, 60))
    with pytest.raises(RegistrationError, match='size of thermal_camera is 64x48'):
        Registration(np.eye(3), THERMAL_SIZE, VISIBLE_SIZE, camera('none', VISIBLE_SIZE))


# Files


def written(folder: Path, text: str) -> Path:
    path = folder / 'file.yaml'
    path.write_text(text, 'utf-8')
    return path


def test_a_saved_registration_is_loaded_without_a_difference(tmp_path: Path) -> None:
    registration = Registration(
        np.array([[1.4, 1 / 3, 1e-7], [-2.5e-7, 1.5, -2.2], [1e-5, -6e-17, 1.0]]),
        THERMAL_SIZE,
        VISIBLE_SIZE,
        camera('plumb_bob', THERMAL_SIZE),
        camera('equidistant', VISIBLE_SIZE),
        {
            'from': Path('µ-bolometer'),
            'residual_px': np.float32(0.5),
            'size': THERMAL_SIZE,
            'sure': True,
        },
    )
    path = tmp_path / 'registration.yaml'
    registration.save(path)
    text = path.read_text('utf-8')
    assert text.startswith('# ')
    assert 'µ-bolometer' in text
    loaded = Registration.load(path)
    np.testing.assert_array_equal(loaded.thermal_to_visible, registration.thermal_to_visible)
    assert (loaded.thermal_size, loaded.visible_size) == (THERMAL_SIZE, VISIBLE_SIZE)
    for first, second in (
        (loaded.thermal_camera, registration.thermal_camera),
        (loaded.visible_camera, registration.visible_camera),
    ):
        assert first is not None
        assert second is not None
        assert (first.model, first.size) == (second.model, second.size)
        np.testing.assert_array_equal(first.matrix, second.matrix)
        np.testing.assert_array_equal(first.distortion, second.distortion)
    assert loaded.estimate == registration.estimate
    assert loaded.estimate == {
        'from': 'µ-bolometer',
        'residual_px': 0.5,
        'size': [40, 30],
        'sure': True,
    }
    again = tmp_path / 'again.yaml'
    loaded.save(again)
    assert again.read_text('utf-8') == text


def test_a_homography_alone_is_enough(tmp_path: Path) -> None:
    Registration(np.diag([2.0, 2.0, 1.0]), THERMAL_SIZE, VISIBLE_SIZE).save(tmp_path / 'a.yaml')
    loaded = Registration.load(tmp_path / 'a.yaml')
    assert loaded.thermal_camera is None
    assert loaded.visible_camera is None
    assert loaded.estimate == {}


HOMOGRAPHY = 'thermal_to_visible: [[2, 0, 1], [0, 2.5, 1], [1e-5, 0, 1]]\n'
SIZES = 'thermal_size: [40, 30]\nvisible_size: [64, 48]\n'
CAMERA = (
    'thermal_camera:\n  camera_matrix: [[40, 0, 20], [0, 40, 15], [0, 0, 1]]\n'
    '  distortion_model: plumb_bob\n  distortion_coefficients: [-0.1, 1e-05, 0, 0, 0]\n'
    '  size: [40, 30]\n'
)


def test_numbers_may_be_written_as_other_programs_write_them(tmp_path: Path) -> None:
    loaded = Registration.load(written(tmp_path, HOMOGRAPHY + SIZES + CAMERA))
    assert loaded.thermal_to_visible[2, 0] == 1e-5
    assert loaded.thermal_camera is not None
    assert loaded.thermal_camera.distortion[1] == 1e-5


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('', 'no mapping'),
        ('- 1', 'no mapping'),
        ('a: [1', 'is no YAML'),
        ('a: 2026-99-99', 'is no YAML'),
        ('[' * 100_000, 'is no YAML: maximum recursion depth'),
        # Ten of these lines would stand for more than fits into memory.
        ('a: &a [1, 1]\nb: &b [*a, *a]', r'has aliases \(\*name\): write out'),
        ('#' * 2_000_000, 'is no file of at most 1000000 bytes'),
        (SIZES, "no key 'thermal_to_visible': add it"),
        (HOMOGRAPHY + 'thermal_size: [40, 30]', "no key 'visible_size'"),
        (HOMOGRAPHY + SIZES + 'edge: 3', "key 'edge' that means nothing here: use thermal_to_"),
        (HOMOGRAPHY + SIZES + 'visible_size: [640, 480]', "'visible_size' is there twice"),
        (HOMOGRAPHY + SIZES + 'estimate: 3', 'estimate is no mapping'),
        (HOMOGRAPHY + SIZES.replace('30', '30.5'), r'thermal_size is not \[width, height\]'),
        (HOMOGRAPHY + SIZES.replace('48', 'true'), 'visible_size is not'),
        (HOMOGRAPHY + SIZES.replace('48', '0'), 'visible_size is not'),
        (HOMOGRAPHY + SIZES.replace('[64, 48]', '64'), 'visible_size is not'),
        (HOMOGRAPHY.replace('2.5', 'true') + SIZES, "has 'True', which is no number"),
        (HOMOGRAPHY.replace('2.5', 'x') + SIZES, "has 'x', which is no number"),
        (HOMOGRAPHY.replace('2.5', '.nan') + SIZES, 'has nan, which is not finite'),
        (HOMOGRAPHY.replace('2.5', '9' * 400) + SIZES, 'not finite'),
        (HOMOGRAPHY.replace('2.5, ', '') + SIZES, 'not a list of 3 numbers'),
        ('thermal_to_visible: [[1, 0, 0]]\n' + SIZES, 'not a list of 3 rows of 3 numbers'),
        (HOMOGRAPHY.replace('2.5', '-2.5') + SIZES, 'mirrors'),
        (HOMOGRAPHY + SIZES + 'thermal_camera: 3', 'thermal_camera is no mapping'),
        (HOMOGRAPHY + SIZES + CAMERA.replace('  size: [40, 30]', ''), "thermal_camera .* 'size'"),
        (HOMOGRAPHY + SIZES + CAMERA + '  k: 1', "thermal_camera has a key 'k'"),
        (HOMOGRAPHY + SIZES + CAMERA.replace('_bob', 's'), "thermal_camera: .* 'plumbs'"),
        (HOMOGRAPHY + SIZES + CAMERA.replace('-0.1', 'a'), "distortion_coefficients has 'a'"),
        (HOMOGRAPHY + SIZES + CAMERA + '  size: [40, 30]', "'size' is there twice"),
        (
            re.sub('(distortion_coefficients:).*', r'\1', HOMOGRAPHY + SIZES + CAMERA),
            'distortion_coefficients is not a list of numbers',
        ),
        (HOMOGRAPHY + SIZES + CAMERA.replace('30]', '31]'), 'size of thermal_camera is 40x31'),
    ],
)
def test_a_file_that_is_wrong_is_refused_with_its_name(
    tmp_path: Path, text: str, message: str
) -> None:
    path = written(tmp_path, text)
    with pytest.raises(RegistrationError, match=message) as raised:
        Registration.load(path)
    assert str(raised.value).startswith(str(path))
    assert '\n' not in str(raised.value)


def test_files_that_cannot_be_read_or_written_are_named(tmp_path: Path) -> None:
    with pytest.raises(RegistrationError, match=r'none\.yaml cannot be read: No such file'):
        Registration.load(tmp_path / 'none.yaml')
    (tmp_path / 'binary.yaml').write_bytes(b'\xff\xfe\x00')
    with pytest.raises(RegistrationError, match=r'binary\.yaml is no YAML'):
        load_extrinsics(tmp_path / 'binary.yaml')
    os.mkfifo(tmp_path / 'pipe.yaml')
    for endless in ('/dev/zero', tmp_path / 'pipe.yaml'):
        with pytest.raises(RegistrationError, match='is no file of at most'):
            Registration.load(endless)
    registration = Registration(np.eye(3), VISIBLE_SIZE, VISIBLE_SIZE)
    with pytest.raises(RegistrationError, match='cannot be written'):
        registration.save(tmp_path / 'none' / 'a.yaml')
    registration = Registration(np.eye(3), VISIBLE_SIZE, VISIBLE_SIZE, estimate={'x': object()})
    with pytest.raises(RegistrationError, match='estimate'):
        registration.save(tmp_path / 'a.yaml')
    assert not (tmp_path / 'a.yaml').exists()


# Extrinsics


def test_a_rotation_may_be_given_in_three_ways(tmp_path: Path) -> None:
    # Roll, pitch and yaw about fixed axes, one after the other.
    roll, pitch, yaw = (
        cv2.Rodrigues(np.radians(axis))[0] for axis in ([10.0, 0, 0], [0, 20.0, 0], [0, 0, 30.0])
    )
    expected = yaw @ pitch @ roll
    vector = cv2.Rodrigues(expected)[0].ravel()
    angle = np.linalg.norm(vector)
    x, y, z = vector / angle * math.sin(angle / 2)
    w = math.cos(angle / 2)
    for text in (
        f'rotation: {expected.tolist()}',
        f'quaternion: [{x:.15f}, {y:.15f}, {z:.15f}, {w:.15f}]',
        f'quaternion: [{-3 * x:.15f}, {-3 * y:.15f}, {-3 * z:.15f}, {-3 * w:.15f}]',
        'rpy_degrees: [10, 20, 30]',
    ):
        path = written(tmp_path, f'{text}\ntranslation: [0.1, -2, 3e-1]')
        rotation, translation = load_extrinsics(path)
        np.testing.assert_allclose(rotation, expected, atol=1e-9)
        np.testing.assert_array_equal(translation, [0.1, -2, 0.3])


def test_a_rounded_rotation_is_made_a_rotation(tmp_path: Path) -> None:
    text = f'rotation: {np.round(ROTATION, 3).tolist()}\ntranslation: [0, 0, 0]'
    rotation, _ = load_extrinsics(written(tmp_path, text))
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(rotation, ROTATION, atol=1e-3)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('rpy_degrees: [0, 0, 0]', "no key 'translation'"),
        ('translation: [0, 0, 0]', 'one of rotation, quaternion, rpy_degrees, but here is none'),
        (
            'translation: [0, 0, 0]\nrpy_degrees: [0, 0, 0]\nquaternion: [0, 0, 0, 1]',
            'both quaternion and rpy_degrees: keep one',
        ),
        ('translation: [0, 0]\nrpy_degrees: [0, 0, 0]', 'translation is not a list of 3 numbers'),
        ('translation: [0, 0, .inf]\nrpy_degrees: [0, 0, 0]', 'translation has inf'),
        ('translation: [0, 0, 0]\nrpy_degrees: [0, 0, 0, 0]', 'rpy_degrees is not a list of 3'),
        ('translation: [0, 0, 0]\nquaternion: [0, 0, 0, 0]', 'quaternion is zero'),
        ('translation: [0, 0, 0]\nrotation: [[1, 0, 0], [0, 1, 0], [0, 0, -1]]', 'rotation is no'),
        ('translation: [0, 0, 0]\nrotation: [[1, 0, 0], [0, 1, 0], [0, 0, 2]]', 'rotation is no'),
        ('translation: [0, 0, 0]\nrpy: [0, 0, 0]', "key 'rpy' that means nothing here"),
    ],
)
def test_extrinsics_that_are_wrong_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(RegistrationError, match=message) as raised:
        load_extrinsics(path)
    assert str(raised.value).startswith(str(path))


def test_a_quaternion_of_a_message_is_a_rotation() -> None:
    half = math.radians(45)
    # A quarter turn about z takes x to y.
    rotation = rotation_of_quaternion((0, 0, math.sin(half), math.cos(half)))
    np.testing.assert_allclose(rotation @ (1, 0, 0), (0, 1, 0), atol=1e-12)
    with pytest.raises(RegistrationError, match='not finite'):
        rotation_of_quaternion((0, 0, 0, math.nan))
