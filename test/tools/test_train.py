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

"""Training on a few tiny images: what it writes, and that stopping changes nothing."""

from io import BytesIO
import signal
import zipfile

import cv2
import numpy as np
import pytest
import torch

from dig2dig_ros.priors import load_prior
from dig2dig_ros.tools.train import learning_rate, main, parse_arguments


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / 'images'
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(3):
        image = cv2.resize(rng.integers(0, 256, (6, 8), dtype=np.uint8), (64, 48))
        cv2.imwrite(str(folder / f'{index}.png'), image)
    return folder


def train(images, output, steps, *more):
    arguments = (
        f'--steps {steps} --decay-steps 2 --warmup-steps 2 --batch 2 --patch 16 --device cpu'
    )
    shape = '--widths 8 12 --blocks 1 1 --stem 2 --log-every 1 --checkpoint-every 1'
    words = f'{arguments} {shape}'.split()
    return main(['--data', str(images), '--output', str(output), *words, *more])


def weights(path):
    return list(load_prior(str(path)).parameters())


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(images, tmp_path, monkeypatch):
    train(images, tmp_path / 'whole.safetensors', 4)
    with monkeypatch.context() as patch:
        patch.setattr('dig2dig_ros.tools.train.learning_rate', lambda step, _: 1e-3)
        train(images, tmp_path / 'flat.safetensors', 4)
        train(images, tmp_path / 'parts.safetensors', 2)
        train(images, tmp_path / 'parts.safetensors', 4)
    for a, b in zip(
        weights(tmp_path / 'flat.safetensors'),
        weights(tmp_path / 'parts.safetensors'),
        strict=True,
    ):
        assert torch.equal(a, b)
    assert not all(
        torch.equal(a, b)
        for a, b in zip(
            weights(tmp_path / 'whole.safetensors'),
            weights(tmp_path / 'flat.safetensors'),
            strict=True,
        )
    )


def test_the_card_says_what_the_weights_saw(images, tmp_path, capsys):
    output = tmp_path / 'card.safetensors'
    train(images, output, 1, '--evaluation', str(images), '--data-name', 'three tiny images')
    card = output.with_suffix('.md').read_text(encoding='utf-8')
    assert 'three tiny images, 3 images as luma' in card
    # It claims nothing that it cannot know: scenes, a licence.
    assert 'street' not in card
    assert 'Apache' not in card
    assert '## Terms' in card
    for sigma in (15, 25, 50, 100):
        assert f'| {sigma} | ' in card
    assert 'step 1/1' in capsys.readouterr().out
    assert load_prior(str(output)).name == 'card'


def test_unreadable_images_are_skipped_and_an_empty_folder_is_refused(images, tmp_path, capsys):
    (images / 'broken.png').write_bytes(b'no image')
    train(images, tmp_path / 'a.safetensors', 1)
    assert 'bytes are neither JPEG nor PNG' in capsys.readouterr().err
    empty = tmp_path / 'empty'
    empty.mkdir()
    assert train(empty, tmp_path / 'b.safetensors', 1) == 2
    assert 'no images below' in capsys.readouterr().err


def test_ctrl_c_keeps_a_checkpoint_to_go_on_from(images, tmp_path, monkeypatch, capsys):
    output = tmp_path / 'parts.safetensors'
    with monkeypatch.context() as patch:
        patch.setattr('dig2dig_ros.tools.train.learning_rate', lambda step, _: 1e-3)
        assert train(images, tmp_path / 'whole.safetensors', 4) == 0

        def interrupted(step, _):
            if step == 1:
                signal.raise_signal(signal.SIGINT)
            return 1e-3

        patch.setattr('dig2dig_ros.tools.train.learning_rate', interrupted)
        assert train(images, output, 4, '--checkpoint-every', '500') == 130
        assert 'interrupted at step 2, saved in' in capsys.readouterr().err
        assert not output.exists()
        patch.setattr('dig2dig_ros.tools.train.learning_rate', lambda step, _: 1e-3)
        assert train(images, output, 4) == 0
        assert 'parts.checkpoint.pt at step 2' in capsys.readouterr().out
    whole = weights(tmp_path / 'whole.safetensors')
    assert all(torch.equal(a, b) for a, b in zip(whole, weights(output), strict=True))


def test_ctrl_c_before_the_first_step_is_one_line(images, tmp_path, monkeypatch, capsys):
    def interrupted(folders, limit=None):
        raise KeyboardInterrupt

    monkeypatch.setattr('dig2dig_ros.tools.train.load_luma', interrupted)
    assert train(images, tmp_path / 'a.safetensors', 1) == 130
    assert capsys.readouterr().err == 'dig2dig train: interrupted before the first step\n'


def test_a_checkpoint_that_does_not_fit_is_one_sentence(images, tmp_path, capsys):
    output = tmp_path / 'a.safetensors'
    checkpoint = tmp_path / 'a.checkpoint.pt'
    assert train(images, output, 1) == 0
    capsys.readouterr()
    assert train(images, output, 2, '--widths', '8', '16') == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f'{checkpoint} does not fit --widths' in line
    assert 'move it away to start again, or name another --checkpoint' in line
    whole = BytesIO(checkpoint.read_bytes())
    for content in (b'no checkpoint', checkpoint.read_bytes()[:1000]):
        checkpoint.write_bytes(content)
        assert train(images, output, 2) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert f'{checkpoint} is not a checkpoint of dig2dig train, or damaged' in line
    packed = zipfile.ZipFile(checkpoint, 'w', zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(whole) as plain, packed:
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    assert train(images, output, 2) == 2
    assert 'is not a checkpoint of dig2dig train' in capsys.readouterr().err
    torch.save([1, 2], checkpoint)
    assert train(images, output, 2) == 2
    assert 'is not a checkpoint of dig2dig train' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('words', 'reason'),
    [
        (['--widths', '8'], 'must name the same levels'),
        (['--device', 'gpu'], "unknown device 'gpu'"),
        (['--output', '/no/such/folder/a.safetensors'], 'there is no folder /no/such/folder'),
    ],
)
def test_what_cannot_be_trained_is_said_before_the_first_step(
    images, tmp_path, capsys, words, reason
):
    assert train(images, tmp_path / 'a.safetensors', 1, *words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith('dig2dig train: ')
    assert reason in line


def test_learning_rate_warms_up_stays_and_decays():
    text = '--data x --output y --steps 100 --decay-steps 20 --warmup-steps 10 --learning-rate 0.5'
    arguments = parse_arguments(text.split())
    rates = [learning_rate(step, arguments) for step in range(100)]
    assert rates[0] == pytest.approx(0.05)
    assert set(rates[9:81]) == {0.5}
    assert rates[90] == pytest.approx(0.25)
    assert rates[99] == pytest.approx(0.025)
