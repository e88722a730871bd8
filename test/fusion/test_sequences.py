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
"""Two folders, two iterables and two videos, fused pair by pair."""

import cv2
import numpy as np
import pytest

from dig2dig_ros.fusion.fuser import Fuser, FusionInputError, NotFiniteError
from dig2dig_ros.images.thermal_range import ThermalRange

SHAPE = (48, 64)
ROWS, COLUMNS = np.indices(SHAPE)
VISIBLE = np.dstack([(ROWS * 5) % 256, (COLUMNS * 3) % 256, (ROWS + COLUMNS) * 2]).astype(np.uint8)
COUNTS = (8000 + 10 * ROWS).astype(np.uint16)


@pytest.fixture(scope='module')
def fuser():
    return Fuser(prior='nano', device='cpu', precision='fp32')


def write(path, image):
    path.parent.mkdir(exist_ok=True)
    assert cv2.imwrite(str(path), image)


def write_video(path, frames, rate=10.0):
    codec = {'.mp4': 'mp4v', '.avi': 'MJPG'}[path.suffix]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), rate, SHAPE[::-1])
    assert writer.isOpened()
    for frame in frames:
        writer.write(frame if frame.ndim == 3 else cv2.merge([frame] * 3))
    writer.release()
    return path


def read_video(path):
    capture = cv2.VideoCapture(str(path))
    frames = []
    while (read := capture.read())[0]:
        frames.append(read[1])
    return frames, capture.get(cv2.CAP_PROP_FPS)


def levels(*values):
    """Return grey frames of these levels."""
    return [np.full(SHAPE, value, np.uint8) for value in values]


def test_folders_are_paired_by_name(fuser, tmp_path):
    for name in ('b', 'a', 'alone'):
        write(tmp_path / 'visible' / f'{name}.png', VISIBLE if name == 'a' else VISIBLE[::-1])
    for name in ('b', 'a'):
        write(tmp_path / 'thermal' / f'{name}.tif', COUNTS)
    first, second = fuser.fuse_many(tmp_path / 'visible', str(tmp_path / 'thermal'))
    assert (first.name, second.name) == ('a', 'b')
    assert np.array_equal(first.image, fuser(VISIBLE, COUNTS).image)


def test_results_come_as_they_are_asked_for(fuser):
    asked = []

    def frames(image):
        for index in range(3):
            asked.append(index)
            yield image

    results = fuser.fuse_many(frames(VISIBLE), frames(COUNTS))
    assert asked == []
    next(results)
    assert asked == [0, 0]
    assert len(list(results)) == 2


def test_the_range_of_counts_follows_the_scene(fuser):
    hot = COUNTS.copy()
    hot[20:30, 20:30] = 9500
    sequence = [COUNTS, hot]
    scenes = [result.image for result in fuser.fuse_many([VISIBLE] * 2, sequence, rate=10)]
    range_ = ThermalRange()
    for index, counts in enumerate(sequence):
        mapped = range_(counts, index / 10)
        assert np.array_equal(scenes[index], fuser.fuse(VISIBLE, mapped).image)
    alone = fuser(VISIBLE, hot).image
    assert not np.array_equal(scenes[1], alone)
    still = fuser.fuse_many([VISIBLE] * 2, sequence, thermal_range=ThermalRange(smoothing=0))
    assert np.array_equal(list(still)[1].image, alone)


def test_weight_maps_can_be_left_out(fuser, tmp_path):
    for wanted, count in ((True, 2), (False, 0)):
        (result,) = fuser.fuse_many([VISIBLE], [COUNTS], weight_maps=wanted)
        assert len(result.weights) == len(result.contributions) == count
        video = write_video(tmp_path / 'a.avi', levels(40, 80))
        shown = []
        output = tmp_path / 'out.avi'
        fuser.fuse_video(video, video, output, show=shown.append, weight_maps=wanted)
        assert [len(result.weights) for result in shown] == [count] * 2


@pytest.mark.parametrize(
    ('visible', 'thermal', 'words'),
    [
        ('none', 'none', 'no images in none: it does not exist; fuse_many takes two folders'),
        ('.', [VISIBLE], 'visible is of type str: fuse_many takes two folders, or two iterables'),
        (VISIBLE, COUNTS, r'visible is of type ndarray: .* call fuser\(visible, thermal\)'),
        ([VISIBLE], [COUNTS] * 2, 'there are 1 visible and 2 thermal images'),
    ],
)
def test_mistakes_are_found_before_the_first_pair(
    fuser, visible, thermal, words, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FusionInputError, match=words):
        fuser.fuse_many(visible, thermal)
    with pytest.raises(TypeError, match="did you mean 'temperature'"):
        fuser.fuse_many([], [], temprature=1)
    with pytest.raises(ValueError, match='rate is 0, but must be above 0'):
        fuser.fuse_many([], [], rate=0)


def test_mistakes_in_a_sequence_say_where(fuser):
    with pytest.raises(FusionInputError, match='thermal ends after 1 images, but visible goes on'):
        list(fuser.fuse_many(iter([VISIBLE] * 2), iter([COUNTS])))
    with pytest.raises(FusionInputError, match=r'visible\[1\] is None'):
        list(fuser.fuse_many([VISIBLE, None], [COUNTS] * 2))


