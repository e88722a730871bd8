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

"""The camera_info of the visible camera, and whether it fits the image it is published with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from dig2dig_ros.images.geometry import RegistrationError, Size
from dig2dig_ros.images.image_window import ImageWindow

_VISIBLE = 'visible/camera_info'
_UNPUBLISHED = 'fused/camera_info is not published'


class OutgoingCameraInfo:
    """
    Keeps the latest camera_info of the visible camera, for the images in its pixels.

    One thread takes them in and asks for warnings; another may call :meth:`fitting`.

    :param topic: their topic, for warnings.
    :param is_wanted: whether fused/camera_info has subscribers.
    """

    def __init__(
        self, topic: str = _VISIBLE, is_wanted: Callable[[], bool] = lambda: False
    ) -> None:
        self._topic = topic or _VISIBLE
        self._is_wanted = is_wanted
        self.reset(0.0)

    def reset(self, now: float) -> None:
        """Forget all messages; times are seconds."""
        self._began = now
        self._latest: Any = None
        # When it last could not be published, and why; replaced as a whole.
        self._misfit = (-float('inf'), '')

    def take(self, message: Any) -> None:
        """Take in a ``sensor_msgs/CameraInfo``."""
        self._latest = message

    def fitting(self, size: Size, is_visible: bool, now: float) -> Any:
        """
        Return the camera_info for an image, or None if none fits.

        :param size: (width, height) of the image.
        :param is_visible: whether the image is in the pixels of the visible camera.
        """
        message = self._latest
        if message is None:
            return None
        reason = _misfit(message, size, is_visible, self._topic)
        if not reason:
            return message
        self._misfit = (now, f'{_UNPUBLISHED}: {reason}')
        return None

    def warning(self, values: Mapping[str, Any], now: float) -> str:
        """Return the current problem; empty if there is none."""
        timeout = values['stale_timeout']
        if self._latest is None:
            if now - self._began > timeout and self._is_wanted():
                return f'{_UNPUBLISHED}, though it has subscribers: none came on {self._topic}'
            return ''
        moment, reason = self._misfit
        return reason if now - moment < timeout else ''

    def describe(self, now: float, timeout: float) -> str:
        """Return the entry for diagnostics."""
        message = self._latest
        if message is None:
            return f'none has come on {self._topic}: {_UNPUBLISHED}'
        moment, reason = self._misfit
        if now - moment < timeout:
            return reason
        if _is_uncalibrated(message):
            return f'that of {self._topic}, which is not calibrated'
        try:
            return f'that of {self._topic}, for {ImageWindow.from_camera_info(message)}'
        except RegistrationError as error:
            return f'{_UNPUBLISHED}: {self._topic} contradicts itself: {error}'


def _is_uncalibrated(message: Any) -> bool:
    """Return whether the camera is uncalibrated, as camera_info_manager reports it."""
    return not (message.width or message.height or any(message.k))


def _misfit(message: Any, size: Size, is_visible: bool, topic: str) -> str:
    """Return why a camera_info does not fit an image; empty if it does."""
    if not is_visible:
        return f'no visible image has come yet, and {topic} is not of the thermal camera'
    if _is_uncalibrated(message):
        return ''
    try:
        window = ImageWindow.from_camera_info(message)
    except RegistrationError as error:
        return f'{topic} contradicts itself: {error}'
    if window.size == size:
        return ''
    return (
        f'{topic} is for {window}, but the visible images have {size[0]}x{size[1]}: have the '
        'driver set roi and binning, or calibrate the camera at this size'
    )
