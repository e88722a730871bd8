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

# Runs all tests, or those that pytest's arguments choose; paths are relative to the checkout:
#   bash scripts/test.sh [--fast] [test/streams -k pairing ...]
# With --fast, without the tests that start processes or take long: less than two minutes.
# Without a selection, the tests run in two processes, and one of them starts all the nodes.

set -euo pipefail
# shellcheck source=scripts/environment.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"

cd -- "$checkout"
arguments=()
# More processes would take time from the nodes under test.
[ -n "${*/--fast/}" ] || arguments+=(-n 2 --dist loadgroup)
for argument; do
  case $argument in
    --fast) arguments+=(-m 'not integration and not slow') ;;
    *) arguments+=("$argument") ;;
  esac
done
exec "$python" -m pytest "${arguments[@]}"
