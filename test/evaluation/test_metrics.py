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

from importlib.util import find_spec
from itertools import product
import json
import math
from pathlib import Path
import sys
from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray
import pytest

from dig2dig_ros.evaluation import metrics
from dig2dig_ros.evaluation.metrics import (
    evaluate_pair,
    luma,
    Metric,
    metric_info,
    metric_names,
    MetricError,
    METRICS,
)

Image = NDArray[np.uint8]

needs_skimage = pytest.mark.skipif(
    find_spec('skimage') is None, reason='scikit-image (extra "evaluation") is not installed'
)
# Division by zero and the like must be dealt with, not warned about.
pytestmark = pytest.mark.filterwarnings('error:.*(divide|invalid|overflow|mean of empty)')


def texture(seed: int, shape: tuple[int, int] = (96, 120)) -> Image:
    """Return smooth random structure that spans the grey levels 20 to 220."""
    noise = np.random.default_rng(seed).standard_normal(shape)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2.5)
    return cv2.normalize(smooth, None, 20, 220, cv2.NORM_MINMAX).astype(np.uint8)


def ramp(slope_x: int, slope_y: int, shape: tuple[int, int] = (12, 10)) -> Image:
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return (columns * slope_x + rows * slope_y).astype(np.uint8)


@pytest.fixture(scope='module')
def sources() -> tuple[Image, Image]:
    return texture(1), texture(2)


def read_luma(path: Path) -> Image:
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    assert image is not None, path
    return luma(image)


@needs_skimage
@pytest.mark.slow
def test_values_agree_with_public_evaluators(shared: Path) -> None:
    reference = json.loads((shared / 'reference_metrics.json').read_text(encoding='utf-8'))
    tolerance = reference['tolerance']
    assert len(reference['values']) == 8
    wrong = []
    images = {'set', 'visible', 'thermal', 'fused'}
    for entry in reference['values']:
        pairs = shared / 'data' / entry['set']
        ours = evaluate_pair(
            read_luma(shared / 'data' / 'metric_check' / entry['fused']),
            read_luma(pairs / 'visible' / entry['visible']),
            read_luma(pairs / 'thermal' / entry['thermal']),
        )
        # Of edge intensity there is no value of a public evaluator.
        assert entry.keys() - images == METRICS.keys() - {'EI'}
        for name in entry.keys() - images:
            allowed = tolerance.get(f'{name}_relative', tolerance['default_relative'])
            if ours[name] != pytest.approx(entry[name], rel=allowed):
                wrong.append(f'{entry["fused"]} {name}: {ours[name]:g}, not {entry[name]:g}')
    assert not wrong


def test_luma_is_rounded_bt601_of_bgr() -> None:
    image = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [10, 20, 30]]], dtype=np.uint8)
    # 0.114 * 10 + 0.587 * 20 + 0.299 * 30 = 21.85
    assert luma(image).tolist() == [[29, 150, 76, 22]]
    grey = texture(0)
    assert luma(grey) is grey


@pytest.mark.parametrize(
    'image',
    [
        np.zeros((4, 4), dtype=np.uint16),
        np.zeros((4, 4, 4), dtype=np.uint8),
        np.zeros((0, 4, 3), dtype=np.uint8),
    ],
)
def test_luma_refuses_other_types_and_shapes(image: Any) -> None:
    with pytest.raises(MetricError, match=r'luma needs a uint8 image'):
        luma(image)


@needs_skimage
def test_image_fused_with_itself(sources: tuple[Image, Image]) -> None:
    image = sources[0]
    values = evaluate_pair(image, image, image)
    assert list(values) == list(METRICS)
    assert values['PSNR_sum'] == math.inf
    assert values['SSIM'] == pytest.approx(2)
    assert values['MSE'] == 0
    assert values['CC'] == pytest.approx(1)
    assert values['Nabf'] == 0
    # All edges kept; the sigmoids of the definition stay a little below 1.
    kept = 0.9994 / (1 + math.exp(-15 * 0.5)) * 0.9879 / (1 + math.exp(-22 * 0.2))
    assert values['Qabf'] == pytest.approx(kept)
    assert values['VIF'] == pytest.approx(2, rel=1e-6)
    assert values['SCD'] == 0  # the differences are constant
    assert values['MI'] == pytest.approx(2 * values['EN'] * math.log(2))


