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
CUDA graphs of the computation of a pair, and the transfer of pixels to the device and back.

A pair is some hundred small kernels, and launching them one by one takes longer than running them.
So, after a computation has run a few times, its kernels are recorded, and one launch replays them
all, on buffers that stay in place. The pair that makes the recording takes about twice as long. On
the CPU, the function is run again on the same buffers instead, for tests without a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
import gc
import logging
import threading
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
import torch
from torch import Tensor

_LOG = logging.getLogger(__name__)

# Recordings that are kept: a few sets of parameters, with and without a missing or fading camera,
# with and without weight maps. Each has its own inputs and outputs; they share the rest.
MOST_RECORDINGS = 16
# Runs on a thread before a computation is recorded there: in the first run, libraries choose and
# load their kernels, and a computation that occurs once or twice is not worth recording.
RUNS_BEFORE = 3
# Alignment of staged arrays in bytes.
_ALIGNMENT = 256


@contextmanager
def _no_garbage() -> Iterator[None]:
    """
    Collect garbage before the block, and none inside it.

    Garbage may include tensors on the device, and freeing those would abort a recording.
    """
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class Result(Protocol):
    """What a computation returns: tensors on the device, and anything else about them."""

    @property
    def tensors(self) -> Mapping[str, Tensor]: ...


ResultT = TypeVar('ResultT', bound=Result)
# Takes tensors on the device by name, which it must not change, and whether it is being recorded.
Computation = Callable[[Mapping[str, Tensor], bool], ResultT]


@dataclass(frozen=True)
class Input:
    """
    An input of a computation.

    :param tensor: on the host or on the device.
    :param version: equal versions mean equal values; None is never equal.
    """

    tensor: Tensor
    version: Any = None


@dataclass
class _Recording(Generic[ResultT]):
    """
    A computation that is recorded, or may be.

    :param inputs: its input buffers on the device.
    :param versions: of their content.
    :param thread: the one that ran it last, ``runs`` times.
    :param failed: it cannot be recorded.
    :param graph: on CUDA devices, that of the recording.
    :param replay: runs it again; None until it is recorded.
    :param result: of the recorded run; ``replay`` writes to its tensors.
    :param read: other tensors that it reads, which must be kept.
    """

    inputs: dict[str, Tensor]
    versions: dict[str, Any] = field(default_factory=dict)
    thread: threading.Thread | None = None
    runs: int = 0
    failed: bool = False
    graph: Any = None
    replay: Callable[[], None] | None = None
    result: ResultT | None = None
    read: Sequence[Tensor] = ()

    def forget(self) -> None:
        """Discard the recording; the computation must run once more before the next one."""
        self.replay = self.result = None
        self.read = ()
        self.runs = min(self.runs, RUNS_BEFORE - 1)
        graph, self.graph = self.graph, None
        if graph is not None:
            graph.reset()


