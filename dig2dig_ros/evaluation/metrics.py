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

"""
Objective quality of a fused luma image against its two source images.

Every function takes luma images of shape (H, W), uint8, or any other real type with finite
values in [0, 255], and computes in float64. Definitions, windows and constants are those of the
evaluators that the fusion literature reports with, so that numbers can be compared with
published tables.

None of these numbers is a quality by itself. MSE, PSNR, SSIM and CC reward the plain mean of the
sources; Qabf, VIF and SCD reward transferred detail; EN, SD, SF, AG and EI look at the fused
image alone and grow with noise as well.

Degenerate input has a defined value, stated at each function, and is never NaN: identical
images have an infinite PSNR, and a correlation with a constant image is 0. For anything else a
metric raises :class:`MetricError`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
import math
from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

LEVELS = 256
PEAK = 255.0

Array = NDArray[np.float64]
Luma = NDArray[Any]


class MetricError(ValueError):
    """A metric is not defined for the given images; the message says which and why."""


def luma(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """
    Return the 8-bit luma of an image: 0.299 R + 0.587 G + 0.114 B, rounded (BT.601).

    :param image: (H, W, 3) uint8 in BGR order, or (H, W) uint8, which is returned as it is.
    :raises MetricError: the image has another type or shape.
    """
    if image.dtype == np.uint8 and image.size:
        if image.ndim == 2:
            return image
        if image.ndim == 3 and image.shape[2] == 3:
            return cast(NDArray[np.uint8], cv2.cvtColor(image, cv2.COLOR_BGR2GRAY))
    raise MetricError(
        f'luma needs a uint8 image of shape (H, W) or (H, W, 3), got {image.dtype} of shape '
        f'{image.shape}'
    )


def checked_images(smallest_side: int = 1, **images: Luma) -> list[Array]:
    """
    Return the images in float64, once it is sure that metrics are defined for them.

    :param smallest_side: pixels that height and width must have.
    :param images: luma (H, W) by the name that messages are to use; the first sets the size.
    :raises MetricError: naming the image and what is wrong with it: another shape, no pixel or
        too few, another size than the first, values that are no real numbers on the 8-bit scale,
        or not finite.
    """
    checked: list[Array] = []
    for name, image in images.items():
        if image.ndim != 2:
            raise MetricError(
                f'the {name} image has shape {image.shape}: metrics need luma of shape (H, W)'
            )
        if image.size == 0:
            raise MetricError(f'the {name} image is empty (shape {image.shape})')
        if min(image.shape) < smallest_side:
            raise MetricError(
                f'the {name} image has {image.shape[1]}x{image.shape[0]} pixels, but this metric '
                f'needs at least {smallest_side} on each side'
            )
        if checked and image.shape != checked[0].shape:
            first = next(iter(images))
            raise MetricError(
                f'the {name} image has shape {image.shape}, the {first} image '
                f'{checked[0].shape}: sizes must be equal'
            )
        if image.dtype.kind not in 'uif':
            raise MetricError(
                f'the {name} image has the type {image.dtype}: whole or real numbers needed'
            )
        values = image.astype(np.float64)
        if not np.isfinite(values).all():
            raise MetricError(f'the {name} image has values that are not finite')
        if values.min() < 0 or values.max() > PEAK:
            raise MetricError(
                f'the {name} image has values from {values.min():g} to {values.max():g}: metrics '
                'need the 8-bit scale 0 to 255'
            )
        checked.append(values)
    return checked


def psnr_sum(fused: Luma, visible: Luma, thermal: Luma) -> float:
    """
    Sum over the sources of the peak signal-to-noise ratio, in dB.

    ``sum_k 10 log10(255^2 / mean((F - c_k)^2))``, infinite if the fused image equals a source.
    The ratio as in Jagalingam and Hegde, "A review of quality metrics for fused image", Aquatic
    Procedia 4, 2015. That the paper (Dig2DIG, Table 1) adds up two of them follows from its mean
    squared errors: 1464 alone would be 16.5 dB, and 33.74 dB is given next to it.
    """
    fused, visible, thermal = checked_images(fused=fused, visible=visible, thermal=thermal)

    def psnr(source: Array) -> float:
        error = float(np.mean((fused - source) ** 2))
        return 10.0 * math.log10(PEAK**2 / error) if error > 0 else math.inf

    return psnr(visible) + psnr(thermal)


def ssim(fused: Luma, visible: Luma, thermal: Luma) -> float:
    """
    Sum over the sources of the mean structural similarity, at most 2.

    Wang, Bovik, Sheikh and Simoncelli, "Image quality assessment: from error visibility to
    structural similarity", IEEE Trans. Image Processing 13(4), 2004, Eq. 13, with K_1 = 0.01,
    K_2 = 0.03, uniform 7x7 windows wholly inside the image and unbiased (co)variances: the
    defaults of scikit-image. Constant images are defined by the constants K_1 and K_2.

    :raises ImportError: scikit-image is not installed.
    """
    fused, visible, thermal = checked_images(7, fused=fused, visible=visible, thermal=thermal)
    try:
        from skimage.metrics import structural_similarity
    except ImportError as error:
        raise ImportError(
            'the metric SSIM needs scikit-image: install the extra "evaluation" of dig2dig, or '
            'pip install scikit-image, or apt install python3-skimage'
        ) from error
    return float(
        structural_similarity(fused, visible, data_range=PEAK)
        + structural_similarity(fused, thermal, data_range=PEAK)
    )


def mse(fused: Luma, visible: Luma, thermal: Luma) -> float:
    """
    Mean over the sources of the mean squared error, in squared grey levels.

    ``1/2 sum_k mean((F - c_k)^2)``; Jagalingam and Hegde, see :func:`psnr_sum`.
    """
    fused, visible, thermal = checked_images(fused=fused, visible=visible, thermal=thermal)
    return float((np.mean((fused - visible) ** 2) + np.mean((fused - thermal) ** 2)) / 2)


def _correlation(a: Array, b: Array) -> float:
    """Return Pearson's correlation coefficient; 0 if one of the two is constant."""
    # Compared exactly: the rounded mean of a constant image would leave a tiny variance.
    if a.min() == a.max() or b.min() == b.max():
        return 0.0
    a = a - a.mean()
    b = b - b.mean()
    scale = math.sqrt((a * a).sum()) * math.sqrt((b * b).sum())
    # Differences below 1e-154 have squares that vanish.
    return float((a * b).sum()) / scale if scale > 0 else 0.0


