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


"""Jobs in this process, in others, and on a cluster, some of which are killed."""

from collections.abc import Iterator
import json
import os
from pathlib import Path
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from typing import Any

from job_functions import (
    add_up,
    cannot_be_sent,
    leave,
    PATIENCE_S,
    raise_for_odd,
    threads,
    wait_for_stop,
    Work,
)
import pytest

from dig2dig_ros.evaluation.jobs import (
    ATTEMPTS,
    ClusterError,
    NOT_BEGUN,
    Outcome,
    run_jobs,
)

CHECKOUT = Path(__file__).resolve().parents[2]

# Runs the function of job_functions that it is told on four jobs, two at a time.
SCRIPT = """
import json, signal, sys
from pathlib import Path
import job_functions
from dig2dig_ros.evaluation.jobs import run_jobs
from dig2dig_ros.nodes.signals import interruption
# A shell starts what runs in the background with SIGINT ignored.
before = signal.signal(signal.SIGINT, signal.default_int_handler)
function, folder, processes = getattr(job_functions, sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
jobs = [job_functions.Work(number, folder) for number in range(4)]

def main():
    with interruption() as interrupted:
        try:
            outcomes = run_jobs(function, jobs, processes=int(processes),
                                on_progress=lambda *_: None, stopping=interrupted.is_set)
        except KeyboardInterrupt:
            print(json.dumps('KeyboardInterrupt'))
        else:
            print(json.dumps([[o.result, o.error, o.attempts] for o in outcomes]))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    sys.exit(3 if interrupted.is_set() else 0)

main()
"""

CLUSTER_SCRIPT = """
import sys
import job_functions
from dig2dig_ros.evaluation.jobs import ClusterError, run_jobs
try:
    run_jobs(job_functions.add_up, [None], scheduler=sys.argv[1], on_progress=lambda *_: None)
except ClusterError as error:
    print(error)
"""


def works(folder: Path, count: int = 4, **changes: Any) -> list[Work]:
    folder.mkdir(exist_ok=True)
    return [Work(number, folder, **changes) for number in range(count)]


def results(outcomes: list[Outcome[Any]]) -> list[Any]:
    assert [outcome.error for outcome in outcomes] == [None] * len(outcomes)
    return [outcome.result for outcome in outcomes]


def ignore(job: int, done: int, total: int, text: str) -> None:
    pass


class Ear:
    """Keeps what is heard of jobs."""

    def __init__(self) -> None:
        self.heard: list[tuple[int, int, int, str]] = []

    def __call__(self, job: int, done: int, total: int, text: str) -> None:
        self.heard.append((job, done, total, text))

    def heard_of_attempt(self, attempt: int) -> set[int]:
        return {job for job, _, _, text in self.heard if f'attempt {attempt}' in text}


