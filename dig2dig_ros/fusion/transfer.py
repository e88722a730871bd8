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

"""From arrays to the tensors of the host that go to the device, and back."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
import torch
from torch import Tensor


def to_tensor(array: NDArray[Any], device: torch.device) -> Tensor:
    """
    Return checked pixels as a tensor of the host, which may share their memory.

    :param array: (H, W[, 3]), uint8, uint16 or float32.
    :param device: where they go from there.
    """
    if array.dtype == np.uint16:
        # Few torch operations know uint16, and none of them on older versions.
        array = array.astype(np.float32) if device.type == 'cpu' else array.view(np.int16)
    if array.ndim == 3 and device.type == 'cpu':
        # Channel by channel, as all that follows takes them; OpenCV is quick at that.
        planes = np.empty((array.shape[2], *array.shape[:2]), array.dtype)
        cv2.split(np.ascontiguousarray(array), list(planes))
        return torch.from_numpy(planes).permute(1, 2, 0)
    if not array.flags.writeable or not array.flags.c_contiguous:
        # Torch holds neither read-only memory nor the negative strides of a flipped view.
        array = array.copy()
    return torch.from_numpy(array)


def to_array(tensor: Tensor) -> NDArray[Any]:
    """Return a tensor of the CPU as an array, an image pixel by pixel."""
    if tensor.ndim != 3 or tensor.dtype != torch.uint8:
        return tensor.numpy()
    # Its channels lie apart, and OpenCV brings them together many times as fast as torch.
    return np.asarray(cv2.merge(list(tensor.permute(2, 0, 1).numpy())))
