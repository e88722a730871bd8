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
How far from what its operations and bytes need at least the prior is: ``python -m prior_floor``.

Counts the operations and bytes of the prior, measures what the device does at best, and prints
both beside the time of the prior and of a pair as Markdown tables.
"""

import argparse
import json
from pathlib import Path
import sys

from dig2dig_ros.evaluation.fusion_timing import machine, origin, variants
from dig2dig_ros.evaluation.options import positive, report, size_argument, UsageError
from dig2dig_ros.evaluation.study import as_json
from prior_floor.floor import compare_with_floor


def parse_arguments(argv=None):
    parser = argparse.ArgumentParser(prog='prior_floor', description=__doc__.splitlines()[1])
    add = parser.add_argument
    # fmt: off
    add('--size', nargs='+', type=size_argument, metavar='WxH',
        default=[(320, 256), (640, 512), (1280, 720)], help='of both images')
    add('--preset', nargs='+', metavar='PRESET|FILE', default=['realtime', 'fusion'])
    add('--device', nargs='+', metavar='DEVICE', default=['auto'])
    add('--precision', nargs='+', default=['auto'], choices=('auto', 'fp32', 'bf16', 'fp16'))
    add('--threads', type=positive, metavar='COUNT', help='of the processor; without it, all')
    add('--seconds', type=float, default=1.5, help='for every time that is measured (%(default)g)')
    add('-o', '--output', type=Path, metavar='FILE', help='write everything as JSON')
    # fmt: on
    return parser.parse_args(argv)


def main(argv=None):
    """Measure and print; return the process's exit code."""
    args = parse_arguments(argv)
    load = machine()['load']
    try:
        ours = variants(args.preset, args.device, args.precision)
        results, tables = compare_with_floor(ours, args.size, args.seconds, args.threads)
    except UsageError as error:
        report(f'prior_floor: {error}')
        return 2
    for table in tables:
        print(table.markdown(), end='\n\n')
    facts = machine()
    print(origin(results, facts, load))
    if args.output:
        document = as_json({'machine': facts, 'results': results})
        args.output.write_text(f'{json.dumps(document, indent=1)}\n', encoding='utf-8')
    return 0


if __name__ == '__main__':
    sys.exit(main())
