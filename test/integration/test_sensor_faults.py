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

"""Cameras that freeze, fade, go, come back, and change, and a node that goes on."""

from itertools import cycle, pairwise
import re

import cv2
from diagnostic_msgs.msg import DiagnosticStatus
import numpy as np
import pytest
from sensor_msgs.msg import Image

from dig2dig_ros.evaluation.synthetic_scene import SyntheticScene
from dig2dig_ros.nodes.client import drops, is_settled, waiting_images
from dig2dig_ros.streams.codec import encode
from dig2dig_ros.streams.pairing import SOURCES
from integration.harness import cameras, MEAN

WIDTH, HEIGHT = 160, 128
PARAMETERS = {
    'prior': 'nano',
    'warmup_size': [WIDTH, HEIGHT],
    'weights_encoding': '32FC1',
    'alignment_period': 0.0,
    # Longer than any pause of a busy machine.
    'stale_timeout': 30.0,
}


@pytest.fixture(scope='module')
def frames():
    """Return pairs of a moving street, a tenth of a second apart."""
    scene = SyntheticScene(WIDTH, HEIGHT, seed=1)
    return [(frame.visible, frame.thermal) for frame in map(scene.render, np.arange(20) / 10)]


@pytest.fixture
def film(frames):
    """Return an endless iterator over the pairs."""
    return cycle(frames)


def play(robot, film, number, alter=lambda visible, thermal: (visible, thermal)):
    """Fuse pairs of the film, altered, and return what came of them."""
    outputs = []
    for _ in range(number):
        visible, thermal = alter(*next(film))
        outputs.append(robot.fuse(visible=visible, thermal=thermal))
    return outputs


def mean_weights(outputs, source='thermal'):
    return [float(output.weights[source].mean()) for output in outputs]


def steps(weights, full):
    """Return how many of the weights are between none and those of a sound camera."""
    return sum(0.05 * full < weight < 0.9 * full for weight in weights)


def check_restored_alone(robot, source, header):
    """Check that the restored image of this source came, and none of the other."""
    (other,) = {'visible', 'thermal'} - {source}
    robot.until(lambda: robot.of_header(f'{source}/restored/image_raw', header))
    robot.spin(0.1)
    assert not robot.of_header(f'{other}/restored/image_raw', header)


def send_alone(robot, film, source):
    """Send images of one camera until something comes of one; return its header and output."""
    index = ('visible', 'thermal').index(source)
    for _ in range(300):
        image = next(film)[index]
        header = robot.send_one(source, image)
        output = robot.output(header.stamp, 0.1)
        if output is not None:
            return header, image, output
    raise AssertionError(f'nothing comes of {source} alone; diagnostics: {robot.values}')


