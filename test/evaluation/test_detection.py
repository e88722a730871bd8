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

from collections.abc import Callable, Sequence
from importlib.util import find_spec
import json
import math
from pathlib import Path
import sys

import cv2
import numpy as np
from numpy.typing import NDArray
import pytest

from dig2dig_ros.evaluation.detection import (
    decode_yolov5,
    decode_yolov8,
    decode_yolox,
    Detections,
    Detector,
    DetectorError,
    draw_images,
    Evaluation,
    find_layout,
    ImageLabels,
    intersection_over_union,
    interval,
    IOU_THRESHOLDS,
    LabelError,
    letterbox,
    load_labels,
    match,
    suppress,
)

needs_runtime = pytest.mark.skipif(
    find_spec('onnxruntime') is None, reason='onnxruntime (extra "detection") is not installed'
)

A, B, C = [10.0, 10.0, 20.0, 40.0], [50.0, 10.0, 70.0, 60.0], [80.0, 0.0, 90.0, 30.0]
NOWHERE = [200.0, 200.0, 210.0, 230.0]
Found = Sequence[tuple[float, list[float]]]


def boxes_of(boxes: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    return np.array(boxes, dtype=np.float64).reshape(-1, 4)


def evaluation(
    *images: tuple[Found, Sequence[list[float]]], ignore: Sequence[list[float]] = ()
) -> Evaluation:
    """Evaluate images of (score, box) and persons."""
    return Evaluation(
        [
            match(
                Detections(boxes_of([box for _, box in found]), np.array([s for s, _ in found])),
                ImageLabels(boxes_of(persons), boxes_of(ignore)),
            )
            for found, persons in images
        ]
    )


# --- Average precision --------------------------------------------------------------------------


def test_all_found_and_nothing_else_is_perfect() -> None:
    result = evaluation(([(0.9, A), (0.3, B)], [B, A]), ([(0.5, C)], [C]), ([], []))
    assert result.average_precision() == 1.0
    assert result.mean_average_precision() == 1.0
    assert result.miss_rate(0.0) == 0.0
    assert result.false_positives_per_image(0.0) == 0.0
    assert (result.persons, result.images) == (3, 3)


@pytest.mark.parametrize('found', [[], [(0.9, NOWHERE)]])
def test_all_missed_is_zero(found: Found) -> None:
    result = evaluation((found, [A, B]))
    assert result.average_precision() == 0.0
    assert result.mean_average_precision() == 0.0
    assert result.miss_rate(0.0) == 1.0
    assert result.false_positives_per_image(0.5) == len(found)


def test_without_persons_it_is_not_defined() -> None:
    result = evaluation(([(0.9, A)], []))
    assert math.isnan(result.average_precision())
    assert math.isnan(result.mean_average_precision())
    assert math.isnan(result.miss_rate(0.5))
    assert result.false_positives_per_image(0.5) == 1.0


def test_half_found_reaches_the_lower_51_of_101_recall_levels() -> None:
    assert evaluation(([(0.9, A)], [A, B])).average_precision() == pytest.approx(51 / 101)


def test_a_second_detection_of_one_person_is_wrong() -> None:
    # Precision 1, 1/2, 2/3 at recall 1/2, 1/2, 1.
    result = evaluation(([(0.9, A), (0.8, A), (0.7, B)], [A, B]))
    assert result.average_precision() == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert result.false_positives_per_image(0.8) == 1.0


def test_scores_order_detections_across_images() -> None:
    first_right = evaluation(([(0.9, A)], [A]), ([(0.8, NOWHERE)], []))
    assert first_right.average_precision() == 1.0
    first_wrong = evaluation(([(0.8, A)], [A]), ([(0.9, NOWHERE)], []))
    assert first_wrong.average_precision() == pytest.approx(0.5)
    # In whatever order they are given.
    mixed = evaluation(([(0.2, NOWHERE), (0.9, A)], [A]))
    assert mixed.average_precision() == 1.0


def test_precision_is_that_of_any_higher_recall() -> None:
    # Precision 0, 1/2, 2/3: interpolated, 2/3 at every recall.
    result = evaluation(([(0.9, NOWHERE), (0.8, A), (0.7, B)], [A, B]))
    assert result.average_precision() == pytest.approx(2 / 3)


def test_thresholds_are_on_the_overlap() -> None:
    # 72 of 100 rows: right up to an IoU of 0.70.
    result = evaluation(([(0.9, [0, 0, 10, 72])], [[0, 0, 10, 100]]))
    values = [result.average_precision(threshold) for threshold in IOU_THRESHOLDS]
    assert values == [1.0] * 5 + [0.0] * 5
    assert result.mean_average_precision() == pytest.approx(0.5)
    assert evaluation(([(0.9, [0, 0, 10, 50])], [[0, 0, 10, 100]])).average_precision() == 1.0


def test_a_detection_takes_the_person_it_overlaps_most() -> None:
    near, person, other = [0, 0, 10, 95], [0, 0, 10, 100], [0, 0, 10, 60]
    result = evaluation(([(0.9, near), (0.8, other)], [other, person]))
    assert result.average_precision() == 1.0


def test_ignored_regions_swallow_any_number_of_detections() -> None:
    region = [100.0, 100.0, 200.0, 200.0]
    inside = [(0.9, [110.0, 110.0, 120.0, 130.0]), (0.8, [150.0, 110.0, 160.0, 130.0])]
    half_outside = [(0.7, [85.0, 110.0, 105.0, 130.0])]
    result = evaluation(([*inside, (0.6, A)], [A]), ignore=[region])
    assert result.average_precision() == 1.0
    assert result.false_positives_per_image(0.5) == 0.0
    result = evaluation(([*half_outside, (0.6, A)], [A]), ignore=[region])
    assert result.average_precision() == pytest.approx(0.5)


def test_persons_in_an_ignored_region_still_count() -> None:
    result = evaluation(([(0.9, A)], [A, B]), ignore=[[0.0, 0.0, 100.0, 100.0]])
    assert result.persons == 2
    assert result.miss_rate(0.5) == 0.5
    assert result.average_precision() == pytest.approx(51 / 101)


def test_only_the_best_100_detections_of_an_image_count() -> None:
    wrong = [(0.9 - 0.001 * i, NOWHERE) for i in range(100)]
    assert evaluation(([*wrong[:99], (0.1, A)], [A])).average_precision() == pytest.approx(0.01)
    assert evaluation(([*wrong, (0.1, A)], [A])).average_precision() == 0.0


def test_miss_rate_counts_detections_of_the_stated_score() -> None:
    result = evaluation(([(0.9, A), (0.5, B), (0.4, C), (0.3, NOWHERE)], [A, B, C]), ([], [A]))
    assert result.miss_rate(0.5) == 0.5
    assert result.miss_rate(0.4) == 0.25
    assert result.false_positives_per_image(0.3) == 0.5
    assert result.false_positives_per_image(0.4) == 0.0


def test_a_match_says_with_which_score_each_person_was_found() -> None:
    found = Detections(boxes_of([C, A, A]), np.array([0.9, 0.6, 0.5]))
    result = match(found, ImageLabels(boxes_of([A, B, C]), boxes_of([])))
    assert result.found_with.tolist() == [0.6, -1.0, 0.9]
    assert result.persons == 3


# --- Bootstrap ----------------------------------------------------------------------------------


def random_images(seed: int) -> list[tuple[Found, list[list[float]]]]:
    rng = np.random.default_rng(seed)
    images = []
    for _ in range(6):
        persons = [[x, 0.0, x + 10.0, 30.0] for x in rng.permutation(8)[:3] * 20.0]
        found = [(float(rng.random()), person) for person in persons[:2]]
        found += [(float(rng.random()), [x + 200.0, 0.0, x + 210.0, 30.0]) for x in range(2)]
        images.append((found, persons))
    return images


def test_an_image_drawn_twice_counts_as_two() -> None:
    images = random_images(0)
    counts = np.array([2, 0, 1, 3, 0, 1])
    copies = [image for image, n in zip(images, counts, strict=True) for _ in range(n)]
    expected = evaluation(*copies)
    for threshold in (0.5, 0.75):
        value = evaluation(*images).average_precision(threshold, counts)
        assert value == pytest.approx(expected.average_precision(threshold), abs=1e-12)
    assert 0 < value < 1


def test_draws_are_seeded_and_keep_the_number_of_images() -> None:
    draws = draw_images(6, 50, seed=3)
    assert draws.shape == (50, 6)
    assert (draws.sum(axis=1) == 6).all()
    assert np.array_equal(draws, draw_images(6, 50, seed=3))
    assert not np.array_equal(draws, draw_images(6, 50, seed=4))


def test_bootstrap_spreads_around_the_value() -> None:
    result = evaluation(*random_images(0))
    values = result.bootstrap(draw_images(6, 200))
    low, high = interval(values)
    assert low < result.average_precision() < high
    assert np.mean((values >= low) & (values <= high)) >= 0.95


def test_same_draws_make_a_difference_paired() -> None:
    draws = draw_images(6, 50)
    first, same = (evaluation(*random_images(0)).bootstrap(draws) for _ in range(2))
    assert interval(first - same) == (0.0, 0.0)


def test_draws_without_a_person_are_left_out() -> None:
    result = evaluation(([(0.9, A)], [A]), ([], []))
    values = result.bootstrap(np.array([[1, 1], [0, 2], [2, 0]]))
    assert np.isnan(values).tolist() == [False, True, False]
    assert interval(values) == (1.0, 1.0)
    assert all(math.isnan(end) for end in interval(np.array([math.nan])))


# --- Boxes --------------------------------------------------------------------------------------


def test_intersection_over_union() -> None:
    overlap = intersection_over_union(
        boxes_of([[0, 0, 10, 10], [5, 5, 5, 5]]), boxes_of([[5, 0, 15, 10], [20, 20, 30, 30]])
    )
    assert overlap == pytest.approx(np.array([[1 / 3, 0], [0, 0]]))
    assert intersection_over_union(boxes_of([]), boxes_of([A])).shape == (0, 1)


def test_suppression_keeps_the_best_of_what_overlaps() -> None:
    boxes = boxes_of([[0, 0, 10, 60], [0, 0, 10, 100], [0, 0, 10, 59], [50, 0, 60, 10]])
    scores = np.array([0.5, 0.9, 0.6, 0.1])
    # An overlap of exactly the limit is allowed.
    assert suppress(boxes, scores, 0.6).tolist() == [1, 2, 3]
    assert suppress(boxes, scores, 0.5).tolist() == [1, 3]
    assert suppress(boxes, scores, 0.6, limit=1).tolist() == [1]
    assert suppress(boxes_of([]), np.zeros(0), 0.6).tolist() == []


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
    with pytest.raises(DetectorError, match='no layout of YOLOv5, YOLOv8 or YOLOX'):
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
    detector = Detector(path, size=128, threads=1, provider='cpu')
    assert detector.layout == layout
    assert detector.describe() == f'squares.onnx ({layout}, 128x128, CPU)'
    found = detector.detect(scene())
    assert found.boxes == pytest.approx(boxes_of([[64, 0, 128, 64], [192, 64, 256, 128]]), abs=0.1)
    assert found.scores == pytest.approx([1.0, 2 * 230 / 255 - 1], abs=0.01)
    blue = Detector(path, size=128, threads=1, provider='cpu', person_class=1, layout=layout)
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
    found = Detector(path, threads=1, provider='cpu').detect(image)
    assert found.boxes == pytest.approx(boxes_of([[64, top, 128, top + 64]]))


@needs_runtime
def test_input_size_is_the_models_or_640(tmp_path: Path) -> None:
    fixed = squares(tmp_path / 'fixed.onnx', 'yolox', FIXED)
    detector = Detector(fixed, threads=1, provider='cpu')
    assert (detector.width, detector.height) == (128, 128)
    free = squares(tmp_path / 'free.onnx', 'yolox', ANY)
    detector = Detector(free, threads=1, provider='cpu')
    assert (detector.width, detector.height) == (640, 640)
    wide = squares(tmp_path / 'wide.onnx', 'yolox', (1, 3, 64, 128))
    detector = Detector(wide, threads=1, provider='cpu')
    assert (detector.width, detector.height) == (128, 64)
    assert detector.detect(scene()).boxes[0] == pytest.approx([64, 0, 128, 64])
    with pytest.raises(DetectorError, match='fixed input of 128x128 pixels'):
        Detector(fixed, size=640, provider='cpu')


@needs_runtime
def test_floor_and_suppression_are_parameters(tmp_path: Path) -> None:
    path = squares(tmp_path / 'squares.onnx', 'yolov5', FIXED)
    floor = Detector(path, threads=1, provider='cpu', floor=0.9)
    assert len(floor.detect(scene()).scores) == 1
    # Three anchors answer alike.
    everything = Detector(path, threads=1, provider='cpu', iou=1.0)
    assert len(everything.detect(scene()).scores) == 6


@needs_runtime
@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'layout': 'yolox'}, 'no layout|not of yolox'),
        ({'layout': 'yolov9'}, "layout 'yolov9' is unknown"),
        ({'person_class': 2}, 'class 2 for persons is not one of 0 to 1'),
        ({'size': 100}, 'size 100 is no multiple of 32'),
        ({'iou': 0.0}, 'not between 0 and 1'),
        ({'provider': 'tpu'}, "provider 'tpu' is unknown"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    tmp_path: Path, options: dict[str, object], message: str
) -> None:
    path = squares(tmp_path / 'squares.onnx', 'yolov5', FIXED)
    with pytest.raises(DetectorError, match=message):
        Detector(path, **{'provider': 'cpu', 'threads': 1, **options})


