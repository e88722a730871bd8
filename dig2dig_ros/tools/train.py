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
Train a denoiser with the architecture of compact on folders of images.

Every batch is a function of (seed, step), so a resumed run sees the same data as an uninterrupted
one. The learning rate is constant after a warm-up and falls to zero over the last --decay-steps;
to extend a run, ask for more --steps.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
import copy
from datetime import datetime, timezone
import math
from pathlib import Path
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray
import torch
from torch import Tensor

from dig2dig_ros.evaluation.options import positive, report, UsageError
from dig2dig_ros.evaluation.training_data import batches, load_luma
from dig2dig_ros.fusion.device import describe_device, has_fast_bf16, resolve_device
from dig2dig_ros.fusion.estimates import denoise
from dig2dig_ros.images.output_files import check_output_file
from dig2dig_ros.nodes.signals import INTERRUPTED, interruption, run_tool
from dig2dig_ros.priors.base import linear_alpha_bar, Prior
from dig2dig_ros.priors.compact import CompactConfig, CompactPrior, CompactUNet, save
from dig2dig_ros.priors.pickled import read_pickled

# Noise levels of the report, as standard deviations on the 8-bit scale.
REPORTED_SIGMAS = (15, 25, 50, 100)


def denoising_psnr(
    prior: Prior, images: Sequence[NDArray[np.uint8]], device: torch.device
) -> dict[int, float]:
    """Return the mean PSNR (dB, peak 255) of one-step denoising at each reported noise level."""
    result = {}
    for sigma in REPORTED_SIGMAS:
        values = []
        for index, image in enumerate(images):
            generator = torch.Generator().manual_seed(1000 * sigma + index)
            clean = torch.from_numpy(image).float()[None, None] / 127.5 - 1.0
            noise = sigma / 127.5 * torch.randn(clean.shape, generator=generator)
            estimate = denoise(prior, (clean + noise).to(device), sigma / 127.5)
            error = (estimate.float().cpu().clamp(-1, 1) - clean) * 127.5
            values.append(10 * math.log10(255**2 / float(error.square().mean())))
        result[sigma] = float(np.mean(values))
    return result


def learning_rate(step: int, args: argparse.Namespace) -> float:
    """Return the rate of ``step``: linear warm-up, constant, linear decay at the end."""
    warm = min(1.0, (step + 1) / args.warmup_steps)
    decay = min(1.0, (args.steps - step) / max(1, args.decay_steps))
    return float(args.learning_rate * min(warm, decay))


