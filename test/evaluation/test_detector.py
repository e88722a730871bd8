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

"""Detectors in ONNX files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
import math
from pathlib import Path
import sys

import cv2
from detections.test_boxes import boxes_of
import numpy as np
from numpy.typing import NDArray
import pytest

from dig2dig_ros.evaluation.average_precision import DetectionAccuracy, match
from dig2dig_ros.evaluation.detector import (
    decode_yolov5,
    decode_yolov8,
    decode_yolox,
    Detector,
    DetectorError,
    find_layout,
    letterbox,
)
from dig2dig_ros.evaluation.labels import load_labels

needs_runtime = pytest.mark.skipif(
    find_spec('onnxruntime') is None, reason='onnxruntime (extra "detection") is not installed'
)


@pytest.mark.parametrize(
    ('centred', 'rows', 'columns'), [(True, (1, 4), (0, 6)), (False, (0, 3), (0, 6))]
)
def test_letterbox(centred: bool, rows: tuple[int, int], columns: tuple[int, int]) -> None:
    padded, scale, (left, top) = letterbox(np.full((6, 12, 3), 7, np.uint8), 6, 6, centred)
    assert padded.shape == (6, 6, 3)
    assert scale == 0.5
    assert (top, left) == (rows[0], columns[0])
    inside = np.zeros((6, 6), dtype=bool)
    inside[slice(*rows), slice(*columns)] = True
    assert (padded[inside] == 7).all()
    assert (padded[~inside] == 114).all()


# --- Layouts ------------------------------------------------------------------------------------


def test_yolov5_has_centre_size_objectness_and_classes() -> None:
    boxes, scores = decode_yolov5(np.array([[50, 40, 20, 10, 0.5, 0.1, 0.8]]), person_class=1)
    assert boxes.tolist() == [[40, 35, 60, 45]]
    assert scores == pytest.approx([0.4])


def test_yolov8_is_transposed_and_has_no_objectness() -> None:
    boxes, scores = decode_yolov8(np.array([[50, 40, 20, 10, 0.1, 0.8]]).T, person_class=1)
    assert boxes.tolist() == [[40, 35, 60, 45]]
    assert scores == pytest.approx([0.8])


def test_yolox_counts_from_the_cells_of_its_grids() -> None:
    # 64x96 pixels: 8x12 cells of stride 8, 4x6 of 16, 2x3 of 32.
    output = np.zeros((96 + 24 + 6, 6))
    output[:, 4:] = [0.5, 0.5]
    output[13, :4] = [0.5, 0.25, math.log(2), math.log(3)]  # row 1, column 1
    output[96 + 7, :4] = [0.5, 0.5, 0, 0]  # row 1, column 1
    output[96 + 24 + 5, :4] = [-0.5, 1, 0, math.log(0.5)]  # row 1, column 2
    boxes, scores = decode_yolox(output, 64, 96)
    assert boxes[13] == pytest.approx([4, -2, 20, 22])
    assert boxes[96 + 7] == pytest.approx([16, 16, 32, 32])
    assert boxes[96 + 24 + 5] == pytest.approx([32, 56, 64, 72])
    assert scores == pytest.approx(np.full(126, 0.25))


def test_yolox_that_is_decoded_already_is_refused() -> None:
    output = np.full((84, 6), 200.0)
    with pytest.raises(DetectorError, match='export the model without decoding'):
        decode_yolox(output, 64, 64)


@pytest.mark.parametrize(
    ('shape', 'size', 'layout'),
    [
        ((1, 25200, 85), (640, 640), 'yolov5'),
        ((1, 25500, 6), (640, 640), 'yolov5'),  # with stride 64
        ((1, 84, 8400), (640, 640), 'yolov8'),
        ((1, 5, 8400), (640, 640), 'yolov8'),
        ((1, 8400, 85), (640, 640), 'yolox'),
        ((1, 3549, 85), (416, 416), 'yolox'),
        ((1, 84, 5040), (384, 640), 'yolov8'),
    ],
)
def test_layout_is_told_by_the_shape(
    shape: tuple[int, ...], size: tuple[int, int], layout: str
) -> None:
    assert find_layout(shape, *size) == layout


@pytest.mark.parametrize('shape', [(1, 300, 6), (1, 1000), (1, 8400, 5), (1, 4, 8400), (8400, 85)])
def test_other_shapes_are_no_layout(shape: tuple[int, ...]) -> None:
    with pytest.raises(DetectorError, match='does not look like YOLOv5, YOLOv8 or YOLOX'):
        find_layout(shape, 640, 640)


# --- The detector -------------------------------------------------------------------------------
# ONNX models written byte by byte, so that the tests need no further package.


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    parts = []
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def entry(number: int, value: int | str | bytes) -> bytes:
    """Return one field of a protocol buffer."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def tensor(name: str, values: NDArray[np.generic]) -> bytes:
    kinds = {np.dtype(np.float32): 1, np.dtype(np.int64): 7, np.dtype(np.float16): 10}
    dims = b''.join(entry(1, side) for side in values.shape)
    return entry(
        5, dims + entry(2, kinds[values.dtype]) + entry(8, name) + entry(9, values.tobytes())
    )


