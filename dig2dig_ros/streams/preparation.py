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
From the messages of a group to the input of the fuser, and from fused images to pixels.

`values` are the node's parameters by name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from dig2dig_ros.fusion.degradation import Degradation
from dig2dig_ros.images.bit_depth import BitDepth
from dig2dig_ros.images.geometry import RegistrationError, size_of, stretch_text
from dig2dig_ros.images.image_pairs import same_picture
from dig2dig_ros.images.luma import LUMA_BGR
from dig2dig_ros.images.no_data import filled, NoData, placement_of_data
from dig2dig_ros.images.overlay import weight_map
from dig2dig_ros.images.placement import Placement
from dig2dig_ros.images.sensor_noise import SensorNoise
from dig2dig_ros.images.thermal_range import ThermalRange, ThermalRangeError, without_rows
from dig2dig_ros.streams.codec import decode, decode_compressed
from dig2dig_ros.streams.noise_watch import NoiseWatch
from dig2dig_ros.streams.pairing import Group
from dig2dig_ros.streams.registrar import Registrar
from dig2dig_ros.streams.sensor_watch import Condition, SensorWatch

if TYPE_CHECKING:
    from dig2dig_ros.fusion.fuser import FusionResult

_NANOSECONDS = 1_000_000_000
# Grey levels that are enough for a scene, even if something hot takes most of them.
_ENOUGH_LEVELS = 64
_SAME_PICTURE = (
    '{0} images are those of the visible camera: give {0}/image_raw the topic of its own camera'
)


class PreparationError(ValueError):
    """
    A group of messages cannot be prepared for the fusion.

    :ivar cause: as the node counts it: 'registration', or 'thermal refused' and the like.
    :ivar source: of the image that cannot be used.
    """

    def __init__(self, cause: str, source: str, reason: str) -> None:
        super().__init__(reason)
        self.cause = cause
        self.source = source


@dataclass(frozen=True)
class ArrivedImage:
    """
    An image of one source on its way to the fusion.

    :param message: a ``sensor_msgs/Image`` or a ``CompressedImage``.
    :param stamp: the camera's, in nanoseconds.
    :param arrival: in nanoseconds of a steady clock; in a recording, the recording time.
    :param topic: where it came from, for messages.
    """

    source: str
    message: Any
    stamp: int
    arrival: int = 0
    topic: str = ''

    @property
    def compressed(self) -> bool:
        """Whether it is a ``CompressedImage``."""
        return not hasattr(self.message, 'encoding')

    @property
    def is_jpeg(self) -> bool:
        """Whether its first bytes are those of a JPEG."""
        return self.compressed and bytes(self.message.data[:3]) == b'\xff\xd8\xff'


Work = Group[ArrivedImage]
"""The images for one fused image: one of each source, or of one that continues alone."""


@dataclass(frozen=True)
class Prepared:
    """
    Input of ``fuser.fuse(*images, placements=placements, trust=trust, noise=noise)``.

    :param images: one for each source, visible first, see :class:`SourceImages`.
    :param placements: where the pixels of the visible image lie in each; None if it covers all.
    :param trust: in each source, 0 to 1.
    :param present: whether the image of each source is its own, not a black one in its place.
    :param left_out: why a group continues without one of its images; None if it has all.
    :param noise: of each source, smoothed over time; None if it was not measured.
    """

    images: tuple[NDArray[Any], ...]
    placements: tuple[Placement | None, ...]
    trust: tuple[float, ...]
    present: tuple[bool, ...]
    left_out: PreparationError | None = None
    noise: tuple[SensorNoise | None, ...] = ()


def stamp_of(header: Any) -> int:
    """Return the stamp in a ``std_msgs/Header`` in nanoseconds."""
    return int(header.stamp.sec) * _NANOSECONDS + int(header.stamp.nanosec)


