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


"""Bags through the node's pairing and fusion: which pairs, which images, and what is left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
import pytest

pytest.importorskip('rosbags')
pytest.importorskip('mcap')

from bag_files import (
    camera_info,
    compressed_image,
    image,
    SECOND,
    serialised,
    START,
    STORE,
    write_bag,
    write_mcap,
)

from dig2dig_ros.evaluation.bag_reader import BagReader
from dig2dig_ros.evaluation.bag_topics import find_sources
from dig2dig_ros.evaluation.bag_types import BagError
from dig2dig_ros.evaluation.options import load_fuser
from dig2dig_ros.evaluation.replay import BagReplay, stamp_text
from dig2dig_ros.fusion.fuser import Fuser
from dig2dig_ros.images.thermal_range import ThermalRange
from dig2dig_ros.streams.cascade import Cascade
from dig2dig_ros.streams.parameters import complete_values, fusion_settings
from dig2dig_ros.streams.preparation import FusedFrame
from dig2dig_ros.streams.statistics import FaultyImages

MS = SECOND // 1000
VISIBLE, THERMAL = '/visible/image_raw', '/thermal/image_raw'
Message = tuple[str, Any, int]


def values(**changes: Any) -> dict[str, Any]:
    # The pictures are nothing but noise, which stays.
    as_they_are = {f'fusion.{source}_degradation': 'none' for source in ('visible', 'thermal')}
    fixed = {'prior': 'nano', 'device': 'cpu', 'precision': 'fp32', **as_they_are}
    return complete_values({**fixed, **changes})


@pytest.fixture(scope='module')
def fuser() -> Fuser:
    return load_fuser(values(), fusion_settings(values()))


def picture(seed: int, *shape: int) -> NDArray[np.uint8]:
    """Return an image of 64x48 pixels, or of another shape."""
    noise = np.random.default_rng(seed)
    return noise.integers(0, 256, shape or (48, 64, 3), dtype=np.uint8)


def thermal(seed: int) -> NDArray[np.uint8]:
    return picture(seed, 48, 64)


COLOUR, GREY = picture(0), thermal(1)


def pairs(count: int, grey: NDArray[np.uint8] = GREY) -> list[Message]:
    """Return images at 10 Hz; thermal ones are stamped 2 ms later, and recorded another 5 ms."""
    messages: list[Message] = []
    for number in range(count):
        stamp = START + number * 100 * MS
        messages.append((VISIBLE, image(stamp, COLOUR), stamp + MS))
        messages.append((THERMAL, image(stamp + 2 * MS, grey), stamp + 7 * MS))
    return messages


def replay(
    bag: Path,
    fuser: Fuser,
    parameters: Mapping[str, Any] | None = None,
    limit: int | None = None,
    **others: str,
) -> tuple[list[FusedFrame], BagReplay]:
    """Return the pairs of a bag, and the replay that made them."""
    with BagReader(bag) as reader:
        topics = find_sources(reader.topics, VISIBLE, THERMAL, others=others)
        through = BagReplay(reader, topics, parameters or values(), fuser)
        found = through.pairs(lambda: limit is not None and len(made) >= limit)
        made: list[FusedFrame] = []
        for pair in found:
            made.append(pair)
    return made, through


def stamps_of(made: list[FusedFrame]) -> list[tuple[int, ...]]:
    return [pair.work.stamps for pair in made]


# Stamp and time of recording in ms, by source: 30 and 9 Hz, the thermal camera 80 ms late. One
# thermal image is overtaken by the next, and each camera misses one.
TIMES = {
    VISIBLE: [(33 * n, 33 * n + 4) for n in range(60) if n != 20],
    THERMAL: [(111 * n + 7, 111 * n + 87 + 60 * (n == 5)) for n in range(18) if n != 9],
}


def two_rates() -> list[Message]:
    messages = [
        (topic, image(START + stamp * MS, COLOUR if topic == VISIBLE else GREY), START + time * MS)
        for topic, times in TIMES.items()
        for stamp, time in times
    ]
    return sorted(messages, key=lambda message: message[2])


@pytest.mark.parametrize(
    'changes',
    [
        {},
        {'sync_tolerance': 0.01},
        {'thermal_time_offset': -0.012, 'sync_tolerance': 0.014},
        {'queue_size': 2},
    ],
)
def test_pairs_and_drops_are_those_of_the_pairing(
    tmp_path: Path, fuser: Fuser, changes: dict[str, Any]
) -> None:
    parameters = values(**changes)
    cascade: Cascade[int] = Cascade(
        parameters['sync_policy'],
        parameters['sync_tolerance'],
        parameters['queue_size'],
        parameters['thermal_time_offset'],
    )
    groups = []
    for topic, message, time in two_rates():
        source = 'visible' if topic == VISIBLE else 'thermal'
        stamp = message.header.stamp
        groups += cascade.add(source, stamp.sec * SECOND + stamp.nanosec, time)
    groups += cascade.flush()
    write_bag(tmp_path / 'bag', 'sqlite3', two_rates())
    made, through = replay(tmp_path / 'bag', fuser, parameters)

    assert len(made) > 3
    assert stamps_of(made) == [group.stamps for group in groups]
    assert [pair.arrival for pair in made] == [max(group.messages) for group in groups]
    assert [pair.work.offset for pair in made] == [group.offset for group in groups]
    drops = cascade.counters
    assert len(made) == drops.pop('groups')
    assert through.dropped == drops
    assert through.received == {'visible': len(TIMES[VISIBLE]), 'thermal': len(TIMES[THERMAL])}
    assert through.received.total() == 2 * len(made) + drops.total()


@pytest.mark.slow
def test_every_pair_is_fused_however_fast_they_come(tmp_path: Path, fuser: Fuser) -> None:
    # A thousand pairs a second, all written down at the same moment.
    messages: list[Message] = []
    for number in range(120):
        stamp = START + number * MS
        messages += [(VISIBLE, image(stamp, COLOUR), START)]
        messages += [(THERMAL, image(stamp, GREY), START)]
    file = write_mcap(tmp_path / 'fast.mcap', messages)
    made, through = replay(file, fuser)
    assert [stamp_text(pair.work.stamps[0]) for pair in made] == [
        stamp_text(START + n * MS) for n in range(120)
    ]
    assert through.dropped == {}
    assert not through.stopped


def test_images_are_those_that_the_node_would_fuse(tmp_path: Path, fuser: Fuser) -> None:
    counts = [7000 + 3 * thermal(10 + n).astype(np.uint16) for n in range(3)]
    messages: list[Message] = []
    for number in range(3):
        stamp = START + number * SECOND
        messages.append((VISIBLE, image(stamp, picture(number)), stamp))
        messages.append((THERMAL, image(stamp, counts[number]), stamp))
    made, _ = replay(write_mcap(tmp_path / 'counts.mcap', messages), fuser)
    # The range of the counts follows the scene slowly, from frame to frame.
    ranges = ThermalRange()
    for number, pair in enumerate(made):
        heat = ranges(counts[number], START / SECOND + number)
        result = fuser.fuse(picture(number), heat)
        assert np.array_equal(pair.images[0], picture(number))
        assert np.array_equal(pair.images[1], heat)
        assert np.array_equal(pair.result.image, result.image)
        assert np.array_equal(pair.result.weights, result.weights)


def test_raw_and_compressed_topics(tmp_path: Path, fuser: Fuser) -> None:
    raw, packed = pairs(2), []
    for topic, message, time in raw:
        array = COLOUR if topic == VISIBLE else GREY
        stamp = message.header.stamp.sec * SECOND + message.header.stamp.nanosec
        packed.append((f'{topic}/compressed', compressed_image(stamp, array, 'png'), time))
    first, _ = replay(write_mcap(tmp_path / 'raw.mcap', raw), fuser)
    second, _ = replay(write_mcap(tmp_path / 'packed.mcap', packed), fuser)
    assert len(second) == 2
    assert stamps_of(first) == stamps_of(second)
    for one, other in zip(first, second, strict=True):
        assert np.array_equal(one.result.image, other.result.image)


def test_a_further_source(tmp_path: Path, fuser: Fuser) -> None:
    messages = pairs(4)
    for number in (0, 1, 3):
        stamp = START + number * 100 * MS - 3 * MS
        messages.append(('/nir/image_raw', image(stamp, thermal(30)), stamp + 20 * MS))
    messages.sort(key=lambda message: message[2])
    write_bag(tmp_path / 'bag', 'mcap', messages)
    made, through = replay(tmp_path / 'bag', fuser, nir='/nir/image_raw')
    assert through.sources == ('visible', 'thermal', 'nir')
    assert [pair.work.stamps[0] for pair in made] == [START + n * 100 * MS for n in (0, 1, 3)]
    assert through.dropped == {'nir missing': 1}
    assert through.expected == 3
    assert made[0].work.offset == pytest.approx(-0.003)
    assert made[0].result.weights.shape == (3, 48, 64)
    result = fuser.fuse(*made[0].images)
    assert np.array_equal(made[0].result.image, result.image)


def test_stretched_images_are_counted(tmp_path: Path, fuser: Fuser) -> None:
    narrow = np.ascontiguousarray(GREY[:, :20])
    write_bag(tmp_path / 'bag', 'mcap', pairs(3, narrow))
    _, through = replay(tmp_path / 'bag', fuser)
    (fault,) = through.faults
    assert 'thermal images of 20x48 pixels are stretched onto 64x48' in fault.text
    assert (fault.count, fault.of) == (3, 3)


def test_a_camera_info_that_is_not_true_of_the_images_is_said(
    tmp_path: Path, fuser: Fuser
) -> None:
    info = camera_info(START, 640, 512)
    write_bag(tmp_path / 'bag', 'mcap', [('/visible/camera_info', info, START), *pairs(3)])
    made, through = replay(tmp_path / 'bag', fuser)
    assert [pair.camera_info for pair in made] == [None] * 3
    (said,) = through.health
    assert 'visible/camera_info is for 640x512 pixels, but the visible images have 64x48' in said


def test_camera_info_is_the_latest_when_the_pair_is_decided(tmp_path: Path, fuser: Fuser) -> None:
    messages = pairs(3)
    for number, factor in ((1, 1), (2, 2)):
        stamp = START + number * 100 * MS
        # A pair is decided when the next visible image shows that it is not the nearer one.
        info = camera_info(stamp, factor * 64, factor * 48)
        info.binning_x = info.binning_y = factor
        messages.append(('/visible/camera_info', info, stamp + 3 * MS))
    messages.sort(key=lambda message: message[2])
    write_bag(tmp_path / 'bag', 'mcap', messages)
    made, _ = replay(tmp_path / 'bag', fuser)
    assert [pair.camera_info and pair.camera_info.width for pair in made] == [None, 64, 128]


def cut_off(message: Any) -> Any:
    """Return a message of an image without its last bytes."""
    kind, data = serialised(message)
    return kind, data[:-200]


def test_what_cannot_be_fused_is_counted_and_explained(tmp_path: Path, fuser: Fuser) -> None:
    messages = pairs(8)

    def put(place: int, message: Any) -> None:
        topic, old, time = messages[place]
        messages[place] = (topic, message(old), time)

    put(0, cut_off)
    put(3, lambda old: STORE.types[old.__msgtype__](**{**vars(old), 'encoding': 'nonsense'}))
    put(4, lambda old: image(0, COLOUR))
    put(6, lambda old: image(START + 200 * MS, COLOUR))
    # No thermal image has three channels, which shows when the pair is to be fused.
    put(9, lambda old: image(START + 402 * MS, COLOUR))
    put(11, lambda old: STORE.types[old.__msgtype__](**{**vars(old), 'step': 3}))
    made, through = replay(write_mcap(tmp_path / 'bad.mcap', messages), fuser)
    assert [pair.work.stamps[0] - START for pair in made] == [200 * MS, 600 * MS, 700 * MS]
    assert through.dropped == {
        'visible malformed': 1,
        'thermal malformed': 2,
        'thermal refused': 1,
        'visible zero stamp': 1,
        # The counterparts of those above, and of the one whose stamp is another one's.
        'visible unpaired': 2,
        'thermal unpaired': 2,
    }
    # A pair that cannot be fused is one drop.
    assert through.received.total() == 16 == 2 * len(made) + through.dropped.total() + 1
    assert 'is damaged' in through.examples['visible malformed']
    assert "encoding 'nonsense'" in through.examples['thermal malformed']
    assert through.sizes == {'visible': {(64, 48): 3}, 'thermal': {(64, 48): 3}}


def test_damaged_jpeg(tmp_path: Path, fuser: Fuser) -> None:
    messages: list[Message] = []
    for number in range(3):
        stamp = START + number * 100 * MS
        message = compressed_image(stamp, COLOUR)
        if number == 1:
            message.data[20:] = 0
        messages.append((f'{VISIBLE}/compressed', message, stamp))
        messages.append((THERMAL, image(stamp, GREY), stamp))
    made, through = replay(write_mcap(tmp_path / 'jpeg.mcap', messages), fuser)
    assert [pair.work.stamps[0] - START for pair in made] == [0, 200 * MS]
    assert through.dropped == {'visible refused': 1}
    assert f"on '{VISIBLE}/compressed' with format" in through.examples['visible refused']


def test_sizes_may_differ_and_change(tmp_path: Path, fuser: Fuser) -> None:
    messages: list[Message] = []
    for number, (height, width) in enumerate([(48, 64), (60, 80), (48, 64)]):
        stamp = START + number * 100 * MS
        messages.append((VISIBLE, image(stamp, picture(number, height, width, 3)), stamp))
        messages.append((THERMAL, image(stamp, picture(number, 24, 32)), stamp))
    made, through = replay(write_mcap(tmp_path / 'sizes.mcap', messages), fuser)
    assert [pair.result.image.shape[:2] for pair in made] == [(48, 64), (60, 80), (48, 64)]
    assert through.sizes == {'visible': {(64, 48): 2, (80, 60): 1}, 'thermal': {(32, 24): 3}}
    result = fuser.fuse(picture(1, 60, 80, 3), picture(1, 24, 32))
    assert np.array_equal(made[1].result.image, result.image)


@pytest.mark.parametrize('limit', [0, 3])
def test_it_can_be_stopped_and_accounts_for_what_waits(
    tmp_path: Path, fuser: Fuser, limit: int
) -> None:
    file = write_mcap(tmp_path / 'long.mcap', pairs(20))
    made, through = replay(file, fuser, limit=limit)
    assert len(made) == limit
    assert through.stopped
    through.finish('interrupted')
    rest = through.received.total() - 2 * len(made)
    assert through.dropped == Counter({'interrupted': rest} if rest else {})


@pytest.mark.parametrize(('lag', 'advice'), [(300, '-0.300'), (-250, '0.250')])
def test_how_far_apart_streams_are(tmp_path: Path, fuser: Fuser, lag: int, advice: str) -> None:
    messages: list[Message] = []
    for number in range(4):
        stamp = START + number * SECOND
        messages.append((VISIBLE, image(stamp, COLOUR), stamp))
        messages.append((THERMAL, image(stamp + lag * MS, GREY), stamp + 500 * MS))
    made, through = replay(write_mcap(tmp_path / 'apart.mcap', messages), fuser)
    assert made == []
    assert f'set thermal_time_offset: {advice},' in str(through.pairing_advice())


def recorded(offset: float, seconds: int) -> list[Message]:
    """Return 5 Hz of two cameras; the thermal one's stamps are ``offset`` s ahead."""
    messages: list[Message] = []
    for number in range(5 * seconds):
        time = START + number * 200 * MS
        messages.append((VISIBLE, image(time, COLOUR), time + 5 * MS))
        stamp = time + round(offset * SECOND)
        messages.append((THERMAL, image(stamp, GREY), time + 12 * MS))
    return messages


