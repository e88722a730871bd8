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


"""Jobs for test_jobs.py, in a module that other processes can import."""

from collections.abc import Callable
from dataclasses import dataclass
import os
from pathlib import Path
import signal
import threading
import time

ProgressFunction = Callable[[int, int, str], None]
StoppingFunction = Callable[[], bool]

# A test that goes wrong ends some day.
PATIENCE_S = 60.0


@dataclass(frozen=True)
class Work:
    """
    One job.

    :param folder: takes a file for every attempt.
    :param steps: how many numbers to add up.
    :param deaths: in so many attempts the process kills itself.
    """

    number: int
    folder: Path
    steps: int = 4
    deaths: int = 0


def note_attempt(work: Work) -> int:
    """Write a file with the id of this process; return how many there were before."""
    earlier = len(list(work.folder.glob(f'{work.number}.*')))
    (work.folder / f'{work.number}.{earlier}').write_text(str(os.getpid()), encoding='ascii')
    return earlier


def add_up(
    work: Work, progress: ProgressFunction, stopping: StoppingFunction
) -> tuple[int, float]:
    """Return a number that depends on the job alone."""
    earlier = note_attempt(work)
    total = 0.0
    for step in range(work.steps):
        if stopping():
            break
        progress(step, work.steps, 'adding up')
        if step == work.steps // 2 and earlier < work.deaths:
            os.kill(os.getpid(), signal.SIGKILL)
        total += (work.number + 0.1) ** step
    progress(work.steps, work.steps, 'added up')
    return work.number, total


def raise_for_odd(work: Work, progress: ProgressFunction, stopping: StoppingFunction) -> int:
    """Fail for odd numbers."""
    if work.number % 2:
        raise ValueError(f'bag {work.number}\nhas no pairs')
    return work.number


def leave(work: Work, progress: ProgressFunction, stopping: StoppingFunction) -> int:
    """End the program."""
    raise SystemExit('no more')


def cannot_be_sent(work: Work, progress: ProgressFunction, stopping: StoppingFunction) -> object:
    """Return what cannot be pickled."""
    return threading.Lock()


def threads(work: Work, progress: ProgressFunction, stopping: StoppingFunction) -> str | None:
    """Return what a library would read that is loaded now."""
    return os.environ.get('OMP_NUM_THREADS')


def wait_for_stop(work: Work, progress: ProgressFunction, stopping: StoppingFunction) -> str:
    """Go on until told to stop."""
    note_attempt(work)
    deadline = time.monotonic() + PATIENCE_S
    while not stopping():
        progress(1, 2, 'waiting')
        if time.monotonic() > deadline:
            raise TimeoutError('was not told to stop')
        time.sleep(0.02)
    return f'{work.number} stopped'


def ignore_stop(work: Work, progress: ProgressFunction, stopping: StoppingFunction) -> str:
    """Write a file when told to stop, and go on."""
    note_attempt(work)
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if stopping():
            (work.folder / f'told.{work.number}').touch()
        time.sleep(0.02)
    return 'never ended'
