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

"""Luma: how much each colour channel counts in the brightness of an image."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

# BT.601, the luma of JPEG, of OpenCV's grey and of YUV cameras; blue, green, red.
LUMA_BGR = (0.114, 0.587, 0.299)


def grey(image: NDArray[Any]) -> NDArray[Any]:
    """
    Return the luma of an image.

    :param image: (H, W, 3) blue-green-red, uint8, uint16 or float32; or (H, W), any numeric type,
        which is returned as it is.
    :return: (H, W), of the same type.
    """
    return image if image.ndim == 2 else np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY))
