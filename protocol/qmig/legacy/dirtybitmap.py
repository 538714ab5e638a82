"""The `dirty-bitmap` section: chunks, each with a byte of flags.

Source: migration/block-dirty-bitmap.c `send_bitmap_header`, `dirty_bitmap_load`.

Rule 1: what a chunk is follows QEMU's loader: START before COMPLETE before BITS; the
other flags of the three are then ignored. EOS may stand on any of them.
Rule 2: a name that a chunk leaves out is that of the chunk before it, across sections.
Rule 3: a chunk that names nothing yet is delivered; QEMU drops the bitmaps and goes on.
"""

from __future__ import annotations

import enum
from typing import Any, ClassVar, Final, cast

from qmig import limits
from qmig._feed import Feed, Steps
from qmig._wire import (
    CountedString,
    Field,
    Int8ub,
    Int32ub,
    Int64ub,
    Prefixed,
    Record,
    attr,
    wire,
    wire_if,
)
from qmig.errors import LocalProtocolError
from qmig.legacy.sections import SectionType
from qmig.legacy.state import StreamState


class DirtyBitmapFlag(enum.IntFlag, boundary=enum.KEEP):
    """`DIRTY_BITMAP_MIG_FLAG_*`."""

    EOS = 0x01
    ZEROES = 0x02
    BITMAP_NAME = 0x04
    DEVICE_NAME = 0x08
    START = 0x10
    COMPLETE = 0x20
    BITS = 0x40
    EXTRA_FLAGS = 0x80


class DirtyBitmapStartFlag(enum.IntFlag, boundary=enum.KEEP):
    """`DIRTY_BITMAP_MIG_START_FLAG_*`."""

    ENABLED = 0x01
    PERSISTENT = 0x02
    AUTOLOAD = 0x04


#: bits of `start_flags` that must be 0
START_RESERVED: Final = 0xF8


def _known(doc: str) -> str | None:
    """A value that the reader adds, None while it is unknown."""
    field = cast(Field, attr(str, doc=doc))
    field.default = None
    return cast(Any, field)  # type: ignore[no-any-return]


class DirtyBitmapChunk(Record):
    """What every chunk begins with. Alone: a chunk that only ends the section."""

    requirement: ClassVar[str] = "LEG-DBM-001"
    flags: int = wire(Int8ub, doc="`DirtyBitmapFlag`")
    node_alias: str | None = wire_if(
        "node", CountedString, default=None, doc="block node or device; absent: as before"
    )
    bitmap_alias: str | None = wire_if(
        "bitmap", CountedString, default=None, doc="the bitmap; absent: as before"
    )
    node: str | None = _known("alias in effect")
    bitmap: str | None = _known("alias in effect")

    def validate(self) -> None:
        wanted = (self.node_alias is not None) * DirtyBitmapFlag.DEVICE_NAME
        wanted |= (self.bitmap_alias is not None) * DirtyBitmapFlag.BITMAP_NAME
        if self.flags & (DirtyBitmapFlag.DEVICE_NAME | DirtyBitmapFlag.BITMAP_NAME) != wanted:
            raise LocalProtocolError(
                f"flags {self.flags:#x} and the aliases do not agree", requirement="LEG-DBM-002"
            )


class DirtyBitmapStart(DirtyBitmapChunk):
    """A bitmap begins."""

    requirement: ClassVar[str] = "LEG-DBM-010"
    granularity: int = wire(Int32ub, doc="bytes of disk per bit")
    start_flags: int = wire(Int8ub, doc="`DirtyBitmapStartFlag`")

    def validate(self) -> None:
        super().validate()
        if self.start_flags & START_RESERVED:
            raise LocalProtocolError(
                f"reserved bits in the start flags {self.start_flags:#x}", requirement="LEG-DBM-011"
            )


class DirtyBitmapComplete(DirtyBitmapChunk):
    """The bitmap is whole."""

    requirement: ClassVar[str] = "LEG-DBM-012"


class DirtyBitmapBits(DirtyBitmapChunk):
    """Bits of a range; without `bits` (flag ZEROES) all of them are clear."""

    requirement: ClassVar[str] = "LEG-DBM-013"
    start_sector: int = wire(Int64ub, doc="in units of 512 bytes")
    nr_sectors: int = wire(Int32ub, doc="in units of 512 bytes")
    bits: bytes | None = wire_if(
        "bits",
        Prefixed(Int64ub, limits.BITMAP_BITS),
        default=None,
        doc="one bit for each piece of `granularity` bytes, padded with zeros to a multiple of 32 bytes",
    )

    def validate(self) -> None:
        super().validate()
        if bool(self.flags & DirtyBitmapFlag.ZEROES) != (self.bits is None):
            raise LocalProtocolError(
                f"flags {self.flags:#x} and the presence of bits do not agree", requirement="LEG-DBM-014"
            )


class DirtyBitmapReader:
    """Data of the `dirty-bitmap` handler."""

    def __init__(self, feed: Feed, state: StreamState) -> None:
        self.feed = feed
        self.node: str | None = None
        self.bitmap: str | None = None

    def section(self, kind: SectionType) -> Steps[None]:
        """Reads chunks up to the one with EOS."""
        flags = 0
        while not flags & DirtyBitmapFlag.EOS:
            self.feed.expect("DirtyBitmapChunk", "LEG-DBM-003")
            flags = (yield from self.feed.need(1))[0]
            if flags & DirtyBitmapFlag.EXTRA_FLAGS:
                raise self.feed.error(
                    f"flags {flags:#x} announce the form of 2 or 4 bytes, which no QEMU sends "
                    "and whose upper bytes every QEMU loses"
                )
            yield (yield from self._chunk(flags))

    def _chunk(self, flags: int) -> Steps[DirtyBitmapChunk]:
        record = yield from self.feed.read(_kind(flags), _context(flags))
        start, length = record.offset, record.size
        if record.node_alias is not None:
            self.node = record.node_alias
        if record.bitmap_alias is not None:
            self.bitmap = record.bitmap_alias
        values = {**record.values(), "node": self.node, "bitmap": self.bitmap}
        return type(record)(**values).place(start, length)


def _kind(flags: int) -> type[DirtyBitmapChunk]:
    if flags & DirtyBitmapFlag.START:
        return DirtyBitmapStart
    if flags & DirtyBitmapFlag.COMPLETE:
        return DirtyBitmapComplete
    return DirtyBitmapBits if flags & DirtyBitmapFlag.BITS else DirtyBitmapChunk


def _context(flags: int) -> set[str]:
    words = {"node": DirtyBitmapFlag.DEVICE_NAME, "bitmap": DirtyBitmapFlag.BITMAP_NAME}
    present = {word for word, flag in words.items() if flags & flag}
    return present if flags & DirtyBitmapFlag.ZEROES else present | {"bits"}
