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
What two simulated cameras send: the synthetic street, or the pairs of a folder.

The street is rendered before the first image is sent, so that sending costs next to nothing; the
two cameras have independent rates. Both images of a pair from a folder belong to one instant, and
each keeps its size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dig2dig_ros.evaluation.camera_faults import Fault, FAULTS
from dig2dig_ros.evaluation.imperfect_cameras import (
    CameraGeometry,
    Flaws,
    ImperfectCameras,
    ImperfectionError,
    Warp,
)
from dig2dig_ros.evaluation.synthetic_scene import SceneFrame, SyntheticScene
from dig2dig_ros.fusion.parameter_spec import ParameterSpec
from dig2dig_ros.images.image_pairs import (
    find_pairs,
    ImagePair,
    ImagePairError,
    load_pair,
    unpaired,
)
from dig2dig_ros.streams.pairing import Source, SOURCES

# Rendered images, and pairs of a folder, that are held in memory.
_MEMORY, _KEPT_PAIRS = 200_000_000, 64
# More visible images than this would take long to render.
_MOST_FRAMES = 600
_SHORTEST_LOOP, _LONGEST_LOOP = 4.0, 20.0


def _rule(text: str, is_kept: Callable[[Any], bool]) -> Callable[[Any], str | None]:
    """Return a check of values that returns ``text`` if it fails."""
    return lambda value: None if is_kept(value) else text


_check_warp = _rule(
    'must be [rotation in degrees, scale, shift_x, shift_y] with a scale of 0.25 to 4 and '
    'shifts of at most 1',
    lambda value: (
        len(value) == 4
        and abs(value[0]) <= 180
        and 0.25 <= value[1] <= 4
        and max(abs(value[2]), abs(value[3])) <= 1
    ),
)
_check_size = _rule(
    'must be [width, height] in pixels, each 8 to 3840, or [0, 0]',
    lambda value: (
        len(value) == 2 and (list(value) == [0, 0] or 8 <= min(value) <= max(value) <= 3840)
    ),
)
_check_distortion = _rule(
    'must be [k1, k2], each -1 to 1',
    lambda value: len(value) == 2 and all(abs(number) <= 1 for number in value),
)


def _check_faults(value: Any) -> str | None:
    if not (isinstance(value, (list, tuple)) and all(isinstance(text, str) for text in value)):
        return "must be a list of texts, such as ['freeze thermal 5 2']"
    try:
        for text in value:
            Fault.parse(text)
    except ImperfectionError as error:
        return str(error)
    return None


# fmt: off
def _camera_parameters(source: Source) -> tuple[ParameterSpec, ...]:
    """Return the parameters of one camera's lens, sensor and driver."""
    unit, codec = ('grey levels', 'JPEG') if source == 'visible' else ('counts', 'PNG')
    return (
        ParameterSpec(f'{source}_distortion', [0.0, 0.0], f'[k1, k2] of the {source} lens, '
                      'radial, as in the model plumb_bob.', check=_check_distortion),
        ParameterSpec(f'{source}_blur', 0.0, f'Blur of the {source} lens: standard deviation in '
                      'pixels, before down-sampling.', limits=(0.0, 50.0)),
        ParameterSpec(f'{source}_noise', -1.0, f'Standard deviation of the {source} noise in '
                      f'{unit}, in place of that of the street; -1 leaves it as it is.',
                      limits=(-1.0, 10000.0)),
        ParameterSpec(f'{source}_transport', 'raw', f'compressed sends {codec} on '
                      '<topic>/compressed instead.', choices=('raw', 'compressed')),
    )