class SourceImages:
    """
    From the messages of all sources to the images for the fuser.

    Thermal counts become intensities by a range that follows the scene; each source has its own
    range, and a watch for faults of its camera. Frames must come in order; not thread-safe, but
    :attr:`conditions` and :attr:`changes` may be read from any thread.

    :ivar conditions: of the latest image of each source.
    :ivar no_data: the pixels without a measurement in the latest image of each source; None if
        all pixels are measured.
    """

    def __init__(self) -> None:
        self.no_data: dict[str, NoData | None] = {}
        self._ranges: dict[str, tuple[tuple[Any, ...], ThermalRange]] = {}
        self._watches: dict[str, SensorWatch] = {}
        self._depths: dict[str, BitDepth] = {}
        self.conditions: dict[str, Condition] = {}

    def clear(self) -> None:
        """Forget the past: the next frame of each source sets its own range."""
        self._ranges.clear()
        self._watches.clear()
        self._depths.clear()
        self.conditions = {}
        self.no_data = {}

    @property
    def changes(self) -> Counter[str]:
        """How often the resolution and the encoding of each source changed, by its name."""
        return Counter(
            {
                f'{source} {what}': count
                for source, watch in tuple(self._watches.items())
                for what, count in watch.changes.items()
            }
        )

    def table(self, missing: Collection[str]) -> dict[str, str]:
        """
        Return each camera's condition for diagnostics.

        :param missing: the sources that send nothing now.
        """
        table = {}
        for source, condition in self.conditions.items():
            gone = source in missing
            table[f'{source} trust'] = f'{0.0 if gone else condition.trust:.2f}'
            kinds = ', '.join(condition.kinds) or 'sound'
            table[f'{source} condition'] = 'missing' if gone else kinds
            found = self.no_data.get(source)
            if found is not None and not gone:
                table[f'{source} without data (%)'] = f'{100 * found.mask.mean():.1f}'
        table.update({what: str(count) for what, count in sorted(self.changes.items())})
        return table

    def note(self, source: str, kind: str, text: str) -> None:
        """Add a fault of a source that only shows in comparison with others."""
        condition = self.conditions[source]
        noted = replace(
            condition, faults=(*condition.faults, text), kinds=(*condition.kinds, kind)
        )
        self.conditions = {**self.conditions, source: noted}

    def missing(self, source: str, values: Mapping[str, Any]) -> None:
        """Note that a source is missing: when it is back, trust in it grows gradually."""
        self._watch(source, values).lose_trust()

    def __call__(self, image: ArrivedImage, stamp: int, values: Mapping[str, Any]) -> NDArray[Any]:
        """
        Decode a message, check its camera for faults, and map its counts to intensities.

        Visible images, and 8-bit images of additional sources, stay unchanged, except that a
        visible image with a dead colour channel becomes grey, from the other channels.

        :param stamp: in nanoseconds, as the pairing compared it.
        :return: (H, W) or (H, W, 3) in blue-green-red order; uint8, uint16 or float32 in [0, 1].
        :raises CodecError: the message is damaged or of an unknown encoding.
        :raises ThermalRangeError: the image is not thermal.
        """
        source, message = image.source, image.message
        read = decode_compressed if image.compressed else decode
        depth = self._depth(source, values)
        array = read(message, image.topic, max_pixels=values['max_pixels'], depth=depth)
        texts = _few_levels(image, array)
        if source == 'visible' and array.dtype == np.uint16:
            array = depth.full_scale(array)
        if source != 'thermal' and (said := depth.sentence(source)):
            texts['few bits'] = said
        if source == 'thermal':
            array = without_rows(array, values['thermal_crop'])
        seconds = stamp / _NANOSECONDS
        encoding = message.format if image.compressed else message.encoding

        def watch(found: NoData | None) -> Condition:
            moves = source == 'visible' or self._moves('visible')
            mask = None if found is None else found.mask
            condition = self._watch(source, values)(array, seconds, moves, encoding, mask)
            self.no_data = {**self.no_data, source: found}
            said = _with_no_data(condition, found, source)
            said = replace(
                said, faults=(*said.faults, *texts.values()), kinds=(*said.kinds, *texts)
            )
            self.conditions = {**self.conditions, source: said}
            return condition

        if source == 'visible' or (source != 'thermal' and array.dtype == np.uint8):
            condition = watch(None)
            return _living_grey(array, condition.dead_channels) if source == 'visible' else array
        ranges = self._range(source, values)
        try:
            mapped = ranges(array, seconds)
        except ThermalRangeError:
            watch(None)
            raise
        found = ranges.no_data
        watch(found)
        return mapped if found is None else filled(mapped, found.mask)

    def _depth(self, source: str, values: Mapping[str, Any]) -> BitDepth:
        """Return the estimate of the bits in use, before the next image of a source."""
        stated = values['visible_bits'] if source == 'visible' else 0
        depth = self._depths.get(source)
        if depth is None or depth.stated != stated:
            depth = self._depths[source] = BitDepth(stated)
        depth.bits = 16  # an image of 8 bits uses them all
        return depth

    def _moves(self, source: str) -> bool:
        return source not in self._watches or self._watches[source].moves

    def _watch(self, source: str, values: Mapping[str, Any]) -> SensorWatch:
        """Return the watch of a source; a new one after a change of its parameters."""
        # Two visible images may well be equal: a still scene in eight bits.
        timeout = values['frozen_timeout'] if source != 'visible' else 0.0
        watch = self._watches.get(source)
        if watch is None or watch.frozen_timeout != timeout:
            watch = self._watches[source] = SensorWatch(source, frozen_timeout=timeout)
        return watch

    def _range(self, source: str, values: Mapping[str, Any]) -> ThermalRange:
        """Return the range of a source; a new one after a change of its parameters."""
        key = (
            values['thermal_range'],
            tuple(values['thermal_range_percentiles']),
            tuple(values['thermal_range_limits']),
            values['thermal_range_smoothing'],
            values['thermal_polarity'],
        )
        if source not in self._ranges or self._ranges[source][0] != key:
            mode, percentiles, limits, smoothing, polarity = key
            range_ = ThermalRange(mode, percentiles, limits, smoothing, polarity=polarity)
            self._ranges[source] = (key, range_)
        return self._ranges[source][1]


