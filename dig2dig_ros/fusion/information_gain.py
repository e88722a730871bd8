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
Diffusion information gains and the weights that follow from them.

==========================  =======================================================
here                        Dig2DIG
==========================  =======================================================
estimates[r, k]             c_hat_k^t, Eq. 10: at pure noise, then at the refreshes
reconstruction_loss         l(c_hat_k^t, c_k), per pixel over a local window
information_gain            DIG_k(t), Eq. 8, over the S steps to the next refresh
nats, information_gate      how much that is beyond the noise, docs/method.md
sharpness_gate              what blur costs a source, docs/method.md
softmax_weights             w_k(t), Eq. 11
weigh_sources               all of it, as the settings ask for
==========================  =======================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
import math
from typing import Literal

import torch
from torch import Tensor
import torch.nn.functional as F

from dig2dig_ros.fusion.settings import FusionSettings, GainLoss

# SSIM's constants for a dynamic range of 2 ([-1, 1]): (0.01 * 2)^2 and (0.03 * 2)^2.
_SSIM_C1, _SSIM_C2 = 0.0004, 0.0036
# Pixels a side of the cells of the grid on which the means over wide windows are computed.
COARSE_CELL = 4
# Cells that a window spans from which on its means, and what follows from them, are smooth enough.
_WIDE = 7
# Local gains below this part of the frame's mean gain say little about which source matters.
_RELATIVE_FLOOR = 0.3
# Gains of this size come from sensor noise and from the prior's own errors: about 1.3 grey
# levels of 255, in the units of each loss on [-1, 1].
NOISE_FLOORS: dict[GainLoss, float] = {'l2': 1e-4, 'l1': 1e-2, 'ssim': 1e-2}
# Deviations on [-1, 1] below which structure, and detail, is as good as none, squared.
_STRUCTURE_FLOOR, _DETAIL_FLOOR = (2.0 * 2 / 255) ** 2, (1.5 * 2 / 255) ** 2
# Deviation of what white noise of deviation 1 leaves in the structure; and in the details,
# with a margin, as what was denoised may be wrong as well.
_NOISE_IN_STRUCTURE, _NOISE_IN_DETAIL = 0.15, 2.0
# Logit of a camera without weight: it stays finite.
_LEAST_STRENGTH = 1e-9
# Nats below which nobody has anything to say: all count alike then.
_SOME_NATS = 0.1
# Part of the nats of a blurred source from which on another one takes its place.
_REPLACES = 0.5
# Contrast on [-1, 1] that is too faint to see: six grey levels.
_FAINT_CONTRAST = 12 / 255
# Cells between those of which the information is looked at, whose mean over the frame counts.
_EVERY = 4


def local_mean(x: Tensor, window: int) -> Tensor:
    """
    Average over a window that falls off linearly to its sides, as far as it is inside.

    That is two box filters, whose sides add up to window + 1: a single box prints its square shape
    around every bright point.

    :param x: (..., H, W).
    :param window: odd side in pixels.
    """
    first = (window + 1) // 2
    first -= 1 - first % 2
    for side in (first, window + 1 - first):
        x = _box_mean(_box_mean(x, side, -1), side, -2)
    return x


def _box_mean(x: Tensor, side: float, dim: Literal[-1, -2]) -> Tensor:
    """
    Average over ``side`` neighbours along one dimension, as far as they are inside.

    :param side: at least 1; where it is not odd, the outermost neighbours count in part.
    """
    if side == 1:
        return x
    half, length = math.ceil((side - 1) / 2), x.shape[dim]
    outermost = (side + 1) / 2 - half
    if torch.compiler.is_exporting():
        total = _box_sum(x, half, outermost, dim)
        return total / _neighbours_inside(x, side, dim)
    margins = (half, half) if dim == -1 else (0, 0, half, half)
    padded = F.pad(x, margins)
    # Adding shifted views is four times as fast on a CPU as pooling, which is not vectorised.
    total = padded.narrow(dim, 0, length) + padded.narrow(dim, 2 * half, length)
    if outermost < 1:
        total *= outermost
    for shift in range(1, 2 * half):
        total += padded.narrow(dim, shift, length)
    return total.div_(_neighbours_inside(x, side, dim))


