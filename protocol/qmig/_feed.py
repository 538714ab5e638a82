"""Bytes that arrive in chunks, read as if they were there.

Parsers are generators. They ask `yield from feed.need(n)`; the generator yields
`None` while bytes are missing, and yields events in between.

Rule 1: a parser asks for exactly the bytes it knows to be missing. So what is kept
between two chunks is never longer than one incomplete record, and a chunk (a whole
mapped file, say) is otherwise read in place, without a copy.
Rule 2: a chunk is not touched after `settle`: the caller may reuse its buffer.
"""

from __future__ import annotations

from collections.abc import Collection, Generator
from typing import Final, TypeVar

from qmig._wire import NOTHING, NeedBytes, Record
from qmig.errors import LimitExceeded, LocalProtocolError, RemoteProtocolError, TruncatedStream, localised

R = TypeVar("R", bound=Record)
V = TypeVar("V")

#: What parsers are: they yield events, and None for "need data".
Steps = Generator[Record | None, None, V]

_EMPTY: Final = memoryview(b"")


class Feed:
    """The unread bytes of one channel; `offset` is the absolute offset of the next one."""

    __slots__ = ("_chunk", "_head", "_late", "_record", "_requirement", "_start", "_wanted", "eof", "offset")

    def __init__(self, offset: int = 0) -> None:
        self._head = _EMPTY  # left over from earlier chunks, comes first; views of it may be out
        self._late = bytearray()  # arrived behind `_head` while more was needed; never shown
        self._chunk = _EMPTY  # the caller's newest bytes
        self.offset = offset
        self.eof = False
        self._wanted = 1  # bytes from `offset` on that the parser asked for last
        self.expect("stream", "LEG-GEN-001")

    def give(self, data: bytes | bytearray | memoryview) -> None:
        """Takes the next bytes; an empty chunk is the end of input."""
        self.settle()
        self._chunk = memoryview(data).cast("B")
        self.eof = self.eof or not self._chunk

    def settle(self) -> None:
        """Copies what is left of the caller's chunk, so that it may be reused."""
        self._late += self._chunk
        self._chunk = _EMPTY

    def expect(self, record: str, requirement: str) -> None:
        """Names what begins at the current offset, for errors."""
        self._record = record
        self._requirement = requirement
        self._start = self.offset

    @property
    def available(self) -> int:
        return len(self._head) + len(self._late) + len(self._chunk)

    def window(self) -> memoryview:
        """The unread bytes that lie in one piece (at least as many as `need` asked for)."""
        if not self._head and self._late:
            self._join(len(self._late))
        return self._head or self._chunk

    def _join(self, size: int) -> None:
        """Makes the first `size` bytes lie in one piece."""
        missing = size - len(self._head) - len(self._late)
        if missing > 0:
            self._late += self._chunk[:missing]
            self._chunk = self._chunk[missing:]
        joined = self._late
        if self._head:
            joined = bytearray(self._head)
            joined += self._late
        self._head = memoryview(joined).toreadonly()  # nobody writes to it any more
        self._late = bytearray()

    def need(self, size: int) -> Steps[memoryview]:
        """The next `size` bytes, not consumed."""
        while self.available < size:
            if self.eof:
                raise self.truncated(size)
            self._wanted = size
            yield None
        if len(self._head) < size and (self._head or self._late):
            self._join(size)
        return self.window()[:size]

    def skip(self, size: int) -> None:
        """Consumes bytes of the current window."""
        self.offset += size
        if self._head:
            self._head = self._head[size:]
        else:
            self._chunk = self._chunk[size:]

    def take(self, size: int) -> Steps[memoryview]:
        """The next `size` bytes, consumed."""
        view = yield from self.need(size)
        self.skip(size)
        return view

    def at_end(self) -> Steps[bool]:
        """Whether the input ends here; waits for one more byte or the end."""
        while not self.available and not self.eof:
            self._wanted = 0  # nothing, or more
            yield None
        return not self.available

    def read(self, kind: type[R], context: Collection[str] = NOTHING) -> Steps[R]:
        """One record of this kind."""
        self.expect(kind.__name__, kind.requirement)
        size = kind.minimum(context)
        while True:
            view = yield from self.need(size)
            try:
                record, used = kind.decode(view, context)
            except NeedBytes as need:
                size = need.size
                continue
            except LocalProtocolError as error:
                raise localised(error, offset=self._start, record=self._record) from None
            except OverflowError as error:
                raise self.limit(str(error)) from None
            self.skip(used)
            return record.place(self._start, used)

    def drain(self) -> memoryview:
        """All unread bytes, consumed."""
        if self._head or self._late:
            self._join(self.available)
        view = self.window()
        self.skip(len(view))
        return view

    def unread(self, view: memoryview) -> None:
        """Gives back the last `len(view)` bytes that `drain` took."""
        self._head = view
        self.offset -= len(view)

    def waiting(self) -> str:
        """What a parser that asked for bytes waits for."""
        if not self._wanted:
            return f"more behind {self.offset:#x}, or its end"
        begun = self.offset - self._start
        have, wanted = begun + self.available, begun + self._wanted
        if not have:
            return f"a {self._record} at {self._start:#x}"
        return f"the rest of a {self._record} at {self._start:#x} ({have} of {wanted} bytes)"

    def truncated(self, size: int) -> TruncatedStream:
        have = self.available
        return TruncatedStream(
            f"input ends at {self.offset + have:#x}, at least {size - have} bytes short",
            requirement=self._requirement,
            offset=self._start,
            record=self._record,
        )

    def limit(self, message: str) -> LimitExceeded:
        return LimitExceeded(message, requirement=self._requirement, offset=self._start, record=self._record)

    def error(self, message: str, requirement: str | None = None) -> RemoteProtocolError:
        """The record begun at the last `expect` is wrong."""
        return RemoteProtocolError(
            message,
            requirement=requirement or self._requirement,
            offset=self._start,
            record=self._record,
        )
