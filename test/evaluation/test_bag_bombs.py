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

"""Bags that were made to take a machine's memory, disk or time: each ends with a sentence."""

from collections.abc import Iterable
import json
from pathlib import Path
import sqlite3
import struct
import subprocess
import sys

from evaluation.bag_files import (
    camera_info,
    image,
    SECOND,
    serialised,
    START,
    write_bag,
    write_mcap,
)
import numpy as np
import pytest

from dig2dig_ros.evaluation import bag_compression
from dig2dig_ros.evaluation.bag_compression import BombError, decompressed, zstd
from dig2dig_ros.evaluation.bag_reader import BagReader
from dig2dig_ros.evaluation.bag_types import BagError, IMAGE_TYPE

ENDLESS = 'WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT '


def messages(count: int = 3) -> list[tuple[str, object, int]]:
    return [('/camera', image(START + i * SECOND), START + i * SECOND) for i in range(count)]


def compressed_zeros(mebibytes: int, head: bytes = b'') -> bytes:
    """Return a frame of zstd with zeros; a few kilobytes for each GiB."""
    compressor = zstd().ZstdCompressor()
    pieces = [compressor.compress(head)] if head else []
    pieces += [compressor.compress(bytes(1 << 20)) for _ in range(mebibytes)]
    return b''.join([*pieces, compressor.flush()])


def mcap_with_chunk(path: Path, data: bytes, compression: bytes, stated: int) -> Path:
    """Return an mcap file without a summary, of one chunk with these bytes."""
    body = struct.pack('<QQQI', START, START, stated, 0)
    body += struct.pack('<I', len(compression)) + compression + struct.pack('<Q', len(data)) + data
    head = b'\x01' + struct.pack('<Q', 12) + struct.pack('<I', 4) + b'ros2' + bytes(4)
    path.write_bytes(b'\x89MCAP0\r\n' + head + b'\x06' + struct.pack('<Q', len(body)) + body)
    return path


def altered(folder: Path, *statements: str) -> Path:
    """Return an sqlite3 bag after changes to its schema."""
    file = write_bag(folder, 'sqlite3', messages())
    with sqlite3.connect(file) as database:
        for statement in statements:
            database.execute(statement)
    database.close()
    return file


def read_all(path: Path) -> tuple[int, list[str]]:
    """Return how many messages can be decoded, and what is said."""
    said, count = [], 0
    with BagReader(path) as reader:
        for record in reader.records(reader.topics):
            try:
                reader.decode(record)
                count += 1
            except BagError as error:
                said.append(str(error))
        return count, [*reader.problems, *dict.fromkeys(said)]


def with_definition(folder: Path, text: str, kind: str = 'a_msgs/msg/List') -> Path:
    """Return a bag whose messages of four bytes have this definition."""
    file = write_bag(folder, 'sqlite3', [('/list', (IMAGE_TYPE, bytes(8)), START)])
    with sqlite3.connect(file) as database:
        database.execute('UPDATE topics SET type = ?', (kind,))
        database.execute(
            'UPDATE message_definitions SET topic_type = ?, encoded_message_definition = ?',
            (kind, text),
        )
    database.close()
    return file


@pytest.mark.parametrize(
    'statements',
    [
        ['DROP TABLE messages', f'CREATE VIEW messages AS {ENDLESS} i id, 1 topic_id, '
         "i timestamp, zeroblob(9) data FROM n"],
        ['DROP TABLE topics', f"CREATE VIEW Topics AS {ENDLESS} i id, '' name, '' type, "
         "'' serialization_format FROM n"],
        ['DROP TABLE message_definitions', f'CREATE VIEW message_definitions AS {ENDLESS} '
         "'' topic_type, '' encoding, '' encoded_message_definition FROM n"],
        ['ALTER TABLE messages RENAME TO old', 'CREATE TABLE messages (id INTEGER PRIMARY KEY, '
         'topic_id INTEGER, timestamp INTEGER, data AS (zeroblob(900000000)))'],
    ],
)  # fmt: skip
def test_an_sqlite_file_whose_tables_are_programs(tmp_path, statements):
    file = altered(tmp_path / 'bag', *statements)
    with pytest.raises(BagError, match='is not a plain table, as recorders write'):
        read_all(file)


