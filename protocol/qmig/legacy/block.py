"""The `block` section: disks sent with the guest (5.2 to 9.0).

Source: migration/block.c `blk_send`, `block_load` of 5.2 and 7.2.

Each record opens with a word of 8 bytes: a sector number (or a percentage) and flags
in the lowest 9 bits. The loader asks for DEVICE_BLOCK, then PROGRESS, then EOS; flags
that the first of them does not use are ignored, as there.
"""

from __future__ import annotations

import enum
from typing import ClassVar, Final

from qmig._feed import Feed, Steps
from qmig._wire import CountedString, GreedyBytes, Int64ub, Raw, Record, wire, wire_if
from qmig.errors import LocalProtocolError
from qmig.legacy.sections import SectionType
from qmig.legacy.state import StreamState

#: bytes of data in every data block, at the end of a disk too
BLOCK_SIZE: Final = 1 << 20
SECTOR_BITS: Final = 9
_FLAGS: Final = (1 << SECTOR_BITS) - 1


class BlockFlag(enum.IntFlag, boundary=enum.KEEP):
    """`BLK_MIG_FLAG_*`."""

    DEVICE_BLOCK = 0x01
    EOS = 0x02
    PROGRESS = 0x04
    ZERO_BLOCK = 0x08


class BlockDeviceData(Record):
    """1 MiB of a disk, or the statement that it is zero."""

    requirement: ClassVar[str] = "LEG-BLK-010"
    word: int = wire(Int64ub, doc="sector << 9 | DEVICE_BLOCK [| ZERO_BLOCK]")
    device: str = wire(CountedString, doc="name of the block backend")
    data: Raw | None = wire_if("data", GreedyBytes, default=None, doc="1 MiB; absent with ZERO_BLOCK")

    @property
    def sector(self) -> int:
        """First sector, of 512 bytes."""
        return self.word >> SECTOR_BITS

    def validate(self) -> None:
        if not self.word & BlockFlag.DEVICE_BLOCK:
            raise LocalProtocolError(f"word {self.word:#x} lacks DEVICE_BLOCK", requirement="LEG-BLK-010")
        if bool(self.word & BlockFlag.ZERO_BLOCK) != (self.data is None):
            raise LocalProtocolError(
                f"word {self.word:#x} and the presence of data do not agree", requirement="LEG-BLK-011"
            )
        if self.data is not None and len(self.data) != BLOCK_SIZE:
            raise LocalProtocolError(
                f"{len(self.data)} bytes of data where {BLOCK_SIZE} go", requirement="LEG-BLK-011"
            )


class BlockProgress(Record):
    """How much of all disks was sent in the bulk phase."""

    requirement: ClassVar[str] = "LEG-BLK-012"
    word: int = wire(Int64ub, doc="percent << 9 | PROGRESS")

    @property
    def percent(self) -> int:
        return self.word >> SECTOR_BITS


class BlockEos(Record):
    """Ends the block data of one section."""

    requirement: ClassVar[str] = "LEG-BLK-013"
    word: int = wire(Int64ub, doc="EOS; the rest is 0 in what QEMU sends")


class BlockReader:
    """Data of the `block` handler."""

    def __init__(self, feed: Feed, state: StreamState) -> None:
        self.feed = feed

    def section(self, kind: SectionType) -> Steps[None]:
        """Reads records up to the one with EOS."""
        feed = self.feed
        flags = 0
        while not flags & BlockFlag.EOS:
            feed.expect("block record", "LEG-BLK-001")
            word = int.from_bytes((yield from feed.need(8)), "big")
            flags = word & _FLAGS
            if flags & BlockFlag.DEVICE_BLOCK:
                yield (yield from self._data(flags))
            elif flags & BlockFlag.PROGRESS:
                yield (yield from feed.read(BlockProgress))
            elif flags & BlockFlag.EOS:
                yield (yield from feed.read(BlockEos))
            else:
                raise feed.error(f"unknown block migration flags {flags:#x}", "LEG-BLK-002")

    def _data(self, flags: int) -> Steps[BlockDeviceData]:
        feed = self.feed
        feed.expect("BlockDeviceData", BlockDeviceData.requirement)
        start = feed.offset
        length = 9 + (yield from feed.need(9))[8]
        zero = bool(flags & BlockFlag.ZERO_BLOCK)
        length += 0 if zero else BLOCK_SIZE
        view = yield from feed.take(length)
        record, _ = BlockDeviceData.decode(view, () if zero else {"data"})
        return record.place(start, length)