@needs_runtime
def test_a_provider_asked_for_by_name_is_not_replaced(tmp_path: Path) -> None:
    import onnxruntime

    if 'CUDAExecutionProvider' in onnxruntime.get_available_providers():
        pytest.skip('this ONNX Runtime has CUDA')
    path = squares(tmp_path / 'squares.onnx', 'yolov5', FIXED)
    with pytest.raises(DetectorError, match='install onnxruntime-gpu'):
        Detector(path, provider='cuda')
    assert Detector(path, provider='auto', threads=1).describe().endswith('CPU)')


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
        (classifier, r'the output has shape \(1, 3, 4096\)'),
    ],
)
def test_other_files_are_no_detectors(
    tmp_path: Path, write: Callable[[Path], Path], message: str
) -> None:
    path = write(tmp_path / 'other.onnx')
    with pytest.raises(DetectorError, match=message) as error:
        Detector(path, provider='cpu', threads=1)
    assert 'other.onnx' in str(error.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DetectorError, match=r'there is no detector .*none\.onnx'):
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
    detector = Detector(squares(tmp_path / 's.onnx', 'yolox', FIXED), provider='cpu', threads=1)
    with pytest.raises(DetectorError, match='needed'):
        detector.detect(np.zeros(shape, np.uint8))


@needs_runtime
@pytest.mark.parametrize(
    ('name', 'layout'), [('yolov5n_coco', 'yolov5'), ('yolox_nano_coco', 'yolox')]
)
def test_public_detectors_find_people_in_the_street(shared: Path, name: str, layout: str) -> None:
    path, folder = shared / 'models' / f'{name}.onnx', shared / 'data' / 'llvip'
    if not path.is_file() or not folder.is_dir():
        pytest.skip(f'{path.name} or the street pairs are not there')
    detector = Detector(path, provider='cpu', threads=1)
    assert detector.layout == layout
    image = cv2.imread(str(folder / 'visible' / '010001.jpg'))
    truth = load_labels(folder / 'labels.json').find(['010001'], 1280, 1024)
    assert truth is not None
    result = Evaluation([match(detector.detect(image), truth)])
    assert result.persons == 6
    assert result.miss_rate(0.25) <= 0.5
    assert result.false_positives_per_image(0.25) <= 1