PARAMETERS: tuple[ParameterSpec, ...] = (
    ParameterSpec('directory', '', 'Folder of pairs: two folders of same-named images, or images '
                  'NAME_A and NAME_B; empty for the synthetic street.'),
    ParameterSpec('width', 640, 'Width of the street in pixels.', limits=(64, 3840)),
    ParameterSpec('height', 512, 'Height of the street in pixels.', limits=(48, 2160)),
    ParameterSpec('visible_rate', 30.0, 'Rate of the visible images in Hz; a folder is sent at '
                  'thermal_rate.', limits=(0.01, 240.0)),
    ParameterSpec('thermal_rate', 9.0, 'Rate of the thermal images in Hz.',
                  limits=(0.01, 240.0)),
    ParameterSpec('thermal_offset', 0.0, 'Seconds by which a thermal stamp is later than its '
                  'exposure.', limits=(-10.0, 10.0)),
    ParameterSpec('stamp_jitter', 0.0, 'Largest random error of every stamp in seconds, uniform '
                  'to either side.', limits=(0.0, 1.0)),
    ParameterSpec('count', 0, 'Pairs (thermal images) to send before the node ends with exit code '
                  '0; 0 never ends.', limits=(0, 2**31 - 1)),
    ParameterSpec('loop', True, 'Start the folder over after its last pair.'),
    ParameterSpec('seed', 0, 'Seed of the street and of the jitter.', limits=(0, 2**31 - 1)),
    ParameterSpec('wait_for_subscribers', 10.0, 'Longest time in seconds to wait until both image '
                  'topics have subscribers.', limits=(0.0, 3600.0)),
    ParameterSpec('min_subscribers', 1, 'Subscribers of each image topic to wait for; discovery '
                  'may find them seconds apart.', limits=(1, 100)),
    ParameterSpec('thermal_warp', [0.0, 1.0, 0.0, 0.0], '[rotation in degrees, scale, shift_x, '
                  'shift_y] of the thermal image in the visible one, shifts as fractions of its '
                  'width and height; a scale above 1 is a wider field.', check=_check_warp),
    ParameterSpec('thermal_size', [0, 0], '[width, height] in pixels of the thermal images, which '
                  'show the same field; [0, 0]: as the visible ones, or as in the folder.',
                  check=_check_size),
    *(spec for source in SOURCES for spec in _camera_parameters(source)),
    ParameterSpec('faults', [], "What goes wrong for a while: 'KIND SOURCE START DURATION' in "
                  'seconds after the first image, 0 for ever; kinds: '
                  f'{", ".join(FAULTS)}.', check=_check_faults),
)
# fmt: on

# From pixels, their encoding and their source to a message without a header.
Pack = Callable[[NDArray[Any], str, Source], Any]
# Images to send: seconds after the first one, the camera, and its image.
Schedule = Iterator[tuple[float, Source, 'Capture']]


@dataclass(frozen=True)
class Capture:
    """
    An image as it is sent, and the geometry of its camera.

    :param message: without a header.
    :param camera: of the same size.
    """

    message: Any
    camera: CameraGeometry


