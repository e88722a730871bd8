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

"""
Export the fusion for one image size as an ONNX file, for programs without Python: C++, TensorRT.

Two images in (visible: uint8, 1xHxWx3, blue-green-red; thermal: float32, 1xhxw, 0 to 1), two
arrays out (fused: uint8, as visible; weights: float32, 1x2xHxW). Settings, denoiser and
registration are baked in. The file does not contain what the node estimates from each image:
noise auto, stripes auto, contrast auto and the range of thermal counts. Noise declared with a
number is removed.

Before it is written, the file is checked: on random images and on the synthetic street, ONNX
Runtime and PyTorch must agree to half a grey level. docs/export.md has examples.

The differences go to standard output, everything else to standard error. Exit code: 0; 2 if
something cannot be exported, or differs; 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from dig2dig_ros.evaluation.fusion_timing import moving_pairs
from dig2dig_ros.evaluation.options import (
    add_fusion_options,
    chosen_parameters,
    find_registration,
    report,
    set_up_fuser,
    size_argument,
    UsageError,
)
from dig2dig_ros.images.output_files import check_output_file
from dig2dig_ros.nodes.signals import run_tool
from dig2dig_ros.streams.parameters import PARAMETERS_BY_NAME

# Importing torch takes seconds, so a wrong command line is reported before.
if TYPE_CHECKING:
    from dig2dig_ros.fusion.export import ExportedFusion
    from dig2dig_ros.images.registration import Registration

# In grey levels of 255, for the fused image and the weights.
_TOLERANCE = 0.5
# The street cannot be drawn smaller.
_LEAST_SIDE = 16

Pair = tuple[NDArray[np.uint8], NDArray[np.float32]]


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; exit with code 2 if it is invalid."""
    parser = argparse.ArgumentParser(
        prog='dig2dig export',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    # fmt: off
    add('--size', type=size_argument, metavar='WIDTHxHEIGHT',
        help='size of the visible image (without a registration, of both); default: that of the '
        'registration')
    add('-o', '--output', type=Path, default=Path('fusion.onnx'), metavar='FILE',
        help='file to write; default: fusion.onnx')
    add('--overwrite', action='store_true', help='replace the file if it exists')
    add('--thermal-to-visible', metavar='FILE',
        help='registration to bake in, from dig2dig calibrate; default: the images are aligned')
    add_fusion_options(parser)
    # fmt: on
    return parser.parse_args(argv)


def chosen_size(
    size: tuple[int, int] | None, registration: Registration | None
) -> tuple[int, int]:
    """
    Return (width, height) of the visible image.

    :raises UsageError: neither the command line nor a registration gives it, or it is too small.
    """
    if size is None and registration is None:
        raise UsageError('the size of the images is missing: give it, for example --size 640x512')
    width, height = size or registration.visible_size  # type: ignore[union-attr]
    if min(width, height) < _LEAST_SIDE:
        raise UsageError(
            f'{width}x{height} is too small: each side must have at least {_LEAST_SIDE} pixels'
        )
    return width, height


def pairs_to_check(fusion: ExportedFusion) -> Iterator[tuple[str, Pair]]:
    """Yield named pairs of images in the sizes of a fusion."""
    width, height = fusion.size
    columns, rows = fusion.thermal_size
    random = np.random.default_rng(0)
    noise = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
    yield 'random images', (noise, random.random((rows, columns), dtype=np.float32))
    for visible, thermal in moving_pairs(width, height, 1):
        small = cv2.resize(thermal, (columns, rows), interpolation=cv2.INTER_AREA)
        yield 'synthetic street', (visible, small.astype(np.float32) / 255)


def check(fusion: ExportedFusion, model: bytes) -> None:
    """
    Compare the file with PyTorch, and print how much they differ.

    :raises UsageError: they differ by more than half a grey level.
    """
    for name, (visible, thermal) in pairs_to_check(fusion):
        found = fusion.deviation(model, visible, thermal)
        print(
            f'{name}: fused image at most {found.fused:.4f} grey levels off PyTorch, beyond '
            f'rounding; weights at most {found.weights:.1e} off',
            flush=True,
        )
        # NaN fails this comparison.
        if not (found.fused <= _TOLERANCE and 255 * found.weights <= _TOLERANCE):
            raise UsageError(
                f'ONNX Runtime and PyTorch differ by more than {_TOLERANCE} grey levels on '
                f'{name}: nothing is written; try other versions of onnxruntime and onnxscript'
            )


def export(args: argparse.Namespace) -> int:
    """
    Run the command.

    :return: the exit code.
    :raises UsageError: it cannot be done.
    :raises OSError: the file cannot be written.
    """
    check_output_file(args.output, args.overwrite)
    parameters = chosen_parameters(args)
    registration = find_registration(parameters)
    size = chosen_size(args.size, registration)
    # The program that loads the file chooses precision and device.
    fuser = set_up_fuser({**parameters, 'device': 'cpu', 'precision': 'fp32'})

    from dig2dig_ros.fusion.export import ExportedFusion, ExportError, left_out
    from dig2dig_ros.priors import PriorError

    edge = parameters.get('registration_edge', PARAMETERS_BY_NAME['registration_edge'].default)
    placement = None if registration is None else registration.placement(float(edge))
    try:
        fusion = ExportedFusion(fuser.prior, fuser.settings, size, placement)
        for camera, terms in left_out(fuser.settings).items():
            report(f'not in the file, as it is estimated from each image: {terms} ({camera})')
        report('tracing the computation; this takes about a minute')
        model = fusion.to_onnx({'preset': args.preset or ''})
        check(fusion, model)
    except (ExportError, PriorError) as error:
        raise UsageError(str(error)) from error
    args.output.write_bytes(model)
    print(f'{args.output}: {size[0]}x{size[1]}, {len(model) / 1e6:.1f} MB')
    return 0


def main(argv: Sequence[str]) -> int:
    """Run the tool; see the module's description."""
    return run_tool(
        'dig2dig export', lambda: export(parse_arguments(argv)), 'interrupted, nothing is written'
    )