def test_clocks_that_differ_are_told_although_stamps_pair(tmp_path: Path, fuser: Fuser) -> None:
    file = write_mcap(tmp_path / 'three.mcap', recorded(-3.0, 9))
    made, through = replay(file, fuser)
    assert len(made) == 30
    # Before the first pair, which comes after 3 s, that is why there is none.
    (sentence, seconds), *_ = sorted(through.health.items(), reverse=True)
    assert sentence.startswith('the thermal stamps are 3.000 s before the visible ones')
    assert 'set thermal_time_offset: 3.000, or synchronise' in sentence
    assert seconds >= 6
    # As fused images show what was recorded 3 s before.
    assert float(through.table['latency p50 (ms)']) >= 3000
    made, through = replay(file, fuser, values(thermal_time_offset=3.0))
    assert len(made) == 45
    assert through.health == {}
    assert float(through.table['latency p50 (ms)']) < 200


@pytest.mark.parametrize(('offset', 'hint'), [(8.004, '-8.004'), (37.004, '-37.004')])
def test_the_hint_is_the_offset_of_the_clocks_and_mends_it(
    tmp_path: Path, fuser: Fuser, offset: float, hint: str
) -> None:
    file = write_mcap(tmp_path / 'apart.mcap', recorded(offset, 5))
    made, through = replay(file, fuser)
    assert made == []
    assert f'set thermal_time_offset: {hint}, or synchronise' in str(through.pairing_advice())
    assert any(f'set thermal_time_offset: {hint},' in text for text in through.health)
    made, through = replay(file, fuser, values(thermal_time_offset=float(hint)))
    assert len(made) == 25
    assert through.health == {}


