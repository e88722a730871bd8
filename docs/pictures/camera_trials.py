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
The synthetic street through imperfect cameras and the node's own steps, on simulated time.

What ``inspect_cameras.py`` draws; no ROS, and no clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
import math
from types import SimpleNamespace
from typing import Any, TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dig2dig_ros.evaluation.camera_faults import Alteration, Fault, FaultyCamera
from dig2dig_ros.evaluation.imperfect_cameras import CameraGeometry, ImperfectCameras
from dig2dig_ros.evaluation.synthetic_scene import Box, SyntheticScene
from dig2dig_ros.images.overlay import contribution_overlay
from dig2dig_ros.streams.codec import decode, encode
from dig2dig_ros.streams.pairing import Source, SOURCES
from dig2dig_ros.streams.parameters import complete_values, fusion_settings
from dig2dig_ros.streams.pipeline import Pipeline
from dig2dig_ros.streams.preparation import PreparationError, Prepared, Work

# Importing torch takes seconds, which a mistake in the command line need not cost.
if TYPE_CHECKING:
    from dig2dig_ros.fusion.fuser import Fuser

Image = NDArray[np.uint8]
Size = tuple[int, int]

_NANOSECONDS = 1_000_000_000
# Stamp of the first image: no driver stamps with 0.
_FIRST_STAMP = 1_000 * _NANOSECONDS
# Images a second of both cameras, where nothing else is said.
_RATE = 10.0


@dataclass(frozen=True)
class Shot:
    """
    An image on its way to the fusion.

    :param time: of the exposure and of the arrival, in seconds after the first one.
    :param stamp: what the driver says of it, in nanoseconds.
    """

    source: Source
    time: float
    stamp: int
    message: Any
    camera: CameraGeometry


@dataclass(frozen=True)
class Pixels:
    """An image (H, W[, 3]), blue first, and its encoding as ROS names it."""

    array: NDArray[Any]
    encoding: str

    def altered(self, alteration: Alteration) -> Pixels:
        """Return what a fault makes of it."""
        return Pixels(*alteration(self.array, self.encoding))


class Street:
    """
    The synthetic street, and cameras to record it with.

    :param size: (width, height) of the visible images in pixels.
    :param seed: of the street and of the noise.
    """

    def __init__(self, size: Size, seed: int) -> None:
        self.size = size
        self.seed = seed
        self._scenes: dict[Size, SyntheticScene] = {}

    def scene(self, size: Size | None = None) -> SyntheticScene:
        """Return the street at a size in pixels; by default that of the visible images."""
        size = size or self.size
        if size not in self._scenes:
            self._scenes[size] = SyntheticScene(*size, seed=self.seed)
        return self._scenes[size]

    def cameras(self, part: float = 1.0, **imperfections: Any) -> ImperfectCameras:
        """
        Return two cameras.

        :param part: thermal pixels along each side, as a part of the visible ones.
        :param imperfections: see :class:`ImperfectCameras`.
        """
        width, height = (max(8, round(part * side)) for side in self.size)
        return ImperfectCameras(
            self.size, (width, height), with_margin=True, seed=self.seed, **imperfections
        )

    def meeting(self) -> tuple[float, Box]:
        """
        Find somebody near the cameras.

        :return: seconds of the street's time at which a person in the middle part of the image
            is largest, and the box; the middle of the image where there is nobody.
        """
        width, height = self.size
        scene = self.scene()
        best, found = 0.0, (0.0, (0.35 * width, 0.2 * height, 0.65 * width, 0.9 * height))
        for moment in np.arange(0.0, scene.period, 0.5):
            for box in scene.render(float(moment), noise=False).boxes:
                x1, y1, x2, y2 = box
                if 0.3 * width < (x1 + x2) / 2 < 0.7 * width and (x2 - x1) * (y2 - y1) > best:
                    best, found = (x2 - x1) * (y2 - y1), (float(moment), box)
        return found

    def record(
        self,
        begin: float,
        times: Mapping[Source, Sequence[float]],
        cameras: ImperfectCameras | None = None,
        faults: Sequence[str] = (),
        noisy: Iterable[Source] = SOURCES,
    ) -> list[Shot]:
        """
        Record the street.

        :param begin: the street's time of second 0, in s.
        :param times: of each camera's images in seconds.
        :param faults: see :meth:`Fault.parse`.
        :param noisy: the cameras with the noise of the street's own sensors.
        :return: the images in the order of their arrival, visible first where they coincide.
        """
        cameras = cameras or self.cameras()
        scene = self.scene(cameras.scene_size)
        parsed = [Fault.parse(fault) for fault in faults]
        exposures = sorted(
            (time, SOURCES.index(source), frame)
            for source in SOURCES
            for frame, time in enumerate(times[source])
        )
        faulty = {
            source: FaultyCamera[Pixels](source, parsed, Pixels.altered, self.seed)
            for source in SOURCES
        }
        stamps = dict.fromkeys(SOURCES, 0)
        shots = []
        for time, index, frame in exposures:
            source = SOURCES[index]
            seen = scene.render(begin + time, source in noisy)
            visible = source == 'visible'
            pixels = Pixels(
                cameras.look(source, seen.visible if visible else seen.thermal, frame),
                'bgr8' if visible else 'mono16',
            )
            sent = faulty[source].send(time, pixels)
            if sent is None:
                continue
            if not sent.repeats_stamp:
                late = round((time + sent.late) * _NANOSECONDS)
                stamps[source] = _FIRST_STAMP + late
            stamp = stamps[source]
            header = _header(source, stamp)
            message = encode(sent.image.array, sent.image.encoding, header, SimpleNamespace)
            shots.append(Shot(source, time, stamp, message, cameras.geometry(source)))
        return shots