def loop_frames(visible_rate: float, thermal_rate: float, seconds: float) -> tuple[int, int]:
    """
    Return how many visible and thermal images make a loop of at most ``seconds``.

    Of all numbers of visible images in the upper half of that time, the one whose duration is
    nearest to a whole number of thermal images, so that both streams start over together.
    """
    most = max(1, int(visible_rate * seconds + 1e-9))

    def error(frames: int) -> float:
        thermal = frames * thermal_rate / visible_rate
        return abs(thermal - max(1, round(thermal))) / thermal_rate

    frames = min(range(most, most // 2, -1), key=lambda n: round(error(n), 9))
    return frames, max(1, round(frames * thermal_rate / visible_rate))


def imperfect_cameras(
    values: Mapping[str, Any],
    visible_size: tuple[int, int],
    thermal_size: tuple[int, int],
    with_margin: bool = False,
) -> ImperfectCameras:
    """
    Return the two cameras that the parameters describe.

    :param values: of :data:`PARAMETERS`.
    :param visible_size: (width, height) of the visible images.
    :param thermal_size: of the thermal ones, unless the parameters give it.
    :param with_margin: the scene is rendered larger than the visible image if needed.
    :raises ImperfectionError: a lens would fold its image over.
    """
    visible, thermal = (
        Flaws(
            (values[f'{source}_distortion'][0], values[f'{source}_distortion'][1]),
            values[f'{source}_blur'],
            max(0.0, values[f'{source}_noise']),
        )
        for source in SOURCES
    )
    width, height = values['thermal_size']
    return ImperfectCameras(
        visible_size,
        (width, height) if width else thermal_size,
        warp=Warp(*values['thermal_warp']),
        visible=visible,
        thermal=thermal,
        with_margin=with_margin,
        seed=values['seed'],
    )


@dataclass
class _Stream:
    """
    The images of one camera of the street, in equal time steps.

    :param rate: images per second.
    :param count: number of rendered images.
    :param step: seconds from one rendered image to the next.
    """

    rate: float
    count: int
    step: float
    images: list[Capture]

    def image(self, index: int) -> Capture:
        """Return the image to send at ``index``, in a loop."""
        return self.images[math.floor(index / self.rate / self.step + 1e-6) % self.count]


class StreetSource:
    """
    Two free-running cameras on the synthetic street, rendered beforehand.

    A limited number of pairs is rendered frame by frame if it fits into memory; anything longer is
    a seamless loop.

    :param values: of :data:`PARAMETERS`.
    :param pack: makes the messages.
    """

    def __init__(self, values: Mapping[str, Any], pack: Pack) -> None:
        self._values = values
        self._pack = pack
        self._count: int = values['count']
        self._rates: dict[Source, float] = {name: values[f'{name}_rate'] for name in SOURCES}
        size = (values['width'], values['height'])
        self._cameras = imperfect_cameras(values, size, size, with_margin=True)
        self._streams, period = self._plan(
            {
                'visible': 3 * math.prod(size),
                'thermal': 2 * math.prod(self._cameras.geometry('thermal').size),
            }
        )
        self._scene = SyntheticScene(*self._cameras.scene_size, seed=values['seed'], period=period)
        self.description = (
            f'a synthetic street of {size[0]}x{size[1]}, visible at {self._rates["visible"]:g} '
            f'Hz, thermal at {self._rates["thermal"]:g} Hz'
        )
        if not np.array_equal(self._cameras.homography, np.eye(3)):
            rows = self._cameras.homography.round(6).tolist()
            self.description += f', thermal pixel (x, y, 1) to visible pixel by {rows}'

    def _plan(self, size: Mapping[Source, int]) -> tuple[dict[Source, _Stream], float]:
        """
        Decide which images are rendered.

        :param size: bytes of an image of each camera.
        :return: the streams, and the period of the street in seconds.
        """
        rate = self._rates
        counts: dict[Source, int] = {'visible': self._visible_count(), 'thermal': self._count}
        if (
            self._count > 0
            and max(counts.values()) <= _MOST_FRAMES
            and sum(counts[source] * size[source] for source in SOURCES) <= _MEMORY
        ):
            return {s: _Stream(rate[s], counts[s], 1 / rate[s], []) for s in SOURCES}, 12.0
        # Images of the stream that needs more memory are sent twice, three times, ...
        repeat = dict.fromkeys(SOURCES, 1)
        load = {source: size[source] * rate[source] for source in SOURCES}
        while sum(load.values()) * _SHORTEST_LOOP > _MEMORY:
            heavy = max(SOURCES, key=lambda source: load[source])
            repeat[heavy] += 1
            load[heavy] = size[heavy] * rate[heavy] / repeat[heavy]
        slow = [rate[source] / repeat[source] for source in SOURCES]
        seconds = min(_LONGEST_LOOP, _MEMORY / sum(load.values()), _MOST_FRAMES / max(slow))
        frames = loop_frames(slow[0], slow[1], seconds)
        period = frames[0] / slow[0]
        streams = {
            source: _Stream(rate[source], count, period / count, [])
            for source, count in zip(SOURCES, frames, strict=True)
        }
        return streams, period

    def _visible_count(self) -> int:
        """Return how many visible images there are up to the first after the last thermal one."""
        end = (self._count - 1) / self._rates['thermal']
        return math.floor(end * self._rates['visible'] + 1e-6) + 2

    def prepare(self) -> Iterator[None]:
        """Render; yields after each frame, so that the caller can stop."""
        wanted: dict[float, list[Source]] = {}
        for source, stream in self._streams.items():
            for index in range(stream.count):
                wanted.setdefault(round(index * stream.step, 6), []).append(source)
        for moment in sorted(wanted):
            # By whether it has the noise of the cameras.
            frames: dict[bool, SceneFrame] = {}
            for source in wanted[moment]:
                noise = self._values[f'{source}_noise'] < 0
                if noise not in frames:
                    frames[noise] = self._scene.render(moment, noise)
                visible = source == 'visible'
                scene = frames[noise].visible if visible else frames[noise].thermal
                images = self._streams[source].images
                pixels = self._cameras.look(source, scene, len(images))
                message = self._pack(pixels, 'bgr8' if visible else 'mono16', source)
                images.append(Capture(message, self._cameras.geometry(source)))
            yield

    def schedule(self) -> Schedule:
        """Yield the images in the order of exposure; at equal times, the visible one first."""
        index = dict.fromkeys(SOURCES, 0)
        end: dict[Source, float] = {'visible': math.inf, 'thermal': math.inf}
        if self._count:
            end = {'visible': self._visible_count(), 'thermal': self._count}
        while True:
            running = [source for source in SOURCES if index[source] < end[source]]
            if not running:
                return
            exposure = {name: index[name] / self._streams[name].rate for name in running}
            source = min(running, key=lambda name: round(exposure[name], 9))
            yield exposure[source], source, self._streams[source].image(index[source])
            index[source] += 1


class DirectorySource:
    """
    The pairs of a folder, one after the other.

    :param values: of :data:`PARAMETERS`.
    :param pack: makes the messages.
    :param warn: called with a sentence on images that are left out.
    :raises ImagePairError: the folder holds no pairs.
    """

    def __init__(
        self, values: Mapping[str, Any], pack: Pack, warn: Callable[[str], object]
    ) -> None:
        self._pack = pack
        self._warn = warn
        directory = Path(values['directory']).expanduser()
        self._pairs = find_pairs(directory)
        self._cameras = lru_cache(maxsize=4)(partial(imperfect_cameras, values))
        self._rate = values['thermal_rate']
        self._count = values['count']
        self._loop = values['loop']
        self._noisy = max(values[f'{source}_noise'] for source in SOURCES) > 0
        self._capture = lru_cache(maxsize=_KEPT_PAIRS)(self._read)
        self.description = f'{len(self._pairs)} pairs of {directory} at {self._rate:g} Hz'
        alone = unpaired(directory)
        if alone:
            some = ', '.join(alone[:5]) + (', ...' if len(alone) > 5 else '')
            warn(f'{len(alone)} images of {directory} have no counterpart: {some}')

    def prepare(self) -> Iterator[None]:
        """Do nothing: pairs are read when they are needed."""
        return iter(())

    def schedule(self) -> Schedule:
        """
        Yield the visible and the thermal image of each pair; unreadable pairs are left out.

        :raises ImagePairError: none of the pairs can be read.
        """
        sent = 0
        for turn in itertools.count():
            readable = 0
            for index, pair in enumerate(self._pairs):
                if self._count and sent == self._count:
                    return
                frame = turn * len(self._pairs) + index
                images = self._capture(pair, frame if self._noisy else index)
                if images is None:
                    continue
                readable += 1
                for source, image in zip(SOURCES, images, strict=True):
                    yield sent / self._rate, source, image
                sent += 1
            if not readable:
                raise ImagePairError(f'none of the {len(self._pairs)} pairs can be read')
            if not self._loop:
                return

    def _read(self, pair: ImagePair, frame: int) -> tuple[Capture, Capture] | None:
        """Return a pair as the cameras see it, with the noise of a frame; None if unreadable."""
        try:
            scenes = load_pair(pair)
        except ImagePairError as error:
            self._warn(f'left out {pair.name}: {error}')
            return None
        cameras = self._cameras(*((scene.shape[1], scene.shape[0]) for scene in scenes))

        def capture(source: Source, scene: NDArray[Any], encoding: str) -> Capture:
            pixels = cameras.look(source, scene, frame)
            return Capture(self._pack(pixels, encoding, source), cameras.geometry(source))

        visible, thermal = scenes
        return (
            capture('visible', visible, 'bgr8'),
            capture('thermal', thermal, 'mono8' if thermal.dtype == np.uint8 else 'mono16'),
        )
