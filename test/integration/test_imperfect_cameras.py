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


"""Cameras that see different fields, through lenses of their own, with few pixels."""

from importlib.util import find_spec
import re

import cv2
from diagnostic_msgs.msg import DiagnosticStatus
import numpy as np
import pytest
from sensor_msgs.msg import CameraInfo

from dig2dig_ros.evaluation.imperfect_cameras import (
    CameraGeometry,
    ImperfectCameras,
    true_homography,
    Warp,
)
from dig2dig_ros.evaluation.synthetic_scene import SyntheticScene
from dig2dig_ros.images.registration import Registration
from dig2dig_ros.images.registration_file import save_registration
from dig2dig_ros.streams.codec import decode
from dig2dig_ros.tools.pair_camera import camera_info
from integration.harness import cameras, MEAN

SIZE = (192, 160)
THERMAL_SIZE = (160, 128)
WARP = Warp(5.0, 0.8, 0.04, -0.03)
PARAMETERS = {
    'prior': 'nano',
    'warmup_size': list(SIZE),
    'weights_encoding': '32FC1',
    'alignment_period': 0.0,
}


@pytest.fixture(scope='module')
def street():
    """Return a visible image, the thermal one of a warped camera, and that of an aligned one."""
    warped = ImperfectCameras(SIZE, THERMAL_SIZE, warp=WARP, with_margin=True)
    scene = SyntheticScene(*warped.scene_size, seed=1).render(0.0, noise=False)
    left, top = ((wide - own) // 2 for wide, own in zip(warped.scene_size, SIZE, strict=True))
    aligned = scene.thermal[top : top + SIZE[1], left : left + SIZE[0]]
    visible = warped.look('visible', scene.visible)
    return visible, warped.look('thermal', scene.thermal), np.ascontiguousarray(aligned)


@pytest.fixture
def registration(tmp_path):
    path = tmp_path / 'registration.yaml'
    save_registration(
        Registration(true_homography(WARP, THERMAL_SIZE, SIZE), THERMAL_SIZE, SIZE), path
    )
    return str(path)


def fixed_range(thermal):
    """Return parameters by which counts become intensities, the same for each image."""
    limits = [float(thermal.min()), float(thermal.max())]
    return {'thermal_range': 'fixed', 'thermal_range_limits': limits}


def intensities(thermal, parameters):
    low, high = parameters['thermal_range_limits']
    return np.clip((thermal.astype(np.float32) - low) / (high - low), 0, 1) * 255


def grey(image):
    return cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).astype(float)


def border_distance(homography):
    """
    Return how far each visible pixel is inside of what the thermal camera reaches.

    :return: in visible pixels; negative outside.
    """
    width, height = SIZE
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    seen = np.linalg.inv(homography) @ np.stack([x.ravel(), y.ravel(), np.ones(x.size)])
    across, down = (seen[:2] / seen[2]).reshape(2, height, width)
    limits = np.array(THERMAL_SIZE) - 0.5
    reached = (across >= -0.5) & (across <= limits[0]) & (down >= -0.5) & (down <= limits[1])
    return distance(reached) - distance(~reached)


def distance(mask):
    return cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5)


def test_a_registration_file_lays_the_thermal_image_on_the_visible_one(
    robot, street, registration
):
    visible, thermal, aligned = street
    counts = fixed_range(aligned)
    homography = true_homography(WARP, THERMAL_SIZE, SIZE)
    inside = border_distance(homography)
    reached, beyond = inside > 3, inside < -1
    assert 0.5 < reached.mean() < 0.8

    robot.start_anew({**counts, 'thermal_to_visible': registration})
    assert registration in robot.diagnose().values['registration']
    soft = robot.fuse(visible=visible, thermal=thermal)
    weights = soft.weights['thermal']
    assert not weights[beyond].any()
    np.testing.assert_allclose(soft.weights['visible'][beyond], 1, atol=1e-6)
    np.testing.assert_array_equal(soft.image[beyond], visible[beyond])
    expected = cv2.warpPerspective(
        intensities(thermal, counts), homography, SIZE, flags=cv2.INTER_CUBIC
    )
    _, restored = robot.fuse_one('thermal/restored/image_raw', visible=visible, thermal=thermal)
    robot.unsubscribe('thermal/restored/image_raw')
    assert restored.header.frame_id == 'visible_optical_frame'
    assert not decode(restored)[beyond].any()
    whole = inside > 20
    assert np.abs(grey(decode(restored)) - np.clip(expected, 0, 255))[whole].mean() < 0.7
    rings = [weights[(inside > low) & (inside <= low + 4)].mean() for low in (0, 4, 8, 12)]
    assert 0 < rings[0] < 0.3 * rings[3]
    assert rings == sorted(rings)
    steps = [np.abs(np.diff(weights, axis=axis)).max() for axis in (0, 1)]
    assert max(steps) < 0.15

    assert robot.set_parameter('registration_edge', 0.0) == (True, '')
    hard = robot.fuse(visible=visible, thermal=thermal)
    assert hard.weights['thermal'][(inside > 1) & (inside < 3)].mean() > 0.4
    assert not hard.weights['thermal'][beyond].any()

    for name, value in MEAN.items():
        assert robot.set_parameter(name, value) == (True, '')
    mean = robot.fuse(visible=visible, thermal=thermal)
    expected = (grey(visible) + np.clip(expected, 0, 255)) / 2
    assert np.abs(grey(mean.image) - expected)[reached].mean() < 0.7

    # Against the cameras that need no registration, and those that would have needed one.
    robot.start_anew(counts)
    assert 'aligned' in robot.diagnose().values['registration']
    good = robot.fuse(visible=visible, thermal=aligned)
    bad = robot.fuse(visible=visible, thermal=thermal)
    deep = inside > 20
    error, without = (np.abs(grey(a.image) - grey(good.image))[deep].mean() for a in (soft, bad))
    assert error < min(3, 0.4 * without)


