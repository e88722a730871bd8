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

"""Cameras and pixels for the tests of lenses and registrations."""

from __future__ import annotations

import cv2
import numpy as np

from dig2dig_ros.images.camera_model import CameraModel

VISIBLE_SIZE, THERMAL_SIZE = (64, 48), (40, 30)
DISTORTIONS = {
    'none': (),
    'plumb_bob': (-0.3, 0.12, 2e-3, -1e-3, -0.02),
    'rational_polynomial': (0.6, 0.2, 1e-3, -2e-3, 0.01, 0.9, 0.3, 0.02),
    'equidistant': (0.03, -0.01, 0.004, -0.001),
}
# A thermal camera to the right, below and behind the visible one, turned a little.
ROTATION = cv2.Rodrigues(np.radians([3.0, -4.0, 2.0]))[0]


def camera(model: str, size: tuple[int, int], focal: float = 1.0) -> CameraModel:
    """Return a camera whose focal length is so many times the width of the image."""
    length, (width, height) = focal * size[0], size
    matrix = [[length, 0, width / 2 - 1.3], [0, 1.02 * length, height / 2 + 0.9], [0, 0, 1]]
    return CameraModel(np.array(matrix), np.array(DISTORTIONS[model]), model, size)


def pixels_of(size: tuple[int, int]) -> np.ndarray:
    """Return the centres of all pixels, row by row."""
    y, x = np.mgrid[: size[1], : size[0]]
    return np.stack([x.ravel(), y.ravel()], axis=1).astype(float)


def project(model: CameraModel, points: np.ndarray) -> np.ndarray:
    """Return the pixels of points in the camera's frame, by OpenCV."""
    still, matrix = np.zeros(3), np.array(model.matrix)
    if model.model == 'equidistant':
        distortion = np.array(model.distortion)
        pixels = cv2.fisheye.projectPoints(points[None], still, still, matrix, distortion)[0]
    else:
        distortion = np.array(model.distortion) if len(model.distortion) else np.zeros(5)
        pixels = cv2.projectPoints(points, still, still, matrix, distortion)[0]
    return pixels.reshape(-1, 2)


def inside(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return ((pixels >= -0.5) & (pixels <= np.array(size) - 0.5)).all(axis=1)