class Staging:
    """
    Host memory for transfers from and to the device; it grows to what a pair needs.

    :param pinned: page-locked, so that the device copies at full speed and on its own.
    """

    def __init__(self, pinned: bool) -> None:
        self._pinned = pinned
        self._memory = torch.empty(0, dtype=torch.uint8)

    def places(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return buffers for tensors of these shapes and types; valid until the next call."""
        sizes = [tensor.numel() * tensor.element_size() for tensor in tensors.values()]
        steps = [-(-size // _ALIGNMENT) * _ALIGNMENT for size in sizes]
        if sum(steps) > self._memory.numel():
            self._memory = torch.empty(0, dtype=torch.uint8)  # freed before the larger one
            self._memory = torch.empty(sum(steps), dtype=torch.uint8, pin_memory=self._pinned)
        places, begin = {}, 0
        for (name, tensor), size, step in zip(tensors.items(), sizes, steps, strict=True):
            part = self._memory[begin : begin + size]
            places[name] = part.view(tensor.dtype).view(tensor.shape)
            begin += step
        return places


class Replayer(Generic[ResultT]):
    """
    Runs computations on a device, and records those that recur.

    Not thread-safe: use it from one thread at a time, within :meth:`stream`, and call
    :meth:`download` before the next :meth:`run`, which overwrites the outputs of the last.

    :param device: a CUDA device; on the CPU, replaying runs the recorded function again.
    :param record: whether to record at all.
    :ivar problem: why a computation could not be recorded; empty if all could.
    """

    def __init__(self, device: torch.device, record: bool = True) -> None:
        self._device = device
        self._record_any = record
        cuda = device.type == 'cuda'
        # Nothing can be recorded on the default stream, and others on it would wait for us.
        stream: Any = torch.cuda.Stream
        self._stream = stream(device) if cuda else None
        self._upload, self._download = Staging(cuda), Staging(cuda)
        self._recordings: dict[Hashable, _Recording[ResultT]] = {}
        # Whether something was enqueued that has not been waited for.
        self._is_pending = False
        self._complained = False
        # Why the last attempt to record failed.
        self.problem = ''

    @contextmanager
    def stream(self) -> Iterator[None]:
        """Return the context in which all work on a computation must happen."""
        if self._stream is None:
            yield
            return
        # The device as well: on leaving the stream, torch would switch to the first device.
        with torch.cuda.device(self._device), torch.cuda.stream(self._stream):
            yield

    @property
    def recorded(self) -> int:
        """Number of computations that are replayed."""
        return sum(entry.replay is not None for entry in tuple(self._recordings.values()))

    def run(
        self,
        key: Hashable,
        computation: Computation[ResultT],
        inputs: Mapping[str, Input],
        recordable: bool = True,
        read: Sequence[Tensor] = (),
    ) -> ResultT:
        """
        Run a computation, or replay it.

        :param key: identifies the computation: with the same key, and inputs of the same shapes
            and types, it does the same, whatever their values.
        :param recordable: nothing in it waits for the device, and it has no side effects.
        :param read: other tensors on the device that it reads.
        :return: its result, whose tensors are valid until the next call; in a replay, everything
            else in it comes from the recorded run.
        """
        shapes = tuple((name, x.tensor.shape, x.tensor.dtype) for name, x in inputs.items())
        if self._is_pending:  # the last one failed: it may still be copying from the host
            self._wait()
        recording = self._recording((key, shapes), inputs)
        self._is_pending = True
        self._fill(recording, inputs)
        if recordable and self._record_any and recording.replay is None:
            thread = threading.current_thread()
            if recording.thread is not thread:
                recording.thread, recording.runs = thread, 0
            if recording.runs >= RUNS_BEFORE and not recording.failed:
                self._try_to_record(recording, computation, read)
            recording.runs += 1
        if recordable and recording.replay is not None and recording.result is not None:
            recording.replay()
            return recording.result
        return computation(recording.inputs, False)

    def download(self, result: ResultT) -> dict[str, NDArray[Any]]:
        """Wait for the device, once, and return copies of the tensors of a result."""
        places = self._download.places(result.tensors)
        for name, tensor in result.tensors.items():
            places[name].copy_(tensor.contiguous(), non_blocking=True)
        self._wait()
        return {name: np.array(place.numpy()) for name, place in places.items()}

    def clear(self) -> None:
        """Discard all recordings and their memory, after waiting for pending work."""
        self._wait()
        self._forget_graphs()
        self._recordings.clear()
        self.problem = ''

    def _forget_graphs(self) -> None:
        # All or none: with a graph, torch frees the workspace of cuBLAS on the stream, to which
        # the others would still write.
        for recording in self._recordings.values():
            recording.forget()

    def _wait(self) -> None:
        if self._stream is not None:
            self._stream.synchronize()
        self._is_pending = False

    def _recording(self, key: Hashable, inputs: Mapping[str, Input]) -> _Recording[ResultT]:
        recording = self._recordings.get(key)
        if recording is None:
            if len(self._recordings) >= MOST_RECORDINGS:
                self.clear()
            recording = self._recordings[key] = _Recording(
                {
                    name: torch.empty(
                        given.tensor.shape, dtype=given.tensor.dtype, device=self._device
                    )
                    for name, given in inputs.items()
                }
            )
        return recording

    def _fill(self, recording: _Recording[ResultT], inputs: Mapping[str, Input]) -> None:
        """Copy to the device what is not there yet."""
        new = {
            name: given
            for name, given in inputs.items()
            if given.version is None or given.version != recording.versions.get(name)
        }
        tensors = {name: given.tensor for name, given in new.items()}
        places = self._upload.places({n: t for n, t in tensors.items() if t.device.type == 'cpu'})
        for name, given in new.items():
            value = places[name].copy_(given.tensor) if name in places else given.tensor
            recording.inputs[name].copy_(value, non_blocking=True)
            recording.versions[name] = given.version

    def _try_to_record(
        self,
        recording: _Recording[ResultT],
        computation: Computation[ResultT],
        read: Sequence[Tensor],
    ) -> None:
        try:
            if self._stream is None:
                with _no_garbage():
                    self._remember(recording, computation)
            else:
                self._capture(recording, computation)
            recording.read = read
        except Exception as error:  # from a driver or a prior: it runs as before
            recording.failed = True
            self._forget_graphs()
            said = f'{type(error).__name__}: {error}'.splitlines()[0]
            self.problem = (
                'a computation cannot be recorded as a CUDA graph and runs kernel by kernel, '
                f'which is slower: {said}'
            )
            if not self._complained:
                self._complained = True
                _LOG.warning(self.problem)

    def _capture(self, recording: _Recording[ResultT], computation: Computation[ResultT]) -> None:
        assert self._stream is not None
        # Recordings run one after the other, so they share the memory.
        graphs = [each.graph for each in self._recordings.values() if each.graph is not None]
        pool = graphs[0].pool() if graphs else None
        self._stream.synchronize()
        with _no_garbage():
            # Left unused by earlier runs: the graph has its own memory.
            torch.cuda.empty_cache()
            graph = torch.cuda.CUDAGraph()
            # Other threads may use the device meanwhile.
            graph.capture_begin(pool=pool, capture_error_mode='thread_local')
            try:
                result = computation(recording.inputs, True)
            except BaseException:
                with suppress(Exception):  # it only repeats that something was wrong
                    graph.capture_end()
                raise
            graph.capture_end()
        recording.graph, recording.result, recording.replay = graph, result, graph.replay

    @staticmethod
    def _remember(recording: _Recording[ResultT], computation: Computation[ResultT]) -> None:
        """Keep a function to run again in place of a replay."""
        result = computation(recording.inputs, True)

        def replay() -> None:
            for name, value in computation(recording.inputs, True).tensors.items():
                result.tensors[name].copy_(value)

        recording.result, recording.replay = result, replay
