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


"""Scores of methods: images on one scale, the book and the file of values, tables."""

from collections.abc import Sequence
import csv
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
import pytest

from dig2dig_ros.evaluation.comparison import Difference
from dig2dig_ros.evaluation.metrics import evaluate_pair, luma, MetricError, METRICS
from dig2dig_ros.evaluation.scores import (
    ablation_table,
    comparison_table,
    Cost,
    difference_table,
    format_difference,
    format_value,
    fuse_with,
    grey_8_bits,
    MethodOutput,
    score_images,
    ScoreBook,
    ScoreFile,
    to_8_bits,
)
from dig2dig_ros.images.placement import Placement

Image = NDArray[np.uint8]
# Every metric, with a value that tells its place.
ROW = {name: float(index) for index, name in enumerate(METRICS)}


def picture(seed: int, *shape: int) -> Image:
    noise = np.random.default_rng(seed).standard_normal(shape or (48, 64))
    smooth = cv2.GaussianBlur(noise, (0, 0), 2)
    return np.asarray(cv2.normalize(smooth, None, 10, 240, cv2.NORM_MINMAX)).astype(np.uint8)


@pytest.mark.parametrize(
    ('image', 'expected'),
    [
        (np.array([[0, 128, 255]], np.uint8), [0, 128, 255]),
        (np.array([[0, 257 * 7, 65535]], np.uint16), [0, 7, 255]),
        (np.array([[0.0, 0.5, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[0.0, 0.2, 1.0]], np.float64), [0, 51, 255]),
    ],
)
def test_images_of_any_type_on_the_8_bit_scale(image: NDArray[Any], expected: list[int]) -> None:
    result = to_8_bits(image)
    assert result.dtype == np.uint8
    assert result.tolist() == [expected]


def test_other_types_have_no_8_bit_scale() -> None:
    with pytest.raises(ValueError, match='an image of int32 has no 8-bit scale'):
        to_8_bits(np.zeros((2, 2), np.int32))


def test_grey_images_of_another_size() -> None:
    colour = picture(0, 48, 64, 3)
    assert np.array_equal(grey_8_bits(colour), luma(colour))
    assert np.array_equal(grey_8_bits(colour, (64, 48)), luma(colour))
    small, large = grey_8_bits(colour, (32, 24)), grey_8_bits(colour, (128, 96))
    assert (small.shape, large.shape) == ((24, 32), (96, 128))
    area = cv2.resize(luma(colour), (32, 24), interpolation=cv2.INTER_AREA)
    assert np.array_equal(small, area)


def test_one_method_of_two_names_fuses_once() -> None:
    calls: list[Sequence[Image]] = []

    def method(images: Sequence[Image], placements: Sequence[Placement | None]) -> Image:
        assert placements == ()
        calls.append(images)
        return images[0]

    first, second = picture(0), picture(1)
    known = MethodOutput(second, 1.0)
    methods = {'a': method, 'b': method, 'c': lambda images, _: images[1], 'd': method}
    fused = fuse_with(methods, [first, second], {'d': known})
    assert len(calls) == 1
    assert list(fused) == ['a', 'b', 'c', 'd']
    assert fused['a'] is fused['b']
    assert fused['c'].image is second
    assert fused['d'] is known
    assert fused['a'].milliseconds >= 0


def test_scores_are_those_of_the_luma() -> None:
    visible, thermal, colour = picture(0), picture(1), picture(2, 48, 64, 3)
    fused = {'one': MethodOutput(colour, 1.0), 'two': MethodOutput(visible, 2.0)}
    values = score_images(fused, visible, thermal)
    assert score_images(fused, visible, thermal, threads=3) == values
    assert values['one'] == evaluate_pair(luma(colour), visible, thermal)
    # A fused image that equals a source has no error against it.
    assert math.isinf(values['two']['PSNR_sum'])
    assert not any(map(math.isnan, values['two'].values()))


def test_images_that_cannot_be_scored_are_refused() -> None:
    small = picture(0, 16, 16)
    with pytest.raises(MetricError):
        score_images({'one': MethodOutput(small, 1.0)}, small, small)


def book(pairs: int, infinite: bool = False) -> ScoreBook:
    """Return scores of two methods, of which ``fused`` is better by 1 in everything."""
    scores = ScoreBook(['mean', 'fused'], METRICS)
    for pair in range(pairs):
        values = {}
        for method, better in (('mean', 0), ('fused', 1)):
            row = {
                name: 10.0 * place + pair + better * (1 if METRICS[name].higher_is_better else -1)
                for name, place in ROW.items()
            }
            if infinite and method == 'fused' and pair == 0:
                row['PSNR_sum'] = math.inf
            values[method] = row
        scores.add(values, {'mean': 1.0 + pair, 'fused': 20.0 + pair})
    return scores


def test_means_and_medians() -> None:
    scores = book(3)
    assert scores.pairs == 3
    assert scores.values('mean').shape == (3, len(METRICS))
    assert scores.column('fused', 'PSNR_sum').tolist() == [1.0, 2.0, 3.0]
    assert scores.means()['mean'] == {name: 10 * place + 1 for name, place in ROW.items()}
    assert scores.median_milliseconds() == {'mean': 2.0, 'fused': 21.0}
    # What was given away does not stop the book from growing.
    column = scores.column('mean', 'SSIM')
    scores.add({name: ROW for name in scores.methods}, dict.fromkeys(scores.methods, 1.0))
    assert (len(column), scores.pairs) == (3, 4)


def test_an_infinite_value_shows_in_its_mean_and_nowhere_else() -> None:
    scores = book(7, infinite=True)
    means = scores.means()
    assert means['fused'].pop('PSNR_sum') == math.inf
    assert all(map(math.isfinite, means['fused'].values()))
    means = scores.means()
    table = comparison_table(means, scores.metrics, {})
    own = dict(zip(table.header, table.rows[1], strict=True))
    assert own['PSNR_sum ↑'] == '∞'
    assert 'A PSNR is infinite where the fused image equals a source' in table.notes[0]
    cells = {row[0]: row[1] for row in difference_table(scores, ['mean']).rows}
    assert cells['PSNR_sum ↑'] == '+∞'
    assert cells['SSIM ↑'] == '+1.0000 [+1.0000, +1.0000] ✓'
    assert 'nan' not in table.markdown() + difference_table(scores, ['mean']).markdown()


@pytest.mark.filterwarnings('ignore:invalid value')
def test_two_methods_with_infinite_values_for_other_pairs_have_no_difference() -> None:
    scores = ScoreBook(['mean', 'fused'], ['PSNR_sum'])
    for ours, theirs in ((math.inf, 1.0), (2.0, math.inf), (math.inf, math.inf)):
        scores.add(
            {'fused': {'PSNR_sum': ours}, 'mean': {'PSNR_sum': theirs}},
            {'fused': 1.0, 'mean': 1.0},
        )
    assert difference_table(scores, ['mean']).rows == (('PSNR_sum ↑', 'n/a'),)


def test_comparison_has_ranks_costs_and_what_is_missing() -> None:
    scores = book(1)
    costs = {'fused': Cost(4, 2.5, 20.0), 'mean': Cost(milliseconds=0.25)}
    published = {'SSIM': 1.5}
    table = comparison_table({**scores.means(), 'other': published}, scores.metrics, costs)
    rows = {row[0]: dict(zip(table.header, row, strict=True)) for row in table.rows}
    assert list(rows) == ['mean', 'fused', 'other']
    assert [rows['fused'][key] for key in ('denoiser calls', 'GFLOP', 'ms')] == [
        '4',
        '2.5000',
        '20.0',
    ]
    assert [rows['mean'][key] for key in ('denoiser calls', 'GFLOP', 'ms')] == [
        'n/a',
        'n/a',
        '0.2',
    ]
    assert [rows[name]['mean rank ↓'] for name in rows] == ['2.00', '1.00', 'n/a']
    assert rows['other']['SSIM ↑'] == '1.5000'
    assert rows['other']['MSE ↓'] == rows['other']['ms'] == 'n/a'
    assert 'among the 2 rows mean, fused' in table.notes[0]
    assert 'Among fewer than 6 rows, mean ranks say little: mean is close' in table.notes[0]
    assert 'LPIPS is missing' in table.notes[1]
    with_lpips = comparison_table({'fused': {'LPIPS': 0.5}}, ['LPIPS'], {})
    assert not any('missing' in note for note in with_lpips.notes)


def test_differences_of_few_pairs_have_no_interval() -> None:
    table = difference_table(book(2), ['mean'])
    assert table.header == ('metric', 'fused - mean')
    cells = dict(row for row in table.rows)
    assert cells['SSIM ↑'] == '+1.0000'
    assert cells['MSE ↓'] == '-1.0000'
    assert '2 pairs are too few for an interval, which needs 6' in table.notes[0]
    enough = difference_table(book(6), ['mean'])
    assert all(row[1].endswith('✓') for row in enough.rows)
    assert 'over 6 pairs with 95 % percentile intervals' in enough.notes[0]


def test_ablations_have_their_own_labels() -> None:
    scores = book(1)
    costs = {'mean': Cost(milliseconds=1.0), 'fused': Cost(3, 1.0, 20.0)}
    labels = {'fused': 'S 1', 'mean': 'S 5'}
    table = ablation_table('Steps', labels, ['SSIM', 'MSE'], scores.means(), costs)
    assert table.header == ('', 'SSIM ↑', 'MSE ↓', 'denoiser calls', 'ms')
    means = [format_value(scores.means()['fused'][metric]) for metric in ('SSIM', 'MSE')]
    assert table.rows[0] == ('S 1', *means, '3', '20.0')
    assert table.rows[1][0] == 'S 5'


@pytest.mark.parametrize(
    ('value', 'text'),
    [
        (0.5, '0.5000'),
        (-9.99994, '-9.9999'),
        (12.344, '12.34'),
        (1234.56, '1234.6'),
        (math.inf, '∞'),
        (-math.inf, '-∞'),
    ],
)
def test_digits_of_a_value(value: float, text: str) -> None:
    assert format_value(value) == text


def test_a_difference_of_nothing_has_no_sign_of_its_own() -> None:
    table = difference_table(book(6), ['fused'])
    assert {row[1] for row in table.rows} == {'+0.0000 [+0.0000, +0.0000]'}
    assert format_difference(Difference(-1e-9, None, None), True) == '+0.0000'


def test_a_file_of_scores_reads_back_to_the_same_numbers(tmp_path: Path) -> None:
    path = tmp_path / 'values.csv'
    path.write_text('from before', encoding='utf-8')
    file = ScoreFile(path, ['pair', 'method'], ['SSIM', 'PSNR_sum'], ['ms'])
    name = 'a "quoted", name\nof two lines'
    file.add([name, 'fused'], {'SSIM': 0.1 + 0.2, 'PSNR_sum': math.inf, 'MSE': 1.0}, [3])
    file.flush()
    # Readable while it grows.
    with path.open(encoding='utf-8', newline='') as lines:
        (row,) = csv.DictReader(lines)
    assert row == {
        'pair': name,
        'method': 'fused',
        'SSIM': repr(0.1 + 0.2),
        'PSNR_sum': 'inf',
        'ms': '3',
    }
    file.close()
    assert b'\r' not in path.read_bytes()
