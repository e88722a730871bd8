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

"""The camera models of a calibration: from camera_info, or from files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dig2dig_ros.evaluation.options import report, UsageError
from dig2dig_ros.evaluation.registration_pairs import CalibrationImages
from dig2dig_ros.images.camera_model import CameraModel
from dig2dig_ros.images.geometry import Array, RegistrationError, Size
from dig2dig_ros.images.registration_file import read_yaml
from dig2dig_ros.streams.pairing import SOURCES


@dataclass(frozen=True)
class CameraModels:
    """
    The camera models in use.

    :param visible: None where lenses count as they are; likewise ``thermal``.
    :param text: what was decided, and why.
    :param guess: (3, 3) thermal to visible, of cameras that look the same way.
    """

    visible: CameraModel | None
    thermal: CameraModel | None
    text: str
    guess: Array | None = None

    def undistorted(self, visible: Array, thermal: Array) -> tuple[Array, Array]:
        """
        Return points (N, 2) as the cameras would show them without distortion.

        :raises UsageError: a point is where a camera sees nothing, by its calibration.
        """
        results = []
        for source, points in zip(SOURCES, (visible, thermal), strict=True):
            camera = getattr(self, source)
            ideal = points if camera is None else camera.undistorted(points)
            lost = np.flatnonzero(~np.isfinite(ideal).all(axis=1))
            if lost.size:
                raise UsageError(
                    f'point {lost[0] + 1} is where the {source} camera sees nothing by its '
                    'calibration: remove it, or go without with --camera-info ignore'
                )
            results.append(ideal)
        return results[0], results[1]


def camera_models(
    images: CalibrationImages, files: Mapping[str, Path] | None, ignore: bool
) -> CameraModels:
    """
    Decide on the camera models: from files, or from camera_info of which one has distortion.

    :param files: calibrations by camera, to take instead of camera_info.
    :param ignore: take neither.
    :raises UsageError: a file is wrong, or for other images.
    """
    if ignore:
        return CameraModels(None, None, 'not used: --camera-info ignore')
    infos = images.infos
    if files is not None:
        infos = {source: load_camera(path) for source, path in files.items()}
    missing = ' and '.join(source for source in SOURCES if source not in infos)
    if missing:
        return CameraModels(None, None, f'none of the {missing} camera; lenses count as they are')
    try:
        visible, thermal = (
            _model(
                infos[source],
                source,
                size,
                rectified=files is None and source in images.rectified,
            )
            for source, size in zip(SOURCES, images.sizes, strict=True)
        )
    except RegistrationError as error:
        if files is not None:
            raise UsageError(f'the camera models cannot be used: {error}') from error
        report(f'warning: camera_info is not used: {error}')
        return CameraModels(None, None, 'not used, see the warning; lenses count as they are')
    guess = visible.matrix @ np.linalg.inv(thermal.matrix)
    bent = [s for s, m in zip(SOURCES, (visible, thermal), strict=True) if m.distortion.any()]
    if not bent and files is None:
        return CameraModels(None, None, 'of both cameras, without distortion: not kept', guess)
    text = f'of both cameras, kept; the {" and ".join(bent) or "none"} has distortion'
    return CameraModels(visible, thermal, text, guess)


def _model(info: Any, source: str, size: Size, rectified: bool) -> CameraModel:
    model = CameraModel.from_camera_info(info, rectified)
    if model.size != size:
        raise RegistrationError(
            f'the {source} camera is calibrated for {model.size[0]}x{model.size[1]} pixels, but '
            f'its images have {size[0]}x{size[1]}'
        )
    return model


def load_camera(path: Path) -> Any:
    """
    Read a calibration as camera_calibration of ROS writes it.

    :return: what has the fields of sensor_msgs/CameraInfo.
    :raises RegistrationError: it cannot be read.
    :raises UsageError: it lacks something.
    """
    document = read_yaml(path)
    try:
        return SimpleNamespace(
            width=int(document['image_width']),
            height=int(document['image_height']),
            distortion_model=str(document.get('distortion_model', '')),
            k=[float(value) for value in document['camera_matrix']['data']],
            d=[float(value) for value in document['distortion_coefficients']['data']],
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f'{path} is no calibration as ROS writes it, with image_width, image_height, '
            'camera_matrix.data, distortion_model and distortion_coefficients.data: '
            f'{type(error).__name__} {error}'
        ) from error


def undistorted_image(image: NDArray[Any], camera: CameraModel | None) -> NDArray[Any]:
    """Return an image (H, W[, 3]) without the distortion of its lens."""
    if camera is None:
        return image
    height, width = image.shape[:2]
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1)
    at = camera.distorted(grid.reshape(-1, 2)).reshape(height, width, 2)
    maps = np.nan_to_num(at, nan=-1e4).astype(np.float32)
    return np.asarray(
        cv2.remap(image, maps, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    )
