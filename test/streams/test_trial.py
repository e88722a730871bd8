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

"""What crashes, hangs or fails in a process of its own is said, and costs this one nothing."""

import subprocess
import sys

import pytest

from dig2dig_ros.streams.trial import ask, attempt, python_command


def test_what_works_is_printed():
    assert attempt('print("well")') == ('well\n', '')


@pytest.mark.parametrize(
    ('program', 'failure'),
    [
        ('import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)', 'crashes (SIGSEGV)'),
        ('raise ValueError("so it is")', 'does not work (ValueError: so it is)'),
        ('raise SystemExit(3)', 'does not work (no reason given)'),
        (
            'raise SystemExit("[ERROR] [1796.02] [rcl]: no rmw_foo, at /project/src/check.c:154")',
            'does not work (no rmw_foo)',
        ),
    ],
)
def test_a_failure_is_named(program, failure):
    assert attempt(program) == ('', failure)


@pytest.mark.parametrize('safe', ['', '1'])
def test_modules_of_the_working_folder_are_not_run(tmp_path, monkeypatch, safe):
    # Which of the standard library Python imports by itself differs from version to version.
    for name in (*sys.stdlib_module_names, 'asked'):
        (tmp_path / f'{name}.py').write_text('print("from the working folder")\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('PYTHONSAFEPATH', safe)
    assert attempt('import json\nprint(json.dumps(1))') == ('1\n', '')
    assert attempt('import asked') == (
        '',
        "does not work (ModuleNotFoundError: No module named 'asked')",
    )


def test_a_command_has_the_modules_and_arguments_that_it_is_given(tmp_path, monkeypatch):
    (tmp_path / 'asked.py').write_text('import sys\nprint(sys.argv[1:])\n')
    monkeypatch.syspath_prepend(tmp_path)
    command = python_command('import asked', "it's", '-x', 'é')
    done = subprocess.run(command, capture_output=True, text=True, cwd='/')
    assert (done.stdout, done.stderr) == ("[\"it's\", '-x', 'é']\n", '')


def test_what_hangs_is_ended():
    assert attempt('while True: pass', 0.5) == ('', 'does not answer within 0.5 s')


def test_a_function_is_asked_whatever_else_is_printed(tmp_path, monkeypatch):
    (tmp_path / 'asked.py').write_text(
        'print("loading", end="")\ndef facts():\n    print("looking", end="")\n'
        '    return {"version": "1.2", "devices": []}\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert ask('asked', 'facts') == ({'version': '1.2', 'devices': []}, '')
    answer, failure = ask('asked', 'nothing')
    assert answer == {}
    assert "cannot import name 'nothing'" in failure