# --- Labels -------------------------------------------------------------------------------------


def write_json(path: Path, document: object) -> Path:
    path.write_text(json.dumps(document), encoding='utf-8')
    return path


def coco(**changes: object) -> dict[str, object]:
    return {
        'images': [
            {'id': 7, 'file_name': 'night/one.jpg', 'width': 100, 'height': 80},
            {'id': 8, 'file_name': 'two.png'},
        ],
        'categories': [{'id': 1, 'name': 'car'}, {'id': 3, 'name': 'Person'}],
        'annotations': [
            {'image_id': 7, 'category_id': 3, 'bbox': [10, 20, 30, 40]},
            {'image_id': 7, 'category_id': 1, 'bbox': [1, 2, 3, 4]},
            {'image_id': 7, 'category_id': 3, 'bbox': [0, 0, 50, 60], 'iscrowd': 1},
            {'image_id': 7, 'category_id': 3, 'bbox': [5, 5, 5, 5], 'iscrowd': 0, 'ignore': 1},
        ],
        **changes,
    }


def test_simple_labels(tmp_path: Path) -> None:
    path = write_json(
        tmp_path / 'labels.json',
        {'boxes': {'one': [A, B], 'two': []}, 'ignore': {'two': [C], 'three': [C]}},
    )
    labels = load_labels(path)
    one = labels.find(['unknown', 'one', 'two'], 100, 80)
    assert one is not None
    assert (one.boxes.tolist(), one.ignore.tolist()) == ([A, B], [])
    for name in ('two', 'three'):
        other = labels.find([name], 100, 80)
        assert other is not None
        assert (other.boxes.tolist(), other.ignore.tolist()) == ([], [C])
    assert labels.find(['unknown'], 100, 80) is None