def wait_until_there(paths: list[Path]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not all(path.exists() for path in paths):
        assert time.monotonic() < deadline, f'still missing: {paths}'
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_in_this_process_jobs_run_one_after_another(tmp_path: Path) -> None:
    ear = Ear()
    ended: list[Outcome[tuple[int, float]]] = []
    outcomes = run_jobs(
        add_up, works(tmp_path, 2, steps=2), on_progress=ear, on_outcome=ended.append
    )
    assert results(outcomes) == [(0, 1.1), (1, 2.1)]
    assert ended == outcomes
    assert ear.heard == [
        (job, done, 2, text)
        for job in range(2)
        for done, text in ((0, 'adding up'), (1, 'adding up'), (2, 'added up'))
    ]
    assert {path.read_text() for path in tmp_path.iterdir()} == {str(os.getpid())}


def test_there_may_be_no_jobs() -> None:
    assert run_jobs(add_up, [], processes=2, on_progress=ignore) == []


@pytest.mark.slow
def test_a_killed_process_costs_an_attempt_of_its_job_only(tmp_path: Path) -> None:
    jobs = works(tmp_path / 'spread')
    jobs[1] = Work(1, tmp_path / 'spread', deaths=1)
    jobs[2] = Work(2, tmp_path / 'spread', deaths=ATTEMPTS)
    ear = Ear()
    ended: list[Outcome[tuple[int, float]]] = []
    outcomes = run_jobs(add_up, jobs, processes=2, on_progress=ear, on_outcome=ended.append)
    expected = results(run_jobs(add_up, works(tmp_path / 'here'), on_progress=ignore))
    assert [outcome.result for outcome in outcomes] == [*expected[:2], None, expected[3]]
    # One that is done begins again, too, where its worker is lost before its result was fetched.
    assert outcomes[1].attempts >= 2
    assert outcomes[2].attempts == ATTEMPTS
    assert outcomes[2].error is not None
    assert f'in each of {ATTEMPTS} attempts' in outcomes[2].error
    assert sorted(ended, key=lambda outcome: outcome.job) == outcomes
    assert {1, 2} <= ear.heard_of_attempt(2)
    for job in (0, 1, 3):
        assert (job, 4, 4, 'added up') in ear.heard
    pids = {int(path.read_text()) for path in (tmp_path / 'spread').iterdir()}
    assert os.getpid() not in pids
    assert not any(map(is_running, pids))


@pytest.mark.slow
def test_threads_are_set_before_libraries_are_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('OMP_NUM_THREADS', '5')
    jobs = works(tmp_path, 1)
    outcomes = run_jobs(threads, jobs, processes=2, threads=3, on_progress=ignore)
    assert results(outcomes) == ['3']
    assert os.environ['OMP_NUM_THREADS'] == '5'


def test_what_is_to_stop_ends_early_and_the_rest_does_not_begin(tmp_path: Path) -> None:
    stop = threading.Event()
    outcomes = run_jobs(
        wait_for_stop,
        works(tmp_path, 2),
        on_progress=lambda *_: stop.set(),
        stopping=stop.is_set,
    )
    assert [outcome.result for outcome in outcomes] == ['0 stopped', None]
    assert [outcome.error for outcome in outcomes] == [None, NOT_BEGUN]
    assert [outcome.attempts for outcome in outcomes] == [1, 0]


@pytest.mark.slow
def test_what_a_callback_raises_ends_the_run_and_its_processes(tmp_path: Path) -> None:
    def refuse(*progress: object) -> None:
        raise RuntimeError('the terminal is gone')

    with pytest.raises(RuntimeError, match='terminal'):
        run_jobs(wait_for_stop, works(tmp_path), processes=2, on_progress=refuse)
    # A process may have been ended before it could write its id.
    pids = [path.read_text() for path in tmp_path.iterdir()]
    assert any(pids)
    assert not any(is_running(int(pid)) for pid in pids if pid)


@pytest.mark.slow
@pytest.mark.skipif(sys.version_info < (3, 11), reason='has no way to leave that folder out')
def test_modules_of_the_working_folder_are_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in sys.stdlib_module_names:
        (tmp_path / f'{name}.py').write_text('raise SystemExit("from the working folder")\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('PYTHONSAFEPATH', '')
    outcomes = run_jobs(add_up, works(tmp_path / 'jobs'), processes=2, on_progress=ignore)
    assert len(results(outcomes)) == 4
    # Scripts that the caller starts afterwards find the modules next to them.
    assert os.environ['PYTHONSAFEPATH'] == ''


@pytest.fixture
def script(tmp_path: Path) -> Iterator[Any]:
    """Return what starts SCRIPT in a process group of its own."""
    started: list[subprocess.Popen[str]] = []

    def start(function: str, processes: int) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, '-c', SCRIPT, function, str(tmp_path), str(processes)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)},
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize('processes', [1, 2])
def test_ctrl_c_keeps_what_there_is(tmp_path: Path, script: Any, processes: int) -> None:
    process = script('wait_for_stop', processes)
    begun = list(range(processes))
    wait_until_there([tmp_path / f'{number}.0' for number in begun])
    # A terminal signals all processes.
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 3
    assert json.loads(output) == [
        [f'{number} stopped', None, 1] if number in begun else [None, NOT_BEGUN, 0]
        for number in range(4)
    ]


@pytest.mark.slow
def test_a_second_ctrl_c_ends_all_at_once(tmp_path: Path, script: Any) -> None:
    process = script('ignore_stop', 2)
    begun = [tmp_path / '0.0', tmp_path / '1.0']
    wait_until_there(begun)
    os.killpg(process.pid, signal.SIGINT)
    wait_until_there([tmp_path / 'told.0', tmp_path / 'told.1'])
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=PATIENCE_S)
    assert json.loads(output) == 'KeyboardInterrupt'
    assert not any(is_running(int(path.read_text())) for path in begun)


