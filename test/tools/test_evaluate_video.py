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

"""The command evaluate_video on the small built-in scene and on a small bag."""

import cv2
import numpy as np
import pytest

from dig2dig_ros.evaluation.synthetic_scene import SyntheticScene
from dig2dig_ros.tools.evaluate_video import HEADER, main, REFERENCE

OPTIONS = ['--device', 'cpu', '--params', 'realtime', '--limit', '3']


def tables(output):
    """Return the tables by title, each as its rows by name and column."""
    found = {}
    for block in output.split('\n\n'):
        if block.endswith(':'):
            title = block.strip().removesuffix(':')
        elif block.startswith('|'):
            lines = [[cell.strip() for cell in line.strip('|').split('|')] for line in
                     block.splitlines()]  # fmt: skip
            assert tuple(lines[0]) == HEADER
            found[title] = {line[0]: dict(zip(HEADER, line, strict=True)) for line in lines[2:]}
    return found


def test_the_scene_with_a_camera_that_stands_still_and_one_that_sways(capsys):
    rows = 'fused:prior_downscale=1,gain_reuse=2,fused:prior_downscale=1'
    assert main([*OPTIONS, '--size', '96x80', '--compare', rows]) == 0
    still, sways = tables(capsys.readouterr().out).values()
    for table in (still, sways):
        assert list(table) == [
            REFERENCE,
            'prior_downscale=1,gain_reuse=2',
            'prior_downscale=1',
        ]
        assert table[REFERENCE]['PSNR'] == '∞'
        assert table[REFERENCE]['times'] == '1.00'
        assert table['prior_downscale=1']['reused'] == '0.00'
        assert float(table['prior_downscale=1']['PSNR']) > 25
    assert float(still['prior_downscale=1,gain_reuse=2']['reused']) > 0


def test_a_bag(tmp_path, capsys):
    pytest.importorskip('rosbags')
    from evaluation.bag_files import image, START, write_bag

    rng = np.random.default_rng(0)
    thermal = cv2.GaussianBlur(rng.integers(0, 256, (80, 96), np.uint8), (0, 0), 2)
    messages = []
    for index in range(4):
        stamp = START + index * 100_000_000
        visible = cv2.cvtColor(thermal[::-1], cv2.COLOR_GRAY2BGR)
        messages.append(('/camera/image_raw', image(stamp, visible), stamp))
        messages.append(('/thermal/image_raw', image(stamp, thermal), stamp + 1))
    bag = write_bag(tmp_path / 'drive', 'mcap', messages)
    rows = 'fused:gain_reuse=4'
    assert main([str(bag), *OPTIONS, '--compare', rows]) == 0
    (table,) = tables(capsys.readouterr().out).values()
    # Nothing moves: after the first of three pairs, all is reused.
    assert table['gain_reuse=4']['reused'] == '0.67'
    assert table['gain_reuse=4']['PSNR'] == '∞'
    assert table['gain_reuse=4']['ghosts'] == ''


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        (['--compare', 'mean'], 'mean has no prior'),
        (['--compare', 'fused:gain_reuse=-1'], 'gain_reuse is -1'),
        (['--compare', 'best'], 'best is unknown'),
        (['/nowhere/drive'], '/nowhere/drive'),
    ],
)
def test_what_cannot_be_done_is_told(capsys, arguments, words):
    assert main([*OPTIONS, *arguments]) == 2
    assert words in capsys.readouterr().err


def test_a_camera_that_stands_still():
    scene = SyntheticScene(96, 80, sways=False)
    # The upper corners show houses and sky alone.
    one, other = (scene.render(time, noise=False).visible[:20] for time in (0.0, 3.0))
    assert (one == other).mean() > 0.9
    swaying = SyntheticScene(96, 80)
    one, other = (swaying.render(time, noise=False).visible[:20] for time in (0.0, 3.0))
    assert (one == other).mean() < 0.9