def test_images_of_other_sizes_are_dropped_until_they_fit_again(robot, street, registration):
    visible, thermal, _ = street
    robot.start_anew({'thermal_to_visible': registration})
    robot.fuse(visible=visible, thermal=thermal)
    half = np.ascontiguousarray(thermal[::2, ::2])
    robot.send_pair(visible=visible, thermal=half)
    robot.until(lambda: robot.counter('dropped: registration') == 1)
    found = robot.diagnose()
    assert found.level == DiagnosticStatus.WARN
    assert 'not registered: the registration is for' in found.text
    reason = found.values['last error']
    for size in ('192x160', '160x128', '80x64'):
        assert size in reason
    before = robot.counter('fused')
    robot.fuse(visible=visible, thermal=thermal)
    robot.until(lambda: robot.counter('fused') > before)
    assert robot.counter('dropped: registration') == 1
    assert robot.counter('dropped: fusion error') == 0
    robot.until(lambda: robot.level == DiagnosticStatus.OK)
    # If it may, the visible image goes on alone.
    assert robot.set_parameter('missing_modality', 'visible') == (True, '')
    alone = robot.fuse(visible=visible, thermal=half)
    np.testing.assert_array_equal(alone.image, visible)
    assert (alone.weights['visible'] == 1).all()
    robot.until(lambda: robot.counter('thermal left out') == 1)
    assert robot.counter('dropped: registration') == 1
    assert 'thermal images are refused: the registration is for' in robot.diagnose().text


def test_the_thermal_camera_alone_is_black_where_it_does_not_reach(robot, street, registration):
    visible, thermal, _ = street
    parameters = {'missing_modality': 'thermal', 'stale_timeout': 0.6}
    robot.start_anew({**parameters, 'thermal_to_visible': registration})
    robot.fuse(visible=visible, thermal=thermal)
    outputs = []

    def goes_alone():
        outputs.append(robot.output(robot.send_one('thermal', thermal).stamp, 0.1))
        return outputs[-1] is not None

    robot.until(goes_alone)
    inside = border_distance(true_homography(WARP, THERMAL_SIZE, SIZE))
    image = grey(outputs[-1].image)
    assert not image[inside < -1].any()
    assert image[inside > 16].std() > 20
    assert (outputs[-1].weights['thermal'] == 1).all()


@pytest.mark.parametrize(
    ('text', 'reason'),
    [
        (None, 'registration.yaml'),
        ('thermal_size: [160, 128]\nvisible_size: [192, 160]\n', 'thermal_to_visible'),
        (
            'thermal_size: [160, 128]\nvisible_size: [192, 160]\n'
            'thermal_to_visible: [[1, 0, 0], [1, 0, 0], [0, 0, 1]]\n',
            'thermal_to_visible',
        ),
    ],
    ids=['missing', 'incomplete', 'singular'],
)
def test_a_bad_file_fails_configuration_and_can_be_put_right(
    robot, street, registration, tmp_path, text, reason
):
    path = tmp_path / 'bad_registration.yaml'
    if text is not None:
        path.write_text(text)
    robot.start_anew({})
    robot.clean_up()
    assert robot.set_parameter('thermal_to_visible', str(path)) == (True, '')
    assert not robot.change_state('configure')
    found = robot.diagnose()
    assert found.level == DiagnosticStatus.ERROR
    assert str(path) in found.text
    assert reason in found.text
    assert robot.state() == 'unconfigured'
    assert robot.set_parameter('thermal_to_visible', registration) == (True, '')
    assert robot.change_state('configure')
    assert robot.change_state('activate')
    robot.fuse(visible=street[0], thermal=street[1])
    robot.until(lambda: robot.level == DiagnosticStatus.OK)