def _box_sum(x: Tensor, half: int, outermost: float, dim: Literal[-1, -2]) -> Tensor:
    """Sum up neighbours as :func:`_box_mean` does, in one operation instead of one for each."""
    kernel = torch.tensor([outermost, *[1.0] * (2 * half - 1), outermost], device=x.device)
    planes = x.reshape(-1, 1, *x.shape[-2:])
    if dim == -1:
        total = F.conv2d(planes, kernel.view(1, 1, 1, -1), padding=(0, half))
    else:
        total = F.conv2d(planes, kernel.view(1, 1, -1, 1), padding=(half, 0))
    return total.view(x.shape)


def _neighbours_inside(x: Tensor, side: float, dim: Literal[-1, -2]) -> Tensor:
    """Return how many of ``side`` neighbours along a dimension are inside, for each place."""
    length = x.shape[dim]
    position = torch.arange(length, device=x.device)
    first, last = position - side / 2, position + side / 2
    inside = last.clamp(max=length - 0.5) - first.clamp(min=-0.5)
    return inside if dim == -1 else inside[:, None]


def smooth_local_mean(x: Tensor, window: int) -> Tensor:
    """
    Average as :func:`local_mean` does, on a grid of cells: a wide mean is smooth.

    :param x: (..., H, W).
    :param window: side in pixels of the full resolution; rounded up to an odd number of cells.
    :return: (..., ceil(H / cell), ceil(W / cell)) with :data:`COARSE_CELL`, for :func:`refined`.
    """
    return local_mean(cell_means(x, COARSE_CELL), _coarse_side(window))


def _precise_local_mean(x: Tensor, window: int, cell: int) -> Tensor:
    """Average likewise on a grid of any cells, with as little blur as without it."""
    if cell == 1:
        return local_mean(x, window)
    # Half a cell less makes up for the blur of the cells and of the interpolation between them.
    side = max(1.0, (window + 1) / 2 / cell - 0.5)
    x = cell_means(x, cell)
    for _ in range(2):
        x = _box_mean(_box_mean(x, side, -1), side, -2)
    return x


