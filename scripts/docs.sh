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

# Builds the documentation as a site in build/docs, or redraws its pictures:
#   bash scripts/docs.sh
#   bash scripts/docs.sh --pictures [--list] [--only NAME] [--help for the rest]

set -euo pipefail
# shellcheck source=scripts/environment.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"

cd -- "$checkout"
if [ "${1:-}" = --pictures ]; then
  shift
  exec "$python" scripts/pictures.py "$@"
fi
if ! "$python" -c 'import latex2mathml, material, mkdocs, mkdocstrings_handlers.python' 2>/dev/null; then
  say 'Installing the documentation tools ...'
  "$python" -m pip install --quiet --quiet --editable "${checkout}[docs]" >&2 ||
    fail 'pip could not install the documentation tools; its message is above.'
fi
# Material says at every build that it is maintained until May 2027; the site is plain mkdocs.
NO_MKDOCS_2_WARNING=1 "$python" -m mkdocs build --strict "$@"
say "Open $checkout/build/docs/index.html"