class Preparation:
    """
    From the messages of a group to the input of the fuser.

    :param sources: their names, visible and thermal first.
    :param registrar: gives the placement of the thermal image.
    :ivar images: decodes, watches and maps; see :class:`SourceImages`.
    :ivar visible_size: (width, height) of the latest visible image, which a thermal image alone
        is mapped to.
    """

    def __init__(self, sources: Sequence[str], registrar: Registrar) -> None:
        self._sources = tuple(sources)
        self._registrar = registrar
        self.images = SourceImages()
        self._noise: dict[str, NoiseWatch] = {}
        self.visible_size: tuple[int, int] | None = None
        # For each source whose images have pixels without data.
        self._of_data: dict[str, tuple[NoData, tuple[object, ...], Placement]] = {}

    def noise_table(self) -> dict[str, str]:
        """Return the noise of each source for diagnostics."""
        table = {}
        for source, watch in tuple(self._noise.items()):
            table.update(watch.table(source))
        return table

    def __call__(self, work: Work, values: Mapping[str, Any]) -> Prepared:
        """
        Prepare one message of each source, in their order, or that of one camera alone.

        If the visible or the thermal image cannot be used, ``missing_modality`` decides whether
        the other one continues alone, as if that camera had sent nothing: the other images are
        black, with trust 0.

        :raises PreparationError: one of them is refused, or the registration does not fit, and
            no image continues alone.
        """
        images = list(zip(work.messages, work.stamps, strict=True))
        if len(images) == 1:
            ((only, stamp),) = images
            return self._alone(only.source, self._image(only, stamp, values), stamp, values)
        arrays: list[NDArray[Any]] = []
        try:
            for image, stamp in images:
                arrays.append(self._image(image, stamp, values))
            placement = self._placement(size_of(arrays[0]), size_of(arrays[1]), values)
        except PreparationError as error:
            others = [each for each in images[:2] if each[0].source != error.source]
            (other, stamp) = others[0]
            if len(others) > 1 or values['missing_modality'] not in (other.source, 'any'):
                raise
            is_decoded = other.source == 'visible'
            array = arrays[0] if is_decoded else self._image(other, stamp, values)
            return self._alone(other.source, array, stamp, values, left_out=error)
        self.visible_size = size_of(arrays[0])
        trust = tuple(self.images.conditions[source].trust for source in self._sources)
        placed = (None, placement, *[None] * (len(arrays) - 2))
        for source, array, each in zip(self._sources, arrays, placed, strict=True):
            self._note_shape(source, array, each)
            if source != 'visible' and same_picture(arrays[0], array):
                self.images.note(source, 'visible image', _SAME_PICTURE.format(source))
        placements = tuple(
            self._where_measured(source, each, self.visible_size, values)
            for source, each in zip(self._sources, placed, strict=True)
        )
        noise = tuple(
            self._noise_of(source, array, stamp, values)
            for source, array, stamp in zip(self._sources, arrays, work.stamps, strict=True)
        )
        return Prepared(tuple(arrays), placements, trust, (True,) * len(arrays), noise=noise)

    def _alone(
        self,
        live: str,
        array: NDArray[Any],
        stamp: int,
        values: Mapping[str, Any],
        left_out: PreparationError | None = None,
    ) -> Prepared:
        placement = None
        if live == 'visible':
            size = self.visible_size = size_of(array)
        else:
            visible_size = self.visible_size or self._registrar.visible_size(values)
            size = visible_size or size_of(array)
            if visible_size is not None:
                placement = self._placement(visible_size, size_of(array), values)
                self._note_shape('thermal', array, placement)
            placement = self._where_measured('thermal', placement, size, values)
        for source in self._sources:
            if source != live:
                self.images.missing(source, values)
        black = np.zeros((size[1], size[0]), np.uint8)
        return Prepared(
            tuple(array if source == live else black for source in self._sources),
            tuple(placement if source == 'thermal' else None for source in self._sources),
            tuple(float(source == live) for source in self._sources),
            tuple(source == live for source in self._sources),
            left_out,
            tuple(
                self._noise_of(source, array, stamp, values) if source == live else None
                for source in self._sources
            ),
        )

    def _note_shape(self, source: str, array: NDArray[Any], placement: Placement | None) -> None:
        """Note an image that was stretched to the shape of the visible one."""
        size = self.visible_size
        if placement is None and size is not None and size_of(array) != size:
            text = stretch_text(size_of(array), size)
            if text:
                self.images.note(source, 'stretched', f'{source} images of {text}')

    def _where_measured(
        self,
        source: str,
        placement: Placement | None,
        size: tuple[int, int],
        values: Mapping[str, Any],
    ) -> Placement | None:
        """Return the placement of a source, without the pixels that hold no data."""
        found = self.images.no_data.get(source)
        if found is None:
            return placement
        edge = values['registration_edge']
        key = (placement, size, edge)
        known = self._of_data.get(source)
        # The same object as long as it holds: it is uploaded, and compared, by identity.
        if known is None or known[1] != key or not np.array_equal(known[0].mask, found.mask):
            made = placement_of_data(found.mask, placement, size, edge)
            known = self._of_data[source] = (found, key, made)
        return known[2]

    def _noise_of(
        self, source: str, array: NDArray[Any], stamp: int, values: Mapping[str, Any]
    ) -> SensorNoise | None:
        declared = values.get(f'fusion.{source}_degradation')
        if declared is None:  # an additional source
            return None
        watch = self._noise.setdefault(source, NoiseWatch())
        return watch(array, stamp / _NANOSECONDS, Degradation.parse(declared))

    def _image(self, image: ArrivedImage, stamp: int, values: Mapping[str, Any]) -> NDArray[Any]:
        try:
            return self.images(image, stamp, values)
        except Exception as error:  # any error in a message must name its source
            source = image.source
            reason = str(error) if isinstance(error, ValueError) else repr(error)
            raise PreparationError(f'{source} refused', source, reason) from error

    def _placement(
        self,
        visible_size: tuple[int, int],
        thermal_size: tuple[int, int],
        values: Mapping[str, Any],
    ) -> Placement | None:
        try:
            return self._registrar(visible_size, thermal_size, values)
        except RegistrationError as error:
            raise PreparationError('registration', 'thermal', str(error)) from error


