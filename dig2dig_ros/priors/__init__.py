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

"""Pretrained denoisers behind one small interface."""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path

from dig2dig_ros.priors.base import Prior, PriorError
from dig2dig_ros.priors.compact import CompactPrior
from dig2dig_ros.priors.pretrained import PretrainedPrior

EMBEDDED_PRIORS = ('compact', 'nano')

__all__ = ['EMBEDDED_PRIORS', 'Prior', 'PriorError', 'load_prior']


def load_prior(name: str) -> Prior:
    """
    Load a prior, ready for inference on the CPU in float32.

    Loading never executes code from a file, and never uses the network. All but the first two
    kinds need the Python package diffusers.

    :param name: one of

        - ``compact``, or ``nano`` of a quarter of its operations, embedded in this package;
        - the path of a ``.safetensors`` file that ``dig2dig train`` wrote;
        - the path of an unconditional checkpoint of guided-diffusion, such as
          ``256x256_diffusion_uncond.pt``;
        - the path of a folder with a ``UNet2DModel`` of diffusers or a pipeline around one.
    :raises PriorError: unknown name, or a file that cannot be used; the message says why.
    """
    if name in EMBEDDED_PRIORS:
        resource = files('dig2dig_ros.priors') / 'weights' / f'{name}.safetensors'
        with as_file(resource) as path:
            prior: Prior = CompactPrior.from_file(path, name)
    else:
        path = Path(name).expanduser()
        if path.is_dir():
            prior = PretrainedPrior.from_diffusers(path)
        elif not path.is_file():
            raise PriorError(
                f"denoiser '{name}' is neither an embedded denoiser {EMBEDDED_PRIORS} nor a file "
                'or folder: give the full path of one'
            )
        elif path.suffix == '.safetensors':
            prior = CompactPrior.from_file(path, path.stem)
        else:
            prior = PretrainedPrior.from_guided_diffusion(path)
    return prior.eval().requires_grad_(False)
