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

"""Finding the visible and the thermal topic of a bag."""

from pathlib import Path

import numpy as np
import pytest

from dig2dig_ros.evaluation.bag_topics import encodings_in, find_sources
from dig2dig_ros.evaluation.bag_types import BagError, Topic

VISIBLE, THERMAL = '/visible/image_raw', '/thermal/image_raw'
IMAGE, COMPRESSED = 'sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage'
INFO = 'sensor_msgs/msg/CameraInfo'


def table(*names: str, **counts: int) -> dict[str, Topic]:
    """Return topics by name, of a type that their name tells, with 5 messages."""

    def kind(name: str) -> str:
        if name.endswith('camera_info'):
            return INFO
        return COMPRESSED if name.endswith(('/compressed', '/compressedDepth')) else IMAGE

    return {name: Topic(name, kind(name), counts.get(name, 5)) for name in names}


@pytest.mark.parametrize(
    ('visible', 'thermal'),
    [
        ('/visible/image_raw', '/thermal/image_raw'),
        ('/camera/color/image_raw', '/lepton/image'),
        ('/camera/image_raw', '/boson640/image_raw'),
        ('/rgb_cam/image', '/ThermalCam/image'),
        ('/zed2/left_rgb/image_rect', '/IRCamera/image_raw'),
        ('/image_raw', '/flir_tau2/image_color'),
        ('/thermal_rig/visible/image_raw', '/thermal_rig/lwir/image_raw'),
        ('/flir/rgb/image_raw', '/flir/ir/image_raw'),
        ('/rig/image_rgb', '/rig/image_thermal'),
        ('/cam/compressed', '/seek/thermal/compressed'),
        ('/colour/image_color', '/thermal/image_color'),
    ],
)
def test_sources_by_name(visible: str, thermal: str) -> None:
    topics = table(
        *(visible, thermal, '/camera/depth/image_rect_raw', '/camera/infra1/image_rect_raw'),
        *('/fused/image_raw', '/fused/weights/thermal', '/detections/overlay', '/seg/mask'),
        *('/visible/restored/image_raw', '/thermal/restored/image_raw'),
        *('/camera/depth/image_rect_raw/compressedDepth', '/tf/camera_info'),
    )
    found = find_sources(topics)
    assert (found.visible, found.thermal) == (visible, thermal)
    assert found.others == {}
    assert found.camera_info is None


FLIR, CAMERA = '/flir_camera/image_raw', '/camera/image_raw'


@pytest.mark.parametrize(
    ('encodings', 'visible', 'thermal'),
    [
        ({FLIR: 'mono8', CAMERA: '16UC1'}, FLIR, CAMERA),
        ({FLIR: 'bayer_rggb8', CAMERA: 'mono16'}, FLIR, CAMERA),
        ({FLIR: 'bayer_rggb16', '/lepton/image': 'mono8'}, FLIR, '/lepton/image'),
        ({FLIR: 'rgb8', CAMERA: '32FC1'}, FLIR, CAMERA),
        ({FLIR: 'bgr8', '/flir_boson/image': '16UC1'}, FLIR, '/flir_boson/image'),
        ({FLIR: 'bayer_gbrg8', '/flir_a70/image': 'mono16'}, FLIR, '/flir_a70/image'),
        ({f'{FLIR}/compressed': 'bgr8', CAMERA: 'mono16'}, f'{FLIR}/compressed', CAMERA),
        # What it has always meant, where nothing speaks against it.
        ({FLIR: 'mono16', CAMERA: 'bgr8'}, CAMERA, FLIR),
        ({FLIR: 'mono8', CAMERA: 'bgr8'}, CAMERA, FLIR),
        ({FLIR: 'rgb8', CAMERA: 'bgr8'}, CAMERA, FLIR),
        ({FLIR: '', CAMERA: ''}, CAMERA, FLIR),
        # A word says more than bits, and so does a model that there is of thermal cameras alone.
        ({FLIR: 'mono8', VISIBLE: 'mono16'}, VISIBLE, FLIR),
        ({'/flir_boson/image': 'mono8', CAMERA: 'mono16'}, CAMERA, '/flir_boson/image'),
        (
            {'/flir/visible/image': 'mono8', '/flir/image': 'mono16'},
            '/flir/visible/image',
            '/flir/image',
        ),
    ],
)
def test_a_maker_of_both_kinds_is_told_by_what_its_images_are(
    encodings: dict[str, str], visible: str, thermal: str
) -> None:
    found = find_sources(table(*encodings), encoding_of=encodings.__getitem__)
    assert (found.visible, found.thermal) == (visible, thermal)


