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

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from dig2dig_ros.fusion.fuser import Fuser, FusionCancelled, FusionInputError, NotFiniteError
from dig2dig_ros.fusion.settings import FusionSettings
from dig2dig_ros.images.blur import Blur, deblurred
from dig2dig_ros.images.camera_noise import CameraNoise
from dig2dig_ros.images.placement import Placement
from dig2dig_ros.images.registration import Registration
from dig2dig_ros.images.sensor_noise import measure_noise, SensorNoise
from dig2dig_ros.images.stripes import Stripes
from dig2dig_ros.images.thermal_range import ThermalRange
from dig2dig_ros.priors import load_prior, PriorError
from fusion.priors import GaussianPrior

SETTINGS = FusionSettings(num_inference_steps=3, dig_refresh_interval=2)


def street(height=60, width=84):
    """Return a visible image with texture on the left, a thermal one with a warm disc."""
    rng = np.random.default_rng(5)
    visible = np.full((height, width, 3), (30, 34, 40), np.uint8)
    visible[:, : width // 2] += rng.integers(0, 90, (height, width // 2, 1), dtype=np.uint8)
    rows, columns = np.mgrid[:height, :width]
    warm = (rows - height / 2) ** 2 + (columns - 0.75 * width) ** 2 < (height / 5) ** 2
    thermal = np.where(warm, 230, 60).astype(np.uint8)
    return visible, thermal, warm


@pytest.fixture(scope='module')
def fuser():
    return Fuser(SETTINGS, device='cpu', precision='fp32')


def test_result_has_the_shape_types_and_weights_of_a_fusion(fuser):
    visible, thermal, _ = street()
    result = fuser.fuse(visible, thermal)
    assert result.image.shape == visible.shape
    assert result.image.dtype == np.uint8
    assert result.weights.shape == (2, 60, 84)
    assert result.weights.dtype == np.float32
    np.testing.assert_allclose(result.weights.sum(axis=0), 1, atol=1e-5)
    assert result.weights.min() >= 0
    assert result.contributions.shape == (2, 60, 84)
    np.testing.assert_allclose(result.contributions.sum(axis=0), 1, atol=1e-5)
    assert fuser.fuse(visible, thermal, weight_maps=False).contributions.shape == (0, 60, 84)


def test_warm_object_and_visible_texture_are_both_in_the_fused_image(fuser):
    visible, thermal, warm = street()
    fused = fuser.fuse(visible, thermal).image.mean(axis=2)
    assert fused[warm].mean() > fused[:, 42:][~warm[:, 42:]].mean() + 40
    left = np.s_[10:-10, 5:35]
    texture = np.corrcoef(fused[left].ravel(), visible[left].mean(axis=2).ravel())[0, 1]
    assert texture > 0.9


def test_weights_follow_the_texture_and_the_warm_edge(fuser):
    visible, thermal, warm = street()
    weights = fuser.fuse(visible, thermal).weights
    assert weights[0][:, 8:30].mean() > 0.6
    edge = warm ^ np.roll(warm, 1, axis=1)
    assert weights[1][edge].mean() > 0.6


@pytest.mark.parametrize('settings', [FusionSettings(), SETTINGS])
def test_a_warm_object_comes_from_the_thermal_image_and_texture_from_the_visible(fuser, settings):
    visible, thermal, warm = street(120, 168)
    contributions = fuser.fuse(visible, thermal, settings=settings).contributions
    assert contributions[1][warm].mean() > 0.7
    assert contributions[0][:, 16:60].mean() > 0.7


@pytest.mark.parametrize(
    ('change', 'calls', 'steps'),
    [
        # Two refreshes of two sources; the interval from pure noise costs nothing.
        ({}, 2 * 2, 3),
        ({'noise_draws': 3}, 3 * 2 * 2, 3),
        # The same and three steps of the chain.
        ({'sampler': 'ddim'}, 2 * 2 + 3, 3),
    ],
)
def test_a_result_counts_what_it_took(fuser, change, calls, steps):
    states = []
    settings = replace(SETTINGS, **change)
    result = fuser.fuse(*street()[:2], settings=settings, callback=states.append)
    assert len(states) == steps
    assert result.prior_calls == calls
    assert result.seconds > 0


def test_same_pair_gives_the_same_bytes_also_from_another_fuser(fuser):
    visible, thermal, _ = street()
    first = fuser.fuse(visible, thermal)
    fuser.fuse(*street(32, 40)[:2])
    for other in (fuser, Fuser(SETTINGS, device='cpu', precision='fp32')):
        again = other.fuse(visible, thermal)
        assert np.array_equal(first.image, again.image)
        assert np.array_equal(first.weights, again.weights)


@pytest.mark.parametrize('sampler', ['increments', 'ancestral'])
def test_seed_changes_the_result_where_there_is_noise(fuser, sampler):
    visible, thermal, _ = street()
    images = []
    for seed in (0, 1, 1):
        settings = replace(SETTINGS, sampler=sampler, noise_draws=1, seed=seed)
        images.append(fuser.fuse(visible, thermal, settings=settings).image)
    assert not np.array_equal(images[0], images[1])
    assert np.array_equal(images[1], images[2])


def test_chroma_is_kept_where_nothing_clips(fuser):
    visible, thermal, _ = street()
    visible = np.clip(visible.astype(int) // 3 + (60, 90, 75), 0, 255).astype(np.uint8)
    fused = fuser.fuse(visible, thermal // 2 + 40).image.astype(int)
    inside = (fused.min(axis=2) > 0) & (fused.max(axis=2) < 255)
    assert inside.mean() > 0.9
    for a, b in ((0, 1), (1, 2)):
        difference = (fused[..., a] - fused[..., b]) - (
            visible[..., a].astype(int) - visible[..., b]
        )
        assert np.abs(difference[inside]).max() <= 1


def test_grey_visible_gives_a_grey_image(fuser):
    visible, thermal, _ = street()
    assert fuser.fuse(visible[..., 1], thermal).image.shape == (60, 84)


@pytest.mark.parametrize('dtype', [np.uint16, np.float32, np.float64])
def test_full_scale_of_every_type_means_the_same(fuser, dtype):
    visible, thermal, _ = street()
    scale = 257 if dtype == np.uint16 else 1 / 255
    # A second one of 16 bits is no photograph, but counts.
    second = thermal if dtype == np.uint16 else (thermal * dtype(scale)).astype(dtype)
    converted = fuser.fuse((visible * dtype(scale)).astype(dtype), second).image
    difference = converted.astype(int) - fuser.fuse(visible, thermal).image
    assert np.abs(difference).max() <= 1


def test_views_with_negative_strides_and_read_only_arrays_are_taken(fuser):
    visible, thermal, _ = street()
    expected = fuser.fuse(visible, thermal).image
    swapped = np.ascontiguousarray(visible[..., ::-1])[..., ::-1]
    swapped.flags.writeable = False
    assert np.array_equal(fuser.fuse(swapped, thermal).image, expected)


def test_thermal_of_another_size_is_resized(fuser):
    visible, thermal, warm = street()
    result = fuser.fuse(visible, np.ascontiguousarray(thermal[::2, ::2]))
    assert result.image.shape == visible.shape
    fused = result.image.mean(axis=2)
    assert fused[warm].mean() > fused[:, 42:][~warm[:, 42:]].mean() + 40


@pytest.mark.parametrize('size', [(1, 1), (5, 7), (17, 33), (64, 48)])
def test_any_size_is_fused(fuser, size):
    visible = np.full((*size, 3), 90, np.uint8)
    assert fuser.fuse(visible, np.full(size, 120, np.uint8)).image.shape == (*size, 3)


def test_constant_sources_give_a_constant_close_to_their_mean(fuser):
    image = fuser.fuse(np.full((128, 160), 60, np.uint8), np.full((128, 160), 180, np.uint8)).image
    assert abs(float(image.mean()) - 120) < 8
    assert image.std() < 3


def test_chroma_of_all_sources_counts_where_it_is_asked_for(fuser):
    _, thermal, _ = street()
    red, blue = (np.stack([thermal // 4] * 3, axis=-1) for _ in range(2))
    red[..., 2] += 120
    blue[:, 40:, 0] += 120  # grey on its left, where only red has a colour
    only_first = fuser.fuse(red, blue).image.astype(int)
    both = fuser.fuse(red, blue, settings=replace(SETTINGS, chroma='all')).image.astype(int)
    tint = [image[..., 2] - image[..., 0] for image in (only_first, both)]
    assert tint[0].min() > 60
    # Who has colour is decided by surroundings: the border is soft.
    assert tint[1][:, :24].min() > 60
    assert np.median(tint[1][:, 44:]) < 40


def test_three_sources(fuser):
    visible, thermal, _ = street()
    result = fuser.fuse(visible, thermal, thermal[::-1])
    assert result.weights.shape == (3, 60, 84)
    np.testing.assert_allclose(result.weights.sum(axis=0), 1, atol=1e-5)


@pytest.mark.parametrize('sampler', ['increments', 'ddim'])
def test_uniform_weights_alone_are_the_mean(sampler):
    visible, thermal, _ = street()
    settings = replace(
        SETTINGS, sampler=sampler, weights='uniform', guidance_scale=1.0, contrast_gain=1.0
    )
    grey = visible[..., 1]
    image = Fuser(settings, device='cpu', precision='fp32').fuse(grey, thermal).image
    mean = (grey.astype(float) + thermal) / 2
    assert np.abs(image - mean).max() <= 1


@pytest.mark.parametrize(
    ('visible', 'thermal', 'words'),
    [
        (np.zeros((4, 4, 2), np.uint8), np.zeros((4, 4), np.uint8), r'visible.*\(4, 4, 2\)'),
        (np.zeros((4, 4), np.uint8), np.zeros((0, 4), np.uint8), r'thermal.*empty'),
        (np.zeros((4, 4), np.int32), np.zeros((4, 4), np.uint8), 'visible.*int32.*ranges'),
        (np.zeros((4, 4), np.uint8), np.zeros((4, 4), bool), 'thermal.*bool'),
        (np.full((4, 4), 7.0), np.zeros((4, 4), np.uint8), r'visible.*7'),
        (np.full((4, 4), np.nan), np.zeros((4, 4), np.uint8), 'visible.*finite'),
    ],
)
def test_bad_images_are_refused_by_name(fuser, visible, thermal, words):
    with pytest.raises(FusionInputError, match=words):
        fuser.fuse(visible, thermal)


@pytest.mark.parametrize('precision', ['bf16', 'fp16'])
def test_reduced_precision_is_close_to_fp32(fuser, precision):
    visible, thermal, _ = street()
    expected = fuser.fuse(visible, thermal).image.astype(int)
    image = Fuser(SETTINGS, device='cpu', precision=precision).fuse(visible, thermal).image
    assert np.abs(image - expected).mean() < 1.5


@pytest.mark.parametrize('prior', ['compact', 'nano'])
def test_embedded_priors_keep_a_distance_from_the_end_of_fp16(prior):
    largest = []
    network = load_prior(prior).network
    for module in network.modules():
        if not list(module.children()):
            module.register_forward_hook(
                lambda _, inputs, output: largest.append(float(output.abs().max()))
            )
    noise = torch.randn((1, 1, 32, 32), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        for images in (noise, noise.sign(), torch.ones_like(noise)):
            network(images, torch.tensor([400]))
    assert 1 < max(largest) < torch.finfo(torch.float16).max / 4


class Growing(GaussianPrior):
    """Multiplies by a parameter too large for fp16, and divides again."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(60000.0))

    def denoise(self, noisy, timesteps):
        scaled = noisy.to(self.scale.dtype) * self.scale * 2
        return (scaled / self.scale / 2).to(noisy.dtype)


def test_a_prior_that_leaves_the_range_of_fp16_is_refused():
    with pytest.raises(PriorError, match=r"'gaussian'.*fp16.*bf16"):
        Fuser(SETTINGS, prior=Growing(), device='cpu', precision='fp16')
    Fuser(SETTINGS, prior=Growing(), device='cpu', precision='fp32')


class Damaged(GaussianPrior):
    """Answers one pixel with something that is no finite number."""

    def __init__(self, value):
        super().__init__()
        self.value = value

    def denoise(self, noisy, timesteps):
        estimate = super().denoise(noisy, timesteps)
        estimate[..., 3, 5] = self.value
        return estimate


@pytest.mark.parametrize('graphs', [False, True])
@pytest.mark.parametrize('value', [float('nan'), float('inf'), -float('inf')])
@pytest.mark.parametrize(
    'change', [{}, {'sampler': 'ancestral'}, {'thermal_degradation': 'blur 1.5'}]
)
def test_a_result_that_is_not_finite_is_an_error_and_no_image(value, change, graphs):
    visible, thermal, _ = street()
    settings = replace(SETTINGS, **change)
    sound = Fuser(settings, prior=GaussianPrior(), device='cpu', graphs=graphs)
    assert sound.fuse(visible, thermal, weight_maps=False).image.any()
    fuser = Fuser(settings, prior=Damaged(value), device='cpu', graphs=graphs)
    for weights in (True, False):
        with pytest.raises(NotFiniteError, match="not finite: denoiser 'gaussian' may be"):
            fuser.fuse(visible, thermal, weight_maps=weights)


@pytest.mark.cuda
@pytest.mark.parametrize('precision', ['fp32', 'bf16', 'fp16'])
def test_cuda_agrees_with_the_cpu(fuser, precision):
    visible, thermal, _ = street()
    expected = fuser.fuse(visible, thermal).image.astype(int)
    on_cuda = Fuser(SETTINGS, device='cuda', precision=precision)
    image = on_cuda.fuse(visible, thermal).image
    assert np.abs(image - expected).mean() < (0.1 if precision == 'fp32' else 1.5)
    assert np.array_equal(image, on_cuda.fuse(visible, thermal).image)


# Sources that are not to be relied on everywhere


def test_a_source_without_trust_has_no_part_in_the_fusion(fuser):
    visible, thermal, _ = street()
    result = fuser.fuse(visible, thermal, trust=(1.0, 0.0))
    np.testing.assert_array_equal(result.image, visible)
    assert (result.weights[0] == 1).all()
    assert (result.contributions[0] == 1).all()
    assert result.prior_calls == 0
    result = fuser.fuse(visible, thermal, trust=(0.0, 1.0))
    grey = result.image @ np.array([0.114, 0.587, 0.299])
    np.testing.assert_allclose(grey, thermal, atol=2)
    assert (result.weights[1] == 1).all()


def test_weight_falls_with_trust(fuser):
    visible, thermal, _ = street()
    means = [
        fuser.fuse(visible, thermal, trust=(1.0, trust)).weights[1].mean()
        for trust in (1.0, 0.75, 0.5, 0.25, 0.01, 0.0)
    ]
    assert means == sorted(means, reverse=True)
    # No jump where the last trust goes.
    nearly = fuser.fuse(visible, thermal, trust=(1.0, 0.01)).image.astype(int)
    assert np.abs(nearly - visible).max() <= 6


def test_full_trust_is_the_plain_fusion(fuser):
    visible, thermal, _ = street()
    plain = fuser.fuse(visible, thermal)
    trusted = fuser.fuse(visible, thermal, trust=(1.0, 1.0), placements=(None, None))
    np.testing.assert_array_equal(plain.image, trusted.image)


@pytest.mark.parametrize('black', [0, 255])
def test_the_weight_of_a_covered_or_saturated_camera_falls_by_itself(fuser, black):
    # Nothing but the gains says so here: trust is full.
    visible, thermal, warm = street()
    usual = fuser.fuse(visible, thermal).weights[0][:, :42].mean()
    covered = fuser.fuse(np.full_like(visible, black), thermal)
    assert covered.weights[0][:, :42].mean() < usual - 0.1
    edge = warm ^ np.roll(warm, 1, axis=1)
    assert covered.weights[1][edge].mean() > 0.6


def test_where_the_thermal_image_does_not_reach_fused_is_visible(fuser):
    visible, thermal, _ = street()
    # The thermal image covers the right half only, with its own 42 columns.
    shift = np.array([[1.0, 0, 42], [0, 1, 0], [0, 0, 1]])
    placement = Registration(shift, (42, 60), (84, 60)).placement(8.0)
    result = fuser.fuse(visible, thermal[:, 42:], placements=(None, placement))
    np.testing.assert_array_equal(result.image[:, :42], visible[:, :42])
    assert (result.weights[1][:, :42] == 0).all()
    assert (result.contributions[1][:, :42] == 0).all()
    assert result.weights[1][:, 60:].mean() > 0.3
    rise = result.weights[1][:, 42:52].mean(axis=0)
    assert rise[0] < 0.1 < rise[-1]


def test_a_registered_fusion_is_that_of_aligned_images(fuser):
    visible, thermal, _ = street()
    padded = np.pad(thermal, ((5, 7), (9, 3)), mode='reflect')
    shift = np.array([[1.0, 0, -9], [0, 1, -5], [0, 0, 1]])
    placement = Registration(shift, (96, 72), (84, 60)).placement(4.0)
    registered = fuser.fuse(visible, padded, placements=(None, placement)).image.astype(int)
    aligned = fuser.fuse(visible, thermal).image.astype(int)
    assert np.abs(registered - aligned).max() <= 2


def test_a_large_image_is_not_aliased_by_its_placement(fuser):
    visible, _, _ = street()
    # Stripes of one pixel, four to a pixel of the visible image: grey, not moire.
    stripes = np.tile(np.array([0, 255], np.uint8), (240, 168))
    scale = np.array([[0.25, 0, -0.375], [0, 0.25, -0.375], [0, 0, 1]])
    placement = Registration(scale, (336, 240), (84, 60)).placement(0.0)
    result = fuser.fuse(visible, stripes, placements=(None, placement), trust=(0.0, 1.0))
    assert result.image[4:-4, 4:-4].min() > 100
    assert result.image[4:-4, 4:-4].max() < 155
    # Nor where it covers only a corner.
    result = fuser.fuse(
        np.zeros((240, 336), np.uint8),
        stripes,
        placements=(None, Registration(scale, (336, 240), (336, 240)).placement(0.0)),
        trust=(0.0, 1.0),
    )
    assert result.image[4:56, 4:80].min() > 100
    assert result.image[4:56, 4:80].max() < 155


@pytest.mark.parametrize('degrees', [0, 70, 90, 180])
def test_nor_is_one_of_a_camera_that_is_mounted_turned(fuser, degrees):
    fine = np.random.default_rng(0).random((240, 240), dtype=np.float32)
    cosine, sine = np.cos(np.radians(degrees)) / 4, np.sin(np.radians(degrees)) / 4
    turn = np.array([[cosine, -sine, 29.5], [sine, cosine, 29.5], [0, 0, 1]])
    about = np.array([[1, 0, -119.5], [0, 1, -119.5], [0, 0, 1]])
    placement = Registration(turn @ about, (240, 240), (60, 60)).placement(0.0)
    visible = np.zeros((60, 60), np.uint8)
    result = fuser.fuse(visible, fine, placements=(None, placement), trust=(0.0, 1.0))
    # Means of 16 pixels, of which each has a deviation of 255 / sqrt(12).
    assert result.image[18:42, 18:42].std() < 1.2 * 255 / np.sqrt(12) / 4


@pytest.mark.parametrize(
    ('arguments', 'reason'),
    [
        ({'trust': (1.0, 1.5)}, 'trust'),
        ({'trust': (1.0, float('nan'))}, 'trust'),
        ({'trust': (1.0, 1.0, 1.0)}, '3 trust for 2 sources'),
        (
            {
                'placements': (
                    None,
                    Placement(
                        np.zeros((9, 9, 2), np.float32), np.ones((9, 9), np.float32), (4, 4)
                    ),
                )
            },
            'the placement of thermal is for 4x4 pixels on 9x9',
        ),
    ],
)
def test_what_does_not_fit_is_said(fuser, arguments, reason):
    visible, thermal, _ = street()
    with pytest.raises(FusionInputError, match=reason):
        fuser.fuse(visible, thermal, **arguments)


# Degraded sources


def test_a_declared_down_sampling_is_undone_in_place_of_a_resize(fuser):
    visible, thermal, _ = street(60, 84)
    clean = np.asarray(thermal, np.float32) / 255
    small = clean.reshape(15, 4, 21, 4).mean(axis=(1, 3))
    reference = fuser.fuse(visible, clean).image.astype(float)
    errors = []
    for declared in ('none', 'x4'):
        settings = replace(SETTINGS, thermal_degradation=declared)
        result = fuser.fuse(visible, small, settings=settings)
        assert result.image.shape == visible.shape
        errors.append(np.abs(result.image - reference).mean())
    assert errors[1] < 0.9 * errors[0]
    assert result.prior_calls > 2 * 2


@pytest.mark.parametrize('sampler', ['increments', 'ddim', 'ancestral'])
def test_declared_noise_is_taken_from_both_sources(fuser, sampler):
    visible, thermal, _ = street()
    rng = np.random.default_rng(2)
    noisy = [
        np.clip(image + rng.normal(0, 25, image.shape), 0, 255).astype(np.uint8)
        for image in (visible, thermal)
    ]
    settings = replace(SETTINGS, sampler=sampler)
    reference = fuser.fuse(visible, thermal, settings=settings).image.astype(float)
    errors = []
    for declared in ('none', 'noise 25'):
        image = fuser.fuse(
            *noisy,
            settings=replace(settings, visible_degradation=declared, thermal_degradation=declared),
        ).image
        errors.append(np.abs(image - reference).mean())
    assert errors[1] < 0.9 * errors[0]


def test_a_degraded_source_is_restored_before_it_is_placed(fuser):
    visible, thermal, _ = street()
    small = thermal.reshape(30, 2, 42, 2).mean(axis=(1, 3)).astype(np.uint8)
    scale = np.array([[2.0, 0, 0.5], [0, 2, 0.5], [0, 0, 1]])
    placement = Registration(scale, (42, 30), (84, 60)).placement(0.0)
    settings = replace(SETTINGS, thermal_degradation='x2')
    placed, resized = (
        fuser.fuse(visible, small, settings=settings, placements=placements).image.astype(int)
        for placements in ((None, placement), ())
    )
    assert np.abs(placed - resized)[2:-2, 2:-2].max() <= 4


def test_the_visible_image_cannot_be_declared_down_sampled():
    with pytest.raises(ValueError, match='visible_degradation'):
        replace(SETTINGS, visible_degradation='x2')
    with pytest.raises(ValueError, match=r'thermal_degradation is .*foggy'):
        replace(SETTINGS, thermal_degradation='foggy')


def test_warm_up_takes_a_small_thermal_image_where_one_is_declared():
    prior = GaussianPrior()
    fuser = Fuser(replace(SETTINGS, thermal_degradation='x4'), prior=prior, device='cpu')
    shapes = []
    denoise = prior.denoise
    prior.denoise = lambda noisy, t: (shapes.append(noisy.shape[-2:]), denoise(noisy, t))[1]
    fuser.warm_up(80, 60)
    assert set(shapes) == {(60, 80)}


@pytest.mark.parametrize(
    ('source', 'degradation'),
    [
        ('thermal', 'lepton'),
        ('thermal', 'motion 60 0'),
        ('thermal', 'x4, motion 200 90'),
        ('visible', 'motion 60 0'),
    ],
)
def test_warm_up_at_another_size_than_the_declared_cameras(source, degradation):
    settings = replace(SETTINGS, **{f'{source}_degradation': degradation})
    Fuser(settings, prior=GaussianPrior(), device='cpu').warm_up(48, 36)


# Noise and stripes, as the cameras have them


def raw(settings=SETTINGS):
    """Return settings with which the images are taken as they are."""
    return replace(settings, visible_degradation='none', thermal_degradation='none')


def with_noise(deviation, height=60, width=84):
    """Return a pair of the street whose white noise has this deviation."""
    random = np.random.default_rng(2)
    return [
        np.clip(np.rint(image + random.normal(0, deviation, image.shape)), 0, 255).astype(np.uint8)
        for image in street(height, width)[:2]
    ]


def grey(image):
    return image.astype(float) @ np.array([0.114, 0.587, 0.299])


@pytest.mark.parametrize('sampler', ['increments', 'ddim'])
def test_clean_images_are_fused_as_they_are(fuser, sampler):
    settings = replace(SETTINGS, sampler=sampler)
    pair = street()[:2]
    usual = fuser.fuse(*pair, settings=settings)
    expected = fuser.fuse(*pair, settings=raw(settings))
    np.testing.assert_array_equal(usual.image, expected.image)
    np.testing.assert_array_equal(usual.weights, expected.weights)
    assert usual.prior_calls == expected.prior_calls


@pytest.mark.parametrize('deviation', [10, 30])
def test_noise_that_nobody_declared_is_found_and_taken_out(fuser, deviation):
    clean = grey(fuser.fuse(*street()[:2]).image)
    pair = with_noise(deviation)
    errors = [
        np.abs(grey(fuser.fuse(*pair, settings=settings).image) - clean).mean()
        for settings in (SETTINGS, raw())
    ]
    assert errors[0] < 0.75 * errors[1]


def test_a_black_visible_camera_leaves_the_thermal_image(fuser):
    # At full trust: nothing but the images says so.
    visible, thermal, warm = street()
    result = fuser.fuse(np.zeros_like(visible), thermal)
    fused = grey(result.image)
    assert np.corrcoef(fused.ravel(), thermal.ravel())[0, 1] > 0.98
    assert abs(fused[warm].mean() - 230) < 25
    assert result.weights[1].mean() > 0.85
    # Without the gate, it is half as bright.
    halved = fuser.fuse(
        np.zeros_like(visible), thermal, settings=replace(SETTINGS, least_information=0.0)
    )
    assert grey(halved.image).mean() < 0.8 * fused.mean()


def test_thermal_strength_leads_from_one_camera_to_the_other(fuser):
    visible, thermal, warm = street()
    fused = [
        grey(fuser.fuse(visible, thermal, settings=replace(SETTINGS, thermal_strength=each)).image)
        for each in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]
    np.testing.assert_allclose(fused[0], grey(visible), atol=1.5)
    np.testing.assert_allclose(fused[-1], thermal, atol=1.5)
    brightness = [image[warm].mean() for image in fused]
    assert brightness == sorted(brightness)


def test_stripes_of_the_thermal_camera_are_taken_out(fuser):
    visible, thermal, _ = street()
    clean = grey(fuser.fuse(visible, thermal).image)
    offsets = np.random.default_rng(3).normal(0, 8, (1, thermal.shape[1]))
    striped = np.clip(np.rint(thermal + offsets), 0, 255).astype(np.uint8)
    errors = [
        np.abs(grey(fuser.fuse(visible, striped, settings=settings).image) - clean).mean()
        for settings in (SETTINGS, replace(SETTINGS, thermal_degradation='noise auto'))
    ]
    assert errors[0] < 0.5 * errors[1]


def test_a_flat_thermal_image_is_stretched(fuser):
    visible, thermal, warm = street()
    flat = np.rint(100 + 0.12 * (thermal.astype(float) - thermal.mean())).astype(np.uint8)
    settings = replace(SETTINGS, thermal_degradation='stripes auto, noise auto')
    around = ~warm
    contrasts = [
        grey(result.image)[warm].mean() - grey(result.image)[around].mean()
        for result in (
            fuser.fuse(visible, thermal),
            fuser.fuse(visible, flat),
            fuser.fuse(visible, flat, settings=settings),
        )
    ]
    assert contrasts[1] > 0.5 * contrasts[0]
    assert contrasts[1] > contrasts[2] + 20


def test_a_blurred_thermal_image_is_sharpened(fuser):
    random = np.random.default_rng(0)
    visible, thermal = (np.full((128, 160), 40, np.float32) for _ in range(2))
    for image in (visible, thermal):
        for _ in range(60):
            row, column = random.integers(0, 110), random.integers(0, 140)
            height, width = random.integers(4, 40), random.integers(4, 40)
            image[row : row + height, column : column + width] = random.uniform(20, 230)
    visible, sharp = np.rint(visible).astype(np.uint8), np.rint(thermal).astype(np.uint8)
    blurred = np.rint(cv2.GaussianBlur(thermal, (0, 0), 3)).astype(np.uint8)
    as_it_is = replace(SETTINGS, thermal_degradation='stripes auto, contrast auto, noise auto')
    blur = measure_noise(blurred, full_scale=255, blur=True).blur
    assert blur.deviation == pytest.approx(3, rel=0.25)
    result = fuser.fuse(visible, blurred)
    known = [None, SensorNoise(blur=blur)]
    np.testing.assert_array_equal(fuser.fuse(visible, blurred, noise=known).image, result.image)
    goal = fuser.fuse(visible, sharp).image.astype(float)
    before = fuser.fuse(visible, blurred, settings=as_it_is).image
    assert np.abs(result.image - goal).mean() < 0.9 * np.abs(before - goal).mean()
    unblurred = fuser.fuse(visible, sharp, settings=as_it_is)
    np.testing.assert_array_equal(fuser.fuse(visible, sharp).image, unblurred.image)


def test_a_very_blurred_thermal_image_counts_less_beside_one_that_shows_something(fuser):
    random = np.random.default_rng(0)
    visible, thermal = np.full((128, 160, 3), 60, np.uint8), np.full((128, 160), 60, np.uint8)
    for image in (visible, thermal):
        for _ in range(60):
            row, column = random.integers(0, 110), random.integers(0, 140)
            height, width = random.integers(4, 40), random.integers(4, 40)
            image[row : row + height, column : column + width] = random.uniform(20, 230)
    blurred = cv2.GaussianBlur(thermal, (0, 0), 5, borderType=cv2.BORDER_REFLECT_101)
    sharpened = deblurred(blurred, Blur(deviation=5), full_scale=255)[0]
    dark = visible // 64

    def weight(*pair):
        return fuser.fuse(*pair).weights[1].mean()

    assert weight(visible, blurred) < 0.4 * weight(visible, sharpened)
    assert weight(dark, blurred) > 0.9 * weight(dark, sharpened) > 0.7


def blocks(height, width, seed):
    """Return an image of blocks of any size and brightness, uint8."""
    random = np.random.default_rng(seed)
    image = np.full((height, width), 40, np.uint8)
    for _ in range(60):
        row, column = random.integers(0, height - 18), random.integers(0, width - 20)
        rows, columns = random.integers(4, 40), random.integers(4, 40)
        image[row : row + rows, column : column + columns] = random.integers(20, 230)
    return image


def of_fewer_pixels(image, factor):
    height, width = image.shape
    return cv2.resize(image, (width // factor, height // factor), interpolation=cv2.INTER_AREA)


@pytest.mark.parametrize('is_placed', [False, True])
def test_a_thermal_image_of_fewer_pixels_is_sharpened(fuser, is_placed):
    # Hardly anything in it is too fine for a quarter of the pixels.
    visible, thermal = blocks(128, 160, 0), cv2.GaussianBlur(blocks(128, 160, 1), (0, 0), 3)
    small = of_fewer_pixels(thermal, 4)
    scale = np.array([[4.0, 0, 1.5], [0, 4, 1.5], [0, 0, 1]])
    placement = Registration(scale, (40, 32), (160, 128)).placement(0.0)
    placements = (None, placement) if is_placed else ()
    as_it_is = replace(SETTINGS, thermal_degradation='stripes auto, contrast auto, noise auto')
    goal = fuser.fuse(visible, thermal, settings=as_it_is).image.astype(float)
    result = fuser.fuse(visible, small, placements=placements).image
    before = fuser.fuse(visible, small, placements=placements, settings=as_it_is).image
    assert np.abs(result - goal).mean() < 0.9 * np.abs(before - goal).mean()


def test_what_is_declared_is_not_sharpened_once_more(fuser):
    visible, small = blocks(128, 160, 0), of_fewer_pixels(blocks(128, 160, 1), 4)
    images = [
        fuser.fuse(visible, small, settings=replace(SETTINGS, thermal_degradation=text)).image
        for text in ('x4', 'x4, blur auto')
    ]
    np.testing.assert_array_equal(*images)


def test_a_thermal_image_of_very_few_pixels_counts_less_beside_one_that_shows_something(fuser):
    visible, thermal = blocks(128, 160, 0), blocks(128, 160, 1)
    fewest, fewer = of_fewer_pixels(thermal, 8), of_fewer_pixels(thermal, 4)
    dark = visible // 64

    def weight(*pair):
        return fuser.fuse(*pair).weights[1].mean()

    assert weight(visible, fewest) < 0.4 * weight(visible, fewer)
    assert weight(dark, fewest) > 0.9 * weight(dark, fewer) > 0.7


def test_what_is_known_of_the_noise_counts_in_place_of_a_measurement(fuser):
    pair = with_noise(15)
    measured = [
        measure_noise(pair[0], full_scale=255, stripes=False),
        measure_noise(pair[1], full_scale=255),
    ]
    usual = fuser.fuse(*pair)
    for known in (measured, measured[:1], [None, measured[1]]):
        result = fuser.fuse(*pair, noise=known)
        np.testing.assert_array_equal(result.image, usual.image)
    quiet = fuser.fuse(*pair, noise=[SensorNoise(), SensorNoise()])
    np.testing.assert_array_equal(quiet.image, fuser.fuse(*pair, settings=raw()).image)
    loud = [SensorNoise(CameraNoise(60.0, 0.0, 60.0))] * 2
    assert not np.array_equal(fuser.fuse(*pair, noise=loud).image, usual.image)
    # Of what is declared otherwise, nothing is taken.
    for settings in (raw(), replace(raw(), thermal_degradation='noise 15')):
        expected = fuser.fuse(*pair, settings=settings).image
        given = fuser.fuse(*pair, settings=settings, noise=loud).image
        np.testing.assert_array_equal(given, expected)
    with pytest.raises(FusionInputError, match='3 noises for 2 sources'):
        fuser.fuse(*pair, noise=[None] * 3)


def test_images_too_small_to_tell_their_noise_are_fused_as_they_are(fuser):
    pair = with_noise(25, 31, 84)
    usual, expected = fuser.fuse(*pair), fuser.fuse(*pair, settings=raw())
    np.testing.assert_array_equal(usual.image, expected.image)
    assert usual.prior_calls == expected.prior_calls


# Thermal counts, as they come from a camera


def counts_of(thermal, low=7273, span=555):
    return np.rint(low + thermal * (span / 255.0)).astype(np.uint16)


def contrast(image, warm):
    grey = image if image.ndim == 2 else image.mean(axis=2)
    return grey[warm].mean() - grey[:, 42:][~warm[:, 42:]].mean()


@pytest.mark.parametrize('of', [np.uint16, np.int32, np.float32, np.float64])
def test_counts_are_mapped_as_in_the_node(fuser, of):
    visible, thermal, warm = street()
    counts = counts_of(thermal).astype(of)
    result = fuser.fuse(visible, counts)
    expected = fuser.fuse(visible, ThermalRange()(counts, 0.0))
    np.testing.assert_array_equal(result.image, expected.image)
    eight_bits = contrast(fuser.fuse(visible, thermal).image, warm)
    assert contrast(result.image, warm) > 0.8 * eight_bits > 30
    # The third source, too, and a plane of one channel.
    third = fuser.fuse(visible, thermal, counts[..., None]).image
    mapped = fuser.fuse(visible, thermal, ThermalRange()(counts, 0.0)).image
    np.testing.assert_array_equal(third, mapped)


def test_a_range_that_is_kept_follows_the_scene(fuser):
    visible, thermal, _ = street()
    kept, alone, reference = ThermalRange(), ThermalRange(), ThermalRange()
    for index, span in enumerate((400, 800)):
        counts = counts_of(thermal, span=span)
        following = fuser.fuse(visible, counts, ranges=(None, kept), stamp=0.1 * index).image
        by_itself = fuser.fuse(visible, counts, ranges=(None, alone)).image
        expected = fuser.fuse(visible, reference(counts, 0.1 * index)).image
        np.testing.assert_array_equal(following, expected)
        np.testing.assert_array_equal(by_itself, fuser.fuse(visible, counts).image)
    assert (following != by_itself).any()


def test_counts_without_data_have_no_weight(fuser):
    visible, thermal, _ = street()
    counts = counts_of(thermal)
    counts[:12] = 0
    result = fuser.fuse(visible, counts)
    assert result.weights[1][:12].max() < 1e-3
    assert result.weights[1][40:].max() > 0.3
    kelvin = counts_of(thermal, 28400, 2200).astype(np.float32) / 100
    kelvin[:12] = np.nan
    ranges = ThermalRange()
    result = fuser.fuse(visible, kelvin, ranges=(None, ranges))
    assert result.weights[1][:12].max() < 1e-3
    assert ranges.no_data.mask[:12].all()


def test_what_ranges_cannot_map_is_refused(fuser):
    visible, thermal, _ = street()
    with pytest.raises(FusionInputError, match=r'thermal: .* no finite value'):
        fuser.fuse(visible, np.full(thermal.shape, np.nan))
    with pytest.raises(FusionInputError, match='3 ranges for 2 sources'):
        fuser.fuse(visible, thermal, ranges=(None, None, None))
    with pytest.raises(FusionInputError, match='3 placements for 2 sources'):
        fuser.fuse(visible, thermal, placements=(None, None, None))
    with pytest.raises(FusionInputError, match='ThermalRange among ranges'):
        fuser.fuse(visible, thermal / 255 * 1.2)
    palette = cv2.applyColorMap(thermal, cv2.COLORMAP_JET)
    with pytest.raises(FusionInputError, match=r'thermal: .*colour palette'):
        fuser.fuse(visible, palette, ranges=(None, ThermalRange()))


# The restored sources


@pytest.mark.parametrize('declared', ['none', 'noise 25'])
@pytest.mark.parametrize('sampler', ['increments', 'ddim'])
def test_restored_sources_are_those_of_a_fusion_of_one(fuser, sampler, declared):
    visible, thermal, _ = street()
    settings = replace(
        SETTINGS, sampler=sampler, visible_degradation=declared, thermal_degradation=declared
    )
    usual = fuser.fuse(visible, thermal, settings=settings)
    assert usual.restored == ()
    result = fuser.fuse(visible, thermal, settings=settings, restored=True)
    np.testing.assert_array_equal(result.image, usual.image)
    np.testing.assert_array_equal(result.weights, usual.weights)
    assert result.prior_calls == usual.prior_calls
    only_visible = fuser.fuse(visible, thermal, settings=settings, trust=(1.0, 0.0), restored=True)
    only_thermal = fuser.fuse(visible[..., 0], thermal, settings=settings, trust=(0.0, 1.0))
    for restored in (result.restored, only_visible.restored):
        assert len(restored) == 2
    # Noise is taken out of both in one batch, which may round otherwise.
    tolerance = 0 if declared == 'none' else 1
    np.testing.assert_allclose(result.restored[0], only_visible.image, atol=tolerance)
    np.testing.assert_allclose(result.restored[1], only_thermal.image, atol=tolerance)
    np.testing.assert_array_equal(only_visible.restored[0], only_visible.image)
    if declared == 'none':
        np.testing.assert_array_equal(result.restored[0], visible)
        np.testing.assert_array_equal(result.restored[1], thermal)


@pytest.mark.parametrize(
    ('images', 'shapes'),
    [
        (lambda v, t: (v, t.astype(np.float64) / 255), [(60, 84, 3), (60, 84)]),
        (lambda v, t: (v[..., 0], t / np.float32(255)), [(60, 84), (60, 84)]),
        (lambda v, t: (v / 255, v), [(60, 84, 3), (60, 84, 3)]),
        (lambda v, t: (v, t[::2, ::2], t), [(60, 84, 3), (60, 84), (60, 84)]),
    ],
)
def test_restored_sources_are_of_eight_bits_on_the_pixels_of_the_first(fuser, images, shapes):
    visible, thermal, _ = street()
    given = images(visible, thermal)
    restored = fuser.fuse(*given, restored=True).restored
    assert [image.shape for image in restored] == shapes
    assert all(image.dtype == np.uint8 for image in restored)
    np.testing.assert_array_equal(restored[0], visible if len(shapes[0]) == 3 else visible[..., 0])
    expected = visible if len(shapes[-1]) == 3 else thermal
    np.testing.assert_array_equal(restored[-1], expected)


@pytest.mark.parametrize('trust', [(1.0, 1.0), (0.0, 1.0), (1.0, 0.0), (0.5, 0.5)])
def test_a_restored_source_is_black_beyond_its_reach_whatever_its_trust(fuser, trust):
    visible, thermal, _ = street()
    shift = np.array([[1.0, 0, 42], [0, 1, 0], [0, 0, 1]])
    placement = Registration(shift, (42, 60), (84, 60)).placement(8.0)
    restored = fuser.fuse(
        visible, thermal[:, 42:], placements=(None, placement), trust=trust, restored=True
    ).restored
    np.testing.assert_array_equal(restored[0], visible)
    assert (restored[1][:, :42] == 0).all()
    whole = placement.coverage == 1
    assert whole.any()
    np.testing.assert_allclose(restored[1][whole], thermal[whole], atol=1)


@pytest.mark.slow
@pytest.mark.parametrize('declared', ['blur 2.0', 'x2'])
def test_a_long_chain_does_not_pile_up_what_no_camera_saw(declared):
    # 25 steps from nearly pure noise, as in config/paper.yaml.
    rows, columns = np.mgrid[:48, :64]
    visible = (110 + 60 * np.sin(rows / 3) * np.cos(columns / 4)).astype(np.uint8)
    thermal = np.where((rows - 24) ** 2 + (columns - 30) ** 2 < 120, 220, 60 + columns)
    if declared == 'x2':
        degraded = thermal.reshape(24, 2, 32, 2).mean(axis=(1, 3))
    else:
        degraded = cv2.GaussianBlur(thermal.astype(float), (0, 0), 2.0)
    settings = FusionSettings(
        sampler='ancestral', num_inference_steps=25, dig_refresh_interval=10, first_timestep=999
    )
    fuser = Fuser(settings, device='cpu', precision='fp32')

    def error(image, reference):
        return np.abs(image.astype(float) - reference).mean()

    clean = fuser.fuse(visible, thermal.astype(np.uint8)).image.astype(float)
    as_it_is = replace(settings, thermal_degradation='none')
    plain = fuser.fuse(visible, degraded.astype(np.uint8), settings=as_it_is).image
    declaring = replace(settings, thermal_degradation=declared)
    restored = fuser.fuse(visible, degraded.astype(np.uint8), settings=declaring).image
    assert error(restored, clean) < error(plain, clean)


def test_a_factor_that_would_take_all_memory_is_refused(fuser):
    visible, _, _ = street()
    settings = replace(SETTINGS, thermal_degradation='x16')
    large = np.zeros((400, 640), np.uint8)
    with pytest.raises(ValueError, match=r'into 10240x6400 pixels: declare a smaller factor'):
        fuser.fuse(visible, large, settings=settings)


@pytest.mark.slow
def test_a_fusion_is_given_up_within_the_calls_of_its_first_step():
    visible, thermal, _ = street()
    settings = FusionSettings(num_inference_steps=999, first_timestep=999, noise_draws=4)
    fuser = Fuser(settings, prior='nano', device='cpu', precision='fp32')
    steps, asked = [], []

    def cancelled():
        asked.append(None)
        return len(asked) > 2

    with pytest.raises(FusionCancelled):
        fuser.fuse(visible, thermal, callback=steps.append, cancelled=cancelled)
    assert len(asked) == 3
    assert not steps
    settings = FusionSettings(num_inference_steps=2)
    watched = fuser.fuse(visible, thermal, settings=settings, cancelled=lambda: False)
    unwatched = fuser.fuse(visible, thermal, settings=settings)
    np.testing.assert_array_equal(watched.image, unwatched.image)


def test_stripes_of_another_size_are_refused():
    stripes = Stripes(columns=3.0, column_offsets=np.zeros(30, np.float32))
    image = np.full((40, 48), 90, np.uint8)
    with pytest.raises(FusionInputError, match='stripes of 30 columns, but the image has 48'):
        Fuser(prior='nano', device='cpu').fuse(
            image, image, noise=(None, SensorNoise(CameraNoise(), stripes))
        )
