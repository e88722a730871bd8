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

"""What is said of Python, OpenCV and torch, also where they are missing or broken."""

import importlib.util
import os
from pathlib import Path
import platform
import sys

import pytest

from dig2dig_ros import __version__
from dig2dig_ros.streams import installation
from dig2dig_ros.streams.installation import find_opencv, find_python, find_torch

FACTS = {
    'version': '2.13.0',
    'build': 'CUDA 12.8',
    'device': 'cuda:0 (H200), bf16; 16 CPU cores',
    'devices': ['cuda:0 (H200)'],
    'broken': {},
    'reason': '',
    'prior': '',
}


@pytest.fixture
def stub(tmp_path, monkeypatch):
    """Return a function that puts a package before the real one."""

    def install(name, code):
        (tmp_path / name).mkdir()
        (tmp_path / name / '__init__.py').write_text(code)
        monkeypatch.syspath_prepend(tmp_path)
        importlib.invalidate_caches()

    return install


@pytest.fixture
def told(monkeypatch, tmp_path):
    """Return a function that sets what torch finds, and whether there is an NVIDIA driver."""

    def tell(has_driver, **facts):
        driver = tmp_path / 'driver'
        driver.unlink(missing_ok=True)
        if has_driver:
            driver.touch()
        monkeypatch.setattr(installation, '_NVIDIA', (driver,))
        monkeypatch.setenv('PATH', str(tmp_path))
        monkeypatch.setattr(installation, 'ask', lambda *names: ({**FACTS, **facts}, ''))
        return find_torch()

    pytest.importorskip('torch', reason='needs torch')
    return tell


def test_python_and_package_are_named():
    found = find_python().found
    assert found.startswith('.'.join(map(str, sys.version_info[:3])))
    for part in (sys.executable, f'dig2dig {__version__} in '):
        assert part in found


def test_what_is_installed_is_found():
    numpy, cv2 = pytest.importorskip('numpy'), pytest.importorskip('cv2')
    finding = find_opencv()
    assert finding.found == f'{cv2.__version__}, NumPy {numpy.__version__}'
    assert finding.advice == ()
    torch = pytest.importorskip('torch')
    build, device = find_torch()
    assert build.found.startswith(f'{torch.__version__}, built for ')
    assert build.advice == ()
    assert 'fp32' in device.found or 'bf16' in device.found or 'fp16' in device.found


def test_opencv_that_crashes_is_one_line(stub):
    stub('cv2', 'import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)')
    finding = find_opencv()
    assert finding.found == 'crashes (SIGSEGV)'
    assert 'opencv-python-headless' in finding.advice[0]


def test_torch_that_does_not_load_is_said_with_its_reason(stub):
    stub('torch', 'raise ImportError("libcudart.so.12: cannot open shared object file")')
    (finding,) = find_torch()
    assert 'libcudart.so.12: cannot open shared object file' in finding.advice[0]


def test_what_is_missing_is_said(monkeypatch):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    (torch,) = find_torch()
    assert torch.found == f'not installed for {sys.executable}'
    assert 'docs/install.md' in torch.advice[0]
    opencv = find_opencv()
    assert opencv.found == 'not installed'
    assert 'python3-opencv' in opencv.advice[0]


def test_a_gpu_that_works_needs_nothing(told):
    build, device = told(True)
    assert build.found == '2.13.0, built for CUDA 12.8'
    assert device.found == FACTS['device']
    assert build.advice == device.advice == ()


@pytest.mark.parametrize(
    ('machine', 'remedy'),
    [
        ('x86_64', f'{sys.executable} -m pip install --force-reinstall torch==2.13.0 '),
        ('aarch64', 'install the one that pytorch.org names '),
    ],
)
def test_a_driver_beside_a_build_for_the_cpu_is_said(told, monkeypatch, machine, remedy):
    monkeypatch.setattr(platform, 'machine', lambda: machine)
    none = {'version': '2.13.0+cpu', 'build': 'the CPU', 'devices': []}
    assert told(False, **none)[1].advice == ()
    (advice,) = told(True, **none)[1].advice
    assert f'this torch is built for the CPU: {remedy}' in advice
    # Without the file, the driver's command shows it.
    tool = Path(os.environ['PATH'], 'nvidia-smi')
    tool.touch(mode=0o755)
    assert told(False, **none)[1].advice == (advice,)


def test_cuda_that_does_not_start_is_said_with_its_reason(told):
    (advice,) = told(True, devices=[], reason='The NVIDIA driver on your system is too old')[
        1
    ].advice
    assert 'CUDA does not start (The NVIDIA driver on your system is too old)' in advice
    broken = {'cuda:0 (H200)': 'no kernel image is available'}
    (advice,) = told(True, broken=broken)[1].advice
    assert advice == 'cuda:0 (H200) cannot be used: no kernel image is available'


def test_a_denoiser_that_does_not_load_is_said(told):
    (advice,) = told(False, prior="No module named 'safetensors'")[0].advice
    assert "(No module named 'safetensors'): pip install safetensors" in advice
