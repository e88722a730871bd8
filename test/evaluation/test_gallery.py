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

"""The choice of frames for the report page."""

import math

import cv2
import numpy as np
import pytest

from dig2dig_ros.evaluation.gallery import BEST, Gallery, GalleryFrame, jpeg, SPACED, WORST


def fill(gallery: Gallery, scores: list[float]) -> list[int]:
    """Add a frame for each score; return the indices of those whose pictures were made."""
    made = []

    def pictures(index: int) -> dict[str, bytes]:
        made.append(index)
        return {'fused': str(index).encode()}

    for index, score in enumerate(scores):
        facts = {'score': str(score)}
        gallery.add(index, f'pair {index}', score, lambda i=index: pictures(i), facts)
    return made


def labelled(frames: list[GalleryFrame], label: str) -> list[int]:
    return [frame.index for frame in frames if label in frame.labels]


@pytest.fixture
def scores() -> list[float]:
    return np.random.default_rng(4).permutation(2000).tolist()


def test_best_and_worst_are_those_of_the_whole_run(scores: list[float]) -> None:
    gallery = Gallery(best=4, worst=3, spaced=8)
    fill(gallery, scores)
    frames = gallery.frames()
    assert sorted(scores[i] for i in labelled(frames, BEST)) == [1996, 1997, 1998, 1999]
    assert sorted(scores[i] for i in labelled(frames, WORST)) == [0, 1, 2]


@pytest.mark.parametrize('length', [8, 9, 15, 16, 17, 100, 1999, 2000])
def test_spaced_frames_cover_the_run(length: int) -> None:
    gallery = Gallery(best=0, worst=0, spaced=8)
    fill(gallery, [0.0] * length)
    places = labelled(gallery.frames(), SPACED)
    assert len(places) == 8
    assert places[0] == 0
    # A quarter of the run is the least that doubling the stride guarantees; most have an eighth.
    assert max(np.diff([*places, length])) <= max(2, length / 4)
    assert min(np.diff(places)) >= max(1, length // 16)


def test_memory_is_bounded_and_pictures_are_made_for_few(scores: list[float]) -> None:
    gallery = Gallery(best=4, worst=4, spaced=8)
    made = fill(gallery, scores)
    assert len(gallery.frames()) <= 16
    assert len(made) < 120
    assert len(made) == len(set(made))


def test_frames_come_by_index_with_what_belongs_to_them(scores: list[float]) -> None:
    gallery = Gallery()
    fill(gallery, scores)
    frames = gallery.frames()
    indices = [frame.index for frame in frames]
    assert indices == sorted(set(indices))
    for frame in frames:
        assert frame.labels
        assert frame.name == f'pair {frame.index}'
        assert frame.pictures == {'fused': str(frame.index).encode()}
        assert frame.facts == {'score': str(scores[frame.index])}
        assert frame.score == scores[frame.index]


def test_a_run_gives_the_same_frames_again(scores: list[float]) -> None:
    galleries = [Gallery(), Gallery()]
    for gallery in galleries:
        fill(gallery, scores)
    assert galleries[0].frames() == galleries[1].frames()


def test_a_frame_may_carry_several_labels() -> None:
    gallery = Gallery(best=1, worst=1, spaced=2)
    fill(gallery, [0.9, 0.1])
    assert [frame.labels for frame in gallery.frames()] == [(BEST, SPACED), (WORST, SPACED)]


@pytest.mark.parametrize(('length', 'best', 'worst'), [(0, 0, 0), (1, 1, 0), (3, 2, 1), (5, 3, 2)])
def test_no_frame_of_a_short_run_is_both_best_and_worst(
    length: int, best: int, worst: int
) -> None:
    gallery = Gallery(best=4, worst=4, spaced=0)
    fill(gallery, [float(score) for score in range(length)])
    frames = gallery.frames()
    assert labelled(frames, BEST) == list(range(length - best, length))
    assert labelled(frames, WORST) == list(range(worst))


def test_of_equal_frames_the_first_are_kept_and_none_is_worst() -> None:
    gallery = Gallery(best=2, worst=2, spaced=0)
    made = fill(gallery, [1.0] * 100)
    assert labelled(gallery.frames(), BEST) == [0, 1]
    assert labelled(gallery.frames(), WORST) == []
    assert made == [0, 1]


def test_a_frame_without_score_is_neither_best_nor_worst() -> None:
    gallery = Gallery(best=4, worst=4, spaced=3)
    fill(gallery, [math.nan, 1.0, math.nan, 3.0, 2.0])
    frames = gallery.frames()
    assert labelled(frames, BEST) == [3, 4]
    assert labelled(frames, WORST) == [1]
    assert labelled(frames, SPACED) == [0, 2, 4]


def test_jpeg_is_reduced_but_not_enlarged() -> None:
    image = np.zeros((100, 300, 3), np.uint8)
    image[:, 150:] = (0, 0, 255)
    small = cv2.imdecode(np.frombuffer(jpeg(image, longest_side=60), np.uint8), 1)
    assert small.shape == (20, 60, 3)
    assert small[10, 50, 2] > 240
    assert small[10, 10].max() < 20
    grey = cv2.imdecode(np.frombuffer(jpeg(image[:, :, 2]), np.uint8), cv2.IMREAD_UNCHANGED)
    assert grey.shape == (100, 300)


@pytest.mark.parametrize(
    'image', [np.zeros((4, 4)), np.zeros((4, 4, 2), np.uint8), np.zeros((0, 4), np.uint8)]
)
def test_jpeg_says_what_it_needs(image: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r'must be uint8 of shape .*not'):
        jpeg(image)


def test_a_gallery_cannot_keep_fewer_than_no_frames() -> None:
    with pytest.raises(ValueError, match='-1'):
        Gallery(best=-1)
