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


"""The message classes of vision_msgs and yolo_msgs as plain objects, with the fields in use."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any


@dataclass
class Time:
    sec: int = 0
    nanosec: int = 0


@dataclass
class Header:
    stamp: Time = field(default_factory=Time)
    frame_id: str = ''


@dataclass
class Point2D:
    x: float = 0.0
    y: float = 0.0


@dataclass
class Pose2D:
    position: Point2D = field(default_factory=Point2D)
    theta: float = 0.0


@dataclass
class VisionBox:
    center: Pose2D = field(default_factory=Pose2D)
    size_x: float = 0.0
    size_y: float = 0.0


@dataclass
class ObjectHypothesis:
    class_id: str = ''
    score: float = 0.0


@dataclass
class ObjectHypothesisWithPose:
    hypothesis: ObjectHypothesis = field(default_factory=ObjectHypothesis)


@dataclass
class Detection2D:
    header: Any = field(default_factory=Header)
    results: list[ObjectHypothesisWithPose] = field(default_factory=list)
    bbox: VisionBox = field(default_factory=VisionBox)


@dataclass
class Detection2DArray:
    header: Any = field(default_factory=Header)
    detections: list[Detection2D] = field(default_factory=list)


@dataclass
class YoloBox:
    center: Pose2D = field(default_factory=Pose2D)
    size: Point2D = field(default_factory=Point2D)


@dataclass
class Detection:
    class_id: int = 0
    class_name: str = ''
    score: float = 0.0
    bbox: YoloBox = field(default_factory=YoloBox)


@dataclass
class DetectionArray:
    header: Any = field(default_factory=Header)
    detections: list[Detection] = field(default_factory=list)


VISION = SimpleNamespace(
    Detection2D=Detection2D,
    Detection2DArray=Detection2DArray,
    ObjectHypothesis=ObjectHypothesis,
    ObjectHypothesisWithPose=ObjectHypothesisWithPose,
)
YOLO = SimpleNamespace(Detection=Detection, DetectionArray=DetectionArray)
