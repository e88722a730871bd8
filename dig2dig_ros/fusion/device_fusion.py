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

Unless a blur or a down-sampling is undone, nothing here reads from the device, copies to it
or depends on values there: the same :class:`Task` enqueues the same kernels. So they can be
recorded once and replayed, see :mod:`dig2dig_ros.fusion.graphs`.

A source that shows only a part of the scene, or is only partly trusted, has a trust map m_k in
[0, 1], and what it lacks is filled with what the others show:

    c_k' = m_k c_k + (1 - m_k) sum_j m_j c_j / sum_j m_j.

So the fusion meets no false edge where a camera ends, and where only one is trusted, all are that
one, and so is the fused image.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
import torch.nn.functional as F

from dig2dig_ros.fusion.brightness import (
    bright_and_cold,
    keep_brightness,
    with_share_of_first,
)
from dig2dig_ros.fusion.colour import grey, mixed_chroma, replace_luma
from dig2dig_ros.fusion.degradation import Degradation
from dig2dig_ros.fusion.denoising import denoised, denoising_share
from dig2dig_ros.fusion.enlargement import enlarged, sharpened_for_enlargement
from dig2dig_ros.fusion.estimates import WatchedPrior
from dig2dig_ros.fusion.observation import Observation, observe
from dig2dig_ros.fusion.restoration import explained, restore, restore_colour
from dig2dig_ros.fusion.sampler import Noise, sample, StepState
from dig2dig_ros.fusion.settings import FusionSettings
from dig2dig_ros.priors import Prior

# Pixels a side of the means that the prior denoises, at least: noise in finer details is left to
# their power, which takes an eighth of the time, and a decibel.
_DENOISED_CELL = 2


@dataclass(frozen=True)
class SourceTask:
    """
    A part of :class:`Task`.

    :param full_scale: the value of a pixel that stands for 1.
    :param is_placed: whether the source has a placement.
    :param shrunk: (height, width) to which it is reduced before it is warped; None: it is not.
    :param is_trusted: whether its trust is above 0.
    :param is_noisy: whether to remove white noise, as much as there is.
    :param is_enlarged: whether it becomes so much larger that it is to be sharpened for it.
    """

    full_scale: float
    is_placed: bool = False
    shrunk: tuple[int, int] | None = None
    is_trusted: bool = True
    is_noisy: bool = False
    is_enlarged: bool = False


@dataclass(frozen=True)
class Task:
    """
    All that the computation of a pair depends on but the values of its tensors.

    :param full_trust: the trust of all sources is 1.
    :param all_sharp: none of the sources was blurred.
    :param weights: whether the weights are wanted, and the contributions with them.
    :param restored: whether the restored sources are.
    :param rounded: whether the fused image is wanted in whole grey levels, uint8; else it is
        float32 in [0, 255].
    """

    settings: FusionSettings
    sources: tuple[SourceTask, ...]
    full_trust: bool = True
    all_sharp: bool = True
    weights: bool = True
    restored: bool = False
    rounded: bool = True


@dataclass(frozen=True)
class Fused:
    """
    What comes of a pair.

    :param tensors: on the device: ``finite``, (1,), a finite number where the result is finite, or
        not one; ``image``, (H, W) or (H, W, 3) uint8, whose channels may lie
        apart on the CPU, ``weights`` and ``contributions``, (K, H, W) float32, where the weights
        are wanted, and where those are, ``restored k`` for each source, an image as ``image`` is.
    :param prior_calls: images that went through the prior.
    """

    tensors: dict[str, Tensor]
    prior_calls: int