def registered_image(
    image: NDArray[Any], placement: Placement | None, visible_size: tuple[int, int]
) -> NDArray[Any]:
    """
    Warp a prepared image to the pixels of the visible one, to view or compare them.

    The fuser does the same on its own device.

    :param placement: of the image; None if it covers the visible one.
    :param visible_size: (width, height).
    :return: with the type and channels of ``image``; outside of it, its border is continued.
    """
    if placement is None:
        if size_of(image) == visible_size:
            return image
        return np.asarray(cv2.resize(image, visible_size, interpolation=cv2.INTER_LINEAR))
    size = np.array(size_of(image), np.float32)
    position = (placement.grid + 1) * (size / 2) - np.float32(0.5)
    return np.asarray(
        cv2.remap(image, position, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    )


def registered_images(
    images: Sequence[NDArray[Any]],
    placements: Sequence[Placement | None],
    visible_size: tuple[int, int],
) -> tuple[NDArray[Any], ...]:
    """
    Warp the images that have a placement to the pixels of the visible one; the others stay.

    :param placements: of each image; empty if none has one.
    :param visible_size: (width, height).
    """
    return tuple(
        registered_image(image, placement, visible_size) if placement else image
        for image, placement in zip(images, placements or [None] * len(images), strict=True)
    )


@dataclass(frozen=True)
class FusedFrame:
    """
    A fused image and its sources.

    :param camera_info: the latest of the visible camera by then, or None.
    :param frame_id: of the visible camera, also if the thermal image continues alone.
    """

    work: Work
    prepared: Prepared
    result: FusionResult
    camera_info: Any
    frame_id: str

    @property
    def header(self) -> Any:
        """The header of the visible image, or of the one that continues alone."""
        return self.work.messages[0].message.header

    @property
    def arrival(self) -> int:
        """When the last of the images arrived, see :class:`ArrivedImage`."""
        return max(image.arrival for image in self.work.messages)

    @property
    def waited(self) -> int:
        """Nanoseconds from the arrival of its first image to that of its last."""
        return self.arrival - min(image.arrival for image in self.work.messages)

    @cached_property
    def images(self) -> tuple[NDArray[Any], ...]:
        """The images as the fuser got them, warped to the visible one by their registration."""
        prepared = self.prepared
        return registered_images(prepared.images, prepared.placements, size_of(self.result.image))


def _few_levels(image: ArrivedImage, array: NDArray[Any]) -> dict[str, str]:
    """Return the warning, by its kind, about 16 bits of which JPEG left next to nothing."""
    if array.dtype != np.uint16 or not image.is_jpeg:
        return {}
    levels = np.count_nonzero(np.bincount((array >> 8).reshape(-1)))
    if levels >= _ENOUGH_LEVELS:
        return {}
    return {
        'few levels': f'JPEG left {levels} levels of the {image.source} image: use png, which '
        'keeps 16 bits (png is a format of image_transport), or raw'
    }


def _with_no_data(condition: Condition, found: NoData | None, source: str) -> Condition:
    """Return a condition with what was taken as no data; it does not affect trust."""
    if found is None:
        return condition
    texts = found.sentences(source)
    kinds = ('no data',) * bool(found.values) + ('rows that are not image',) * any(found.rows)
    kinds += ('black bars',) * any(found.bars)
    return replace(condition, faults=(*condition.faults, *texts), kinds=(*condition.kinds, *kinds))


def _living_grey(image: NDArray[Any], dead_channels: Sequence[int]) -> NDArray[Any]:
    """Return an image with dead channels as grey, from the luma of the others."""
    if not dead_channels or image.ndim != 3:
        return image
    shares = np.array(LUMA_BGR)
    shares[list(dead_channels)] = 0.0
    if not shares.any():
        return image
    grey = cv2.transform(image, (shares / shares.sum()).astype(np.float32)[None])
    return np.asarray(grey)


def fused_picture(image: NDArray[np.uint8], encoding: str) -> NDArray[np.uint8]:
    """
    Return a fused or restored image with the channels that ``encoding`` needs.

    :param image: (H, W), or (H, W, 3) in blue-green-red order.
    :param encoding: ``mono8``, ``bgr8`` or ``rgb8``.
    :return: (H, W) for ``mono8``, else (H, W, 3), still in blue-green-red order.
    """
    if image.ndim == 2 and encoding != 'mono8':
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2BGR))
    if image.ndim == 3 and encoding == 'mono8':
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY))
    return image


def weight_plane(weights: NDArray[np.float32], encoding: str) -> NDArray[Any]:
    """
    Return the weights of one source in an encoding.

    :param weights: (H, W) in [0, 1].
    :param encoding: ``32FC1``, or ``mono8`` for weight x 255.
    """
    return weights if encoding == '32FC1' else weight_map(weights)
