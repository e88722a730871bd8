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
Spread long jobs, such as the evaluation of one bag each, over processes or a Dask cluster.

A job function gets one job, a function that reports progress, and one that says whether to stop::

    def count(job, progress, stopping):
        for done in range(job.pairs):
            if stopping():
                break
            progress(done, job.pairs, 'counting')
        return done

It calls both in the thread in which it runs, asks :func:`stopping` between any two steps that
take long, and ends early with what it has. It is a function of an importable module, and jobs and
results can be pickled. It may run again from the start after a process or a worker was lost, so
it should put its files in place only at its end.

An existing cluster (``dask scheduler`` and ``dask worker`` of the package ``distributed``) needs
the same sources of this package on its scheduler and its workers, which is checked, and on its
workers the files under the same paths. A job usually wants its machine for itself: start workers
with ``--nthreads 1``, one for each job that fits, and say in their environment how many threads a
job has (``DASK_DISTRIBUTED__NANNY__PRE_SPAWN_ENVIRON__OMP_NUM_THREADS=8``; Dask's own value is
1). How often a job may lose its worker is a setting of the scheduler (``allowed-failures``).
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import lru_cache, partial
import hashlib
from importlib import import_module, metadata
import multiprocessing
from multiprocessing import connection as connections
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
import os
from pathlib import Path
import queue
import signal
import threading
import time
import traceback
from types import FrameType
from typing import Any, cast, Generic, TypeVar
import uuid

J = TypeVar('J')
R = TypeVar('R')

ProgressFunction = Callable[[int, int, str], None]
StoppingFunction = Callable[[], bool]
# (job, progress(done, total, text), stopping()) -> result
JobFunction = Callable[[J, ProgressFunction, StoppingFunction], R]

# How often a job may begin in all, when processes are lost below it.
ATTEMPTS = 3
NOT_BEGUN = 'not begun'

# Read by the thread pools of PyTorch, NumPy's libraries and OpenCV when they are loaded.
THREAD_VARIABLES = (
    'OMP_NUM_THREADS',
    'MKL_NUM_THREADS',
    'OPENBLAS_NUM_THREADS',
    'OPENCV_FOR_THREADS_NUM',
)

# Seconds.
_WAKE_UP = 0.2
_END_OF_CHILD = 10.0
_END_OF_TERMINATED_CHILD = 3.0
_CONNECT = 20.0
_FETCH = 30.0
_LOOK_AT_WORKERS = 5.0
_ASK_TO_STOP = 1.0
_REPORT_PROGRESS = 0.5

# One for all runs: the scheduler keeps the messages of a topic, up to a number.
_TOPIC = 'dig2dig'


class ClusterError(RuntimeError):
    """The cluster cannot be used; the message says why and what to do."""


@dataclass(frozen=True)
class Progress:
    """
    How far a job is.

    :param job: index of the job.
    :param done: steps done.
    :param total: steps in all; 0 where not known, as when a job begins again after a loss.
    :param text: what is being done, or what happened.
    """

    job: int
    done: int
    total: int
    text: str = ''


@dataclass(frozen=True)
class Outcome(Generic[R]):
    """
    What became of a job.

    :param job: index of the job.
    :param result: what the function returned, None with an error.
    :param error: None, or one sentence: type and message of what was raised, how its process was
        lost, or :data:`NOT_BEGUN`.
    :param attempts: how often the job was begun; more than once only after losses.
    :param details: the traceback, where there is one.
    """

    job: int
    result: R | None
    error: str | None
    attempts: int
    details: str = ''