def node(kind: str, inputs: Sequence[str], output: str, **attributes: int | list[int]) -> bytes:
    body = b''.join(entry(1, name) for name in inputs) + entry(2, output) + entry(4, kind)
    for name, value in attributes.items():
        many = isinstance(value, list)
        numbers = b''.join(entry(8, v) for v in value) if many else entry(3, value)
        body += entry(5, entry(1, name) + numbers + entry(20, 7 if many else 2))
    return entry(1, body)


def port(number: int, name: str, shape: Sequence[int | str], kind: int) -> bytes:
    dims = b''.join(entry(1, entry(1 if isinstance(s, int) else 2, s)) for s in shape)
    return entry(number, entry(1, name) + entry(2, entry(1, entry(1, kind) + entry(2, dims))))


def model(path: Path, *graph: bytes) -> Path:
    path.write_bytes(
        entry(1, 8)
        + entry(7, b''.join(graph) + entry(2, 'g'))
        + entry(8, entry(1, '') + entry(2, 13))
    )
    return path


def squares(
    path: Path, layout: str, shape: Sequence[int | str], half: bool = False, side: int = 128
) -> Path:
    """
    Write a model that finds red (class 0) and blue (class 1) squares of 32x32 pixels of its input.

    They must lie on the grid of that stride; the cells of the finer grids find nothing.
    """
    dtype = np.dtype(np.float16 if half else np.float32)
    full_scale = 255 if layout == 'yolox' else 1
    blue, red = (0, 2) if layout == 'yolox' else (2, 0)
    first = 4 if layout == 'yolov8' else 5
    channels = first + 2
    graph, grids, constants = [], [], []
    for stride in (8, 16, 32):
        # 2 (colour - green) - 1, averaged over the cell: white and grey are nothing.
        weights = np.zeros((channels, 3, stride, stride))
        bias = np.zeros(channels)
        if stride == 32:
            for index, colour in enumerate((red, blue)):
                weights[first + index, colour] = 2 / stride**2 / full_scale
                weights[first + index, 1] = -2 / stride**2 / full_scale
                bias[first + index] = -1
        if layout != 'yolov8':
            bias[4] = 1
        if layout == 'yolox':
            bias[:2] = 0.5
        cells = np.zeros((channels, (side // stride) ** 2))
        y, x = np.mgrid[: side // stride, : side // stride]
        cells[:4] = np.stack(
            [(x.ravel() + 0.5), (y.ravel() + 0.5), x.ravel() * 0 + 1, y.ravel() * 0 + 1]
        )
        constants.append(cells * stride)
        graph += [
            tensor(f'w{stride}', weights.astype(dtype)),
            tensor(f'b{stride}', bias.astype(dtype)),
            node(
                'Conv',
                ['images', f'w{stride}', f'b{stride}'],
                f'c{stride}',
                kernel_shape=[stride, stride],
                strides=[stride, stride],
            ),
            node('Reshape', [f'c{stride}', 'flat'], f'g{stride}'),
        ]
        grids.append(f'g{stride}')
    anchors = 3 if layout == 'yolov5' else 1
    graph += [
        tensor('flat', np.array([0, channels, -1])),
        node('Concat', grids * anchors, 'all', axis=2),
        tensor('centres', np.concatenate(constants * anchors, axis=1)[None].astype(dtype)),
    ]
    if layout == 'yolov8':
        graph.append(node('Add', ['all', 'centres'], 'output'))
    else:
        # YOLOX leaves it to the reader to know where a cell is, and takes any size.
        decoded = [] if layout == 'yolox' else [node('Add', ['all', 'centres'], 'decoded')]
        last = 'decoded' if decoded else 'all'
        graph += [*decoded, node('Transpose', [last], 'output', perm=[0, 2, 1])]
    kind = 10 if half else 1
    return model(
        path, *graph, port(11, 'images', shape, kind), port(12, 'output', ['b', 'n', 'm'], kind)
    )


FIXED, ANY = (1, 3, 128, 128), ('batch', 3, 'height', 'width')
RED, BLUE = (0, 0, 255), (255, 0, 0)


def scene() -> NDArray[np.uint8]:
    """Return an image of 256x128 pixels with squares of 64x64: two red and one blue."""
    image = np.zeros((128, 256, 3), np.uint8)
    image[0:64, 64:128] = RED
    image[64:128, 192:256] = (0, 0, 230)
    image[64:128, 0:64] = BLUE
    return image


@needs_runtime
@pytest.mark.parametrize(
    ('layout', 'shape', 'half'),
    [
        ('yolov5', FIXED, False),
        ('yolov8', FIXED, False),
        ('yolov8', FIXED, True),
        ('yolox', FIXED, False),
        ('yolox', ANY, False),
    ],
)
def test_detector_finds_its_layout_and_boxes_in_image_pixels(
    tmp_path: Path, layout: str, shape: Sequence[int | str], half: bool
) -> None:
    path = squares(tmp_path / 'squares.onnx', layout, shape, half)
    detector = Detector(path, size=128)
    assert detector.layout == layout
    assert detector.describe() == f'squares.onnx ({layout}, 128x128, CPU)'
    found = detector.detect(scene())
    assert found.boxes == pytest.approx(boxes_of([[64, 0, 128, 64], [192, 64, 256, 128]]), abs=0.1)
    assert found.scores == pytest.approx([1.0, 2 * 230 / 255 - 1], abs=0.01)
    blue = Detector(path, size=128, person_class=1)
    assert blue.detect(scene()).boxes == pytest.approx(boxes_of([[0, 64, 64, 128]]), abs=0.1)
    grey = detector.detect(cv2.cvtColor(scene(), cv2.COLOR_BGR2GRAY))
    assert grey.boxes.shape == (0, 4)


@needs_runtime
@pytest.mark.parametrize(('layout', 'top'), [('yolov5', 32), ('yolov8', 32), ('yolox', 64)])
def test_each_layout_has_its_own_place_in_the_letterbox(
    tmp_path: Path, layout: str, top: int
) -> None:
    # 128x96 in 128x128: in the middle, only what begins at row 32 lies on the grid.
    image = np.zeros((192, 256, 3), np.uint8)
    image[top : top + 64, 64:128] = RED
    path = squares(tmp_path / 'squares.onnx', layout, FIXED)
    found = Detector(path).detect(image)
    assert found.boxes == pytest.approx(boxes_of([[64, top, 128, top + 64]]))


@needs_runtime
def test_input_size_is_the_models_or_640(tmp_path: Path) -> None:
    fixed = squares(tmp_path / 'fixed.onnx', 'yolox', FIXED)
    detector = Detector(fixed)
    assert (detector.width, detector.height) == (128, 128)
    free = squares(tmp_path / 'free.onnx', 'yolox', ANY)
    detector = Detector(free)
    assert (detector.width, detector.height) == (640, 640)
    wide = squares(tmp_path / 'wide.onnx', 'yolox', (1, 3, 64, 128))
    detector = Detector(wide)
    assert (detector.width, detector.height) == (128, 64)
    assert detector.detect(scene()).boxes[0] == pytest.approx([64, 0, 128, 64])
    with pytest.raises(DetectorError, match='fixed input of 128x128 pixels'):
        Detector(fixed, size=640)


@needs_runtime
def test_floor_and_suppression_are_parameters(tmp_path: Path) -> None:
    path = squares(tmp_path / 'squares.onnx', 'yolov5', FIXED)
    floor = Detector(path, floor=0.9)
    assert len(floor.detect(scene()).scores) == 1
    # Three anchors answer alike.
    everything = Detector(path, iou=1.0)
    assert len(everything.detect(scene()).scores) == 6


@needs_runtime
@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'person_class': 2}, 'has no class 2 for persons: use 0 to 1'),
        ({'size': 100}, 'size 100 must be a multiple of 32'),
        ({'iou': 0.0}, 'must be between 0 and 1'),
    ],
)
def test_options_that_do_not_fit_are_refused(
    tmp_path: Path, options: dict[str, object], message: str
) -> None:
    path = squares(tmp_path / 'squares.onnx', 'yolov5', FIXED)
    with pytest.raises(DetectorError, match=message):
        Detector(path, **options)


