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

"""Cameras with a geometry, lenses and sensors of their own, and the truth about them."""

import math

import cv2
import numpy as np
import pytest

from dig2dig_ros.evaluation.imperfect_cameras import (
    Flaws,
    ImperfectCameras,
    ImperfectionError,
    true_homography,
    Warp,
)
from dig2dig_ros.evaluation.synthetic_scene import SyntheticScene
from dig2dig_ros.images.camera_model import CameraModel
from dig2dig_ros.images.registration import Registration

SIZE = (80, 64)
WARPS = [Warp(), Warp(5.0, 0.8, 0.15, -0.1), Warp(-4.0, 1.25, -0.1, 0.12), Warp(20.0)]


def ramp(cameras, resolution=1):
    """Return a scene (H, W) uint16 that is linear in the ideal visible pixel, 5000 at (0, 0)."""
    width, height = cameras.scene_size
    y, x = np.mgrid[: height * resolution, : width * resolution]
    x = (x + 0.5) / resolution - 0.5 - (width - SIZE[0]) / 2
    y = (y + 0.5) / resolution - 0.5 - (height - SIZE[1]) / 2
    return np.rint(5000 + 16 * x + 10 * y).astype(np.uint16)


def pixels(size):
    """Return x and y of all pixels, (N, 2), of an image of (width, height)."""
    x, y = np.meshgrid(np.arange(size[0], dtype=float), np.arange(size[1], dtype=float))
    return np.stack([x.ravel(), y.ravel()], axis=1)


def project(homography, points):
    seen = np.column_stack([points, np.ones(len(points))]) @ homography.T
    return seen[:, :2] / seen[:, 2:]


def assert_shows(image, points):
    """Compare an image of the ramp with the ideal visible pixels (N, 2) that it should show."""
    error = image.ravel() - (5000 + points @ (16, 10))
    # A count is a sixteenth of a pixel; cubic interpolation is off by up to a tenth to both sides.
    assert np.abs(error).max() < 2.2
    assert abs(error.mean()) < 0.1
    assert error.std() < 1.0


def undistorted(camera, points):
    """Return ideal pixels by OpenCV's iteration, which shares nothing with what is tested."""
    criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 200, 1e-12)
    source = points.reshape(-1, 1, 2)
    if hasattr(cv2, 'undistortPointsIter'):  # OpenCV 4
        rays = cv2.undistortPointsIter(
            source, camera.matrix, camera.distortion, np.eye(3), np.eye(3), criteria
        )
    else:
        rays = cv2.undistortPoints(
            source, camera.matrix, camera.distortion, None, None, None, criteria
        )
    return project(camera.matrix, rays.reshape(-1, 2))


def test_cameras_without_imperfection_return_the_scene_itself():
    cameras = ImperfectCameras(SIZE, with_margin=True)
    assert cameras.scene_size == SIZE
    np.testing.assert_array_equal(cameras.homography, np.eye(3))
    frame = SyntheticScene(*SIZE).render(1.0)
    for source, scene in (('visible', frame.visible), ('thermal', frame.thermal)):
        image = cameras.look(source, scene)
        assert image.dtype == scene.dtype
        assert np.shares_memory(image, scene)
        np.testing.assert_array_equal(image, scene)


def test_a_warp_of_the_thermal_camera_leaves_the_visible_image_alone():
    cameras = ImperfectCameras(SIZE, warp=Warp(3.0, 1.1, 0.05, 0.0), with_margin=True)
    scene = SyntheticScene(*cameras.scene_size).render(0.0).visible
    (width, height), (across, down) = SIZE, cameras.scene_size
    x, y = (across - width) // 2, (down - height) // 2
    np.testing.assert_array_equal(
        cameras.look('visible', scene), scene[y : y + height, x : x + width]
    )