class Interruption:
    """
    A wish to end early with what there is, made by Ctrl-C or by :meth:`request` in any thread.

    :ivar requested: whether it was made.
    """

    def __init__(self) -> None:
        self.requested = False

    def request(self) -> None:
        """Let no other job begin, and have the running ones end early."""
        self.requested = True

    @contextmanager
    def on_sigint(self, on_request: Callable[[], None] | None = None) -> Iterator[None]:
        """
        Turn the first SIGINT into a request, the next into KeyboardInterrupt.

        Outside the main thread, which alone gets signals, they are left alone.

        :param on_request: called with the first one.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def handle(signal_number: int, frame: FrameType | None) -> None:
            if self.requested:
                raise KeyboardInterrupt
            self.request()
            if on_request is not None:
                on_request()

        previous = signal.signal(signal.SIGINT, handle)
        try:
            yield
        finally:
            # None: it was not set by Python, and Python cannot put it back.
            signal.signal(signal.SIGINT, signal.SIG_DFL if previous is None else previous)


def run_jobs(
    function: JobFunction[J, R],
    jobs: Sequence[J],
    *,
    processes: int = 1,
    scheduler: str | None = None,
    on_progress: Callable[[Progress], None],
    on_outcome: Callable[[Outcome[R]], None] | None = None,
    threads_per_job: int | None = None,
    interruption: Interruption | None = None,
) -> list[Outcome[R]]:
    """
    Run a function on every job: here, in local processes, or on a Dask cluster.

    A job that raises becomes an outcome with an error and does not stop the others. A job whose
    process or worker is lost, as when memory runs out, begins again: up to :data:`ATTEMPTS` times
    in local processes, as often as the scheduler allows on a cluster.

    The first SIGINT (Ctrl-C) lets no other job begin and has the running ones end early; their
    results count, and the others are :data:`NOT_BEGUN`. The second raises KeyboardInterrupt and
    ends local processes. Outside the main thread signals are left alone.

    :param processes: how many jobs run at a time on this machine; with 1, in this process.
    :param scheduler: address of a Dask scheduler (``tcp://host:8786``), which then decides where
        jobs run, whatever ``processes`` is.
    :param on_progress: called in this thread.
    :param on_outcome: likewise, for every job when it ends, and at the end for those not begun.
    :param threads_per_job: threads of numerical libraries in local processes; None leaves that
        to the environment. Not used in this process, nor on a cluster.
    :param interruption: tells whether the run was interrupted, and can interrupt it.
    :return: the outcomes in the order of the jobs.
    :raises ValueError: ``processes`` or ``threads_per_job`` is less than 1.
    :raises ImportError: the package for clusters is not installed.
    :raises ClusterError: the scheduler does not answer, or a worker has other sources.
    :raises KeyboardInterrupt: at the second SIGINT.
    """
    for name, count in (('processes', processes), ('threads_per_job', threads_per_job)):
        if count is not None and count < 1:
            raise ValueError(f'{name} is {count}, it must be at least 1')
    interruption = interruption or Interruption()
    ledger = _Ledger[R](len(jobs), on_progress, on_outcome)
    with interruption.on_sigint():
        if scheduler is not None:
            _ClusterRun(function, jobs, ledger, interruption).run(scheduler)
        elif processes > 1:
            _LocalRun(function, jobs, ledger, interruption, processes, threads_per_job).run()
        else:
            _run_here(function, jobs, ledger, interruption)
        return ledger.close()


class _Ledger(Generic[R]):
    """What has become of the jobs so far, and whom to tell."""

    def __init__(
        self,
        count: int,
        on_progress: Callable[[Progress], None],
        on_outcome: Callable[[Outcome[R]], None] | None,
    ) -> None:
        self._count = count
        self._on_progress = on_progress
        self._on_outcome = on_outcome
        self._outcomes: dict[int, Outcome[R]] = {}
        self.attempts: Counter[int] = Counter()

    def open(self, job: int) -> bool:
        """Return whether a job has no outcome yet."""
        return job not in self._outcomes

    def report(self, job: int, done: int, total: int, text: str = '') -> None:
        """Pass progress on."""
        self._on_progress(Progress(job, done, total, text))

    def settle(self, job: int, answer: _Done | _Failure) -> None:
        """Note and pass on what became of a job."""
        attempts = self.attempts[job]
        if isinstance(answer, _Failure):
            outcome = Outcome[R](job, None, answer.error, attempts, answer.details)
        else:
            outcome = Outcome[R](job, answer.result, None, attempts)
        self._outcomes[job] = outcome
        if self._on_outcome is not None:
            self._on_outcome(outcome)

    def close(self) -> list[Outcome[R]]:
        """Settle the jobs that were not begun and return all outcomes in order."""
        for job in range(self._count):
            if self.open(job):
                self.settle(job, _Failure(NOT_BEGUN))
        return [self._outcomes[job] for job in range(self._count)]


@dataclass(frozen=True)
class _Order:
    """One job for another process."""

    job: int
    function: JobFunction[Any, Any]
    argument: Any


@dataclass(frozen=True)
class _Done:
    """A job returned a result."""

    result: Any


@dataclass(frozen=True)
class _Failure:
    """A job raised an error, or was lost."""

    error: str
    details: str = ''


def _failure(error: BaseException) -> _Failure:
    """Describe what a job raised."""
    message = ' '.join(str(error).split())
    name = type(error).__name__
    details = ''.join(traceback.format_exception(type(error), error, error.__traceback__))
    return _Failure(f'{name}: {message}' if message else name, details)


def _attempt(
    function: JobFunction[Any, Any],
    argument: object,
    progress: ProgressFunction,
    stopping: StoppingFunction,
) -> _Done | _Failure:
    """Run a job; what it raises, but KeyboardInterrupt, is its outcome."""
    try:
        return _Done(function(argument, progress, stopping))
    except (Exception, SystemExit) as error:
        return _failure(error)


# In this process.


def _run_here(
    function: JobFunction[J, R],
    jobs: Sequence[J],
    ledger: _Ledger[R],
    interruption: Interruption,
) -> None:
    for job, argument in enumerate(jobs):
        if interruption.requested:
            return
        ledger.attempts[job] += 1
        progress = partial(ledger.report, job)
        ledger.settle(job, _attempt(function, argument, progress, lambda: interruption.requested))


# In local processes. The executors of the standard library give up all jobs when one process
# dies, so each process has a pipe of its own here, on which its death is the end of the file.


@dataclass
class _Child:
    process: SpawnProcess
    connection: Connection
    job: int = -1


class _LocalRun(Generic[J, R]):
    """Local processes, each of which takes the next job when it is done with one."""

    def __init__(
        self,
        function: JobFunction[J, R],
        jobs: Sequence[J],
        ledger: _Ledger[R],
        interruption: Interruption,
        processes: int,
        threads_per_job: int | None,
    ) -> None:
        self._function = function
        self._jobs = jobs
        self._ledger = ledger
        self._interruption = interruption
        self._processes = processes
        self._threads = threads_per_job
        self._waiting = deque(range(len(jobs)))
        self._children: list[_Child] = []
        self._idle: list[_Child] = []
        self._busy: dict[Connection, _Child] = {}

    def run(self) -> None:
        """Run until every job has an outcome or the interruption left it out."""
        told = False
        try:
            while self._waiting or self._busy:
                if self._interruption.requested and not told:
                    self._tell_to_stop()
                    told = True
                self._hand_out()
                for connection in connections.wait(list(self._busy), _WAKE_UP):
                    self._receive(self._busy[cast(Connection, connection)])
        except BaseException:
            for child in self._children:
                child.process.terminate()
            raise
        finally:
            with _sigint_held():
                for child in list(self._children):
                    self._end(child)

    def _tell_to_stop(self) -> None:
        self._waiting.clear()
        for child in self._busy.values():
            # A process that is gone is found so when it is read from.
            with suppress(OSError):
                child.connection.send(None)

    def _hand_out(self) -> None:
        while self._waiting and len(self._busy) < self._processes:
            child = self._idle.pop() if self._idle else self._start()
            child.job = self._waiting.popleft()
            self._ledger.attempts[child.job] += 1
            with suppress(OSError):
                child.connection.send(_Order(child.job, self._function, self._jobs[child.job]))
            self._busy[child.connection] = child

    def _start(self) -> _Child:
        # Neither PyTorch's threads nor CUDA survive a fork.
        context = multiprocessing.get_context('spawn')
        here, there = context.Pipe()
        # It would let SIGINT through when it starts its own process below.
        resource_tracker.ensure_running()
        with _sigint_held(), _threads_in_environment(self._threads):
            # A daemon, so that it ends with this process whatever happens.
            process = context.Process(target=_serve, args=(there,), daemon=True)
            process.start()
            child = _Child(process, here)
            self._children.append(child)
        there.close()
        return child

    def _receive(self, child: _Child) -> None:
        answer: _Done | _Failure
        try:
            message = child.connection.recv()
        except (EOFError, OSError):
            self._lose(child)
            return
        except Exception as error:
            # The result came, but cannot be unpickled.
            message = _failure(error)
        if isinstance(message, Progress):
            self._ledger.report(message.job, message.done, message.total, message.text)
            return
        answer = message
        del self._busy[child.connection]
        self._idle.append(child)
        self._ledger.settle(child.job, answer)

    def _lose(self, child: _Child) -> None:
        del self._busy[child.connection]
        cause = _describe_exit(self._end(child))
        attempts = self._ledger.attempts[child.job]
        if attempts < ATTEMPTS and not self._interruption.requested:
            self._waiting.appendleft(child.job)
            text = f'{cause}; attempt {attempts + 1} of {ATTEMPTS}'
            self._ledger.report(child.job, 0, 0, text)
        else:
            times = f' in attempt {attempts}' if attempts > 1 else ''
            self._ledger.settle(child.job, _Failure(f'{cause}{times}'))

    def _end(self, child: _Child) -> int | None:
        """Make sure that a process has ended; return its exit code."""
        self._children.remove(child)
        # What a process that waits for a job takes as a sign to go.
        child.connection.close()
        child.process.join(_END_OF_CHILD)
        if child.process.exitcode is None:
            child.process.terminate()
            child.process.join(_END_OF_TERMINATED_CHILD)
        if child.process.exitcode is None:
            child.process.kill()
            child.process.join()
        code = child.process.exitcode
        child.process.close()
        return code


def _describe_exit(code: int | None) -> str:
    if code is None or code >= 0:
        return f'its process ended with exit code {code}'
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f'signal {-code}'
    hint = ', as when memory runs out' if name == 'SIGKILL' else ''
    return f'its process was ended by {name}{hint}'


@contextmanager
def _sigint_held() -> Iterator[None]:
    """Hold SIGINT back; a process that is started meanwhile never gets it, from its beginning."""
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


@contextmanager
def _threads_in_environment(threads: int | None) -> Iterator[None]:
    """Set what processes that are started meanwhile read when they load their libraries."""
    if threads is None:
        yield
        return
    previous = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(threads)))
    try:
        yield
    finally:
        for name, value in previous.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


class _Parent:
    """The other end of the pipe, as a job sees it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stop = False

    def progress(self, job: int, done: int, total: int, text: str = '') -> None:
        """Report; without a parent there is nobody to tell, and no reason to go on."""
        try:
            self._connection.send(Progress(job, done, total, text))
        except OSError:
            self._stop = True

    def stopping(self) -> bool:
        """Return whether the parent said so, or is gone."""
        try:
            if not self._stop and self._connection.poll():
                self._connection.recv()
                self._stop = True
        except (EOFError, OSError):
            self._stop = True
        return self._stop


def _serve(connection: Connection) -> None:
    """Do the jobs that come through the pipe until it is closed."""
    # A terminal sends it to all processes; the parent decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        try:
            order = connection.recv()
        except (EOFError, OSError):
            return
        except Exception as error:
            connection.send(_failure(error))
            continue
        if order is None:
            # Meant for a job that ended before it arrived.
            continue
        parent = _Parent(connection)
        progress = partial(parent.progress, order.job)
        answer = _attempt(order.function, order.argument, progress, parent.stopping)
        try:
            connection.send(answer)
        except OSError:
            return
        except Exception as error:
            connection.send(_failure(error))


# On a cluster. Messages of the workers come as events of a topic, results as futures.


def _import_distributed() -> Any:
    # Its functions have no types.
    try:
        return import_module('distributed')
    except ImportError as error:
        raise ImportError(
            f'a cluster needs the package distributed, which cannot be loaded ({error}); '
            "pip install 'dig2dig[cluster]'"
        ) from error


@lru_cache(maxsize=1)
def _sources() -> str:
    """
    Return what tells the sources of this package from others: version and a digest.

    Of the sources at the first call: those of a process that goes on with old ones stay old.
    """
    folder = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for path in sorted(folder.rglob('*')):
        if path.suffix in ('.py', '.safetensors'):
            digest.update(f'{path.relative_to(folder).as_posix()}\0'.encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    try:
        version = metadata.version('dig2dig')
    except metadata.PackageNotFoundError:
        version = 'unknown'
    return f'{version} (sources {digest.hexdigest()[:8]})'


@dataclass(frozen=True)
class _Begun:
    job: int
    worker: str


@dataclass(frozen=True)
class _Finished:
    """A future has an outcome, or lost its connection."""

    job: int
    future: Any


class _Fence:
    """After this, a job that begins knows that it must not."""


class _ClusterRun(Generic[J, R]):
    """Futures on a Dask cluster, one for each job."""

    def __init__(
        self,
        function: JobFunction[J, R],
        jobs: Sequence[J],
        ledger: _Ledger[R],
        interruption: Interruption,
    ) -> None:
        self._function = function
        self._jobs = jobs
        self._ledger = ledger
        self._interruption = interruption
        self._name = f'dig2dig-{uuid.uuid4().hex}'
        self._distributed = _import_distributed()
        self._client: Any = None
        self._stop: Any = None
        self._futures: dict[int, Any] = {}
        self._submissions: Counter[int] = Counter()
        self._has_workers = True
        # Filled by threads of the client.
        self._inbox: queue.SimpleQueue[Progress | _Begun | _Finished | _Fence] = (
            queue.SimpleQueue()
        )

    def run(self, address: str) -> None:
        """Run until every job has an outcome or the interruption left it out."""
        try:
            self._client = self._distributed.Client(
                address, timeout=_CONNECT, set_as_default=False, name='dig2dig'
            )
        except (OSError, TimeoutError, ValueError) as error:
            raise ClusterError(
                f'no Dask scheduler can be reached at {address}: {_failure(error).error}'
            ) from error
        with self._client:
            self._stop = self._distributed.Event(self._name, client=self._client)
            self._check_sources()
            self._client.subscribe_topic(_TOPIC, self._hear)
            try:
                for job in range(len(self._jobs)):
                    self._submit(job)
                self._follow()
            except BaseException:
                # Set for good: those that run see it when they look the next time.
                with suppress(OSError):
                    self._stop.set()
                    self._client.cancel(list(self._futures.values()))
                raise

    def _check_sources(self) -> None:
        """Refuse workers that would compute something else, or not know the function."""
        own = _sources()
        found = self._client.run(_sources, on_error='return')
        try:
            # It unpickles jobs on their way to workers.
            found['the scheduler'] = self._client.run_on_scheduler(_sources)
        except Exception as error:
            found['the scheduler'] = error
        for where, sources in sorted(found.items()):
            # A worker that goes away meanwhile does no harm.
            if sources != own and not isinstance(sources, OSError):
                raise ClusterError(_wrong_sources(where, sources, own))

    def _submit(self, job: int) -> None:
        self._submissions[job] += 1
        future = self._client.submit(
            _run_on_worker,
            self._function,
            job,
            self._jobs[job],
            self._name,
            _sources(),
            pure=False,
        )
        self._futures[job] = future
        self._watch(job, future)

    def _watch(self, job: int, future: Any) -> None:
        future.add_done_callback(lambda future: self._inbox.put(_Finished(job, future)))

    def _hear(self, event: tuple[float, Any]) -> None:
        """Take a message of a worker, or the fence, in the client's thread."""
        message = event[1]
        if message.get('run') != self._name:
            return
        if 'begun' in message:
            self._inbox.put(_Begun(message['job'], message['begun']))
        elif 'done' in message:
            self._inbox.put(
                Progress(message['job'], message['done'], message['total'], message['text'])
            )
        else:
            self._inbox.put(_Fence())

    def _follow(self) -> None:
        told = False
        look = time.monotonic() + _LOOK_AT_WORKERS
        while self._futures:
            if self._interruption.requested and not told:
                self._tell_to_stop()
                told = True
            with suppress(queue.Empty):
                self._take(self._inbox.get(timeout=_WAKE_UP))
            if time.monotonic() >= look:
                self._look_for_workers()
                look = time.monotonic() + _LOOK_AT_WORKERS
        if told:
            with suppress(OSError):
                self._stop.clear()

    def _tell_to_stop(self) -> None:
        # Without a connection, which these raise, the futures are cancelled anyway.
        with suppress(OSError):
            self._stop.set()
            self._client.log_event(_TOPIC, {'run': self._name})

    def _take(self, message: Progress | _Begun | _Finished | _Fence) -> None:
        if isinstance(message, _Fence):
            unbegun = [job for job in self._futures if not self._ledger.attempts[job]]
            self._client.cancel([self._futures.pop(job) for job in unbegun])
        elif message.job not in self._futures:
            # The last words of a job that is through.
            pass
        elif isinstance(message, Progress):
            self._ledger.report(message.job, message.done, message.total, message.text)
        elif isinstance(message, _Begun):
            self._ledger.attempts[message.job] += 1
            attempts = self._ledger.attempts[message.job]
            again = f', attempt {attempts}: its worker was lost' if attempts > 1 else ''
            self._ledger.report(message.job, 0, 0, f'on {message.worker}{again}')
        elif self._futures[message.job] is message.future:
            self._fetch(message.job, message.future)

    def _fetch(self, job: int, future: Any) -> None:
        attempts = self._ledger.attempts
        answer: _Done | _Failure
        try:
            answer = future.result(timeout=_FETCH)
        except self._distributed.KilledWorker as error:
            # Dask blames all jobs that a lost worker had, those as well that had not begun.
            again = max(attempts[job], self._submissions[job]) < ATTEMPTS
            if again and not self._interruption.requested:
                self._submit(job)
                return
            answer = _Failure(
                f'its worker was lost in each of {attempts[job]} attempts, the last time '
                f'{error.last_worker.address}'
            )
        except self._distributed.CancelledError as error:
            cancelled = 'the connection to the scheduler was lost, or the job was cancelled there'
            answer = replace(_failure(error), error=cancelled)
        except Exception as error:
            if isinstance(error, self._distributed.TimeoutError) and future.status != 'error':
                # The worker that had the result was lost, and the job runs again.
                self._watch(job, future)
                return
            answer = _failure(error)
        if answer == _Failure(NOT_BEGUN):
            # It was handed to a worker, again perhaps, just before the interruption.
            attempts[job] -= 1
            if attempts[job]:
                answer = _Failure('its worker was lost, and the interruption came before the next')
        del self._futures[job]
        self._ledger.settle(job, answer)

    def _look_for_workers(self) -> None:
        with suppress(OSError):
            there = bool(self._client.nthreads())
            if self._has_workers and not there:
                self._ledger.report(min(self._futures), 0, 0, 'waiting: there are no workers')
            self._has_workers = there


def _wrong_sources(where: str, sources: object, own: str) -> str:
    found = f'has dig2dig {sources}'
    if isinstance(sources, BaseException):
        found = f'cannot load dig2dig ({_failure(sources).error})'
    return (
        f'{where} {found}, asked for is {own}; install the same version on all machines of the '
        'cluster and restart it'
    )


def _run_on_worker(
    function: JobFunction[Any, Any], job: int, argument: object, run: str, sources: str
) -> _Done | _Failure:
    """Run a job in a thread of a Dask worker."""
    distributed = _import_distributed()
    worker, client = distributed.get_worker(), distributed.get_client()
    if _sources() != sources:
        # It joined after the others were checked.
        return _Failure(_wrong_sources(worker.address, _sources(), sources))
    # Waits until the scheduler has it, so that an attempt counts even if it ends at once.
    client.log_event(_TOPIC, {'run': run, 'job': job, 'begun': worker.address})
    stop = distributed.Event(run, client=client)
    if stop.is_set():
        return _Failure(NOT_BEGUN)
    asked = time.monotonic()
    stopped = False
    reported = 0.0

    def stopping() -> bool:
        nonlocal asked, stopped
        if not stopped and time.monotonic() - asked >= _ASK_TO_STOP:
            try:
                stopped = bool(stop.is_set())
            except OSError:
                # Without a scheduler nobody waits for this job.
                stopped = True
            asked = time.monotonic()
        return stopped

    def progress(done: int, total: int, text: str = '') -> None:
        nonlocal reported
        if done >= total or time.monotonic() - reported >= _REPORT_PROGRESS:
            message = {'done': int(done), 'total': int(total), 'text': str(text)}
            worker.log_event(_TOPIC, {'run': run, 'job': job, **message})
            reported = time.monotonic()

    return _attempt(function, argument, progress, stopping)