def correlation(fused: Luma, visible: Luma, thermal: Luma) -> float:
    """
    Mean over the sources of Pearson's correlation coefficient with the fused image (CC).

    ``1/2 sum_k r(F, c_k)``, in [-1, 1]; a constant image correlates with nothing: 0. Zhu and
    Bamler, "A sparse image fusion algorithm with application to pan-sharpening", IEEE Trans.
    Geoscience and Remote Sensing 51(5), 2013, with each source in turn as the reference.
    """
    fused, visible, thermal = checked_images(fused=fused, visible=visible, thermal=thermal)
    return (_correlation(fused, visible) + _correlation(fused, thermal)) / 2


def _edges(image: Array, border: int) -> tuple[Array, Array]:
    """
    Return strength and orientation of the Sobel gradient, y axis upwards.

    The orientation is in (-pi/2, pi/2], as an edge has no direction; pi/2 where the horizontal
    derivative is zero.
    """
    gradient_x = cv2.Sobel(image, cv2.CV_64F, 1, 0, ksize=3, borderType=border)
    gradient_y = -cv2.Sobel(image, cv2.CV_64F, 0, 1, ksize=3, borderType=border)
    horizontal = np.where(gradient_x == 0, 1.0, gradient_x)
    orientation = np.where(gradient_x == 0, math.pi / 2, np.arctan(gradient_y / horizontal))
    return np.hypot(gradient_x, gradient_y), orientation


def _ratio(a: Array, b: Array) -> Array:
    """Return the smaller of two strengths over the larger one, 0 where both are zero."""
    larger = np.maximum(a, b)
    return np.divide(np.minimum(a, b), larger, out=np.zeros_like(larger), where=larger > 0)


def _sigmoid(value: Array, top: float, slope: float, centre: float) -> Array:
    return np.asarray(top / (1.0 + np.exp(-slope * (value - centre))))


def qabf(fused: Luma, visible: Luma, thermal: Luma) -> float:
    """
    Edge information of the sources that the fused image preserves, Q^{AB/F}, in [0, 1].

    ``sum_p sum_k Q_kF g_k / sum_p sum_k g_k`` over the pixels p, with the Sobel edge strength
    g_k of source k as weight and Q_kF the product of the preserved strength and orientation.
    Xydeas and Petrovic, "Objective image fusion performance measure", Electronics Letters 36(4),
    2000, with the constants of that letter. Beyond the border the images are zero. Two
    sources without any edge have nothing to lose: 1.
    """
    fused, visible, thermal = checked_images(fused=fused, visible=visible, thermal=thermal)
    preserved, totals = zip(*_preserved_edges(fused, (visible, thermal)), strict=True)
    total = sum(totals)
    return sum(preserved) / total if total > 0 else 1.0