def test_a_missing_camera_is_waited_for_or_not(robot, film):
    robot.start_anew({'stale_timeout': 1.0})
    for source in SOURCES:
        robot.subscribe(f'{source}/restored/image_raw')
    full = mean_weights(play(robot, film, 4))[-1]
    assert full > 0.2
    robot.until(lambda: robot.counter('fused') >= 4)

    # wait: nothing goes on
    fused = robot.counter('fused')
    for _ in range(15):
        robot.send_one('visible', next(film)[0])
        robot.spin(0.1)
    found = robot.diagnose()
    assert found.level == DiagnosticStatus.WARN
    assert re.search(r'no thermal image on /thermal/image_raw for \d', found.text)
    assert 'alone' not in found.text
    assert found.values['thermal condition'] == 'missing'
    assert robot.counter('fused') == fused
    assert robot.counter('visible alone') == 0

    # visible: it goes on, and is the fused image
    assert robot.set_parameter('missing_modality', 'visible') == (True, '')
    header, image, output = send_alone(robot, film, 'visible')
    assert output.header == header
    np.testing.assert_array_equal(output.image, image)
    check_restored_alone(robot, 'visible', header)
    assert (output.weights['visible'] == 1).all()
    assert not output.weights['thermal'].any()
    found = robot.diagnose()
    assert found.level == DiagnosticStatus.WARN
    assert 'using the visible image alone' in found.text
    assert robot.counter('visible alone') >= 1
    assert robot.counter('dropped: visible without counterpart') >= 14

    # It is back: trusted step by step
    ramp = []
    for _ in range(40):
        visible, thermal = next(film)
        stamp = robot.header().stamp
        milliseconds = robot.clock
        robot.send_one('thermal', thermal, milliseconds + 10)
        robot.spin(0.03)
        robot.send_one('visible', visible, milliseconds)
        output = robot.output(stamp)
        ramp += [] if output is None else mean_weights([output])
        if ramp and ramp[-1] > 0.95 * full:
            break
    # Of the last time, should it have been late once more.
    ramp = ramp[max(index for index, weight in enumerate(ramp) if weight == 0) :]
    assert ramp == sorted(ramp)
    assert steps(ramp, full) >= 3
    assert ramp[-1] > 0.95 * full
    robot.until(lambda: play(robot, film, 1) and robot.level == DiagnosticStatus.OK)
    robot.until(lambda: play(robot, film, 1) and robot.values['thermal trust'] == '1.00')

    # thermal: an image of the size and in the frame of the visible camera
    assert robot.set_parameter('missing_modality', 'thermal') == (True, '')
    small = cycle([(v, np.ascontiguousarray(t[::2, ::2])) for v, t in (next(film),) * 2])
    header, _, output = send_alone(robot, small, 'thermal')
    assert output.header.stamp == header.stamp
    assert header.frame_id == 'thermal_optical_frame'
    assert output.header.frame_id == 'visible_optical_frame'
    assert output.image.shape == (HEIGHT, WIDTH, 3)
    check_restored_alone(robot, 'thermal', output.header)
    assert (output.weights['thermal'] == 1).all()
    assert not output.weights['visible'].any()
    found = robot.diagnose()
    assert found.level == DiagnosticStatus.WARN
    assert re.search(r'no visible image .* using the thermal image alone', found.text)

    # visible, and it is missing: nothing; any: the one that is there, whichever
    assert robot.set_parameter('missing_modality', 'visible') == (True, '')
    alone = robot.diagnose().values['thermal alone']
    header = robot.send_one('thermal', next(film)[1])
    assert robot.output(header.stamp, 0.6) is None
    assert robot.diagnose().values['thermal alone'] == alone
    assert robot.set_parameter('missing_modality', 'any') == (True, '')
    send_alone(robot, film, 'thermal')
    send_alone(robot, film, 'visible')
    for source in SOURCES:
        robot.unsubscribe(f'{source}/restored/image_raw')

    # Every image is accounted for: what waited was dropped when the last one went alone.
    values = robot.diagnose().values
    assert is_settled(values)
    assert waiting_images(values) == {'visible': 0, 'thermal': 0}


def test_a_frozen_thermal_image_fades_out_and_in(robot, film):
    robot.start_anew({})
    full = mean_weights(play(robot, film, 6))[-1]
    still = next(film)[1]

    frozen = mean_weights(play(robot, film, 14, lambda visible, thermal: (visible, still)))
    assert frozen[2] > 0.9 * full
    assert frozen[-1] == 0
    assert steps(frozen, full) >= 2
    found = robot.diagnose()
    assert found.level == DiagnosticStatus.WARN
    assert 'the thermal image has been frozen for 1' in found.text
    assert found.values['thermal condition'] == 'frozen'
    assert float(found.values['thermal trust']) == 0

    back = mean_weights(play(robot, film, 8))
    assert steps(back, full) >= 2
    assert back[:4] == sorted(back[:4])
    assert back[-1] > 0.9 * full
    found = robot.diagnose()
    assert found.values['thermal condition'] == 'sound'
    assert found.level == DiagnosticStatus.OK

    # A scene in which nothing moves
    pair = next(film)
    outputs = play(robot, film, 10, lambda visible, thermal: pair)
    assert min(mean_weights(outputs)) > 0.9 * full
    assert robot.diagnose().values['thermal condition'] == 'sound'


def test_thermal_stamps_that_stand_still_are_those_of_a_missing_camera(robot, film):
    robot.start_anew({'missing_modality': 'visible', 'stale_timeout': 1.0})
    play(robot, film, 4)
    stuck = robot.clock + 10

    def goes_alone():
        visible, thermal = next(film)
        robot.send_one('thermal', thermal, stuck)
        output = robot.output(robot.send_one('visible', visible).stamp, 0.1)
        return output is not None and not output.weights['thermal'].any()

    robot.until(goes_alone)
    found = robot.diagnose()
    assert found.level == DiagnosticStatus.WARN
    assert 'no thermal image' in found.text
    assert 'but images whose stamp stands still' in found.text
    assert robot.counter('dropped: thermal duplicate stamp') >= 1
    assert robot.counter('visible alone') >= 1

    ramp = mean_weights(play(robot, film, 8))
    assert 0 < ramp[-1] == pytest.approx(max(ramp), rel=0.1)
    assert steps(ramp, ramp[-1]) >= 2
    robot.until(lambda: play(robot, film, 1) and robot.level == DiagnosticStatus.OK)


