"""Finds runs of page records without touching Python once per page.

Rule 1: regular expressions step over whole records; what they cannot say (offset within
the block, order of the offsets, the name) is checked on all records of a match at once.
`test_ram_pages.py` holds the result to the construct declaration.
Rule 2: no expression depends on a block's length or name, so a hostile stream cannot make
us compile one per record.
Rule 3: groups repeat greedily with a bound, never possessively: before 3.11.5 (Debian 12 has 3.11.2) `re`
matches bytes too many behind a possessive group. Greedy costs the same, as nothing follows that could
make it go back, and the bound keeps what `re` remembers of each repetition small.
Rule 4: a full scan sends page after page. `groups` recognises 64 KiB of consecutive pages
by one back-referenced prefix, which makes the count by kind and the proof that the
offsets ascend free of charge. Behind a range of one kind only, `_alike` looks whether more of that
kind follow, without the expression. Everything else goes through `batch`, 512 records at a time.
"""

from __future__ import annotations

import enum
import functools
import itertools
import operator
import re
import struct
import sys
from array import array
from collections.abc import Callable, Generator, Iterator
from typing import Final, NamedTuple, TypeAlias

from qmig.legacy import progression

#: records that `batch` looks at in one go: bounds its lists
BATCH: Final = 512
#: ends of events: bounds the arrays that describe one
MAX_RECORDS: Final = 1 << 18
MAX_ASCENTS: Final = 1024
#: 64 KiB groups found by one match: more groups, fewer calls
GROUPS: Final = 2
_SPAN: Final = 65536
#: pages of one kind that are looked for at first, behind a range of that kind
_ALIKE: Final = 64
#: (PAGE run)(ZERO run) pairs found by one match
PAIRS: Final = 8

_PAGE: Final = 0x28  # PAGE | CONTINUE
_ZERO: Final = 0x22  # ZERO | CONTINUE
_PAGE_NAMED: Final = 0x08
_ZERO_NAMED: Final = 0x02
_WORD: Final = struct.Struct(">Q")

_Match: TypeAlias = Callable[[memoryview, int, int], "re.Match[bytes] | None"]
_Find: TypeAlias = Callable[[memoryview, int, int], list[bytes]]


class RunKind(enum.IntEnum):
    """What the records of one run are. NAMED ones spell the block's idstr."""

    ZERO = 0
    PAGE = 1
    ZERO_NAMED = 2
    PAGE_NAMED = 3


_KINDS: Final = {
    _ZERO: RunKind.ZERO,
    _PAGE: RunKind.PAGE,
    _ZERO_NAMED: RunKind.ZERO_NAMED,
    _PAGE_NAMED: RunKind.PAGE_NAMED,
}


class Ascent(NamedTuple):
    """Records of which each lies above the one before: first and last offset in the block
    (bytes), how many of each kind."""

    first: int
    last: int
    normal: int
    zero: int


class Run(NamedTuple):
    """`pages` records of one kind for consecutive pages from `address` on; the first record
    is at byte `at` of the batch's data."""

    kind: RunKind
    address: int
    pages: int
    at: int


def _aligned(page_size: int) -> bytes:
    """Accepts bits 8 to 15 of a page-aligned word."""
    return b"[" + b"".join(b"\\x%02x" % value for value in range(0, 256, max(page_size >> 8, 1))) + b"]"


class _Patterns(NamedTuple):
    """What recognises records that do not name their block."""

    match: _Match  # up to BATCH records
    words: _Find  # the words of records that `match` found
    groups: tuple[tuple[_Match, int], ...]  # 64 KiB of consecutive pages, and how many times