# Cameras beside each other that look at a wall, each through a lens of its own

WALL_DISTANCE = 4.0
WALL_METRES_PER_PIXEL = 0.015
TURN_DEGREES = (1.5, -2.0, 3.0)
SHIFT = np.array([0.3, -0.1, 0.05])


def wall_cameras():
    """Return the visible and the thermal camera."""
    turn = np.eye(3)
    for axis, degrees in enumerate(TURN_DEGREES):
        turn = cv2.Rodrigues(np.radians(degrees) * np.eye(3)[axis])[0] @ turn
    (width, height), (across, down) = SIZE, THERMAL_SIZE
    matrix = np.array([[170.0, 0, width / 2 - 3], [0, 172.0, height / 2 + 2], [0, 0, 1]])
    thermal_matrix = np.array([[150.0, 0, across / 2 + 2], [0, 149.0, down / 2 - 1], [0, 0, 1]])
    return (
        CameraGeometry(matrix, np.array([-0.2, 0.05, 0.002, -0.001, 0.0]), SIZE, np.eye(3)),
        CameraGeometry(thermal_matrix, np.array([-0.25, 0.06, 0, 0, 0]), THERMAL_SIZE, turn),
    )


def look_at_wall(camera, position, wall):
    """Return what a camera sees of a wall with the picture of a scene on it, by OpenCV."""
    width, height = camera.size
    x, y = np.meshgrid(np.arange(width, dtype=float), np.arange(height, dtype=float))
    pixels = np.stack([x.ravel(), y.ravel()], axis=1)[:, np.newaxis]
    seen = cv2.undistortPoints(pixels, camera.matrix, camera.distortion)[:, 0]
    rays = np.column_stack([seen, np.ones(len(seen))]) @ camera.rotation.T
    points = position + rays * ((WALL_DISTANCE - position[2]) / rays[:, 2])[:, np.newaxis]
    centre = np.array([wall.shape[1] / 2, wall.shape[0] / 2])
    way = points[:, :2] / WALL_METRES_PER_PIXEL + centre
    way = way.reshape(height, width, 2).astype(np.float32)
    return cv2.remap(wall, way, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)


def test_camera_info_and_extrinsics_remove_both_lenses_and_the_parallax(robot, tmp_path):
    visible_camera, thermal_camera = wall_cameras()
    scene = SyntheticScene(480, 400, seed=2).render(0.0, noise=False)
    walls = [cv2.GaussianBlur(image, (0, 0), 1.5) for image in (scene.visible, scene.thermal)]
    visible = look_at_wall(visible_camera, np.zeros(3), walls[0])
    thermal = look_at_wall(thermal_camera, SHIFT, walls[1])
    # What a thermal camera in place of the visible one would see.
    aligned = look_at_wall(visible_camera, np.zeros(3), walls[1])
    counts = fixed_range(aligned)
    expected = (grey(visible) + intensities(aligned, counts)) / 2

    path = tmp_path / 'extrinsics.yaml'
    path.write_text(f'rpy_degrees: {list(TURN_DEGREES)}\ntranslation: {SHIFT.tolist()}\n')
    robot.start_anew({**counts, **MEAN, 'extrinsics': str(path), 'plane_distance': WALL_DISTANCE})
    infos = {
        camera: robot.node.create_publisher(CameraInfo, f'{name}/camera_info', robot.reliable)
        for name, camera in (('visible', visible_camera), ('thermal', thermal_camera))
    }
    for publisher in infos.values():
        robot.until(publisher.get_subscription_count)

    def introduce(camera):
        infos[camera].publish(camera_info(camera, robot.header()))
        robot.send_pair(visible=visible, thermal=thermal)
        robot.spin(0.2)

    def says(what):
        introduce(visible_camera)
        return what in robot.values['last error'] and robot.counter('dropped: registration')

    robot.until(lambda: says('no thermal/camera_info has come yet'))
    assert 'waits' in robot.diagnose().values['registration']
    assert robot.counter('fused') == 0

    def registered():
        introduce(thermal_camera)
        return robot.counter('fused')

    robot.until(registered)
    assert 'from camera_info, right at 4 m' in robot.diagnose().values['registration']
    output = robot.fuse(visible=visible, thermal=thermal)
    # As far as the thermal camera reaches, without the soft edge.
    inside = output.weights['thermal'] > 0.499
    assert 0.4 < inside.mean() < 0.95
    error = np.abs(grey(output.image) - expected)[inside].mean()
    assert error < 0.7

    # At another distance than that of the wall the images are off by the parallax.
    assert robot.set_parameter('plane_distance', 2 * WALL_DISTANCE) == (True, '')
    output = robot.fuse(visible=visible, thermal=thermal)
    inside &= output.weights['thermal'] > 0.499
    assert np.abs(grey(output.image) - expected)[inside].mean() > 4 * error
    for publisher in infos.values():
        robot.node.destroy_publisher(publisher)