@needs_skimage
def test_order_of_the_sources_does_not_matter(sources: tuple[Image, Image]) -> None:
    visible, thermal = sources
    fused = ((visible.astype(int) + 2 * thermal) // 3).astype(np.uint8)
    assert evaluate_pair(fused, visible, thermal) == pytest.approx(
        evaluate_pair(fused, thermal, visible)
    )


@needs_skimage
def test_noise_moves_every_metric_the_way_it_must() -> None:
    # Of fewer pixels than pairs of grey levels, MI would be mostly chance.
    visible, thermal = texture(1, (300, 400)), texture(2, (300, 400))
    noise = np.random.default_rng(3).standard_normal(visible.shape)
    clean = (visible.astype(float) + thermal) / 2
    noisy = [np.clip(clean + sigma * noise, 0, 255) for sigma in (0, 5, 15, 40)]
    rows = [evaluate_pair(image, visible, thermal) for image in noisy]
    for name in METRICS:
        values = [row[name] for row in rows]
        rises = name in {'MSE', 'Nabf', 'SD', 'SF', 'AG', 'EI', 'EN'}
        expected = sorted(values, reverse=not rises)
        assert values == expected, name
        assert values[0] != values[-1], name


def test_squared_error_and_psnr_by_hand() -> None:
    fused = np.full((4, 4), 100, dtype=np.uint8)
    visible = np.full((4, 4), 101, dtype=np.uint8)
    thermal = np.full((4, 4), 90, dtype=np.uint8)
    assert metrics.mse(fused, visible, thermal) == pytest.approx((1 + 100) / 2)
    assert metrics.psnr_sum(fused, visible, thermal) == pytest.approx(
        20 * math.log10(255) + 20 * math.log10(25.5)
    )


@needs_skimage
def test_the_entropy_of_a_constant_is_not_minus_zero() -> None:
    assert math.copysign(1.0, METRICS['EN'].function(np.full((8, 8), 7, np.uint8))) == 1.0


def test_ssim_of_constants_by_hand() -> None:
    fused, visible, thermal = (np.full((9, 9), v, dtype=np.uint8) for v in (100, 50, 200))
    c1 = (0.01 * 255) ** 2
    expected = sum((200 * v + c1) / (100**2 + v**2 + c1) for v in (50, 200))
    assert metrics.ssim(fused, visible, thermal) == pytest.approx(expected)


def test_correlations_by_hand(sources: tuple[Image, Image]) -> None:
    fused = np.array([[0, 1], [2, 3]], dtype=np.uint8)
    assert metrics.correlation(fused, fused * 2 + 7, 9 - fused) == pytest.approx(0)
    assert metrics.correlation(fused, fused * 2, fused * 5) == pytest.approx(1)
    visible, thermal = (source // 2 for source in sources)
    assert metrics.scd(visible + thermal, visible, thermal) == pytest.approx(2)


def test_qabf_without_any_preserved_edge() -> None:
    source = ramp(10, 0)
    flat = np.zeros_like(source)
    assert metrics.qabf(flat, source, source) < 0.001
    assert metrics.qabf(source, source, flat) > 0.95  # the flat source has nothing to lose


def test_nabf_by_hand() -> None:
    # Both sources rise by 4 a pixel, the fused image by 8: the same direction, twice as strong.
    # The mirrored border has no horizontal gradient: weight 0.001 there, and no artefact.
    source, fused = ramp(4, 0, (12, 10)), ramp(8, 0, (12, 10))
    kept = math.sqrt(0.9999 / 2 * 0.9995 / (1 + math.exp(-22 * 0.5)))
    weight = 4**1.5
    expected = (1 - kept) * 8 * weight / (8 * weight + 2 * 0.001)
    assert metrics.nabf(fused, source, source) == pytest.approx(expected)
    assert metrics.nabf(source, fused, source) == 0  # not stronger than both


def test_nabf_takes_opposite_directions_for_the_same_orientation() -> None:
    rising, falling = ramp(4, 0), (90 - ramp(8, 0)).astype(np.uint8)
    assert metrics.nabf(falling, rising, rising) == pytest.approx(
        metrics.nabf(ramp(8, 0), rising, rising)
    )


def test_vif_knows_lost_and_enhanced_contrast(sources: tuple[Image, Image]) -> None:
    low = 100 + sources[0] // 4
    assert metrics.vif(100 + sources[0] // 2, low, low) > 2.05
    assert 0 < metrics.vif(low, sources[0], sources[0]) < 1.9
    assert metrics.vif(np.full_like(low, 80), low, low) == pytest.approx(0, abs=1e-6)


def test_mutual_information_by_hand() -> None:
    columns = ramp(1, 0, (8, 8))
    rows = ramp(0, 1, (8, 8))
    assert metrics.mutual_information(columns, columns, rows) == pytest.approx(math.log(8))
    # Any one-to-one change of the grey levels keeps the information.
    assert metrics.mutual_information(columns, 200 - columns, rows) == pytest.approx(math.log(8))


def test_contrast_metrics_by_hand() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert metrics.entropy(levels) == pytest.approx(8)
    assert metrics.entropy(levels // 64) == pytest.approx(2)
    halves = np.array([[0, 100], [100, 0]], dtype=np.uint8)
    assert metrics.standard_deviation(halves) == pytest.approx(50)
    assert metrics.spatial_frequency(ramp(3, 4)) == pytest.approx(5)
    assert metrics.average_gradient(ramp(3, 4)) == pytest.approx(5 / math.sqrt(2))
    # A Sobel kernel sees 8 per unit of slope, and half of it at the continued border.
    assert metrics.edge_intensity(ramp(1, 0, (6, 10))) == pytest.approx((8 * 8 + 2 * 4) / 10)


@needs_skimage
def test_constant_images_have_defined_values(sources: tuple[Image, Image]) -> None:
    flat = np.full_like(sources[0], 90)
    flat_fused = evaluate_pair(flat, *sources)
    assert all(math.isfinite(value) for value in flat_fused.values()), flat_fused
    for name in ('CC', 'Nabf', 'MI', 'EN', 'SD', 'SF', 'AG', 'EI'):
        assert flat_fused[name] == 0, name
    flat_source = evaluate_pair(sources[0], flat, sources[1])
    assert all(math.isfinite(value) for value in flat_source.values()), flat_source
    all_flat = evaluate_pair(flat, flat, flat)
    assert all_flat['PSNR_sum'] == math.inf
    assert all_flat['SSIM'] == pytest.approx(2)
    assert all_flat['VIF'] == 2
    for name in ('MSE', 'CC', 'Nabf', 'SCD', 'MI', 'EN', 'SD', 'SF', 'AG', 'EI'):
        assert all_flat[name] == 0, name


def test_qabf_is_the_mean_of_what_is_kept_of_each_source_by_its_edges() -> None:
    one, other = texture(1), texture(2)
    fused = ((one.astype(int) + other) // 2).astype(np.uint8)
    kept = metrics.edges_kept(fused, one, other)
    edges = [np.hypot(*sobel(source)).sum() for source in (one, other)]
    assert metrics.qabf(fused, one, other) == pytest.approx(np.average(kept, weights=edges))
    # The image itself is kept best, and an image without edges has nothing to lose.
    all_kept, some, nothing = metrics.edges_kept(one, one, other, np.zeros_like(one))
    assert all_kept > 0.95 > 0.5 > some
    assert nothing == 1


def sobel(image: Image) -> list[NDArray[np.float64]]:
    padded = np.pad(image.astype(float), 1)
    return [cv2.Sobel(padded, cv2.CV_64F, *d)[1:-1, 1:-1] for d in ((1, 0), (0, 1))]


def test_qabf_of_sources_without_edges_is_perfect() -> None:
    black = np.zeros((8, 8), dtype=np.uint8)
    assert metrics.qabf(ramp(5, 5, (8, 8)), black, black) == 1


@pytest.fixture(params=[pytest.param(m, id=m.name) for m in METRICS.values()])
def metric(request: pytest.FixtureRequest) -> Metric:
    if request.param.name == 'SSIM' and find_spec('skimage') is None:
        pytest.skip('scikit-image (extra "evaluation") is not installed')
    return cast(Metric, request.param)


PLACES = ('fused', 'visible', 'thermal')
GOOD = texture(4, (50, 61))


def triple_with(bad: Any, place: str) -> list[Any]:
    """Return three images, of which the one in ``place`` is bad."""
    return [bad if place == name else GOOD for name in PLACES]


def changed(value: float) -> NDArray[np.float64]:
    """Return a good image but for one pixel."""
    image = GOOD.astype(np.float64)
    image[20, 30] = value
    return image


@pytest.mark.parametrize('place', PLACES)
def test_bad_images_are_refused_by_name(metric: Metric, place: str) -> None:
    bad_images: list[tuple[Any, str]] = [
        (changed(np.nan), 'has values that are not finite'),
        (changed(np.inf), 'has values that are not finite'),
        (changed(-np.inf), 'has values that are not finite'),
        (changed(-0.5), r'has values from -0\.5 to .*8-bit scale 0 to 255'),
        (changed(255.5), r'has values from .* to 255\.5: .*8-bit scale'),
        (GOOD.astype(np.uint16) * 257, 'has values from .*8-bit scale'),
        (GOOD > 99, 'has the type bool: whole or real numbers'),
        (GOOD.astype(complex), 'has the type complex128'),
        (GOOD.astype(object), 'has the type object'),
        (GOOD.astype(str), 'has the type <U'),
        (np.dstack([GOOD] * 3), r'has shape \(50, 61, 3\): .* luma'),
        (GOOD[0], r'has shape \(61,\): .* luma'),
        (GOOD[:0], r'is empty \(shape \(0, 61\)\)'),
    ]
    for bad, message in bad_images:
        if place != 'fused' and not metric.uses_sources:
            assert metric(*triple_with(bad, place)) == metric(GOOD, GOOD, GOOD)
            continue
        with pytest.raises(MetricError, match=f'the {place} image {message}'):
            metric(*triple_with(bad, place))


def test_images_of_several_sizes_are_refused(metric: Metric) -> None:
    if not metric.uses_sources:
        return
    for bad, place in product([GOOD[:, 1:], GOOD.T, GOOD[:49]], PLACES):
        named, size = ('visible', GOOD.shape) if place == 'fused' else (place, bad.shape)
        with pytest.raises(
            MetricError, match=rf'{named} image has shape \({size[0]}, {size[1]}\), .*'
        ):
            metric(*triple_with(bad, place))


def test_constant_images_give_no_nan(metric: Metric) -> None:
    places = [*((place,) for place in PLACES), PLACES[1:], PLACES]
    for flat, level in product(places, [0, 90, 255]):
        images = [np.full_like(GOOD, level) if place in flat else GOOD for place in PLACES]
        value = metric(*images)
        equal = any(np.array_equal(images[0], source) for source in images[1:])
        if metric.name == 'PSNR_sum' and equal:
            assert value == math.inf
        else:
            assert math.isfinite(value), (flat, level)


def test_images_that_are_all_but_constant_give_no_nan(metric: Metric) -> None:
    # The square of such a difference is too small for any number of 64 bits.
    tiny = np.zeros((50, 61))
    tiny[10, 10] = 1e-200
    almost = np.full((50, 61), 90.0)
    almost[10, 10] = np.nextafter(90, 91)
    for images in (
        (tiny, tiny, GOOD),
        (tiny, GOOD, tiny),
        (almost, GOOD, tiny),
        (GOOD, tiny, tiny),
    ):
        assert not math.isnan(metric(*images))


def test_tiny_images_give_a_value_or_say_what_is_needed(metric: Metric) -> None:
    smallest = {'VIF': 41, 'SSIM': 7, 'SF': 2, 'AG': 2}.get(metric.name, 1)
    rng = np.random.default_rng(0)
    for shape in ((1, 1), (1, 50), (50, 1), (2, 2), (2, 3), (7, 7), (41, 40)):
        images = [rng.integers(0, 256, shape, dtype=np.uint8) for _ in PLACES]
        if min(shape) >= smallest:
            assert math.isfinite(metric(*images)), shape
        else:
            with pytest.raises(MetricError, match=rf'needs at least {smallest} on each side'):
                metric(*images)


@needs_skimage
@pytest.mark.parametrize('place', PLACES)
def test_a_bad_image_is_refused_by_the_set_of_metrics(place: str) -> None:
    with pytest.raises(MetricError, match=f'the {place} image has values that are not finite'):
        evaluate_pair(*triple_with(changed(np.nan), place))


def test_too_small_images_are_refused_with_the_size_needed() -> None:
    small = np.zeros((41, 40), dtype=np.uint8)
    with pytest.raises(MetricError, match='40x41 pixels, but this metric needs at least 41'):
        metrics.vif(small, small, small)
    enough = np.zeros((41, 41), dtype=np.uint8)
    assert metrics.vif(enough, enough, enough) == 2
    with pytest.raises(MetricError, match='at least 2 on each side'):
        metrics.average_gradient(small[:1])


def test_missing_scikit_image_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, 'skimage.metrics', None)
    image = texture(0)
    with pytest.raises(ImportError, match='install the extra "evaluation"'):
        metrics.ssim(image, image, image)


def test_titles_show_the_direction() -> None:
    assert METRICS['MSE'].title == 'MSE ↓'
    assert METRICS['Qabf'].title == 'Qabf ↑'
    assert [m.name for m in METRICS.values() if not m.higher_is_better] == ['MSE', 'Nabf']


def test_every_metric_is_known_by_its_name() -> None:
    assert metric_names(with_lpips=True) == [*metric_names(with_lpips=False), 'LPIPS']
    for name in metric_names(with_lpips=True):
        assert metric_info(name).name == name
    assert metric_info('LPIPS').title == 'LPIPS ↓'
    assert metric_info('SSIM') is METRICS['SSIM']
    with pytest.raises(MetricError, match='there is no metric PSNR: there are PSNR_sum, '):
        metric_info('PSNR')