def write_card(path: Path, facts: dict[str, str], psnr: dict[int, float]) -> None:
    """Write the model card that travels with the weights."""
    rows = '\n'.join(f'| {sigma} | {value:.2f} |' for sigma, value in psnr.items())
    lines = '\n'.join(f'- {key}: {value}' for key, value in facts.items())
    path.write_text(
        f'# Model card: {path.stem}\n\n'
        'A denoiser of luma images in [-1, 1] on the linear noise schedule (T = 1000), for '
        'dig2dig. Written by `dig2dig train`.\n\n'
        f'## Training\n\n{lines}\n\n'
        '## One-step denoising\n\n'
        'Mean PSNR over the evaluation images, weights as shipped (EMA, float16).\n\n'
        f'| noise sigma (8-bit scale) | PSNR (dB) |\n| --- | --- |\n{rows}\n\n'
        '## Limits\n\n'
        'It was only trained on the images above: it may do worse on other scenes and cameras. '
        'It restores images and does not generate any: do not use it to judge whether an image '
        'is real.\n\n'
        '## Terms\n\n'
        'Weights may be subject to the terms of the images that they were trained on. If you '
        'distribute them, state those terms here.\n',
        encoding='utf-8',
    )


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; exit with code 2 if it is invalid."""
    parser = argparse.ArgumentParser(
        prog='dig2dig train',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    # fmt: off
    add('--data', type=Path, nargs='+', required=True, help='folders of images')
    add('--data-name', help='name of the data in the model card')
    add('--evaluation', type=Path, nargs='+', help='folders of held-out images')
    add('--evaluation-name', help='name of the held-out data in the model card')
    add('--evaluation-limit', type=positive, default=8,
        help='number of images from each held-out folder; default: 8')
    add('-o', '--output', type=Path, required=True, help='weights, *.safetensors')
    add('--checkpoint', type=Path,
        help='file to resume from and save to; default: OUTPUT with the suffix .checkpoint.pt')
    add('--steps', type=positive, default=18000, help='training steps; default: 18000')
    add('--decay-steps', type=int, default=5000,
        help='steps at the end over which the learning rate falls to zero; default: 5000')
    add('--warmup-steps', type=positive, default=200,
        help='steps at the start over which the learning rate rises; default: 200')
    add('--batch', type=positive, default=24, help='patches per batch; default: 24')
    add('--patch', type=positive, default=128, help='side of a patch in pixels; default: 128')
    add('--learning-rate', type=float, default=1e-3,
        help='highest learning rate; default: 0.001')
    add('--ema', type=float, default=0.999,
        help='decay of the moving average of the weights; default: 0.999')
    add('--seed', type=int, default=0, help='seed of all random choices; default: 0')
    add('--device', default='auto', help='auto, cpu, cuda or cuda:N')
    add('--widths', type=int, nargs='+', default=[16, 32, 64, 128],
        help='channels at each scale, finest first; default: 16 32 64 128')
    add('--blocks', type=int, nargs='+', default=[1, 1, 2, 4],
        help='residual blocks at each scale; default: 1 1 2 4')
    add('--stem', type=int, default=2,
        help='side of the pixel blocks that the stem turns into channels; default: 2')
    add('--log-every', type=positive, default=100,
        help='steps between log lines; default: 100')
    add('--checkpoint-every', type=positive, default=500,
        help='steps between checkpoints; default: 500')
    # fmt: on
    return parser.parse_args(argv)


class Training:
    """
    The state of a run: network, averaged weights, optimizer.

    If there is a checkpoint, the run continues from it.
    """

    def __init__(self, args: argparse.Namespace, config: CompactConfig) -> None:
        self._args = args
        self._checkpoint: Path = args.checkpoint or args.output.with_suffix('.checkpoint.pt')
        self.device = resolve_device(args.device)
        torch.manual_seed(args.seed)
        self.network = CompactUNet(config).to(self.device)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.network)
        self._optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=args.learning_rate, weight_decay=1e-4
        )
        self.steps, self.seconds = 0, 0.0
        if self._checkpoint.exists():
            self._resume()
            print(f'resumed {self._checkpoint} at step {self.steps}', flush=True)

    def _resume(self) -> None:
        way_out = 'move it away to start again, or name another --checkpoint'
        try:
            state = read_pickled(self._checkpoint)
            states = {name: state[name] for name in self._parts()}
            steps, seconds = int(state['step']), float(state['seconds'])
        except OSError:
            raise
        except Exception as error:  # whatever torch says of a file that is none of ours
            raise UsageError(
                f'{self._checkpoint} is not a checkpoint of dig2dig train, or damaged: {way_out}'
            ) from error
        try:
            for name, part in self._parts().items():
                part.load_state_dict(states[name])
        except Exception as error:
            raise UsageError(
                f'{self._checkpoint} does not fit --widths, --blocks and --stem: give those that '
                f'the run was started with, {way_out}'
            ) from error
        self.steps, self.seconds = steps, seconds

    def _parts(self) -> dict[str, Any]:
        return {
            'network': self.network,
            'average': self.average,
            'optimizer': self._optimizer,
        }

    def save(self) -> None:
        """Write the checkpoint, whole or not at all."""
        state: dict[str, Any] = {name: part.state_dict() for name, part in self._parts().items()}
        partial = self._checkpoint.with_suffix('.partial')
        torch.save(state | {'step': self.steps, 'seconds': self.seconds}, partial)
        partial.replace(self._checkpoint)

    def update(self, noisy: Tensor, timesteps: Tensor, velocity: Tensor) -> float:
        """Take one step with a batch and return its loss."""
        for group in self._optimizer.param_groups:
            group['lr'] = learning_rate(self.steps, self._args)
        noisy, timesteps, velocity = (x.to(self.device) for x in (noisy, timesteps, velocity))
        fast = has_fast_bf16(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=fast):
            predicted = self.network(noisy, timesteps)
        loss = (predicted.float() - velocity).square().mean()
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self._optimizer.step()
        # A short average at the start, or it would keep the random initialisation.
        decay = min(self._args.ema, (1 + self.steps) / (10 + self.steps))
        with torch.no_grad():
            for mean, value in zip(
                self.average.parameters(), self.network.parameters(), strict=True
            ):
                mean.lerp_(value, 1 - decay)
        self.steps += 1
        return float(loss.detach())

    @property
    def checkpoint(self) -> Path:
        """The file from which the run can be resumed."""
        return self._checkpoint

    def run(
        self,
        images: list[NDArray[np.uint8]],
        alpha_bar: Tensor,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        """
        Run the remaining steps, with progress and checkpoints.

        :param stopping: called after each step; once true, a last checkpoint is written.
        """
        args = self._args
        losses: list[float] = []
        tick = log_tick = time.monotonic()
        for batch in batches(self.steps, images, args, alpha_bar):
            losses.append(self.update(*batch))
            last = self.steps == args.steps
            if last or self.steps % args.log_every == 0:
                elapsed = time.monotonic() - log_tick
                log_tick += elapsed
                rate = len(losses) / elapsed
                print(
                    f'step {self.steps}/{args.steps}  loss {np.mean(losses):.5f}  '
                    f'{rate:.2f} steps/s  {(args.steps - self.steps) / rate / 60:.0f} min left',
                    flush=True,
                )
                losses.clear()
            stops = not last and stopping()
            if last or stops or self.steps % args.checkpoint_every == 0:
                self.seconds += time.monotonic() - tick
                tick = time.monotonic()
                self.save()
            if stops:
                break


def network_shape(args: argparse.Namespace) -> CompactConfig:
    """
    Return the shape of the network from the options.

    :raises UsageError: the shape is impossible, or there is no folder for the weights.
    """
    try:
        config = CompactConfig(tuple(args.widths), tuple(args.blocks), args.stem)
    except ValueError as error:
        raise UsageError(str(error)) from error
    for path in (args.output, args.checkpoint):
        if path is not None:
            check_output_file(path)
    return config


def train(args: argparse.Namespace) -> int:
    """
    Train, or resume, until ``args.steps``; write the weights and their card.

    :return: the exit code.
    :raises UsageError: there are no images, or the checkpoint does not fit.
    """
    config = network_shape(args)
    training = Training(args, config)
    images = load_luma(args.data)
    evaluation = load_luma(args.evaluation, args.evaluation_limit) if args.evaluation else []
    millions = sum(p.numel() for p in training.network.parameters()) / 1e6
    device = describe_device(training.device)
    print(
        f'{len(images)} images, {millions:.2f} M parameters, {device}, torch {torch.__version__}',
        flush=True,
    )
    with interruption(lambda: report('interrupted: ending after this step')) as requested:
        training.run(images, linear_alpha_bar(config.num_train_timesteps), requested.is_set)
    if training.steps < args.steps:
        report(
            f'dig2dig train: interrupted at step {training.steps}, saved in '
            f'{training.checkpoint}: the same command resumes from there'
        )
        return INTERRUPTED
    facts = {
        'data': f'{args.data_name or args.data[0].name}, {len(images)} images as luma',
        'architecture': f'widths {config.widths}, blocks {config.blocks}, stem {config.stem}, '
        f'{millions:.2f} M parameters, v-prediction',
        'steps': f'{args.steps} of {args.batch} patches of {args.patch}x{args.patch}, '
        f'seed {args.seed}',
        'time': f'{training.seconds / 60:.0f} min on {device}',
        'software': f'torch {torch.__version__}',
        'date': datetime.now(timezone.utc).date().isoformat(),
    }
    save(training.average, args.output, facts)
    psnr = {}
    if evaluation:
        prior = CompactPrior.from_file(args.output).to(training.device).eval()
        psnr = denoising_psnr(prior, evaluation, training.device)
        name = args.evaluation_name or args.evaluation[0].name
        facts['evaluation'] = f'{name}, {len(evaluation)} images'
        print('  '.join(f'sigma {k}: {v:.2f} dB' for k, v in psnr.items()), flush=True)
    write_card(args.output.with_suffix('.md'), facts, psnr)
    print(f'wrote {args.output} ({args.output.stat().st_size / 1e6:.1f} MB)', flush=True)
    return 0


def main(argv: Sequence[str]) -> int:
    """Run the tool; see the module's description."""
    return run_tool(
        'dig2dig train', lambda: train(parse_arguments(argv)), 'interrupted before the first step'
    )