def test_a_video_ends_where_it_is_shown_to_end(fuser, tmp_path):
    video = write_video(tmp_path / 'a.avi', levels(40, 80, 120))
    output = tmp_path / 'out.avi'
    seen, progress = [], []

    def second_is_enough(result):
        seen.append(result)
        return len(seen) < 2

    how = {'show': second_is_enough, 'progress': lambda *of: progress.append(of)}
    assert fuser.fuse_video(video, video, output, **how) == 2
    assert progress == [(1, 3), (2, 3)]
    assert [frame.mean() for frame in read_video(output)[0]] == pytest.approx([40, 80], abs=6)


@pytest.mark.parametrize('suffix', ['.mp4', '.avi', '.mkv', '.webm'])
def test_videos_of_one_rate_are_paired_by_number(fuser, tmp_path, suffix):
    visible = write_video(tmp_path / 'visible.mp4', levels(40, 80, 120, 160))
    thermal = write_video(tmp_path / 'thermal.avi', levels(40, 80, 120))
    output = tmp_path / f'fused{suffix}'
    seen = []
    done = fuser.fuse_video(visible, thermal, output, progress=lambda *of: seen.append(of))
    assert done == 3
    assert seen == [(1, 3), (2, 3), (3, 3)]
    frames, rate = read_video(output)
    assert rate == pytest.approx(10)
    assert [frame.shape for frame in frames] == [(*SHAPE, 3)] * 3
    # Two flat images of one level are that level.
    assert [frame.mean() for frame in frames] == pytest.approx([40, 80, 120], abs=6)
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted(
        ['visible.mp4', 'thermal.avi', output.name]
    )


def shown_levels(fuser, visible, thermal, output, **how):
    """Return the levels of the thermal frames that were fused."""
    shown = []
    fuser.fuse_video(visible, thermal, output, show=shown.append, thermal_strength=1.0, **how)
    return [round(float(result.image.mean()) / 40) * 40 for result in shown]


def test_videos_of_other_rates_are_paired_by_time(fuser, tmp_path):
    visible = write_video(tmp_path / 'visible.mp4', [VISIBLE] * 6)
    thermal = write_video(tmp_path / 'thermal.avi', levels(40, 120, 200), rate=5)
    output = tmp_path / 'fused.mp4'
    # At 0, 0.1 ... 0.5 s; in the middle between two, the later one.
    assert shown_levels(fuser, visible, thermal, output) == [40, 120, 120, 200, 200, 200]
    # Thermal frames at 0.25, 0.45 and 0.65 s: more than a period of theirs after the first one.
    later = shown_levels(fuser, visible, thermal, output, thermal_time_offset=0.25)
    assert later == [40, 40, 40, 120, 120]


@pytest.mark.parametrize(
    ('visible', 'thermal', 'output', 'words'),
    [
        ('none.mp4', 'a.avi', 'out.mp4', 'cannot read none.mp4: no such file'),
        ('a.avi', 'text.mp4', 'out.mp4', 'cannot read text.mp4: it is no MP4, MOV, MKV, WebM or'),
        ('a.avi', 'cut.avi', 'out.mp4', r'cannot read cut.avi: it is damaged'),
        ('a.avi', 'a.avi', 'out.gif', 'out.gif cannot be written: a video is one of .mp4, .mkv'),
        ('a.avi', 'a.avi', 'new/out.mp4', 'there is no folder new'),
        ('a.avi', 'a.avi', './a.avi', 'a.avi is one of the inputs: name another output'),
        ([VISIBLE], 'a.avi', 'out.mp4', 'visible is of type list, not the path of a video'),
    ],
)
def test_videos_that_cannot_be_fused_leave_nothing(
    fuser, visible, thermal, output, words, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'text.mp4').write_text('no video at all')
    data = write_video(tmp_path / 'a.avi', levels(40, 80)).read_bytes()
    (tmp_path / 'cut.avi').write_bytes(data[:40])
    before = sorted(tmp_path.iterdir())
    with pytest.raises(FusionInputError, match=words):
        fuser.fuse_video(visible, thermal, output)
    assert sorted(tmp_path.iterdir()) == before


class Damaged:
    """A prior that answers one pixel with a NaN."""

    def __init__(self, prior):
        self._prior = prior

    def __getattr__(self, name):
        return getattr(self._prior, name)

    def denoise(self, images, timesteps):
        estimates = self._prior.denoise(images, timesteps).clone()
        estimates[..., 3, 5] = float('nan')
        return estimates


def test_results_that_are_not_finite_are_neither_returned_nor_written(tmp_path):
    fuser = Fuser(prior='nano', device='cpu', precision='fp32')
    fuser.prior = Damaged(fuser.prior)
    with pytest.raises(NotFiniteError, match="not finite: denoiser 'nano' may be damaged"):
        next(fuser.fuse_many([VISIBLE], [COUNTS]))
    with pytest.raises(NotFiniteError):
        fuser([VISIBLE], [COUNTS])
    video = write_video(tmp_path / 'a.avi', levels(40, 80))
    with pytest.raises(NotFiniteError):
        fuser.fuse_video(video, video, tmp_path / 'out.mp4')
    assert list(tmp_path.iterdir()) == [video]


def test_a_video_that_fails_in_the_middle_leaves_what_was_there(fuser, tmp_path):
    video = write_video(tmp_path / 'a.avi', levels(40, 80))
    output = tmp_path / 'out.mp4'
    output.write_text('before')

    def stop(result):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fuser.fuse_video(video, video, output, show=stop)
    assert output.read_text() == 'before'
    assert len(list(tmp_path.iterdir())) == 2
    with pytest.raises(FusionInputError, match=r'no frames of .* thermal_time_offset 9 s moves'):
        fuser.fuse_video(video, video, output, thermal_time_offset=9)
