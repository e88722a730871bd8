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
Run long jobs, such as the evaluation of one bag each: here, or several at a time by Dask.

A job function gets one job, a function that reports progress, and one that says whether to stop::

    def count(job, progress, stopping):
        for done in range(job.pairs):
            if stopping():
                break
            progress(done, job.pairs, 'counting')
        return done

It calls :func:`stopping` between long steps, and ends early with its results so far. It is a
function of an importable module, and jobs and results can be pickled. It may run again from the
start after a worker was lost, so it should only put its files in place at its end.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import lru_cache, partial
import hashlib
from importlib import import_module
import logging
import math
from multiprocessing import resource_tracker
import os
from pathlib import Path
import signal
from socket import gethostname
import time
import traceback
from typing import Any, Generic, TypeVar
import uuid

from dig2dig_ros.evaluation.options import UsageError

J = TypeVar('J')
R = TypeVar('R')

# (steps done, steps in all, what is being done)
ProgressFunction = Callable[[int, int, str], None]
StoppingFunction = Callable[[], bool]
JobFunction = Callable[[J, ProgressFunction, StoppingFunction], R]
# (index of the job, steps done, steps in all or 0, what is being done or what happened)
Listener = Callable[[int, int, int, str], None]

# How often a job may start in all, if its workers are lost.
ATTEMPTS = 3
NOT_BEGUN = 'not begun'

# With a value, Python leaves the working folder out of its path.
_SAFE_PATH = 'PYTHONSAFEPATH'
# Read by the thread pools of PyTorch, NumPy's libraries and OpenCV when they are loaded.
_THREAD_VARIABLES = (
    *('OMP_NUM_THREADS', 'MKL_NUM_THREADS', 'OPENBLAS_NUM_THREADS'),
    'OPENCV_FOR_THREADS_NUM',
)
_LOST = 'its worker was lost, as when memory runs out'
_ADVICE = 'install the same version on all machines of the cluster and restart it'
# Seconds.
_WAKE_UP = 0.2
_CONNECT = 20.0
_LOOK_AT_WORKERS = 1.0
_ASK_TO_STOP = 1.0
# One for all runs: the scheduler keeps the last messages of every topic.
_TOPIC = 'dig2dig'


class ClusterError(UsageError):
    """The cluster cannot be used; the message says why and what to do."""


@dataclass(frozen=True)
class Outcome(Generic[R]):
    """
    The outcome of a job.

    :param job: index of the job.
    :param result: what the function returned, None with an error.
    :param error: None, or one sentence: type and message of what was raised, that its workers
        were lost, or :data:`NOT_BEGUN`.
    :param attempts: how often the job was begun; more than once only after losses.
    :param details: the traceback, where there is one.
    """

    job: int
    result: R | None
    error: str | None
    attempts: int = 1
    details: str = ''


def run_jobs(
    function: JobFunction[J, R],
    jobs: Sequence[J],
    *,
    processes: int = 1,
    threads: int = 1,
    scheduler: str | None = None,
    on_progress: Listener,
    on_outcome: Callable[[Outcome[R]], None] = lambda outcome: None,
    stopping: StoppingFunction = lambda: False,
) -> list[Outcome[R]]:
    """
    Run a function on every job.

    A job that raises becomes an outcome with an error and does not stop the others. A job whose
    worker is lost, for example when memory runs out, starts again, up to :data:`ATTEMPTS` times in
    all; on a cluster once more if its setting ``allowed-failures`` is the default.

    :param processes: how many jobs run at a time on this machine; with 1, in this process.
    :param threads: of numerical libraries in each of several processes.
    :param scheduler: address of a Dask scheduler (``tcp://host:8786``), whose workers then run
        the jobs, one in each of their threads, whatever ``processes`` is. They need the same
        sources of this package, which is checked, and files under the same paths.
    :param on_progress: called in this thread.
    :param on_outcome: likewise, for every job when it ends, and at the end for those not begun.
    :param stopping: once it returns true, no job starts, and running ones are asked to stop.
    :return: the outcomes in the order of the jobs.
    :raises ImportError: more than one process or a cluster need the package ``distributed``.
    :raises ClusterError: the scheduler cannot be reached, or a machine has other sources.
    """
    outcomes: dict[int, Outcome[R]] = {}

    def settle(outcome: Outcome[R]) -> None:
        outcomes[outcome.job] = outcome
        on_outcome(outcome)

    if scheduler is None and processes == 1:
        for job, argument in enumerate(jobs):
            if stopping():
                break
            settle(_attempt(function, job, argument, partial(on_progress, job), stopping))
    elif jobs:
        with _client(scheduler, processes, threads) as client:
            _run_by_dask(client, function, jobs, on_progress, settle, stopping)
    for job in range(len(jobs)):
        if job not in outcomes:
            settle(Outcome(job, None, NOT_BEGUN, attempts=0))
    return [outcomes[job] for job in range(len(jobs))]