def test_images_without_content_lose_their_weight_by_themselves(robot, film):
    robot.start_anew({})
    full = mean_weights(play(robot, film, 4))[-1]
    rng = np.random.default_rng(0)

    def covered_visible(visible, thermal):
        return rng.integers(0, 6, visible.shape, np.uint8), thermal

    def white_visible(visible, thermal):
        return np.full_like(visible, 255), thermal

    def blank_thermal(visible, thermal):
        return visible, np.full_like(thermal, 7000)

    def covered_thermal(visible, thermal):
        return visible, rng.normal(7000, 3, thermal.shape).astype(np.uint16)

    for alter, source, kind, text in (
        (covered_visible, 'visible', 'black', 'the visible image is all black'),
        (white_visible, 'visible', 'saturated', 'the visible image is saturated: 100 %'),
        (blank_thermal, 'thermal', 'blank', 'the thermal image is blank'),
        (covered_thermal, 'thermal', 'featureless', 'shows nothing but noise'),
    ):
        weights = mean_weights(play(robot, film, 6, alter), source)
        assert weights[-1] == 0, kind
        assert steps(weights, full) >= 2, kind
        found = robot.diagnose()
        assert found.level == DiagnosticStatus.WARN
        assert text in found.text
        assert found.values[f'{source} condition'] == kind
        back = play(robot, film, 7)
        assert mean_weights(back)[-1] == pytest.approx(full, rel=0.1)
        found = robot.diagnose()
        assert found.values[f'{source} condition'] == 'sound'
        assert found.level == DiagnosticStatus.OK


def test_a_dead_colour_channel_takes_weight_and_colour(robot, film):
    robot.start_anew({})
    full = mean_weights(play(robot, film, 4), 'visible')[-1]

    def without_green(visible, thermal):
        visible = visible.copy()
        visible[..., 1] = 0
        return visible, thermal

    outputs = play(robot, film, 6, without_green)
    # Green is more than half of the luma.
    assert 0 < mean_weights(outputs, 'visible')[-1] < 0.8 * full
    assert np.ptp(outputs[-1].image.astype(int), axis=2).max() <= 1
    found = robot.diagnose()
    assert found.level == DiagnosticStatus.WARN
    assert 'the green channel of the visible image is dead' in found.text
    assert found.values['visible condition'] == 'dead channel'
    outputs = play(robot, film, 6)
    assert mean_weights(outputs, 'visible')[-1] == pytest.approx(full, rel=0.1)
    assert np.ptp(outputs[-1].image.astype(int), axis=2).max() > 5
    assert robot.diagnose().level == DiagnosticStatus.OK