def test_an_sqlite_file_whose_pages_lead_to_one_page_again_and_again(tmp_path):
    file = tmp_path / 'bag' / 'bag.db3'
    write_bag(tmp_path / 'bag', 'sqlite3', messages(600))
    data = bytearray(file.read_bytes())
    size = int.from_bytes(data[16:18], 'big')
    with sqlite3.connect(file) as database:
        (root,) = database.execute("SELECT rootpage FROM sqlite_master WHERE name = 'messages'")
    database.close()
    page = (root[0] - 1) * size
    assert data[page] == 5  # an inner page: its cells begin with the number of a page
    cells = [
        page + int.from_bytes(data[page + 12 + 2 * i : page + 14 + 2 * i], 'big')
        for i in range(int.from_bytes(data[page + 3 : page + 5], 'big'))
    ]
    for cell in cells:
        data[cell : cell + 4] = data[cells[0] : cells[0] + 4]
    file.write_bytes(data)
    count, said = read_all(file)
    assert 0 < count < 600
    assert any('its table of messages leads back into itself' in text for text in said)


def test_an_sqlite_file_that_states_a_message_larger_than_itself(tmp_path):
    large = image(START + 9 * SECOND, np.zeros((100, 100), np.uint8))
    file = write_bag(tmp_path / 'bag', 'sqlite3', [*messages(), ('/camera', large, START)])
    data = bytearray(file.read_bytes())
    # The record of the large message: its length, its number, five columns, of which the last
    # is a blob. Twice its length plus twelve stands for it.
    size = len(serialised(large)[1])
    stated = 2 * size + 12

    def varint(value: int) -> bytes:
        digits = [value & 127]
        while value := value >> 7:
            digits.append(value & 127 | 128)
        return bytes(reversed(digits))

    place = data.index(varint(stated))
    more = varint(2**20 * 2 + 12)[: len(varint(stated))]
    data[place : place + len(more)] = more
    file.write_bytes(data)
    count, said = read_all(file)
    assert count <= 3
    assert any('damaged' in text for text in said)


def test_metadata_with_aliases_is_left_aside(tmp_path):
    folder = tmp_path / 'bag'
    write_bag(folder, 'mcap', messages())
    lists = ['a0: &a0 [x, x, x, x, x, x, x, x, x, x]']
    lists += [f'a{i}: &a{i} [{", ".join([f"*a{i - 1}"] * 10)}]' for i in range(1, 12)]
    text = (folder / 'metadata.yaml').read_text()
    text = '\n'.join(lists) + '\n' + text.replace('name: /camera', 'name: *a11')
    (folder / 'metadata.yaml').write_text(text)
    count, said = read_all(folder)
    assert count == 3
    assert len(said) == 1
    assert 'it has aliases (*name): write out what they stand for' in said[0]


@pytest.mark.parametrize(
    ('text', 'reason'),
    [
        ('[' * 1000, 'is damaged'),
        ('#' * (5 << 20), 'more than 4 MiB'),
        ('rosbag2_bagfile_information: {topics_with_message_count: [{topic_metadata: '
         '{name: [a], type: b}, message_count: 1}], relative_file_paths: []}',
         'list where a text'),
        ('rosbag2_bagfile_information: {topics_with_message_count: [{topic_metadata: '
         f'{{name: a, type: b}}, message_count: {"9" * 100_000}x}}], relative_file_paths: []}}',
         'lacks'),
    ],
)  # fmt: skip
def test_metadata_that_is_none(tmp_path, text, reason):
    folder = tmp_path / 'bag'
    write_bag(folder, 'mcap', messages())
    (folder / 'metadata.yaml').write_text(text)
    count, said = read_all(folder)
    assert count == 3
    assert any(reason in sentence for sentence in said)
    assert all(len(sentence) < 600 for sentence in said)


