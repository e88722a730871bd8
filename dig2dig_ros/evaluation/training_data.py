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

"""Training data of a prior: images as luma, and batches of augmented noisy patches."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
import math
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
import torch
from torch import Tensor

from dig2dig_ros.evaluation.options import report, UsageError
from dig2dig_ros.images.encoded import EncodedImageError, read_image

IMAGE_SUFFIXES = {'.png', '.jpg', '.jpeg', '.bmp', '.tif', '.tiff'}


def load_luma(folders: Sequence[Path], limit: int | None = None) -> list[NDArray[np.uint8]]:
    """
    Load every image below ``folders`` as 8-bit luma of shape (H, W).

    :param limit: keep this many images of each folder that holds images, in name order.
    :raises UsageError: there are none.
    """
    images = []
    for folder in folders:
        paths = sorted(p for p in folder.rglob('*') if p.suffix.lower() in IMAGE_SUFFIXES)
        kept: dict[Path, int] = {}
        for path in paths:
            kept[path.parent] = kept.get(path.parent, 0) + 1
            if limit is not None and kept[path.parent] > limit:
                continue
            try:
                image = read_image(path, cv2.IMREAD_COLOR)
            except EncodedImageError as error:
                report(f'skipped {path}: {error}')
                continue
            images.append(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).astype(np.uint8, copy=False))
    if not images:
        raise UsageError(f'no images below {", ".join(map(str, folders))}')
    return images


def augmented_patch(
    image: NDArray[np.uint8], side: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """
    Cut a random patch and augment it: scale, pose, tone, exposure, focus, noise.

    :return: (side, side) in [-1, 1].
    """
    largest = min(min(image.shape) / side, 3.0)
    zoom = rng.uniform(1.0, max(1.0, largest)) if rng.random() < 0.6 else 1.0
    cut = max(min(round(side * zoom), *image.shape), 1)
    top = rng.integers(0, image.shape[0] - cut + 1)
    left = rng.integers(0, image.shape[1] - cut + 1)
    patch = image[top : top + cut, left : left + cut]
    if cut != side:
        patch = cv2.resize(patch, (side, side), interpolation=cv2.INTER_AREA)
    patch = np.rot90(patch, int(rng.integers(0, 4)))
    if rng.random() < 0.5:
        patch = patch[:, ::-1]
    unit = patch.astype(np.float32) / 255.0
    if rng.random() < 0.1:  # thermal cameras show hot as black or as white
        unit = 1.0 - unit
    if rng.random() < 0.4:
        unit = unit ** np.float32(math.exp(rng.uniform(-0.7, 0.7)))
    if rng.random() < 0.4:  # dark and low-contrast scenes, down to almost nothing visible
        contrast = math.exp(rng.uniform(math.log(0.05), math.log(1.2)))
        offset = rng.uniform(0.0, 1.0 - min(contrast, 1.0))
        unit = unit * np.float32(contrast) + np.float32(offset)
    if rng.random() < 0.1:  # thermal optics are softer than visible ones
        unit = cv2.GaussianBlur(unit, (0, 0), rng.uniform(0.6, 1.8))
    if rng.random() < 0.1:  # noise of a camera at its limit is part of its image
        grain = rng.standard_normal(unit.shape, dtype=np.float32)
        unit = unit + grain * np.float32(rng.uniform(1.0, 6.0) / 255.0)
    unit = np.clip(unit, 0.0, 1.0)
    return np.ascontiguousarray(unit * 2.0 - 1.0, dtype=np.float32)


def batch_at(
    step: int, images: list[NDArray[np.uint8]], args: argparse.Namespace, alpha_bar: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the batch of ``step``: noisy patches, timesteps, and the v to predict."""
    rng = np.random.default_rng([args.seed, step])
    area = np.array([image.size for image in images], dtype=np.float64)
    # The square root keeps a few large images from drowning the many small ones.
    chance = np.sqrt(area) / np.sqrt(area).sum()
    chosen = rng.choice(len(images), size=args.batch, p=chance)
    patches = np.stack([augmented_patch(images[i], args.patch, rng) for i in chosen])
    clean = torch.from_numpy(patches)[:, None]
    noise = torch.from_numpy(rng.standard_normal(clean.shape, dtype=np.float32))
    # Squaring a uniform draw puts half of the batch below a quarter of the schedule, where
    # image detail is decided.
    uniform = (np.arange(args.batch) + rng.random(args.batch)) / args.batch
    steps = len(alpha_bar)
    timesteps = torch.from_numpy((uniform**2 * steps).astype(np.int64).clip(0, steps - 1))
    level = alpha_bar[timesteps].view(-1, 1, 1, 1)
    signal, sigma = level.sqrt().float(), (1 - level).sqrt().float()
    return signal * clean + sigma * noise, timesteps, signal * noise - sigma * clean


def batches(
    start: int, images: list[NDArray[np.uint8]], args: argparse.Namespace, alpha_bar: Tensor
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield the batches from ``start`` on; the next one is made while this one is used."""
    with ThreadPoolExecutor(1) as loader:
        upcoming = loader.submit(batch_at, start, images, args, alpha_bar)
        for step in range(start, args.steps):
            batch = upcoming.result()
            upcoming = loader.submit(batch_at, step + 1, images, args, alpha_bar)
            yield batch
