"""Which pages of a RAM block were seen: one bit per page, in pieces, never one object per page.

Rule 1: memory follows what came, not what a length claims. A piece whose pages are all in the set is one
shared number; another costs 512 bytes for 4096 pages.
Rule 2: there is a bound on the pieces of one migration; beyond it the set gives up, and says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

_SHIFT: Final = 12
#: pages of one piece
PIECE: Final = 1 << _SHIFT
_MASK: Final = PIECE - 1
_FULL: Final = (1 << PIECE) - 1
#: Pieces of all blocks of one migration: 1 TiB of 4 KiB pages, 100 MB at worst and 10 MB for a full scan.
MAX_PIECES: Final = 1 << 16


class Budget:
    """Counts the pieces of one migration."""

    __slots__ = ("left",)

    def __init__(self, left: int = MAX_PIECES) -> None:
        self.left = left

    @property
    def exceeded(self) -> bool:
        return self.left < 0


class PageSet:
    """Numbers of pages."""

    __slots__ = ("_budget", "_pieces")

    def __init__(self, budget: Budget) -> None:
        self._pieces: dict[int, int] = {}
        self._budget = budget

    def __bool__(self) -> bool:
        return any(self._pieces.values())

    def __len__(self) -> int:
        """Pieces, which is what the budget counts."""
        return len(self._pieces)

    def add(self, first: int, count: int) -> bool:
        """Adds `count` pages from `first` on; whether one of them was there before."""
        there = 0
        if count >> _SHIFT > self._budget.left + len(self._pieces):
            self._budget.left = -1
        for piece, mask in self._known(first, count) if self._budget.exceeded else _pieces(first, count):
            bits = self._pieces.get(piece)
            if bits is None:
                if self._budget.exceeded:
                    continue
                self._budget.left -= 1
                bits = 0
            there |= bits & mask
            bits |= mask
            self._pieces[piece] = _FULL if bits == _FULL else bits
        return bool(there)

    def discard(self, first: int, count: int) -> int:
        """Takes pages out; how many of them were there."""
        taken = 0
        for piece, mask in self._known(first, count):
            bits = self._pieces[piece]
            if bits & mask:
                taken += (bits & mask).bit_count()
                self._pieces[piece] = bits & ~mask
        return taken

    def subtract(self, other: PageSet) -> None:
        """Takes out all pages that are in `other`."""
        for piece in self._pieces.keys() & other._pieces.keys():
            self._pieces[piece] &= ~other._pieces[piece]

    def bitmap(self, pages: int) -> bytes:
        """The first `pages` pages as a bitmap of whole bytes, page 0 in bit 0 of byte 0."""
        made = bytearray((pages + 7) // 8)
        for piece, bits in self._pieces.items():
            at = piece * (PIECE // 8)
            size = min(len(made) - at, PIECE // 8)
            if bits and size > 0:
                made[at : at + size] = (bits & ((1 << 8 * size) - 1)).to_bytes(size, "little")
        if pages % 8:
            made[-1] &= (1 << pages % 8) - 1
        return bytes(made)

    def _known(self, first: int, count: int) -> Iterator[tuple[int, int]]:
        """The part of the range that can be in the set, as (piece, mask): a range may claim any size."""
        end = first + count
        lowest, beyond = first >> _SHIFT, (end + _MASK) >> _SHIFT
        if beyond - lowest <= len(self._pieces):
            wanted = [piece for piece in range(lowest, beyond) if piece in self._pieces]
        else:
            wanted = [piece for piece in self._pieces if lowest <= piece < beyond]
        for piece in wanted:
            base = piece << _SHIFT
            low, high = max(first - base, 0), min(end - base, PIECE)
            yield piece, (1 << high) - (1 << low)

    @property
    def exceeded(self) -> bool:
        """Whether there were more pieces than the budget allows: the set is then incomplete."""
        return self._budget.exceeded

    def count(self) -> int:
        """How many pages are in the set."""
        return sum(map(int.bit_count, self._pieces.values()))

    def copy_to(self, other: PageSet, first: int, count: int) -> int:
        """Adds to `other` those of these pages that are in the set; how many they are."""
        copied = 0
        for piece, mask in self._known(first, count):
            bits = self._pieces[piece] & mask
            if bits:
                copied += bits.bit_count()
                other._merge(piece, bits)
        return copied

    def _merge(self, piece: int, bits: int) -> None:
        if piece not in self._pieces:
            if self._budget.exceeded:
                return
            self._budget.left -= 1
        self._pieces[piece] = self._pieces.get(piece, 0) | bits

    def touches(self, first: int, count: int) -> bool:
        """Whether any of these pages is in the set."""
        return any(self._pieces[piece] & mask for piece, mask in self._known(first, count))

    def has(self, first: int, count: int) -> bool:
        """Whether all of these pages are in the set."""
        return self.missing(first, count) is None

    def missing(self, first: int, count: int) -> int | None:
        """The first page of the range that is not in the set."""
        for piece, mask in _pieces(first, count):
            absent = mask & ~self._pieces.get(piece, 0)
            if absent:
                return (piece << _SHIFT) + (absent & -absent).bit_length() - 1
        return None

    def next_run(self, start: int, stop: int) -> tuple[int, int] | None:
        """The first run of pages of the set between two pages, as (first, count). It may go on behind
        `count`, where a piece of the set ends. The caller bounds the range."""
        for piece, mask in _pieces(start, stop - start):
            bits = self._pieces.get(piece, 0) & mask
            if bits:
                low = (bits & -bits).bit_length() - 1
                bits >>= low
                return (piece << _SHIFT) + low, (~bits & (bits + 1)).bit_length() - 1
        return None

    def ranges(self) -> Iterator[tuple[int, int]]:
        """The pages as (first, count), in order."""
        for piece in sorted(self._pieces):
            bits = self._pieces[piece]
            at = piece << _SHIFT
            while bits:
                skip = (bits & -bits).bit_length() - 1
                bits >>= skip
                run = (~bits & (bits + 1)).bit_length() - 1
                yield at + skip, run
                bits >>= run
                at += skip + run


def _pieces(first: int, count: int) -> Iterator[tuple[int, int]]:
    """The range as (piece, mask)."""
    end = first + count
    while first < end:
        piece, low = first >> _SHIFT, first & _MASK
        size = min(end - first, PIECE - low)
        yield piece, ((1 << size) - 1) << low
        first += size


class Ledger:
    """Page sets by block."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._blocks: dict[str, PageSet] = {}

    def __getitem__(self, block: str) -> PageSet:
        found = self._blocks.get(block)
        if found is None:
            found = self._blocks[block] = PageSet(self._budget)
        return found

    def items(self) -> Iterator[tuple[str, PageSet]]:
        yield from self._blocks.items()

    def rescale(self, factor: int) -> None:
        """Counts in pages that are so many times smaller."""
        for block, old in list(self._blocks.items()):
            self._budget.left += len(old)
            new = self._blocks[block] = PageSet(self._budget)
            for first, count in old.ranges():
                new.add(first * factor, count * factor)

    def pieces(self) -> int:
        """How many pieces they have in all."""
        return sum(len(pages) for pages in self._blocks.values())