@pytest.mark.parametrize(
    ('text', 'reason'),
    [
        ('string[400000000] names', 'an array of 400000000 elements'),
        ('Point[5000] points\n' + '=' * 80 + '\nMSG: a_msgs/Point\nfloat64 x', 'array of 5000'),
        ('B[100] b\n' + '=' * 80 + '\nMSG: a_msgs/B\nC[100] c\n' + '=' * 80
         + '\nMSG: a_msgs/C\nD[100] d\n' + '=' * 80 + '\nMSG: a_msgs/D\nstring s', 'elements'),
        ('List again', 'contains itself'),
        ('No[] many\n' + '=' * 80 + '\nMSG: a_msgs/No\n', 'lists of messages without fields'),
        ('\n'.join(f'int8 f{i}' for i in range(5000)), 'more than 4096 fields'),
        ('# ' + 'x' * 300_000, 'the bag has no definition of it'),
    ],
)  # fmt: skip
def test_definitions_unlike_any_message(tmp_path, text, reason):
    count, said = read_all(with_definition(tmp_path / 'bag', text))
    assert count == 0
    assert [text for text in said if reason in text and 'a_msgs/msg/List' in text]


def test_a_sound_definition_of_arrays_is_read(tmp_path):
    text = 'uint8[4] numbers'
    file = with_definition(tmp_path / 'bag', text)
    with BagReader(file) as reader:
        (record,) = reader.records(['/list'])
        assert reader.decode(record).numbers.tolist() == [0, 0, 0, 0]


def test_definitions_in_idl_that_no_parser_comes_to_the_end_of(tmp_path):
    file = with_definition(tmp_path / 'bag', 'module a { const long X = ' + '(' * 40 + '1')
    with sqlite3.connect(file) as database:
        database.execute("UPDATE message_definitions SET encoding = 'ros2idl'")
    database.close()
    count, said = read_all(file)
    assert count == 0
    assert any('its brackets are nested' in text for text in said)


@pytest.mark.parametrize('kind', ['sensor_msgs/msg/Image', 'sensor_msgs/msg/CameraInfo'])
def test_images_with_other_fields_than_those_of_ros(tmp_path, kind):
    count, said = read_all(with_definition(tmp_path / 'bag', 'uint32 pixels', kind))
    assert count == 0
    assert any(f'it redefines {kind}, which has the fields header, ' in text for text in said)
    text = 'Header header\nuint32 height\n' + '=' * 80 + '\nMSG: std_msgs/Header\nint8 a'
    assert read_all(with_definition(tmp_path / 'other', text, kind))[0] == 0


def test_the_definitions_of_recorders_are_those_of_ros(tmp_path):
    info = ('/camera_info', camera_info(START, 6, 4), START)
    for storage in ('sqlite3', 'mcap'):
        count, said = read_all(write_bag(tmp_path / storage, storage, [*messages(), info]))
        assert (count, said) == (4, [])


def test_a_message_other_than_an_image_has_a_limit(tmp_path):
    info = (camera_info(START, 6, 4).__msgtype__, bytes(9 << 20))
    count, said = read_all(write_bag(tmp_path / 'bag', 'mcap', [('/camera_info', info, START)]))
    assert count == 0
    assert 'has 9437184 bytes, more than 8388608' in said[0]


def test_frames_without_end_are_a_bomb():
    empty = zstd().ZstdCompressor().flush()
    with pytest.raises(BombError, match='more than 64 frames'):
        decompressed(empty * 1000)
    data = zstd().compress(b'one') + zstd().compress(b'two')
    assert decompressed(data) == b'onetwo'
    for broken in (data[:-1], data[:5]):
        with pytest.raises(zstd().ZstdError):
            decompressed(broken)


def test_chunks_that_overlap_in_time_are_not_all_held(tmp_path, monkeypatch):
    late = START + 1000 * SECOND
    pairs = [[('/a', image(START + i), START + i), ('/a', image(late), late)] for i in range(9)]
    path = write_mcap(tmp_path / 'a.mcap', [m for pair in pairs for m in pair], chunk_size=150)
    assert read_all(path)[0] == 18
    monkeypatch.setattr('dig2dig_ros.evaluation.bag_storage._MOST_HELD', 300)
    with pytest.raises(BagError, match=r'overlap in time so far .* sort it first'):
        read_all(path)


def test_a_chunk_that_the_index_names_again_and_again_is_read_once(tmp_path):
    path = write_mcap(tmp_path / 'a.mcap', messages(), chunk_size=1 << 20)
    data = path.read_bytes()
    start = struct.unpack('<Q', data[-28:-20])[0]
    index = data.index(b'\x08', start)
    entry = data[index : index + 9 + struct.unpack('<Q', data[index + 1 : index + 9])[0]]
    assert struct.unpack('<Q', entry[9:17])[0] == START
    path.write_bytes(data[:index] + entry * 50 + data[index:])
    assert read_all(path)[0] == 3