def cell_means(x: Tensor, cell: int) -> Tensor:
    """
    Average over cells of a grid that begins at the first pixel.

    :param x: (..., H, W); cells at the border may be cut off.
    :return: (..., ceil(H / cell), ceil(W / cell)).
    """
    height, width = x.shape[-2:]
    if cell == 1:
        return x
    cut_off = height % cell > 0 or width % cell > 0
    if cut_off or torch.compiler.is_exporting():
        planes = x.reshape(-1, 1, height, width)
        means = F.avg_pool2d(planes, cell, ceil_mode=cut_off, count_include_pad=False)
    else:
        # Adding is several times as fast on a CPU as pooling, which is not vectorised.
        rows = x.reshape(-1, height // cell, cell, width)
        total = _sum_of([rows[:, :, index] for index in range(cell)])
        means = _sum_of([total[..., index::cell] for index in range(cell)]).div_(cell**2)
    return means.view(*x.shape[:-2], *means.shape[-2:])


def _sum_of(parts: Sequence[Tensor]) -> Tensor:
    total = parts[0] + parts[1]
    for part in parts[2:]:
        total += part
    return total


def refined(means: Tensor, cell: int, height: int, width: int) -> Tensor:
    """
    Interpolate between the centres of cells, linearly: (..., h, w) to (..., H, W).

    :param means: such as :func:`cell_means` returns.
    :param cell: side of a cell in pixels.
    :param height: of the result in pixels, as ``width``.
    """
    if cell == 1:
        return means
    rows, columns = means.shape[-2:]
    if means.device.type != 'cpu' or torch.compiler.is_exporting():
        # In one kernel; that for lines would take one after the other.
        planes = means.reshape(1, -1, rows, columns)
        size = (cell * rows, cell * columns)
        full = F.interpolate(planes, size, mode='bilinear', align_corners=False)
        full = full.view(*means.shape[:-2], *size)[..., :height, :width]
        # What is changed in place must not be a part of something larger there.
        return full.clone() if torch.compiler.is_exporting() else full
    lines = means.reshape(-1, 1, columns)
    lines = F.interpolate(lines, cell * columns, mode='linear', align_corners=False)
    planes = lines.view(-1, rows, cell * columns)
    # Row by row, mixing two of them, it is several times as fast on a CPU as in one go.
    above = torch.cat([planes[:, :1], planes[:, :-1]], dim=1)
    below = torch.cat([planes[:, 1:], planes[:, -1:]], dim=1)
    full = planes.new_empty((len(planes), rows, cell, cell * columns))
    for row in range(cell):
        offset = (row + 0.5) / cell - 0.5
        torch.lerp(planes, above if offset < 0 else below, abs(offset), out=full[:, :, row])
    full = full.view(*means.shape[:-2], cell * rows, cell * columns)
    return full[..., :height, :width]


def _coarse_side(window: int) -> int:
    """Return the odd side in cells of a window in pixels."""
    side = max(1, round(window / COARSE_CELL))
    return side + 1 - side % 2


def reconstruction_loss(
    estimate: Tensor, source: Tensor, loss: GainLoss, window: int, cell: int = 1
) -> Tensor:
    """
    Measure how far an estimate is from its source: l of Eq. 8, per pixel.

    :param estimate: (..., H, W) in [-1, 1].
    :param source: of a shape that broadcasts to that of ``estimate``.
    :param loss: ``l2`` squared error, ``l1`` absolute error, ``ssim`` 1 - SSIM.
    :param window: side of the local window in pixels, odd.
    :param cell: side in pixels of the cells of the grid on which it is wanted; 1 is every pixel.
    :return: (..., H, W), not negative; where H and W count cells.
    """
    mean = partial(_precise_local_mean, window=window, cell=cell)
    if loss == 'l2':
        return mean((estimate - source).square_())
    if loss == 'l1':
        return mean((estimate - source).abs_())
    source = source.expand_as(estimate)
    mean_e, mean_s = mean(estimate), mean(source)
    variance_e = mean(estimate.square()) - mean_e.square()
    variance_s = mean(source.square()) - mean_s.square()
    covariance = mean(estimate * source) - mean_e * mean_s
    luminance = (2 * mean_e * mean_s + _SSIM_C1) / (mean_e.square() + mean_s.square() + _SSIM_C1)
    structure = (2 * covariance + _SSIM_C2) / (variance_e + variance_s + _SSIM_C2)
    return (1 - luminance * structure).clamp_min(0)


def pure_noise_estimate(sources: Tensor) -> Tensor:
    """Return c_hat_k^T of (K, 1, H, W): of pure noise, all that is known is a source's mean."""
    return sources.mean(dim=(-2, -1), keepdim=True).expand_as(sources)


def information_gain(
    estimates: Tensor, sources: Tensor, loss: GainLoss = 'l2', window: int = 11, cell: int = 1
) -> Tensor:
    """
    Return DIG of every source in every interval (Eq. 8, with the S-step difference).

    :param estimates: (R, K, 1, H, W), c_hat_k^t at the beginnings of R intervals that follow
        one another, noisiest first.
    :param sources: (K, 1, H, W) in [-1, 1].
    :param window: side of the local window in pixels, odd.
    :param cell: side in pixels of the cells of the grid on which they are wanted.
    :return: (R, K, 1, H, W), H and W in cells. The last interval gains what is left up to the
        clean source, whose loss is zero.
    """
    gains = reconstruction_loss(estimates, sources, loss, window, cell)
    return torch.cat([gains[:-1] - gains[1:], gains[-1:]])


def relative_dominability(
    estimates: Tensor, sources: Tensor, loss: GainLoss = 'l2', window: int = 11, cell: int = 1
) -> Tensor:
    """
    Return minus the uni-source reconstruction loss, of which TTD makes its weights.

    TTD (Cao et al., "Test-time dynamic image fusion", NeurIPS 2024) wants weights that are
    negatively correlated with the reconstruction loss of each source alone: the softmax of this
    is its relative dominability. Here the uni-source component is the one-step estimate.

    :return: (R, K, 1, H, W), not positive; parameters are those of :func:`information_gain`.
    """
    return -reconstruction_loss(estimates, sources, loss, window, cell)


def relative_gain(gain: Tensor, noise_floor: float = 0.0) -> Tensor:
    """
    Make gains comparable between places, steps and images: divide by their local scale.

    A gain in squared image units is tiny wherever the image is smooth, and gives weights within a
    hair of 1/K. Divided by the mean magnitude over the sources, it says which one gains more at
    the pixel. Two floors keep flat regions, where every gain is noise, at equal weights.

    :param gain: (R, K, 1, H, W).
    :param noise_floor: gain that noise alone makes, such as :data:`NOISE_FLOORS`; with 0, the
        result does not depend on the contrast of the images.
    :return: same shape; over the sources, the magnitudes sum to at most K.
    """
    magnitude = gain.abs()
    local = magnitude.mean(dim=1, keepdim=True)
    frame = magnitude.mean(dim=(1, 2, 3, 4), keepdim=True)
    floor = _RELATIVE_FLOOR * frame + noise_floor + torch.finfo(gain.dtype).tiny
    return gain / (local + floor)


def softmax_weights(
    gain: Tensor, temperature: float = 1.0, logits: Tensor | float = 0.0
) -> Tensor:
    """
    Return the weights of Eq. 11: a softmax over the sources of (..., K, 1, H, W).

    :param temperature: divides the gains; 1.0 is Eq. 11 as printed.
    :param logits: what else speaks for a source, of a shape that broadcasts.
    """
    return torch.softmax(gain / temperature + logits, dim=-4)


def uniform_weights(gain: Tensor) -> Tensor:
    """Return 1/K for every source: the static baseline."""
    return torch.full_like(gain, 1.0 / gain.shape[-4])


def nats(gain: Tensor, noise_power: Tensor | float) -> Tensor:
    """
    Return the information that an interval gives about the scene, in nats a sample.

    Mutual information over a Gaussian channel is half the integral of the squared error over the
    signal-to-noise ratio (Guo, Shamai & Verdu, "Mutual information and minimum mean-square error
    in Gaussian channels", 2005), and DIG is what the squared error falls by. With a signal of
    that power in a band, and noise n, it is log(1 + DIG / n^2) / 2.

    :param gain: DIG in squared error, any shape.
    :param noise_power: n^2, positive, of a shape that broadcasts.
    """
    return torch.log1p(gain.clamp_min(0) / noise_power) / 2


def frame_information(gains: Tensor, first: int, sensor_noise: Tensor | None = None) -> Tensor:
    """
    Return the information of each source in each interval: nats per sample, frame means.

    :param gains: (R, K, 1, h, w), DIG in squared error of images on [-1, 1].
    :param first: how many of the intervals, from the noisiest on, resolve the structure; the
        others resolve details.
    :param sensor_noise: see :func:`weigh_sources`.
    :return: (R, K, 1, 1, 1).
    """
    seen = _information(gains[..., ::_EVERY, ::_EVERY], first, sensor_noise)
    return seen.mean(dim=(-2, -1), keepdim=True)


def _information(gains: Tensor, first: int, sensor_noise: Tensor | None) -> Tensor:
    """Return what :func:`frame_information` does for each cell, (R, K, 1, h, w)."""
    power = gains.new_zeros(gains.shape[1]) if sensor_noise is None else sensor_noise.square()
    power = power.view(-1, 1, 1, 1)
    structure = nats(gains[:first], _STRUCTURE_FLOOR + _NOISE_IN_STRUCTURE**2 * power)
    detail = nats(gains[first:], _DETAIL_FLOOR + _NOISE_IN_DETAIL**2 * power)
    return torch.cat([structure, detail])


def information_gate(information: Tensor, least: float) -> Tensor:
    """
    Return what to add to the logits of the weights for sources that have little to say.

    A source with less than the part ``least`` of the nats of the best one counts less, by the
    square of what it lacks; others count exactly as before.

    :param information: (R, K, 1, 1, 1) in nats, means over the frame.
    :param least: 0 to 1; 0 is no gate.
    :return: same shape, not positive.
    """
    if least <= 0:
        return torch.zeros_like(information)
    best = information.amax(dim=1, keepdim=True)
    enough = least * (best + _SOME_NATS)
    return 2 * ((information + _SOME_NATS) / enough).clamp_max(1).log()


def sharpness_gate(information: Tensor, sharpness: Tensor) -> Tensor:
    """
    Return what to add to the logits of the weights for sources that are blurred.

    Blur takes few nats from a source, but its people are clouds over what the others show. So its
    weight is multiplied by its sharpness, as far as another source shows something there: half of
    its nats.

    :param information: (K, 1, h, w) in nats, of objects.
    :param sharpness: (K,) in (0, 1]; 1 is a sharp source, which counts exactly as before.
    :return: (K, 1, h, w), not positive.
    """
    others = torch.stack(
        [
            torch.cat([information[:index], information[index + 1 :]]).amax(dim=0)
            for index in range(len(information))
        ]
    )
    enough = _REPLACES * information + _SOME_NATS
    replaced = ((others + _SOME_NATS) / enough).clamp_max(1)
    return torch.log1p((sharpness.view(-1, 1, 1, 1) - 1) * replaced)


def common_decision(
    gain: Tensor, temperature: float, window: int, logits: Tensor | float = 0.0
) -> Tensor:
    """
    Return weights that hold for all intervals and nearly name one source.

    Of images that differ in focus, one is right about a pixel, whatever the noise level. The mean
    gain makes the vote of a pixel, and the mean vote within the window decides: a strong edge has
    no more votes than a faint one, so it does not decide for all that lies around it.

    :param gain: (R, K, 1, H, W), comparable between intervals, see :func:`relative_gain`.
    :param temperature: of the votes, and of the decision.
    :param window: side in pixels, odd.
    :param logits: what else speaks for a source, in votes, of a shape that broadcasts.
    :return: (1, K, 1, H, W), summing to 1 over the sources.
    """
    votes = softmax_weights(gain.mean(dim=0, keepdim=True), temperature)
    return softmax_weights(local_mean(votes, window) + logits, temperature)


@dataclass(frozen=True)
class Weighing:
    """
    The evidence for each source in each of R intervals, and the weights that follow from it.

    Both are smooth, and kept on a grid of h = ceil(H / cell) rows and w = ceil(W / cell) columns.

    :param gains: (R, K, 1, h, w): DIG (Eq. 8), or minus the loss (relative dominability).
    :param weights: (R, K, 1, h, w), summing to 1 over the sources: the softmax of the gains
        (Eq. 11), or 1/K (uniform), as far as the sources have something to say.
    :param cell: side of a cell in pixels.
    :param shares: (K, 1, 1, 1), summing to 1: how much the mean brightness of each source counts.
    """

    gains: Tensor
    weights: Tensor
    cell: int
    shares: Tensor

    def mean_weights(self) -> Tensor:
        """
        Average the weights over the intervals, each counting as much as it gained at the pixel.

        :return: (K, 1, h, w), summing to 1 over the sources.
        """
        importance = self.gains.abs().sum(dim=1, keepdim=True)
        importance += torch.finfo(importance.dtype).eps
        share = importance / importance.sum(dim=0, keepdim=True)
        return (share * self.weights).sum(dim=0)

    def contributions(self) -> Tensor:
        """
        Return how much of what the fused image shows at each pixel came from each source.

        The root of a gain is the contrast that a source has in that interval; its weight is the
        part that reaches the fused image. So a warm person counts as thermal, although the weights
        of the coarse structure are nearly equal. Where nobody has contrast, the weights decide.

        :return: (K, 1, h, w), summing to 1 over the sources.
        """
        contrast = self.gains.abs().sqrt_().add_(_FAINT_CONTRAST)
        passed = contrast.mul_(self.weights).sum(dim=0)
        return passed / passed.sum(dim=0, keepdim=True)


def weigh_sources(
    estimates: Tensor,
    sources: Tensor,
    settings: FusionSettings,
    from_pure_noise: bool,
    sensor_noise: Tensor | None = None,
    sharpness: Tensor | None = None,
) -> Weighing:
    """
    Return the evidence for each source in each interval and the weights that follow from it.

    :param estimates: (R, K, 1, H, W), c_hat_k^t at the beginnings of R intervals that follow
        one another, noisiest first.
    :param sources: (K, 1, H, W) in [-1, 1].
    :param from_pure_noise: an interval that begins at pure noise comes before them: it resolves
        the coarse structure, for which the settings have a window and a temperature of their own.
    :param sensor_noise: (K,), deviation on [-1, 1] of the white noise that the sources have been
        freed from; default: there was none.
    :param sharpness: (K,) in (0, 1], see :func:`sharpness_gate`; default: all are sharp.
    """
    loss = settings.gain_loss
    rule = relative_dominability if settings.weights == 'rd' else information_gain
    cell = COARSE_CELL if settings.gain_window >= _WIDE * COARSE_CELL else 1
    gains = rule(estimates, sources, loss, settings.gain_window, cell)
    if from_pure_noise:
        clean = cell_means(sources, COARSE_CELL)
        coarse = torch.stack([pure_noise_estimate(clean), cell_means(estimates[0], COARSE_CELL)])
        structure = rule(coarse, clean, loss, _coarse_side(settings.structure_window))[:1]
        if cell < COARSE_CELL:
            structure = refined(structure, COARSE_CELL // cell, *gains.shape[-2:])
        gains = torch.cat([structure, gains])
    first = 1 if from_pure_noise else 0
    gate = _preference(settings, gains)
    if settings.least_information > 0 and settings.weights == 'dig' and loss == 'l2':
        information = frame_information(gains, first, sensor_noise)
        gate = gate + information_gate(information, settings.least_information)
        if sharpness is not None:
            objects = _information(gains[:1], first, sensor_noise)[0]
            gate = gate + sharpness_gate(objects, sharpness)
    shares = torch.softmax(gate[0].mean(dim=(-2, -1), keepdim=True), dim=0)
    if settings.weights == 'uniform':
        return Weighing(gains, softmax_weights(torch.zeros_like(gains) + gate), cell, shares)
    compared = relative_gain(gains, NOISE_FLOORS[loss]) if settings.normalize_gain else gains
    if from_pure_noise and settings.decision_window:
        window = settings.decision_window if cell == 1 else _coarse_side(settings.decision_window)
        preferred = gate[first:].mean(dim=0, keepdim=True)
        decided = common_decision(compared[first:], settings.temperature, window, preferred)
        return Weighing(gains, decided.expand_as(gains), cell, shares)
    structure_weights = softmax_weights(
        compared[:first], settings.structure_temperature, gate[:first]
    )
    weights = softmax_weights(compared[first:], settings.temperature, gate[first:])
    return Weighing(gains, torch.cat([structure_weights, weights]), cell, shares)


def _preference(settings: FusionSettings, gains: Tensor) -> Tensor:
    """Return the logits (R, K, 1, 1, 1) by which the thermal camera is preferred."""
    logits = gains.new_zeros((*gains.shape[:2], 1, 1, 1))
    strength = min(max(settings.thermal_strength, _LEAST_STRENGTH), 1 - _LEAST_STRENGTH)
    if strength != 0.5:
        logits[:, 1] = math.log(strength / (1 - strength))
    return logits