def _attempt(
    function: JobFunction[J, R],
    job: int,
    argument: J,
    progress: ProgressFunction,
    stopping: StoppingFunction,
) -> Outcome[R]:
    """Run a job; any exception except KeyboardInterrupt becomes its outcome."""
    try:
        return Outcome(job, function(argument, progress, stopping), None)
    except (Exception, SystemExit) as error:
        return _failed(job, error)


def _failed(job: int, error: BaseException) -> Outcome[Any]:
    details = ''.join(traceback.format_exception(type(error), error, error.__traceback__))
    return Outcome(job, None, _sentence(error), details=details)


def _sentence(error: BaseException) -> str:
    message = ' '.join(str(error).split())
    return f'{type(error).__name__}: {message}' if message else type(error).__name__


def _import_distributed() -> Any:
    # Its functions have no types.
    try:
        return import_module('distributed')
    except ImportError as error:
        raise ImportError(
            'parallel jobs need the package distributed, which cannot be loaded '
            f"({error}): pip install 'dig2dig[evaluation]'"
        ) from error


@contextmanager
def _client(address: str | None, processes: int, threads: int) -> Iterator[Any]:
    """Connect to a cluster; without an address, start processes of this machine as one."""
    distributed = _import_distributed()
    if address is None:
        with (
            _local_cluster(processes, threads) as cluster,
            distributed.Client(cluster, set_as_default=False) as client,
        ):
            yield client
        return
    try:
        connected = distributed.Client(address, timeout=_CONNECT, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise ClusterError(
            f'no Dask scheduler can be reached at {address}: {_sentence(error)}'
        ) from error
    with connected as client:
        try:
            # The scheduler unpickles jobs on their way to workers.
            client.run_on_scheduler(_require_sources, _sources())
            client.run(_require_sources, _sources())
        except ClusterError:
            raise
        except Exception as error:
            raise ClusterError(
                f'the cluster at {address} cannot load dig2dig ({_sentence(error)}); {_ADVICE}'
            ) from error
        yield client


@contextmanager
def _local_cluster(processes: int, threads: int) -> Iterator[Any]:
    # Ctrl-C in a terminal signals all processes, but only this one should react: the others
    # inherit a blocked signal. This helper process of the standard library would unblock it.
    resource_tracker.ensure_running()
    cluster = _import_distributed().LocalCluster
    # Dask's own variables would make malloc return memory that the next fusion needs again.
    variables: dict[str, Any] = {'distributed.nanny.pre-spawn-environ': {}}
    with _safe_path():
        previous = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            with import_module('dask.config').set(variables):
                started = cluster(
                    n_workers=processes,
                    threads_per_worker=1,
                    memory_limit=None,
                    dashboard_address=None,
                    silence_logs=logging.CRITICAL,
                    scheduler_kwargs={'allowed_failures': 0},
                    env=dict.fromkeys(_THREAD_VARIABLES, str(threads)),
                )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, previous)
        with started:
            yield started


@contextmanager
def _safe_path() -> Iterator[None]:
    """
    Have new processes look for no modules in the working folder, which may be anybody's.

    Until multiprocessing has told a process where its modules are, Python looks there first.
    Python 3.10 does not know the variable. Dask starts processes again if they are killed.
    """
    before = os.environ.get(_SAFE_PATH)
    os.environ[_SAFE_PATH] = '1'
    try:
        yield
    finally:
        if before is None:
            del os.environ[_SAFE_PATH]
        else:
            os.environ[_SAFE_PATH] = before


@lru_cache(maxsize=1)
def _sources() -> str:
    """Return a digest of the sources of this package, as of the first call."""
    folder = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for path in sorted(folder.rglob('*')):
        if path.suffix in ('.py', '.safetensors'):
            digest.update(path.read_bytes())
    return f'sources {digest.hexdigest()[:8]}'