def test_an_attachment_of_any_size_is_passed_over(tmp_path):
    path = write_mcap(tmp_path / 'a.mcap', messages(), chunked=False)
    data = path.read_bytes()
    size = 600 << 20
    with path.open('wb') as file:  # with a hole in it, and cut off
        file.write(data[:8] + b'\x09' + struct.pack('<Q', size))
        file.seek(size, 1)
        file.write(data[8:-40])
    assert read_all(path)[0] == 3


def test_a_compressed_file_grows_only_so_far(tmp_path, monkeypatch):
    path = tmp_path / 'a.db3.zstd'
    path.write_bytes(compressed_zeros(3, b'SQLite format 3\0'))
    monkeypatch.setattr(bag_compression, '_FREE_GROWTH', 1 << 20)
    with pytest.raises(BagError, match=r'becomes more than \d+ MiB, over 100 times its size'):
        read_all(path)
    monkeypatch.undo()
    monkeypatch.setattr(bag_compression, '_LEFT_FREE', 1 << 62)
    with pytest.raises(BagError, match=r'does not fit into .*: set TMPDIR to a folder with room'):
        read_all(path)
    path.write_bytes(compressed_zeros(3))
    with pytest.raises(BagError, match='neither mcap nor sqlite3'):
        read_all(path)


PROGRAM = """
import json, resource, sys
from pathlib import Path
limit = int(sys.argv[1]) << 20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
from dig2dig_ros.evaluation.bag_reader import BagReader
from dig2dig_ros.evaluation.bag_types import BagError
results = []
for path in sys.argv[2:]:
    try:
        with BagReader(Path(path)) as reader:
            count = sum(1 for record in reader.records(reader.topics))
            results.append([count, reader.problems])
    except BagError as error:
        results.append([0, [str(error)]])
print(json.dumps(results))
"""


def read_within(mebibytes: int, paths: Iterable[Path]) -> list[tuple[int, list[str]]]:
    """Return numbers of messages and what is said, read with so much memory."""
    done = subprocess.run(
        [sys.executable, '-c', PROGRAM, str(mebibytes), *map(str, paths)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_what_kilobytes_stand_for_is_not_held_in_memory(tmp_path):
    bomb = compressed_zeros(64) * 48
    assert len(bomb) < 1 << 20
    message = ('/camera', (IMAGE_TYPE, bomb), START + 10 * SECOND)
    lz4 = pytest.importorskip('lz4.frame').compress(bytes(1 << 29))
    record = b'\x05' + struct.pack('<Q', 22) + bytes(22)
    many = zstd().compress(record * 300_000)
    negative = write_mcap(tmp_path / 'negative.mcap', messages(), chunked=False)
    with negative.open('r+b') as file:
        data = file.read()
        file.seek(data.index(b'\x05', 40))
        file.write(b'\x05' + struct.pack('<Q', 3))
        file.truncate(1 << 40)
    paths = [
        write_bag(tmp_path / 'message', 'sqlite3', [*messages(), message]),
        write_bag(tmp_path / 'in_mcap', 'mcap', [*messages(), message]),
        mcap_with_chunk(tmp_path / 'a.mcap', bomb, b'zstd', 3000 << 20),
        mcap_with_chunk(tmp_path / 'b.mcap', bomb, b'zstd', 100),
        mcap_with_chunk(tmp_path / 'c.mcap', lz4, b'lz4', 100),
        mcap_with_chunk(tmp_path / 'd.mcap', lz4, b'lz4', 1 << 29),
        mcap_with_chunk(tmp_path / 'e.mcap', many, b'zstd', len(record) * 300_000),
        negative,
    ]
    results = read_within(2048, paths)
    for count, said in results[:2]:
        assert count == 3
        assert any('become larger than 256 MiB: they are left out' in text for text in said)
    for _, said in results[2:7]:
        assert any('1 of the 1 chunks' in text for text in said), said
    assert any('cut short or damaged' in text for text in results[7][1])
