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

# shellcheck shell=bash
#
# Sourced by the other scripts in this folder: creates a virtual environment with everything that
# dig2dig needs, unless it exists already, and sets
#   checkout  the folder of the source tree
#   python    the environment's interpreter
#
# Variables that a user may set:
#   PYTHON        the interpreter to start from (3.10 to 3.14)
#   DIG2DIG_VENV  where the environment goes; default: .venv in the checkout, or .venv-DISTRO
#                 if a ROS 2 distribution is sourced
#   DIG2DIG_TORCH what to give to 'pip install' for PyTorch, options included, for example to
#                 choose a CPU or a CUDA build; default: torch==2.13.0, as a CPU build if this
#                 machine has no NVIDIA driver and pip has no index of its own configured
#   PIP_*         as documented by pip

checkout=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
torch_specification=${DIG2DIG_TORCH:-torch==2.13.0}
cpu_index=https://download.pytorch.org/whl/cpu

say() {
  printf '%s\n' "$*" >&2
}

fail() {
  local line
  printf '\nerror: %s\n' "$1" >&2
  shift
  for line in "$@"; do
    printf '  %s\n' "$line" >&2
  done
  exit 1
}

# Succeeds if $1 runs and is a Python that dig2dig supports.
is_suitable() {
  "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 15))' 2>/dev/null
}

version_of() {
  "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])'
}

# Prints the interpreter to start from.
find_python() {
  local candidate
  if [ -n "${PYTHON:-}" ]; then
    command -v -- "$PYTHON" >/dev/null || fail "PYTHON is set to '$PYTHON', which does not exist."
    is_suitable "$PYTHON" || fail \
      "PYTHON is set to '$PYTHON': $("$PYTHON" --version 2>&1 || true)." \
      'dig2dig needs Python 3.10 to 3.14.'
    command -v -- "$PYTHON"
    return
  fi
  for candidate in python3 python3.12 python3.13 python3.14 python3.11 python3.10; do
    if command -v "$candidate" >/dev/null && is_suitable "$candidate"; then
      command -v "$candidate"
      return
    fi
  done
  fail 'no Python 3.10 to 3.14 found.' \
    "python3 is: $(python3 --version 2>&1 || true)" \
    'Debian, Ubuntu: sudo apt install python3 python3-venv' \
    'Another interpreter: PYTHON=/path/to/python3.12 bash scripts/demo.sh'
}

# Says how to get ROS 2 on a machine for which PyPI has no wheels of it.
check_wheels() {
  local reason
  reason=$("$1" - <<'PROGRAM'
import platform
import sys

libc, version = platform.libc_ver()
if sys.platform != 'linux' or platform.machine() != 'x86_64':
    print(f'{platform.system()} on {platform.machine()}')
elif libc != 'glibc':
    print('a Linux without glibc')
elif tuple(int(part) for part in version.split('.')[:2]) < (2, 28):
    print(f'glibc {version}')
PROGRAM
  )
  [ -z "$reason" ] || fail \
    "the ROS 2 packages on PyPI are built for x86_64 Linux with glibc 2.28 or newer; here: $reason." \
    'Install a ROS 2 distribution, source it, and start this script again:' \
    '  source /opt/ros/jazzy/setup.bash'
}

# Changes whenever something else has to be installed.
fingerprint() {
  {
    printf '%s\n' "$checkout" "$torch_specification" "$extras"
    cat -- "$checkout"/setup.py "$checkout"/setup.cfg "$checkout"/pyproject.toml
  } | "$python" -c 'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())'
}

# Refuses an environment into which another checkout has been installed: its commands and tests
# would silently run this checkout's code from now on.
check_owner() {
  local owner
  owner=$("$python" -I - 2>/dev/null <<'PROGRAM'
from importlib import metadata
import json
from urllib.parse import unquote, urlsplit

# Written by pip (PEP 610): where the package was installed from.
source = json.loads(metadata.distribution('dig2dig').read_text('direct_url.json'))
print(unquote(urlsplit(source['url']).path))
PROGRAM
  ) || return 0
  [ -e "$owner/setup.py" ] && ! [ "$owner" -ef "$checkout" ] || return 0
  fail "the environment $venv belongs to another checkout: $owner." \
    'Choose another place for this one: DIG2DIG_VENV=/path/to/environment' \
    "Or hand it over: '$python' -m pip uninstall --yes dig2dig"
}

