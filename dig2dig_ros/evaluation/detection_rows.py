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
What a detector finds in the cameras' images, in fusions of them, and by late fusion.

Late fusion runs the detector on both cameras and merges the boxes, which is what a fused image
has to compete with: ``late_nms`` and ``late_noisy_or`` merge the boxes of the original images.
``boxes`` merges those of the restored images, with the fused image as a third source, and scales
how much a camera counts in a box by its weights. ``boxes_unweighted`` does so without weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray

from dig2dig_ros.detections.boxes import Detections
from dig2dig_ros.detections.merging import late_nms, noisy_or, say_of_boxes
from dig2dig_ros.evaluation.comparison import FUSED
from dig2dig_ros.evaluation.detector import Detector
from dig2dig_ros.evaluation.detector_inputs import detector_inputs, THERMAL, VISIBLE
from dig2dig_ros.evaluation.methods import FusionMethod
from dig2dig_ros.evaluation.scores import fuse_with, grey_8_bits, Image, Method, MethodOutput
from dig2dig_ros.images.geometry import size_of
from dig2dig_ros.images.placement import Placement
from dig2dig_ros.streams.preparation import registered_image

LATE_NMS, LATE_NOISY_OR = 'late_nms', 'late_noisy_or'
BOXES, BOXES_UNWEIGHTED = 'boxes', 'boxes_unweighted'


def in_visible_pixels(thermal: Image, placement: Placement | None, visible: Image) -> Image:
    """
    Return a thermal image as a detector or a metric sees it with the visible one.

    :param thermal: (H', W').
    :param placement: of it; None if it covers the visible one.
    :param visible: (H, W) or (H, W, 3).
    :return: (H, W).
    """
    size = size_of(visible)
    if placement is not None:
        thermal = registered_image(thermal, placement, size)
    return grey_8_bits(thermal, size)


class DetectionRows:
    """
    Detects persons in one scene in all ways that are compared.

    :param detector: used by all of them.
    :param methods: fusions by name.
    :ivar detector: likewise.
    :ivar names: of the rows, in their order.
    """

    def __init__(self, detector: Detector, methods: Mapping[str, Method]) -> None:
        self.detector = detector
        self._methods = methods
        fused = methods.get(FUSED)
        self._fused = fused if isinstance(fused, FusionMethod) else None
        boxes = () if self._fused is None else (BOXES, BOXES_UNWEIGHTED)
        self.names = (VISIBLE, THERMAL, *methods, LATE_NMS, LATE_NOISY_OR, *boxes)

    def detect(
        self,
        visible: Image,
        thermal: Image,
        known: Mapping[str, Detections],
        placement: Placement | None = None,
    ) -> dict[str, Detections]:
        """
        Return the detections in a scene, by row, in pixels of the visible image.

        The fusions get the thermal image in its own pixels, as in the node; the detector and the
        other rows get it registered.

        :param visible: (H, W, 3) in blue-green-red order, or grey, (H, W).
        :param thermal: (H', W').
        :param known: detections in ``visible`` and in the registered thermal image.
        :param placement: of the thermal image; None if it covers the visible one.
        """
        found = dict(known)
        images, placements = (visible, thermal), (None, placement)
        registered = in_visible_pixels(thermal, placement, visible)
        fused: dict[str, MethodOutput] = {}
        restored: tuple[Image, ...] = ()
        weights = np.empty((0, *visible.shape[:2]), np.float32)
        if self._fused is not None:
            result = self._fused.fuser.fuse(*images, placements=placements, restored=True)
            restored, weights = result.restored, result.weights
            fused[FUSED] = MethodOutput(result.image, result.seconds * 1e3)
        fused = fuse_with(self._methods, images, fused, placements)
        names = [name for name in (VISIBLE, THERMAL, *self._methods) if name not in found]
        fusions = {name: output.image for name, output in fused.items()}
        for name, image in detector_inputs(names, visible, registered, fusions).items():
            found[name] = self.detector.detect(image)
        cameras = [found[VISIBLE], found[THERMAL]]
        found[LATE_NMS], found[LATE_NOISY_OR] = late_nms(cameras), noisy_or(cameras)
        if restored:
            seen = [
                # If nothing was restored, the detections are known already.
                own if np.array_equal(image, before) else self.detector.detect(image)
                for own, image, before in zip(
                    cameras, restored, (visible, registered), strict=True
                )
            ]
            found |= _united(seen, found[FUSED], weights)
        return {name: found[name] for name in self.names}


def _united(
    cameras: list[Detections], fused: Detections, weights: NDArray[np.float32]
) -> dict[str, Detections]:
    says = [partial(say_of_boxes, plane, share=1 / len(cameras)) for plane in weights]
    sources = [*cameras, fused]
    return {BOXES: noisy_or(sources, [*says, None]), BOXES_UNWEIGHTED: noisy_or(sources)}