def _require_sources(wanted: str) -> None:
    """Refuse a machine with other sources."""
    if _sources() != wanted:
        raise ClusterError(f'{gethostname()} has {_sources()} of dig2dig, not {wanted}; {_ADVICE}')


def _run_by_dask(
    client: Any,
    function: JobFunction[J, R],
    jobs: Sequence[J],
    on_progress: Listener,
    settle: Callable[[Outcome[R]], None],
    stopping: StoppingFunction,
) -> None:
    """
    Run jobs on a cluster, until all are settled or the running ones have been asked to stop.

    Never more at a time than the workers have threads, so that the others can be cancelled.
    """
    run = uuid.uuid4().hex
    stop = _import_distributed().Event(run, client=client)
    messages: deque[dict[str, Any]] = deque()
    client.subscribe_topic(_TOPIC, lambda event: messages.append(event[1]))
    waiting, running = deque(range(len(jobs))), dict[int, Any]()
    attempts: Counter[int] = Counter()
    capacity, look = -1, 0.0
    try:
        while waiting or running:
            if stopping():
                waiting.clear()
                stop.set()
            if time.monotonic() >= look:
                look = time.monotonic() + _LOOK_AT_WORKERS
                before, capacity = capacity, _thread_count(client)
                if before and not capacity and waiting:
                    on_progress(waiting[0], 0, 0, 'waiting: there are no workers')
            while waiting and len(running) < capacity:
                job = waiting.popleft()
                arguments = (function, job, jobs[job], run, _sources())
                running[job] = client.submit(_run_on_worker, *arguments, pure=False)
            time.sleep(_WAKE_UP)
            # Messages of jobs come before their ends.
            ended = [job for job, future in running.items() if future.done()]
            while messages:
                message = messages.popleft()
                job = message['job']
                if message['run'] != run:
                    continue
                if 'progress' in message:
                    on_progress(job, *message['progress'])
                    continue
                attempts[job] += 1
                if attempts[job] > 1:
                    again = f'{_LOST}; attempt {attempts[job]} on {message["begun"]}'
                    on_progress(job, 0, 0, again)
            for job in ended:
                outcome = _result(running.pop(job), job, attempts[job])
                if outcome is None:
                    waiting.append(job)
                else:
                    settle(outcome)
    finally:
        # For good: running jobs see it at their next check.
        with suppress(OSError, RuntimeError):
            stop.set()


def _thread_count(client: Any) -> int:
    """Return how many threads the workers have."""
    try:
        return sum(client.nthreads().values())
    except (OSError, RuntimeError) as error:
        raise ClusterError('the connection to the Dask scheduler was lost') from error


def _result(future: Any, job: int, attempts: int) -> Outcome[Any] | None:
    """Return the outcome of a job whose future is done, None if it gets another attempt."""
    outcome: Outcome[Any]
    try:
        outcome = future.result()
    except _import_distributed().KilledWorker:
        # Dask blames all jobs of a lost worker, even those that had not begun.
        if attempts < ATTEMPTS:
            return None
        outcome = Outcome(job, None, f'{_LOST}, in each of {attempts} attempts')
    except Exception as error:
        outcome = _failed(job, error)
    # It may have reached a worker, perhaps again, just before it was to stop.
    return replace(outcome, attempts=attempts - (outcome.error == NOT_BEGUN))


def _run_on_worker(
    function: JobFunction[J, R], job: int, argument: J, run: str, sources: str
) -> Outcome[R]:
    """Run a job in a thread of a Dask worker."""
    # It may have joined after the others were checked.
    _require_sources(sources)
    distributed = _import_distributed()
    worker, client = distributed.get_worker(), distributed.get_client()
    # Waits until the scheduler has it, so that an attempt counts even if it ends at once.
    client.log_event(_TOPIC, {'run': run, 'job': job, 'begun': worker.address})
    stop = distributed.Event(run, client=client)
    asked, stopped = -math.inf, False

    def stopping() -> bool:
        nonlocal asked, stopped
        if not stopped and time.monotonic() - asked >= _ASK_TO_STOP:
            stopped = bool(stop.is_set())
            asked = time.monotonic()
        return stopped

    def progress(done: int, total: int, text: str = '') -> None:
        message = {'run': run, 'job': job, 'progress': [int(done), int(total), str(text)]}
        worker.log_event(_TOPIC, message)

    if stopping():
        return Outcome(job, None, NOT_BEGUN)
    return _attempt(function, job, argument, progress, stopping)