def edges_kept(fused: Luma, *sources: Luma) -> tuple[float, ...]:
    """
    Return the part of each source's edge information that the fused image preserves, in [0, 1].

    :func:`qabf` is their mean, weighted by the edges of each source. A source without any edge
    has nothing to lose: 1.
    """
    named = {f'source {number}': source for number, source in enumerate(sources)}
    fused, *images = checked_images(1, fused=fused, **named)
    parts = _preserved_edges(fused, images)
    return tuple(preserved / total if total > 0 else 1.0 for preserved, total in parts)


def _preserved_edges(fused: Array, sources: Sequence[Array]) -> list[tuple[float, float]]:
    """Return for each source the edge strength that the fused image preserves, and all of it."""
    strength_f, orientation_f = _edges(fused, cv2.BORDER_CONSTANT)
    parts = []
    for source in sources:
        strength, orientation = _edges(source, cv2.BORDER_CONSTANT)
        kept_strength = _sigmoid(_ratio(strength, strength_f), 0.9994, 15.0, 0.5)
        agreement = 1.0 - np.abs(orientation - orientation_f) / (math.pi / 2)
        kept_orientation = _sigmoid(agreement, 0.9879, 22.0, 0.8)
        preserved = float((kept_strength * kept_orientation * strength).sum())
        parts.append((preserved, float(strength.sum())))
    return parts


def nabf(fused: Luma, visible: Luma, thermal: Luma) -> float:
    """
    Artefacts: edge information of the fused image that neither source has, N^{AB/F}, in [0, 1].

    Where the fused edge is stronger than both sources' edges,
    ``sum_p sum_k (1 - Q_kF) w_k / sum_p sum_k w_k``; the weight of source k is
    ``w_k = g_k^1.5`` with g_k its Sobel edge strength in grey levels per pixel, and 0.001 where
    g_k < 2.
    Petrovic and Xydeas, "Objective image fusion performance characterisation", ICCV 2005, in the
    form of Shreyamsha Kumar, "Multifocus and multispectral image fusion based on pixel
    significance using discrete cosine harmonic wavelet transform", Signal, Image and Video
    Processing 7, 2013, with the constants given there. Images are mirrored at the border. 0 for
    a constant fused image.
    """
    fused, visible, thermal = checked_images(fused=fused, visible=visible, thermal=thermal)
    strength_f, orientation_f = _edges(fused / 8, cv2.BORDER_REFLECT_101)
    lost = np.zeros_like(fused)
    total = 0.0
    added = np.ones(fused.shape, dtype=bool)
    for source in (visible, thermal):
        strength, orientation = _edges(source / 8, cv2.BORDER_REFLECT_101)
        kept_strength = _sigmoid(_ratio(strength, strength_f), 0.9999, 19.0, 0.5)
        # The difference of two orientations is periodic: pi apart is the same orientation.
        difference = np.abs(np.abs(orientation - orientation_f) - math.pi / 2)
        kept_orientation = _sigmoid(difference / (math.pi / 2), 0.9995, 22.0, 0.5)
        weight = np.where(strength >= 2, strength * np.sqrt(strength), 0.001)
        lost += (1.0 - np.sqrt(kept_strength * kept_orientation)) * weight
        total += float(weight.sum())
        added &= strength_f > strength
    return float(lost[added].sum()) / total


def _smooth(image: Array, size: int) -> Array:
    """Return ``image`` under a Gaussian window of ``size`` pixels, where it fits inside."""
    kernel = cv2.getGaussianKernel(size, size / 5, cv2.CV_64F)
    smooth = cv2.sepFilter2D(image, cv2.CV_64F, kernel, kernel, borderType=cv2.BORDER_REFLECT_101)
    margin = size // 2
    return np.asarray(smooth[margin:-margin, margin:-margin])


def _visual_information(fused: Array, source: Array) -> float:
    """Return VIF of ``fused`` with ``source`` as the reference (see :func:`vif`)."""
    noise = 2.0  # variance of the internal noise of the eye
    tiny = 1e-10
    kept = available = 0.0
    for size in (17, 9, 5, 3):
        if size < 17:
            source = _smooth(source, size)[::2, ::2]
            fused = _smooth(fused, size)[::2, ::2]
        mean_source, mean_fused = _smooth(source, size), _smooth(fused, size)
        variance = np.maximum(_smooth(source * source, size) - mean_source**2, 0.0)
        variance_fused = np.maximum(_smooth(fused * fused, size) - mean_fused**2, 0.0)
        covariance = _smooth(source * fused, size) - mean_source * mean_fused
        # The fused image as gain * source + distortion; what has no positive gain carries no
        # information of the source.
        gain = covariance / (variance + tiny)
        distortion = variance_fused - gain * covariance
        transmitted = (variance >= tiny) & (variance_fused >= tiny) & (gain > 0)
        gain = np.where(transmitted, gain, 0.0)
        distortion = np.where(transmitted, np.maximum(distortion, tiny), variance_fused)
        variance = np.where(variance >= tiny, variance, 0.0)
        kept += float(np.log1p(gain**2 * variance / (distortion + noise)).sum())
        available += float(np.log1p(variance / noise).sum())
    return kept / available if available > 0 else 1.0