def regularly(seconds: float, rate: float = _RATE) -> list[float]:
    """Return the times of images at a rate in Hz, from 0."""
    return [index / rate for index in range(math.floor(seconds * rate + 1e-6) + 1)]


def both(times: Sequence[float]) -> dict[Source, Sequence[float]]:
    """Return the same times for both cameras."""
    return {source: times for source in SOURCES}


def _header(source: str, stamp: int) -> Any:
    seconds, nanoseconds = divmod(stamp, _NANOSECONDS)
    return SimpleNamespace(
        stamp=SimpleNamespace(sec=seconds, nanosec=nanoseconds),
        frame_id=f'{source}_optical_frame',
    )


def _camera_info(shot: Shot) -> Any:
    """Return what a calibrated camera sends with its images."""
    camera = shot.camera
    return SimpleNamespace(
        header=shot.message.header,
        width=camera.size[0],
        height=camera.size[1],
        distortion_model=camera.model,
        d=camera.distortion,
        k=camera.matrix.ravel(),
        r=np.eye(3).ravel(),
        p=np.column_stack([camera.matrix, np.zeros(3)]).ravel(),
    )


@dataclass(frozen=True)
class Outcome:
    """
    What became of a pair, or of an image that went on alone.

    :param time: of the exposure of its visible image, or of the one that there is, in seconds.
    :param exposures: times of the exposures in seconds, by source.
    :param sent: the images as the cameras sent them, by source.
    :param prepared: None if it was refused.
    :param fused: None if the pair was refused, or if no fused image was asked for.
    :param thermal_weight: (H, W) in [0, 1], of ``fused``.
    :param overlay: ``fused`` in the colours of what came from which camera.
    :param conditions: what each camera's image shows, by source.
    :param refusal: why it was not fused.
    """

    time: float
    exposures: Mapping[Source, float]
    sent: Mapping[Source, NDArray[Any]]
    prepared: Prepared | None = None
    fused: Image | None = None
    thermal_weight: NDArray[np.float16] | None = None
    overlay: Image | None = None
    conditions: Mapping[str, str] = field(default_factory=dict)
    refusal: str = ''

    @property
    def weight(self) -> float:
        """Mean thermal weight over the image; NaN where nothing was fused."""
        if self.thermal_weight is None:
            return math.nan
        return float(self.thermal_weight.mean(dtype=np.float64))

    def trust(self, source: Source) -> float:
        """Return the trust in a camera; NaN where the pair was refused."""
        return math.nan if self.prepared is None else self.prepared.trust[SOURCES.index(source)]


