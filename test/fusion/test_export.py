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

"""The ONNX file of a fusion: does another runtime compute the same with it?"""

from dataclasses import replace
import json

import numpy as np
import pytest
import torch

from dig2dig_ros.fusion.export import ExportedFusion, ExportError, left_out, without_estimates
from dig2dig_ros.fusion.fuser import Fuser
from dig2dig_ros.fusion.settings import FusionSettings
from dig2dig_ros.images.registration import Registration
from dig2dig_ros.priors.base import PriorError
from dig2dig_ros.priors.compact import CompactConfig, CompactPrior, CompactUNet

from .priors import GaussianPrior

SIZE = 64, 48
CLEAN = FusionSettings(visible_degradation='none', thermal_degradation='none')


def small_prior():
    """Return a denoiser of one level, whose weights are random."""
    torch.manual_seed(0)
    network = CompactUNet(CompactConfig(widths=(8,), blocks=(1,), stem=2))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return CompactPrior(network, 'small').eval()


def images(size=SIZE, thermal_size=SIZE):
    rng = np.random.default_rng(5)
    visible = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return visible, rng.random(thermal_size[::-1], dtype=np.float32)


def run(model, visible, thermal):
    runtime = pytest.importorskip('onnxruntime')
    session = runtime.InferenceSession(model, providers=['CPUExecutionProvider'])
    fused, weights = session.run(None, {'visible': visible[None], 'thermal': thermal[None]})
    return fused[0], weights[0]


def float64_tensors(graph):
    onnx = pytest.importorskip('onnx')
    named = [(each.name, each.data_type) for each in graph.initializer]
    named += [(each.name, each.type.tensor_type.elem_type) for each in graph.value_info]
    return [name for name, kind in named if kind == onnx.TensorProto.DOUBLE]


@pytest.mark.slow
def test_the_file_computes_what_the_fuser_does_and_describes_itself():
    onnx = pytest.importorskip('onnx')
    pytest.importorskip('onnxscript')
    prior = small_prior()
    chosen = {'thermal_strength': 0.6, 'visible_brightness': 0.5}
    fusion = ExportedFusion(prior, FusionSettings(**chosen), SIZE)
    model = fusion.to_onnx({'preset': 'realtime'})
    visible, thermal = images()

    fused, weights = run(model, visible, thermal)
    settings = replace(CLEAN, **chosen)
    expected = Fuser(settings, prior=prior, device='cpu', precision='fp32').fuse(visible, thermal)
    assert np.abs(fused.astype(int) - expected.image).max() <= 1
    assert (fused == expected.image).mean() > 0.999
    np.testing.assert_allclose(weights, expected.weights, atol=1e-5)
    again, _ = run(model, visible, thermal)
    assert (again == fused).all()

    found = fusion.deviation(model, visible, thermal)
    assert found.fused < 0.01
    assert found.weights < 1e-5

    proto = onnx.load_from_string(model)
    onnx.checker.check_model(proto, full_check=True)
    facts = {each.key: each.value for each in proto.metadata_props}
    assert facts['dig2dig.size'] == facts['dig2dig.thermal_size'] == '64x48'
    assert facts['dig2dig.preset'] == 'realtime'
    assert 'blue-green-red' in facts['dig2dig.visible']
    stated = FusionSettings(**json.loads(facts['dig2dig.settings']))
    assert stated == without_estimates(FusionSettings(**chosen))
    # TensorRT has no float64, and does nothing with 8-bit images but convert them.
    assert not float64_tensors(proto.graph)
    users = [each.op_type for each in proto.graph.node if 'visible' in each.input]
    makers = [each.op_type for each in proto.graph.node if 'fused' in each.output]
    assert users == makers == ['Cast']
    assert b'/fusion/' not in model
    assert b'.py' not in model


