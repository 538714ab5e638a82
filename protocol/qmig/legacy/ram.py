"""The `ram` section: block list and page records.

Source: migration/ram.c `ram_save_setup`, `ram_save_page_header`, `ram_load_precopy`.

Each record opens with a word of 8 bytes: a page-aligned value, and flags in the bits
below the page size. Page records are never objects of their own: `RamPages` holds
many as runs over the bytes they came in.
"""

from __future__ import annotations

import enum
from typing import ClassVar

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

#: only version that all known QEMU versions write and read
RAM_VERSION = 4


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
        return self.word & ~int(RamFlag.MEM_SIZE)


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
    word = const(Int64ub, int(RamFlag.EOS))


class RamMultifdFlush(Record):
    """Everything sent before on the multifd channels comes before what follows (8.1+)."""

    requirement: ClassVar[str] = "LEG-RAM-021"
    word = const(Int64ub, int(RamFlag.MULTIFD_FLUSH))


class RamHook(Record):
    """RDMA: serve registration now; nothing else in the stream."""

    requirement: ClassVar[str] = "LEG-RAM-022"
    word: int = wire(Int64ub, doc="HOOK, with any bits of the RDMA control above the flags")


class RamZeroPage(Record):
    """A page of one repeated byte, which is 0 in every known version's output."""

    requirement: ClassVar[str] = "LEG-RAM-030"
    word: int = wire(Int64ub, doc="offset in the block | ZERO [| CONTINUE]")
    block: str | None = wire_if("named", CountedString, default=None, doc="absent with CONTINUE")
    fill: int = wire(Int8ub)


class RamPage(Record):
    """A page as it is. Declared for the spec, the writer and the tests; readers
    deliver `RamPages`."""

    requirement: ClassVar[str] = "LEG-RAM-031"
    word: int = wire(Int64ub, doc="offset in the block | PAGE [| CONTINUE]")
    block: str | None = wire_if("named", CountedString, default=None, doc="absent with CONTINUE")
    data: Raw = wire(GreedyBytes, doc="one target page")


class RamXbzrlePage(Record):
    """A difference to the page's present content (see `qmig.legacy.xbzrle`)."""

    requirement: ClassVar[str] = "LEG-RAM-032"
    word: int = wire(Int64ub, doc="offset in the block | XBZRLE [| CONTINUE]")
    block: str | None = wire_if("named", CountedString, default=None, doc="absent with CONTINUE")
    encoding = const(Int8ub, 1, doc="ENCODING_FLAG_XBZRLE")
    delta: bytes = wire(Prefixed(Int16ub, 0xFFFF))


class RamCompressedPage(Record):
    """A page as one zlib stream (capability `compress`, until 9.0)."""

    requirement: ClassVar[str] = "LEG-RAM-033"
    word: int = wire(Int64ub, doc="offset in the block | COMPRESS_PAGE [| CONTINUE]")
    block: str | None = wire_if("named", CountedString, default=None, doc="absent with CONTINUE")
    deflated: bytes = wire(Prefixed(Int32ub, 0x20000))


class RunKind(enum.IntEnum):
    """What the records of one run are. NAMED ones spell the block's idstr again."""

    ZERO = 0
    PAGE = 1
    ZERO_NAMED = 2
    PAGE_NAMED = 3


class RamPages(Record):
    """Consecutive page records of one block, as they came.

    `data` is a view of the caller's chunk: it is valid until the next `receive_data`.
    `runs` says what is in it: (kind, count) in order, `stride(kind)` bytes each."""

    requirement: ClassVar[str] = "LEG-RAM-031"
    block: str = attr(str, doc="RAMBlock idstr")
    page_size: int = attr(int, doc="target page size, bytes")
    kinds: bytes = attr(bytes, doc="`RunKind` of each run")
    counts: tuple[int, ...] = attr(tuple, doc="records in each run")
    data: Raw = wire(GreedyBytes)

    def stride(self, kind: int) -> int:
        """Bytes of one record of this kind."""
        name = 1 + len(self.block.encode("utf-8", "surrogateescape")) if kind & 2 else 0
        return 8 + name + (self.page_size if kind & 1 else 1)