def test_the_homography_in_numbers():
    np.testing.assert_array_equal(true_homography(Warp(), SIZE, SIZE), np.eye(3))
    # Edges of a resized image lie on edges.
    half = true_homography(Warp(), (40, 16), SIZE)
    np.testing.assert_allclose(project(half, np.array([[-0.5, -0.5]])), [[-0.5, -0.5]])
    np.testing.assert_allclose(project(half, np.array([[39.5, 15.5]])), [[79.5, 63.5]])
    # The camera turns clockwise, so what is at its right is further down in the visible image.
    turned = true_homography(Warp(90.0, 1.0, 0.25, 0.5), (65, 65), (65, 65))
    seen = project(turned, np.array([[32.0, 32.0], [42.0, 32.0]]))
    np.testing.assert_allclose(seen, [[48.25, 64.5], [48.25, 74.5]])
    # A wider field: ten thermal pixels are twenty visible ones.
    wide = true_homography(Warp(scale=2.0), (65, 65), (65, 65))
    np.testing.assert_allclose(project(wide, np.array([[42.0, 32.0]])), [[52.0, 32.0]])


@pytest.mark.parametrize('warp', WARPS)
@pytest.mark.parametrize('thermal_size', [SIZE, (32, 21)])
def test_every_thermal_pixel_shows_what_the_homography_says(warp, thermal_size):
    cameras = ImperfectCameras(SIZE, thermal_size, warp=warp, with_margin=True)
    image = cameras.look('thermal', ramp(cameras))
    assert image.shape == thermal_size[::-1]
    assert image.dtype == np.uint16
    seen = project(cameras.homography, pixels(thermal_size))
    assert_shows(image, seen)


def test_the_scene_may_have_another_resolution():
    cameras = ImperfectCameras(SIZE, (20, 16), warp=Warp(3.0, 0.9, 0.02, 0.0))
    for resolution in (1, 2):
        image = cameras.look('thermal', ramp(cameras, resolution))
        seen = project(cameras.homography, pixels((20, 16)))
        assert_shows(image, seen)


@pytest.mark.parametrize('distortion', [(-0.2, 0.03), (0.3, 0.0), (-0.05, -0.05)])
@pytest.mark.parametrize('source', ['visible', 'thermal'])
def test_lenses_distort_as_opencv_says(source, distortion):
    cameras = ImperfectCameras(
        SIZE,
        warp=Warp(5.0, 1.1, 0.0, 0.05),
        **{source: Flaws(distortion=distortion)},
        with_margin=True,
    )
    image = cameras.look(source, ramp(cameras))
    camera = cameras.geometry(source)
    np.testing.assert_array_equal(camera.distortion, [*distortion, 0.0, 0.0, 0.0])
    ideal = undistorted(camera, pixels(SIZE))
    assert np.abs(ideal - pixels(SIZE)).max() > 0.5
    seen = project(cameras.homography, ideal) if source == 'thermal' else ideal
    assert_shows(image, seen)


def test_a_lens_that_folds_its_image_is_refused():
    with pytest.raises(ImperfectionError, match=r'thermal lens of k1 = -0\.9 .* smaller values'):
        ImperfectCameras(SIZE, thermal=Flaws(distortion=(-0.9, 0.0)))


@pytest.mark.parametrize(
    ('thermal_size', 'with_margin'), [(SIZE, True), ((40, 32), False), ((32, 20), True)]
)
@pytest.mark.parametrize('warp', WARPS)
def test_camera_infos_and_rotation_reproduce_the_homography(warp, thermal_size, with_margin):
    flaws = Flaws(distortion=(-0.1, 0.01))
    cameras = ImperfectCameras(
        SIZE, thermal_size, warp=warp, visible=flaws, thermal=flaws, with_margin=with_margin
    )
    visible, thermal = cameras.geometry('visible'), cameras.geometry('thermal')
    np.testing.assert_allclose(thermal.rotation @ thermal.rotation.T, np.eye(3), atol=1e-12)
    assert thermal.rotation[1, 0] == pytest.approx(math.sin(math.radians(warp.rotation)))
    assert visible.matrix[0, 0] == SyntheticScene.focal_length(cameras.scene_size[1])
    models = [
        CameraModel(camera.matrix, camera.distortion, camera.model, camera.size)
        for camera in (visible, thermal)
    ]
    found = Registration.from_cameras(*models, thermal.rotation, np.zeros(3), 5.0)
    points = pixels(thermal_size)
    np.testing.assert_allclose(
        project(found.thermal_to_visible, points), project(cameras.homography, points), atol=1e-6
    )


