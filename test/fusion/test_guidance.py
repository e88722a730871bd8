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

import torch

from dig2dig_ros.fusion.guidance import guide, increment_targets


def random_chain(refreshes=3, count=2):
    generator = torch.Generator().manual_seed(2)
    estimates = torch.randn((refreshes, count, 1, 6, 7), generator=generator)
    sources = torch.randn((count, 1, 6, 7), generator=generator)
    return estimates, sources


def test_one_trusted_source_is_followed_from_the_common_base():
    estimates, sources = random_chain()
    weights = torch.zeros_like(estimates)
    weights[:, 1] = 1
    targets = increment_targets(estimates, sources, weights)
    base = estimates[0].mean(dim=0)
    torch.testing.assert_close(targets[0], base + estimates[1, 1] - estimates[0, 1])
    torch.testing.assert_close(targets[-1], base + sources[1] - estimates[0, 1])


def test_equal_weights_end_at_the_mean_of_the_sources():
    estimates, sources = random_chain(count=3)
    targets = increment_targets(estimates, sources, torch.full_like(estimates, 1 / 3))
    torch.testing.assert_close(targets[-1], sources.mean(dim=0))


def test_identical_sources_end_at_that_source_whatever_the_weights():
    estimates, sources = random_chain()
    estimates[:, 1], sources[1] = estimates[:, 0], sources[0]
    weights = torch.rand((3, 1, 1, 6, 7))
    targets = increment_targets(estimates, sources, torch.cat([weights, 1 - weights], dim=1))
    torch.testing.assert_close(targets[-1], sources[0])


def test_guidance_scale_moves_from_prior_to_target():
    prior, target = torch.zeros((1, 1, 2, 2)), torch.ones((1, 1, 2, 2))
    assert torch.equal(guide(prior, target, 0.0), prior)
    assert torch.equal(guide(prior, target, 1.0), target)
    assert torch.equal(guide(prior, target, 0.25), target * 0.25)
