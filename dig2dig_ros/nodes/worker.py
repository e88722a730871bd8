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

"""A thread that always processes the latest item, so that callbacks never wait for it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
import threading
import time
from typing import Generic, TypeVar

ItemT = TypeVar('ItemT')

# Seconds that the current item may take after it was asked to stop, until it counts as stuck.
STOP_SECONDS = 4.0


class LatestWorker(Generic[ItemT]):
    """
    Runs a function on items in its own thread; at most one item waits.

    Whatever happens to an item, the next one is processed.

    :param process: called with each item, in the worker's thread.
    :param failed: called there with what ``process`` raised, if it did.
    """

    def __init__(
        self,
        process: Callable[[ItemT], None],
        failed: Callable[[BaseException], None] = lambda error: None,
    ) -> None:
        self._process = process
        self._failed = failed
        self._begun = 0.0
        self._condition = threading.Condition()
        self._waiting: ItemT | None = None
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name='fusion', daemon=True)
        self._thread.start()

    def offer(self, item: ItemT) -> ItemT | None:
        """Hand over an item; return the waiting one that it supersedes, if any."""
        with self._condition:
            superseded, self._waiting = self._waiting, item
            self._condition.notify()
        return superseded

    @property
    def is_stopping(self) -> bool:
        """Whether the current item should be cancelled; may be read from any thread."""
        return self._stopping

    @property
    def busy_seconds(self) -> float:
        """For how long the current item has been processed; 0 without one."""
        begun = self._begun
        return time.monotonic() - begun if begun else 0.0

    def stop(self, timeout: float = STOP_SECONDS) -> ItemT | None:
        """
        Finish the current item, then end the thread.

        :param timeout: seconds to wait for the current item.
        :return: the item that was waiting and will not be processed, if any.
        :raises TimeoutError: the current item is not done in time; call it again later.
        """
        with self._condition:
            self._stopping = True
            self._condition.notify()
        self._thread.join(timeout)
        if self._thread.is_alive():
            raise TimeoutError(f'the current fusion did not end within {timeout:g} s')
        waiting, self._waiting = self._waiting, None
        return waiting

    def _run(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._stopping or self._waiting is not None)
                if self._stopping:
                    return
                item, self._waiting = self._waiting, None
            if item is None:
                continue
            self._begun = time.monotonic()
            try:
                self._process(item)
            except BaseException as error:  # SystemExit would end the thread silently
                with suppress(Exception):
                    self._failed(error)
            self._begun = 0.0
            del item  # or its images would be held until the next ones come
