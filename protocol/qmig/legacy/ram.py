"""The `ram` section: block list and records other than page batches.

Source: migration/ram.c `ram_save_setup`, `save_page_header`, `ram_load_precopy`.

Each record opens with a word of 8 bytes: a page-aligned value, and flags in the bits
below the page size. Page records are never objects of their own: see
`qmig.legacy.pages`.
"""

from __future__ import annotations

import enum
import itertools
from array import array
from collections.abc import Iterable, Iterator
from typing import ClassVar, Final, NamedTuple

from qmig import limits
from qmig._wire import (
    CountedString,
    GreedyBytes,
    Int8ub,
    Int16ub,
    Int32ub,
    Int64ub,
    Prefixed,
    Raw,
    Record,
    attr,
    const,
    wire,
    wire_if,
)
from qmig.errors import LocalProtocolError
from qmig.legacy import progression
from qmig.legacy.pages import Ascent, PageScan, Run, Stretch, batch, record_runs, strides

#: only version that all known QEMU versions write and read
RAM_VERSION = 4
#: All flags that exist; pages of 1 KiB and more leave these bits free.
FLAG_BITS: Final = 0x3FF
#: AVR has the smallest, 64 KiB is the largest that flags and offsets leave room for
TARGET_PAGE_SIZES: Final = frozenset(1 << bits for bits in range(8, 17))


class RamFlag(enum.IntFlag, boundary=enum.KEEP):
    """`RAM_SAVE_FLAG_*`."""

    FULL = 0x001
    ZERO = 0x002
    MEM_SIZE = 0x004
    PAGE = 0x008
    EOS = 0x010
    CONTINUE = 0x020
    XBZRLE = 0x040
    HOOK = 0x080
    COMPRESS_PAGE = 0x100
    MULTIFD_FLUSH = 0x200


class RamMemSize(Record):
    """Opens the block list: the sum of all `used_length`, in bytes, with flag MEM_SIZE."""

    requirement: ClassVar[str] = "LEG-RAM-010"
    word: int = wire(Int64ub, doc="total | MEM_SIZE")

    @property
    def total(self) -> int:
        return self.word & ~int(RamFlag.MEM_SIZE | RamFlag.CONTINUE)


class RamBlockEntry(Record):
    """One RAM block of the list."""

    requirement: ClassVar[str] = "LEG-RAM-011"
    idstr: str = wire(CountedString)
    used_length: int = wire(Int64ub, doc="bytes in use")
    page_size: int | None = wire_if(
        "page_size", Int64ub, default=None, doc="of the backing; postcopy-ram and not the host's page size"
    )
    gpa: int | None = wire_if(
        "gpa", Int64ub, default=None, doc="guest-physical address of the region; x-ignore-shared"
    )


class RamEos(Record):
    """Ends the RAM data of one section."""

    requirement: ClassVar[str] = "LEG-RAM-020"
    word: int = wire(Int64ub, doc="EOS; receivers ignore CONTINUE and the address")

    def __init__(self, *, word: int = int(RamFlag.EOS)) -> None:
        super().__init__(word=word)


class RamMultifdFlush(Record):
    """Everything sent before on the multifd channels comes before what follows (8.1+)."""

    requirement: ClassVar[str] = "LEG-RAM-021"
    word: int = wire(Int64ub, doc="MULTIFD_FLUSH; receivers ignore CONTINUE and the address")

    def __init__(self, *, word: int = int(RamFlag.MULTIFD_FLUSH)) -> None:
        super().__init__(word=word)


class RamHook(Record):
    """RDMA: serve registrations now; nothing else is in the stream."""

    requirement: ClassVar[str] = "LEG-RAM-022"
    word: int = wire(Int64ub, doc="HOOK; receivers ignore CONTINUE and the address")

    def __init__(self, *, word: int = int(RamFlag.HOOK)) -> None:
        super().__init__(word=word)


class RamZeroPage(Record):
    """A page of one repeated byte, which is 0 in every known version's output.

    Declared for the spec and the tests; readers deliver `RamPages`."""

    requirement: ClassVar[str] = "LEG-RAM-030"
    word: int = wire(Int64ub, doc="offset in the block | ZERO [| CONTINUE]")
    block: str | None = wire_if("named", CountedString, default=None, doc="absent with CONTINUE")
    fill: int = wire(Int8ub)