def test_coco_labels(tmp_path: Path) -> None:
    path = write_json(tmp_path / 'coco.json', coco())
    labels = load_labels(path)
    one = labels.find(['one'], 100, 80)
    assert one is not None
    assert one.boxes.tolist() == [[10, 20, 40, 60]]
    assert one.ignore.tolist() == [[0, 0, 50, 60], [5, 5, 10, 10]]
    two = labels.find(['two'], 33, 44)
    assert two is not None
    assert two.boxes.shape == (0, 4)
    assert labels.find(['three'], 100, 80) is None
    with pytest.raises(LabelError, match='one is 50x40 pixels, but 100x80'):
        labels.find(['one'], 50, 40)
    for category in ('car', '1'):
        cars = load_labels(path, category).find(['one'], 100, 80)
        assert cars is not None
        assert cars.boxes.tolist() == [[1, 2, 4, 6]]


def test_yolo_labels(tmp_path: Path) -> None:
    (tmp_path / 'one.txt').write_text('0 0.5 0.5 0.2 0.5\n\n2 0.1 0.1 0.1 0.1\n', encoding='utf-8')
    (tmp_path / 'classes.txt').write_text('person\nbicycle\ncar\n', encoding='utf-8')
    labels = load_labels(tmp_path)
    one = labels.find(['one'], 200, 100)
    assert one is not None
    assert one.boxes == pytest.approx(boxes_of([[80, 25, 120, 75]]))
    empty = labels.find(['two'], 200, 100)
    assert empty is not None
    assert empty.boxes.shape == (0, 4)
    cars = load_labels(tmp_path, '2').find(['one'], 200, 100)
    assert cars is not None
    assert cars.boxes == pytest.approx(boxes_of([[10, 5, 30, 15]]))