def disc(radius=13):
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return np.hypot(columns - 10, rows - HEIGHT // 2) < radius


def background_changes(outputs):
    """Return mean absolute changes in grey levels from one output to the next, off the disc."""
    far = ~disc(50)
    levels = [cv2.cvtColor(output.image, cv2.COLOR_BGR2GRAY)[far] for output in outputs]
    return [np.abs(b.astype(float) - a).mean() for a, b in pairwise(levels)]


def test_the_range_of_counts_neither_flickers_nor_lags(robot, frames, film):
    visible, thermal = frames[0]
    rng = np.random.default_rng(0)
    hot = np.where(disc(), 16000, thermal)

    def show(counts, number):
        """Show a scene in which only the noise changes."""
        noise = rng.normal(0, 3, (number, *counts.shape))
        pairs = iter([(visible, (counts + n).round().astype(np.uint16)) for n in noise])
        return play(robot, pairs, number)

    robot.start_anew({})
    before = show(thermal, 3)
    entering = background_changes(before[-1:] + show(hot, 8))
    assert max(entering) < 8

    # Without smoothing, the picture goes dark at once.
    robot.start_anew({'thermal_range_smoothing': 0.0})
    assert background_changes(show(thermal, 2) + show(hot, 1))[-1] > 3 * max(entering)

    # The whole level changes, as after a calibration: the same picture again after few frames.
    robot.start_anew({})
    before = show(thermal, 3)
    after = show(thermal + 2000, 4)
    assert background_changes([before[-1], after[-1]])[0] < 2

    # Limits in counts hold, whatever comes.
    low, high = float(thermal.min()) - 100, float(thermal.max()) + 100
    limits = {'thermal_range': 'fixed', 'thermal_range_limits': [low, high]}
    robot.start_anew({**MEAN, **limits})
    grey = cv2.cvtColor(visible, cv2.COLOR_BGR2GRAY)
    for counts in (thermal, hot, thermal + 2000):
        intensity = np.clip((counts - low) / (high - low), 0, 1) * 255
        (output,) = show(counts, 1)
        error = cv2.cvtColor(output.image, cv2.COLOR_BGR2GRAY) - (grey + intensity) / 2
        assert np.abs(error).mean() < 1.5


def test_a_colour_palette_is_refused_and_grey_taken_again(robot, film):
    robot.start_anew({'stale_timeout': 2.0})
    play(robot, film, 2)
    visible, thermal = next(film)
    levels = cv2.normalize(thermal, None, 0, 255, cv2.NORM_MINMAX, cv2.CV_8U)
    coloured = cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO)
    before = robot.diagnose().values
    for count in (1, 2):
        robot.send_pair(visible=visible, thermal=encode(coloured, 'bgr8', robot.header(), Image))
        robot.until(lambda n=count: robot.counter('dropped: thermal refused') == n)
    reason = robot.values['last error']
    assert 'thermal refused' in reason
    assert 'palette' in reason
    assert 'mono16' in reason
    assert robot.values['fused'] == before['fused']
    found = robot.diagnose()
    assert found.level == DiagnosticStatus.WARN
    assert 'thermal images are refused: the thermal image looks like' in found.text

    # The visible camera may go on without it, until grey comes.
    assert robot.set_parameter('missing_modality', 'visible') == (True, '')
    palette = encode(coloured, 'bgr8', robot.header(), Image)
    output = robot.fuse(visible=visible, thermal=palette)
    assert not output.weights['thermal'].any()
    np.testing.assert_array_equal(output.image, visible)
    found = robot.diagnose()
    assert 'thermal images are refused' in found.text
    assert int(found.values['thermal left out']) >= 1
    assert is_settled(found.values)
    ramp = mean_weights(play(robot, film, 6))
    assert ramp[0] == 0
    assert steps(ramp, ramp[-1]) >= 2

    # Grey in three channels is grey.
    grey = encode(cv2.cvtColor(levels, cv2.COLOR_GRAY2BGR), 'bgr8', robot.header(), Image)
    assert mean_weights([robot.fuse(visible=visible, thermal=grey)])[0] > 0.1
    play(robot, film, 1)
    robot.until(lambda: robot.level == DiagnosticStatus.OK)


def test_what_was_refused_before_a_configuration_is_not_news_after_it(robot, film):
    robot.start_anew({})
    visible, thermal = next(film)
    levels = cv2.normalize(thermal, None, 0, 255, cv2.NORM_MINMAX, cv2.CV_8U)
    coloured = cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO)
    robot.send_pair(visible=visible, thermal=encode(coloured, 'bgr8', robot.header(), Image))
    robot.until(lambda: 'thermal images are refused' in robot.text)

    robot.start_anew({})
    play(robot, film, 2)
    found = robot.diagnose()
    assert (found.level, found.text) == (DiagnosticStatus.OK, 'fusing')