class RamPage(Record):
    """A page as it is.

    Declared for the spec and the tests; readers deliver `RamPages`."""

    requirement: ClassVar[str] = "LEG-RAM-031"
    word: int = wire(Int64ub, doc="offset in the block | PAGE [| CONTINUE]")
    block: str | None = wire_if("named", CountedString, default=None, doc="absent with CONTINUE")
    data: Raw = wire(GreedyBytes, doc="one target page")


class RamXbzrlePage(Record):
    """A difference to the page's present content.

    See `qmig.legacy.xbzrle`. Readers deliver `RamDeltas`."""

    requirement: ClassVar[str] = "LEG-RAM-032"
    word: int = wire(Int64ub, doc="offset in the block | XBZRLE [| CONTINUE]")
    block: str | None = wire_if("named", CountedString, default=None, doc="absent with CONTINUE")
    encoding = const(Int8ub, 1, doc="ENCODING_FLAG_XBZRLE")
    delta: bytes = wire(Prefixed(Int16ub, limits.PAGE_SIZE))


class RamCompressedPage(Record):
    """A page as one zlib stream (capability `compress`, until 9.0).

    Readers deliver `RamDeltas`."""

    requirement: ClassVar[str] = "LEG-RAM-033"
    word: int = wire(Int64ub, doc="offset in the block | COMPRESS_PAGE [| CONTINUE]")
    block: str | None = wire_if("named", CountedString, default=None, doc="absent with CONTINUE")
    deflated: bytes = wire(Prefixed(Int32ub, 2 * limits.PAGE_SIZE))


def compress_bound(size: int) -> int:
    """zlib's bound on the output for `size` bytes of input (`compressBound`), in bytes."""
    return size + (size >> 12) + (size >> 14) + (size >> 25) + 13


class RamPages(Record):
    """Consecutive PAGE and ZERO records of one block, as they came.

    `data` is a view of the caller's chunk: it is valid until the next `receive_data`.
    `ascents` counts the records, cut where the scan moved backwards; one is usual."""

    requirement: ClassVar[str] = "LEG-RAM-031"
    block: str = attr(str, doc="RAMBlock idstr")
    page_size: int = attr(int, doc="target page size, bytes")
    ascents: tuple[Ascent, ...] = attr(tuple, doc="counts, and first and last offsets")
    data: Raw = wire(GreedyBytes)

    def __init__(
        self, *, block: str, page_size: int, data: Raw, ascents: tuple[Ascent, ...] | None = None
    ) -> None:
        """Without `ascents` they are worked out. Raises `LocalProtocolError` if `data` is not
        whole PAGE and ZERO records of this block."""
        if ascents is None:
            scan = PageScan(memoryview(data), len(data), page_size, 1 << 64, raw_name(block))
            while scan.at < len(data):
                before = scan.at
                scan.run()
                if scan.at == before:
                    raise LocalProtocolError(
                        f"no page record of {block!a} at byte {before:#x}", requirement=self.requirement
                    )
            ascents = scan.ascents()
        super().__init__(block=block, page_size=page_size, ascents=ascents, data=data)

    @classmethod
    def of(
        cls, block: str, page_size: int, pages: Iterable[tuple[int, Raw | int]], *, named: bool
    ) -> RamPages:
        """Records for (offset, content) pairs: a page's bytes, or the one byte that fills it.

        With `named` the first record names the block. Raises `LocalProtocolError` for an
        offset that is not a multiple of `page_size` or bytes of another length."""
        pieces: list[Raw] = []
        name = raw_name(block)
        for offset, content in pages:
            size = page_size if isinstance(content, int) else len(content)
            if offset % page_size or size != page_size or not 0 <= offset < 1 << 64:
                raise LocalProtocolError(
                    f"{size} bytes at offset {offset:#x} are no page of {page_size} bytes",
                    requirement=cls.requirement,
                )
            flags = RamFlag.ZERO if isinstance(content, int) else RamFlag.PAGE
            word = offset | flags | (0 if named else RamFlag.CONTINUE)
            pieces.append(word.to_bytes(8, "big"))
            if named:
                pieces.append(bytes([len(name)]) + name)
                named = False
            pieces.append(bytes([content]) if isinstance(content, int) else content)
        return cls(block=block, page_size=page_size, data=b"".join(pieces))

    @property
    def normal(self) -> int:
        """PAGE records."""
        return sum(ascent.normal for ascent in self.ascents)

    @property
    def zero(self) -> int:
        """ZERO records."""
        return sum(ascent.zero for ascent in self.ascents)

    @property
    def consecutive(self) -> bool:
        """Whether each page is the one behind its predecessor."""
        first, last, normal, zero = self.ascents[0]
        return len(self.ascents) == 1 and last - first == (normal + zero - 1) * self.page_size

    def stride(self, kind: int) -> int:
        """Bytes of one record of this `RunKind`."""
        name = 1 + len(raw_name(self.block)) if kind & 2 else 0
        return 8 + name + (self.page_size if kind & 1 else 1)

    def runs(self, stretch: Stretch | None = None) -> Iterator[Run]:
        """The records in order, as runs of one kind for consecutive pages, but for what `stretch` takes."""
        first = self.ascents[0].first if self.consecutive else None
        return record_runs(memoryview(self.data), self.page_size, raw_name(self.block), first, stretch)

    def pieces(self) -> Iterator[RamPages]:
        """The batch, cut between its ascents."""
        view, low, at = memoryview(self.data), 0, 0
        name = raw_name(self.block)
        sizes = strides(self.page_size, len(name))
        flags = b""
        for ascent in self.ascents if len(self.ascents) > 1 else ():
            count = ascent.normal + ascent.zero
            while len(flags) < count and (found := batch(view, at, len(view), self.page_size, name)):
                flags += found.flags
                at = found.stop
            high = low + sum(map(sizes.__getitem__, flags[:count]))
            flags = flags[count:]
            piece = RamPages(
                block=self.block, page_size=self.page_size, ascents=(ascent,), data=view[low:high]
            )
            yield piece.place(self.offset + low, high - low)
            low = high
        if not low:
            yield self

    def addresses(self) -> array[int]:
        """The offset of every record's page in the block, in order, in bytes."""
        if self.consecutive:
            first, _, normal, zero = self.ascents[0]
            return progression.numbers(first, self.page_size, normal + zero)
        found = array("Q")
        view, at = memoryview(self.data), 0
        while (records := batch(view, at, len(view), self.page_size, raw_name(self.block))) is not None:
            found.extend(records.addresses)
            at = records.stop
        return found