@pytest.fixture(scope='module')
def cluster() -> Iterator[Any]:
    """Return a Dask cluster of two worker processes of one thread each."""
    distributed = pytest.importorskip('distributed')
    before = dict(os.environ)
    with distributed.LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=True,
        host='127.0.0.1',
        dashboard_address=None,
    ) as cluster:
        yield cluster
    # Dask leaves what it has set for its workers.
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.slow
def test_a_lost_worker_of_a_cluster_costs_an_attempt(tmp_path: Path, cluster: Any) -> None:
    jobs = works(tmp_path / 'spread')
    jobs[1] = Work(1, tmp_path / 'spread', deaths=1)
    ear = Ear()
    ended: list[Outcome[tuple[int, float]]] = []
    outcomes = run_jobs(
        add_up,
        jobs,
        scheduler=cluster.scheduler_address,
        on_progress=ear,
        on_outcome=ended.append,
    )
    here = run_jobs(add_up, works(tmp_path / 'here'), on_progress=ignore)
    assert results(outcomes) == results(here)
    assert outcomes[1].attempts >= 2
    assert len(list((tmp_path / 'spread').glob('1.*'))) >= 2
    assert sorted(ended, key=lambda outcome: outcome.job) == outcomes
    for job in range(4):
        assert (job, 4, 4, 'added up') in ear.heard
    assert 1 in ear.heard_of_attempt(2)
    pids = {int(path.read_text()) for path in (tmp_path / 'spread').iterdir()}
    assert os.getpid() not in pids


@pytest.mark.parametrize('place', ['here', 'cluster'])
def test_a_job_that_raises_does_not_stop_the_others(
    tmp_path: Path, cluster: Any, place: str
) -> None:
    scheduler = cluster.scheduler_address if place == 'cluster' else None
    jobs = works(tmp_path, 3)
    outcomes = run_jobs(raise_for_odd, jobs, scheduler=scheduler, on_progress=ignore)
    assert [outcome.result for outcome in outcomes] == [0, None, 2]
    assert [outcome.attempts for outcome in outcomes] == [1, 1, 1]
    assert outcomes[1].error == 'ValueError: bag 1 has no pairs'
    assert 'in raise_for_odd' in outcomes[1].details


def test_other_ends_of_a_job_are_errors_too(tmp_path: Path, cluster: Any) -> None:
    jobs = works(tmp_path, 1)
    (outcome,) = run_jobs(leave, jobs, scheduler=cluster.scheduler_address, on_progress=ignore)
    assert outcome.error == 'SystemExit: no more'
    (outcome,) = run_jobs(
        cannot_be_sent, jobs, scheduler=cluster.scheduler_address, on_progress=ignore
    )
    assert outcome.error is not None
    assert 'lock' in outcome.error
    assert outcome.attempts == 1


def test_the_jobs_on_a_cluster_are_told_to_stop(tmp_path: Path, cluster: Any) -> None:
    begun: set[int] = set()

    def note(job: int, done: int, total: int, text: str) -> None:
        if text == 'waiting':
            begun.add(job)

    outcomes = run_jobs(
        wait_for_stop,
        works(tmp_path),
        scheduler=cluster.scheduler_address,
        on_progress=note,
        stopping=lambda: len(begun) == 2,
    )
    for outcome in outcomes:
        if outcome.job in begun:
            assert outcome == Outcome(outcome.job, f'{outcome.job} stopped', None, 1)
        else:
            assert outcome == Outcome(outcome.job, None, NOT_BEGUN, 0)


@pytest.mark.slow
def test_a_cluster_with_other_sources_is_refused(tmp_path: Path, cluster: Any) -> None:
    copy = tmp_path / 'dig2dig_ros'
    shutil.copytree(CHECKOUT / 'dig2dig_ros', copy, ignore=shutil.ignore_patterns('__pycache__'))
    with (copy / 'evaluation' / 'metrics.py').open('a', encoding='utf-8') as file:
        file.write('# Changed.\n')
    result = subprocess.run(
        [sys.executable, '-c', CLUSTER_SCRIPT, cluster.scheduler_address],
        cwd=tmp_path,
        env={**os.environ, 'PYTHONPATH': os.pathsep.join([str(tmp_path), *sys.path])},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    message = result.stdout.splitlines()[-1]
    assert re.match(r'.* has sources .* of dig2dig, not sources .*; install the same', message)


@pytest.mark.slow
def test_without_the_package_for_clusters_its_extra_is_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, 'distributed', None)
    with pytest.raises(ImportError, match=r'dig2dig\[evaluation\]'):
        run_jobs(add_up, works(tmp_path, 1), scheduler='tcp://127.0.0.1:1', on_progress=ignore)


@pytest.mark.slow
def test_without_a_scheduler_there_is_a_clear_error(tmp_path: Path) -> None:
    pytest.importorskip('distributed')
    with pytest.raises(ClusterError, match=r'no Dask scheduler .* at udp://127\.0\.0\.1:1'):
        run_jobs(add_up, works(tmp_path, 1), scheduler='udp://127.0.0.1:1', on_progress=ignore)