@pytest.mark.skipif(find_spec('tf2_ros') is not None, reason='tf2_ros is installed')
def test_extrinsics_from_tf_say_what_they_need(robot):
    robot.clean_up()
    assert robot.set_parameter('extrinsics', 'tf') == (True, '')
    assert not robot.change_state('configure')
    found = robot.diagnose()
    assert found.level == DiagnosticStatus.ERROR
    assert 'extrinsics: tf needs tf2_ros' in found.text
    assert "give a YAML file's path" in found.text


def misalignment(values):
    """Return the pixels that diagnostics tell, or None where they do not."""
    found = re.match(r'[\d.]+', values.get('misalignment (px)', ''))
    return float(found[0]) if found else None


def test_the_monitor_warns_of_images_that_do_not_match(robot, registration):
    street = {'width': SIZE[0], 'height': SIZE[1], 'thermal_size': list(THERMAL_SIZE)}
    street.update(visible_rate=8.0, thermal_rate=8.0, count=60)
    warp = [WARP.rotation, WARP.scale, WARP.shift_x, WARP.shift_y]
    robot.start_anew({'thermal_to_visible': registration, 'alignment_period': 0.3})
    assert robot.diagnose().values['misalignment (px)'] == 'not measured'
    with cameras(robot.domain, {**street, 'thermal_warp': warp}):
        robot.until(lambda: misalignment(robot.values) is not None)
        first = len(robot.diagnoses)
        robot.until(lambda: len(robot.diagnoses) >= first + 5)
    measured = [misalignment(d.values) for d in robot.diagnoses[first:]]
    assert max(pixels for pixels in measured if pixels is not None) < 2
    assert not any('pixels off' in d.text for d in robot.diagnoses[first:])

    # Knocked to the right by 11.5 pixels: what it sees comes to lie to the left.
    robot.start_anew({'thermal_to_visible': registration, 'alignment_period': 0.3})
    warp[2] += 0.06
    with cameras(robot.domain, {**street, 'thermal_warp': warp}):
        robot.until(lambda: 'pixels off' in robot.text)
    assert robot.level == DiagnosticStatus.WARN
    assert 'calibrate the cameras again' in robot.text
    assert 9 < misalignment(robot.values) < 14
    assert re.search(r'(9|1[0-3])\.\d too far left', robot.values['misalignment (px)'])


def test_a_declared_resolution_is_undone_while_fusing(robot):
    aligned = ImperfectCameras(SIZE)
    sparse = ImperfectCameras(SIZE, (SIZE[0] // 4, SIZE[1] // 4))
    scene = SyntheticScene(*SIZE, seed=3).render(0.0, noise=False)
    visible = scene.visible
    full, few = (cams.look('thermal', scene.thermal) for cams in (aligned, sparse))
    assert few.shape == (SIZE[1] // 4, SIZE[0] // 4)
    robot.start_anew(fixed_range(full))
    wanted = grey(robot.fuse(visible=visible, thermal=full).image)

    def error():
        image = grey(robot.fuse(visible=visible, thermal=few).image)
        return float(np.sqrt(np.mean((image - wanted) ** 2)))

    assert robot.set_parameter('fusion.thermal_degradation', 'none') == (True, '')
    without = error()
    for text in ('x4', 'x4, noise auto', 'lepton'):
        assert robot.set_parameter('fusion.thermal_degradation', text) == (True, '')
        assert error() < 0.95 * without, text
    successful, reason = robot.set_parameter('fusion.thermal_degradation', 'x4, fog 3')
    assert not successful
    assert 'fog' in reason
    assert robot.parameters()['fusion.thermal_degradation'][0] == 'lepton'
    # Live and back: without it, nothing of it is left.
    assert robot.set_parameter('fusion.thermal_degradation', 'none') == (True, '')
    assert error() == pytest.approx(without)
    robot.until(lambda: robot.level == DiagnosticStatus.OK)