class Delta(NamedTuple):
    """One record of `RamDeltas`: its flag, its page's offset in the block, the encoded bytes."""

    kind: RamFlag
    address: int
    payload: memoryview


class RamDeltas(Record):
    """Consecutive XBZRLE and COMPRESS_PAGE records of one block, as they came.

    `data` is a view of the caller's chunk: it is valid until the next `receive_data`."""

    requirement: ClassVar[str] = "LEG-RAM-032"
    block: str = attr(str, doc="RAMBlock idstr")
    page_size: int = attr(int, doc="target page size, bytes")
    starts: tuple[int, ...] = attr(tuple, doc="where each record begins in `data`")
    data: Raw = wire(GreedyBytes)

    def records(self) -> Iterator[Delta]:
        """The records in order."""
        view = memoryview(self.data)
        for start, stop in itertools.pairwise((*self.starts, len(view))):
            word = int.from_bytes(view[start : start + 8], "big")
            at = start + 8 if word & RamFlag.CONTINUE else start + 9 + view[start + 8]
            xbzrle = bool(word & RamFlag.XBZRLE)
            kind = RamFlag.XBZRLE if xbzrle else RamFlag.COMPRESS_PAGE
            yield Delta(kind, word & -self.page_size, view[at + (3 if xbzrle else 4) : stop])

    def ascents(self) -> Iterator[Ascent]:
        """As in `RamPages`, with XBZRLE counted as normal and COMPRESS_PAGE as zero."""
        first = last = -1
        xbzrle = compressed = 0
        for kind, address, _ in self.records():
            if address <= last:
                yield Ascent(first, last, xbzrle, compressed)
                last, xbzrle, compressed = -1, 0, 0
            first = address if last < 0 else first
            last = address
            xbzrle += kind is RamFlag.XBZRLE
            compressed += kind is not RamFlag.XBZRLE
        yield Ascent(first, last, xbzrle, compressed)


def raw_name(idstr: str) -> bytes:
    """The bytes of a name on the wire."""
    return idstr.encode("utf-8", "surrogateescape")
