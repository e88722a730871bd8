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
The package keeps its shape: imports point downwards, and files and functions stay small.

The sources are parsed, not imported, so every import counts: also one in a function or under
``if TYPE_CHECKING``.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
PACKAGE = 'dig2dig_ros'

# A module may import its own folder and those on lower floors. Folders of one floor do not know
# each other.
FLOORS = {
    'priors': 1,
    'images': 1,
    'detections': 1,
    'fusion': 2,
    'streams': 3,
    'nodes': 4,
    'evaluation': 4,
    'tools': 5,
    '__main__': 6,
}
WITH_RCLPY = {'nodes', 'tools'}

# Lines, comments and docstrings included.
MOST_OF_PACKAGE = 45_200
MOST_OF_FILE = 700
MOST_OF_COMMAND = 420
MOST_OF_FUNCTION = 80
MOST_OF_NODE = 450


@dataclass(frozen=True)
class Import:
    """
    What one statement imports.

    :param place: file and line.
    :param module: the importing module.
    :param imported: the imported one.
    """

    place: str
    module: str
    imported: str


def module_name(path: Path) -> str:
    parts = path.relative_to(CHECKOUT).with_suffix('').parts
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


TREES = {
    path: ast.parse(path.read_text(encoding='utf-8'), str(path))
    for path in sorted((CHECKOUT / PACKAGE).rglob('*.py'))
}
MODULES = {module_name(path): path for path in TREES}


def name_of(path: Path) -> str:
    return path.relative_to(CHECKOUT).as_posix()


def folder_of(module: str) -> str:
    """Return the folder of a module of the package; '' for the package itself."""
    return module.split('.')[1] if '.' in module else ''


def lines_of(path: Path) -> int:
    return len(path.read_text(encoding='utf-8').splitlines())


def imported_names(node: ast.AST, module: str) -> Iterator[str]:
    """Yield the full names that a node of the syntax tree of a module imports."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ''
        if node.level:
            package = module if MODULES[module].stem == '__init__' else module.rpartition('.')[0]
            up = package.split('.')[: len(package.split('.')) - node.level + 1]
            base = '.'.join([*up, *filter(None, [base])])
        yield from (f'{base}.{alias.name}' for alias in node.names)


def imports() -> Iterator[Import]:
    """Yield all imports of the package, of its own modules and of others."""
    for path, tree in TREES.items():
        module = module_name(path)
        for node in ast.walk(tree):
            for name in imported_names(node, module):
                # Of 'from package.module import function', the module.
                imported = name if name in MODULES else name.rpartition('.')[0]
                if imported not in MODULES:
                    imported = name
                if imported != module:
                    yield Import(f'{name_of(path)}:{node.lineno}', module, imported)


IMPORTS = list(dict.fromkeys(imports()))
WITHIN = [each for each in IMPORTS if each.imported in MODULES]


def fail_with(findings: list[str]) -> None:
    assert not findings, '\n' + '\n'.join(findings)


def test_every_folder_has_its_floor():
    folders = {path.name for path in (CHECKOUT / PACKAGE).iterdir() if any(path.glob('*.py'))}
    assert folders | {'__main__'} == set(FLOORS), (
        'give a new folder its floor in FLOORS of this file'
    )


def test_imports_point_downwards():
    fail_with(
        [
            f'{each.place}: {source}/ imports {each.imported}, which is not below it: move what '
            f'is needed down, or hand it in as an argument'
            for each in WITHIN
            for source, target in [(folder_of(each.module), folder_of(each.imported))]
            if source != target and FLOORS.get(target, 0) >= FLOORS.get(source, 0)
        ]
    )


def test_no_modules_import_each_other_in_a_circle():
    graph: dict[str, set[str]] = {module: set() for module in MODULES}
    for each in WITHIN:
        graph[each.module].add(each.imported)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        # Each is imported by the next.
        circle = [(importer, imported) for imported, importer in pairwise(error.args[1])]
        fail_with(
            [
                f'{each.place}: imports {each.imported}, which leads back to it: move what both '
                f'need into a module of its own'
                for each in WITHIN
                if (each.module, each.imported) in circle
            ]
        )


def test_only_nodes_and_tools_import_rclpy():
    fail_with(
        [
            f'{each.place}: imports {each.imported}; what needs rclpy belongs in nodes/ or tools/'
            for each in IMPORTS
            if each.imported.split('.')[0] == 'rclpy' and folder_of(each.module) not in WITH_RCLPY
        ]
    )


def test_files_are_short_enough_to_read():
    limits = {
        path: MOST_OF_COMMAND if path.parent.name == 'tools' else MOST_OF_FILE for path in TREES
    }
    limits[CHECKOUT / PACKAGE / 'nodes' / 'fusion_node.py'] = MOST_OF_NODE
    fail_with(
        [
            f'{name_of(path)}:{limit + 1}: the file has {lines_of(path)} lines, at most {limit} '
            f'are wanted: split it by what its parts do'
            for path, limit in limits.items()
            if lines_of(path) > limit
        ]
    )


def test_functions_are_short_enough_to_read():
    findings = []
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > MOST_OF_FUNCTION:
                findings.append(
                    f'{name_of(path)}:{node.lineno}: {node.name} has {lines} lines, at most '
                    f'{MOST_OF_FUNCTION} are wanted: give its steps names of their own'
                )
    fail_with(findings)


def test_the_package_stays_within_its_size():
    total = sum(map(lines_of, TREES))
    assert total <= MOST_OF_PACKAGE, (
        f'{PACKAGE}/ has {total} lines, at most {MOST_OF_PACKAGE} are wanted: delete what nobody '
        f'would miss'
    )