def not_a_model(path: Path) -> Path:
    path.write_text('not a model', encoding='utf-8')
    return path


def two_inputs(path: Path) -> Path:
    shape = (1, 3, 64, 64)
    return model(
        path,
        node('Add', ['a', 'b'], 'output'),
        *(port(11, name, shape, 1) for name in 'ab'),
        port(12, 'output', shape, 1),
    )


def other_answer(path: Path) -> Path:
    return model(
        path,
        node('Identity', ['a'], 'output'),
        port(11, 'a', (1, 3, 64, 64), 1),
        port(12, 'output', (1, 3, 64, 64), 1),
    )


def classifier(path: Path) -> Path:
    return model(
        path,
        tensor('flat', np.array([1, 3, -1])),
        node('Reshape', ['a', 'flat'], 'output'),
        port(11, 'a', (1, 3, 64, 64), 1),
        port(12, 'output', (1, 3, 4096), 1),
    )


@needs_runtime
@pytest.mark.parametrize(
    ('write', 'message'),
    [
        (not_a_model, 'cannot be read as an ONNX model'),
        (two_inputs, r'its input is a \[1, 3, 64, 64\], b \[1, 3, 64, 64\]'),
        (other_answer, r'its first output has shape \(1, 3, 64, 64\)'),
        (classifier, r'the output of shape \(1, 3, 4096\)'),
    ],
)
def test_other_files_are_no_detectors(
    tmp_path: Path, write: Callable[[Path], Path], message: str
) -> None:
    path = write(tmp_path / 'other.onnx')
    with pytest.raises(DetectorError, match=message) as error:
        Detector(path)
    assert 'other.onnx' in str(error.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DetectorError, match=r'the detector .*none\.onnx does not exist'):
        Detector(tmp_path / 'none.onnx')


