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

"""The gains and weights against slow literal references in float64."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dig2dig_ros.fusion.information_gain import (
    cell_means,
    common_decision,
    information_gain,
    information_gate,
    local_mean,
    nats,
    NOISE_FLOORS,
    pure_noise_estimate,
    reconstruction_loss,
    refined,
    relative_dominability,
    relative_gain,
    sharpness_gate,
    softmax_weights,
    uniform_weights,
    weigh_sources,
    Weighing,
)
from dig2dig_ros.fusion.settings import FusionSettings


def box_mean(image, side):
    """Average over a box, cut off at the border of the image."""
    half = side // 2
    mean = np.zeros_like(image)
    for row in range(image.shape[0]):
        for column in range(image.shape[1]):
            rows = slice(max(0, row - half), row + half + 1)
            columns = slice(max(0, column - half), column + half + 1)
            mean[row, column] = image[rows, columns].mean()
    return mean


def literal_mean(image, window):
    first, second = {1: (1, 1), 3: (1, 3), 5: (3, 3), 7: (3, 5), 11: (5, 7)}[window]
    return box_mean(box_mean(image, first), second)


def literal_loss(estimate, source, loss, window):
    e, s = estimate, source
    if loss == 'l2':
        return literal_mean((e - s) ** 2, window)
    if loss == 'l1':
        return literal_mean(np.abs(e - s), window)
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    mean_e, mean_s = literal_mean(e, window), literal_mean(s, window)
    variance_e = literal_mean(e**2, window) - mean_e**2
    variance_s = literal_mean(s**2, window) - mean_s**2
    covariance = literal_mean(e * s, window) - mean_e * mean_s
    return 1 - (2 * mean_e * mean_s + c1) * (2 * covariance + c2) / (
        (mean_e**2 + mean_s**2 + c1) * (variance_e + variance_s + c2)
    )


@pytest.fixture
def estimates_and_sources():
    generator = torch.Generator().manual_seed(1)
    sources = torch.rand((2, 1, 9, 11), generator=generator, dtype=torch.float64) * 2 - 1
    noise = torch.randn((3, 2, 1, 9, 11), generator=generator, dtype=torch.float64)
    strength = torch.tensor([0.5, 0.3, 0.1], dtype=torch.float64).view(3, 1, 1, 1, 1)
    return sources + strength * noise, sources


@pytest.mark.parametrize('window', [1, 3, 5, 7, 11])
def test_local_mean_is_two_boxes_cut_off_at_the_border(window):
    image = torch.rand((2, 3, 8, 6), dtype=torch.float64)
    mean = local_mean(image, window)
    np.testing.assert_allclose(mean[1, 2], literal_mean(image[1, 2].numpy(), window))


@pytest.mark.parametrize('window', [1, 3, 5, 7, 11, 99])
def test_window_is_as_wide_as_it_says_and_sums_to_one(window):
    point = torch.zeros((1, 1, 201, 201), dtype=torch.float64)
    point[..., 100, 100] = 1
    mean = local_mean(point, window)[0, 0]
    assert int((mean[100] > 0).sum()) == window
    assert float(mean.sum()) == pytest.approx(1)


@pytest.mark.parametrize('loss', ['l2', 'l1', 'ssim'])
def test_gain_is_the_literal_difference_of_losses(estimates_and_sources, loss):
    estimates, sources = estimates_and_sources
    gain = information_gain(estimates, sources, loss, 5)
    for k in range(2):
        losses = [literal_loss(e[k, 0].numpy(), sources[k, 0].numpy(), loss, 5) for e in estimates]
        losses.append(np.zeros_like(losses[0]))  # the end of the chain is the source itself
        for refresh in range(3):
            expected = losses[refresh] - losses[refresh + 1]
            np.testing.assert_allclose(gain[refresh, k, 0], expected, atol=1e-12)


def test_gains_sum_up_to_the_loss_of_the_first_estimate(estimates_and_sources):
    estimates, sources = estimates_and_sources
    total = information_gain(estimates, sources, 'l2', 7).sum(dim=0)
    torch.testing.assert_close(total, reconstruction_loss(estimates[0], sources, 'l2', 7))


@pytest.mark.parametrize('temperature', [1.0, 0.1])
def test_weights_are_the_literal_softmax(estimates_and_sources, temperature):
    gain = information_gain(*estimates_and_sources)
    weights = softmax_weights(gain, temperature)
    powers = np.exp(gain.numpy() / temperature)
    np.testing.assert_allclose(weights, powers / powers.sum(axis=1, keepdims=True), rtol=1e-12)


def test_printed_equation_is_nearly_uniform_and_relative_gain_is_not():
    flat = torch.zeros((1, 1, 16, 16))
    textured = flat.clone()
    textured[..., ::2] = 0.2
    sources = torch.cat([textured, flat])
    estimates = torch.zeros((1, 2, 1, 16, 16))
    gain = information_gain(estimates, sources)
    assert softmax_weights(gain)[0, 0].max() < 0.51
    assert softmax_weights(relative_gain(gain))[0, 0].min() > 0.8


def test_relative_gain_does_not_depend_on_contrast(estimates_and_sources):
    gain = information_gain(*estimates_and_sources)
    torch.testing.assert_close(relative_gain(gain), relative_gain(gain * 1e-3))


def test_gains_below_the_noise_floor_give_equal_weights(estimates_and_sources):
    gain = information_gain(*estimates_and_sources)
    gain = 1e-6 * gain / gain.abs().max()
    weights = softmax_weights(relative_gain(gain, noise_floor=1e-4), 0.5)
    torch.testing.assert_close(weights, torch.full_like(weights, 0.5), atol=0.01, rtol=0)


def test_relative_gain_of_nothing_is_nothing():
    gain = relative_gain(torch.zeros((2, 2, 1, 4, 4)))
    assert torch.equal(gain, torch.zeros_like(gain))


def test_weights_of_three_sources_sum_to_one():
    gain = torch.randn((4, 3, 1, 5, 5))
    for weights in (softmax_weights(relative_gain(gain), 0.3), uniform_weights(gain)):
        torch.testing.assert_close(weights.sum(dim=1), torch.ones((4, 1, 5, 5)))
        assert weights.min() >= 0


def test_all_that_is_known_from_pure_noise_is_the_mean(estimates_and_sources):
    _, sources = estimates_and_sources
    estimate = pure_noise_estimate(sources)
    assert estimate.shape == sources.shape
    torch.testing.assert_close(estimate[1], torch.full_like(sources[1], sources[1].mean()))


def test_relative_dominability_is_the_literal_negative_loss(estimates_and_sources):
    estimates, sources = estimates_and_sources
    evidence = relative_dominability(estimates, sources, 'l2', 5)
    for refresh in range(3):
        for k in range(2):
            expected = -literal_loss(
                estimates[refresh, k, 0].numpy(), sources[k, 0].numpy(), 'l2', 5
            )
            np.testing.assert_allclose(evidence[refresh, k, 0], expected, atol=1e-14)


SETTINGS = FusionSettings(gain_window=5, structure_window=13)


@pytest.mark.parametrize('rule', ['dig', 'rd'])
@pytest.mark.parametrize('loss', ['l2', 'l1', 'ssim'])
@pytest.mark.parametrize('normalize', [False, True])
def test_weights_of_a_chain_follow_the_literal_equations(
    estimates_and_sources, rule, loss, normalize
):
    estimates, sources = estimates_and_sources
    settings = replace(SETTINGS, weights=rule, gain_loss=loss, normalize_gain=normalize)
    weighing = weigh_sources(estimates, sources, settings, from_pure_noise=False)
    gains, weights = weighing.gains, weighing.weights
    losses = np.array(
        [
            [literal_loss(e[k, 0].numpy(), sources[k, 0].numpy(), loss, 5) for k in range(2)]
            for e in estimates
        ]
    )
    if rule == 'dig':
        evidence = losses - np.concatenate([losses[1:], np.zeros_like(losses[:1])])
    else:
        evidence = -losses
    np.testing.assert_allclose(gains[:, :, 0], evidence, atol=1e-12)
    compared = evidence
    if normalize:
        here = np.abs(evidence).mean(axis=1, keepdims=True)
        frame = np.abs(evidence).mean(axis=(1, 2, 3), keepdims=True)
        compared = evidence / (here + 0.3 * frame + NOISE_FLOORS[loss])
    powers = np.exp(compared / settings.temperature)
    expected = powers / powers.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(weights[:, :, 0], expected, rtol=1e-9)


def test_dominability_falls_where_the_loss_rises(estimates_and_sources):
    """TTD: the weights are negatively correlated with the uni-source reconstruction loss."""
    estimates, sources = estimates_and_sources
    settings = replace(SETTINGS, weights='rd')
    weights = weigh_sources(estimates, sources, settings, from_pure_noise=False).weights
    loss = reconstruction_loss(estimates, sources, 'l2', 5)
    pairs = zip(weights.flatten(0, 1), loss.flatten(0, 1), strict=True)
    for weight, own in pairs:
        assert np.corrcoef(weight.flatten(), own.flatten())[0, 1] < 0
    difference = loss[:, 0] - loss[:, 1]
    assert torch.equal(weights[:, 0] > 0.5, difference < 0)


def test_a_decision_is_that_of_all_intervals_and_of_the_neighbours():
    gain = torch.zeros(2, 2, 1, 24, 24)
    # The first source gains on the left, in the first interval; the second one on the right, more,
    # in the second interval; and the first one at a single pixel there.
    gain[0, 0, ..., :12] = 0.5
    gain[1, 1, ..., 12:] = 1.0
    gain[:, 0, 0, 12, 18] = 1.0
    gain[:, 1, 0, 12, 18] = 0.0
    decided = common_decision(gain, 0.02, 7)
    assert decided.shape == (1, 2, 1, 24, 24)
    torch.testing.assert_close(decided.sum(dim=1), torch.ones(1, 1, 24, 24))
    assert decided[0, 0, ..., :11].min() > 0.99
    assert decided[0, 1, ..., 13:].min() > 0.99
    torch.testing.assert_close(common_decision(gain.flip(1), 0.02, 7).flip(1), decided)


def test_uniform_weights_still_report_the_gains(estimates_and_sources):
    settings = replace(SETTINGS, weights='uniform')
    uniform = weigh_sources(*estimates_and_sources, settings, from_pure_noise=True)
    assert torch.equal(uniform.weights, torch.full_like(uniform.weights, 0.5))
    reference = weigh_sources(*estimates_and_sources, SETTINGS, from_pure_noise=True)
    assert torch.equal(uniform.gains, reference.gains)


@pytest.mark.parametrize('window', [5, 31])
def test_coarse_structure_weighs_what_stands_out(window):
    warm = torch.zeros((1, 1, 64, 96))
    warm[..., 20:44, 60:84] = 1.0
    sources = torch.cat([torch.zeros_like(warm), warm])
    settings = replace(SETTINGS, gain_window=window, structure_temperature=0.5)
    weighing = weigh_sources(sources[None], sources, settings, from_pure_noise=True)
    gain, weights, cell = weighing.gains[0], weighing.weights, weighing.cell
    assert gain.shape == (2, 1, 64 // cell, 96 // cell)
    assert gain[0].abs().max() == 0
    expected = (1 - float(warm.mean())) ** 2
    row, column = 32 // cell, 72 // cell
    assert float(gain[1, 0, row, column]) == pytest.approx(expected, rel=0.01)
    assert gain[1, 0, row, column] > 20 * gain[1, 0, 1, 1]
    assert float(weights[0, 1, 0, row, column]) > 0.75


@pytest.mark.parametrize('rule', ['dig', 'rd', 'uniform'])
@pytest.mark.parametrize('size', [(1, 1), (5, 3), (30, 41)])
@pytest.mark.parametrize('window', [5, 31])
def test_any_size_and_number_of_sources(rule, size, window):
    sources = torch.rand((3, 1, *size))
    settings = replace(SETTINGS, weights=rule, gain_loss='ssim', gain_window=window)
    weighing = weigh_sources(0.5 * sources[None], sources, settings, from_pure_noise=True)
    gains, weights = weighing.gains, weighing.weights
    grid = tuple(-(-side // weighing.cell) for side in size)
    assert gains.shape == weights.shape == (2, 3, 1, *grid)
    assert torch.isfinite(gains).all()
    torch.testing.assert_close(weights.sum(dim=1), torch.ones((2, 1, *grid)))
    mean = weighing.mean_weights()
    for maps in (mean, weighing.contributions()):
        torch.testing.assert_close(maps.sum(dim=0), torch.ones((1, *grid)))


@pytest.mark.parametrize('loss', ['l2', 'l1', 'ssim'])
def test_wide_windows_give_the_same_gains_on_a_grid(loss):
    generator = torch.Generator().manual_seed(2)
    # Texture whose strength varies over the image.
    strength = torch.linspace(0.2, 1, 120)[:, None] * torch.linspace(1, 0.2, 160)
    sources = strength * torch.randn((2, 1, 120, 160), generator=generator)
    estimates = 0.3 * sources[None]
    precise = information_gain(estimates, sources, loss, 31)
    grid = information_gain(estimates, sources, loss, 31, cell=4)
    assert grid.shape == (1, 2, 1, 30, 40)
    error = (refined(grid, 4, 120, 160) - precise).abs().mean()
    assert float(error) < 0.04 * float(precise.mean())


def test_a_wide_window_blurs_no_more_on_a_grid():
    window, cell, side = FusionSettings().gain_window, 4, 96

    def blur(cell, place):
        """Return the variance, in pixels, of what a difference at one pixel spreads to."""
        source = torch.zeros((1, side, side), dtype=torch.float64)
        estimate = source.clone()
        estimate[0, side // 2, place] = 1
        loss = refined(reconstruction_loss(estimate, source, 'l2', window, cell), cell, side, side)
        columns = loss[0].sum(dim=0) / loss.sum()
        distance = torch.arange(side, dtype=torch.float64) - place
        return float((columns * distance.square()).sum())

    # Of all places in a cell, as the grid does not know where in it something is.
    on_grid = np.mean([blur(cell, side // 2 + shift) for shift in range(cell)])
    assert on_grid == pytest.approx(blur(1, side // 2), rel=0.1)


def test_mean_weights_count_what_was_gained():
    gains = torch.tensor([[1.0, 2.0], [0.0, 0.0]]).view(2, 2, 1, 1, 1)
    weights = torch.tensor([[0.2, 0.8], [0.9, 0.1]]).view(2, 2, 1, 1, 1)
    shares = torch.full((2, 1, 1, 1), 0.5)
    mean = Weighing(gains, weights, 1, shares).mean_weights()
    torch.testing.assert_close(mean, weights[0])
    equal = Weighing(torch.zeros_like(gains), weights, 1, shares).mean_weights()
    torch.testing.assert_close(equal, weights.mean(dim=0))


def test_contributions_are_the_weights_times_the_contrast_that_they_weigh():
    # Of the first source, a contrast of 0.1 in the structure and of 0.4 in the details.
    gains = torch.tensor([[0.01, 0.36], [0.16, 0.0]]).view(2, 2, 1, 1, 1)
    weights = torch.tensor([[0.5, 0.5], [0.75, 0.25]]).view(2, 2, 1, 1, 1)
    shares = torch.full((2, 1, 1, 1), 0.5)
    faint = 12 / 255
    first = 0.5 * (0.1 + faint) + 0.75 * (0.4 + faint)
    second = 0.5 * (0.6 + faint) + 0.25 * faint
    contributions = Weighing(gains, weights, 1, shares).contributions()
    assert contributions.shape == (2, 1, 1, 1)
    expected = torch.tensor([first, second]) / (first + second)
    torch.testing.assert_close(contributions.flatten(), expected)
    flat = Weighing(torch.zeros_like(gains), weights, 1, shares).contributions()
    torch.testing.assert_close(flat, weights.mean(dim=0))


def information(*sources):
    return torch.tensor(sources, dtype=torch.float64).view(1, -1, 1, 1, 1)


def test_nats_are_the_literal_information_of_a_gaussian_channel():
    gain = torch.tensor([-1.0, 0.0, 0.3, 5.0], dtype=torch.float64)
    expected = [0.0, 0.0, 0.5 * np.log(1 + 0.3 / 0.1), 0.5 * np.log(1 + 5 / 0.1)]
    np.testing.assert_allclose(nats(gain, 0.1), expected)


@pytest.mark.parametrize('least', [0.1, 0.25, 0.9])
def test_the_gate_closes_by_the_square_of_what_a_source_lacks(least):
    gate = information_gate(information(2.0, 1.9, 0.0), least).flatten()
    assert gate[0] == gate[1] == 0
    # A tenth of a nat counts as nothing.
    assert float(gate[2].exp()) == pytest.approx(min(1.0, (0.1 / (least * 2.1)) ** 2))


def test_where_nobody_has_anything_to_say_all_count_alike():
    for least in (0.25, 1.0):
        assert (information_gate(information(0.0, 0.0, 0.0), least) == 0).all()
    assert (information_gate(information(3.0, 0.0), 0.0) == 0).all()


def test_a_blurred_source_counts_less_where_another_one_shows_something():
    # The second of three sources is blurred; the third one is blind.
    other = torch.tensor([3.0, 0.95, 0.425, 0.0])
    information = torch.stack([other, torch.full((4,), 1.9), torch.zeros(4)]).view(3, 1, 1, 4)
    logits = sharpness_gate(information, torch.tensor([1.0, 0.1, 1.0]))
    weights = logits.exp().view(3, 4)
    # Half of the nats are enough; a tenth of a nat counts as nothing.
    assert weights[1].tolist() == pytest.approx([0.1, 0.1, 0.55, 1 - 0.9 * 0.1 / 1.05])
    assert (weights[[0, 2]] == 1).all()
    assert (sharpness_gate(information, torch.ones(3)) == 0).all()


def faint_and_strong(strength):
    """Return (estimates, sources): the first one's texture is so much of the other's."""
    generator = torch.Generator().manual_seed(8)
    sources = 0.4 * torch.randn((2, 1, 48, 64), generator=generator)
    sources[0] *= strength
    return 0.5 * sources[None], sources


@pytest.mark.parametrize('from_pure_noise', [False, True])
def test_a_source_without_information_loses_its_weight(from_pure_noise):
    weighings = [
        weigh_sources(
            *faint_and_strong(0.0), replace(SETTINGS, least_information=least), from_pure_noise
        )
        for least in (0.0, 0.25)
    ]
    for before, after in zip(*(weighing.weights for weighing in weighings), strict=True):
        assert float(before[0].mean()) > 0.1
        assert float(after[0].max()) < 0.05
    assert torch.equal(weighings[0].shares.flatten(), torch.full((2,), 0.5))
    assert float(weighings[1].shares[0]) < 0.05
    torch.testing.assert_close(float(weighings[1].shares.sum()), 1.0)


@pytest.mark.parametrize('from_pure_noise', [False, True])
def test_sources_with_enough_information_count_exactly_as_without_the_gate(from_pure_noise):
    given = faint_and_strong(0.7)
    without, with_gate = (
        weigh_sources(*given, replace(SETTINGS, least_information=least), from_pure_noise)
        for least in (0.0, 0.25)
    )
    assert torch.equal(without.weights, with_gate.weights)
    assert torch.equal(without.shares, with_gate.shares)


def test_what_noise_leaves_is_no_information():
    given, weights = faint_and_strong(0.3), []
    for level in (0.0, 0.1, 0.3):
        noise = torch.tensor([level, 0.0])
        weighing = weigh_sources(*given, SETTINGS, True, sensor_noise=noise)
        weights.append(float(weighing.weights[:, 0].mean()))
    assert weights == sorted(weights, reverse=True)
    assert weights[-1] < 0.5 * weights[0]
    nothing = weigh_sources(*given, SETTINGS, True).weights[:, 0].mean()
    assert weights[0] == float(nothing)


@pytest.mark.parametrize('rule', ['dig', 'rd', 'uniform'])
def test_the_thermal_camera_can_be_preferred(rule):
    given = faint_and_strong(0.8)
    settings = replace(SETTINGS, weights=rule)
    weighings = [
        weigh_sources(*given, replace(settings, thermal_strength=strength), True)
        for strength in (0.0, 0.2, 0.5, 0.8, 1.0)
    ]
    for lower, higher in pairwise(weighings):
        assert bool((lower.weights[:, 1] < higher.weights[:, 1]).all())
        assert float(lower.shares[1]) < float(higher.shares[1])
    for weighing, alone in ((weighings[0], 0), (weighings[-1], 1)):
        torch.testing.assert_close(
            weighing.weights[:, alone], torch.ones_like(weighing.weights[:, alone])
        )
        assert float(weighing.shares[alone]) == pytest.approx(1)


def test_a_preference_of_neither_changes_no_bit():
    generator = torch.Generator().manual_seed(2)
    gain = torch.randn((3, 2, 1, 9, 11), generator=generator)
    none = torch.zeros((3, 2, 1, 1, 1))
    assert torch.equal(softmax_weights(gain, 1.3, none), softmax_weights(gain, 1.3))
    given, neither = faint_and_strong(0.8), replace(SETTINGS, thermal_strength=0.5)
    assert torch.equal(
        weigh_sources(*given, neither, True).weights, weigh_sources(*given, SETTINGS, True).weights
    )


def test_further_sources_are_neither_preferred_nor_left_out():
    generator = torch.Generator().manual_seed(9)
    sources = 0.4 * torch.randn((3, 1, 32, 32), generator=generator)
    settings = replace(SETTINGS, weights='uniform', thermal_strength=0.8)
    weights = weigh_sources(0.5 * sources[None], sources, settings, False).weights
    torch.testing.assert_close(weights[0, :, 0, 0, 0], torch.tensor([1.0, 4.0, 1.0]) / 6)


@pytest.mark.parametrize('size', [(12, 16), (13, 18), (3, 2), (4, 1)])
def test_cell_means_are_literal_and_cut_off_at_the_border(size):
    image = torch.rand((2, 3, *size), dtype=torch.float64)
    means = cell_means(image, 4)
    for row in range(means.shape[-2]):
        for column in range(means.shape[-1]):
            cell = image[..., 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
            torch.testing.assert_close(means[..., row, column], cell.mean(dim=(-2, -1)))


@pytest.mark.parametrize('cell', [1, 2, 4])
@pytest.mark.parametrize('size', [(12, 16), (13, 18), (3, 2)])
def test_refined_is_bilinear_between_the_centres_of_cells(cell, size):
    means = torch.rand((2, 3, *(-(-side // cell) for side in size)), dtype=torch.float64)
    expected = F.interpolate(means, scale_factor=cell, mode='bilinear', align_corners=False)
    torch.testing.assert_close(refined(means, cell, *size), expected[..., : size[0], : size[1]])


@pytest.mark.cuda
def test_refined_on_a_gpu_is_that_of_the_cpu():
    means = torch.rand((2, 1, 9, 13), generator=torch.Generator().manual_seed(0))
    there = refined(means.cuda(), 4, 35, 50).cpu()
    torch.testing.assert_close(there, refined(means, 4, 35, 50), atol=1e-6, rtol=0)
