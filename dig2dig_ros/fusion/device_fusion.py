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
What is computed of one pair, or group, of images on the device: pixels in, pixels out.

Unless a source is to be restored, nothing here reads from the device, copies to it or depends on
values there: the same :class:`Task` enqueues the same kernels. So they can be recorded once and
replayed, see :mod:`dig2dig_ros.fusion.graphs`.

Sources that show only a part of the scene, or that are only partly to be believed.

A source has a confidence m_k in [0, 1] at every pixel: 0 where its camera does not reach or while
it is broken, 1 where it is as good as any. What it lacks is filled with what the others show:

    c_k' = m_k c_k + (1 - m_k) sum_j m_j c_j / sum_j m_j.

So the fusion meets no false edge where a camera ends, and where all but one have no confidence,
all sources are that one, and so is the fused image. Of what is fused at a weight w_k, the part
m_k is source k's own; :func:`confident_weights` tells whose the rest is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
import torch.nn.functional as F

from dig2dig_ros.fusion.colour import luma, mixed_chroma, replace_luma
from dig2dig_ros.fusion.degradation import Degradation
from dig2dig_ros.fusion.estimates import WatchedPrior
from dig2dig_ros.fusion.observation import Observation, observe
from dig2dig_ros.fusion.restoration import explained, observe_luma, restore, restore_colour
from dig2dig_ros.fusion.sampler import Noise, sample, StepState
from dig2dig_ros.fusion.settings import FusionSettings
from dig2dig_ros.priors import Prior


@dataclass(frozen=True)
class Task:
    """
    All that the computation of a pair depends on but the values of its tensors.

    The sequences have one entry for each of K sources.

    :param full_scales: the value of a pixel that stands for 1.
    :param placed: whether there is a placement.
    :param shrunk: (height, width) to which a source is reduced before it is warped, lest it be
        aliased; None where it is not.
    :param relied: whether the trust is above 0.
    :param full_trust: all of them are 1.
    :param weights: whether the weights are wanted.
    """

    settings: FusionSettings
    full_scales: tuple[float, ...]
    placed: tuple[bool, ...]
    shrunk: tuple[tuple[int, int] | None, ...]
    relied: tuple[bool, ...]
    full_trust: bool
    weights: bool


@dataclass(frozen=True)
class PairTensors:
    """
    The values that a pair is computed of, on the device; none of them is changed.

    :param images: (H, W) or (H, W, 3) each, in blue-green-red order; uint8, float32, or int16 for
        the bits of uint16.
    :param trust: (K,) float32 in [0, 1].
    :param grids: (H, W, 2) for each source with a placement, in order.
    :param coverages: (H, W), likewise.
    """

    images: tuple[Tensor, ...]
    trust: Tensor
    grids: tuple[Tensor, ...] = ()
    coverages: tuple[Tensor, ...] = ()

    @classmethod
    def of(cls, task: Task, tensors: Sequence[Tensor]) -> PairTensors:
        """Take apart all of them in a row, in the order of the parameters."""
        count, placed = len(task.placed), sum(task.placed)
        grids = count + 1
        coverages = grids + placed
        return cls(
            tuple(tensors[:count]),
            tensors[count],
            tuple(tensors[grids:coverages]),
            tuple(tensors[coverages:]),
        )


@dataclass(frozen=True)
class Fused:
    """
    What comes of a pair, on the device.

    :param image: (H, W) or (H, W, 3) uint8; on the CPU, its channels may lie apart.
    :param weights: (K, H, W) float32; None where they are not wanted.
    :param prior_calls: images that went through the prior.
    """

    image: Tensor
    weights: Tensor | None
    prior_calls: int