@pytest.mark.parametrize(
    ('document', 'message'),
    [
        ([], 'neither "boxes" by image nor'),
        ({'boxes': [A]}, 'neither "boxes" by image nor'),
        ({'boxes': {'one': [[1, 2, 3]]}}, 'boxes of one: not a list of boxes of four numbers'),
        ({'boxes': {'one': [['a', 2, 3, 4]]}}, 'not a list of boxes of four numbers'),
        ({'boxes': {'one': [[5, 5, 5, 9]]}}, r'box \[5.0, 5.0, 5.0, 9.0\] is empty'),
        ({'boxes': {}, 'ignore': [A]}, '"ignore" has no lists'),
        (
            coco(categories=[{'id': 1, 'name': 'a'}, {'id': 2, 'name': 'b'}]),
            'which category .* a, b',
        ),
        (coco(images=[{'id': 7}]), 'is not as COCO has it: KeyError'),
        (coco(images=[]), 'is not as COCO has it: KeyError'),
        (
            coco(images=[{'id': i, 'file_name': f'{i}/one.jpg'} for i in (7, 8)]),
            'has two images one',
        ),
    ],
)
def test_json_that_makes_no_sense_is_refused(
    tmp_path: Path, document: object, message: str
) -> None:
    with pytest.raises(LabelError, match=message):
        load_labels(write_json(tmp_path / 'labels.json', document))


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('0 0.5 0.5 0.2\n', r'one\.txt: not lines of class, x, y, width and height'),
        ('person 0.5 0.5 0.2 0.2\n', 'not lines of class'),
        ('0 50 50 20 20\n', 'not in fractions of the image'),
        ('0 0.5 0.5 0 0\n', 'is empty'),
    ],
)
def test_text_that_makes_no_sense_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / 'one.txt').write_text(text, encoding='utf-8')
    with pytest.raises(LabelError, match=message):
        load_labels(tmp_path)


def test_missing_labels_are_named(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match=r'there are no labels .*none\.json'):
        load_labels(tmp_path / 'none.json')
    with pytest.raises(LabelError, match=r'there are no labels NAME\.txt'):
        load_labels(tmp_path)
    (tmp_path / 'broken.json').write_text('{', encoding='utf-8')
    with pytest.raises(LabelError, match='cannot be read as JSON'):
        load_labels(tmp_path / 'broken.json')
    (tmp_path / 'one.txt').write_text('', encoding='utf-8')
    with pytest.raises(LabelError, match='numbers for classes, so person is none'):
        load_labels(tmp_path, 'person')
