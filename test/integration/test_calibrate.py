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

"""The command dig2dig calibrate on live topics, as a process over real DDS."""

from contextlib import contextmanager
import signal
import subprocess
import sys

import numpy as np
import pytest

from dig2dig_ros.evaluation.imperfect_cameras import true_homography, Warp
from dig2dig_ros.images.alignment import corner_distance
from dig2dig_ros.images.registration_file import load_registration
from integration.harness import environment, ros_arguments

VISIBLE, THERMAL = (192, 144), (128, 96)
WARP = (3.0, 1.1, 0.05, -0.04)
CAMERAS = {
    'width': VISIBLE[0],
    'height': VISIBLE[1],
    'thermal_size': list(THERMAL),
    'thermal_warp': list(WARP),
    'visible_rate': 10.0,
    'thermal_rate': 5.0,
}


class Calibration:
    """The command as a process."""

    def __init__(self, domain, *arguments):
        command = [sys.executable, '-m', 'dig2dig_ros', 'calibrate', '--live']
        self.process = subprocess.Popen(
            [*command, *map(str, arguments)],
            env={**environment(domain), 'OMP_NUM_THREADS': '1'},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def finish(self, timeout=120):
        """Return the exit code and what was printed."""
        output, _ = self.process.communicate(timeout=timeout)
        return self.process.returncode, output

    def wait_until_it_listens(self):
        assert any('listening to' in line for line in self.process.stdout)

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()


@contextmanager
def calibration(domain, *arguments):
    process = Calibration(domain, *arguments)
    try:
        yield process
    finally:
        process.close()


@contextmanager
def pair_camera(domain, parameters, *arguments):
    process = subprocess.Popen(
        [
            *(sys.executable, '-m', 'dig2dig_ros.tools.pair_camera'),
            *ros_arguments({**CAMERAS, **parameters}),
            *arguments,
        ],
        env=environment(domain),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture
def output(tmp_path):
    return tmp_path / 'registration.yaml'


def test_remapped_topics_with_distorted_lenses_give_the_registration(domain, output):
    distortion = {'visible_distortion': [-0.2, 0.02], 'thermal_distortion': [-0.25, 0.03]}
    remappings = []
    for source in ('visible', 'thermal'):
        # The camera_info beside it is found without being named.
        remappings += ['-r', f'{source}/image_raw:=/robot/{source}/image_raw']
    with (
        pair_camera(domain, distortion, '-r', '__ns:=/robot'),
        calibration(
            domain,
            *('--output', output, '--frames', 3, '--interval', 0.8),
            *('--ros-args', *remappings),
        ) as process,
    ):
        code, printed = process.finish()
    assert code == 0, printed
    found = load_registration(output)
    truth = true_homography(Warp(*WARP), THERMAL, VISIBLE)
    assert corner_distance(found.thermal_to_visible, truth, THERMAL) < 1.0
    np.testing.assert_allclose(found.visible_camera.distortion[:2], (-0.2, 0.02))
    np.testing.assert_allclose(found.thermal_camera.distortion[:2], (-0.25, 0.03))
    assert 'of /robot/visible/image_raw and /robot/thermal/image_raw' in printed
    assert output.with_suffix('.png').is_file()


def test_compressed_topics_are_found_without_being_asked_for(domain, tmp_path):
    page = tmp_path / 'page.html'
    compressed = {'visible_transport': 'compressed', 'thermal_transport': 'compressed'}
    with (
        pair_camera(domain, compressed),
        calibration(domain, '--click', page, '--frames', 2, '--interval', 0.5) as process,
    ):
        code, printed = process.finish()
    assert code == 0, printed
    assert page.read_text().count('"name"') == 2


def test_silence_ends_at_the_timeout_with_the_topics(domain, output):
    arguments = ['--timeout', 1, '--ros-args', '-r', 'thermal/image_raw:=/lwir/image_raw']
    with calibration(domain, '-o', output, *arguments) as process:
        code, printed = process.finish()
    assert code == 2
    assert printed.strip().splitlines()[-1] == (
        'dig2dig calibrate: no pairs within 1 s: nothing came on the topic of the camera '
        'visible (/visible/image_raw) and thermal (/lwir/image_raw); check the names'
    )
    assert not output.exists()


def test_ctrl_c_ends_it_and_nothing_is_written(domain, output):
    with calibration(domain, '-o', output) as process:
        process.wait_until_it_listens()
        process.process.send_signal(signal.SIGINT)
        code, printed = process.finish()
    assert code == 130, printed
    assert printed.strip().splitlines()[-1].endswith('interrupted, nothing is written')
    assert not output.exists()
