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

"""Sources that are not to be relied on everywhere."""

import torch

from dig2dig_ros.fusion.confidence import confident_sources, confident_weights
from fusion.priors import random_sources


def random_confidence(sources):
    generator = torch.Generator().manual_seed(8)
    return torch.rand(sources.shape, generator=generator, dtype=sources.dtype)


def test_full_confidence_changes_nothing():
    sources = random_sources(3)
    full = torch.ones_like(sources)
    torch.testing.assert_close(confident_sources(sources, full), sources)
    weights = torch.rand(2, *sources.shape, dtype=sources.dtype).softmax(dim=1)
    torch.testing.assert_close(confident_weights(weights, full), weights)


def test_a_source_without_confidence_becomes_the_other_one():
    sources = random_sources(2)
    confidence = torch.stack([torch.ones_like(sources[0]), torch.zeros_like(sources[0])])
    filled = confident_sources(sources, confidence)
    torch.testing.assert_close(filled[0], sources[0], rtol=0, atol=0)
    torch.testing.assert_close(filled[1], sources[0])
    weights = torch.full((1, *sources.shape), 0.5, dtype=sources.dtype)
    shares = confident_weights(weights, confidence)
    assert (shares[:, 0] == 1).all()
    assert (shares[:, 1] == 0).all()


def test_weights_tell_what_the_weighted_sum_of_filled_sources_holds():
    sources = random_sources(3)
    confidence = random_confidence(sources)
    weights = random_confidence(sources)[None].softmax(dim=1)
    fused = (weights[0] * confident_sources(sources, confidence)).sum(dim=0)
    shares = confident_weights(weights, confidence)
    torch.testing.assert_close((shares[0] * sources).sum(dim=0), fused)
    torch.testing.assert_close(shares.sum(dim=1), torch.ones_like(shares[:, 0]))


def test_nobody_with_confidence_is_everybody():
    sources = random_sources(2)
    nothing = torch.zeros_like(sources)
    mean = sources.mean(dim=0, keepdim=True).expand_as(sources)
    torch.testing.assert_close(confident_sources(sources, nothing), mean)
