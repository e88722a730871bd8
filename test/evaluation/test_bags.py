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

"""Bags of both storages, whole, compressed, cut off and damaged; finding topics; writing."""

from __future__ import annotations

from pathlib import Path
import shutil
import sqlite3
import sys
import tracemalloc
from typing import Any

import numpy as np
import pytest
import yaml

pytest.importorskip('rosbags')
pytest.importorskip('mcap')

from bag_files import (
    camera_info,
    compressed_image,
    header,
    image,
    SECOND,
    START,
    STORE,
    store_with,
    write_bag,
    write_mcap,
)
from mcap.reader import make_reader
from rosbags.highlevel import AnyReader
from rosbags.interfaces import QosReliability

from dig2dig_ros.evaluation.bag_reader import BagReader
from dig2dig_ros.evaluation.bag_types import BagError, Topic
from dig2dig_ros.evaluation.bag_writer import BagWriter, image_message
from dig2dig_ros.streams.codec import CodecError, decode, decode_compressed
from dig2dig_ros.streams.preparation import stamp_of

STORAGES = ['sqlite3', 'mcap']
SUFFIX = {'sqlite3': '.db3', 'mcap': '.mcap'}
VISIBLE, THERMAL = '/visible/image_raw', '/thermal/image_raw'
IMAGE, COMPRESSED = 'sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage'
INFO = 'sensor_msgs/msg/CameraInfo'
STEP = SECOND // 10


def drive(count: int = 20, side: int = 16) -> list[tuple[str, Any, int]]:
    """Return pairs of images; the thermal one of each is recorded 1 ms after the other."""
    messages = []
    for number in range(count):
        stamp = START + number * STEP
        array = np.full((side, side), number % 256, np.uint8)
        array[0, :] = np.arange(side)
        messages.append((VISIBLE, image(stamp, array), stamp))
        messages.append((THERMAL, image(stamp, array.astype(np.uint16) + 300), stamp + 1_000_000))
    return messages


def read(path: Path, *topics: str) -> tuple[list[tuple[str, int, int]], list[str]]:
    """Return (topic, recording time, second row's value) of all messages, and the problems."""
    with BagReader(path) as bag:
        rows = []
        for record in bag.records(topics or bag.topics):
            array = decode(bag.decode(record))
            rows.append((record.topic, record.time, int(array[1, 0])))
        return rows, bag.problems


def expected(messages: list[tuple[str, Any, int]]) -> list[tuple[str, int, int]]:
    return [(topic, time, int(decode(message)[1, 0])) for topic, message, time in messages]


# --- whole bags ---------------------------------------------------------------------------


@pytest.mark.parametrize('storage', STORAGES)
def test_bag_folder_and_lone_file_read_alike(tmp_path: Path, storage: str) -> None:
    messages = drive()
    file = write_bag(
        tmp_path / 'run.v2', storage, messages, empty_topics={'/gps': 'std_msgs/msg/String'}
    )
    lone = tmp_path / f'lone.run{SUFFIX[storage]}'
    shutil.copy(file, lone)
    for path, name in [
        (tmp_path / 'run.v2', 'run.v2'),
        (tmp_path / 'run.v2' / 'metadata.yaml', 'run.v2'),
        (lone, 'lone.run'),
    ]:
        with BagReader(path) as bag:
            assert bag.name == name
            assert bag.storage == storage
            assert bag.topics == {
                '/gps': Topic('/gps', 'std_msgs/msg/String', 0),
                THERMAL: Topic(THERMAL, IMAGE, 20),
                VISIBLE: Topic(VISIBLE, IMAGE, 20),
            }
            assert bag.start == START
            assert bag.end == START + 19 * STEP + 1_000_000
        rows, problems = read(path, VISIBLE, THERMAL)
        assert rows == expected(messages)
        assert problems == []
        assert read(path, THERMAL)[0] == expected(messages)[1::2]
        assert read(path, '/gps')[0] == []


@pytest.mark.parametrize('storage', STORAGES)
@pytest.mark.parametrize('compression', ['file', 'message'])
def test_compressed_bags(tmp_path: Path, storage: str, compression: str) -> None:
    messages = drive()
    file = write_bag(tmp_path / 'run', storage, messages, compression)
    assert read(tmp_path / 'run') == (expected(messages), [])
    # Without the metadata nothing but the bytes tells that they are compressed.
    lone = tmp_path / file.name
    shutil.copy(file, lone)
    assert read(lone) == (expected(messages), [])
    with BagReader(lone) as bag:
        assert bag.name == 'run'


