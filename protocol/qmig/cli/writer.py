"""Writes to files in a thread, so that a stream is read on meanwhile: copying into the page cache is most of
the work of an extraction, and Python's lock is free during it.

Rule 1: what waits lies in buffers that are used over and over, `AHEAD` of them, so memory stays bounded;
after `settle` all of it is in the files.
Rule 2: an error of the system comes out of the next call, and of `settle` at the latest.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from queue import SimpleQueue
from threading import Thread
from typing import Final

from qmig._wire import Raw

#: buffers, and the bytes of one; what does not fit into one is written at once
AHEAD: Final = 4
SIZE: Final = 1 << 20


class _Job:
    """A buffer, and what is to be done with it."""

    def __init__(self) -> None:
        self.memory = memoryview(bytearray(SIZE))
        self.descriptor = self.offset = self.size = 0


class Writer:
    """A thread that writes, from the first write on."""

    def __init__(self) -> None:
        self._todo: SimpleQueue[_Job | None] = SimpleQueue()
        self._free: SimpleQueue[_Job] = SimpleQueue()
        self._thread: Thread | None = None
        self._problem: OSError | None = None

    def write(self, descriptor: int, offset: int, pieces: Sequence[Raw]) -> None:
        """Has the pieces written one behind the other; the descriptor must stay open until `settle`."""
        if sum(map(len, pieces)) > SIZE:
            self.settle()
            write_all(descriptor, offset, memoryview(b"".join(pieces)))
            return
        if self._thread is None:
            for _ in range(AHEAD):
                self._free.put(_Job())
            self._thread = Thread(target=self._run, daemon=True)
            self._thread.start()
        job = self._free.get()
        memory, size = job.memory, 0
        for piece in pieces:
            memory[size : size + len(piece)] = piece
            size += len(piece)
        job.descriptor, job.offset, job.size = descriptor, offset, size
        self._todo.put(job)
        self._check()

    def settle(self) -> None:
        """Returns when all is written."""
        if self._thread is not None:
            for job in [self._free.get() for _ in range(AHEAD)]:
                self._free.put(job)
        self._check()

    def close(self) -> None:
        """Ends the thread, behind what waits."""
        if self._thread is not None:
            self._todo.put(None)
            self._thread.join()
            self._thread = None
            self._free = SimpleQueue()
        self._check()

    def _check(self) -> None:
        problem, self._problem = self._problem, None
        if problem is not None:
            raise problem

    def _run(self) -> None:
        while (job := self._todo.get()) is not None:
            if self._problem is None:  # behind an error nothing more is tried
                try:
                    write_all(job.descriptor, job.offset, job.memory[: job.size])
                except OSError as problem:
                    self._problem = problem
            self._free.put(job)


def write_all(descriptor: int, offset: int, rest: memoryview) -> None:
    """All of it, however often the system has to be asked."""
    while rest:
        done = os.pwrite(descriptor, rest, offset)
        rest, offset = rest[done:], offset + done