def test_resolution_and_encoding_change_in_mid_stream(robot, film):
    robot.start_anew({})
    play(robot, film, 3)
    half = {
        'visible': lambda visible, thermal: (visible[::2, ::2].copy(), thermal),
        'thermal': lambda visible, thermal: (visible, thermal[::2, ::2].copy()),
    }
    (output,) = play(robot, film, 1, half['visible'])
    assert output.image.shape == (HEIGHT // 2, WIDTH // 2, 3)
    (output,) = play(robot, film, 1, half['thermal'])
    assert output.image.shape == (HEIGHT, WIDTH, 3)
    for visible_encoding, thermal_encoding in (
        ('bgr8', 'mono8'),
        ('mono8', '16UC1'),
        ('rgb8', 'mono16'),
        ('bgr8', '32FC1'),
    ):
        visible, thermal = next(film)
        if visible_encoding == 'mono8':
            visible = cv2.cvtColor(visible, cv2.COLOR_BGR2GRAY)
        if thermal_encoding == 'mono8':
            thermal = (thermal // 64).astype(np.uint8)
        elif thermal_encoding == '32FC1':
            thermal = (thermal / 100).astype(np.float32)
        output = robot.fuse(
            visible=encode(visible, visible_encoding, robot.header(), Image),
            thermal=encode(thermal, thermal_encoding, robot.header(), Image),
        )
        assert output.image.shape == (HEIGHT, WIDTH, 3)
        assert min(mean_weights([output], source)[0] for source in output.weights) > 0.1
    play(robot, film, 2)
    values = robot.diagnose().values
    assert values['visible resolution changes'] == '2'
    assert values['thermal resolution changes'] == '2'
    assert values['visible encoding changes'] == '3'
    assert values['thermal encoding changes'] == '5'
    assert not any(drops(values).values())
    assert (robot.level, robot.text) == (DiagnosticStatus.OK, 'fusing')


def test_stamps_that_never_match_are_told_with_their_offset(robot, film):
    robot.start_anew({'sync_tolerance': 0.01, 'stale_timeout': 1.0})

    def mismatched():
        visible, thermal = next(film)
        robot.send_pair(visible=visible, thermal=thermal, offset_ms=37)
        robot.spin(0.1)
        return 'no pair for' in robot.text

    robot.until(mismatched)
    assert robot.level == DiagnosticStatus.WARN
    assert 'both cameras send' in robot.text
    assert '0.037 s after the visible one' in robot.text
    assert 'thermal_time_offset' in robot.text
    # As the text says
    assert robot.set_parameter('thermal_time_offset', -0.037) == (True, '')
    visible, thermal = next(film)
    robot.fuse(visible=visible, thermal=thermal, offset_ms=37)
    robot.until(lambda: robot.level == DiagnosticStatus.OK)


def test_faults_of_compressed_streams_at_changing_rates_come_and_go(robot):
    transports = {'visible_transport': 'compressed', 'thermal_transport': 'compressed'}
    faults = {
        'freeze thermal 0.4 0.9': ('thermal', 'frozen', 'has been frozen for'),
        'cover thermal 1.8 0.8': ('thermal', 'featureless', 'shows nothing but noise'),
        'cover visible 3 0.8': ('visible', 'black', 'the visible image is all black'),
        'saturate visible 4.2 0.8': ('visible', 'saturated', 'the visible image is saturated'),
        'dead_channel visible 5.4 0.8 green': ('visible', 'dead channel', 'green channel'),
    }
    others = ['drop thermal 6.6 1.1', 'half_size thermal 8.2 0.4']
    patience = {'missing_modality': 'visible', 'stale_timeout': 0.6}
    robot.start_anew({**transports, **patience})
    first = len(robot.diagnoses)
    street = {'width': 96, 'height': 80, **transports}

    def show(visible_rate, thermal_rate, count, faults):
        camera = {'visible_rate': visible_rate, 'thermal_rate': thermal_rate, 'count': count}
        with cameras(robot.domain, {**street, **camera, 'faults': faults}) as process:
            robot.until(lambda: process.process.poll() is not None, 90, 'end of the cameras')
            assert process.process.returncode == 0, process.output()
        return robot.diagnose().values

    values = show(12.0, 8.0, 74, [*faults, *others])
    seen = robot.diagnoses[first:]
    for source, kind, text in faults.values():
        shown = [d for d in seen if d.values.get(f'{source} condition') == kind]
        assert any(d.level == DiagnosticStatus.WARN and text in d.text for d in shown), kind
        assert min(float(d.values[f'{source} trust']) for d in shown) < 0.6, kind
    assert any('using the visible image alone' in d.text for d in seen)
    assert int(values['visible alone']) >= 1
    assert values['thermal resolution changes'] == '2'
    assert int(values['fused']) >= 30
    good = {f'{source} condition': 'sound' for source in ('visible', 'thermal')}
    good.update({'visible trust': '1.00', 'thermal trust': '1.00'})
    good['thermal resolution changes'] = '2'
    assert any(good.items() <= d.values.items() for d in seen)

    # The thermal camera is the faster one now.
    faults = ['false_colour thermal 0.4 0.2', 'reencode thermal 0.8 0 mono8']
    before, values = values, show(5.0, 10.0, 15, faults)
    assert int(values['fused']) >= int(before['fused']) + 4
    assert int(values['thermal encoding changes']) >= 1
    assert int(values['thermal left out']) >= 1
    assert 'palette' in values['last error']
    assert values['dropped: fusion error'] == '0'
    assert is_settled(values)
