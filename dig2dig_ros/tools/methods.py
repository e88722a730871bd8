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

"""Ways to fuse a pair of images, as the evaluating commands compare them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dig2dig_ros.evaluation.baselines import BASELINES, to_uint8
from dig2dig_ros.evaluation.metrics import luma
from dig2dig_ros.fusion.settings import FusionSettings
from dig2dig_ros.tools.options import fusion_settings, load_fuser, UsageError, with_overrides

# Importing torch takes seconds, which the baselines do not need.
if TYPE_CHECKING:
    from dig2dig_ros.fusion.fuser import Fuser
    from dig2dig_ros.priors import Prior

Image = NDArray[np.uint8]
# (visible BGR or grey, thermal grey) to the fused image, in colour or not.
Method = Callable[[Image, Image], Image]

FUSED = 'fused'
# Width and height in pixels at which costs are compared.
COMMON_SIZE = (640, 512)


class FusionMethod:
    """The fusion of this package as a :data:`Method`; knows what the last one cost."""

    def __init__(self, fuser: Fuser) -> None:
        self.fuser = fuser
        self.prior_calls = 0

    def __call__(self, visible: Image, thermal: Image) -> Image:
        """Fuse one pair."""
        result = self.fuser.fuse(visible, thermal)
        self.prior_calls = result.statistics.prior_calls
        return result.image

    def about(self) -> str:
        """Return what a caption should say: device, prior and so on."""
        return ', '.join(f'{key} {value}' for key, value in self.fuser.describe().items())


def make_fusion(
    parameters: Mapping[str, Any],
    settings: FusionSettings,
    size: tuple[int, int],
    prior: Prior | None = None,
) -> FusionMethod:
    """
    Load what a fusion needs and warm up.

    :param parameters: of ``fusion_node``: device, precision, prior and num_threads count here.
    :param size: (width, height) in pixels to warm up with.
    :param prior: a loaded one, to be shared between fusions.
    :raises TypeError: a value has a wrong type.
    :raises ValueError: a value is refused, or the device or the prior is missing.
    """
    fuser = load_fuser(parameters, settings, prior)
    fuser.warm_up(*size)
    return FusionMethod(fuser)


def fused_method(
    parameters: Mapping[str, Any], overrides: Mapping[str, Any]
) -> tuple[Method, str]:
    """
    Load the prior, warm up, and return the fusion of this package and its description.

    :param parameters: of ``fusion_node``; those that do not concern the fusion are ignored.
    :param overrides: values that replace them, None where they do not.
    :raises UsageError: a value is refused, or the device or the prior is missing.
    """
    values = with_overrides(parameters, overrides)
    try:
        width, height = values.get('warmup_size', COMMON_SIZE)
        method = make_fusion(values, fusion_settings(values), (width, height))
    except (TypeError, ValueError) as error:
        raise UsageError(f'{FUSED} cannot be set up: {error}') from error
    return method, method.about()


def baseline_method(name: str) -> Method:
    """Return the baseline ``name`` on luma, rounded to 8 bits."""
    fuse = BASELINES[name]
    return lambda visible, thermal: to_uint8(fuse([luma(visible), thermal]))
