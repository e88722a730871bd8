#!/usr/bin/env bash
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

# Runs a command in the container with the ROS distribution, the package that colcon built and the
# environment with PyTorch, as far as each of them is there.

set -eo pipefail
for setup in "/opt/ros/${ROS_DISTRO:-none}/setup.bash" /opt/dig2dig/install/local_setup.bash \
  "$DIG2DIG_VENV/bin/activate"; do
  # shellcheck disable=SC1090
  [ ! -e "$setup" ] || . "$setup"
done
exec "$@"
