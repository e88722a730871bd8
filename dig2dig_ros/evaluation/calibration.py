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

"""Estimates of a registration, from images, points or a checkerboard, and their checks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dig2dig_ros.evaluation.options import report, UsageError
from dig2dig_ros.evaluation.registration_pairs import CalibrationImages, choose_frames, LoadedPair
from dig2dig_ros.evaluation.registration_points import (
    counted,
    find_board,
    fit_points,
    matching_order,
    rms,
)
from dig2dig_ros.images.alignment import align, Model
from dig2dig_ros.images.alignment_search import centred_guess
from dig2dig_ros.images.camera_model import CameraModel
from dig2dig_ros.images.geometry import apply_homography, Array, RegistrationError, Size
from dig2dig_ros.images.image_window import ImageWindow
from dig2dig_ros.images.misalignment import MisalignmentMonitor
from dig2dig_ros.images.placement import Placement
from dig2dig_ros.images.registration_file import read_yaml
from dig2dig_ros.streams.pairing import SOURCES
from dig2dig_ros.streams.preparation import registered_image

# Largest misalignment of frames that were not used: this fraction of the visible image's longer
# side, or this many pixels if that is more.
_MOST_LEFT_OVER = 0.01
_LEAST_LEFT_OVER = 3.0
# Accuracy of clicked points and of board corners, in thermal pixels, while there are too few
# residuals to measure it.
_CLICK_SIGMA, _CORNER_SIGMA = 1.0, 0.3


@dataclass(frozen=True)
class CameraModels:
    """
    The camera models in use.

    :param visible: None if lens distortion is ignored; then ``thermal`` is None, too.
    :param text: the decision, and why.
    :param guess: (3, 3) thermal to visible, for cameras that look in the same direction.
    """

    visible: CameraModel | None
    thermal: CameraModel | None
    text: str
    guess: Array | None = None

    def undistorted(self, visible: Array, thermal: Array) -> tuple[Array, Array]:
        """
        Return points (N, 2) as the cameras would show them without distortion.

        :raises UsageError: a point is outside a camera's view, according to its calibration.
        """
        if self.visible is None or self.thermal is None:
            return visible, thermal
        ideal = self.visible.undistorted(visible), self.thermal.undistorted(thermal)
        for source, points in zip(SOURCES, ideal, strict=True):
            lost = np.flatnonzero(~np.isfinite(points).all(axis=1))
            if lost.size:
                raise UsageError(
                    f"point {lost[0] + 1} is outside the {source} camera's view, according to its "
                    'calibration: remove the point, or use --camera-info ignore'
                )
        return ideal

    def undistorted_pair(self, pair: LoadedPair) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return both images without the distortion of their lenses."""
        return (
            undistorted_image(pair.visible, self.visible),
            undistorted_image(pair.thermal, self.thermal),
        )


def camera_models(
    images: CalibrationImages, files: Mapping[str, Path] | None, ignore: bool
) -> CameraModels:
    """
    Decide on the camera models: from files, or from camera_info if one of them has distortion.

    :param files: calibrations by camera, in place of camera_info.
    :param ignore: use neither.
    :raises UsageError: a file is wrong, or for other images.
    """
    if ignore:
        return CameraModels(None, None, 'not used: --camera-info ignore')
    infos = images.infos
    if files is not None:
        infos = {source: load_camera(path) for source, path in files.items()}
    missing = ' and '.join(source for source in SOURCES if source not in infos)
    if missing:
        return CameraModels(None, None, f'none of the {missing} camera; distortion is ignored')
    try:
        visible, thermal = (
            _model(infos[source], source, size, files is None and source in images.rectified)
            for source, size in zip(SOURCES, images.sizes, strict=True)
        )
    except RegistrationError as error:
        if files is not None:
            raise UsageError(f'the camera models cannot be used: {error}') from error
        report(f'warning: camera_info is not used: {error}')
        return CameraModels(None, None, 'not used, see the warning; distortion is ignored')
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
            f'the {source} camera is calibrated for {ImageWindow.from_camera_info(info)}, but its '
            f'images have {size[0]}x{size[1]}'
        )
    return model