@functools.lru_cache(maxsize=16)
def _patterns(page_size: int) -> _Patterns:
    head = b".{6}" + _aligned(page_size)

    def compiled(text: bytes) -> re.Pattern[bytes]:
        return re.compile(text, re.DOTALL)

    # The kinds are worked out from a match's length, which is unambiguous below this many records.
    most = (page_size + 8) // 9 * page_size // _SPAN
    groups = [(compiled(_group(page_size, n)).match, n) for n in (GROUPS, 1) if n <= most]
    return _Patterns(
        match=compiled(b"(?:%s(?:\\x28.{%d}|\\x22.)){0,%d}" % (head, page_size, BATCH)).match,
        words=compiled(b"(.{7}[\\x22\\x28])(?:(?<=\\x28).{%d}|.)" % page_size).findall,
        groups=tuple(groups),
    )


@functools.lru_cache(maxsize=16)
def _pairs(page_size: int) -> _Match:
    """PAIRS times a run of PAGE and a run of ZERO records that do not name their block, each of at most
    BATCH."""
    head = b".{6}" + _aligned(page_size)
    runs = b"((?:%s\\x28.{%d}){0,%d})((?:%s\\x22.){0,%d})" % (head, page_size, BATCH, head, BATCH)
    return re.compile(runs * PAIRS, re.DOTALL).match


def _group(page_size: int, count: int) -> bytes:
    """`count` times all pages of one 64 KiB range in order; captures each range's upper 6 bytes."""
    text = b""
    for number in range(1, count + 1):
        for low in range(0, _SPAN, page_size):
            prefix = b"\\%d" % number if low else b"(.{6})"
            text += prefix + b"\\x%02x(?:\\x28.{%d}|\\x22.)" % (low >> 8, page_size)
    return text


@functools.lru_cache(maxsize=512)
def _named(page_size: int, length: int) -> tuple[_Match, Callable[..., list[tuple[bytes, ...]]]]:
    """As `_Patterns.match` and `.words`, for records with or without a name of this length."""
    head = b".{6}" + _aligned(page_size)
    name = b".{%d}" % (length + 1)
    match = b"(?:%s(?:\\x28.{%d}|\\x22.|\\x08%s.{%d}|\\x02%s.)){0,%d}" % (
        head,
        page_size,
        name,
        page_size,
        name,
        BATCH,
    )
    words = b"(.{7}\\x28).{%d}|(.{7}\\x22).|(.{7}\\x08)(%s).{%d}|(.{7}\\x02)(%s)." % (
        page_size,
        name,
        page_size,
        name,
    )
    return re.compile(match, re.DOTALL).match, re.compile(words, re.DOTALL).findall


class Batch(NamedTuple):
    """Some consecutive records of one block."""

    addresses: array[int]
    flags: bytes
    stop: int  # where the last one ends


def strides(page_size: int, name: int) -> dict[int, int]:
    """Low byte of the word -> bytes of such a record; `name` is the length of the idstr."""
    named = 9 + name
    return {
        _ZERO: 9,
        _PAGE: 8 + page_size,
        _ZERO_NAMED: named + 1,
        _PAGE_NAMED: named + page_size,
    }


def batch(view: memoryview, at: int, end: int, page_size: int, name: bytes) -> Batch | None:
    """Up to `BATCH` whole page records of the block `name` that lie in `view[at:end]`."""
    patterns = _patterns(page_size)
    found = patterns.match(view, at, end)
    assert found is not None
    stop = found.end()
    if stop > at:
        return Batch(*_split(patterns.words(view, at, stop)), stop)
    if view[at + 8 : at + 9 + len(name)] != bytes([len(name)]) + name:
        return None
    match, words = _named(page_size, len(name))
    found = match(view, at, end)
    assert found is not None
    taken = []
    other = bytes([len(name)]) + name
    for page, zero, page_named, first, zero_named, second in words(view, at, found.end()):
        if (page_named or zero_named) and other not in (first, second):
            break
        taken.append(page or zero or page_named or zero_named)
    if not taken:
        return None
    addresses, flags = _split(taken)
    return Batch(addresses, flags, at + sum(map(strides(page_size, len(name)).__getitem__, flags)))


def _split(words: list[bytes]) -> tuple[array[int], bytes]:
    raw = bytearray().join(words)
    flags = bytes(raw[7::8])
    raw[7::8] = bytes(len(words))
    return big_endian(raw), flags