@torch.inference_mode()
def fuse_pair(
    prior: Prior,
    task: Task,
    tensors: PairTensors,
    noise: Noise,
    callback: Callable[[StepState], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Fused:
    """
    Fuse images that are on the device.

    :param noise: see :func:`~dig2dig_ros.fusion.sampler.sample`; of the first source's size.
    :param callback: called after every step of the sampler.
    :param cancelled: asked before every call of the prior whether to give up.
    :raises FusionCancelled: ``cancelled`` said so.
    :raises DegradationError: a declared degradation cannot be that of the image.
    :raises PriorError: the prior was not trained for the timesteps of the settings.
    """
    settings, count = task.settings, len(tensors.images)
    prior = watched = WatchedPrior(prior, cancelled)
    images = [
        _intensities(pixels, scale)
        for pixels, scale in zip(tensors.images, task.full_scales, strict=True)
    ]
    height, width = images[0].shape[-2:]
    observations: list[Observation | None] = [None] * count
    for index, degradation in enumerate(settings.degradations(count)):
        if not degradation.is_none:
            images[index], observations[index] = _restored(
                prior, images[index], degradation, settings
            )
    grids, coverages = iter(tensors.grids), iter(tensors.coverages)
    for index, placed in enumerate(task.placed):
        if placed:
            shrunk = task.shrunk[index]
            image = images[index] if shrunk is None else _resized(images[index], *shrunk)
            images[index] = _warped(image, next(grids))
        elif images[index].shape[-2:] != (height, width):
            images[index] = _resized(images[index], height, width)
        else:
            continue
        observations[index] = None  # of other pixels
    sources = greys = torch.stack([_grey(image) for image in images])
    confidence = None
    if any(task.placed) or not task.full_trust:
        trust = tensors.trust.view(-1, 1, 1, 1)
        everywhere = torch.ones_like(sources[0])
        confidence = torch.stack(
            [
                trust[index] * (next(coverages)[None] if placed else everywhere)
                for index, placed in enumerate(task.placed)
            ]
        )
    relied = [index for index, value in enumerate(task.relied) if value]
    weights: Tensor | None = None
    if len(relied) == 1:
        (only,) = relied
        if confidence is not None:
            # Nobody fills in for what the only source lacks: it is black.
            sources = sources * confidence[only] / trust[only]
        fused = sources[only, 0].clamp(0, 1)
        weights = torch.zeros_like(sources)
        weights[only].fill_(1)
    else:
        if confidence is not None:
            sources = confident_sources(sources, confidence)
            observations = [None] * count
        result = sample(prior, sources * 2 - 1, noise, settings, callback, observations)
        fused = ((result.fused[0, 0] + 1) / 2).clamp_(0, 1)
        if task.weights or settings.chroma == 'all':
            weights = result.mean_weights()
            if confidence is not None:
                weights = confident_weights(weights[None], confidence)[0]
    planes = None if weights is None else weights[:, 0]
    image = _coloured(images, greys[0, 0], fused, planes if settings.chroma == 'all' else None)
    image = image.mul_(255).round_().to(torch.uint8)
    if image.device.type != 'cpu':  # where it has to be done on the way to the host
        image = image.contiguous()
    return Fused(image, planes if task.weights else None, watched.calls)


def _intensities(pixels: Tensor, full_scale: float) -> Tensor:
    """Return (1 or 3, H, W) float32 in [0, 1]."""
    if pixels.dtype == torch.int16:
        # Few torch operations know uint16, and none of them on older versions.
        pixels = pixels.to(torch.int32).bitwise_and_(0xFFFF)
    image = pixels.float()
    if full_scale != 1:
        image = image / full_scale
    return image[None] if image.ndim == 2 else image.permute(2, 0, 1)


def _restored(
    prior: Prior, image: Tensor, degradation: Degradation, settings: FusionSettings
) -> tuple[Tensor, Observation | None]:
    """
    Undo a declared degradation in the camera's own pixels.

    :return: the image, (1 or 3, H, W), and what was observed of its luma, if a chain is to keep
        to it.
    """
    if len(image) == 3:
        restored = restore_colour(prior, image, degradation, settings.restoration_steps)
    else:
        observation = observe(degradation, image[None] * 2 - 1)
        scene = restore(prior, observation, settings.restoration_steps)
        restored = ((scene[0] + 1) / 2).clamp(0, 1)
    if settings.sampler == 'increments':
        return restored, None
    if len(image) == 3:
        observation = observe_luma(degradation, image)
    return restored, explained(observation, _grey(restored)[None] * 2 - 1)


def _warped(image: Tensor, grid: Tensor) -> Tensor:
    """Return an image (C, H, W) on the pixels of the first source."""
    warped = F.grid_sample(
        image[None], grid[None], mode='bicubic', padding_mode='border', align_corners=False
    )
    return warped[0].clamp(0, 1)


def _resized(image: Tensor, height: int, width: int) -> Tensor:
    """Return an image (C, H, W) in another size."""
    if image.shape[-2:] == (height, width):
        return image
    return F.interpolate(
        image[None], (height, width), mode='bilinear', align_corners=False, antialias=True
    )[0]


def _grey(image: Tensor) -> Tensor:
    """Return the (1, H, W) luma of an image."""
    return luma(image)[None] if len(image) == 3 else image


def _coloured(
    images: Sequence[Tensor], old_luma: Tensor, fused: Tensor, weights: Tensor | None
) -> Tensor:
    """
    Return the fused image with the chroma of the sources that have colour.

    :param old_luma: (H, W), that of the first.
    :param fused: (H, W) in [0, 1].
    :param weights: (K, H, W), by which the chroma of all sources is mixed; None is the first's.
    :return: (H, W, 3) where one of them has colour, else (H, W), which may be ``fused``.
    """
    candidates = images[:1] if weights is None else images
    if all(len(image) != 3 for image in candidates):
        return fused
    if weights is None:
        return replace_luma(images[0], fused, old_luma).permute(1, 2, 0)
    colour = mixed_chroma([image.expand(3, -1, -1) for image in images], weights)
    return replace_luma(colour, fused).permute(1, 2, 0)


def _shares(confidence: Tensor) -> Tensor:
    """Return m_k / sum_j m_j; equal shares where nobody has any confidence."""
    total = confidence.sum(dim=0, keepdim=True)
    known = total > 0
    shares = confidence / torch.where(known, total, 1.0)
    return torch.where(known, shares, 1.0 / len(confidence))


def confident_sources(sources: Tensor, confidence: Tensor) -> Tensor:
    """
    Return the sources with what they lack filled in from the others.

    :param sources: (K, 1, H, W).
    :param confidence: (K, 1, H, W) in [0, 1]; where it is 0 for all sources, each is the mean.
    :return: (K, 1, H, W).
    """
    common = (_shares(confidence) * sources).sum(dim=0, keepdim=True)
    return common + confidence * (sources - common)


def confident_weights(weights: Tensor, confidence: Tensor) -> Tensor:
    """
    Return how much of each original source the weighted sum of the filled ones holds.

    :param weights: (R, K, 1, H, W), summing to 1 over the sources.
    :param confidence: (K, 1, H, W) in [0, 1].
    :return: (R, K, 1, H, W), summing to 1 over the sources.
    """
    own = weights * confidence
    lent = (weights - own).sum(dim=1, keepdim=True)
    return own + lent * _shares(confidence)
