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
Registrations, compared with what OpenCV makes of points in space.

Frames are optical: x right, y down, z forward; X_visible = R @ X_thermal + t.
"""

from __future__ import annotations

import math

import cv2
from images.cameras import (
    camera,
    DISTORTIONS,
    inside,
    pixels_of,
    project,
    ROTATION,
    THERMAL_SIZE,
    VISIBLE_SIZE,
)
import numpy as np
import pytest

from dig2dig_ros.images.camera_model import CameraModel
from dig2dig_ros.images.geometry import RegistrationError
from dig2dig_ros.images.placement import Placement
from dig2dig_ros.images.registration import plane_error, Registration

TRANSLATION = np.array([0.08, 0.05, -0.03])
DISTANCE = 4.0


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
    errors = [plane_error(visible, TRANSLATION, distance, far) for far in (2.0, 5.0, math.inf)]
    np.testing.assert_allclose(errors, expected, atol=1e-6)
    assert plane_error(visible, TRANSLATION, distance, distance) == pytest.approx(0.0)


@pytest.mark.parametrize('distance', [0.0, -1.0, 0.2, math.nan])
def test_a_plane_that_is_not_in_front_of_both_cameras_is_refused(distance: float) -> None:
    visible, thermal = camera('none', VISIBLE_SIZE), camera('none', THERMAL_SIZE)
    ahead = (0.0, 0.0, 0.3)
    with pytest.raises(RegistrationError, match='not in front of both cameras'):
        Registration.from_cameras(visible, thermal, np.eye(3), ahead, distance)
    with pytest.raises(RegistrationError, match='not in front of both cameras'):
        plane_error(visible, ahead, 2.0, distance)


def test_what_is_no_rotation_or_translation_is_refused() -> None:
    visible, thermal = camera('none', VISIBLE_SIZE), camera('none', THERMAL_SIZE)
    for rotation in (1.01 * np.eye(3), np.diag([1, 1, -1]), np.ones((3, 3))):
        with pytest.raises(
            RegistrationError, match='the rotation between the cameras is not valid'
        ):
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
    # A centre on the border is reached.
    coverage = (
        Registration(shifted(20.5, 10.5), VISIBLE_SIZE, VISIBLE_SIZE).placement(0.0).coverage
    )
    assert coverage.sum() == (64 - 20) * (48 - 10)


def test_an_edge_of_a_pixel_halves_the_outermost_one() -> None:
    # The centre of that pixel is half a pixel inside the border.
    coverage = Registration(shifted(20), VISIBLE_SIZE, VISIBLE_SIZE).placement(1.0).coverage
    expected = np.where(np.arange(64) == 20, 0.5, np.arange(64) > 20)
    np.testing.assert_array_equal(coverage[0], expected.astype(np.float32))


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