def vif(fused: Luma, visible: Luma, thermal: Luma) -> float:
    """
    Sum over the sources of the visual information fidelity, in the pixel domain (VIFp).

    The information that a model of the eye gets of a source from the fused image, over what it
    gets from the source itself; above 1 for a source whose contrast the fused image enhances.
    Sheikh and Bovik, "Image information and visual quality", IEEE Trans. Image Processing 15(2),
    2006, in the authors' multi-scale pixel-domain form: four scales, Gaussian windows of 17, 9,
    5 and 3 pixels with a standard deviation of size / 5, noise variance 2. A constant source has
    no information to lose and counts 1. Images need at least 41 pixels a side.
    """
    fused, visible, thermal = checked_images(41, fused=fused, visible=visible, thermal=thermal)
    return _visual_information(fused, visible) + _visual_information(fused, thermal)


def scd(fused: Luma, visible: Luma, thermal: Luma) -> float:
    """
    Sum of the correlations of differences, in [-2, 2].

    ``r(F - c_2, c_1) + r(F - c_1, c_2)``: what is left of the fused image without one source
    should look like the other. Aslantas and Bendes, "A new image quality metric for image
    fusion: the sum of the correlations of differences", AEU Int. J. Electronics and
    Communications 69, 2015. A correlation with a constant counts 0.
    """
    fused, visible, thermal = checked_images(fused=fused, visible=visible, thermal=thermal)
    return _correlation(fused - thermal, visible) + _correlation(fused - visible, thermal)


def _levels(image: Array) -> NDArray[np.int64]:
    return np.rint(image).astype(np.int64).ravel()


def _entropy_nats(counts: NDArray[np.int64]) -> float:
    probability = counts[counts > 0] / counts.sum()
    # The sum makes 0 of minus 0, which would be printed.
    return float(-(probability * np.log(probability)).sum()) + 0.0


def mutual_information(fused: Luma, visible: Luma, thermal: Luma) -> float:
    """
    Sum over the sources of the mutual information of grey levels, in nats (MI).

    ``sum_k H(F) + H(c_k) - H(F, c_k)`` with 256 levels. Qu, Zhang and Yan, "Information measure
    for performance of image fusion", Electronics Letters 38(7), 2002. 0 for a constant image.
    """
    fused, visible, thermal = checked_images(fused=fused, visible=visible, thermal=thermal)
    levels_f = _levels(fused)
    information = 0.0
    for source in (visible, thermal):
        joint = np.bincount(levels_f * LEVELS + _levels(source), minlength=LEVELS**2)
        joint = joint.reshape(LEVELS, LEVELS)
        information += _entropy_nats(joint.sum(axis=1)) + _entropy_nats(joint.sum(axis=0))
        information -= _entropy_nats(joint)
    return max(information, 0.0)


def entropy(fused: Luma) -> float:
    """
    Entropy of the 256 grey levels of the fused image, in bits (EN); 0 if it is constant.

    ``-sum_g p_g log2 p_g``. Roberts, van Aardt and Ahmed, "Assessment of image fusion procedures
    using entropy, image quality, and multispectral classification", J. Applied Remote Sensing 2,
    2008.
    """
    (fused,) = checked_images(fused=fused)
    return _entropy_nats(np.bincount(_levels(fused), minlength=LEVELS)) / math.log(2)


def standard_deviation(fused: Luma) -> float:
    """
    Return the standard deviation of the fused image, in grey levels (SD); 0 if it is constant.

    ``sqrt(mean((F - mean(F))^2))``. Zhang, Ye and Xiao, "VIFB: a visible and infrared image fusion
    benchmark", CVPR Workshops, 2020.
    """
    (fused,) = checked_images(fused=fused)
    return float(fused.std())