def big_endian(raw: bytes | bytearray) -> array[int]:
    """Words of 8 bytes as numbers."""
    values = array("Q", bytes(raw))
    if sys.byteorder == "little":
        values.byteswap()
    return values


class PageScan:
    """Page records of one block at the start of `view`; `at` is where the last one found ends.

    Only whole records below `end` count, and only up to one that is outside the block."""

    def __init__(self, view: memoryview, end: int, page_size: int, used_length: int, name: bytes) -> None:
        self.view = view
        self.end = end
        self.page_size = page_size
        self.used_length = used_length
        self.name = name
        self.at = 0
        self.records = 0
        self.closed: list[Ascent] = []
        self.first = self.last = -1
        self.normal = self.zero = 0

    def ascents(self) -> tuple[Ascent, ...]:
        return (*self.closed, Ascent(self.first, self.last, self.normal, self.zero))

    def add(self, first: int, last: int, normal: int, zero: int) -> None:
        """Counts records that ascend from `first` to `last`."""
        if first <= self.last:
            self.closed.append(Ascent(self.first, self.last, self.normal, self.zero))
            self.normal = self.zero = 0
            self.last = -1
        if self.last < 0:
            self.first = first
        self.last = last
        self.normal += normal
        self.zero += zero
        self.records += normal + zero

    def run(self) -> None:
        """Finds as many as there are, within the bounds of one event."""
        groups = _patterns(self.page_size).groups
        dense = bool(groups)
        while self.records < MAX_RECORDS and len(self.closed) < MAX_ASCENTS and self.at < self.end:
            if dense:
                self._steps()
                if self._groups(groups):
                    continue
            last, records = self.last, self.records
            if not self._batch():
                return
            dense = bool(groups) and self.last - last == (self.records - records) * self.page_size

    def _steps(self) -> None:
        """Consecutive pages up to the next multiple of 64 KiB."""
        view, at, page = self.view, self.at, self.page_size
        address = self.last + page if self.last >= 0 else 0
        start = address
        normal = zero = 0
        while address % _SPAN and address < self.used_length and at + 9 <= self.end:
            word = _WORD.unpack_from(view, at)[0]
            if word == address | _PAGE and at + 8 + page <= self.end:
                at += 8 + page
                normal += 1
            elif word == address | _ZERO:
                at += 9
                zero += 1
            else:
                break
            address += page
        if address > start:
            self.add(start, address - page, normal, zero)
            self.at = at

    def _groups(self, groups: tuple[tuple[_Match, int], ...]) -> bool:
        """Whole 64 KiB ranges of consecutive pages; behind one of a single kind, what follows of it."""
        view, at, end, stride = self.view, self.at, self.end, 8 + self.page_size
        start = address = self.last + self.page_size if self.last >= 0 else 0
        if address % _SPAN:
            return False
        normal = zero = 0
        alike = None
        limit = min(self.used_length, start + (MAX_RECORDS - self.records) * self.page_size)
        for match, count in groups:
            span = count * _SPAN
            while not alike and address + span <= limit and (found := match(view, at, end)) is not None:
                prefix = address >> 16
                if found.groups() != tuple([n.to_bytes(6, "big") for n in range(prefix, prefix + count)]):
                    break
                pages, zeros = divmod(found.end() - at, stride)
                normal += pages
                zero += zeros // 9
                at = found.end()
                address += span
                alike = _ZERO if not pages else None if zeros else _PAGE
        if address == start:
            return False
        self.add(start, address - self.page_size, normal, zero)
        self.at = at
        if alike:
            self._alike(alike)
        return True

    def _alike(self, flags: int) -> None:
        """Consecutive pages of one kind (of ZERO ones, those that are filled with 0)."""
        size, kinds = (9, (0, 1)) if flags == _ZERO else (8 + self.page_size, (1, 0))
        count = _ALIKE
        while self._room(size, count):
            address = self.last + self.page_size
            records = self.view[self.at : self.at + count * size]
            if flags == _ZERO:
                first, step = (address | flags) << 8, self.page_size << 8
                known = progression.following(records.tobytes(), 9, first, step)
            else:
                words = records.cast("Q")[:: size // 8].tobytes()
                known = progression.following(words, 8, address | flags, self.page_size)
            if known:
                last = address + (known - 1) * self.page_size
                self.add(address, last, known * kinds[0], known * kinds[1])
                self.at += known * size
            if known < count:
                return
            count = min(2 * count, progression.MOST)

    def _room(self, size: int, count: int) -> bool:
        """Whether there may be so many more records of `size` bytes, for consecutive pages."""
        space = min(self.used_length - self.last, (MAX_RECORDS - self.records) * self.page_size)
        return count * size <= self.end - self.at and count * self.page_size < space

    def _batch(self) -> bool:
        """Up to BATCH records in any order."""
        found = batch(self.view, self.at, self.end, self.page_size, self.name)
        if found is None:
            return False
        addresses, flags, stop = found
        if max(addresses) >= self.used_length:
            good = next(i for i, address in enumerate(addresses) if address >= self.used_length)
            if not good:
                return False
            addresses, flags = addresses[:good], flags[:good]
            stop = self.at + sum(map(strides(self.page_size, len(self.name)).__getitem__, flags))
        begin = 0
        turns = list(map(operator.le, addresses[1:], addresses))
        while begin < len(addresses):
            try:
                after = turns.index(True, begin) + 1
            except ValueError:
                after = len(addresses)
            normal = flags.count(_PAGE, begin, after) + flags.count(_PAGE_NAMED, begin, after)
            self.add(addresses[begin], addresses[after - 1], normal, after - begin - normal)
            begin = after
        self.at = stop
        return True


#: takes unnamed records of consecutive pages from a place in a view and an offset in the block on; where it
#: ends in both
Stretch: TypeAlias = Callable[[memoryview, int, int], tuple[int, int]]


def record_runs(
    view: memoryview, page_size: int, name: bytes, first: int | None, stretch: Stretch | None = None
) -> Iterator[Run]:
    """All records of one batch of pages as runs, in order. `first` is the first page's offset if the
    pages are known to be consecutive; then `stretch` may take what it likes of the unnamed ones itself."""
    at, end = 0, len(view)
    address = first or 0
    sizes = strides(page_size, len(name))
    while at < end:
        if first is not None and stretch is not None:
            at, address = stretch(view, at, address)
        elif first is not None:
            at, address = yield from _pair_runs(view, at, address, page_size)
        found = batch(view, at, end, page_size, name) if at < end else None
        if found is None:
            return
        steps = [address - index * page_size for index, address in enumerate(found.addresses)]
        index = 0
        for (flag, _), group in itertools.groupby(zip(found.flags, steps, strict=True)):
            count = len(list(group))
            address = found.addresses[index]
            yield Run(_KINDS[flag], address, count, at)
            index += count
            at += count * sizes[flag]
            address += count * page_size


def pair_spans(view: memoryview, at: int, page_size: int) -> Iterator[tuple[tuple[int, int], ...]]:
    """Where records without names lie from `at` on: a span of PAGE records, one of ZERO records, and so on;
    any of them may be empty. The pages have to be known to be consecutive."""
    match, end = _pairs(page_size), len(view)
    while (found := match(view, at, end)) is not None and found.end() > at:
        yield found.regs[1:]
        at = found.end()


def _pair_runs(
    view: memoryview, at: int, address: int, page_size: int
) -> Generator[Run, None, tuple[int, int]]:
    """Runs of records without names, for pages known to be consecutive from `address` on; returns where
    they end, in the view and in the block."""
    kinds = ((RunKind.PAGE, 8 + page_size), (RunKind.ZERO, 9)) * PAIRS
    for spans in pair_spans(view, at, page_size):
        for (low, high), (kind, stride) in zip(spans, kinds, strict=True):
            if high > low:
                pages = (high - low) // stride
                yield Run(kind, address, pages, low)
                address += pages * page_size
                at = high
    return at, address