@torch.inference_mode()
def fuse_pair(
    prior: Prior,
    task: Task,
    tensors: Mapping[str, Tensor],
    noise: Noise,
    callback: Callable[[StepState], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Fused:
    """
    Fuse images that are on the device.

    :param tensors: on the device; none of them is changed. For each source k, counted from 0:
        ``image k``, (H, W) or (H, W, 3) blue-green-red, uint8, float32, or int16 for the bits of
        uint16; where it has a placement, ``grid k``, (H, W, 2), and ``coverage k``, (H, W); where
        it is noisy or otherwise degraded, ``noise k``, (3,) float32, see
        :func:`~dig2dig_ros.fusion.denoising.denoised`. ``trust``, (K,) float32 in [0, 1], and
        unless all are sharp ``sharpness``, (K,) float32 in (0, 1].
    :param noise: see :func:`~dig2dig_ros.fusion.sampler.sample`; of the first source's size.
    :param callback: called after every step of the sampler.
    :param cancelled: asked before every call of the prior whether to give up.
    :raises FusionCancelled: ``cancelled`` said so.
    :raises DegradationError: a declared degradation cannot be that of the image.
    :raises PriorError: the prior was not trained for the timesteps of the settings.
    """
    settings = task.settings
    watched = WatchedPrior(prior, cancelled)
    images, observations = _aligned_images(watched, task, tensors)
    sources = torch.stack([grey(image) for image in images])
    old_luma = sources[0, 0]
    trust_maps = _trust_maps(task, tensors, sources)
    trusted = [index for index, source in enumerate(task.sources) if source.is_trusted]
    weights: Tensor | None = None
    contributions: Tensor | None = None
    if len(trusted) == 1:
        (only,) = trusted
        if trust_maps is not None:
            # Nobody fills in for what the only source lacks: it is black.
            sources = sources * trust_maps[only] / tensors['trust'][only]
        fused = sources[only, 0].clamp(0, 1)
        finite = fused.sum()
        weights = torch.zeros_like(sources)
        weights[only].fill_(1)
        contributions = weights
    else:
        if trust_maps is not None:
            sources = filled_sources(sources, trust_maps)
            observations = []
        left = _sensor_noise(task, tensors, sources)
        sharpness = None if task.all_sharp else tensors['sharpness']
        result = sample(
            watched, sources * 2 - 1, noise, settings, callback, observations, left, sharpness
        )
        # Summed before it is clipped, which makes white of what is infinite; nobody waits for it.
        fused = (result.fused[0, 0] + 1) / 2
        finite = fused.sum()
        fused = fused.clamp_(0, 1)
        kept: Tensor | None = None
        if settings.visible_brightness > 0 and settings.chroma == 'first':
            kept = settings.visible_brightness * bright_and_cold(sources)
            fused = keep_brightness(fused, sources, kept)
        if task.weights or settings.chroma == 'all':
            weights = _of_originals(result.mean_weights(), kept, trust_maps)
        if task.weights:
            contributions = _of_originals(result.contributions(), kept, trust_maps)
    planes = None if weights is None else weights[:, 0]
    image = _coloured(images, old_luma, fused, planes if settings.chroma == 'all' else None)
    image = image.mul_(255)
    results = {'image': _bytes(image) if task.rounded else image}
    for total in (watched.total, None if planes is None else planes.sum()):
        finite = finite if total is None else finite + total
    results['finite'] = finite.reshape(1)
    if task.weights and planes is not None:
        results['weights'] = planes
    if task.weights and contributions is not None:
        results['contributions'] = contributions[:, 0]
    if task.restored:
        results.update(_restored_sources(task, tensors, images))
    return Fused(results, watched.calls)


def _of_originals(weights: Tensor, kept: Tensor | None, trust_maps: Tensor | None) -> Tensor:
    """Return the weights (K, 1, H, W) of the original sources, kept brightness included."""
    if kept is not None:
        weights = with_share_of_first(weights, kept)
    return weights if trust_maps is None else weights_of_originals(weights, trust_maps)


def _bytes(image: Tensor) -> Tensor:
    """Return an image of values from 0 to 255, which may be overwritten, as uint8."""
    image = image.round_()
    if image.device.type == 'cpu':
        # By way of these, which have vector instructions, it takes a quarter of the time.
        return image.to(torch.int16).to(torch.uint8)
    # Put in order here, where it takes less time than on the way to the host.
    return image.to(torch.uint8).contiguous()


def _restored_sources(
    task: Task, tensors: Mapping[str, Tensor], images: Sequence[Tensor]
) -> dict[str, Tensor]:
    """Return the aligned sources by name, black beyond what they reach; see :class:`Fused`."""
    results = {}
    for index, (source, image) in enumerate(zip(task.sources, images, strict=True)):
        reached = image * tensors[f'coverage {index}'] if source.is_placed else image
        pixels = reached[0] if len(image) == 1 else reached.permute(1, 2, 0)
        results[f'restored {index}'] = _bytes(pixels * 255)
    return results


def _aligned_images(
    prior: Prior, task: Task, tensors: Mapping[str, Tensor]
) -> tuple[list[Tensor], list[Observation | None]]:
    """
    Return the sources on the pixels of the first one, restored where that is declared.

    :return: images, (1 or 3, H, W) in [0, 1], and for each what was observed of its luma, if a
        chain is to keep to it.
    """
    images: list[Tensor] = []
    observations: list[Observation | None] = []
    degradations = task.settings.degradations(len(task.sources))
    camera_images = _denoised_sources(prior, task, tensors)
    for index, (source, degradation) in enumerate(zip(task.sources, degradations, strict=True)):
        image, observation = camera_images[index], None
        if not degradation.is_only_noise:
            level = tensors[f'noise {index}']
            image, observation = _restored(prior, image, degradation, level, task.settings)
        if source.is_enlarged:
            image = sharpened_for_enlargement(image)
        size = (images or [image])[0].shape[-2:]
        if source.is_placed:
            if source.shrunk is not None:
                image = _resized(image, *source.shrunk)
            image = _warped(image, tensors[f'grid {index}'])
            observation = None  # of other pixels, as below
        elif image.shape[-2:] != size:
            image = _resized(image, *size)
            observation = None
        images.append(image)
        observations.append(observation)
    return images, observations


def _denoised_sources(prior: Prior, task: Task, tensors: Mapping[str, Tensor]) -> list[Tensor]:
    """Return the images of the cameras, in [0, 1], without the noise of those that are noisy."""
    images = [
        _intensities(tensors[f'image {index}'], source.full_scale)
        for index, source in enumerate(task.sources)
    ]
    noisy = [index for index, source in enumerate(task.sources) if source.is_noisy]
    if noisy:
        clean = denoised(
            prior,
            [images[index] for index in noisy],
            [tensors[f'noise {index}'] for index in noisy],
            max(_DENOISED_CELL, task.settings.prior_downscale),
        )
        for index, image in zip(noisy, clean, strict=True):
            images[index] = image
    return images


def _sensor_noise(task: Task, tensors: Mapping[str, Tensor], sources: Tensor) -> Tensor | None:
    """Return the deviation (K,), on [-1, 1], of noise that was taken out; None without any."""
    if not any(source.is_noisy for source in task.sources):
        return None
    nothing = sources.new_zeros(())
    deviations = [
        tensors[f'noise {index}'][2] if source.is_noisy else nothing
        for index, source in enumerate(task.sources)
    ]
    levels = torch.stack(deviations)
    return 2 * denoising_share(levels) * levels


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
    prior: Prior,
    image: Tensor,
    degradation: Degradation,
    noise: Tensor,
    settings: FusionSettings,
) -> tuple[Tensor, Observation | None]:
    """Undo a declared degradation in the camera's own pixels; see :func:`_aligned_images`."""
    level = 2 * float(noise[2])
    observation = observe(degradation, grey(image)[None] * 2 - 1, level)
    if len(image) == 3:
        restored = restore_colour(prior, image, observation, settings.restoration_steps)
    else:
        scene = restore(prior, observation, settings.restoration_steps)
        restored = ((scene[0] + 1) / 2).clamp(0, 1)
    if settings.sampler == 'increments':
        return restored, None
    return restored, explained(observation, grey(restored)[None] * 2 - 1)


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
    if height >= image.shape[-2] and width >= image.shape[-1]:
        return enlarged(image, height, width)
    return F.interpolate(
        image[None], (height, width), mode='bilinear', align_corners=False, antialias=True
    )[0]


def _coloured(
    images: Sequence[Tensor], old_luma: Tensor, fused: Tensor, weights: Tensor | None
) -> Tensor:
    """
    Return the fused image, (H, W), with the chroma of the sources that have colour.

    :param old_luma: (H, W), that of the first.
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


def _trust_maps(task: Task, tensors: Mapping[str, Tensor], sources: Tensor) -> Tensor | None:
    """Return m_k, (K, 1, H, W); None where all sources are fully trusted everywhere."""
    if task.full_trust and not any(source.is_placed for source in task.sources):
        return None
    reach = torch.stack(
        [
            tensors[f'coverage {index}'][None] if source.is_placed else torch.ones_like(image)
            for index, (source, image) in enumerate(zip(task.sources, sources, strict=True))
        ]
    )
    return tensors['trust'].view(-1, 1, 1, 1) * reach


def _shares(trust_maps: Tensor) -> Tensor:
    """Return m_k / sum_j m_j; equal shares where nobody is trusted."""
    total = trust_maps.sum(dim=0, keepdim=True)
    known = total > 0
    shares = trust_maps / torch.where(known, total, 1.0)
    return torch.where(known, shares, 1.0 / len(trust_maps))


def filled_sources(sources: Tensor, trust_maps: Tensor) -> Tensor:
    """
    Return the sources, (K, 1, H, W), with what they lack filled in from the others.

    :param trust_maps: (K, 1, H, W) in [0, 1]; where it is 0 for all sources, each is the mean.
    """
    common = (_shares(trust_maps) * sources).sum(dim=0, keepdim=True)
    return common + trust_maps * (sources - common)


def weights_of_originals(weights: Tensor, trust_maps: Tensor) -> Tensor:
    """
    Return how much of each original source the weighted sum of the filled ones holds.

    Of what is fused at a weight w_k, the part m_k is source k's own; the rest is lent to it.

    :param weights: (K, 1, H, W), summing to 1 over the sources, as what is returned.
    :param trust_maps: (K, 1, H, W) in [0, 1].
    """
    own = weights * trust_maps
    lent = (weights - own).sum(dim=0, keepdim=True)
    return own + lent * _shares(trust_maps)
