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

"""Entry points of all commands, which hear signals from the first moment on."""

from dig2dig_ros.nodes.signals import run_command, run_tool


def fusion_node() -> int:
    """Run the fusion node."""
    return run_command('dig2dig_ros.nodes.fusion_node')


def detection_fusion() -> int:
    """Run the node that unites detections."""
    return run_command('dig2dig_ros.nodes.detection_fusion_node')


def pair_camera() -> int:
    """Run the node that stands in for two cameras."""
    return run_command('dig2dig_ros.tools.pair_camera')


def play_bag() -> int:
    """Run the player of bags."""
    return run_command('dig2dig_ros.tools.play_bag')


def evaluate_bag() -> int:
    """Evaluate bags."""
    return run_tool('evaluate_bag')


def evaluate_pairs() -> int:
    """Evaluate folders of image pairs."""
    return run_tool('evaluate_pairs')


def evaluate_registration() -> int:
    """Evaluate how well cameras are registered."""
    return run_tool('evaluate_registration')


def evaluate_restoration() -> int:
    """Evaluate how well images are restored."""
    return run_tool('evaluate_restoration')


def benchmark() -> int:
    """Measure how fast the fusion is."""
    return run_tool('benchmark')


def calibrate_registration() -> int:
    """Find how two cameras lie to each other."""
    return run_tool('calibrate_registration')


def fuse_images() -> int:
    """Fuse image files."""
    return run_tool('fuse_images')


def train_prior() -> int:
    """Train a prior."""
    return run_tool('train_prior')


def demo() -> int:
    """Show the fusion at work."""
    return run_tool('demo')