def test_missing_onnx_runtime_ends_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = squares(tmp_path / 'squares.onnx', 'yolov5', FIXED)
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)
    with pytest.raises(DetectorError, match='pip install onnxruntime'):
        Detector(path)


@needs_runtime
@pytest.mark.parametrize('shape', [(4, 4, 4), (0, 4, 3), (4,)])
def test_images_of_another_shape_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    detector = Detector(squares(tmp_path / 's.onnx', 'yolox', FIXED))
    with pytest.raises(DetectorError, match='but must be uint8'):
        detector.detect(np.zeros(shape, np.uint8))


@needs_runtime
@pytest.mark.parametrize(
    ('name', 'layout'), [('yolov5n_coco', 'yolov5'), ('yolox_nano_coco', 'yolox')]
)
def test_public_detectors_find_people_in_the_street(shared: Path, name: str, layout: str) -> None:
    path, folder = shared / 'models' / f'{name}.onnx', shared / 'data' / 'llvip'
    if not path.is_file() or not folder.is_dir():
        pytest.skip(f'{path.name} or the street pairs are not there')
    detector = Detector(path)
    assert detector.layout == layout
    image = cv2.imread(str(folder / 'visible' / '010001.jpg'))
    truth = load_labels(folder / 'labels.json').find(['010001'], 1280, 1024)
    assert truth is not None
    result = DetectionAccuracy([match(detector.detect(image), truth)])
    assert result.persons == 6
    assert result.miss_rate(0.25) <= 0.5
    assert result.false_positives_per_image(0.25) <= 1


@needs_runtime
@pytest.mark.parametrize('inside', ['initializer', 'constant', 'sparse', 'branch', 'function'])
def test_a_model_that_names_other_files_is_refused(tmp_path: Path, inside: str) -> None:
    (tmp_path / 'secret').write_bytes(bytes(4))
    place = entry(13, entry(1, 'location') + entry(2, str(tmp_path / 'secret'))) + entry(14, 1)
    outside = entry(1, 1) + entry(2, 1) + entry(8, 'x') + place
    attribute = entry(1, 'value') + entry(5, outside) + entry(20, 4)
    constant = entry(2, 'x') + entry(4, 'Constant') + entry(5, attribute)
    branch = entry(5, entry(1, 'then_branch') + entry(6, entry(1, constant)) + entry(20, 5))
    graph = {
        'initializer': entry(5, outside),
        'constant': entry(1, constant),
        'sparse': entry(15, entry(1, outside)),
        'branch': entry(1, entry(4, 'If') + branch),
        'function': b'',
    }[inside]
    path = model(tmp_path / 'model.onnx', graph, port(11, 'images', FIXED, 1))
    if inside == 'function':
        path.write_bytes(path.read_bytes() + entry(25, entry(1, 'f') + entry(7, constant)))
    with pytest.raises(DetectorError, match=r'keeps its weights in other files.*save it as one'):
        Detector(path)


@needs_runtime
def test_a_model_for_images_beyond_all_measure_is_refused(tmp_path: Path) -> None:
    large = (1, 3, 1 << 16, 1 << 16)
    path = model(
        tmp_path / 'large.onnx',
        node('Identity', ['images'], 'output'),
        port(11, 'images', large, 1),
        port(12, 'output', large, 1),
    )
    with pytest.raises(
        DetectorError, match='65536x65536 pixels, but a side may have at most 4096'
    ):
        Detector(path)