def test_with_a_given_thermal_topic_a_maker_is_the_visible_one() -> None:
    encodings = {FLIR: 'mono8', '/x/image': 'mono8'}
    found = find_sources(table(*encodings), thermal='/x/image', encoding_of=encodings.get)
    assert (found.visible, found.thermal) == (FLIR, '/x/image')


def test_two_cameras_of_one_maker_without_a_difference_are_doubt() -> None:
    names = (FLIR, '/flir_two/image')
    with pytest.raises(BagError, match='more than one topic'):
        find_sources(table(*names), encoding_of=lambda name: 'mono8')


def test_what_was_taken_is_said_in_words() -> None:
    topics = table(VISIBLE, THERMAL, '/top/image', '/visible/camera_info')
    found = find_sources(topics, others={'nir': '/top/image'})
    assert str(found) == (
        f'visible {VISIBLE} with thermal {THERMAL} with nir /top/image; camera_info '
        '/visible/camera_info'
    )
    assert str(find_sources(table(VISIBLE, THERMAL))).endswith('; camera_info of neither')


def test_raw_before_compressed_and_messages_before_none() -> None:
    names = [VISIBLE, f'{VISIBLE}/compressed', THERMAL, f'{THERMAL}/compressed', '/old/ir/image']
    found = find_sources(table(*names, **{THERMAL: 0, '/old/ir/image': 0}))
    assert found.visible == VISIBLE
    assert found.thermal == f'{THERMAL}/compressed'


def test_camera_info_is_the_sibling_of_the_visible_image() -> None:
    topics = table(
        f'{VISIBLE}/compressed', THERMAL, '/visible/camera_info', '/thermal/camera_info'
    )
    assert find_sources(topics).camera_info == '/visible/camera_info'
    given = find_sources(topics, camera_info='/thermal/camera_info')
    assert given.camera_info == '/thermal/camera_info'
    empty = {**topics, **table('/visible/camera_info', **{'/visible/camera_info': 0})}
    assert find_sources(empty).camera_info is None
    for name, reason in [
        ('/nope', 'is not in'),
        (THERMAL, 'is of type'),
        ('/visible/camera_info', 'no messages'),
    ]:
        with pytest.raises(BagError, match=f'camera_info topic {name} .*{reason}'):
            find_sources(empty, camera_info=name)


def test_given_topics() -> None:
    topics = table('/left/image', '/right/image/compressed', '/fused/image_raw', '/top/image')
    found = find_sources(topics, 'left/image', '/right/image', others={'far': '/top/image'})
    assert (found.visible, found.thermal) == ('/left/image', '/right/image/compressed')
    assert found.others == {'far': '/top/image'}
    # What is given leaves fewer to guess from, and may be what is never guessed.
    topics = table('/left/image', '/right/image', '/fused/image_raw')
    assert (
        find_sources(topics, thermal='/left/image', visible='/fused/image_raw').thermal
        == '/left/image'
    )
    topics = table(VISIBLE, '/right/image')
    assert find_sources(topics, thermal='/right/image').visible == VISIBLE
    topics = table('/left/image', '/ir/image', '/lwir/image')
    assert find_sources(topics, others={'ir': '/ir/image'}).thermal == '/lwir/image'


def test_doubt_is_an_error_with_a_list() -> None:
    topics = {**table('/a/image', '/bcd/image', THERMAL), '/gps': Topic('/gps', 'x/msg/Y', 12345)}
    with pytest.raises(BagError) as caught:
        find_sources(topics)
    assert str(caught.value).splitlines() == [
        'more than one topic (/a/image, /bcd/image) in the bag looks like the visible '
        'one: '
        'name them with --visible TOPIC --thermal TOPIC; the bag holds',
        '  /a/image            sensor_msgs/msg/Image      5 messages',
        '  /bcd/image          sensor_msgs/msg/Image      5 messages',
        '  /thermal/image_raw  sensor_msgs/msg/Image      5 messages',
        '  /gps                x/msg/Y                12345 messages',
    ]
    with pytest.raises(BagError, match='no topic in the bag looks like the thermal one'):
        find_sources(table(VISIBLE))
    with pytest.raises(BagError, match='more than one topic'):
        find_sources(table(VISIBLE, THERMAL, '/rear/ir/image'))
    with pytest.raises(BagError, match='no topics'):
        find_sources({})