def spatial_frequency(fused: Luma) -> float:
    """
    Root of the mean squared row and column differences, in grey levels per pixel (SF).

    ``sqrt(mean((F(i, j+1) - F(i, j))^2) + mean((F(i+1, j) - F(i, j))^2))``. Eskicioglu and
    Fisher, "Image quality measures and their performance", IEEE Trans. Communications 43(12),
    1995; here each mean is over the differences that exist.
    """
    (fused,) = checked_images(2, fused=fused)
    row = np.mean(np.diff(fused, axis=1) ** 2)
    column = np.mean(np.diff(fused, axis=0) ** 2)
    return float(np.sqrt(row + column))


def average_gradient(fused: Luma) -> float:
    """
    Mean of ``sqrt((g_x^2 + g_y^2) / 2)``, in grey levels per pixel (AG).

    Central differences inside, one-sided ones at the border. Cui, Feng, Xu, Li and Chen,
    "Detail preserved fusion of visible and infrared images using regional saliency extraction
    and multi-scale image decomposition", Optics Communications 341, 2015.
    """
    (fused,) = checked_images(2, fused=fused)
    gradient_y, gradient_x = np.gradient(fused)
    return float(np.sqrt((gradient_x**2 + gradient_y**2) / 2).mean())


def edge_intensity(fused: Luma) -> float:
    """
    Mean magnitude of the Sobel gradient, kernels as usual with a sum of 4 per side (EI).

    Images are continued by their border pixels. Rajalingam and Priya, "Hybrid multimodality
    medical image fusion technique for feature enhancement in medical diagnosis", Int. J.
    Engineering Science Invention 2, 2018.
    """
    (fused,) = checked_images(fused=fused)
    strength, _ = _edges(fused, cv2.BORDER_REPLICATE)
    return float(strength.mean())


@dataclass(frozen=True)
class MetricInfo:
    """
    How tables show a metric.

    :param name: short name, as in the literature.
    :param higher_is_better: the direction that publications reward.
    """

    name: str
    higher_is_better: bool

    @property
    def title(self) -> str:
        """The name with an arrow in the direction that is better."""
        return f'{self.name} {"↑" if self.higher_is_better else "↓"}'


@dataclass(frozen=True)
class Metric(MetricInfo):
    """
    A metric that needs nothing but the images.

    :param function: takes (fused, visible, thermal), or (fused) alone.
    :param uses_sources: whether ``function`` takes the sources.
    """

    function: Callable[..., float]
    uses_sources: bool = True

    def __call__(self, fused: Luma, visible: Luma, thermal: Luma) -> float:
        """Return the value of this metric (see the module's description for the images)."""
        if self.uses_sources:
            return self.function(fused, visible, thermal)
        return self.function(fused)


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric('PSNR_sum', True, psnr_sum),
        Metric('SSIM', True, ssim),
        Metric('MSE', False, mse),
        Metric('CC', True, correlation),
        Metric('Nabf', False, nabf),
        Metric('Qabf', True, qabf),
        Metric('VIF', True, vif),
        Metric('SCD', True, scd),
        Metric('MI', True, mutual_information),
        Metric('EN', True, entropy, uses_sources=False),
        Metric('SD', True, standard_deviation, uses_sources=False),
        Metric('SF', True, spatial_frequency, uses_sources=False),
        Metric('AG', True, average_gradient, uses_sources=False),
        Metric('EI', True, edge_intensity, uses_sources=False),
    )
}

LPIPS = 'LPIPS'


def metric_names(with_lpips: bool) -> list[str]:
    """Return the names of all metrics; LPIPS, which needs weights, is the last one."""
    return [*METRICS, LPIPS] if with_lpips else [*METRICS]


def metric_info(name: str) -> MetricInfo:
    """
    Return how tables show a metric: one of :data:`METRICS`, or LPIPS.

    :raises MetricError: there is no such metric.
    """
    if name == LPIPS:
        return MetricInfo(name, higher_is_better=False)
    if name not in METRICS:
        raise MetricError(f'there is no metric {name}: there are {", ".join(METRICS)} and LPIPS')
    return METRICS[name]


def evaluate_pair(
    fused: Luma,
    visible: Luma,
    thermal: Luma,
    lpips: Callable[[Luma, Luma, Luma], float] | None = None,
) -> dict[str, float]:
    """
    Return every metric of :data:`METRICS` by name.

    :param fused: luma (H, W) on the 8-bit scale, as are ``visible`` and ``thermal``.
    :param lpips: takes the three images; where given, LPIPS comes last.
    :return: no NaN; PSNR_sum may be infinite, see :func:`psnr_sum`.
    :raises MetricError: an image is empty, smaller than 41 pixels a side, of another size than
        the others, not finite, or outside 0 to 255.
    """
    values = {name: metric(fused, visible, thermal) for name, metric in METRICS.items()}
    if lpips is not None:
        values[LPIPS] = lpips(fused, visible, thermal)
    return values
