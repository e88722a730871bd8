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

import pytest
import torch

from dig2dig_ros.priors import Prior, PriorError
from dig2dig_ros.priors.base import linear_alpha_bar


class Identity(Prior):
    """A prior that takes every image for clean."""

    def denoise(self, noisy, timesteps):
        return noisy


def test_timesteps_of_the_training_are_accepted():
    Identity('short', linear_alpha_bar(10)).check_timesteps([9, 3, 0])


@pytest.mark.parametrize('timesteps', [[10], [3, 400, 2], [-1]])
def test_other_timesteps_are_named(timesteps):
    prior = Identity('short', linear_alpha_bar(10))
    message = f"'short' was trained for timesteps 0 to 9, not {max(timesteps)}: set"
    with pytest.raises(PriorError, match=message):
        prior.check_timesteps(timesteps)


def test_coefficients_are_those_of_the_noise_model():
    prior = Identity('short', linear_alpha_bar(10))
    signal, sigma = prior.coefficients(torch.tensor([2, 9]), torch.zeros(1))
    assert signal.shape == sigma.shape == (2, 1, 1, 1)
    torch.testing.assert_close(signal.square().flatten(), prior.alpha_bar[[2, 9]].float())
    torch.testing.assert_close(signal.square() + sigma.square(), torch.ones((2, 1, 1, 1)))
