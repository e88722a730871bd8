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

"""The current registration of the thermal camera: from a file, or from both camera_info."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
import math
from typing import Any

import numpy as np

from dig2dig_ros.images.camera_model import CameraModel
from dig2dig_ros.images.geometry import Array, RegistrationError, Size
from dig2dig_ros.images.image_window import ImageWindow, window_values
from dig2dig_ros.images.placement import Placement
from dig2dig_ros.images.registration import plane_error, Registration
from dig2dig_ros.images.registration_file import load_extrinsics, load_registration
from dig2dig_ros.streams.pairing import SOURCES

Pose = tuple[Array, Array]
"""Rotation (3, 3) and translation (3,) in m: of the thermal optical frame in the visible one."""

FROM_TF = 'tf'
# In m, the distances at which diagnostics give the parallax.
_DISTANCES = (2.0, 5.0, math.inf)


class Registrar:
    """
    Maps the pixels of the visible image into the thermal one.

    Not thread-safe, except for :meth:`camera_info` and :attr:`doubts`.

    :param values: the node's parameters by name.
    :param look_up: for ``extrinsics: tf``: returns the pose of one frame (its second argument) in
        another, or raises :class:`RegistrationError`.
    :ivar wants_camera_info: whether the camera_info of both cameras is needed.
    :ivar doubts: implausible inputs of the registration, in sentences.
    :raises RegistrationError: a file cannot be used, or the parameters contradict each other.
    """

    def __init__(
        self, values: Mapping[str, Any], look_up: Callable[[str, str], Pose] | None = None
    ) -> None:
        path, extrinsics = values['thermal_to_visible'], values['extrinsics']
        if path and extrinsics:
            raise RegistrationError(
                'both thermal_to_visible and extrinsics are given: one is a homography, the other '
                'computes it from camera_info; leave one empty'
            )
        if extrinsics == FROM_TF and look_up is None:
            raise RegistrationError(
                'extrinsics: tf needs a running node with tf2: give the path of a YAML file here'
            )
        self._file = load_registration(path) if path else None
        self.wants_camera_info = bool(extrinsics)
        self._rectified = bool(values['rectified'])
        self._pose = load_extrinsics(extrinsics) if extrinsics not in ('', FROM_TF) else None
        self._look_up = look_up
        self._infos: dict[str, Any] = {}
        self._made: tuple[tuple[Any, ...], Registration] | None = None
        self._placed: tuple[tuple[Any, ...], Placement] | None = None
        self.doubts: tuple[str, ...] = ()

    def camera_info(self, source: str, message: Any) -> None:
        """Take in a ``sensor_msgs/CameraInfo`` of 'visible' or 'thermal'."""
        known = self._infos.get(source)
        if self.wants_camera_info and (known is None or not _same_camera(known, message)):
            self._infos[source] = message

    def registration(self, values: Mapping[str, Any]) -> Registration | None:
        """
        Return the registration, or None if the images are taken as aligned.

        :raises RegistrationError: not everything that it is computed from has come yet.
        """
        registration = self._from_cameras(values) if self.wants_camera_info else self._file
        if registration is not None:
            _check_pixels(registration, values['max_pixels'])
        return registration

    def _from_cameras(self, values: Mapping[str, Any]) -> Registration:
        for source in SOURCES:
            if source not in self._infos:
                raise RegistrationError(
                    f'extrinsics are given, but no {source}/camera_info has come yet: the '
                    'registration is computed from it'
                )
        visible, thermal = infos = [self._infos[source] for source in SOURCES]
        pose = self._pose
        if pose is None:
            assert self._look_up is not None
            pose = self._look_up(visible.header.frame_id, thermal.header.frame_id)
        distance = values['plane_distance']
        key = (*infos, tuple(pose[1]), pose[0].tobytes(), distance)
        if self._made is None or not _same_key(self._made[0], key):
            models = self._model('visible', visible), self._model('thermal', thermal)
            self.doubts = tuple(_doubts(visible, thermal, pose, from_tf=self._pose is None))
            self._made = key, Registration.from_cameras(*models, *pose, distance)
        return self._made[1]

    def _model(self, source: str, info: Any) -> CameraModel:
        try:
            return CameraModel.from_camera_info(info, self._rectified)
        except RegistrationError as error:
            raise RegistrationError(f'{source}/camera_info: {error}') from error

    def visible_size(self, values: Mapping[str, Any]) -> Size | None:
        """Return the size of the visible images that the registration is for, if known."""
        try:
            registration = self.registration(values)
        except RegistrationError:
            return None
        return None if registration is None else registration.visible_size

    def describe(self, values: Mapping[str, Any]) -> str:
        """Return the registration for diagnostics."""
        if self._file is not None:
            return f'from {values["thermal_to_visible"]}'
        if not self.wants_camera_info:
            return 'none: the images are taken as aligned'
        if self._made is None:
            return 'waits for camera_info or tf'
        registration, translation = self._made[1], self._made[0][2]
        assert registration.visible_camera is not None
        plane = values['plane_distance']
        try:
            far = ', '.join(
                f'{plane_error(registration.visible_camera, translation, plane, d):.1f} px at '
                f'{d:g} m'
                for d in _DISTANCES
            )
        except RegistrationError:  # too far apart to see anything so near in both
            return f'from camera_info, right at {plane:g} m'
        return f'from camera_info, right at {plane:g} m (off by {far})'

    def __call__(
        self, visible_size: Size, thermal_size: Size, values: Mapping[str, Any]
    ) -> Placement | None:
        """
        Return the placement of the thermal image, or None if it covers the visible one.

        :param visible_size: (width, height) of the images; ``thermal_size`` likewise.
        :raises RegistrationError: the registration is for other sizes, or not known yet.
        """
        registration = self.registration(values)
        if registration is None:
            return None
        key = (registration, visible_size, thermal_size, values['registration_edge'])
        if self._placed is None or not _same_key(self._placed[0], key):
            self._check_sizes(registration, (visible_size, thermal_size))
            self._placed = key, registration.placement(values['registration_edge'])
        return self._placed[1]

    def _check_sizes(self, registration: Registration, sizes: tuple[Size, Size]) -> None:
        if self.wants_camera_info and self._made is not None:
            for source, info, size in zip(SOURCES, self._made[0], sizes, strict=False):
                window = ImageWindow.from_camera_info(info)
                if window.size != size:
                    raise RegistrationError(
                        f'{source}/camera_info is for {window}, but the images have '
                        f'{size[0]}x{size[1]}: have the driver set roi and binning, or calibrate '
                        'the camera at this size'
                    )
        registration.check_sizes(*sizes)


def _check_pixels(registration: Registration, max_pixels: int) -> None:
    """Raise before an image or a placement of an absurd size takes memory."""
    for source, size in zip(
        SOURCES, (registration.visible_size, registration.thermal_size), strict=True
    ):
        if size[0] * size[1] > max_pixels:
            raise RegistrationError(
                f'the registration is for {source} images of {size[0]}x{size[1]}, which is more '
                f'than max_pixels, {max_pixels}: correct the size in camera_info or in the file'
            )


def _doubts(visible: Any, thermal: Any, pose: Pose, from_tf: bool) -> Iterator[str]:
    """Yield what cannot be true of two cameras."""
    frames = visible.header.frame_id, thermal.header.frame_id
    if from_tf and frames[0] == frames[1]:
        yield (
            f"extrinsics: tf, but both camera_info have frame '{frames[0]}', as if the thermal "
            'camera were where the visible one is: give each its own frame_id'
        )
    elif _same_camera(visible, thermal):
        yield (
            'visible/camera_info and thermal/camera_info are the same: remap each to the topic of '
            'its own camera'
        )
    elif from_tf and not pose[1].any() and np.array_equal(pose[0], np.eye(3)):
        yield (
            f"extrinsics: tf puts '{frames[1]}' exactly where '{frames[0]}' is: publish the "
            'measured transform between them'
        )
    if from_tf and not any('optical' in frame.lower() for frame in frames):
        yield (
            f'extrinsics: tf needs optical frames, z forward and y down (REP 103), but neither '
            f"'{frames[0]}' nor '{frames[1]}' is named like one: if they are body frames, with x "
            'forward, the thermal image is misplaced; set ..._optical_frame in camera_info'
        )


def _same_key(first: tuple[Any, ...], second: tuple[Any, ...]) -> bool:
    """Compare messages and registrations by identity, plain values by value."""
    return all(
        a is b or (isinstance(a, (int, float, tuple, bytes)) and a == b)
        for a, b in zip(first, second, strict=True)
    )


def _same_camera(first: Any, second: Any) -> bool:
    """Compare the calibrations of two camera_info, of which one comes with every image."""
    keys = ('width', 'height', 'distortion_model', 'k', 'd', 'p', 'r')
    return (
        first.header.frame_id == second.header.frame_id
        and all(np.array_equal(getattr(first, key), getattr(second, key)) for key in keys)
        and window_values(first) == window_values(second)
    )
