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
Multimodal guidance: how the sources change the estimate of the clean image (Eq. 2-3).

With a Gaussian likelihood of source k around the clean image (docs/method.md), its conditional
score is

    grad log p(c_k | x_t) = sqrt(alpha_bar_t) / (1 - alpha_bar_t) lambda (c_k - x_hat_0),

which is the change of the prior's score when x_hat_0 moves by the fraction lambda towards c_k. So
guidance is a function of estimates here; the sampler turns the change into a score.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dig2dig_ros.fusion.information_gain import COARSE_CELL, refined, smooth_local_mean

# DDFM's strengths of the smoothness of the fused image's difference to the first source, and
# of the coupling between that smooth image and the one that obeys the sources.
EM_SMOOTHNESS = 0.5
EM_COUPLING = 0.1
_LEAST_DISTANCE = 1e-3
# Half a grey level of 255 on [-1, 1], squared: contrast that is not worth restoring.
_NEGLIGIBLE_POWER = 1.5e-5


def score_guidance(
    estimate: Tensor, sources: Tensor, weights: Tensor, guidance_scale: float
) -> Tensor:
    """
    Follow the weighted conditional scores of the sources (Dig2DIG, Eq. 2).

    :param estimate: (1, 1, H, W), x_hat_0, the prior's estimate of the clean image.
    :param sources: (K, 1, H, W).
    :param weights: (K, 1, H, W), summing to 1 over the sources.
    :param guidance_scale: lambda, strength of the likelihood: 0 ignores the sources, 1 ignores
        the prior.
    :return: (1, 1, H, W), the guided estimate.
    """
    return torch.lerp(estimate, (weights * sources).sum(dim=0, keepdim=True), guidance_scale)


def em_guidance(
    estimate: Tensor, sources: Tensor, scales: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """
    Take one expectation-maximisation step of DDFM towards the sources.

    The fused image f is to be close to every source in absolute distance: the difference
    y_k - x, with x = f - c_1 and y_k = c_k - c_1, is Laplacian, which is a Gaussian whose
    variance m_k is a latent variable with an exponential distribution of mean gamma_k.

    - E-step: given x, 1 / m_k has the expectation ``sqrt(2 / gamma_k) / |y_k - x|``, and m_k
      ``|y_k - x| sqrt(gamma_k / 2) + gamma_k / 2`` (a generalised inverse Gaussian).
    - M-step: gamma_k becomes the mean of the expected m_k. x minimises
      ``sum_k (x - y_k)^2 / m_k + psi |grad z|^2 + eta |z - x|^2``, first over the smooth z, which
      is a division in the Fourier domain, then over x, pixel by pixel.

    For K = 2 this is the likelihood rectification of DDFM (Zhao et al., "DDFM: Denoising
    diffusion model for multi-modality image fusion", ICCV 2023); more sources are treated as the
    second. The Fourier transform takes the image as periodic.

    :param estimate: (1, 1, H, W), f before the step: the prior's estimate of the clean image.
    :param sources: (K, 1, H, W), in the range of the estimate.
    :param scales: (K, 1, 1, 1), gamma_k; 1 each at the beginning of a chain.
    :return: f after the step, (1, 1, H, W); the share of each source in it, (K, 1, H, W), summing
        to 1 over the sources; the new gamma_k.
    """
    reference = sources[:1]
    differences = sources - reference
    x = estimate - reference
    distance = (differences - x).abs()
    precision = (2 / scales).sqrt() / distance.clamp_min(_LEAST_DISTANCE)
    expected = distance * (scales / 2).sqrt() + scales / 2
    smooth = _smoothed(x, EM_SMOOTHNESS / EM_COUPLING)
    rectified = (precision * differences).sum(dim=0, keepdim=True) + EM_COUPLING * smooth
    total = precision.sum(dim=0, keepdim=True)
    rectified = rectified / (total + EM_COUPLING)
    scales = expected.mean(dim=(1, 2, 3), keepdim=True)
    return rectified + reference, precision / total, scales


def _smoothed(x: Tensor, strength: float) -> Tensor:
    """Return the z that minimises strength |grad z|^2 + |z - x|^2, for a periodic image."""
    height, width = x.shape[-2:]
    rows = torch.fft.fftfreq(height, device=x.device, dtype=x.dtype)
    columns = torch.fft.rfftfreq(width, device=x.device, dtype=x.dtype)
    # |F(grad)|^2 of forward differences, which is minus the discrete Laplacian.
    power = 4 * (
        (math.pi * rows).sin().square()[:, None] + (math.pi * columns).sin().square()[None, :]
    )
    spectrum = torch.fft.rfft2(x) / (1 + strength * power)
    smooth: Tensor = torch.fft.irfft2(spectrum, s=(height, width))
    return smooth


def weighted_increment(
    increments: Tensor, weights: Tensor, contrast_gain: float, window: int | None = None
) -> Tensor:
    """
    Return what the weighted sources resolve in one interval, with their full contrast.

    Averaging different increments reduces contrast: (sum_k w_k D_k)^2 <= sum_k w_k D_k^2. The sum
    is amplified by what is lost, at most by ``contrast_gain``. Identical increments lose nothing.

    :param increments: (K, 1, H, W), D_k = c_hat_k^{t'} - c_hat_k^t.
    :param weights: (K, 1, H, W), summing to 1 over the sources.
    :param contrast_gain: at least 1; 1 is the plain weighted sum.
    :param window: side in pixels, odd, of the surroundings over which contrast is compared; None
        is the whole frame, which keeps the order of brightness between distant places.
    :return: (1, 1, H, W).
    """
    weighted = weights * increments
    total = weighted.sum(dim=0, keepdim=True)
    if contrast_gain <= 1:
        return total
    available, left = weighted.mul_(increments).sum(dim=0, keepdim=True), total.square()
    if window is None:
        available, left = (power.mean(dim=(-2, -1), keepdim=True) for power in (available, left))
    else:
        available, left = (smooth_local_mean(power, window) for power in (available, left))
    available += _NEGLIGIBLE_POWER
    left += _NEGLIGIBLE_POWER
    gain = available.div_(left).sqrt_().clamp_(1.0, contrast_gain)
    if window is not None:
        gain = refined(gain, COARSE_CELL, *total.shape[-2:])
    return total.mul_(gain)