def load_camera(path: Path) -> Any:
    """
    Read a calibration file of ROS's camera_calibration into an object like CameraInfo.

    :raises RegistrationError: it cannot be read.
    :raises UsageError: a field is missing.
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
            f'{path} is not a ROS calibration file, with image_width, image_height, '
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


@dataclass(frozen=True)
class Estimate:
    """
    A homography and how good it is.

    :param matrix: (3, 3) from thermal to visible pixels, undistorted if there are camera models.
    :param method: 'images', 'points' or 'board'.
    :param facts: (name, text) to print and to store.
    :param reasons: why not to trust it.
    :param used: indices of the pairs that it was estimated from.
    :param checks: indices of the pairs to check it with.
    :param points: by index of a pair, or -1 for all pairs: visible and thermal points, (N, 2)
        each, in pixels of the original images.
    :param advice: what else to try with these images; empty if there is nothing.
    """

    matrix: Array
    method: str
    facts: tuple[tuple[str, str], ...]
    reasons: tuple[str, ...]
    used: tuple[int, ...]
    checks: tuple[int, ...]
    points: Mapping[int, tuple[Array, Array]] = field(default_factory=dict)
    advice: str = ''


def from_images(
    images: CalibrationImages,
    cameras: CameraModels,
    number: int,
    width: float | None = None,
    model: Model = 'homography',
) -> Estimate:
    """
    Estimate from the images alone.

    If the corners of a homography are too uncertain, but those of a similarity are not, it advises
    the similarity: only the user knows whether the cameras look in the same direction.

    :param number: of frames, at most.
    :param width: fraction of the visible image's width that the thermal one covers, if known.
    :param model: what to estimate.
    :raises UsageError: the images have no edges.
    """
    used, checks = choose_frames(images.pairs, number)
    if not used:
        raise UsageError(
            f'{images.place} shows nothing in one of the cameras: both images need edges'
        )
    chosen = [cameras.undistorted_pair(images.pairs[index]) for index in used]
    visible_size, thermal_size = images.sizes
    mask = None
    if cameras.thermal is not None:
        seen = np.pad(np.ones((thermal_size[1] - 2, thermal_size[0] - 2), np.float32), 1)
        mask = undistorted_image(seen, cameras.thermal) > 0.99
    guess = cameras.guess
    if width is not None:
        scale = width * visible_size[0] / thermal_size[0]
        guess = centred_guess(visible_size, thermal_size, scale)
    report(f'aligning {counted(len(chosen), "frame")}, which takes some seconds')
    found = align(chosen, guess=guess, thermal_mask=mask, model=model)
    advice = ''
    if model == 'homography' and found.uncertainty.reason(max(thermal_size)):
        report('the corners are uncertain; trying a similarity')
        other = align(chosen, guess=guess, thermal_mask=mask, model='similarity')
        if other.trusted:
            advice = (
                '--model similarity, if both cameras look in the same direction within about 1 '
                f'degree (its corners are known to {other.uncertainty.total:.2f} thermal pixels)'
            )
    matrix, spread = found.thermal_to_visible, found.uncertainty.total
    scale = _scale(matrix, thermal_size)
    known = f'{spread:.2f} thermal pixels ({spread * scale:.2f} visible)'
    what = 'from the images' if model == 'homography' else 'a similarity from the images'
    facts = (
        ('method', f'{what}, {counted(len(used), "frame")} of {images.total}'),
        ('residual', f'corners known to {known}'),
        ('match', f'score {found.score:.3f}, {found.margin:.0%} above the next best place'),
    )
    return Estimate(
        matrix, 'images', facts, found.reasons, tuple(used), tuple(checks), advice=advice
    )


def from_points(
    points: Array, images: CalibrationImages, cameras: CameraModels, number: int
) -> Estimate:
    """
    Estimate from points marked by hand, (N, 4); at most ``number`` pairs are kept to check it.

    :raises UsageError: the points determine no homography.
    """
    visible, thermal = points[:, :2], points[:, 2:]
    fit = fit_points(*cameras.undistorted(visible, thermal), images.sizes, _CLICK_SIGMA)
    facts = [('method', f'from {len(points)} points marked by hand'), *fit.facts()]
    for index, (row, error) in enumerate(zip(points, fit.errors, strict=True), start=1):
        place = f'({row[0]:g}, {row[1]:g}) - ({row[2]:g}, {row[3]:g})'
        state = '' if fit.inside[index - 1] else ', left out'
        facts.append((f'point {index}', f'{place}: {error:.2f} thermal pixels{state}'))
    if len(points) == 4:
        report('warning: a homography fits any four points, so nothing checks them: mark more')
    used, checks = choose_frames(images.pairs, number)
    order = tuple(sorted((*used, *checks)))
    return Estimate(
        fit.matrix, 'points', tuple(facts), fit.reasons(), (), order, {-1: (visible, thermal)}
    )


def from_checkerboard(
    board: tuple[int, int], images: CalibrationImages, cameras: CameraModels
) -> Estimate:
    """
    Estimate from the corners of a checkerboard.

    :param board: inner corners along a row and along a column.
    :raises UsageError: no frame shows it in both images.
    """
    seen = dict.fromkeys(SOURCES, 0)
    corners: dict[int, tuple[Array, Array]] = {}
    for index, pair in enumerate(images.pairs):
        found = [find_board(getattr(pair, source), board) for source in SOURCES]
        for source, points in zip(SOURCES, found, strict=True):
            seen[source] += points is not None
        visible, thermal = found
        if visible is not None and thermal is not None:
            corners[index] = visible, matching_order(visible, thermal, board)
    total = len(images.pairs)
    text = (
        f'found in {seen["visible"]} visible and {seen["thermal"]} thermal images of {total}, in '
        f'both of {counted(len(corners), "frame")}'
    )
    if not corners:
        raise UsageError(
            f'no frame shows the board of {board[0]}x{board[1]} inner corners in both images: '
            f'{text}; for the thermal camera, its squares must differ in temperature'
        )
    groups = np.repeat(list(corners), board[0] * board[1])
    visible, thermal = (np.concatenate(points) for points in zip(*corners.values(), strict=True))
    ideal = cameras.undistorted(visible, thermal)
    fit = fit_points(*ideal, images.sizes, _CORNER_SIGMA, groups)
    facts = [('method', f'from a checkerboard, {text}'), *fit.facts()]
    for index in corners:
        errors = fit.errors[groups == index]
        residual = f'RMS {rms(errors):.2f} thermal pixels, worst {errors.max():.2f}'
        facts.append((f'frame {images.pairs[index].name}', residual))
    others = tuple(index for index in range(total) if index not in corners)
    return Estimate(
        fit.matrix, 'board', tuple(facts), fit.reasons(), tuple(corners), others, corners
    )


def _scale(matrix: Array, size: Size) -> float:
    """Return visible pixels per thermal pixel at the centre of the thermal image."""
    centre = (np.array(size) - 1) / 2
    square = apply_homography(matrix, centre + np.array([[0, 0], [1, 0], [0, 1]]))
    sides = square[1:] - square[0]
    return math.sqrt(abs(float(np.linalg.det(sides))))


def left_over(
    estimate: Estimate, images: CalibrationImages, placement: Placement
) -> tuple[str, str]:
    """
    Measure the misalignment that is left in frames that the estimate has not used.

    :return: what to report, and why not to trust the estimate (empty if nothing is wrong).
    """
    pairs = [images.pairs[index] for index in estimate.checks]
    if not pairs:
        return 'not measured: there are no other frames', ''
    monitor = MisalignmentMonitor(len(pairs))
    for pair in pairs:
        thermal = registered_image(pair.thermal, placement, images.sizes[0])
        found = monitor.look(pair.visible, thermal, placement.coverage)
    frames = counted(len(pairs), 'other frame' if estimate.used else 'frame')
    if not found.trusted:
        return f'cannot be measured: {frames} show too little', ''
    most = max(_MOST_LEFT_OVER * max(images.sizes[0]), _LEAST_LEFT_OVER)
    off = found.distance
    thermal_off = off / _scale(estimate.matrix, images.sizes[1])
    text = f'{off:.1f} visible pixels ({thermal_off:.1f} thermal) over {frames}'
    if off <= most:
        return text, ''
    return text, f'{frames} are off by {off:.1f} visible pixels, of at most {most:.1f}'