@pytest.mark.slow
def test_registration_and_declared_noise_are_baked_in():
    onnx = pytest.importorskip('onnx')
    pytest.importorskip('onnxscript')
    size, thermal_size = (66, 50), (32, 24)
    matrix = np.array([[2.1, 0.05, -1.0], [-0.04, 2.05, 2.0], [0.0, 0.0, 1.0]])
    placement = Registration(matrix, thermal_size, size).placement(4.0)
    settings = FusionSettings(
        prior_downscale=2,
        num_inference_steps=2,
        visible_degradation='none',
        thermal_degradation='noise 12',
    )
    prior = small_prior()
    fusion = ExportedFusion(prior, settings, size, placement)
    model = fusion.to_onnx()
    visible, thermal = images(size, thermal_size)

    fused, weights = run(model, visible, thermal)
    fuser = Fuser(settings, prior=prior, device='cpu', precision='fp32')
    expected = fuser.fuse(visible, thermal, placements=[None, placement])
    assert np.abs(fused.astype(int) - expected.image).max() <= 1
    assert (fused == expected.image).mean() > 0.999
    np.testing.assert_allclose(weights, expected.weights, atol=1e-5)
    assert weights[1, 0, 0] == 0  # where the thermal camera does not reach
    assert not float64_tensors(onnx.load_from_string(model).graph)


@pytest.mark.slow
@pytest.mark.parametrize('thermal_size', [(32, 24), (8, 6)])
def test_a_small_thermal_image_is_sharpened_and_weighed_as_by_the_fuser(thermal_size):
    pytest.importorskip('onnx')
    pytest.importorskip('onnxscript')
    factor = SIZE[0] / thermal_size[0]
    matrix = np.array([[factor, 0, factor / 2 - 0.5], [0, factor, factor / 2 - 0.5], [0, 0, 1]])
    placement = Registration(matrix, thermal_size, SIZE).placement(0.0)
    settings = replace(CLEAN, thermal_degradation='blur auto')
    prior = small_prior()
    fusion = ExportedFusion(prior, settings, SIZE, placement)
    visible, thermal = images(SIZE, thermal_size)
    fused, weights = run(fusion.to_onnx(), visible, thermal)
    fuser = Fuser(settings, prior=prior, device='cpu', precision='fp32')
    expected = fuser.fuse(visible, thermal, placements=[None, placement])
    assert np.abs(fused.astype(int) - expected.image).max() <= 1
    np.testing.assert_allclose(weights, expected.weights, atol=1e-5)
    plain = fuser.fuse(visible, thermal, placements=[None, placement], settings=CLEAN)
    assert np.abs(fused.astype(int) - plain.image).max() > 5


@pytest.mark.slow
def test_a_deviation_is_seen():
    """A file of other settings is not taken for that of these."""
    pytest.importorskip('onnxscript')
    other = ExportedFusion(small_prior(), replace(CLEAN, weights='uniform'), (16, 16)).to_onnx()
    fusion = ExportedFusion(small_prior(), replace(CLEAN, thermal_strength=0.0), (16, 16))
    found = fusion.deviation(other, *images((16, 16), (16, 16)))
    assert found.fused > 0.5
    assert found.weights > 0.4


@pytest.mark.parametrize(
    ('changes', 'reason'),
    [
        ({'sampler': 'ddim'}, "use sampler 'increments'"),
        ({'noise_draws': 2}, 'use 0'),
        ({'visible_degradation': 'blur 2'}, "visible_degradation is 'blur 2', but"),
        ({'thermal_degradation': 'boson'}, 'down-sampling'),
    ],
)
def test_what_cannot_be_exported_is_refused(changes, reason):
    with pytest.raises(ExportError, match=reason):
        ExportedFusion(small_prior(), FusionSettings(**changes), SIZE)


def test_other_denoisers_and_unknown_timesteps_are_refused():
    with pytest.raises(ExportError, match="denoiser 'gaussian' cannot be exported"):
        ExportedFusion(GaussianPrior(), FusionSettings(), SIZE)
    prior = CompactPrior(CompactUNet(CompactConfig((8,), (1,), 2, num_train_timesteps=100)))
    with pytest.raises(PriorError, match='first_timestep'):
        ExportedFusion(prior, FusionSettings(), SIZE)


def test_a_registration_of_another_size_is_refused():
    placement = Registration(np.eye(3), (32, 24), (32, 24)).placement(4.0)
    with pytest.raises(ExportError, match='of 32x24 pixels, not of 64x48'):
        ExportedFusion(small_prior(), FusionSettings(), SIZE, placement)


def test_what_is_estimated_from_each_image_is_left_out():
    settings = FusionSettings(thermal_degradation='stripes auto, noise 5')
    assert left_out(settings) == {'visible': 'noise auto', 'thermal': 'stripes auto'}
    kept = without_estimates(settings)
    assert (kept.visible_degradation, kept.thermal_degradation) == ('none', 'noise 5')
    assert left_out(kept) == {}
