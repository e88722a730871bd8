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
LPIPS, the learned perceptual image patch similarity, computed by the package ``lpips``.

Zhang, Isola, Efros, Shechtman and Wang, "The unreasonable effectiveness of deep features as a
perceptual metric", CVPR 2018, Eq. 1, in version 0.1. The package brings the linear heads; the
network is torchvision's, and its weights must be in PyTorch's cache already: nothing is
downloaded here. Published values mostly are AlexNet's; those of the two networks cannot be
compared.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any
import warnings

from dig2dig_ros.evaluation.metrics import checked_images, Luma
from dig2dig_ros.evaluation.options import UsageError

# The name in torchvision of each network of ``lpips``, and of the file of its weights.
NETWORKS = {
    'alex': ('alexnet', 'alexnet-owt-7be5be79.pth'),
    'vgg': ('vgg16', 'vgg16-397923af.pth'),
}
# Pixels of the smallest image that has features in every layer of both.
_SMALLEST_SIDE = 31


class LpipsError(UsageError):
    """LPIPS cannot be computed; the message says what to install."""


class Lpips:
    """The perceptual distance of images, by an ``lpips.LPIPS``; see :func:`load_lpips`."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def __call__(self, image: Luma, *sources: Luma) -> float:
        """
        Return the mean over the sources of their distance to an image, 0 for equal images.

        The luma stands for red, green and blue, so differences of colour do not count.

        :param image: (H, W) on the scale 0 to 255, at least 31 pixels a side.
        :param sources: one or more of the same size.
        :raises MetricError: an image has another shape, range or type, or is not finite.
        """
        import torch

        named = {f'source {index}': source for index, source in enumerate(sources, start=1)}
        first, *others = (
            torch.from_numpy(values / 127.5 - 1).float().expand(1, 3, -1, -1)
            for values in checked_images(_SMALLEST_SIDE, fused=image, **named)
        )
        with torch.inference_mode():
            distances = [float(self._model(first, other)) for other in others]
        return sum(distances) / len(distances)


def load_lpips(network: str = 'alex') -> Lpips:
    """
    Set up LPIPS on the CPU.

    :param network: one of :data:`NETWORKS`.
    :raises LpipsError: the package or the weights of the network are missing.
    """
    try:
        lpips = importlib.import_module('lpips')
    except (ImportError, RuntimeError) as error:  # the latter from a torchvision of another torch
        raise LpipsError(
            'the metric LPIPS needs the package lpips: install the extra "lpips" of dig2dig, or '
            f'pip install lpips; {error}'
        ) from error
    import torch

    name, file = NETWORKS[network]
    path = Path(torch.hub.get_dir()) / 'checkpoints' / file
    # Without it, the package would download it, which the user should decide.
    if not path.is_file():
        raise LpipsError(
            f'LPIPS needs the weights of {name}, but there is no {path}: copy them there, or let '
            f'torchvision download them: python3 -c "import torchvision; '
            f"torchvision.models.{name}(weights='IMAGENET1K_V1')\""
        )
    with warnings.catch_warnings():
        # The package asks torchvision for weights in a deprecated way.
        warnings.simplefilter('ignore')
        return Lpips(lpips.LPIPS(net=network, verbose=False))
