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
The packages vision_msgs and yolo_msgs, with those fields that the node uses, made on the spot.

They are in no index of wheels, but the wheels of ROS bring its code generators and headers: with a
C++ compiler that makes two small packages in some seconds, and the node talks real DDS with them.

    AMENT_PREFIX_PATH=/path/to/venv python message_packages.py FOLDER
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import subprocess
import sys
import sysconfig

import numpy as np

# By package and message.
DEFINITIONS = {
    'vision_msgs': {
        'Point2D': 'float64 x\nfloat64 y\n',
        'Pose2D': 'vision_msgs/Point2D position\nfloat64 theta\n',
        'BoundingBox2D': 'vision_msgs/Pose2D center\nfloat64 size_x\nfloat64 size_y\n',
        'ObjectHypothesis': 'string class_id\nfloat64 score\n',
        'ObjectHypothesisWithPose': 'vision_msgs/ObjectHypothesis hypothesis\n',
        'Detection2D': (
            'std_msgs/Header header\nvision_msgs/ObjectHypothesisWithPose[] results\n'
            'vision_msgs/BoundingBox2D bbox\nstring id\n'
        ),
        'Detection2DArray': ('std_msgs/Header header\nvision_msgs/Detection2D[] detections\n'),
    },
    'yolo_msgs': {
        'Point2D': 'float64 x\nfloat64 y\n',
        'Vector2': 'float64 x\nfloat64 y\n',
        'Pose2D': 'yolo_msgs/Point2D position\nfloat64 theta\n',
        'BoundingBox2D': 'yolo_msgs/Pose2D center\nyolo_msgs/Vector2 size\n',
        'Detection': (
            'int32 class_id\nstring class_name\nfloat64 score\nstring id\n'
            'yolo_msgs/BoundingBox2D bbox\n'
        ),
        'DetectionArray': 'std_msgs/Header header\nyolo_msgs/Detection[] detections\n',
    },
}
DEPENDENCIES = ('builtin_interfaces', 'std_msgs')
PREFIX = Path(sys.prefix)


def generate(package: str, folder: Path) -> None:
    """Write the sources of a package: Python, C, and its types for the middleware."""
    from rosidl_adapter.msg import convert_msg_to_idl
    from rosidl_generator_c.cli import GenerateC
    from rosidl_generator_py.cli import GeneratePython
    from rosidl_generator_type_description.cli import HashTypeDescription
    from rosidl_typesupport_c.cli import GenerateCTypesupport
    from rosidl_typesupport_fastrtps_c.cli import GenerateFastRTPSCTypesupport

    source = folder / 'definitions' / package
    (source / 'msg').mkdir(parents=True)
    for name, text in DEFINITIONS[package].items():
        file = Path('msg', f'{name}.msg')
        (source / file).write_text(text, encoding='utf-8')
        convert_msg_to_idl(source, package, file, source / 'msg')
    files = [f'{source}:msg/{name}.idl' for name in DEFINITIONS[package]]
    includes = [str(PREFIX / 'share' / name) for name in DEPENDENCIES]
    task = package, files, includes, folder / package
    hashes = HashTypeDescription('').generate_type_hashes(
        package, files, [*includes, str(source)], folder / package
    )
    GenerateC('').generate(*task, hashes)
    GenerateFastRTPSCTypesupport('').generate(*task)
    middleware, c = 'rosidl_typesupport_fastrtps_c', 'rosidl_typesupport_c'
    GenerateCTypesupport('', typesupport_implementations=[middleware]).generate(*task)
    GeneratePython('', typesupport_implementations=[c]).generate(*task)


def compile_package(package: str, folder: Path) -> None:
    """Compile all sources of a package into its extension module."""
    place = folder / package
    include = PREFIX / 'include'
    headers = [folder, include, sysconfig.get_paths()['include'], np.get_include()]
    headers += sorted(path for path in include.iterdir() if path.is_dir())
    options = ['-O0', '-fPIC', '-w', *(f'-I{path}' for path in headers)]
    # Together, which is quicker; only the descriptions have names that clash.
    together = {
        'all.c': ['msg/detail/*__functions.c', 'msg/_*_s.c', '_*_s.ep.*.c'],
        'all.cpp': ['msg/detail/*__type_support_c.cpp', 'msg/*__type_support.cpp'],
    }
    for name, patterns in together.items():
        found = [path for pattern in patterns for path in sorted(place.glob(pattern))]
        lines = ''.join(f'#include "{path}"\n' for path in found)
        (place / name).write_text(lines, encoding='utf-8')
    sources = [place / 'all.cpp', place / 'all.c']
    sources += place.glob('msg/detail/*__type_support.c')
    sources += place.glob('msg/detail/*__description.c')
    objects = [path.with_suffix(path.suffix + '.o') for path in sources]

    def compile_one(source: Path, target: Path) -> None:
        compiler = 'gcc' if source.suffix == '.c' else 'g++'
        subprocess.run([compiler, *options, '-c', str(source), '-o', str(target)], check=True)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(compile_one, sources, objects))
    library = PREFIX / 'lib'
    names = [
        f'{name}__rosidl_{kind}'
        for name in DEPENDENCIES
        for kind in ('generator_c', 'generator_py', 'typesupport_c', 'typesupport_fastrtps_c')
    ]
    names += ['rosidl_runtime_c', 'rosidl_typesupport_c', 'rosidl_typesupport_fastrtps_c']
    names += ['rosidl_typesupport_fastrtps_cpp', 'fastcdr', 'rcutils']
    module = place / f'{package}_s__rosidl_typesupport_c.so'
    subprocess.run(
        [
            *('g++', '-shared', '-o', str(module), *map(str, objects)),
            *(f'-L{library}', f'-Wl,-rpath,{library}', *(f'-l{name}' for name in names)),
        ],
        check=True,
    )


def main() -> None:
    """Make all packages below the folder of the command line."""
    folder = Path(sys.argv[1]).resolve()
    for package in DEFINITIONS:
        generate(package, folder)
        (folder / package / '__init__.py').touch()
        compile_package(package, folder)


if __name__ == '__main__':
    main()
