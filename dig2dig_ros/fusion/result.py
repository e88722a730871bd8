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

"""A fused image, and what can be done with it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dig2dig_ros.images.encoded import encode_image, write_image
from dig2dig_ros.images.overlay import contribution_overlay

if TYPE_CHECKING:
    from os import PathLike


@dataclass(frozen=True, repr=False, eq=False)
class FusionResult:
    """
    A fused image and how it came about. Notebooks show it as a picture.

    :param image: uint8; (H, W, 3) blue-green-red where a source that the chroma is taken of has
        colour, else (H, W).
    :param weights: (K, H, W) float32, summing to 1 over the sources: the mean over the intervals
        between refreshes, each counting as much as it gained at the pixel. Where they were not
        asked for, (0, H, W).
    :param contributions: likewise, how much of what the fused image shows at the pixel came from
        each source: the weights times the contrast that they weigh. For pictures.
    :param prior_calls: images that went through the denoiser, to restore sources and to fuse them.
    :param seconds: from the arrays to the arrays.
    :param restored: where they were asked for, the sources as they were fused: restored, on the
        pixels of the first one, (H, W) or (H, W, 3) uint8. Beyond what a source reaches it is
        black, with the soft edge of its placement; trust changes nothing. Otherwise empty.
    :param slowed: why it took longer than it should, in a sentence; empty where it did not.
    :param name: of the pair, where its images were found in two folders: that of their files.
    :param notes: what was noticed in the images and how they were changed before they were fused,
        in sentences: resized, scaled from the bits that are used, pixels without data.
    """

    image: NDArray[np.uint8]
    weights: NDArray[np.float32]
    contributions: NDArray[np.float32]
    prior_calls: int
    seconds: float
    restored: tuple[NDArray[np.uint8], ...] = ()
    slowed: str = ''
    name: str = ''
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Return what it is in a line; the arrays would fill pages."""
        height, width = self.image.shape[:2]
        name = f"'{self.name}', " if self.name else ''
        weights = f', weights of {len(self.weights)} sources' if len(self.weights) else ''
        notes = f', notes={list(self.notes)}' if self.notes else ''
        return (
            f'<FusionResult: {name}{width}x{height}{weights}, {1e3 * self.seconds:.0f} ms{notes}>'
        )

    def overlay(self) -> NDArray[np.uint8]:
        """
        Return the fused image in colours that say what came from which source.

        Blue from the visible image, orange from the thermal one, grey from both alike.

        :return: (H, W, 3) uint8, blue-green-red.
        :raises ValueError: the weights were not asked for.
        """
        if not len(self.contributions):
            raise ValueError('there are no weights to show: fuse with weight_maps=True')
        return contribution_overlay(self.image, self.contributions)

    def save(self, path: str | PathLike[str]) -> Path:
        """
        Write the fused image, in the format that the suffix names; replaces what is there.

        :param path: such as ``fused.png``; its folder must be there.
        :return: the path.
        :raises EncodedImageError: OpenCV cannot write this format.
        :raises OSError: the file cannot be written.
        """
        path = Path(path)
        write_image(path, self.image)
        return path

    def to_pil(self) -> Any:
        """
        Return the fused image as a ``PIL.Image.Image``, of mode RGB or L.

        :raises ImportError: Pillow is not installed.
        """
        from PIL import Image

        return Image.fromarray(
            np.ascontiguousarray(self.image[..., ::-1]) if self.image.ndim == 3 else self.image
        )

    def _repr_png_(self) -> bytes:
        """Return the picture that a notebook shows."""
        return encode_image('.png', self.image)