def test_compressed_chunks(tmp_path: Path) -> None:
    messages = drive()
    write_bag(tmp_path / 'zstd', 'mcap', messages, 'storage')
    write_mcap(tmp_path / 'lz4.mcap', messages, compression='lz4')
    write_mcap(tmp_path / 'small_zstd.mcap', messages, compression='zstd')
    for name in ['zstd', 'lz4.mcap', 'small_zstd.mcap']:
        assert read(tmp_path / name) == (expected(messages), [])


def test_messages_come_in_order_of_recording(tmp_path: Path) -> None:
    messages = drive()
    shuffled = [messages[i] for i in np.random.default_rng(1).permutation(len(messages))]
    write_bag(tmp_path / 'sqlite', 'sqlite3', shuffled)
    write_bag(tmp_path / 'mcap', 'mcap', shuffled)
    write_mcap(tmp_path / 'chunks.mcap', shuffled, chunk_size=1500)
    write_mcap(tmp_path / 'plain.mcap', shuffled, chunked=False)
    for name in ['sqlite', 'mcap', 'chunks.mcap', 'plain.mcap']:
        assert read(tmp_path / name) == (expected(messages), []), name


@pytest.mark.parametrize('storage', STORAGES)
def test_split_bag(tmp_path: Path, storage: str) -> None:
    messages = drive(24)
    folder = split_bag(tmp_path, storage, messages, 12)
    assert read(folder) == (expected(messages), [])
    with BagReader(folder) as bag:
        assert bag.topics[VISIBLE].count == 24
        assert (bag.start, bag.end) == (START, messages[-1][2])

    # One of its files is gone, one is empty.
    files = sorted(folder.glob(f'*{SUFFIX[storage]}'))
    (folder / f'run_3{SUFFIX[storage]}').unlink()
    (folder / f'run_5{SUFFIX[storage]}').write_bytes(b'')
    rows, problems = read(folder)
    assert len(files) == 12
    assert rows == [r for i, r in enumerate(expected(messages)) if i // 4 not in (3, 5)]
    assert any(f'run_3{SUFFIX[storage]}' in problem for problem in problems)
    assert any(
        f'run_5{SUFFIX[storage]} is not a bag: it is empty' in problem for problem in problems
    )
    assert any(f'lacks 4 of the 24 messages on {VISIBLE}' in problem for problem in problems)


def split_bag(
    tmp_path: Path, storage: str, messages: list[tuple[str, Any, int]], parts: int
) -> Path:
    """Write a bag of several files, as recorders do with a limit on duration or size."""
    folder = tmp_path / 'run'
    size = len(messages) // parts
    names = []
    for part in range(parts):
        some = messages[part * size : (part + 1) * size]
        file = write_bag(tmp_path / f'part_{part}', storage, some)
        names.append(f'run_{part}{SUFFIX[storage]}')
        folder.mkdir(exist_ok=True)
        shutil.move(file, folder / names[-1])
    metadata = tmp_path / 'part_0' / 'metadata.yaml'
    document = yaml.safe_load(metadata.read_text())
    information = document['rosbag2_bagfile_information']
    information['relative_file_paths'] = names
    for topic in information['topics_with_message_count']:
        topic['message_count'] *= parts
    (folder / 'metadata.yaml').write_text(yaml.safe_dump(document))
    return folder


@pytest.mark.parametrize('storage', STORAGES)
def test_memory_does_not_grow_with_the_bag(tmp_path: Path, storage: str) -> None:
    pixels = np.zeros((256, 1024), np.uint8)
    messages = ((VISIBLE, image(START + i, pixels), START + i) for i in range(64))
    write_bag(tmp_path / 'run', storage, messages)
    with BagReader(tmp_path / 'run') as bag:
        tracemalloc.start()
        count = sum(1 for record in bag.records([VISIBLE]) if bag.decode(record).height)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert count == 64
    # 64 messages of a quarter of a megabyte; a chunk has four of them.
    assert peak < 6e6


def test_bag_without_messages(tmp_path: Path) -> None:
    for storage in STORAGES:
        write_bag(tmp_path / storage, storage, [], empty_topics={VISIBLE: IMAGE})
        with BagReader(tmp_path / storage) as bag:
            assert bag.topics == {VISIBLE: Topic(VISIBLE, IMAGE, 0)}
            assert (bag.start, bag.end) == (0, 0)
            assert list(bag.records([VISIBLE])) == []
            assert bag.problems == []


def test_unknown_topic_is_refused_with_a_list(tmp_path: Path) -> None:
    write_bag(tmp_path / 'run', 'mcap', drive(2))
    with BagReader(tmp_path / 'run') as bag, pytest.raises(BagError, match='/nope') as caught:
        bag.records(['/nope'])
    assert f'{VISIBLE}  {IMAGE}  2 messages' in str(caught.value)


def test_two_passes_at_once(tmp_path: Path) -> None:
    messages = drive(20)
    for storage in STORAGES:
        write_bag(tmp_path / storage, storage, messages)
        with BagReader(tmp_path / storage) as bag:
            both = zip(bag.records([VISIBLE]), bag.records([THERMAL]), strict=True)
            times = [(a.time, b.time) for a, b in both]
        assert times == [(a[2], b[2]) for a, b in zip(messages[::2], messages[1::2], strict=True)]


# --- types --------------------------------------------------------------------------------


def test_compressed_images_and_camera_info(tmp_path: Path) -> None:
    array = np.random.default_rng(2).integers(0, 2**16, (8, 12)).astype(np.uint16)
    write_bag(
        tmp_path / 'run',
        'sqlite3',
        [
            (f'{THERMAL}/compressed', compressed_image(START + 7, array, 'png'), START),
            ('/visible/camera_info', camera_info(START + 9, 12, 8), START + 1),
        ],
    )
    with BagReader(tmp_path / 'run') as bag:
        thermal, info = [bag.decode(r) for r in bag.records(bag.topics)]
    assert np.array_equal(decode_compressed(thermal), array)
    assert stamp_of(thermal.header) == START + 7
    assert stamp_of(info.header) == START + 9
    assert (info.width, info.height) == (12, 8)


@pytest.mark.parametrize('storage', STORAGES)
def test_type_of_the_bag_itself(tmp_path: Path, storage: str) -> None:
    store = store_with({'odd_msgs/msg/Heat': 'std_msgs/Header header\nfloat32[3] celsius'})
    heat = store.types['odd_msgs/msg/Heat'](
        header=header(START), celsius=np.array([1, 2, 3], np.float32)
    )
    write_bag(tmp_path / 'run', storage, [('/heat', heat, START)], store=store)
    with BagReader(tmp_path / 'run') as bag:
        (record,) = bag.records(['/heat'])
        assert bag.decode(record).celsius.tolist() == [1, 2, 3]
        assert stamp_of(bag.decode(record).header) == START


def test_unknown_type_does_not_hinder_the_others(tmp_path: Path) -> None:
    store = store_with({'odd_msgs/msg/Heat': 'float32 celsius'})
    heat = store.types['odd_msgs/msg/Heat'](celsius=1.5)
    messages = [*drive(3), ('/heat', heat, START + SECOND)]
    # No definition at all (Humble), one in a language nobody knows, one that is no text of it.
    write_bag(tmp_path / 'none', 'sqlite3', messages, store=store, definitions=False)
    write_mcap(tmp_path / 'odd.mcap', messages, store=store, schema_encoding='unknown')
    file = write_bag(tmp_path / 'bad', 'sqlite3', messages, store=store)
    with sqlite3.connect(file) as database:
        database.execute(
            'UPDATE message_definitions SET encoded_message_definition = "((" '
            'WHERE topic_type LIKE "odd%"'
        )
    database.close()
    for name in ['none', 'odd.mcap', 'bad']:
        assert read(tmp_path / name, VISIBLE, THERMAL) == (expected(messages[:6]), [])
        with BagReader(tmp_path / name) as bag:
            assert bag.topics['/heat'] == Topic('/heat', 'odd_msgs/msg/Heat', 1)
            (record,) = bag.records(['/heat'])
            with pytest.raises(BagError, match='odd_msgs/msg/Heat of topic /heat'):
                bag.decode(record)


def test_other_serialisation_is_named(tmp_path: Path) -> None:
    write_mcap(tmp_path / 'run.mcap', drive(1), message_encoding='ros1')
    with BagReader(tmp_path / 'run.mcap') as bag:
        assert bag.topics[VISIBLE].serialization == 'ros1'
        record = next(bag.records([VISIBLE]))
        with pytest.raises(BagError, match="serialised as 'ros1'"):
            bag.decode(record)


def test_mcap_of_another_profile(tmp_path: Path) -> None:
    messages = drive(3)
    write_mcap(tmp_path / 'run.mcap', messages, profile='')
    assert read(tmp_path / 'run.mcap') == (expected(messages), [])


def test_damaged_message_is_named(tmp_path: Path) -> None:
    kind = 'sensor_msgs/msg/Image'
    data = bytes(STORE.serialize_cdr(image(START), kind))
    broken = [(VISIBLE, (kind, data[:-9]), START), (VISIBLE, (kind, b''), START + 1)]
    broken.append((VISIBLE, (kind, b'\xff' * 40), START + 2))
    write_bag(tmp_path / 'run', 'mcap', [*broken, (VISIBLE, image(START), START + 3)])
    with BagReader(tmp_path / 'run') as bag:
        *damaged, whole = bag.records([VISIBLE])
        for record in damaged:
            with pytest.raises(BagError, match=f'{VISIBLE} .*{kind}.* is damaged'):
                bag.decode(record)
        assert bag.decode(whole).width == 6


DETECTIONS_4 = {
    'vision_msgs/msg/Point2D': 'float64 x\nfloat64 y',
    'vision_msgs/msg/Pose2D': 'vision_msgs/Point2D position\nfloat64 theta',
    'vision_msgs/msg/BoundingBox2D': 'vision_msgs/Pose2D center\nfloat64 size_x\nfloat64 size_y',
}
DETECTIONS_3 = {
    'vision_msgs/msg/BoundingBox2D': (
        'geometry_msgs/Pose2D center\nfloat64 size_x\nfloat64 size_y'
    ),
}
DETECTIONS = {
    'vision_msgs/msg/ObjectHypothesis': 'string class_id\nfloat64 score',
    'vision_msgs/msg/ObjectHypothesisWithPose': (
        'vision_msgs/ObjectHypothesis hypothesis\ngeometry_msgs/PoseWithCovariance pose'
    ),
    'vision_msgs/msg/Detection2D': (
        'std_msgs/Header header\nvision_msgs/ObjectHypothesisWithPose[] results\n'
        'vision_msgs/BoundingBox2D bbox\nstring id'
    ),
    'vision_msgs/msg/Detection2DArray': (
        'std_msgs/Header header\nvision_msgs/Detection2D[] detections'
    ),
}


@pytest.mark.parametrize('version', [3, 4])
def test_detections_without_definitions(tmp_path: Path, version: int) -> None:
    store = store_with({**DETECTIONS, **(DETECTIONS_3 if version == 3 else DETECTIONS_4)})
    t = store.types
    if version == 3:
        centre = t['geometry_msgs/msg/Pose2D'](x=10.0, y=20.0, theta=0.5)
    else:
        position = t['vision_msgs/msg/Point2D'](x=10.0, y=20.0)
        centre = t['vision_msgs/msg/Pose2D'](position=position, theta=0.5)
    pose = t['geometry_msgs/msg/PoseWithCovariance'](
        pose=t['geometry_msgs/msg/Pose'](
            position=t['geometry_msgs/msg/Point'](0.0, 0.0, 0.0),
            orientation=t['geometry_msgs/msg/Quaternion'](0.0, 0.0, 0.0, 1.0),
        ),
        covariance=np.zeros(36),
    )
    hypothesis = t['vision_msgs/msg/ObjectHypothesis'](class_id='person', score=0.75)
    found = t['vision_msgs/msg/Detection2D'](
        header=header(START),
        results=[t['vision_msgs/msg/ObjectHypothesisWithPose'](hypothesis=hypothesis, pose=pose)],
        bbox=t['vision_msgs/msg/BoundingBox2D'](center=centre, size_x=4.0, size_y=8.0),
        id='7',
    )
    message = t['vision_msgs/msg/Detection2DArray'](header=header(START), detections=[found])
    write_bag(
        tmp_path / 'run', 'sqlite3', [('/found', message, START)], store=store, definitions=False
    )
    with BagReader(tmp_path / 'run') as bag:
        (record,) = bag.records(['/found'])
        (read_back,) = bag.decode(record).detections
    assert (read_back.bbox.center.position.x, read_back.bbox.center.position.y) == (10, 20)
    assert read_back.bbox.center.theta == 0.5
    assert (read_back.bbox.size_x, read_back.bbox.size_y, read_back.id) == (4, 8, '7')
    assert read_back.results[0].hypothesis.class_id == 'person'
    assert read_back.results[0].hypothesis.score == 0.75


def test_yolo_detections_round_trip(tmp_path: Path) -> None:
    """Without the package the types are those that a writer knows."""
    with BagWriter(tmp_path / 'run', 'sqlite3') as bag:
        bag.add_topic('/yolo', 'yolo_msgs/msg/DetectionArray')
        bag.write('/yolo', yolo_detections(), START)
    with BagReader(tmp_path / 'run') as reader:
        (record,) = reader.records(['/yolo'])
        (found,) = reader.decode(record).detections
    assert (found.class_id, found.class_name, found.score) == (3, 'person', 0.5)
    assert (found.bbox.center.position.x, found.bbox.size.y) == (5, 9)


def yolo_detections() -> Any:
    from types import SimpleNamespace as Message

    point = Message(x=0.0, y=0.0, z=0.0)
    found = Message(
        class_id=3,
        class_name='person',
        score=0.5,
        id='',
        bbox=Message(
            center=Message(position=Message(x=5.0, y=6.0), theta=0.0), size=Message(x=8.0, y=9.0)
        ),
        bbox3d=Message(
            center=Message(position=point, orientation=Message(x=0.0, y=0.0, z=0.0, w=1.0)),
            size=point,
            frame_id='',
        ),
        mask=Message(height=0, width=0, data=[]),
        keypoints=Message(data=[]),
        keypoints3d=Message(data=[], frame_id=''),
    )
    return Message(header=header(START), detections=[found])


# --- recordings that were cut off, and damage ---------------------------------------------


@pytest.mark.parametrize('storage', STORAGES)
@pytest.mark.parametrize('compression', [None, 'file', 'message'])
def test_folder_without_metadata(tmp_path: Path, storage: str, compression: str | None) -> None:
    messages = drive()
    write_bag(tmp_path / 'run', storage, messages, compression)
    (tmp_path / 'run' / 'metadata.yaml').unlink()
    rows, problems = read(tmp_path / 'run')
    assert rows == expected(messages)
    (problem,) = problems
    assert 'no metadata.yaml' in problem


@pytest.mark.parametrize(
    'text', ['', '\x00\x01', 'a: [', 'rosbag2_bagfile_information: {version: 5}', '[]']
)
def test_folder_with_damaged_metadata(tmp_path: Path, text: str) -> None:
    messages = drive(3)
    write_bag(tmp_path / 'run', 'mcap', messages)
    (tmp_path / 'run' / 'metadata.yaml').write_text(text)
    rows, problems = read(tmp_path / 'run')
    assert rows == expected(messages)
    (problem,) = problems
    assert 'metadata.yaml is damaged' in problem


def test_half_written_compressed_copy_is_ignored(tmp_path: Path) -> None:
    messages = drive(3)
    file = write_bag(tmp_path / 'run', 'mcap', messages)
    file.with_name(f'{file.name}.zstd').write_bytes(b'\x28\xb5\x2f\xfd half')
    (tmp_path / 'run' / 'metadata.yaml').unlink()
    assert read(tmp_path / 'run')[0] == expected(messages)


@pytest.mark.parametrize('compression', ['none', 'lz4', 'zstd'])
@pytest.mark.parametrize('chunked', [True, False])
def test_truncated_mcap(tmp_path: Path, compression: str, chunked: bool) -> None:
    messages = drive(40)
    file = write_mcap(
        tmp_path / 'run.mcap', messages, compression=compression, chunked=chunked, chunk_size=2000
    )
    whole = expected(messages)
    data = file.read_bytes()
    lengths = []
    for share in [0.3, 0.6, 0.9]:
        file.write_bytes(data[: int(len(data) * share)])
        rows, problems = read(file)
        assert rows == whole[: len(rows)]
        (problem,) = problems
        assert f'run.mcap is cut short or damaged after {len(rows)} messages' in problem
        with BagReader(file) as bag:
            assert sum(topic.count for topic in bag.topics.values()) == len(rows)
            assert bag.end == rows[-1][1]
        lengths.append(len(rows))
    assert 0 < lengths[0] < lengths[1] <= lengths[2] <= 80
    # Without its last bytes it lacks only the footer.
    file.write_bytes(data[:-20])
    rows, problems = read(file)
    assert rows == whole
    assert len(problems) == 1


def test_truncated_mcap_does_not_fill_memory(tmp_path: Path) -> None:
    pixels = np.zeros((256, 1024), np.uint8)
    messages = ((VISIBLE, image(START + i, pixels), START + i) for i in range(64))
    for chunked in [True, False]:
        file = write_mcap(tmp_path / 'run.mcap', messages, chunk_size=2**20, chunked=chunked)
        file.write_bytes(file.read_bytes()[:-30])
        tracemalloc.start()
        with BagReader(file) as bag:
            count = sum(1 for record in bag.records([VISIBLE]) if bag.decode(record).height)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert count == 64
        assert peak < 8e6
        messages = ((VISIBLE, image(START + i, pixels), START + i) for i in range(64))


def test_mcap_with_a_damaged_chunk(tmp_path: Path) -> None:
    """The index is there, so only reading finds the damage."""
    messages = drive(40)
    file = write_mcap(tmp_path / 'run.mcap', messages, compression='zstd', chunk_size=2000)
    data = bytearray(file.read_bytes())
    middle = data.index(b'\x28\xb5\x2f\xfd', len(data) // 2)
    data[middle + 8 : middle + 40] = bytes(32)
    file.write_bytes(data)
    with BagReader(file) as bag:
        assert bag.problems == []
        rows = [(r.topic, r.time) for r in bag.records(bag.topics)]
        again = [(r.topic, r.time) for r in bag.records(bag.topics)]
        (problem,) = bag.problems
    whole = [(topic, time) for topic, _, time in messages]
    missing = [row for row in whole if row not in rows]
    assert 0 < len(missing) < 10
    assert rows == again == [row for row in whole if row not in missing]
    assert problem.startswith(f'{len(missing)} of 80 messages in {file} are damaged')
    # Without the index nobody knows what was in the chunk.
    file.write_bytes(data[:-20])
    with BagReader(file) as bag:
        assert [(r.topic, r.time) for r in bag.records(bag.topics)] == rows
        chunks, end = bag.problems
    assert chunks.startswith('1 of the ')
    assert f'chunks of {file} are damaged' in chunks
    assert f'damaged after {len(rows)} messages' in end


def test_mcap_with_a_chunk_whose_head_is_damaged(tmp_path: Path) -> None:
    messages = drive(40)
    file = write_mcap(tmp_path / 'run.mcap', messages, compression='zstd', chunk_size=2000)
    data = bytearray(file.read_bytes())
    # Between the length of the record and its data stands the name of the compression.
    place = data.index(b'zstd', len(data) // 2)
    data[place : place + 4] = b'\xff' * 4
    file.write_bytes(data)
    with BagReader(file) as bag:
        rows = [(r.topic, r.time) for r in bag.records(bag.topics)]
        (problem,) = bag.problems
    whole = [(topic, time) for topic, _, time in messages]
    assert rows == [row for row in whole if row in rows]
    assert 0 < len(rows) < 80
    assert problem.startswith(f'{80 - len(rows)} of 80 messages in {file} are damaged')


@pytest.mark.parametrize('what', ['offset', 'count'])
def test_mcap_whose_index_leads_elsewhere(tmp_path: Path, what: str) -> None:
    messages = drive(40)
    file = write_mcap(tmp_path / 'run.mcap', messages, chunk_size=2000)
    data = file.read_bytes()
    with file.open('rb') as stream:
        summary = make_reader(stream).get_summary()
    assert summary is not None
    assert summary.statistics is not None
    number = summary.chunk_indexes[3].chunk_start_offset if what == 'offset' else 80
    old, new = (value.to_bytes(8, 'little') for value in (number, number + 1))
    where = data.rindex(old)
    file.write_bytes(data[:where] + new + data[where + 8 :])
    assert read(file) == (expected(messages), [])


def test_truncated_sqlite(tmp_path: Path) -> None:
    messages = drive(60, side=48)
    file = write_bag(tmp_path / 'run', 'sqlite3', messages)
    whole = expected(messages)
    data = file.read_bytes()
    lengths = []
    for share in [0.3, 0.6, 0.9]:
        file.write_bytes(data[: int(len(data) * share)])
        rows, problems = read(tmp_path / 'run')
        assert rows == whole[: len(rows)]
        assert any('run.db3 is cut short or damaged' in problem for problem in problems)
        assert any(f'messages on {VISIBLE} that its' in problem for problem in problems)
        lengths.append(len(rows))
    assert 10 < lengths[0] < lengths[1] < lengths[2] < 120


def test_sqlite_with_damaged_pages(tmp_path: Path) -> None:
    messages = drive(60, side=48)
    file = write_bag(tmp_path / 'run', 'sqlite3', messages)
    data = bytearray(file.read_bytes())
    page = 4096
    # Pages without the table's upper levels: rows behind the damage can still be reached.
    hit = len(data) // page // 2
    data[hit * page : (hit + 2) * page] = b'\xff' * (2 * page)
    file.write_bytes(data)
    rows, problems = read(tmp_path / 'run')
    assert 10 < len(rows) < 120
    assert set(rows) < set(expected(messages))
    assert [row[1] for row in rows] == sorted(row[1] for row in rows)
    assert problems


@pytest.mark.parametrize('with_index', [True, False])
def test_sqlite_with_its_log(tmp_path: Path, with_index: bool) -> None:
    """A recorder of the resilient profile was killed: its last messages are in the log."""
    messages = drive(20)
    file = write_bag(tmp_path / 'run', 'sqlite3', messages[:30])
    database = sqlite3.connect(file)
    database.execute('PRAGMA journal_mode=WAL')
    database.execute('PRAGMA wal_autocheckpoint=0')
    keys = dict(database.execute('SELECT name, id FROM topics'))
    for topic, message, time in messages[30:]:
        data = bytes(STORE.serialize_cdr(message, IMAGE))
        database.execute(
            'INSERT INTO messages (topic_id, timestamp, data) VALUES (?, ?, ?)',
            (keys[topic], time, data),
        )
    database.commit()
    killed = tmp_path / 'killed'
    killed.mkdir()
    for name in [file.name, f'{file.name}-wal', *([f'{file.name}-shm'] if with_index else [])]:
        shutil.copy(file.with_name(name), killed / name)
    database.close()
    before = (killed / f'{file.name}-wal').read_bytes()

    rows, problems = read(killed)
    assert rows == expected(messages)
    (problem,) = problems
    assert 'no metadata.yaml' in problem
    assert (killed / f'{file.name}-wal').read_bytes() == before


@pytest.mark.parametrize('storage', STORAGES)
@pytest.mark.parametrize('name', ['a#b', 'a?b', 'a%41b', 'a b', 'ä'])
def test_paths_with_special_characters(tmp_path: Path, storage: str, name: str) -> None:
    messages = drive(3)
    file = write_bag(tmp_path / 'run', storage, messages)
    (tmp_path / name).mkdir()
    shutil.move(file, tmp_path / name / file.name)
    assert read(tmp_path / name / file.name) == (expected(messages), [])


def test_what_is_no_bag(tmp_path: Path) -> None:
    def message(path: Path) -> str:
        with pytest.raises(BagError) as caught:
            BagReader(path)
        text = str(caught.value)
        assert str(path) in text
        return text

    assert 'it does not exist' in message(tmp_path / 'missing')
    (tmp_path / 'empty').mkdir()
    assert 'is not a bag' in message(tmp_path / 'empty')
    write_bag(tmp_path / 'many' / 'run_1', 'mcap', drive(1))
    assert 'its folders run_1' in message(tmp_path / 'many')
    (tmp_path / 'drives').mkdir()
    for name in ['monday.mcap', 'tuesday.mcap']:
        write_mcap(tmp_path / 'drives' / name, drive(1))
    assert 'name one of monday.mcap, tuesday.mcap' in message(tmp_path / 'drives')
    for suffix in ['.mcap', '.db3']:
        (tmp_path / f'empty{suffix}').write_bytes(b'')
        assert 'is empty' in message(tmp_path / f'empty{suffix}')
        (tmp_path / f'text{suffix}').write_bytes(b'no bag at all, but some text')
        assert 'neither mcap nor sqlite3' in message(tmp_path / f'text{suffix}')
    with sqlite3.connect(tmp_path / 'other.db3') as database:
        database.execute('CREATE TABLE birds (name TEXT)')
    database.close()
    assert 'nothing of' in message(tmp_path / 'other.db3')
    (tmp_path / 'old').mkdir()
    (tmp_path / 'old' / 'run.bag').write_bytes(b'#ROSBAG V2.0\n')
    assert 'rosbags-convert' in message(tmp_path / 'old')
    assert 'rosbags-convert' in message(tmp_path / 'old' / 'run.bag')


def test_missing_libraries_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_mcap(tmp_path / 'run.mcap', drive(3))
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, 'mcap.stream_reader', None)
        with pytest.raises(BagError, match=r'mcap: install the extra "evaluation"'):
            BagReader(file)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, 'rosbags.rosbag2', None)
        for opening in [lambda: BagReader(file), lambda: BagWriter(tmp_path / 'out', 'mcap')]:
            with pytest.raises(BagError, match=r'rosbags: install the extra "evaluation"'):
                opening()
    assert read(file)[0] == expected(drive(3))


# --- writing ------------------------------------------------------------------------------


@pytest.mark.parametrize('storage', STORAGES)
def test_written_bag_opens_with_rosbags(tmp_path: Path, storage: str) -> None:
    array = np.random.default_rng(3).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    info = camera_info(START, 7, 5)
    with BagWriter(tmp_path / 'out', storage) as bag:
        bag.add_topic('/fused/image_raw', IMAGE)
        bag.add_topic('/fused/camera_info', INFO)
        bag.add_topic('/fused/weights/visible', IMAGE)
        for number in range(4):
            time = START + number * STEP
            message = image_message(array, 'rgb8', header(time - 5, 'lens'))
            bag.write('/fused/image_raw', message, time)
            bag.write_raw('/fused/camera_info', bytes(STORE.serialize_cdr(info, INFO)), time)

    with AnyReader([tmp_path / 'out']) as reader:
        assert {c.topic: c.msgcount for c in reader.connections} == {
            '/fused/image_raw': 4,
            '/fused/camera_info': 4,
            '/fused/weights/visible': 0,
        }
        assert (reader.start_time, reader.end_time) == (START, START + 3 * STEP + 1)
        for connection in reader.connections:
            (offered,) = connection.ext.offered_qos_profiles
            assert offered.reliability is QosReliability.RELIABLE
        messages = list(reader.messages())
        decoded = reader.deserialize(messages[0][2], messages[0][0].msgtype)
        assert [time for _, time, _ in messages[::2]] == [START + n * STEP for n in range(4)]
    assert np.array_equal(decode(decoded), array)
    assert decoded.header.frame_id == 'lens'
    assert stamp_of(decoded.header) == START - 5
    # What ros2 bag info prints is in metadata.yaml; Humble expects the offers as text.
    information = yaml.safe_load((tmp_path / 'out' / 'metadata.yaml').read_text())
    information = information['rosbag2_bagfile_information']
    assert information['storage_identifier'] == storage
    assert information['message_count'] == 8
    assert information['starting_time']['nanoseconds_since_epoch'] == START
    assert information['duration']['nanoseconds'] == 3 * STEP
    for topic in information['topics_with_message_count']:
        (offered,) = yaml.safe_load(topic['topic_metadata']['offered_qos_profiles'])
        assert offered['reliability'] == 1
    with BagReader(tmp_path / 'out') as written:
        assert written.problems == []


@pytest.mark.parametrize('storage', STORAGES)
def test_unfinished_bag_does_not_look_complete(tmp_path: Path, storage: str) -> None:
    def fail() -> None:
        with BagWriter(tmp_path / 'out', storage) as bag:
            bag.add_topic(VISIBLE, IMAGE)
            for topic, message, time in drive(3)[::2]:
                bag.write(topic, message, time)
            assert not (tmp_path / 'out' / 'metadata.yaml').exists()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert not (tmp_path / 'out' / 'metadata.yaml').exists()
    # Closing before, as who catches the interrupt does, keeps what is there.
    bag = BagWriter(tmp_path / 'kept', storage)
    bag.add_topic(VISIBLE, IMAGE)
    bag.write(VISIBLE, image(START), START)
    bag.close()
    bag.close()
    with BagReader(tmp_path / 'kept') as reader:
        assert reader.topics[VISIBLE].count == 1


@pytest.mark.parametrize('storage', STORAGES)
def test_nothing_is_overwritten(tmp_path: Path, storage: str) -> None:
    messages = drive(2)
    write_bag(tmp_path / 'out', 'mcap', messages)
    with pytest.raises(BagError, match='already exists'):
        BagWriter(tmp_path / 'out', storage)
    assert read(tmp_path / 'out')[0] == expected(messages)


def test_what_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(BagError, match="unknown storage 'rosbag'"):
        BagWriter(tmp_path / 'a', 'rosbag')
    with pytest.raises(BagError, match='must not contain #'):
        BagWriter(tmp_path / 'a#b', 'sqlite3')
    (tmp_path / 'file').write_text('')
    with pytest.raises(BagError, match='cannot write'):
        BagWriter(tmp_path / 'file' / 'out', 'mcap')
    bag = BagWriter(tmp_path / 'out', 'mcap')
    bag.add_topic(VISIBLE, IMAGE)
    with pytest.raises(BagError, match='was already added'):
        bag.add_topic(VISIBLE, IMAGE)
    with pytest.raises(BagError, match='odd_msgs/msg/Heat is unknown'):
        bag.add_topic('/heat', 'odd_msgs/msg/Heat')
    with pytest.raises(BagError, match='was not added'):
        bag.write(THERMAL, image(START), START)
    with pytest.raises(BagError, match=f'not a {IMAGE}'):
        bag.write(VISIBLE, header(START), START)
    with pytest.raises(CodecError):
        image_message(np.zeros((2, 2), np.uint8), 'bgr8', header(START))
    bag.close()
    with pytest.raises(BagError, match='is closed'):
        bag.write(VISIBLE, image(START), START)