def test_without_stamps_there_is_no_offset(tmp_path: Path, fuser: Fuser) -> None:
    messages = [(VISIBLE, image(START, COLOUR), START), (THERMAL, image(0, GREY), START)]
    made, through = replay(write_mcap(tmp_path / 'zero.mcap', messages), fuser)
    assert made == []
    assert through.dropped == {'thermal zero stamp': 1, 'visible unpaired': 1}
    assert through.pairing_advice() is None


def test_what_live_diagnostics_would_have_warned_of(tmp_path: Path, fuser: Fuser) -> None:
    messages: list[Message] = []
    for number in range(60):
        stamp = START + number * 100 * MS
        messages.append((VISIBLE, image(stamp, COLOUR), stamp))
        if number < 10:
            messages.append((THERMAL, image(stamp, GREY), stamp))
    file = write_mcap(tmp_path / 'silent.mcap', messages)
    made, through = replay(file, fuser, values(stale_timeout=1.0))
    assert len(made) == 10
    ((sentence, seconds),) = through.health.items()
    # It ends at 5.9 s, and the last thermal image is of 0.9 s.
    assert sentence == f'no thermal image on {THERMAL} for 1.1 s'
    assert seconds == 4


def test_what_lasts_less_than_a_second_is_said_too(tmp_path: Path, fuser: Fuser) -> None:
    messages = pairs(3)
    black = np.zeros_like(COLOUR)
    messages[2] = (VISIBLE, image(START + 100 * MS, black), messages[2][2])
    made, through = replay(write_mcap(tmp_path / 'short.mcap', messages), fuser)
    assert len(made) == 3
    text = 'the visible image is all black: is the lens covered?'
    assert through.faults == [FaultyImages('visible', text, 1, 3)]
    assert through.health == {}