@dataclass
class Course:
    """
    What became of a recording.

    :param outcomes: by time.
    :param misalignment: in pixels, from the diagnostics after the last pair.
    :param warning: what diagnostics warn of then; empty where the images match.
    """

    outcomes: list[Outcome]
    misalignment: str
    warning: str

    def at(self, time: float) -> Outcome | None:
        """Return what was there at a time, or None if there was nothing."""
        near = [each for each in self.outcomes if abs(each.time - time) < 0.5 / _RATE + 1e-6]
        return min(near, key=lambda each: abs(each.time - time), default=None)

    def mean_weight(self, start: float, end: float) -> float:
        """Return the mean thermal weight from one time to another."""
        weights = [each.weight for each in self.outcomes if start <= each.time <= end]
        weights = [weight for weight in weights if not math.isnan(weight)]
        return float(np.mean(weights)) if weights else math.nan


class Robot:
    """
    Does with recorded images what the node does with messages, on their own time.

    :param fuser: its settings are replaced.
    """

    def __init__(self, fuser: Fuser) -> None:
        self._fuser = fuser

    def run(
        self,
        shots: Sequence[Shot],
        parameters: Mapping[str, Any] | None = None,
        *,
        wanted: Sequence[float] | None = None,
        relies: bool = False,
    ) -> Course:
        """
        Send a recording through pairing, preparation and fusion.

        :param parameters: of the node, other than its defaults.
        :param wanted: times to fuse at, for all of them where nothing is said; the rest is only
            prepared.
        :param relies: fuse all images as if the cameras were sound.
        """
        values = complete_values({'alignment_period': 0.5, **(parameters or {})})
        settings = fusion_settings(values)
        now = 0.0
        pipeline = Pipeline(
            values, {source: f'{source}/image_raw' for source in SOURCES}, clock=lambda: now
        )
        shot_of = {id(shot.message): shot for shot in shots}
        outcomes = []

        def process(work: Work) -> None:
            group = [shot_of[id(image.message)] for image in work.messages]
            time = group[0].time
            exposures = {shot.source: shot.time for shot in group}
            sent = {shot.source: decode(shot.message) for shot in group}
            try:
                prepared = pipeline.prepare(work, values)
            except PreparationError as error:
                outcomes.append(Outcome(time, exposures, sent, refusal=f'{error.cause}: {error}'))
                return
            if len(group) > 1:
                pipeline.alignment(prepared, work.stamps[0] / _NANOSECONDS, values)
            conditions = {
                source: ', '.join(condition.kinds) or 'sound'
                for source, condition in pipeline.preparation.images.conditions.items()
            }
            outcome = Outcome(time, exposures, sent, prepared, conditions=conditions)
            if wanted is None or any(abs(time - each) < 0.5 / _RATE for each in wanted):
                result = self._fuser.fuse(
                    *prepared.images,
                    settings=settings,
                    placements=prepared.placements,
                    trust=() if relies else prepared.trust,
                )
                outcome = replace(
                    outcome,
                    fused=result.image,
                    thermal_weight=result.weights[1].astype(np.float16),
                    overlay=contribution_overlay(result.image, result.contributions),
                )
            outcomes.append(outcome)

        for shot in shots:
            now = shot.time
            pipeline.camera_info(shot.source, _camera_info(shot))
            for work in pipeline.add(shot.source, shot.message, round(now * _NANOSECONDS)):
                process(work)
        for work in pipeline.flush():
            process(work)
        table, warning = pipeline.alignment.table(), pipeline.alignment.warning(values)
        return Course(outcomes, table['misalignment (px)'], warning)
