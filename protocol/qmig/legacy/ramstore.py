"""Where rebuilt RAM is kept: what a caller supplies, and how pages get there in few calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from qmig._wire import Raw
from qmig.legacy.pages import pair_spans
from qmig.legacy.pageset import PageSet

#: Pieces of one write: long enough for the calls not to count, short enough to stay in the cache.
_MOST_PIECES: Final = 256
#: Zero pages between data that are written rather than left out. Many writes cost more than a few
#: zeros; at most as many as there is data before them, so a file at most doubles.
_MOST_FILLED: Final = 16


class RamStore(Protocol):
    """Memory of one block, zero at first. Offsets and sizes are in bytes."""

    def write(self, offset: int, pieces: Sequence[Raw]) -> None:
        """Puts the pieces one after another from `offset` on."""
        ...

    def read(self, offset: int, size: int) -> bytes:
        """What is there, `size` bytes."""
        ...


class BufferStore:
    """A block in a writable buffer."""

    def __init__(self, memory: memoryview) -> None:
        self.memory = memory

    def write(self, offset: int, pieces: Sequence[Raw]) -> None:
        for piece in pieces:
            self.memory[offset : offset + len(piece)] = piece
            offset += len(piece)

    def read(self, offset: int, size: int) -> bytes:
        return bytes(self.memory[offset : offset + size])


class Gather:
    """Joins pages that lie one behind the other into one write. `flush` before anything else is done
    to the store, and at the end."""

    def __init__(self, store: RamStore | None, length: int, page_size: int, written: PageSet) -> None:
        self._store = store
        self._written = written  # pages that may hold something else than zeros
        self._length = length
        self._page_size = page_size
        self._zero = bytes(page_size)
        self._start = self._end = 0  # addresses; the pieces lie between
        self._gap = 0  # zero pages behind them
        self._pieces: list[Raw] = []

    def data(self, address: int, pieces: list[Raw]) -> None:
        """Whole pages for consecutive addresses."""
        if self._store is None:
            return
        if address != self._end + self._gap * self._page_size or not self._pieces:
            self.flush()
            self._start = self._end = address
        elif self._gap:
            self._pieces += [self._zero] * self._gap
        self._gap = 0
        self._pieces += pieces
        self._end = address + len(pieces) * self._page_size
        if len(self._pieces) >= _MOST_PIECES:
            self.flush()

    def zeros(self, address: int, pages: int) -> None:
        """Pages that are zero already."""
        gap = self._gap + pages
        if address == self._end + self._gap * self._page_size and gap <= min(_MOST_FILLED, len(self._pieces)):
            self._gap = gap
        else:
            self.flush()

    def stretch(self, view: memoryview, at: int, address: int) -> tuple[int, int]:
        """Records without names for consecutive pages from `address` on, whose memory is still zero; where
        they end, or fill a page with something else than zeros. The same as `data` and `zeros` for each run
        of them, with less ado."""
        size, zero = self._page_size, self._zero
        self.zeros(address, 0)
        for spans in pair_spans(view, at, size):
            pieces = self._open(address)
            for (low, high), (first, last) in zip(spans[::2], spans[1::2], strict=True):
                pieces += [view[place : place + size] for place in range(low + 8, high, size + 8)]
                at = high
                if first == last:
                    continue
                pages = (last - first) // 9
                if view[first + 8] or (pages > 1 and bytes(view[first + 8 : last : 9]).count(0) < pages):
                    return at, self._close()
                at = last
                if pages <= _MOST_FILLED and pages <= len(pieces):
                    pieces += [zero] * pages
                else:
                    address = self._close() + pages * size
                    self.flush()
                    pieces = self._open(address)
            address = self._close()
            if len(pieces) >= _MOST_PIECES:
                self.flush()
        return at, address

    def _open(self, address: int) -> list[Raw]:
        """The pieces that lie before `address`, with what is missing between filled in."""
        if not self._pieces:
            self._start = self._end = address
        self._pieces += [self._zero] * self._gap
        self._gap = 0
        return self._pieces

    def _close(self) -> int:
        """The address behind the pieces."""
        self._end = self._start + len(self._pieces) * self._page_size
        return self._end

    def flush(self) -> None:
        """Writes what was gathered."""
        pieces, self._pieces, self._gap = self._pieces, [], 0
        if not pieces or self._store is None:
            return
        self._written.add(self._start // self._page_size, len(pieces))
        surplus = self._end - self._length
        if surplus > 0:
            pieces[-1] = pieces[-1][: self._page_size - surplus]
        at = self._start
        for low in range(0, len(pieces), _MOST_PIECES):
            part = pieces[low : low + _MOST_PIECES]
            self._store.write(at, part)
            at += len(part) * self._page_size