def test_what_is_wrong_at_the_end_is_said(tmp_path: Path, fuser: Fuser) -> None:
    # Two seconds, which is as long as a camera may be silent, and no thermal image can be read.
    messages = [(topic, m if topic == VISIBLE else cut_off(m), t) for topic, m, t in pairs(20)]
    made, through = replay(write_mcap(tmp_path / 'cut.mcap', messages), fuser)
    assert made == []
    assert through.health[f'no thermal image on {THERMAL} yet, but malformed images'] == 1


@pytest.mark.parametrize(('kind', 'count'), [('jpeg', 3), ('png', 0)])
def test_thermal_images_that_are_jpeg_are_counted(
    tmp_path: Path, fuser: Fuser, kind: str, count: int
) -> None:
    messages: list[Message] = []
    for number in range(3):
        stamp = START + number * 100 * MS
        messages.append((f'{VISIBLE}/compressed', compressed_image(stamp, COLOUR), stamp))
        messages.append((f'{THERMAL}/compressed', compressed_image(stamp, GREY, kind), stamp))
    made, through = replay(write_mcap(tmp_path / 'packed.mcap', messages), fuser)
    assert len(made) == 3
    assert through.lossy.total() == count


def test_a_pairing_that_cannot_be_set_up(tmp_path: Path, fuser: Fuser) -> None:
    file = write_mcap(tmp_path / 'bag.mcap', pairs(1))
    with pytest.raises(BagError, match='the pairing cannot be set up: queue_size must be'):
        replay(file, fuser, {**values(), 'queue_size': 0})


@pytest.mark.parametrize(
    ('stamp', 'text'), [(0, '0.000000000'), (1, '0.000000001'), (START + 5 * MS, '1700000000.005')]
)
def test_stamps_as_text(stamp: int, text: str) -> None:
    assert stamp_text(stamp) == text.ljust(stamp_text(stamp).index('.') + 10, '0')
