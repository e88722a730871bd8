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

# Fuses a built-in scene, or the pairs of a folder, over real DDS, and writes pictures:
#   bash scripts/demo.sh [--pairs DIR] [--unaligned] [--help for the rest]

set -euo pipefail
# shellcheck source=scripts/environment.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"

exec "$python" -m dig2dig_ros demo "$@"
