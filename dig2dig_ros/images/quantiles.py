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

"""Quantiles of many values, quickly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def nearest_ranks(values: NDArray[Any], parts: Sequence[float]) -> list[float]:
    """
    Return the values below which these parts of all lie, each that of the nearest rank.

    :param values: of any shape, not empty.
    :param parts: in [0, 1], in any order, which is that of the result.
    """
    ranks = [round((values.size - 1) * part) for part in parts]
    found: dict[int, float] = {}
    values = values.ravel()
    # One after the other, from the top: partition is much slower for all in one call.
    for rank in sorted(set(ranks), reverse=True):
        values = np.partition(values, rank)[: rank + 1]
        found[rank] = float(values[rank])
    return [found[rank] for rank in ranks]