def test_a_resized_camera_shows_the_same_at_the_same_part_of_its_image():
    camera = ImperfectCameras(SIZE, warp=Warp(0.0, 1.1, 0.1, 0.0)).geometry('thermal')
    half = camera.resized((40, 32))
    assert half.size == (40, 32)
    ray = np.array([0.1, -0.2, 1.0])
    whole_pixel, half_pixel = (matrix @ ray for matrix in (camera.matrix, half.matrix))
    np.testing.assert_allclose(half_pixel[:2] + 0.5, (whole_pixel[:2] + 0.5) / 2)


def test_beyond_a_scene_without_margin_its_mirror_image_goes_on():
    cameras = ImperfectCameras(SIZE, warp=Warp(8.0, 1.3, 0.1, -0.1))
    assert cameras.scene_size == SIZE
    scene = SyntheticScene(*SIZE).render(0.0, noise=False).thermal
    image = cameras.look('thermal', scene).astype(int)
    assert scene.min() - 150 < image.min()
    assert image.max() < scene.max() + 150
    # No row or column of it is an edge from end to end.
    for axis in (0, 1):
        steps = np.abs(np.diff(image, axis=axis)).mean(axis=1 - axis)
        natural = np.abs(np.diff(scene.astype(int), axis=axis)).mean(axis=1 - axis)
        assert steps.max() < 1.5 * natural.max()


@pytest.mark.parametrize('with_margin', [True, False])
def test_blur_has_its_standard_deviation_before_down_sampling(with_margin):
    size = (65, 65)
    cameras = ImperfectCameras(size, thermal=Flaws(blur=2.5), with_margin=with_margin)
    scene = np.zeros((65, 65), np.uint16)
    scene[32, 32] = 60000
    spot = cameras.look('thermal', scene).astype(float)
    x = np.arange(65) - 32
    share = spot / spot.sum()
    assert math.sqrt((share.sum(axis=0) * x**2).sum()) == pytest.approx(2.5, abs=0.1)
    assert math.sqrt((share.sum(axis=1) * x**2).sum()) == pytest.approx(2.5, abs=0.1)


@pytest.mark.parametrize(
    ('source', 'scene', 'noise'),
    [
        ('visible', np.full((*SIZE[::-1], 3), 128, np.uint8), 15.0),
        ('thermal', np.full(SIZE[::-1], 8000, np.uint16), 40.0),
        ('thermal', np.full(SIZE[::-1], 128, np.uint8), 5.0),
    ],
)
def test_noise_is_white_new_in_every_frame_and_a_function_of_the_seed(source, scene, noise):
    def look(frame, seed=3, noise=noise):
        cameras = ImperfectCameras(SIZE, **{source: Flaws(noise=noise)}, seed=seed)
        return cameras.look(source, scene, frame).astype(float)

    first = look(0) - scene
    assert first.std() == pytest.approx(noise, rel=0.05)
    assert abs(first.mean()) < 0.05 * noise
    assert abs((first[:, 1:] * first[:, :-1]).mean()) < 0.05 * noise**2
    np.testing.assert_array_equal(look(0), look(0))
    assert (look(1) != look(0)).mean() > 0.7
    assert (look(0, seed=4) != look(0)).mean() > 0.7
    np.testing.assert_array_equal(look(0, noise=0.0), look(1, noise=0.0))


def test_noise_is_clipped_at_the_ends_of_the_type():
    cameras = ImperfectCameras(SIZE, visible=Flaws(noise=60.0), thermal=Flaws(noise=60.0))
    dark = cameras.look('visible', np.zeros((*SIZE[::-1], 3), np.uint8))
    assert dark.min() == 0
    assert dark.max() < 255
    bright = cameras.look('thermal', np.full(SIZE[::-1], 65535, np.uint16))
    assert 65000 < bright.min() < bright.max() == 65535