def test_topics_that_cannot_be_taken() -> None:
    topics = {**table(VISIBLE, THERMAL), '/gps': Topic('/gps', 'x/msg/Y', 1)}
    with pytest.raises(BagError, match='no thermal topic /nope in the bag'):
        find_sources(topics, thermal='/nope')
    with pytest.raises(BagError, match='no far topic /nope in the bag'):
        find_sources(topics, others={'far': '/nope'})
    with pytest.raises(BagError, match=r'/gps is of type x/msg/Y, but must be an image'):
        find_sources(topics, visible='/gps')
    with pytest.raises(BagError, match='both the visible and the thermal topic'):
        find_sources(topics, visible=THERMAL, thermal=THERMAL)
    empty = table(VISIBLE, THERMAL, **{THERMAL: 0})
    for given in [None, THERMAL]:
        with pytest.raises(BagError, match=f'thermal topic {THERMAL} has no messages') as caught:
            find_sources(empty, thermal=given)
        assert '0 messages' in str(caught.value)


@pytest.mark.parametrize(
    ('kind', 'serialization', 'advice'),
    [
        ('foxglove.CompressedImage', 'protobuf', 'convert it to an image of sensor_msgs'),
        ('foxglove.RawImage', 'json', 'as "Bags of other tools" in docs/evaluation.md shows'),
        ('foxglove_msgs/msg/CompressedImage', 'cdr', "which is Foxglove's, not ROS 2's"),
        (COMPRESSED, 'json', f'{COMPRESSED} as json, not as cdr: convert it'),
        ('foxglove.CompressedVideo', 'protobuf', 'decode it to sensor_msgs/msg/Image first'),
        ('ffmpeg_image_transport_msgs/msg/FFMPEGPacket', 'cdr', 'image_transport republish'),
        ('sensor_msgs/Image', 'ros1', 'rosbags-convert --src FILE.bag'),
        (IMAGE, 'ros1', 'rosbags-convert --src FILE.bag'),
    ],
)
def test_images_of_other_kinds_are_named_with_how_to_convert_them(
    kind: str, serialization: str, advice: str
) -> None:
    topics = {name: Topic(name, kind, 5, serialization) for name in (VISIBLE, THERMAL)}
    for given in ({}, {'thermal': THERMAL}):
        with pytest.raises(BagError) as caught:
            find_sources(topics, **given)
        assert advice in str(caught.value)
        assert f'{THERMAL}  {kind}' in str(caught.value)
    # What can be read is taken.
    topics |= table('/rgb/image', '/lwir/image')
    assert find_sources(topics).thermal == '/lwir/image'


def test_encodings_are_those_of_the_first_images(tmp_path: Path) -> None:
    pytest.importorskip('rosbags', reason='needs rosbags')
    from evaluation.bag_files import camera_info, compressed_image, image, START, write_bag

    from dig2dig_ros.evaluation.bag_reader import BagReader

    grey = np.zeros((8, 12), np.uint8)
    jpeg = compressed_image(START, grey)
    jpeg.format = 'jpeg'
    messages = {
        FLIR: image(START, grey, 'bayer_rggb8'),
        CAMERA: image(START, grey.astype(np.uint16), '16UC1'),
        f'{CAMERA}/compressed': compressed_image(START, grey.astype(np.uint16), 'png', 'mono16'),
        '/plain/compressed': jpeg,
        '/camera/camera_info': camera_info(START, 12, 8),
    }
    write_bag(tmp_path / 'bag', 'mcap', [(*each, START) for each in messages.items()])
    with BagReader(tmp_path / 'bag') as reader:
        encoding_of = encodings_in(reader)
        found = {name: encoding_of(name) for name in messages}
        topics = find_sources(reader.topics, '/plain', encoding_of=encoding_of)
    assert list(found.values()) == ['bayer_rggb8', '16UC1', 'mono16', '8UC1', '']
    # The Bayer mosaic is of no thermal camera, and the other stream is no mosaic.
    assert topics.thermal == CAMERA


def test_images_of_one_name_space_share_their_camera_info() -> None:
    infos = ('/rig/camera_info', '/visible/camera_info', '/thermal/camera_info')
    of_a_rig = find_sources(table('/rig/image_rgb', '/rig/image_thermal', *infos))
    assert of_a_rig.cameras_of_info() == {'/rig/camera_info': ('visible', 'thermal')}
    of_two = find_sources(table(VISIBLE, THERMAL, *infos))
    assert of_two.cameras_of_info() == {
        '/visible/camera_info': ('visible',),
        '/thermal/camera_info': ('thermal',),
    }
    assert find_sources(table(VISIBLE, THERMAL)).cameras_of_info() == {}