# Creates the virtual environment, unless there is a suitable one.
create() {
  local version
  version=$(version_of "$base_python")
  if is_suitable "$python" && "$python" -c 'import pip' 2>/dev/null; then
    # An environment stays as it is until another interpreter is asked for.
    [ -z "${PYTHON:-}" ] || [ "$(version_of "$python")" = "$version" ] && return
  fi
  "$base_python" -c 'import ensurepip, venv' 2>/dev/null || fail \
    "$base_python has no module venv, or no pip for it." \
    "Debian, Ubuntu: sudo apt install python3-venv" \
    "  (for an interpreter other than the system's: python$version-venv)"
  if [ -f "$own_mark" ]; then
    venv_options+=(--clear)
  elif [ -e "$venv" ] && [ -n "$(ls -A -- "$venv")" ]; then
    fail "$venv exists and is not a virtual environment that works with this Python ($version)." \
      'Remove it, or choose another place: DIG2DIG_VENV=...'
  fi
  say "Setting up $venv with Python $version ..."
  "$base_python" -m venv "${venv_options[@]}" "$venv" >&2 ||
    fail "could not create a virtual environment in $venv; the message is above."
  : >"$own_mark"
}

# Succeeds if a CPU build of PyTorch should be fetched from pytorch.org: on x86_64, PyPI has only
# the build for CUDA, which is 2.7 GB instead of 0.2. Whoever has chosen a build, or where pip
# looks (a mirror, a folder of wheels), is left alone.
wants_cpu_build() {
  local configured
  [ -z "${DIG2DIG_TORCH:-}" ] && [ "$(uname -sm)" = 'Linux x86_64' ] || return 1
  [ ! -e /proc/driver/nvidia/version ] && [ ! -e /usr/lib/wsl/lib/libcuda.so.1 ] &&
    ! command -v nvidia-smi >/dev/null || return 1
  configured=$("$python" -m pip config list 2>/dev/null) || return 1
  [[ ! $configured =~ \.(index-url|extra-index-url|find-links|no-index)= ]]
}

install_torch() {
  if wants_cpu_build; then
    say "No NVIDIA driver found: taking the CPU build from $cpu_index."
    # Fewer attempts than pip's six: there is another way.
    # shellcheck disable=SC2086
    PIP_RETRIES=${PIP_RETRIES:-1} "$python" -m pip install "${quiet[@]}" \
      $torch_specification --index-url "$cpu_index" >&2 && return
    say "$cpu_index did not work: taking the build with CUDA from PyPI instead, 2.7 GB." \
      'It runs without a GPU, too.'
  fi
  # Split on purpose: the variable may hold options.
  # shellcheck disable=SC2086
  "$python" -m pip install "${quiet[@]}" $torch_specification >&2
}

install() {
  # Twice: once leaves warnings about pip itself.
  local quiet=(--quiet --quiet)
  [ -t 2 ] && quiet=()
  say "Installing PyTorch ($torch_specification); the first time this takes a while ..."
  install_torch || fail \
    "pip could not install PyTorch ($torch_specification)." \
    'For another version or build set DIG2DIG_TORCH to what https://pytorch.org/get-started' \
    "gives after 'pip install', without torchvision."
  say "Installing dig2dig and its requirements ($extras) ..."
  "$python" -m pip install "${quiet[@]}" --editable "${checkout}[$extras]" >&2 || fail \
    'pip could not install dig2dig; its message is above.' \
    "To start from scratch, remove $venv"
  # A distribution's OpenCV may be missing, or too old for the NumPy that was just installed.
  "$python" -c 'import cv2' 2>/dev/null ||
    "$python" -m pip install "${quiet[@]}" --editable "${checkout}[opencv]" >&2 ||
    fail 'pip could not install OpenCV; its message is above.'
}

# OpenMP threads that spin while they wait take the cores from other processes.
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-PASSIVE}
# Nothing that these scripts start talks to other machines.
export ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST
if [ "${ROS_DISTRO:-}" = humble ]; then
  export ROS_LOCALHOST_ONLY=1
fi
export PIP_DISABLE_PIP_VERSION_CHECK=1
# Set by the PyPI wheels of another environment, for their own libraries.
unset _ROS_WHEELS_BOOTSTRAP_COMPLETE PYTHONHOME

base_python=$(find_python)
venv=${DIG2DIG_VENV:-$checkout/.venv}
venv_options=()
extras=ros,evaluation,detection,export,pretrained,test
if [ -n "${AMENT_PREFIX_PATH:-}" ] && "$base_python" -c 'import rclpy' 2>/dev/null; then
  # A ROS 2 distribution is sourced: use its packages instead of the wheels.
  venv=${DIG2DIG_VENV:-$checkout/.venv-${ROS_DISTRO:-ros}}
  venv_options=(--system-site-packages)
  extras=evaluation,detection,export,pretrained,test
elif [ -n "${ROS_DISTRO:-}" ]; then
  fail "ROS 2 $ROS_DISTRO is sourced, but $base_python cannot import its rclpy." \
    'Use the interpreter that it was built for: PYTHON=/usr/bin/python3 bash scripts/demo.sh' \
    'Or start from a shell that has not sourced it, to use the ROS 2 packages from PyPI.'
else
  check_wheels "$base_python"
fi

python=$venv/bin/python
stamp=$venv/.dig2dig-installed
own_mark=$venv/.dig2dig-made

check_owner
create
if [ "$(cat -- "$stamp" 2>/dev/null)" != "$(fingerprint)" ]; then
  install
  fingerprint >"$stamp"
fi
